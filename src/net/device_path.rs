// SPDX-License-Identifier: GPL-2.0

//! The devices between a route and the wire.
//!
//! They are walked down from the route's device; the lowest one that the flowtable lists is where
//! packets come in, with the encapsulations of all devices above it. What the devices in between
//! would not let up is not to be picked up below them: the walk ends at a device that is down, and
//! at a bridge that would not take packets from its port. Nor is what they would filter: the walk
//! goes on from a device with programs, filters or chains at ingress, but where packets come in is
//! no lower. The same holds for a PPP session with filters of its own, for a tunnel that copies the
//! outer DSCP, and for any tunnel if there are IPsec policies: only the stack knows which packets
//! may be in one. A device in another network namespace ends the walk.
//!
//! Where no device is listed, but there is a tunnel whose outer packets come in by one that is,
//! packets are picked up at the tunnel's own device: the worker gives it the hook, see
//! `src/flowtable/follow.rs`.

mod below;

use crate::{
    ffi::{
        self,
        c,
        DevRef,
        Rcu, //
    },
    net::{
        bridge::BridgePort,
        family::{
            Family,
            V4,
            V6, //
        },
        nf_tables::NftRef,
        route::{
            Dst,
            NeighRef, //
        }, //
    }, //
};
use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ptr::{
        self,
        NonNull, //
    }, //
};
use nft_flow::{
    encap::{
        self,
        Encap,
        Encaps, //
    },
    key::{
        IngressId,
        Seed, //
    },
    reason::SkipReason, //
};

/// `IPPROTO_IPIP`, include/uapi/linux/in.h.
const IPPROTO_IPIP: u8 = c::NFO_IPPROTO_IPIP;
/// `DEV_PATH_BR_VLAN_*`, include/linux/netdevice.h.
const BR_VLAN_KEEP: u32 = c::NFO_BR_VLAN_KEEP;
const BR_VLAN_TAG: u32 = c::NFO_BR_VLAN_TAG;
const BR_VLAN_UNTAG: u32 = c::NFO_BR_VLAN_UNTAG;
const BR_VLAN_UNTAG_HW: u32 = c::NFO_BR_VLAN_UNTAG_HW;
/// `IFF_UP`, include/uapi/linux/if.h.
const IFF_UP: u32 = c::NFO_IFF_UP;

/// Most devices between the wire and the route that are remembered.
pub(crate) const MAX_DEVICES: usize = c::NET_DEVICE_PATH_STACK_MAX as usize;
/// Most bridges among them: there is a VLAN device at least between two.
pub(crate) const MAX_BRIDGE_PORTS: usize = MAX_DEVICES / 2;

/// Where packets come in that answer those of a direction.
pub(crate) struct Ingress<'a> {
    /// The device whose hook sees them.
    pub(crate) ifindex: IngressId,
    /// What is around them there.
    pub(crate) stack: EncapStack,
    /// It is not listed, but a tunnel that needs the hook.
    pub(crate) followed: bool,
    /// Who sends them, by the frame's address; zeroes if that is not known.
    pub(crate) sender: [u8; 6],
    /// Of the flowtable.
    pub(crate) seed: &'a Seed,
}

impl Ingress<'_> {
    /// Whether the ifindex alone does not identify the frames, so that they need an ingress path of
    /// their own.
    pub(crate) fn needs_ingress_path(&self) -> bool {
        self.is_bridged() || self.followed || !self.stack.encaps.is_empty()
    }

    /// Whether the packets pass a bridge, which has to see its stations from time to time.
    pub(crate) fn is_bridged(&self) -> bool {
        self.stack.bridge_ports[0].is_some()
    }
}

/// What a packet has around it at one device of the stack, and above it.
#[derive(Clone)]
pub(crate) struct EncapStack {
    pub(crate) encaps: Encaps,
    /// Outer addresses as they arrive, and IP protocol.
    pub(crate) tunnel: Option<([u64; 2], [u64; 2], u8)>,
    /// The link-layer address that packets are sent to.
    pub(crate) mac: [u8; 6],
    /// The other end of a PPPoE session.
    pub(crate) peer: Option<[u8; 6]>,
    /// The devices that they pass from there up to the route, in the other order; 0 for none.
    pub(crate) devices: [u32; MAX_DEVICES],
    /// How many bytes their receive counters see around the IP packet.
    pub(crate) rx_overhead: [u8; MAX_DEVICES],
    /// The EtherType of a VLAN tag that is the outermost of their headers there; 0 if it is none.
    pub(crate) tags: [u16; MAX_DEVICES],
    /// The bridges among these.
    pub(crate) bridge_ports: [Option<BridgePort>; MAX_BRIDGE_PORTS],
    depth: usize,
    /// How many devices are above the tunnel's outside.
    outside: usize,
}

