// SPDX-License-Identifier: GPL-2.0

//! Registers of one engine, from the start of its window, and how they are reached.

/// The registers of one engine, and its clock.
pub trait Window {
    /// Reads a register.
    fn read(&self, reg: u32) -> u32;

    /// Writes a register. Everything that was written to memory before is visible to the engine.
    fn write(&self, reg: u32, value: u32);

    /// The clock of the frame engine, in ticks: entries keep its low bits.
    fn clock(&self) -> u32;

    /// Waits for at least `us` microseconds.
    fn wait_us(&self, us: u32);

    /// Clears and sets bits of a register.
    fn modify(&self, reg: u32, clear: u32, set: u32) {
        self.write(reg, self.read(reg) & !clear | set);
    }
}

/// Where the frame engine's clock is, from the start of all its registers.
pub const FE_CLOCK: u32 = 0x0010;
/// Bytes of a window.
pub const WINDOW_SIZE: usize = 0x400;

/// What the engine does at all.
pub const GLO_CFG: u32 = 0x200;
/// Which kinds of packets are looked up.
pub const FLOW_CFG: u32 = 0x204;
/// Protocols without ports that are looked up, as a list.
pub const IP_PROTO_CHK: u32 = 0x208;
/// The table, and its ageing.
pub const TB_CFG: u32 = 0x21c;
/// Where the table is.
pub const TB_BASE: u32 = 0x220;
/// Entries in use.
pub const TB_USED: u32 = 0x224;
/// Packets per tick from which on an unbound entry is reported.
pub const BIND_RATE: u32 = 0x228;
/// The most bound entries with the table a quarter and half full.
pub const BIND_LIMIT0: u32 = 0x22c;
/// With it full; and without ports. Keepalive while nothing is bound, too.
pub const BIND_LIMIT1: u32 = 0x230;
/// Keepalive intervals.
pub const KEEPALIVE: u32 = 0x234;
/// Ageing of entries that are not bound.
pub const UNBIND_AGE: u32 = 0x238;
/// Ageing of bound entries: UDP, and without ports.
pub const BIND_AGE0: u32 = 0x23c;
/// Ageing of bound entries: TCP, and TCP that is over.
pub const BIND_AGE1: u32 = 0x240;
/// Where packets for the CPU go.
pub const DEFAULT_CPU_PORT: u32 = 0x248;
/// The same for further ports.
pub const DEFAULT_CPU_PORT1: u32 = 0x24c;
/// The largest frames without a tag and with one.
pub const VLAN_MTU0: u32 = 0x30c;
/// The largest frames with two tags and with three.
pub const VLAN_MTU1: u32 = 0x310;
/// The engine's cache of the table.
pub const CACHE_CTL: u32 = 0x320;
/// Counting of packets.
pub const MIB_CFG: u32 = 0x334;
/// Where the counters are.
pub const MIB_TB_BASE: u32 = 0x338;
/// Reads one counter.
pub const MIB_SER_CR: u32 = 0x33c;
/// What was read: four registers.
pub const MIB_SER_R0: u32 = 0x340;
/// The cache of the counters.
pub const MIB_CACHE_CTL: u32 = 0x350;
/// Bandwidth of the switch.
pub const SBW_CTRL: u32 = 0x374;

/// Bits of [`GLO_CFG`].
pub mod glo_cfg {
    /// The engine runs.
    pub const EN: u32 = 1 << 0;
    /// Drop packets with a wrong TCP or UDP checksum.
    pub const IP4_L4_CS_DROP: u32 = 1 << 2;
    /// Drop packets with a wrong IPv4 checksum.
    pub const IP4_CS_DROP: u32 = 1 << 3;
    /// A dropped packet keeps its entry young.
    pub const FLOW_DROP_UPDATE: u32 = 1 << 9;
    /// The table is being worked on.
    pub const BUSY: u32 = 1 << 31;
}

