// SPDX-License-Identifier: GPL-2.0

//! What registers hold while rules are read, and which flows pass an expression.

use super::{
    Classes,
    Counter, //
};

/// What a register holds, as far as that matters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    Unknown,
    /// `ct state`, or some of its bits.
    State(Option<u32>),
    L4Proto,
    /// Conntrack's counter.
    Count {
        counter: Counter,
        big_endian: bool,
        compared: bool,
    },
}

/// What the registers hold: two of them, for rules compare what they have just loaded.
pub(super) struct Registers([(u32, Value); 2]);

impl Registers {
    pub(super) const NONE: Self = Self([(0, Value::Unknown); 2]);

    pub(super) fn get(&self, register: u32) -> Value {
        self.0
            .iter()
            .find(|(r, v)| *r == register && *v != Value::Unknown)
            .map_or(Value::Unknown, |(_, v)| *v)
    }

    pub(super) fn set(&mut self, register: u32, value: Value) {
        let [a, b] = &mut self.0;
        let place = match (*a, *b) {
            ((r, _), _) if r == register => a,
            (_, (r, _)) if r == register => b,
            ((_, Value::Unknown), _) => a,
            _ => b,
        };

        *place = (register, value);
    }

    /// Whether a counter was loaded and not compared, so that it went into something else.
    pub(super) fn has_lost_count(&self) -> bool {
        self.0.iter().any(|(_, v)| {
            matches!(
                v,
                Value::Count {
                    compared: false,
                    ..
                }
            )
        })
    }
}

/// Of the classes that come to an expression: those that may pass it, and those that do for sure.
#[derive(Clone, Copy)]
pub(super) struct Pass {
    pub(super) may: Classes,
    pub(super) sure: Classes,
}

impl Pass {
    pub(super) const UNSURE: Self = Self {
        may: Classes::ALL,
        sure: Classes::NONE,
    };
    pub(super) const ALL: Self = Self {
        may: Classes::ALL,
        sure: Classes::ALL,
    };

    pub(super) fn exactly(classes: Classes) -> Self {
        Self {
            may: classes,
            sure: classes,
        }
    }

    pub(super) fn not(self) -> Self {
        Self {
            may: Classes::ALL.but(self.sure),
            sure: Classes::ALL.but(self.may),
        }
    }

    pub(super) fn inverted(self, invert: bool) -> Self {
        if invert {
            self.not()
        } else {
            self
        }
    }

    /// Restricts the classes to these, if no others come to the expression.
    pub(super) fn only(self, classes: Classes) -> Self {
        Self {
            may: self.may.and(classes),
            sure: self.sure.and(classes),
        }
    }
}
