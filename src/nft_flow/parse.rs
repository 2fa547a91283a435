// SPDX-License-Identifier: GPL-2.0

//! From the bytes of a packet to a key, or to the reason why there is none.
//!
//! The fast path takes plain packets only: no fragments, no options, TTL to spare, lengths that
//! agree. Everything else is for the stack, which either forwards it or drops and counts it.
//!
//! [`ipv4`] and [`ipv6`] know TCP and UDP right behind the IP header, which nearly all packets are;
//! [`Parse::parse_any`] knows every [`L4Proto`], behind destination options as well.
//! [`big_ipv4`] and [`big_ipv6`] are for what the length field has no room for.

use crate::bytes::{
    load_be16,
    load_u16,
    load_u32,
    load_u64,
    load_u8, //
};
use crate::checksum::ipv4_header_ok;
use crate::key::{
    IngressId,
    IngressProto, //
    Key,
    Key4,
    Key6,
    L4Proto,
};
use crate::other_l4;
use crate::packet::{
    ds_field6,
    ipv6_unusual,
    short,
    transport,
    IPV4_LEN,
    IPV6_LEN,
    TCP_LEN, //
};
use crate::reason::MissReason;

pub use crate::packet::{
    tcp,
    Miss,
    Packet,
    Packet4,
    Packet6, //
};

/// "More fragments" and the fragment offset.
const IPV4_FRAGMENT: u16 = 0x3fff;

/// Parses an IPv4 packet.
///
/// `hdr` is the linear part of the packet and `skb_len` the length in bytes of all of it, both
/// from the network header on. On success `hdr` holds the whole transport header without options.
///
/// # Errors
///
/// The first that applies of: [`Miss::NeedPull`] or [`MissReason::Truncated`] if there is no
/// header, [`MissReason::BadVersion`], `Truncated` (header length), [`MissReason::IpOptions`],
/// [`MissReason::Jumbogram`] or `Truncated` (total length), [`MissReason::BadChecksum`],
/// [`MissReason::Fragment`], [`MissReason::L4Proto`], [`MissReason::TtlExpiring`], and the
/// transport header's `Truncated` (room), `NeedPull`, `Truncated` (its own length field).
#[inline(always)]
pub fn ipv4(hdr: &[u8], skb_len: usize, ingress: IngressId) -> Result<Packet4, Miss> {
    let Some(ip) = hdr.first_chunk::<IPV4_LEN>() else {
        return Err(short(hdr, skb_len, IPV4_LEN, IPV4_LEN + TCP_LEN));
    };

    let first = load_u8(ip, 0);
    if first != 0x45 {
        return Err(ipv4_unusual(first));
    }

    let len = usize::from(load_be16(ip, 2));
    if len < IPV4_LEN || len > skb_len {
        return Err(ipv4_length(len));
    }
    behind_ipv4(hdr, ip, skb_len, len, ingress)
}

/// The rest of [`ipv4`]: `len` is the length of the packet, at most `skb_len`.
#[inline(always)]
fn behind_ipv4(
    hdr: &[u8],
    ip: &[u8; IPV4_LEN],
    skb_len: usize,
    len: usize,
    ingress: IngressId,
) -> Result<Packet4, Miss> {
    if !ipv4_header_ok(ip) {
        return Err(MissReason::BadChecksum.into());
    }
    if load_u16(ip, 6) & IPV4_FRAGMENT.to_be() != 0 {
        return Err(MissReason::Fragment.into());
    }
    let Some(proto) = L4Proto::plain(load_u8(ip, 9)) else {
        return Err(MissReason::L4Proto.into());
    };
    if load_u8(ip, 8) <= 1 {
        return Err(MissReason::TtlExpiring.into());
    }

    let l4 = transport(hdr, skb_len, IPV4_LEN, len, proto)?;
    // Here, and not by `packet4()`: as a call it costs instructions.
    Ok(Packet {
        key: Key4 {
            saddr: load_u32(ip, 12),
            daddr: load_u32(ip, 16),
            ports: l4.ports,
            ingress: IngressProto::new(proto, ingress),
        },
        proto,
        thoff: IPV4_LEN as u8,
        ds_field: load_u8(ip, 1),
        tcp_flags: l4.tcp_flags,
        seq: l4.seq,
        sctp_control: false,
        headers: l4.headers,
        len: len as u32,
    })
}

