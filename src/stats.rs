// SPDX-License-Identifier: GPL-2.0

//! Counters: the fast path's packets and bytes, and one per reason.
//!
//! Per CPU and never reset; summed when they are read. The names are stable: tools and tests use
//! them.

use crate::ffi::c;
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
    /// Fast packets that went past upper devices.
    PacketsDirect,
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

/// Counts a packet that goes past upper devices. Softirqs are off.
#[inline(always)]
pub(crate) fn count_direct() {
    const INDEX: usize = Counter::PacketsDirect as usize;

    #[cfg(all(target_arch = "x86_64", CONFIG_SMP, not(CONFIG_UML)))]
    // SAFETY: `__this_cpu_inc()`: the GS segment begins at this CPU's data, and the index is one of
    // the array.
    unsafe {
        core::arch::asm!(
            "inc qword ptr gs:[rip + {stats} + {offset}]",
            stats = sym c::nfo_stats,
            offset = const core::mem::offset_of!(c::nfo_stats, n) + INDEX * size_of::<u64>(),
            options(nostack),
        );
    }
    #[cfg(not(all(target_arch = "x86_64", CONFIG_SMP, not(CONFIG_UML))))]
    // SAFETY: Any index is allowed, and softirqs are off.
    unsafe {
        c::nfo_stat_inc_bh(INDEX as u32);
    }
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
pub(crate) fn add_retired(packets: u64, bytes: u64) {
    // SAFETY: Per-CPU data may be touched in any context.
    unsafe { c::nfo_stat_gone(packets, bytes) };
}

/// Returns how many of these events there were.
pub(crate) fn counted(counter: Counter) -> u64 {
    sum(counter as usize)
}

/// Returns how many flows were not added because of this.
pub(crate) fn skipped(reason: SkipReason) -> u64 {
    sum(SKIP + reason.index())
}

/// Returns how many packets took the slow path because of this.
pub(crate) fn missed(reason: MissReason) -> u64 {
    sum(MISS + reason.index())
}

/// Returns how many flows were torn down because of this.
pub(crate) fn torn_down(reason: TeardownReason) -> u64 {
    sum(TEARDOWN + reason.index())
}

/// Packets and bytes of the flowtables that are gone, see [`add_retired`].
pub(crate) fn retired() -> (u64, u64) {
    (sum(NFO_STATS), sum(NFO_STATS + 1))
}
