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
        skb, //
    },
    flowtable::{
        Flowtable,
        Store, //
    },
    net::{
        ct::Ct,
        family::{
            Family,
            V4,
            V6, //
        },
        forward_path, //
    },
    stats, //
};
use core::{
    cell::UnsafeCell,
    ptr, //
};
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

/// Adds the connection of a packet in the forward hook to a flowtable.
///
/// # Safety
///
/// As for [`eval`]; `F` is the packet's family.
unsafe fn offload<F: Store>(
    pkt: &c::nft_pktinfo,
    nft: *mut c::nft_flowtable,
    ft: &Flowtable,
) -> Result<(), SkipReason> {
    // SAFETY: A packet in the forward hook is valid and keeps its conntrack entry.
    let (ct, dir) = unsafe { Ct::of_skb(pkt.skb) }.ok_or(SkipReason::NoCt)?;

    // An ICMP error has the entry of the connection that it is about.
    // SAFETY: As above.
    if unsafe { Ct::is_error(pkt.skb, pkt.tprot) } {
        return Err(SkipReason::L4Proto);
    }
    if ft.watch.wants(ft.generation()) {
        ft.schedule_gc();
    }
    let mut known = None;
    if ct.is_offloaded() {
        // SAFETY: The forward hook is an RCU read-side section.
        unsafe {
            if let Some(flow) = ft.find(ct) {
                if !ft.watch.lets(ct, ft.counts()) {
                    flow.teardown(TeardownReason::Count);
                    return Err(SkipReason::Count);
                }
                known = flow.rule_hit(dir, pkt);
            }
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
        .filter(|proto| F::has(*proto) && proto.number() == pkt.tprot)
        .ok_or(SkipReason::L4Proto)?;
    if matches!(proto, L4Proto::Icmp | L4Proto::Icmpv6) && !ct.is_echo() {
        return Err(SkipReason::L4Proto);
    }
    if proto == L4Proto::Sctp && !ct.is_sctp_established() {
        return Err(SkipReason::SctpState);
    }
    if proto == L4Proto::Tcp {
        // SAFETY: The packet is valid; `thoff` was found by nf_tables.
        let header = unsafe { skb::tcp(pkt.skb, pkt.thoff.into()) }
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
    // SAFETY: The packet is valid, and an IPv4 one has passed the IPv4 input path.
    unsafe {
        if c::nfo_skb_secpath(pkt.skb) {
            return Err(SkipReason::SecPath);
        }
        if F::NFPROTO == V4::NFPROTO && c::nfo_skb_ip_options(pkt.skb) {
            return Err(SkipReason::IpOptions);
        }
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

    // SAFETY: By the contract of this function.
    let flow = unsafe { forward_path::discover::<F>(pkt, ct, dir, known, nft, &ft.seed) }
        .and_then(|halves| ft.new_flow::<F>(ct, proto, halves))
        .inspect_err(|why| {
            ct.release_claim();
            ft.refuse(ct, *why);
        })?;

    // From here on a packet may take the flow, and somebody may give the entry back.
    ct.offload_begin();
    // SAFETY: Just made, with the claim; whatever becomes of it, it lives until the end of the RCU
    // section that the forward hook is.
    unsafe {
        ft.add(flow).inspect_err(|why| ft.refuse(ct, *why))?;
        flow.as_ref().shared.added_by(dir, pkt);
        if proto == L4Proto::Tcp {
            flow.as_ref().sync_window_ends();
        }
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
    unsafe {
        let nft = (*private(expr)).flowtable;
        let ft = Flowtable::from_hook((&raw mut (*nft).data).cast());
        let pkt = &*pkt;

        let added = if u32::from((*pkt.state).pf) == c::NFPROTO_IPV4 {
            offload::<V4>(pkt, nft, ft)
        } else {
            offload::<V6>(pkt, nft, ft)
        };
        if let Err(reason) = added {
            stats::skip(reason);
            (*regs).__bindgen_anon_1.verdict.code = NFT_BREAK;
        }
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

/// Something that C links into its lists or points to, and that Rust does not touch meanwhile.
struct Shared<T>(UnsafeCell<T>);

// SAFETY: C serialises what it does with registered types; tables are only read.
unsafe impl<T> Sync for Shared<T> {}

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
        type_: TYPES[i].0.get(),
        data: ptr::null_mut(),
    }
}

const fn expr_type(i: usize, family: u32) -> c::nft_expr_type {
    c::nft_expr_type {
        select_ops: None,
        release_ops: None,
        ops: OPS[i].0.get(),
        inner_ops: ptr::null(),
        list: c::list_head {
            next: ptr::null_mut(),
            prev: ptr::null_mut(),
        },
        name: c"flow_offload".to_bytes_with_nul().as_ptr().cast(),
        owner: ptr::null_mut(),
        policy: POLICY.0.get().cast(),
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

static POLICY: Shared<[c::nla_policy; 2]> = Shared(UnsafeCell::new([
    policy(0, 0),
    policy(c::NLA_STRING, NAME_MAXLEN - 1),
]));

static OPS: [Shared<c::nft_expr_ops>; 3] = [
    Shared(UnsafeCell::new(expr_ops(0))),
    Shared(UnsafeCell::new(expr_ops(1))),
    Shared(UnsafeCell::new(expr_ops(2))),
];

static TYPES: [Shared<c::nft_expr_type>; 3] = [
    Shared(UnsafeCell::new(expr_type(0, c::NFPROTO_INET))),
    Shared(UnsafeCell::new(expr_type(1, c::NFPROTO_IPV4))),
    Shared(UnsafeCell::new(expr_type(2, c::NFPROTO_IPV6))),
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
            let ty = ty.0.get();

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
            unsafe { c::nft_unregister_expr(ty.0.get()) };
        }
    }
}
