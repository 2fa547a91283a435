// SPDX-License-Identifier: GPL-2.0

//! The ingress hook: the fast path.
//!
//! ```text
//!   parse -> lookup -> still valid? -> rules asked? -> fits? -> writable -> rewrite -> xmit
//!     |        |            |               |            |          |
//!     +--------+------------+---------------+------------+----------+--> NF_ACCEPT, with a reason: the slow path
//! ```
//!
//! Runs in softirq context under RCU. No allocation, no lock, nothing that can panic; a packet is
//! either forwarded or left exactly as it was.

mod ruleset;
mod wrapped;

use crate::{
    ffi::{
        self,
        c,
        skb::{
            IpSummed,
            Segments,
            Skb, //
        }, //
    },
    flow::{
        entry::{
            flag,
            Entry, //
        },
        ingress_path::IngressPath,
        qos::Change,
        tag_cache::FrameKey, //
    },
    flowtable::{
        Flowtable,
        Store, //
    },
    hook::xmit,
    net::{
        family::{
            Family,
            V4,
            V6, //
        },
        trace, //
    },
    stats, //
};
use kernel::ffi::{
    c_uint,
    c_void, //
};
use nft_flow::{
    key::{
        IngressId, //
        Key,
        L4Proto,
    },
    parse::{
        tcp,
        Miss,
        Packet,
        Parse, //
    },
    reason::{
        MissReason,
        TeardownReason, //
    },
    rewrite::{
        self,
        Csum,
        Rewrite, //
    },
    window::Segment, //
};

use ruleset::{
    consult_ruleset,
    no_entry, //
    probe_of,
};
use wrapped::{
    in_session,
    tunnelled,
    wrapped, //
};

const NF_ACCEPT: c_uint = c::NF_ACCEPT;
const NF_STOLEN: c_uint = c::NF_STOLEN;

/// `nf_flowtable_type.hook` of a flowtable in a table of family inet, ip or ip6, which sees packets
/// of both families or of one.
///
/// # Safety
///
/// Called by netfilter for a packet at the ingress hook of a device, `ft` is a flowtable of ours.
pub(crate) unsafe extern "C" fn ingress<const IP4: bool, const IP6: bool>(
    ft: *mut c_void,
    skb: *mut c::sk_buff,
    _state: *const c::nf_hook_state,
) -> c_uint {
    // SAFETY: By the contract of this function.
    let (ft, skb) = unsafe { (Flowtable::from_hook(ft), Skb::from_raw(skb)) };

    if IP4 && skb.protocol() == V4::ETHERTYPE && skb.is_plain() {
        return plain::<V4>(ft, skb);
    }
    not_plain::<IP4, IP6>(ft, skb)
}

/// Handles what is no plain IPv4. This is a function of its own, or the compiler would ask for IPv6
/// first.
#[inline(never)]
fn not_plain<const IP4: bool, const IP6: bool>(ft: &Flowtable, skb: Skb) -> c_uint {
    if IP6 && skb.protocol() == V6::ETHERTYPE && skb.is_plain() {
        return plain::<V6>(ft, skb);
    }
    if skb.has_vlan_tag() && skb.is_ordinary() {
        let key = FrameKey {
            tag: tag(skb),
            session: 0,
        };
        if let Some(path) = ft.tags.find(skb.rcu(), key) {
            match skb.protocol() {
                V4::ETHERTYPE if IP4 => return tagged::<V4>(ft, skb, path),
                V6::ETHERTYPE if IP6 => return tagged::<V6>(ft, skb, path),
                _ => (),
            }
        }
    }
    if skb.protocol() == wrapped::ETH_P_PPP_SES && skb.is_ordinary() {
        return in_session(ft, skb, Serves { v4: IP4, v6: IP6 });
    }
    wrapped(ft, skb, Serves { v4: IP4, v6: IP6 })
}

/// The families that a flowtable serves.
#[derive(Clone, Copy)]
struct Serves {
    v4: bool,
    v6: bool,
}

#[inline(never)]
fn miss(skb: Skb, reason: MissReason) -> c_uint {
    stats::miss(reason);
    trace::miss(skb, reason);
    NF_ACCEPT
}

