// SPDX-License-Identifier: GPL-2.0

//! A sweep through a list that changes between two steps.

/// Goes from the end of a list to its beginning. Between two steps items may leave, whose index the
/// last item gets, and others may be added at the end. A sweep visits every item that was there
/// when it began and has not left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sweep {
    /// The items before this place are still to come.
    left: usize,
}

impl Sweep {
    /// Begins at the end of a list of `len` items.
    pub fn begin(&mut self, len: usize) {
        self.left = len;
    }

    /// Returns the index of the next item, in a list that has `len` now.
    pub fn step(&mut self, len: usize) -> Option<usize> {
        let next = self.left.min(len).checked_sub(1);

        self.left = next.unwrap_or(0);
        next
    }

    /// Whether the sweep has no other item left in a list that has `len` now.
    pub fn is_over(&self, len: usize) -> bool {
        self.left.min(len) == 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..Default::default() })]

        /// Some of the items leave between two steps, some when they are passed, and new ones come.
        #[test]
        fn passes_all(
            len in 0usize..20,
            changes in prop::collection::vec((0usize..4, 0usize..40, any::<bool>()), 60),
        ) {
            let mut list: Vec<usize> = (0..len).collect();
            let mut missing = list.clone();
            let mut next = len;
            let mut sweep = Sweep::default();
            let mut changes = changes.into_iter();

            prop_assert!(sweep.is_over(list.len()));
            sweep.begin(list.len());
            while !sweep.is_over(list.len()) {
                let at = sweep.step(list.len()).unwrap();
                missing.retain(|&item| item != list[at]);
                let (what, which, leaves) = changes.next().unwrap_or((0, 0, false));
                if leaves {
                    list.swap_remove(at);
                }
                match what {
                    1 if !list.is_empty() => {
                        let gone = list.swap_remove(which % list.len());
                        missing.retain(|&item| item != gone);
                    }
                    2 => {
                        list.push(next);
                        next += 1;
                    }
                    _ => (),
                }
            }
            prop_assert_eq!(missing, Vec::<usize>::new());
            prop_assert_eq!(sweep.step(list.len()), None);
        }
    }
}
