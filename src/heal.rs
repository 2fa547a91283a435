// SPDX-License-Identifier: GPL-2.0

//! What changes around a flow: devices that go down, away, or carry smaller packets.
//!
//! Changed routes and neighbours need no notice: the packet path looks at them for each packet.

use crate::{
    ffi::c,
    flowtable::FLOWTABLES, //
};
use core::{
    cell::UnsafeCell,
    ptr, //
};
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
const NOTIFY_DONE: c_int = 0;

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
    let reason = match event as c::netdev_cmd {
        c::netdev_cmd_NETDEV_DOWN => TeardownReason::DeviceDown,
        c::netdev_cmd_NETDEV_UNREGISTER => TeardownReason::DeviceGone,
        c::netdev_cmd_NETDEV_CHANGEMTU => TeardownReason::MtuChange,
        c::netdev_cmd_NETDEV_CHANGEADDR => TeardownReason::AddressChange,
        // A port joins or leaves a bridge.
        c::netdev_cmd_NETDEV_CHANGEUPPER => TeardownReason::PathChange,
        _ => return NOTIFY_DONE,
    };
    // SAFETY: What comes with a device event begins with the device.
    let (net, ifindex) = unsafe {
        let dev = (*info.cast::<c::netdev_notifier_info>()).dev;
        (c::nfo_dev_net(dev), (*dev).ifindex as u32)
    };

    for ft in FLOWTABLES.lock().iter().map(|r| r.get()) {
        if ptr::eq(ft.net(), net) {
            ft.kill_all(reason, |flow| flow.passes(ifindex));
        }
    }
    NOTIFY_DONE
}

struct Notifier(UnsafeCell<c::notifier_block>);

// SAFETY: C serialises what it does with a registered notifier.
unsafe impl Sync for Notifier {}

static NETDEV: Notifier = Notifier(UnsafeCell::new(c::notifier_block {
    notifier_call: Some(netdev_event),
    next: ptr::null_mut(),
    priority: 0,
}));

/// Keeps the notifier registered.
pub(crate) struct Registration(());

impl Registration {
    /// Registers the notifier.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: The block is static and not registered yet.
        to_result(unsafe { c::register_netdevice_notifier(NETDEV.0.get()) })?;
        Ok(Self(()))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: Registered by `new`.
        unsafe { c::unregister_netdevice_notifier(NETDEV.0.get()) };
    }
}
