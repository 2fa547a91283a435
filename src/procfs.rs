// SPDX-License-Identifier: GPL-2.0

//! `/proc/net/stat/nft_offload`: how much work waits for hardware in a network namespace.

use crate::{
    ffi::{
        c,
        NetRef, //
    },
    flowtable::registry::Netns, //
};
use kernel::{
    error::to_result,
    prelude::*, //
};

/// Counts the work that waits in the flowtables of `net`.
///
/// # Safety
///
/// Called by `ffi/proc.c` only, which passes a network namespace and memory for the answer.
#[no_mangle]
unsafe extern "C" fn nfo_work_pending(net: *const c::net, work: *mut c::nfo_work) {
    let mut waiting = 0_usize;

    // SAFETY: By the contract of this function.
    let (net, work) = unsafe { (NetRef::from_raw(net), &mut *work) };

    if let Some(netns) = Netns::of(net) {
        netns.for_each(|ft| {
            waiting = waiting.wrapping_add(ft.hw.as_ref().map_or(0, |tier| tier.waiting()));
            true
        });
    }

    // Rules are taken away and asked about by whoever finds that it has to be done: none of that
    // ever waits.
    *work = c::nfo_work {
        add: waiting as u32,
        del: 0,
        stats: 0,
    };
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
