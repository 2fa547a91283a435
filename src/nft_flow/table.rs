// SPDX-License-Identifier: GPL-2.0

//! The hash table: buckets of one cache line, readers without locks, one writer at a time.
//!
//! A bucket holds 16-bit tags and pointers to items. A reader compares the tag with all of a bucket
//! at once and follows a pointer only for a likely match, so a lookup costs two cache lines: the
//! bucket and the item. An entry that finds its bucket full goes to the next one that has room, at
//! most fifteen further on, and every bucket on the way counts it; a reader leaves a bucket for the
//! next only while that count is not zero (the scheme of Facebook's F14).
//!
//! Publication order. An entry is inserted by storing first the pointer, then the tag; it is
//! removed by clearing first the tag, then the pointer. Entries do not move inside an array.
//! Therefore a reader finds every entry that is present during the whole lookup. It may also find
//! one that is being removed, and it may load a pointer that belongs to a later entry than the tag
//! did, which the comparison of the full key sorts out. Items stay valid for a grace period after
//! removal.
//!
//! Resizing. The writer fills a second array, a few buckets at a time, while readers keep to the
//! first one. Insertions and removals go to the first array, and to the second one too where the
//! copying has been already. When all is copied, one store makes the second array the current one,
//! and the first is freed after a grace period. Nothing on the insert path allocates or copies.

mod bucket;
mod scan;

pub use bucket::Buckets;
pub use scan::Place;

use crate::{
    key::Key,
    sync::{
        AtomicPtr,
        Ordering, //
    },
};
use bucket::{
    tag,
    Bucket,
    View,
    SLOTS, //
};
use core::ptr::NonNull;

/// How many buckets an entry may be away from the one it hashes to, counting that one.
///
/// With random hashes and 3.5 entries per bucket, a run of 8 full buckets turns up once in some
/// ten thousand buckets (`tests/flood.rs` found one); a run of 16 is out of the question.
const MAX_PROBE: usize = 16;

/// Something that a table holds.
///
/// # Safety
///
/// [`Item::key`] and [`Item::hash`] return the same values for as long as the item is in a table,
/// and [`Item::hash`] is what [`Table::lookup`] is called with for this key.
pub unsafe trait Item {
    /// What the item is found by.
    type Key: Key;

    /// The key.
    fn key(&self) -> &Self::Key;

    /// The hash of the key, stored.
    fn hash(&self) -> u32;
}

/// The readers' side of a table.
///
/// # Invariants
///
/// `current` is null or packed from an array that is valid until a grace period after it was
/// replaced.
pub struct Table<T> {
    current: AtomicPtr<Bucket<T>>,
}

// SAFETY: Readers on any thread get `&T`; nothing is owned.
unsafe impl<T: Send + Sync> Send for Table<T> {}
// SAFETY: As for `Send`.
unsafe impl<T: Send + Sync> Sync for Table<T> {}

impl<T: Item> Table<T> {
    /// Makes a table of empty buckets, and its writer. The number of buckets is the smallest that
    /// the table will shrink to.
    ///
    /// The two are a pair: the writer belongs under the caller's lock, the table beside it.
    pub fn new(buckets: Buckets<T>) -> (Self, Writer<T>) {
        let table = Table {
            current: AtomicPtr::new(buckets.pack()),
        };
        let writer = Writer {
            min: buckets.len(),
            hint: 0,
            len: 0,
            full: false,
            epoch: 0,
            current: Some(buckets),
            resize: None,
        };
        (table, writer)
    }

    /// Finds the item with key `key`, whose hash is `hash`.
    ///
    /// # Safety
    ///
    /// During `'g` the caller is in a read section that the grace periods of this table wait for:
    /// those before removed items and replaced arrays are freed.
    #[inline(always)]
    pub unsafe fn lookup<'g>(&'g self, hash: u32, key: &T::Key) -> Option<&'g T> {
        // Pairs with the store in `finish`. One load, so that base and size belong together.
        let packed = self.current.load(Ordering::Acquire);
        // SAFETY: By the type invariant and the read section the array is valid during `'g`.
        let view = unsafe { View::unpack(packed) }?;
        let tag = tag(hash);
        let mut index = hash as usize;

        for _ in 0..MAX_PROBE {
            let found = view.bucket(index).probe(tag, |item| {
                // SAFETY: An item that a reader can load is valid until a grace period after its
                // removal (`Writer::insert`), and this reader's section has not ended.
                let item = unsafe { item.as_ref() };
                (item.key() == key).then_some(item)
            });
            match found {
                Ok(item) => return Some(item),
                Err(false) => return None,
                Err(true) => index = index.wrapping_add(1),
            }
        }
        None
    }
}

