// SPDX-License-Identifier: GPL-2.0

//! Rewriting a packet in place: addresses, ports, TTL and the checksums over them.
//!
//! What a flow changes in a packet is the same for every packet of a direction, so the changes to
//! the checksums are computed once.

use crate::bytes::{
    load_u16,
    load_u8,
    store, //
};
use crate::checksum::Delta;
use crate::key::{
    Key4,
    Key6,
    L4Proto, //
};
use crate::packet::{
    Miss,
    Packet4,
    Packet6,
    IPV4_LEN,
    IPV6_LEN, //
};
use crate::reason::MissReason;
use crate::rewrite_other;

pub use crate::checksum::Csum;

/// What TTL - 1 does to the sum over an IPv4 header; the TTL is the first byte of its word.
const TTL_MINUS_ONE: Delta = Delta::replace32(u16::to_be(0x0100) as u32, 0);

/// Where the checksum lies in a TCP header.
const TCP_CHECK: usize = 16;
/// Where the checksum lies in a UDP header.
const UDP_CHECK: usize = 6;

/// What one direction of an IPv4 flow changes in a packet.
///
/// # Invariants
///
/// The deltas are those from the key that this was made with to the new values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Rewrite4 {
    saddr: u32,
    daddr: u32,
    ports: u32,
    /// To the IP header: addresses and TTL.
    ip: Delta,
    /// To the pseudo header, if the protocol has one: addresses.
    addr: Delta,
    /// To everything the transport checksum covers: that, and ports.
    full: Delta,
    /// Whether addresses or ports change at all.
    nat: bool,
}

impl Rewrite4 {
    /// Translates packets with key `old` to the given addresses and ports, all as they lie in the
    /// packet.
    pub fn new(old: &Key4, saddr: u32, daddr: u32, ports: u32) -> Self {
        let addr = Delta::replace32(old.saddr, saddr).combine(Delta::replace32(old.daddr, daddr));
        // ICMP has no pseudo header.
        let pseudo = match old.ingress.proto() == L4Proto::Icmp.number() {
            true => Delta::NONE,
            false => addr,
        };

        // INVARIANT: Computed from `old` and the new values right here.
        Rewrite4 {
            saddr,
            daddr,
            ports,
            ip: addr.combine(TTL_MINUS_ONE),
            addr: pseudo,
            full: pseudo.combine(Delta::replace32(old.ports, ports)),
            nat: (saddr, daddr, ports) != (old.saddr, old.daddr, old.ports),
        }
    }

    /// Forwards packets with key `key` as they are.
    pub fn identity(key: &Key4) -> Self {
        Self::new(key, key.saddr, key.daddr, key.ports)
    }

    /// The new source address, as it lies in the packet.
    #[inline]
    pub const fn saddr(&self) -> u32 {
        self.saddr
    }

    /// The new destination address, as it lies in the packet.
    #[inline]
    pub const fn daddr(&self) -> u32 {
        self.daddr
    }

    /// The new ports, as they lie in the packet.
    #[inline]
    pub const fn ports(&self) -> u32 {
        self.ports
    }

    /// Whether addresses or ports change; if not, only the TTL and its checksum are written.
    #[inline]
    pub const fn is_nat(&self) -> bool {
        self.nat
    }

    /// How many bytes from the network header on [`apply4`] and [`any4`] write at most in a packet
    /// whose transport header, of protocol `proto`, is `thoff` bytes from there: what the caller
    /// has to make writable.
    #[inline(always)]
    pub const fn writes(&self, proto: L4Proto, thoff: u8) -> u32 {
        match self.nat {
            true => (thoff as u32).wrapping_add(proto.touches(self.ports)),
            false => IPV4_LEN as u32,
        }
    }
}

/// An IPv6 address as it lies in the packet.
fn addr6([a, b]: [u64; 2]) -> [u8; 16] {
    let mut bytes = [0; 16];

    store(&mut bytes, 0, a.to_ne_bytes());
    store(&mut bytes, 8, b.to_ne_bytes());
    bytes
}

