// SPDX-License-Identifier: GPL-2.0

//! Slab caches for flows.
//!
//! C header: [`include/linux/slab.h`](srctree/include/linux/slab.h)

use super::c;
use core::{
    ptr::{
        self,
        NonNull, //
    },
    sync::atomic::{
        AtomicPtr,
        Ordering, //
    }, //
};
use kernel::prelude::*;

/// A place for a `kmem_cache`, which exists while a [`CacheGuard`] does.
///
/// # Invariants
///
/// The pointer is null or a live cache.
pub(crate) struct Cache(AtomicPtr<c::kmem_cache>);

/// Keeps a cache alive.
pub(crate) struct CacheGuard(&'static Cache);

impl Cache {
    /// Makes a slab cache that does not exist yet.
    pub(crate) const fn new() -> Self {
        // INVARIANT: Null.
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Creates the cache, of objects of `size` bytes that are aligned to a cache line.
    pub(crate) fn create(&'static self, name: &'static CStr, size: usize) -> Result<CacheGuard> {
        // SAFETY: `name` is a C string that lives as long as the module.
        let cache = unsafe { c::nfo_cache_create(name.as_char_ptr().cast(), size as u32) };
        if cache.is_null() {
            return Err(ENOMEM);
        }
        // INVARIANT: Created just now; the guard withdraws it before it is destroyed.
        self.0.store(cache, Ordering::Release);
        Ok(CacheGuard(self))
    }

    /// Allocates one zeroed object; usable in atomic context, fails silently.
    pub(crate) fn zalloc(&self) -> Option<NonNull<kernel::ffi::c_void>> {
        let cache = self.0.load(Ordering::Acquire);
        if cache.is_null() {
            return None;
        }
        // SAFETY: The cache is live by the type invariant.
        NonNull::new(unsafe { c::nfo_cache_zalloc(cache) })
    }

    /// Gives an object back.
    ///
    /// # Safety
    ///
    /// `object` came from [`Cache::zalloc`] of this cache and nobody uses it any more.
    pub(crate) unsafe fn free(&self, object: NonNull<kernel::ffi::c_void>) {
        // SAFETY: The caller vouches for the object; a cache with objects is live.
        unsafe { c::kmem_cache_free(self.0.load(Ordering::Acquire), object.as_ptr()) };
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