/// Why an item was not inserted.
pub enum InsertError<T> {
    /// This item has the same key.
    Exists(NonNull<T>),
    /// No room near the bucket that the key hashes to, or the table is closed. The table
    /// [wants a resize](Writer::wants_resize) now.
    Full,
}

// By hand, because a derive would ask the same of `T`.
impl<T> Clone for InsertError<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for InsertError<T> {}

impl<T> PartialEq for InsertError<T> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (InsertError::Exists(a), InsertError::Exists(b)) => a == b,
            (InsertError::Full, InsertError::Full) => true,
            _ => false,
        }
    }
}

impl<T> Eq for InsertError<T> {}

impl<T> core::fmt::Debug for InsertError<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            InsertError::Exists(item) => f.debug_tuple("Exists").field(item).finish(),
            InsertError::Full => f.write_str("Full"),
        }
    }
}

/// How far a resize has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Migration {
    /// Call [`Writer::migrate`] again.
    More,
    /// Everything is copied: call [`Writer::finish`].
    Done,
    /// An entry found no room in the new array: call [`Writer::abort_resize`]. The table will
    /// want a larger one.
    Failed,
    /// No resize is under way.
    Idle,
}

/// What to do with an item that was visited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Visit {
    /// Leave it in the table.
    Keep,
    /// Remove it from the table. It stays valid for a grace period.
    Remove,
}

/// A place in a walk over the table. Starts at the beginning.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    bucket: usize,
    epoch: usize,
}

/// A resize under way.
///
/// # Invariants
///
/// Every entry of the current array's buckets below `copied` is in `buckets`, unless `failed`, and
/// no other entry is.
struct Resize<T> {
    buckets: Buckets<T>,
    copied: usize,
    failed: bool,
}

/// The writer's side of a table. Only one thread may use it at a time, which `&mut` says; the
/// caller's lock gives it out.
///
/// # Invariants
///
/// - `current` is the array that the table's readers use, [`None`] once the table is closed.
/// - `len` is the number of entries in it.
pub struct Writer<T> {
    current: Option<Buckets<T>>,
    resize: Option<Resize<T>>,
    len: usize,
    /// The smallest number of buckets to shrink to.
    min: usize,
    /// The number of buckets to go for after a resize failed, or 0.
    hint: usize,
    /// An insertion found no room since the last resize.
    full: bool,
    /// Counts the arrays, so that a [`Cursor`] notices a new one.
    epoch: usize,
}

impl<T: Item> Writer<T> {
    /// The number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of buckets that readers use; zero once the table is closed.
    pub fn buckets(&self) -> usize {
        self.current.as_ref().map_or(0, Buckets::len)
    }

    /// Whether a resize is under way.
    pub fn is_resizing(&self) -> bool {
        self.resize.is_some()
    }

    /// The item with the key of `like`, which need not be in any table.
    pub fn find(&self, like: &T) -> Option<NonNull<T>> {
        find_key(self.current.as_ref()?, like)
    }

    /// Inserts an item.
    ///
    /// # Errors
    ///
    /// [`InsertError::Exists`] if there is an item with this key, [`InsertError::Full`] if there is
    /// no room. The table is as before, then.
    ///
    /// # Safety
    ///
    /// `item` is valid for reads from any thread while it is in the table, and for a grace period
    /// after it was removed. It is not in a table already.
    pub unsafe fn insert(&mut self, item: NonNull<T>) -> Result<(), InsertError<T>> {
        // SAFETY: Valid by the safety contract.
        let new = unsafe { item.as_ref() };
        let Some(current) = &self.current else {
            return Err(InsertError::Full);
        };

        if let Some(existing) = find_key(current, new) {
            return Err(InsertError::Exists(existing));
        }
        let Some(bucket) = put(current, new.hash(), item) else {
            self.full = true;
            return Err(InsertError::Full);
        };
        self.len = self.len.wrapping_add(1);

        if let Some(resize) = &mut self.resize {
            // INVARIANT: A copy where the copying has been; elsewhere it is yet to come.
            if bucket < resize.copied && put(&resize.buckets, new.hash(), item).is_none() {
                resize.failed = true;
            }
        }
        Ok(())
    }

