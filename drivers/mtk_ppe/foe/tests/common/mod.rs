// SPDX-License-Identifier: GPL-2.0

//! Flows, a table and registers for tests.
#![allow(dead_code)] // Not every test uses everything.

use mtk_foe::encode::Board;
use mtk_foe::ppe::Slot;
use mtk_foe::regs::{self, Window};
use mtk_foe::seq::{Addresses, Ageing};
use mtk_foe::soc::Soc;
use mtk_foe::{Memory, Ppe, ENTRIES};
use nft_flow::desc::*;
use nft_flow::encap::ethertype;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

pub(crate) const WAN_MAC: Mac = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];
pub(crate) const GW_MAC: Mac = [0x40, 0xa6, 0xb7, 0x7c, 0xe3, 0x50];
pub(crate) const LAN_MAC: Mac = [0x02, 0x11, 0x22, 0x33, 0x44, 0x54];
pub(crate) const HOST_MAC: Mac = [0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];

/// Devices 1, 2 and 3 are the MACs.
pub(crate) const BOARD: Board = Board {
    macs: [1, 2, 3],
    mtu: 1500,
};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

pub(crate) fn v4(src: [u8; 4], sport: u16, dst: [u8; 4], dport: u16) -> Tuple {
    Tuple {
        addrs: Addrs::V4 { src, dst },
        ports: Some(Ports {
            src: sport,
            dst: dport,
        }),
    }
}

pub(crate) fn flow(
    proto: u8,
    tuple: Tuple,
    rewritten: Tuple,
    ingress: Port,
    egress: Egress,
) -> FlowDesc {
    FlowDesc {
        kind: Kind::Routed {
            proto,
            tuple,
            rewritten,
        },
        ingress: Ingress {
            port: ingress,
            macs: None,
            layers: Layers::NONE,
            tunnel: None,
        },
        egress,
        marks: Marks::default(),
    }
}

/// Towards the provider: the second MAC.
pub(crate) fn wan(layers: &[Layer]) -> Egress {
    egress(
        Port::plain(2),
        Macs {
            src: WAN_MAC,
            dst: GW_MAC,
        },
        layers,
    )
}

/// Towards a station: a port of the switch behind the first MAC.
pub(crate) fn lan(port: u8, layers: &[Layer]) -> Egress {
    let via = Via::Dsa { port, proto: 9 };
    egress(
        Port { ifindex: 1, via },
        Macs {
            src: LAN_MAC,
            dst: HOST_MAC,
        },
        layers,
    )
}

pub(crate) fn radio(wdma: Wdma) -> Egress {
    Egress {
        port: Port {
            ifindex: 9,
            via: Via::Wdma(wdma),
        },
        ..lan(0, &[])
    }
}

pub(crate) fn egress(port: Port, macs: Macs, layers: &[Layer]) -> Egress {
    let mut all = Layers::NONE;
    for layer in layers {
        assert!(all.push_inner(*layer));
    }
    Egress {
        port,
        macs,
        layers: all,
        tunnel: None,
        mtu: if all.pppoe().is_some() { 1492 } else { 1500 },
    }
}

pub(crate) fn vlan(vid: u16) -> Layer {
    Layer::Vlan {
        proto: ethertype::VLAN,
        vid,
        pcp: None,
    }
}

/// Registers that record what is written. Reads give what was written; nothing is ever busy, and
/// counters can be set.
#[derive(Clone, Default)]
pub(crate) struct Registers(pub(crate) Rc<Inner>);

#[derive(Default)]
pub(crate) struct Inner {
    values: RefCell<HashMap<u32, u32>>,
    pub(crate) trace: RefCell<Vec<(u32, u32)>>,
    pub(crate) clock: Cell<u32>,
    pub(crate) busy: Cell<bool>,
    pub(crate) waited: Cell<u64>,
    /// Packets and bytes of slots, as the first two generations have them.
    pub(crate) counters: RefCell<HashMap<u32, [u32; 4]>>,
}

impl std::ops::Deref for Registers {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Window for Registers {
    fn read(&self, reg: u32) -> u32 {
        if reg == regs::GLO_CFG && self.busy.get() {
            return 1 << 31;
        }
        if reg == regs::MIB_SER_CR {
            return if self.busy.get() { 1 << 16 } else { 0 };
        }
        if (regs::MIB_SER_R0..regs::MIB_SER_R0 + 16).contains(&reg) {
            let n = (reg - regs::MIB_SER_R0) as usize / 4;
            let slot = self.values.borrow()[&regs::MIB_SER_CR] & 0x3fff;
            let mut counters = self.counters.borrow_mut();
            let Some(regs) = counters.get_mut(&slot) else {
                return 0;
            };
            return std::mem::take(&mut regs[n]);
        }
        self.values.borrow().get(&reg).copied().unwrap_or(0)
    }

    fn write(&self, reg: u32, value: u32) {
        self.values.borrow_mut().insert(reg, value);
        self.trace.borrow_mut().push((reg, value));
    }

    fn clock(&self) -> u32 {
        self.clock.get()
    }

    fn wait_us(&self, us: u32) {
        self.waited.set(self.waited.get() + u64::from(us));
    }
}

/// A table that can be looked at while it is in use.
#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) words: Rc<Vec<Cell<u32>>>,
    pub(crate) log: Rc<RefCell<Vec<(usize, u32)>>>,
}

impl Table {
    pub(crate) fn new(soc: &Soc) -> Self {
        Table {
            words: Rc::new(vec![Cell::new(0); soc.table_size() / 4]),
            log: Rc::default(),
        }
    }
}

impl Memory for Table {
    fn load(&self, word: usize) -> u32 {
        self.words[word].get()
    }

    fn store(&self, word: usize, value: u32) {
        self.words[word].set(value);
        let mut log = self.log.borrow_mut();
        if log.len() < 1000 {
            log.push((word, value));
        }
    }

    fn barrier(&self) {}
}

pub(crate) type TestPpe = Ppe<Registers, Table, Vec<Slot>>;

/// An engine that runs.
pub(crate) fn engine(soc: &'static Soc) -> (TestPpe, Registers, Table) {
    let regs = Registers::default();
    let table = Table::new(soc);
    let slots = vec![Slot::default(); ENTRIES];
    let mut ppe = Ppe::new(soc, regs.clone(), table.clone(), slots).unwrap();
    let at = Addresses {
        table: 0x4000_0000,
        counters: Some(0x4100_0000),
    };
    ppe.start(at, &Ageing::default(), 1500);
    table.log.borrow_mut().clear();
    (ppe, regs, table)
}

pub(crate) fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}
