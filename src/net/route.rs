// SPDX-License-Identifier: GPL-2.0

//! Routes and neighbours: references to them, and what a route is looked up by.

use crate::{
    ffi::{
        c,
        DevRef,
        Rcu, //
    },
    net::ct::Ct, //
};
use core::{
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::error::from_err_ptr;
use nft_flow::direction::Direction;

/// `INET_DSCP_MASK`, include/net/inet_dscp.h.
const INET_DSCP_MASK: u8 = c::NFO_INET_DSCP_MASK;

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

    /// One more reference to the same route; [`None`] if that is on its way out.
    pub(crate) fn get(&self) -> Option<Self> {
        // Not `then_some()`: a reference that was made is given back, counted or not.
        // SAFETY: Valid by the type invariant.
        // INVARIANT: Just counted.
        unsafe { c::nfo_dst_hold(self.as_ptr()) }.then(|| Self(self.0))
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

    /// That device, in a section.
    pub(crate) fn device<'r>(&self, rcu: Rcu<'r>) -> DevRef<'r> {
        // SAFETY: A route has a device, which is freed a grace period after it was replaced.
        unsafe { DevRef::new(self.dev(), rcu) }
    }

    /// The largest packet that the route, which is of this family, takes, in bytes.
    pub(crate) fn mtu(&self, nfproto: u8) -> u16 {
        // SAFETY: Valid by the type invariant.
        let mtu = unsafe { c::nfo_dst_mtu(self.as_ptr(), nfproto) };

        mtu.min(u16::MAX.into()) as u16
    }

    /// A counted reference to the neighbour that packets to `daddr` (network byte order, 4 or 16
    /// bytes) are sent to: the gateway of the route, of whatever family, or the host itself.
    pub(crate) fn neighbour(&self, daddr: *const kernel::ffi::c_void) -> Option<Neigh> {
        // SAFETY: Valid by the type invariant; `daddr` points at an address of the route's family.
        unsafe {
            let lookup = (*(*self.0.as_ptr()).ops).neigh_lookup?;
            let n = from_err_ptr(lookup(self.0.as_ptr(), ptr::null_mut(), daddr)).ok()?;

            NonNull::new(n).map(Neigh)
        }
    }
}

impl Drop for Dst {
    fn drop(&mut self) {
        // SAFETY: The reference is ours by the type invariant.
        unsafe { c::dst_release(self.0.as_ptr()) };
    }
}

/// A neighbour in an RCU read-side section.
///
/// # Invariants
///
/// The pointer is a valid neighbour for `'rcu`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct NeighRef<'rcu>(NonNull<c::neighbour>, PhantomData<&'rcu c::neighbour>);

impl<'rcu> NeighRef<'rcu> {
    /// The neighbour of something that keeps it, if there is one.
    ///
    /// # Safety
    ///
    /// It is null, or valid until the end of the section.
    pub(crate) unsafe fn from_raw(n: *mut c::neighbour, _: Rcu<'rcu>) -> Option<Self> {
        // INVARIANT: By the contract of this function.
        NonNull::new(n).map(|n| Self(n, PhantomData))
    }

    /// For calls into C.
    pub(crate) fn as_ptr(self) -> *mut c::neighbour {
        self.0.as_ptr()
    }

    /// The device that the neighbour is at.
    pub(crate) fn device(self, rcu: Rcu<'rcu>) -> DevRef<'rcu> {
        // SAFETY: By the type invariant; a neighbour keeps its device.
        unsafe { DevRef::new((*self.as_ptr()).dev, rcu) }
    }

    /// The address of an Ethernet neighbour, if that is known.
    pub(crate) fn address(self) -> Option<[u8; 6]> {
        let mut ha = [0; 6];

        // SAFETY: By the type invariant; the address has that size.
        unsafe { c::nfo_neigh_ha(self.as_ptr(), ha.as_mut_ptr()) }.then_some(ha)
    }

    /// The IP address that the neighbour answers for: how many of the bytes it has.
    pub(crate) fn ip(self) -> ([u8; 16], usize) {
        let mut key = [0; 16];

        // SAFETY: By the type invariant.
        let len = unsafe { c::nfo_neigh_key(self.as_ptr(), &mut key) };
        (key, len as usize)
    }

    /// Its state (`NUD_*`).
    pub(crate) fn state(self) -> u8 {
        // SAFETY: By the type invariant; a single byte.
        unsafe { (&raw const (*self.as_ptr()).nud_state).read_volatile() }
    }

    /// The address to send to, as the neighbour's output would find it: a neighbour that was silent
    /// for a while is asked, and used meanwhile.
    pub(crate) fn resolve(self) -> Option<[u8; 6]> {
        // SAFETY: By the type invariant. Both fields are single words.
        unsafe {
            let n = self.as_ptr();

            if (&raw const (*n).dead).read_volatile() != 0 {
                return None;
            }
            if u32::from((&raw const (*n).nud_state).read_volatile()) & c::NUD_CONNECTED == 0 {
                c::nfo_neigh_resolve(n);
            }
        }
        self.address()
    }
}

/// A counted reference to a neighbour.
pub(crate) struct Neigh(NonNull<c::neighbour>);

impl Neigh {
    /// The neighbour, in a section that does not outlast the reference.
    pub(crate) fn get_ref<'r>(&'r self, _: Rcu<'r>) -> NeighRef<'r> {
        // INVARIANT: The reference is borrowed.
        NeighRef(self.0, PhantomData)
    }

    /// For field access and calls into C.
    pub(crate) fn as_ptr(&self) -> *mut c::neighbour {
        self.0.as_ptr()
    }

    /// One more reference.
    pub(crate) fn get(&self) -> Self {
        // SAFETY: Valid by the type invariant.
        unsafe { c::nfo_neigh_hold(self.as_ptr()) };
        // INVARIANT: Just counted.
        Self(self.0)
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
        unsafe { c::nfo_neigh_put(self.as_ptr()) };
    }
}

/// Fills in addresses, ports and type of service of an IPv4 route lookup towards the packet's
/// source.
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
        fl.u.ip4.uli.ports.sport = ct.tuple(dir.opposite()).src.u.all;
        fl.u.ip4.uli.ports.dport = ct.tuple(dir).src.u.all;
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
        fl.u.ip6.uli.ports.sport = ct.tuple(dir.opposite()).src.u.all;
        fl.u.ip6.uli.ports.dport = ct.tuple(dir).src.u.all;
    }
}
