// SPDX-License-Identifier: GPL-2.0

//! A bucket: one cache line of tags and pointers. And arrays of them.

use crate::sync::{
    AtomicPtr,
    AtomicUsize,
    Ordering, //
};
use core::{
    alloc::Layout,
    marker::PhantomData,
    ptr::NonNull, //
};

/// Entries per bucket: what fits in 64 bytes beside the tags and the overflow count.
#[cfg(target_pointer_width = "64")]
pub(super) const SLOTS: usize = 6;
#[cfg(target_pointer_width = "32")]
pub(super) const SLOTS: usize = 10;

/// Words of tags; the last 32 bits are the overflow count.
const WORDS: usize = (SLOTS * 16 + 32) / BITS;
const BITS: usize = usize::BITS as usize;
/// 16-bit lanes per word.
const LANES: usize = BITS / 16;
/// Words with tags in them.
const TAG_WORDS: usize = SLOTS.div_ceil(LANES);

/// The lowest bit of each lane.
const LOW: usize = usize::MAX / 0xffff;
/// The highest bit of each lane.
const HIGH: usize = LOW << 15;

#[cfg(not(loom))]
const _: () = assert!(size_of::<Bucket<u64>>() == 64);
const _: () = assert!(WORDS * BITS == SLOTS * 16 + 32);

/// A tag: 16 bits of the hash, never zero, which stands for an empty slot.
///
/// The upper half of the hash; the index of a bucket comes from the lower bits, so the two are
/// independent up to 2^16 buckets, and beyond that the tag is merely less selective.
#[inline(always)]
pub(super) const fn tag(hash: u32) -> u16 {
    match (hash >> 16) as u16 {
        0 => 1,
        tag => tag,
    }
}

/// One cache line of the table.
///
/// # Invariants
///
/// - Only the writer stores, and there is one at a time.
/// - A slot whose tag is not zero has a pointer to an item that was inserted and not removed.
/// - A slot's pointer is null, or points to an item that is in the table, or was in the table and
///   whose grace period has not ended for any reader that can still load it.
///
/// Zeroed memory is an empty bucket.
#[repr(C, align(64))]
pub(super) struct Bucket<T> {
    /// Lanes of 16 bits from the low end of the first word on: the tags, then the overflow count,
    /// the number of entries that did not find room here and went on to a later bucket.
    meta: [AtomicUsize; WORDS],
    items: [AtomicPtr<T>; SLOTS],
}

