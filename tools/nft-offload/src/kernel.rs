// SPDX-License-Identifier: GPL-2.0

//! The generic netlink family `nft_offload`, as `netlink/nft_offload.yaml` says.

use crate::netlink::{
    is_errno,
    put,
    text,
    Netlink,
    NLM_F_DUMP, //
};
use anyhow::{
    anyhow,
    Result, //
};
use netlink_bindings::utils::{
    chop_header,
    find_attr, //
};
use netlink_sys::protocols::NETLINK_GENERIC;
use rustix::io::Errno;
use serde::Serialize;
use std::net::{
    IpAddr,
    Ipv4Addr,
    Ipv6Addr, //
};

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// Commands.
mod command {
    pub(super) const FLUSH: u8 = 1;
    pub(super) const INFO_GET: u8 = 2;
    pub(super) const TABLE_GET: u8 = 3;
    pub(super) const FLOW_GET: u8 = 4;
    pub(super) const STATS_GET: u8 = 5;
}

fn put_string(request: &mut Vec<u8>, kind: u16, text: &str) {
    let mut text = text.as_bytes().to_vec();

    text.push(0);
    put(request, kind, &text);
}

/// The attributes in a message or in another one: their numbers, and payloads.
fn attrs(buffer: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut at = 0;

    std::iter::from_fn(move || {
        chop_header(buffer, &mut at).map(|(header, payload)| (header.r#type, payload))
    })
}

/// A number of one, two, four or eight bytes.
fn number(payload: &[u8]) -> u64 {
    match *payload {
        [a] => a.into(),
        [a, b] => u16::from_ne_bytes([a, b]).into(),
        [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).into(),
        [a, b, c, d, e, f, g, h] => u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        _ => 0,
    }
}

fn address(payload: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(payload) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(payload)
        .ok()
        .map(|v6| Ipv6Addr::from(v6).into())
}

/// The family of an nftables table.
pub(crate) fn family_name(nfproto: u8) -> &'static str {
    match nfproto {
        1 => "inet",
        2 => "ip",
        10 => "ip6",
        _ => "unknown",
    }
}

/// The module.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub(crate) struct Info {
    pub(crate) version: String,
    pub(crate) interface: u32,
    pub(crate) flowtables: u32,
    pub(crate) flows: u32,
    pub(crate) dscp_restored: bool,
}

/// A flowtable.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub(crate) struct Table {
    pub(crate) family: &'static str,
    pub(crate) table: String,
    pub(crate) flowtable: String,
    pub(crate) offload: bool,
    pub(crate) counter: bool,
    pub(crate) flows: u64,
    pub(crate) buckets: u64,
    /// Of the fast path in software.
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// Flows that wait for hardware.
    pub(crate) waiting: u64,
    pub(crate) volatile: String,
}

/// Who forwards a flow.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tier {
    /// The fast path in software.
    #[default]
    Software,
    /// Hardware, those packets of one direction.
    Partial,
    /// Hardware.
    Hardware,
}

/// What is around packets that come in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Encap {
    pub(crate) ethertype: u16,
    pub(crate) id: u16,
}

/// One direction of a flow.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Direction {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) sport: Option<u16>,
    pub(crate) dport: Option<u16>,
    pub(crate) idle_ms: u64,
    pub(crate) packets: Option<u64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) mtu: u64,
    pub(crate) iif: u32,
    pub(crate) hook: Option<u32>,
    pub(crate) devices: Vec<u32>,
    pub(crate) encap: Vec<Encap>,
    pub(crate) tunnel: Option<u8>,
    pub(crate) oif: u32,
    pub(crate) direct: bool,
    pub(crate) ipsec: bool,
    /// The ruleset in force has seen a packet.
    pub(crate) ruleset: bool,
    pub(crate) next_hop: Option<IpAddr>,
    pub(crate) next_hop_mac: Option<String>,
    pub(crate) next_hop_state: Option<&'static str>,
}

