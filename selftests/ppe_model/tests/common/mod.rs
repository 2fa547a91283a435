// SPDX-License-Identifier: GPL-2.0

//! What the tests of entries on frames share: an engine whose table both sides have, and the frames
//! that software makes.

#![allow(dead_code)] // no test uses all of it

use mtk_foe::encode::Board;
use mtk_foe::ppe::Slot;
use mtk_foe::regs::Window;
use mtk_foe::seq::{Addresses, Ageing};
use mtk_foe::soc::Soc;
use mtk_foe::{Memory, Ppe, ENTRIES};
use nft_flow::desc::*;
use nft_flow::key::{IngressId, L4Proto};
use nft_flow::parse;
use nft_flow::rewrite::{apply, Csum, Rewrite4, Rewrite6};
use ppe_model::{checksum, Config, Engine, Generation, Verdict};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Registers that nothing is behind.
#[derive(Default)]
pub(crate) struct Mute(Rc<Cell<u32>>);

impl Window for Mute {
    fn read(&self, _: u32) -> u32 {
        0
    }
    fn write(&self, _: u32, _: u32) {}
    fn clock(&self) -> u32 {
        self.0.get()
    }
    fn wait_us(&self, _: u32) {}
}

/// One table for both.
#[derive(Clone)]
pub(crate) struct Table(Rc<RefCell<Vec<u8>>>);

impl Memory for Table {
    fn load(&self, word: usize) -> u32 {
        u32::from_le_bytes(self.0.borrow()[4 * word..4 * word + 4].try_into().unwrap())
    }
    fn store(&self, word: usize, value: u32) {
        self.0.borrow_mut()[4 * word..4 * word + 4].copy_from_slice(&value.to_le_bytes());
    }
    fn barrier(&self) {}
}

pub(crate) struct World {
    pub(crate) ppe: Ppe<Mute, Table, Vec<Slot>>,
    pub(crate) model: Engine,
    pub(crate) table: Table,
    pub(crate) clock: Rc<Cell<u32>>,
}

pub(crate) const BOARD: Board = Board {
    macs: [1, 2, 3],
    mtu: 1500,
};

pub(crate) fn world(soc: &'static Soc) -> World {
    let generation = match soc.hal.version() {
        1 => Generation::V1,
        2 => Generation::V2,
        _ => Generation::V3,
    };
    let model = Engine::new(Config {
        radios: soc.port_mg == 0,
        ..Config::new(generation)
    });
    assert_eq!(model.table_size(), soc.table_size());
    let table = Table(Rc::new(RefCell::new(vec![0; soc.table_size()])));
    let clock = Rc::new(Cell::new(0));
    let slots = vec![Slot::default(); ENTRIES];
    let mut ppe = Ppe::new(soc, Mute(clock.clone()), table.clone(), slots).unwrap();
    ppe.start(
        Addresses {
            table: 0,
            counters: Some(0),
        },
        &Ageing::default(),
        1500,
    );
    World {
        ppe,
        model,
        table,
        clock,
    }
}

impl World {
    pub(crate) fn receive(&mut self, frame: &[u8]) -> Verdict {
        self.model
            .receive(&mut self.table.0.borrow_mut()[..], frame)
    }

    pub(crate) fn tick(&mut self, now: u32) {
        self.clock.set(now);
        self.model.now = now;
        self.model.scan(&mut self.table.0.borrow_mut()[..]);
    }
}