impl<T> Bucket<T> {
    /// An empty bucket, for memory that cannot be zeroed into one.
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Bucket {
            meta: core::array::from_fn(|_| AtomicUsize::new(0)),
            items: core::array::from_fn(|_| AtomicPtr::new(core::ptr::null_mut())),
        }
    }

    /// Calls `hit` for the items whose tag is that of `hash`, and possibly for others, until one
    /// call returns something. Otherwise, whether some entry went on to a later bucket.
    #[inline(always)]
    pub(super) fn probe<R>(
        &self,
        tag: u16,
        mut hit: impl FnMut(NonNull<T>) -> Option<R>,
    ) -> Result<R, bool> {
        let pattern = LOW.wrapping_mul(tag as usize);
        let mut last = 0;

        for (number, word) in self.meta.iter().enumerate() {
            // Pairs with the store in `publish`: who sees the tag sees the pointer, or a later one.
            last = word.load(Ordering::Acquire);
            if number >= TAG_WORDS {
                continue;
            }
            // A lane of `x` is zero where the tag is equal; the lowest bit set in `zero` is exact,
            // higher ones may be false hits.
            let x = last ^ pattern;
            let mut zero = x.wrapping_sub(LOW) & !x & HIGH & lanes(number);
            while zero != 0 {
                let lane = zero.trailing_zeros() as usize / 16;
                zero &= zero.wrapping_sub(1);
                if let Some(item) = self.item(number.wrapping_mul(LANES).wrapping_add(lane)) {
                    if let Some(result) = hit(item) {
                        return Ok(result);
                    }
                }
            }
        }
        Err(overflow(last) != 0)
    }

    /// The item in slot `slot`, if any.
    #[inline(always)]
    pub(super) fn item(&self, slot: usize) -> Option<NonNull<T>> {
        // Acquire, because the tag was not necessarily this item's: it may be a false hit, or that
        // of the item which was here before.
        NonNull::new(self.items.get(slot)?.load(Ordering::Acquire))
    }

    /// The slot that holds `item`.
    pub(super) fn find(&self, item: *const T) -> Option<usize> {
        self.items
            .iter()
            .position(|slot| core::ptr::eq(slot.load(Ordering::Relaxed), item))
    }

    /// An empty slot.
    pub(super) fn vacant(&self) -> Option<usize> {
        self.items
            .iter()
            .position(|slot| slot.load(Ordering::Relaxed).is_null())
    }

    /// Puts an item into the empty slot `slot`. For the writer.
    pub(super) fn publish(&self, slot: usize, tag: u16, item: NonNull<T>) {
        if let Some(place) = self.items.get(slot) {
            // INVARIANT: The tag is set after the pointer.
            place.store(item.as_ptr(), Ordering::Release);
            self.set_tag(slot, tag);
        }
    }

    /// Empties slot `slot`. For the writer.
    pub(super) fn clear(&self, slot: usize) {
        if let Some(place) = self.items.get(slot) {
            // INVARIANT: The tag is cleared before the pointer.
            self.set_tag(slot, 0);
            place.store(core::ptr::null_mut(), Ordering::Release);
        }
    }

    fn set_tag(&self, slot: usize, tag: u16) {
        if let Some(word) = self.meta.get(slot / LANES) {
            let shift = (slot % LANES) * 16;
            let others = word.load(Ordering::Relaxed) & !(0xffff << shift);
            word.store(others | ((tag as usize) << shift), Ordering::Release);
        }
    }

    /// Notes that one entry more (`true`) or less went past this bucket. For the writer.
    pub(super) fn count_overflow(&self, more: bool) {
        let [.., word] = &self.meta;
        // The count is the highest 32 bits; it cannot exceed the number of entries.
        let one = 1 << (BITS - 32);
        let value = word.load(Ordering::Relaxed);
        let value = match more {
            true => value.wrapping_add(one),
            false => value.wrapping_sub(one),
        };
        word.store(value, Ordering::Release);
    }
}

/// The lanes of word `number` that are tags.
#[inline(always)]
const fn lanes(number: usize) -> usize {
    match number == WORDS - 1 {
        true => (1 << (BITS - 32)) - 1,
        false => usize::MAX,
    }
}

/// The overflow count in the last word.
#[inline(always)]
const fn overflow(last: usize) -> usize {
    last >> (BITS - 32)
}

/// An array of buckets in memory of the caller: what a table grows into, and what is left over
/// when it has. Has no destructor; give the memory back through [`Buckets::into_raw`].
///
/// # Invariants
///
/// - `base` is valid for `1 << log2` initialised buckets for as long as this value exists or the
///   array is part of a table, and nobody else writes to it.
/// - `log2` is at most [`Self::MAX_LOG2`].
#[must_use = "the memory would leak"]
pub struct Buckets<T> {
    base: NonNull<Bucket<T>>,
    log2: u32,
    _items: PhantomData<*const T>,
}

// SAFETY: By the invariants this is the exclusive owner of plain memory with pointers to `T`,
// through which other threads come to share the items.
unsafe impl<T: Send + Sync> Send for Buckets<T> {}

impl<T> Buckets<T> {
    /// 2^24 buckets, 1 GiB: some 58 million entries.
    const MAX_LOG2: u32 = 24;

    /// The largest number of buckets.
    pub const MAX: usize = 1 << Self::MAX_LOG2;

    /// The memory that `n` buckets take, or [`None`] if `n` is not a power of two up to
    /// [`Buckets::MAX`].
    pub fn layout(n: usize) -> Option<Layout> {
        if !n.is_power_of_two() || n > Self::MAX {
            return None;
        }
        Layout::array::<Bucket<T>>(n).ok()
    }

