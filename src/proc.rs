// SPDX-License-Identifier: GPL-2.0

//! `/proc/net/stat/nft_offload`: how much work waits for hardware in a network namespace.

use crate::{
    ffi::c,
    flowtable::FLOWTABLES, //
};
use core::ptr;
use kernel::{
    error::to_result,
    prelude::*, //
};

/// What waits in the flowtables of `net`.
///
/// # Safety
///
/// Called by `ffi/proc.c` only, which passes a network namespace and memory for the answer.
#[no_mangle]
unsafe extern "C" fn nfo_work_pending(net: *const c::net, work: *mut c::nfo_work) {
    let waiting = FLOWTABLES
        .lock()
        .iter()
        .map(|r| r.get())
        .filter(|ft| ptr::eq(ft.net(), net))
        .filter_map(|ft| ft.hw.as_ref().map(|tier| tier.waiting()))
        .sum::<usize>();

    // Rules are taken away and asked about by whoever finds that it has to be done: none of that
    // ever waits.
    // SAFETY: The caller's.
    unsafe {
        work.write(c::nfo_work {
            add: waiting as u32,
            del: 0,
            stats: 0,
        });
    }
}

/// Keeps the file in all network namespaces.
pub(crate) struct Registration(());

impl Registration {
    /// Makes the files.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: Once, by the module's init.
        to_result(unsafe { c::nfo_proc_register() })?;
        Ok(Self(()))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: Registered by `new`.
        unsafe { c::nfo_proc_unregister() };
    }
}
