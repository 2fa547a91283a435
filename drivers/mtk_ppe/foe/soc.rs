// SPDX-License-Identifier: GPL-2.0

//! The SoCs that have an engine, as data.

use crate::hal::{
    self,
    Hal, //
};

/// One SoC.
pub struct Soc {
    /// Its name.
    pub name: &'static str,
    /// Its generation.
    pub hal: &'static dyn Hal,
    /// Ways of a bucket, and the distance of buckets.
    pub ways: u8,
    /// Engines.
    pub engines: u8,
    /// Whether packets can be counted.
    pub counts: bool,
    /// The meter group of entries that are not metered.
    pub port_mg: u32,
    /// Entries must not cross a boundary of 1024 bytes.
    pub no_crossing: bool,
    /// Where the first engine is in the frame engine's registers.
    pub base: u32,
}

/// MT7621. The kernel does not build Rust for MIPS: known for what can be tested of it.
pub static MT7621: Soc = FIRST;

const FIRST: Soc = Soc {
    name: "mt7621",
    hal: hal::V1,
    ways: 2,
    engines: 1,
    counts: false,
    port_mg: 0x3f,
    no_crossing: true,
    base: 0x0c00,
};

/// MT7623.
pub static MT7623: Soc = Soc {
    name: "mt7623",
    no_crossing: false,
    ..FIRST
};

/// MT7622.
pub static MT7622: Soc = Soc {
    name: "mt7622",
    counts: true,
    port_mg: 0,
    no_crossing: false,
    ..FIRST
};

/// MT7981 and MT7986.
pub static MT7986: Soc = SECOND;

const SECOND: Soc = Soc {
    name: "mt7986",
    hal: hal::V2,
    ways: 4,
    engines: 2,
    counts: true,
    port_mg: 0,
    no_crossing: false,
    base: 0x2000,
};

/// MT7988.
pub static MT7988: Soc = Soc {
    name: "mt7988",
    hal: hal::V3,
    engines: 3,
    ..SECOND
};

/// All of them.
pub static ALL: [&Soc; 5] = [&MT7621, &MT7623, &MT7622, &MT7986, &MT7988];

impl Soc {
    /// Bytes of a table.
    pub fn table_size(&self) -> usize {
        crate::ENTRIES * self.hal.entry_size()
    }

    /// Where engine `index` is in the frame engine's registers.
    pub const fn window(&self, index: u8) -> u32 {
        // There is something else between the second and the third.
        let gap = if index == 2 { 0x400 } else { 0 };
        self.base + index as u32 * 0x400 + gap
    }

    /// Whether the engine must not use the slot.
    pub fn is_reserved(&self, slot: usize) -> bool {
        let size = self.hal.entry_size();
        let (first, last) = (slot * size, slot * size + size - 1);

        self.no_crossing && first / 1024 != last / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows() {
        assert_eq!(MT7622.window(0), 0x0c00);
        assert_eq!(
            [0, 1, 2].map(|i| MT7988.window(i)),
            [0x2000, 0x2400, 0x2c00]
        );
        assert_eq!(MT7988.table_size(), 2 << 20);
    }

    #[test]
    fn reserved() {
        let of_128: Vec<_> = (0..128).filter(|&i| MT7621.is_reserved(i)).collect();
        // The kernel's driver has all but the last: quirk B6.
        assert_eq!(of_128, [12, 25, 38, 51, 76, 89, 102, 115]);
        assert!((0..crate::ENTRIES).all(|i| MT7621.is_reserved(i) == of_128.contains(&(i % 128))));
        assert!((0..crate::ENTRIES).all(|i| !MT7986.is_reserved(i) && !MT7622.is_reserved(i)));
    }
}
