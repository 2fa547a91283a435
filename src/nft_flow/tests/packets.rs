// SPDX-License-Identifier: GPL-2.0

//! Parsing and rewriting, compared with plain implementations over generated packets.

#![cfg(not(loom))]

mod common;

use common::{
    ingress, //
    naive::{
        self,
        Facts, //
    },
};
use nft_flow::{
    key::{
        Key4,
        Key6,
        L4Proto, //
    },
    parse::{
        self,
        Miss,
        Packet4,
        Packet6,
        Parse, //
    },
    reason::MissReason,
    rewrite::{
        apply,
        apply_any,
        set_dscp4,
        set_dscp6,
        Csum,
        Rewrite,
        Rewrite4,
        Rewrite6, //
    },
};
use proptest::{
    collection::vec,
    prelude::*, //
};

/// A transport header of protocol `proto`, of its smallest size unless `long`, from random bytes.
fn transport(proto: u8, r: [u8; 20], long: bool) -> Vec<u8> {
    let r = |n: usize| r[..n].to_vec();
    match proto {
        6 => [r(12), vec![0x50], r(7)].concat(),
        17 => r(8),
        // An acknowledgement, then data.
        132 if long => [
            r(12),
            vec![3, 0, 0, 6, 1, 2, 0, 0],
            vec![0, 3, 0, 5, 9, 0, 0, 0],
        ]
        .concat(),
        132 => [r(12), vec![0, 3, 0, 4]].concat(),
        1 => [vec![if long { 8 } else { 0 }, 0], r(6)].concat(),
        58 => [vec![if long { 128 } else { 129 }, 0], r(6)].concat(),
        47 if long => [vec![0x30, 1, 0x88, 0x0b], r(2), vec![1, 2]].concat(),
        47 => vec![0x20, 0, 0x08, 0x00],
        51 => r(12),
        _ => r(8),
    }
}

/// A right packet, header by header, with random content and some padding behind it; `all`: of any
/// protocol that flows have, over IPv6 behind up to two headers of destination options.
fn packet(version: u8, all: bool) -> impl Strategy<Value = Vec<u8>> {
    let protos = match (all, version) {
        (false, _) => vec![6, 17],
        (true, 4) => vec![1, 6, 17, 47, 50, 51, 132],
        (true, _) => vec![6, 17, 47, 50, 58, 132],
    };
    let options = if all && version == 6 { 3_usize } else { 1 };
    (
        (prop::sample::select(protos), any::<bool>(), 0..options),
        any::<[u8; 40]>(),
        any::<[u8; 20]>(),
        vec(any::<u8>(), 0..90),
        0_usize..20,
        2_u8..,
    )
        .prop_map(
            move |((proto, long, options), ip, l4, data, padding, ttl)| {
                let iph = if version == 4 { 20 } else { 40 };
                let mut packet = ip[..iph].to_vec();
                for n in 0..options {
                    let next = if n + 1 == options { proto } else { 60 };
                    let units = (data.len() + n) % 4;
                    packet.extend([next, units as u8]);
                    packet.extend(vec![0xd0; 6 + 8 * units]);
                }
                let thoff = packet.len();
                packet.extend(transport(proto, l4, long));
                packet.extend(&data);
                let len = packet.len();
                let be = |n: usize| (n as u16).to_be_bytes();
                if version == 4 {
                    packet[0] = 0x45;
                    packet[2..4].copy_from_slice(&be(len));
                    packet[6] &= 0x40;
                    packet[7] = 0;
                    packet[8..10].copy_from_slice(&[ttl, proto]);
                } else {
                    packet[0] = 0x60 | packet[0] & 15;
                    packet[4..6].copy_from_slice(&be(len - 40));
                    packet[6..8].copy_from_slice(&[if options > 0 { 60 } else { proto }, ttl]);
                }
                if proto == 17 {
                    packet[thoff + 4..thoff + 6].copy_from_slice(&be(len - thoff));
                }
                let facts = Facts {
                    saddr: vec![],
                    daddr: vec![],
                    ports: [0; 4],
                    proto,
                    thoff,
                    ds_field: 0,
                    len,
                    tcp_flags: 0,
                    seqs: None,
                    control: false,
                };
                naive::fill_checksums(&mut packet, &facts, Some(false));
                packet.resize(len + padding, 0xee);
                packet
            },
        )
}