/// Parses an IPv6 packet.
///
/// `hdr` and `skb_len` are as for [`ipv4`].
///
/// # Errors
///
/// The first that applies of: [`Miss::NeedPull`] or [`MissReason::Truncated`] if there is no
/// header, [`MissReason::BadVersion`], [`MissReason::Jumbogram`], `Truncated` (payload length),
/// [`MissReason::ExtHeader`] or [`MissReason::L4Proto`], [`MissReason::TtlExpiring`], and the
/// transport header's as for [`ipv4`].
#[inline(always)]
pub fn ipv6(hdr: &[u8], skb_len: usize, ingress: IngressId) -> Result<Packet6, Miss> {
    let Some(ip) = hdr.first_chunk::<IPV6_LEN>() else {
        return Err(short(hdr, skb_len, IPV6_LEN, IPV6_LEN + TCP_LEN));
    };

    if load_u8(ip, 0) >> 4 != 6 {
        return Err(MissReason::BadVersion.into());
    }
    let payload = usize::from(load_be16(ip, 4));
    if payload == 0 {
        return Err(MissReason::Jumbogram.into());
    }
    // At most 65535 + 40.
    let len = payload.wrapping_add(IPV6_LEN);
    if len > skb_len {
        return Err(MissReason::Truncated.into());
    }
    behind_ipv6(hdr, ip, skb_len, len, ingress)
}

/// The rest of [`ipv6`]: `len` is the length of the packet, at most `skb_len`.
#[inline(always)]
fn behind_ipv6(
    hdr: &[u8],
    ip: &[u8; IPV6_LEN],
    skb_len: usize,
    len: usize,
    ingress: IngressId,
) -> Result<Packet6, Miss> {
    let number = load_u8(ip, 6);
    let Some(proto) = L4Proto::plain(number) else {
        return Err(ipv6_unusual(number));
    };
    if load_u8(ip, 7) <= 1 {
        return Err(MissReason::TtlExpiring.into());
    }

    let l4 = transport(hdr, skb_len, IPV6_LEN, len, proto)?;
    // As with IPv4.
    Ok(Packet {
        key: Key6 {
            saddr: [load_u64(ip, 8), load_u64(ip, 16)],
            daddr: [load_u64(ip, 24), load_u64(ip, 32)],
            ports: l4.ports,
            ingress: IngressProto::new(proto, ingress),
        },
        proto,
        thoff: IPV6_LEN as u8,
        ds_field: ds_field6(ip),
        tcp_flags: l4.tcp_flags,
        seq: l4.seq,
        sctp_control: false,
        headers: l4.headers,
        len: len as u32,
    })
}

/// What differs between the parsers of IPv4 and IPv6. The arguments are those of [`ipv4`].
pub trait Parse: Key {
    /// Parses a plain packet: [`ipv4`], [`ipv6`].
    ///
    /// # Errors
    ///
    /// See there.
    fn parse(hdr: &[u8], skb_len: usize, ingress: IngressId) -> Result<Packet<Self>, Miss>;

    /// Parses a packet that [`Parse::parse`] has found in order, but for its protocol or extension
    /// headers: it has said [`MissReason::L4Proto`] or [`MissReason::ExtHeader`]. `peek` reads four
    /// bytes at an offset from the network header, wherever in the packet they lie.
    ///
    /// # Errors
    ///
    /// See [`Parse::parse_any`].
    fn parse_other(
        hdr: &[u8],
        skb_len: usize,
        ingress: IngressId,
        peek: impl Fn(usize) -> Option<[u8; 4]>,
    ) -> Result<Packet<Self>, Miss>;

    /// Parses a TCP super-packet without a length: [`big_ipv4`], [`big_ipv6`].
    ///
    /// # Errors
    ///
    /// See there.
    fn parse_big(hdr: &[u8], skb_len: usize, ingress: IngressId) -> Result<Packet<Self>, Miss>;

    /// Parses as [`Parse::parse`] does, for every protocol that flows have, and behind destination
    /// options of IPv6, which are none of a router's business. `peek` is as for
    /// [`Parse::parse_other`].
    ///
    /// # Errors
    ///
    /// As [`Parse::parse`], and for the protocols that it does not know [`MissReason::L4Proto`],
    /// [`MissReason::TtlExpiring`], and the transport header's: `Truncated` (room), `NeedPull`,
    /// `L4Proto` for a call of GRE that connection tracking does not know, [`MissReason::IcmpType`],
    /// `Truncated` (chunks of SCTP); [`MissReason::ExtHeader`] for all other extension headers, and
    /// for too many options.
    #[inline(always)]
    fn parse_any(
        hdr: &[u8],
        skb_len: usize,
        ingress: IngressId,
        peek: impl Fn(usize) -> Option<[u8; 4]>,
    ) -> Result<Packet<Self>, Miss> {
        match Self::parse(hdr, skb_len, ingress) {
            Err(Miss::Reason(MissReason::L4Proto | MissReason::ExtHeader)) => {
                Self::parse_other(hdr, skb_len, ingress, peek)
            }
            result => result,
        }
    }
}

