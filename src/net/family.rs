// SPDX-License-Identifier: GPL-2.0

//! What differs between IPv4 and IPv6.

use crate::{
    ffi::{
        self,
        c,
        cache::Cache, //
    },
    net::{
        ct::Ct,
        route::{
            self,
            Dst, //
        }, //
    }, //
};
use nft_flow::{
    desc::Tuple,
    direction::Direction, //
    encap::ethertype,
    key::{
        IngressId,
        IngressProto, //
        Key4,
        Key6,
        L4Proto,
    },
    parse::Parse,
    rewrite::{
        self,
        Rewrite,
        Rewrite4,
        Rewrite6, //
    },
};

/// What differs between IPv4 and IPv6.
pub(crate) trait Family: Sized + 'static {
    /// Lookup key, with the parsers that make it of packets.
    type Key: Parse + 'static;
    /// What a direction changes in a packet.
    type Rewrite: Rewrite;

    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    const NFPROTO: u8;
    /// EtherType, in network byte order.
    const ETHERTYPE: u16;
    /// `PPP_IP` or `PPP_IPV6`, include/uapi/linux/ppp_defs.h.
    const PPP: u16;
    /// The size of the network header.
    const HEADER_LEN: u8;

    /// Where this family's flows are allocated.
    fn cache() -> &'static Cache;

    /// Whether flows of this family may have this protocol.
    fn has(proto: L4Proto) -> bool;

    /// The key that packets of a conntrack tuple have when they enter by `ingress`.
    fn key(tuple: &c::nf_conntrack_tuple, proto: L4Proto, ingress: IngressId) -> Self::Key;

    /// The NAT rewrite that turns packets with key `old` into packets of the reverse of tuple
    /// `answer`.
    fn rewrite(old: &Self::Key, answer: &c::nf_conntrack_tuple, proto: L4Proto) -> Self::Rewrite;

    /// Addresses and ports of packets with a key.
    fn tuple(key: &Self::Key) -> Tuple;

    /// Addresses and ports of packets that were rewritten.
    fn rewritten(rewrite: &Self::Rewrite) -> Tuple;

    /// The type of service or traffic class of a packet, 0 if there is no header.
    fn ds_field(hdr: &[u8]) -> u8;

    /// Whether a packet has the addresses that [`rewrite::apply`] writes, and these ports, if it has
    /// some.
    fn is_rewritten(rewrite: &Self::Rewrite, hdr: &[u8], ports: Option<u32>) -> bool;

    /// TTL or hop limit of a packet, 0 if there is no header.
    fn ttl(hdr: &[u8]) -> u8;

    /// Whether this is an IPv4 packet with the DF bit.
    fn must_not_fragment(hdr: &[u8]) -> bool;

    /// Changes the upper six bits of that field to those of `dscp`.
    fn set_dscp(hdr: &mut [u8], dscp: u8);

    /// What stands in a key for the way that packets come in.
    fn ingress(key: &Self::Key) -> IngressId;

    /// What [`Family::dst_valid`] compares with.
    fn cookie(dst: &Dst) -> u32;

    /// Whether a lookup would still give this route, and forwarding is on for the ingress device.
    fn dst_valid(entry: &impl Routed) -> bool;

    /// [`Family::dst_valid`] of an entry whose packets do not leave through IPsec.
    fn route_valid(entry: &impl Routed) -> bool;

    /// Whether the packet has IPv6 destination options right after its header.
    ///
    /// # Safety
    ///
    /// The packet has its network header in the linear part.
    unsafe fn has_options(pkt: &c::nft_pktinfo) -> bool;

    /// Fills in a route lookup back to the packet's source; see [`route::flow_to4`].
    ///
    /// # Safety
    ///
    /// `skb` has its network header in the linear part.
    unsafe fn flow_to(
        fl: &mut c::flowi,
        skb: *const c::sk_buff,
        pkt: &c::nft_pktinfo,
        ct: Ct,
        dir: Direction,
    );
}

/// A direction of a flow, by its route.
pub(crate) trait Routed {
    /// The route.
    fn dst(&self) -> &Dst;