/// What one direction of an IPv6 flow changes in a packet.
///
/// # Invariants
///
/// The deltas are those from the key that this was made with to the new values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Rewrite6 {
    saddr: [u8; 16],
    daddr: [u8; 16],
    ports: u32,
    /// To the pseudo header, if the protocol has one: addresses.
    addr: Delta,
    /// To everything the transport checksum covers: that, and ports.
    full: Delta,
    /// Whether addresses or ports change at all.
    nat: bool,
}

impl Rewrite6 {
    /// Translates packets with key `old` to the given addresses and ports, all as they lie in the
    /// packet.
    pub fn new(old: &Key6, saddr: [u64; 2], daddr: [u64; 2], ports: u32) -> Self {
        let addr = Delta::replace128(old.saddr, saddr).combine(Delta::replace128(old.daddr, daddr));

        // INVARIANT: Computed from `old` and the new values right here.
        Rewrite6 {
            saddr: addr6(saddr),
            daddr: addr6(daddr),
            ports,
            addr,
            full: addr.combine(Delta::replace32(old.ports, ports)),
            nat: (saddr, daddr, ports) != (old.saddr, old.daddr, old.ports),
        }
    }

    /// Forwards packets with key `key` as they are.
    pub fn identity(key: &Key6) -> Self {
        Self::new(key, key.saddr, key.daddr, key.ports)
    }

    /// The new source address, as it lies in the packet.
    #[inline]
    pub const fn saddr(&self) -> [u8; 16] {
        self.saddr
    }

    /// The new destination address, as it lies in the packet.
    #[inline]
    pub const fn daddr(&self) -> [u8; 16] {
        self.daddr
    }

    /// The new ports, as they lie in the packet.
    #[inline]
    pub const fn ports(&self) -> u32 {
        self.ports
    }

    /// Whether addresses or ports change; if not, only the hop limit is written.
    #[inline]
    pub const fn is_nat(&self) -> bool {
        self.nat
    }

    /// How many bytes from the network header on [`apply6`] and [`any6`] write at most in a packet
    /// whose transport header, of protocol `proto`, is `thoff` bytes from there: what the caller
    /// has to make writable.
    #[inline(always)]
    pub const fn writes(&self, proto: L4Proto, thoff: u8) -> u32 {
        match self.nat {
            true => (thoff as u32).wrapping_add(proto.touches(self.ports)),
            false => IPV6_LEN as u32,
        }
    }
}

/// Rewrites a packet that [`crate::parse::ipv4`] accepted and whose key is the one `rewrite` was
/// made with. `hdr` starts at the network header and is writable for [`Rewrite4::writes`] bytes.
///
/// # Errors
///
/// [`MissReason::Truncated`] if `hdr` is too short; nothing has been written then.
#[inline(always)]
pub fn apply4(hdr: &mut [u8], proto: L4Proto, rewrite: &Rewrite4, csum: Csum) -> Result<(), Miss> {
    let Some((ip, l4)) = hdr.split_first_chunk_mut::<IPV4_LEN>() else {
        return Err(MissReason::Truncated.into());
    };

    if rewrite.nat {
        // First, because it may fail.
        transport(l4, proto, rewrite.ports, rewrite.addr, rewrite.full, csum)?;
    }
    header4(ip, rewrite);
    Ok(())
}

/// The network header.
#[inline(always)]
fn header4(ip: &mut [u8; IPV4_LEN], rewrite: &Rewrite4) {
    if rewrite.nat {
        store(ip, 12, rewrite.saddr.to_ne_bytes());
        store(ip, 16, rewrite.daddr.to_ne_bytes());
    }
    let ttl = load_u8(ip, 8).wrapping_sub(1);
    store(ip, 8, [ttl]);
    let check = rewrite.ip.apply(load_u16(ip, 10));
    store(ip, 10, check.to_ne_bytes());
}

