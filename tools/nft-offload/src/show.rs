// SPDX-License-Identifier: GPL-2.0

//! Flows and numbers as people read them.

use crate::{
    cli::PROTOCOLS,
    flow::{
        Direction,
        Encap,
        Flow,
        Tier, //
    },
    netlink,
};
use std::{
    borrow::Cow,
    collections::HashMap,
    io::IsTerminal,
    net::IpAddr, //
};

/// Whether standard output takes colours, and wants them.
pub(crate) fn colours() -> bool {
    std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// How text stands out.
#[derive(Clone, Copy)]
pub(crate) enum Style {
    Good,
    Bad,
    Strong,
}

/// The text, in this style if there are colours.
pub(crate) fn paint(text: &str, style: Style, colours: bool) -> Cow<'_, str> {
    let code = match style {
        Style::Good => "32",
        Style::Bad => "33",
        Style::Strong => "1",
    };

    match colours {
        true => format!("\x1b[{code}m{text}\x1b[0m").into(),
        false => text.into(),
    }
}

/// The name of a protocol.
pub(crate) fn protocol(number: u8) -> Cow<'static, str> {
    PROTOCOLS.iter().find(|(_, n)| *n == number).map_or_else(
        || format!("proto-{number}").into(),
        |(name, _)| (*name).into(),
    )
}

/// An address, with its port if there is one.
pub(crate) fn end(addr: IpAddr, port: Option<u16>) -> String {
    match (addr, port) {
        (addr, None) => addr.to_string(),
        (IpAddr::V4(addr), Some(port)) => format!("{addr}:{port}"),
        (IpAddr::V6(addr), Some(port)) => format!("[{addr}]:{port}"),
    }
}

/// A time: `12 s`, `3m12s`, `2h05m`, `3d04h`.
pub(crate) fn time(ms: u64) -> String {
    let s = ms / 1000;

    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86400 => format!("{}h{:02}m", s / 3600, s / 60 % 60),
        _ => format!("{}d{:02}h", s / 86400, s / 3600 % 24),
    }
}

/// A number with three digits that count, and its unit: `84.1 MB`, `1.23 kpkt`.
pub(crate) fn amount(n: f64, unit: &str) -> String {
    const PREFIXES: [&str; 6] = ["", "k", "M", "G", "T", "P"];
    let mut n = n;
    let mut at = 0;

    while n >= 999.5 && at + 1 < PREFIXES.len() {
        n /= 1000.0;
        at += 1;
    }
    match (at, n) {
        (0, _) => format!("{n:.0} {unit}"),
        (_, n) if n < 9.995 => format!("{n:.2} {}{unit}", PREFIXES[at]),
        (_, n) if n < 99.95 => format!("{n:.1} {}{unit}", PREFIXES[at]),
        _ => format!("{n:.0} {}{unit}", PREFIXES[at]),
    }
}

/// Names of devices by their numbers.
#[derive(Default)]
pub(crate) struct Devices(HashMap<u32, String>);

impl Devices {
    /// The name of a device of the present namespace; its number if it has gone.
    pub(crate) fn name(&mut self, ifindex: u32) -> &str {
        self.0.entry(ifindex).or_insert_with(|| {
            use rustix::net::{
                netdevice,
                socket,
                AddressFamily,
                SocketType, //
            };

            socket(AddressFamily::INET, SocketType::DGRAM, None)
                .and_then(|socket| netdevice::index_to_name(&socket, ifindex))
                .map_or_else(
                    |_| format!("if{ifindex}"),
                    |name| netlink::text(name.as_bytes()),
                )
        })
    }

    #[cfg(test)]
    pub(crate) fn of(names: &[(u32, &str)]) -> Self {
        Self(
            names
                .iter()
                .map(|(n, name)| (*n, (*name).to_owned()))
                .collect(),
        )
    }
}

fn encap(encap: &Encap) -> String {
    match encap.ethertype {
        0x8100 => format!("vlan {}", encap.id),
        0x88a8 => format!("802.1ad {}", encap.id),
        0x8864 => format!("pppoe {:#x}", encap.id),
        other => format!("{other:#06x} {}", encap.id),
    }
}

/// The tier in a word.
pub(crate) fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Software => "sw",
        Tier::Partial => "sw+hw",
        Tier::Hardware => "hw",
    }
}

/// A flow in a line: `udp 10.0.0.5:4000 > 192.0.2.1:53  snat 203.0.113.9:4000  sw  lan > wan ...`.
pub(crate) fn flow(flow: &Flow, devices: &mut Devices) -> String {
    let (orig, reply) = (&flow.original, &flow.reply);
    let mut line = format!(
        "{} {} > {}",
        protocol(flow.l4proto),
        end(orig.src, orig.sport),
        end(orig.dst, orig.dport)
    );

    if flow.snat {
        line += &format!("  snat {}", end(reply.dst, reply.dport));
    }
    if flow.dnat {
        line += &format!("  dnat {}", end(reply.src, reply.sport));
    }
    line += &format!("  {}  {}", tier(flow.tier), devices.name(orig.iif));
    line += &format!(" > {}", devices.name(orig.oif));
    if let Some(bytes) = flow.bytes() {
        line += &format!("  {}", amount(bytes as f64, "B"));
    }
    line += &format!("  age {}", time(flow.age_ms));
    line += &format!("  idle {}", time(orig.idle_ms.min(reply.idle_ms)));
    if flow.mark != 0 {
        line += &format!("  mark {:#x}", flow.mark);
    }
    if flow.zone != 0 {
        line += &format!("  zone {}", flow.zone);
    }
    line
}

