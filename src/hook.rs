// SPDX-License-Identifier: GPL-2.0

//! The ingress hook: the fast path.
//!
//! ```text
//!   parse -> lookup -> still valid? -> fits? -> writable -> rewrite -> xmit
//!     |        |            |            |          |
//!     +--------+------------+------------+----------+--> NF_ACCEPT, with a reason: the slow path
//! ```
//!
//! Runs in softirq context under RCU. No allocation, no lock, nothing that can panic; a packet is
//! either forwarded or left exactly as it was.

use crate::{
    entry::{
        Entry,
        Family,
        V4,
        V6, //
    },
    ffi::{
        self,
        c,
        skb::{
            IpSummed,
            Skb, //
        }, //
    },
    flowtable::Flowtable,
    stats,
    xmit, //
};
use core::sync::atomic::{
    AtomicI64,
    Ordering, //
};
use kernel::ffi::{
    c_uint,
    c_void, //
};
use nft_flow::{
    key::{
        Key,
        PortId, //
    },
    parse::{
        tcp,
        Miss, //
    },
    reason::{
        MissReason,
        TeardownReason, //
    },
    rewrite::Csum,
    state::FinAction, //
};

const NF_ACCEPT: c_uint = c::NF_ACCEPT;
const NF_STOLEN: c_uint = c::NF_STOLEN;

const ETH_P_IP: u16 = (c::ETH_P_IP as u16).to_be();
const ETH_P_IPV6: u16 = (c::ETH_P_IPV6 as u16).to_be();
const ETH_P_8021Q: u16 = (c::ETH_P_8021Q as u16).to_be();
const ETH_P_8021AD: u16 = (c::ETH_P_8021AD as u16).to_be();
const ETH_P_PPP_SES: u16 = (c::ETH_P_PPP_SES as u16).to_be();

/// `PACKET_HOST`, include/uapi/linux/if_packet.h.
const PACKET_HOST: u8 = 0;

/// Both families: `nf_flowtable_type.hook` of an inet flowtable.
///
/// # Safety
///
/// Called by netfilter for a packet at the ingress hook of a device, `ft` is a flowtable of ours.
pub(crate) unsafe extern "C" fn inet(
    ft: *mut c_void,
    skb: *mut c::sk_buff,
    _state: *const c::nf_hook_state,
) -> c_uint {
    // SAFETY: By the contract of this function.
    let (ft, skb) = unsafe { (Flowtable::from_hook(ft), Skb::from_raw(skb)) };

    match skb.protocol() {
        ETH_P_IP => forward::<V4>(ft, skb),
        ETH_P_IPV6 => forward::<V6>(ft, skb),
        other => not_ip(other),
    }
}

/// IPv4 only: for a flowtable in a table of family ip.
///
/// # Safety
///
/// As for [`inet`].
pub(crate) unsafe extern "C" fn ipv4(
    ft: *mut c_void,
    skb: *mut c::sk_buff,
    _state: *const c::nf_hook_state,
) -> c_uint {
    // SAFETY: By the contract of this function.
    let (ft, skb) = unsafe { (Flowtable::from_hook(ft), Skb::from_raw(skb)) };

    match skb.protocol() {
        ETH_P_IP => forward::<V4>(ft, skb),
        other => not_ip(other),
    }
}

/// IPv6 only: for a flowtable in a table of family ip6.
///
/// # Safety
///
/// As for [`inet`].
pub(crate) unsafe extern "C" fn ipv6(
    ft: *mut c_void,
    skb: *mut c::sk_buff,
    _state: *const c::nf_hook_state,
) -> c_uint {
    // SAFETY: By the contract of this function.
    let (ft, skb) = unsafe { (Flowtable::from_hook(ft), Skb::from_raw(skb)) };

    match skb.protocol() {
        ETH_P_IPV6 => forward::<V6>(ft, skb),
        other => not_ip(other),
    }
}

#[cold]
fn not_ip(protocol: u16) -> c_uint {
    miss(match protocol {
        ETH_P_8021Q | ETH_P_8021AD | ETH_P_PPP_SES => MissReason::Encap,
        _ => MissReason::NotIp,
    })
}

#[inline(never)]
fn miss(reason: MissReason) -> c_uint {
    stats::miss(reason);
    NF_ACCEPT
}

/// One copy of the fast path per family, whichever hook it is called from.
#[inline(never)]
fn forward<F: Family>(ft: &Flowtable, skb: Skb) -> c_uint {
    match try_forward::<F>(ft, skb) {
        Ok(()) => NF_STOLEN,
        Err(reason) => miss(reason),
    }
}

