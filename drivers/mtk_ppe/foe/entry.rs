// SPDX-License-Identifier: GPL-2.0

//! One entry of the table, as words.
//!
//! Word 0 is the same in all entries ("info block 1", `ib1`): state, type and what is done to the
//! packet. Where the other parts are depends on the type. The first words after `ib1` are the key:
//! what the engine compares with a packet.

use nft_flow::desc::Mac;

/// A group of bits in a word.
#[derive(Clone, Copy)]
pub struct Field {
    shift: u8,
    width: u8,
}

impl Field {
    /// Bits `high` to `low`, both included, as a data sheet writes them.
    pub const fn new(high: u8, low: u8) -> Self {
        assert!(high < 32 && low <= high && high - low < 31);
        Field {
            shift: low,
            width: high - low + 1,
        }
    }

    /// Bit `n`.
    pub const fn bit(n: u8) -> Self {
        Self::new(n, n)
    }

    /// All bits of it set.
    pub const fn mask(self) -> u32 {
        ((1 << self.width) - 1) << self.shift
    }

    /// The largest value.
    pub const fn max(self) -> u32 {
        (1 << self.width) - 1
    }

    /// A value in its place. Bits that do not fit are lost; see [`Self::fits`].
    pub const fn put(self, value: u32) -> u32 {
        (value << self.shift) & self.mask()
    }

    /// The value in a word.
    pub const fn get(self, word: u32) -> u32 {
        (word & self.mask()) >> self.shift
    }

    /// Whether a value has room.
    pub const fn fits(self, value: u32) -> bool {
        value <= self.max()
    }
}

/// Fields of `ib1` that are the same in all generations.
pub mod ib1 {
    use super::Field;

    /// [`super::State`].
    pub const STATE: Field = Field::new(29, 28);
    /// UDP, otherwise TCP: for types with ports.
    pub const UDP: Field = Field::bit(30);
    /// Not to be used by the engine.
    pub const STATIC: Field = Field::bit(31);
    /// When the engine last saw a packet of an entry that is not bound yet.
    pub const UNBIND_TIMESTAMP: Field = Field::new(7, 0);
    /// Packets that it has seen of it.
    pub const UNBIND_PACKETS: Field = Field::new(23, 8);
}

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// Free.
    Invalid = 0,
    /// Made by the engine for a packet that it did not find; packets go to the CPU.
    Unbind = 1,
    /// In force.
    Bind = 2,
    /// The engine has seen the end of the TCP connection; packets go to the CPU.
    Fin = 3,
}

impl State {
    /// That of an entry with this `ib1`.
    pub const fn of(ib1: u32) -> Self {
        match ib1::STATE.get(ib1) {
            0 => State::Invalid,
            1 => State::Unbind,
            2 => State::Bind,
            _ => State::Fin,
        }
    }

    /// Its bits.
    pub const fn bits(self) -> u32 {
        ib1::STATE.put(self as u32)
    }

    /// The steps that an entry takes in the life of a table; software takes those to
    /// [`State::Invalid`] and [`State::Bind`], the engine all others. Ageing is the engine's too.
    pub const fn may_become(self, next: Self) -> bool {
        match (self, next) {
            // Made for a packet; withdrawn or aged out; direct insertion.
            (_, State::Invalid) | (State::Invalid, State::Unbind) => true,
            (State::Invalid | State::Unbind | State::Fin, State::Bind) => true,
            // Ageing of a connection that is over.
            (State::Bind, State::Fin) => true,
            // The engine takes the place of what is over for a new packet.
            (State::Fin, State::Unbind) => true,
            _ => false,
        }
    }
}

/// What an entry matches and rewrites.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PacketType {
    /// IPv4 addresses and ports, both rewritten.
    Ipv4Hnapt = 0,
    /// IPv4 addresses and protocol.
    Ipv4Route = 1,
    /// Frames of two stations: a template only, the engine does not know it.
    Bridge = 2,
    /// IPv4 in IPv6.
    DsLite = 3,
    /// IPv6 addresses and protocol.
    Ipv6Route3 = 4,
    /// IPv6 addresses and ports.
    Ipv6Route5 = 5,
    /// IPv6 in IPv4.
    SixRd = 7,
}

