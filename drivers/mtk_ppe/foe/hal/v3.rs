// SPDX-License-Identifier: GPL-2.0

//! The third generation: as the second, with entries of 128 bytes, more stations, and counters
//! of 64 bits.

use super::{
    v2,
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
use crate::regs::tb_cfg;
use nft_flow::desc::{
    Unsupported,
    Wdma, //
};

const W3INFO_WCID: Field = Field::new(15, 0);
const W3INFO_BSS: Field = Field::new(23, 16);
const AMSDU_EN: Field = Field::bit(24);

pub(super) struct V3;

impl Hal for V3 {
    fn version(&self) -> u32 {
        3
    }

    fn entry_size(&self) -> usize {
        128
    }

    fn ib1(&self) -> &'static Ib1 {
        &v2::IB1
    }

    fn ib2(&self, out: &Out, _port_mg: u32) -> u32 {
        v2::ib2(out)
    }

    fn counted(&self) -> u32 {
        v2::COUNTED
    }

    fn wdma_port(&self, wdma: &Wdma) -> Result<u32, Unsupported> {
        // Any number has room.
        v2::wdma_port(wdma, true)
    }

    fn set_wdma(&self, foe: &mut Foe, of: PacketType, wdma: &Wdma) {
        let base = of.places().l2;

        foe.set_word(
            base + l2::W3INFO,
            W3INFO_WCID.put(wdma.wcid.into()) | W3INFO_BSS.put(wdma.bss.into()),
        );
        foe.set_word(base + l2::AMSDU, AMSDU_EN.put(u32::from(wdma.amsdu)));
    }

    fn counters(&self, regs: [u32; 4]) -> Counters {
        mib::wide(regs)
    }

    fn counter_regs(&self) -> usize {
        4
    }

    fn tb_cfg(&self) -> u32 {
        tb_cfg::INFO_SEL
    }

    fn flow_cfg(&self) -> u32 {
        v2::FLOW_CFG
    }

    fn start_writes(&self) -> &'static [(u32, u32)] {
        v2::START
    }
}
