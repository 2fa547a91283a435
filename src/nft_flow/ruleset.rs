// SPDX-License-Identifier: GPL-2.0

//! Finds the flows whose verdict in the ruleset may change without a commit: because of elements
//! that time out, the time of day, limits, quotas, byte counts.
//!
//! [`read`] follows the rules as a packet of each [class](Classes) would, from the hooks on the
//! forwarded path: it notes the rules that such a packet can reach, and those before which it has
//! left for sure. So a limit for SYN packets below `ct state established accept`, or for ICMP, says
//! nothing about an established TCP flow. What is not understood counts as a match that may fail.

mod findings;
mod known;
mod registers;
mod rules;
#[cfg(all(test, not(loom)))]
mod tests;

use crate::proto::L4Proto;
use registers::{
    Pass,
    Registers,
    Value, //
};

pub use findings::{
    Counter,
    Findings,
    Threshold,
    MAX_THRESHOLDS, //
};
pub use known::What;
pub use rules::{
    Classes,
    Data,
    Expr,
    Found,
    Memo,
    Name,
    Next,
    Rules,
    SetInfo,
    Stop,
    Verdict, //
};

/// `enum ip_conntrack_info` as bits of `ct state`: `NF_CT_STATE_BIT()`, nf_conntrack_common.h.
const ESTABLISHED: u32 = 1 << 1;
const RELATED: u32 = 1 << 2;
const NEW: u32 = 1 << 3;
/// In the order of [`Classes`].
const STATES: [u32; 3] = [ESTABLISHED, NEW, RELATED];

/// Verdicts, include/uapi/linux/netfilter/nf_tables.h.
const CONTINUE: i32 = -1;
const BREAK: i32 = -2;
const JUMP: i32 = -3;
const GOTO: i32 = -4;
const RETURN: i32 = -5;

/// Chains that lead to each other and are followed at once: the kernel's stack is small.
const MAX_DEPTH: u8 = 6;
/// Expressions that a reading looks at, at most. With more of them flows are asked all the time.
const MAX_EXPRS: u32 = 1 << 18;

const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;

struct Reader<'a, R: Rules> {
    rules: &'a mut R,
    found: Findings,
    left: u32,
}

/// Reads what a ruleset says about the flows that it adds.
pub fn read<R: Rules>(rules: &mut R) -> Result<Findings, Stop> {
    let all = read_for(rules, Classes::ALL)?;
    // Those that are added before there is an answer get one.
    let added = all.adds.with_answers();

    if all.volatile.is_none() && all.count == 0 || all.why == Some(TOO_COMPLEX) {
        return Ok(all);
    }
    rules.forget();
    read_for(rules, added)
}

const TOO_COMPLEX: (What, Name) = (What::TooComplex, Name::NONE);

fn read_for<R: Rules>(rules: &mut R, classes: Classes) -> Result<Findings, Stop> {
    let mut reader = Reader {
        rules,
        found: Findings::NONE,
        left: MAX_EXPRS,
    };

    match reader.all(classes) {
        Err(Stop::TooComplex) => {
            let (what, name) = TOO_COMPLEX;
            reader.found.why = None;
            reader.found.note(Classes::ALL, what, name);
        }
        other => other?,
    }
    Ok(reader.found)
}

