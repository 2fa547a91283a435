// SPDX-License-Identifier: GPL-2.0

//! Expressions of nf_tables that refer to a flowtable: what nf_tables calls, and the references that
//! it counts.
//!
//! An expression is a type that implements [`FlowtableExpr`].
//!
//! C header: [`include/net/netfilter/nf_tables.h`](srctree/include/net/netfilter/nf_tables.h)

use crate::{
    ffi::{
        c,
        genl::Policy,
        Shared, //
    },
    net::packet::ForwardPkt, //
};
use core::{
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    ffi::{
        c_int,
        c_uint,
        c_void, //
    },
    prelude::*, //
};

/// `NFT_BREAK`, include/uapi/linux/netfilter/nf_tables.h: the rule does not match.
const NFT_BREAK: u32 = c::NFO_NFT_BREAK;
/// `NF_INET_FORWARD`, include/uapi/linux/netfilter.h.
const NF_INET_FORWARD: u32 = c::NFO_INET_FORWARD;
/// `NFTA_FLOW_TABLE_NAME`, the only attribute.
const NFTA_FLOW_TABLE_NAME: usize = c::NFO_FLOW_TABLE_NAME as usize;
/// `NFT_NAME_MAXLEN`.
const NAME_MAXLEN: u16 = c::NFO_NAME_MAXLEN;

/// A flowtable that a rule names.
///
/// # Invariants
///
/// The pointer is to a valid flowtable for `'a`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct NamedFlowtable<'a>(NonNull<c::nft_flowtable>, PhantomData<&'a c::nft_flowtable>);

impl NamedFlowtable<'_> {
    /// Its type.
    pub(crate) fn type_ptr(self) -> *const c::nf_flowtable_type {
        // SAFETY: By the type invariant. A flowtable has a type from its creation on.
        unsafe { self.0.as_ref() }.data.type_
    }

    /// The part that netfilter knows (`struct nf_flowtable`).
    pub(crate) fn nf(self) -> *mut c_void {
        // SAFETY: By the type invariant.
        unsafe { (&raw mut (*self.0.as_ptr()).data).cast() }
    }
}

/// An expression with a flowtable, in the forward hook.
pub(crate) trait FlowtableExpr: 'static {
    /// Whether the expression can do with this flowtable. Only such are passed to
    /// [`FlowtableExpr::eval`].
    fn accepts(flowtable: NamedFlowtable<'_>) -> bool;

    /// The expression meets a packet. False if the rule does not match.
    fn eval(flowtable: NamedFlowtable<'_>, pkt: ForwardPkt<'_>) -> bool;
}

/// What an expression in a rule holds.
///
/// # Invariants
///
/// A use of the flowtable is counted, except while the rule is deactivated.
#[repr(transparent)]
struct Private(NamedFlowtable<'static>);

/// The private part of an expression of ours.
///
/// # Safety
///
/// `expr` is an expression of one of our types.
unsafe fn private(expr: *const c::nft_expr) -> *mut Private {
    // SAFETY: nf_tables allocates `ops->size` bytes: the header, then the private part.
    unsafe { (&raw const (*expr).data).cast_mut().cast() }
}

/// The flowtable of an expression.
///
/// # Safety
///
/// `expr` is an expression of one of our types, that was initialised.
unsafe fn flowtable(expr: *const c::nft_expr) -> *mut c::nft_flowtable {
    // SAFETY: By the contract of this function.
    unsafe { (*private(expr)).0 .0.as_ptr() }
}

/// # Safety
///
/// Called by nf_tables only, with an expression of ours and a packet in the forward hook.
unsafe extern "C" fn eval<T: FlowtableExpr>(
    expr: *const c::nft_expr,
    regs: *mut c::nft_regs,
    pkt: *const c::nft_pktinfo,
) {
    // SAFETY: By the contract of this function. The flowtable exists while rules refer to it.
    let (flowtable, pkt, regs) =
        unsafe { ((*private(expr)).0, ForwardPkt::from_eval(pkt), &mut *regs) };

    if !T::eval(flowtable, pkt) {
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
unsafe extern "C" fn init<T: FlowtableExpr>(
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
        let genmask = c::nfo_genmask_next(ctx.net);
        let ft = match from_err_ptr(c::nft_flowtable_lookup(ctx.net, ctx.table, name, genmask)) {
            Ok(ft) => ft,
            Err(e) => return e.to_errno(),
        };
        let Some(found) = NonNull::new(ft) else {
            return ENOENT.to_errno();
        };
        // INVARIANT: Found just now, and counted below.
        let found = NamedFlowtable(found, PhantomData);
        if !T::accepts(found) {
            return EOPNOTSUPP.to_errno();
        }
        let err = c::nfo_use_inc(ft);
        if err != 0 {
            return err;
        }
        private(expr).write(Private(found));

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
    unsafe { c::nfo_use_restore(flowtable(expr)) };
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
    unsafe { c::nf_tables_deactivate_flowtable(ctx, flowtable(expr), phase) };
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
        let name = (*flowtable(expr)).name;
        c::nfo_put_name(skb, NFTA_FLOW_TABLE_NAME as c_int, name)
    };

    if err != 0 {
        -1
    } else {
        0
    }
}

static POLICY: [Policy; 2] = [Policy::ANY, Policy::unterminated(NAME_MAXLEN - 1)];

/// The operations of an expression, of which a static has to be made.
pub(crate) type ExprOps = Shared<c::nft_expr_ops>;

/// Makes the operations of an expression of the type `ty`.
pub(crate) const fn expr_ops<T: FlowtableExpr>(ty: &'static ExprType) -> ExprOps {
    Shared::new(c::nft_expr_ops {
        eval: Some(eval::<T>),
        clone: None,
        size: (size_of::<c::nft_expr>() + size_of::<Private>()) as c_uint,
        init: Some(init::<T>),
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
        type_: ty.0.get(),
        data: ptr::null_mut(),
    })
}

/// A type of expressions.
#[repr(transparent)]
pub(crate) struct ExprType(Shared<c::nft_expr_type>);

impl ExprType {
    /// Makes the type `name` for tables of a family, with these operations, which name it.
    pub(crate) const fn new(name: &'static CStr, family: u32, ops: &'static ExprOps) -> Self {
        Self(Shared::new(c::nft_expr_type {
            select_ops: None,
            release_ops: None,
            ops: ops.get(),
            inner_ops: ptr::null(),
            list: c::list_head {
                next: ptr::null_mut(),
                prev: ptr::null_mut(),
            },
            name: name.to_bytes_with_nul().as_ptr().cast(),
            owner: ptr::null_mut(),
            policy: POLICY.as_ptr().cast(),
            maxattr: NFTA_FLOW_TABLE_NAME as c_uint,
            family: family as u8,
            flags: 0,
        }))
    }

    /// Registers the type for a module.
    pub(crate) fn register(&'static self, module: &'static ThisModule) -> Result<Registration> {
        // SAFETY: The type is static, and registered once: by the module's init.
        to_result(unsafe {
            (*self.0.get()).owner = module.as_ptr().cast();
            c::nft_register_expr(self.0.get())
        })?;
        Ok(Registration(self))
    }
}

/// Keeps a type registered. The module is not unloaded while an expression exists.
pub(crate) struct Registration(&'static ExprType);

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: Registered when this was made.
        unsafe { c::nft_unregister_expr(self.0 .0.get()) };
    }
}
