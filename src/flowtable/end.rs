// SPDX-License-Identifier: GPL-2.0

//! The end of flows, many at a time, and of the flowtable.

use super::{
    tables::free_both,
    Flowtable,
    BUCKETS_AT_ONCE,
    FLOWTABLES, //
};
use crate::{
    cold::Cold,
    family::{
        Family,
        V4,
        V6, //
    },
    ffi::c,
    stats, //
};
use core::ptr;
use kernel::prelude::*;
use nft_flow::{
    reason::TeardownReason,
    table::{
        Cursor,
        Visit, //
    }, //
};

impl Flowtable {
    /// Kills every flow for which `which` holds, and says how many it were.
    pub(crate) fn kill_all(&self, reason: TeardownReason, which: impl Fn(&Cold) -> bool) -> usize {
        self.kill_family::<V4>(reason, &which) + self.kill_family::<V6>(reason, &which)
    }

    fn kill_family<F: Family>(
        &self,
        reason: TeardownReason,
        which: &impl Fn(&Cold) -> bool,
    ) -> usize {
        let mut cursor = Cursor::default();
        let mut killed = 0;

        while self.locked(|inner| {
            F::writer(inner).visit(&mut cursor, BUCKETS_AT_ONCE, |entry| {
                // SAFETY: An entry in the table is valid.
                let entry = unsafe { entry.as_ref() };
                let cold = &entry.flow().cold;

                if entry.is_live() && which(cold) && cold.kill(reason) {
                    killed += 1;
                }
                Visit::Keep
            })
        }) {
            // SAFETY: Process context, no lock is held.
            unsafe { c::nfo_cond_resched() };
        }
        killed
    }

    /// Ends the flowtable: no hook and no rule refers to it any more.
    pub(super) fn close(self: Pin<KBox<Self>>) {
        let mut list = FLOWTABLES.lock();
        let this = &raw const *self;
        if let Some(i) = list.iter().position(|r| ptr::eq(r.0.as_ptr(), this)) {
            let _ = list.remove(i);
        }
        let told = self.tell_traffic();
        stats::gone(told.0, told.1);
        drop(list);

        self.locked(|inner| inner.closing = true);
        // SAFETY: Registered by `init`. Packets in the hook are waited for below.
        unsafe { c::nf_unregister_net_hook(self.net(), self.passed.get()) };
        // SAFETY: The C object outlives ours. The worker does not run from here on.
        unsafe { c::nfo_gc_cancel(self.nf.as_ptr()) };
        self.kill_all(TeardownReason::FlowtableDelete, |_| true);
        // Packets that had got hold of the flowtable before its hooks were removed are through
        // after this: none is about to put a flow that it has killed on the list of the dead, or a
        // heavy one on the queue for hardware.
        // SAFETY: Process context.
        unsafe { c::synchronize_rcu() };
        self.reap();
        // SAFETY: No reader is in the tables.
        unsafe { self.free_tables() };
        // Theirs as well.
        let all = self.tell_traffic();
        stats::gone(all.0.wrapping_sub(told.0), all.1.wrapping_sub(told.1));
    }

    /// Frees the tables, which nobody can look into afterwards.
    ///
    /// # Safety
    ///
    /// No packet looks into them any more, and no flow is left.
    pub(super) unsafe fn free_tables(&self) {
        let buckets = self.locked(|inner| {
            // SAFETY: The writers belong to these tables.
            unsafe {
                (
                    inner.w4.close(&self.v4),
                    inner.w6.close(&self.v6),
                    inner.shapes.close(&self.shapes),
                    inner.cts.close(&self.cts),
                )
            }
        });
        // SAFETY: By the contract of this function.
        unsafe {
            free_both(buckets.0);
            free_both(buckets.1);
            free_both(buckets.2);
            free_both(buckets.3);
        }
    }
}
