// SPDX-License-Identifier: GPL-2.0

//! A flow as engines see it: what packets of both directions look like, where they come in and
//! leave.

use crate::{
    ffi::Rcu,
    flow::{
        entry::Entry,
        object::{
            with_family,
            Flow, //
        },
        qos::{
            Diverse,
            Qos, //
        },
        shared::FlowShared,
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
    ptr, //
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
    direction::Direction,
    engine::PPPOE,
    reason::Unsupported, //
};

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
    pub(super) ingress_mtu: [u32; 2],
    /// The MTUs of the ports that they leave by.
    pub(super) port_mtu: [u32; 2],
    /// What is behind these ports: see [`device_path::DevicePathWalk::below`].
    below: [u64; 2],
    /// Whether something sees packets on their way in before a flowtable would.
    pub(super) is_filtered: [bool; 2],
}

/// What an installed rule was made of, to see changes by: one word that differs makes another
/// fingerprint.
struct Fingerprint(u64);

impl Fingerprint {
    #[inline]
    fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Fingerprint {
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
    /// What an engine knows packets of direction `dir` by that looks at addresses and ports only.
    pub(super) fn tuple_hash(&self, dir: usize) -> u64 {
        let mut h = Fingerprint(0xcbf2_9ce4_8422_2325);

        if let Kind::Routed { proto, tuple, .. } = self.descs[dir].kind {
            (proto, tuple).hash(&mut h);
        }
        h.finish()
    }

    /// Returns a fingerprint that changes when either rule would be another one.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut h = Fingerprint(0xcbf2_9ce4_8422_2325);

        (&self.descs, &self.ingress_mtu, &self.is_filtered).hash(&mut h);
        self.below.hash(&mut h);
        h.finish()
    }
}

/// Where packets of a direction leave: the lowest device, and what they look like there.
struct EgressDesc {
    port: Port,
    layers: Layers,
    /// With the priorities of VLAN tags.
    tagged: Layers,
    macs: Macs,
    /// The MTU of the device, which bounds packets of the other direction on their way in, whatever
    /// the MTU of the route.
    ingress_mtu: u32,
    /// The MTU of the device.
    port_mtu: u32,
    below: u64,
    /// The same packets meet something on their way in.
    is_filtered: bool,
    dscp: Option<u8>,
}

fn egress_desc<F: Family>(
    rcu: Rcu<'_>,
    entry: &Entry<F>,
    table: &TableRef,
) -> Result<EgressDesc, Indescribable> {
    if entry.is_xfrm() {
        return Err(Indescribable::Never(Unsupported::Tunnel));
    }
    let neigh = entry.neighbour(rcu).ok_or(Indescribable::Later)?;
    let walk = device_path::fill_forward_path::<F>(
        rcu,
        entry.dst.device(rcu),
        &device_path::Destination::Neigh(neigh),
        table.nft(),
    );
    let (ifindex, stack) = walk.lowest();

    if stack.tunnel.is_some() {
        return Err(Indescribable::Never(Unsupported::Tunnel));
    }
    if walk.end() != device_path::WalkEnd::Lowest {
        return Err(Indescribable::Later);
    }
    if walk.keeps_tag() {
        return Err(Indescribable::Never(Unsupported::HwUntag));
    }
    let dst = match stack.peer {
        Some(peer) => peer,
        None => neigh.address().ok_or(Indescribable::Later)?,
    };
    let uniform = match entry.flow().shared.qos[entry.dir() as usize].for_hardware() {
        Ok(uniform) => uniform,
        Err(Diverse::Busy) => return Err(Indescribable::Later),
        Err(Diverse::Dscp) => return Err(Indescribable::Never(Unsupported::Dscp)),
        Err(Diverse::Mark) => return Err(Indescribable::Never(Unsupported::Mark)),
    };
    let layers = Layers::from(&stack.encaps);
    let mut tagged = layers;
    let priority = match uniform.priority {
        Some(priority) => priority,
        None if layers.vlans() != 0 => return Err(Indescribable::Never(Unsupported::Pcp)),
        None => 0,
    };
    if priority != 0 && layers.vlans() != 0 {
        // What qdiscs make of a priority is lost; what VLAN devices make of it is not.
        for &dev in stack.devices.iter().filter(|dev| **dev != 0) {
            if let Some((vlan, pcp)) = table.net().vlan_pcp(rcu, dev, priority) {
                tagged.prioritise(vlan, pcp);
            }
        }
    }
    let pppoe = match layers.pppoe() {
        Some(_) => PPPOE,
        None => 0,
    };
    Ok(EgressDesc {
        port: Port::plain(ifindex),
        layers,
        tagged,
        macs: Macs {
            src: stack.mac,
            dst,
        },
        ingress_mtu: walk.mtu_below().saturating_sub(pppoe),
        port_mtu: walk.mtu_below(),
        below: walk.below(),
        is_filtered: walk.is_filtered(),
        dscp: uniform.dscp,
    })
}

impl<F: Family> Flow<F> {
    fn describe(&self) -> Result<Described, Indescribable> {
        let guard = rcu::read_lock();
        let rcu = Rcu::from(&guard);
        let table = self.shared.table();
        let [orig, reply] = &self.entries;
        let (out, back) = (
            egress_desc(rcu, orig, table)?,
            egress_desc(rcu, reply, table)?,
        );
        let desc = |entry: &Entry<F>, out: &EgressDesc, back: &EgressDesc| FlowDesc {
            kind: Kind::Routed {
                proto: self.shared.proto.number(),
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
            ingress_mtu: [back.ingress_mtu, out.ingress_mtu],
            port_mtu: [out.port_mtu, back.port_mtu],
            below: [out.below, back.below],
            is_filtered: [back.is_filtered, out.is_filtered],
        })
    }
}

impl FlowShared {
    /// Describes both directions of the flow for an engine.
    pub(super) fn describe(&self) -> Result<Described, Indescribable> {
        with_family!(self, |flow| flow.describe())
    }

    /// Returns by which generation of the ruleset each direction was validated last, if by any.
    /// [`None`] if the flow or its conntrack entry is on its way out, a route is not valid any more,
    /// or a bridge port that packets come in by is blocked.
    pub(super) fn validated_by(&self) -> Option<[u32; 2]> {
        if !self.is_live() || self.ct.get().is_dying() {
            return None;
        }
        if ![Direction::Original, Direction::Reply]
            .iter()
            .all(|dir| self.ports_forwarding(*dir))
        {
            return None;
        }
        let _rcu = rcu::read_lock();
        let valid = with_family!(self, F, |flow| flow.entries.iter().all(F::dst_valid));

        valid.then(|| self.qos.each_ref().map(Qos::generation))
    }

    /// When the latest packet of the direction with index `dir` was, in `jiffies`.
    pub(super) fn last_seen(&self, dir: usize) -> u32 {
        with_family!(self, |flow| flow.entries.get(dir).map_or(0, |e| e.seen()))
    }

    /// Notes that hardware saw a packet of the direction with index `dir` at `jiffies`.
    pub(super) fn seen_at(&self, dir: usize, jiffies: u32) {
        with_family!(self, |flow| {
            if let Some(entry) = flow.entries.get(dir) {
                entry.seen_at(jiffies);
            }
        });
    }
}
