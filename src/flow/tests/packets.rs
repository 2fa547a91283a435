// SPDX-License-Identifier: GPL-2.0

//! Parsing and rewriting, compared with plain implementations over generated packets.

#![cfg(not(loom))]

mod common;

use common::{
    naive::{
        self,
        Facts, //
    },
    port, //
};
use nft_flow::{
    key::L4Proto,
    parse::{
        self,
        Miss,
        Packet4,
        Packet6, //
    },
    reason::MissReason,
    rewrite::{
        apply4,
        apply6,
        set_dscp4,
        set_dscp6,
        Csum,
        Rewrite4,
        Rewrite6, //
    },
};
use proptest::{
    collection::vec,
    prelude::*, //
};

/// A right packet, header by header, with random content and some padding behind it.
fn packet(version: u8) -> impl Strategy<Value = Vec<u8>> {
    (
        any::<bool>(),
        any::<[u8; 40]>(),
        any::<[u8; 20]>(),
        vec(any::<u8>(), 0..90),
        0_usize..20,
        2_u8..,
    )
        .prop_map(move |(tcp, ip, l4, data, padding, ttl)| {
            let (thoff, l4h) = (if version == 4 { 20 } else { 40 }, if tcp { 20 } else { 8 });
            let mut packet = ip[..thoff].to_vec();
            packet.extend(&l4[..l4h]);
            packet.extend(&data);
            let len = packet.len();
            let be = |n: usize| (n as u16).to_be_bytes();
            let proto = if tcp { 6 } else { 17 };
            if version == 4 {
                packet[0] = 0x45;
                packet[2..4].copy_from_slice(&be(len));
                packet[6] &= 0x40;
                packet[7] = 0;
                packet[8..10].copy_from_slice(&[ttl, proto]);
            } else {
                packet[0] = 0x60 | packet[0] & 15;
                packet[4..6].copy_from_slice(&be(len - 40));
                packet[6..8].copy_from_slice(&[proto, ttl]);
            }
            if tcp {
                packet[thoff + 12] = 0x50;
            } else {
                packet[thoff + 4..thoff + 6].copy_from_slice(&be(len - thoff));
            }
            let facts = Facts {
                saddr: vec![],
                daddr: vec![],
                ports: [0; 4],
                proto,
                thoff,
                len,
                tcp_flags: 0,
                seqs: None,
            };
            naive::fill_checksums(&mut packet, &facts, Some(false));
            packet.resize(len + padding, 0xee);
            packet
        })
}

/// A packet with a few bytes changed, cut somewhere, and linear up to somewhere.
fn mangled(version: u8) -> impl Strategy<Value = (Vec<u8>, usize)> {
    let interesting = prop_oneof![
        any::<u8>(),
        prop::sample::select(vec![
            0, 1, 4, 5, 6, 17, 20, 28, 40, 44, 59, 0x45, 0x46, 0x50
        ]),
    ];
    (
        packet(version),
        vec((0_usize..62, interesting), 0..3),
        any::<bool>(),
        prop_oneof![2 => Just(200_usize), 1 => 0_usize..80],
        prop_oneof![2 => Just(200_usize), 1 => 0_usize..80],
    )
        .prop_map(|(mut packet, changes, fix, cut, linear)| {
            for (at, value) in changes {
                if let Some(byte) = packet.get_mut(at) {
                    *byte = value;
                }
            }
            if fix && packet[0] >> 4 == 4 {
                packet[10..12].fill(0);
                let check = naive::checksum(&[&packet[..20]]);
                packet[10..12].copy_from_slice(&check.to_be_bytes());
            }
            packet.truncate(cut);
            let linear = linear.min(packet.len());
            (packet, linear)
        })
}

fn facts4(p: Packet4) -> Facts {
    assert_eq!(p.key.port.port(), port());
    assert_eq!(p.key.port.proto(), p.proto.number());
    Facts {
        saddr: p.key.saddr.to_ne_bytes().to_vec(),
        daddr: p.key.daddr.to_ne_bytes().to_vec(),
        ports: p.key.ports.to_ne_bytes(),
        proto: p.proto.number(),
        thoff: p.thoff.into(),
        len: p.len as usize,
        tcp_flags: p.tcp_flags,
        seqs: (p.proto.number() == 6).then(|| (p.seq, p.seq_end())),
    }
}