impl EncapStack {
    /// The devices that the outer packets of a tunnel pass.
    pub(crate) fn devices_outside(&self) -> [u32; MAX_DEVICES] {
        let mut devices = [0; MAX_DEVICES];

        for (to, from) in devices
            .iter_mut()
            .zip(self.devices.iter().skip(self.outside))
        {
            *to = *from;
        }
        devices
    }
}

/// The way down from a route's device.
///
/// # Invariants
///
/// `dev`, and the device of `tunnel`, are valid for `'rcu`.
pub(crate) struct DevicePathWalk<'rcu> {
    nft: NftRef,
    rcu: PhantomData<DevRef<'rcu>>,
    dev: *const c::net_device,
    here: EncapStack,
    sender: [u8; 6],
    /// The lowest listed device so far.
    best: Option<(u32, EncapStack)>,
    /// The lowest tunnel so far: where its packets come out of it they may be picked up as well.
    tunnel: Option<(*const c::net_device, EncapStack)>,
    /// `best` is a tunnel that nobody has listed.
    followed: bool,
    /// What the engine has to know of the lowest device besides its number: the port of a switch,
    /// the station behind a radio.
    below: u64,
    /// A bridge on the way leaves it to the hardware of its port to take a tag off.
    untags_in_hardware: bool,
    /// Why packets must not be picked up here, if it is because of what is above.
    barred: Option<SkipReason>,
    /// How it ended.
    end: WalkEnd,
}

/// How a walk ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WalkEnd {
    /// At the lowest device.
    Lowest,
    /// At a device that cannot say what is below it: a bridge that does not know the station, a
    /// tunnel of many ends.
    Unknown,
    /// The same, for want of the neighbour's address.
    NoNeigh,
    /// At a device that would not pass packets from below it.
    Closed,
}

impl<'rcu> DevicePathWalk<'rcu> {
    fn new(dev: DevRef<'rcu>, nft: NftRef) -> Self {
        let dev = dev.as_ptr().cast_const();
        let here = EncapStack {
            encaps: Encaps::default(),
            tunnel: None,
            mac: [0; 6],
            peer: None,
            devices: [0; MAX_DEVICES],
            rx_overhead: [0; MAX_DEVICES],
            tags: [0; MAX_DEVICES],
            bridge_ports: [None; MAX_BRIDGE_PORTS],
            depth: 0,
            outside: 0,
        };
        let mut this = Self {
            nft,
            rcu: PhantomData,
            dev,
            here,
            sender: [0; 6],
            best: None,
            tunnel: None,
            followed: false,
            below: 0,
            untags_in_hardware: false,
            barred: None,
            end: WalkEnd::Lowest,
        };

        this.enter(dev);
        this
    }

    /// A walk that ends where it begins: packets come in there, whether it is listed or not.
    pub(crate) fn stay(dev: DevRef<'rcu>, nft: NftRef) -> Self {
        let mut this = Self::new(dev, nft);

        this.best = Some((this.ifindex(), this.here.clone()));
        this
    }

    /// Where nothing is listed, a tunnel will do whose outer packets come in by a listed device.
    fn follow(mut self, rcu: Rcu<'rcu>) -> Self {
        if let (None, Some((dev, stack))) = (&self.best, &self.tunnel) {
            // SAFETY: RCU is held; a device of the walk.
            if unsafe { enters_by_listed(*dev, self.nft, rcu) } {
                // SAFETY: As above.
                self.best = Some((unsafe { (**dev).ifindex as u32 }, stack.clone()));
                self.followed = true;
            }
        }
        self
    }

    /// How it ended.
    pub(crate) fn end(&self) -> WalkEnd {
        self.end
    }

    fn ifindex(&self) -> u32 {
        // SAFETY: A device of the walk, and RCU is held.
        unsafe { (*self.dev).ifindex as u32 }
    }