    /// [`Family::cookie`] of the route when it was looked up.
    fn cookie(&self) -> u32;

    /// Whether the route is a bundle of IPsec.
    fn is_xfrm(&self) -> bool;

    /// The device that packets enter the stack by, as routing sees it.
    fn iif(&self) -> u32;
}

/// The ports of a conntrack tuple, or what stands for them: source and destination, as they lie in
/// a packet.
fn ports(tuple: &c::nf_conntrack_tuple) -> ([u8; 2], [u8; 2]) {
    // SAFETY: All members of these unions are integers of two bytes together.
    let (src, dst) = unsafe { (tuple.src.u.all, tuple.dst.u.all) };

    (src.to_ne_bytes(), dst.to_ne_bytes())
}

/// The word of a key for packets of a tuple.
fn key_ports(tuple: &c::nf_conntrack_tuple, proto: L4Proto) -> u32 {
    let (src, dst) = ports(tuple);

    proto.ports(src, dst)
}

/// The word that packets with the word `old` leave with, when they are answered by packets of
/// `answer`.
fn new_ports(old: u32, answer: &c::nf_conntrack_tuple, proto: L4Proto) -> u32 {
    let (src, dst) = ports(answer);

    proto.translated(old, src, dst)
}

/// IPv4.
pub(crate) enum V4 {}

/// Created by the module's init.
static CACHE4: Cache = Cache::new();

impl Family for V4 {
    type Key = Key4;
    type Rewrite = Rewrite4;

    const NFPROTO: u8 = c::NFPROTO_IPV4 as u8;
    const ETHERTYPE: u16 = ethertype::IP.to_be();
    const PPP: u16 = c::NFO_PPP_IP;
    const HEADER_LEN: u8 = 20;

    fn has(proto: L4Proto) -> bool {
        proto.is_ipv4()
    }

    fn cache() -> &'static Cache {
        &CACHE4
    }

    fn key(tuple: &c::nf_conntrack_tuple, proto: L4Proto, ingress: IngressId) -> Key4 {
        // SAFETY: The tuple is one of IPv4.
        let (saddr, daddr) = unsafe { (tuple.src.u3.ip, tuple.dst.u3.ip) };

        Key4 {
            saddr,
            daddr,
            ports: key_ports(tuple, proto),
            ingress: IngressProto::new(proto, ingress),
        }
    }

    fn rewrite(old: &Key4, answer: &c::nf_conntrack_tuple, proto: L4Proto) -> Rewrite4 {
        // SAFETY: The tuple is one of IPv4.
        let (saddr, daddr) = unsafe { (answer.dst.u3.ip, answer.src.u3.ip) };

        Rewrite4::new(old, saddr, daddr, new_ports(old.ports, answer, proto))
    }

    fn tuple(key: &Key4) -> Tuple {
        key.into()
    }

    fn rewritten(rewrite: &Rewrite4) -> Tuple {
        Tuple::v4(rewrite.saddr(), rewrite.daddr(), rewrite.ports())
    }

    fn ds_field(hdr: &[u8]) -> u8 {
        hdr.get(1).copied().unwrap_or(0)
    }

    fn is_rewritten(rewrite: &Rewrite4, hdr: &[u8], ports: Option<u32>) -> bool {
        hdr.get(12..16) == Some(&rewrite.saddr().to_ne_bytes())
            && hdr.get(16..20) == Some(&rewrite.daddr().to_ne_bytes())
            && ports.is_none_or(|ports| ports == rewrite.ports())
    }

    fn ttl(hdr: &[u8]) -> u8 {
        hdr.get(8).copied().unwrap_or(0)
    }

    fn must_not_fragment(hdr: &[u8]) -> bool {
        hdr.get(6).is_some_and(|flags| flags & 0x40 != 0)
    }

    fn set_dscp(hdr: &mut [u8], dscp: u8) {
        rewrite::set_dscp4(hdr, dscp);
    }

    fn ingress(key: &Key4) -> IngressId {
        key.ingress.ingress()
    }

    fn cookie(_: &Dst) -> u32 {
        0
    }

    /// A bundle of IPsec has a check of its own.
    fn dst_valid(entry: &impl Routed) -> bool {
        if entry.is_xfrm() {
            // SAFETY: The entry holds the route; RCU is held.
            return unsafe { c::nfo_dst_check(entry.dst().as_ptr(), entry.cookie()) };
        }
        Self::route_valid(entry)
    }

    /// `ipv4_dst_check()` (net/ipv4/route.c): not killed, and no route has changed since.
    #[inline(always)]
    fn route_valid(entry: &impl Routed) -> bool {
        /// `DST_OBSOLETE_FORCE_CHK`: what `obsolete` of every usable IPv4 route is.
        const FORCE_CHK: i16 = c::NFO_DST_FORCE_CHK;

        let rt = entry.dst().as_ptr().cast::<c::rtable>();

        // SAFETY: The entry holds the route, and its device lives until the end of the RCU
        // section; the generation of its namespace is an atomic counter.
        unsafe {
            let net = (*entry.dst().dev()).nd_net.net;
            let genid = ffi::read_once((&raw const (*net).ipv4.rt_genid).cast());

            (&raw const (*rt).dst.obsolete).read_volatile() == FORCE_CHK
                && (*rt).rt_genid as u32 == genid
        }
    }

    unsafe fn has_options(_: &c::nft_pktinfo) -> bool {
        false
    }

    unsafe fn flow_to(
        fl: &mut c::flowi,
        skb: *const c::sk_buff,
        pkt: &c::nft_pktinfo,
        ct: Ct,
        dir: Direction,
    ) {
        // SAFETY: The same contract.
        unsafe { route::flow_to4(fl, skb, pkt, ct, dir) }
    }
}

