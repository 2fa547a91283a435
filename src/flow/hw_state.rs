// SPDX-License-Identifier: GPL-2.0

//! The part of a flow that belongs to the hardware tier: where it stands, and how many bytes it
//! had.

use crate::ffi;
use core::sync::atomic::{
    AtomicU32,
    AtomicU64,
    AtomicU8,
    Ordering, //
};
use nft_flow::llist;

/// The stage of a flow on its way into hardware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Stage {
    /// With software alone.
    Software,
    /// On its way to the tier's list; only the packet path makes it so.
    Queued,
    /// In the tier's list of flows that are worth a place.
    Waiting,
    /// One direction is in hardware.
    Partial,
    /// Both directions are.
    Hardware,
    /// No engine can express it: not asked again, unless devices change.
    Refused,
    /// Dead.
    Closed,
}

impl Stage {
    const ALL: [Stage; 7] = [
        Stage::Software,
        Stage::Queued,
        Stage::Waiting,
        Stage::Partial,
        Stage::Hardware,
        Stage::Refused,
        Stage::Closed,
    ];

    fn of(n: u8) -> Self {
        Self::ALL
            .get(usize::from(n))
            .copied()
            .unwrap_or(Stage::Closed)
    }
}

/// A flow's state with the tier. The packet path changes `stage` from `Software` to `Queued`; all
/// else is for the tier, under its lock.
pub(crate) struct HwState {
    stage: AtomicU8,
    /// Failures in a row.
    pub(crate) failures: AtomicU8,
    /// Its place in the tier's list; of a refused flow, the generation of devices.
    pub(crate) index: AtomicU32,
    /// In the tier's queue.
    pub(crate) node: llist::Node,
    /// Bytes forwarded, by whomever.
    pub(crate) bytes: AtomicU64,
    /// `bytes` when the present window began.
    base: AtomicU64,
    /// When that was, in `jiffies`.
    since: AtomicU32,
    /// Not queued before this time.
    not_before: AtomicU32,
}

impl HwState {
    /// Makes the state of a new flow.
    pub(crate) fn new(now: u32) -> Self {
        Self {
            stage: AtomicU8::new(Stage::Software as u8),
            failures: AtomicU8::new(0),
            index: AtomicU32::new(0),
            node: llist::Node::new(),
            bytes: AtomicU64::new(0),
            base: AtomicU64::new(0),
            since: AtomicU32::new(now),
            not_before: AtomicU32::new(now),
        }
    }

    /// Whether at least one direction is in hardware.
    pub(crate) fn is_there(&self) -> bool {
        matches!(self.stage(), Stage::Partial | Stage::Hardware)
    }

    pub(crate) fn stage(&self) -> Stage {
        Stage::of(self.stage.load(Ordering::Acquire))
    }

    pub(crate) fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// Moves the flow from one stage to another, if it is in the first.
    pub(crate) fn step(&self, from: Stage, to: Stage) -> bool {
        self.stage
            .compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Moves the flow back to software; it is not queued again for `jiffies`.
    pub(crate) fn leave(&self, now: u32, jiffies: u32) {
        self.not_before
            .store(now.wrapping_add(jiffies), Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
        self.base
            .store(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        self.set_stage(Stage::Software);
    }

    /// Refuses the flow, as long as the devices are those of `generation`.
    pub(crate) fn refuse(&self, generation: u32) {
        self.index.store(generation, Ordering::Relaxed);
        self.set_stage(Stage::Refused);
    }

    /// Moves a flow back to software that was refused for other devices than those of `generation`.
    pub(crate) fn reconsider(&self, generation: u32) {
        if self.stage() == Stage::Refused && self.index.load(Ordering::Relaxed) != generation {
            self.step(Stage::Refused, Stage::Software);
        }
    }

    /// Bytes of the present window, and its length in jiffies: none if a packet has just begun
    /// another one, later than `now`.
    pub(crate) fn recent(&self, now: u32) -> (u64, u32) {
        (
            self.bytes
                .load(Ordering::Relaxed)
                .saturating_sub(self.base.load(Ordering::Relaxed)),
            (now.wrapping_sub(self.since.load(Ordering::Relaxed)) as i32).max(0) as u32,
        )
    }

    /// Counts a packet of `len` bytes that software has forwarded, in a flowtable that has
    /// hardware. True if the flow is heavy enough for hardware, with `threshold` bytes in a second:
    /// then it is [queued](Stage::Queued) from now on, which the caller sees to.
    #[inline(always)]
    pub(crate) fn account(&self, len: u32, now: u32, threshold: u64) -> bool {
        const WINDOW: u32 = ffi::HZ;

        let stage = self.stage.load(Ordering::Relaxed);
        if stage >= Stage::Refused as u8 {
            return false;
        }
        let total = self.bytes.fetch_add(len.into(), Ordering::Relaxed);
        if stage != Stage::Software as u8 {
            return false;
        }
        let recent = total
            .wrapping_add(len.into())
            .wrapping_sub(self.base.load(Ordering::Relaxed));

        if now.wrapping_sub(self.since.load(Ordering::Relaxed)) > WINDOW {
            self.since.store(now, Ordering::Relaxed);
            self.base.store(total, Ordering::Relaxed);
            return false;
        }
        recent >= threshold
            && now.wrapping_sub(self.not_before.load(Ordering::Relaxed)) as i32 >= 0
            && self.step(Stage::Software, Stage::Queued)
    }
}
