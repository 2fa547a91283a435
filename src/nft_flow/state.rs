// SPDX-License-Identifier: GPL-2.0

//! The life of a flow in one word: active or dead.

use crate::reason::TeardownReason;
use crate::sync::{
    AtomicU32,
    Ordering, //
};

/// The reason of a dead flow, as its index.
const REASON_MASK: u32 = 0xff;
const DEAD: u32 = 1 << 8;

/// The state of a flow, shared by its two directions and by every CPU.
///
/// Zeroed memory is an active flow. Death is final. The accesses are relaxed, except that a thread
/// which sees a flow dead also sees what the killer wrote before: that packets have stopped using
/// a flow is established by a grace period, not by this word.
///
/// # Invariants
///
/// - If `DEAD` is set, the low byte is the index of a [`TeardownReason`], and neither changes
///   again.
/// - If `DEAD` is clear, the low byte is zero.
#[derive(Debug)]
#[repr(transparent)]
pub struct FlowState(AtomicU32);

impl FlowState {
    /// A new, active flow.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        // INVARIANT: Neither `DEAD` nor a reason.
        FlowState(AtomicU32::new(0))
    }

    /// A new, active flow.
    #[cfg(loom)]
    pub fn new() -> Self {
        FlowState(AtomicU32::new(0))
    }

    /// Whether packets may be forwarded by the flow: not dead. One load.
    #[inline]
    pub fn is_live(&self) -> bool {
        self.0.load(Ordering::Relaxed) & DEAD == 0
    }

    /// Returns why the flow is dead, or [`None`] while it is live.
    pub fn reason(&self) -> Option<TeardownReason> {
        let state = self.0.load(Ordering::Acquire);
        if state & DEAD == 0 {
            return None;
        }
        TeardownReason::from_index((state & REASON_MASK) as usize)
    }

    /// Marks the flow dead. Returns `true` to exactly one caller, whose reason is kept and who has
    /// to take the flow apart.
    #[cold]
    pub fn set_dead(&self, reason: TeardownReason) -> bool {
        let mut state = self.0.load(Ordering::Relaxed);
        while state & DEAD == 0 {
            // INVARIANT: `DEAD` was clear, hence the low byte zero; both are set together.
            match self.0.compare_exchange_weak(
                state,
                state | DEAD | u32::from(reason as u8),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }
}

impl Default for FlowState {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_killer() {
        for reason in TeardownReason::ALL {
            let state = FlowState::default();
            assert!(state.set_dead(*reason));
            assert!(!state.set_dead(TeardownReason::Idle));
            assert!(!state.is_live());
            assert_eq!(state.reason(), Some(*reason));
        }
    }

    #[test]
    fn one_killer_of_many() {
        let state = FlowState::new();
        let wins: usize = std::thread::scope(|s| {
            let killers: Vec<_> = TeardownReason::ALL
                .iter()
                .map(|reason| {
                    let state = &state;
                    s.spawn(move || state.set_dead(*reason).then_some(*reason))
                })
                .collect();
            let won: Vec<_> = killers
                .into_iter()
                .filter_map(|k| k.join().unwrap())
                .collect();
            assert_eq!(state.reason(), won.first().copied());
            won.len()
        });
        assert_eq!(wins, 1);
    }

    #[test]
    fn is_one_word() {
        assert_eq!(size_of::<FlowState>(), 4);
    }
}
