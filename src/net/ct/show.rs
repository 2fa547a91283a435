// SPDX-License-Identifier: GPL-2.0

//! What is told about a conntrack entry, and how one is found by what somebody says of it.

use super::{
    Ct,
    CtRef, //
};
use crate::ffi::{
    c,
    NetRef, //
};
use core::ptr::NonNull;
use nft_flow::desc::{
    Addrs,
    Tuple, //
};

const IPS_SRC_NAT: usize = c::ip_conntrack_status_IPS_SRC_NAT as usize;
const IPS_DST_NAT: usize = c::ip_conntrack_status_IPS_DST_NAT as usize;

impl Ct {
    /// The zone (`NF_CT_DEFAULT_ZONE_ID` where this kernel has none).
    pub(crate) fn zone(self) -> u16 {
        // SAFETY: Valid by the type invariant.
        unsafe { c::nfo_ct_zone(self.as_ptr()) }
    }

    /// Whether source and destination of packets are translated.
    pub(crate) fn nat(self) -> [bool; 2] {
        let status = self.status();

        [IPS_SRC_NAT, IPS_DST_NAT].map(|bit| status & bit != 0)
    }
}

impl CtRef {
    /// The entry of packets of IPv4 or IPv6 with these addresses and ports, as they lie in a packet.
    pub(crate) fn find(net: NetRef<'_>, proto: u8, zone: u16, tuple: &Tuple) -> Option<Self> {
        let (family, addrs) = match &tuple.addrs {
            Addrs::V4 { src, dst } => (c::NFPROTO_IPV4, [src.as_ptr(), dst.as_ptr()]),
            Addrs::V6 { src, dst } => (c::NFPROTO_IPV6, [src.as_ptr(), dst.as_ptr()]),
        };
        let ports = tuple
            .ports
            .map_or([0; 2], |p| [p.src.to_be(), p.dst.to_be()]);
        let mut addrs = addrs;

        // SAFETY: By the type invariant of `NetRef`; addresses are as long as the family says.
        let ct = NonNull::new(unsafe {
            c::nfo_ct_find(
                net.as_ptr(),
                family as u8,
                proto,
                zone,
                addrs.as_mut_ptr(),
                ports.as_ptr(),
            )
        })?;

        // INVARIANT: With a reference.
        Some(Self(Ct(ct)))
    }
}
