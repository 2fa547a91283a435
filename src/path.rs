// SPDX-License-Identifier: GPL-2.0

//! Forward-path discovery: where packets of each direction leave, and where they come in.
//!
//! The packet that hit the rule has its own route; the way back is looked up as the stack would do
//! for an answer. Packets leave through the device of their route, whatever that is: a bridge
//! forwards to the port where the station is now, a VLAN device sets its priorities, PPP uses its
//! present session, and their queueing disciplines and statistics apply.
//!
//! Packets are picked up as early as possible: the devices below the route are walked down, and the
//! lowest one that the flowtable lists is where they come in, with the encapsulations of all
//! devices above it. The neighbour is not resolved here: transmitting does that.

use crate::{
    ct::Ct,
    entry::Entry,
    family::Family,
    ffi::{
        self,
        c, //
    },
    flowtable::Flowtable,
    shape::Shape, //
};
use core::{
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
        PortId,
        Seed, //
    },
    reason::SkipReason,
    state::Direction, //
};

/// `FLOWI_FLAG_ANYSRC`: any source address, as for a forwarded packet (include/net/flow.h).
const FLOWI_FLAG_ANYSRC: u8 = 1;
/// `INET_DSCP_MASK`, include/net/inet_dscp.h.
const INET_DSCP_MASK: u8 = 0xfc;
/// `RTN_UNICAST`, include/uapi/linux/rtnetlink.h.
const RTN_UNICAST: u16 = 1;
/// `IPPROTO_IPIP`, include/uapi/linux/in.h.
const IPPROTO_IPIP: u8 = 4;
/// `DEV_PATH_BR_VLAN_*`, include/linux/netdevice.h.
const BR_VLAN_KEEP: u32 = 0;
const BR_VLAN_TAG: u32 = 1;
const BR_VLAN_UNTAG: u32 = 2;
/// Smallest MTU that IPv4 allows: a smaller one is not meant.
const MIN_MTU: u32 = 68;

/// A counted reference to a route.
///
/// # Invariants
///
/// The pointer is a valid `dst_entry`, and one reference to it is ours.
pub(crate) struct Dst(NonNull<c::dst_entry>);

impl Dst {
    /// Takes over a reference.
    ///
    /// # Safety
    ///
    /// `dst` must be valid, with a reference that the caller gives away.
    pub(crate) unsafe fn from_raw(dst: NonNull<c::dst_entry>) -> Self {
        // INVARIANT: By the caller's promise.
        Self(dst)
    }

    /// For field access and calls into C.
    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut c::dst_entry {
        self.0.as_ptr()
    }

    /// The device that packets leave through. It may be replaced at any time (by the black hole
    /// device, when it is unregistered).
    #[inline(always)]
    pub(crate) fn dev(&self) -> *mut c::net_device {
        // SAFETY: Valid by the type invariant.
        unsafe { (&raw const (*self.0.as_ptr()).__bindgen_anon_1.dev).read_volatile() }
    }

    /// A counted reference to the neighbour that packets to `daddr` (network byte order, 4 or 16
    /// bytes) are sent to: the gateway of the route, of whatever family, or the host itself.
    pub(crate) fn neighbour(&self, daddr: *const kernel::ffi::c_void) -> Option<Neigh> {
        // SAFETY: Valid by the type invariant; `daddr` points at an address of the route's family.
        unsafe {
            let lookup = (*(*self.0.as_ptr()).ops).neigh_lookup?;
            let n = lookup(self.0.as_ptr(), ptr::null_mut(), daddr);

            // An error pointer lies in the last page.
            if n.is_null() || n as isize >= -4095 && (n as isize) < 0 {
                return None;
            }
            Some(Neigh(NonNull::new(n)?))
        }
    }
}

impl Drop for Dst {
    fn drop(&mut self) {
        // SAFETY: The reference is ours by the type invariant.
        unsafe { c::dst_release(self.0.as_ptr()) };
    }
}

