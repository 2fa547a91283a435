// SPDX-License-Identifier: GPL-2.0

//! Who may set the end of a conntrack entry, while nobody holds a lock.
//!
//! The worker makes the timeout of a live flow's entry longer; whoever tears the flow down makes it
//! what connection tracking would have made it, once. At the same time both may happen, and then
//! the entry must not keep the long one.

use crate::sync::{
    fence,
    AtomicU32,
    Ordering, //
};

/// Moves the end of an entry from `old` to `new`, unless somebody else moves it, or the flow is
/// dead.
pub fn extend(timeout: &AtomicU32, old: u32, new: u32, is_live: impl FnOnce() -> bool) {
    // A packet on the slow path may set the timeout meanwhile: then that one is right.
    if timeout
        .compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed)
        .is_err()
    {
        return;
    }
    // Either we see the flow dead, or its teardown, which has called `settle`, sees our timeout.
    fence(Ordering::SeqCst);
    if !is_live() {
        let _ = timeout.compare_exchange(new, old, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// To be called between the death of a flow and setting its entry's timeout, which may read what is
/// there and leave it.
pub fn settle() {
    fence(Ordering::SeqCst);
}
