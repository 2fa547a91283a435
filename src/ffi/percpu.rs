// SPDX-License-Identifier: GPL-2.0

//! Counters that each CPU has for itself: of packets and bytes.

use super::{
    c,
    skb::Skb, //
};
use core::ptr::NonNull;
use kernel::{
    ffi::c_void,
    prelude::*, //
};

/// Adds a packet of `len` bytes to this CPU's counters: `this_cpu_inc()` and `this_cpu_add()`.
///
/// # Safety
///
/// `counters` are two words of per-CPU data, packets first.
#[cfg(all(target_arch = "x86_64", CONFIG_SMP, not(CONFIG_UML)))]
#[inline(always)]
unsafe fn count(counters: *const c_void, len: u32) {
    // SAFETY: By the contract of this function; the GS segment begins at this CPU's data.
    unsafe {
        core::arch::asm!(
            "inc qword ptr gs:[{counters}]",
            "add qword ptr gs:[{counters} + 8], {len}",
            counters = in(reg) counters,
            len = in(reg) u64::from(len),
            options(nostack),
        );
    }
}

/// Counts an event at a packet of the ingress hook, see [`crate::stats`].
#[inline(always)]
pub(crate) fn stat_inc<const INDEX: usize>(_: Skb) {
    #[cfg(all(target_arch = "x86_64", CONFIG_SMP, not(CONFIG_UML)))]
    // SAFETY: `__this_cpu_inc()`: the GS segment begins at this CPU's data, and the index is one of
    // the array.
    unsafe {
        const { assert!(INDEX < c::NFO_STATS_LEN as usize) };
        core::arch::asm!(
            "inc qword ptr gs:[rip + {stats} + {offset}]",
            stats = sym c::nfo_stats,
            offset = const core::mem::offset_of!(c::nfo_stats, n) + INDEX * size_of::<u64>(),
            options(nostack),
        );
    }
    #[cfg(not(all(target_arch = "x86_64", CONFIG_SMP, not(CONFIG_UML))))]
    // SAFETY: Any index is allowed, and softirqs are off.
    unsafe {
        c::nfo_stat_inc_bh(INDEX as u32);
    }
}

/// Adds a packet of `len` bytes to what a device has received.
///
/// # Safety
///
/// `counters` are those of `nfo_rx_counters()` of a device that is not freed yet, and softirqs are
/// off.
#[inline(always)]
pub(crate) unsafe fn rx_count(counters: *mut c_void, len: u32) {
    // SAFETY: By the contract of this function.
    unsafe {
        #[cfg(all(target_arch = "x86_64", CONFIG_SMP, not(CONFIG_UML)))]
        count(counters, len);
        #[cfg(not(all(target_arch = "x86_64", CONFIG_SMP, not(CONFIG_UML))))]
        c::nfo_rx_add(counters, len);
    }
}

/// Counters of what a flowtable forwards.
///
/// # Invariants
///
/// Allocated by `nfo_traffic_alloc`.
pub(crate) struct Traffic(NonNull<c::nfo_traffic>);

/// Sums over all CPUs, of IPv4 and IPv6.
pub(crate) type Totals = c::nfo_traffic;

// SAFETY: Per-CPU data; each CPU changes its own.
unsafe impl Send for Traffic {}
// SAFETY: As above.
unsafe impl Sync for Traffic {}

impl Traffic {
    /// No packet.
    pub(crate) const NONE: Totals = Totals {
        family: [c::nfo_sum {
            packets: 0,
            bytes: 0,
        }; 2],
    };

    /// Makes counters of which all are 0.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: May sleep, as the caller may.
        let traffic = unsafe { c::nfo_traffic_alloc() };

        // INVARIANT: Just allocated.
        Ok(Self(NonNull::new(traffic).ok_or(ENOMEM)?))
    }

    /// Counts a packet of the ingress hook that the fast path forwards: of IPv4 or IPv6, from the
    /// network header on.
    #[inline(always)]
    pub(crate) fn count(&self, v6: bool, skb: Skb) {
        let len = skb.len();

        // SAFETY: By the type invariant; softirqs are off, by that of `Skb`. A family's counters
        // are two words, packets first.
        unsafe {
            #[cfg(all(target_arch = "x86_64", CONFIG_SMP, not(CONFIG_UML)))]
            count(
                (&raw const (*self.0.as_ptr()).family)
                    .cast::<u64>()
                    .wrapping_add(if v6 { 2 } else { 0 })
                    .cast(),
                len,
            );
            #[cfg(not(all(target_arch = "x86_64", CONFIG_SMP, not(CONFIG_UML))))]
            c::nfo_traffic_add(self.0.as_ptr(), v6, len);
        }
    }

    /// Sums over all CPUs.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Self::NONE;

        // SAFETY: Valid by the type invariant.
        unsafe { c::nfo_traffic_sum(self.0.as_ptr(), &mut totals) };
        totals
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        // SAFETY: Allocated by `new`; a flowtable's hook does not run any more.
        unsafe { c::nfo_traffic_free(self.0.as_ptr()) };
    }
}