/// Where the network header of a packet is, and what stands for the way that it came.
#[derive(Clone, Copy)]
struct L3Location<'a> {
    ingress_id: IngressId,
    offset: usize,
    tunnel: bool,
    path: Option<&'a IngressPath>,
    /// The plain parser has found the packet in order, but neither TCP nor UDP in it.
    is_other_l4: bool,
}

impl L3Location<'_> {
    /// Makes the location of a packet with nothing around it.
    #[inline(always)]
    fn plain(ingress_id: IngressId) -> Self {
        Self {
            ingress_id,
            offset: 0,
            tunnel: false,
            path: None,
            is_other_l4: false,
        }
    }
}

/// A packet that [`Skb::is_plain`]. One copy of the fast path per family, whichever hook it is
/// called from.
#[inline(never)]
fn plain<F: Store>(ft: &Flowtable, skb: Skb) -> c_uint {
    let Some(ingress_id) = IngressId::from_ifindex(skb.ifindex()) else {
        return miss(skb, MissReason::NoEntry);
    };
    let loc = L3Location::plain(ingress_id);

    match forward::<F, true>(ft, skb, loc) {
        Ok(()) => NF_STOLEN,
        // What the plain parser does not know, and flows that ask for more.
        Err(why @ (MissReason::L4Proto | MissReason::ExtHeader | MissReason::Jumbogram)) => {
            not_so_plain::<F>(ft, skb, ingress_id, None, why)
        }
        Err(reason) => miss(skb, reason),
    }
}

/// Interface and VLAN tag of a packet.
#[inline(always)]
fn tag(skb: Skb) -> u64 {
    (u64::from(skb.ifindex()) << 32) | u64::from(skb.vlan_all())
}

/// A packet that is plain but for a VLAN tag, whose priority is 0.
#[inline(never)]
fn tagged<F: Store>(ft: &Flowtable, skb: Skb, path: &IngressPath) -> c_uint {
    let loc = L3Location {
        path: Some(path),
        ..L3Location::plain(path.id)
    };

    match forward::<F, true>(ft, skb, loc) {
        Ok(()) => NF_STOLEN,
        Err(why @ MissReason::L4Proto) => not_so_plain::<F>(ft, skb, path.id, Some(path), why),
        Err(MissReason::ExtHeader | MissReason::Jumbogram) => {
            wrapped(ft, skb, Serves { v4: true, v6: true })
        }
        Err(reason) => miss(skb, reason),
    }
}

/// A packet that the plain path was tried for in vain, because of `why`, for the general path. A place
/// that is handed on has to be in memory: it is made here, and not for every packet.
#[inline(never)]
fn not_so_plain<F: Store>(
    ft: &Flowtable,
    skb: Skb,
    ingress_id: IngressId,
    path: Option<&IngressPath>,
    why: MissReason,
) -> c_uint {
    let loc = L3Location {
        path,
        is_other_l4: why == MissReason::L4Proto,
        ..L3Location::plain(ingress_id)
    };

    let serves = Serves { v4: true, v6: true };
    verdict(skb, dispatch(ft, skb, loc, F::ETHERTYPE, serves))
}

fn verdict(skb: Skb, result: Result<(), MissReason>) -> c_uint {
    match result {
        Ok(()) => NF_STOLEN,
        Err(reason) => miss(skb, reason),
    }
}

/// Passes a packet to the fast path of the family of what starts at `loc`.
fn dispatch(
    ft: &Flowtable,
    skb: Skb,
    loc: L3Location<'_>,
    ethertype: u16,
    serves: Serves,
) -> Result<(), MissReason> {
    let result = match ethertype {
        V4::ETHERTYPE if serves.v4 => forward::<V4, false>(ft, skb, loc),
        V6::ETHERTYPE if serves.v6 => forward::<V6, false>(ft, skb, loc),
        _ => return Err(MissReason::NotIp),
    };

    if result == Err(MissReason::L4Proto) && !loc.tunnel && ft.has_ingress_paths() {
        return tunnelled(ft, skb, loc, ethertype, serves);
    }
    result
}