    /// Removes an item, recognised by its address. Returns whether it was in the table; readers may
    /// see it for a grace period more.
    pub fn remove(&mut self, item: &T) -> bool {
        let Some(current) = &self.current else {
            return false;
        };
        let Some(bucket) = take(current, item.hash(), item) else {
            return false;
        };

        self.removed(bucket, item);
        true
    }

    /// Keeps the books after `item` was taken from bucket `bucket` of the current array.
    fn removed(&mut self, bucket: usize, item: &T) {
        self.len = self.len.wrapping_sub(1);
        if let Some(resize) = &mut self.resize {
            // INVARIANT: It was copied if the copying has been there. After a failure it may
            // have been left out, and `take` does nothing.
            if bucket < resize.copied {
                take(&resize.buckets, item.hash(), item);
            }
        }
    }

    /// The number of buckets that the table should be resized to, or [`None`] if it is fine as it
    /// is, is closed, or is being resized.
    ///
    /// It should grow when it is more than 7/12 full (3.5 entries per bucket of six) or an
    /// insertion found no room, and shrink below half an entry per bucket.
    pub fn wants_resize(&self) -> Option<usize> {
        let have = self.current.as_ref()?.len();
        if self.resize.is_some() {
            return None;
        }

        let crowded = |n: usize| self.len.saturating_mul(12) > n.saturating_mul(SLOTS * 7);
        let mut want = have;
        // A bucket that is full in an almost empty table is not for want of buckets.
        if self.full && self.len.saturating_mul(64) > have {
            want = have.saturating_mul(2);
        }
        while crowded(want) && want < Buckets::<T>::MAX {
            want = want.saturating_mul(2);
        }
        if want == have && self.len.saturating_mul(2) < have {
            want = self.len.next_power_of_two();
        }

        let want = want.max(self.hint).max(self.min).min(Buckets::<T>::MAX);
        (want != have).then_some(want)
    }

    /// Starts to resize to `buckets`, which are empty.
    ///
    /// # Errors
    ///
    /// Returns `buckets` if a resize is under way already or the table is closed.
    pub fn begin_resize(&mut self, buckets: Buckets<T>) -> Result<(), Buckets<T>> {
        if self.resize.is_some() || self.current.is_none() {
            return Err(buckets);
        }
        // INVARIANT: There are no buckets below 0.
        self.resize = Some(Resize {
            buckets,
            copied: 0,
            failed: false,
        });
        Ok(())
    }

    /// Copies up to `buckets` buckets to the new array.
    pub fn migrate(&mut self, buckets: usize) -> Migration {
        let (Some(current), Some(resize)) = (&self.current, &mut self.resize) else {
            return Migration::Idle;
        };
        let end = current.len().min(resize.copied.saturating_add(buckets));

        while !resize.failed && resize.copied < end {
            let bucket = current.view().bucket(resize.copied);
            for item in (0..SLOTS).filter_map(|slot| bucket.item(slot)) {
                // SAFETY: Items in the table are valid (`insert`).
                let hash = unsafe { item.as_ref() }.hash();
                if put(&resize.buckets, hash, item).is_none() {
                    resize.failed = true;
                }
            }
            // INVARIANT: All of the bucket was copied, or `failed` is set.
            resize.copied = resize.copied.wrapping_add(1);
        }

        if resize.failed {
            Migration::Failed
        } else if resize.copied < current.len() {
            Migration::More
        } else {
            Migration::Done
        }
    }

    /// Makes the new array the one that readers of `table` use, and returns the old one, to be
    /// freed after a grace period. [`None`], and no change, unless [`Writer::migrate`] would
    /// return [`Migration::Done`].
    ///
    /// # Safety
    ///
    /// `table` is the one made together with this writer.
    pub unsafe fn finish(&mut self, table: &Table<T>) -> Option<Buckets<T>> {
        if self.migrate(0) != Migration::Done {
            return None;
        }
        let resize = self.resize.take()?;

        // INVARIANT: Nothing is left to copy, so both arrays have the same entries.
        table
            .current
            .store(resize.buckets.pack(), Ordering::Release);
        self.full = false;
        self.hint = 0;
        self.epoch = self.epoch.wrapping_add(1);
        self.current.replace(resize.buckets)
    }

