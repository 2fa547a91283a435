// SPDX-License-Identifier: GPL-2.0

//! A rewritten packet is the one that a naive rewrite with checksums from scratch gives.

#![no_main]

#[path = "../../tests/common/naive.rs"]
#[allow(dead_code, unreachable_pub)]
mod naive;

use libfuzzer_sys::fuzz_target;
use nft_flow::{
    key::PortId,
    parse,
    rewrite::{
        apply4,
        apply6,
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
    let ports = [p0, p1, p2, p3];
    let version = if how & 1 == 0 { 4 } else { 6 };
    let (csum, partial) = match how >> 1 & 3 {
        0 => (Csum::Partial, Some(true)),
        1 => (Csum::Full, None),
        _ => (Csum::Full, Some(false)),
    };

    // Make the most of what the fuzzer came up with.
    let mut packet = packet.to_vec();
    if version == 4 && packet.len() >= 20 {
        packet[10..12].fill(0);
        let check = naive::checksum(&[&packet[..20]]);
        packet[10..12].copy_from_slice(&check.to_be_bytes());
    }
    let Ok(facts) = naive::classify(version, &packet, packet.len()) else {
        return;
    };
    // "No checksum" is for UDP only.
    let partial = partial.or((facts.proto == 6).then_some(false));
    naive::fill_checksums(&mut packet, &facts, partial);

    let mut expected = packet.clone();
    let (addresses, n, ttl) = if version == 4 { (12, 4, 8) } else { (8, 16, 7) };
    expected[addresses..addresses + n].copy_from_slice(&saddr[..n]);
    expected[addresses + n..addresses + 2 * n].copy_from_slice(&daddr[..n]);
    expected[ttl] -= 1;
    expected[facts.thoff..facts.thoff + 4].copy_from_slice(&ports);
    naive::fill_checksums(&mut expected, &facts, partial);

    let port = PortId::from_ifindex(1).unwrap();
    let len = packet.len();
    let ports = u32::from_ne_bytes(ports);
    if version == 4 {
        let p = parse::ipv4(&packet, len, port).unwrap();
        let word = |b: &[u8]| u32::from_ne_bytes(*b.first_chunk().unwrap());
        let r = Rewrite4::new(&p.key, word(saddr), word(daddr), ports);
        apply4(&mut packet, p.proto, &r, csum).unwrap();
    } else {
        let p = parse::ipv6(&packet, len, port).unwrap();
        let word = |b: &[u8]| u64::from_ne_bytes(*b.first_chunk().unwrap());
        let words = |b: &[u8]| [word(b), word(&b[8..])];
        let r = Rewrite6::new(&p.key, words(saddr), words(daddr), ports);
        apply6(&mut packet, p.proto, &r, csum).unwrap();
    }
    assert_eq!(packet, expected);
});
