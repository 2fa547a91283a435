// SPDX-License-Identifier: GPL-2.0

//! The devices of a flowtable with `flags offload`, and the engines behind them.
//!
//! nf_tables gives the devices one by one, also in a transaction that is only checked. A device
//! without hardware stays with software. That there is no hardware behind any of them can be said
//! with the last one only: then the flowtable is refused, and nf_tables takes the others back.

use super::{
    DemoteTo,
    HwOffload, //
    TierInner,
};
use crate::{
    drivers::{
        BindError,
        FlowEngine,
        NetDev,
        Said, //
    },
    ffi::{
        c,
        HZ, //
    },
    net::nf_tables::NftRef, //
};
use core::ptr;
use kernel::{
    prelude::*,
    sync::{
        global_lock,
        Arc, //
    }, //
};
use nft_flow::reason::DemoteReason;

/// Between two attempts to bind a device whose hardware is busy.
const RETRY: u32 = HZ;

/// The hardware behind a device is a flowtable's: their addresses.
#[derive(PartialEq, Eq)]
pub(crate) struct Served {
    dev: usize,
    tier: usize,
}

global_lock! {
    // SAFETY: Initialised by the module's init before anything is registered.
    /// Nothing else is locked under this.
    pub(crate) unsafe(uninit) static SERVED: Mutex<KVec<Served>> = KVec::new();
}

/// A device of the flowtable.
pub(super) struct Device {
    pub(super) ifindex: u32,
    netdev: NetDev,
    /// None: it stays with software.
    pub(super) engine: Option<Arc<dyn FlowEngine>>,
    /// The engine's generation when it was last looked at.
    generation: u32,
    /// The hardware belongs to another flowtable still, or is away, since it was last asked at this
    /// time.
    pub(super) busy: Option<u32>,
    /// It has told packets of some rule.
    pub(super) has_counted: bool,
    /// Rules that its engine has taken, and those that it has not.
    pub(super) added: u64,
    pub(super) declined: u64,
    /// What its driver said last when it refused one.
    pub(super) said: Option<Said>,
}

/// What is to be known of a device of a flowtable with `flags offload`.
pub(crate) struct DeviceInfo {
    pub(crate) ifindex: u32,
    /// None: its packets stay with software.
    pub(crate) engine: Option<&'static str>,
    /// The driver behind the engine, if there is one.
    pub(crate) driver: Option<&'static str>,
    /// Rules that its engine has room for, if it knows.
    pub(crate) capacity: Option<u32>,
    /// Rules that its engine has for packets that come in by the device.
    pub(crate) rules: u32,
    /// Rules that it was given, and that it has declined, since the device was bound.
    pub(crate) added: u64,
    pub(crate) declined: u64,
    pub(crate) said: Option<Said>,
}

/// Where a device is in the list of a flowtable.
#[derive(PartialEq, Eq)]
pub(crate) enum DeviceListPos {
    /// Not there yet: it is added to a flowtable that exists.
    New,
    /// Others follow.
    Among,
    /// None follows.
    Last,
}

impl HwOffload {
    /// Binds a device.
    pub(crate) fn bind(&self, netdev: NetDev, pos: DeviceListPos) -> Result {
        let elsewhere = self.is_bound_elsewhere(netdev);
        let mut inner = self.inner.lock();

        inner.devices.reserve(1, GFP_KERNEL)?;
        let (found, busy) = match self.engine_for(netdev) {
            Ok(found) => (Some(found), None),
            // A ruleset that replaces another one is there before that goes. Drivers that serve one
            // flowtable at a time say so, but the flow_indr code does not pass that on.
            Err(BindError::NoHardware) if elsewhere => (None, Some(super::now())),
            Err(BindError::NoHardware) => (None, None),
            Err(BindError::Busy) => (None, Some(super::now())),
            // A device that comes later must not be kept from coming.
            Err(BindError::Failed(_)) if pos == DeviceListPos::New => (None, None),
            Err(BindError::Failed(e)) => return Err(Error::from_errno(e)),
        };
        let (engine, generation) = found.unzip();
        let any =
            engine.is_some() || busy.is_some() || inner.devices.iter().any(Device::has_hardware);
        if pos == DeviceListPos::Last && !any {
            return Err(EOPNOTSUPP);
        }
        if engine.is_some() {
            self.note(netdev);
            super::devices_changed();
        }
        inner.devices.push(
            Device {
                ifindex: netdev.ifindex,
                netdev,
                engine,
                generation: generation.unwrap_or(0),
                busy,
                has_counted: false,
                added: 0,
                declined: 0,
                said: None,
            },
            GFP_KERNEL,
        )?;
        Ok(())
    }

    /// What is known of the device at this place of the list.
    pub(crate) fn device_info(&self, at: usize) -> Option<DeviceInfo> {
        let inner = self.inner.lock();
        let device = inner.devices.get(at)?;
        let engine = device.engine.as_ref();
        let rules = inner.resident.iter().flat_map(|r| r.rules.iter().flatten());

        Some(DeviceInfo {
            ifindex: device.ifindex,
            engine: engine.map(|e| e.name()),
            driver: engine.and_then(|_| self.tc.driver(device.ifindex)),
            capacity: engine.and_then(|e| e.capacity().total),
            rules: rules.filter(|r| r.ifindex == device.ifindex).count() as u32,
            added: device.added,
            declined: device.declined,
            said: device.said,
        })
    }

