// SPDX-License-Identifier: GPL-2.0

//! What lies around an IP packet: VLAN tags, a PPPoE session, an outer IP header.
//!
//! Packets with encapsulation are looked up in two steps: the ingress path gives a number, which
//! takes the place of the interface in the key of the flow. An ingress path is a [`Key6`] itself,
//! so that the same table holds it.

use crate::bytes::{
    load_be16,
    load_u64,
    load_u8, //
};
use crate::key::{
    IngressId,
    IngressProto, //
    Key6,
};
use crate::packet::{
    Miss,
    IPV4_LEN,
    IPV6_LEN, //
};
use crate::reason::MissReason;

/// EtherTypes, in the order of the CPU (include/uapi/linux/if_ether.h).
pub mod ethertype {
    /// IPv4.
    pub const IP: u16 = 0x0800;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// A customer's VLAN tag, IEEE 802.1Q.
    pub const VLAN: u16 = 0x8100;
    /// A provider's VLAN tag, IEEE 802.1ad.
    pub const QINQ: u16 = 0x88a8;
    /// A PPPoE session, RFC 2516.
    pub const PPPOE: u16 = 0x8864;
}

/// The most encapsulations that an ingress path has: QinQ and PPPoE.
pub const MAX: usize = 3;

/// The VLAN identifier in a tag control word; priority and drop eligibility tell no flow from
/// another.
const VLAN_VID: u16 = 0x0fff;

/// One encapsulation: EtherType and VLAN identifier or PPPoE session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Encap(u32);

impl Encap {
    /// No encapsulation.
    pub const NONE: Self = Encap(0);

    /// An encapsulation by its EtherType and its identifier, in the order of the CPU.
    pub const fn new(ethertype: u16, id: u16) -> Self {
        Encap(((ethertype as u32) << 16) | id as u32)
    }

    /// A VLAN tag; `tci` with or without priority bits.
    #[inline]
    pub const fn vlan(ethertype: u16, tci: u16) -> Self {
        Self::new(ethertype, tci & VLAN_VID)
    }

    /// Its EtherType, in the order of the CPU.
    pub const fn ethertype(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The VLAN identifier or PPPoE session.
    pub const fn id(self) -> u16 {
        self.0 as u16
    }
}

/// The encapsulations of a frame, outermost first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Encaps {
    list: [Encap; MAX],
    len: usize,
}

impl Encaps {
    /// Their size, in bytes.
    pub fn size(&self) -> usize {
        self.list
            .iter()
            .take(self.len)
            .map(|encap| match encap.ethertype() {
                ethertype::PPPOE => 8,
                _ => 4,
            })
            .sum()
    }

    /// Adds one inside of all others. False if there is no room.
    #[inline]
    pub fn push_inner(&mut self, encap: Encap) -> bool {
        let Some(place) = self.list.get_mut(self.len) else {
            return false;
        };
        *place = encap;
        self.len = self.len.wrapping_add(1);
        true
    }

    /// Adds one around all others. False if there is no room.
    pub fn push_outer(&mut self, encap: Encap) -> bool {
        let [a, b, c] = self.list;
        if c != Encap::NONE {
            return false;
        }
        self.list = [encap, a, b];
        self.len = self.len.wrapping_add(1);
        true
    }

    /// Takes the outermost one off. False if there is none.
    pub fn pop_outer(&mut self) -> bool {
        let [a, b, c] = self.list;
        if a == Encap::NONE {
            return false;
        }
        self.list = [b, c, Encap::NONE];
        self.len = self.len.wrapping_sub(1);
        true
    }

    /// All of them, outermost first.
    pub fn as_slice(&self) -> &[Encap] {
        self.list.get(..self.len).unwrap_or(&[])
    }

    /// Whether there is no encapsulation.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is around frames of which `key` is the [`Encaps::key`].
    pub fn of_key(key: &Key6) -> Self {
        let [ab, c] = key.saddr;
        let list = [ab as u32, (ab >> 32) as u32, c as u32].map(Encap);

        Self {
            list,
            len: list.iter().filter(|&&encap| encap != Encap::NONE).count(),
        }
    }

