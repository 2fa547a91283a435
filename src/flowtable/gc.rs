// SPDX-License-Identifier: GPL-2.0

//! The worker of a flowtable: takes dead flows out, looks at those whose time has come, and resizes
//! the tables.

use super::{
    tick,
    Flowtable,
    Store, //
};
use crate::{
    ffi::{
        self,
        Rtnl,
        Worker,
        WorkerOwner,
        HZ, //
    },
    flow::{
        object::with_family,
        shared::FlowShared,
        table_ref::TableRef,
        teardown::DeadFlow, //
    },
    hw,
    net::{
        family::Family,
        trace::GcRun, //
    },
    stats, //
};
use core::sync::atomic::Ordering;
use kernel::{
    prelude::*,
    sync::rcu, //
};
use nft_flow::{
    age::Due,
    reason::TeardownReason,
    table::{
        Cursor,
        Visit, //
    }, //
};

/// How long after a change of bridges the worker looks at them, in jiffies.
pub(super) const BRIDGE_CHECK: usize = (HZ / 10) as usize;
/// Flows that the worker looks at before others get a chance to run.
const FLOWS_AT_ONCE: usize = 64;
/// Flows that the worker looks at in a second, about: with more flows, each one less often.
const FLOWS_PER_SECOND: usize = 65536;
/// Longest time between two looks at a flow, in seconds. Conntrack entries are extended then, and
/// those that were deleted without another packet are noticed.
const MAX_INTERVAL: u32 = 16;
/// Runs of the worker in a second in which revalidations are requested, so that not all of them
/// are slow at once.
const SLICES: usize = 16;
/// Jiffies between two of them.
const SLICE: u32 = HZ / SLICES as u32;
/// Revalidations that are requested in a second, at most: with more of them, each one less often.
const REVALS_PER_SECOND: usize = 16384;
/// Buckets that are scanned for revalidations before others get a chance to run, and how many are
/// left is looked at.
pub(super) const REVAL_BUCKETS: usize = 32;

impl Flowtable {
    /// Runs the garbage collector once (`nf_flow_offload_work_gc()`). Returns how many jiffies to
    /// pause then.
    fn gc_run(&self) -> usize {
        let run = GcRun::begin();
        let mut removed = 0;
        let pause = self.gc_run_once(&mut removed);

        run.end(
            self.nft(),
            self.flow_count.load(Ordering::Relaxed),
            removed,
            pause,
        );
        pause
    }

    /// Does what is to be done, and adds the flows that were taken out to `removed`. Its steps are not
    /// inlined: they use the stack one after the other, and drivers need some of it, too.
    fn gc_run_once(&self, removed: &mut u32) -> usize {
        let scheduled = self.begin_work();
        let unread = self.read_rules();
        let revalidating = self.request_revals();
        let soon = match (unread, revalidating) {
            (None, false) => u32::MAX,
            (None, true) => SLICE,
            (Some(wait), _) => wait,
        };

        let rest = self
            .due
            .load(Ordering::Relaxed)
            .wrapping_sub(ffi::jiffies32());
        if !scheduled && rest != 0 && rest <= HZ {
            return soon.min(rest) as usize;
        }
        let mut pause = self.gc_pass(removed);
        if self.bridge_check_scheduled.load(Ordering::Relaxed) {
            pause = pause.min(BRIDGE_CHECK);
        }
        self.due.store(
            ffi::jiffies32().wrapping_add(pause as u32),
            Ordering::Relaxed,
        );
        pause.min(soon as usize)
    }

    /// Reads the ruleset, if it has changed. Returns in how many jiffies to try again, if it has to
    /// be.
    #[inline(never)]
    fn read_rules(&self) -> Option<u32> {
        self.watch.read(self.net(), self.serves, self.generation())
    }

