// SPDX-License-Identifier: GPL-2.0

//! How far each direction of a TCP connection has got, as the packet path sees it.
//!
//! One word per direction ([`MaxEnd`]): the sequence number after the last byte that was sent. A
//! segment moves it if it starts exactly there, which costs a comparison and a store; who makes
//! segments up has to guess that number. Every other segment is looked at more closely, off the
//! common path, by what is known besides ([`PeerState`]): the largest window that each side has
//! offered and the highest number that it has acknowledged. These are read from some segments only,
//! and so at most what connection tracking would know that has seen them all. By them a segment
//! that is ahead, because others were lost before us, moves the word as well ([`is_ahead`]), with
//! the same demands on its numbers that connection tracking has.

use crate::sync::{
    AtomicBool,
    AtomicU32,
    Ordering, //
};

/// What connection tracking takes for the least window in which an acknowledgement may lag behind
/// (`MAXACKWINCONST`, net/netfilter/nf_conntrack_proto_tcp.c).
const ACK_WINDOW: u32 = 66000;
/// The largest window.
const MAX_WINDOW: u32 = 1 << 30;

/// The numbers of a TCP segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Of the first byte.
    pub seq: u32,
    /// After the last byte; a FIN counts where connection tracking has accepted it.
    pub end: u32,
    /// What it acknowledges, if anything.
    pub ack: Option<u32>,
    /// The window field.
    pub window: u16,
}

/// The window around the last byte that was sent, within which packets of a direction may be: a
/// power of two.
///
/// # Invariants
///
/// The exponent is at least 16 and at most 30.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Window(u8);

impl Window {
    /// The window when nothing is known of the receiver: half of all sequence numbers.
    pub const UNKNOWN: Self = Window(30);

    /// The window of a receiver that multiplies its 16-bit window by two, `scale` times.
    #[inline]
    pub const fn from_scale(scale: u8) -> Self {
        match scale {
            // INVARIANT: 16 to 30.
            0..=14 => Window(16 + scale),
            _ => Self::UNKNOWN,
        }
    }

    /// The distance.
    #[inline]
    pub const fn bytes(self) -> u32 {
        1_u32.wrapping_shl(self.0 as u32)
    }

    /// Whether `seq` is within the window around `base`, to either side.
    #[inline(always)]
    pub const fn contains(self, base: u32, seq: u32) -> bool {
        // From 0 to twice the distance, which is at most 2^31.
        let above = seq.wrapping_sub(base).wrapping_add(self.bytes());

        above.wrapping_shr(self.0 as u32 + 1) == 0
    }
}

/// Whether sequence number `a` is after `b` (`after()`).
#[inline(always)]
pub const fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

/// The sequence number after the last byte that was sent in a direction.
#[derive(Debug)]
#[repr(transparent)]
pub struct MaxEnd(AtomicU32);

impl MaxEnd {
    /// Makes a state of which nothing is known but this number.
    #[cfg(not(loom))]
    pub const fn new(end: u32) -> Self {
        MaxEnd(AtomicU32::new(end))
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

    /// Notes a segment, if it starts where the last one has ended; otherwise false, and nothing is
    /// noted.
    #[inline(always)]
    pub fn follow(&self, seq: u32, end: u32) -> bool {
        if self.end() != seq {
            return false;
        }
        // Acknowledgements leave the cache line alone.
        if end != seq {
            self.set(end);
        }
        true
    }
}

/// The state of one side of a connection besides what it has sent: `td_maxwin` and `td_maxack` of
/// conntrack. It is sampled from some segments, hence never more than connection tracking would
/// know.
#[derive(Debug)]
pub struct PeerState {
    maxwin: AtomicU32,
    maxack: AtomicU32,
    scale: u8,
    sampled: AtomicBool,
}

impl PeerState {
    /// A side that has offered windows of up to `maxwin` bytes, scales the ones to come by two,
    /// `scale` times, and has acknowledged everything before `maxack`.
    #[cfg(not(loom))]
    pub const fn new(maxwin: u32, maxack: u32, scale: u8) -> Self {
        Self {
            maxwin: AtomicU32::new(Self::bounded(maxwin)),
            maxack: AtomicU32::new(maxack),
            scale: if scale < 14 { scale } else { 14 },
            sampled: AtomicBool::new(false),
        }
    }

    const fn bounded(maxwin: u32) -> u32 {
        match maxwin {
            0 => 1,
            1..=MAX_WINDOW => maxwin,
            _ => MAX_WINDOW,
        }
    }

    /// The largest window that it has offered, in bytes.
    pub fn maxwin(&self) -> u32 {
        self.maxwin.load(Ordering::Relaxed)
    }

    /// The highest number that it has acknowledged.
    pub fn maxack(&self) -> u32 {
        self.maxack.load(Ordering::Relaxed)
    }

    /// Whether any segment has been sampled.
    pub fn is_sampled(&self) -> bool {
        self.sampled.load(Ordering::Relaxed)
    }

    /// The window that a segment of this side offers, in bytes.
    pub fn window(&self, segment: &Segment) -> u32 {
        Self::bounded(u32::from(segment.window).wrapping_shl(self.scale.into()))
    }

    /// Whether this side may acknowledge `ack`, given how far the other side has got.
    pub fn may_acknowledge(&self, ack: u32, other: u32) -> bool {
        other.wrapping_sub(ack) <= self.maxwin().max(ACK_WINDOW)
    }