    /// Whether they are those of a PPPoE session, which is one between two stations.
    pub fn has_session(&self) -> bool {
        self.as_slice()
            .iter()
            .any(|encap| encap.ethertype() == ethertype::PPPOE)
    }

    /// The key of frames with these encapsulations that enter by the interface `ifindex`; of a
    /// PPPoE session those of `peer`.
    #[inline]
    pub fn key(&self, ifindex: IngressId, peer: Option<[u8; 6]>) -> Key6 {
        let [a, b, c] = self.list;
        let [p, q, r, s, t, u] = peer.unwrap_or_default();
        Key6 {
            saddr: [u64::from(a.0) | (u64::from(b.0) << 32), u64::from(c.0)],
            daddr: [u64::from_le_bytes([p, q, r, s, t, u, 0, 0]), 0],
            ports: 0,
            ingress: IngressProto::raw_parts(0, ifindex),
        }
    }
}

/// An IP packet in its encapsulations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peeled {
    /// What was around it.
    pub encaps: Encaps,
    /// Where the IP header starts, in bytes.
    pub offset: usize,
    /// The EtherType of what starts there: IPv4 or IPv6.
    pub ethertype: u16,
    /// The most bytes that the packet has, as far as the encapsulations say.
    pub room: usize,
}

impl Peeled {
    /// Whether the IP packet, whose first eight bytes are these, is as long as it says: a PPPoE
    /// session cuts off what is behind its own length.
    pub fn fits(&self, ip: [[u8; 4]; 2]) -> bool {
        let [[_, _, a, b], [c, d, _, _]] = ip;

        match self.ethertype {
            ethertype::IP => usize::from(u16::from_be_bytes([a, b])) <= self.room,
            _ => usize::from(u16::from_be_bytes([c, d])).wrapping_add(IPV6_LEN) <= self.room,
        }
    }
}

/// Bytes of the headers of PPPoE and PPP (`PPPOE_SES_HLEN`).
pub const SESSION_LEN: u32 = 8;

/// A packet in a frame of a PPPoE session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionData {
    /// The session.
    pub id: u16,
    /// The EtherType of the packet: IPv4 or IPv6, in the order of the CPU.
    pub ethertype: u16,
}

/// Finds the IP packet in the frame of a PPPoE session that `hdr` starts with. The frame has `len` bytes. [`None`]
/// if it is something else, or does not fill the frame: [`peel`] tells why.
#[inline(always)]
pub fn session_data(hdr: &[u8], len: usize) -> Option<SessionData> {
    let header = hdr.first_chunk::<8>()?;
    let ethertype = match load_be16(header, 6) {
        0x0021 => ethertype::IP,
        0x0057 => ethertype::IPV6,
        _ => return None,
    };

    // Version 1, type 1, code 0; a length from behind it on, the protocol included.
    (load_be16(header, 0) == 0x1100 && usize::from(load_be16(header, 4)).wrapping_add(6) == len)
        .then_some(SessionData {
            id: load_be16(header, 2),
            ethertype,
        })
}

