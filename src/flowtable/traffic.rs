// SPDX-License-Identifier: GPL-2.0

//! Packets and bytes of a flowtable: counted per CPU, and added to the IP statistics of its network
//! namespace by the worker, once a second.

use crate::{
    ffi::c,
    flowtable::registry,
    net::family::Family,
    stats, //
};
use core::{
    ptr::NonNull,
    sync::atomic::{
        AtomicU32,
        Ordering, //
    }, //
};
use kernel::prelude::*;

/// Per-CPU counters.
///
/// # Invariants
///
/// Allocated by `nfo_traffic_alloc`.
pub(crate) struct Traffic(NonNull<c::nfo_traffic>);

/// Sums over all CPUs, of IPv4 and IPv6.
pub(crate) type Totals = c::nfo_traffic;

/// No packet.
pub(crate) const NONE: Totals = Totals {
    family: [c::nfo_sum {
        packets: 0,
        bytes: 0,
    }; 2],
};

// SAFETY: Per-CPU data; each CPU changes its own.
unsafe impl Send for Traffic {}
// SAFETY: As above.
unsafe impl Sync for Traffic {}

impl Traffic {
    /// Makes counters of which all are 0.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: May sleep, as the caller may.
        let traffic = unsafe { c::nfo_traffic_alloc() };

        // INVARIANT: Just allocated.
        Ok(Self(NonNull::new(traffic).ok_or(ENOMEM)?))
    }

    /// Counts a packet of `len` bytes (from the network header on) that the fast path forwards.
    #[inline(always)]
    pub(crate) fn count<F: Family>(&self, len: u32) {
        let v6 = F::NFPROTO == c::NFPROTO_IPV6 as u8;

        #[cfg(all(target_arch = "x86_64", CONFIG_SMP, not(CONFIG_UML)))]
        // SAFETY: `this_cpu_inc()` and `this_cpu_add()`: the GS segment begins at this CPU's data.
        // A family's counters are two words, packets first.
        unsafe {
            core::arch::asm!(
                "inc qword ptr gs:[{counters}]",
                "add qword ptr gs:[{counters} + 8], {len}",
                counters = in(reg) (&raw const (*self.0.as_ptr()).family).cast::<u64>()
                    .wrapping_add(if v6 { 2 } else { 0 }),
                len = in(reg) u64::from(len),
                options(nostack),
            );
        }
        #[cfg(not(all(target_arch = "x86_64", CONFIG_SMP, not(CONFIG_UML))))]
        // SAFETY: Called with softirqs off, as the hook runs.
        unsafe {
            c::nfo_traffic_add(self.0.as_ptr(), v6, len);
        }
    }

    /// Sums over all CPUs.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = NONE;

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

/// Adds what has come since `before` to the statistics of `net`, and notes that it has. Returns
/// packets and bytes.
///
/// # Safety
///
/// `net` is valid.
pub(crate) unsafe fn fold_mib_stats(net: *mut c::net, now: &Totals, before: &mut Totals) {
    for (v6, (now, before)) in now.family.iter().zip(&mut before.family).enumerate() {
        let packets = now.packets.wrapping_sub(before.packets);

        if packets != 0 {
            let bytes = now.bytes.wrapping_sub(before.bytes);

            // SAFETY: By the contract of this function.
            unsafe { c::nfo_mib_add(net, v6 == 1, packets, bytes) };
            *before = *now;
        }
    }
}

/// Flowtables whose traffic is on the way from their own books to those of all that are gone: how
/// many set out, and arrived, ever.
static CLOSING: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];

/// Calls `f`, which takes a flowtable away and counts what it has forwarded as
/// [`stats::add_retired`].
pub(super) fn closing(f: impl FnOnce()) {
    CLOSING[0].fetch_add(1, Ordering::SeqCst);
    f();
    CLOSING[1].fetch_add(1, Ordering::SeqCst);
}

/// Packets and bytes of all flowtables that there are.
fn all() -> (u64, u64) {
    let mut sums = (0_u64, 0_u64);

    // Without memory they are shown as soon as there is some.
    let _ = registry::for_all(|ft| {
        for family in ft.traffic.totals().family {
            sums.0 = sums.0.wrapping_add(family.packets);
            sums.1 = sums.1.wrapping_add(family.bytes);
        }
    });
    sums
}

/// Packets and bytes of all flowtables, gone or not.
pub(crate) fn forwarded() -> (u64, u64) {
    const TRIES: usize = 8;

    let mut sums = (0, 0);
    for _ in 0..TRIES {
        let arrived = CLOSING[1].load(Ordering::SeqCst);
        let (packets, bytes) = all();
        let gone = stats::retired();

        sums = (gone.0.wrapping_add(packets), gone.1.wrapping_add(bytes));
        // Nobody was on the way.
        if CLOSING[0].load(Ordering::SeqCst) == arrived {
            break;
        }
    }
    sums
}