    /// Requests revalidations of flows whose verdict may have changed without a commit, for a part
    /// of the table each time. Returns whether the ruleset has rules of that kind.
    #[inline(never)]
    fn request_revals(&self) -> bool {
        if !self.watch.has_volatile() {
            return false;
        }
        let generation = self.generation();
        let now = ffi::jiffies32();
        if now.wrapping_sub(self.reval_slice.load(Ordering::Relaxed)) < SLICE {
            return true;
        }
        self.reval_slice.store(now, Ordering::Relaxed);
        let mut left = REVALS_PER_SECOND / SLICES;
        let mut buckets = usize::MAX;

        while left != 0 && buckets != 0 && !self.is_closed() {
            self.locked(|inner| {
                buckets = buckets.min(inner.cts.buckets().div_ceil(SLICES));
                let n = buckets.min(REVAL_BUCKETS);
                let mut cursor = inner.reval_cursor;
                let more = inner.cts.visit(&mut cursor, n, |shared| {
                    if self.watch.is_volatile(shared.ct.get())
                        && shared.request_reval(generation, now)
                    {
                        stats::count(stats::Counter::FlowsAsked);
                        left = left.saturating_sub(1);
                    }
                    Visit::Keep
                });
                inner.reval_cursor = if more { cursor } else { Cursor::default() };
                buckets = if more { buckets.wrapping_sub(n) } else { 0 };
            });
            ffi::cond_resched();
        }
        true
    }

    /// Does all but the revalidation: collects, checks, resizes, and runs the hardware tier.
    /// Returns how many jiffies to pause then.
    #[inline(never)]
    fn gc_pass(&self, removed: &mut u32) -> usize {
        self.bridge_check_scheduled.store(false, Ordering::Relaxed);
        let unsettled = self.check_policies();
        let mut behind = self.gc_collect_some(removed);
        self.fold_mib_stats();
        self.check_bridges();
        let sure = self.check_next_hops() & self.check_egress();
        behind |= self.gc_step();
        behind |= self.gc_collect_some(removed);
        self.follow();
        self.resize(&self.v4, |inner| &mut inner.w4);
        self.resize(&self.v6, |inner| &mut inner.w6);
        self.resize(&self.cts, |inner| &mut inner.cts);
        self.resize(&self.ingress_paths, |inner| inner.ingress_paths.writer());
        self.resize(&self.hops, |inner| inner.hops.writer());

        // Without switchdev bridges give no notice.
        let pause = if self.has_bridged() && !cfg!(CONFIG_NET_SWITCHDEV) {
            HZ / 2
        } else {
            HZ
        };
        let pause = if sure { pause } else { HZ / 10 };
        let hardware = self.hw.as_ref().map_or(pause, |tier| tier.run(self));

        if behind {
            1
        } else {
            pause.min(hardware).min(unsettled) as usize
        }
    }

    /// Checks the bridge ports of ingress paths. The state of a port is protected by RTNL, which
    /// must not be waited for here: who holds it may wait for a flowtable's end, which waits for
    /// us. Nor is it held for long.
    #[inline(never)]
    fn check_bridges(&self) {
        const STEPS: usize = 8;

        let mut cursor = Cursor::default();
        let mut more = self.has_bridged();

        while more && !self.is_closed() {
            let rtnl = Rtnl::try_lock();

            for _ in 0..STEPS {
                more = self.locked(|inner| {
                    let ingress_paths = &mut inner.ingress_paths;

                    ingress_paths.recheck(&mut cursor, self.net(), rtnl.is_some())
                });
                if !more {
                    break;
                }
            }
            if rtnl.is_none() {
                self.schedule_bridge_check();
            }
            drop(rtnl);
            ffi::cond_resched();
        }
    }

    /// Takes dead flows out of table and wheel, and frees them.
    pub(super) fn gc_collect(&self) {
        self.gc_collect_while(&mut 0, || true);
    }

    /// Does a part of [`Flowtable::gc_collect`]: rules of dead flows are deleted by drivers, and
    /// those of flows that should not be in hardware any more wait meanwhile. Returns whether some
    /// are left.
    fn gc_collect_some(&self, removed: &mut u32) -> bool {
        const AT_ONCE: u32 = HZ.div_ceil(50);

        let begun = ffi::jiffies32();
        self.gc_collect_while(removed, || ffi::jiffies32().wrapping_sub(begun) <= AT_ONCE)
    }

    /// Adds those that it has taken out to `n`. Returns whether some are left.
    #[inline(never)]
    fn gc_collect_while(&self, n: &mut u32, go_on: impl Fn() -> bool) -> bool {
        let mut left = false;

        for flow in self.dead() {
            left |= !go_on();
            if left {
                self.queue_gc(&flow);
                continue;
            }
            if self.hw.as_ref().is_some_and(|tier| !tier.forget(&flow)) {
                // Another time.
                self.queue_gc(&flow);
                continue;
            }
            self.withdraw(flow);

            *n = n.wrapping_add(1);
            if *n as usize % FLOWS_AT_ONCE == 0 {
                ffi::cond_resched();
            }
        }
        left
    }

