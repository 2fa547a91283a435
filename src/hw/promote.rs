// SPDX-License-Identifier: GPL-2.0

//! Promotion into hardware: which flow is next, which one makes room, and the rules of both
//! directions.

use super::{
    describe::{
        Described,
        Indescribable, //
    },
    now,
    now_ms,
    DemoteTo,
    Device,
    FlowRef,
    Health,
    HwOffload,
    Resident,
    Stage,
    TierInner,
    AT_ONCE,
    BUSY,
    DEVICES_GEN,
    DIRECTIONS,
    MOVES, //
};
use crate::{
    drivers::{
        Cookie,
        Rule,
        Said, //
    },
    flow::qos::NO_RULESET,
    net::trace, //
};
use core::sync::atomic::Ordering;
use kernel::prelude::*;
use nft_flow::{
    admit::{
        self,
        Config,
        Plan,
        Ranked,
        Rate, //
    },
    direction::Direction,
    engine::AddError,
    reason::{
        DemoteReason,
        Unsupported, //
    }, //
};

/// The outcome of an attempt to put a flow into hardware.
enum Outcome {
    In(Resident),
    /// There is no room.
    Full,
    /// It may go in soon.
    Later,
    /// Not for a while.
    Failed,
    Refused,
}

impl TierInner {
    /// Gives places to the flows that wait. Returns whether others were about to move.
    #[inline(never)]
    pub(super) fn schedule(&mut self, tier: &HwOffload) -> bool {
        let (now, ms) = (now(), now_ms());
        let config = Config::new(tier.threshold);

        // Those that have become light wait no longer.
        for at in (0..self.waiting.len()).rev() {
            let w = &mut self.waiting[at];
            let flow = w.flow;

            w.rate.sample(flow.hw.bytes.load(Ordering::Relaxed), ms);
            if w.rate.get() < tier.threshold / 2 && flow.is_live() {
                self.take_waiting(at);
                flow.hw.leave(now, 0);
            }
        }
        if self.waiting.is_empty() {
            return false;
        }
        let Some(plan) = self.plan(&config) else {
            return false;
        };

        // As flows, because places in the lists change with each step.
        let all = plan.admit + plan.swap;
        let n = all.min(MOVES);
        let [ins, outs] = &mut self.moves;
        ins.clear();
        outs.clear();
        for rank in self.ranks[0].iter().take(n) {
            let Some(w) = self.waiting.get(rank.index as usize) else {
                continue;
            };
            if ins.push(w.flow, GFP_KERNEL).is_err() {
                return false;
            }
        }
        for rank in self.ranks[1].iter().take(plan.swap) {
            let Some(r) = self.resident.get(rank.index as usize) else {
                continue;
            };
            if outs.push(r.flow, GFP_KERNEL).is_err() {
                return false;
            }
        }

        let mut moved = 0;
        while moved < self.moves[0].len() {
            let flow = self.moves[0][moved];
            if let Some(out) = moved
                .checked_sub(plan.admit)
                .and_then(|i| self.moves[1].get(i).copied())
            {
                let at = out.hw.index.load(Ordering::Relaxed);
                self.counts.swapped += 1;
                self.demote(at as usize, DemoteTo::Software, DemoteReason::Swapped);
            }
            moved += 1;
            if !self.promote(flow, ms) {
                return false;
            }
            if super::now().wrapping_sub(now) > AT_ONCE {
                break;
            }
        }
        moved < all
    }

    /// Ranks both lists.
    fn plan(&mut self, config: &Config) -> Option<Plan> {
        let [waiting, resident] = &mut self.ranks;
        let rank = |rate: &Rate, at: usize| Ranked {
            rate: rate.get(),
            index: at as u32,
        };

        waiting.clear();
        resident.clear();
        for (at, w) in self.waiting.iter().enumerate() {
            waiting.push(rank(&w.rate, at), GFP_KERNEL).ok()?;
        }
        let known = self
            .devices
            .iter()
            .filter_map(|d| d.engine.as_ref())
            .map(|engine| engine.capacity())
            .filter_map(|c| c.total.map(|total| total.saturating_sub(c.used)))
            .min()
            .unwrap_or(u32::MAX);
        let left = self.room.left(self.rules, now_ms()).min(known);

        // Where there is room for all, nobody has to leave.
        if ((left / 2) as usize) < waiting.len() {
            for (at, r) in self.resident.iter().enumerate() {
                resident.push(rank(&r.rate, at), GFP_KERNEL).ok()?;
            }
        }
        Some(admit::plan(config, waiting, resident, (left / 2) as usize))
    }