/// A direction of a flow in a line of its own.
pub(crate) fn direction(name: &str, dir: &Direction, devices: &mut Devices) -> String {
    let mut line = format!("  {name:<5}");

    // From the wire to the route, and where it leaves.
    if let Some(hook) = dir.hook {
        line += &format!("  {}", devices.name(hook));
    }
    for layer in &dir.encap {
        line += &format!(" {}", encap(layer));
    }
    if let Some(proto) = dir.tunnel {
        line += &format!(" tunnel (protocol {proto})");
    }
    if dir.hook != Some(dir.iif) {
        line += &format!(" ({})", devices.name(dir.iif));
    }
    line += &format!(" > {}", devices.name(dir.oif));
    if dir.direct {
        line += " direct";
    }
    if let Some(hop) = dir.next_hop {
        line += &format!("  via {hop}");
        if let Some(mac) = &dir.next_hop_mac {
            line += &format!(" {mac}");
        }
        line += &format!(" {}", dir.next_hop_state.unwrap_or("none"));
    }
    line += &format!("  mtu {}", dir.mtu);
    if let (Some(packets), Some(bytes)) = (dir.packets, dir.bytes) {
        line += &format!(
            "  {} {}",
            amount(packets as f64, "pkt"),
            amount(bytes as f64, "B")
        );
    }
    line += &format!("  idle {}", time(dir.idle_ms));
    if dir.ipsec {
        line += "  ipsec";
    }
    if !dir.ruleset {
        line += "  waits for the ruleset to see a packet";
    }
    line
}

/// Columns, the first line being their names: as wide as need be.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let mut widths = Vec::new();
    let mut all = String::new();

    for row in rows {
        widths.resize(row.len().max(widths.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let mut line = String::new();

        for (width, cell) in widths.iter().zip(row) {
            line += cell;
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        all += line.trim_end();
        all.push('\n');
    }
    all
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A flow of a VLAN to a masqueraded uplink.
    pub(crate) fn example() -> Flow {
        Flow {
            family: "inet",
            table: "fw4".into(),
            flowtable: "ft".into(),
            l4proto: 6,
            age_ms: 192_400,
            mark: 0x17,
            snat: true,
            original: Direction {
                src: "10.0.0.5".parse().unwrap(),
                dst: "192.0.2.1".parse().unwrap(),
                sport: Some(51822),
                dport: Some(443),
                idle_ms: 900,
                packets: Some(1200),
                bytes: Some(84_100_000),
                mtu: 1500,
                iif: 3,
                hook: Some(2),
                devices: vec![3, 2],
                encap: vec![Encap {
                    ethertype: 0x8100,
                    id: 7,
                }],
                oif: 4,
                ruleset: true,
                next_hop: Some("192.0.2.1".parse().unwrap()),
                next_hop_mac: Some("02:00:00:00:00:01".into()),
                next_hop_state: Some("reachable"),
                ..Direction::default()
            },
            reply: Direction {
                src: "192.0.2.1".parse().unwrap(),
                dst: "203.0.113.9".parse().unwrap(),
                sport: Some(443),
                dport: Some(51822),
                idle_ms: 2100,
                iif: 4,
                hook: Some(4),
                oif: 3,
                mtu: 1500,
                ..Direction::default()
            },
            ..Flow::default()
        }
    }

    fn devices() -> Devices {
        Devices::of(&[(2, "lan"), (3, "lan.7"), (4, "wan")])
    }

    #[test]
    fn a_line_for_each_flow() {
        assert_eq!(
            flow(&example(), &mut devices()),
            "tcp 10.0.0.5:51822 > 192.0.2.1:443  snat 203.0.113.9:51822  sw  lan.7 > wan  84.1 MB  age 3m12s  idle 0s  mark 0x17"
        );
    }

    #[test]
    fn a_line_for_each_direction() {
        let example = example();
        assert_eq!(
            direction("orig", &example.original, &mut devices()),
            "  orig   lan vlan 7 (lan.7) > wan  via 192.0.2.1 02:00:00:00:00:01 reachable  mtu 1500  1.20 kpkt 84.1 MB  idle 0s"
        );
        assert_eq!(
            direction("reply", &example.reply, &mut devices()),
            "  reply  wan > lan.7  mtu 1500  idle 2s  waits for the ruleset to see a packet"
        );
    }

    #[test]
    fn numbers() {
        for (n, text) in [
            (0.0, "0 B"),
            (999.0, "999 B"),
            (1000.0, "1.00 kB"),
            (999_499.0, "999 kB"),
            (999_600.0, "1.00 MB"),
            (12_345_678.0, "12.3 MB"),
            (8.4e18, "8400 PB"),
        ] {
            assert_eq!(amount(n, "B"), text);
        }
        for (ms, text) in [
            (0, "0s"),
            (59_999, "59s"),
            (60_000, "1m00s"),
            (3_725_000, "1h02m"),
            (90_000_000, "1d01h"),
        ] {
            assert_eq!(time(ms), text);
        }
        assert_eq!(end("fd00::1".parse().unwrap(), Some(80)), "[fd00::1]:80");
        assert_eq!(
            (protocol(132), protocol(99)),
            ("sctp".into(), "proto-99".into())
        );
    }

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["a".into(), "bbb".into()],
            vec!["cc".into(), "d".into()],
        ];
        assert_eq!(columns(&rows), "a   bbb\ncc  d\n");
    }

    #[test]
    fn colours_are_optional() {
        assert_eq!(paint("x", Style::Good, false), "x");
        assert_eq!(paint("x", Style::Good, true), "\x1b[32mx\x1b[0m");
    }
}
