// SPDX-License-Identifier: GPL-2.0

//! The frame engine's registers, and the engines that they control.

use crate::memory::{
    Cache,
    Maps, //
};
use ppe_model::{
    Ages,
    Config,
    Engine,
    Generation,
    Verdict, //
};

/// Bytes of the BAR.
pub(crate) const SIZE: usize = 0x4000;
/// Behind the registers: the addresses of the MACs, 8 bytes each.
const MACS: usize = 0x3000;
/// The frame engine's clock.
const CLOCK: usize = 0x0010;

// Of one engine, from the start of its window.
const GLO_CFG: usize = 0x200;
const FLOW_CFG: usize = 0x204;
const TB_CFG: usize = 0x21c;
const TB_BASE: usize = 0x220;
const TB_USED: usize = 0x224;
const BIND_RATE: usize = 0x228;
const UNBIND_AGE: usize = 0x238;
const BIND_AGE0: usize = 0x23c;
const BIND_AGE1: usize = 0x240;
const VLAN_MTU0: usize = 0x30c;
const VLAN_MTU1: usize = 0x310;
const CACHE_CTL: usize = 0x320;
const MIB_CFG: usize = 0x334;
const MIB_TB_BASE: usize = 0x338;
const MIB_SER_CR: usize = 0x33c;
const MIB_SER_R0: usize = 0x340;

/// A SoC, as far as the device is concerned.
#[derive(Clone, Copy)]
pub(crate) struct Chip {
    /// Its number.
    pub(crate) id: u16,
    generation: Generation,
    windows: &'static [usize],
}

/// All that there are.
pub(crate) const CHIPS: [Chip; 3] = [
    Chip {
        id: 0x7622,
        generation: Generation::V1,
        windows: &[0x0c00],
    },
    Chip {
        id: 0x7986,
        generation: Generation::V2,
        windows: &[0x2000, 0x2400],
    },
    Chip {
        id: 0x7988,
        generation: Generation::V3,
        windows: &[0x2000, 0x2400, 0x2c00],
    },
];

impl Chip {
    /// Its name.
    pub(crate) fn name(&self) -> String {
        format!("mt{:x}", self.id)
    }
}

/// The frame engine.
pub(crate) struct FrameEngine {
    chip: Chip,
    words: Vec<u32>,
    engines: Vec<Engine>,
    caches: Vec<Cache>,
    clock: u32,
    /// The clock only goes on when it is told to.
    pub(crate) stopped: bool,
}

/// What the bits say in which the address of a MAC is.
fn mac(n: usize) -> [u8; 8] {
    [0x02, 0x11, 0x22, 0x33, 0x44, 0x54 + n as u8, 0, 0]
}

impl FrameEngine {
    /// Out of reset.
    pub(crate) fn new(chip: Chip) -> Self {
        let engine = |_: &usize| Engine::new(Config::new(chip.generation));
        let mut fe = FrameEngine {
            chip,
            words: vec![0; SIZE / 4],
            engines: chip.windows.iter().map(engine).collect(),
            caches: chip.windows.iter().map(|_| Cache::default()).collect(),
            clock: 0x1234,
            stopped: false,
        };
        fe.reset();
        fe
    }

    /// All registers as after power-on. What is in memory stays there.
    pub(crate) fn reset(&mut self) {
        self.words.fill(0);
        self.caches.iter_mut().for_each(Cache::clear);
        for n in 0..3 {
            let (low, high) = (MACS / 4 + 2 * n, MACS / 4 + 2 * n + 1);
            let [a, b, c, d, e, f, g, h] = mac(n);
            self.words[low] = u32::from_le_bytes([a, b, c, d]);
            self.words[high] = u32::from_le_bytes([e, f, g, h]);
        }
    }

    fn reg(&self, n: usize, reg: usize) -> u32 {
        self.words[(self.chip.windows[n] + reg) / 4]
    }

    fn set_reg(&mut self, n: usize, reg: usize, value: u32) {
        self.words[(self.chip.windows[n] + reg) / 4] = value;
    }

