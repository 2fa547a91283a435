// SPDX-License-Identifier: GPL-2.0

//! A model of MediaTek's packet processing engine.
//!
//! It executes the bytes of a flow table: a frame goes in, is looked up, and comes out rewritten, or
//! goes to the CPU with a reason. It shares no code with the driver, so that the two check each
//! other. What it knows is the layout of entries and what the engine is said to do with them; where
//! silicon does something else, both may be wrong.

mod frame;

pub use frame::{
    checksum,
    Ip,
    Parsed, //
};

/// Generations of the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Generation {
    /// Entries of 80 bytes, two ways.
    V1,
    /// Entries of 96 bytes, four ways.
    V2,
    /// Entries of 128 bytes, four ways.
    V3,
}

/// Why a packet goes to the CPU: the engine's own numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Reason {
    /// IP options.
    Option = 0x03,
    /// Not a packet that is looked up.
    NoFlow = 0x07,
    /// An IPv4 fragment.
    Fragment = 0x08,
    /// SYN, FIN or RST of a connection that is not in the table.
    TcpFlags = 0x0c,
    /// Not found, and no room to remember it.
    Miss = 0x0d,
    /// Found, but not in force.
    Unbound = 0x0e,
    /// The same, and often enough to be worth it.
    UnboundRate = 0x0f,
    /// FIN or RST of a connection in the table.
    BoundFin = 0x10,
    /// The TTL would become zero.
    Ttl = 0x11,
    /// Too large.
    Mtu = 0x1c,
}

/// A station behind a radio.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Station {
    /// Station.
    pub wcid: u16,
    /// BSS.
    pub bss: u8,
    /// Ring.
    pub ring: u8,
}

/// What becomes of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It goes to the CPU as it is.
    Cpu {
        /// Why.
        reason: Reason,
        /// The slot of its entry, if it has one.
        slot: Option<u16>,
    },
    /// It is dropped: a checksum is wrong.
    Drop,
    /// It leaves by a port of the packet switching engine.
    Forward {
        /// The port.
        port: u8,
        /// The queue, if it goes through queues.
        queue: Option<u8>,
        /// The station, if the port is a radio.
        station: Option<Station>,
        /// The slot of its entry.
        slot: u16,
        /// What leaves.
        frame: Vec<u8>,
    },
}

/// Packets and bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes, of frames as they came in.
    pub bytes: u64,
}

/// Ageing, in ticks without a packet.
#[derive(Clone, Copy, Debug)]
pub struct Ages {
    /// Not in force.
    pub unbound: u16,
    /// UDP.
    pub udp: u16,
    /// TCP.
    pub tcp: u16,
    /// TCP that is over.
    pub fin: u16,
}

/// What registers tell an engine.
#[derive(Clone, Debug)]
pub struct Config {
    /// The generation.
    pub generation: Generation,
    /// Slots.
    pub entries: usize,
    /// Packets after which an entry that is not in force is reported.
    pub bind_rate: u16,
    /// The largest frames with no tag to three.
    pub mtu: [u16; 4],
    /// Ageing.
    pub ages: Ages,
    /// Frames with a wrong checksum in the IPv4 header are dropped.
    pub drop_ip4: bool,
    /// And those with a wrong one of TCP or UDP, over IPv4.
    pub drop_l4: bool,
    /// The SoC has radios behind the engine. Without, their bits are those of a meter.
    pub radios: bool,
}

impl Config {
    /// As the driver starts an engine.
    pub fn new(generation: Generation) -> Self {
        Config {
            generation,
            entries: 16384,
            bind_rate: 30,
            mtu: [1514, 1518, 1522, 1526],
            ages: Ages {
                unbound: 3,
                udp: 12,
                tcp: 7,
                fin: 1,
            },
            drop_ip4: true,
            drop_l4: true,
            radios: true,
        }
    }
}

/// Positions of bits in the two info blocks: low bit and number of bits.
struct Bits {
    size: usize,
    ways: usize,
    time: u32,
    layers: u32,
    pppoe: u32,
    tagged: u32,
    ttl: u32,
    kind: (u32, u32),
    port: (u32, u32),
    queue: (u32, u32),
    qos: u32,
    count: u32,
    station: u32,
}

const fn bits(generation: Generation) -> Bits {
    let v1 = matches!(generation, Generation::V1);
    let size = match generation {
        Generation::V1 => 80,
        Generation::V2 => 96,
        Generation::V3 => 128,
    };
    if v1 {
        Bits {
            size,
            ways: 2,
            time: 0x7fff,
            layers: 16,
            pppoe: 19,
            tagged: 20,
            ttl: 24,
            kind: (25, 3),
            port: (5, 3),
            queue: (0, 4),
            qos: 4,
            count: 10,
            station: 17,
        }
    } else {
        Bits {
            size,
            ways: 4,
            time: 0xff,
            layers: 14,
            pppoe: 17,
            tagged: 18,
            ttl: 22,
            kind: (23, 5),
            port: (9, 4),
            queue: (0, 7),
            qos: 8,
            count: 15,
            station: 19,
        }
    }
}