fn facts6(p: Packet6) -> Facts {
    assert_eq!(p.key.port.port(), port());
    assert_eq!(p.key.port.proto(), p.proto.number());
    let bytes = |words: [u64; 2]| words.iter().flat_map(|w| w.to_ne_bytes()).collect();
    Facts {
        saddr: bytes(p.key.saddr),
        daddr: bytes(p.key.daddr),
        ports: p.key.ports.to_ne_bytes(),
        proto: p.proto.number(),
        thoff: p.thoff.into(),
        len: p.len as usize,
        tcp_flags: p.tcp_flags,
        seqs: (p.proto.number() == 6).then(|| (p.seq, p.seq_end())),
    }
}

fn parse(version: u8, hdr: &[u8], skb_len: usize) -> Result<Facts, Miss> {
    match version {
        4 => parse::ipv4(hdr, skb_len, port()).map(facts4),
        _ => parse::ipv6(hdr, skb_len, port()).map(facts6),
    }
}

fn words(bytes: &[u8]) -> [u64; 2] {
    let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
    [word(0), word(8)]
}

/// Rewrites `packet` to `new`, IPv6 addresses of which IPv4 uses the first bytes, and ports.
fn rewrite(
    version: u8,
    packet: &mut [u8],
    (saddr, daddr, ports): (&[u8], &[u8], [u8; 4]),
    csum: Csum,
) -> Result<(), Miss> {
    let ports = u32::from_ne_bytes(ports);
    let word = |bytes: &[u8]| u32::from_ne_bytes(bytes[..4].try_into().unwrap());
    if version == 4 {
        let p = parse::ipv4(packet, packet.len(), port())?;
        let r = Rewrite4::new(&p.key, word(saddr), word(daddr), ports);
        apply4(packet, p.proto, &r, csum)
    } else {
        let p = parse::ipv6(packet, packet.len(), port())?;
        let r = Rewrite6::new(&p.key, words(saddr), words(daddr), ports);
        apply6(packet, p.proto, &r, csum)
    }
}

/// The same by hand, with checksums from scratch.
fn rewrite_naively(
    version: u8,
    packet: &mut [u8],
    (saddr, daddr, ports): (&[u8], &[u8], [u8; 4]),
    partial: Option<bool>,
) {
    let facts = naive::classify(version, packet, packet.len()).unwrap();
    if version == 4 {
        packet[12..16].copy_from_slice(&saddr[..4]);
        packet[16..20].copy_from_slice(&daddr[..4]);
        packet[8] -= 1;
    } else {
        packet[8..24].copy_from_slice(saddr);
        packet[24..40].copy_from_slice(daddr);
        packet[7] -= 1;
    }
    packet[facts.thoff..facts.thoff + 4].copy_from_slice(&ports);
    naive::fill_checksums(packet, &facts, partial);
}