    /// Puts a flow that waits into hardware, or takes it off the list if that cannot be. False if
    /// there is no room.
    fn promote(&mut self, flow: FlowRef, ms: u32) -> bool {
        let at = flow.hw.index.load(Ordering::Relaxed) as usize;
        let outcome = self.install(flow, at);

        match outcome {
            Outcome::Full => return false,
            Outcome::Later => (),
            Outcome::Failed => {
                self.take_waiting(at);
                self.fail(flow);
            }
            Outcome::Refused => {
                self.take_waiting(at);
                // As of now: what has changed meanwhile may be missed until the next change.
                flow.hw.refuse(DEVICES_GEN.load(Ordering::Relaxed));
            }
            Outcome::In(mut resident) => {
                if let Some(w) = self.take_waiting(at) {
                    resident.rate = w.rate;
                    resident.rate.sample(resident.bytes_seen, ms);
                }
                flow.hw
                    .index
                    .store(self.resident.len() as u32, Ordering::Relaxed);
                self.settle(flow, &resident);
                if flow.hw.stage() == Stage::Partial {
                    self.counts.partial += 1;
                }
                // There is room: reserved before the rules were added.
                if let Err(e) = self.resident.push(resident, GFP_KERNEL) {
                    kernel::pr_warn_once!("a rule is lost: {e:?}\n");
                }
            }
        }
        true
    }

    /// Adds the rules of a flow.
    fn install(&mut self, flow: FlowRef, at: usize) -> Outcome {
        // What the ruleset has not seen is not for hardware.
        let by = flow.validated_by().unwrap_or_default();
        let validated = by.map(|by| match self.rulesets.is_agreed(by) {
            true => by,
            false => NO_RULESET,
        });
        if validated == [NO_RULESET; 2] {
            return Outcome::Later;
        }
        let described = match flow.describe() {
            Ok(described) => described,
            Err(Indescribable::Later) => return Outcome::Failed,
            Err(Indescribable::Never(why)) => {
                let e = AddError::Unsupported(why);
                self.declined(flow, Direction::Original, flow.iif[0], e, None);
                return Outcome::Refused;
            }
        };
        if self.resident.reserve(1, GFP_KERNEL).is_err() {
            return Outcome::Failed;
        }

        let ifindices = described.descs.map(|d| d.ingress.port.ifindex);
        let caps = ifindices.map(|ifindex| self.engine(ifindex).map(|e| e.caps(ifindex)));
        let rate = self.waiting.get(at).map_or(0, |w| w.rate.get());
        // It would have the rule, and not forward the packets.
        if caps.iter().flatten().any(|caps| rate < caps.bind_bytes()) {
            return Outcome::Later;
        }

        // One rule would serve both.
        let tuples = [0, 1].map(|dir| match &caps[dir] {
            Some(caps) if !caps.matches_vlan => described.tuple_hash(dir),
            _ => 0,
        });
        if let Some(other) = self.alias(&tuples) {
            for (dir, iif) in DIRECTIONS.into_iter().zip(ifindices) {
                let e = AddError::Unsupported(Unsupported::Alias);
                self.declined(flow, dir, iif, e, None);
            }
            self.demote(other, DemoteTo::Refused, DemoteReason::Alias);
            return Outcome::Refused;
        }

        // Conntrack must not judge by what the packet path saw before.
        flow.tcp.mark_windows_stale();
        let mut rules = [None, None];
        let mut failed = None;
        // Something of the machine's own is in the way, which may change.
        let mut later = false;
        for dir in 0..2 {
            if validated[dir] == NO_RULESET {
                continue;
            }
            if described.is_filtered[dir] {
                let e = AddError::Unsupported(Unsupported::IngressFilter);
                self.declined(flow, DIRECTIONS[dir], ifindices[dir], e, None);
                later = true;
                continue;
            }
            match self.add(flow, &described, dir) {
                Ok(rule) => rules[dir] = Some(rule),
                Err(e) => {
                    if !matches!(e, AddError::Unsupported(_)) {
                        failed = Some(e);
                        break;
                    }
                }
            }
        }
        if let Some(e) = failed {
            if e == AddError::Full {
                self.room.full(self.rules, now_ms());
            }
            for (dir, rule) in DIRECTIONS.into_iter().zip(rules) {
                if let Some(rule) = rule {
                    self.delete(flow, dir, rule, DemoteReason::Declined);
                }
            }
            return match (e, self.waiting.get_mut(at)) {
                (AddError::Full, _) => Outcome::Full,
                (AddError::Busy, Some(w)) if w.busy < BUSY => {
                    w.busy += 1;
                    Outcome::Later
                }
                _ => Outcome::Failed,
            };
        }
        if rules.iter().all(Option::is_none) {
            return match later {
                true => Outcome::Failed,
                false => Outcome::Refused,
            };
        }
        let total = flow.hw.bytes.load(Ordering::Relaxed);
        Outcome::In(Resident {
            flow,
            rules,
            validated,
            epoch: self.rulesets.epoch(),
            ifindices,
            tuples,
            fingerprint: described.fingerprint(),
            rate: Rate::new(total, now_ms(), 0, 1000),
            by_hardware: 0,
            bytes_seen: total,
            health: [0, 1].map(|dir| Health {
                seen: flow.last_seen(dir),
                active: false,
                proven: false,
                binds_late: caps[dir].is_some_and(|caps| caps.bind_rate != 0),
                strikes: 0,
                failures: 0,
                since: now(),
            }),
        })
    }