impl PacketType {
    /// The type with this number.
    pub const fn from_number(n: u32) -> Option<Self> {
        Some(match n {
            0 => PacketType::Ipv4Hnapt,
            1 => PacketType::Ipv4Route,
            2 => PacketType::Bridge,
            3 => PacketType::DsLite,
            4 => PacketType::Ipv6Route3,
            5 => PacketType::Ipv6Route5,
            7 => PacketType::SixRd,
            _ => return None,
        })
    }

    /// Where `ib2` and the link-layer part start, in bytes from the start of the entry.
    pub(crate) const fn places(self) -> Places {
        match self {
            PacketType::Bridge => Places { ib2: 20, l2: 24 },
            PacketType::Ipv4Hnapt | PacketType::Ipv4Route => Places { ib2: 16, l2: 44 },
            _ => Places { ib2: 56, l2: 60 },
        }
    }

    /// The number of words after `ib1` that are the key.
    pub(crate) const fn key_words(self) -> usize {
        match self {
            PacketType::Ipv6Route3 | PacketType::Ipv6Route5 | PacketType::SixRd => 9,
            _ => 3,
        }
    }
}

/// Where the parts of an entry are that follow its key.
#[derive(Clone, Copy)]
pub(crate) struct Places {
    pub(crate) ib2: usize,
    pub(crate) l2: usize,
}

/// Places in the link-layer part, from its start.
pub(crate) mod l2 {
    pub(crate) const VLAN1: usize = 0;
    pub(crate) const ETYPE: usize = 2;
    pub(crate) const DMAC_HI: usize = 4;
    pub(crate) const VLAN2: usize = 8;
    pub(crate) const DMAC_LO: usize = 10;
    pub(crate) const SMAC_HI: usize = 12;
    pub(crate) const PPPOE: usize = 16;
    pub(crate) const SMAC_LO: usize = 18;
    pub(crate) const WINFO: usize = 22;
    pub(crate) const W3INFO: usize = 24;
    pub(crate) const AMSDU: usize = 28;
}

/// Places in an entry, in bytes.
pub(crate) mod at {
    pub(crate) const V4_SRC: usize = 4;
    pub(crate) const V4_DST: usize = 8;
    pub(crate) const V4_PORTS: usize = 12;
    pub(crate) const V4_NEW_SRC: usize = 20;
    pub(crate) const V4_NEW_DST: usize = 24;
    pub(crate) const V4_NEW_PORTS: usize = 28;
    pub(crate) const V6_SRC: usize = 4;
    pub(crate) const V6_DST: usize = 20;
    pub(crate) const V6_PORTS: usize = 36;
    pub(crate) const BRIDGE_DMAC: usize = 4;
    pub(crate) const BRIDGE_SMAC: usize = 10;
    pub(crate) const BRIDGE_VLAN: usize = 16;
}

/// An entry, of whatever size: what a generation does not have is zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Foe {
    words: [u32; Foe::WORDS],
}

impl Foe {
    /// Words of the largest entry.
    pub const WORDS: usize = 32;

    /// All zero: free.
    pub const ZERO: Self = Foe {
        words: [0; Self::WORDS],
    };

    /// From the words of an entry.
    pub fn from_words(words: &[u32]) -> Self {
        let mut foe = Self::ZERO;

        for (to, from) in foe.words.iter_mut().zip(words) {
            *to = *from;
        }
        foe
    }

    /// The words, `ib1` first.
    pub fn words(&self) -> &[u32; Self::WORDS] {
        &self.words
    }

    /// The word at `at` bytes.
    pub fn word(&self, at: usize) -> u32 {
        self.words.get(at / 4).copied().unwrap_or(0)
    }

    /// Sets the word at `at` bytes.
    pub fn set_word(&mut self, at: usize, value: u32) {
        if let Some(word) = self.words.get_mut(at / 4) {
            *word = value;
        }
    }

    /// The half word at `at` bytes.
    pub fn half(&self, at: usize) -> u16 {
        (self.word(at) >> ((at & 2) * 8)) as u16
    }

    /// Sets the half word at `at` bytes.
    pub fn set_half(&mut self, at: usize, value: u16) {
        let shift = (at & 2) * 8;
        let word = self.word(at) & !(0xffff << shift);

        self.set_word(at, word | (u32::from(value) << shift));
    }

    /// Info block 1.
    pub fn ib1(&self) -> u32 {
        self.word(0)
    }

    /// Sets info block 1.
    pub fn set_ib1(&mut self, ib1: u32) {
        self.set_word(0, ib1);
    }

    /// State.
    pub fn state(&self) -> State {
        State::of(self.ib1())
    }

