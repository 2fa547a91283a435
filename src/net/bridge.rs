// SPDX-License-Identifier: GPL-2.0

//! Bridges that packets pass on their way up.

use crate::ffi::c;
use kernel::sync::rcu;

/// A bridge on the way up, which takes packets from one of its ports, or does not.
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
    /// Would the bridge pass packets up, if its spanning tree lets it?
    ///
    /// # Safety
    ///
    /// RCU is held, and the devices are those of the gate.
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

    /// Does the bridge pass packets up? Of the spanning tree's part `forwarded` is what was known
    /// of it before, if RTNL is not held now.
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