    /// A flow in hardware whose packets have the same addresses and ports, for engines that look at
    /// nothing else.
    fn alias(&self, tuples: &[u64; 2]) -> Option<usize> {
        if *tuples == [0; 2] {
            return None;
        }
        // A dead one is about to go, and may have been the same connection's.
        self.resident.iter().position(|r| {
            r.tuples.iter().any(|t| *t != 0 && tuples.contains(t)) && r.flow.is_live()
        })
    }

    /// Adds the rule of a direction once more that its engine has lost. False if that cannot be.
    pub(super) fn reinstall(&mut self, resident: &mut Resident, dir: usize) -> bool {
        let flow = resident.flow;
        let Some(slot) = resident.rules.get_mut(dir) else {
            return false;
        };

        if let Some(rule) = slot.take() {
            self.delete(flow, DIRECTIONS[dir], rule, DemoteReason::Lost);
        }
        let health = &mut resident.health[dir];
        health.since = now();
        health.strikes = 0;
        // It has to bind once more.
        health.proven &= !health.binds_late;
        let Ok(described) = flow.describe() else {
            return false;
        };
        if described.is_filtered[dir] {
            return false;
        }
        *slot = self.add(flow, &described, dir).ok();
        if slot.is_none() {
            return false;
        }
        self.counts.lost += 1;
        true
    }

    /// Whether the packets of a direction that are too large for the way out come to software.
    pub(super) fn fits(&self, described: &Described, dir: usize) -> bool {
        let (flow, takes) = (&described.descs[dir], described.ingress_mtu[dir]);

        // What does not fit is for software to cut or to refuse.
        takes <= flow.egress.mtu.into()
            || self.engine(flow.ingress.port.ifindex).is_none_or(|engine| {
                engine.caps(flow.ingress.port.ifindex).fits(
                    takes,
                    &flow.egress,
                    described.port_mtu[dir],
                )
            })
    }

    /// Adds the rule of a direction, or counts why not.
    fn add(&mut self, flow: FlowRef, what: &Described, dir: usize) -> Result<Rule, AddError> {
        let ifindex = what.descs[dir].ingress.port.ifindex;
        let mut said = None;

        self.try_add(what, dir, &mut said)
            .inspect(|(_, engine)| trace::hw_add(flow.ct.get(), DIRECTIONS[dir], ifindex, engine))
            .map(|(rule, _)| rule)
            .inspect_err(|e| self.declined(flow, DIRECTIONS[dir], ifindex, *e, said.as_ref()))
    }

    /// Counts a direction that an engine does not take, and what its driver said.
    fn declined(
        &mut self,
        flow: FlowRef,
        dir: Direction,
        iif: u32,
        e: AddError,
        said: Option<&Said>,
    ) {
        self.counts.declined(e);
        if let Some(device) = self.devices.iter_mut().find(|d| d.ifindex == iif) {
            device.declined += 1;
            device.said = said.copied().or(device.said);
        }
        let said = match (said, e) {
            (Some(said), _) => (said.errno, said.text()),
            (None, AddError::Io(errno)) => (errno, ""),
            (None, _) => (0, ""),
        };

        trace::hw_decline(flow.ct.get(), dir, iif, e.reason(), said);
    }

    /// Adds the rule of a direction. Returns it and the name of its engine.
    fn try_add(
        &mut self,
        described: &Described,
        dir: usize,
        said: &mut Option<Said>,
    ) -> Result<(Rule, &'static str), AddError> {
        let (flow, cookie) = (&described.descs[dir], Cookie(described.cookies[dir]));
        let ifindex = flow.ingress.port.ifindex;
        let device = self.devices.iter().find(|d| d.ifindex == ifindex);
        let engine = match device {
            Some(Device {
                engine: Some(engine),
                ..
            }) => engine.clone(),
            // For the time being.
            Some(Device { busy: Some(_), .. }) => return Err(AddError::Gone),
            _ => return Err(AddError::Unsupported(Unsupported::IngressPort)),
        };
        if !self.fits(described, dir) {
            return Err(AddError::Unsupported(Unsupported::Mtu));
        }
        let rule = engine
            .add(flow, cookie)
            .inspect_err(|_| *said = engine.said(cookie))?;

        self.rules += 1;
        self.counts.added += 1;
        if let Some(device) = self.devices.iter_mut().find(|d| d.ifindex == ifindex) {
            device.added += 1;
        }
        self.room.added(self.rules);
        Ok((rule, engine.name()))
    }
}