impl Default for Direction {
    fn default() -> Self {
        let none = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

        Self {
            src: none,
            dst: none,
            sport: None,
            dport: None,
            idle_ms: 0,
            packets: None,
            bytes: None,
            mtu: 0,
            iif: 0,
            hook: None,
            devices: Vec::new(),
            encap: Vec::new(),
            tunnel: None,
            oif: 0,
            direct: false,
            ipsec: false,
            ruleset: false,
            next_hop: None,
            next_hop_mac: None,
            next_hop_state: None,
        }
    }
}

/// `NUD_*`, include/uapi/linux/neighbour.h.
fn neighbour_state(state: u64) -> &'static str {
    match state {
        0x01 => "incomplete",
        0x02 => "reachable",
        0x04 => "stale",
        0x08 => "delay",
        0x10 => "probe",
        0x20 => "failed",
        0x40 => "noarp",
        0x80 => "permanent",
        _ => "none",
    }
}

impl Direction {
    fn decode(payload: &[u8]) -> Self {
        let mut this = Self::default();

        for (kind, payload) in attrs(payload) {
            let n = || number(payload);

            match kind {
                1 | 3 => this.src = address(payload).unwrap_or(this.src),
                2 | 4 => this.dst = address(payload).unwrap_or(this.dst),
                5 => this.sport = Some(n() as u16),
                6 => this.dport = Some(n() as u16),
                7 => this.idle_ms = n(),
                8 => this.packets = Some(n()),
                9 => this.bytes = Some(n()),
                10 => this.mtu = n(),
                11 => this.iif = n() as u32,
                12 => this.hook = Some(n() as u32),
                13 => this.devices = payload.chunks(4).map(|c| number(c) as u32).collect(),
                14 => this.encap.push(Encap {
                    ethertype: find_attr(payload, 1).map_or(0, number) as u16,
                    id: find_attr(payload, 2).map_or(0, number) as u16,
                }),
                15 => this.tunnel = Some(n() as u8),
                16 => this.oif = n() as u32,
                17 => this.direct = true,
                18 => this.ipsec = true,
                19 => this.ruleset = true,
                20 | 21 => this.next_hop = address(payload),
                22 => {
                    let bytes: Vec<_> = payload.iter().map(|b| format!("{b:02x}")).collect();
                    this.next_hop_mac = Some(bytes.join(":"));
                }
                23 => this.next_hop_state = Some(neighbour_state(n())),
                _ => {}
            }
        }
        this
    }
}

/// A flow; or why there is none, which only an answer about one connection has.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub(crate) struct Flow {
    pub(crate) family: &'static str,
    pub(crate) table: String,
    pub(crate) flowtable: String,
    pub(crate) l4proto: u8,
    pub(crate) tier: Tier,
    pub(crate) age_ms: u64,
    pub(crate) zone: u16,
    pub(crate) mark: u32,
    pub(crate) snat: bool,
    pub(crate) dnat: bool,
    pub(crate) fast_bytes: Option<u64>,
    pub(crate) original: Direction,
    pub(crate) reply: Direction,
    #[serde(skip)]
    pub(crate) skip: Option<String>,
    #[serde(skip)]
    pub(crate) skip_age_ms: u64,
}

impl Flow {
    fn decode(payload: &[u8]) -> Self {
        let mut this = Self::default();

        for (kind, payload) in attrs(payload) {
            let n = || number(payload);

            match kind {
                1 => this.family = family_name(n() as u8),
                2 => this.table = text(payload),
                3 => this.flowtable = text(payload),
                9 => this.mark = n() as u32,
                11 => this.l4proto = n() as u8,
                13 => {
                    this.tier = match n() {
                        2 => Tier::Partial,
                        3 => Tier::Hardware,
                        _ => Tier::Software,
                    }
                }
                20 => this.zone = n() as u16,
                21 => this.original = Direction::decode(payload),
                22 => this.reply = Direction::decode(payload),
                23 => this.age_ms = n(),
                24 => this.skip = Some(text(payload)),
                25 => this.skip_age_ms = n(),
                26 => (this.snat, this.dnat) = (n() & 1 != 0, n() & 2 != 0),
                27 => this.fast_bytes = Some(n()),
                _ => {}
            }
        }
        this
    }

