// SPDX-License-Identifier: GPL-2.0

//! The nftables expression `flow_offload` (`flow add @f`, `flow offload @f`).
//!
//! Its [`eval`] is what every packet of a connection that is not offloaded yet passes, the first
//! ones included: the cheap refusals come first. A refusal breaks the rule, as every expression
//! that does not match, and is counted with its reason.
//!
//! nf_tables prefers a type with the family of the table to the in-tree one, which has none; hence
//! three types.

use crate::{
    ffi::{
        c,
        Shared, //
    },
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
        packet::ForwardPkt, //
    },
    stats, //
};
use core::ptr;
use kernel::{
    ffi::{
        c_int,
        c_uint, //
    },
    prelude::*, //
};
use nft_flow::{
    key::L4Proto,
    parse::tcp,
    reason::{
        SkipReason,
        TeardownReason, //
    }, //
};

/// `NFT_BREAK`, include/uapi/linux/netfilter/nf_tables.h: the rule does not match.
const NFT_BREAK: u32 = c::NFO_NFT_BREAK;
/// `NF_INET_FORWARD`, include/uapi/linux/netfilter.h.
const NF_INET_FORWARD: u32 = c::NFO_INET_FORWARD;
/// `NFTA_FLOW_TABLE_NAME`, the only attribute.
const NFTA_FLOW_TABLE_NAME: usize = c::NFO_FLOW_TABLE_NAME as usize;
/// `NFT_NAME_MAXLEN`.
const NAME_MAXLEN: u16 = c::NFO_NAME_MAXLEN;

/// What an expression in a rule holds.
#[repr(C)]
struct Private {
    flowtable: *mut c::nft_flowtable,
}

/// The private part of an expression of ours.
///
/// # Safety
///
/// `expr` is an expression of one of our types.
unsafe fn private(expr: *const c::nft_expr) -> *mut Private {
    // SAFETY: nf_tables allocates `ops->size` bytes: the header, then the private part.
    unsafe { (&raw const (*expr).data).cast_mut().cast() }
}

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
    if !ct.claim() {
        return Err(SkipReason::AlreadyOffloaded);
    }

    let flow = forward_path::discover::<F>(pkt, ct, dir, known, ft.nft(), &ft.seed)
        .and_then(|halves| ft.new_flow::<F>(ct, proto, halves))
        .inspect_err(|why| {
            ct.release_claim();
            ft.refuse(ct, *why);
        })?;

    // From here on a packet may take the flow, and somebody may give the entry back.
    ct.offload_begin();
    // SAFETY: Just made, with the claim; whatever becomes of it, it lives until the end of the RCU
    // section that the forward hook is.
    let flow = unsafe {
        ft.add(flow).inspect_err(|why| ft.refuse(ct, *why))?;
        flow.as_ref()
    };

    flow.shared.added_by(dir, pkt);
    if proto == L4Proto::Tcp {
        flow.sync_window_ends();
    }
    Ok(())
}

/// The expression meets a packet.
///
/// # Safety
///
/// Called by nf_tables only, with an expression of ours and a packet in the forward hook.
unsafe extern "C" fn eval(
    expr: *const c::nft_expr,
    regs: *mut c::nft_regs,
    pkt: *const c::nft_pktinfo,
) {
    // SAFETY: nf_tables passes one of our expressions, whose flowtable `init` found to be ours, and
    // a packet in the forward hook.
    let (ft, pkt, regs) = unsafe {
        let nft = (*private(expr)).flowtable;
        let ft = Flowtable::from_hook((&raw mut (*nft).data).cast());

        (ft, ForwardPkt::from_eval(pkt), &mut *regs)
    };
    let added = if pkt.nfproto() == V4::NFPROTO {
        offload::<V4>(pkt, ft)
    } else {
        offload::<V6>(pkt, ft)
    };

    if let Err(reason) = added {
        stats::skip(reason);
        regs.__bindgen_anon_1.verdict.code = NFT_BREAK;
    }
}

/// The chain that the rule is in, and every hook that leads there: forward only.
///
/// # Safety
///
/// Called by nf_tables only, with an expression of ours.
unsafe extern "C" fn validate(ctx: *const c::nft_ctx, _expr: *const c::nft_expr) -> c_int {
    // SAFETY: nf_tables passes a valid context.
    unsafe { c::nft_chain_validate_hooks((*ctx).chain, 1 << NF_INET_FORWARD) }
}

/// # Safety
///
/// Called by nf_tables only, with an expression of ours.
unsafe extern "C" fn init(
    ctx: *const c::nft_ctx,
    expr: *const c::nft_expr,
    tb: *const *const c::nlattr,
) -> c_int {
    // SAFETY: nf_tables passes a valid context and the parsed attributes, as many as `maxattr`
    // says; the expression is not in use yet.
    unsafe {
        let ctx = &*ctx;
        let name = *tb.add(NFTA_FLOW_TABLE_NAME);
        if name.is_null() {
            return EINVAL.to_errno();
        }
        let ft = c::nft_flowtable_lookup(ctx.net, ctx.table, name, c::nfo_genmask_next(ctx.net));
        if ft as isize >= -4095 && (ft as isize) < 0 {
            return ft as isize as c_int;
        }
        // The in-tree type was chosen for this flowtable, before we were loaded.
        if Flowtable::from_nft(ft).is_none() {
            kernel::pr_warn_once!(
                "a flowtable of nf_flow_table_inet is in use: delete it and add it again\n"
            );
            return EOPNOTSUPP.to_errno();
        }
        let err = c::nfo_use_inc(ft);
        if err != 0 {
            return err;
        }
        (*private(expr)).flowtable = ft;

        let err = c::nf_ct_netns_get(ctx.net, ctx.family);
        if err < 0 {
            c::nfo_use_dec(ft);
        }
        err
    }
}

