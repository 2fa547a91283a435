// SPDX-License-Identifier: GPL-2.0

//! RCU: a token for read-side sections, and the head that an object is freed by.
//!
//! C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use super::{
    c,
    BhGuard, //
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ptr, //
};
use kernel::sync::rcu;

/// An RCU read-side section that lasts for `'a`. Who is in one makes this once and hands it down;
/// it takes no room.
///
/// # Invariants
///
/// What was published when the section began, or later, and is freed a grace period after it was
/// withdrawn, is valid for `'a`.
#[derive(Clone, Copy)]
pub(crate) struct Rcu<'a>(PhantomData<(&'a (), *mut ())>);

impl Rcu<'_> {
    /// In a section that somebody else has begun.
    ///
    /// # Safety
    ///
    /// The section does not end as long as the value is used.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Self {
        // INVARIANT: By the contract of this function.
        Self(PhantomData)
    }
}

impl<'a> From<&'a rcu::Guard> for Rcu<'a> {
    fn from(_: &'a rcu::Guard) -> Self {
        // INVARIANT: The guard is borrowed for `'a`.
        Self(PhantomData)
    }
}

impl<'a> From<&'a BhGuard> for Rcu<'a> {
    fn from(_: &'a BhGuard) -> Self {
        // INVARIANT: A grace period waits for CPUs with softirqs off, and the guard is borrowed.
        Self(PhantomData)
    }
}

/// What an object embeds to be freed by RCU.
#[repr(transparent)]
pub(crate) struct RcuHead(UnsafeCell<c::callback_head>);

// SAFETY: Touched by C only, and by no more than one call.
unsafe impl Send for RcuHead {}
// SAFETY: As above.
unsafe impl Sync for RcuHead {}

impl RcuHead {
    /// Makes one that waits for nothing.
    pub(crate) const fn new() -> Self {
        Self(UnsafeCell::new(c::callback_head {
            next: ptr::null_mut(),
            func: None,
        }))
    }

    /// Has `free` called a grace period later (`call_rcu()`).
    ///
    /// # Safety
    ///
    /// The object is valid until then, `free` is right for it, and this is called once.
    pub(crate) unsafe fn call(&self, free: unsafe extern "C" fn(*mut c::callback_head)) {
        // SAFETY: By the contract of this function.
        unsafe { c::call_rcu(self.0.get(), Some(free)) };
    }
}
