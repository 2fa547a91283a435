// SPDX-License-Identifier: GPL-2.0

//! Packets and bytes of a flowtable: counted per CPU, and added to the IP statistics of its network
//! namespace by the worker, once a second.

use crate::{
    ffi::{
        NetRef,
        Totals, //
    },
    flowtable::registry,
    stats::{
        self,
        Counter, //
    }, //
};
use core::sync::atomic::{
    AtomicU32,
    Ordering, //
};

/// Adds what has come since `before` to the statistics of `net`, and notes that it has. Returns
/// packets and bytes.
pub(crate) fn fold_mib_stats(net: NetRef<'_>, now: &Totals, before: &mut Totals) {
    for (v6, (now, before)) in now.family.iter().zip(&mut before.family).enumerate() {
        let packets = now.packets.wrapping_sub(before.packets);

        if packets != 0 {
            let bytes = now.bytes.wrapping_sub(before.bytes);

            net.mib_add(v6 == 1, packets, bytes);
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

/// The counters that are not reasons, by their stable names.
pub(crate) fn counters() -> [(&'static str, u64); 9] {
    let added = stats::counted(Counter::FlowsAdded);
    let freed = stats::counted(Counter::FlowsFreed);
    let (packets, bytes) = forwarded();

    [
        ("packets_fast", packets),
        ("bytes_fast", bytes),
        ("flows_added", added),
        ("flows_freed", freed),
        ("flows", added.wrapping_sub(freed)),
        ("packets_direct", stats::counted(Counter::PacketsDirect)),
        ("neigh_renewed", stats::counted(Counter::NeighRenewed)),
        ("packets_with_ct", stats::counted(Counter::PacketsWithCt)),
        ("flows_asked", stats::counted(Counter::FlowsAsked)),
    ]
}