    /// Arrives at a device.
    fn enter(&mut self, dev: *const c::net_device) {
        self.dev = dev;
        if let Some(slot) = self.here.devices.get_mut(self.here.depth) {
            // SAFETY: A device of the walk, and RCU is held.
            *slot = unsafe { (*dev).ifindex as u32 };
            if let Some(rx_overhead) = self.here.rx_overhead.get_mut(self.here.depth) {
                let tunnel = match self.here.tunnel {
                    Some((_, _, IPPROTO_IPIP)) => 20,
                    Some(_) => 40,
                    None => 0,
                };
                *rx_overhead = self.here.encaps.size().wrapping_add(tunnel) as u8;
            }
            if let Some(tag) = self.here.tags.get_mut(self.here.depth) {
                let outermost = self.here.encaps.as_slice().first();

                *tag = outermost
                    .map(|encap| encap.ethertype())
                    .filter(|tag| *tag != encap::ethertype::PPPOE)
                    .unwrap_or(0);
            }
            self.here.depth += 1;
        }
        // SAFETY: As above. The address of an Ethernet device has six bytes.
        unsafe {
            if self.here.mac == [0; 6] && (*dev).addr_len == 6 {
                self.here.mac = (*dev).dev_addr.cast::<[u8; 6]>().read();
            }
            if self.barred.is_none() {
                if c::nfo_dev_listed(self.nft.as_ptr(), dev) {
                    self.best = Some((self.ifindex(), self.here.clone()));
                } else if self.best.is_none() && self.here.tunnel.is_none() && c::nfo_is_tunnel(dev)
                {
                    self.tunnel = Some((dev, self.here.clone()));
                }
            }
        }
    }

    /// Goes from the device of `path` down to `below`; or says why not.
    fn step(
        &mut self,
        path: &c::net_device_path,
        below: *const c::net_device,
    ) -> Result<(), WalkEnd> {
        // SAFETY: The kind says which member of the union is meant; a device of the walk.
        unsafe {
            match path.type_ {
                c::net_device_path_type_DEV_PATH_VLAN | c::net_device_path_type_DEV_PATH_PPPOE => {
                    let encap = &path.__bindgen_anon_1.encap;

                    self.push(Encap::new(u16::from_be(encap.proto), encap.id))?;
                    if path.type_ == c::net_device_path_type_DEV_PATH_PPPOE {
                        self.here.peer = Some(encap.h_dest);
                        if c::nfo_ppp_filters(self.dev) {
                            self.barred = Some(SkipReason::PppFilter);
                        }
                    }
                }
                c::net_device_path_type_DEV_PATH_BRIDGE => {
                    let bridge = &path.__bindgen_anon_1.bridge;

                    self.bridge(
                        bridge.vlan_mode,
                        u16::from_be(bridge.vlan_proto),
                        bridge.vlan_id,
                        below,
                    )?;
                }
                c::net_device_path_type_DEV_PATH_TUN => {
                    let tun = &path.__bindgen_anon_1.tun;
                    if self.here.tunnel.is_some()
                        || !self.here.encaps.is_empty()
                        || c::nfo_tunnel_elsewhere(self.dev)
                    {
                        return Err(WalkEnd::Lowest);
                    }
                    let (src, dst) = (&tun.__bindgen_anon_1, &tun.__bindgen_anon_2);
                    let addr = |v4: u32, v6: &c::in6_addr| match tun.inner_proto {
                        IPPROTO_IPIP => encap::tunnel_addr4(v4),
                        _ => (&raw const *v6).cast::<[u64; 2]>().read_unaligned(),
                    };

                    // Answers arrive from the other end.
                    self.here.tunnel = Some((
                        addr(dst.dst_v4.s_addr, &dst.dst_v6),
                        addr(src.src_v4.s_addr, &src.src_v6),
                        tun.inner_proto,
                    ));
                    self.here.mac = [0; 6];
                    self.here.outside = self.here.depth;
                    if c::nfo_dev_ipsec(below) {
                        self.barred = Some(SkipReason::TunnelPolicy);
                    } else if c::nfo_tunnel_copies_dscp(self.dev) {
                        self.barred = Some(SkipReason::TunnelDscp);
                    }
                }
                // The lowest one, or a port of a switch: its packets come in there, out of the
                // conduit's own encapsulation.
                _ => return Err(WalkEnd::Lowest),
            }
            // Devices are known by their numbers, which are those of the flowtable's namespace.
            if !ptr::eq(c::nfo_dev_net(below), self.nft.net().as_ptr()) {
                return Err(WalkEnd::Lowest);
            }
            if (&raw const (*below).flags).read_volatile() & IFF_UP == 0 {
                return Err(WalkEnd::Closed);
            }
            if c::nfo_dev_filters(self.dev) {
                self.barred = Some(SkipReason::IngressFilter);
            }
        }
        self.enter(below);
        Ok(())
    }