/// A packet with a few bytes changed, cut somewhere, and linear up to somewhere.
fn mangled(version: u8, all: bool) -> impl Strategy<Value = (Vec<u8>, usize)> {
    let interesting = prop_oneof![
        any::<u8>(),
        prop::sample::select(vec![
            0, 1, 2, 3, 4, 5, 6, 8, 17, 20, 28, 40, 44, 47, 50, 51, 58, 59, 60, 64, 0x45, 0x46,
            0x50, 128, 129, 132, 192
        ]),
    ];
    (
        packet(version, all),
        vec((0_usize..80, interesting), 0..3),
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
    assert_eq!(p.key.ingress.ingress(), ingress());
    assert_eq!(p.key.ingress.proto(), p.proto.number());
    Facts {
        saddr: p.key.saddr.to_ne_bytes().to_vec(),
        daddr: p.key.daddr.to_ne_bytes().to_vec(),
        ports: p.key.ports.to_ne_bytes(),
        proto: p.proto.number(),
        thoff: p.thoff.into(),
        ds_field: p.ds_field,
        len: p.len as usize,
        tcp_flags: p.tcp_flags,
        seqs: (p.proto.number() == 6).then(|| (p.seq, p.seq_end())),
        control: p.sctp_control,
    }
}

fn facts6(p: Packet6) -> Facts {
    assert_eq!(p.key.ingress.ingress(), ingress());
    assert_eq!(p.key.ingress.proto(), p.proto.number());
    let bytes = |words: [u64; 2]| words.iter().flat_map(|w| w.to_ne_bytes()).collect();
    Facts {
        saddr: bytes(p.key.saddr),
        daddr: bytes(p.key.daddr),
        ports: p.key.ports.to_ne_bytes(),
        proto: p.proto.number(),
        thoff: p.thoff.into(),
        ds_field: p.ds_field,
        len: p.len as usize,
        tcp_flags: p.tcp_flags,
        seqs: (p.proto.number() == 6).then(|| (p.seq, p.seq_end())),
        control: p.sctp_control,
    }
}

/// The whole packet is `packet`, of which `linear` bytes are linear.
fn parse(version: u8, all: bool, packet: &[u8], linear: usize) -> Result<Facts, Miss> {
    let (hdr, len) = (&packet[..linear], packet.len());
    let peek = |at: usize| packet.get(at..at + 4)?.try_into().ok();
    match (version, all) {
        (4, false) => parse::ipv4(hdr, len, ingress()).map(facts4),
        (4, true) => Key4::parse_any(hdr, len, ingress(), peek).map(facts4),
        (_, false) => parse::ipv6(hdr, len, ingress()).map(facts6),
        (_, true) => Key6::parse_any(hdr, len, ingress(), peek).map(facts6),
    }
}

fn any_ipv4(packet: &[u8]) -> Result<Packet4, Miss> {
    Key4::parse_any(packet, packet.len(), ingress(), |_| None)
}

fn any_ipv6(packet: &[u8]) -> Result<Packet6, Miss> {
    Key6::parse_any(packet, packet.len(), ingress(), |_| None)
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
        let p = any_ipv4(packet)?;
        let r = Rewrite4::new(&p.key, word(saddr), word(daddr), ports);
        let mut plain = packet.to_vec();
        apply_any(packet, &p, &r, csum)?;
        if matches!(p.proto, L4Proto::Tcp | L4Proto::Udp) {
            apply(&mut plain, p.proto, &r, csum)?;
            assert_eq!(plain, packet);
        }
    } else {
        let p = any_ipv6(packet)?;
        let r = Rewrite6::new(&p.key, words(saddr), words(daddr), ports);
        let mut plain = packet.to_vec();
        apply_any(packet, &p, &r, csum)?;
        if matches!(p.proto, L4Proto::Tcp | L4Proto::Udp) && p.thoff == 40 {
            apply(&mut plain, p.proto, &r, csum)?;
            assert_eq!(plain, packet);
        }
    }
    Ok(())
}

