// SPDX-License-Identifier: GPL-2.0

//! A flow, as the module tells about it.

use crate::{
    kernel::family_name,
    netlink::{
        address,
        attrs,
        number,
        text, //
    }, //
};
use netlink_bindings::utils::find_attr;
use serde::Serialize;
use std::net::{
    IpAddr,
    Ipv4Addr, //
};

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
    pub(crate) fn decode(payload: &[u8]) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{
        put,
        put_string, //
    };

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