/// Forwards a packet, or says why not; then it is untouched. `PLAIN`: nothing is around it, and it
/// is TCP or UDP without extension headers.
#[inline(always)]
fn forward<F: Store, const PLAIN: bool>(
    ft: &Flowtable,
    skb: Skb,
    loc: L3Location<'_>,
) -> Result<(), MissReason> {
    let offset = if PLAIN { 0 } else { loc.offset };
    // Ends: each pull makes the linear part longer, up to the whole packet.
    let pkt = loop {
        let head = if PLAIN {
            skb.head()
        } else {
            skb.head().get(offset..).unwrap_or_default()
        };
        let len = (skb.len() as usize).wrapping_sub(offset);

        let parsed = if PLAIN {
            F::Key::parse(head, len, loc.ingress_id)
        } else {
            let peek = |at: usize| skb.peek(offset.wrapping_add(at));
            let parsed = if loc.is_other_l4 {
                F::Key::parse_other(head, len, loc.ingress_id, peek)
            } else {
                F::Key::parse_any(head, len, loc.ingress_id, peek)
            };
            match parsed {
                Err(Miss::Reason(MissReason::Jumbogram)) if skb.is_gso_tcp() => {
                    F::Key::parse_big(head, len, loc.ingress_id)
                }
                result => result,
            }
        };
        match parsed {
            Ok(pkt) => break pkt,
            Err(Miss::Reason(reason)) => return Err(reason),
            Err(Miss::NeedPull(len)) => {
                if !skb.pull(len.wrapping_add(offset as u32)) {
                    return Err(MissReason::NoMem);
                }
            }
        }
    };

    let hash = pkt.key.hash(&ft.seed);
    let entry = match ft.lookup::<F>(skb.rcu(), hash, &pkt.key) {
        Some(entry) => entry,
        None => return Err(no_entry::<F>(ft, skb, offset, pkt.thoff, pkt.proto, hash)),
    };

    let valid = if entry.is_usable_by_all() && (PLAIN || !skb.has_secpath()) {
        F::route_valid(entry)
    } else {
        check_usable(entry, skb, offset)?
    };
    if !valid {
        // The packet adds the flow anew.
        let hash = entry.flow().shared.hashes[entry.dir() as usize];
        no_entry::<F>(ft, skb, offset, pkt.thoff, pkt.proto, hash);
        return Err(teardown(
            entry,
            TeardownReason::DstStale,
            MissReason::DstStale,
        ));
    }
    if entry.ct.is_dying() {
        return Err(teardown(
            entry,
            TeardownReason::CtDying,
            MissReason::CtDying,
        ));
    }
    let stamped = entry.has_stamp(ft.stamp(pkt.ds_field));
    if PLAIN && !stamped {
        // The general path begins anew: nothing may have been learnt from the packet.
        return Err(MissReason::ExtHeader);
    }
    if pkt.proto == L4Proto::Tcp {
        if !tcp::is_data(pkt.tcp_flags) {
            return Err(MissReason::TcpFlags);
        }
        if !entry.max_end.follow(pkt.seq, pkt.seq_end()) {
            let thoff = offset.wrapping_add(pkt.thoff.into());
            check_order(entry, skb, thoff, pkt.segment_len())?;
        }
    }
    if PLAIN {
        return rewrite_and_send::<F, true>(ft, skb, loc, entry, &pkt, None);
    }
    let change = match stamped && skb.is_unmarked() && skb.vlan_pcp() == 0 {
        true => None,
        false => Some(consult_ruleset(ft, skb, loc, entry, &pkt)?),
    };
    if pkt.sctp_control {
        return Err(MissReason::SctpChunk);
    }
    if pkt.thoff != F::HEADER_LEN && !entry.takes_options() {
        entry.send_probe(&probe_of::<F>(ft, skb, loc, &pkt));
        return Err(MissReason::ExtHeader);
    }
    rewrite_and_send::<F, false>(ft, skb, loc, entry, &pkt, change)
}

