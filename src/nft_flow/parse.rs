// SPDX-License-Identifier: GPL-2.0

//! From the bytes of a packet to a key, or to the reason why there is none.
//!
//! The fast path takes plain packets only: no fragments, no options, TTL to spare, lengths that
//! agree. Everything else is for the stack, which either forwards it or drops and counts it.
//!
//! [`ipv4`] and [`ipv6`] know TCP and UDP right behind the IP header, which nearly all packets are;
//! [`any_ipv4`] and [`any_ipv6`] know every [`L4Proto`], behind destination options as well.
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
    Key4,
    Key6,
    L4Proto,
};
use crate::other_l4;
use crate::reason::MissReason;

/// Bits of the TCP flags byte.
pub mod tcp {
    /// The sender has no more data.
    pub const FIN: u8 = 0x01;
    /// A connection is being opened.
    pub const SYN: u8 = 0x02;
    /// The connection is reset.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number means something.
    pub const ACK: u8 = 0x10;

    /// The flags that connection tracking must see.
    pub const CONTROL: u8 = FIN | SYN | RST;

    /// Whether connection tracking need not see a segment with these flags. One without an ACK is
    /// not of a connection at all, and must not be taken for a part of it.
    #[inline]
    pub const fn is_data(flags: u8) -> bool {
        flags & (CONTROL | ACK) == ACK
    }
}

/// The size of an IPv4 header without options.
pub(crate) const IPV4_LEN: usize = 20;
/// The size of an IPv6 header.
pub(crate) const IPV6_LEN: usize = 40;
/// The size of a TCP header without options.
pub(crate) const TCP_LEN: usize = 20;
/// The size of a UDP header.
const UDP_LEN: usize = 8;

/// "More fragments" and the fragment offset.
const IPV4_FRAGMENT: u16 = 0x3fff;

/// Why a packet has no key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Miss {
    /// The packet is for the ordinary forwarding path.
    Reason(MissReason),
    /// The packet is long enough but not linear enough: make this many bytes, counted from the
    /// network header, linear and try again. More than were, at most the whole packet. Not worth
    /// counting.
    NeedPull(u32),
}

impl From<MissReason> for Miss {
    #[inline]
    fn from(reason: MissReason) -> Self {
        Miss::Reason(reason)
    }
}

/// What the fast path needs to know of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<K> {
    /// Whose packet it is.
    pub key: K,
    /// The transport protocol.
    pub proto: L4Proto,
    /// Where the transport header starts, in bytes from the network header.
    pub thoff: u8,
    /// The type of service or traffic class: the differentiated services codepoint and ECN.
    pub ds_field: u8,
    /// The TCP flags byte (see [`tcp`]); zero for other protocols.
    pub tcp_flags: u8,
    /// The sequence number of a TCP packet; zero for other protocols.
    pub seq: u32,
    /// An SCTP packet has chunks that connection tracking must see.
    pub sctp_control: bool,
    /// The size of the headers in bytes, extension headers and options of the transport header
    /// included.
    pub headers: u8,
    /// The length of the IP packet in bytes, its header included; the frame may be longer by some
    /// padding.
    pub len: u32,
}

impl<K> Packet<K> {
    /// The sequence number after the last byte of a TCP packet, SYN and FIN not counted.
    #[inline(always)]
    pub fn seq_end(&self) -> u32 {
        self.seq
            .wrapping_add(self.len.wrapping_sub(self.headers.into()))
    }

    /// Bytes from the transport header on.
    #[inline(always)]
    pub fn segment_len(&self) -> u32 {
        self.len.wrapping_sub(self.thoff.into())
    }
}

/// A parsed IPv4 packet.
pub type Packet4 = Packet<Key4>;

/// A parsed IPv6 packet.
pub type Packet6 = Packet<Key6>;

/// The traffic class of an IPv6 packet.
#[inline(always)]
pub(crate) fn ds_field6(ip: &[u8; IPV6_LEN]) -> u8 {
    (load_be16(ip, 0) >> 4) as u8
}

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

/// Parses as [`ipv4`] does, for every protocol that flows have. `peek` reads four bytes at an
/// offset from the network header, wherever in the packet they lie.
///
/// # Errors
///
/// As [`ipv4`], and for the protocols that it does not know [`MissReason::L4Proto`],
/// [`MissReason::TtlExpiring`], and the transport header's: `Truncated` (room), `NeedPull`,
/// `L4Proto` for a call of GRE that connection tracking does not know, [`MissReason::IcmpType`],
/// `Truncated` (chunks of SCTP).
#[inline(always)]
pub fn any_ipv4(
    hdr: &[u8],
    skb_len: usize,
    ingress: IngressId,
    peek: impl Fn(usize) -> Option<[u8; 4]>,
) -> Result<Packet4, Miss> {
    match ipv4(hdr, skb_len, ingress) {
        Err(Miss::Reason(MissReason::L4Proto)) => other_l4::ipv4(hdr, skb_len, ingress, peek),
        result => result,
    }
}