fn field(word: u32, (low, width): (u32, u32)) -> u32 {
    (word >> low) & ((1 << width) - 1)
}

fn bit(word: u32, at: u32) -> bool {
    (word >> at) & 1 != 0
}

const INVALID: u32 = 0;
const UNBIND: u32 = 1;
const BIND: u32 = 2;
const FIN: u32 = 3;

fn state(ib1: u32) -> u32 {
    (ib1 >> 28) & 3
}

const HNAPT: u32 = 0;
const ROUTE4: u32 = 1;
const DSLITE: u32 = 3;
const ROUTE6_3: u32 = 4;
const ROUTE6_5: u32 = 5;

/// The table, in memory that the driver reads and writes as well: each word may change at any time.
pub trait Memory {
    /// Reads a word.
    fn load(&self, word: usize) -> u32;

    /// Writes a word.
    fn store(&mut self, word: usize, value: u32);

    /// Writes a word if it still is what it was. False if it is not.
    fn replace(&mut self, word: usize, was: u32, value: u32) -> bool;
}

/// Memory that nobody else writes at the same time.
impl Memory for [u8] {
    fn load(&self, word: usize) -> u32 {
        u32::from_le_bytes(self[4 * word..][..4].try_into().unwrap())
    }

    fn store(&mut self, word: usize, value: u32) {
        self[4 * word..][..4].copy_from_slice(&value.to_le_bytes());
    }

    fn replace(&mut self, word: usize, was: u32, value: u32) -> bool {
        let same = self.load(word) == was;
        if same {
            self.store(word, value);
        }
        same
    }
}

/// One entry, in memory.
struct Entry<'a, M: Memory + ?Sized> {
    memory: &'a mut M,
    first: usize,
}

impl<M: Memory + ?Sized> Entry<'_, M> {
    fn word(&self, at: usize) -> u32 {
        self.memory.load(self.first + at / 4)
    }

    fn half(&self, at: usize) -> u16 {
        (self.word(at) >> (8 * (at & 2))) as u16
    }

    fn set(&mut self, at: usize, word: u32) {
        self.memory.store(self.first + at / 4, word);
    }

    fn ib1(&self) -> u32 {
        self.word(0)
    }

    /// A new first word, unless the driver has written one meanwhile.
    fn set_ib1(&mut self, was: u32, ib1: u32) -> bool {
        self.memory.replace(self.first, was, ib1)
    }
}

/// An engine.
pub struct Engine {
    /// What registers say. The generation and the number of slots stay.
    pub config: Config,
    /// The clock.
    pub now: u32,
    counts: Vec<Count>,
}

/// What a packet is compared by: type of entry, whether it is UDP, and the words after the first.
struct Key {
    kind: u32,
    udp: bool,
    words: Vec<u32>,
}

impl Key {
    fn of(p: &Parsed) -> Self {
        let (sport, dport) = p.ports.unwrap_or((0, 0));
        let ports = match p.ports {
            // The destination is in the lower half.
            Some(_) => (u32::from(sport) << 16) | u32::from(dport),
            None => 0xa5a5_a500 | u32::from(p.proto),
        };
        let (kind, mut words) = match &p.ip {
            Ip::V4 { src, dst } => (
                if p.ports.is_some() { HNAPT } else { ROUTE4 },
                vec![u32::from_be_bytes(*src), u32::from_be_bytes(*dst)],
            ),
            Ip::V6 { src, dst } => (
                if p.ports.is_some() {
                    ROUTE6_5
                } else {
                    ROUTE6_3
                },
                src.chunks(4)
                    .chain(dst.chunks(4))
                    .map(|c| u32::from_be_bytes(c.try_into().unwrap()))
                    .collect(),
            ),
        };
        words.push(ports);
        Key {
            kind,
            udp: p.proto == 17,
            words,
        }
    }

    fn hash(&self, entries: usize, ways: usize) -> usize {
        let w = &self.words;
        let [h1, h2, h3] = if w.len() == 3 {
            [w[2], w[1], w[0]]
        } else {
            [w[3] ^ w[7] ^ w[8], w[2] ^ w[6] ^ w[4], w[1] ^ w[5] ^ w[0]]
        };
        let mut h = (h1 & h2) | (!h1 & h3);
        h = h.rotate_left(8);
        h = h ^ h1 ^ h2 ^ h3;
        h ^= h >> 16;
        (h as usize * ways) & (entries - 1)
    }
}