/// Forwards a packet that the ruleset would let pass, and make this `change` to, or says why not;
/// then it is untouched. `PLAIN`: as for [`forward`], and there is nothing to change.
#[inline(always)]
fn rewrite_and_send<F: Family, const PLAIN: bool>(
    ft: &Flowtable,
    skb: Skb,
    loc: L3Location<'_>,
    entry: &Entry<F>,
    pkt: &Packet<F::Key>,
    change: Option<Change>,
) -> Result<(), MissReason> {
    let offset = if PLAIN { 0 } else { loc.offset };
    let mtu = u32::from(entry.mtu);
    if pkt.len > mtu && !segments_fit(skb, offset as u32, pkt.thoff, pkt.headers, mtu) {
        return Err(MissReason::Mtu);
    }
    if entry.needs_slow_checks() {
        let thoff = offset.wrapping_add(pkt.thoff.into());
        let counts = loc.path.is_none();
        slow_checks(
            entry,
            skb,
            thoff,
            pkt.segment_len(),
            counts.then_some(pkt.len),
        )?;
    }

    let out = match xmit::XmitTarget::for_entry(entry, skb, skb.rcu()) {
        Some(out) => out,
        None => return Err(MissReason::NeighGone),
    };
    let headroom = out.headroom();
    if skb.headroom().wrapping_add(offset as u32) < headroom && !skb.cow_head(headroom) {
        return Err(MissReason::NoMem);
    }
    let end = pkt.len.wrapping_add(offset as u32);
    let writes = || (offset as u32).wrapping_add(entry.rewrite.writes(pkt.proto, pkt.thoff));
    if !skb.trim(end) || !skb.make_writable(writes) {
        return Err(MissReason::NoMem);
    }
    if !skb.detach() {
        return Err(MissReason::Socket);
    }
    if !PLAIN && loc.tunnel && !skb.tunnel_pull() {
        return Err(MissReason::NoMem);
    }

    let csum = match skb.forward_csum() {
        IpSummed::Full => Csum::Full,
        IpSummed::Partial => Csum::Partial,
    };
    // SAFETY: Made writable above, and the slice that was parsed is not used any more.
    let head = unsafe { skb.head_mut() };
    let head = if PLAIN {
        head
    } else {
        head.get_mut(offset..).unwrap_or_default()
    };
    let applied = if PLAIN {
        rewrite::apply(head, pkt.proto, &entry.rewrite, csum)
    } else {
        rewrite::apply_any(head, pkt, &entry.rewrite, csum)
    };
    if applied.is_err() {
        return Err(MissReason::Truncated);
    }
    let now = ffi::jiffies32();
    if entry.saw(now) && pkt.proto == L4Proto::Tcp {
        sample(entry, head, pkt.thoff, pkt.segment_len());
    }
    if !PLAIN {
        // SAFETY: The IP header that starts there was parsed.
        unsafe { skb.decapsulate(offset as u32, F::ETHERTYPE) };
    }

    if ft.measures() {
        measure(ft, entry, skb, now);
    }
    if !PLAIN {
        if let Some(change) = change {
            change.restore::<F>(skb);
        }
        if entry.wants_ct() && entry.ct.attach(skb, entry.dir()) {
            stats::count(stats::Counter::PacketsWithCt);
        }
    }
    ft.traffic.count(F::NFPROTO == V6::NFPROTO, skb);
    if let Some(path) = loc.path {
        if PLAIN {
            skb.set_vlan_tag([0; 2]);
        }
        path.count_rx(skb, || ft.net(), skb.len());
    }
    // SAFETY: Headroom and writability were seen to.
    unsafe { out.send::<F>(skb, entry.dst.as_ptr(), pkt.thoff.into()) };
    Ok(())
}

/// Whether each segment of a super-packet fits the MTU. The network header is at `offset`, the
/// transport header `thoff` bytes from there, and the payload `headers` bytes.
#[cold]
fn segments_fit(skb: Skb, offset: u32, thoff: u8, headers: u8, mtu: u32) -> bool {
    match skb.segments() {
        Segments::Payload(size) => size.wrapping_add(headers.into()) <= mtu,
        Segments::Nested => skb.segments_fit(offset, thoff.into(), mtu),
        Segments::None => false,
    }
}

