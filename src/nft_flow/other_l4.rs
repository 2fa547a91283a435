// SPDX-License-Identifier: GPL-2.0

//! Other L4 protocols than TCP and UDP, and IPv6 destination options: from the bytes of a packet to
//! a key.
//!
//! Out of line and behind the plain parsers, so that these cost plain packets nothing.

use crate::bytes::{
    load,
    load_be16,
    load_u32,
    load_u8, //
};
use crate::key::IngressId;
use crate::packet::{
    self,
    ipv6_unusual,
    packet4,
    packet6,
    short,
    Miss,
    Packet,
    Packet4,
    Packet6,
    Transport,
    IPV4_LEN,
    IPV6_LEN,
    TCP_LEN, //
};
use crate::proto::{
    gre_call,
    halves,
    L4Proto, //
};
use crate::reason::MissReason;

/// The extension header for the destination: only the host that the packet is addressed to looks
/// into it (RFC 8200, section 4.6).
const DESTINATION_OPTIONS: u8 = 60;
/// Transport headers further than this from the network header are for the stack.
const MAX_THOFF: usize = 128;

/// The size of the headers' fixed parts.
pub(crate) const SCTP_LEN: usize = 12;
pub(crate) const ICMP_LEN: usize = 8;
const GRE_LEN: usize = 4;
pub(crate) const PPTP_LEN: usize = 8;
const ESP_LEN: usize = 8;
const AH_LEN: usize = 12;

/// The version in the second byte of a GRE header.
const GRE_VERSION: u8 = 7;
/// What GRE version 1 carries: PPP.
const GRE_PPP: u16 = 0x880b;

/// Where the identifier lies in an echo.
pub(crate) const ICMP_ID: usize = 4;
/// Where the call lies in GRE version 1.
pub(crate) const GRE_CALL: usize = 6;

/// Chunk types of SCTP that say nothing about the state of an association.
mod chunk {
    /// Payload data.
    pub(super) const DATA: u8 = 0;
    /// Payload data of interleaved messages, RFC 8260.
    pub(super) const I_DATA: u8 = 64;
    /// Acknowledgement.
    pub(super) const SACK: u8 = 3;
    /// Congestion was seen, and was reacted to.
    pub(super) const ECNE: u8 = 12;
    /// The answer to that.
    pub(super) const CWR: u8 = 13;
    /// Authenticates the chunks behind it, RFC 4895.
    pub(super) const AUTH: u8 = 15;
    /// Data is given up, RFC 3758.
    pub(super) const FORWARD_TSN: u8 = 192;
    /// The same with interleaving.
    pub(super) const I_FORWARD_TSN: u8 = 194;
}

/// Chunks before the first data chunk that are looked at; there are no more than two or three.
const MAX_CHUNKS: usize = 8;

/// Parses an IPv4 packet that [`ipv4`](crate::parse::ipv4) has found in order but for its protocol:
/// it has said [`MissReason::L4Proto`].
///
/// # Errors
///
/// As [`Parse::parse_any`](crate::parse::Parse::parse_any).
#[inline(never)]
pub(crate) fn ipv4(
    hdr: &[u8],
    skb_len: usize,
    ingress: IngressId,
    peek: impl Fn(usize) -> Option<[u8; 4]>,
) -> Result<Packet4, Miss> {
    let Some(ip) = hdr.first_chunk::<IPV4_LEN>() else {
        return Err(MissReason::Truncated.into());
    };
    let len = usize::from(load_be16(ip, 2));
    let Some(proto) = L4Proto::from_number(load_u8(ip, 9)).filter(|proto| proto.is_ipv4()) else {
        return Err(MissReason::L4Proto.into());
    };
    if load_u8(ip, 8) <= 1 {
        return Err(MissReason::TtlExpiring.into());
    }

    let l4 = transport(hdr, skb_len, IPV4_LEN, len, proto)?;
    let packet = packet4(ip, ingress, proto, &l4, len);
    Ok(Packet {
        sctp_control: needs_tracking(hdr, &packet, peek)?,
        ..packet
    })
}

