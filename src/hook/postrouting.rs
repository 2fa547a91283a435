// SPDX-License-Identifier: GPL-2.0

//! The postrouting hook: what the ruleset has made of a packet is what becomes of the flow's next
//! ones.

use crate::{
    ffi::{
        c,
        skb, //
    },
    flow::shared::FlowShared,
    flowtable::registry::Netns,
    net::ct::Ct, //
};
use kernel::ffi::c_uint;
use nft_flow::{
    direction::Direction, //
    key::L4Proto,
};

/// A packet leaves the ruleset, and has not been dropped.
///
/// # Safety
///
/// Called by netfilter only, with what [`Netns::add`] has registered and a packet.
pub(super) unsafe extern "C" fn postrouting(
    netns: *mut kernel::ffi::c_void,
    skb: *mut c::sk_buff,
    state: *const c::nf_hook_state,
) -> c_uint {
    // SAFETY: Netfilter passes what was registered, which lives until a grace period after it was
    // unregistered, and a packet that keeps its conntrack entry; RCU is held.
    unsafe {
        if let Some((ct, dir)) = Ct::of_skb(skb).filter(|(ct, _)| ct.is_offloaded()) {
            let netns = &*netns.cast::<Netns>();

            if let Some(flow) = netns.find(ct) {
                flow_postrouting(flow, dir, skb, (*state).pf);
            }
        }
    }
    c::NF_ACCEPT
}

/// Handles a packet of a flow, or an ICMP error about it, that has passed the ruleset.
///
/// # Safety
///
/// As for [`postrouting`].
#[cold]
unsafe fn flow_postrouting(flow: &FlowShared, dir: Direction, packet: *mut c::sk_buff, family: u8) {
    const TCP: u8 = L4Proto::Tcp.number();
    let mut proto = 0;

    // SAFETY: A packet that leaves has its network header in the linear part; its route is valid,
    // if it has one.
    unsafe {
        let thoff = c::nfo_skb_transport(packet, family, &mut proto);

        if thoff < 0 || Ct::is_error(packet, proto) {
            return;
        }
        if proto == TCP {
            if let Some(tcp) = skb::tcp(packet, thoff as u32) {
                flow.observe_tcp(dir, &tcp);
            }
        }
        if c::nfo_skb_secpath(packet) {
            flow.came_secured(dir);
        }
        flow.postrouting(dir, packet, thoff as u32, proto);
    }
}
