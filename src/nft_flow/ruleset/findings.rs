// SPDX-License-Identifier: GPL-2.0

//! What a reading of a ruleset has found.

use super::{
    Classes,
    Name,
    What, //
};

/// Which counters of conntrack a rule compares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counter {
    /// Packets, not bytes.
    pub packets: bool,
    /// Of a direction, or both together.
    pub dir: Option<u8>,
}

/// A rule has another word for a flow once the counter is above the value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Threshold {
    /// What is counted.
    pub counter: Counter,
    /// How far.
    pub value: u64,
    /// The flows that come to the rule.
    pub classes: Classes,
}

/// Thresholds that are kept.
pub const MAX_THRESHOLDS: usize = 16;

/// What a reading has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Findings {
    /// The flows that have to be asked for again and again.
    pub volatile: Classes,
    /// The flows that a rule adds.
    pub adds: Classes,
    /// The first reason, and what it is about.
    pub why: Option<(What, Name)>,
    /// The first of them count.
    pub thresholds: [Threshold; MAX_THRESHOLDS],
    /// So many.
    pub count: usize,
}

impl Findings {
    /// Nothing.
    pub const NONE: Self = Self {
        volatile: Classes::NONE,
        adds: Classes::NONE,
        why: None,
        thresholds: [Threshold {
            counter: Counter {
                packets: false,
                dir: None,
            },
            value: 0,
            classes: Classes::NONE,
        }; MAX_THRESHOLDS],
        count: 0,
    };

    /// All thresholds.
    pub fn thresholds(&self) -> &[Threshold] {
        self.thresholds.get(..self.count).unwrap_or_default()
    }

    /// Flows of these classes have to be asked for.
    pub fn note(&mut self, classes: Classes, what: What, name: Name) {
        if classes.is_none() {
            return;
        }
        self.volatile = self.volatile.or(classes);
        self.why.get_or_insert((what, name));
    }

    pub(super) fn threshold(&mut self, new: Threshold) {
        if new.classes.is_none() {
            return;
        }
        let (have, room) = self.thresholds.split_at_mut(self.count);
        let same = have
            .iter_mut()
            .find(|t| t.counter == new.counter && t.value == new.value);

        if let Some(old) = same {
            old.classes = old.classes.or(new.classes);
        } else if let Some(place) = room.first_mut() {
            *place = new;
            self.count = self.count.wrapping_add(1);
        } else {
            self.note(new.classes, What::Count, Name::NONE);
        }
    }

    /// Returns how far a flow is from the next threshold. `count` returns the value of a conntrack
    /// counter.
    pub fn distance(&self, class: Classes, count: impl Fn(Counter) -> u64) -> [Option<u64>; 2] {
        let mut least = [None::<u64>; 2];

        for t in self.thresholds() {
            let have = count(t.counter);

            if t.classes.and(class).is_none() || have > t.value {
                continue;
            }
            if let Some(least) = least.get_mut(usize::from(t.counter.packets)) {
                let rest = t.value.wrapping_sub(have).saturating_add(1);

                *least = Some(least.map_or(rest, |l| l.min(rest)));
            }
        }
        least
    }
}
