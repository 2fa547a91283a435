// SPDX-License-Identifier: GPL-2.0

//! Transmit through a neighbour.
//!
//! A connected neighbour has a ready link-layer header, which is copied under its sequence lock: a
//! changed address is used from the next packet on. In every other state the packet goes to the
//! neighbour's own output function, which resolves, confirms and queues as for any other packet.
//! Either way it leaves through the device's queueing discipline.
//!
//! Where the route's device stands on others, and nobody would see the packet there, it goes past these, see
//! [`Direct`].

use crate::{
    ffi::{
        c,
        skb::Skb,
        Rcu, //
    },
    flow::entry::Entry,
    net::{
        direct::Direct,
        family::Family,
        next_hop::NextHop, //
    },
    stats, //
};
use core::{
    ptr::{
        self,
        NonNull, //
    },
    sync::atomic::{
        fence,
        AtomicU32,
        Ordering, //
    }, //
};

/// `HH_DATA_MOD`: headers of up to this size lie at the end of the first 16 bytes of the cache.
const HH_DATA_MOD: u32 = c::NFO_HH_DATA_MOD;
/// `ETH_HLEN`: an Ethernet header.
const ETH_HLEN: u32 = c::NFO_ETH_HLEN;

/// What a packet is sent to. It is valid in the RCU section that the hook runs in.
#[derive(Clone, Copy)]
pub(crate) enum XmitTarget<'a> {
    /// To a neighbour, through the route's device.
    Neigh(NonNull<c::neighbour>),
    /// To a neighbour, past the upper devices.
    Direct(&'a Direct),
    /// Through IPsec.
    Xfrm,
}

impl<'a> XmitTarget<'a> {
    /// Returns what packets of `entry` are sent to. A deleted neighbour is replaced by a new one
    /// for the same next hop; [`None`] if that fails.
    #[inline(always)]
    pub(crate) fn for_entry<F: Family>(entry: &Entry<F>, skb: Skb, rcu: Rcu<'a>) -> Option<Self> {
        let Some(hop) = entry.next_hop(rcu) else {
            return Some(XmitTarget::Xfrm);
        };
        let mut n = NonNull::new(hop.neigh())?;

        // SAFETY: Valid until the end of the RCU section that the hook runs in.
        if unsafe { (&raw const (*n.as_ptr()).dead).read_volatile() } != 0 {
            n = renew(entry, hop)?;
        }
        if let Some(direct) = hop.direct(rcu) {
            // SAFETY: As above.
            let (usable, valid) = unsafe { (is_usable(n.as_ptr()), direct.is_valid(n.as_ptr())) };

            // SAFETY: As above.
            if usable && valid && unsafe { direct.admits::<F>(skb) } {
                return Some(XmitTarget::Direct(direct));
            }
            if !valid {
                refresh(entry, hop);
            }
        }
        Some(XmitTarget::Neigh(n))
    }

    /// Bytes that have to be free before the network header.
    #[inline(always)]
    pub(crate) fn headroom(self) -> u32 {
        match self {
            // SAFETY: A neighbour keeps its device; both are valid in the RCU section.
            XmitTarget::Neigh(n) => unsafe {
                let dev = (*n.as_ptr()).dev;
                let need = (*dev).hard_header_len.wrapping_add((*dev).needed_headroom);

                u32::from(need).max(HH_DATA_MOD)
            },
            XmitTarget::Direct(direct) => direct.headroom(),
            // IPsec makes its own.
            XmitTarget::Xfrm => 0,
        }
    }

    /// Sends a rewritten packet. It is gone then.
    ///
    /// # Safety
    ///
    /// There are [`XmitTarget::headroom`] bytes of headroom, the bytes before the network header
    /// may be written, [`Skb::detach`] has succeeded, and `dst` is the route of the entry that this
    /// is the way of.
    #[inline(always)]
    pub(crate) unsafe fn send<F: Family>(self, skb: Skb, dst: *mut c::dst_entry, thoff: u32) {
        match self {
            // SAFETY: By the contract of this function; the neighbour keeps its device.
            XmitTarget::Neigh(n) => unsafe {
                skb.set_device((*n.as_ptr()).dev, thoff);
                skb.set_route(dst);
                output(skb, n);
            },
            // SAFETY: It is valid and admits the packet, see `for_entry`.
            XmitTarget::Direct(direct) => unsafe {
                if direct.is_past_devices() {
                    stats::count_direct(skb);
                }
                direct.send::<F>(skb, dst, thoff);
            },
            // SAFETY: The route is one of IPsec.
            XmitTarget::Xfrm => unsafe { c::nfo_xfrm_output(skb.as_ptr(), dst, F::NFPROTO, thoff) },
        }
    }
}

