// SPDX-License-Identifier: GPL-2.0

//! The next hops of a flowtable, and how the worker finds out how packets to them leave.

use super::{
    lookup,
    Flowtable,
    FlowtableInner, //
};
use crate::{
    ffi::{
        self,
        Rcu,
        Rtnl, //
    },
    flow::{
        entry::Entry,
        object::Flow, //
    },
    net::{
        direct::{
            Direct,
            Ports,
            Refusal, //
        },
        family::{
            Family,
            V4,
            V6, //
        },
        forward_path::XmitType,
        next_hop::NextHop, //
        route::Neigh,
    }, //
};
use core::{
    ptr::NonNull,
    sync::atomic::Ordering, //
};
use kernel::{
    prelude::*,
    sync::rcu, //
};
use nft_flow::{
    key::Key,
    reason::SkipReason,
    table::{
        Cursor,
        Visit, //
    }, //
};

/// Buckets that are looked at before others get a chance to run.
const BUCKETS_AT_ONCE: usize = 4;

impl Flowtable {
    /// Finds or makes the next hop of packets that leave by `output`, and counts a use of it;
    /// [`None`] for IPsec.
    fn next_hop<F: Family>(
        &self,
        output: &XmitType,
    ) -> Result<Option<NonNull<NextHop>>, SkipReason> {
        let XmitType::Neigh(neigh) = output else {
            return Ok(None);
        };
        let v6 = F::NFPROTO == V6::NFPROTO;

        if let Some(hop) = self.locked(|inner| self.use_next_hop(inner, neigh, v6)) {
            return Ok(Some(hop));
        }
        let new = NextHop::new(neigh.get(), v6, &self.seed)?;
        let hop = self.locked(|inner| {
            if let Some(hop) = self.use_next_hop(inner, neigh, v6) {
                return Err((hop, new));
            }
            let hop = NonNull::from(KBox::leak(new));
            // SAFETY: Freed a grace period after it was removed. Without room in the table it does
            // as well.
            unsafe {
                let listed = inner.hops.insert(hop).is_ok();
                hop.as_ref().listed.store(listed, Ordering::Relaxed);
            }
            Ok(hop)
        });
        // Somebody has been quicker.
        let hop = hop.or_else(|(hop, spare)| {
            // SAFETY: Nobody has seen it.
            unsafe { NextHop::free(NonNull::from(KBox::leak(spare))) };
            Ok(hop)
        })?;
        self.schedule_gc();
        Ok(Some(hop))
    }

    /// Those of both directions.
    pub(super) fn next_hops<F: Family>(
        &self,
        [orig, reply]: [&XmitType; 2],
    ) -> Result<[Option<NonNull<NextHop>>; 2], SkipReason> {
        let there = self.next_hop::<F>(orig)?;

        self.next_hop::<F>(reply)
            .map(|back| [there, back])
            .inspect_err(|_| {
                // SAFETY: Counted just now, and nobody has it.
                self.locked(|inner| unsafe { Self::release_next_hops(inner, [there, None]) });
            })
    }

    /// Uses the next hop of a neighbour, if there is one.
    fn use_next_hop(
        &self,
        inner: &mut FlowtableInner,
        neigh: &Neigh,
        v6: bool,
    ) -> Option<NonNull<NextHop>> {
        let key = NextHop::key_of(neigh.as_ptr(), v6);

        let guard = rcu::read_lock();
        let hop = lookup((&guard).into(), &self.hops, key.hash(&self.seed), &key)?;
        if hop.neigh() == neigh.as_ptr() {
            hop.uses.fetch_add(1, Ordering::Relaxed);
            return Some(hop.into());
        }
        // Its neighbour is another one by now.
        inner.hops.remove(hop);
        hop.listed.store(false, Ordering::Relaxed);
        hop.set_direct(None);
        None
    }

    /// Ends uses of next hops.
    ///
    /// # Safety
    ///
    /// They were counted by [`Flowtable::next_hop`], and are given back once; no packet that comes
    /// finds an entry that has them.
    pub(super) unsafe fn release_next_hops(
        inner: &mut FlowtableInner,
        hops: [Option<NonNull<NextHop>>; 2],
    ) {
        for hop in hops.into_iter().flatten() {
            // SAFETY: Counted, hence valid.
            let this = unsafe { hop.as_ref() };

            if this.uses.fetch_sub(1, Ordering::Relaxed) == 1 {
                if this.listed.load(Ordering::Relaxed) {
                    inner.hops.remove(this);
                }
                // SAFETY: The last use, and in no table.
                unsafe { NextHop::free(hop) };
            }
        }
    }

    /// Ends the uses of a flow.
    ///
    /// # Safety
    ///
    /// As for [`Flowtable::release_next_hops`].
    pub(super) unsafe fn release_next_hops_of<F: Family>(
        inner: &mut FlowtableInner,
        flow: &Flow<F>,
    ) {
        let hops = flow.entries.each_ref().map(Entry::next_hop_use);

        // SAFETY: The same contract.
        unsafe { Self::release_next_hops(inner, hops) };
    }

    /// Finds out how packets to each next hop leave now. False if it is to be done again soon, because
    /// RTNL was not to be had: it must not be waited for here, see
    /// [`check_bridges`](Self::check_bridges).
    pub(super) fn check_next_hops(&self) -> bool {
        if self.check_all_next_hops(false) {
            return true;
        }
        let rtnl = Rtnl::try_lock();

        rtnl.is_some() && self.check_all_next_hops(true)
    }

    /// The same, with or without RTNL. False if something cannot be told without.
    fn check_all_next_hops(&self, rtnl: bool) -> bool {
        let mut cursor = Cursor::default();
        let mut more = self.locked(|inner| !inner.hops.is_empty());
        let mut sure = true;

        while more && !self.is_closed() {
            more = self.locked(|inner| {
                inner.hops.visit(&mut cursor, BUCKETS_AT_ONCE, |hop| {
                    sure &= if hop.v6 {
                        self.check_next_hop::<V6>(hop, rtnl)
                    } else {
                        self.check_next_hop::<V4>(hop, rtnl)
                    };
                    Visit::Keep
                })
            });
            ffi::cond_resched();
        }
        sure
    }

    /// The same for one; under the lock.
    fn check_next_hop<F: Family>(&self, hop: &NextHop, rtnl: bool) -> bool {
        let guard = rcu::read_lock();
        let rcu = Rcu::from(&guard);
        let Some(n) = hop.neighbour(rcu) else {
            return true;
        };
        let old = hop.direct(rcu);
        let ports = match old {
            _ if rtnl => Ports::Ask,
            // A port that does not forward any more would have changed the topology.
            // SAFETY: RCU is held, and the neighbour is valid.
            Some(old) if unsafe { old.is_valid(n.as_ptr()) } => Ports::Forward,
            _ => Ports::Unknown,
        };

        // SAFETY: The flowtable keeps what there is of the namespace.
        let new = unsafe { Direct::resolve::<F>(rcu, n, self.nft(), self.netns.topology(), ports) };
        match new {
            Ok(new) => {
                if old.is_none_or(|old| !old.is_same(&new)) {
                    hop.set_direct(KBox::new(new, GFP_ATOMIC | __GFP_NOWARN).ok());
                }
                true
            }
            Err(Refusal::Stack) => {
                hop.set_direct(None);
                true
            }
            Err(Refusal::Rtnl) => false,
        }
    }
}
