// SPDX-License-Identifier: GPL-2.0

//! Ingress paths: numbers for what lies around packets when they come in.
//!
//! The key of a flow has 24 bits for where a packet enters. For a packet without encapsulation that
//! is the interface; any other combination of interface, VLAN tags, PPPoE session and tunnel is an
//! ingress path, which is numbered when the first flow needs it and forgotten with the last one.
//! The packet path looks ingress paths up in a table like that of the flows.
//!
//! An ingress path that leads through a bridge is open as long as the bridge takes them from the
//! port. The worker looks after that: spanning tree and VLANs of a port change without any notice
//! to the flows behind it.

use crate::{
    ffi::{
        self,
        skb::Skb,
        NetRef,
        Rcu,
        RcuHead, //
    },
    flow::tag_cache::FrameKey,
    net::{
        bridge::BridgePort,
        device_path::{
            Ingress,
            MAX_BRIDGE_PORTS, //
            MAX_DEVICES,
        },
        rx_stats::{
            Devices,
            RxStats, //
        }, //
    }, //
};
use core::{
    ops::Deref,
    ptr::NonNull,
    sync::atomic::{
        AtomicU32,
        AtomicU8,
        Ordering, //
    }, //
};
use nft_flow::{
    encap::{
        self,
        Encaps, //
    },
    key::{
        IngressId, //
        Key6,
    },
    table::Item, //
};

mod table;

pub(crate) use table::{
    IdPool,
    IngressTable,
    Prealloc,
    MAX_FOLLOWED, //
};

/// What is known of the bridges on an ingress path.
mod bridges {
    /// All of them forward.
    pub(super) const OPEN: u8 = 1;
    /// As far as their spanning trees are concerned.
    pub(super) const FORWARDED: u8 = 2;
    /// The worker has checked.
    pub(super) const CHECKED: u8 = 4;
}

/// What packets of some flows come in with: device, encapsulations, tunnel, bridge ports.
///
/// # Invariants
///
/// `refs` is the number of flows and tunnels that use it; changed under the flowtable's lock.
pub(crate) struct IngressPath {
    key: Key6,
    hash: u32,
    /// What stands in the keys of flows.
    pub(crate) id: IngressId,
    /// The address that frames are sent to. A bridge or VLAN device may have another one than the
    /// device that the frame comes in through.
    pub(crate) mac: [u8; 6],
    /// Indices of the devices between the wire and the route, 0 for none.
    pub(crate) devices: [u32; MAX_DEVICES],
    /// How many bytes their receive counters see around the IP packet.
    rx_overhead: [u8; MAX_DEVICES],
    /// Nobody has listed the device that they come in by; it has the hook because of this.
    followed: bool,
    /// `jiffies` when a walk last found it so; of a tunnel that is followed.
    found: AtomicU32,
    /// Bridges that the packets pass.
    bridge_ports: [Option<BridgePort>; MAX_BRIDGE_PORTS],
    /// What is known of these, see [`bridges`].
    bridges: AtomicU8,
    /// See [`IngressPath::frame_key`].
    frame_key: FrameKey,
    /// Where the devices count packets.
    rx_stats: RxStats,
    parent: Option<PathRef>,
    refs: AtomicU32,
    rcu: RcuHead,
}

/// A use of an ingress path, which its owner [ends](IngressTable::release) under the flowtable's
/// lock.
///
/// # Invariants
///
/// The use is counted in `refs` of the ingress path, which is valid until a grace period after the
/// owner has ended the use. The value is not used longer than that.
#[must_use]
pub(crate) struct PathRef(NonNull<IngressPath>);

impl PathRef {
    /// Takes the use out of what many look at.
    ///
    /// # Safety
    ///
    /// This is called once, and `self` is looked at in RCU sections that have begun, but in no later
    /// ones.
    pub(super) unsafe fn take(&self) -> Self {
        // INVARIANT: By the contract of this function this is the use now.
        Self(self.0)
    }
}

// SAFETY: What changes of an ingress path is atomic.
unsafe impl Send for PathRef {}
// SAFETY: As above.
unsafe impl Sync for PathRef {}

impl Deref for PathRef {
    type Target = IngressPath;

    #[inline(always)]
    fn deref(&self) -> &IngressPath {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_ref() }
    }
}

// SAFETY: Key and hash never change.
unsafe impl Item for IngressPath {
    type Key = Key6;

    #[inline(always)]
    fn key(&self) -> &Key6 {
        &self.key
    }

    #[inline(always)]
    fn hash(&self) -> u32 {
        self.hash
    }
}

impl IngressPath {
    /// What frames of this path have around the packet, if that is little.
    #[inline(always)]
    pub(crate) fn frame_key(&self) -> FrameKey {
        self.frame_key
    }