    /// The register at `at`.
    pub(crate) fn read(&self, at: usize) -> u32 {
        match at {
            CLOCK => self.clock,
            _ => self.words.get(at / 4).copied().unwrap_or(!0),
        }
    }

    /// Writes it.
    pub(crate) fn write(&mut self, at: usize, value: u32) {
        if at >= MACS || at == CLOCK {
            return;
        }
        self.words[at / 4] = value;
        for n in 0..self.engines.len() {
            if (self.chip.windows[n]..self.chip.windows[n] + 0x400).contains(&at) {
                self.configure(n);
                if at == self.chip.windows[n] + MIB_SER_CR && value & (1 << 16) != 0 {
                    self.read_counter(n, (value & 0x3fff) as u16);
                }
            }
        }
    }

    /// Tells an engine what its registers say.
    fn configure(&mut self, n: usize) {
        let ages = self.reg(n, TB_CFG);
        // Never, if it is not to age.
        let age = |bit: u32, value: u32| match ages & (1 << bit) != 0 {
            true => (value & 0x7fff) as u16,
            false => u16::MAX,
        };
        let mtu = [self.reg(n, VLAN_MTU0), self.reg(n, VLAN_MTU1)];
        let (age0, age1) = (self.reg(n, BIND_AGE0), self.reg(n, BIND_AGE1));
        // Cleared, or not used.
        if self.reg(n, CACHE_CTL) & 0x201 != 1 {
            self.caches[n].clear();
        }
        let config = Config {
            bind_rate: self.reg(n, BIND_RATE) as u16,
            mtu: [mtu[0], mtu[0] >> 16, mtu[1], mtu[1] >> 16].map(|m| (m & 0x3fff) as u16),
            ages: Ages {
                unbound: age(8, self.reg(n, UNBIND_AGE) & 0xff),
                udp: age(10, age0),
                tcp: age(9, age1),
                fin: age(11, age1 >> 16),
            },
            drop_ip4: self.reg(n, GLO_CFG) & (1 << 3) != 0,
            drop_l4: self.reg(n, GLO_CFG) & (1 << 2) != 0,
            ..self.engines[n].config.clone()
        };
        self.engines[n].config = config;
    }

    fn read_counter(&mut self, n: usize, slot: u16) {
        let clears = self.reg(n, MIB_CFG) & 2 != 0;
        let engine = &mut self.engines[n];
        let count = match clears {
            true => engine.take_count(slot),
            false => engine.count(slot),
        };
        let (p, b) = (count.packets, count.bytes);
        let words = match self.chip.generation {
            Generation::V1 | Generation::V2 => [
                b as u32,
                ((p as u32) << 16) | ((b >> 32) as u32 & 0xffff),
                (p >> 16) as u32 & 0x00ff_ffff,
                0,
            ],
            Generation::V3 => [b as u32, (b >> 32) as u32, p as u32, (p >> 32) as u32],
        };
        for (at, word) in words.into_iter().enumerate() {
            self.set_reg(n, MIB_SER_R0 + 4 * at, word);
        }
        // Done.
        self.set_reg(n, MIB_SER_CR, u32::from(slot));
    }

    /// The engine, if it runs, and how large and where its table is.
    fn running(&self, n: usize) -> Option<(u64, usize)> {
        let entries = 1024 << (self.reg(n, TB_CFG) & 7);
        let engine = &self.engines[n];
        let runs = self.reg(n, GLO_CFG) & 1 != 0
            && self.reg(n, FLOW_CFG) != 0
            && entries == engine.config.entries;

        runs.then(|| (self.reg(n, TB_BASE).into(), engine.table_size()))
    }