/// Bits of [`FLOW_CFG`].
pub mod flow_cfg {
    /// IPv4 fragments of TCP, first generation.
    pub const IP4_TCP_FRAG: u32 = 1 << 6;
    /// IPv4 fragments of UDP, first generation.
    pub const IP4_UDP_FRAG: u32 = 1 << 7;
    /// What goes around the engine's traffic manager by reason, from the second generation on.
    pub const BYPASS_REASONS: u32 = 0x7 << 1;
    /// The key of GRE is part of the hash.
    pub const IP4_GRE_KEY: u32 = 1 << 19;

    const IP6_3T_ROUTE: u32 = 1 << 8;
    const IP6_5T_ROUTE: u32 = 1 << 9;
    const IP6_6RD: u32 = 1 << 10;
    const IP4_NAT: u32 = 1 << 12;
    const IP4_NAPT: u32 = 1 << 13;
    const IP4_DSLITE: u32 = 1 << 14;
    const IP4_NAT_FRAG: u32 = 1 << 17;

    /// What all generations look up.
    pub const COMMON: u32 =
        IP6_3T_ROUTE | IP6_5T_ROUTE | IP6_6RD | IP4_NAT | IP4_NAPT | IP4_DSLITE | IP4_NAT_FRAG;
}

/// Bits of [`TB_CFG`].
pub mod tb_cfg {
    /// Entries are not those of 64 bytes that the very first engines had.
    pub const ENTRY_80B: u32 = 1 << 3;
    /// A packet that is not found: make an entry and give it to the CPU.
    pub const MISS_FORWARD_BUILD: u32 = 3 << 4;
    /// Age what was announced but not bound.
    pub const AGE_NON_L4: u32 = 1 << 7;
    /// Age what is not bound.
    pub const AGE_UNBIND: u32 = 1 << 8;
    /// Age TCP.
    pub const AGE_TCP: u32 = 1 << 9;
    /// Age UDP.
    pub const AGE_UDP: u32 = 1 << 10;
    /// Age TCP that is over.
    pub const AGE_TCP_FIN: u32 = 1 << 11;
    /// Packets that keep what is beyond the engine alive: mask of two bits.
    pub const KEEPALIVE: u32 = 3 << 12;
    /// The hash function: the one of [`crate::hash`].
    pub const HASH_MODE_1: u32 = 1 << 14;
    /// The scanner looks for what is old.
    pub const SCAN_AGE: u32 = 1 << 16;
    /// The scanner: mask of two bits.
    pub const SCAN: u32 = 3 << 16;
    /// Entries have the later generations' info.
    pub const INFO_SEL: u32 = 1 << 20;
    /// The slow clock for keepalive.
    pub const TICK_SEL: u32 = 1 << 24;

    /// All ageing.
    pub const AGEING: u32 = AGE_NON_L4 | AGE_UNBIND | AGE_TCP | AGE_UDP | AGE_TCP_FIN;
}

/// Bits of [`CACHE_CTL`].
pub mod cache_ctl {
    /// The cache is used.
    pub const EN: u32 = 1 << 0;
    /// Forget everything.
    pub const CLEAR: u32 = 1 << 9;
}

/// Bits of [`MIB_CFG`].
pub mod mib_cfg {
    /// Count.
    pub const EN: u32 = 1 << 0;
    /// Reading a counter clears it.
    pub const READ_CLEARS: u32 = 1 << 1;
}

/// Bits of [`MIB_CACHE_CTL`].
pub mod mib_cache_ctl {
    /// The cache is used.
    pub const EN: u32 = 1 << 0;
}

/// Bits of [`MIB_SER_CR`].
pub mod mib_ser_cr {
    /// Start, and not done yet.
    pub const START: u32 = 1 << 16;
    /// Which counter.
    pub const ADDR: u32 = 0x3fff;
}

/// Bits of [`BIND_LIMIT1`] that keepalive uses.
pub const NTU_KEEPALIVE: u32 = 0xff << 16;