/// Parses an IPv6 packet that [`ipv6`](crate::parse::ipv6) has found in order but for its next
/// header: it has said [`MissReason::L4Proto`] or [`MissReason::ExtHeader`]. Or the super-packet of
/// [`big_ipv6`](crate::parse::big_ipv6), which has no length.
///
/// # Errors
///
/// As [`Parse::parse_any`](crate::parse::Parse::parse_any).
#[inline(never)]
pub(crate) fn ipv6(
    hdr: &[u8],
    skb_len: usize,
    ingress: IngressId,
    peek: impl Fn(usize) -> Option<[u8; 4]>,
) -> Result<Packet6, Miss> {
    let Some(ip) = hdr.first_chunk::<IPV6_LEN>() else {
        return Err(MissReason::Truncated.into());
    };
    let len = match load_be16(ip, 4) {
        0 => skb_len,
        payload => usize::from(payload).wrapping_add(IPV6_LEN),
    };
    let mut number = load_u8(ip, 6);
    let mut thoff = IPV6_LEN;

    // Ends: each header has eight bytes at least.
    while number == DESTINATION_OPTIONS {
        let end = thoff.wrapping_add(8);
        if len < end {
            return Err(MissReason::Truncated.into());
        }
        let Some(header) = hdr.get(thoff..).and_then(|h| h.first_chunk::<8>()) else {
            return Err(short(hdr, skb_len, end, end.wrapping_add(TCP_LEN)));
        };
        number = load_u8(header, 0);
        // The second byte is the length in units of eight bytes, without the first.
        thoff = end.wrapping_add(usize::from(load_u8(header, 1)).wrapping_mul(8));
        if thoff > MAX_THOFF {
            return Err(MissReason::ExtHeader.into());
        }
        if len < thoff {
            return Err(MissReason::Truncated.into());
        }
    }
    let Some(proto) = L4Proto::from_number(number).filter(|proto| proto.is_ipv6()) else {
        return Err(ipv6_unusual(number));
    };
    if load_u8(ip, 7) <= 1 {
        return Err(MissReason::TtlExpiring.into());
    }

    let l4 = transport(hdr, skb_len, thoff, len, proto)?;
    let packet = packet6(ip, ingress, proto, thoff, &l4, len);
    Ok(Packet {
        sctp_control: needs_tracking(hdr, &packet, peek)?,
        ..packet
    })
}

