// SPDX-License-Identifier: GPL-2.0

//! Bridge ports that packets come in by.

use crate::ffi::c;
use kernel::sync::rcu;

/// A bridge on the ingress path, and the port by which packets come in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct BridgePort {
    pub(crate) bridge: u32,
    pub(crate) port: u32,
    /// The VLAN that the bridge sees them in, 0 if it does not filter VLANs.
    pub(super) vid: u16,
    pub(super) tagged_below: bool,
    pub(super) tagged_above: bool,
}

impl BridgePort {
    /// Whether the bridge passes packets up, if its spanning tree lets it.
    ///
    /// # Safety
    ///
    /// RCU is held, and the devices are those of the bridge port.
    pub(super) unsafe fn passes_up(
        &self,
        bridge: *const c::net_device,
        port: *const c::net_device,
    ) -> bool {
        // SAFETY: The same contract.
        unsafe {
            c::nfo_bridge_passes_up(bridge, port, self.vid, self.tagged_below, self.tagged_above)
        }
    }

    /// Whether the bridge passes packets up. Without RTNL, `forwarded` stands for the spanning
    /// tree's part, as it was known before.
    pub(crate) fn is_forwarding(&self, net: *mut c::net, rtnl: bool, forwarded: bool) -> bool {
        let _rcu = rcu::read_lock();

        // SAFETY: RCU is held; the network namespace is that of a flowtable.
        unsafe {
            let bridge = c::dev_get_by_index_rcu(net, self.bridge as i32);
            let port = c::dev_get_by_index_rcu(net, self.port as i32);

            !bridge.is_null()
                && !port.is_null()
                && self.passes_up(bridge, port)
                && if rtnl {
                    c::nfo_bridge_port_forwards(port)
                } else {
                    forwarded
                }
        }
    }
}
