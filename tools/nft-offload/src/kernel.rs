// SPDX-License-Identifier: GPL-2.0

//! The generic netlink family `nft_offload`, as `netlink/nft_offload.yaml` says.

use crate::{
    flow::{
        Flow,
        Tier, //
    },
    netlink::{
        attrs,
        is_errno,
        number,
        put,
        put_string,
        text,
        Netlink,
        NLM_F_DUMP, //
    }, //
};
use anyhow::{
    anyhow,
    Result, //
};
use netlink_bindings::utils::find_attr;
use netlink_sys::protocols::NETLINK_GENERIC;
use rustix::io::Errno;
use serde::Serialize;
use std::net::IpAddr;

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
}
