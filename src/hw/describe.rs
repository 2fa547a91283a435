// SPDX-License-Identifier: GPL-2.0

//! What the tier keeps of a flow in the flow itself: where it stands, and how many bytes it had.

use super::Tier;
use crate::{
    ffi::{
        self,
        c, //
    },
    flow::{
        entry::{
            Entry,
            Flow, //
        },
        qos::Diverse,
        shared::{
            Cold,
            Visitor, //
        },
        table_ref::TableRef, //
    },
    net::{
        device_path,
        family::Family, //
    }, //
};
use core::{
    hash::{
        Hash,
        Hasher, //
    },
    ptr,
    sync::atomic::{
        AtomicU32,
        AtomicU64,
        AtomicU8,
        Ordering, //
    }, //
};
use kernel::sync::rcu;
use nft_flow::{
    desc::{
        Egress,
        FlowDesc,
        Ingress,
        Kind,
        Layers,
        Macs,
        Marks,
        Port, //
    },
    engine::PPPOE,
    llist,
    reason::Unsupported, //
};

/// Where a flow stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Stage {
    /// With software alone.
    Software,
    /// On its way to the tier's list; only the packet path makes it so.
    Queued,
    /// In the tier's list of flows that are worth a place.
    Waiting,
    /// One direction is in hardware.
    Partial,
    /// Both directions are.
    Hardware,
    /// No engine can express it: never asked again.
    Refused,
    /// Dead.
    Closed,
}

impl Stage {
    const ALL: [Stage; 7] = [
        Stage::Software,
        Stage::Queued,
        Stage::Waiting,
        Stage::Partial,
        Stage::Hardware,
        Stage::Refused,
        Stage::Closed,
    ];

    fn of(n: u8) -> Self {
        Self::ALL
            .get(usize::from(n))
            .copied()
            .unwrap_or(Stage::Closed)
    }
}

/// A flow's state with the tier. The packet path changes `stage` from `Software` to `Queued`; all
/// else is for the tier, under its lock.
pub(crate) struct Hw {
    stage: AtomicU8,
    /// Failures in a row.
    pub(super) failures: AtomicU8,
    /// Its place in the tier's list.
    pub(super) index: AtomicU32,
    /// In the tier's queue.
    pub(crate) node: llist::Node,
    /// Bytes forwarded, by whomever.
    pub(super) bytes: AtomicU64,
    /// `bytes` when the present window began.
    base: AtomicU64,
    /// When that was, in `jiffies`.
    since: AtomicU32,
    /// Not queued before this time.
    not_before: AtomicU32,
}

impl Hw {
    /// Of a new flow.
    pub(crate) fn new(now: u32) -> Self {
        Self {
            stage: AtomicU8::new(Stage::Software as u8),
            failures: AtomicU8::new(0),
            index: AtomicU32::new(0),
            node: llist::Node::new(),
            bytes: AtomicU64::new(0),
            base: AtomicU64::new(0),
            since: AtomicU32::new(now),
            not_before: AtomicU32::new(now),
        }
    }

    /// Is a direction in hardware?
    pub(crate) fn is_there(&self) -> bool {
        matches!(self.stage(), Stage::Partial | Stage::Hardware)
    }

    pub(super) fn stage(&self) -> Stage {
        Stage::of(self.stage.load(Ordering::Acquire))
    }

