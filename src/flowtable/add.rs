// SPDX-License-Identifier: GPL-2.0

//! New flows: made with the ingress paths that they use, and put into the tables; or taken back.

use super::{
    mac_bit,
    tables::{
        insert,
        insert_both, //
    },
    tick,
    Flowtable,
    FlowtableInner,
    Store, //
};
use crate::{
    ffi::{
        self,
        Rcu, //
    },
    flow::{
        events::FlowEvent,
        ingress_path::{
            PathRef, //
            Prealloc,
        },
        object::{
            Flow,
            FlowUses,
            NewFlow, //
        },
        shared::FlowShared, //
    },
    net::{
        ct::Ct,
        device_path::Ingress,
        family::Family,
        forward_path::DirPath, //
        trace,
    },
    stats, //
};
use core::{
    ptr::NonNull,
    sync::atomic::Ordering, //
};
use nft_flow::{
    key::L4Proto,
    reason::{
        SkipReason,
        TeardownReason, //
    }, //
};

/// Why a flow was not added.
enum Rejected<F: Family> {
    /// It was not made.
    Unmade(SkipReason),
    /// It was in no table.
    Unpublished(NonNull<Flow<F>>, SkipReason),
    /// It was in some: the worker frees it.
    Published(SkipReason),
}

/// Memory for the ingress paths of both directions, if they need some.
type Reserves = [Option<Prealloc>; 2];

impl Flowtable {
    /// Adds a flow of a connection and its way out in both directions (`flow_offload_add()`). The
    /// claim on the conntrack entry becomes the flow's. All memory is allocated before the lock is
    /// taken, once; only a neighbour that no flow has used yet needs some more.
    ///
    /// # Errors
    ///
    /// There is no place for it; the claim has been released.
    pub(crate) fn add<'a, F: Store>(
        &self,
        rcu: Rcu<'a>,
        ct: Ct,
        proto: L4Proto,
        halves: [DirPath<'_>; 2],
    ) -> Result<&'a Flow<F>, SkipReason> {
        let (added, wanted) = match self.prepare::<F>(ct, proto, &halves) {
            Ok((new, reserves)) => self.locked(|inner| {
                let mut wanted = false;
                let added = self
                    .make(inner, new, halves, reserves, &mut wanted)
                    .and_then(|flow| {
                        ct.offload_begin();
                        self.publish(inner, flow, &mut wanted)
                    });

                (added, wanted)
            }),
            Err(why) => (Err(Rejected::Unmade(why)), false),
        };

