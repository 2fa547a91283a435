// SPDX-License-Identifier: GPL-2.0

//! MediaTek's packet processing engine, driven by ourselves.
//!
//! What the engine is and does is the crate `mtk_foe`. Here is what it needs of the kernel:
//! registers ([`window`]), memory that it reads and writes, and the devices that it is found as, in
//! a device tree (`platform`) or as a PCI device (`pci`, for a model of it).
//!
//! The engine and the frame engine around it have one owner. On a board whose kernel runs `mtk_eth`
//! that is the kernel's driver, which takes flow rules: [`super::tc_ft`] serves it, and this one
//! says so and stays away.

mod engine;
#[cfg(CONFIG_PCI)]
mod pci;
#[cfg(CONFIG_OF)]
mod platform;
mod window;

use kernel::{
    driver,
    prelude::*, //
};

/// The drivers, as long as it exists.
pub(crate) struct Registrations {
    #[cfg(CONFIG_PCI)]
    _pci: Pin<KBox<driver::Registration<kernel::pci::Adapter<pci::Driver>>>>,
    #[cfg(CONFIG_OF)]
    _platform: Pin<KBox<driver::Registration<kernel::platform::Adapter<platform::Driver>>>>,
}

impl Registrations {
    /// Registers them.
    pub(crate) fn new(module: &'static ThisModule) -> Result<Self> {
        const NAME: &CStr = c"nft_offload_ppe";

        Ok(Self {
            #[cfg(CONFIG_PCI)]
            _pci: KBox::pin_init(driver::Registration::new(NAME, module), GFP_KERNEL)?,
            #[cfg(CONFIG_OF)]
            _platform: KBox::pin_init(driver::Registration::new(NAME, module), GFP_KERNEL)?,
        })
    }
}