    /// Bytes of both directions, as far as somebody has counted them.
    pub(crate) fn bytes(&self) -> Option<u64> {
        let [a, b] = [&self.original, &self.reply].map(|dir| dir.bytes);

        match (a, b) {
            (None, None) => self.fast_bytes,
            (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
        }
    }
}

/// Which flows; all that are given together.
#[derive(Debug, Default, Clone)]
pub(crate) struct Filter {
    pub(crate) table: Option<String>,
    pub(crate) flowtable: Option<String>,
    pub(crate) device: Option<String>,
    pub(crate) prefix: Option<(IpAddr, u8)>,
    pub(crate) mark: Option<(u32, u32)>,
    pub(crate) l4proto: Option<u8>,
    pub(crate) port: Option<u16>,
    pub(crate) tier: Option<Tier>,
}

impl Filter {
    /// The attributes that a flush has as well.
    fn encode(&self, request: &mut Vec<u8>) {
        for (kind, name) in [(2, &self.table), (3, &self.flowtable), (5, &self.device)] {
            if let Some(name) = name {
                put_string(request, kind, name);
            }
        }
        if let Some((addr, len)) = self.prefix {
            match addr {
                IpAddr::V4(addr) => put(request, 6, &addr.octets()),
                IpAddr::V6(addr) => put(request, 7, &addr.octets()),
            }
            put(request, 8, &[len]);
        }
        if let Some((value, mask)) = self.mark {
            put(request, 9, &value.to_ne_bytes());
            put(request, 10, &mask.to_ne_bytes());
        }
    }

    /// Those that only a dump has.
    fn encode_more(&self, request: &mut Vec<u8>) {
        if let Some(proto) = self.l4proto {
            put(request, 11, &[proto]);
        }
        if let Some(port) = self.port {
            put(request, 12, &port.to_ne_bytes());
        }
        if let Some(tier) = self.tier {
            put(request, 13, &[tier as u8 + 1]);
        }
    }
}

/// Addresses and ports of packets of one direction of a connection, as conntrack has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tuple {
    pub(crate) l4proto: u8,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    /// The source port; the identifier of ICMP, the key of GRE.
    pub(crate) sport: u16,
    /// The destination port; type and code of ICMP, the other key of GRE.
    pub(crate) dport: u16,
    pub(crate) zone: u16,
}

impl Tuple {
    /// Source and destination port, where the protocol has ports.
    pub(crate) fn ports(&self) -> [Option<u16>; 2] {
        let has = matches!(self.l4proto, 6 | 17 | 33 | 132 | 136);

        [self.sport, self.dport].map(|port| has.then_some(port))
    }

    fn encode(&self, request: &mut Vec<u8>) {
        put(request, 11, &[self.l4proto]);
        for (v4, v6, addr) in [(14, 16, self.src), (15, 17, self.dst)] {
            match addr {
                IpAddr::V4(addr) => put(request, v4, &addr.octets()),
                IpAddr::V6(addr) => put(request, v6, &addr.octets()),
            }
        }
        put(request, 18, &self.sport.to_ne_bytes());
        put(request, 19, &self.dport.to_ne_bytes());
        put(request, 20, &self.zone.to_ne_bytes());
    }
}

/// What a counter is one of.
pub(crate) const GROUPS: [&str; 4] = ["counter", "skip", "miss", "teardown"];

/// A counter of the machine: group, name, and how often.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub(crate) struct Counter {
    pub(crate) group: &'static str,
    pub(crate) name: String,
    pub(crate) count: u64,
}

/// The module, as it is reached by netlink.
pub(crate) struct Kernel {
    netlink: Netlink,
    family: u16,
}

impl Kernel {
    /// Finds the module; none if it is not loaded.
    pub(crate) fn open() -> Result<Option<Self>> {
        let mut netlink = Netlink::open(NETLINK_GENERIC)?;
        let mut request = vec![CTRL_CMD_GETFAMILY, 1, 0, 0];
        let mut family = None;

        put_string(&mut request, CTRL_ATTR_FAMILY_NAME, "nft_offload");
        let found = netlink.ask(GENL_ID_CTRL, 0, &request, |payload| {
            let attrs = payload.get(4..).unwrap_or(&[]);
            family = find_attr(attrs, CTRL_ATTR_FAMILY_ID).map(|id| number(id) as u16);
            Ok(())
        });
        match found {
            Err(e) if is_errno(&e, Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e),
            Ok(_) => {}
        }
        let family =
            family.ok_or_else(|| anyhow!("the kernel does not say its family's number"))?;
        Ok(Some(Self { netlink, family }))
    }