    fn push(&mut self, encap: Encap) -> Result<(), WalkEnd> {
        if self.here.encaps.push_outer(encap) {
            Ok(())
        } else {
            Err(WalkEnd::Lowest)
        }
    }

    /// Through a bridge to its port `below`.
    fn bridge(
        &mut self,
        mode: u32,
        proto: u16,
        vid: u16,
        below: *const c::net_device,
    ) -> Result<(), WalkEnd> {
        let tag = Encap::vlan(proto, vid);
        let tagged = |walk: &Self| vid != 0 && walk.here.encaps.as_slice().first() == Some(&tag);
        let tagged_above = tagged(self);

        match mode {
            // The last one: tagged by the switch on its way out, and not untagged on its way in.
            BR_VLAN_KEEP => (),
            BR_VLAN_UNTAG_HW => self.untags_in_hardware = true,
            BR_VLAN_TAG => self.push(tag)?,
            BR_VLAN_UNTAG if self.here.encaps.pop_outer() => (),
            _ => return Err(WalkEnd::Lowest),
        }
        let port = BridgePort {
            bridge: self.ifindex(),
            // SAFETY: A device of the walk, and RCU is held.
            port: unsafe { (*below).ifindex as u32 },
            vid,
            tagged_below: tagged(self),
            tagged_above,
        };
        let slot = self
            .here
            .bridge_ports
            .iter_mut()
            .find(|slot| slot.is_none());

        *slot.ok_or(WalkEnd::Lowest)? = Some(port);
        // SAFETY: RCU is held, and the devices are these.
        if unsafe { port.passes_up(self.dev, below) } {
            Ok(())
        } else {
            Err(WalkEnd::Closed)
        }
    }

    /// Where packets leave: the lowest device, and what is around them there.
    pub(crate) fn lowest(&self) -> (u32, &EncapStack) {
        (self.ifindex(), &self.here)
    }

    /// The largest packet that the lowest device takes, from the network header of the frame on.
    pub(crate) fn mtu_below(&self) -> u32 {
        // SAFETY: A device of the walk, and RCU is held.
        unsafe { ffi::read_once(&raw const (*self.dev).mtu) }
    }

    /// Where packets come in.
    pub(crate) fn ingress(self, seed: &Seed) -> Result<Ingress<'_>, SkipReason> {
        let (ifindex, stack) = self.best.ok_or(match (self.end, self.barred) {
            (WalkEnd::NoNeigh, _) => SkipReason::Neigh,
            (WalkEnd::Closed, _) => SkipReason::PathClosed,
            (_, Some(reason)) => reason,
            (WalkEnd::Lowest | WalkEnd::Unknown, None) => SkipReason::DeviceNotListed,
        })?;

        Ok(Ingress {
            ifindex: IngressId::from_ifindex(ifindex).ok_or(SkipReason::Ifindex)?,
            stack,
            followed: self.followed,
            sender: self.sender,
            seed,
        })
    }
}

