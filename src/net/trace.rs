// SPDX-License-Identifier: GPL-2.0

//! Tracepoints `nft_offload:*`, for perf, bpftrace and trace-cmd: see docs/observability.md.
//!
//! Those that are off cost nothing but what their arguments cost. Where that is more than a move,
//! the arguments are made by a function that is called only if the tracepoint is on.

use crate::{
    ffi::{
        self,
        skb::Skb,
        trace, //
    },
    net::{
        ct::Ct,
        nf_tables::NftRef,
        packet::ForwardPkt, //
    }, //
};
use kernel::time::{
    Instant,
    Monotonic, //
};
use nft_flow::{
    direction::Direction,
    reason::{
        DemoteReason,
        MissReason,
        SkipReason,
        TeardownReason, //
    }, //
};

/// Why the ruleset is asked about packets of a flow again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reval {
    /// A packet is sent to a ruleset that has not seen one of its direction.
    Ruleset,
    /// The verdict may have changed without a commit.
    Volatile,
    /// The policy of a chain has changed some time after the commit.
    Policy,
    /// Mark or labels of the conntrack entry have changed.
    Mark,
    /// A packet is let through so that a bridge sees its station.
    Bridge,
    /// Not any more: a packet has passed the ruleset, which does with it what the flow does.
    Answered,
}

impl Reval {
    const fn name(self) -> &'static str {
        match self {
            Reval::Ruleset => "ruleset",
            Reval::Volatile => "volatile",
            Reval::Policy => "policy",
            Reval::Mark => "mark",
            Reval::Bridge => "bridge",
            Reval::Answered => "answered",
        }
    }
}

/// A string for C, which copies it.
#[inline(always)]
fn text(s: &'static str) -> (*const u8, u32) {
    (s.as_ptr(), s.len() as u32)
}

/// A flow was added. `devices`: by which packets of the original direction come in and leave.
#[inline(always)]
pub(crate) fn add(ct: Ct, nft: NftRef, devices: impl FnOnce() -> (u32, u32)) {
    if trace::flow_add_enabled() {
        let (iif, oif) = devices();

        // SAFETY: By the type invariants.
        unsafe { trace::flow_add(ct.as_ptr(), nft.as_ptr(), iif, oif) };
    }
}

/// A packet came to the rule that adds flows, in vain.
#[inline(always)]
pub(crate) fn skip(pkt: ForwardPkt<'_>, nft: NftRef, why: SkipReason) {
    if trace::flow_skip_enabled() {
        pkt.trace_skip(nft, text(why.name()));
    }
}

/// A packet at the ingress hook takes the slow path.
#[inline(always)]
pub(crate) fn miss(skb: Skb, why: MissReason) {
    if trace::flow_miss_enabled() {
        let (reason, len) = text(why.name());

        // SAFETY: By the type invariant.
        unsafe { trace::flow_miss(skb.as_ptr(), reason, len) };
    }
}

/// The ruleset is asked about packets of a direction again, or has answered.
#[inline(always)]
pub(crate) fn revalidate(ct: Ct, dir: Direction, why: Reval) {
    let (reason, len) = text(why.name());

    // SAFETY: By the type invariant.
    unsafe { trace::flow_revalidate(ct.as_ptr(), dir as u8, reason, len) };
}

/// A flow was torn down. `times`: its age, and since when it is idle, in `jiffies`.
#[inline(always)]
pub(crate) fn teardown(ct: Ct, why: TeardownReason, times: impl FnOnce() -> (u32, u32)) {
    if trace::flow_teardown_enabled() {
        let (age, idle) = times();
        let (reason, len) = text(why.name());

        // SAFETY: By the type invariant.
        unsafe {
            trace::flow_teardown(
                ct.as_ptr(),
                ffi::milliseconds(age),
                ffi::milliseconds(idle),
                reason,
                len,
            );
        }
    }
}

/// An engine has taken the rule of a direction, whose packets come in by device `iif`.
#[inline(always)]
pub(crate) fn hw_add(ct: Ct, dir: Direction, iif: u32, engine: &'static str) {
    let (engine, len) = text(engine);

    // SAFETY: By the type invariant.
    unsafe { trace::hw_add(ct.as_ptr(), dir as u8, iif, engine, len) };
}

/// A direction was not put into hardware. `said`: the (negative) errno and the words of a driver.
#[inline(always)]
pub(crate) fn hw_decline(ct: Ct, dir: Direction, iif: u32, why: &'static str, said: (i32, &str)) {
    let (reason, len) = text(why);
    let (error, words) = said;

    // SAFETY: By the type invariant.
    unsafe {
        trace::hw_decline(
            ct.as_ptr(),
            dir as u8,
            iif,
            reason,
            len,
            error,
            words.as_ptr(),
            words.len() as u32,
        );
    }
}

/// The rule of a direction was taken away.
#[inline(always)]
pub(crate) fn hw_remove(ct: Ct, dir: Direction, iif: u32, why: DemoteReason) {
    let (reason, len) = text(why.name());

    // SAFETY: By the type invariant.
    unsafe { trace::hw_remove(ct.as_ptr(), dir as u8, iif, reason, len) };
}

/// A run of a flowtable's worker, if somebody wants to know how long it takes.
pub(crate) struct GcRun(Option<Instant<Monotonic>>);

impl GcRun {
    /// The run begins.
    pub(crate) fn begin() -> Self {
        Self(trace::gc_run_enabled().then(Instant::now))
    }

    /// The run has ended: it took so many flows out, as many are left, and the next one is so many
    /// `jiffies` away.
    pub(crate) fn end(self, nft: NftRef, flows: usize, removed: u32, pause: usize) {
        let Some(begun) = self.0 else {
            return;
        };
        let duration = begun.elapsed().as_nanos() as u64;
        let pause = ffi::milliseconds(pause as u32);

        // SAFETY: By the type invariant.
        unsafe { trace::gc_run(nft.as_ptr(), flows as u32, removed, duration, pause) };
    }
}
