// SPDX-License-Identifier: GPL-2.0

//! Numbers that are given out in turn: one that was given back comes again as late as possible, so
//! that nobody takes it for what it was before.
//!
//! Which numbers are free the caller knows, who finds the first one of a range.

/// Whose turn it is.
///
/// # Invariants
///
/// `next` is at most `last`.
#[derive(Debug)]
pub struct Turn {
    next: u32,
    last: u32,
}

impl Turn {
    /// Numbers from 0 to `last`.
    pub const fn new(last: u32) -> Self {
        // INVARIANT: Zero is the least.
        Self { next: 0, last }
    }

    /// Takes the next free number. `claim` takes the first free one of a range, both ends included,
    /// or says why it does not. It is called twice at most.
    ///
    /// # Errors
    ///
    /// What `claim` said last. Nothing was taken then, and the turn is the same.
    pub fn take<E>(&mut self, mut claim: impl FnMut(u32, u32) -> Result<u32, E>) -> Result<u32, E> {
        let found = match claim(self.next, self.last) {
            Err(_) if self.next > 0 => claim(0, self.next.wrapping_sub(1)),
            found => found,
        }?;

        // INVARIANT: Below `last`, or zero.
        self.next = if found < self.last {
            found.wrapping_add(1)
        } else {
            0
        };
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::Turn;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    /// Which numbers are in use, and how often it was asked.
    #[derive(Default)]
    struct Used(BTreeSet<u32>, usize);

    impl Used {
        fn take(&mut self, turn: &mut Turn) -> Option<u32> {
            turn.take(|from, to| {
                self.1 += 1;
                let free = (from..=to).find(|n| !self.0.contains(n)).ok_or(())?;
                self.0.insert(free);
                Ok::<u32, ()>(free)
            })
            .ok()
        }
    }

    #[test]
    fn in_turn() {
        let (mut turn, mut used) = (Turn::new(9), Used::default());

        for n in 0..10 {
            assert_eq!(used.take(&mut turn), Some(n));
        }
        assert_eq!(used.take(&mut turn), None);
        used.0.remove(&7);
        assert_eq!(used.take(&mut turn), Some(7));
        used.0.remove(&7);
        used.0.remove(&3);
        // The other one was free for longer.
        assert_eq!(used.take(&mut turn), Some(3));
        assert_eq!(used.take(&mut turn), Some(7));
    }

    #[test]
    fn not_again_soon() {
        let (mut turn, mut used) = (Turn::new(999), Used::default());

        // One that comes and goes uses all of them before the first comes again.
        let all: Vec<u32> = (0..1000)
            .map(|_| {
                let n = used.take(&mut turn).unwrap();
                used.0.remove(&n);
                n
            })
            .collect();
        assert_eq!(all, (0..1000).collect::<Vec<_>>());
        assert_eq!(used.take(&mut turn), Some(0));
    }

    #[test]
    fn around_with_many_in_use() {
        // Grids around the end, with runs of numbers in use at the beginning.
        for last in [63, 64, 1000, (1 << 23) - 1] {
            for run in [0, 1, 16, 17, 32, 62] {
                for ahead in 0..4 {
                    if run > last - ahead {
                        continue;
                    }
                    let (mut turn, mut used) = (Turn::new(last), Used::default());
                    for _ in 0..run {
                        used.take(&mut turn).unwrap();
                    }
                    turn.next = last - ahead;
                    for n in 0..=ahead {
                        assert_eq!(used.take(&mut turn), Some(last - ahead + n));
                    }
                    if run + ahead < last {
                        used.1 = 0;
                        assert_eq!(used.take(&mut turn), Some(run));
                        assert!(used.1 <= 2);
                    }
                }
            }
        }
    }

    #[test]
    fn none_is_left() {
        let (mut turn, mut used) = (Turn::new(0), Used::default());

        assert_eq!(used.take(&mut turn), Some(0));
        assert_eq!(used.take(&mut turn), None);
        used.0.clear();
        assert_eq!(used.take(&mut turn), Some(0));
    }
}