/// Whether the outer packets of a tunnel come in by a device that the flowtable lists.
///
/// # Safety
///
/// RCU is held, and `dev` is a tunnel.
unsafe fn enters_by_listed(dev: *const c::net_device, nft: NftRef, rcu: Rcu<'_>) -> bool {
    let mut outer = MaybeUninit::<c::nfo_outer>::zeroed();

    // SAFETY: RCU is held. C fills the structure in; the reference to the route is ours, if there
    // is one.
    unsafe {
        if !c::nfo_tunnel_outer(dev, outer.as_mut_ptr()) {
            return false;
        }
        let outer = outer.assume_init();
        let is_v4 = u32::from(outer.family) == c::NFPROTO_IPV4;
        let (dev, next_hop, _dst) = match NonNull::new(outer.dst) {
            Some(dst) => {
                let dst = Dst::from_raw(dst);
                let Some(neigh) = dst.neighbour(outer.remote.as_ptr().cast()) else {
                    return false;
                };
                (dst.device(rcu), Some(neigh), Some(dst))
            }
            None => match DevRef::from_raw(outer.dev, rcu) {
                Some(dev) => (dev, None, None),
                None => return true,
            },
        };
        let whom = match &next_hop {
            Some(neigh) => Destination::Neigh(neigh.get_ref(rcu)),
            None => Destination::Sender([0; 6]),
        };
        let walk = if is_v4 {
            walk_devices::<V4>(dev, &whom, nft)
        } else {
            walk_devices::<V6>(dev, &whom, nft)
        };

        walk.best.is_some()
    }
}

/// The station at the lower end of a walk, `struct net_device_path_ctx.daddr`.
pub(crate) enum Destination<'a> {
    /// A next hop.
    Neigh(NeighRef<'a>),
    /// Who sent a packet, by the frame's address.
    Sender([u8; 6]),
}

/// Walks down from `dev` towards the station. A device that cannot say what is below it ends the
/// walk: it may be listed itself, or be a tunnel.
pub(crate) fn fill_forward_path<'rcu, F: Family>(
    rcu: Rcu<'rcu>,
    dev: DevRef<'rcu>,
    destination: &Destination<'_>,
    nft: NftRef,
) -> DevicePathWalk<'rcu> {
    walk_devices::<F>(dev, destination, nft).follow(rcu)
}

/// As [`fill_forward_path`], among what is listed.
fn walk_devices<'rcu, F: Family>(
    dev: DevRef<'rcu>,
    destination: &Destination<'_>,
    nft: NftRef,
) -> DevicePathWalk<'rcu> {
    let mut walk = DevicePathWalk::new(dev, nft);
    let dev = dev.as_ptr().cast_const();

    // SAFETY: RCU is held, by the invariant of `DevRef`. Only the first `num_paths` paths are
    // looked at, which C has filled in.
    unsafe {
        if (*(*dev).netdev_ops).ndo_fill_forward_path.is_none() {
            if let Destination::Sender(mac) = destination {
                walk.sender = *mac;
            }
            return walk;
        }
        let mut ctx = MaybeUninit::<c::net_device_path_ctx>::zeroed().assume_init();
        let mut stack = MaybeUninit::<c::net_device_path_stack>::zeroed().assume_init();

        ctx.dev = dev;
        ctx.ether_type = F::ETHERTYPE;
        // Where the driver below looks for the station by its address.
        let unknown = match destination {
            Destination::Neigh(neigh) => {
                let neigh = neigh.as_ptr();
                let known = c::nfo_neigh_ha(neigh, ctx.daddr.as_mut_ptr());

                // Not every link has addresses.
                (!known && (*dev).addr_len == 6).then_some(neigh)
            }
            Destination::Sender(mac) => {
                ctx.daddr[..mac.len()].copy_from_slice(mac);
                None
            }
        };

        walk.sender.copy_from_slice(&ctx.daddr[..6]);
        let complete = c::dev_fill_forward_path(&mut ctx, &mut stack) == 0;
        let paths = stack
            .path
            .get(..stack.num_paths as usize)
            .unwrap_or_default();

        if !complete {
            walk.end = WalkEnd::Unknown;
        }
        for (i, path) in paths.iter().enumerate() {
            walk.note_below(path);
            // The one that could not go on is not among the paths.
            let below = match paths.get(i + 1) {
                Some(next) => next.dev,
                None if complete => ptr::null(),
                None => ctx.dev,
            };

            if below.is_null() {
                break;
            }
            if let Err(end) = walk.step(path, below) {
                walk.end = end;
                break;
            }
        }
        if complete {
            c::dev_fill_forward_path_release(&mut stack);
        } else if let (Some(neigh), WalkEnd::Unknown) = (unknown, walk.end) {
            // Next time, maybe: nobody else may have a reason to resolve it.
            walk.end = WalkEnd::NoNeigh;
            c::nfo_neigh_resolve(neigh);
        }
        walk
    }
}
