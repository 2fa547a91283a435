// SPDX-License-Identifier: GPL-2.0

//! Why a connection has no flow, as far as that can be said without a packet of it.

use super::Flowtable;
use crate::{
    ffi,
    net::ct::Ct, //
};
use nft_flow::{
    key::L4Proto,
    reason::SkipReason, //
};

/// Why a connection is not in a flowtable.
pub(crate) struct Refusal {
    /// The reason of the expression that adds flows.
    pub(crate) why: SkipReason,
    /// Jiffies since it said so, if it keeps a packet's refusal for a while and this is one.
    pub(crate) ago: Option<u32>,
}

impl Flowtable {
    /// What the expression would say of a packet of the connection, as far as that does not depend
    /// on the packet; in the order in which it asks. Otherwise what it has said a moment ago.
    ///
    /// None: no packet of the connection has come to it lately.
    pub(crate) fn refusal(&self, ct: Ct) -> Option<Refusal> {
        let now = |why| Some(Refusal { why, ago: None });

        if !ct.is_confirmed() {
            return now(SkipReason::Unconfirmed);
        }
        let Some(proto) = L4Proto::from_number(ct.l4proto()) else {
            return now(SkipReason::L4Proto);
        };
        match proto {
            L4Proto::Icmp | L4Proto::Icmpv6 if !ct.is_echo() => return now(SkipReason::L4Proto),
            L4Proto::Sctp if !ct.is_sctp_established() => return now(SkipReason::SctpState),
            L4Proto::Tcp if !ct.is_tcp_established() => return now(SkipReason::TcpState),
            _ => {}
        }
        if ct.has_helper() {
            return now(SkipReason::Helper);
        }
        if ct.has_seq_adjust() {
            return now(SkipReason::SeqAdjust);
        }
        if ct.has_nat_clash() {
            return now(SkipReason::NatClash);
        }
        if ct.is_dying() {
            return now(SkipReason::CtDying);
        }
        if self.rewritten().contains(ct, self.generation()) {
            return now(SkipReason::Rewritten);
        }
        if !self.watch.lets(ct, self.counts()) {
            return now(SkipReason::Count);
        }
        if self.is_full() {
            return now(SkipReason::MaxFlows);
        }
        let (why, when) = self.last_refusal(ct)?;

        Some(Refusal {
            why,
            ago: Some(ffi::jiffies32().wrapping_sub(when)),
        })
    }
}