    /// A packet of `len` bytes was picked up by the ingress hook: the devices above its own, which
    /// it does not pass, count it as received. `net` is the namespace of the devices.
    #[inline(always)]
    pub(crate) fn count_rx<'a>(&self, skb: Skb, net: impl FnOnce() -> NetRef<'a>, len: u32) {
        let devices = Devices {
            ifindices: &self.devices,
            rx_overhead: &self.rx_overhead,
            last: skb.ifindex(),
        };

        self.rx_stats.count(skb, net, &devices, len);
    }

    /// Whether this is the ingress path of packets that come in as `ingress` says.
    pub(crate) fn is_of(&self, ingress: &Ingress<'_>) -> bool {
        let frame = ingress
            .stack
            .encaps
            .key(ingress.ifindex, ingress.stack.peer);

        if self.mac != ingress.stack.mac
            || self.devices != ingress.stack.devices
            || self.followed != ingress.followed
            || self.bridge_ports != ingress.stack.bridge_ports
        {
            return false;
        }
        match ingress.stack.tunnel {
            None => self.key == frame,
            Some((saddr, daddr, proto)) => {
                let parent = self.parent.as_deref();
                let id = parent.map_or(ingress.ifindex, |p| p.id);

                parent.is_none_or(|p| p.key == frame)
                    && parent.is_some() == ingress.needs_ingress_path()
                    && self.key == encap::tunnel_key(saddr, daddr, proto, id)
            }
        }
    }

    /// Whether this path leads in by a followed tunnel only, and a device walk has confirmed it
    /// less than half a second ago. The answer is the same for all flows of the path.
    pub(crate) fn was_found(&self, now: u32) -> bool {
        self.followed
            && self.devices[1] == 0
            && now.wrapping_sub(self.found.load(Ordering::Relaxed)) < ffi::HZ / 2
    }

    /// A walk has found it so.
    pub(crate) fn find(&self, now: u32) {
        self.found.store(now, Ordering::Relaxed);
    }

    /// Returns interface and encapsulations of the frames, and whether there is a tunnel in them.
    pub(crate) fn frame(&self) -> (IngressId, Encaps, bool) {
        if self.key.ports == 0 {
            return (self.key.ingress.ingress(), Encaps::of_key(&self.key), false);
        }
        match &self.parent {
            Some(p) => (p.key.ingress.ingress(), Encaps::of_key(&p.key), true),
            None => (self.key.ingress.ingress(), Encaps::default(), true),
        }
    }

    /// The protocol of the tunnel that packets come in by, as the outer header has it.
    pub(crate) fn tunnel(&self) -> Option<u8> {
        (self.key.ports != 0).then_some(self.key.ports as u8)
    }

    /// Whether all bridges on the path forward from this port. False of a new path until a packet
    /// [proves](IngressPath::prove) it or the worker has checked.
    #[inline(always)]
    pub(crate) fn ports_forwarding(&self) -> bool {
        self.bridges.load(Ordering::Relaxed) & bridges::OPEN != 0
    }

    /// Whether the bridges forward, or have not been checked yet.
    pub(crate) fn may_forward(&self) -> bool {
        self.ports_forwarding() || !self.is_checked()
    }

    /// Whether the worker has checked the bridges of the path, or that it is followed.
    pub(crate) fn is_checked(&self) -> bool {
        self.bridges.load(Ordering::Relaxed) & bridges::CHECKED != 0
    }

    /// The worker has seen to it that the path is followed.
    fn set_followed(&self) {
        self.bridges.fetch_or(bridges::CHECKED, Ordering::Relaxed);
    }

    /// Whether a device or tunnel above the one where packets are picked up would filter them.
    pub(crate) fn is_filtered(&self, rcu: Rcu<'_>, net: NetRef<'_>) -> bool {
        let tunnel = self.key.ports != 0;

        self.devices
            .iter()
            .zip(self.devices.iter().skip(1))
            .take_while(|(_, below)| **below != 0)
            .filter_map(|(dev, _)| net.device(rcu, *dev))
            .any(|dev| dev.filters() || tunnel && dev.has_ipsec())
    }

    /// Checks the bridges of the path again. The spanning tree's part is read only with `rtnl`
    /// held. The worker alone does this.
    fn recheck(&self, net: NetRef<'_>, rtnl: bool) {
        let known = self.bridges.load(Ordering::Relaxed);
        let forwarded = known & bridges::FORWARDED != 0;
        let open = self.are_forwarding(net, rtnl, forwarded);
        let now = match (open, rtnl) {
            (true, true) => bridges::OPEN | bridges::FORWARDED | bridges::CHECKED,
            (false, true) => bridges::CHECKED,
            (true, false) => known | bridges::OPEN,
            (false, false) => known & !bridges::OPEN,
        };

        self.bridges.store(now, Ordering::Relaxed);
    }

    /// Notes that a packet was passed up by the bridges of this path, so that their spanning trees
    /// let it. That holds until the worker has checked them, for which it has to wait for RTNL.
    #[inline]
    pub(crate) fn prove(&self, net: NetRef<'_>) {
        if self.is_bridged() && self.bridges.load(Ordering::Relaxed) == 0 {
            self.prove_now(net);
        }
    }

    #[cold]
    fn prove_now(&self, net: NetRef<'_>) {
        if self.are_forwarding(net, false, true) {
            let proven = bridges::OPEN | bridges::FORWARDED;
            // What the worker knows is better.
            let _ = self.bridges.compare_exchange(
                0,
                proven,
                Ordering::Relaxed,
                Ordering::Relaxed, //
            );
        }
    }

    /// Whether all bridges of the path pass packets up, see [`BridgePort::is_forwarding`].
    fn are_forwarding(&self, net: NetRef<'_>, rtnl: bool, forwarded: bool) -> bool {
        let mut ports = self.bridge_ports.iter().flatten();

        ports.all(|port| port.is_forwarding(net, rtnl, forwarded))
    }

    /// Whether packets of the path pass a bridge.
    fn is_bridged(&self) -> bool {
        self.bridge_ports[0].is_some()
    }

    fn is_same_path(&self, other: &Self) -> bool {
        self.mac == other.mac
            && self.devices == other.devices
            && self.followed == other.followed
            && self.bridge_ports == other.bridge_ports
    }
}
