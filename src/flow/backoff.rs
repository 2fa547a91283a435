// SPDX-License-Identifier: GPL-2.0

//! Connections that are not offloaded for about a second, because they could not be added or did
//! not stay where they were.
//!
//! Each packet of a connection that is not offloaded hits the rule that adds it. A new walk along
//! its path costs more than the packet itself, and the answer rarely changes within a second. Where
//! a neighbour or a bridge has yet to answer, the next attempt is after an eighth of that.
//!
//! A connection has a mark of its own, in one of the few slots of its set; the oldest one makes
//! room. So no connection backs off because of another one, and if there are more of them than
//! slots, they are tried more often. Words are changed without a lock: what a race spoils is the
//! hint, for a second at most.

use crate::{
    ffi,
    net::ct::Ct, //
};
use core::sync::atomic::{
    AtomicU32,
    AtomicU8,
    Ordering, //
};
use kernel::prelude::*;
use nft_flow::{
    key::{
        AddrKey,
        Key,
        Seed, //
    },
    reason::SkipReason,
};

/// Slots of a set: one cache line.
const WAYS: usize = 8;
/// Sets: 16 KiB.
const SETS: usize = 256;

/// The low bits of a slot's time: how much counts against the connection, and whether it was
/// refused.
const WEIGHT: u32 = 7;
const REFUSED: u32 = 1 << 3;
const BITS: u32 = WEIGHT | REFUSED;
/// The weight of refusals for reasons that are over soon: such a connection backs off for an eighth
/// of a second.
const PASSING: u32 = WEIGHT - 1;

/// A connection.
struct Slot {
    /// Its mark, 0 for none.
    mark: AtomicU32,
    /// `jiffies`, but for its low bits.
    when: AtomicU32,
}

impl Slot {
    const fn new() -> Self {
        Self {
            mark: AtomicU32::new(0),
            when: AtomicU32::new(0),
        }
    }

    fn age(&self, now: u32) -> u32 {
        (now & !BITS).wrapping_sub(self.when.load(Ordering::Relaxed) & !BITS)
    }

    /// Whether the slot holds a connection that is still remembered.
    fn is_fresh(&self, now: u32) -> bool {
        self.mark.load(Ordering::Relaxed) != 0 && self.age(now) < ffi::HZ
    }
}

#[repr(align(64))]
struct Set([Slot; WAYS]);

/// The memory of a flowtable.
pub(crate) struct Backoff {
    sets: KVec<Set>,
    /// For each slot the index of the reason that it was refused for last. Only for who asks.
    whys: KVec<[AtomicU8; WAYS]>,
    /// `jiffies` of the latest entry: mostly there is none.
    latest: AtomicU32,
    /// The ruleset of the latest entry: another one, with other devices maybe, begins anew.
    ruleset: AtomicU32,
}

impl Backoff {
    /// Makes a memory of no connection.
    pub(super) fn new() -> Result<Self> {
        let mut sets = KVec::with_capacity(SETS, GFP_KERNEL_ACCOUNT)?;

        let mut whys = KVec::with_capacity(SETS, GFP_KERNEL_ACCOUNT)?;

        for _ in 0..SETS {
            sets.push(Set([const { Slot::new() }; WAYS]), GFP_KERNEL_ACCOUNT)?;
            whys.push([const { AtomicU8::new(0) }; WAYS], GFP_KERNEL_ACCOUNT)?;
        }
        Ok(Self {
            sets,
            whys,
            latest: AtomicU32::new(ffi::jiffies32().wrapping_sub(2 * ffi::HZ)),
            ruleset: AtomicU32::new(0),
        })
    }

    /// The set of a connection, and its mark. The memory of an entry is used again: its ports tell
    /// the connections apart.
    fn set(&self, ct: Ct, seed: &Seed) -> (&[Slot], u32) {
        let hash = AddrKey::new(ct.as_ptr() as usize).hash(seed);
        let ports = ct.ports().wrapping_mul(0x9e37_79b1);
        let set = self.sets.get(hash as usize % SETS);

        (
            set.map_or(&[], |set| &set.0),
            (hash.rotate_left(8) ^ ports) | 1,
        )
    }