    pub(super) fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// From one stage to another, if it is in the first.
    pub(super) fn step(&self, from: Stage, to: Stage) -> bool {
        self.stage
            .compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Back to software, not to be queued for `jiffies`.
    pub(super) fn leave(&self, now: u32, jiffies: u32) {
        self.not_before
            .store(now.wrapping_add(jiffies), Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
        self.base
            .store(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        self.set_stage(Stage::Software);
    }

    /// Bytes of the present window, and its length in jiffies: none if a packet has just begun another
    /// one, later than `now`.
    pub(super) fn recent(&self, now: u32) -> (u64, u32) {
        (
            self.bytes
                .load(Ordering::Relaxed)
                .saturating_sub(self.base.load(Ordering::Relaxed)),
            (now.wrapping_sub(self.since.load(Ordering::Relaxed)) as i32).max(0) as u32,
        )
    }
}

impl Cold {
    /// A packet of `len` bytes was forwarded by software, in a flowtable that has hardware. Queues
    /// the flow when it is heavy enough.
    #[inline(never)]
    pub(crate) fn forwarded(&self, tier: &Tier, len: u32, now: u32) {
        const WINDOW: u32 = ffi::HZ;

        let hw = &self.hw;
        let stage = hw.stage.load(Ordering::Relaxed);
        if stage >= Stage::Refused as u8 {
            return;
        }
        let total = hw.bytes.fetch_add(len.into(), Ordering::Relaxed);
        if stage != Stage::Software as u8 {
            return;
        }
        let recent = total
            .wrapping_add(len.into())
            .wrapping_sub(hw.base.load(Ordering::Relaxed));

        if now.wrapping_sub(hw.since.load(Ordering::Relaxed)) > WINDOW {
            hw.since.store(now, Ordering::Relaxed);
            hw.base.store(total, Ordering::Relaxed);
        } else if recent >= tier.threshold
            && now.wrapping_sub(hw.not_before.load(Ordering::Relaxed)) as i32 >= 0
            && hw.step(Stage::Software, Stage::Queued)
        {
            tier.push(self);
        }
    }
}

/// Why a flow cannot be described now.
#[derive(Clone, Copy, Debug)]
pub(super) enum Indescribable {
    /// Not yet: a neighbour is not resolved.
    Later,
    /// Never.
    Never(Unsupported),
}

/// The two directions of a flow for an engine.
pub(super) struct Described {
    pub(super) descs: [FlowDesc; 2],
    pub(super) cookies: [usize; 2],
    /// The largest packets that may come in.
    pub(super) takes: [u32; 2],
}

/// What an installed rule was made of, to see changes by: one word that differs makes another print.
struct Print(u64);

impl Print {
    #[inline]
    fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Print {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];

            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.word(u64::from_ne_bytes(word));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.word(n.into());
    }

    fn write_u16(&mut self, n: u16) {
        self.word(n.into());
    }

    fn write_u32(&mut self, n: u32) {
        self.word(n.into());
    }

    fn write_u64(&mut self, n: u64) {
        self.word(n);
    }

    fn write_usize(&mut self, n: usize) {
        self.word(n as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Described {
    /// Changes when either rule would be another one.
    pub(super) fn print(&self) -> u64 {
        let mut h = Print(0xcbf2_9ce4_8422_2325);

        (&self.descs, &self.takes).hash(&mut h);
        h.finish()
    }
}

/// Where packets of a direction leave: the lowest device, and what they look like there.
struct Exit {
    port: Port,
    layers: Layers,
    /// With the priorities of VLAN tags.
    tagged: Layers,
    macs: Macs,
    /// The largest packet that the device takes, the other way: whatever a route says, it may come.
    takes: u32,
    dscp: Option<u8>,
}

fn way_out<F: Family>(entry: &Entry<F>, table: &TableRef) -> Result<Exit, Indescribable> {
    if entry.is_xfrm() {
        return Err(Indescribable::Never(Unsupported::Tunnel));
    }
    let neigh = entry.neigh();
    if neigh.is_null() {
        return Err(Indescribable::Later);
    }
    // SAFETY: The caller holds RCU, hence route, device and neighbour are valid.
    let walk = unsafe {
        device_path::down::<F>(
            entry.dst.dev(),
            device_path::Station::Neigh(neigh),
            table.nft(),
        )
    };
    let (ifindex, layer) = walk.bottom();

    if layer.tunnel.is_some() {
        return Err(Indescribable::Never(Unsupported::Tunnel));
    }
    if walk.end() != device_path::End::Bottom {
        return Err(Indescribable::Later);
    }
    let dst = match layer.peer {
        Some(peer) => peer,
        None => {
            let mut ha = [0; 6];

            // SAFETY: As above.
            if !unsafe { c::nfo_neigh_ha(neigh, ha.as_mut_ptr()) } {
                return Err(Indescribable::Later);
            }
            ha
        }
    };
    let uniform = match entry.flow().cold.qos[entry.dir() as usize].for_hardware() {
        Ok(uniform) => uniform,
        Err(Diverse::Busy) => return Err(Indescribable::Later),
        Err(Diverse::Dscp) => return Err(Indescribable::Never(Unsupported::Dscp)),
        Err(Diverse::Mark) => return Err(Indescribable::Never(Unsupported::Mark)),
    };
    let layers = Layers::from(&layer.encaps);
    let mut tagged = layers;
    let priority = match uniform.priority {
        Some(priority) => priority,
        None if layers.vlans() != 0 => return Err(Indescribable::Never(Unsupported::Pcp)),
        None => 0,
    };
    if priority != 0 && layers.vlans() != 0 {
        // What qdiscs make of a priority is lost; what VLAN devices make of it is not.
        for &dev in layer.devices.iter().filter(|dev| **dev != 0) {
            let (mut proto, mut vid) = (0, 0);
            // SAFETY: As above; the network namespace outlives its flowtables.
            let pcp = unsafe { c::nfo_vlan_pcp(table.net(), dev, priority, &mut proto, &mut vid) };

            if pcp > 0 {
                tagged.prioritise((proto, vid), pcp as u8);
            }
        }
    }
    let pppoe = match layers.pppoe() {
        Some(_) => PPPOE,
        None => 0,
    };
    Ok(Exit {
        port: Port::plain(ifindex),
        layers,
        tagged,
        macs: Macs {
            src: layer.mac,
            dst,
        },
        takes: walk.mtu_below().saturating_sub(pppoe),
        dscp: uniform.dscp,
    })
}

impl Cold {
    /// What engines have to know of both directions.
    pub(super) fn describe(&self) -> Result<Described, Indescribable> {
        struct Describe;
        impl Visitor for Describe {
            type Output = Result<Described, Indescribable>;
            fn visit<F: Family>(self, flow: &Flow<F>) -> Self::Output {
                let _rcu = rcu::read_lock();
                let table = flow.cold.table();
                let [orig, reply] = &flow.entries;
                let (out, back) = (way_out(orig, table)?, way_out(reply, table)?);
                let desc = |entry: &Entry<F>, out: &Exit, back: &Exit| FlowDesc {
                    kind: Kind::Routed {
                        proto: flow.cold.proto.number(),
                        tuple: F::tuple(&entry.key),
                        rewritten: F::rewritten(&entry.rewrite),
                    },
                    ingress: Ingress {
                        port: back.port,
                        macs: None,
                        layers: back.layers,
                        tunnel: None,
                    },
                    egress: Egress {
                        port: out.port,
                        macs: out.macs,
                        layers: out.tagged,
                        tunnel: None,
                        mtu: entry.mtu,
                    },
                    marks: Marks {
                        dscp: out.dscp,
                        ..Marks::default()
                    },
                };

                Ok(Described {
                    descs: [desc(orig, &out, &back), desc(reply, &back, &out)],
                    cookies: [ptr::from_ref(orig) as usize, ptr::from_ref(reply) as usize],
                    takes: [back.takes, out.takes],
                })
            }
        }

        self.with(Describe)
    }

    /// Which directions have passed the ruleset `generation`? None if the flow or its conntrack
    /// entry is on its way out, or a route is not valid any more.
    pub(super) fn agreed(&self, generation: u32) -> [bool; 2] {
        struct Agreed(u32);
        impl Visitor for Agreed {
            type Output = [bool; 2];
            fn visit<F: Family>(self, flow: &Flow<F>) -> [bool; 2] {
                let _rcu = rcu::read_lock();
                let [orig, reply] = &flow.entries;
                let valid = F::dst_valid(orig) && F::dst_valid(reply);

                [orig, reply].map(|entry| valid && entry.agrees(self.0))
            }
        }

        if !self.is_live() || self.ct.get().is_dying() {
            return [false; 2];
        }
        self.with(Agreed(generation))
    }

    /// Hardware saw a packet of the direction with index `dir` at `jiffies`.
    pub(super) fn seen_at(&self, dir: usize, jiffies: u32) {
        struct Seen(usize, u32);
        impl Visitor for Seen {
            type Output = ();
            fn visit<F: Family>(self, flow: &Flow<F>) {
                if let Some(entry) = flow.entries.get(self.0) {
                    entry.seen_at(self.1);
                }
            }
        }

        self.with(Seen(dir, jiffies));
    }
}