/// Parses as [`ipv6`] does, for every protocol that flows have, and behind destination options,
/// which are none of a router's business. `peek` is as for [`any_ipv4`].
///
/// # Errors
///
/// As [`ipv6`] and [`any_ipv4`]; [`MissReason::ExtHeader`] for all other extension headers, and for
/// too many of these.
#[inline(always)]
pub fn any_ipv6(
    hdr: &[u8],
    skb_len: usize,
    ingress: IngressId,
    peek: impl Fn(usize) -> Option<[u8; 4]>,
) -> Result<Packet6, Miss> {
    match ipv6(hdr, skb_len, ingress) {
        Err(Miss::Reason(MissReason::L4Proto | MissReason::ExtHeader)) => {
            other_l4::ipv6(hdr, skb_len, ingress, peek)
        }
        result => result,
    }
}

/// Parses a TCP super-packet that the stack has made (BIG TCP): if the length field is 0, the
/// packet ends where the buffer ends. To be called when [`any_ipv4`] has said
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

/// Parses as [`big_ipv4`] does, when [`any_ipv6`] has said [`MissReason::Jumbogram`]. A jumbogram
/// proper (RFC 2675) has its length in a hop-by-hop option, and is for the stack.
///
/// # Errors
///
/// As [`any_ipv6`]; [`MissReason::Jumbogram`] for other protocols.
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

/// What a transport header gives to a key and a packet.
pub(crate) struct Transport {
    pub(crate) ports: u32,
    pub(crate) tcp_flags: u8,
    pub(crate) seq: u32,
    pub(crate) headers: u8,
}

/// Reads the header of TCP or UDP behind `thoff` bytes of other headers, at most 128; `len` is the
/// length of the IP packet, at least `thoff` and at most `skb_len`.
#[inline(always)]
pub(crate) fn transport(
    hdr: &[u8],
    skb_len: usize,
    thoff: usize,
    len: usize,
    proto: L4Proto,
) -> Result<Transport, Miss> {
    let room = len.wrapping_sub(thoff);
    let l4 = hdr.get(thoff..).unwrap_or_default();

    if let L4Proto::Tcp = proto {
        if room < TCP_LEN {
            return Err(MissReason::Truncated.into());
        }
        let Some(tcp) = l4.first_chunk::<TCP_LEN>() else {
            let needed = thoff.wrapping_add(TCP_LEN);
            return Err(short(hdr, skb_len, needed, needed));
        };
        // The data offset is the high nibble, in units of four bytes.
        let header = usize::from(load_u8(tcp, 12) >> 4).wrapping_mul(4);
        if header < TCP_LEN || header > room {
            return Err(MissReason::Truncated.into());
        }
        Ok(Transport {
            ports: load_u32(tcp, 0),
            tcp_flags: load_u8(tcp, 13),
            seq: u32::from_be(load_u32(tcp, 4)),
            // At most 128 + 60.
            headers: header.wrapping_add(thoff) as u8,
        })
    } else {
        if room < UDP_LEN {
            return Err(MissReason::Truncated.into());
        }
        let Some(udp) = l4.first_chunk::<UDP_LEN>() else {
            let needed = thoff.wrapping_add(UDP_LEN);
            return Err(short(hdr, skb_len, needed, needed));
        };
        let datagram = usize::from(load_be16(udp, 4));
        if datagram < UDP_LEN || datagram > room {
            return Err(MissReason::Truncated.into());
        }
        Ok(Transport {
            ports: load_u32(udp, 0),
            tcp_flags: 0,
            seq: 0,
            headers: UDP_LEN.wrapping_add(thoff) as u8,
        })
    }
}

/// `hdr` is shorter than `needed`: asks for up to `wanted` bytes if the packet has enough.
#[cold]
pub(crate) fn short(hdr: &[u8], skb_len: usize, needed: usize, wanted: usize) -> Miss {
    if skb_len < needed || skb_len <= hdr.len() {
        return MissReason::Truncated.into();
    }
    // `wanted` is at most 148.
    Miss::NeedPull(wanted.min(skb_len) as u32)
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

/// The reason for a next header other than TCP or UDP: the extension headers are those of the
/// kernel's `ipv6_ext_hdr()` and the rest of the IANA registry "IPv6 Extension Header Types" that
/// has a length field.
#[cold]
pub(crate) fn ipv6_unusual(number: u8) -> Miss {
    match number {
        // Hop-by-hop options, routing, fragment, authentication, none, destination options.
        0 | 43 | 44 | 51 | 59 | 60 => MissReason::ExtHeader,
        // Mobility, host identity, shim6.
        135 | 139 | 140 => MissReason::ExtHeader,
        _ => MissReason::L4Proto,
    }
    .into()
}