impl<R: Rules> Reader<'_, R> {
    fn all(&mut self, classes: Classes) -> Result<(), Stop> {
        let mut i = 0;

        while let Some(chain) = self.rules.base(i)? {
            self.chain(chain, classes, 0)?;
            i = i.wrapping_add(1);
        }
        while let Some((chain, classes)) = self.rules.wanted() {
            self.chain(chain, classes, 0)?;
        }
        Ok(())
    }

    /// Follows a chain that these classes come to. Returns which of them come back.
    fn chain(&mut self, chain: R::Chain, classes: Classes, depth: u8) -> Result<Classes, Stop> {
        let mut memo = self.rules.memo(chain);
        let new = classes.but(memo.seen);

        if !new.is_none() {
            if depth > MAX_DEPTH {
                // Later; who knows whether they come back.
                self.rules.want(chain, new)?;
                return Ok(classes);
            }
            memo.seen = memo.seen.or(new);
            self.rules.remember(chain, memo)?;
            let back = self.rules_of(chain, new, depth)?;
            memo = self.rules.memo(chain);
            memo.through = memo.through.or(back);
            self.rules.remember(chain, memo)?;
        }
        Ok(memo.through.and(classes))
    }

    fn rules_of(&mut self, chain: R::Chain, classes: Classes, depth: u8) -> Result<Classes, Stop> {
        // Those that come to the next rule, and those that have left by "return".
        let (mut live, mut back) = (classes, Classes::NONE);
        let mut here = Pass::exactly(live);
        let mut registers = Registers::NONE;
        let mut at = R::RulePos::default();

        while let Some(expr) = self.rules.next(chain, &mut at)? {
            self.left = self.left.checked_sub(1).ok_or(Stop::TooComplex)?;
            let verdict = match expr {
                Expr::Rule => {
                    self.lose(&mut registers, here.may);
                    here = Pass::exactly(live);
                    continue;
                }
                Expr::Verdict(verdict) => Some((verdict, here)),
                Expr::Lookup {
                    from,
                    set,
                    verdict: true,
                    ..
                } => {
                    self.lookup_in(set, here.may)?;
                    match registers.get(from) {
                        Value::State(None) => {
                            for state in STATES {
                                let of = Classes::in_states(STATES.map(|s| s == state));
                                let found = self.find(set, state, 4)?;
                                let places = (&mut live, &mut back);
                                self.go_mapped(set, found, here.only(of), places, depth)?;
                            }
                        }
                        Value::L4Proto => {
                            for proto in L4Proto::ALL {
                                let of = Classes::with(proto);
                                let found = self.find(set, proto.number().into(), 1)?;
                                let places = (&mut live, &mut back);
                                self.go_mapped(set, found, here.only(of), places, depth)?;
                            }
                        }
                        _ => {
                            self.lose(&mut registers, here.may);
                            self.rules.want_all(set, here.may)?;
                            // Some elements may say "return".
                            back = back.or(here.may);
                        }
                    }
                    here.sure = Classes::NONE;
                    here.may = here.may.and(live);
                    None
                }
                _ => {
                    let pass = self.expr(expr, &mut registers, here.may)?;
                    here = Pass {
                        may: here.may.and(pass.may),
                        sure: here.sure.and(pass.sure),
                    };
                    None
                }
            };
            if let Some((verdict, pass)) = verdict {
                self.go(verdict, pass, (&mut live, &mut back), depth)?;
                // What comes after a verdict in a rule is not reached.
                here = Pass::exactly(Classes::NONE);
            }
        }
        self.lose(&mut registers, here.may);
        Ok(back.or(live))
    }

    /// A verdict for these classes.
    fn go(
        &mut self,
        verdict: Verdict<R::Chain>,
        pass: Pass,
        (live, back): (&mut Classes, &mut Classes),
        depth: u8,
    ) -> Result<(), Stop> {
        let deeper = depth.wrapping_add(1);

        match (verdict.code, verdict.chain) {
            (CONTINUE | BREAK, _) => (),
            (JUMP, Some(chain)) => {
                let came_back = self.chain(chain, pass.may, deeper)?;
                *live = live.but(pass.sure.but(came_back));
            }
            (GOTO, Some(chain)) => {
                *back = back.or(self.chain(chain, pass.may, deeper)?);
                *live = live.but(pass.sure);
            }
            (RETURN, _) => {
                *back = back.or(pass.may);
                *live = live.but(pass.sure);
            }
            _ => *live = live.but(pass.sure),
        }
        Ok(())
    }

    /// What a verdict map has said of these classes.
    fn go_mapped(
        &mut self,
        set: R::Set,
        found: Mapped<R::Chain>,
        pass: Pass,
        (live, back): (&mut Classes, &mut Classes),
        depth: u8,
    ) -> Result<(), Stop> {
        if pass.may.is_none() {
            return Ok(());
        }
        match found {
            Mapped::To(verdict) => self.go(verdict, pass, (live, back), depth),
            Mapped::Absent => Ok(()),
            Mapped::Unknown => {
                *back = back.or(pass.may);
                self.rules.want_all(set, pass.may)
            }
        }
    }

    /// What a verdict map says of a key.
    fn find(&mut self, set: R::Set, key: u32, len: u8) -> Result<Mapped<R::Chain>, Stop> {
        Ok(match self.rules.find(set, key, len)? {
            Some((true, Some(verdict))) => Mapped::To(verdict),
            Some((false, _)) => Mapped::Absent,
            _ => Mapped::Unknown,
        })
    }

    /// Registers are used for something else: a counter that was not compared is in a condition
    /// that we do not know.
    fn lose(&mut self, registers: &mut Registers, classes: Classes) {
        if registers.has_lost_count() {
            self.found.note(classes, What::Count, Name::NONE);
        }
        *registers = Registers::NONE;
    }

    /// Follows a lookup in a set.
    fn lookup_in(&mut self, set: R::Set, classes: Classes) -> Result<(), Stop> {
        let about = self.rules.about(set)?;

        if about.moves {
            self.found.note(classes, What::Set, about.name);
        } else if about.stateful {
            self.found.note(classes, What::SetState, about.name);
        }
        Ok(())
    }

    /// An expression that leads nowhere else.
    fn expr(
        &mut self,
        expr: Expr<R::Chain, R::Set>,
        registers: &mut Registers,
        classes: Classes,
    ) -> Result<Pass, Stop> {
        Ok(match expr {
            // Not here.
            Expr::Rule | Expr::Verdict(_) => Pass::UNSURE,
            Expr::Store => Pass::ALL,
            Expr::State { mask, invert } => {
                Pass::exactly(Classes::in_states(STATES.map(|s| mask & s != 0))).inverted(invert)
            }
            Expr::Immediate(to) => {
                registers.set(to, Value::Unknown);
                Pass::ALL
            }
            Expr::Ct { key, dir, to } => {
                match known::ct(key) {
                    known::Ct::State => registers.set(to, Value::State(None)),
                    known::Ct::Count { packets } => registers.set(
                        to,
                        Value::Count {
                            counter: Counter { packets, dir },
                            big_endian: false,
                            compared: false,
                        },
                    ),
                    known::Ct::Moves(what) => {
                        self.found.note(classes, what, Name::NONE);
                        registers.set(to, Value::Unknown);
                        return Ok(Pass::UNSURE);
                    }
                    known::Ct::Other => {
                        registers.set(to, Value::Unknown);
                        return Ok(Pass::UNSURE);
                    }
                }
                Pass::ALL
            }
            Expr::Meta { key, to } => {
                let (value, pass) = match known::meta(key) {
                    known::Meta::L4Proto => (Value::L4Proto, Pass::ALL),
                    known::Meta::Moves(what) => {
                        self.found.note(classes, what, Name::NONE);
                        (Value::Unknown, Pass::UNSURE)
                    }
                    known::Meta::Other => (Value::Unknown, Pass::UNSURE),
                };
                registers.set(to, value);
                pass
            }
            Expr::Mask { from, to, mask } => {
                match registers.get(from) {
                    Value::State(None) => registers.set(to, Value::State(Some(mask))),
                    Value::Count { .. } => {
                        self.lose(registers, classes);
                        registers.set(to, Value::Unknown);
                    }
                    _ => registers.set(to, Value::Unknown),
                }
                Pass::ALL
            }
            Expr::ByteOrder { from, to, len } => {
                let value = match registers.get(from) {
                    Value::Count {
                        counter,
                        big_endian,
                        compared,
                    } if len == 8 => Value::Count {
                        counter,
                        big_endian: !big_endian,
                        compared,
                    },
                    Value::Count { .. } => {
                        self.lose(registers, classes);
                        Value::Unknown
                    }
                    _ => Value::Unknown,
                };
                registers.set(to, value);
                Pass::ALL
            }
            Expr::Cmp { from, op, data } => match registers.get(from) {
                Value::State(mask) => state(mask, op, data),
                Value::L4Proto => match (op, data.native()) {
                    (CMP_EQ | CMP_NEQ, Some(n)) => {
                        let proto = u8::try_from(n).ok().and_then(L4Proto::from_number);
                        let classes = proto.map_or(Classes::NONE, Classes::with);
                        Pass::exactly(classes).inverted(op == CMP_NEQ)
                    }
                    _ => Pass::UNSURE,
                },
                Value::Count { .. } => self.compare(registers, from, &[data], classes),
                Value::Unknown => Pass::UNSURE,
            },
            Expr::Range { from, low, high } => match registers.get(from) {
                Value::Count { .. } => self.compare(registers, from, &[low, high], classes),
                _ => Pass::UNSURE,
            },
            Expr::Lookup {
                from, set, invert, ..
            } => {
                self.lookup_in(set, classes)?;
                let key = registers.get(from);
                // What is found may go into any of them.
                self.lose(registers, classes);
                match key {
                    Value::State(None) => {
                        let mut is = [false; 3];
                        for (is, key) in is.iter_mut().zip(STATES) {
                            match self.rules.find(set, key, 4)? {
                                Some((found, _)) => *is = found != invert,
                                None => return Ok(Pass::UNSURE),
                            }
                        }
                        Pass::exactly(Classes::in_states(is))
                    }
                    Value::L4Proto => {
                        let mut of = Classes::NONE;
                        for proto in L4Proto::ALL {
                            match self.rules.find(set, proto.number().into(), 1)? {
                                Some((found, _)) => {
                                    of = of.or(Classes::with(proto).when(found != invert));
                                }
                                None => return Ok(Pass::UNSURE),
                            }
                        }
                        Pass::exactly(of)
                    }
                    _ => Pass::UNSURE,
                }
            }
            Expr::Update { set, stateful } => {
                let about = self.rules.about(set)?;
                // What the packet path adds goes by itself, unless packets keep it there.
                if about.moves && about.stateful || stateful {
                    self.found.note(classes, What::SetState, about.name);
                } else if about.moves {
                    self.found.note(classes, What::Set, about.name);
                }
                self.lose(registers, classes);
                Pass::UNSURE
            }
            Expr::Object { kind, name } => {
                if let Some(what) = known::object(kind) {
                    self.found.note(classes, what, name);
                    return Ok(Pass::UNSURE);
                }
                Pass::ALL
            }
            Expr::ObjectMap { kind, set } => {
                let about = self.rules.about(set)?;
                if let Some(what) = known::object(kind) {
                    self.found.note(classes, what, about.name);
                } else if about.moves {
                    self.found.note(classes, What::Set, about.name);
                }
                self.lose(registers, classes);
                Pass::UNSURE
            }
            Expr::Extension(name) => {
                if known::is_volatile_extension(name.bytes()) {
                    self.found.note(classes, What::Extension, name);
                }
                self.lose(registers, classes);
                Pass::UNSURE
            }
            Expr::Other(name) => match known::other(name.bytes()) {
                known::Other::Neutral => Pass::ALL,
                known::Other::Adds => {
                    self.found.adds = self.found.adds.or(classes);
                    Pass::UNSURE
                }
                known::Other::Moves(what) => {
                    self.found.note(classes, what, Name::NONE);
                    self.lose(registers, classes);
                    Pass::UNSURE
                }
                known::Other::Unknown => {
                    self.lose(registers, classes);
                    Pass::UNSURE
                }
            },
        })
    }

    /// A counter is compared with constants.
    fn compare(
        &mut self,
        registers: &mut Registers,
        from: u32,
        with: &[Data],
        classes: Classes,
    ) -> Pass {
        if let Value::Count {
            counter,
            big_endian,
            ..
        } = registers.get(from)
        {
            for data in with {
                match data.count(big_endian) {
                    Some(value) => self.found.threshold(Threshold {
                        counter,
                        value,
                        classes,
                    }),
                    None => self.found.note(classes, What::Count, Name::NONE),
                }
            }
            registers.set(
                from,
                Value::Count {
                    counter,
                    big_endian,
                    compared: true,
                },
            );
        }
        Pass::UNSURE
    }
}

/// What a verdict map says about a key.
enum Mapped<C> {
    To(Verdict<C>),
    Absent,
    Unknown,
}

/// `ct state`, or the bits of it that are in `mask`, is compared.
fn state(mask: Option<u32>, op: u32, data: Data) -> Pass {
    let Some(value) = data.native().filter(|_| op == CMP_EQ || op == CMP_NEQ) else {
        return Pass::UNSURE;
    };
    let equal = |state: u32| mask.map_or(state, |m| state & m) == value;

    Pass::exactly(Classes::in_states(STATES.map(equal))).inverted(op == CMP_NEQ)
}