/// Rewrites a packet that [`crate::parse::ipv6`] accepted and whose key is the one `rewrite` was
/// made with. `hdr` starts at the network header and is writable for [`Rewrite6::writes`] bytes.
///
/// # Errors
///
/// [`MissReason::Truncated`] if `hdr` is too short; nothing has been written then.
#[inline(always)]
pub fn apply6(hdr: &mut [u8], proto: L4Proto, rewrite: &Rewrite6, csum: Csum) -> Result<(), Miss> {
    let Some((ip, l4)) = hdr.split_first_chunk_mut::<IPV6_LEN>() else {
        return Err(MissReason::Truncated.into());
    };

    if rewrite.nat {
        // First, because it may fail.
        transport(l4, proto, rewrite.ports, rewrite.addr, rewrite.full, csum)?;
    }
    header6(ip, rewrite);
    Ok(())
}

/// The network header.
#[inline(always)]
fn header6(ip: &mut [u8; IPV6_LEN], rewrite: &Rewrite6) {
    if rewrite.nat {
        store(ip, 8, rewrite.saddr);
        store(ip, 24, rewrite.daddr);
    }
    let hop_limit = load_u8(ip, 7).wrapping_sub(1);
    store(ip, 7, [hop_limit]);
}

/// Rewrites a packet that [`crate::parse::any_ipv4`] accepted as `packet`; otherwise as [`apply4`].
///
/// # Errors
///
/// [`MissReason::Truncated`] if `hdr` is too short; nothing has been written then.
#[inline(always)]
pub fn any4(hdr: &mut [u8], packet: &Packet4, rewrite: &Rewrite4, csum: Csum) -> Result<(), Miss> {
    match packet.proto {
        L4Proto::Tcp | L4Proto::Udp => apply4(hdr, packet.proto, rewrite, csum),
        _ => rare4(hdr, packet, rewrite, csum),
    }
}

/// Rewrites a packet that [`crate::parse::any_ipv6`] accepted as `packet`; otherwise as [`apply6`].
///
/// # Errors
///
/// [`MissReason::Truncated`] if `hdr` is too short; nothing has been written then.
#[inline(always)]
pub fn any6(hdr: &mut [u8], packet: &Packet6, rewrite: &Rewrite6, csum: Csum) -> Result<(), Miss> {
    match packet.proto {
        L4Proto::Tcp | L4Proto::Udp if usize::from(packet.thoff) == IPV6_LEN => {
            apply6(hdr, packet.proto, rewrite, csum)
        }
        _ => rare6(hdr, packet, rewrite, csum),
    }
}

#[inline(never)]
fn rare4(hdr: &mut [u8], packet: &Packet4, rewrite: &Rewrite4, csum: Csum) -> Result<(), Miss> {
    let Some((ip, l4)) = hdr.split_first_chunk_mut::<IPV4_LEN>() else {
        return Err(MissReason::Truncated.into());
    };

    if rewrite.nat {
        // First, because it may fail.
        let l4_len = packet.len.wrapping_sub(packet.thoff.into());
        let (addr, full) = (rewrite.addr, rewrite.full);
        rare_transport(l4, packet.proto, l4_len, rewrite.ports, addr, full, csum)?;
    }
    header4(ip, rewrite);
    Ok(())
}

#[inline(never)]
fn rare6(hdr: &mut [u8], packet: &Packet6, rewrite: &Rewrite6, csum: Csum) -> Result<(), Miss> {
    let Some((ip, rest)) = hdr.split_first_chunk_mut::<IPV6_LEN>() else {
        return Err(MissReason::Truncated.into());
    };

    if rewrite.nat {
        let Some(l4) = rest.get_mut(usize::from(packet.thoff).wrapping_sub(IPV6_LEN)..) else {
            return Err(MissReason::Truncated.into());
        };
        // First, because it may fail.
        let l4_len = packet.len.wrapping_sub(packet.thoff.into());
        let (addr, full) = (rewrite.addr, rewrite.full);
        rare_transport(l4, packet.proto, l4_len, rewrite.ports, addr, full, csum)?;
    }
    header6(ip, rewrite);
    Ok(())
}

