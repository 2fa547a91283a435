// SPDX-License-Identifier: GPL-2.0

//! The postrouting hook: what the ruleset has made of a packet is what becomes of the flow's next
//! ones.

use crate::{
    ffi::c,
    flowtable::registry::Netns,
    net::{
        ct::Ct,
        packet::StackPkt, //
    }, //
};
use kernel::ffi::c_uint;
use nft_flow::key::L4Proto;

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
    // SAFETY: By the contract of this function.
    if unsafe { Ct::of_skb(skb) }.is_some_and(|(ct, _)| ct.is_offloaded()) {
        // SAFETY: Netfilter passes what was registered, which lives until a grace period after it
        // was unregistered, and a packet.
        let (netns, pkt) = unsafe { (&*netns.cast::<Netns>(), StackPkt::from_hook(skb, state)) };

        if let Some(pkt) = pkt {
            flow_postrouting(netns, pkt);
        }
    }
    c::NF_ACCEPT
}

/// Handles a packet of a flow, or an ICMP error about it, that has passed the ruleset.
#[cold]
fn flow_postrouting(netns: &Netns, pkt: StackPkt<'_>) {
    const TCP: u8 = L4Proto::Tcp.number();

    let Some((ct, dir)) = pkt.ct().filter(|_| !pkt.is_error()) else {
        return;
    };
    let Some(flow) = netns.find(pkt.rcu(), ct) else {
        return;
    };
    if pkt.proto() == TCP {
        if let Some(tcp) = pkt.tcp() {
            flow.observe_tcp(dir, &tcp);
        }
    }
    if pkt.has_secpath() {
        flow.came_secured(dir);
    }
    flow.postrouting(dir, pkt);
}
