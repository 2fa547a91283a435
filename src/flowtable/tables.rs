// SPDX-License-Identifier: GPL-2.0

//! The memory of a flowtable's tables, and what goes into them.

use super::{
    Flowtable,
    FlowtableInner,
    Store,
    BUCKETS_AT_ONCE, //
};
use crate::{
    ffi::{
        self,
        c, //
    },
    flow::entry::Entry, //
};
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    types::ScopeGuard, //
};
use nft_flow::{
    reason::SkipReason,
    table::{
        Buckets,
        InsertError,
        Item,
        Migration,
        Table,
        Writer, //
    }, //
};

/// Buckets that no table has.
///
/// # Invariants
///
/// They came from [`SpareBuckets::new`], and no reader is in them.
pub(super) struct SpareBuckets<T>(Buckets<T>);

impl<T> SpareBuckets<T> {
    /// Allocates empty buckets.
    fn new(n: usize) -> Option<Self> {
        let layout = Buckets::<T>::layout(n)?;

        // SAFETY: Any size is allowed. The allocation is aligned to its size's largest power of
        // two, fresh, zeroed and large enough.
        let buckets = unsafe {
            let memory = NonNull::new(c::nfo_table_alloc(layout.size()))?;
            Buckets::from_zeroed(memory.cast(), n)
        };
        // INVARIANT: Just made.
        buckets.map(Self)
    }

    /// Allocates some that are freed unless the guard is dismissed.
    pub(super) fn guarded(n: usize) -> Result<ScopeGuard<Self, fn(Self)>> {
        let buckets = Self::new(n).ok_or(ENOMEM)?;

        Ok(ScopeGuard::new_with_data(buckets, Self::free as fn(Self)))
    }

    /// For a table.
    pub(super) fn into_inner(self) -> Buckets<T> {
        self.0
    }

    /// Frees them.
    fn free(self) {
        let (memory, _) = self.0.into_raw();

        // SAFETY: By the type invariant.
        unsafe { c::nfo_table_free(memory.as_ptr().cast()) };
    }
}

/// Frees what a closed table had.
///
/// # Safety
///
/// No reader may be in the arrays any more.
pub(super) unsafe fn free_both<T>((current, new): (Option<Buckets<T>>, Option<Buckets<T>>)) {
    // INVARIANT: By the contract of this function.
    for buckets in [current, new].into_iter().flatten().map(SpareBuckets) {
        buckets.free();
    }
}

/// Inserts both directions of a flow, or none. Original last: a walk that looks at one direction
/// only finds whole flows.
///
/// # Safety
///
/// As for [`Writer::insert`].
pub(super) unsafe fn insert_both<F: Store>(
    inner: &mut FlowtableInner,
    orig: &Entry<F>,
    reply: &Entry<F>,
) -> Result<(), SkipReason> {
    // SAFETY: By the contract of this function.
    unsafe {
        insert(F::writer(inner), reply, Entry::is_live)?;
        insert(F::writer(inner), orig, Entry::is_live).inspect_err(|_| {
            F::writer(inner).remove(reply);
        })
    }
}

/// Inserts an item. A dead one with the same key makes room; the worker will find that it is out of
/// the table already.
///
/// # Safety
///
/// As for [`Writer::insert`].
pub(super) unsafe fn insert<T: Item>(
    writer: &mut Writer<T>,
    item: &T,
    is_live: impl FnOnce(&T) -> bool,
) -> Result<(), SkipReason> {
    let mut is_live = Some(is_live);

    loop {
        // SAFETY: By the contract of this function. An item in the table is valid.
        let old = unsafe {
            match writer.insert(item.into()) {
                Ok(()) => return Ok(()),
                Err(InsertError::Full) => return Err(SkipReason::TableFull),
                Err(InsertError::Exists(old)) => old.as_ref(),
            }
        };

        // Once: there is one item with a key.
        if is_live.take().is_none_or(|is_live| is_live(old)) {
            return Err(SkipReason::TableExists);
        }
        writer.remove(old);
    }
}

impl Flowtable {
    /// Gives a table more or fewer buckets, if it wants them.
    #[inline(never)]
    pub(super) fn resize<T: Item>(
        &self,
        table: &Table<T>,
        writer: impl Fn(&mut FlowtableInner) -> &mut Writer<T>,
    ) {
        while let Some(want) = self.locked(|inner| writer(inner).wants_resize()) {
            if !self.resize_to(want, table, &writer) {
                return;
            }
        }
    }

    /// Gives a table `want` buckets. False if that cannot be done now.
    fn resize_to<T: Item>(
        &self,
        want: usize,
        table: &Table<T>,
        writer: &impl Fn(&mut FlowtableInner) -> &mut Writer<T>,
    ) -> bool {
        // Without memory the table stays as it is; the worker asks again in a second.
        let Some(new) = SpareBuckets::new(want) else {
            return false;
        };
        if let Err(new) = self.locked(|inner| writer(inner).begin_resize(new.0)) {
            // INVARIANT: No reader has seen it.
            SpareBuckets(new).free();
            return false;
        }

        let old = loop {
            match self.locked(|inner| writer(inner).migrate(BUCKETS_AT_ONCE)) {
                Migration::More => ffi::cond_resched(),
                Migration::Done => {
                    // SAFETY: The callers pass a table and its own writer.
                    let old = self.locked(|inner| unsafe { writer(inner).finish(table) });
                    if old.is_some() {
                        break old;
                    }
                }
                Migration::Failed | Migration::Idle => {
                    break self.locked(|inner| writer(inner).abort_resize());
                }
            }
        };
        if let Some(old) = old {
            let size = Buckets::<T>::layout(old.len()).map_or(0, |layout| layout.size());
            let (memory, _) = old.into_raw();

            // SAFETY: It came from `alloc_buckets` with this size; readers are waited for.
            unsafe { c::nfo_table_free_rcu(memory.as_ptr().cast(), size) };
        }
        true
    }
}
