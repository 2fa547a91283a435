// SPDX-License-Identifier: GPL-2.0

//! Which flows does a ruleset judge by something that changes without a commit: elements that time
//! out, the time of day, limits, quotas, how many bytes there were?
//!
//! [`read`] follows the rules as a packet of each [class](Classes) would, from the hooks on the forwarded
//! path: which rules can it come to, and which has it left for sure before? So a limit for SYN packets
//! below `ct state established accept`, or for ICMP, says nothing about an established TCP flow. What
//! is not understood counts as a match that may fail.

mod known;
#[cfg(all(test, not(loom)))]
mod tests;

use crate::proto::L4Proto;
pub use known::What;

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

/// Flows, by protocol and by the state that their packets have: eight bits for each state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Classes(pub u32);

impl Classes {
    /// No flow.
    pub const NONE: Self = Self(0);
    /// All flows.
    pub const ALL: Self = Self(0x00ff_ffff);

    /// The class of a flow: its packets are "established" once there was an answer. Until then they are
    /// "related" if the connection was expected, or "new".
    pub const fn of(proto: L4Proto, answered: bool, expected: bool) -> Self {
        let state = match (answered, expected) {
            (true, _) => 0,
            (false, false) => 8,
            (false, true) => 16,
        };

        Self(1 << (proto.rank() + state))
    }

    /// Of a protocol.
    fn with(proto: L4Proto) -> Self {
        Self(0x01_0101 << proto.rank())
    }

    /// Those with one of the states, in the order of [`STATES`].
    fn in_states(states: [bool; 3]) -> Self {
        let [a, b, c] = states.map(|s| if s { 0xff } else { 0 });

        Self(a | (b << 8) | (c << 16))
    }

    /// What becomes of them: there is an answer.
    fn with_answers(self) -> Self {
        Self(((self.0 | (self.0 >> 8) | (self.0 >> 16)) & 0xff) | self.0)
    }

    /// Those in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those in one of them.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub const fn but(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Is there none?
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    fn when(self, condition: bool) -> Self {
        if condition {
            self
        } else {
            Self::NONE
        }
    }
}

/// A name, for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Name(pub [u8; 32]);

impl Name {
    /// No name.
    pub const NONE: Self = Self([0; 32]);

    /// The bytes before the first zero.
    pub fn bytes(&self) -> &[u8] {
        self.0.split(|&b| b == 0).next().unwrap_or_default()
    }

    /// The name, or nothing if it is not UTF-8.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.bytes()).unwrap_or_default()
    }
}

/// A constant in a rule, as it is in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Data {
    /// The bytes.
    pub bytes: [u8; 8],
    /// How many of them; 0 if there are more than fit.
    pub len: u8,
}

impl Data {
    fn native(&self) -> Option<u32> {
        let [a, b, c, d, ..] = self.bytes;

        match self.len {
            1 => Some(a.into()),
            4 => Some(u32::from_ne_bytes([a, b, c, d])),
            _ => None,
        }
    }

    fn count(&self, big_endian: bool) -> Option<u64> {
        (self.len == 8).then_some(match big_endian {
            true => u64::from_be_bytes(self.bytes),
            false => u64::from_ne_bytes(self.bytes),
        })
    }
}

/// What a packet is told by a rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict<C> {
    /// Its code.
    pub code: i32,
    /// The chain that it goes to.
    pub chain: Option<C>,
}

/// What is known of a set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SetInfo {
    /// How it is called.
    pub name: Name,
    /// Elements come and go by themselves, or by what packets do.
    pub moves: bool,
    /// Its elements have limits, quotas or the like.
    pub stateful: bool,
}

/// An expression of a rule. Registers are numbered as userspace does: `from` one, `to` another one.
#[allow(missing_docs)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expr<C, S> {
    /// A rule begins.
    Rule,
    /// A verdict for everything that comes here.
    Verdict(Verdict<C>),
    /// A constant goes into this register.
    Immediate(u32),
    /// Something is written into the packet or the connection.
    Store,
    /// A property of the connection, `enum nft_ct_keys`, of a direction, goes into a register.
    Ct { key: u32, dir: Option<u8>, to: u32 },
    /// A property of the packet, `enum nft_meta_keys`, goes into a register.
    Meta { key: u32, to: u32 },
    /// Bits of a register go into another one.
    Mask { from: u32, to: u32, mask: u32 },
    /// The same value in another byte order.
    ByteOrder { from: u32, to: u32, len: u32 },
    /// Compares a register, `enum nft_cmp_ops`.
    Cmp { from: u32, op: u32, data: Data },
    /// Compares it with a range.
    Range { from: u32, low: Data, high: Data },
    /// Looks for a register in a set; the element may say what comes next.
    Lookup {
        from: u32,
        set: S,
        invert: bool,
        verdict: bool,
    },
    /// Adds to a set. `stateful`: with limits or the like.
    Update { set: S, stateful: bool },
    /// A named object, `NFT_OBJECT_*`.
    Object { kind: u32, name: Name },
    /// A named object by a map.
    ObjectMap { kind: u32, set: S },
    /// The state of the connection is among these, says an extension of xtables.
    State { mask: u32, invert: bool },
    /// Another extension of xtables.
    Extension(Name),
    /// Something else, by the name of its type.
    Other(Name),
}