    /// Info block 2 of an entry of type `of`.
    pub fn ib2(&self, of: PacketType) -> u32 {
        self.word(of.places().ib2)
    }

    /// Sets info block 2.
    pub fn set_ib2(&mut self, of: PacketType, ib2: u32) {
        self.set_word(of.places().ib2, ib2);
    }

    /// Source and destination MAC of frames that leave by an entry of type `of`.
    pub fn macs(&self, of: PacketType) -> (Mac, Mac) {
        let base = of.places().l2;
        let mac = |hi: usize, lo: usize| {
            let [a, b, c, d] = self.word(base + hi).to_be_bytes();
            let [e, f] = self.half(base + lo).to_be_bytes();
            [a, b, c, d, e, f]
        };
        (mac(l2::SMAC_HI, l2::SMAC_LO), mac(l2::DMAC_HI, l2::DMAC_LO))
    }

    pub(crate) fn set_macs(&mut self, of: PacketType, src: Mac, dst: Mac) {
        let base = of.places().l2;
        let mut put = |hi: usize, lo: usize, [a, b, c, d, e, f]: Mac| {
            self.set_word(base + hi, u32::from_be_bytes([a, b, c, d]));
            self.set_half(base + lo, u16::from_be_bytes([e, f]));
        };
        put(l2::DMAC_HI, l2::DMAC_LO, dst);
        put(l2::SMAC_HI, l2::SMAC_LO, src);
    }

    /// A half word of the link-layer part.
    pub(crate) fn l2_half(&self, of: PacketType, at: usize) -> u16 {
        self.half(of.places().l2 + at)
    }

    pub(crate) fn set_l2_half(&mut self, of: PacketType, at: usize, value: u16) {
        self.set_half(of.places().l2 + at, value);
    }

    /// What the engine compares with packets.
    pub fn key(&self, of: PacketType) -> Key {
        let mut words = [0; 9];

        for (to, from) in words
            .iter_mut()
            .zip(self.words.iter().skip(1))
            .take(of.key_words())
        {
            *to = *from;
        }
        Key {
            words,
            udp: ib1::UDP.get(self.ib1()) != 0,
            of,
        }
    }
}

impl core::fmt::Debug for Foe {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for word in &self.words {
            write!(f, "{word:08x} ")?;
        }
        Ok(())
    }
}

/// What the engine compares with packets: two entries with one key are one flow to it, wherever
/// their packets come in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    pub(crate) words: [u32; 9],
    udp: bool,
    of: PacketType,
}

impl Key {
    /// A number that other keys of the same bucket hardly have.
    pub fn check(&self) -> u16 {
        let start = u32::from(self.udp) | ((self.of as u32) << 1);
        let sum = self.words.iter().fold(start, |sum, word| {
            (sum ^ word).wrapping_mul(0x9e37_79b1).rotate_left(15)
        });
        (sum ^ (sum >> 16)) as u16
    }

    /// The type of entry.
    pub const fn packet_type(&self) -> PacketType {
        self.of
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let f = Field::new(16, 14);
        assert_eq!(
            (f.mask(), f.max(), f.put(5), f.get(0x14000)),
            (0x1c000, 7, 0x14000, 5)
        );
        assert!(f.fits(7) && !f.fits(8));
        assert_eq!(Field::bit(31).put(1), 1 << 31);
    }

    #[test]
    fn halves() {
        let mut foe = Foe::ZERO;
        foe.set_half(44, 0x1234);
        foe.set_half(46, 0x5678);
        assert_eq!(foe.word(44), 0x5678_1234);
        assert_eq!((foe.half(44), foe.half(46)), (0x1234, 0x5678));
        foe.set_macs(
            PacketType::Ipv4Hnapt,
            [1, 2, 3, 4, 5, 6],
            [7, 8, 9, 10, 11, 12],
        );
        assert_eq!(
            foe.macs(PacketType::Ipv4Hnapt),
            ([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12])
        );
        assert_eq!(foe.half(44), 0x1234);
    }

    #[test]
    fn states() {
        use State::*;
        for s in [Invalid, Unbind, Bind, Fin] {
            assert_eq!(State::of(s.bits()), s);
            assert!(s.may_become(Invalid));
        }
        assert!(Unbind.may_become(Bind) && Invalid.may_become(Bind) && Bind.may_become(Fin));
        assert!(!Bind.may_become(Unbind) && !Bind.may_become(Bind) && !Unbind.may_become(Fin));
    }
}
