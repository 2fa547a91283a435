// SPDX-License-Identifier: GPL-2.0

//! The record of what a packet came in with that is on its way through the ruleset.

use super::{
    SkbMeta,
    NO_RULESET, //
};
use crate::ffi::{
    self,
    c,
    skb::Skb, //
};
use core::sync::atomic::{
    AtomicU32,
    Ordering, //
};

/// How long the first one is waited for, in jiffies. It may be in a queue to userspace.
const PROBE_TIMEOUT: u32 = ffi::HZ / 4;

/// A packet on its way through the ruleset.
#[derive(Clone, Copy)]
pub(crate) struct Probe {
    /// Which packet it is, see `nfo_skb_fingerprint()`.
    pub(crate) fingerprint: u32,
    /// The ruleset that was in force when it came in.
    pub(crate) generation: u32,
    pub(crate) came: SkbMeta,
    /// Its TTL or hop limit.
    pub(crate) ttl: u8,
    /// Bits of [`has`].
    pub(crate) has: u8,
}

impl Probe {
    /// Notes a packet in the ingress hook that has no flow yet: it may be the one that adds it.
    /// `hash`: that of its key.
    pub(crate) fn note(&self, skb: Skb, hash: u32) {
        let noted = c::nfo_probe {
            fingerprint: self.fingerprint,
            hash,
            generation: self.generation,
            mark: self.came.mark,
            priority: self.came.priority,
            dscp: self.came.dscp,
            ttl: self.ttl,
            has: self.has,
        };

        skb.note_probe(&noted);
    }

    /// Returns what was noted of the packet with this fingerprint, if its key had this hash.
    pub(crate) fn noted(fingerprint: u32, hash: u32) -> Option<Self> {
        let mut noted = c::nfo_probe {
            fingerprint: 0,
            hash: 0,
            generation: NO_RULESET,
            mark: 0,
            priority: 0,
            dscp: 0,
            ttl: 0,
            has: 0,
        };

        ffi::probe_noted(fingerprint, hash, &mut noted).then_some(Self {
            fingerprint,
            generation: noted.generation,
            came: SkbMeta {
                dscp: noted.dscp,
                mark: noted.mark,
                priority: noted.priority,
            },
            ttl: noted.ttl,
            has: noted.has,
        })
    }
}

/// Bits of [`Probe::has`].
pub(crate) mod has {
    /// It has come to the rule that adds the flow.
    pub(crate) const MET: u8 = 1 << 0;
    /// UDP with a checksum.
    pub(crate) const CHECKSUM: u8 = 1 << 1;
    /// IPv4 that must not be fragmented.
    pub(crate) const DONT_FRAGMENT: u8 = 1 << 2;
}

/// A [`Probe`] in memory, which is free if its fingerprint is 0.
#[derive(Default)]
pub(super) struct ProbeCell {
    pub(super) fingerprint: AtomicU32,
    generation: AtomicU32,
    mark: AtomicU32,
    priority: AtomicU32,
    /// DSCP, TTL, [`has`], and `jiffies` when it was recorded, a byte each.
    pub(super) rest: AtomicU32,
}

impl ProbeCell {
    pub(super) fn get(&self) -> Option<Probe> {
        let fingerprint = self.fingerprint.load(Ordering::Relaxed);
        let [dscp, ttl, has, _] = self.rest.load(Ordering::Relaxed).to_ne_bytes();

        (fingerprint != 0).then(|| Probe {
            fingerprint,
            generation: self.generation.load(Ordering::Relaxed),
            came: SkbMeta {
                dscp,
                mark: self.mark.load(Ordering::Relaxed),
                priority: self.priority.load(Ordering::Relaxed),
            },
            ttl,
            has,
        })
    }

    pub(super) fn set(&self, probe: &Probe, now: u8) {
        self.fingerprint.store(probe.fingerprint, Ordering::Relaxed);
        self.generation.store(probe.generation, Ordering::Relaxed);
        self.mark.store(probe.came.mark, Ordering::Relaxed);
        self.priority.store(probe.came.priority, Ordering::Relaxed);
        self.rest.store(
            u32::from_ne_bytes([probe.came.dscp, probe.ttl, probe.has, now]),
            Ordering::Relaxed,
        );
    }

    /// Whether a packet that was sent to this ruleset is still waited for.
    pub(super) fn is_awaited(&self, generation: u32, now: u8) -> bool {
        const STEPS: u8 = (PROBE_TIMEOUT / TICK) as u8;
        let [.., then] = self.rest.load(Ordering::Relaxed).to_ne_bytes();

        self.fingerprint.load(Ordering::Relaxed) != 0
            && self.generation.load(Ordering::Relaxed) == generation
            && now.wrapping_sub(then) <= STEPS
    }
}

/// In these units the age of a probe is counted, in jiffies.
pub(super) const TICK: u32 = if PROBE_TIMEOUT >= 16 {
    PROBE_TIMEOUT / 16
} else {
    1
};