/// Writes what stands for the ports in a transport header of any protocol, and the checksum;
/// `l4_len` is the length of all that the IP packet carries.
#[inline(always)]
fn rare_transport(
    l4: &mut [u8],
    proto: L4Proto,
    l4_len: u32,
    ports: u32,
    addr: Delta,
    full: Delta,
    csum: Csum,
) -> Result<(), Miss> {
    match proto {
        L4Proto::Tcp | L4Proto::Udp => transport(l4, proto, ports, addr, full, csum),
        L4Proto::Sctp => rewrite_other::sctp(l4, l4_len as u16, ports, csum),
        L4Proto::Icmp => rewrite_other::icmp(l4, ports, Delta::NONE, full, csum),
        L4Proto::Icmpv6 => rewrite_other::icmp(l4, ports, addr, full, csum),
        L4Proto::Gre => rewrite_other::gre(l4, ports),
        // Nothing in ESP depends on the addresses. AH does not survive translation, here or in
        // the stack.
        L4Proto::Esp | L4Proto::Ah => Ok(()),
    }
}

/// Changes the differentiated services codepoint of an IPv4 header to the upper six bits of `dscp`,
/// and its checksum. ECN stays.
pub fn set_dscp4(hdr: &mut [u8], dscp: u8) {
    let Some(ip) = hdr.first_chunk_mut::<IPV4_LEN>() else {
        return;
    };
    let old = load_u16(ip, 0);

    store(ip, 1, [load_u8(ip, 1) & 3 | dscp & 0xfc]);
    let delta = Delta::replace32(old.into(), load_u16(ip, 0).into());
    let check = delta.apply(load_u16(ip, 10));
    store(ip, 10, check.to_ne_bytes());
}

/// The same for IPv6, whose header has no checksum.
pub fn set_dscp6(hdr: &mut [u8], dscp: u8) {
    let Some([a, b, ..]) = hdr.first_chunk_mut::<IPV6_LEN>() else {
        return;
    };

    *a = *a & 0xf0 | (dscp >> 4);
    *b = *b & 0x3f | ((dscp & 0x0c) << 4);
}

/// Writes ports and checksum of a header of TCP or UDP.
#[inline(always)]
fn transport(
    l4: &mut [u8],
    proto: L4Proto,
    ports: u32,
    addr: Delta,
    full: Delta,
    csum: Csum,
) -> Result<(), Miss> {
    match proto {
        L4Proto::Tcp => {
            let Some(tcp) = l4.first_chunk_mut::<20>() else {
                return Err(MissReason::Truncated.into());
            };
            let check = load_u16(tcp, TCP_CHECK);
            let check = match csum {
                Csum::Full => full.apply(check),
                Csum::Partial => addr.apply_partial(check),
            };
            store(tcp, TCP_CHECK, check.to_ne_bytes());
            store(tcp, 0, ports.to_ne_bytes());
        }
        L4Proto::Udp => {
            let Some(udp) = l4.first_chunk_mut::<8>() else {
                return Err(MissReason::Truncated.into());
            };
            let check = load_u16(udp, UDP_CHECK);
            let check = match csum {
                Csum::Full => full.apply_udp(check),
                // No checksum, as in the outer header of a tunnel.
                Csum::Partial if check == 0 => 0,
                Csum::Partial => addr.apply_partial(check),
            };
            store(udp, UDP_CHECK, check.to_ne_bytes());
            store(udp, 0, ports.to_ne_bytes());
        }
        _ => return Err(MissReason::L4Proto.into()),
    }
    Ok(())
}