impl Engine {
    /// An engine.
    pub fn new(config: Config) -> Self {
        Engine {
            now: 0,
            counts: vec![Count::default(); config.entries],
            config,
        }
    }

    /// Bytes of a table.
    pub fn table_size(&self) -> usize {
        self.config.entries * bits(self.config.generation).size
    }

    /// Reads a counter.
    pub fn count(&self, slot: u16) -> Count {
        self.counts[usize::from(slot)]
    }

    /// Entries in force.
    ///
    /// # Panics
    ///
    /// If the table is smaller than [`Self::table_size`].
    pub fn bound(&self, table: &(impl Memory + ?Sized)) -> usize {
        let words = bits(self.config.generation).size / 4;

        (0..self.config.entries)
            .filter(|slot| state(table.load(slot * words)) == BIND)
            .count()
    }

    /// Puts entries of somebody else into all free slots, or takes them away again. Nobody knows what
    /// they are for: no packet matches them, and they do not age.
    ///
    /// # Panics
    ///
    /// If the table is smaller than [`Self::table_size`].
    pub fn crowd(&self, table: &mut (impl Memory + ?Sized), full: bool) {
        let b = bits(self.config.generation);
        let theirs = (BIND << 28) | (DSLITE << b.kind.0);

        for first in (0..self.config.entries).map(|slot| slot * b.size / 4) {
            let ib1 = table.load(first);
            if full && state(ib1) != BIND {
                table.replace(first, ib1, theirs);
            } else if !full && ib1 == theirs {
                table.replace(first, ib1, 0);
            }
        }
    }

    /// Reads a counter, and clears it.
    pub fn take_count(&mut self, slot: u16) -> Count {
        std::mem::take(&mut self.counts[usize::from(slot)])
    }

    /// A frame comes in.
    ///
    /// # Panics
    ///
    /// If the table is smaller than [`Self::table_size`].
    pub fn receive(&mut self, table: &mut (impl Memory + ?Sized), frame: &[u8]) -> Verdict {
        let cpu = |reason, slot| Verdict::Cpu { reason, slot };
        let p = match frame::parse(frame) {
            Ok(p) => p,
            Err(reason) => return cpu(reason, None),
        };
        let (ip, l4) = frame::sums(&frame[p.offset..][..p.len]);
        if !ip && self.config.drop_ip4 || !l4 && self.config.drop_l4 {
            return Verdict::Drop;
        }
        let b = bits(self.config.generation);
        let key = Key::of(&p);
        let bucket = key.hash(self.config.entries, b.ways);
        let mut free = None;

        for slot in bucket..bucket + b.ways {
            let mut e = Entry {
                memory: table,
                first: slot * b.size / 4,
            };
            let ib1 = e.ib1();
            if bit(ib1, 31) {
                continue;
            }
            let same = state(ib1) != INVALID
                && field(ib1, b.kind) == key.kind
                && bit(ib1, 30) == key.udp
                && key
                    .words
                    .iter()
                    .enumerate()
                    .all(|(n, w)| e.word(4 + 4 * n) == *w);
            if same {
                return self.hit(&mut e, slot as u16, &p, frame);
            }
            if free.is_none() && matches!(state(ib1), INVALID | FIN) {
                free = Some((slot, ib1));
            }
        }
        if p.tcp_end {
            return cpu(Reason::TcpFlags, None);
        }
        let Some((slot, was)) = free else {
            return cpu(Reason::Miss, None);
        };

        // It is remembered.
        let mut e = Entry {
            memory: table,
            first: slot * b.size / 4,
        };
        let seen = (1 << 8) | self.now & 0xff;
        let ib1 = (UNBIND << 28) | (key.kind << b.kind.0) | (u32::from(key.udp) << 30) | seen;
        if !e.set_ib1(was, ib1) {
            return cpu(Reason::Miss, None);
        }
        for at in (4..b.size).step_by(4) {
            e.set(at, key.words.get(at / 4 - 1).copied().unwrap_or(0));
        }
        cpu(Reason::Unbound, Some(slot as u16))
    }

