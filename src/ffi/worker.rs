// SPDX-License-Identifier: GPL-2.0

//! The work of a flowtable: from time to time, and at its end. See `netns.c`.

use super::c;
use core::ptr::NonNull;
use kernel::{
    ffi::c_void,
    prelude::*,
    types::{
        ForeignOwnable,
        Opaque, //
    }, //
};

/// What has a [`Worker`] as a part of it.
///
/// # Safety
///
/// It may be used and dropped by any thread.
pub(crate) unsafe trait WorkerOwner: 'static {
    /// Returns the worker.
    fn worker(&self) -> &Worker;

    /// Does what there is to do. Returns how many jiffies to pause then.
    fn run(&self) -> usize;

    /// The end: nobody knows the owner any more.
    fn end(self: Pin<KBox<Self>>);
}

/// A worker.
///
/// # Invariants
///
/// Initialised. Once it has been started its owner, which it is a part of, lives until the worker
/// has called [`WorkerOwner::end`].
#[pin_data]
#[repr(transparent)]
pub(crate) struct Worker {
    #[pin]
    worker: Opaque<c::nfo_worker>,
}

// SAFETY: C has its locks.
unsafe impl Send for Worker {}
// SAFETY: As above.
unsafe impl Sync for Worker {}

/// # Safety
///
/// Called by `netns.c` only, with the owner of a worker.
unsafe extern "C" fn run<T: WorkerOwner>(owner: *mut c_void) {
    // SAFETY: By the contract of this function.
    let owner = unsafe { &*owner.cast::<T>() };

    owner.worker().queue(owner.run());
}

/// # Safety
///
/// As for [`run`], a grace period after [`Worker::finish`].
unsafe extern "C" fn over<T: WorkerOwner>(owner: *mut c_void) {
    // SAFETY: By the contract of this function; `start` has given it to the worker.
    T::end(unsafe { Pin::<KBox<T>>::from_foreign(owner) });
}

impl Worker {
    /// Makes a worker that does nothing yet.
    pub(crate) fn new() -> impl PinInit<Self> {
        // INVARIANT: Initialised.
        pin_init!(Self {
            // SAFETY: The slot is ours, and pinned.
            worker <- Opaque::ffi_init(|worker| unsafe { c::nfo_worker_init(worker) }),
        })
    }

    /// Gives an object to its worker, which runs for the first time in `delay` jiffies. The result is
    /// valid until [`WorkerOwner::end`].
    pub(crate) fn start<T: WorkerOwner>(owner: Pin<KBox<T>>, delay: usize) -> NonNull<T> {
        let worker = owner.worker().worker.get();
        let this = NonNull::from(&*owner);

        // INVARIANT: The owner is not freed from here on.
        // SAFETY: By the type invariant. The functions are those of the owner's type.
        unsafe {
            c::nfo_worker_start(
                worker,
                owner.into_foreign(),
                Some(run::<T>),
                Some(over::<T>),
                delay,
            );
        }
        this
    }

    /// Has it run in `delay` jiffies, unless it is about to run.
    fn queue(&self, delay: usize) {
        // SAFETY: By the type invariant.
        unsafe { c::nfo_worker_queue(self.worker.get(), delay) };
    }

    /// Has it run in `delay` jiffies. Does nothing before it is started, and once it is disabled.
    pub(crate) fn kick(&self, delay: usize) {
        // SAFETY: By the type invariant.
        unsafe { c::nfo_worker_kick(self.worker.get(), delay) };
    }

    /// Waits for it; it does not run from here on.
    pub(crate) fn disable(&self) {
        // SAFETY: By the type invariant.
        unsafe { c::nfo_worker_cancel(self.worker.get()) };
    }

    /// Has [`WorkerOwner::end`] called, a grace period later.
    ///
    /// # Safety
    ///
    /// It was started, the owner is used by nobody who comes later, and this is called once.
    pub(crate) unsafe fn finish(&self) {
        // SAFETY: By the type invariant and the contract of this function.
        unsafe { c::nfo_worker_finish(self.worker.get()) };
    }
}