impl Parse for Key4 {
    #[inline(always)]
    fn parse(hdr: &[u8], skb_len: usize, ingress: IngressId) -> Result<Packet4, Miss> {
        ipv4(hdr, skb_len, ingress)
    }

    #[inline(always)]
    fn parse_other(
        hdr: &[u8],
        skb_len: usize,
        ingress: IngressId,
        peek: impl Fn(usize) -> Option<[u8; 4]>,
    ) -> Result<Packet4, Miss> {
        other_l4::ipv4(hdr, skb_len, ingress, peek)
    }

    fn parse_big(hdr: &[u8], skb_len: usize, ingress: IngressId) -> Result<Packet4, Miss> {
        big_ipv4(hdr, skb_len, ingress)
    }
}

impl Parse for Key6 {
    #[inline(always)]
    fn parse(hdr: &[u8], skb_len: usize, ingress: IngressId) -> Result<Packet6, Miss> {
        ipv6(hdr, skb_len, ingress)
    }

    #[inline(always)]
    fn parse_other(
        hdr: &[u8],
        skb_len: usize,
        ingress: IngressId,
        peek: impl Fn(usize) -> Option<[u8; 4]>,
    ) -> Result<Packet6, Miss> {
        other_l4::ipv6(hdr, skb_len, ingress, peek)
    }

    fn parse_big(hdr: &[u8], skb_len: usize, ingress: IngressId) -> Result<Packet6, Miss> {
        big_ipv6(hdr, skb_len, ingress)
    }
}

/// Parses a TCP super-packet that the stack has made (BIG TCP): if the length field is 0, the
/// packet ends where the buffer ends. To be called when [`Parse::parse_any`] has said
/// [`MissReason::Jumbogram`], and only if it is known to be cut into segments of TCP: any other
/// packet of length 0 is a wrong one.
///
/// # Errors
///
/// As [`ipv4`]; [`MissReason::Jumbogram`] for other protocols.
#[inline(never)]
pub fn big_ipv4(hdr: &[u8], skb_len: usize, ingress: IngressId) -> Result<Packet4, Miss> {
    match hdr.first_chunk::<IPV4_LEN>() {
        Some(ip) if load_u16(ip, 2) == 0 && load_u8(ip, 9) == L4Proto::Tcp.number() => {
            behind_ipv4(hdr, ip, skb_len, skb_len, ingress)
        }
        _ => Err(MissReason::Jumbogram.into()),
    }
}

/// Parses as [`big_ipv4`] does, when [`Parse::parse_any`] has said [`MissReason::Jumbogram`]. A jumbogram
/// proper (RFC 2675) has its length in a hop-by-hop option, and is for the stack.
///
/// # Errors
///
/// As [`Parse::parse_any`]; [`MissReason::Jumbogram`] for other protocols.
#[inline(never)]
pub fn big_ipv6(hdr: &[u8], skb_len: usize, ingress: IngressId) -> Result<Packet6, Miss> {
    let Some(ip) = hdr
        .first_chunk::<IPV6_LEN>()
        .filter(|ip| load_u16(ip, 4) == 0)
    else {
        return Err(MissReason::Jumbogram.into());
    };
    let packet = match behind_ipv6(hdr, ip, skb_len, skb_len, ingress) {
        Err(Miss::Reason(MissReason::ExtHeader)) => other_l4::ipv6(hdr, skb_len, ingress, |_| None),
        result => result,
    }?;

    match packet.proto {
        L4Proto::Tcp => Ok(packet),
        _ => Err(MissReason::Jumbogram.into()),
    }
}

/// The reason for a first byte other than 0x45.
#[cold]
fn ipv4_unusual(first: u8) -> Miss {
    match (first >> 4, first & 0xf) {
        (4, 0..=4) => MissReason::Truncated,
        (4, _) => MissReason::IpOptions,
        _ => MissReason::BadVersion,
    }
    .into()
}

/// The reason for a total length that is too small, or beyond the end of the packet.
#[cold]
fn ipv4_length(len: usize) -> Miss {
    match len {
        0 => MissReason::Jumbogram,
        _ => MissReason::Truncated,
    }
    .into()
}
