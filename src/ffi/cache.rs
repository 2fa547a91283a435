// SPDX-License-Identifier: GPL-2.0

//! Slab caches for flows.
//!
//! C header: [`include/linux/slab.h`](srctree/include/linux/slab.h)

use super::c;
use core::{
    mem,
    ptr::{
        self,
        NonNull, //
    },
    sync::atomic::{
        AtomicPtr,
        AtomicUsize,
        Ordering, //
    }, //
};
use kernel::prelude::*;

/// A place for a `kmem_cache`, which exists while a [`CacheGuard`] does.
///
/// # Invariants
///
/// The pointer is null or a live cache, of objects of the size that stands beside it.
pub(crate) struct Cache(AtomicPtr<c::kmem_cache>, AtomicUsize);

/// Keeps a cache alive.
pub(crate) struct CacheGuard(&'static Cache);

impl Cache {
    /// Makes a slab cache that does not exist yet.
    pub(crate) const fn new() -> Self {
        // INVARIANT: Null.
        Self(AtomicPtr::new(ptr::null_mut()), AtomicUsize::new(0))
    }

    /// Creates the cache, of objects of `size` bytes that are aligned to a cache line.
    pub(crate) fn create(&'static self, name: &'static CStr, size: usize) -> Result<CacheGuard> {
        // SAFETY: `name` is a C string that lives as long as the module.
        let cache = unsafe { c::nfo_cache_create(name.as_char_ptr().cast(), size as u32) };
        if cache.is_null() {
            return Err(ENOMEM);
        }
        // INVARIANT: Created just now; the guard withdraws it before it is destroyed.
        self.1.store(size, Ordering::Relaxed);
        self.0.store(cache, Ordering::Release);
        Ok(CacheGuard(self))
    }

    /// Allocates memory for an object, if that is what the cache is for; usable in atomic context,
    /// fails silently.
    pub(crate) fn slot<T>(&'static self) -> Option<Slot<T>> {
        let cache = self.0.load(Ordering::Acquire);
        if cache.is_null() || self.1.load(Ordering::Relaxed) != size_of::<T>() {
            return None;
        }
        // SAFETY: The cache is live by the type invariant.
        let memory = NonNull::new(unsafe { c::nfo_cache_zalloc(cache) })?;

        const { assert!(align_of::<T>() <= 64) };
        // INVARIANT: Allocated just now, with the size and at least the alignment of a `T`.
        Some(Slot(memory.cast(), self))
    }

    /// Gives an object back.
    ///
    /// # Safety
    ///
    /// `object` came from [`Cache::slot`] of this cache and nobody uses it any more.
    pub(crate) unsafe fn free(&self, object: NonNull<kernel::ffi::c_void>) {
        // SAFETY: The caller vouches for the object; a cache with objects is live.
        unsafe { c::kmem_cache_free(self.0.load(Ordering::Acquire), object.as_ptr()) };
    }
}

/// Memory for an object that is yet to be made.
///
/// # Invariants
///
/// It is that of a cache, large enough for a `T`, and known to nobody else.
pub(crate) struct Slot<T>(NonNull<T>, &'static Cache);

impl<T> Slot<T> {
    /// Makes the object. It is to be given back by [`Cache::free`].
    pub(crate) fn write(self, object: T) -> NonNull<T> {
        let memory = self.0;

        mem::forget(self);
        // SAFETY: By the type invariant.
        unsafe { memory.write(object) };
        memory
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { self.1.free(self.0.cast()) };
    }
}

impl Drop for CacheGuard {
    fn drop(&mut self) {
        // SAFETY: The objects are freed by RCU callbacks, all of which have run then; new ones are
        // not made, since the module's types are no longer registered.
        unsafe {
            c::rcu_barrier();
            c::kmem_cache_destroy(self.0 .0.swap(ptr::null_mut(), Ordering::AcqRel));
        }
    }
}
