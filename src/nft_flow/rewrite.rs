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
    Packet,
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

/// What one direction of a flow changes behind the network header.
///
/// # Invariants
///
/// The deltas are those from the key that this was made with to the new values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct L4Rewrite {
    ports: u32,
    /// To the pseudo header, if the protocol has one: addresses.
    addr: Delta,
    /// To everything the transport checksum covers: that, and ports.
    full: Delta,
    /// Whether addresses or ports change at all.
    nat: bool,
}

impl L4Rewrite {
    /// Changes `old` to `ports`, when `addr` is what becomes of the pseudo header. `nat`: addresses
    /// change.
    fn new(old: u32, ports: u32, addr: Delta, nat: bool) -> Self {
        // INVARIANT: Computed from `old` and the new values right here.
        L4Rewrite {
            ports,
            addr,
            full: addr.combine(Delta::replace32(old, ports)),
            nat: nat || ports != old,
        }
    }
}

/// What one direction of a flow changes in packets of IPv4 or of IPv6.
pub trait Rewrite {
    /// The size of the network header.
    const HEADER_LEN: usize;

    /// Behind the network header.
    fn l4(&self) -> &L4Rewrite;

    /// Writes the addresses of a network header, which is all of `ip`.
    fn addresses(&self, ip: &mut [u8]);

    /// Writes what every router writes there: TTL or hop limit. The checksum over the header, if it
    /// has one, is then that of the new addresses.
    fn hop(&self, ip: &mut [u8]);

    /// The new ports, as they lie in the packet.
    #[inline]
    fn ports(&self) -> u32 {
        self.l4().ports
    }

    /// Whether addresses or ports change; if not, only the TTL or hop limit is written, and the
    /// checksum over it.
    #[inline]
    fn is_nat(&self) -> bool {
        self.l4().nat
    }

    /// How many bytes from the network header on [`apply`] and [`apply_any`] write at most in a packet
    /// whose transport header, of protocol `proto`, is `thoff` bytes from there: what the caller
    /// has to make writable.
    #[inline(always)]
    fn writes(&self, proto: L4Proto, thoff: u8) -> u32 {
        match self.l4().nat {
            true => u32::from(thoff).wrapping_add(proto.touches(self.l4().ports)),
            false => Self::HEADER_LEN as u32,
        }
    }
}

/// What one direction of an IPv4 flow changes in a packet.
///
/// # Invariants
///
/// The delta is that from the key that this was made with to the new values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Rewrite4 {
    saddr: u32,
    daddr: u32,
    l4: L4Rewrite,
    /// To the IP header: addresses and TTL.
    ip: Delta,
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
        let nat = (saddr, daddr) != (old.saddr, old.daddr);

        // INVARIANT: Computed from `old` and the new values right here.
        Rewrite4 {
            saddr,
            daddr,
            l4: L4Rewrite::new(old.ports, ports, pseudo, nat),
            ip: addr.combine(TTL_MINUS_ONE),
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
}

impl Rewrite for Rewrite4 {
    const HEADER_LEN: usize = IPV4_LEN;

    #[inline(always)]
    fn l4(&self) -> &L4Rewrite {
        &self.l4
    }

    #[inline(always)]
    fn addresses(&self, ip: &mut [u8]) {
        if let Some(ip) = ip.first_chunk_mut::<IPV4_LEN>() {
            store(ip, 12, self.saddr.to_ne_bytes());
            store(ip, 16, self.daddr.to_ne_bytes());
        }
    }