/// A counted reference to a neighbour.
pub(crate) struct Neigh(NonNull<c::neighbour>);

impl Neigh {
    /// For field access and calls into C.
    pub(crate) fn as_ptr(&self) -> *mut c::neighbour {
        self.0.as_ptr()
    }

    /// Gives the reference away.
    pub(crate) fn into_raw(self) -> *mut c::neighbour {
        let n = self.0.as_ptr();

        core::mem::forget(self);
        n
    }

    /// Takes a reference back.
    ///
    /// # Safety
    ///
    /// `n` must be null or come from [`Neigh::into_raw`], once.
    pub(crate) unsafe fn from_raw(n: *mut c::neighbour) -> Option<Self> {
        NonNull::new(n).map(Self)
    }
}

impl Drop for Neigh {
    fn drop(&mut self) {
        // SAFETY: The reference is ours. The memory is freed after a grace period, so that packets
        // which still look at it are fine.
        unsafe { c::nfo_neigh_put(self.0.as_ptr()) };
    }
}

/// Most devices between the wire and the route that are remembered.
pub(crate) const MAX_DEVICES: usize = c::NET_DEVICE_PATH_STACK_MAX as usize;

/// Where packets come in that answer those of a direction.
pub(crate) struct Input<'a> {
    /// The device whose hook sees them.
    pub(crate) ifindex: PortId,
    /// What is around them there.
    pub(crate) encaps: Encaps,
    /// Outer addresses as they arrive, and IP protocol.
    pub(crate) tunnel: Option<([u64; 2], [u64; 2], u8)>,
    /// The link-layer address that they are sent to.
    pub(crate) mac: [u8; 6],
    /// They pass a bridge, which wants to see its stations from time to time.
    pub(crate) bridged: bool,
    /// All devices that they pass up to the route, 0 for none.
    pub(crate) devices: [u32; MAX_DEVICES],
    /// Of the flowtable.
    pub(crate) seed: &'a Seed,
}

impl Input<'_> {
    /// Are the frames other than those that the interface's number tells?
    pub(crate) fn has_frame_shape(&self) -> bool {
        self.bridged || !self.encaps.is_empty()
    }
}

/// How packets of a direction leave.
pub(crate) enum Output {
    /// To a neighbour.
    Neigh(Neigh),
    /// Through IPsec.
    Xfrm,
}

/// One direction's way out.
pub(crate) struct Half<'a> {
    pub(crate) dst: Dst,
    pub(crate) output: Output,
    /// Largest packet that fits, in bytes from the network header on.
    pub(crate) mtu: u16,
    /// Where packets of the other direction come in.
    pub(crate) input: Input<'a>,
}

/// Discovers both ways out for the packet in `pkt`, which belongs to `ct` and travels in `dir`.
///
/// # Safety
///
/// Called for a packet in the forward hook: it has a route, and RCU is held.
pub(crate) unsafe fn discover<'a, F: Family>(
    pkt: &c::nft_pktinfo,
    ct: Ct,
    dir: Direction,
    nft: *mut c::nft_flowtable,
    seed: &'a Seed,
) -> Result<[Half<'a>; 2], SkipReason> {
    // SAFETY: A packet in the forward hook has a route and an ingress device.
    let (this, other) = unsafe {
        let skb = pkt.skb;
        let state = &*pkt.state;
        let refdst = (*skb).__bindgen_anon_3.__bindgen_anon_1._skb_refdst;
        let this =
            NonNull::new((refdst & !1) as *mut c::dst_entry).ok_or(SkipReason::RouteReply)?;

        if !c::nfo_dst_hold(this.as_ptr()) {
            return Err(SkipReason::RouteReply);
        }
        let this = Dst::from_raw(this);

        let mut fl = MaybeUninit::<c::flowi>::zeroed().assume_init();
        F::flow_to(&mut fl, skb, pkt, ct, dir);
        let common = &mut fl.u.__fl_common;
        common.flowic_oif = (*state.in_).ifindex;
        common.flowic_iif = (*this.dev()).ifindex;
        common.flowic_mark = (*skb)
            .__bindgen_anon_4
            .headers
            .as_ref()
            .__bindgen_anon_4
            .mark;
        common.flowic_flags = FLOWI_FLAG_ANYSRC;

        let mut other = ptr::null_mut();
        c::nf_route(state.net, &mut other, &mut fl, false, F::NFPROTO.into());
        let other = NonNull::new(other).ok_or(SkipReason::RouteReply)?;
        (this, Dst::from_raw(other))
    };

    // SAFETY: RCU is held.
    let this = unsafe { half::<F>(this, ct, dir, nft, seed) }?;
    // SAFETY: RCU is held.
    let other = unsafe { half::<F>(other, ct, dir.opposite(), nft, seed) }?;
    Ok(match dir {
        Direction::Original => [this, other],
        Direction::Reply => [other, this],
    })
}

