// SPDX-License-Identifier: GPL-2.0

//! Netfilter hooks of a network namespace, around the ruleset.
//!
//! C header: [`include/linux/netfilter.h`](srctree/include/linux/netfilter.h)

use crate::{
    ffi::{
        c,
        NetRef, //
    },
    net::{
        ct::Ct,
        packet::StackPkt, //
    }, //
};
use core::{
    marker::PhantomData,
    ptr,
    sync::atomic::{
        AtomicBool,
        Ordering, //
    }, //
};
use kernel::{
    error::to_result,
    ffi::{
        c_uint,
        c_void, //
    },
    prelude::*,
    types::Opaque, //
};

/// `NF_INET_POST_ROUTING`, include/uapi/linux/netfilter.h.
const POST_ROUTING: u32 = c::NFO_INET_POST_ROUTING;
/// `NF_INET_PRE_ROUTING`.
const PRE_ROUTING: u32 = c::NFO_INET_PRE_ROUTING;
/// Before `NF_IP_PRI_CONNTRACK`, include/uapi/linux/netfilter_ipv4.h.
const BEFORE_CONNTRACK: i32 = -201;

/// What is done with packets before and after the ruleset.
pub(crate) trait StackHook {
    /// What the hooks belong to.
    type Owner: Sync;

    /// A packet enters the ruleset: conntrack has not seen it.
    fn prerouting(owner: &Self::Owner, pkt: StackPkt<'_>, state: &c::nf_hook_state);

    /// A packet of an offloaded connection, or an ICMP error about one, has passed the ruleset.
    fn postrouting(owner: &Self::Owner, pkt: StackPkt<'_>);
}

/// # Safety
///
/// Called by netfilter only, with a packet and the owner of registered [`StackHooks`].
unsafe extern "C" fn prerouting<T: StackHook>(
    owner: *mut c_void,
    skb: *mut c::sk_buff,
    state: *const c::nf_hook_state,
) -> c_uint {
    // SAFETY: By the contract of this function. The owner lives until a grace period after the
    // hooks are gone.
    let (owner, state, pkt) = unsafe {
        let pkt = StackPkt::from_hook(skb, state);

        (&*owner.cast::<T::Owner>(), &*state, pkt)
    };

    if let Some(pkt) = pkt {
        T::prerouting(owner, pkt, state);
    }
    c::NF_ACCEPT
}

/// # Safety
///
/// As for [`prerouting`].
unsafe extern "C" fn postrouting<T: StackHook>(
    owner: *mut c_void,
    skb: *mut c::sk_buff,
    state: *const c::nf_hook_state,
) -> c_uint {
    // SAFETY: By the contract of this function.
    if unsafe { Ct::of_skb(skb) }.is_some_and(|(ct, _)| ct.is_offloaded()) {
        // SAFETY: As above, and for `prerouting`.
        let (owner, pkt) = unsafe { (&*owner.cast::<T::Owner>(), StackPkt::from_hook(skb, state)) };

        if let Some(pkt) = pkt {
            T::postrouting(owner, pkt);
        }
    }
    c::NF_ACCEPT
}

/// The functions of a [`StackHook`] whose owner is a `T`.
pub(crate) struct StackHookFns<T> {
    prerouting: c::nf_hookfn,
    postrouting: c::nf_hookfn,
    owner: PhantomData<fn(&T)>,
}

impl<T> StackHookFns<T> {
    /// Those of `H`.
    pub(crate) const fn of<H: StackHook<Owner = T>>() -> Self {
        Self {
            prerouting: Some(prerouting::<H>),
            postrouting: Some(postrouting::<H>),
            owner: PhantomData,
        }
    }
}

/// Room for the hooks of a network namespace, that are registered or not.
pub(crate) struct StackHooks {
    net: NetRef<'static>,
    ops: Opaque<[c::nf_hook_ops; 2]>,
    registered: AtomicBool,
}

// SAFETY: Netfilter has a lock, and we are registered once.
unsafe impl Send for StackHooks {}
// SAFETY: As above.
unsafe impl Sync for StackHooks {}

impl StackHooks {
    /// Makes hooks of a namespace that are not registered. The namespace is used only while they
    /// are.
    pub(crate) fn new(net: NetRef<'static>) -> Self {
        Self {
            net,
            ops: Opaque::zeroed(),
            registered: AtomicBool::new(false),
        }
    }

    /// Registers them, unless they are.
    ///
    /// # Safety
    ///
    /// These are pinned and one caller at a time is here or in [`StackHooks::unregister`]. These,
    /// the owner and the namespace live until a grace period after the hooks are unregistered.
    pub(crate) unsafe fn register<T: Sync>(&self, owner: &T, fns: &StackHookFns<T>) -> Result {
        if self.registered.load(Ordering::Relaxed) {
            return Ok(());
        }
        // SAFETY: By the contract of this function, and not registered.
        unsafe {
            let ops = &mut *self.ops.get();

            for ops in &mut *ops {
                ops.priv_ = ptr::from_ref(owner).cast_mut().cast();
                ops.pf = c::NFPROTO_INET as u8;
            }
            let [prerouting, postrouting] = &mut *ops;
            prerouting.hook = fns.prerouting;
            prerouting.hooknum = PRE_ROUTING;
            prerouting.priority = BEFORE_CONNTRACK;
            postrouting.hook = fns.postrouting;
            postrouting.hooknum = POST_ROUTING;
            postrouting.priority = i32::MAX;
            to_result(c::nf_register_net_hooks(
                self.net.as_ptr(),
                self.ops.get().cast(),
                2,
            ))?;
        }
        self.registered.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The reverse. Packets may be there for a grace period more.
    pub(crate) fn unregister(&self) {
        if self.registered.swap(false, Ordering::Relaxed) {
            // SAFETY: By the contract of `register`.
            unsafe { c::nf_unregister_net_hooks(self.net.as_ptr(), self.ops.get().cast(), 2) };
        }
    }
}
