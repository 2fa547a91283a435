// SPDX-License-Identifier: GPL-2.0

//! The postrouting hook: what the ruleset has made of a packet is what becomes of the flow's next
//! ones.

use crate::{
    flowtable::registry::Netns,
    net::packet::StackPkt, //
};
use nft_flow::key::L4Proto;

/// Handles a packet of a flow, or an ICMP error about it, that has passed the ruleset.
#[cold]
pub(super) fn postrouting(netns: &Netns, pkt: StackPkt<'_>) {
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
