// SPDX-License-Identifier: GPL-2.0

//! What is written to the registers to start, stop and reset an engine, in this order.

use crate::regs::{
    self,
    cache_ctl,
    glo_cfg,
    mib_cache_ctl,
    mib_cfg,
    tb_cfg,
    Window, //
};
use crate::soc::Soc;

/// The engine did not become idle within a second, or does not answer at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeout;

/// When the engine lets go of entries by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ageing {
    /// Ticks without a packet for UDP.
    pub udp: u16,
    /// For TCP.
    pub tcp: u16,
    /// For TCP that is over.
    pub fin: u16,
    /// For protocols without ports.
    pub non_l4: u16,
}

impl Default for Ageing {
    /// Well below what conntrack allows: an entry that is gone is made again, by the next packets.
    fn default() -> Self {
        Ageing {
            udp: 12,
            tcp: 7,
            fin: 1,
            non_l4: 1,
        }
    }
}

/// Where things are in the memory that the engine reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// The table.
    pub table: u32,
    /// The counters, if packets are counted.
    pub counters: Option<u32>,
}

/// Makes the engine forget what it has read of the table.
pub fn cache_clear(w: &impl Window) {
    w.modify(regs::CACHE_CTL, 0, cache_ctl::CLEAR);
    w.modify(regs::CACHE_CTL, cache_ctl::CLEAR, 0);
}

fn wait_idle(w: &impl Window, reg: u32, busy: u32) -> Result<(), Timeout> {
    const STEP_US: u32 = 20;

    for _ in 0..1_000_000 / STEP_US {
        match w.read(reg) {
            // The device is gone.
            u32::MAX => break,
            value if value & busy == 0 => return Ok(()),
            _ => w.wait_us(STEP_US),
        }
    }
    Err(Timeout)
}

/// Starts an engine with an empty table.
pub fn start(w: &impl Window, soc: &Soc, at: Addresses, ageing: &Ageing) {
    w.write(regs::TB_BASE, at.table);
    w.write(
        regs::TB_CFG,
        tb_cfg::AGEING
            | tb_cfg::MISS_FORWARD_BUILD
            | tb_cfg::HASH_MODE_1
            | tb_cfg::SCAN_AGE
            | crate::ENTRIES_SHIFT
            | soc.hal.tb_cfg(),
    );
    w.write(regs::IP_PROTO_CHK, u32::MAX);
    cache_clear(w);
    w.modify(regs::CACHE_CTL, 0, cache_ctl::EN);
    w.write(regs::FLOW_CFG, soc.hal.flow_cfg());

    // Unbound entries: three ticks, or fewer than 1000 packets.
    w.write(regs::UNBIND_AGE, (1000 << 16) | 3);
    let pair = |high: u16, low: u16| (u32::from(high) << 16) | u32::from(low);
    w.write(regs::BIND_AGE0, pair(ageing.non_l4, ageing.udp));
    w.write(regs::BIND_AGE1, pair(ageing.fin, ageing.tcp));
    // As many as there are slots, at any filling.
    w.write(regs::BIND_LIMIT0, 0x3fff_3fff);
    w.write(regs::BIND_LIMIT1, (1 << 16) | 0x3fff);
    w.write(regs::BIND_RATE, (1 << 16) | 30);
    w.write(
        regs::GLO_CFG,
        glo_cfg::EN | glo_cfg::IP4_L4_CS_DROP | glo_cfg::IP4_CS_DROP | glo_cfg::FLOW_DROP_UPDATE,
    );
    w.write(regs::DEFAULT_CPU_PORT, 0);
    for &(reg, value) in soc.hal.start_writes() {
        w.write(reg, value);
    }

    if let Some(counters) = at.counters.filter(|_| soc.counts) {
        w.write(regs::MIB_TB_BASE, counters);
        w.modify(regs::MIB_CFG, 0, mib_cfg::EN);
        w.modify(regs::MIB_CFG, 0, mib_cfg::READ_CLEARS);
        // Quirk B5.
        w.modify(regs::MIB_CACHE_CTL, 0, mib_cache_ctl::EN);
    }
}

/// Stops an engine, whose table is free of entries already.
///
/// # Errors
///
/// [`Timeout`] if it goes on working; it is not switched off then.
pub fn stop(w: &impl Window) -> Result<(), Timeout> {
    cache_clear(w);
    w.modify(regs::CACHE_CTL, cache_ctl::EN, 0);
    w.modify(regs::TB_CFG, tb_cfg::AGEING | tb_cfg::SCAN, 0);
    wait_idle(w, regs::GLO_CFG, glo_cfg::BUSY)?;
    w.modify(regs::GLO_CFG, glo_cfg::EN, 0);
    w.write(regs::FLOW_CFG, 0);
    Ok(())
}

/// Makes an engine ready for a reset of the frame engine: it sends nothing by itself any more.
///
/// # Errors
///
/// [`Timeout`] if it goes on working.
pub fn prepare_reset(w: &impl Window) -> Result<(), Timeout> {
    const SETTLE_US: u32 = 10_000;

    // No keepalive packets.
    w.modify(regs::TB_CFG, tb_cfg::KEEPALIVE, 0);
    w.modify(regs::BIND_LIMIT1, regs::NTU_KEEPALIVE, 0);
    w.write(regs::KEEPALIVE, 0);
    w.wait_us(SETTLE_US);

    // And should the timer run nevertheless, then for as long as it can.
    w.modify(regs::BIND_LIMIT1, 0, regs::NTU_KEEPALIVE);
    w.write(regs::KEEPALIVE, u32::MAX);
    w.modify(regs::TB_CFG, 0, tb_cfg::TICK_SEL);
    w.modify(regs::TB_CFG, 0, tb_cfg::KEEPALIVE);
    w.wait_us(SETTLE_US);

    w.modify(regs::TB_CFG, tb_cfg::SCAN, 0);
    w.wait_us(SETTLE_US);

    wait_idle(w, regs::GLO_CFG, glo_cfg::BUSY)
}

/// Bytes of a frame without a tag around a packet.
const ETH_HLEN: u32 = 14;
/// Bytes of a tag.
pub(crate) const TAG: u32 = 4;

/// Sets the largest frames, for packets of `mtu` bytes. The engine takes a PPPoE header and a
/// switch's tag for VLAN tags.
pub fn set_mtu(w: &impl Window, mtu: u16) {
    let frame = |tags: u32| ETH_HLEN + u32::from(mtu) + tags * TAG;

    w.write(regs::VLAN_MTU0, (frame(1) << 16) | frame(0));
    w.write(regs::VLAN_MTU1, (frame(3) << 16) | frame(2));
}

/// Reads the counter of a slot, and clears it.
///
/// # Errors
///
/// [`Timeout`] if nothing was read.
pub fn read_counter(
    w: &impl Window,
    soc: &Soc,
    slot: u16,
) -> Result<crate::mib::Counters, Timeout> {
    use regs::mib_ser_cr;

    w.write(
        regs::MIB_SER_CR,
        mib_ser_cr::START | u32::from(slot) & mib_ser_cr::ADDR,
    );
    wait_idle(w, regs::MIB_SER_CR, mib_ser_cr::START)?;

    let mut words = [0; 4];
    for ((n, word), _) in (0u32..).zip(&mut words).zip(0..soc.hal.counter_regs()) {
        *word = w.read(regs::MIB_SER_R0 + 4 * n);
    }
    Ok(soc.hal.counters(words))
}
