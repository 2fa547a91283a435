// SPDX-License-Identifier: GPL-2.0

//! Packets that are about to enter the ruleset, before conntrack has seen them.

use crate::{
    ffi::c,
    flowtable::registry::Netns,
    net::packet::StackPkt, //
};
use nft_flow::{
    key::L4Proto,
    parse::tcp, //
};

/// A packet is about to meet conntrack, which may take it for the end of a connection. It may have
/// come by a device that is not in the flowtable, in fragments, with options: whatever has not come
/// here before is judged by windows of long ago.
#[inline(always)]
pub(super) fn prerouting(netns: &Netns, pkt: StackPkt<'_>, state: &c::nf_hook_state) {
    const TCP: u8 = L4Proto::Tcp.number();

    if pkt.proto() != TCP {
        return;
    }
    if let Some(tcp) = pkt.tcp().filter(|tcp| tcp.flags & tcp::CONTROL != 0) {
        flow_prerouting(netns, pkt, state, &tcp);
    }
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