    /// Takes an array of `n` buckets in zeroed memory. [`None`] if [`Buckets::layout`] is.
    ///
    /// # Safety
    ///
    /// `memory` is valid for reads and writes of [`Buckets::layout`]`(n)`, aligned as that says,
    /// zeroed, and used by nobody else until [`Buckets::into_raw`] has returned it.
    #[cfg(not(loom))]
    pub unsafe fn from_zeroed(memory: NonNull<u8>, n: usize) -> Option<Self> {
        Self::layout(n)?;
        // INVARIANT: Valid and exclusive by the safety contract; zero is a valid value of the
        // atomics a bucket consists of; `layout` accepted the number.
        Some(Buckets {
            base: memory.cast(),
            log2: n.trailing_zeros(),
            _items: PhantomData,
        })
    }

    /// The memory and the number of buckets, which say how to free it.
    ///
    /// An array that was part of a table must not be freed before a grace period has passed since
    /// it came out: readers may still be in it.
    pub fn into_raw(self) -> (NonNull<u8>, usize) {
        (self.base.cast(), self.len())
    }

    /// Allocates an array on the host.
    #[cfg(loom)]
    pub fn boxed(n: usize) -> Option<Self> {
        Self::layout(n)?;
        let buckets: std::boxed::Box<[Bucket<T>]> = (0..n).map(|_| Bucket::new()).collect();
        Some(Buckets {
            base: NonNull::from(std::boxed::Box::leak(buckets)).cast(),
            log2: n.trailing_zeros(),
            _items: PhantomData,
        })
    }

    /// Frees an array made by [`Buckets::boxed`].
    ///
    /// # Safety
    ///
    /// The array comes from [`Buckets::boxed`], and no reader is in it any more.
    #[cfg(loom)]
    pub unsafe fn free_boxed(self) {
        let slice = core::ptr::slice_from_raw_parts_mut(self.base.as_ptr(), self.len());
        // SAFETY: `boxed` leaked a box of this length, and `self` is the only owner.
        drop(unsafe { std::boxed::Box::from_raw(slice) });
    }

    /// The number of buckets, a power of two.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        1 << self.log2
    }

    /// Packs base and size into one word, so that a reader gets them with one load.
    pub(super) fn pack(&self) -> *mut Bucket<T> {
        let log2 = self.log2 as usize;
        // The low six bits are free in an address aligned to 64, and `log2` fits.
        self.base.as_ptr().map_addr(|addr| addr | log2)
    }

    /// The array as readers see it.
    #[inline(always)]
    pub(super) fn view(&self) -> View<'_, T> {
        View {
            base: self.base.as_ptr(),
            mask: self.len().wrapping_sub(1),
            _array: PhantomData,
        }
    }
}

/// A borrowed array of buckets.
///
/// # Invariants
///
/// `base` is valid for `mask + 1` buckets, a power of two, for the lifetime `'g`.
pub(super) struct View<'g, T> {
    base: *mut Bucket<T>,
    mask: usize,
    _array: PhantomData<&'g Bucket<T>>,
}

impl<'g, T> View<'g, T> {
    /// Undoes [`Buckets::pack`]; [`None`] for null.
    ///
    /// # Safety
    ///
    /// `packed` is null or comes from [`Buckets::pack`] of an array that is not freed during `'g`.
    #[inline(always)]
    pub(super) unsafe fn unpack(packed: *mut Bucket<T>) -> Option<Self> {
        if packed.is_null() {
            return None;
        }
        let log2 = packed.addr() & 63;
        // INVARIANT: The array is valid for that many buckets by the safety contract. The shift
        // is in range because `log2` is at most `MAX_LOG2`.
        Some(View {
            base: packed.map_addr(|addr| addr & !63),
            mask: 1_usize.wrapping_shl(log2 as u32).wrapping_sub(1),
            _array: PhantomData,
        })
    }

    /// The number of buckets.
    pub(super) fn len(&self) -> usize {
        self.mask.wrapping_add(1)
    }

    /// The bucket at `index`, modulo the number of buckets.
    #[inline(always)]
    pub(super) fn bucket(&self, index: usize) -> &'g Bucket<T> {
        // SAFETY: By the type invariant; the masked index is at most `mask`.
        unsafe { &*self.base.add(index & self.mask) }
    }
}