        if wanted {
            self.schedule_gc();
        }
        match added {
            Ok(flow) => {
                stats::count(stats::Counter::FlowsAdded);
                // SAFETY: Whatever becomes of it, it is valid until the end of the section.
                let flow = unsafe { flow.as_ref() };
                trace::add(ct, self.nft(), || {
                    let [orig, _] = &flow.entries;

                    (flow.shared.iif[0], orig.dst.device(rcu).ifindex())
                });
                self.notify(&flow.shared, FlowEvent::Added);
                Ok(flow)
            }
            Err(Rejected::Published(why)) => {
                stats::count(stats::Counter::FlowsAdded);
                Err(why)
            }
            Err(Rejected::Unpublished(flow, why)) => {
                // SAFETY: Just made, and in no table.
                unsafe { self.discard(flow) };
                Err(why)
            }
            Err(Rejected::Unmade(why)) => {
                ct.release_claim();
                Err(why)
            }
        }
    }

    /// Whether there are as many flows as the parameter `max_flows` allows. Under the lock the
    /// answer is exact.
    pub(crate) fn is_full(&self) -> bool {
        match ffi::max_flows() {
            0 => false,
            most => self.flow_count.load(Ordering::Relaxed) >= most as usize,
        }
    }

    /// Allocates what a new flow may need.
    #[inline(never)]
    fn prepare<F: Store>(
        &self,
        ct: Ct,
        proto: L4Proto,
        [orig, reply]: &[DirPath<'_>; 2],
    ) -> Result<(NewFlow<F>, Reserves), SkipReason> {
        let reserve = |ingress: &Ingress<'_>| {
            if ingress.stack.tunnel.is_none() && !ingress.needs_ingress_path() {
                return Ok(None);
            }
            Prealloc::new(ingress).map(Some)
        };

        Ok((
            NewFlow::new(ct, proto)?,
            [reserve(&reply.ingress)?, reserve(&orig.ingress)?],
        ))
    }

    /// Makes a flow that is in no table yet.
    #[inline(never)]
    fn make<F: Store>(
        &self,
        inner: &mut FlowtableInner,
        new: NewFlow<F>,
        halves: [DirPath<'_>; 2],
        reserves: Reserves,
        wanted: &mut bool,
    ) -> Result<NonNull<Flow<F>>, Rejected<F>> {
        let mut uses = FlowUses::default();

        match self.begin_uses::<F>(inner, &halves, reserves, &mut uses) {
            Ok(()) => {
                *wanted |= uses.want_worker();
                Ok(new.make(halves, uses, self))
            }
            Err(why) => {
                self.end_uses(inner, uses);
                Err(Rejected::Unmade(why))
            }
        }
    }

    /// Finds or makes the ingress paths and next hops of a flow. After an error `uses` has those
    /// that were found before.
    fn begin_uses<F: Store>(
        &self,
        inner: &mut FlowtableInner,
        [orig, reply]: &[DirPath<'_>; 2],
        [orig_reserve, reply_reserve]: Reserves,
        uses: &mut FlowUses,
    ) -> Result<(), SkipReason> {
        let [orig_path, reply_path] = &mut uses.ingress_paths;
        let [orig_hop, reply_hop] = &mut uses.next_hops;

        if inner.closing {
            return Err(SkipReason::FlowtableClosing);
        }
        if self.is_full() {
            return Err(SkipReason::MaxFlows);
        }
        // Packets of a direction come in as those of the other one leave.
        *orig_path = self.intern(inner, &reply.ingress, orig_reserve)?;
        *reply_path = self.intern(inner, &orig.ingress, reply_reserve)?;
        *orig_hop = self.next_hop::<F>(inner, &orig.xmit)?;
        *reply_hop = self.next_hop::<F>(inner, &reply.xmit)?;
        Ok(())
    }

    /// Publishes a flow. From here on a packet may take it, and somebody may give its conntrack
    /// entry back.
    #[inline(never)]
    fn publish<F: Store>(
        &self,
        inner: &mut FlowtableInner,
        flow: NonNull<Flow<F>>,
        wanted: &mut bool,
    ) -> Result<NonNull<Flow<F>>, Rejected<F>> {
        // SAFETY: Just made, and in no table. The worker frees a flow a grace period after it has
        // withdrawn it.
        let (shared, added) = unsafe {
            let Flow {
                entries: [orig, reply],
                shared,
            } = flow.as_ref();

            *wanted |= !inner.egress.mark([orig, reply]);
            let added = insert(&mut inner.cts, shared, FlowShared::is_live)
                .map_err(|why| Rejected::Unpublished(flow, why))
                .and_then(|()| insert_both::<F>(inner, orig, reply).map_err(Rejected::Published));
            (shared, added)
        };

        match added {
            Ok(()) => {
                self.flow_count.store(inner.cts.len(), Ordering::Relaxed);
                inner.schedule(shared, tick().wrapping_add(1));
            }
            // A packet may have found it already: the worker frees it.
            Err(Rejected::Published(_)) => {
                shared.teardown(TeardownReason::NotAdded);
            }
            Err(_) => (),
        }
        *wanted |= F::writer(inner).wants_resize().is_some() || inner.cts.wants_resize().is_some();
        added.map(|()| flow)
    }

    /// Frees a flow that nobody has seen, and gives its conntrack entry back.
    ///
    /// # Safety
    ///
    /// `flow` came from [`NewFlow::make`] and is in no table. Somebody else keeps its conntrack
    /// entry.
    unsafe fn discard<F: Family>(&self, flow: NonNull<Flow<F>>) {
        // SAFETY: By the contract of this function; the entry outlives the flow.
        unsafe {
            let this = flow.as_ref();
            let ct = this.shared.ct.get();

            ct.fixup(&this.fixup(TeardownReason::NotAdded));
            let (uses, routes) = this.take_uses();
            self.locked(|inner| self.end_uses(inner, uses));
            drop(routes);
            Flow::destroy(flow);
            ct.release_claim();
        }
    }

    /// Finds or makes the ingress path of packets that come in by `ingress`; [`None`] for plain
    /// packets, which have no `reserve`.
    fn intern(
        &self,
        inner: &mut FlowtableInner,
        ingress: &Ingress<'_>,
        reserve: Option<Prealloc>,
    ) -> Result<Option<PathRef>, SkipReason> {
        let Some(mut reserve) = reserve else {
            return Ok(None);
        };
        let followed = inner.ingress_paths.followed();
        let path = inner.ingress_paths.intern(
            &|path| self.tags.remove(path),
            &self.ids,
            ingress,
            &mut reserve,
        );

        if inner.ingress_paths.followed() != followed {
            self.follows.change();
        }
        if !self.may_be_to(ingress.stack.mac) {
            self.macs
                .fetch_or(mac_bit(ingress.stack.mac), Ordering::Relaxed);
        }
        self.publish_counts(inner);
        if let Ok(Some(path)) = &path {
            self.tags.put(path);
        }
        path
    }

    /// Ends the uses of a flow.
    pub(super) fn end_uses(&self, inner: &mut FlowtableInner, uses: FlowUses) {
        let followed = inner.ingress_paths.followed();

        for hop in uses.next_hops.into_iter().flatten() {
            inner.hops.end(hop);
        }
        for path in uses.ingress_paths.into_iter().flatten() {
            inner
                .ingress_paths
                .release(&|path| self.tags.remove(path), &self.ids, path);
        }
        if inner.ingress_paths.followed() != followed {
            self.follows.change();
        }
        if inner.ingress_paths.is_empty() && self.has_ingress_paths() {
            self.macs.store(0, Ordering::Relaxed);
        }
        self.publish_counts(inner);
    }

    /// Says to packets and the worker which ingress paths there are, if that has changed.
    fn publish_counts(&self, inner: &FlowtableInner) {
        for (shown, now) in [
            (&self.ingress_path_count, inner.ingress_paths.len()),
            (&self.bridged, inner.ingress_paths.bridged()),
        ] {
            if shown.load(Ordering::Relaxed) != now {
                shown.store(now, Ordering::Relaxed);
            }
        }
    }
}
