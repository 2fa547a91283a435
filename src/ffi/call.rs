// SPDX-License-Identifier: GPL-2.0

//! Functions of the kernel that ask nothing of their callers, and guards for those that come in
//! pairs.
//!
//! Some may sleep, which their names say. That is no question of memory: lockdep finds who calls
//! them where one must not.

use super::c;
use core::{
    cell::UnsafeCell,
    marker::PhantomData, //
};
use kernel::str::{
    CStr,
    CStrExt, //
};

/// Makes a safe function of one of C that has no preconditions.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)? = $c:ident;)*) => {
        $(
            $(#[$doc])*
            #[inline(always)]
            pub(crate) fn $name($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: No preconditions.
                unsafe { c::$c($($arg),*) }
            }
        )*
    };
}

calls! {
    /// Lets others run, if it is their turn (`cond_resched()`).
    cond_resched() = nfo_cond_resched;
    /// Waits for a grace period (`synchronize_rcu()`).
    synchronize_rcu() = synchronize_rcu;
    /// Whether the calling process has a fatal signal pending, so that nobody waits for an answer.
    killed() -> bool = nfo_killed;
    /// Counts `n` events of a kind, see [`crate::stats`].
    stat_add(index: u32, n: u64) = nfo_stat_add;
    /// Sums the events of a kind over all CPUs.
    stat_sum(index: u32) -> u64 = nfo_stat_sum;
    /// Counts what a flowtable that is going away has forwarded.
    stat_gone(packets: u64, bytes: u64) = nfo_stat_gone;
    /// The priority of packets with this type of service (`rt_tos2priority()`).
    tos2priority(tos: u8) -> u8 = nfo_tos2priority;
    /// Whether something at ingress restores DSCPs.
    dscp_restored() -> bool = nfo_dscp_restored;
    max_flows() -> u32 = nfo_max_flows;
    /// Makes what is remembered of devices' counters invalid: a device goes.
    device_gone() = nfo_device_gone;
}

/// The version of the module (`MODULE_VERSION()`).
pub(crate) fn version() -> &'static CStr {
    // SAFETY: A string of the module, which is there as long as its code.
    unsafe { CStr::from_char_ptr(c::nfo_version().cast()) }
}

/// Seconds since boot, modulo 2^32.
pub(crate) fn boot_seconds() -> u32 {
    // SAFETY: No preconditions.
    (unsafe { c::ktime_get_seconds() }) as u32
}

/// Random words, as nobody can guess them.
pub(crate) fn random<const N: usize>() -> [u64; N] {
    let mut words = [0; N];

    // SAFETY: The buffer is as large as is said.
    unsafe { c::get_random_bytes(words.as_mut_ptr().cast(), size_of_val(&words)) };
    words
}

/// Gets what [`Skb::note_probe`](super::skb::Skb::note_probe) has noted of a packet with this
/// fingerprint, whose key had this hash. Otherwise `probe` is of no meaning.
pub(crate) fn probe_noted(fingerprint: u32, hash: u32, probe: &mut c::nfo_probe) -> bool {
    // SAFETY: No preconditions but the reference.
    unsafe { c::nfo_probe_noted(fingerprint, hash, probe) }
}

/// RTNL is held while it lives.
pub(crate) struct Rtnl(PhantomData<*mut ()>);

impl Rtnl {
    /// Takes RTNL if nobody has it (`rtnl_trylock()`).
    pub(crate) fn try_lock() -> Option<Self> {
        // Not `then_some()`: a guard that was made is dropped, which unlocks.
        // SAFETY: No preconditions; `drop` is the other half.
        unsafe { c::nfo_rtnl_trylock() }.then(|| Self(PhantomData))
    }
}

impl Drop for Rtnl {
    fn drop(&mut self) {
        // SAFETY: Locked by `try_lock`, by the same task: the type is not `Send`.
        unsafe { c::nfo_rtnl_unlock() };
    }
}

/// The bridge module may be asked while it lives, if there is one.
pub(crate) struct BridgeUse(());

impl BridgeUse {
    /// Begins to use it.
    pub(crate) fn new() -> Self {
        // SAFETY: No preconditions; `drop` is the other half.
        unsafe { c::nfo_bridge_get() };
        Self(())
    }
}

impl Drop for BridgeUse {
    fn drop(&mut self) {
        // SAFETY: Begun by `new`.
        unsafe { c::nfo_bridge_put() };
    }
}

/// Something that C links into its lists or points to, and that Rust does not touch meanwhile.
#[repr(transparent)]
pub(crate) struct Shared<T>(UnsafeCell<T>);

// SAFETY: C serialises what it does with what is registered; tables are only read.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// For a static that C is given.
    pub(crate) const fn new(inner: T) -> Self {
        Self(UnsafeCell::new(inner))
    }

    /// For C.
    pub(crate) const fn get(&self) -> *mut T {
        self.0.get()
    }
}
