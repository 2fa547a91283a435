// SPDX-License-Identifier: GPL-2.0

//! Packets on their way through the stack: at the hooks around the ruleset, and in a rule.
//!
//! What the ingress hook is given is another thing, see [`Skb`](crate::ffi::skb::Skb).

use crate::{
    ffi::{
        self,
        c,
        skb,
        DevRef,
        Rcu, //
    },
    net::{
        ct::{
            Ct,
            CtRef, //
        },
        family::{
            Family,
            V4, //
        },
        nf_tables::NftRef,
        route::Dst, //
    }, //
};
use core::{
    ops::Deref,
    ptr,
    slice, //
};
use nft_flow::direction::Direction;

/// A packet at a hook of IPv4 or IPv6.
///
/// # Invariants
///
/// - `skb` is a valid packet for `'a`, with its IP header at `data`, in the linear part. It keeps
///   its route and its conntrack entry, if it has them.
/// - RCU is held for `'a`.
/// - The transport header, of protocol `proto`, is `thoff` bytes from `data`.
#[derive(Clone, Copy)]
pub(crate) struct StackPkt<'a> {
    skb: *mut c::sk_buff,
    thoff: u32,
    proto: u8,
    rcu: Rcu<'a>,
}

impl<'a> StackPkt<'a> {
    /// The packet that netfilter passes to a hook function; [`None`] if it is a fragment or has no
    /// transport header.
    ///
    /// # Safety
    ///
    /// Called for the packet and the state of a hook of IPv4 or IPv6, which are not used any more
    /// when the hook returns.
    pub(crate) unsafe fn from_hook(
        skb: *mut c::sk_buff,
        state: *const c::nf_hook_state,
    ) -> Option<Self> {
        let mut proto = 0;

        // INVARIANT: By the contract of this function.
        // SAFETY: The same; RCU is held in hooks.
        unsafe {
            let thoff = c::nfo_skb_transport(skb, (*state).pf, &mut proto);

            (thoff >= 0).then(|| Self {
                skb,
                thoff: thoff as u32,
                proto,
                rcu: Rcu::assume(),
            })
        }
    }

    /// The section that the packet is handled in.
    pub(crate) fn rcu(self) -> Rcu<'a> {
        self.rcu
    }

    /// The transport protocol.
    pub(crate) fn proto(self) -> u8 {
        self.proto
    }

    /// The conntrack entry, and the direction that the packet travels in.
    pub(crate) fn ct(self) -> Option<(Ct, Direction)> {
        // SAFETY: By the type invariant.
        unsafe { Ct::of_skb(self.skb) }
    }

    /// The entry that conntrack is about to find, which has not seen the packet, in the hook
    /// PRE_ROUTING with this state.
    pub(crate) fn ct_ahead(self, state: &c::nf_hook_state) -> Option<(CtRef, Direction)> {
        // SAFETY: By the type invariant; fragments were put together, as it has a transport header.
        unsafe { CtRef::ahead(self.skb, state) }
    }

    /// Whether it is an ICMP error about the connection whose entry it has.
    pub(crate) fn is_error(self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { Ct::is_error(self.skb, self.proto) }
    }

    /// What the TCP header says, if there is a whole one.
    pub(crate) fn tcp(self) -> Option<c::nfo_tcp> {
        // SAFETY: By the type invariant.
        unsafe { skb::tcp(self.skb, self.thoff) }
    }

    /// Whether the packet, if it has a route, is sent to the next hop of `dst`, a route of the same
    /// family.
    pub(crate) fn goes_by(self, dst: &Dst, nfproto: u8) -> bool {
        // SAFETY: By the type invariants.
        unsafe { c::nfo_same_nexthop(skb::route(self.skb), dst.as_ptr(), nfproto) }
    }

    /// Whether the packet came through IPsec.
    pub(crate) fn has_secpath(self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { c::nfo_skb_secpath(self.skb) }
    }

    /// What tells the packet from others, in the ingress hook as well.
    pub(crate) fn fingerprint(self) -> u32 {
        // SAFETY: By the type invariant.
        unsafe { c::nfo_skb_fingerprint(self.skb, 0, self.thoff, self.proto) }
    }

    /// What it looks like when it leaves.
    pub(crate) fn left(self) -> c::nfo_left {
        let mut left = c::nfo_left {
            ports: 0,
            ttl: 0,
            has_checksum: false,
            dont_fragment: false,
        };

        // SAFETY: By the type invariant.
        unsafe { c::nfo_skb_left(self.skb, self.thoff, &mut left) };
        left
    }

    /// The IP header, without options.
    pub(crate) fn header(self) -> &'a [u8] {
        // SAFETY: By the type invariant; an IPv6 header has 40 bytes, one of IPv4 20 at least.
        unsafe {
            let data = (*self.skb).data;

            slice::from_raw_parts(data, if *data >> 4 == 6 { 40 } else { 20 })
        }
    }

    /// Mark and priority.
    pub(crate) fn mark_and_priority(self) -> (u32, u32) {
        // SAFETY: By the type invariant; plain unions of integers.
        unsafe {
            let headers = (*self.skb).__bindgen_anon_4.headers.as_ref();

            (headers.__bindgen_anon_4.mark, headers.priority)
        }
    }

    /// The address that the frame came from, zeroes if that is not known.
    pub(crate) fn mac_source(self) -> [u8; 6] {
        let mut mac = [0; 6];

        // SAFETY: By the type invariant.
        unsafe { c::nfo_skb_source(self.skb, mac.as_mut_ptr()) };
        mac
    }
}