/// The same by hand, with checksums from scratch.
fn rewrite_naively(
    version: u8,
    packet: &mut [u8],
    (saddr, daddr, ports): (&[u8], &[u8], [u8; 4]),
    partial: Option<bool>,
) {
    let facts = naive::classify(version, packet, packet.len(), true).unwrap();
    if version == 4 {
        packet[12..16].copy_from_slice(&saddr[..4]);
        packet[16..20].copy_from_slice(&daddr[..4]);
        packet[8] -= 1;
    } else {
        packet[8..24].copy_from_slice(saddr);
        packet[24..40].copy_from_slice(daddr);
        packet[7] -= 1;
    }
    naive::set_ports(packet, &facts, ports);
    naive::fill_checksums(packet, &facts, partial);
}

fn version() -> impl Strategy<Value = u8> {
    prop_oneof![Just(4_u8), Just(6_u8)]
}

/// A version, whether all protocols, and a right packet like that.
fn right() -> impl Strategy<Value = (u8, bool, Vec<u8>)> {
    (version(), any::<bool>()).prop_flat_map(|(v, all)| (Just(v), Just(all), packet(v, all)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn parse_takes_any_bytes(
        version in version(),
        all in any::<bool>(),
        packet in vec(any::<u8>(), 0..100),
        linear in 0_usize..100,
    ) {
        let linear = linear.min(packet.len());
        prop_assert_eq!(
            parse(version, all, &packet, linear),
            naive::classify(version, &packet, linear, all)
        );
    }

    #[test]
    fn parse_agrees(
        (version, all, (packet, linear)) in (version(), any::<bool>())
            .prop_flat_map(|(v, all)| (Just(v), Just(all), mangled(v, all))),
    ) {
        let got = parse(version, all, &packet, linear);
        prop_assert_eq!(&got, &naive::classify(version, &packet, linear, all));

        // What is asked for helps, and soon there is enough.
        let (mut got, mut linear, mut rounds) = (got, linear, 0);
        while let Err(Miss::NeedPull(n)) = got {
            prop_assert!(n as usize > linear && n as usize <= packet.len());
            linear = n as usize;
            got = parse(version, all, &packet, linear);
            rounds += 1;
        }
        let enough = if all { 8 } else { 2 };
        prop_assert!(rounds <= enough);
    }

    #[test]
    fn parse_accepts_right_packets((version, all, packet) in right()) {
        prop_assert!(parse(version, all, &packet, packet.len()).is_ok());
        // Nonsense from the caller is no reason to panic.
        for len in [10, usize::MAX] {
            let _ = Key4::parse_any(&packet, len, ingress(), |_| None);
            let _ = Key6::parse_any(&packet, len, ingress(), |_| None);
        }
    }

    #[test]
    fn any_is_plain_for_plain_packets(
        (version, (packet, linear)) in version().prop_flat_map(|v| (Just(v), mangled(v, false))),
    ) {
        let plain = parse(version, false, &packet, linear);
        if !matches!(plain, Err(Miss::Reason(MissReason::L4Proto | MissReason::ExtHeader))) {
            prop_assert_eq!(parse(version, true, &packet, linear), plain);
        }
    }

    #[test]
    fn rewrite_agrees(
        (version, _, packet) in right(),
        saddr in any::<[u8; 16]>(),
        daddr in any::<[u8; 16]>(),
        wish in any::<[u8; 4]>(),
        mode in 0..3,
    ) {
        let facts = naive::classify(version, &packet, packet.len(), true).unwrap();
        let (csum, partial) = match mode {
            0 => (Csum::Full, Some(false)),
            // No device computes that of ICMP for IPv4.
            1 if facts.proto != 1 => (Csum::Partial, Some(true)),
            // Without a checksum; there is no such thing for TCP.
            _ if matches!(facts.proto, 17 | 132) => (Csum::Full, None),
            _ => (Csum::Full, Some(false)),
        };
        let ports = naive::possible_ports(&facts, wish);
        let mut original = packet;
        naive::fill_checksums(&mut original, &facts, partial);

        let (mut got, mut expected) = (original.clone(), original.clone());
        rewrite(version, &mut got, (&saddr, &daddr, ports), csum).unwrap();
        rewrite_naively(version, &mut expected, (&saddr, &daddr, ports), partial);
        prop_assert_eq!(&got, &expected);

        // And back again: all is as it was but the TTL.
        let ttl = if version == 4 { 8 } else { 7 };
        // A call of zero belongs to nobody.
        if got[ttl] > 1 && parse(version, true, &got, got.len()).is_ok() {
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
        (version, packet) in version().prop_flat_map(|v| (Just(v), packet(v, true))),
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
                packet[0] = 0x60 | (field >> 4);
                packet[1] = packet[1] & 0x0f | (field << 4);
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
        (version, _, mut packet) in right(),
        wrong in any::<[u8; 2]>(),
    ) {
        let facts = naive::classify(version, &packet, packet.len(), true).unwrap();
        if let Some(at) = naive::check_at(&facts) {
            packet[at..at + 2].copy_from_slice(&wrong);
        }
        let mut got = packet.clone();
        // Only the network header is there to be written.
        let header = &mut got[..if version == 4 { 20 } else { 40 }];
        if version == 4 {
            let p = any_ipv4(&packet).unwrap();
            let r = Rewrite4::identity(&p.key);
            prop_assert!(!r.is_nat());
            prop_assert_eq!(r.writes(p.proto, p.thoff), 20);
            apply_any(header, &p, &r, Csum::Full).unwrap();
            packet[8] -= 1;
            packet[10..12].fill(0);
            let check = naive::checksum(&[&packet[..20]]);
            packet[10..12].copy_from_slice(&check.to_be_bytes());
        } else {
            let p = any_ipv6(&packet).unwrap();
            let r = Rewrite6::identity(&p.key);
            prop_assert!(!r.is_nat());
            prop_assert_eq!(r.writes(p.proto, p.thoff), 40);
            apply_any(header, &p, &r, Csum::Full).unwrap();
            packet[7] -= 1;
        }
        prop_assert_eq!(got, packet);
    }

    #[test]
    fn a_wrong_checksum_stays_wrong(
        (version, _, mut packet) in right(),
        saddr in any::<[u8; 16]>(),
        daddr in any::<[u8; 16]>(),
        wish in any::<[u8; 4]>(),
        error in 1_u16..0xffff,
    ) {
        let facts = naive::classify(version, &packet, packet.len(), true).unwrap();
        let ports = naive::possible_ports(&facts, wish);
        let l4 = facts.thoff..facts.len;
        if facts.proto == 132 {
            packet[facts.thoff + 8] ^= error as u8 | 1;
            let wrong = packet[facts.thoff + 8..facts.thoff + 12].to_vec();
            prop_assume!(wrong != [0; 4]);
            rewrite(version, &mut packet, (&saddr, &daddr, ports), Csum::Full).unwrap();
            let got = packet[facts.thoff + 8..facts.thoff + 12].to_vec();
            packet[facts.thoff + 8..facts.thoff + 12].fill(0);
            let right = naive::crc32c(&[&packet[l4]]).to_le_bytes();
            prop_assert_eq!(got[0] ^ right[0], error as u8 | 1);
            prop_assert_eq!(&got[1..], &right[1..]);
            return Ok(());
        }
        let Some(at) = naive::check_at(&facts) else {
            return Ok(());
        };
        let check = naive::sum(&[&packet[at..at + 2], &error.to_be_bytes()]);
        prop_assume!(check != 0 || facts.proto != 17);
        packet[at..at + 2].copy_from_slice(&check.to_be_bytes());
        rewrite(version, &mut packet, (&saddr, &daddr, ports), Csum::Full).unwrap();
        let pseudo = naive::pseudo_header(&packet, &facts);
        prop_assert_eq!(naive::sum(&[&pseudo, &packet[l4]]), error);
    }

    #[test]
    fn too_short_writes_nothing((version, _, packet) in right(), len in 0_usize..100) {
        let mut short;
        let before;
        let result = if version == 4 {
            let p = any_ipv4(&packet).unwrap();
            let r = Rewrite4::new(&p.key, !p.key.saddr, p.key.daddr, p.key.ports);
            short = packet[..len.min(r.writes(p.proto, p.thoff) as usize - 1)].to_vec();
            before = short.clone();
            apply_any(&mut short, &p, &r, Csum::Full)
        } else {
            let p = any_ipv6(&packet).unwrap();
            let r = Rewrite6::new(&p.key, [0; 2], [1; 2], p.key.ports);
            short = packet[..len.min(r.writes(p.proto, p.thoff) as usize - 1)].to_vec();
            before = short.clone();
            apply_any(&mut short, &p, &r, Csum::Full)
        };
        prop_assert!(result.is_err());
        prop_assert_eq!(short, before);
    }

    // What a NAT makes of two tuples (see nf_ct_invert_tuple()) is what the packet has then.
    #[test]
    fn keys_are_those_of_tuples((version, _, packet) in right(), mut half in any::<[u8; 2]>()) {
        let facts = naive::classify(version, &packet, packet.len(), true).unwrap();
        let proto = L4Proto::from_number(facts.proto).unwrap();
        let [a, b, c, d] = facts.ports;
        if proto == L4Proto::Gre {
            half = [0, 0].map(|_| half[0] | 1);
        }
        let (tuple, answers) = match proto {
            L4Proto::Icmp | L4Proto::Icmpv6 => (([a, b], [c, d]), (half, [c ^ 8, d])),
            // The call of the sender is not in the packet.
            L4Proto::Gre if facts.ports != [0; 4] => (([3, 4], [c, d]), (half, [3, 4])),
            L4Proto::Gre | L4Proto::Esp | L4Proto::Ah => (([0; 2], [0; 2]), ([0; 2], [0; 2])),
            _ => (([a, b], [c, d]), (half, [b, a])),
        };
        let word = u32::from_ne_bytes(facts.ports);
        prop_assert_eq!(proto.ports(tuple.0, tuple.1), word);
        let new = proto.translated(word, answers.0, answers.1).to_ne_bytes();
        let expected = match proto {
            L4Proto::Icmp | L4Proto::Icmpv6 => [half[0], half[1], c, d],
            L4Proto::Gre if facts.ports != [0; 4] => [0, 1, half[0], half[1]],
            L4Proto::Gre | L4Proto::Esp | L4Proto::Ah => [0; 4],
            _ => [b, a, half[0], half[1]],
        };
        prop_assert_eq!(new, expected);
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
        (4, 3, 0, Jumbogram),
        (4, 3, 1, Truncated),
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
        assert!(parse(*version, false, &packet, packet.len()).is_ok());
        packet[*at] = *value;
        if *at < 20 {
            fix(&mut packet);
        }
        let got = parse(*version, false, &packet, packet.len());
        assert_eq!(
            got,
            Err(Miss::Reason(*reason)),
            "{version}: byte {at} = {value}"
        );
    }

    let mut packet = plain(4);
    packet[10] ^= 1;
    assert_eq!(parse(4, false, &packet, 40), Err(BadChecksum.into()));
    // Do not fragment, and reserved bits, are nobody's business here.
    let mut packet = plain(4);
    packet[6] = 0xc0;
    fix(&mut packet);
    assert!(parse(4, false, &packet, 40).is_ok());
}

/// Reasons that only the parser for all protocols has.
#[test]
fn every_rare_reason() {
    use MissReason::*;
    let get = |version: u8, proto: u8, l4: &[u8]| {
        let mut packet = plain(version);
        let iph = packet.len() - 20;
        packet.truncate(iph);
        packet.extend(l4);
        packet[if version == 4 { 9 } else { 6 }] = proto;
        packet[if version == 4 { 3 } else { 5 }] =
            if version == 4 { 20 } else { 0 } + l4.len() as u8;
        fix(&mut packet);
        parse(version, true, &packet, packet.len())
            .map(|facts| (facts.ports, facts.control))
            .map_err(|miss| match miss {
                Miss::Reason(reason) => reason,
                Miss::NeedPull(_) => panic!("all is linear"),
            })
    };
    let sctp = |chunks: &[u8]| {
        get(
            4,
            132,
            &[&[1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9], chunks].concat(),
        )
    };
    const DATA: [u8; 4] = [0, 0, 0, 4];
    const SACK: [u8; 8] = [3, 0, 0, 6, 0, 0, 0xff, 0xff];

    assert_eq!(sctp(&DATA), Ok(([1, 2, 3, 4], false)));
    assert_eq!(sctp(&SACK), Ok(([1, 2, 3, 4], false)));
    assert_eq!(
        sctp(&[&SACK[..], &DATA].concat()),
        Ok(([1, 2, 3, 4], false))
    );
    // INIT, ABORT, SHUTDOWN, HEARTBEAT, ASCONF.
    for control in [1, 6, 7, 4, 0xc1] {
        assert_eq!(sctp(&[control, 0, 0, 4]), Ok(([1, 2, 3, 4], true)));
        let behind = [&SACK[..], &[control, 0, 0, 4]].concat();
        assert_eq!(sctp(&behind), Ok(([1, 2, 3, 4], true)));
    }
    assert_eq!(sctp(&SACK.repeat(9)), Ok(([1, 2, 3, 4], true)));
    assert_eq!(sctp(&[]), Err(Truncated));
    assert_eq!(sctp(&[0, 0, 0]), Err(Truncated));
    assert_eq!(sctp(&[0, 0, 0, 3]), Err(Truncated));
    assert_eq!(sctp(&[3, 0, 0, 5]), Err(Truncated));

    assert_eq!(
        get(4, 1, &[8, 0, 0, 0, 7, 8, 0, 1]),
        Ok(([7, 8, 8, 0], false))
    );
    assert_eq!(
        get(4, 1, &[0, 0, 0, 0, 7, 8, 0, 1]),
        Ok(([7, 8, 0, 0], false))
    );
    assert_eq!(get(4, 1, &[8, 1, 0, 0, 7, 8, 0, 1]), Err(IcmpType));
    assert_eq!(get(4, 1, &[3, 4, 0, 0, 7, 8, 0, 1]), Err(IcmpType));
    assert_eq!(get(4, 1, &[8, 0, 0, 0, 7, 8, 0]), Err(Truncated));
    assert_eq!(
        get(6, 58, &[128, 0, 0, 0, 7, 8, 0, 1]),
        Ok(([7, 8, 128, 0], false))
    );
    assert_eq!(get(6, 58, &[135, 0, 0, 0, 7, 8, 0, 1]), Err(IcmpType));
    assert_eq!(get(6, 58, &[2, 0, 0, 0, 7, 8, 0, 1]), Err(IcmpType));
    // Each is a protocol of one family.
    assert_eq!(get(4, 58, &[128, 0, 0, 0, 7, 8, 0, 1]), Err(L4Proto));
    assert_eq!(get(6, 1, &[8, 0, 0, 0, 7, 8, 0, 1]), Err(L4Proto));
    assert_eq!(get(6, 51, &[6; 20]), Err(ExtHeader));

    assert_eq!(get(4, 47, &[0x20, 0, 8, 0]), Ok(([0; 4], false)));
    assert_eq!(
        get(4, 47, &[0x30, 1, 0x88, 0x0b, 0, 0, 5, 6]),
        Ok(([0, 1, 5, 6], false))
    );
    assert_eq!(get(4, 47, &[0x30, 1, 0x88, 0x0b, 0, 0, 0, 0]), Err(L4Proto));
    assert_eq!(get(4, 47, &[0x30, 1, 0x88, 0x0b, 0, 0, 5]), Err(Truncated));
    assert_eq!(get(4, 47, &[0x30, 1, 0x08, 0x00, 0, 0, 5, 6]), Err(L4Proto));
    assert_eq!(get(4, 47, &[0x30, 2, 0x88, 0x0b, 0, 0, 5, 6]), Err(L4Proto));
    assert_eq!(get(4, 50, &[1; 7]), Err(Truncated));
    assert_eq!(get(4, 51, &[1; 11]), Err(Truncated));
    assert_eq!(get(4, 136, &[1; 20]), Err(L4Proto));

    let echo = [58, 0, 1, 4, 0, 0, 0, 0, 128, 0, 0, 0, 7, 8, 0, 1];
    assert_eq!(get(6, 60, &echo), Ok(([7, 8, 128, 0], false)));
    assert_eq!(get(6, 60, &echo[..8]), Err(Truncated));
    assert_eq!(
        get(6, 60, &[&[60, 0, 1, 4, 0, 0, 0, 0], &echo[..]].concat()),
        Ok(([7, 8, 128, 0], false))
    );
    assert_eq!(
        get(6, 60, &[&[44, 0, 1, 4, 0, 0, 0, 0], &echo[..]].concat()),
        Err(ExtHeader)
    );
    assert_eq!(get(6, 60, &[58, 11, 0, 0, 0, 0, 0, 0]), Err(ExtHeader));
    assert_eq!(get(6, 60, &[58, 1, 0, 0, 0, 0, 0, 0]), Err(Truncated));
}

/// BIG TCP: a super-packet whose length does not fit in its field ends where the buffer does.
/// Nothing else may be without a length, and what has one is never taken for one that has none.
#[test]
fn big_tcp() {
    use MissReason::*;
    let big = |version: u8, hdr: &[u8], len: usize| match version {
        4 => parse::big_ipv4(hdr, len, ingress()).map(facts4),
        _ => parse::big_ipv6(hdr, len, ingress()).map(facts6),
    };
    let set_len = |version: u8, packet: &mut [u8], len: usize| {
        let at = if version == 4 { 2 } else { 4 };
        packet[at..at + 2].copy_from_slice(&(len as u16).to_be_bytes());
        fix(packet);
    };

    for (version, options) in [(4, false), (6, false), (6, true)] {
        let iph = if version == 4 { 20 } else { 40 };
        let proto = if version == 4 { 9 } else { 6 };
        let mut packet = plain(version);
        if options {
            packet[proto] = 60;
            packet.splice(iph..iph, [6, 0, 1, 4, 0, 0, 0, 0]);
        }
        let header = packet.len();

        for len in [
            header,
            header + 1,
            65535,
            65535 + 40,
            65535 + 41,
            180_000,
            524_280,
        ] {
            packet.resize(len, 7);
            let in_field = if version == 4 { len } else { len - iph };

            // As the packet with its length, where there is room for that.
            set_len(version, &mut packet, 0);
            assert_eq!(parse(version, true, &packet, header), Err(Jumbogram.into()));
            let facts = big(version, &packet[..header], len).unwrap();
            assert_eq!((facts.len, facts.thoff), (len, header - 20));
            if in_field <= 65535 {
                set_len(version, &mut packet, in_field);
                assert_eq!(parse(version, true, &packet, header), Ok(facts));
                assert_eq!(big(version, &packet, len), Err(Jumbogram.into()));
            }

            // Not enough in the linear part; one pull is.
            set_len(version, &mut packet, 0);
            for linear in iph..header {
                match big(version, &packet[..linear], len) {
                    Err(Miss::NeedPull(n)) => assert!(linear < n as usize && n as usize <= len),
                    other => panic!("{version} {linear}: {other:?}"),
                }
            }

            // Only TCP, and only with a length that is nothing.
            for other in [17, 0, 1, 58, 132] {
                let at = if options { iph } else { proto };
                let mut packet = packet.clone();
                packet[at] = other;
                fix(&mut packet);
                assert!(
                    big(version, &packet, len).is_err(),
                    "{version} {other} {len}"
                );
            }
            for lie in [1, 19, 20, 40, 60, 65535] {
                set_len(version, &mut packet, lie);
                assert_eq!(big(version, &packet, len), Err(Jumbogram.into()));
            }
        }
    }
    // RFC 2675: the length is in a hop-by-hop option.
    let mut packet = plain(6);
    packet.splice(40..40, [6, 0, 0xc2, 4, 0, 1, 0, 8]);
    packet.resize(40 + 65536 + 8, 7);
    set_len(6, &mut packet, 0);
    packet[6] = 0;
    assert!(big(6, &packet, packet.len()).is_err());
}
