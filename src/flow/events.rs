// SPDX-License-Identifier: GPL-2.0

//! What happens to flows, for those who listen.
//!
//! Who listens is no matter of a flow: a flowtable is given a function that knows.

use crate::{
    ffi::HZ,
    flow::shared::FlowShared, //
};
use core::sync::atomic::{
    AtomicU32,
    Ordering, //
};
use nft_flow::reason::{
    DemoteReason,
    TeardownReason, //
};

/// Something that has happened to a flow.
#[derive(Clone, Copy)]
pub(crate) enum FlowEvent {
    /// It was added.
    Added,
    /// Its tier is another one: it went into hardware, or left it because of this.
    Tier(Option<DemoteReason>),
    /// It was torn down.
    Removed(TeardownReason),
}

/// Tells who listens. Does not sleep; may be called in any context, under the lock of the flowtable
/// as well.
pub(crate) type Notify = fn(&FlowShared, FlowEvent);

/// What becomes of an event that somebody listens to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is told.
    Told,
    /// It is not, and the listeners are told that they miss some.
    Lost,
    /// It is not, as others before it.
    Dropped,
}

/// How many events of a flowtable were told in this second.
pub(super) struct Budget {
    /// When it began, in `jiffies`.
    since: AtomicU32,
    told: AtomicU32,
}

impl Budget {
    /// Events in a second, at most: who tears a million flows down waits no longer for listeners.
    const LIMIT: u32 = 16384;

    pub(super) fn new() -> Self {
        Self {
            since: AtomicU32::new(0),
            told: AtomicU32::new(0),
        }
    }

    /// Takes one event.
    pub(super) fn take(&self, now: u32) -> Admission {
        if now.wrapping_sub(self.since.load(Ordering::Relaxed)) >= HZ {
            self.since.store(now, Ordering::Relaxed);
            self.told.store(0, Ordering::Relaxed);
        }
        match self.told.fetch_add(1, Ordering::Relaxed) {
            n if n < Self::LIMIT => Admission::Told,
            Self::LIMIT => Admission::Lost,
            _ => Admission::Dropped,
        }
    }
}
