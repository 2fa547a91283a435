// SPDX-License-Identifier: GPL-2.0

//! Counters: the fast path's packets and bytes, and one per reason.
//!
//! Per CPU and never reset; summed when they are read. The names are stable: tools and tests use
//! them.

use crate::ffi::{
    self,
    c,
    skb::Skb, //
};
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
    ffi::stat_add(index as u32, 1);
}

fn sum(index: usize) -> u64 {
    ffi::stat_sum(index as u32)
}

/// Counts one event.
pub(crate) fn count(counter: Counter) {
    add(counter as usize);
}

/// Counts a packet of the ingress hook that goes past upper devices.
#[inline(always)]
pub(crate) fn count_direct(skb: Skb) {
    ffi::stat_inc::<{ Counter::PacketsDirect as usize }>(skb);
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
    ffi::stat_gone(packets, bytes);
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
