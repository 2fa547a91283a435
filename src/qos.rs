// SPDX-License-Identifier: GPL-2.0

//! Priority, mark and DSCP: fast packets look like the last packet of their direction that has passed
//! the ruleset, so that queueing disciplines and classifiers see what they would see without a
//! flowtable.
//!
//! - The mark is that packet's.
//! - The priority is that packet's too, unless it is the one that forwarding gives every IPv4 packet
//!   by its type of service: then each packet has its own. A sender may change it at any time.
//! - The DSCP is left alone, unless the module's parameter `dscp` says "restore" and the ruleset has
//!   changed it in that packet.

use crate::{
    entry::Entry,
    family::Family,
    ffi::{
        c,
        skb::Skb, //
    },
    flowtable::Flowtable,
    stats, //
};
use core::sync::atomic::{
    AtomicU16,
    AtomicU32,
    Ordering, //
};

/// In [`Qos::arrived`] and [`Qos::ds`]: the low byte means something.
const SET: u16 = 1 << 8;
/// In [`Qos::ds`]: priorities follow the type of service.
const BY_TOS: u16 = 1 << 9;
/// The upper six bits of a type of service.
const DSCP: u8 = 0xfc;

/// What packets of a direction look like after the ruleset.
#[derive(Default)]
pub(crate) struct Qos {
    priority: AtomicU32,
    mark: AtomicU32,
    /// The type of service of the packet that was sent to the ruleset, until it has passed.
    arrived: AtomicU16,
    /// The DSCP that packets get, and how they get their priority.
    ds: AtomicU16,
}

/// What a packet looks like.
pub(crate) struct Looks {
    priority: u32,
    mark: u32,
    ds_field: u8,
}

impl Looks {
    /// Of a packet in a hook of IPv4 or IPv6.
    ///
    /// # Safety
    ///
    /// `skb` is valid, and its network header is at `data`, in the linear part.
    pub(crate) unsafe fn of(skb: *const c::sk_buff) -> Self {
        // SAFETY: By the contract of this function.
        unsafe {
            let headers = (*skb).__bindgen_anon_4.headers.as_ref();
            let [a, b] = (*skb).data.cast::<[u8; 2]>().read();

            Self {
                priority: headers.priority,
                mark: headers.__bindgen_anon_4.mark,
                ds_field: if a >> 4 == 4 { b } else { (a << 4) | (b >> 4) },
            }
        }
    }
}

impl Qos {
    /// A packet with this type of service goes to the ruleset.
    pub(crate) fn sent(&self, ds_field: u8) {
        self.arrived
            .store(SET | u16::from(ds_field), Ordering::Relaxed);
    }

    /// A packet has passed the ruleset. Is there anything to restore? `by_tos`: forwarding sets
    /// priorities.
    pub(crate) fn passed(&self, looks: Looks, by_tos: bool) -> bool {
        let arrived = self.arrived.swap(0, Ordering::Relaxed);

        if arrived & SET != 0 {
            let arrived = arrived as u8;
            let mut ds = 0;

            // SAFETY: No preconditions.
            unsafe {
                if by_tos && looks.priority == u32::from(c::nfo_tos2priority(arrived)) {
                    ds |= BY_TOS;
                }
                if (looks.ds_field ^ arrived) & DSCP != 0 && c::nfo_dscp_restored() {
                    ds |= SET | u16::from(looks.ds_field);
                }
            }
            self.ds.store(ds, Ordering::Relaxed);
        }
        self.priority.store(looks.priority, Ordering::Relaxed);
        self.mark.store(looks.mark, Ordering::Relaxed);

        let ds = self.ds.load(Ordering::Relaxed);
        looks.mark != 0 || ds & SET != 0 || looks.priority != 0 && ds & BY_TOS == 0
    }
}

impl Qos {
    /// The priority of packets of the direction, as of the last one that has passed the ruleset; and the
    /// DSCP that they get, if that is restored.
    pub(crate) fn for_hardware(&self) -> (u32, Option<u8>) {
        let ds = self.ds.load(Ordering::Relaxed);

        (
            self.priority.load(Ordering::Relaxed),
            (ds & SET != 0).then_some((ds as u8 & DSCP) >> 2),
        )
    }
}

/// Does forwarding set the priority of IPv4 packets in the flowtable's namespace?
pub(crate) fn is_by_tos(ft: &Flowtable) -> bool {
    // SAFETY: The namespace outlives its flowtables.
    unsafe { c::nfo_priority_by_tos(ft.net()) }
}

/// Makes a rewritten packet look like those that have passed the ruleset, and gives it its connection
/// if somebody on the way out asks for that.
#[inline(never)]
pub(crate) fn restore<F: Family>(entry: &Entry<F>, skb: Skb) {
    let qos = &entry.flow().cold.qos[entry.dir() as usize];
    let ds = qos.ds.load(Ordering::Relaxed);
    // SAFETY: The hook has made the IP header writable, and has no slice of the packet any more.
    let hdr = unsafe { skb.head_mut() };

    if ds & BY_TOS != 0 {
        // SAFETY: No preconditions.
        skb.set_priority(unsafe { c::nfo_tos2priority(F::ds_field(hdr)) }.into());
    } else if entry.has_qos() {
        skb.set_priority(qos.priority.load(Ordering::Relaxed));
    }
    if entry.has_qos() {
        skb.set_mark(qos.mark.load(Ordering::Relaxed));
    }
    if ds & SET != 0 {
        F::set_dscp(hdr, ds as u8);
    }
    if entry.is_asked_for() && skb.set_connection(entry.ct, entry.dir()) {
        stats::count(stats::Counter::PacketsWithCt);
    }
}
