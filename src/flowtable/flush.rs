// SPDX-License-Identifier: GPL-2.0

//! The end of flows, many at a time, and of the flowtable.

use super::{
    registry::Netns,
    tables::free_both,
    traffic,
    Flowtable,
    Store, //
};
use crate::{
    ffi::{
        self,
        Worker,
        HZ, //
    },
    flow::shared::FlowShared,
    net::{
        family::{
            V4,
            V6, //
        },
        stack_hooks::StackHookFns, //
    },
    stats, //
};
use core::{
    ptr::NonNull,
    sync::atomic::Ordering, //
};
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

    /// Puts a new flowtable into the list of its namespace, and starts its worker. `see` is called
    /// for packets as long as there is a flowtable in the namespace. The result is valid until a
    /// grace period after [`Flowtable::close`].
    pub(crate) fn start(self: Pin<KBox<Self>>, see: &StackHookFns<Netns>) -> Result<NonNull<Self>> {
        // SAFETY: Just made. The box stays where it is: `close` takes the flowtable out of the list
        // before the worker gives it back.
        unsafe { self.netns.add(&self, see) }?;
        Ok(Worker::start(self, HZ as usize))
    }

    /// Ends the flowtable: no hook and no rule refers to it any more, nor will a packet that has
    /// come by one: nf_tables has waited for those. Packets that leave the ruleset may still find a
    /// flow in it, so that it lives for a grace period more, which nobody waits for. The object of
    /// nf_tables is not used after this.
    ///
    /// # Safety
    ///
    /// It was [started](Flowtable::start), and this is called once.
    pub(crate) unsafe fn close(&self) {
        self.unfollow_all();
        traffic::closing(|| {
            self.closed.store(true, Ordering::Relaxed);
            self.netns.remove(self);
            let (packets, bytes) = self.fold_mib_stats();
            stats::add_retired(packets, bytes);
        });
        self.locked(|inner| inner.closing = true);
        self.worker().disable();
        self.teardown_all(TeardownReason::FlowtableDelete, |_| true, || true);
        // A namespace that ends frees what routes and connections belong to. A packet may be about
        // to put a flow that it has killed on the list of the dead: in a namespace that lives.
        self.gc_collect();
        // SAFETY: Out of the list, and nobody else does this.
        unsafe { self.worker().finish() };
    }
}

#[pinned_drop]
impl PinnedDrop for Flowtable {
    /// Frees the tables. No flow is left, and whoever drops the flowtable is the only one to know
    /// it.
    fn drop(self: Pin<&mut Self>) {
        let buckets = self.locked(|inner| {
            // SAFETY: The writers belong to these tables.
            unsafe {
                (
                    inner.w4.close(&self.v4),
                    inner.w6.close(&self.v6),
                    inner.ingress_paths.writer().close(&self.ingress_paths),
                    inner.cts.close(&self.cts),
                    inner.hops.writer().close(&self.hops),
                )
            }
        });
        // SAFETY: Nobody looks into them.
        unsafe {
            free_both(buckets.0);
            free_both(buckets.1);
            free_both(buckets.2);
            free_both(buckets.3);
            free_both(buckets.4);
        }
    }
}