fn version() -> impl Strategy<Value = u8> {
    prop_oneof![Just(4_u8), Just(6_u8)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn parse_takes_any_bytes(
        version in version(),
        packet in vec(any::<u8>(), 0..100),
        linear in 0_usize..100,
    ) {
        let linear = linear.min(packet.len());
        prop_assert_eq!(
            parse(version, &packet[..linear], packet.len()),
            naive::classify(version, &packet, linear)
        );
    }

    #[test]
    fn parse_agrees((version, (packet, linear)) in version().prop_flat_map(|v| (Just(v), mangled(v)))) {
        let got = parse(version, &packet[..linear], packet.len());
        prop_assert_eq!(&got, &naive::classify(version, &packet, linear));

        if let Err(Miss::NeedPull(n)) = got {
            // What is asked for helps, and at most two rounds are needed.
            prop_assert!(n as usize > linear && n as usize <= packet.len());
            let again = parse(version, &packet[..n as usize], packet.len());
            if let Err(Miss::NeedPull(n)) = again {
                let last = parse(version, &packet[..n as usize], packet.len());
                prop_assert!(!matches!(last, Err(Miss::NeedPull(_))));
            }
        }
    }

    #[test]
    fn parse_accepts_right_packets((version, packet) in version().prop_flat_map(|v| (Just(v), packet(v)))) {
        prop_assert!(parse(version, &packet, packet.len()).is_ok());
        // Nonsense from the caller is no reason to panic.
        let _ = parse(version, &packet, 10);
        let _ = parse(version, &packet, usize::MAX);
    }

    #[test]
    fn rewrite_agrees(
        (version, packet) in version().prop_flat_map(|v| (Just(v), packet(v))),
        saddr in any::<[u8; 16]>(),
        daddr in any::<[u8; 16]>(),
        ports in any::<[u8; 4]>(),
        mode in 0..3,
    ) {
        let facts = naive::classify(version, &packet, packet.len()).unwrap();
        let (csum, partial) = match mode {
            0 => (Csum::Full, Some(false)),
            1 => (Csum::Partial, Some(true)),
            // UDP without a checksum; there is no such thing for TCP.
            _ if facts.proto == 17 => (Csum::Full, None),
            _ => (Csum::Full, Some(false)),
        };
        let mut original = packet;
        naive::fill_checksums(&mut original, &facts, partial);

        let (mut got, mut expected) = (original.clone(), original.clone());
        rewrite(version, &mut got, (&saddr, &daddr, ports), csum).unwrap();
        rewrite_naively(version, &mut expected, (&saddr, &daddr, ports), partial);
        prop_assert_eq!(&got, &expected);

        // And back again: all is as it was but the TTL.
        let ttl = if version == 4 { 8 } else { 7 };
        if got[ttl] > 1 {
            rewrite(version, &mut got, (&facts.saddr, &facts.daddr, facts.ports), csum).unwrap();
            prop_assert_eq!(got[ttl], original[ttl] - 2);
            got[ttl] = original[ttl];
            naive::fill_checksums(&mut original, &facts, partial);
            naive::fill_checksums(&mut expected, &facts, partial);
            if version == 4 {
                prop_assert_eq!(naive::checksum(&[&got[..20]]), !naive::sum(&[&[2, 0]]));
                got[10..12].copy_from_slice(&original[10..12]);
            }
            prop_assert_eq!(&got, &original);
        }
    }

    #[test]
    fn dscp(
        (version, packet) in version().prop_flat_map(|v| (Just(v), packet(v))),
        before in any::<u8>(),
        dscp in any::<u8>(),
    ) {
        // By way of another one: the first sets the field of a packet that had none.
        let set = |packet: &mut [u8], field: u8| {
            if version == 4 {
                packet[1] = field;
                packet[10..12].fill(0);
                let check = naive::checksum(&[&packet[..20]]);
                packet[10..12].copy_from_slice(&check.to_be_bytes());
            } else {
                packet[0] = 0x60 | field >> 4;
                packet[1] = packet[1] & 0x0f | field << 4;
            }
        };
        let (mut got, mut expected) = (packet.clone(), packet);
        set(&mut got, before);
        set(&mut expected, before & 3 | dscp & 0xfc);
        if version == 4 {
            set_dscp4(&mut got, dscp);
            prop_assert_eq!(naive::checksum(&[&got[..20]]), 0);
            // Zero has two representations.
            got[10..12].copy_from_slice(&expected[10..12]);
        } else {
            set_dscp6(&mut got, dscp);
        }
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn identity_writes_the_network_header_only(
        (version, mut packet) in version().prop_flat_map(|v| (Just(v), packet(v))),
        wrong in any::<[u8; 2]>(),
    ) {
        let facts = naive::classify(version, &packet, packet.len()).unwrap();
        let at = naive::check_at(&facts);
        packet[at..at + 2].copy_from_slice(&wrong);
        let mut got = packet.clone();
        // Only the network header is there to be written.
        let header = &mut got[..facts.thoff];
        let proto = L4Proto::from_number(facts.proto).unwrap();
        if version == 4 {
            let key = parse::ipv4(&packet, packet.len(), port()).unwrap().key;
            let r = Rewrite4::identity(&key);
            prop_assert!(!r.is_nat());
            prop_assert_eq!(r.writes(proto), 20);
            apply4(header, proto, &r, Csum::Full).unwrap();
            packet[8] -= 1;
            packet[10..12].fill(0);
            let check = naive::checksum(&[&packet[..20]]);
            packet[10..12].copy_from_slice(&check.to_be_bytes());
        } else {
            let key = parse::ipv6(&packet, packet.len(), port()).unwrap().key;
            let r = Rewrite6::identity(&key);
            prop_assert!(!r.is_nat());
            prop_assert_eq!(r.writes(proto), 40);
            apply6(header, proto, &r, Csum::Full).unwrap();
            packet[7] -= 1;
        }
        prop_assert_eq!(got, packet);
    }

    #[test]
    fn a_wrong_checksum_stays_wrong(
        (version, mut packet) in version().prop_flat_map(|v| (Just(v), packet(v))),
        saddr in any::<[u8; 16]>(),
        daddr in any::<[u8; 16]>(),
        ports in any::<[u8; 4]>(),
        error in 1_u16..0xffff,
    ) {
        let facts = naive::classify(version, &packet, packet.len()).unwrap();
        let at = naive::check_at(&facts);
        let check = naive::sum(&[&packet[at..at + 2], &error.to_be_bytes()]);
        prop_assume!(check != 0 || facts.proto == 6);
        packet[at..at + 2].copy_from_slice(&check.to_be_bytes());
        rewrite(version, &mut packet, (&saddr, &daddr, ports), Csum::Full).unwrap();
        let pseudo = naive::pseudo_header(&packet, &facts);
        prop_assert_eq!(naive::sum(&[&pseudo, &packet[facts.thoff..facts.len]]), error);
    }

    #[test]
    fn too_short_writes_nothing(
        (version, packet) in version().prop_flat_map(|v| (Just(v), packet(v))),
        len in 0_usize..60,
    ) {
        let facts = naive::classify(version, &packet, packet.len()).unwrap();
        let proto = L4Proto::from_number(facts.proto).unwrap();
        let need = facts.thoff + proto.header_len() as usize;
        let mut short = packet[..len.min(need - 1)].to_vec();
        let before = short.clone();
        let result = if version == 4 {
            let key = parse::ipv4(&packet, packet.len(), port()).unwrap().key;
            let r = Rewrite4::new(&key, !key.saddr, key.daddr, key.ports);
            prop_assert_eq!(r.writes(proto) as usize, need);
            apply4(&mut short, proto, &r, Csum::Full)
        } else {
            let key = parse::ipv6(&packet, packet.len(), port()).unwrap().key;
            let r = Rewrite6::new(&key, [0; 2], [1; 2], !key.ports);
            prop_assert_eq!(r.writes(proto) as usize, need);
            apply6(&mut short, proto, &r, Csum::Full)
        };
        prop_assert!(result.is_err());
        prop_assert_eq!(short, before);
    }
}

/// A right TCP packet without data.
fn plain(version: u8) -> Vec<u8> {
    let mut packet = vec![1; if version == 4 { 40 } else { 60 }];
    let thoff = packet.len() - 20;
    if version == 4 {
        packet[..12].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    } else {
        packet[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 20, 6, 64]);
    }
    packet[thoff + 12..thoff + 14].copy_from_slice(&[0x50, 0x10]);
    fix(&mut packet);
    packet
}

fn fix(packet: &mut [u8]) {
    if packet[0] >> 4 == 4 {
        packet[10..12].fill(0);
        let check = naive::checksum(&[&packet[..20]]);
        packet[10..12].copy_from_slice(&check.to_be_bytes());
    }
}

/// Every reason that the parser has, by the smallest change to a right packet.
#[test]
fn every_reason() {
    use MissReason::*;
    let changes: &[(u8, usize, u8, MissReason)] = &[
        (4, 0, 0x65, BadVersion),
        (4, 0, 0x44, Truncated),
        (4, 0, 0x46, IpOptions),
        (4, 3, 19, Truncated),
        (4, 3, 39, Truncated),
        (4, 3, 41, Truncated),
        (4, 6, 0x20, Fragment),
        (4, 6, 0x01, Fragment),
        (4, 7, 0x01, Fragment),
        (4, 8, 0, TtlExpiring),
        (4, 8, 1, TtlExpiring),
        (4, 9, 1, L4Proto),
        (4, 9, 47, L4Proto),
        (4, 32, 0x4f, Truncated),
        (4, 32, 0x60, Truncated),
        (6, 0, 0x45, BadVersion),
        (6, 5, 0, Jumbogram),
        (6, 5, 19, Truncated),
        (6, 5, 21, Truncated),
        (6, 6, 0, ExtHeader),
        (6, 6, 44, ExtHeader),
        (6, 6, 58, L4Proto),
        (6, 7, 1, TtlExpiring),
        (6, 52, 0x40, Truncated),
    ];
    for (version, at, value, reason) in changes {
        let mut packet = plain(*version);
        assert!(parse(*version, &packet, packet.len()).is_ok());
        packet[*at] = *value;
        if *at < 20 {
            fix(&mut packet);
        }
        let got = parse(*version, &packet, packet.len());
        assert_eq!(
            got,
            Err(Miss::Reason(*reason)),
            "{version}: byte {at} = {value}"
        );
    }

    let mut packet = plain(4);
    packet[10] ^= 1;
    assert_eq!(parse(4, &packet, 40), Err(BadChecksum.into()));
    // Do not fragment, and reserved bits, are nobody's business here.
    let mut packet = plain(4);
    packet[6] = 0xc0;
    fix(&mut packet);
    assert!(parse(4, &packet, 40).is_ok());
}