    #[inline(always)]
    fn hop(&self, ip: &mut [u8]) {
        let Some(ip) = ip.first_chunk_mut::<IPV4_LEN>() else {
            return;
        };
        let ttl = load_u8(ip, 8).wrapping_sub(1);
        store(ip, 8, [ttl]);
        let check = self.ip.apply(load_u16(ip, 10));
        store(ip, 10, check.to_ne_bytes());
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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Rewrite6 {
    saddr: [u8; 16],
    daddr: [u8; 16],
    l4: L4Rewrite,
}

impl Rewrite6 {
    /// Translates packets with key `old` to the given addresses and ports, all as they lie in the
    /// packet.
    pub fn new(old: &Key6, saddr: [u64; 2], daddr: [u64; 2], ports: u32) -> Self {
        let addr = Delta::replace128(old.saddr, saddr).combine(Delta::replace128(old.daddr, daddr));
        let nat = (saddr, daddr) != (old.saddr, old.daddr);

        Rewrite6 {
            saddr: addr6(saddr),
            daddr: addr6(daddr),
            l4: L4Rewrite::new(old.ports, ports, addr, nat),
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
}

impl Rewrite for Rewrite6 {
    const HEADER_LEN: usize = IPV6_LEN;

    #[inline(always)]
    fn l4(&self) -> &L4Rewrite {
        &self.l4
    }

    #[inline(always)]
    fn addresses(&self, ip: &mut [u8]) {
        if let Some(ip) = ip.first_chunk_mut::<IPV6_LEN>() {
            store(ip, 8, self.saddr);
            store(ip, 24, self.daddr);
        }
    }

    #[inline(always)]
    fn hop(&self, ip: &mut [u8]) {
        if let Some(ip) = ip.first_chunk_mut::<IPV6_LEN>() {
            let hop_limit = load_u8(ip, 7).wrapping_sub(1);
            store(ip, 7, [hop_limit]);
        }
    }
}

/// Rewrites a packet that [`Parse::parse`](crate::parse::Parse::parse) accepted and whose key is the
/// one `rewrite` was made with. `hdr` starts at the network header and is writable for
/// [`Rewrite::writes`] bytes.
///
/// # Errors
///
/// [`MissReason::Truncated`] if `hdr` is too short; nothing has been written then.
#[inline(always)]
pub fn apply<R: Rewrite>(
    hdr: &mut [u8],
    proto: L4Proto,
    rewrite: &R,
    csum: Csum,
) -> Result<(), Miss> {
    let Some((ip, l4)) = hdr.split_at_mut_checked(R::HEADER_LEN) else {
        return Err(MissReason::Truncated.into());
    };

    if rewrite.is_nat() {
        // First, because it may fail.
        transport(l4, proto, rewrite.l4(), csum)?;
        rewrite.addresses(ip);
    }
    rewrite.hop(ip);
    Ok(())
}

/// Rewrites a packet that [`Parse::parse_any`](crate::parse::Parse::parse_any) accepted as `packet`;
/// otherwise as [`apply`].
///
/// # Errors
///
/// [`MissReason::Truncated`] if `hdr` is too short; nothing has been written then.
#[inline(always)]
pub fn apply_any<K, R: Rewrite>(
    hdr: &mut [u8],
    packet: &Packet<K>,
    rewrite: &R,
    csum: Csum,
) -> Result<(), Miss> {
    match packet.proto {
        L4Proto::Tcp | L4Proto::Udp if usize::from(packet.thoff) == R::HEADER_LEN => {
            apply(hdr, packet.proto, rewrite, csum)
        }
        _ => other(hdr, packet, rewrite, csum),
    }
}

#[inline(never)]
fn other<K, R: Rewrite>(
    hdr: &mut [u8],
    packet: &Packet<K>,
    rewrite: &R,
    csum: Csum,
) -> Result<(), Miss> {
    let Some((ip, rest)) = hdr.split_at_mut_checked(R::HEADER_LEN) else {
        return Err(MissReason::Truncated.into());
    };

    if rewrite.is_nat() {
        let Some(l4) = rest.get_mut(usize::from(packet.thoff).wrapping_sub(R::HEADER_LEN)..) else {
            return Err(MissReason::Truncated.into());
        };
        let change = rewrite.l4();

        // First, because it may fail.
        match packet.proto {
            L4Proto::Tcp | L4Proto::Udp => transport(l4, packet.proto, change, csum)?,
            L4Proto::Sctp => {
                rewrite_other::sctp(l4, packet.segment_len() as u16, change.ports, csum)?;
            }
            L4Proto::Icmp | L4Proto::Icmpv6 => {
                rewrite_other::icmp(l4, change.ports, change.addr, change.full, csum)?;
            }
            L4Proto::Gre => rewrite_other::gre(l4, change.ports)?,
            // Nothing in ESP depends on the addresses. AH does not survive translation, here or in
            // the stack.
            L4Proto::Esp | L4Proto::Ah => (),
        }
        rewrite.addresses(ip);
    }
    rewrite.hop(ip);
    Ok(())
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
fn transport(l4: &mut [u8], proto: L4Proto, change: &L4Rewrite, csum: Csum) -> Result<(), Miss> {
    let L4Rewrite {
        ports, addr, full, ..
    } = *change;

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
