// SPDX-License-Identifier: GPL-2.0

//! The first generation: entries of 80 bytes, a 15-bit clock.

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
use crate::regs::flow_cfg;
use nft_flow::desc::{
    Unsupported,
    Wdma, //
};

static IB1: Ib1 = Ib1 {
    timestamp: Field::new(14, 0),
    vlan_layer: Field::new(18, 16),
    pppoe: Field::bit(19),
    vlan_tag: Field::bit(20),
    cache: Field::bit(22),
    ttl: Field::bit(24),
    packet_type: Field::new(27, 25),
};

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

    fn ib1(&self) -> &'static Ib1 {
        &IB1
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