/// Whether a packet whose network header is at `offset` may use the flow: the flow is live, and the
/// IPsec policies let the packet be forwarded. The policies depend on the packet, which may have
/// come through the SA of somebody else, so this comes before anything is learnt from it. Returns
/// whether the route is valid.
#[inline(never)]
fn check_usable<F: Family>(entry: &Entry<F>, skb: Skb, offset: usize) -> Result<bool, MissReason> {
    if !entry.is_live() {
        return Err(MissReason::FlowDead);
    }
    let admitted = if skb.has_secpath() {
        offset == 0 && !skb.has_vlan_tag() && skb.ipsec_admits(entry.dst.as_ptr(), F::NFPROTO)
    } else {
        !entry.needs_secpath()
    };
    if !admitted {
        return Err(MissReason::SecPath);
    }
    Ok(F::dst_valid(entry))
}

/// Checks what only some flows need: bridge ports, conntrack's verdict, refreshes. The packet has
/// `len` bytes from the transport header on. `bytes`: what the devices above the one that it came
/// in by have to count as received, if nobody else sees to that.
#[inline(never)]
fn slow_checks<F: Family>(
    entry: &Entry<F>,
    skb: Skb,
    thoff: usize,
    len: u32,
    bytes: Option<u32>,
) -> Result<(), MissReason> {
    let now = ffi::jiffies32();
    let shared = &entry.flow().shared;

    if entry.is_bridged() && !shared.ports_forwarding(entry.dir()) {
        return Err(MissReason::Bridge);
    }
    if entry.has_flag(flag::CT_VERDICT_PENDING) {
        let segment = segment(skb.head().get(thoff..), len);
        entry.flow().check_ct_verdict(entry, &segment, now);
        if !entry.is_live() {
            return Err(MissReason::FlowDead);
        }
    }
    if !entry.is_bridged() {
        return Ok(());
    }
    if shared.refresh(entry.dir(), now) {
        return Err(MissReason::Refresh);
    }
    if let Some(bytes) = bytes {
        shared.count_rx(skb, entry.dir(), bytes);
    }
    Ok(())
}

/// Counts a packet for conntrack, unless that has done so, and for the choice of flows that go into
/// hardware.
#[inline(always)]
fn measure<F: Family>(ft: &Flowtable, entry: &Entry<F>, skb: Skb, now: u32) {
    if ft.counts() && !skb.is_tracked() {
        count_ct(entry, skb.len());
    }
    if let Some(tier) = &ft.hw {
        tier.forwarded(&entry.flow().shared, skb.len(), now);
    }
}

/// Adds to conntrack's own counters, as `nf_ct_acct_update()` does.
#[inline(always)]
fn count_ct<F: Family>(entry: &Entry<F>, len: u32) {
    if let Some(counters) = entry.flow().shared.acct {
        counters.add(entry.dir(), 1, len.into());
    }
}

#[cold]
fn teardown<F: Family>(entry: &Entry<F>, why: TeardownReason, reason: MissReason) -> MissReason {
    entry.flow().shared.teardown(why);
    reason
}

/// The numbers of a TCP packet without SYN and FIN, whose header these bytes start with: it was
/// parsed. Header and payload are `len` bytes. One without ACK acknowledges nothing.
fn segment(header: Option<&[u8]>, len: u32) -> Segment {
    let header = header
        .and_then(<[u8]>::first_chunk::<16>)
        .copied()
        .unwrap_or_default();
    let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, doff, flags, w0, w1] = header;
    let seq = u32::from_be_bytes([s0, s1, s2, s3]);

    Segment {
        seq,
        end: seq.wrapping_add(len.wrapping_sub(u32::from(doff >> 4) * 4)),
        ack: (flags & tcp::ACK != 0).then_some(u32::from_be_bytes([a0, a1, a2, a3])),
        window: u16::from_be_bytes([w0, w1]),
    }
}

/// Checks a TCP packet, with `len` bytes from its header at `thoff` on, that does not start where
/// the last one has ended.
#[cold]
fn check_order<F: Family>(
    entry: &Entry<F>,
    skb: Skb,
    thoff: usize,
    len: u32,
) -> Result<(), MissReason> {
    crate::flow::tcp::out_of_order(entry, &segment(skb.head().get(thoff..), len))
}

/// Samples the windows of a TCP packet with `len` bytes from its header at `thoff` of `head` on.
#[cold]
fn sample<F: Family>(entry: &Entry<F>, head: &[u8], thoff: u8, len: u32) {
    let segment = segment(head.get(usize::from(thoff)..), len);

    entry.flow().sample(entry, &segment);
}
