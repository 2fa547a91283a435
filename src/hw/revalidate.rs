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
    TierInner,
    AT_ONCE,
    DIRECTIONS, //
    TOPOLOGY_GEN,
};
use crate::{
    ffi::HZ,
    flow::qos::NO_RULESET, //
};
use core::{
    mem,
    sync::atomic::Ordering, //
};
use nft_flow::{
    admit,
    reason::{
        DemoteReason,
        TeardownReason, //
    },
    sweep::Sweep, //
};

/// Jiffies between two scans, while neither ruleset nor topology change.
const ROUND: u32 = HZ / 10;
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
    /// In which epoch of the ruleset it began, and when.
    epoch: u32,
    check_since: u32,
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
            epoch: 0,
            check_since: now,
            stats_scan: Sweep::default(),
            stats_since: now,
        }
    }
}

impl TierInner {
    /// Scans the flows in hardware: demotes those that must not be there, and reads statistics of
    /// the rest once a second. Returns whether there was not enough time for all of them.
    #[inline(never)]
    pub(super) fn revalidate(&mut self) -> bool {
        let topology_gen = TOPOLOGY_GEN.load(Ordering::Relaxed);
        let (start, len) = (now(), self.resident.len());
        let v = &mut self.scans;

        // A change of what rules are made of does not wait until a look without them is through.
        let stale = topology_gen != v.topology_gen;
        let due =
            stale || self.rulesets.epoch() != v.epoch || start.wrapping_sub(v.check_since) >= ROUND;
        if v.check_scan.is_over(len) && due || stale && !v.thorough {
            v.check_scan.begin(len);
            v.thorough = stale;
            v.topology_gen = topology_gen;
            v.epoch = self.rulesets.epoch();
            v.check_since = start;
        }
        if v.stats_scan.is_over(len) && start.wrapping_sub(v.stats_since) >= STATS {
            v.stats_scan.begin(len);
            v.stats_since = start;
        }

        while let Some(at) = self.scans.check_scan.step(self.resident.len()) {
            self.check(at, self.scans.thorough);
            if now().wrapping_sub(start) > AT_ONCE {
                break;
            }
        }
        // With time of their own: neither of the two waits for the other.
        let (start, ms) = (now(), now_ms());
        while let Some(at) = self.scans.stats_scan.step(self.resident.len()) {
            if self.check(at, true) {
                if let Some(next) = self.stats_round(at, ms) {
                    let why = match next {
                        DemoteTo::Software => DemoteReason::Aged,
                        _ => DemoteReason::Lost,
                    };
                    match why {
                        DemoteReason::Aged => self.counts.aged += 1,
                        _ => self.counts.lost += 1,
                    }
                    self.demote(at, next, why);
                }
            }
            if now().wrapping_sub(start) > AT_ONCE {
                break;
            }
        }
        let len = self.resident.len();
        !self.scans.check_scan.is_over(len)
            || !self.scans.stats_scan.is_over(len)
            || self.scans.epoch != self.rulesets.epoch()
    }

    /// Whether a flow may stay in hardware, by the ruleset and, if `thorough`, as its rules are. A
    /// flow that may not is demoted or torn down.
    fn check(&mut self, at: usize, thorough: bool) -> bool {
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
        let Some(validated) = flow.validated_by() else {
            self.counts.stale += 1;
            self.demote(at, DemoteTo::Software, DemoteReason::Stale);
            return false;
        };
        let (was, epoch, fingerprint) = (resident.validated, resident.epoch, resident.fingerprint);
        let same_epoch = epoch == self.rulesets.epoch();
        let has_rule = [0, 1].map(|dir| resident.rules[dir].is_some());
        let stays = [0, 1].into_iter().all(|dir| {
            let (by, was) = (validated[dir], was[dir]);

            match (was, has_rule[dir]) {
                // Has it come in as well?
                (NO_RULESET, _) => !self.rulesets.is_agreed(by),
                // With software, for other reasons.
                (_, false) => true,
                (_, true) => by == was && same_epoch || self.rulesets.is_agreed(by),
            }
        });
        if !stays {
            self.counts.ruleset_changed += 1;
            // Back as soon as the ruleset has seen a packet of each direction.
            self.demote(at, DemoteTo::Waiting, DemoteReason::Ruleset);
            return false;
        }
        // With a later one of this epoch.
        if let (true, Some(resident)) = (validated != was, self.resident.get_mut(at)) {
            resident.validated = validated;
            resident.epoch = self.rulesets.epoch();
        }
        if thorough {
            let next = match flow.describe() {
                Ok(described) if described.fingerprint() == fingerprint => {
                    let fits = |dir| !self.has_rule(at, dir) || self.fits(&described, dir);

                    if fits(0) && fits(1) {
                        return true;
                    }
                    DemoteTo::Waiting
                }
                Ok(_) => DemoteTo::Waiting,
                Err(_) => DemoteTo::Software,
            };
            self.counts.stale += 1;
            self.demote(at, next, DemoteReason::Stale);
            return false;
        }
        true
    }

