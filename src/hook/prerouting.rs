// SPDX-License-Identifier: GPL-2.0

//! Packets that are about to enter the ruleset, before conntrack has seen them.

use crate::{
    ffi::c,
    flowtable::registry::Netns,
    net::packet::StackPkt, //
};
use kernel::ffi::c_uint;
use nft_flow::{
    key::L4Proto,
    parse::tcp, //
};

/// A packet is about to meet conntrack, which may take it for the end of a connection. It may have
/// come by a device that is not in the flowtable, in fragments, with options: whatever has not come
/// here before is judged by windows of long ago.
///
/// # Safety
///
/// Called by netfilter only, with what [`Netns::add`] has registered and a packet.
pub(super) unsafe extern "C" fn prerouting(
    netns: *mut kernel::ffi::c_void,
    skb: *mut c::sk_buff,
    state: *const c::nf_hook_state,
) -> c_uint {
    const TCP: u8 = L4Proto::Tcp.number();

    // SAFETY: Netfilter passes what was registered, which lives until a grace period after it was
    // unregistered, and a packet.
    let (netns, state, pkt) = unsafe {
        let pkt = StackPkt::from_hook(skb, state);

        (&*netns.cast::<Netns>(), &*state, pkt)
    };

    if let Some(pkt) = pkt.filter(|pkt| pkt.proto() == TCP) {
        if let Some(tcp) = pkt.tcp().filter(|tcp| tcp.flags & tcp::CONTROL != 0) {
            flow_prerouting(netns, pkt, state, &tcp);
        }
    }
    c::NF_ACCEPT
}

/// Synchronises conntrack before it sees a SYN, FIN or RST of a flow.
#[cold]
fn flow_prerouting(netns: &Netns, pkt: StackPkt<'_>, state: &c::nf_hook_state, tcp: &c::nfo_tcp) {
    if let Some((ct, dir)) = pkt.ct_ahead(state) {
        if let Some(flow) = Some(ct.get())
            .filter(|ct| ct.is_offloaded())
            .and_then(|ct| netns.find(pkt.rcu(), ct))
        {
            flow.sync_ct(dir, tcp);
        }
    }
}
