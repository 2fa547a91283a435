// SPDX-License-Identifier: GPL-2.0

//! Priority, mark and DSCP: fast packets leave with what the ruleset would give them, so that
//! queueing disciplines and classifiers see what they would see without a flowtable.
//!
//! Rules may look at a packet's DSCP, mark and priority. So there is one answer for each
//! combination of these that packets of a direction come in with: what packets have that the
//! ruleset has accepted. A packet with a new combination takes the slow path. Most directions have
//! one answer, which changes nothing, and all their packets one DSCP and neither mark nor priority:
//! the packet path compares that with one word of the [`Entry`](crate::flow::entry::Entry).
//!
//! - The mark is what the ruleset made of a packet that came in with this mark.
//! - So is the priority, unless it is the one that forwarding gives every IPv4 packet by its type
//!   of service: then each packet has its own, and its priority at ingress does not count.
//! - The DSCP is left alone, unless the module's parameter `dscp` says "restore" and the ruleset
//!   has changed it.
//!
//! Packets come in batches, and some are dropped or wait in a queue. A [`Probe`], the record of a
//! packet that was sent to the ruleset, says whose answer it is; only such packets teach anything.

mod probe;

use crate::{
    ffi::{
        self,
        skb::Skb, //
    },
    flow::table_ref::TableRef,
    net::{
        family::Family,
        packet::StackPkt, //
    }, //
};
use core::sync::atomic::{
    fence,
    AtomicU32,
    Ordering, //
};

use probe::{
    ProbeCell,
    TICK, //
};

pub(crate) use probe::{
    has,
    Probe, //
};

/// A ruleset that is none: nf_tables' sequence numbers leave 0 out.
pub(crate) const NO_RULESET: u32 = 0;

/// Answers of a direction. Packets with further ones stay on the slow path.
const ANSWERS: usize = 4;
/// Packets of a direction that are remembered on their way through the ruleset: one until it has
/// passed, and the latest one, in case the first has been dropped.
const PROBES: usize = 2;

/// The upper six bits of a type of service.
const DSCP: u8 = 0xfc;

/// The fields of a packet that rules may set: DSCP, in the upper six bits, mark and priority.
#[derive(Clone, Copy)]
pub(crate) struct SkbMeta {
    dscp: u8,
    mark: u32,
    priority: u32,
}

impl SkbMeta {
    /// Reads the fields of a packet at ingress, as far as rules may have looked at it.
    pub(crate) fn at_ingress(skb: Skb, ds_field: u8, by_tos: bool) -> Self {
        Self {
            dscp: ds_field & DSCP,
            mark: skb.mark(),
            priority: match by_tos {
                true => 0,
                // VLAN devices make a priority of the tag's.
                false => skb.priority() ^ (u32::from(skb.vlan_pcp()) << 28),
            },
        }
    }

    /// Reads the fields of a packet in a hook of IPv4 or IPv6.
    pub(crate) fn of(pkt: StackPkt<'_>) -> Self {
        let [a, b] = pkt.header().first_chunk().copied().unwrap_or_default();
        let ds_field = if a >> 4 == 4 { b } else { (a << 4) | (b >> 4) };
        let (mark, priority) = pkt.mark_and_priority();

        Self {
            dscp: ds_field & DSCP,
            mark,
            priority,
        }
    }
}

/// In [`Change::how`]: priorities follow the type of service.
const BY_TOS: u32 = 1 << 8;
/// In [`Change::how`]: the low byte is the DSCP that packets get.
const SET: u32 = 1 << 9;
/// Of an answer: the packet has come to the rule that adds the flow.
const MET: u32 = 1 << 10;

/// What the ruleset changes in packets that come in with certain fields.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    mark: u32,
    /// 0 if it follows the type of service.
    priority: u32,
    /// [`BY_TOS`], [`SET`] and a DSCP.
    how: u32,
}

impl Change {
    /// Makes the change from the fields that a packet came in and left with.
    fn new(came: SkbMeta, left: SkbMeta, by_tos: bool) -> Self {
        let mut how = 0;

        if by_tos && left.priority == u32::from(ffi::tos2priority(came.dscp)) {
            how |= BY_TOS;
        }
        if left.dscp != came.dscp && ffi::dscp_restored() {
            how |= SET | u32::from(left.dscp);
        }
        Self {
            mark: left.mark,
            priority: match how & BY_TOS {
                0 => left.priority,
                _ => 0,
            },
            how,
        }
    }