/// IPv6.
pub(crate) enum V6 {}

/// Created by the module's init.
static CACHE6: Cache = Cache::new();

/// An IPv6 address as two words.
fn addr6(addr: &c::nf_inet_addr) -> [u64; 2] {
    // SAFETY: All members are plain integers of 16 bytes together.
    let [a, b, c, d] = unsafe { addr.all };
    let join = |x: u32, y: u32| {
        let mut bytes = [0; 8];

        bytes[..4].copy_from_slice(&x.to_ne_bytes());
        bytes[4..].copy_from_slice(&y.to_ne_bytes());
        u64::from_ne_bytes(bytes)
    };

    [join(a, b), join(c, d)]
}

/// Whether forwarding, which is off for the namespace, is forced for the device that packets of
/// this direction come in by.
///
/// # Safety
///
/// RCU is held, and `net` is valid.
#[cold]
unsafe fn is_forced(entry: &impl Routed, net: *mut c::net) -> bool {
    // SAFETY: By the contract of this function.
    unsafe { c::nfo_forwards6(net, entry.iif()) }
}

impl Family for V6 {
    type Key = Key6;
    type Rewrite = Rewrite6;

    const NFPROTO: u8 = c::NFPROTO_IPV6 as u8;
    const ETHERTYPE: u16 = ethertype::IPV6.to_be();
    const PPP: u16 = c::NFO_PPP_IPV6;
    const HEADER_LEN: u8 = 40;

    fn has(proto: L4Proto) -> bool {
        proto.is_ipv6()
    }

