// SPDX-License-Identifier: GPL-2.0

//! A look at what is in hardware: is it to be there, and is it there?
//!
//! With many flows or slow drivers that takes longer than the tier may be locked. A look at all flows
//! goes on in the next run where it stopped in this one, before another one begins.

use super::{
    now,
    now_ms,
    Inner,
    Next,
    Resident,
    Stage,
    AROUND,
    AT_ONCE, //
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

/// Between two questions to engines about what they have forwarded.
const STATS: u32 = HZ;
/// Bytes between two questions that software may see of a flow in hardware: they were under way.
const STRAY: u64 = 1000;
/// Rounds in which software sees the packets of a flow that hardware is said to forward.
const STRIKES: u8 = 3;

/// How far looks at the flows in hardware have come.
pub(super) struct Verified {
    /// Whether they are to be there.
    checks: Sweep,
    /// With what rules are made of, which had changed; until when.
    thorough: bool,
    around: u32,
    /// What they have forwarded.
    questions: Sweep,
    /// When the last of these began.
    asked: u32,
}

impl Verified {
    pub(super) fn new(now: u32) -> Self {
        Self {
            checks: Sweep::default(),
            thorough: false,
            around: 0,
            questions: Sweep::default(),
            asked: now,
        }
    }
}

impl Inner {
    /// Looks at the flows in hardware: takes out what must not be there, and asks engines about the rest
    /// once a second. Returns whether there was not enough time for all of them.
    pub(super) fn verify(&mut self, table: &TableRef) -> bool {
        let generation = table.generation();
        let around = AROUND.load(Ordering::Relaxed);
        let (start, len) = (now(), self.resident.len());
        let v = &mut self.verified;

        // A change of what rules are made of does not wait until a look without them is through.
        if v.checks.is_over(len) || around != v.around && !v.thorough {
            v.checks.begin(len);
            v.thorough = around != v.around;
            v.around = around;
        }
        if v.questions.is_over(len) && start.wrapping_sub(v.asked) >= STATS {
            v.questions.begin(len);
            v.asked = start;
        }

        while let Some(at) = self.verified.checks.step(self.resident.len()) {
            self.check(at, generation, self.verified.thorough);
            if now().wrapping_sub(start) > AT_ONCE {
                break;
            }
        }
        // With time of their own: neither of the two waits for the other.
        let (start, ms) = (now(), now_ms());
        while let Some(at) = self.verified.questions.step(self.resident.len()) {
            if self.check(at, generation, true) {
                if let Some(next) = self.round(at, ms) {
                    match next {
                        Next::Software => self.counts.aged += 1,
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
        !self.verified.checks.is_over(len) || !self.verified.questions.is_over(len)
    }

    /// Is a flow to be in hardware, by the ruleset `generation` and, if `thorough`, as its rules are? If
    /// not it is taken out, or will be.
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
            self.demote(at, if more { Next::Waiting } else { Next::Software });
            return false;
        }
        if thorough {
            let next = match flow.describe() {
                Ok(described) if described.print() == resident.print => return true,
                Ok(_) => Next::Waiting,
                Err(_) => Next::Software,
            };
            self.counts.stale += 1;
            self.demote(at, next);
            return false;
        }
        true
    }

    /// Statistics of a flow in hardware. Says where it goes if it is not there any more.
    fn round(&mut self, at: usize, ms: u32) -> Option<Next> {
        // Taken out for the time of the question.
        let r = self.resident.get_mut(at)?;
        let mut taken = Resident {
            flow: r.flow,
            rules: mem::take(&mut r.rules),
            ..*r
        };
        let before = taken.by_hardware;
        let asked = [0, 1].map(|dir| self.ask(&mut taken, dir));
        let flow = taken.flow;
        let hw = &flow.hw;
        let total = hw.bytes.load(Ordering::Relaxed);

        taken.rate.sample(total, ms);
        let by_hardware = taken.by_hardware.wrapping_sub(before);
        let by_software = total.wrapping_sub(taken.looked).saturating_sub(by_hardware);
        taken.looked = total;
        // Packets that hardware should have forwarded come here: it has forgotten the flow and not
        // told the driver, or never knew it.
        taken.strikes = match by_hardware == 0 && by_software > STRAY {
            true => taken.strikes.saturating_add(1),
            false => 0,
        };
        let silent = taken.strikes >= STRIKES && hw.stage() == Stage::Hardware;
        // An engine lets go of a direction that is idle, while the other one may have all the traffic.
        let mut there = true;
        for (dir, asked) in asked.into_iter().enumerate() {
            there &= asked || by_hardware != 0 && self.again(&mut taken, dir);
        }
        if by_hardware != 0 {
            hw.failures.store(0, Ordering::Relaxed);
        }
        if let Some(r) = self.resident.get_mut(at) {
            *r = taken;
        }
        match () {
            () if silent => Some(Next::Failed),
            () if there => None,
            // Engines let go of what is idle.
            () if by_hardware == 0 && by_software <= STRAY => Some(Next::Software),
            () => Some(Next::Failed),
        }
    }
}
