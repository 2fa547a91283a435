// SPDX-License-Identifier: GPL-2.0

//! A ruleset as it is read: expressions one by one, of the classes of flows that come to them.

use crate::proto::L4Proto;

/// Flows, by protocol and by the state that their packets have: eight bits for each state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Classes(pub u32);

impl Classes {
    /// No flow.
    pub const NONE: Self = Self(0);
    /// All flows.
    pub const ALL: Self = Self(0x00ff_ffff);

    /// The class of a flow: its packets are "established" once there was an answer. Until then they
    /// are "related" if the connection was expected, or "new".
    pub const fn of(proto: L4Proto, answered: bool, expected: bool) -> Self {
        let state = match (answered, expected) {
            (true, _) => 0,
            (false, false) => 8,
            (false, true) => 16,
        };

        Self(1 << (proto.rank() + state))
    }

    /// Returns the classes of a protocol.
    pub(super) fn with(proto: L4Proto) -> Self {
        Self(0x01_0101 << proto.rank())
    }

    /// Returns the classes with one of the states, in the order of `STATES`.
    pub(super) fn in_states(states: [bool; 3]) -> Self {
        let [a, b, c] = states.map(|s| if s { 0xff } else { 0 });

        Self(a | (b << 8) | (c << 16))
    }

    /// What becomes of them: there is an answer.
    pub(super) fn with_answers(self) -> Self {
        Self(((self.0 | (self.0 >> 8) | (self.0 >> 16)) & 0xff) | self.0)
    }

    /// Returns the classes that are in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns the classes that are in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the classes that are not in `other`.
    #[must_use]
    pub const fn but(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is no class.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    pub(super) fn when(self, condition: bool) -> Self {
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
    pub(super) fn native(&self) -> Option<u32> {
        let [a, b, c, d, ..] = self.bytes;

        match self.len {
            1 => Some(a.into()),
            4 => Some(u32::from_ne_bytes([a, b, c, d])),
            _ => None,
        }
    }

    pub(super) fn count(&self, big_endian: bool) -> Option<u64> {
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
    type RulePos: Default;
    /// A set.
    type Set: Copy;

    /// The base chain number `i` on the forwarded path.
    fn base(&mut self, i: usize) -> Result<Option<Self::Chain>, Stop>;

    /// The expression at a place in a chain, which moves along.
    fn next(&mut self, chain: Self::Chain, at: &mut Self::RulePos) -> Next<Self::Chain, Self::Set>;

    /// Returns what is known of a set.
    fn about(&mut self, set: Self::Set) -> Result<SetInfo, Stop>;

    /// Looks for a key of `len` bytes in a set. [`None`]: nobody knows. Otherwise whether it is
    /// there, and the verdict that it has.
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
