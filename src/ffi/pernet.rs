// SPDX-License-Identifier: GPL-2.0

//! What the module keeps for each network namespace (`struct pernet_operations`). See `netns.c`.

use super::{
    c,
    NetRef, //
};
use core::{
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
    error::to_result,
    ffi::c_void,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    },
    workqueue::Queue, //
};

/// An object of each network namespace.
///
/// # Safety
///
/// There is one such type: C has one pointer in each namespace.
pub(crate) unsafe trait PerNet: Send + Sync + Sized + 'static {
    /// Makes the object of a namespace: that comes, or the module does. The namespace is in use as
    /// long as somebody has told the object so, and until a grace period after [`PerNet::leave`].
    fn new(net: NetRef<'static>) -> Result<Arc<Self>>;

    /// The namespace goes. Its reference to the object is dropped a grace period later.
    fn leave(&self);

    /// Returns the object of a namespace, or [`None`] at its end.
    fn of(net: NetRef<'_>) -> Option<ArcBorrow<'_, Self>> {
        // SAFETY: Valid by the type invariant of `NetRef`.
        let this = NonNull::new(unsafe { c::nfo_netns(net.as_ptr()) })?;

        // SAFETY: By the contract of this trait it came from `make`; it is given back at the
        // namespace's end.
        Some(unsafe { ArcBorrow::from_raw(this.as_ptr().cast::<Self>()) })
    }

    /// Returns the queue for the work of such an object. It is there as long as there is one: the
    /// last are given back by its work.
    fn queue(&self) -> &Queue {
        // SAFETY: Made before the first object, and destroyed when all are given back and all work
        // is done.
        unsafe { Queue::from_raw(c::nfo_queue().cast()) }
    }
}

/// # Safety
///
/// Called by `netns.c` only, with a namespace that comes.
unsafe extern "C" fn make<T: PerNet>(net: *mut c::net) -> *mut c_void {
    // SAFETY: By the contract of this function, and of `PerNet::new`.
    T::new(unsafe { NetRef::from_raw(net) }).map_or(ptr::null_mut(), |this| {
        Arc::into_raw(this).cast_mut().cast()
    })
}

/// # Safety
///
/// Called by `netns.c` only, with what [`make`] has returned.
unsafe extern "C" fn leave<T: PerNet>(this: *mut c_void) {
    // SAFETY: By the contract of this function; given back by `put`.
    unsafe { ArcBorrow::from_raw(this.cast::<T>()) }.leave();
}

/// # Safety
///
/// As for [`leave`], which was called a grace period ago; once.
unsafe extern "C" fn put<T: PerNet>(this: *mut c_void) {
    // SAFETY: By the contract of this function.
    drop(unsafe { Arc::from_raw(this.cast::<T>()) });
}

/// Keeps the objects of all namespaces. When it is dropped all have been given back.
pub(crate) struct PerNetGuard<T: PerNet>(PhantomData<T>);

impl<T: PerNet> PerNetGuard<T> {
    const OPS: &'static c::nfo_netns_ops = &c::nfo_netns_ops {
        make: Some(make::<T>),
        leave: Some(leave::<T>),
        put: Some(put::<T>),
    };

    /// Registers for all namespaces. Once, by the module's init.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: The functions are those of the only type there is.
        to_result(unsafe { c::nfo_netns_register(Self::OPS) })?;
        Ok(Self(PhantomData))
    }
}

impl<T: PerNet> Drop for PerNetGuard<T> {
    fn drop(&mut self) {
        // SAFETY: Registered by `new`.
        unsafe { c::nfo_netns_unregister() };
    }
}
