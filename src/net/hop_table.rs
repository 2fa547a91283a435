// SPDX-License-Identifier: GPL-2.0

//! The next hops of a flowtable, and the uses that directions of flows have of them.

use crate::{
    ffi::Rcu,
    net::{
        next_hop::NextHop,
        route::Neigh, //
    }, //
};
use core::{
    ops::Deref,
    ptr::NonNull,
    sync::atomic::Ordering, //
};
use kernel::prelude::*;
use nft_flow::{
    key::{
        Key,
        Seed, //
    },
    reason::SkipReason,
    table::{
        Table,
        Writer, //
    }, //
};

/// A use of a next hop, which its owner [ends](HopTable::end) under the flowtable's lock.
///
/// # Invariants
///
/// It is counted in `uses` of the next hop, which is valid until a grace period after the last use
/// has been ended.
#[must_use]
pub(crate) struct HopUse(NonNull<NextHop>);

// SAFETY: What changes of a next hop is atomic.
unsafe impl Send for HopUse {}
// SAFETY: As above.
unsafe impl Sync for HopUse {}

impl HopUse {
    /// The next hop, for a packet that may still be there when the use has been ended.
    #[inline(always)]
    pub(crate) fn get<'a>(&self, _: Rcu<'a>) -> &'a NextHop {
        // SAFETY: By the type invariant; RCU is held since the use was found.
        unsafe { self.0.as_ref() }
    }

    /// Takes the use out of what many look at.
    ///
    /// # Safety
    ///
    /// This is called once, and `self` is looked at in RCU sections that have begun, but in no later
    /// ones.
    pub(crate) unsafe fn take(&self) -> Self {
        // INVARIANT: By the contract of this function this is the use now.
        Self(self.0)
    }

    /// Whether the next hop may have been made just now, for a flow that has `most` uses: nobody else
    /// has more of it. Both directions may have the same one.
    pub(crate) fn is_new(&self, most: usize) -> bool {
        self.uses.load(Ordering::Relaxed) as usize <= most
    }
}

impl Deref for HopUse {
    type Target = NextHop;

    fn deref(&self) -> &NextHop {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_ref() }
    }
}

/// The next hops of a flowtable, under its lock.
///
/// # Invariants
///
/// The next hops in the table have uses, and are `listed`. No other is.
pub(crate) struct HopTable(Writer<NextHop>);

impl HopTable {
    /// Makes one with the writer of an empty table.
    pub(crate) fn new(writer: Writer<NextHop>) -> Self {
        // INVARIANT: It is empty.
        Self(writer)
    }

    /// The writer, for walks, a change of the table's size, and its end.
    pub(crate) fn writer(&mut self) -> &mut Writer<NextHop> {
        &mut self.0
    }

    /// Finds or makes the next hop of packets to a neighbour, and begins to use it. `table` is the
    /// one that this is the writer of.
    pub(crate) fn get(
        &mut self,
        table: &Table<NextHop>,
        neigh: &Neigh,
        v6: bool,
        seed: &Seed,
    ) -> Result<HopUse, SkipReason> {
        let key = NextHop::key_of(neigh.as_ptr(), v6);
        // SAFETY: Nothing is removed meanwhile, and a next hop in the table is valid.
        let found = unsafe { table.lookup(key.hash(seed), &key) };

        if let Some(hop) = found {
            if hop.neigh() == neigh.as_ptr() {
                hop.uses.fetch_add(1, Ordering::Relaxed);
                // INVARIANT: Just counted.
                return Ok(HopUse(hop.into()));
            }
            // Its neighbour is another one by now.
            self.0.remove(hop);
            hop.listed.store(false, Ordering::Relaxed);
            hop.set_direct(None);
        }

        // INVARIANT: A new one has one use.
        let hop = HopUse(NonNull::from(KBox::leak(NextHop::new(
            neigh.get(),
            v6,
            seed,
        )?)));
        // SAFETY: Freed a grace period after it was removed. Without room in the table it does as
        // well.
        let listed = unsafe { self.0.insert(hop.0) }.is_ok();

        hop.listed.store(listed, Ordering::Relaxed);
        Ok(hop)
    }

    /// Ends a use.
    pub(crate) fn end(&mut self, hop: HopUse) {
        if hop.uses.fetch_sub(1, Ordering::Relaxed) == 1 {
            if hop.listed.load(Ordering::Relaxed) {
                self.0.remove(&hop);
            }
            // SAFETY: The last use, and in no table.
            unsafe { NextHop::free(hop.0) };
        }
    }
}
