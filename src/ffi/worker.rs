// SPDX-License-Identifier: GPL-2.0

//! The work of a flowtable: from time to time, and at its end. See `netns.c`.

use super::c;
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    types::Opaque, //
};

/// The worker of a flowtable.
///
/// # Invariants
///
/// Initialised, and a part of a flowtable, which is what `nfo_flowtable_gc()` and
/// `nfo_flowtable_end()` take it for.
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

impl Worker {
    /// Makes a worker that does nothing yet.
    ///
    /// # Safety
    ///
    /// It is put into the flowtable that `nfo_flowtable_gc()` finds around it.
    pub(crate) unsafe fn new() -> impl PinInit<Self> {
        // INVARIANT: By the contract of this function.
        pin_init!(Self {
            // SAFETY: The slot is ours, and pinned.
            worker <- Opaque::ffi_init(|worker| unsafe { c::nfo_worker_init(worker) }),
        })
    }

    /// Has it run in `delay` jiffies, unless it is about to run.
    pub(crate) fn queue(&self, delay: usize) {
        // SAFETY: By the type invariant.
        unsafe { c::nfo_worker_queue(self.worker.get(), delay) };
    }

    /// Has it run in `delay` jiffies. Does nothing once it is disabled.
    pub(crate) fn kick(&self, delay: usize) {
        // SAFETY: By the type invariant.
        unsafe { c::nfo_worker_kick(self.worker.get(), delay) };
    }

    /// Waits for it; it does not run from here on.
    pub(crate) fn disable(&self) {
        // SAFETY: By the type invariant.
        unsafe { c::nfo_worker_cancel(self.worker.get()) };
    }

    /// Has the flowtable freed, a grace period later.
    ///
    /// # Safety
    ///
    /// The flowtable is used by nobody who comes later, and this is called once.
    pub(crate) unsafe fn finish(&self) {
        // SAFETY: By the type invariant and the contract of this function.
        unsafe { c::nfo_worker_finish(self.worker.get()) };
    }
}

/// The worker of a flowtable, for a part of the same flowtable.
///
/// # Invariants
///
/// The worker is valid as long as the value is used.
pub(crate) struct WorkerRef(NonNull<Worker>);

// SAFETY: The worker is `Sync`.
unsafe impl Send for WorkerRef {}
// SAFETY: As above.
unsafe impl Sync for WorkerRef {}

impl WorkerRef {
    /// A worker that is yet to be initialised.
    ///
    /// # Safety
    ///
    /// It is initialised before the value is used, and valid as long as that is.
    pub(crate) unsafe fn new(worker: NonNull<Worker>) -> Self {
        // INVARIANT: By the contract of this function.
        Self(worker)
    }

    /// See [`Worker::kick`].
    pub(crate) fn kick(&self, delay: usize) {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_ref() }.kick(delay);
    }
}
