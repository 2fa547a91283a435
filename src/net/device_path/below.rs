// SPDX-License-Identifier: GPL-2.0

//! What hardware has to know of the lowest device of a path besides its number.

use super::DevicePathWalk;
use crate::ffi::c;

impl DevicePathWalk<'_> {
    /// Notes what is said about the other side of the lowest device.
    pub(super) fn note_below(&mut self, path: &c::net_device_path) {
        // SAFETY: The kind says which member of the union is meant.
        let below = unsafe {
            match path.type_ {
                c::net_device_path_type_DEV_PATH_DSA => {
                    let dsa = &path.__bindgen_anon_1.dsa;

                    (u64::from(dsa.proto) << 32) | u64::from(dsa.port as u32)
                }
                c::net_device_path_type_DEV_PATH_MTK_WDMA => {
                    let wdma = &path.__bindgen_anon_1.mtk_wdma;

                    (u64::from(wdma.wdma_idx) << 48)
                        | (u64::from(wdma.queue) << 40)
                        | (u64::from(wdma.bss) << 32)
                        | (u64::from(wdma.amsdu) << 24)
                        | u64::from(wdma.wcid)
                }
                _ => return,
            }
        };

        self.below = (u64::from(path.type_) << 56) | (below & !(0xff << 56));
    }

    /// Whether packets that come in by the lowest device meet something (filters, programs, chains)
    /// before the flowtable's hook would see them: there, or at a device above it.
    pub(crate) fn is_filtered(&self) -> bool {
        let nf = self.nft.nf().as_ptr();

        if self.barred.is_some() {
            return true;
        }
        // SAFETY: A device of the walk, and RCU is held; the flowtable is that of the walk.
        unsafe { c::nfo_dev_filters_before(self.dev.cast_mut(), nf) }
    }

    /// A number that changes when the lowest device is the same, and what is behind it another: the
    /// port of a switch, a station of a radio.
    pub(crate) fn below(&self) -> u64 {
        self.below
    }

    /// Whether packets leave with a tag that the hardware of a bridge port should take off, and
    /// that port is not one of a switch, which does.
    pub(crate) fn keeps_tag(&self) -> bool {
        self.untags_in_hardware
            && self.below >> 56 != u64::from(c::net_device_path_type_DEV_PATH_DSA)
    }
}
