// SPDX-License-Identifier: GPL-2.0

//! An engine in a device tree: dts/nft-offload,ppe.yaml.

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
use crate::ffi::c;
use kernel::{
    debugfs::Scope,
    device::Core,
    io::{
        mem::DevresIoMem,
        PhysAddr,
        ResourceSize, //
    },
    of,
    platform,
    prelude::*,
    sync::Arc, //
};
use mtk_foe::soc::{
    self,
    Soc, //
};
use nft_flow::desc::Mac;

registers!(DevresIoMem<SIZE>);

/// The driver.
pub(super) struct Driver;

/// A device.
pub(super) struct Device {
    // Before the engines: it looks at them.
    _debugfs: KVec<Pin<KBox<Scope<Text>>>>,
    engines: Arc<Engines>,
    _region: Region,
}

/// The registers are ours alone. What [`kernel::io::mem::ExclusiveIoMem`] claims is part of the
/// device's own resource: of a device in a device tree nobody else looks at that.
///
/// # Invariants
///
/// The range was claimed in the map of all memory, and not released since.
struct Region {
    start: PhysAddr,
    size: ResourceSize,
}

impl Region {
    fn claim(start: PhysAddr, size: ResourceSize) -> Result<Self> {
        // SAFETY: May be called with any range.
        match unsafe { c::nfo_region_claim(start, size) } {
            // INVARIANT: It is ours now.
            true => Ok(Self { start, size }),
            false => Err(EBUSY),
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: Claimed, by the invariants.
        unsafe { c::nfo_region_release(self.start, self.size) }
    }
}

kernel::of_device_table!(
    OF_TABLE,
    <Driver as platform::Driver>::IdInfo,
    [
        (of::DeviceId::new(c"nft-offload,mt7622-ppe"), &soc::MT7622),
        (of::DeviceId::new(c"nft-offload,mt7623-ppe"), &soc::MT7623),
        (of::DeviceId::new(c"nft-offload,mt7981-ppe"), &soc::MT7986),
        (of::DeviceId::new(c"nft-offload,mt7986-ppe"), &soc::MT7986),
        (of::DeviceId::new(c"nft-offload,mt7988-ppe"), &soc::MT7988),
    ]
);

impl platform::Driver for Driver {
    type IdInfo = &'static Soc;
    type Data<'bound> = Device;
    const OF_ID_TABLE: Option<of::IdTable<Self::IdInfo>> = Some(&OF_TABLE);

    fn probe<'bound>(
        pdev: &'bound platform::Device<Core<'_>>,
        info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Device, Error> + 'bound {
        let soc: &'static Soc = info.ok_or(ENODEV)?;
        let dev = pdev.as_ref();

        let all = pdev.resource_by_index(0).ok_or(ENODEV)?;
        let region = Region::claim(all.start(), all.size()).inspect_err(|_| {
            dev_err!(
                pdev,
                "the frame engine belongs to another driver (mtk_eth): flowtables with 'flags \
                 offload' use that one, and this node is not needed\n"
            );
        })?;
        let request = pdev.io_request_by_index(0).ok_or(ENODEV)?;
        let io = request.iomap_sized::<SIZE>()?;
        let io: Arc<dyn Registers> = Arc::new(io.into_devres()?, GFP_KERNEL)?;

        let mut macs = [[0; 6]; 3];
        let node = dev.fwnode().ok_or(ENODEV)?;
        for child in node.children() {
            let n: u32 = child.property_read(c"reg").required_by(dev)?;
            let mac: Mac = child.property_read(c"local-mac-address").required_by(dev)?;
            *macs.get_mut(n as usize).ok_or(EINVAL)? = mac;
        }

        let engines = Engines::new(dev, soc, io, macs)?;
        let debugfs = engine::debugfs(&engines)?;
        engines.start();
        crate::drivers::add(engines.clone()).inspect_err(|_| engines.stop(dev))?;
        dev_info!(pdev, "packet processing engine of {}\n", soc.name);
        Ok(Device {
            _debugfs: debugfs,
            engines,
            _region: region,
        })
    }

    fn unbind<'bound>(pdev: &'bound platform::Device<Core<'_>>, this: Pin<&Device>) {
        crate::drivers::remove(&*this.engines);
        this.engines.stop(pdev.as_ref());
    }
}
