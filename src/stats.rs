// SPDX-License-Identifier: GPL-2.0

//! Counters: the fast path's packets and bytes, and one per reason.
//!
//! Per CPU and never reset; summed when they are read. The names are stable: tools and tests use
//! them.

use crate::ffi::c;
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
}

/// Size of the array in helpers.c.
const NFO_STATS: usize = c::NFO_STATS_LEN as usize;

const SKIP: usize = 4;
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

/// Counts a packet of `len` bytes (from the network header on) that the fast path forwarded.
#[inline(always)]
pub(crate) fn fast(len: u32) {
    #[cfg(all(target_arch = "x86_64", CONFIG_SMP, not(CONFIG_UML)))]
    // SAFETY: `this_cpu_inc()` and `this_cpu_add()`: the GS segment begins at this CPU's data.
    // `packets` and `bytes` are the first two members of `nfo_stats`.
    unsafe {
        core::arch::asm!(
            "inc qword ptr gs:[rip + {stats}]",
            "add qword ptr gs:[rip + {stats} + 8], {len}",
            stats = sym c::nfo_stats,
            len = in(reg) u64::from(len),
            options(nostack),
        );
    }
    #[cfg(not(all(target_arch = "x86_64", CONFIG_SMP, not(CONFIG_UML))))]
    // SAFETY: Called with softirqs off, as the hook runs.
    unsafe {
        c::nfo_stat_fast(len);
    }
}

/// All counters, one `name value` a line.
pub(crate) struct Stats;

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let added = sum(Counter::FlowsAdded as usize);
        let freed = sum(Counter::FlowsFreed as usize);

        writeln!(f, "packets_fast {}", sum(NFO_STATS))?;
        writeln!(f, "bytes_fast {}", sum(NFO_STATS + 1))?;
        writeln!(f, "flows_added {added}")?;
        writeln!(f, "flows_freed {freed}")?;
        writeln!(f, "flows {}", added.wrapping_sub(freed))?;
        writeln!(f, "neigh_renewed {}", sum(Counter::NeighRenewed as usize))?;
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
