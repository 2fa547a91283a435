// SPDX-License-Identifier: GPL-2.0

//! Walks of readers over the flows: no lock is taken, so that nobody waits for a reader.

use super::{
    Flowtable,
    Store, //
};
use crate::{
    ffi::{
        self,
        Rcu, //
    },
    flow::shared::FlowShared,
    net::family::{
        V4,
        V6, //
    },
};
use core::ops::ControlFlow;
use kernel::sync::rcu;
use nft_flow::{
    direction::Direction,
    table::Place, //
};

/// Buckets that are looked at in one RCU section.
const BUCKETS_AT_ONCE: usize = 64;

/// Where a walk over the flows of a flowtable is: first those of IPv4, then those of IPv6.
#[derive(Clone, Copy, Default)]
pub(crate) struct FlowPlace {
    /// It is among the flows of IPv6.
    pub(crate) v6: bool,
    /// And there in the table.
    pub(crate) place: Place,
}

impl Flowtable {
    /// Shows the live flows from `at` on, which moves along, to `see`. Ends when that breaks, at
    /// this flow, and when `go_on` says so. True if it has seen them all.
    ///
    /// The flow is valid as long as `see` runs, even if it is torn down meanwhile.
    pub(crate) fn scan<R>(
        &self,
        at: &mut FlowPlace,
        mut see: impl FnMut(Rcu<'_>, &FlowShared) -> ControlFlow<R>,
        go_on: impl Fn() -> bool,
    ) -> ControlFlow<R, bool> {
        if !at.v6 {
            if !self.scan_family::<V4, R>(&mut at.place, &mut see, &go_on)? {
                return ControlFlow::Continue(false);
            }
            *at = FlowPlace {
                v6: true,
                place: at.place.restart(),
            };
        }
        self.scan_family::<V6, R>(&mut at.place, &mut see, &go_on)
    }

    fn scan_family<F: Store, R>(
        &self,
        place: &mut Place,
        see: &mut impl FnMut(Rcu<'_>, &FlowShared) -> ControlFlow<R>,
        go_on: &impl Fn() -> bool,
    ) -> ControlFlow<R, bool> {
        loop {
            let guard = rcu::read_lock();
            let rcu = Rcu::from(&guard);
            // SAFETY: RCU is held; entries and arrays are freed after a grace period.
            let more = unsafe {
                F::table(self).scan(place, BUCKETS_AT_ONCE, |entry| {
                    match entry.is_live() && entry.dir() == Direction::Original {
                        true => see(rcu, &entry.flow().shared),
                        false => ControlFlow::Continue(()),
                    }
                })
            }?;
            drop(guard);

            if !more {
                return ControlFlow::Continue(true);
            }
            if !go_on() {
                return ControlFlow::Continue(false);
            }
            ffi::cond_resched();
        }
    }
}