    fn hit<M: Memory + ?Sized>(
        &mut self,
        e: &mut Entry<'_, M>,
        slot: u16,
        p: &Parsed,
        frame: &[u8],
    ) -> Verdict {
        let b = bits(self.config.generation);
        let ib1 = e.ib1();
        let cpu = |reason| Verdict::Cpu {
            reason,
            slot: Some(slot),
        };

        match state(ib1) {
            UNBIND => {
                let seen = ((ib1 >> 8) & 0xffff).saturating_add(1).min(0xffff);
                e.set_ib1(ib1, ib1 & 0xff00_0000 | (seen << 8) | self.now & 0xff);
                return cpu(match seen >= self.config.bind_rate.into() {
                    true => Reason::UnboundRate,
                    false => Reason::Unbound,
                });
            }
            BIND => {}
            _ => return cpu(Reason::Unbound),
        }
        if p.tcp_end {
            e.set_ib1(ib1, ib1 & !(3 << 28) | (FIN << 28));
            return cpu(Reason::BoundFin);
        }
        if bit(ib1, b.ttl) && p.ttl <= 1 {
            return cpu(Reason::Ttl);
        }

        let v4 = field(ib1, b.kind) <= ROUTE4;
        let (ib2, l2) = if v4 {
            (e.word(16), 44)
        } else {
            (e.word(56), 60)
        };
        let tags = field(ib1, (b.layers, 3)) as usize;
        let pppoe = bit(ib1, b.pppoe);
        let radio = self.config.radios && bit(ib2, b.station);

        // Around the packet.
        let mut out = Vec::with_capacity(frame.len() + 16);
        for (hi, lo) in [(4, 10), (12, 18)] {
            out.extend(e.word(l2 + hi).to_be_bytes());
            out.extend(e.half(l2 + lo).to_be_bytes());
        }
        for n in 0..tags {
            // A switch's special tag stands where the EtherType of the first one would.
            let tpid = match n == 0 && !bit(ib1, b.tagged) {
                true => e.half(l2 + 2),
                false => 0x8100,
            };
            out.extend(tpid.to_be_bytes());
            out.extend(e.half(l2 + [0, 8][n.min(1)]).to_be_bytes());
        }
        let mut packet = frame[p.offset..p.offset + p.len].to_vec();
        if pppoe {
            out.extend([0x88, 0x64, 0x11, 0]);
            out.extend(e.half(l2 + 16).to_be_bytes());
            out.extend((packet.len() as u16 + 2).to_be_bytes());
            out.extend(if v4 { [0, 0x21] } else { [0, 0x57] });
        } else {
            out.extend(if v4 { [8, 0] } else { [0x86, 0xdd] });
        }
        let limit = self.config.mtu[(tags + usize::from(pppoe)).min(3)];
        if out.len() + packet.len() > limit.into() {
            return cpu(Reason::Mtu);
        }

        // And the packet itself.
        if bit(ib1, b.ttl) {
            packet[if v4 { 8 } else { 7 }] -= 1;
        }
        if v4 {
            let ports = (field(ib1, b.kind) == HNAPT).then(|| (e.half(30), e.half(28)));
            frame::rewrite4(&mut packet, e.word(20), e.word(24), ports);
        }
        out.extend(packet);

        e.set_ib1(ib1, ib1 & !b.time | self.now & b.time);
        if bit(ib2, b.count) {
            let count = &mut self.counts[usize::from(slot)];
            count.packets += 1;
            count.bytes += frame.len() as u64;
        }
        let station = radio.then(|| match self.config.generation {
            Generation::V1 => {
                let info = e.half(l2 + 8);
                Station {
                    wcid: (info >> 6) & 0xff,
                    bss: (info & 0x3f) as u8,
                    ring: (info >> 14) as u8,
                }
            }
            Generation::V2 => {
                let info = e.half(l2 + 22);
                Station {
                    wcid: info >> 6,
                    bss: (info & 0x3f) as u8,
                    ring: field(ib2, (17, 2)) as u8,
                }
            }
            Generation::V3 => {
                let info = e.word(l2 + 24);
                Station {
                    wcid: info as u16,
                    bss: (info >> 16) as u8,
                    ring: field(ib2, (17, 2)) as u8,
                }
            }
        });
        Verdict::Forward {
            port: field(ib2, b.port) as u8,
            queue: bit(ib2, b.qos).then(|| field(ib2, b.queue) as u8),
            station,
            slot,
            frame: out,
        }
    }

    /// The scanner: lets go of what is old, and of connections that are over.
    ///
    /// # Panics
    ///
    /// If the table is smaller than [`Self::table_size`].
    pub fn scan(&mut self, table: &mut (impl Memory + ?Sized)) {
        let b = bits(self.config.generation);
        let ages = self.config.ages;

        for slot in 0..self.config.entries {
            let mut e = Entry {
                memory: table,
                first: slot * b.size / 4,
            };
            let ib1 = e.ib1();
            if field(ib1, b.kind) == DSLITE {
                continue;
            }
            let (mask, limit) = match state(ib1) {
                UNBIND => (0xff, ages.unbound),
                BIND if bit(ib1, 30) => (b.time, ages.udp),
                BIND => (b.time, ages.tcp),
                FIN => (b.time, ages.fin),
                _ => continue,
            };
            let idle = self.now.wrapping_sub(ib1 & mask) & mask;
            if idle > limit.into() {
                e.set_ib1(ib1, ib1 & !(3 << 28));
            }
        }
    }
}
