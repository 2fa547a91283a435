// SPDX-License-Identifier: GPL-2.0

//! Bridge ports that packets come in by.

use crate::ffi::{
    c,
    NetRef,
    Rcu, //
};
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
    pub(crate) fn is_forwarding(&self, net: NetRef<'_>, rtnl: bool, forwarded: bool) -> bool {
        let guard = rcu::read_lock();
        let rcu = Rcu::from(&guard);
        let (Some(bridge), Some(port)) = (net.device(rcu, self.bridge), net.device(rcu, self.port))
        else {
            return false;
        };

        // SAFETY: RCU is held; the devices are those of the bridge port.
        unsafe {
            self.passes_up(bridge.as_ptr(), port.as_ptr())
                && if rtnl {
                    c::nfo_bridge_port_forwards(port.as_ptr())
                } else {
                    forwarded
                }
        }
    }
}
