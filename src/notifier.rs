// SPDX-License-Identifier: GPL-2.0

//! Notifiers of changes around a flow: devices that go down, away, or carry smaller packets, and
//! bridge ports that belong to another VLAN or are blocked. Notice is given under RTNL, for which
//! everybody waits: here it is only noted, and the namespace's worker looks for the flows (see
//! [`Netns`]).
//!
//! Changed routes and neighbours need no notifier: the packet path checks them for each packet. A
//! roaming station needs no event either: egress goes through the bridge, or past it as long as that
//! says that the station has not moved (see [`crate::net::direct`]), and its frames on the new
//! port miss the table and reach the rule (see [`crate::flow::shared::FlowShared::rule_hit`]).
//! Bridges give notice by way of switchdev; in kernels without it the worker finds out within a
//! second. Rules in hardware need all of these events, because packets that hardware forwards are
//! not seen.

use crate::{
    ffi::{
        self,
        c,
        DevRef,
        Rcu,
        Shared, //
    },
    flowtable::registry::{
        Event,
        Netns, //
    },
    hw, //
};
use core::ptr;
use kernel::{
    error::to_result,
    ffi::{
        c_int,
        c_ulong,
        c_void, //
    },
    prelude::*, //
};
use nft_flow::reason::TeardownReason;

/// `NOTIFY_DONE`.
const NOTIFY_DONE: c_int = c::NFO_NOTIFY_DONE;

/// A device event, under RTNL.
///
/// # Safety
///
/// Called by the notifier chain of devices only.
unsafe extern "C" fn netdev_event(
    _nb: *mut c::notifier_block,
    event: c_ulong,
    info: *mut c_void,
) -> c_int {
    // SAFETY: What comes with a device event begins with the device. Under RTNL it is there as long
    // as in a section.
    let dev = unsafe {
        let dev = (*info.cast::<c::netdev_notifier_info>()).dev;

        DevRef::new(dev, Rcu::assume())
    };
    let reason = match event as c::netdev_cmd {
        c::netdev_cmd_NETDEV_DOWN => TeardownReason::DeviceDown,
        c::netdev_cmd_NETDEV_UNREGISTER => TeardownReason::DeviceGone,
        c::netdev_cmd_NETDEV_CHANGEMTU => TeardownReason::MtuChange,
        c::netdev_cmd_NETDEV_CHANGEADDR => TeardownReason::AddressChange,
        c::netdev_cmd_NETDEV_CHANGEUPPER => {
            // SAFETY: What comes with this event says it.
            let master = unsafe { (*info.cast::<c::netdev_notifier_changeupper_info>()).master };

            // A port joins or leaves a bridge. A VLAN on top changes nothing for others.
            if !master {
                return NOTIFY_DONE;
            }
            TeardownReason::PathChange
        }
        c::netdev_cmd_NETDEV_FEAT_CHANGE => {
            hw::devices_changed();
            if let Some(netns) = Netns::of(dev.net()) {
                netns.change_topology();
            }
            return NOTIFY_DONE;
        }
        _ => return NOTIFY_DONE,
    };
    hw::topology_changed();
    if event as c::netdev_cmd == c::netdev_cmd_NETDEV_CHANGEMTU {
        hw::devices_changed();
    }
    // Now: it may be about to enter another namespace.
    if event as c::netdev_cmd == c::netdev_cmd_NETDEV_UNREGISTER {
        dev.gone();
        ffi::device_gone();
    }
    if let Some(netns) = Netns::of(dev.net()) {
        Netns::notify(netns, Event::Device(dev.ifindex(), reason));
    }
    NOTIFY_DONE
}

/// Something that a switch should know: the state or the VLANs of a bridge port change.
///
/// # Safety
///
/// Called by the blocking notifier chain of switchdev only.
unsafe extern "C" fn switchdev_event(
    _nb: *mut c::notifier_block,
    _event: c_ulong,
    info: *mut c_void,
) -> c_int {
    // SAFETY: What comes with an event begins with the device, which is not freed meanwhile.
    let dev = unsafe {
        let dev = (*info.cast::<c::switchdev_notifier_info>()).dev;

        DevRef::new(dev, Rcu::assume())
    };

    if let Some(netns) = Netns::of(dev.net()) {
        Netns::notify(netns, Event::Bridges);
    }
    hw::topology_changed();
    NOTIFY_DONE
}

/// A bridge knows a station that it did not know there before, or no more; in atomic context.
///
/// # Safety
///
/// Called by the atomic notifier chain of switchdev only.
unsafe extern "C" fn fdb_event(
    _nb: *mut c::notifier_block,
    event: c_ulong,
    _info: *mut c_void,
) -> c_int {
    // SAFETY: Any number is fine.
    if unsafe { c::nfo_fdb_event_matters(event) } {
        hw::topology_changed();
    }
    NOTIFY_DONE
}

/// A neighbour or a redirect has changed, in atomic context.
///
/// # Safety
///
/// Called by the notifier chain of network events only.
unsafe extern "C" fn netevent(
    _nb: *mut c::notifier_block,
    event: c_ulong,
    info: *mut c_void,
) -> c_int {
    // SAFETY: What comes with an event of this chain.
    if unsafe { c::nfo_netevent_matters(event, info) } {
        hw::topology_changed();
    }
    NOTIFY_DONE
}

type Notifier = Shared<c::notifier_block>;

const fn notifier(call: c::notifier_fn_t) -> Notifier {
    Notifier::new(c::notifier_block {
        notifier_call: call,
        next: ptr::null_mut(),
        priority: 0,
    })
}

static NETDEV: Notifier = notifier(Some(netdev_event));
static SWITCHDEV: Notifier = notifier(Some(switchdev_event));
static NETEVENT: Notifier = notifier(Some(netevent));
static FDB: Notifier = notifier(Some(fdb_event));

/// Keeps the notifiers registered.
pub(crate) struct Registration(());

impl Registration {
    /// Registers the notifiers.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: The blocks are static and not registered yet.
        unsafe {
            to_result(c::nfo_switchdev_register(SWITCHDEV.get()))?;
            to_result(c::nfo_fdb_register(FDB.get())).inspect_err(|_| {
                c::nfo_switchdev_unregister(SWITCHDEV.get());
            })?;
            to_result(c::register_netdevice_notifier(NETDEV.get())).inspect_err(|_| {
                c::nfo_fdb_unregister(FDB.get());
                c::nfo_switchdev_unregister(SWITCHDEV.get());
            })?;
            to_result(c::nfo_direct_register()).inspect_err(|_| {
                c::unregister_netdevice_notifier(NETDEV.get());
                c::nfo_fdb_unregister(FDB.get());
                c::nfo_switchdev_unregister(SWITCHDEV.get());
            })?;
            // These cannot fail.
            c::register_netevent_notifier(NETEVENT.get());
            c::nfo_bridge_register();
            c::nfo_ipsec_register();
        }
        Ok(Self(()))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: Registered by `new`. No flowtable is left that would ask a bridge.
        unsafe {
            c::nfo_ipsec_unregister();
            c::unregister_netevent_notifier(NETEVENT.get());
            c::nfo_direct_unregister();
            c::unregister_netdevice_notifier(NETDEV.get());
            c::nfo_fdb_unregister(FDB.get());
            c::nfo_switchdev_unregister(SWITCHDEV.get());
            c::nfo_bridge_unregister();
        }
    }
}