    fn ask(
        &mut self,
        command: u8,
        flags: u16,
        encode: impl FnOnce(&mut Vec<u8>),
        mut each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let mut request = vec![command, 1, 0, 0];

        encode(&mut request);
        self.netlink.ask(self.family, flags, &request, |payload| {
            each(payload.get(4..).unwrap_or(&[]))
        })
    }

    /// Says which module it is.
    pub(crate) fn info(&mut self) -> Result<Info> {
        let mut info = Info::default();

        self.ask(
            command::INFO_GET,
            0,
            |_| {},
            |payload| {
                for (kind, payload) in attrs(payload) {
                    match kind {
                        1 => info.version = text(payload),
                        2 => info.interface = number(payload) as u32,
                        3 => info.flowtables = number(payload) as u32,
                        4 => info.flows = number(payload) as u32,
                        5 => info.dscp_restored = true,
                        _ => {}
                    }
                }
                Ok(())
            },
        )?;
        Ok(info)
    }

    /// The flowtables of the namespace.
    pub(crate) fn tables(&mut self) -> Result<Vec<Table>> {
        let mut tables = Vec::new();

        self.ask(
            command::TABLE_GET,
            NLM_F_DUMP,
            |_| {},
            |payload| {
                let mut table = Table::default();

                for (kind, payload) in attrs(payload) {
                    let n = number(payload);

                    match kind {
                        1 => table.family = family_name(n as u8),
                        2 => table.table = text(payload),
                        3 => table.flowtable = text(payload),
                        4 => (table.offload, table.counter) = (n & 1 != 0, n & 2 != 0),
                        5 | 6 => table.flows += n,
                        7 | 8 => table.buckets += n,
                        9 | 10 => table.packets += n,
                        11 | 12 => table.bytes += n,
                        13 => table.waiting = n,
                        15 => table.volatile = text(payload),
                        _ => {}
                    }
                }
                tables.push(table);
                Ok(())
            },
        )?;
        Ok(tables)
    }

    /// Gives the flows to `each`. False if they have changed so much meanwhile that some may be
    /// there twice, or not.
    pub(crate) fn flows(
        &mut self,
        filter: &Filter,
        mut each: impl FnMut(Flow) -> Result<()>,
    ) -> Result<bool> {
        let encode = |request: &mut Vec<u8>| {
            filter.encode(request);
            filter.encode_more(request);
        };

        self.ask(command::FLOW_GET, NLM_F_DUMP, encode, |payload| {
            each(Flow::decode(payload))
        })
    }

    /// The flow of a connection, or why there is none.
    pub(crate) fn flow(&mut self, tuple: &Tuple) -> Result<Flow> {
        let mut flow = Flow::default();

        self.ask(
            command::FLOW_GET,
            0,
            |request| tuple.encode(request),
            |payload| {
                flow = Flow::decode(payload);
                Ok(())
            },
        )?;
        Ok(flow)
    }

    /// Takes flows down, and says how many.
    pub(crate) fn flush(&mut self, filter: &Filter) -> Result<u64> {
        let mut flows = 0;

        self.ask(
            command::FLUSH,
            0,
            |request| filter.encode(request),
            |payload| {
                flows = find_attr(payload, 11).map_or(0, number);
                Ok(())
            },
        )?;
        Ok(flows)
    }

