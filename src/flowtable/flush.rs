// SPDX-License-Identifier: GPL-2.0

//! The end of flows, many at a time, and of the flowtable.

use super::{
    gc::of_worker,
    tables::free_both,
    traffic,
    Flowtable,
    Store, //
};
use crate::{
    ffi::{
        self,
        Worker, //
    },
    flow::shared::FlowShared,
    net::family::{
        V4,
        V6, //
    },
    stats, //
};
use core::sync::atomic::Ordering;
use kernel::prelude::*;
use nft_flow::{
    reason::TeardownReason,
    table::{
        Cursor,
        Visit, //
    }, //
};

/// Buckets that are looked at before others get a chance to have the lock.
const BUCKETS_AT_ONCE: usize = 64;

impl Flowtable {
    /// Kills every flow for which `which` holds, and says how many it were. Ends early when `go_on`
    /// says so.
    pub(crate) fn teardown_all(
        &self,
        reason: TeardownReason,
        which: impl Fn(&FlowShared) -> bool,
        go_on: impl Fn() -> bool,
    ) -> usize {
        self.teardown_family::<V4>(reason, &which, &go_on)
            + self.teardown_family::<V6>(reason, &which, &go_on)
    }

    fn teardown_family<F: Store>(
        &self,
        reason: TeardownReason,
        which: &impl Fn(&FlowShared) -> bool,
        go_on: &impl Fn() -> bool,
    ) -> usize {
        let mut cursor = Cursor::default();
        let mut killed = 0;

        while self.locked(|inner| {
            F::writer(inner).visit(&mut cursor, BUCKETS_AT_ONCE, |entry| {
                let shared = &entry.flow().shared;

                if entry.is_live() && which(shared) && shared.teardown(reason) {
                    killed += 1;
                }
                Visit::Keep
            })
        }) && go_on()
        {
            ffi::cond_resched();
        }
        killed
    }

    /// Ends the flowtable: no hook and no rule refers to it any more, nor will a packet that has
    /// come by one: nf_tables has waited for those. Packets that leave the ruleset may still find a
    /// flow in it, so that it lives for a grace period more, which nobody waits for. The object of
    /// nf_tables is not used after this.
    ///
    /// # Safety
    ///
    /// It is in the list of its namespace, and came from [`KBox::into_raw`]. This is called once.
    pub(crate) unsafe fn close(this: *mut Self) {
        // SAFETY: By the contract of this function; freed by `end` only.
        let ft = unsafe { &*this };

        ft.unfollow_all();
        traffic::closing(|| {
            ft.closed.store(true, Ordering::Relaxed);
            ft.netns.remove(ft);
            let (packets, bytes) = ft.fold_mib_stats();
            stats::add_retired(packets, bytes);
        });
        ft.locked(|inner| inner.closing = true);
        ft.worker.disable();
        ft.teardown_all(TeardownReason::FlowtableDelete, |_| true, || true);
        // A namespace that ends frees what routes and connections belong to. A packet may be about
        // to put a flow that it has killed on the list of the dead: in a namespace that lives.
        ft.gc_collect();
        // SAFETY: Out of the list, and nobody else does this.
        unsafe { ft.worker.finish() };
    }

    /// The end after the end: no packet knows the flowtable any more.
    ///
    /// # Safety
    ///
    /// [`Flowtable::close`] was called a grace period ago, and this is called once.
    pub(super) unsafe fn end(this: *mut Self) {
        // SAFETY: By the contract of this function the object is nobody else's.
        unsafe {
            let ft = Pin::new_unchecked(KBox::from_raw(this));

            // Flows that a packet has killed, and had not put on the list then.
            ft.gc_collect();
            ft.free_tables();
        }
    }

    /// Frees the tables, which nobody can look into afterwards.
    ///
    /// # Safety
    ///
    /// No packet looks into them any more, and no flow is left.
    pub(crate) unsafe fn free_tables(&self) {
        let buckets = self.locked(|inner| {
            // SAFETY: The writers belong to these tables.
            unsafe {
                (
                    inner.w4.close(&self.v4),
                    inner.w6.close(&self.v6),
                    inner.ingress_paths.writer().close(&self.ingress_paths),
                    inner.cts.close(&self.cts),
                    inner.hops.close(&self.hops),
                )
            }
        });
        // SAFETY: By the contract of this function.
        unsafe {
            free_both(buckets.0);
            free_both(buckets.1);
            free_both(buckets.2);
            free_both(buckets.3);
            free_both(buckets.4);
        }
    }
}

/// The last thing that is done.
///
/// # Safety
///
/// Called by `ffi/netns.c` only, a grace period after [`Flowtable::close`].
#[no_mangle]
unsafe extern "C" fn nfo_flowtable_end(worker: *mut Worker) {
    // SAFETY: By the contract of this function.
    unsafe { Flowtable::end(of_worker(worker)) };
}