    /// Learns from a segment of this side whose number was exact; `other` is how far the other side
    /// has got.
    pub fn learn(&self, segment: &Segment, other: u32) {
        let Some(ack) = segment.ack.filter(|ack| self.may_acknowledge(*ack, other)) else {
            return;
        };

        if after(ack, self.maxack()) {
            self.maxack.store(ack, Ordering::Relaxed);
        }
        self.maxwin
            .fetch_max(self.window(segment), Ordering::Relaxed);
        self.sampled.store(true, Ordering::Relaxed);
    }
}

/// Whether a segment that does not start at `max_end` belongs to the connection all the same, and
/// is ahead. `receiver` has offered room where it starts, and its sender acknowledges what
/// `receiver`, which has got to `other`, may have sent: the same conditions as connection
/// tracking's.
pub fn is_ahead(
    segment: &Segment,
    max_end: u32,
    sender: &PeerState,
    receiver: &PeerState,
    other: u32,
) -> bool {
    after(segment.end, max_end)
        && !after(segment.seq, max_end.wrapping_add(receiver.maxwin()))
        && segment
            .ack
            .is_some_and(|ack| sender.may_acknowledge(ack, other))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reaches() {
        for scale in 0..=255 {
            let bytes = Window::from_scale(scale).bytes();
            assert!(bytes > 65535 << scale.min(14) || scale > 14);
            assert!(bytes.is_power_of_two() && bytes <= Window::UNKNOWN.bytes());
        }
        assert_eq!(Window::from_scale(0).bytes(), 65536);
        assert_eq!(Window::from_scale(14), Window::UNKNOWN);
    }

    fn segment(seq: u32, len: u32, ack: u32) -> Segment {
        Segment {
            seq,
            end: seq.wrapping_add(len),
            ack: Some(ack),
            window: 512,
        }
    }

    #[test]
    fn follows() {
        let max_end = MaxEnd::new(u32::MAX - 9);
        assert!(max_end.follow(u32::MAX - 9, 90));
        assert_eq!(max_end.end(), 90);
        // An acknowledgement, and what does not start there.
        assert!(max_end.follow(90, 90));
        assert!(
            !max_end.follow(89, 91) && !max_end.follow(91, 92) && !max_end.follow(u32::MAX - 9, 90)
        );
        assert_eq!(max_end.end(), 90);
    }

    #[test]
    fn ahead() {
        let (sender, receiver) = (PeerState::new(65535, 0, 7), PeerState::new(65535, 0, 0));
        let ok = |seq, len, ack| is_ahead(&segment(seq, len, ack), 1000, &sender, &receiver, 500);
        assert!(ok(2000, 100, 500) && ok(900, 101, 500));
        assert!(!ok(900, 100, 500) && !ok(900, 50, 500));
        // Where the receiver may have room, and the most that it can have said.
        assert!(ok(1000 + 65535, 100, 500) && !ok(1001 + 65535, 100, 500));
        assert!(ok(2000, 100, 500_u32.wrapping_sub(66000)));
        assert!(!ok(2000, 100, 501) && !ok(2000, 100, 500_u32.wrapping_sub(66001)));
    }

    #[test]
    fn learns() {
        let peer = PeerState::new(0, 100, 7);
        assert_eq!(
            (peer.maxwin(), peer.maxack(), peer.is_sampled()),
            (1, 100, false)
        );
        // Of what was not sent yet nothing is believed.
        peer.learn(&segment(0, 0, 301), 300);
        assert!(!peer.is_sampled());
        peer.learn(&segment(0, 0, 300), 300);
        assert_eq!(
            (peer.maxwin(), peer.maxack(), peer.is_sampled()),
            (65536, 300, true)
        );
        peer.learn(&segment(0, 0, 200), 300);
        assert_eq!((peer.maxwin(), peer.maxack()), (65536, 300));
        assert_eq!(PeerState::new(u32::MAX, 0, 255).maxwin(), MAX_WINDOW);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn distance(base in any::<u32>(), seq in any::<u32>(), scale in 0_u8..=16) {
            let window = Window::from_scale(scale);
            let ahead = i64::from(seq.wrapping_sub(base) as i32);
            let bytes = i64::from(window.bytes());
            prop_assert_eq!(window.contains(base, seq), (-bytes..bytes).contains(&ahead));
        }

        /// Segments may be lost before us, and come again: as long as the window allows what was
        /// sent, the word is where the sender has got to.
        #[test]
        fn stream(start in any::<u32>(), scale in 0_u8..=14, steps in prop::collection::vec((1_u32..65536, any::<bool>(), 0_u32..65536), 1..50)) {
            let receiver = PeerState::new(65535 << scale, start, scale);
            let sender = PeerState::new(65535, 0, 0);
            let max_end = MaxEnd::new(start);
            let (mut maxack, mut end) = (start, start);
            for (len, lost, ack) in steps {
                let room = (65535_u32 << scale).wrapping_sub(end.wrapping_sub(maxack));
                let s = Segment { seq: end, end: end.wrapping_add(len.min(room)), ack: Some(7), window: 1 };
                end = s.end;
                if !lost {
                    prop_assert!(s.seq == s.end
                        || max_end.follow(s.seq, s.end)
                        || is_ahead(&s, max_end.end(), &sender, &receiver, 7));
                    max_end.set(end);
                }
                // What was lost came again, and filled the gap.
                if ack % 4 == 0 {
                    max_end.set(end);
                }
                let done = max_end.end().wrapping_sub(maxack);
                maxack = maxack.wrapping_add(if done == 0 { 0 } else { ack % done });
            }
        }
    }
}