/// Looks the neighbour up again, after it was flushed or deleted.
#[cold]
fn renew<F: Family>(entry: &Entry<F>, hop: &NextHop) -> Option<NonNull<c::neighbour>> {
    let daddr = &raw const entry.ct.tuple(entry.dir().opposite()).src.u3;

    if !hop.renew(&entry.dst, daddr.cast()) {
        return None;
    }
    stats::count(stats::Counter::NeighRenewed);
    NonNull::new(hop.neigh())
}

/// The way past the upper devices is not what it was: the worker looks for another one.
#[cold]
#[inline(never)]
fn refresh<F: Family>(entry: &Entry<F>, hop: &NextHop) {
    if hop.ask() {
        entry.flow().shared.table().schedule_gc();
    }
}

/// Whether the address of a neighbour is used as it is: `NUD_CONNECTED`, or somebody sees already
/// to its being asked, and its own output function would do no more than send.
///
/// # Safety
///
/// `n` is valid.
#[inline(always)]
unsafe fn is_usable(n: *const c::neighbour) -> bool {
    const USABLE: u32 = c::NUD_CONNECTED | c::NUD_DELAY | c::NUD_PROBE;
    // SAFETY: By the contract of this function; the state is written concurrently.
    let state = unsafe { (&raw const (*n).nud_state).read_volatile() };

    u32::from(state) & USABLE != 0
}

/// Sends to a neighbour.
///
/// # Safety
///
/// As for [`XmitTarget::send`].
#[inline(always)]
unsafe fn output(skb: Skb, n: NonNull<c::neighbour>) {
    let n = n.as_ptr();

    // SAFETY: `n` is valid; its state and header are written concurrently, hence the volatile
    // reads, and the sequence lock.
    unsafe {
        if is_usable(n) {
            if copy_header(skb, &raw const (*n).hh, skb.protocol()) {
                skb.push(ETH_HLEN);
                c::__dev_queue_xmit(skb.as_ptr(), ptr::null_mut());
                return;
            }
        }
        if let Some(output) = (&raw const (*n).output).read_volatile() {
            // It may wait there for the neighbour, and be answered with an ICMP error, which looks
            // for what the IP layer has noted.
            skb.clear_cb();
            output(n, skb.as_ptr());
        }
    }
}

/// Copies the cached Ethernet header in front of the packet; false if there is none yet, if it is
/// just being changed, or if it is not one for packets of this `ethertype` (network byte order): an
/// IPv4 route may go through an IPv6 neighbour, whose header says IPv6. Then the neighbour's own
/// output makes it.
///
/// A writer is not waited for: it may be what this softirq has interrupted, where writers can be.
///
/// # Safety
///
/// As for [`XmitTarget::send`].
#[inline(always)]
unsafe fn copy_header(skb: Skb, hh: *const c::hh_cache, ethertype: u16) -> bool {
    // SAFETY: The cache is valid and its words are accessed as C does: the sequence is even while
    // nobody writes, and unchanged if nobody wrote meanwhile. The bytes before the packet may be
    // written, whatever they are.
    unsafe {
        let sequence = AtomicU32::from_ptr(
            (&raw mut (*hh.cast_mut()).hh_lock.seqcount.seqcount.sequence).cast(),
        );
        let start = sequence.load(Ordering::Acquire);

        if (&raw const (*hh).hh_len).read_volatile() != ETH_HLEN || start & 1 != 0 {
            return false;
        }
        let header = (&raw const (*hh).hh_data)
            .cast::<[u64; 2]>()
            .read_volatile();
        let at = skb.data().sub(HH_DATA_MOD as usize);

        at.cast::<[u64; 2]>().write_unaligned(header);
        fence(Ordering::Acquire);
        sequence.load(Ordering::Relaxed) == start
            && at.add(14).cast::<u16>().read_unaligned() == ethertype
    }
}