    fn has_rule(&self, at: usize, dir: usize) -> bool {
        self.resident
            .get(at)
            .is_some_and(|r| r.rules[dir].is_some())
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
        let flow = taken.flow;
        let hw = &flow.hw;
        // Software has seen packets of the direction since the last look.
        let came = [0, 1].map(|dir| flow.last_seen(dir) != taken.health[dir].seen);
        let answered = [0, 1].map(|dir| self.read_stats(&mut taken, dir));
        let total = hw.bytes.load(Ordering::Relaxed);

        taken.rate.sample(total, ms);
        let by_hardware = taken.by_hardware.wrapping_sub(before);
        let by_software = total
            .wrapping_sub(taken.bytes_seen)
            .saturating_sub(by_hardware);
        taken.bytes_seen = total;
        let active = taken.health.iter().any(|h| h.active);

        // An engine lets go of a direction that is idle, while the other one may have all the
        // traffic.
        let mut there = true;
        for (dir, answered) in answered.into_iter().enumerate() {
            there &= answered || active && self.reinstall(&mut taken, dir);
        }
        if active {
            hw.failures.store(0, Ordering::Relaxed);
        }
        // Bytes of a direction that is left to software say nothing about the other one.
        let whole = taken.rules.iter().all(Option::is_some);
        for (dir, came) in came.into_iter().enumerate() {
            self.judge_direction(&mut taken, dir, whole && came && by_software > STRAY);
        }
        let silent = taken.rules.iter().all(Option::is_none);
        if !silent {
            self.settle(flow, &taken);
        }
        if let Some(r) = self.resident.get_mut(at) {
            *r = taken;
        }
        match () {
            () if silent => Some(DemoteTo::Failed),
            () if there => None,
            // Engines let go of what is idle.
            () if !active && by_software <= STRAY => Some(DemoteTo::Software),
            () => Some(DemoteTo::Failed),
        }
    }

    /// Takes the rule of a direction away whose packets come to software all the same: hardware has
    /// forgotten it and not told the driver, or never knew it. Adds it again after a pause.
    fn judge_direction(&mut self, resident: &mut Resident, dir: usize, came: bool) {
        let health = &mut resident.health[dir];
        let now = now();

        if resident.rules[dir].is_some() {
            health.strikes = match came && !health.active && health.is_well() {
                true => health.strikes.saturating_add(1),
                false => 0,
            };
            if health.active {
                health.failures = 0;
            }
            if health.strikes < STRIKES {
                return;
            }
            health.strikes = 0;
            health.since = now;
            health.failures = health.failures.saturating_add(1);
            self.counts.lost += 1;
            if let Some(rule) = resident.rules[dir].take() {
                self.delete(resident.flow, DIRECTIONS[dir], rule, DemoteReason::Lost);
            }
        } else if health.failures != 0
            && now.wrapping_sub(health.since) > admit::backoff(health.failures).div_ceil(1000 / HZ)
        {
            // A commit may have come in between.
            let validated = resident.flow.validated_by();
            if !validated.is_some_and(|by| self.rulesets.is_agreed(by[dir])) {
                return;
            }
            // Until it has shown that it works.
            resident.health[dir].binds_late = true;
            self.reinstall(resident, dir);
        }
    }
}
