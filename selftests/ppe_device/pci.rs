// SPDX-License-Identifier: GPL-2.0

//! The PCI device: its configuration space, its BAR, and what QEMU says about the guest's memory.

use crate::engine::Shared;
use crate::registers::{
    Chip,
    SIZE, //
};
use std::fs::File;
use std::io;
use std::sync::Arc;
use vfio_bindings::bindings::vfio::{
    vfio_region_info,
    VFIO_PCI_BAR0_REGION_INDEX,
    VFIO_PCI_CONFIG_REGION_INDEX,
    VFIO_PCI_NUM_IRQS,
    VFIO_PCI_NUM_REGIONS,
    VFIO_REGION_INFO_FLAG_READ,
    VFIO_REGION_INFO_FLAG_WRITE, //
};
use vfio_user::{
    DmaMapFlags,
    DmaUnmapFlags,
    IrqInfo,
    ServerBackend,
    ServerRegion, //
};

/// Bytes of configuration space.
const CONFIG: usize = 256;

/// The device.
pub(crate) struct Device {
    shared: Arc<Shared>,
    config: [u8; CONFIG],
}

/// What QEMU is told about regions: the BAR and the configuration space.
pub(crate) fn regions() -> Vec<ServerRegion> {
    (0..VFIO_PCI_NUM_REGIONS)
        .map(|index| {
            let size = match index {
                VFIO_PCI_CONFIG_REGION_INDEX => CONFIG,
                VFIO_PCI_BAR0_REGION_INDEX => SIZE,
                _ => 0,
            };
            ServerRegion {
                region_info: vfio_region_info {
                    argsz: size_of::<vfio_region_info>() as u32,
                    index,
                    size: size as u64,
                    flags: match size {
                        0 => 0,
                        _ => VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE,
                    },
                    ..Default::default()
                },
                sparse_areas: Vec::new(),
                mmap_fd: None,
            }
        })
        .collect()
}

/// And about interrupts: there are none.
pub(crate) fn irqs() -> Vec<IrqInfo> {
    (0..VFIO_PCI_NUM_IRQS)
        .map(|index| IrqInfo {
            index,
            count: 0,
            flags: 0,
        })
        .collect()
}

impl Device {
    /// A device.
    pub(crate) fn new(shared: Arc<Shared>, chip: Chip) -> Self {
        let mut config = [0; CONFIG];

        // Red Hat's, who gives numbers to what there is in virtual machines only.
        config[0..2].copy_from_slice(&0x1b36u16.to_le_bytes());
        config[2..4].copy_from_slice(&chip.id.to_le_bytes());
        // A network controller of another kind. BAR 0 is memory of 32 bits, which is all zeroes.
        config[0x0a] = 0x80;
        config[0x0b] = 0x02;
        Device { shared, config }
    }
}

fn outside() -> io::Error {
    io::Error::other("access outside of a region")
}

impl ServerBackend for Device {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;

        match region {
            VFIO_PCI_CONFIG_REGION_INDEX => {
                let from = self.config.get(at..at + data.len()).ok_or_else(outside)?;
                data.copy_from_slice(from);
            }
            VFIO_PCI_BAR0_REGION_INDEX => {
                let fe = &self.shared.lock().fe;
                for (n, byte) in data.iter_mut().enumerate() {
                    let word = fe.read((at + n) & !3);
                    *byte = word.to_le_bytes()[(at + n) & 3];
                }
            }
            _ => return Err(outside()),
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;

        match region {
            VFIO_PCI_CONFIG_REGION_INDEX => {
                for (at, byte) in (at..).zip(data) {
                    // The command register, and the BAR down to its size.
                    match at {
                        4 | 5 => self.config[at] = *byte,
                        0x11 => self.config[at] = *byte & !(SIZE as u64 - 1).to_le_bytes()[1],
                        0x12 | 0x13 => self.config[at] = *byte,
                        _ => {}
                    }
                }
            }
            VFIO_PCI_BAR0_REGION_INDEX => {
                let word = <[u8; 4]>::try_from(data).map_err(io::Error::other)?;
                self.shared.lock().fe.write(at, u32::from_le_bytes(word));
            }
            _ => return Err(outside()),
        }
        Ok(())
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        fd: Option<File>,
    ) -> io::Result<()> {
        let Some(file) = fd else {
            return Ok(());
        };
        let writable = flags.contains(DmaMapFlags::READ_WRITE);

        self.shared
            .lock()
            .maps
            .add(address, size, offset, &file, writable)
    }

    fn dma_unmap(&mut self, flags: DmaUnmapFlags, address: u64, size: u64) -> io::Result<()> {
        let maps = &mut self.shared.lock().maps;

        match flags.contains(DmaUnmapFlags::UNMAP_ALL) {
            true => maps.remove(0, u64::MAX),
            false => maps.remove(address, size),
        }
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        self.shared.lock().fe.reset();
        Ok(())
    }

    fn set_irqs(&mut self, _: u32, _: u32, _: u32, _: u32, _: Vec<File>) -> io::Result<()> {
        Ok(())
    }
}
