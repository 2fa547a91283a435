// SPDX-License-Identifier: GPL-2.0

//! The parser agrees with the naive one, whatever the packet and however much of it is linear.

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
    parse::{
        self,
        Parse, //
    },
};

fuzz_target!(|data: &[u8]| {
    // The last two bytes are instructions: which parser, and how much is linear.
    let Some((packet, &[how, linear])) = data.split_last_chunk::<2>() else {
        return;
    };
    let mut packet = packet.to_vec();
    let linear = usize::from(linear).min(packet.len());
    let version = if how & 1 == 0 { 4 } else { 6 };
    // Else no fuzzer gets past the header checksum.
    if how & 2 == 0 && packet.len() >= 20 {
        packet[10..12].fill(0);
        let check = naive::checksum(&[&packet[..20]]);
        packet[10..12].copy_from_slice(&check.to_be_bytes());
    }

    let ingress = IngressId::from_ifindex(1).unwrap();
    let any = how & 4 == 0;
    let hdr = &packet[..linear];
    let peek = |at: usize| packet.get(at..at + 4)?.try_into().ok();
    let expected = naive::classify(version, &packet, linear, any);
    if version == 4 {
        let got = match any {
            true => Key4::parse_any(hdr, packet.len(), ingress, peek),
            false => parse::ipv4(hdr, packet.len(), ingress),
        };
        match got {
            Err(miss) => assert_eq!(expected, Err(miss)),
            Ok(p) => {
                let facts = expected.unwrap();
                assert_eq!(p.key.saddr.to_ne_bytes(), *facts.saddr);
                assert_eq!(p.key.daddr.to_ne_bytes(), *facts.daddr);
                assert_eq!(p.key.ports.to_ne_bytes(), facts.ports);
                assert_eq!(p.proto.number(), facts.proto);
                assert_eq!(usize::from(p.thoff), facts.thoff);
                assert_eq!(p.ds_field, facts.ds_field);
                assert_eq!(p.len as usize, facts.len);
                assert_eq!(p.tcp_flags, facts.tcp_flags);
                assert_eq!(p.sctp_control, facts.control);
            }
        }
    } else {
        let got = match any {
            true => Key6::parse_any(hdr, packet.len(), ingress, peek),
            false => parse::ipv6(hdr, packet.len(), ingress),
        };
        match got {
            Err(miss) => assert_eq!(expected, Err(miss)),
            Ok(p) => {
                let facts = expected.unwrap();
                let bytes = |w: [u64; 2]| w.map(u64::to_ne_bytes).concat();
                assert_eq!(bytes(p.key.saddr), facts.saddr);
                assert_eq!(bytes(p.key.daddr), facts.daddr);
                assert_eq!(p.key.ports.to_ne_bytes(), facts.ports);
                assert_eq!(p.proto.number(), facts.proto);
                assert_eq!(usize::from(p.thoff), facts.thoff);
                assert_eq!(p.ds_field, facts.ds_field);
                assert_eq!(p.len as usize, facts.len);
                assert_eq!(p.tcp_flags, facts.tcp_flags);
                assert_eq!(p.sctp_control, facts.control);
            }
        }
    }
});