    /// Takes a dead flow out of tables and wheel, and frees it.
    fn withdraw(&self, flow: DeadFlow) {
        // SAFETY: A dead flow is valid until it is freed, which nobody else does. Its uses are taken
        // and it is freed once it is out of everything.
        unsafe {
            let routes = self.locked(|inner| {
                with_family!(flow, F, |flow| {
                    for entry in &flow.entries {
                        F::writer(inner).remove(entry);
                    }
                });
                inner.cts.remove(&flow);
                self.flow_count.store(inner.cts.len(), Ordering::Relaxed);
                inner.wheel.remove((&flow.link).into());
                let (uses, routes) = with_family!(flow, |flow| flow.take_uses());
                self.end_uses(inner, uses);
                routes
            });

            drop(routes);
            flow.free();
        }
    }

    /// Looks at the flows whose time has come. True if some are left: on a slow machine with many
    /// flows the dead must be taken out in between.
    #[inline(never)]
    fn gc_step(&self) -> bool {
        let mut due = [None::<&FlowShared>; FLOWS_AT_ONCE];
        let begun = tick();

        loop {
            let now = tick();
            if now.wrapping_sub(begun) > 1 || self.is_closed() {
                return true;
            }
            let mut n = 0;
            let flows = self.locked(|inner| {
                let mut budget = 4 * FLOWS_AT_ONCE as u32;

                while n < FLOWS_AT_ONCE {
                    match inner.wheel.advance(now, &mut budget) {
                        Due::Link(link) => {
                            // SAFETY: All links in the wheel are those of flows. The worker
                            // alone frees flows, and not here.
                            due[n] = Some(unsafe { FlowShared::from_link(link) });
                            n += 1;
                        }
                        Due::Busy | Due::Idle => break,
                    }
                }
                inner.wheel.len().wrapping_add(n)
            });
            if n == 0 {
                return false;
            }

            let interval = (1 + flows / FLOWS_PER_SECOND).min(MAX_INTERVAL as usize) as u32;
            let mut again = [None; FLOWS_AT_ONCE];

            for (flow, again) in due[..n].iter().flatten().zip(&mut again) {
                *again = self.check(flow, interval);
            }
            self.locked(|inner| {
                for (flow, again) in due[..n].iter().flatten().zip(&again) {
                    if let Some(after) = again {
                        inner.schedule(flow, now.wrapping_add(*after));
                    }
                }
            });
            ffi::cond_resched();
        }
    }

    /// Kills the flow if there is a reason; otherwise says in how many seconds to look again.
    fn check(&self, shared: &FlowShared, interval: u32) -> Option<u32> {
        let stale = || {
            let _rcu = rcu::read_lock();

            with_family!(shared, F, |flow| {
                if !flow.entries.iter().all(F::dst_valid) {
                    Some(TeardownReason::DstStale)
                } else if flow.entries.iter().any(|e| e.dst.mtu(F::NFPROTO) != e.mtu) {
                    // By router advertisements and settings, which nobody announces.
                    Some(TeardownReason::MtuChange)
                } else {
                    None
                }
            })
        };

        if !shared.state.is_live() {
            return None;
        }
        let ct = shared.ct.get();
        let idle = shared.idle(ffi::jiffies32());
        let timeout = self.net().offload_timeout(shared.proto.number());
        let reason = if ct.is_dying() {
            TeardownReason::CtDying
        } else if idle >= timeout {
            TeardownReason::Idle
        } else if shared.reval_timed_out(ffi::jiffies32()) {
            TeardownReason::Ruleset
        } else if ct.is_closed() {
            TeardownReason::Conntrack
        } else if let Some(reason) = stale() {
            reason
        } else if !shared.is_current() {
            TeardownReason::PathChange
        } else {
            shared.refresh_stamps();
            shared.refresh_ct();
            hw::reconsider(shared);
            let rest = timeout.wrapping_sub(idle).div_ceil(HZ);
            return Some(rest.clamp(1, interval));
        };
        shared.teardown(reason);
        None
    }
}

// SAFETY: A flowtable may be used from everywhere.
unsafe impl WorkerOwner for Flowtable {
    fn worker(&self) -> &Worker {
        TableRef::worker(self)
    }

    fn run(&self) -> usize {
        self.gc_run()
    }

    /// The end after the end: [`Flowtable::close`] was called a grace period ago.
    fn end(self: Pin<KBox<Self>>) {
        // Flows that a packet has killed, and had not put on the list then.
        self.gc_collect();
    }
}