/// # Safety
///
/// RCU must be held.
unsafe fn half<F: Family>(
    dst: Dst,
    ct: Ct,
    dir: Direction,
    nft: *mut c::nft_flowtable,
    seed: &Seed,
) -> Result<Half<'_>, SkipReason> {
    // SAFETY: The route is valid; its device cannot go away while RCU is held.
    unsafe {
        if (*dst.as_ptr()).error != 0 || !(*dst.as_ptr()).lwtstate.is_null() {
            return Err(SkipReason::PathShape);
        }
        if F::NFPROTO == c::NFPROTO_IPV4 as u8
            && (*dst.as_ptr().cast::<c::rtable>()).rt_type != RTN_UNICAST
        {
            return Err(SkipReason::PathShape);
        }
        let mtu = c::nfo_dst_mtu(dst.as_ptr(), F::NFPROTO);
        if mtu < MIN_MTU {
            return Err(SkipReason::Mtu);
        }
        let mtu = mtu.min(u16::MAX.into()) as u16;

        if c::nfo_dst_xfrm(dst.as_ptr()) {
            // Answers appear, decrypted, on the device that the encrypted packets came in through.
            let mut walk = Walk::new(dst.dev(), nft);
            walk.best = Some((walk.ifindex(), walk.here.clone()));
            let input = walk.finish(seed)?;
            return Ok(Half {
                dst,
                output: Output::Xfrm,
                mtu,
                input,
            });
        }

        let daddr = &raw const ct.tuple(dir.opposite()).src.u3;
        let neigh = dst.neighbour(daddr.cast()).ok_or(SkipReason::Neigh)?;
        let (walk, _) = walk::<F>(dst.dev(), neigh.as_ptr(), nft);
        let input = walk.finish(seed)?;

        Ok(Half {
            dst,
            output: Output::Neigh(neigh),
            mtu,
            input,
        })
    }
}

/// What a packet has around it at one device of the stack.
#[derive(Clone)]
struct Layer {
    encaps: Encaps,
    tunnel: Option<([u64; 2], [u64; 2], u8)>,
    mac: [u8; 6],
    bridged: bool,
}

/// The way down from a route's device.
struct Walk {
    nft: *mut c::nft_flowtable,
    dev: *const c::net_device,
    here: Layer,
    /// The lowest listed device so far.
    best: Option<(u32, Layer)>,
    devices: [u32; MAX_DEVICES],
    depth: usize,
    /// The way could not be found for want of the neighbour's address.
    lost: bool,
}

impl Walk {
    /// # Safety
    ///
    /// RCU is held as long as the walk is used, and `dev` is a device.
    unsafe fn new(dev: *const c::net_device, nft: *mut c::nft_flowtable) -> Self {
        let here = Layer {
            encaps: Encaps::default(),
            tunnel: None,
            mac: [0; 6],
            bridged: false,
        };
        let mut this = Self {
            nft,
            dev,
            here,
            best: None,
            devices: [0; MAX_DEVICES],
            depth: 0,
            lost: false,
        };

        this.at(dev);
        this
    }