/// Reads the transport header behind `thoff` bytes of other headers, at most [`MAX_THOFF`]; `len`
/// is the length of the IP packet, at least `thoff` and at most `skb_len`.
#[inline(always)]
fn transport(
    hdr: &[u8],
    skb_len: usize,
    thoff: usize,
    len: usize,
    proto: L4Proto,
) -> Result<Transport, Miss> {
    let room = len.wrapping_sub(thoff);
    let l4 = hdr.get(thoff..).unwrap_or_default();
    let end = |size: usize| thoff.wrapping_add(size);

    match proto {
        L4Proto::Tcp | L4Proto::Udp => packet::transport(hdr, skb_len, thoff, len, proto),
        L4Proto::Sctp => {
            if room < SCTP_LEN {
                return Err(MissReason::Truncated.into());
            }
            let Some(sctp) = l4.first_chunk::<SCTP_LEN>() else {
                return Err(short(hdr, skb_len, end(SCTP_LEN), end(SCTP_LEN)));
            };
            Ok(Transport::new(load_u32(sctp, 0), end(SCTP_LEN)))
        }
        L4Proto::Icmp | L4Proto::Icmpv6 => {
            if room < ICMP_LEN {
                return Err(MissReason::Truncated.into());
            }
            let Some(icmp) = l4.first_chunk::<ICMP_LEN>() else {
                return Err(short(hdr, skb_len, end(ICMP_LEN), end(ICMP_LEN)));
            };
            let kind: [u8; 2] = load(icmp, 0);
            match (proto, kind) {
                (L4Proto::Icmp, [0 | 8, 0]) | (L4Proto::Icmpv6, [128 | 129, 0]) => Ok(
                    Transport::new(halves(load(icmp, ICMP_ID), kind), end(ICMP_LEN)),
                ),
                _ => Err(MissReason::IcmpType.into()),
            }
        }
        L4Proto::Gre => {
            if room < GRE_LEN {
                return Err(MissReason::Truncated.into());
            }
            let Some(gre) = l4.first_chunk::<GRE_LEN>() else {
                return Err(short(hdr, skb_len, end(GRE_LEN), end(room.min(PPTP_LEN))));
            };
            match load_u8(gre, 1) & GRE_VERSION {
                0 => return Ok(Transport::new(0, end(GRE_LEN))),
                1 if load_be16(gre, 2) == GRE_PPP => (),
                _ => return Err(MissReason::L4Proto.into()),
            }
            if room < PPTP_LEN {
                return Err(MissReason::Truncated.into());
            }
            let Some(pptp) = l4.first_chunk::<PPTP_LEN>() else {
                return Err(short(hdr, skb_len, end(PPTP_LEN), end(PPTP_LEN)));
            };
            match load(pptp, GRE_CALL) {
                // Nobody's, and no tuple tells it from version 0.
                [0, 0] => Err(MissReason::L4Proto.into()),
                call => Ok(Transport::new(gre_call(call), end(PPTP_LEN))),
            }
        }
        L4Proto::Esp if room < ESP_LEN => Err(MissReason::Truncated.into()),
        L4Proto::Ah if room < AH_LEN => Err(MissReason::Truncated.into()),
        L4Proto::Esp => Ok(Transport::new(0, end(ESP_LEN))),
        L4Proto::Ah => Ok(Transport::new(0, end(AH_LEN))),
    }
}

/// Whether a packet is one of SCTP with chunks that connection tracking must see.
#[inline(always)]
fn needs_tracking<K>(
    hdr: &[u8],
    packet: &Packet<K>,
    peek: impl Fn(usize) -> Option<[u8; 4]>,
) -> Result<bool, Miss> {
    match packet.proto {
        L4Proto::Sctp => has_control_chunk(hdr, packet.headers.into(), packet.len as usize, peek),
        _ => Ok(false),
    }
}

/// Whether connection tracking must see one of the SCTP chunks that start at `at`. Data comes last
/// in a packet (RFC 9260, section 6.10), so the search ends there.
#[inline(always)]
fn has_control_chunk(
    hdr: &[u8],
    mut at: usize,
    len: usize,
    peek: impl Fn(usize) -> Option<[u8; 4]>,
) -> Result<bool, Miss> {
    let start = at;

    for _ in 0..MAX_CHUNKS {
        if at >= len && at != start {
            return Ok(false);
        }
        let end = at.wrapping_add(4);
        if end > len {
            return Err(MissReason::Truncated.into());
        }
        let linear = hdr.get(at..).and_then(|h| h.first_chunk::<4>()).copied();
        let Some([kind, _, a, b]) = linear.or_else(|| peek(at)) else {
            return Err(MissReason::Truncated.into());
        };
        let size = usize::from(u16::from_be_bytes([a, b]));
        if size < 4 || at.wrapping_add(size) > len {
            return Err(MissReason::Truncated.into());
        }
        match kind {
            chunk::DATA | chunk::I_DATA => return Ok(false),
            chunk::SACK
            | chunk::ECNE
            | chunk::CWR
            | chunk::AUTH
            | chunk::FORWARD_TSN
            | chunk::I_FORWARD_TSN => (),
            _ => return Ok(true),
        }
        // Chunks are padded to words.
        at = at.wrapping_add(size.wrapping_add(3) & !3);
    }
    Ok(at < len)
}
