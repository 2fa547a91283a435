// SPDX-License-Identifier: GPL-2.0

//! Connections whose packets are rewritten by rules, so that they cannot be offloaded.
//!
//! It shows only when packets leave that the fast path might have forwarded. So it is remembered,
//! for as long as the ruleset stays, but not longer than a minute.

use crate::{
    ffi::{
        self,
        HZ, //
    },
    net::ct::Ct, //
};
use core::sync::atomic::{
    AtomicU32,
    Ordering, //
};

/// Connections that are remembered; more share places.
const SLOTS: usize = 256;
/// How long, in jiffies.
const MEMORY: u32 = 60 * HZ;

/// A slot. Its words may have been written at different times; at worst a connection is tried once
/// more, or backs off for longer.
struct Slot {
    /// Stands for connection and ruleset. [`ANYONE`] if several contend for the place: then whoever
    /// comes is left alone for a second.
    who: AtomicU32,
    /// `jiffies`.
    since: AtomicU32,
}

const NOBODY: u32 = 0;
const ANYONE: u32 = 1;

/// The memory of a flowtable.
pub(crate) struct Rewritten([Slot; SLOTS]);

impl Rewritten {
    pub(super) fn new() -> Self {
        Self(
            [const {
                Slot {
                    who: AtomicU32::new(NOBODY),
                    since: AtomicU32::new(0),
                }
            }; SLOTS],
        )
    }

    /// The place of a connection, and what stands for it there.
    fn slot(&self, ct: Ct, generation: u32) -> (&Slot, u32) {
        const FACTOR: u32 = 0x9e37_79b1;

        // Memory of entries is used again: so is the place, but for other ports.
        let at = (ct.as_ptr() as usize / 64) as u32;
        let hash = at.wrapping_mul(FACTOR);
        let who = (hash ^ ct.ports() ^ generation).wrapping_mul(FACTOR) | 2;

        (&self.0[(hash >> 24) as usize % SLOTS], who)
    }

    /// Remembers that packets of the connection are rewritten under this ruleset.
    pub(crate) fn remember(&self, ct: Ct, generation: u32) {
        let (slot, who) = self.slot(ct, generation);
        let now = ffi::jiffies32();
        let other = slot.who.load(Ordering::Relaxed);
        let contended = other != NOBODY
            && other != who
            && now.wrapping_sub(slot.since.load(Ordering::Relaxed)) < HZ;

        slot.since.store(now, Ordering::Relaxed);
        slot.who
            .store(if contended { ANYONE } else { who }, Ordering::Relaxed);
    }

    /// Whether packets of the connection are known to be rewritten by rules.
    pub(crate) fn contains(&self, ct: Ct, generation: u32) -> bool {
        let (slot, who) = self.slot(ct, generation);
        let age = ffi::jiffies32().wrapping_sub(slot.since.load(Ordering::Relaxed));

        match slot.who.load(Ordering::Relaxed) {
            ANYONE => age < HZ,
            known => known == who && age < MEMORY,
        }
    }
}
