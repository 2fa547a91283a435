// SPDX-License-Identifier: GPL-2.0

//! The first generation: entries of 80 bytes, a 15-bit clock.

use super::{
    Bind,
    Hal,
    Out, //
};
use crate::entry::{
    ib1,
    l2,
    Field,
    Foe,
    PacketType,
    State, //
};
use crate::mib::{
    self,
    Counters, //
};
use crate::regs::flow_cfg;
use nft_flow::desc::{
    Unsupported,
    Wdma, //
};

const TIMESTAMP: Field = Field::new(14, 0);
const VLAN_LAYER: Field = Field::new(18, 16);
const PPPOE: Field = Field::bit(19);
const VLAN_TAG: Field = Field::bit(20);
const CACHE: Field = Field::bit(22);
const TTL: Field = Field::bit(24);
const PACKET_TYPE: Field = Field::new(27, 25);

const QID: Field = Field::new(3, 0);
const PSE_QOS: Field = Field::bit(4);
const DEST_PORT: Field = Field::new(7, 5);
const MIB_CNT: Field = Field::bit(10);
const WDMA_DEVIDX: Field = Field::bit(16);
const WDMA_WINFO: Field = Field::bit(17);
const PORT_MG: Field = Field::new(17, 12);
const PORT_AG: Field = Field::new(23, 18);

const WINFO_BSS: Field = Field::new(5, 0);
const WINFO_WCID: Field = Field::new(13, 6);
const WINFO_RING: Field = Field::new(15, 14);

/// All WDMA are behind this port.
const PSE_WDMA: u32 = 3;

pub(super) struct V1;

impl Hal for V1 {
    fn version(&self) -> u32 {
        1
    }

    fn entry_size(&self) -> usize {
        80
    }

    fn timestamp_mask(&self) -> u32 {
        TIMESTAMP.mask()
    }

    fn bind(&self, bind: Bind) -> u32 {
        State::Bind.bits()
            | PACKET_TYPE.put(bind.packet_type as u32)
            | ib1::UDP.put(u32::from(bind.udp))
            | CACHE.mask()
            | TTL.mask()
            | VLAN_LAYER.put(bind.vlan_layers)
            | VLAN_TAG.put(u32::from(bind.vlan_tag))
            | PPPOE.put(u32::from(bind.pppoe))
    }

    fn type_number(&self, ib1: u32) -> u32 {
        PACKET_TYPE.get(ib1)
    }

    fn type_mask(&self) -> u32 {
        PACKET_TYPE.mask()
    }

    fn layers(&self, ib1: u32) -> (u32, bool, bool) {
        (
            VLAN_LAYER.get(ib1),
            VLAN_TAG.get(ib1) != 0,
            PPPOE.get(ib1) != 0,
        )
    }

    fn ib2(&self, out: &Out, port_mg: u32) -> u32 {
        let mut ib2 = DEST_PORT.put(out.pse_port) | PORT_AG.put(0x1f);

        match &out.wdma {
            // In the place of the meter group.
            Some(wdma) => {
                ib2 |= WDMA_WINFO.mask() | WDMA_DEVIDX.put(u32::from(wdma.index));
            }
            None => ib2 |= PORT_MG.put(port_mg),
        }
        if let Some(queue) = out.queue {
            ib2 |= QID.put(queue) | PSE_QOS.mask();
        }
        ib2
    }

    fn counted(&self) -> u32 {
        MIB_CNT.mask()
    }

    fn wdma_port(&self, wdma: &Wdma) -> Result<u32, Unsupported> {
        let fits = wdma.index < 2
            && WINFO_BSS.fits(wdma.bss.into())
            && WINFO_WCID.fits(wdma.wcid.into())
            && WINFO_RING.fits(wdma.queue.into());

        if fits {
            Ok(PSE_WDMA)
        } else {
            Err(Unsupported::PortNumber)
        }
    }

    fn set_wdma(&self, foe: &mut Foe, of: PacketType, wdma: &Wdma) {
        let info = WINFO_BSS.put(wdma.bss.into())
            | WINFO_WCID.put(wdma.wcid.into())
            | WINFO_RING.put(wdma.queue.into());

        foe.set_l2_half(of, l2::VLAN2, info as u16);
    }

    fn counters(&self, regs: [u32; 4]) -> Counters {
        mib::narrow(regs)
    }

    fn counter_regs(&self) -> usize {
        3
    }

    fn tb_cfg(&self) -> u32 {
        crate::regs::tb_cfg::ENTRY_80B
    }

    fn flow_cfg(&self) -> u32 {
        flow_cfg::COMMON | flow_cfg::IP4_TCP_FRAG | flow_cfg::IP4_UDP_FRAG
    }

    fn start_writes(&self) -> &'static [(u32, u32)] {
        &[]
    }
}