    fn ifindex(&self) -> u32 {
        // SAFETY: A device of the walk, and RCU is held.
        unsafe { (*self.dev).ifindex as u32 }
    }

    /// Arrives at a device.
    fn at(&mut self, dev: *const c::net_device) {
        self.dev = dev;
        if let Some(place) = self.devices.get_mut(self.depth) {
            // SAFETY: A device of the walk, and RCU is held.
            *place = unsafe { (*dev).ifindex as u32 };
            self.depth += 1;
        }
        // SAFETY: As above. The address of an Ethernet device has six bytes.
        unsafe {
            if self.here.mac == [0; 6] && (*dev).addr_len == 6 {
                self.here.mac = (*dev).dev_addr.cast::<[u8; 6]>().read();
            }
            if c::nfo_dev_listed(self.nft, dev) {
                self.best = Some((self.ifindex(), self.here.clone()));
            }
        }
    }

    /// Looks at what the device of `path` adds on the way down; false if it cannot be followed.
    fn through(&mut self, path: &c::net_device_path) -> bool {
        let encap = |encap: &c::net_device_path__bindgen_ty_1__bindgen_ty_1| {
            Encap::new(u16::from_be(encap.proto), encap.id)
        };

        // SAFETY: The kind says which member of the union is meant.
        unsafe {
            match path.type_ {
                c::net_device_path_type_DEV_PATH_VLAN | c::net_device_path_type_DEV_PATH_PPPOE => {
                    self.here
                        .encaps
                        .push_outer(encap(&path.__bindgen_anon_1.encap))
                }
                c::net_device_path_type_DEV_PATH_BRIDGE => {
                    let bridge = &path.__bindgen_anon_1.bridge;

                    self.here.bridged = true;
                    match bridge.vlan_mode {
                        BR_VLAN_KEEP => true,
                        BR_VLAN_TAG => self.here.encaps.push_outer(Encap::vlan(
                            u16::from_be(bridge.vlan_proto),
                            bridge.vlan_id,
                        )),
                        BR_VLAN_UNTAG => self.here.encaps.pop_outer(),
                        // Tagged by the switch on one side of the hook only.
                        _ => false,
                    }
                }
                c::net_device_path_type_DEV_PATH_TUN => {
                    let tun = &path.__bindgen_anon_1.tun;
                    if self.here.tunnel.is_some() || !self.here.encaps.is_empty() {
                        return false;
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
                    true
                }
                _ => false,
            }
        }
    }

    fn finish(self, seed: &Seed) -> Result<Input<'_>, SkipReason> {
        let (ifindex, layer) = self.best.ok_or(match self.lost {
            true => SkipReason::Neigh,
            false => SkipReason::DeviceNotListed,
        })?;

        Ok(Input {
            ifindex: PortId::from_ifindex(ifindex).ok_or(SkipReason::Ifindex)?,
            encaps: layer.encaps,
            tunnel: layer.tunnel,
            mac: layer.mac,
            bridged: layer.bridged,
            devices: self.devices,
            seed,
        })
    }
}

/// Walks down from `dev` towards the neighbour. A device that cannot say what is below it ends the
/// walk: it may be listed itself.
///
/// # Safety
///
/// RCU must be held.
unsafe fn walk<F: Family>(
    dev: *const c::net_device,
    neigh: *mut c::neighbour,
    nft: *mut c::nft_flowtable,
) -> (Walk, bool) {
    // SAFETY: RCU is held. Only the first `num_paths` paths are looked at, which C has filled in.
    unsafe {
        let mut walk = Walk::new(dev, nft);

        if (*(*dev).netdev_ops).ndo_fill_forward_path.is_none() {
            return (walk, true);
        }
        let mut ctx = MaybeUninit::<c::net_device_path_ctx>::zeroed().assume_init();
        let mut stack = MaybeUninit::<c::net_device_path_stack>::zeroed().assume_init();

        ctx.dev = dev;
        ctx.ether_type = F::ETHERTYPE;
        // Where the driver below looks for the station by its address.
        let known = c::nfo_neigh_ha(neigh, ctx.daddr.as_mut_ptr());

        let complete = c::dev_fill_forward_path(&mut ctx, &mut stack) == 0;
        let paths = stack
            .path
            .get(..stack.num_paths as usize)
            .unwrap_or_default();

        for (i, path) in paths.iter().enumerate() {
            if i > 0 {
                walk.at(path.dev);
            }
            if !walk.through(path) {
                break;
            }
            // The one that could not go on is not among the paths.
            if !complete && i + 1 == paths.len() && !ctx.dev.is_null() {
                walk.at(ctx.dev);
            }
        }
        if complete {
            c::dev_fill_forward_path_release(&mut stack);
        } else if !known {
            // Next time, maybe: nobody else may have a reason to resolve it.
            walk.lost = true;
            c::nfo_neigh_resolve(neigh);
        }
        (walk, complete)
    }
}