    /// Whether another flowtable has the hardware behind this device.
    fn is_bound_elsewhere(&self, netdev: NetDev) -> bool {
        let this = ptr::from_ref(self).addr();

        SERVED
            .lock()
            .iter()
            .any(|s| s.dev == netdev.dev.addr() && s.tier != this)
    }

    /// Notes that this flowtable has bound the hardware behind a device.
    fn note(&self, netdev: NetDev) {
        let dev = netdev.dev.addr();
        let tier = ptr::from_ref(self).addr();

        let mut all = SERVED.lock();

        all.retain(|s| *s != Served { dev, tier });
        // Without memory a ruleset that replaces this one may miss its hardware, no more.
        let _ = all.push(Served { dev, tier }, GFP_KERNEL);
    }

    /// Removes the note of [`HwOffload::note`].
    fn unnote(&self, netdev: NetDev) {
        let dev = netdev.dev.addr();
        let tier = ptr::from_ref(self).addr();
        let mut all = SERVED.lock();

        all.retain(|s| *s != Served { dev, tier });
        // A static is never dropped.
        if all.is_empty() {
            *all = KVec::new();
        }
    }

    /// The engine that has bound the device, and its generation: not a later one than when it did.
    fn engine_for(&self, netdev: NetDev) -> Result<(Arc<dyn FlowEngine>, u32), BindError> {
        if let Some(native) = crate::drivers::native(netdev) {
            return Ok(native);
        }
        self.tc.bind(netdev)?;
        // Without a rule none is lost, and it is never gone for good.
        let generation = self.tc.generation(netdev.ifindex);
        Ok((self.tc.clone(), generation))
    }

    /// Takes a device away, and all rules that have to do with it before.
    pub(crate) fn unbind(&self, netdev: NetDev) {
        let mut inner = self.inner.lock();

        inner.demote_device(netdev.ifindex, || DemoteTo::Software);
        let Some(at) = inner
            .devices
            .iter()
            .position(|d| d.ifindex == netdev.ifindex)
        else {
            return;
        };
        if let Ok(Device {
            engine: Some(engine),
            ..
        }) = inner.devices.remove(at)
        {
            engine.unbind(netdev);
        }
        self.unnote(netdev);
    }
}

impl Device {
    fn has_hardware(&self) -> bool {
        self.engine.is_some() || self.busy.is_some()
    }
}

impl TierInner {
    /// Takes the flows out of hardware whose packets come in or leave by a device.
    fn demote_device(&mut self, ifindex: u32, next: impl Fn() -> DemoteTo) {
        for at in (0..self.resident.len()).rev() {
            if self.resident[at].ifindices.contains(&ifindex) {
                self.demote(at, next(), DemoteReason::Device);
            }
        }
    }

    /// Polls the devices: binds those whose hardware was busy or away, and demotes the flows of
    /// those whose engine has lost all its rules.
    pub(super) fn poll_devices(&mut self, tier: &HwOffload) {
        let now = super::now();

        let retry = now.wrapping_sub(self.retried) >= RETRY;
        if retry {
            self.retried = now;
        }
        for at in 0..self.devices.len() {
            let device = &mut self.devices[at];
            let ifindex = device.ifindex;
            if let Some(engine) = device.engine.as_ref().filter(|_| retry) {
                engine.retry(ifindex);
            }
            let engine = device.engine.as_ref();
            let generation = engine.map_or(0, |e| e.generation(ifindex));

            if device.generation != generation {
                device.generation = generation;
                let gone = device.engine.take_if(|e| e.is_gone());
                if gone.is_some() {
                    device.busy = Some(now);
                }
                self.demote_device(ifindex, || DemoteTo::Waiting);
            }
        }

        for device in &mut self.devices {
            if device
                .busy
                .is_some_and(|since| now.wrapping_sub(since) >= RETRY)
            {
                match tier.engine_for(device.netdev) {
                    Ok((engine, generation)) => {
                        tier.note(device.netdev);
                        device.engine = Some(engine);
                        device.generation = generation;
                        device.busy = None;
                        super::devices_changed();
                    }
                    // Whoever had it may be on the way out still.
                    Err(_) => device.busy = Some(now),
                }
            }
        }
    }
}

/// Returns the position of a device in the list that nf_tables goes through.
///
/// # Safety
///
/// Called under nf_tables' lock with a device of the flowtable.
pub(crate) unsafe fn device_list_pos(nft: NftRef, dev: *mut c::net_device) -> DeviceListPos {
    // SAFETY: By the contract of this function.
    match unsafe { c::nfo_dev_list_pos(nft.as_ptr(), dev) } {
        0 => DeviceListPos::New,
        1 => DeviceListPos::Among,
        _ => DeviceListPos::Last,
    }
}
