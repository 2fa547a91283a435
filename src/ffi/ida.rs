// SPDX-License-Identifier: GPL-2.0

//! Numbers, and which of them are in use.
//!
//! C header: [`include/linux/idr.h`](srctree/include/linux/idr.h)

use super::c;
use kernel::{
    prelude::*,
    types::Opaque, //
};

/// A set of numbers in use.
///
/// # Invariants
///
/// Initialised, until it is dropped.
#[pin_data(PinnedDrop)]
pub(crate) struct Ida {
    #[pin]
    ida: Opaque<c::ida>,
}

// SAFETY: C has a lock in it.
unsafe impl Send for Ida {}
// SAFETY: As above.
unsafe impl Sync for Ida {}

impl Ida {
    /// Makes an empty set.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: The slot is ours, and pinned.
            ida <- Opaque::ffi_init(|ida| unsafe { c::nfo_numbers_init(ida) }),
        })
    }

    /// Takes the first number from `from` to `to` that is free.
    pub(crate) fn claim(&self, from: u32, to: u32) -> Result<u32> {
        // SAFETY: Initialised by the type invariant.
        let number = unsafe { c::nfo_number_claim(self.ida.get(), from, to) };

        u32::try_from(number).map_err(|_| Error::from_errno(number))
    }

    /// Gives a number back.
    pub(crate) fn free(&self, number: u32) {
        // SAFETY: Initialised by the type invariant.
        unsafe { c::nfo_number_free(self.ida.get(), number) };
    }
}

#[pinned_drop]
impl PinnedDrop for Ida {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Initialised by the type invariant, and not used any more.
        unsafe { c::nfo_numbers_destroy(self.ida.get()) };
    }
}