    fn cache() -> &'static Cache {
        &CACHE6
    }

    fn key(tuple: &c::nf_conntrack_tuple, proto: L4Proto, ingress: IngressId) -> Key6 {
        Key6 {
            saddr: addr6(&tuple.src.u3),
            daddr: addr6(&tuple.dst.u3),
            ports: key_ports(tuple, proto),
            ingress: IngressProto::new(proto, ingress),
        }
    }

    fn rewrite(old: &Key6, answer: &c::nf_conntrack_tuple, proto: L4Proto) -> Rewrite6 {
        Rewrite6::new(
            old,
            addr6(&answer.dst.u3),
            addr6(&answer.src.u3),
            new_ports(old.ports, answer, proto),
        )
    }

    fn tuple(key: &Key6) -> Tuple {
        key.into()
    }

    fn rewritten(rewrite: &Rewrite6) -> Tuple {
        Tuple::v6(rewrite.saddr(), rewrite.daddr(), rewrite.ports())
    }

    fn ds_field(hdr: &[u8]) -> u8 {
        match hdr {
            [a, b, ..] => (a << 4) | (b >> 4),
            _ => 0,
        }
    }

    fn is_rewritten(rewrite: &Rewrite6, hdr: &[u8], ports: Option<u32>) -> bool {
        hdr.get(8..24) == Some(&rewrite.saddr())
            && hdr.get(24..40) == Some(&rewrite.daddr())
            && ports.is_none_or(|ports| ports == rewrite.ports())
    }

    fn ttl(hdr: &[u8]) -> u8 {
        hdr.get(7).copied().unwrap_or(0)
    }

    fn must_not_fragment(_: &[u8]) -> bool {
        false
    }

    fn set_dscp(hdr: &mut [u8], dscp: u8) {
        rewrite::set_dscp6(hdr, dscp);
    }

    fn ingress(key: &Key6) -> IngressId {
        key.ingress.ingress()
    }

    fn cookie(dst: &Dst) -> u32 {
        // SAFETY: An IPv6 route.
        unsafe { c::nfo_rt6_cookie(dst.as_ptr()) }
    }

    fn dst_valid(entry: &impl Routed) -> bool {
        Self::route_valid(entry)
    }

    /// `ip6_dst_check()` (net/ipv6/route.c), inlined for what nearly every route is: a copy per CPU
    /// of one in the table that does not expire. And, as `ip6_forward()` has it, forwarding is on:
    /// unlike with IPv4, no route becomes stale when it is switched off.
    #[inline(always)]
    fn route_valid(entry: &impl Routed) -> bool {
        /// `RTF_PCPU` and `RTF_EXPIRES`, include/uapi/linux/ipv6_route.h.
        const RTF_PCPU: u32 = 0x4000_0000;
        const RTF_EXPIRES: u32 = 0x0040_0000;
        /// `DST_OBSOLETE_FORCE_CHK`: what `obsolete` of every usable IPv6 route is.
        const FORCE_CHK: i16 = -1;

        let rt = entry.dst().as_ptr().cast::<c::rt6_info>();

        // SAFETY: The entry holds the route, one of IPv6 or a bundle that begins like one. RCU is
        // held, by which its origin, that one's node, and the device live long enough. The settings
        // are those of the device's namespace, which IPv6 is on in if there is a route.
        unsafe {
            let net = (*entry.dst().dev()).nd_net.net;
            let all = (&raw const (*net).ipv6.devconf_all).read_volatile();

            if (&raw const (*all).forwarding).read_volatile() == 0 && !is_forced(entry, net) {
                return false;
            }
            let from = (&raw const (*rt).from).read_volatile();
            if (*rt).rt6i_flags & (RTF_PCPU | RTF_EXPIRES) != RTF_PCPU
                || (*rt).sernum != 0
                || from.is_null()
                || (*from).fib6_flags & RTF_EXPIRES != 0
            {
                return c::nfo_dst_check(entry.dst().as_ptr(), entry.cookie());
            }
            let node = (&raw const (*from).fib6_node).read_volatile();
            !node.is_null()
                && (&raw const (*node).fn_sernum).read_volatile() as u32 == entry.cookie()
                && (&raw const (*rt).dst.obsolete).read_volatile() == FORCE_CHK
        }
    }

    unsafe fn has_options(pkt: &c::nft_pktinfo) -> bool {
        /// `NEXTHDR_DEST`, include/net/ipv6.h.
        const NEXTHDR_DEST: u8 = c::NFO_NEXTHDR_DEST;

        // SAFETY: By the contract of this function; the next header is the seventh byte.
        unsafe { (*pkt.skb).data.add(pkt.nhoff.into()).add(6).read() == NEXTHDR_DEST }
    }

    unsafe fn flow_to(
        fl: &mut c::flowi,
        skb: *const c::sk_buff,
        pkt: &c::nft_pktinfo,
        ct: Ct,
        dir: Direction,
    ) {
        // SAFETY: The same contract.
        unsafe { route::flow_to6(fl, skb, pkt, ct, dir) }
    }
}
