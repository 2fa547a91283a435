// SPDX-License-Identifier: GPL-2.0

//! The engine's hash function: where it looks for a packet's entry.

use crate::entry::{
    Key,
    PacketType, //
};
use crate::ENTRIES;

/// The first slot of the bucket of a key, with `ways` slots to a bucket. [`None`] for types whose
/// hash is not known.
pub fn bucket(key: &Key, ways: u8) -> Option<u16> {
    let w = &key.words;
    let (a, b, c) = match key.packet_type() {
        PacketType::Ipv4Hnapt | PacketType::Ipv4Route => {
            let [src, dst, ports, ..] = *w;
            (ports, dst, src)
        }
        PacketType::Ipv6Route3 | PacketType::Ipv6Route5 => {
            let [s0, s1, s2, s3, d0, d1, d2, d3, ports] = *w;
            (s3 ^ d3 ^ ports, s2 ^ d2 ^ d0, s1 ^ d1 ^ s0)
        }
        _ => return None,
    };

    let mut hash = (a & b | !a & c).rotate_left(8);
    hash ^= a ^ b ^ c;
    hash ^= hash >> 16;
    // A bucket of n ways starts at every nth slot.
    Some((hash.wrapping_mul(ways.into()) & (ENTRIES as u32 - 1)) as u16)
}
