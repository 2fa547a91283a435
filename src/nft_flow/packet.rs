// SPDX-License-Identifier: GPL-2.0

//! What is known of a packet once it has been parsed, and what the parsers have in common.

use crate::bytes::{
    load_be16,
    load_u32,
    load_u64,
    load_u8, //
};
use crate::key::{
    IngressId,
    IngressProto, //
    Key4,
    Key6,
    L4Proto,
};
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

/// What a transport header gives to a key and a packet.
pub(crate) struct Transport {
    pub(crate) ports: u32,
    pub(crate) tcp_flags: u8,
    pub(crate) seq: u32,
    pub(crate) headers: u8,
}

impl Transport {
    /// A header that says nothing else; `headers` is where it ends.
    #[inline(always)]
    pub(crate) fn new(ports: u32, headers: usize) -> Self {
        Transport {
            ports,
            tcp_flags: 0,
            seq: 0,
            headers: headers as u8,
        }
    }
}

/// The traffic class of an IPv6 packet.
#[inline(always)]
pub(crate) fn ds_field6(ip: &[u8; IPV6_LEN]) -> u8 {
    (load_be16(ip, 0) >> 4) as u8
}

/// The IPv4 packet with this header, of `len` bytes.
#[inline(always)]
pub(crate) fn packet4(
    ip: &[u8; IPV4_LEN],
    ingress: IngressId,
    proto: L4Proto,
    l4: &Transport,
    len: usize,
) -> Packet4 {
    Packet {
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
    }
}

/// The IPv6 packet with this header, of `len` bytes. Its transport header is `thoff` bytes from the
/// network header.
#[inline(always)]
pub(crate) fn packet6(
    ip: &[u8; IPV6_LEN],
    ingress: IngressId,
    proto: L4Proto,
    thoff: usize,
    l4: &Transport,
    len: usize,
) -> Packet6 {
    Packet {
        key: Key6 {
            saddr: [load_u64(ip, 8), load_u64(ip, 16)],
            daddr: [load_u64(ip, 24), load_u64(ip, 32)],
            ports: l4.ports,
            ingress: IngressProto::new(proto, ingress),
        },
        proto,
        thoff: thoff as u8,
        ds_field: ds_field6(ip),
        tcp_flags: l4.tcp_flags,
        seq: l4.seq,
        sctp_control: false,
        headers: l4.headers,
        len: len as u32,
    }
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
