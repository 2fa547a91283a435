// SPDX-License-Identifier: GPL-2.0

//! The second generation: entries of 96 bytes, an 8-bit clock, three radios.

use super::{
    Hal,
    Ib1,
    Out, //
};
use crate::entry::{
    l2,
    Field,
    Foe,
    PacketType, //
};
use crate::mib::{
    self,
    Counters, //
};
use crate::regs::{
    self,
    flow_cfg,
    tb_cfg, //
};
use nft_flow::desc::{
    Unsupported,
    Wdma, //
};

pub(super) static IB1: Ib1 = Ib1 {
    timestamp: Field::new(7, 0),
    vlan_layer: Field::new(16, 14),
    pppoe: Field::bit(17),
    vlan_tag: Field::bit(18),
    cache: Field::bit(20),
    ttl: Field::bit(22),
    packet_type: Field::new(27, 23),
};

const QID: Field = Field::new(6, 0);
const PSE_QOS: Field = Field::bit(8);
const DEST_PORT: Field = Field::new(12, 9);
const MIB_CNT: Field = Field::bit(15);
pub(super) const RX_IDX: Field = Field::new(18, 17);
const WDMA_WINFO: Field = Field::bit(19);
const PORT_AG: Field = Field::new(23, 20);

const WINFO_BSS: Field = Field::new(5, 0);
const WINFO_WCID: Field = Field::new(15, 6);

/// The ports of the packet switching engine that the radios are behind.
const PSE_WDMA: [u32; 3] = [8, 9, 13];

/// Ports 1 to 5 of the CPU by kind of packet, and the switch bandwidth: what the vendor's own
/// driver writes.
pub(super) const START: &[(u32, u32)] = &[
    (regs::DEFAULT_CPU_PORT1, 0x000c_b777),
    (regs::SBW_CTRL, 0x7f),
];

pub(super) fn ib2(out: &Out) -> u32 {
    let mut ib2 = DEST_PORT.put(out.pse_port) | PORT_AG.put(0xf);

    if let Some(wdma) = &out.wdma {
        ib2 |= RX_IDX.put(wdma.queue.into()) | WDMA_WINFO.mask();
    }
    if let Some(queue) = out.queue {
        ib2 |= QID.put(queue) | PSE_QOS.mask();
    }
    ib2
}

pub(super) fn wdma_port(wdma: &Wdma, fits: bool) -> Result<u32, Unsupported> {
    PSE_WDMA
        .get(usize::from(wdma.index))
        .copied()
        .filter(|_| fits && RX_IDX.fits(wdma.queue.into()))
        .ok_or(Unsupported::PortNumber)
}

pub(super) const COUNTED: u32 = MIB_CNT.mask();
pub(super) const FLOW_CFG: u32 =
    flow_cfg::COMMON | flow_cfg::BYPASS_REASONS | flow_cfg::IP4_GRE_KEY;

pub(super) struct V2;

impl Hal for V2 {
    fn version(&self) -> u32 {
        2
    }

    fn entry_size(&self) -> usize {
        96
    }

    fn ib1(&self) -> &'static Ib1 {
        &IB1
    }

    fn ib2(&self, out: &Out, _port_mg: u32) -> u32 {
        ib2(out)
    }

    fn counted(&self) -> u32 {
        COUNTED
    }

    fn wdma_port(&self, wdma: &Wdma) -> Result<u32, Unsupported> {
        wdma_port(
            wdma,
            WINFO_BSS.fits(wdma.bss.into()) && WINFO_WCID.fits(wdma.wcid.into()),
        )
    }

    fn set_wdma(&self, foe: &mut Foe, of: PacketType, wdma: &Wdma) {
        let info = WINFO_BSS.put(wdma.bss.into()) | WINFO_WCID.put(wdma.wcid.into());

        foe.set_l2_half(of, l2::WINFO, info as u16);
    }

    fn counters(&self, regs: [u32; 4]) -> Counters {
        mib::narrow(regs)
    }

    fn counter_regs(&self) -> usize {
        3
    }

    fn tb_cfg(&self) -> u32 {
        tb_cfg::INFO_SEL | tb_cfg::ENTRY_80B
    }

    fn flow_cfg(&self) -> u32 {
        FLOW_CFG
    }

    fn start_writes(&self) -> &'static [(u32, u32)] {
        START
    }
}