/// # Safety
///
/// Called by nf_tables only, with an expression of ours.
unsafe extern "C" fn activate(_ctx: *const c::nft_ctx, expr: *const c::nft_expr) {
    // SAFETY: One of our expressions; the flowtable exists while rules refer to it.
    unsafe { c::nfo_use_restore((*private(expr)).flowtable) };
}

/// # Safety
///
/// Called by nf_tables only, by way of `nfo_expr_deactivate()`, with an expression of ours.
#[no_mangle]
unsafe extern "C" fn nfo_deactivate(
    ctx: *const c::nft_ctx,
    expr: *const c::nft_expr,
    phase: c::nft_trans_phase,
) {
    // SAFETY: As for `activate`.
    unsafe { c::nf_tables_deactivate_flowtable(ctx, (*private(expr)).flowtable, phase) };
}

/// # Safety
///
/// Called by nf_tables only, with an expression of ours.
unsafe extern "C" fn destroy(ctx: *const c::nft_ctx, _expr: *const c::nft_expr) {
    // SAFETY: Balances `init`.
    unsafe { c::nf_ct_netns_put((*ctx).net, (*ctx).family) };
}

/// # Safety
///
/// Called by nf_tables only, with an expression of ours.
unsafe extern "C" fn dump(skb: *mut c::sk_buff, expr: *const c::nft_expr, _reset: bool) -> c_int {
    // SAFETY: A valid message, and one of our expressions with its flowtable.
    let err = unsafe {
        let name = (*(*private(expr)).flowtable).name;
        c::nfo_put_name(skb, NFTA_FLOW_TABLE_NAME as c_int, name)
    };

    if err != 0 {
        -1
    } else {
        0
    }
}

const fn expr_ops(i: usize) -> c::nft_expr_ops {
    c::nft_expr_ops {
        eval: Some(eval),
        clone: None,
        size: (size_of::<c::nft_expr>() + size_of::<Private>()) as c_uint,
        init: Some(init),
        activate: Some(activate),
        deactivate: Some(c::nfo_expr_deactivate),
        destroy: Some(destroy),
        destroy_clone: None,
        dump: Some(dump),
        validate: Some(validate),
        gc: None,
        offload: None,
        offload_action: None,
        offload_stats: None,
        type_: TYPES[i].get(),
        data: ptr::null_mut(),
    }
}

const fn expr_type(i: usize, family: u32) -> c::nft_expr_type {
    c::nft_expr_type {
        select_ops: None,
        release_ops: None,
        ops: OPS[i].get(),
        inner_ops: ptr::null(),
        list: c::list_head {
            next: ptr::null_mut(),
            prev: ptr::null_mut(),
        },
        name: c"flow_offload".to_bytes_with_nul().as_ptr().cast(),
        owner: ptr::null_mut(),
        policy: POLICY.get().cast(),
        maxattr: NFTA_FLOW_TABLE_NAME as c_uint,
        family: family as u8,
        flags: 0,
    }
}

const fn policy(ty: u32, len: u16) -> c::nla_policy {
    c::nla_policy {
        type_: ty as u8,
        validation_type: 0,
        len,
        __bindgen_anon_1: c::nla_policy__bindgen_ty_1 {
            strict_start_type: 0,
        },
    }
}

static POLICY: Shared<[c::nla_policy; 2]> =
    Shared::new([policy(0, 0), policy(c::NLA_STRING, NAME_MAXLEN - 1)]);

static OPS: [Shared<c::nft_expr_ops>; 3] = [
    Shared::new(expr_ops(0)),
    Shared::new(expr_ops(1)),
    Shared::new(expr_ops(2)),
];

static TYPES: [Shared<c::nft_expr_type>; 3] = [
    Shared::new(expr_type(0, c::NFPROTO_INET)),
    Shared::new(expr_type(1, c::NFPROTO_IPV4)),
    Shared::new(expr_type(2, c::NFPROTO_IPV6)),
];

/// Keeps the expression registered.
pub(crate) struct Registration {
    registered: usize,
}

impl Registration {
    /// Registers the expression for the families ip, ip6 and inet.
    pub(crate) fn new(module: &'static ThisModule) -> Result<Self> {
        let mut this = Self { registered: 0 };

        for ty in &TYPES {
            let ty = ty.get();

            // SAFETY: The type is static and not registered yet.
            let err = unsafe {
                (*ty).owner = module.as_ptr().cast();
                c::nft_register_expr(ty)
            };
            // `this` unregisters what was registered when it is dropped.
            kernel::error::to_result(err)?;
            this.registered += 1;
        }
        Ok(this)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        for ty in TYPES.iter().take(self.registered) {
            // SAFETY: Registered by `new`. The module is not unloaded while an expression exists.
            unsafe { c::nft_unregister_expr(ty.get()) };
        }
    }
}
