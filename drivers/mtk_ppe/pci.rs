// SPDX-License-Identifier: GPL-2.0

//! An engine as a PCI device: a model of it outside of the guest, for tests.
//!
//! BAR 0 has the frame engine's registers where an SoC has them, and behind those what a device
//! tree says on a board: the addresses of the MACs.

use super::{
    engine::{
        self,
        Engines,
        Text, //
    },
    window::{
        registers,
        Registers,
        SIZE, //
    }, //
};
use kernel::{
    debugfs::Scope,
    device::Core,
    dma::{
        Device as _,
        DmaMask, //
    },
    pci,
    prelude::*,
    sync::Arc, //
};
use mtk_foe::soc::{
    self,
    Soc, //
};
use nft_flow::desc::Mac;

/// Bytes of the BAR.
const BAR: usize = 0x4000;
/// Where the addresses of the MACs are: 8 bytes each.
const MACS: usize = SIZE;

registers!(pci::DevresBar<BAR>);

/// The driver.
pub(super) struct Driver;

/// A device.
pub(super) struct Device {
    // Before the engines: it looks at them.
    _debugfs: KVec<Pin<KBox<Scope<Text>>>>,
    engines: Arc<Engines>,
}

kernel::pci_device_table!(
    PCI_TABLE,
    <Driver as pci::Driver>::IdInfo,
    [
        (
            pci::DeviceId::from_id(pci::Vendor::REDHAT, 0x7622),
            &soc::MT7622
        ),
        (
            pci::DeviceId::from_id(pci::Vendor::REDHAT, 0x7986),
            &soc::MT7986
        ),
        (
            pci::DeviceId::from_id(pci::Vendor::REDHAT, 0x7988),
            &soc::MT7988
        ),
    ]
);

impl pci::Driver for Driver {
    type IdInfo = &'static Soc;
    type Data<'bound> = Device;
    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn probe<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Device, Error> + 'bound {
        let soc: &'static Soc = info.ok_or(ENODEV)?;

        pdev.enable_device_mem()?;
        pdev.set_master();
        // SAFETY: Nothing is allocated or mapped yet.
        unsafe { pdev.dma_set_mask_and_coherent(DmaMask::new::<32>())? };
        let bar = pdev
            .iomap_region_sized::<BAR>(0, c"nft_offload_ppe")?
            .into_devres()?;
        let bar: Arc<dyn Registers> = Arc::new(bar, GFP_KERNEL)?;

        let macs = core::array::from_fn(|n| -> Mac {
            let [a, b, c, d] = bar.get(MACS + 8 * n).to_le_bytes();
            let [e, f, ..] = bar.get(MACS + 8 * n + 4).to_le_bytes();
            [a, b, c, d, e, f]
        });
        let engines = Engines::new(pdev.as_ref(), soc, bar, macs)?;
        let debugfs = engine::debugfs(&engines)?;
        engines.start();
        crate::drivers::add(engines.clone()).inspect_err(|_| engines.stop(pdev.as_ref()))?;
        dev_info!(
            pdev,
            "model of the packet processing engine of {}\n",
            soc.name
        );
        Ok(Device {
            _debugfs: debugfs,
            engines,
        })
    }

    fn unbind<'bound>(pdev: &'bound pci::Device<Core<'_>>, this: Pin<&Device>) {
        crate::drivers::remove(&*this.engines);
        this.engines.stop(pdev.as_ref());
    }
}
