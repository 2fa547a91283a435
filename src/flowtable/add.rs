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
    flow::{
        ingress_path::{
            PathRef, //
            Prealloc,
        },
        object::Flow,
        shared::FlowShared, //
    },
    net::{
        ct::Ct,
        device_path::Ingress,
        family::Family,
        forward_path::DirPath,
        hop_table::HopUse, //
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
#[derive(Clone, Copy)]
enum Rejected {
    /// It was in no table.
    Unpublished(SkipReason),
    /// It was in some.
    Published(SkipReason),
}

impl Flowtable {
    /// Makes a flow of a connection and its way out in both directions. It is in no table yet.
    pub(crate) fn new_flow<F: Family>(
        &self,
        ct: Ct,
        proto: L4Proto,
        halves: [DirPath<'_>; 2],
    ) -> Result<NonNull<Flow<F>>, SkipReason> {
        let [orig, reply] = &halves;
        let a = self.intern(&reply.ingress)?;
        let ingress_paths = self
            .intern(&orig.ingress)
            .map(|b| [a, b])
            .inspect_err(|_| self.release([a, None]))?;

        let mut first = false;
        let next_hops = self
            .locked(|inner| {
                let hops = self.next_hops::<F>(inner, [&orig.xmit, &reply.xmit])?;

                first = hops.iter().flatten().any(HopUse::is_first);
                Ok(hops)
            })
            .inspect_err(|_| self.release(ingress_paths))?;
        if first {
            self.schedule_gc();
        }

        Flow::new(ct, proto, halves, ingress_paths, next_hops, self).map_err(|(why, next_hops)| {
            self.release(ingress_paths);
            self.locked(|inner| Self::release_next_hops(inner, next_hops));
            why
        })
    }

    /// Publishes a flow. Whatever becomes of it, it belongs to the flowtable, and so does the claim
    /// on its conntrack entry.
    ///
    /// # Errors
    ///
    /// There is no place for it; conntrack has its entry back.
    ///
    /// # Safety
    ///
    /// `flow` came from [`Flowtable::new_flow`] and is in no table. Somebody else keeps its
    /// conntrack entry.
    pub(crate) unsafe fn add<F: Store>(&self, flow: NonNull<Flow<F>>) -> Result<(), SkipReason> {
        // SAFETY: Valid, and not yet shared.
        let Flow {
            entries: [orig, reply],
            shared,
        } = unsafe { flow.as_ref() };

        let (added, wanted) = self.locked(|inner| {
            let looked = inner.egress.mark([orig, reply]);
            let added = if inner.closing {
                Err(Rejected::Unpublished(SkipReason::FlowtableClosing))
            } else {
                // SAFETY: The worker frees a flow a grace period after it has withdrawn it.
                unsafe { insert(&mut inner.cts, shared, FlowShared::is_live) }
                    .map_err(Rejected::Unpublished)
                    .and_then(|()| {
                        // SAFETY: As above.
                        unsafe { insert_both::<F>(inner, orig, reply) }.map_err(Rejected::Published)
                    })
            };
            match added {
                Ok(()) => {
                    // SAFETY: The worker removes the link before it frees the flow.
                    unsafe {
                        inner
                            .wheel
                            .add((&shared.link).into(), tick().wrapping_add(1))
                    };
                }
                // A packet may have found it already: the worker frees it.
                Err(Rejected::Published(_)) => {
                    shared.teardown(TeardownReason::NotAdded);
                }
                Err(Rejected::Unpublished(_)) => (),
            }
            (
                added,
                !looked
                    || F::writer(inner).wants_resize().is_some()
                    || inner.cts.wants_resize().is_some(),
            )
        });

        if wanted {
            self.schedule_gc();
        }
        if let Err(Rejected::Unpublished(why)) = added {
            // SAFETY: By the contract of this function, and it is in no table.
            unsafe { self.discard(flow) };
            return Err(why);
        }
        stats::count(stats::Counter::FlowsAdded);
        added.map_err(|e| match e {
            Rejected::Published(why) | Rejected::Unpublished(why) => why,
        })
    }

    /// Frees a flow that nobody has seen, and gives its conntrack entry back.
    ///
    /// # Safety
    ///
    /// As for [`Flowtable::add`].
    unsafe fn discard<F: Family>(&self, flow: NonNull<Flow<F>>) {
        // SAFETY: By the contract of this function; the entry outlives the flow.
        unsafe {
            let ct = flow.as_ref().shared.ct.get();

            ct.fixup(&flow.as_ref().fixup(TeardownReason::NotAdded));
            self.release(flow.as_ref().shared.ingress_paths);
            self.locked(|inner| Self::release_next_hops_of(inner, flow.as_ref()));
            flow.as_ref().release_routes();
            Flow::destroy(flow);
            ct.release_claim();
        }
    }

    /// Finds or makes the ingress path of packets that come in by `ingress`; [`None`] for plain
    /// packets.
    pub(crate) fn intern(&self, ingress: &Ingress<'_>) -> Result<Option<PathRef>, SkipReason> {
        if ingress.stack.tunnel.is_none() && !ingress.needs_ingress_path() {
            return Ok(None);
        }
        let mut reserve = Prealloc::new(ingress)?;

        let path = self.locked(|inner| {
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
            if let Ok(Some(path)) = path {
                self.tags.put(&path);
            }
            path
        })?;
        if path.is_some_and(|path| !path.is_checked()) {
            self.schedule_gc();
        }
        Ok(path)
    }

    /// Ends the use of ingress paths.
    pub(crate) fn release(&self, ingress_paths: [Option<PathRef>; 2]) {
        self.locked(|inner| self.release_locked(inner, ingress_paths));
    }

    pub(super) fn release_locked(
        &self,
        inner: &mut FlowtableInner,
        ingress_paths: [Option<PathRef>; 2],
    ) {
        let followed = inner.ingress_paths.followed();

        for path in ingress_paths.into_iter().flatten() {
            // SAFETY: Counted by `intern`, and given back once.
            unsafe {
                inner
                    .ingress_paths
                    .release(&|path| self.tags.remove(path), &self.ids, path)
            };
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