    /// Remembers a connection: `bits` are a weight, and [`REFUSED`] maybe. By this the weight does
    /// not get above `most`.
    #[cold]
    fn note(&self, ct: Ct, seed: &Seed, bits: u32, most: u32, ruleset: u32) {
        /// Who was refused a moment ago is, as a rule, refused again.
        const REMEMBERED: u32 = 5 * ffi::HZ;

        let now = ffi::jiffies32();
        let (set, mark) = self.set(ct, seed);
        let known = |slot: &&Slot| slot.mark.load(Ordering::Relaxed) == mark;
        let mut bits = bits;

        let slot = match set.iter().find(known) {
            Some(slot) => {
                if slot.is_fresh(now) {
                    let old = slot.when.load(Ordering::Relaxed);
                    let weight = most.min((old & WEIGHT) + (bits & WEIGHT));

                    bits = (old | bits) & REFUSED | weight.max(old & WEIGHT);
                } else if bits & REFUSED != 0
                    && slot.age(now) < REMEMBERED
                    && slot.when.load(Ordering::Relaxed) & REFUSED != 0
                    && self.ruleset.load(Ordering::Relaxed) == ruleset
                {
                    bits = bits & REFUSED | most;
                }
                slot
            }
            None => {
                let age = |slot: &&Slot| match slot.is_fresh(now) {
                    true => slot.age(now),
                    false => u32::MAX,
                };
                let Some(slot) = set.iter().max_by_key(age) else {
                    return;
                };
                slot
            }
        };
        slot.when.store(now & !BITS | bits, Ordering::Relaxed);
        slot.mark.store(mark, Ordering::Release);
        self.latest.store(now, Ordering::Relaxed);
        self.ruleset.store(ruleset, Ordering::Relaxed);
    }

    /// Notes that packets of this connection come in or leave by another path than the one that was
    /// found, or that a table has no room for it just now. With a weight of
    /// [`MISMATCH_LIMIT`](Self::MISMATCH_LIMIT) in a second the connection backs off.
    pub(crate) fn note_route_mismatch(&self, ct: Ct, seed: &Seed, weight: u32, ruleset: u32) {
        self.note(ct, seed, weight.min(WEIGHT), WEIGHT, ruleset);
    }

    /// Notes that a flow of this connection was not added, and why.
    pub(crate) fn refuse(&self, ct: Ct, seed: &Seed, why: SkipReason, ruleset: u32) {
        let (weight, most) = match why {
            // This is over soon: somebody has just been asked for an address, or about a port.
            SkipReason::Neigh | SkipReason::PathClosed | SkipReason::PathChange => (1, PASSING),
            // This may be over with the next packet: bridges have not heard the station yet.
            SkipReason::DeviceNotListed
            | SkipReason::NoMem
            | SkipReason::TableFull
            | SkipReason::FlowtableClosing => (1, Self::MISMATCH_LIMIT),
            _ => (Self::MISMATCH_LIMIT, Self::MISMATCH_LIMIT),
        };

        self.note(ct, seed, weight | REFUSED, most, ruleset);
        if let Some(place) = self.why(ct, seed) {
            place.store(why as u8, Ordering::Relaxed);
        }
    }

    /// Where the reason of a connection is, which must have a slot.
    #[cold]
    fn why(&self, ct: Ct, seed: &Seed) -> Option<&AtomicU8> {
        let hash = AddrKey::new(ct.as_ptr() as usize).hash(seed);
        let (set, mark) = self.set(ct, seed);
        let way = set
            .iter()
            .position(|slot| slot.mark.load(Ordering::Relaxed) == mark)?;

        self.whys.get(hash as usize % SETS)?.get(way)
    }

    /// Why a flow of the connection was not added last, and when, in `jiffies`: as long as there is
    /// room to remember it. A race may show the reason of another connection.
    pub(crate) fn last(&self, ct: Ct, seed: &Seed) -> Option<(SkipReason, u32)> {
        let (set, mark) = self.set(ct, seed);
        let slot = set
            .iter()
            .find(|slot| slot.mark.load(Ordering::Acquire) == mark)?;
        let when = slot.when.load(Ordering::Relaxed);
        let why = match when & REFUSED {
            0 if when & WEIGHT == Self::MISMATCH_LIMIT => SkipReason::RouteUnsettled,
            // One or two are nothing that it would be refused for.
            0 => return None,
            _ => {
                let index = self.why(ct, seed)?.load(Ordering::Relaxed);
                SkipReason::from_index(index.into())?
            }
        };

        Some((why, when & !BITS))
    }

    /// Returns the reason if the connection is not to be offloaded for the time being.
    pub(crate) fn reason(&self, ct: Ct, seed: &Seed, ruleset: u32) -> Option<SkipReason> {
        let now = ffi::jiffies32();

        if now.wrapping_sub(self.latest.load(Ordering::Relaxed)) > ffi::HZ + BITS
            || self.ruleset.load(Ordering::Relaxed) != ruleset
        {
            return None;
        }
        let (set, mark) = self.set(ct, seed);
        let slot = set
            .iter()
            .find(|slot| slot.mark.load(Ordering::Acquire) == mark)?;
        let bits = slot.when.load(Ordering::Relaxed) & BITS;

        let long = match bits & WEIGHT {
            Self::MISMATCH_LIMIT => ffi::HZ,
            PASSING if bits & REFUSED != 0 => ffi::HZ / 8,
            _ => return None,
        };

        if slot.age(now) >= long {
            return None;
        }
        Some(match bits & REFUSED {
            0 => SkipReason::RouteUnsettled,
            _ => SkipReason::AskedLately,
        })
    }

    /// See [`note_route_mismatch`](Self::note_route_mismatch).
    pub(crate) const MISMATCH_LIMIT: u32 = WEIGHT;
}
