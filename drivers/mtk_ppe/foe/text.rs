// SPDX-License-Identifier: GPL-2.0

//! Entries as text, in the format of the kernel driver's `/sys/kernel/debug/ppe0/entries`, which
//! tools and people read.

use crate::entry::{
    at,
    l2,
    Foe,
    PacketType,
    State, //
};
use crate::hal::{
    self,
    Hal, //
};
use crate::mib::Counters;
use core::fmt;
use nft_flow::desc::Mac;

struct Eth(Mac);

impl fmt::Display for Eth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

struct Addr4(u32);

impl fmt::Display for Addr4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.0.to_be_bytes();
        write!(f, "{a}.{b}.{c}.{d}")
    }
}

struct Addr6<'a>(&'a Foe, usize);

impl fmt::Display for Addr6<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for n in 0..4 {
            let word = self.0.word(self.1 + 4 * n);
            let colon = if n == 0 { "" } else { ":" };
            write!(f, "{colon}{:04x}:{:04x}", word >> 16, word & 0xffff)?;
        }
        Ok(())
    }
}

/// Source and destination, with ports if `ports` says where they are.
fn pair(
    out: &mut dyn fmt::Write,
    foe: &Foe,
    src: &dyn fmt::Display,
    dst: &dyn fmt::Display,
    ports: Option<usize>,
) -> fmt::Result {
    match ports {
        Some(at) => {
            let (dport, sport) = (foe.half(at), foe.half(at + 2));
            write!(out, "{src}:{sport}->{dst}:{dport}")
        }
        None => write!(out, "{src}->{dst}"),
    }
}

/// Writes the line of one entry.
///
/// # Errors
///
/// Those of `out`.
pub fn line(
    out: &mut dyn fmt::Write,
    hal: &dyn Hal,
    slot: u16,
    foe: &Foe,
    counters: Counters,
) -> fmt::Result {
    let of = hal::packet_type(hal, foe.ib1());
    let state = match foe.state() {
        State::Invalid => "INV",
        State::Unbind => "UNB",
        State::Bind => "BND",
        State::Fin => "FIN",
    };
    let name = match of {
        Some(PacketType::Ipv4Hnapt) => "IPv4 5T",
        Some(PacketType::Ipv4Route) => "IPv4 3T",
        Some(PacketType::DsLite) => "DS-LITE",
        Some(PacketType::Ipv6Route3) => "IPv6 3T",
        Some(PacketType::Ipv6Route5) => "IPv6 5T",
        Some(PacketType::SixRd) => "6RD",
        Some(PacketType::Bridge) | None => "UNKNOWN",
    };
    write!(out, "{slot:05x} {state} {name:>7} orig=")?;

    let v4 = |src: usize, dst: usize| (Addr4(foe.word(src)), Addr4(foe.word(dst)));
    match of {
        Some(PacketType::Ipv4Hnapt | PacketType::Ipv4Route | PacketType::DsLite) => {
            let ports = |at| (of != Some(PacketType::Ipv4Route)).then_some(at);
            let (src, dst) = v4(at::V4_SRC, at::V4_DST);
            pair(out, foe, &src, &dst, ports(at::V4_PORTS))?;
            // That of DS-Lite is not rewritten.
            if of != Some(PacketType::DsLite) {
                let (src, dst) = v4(at::V4_NEW_SRC, at::V4_NEW_DST);
                out.write_str(" new=")?;
                pair(out, foe, &src, &dst, ports(at::V4_NEW_PORTS))?;
            }
        }
        Some(PacketType::Ipv6Route3 | PacketType::Ipv6Route5 | PacketType::SixRd) => {
            let ports = (of == Some(PacketType::Ipv6Route5)).then_some(at::V6_PORTS);
            let (src, dst) = (Addr6(foe, at::V6_SRC), Addr6(foe, at::V6_DST));
            pair(out, foe, &src, &dst, ports)?;
        }
        Some(PacketType::Bridge) | None => out.write_str("?->?")?,
    }

    let of = of.unwrap_or(PacketType::Ipv4Hnapt);
    let (src, dst) = foe.macs(of);
    writeln!(
        out,
        " eth={}->{} etype={:04x} vlan={},{} ib1={:08x} ib2={:08x} packets={} bytes={}",
        Eth(src),
        Eth(dst),
        foe.l2_half(of, l2::ETYPE),
        foe.l2_half(of, l2::VLAN1),
        foe.l2_half(of, l2::VLAN2),
        foe.ib1(),
        foe.ib2(of),
        counters.packets,
        counters.bytes,
    )
}
