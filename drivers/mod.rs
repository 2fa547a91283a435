// SPDX-License-Identifier: GPL-2.0

//! Flow engines: hardware that forwards packets by the rules that it was given.
//!
//! The tier ([`crate::hw`]) decides which flows are worth it and keeps the books; an engine
//! adds, removes and counts rules, one for each direction of a flow. `tc_ft` is every driver of the
//! kernel that takes flow rules.
//!
//! An engine is called in process context, with sleeping allowed, by one thread at a time for each
//! flowtable. It must not call back. What happens to it by itself, it tells when it is asked:
//! [`FlowEngine::stats`] says that a rule is gone, [`FlowEngine::generation`] that all are.

use crate::ffi::c;
use kernel::{
    prelude::*,
    sync::{
        global_lock,
        Arc, //
    }, //
};
use nft_flow::{
    desc::FlowDesc,
    engine::{
        AddError,
        Capacity,
        Caps,
        Delta, //
    }, //
};

#[cfg(all(CONFIG_HAS_IOMEM, CONFIG_HAS_DMA))]
mod mtk_ppe;
pub(crate) mod tc_ft;

#[cfg(all(CONFIG_HAS_IOMEM, CONFIG_HAS_DMA))]
pub(crate) use mtk_ppe::Registrations;

/// Drivers of engines, as long as it exists: none for this kernel.
#[cfg(not(all(CONFIG_HAS_IOMEM, CONFIG_HAS_DMA)))]
pub(crate) struct Registrations;

#[cfg(not(all(CONFIG_HAS_IOMEM, CONFIG_HAS_DMA)))]
impl Registrations {
    /// Registers them.
    pub(crate) fn new(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}

/// A device that an engine may serve.
///
/// # Invariants
///
/// The device is registered as long as the value is used.
#[derive(Clone, Copy)]
pub(crate) struct NetDev {
    pub(crate) dev: *mut c::net_device,
    pub(crate) ifindex: u32,
}

/// Stands for a direction of a flow: unique while its rule exists, never 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cookie(pub(crate) usize);

/// A rule in an engine. Deleting takes it by value, so that nothing can be asked about it later.
#[derive(Debug)]
pub(crate) struct Rule {
    #[allow(dead_code)] // for engines that do not number their rules
    pub(crate) cookie: Cookie,
    /// The interface that packets come in by.
    pub(crate) ifindex: u32,
    /// Of the engine's own.
    pub(crate) private: u64,
}

/// Why a device was not bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BindError {
    /// There is no hardware behind it: it stays with software.
    NoHardware,
    /// The hardware is bound to something else now; worth another try.
    Busy,
    /// Something failed, with this (negative) errno.
    Failed(i32),
}

/// What a driver said when it refused a rule.
#[derive(Clone, Copy)]
pub(crate) struct Said {
    pub(crate) errno: i32,
    text: [u8; 80],
    len: usize,
}

impl Said {
    /// With these words, or the beginning of them.
    fn new(errno: i32, words: &[u8]) -> Self {
        let mut said = Self {
            errno,
            text: [0; 80],
            len: words.len().min(80),
        };

        for (to, from) in said.text.iter_mut().zip(words) {
            *to = *from;
        }
        said
    }

    /// Its words, maybe none.
    pub(crate) fn text(&self) -> &str {
        core::str::from_utf8(self.text.get(..self.len).unwrap_or_default()).unwrap_or("")
    }
}

/// The engine has no such rule any more: it aged, or was thrown out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lost;

/// A flow engine.
pub(crate) trait FlowEngine: Send + Sync {
    /// A word for tables and logs.
    fn name(&self) -> &'static str;

    /// Returns what the engine can do with packets that come in by this interface.
    fn caps(&self, ifindex: u32) -> Caps;

    /// Returns what the engine has room for. This is cheap.
    fn capacity(&self) -> Capacity {
        Capacity::default()
    }

    /// Prepares for flows that come in by a device.
    fn bind(&self, netdev: NetDev) -> Result<(), BindError>;

    /// The reverse. All rules of the device were deleted before.
    fn unbind(&self, netdev: NetDev);

    /// Adds a rule.
    fn add(&self, flow: &FlowDesc, cookie: Cookie) -> Result<Rule, AddError>;

    /// What the driver said when it has just refused the rule with this cookie, if it was the driver
    /// who did.
    fn said(&self, _cookie: Cookie) -> Option<Said> {
        None
    }

    /// Deletes a rule, whether it is there still or not: never that of another flow.
    fn del(&self, rule: Rule);

    /// Returns what a rule has forwarded since the last question.
    fn stats(&self, rule: &Rule) -> Result<Delta, Lost>;

    /// Changes when the engine has lost all rules for packets that come in by this interface. Asked
    /// several times a second: the engine may look how its hardware is.
    fn generation(&self, _ifindex: u32) -> u32 {
        0
    }

    /// Deletes rules once more that a driver has kept. Asked about once a second.
    fn retry(&self, _ifindex: u32) {}

    /// Its device is gone, with all rules. When that comes back there is another engine.
    fn is_gone(&self) -> bool {
        false
    }
}

global_lock! {
    // SAFETY: Initialised by the module's init before anything is registered.
    pub(crate) unsafe(uninit) static NATIVE: Mutex<KVec<Arc<dyn FlowEngine>>> = KVec::new();
}

/// Binds the first native engine that accepts the device; returns its generation as read before
/// binding, so that a reset in between is noticed.
pub(crate) fn native(netdev: NetDev) -> Option<(Arc<dyn FlowEngine>, u32)> {
    NATIVE.lock().iter().find_map(|engine| {
        let generation = engine.generation(netdev.ifindex);

        engine.bind(netdev).ok()?;
        Some((engine.clone(), generation))
    })
}

/// Adds an engine: devices that are bound from now on may be its.
#[allow(dead_code)] // without a native engine
pub(crate) fn add(engine: Arc<dyn FlowEngine>) -> Result {
    NATIVE.lock().push(engine, GFP_KERNEL)?;
    Ok(())
}

/// Takes an engine away. Devices that it has bound find out when they ask it.
#[allow(dead_code)] // without a native engine
pub(crate) fn remove(engine: &dyn FlowEngine) {
    let mut all = NATIVE.lock();

    all.retain(|e| !core::ptr::addr_eq(&raw const **e, engine));
    // A static is never dropped.
    if all.is_empty() {
        *all = KVec::new();
    }
}
