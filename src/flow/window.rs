// SPDX-License-Identifier: GPL-2.0

//! How far each direction of a TCP connection has got, as the packet path sees it.
//!
//! One word per direction, so that a packet costs a comparison and at most one store: the sequence
//! number after the last byte that was sent. What a receiver may have offered at most is known from
//! its window scale, and says how far around that number packets of the connection can be. It is
//! not the window itself, which only an exact account of both directions would give; but somebody
//! who cannot see the connection has to guess that number as well.

use crate::sync::{
    AtomicU32,
    Ordering, //
};

/// How far around the last byte that was sent packets of a direction may be: a power of two.
///
/// # Invariants
///
/// The exponent is at least 16 and at most 30.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Reach(u8);

impl Reach {
    /// When nothing is known of the receiver: half of all sequence numbers.
    pub const UNKNOWN: Self = Reach(30);

    /// When the receiver multiplies its 16-bit window by two, `scale` times.
    #[inline]
    pub const fn from_scale(scale: u8) -> Self {
        match scale {
            // INVARIANT: 16 to 30.
            0..=14 => Reach(16 + scale),
            _ => Self::UNKNOWN,
        }
    }

    /// The distance.
    #[inline]
    pub const fn bytes(self) -> u32 {
        1_u32.wrapping_shl(self.0 as u32)
    }

    /// Is `seq` within reach of `base`, to either side?
    #[inline(always)]
    pub const fn holds(self, base: u32, seq: u32) -> bool {
        // From 0 to twice the distance, which is at most 2^31.
        let above = seq.wrapping_sub(base).wrapping_add(self.bytes());

        above.wrapping_shr(self.0 as u32 + 1) == 0
    }
}

/// Is `a` later than `b`?
#[inline(always)]
pub const fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

/// The sequence number after the last byte that was sent in a direction.
#[derive(Debug)]
#[repr(transparent)]
pub struct Sent(AtomicU32);

impl Sent {
    /// Nothing is known but this number.
    #[cfg(not(loom))]
    pub const fn new(end: u32) -> Self {
        Sent(AtomicU32::new(end))
    }

    /// The number.
    #[inline(always)]
    pub fn end(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Exchanges the number, for one that somebody else knows to be right.
    pub fn set(&self, end: u32) {
        self.0.store(end, Ordering::Relaxed);
    }

    /// Notes a packet whose last byte is the one before `end`; false, and nothing is noted, if it is
    /// out of reach.
    #[inline(always)]
    pub fn note(&self, end: u32, reach: Reach) -> bool {
        let last = self.end();

        if !reach.holds(last, end) {
            return false;
        }
        // Two packets at once may leave the lower number: it is within reach of the other.
        if after(end, last) {
            self.set(end);
        }
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reaches() {
        for scale in 0..=255 {
            let bytes = Reach::from_scale(scale).bytes();
            assert!(bytes > 65535 << scale.min(14) || scale > 14);
            assert!(bytes.is_power_of_two() && bytes <= Reach::UNKNOWN.bytes());
        }
        assert_eq!(Reach::from_scale(0).bytes(), 65536);
        assert_eq!(Reach::from_scale(14), Reach::UNKNOWN);
    }

    #[test]
    fn around_zero() {
        let sent = Sent::new(u32::MAX - 9);
        let reach = Reach::from_scale(0);
        assert!(sent.note(90, reach));
        assert_eq!(sent.end(), 90);
        // A retransmission counts as seen, and takes nothing back.
        assert!(sent.note(u32::MAX, reach));
        assert_eq!(sent.end(), 90);
        assert!(!sent.note(90 + 65536, reach) && sent.note(90 + 65535, reach));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn distance(base in any::<u32>(), seq in any::<u32>(), scale in 0_u8..=16) {
            let reach = Reach::from_scale(scale);
            let ahead = i64::from(seq.wrapping_sub(base) as i32);
            let bytes = i64::from(reach.bytes());
            prop_assert_eq!(reach.holds(base, seq), (-bytes..bytes).contains(&ahead));

            let sent = Sent::new(base);
            let noted = sent.note(seq, reach);
            prop_assert_eq!(noted, reach.holds(base, seq));
            let end = if noted && ahead > 0 { seq } else { base };
            prop_assert_eq!(sent.end(), end);
        }

        /// A stream, with losses before us, reordering and retransmissions, is always in reach.
        #[test]
        fn stream(start in any::<u32>(), scale in 0_u8..=14, steps in prop::collection::vec((0_u32..65536, 0_u32..65536), 1..50)) {
            let (sent, reach) = (Sent::new(start), Reach::from_scale(scale));
            let mut acked = start;
            for (to, ack) in steps {
                // Anything that the window allows after what is acknowledged, and a keepalive.
                let end = acked.wrapping_add((to << scale).min(65535 << scale));
                prop_assert!(sent.note(end, reach));
                prop_assert!(sent.note(acked.wrapping_sub(1), reach));
                let room = sent.end().wrapping_sub(acked);
                acked = acked.wrapping_add(if room == 0 { 0 } else { ack % room });
            }
        }
    }
}
