// SPDX-License-Identifier: GPL-2.0

//! A rewritten packet is the one that a naive rewrite with checksums from scratch gives.

#![no_main]

#[path = "../../tests/common/naive.rs"]
#[allow(dead_code, unreachable_pub)]
mod naive;

use libfuzzer_sys::fuzz_target;
use nft_flow::{
    key::{
        IngressId, //
        Key4,
        Key6,
    },
    parse::Parse,
    rewrite::{
        apply_any,
        Csum,
        Rewrite4,
        Rewrite6, //
    },
};

fuzz_target!(|data: &[u8]| {
    // First the instructions: what to do, the new ports and addresses; then the packet.
    let Some((&[how, p0, p1, p2, p3], rest)) = data.split_first_chunk::<5>() else {
        return;
    };
    let Some((addresses, packet)) = rest.split_first_chunk::<32>() else {
        return;
    };
    let (saddr, daddr) = addresses.split_at(16);
    let version = if how & 1 == 0 { 4 } else { 6 };
    let partial = match how >> 1 & 3 {
        0 => Some(true),
        1 => None,
        _ => Some(false),
    };

    // Make the most of what the fuzzer came up with.
    let mut packet = packet.to_vec();
    if version == 4 && packet.len() >= 20 {
        packet[10..12].fill(0);
        let check = naive::checksum(&[&packet[..20]]);
        packet[10..12].copy_from_slice(&check.to_be_bytes());
    }
    let Ok(facts) = naive::classify(version, &packet, packet.len(), true) else {
        return;
    };
    // "No checksum" is for UDP and SCTP only, and ICMP does not leave it to devices.
    let partial = match facts.proto {
        17 | 132 => partial,
        1 => Some(false),
        _ => partial.or(Some(false)),
    };
    let csum = match partial {
        Some(true) => Csum::Partial,
        _ => Csum::Full,
    };
    let ports = naive::possible_ports(&facts, [p0, p1, p2, p3]);
    naive::fill_checksums(&mut packet, &facts, partial);

    let mut expected = packet.clone();
    let (addresses, n, ttl) = if version == 4 { (12, 4, 8) } else { (8, 16, 7) };
    expected[addresses..addresses + n].copy_from_slice(&saddr[..n]);
    expected[addresses + n..addresses + 2 * n].copy_from_slice(&daddr[..n]);
    expected[ttl] -= 1;
    naive::set_ports(&mut expected, &facts, ports);
    naive::fill_checksums(&mut expected, &facts, partial);

    let ingress = IngressId::from_ifindex(1).unwrap();
    let len = packet.len();
    let ports = u32::from_ne_bytes(ports);
    let peek = |_: usize| None;
    if version == 4 {
        let p = Key4::parse_any(&packet, len, ingress, peek).unwrap();
        let word = |b: &[u8]| u32::from_ne_bytes(*b.first_chunk().unwrap());
        let r = Rewrite4::new(&p.key, word(saddr), word(daddr), ports);
        apply_any(&mut packet, &p, &r, csum).unwrap();
    } else {
        let p = Key6::parse_any(&packet, len, ingress, peek).unwrap();
        let word = |b: &[u8]| u64::from_ne_bytes(*b.first_chunk().unwrap());
        let words = |b: &[u8]| [word(b), word(&b[8..])];
        let r = Rewrite6::new(&p.key, words(saddr), words(daddr), ports);
        apply_any(&mut packet, &p, &r, csum).unwrap();
    }
    // An echo of nothing but zeroes: a difference of sums does not tell the two zeroes apart, here
    // as in the kernel's own NAT (inet_proto_csum_replace2()).
    let check = facts.thoff + 2..facts.thoff + 4;
    if facts.proto == 1 && packet[check.clone()] == [0, 0] && expected[check.clone()] == [0xff; 2] {
        packet[check.clone()].copy_from_slice(&expected[check]);
    }
    assert_eq!(packet, expected);
});