    /// The counters of the machine.
    pub(crate) fn stats(&mut self) -> Result<Vec<Counter>> {
        let mut counters = Vec::new();

        self.ask(
            command::STATS_GET,
            NLM_F_DUMP,
            |_| {},
            |payload| {
                let group = find_attr(payload, 1).map_or(0, number) as usize;

                counters.push(Counter {
                    group: GROUPS.get(group.wrapping_sub(1)).unwrap_or(&"unknown"),
                    name: find_attr(payload, 2).map(text).unwrap_or_default(),
                    count: find_attr(payload, 3).map_or(0, number),
                });
                Ok(())
            },
        )?;
        Ok(counters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers above are those of the specification.
    #[test]
    fn as_the_specification_says() {
        let spec = include_str!("../../../netlink/nft_offload.yaml");
        let set = |name: &str| -> Vec<String> {
            let from = spec.find(&format!("  -\n    name: {name}\n")).unwrap();
            let attrs = spec[from..].find("    attributes:\n").unwrap() + from;
            spec[attrs..]
                .lines()
                .skip(1)
                .take_while(|line| line.starts_with("      "))
                .filter_map(|line| line.strip_prefix("        name: "))
                .map(str::to_owned)
                .collect()
        };
        let at = |set: &[String], name: &str| set.iter().position(|attr| attr == name).unwrap() + 1;

        let flow = set("flow");
        for (name, number) in [
            ("nfproto", 1),
            ("ifname", 5),
            ("prefix-len", 8),
            ("mark-mask", 10),
            ("l4proto", 11),
            ("tier", 13),
            ("source-ipv4", 14),
            ("destination-ipv6", 17),
            ("zone", 20),
            ("original", 21),
            ("skip", 24),
            ("nat", 26),
            ("fast-bytes", 27),
        ] {
            assert_eq!(at(&flow, name), number, "{name}");
        }
        assert_eq!(set("flush")[..10], flow[..10]);
        assert_eq!(at(&set("flush"), "flows"), 11);
        let direction = set("direction");
        for (name, number) in [
            ("idle", 7),
            ("mtu", 10),
            ("devices", 13),
            ("oif", 16),
            ("ruleset", 19),
            ("next-hop-state", 23),
        ] {
            assert_eq!(at(&direction, name), number, "{name}");
        }
        assert_eq!(at(&set("table"), "volatile"), 15);
        assert_eq!(set("info").len(), 5);
        for (name, number) in [
            ("flush", command::FLUSH),
            ("info-get", command::INFO_GET),
            ("table-get", command::TABLE_GET),
            ("flow-get", command::FLOW_GET),
            ("stats-get", command::STATS_GET),
        ] {
            assert!(spec.contains(&format!("      name: {name}\n      value: {number}\n")));
        }
    }

    #[test]
    fn a_flow_is_decoded() {
        let mut dir = Vec::new();
        put(&mut dir, 1, &[10, 0, 0, 1]);
        put(&mut dir, 2, &[10, 0, 0, 2]);
        put(&mut dir, 5, &4000_u16.to_ne_bytes());
        put(&mut dir, 9, &(1_u64 << 40).to_ne_bytes());
        put(&mut dir, 13, &[1, 0, 0, 0, 2, 0, 0, 0]);
        put(&mut dir, 19, &[]);
        put(&mut dir, 22, &[2, 0, 0, 0, 0, 0xfe]);
        put(&mut dir, 23, &[4]);
        put(&mut dir, 99, b"from the future");
        let mut all = Vec::new();
        put(&mut all, 1, &[1]);
        put_string(&mut all, 2, "t");
        put(&mut all, 13, &[3]);
        put(&mut all, 26, &[2]);
        put(&mut all, 21 | 0x8000, &dir);

        let flow = Flow::decode(&all);
        assert_eq!(
            (flow.family, &flow.table[..], flow.tier),
            ("inet", "t", Tier::Hardware)
        );
        assert_eq!((flow.snat, flow.dnat), (false, true));
        let dir = &flow.original;
        assert_eq!(dir.src, IpAddr::from([10, 0, 0, 1]));
        assert_eq!((dir.sport, dir.bytes), (Some(4000), Some(1 << 40)));
        assert_eq!(
            dir.devices,
            if cfg!(target_endian = "little") {
                vec![1, 2]
            } else {
                vec![1 << 24, 2 << 24]
            }
        );
        assert!(dir.ruleset && !dir.ipsec);
        assert_eq!(dir.next_hop_mac.as_deref(), Some("02:00:00:00:00:fe"));
        assert_eq!(dir.next_hop_state, Some("stale"));
        assert_eq!(flow.bytes(), Some(1 << 40));
        // What is cut off does not make anything else of it.
        for end in 0..all.len() {
            Flow::decode(&all[..end]);
        }
    }
}