    /// A frame comes in by a port. None: no engine has looked at it.
    pub(crate) fn receive(&mut self, maps: &Maps, port: usize, frame: &[u8]) -> Option<Verdict> {
        let n = if self.engines.len() == 1 { 0 } else { port };
        let (base, size) = self.running(n)?;
        let table = maps.table(base, size)?;
        let counts = self.reg(n, MIB_CFG) & 1 != 0 && self.reg(n, MIB_TB_BASE) != 0;
        let cached = self.reg(n, CACHE_CTL) & 1 != 0;
        let verdict = self.engines[n].receive(&mut self.caches[n].of(table, cached), frame);

        if let (Verdict::Forward { slot, .. }, false) = (&verdict, counts) {
            self.engines[n].take_count(*slot);
        }
        Some(verdict)
    }

    /// Time goes on.
    pub(crate) fn tick(&mut self, maps: &Maps, ticks: u32) {
        self.clock = self.clock.wrapping_add(ticks);
        for n in 0..self.engines.len() {
            self.engines[n].now = self.clock;
            let scans = (self.reg(n, TB_CFG) >> 16) & 3 == 1;
            if let Some((base, size)) = self.running(n).filter(|_| scans) {
                if let Some(table) = maps.table(base, size) {
                    self.engines[n].scan(&mut self.caches[n].of(table, false));
                }
            }
        }
    }

    /// Whether any engine runs.
    pub(crate) fn runs(&self) -> bool {
        (0..self.engines.len()).any(|n| self.running(n).is_some())
    }

    /// Entries in force, in all engines.
    pub(crate) fn used(&mut self, maps: &Maps) -> usize {
        let mut all = 0;
        for n in 0..self.engines.len() {
            let table = self.running(n).and_then(|(b, s)| maps.table(b, s));
            let used = table.map_or(0, |t| self.engines[n].bound(&t));
            self.set_reg(n, TB_USED, used as u32);
            all += used;
        }
        all
    }

    /// Fills all tables with entries of somebody else, or takes those away again.
    pub(crate) fn crowd(&mut self, maps: &Maps, full: bool) {
        for n in 0..self.engines.len() {
            let table = self.running(n).and_then(|(b, s)| maps.table(b, s));
            if let Some(mut table) = table {
                self.engines[n].crowd(&mut table, full);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_and_clock() {
        let mut fe = FrameEngine::new(CHIPS[0]);
        assert_eq!((fe.read(MACS), fe.read(MACS + 12)), (0x3322_1102, 0x5544));
        fe.write(MACS, 1);
        fe.write(CLOCK, 1);
        fe.write(0x0c00 + TB_BASE, 0x1000);
        assert_eq!(fe.read(MACS), 0x3322_1102);
        assert_eq!(fe.read(0x0c00 + TB_BASE), 0x1000);
        assert_eq!(fe.read(SIZE), !0);
        fe.tick(&Maps::default(), 3);
        assert_eq!(fe.read(CLOCK), 0x1237);
        fe.reset();
        assert_eq!(fe.read(0x0c00 + TB_BASE), 0);
        assert!(!fe.runs());
    }

    #[test]
    fn what_registers_say() {
        for chip in CHIPS {
            let base = chip.windows[0];
            let mut fe = FrameEngine::new(chip);
            fe.write(base + BIND_AGE0, 0x0001_000c);
            fe.write(base + BIND_AGE1, 0x0002_0007);
            fe.write(base + UNBIND_AGE, 0x03e8_0003);
            fe.write(base + VLAN_MTU0, 0x05ee_05ea);
            fe.write(base + VLAN_MTU1, 0x05f6_05f2);
            fe.write(base + GLO_CFG, 0x9);
            // All but TCP ages.
            fe.write(base + TB_CFG, 4 | 0xd80);
            let config = &fe.engines[0].config;
            assert_eq!(config.mtu, [1514, 1518, 1522, 1526]);
            let ages = &config.ages;
            assert_eq!(
                (ages.unbound, ages.udp, ages.tcp, ages.fin),
                (3, 12, u16::MAX, 2)
            );
            assert!(config.drop_ip4 && !config.drop_l4);
            assert!(!fe.runs());
            fe.write(base + FLOW_CFG, 0x2000);
            assert!(fe.runs());
        }
    }
}
