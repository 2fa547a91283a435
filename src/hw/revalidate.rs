// SPDX-License-Identifier: GPL-2.0

//! Revalidates offloaded flows (still allowed?) and reads their counters (still present?).
//!
//! With many flows or slow drivers a scan takes longer than the tier may be locked. It goes on in
//! the next run where it stopped in this one, before another one begins.

use super::{
    now,
    now_ms,
    DemoteTo,
    Resident,
    Stage,
    TierInner,
    AT_ONCE, //
    TOPOLOGY_GEN,
};
use crate::{
    ffi::HZ,
    flow::table_ref::TableRef, //
};
use core::{
    mem,
    sync::atomic::Ordering, //
};
use nft_flow::{
    reason::TeardownReason,
    sweep::Sweep, //
};

/// Jiffies between two readings of statistics.
const STATS: u32 = HZ;
/// Bytes between two questions that software may see of a flow in hardware: they were under way.
const STRAY: u64 = 1000;
/// Rounds in which software sees the packets of a flow that hardware is said to forward.
const STRIKES: u8 = 3;

/// Where the scans of the flows in hardware have stopped.
pub(super) struct ScanCursors {
    /// Whether they are to be there.
    check_scan: Sweep,
    /// With what rules are made of, which had changed; until when.
    thorough: bool,
    topology_gen: u32,
    /// What they have forwarded.
    stats_scan: Sweep,
    /// When the last of these began.
    stats_since: u32,
}

impl ScanCursors {
    pub(super) fn new(now: u32) -> Self {
        Self {
            check_scan: Sweep::default(),
            thorough: false,
            topology_gen: 0,
            stats_scan: Sweep::default(),
            stats_since: now,
        }
    }
}

impl TierInner {
    /// Scans the flows in hardware: demotes those that must not be there, and reads statistics of
    /// the rest once a second. Returns whether there was not enough time for all of them.
    pub(super) fn revalidate(&mut self, table: &TableRef) -> bool {
        let generation = table.generation();
        let topology_gen = TOPOLOGY_GEN.load(Ordering::Relaxed);
        let (start, len) = (now(), self.resident.len());
        let v = &mut self.scans;

        // A change of what rules are made of does not wait until a look without them is through.
        if v.check_scan.is_over(len) || topology_gen != v.topology_gen && !v.thorough {
            v.check_scan.begin(len);
            v.thorough = topology_gen != v.topology_gen;
            v.topology_gen = topology_gen;
        }
        if v.stats_scan.is_over(len) && start.wrapping_sub(v.stats_since) >= STATS {
            v.stats_scan.begin(len);
            v.stats_since = start;
        }

        while let Some(at) = self.scans.check_scan.step(self.resident.len()) {
            self.check(at, generation, self.scans.thorough);
            if now().wrapping_sub(start) > AT_ONCE {
                break;
            }
        }
        // With time of their own: neither of the two waits for the other.
        let (start, ms) = (now(), now_ms());
        while let Some(at) = self.scans.stats_scan.step(self.resident.len()) {
            if self.check(at, generation, true) {
                if let Some(next) = self.stats_round(at, ms) {
                    match next {
                        DemoteTo::Software => self.counts.aged += 1,
                        _ => self.counts.lost += 1,
                    }
                    self.demote(at, next);
                }
            }
            if now().wrapping_sub(start) > AT_ONCE {
                break;
            }
        }
        let len = self.resident.len();
        !self.scans.check_scan.is_over(len) || !self.scans.stats_scan.is_over(len)
    }

    /// Whether a flow may stay in hardware, by the ruleset `generation` and, if `thorough`, as its
    /// rules are. A flow that may not is demoted or torn down.
    fn check(&mut self, at: usize, generation: u32, thorough: bool) -> bool {
        let Some(resident) = self.resident.get(at) else {
            return false;
        };
        let flow = resident.flow;

        if !flow.is_live() {
            // The worker forgets it, soon.
            return false;
        }
        if flow.ct.get().is_dying() {
            flow.teardown(TeardownReason::CtDying);
            return false;
        }
        let validated = flow.validated(generation);
        let was = resident.validated;
        if validated != was {
            self.counts.ruleset_changed += 1;
            // The other direction has come in as well, maybe.
            let more = validated.iter().zip(was).all(|(&now, was)| now || !was);
            self.demote(
                at,
                if more {
                    DemoteTo::Waiting
                } else {
                    DemoteTo::Software
                },
            );
            return false;
        }
        if thorough {
            let next = match flow.describe() {
                Ok(described) if described.fingerprint() == resident.fingerprint => return true,
                Ok(_) => DemoteTo::Waiting,
                Err(_) => DemoteTo::Software,
            };
            self.counts.stale += 1;
            self.demote(at, next);
            return false;
        }
        true
    }

    /// Reads the statistics of a flow in hardware. Returns where the flow goes if it is not there
    /// any more.
    fn stats_round(&mut self, at: usize, ms: u32) -> Option<DemoteTo> {
        // Taken out for the time of the question.
        let r = self.resident.get_mut(at)?;
        let mut taken = Resident {
            flow: r.flow,
            rules: mem::take(&mut r.rules),
            ..*r
        };
        let before = taken.by_hardware;
        let answered = [0, 1].map(|dir| self.read_stats(&mut taken, dir));
        let flow = taken.flow;
        let hw = &flow.hw;
        let total = hw.bytes.load(Ordering::Relaxed);

        taken.rate.sample(total, ms);
        let by_hardware = taken.by_hardware.wrapping_sub(before);
        let by_software = total
            .wrapping_sub(taken.bytes_seen)
            .saturating_sub(by_hardware);
        taken.bytes_seen = total;
        // Packets that hardware should have forwarded come here: it has forgotten the flow and not
        // told the driver, or never knew it.
        taken.strikes = match by_hardware == 0 && by_software > STRAY {
            true => taken.strikes.saturating_add(1),
            false => 0,
        };
        let silent = taken.strikes >= STRIKES && hw.stage() == Stage::Hardware;
        // An engine lets go of a direction that is idle, while the other one may have all the
        // traffic.
        let mut there = true;
        for (dir, answered) in answered.into_iter().enumerate() {
            there &= answered || by_hardware != 0 && self.reinstall(&mut taken, dir);
        }
        if by_hardware != 0 {
            hw.failures.store(0, Ordering::Relaxed);
        }
        if let Some(r) = self.resident.get_mut(at) {
            *r = taken;
        }
        match () {
            () if silent => Some(DemoteTo::Failed),
            () if there => None,
            // Engines let go of what is idle.
            () if by_hardware == 0 && by_software <= STRAY => Some(DemoteTo::Software),
            () => Some(DemoteTo::Failed),
        }
    }
}
