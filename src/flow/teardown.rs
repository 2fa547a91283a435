// SPDX-License-Identifier: GPL-2.0

//! The end of a flow: packets stop using it, conntrack has its entry back, and a grace period after
//! the worker has taken it out its memory is freed.

use crate::{
    ffi::c,
    flow::{
        object::{
            with_family,
            Flow, //
        },
        shared::FlowShared, //
    },
    stats, //
};
use core::{
    mem::offset_of,
    ptr::{
        NonNull, //
    },
    sync::atomic::{
        fence,
        Ordering, //
    }, //
};
use nft_flow::reason::TeardownReason;

impl FlowShared {
    /// Takes the flow down: no packet uses it from now on, conntrack has its entry back, and the
    /// worker will free it. Only the first call does anything, and returns true. Does not sleep;
    /// may be called by the packet path.
    #[cold]
    pub(crate) fn teardown(&self, reason: TeardownReason) -> bool {
        if !self.state.set_dead(reason) {
            return false;
        }
        with_family!(self, |flow| {
            for entry in &flow.entries {
                entry.set_dead();
            }
        });
        stats::teardown(reason);

        let ct = self.ct.get();
        ct.fixup(&with_family!(self, |flow| flow.fixup(reason)));
        if self.table().has_hw() {
            // The worker takes the rules away, and may be setting the bit just now.
            fence(Ordering::SeqCst);
            ct.set_hardware(false);
        }
        ct.release_claim();
        self.table().queue_gc(self);
        true
    }

    /// Gives the routes back, and frees the flow after a grace period.
    ///
    /// # Safety
    ///
    /// It is dead, in no table and no list, and this is called once.
    pub(crate) unsafe fn free(this: NonNull<Self>) {
        /// # Safety
        ///
        /// Called by RCU only, for the `rcu` of a flow that [`FlowShared::free`] was called for.
        unsafe extern "C" fn callback(head: *mut c::callback_head) {
            // SAFETY: `head` is the `rcu` of a `FlowShared`.
            let shared = unsafe {
                &*head
                    .byte_sub(offset_of!(FlowShared, rcu))
                    .cast::<FlowShared>()
            };
            // SAFETY: A grace period ago it was withdrawn from everywhere.
            with_family!(shared, |flow| unsafe { Flow::destroy(flow.into()) });
            stats::count(stats::Counter::FlowsFreed);
        }

        // SAFETY: Valid until the callback; the flow is in no table, and this is its end.
        with_family!(unsafe { this.as_ref() }, |flow| unsafe {
            flow.release_routes()
        });
        // SAFETY: The head is in memory that lives until the callback, which runs once.
        unsafe { c::call_rcu(&raw mut (*this.as_ptr()).rcu, Some(callback)) };
    }
}