/// Forwards a packet, or says why not; then it is untouched.
#[inline(always)]
fn try_forward<F: Family>(ft: &Flowtable, skb: Skb) -> Result<(), MissReason> {
    if skb.pkt_type() != PACKET_HOST {
        return Err(MissReason::NotForUs);
    }
    if skb.vlan_all() != 0 {
        return Err(MissReason::Encap);
    }
    let port = PortId::from_ifindex(skb.ifindex()).ok_or(MissReason::NoEntry)?;
    // Ends: each pull makes the linear part longer, up to the whole packet.
    let pkt = loop {
        match F::parse(skb.head(), skb.len() as usize, port) {
            Ok(pkt) => break pkt,
            Err(Miss::Reason(reason)) => return Err(reason),
            Err(Miss::NeedPull(len)) => {
                if !skb.pull(len) {
                    return Err(MissReason::NoMem);
                }
            }
        }
    };

    // SAFETY: The hook is an RCU read-side section; items and arrays are freed after a grace
    // period.
    let entry = unsafe { F::table(ft).lookup(pkt.key.hash(&ft.seed), &pkt.key) }
        .ok_or(MissReason::NoEntry)?;

    if !entry.is_live() {
        return Err(MissReason::FlowDead);
    }
    if entry.ct.is_dying() {
        return Err(kill(entry, TeardownReason::CtDying, MissReason::CtDying));
    }
    if !F::dst_valid(entry) {
        return Err(kill(entry, TeardownReason::DstStale, MissReason::DstStale));
    }
    if pkt.tcp_flags & tcp::CONTROL != 0 {
        return Err(control(entry, pkt.tcp_flags));
    }
    let mtu = u32::from(entry.mtu);
    if pkt.len > mtu && !skb.gso_fits(mtu) {
        return Err(MissReason::Mtu);
    }

    let neigh = xmit::neighbour(entry).ok_or(MissReason::NeighGone)?;
    let headroom = xmit::headroom(neigh);
    if skb.headroom() < headroom && !skb.cow_head(headroom) {
        return Err(MissReason::NoMem);
    }
    if !skb.trim(pkt.len) || !skb.make_writable(F::writes(&entry.rewrite, pkt.proto)) {
        return Err(MissReason::NoMem);
    }

    let csum = match skb.forward_csum() {
        IpSummed::Full => Csum::Full,
        IpSummed::Partial => Csum::Partial,
    };
    // SAFETY: Made writable above, and the slice that was parsed is not used any more.
    if F::apply(unsafe { skb.head_mut() }, pkt.proto, &entry.rewrite, csum).is_err() {
        return Err(MissReason::Truncated);
    }

    entry.saw(ffi::jiffies32());
    if ft.counts() {
        account(entry, skb.len());
    }
    stats::fast(skb.len());

    skb.drop_dst();
    // SAFETY: The neighbour's device is valid in this RCU section.
    skb.set_output(entry.dst.as_ptr(), unsafe { (*neigh.as_ptr()).dev }, pkt.thoff.into());
    // SAFETY: Headroom and writability were seen to, `neigh` is valid in this RCU section.
    unsafe { xmit::output(skb, neigh) };
    Ok(())
}

/// Adds to conntrack's own counters, as `nf_ct_acct_update()` does.
#[inline(always)]
fn account<F: Family>(entry: &Entry<F>, len: u32) {
    let acct = entry.flow().cold.acct;

    if acct.is_null() {
        return;
    }
    // SAFETY: The extension of a confirmed conntrack entry neither moves nor goes while the flow
    // holds the entry; C changes the counters atomically as well.
    unsafe {
        let counter = acct.add(entry.dir as usize);

        AtomicI64::from_ptr((&raw mut (*counter).packets.counter).cast())
            .fetch_add(1, Ordering::Relaxed);
        AtomicI64::from_ptr((&raw mut (*counter).bytes.counter).cast())
            .fetch_add(len.into(), Ordering::Relaxed);
    }
}

#[cold]
fn kill<F: Family>(entry: &Entry<F>, why: TeardownReason, reason: MissReason) -> MissReason {
    entry.flow().cold.kill(why);
    reason
}

/// A SYN, FIN or RST is for conntrack to judge.
#[cold]
fn control<F: Family>(entry: &Entry<F>, flags: u8) -> MissReason {
    let cold = &entry.flow().cold;

    if flags & tcp::RST != 0 {
        cold.kill(TeardownReason::Rst);
    } else if flags & tcp::FIN != 0 {
        match cold.state.fin(entry.dir) {
            // The other direction may go on for long. Conntrack sees the FIN with fresh windows.
            FinAction::First => cold.ct.get().forget_windows(),
            FinAction::Both => cold.kill(TeardownReason::Fin),
            FinAction::Again | FinAction::Dead => (),
        }
    } else if cold.state.is_closing() {
        cold.kill(TeardownReason::SynReuse);
    }
    MissReason::TcpFlags
}