/// Why a ruleset could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// There is another one.
    Changed,
    /// There is no memory.
    NoMem,
    /// It is too large.
    TooComplex,
}

/// What is remembered of a chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Memo {
    /// Classes that have been there.
    pub seen: Classes,
    /// Those of them that come back from there.
    pub through: Classes,
}

/// An expression, or the end of a chain.
pub type Next<C, S> = Result<Option<Expr<C, S>>, Stop>;
/// Whether a key is in a set, and the verdict that it has there, if that is known.
pub type Found<C> = Result<Option<(bool, Option<Verdict<C>>)>, Stop>;

/// A ruleset.
pub trait Rules {
    /// A chain.
    type Chain: Copy;
    /// A place in one. Starts at the beginning.
    type Place: Default;
    /// A set.
    type Set: Copy;

    /// The base chain number `i` on the forwarded path.
    fn base(&mut self, i: usize) -> Result<Option<Self::Chain>, Stop>;

    /// The expression at a place in a chain, which moves along.
    fn next(&mut self, chain: Self::Chain, at: &mut Self::Place) -> Next<Self::Chain, Self::Set>;

    /// About a set.
    fn about(&mut self, set: Self::Set) -> Result<SetInfo, Stop>;

    /// Looks for a key of `len` bytes in a set. [`None`]: nobody knows. Otherwise whether it is there, and
    /// the verdict that it has.
    fn find(&mut self, set: Self::Set, key: u32, len: u8) -> Found<Self::Chain>;

    /// Remembers that these classes go to a chain, see [`Rules::wanted`].
    fn want(&mut self, chain: Self::Chain, classes: Classes) -> Result<(), Stop>;

    /// The same of every chain in a verdict map.
    fn want_all(&mut self, set: Self::Set, classes: Classes) -> Result<(), Stop>;

    /// A chain that classes go to and have not been in.
    fn wanted(&mut self) -> Option<(Self::Chain, Classes)>;

    /// Forgets everything that was remembered.
    fn forget(&mut self);

    /// What is remembered of a chain.
    fn memo(&mut self, chain: Self::Chain) -> Memo;

    /// Remembers it.
    fn remember(&mut self, chain: Self::Chain, memo: Memo) -> Result<(), Stop>;
}

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

    fn threshold(&mut self, new: Threshold) {
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

    /// How far is a flow from the next threshold? `count`: what a counter of conntrack says.
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

/// What a register holds, as far as that matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
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
struct Registers([(u32, Value); 2]);

impl Registers {
    const NONE: Self = Self([(0, Value::Unknown); 2]);

    fn get(&self, register: u32) -> Value {
        self.0
            .iter()
            .find(|(r, v)| *r == register && *v != Value::Unknown)
            .map_or(Value::Unknown, |(_, v)| *v)
    }

    fn set(&mut self, register: u32, value: Value) {
        let [a, b] = &mut self.0;
        let place = match (*a, *b) {
            ((r, _), _) if r == register => a,
            (_, (r, _)) if r == register => b,
            ((_, Value::Unknown), _) => a,
            _ => b,
        };

        *place = (register, value);
    }

    /// Was a counter loaded, and not compared? Then it went into something else.
    fn has_lost_count(&self) -> bool {
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
struct Pass {
    may: Classes,
    sure: Classes,
}

impl Pass {
    const UNSURE: Self = Self {
        may: Classes::ALL,
        sure: Classes::NONE,
    };
    const ALL: Self = Self {
        may: Classes::ALL,
        sure: Classes::ALL,
    };

    fn exactly(classes: Classes) -> Self {
        Self {
            may: classes,
            sure: classes,
        }
    }

    fn not(self) -> Self {
        Self {
            may: Classes::ALL.but(self.sure),
            sure: Classes::ALL.but(self.may),
        }
    }

    fn inverted(self, invert: bool) -> Self {
        if invert {
            self.not()
        } else {
            self
        }
    }

    /// If nobody else comes here.
    fn only(self, classes: Classes) -> Self {
        Self {
            may: self.may.and(classes),
            sure: self.sure.and(classes),
        }
    }
}

const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;

struct Reader<'a, R: Rules> {
    rules: &'a mut R,
    found: Findings,
    left: u32,
}

/// Reads a ruleset: what does it say about the flows that it adds?
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

    /// These classes come to a chain. Returns which of them come back.
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
        let mut at = R::Place::default();

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

    /// Registers are used for something else: a counter that was not compared is in a condition that we
    /// do not know.
    fn lose(&mut self, registers: &mut Registers, classes: Classes) {
        if registers.has_lost_count() {
            self.found.note(classes, What::Count, Name::NONE);
        }
        *registers = Registers::NONE;
    }

    /// Something is looked for in a set.
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
