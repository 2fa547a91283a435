// SPDX-License-Identifier: GPL-2.0

//! The table in memory, and the choice of a slot.

use crate::entry::{
    ib1,
    Foe,
    Key,
    State, //
};
use crate::soc::Soc;

/// The table, in memory that the engine reads and writes: each word may change at any time.
pub trait Memory {
    /// Reads a word.
    fn load(&self, word: usize) -> u32;

    /// Writes a word.
    fn store(&self, word: usize, value: u32);

    /// What was written before is visible to the engine before what is written after.
    fn barrier(&self);
}

/// Reads an entry. The engine may change it meanwhile.
pub fn read(m: &impl Memory, soc: &Soc, slot: u16) -> Foe {
    let mut foe = Foe::ZERO;
    let words = soc.hal.entry_size() / 4;

    for word in 0..words {
        foe.set_word(word * 4, m.load(usize::from(slot) * words + word));
    }
    foe
}

/// The state word of an entry.
pub fn read_ib1(m: &impl Memory, soc: &Soc, slot: u16) -> u32 {
    m.load(usize::from(slot) * (soc.hal.entry_size() / 4))
}

/// Writes the state word of an entry.
pub fn write_ib1(m: &impl Memory, soc: &Soc, slot: u16, ib1: u32) {
    m.barrier();
    m.store(usize::from(slot) * (soc.hal.entry_size() / 4), ib1);
    m.barrier();
}

/// Writes an entry so that the engine never uses half of it: state last.
pub fn publish(m: &impl Memory, soc: &Soc, slot: u16, foe: &Foe) {
    let words = soc.hal.entry_size() / 4;
    let base = usize::from(slot) * words;

    for (n, word) in foe.words().iter().enumerate().take(words).skip(1) {
        m.store(base + n, *word);
    }
    write_ib1(m, soc, slot, foe.ib1());
}

/// Whether two entries are the same to the engine.
pub fn same_key(soc: &Soc, foe: &Foe, key: &Key) -> bool {
    crate::hal::packet_type(soc.hal, foe.ib1()).is_some_and(|of| foe.key(of) == *key)
}

/// What a bucket has for a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    /// Write it here.
    Free(u16),
    /// It is in force here already.
    Bound(u16),
    /// Every slot of the bucket is in force for others.
    Collision,
}

/// Looks for a slot. The engine stops at the first entry with a packet's key, so one that it has
/// made itself for this key has to be the one; then an empty slot, then one whose connection is
/// over, then one that another flow's packets have only announced.
pub fn choose(m: &impl Memory, soc: &Soc, bucket: u16, key: &Key) -> Choice {
    let mut best: Option<(u8, u16)> = None;

    for way in 0..u16::from(soc.ways) {
        let slot = bucket.wrapping_add(way);
        let foe = read(m, soc, slot);
        if ib1::STATIC.get(foe.ib1()) != 0 {
            continue;
        }
        let rank = match foe.state() {
            State::Bind if same_key(soc, &foe, key) => return Choice::Bound(slot),
            State::Bind => continue,
            State::Unbind if same_key(soc, &foe, key) => 0,
            State::Invalid => 1,
            State::Fin => 2,
            State::Unbind => 3,
        };
        if best.is_none_or(|(r, _)| rank < r) {
            best = Some((rank, slot));
        }
    }

    best.map_or(Choice::Collision, |(_, slot)| Choice::Free(slot))
}