/// A packet that meets a rule in the forward hook.
///
/// # Invariants
///
/// `pkt` is of a packet in the forward hook: it has a route and an ingress device. What it is
/// dereferenced to is the same packet.
#[derive(Clone, Copy)]
pub(crate) struct ForwardPkt<'a> {
    pkt: &'a c::nft_pktinfo,
    stack: StackPkt<'a>,
}

impl<'a> Deref for ForwardPkt<'a> {
    type Target = StackPkt<'a>;

    fn deref(&self) -> &StackPkt<'a> {
        &self.stack
    }
}

impl<'a> ForwardPkt<'a> {
    /// What nf_tables passes to an expression.
    ///
    /// # Safety
    ///
    /// Called for an expression in the forward hook, which does not use the result any more when it
    /// returns.
    pub(crate) unsafe fn from_eval(pkt: *const c::nft_pktinfo) -> Self {
        // INVARIANT: By the contract of this function; nf_tables has found the transport header.
        // SAFETY: The same. RCU is held in hooks.
        unsafe {
            let pkt = &*pkt;

            Self {
                pkt,
                stack: StackPkt {
                    skb: pkt.skb,
                    thoff: pkt.thoff.into(),
                    proto: pkt.tprot,
                    rcu: Rcu::assume(),
                },
            }
        }
    }

    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    pub(crate) fn nfproto(self) -> u8 {
        // SAFETY: By the type invariant.
        unsafe { (*self.pkt.state).pf }
    }

    /// Shows the packet, for which `nft` got no flow, to tracers. The string is the reason.
    #[cold]
    pub(super) fn trace_skip(self, nft: NftRef, (reason, len): (*const u8, u32)) {
        let ct = self.ct().map_or(ptr::null_mut(), |(ct, _)| ct.as_ptr());

        // SAFETY: By the type invariants; the caller has the string.
        unsafe {
            let dev = (*self.pkt.state).in_;

            ffi::trace::flow_skip(self.skb, ct, dev, nft.as_ptr(), reason, len);
        }
    }

    /// The device that the packet came in by, as routing sees it.
    pub(crate) fn iif(self) -> Option<DevRef<'a>> {
        // SAFETY: By the type invariant; RCU is held.
        unsafe { DevRef::from_raw((*self.pkt.state).in_, self.rcu) }
    }

    /// Whether the IPv4 header has options.
    pub(crate) fn has_ip_options(self) -> bool {
        // SAFETY: By the type invariant: an IPv4 packet has passed the IPv4 input path.
        self.nfproto() == V4::NFPROTO && unsafe { c::nfo_skb_ip_options(self.skb) }
    }

    /// Whether the IPv6 header is followed by destination options.
    pub(crate) fn has_destination_options<F: Family>(self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { F::has_options(self.pkt) }
    }

    /// For calls into C.
    pub(crate) fn info(self) -> &'a c::nft_pktinfo {
        self.pkt
    }
}
