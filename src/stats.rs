// SPDX-License-Identifier: GPL-2.0

//! Counters: the fast path's packets and bytes, and one per reason.
//!
//! Per CPU and never reset; summed when they are read. The names are stable: tools and tests use
//! them.

use crate::{
    ffi::c,
    flowtable::traffic, //
};
use core::sync::atomic::{
    AtomicU32,
    Ordering, //
};
use kernel::fmt;
use nft_flow::reason::{
    MissReason,
    SkipReason,
    TeardownReason, //
};

/// Counters that are not reasons.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Counter {
    /// Flows added to a flowtable.
    FlowsAdded,
    /// Flows whose memory has been given back.
    FlowsFreed,
    /// Path of an entry renewed in place: its neighbour was replaced.
    NeighRenewed,
    /// Fast packets that left with their conntrack entry.
    PacketsWithCt,
    /// Flows whose next packets pass the ruleset because that may have changed its mind.
    FlowsAsked,
}

/// Size of the array in helpers.c.
const NFO_STATS: usize = c::NFO_STATS_LEN as usize;

const SKIP: usize = Counter::FlowsAsked as usize + 1;
const MISS: usize = SKIP + SkipReason::COUNT;
const TEARDOWN: usize = MISS + MissReason::COUNT;
const _: () = assert!(TEARDOWN + TeardownReason::COUNT <= NFO_STATS);

#[inline]
fn add(index: usize) {
    // SAFETY: Any index is allowed, per-CPU data may be touched in any context.
    unsafe { c::nfo_stat_add(index as u32, 1) };
}

fn sum(index: usize) -> u64 {
    // SAFETY: Any index is allowed.
    unsafe { c::nfo_stat_sum(index as u32) }
}

/// Counts one event.
pub(crate) fn count(counter: Counter) {
    add(counter as usize);
}

/// Counts a flow that was not added.
pub(crate) fn skip(reason: SkipReason) {
    add(SKIP + reason.index());
}

/// Counts a packet that took the slow path.
#[inline]
pub(crate) fn miss(reason: MissReason) {
    add(MISS + reason.index());
}

/// Counts a flow that was taken down.
pub(crate) fn teardown(reason: TeardownReason) {
    add(TEARDOWN + reason.index());
}

/// Counts what a flowtable that is going away has forwarded.
pub(crate) fn gone(packets: u64, bytes: u64) {
    // SAFETY: Per-CPU data may be touched in any context.
    unsafe { c::nfo_stat_gone(packets, bytes) };
}

/// Flowtables whose traffic is on the way from their own books to those of all that are gone: how
/// many set out, and arrived, ever.
static CLOSING: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];

/// Calls `f`, which takes a flowtable away and counts what it has forwarded as [`gone`].
pub(crate) fn closing(f: impl FnOnce()) {
    CLOSING[0].fetch_add(1, Ordering::SeqCst);
    f();
    CLOSING[1].fetch_add(1, Ordering::SeqCst);
}

/// Packets and bytes of all flowtables, gone or not.
fn forwarded() -> (u64, u64) {
    const TRIES: usize = 8;

    let mut sums = (0, 0);
    for _ in 0..TRIES {
        let arrived = CLOSING[1].load(Ordering::SeqCst);
        let (packets, bytes) = traffic::all();

        sums = (
            sum(NFO_STATS).wrapping_add(packets),
            sum(NFO_STATS + 1).wrapping_add(bytes),
        );
        // Nobody was on the way.
        if CLOSING[0].load(Ordering::SeqCst) == arrived {
            break;
        }
    }
    sums
}

/// All counters, one `name value` a line.
pub(crate) struct Stats;

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let added = sum(Counter::FlowsAdded as usize);
        let freed = sum(Counter::FlowsFreed as usize);

        let (packets, bytes) = forwarded();
        writeln!(f, "packets_fast {packets}")?;
        writeln!(f, "bytes_fast {bytes}")?;
        writeln!(f, "flows_added {added}")?;
        writeln!(f, "flows_freed {freed}")?;
        writeln!(f, "flows {}", added.wrapping_sub(freed))?;
        writeln!(f, "neigh_renewed {}", sum(Counter::NeighRenewed as usize))?;
        writeln!(
            f,
            "packets_with_ct {}",
            sum(Counter::PacketsWithCt as usize)
        )?;
        writeln!(f, "flows_asked {}", sum(Counter::FlowsAsked as usize))?;
        for r in SkipReason::ALL {
            writeln!(f, "skip.{} {}", r.name(), sum(SKIP + r.index()))?;
        }
        for r in MissReason::ALL {
            writeln!(f, "miss.{} {}", r.name(), sum(MISS + r.index()))?;
        }
        for r in TeardownReason::ALL {
            writeln!(f, "teardown.{} {}", r.name(), sum(TEARDOWN + r.index()))?;
        }
        Ok(())
    }
}