    /// The priority of a packet with this DSCP.
    fn priority(&self, dscp: u8) -> u32 {
        match self.how & BY_TOS {
            0 => self.priority,
            _ => ffi::tos2priority(dscp).into(),
        }
    }

    fn dscp(&self) -> Option<u8> {
        (self.how & SET != 0).then_some(self.how as u8)
    }

    /// Whether a packet that came in with neither mark nor priority leaves as it came.
    fn is_none(&self, came: SkbMeta) -> bool {
        came.mark | came.priority | self.mark | self.priority(came.dscp) == 0
            && self.dscp().is_none()
    }

    /// Makes a rewritten packet look like those that have passed the ruleset.
    #[inline(never)]
    pub(crate) fn restore<F: Family>(&self, skb: Skb) {
        // SAFETY: The hook has made the IP header writable, and has no slice of the packet any
        // more.
        let hdr = unsafe { skb.head_mut() };

        skb.set_priority(self.priority(F::ds_field(hdr)));
        skb.set_mark(self.mark);
        if let Some(dscp) = self.dscp() {
            F::set_dscp(hdr, dscp);
        }
    }
}

/// What packets leave with that come in with this mark, this priority and one of these DSCPs.
#[derive(Default)]
struct Answer {
    /// A bit for each DSCP. None: the place is free.
    dscps: [AtomicU32; 2],
    came_mark: AtomicU32,
    came_priority: AtomicU32,
    mark: AtomicU32,
    priority: AtomicU32,
    /// [`Change::how`], and [`MET`].
    how: AtomicU32,
}

impl Answer {
    fn is_free(&self) -> bool {
        self.dscps
            .iter()
            .all(|word| word.load(Ordering::Relaxed) == 0)
    }

    /// The word of a DSCP, and its bit.
    fn bit(&self, dscp: u8) -> (&AtomicU32, u32) {
        let [low, high] = &self.dscps;
        let word = if dscp & 0x80 == 0 { low } else { high };

        (word, 1_u32.wrapping_shl(u32::from(dscp) >> 2))
    }

    fn has_dscp(&self, dscp: u8) -> bool {
        let (word, bit) = self.bit(dscp);

        word.load(Ordering::Relaxed) & bit != 0
    }

    fn is_for(&self, mark: u32, priority: u32) -> bool {
        self.came_mark.load(Ordering::Relaxed) == mark
            && self.came_priority.load(Ordering::Relaxed) == priority
    }

    fn change(&self) -> Change {
        Change {
            mark: self.mark.load(Ordering::Relaxed),
            priority: self.priority.load(Ordering::Relaxed),
            how: self.how.load(Ordering::Relaxed) & !MET,
        }
    }

    fn is_met(&self) -> bool {
        self.how.load(Ordering::Relaxed) & MET != 0
    }

    fn free(&self) {
        for word in &self.dscps {
            word.store(0, Ordering::Relaxed);
        }
    }
}

/// The result of [`Qos::lookup`].
pub(crate) enum Lookup {
    /// The ruleset has seen no packet of the direction.
    Nothing,
    /// The ruleset has seen others, but none like this. True: there is no room for more answers.
    Others(bool),
    /// What packets leave with. True: nothing is changed in packets with this DSCP and neither mark
    /// nor priority.
    Answer(Change, bool),
}

/// What the ruleset makes of mark, priority and DSCP of a direction.
///
/// Readers take what they read as it was at one time, or do without (see [`Qos::read`]). A writer
/// that meets another one, in whatever context, does without as well: there will be other packets.
#[derive(Default)]
pub(crate) struct Qos {
    /// Odd while somebody writes.
    version: AtomicU32,
    /// The ruleset whose answers there are; [`NO_RULESET`] if none.
    generation: AtomicU32,
    /// Mark and labels of the conntrack entry when it answered.
    marks: AtomicU32,
    answers: [Answer; ANSWERS],
    probes: [ProbeCell; PROBES],
}

impl Qos {
    /// Runs `f`, which reads. [`None`] if somebody wrote meanwhile.
    fn read<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        let version = self.version.load(Ordering::Acquire);
        if version & 1 != 0 {
            return None;
        }
        let result = f();

