// SPDX-License-Identifier: GPL-2.0

//! Forward-path discovery: where packets of each direction leave, and where they come in.
//!
//! The packet that hit the rule has its own route; the way back is looked up as the stack would do
//! for an answer. A direction is offloaded on the device of its route, which has to be listed in
//! the flowtable. The neighbour is not resolved here: transmitting does that.

use crate::{
    entry::Family,
    ffi::c, //
};
use crate::ct::Ct;
use core::{
    mem::MaybeUninit,
    ptr::{
        self,
        NonNull, //
    }, //
};
use nft_flow::{
    reason::SkipReason,
    state::Direction, //
};

/// `FLOWI_FLAG_ANYSRC`: any source address, as for a forwarded packet (include/net/flow.h).
const FLOWI_FLAG_ANYSRC: u8 = 1;
/// `INET_DSCP_MASK`, include/net/inet_dscp.h.
const INET_DSCP_MASK: u8 = 0xfc;
/// `RTN_UNICAST`, include/uapi/linux/rtnetlink.h.
const RTN_UNICAST: u16 = 1;
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
        unsafe {
            (&raw const (*self.0.as_ptr()).__bindgen_anon_1.dev).read_volatile()
        }
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

/// One direction's way out.
pub(crate) struct Half {
    pub(crate) dst: Dst,
    pub(crate) neigh: Neigh,
    /// Largest packet that fits, in bytes from the network header on.
    pub(crate) mtu: u16,
    /// Index of the device that packets leave through, and those of the other direction enter by.
    pub(crate) ifindex: u32,
}

/// Discovers both ways out for the packet in `pkt`, which belongs to `ct` and travels in `dir`.
///
/// # Safety
///
/// Called for a packet in the forward hook: it has a route, and RCU is held.
pub(crate) unsafe fn discover<F: Family>(
    pkt: &c::nft_pktinfo,
    ct: Ct,
    dir: Direction,
    ft: *mut c::nft_flowtable,
) -> Result<[Half; 2], SkipReason> {
    // SAFETY: A packet in the forward hook has a route and an ingress device.
    let (this, other) = unsafe {
        let skb = pkt.skb;
        let state = &*pkt.state;
        let refdst = (*skb).__bindgen_anon_3.__bindgen_anon_1._skb_refdst as usize;
        let this = NonNull::new((refdst & !1) as *mut c::dst_entry).ok_or(SkipReason::RouteReply)?;

        if !c::nfo_dst_hold(this.as_ptr()) {
            return Err(SkipReason::RouteReply);
        }
        let this = Dst::from_raw(this);

        let mut fl = MaybeUninit::<c::flowi>::zeroed().assume_init();
        F::flow_to(&mut fl, skb, pkt, ct, dir);
        let common = &mut fl.u.__fl_common;
        common.flowic_oif = (*state.in_).ifindex;
        common.flowic_iif = (*this.dev()).ifindex;
        common.flowic_mark = (*skb).__bindgen_anon_4.headers.as_ref().__bindgen_anon_4.mark;
        common.flowic_flags = FLOWI_FLAG_ANYSRC;

        let mut other = ptr::null_mut();
        c::nf_route(state.net, &mut other, &mut fl, false, F::NFPROTO.into());
        let other = NonNull::new(other).ok_or(SkipReason::RouteReply)?;
        (this, Dst::from_raw(other))
    };

    // SAFETY: RCU is held.
    let this = unsafe { half::<F>(this, ct, dir, ft) }?;
    // SAFETY: RCU is held.
    let other = unsafe { half::<F>(other, ct, dir.opposite(), ft) }?;
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
    ft: *mut c::nft_flowtable,
) -> Result<Half, SkipReason> {
    // SAFETY: The route is valid; its device cannot go away while RCU is held.
    unsafe {
        if c::nfo_dst_xfrm(dst.as_ptr()) {
            return Err(SkipReason::RouteXfrm);
        }
        if (*dst.as_ptr()).error != 0 || !(*dst.as_ptr()).lwtstate.is_null() {
            return Err(SkipReason::PathShape);
        }
        if F::NFPROTO == c::NFPROTO_IPV4 as u8
            && (*dst.as_ptr().cast::<c::rtable>()).rt_type != RTN_UNICAST
        {
            return Err(SkipReason::PathShape);
        }
        let dev = dst.dev();
        if !c::nfo_dev_listed(ft, dev) {
            return Err(SkipReason::DeviceNotListed);
        }
        let mtu = c::nfo_dst_mtu(dst.as_ptr(), F::NFPROTO);
        if mtu < MIN_MTU {
            return Err(SkipReason::Mtu);
        }
        let daddr = &raw const ct.tuple(dir.opposite()).src.u3;
        let neigh = dst.neighbour(daddr.cast()).ok_or(SkipReason::Neigh)?;

        Ok(Half {
            ifindex: (*dev).ifindex as u32,
            mtu: mtu.min(u16::MAX.into()) as u16,
            neigh,
            dst,
        })
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
        let word = (*skb).data.add(pkt.nhoff.into()).cast::<u32>().read_unaligned();

        fl.u.ip6.daddr = ct.tuple(dir).src.u3.in6;
        fl.u.ip6.saddr = ct.tuple(dir.opposite()).src.u3.in6;
        fl.u.ip6.flowlabel = word & FLOWINFO_MASK;
    }
}
