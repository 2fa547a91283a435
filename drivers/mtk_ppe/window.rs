// SPDX-License-Identifier: GPL-2.0

//! Registers and table memory of an engine, as `mtk_foe` wants them.

use kernel::{
    dma::Coherent,
    sync::{
        barrier::{
            dma_mb,
            Full, //
        },
        Arc, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};
use mtk_foe::regs;

/// How much of the frame engine's registers is needed: to the end of the third engine.
pub(super) const SIZE: usize = 0x3000;

/// The frame engine's registers. When the device is gone they read as all ones, like those of
/// hardware that is.
pub(super) trait Registers: Send + Sync {
    /// Reads the register at `at`.
    fn get(&self, at: usize) -> u32;

    /// Writes it.
    fn set(&self, at: usize, value: u32);
}

/// Implements [`Registers`] for a mapping that is revoked with its device.
macro_rules! registers {
    ($type:ty) => {
        impl $crate::drivers::mtk_ppe::window::Registers for $type {
            fn get(&self, at: usize) -> u32 {
                let read = |io: &_| kernel::io::Io::try_read32(io, at).ok();
                self.try_access().and_then(|io| read(&*io)).unwrap_or(!0)
            }

            fn set(&self, at: usize, value: u32) {
                if let Some(io) = self.try_access() {
                    // Within the mapping, which is at least `SIZE` long.
                    let _ = kernel::io::Io::try_write32(&*io, value, at);
                }
            }
        }
    };
}
pub(super) use registers;

/// The registers of one engine.
pub(super) struct Window {
    pub(super) registers: Arc<dyn Registers>,
    /// Where they start.
    pub(super) base: usize,
}

impl regs::Window for Window {
    fn read(&self, reg: u32) -> u32 {
        self.registers.get(self.base + reg as usize)
    }

    fn write(&self, reg: u32, value: u32) {
        self.registers.set(self.base + reg as usize, value);
    }

    fn clock(&self) -> u32 {
        self.registers.get(regs::FE_CLOCK as usize)
    }

    fn wait_us(&self, us: u32) {
        fsleep(Delta::from_micros(us.into()));
    }
}

/// The table of one engine.
pub(super) struct Table(pub(super) Coherent<[u32]>);

impl Table {
    fn word(&self, at: usize) -> *mut u32 {
        assert!(at < self.0.len());
        // CAST: To the first word. It stays within the slice, as was just checked.
        self.0.as_mut_ptr().cast::<u32>().wrapping_add(at)
    }
}

impl mtk_foe::Memory for Table {
    fn load(&self, word: usize) -> u32 {
        // SAFETY: A word of the memory, which lives as long as `self`. The engine may write it at
        // the same time: hence volatile, and words are not torn.
        u32::from_le(unsafe { self.word(word).read_volatile() })
    }

    fn store(&self, word: usize, value: u32) {
        // SAFETY: As for `load`. Software has the engine for itself when it writes.
        unsafe { self.word(word).write_volatile(value.to_le()) };
    }

    fn barrier(&self) {
        dma_mb(Full);
    }
}
