// SPDX-License-Identifier: GPL-2.0

//! The end of a flow: packets stop using it, conntrack has its entry back, and a grace period after
//! the worker has taken it out its memory is freed.

use crate::{
    ffi::{
        self,
        c, //
    },
    flow::{
        events::FlowEvent,
        object::{
            with_family,
            Flow, //
        },
        shared::FlowShared, //
    },
    net::trace,
    stats, //
};
use core::{
    mem::offset_of,
    ops::Deref,
    ptr::NonNull,
    sync::atomic::{
        fence,
        Ordering, //
    }, //
};
use nft_flow::{
    llist::Nodes,
    reason::TeardownReason, //
};

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
        trace::teardown(ct, reason, || {
            let now = ffi::jiffies32();

            (self.age(now), self.idle(now))
        });
        ct.fixup(&with_family!(self, |flow| flow.fixup(reason)));
        if self.table().has_hw() {
            // The worker takes the rules away, and may be setting the bit just now.
            fence(Ordering::SeqCst);
            ct.set_hardware(false);
        }
        ct.release_claim();
        // Before it is queued: the worker may free it then.
        self.table().notify(self, FlowEvent::Removed(reason));
        self.table().queue_gc(self);
        true
    }
}

/// A flow that was torn down, and taken off the list of dead flows.
///
/// # Invariants
///
/// It is valid until it is [freed](DeadFlow::free), or on that list again.
pub(crate) struct DeadFlow(NonNull<FlowShared>);

impl Deref for DeadFlow {
    type Target = FlowShared;

    fn deref(&self) -> &FlowShared {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_ref() }
    }
}

impl DeadFlow {
    /// Frees the flow after a grace period.
    ///
    /// # Safety
    ///
    /// It is in no table, wheel and list, and what it [used](Flow::take_uses) has been taken.
    pub(crate) unsafe fn free(self) {
        /// # Safety
        ///
        /// Called by RCU only, for the `rcu` of a flow that [`DeadFlow::free`] was called for.
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

        // SAFETY: Valid until the callback, which is right for it; by value this is called once.
        unsafe { self.rcu.call(callback) };
    }
}

/// Dead flows that were taken off their list, see [`TableRef::dead`](super::table_ref::TableRef).
pub(crate) struct DeadFlows(pub(super) Nodes);

impl Iterator for DeadFlows {
    type Item = DeadFlow;

    fn next(&mut self) -> Option<DeadFlow> {
        let node = self.0.next()?;

        // INVARIANT: Only the worker frees a dead flow, by way of this.
        // SAFETY: `TableRef` makes this of the nodes of its list, which are the `dead` of flows.
        Some(DeadFlow(unsafe {
            node.byte_sub(offset_of!(FlowShared, dead)).cast()
        }))
    }
}