        fence(Ordering::Acquire);
        (self.version.load(Ordering::Relaxed) == version).then_some(result)
    }

    /// Runs `f`, which writes. [`None`], and not run, if somebody else writes.
    fn write<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        let version = self.version.load(Ordering::Relaxed);
        let odd = version.wrapping_add(1);

        if version & 1 != 0
            || self
                .version
                .compare_exchange(version, odd, Ordering::Acquire, Ordering::Relaxed)
                .is_err()
        {
            return None;
        }
        fence(Ordering::Release);
        let result = f();

        self.version.store(odd.wrapping_add(1), Ordering::Release);
        Some(result)
    }

    /// Whether this generation of the ruleset has accepted a packet of the direction.
    pub(crate) fn gen_matches(&self, generation: u32) -> bool {
        self.generation.load(Ordering::Relaxed) == generation && generation != NO_RULESET
    }

    /// The ruleset that has accepted packets of the direction last; [`NO_RULESET`] if none has.
    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Looks up what ruleset `generation` makes of packets with these fields.
    pub(crate) fn lookup(&self, generation: u32, came: SkbMeta) -> Lookup {
        if !self.gen_matches(generation) {
            return Lookup::Nothing;
        }
        let found = self.read(|| {
            if !self.gen_matches(generation) {
                return Lookup::Nothing;
            }
            self.answers
                .iter()
                .find(|a| a.has_dscp(came.dscp) && a.is_for(came.mark, came.priority))
                .map_or_else(
                    || Lookup::Others(self.answers.iter().all(|a| !a.is_free())),
                    |a| {
                        let change = a.change();
                        Lookup::Answer(change, change.is_none(came))
                    },
                )
        });
        found.unwrap_or(Lookup::Others(false))
    }

    /// A packet goes to the ruleset.
    pub(crate) fn add_probe(&self, probe: &Probe) {
        let now = (ffi::jiffies32() / TICK) as u8;

        self.write(|| {
            let [first, latest] = &self.probes;

            match first.is_awaited(probe.generation, now) {
                true => latest.set(probe, now),
                false => first.set(probe, now),
            }
        });
    }

    /// Whether a packet with this fingerprint is on its way through the ruleset.
    fn is_awaited(&self, fingerprint: u32) -> bool {
        self.probes
            .iter()
            .any(|cell| cell.fingerprint.load(Ordering::Relaxed) == fingerprint)
    }

    /// Notes that the packet with this fingerprint has hit the rule that adds the flow. Returns
    /// whether it was one that was sent to ruleset `generation`.
    pub(crate) fn rule_hit(&self, fingerprint: u32, generation: u32) -> bool {
        if !self.is_awaited(fingerprint) {
            return false;
        }
        self.write(|| {
            self.probes.iter().any(|cell| {
                let probe = cell
                    .get()
                    .filter(|p| p.fingerprint == fingerprint && p.generation == generation);

                if probe.is_some() {
                    let met = u32::from_ne_bytes([0, 0, has::MET, 0]);
                    cell.rest.fetch_or(met, Ordering::Relaxed);
                }
                probe.is_some()
            })
        })
        .unwrap_or(false)
    }

    /// Returns the record of the packet with this fingerprint, which has passed the ruleset.
    pub(crate) fn take_probe(&self, fingerprint: u32) -> Option<Probe> {
        if !self.is_awaited(fingerprint) {
            return None;
        }
        self.write(|| {
            let cell = self
                .probes
                .iter()
                .find(|cell| cell.fingerprint.load(Ordering::Relaxed) == fingerprint)?;
            let probe = cell.get();

            cell.fingerprint.store(0, Ordering::Relaxed);
            probe
        })
        .flatten()
    }

    /// Adds the answer for packets like `probe`: the ruleset has accepted it, and it left with the
    /// fields `left`. `by_tos`: forwarding sets priorities. `marks`: those of the conntrack entry.
    pub(crate) fn add_answer(&self, probe: &Probe, left: SkbMeta, by_tos: bool, marks: u32) {
        let SkbMeta {
            dscp,
            mark,
            priority,
        } = probe.came;
        let change = Change::new(probe.came, left, by_tos);
        let met = probe.has & has::MET != 0;

        self.write(|| {
            if self.generation.load(Ordering::Relaxed) != probe.generation {
                self.answers.iter().for_each(Answer::free);
            }
            // Some come to the rule and others do not: those are not to be fast.
            let answers = || self.answers.iter().filter(|a| !a.is_free());
            if !met && answers().any(Answer::is_met) {
                return;
            }
            answers()
                .filter(|a| met && !a.is_met())
                .for_each(Answer::free);
            // The latest answer counts.
            for answer in answers().filter(|a| a.is_for(mark, priority)) {
                let (word, bit) = answer.bit(dscp);
                word.fetch_and(!bit, Ordering::Relaxed);
            }
            let place = answers()
                .find(|a| a.is_for(mark, priority) && a.change() == change)
                .or_else(|| self.answers.iter().find(|a| a.is_free()));
            if let Some(answer) = place {
                let (word, bit) = answer.bit(dscp);

                word.fetch_or(bit, Ordering::Relaxed);
                answer.came_mark.store(mark, Ordering::Relaxed);
                answer.came_priority.store(priority, Ordering::Relaxed);
                answer.mark.store(change.mark, Ordering::Relaxed);
                answer.priority.store(change.priority, Ordering::Relaxed);
                let how = change.how | if met { MET } else { 0 };
                answer.how.store(how, Ordering::Relaxed);
            }
            self.marks.store(marks, Ordering::Relaxed);
            self.generation.store(probe.generation, Ordering::Relaxed);
        });
    }

    /// Whether the ruleset has answered under other marks of the conntrack entry than these.
    pub(crate) fn is_outdated(&self, marks: u32) -> bool {
        self.generation.load(Ordering::Relaxed) != NO_RULESET
            && self.marks.load(Ordering::Relaxed) != marks
    }

    /// Forgets the answers of the ruleset, and packets that are on their way through it. False, and
    /// nothing is forgotten, if somebody else writes.
    pub(crate) fn clear(&self) -> bool {
        self.write(|| {
            self.generation.store(NO_RULESET, Ordering::Relaxed);
            for probe in &self.probes {
                probe.fingerprint.store(0, Ordering::Relaxed);
            }
        })
        .is_some()
    }

    /// Whether packets come in with several combinations of mark, priority and DSCP.
    pub(crate) fn has_several(&self) -> bool {
        self.answers
            .iter()
            .flat_map(|a| &a.dscps)
            .map(|word| word.load(Ordering::Relaxed).count_ones())
            .sum::<u32>()
            > 1
    }
}

