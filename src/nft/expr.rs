// SPDX-License-Identifier: GPL-2.0

//! The nftables expression `flow_offload` (`flow add @f`, `flow offload @f`).
//!
//! Its `eval` is what every packet of a connection that is not offloaded yet passes, the first
//! ones included: the cheap refusals come first. A refusal breaks the rule, as every expression
//! that does not match, and is counted with its reason.
//!
//! nf_tables prefers a type with the family of the table to the in-tree one, which has none; hence
//! three types.

use crate::{
    ffi::c,
    flowtable::{
        Flowtable,
        Store, //
    },
    net::{
        family::{
            Family,
            V4,
            V6, //
        },
        forward_path,
        nft_expr::{
            self,
            expr_ops,
            ExprOps,
            ExprType,
            FlowtableExpr,
            NamedFlowtable, //
        },
        packet::ForwardPkt, //
        trace,
    },
    stats, //
};
use kernel::prelude::*;
use nft_flow::{
    key::L4Proto,
    parse::tcp,
    reason::{
        SkipReason,
        TeardownReason, //
    }, //
};

/// Adds the connection of a packet in the forward hook, which is of family `F`, to a flowtable.
fn offload<F: Store>(pkt: ForwardPkt<'_>, ft: &Flowtable) -> Result<(), SkipReason> {
    let (ct, dir) = pkt.ct().ok_or(SkipReason::NoCt)?;

    // An ICMP error has the entry of the connection that it is about.
    if pkt.is_error() {
        return Err(SkipReason::L4Proto);
    }
    if ft.watch.wants(ft.generation()) {
        ft.schedule_gc();
    }
    let mut known = None;
    if ct.is_offloaded() {
        if let Some(flow) = ft.find(pkt.rcu(), ct) {
            if !ft.watch.lets(ct, ft.counts()) {
                flow.teardown(TeardownReason::Count);
                return Err(SkipReason::Count);
            }
            known = flow.rule_hit(dir, pkt);
        }
        // Still, or in another flowtable; if the flow was torn down just now, it is added anew
        // below.
        if ct.is_offloaded() {
            return Err(SkipReason::AlreadyOffloaded);
        }
    }
    if !ct.is_confirmed() {
        return Err(SkipReason::Unconfirmed);
    }
    let proto = L4Proto::from_number(ct.l4proto())
        .filter(|proto| F::has(*proto) && proto.number() == pkt.proto())
        .ok_or(SkipReason::L4Proto)?;
    if matches!(proto, L4Proto::Icmp | L4Proto::Icmpv6) && !ct.is_echo() {
        return Err(SkipReason::L4Proto);
    }
    if proto == L4Proto::Sctp && !ct.is_sctp_established() {
        return Err(SkipReason::SctpState);
    }
    if proto == L4Proto::Tcp {
        let header = pkt
            .tcp()
            .filter(|_| ct.is_tcp_established())
            .ok_or(SkipReason::TcpState)?;
        if header.flags & (tcp::FIN | tcp::RST) != 0 {
            return Err(SkipReason::TcpFinRst);
        }
        // Conntrack lets it pass, and waits for what comes of it.
        if header.flags & tcp::SYN != 0 {
            return Err(SkipReason::TcpState);
        }
    }
    if pkt.has_secpath() {
        return Err(SkipReason::SecPath);
    }
    if pkt.has_ip_options() {
        return Err(SkipReason::IpOptions);
    }
    if ct.has_helper() {
        return Err(SkipReason::Helper);
    }
    if ct.has_seq_adjust() {
        return Err(SkipReason::SeqAdjust);
    }
    if ct.has_nat_clash() {
        return Err(SkipReason::NatClash);
    }
    if ct.is_dying() {
        return Err(SkipReason::CtDying);
    }
    if let Some(why) = ft.backoff_reason(ct) {
        return Err(why);
    }
    if ft.rewritten().contains(ct, ft.generation()) {
        return Err(SkipReason::Rewritten);
    }
    if !ft.watch.lets(ct, ft.counts()) {
        return Err(SkipReason::Count);
    }
    // Before anything is looked for.
    if ft.is_full() {
        return Err(SkipReason::MaxFlows);
    }
    if !ct.claim() {
        return Err(SkipReason::AlreadyOffloaded);
    }

    let flow = forward_path::discover::<F>(pkt, ct, dir, known, ft.nft(), &ft.seed)
        .inspect_err(|_| ct.release_claim())
        .and_then(|halves| ft.add::<F>(pkt.rcu(), ct, proto, halves))
        .inspect_err(|why| ft.refuse(ct, *why))?;

    flow.shared.added_by(dir, pkt);
    if proto == L4Proto::Tcp {
        flow.sync_window_ends();
    }
    Ok(())
}

/// The expression, which holds a flowtable of ours.
struct FlowOffload;

impl FlowtableExpr for FlowOffload {
    fn accepts(flowtable: NamedFlowtable<'_>) -> bool {
        let ours = Flowtable::is_ours(flowtable);

        // The in-tree type was chosen for this flowtable, before we were loaded.
        if !ours {
            kernel::pr_warn_once!(
                "a flowtable of nf_flow_table_inet is in use: delete it and add it again\n"
            );
        }
        ours
    }

    fn eval(flowtable: NamedFlowtable<'_>, pkt: ForwardPkt<'_>) -> bool {
        // SAFETY: It was accepted, hence is ours.
        let ft = unsafe { Flowtable::from_hook(flowtable.nf()) };
        let added = if pkt.nfproto() == V4::NFPROTO {
            offload::<V4>(pkt, ft)
        } else {
            offload::<V6>(pkt, ft)
        };

        added
            .inspect_err(|why| {
                stats::skip(*why);
                trace::skip(pkt, ft.nft(), *why);
            })
            .is_ok()
    }
}

static OPS: [ExprOps; 3] = [
    expr_ops::<FlowOffload>(&TYPES[0]),
    expr_ops::<FlowOffload>(&TYPES[1]),
    expr_ops::<FlowOffload>(&TYPES[2]),
];

static TYPES: [ExprType; 3] = [
    ExprType::new(c"flow_offload", c::NFPROTO_INET, &OPS[0]),
    ExprType::new(c"flow_offload", c::NFPROTO_IPV4, &OPS[1]),
    ExprType::new(c"flow_offload", c::NFPROTO_IPV6, &OPS[2]),
];

/// Keeps the expression registered.
pub(crate) struct Registration {
    _types: [nft_expr::Registration; 3],
}

impl Registration {
    /// Registers the expression for the families ip, ip6 and inet.
    pub(crate) fn new(module: &'static ThisModule) -> Result<Self> {
        let [inet, ipv4, ipv6] = &TYPES;

        Ok(Self {
            _types: [
                inet.register(module)?,
                ipv4.register(module)?,
                ipv6.register(module)?,
            ],
        })
    }
}
