// SPDX-License-Identifier: GPL-2.0

//! The end of a flow: packets stop using it, conntrack has its entry back, and a grace period after the
//! worker has taken it out its memory is freed.

use crate::{
    ffi::{
        c, //
    },
    flow::{
        object::{
            Flow,
            Visitor, //
        },
        shared::Cold, //
    },
    net::{
        ct::HandBack,
        family::Family, //
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

impl Cold {
    /// Takes the flow down: no packet uses it from now on, conntrack has its entry back, and the
    /// worker will free it. Only the first call does anything, and returns true. Does not sleep; may
    /// be called by the packet path.
    #[cold]
    pub(crate) fn kill(&self, reason: TeardownReason) -> bool {
        struct Kill;
        impl Visitor for Kill {
            type Output = ();
            fn visit<F: Family>(self, flow: &Flow<F>) {
                for entry in &flow.entries {
                    entry.die();
                }
                for entry in &flow.entries {
                    entry.set_neigh(None);
                }
            }
        }

        struct Leaves(TeardownReason);
        impl Visitor for Leaves {
            type Output = HandBack;
            fn visit<F: Family>(self, flow: &Flow<F>) -> Self::Output {
                flow.hand_back(self.0)
            }
        }

        if !self.state.kill(reason) {
            return false;
        }
        self.with(Kill);
        stats::teardown(reason);

        let ct = self.ct.get();
        ct.hand_back(&self.with(Leaves(reason)));
        if self.table().has_hw() {
            // The worker takes the rules away, and may be setting the bit just now.
            fence(Ordering::SeqCst);
            ct.set_hardware(false);
        }
        ct.release_claim();
        self.table().bury(self);
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
        /// Called by RCU only, for the `rcu` of a flow that [`Cold::free`] was called for.
        unsafe extern "C" fn callback(head: *mut c::callback_head) {
            struct Destroy;
            impl Visitor for Destroy {
                type Output = ();
                fn visit<F: Family>(self, flow: &Flow<F>) {
                    // SAFETY: A grace period ago it was withdrawn from everywhere.
                    unsafe { Flow::destroy(flow.into()) };
                    stats::count(stats::Counter::FlowsFreed);
                }
            }

            // SAFETY: `head` is the `rcu` of a `Cold`.
            let cold = unsafe { &*head.byte_sub(offset_of!(Cold, rcu)).cast::<Cold>() };
            cold.with(Destroy);
        }

        struct Routes;
        impl Visitor for Routes {
            type Output = ();
            fn visit<F: Family>(self, flow: &Flow<F>) {
                // SAFETY: The flow is in no table, and this is its end.
                unsafe { flow.release_routes() };
            }
        }

        // SAFETY: Valid until the callback.
        unsafe { this.as_ref() }.with(Routes);
        // SAFETY: The head is in memory that lives until the callback, which runs once.
        unsafe { c::call_rcu(&raw mut (*this.as_ptr()).rcu, Some(callback)) };
    }
}
