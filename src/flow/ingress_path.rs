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
        c,
        skb::Skb,
        BridgeUse,
        Ida,
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
    mem::offset_of,
    ops::Deref,
    ptr::NonNull,
    sync::atomic::{
        AtomicBool,
        AtomicU32,
        Ordering, //
    }, //
};
use kernel::prelude::*;
use nft_flow::{
    encap::{
        self,
        Encaps, //
    },
    key::{
        IngressId, //
        Key,
        Key6,
    },
    reason::SkipReason,
    table::{
        Cursor,
        Item,
        Visit,
        Writer, //
    },
    turn::Turn, //
};

/// Most devices that a flowtable follows.
pub(crate) const MAX_FOLLOWED: usize = 64;

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
    /// All bridges on the path forward from this port. Assumed false of a new path until the worker
    /// has checked.
    open: AtomicBool,
    checked: AtomicBool,
    /// The spanning tree's part in that.
    forwarded: AtomicBool,
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

    /// Whether all bridges on the path forward from this port. False of a new path until the worker
    /// has checked.
    #[inline(always)]
    pub(crate) fn ports_forwarding(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether the bridges forward, or have not been checked yet.
    pub(crate) fn may_forward(&self) -> bool {
        self.ports_forwarding() || !self.is_checked()
    }

    /// Whether the worker has checked the bridges of the path.
    pub(crate) fn is_checked(&self) -> bool {
        self.checked.load(Ordering::Relaxed)
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
    /// held.
    fn recheck(&self, net: NetRef<'_>, rtnl: bool) {
        let forwarded = self.forwarded.load(Ordering::Relaxed);
        let open = |port: &BridgePort| port.is_forwarding(net, rtnl, forwarded);
        let open = self.bridge_ports.iter().flatten().all(open);

        if rtnl {
            self.forwarded.store(open, Ordering::Relaxed);
            self.checked.store(true, Ordering::Relaxed);
        }
        self.open
            .store(open && self.is_checked(), Ordering::Relaxed);
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

/// The numbers of ingress paths: which are in use.
#[pin_data]
pub(crate) struct IdPool {
    #[pin]
    ida: Ida,
}

impl IdPool {
    /// Makes a pool of which no number is in use.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self { ida <- Ida::new() })
    }

    /// Takes the next one.
    fn take(&self, turn: &mut Turn) -> Result<IngressId, SkipReason> {
        let number = turn.take(|from, to| {
            self.ida.claim(from, to).map_err(|e| match e {
                ENOMEM => SkipReason::NoMem,
                _ => SkipReason::Ifindex,
            })
        })?;

        IngressId::from_interned(number).ok_or(SkipReason::Ifindex)
    }

    /// Gives one back, if it is one.
    fn give_back(&self, id: IngressId) {
        if let Some(number) = id.interned() {
            self.ida.free(number);
        }
    }
}

/// Memory for the ingress paths that a new flow may need: allocated before the lock is taken.
pub(crate) struct Prealloc([Option<KBox<IngressPath>>; 2]);

impl Prealloc {
    /// Allocates what `ingress` may need.
    pub(crate) fn new(ingress: &Ingress<'_>) -> Result<Self, SkipReason> {
        let one = |needed: bool, key: Key6, devices: [u32; MAX_DEVICES], followed: bool| {
            if !needed {
                return Ok(None);
            }
            let path = IngressPath {
                hash: key.hash(ingress.seed),
                key,
                id: ingress.ifindex,
                mac: ingress.stack.mac,
                devices,
                rx_overhead: ingress.stack.rx_overhead,
                followed,
                found: AtomicU32::new(ffi::jiffies32()),
                bridge_ports: ingress.stack.bridge_ports,
                open: AtomicBool::new(!ingress.is_bridged()),
                checked: AtomicBool::new(!ingress.is_bridged() && !followed),
                forwarded: AtomicBool::new(true),
                frame_key: FrameKey::of(&key),
                rx_stats: RxStats::default(),
                parent: None,
                refs: AtomicU32::new(1),
                rcu: RcuHead::new(),
            };
            KBox::new(path, GFP_ATOMIC | __GFP_NOWARN)
                .map(Some)
                .map_err(|_| SkipReason::NoMem)
        };
        let stack = &ingress.stack;
        let key = stack.encaps.key(ingress.ifindex, stack.peer);

        let outside = stack.devices_outside();
        let frame = one(ingress.needs_ingress_path(), key, outside, ingress.followed)?;
        // The key is completed when the number of the frame's ingress path is known.
        let tunnel = one(stack.tunnel.is_some(), key, stack.devices, false)?;
        Ok(Self([frame, tunnel]))
    }
}

/// The ingress paths of a flowtable, under its lock.
pub(crate) struct IngressTable {
    writer: Writer<IngressPath>,
    /// Numbers of ingress paths.
    turn: Turn,
    /// Shapes that have to do with bridges.
    bridged: usize,
    /// The bridge module, while there are such.
    bridge: Option<BridgeUse>,
    /// Shapes of devices that nobody has listed.
    followed: usize,
}

impl IngressTable {
    /// Makes the bookkeeping of an empty table with this writer.
    pub(crate) fn new(writer: Writer<IngressPath>) -> Self {
        Self {
            writer,
            turn: Turn::new(IngressId::MAX_INTERNED),
            bridged: 0,
            bridge: None,
            followed: 0,
        }
    }

    /// The writer, for a change of the table's size and its end.
    pub(crate) fn writer(&mut self) -> &mut Writer<IngressPath> {
        &mut self.writer
    }

    /// Returns the number of ingress paths.
    pub(crate) fn len(&self) -> usize {
        self.writer.len()
    }

    /// Whether the table has no ingress path.
    pub(crate) fn is_empty(&self) -> bool {
        self.writer.is_empty()
    }

    /// Returns the number of ingress paths through bridges.
    pub(crate) fn bridged(&self) -> usize {
        self.bridged
    }

    /// Returns the number of ingress paths of followed devices, which nobody has listed.
    pub(crate) fn followed(&self) -> usize {
        self.followed
    }

    /// Asks the bridges of some ingress paths again, from `cursor` on. Of the spanning tree only
    /// with `rtnl` held. True if there are more.
    pub(crate) fn recheck(&mut self, cursor: &mut Cursor, net: NetRef<'_>, rtnl: bool) -> bool {
        const BUCKETS_AT_ONCE: usize = 32;

        self.writer.visit(cursor, BUCKETS_AT_ONCE, |path| {
            if path.is_bridged() {
                path.recheck(net, rtnl);
            }
            Visit::Keep
        })
    }

    /// Gives the devices of some ingress paths that nobody has listed to `each`, from `cursor` on.
    /// True if there are more.
    pub(crate) fn each_followed(&mut self, cursor: &mut Cursor, mut each: impl FnMut(u32)) -> bool {
        const BUCKETS_AT_ONCE: usize = 64;

        self.writer.visit(cursor, BUCKETS_AT_ONCE, |path| {
            if path.followed {
                path.checked.store(true, Ordering::Relaxed);
                if let Some(ifindex) = path.key.ingress.ingress().ifindex() {
                    each(ifindex);
                }
            }
            Visit::Keep
        })
    }

    /// Finds or makes the ingress paths of `ingress`, and counts the use of the one that flows have
    /// in their keys. None: packets come in as they are, and the interface is their port.
    pub(crate) fn intern(
        &mut self,
        on_remove: &dyn Fn(&IngressPath),
        ids: &IdPool,
        ingress: &Ingress<'_>,
        reserve: &mut Prealloc,
    ) -> Result<Option<PathRef>, SkipReason> {
        let [frame, tunnel] = &mut reserve.0;
        let frame = match frame.take() {
            Some(path) => {
                let numbered = !ingress.stack.encaps.is_empty();
                Some(self.get_or_insert(on_remove, ids, path, numbered)?)
            }
            None => None,
        };
        let (Some(mut path), Some((saddr, daddr, proto))) = (tunnel.take(), ingress.stack.tunnel)
        else {
            return Ok(frame);
        };

        let id = frame.as_ref().map_or(ingress.ifindex, |f| f.id);
        path.key = encap::tunnel_key(saddr, daddr, proto, id);
        path.hash = path.key.hash(ingress.seed);
        path.frame_key = FrameKey::NONE;
        path.parent = frame;
        self.get_or_insert(on_remove, ids, path, true).map(Some)
    }

    /// Puts a new ingress path into the table, or finds the one that is there already. If that or
    /// neither is the case the new one's use of its parent ends.
    fn get_or_insert(
        &mut self,
        on_remove: &dyn Fn(&IngressPath),
        ids: &IdPool,
        mut new: KBox<IngressPath>,
        numbered: bool,
    ) -> Result<PathRef, SkipReason> {
        if let Some(old) = self.writer.find(&new) {
            // INVARIANT: In the table, and counted below; or not used.
            let this = PathRef(old);
            // The old one holds a use of its own.
            if let Some(parent) = new.parent.take() {
                self.release(on_remove, ids, parent);
            }

            if !this.is_same_path(&new) {
                // Its flows are about to be taken down.
                return Err(SkipReason::PathChange);
            }
            this.refs.fetch_add(1, Ordering::Relaxed);
            return Ok(this);
        }

        self.insert(ids, new, numbered).map_err(|(why, mut new)| {
            if let Some(parent) = new.parent.take() {
                self.release(on_remove, ids, parent);
            }
            why
        })
    }

    fn insert(
        &mut self,
        ids: &IdPool,
        mut new: KBox<IngressPath>,
        numbered: bool,
    ) -> Result<PathRef, (SkipReason, KBox<IngressPath>)> {
        if new.followed && self.followed >= MAX_FOLLOWED {
            return Err((SkipReason::DeviceNotListed, new));
        }
        if numbered {
            match ids.take(&mut self.turn) {
                Ok(id) => new.id = id,
                Err(why) => return Err((why, new)),
            }
        }
        let (bridged, followed) = (new.is_bridged(), new.followed);
        let new = NonNull::from(KBox::leak(new));

        // SAFETY: The ingress path is freed a grace period after it was removed.
        if unsafe { self.writer.insert(new) }.is_err() {
            // SAFETY: Leaked above, and seen by nobody.
            let new = unsafe { KBox::from_raw(new.as_ptr()) };

            if numbered {
                ids.give_back(new.id);
            }
            return Err((SkipReason::TableFull, new));
        }
        self.followed = self.followed.wrapping_add(usize::from(followed));
        if bridged {
            self.bridged = self.bridged.wrapping_add(1);
            self.bridge.get_or_insert_with(BridgeUse::new);
        }
        // INVARIANT: A new one has one use.
        Ok(PathRef(new))
    }

    /// Ends a use of an ingress path.
    pub(crate) fn release(
        &mut self,
        on_remove: &dyn Fn(&IngressPath),
        ids: &IdPool,
        path: PathRef,
    ) {
        /// # Safety
        ///
        /// Called by RCU only, for the `rcu` of an ingress path that [`IngressTable::release`] has
        /// removed.
        unsafe extern "C" fn callback(head: *mut c::callback_head) {
            // SAFETY: `head` is the `rcu` of a leaked ingress path that nobody sees any more.
            unsafe {
                drop(KBox::<IngressPath>::from_raw(
                    head.byte_sub(offset_of!(IngressPath, rcu)).cast(),
                ));
            }
        }

        let mut next = Some(path);
        while let Some(path) = next {
            let this = &*path;

            if this.refs.fetch_sub(1, Ordering::Relaxed) != 1 {
                return;
            }
            // INVARIANT: With the last use of it its own use of the parent ends.
            next = this.parent.as_ref().map(|parent| PathRef(parent.0));
            self.writer.remove(this);
            on_remove(this);
            ids.give_back(this.id);
            if this.is_bridged() {
                self.bridged = self.bridged.wrapping_sub(1);
                if self.bridged == 0 {
                    self.bridge = None;
                }
            }
            self.followed = self.followed.wrapping_sub(usize::from(this.followed));
            // SAFETY: Out of the table; the callback frees it.
            unsafe { this.rcu.call(callback) };
        }
    }
}