/// Do packets of the direction of `entry` come in as recorded, by `shape`? `answers` is the entry of
/// the other direction. A bridge that has forgotten the station is no news if the station has been
/// silent; while it speaks, bridges hear it (see [`Entry::wants_refresh`]).
///
/// # Safety
///
/// RCU is held, and `shape` is in use.
pub(crate) unsafe fn is_current<F: Family>(
    entry: &Entry<F>,
    answers: &Entry<F>,
    shape: Option<NonNull<Shape>>,
    ft: &Flowtable,
) -> bool {
    const SILENT: u32 = 20 * ffi::HZ;

    // SAFETY: RCU is held: devices, neighbour and shape are valid.
    unsafe {
        let neigh = answers.neigh();
        if neigh.is_null() {
            return true;
        }
        let (walk, complete) = walk::<F>(answers.dst.dev(), neigh, ft.nft());
        if !complete {
            return shape.is_none() || entry.idle(ffi::jiffies32()) > SILENT;
        }
        match walk.finish(&ft.seed) {
            Ok(input) => match shape {
                Some(shape) => shape.as_ref().is_of(&input),
                None => {
                    input.tunnel.is_none()
                        && input.encaps.is_empty()
                        && input.ifindex == entry.key_port()
                }
            },
            // No device of the way is listed any more.
            Err(_) => false,
        }
    }
}

/// Fills in addresses and type of service of an IPv4 route lookup towards the packet's source.
///
/// # Safety
///
/// `skb` has its IPv4 header in the linear part.
pub(crate) unsafe fn flow_to4(
    fl: &mut c::flowi,
    skb: *const c::sk_buff,
    pkt: &c::nft_pktinfo,
    ct: Ct,
    dir: Direction,
) {
    // SAFETY: The stack has pulled the header before the forward hook; plain unions of integers.
    unsafe {
        let tos = (*skb).data.add(pkt.nhoff.into()).add(1).read();

        fl.u.ip4.daddr = ct.tuple(dir).src.u3.ip;
        fl.u.ip4.saddr = ct.tuple(dir.opposite()).src.u3.ip;
        fl.u.__fl_common.flowic_dscp = tos & INET_DSCP_MASK;
    }
}

/// The same for IPv6, with the flow information word.
///
/// # Safety
///
/// `skb` has its IPv6 header in the linear part.
pub(crate) unsafe fn flow_to6(
    fl: &mut c::flowi,
    skb: *const c::sk_buff,
    pkt: &c::nft_pktinfo,
    ct: Ct,
    dir: Direction,
) {
    const FLOWINFO_MASK: u32 = 0x0fff_ffff_u32.to_be();

    // SAFETY: As above.
    unsafe {
        let word = (*skb)
            .data
            .add(pkt.nhoff.into())
            .cast::<u32>()
            .read_unaligned();

        fl.u.ip6.daddr = ct.tuple(dir).src.u3.in6;
        fl.u.ip6.saddr = ct.tuple(dir.opposite()).src.u3.in6;
        fl.u.ip6.flowlabel = word & FLOWINFO_MASK;
    }
}
