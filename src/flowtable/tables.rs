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

/// Allocates empty buckets.
fn alloc_buckets<T>(n: usize) -> Option<Buckets<T>> {
    let layout = Buckets::<T>::layout(n)?;
    // SAFETY: Any size is allowed. The allocation is aligned to its size's largest power of two.
    let memory = NonNull::new(unsafe { c::nfo_table_alloc(layout.size()) })?;

    // SAFETY: Fresh, zeroed and large enough.
    unsafe { Buckets::from_zeroed(memory.cast(), n) }
}

/// Buckets that are freed unless the guard is dismissed.
pub(super) fn guarded_buckets<T>(
    n: usize,
) -> Result<ScopeGuard<Buckets<T>, impl FnOnce(Buckets<T>)>> {
    let buckets = alloc_buckets(n).ok_or(ENOMEM)?;

    // SAFETY: No table has them.
    Ok(ScopeGuard::new_with_data(buckets, |b| unsafe {
        free_buckets(b)
    }))
}

/// Frees buckets.
///
/// # Safety
///
/// No reader may be in the array any more.
unsafe fn free_buckets<T>(buckets: Buckets<T>) {
    let (memory, _) = buckets.into_raw();

    // SAFETY: It came from `alloc_buckets`.
    unsafe { c::nfo_table_free(memory.as_ptr().cast()) };
}

/// Frees what a closed table had.
///
/// # Safety
///
/// No reader may be in the arrays any more.
pub(super) unsafe fn free_both<T>((current, new): (Option<Buckets<T>>, Option<Buckets<T>>)) {
    for buckets in [current, new].into_iter().flatten() {
        // SAFETY: By the contract of this function.
        unsafe { free_buckets(buckets) };
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
    // SAFETY: By the contract of this function.
    match unsafe { writer.insert(item.into()) } {
        Ok(()) => return Ok(()),
        Err(InsertError::Full) => return Err(SkipReason::TableFull),
        Err(InsertError::Exists(old)) => {
            // SAFETY: An item in the table is valid.
            let old = unsafe { old.as_ref() };

            if is_live(old) {
                return Err(SkipReason::TableExists);
            }
            writer.remove(old);
        }
    }
    // SAFETY: By the contract of this function.
    unsafe { writer.insert(item.into()) }.map_err(|e| match e {
        InsertError::Full => SkipReason::TableFull,
        InsertError::Exists(_) => SkipReason::TableExists,
    })
}

impl Flowtable {
    /// Gives a table more or fewer buckets, if it wants them.
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
        let Some(new) = alloc_buckets(want) else {
            return false;
        };
        if let Err(new) = self.locked(|inner| writer(inner).begin_resize(new)) {
            // SAFETY: No reader has seen it.
            unsafe { free_buckets(new) };
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