    /// Gives up a resize and returns the new array, which no reader has seen. If it was too small
    /// for the entries, the table wants a larger one from now on.
    pub fn abort_resize(&mut self) -> Option<Buckets<T>> {
        let resize = self.resize.take()?;

        if resize.failed {
            self.hint = resize.buckets.len().saturating_mul(2);
        }
        Some(resize.buckets)
    }

    /// Visits the entries of up to `buckets` buckets from `cursor` on, which moves along. Returns
    /// whether there are more.
    ///
    /// Entries that are in the table during the whole walk are visited at least once; again if the
    /// table was resized in between, for the walk starts over then.
    pub fn visit(
        &mut self,
        cursor: &mut Cursor,
        buckets: usize,
        mut visit: impl FnMut(&T) -> Visit,
    ) -> bool {
        if cursor.epoch != self.epoch {
            *cursor = Cursor {
                bucket: 0,
                epoch: self.epoch,
            };
        }
        let have = self.buckets();
        let end = have.min(cursor.bucket.saturating_add(buckets));

        while cursor.bucket < end {
            for slot in 0..SLOTS {
                let Some(current) = &self.current else {
                    return false;
                };
                let Some(item) = current.view().bucket(cursor.bucket).item(slot) else {
                    continue;
                };
                // SAFETY: Items in the table are valid (`insert`), and this one is until the end of
                // the loop's body: a grace period for it cannot end in between.
                let item = unsafe { item.as_ref() };
                if visit(item) == Visit::Remove {
                    self.remove(item);
                }
            }
            cursor.bucket = cursor.bucket.wrapping_add(1);
        }
        end < have
    }

    /// Closes the table for good: readers find nothing from now on. Returns the array that they
    /// used, to be freed after a grace period, and the one of a resize under way. The entries
    /// count as removed.
    ///
    /// # Safety
    ///
    /// `table` is the one made together with this writer.
    pub unsafe fn close(&mut self, table: &Table<T>) -> (Option<Buckets<T>>, Option<Buckets<T>>) {
        table
            .current
            .store(core::ptr::null_mut(), Ordering::Release);
        self.len = 0;
        self.epoch = self.epoch.wrapping_add(1);
        (
            self.current.take(),
            self.resize.take().map(|resize| resize.buckets),
        )
    }
}

/// Finds an item with the key of `new`.
fn find_key<T: Item>(buckets: &Buckets<T>, new: &T) -> Option<NonNull<T>> {
    let view = buckets.view();
    let tag = tag(new.hash());

    for step in 0..MAX_PROBE {
        let index = (new.hash() as usize).wrapping_add(step);
        let found = view.bucket(index).probe(tag, |item| {
            // SAFETY: Items in the table are valid (`insert`).
            (unsafe { item.as_ref() }.key() == new.key()).then_some(item)
        });
        match found {
            Ok(item) => return Some(item),
            Err(false) => return None,
            Err(true) => {}
        }
    }
    None
}

/// Puts an item into the first bucket with room, and returns which one.
fn put<T>(buckets: &Buckets<T>, hash: u32, item: NonNull<T>) -> Option<usize> {
    let view = buckets.view();
    let home = hash as usize;

    for step in 0..MAX_PROBE {
        let index = home.wrapping_add(step);
        let bucket = view.bucket(index);
        if let Some(slot) = bucket.vacant() {
            // Before the entry appears, so that readers come this far.
            for between in 0..step {
                view.bucket(home.wrapping_add(between)).count_overflow(true);
            }
            bucket.publish(slot, tag(hash), item);
            return Some(index & buckets.len().wrapping_sub(1));
        }
    }
    None
}

/// Takes an item out, and returns of which bucket.
fn take<T>(buckets: &Buckets<T>, hash: u32, item: &T) -> Option<usize> {
    let view = buckets.view();
    let home = hash as usize;

    for step in 0..MAX_PROBE {
        let index = home.wrapping_add(step);
        let bucket = view.bucket(index);
        if let Some(slot) = bucket.find(item) {
            bucket.clear(slot);
            for between in 0..step {
                view.bucket(home.wrapping_add(between))
                    .count_overflow(false);
            }
            return Some(index & buckets.len().wrapping_sub(1));
        }
    }
    None
}