/// Finds the IP packet in a frame. `tag` is the outer VLAN tag that the device has taken off
/// (EtherType and control word), `ethertype` says what `hdr` starts with, `len` is the length of
/// the packet in bytes, `hdr` the linear part of it. All numbers are in the order of the CPU.
///
/// # Errors
///
/// [`MissReason::Encap`] for what cannot be looked into, [`MissReason::Truncated`] (also if a PPPoE
/// header says that there is more), and [`Miss::NeedPull`] as in [`crate::parse`].
pub fn peel(
    tag: Option<(u16, u16)>,
    mut ethertype: u16,
    hdr: &[u8],
    len: usize,
) -> Result<Peeled, Miss> {
    let mut encaps = Encaps::default();
    let mut offset = 0usize;
    let mut end = len;

    // VLAN 0 is none: the tag carries a priority only (IEEE 802.1Q, 9.6).
    if let Some((proto, tci)) = tag.filter(|(_, tci)| tci & VLAN_VID != 0) {
        encaps.push_inner(Encap::vlan(proto, tci));
    }
    loop {
        let size = match ethertype {
            ethertype::IP | ethertype::IPV6 => {
                return Ok(Peeled {
                    encaps,
                    offset,
                    ethertype,
                    room: end.wrapping_sub(offset),
                })
            }
            ethertype::VLAN | ethertype::QINQ => 4,
            ethertype::PPPOE => 8,
            _ => return Err(MissReason::Encap.into()),
        };
        let next = offset.wrapping_add(size);
        let Some(header) = hdr.get(offset..next) else {
            return Err(match len < next || len <= hdr.len() {
                true => MissReason::Truncated.into(),
                false => Miss::NeedPull(next as u32),
            });
        };

        let encap = if let Some(vlan) = header.first_chunk::<4>().filter(|_| size == 4) {
            let encap = Encap::vlan(ethertype, load_be16(vlan, 0));
            ethertype = load_be16(vlan, 2);
            encap
        } else if let Some(pppoe) = header.first_chunk::<8>() {
            // Version 1, type 1, code 0: session data.
            if load_be16(pppoe, 0) != 0x1100 {
                return Err(MissReason::Encap.into());
            }
            // From behind this length on, the protocol included.
            end = offset
                .wrapping_add(6)
                .wrapping_add(load_be16(pppoe, 4).into());
            if end < next || end > len {
                return Err(MissReason::Truncated.into());
            }
            let encap = Encap::new(ethertype, load_be16(pppoe, 2));
            ethertype = match load_be16(pppoe, 6) {
                0x0021 => ethertype::IP,
                0x0057 => ethertype::IPV6,
                _ => return Err(MissReason::Encap.into()),
            };
            encap
        } else {
            return Err(MissReason::Encap.into());
        };
        if !encaps.push_inner(encap) {
            return Err(MissReason::Encap.into());
        }
        offset = next;
    }
}

/// IP protocol numbers of IP in IP.
const IPPROTO_IPIP: u8 = 4;
const IPPROTO_IPV6: u8 = 41;

/// An outer IP header, and what is in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tunnelled {
    /// The key of the tunnel, for the port that the outer packet has.
    pub key: Key6,
    /// The size of the outer header in bytes.
    pub size: usize,
    /// The EtherType of the inner packet.
    pub ethertype: u16,
    /// The length of the outer packet in bytes.
    pub len: u32,
}

/// The key of a tunnel whose packets arrive with these outer addresses (as they lie in the packet;
/// an IPv4 address in the first four bytes) and IP protocol `proto`, and enter by `ingress`.
pub fn tunnel_key(saddr: [u64; 2], daddr: [u64; 2], proto: u8, ingress: IngressId) -> Key6 {
    Key6 {
        saddr,
        daddr,
        // Never zero, unlike that of a frame.
        ports: u32::from(proto),
        ingress: IngressProto::raw_parts(0, ingress),
    }
}

/// An IPv4 address as [`tunnel_key`] takes it.
pub const fn tunnel_addr4(addr: u32) -> [u64; 2] {
    [addr as u64, 0]
}

