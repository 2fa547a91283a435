// SPDX-License-Identifier: GPL-2.0

//! Receive statistics of the devices above the one that packets are picked up at.
//!
//! Packets of the fast path do not pass these devices, which count them all the same. To look a
//! device up for each packet takes longer than to count: where each CPU's counters are is
//! remembered, as long as no device has gone away.

use super::device_path::MAX_DEVICES;
use crate::ffi::{
    self,
    c,
    skb::Skb,
    NetRef, //
};
use core::{
    ptr,
    sync::atomic::{
        AtomicBool,
        AtomicPtr,
        AtomicU32,
        AtomicU8,
        Ordering, //
    }, //
};
use kernel::ffi::c_void;

/// Devices, and how many bytes they see around an IP packet.
pub(crate) struct Devices<'a> {
    pub(crate) ifindices: &'a [u32; MAX_DEVICES],
    pub(crate) rx_overhead: &'a [u8; MAX_DEVICES],
    /// The one that packets are picked up at, which has counted them: those behind it do not.
    pub(crate) last: u32,
}

/// The counters of devices.
///
/// # Invariants
///
/// If `generation` is `nfo_device_generation`, the counters that are not null are those of devices
/// which have not been unregistered, or not longer than a grace period ago.
#[derive(Default)]
pub(crate) struct RxStats {
    generation: AtomicU32,
    /// From the first on; null behind the last one.
    counters: [AtomicPtr<c_void>; MAX_DEVICES],
    rx_overhead: [AtomicU8; MAX_DEVICES],
    /// Somebody looks the counters up.
    busy: AtomicBool,
}

impl RxStats {
    #[inline(always)]
    fn current() -> u32 {
        // SAFETY: A word that is always there.
        unsafe { ffi::read_once(&raw const c::nfo_device_generation) }
    }

    /// Counts the packet of the ingress hook, with `len` bytes, that was picked up below these
    /// devices of a namespace. All calls name the same ones.
    #[inline(always)]
    pub(crate) fn count<'a>(
        &self,
        _: Skb,
        net: impl FnOnce() -> NetRef<'a>,
        devices: &Devices<'_>,
        len: u32,
    ) {
        if self.generation.load(Ordering::Acquire) != Self::current() {
            // SAFETY: RCU is held and softirqs are off, by the invariant of `Skb`.
            return unsafe { self.look_up(net(), devices, len) };
        }
        for (counter, rx_overhead) in self.counters.iter().zip(&self.rx_overhead) {
            let counter = counter.load(Ordering::Relaxed);
            if counter.is_null() {
                break;
            }
            let len = len.wrapping_add(rx_overhead.load(Ordering::Relaxed).into());

            // SAFETY: By the type invariant the counters are there until the end of the RCU section,
            // which the hook is; softirqs are off.
            unsafe { ffi::rx_count(counter, len) };
        }
    }

    /// Counts a packet, and finds out where the next ones are counted.
    ///
    /// # Safety
    ///
    /// RCU is held, and softirqs are off.
    #[cold]
    #[inline(never)]
    unsafe fn look_up(&self, net: NetRef<'_>, devices: &Devices<'_>, len: u32) {
        // Before the devices are looked for: who goes away later raises it.
        let generation = Self::current();
        let mut found = [ptr::null_mut(); MAX_DEVICES];

        // SAFETY: By the contract of this function; the arrays have this length.
        unsafe {
            let net = net.as_ptr();
            let (ifindices, rx_overhead) =
                (devices.ifindices.as_ptr(), devices.rx_overhead.as_ptr());
            let n = MAX_DEVICES as u32;

            c::nfo_count_rx(net, ifindices, rx_overhead, n, devices.last, len);
            if self.busy.swap(true, Ordering::Acquire) {
                return;
            }
            if c::nfo_rx_counters(net, ifindices, n, devices.last, found.as_mut_ptr()) {
                let mut slots = self.counters.iter().zip(&self.rx_overhead);
                let found = found.iter().zip(devices.rx_overhead);

                // The invariant does not speak of these until the generation is stored.
                self.generation.store(0, Ordering::Release);
                for (counter, rx_overhead) in found.filter(|(counter, _)| !counter.is_null()) {
                    if let Some(slot) = slots.next() {
                        slot.0.store(*counter, Ordering::Relaxed);
                        slot.1.store(*rx_overhead, Ordering::Relaxed);
                    }
                }
                for slot in slots {
                    slot.0.store(ptr::null_mut(), Ordering::Relaxed);
                }
                // INVARIANT: The devices were registered after the generation was read.
                self.generation.store(generation, Ordering::Release);
            }
        }
        self.busy.store(false, Ordering::Release);
    }
}