/// An IP packet of a flow, with right checksums.
pub(crate) fn packet(proto: u8, t: &Tuple, ttl: u8, data: &[u8], no_sum: bool) -> Vec<u8> {
    let Ports { src, dst } = t.ports.unwrap();
    let mut l4 = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    let at = if proto == 6 {
        l4.extend([1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
        16
    } else {
        l4.extend((8 + data.len() as u16).to_be_bytes());
        l4.extend([0, 0]);
        6
    };
    l4.extend(data);
    let len = l4.len() as u16;
    let (mut ip, pseudo) = match &t.addrs {
        Addrs::V4 { src, dst } => {
            let mut ip = vec![0x45, 0x28, 0, 0, 0x12, 0x34, 0x40, 0, ttl, proto, 0, 0];
            ip[2..4].copy_from_slice(&(20 + len).to_be_bytes());
            ip.extend(src.iter().chain(dst));
            let sum = checksum(0, &ip);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            (ip, [&src[..], &dst[..]].concat())
        }
        Addrs::V6 { src, dst } => {
            let mut ip = vec![0x60, 1, 2, 3];
            ip.extend(len.to_be_bytes());
            ip.extend([proto, ttl]);
            ip.extend(src.iter().chain(dst));
            (ip, [&src[..], &dst[..]].concat())
        }
    };
    if !(no_sum && proto == 17) {
        let partial = u32::from(!checksum(u32::from(proto) + u32::from(len), &pseudo));
        let sum = match checksum(partial, &l4) {
            0 if proto == 17 => 0xffff,
            sum => sum,
        };
        l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    ip.extend(l4);
    ip
}

/// What is around a packet, from a description.
pub(crate) fn around(
    macs: &Macs,
    layers: &Layers,
    special: Option<u8>,
    packet: &[u8],
    v6: bool,
) -> Vec<u8> {
    let mut out = [macs.dst, macs.src].concat();
    let mut special = special;
    for layer in layers.iter() {
        match layer {
            Layer::Vlan { proto, vid, pcp } => {
                // The tag of the switch and the outer VLAN tag are one.
                match special.take() {
                    Some(port) => out.extend([1, 1 << port]),
                    None => out.extend(proto.to_be_bytes()),
                }
                out.extend(((u16::from(pcp.unwrap_or(0)) << 13) | vid).to_be_bytes());
            }
            Layer::Pppoe { session } => {
                if let Some(port) = special.take() {
                    out.extend([0, 1 << port, 0, 0]);
                }
                out.extend([0x88, 0x64, 0x11, 0]);
                out.extend(session.to_be_bytes());
                out.extend((packet.len() as u16 + 2).to_be_bytes());
                out.extend(if v6 { [0, 0x57] } else { [0, 0x21] });
                out.extend(packet);
                return out;
            }
        }
    }
    if let Some(port) = special {
        out.extend([0, 1 << port, 0, 0]);
    }
    out.extend(if v6 { [0x86, 0xdd] } else { [8, 0] });
    out.extend(packet);
    out
}

/// What the software path makes of a packet.
pub(crate) fn software(desc: &FlowDesc, packet: &[u8]) -> Vec<u8> {
    let Kind::Routed {
        proto, rewritten, ..
    } = desc.kind
    else {
        panic!()
    };
    let proto = L4Proto::from_number(proto).unwrap();
    let ingress = IngressId::from_ifindex(1).unwrap();
    let mut packet = packet.to_vec();
    let Ports { src, dst } = rewritten.ports.unwrap();
    let ports = nft_flow::key::ports(src, dst);
    match rewritten.addrs {
        Addrs::V4 { src, dst } => {
            let key = parse::ipv4(&packet, packet.len(), ingress).unwrap().key;
            let to = Rewrite4::new(
                &key,
                u32::from_ne_bytes(src),
                u32::from_ne_bytes(dst),
                ports,
            );
            apply(&mut packet, proto, &to, Csum::Full).unwrap();
        }
        Addrs::V6 { .. } => {
            let key = parse::ipv6(&packet, packet.len(), ingress).unwrap().key;
            apply(&mut packet, proto, &Rewrite6::identity(&key), Csum::Full).unwrap();
        }
    }
    let special = match desc.egress.port.via {
        Via::Dsa { port, .. } => Some(port),
        _ => None,
    };
    around(
        &desc.egress.macs,
        &desc.egress.layers,
        special,
        &packet,
        desc.is_v6(),
    )
}

/// The link-layer addresses of frames that come in.
pub(crate) const IN: Macs = Macs {
    src: [2, 0, 0, 0, 0, 9],
    dst: [2, 0, 0, 0, 0, 1],
};