/// Parses the outer header of IP in IP. `ethertype` says of which version it is, `hdr` is the
/// linear part of the packet and `len` its length, both from the outer header on.
///
/// # Errors
///
/// [`MissReason::L4Proto`] if it is no such packet; otherwise as [`crate::parse`]. A packet that
/// met congestion on the way is left to the stack, which tells the inner packet (RFC 6040).
pub fn outer(
    ethertype: u16,
    hdr: &[u8],
    len: usize,
    ingress: IngressId,
) -> Result<Tunnelled, Miss> {
    const ECN_CE: u8 = 3;

    let (key, size, proto, total) = if ethertype == ethertype::IP {
        let Some(ip) = hdr.first_chunk::<IPV4_LEN>() else {
            return Err(MissReason::L4Proto.into());
        };
        let proto = load_u8(ip, 9);
        if load_u8(ip, 0) != 0x45 || !matches!(proto, IPPROTO_IPIP | IPPROTO_IPV6) {
            return Err(MissReason::L4Proto.into());
        }
        if load_be16(ip, 6) & 0x3fff != 0 {
            return Err(MissReason::Fragment.into());
        }
        if load_u8(ip, 1) & ECN_CE == ECN_CE {
            return Err(MissReason::Encap.into());
        }
        if !crate::checksum::ipv4_header_ok(ip) {
            return Err(MissReason::BadChecksum.into());
        }
        let addr = |at| tunnel_addr4(crate::bytes::load_u32(ip, at));
        let key = tunnel_key(addr(12), addr(16), proto, ingress);
        (key, IPV4_LEN, proto, usize::from(load_be16(ip, 2)))
    } else {
        let Some(ip) = hdr.first_chunk::<IPV6_LEN>() else {
            return Err(MissReason::L4Proto.into());
        };
        let proto = load_u8(ip, 6);
        if load_u8(ip, 0) >> 4 != 6 || !matches!(proto, IPPROTO_IPIP | IPPROTO_IPV6) {
            return Err(MissReason::L4Proto.into());
        }
        if (load_u8(ip, 1) >> 4) & ECN_CE == ECN_CE {
            return Err(MissReason::Encap.into());
        }
        let addr = |at: usize| [load_u64(ip, at), load_u64(ip, at.wrapping_add(8))];
        let key = tunnel_key(addr(8), addr(24), proto, ingress);
        let total = usize::from(load_be16(ip, 4)).wrapping_add(IPV6_LEN);
        (key, IPV6_LEN, proto, total)
    };
    if total <= size || total > len {
        return Err(MissReason::Truncated.into());
    }

    Ok(Tunnelled {
        key,
        size,
        ethertype: match proto {
            IPPROTO_IPIP => ethertype::IP,
            _ => ethertype::IPV6,
        },
        len: total as u32,
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn ingress() -> IngressId {
        IngressId::from_ifindex(5).unwrap()
    }

    #[test]
    fn plain() {
        let p = peel(None, ethertype::IP, &[0; 20], 20).unwrap();
        assert!(p.encaps.is_empty());
        assert_eq!((p.offset, p.ethertype), (0, ethertype::IP));
    }

    #[test]
    fn qinq_pppoe() {
        let hdr = [
            0xe0, 0x0a, 0x88, 0x64, // VLAN 10, priority 7
            0x11, 0, 0x12, 0x34, 0, 90, 0, 0x21, // session 0x1234, IPv4
        ];
        let p = peel(Some((ethertype::QINQ, 0x6064)), ethertype::VLAN, &hdr, 100).unwrap();
        let mut want = Encaps::default();
        assert!(want.push_outer(Encap::new(ethertype::PPPOE, 0x1234)));
        assert!(want.push_outer(Encap::new(ethertype::VLAN, 10)));
        assert!(want.push_outer(Encap::new(ethertype::QINQ, 0x64)));
        assert!(!want.push_outer(Encap::new(ethertype::VLAN, 1)));
        assert_eq!(p.encaps, want);
        assert_eq!((p.offset, p.ethertype), (12, ethertype::IP));
        assert_eq!(p.encaps.key(ingress(), None), want.key(ingress(), None));
        assert_eq!(p.room, 88);

        for n in 0..hdr.len() {
            let tag = Some((ethertype::QINQ, 0x64));
            match peel(tag, ethertype::VLAN, &hdr[..n], 100) {
                Err(Miss::NeedPull(need)) => assert!(need as usize > n),
                other => panic!("{other:?}"),
            }
            let short = peel(tag, ethertype::VLAN, &hdr[..n], n);
            assert_eq!(short, Err(MissReason::Truncated.into()));
        }
    }

    #[test]
    fn pppoe_length() {
        let hdr = |n: u16| {
            let [a, b] = n.to_be_bytes();
            [0x11, 0, 0, 1, a, b, 0, 0x21]
        };
        let of = |n, len| peel(None, ethertype::PPPOE, &hdr(n), len);
        let short = Err(MissReason::Truncated.into());

        // Header 6, protocol 2, packet 40.
        for n in [0, 1, 43, 44, 1000, 0xffff] {
            assert_eq!(of(n, 48), short);
        }
        let whole = of(42, 48).unwrap();
        assert_eq!((whole.offset, whole.room), (8, 40));
        // Padded on the way.
        let padded = of(42, 64).unwrap();
        assert_eq!(padded.room, 40);
        assert!(padded.fits([[0x45, 0, 0, 40], [0; 4]]));
        assert!(!padded.fits([[0x45, 0, 0, 41], [0; 4]]));
        assert!(!of(2, 64).unwrap().fits([[0x45, 0, 0, 20], [0; 4]]));
        let v6 = Peeled {
            ethertype: ethertype::IPV6,
            ..padded
        };
        assert!(v6.fits([[0x60, 0, 0, 0], [0, 0, 17, 64]]));
        assert!(!v6.fits([[0x60, 0, 0, 0], [0, 1, 17, 64]]));
    }

    #[test]
    fn short_cut_agrees() {
        let words = [
            0u16, 1, 0x11, 0x0021, 0x0057, 0x1100, 0x1101, 0x2100, 0xc021, 42, 44, 0xffff,
        ];
        for first in words {
            for n in [0, 1, 2, 41, 42, 43, 44, 0xfffa, 0xffff] {
                for proto in words {
                    let header: [[u8; 2]; 4] = [first, 0x1234, n, proto].map(u16::to_be_bytes);
                    for len in [0, 7, 8, 47, 48, 49, 50, 64, 0x10000] {
                        let header = &header.as_flattened()[..len.min(8)];
                        let Some(data) = session_data(header, len) else {
                            continue;
                        };
                        let p = peel(None, ethertype::PPPOE, header, len).unwrap();
                        assert_eq!((p.offset, p.room), (8, len - 8));
                        assert_eq!(p.ethertype, data.ethertype);
                        assert_eq!(p.encaps.as_slice(), [Encap::new(ethertype::PPPOE, data.id)]);
                    }
                }
            }
        }
        let whole = [0x11, 0, 0, 7, 0, 42, 0, 0x57];
        let data = session_data(&whole, 48).unwrap();
        assert_eq!((data.id, data.ethertype), (7, ethertype::IPV6));
        assert_eq!(session_data(&whole, 49), None);
        assert_eq!(session_data(&whole[..7], 48), None);
    }

    #[test]
    fn session_peer() {
        let mut e = Encaps::default();
        assert!(!e.has_session());
        assert!(e.push_outer(Encap::new(ethertype::PPPOE, 7)));
        assert!(e.push_outer(Encap::vlan(ethertype::VLAN, 5)));
        assert!(e.has_session());
        let [a, b] =
            [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]].map(|mac| e.key(ingress(), Some(mac)));
        assert_ne!(a, b);
        assert_eq!(Encaps::of_key(&a), e);
    }

    #[test]
    fn priority_tag() {
        let p = peel(Some((ethertype::VLAN, 0xa000)), ethertype::IP, &[0; 20], 20).unwrap();
        assert!(p.encaps.is_empty());
    }

    #[test]
    fn refused() {
        let lcp = [0x11, 0, 0, 1, 0, 4, 0xc0, 0x21];
        let encap = Err(MissReason::Encap.into());
        assert_eq!(peel(None, ethertype::PPPOE, &lcp, 60), encap);
        assert_eq!(peel(None, 0x0806, &lcp, 60), encap);
        let many = [0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 0x81, 0, 0, 4, 8, 0];
        assert_eq!(peel(None, ethertype::VLAN, &many, 60), encap);
    }

    #[test]
    fn pop() {
        let mut e = Encaps::default();
        assert!(!e.pop_outer());
        assert!(e.push_outer(Encap::vlan(ethertype::VLAN, 1)));
        assert!(e.push_outer(Encap::vlan(ethertype::QINQ, 2)));
        assert!(e.pop_outer());
        let mut want = Encaps::default();
        assert!(want.push_inner(Encap::vlan(ethertype::VLAN, 1)));
        assert_eq!(e, want);
    }

    #[test]
    fn six_in_four() {
        let mut ip = [0u8; 60];
        ip[0] = 0x45;
        ip[3] = 60;
        ip[8] = 64;
        ip[9] = IPPROTO_IPV6;
        let sum: u32 = ip[..20]
            .chunks(2)
            .map(|w| (u32::from(w[0]) << 8) | u32::from(w[1]))
            .sum();
        ip[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
        let t = outer(ethertype::IP, &ip, 60, ingress()).unwrap();
        assert_eq!((t.size, t.ethertype, t.len), (20, ethertype::IPV6, 60));
        ip[1] = 3;
        assert_eq!(
            outer(ethertype::IP, &ip, 60, ingress()),
            Err(MissReason::Encap.into())
        );
    }
}