/// What hardware does to all packets of a direction alike.
pub(crate) struct Uniform {
    /// The priority, if it is the same for all.
    pub(crate) priority: Option<u32>,
    /// The DSCP that they get, if it is restored.
    pub(crate) dscp: Option<u8>,
}

/// Why packets of a direction cannot be treated alike.
pub(crate) enum Diverse {
    /// They get different DSCPs.
    Dscp,
    /// They get different marks or priorities.
    Mark,
    /// It is being learnt just now.
    Busy,
}

impl Qos {
    /// Returns what the ruleset makes of all packets of the direction, as far as they have passed
    /// the ruleset.
    pub(crate) fn for_hardware(&self) -> Result<Uniform, Diverse> {
        self.read(|| {
            let mut answers = self.answers.iter().filter(|a| !a.is_free());
            let Some(first) = answers.next() else {
                return Ok(Uniform {
                    priority: Some(0),
                    dscp: None,
                });
            };
            let change = first.change();

            for other in answers.map(Answer::change) {
                if other.dscp() != change.dscp() {
                    return Err(Diverse::Dscp);
                }
                if other != change {
                    return Err(Diverse::Mark);
                }
            }
            // One is enough where it does not depend on the DSCP.
            let mut priorities = (0..64_u8)
                .map(|n| n << 2)
                .filter(|dscp| self.answers.iter().any(|a| a.has_dscp(*dscp)))
                .take(if change.how & BY_TOS == 0 { 1 } else { 64 })
                .map(|dscp| change.priority(dscp));
            let priority = priorities.next();

            Ok(Uniform {
                priority: priority.filter(|p| priorities.all(|other| other == *p)),
                dscp: change.dscp().map(|dscp| dscp >> 2),
            })
        })
        .unwrap_or(Err(Diverse::Busy))
    }
}

/// Whether forwarding sets the priority of packets of this family in the flowtable's namespace
/// (`ip_forward_update_priority`).
pub(crate) fn is_by_tos<F: Family>(table: &TableRef) -> bool {
    F::NFPROTO == crate::net::family::V4::NFPROTO && table.net().priority_by_tos()
}
