// SPDX-License-Identifier: GPL-2.0

//! What differs between the generations of the engine ("netsys" 1, 2 and 3).

use crate::entry::{
    ib1,
    Field,
    Foe,
    PacketType,
    State, //
};
use crate::mib::Counters;
use nft_flow::desc::{
    Unsupported,
    Wdma, //
};

mod v1;
mod v2;
mod v3;

/// The first generation: MT7621, MT7622, MT7623.
pub const V1: &dyn Hal = &v1::V1;
/// The second: MT7981, MT7986.
pub const V2: &dyn Hal = &v2::V2;
/// The third: MT7988.
pub const V3: &dyn Hal = &v3::V3;

/// What `ib1` of a bound entry says beyond its state.
#[derive(Clone, Copy)]
pub struct Bind {
    /// What is matched.
    pub packet_type: PacketType,
    /// UDP rather than TCP.
    pub udp: bool,
    /// Tags that the frame gets, a switch's special tag included.
    pub vlan_layers: u32,
    /// The first of them is an 802.1Q tag; otherwise it is a special one.
    pub vlan_tag: bool,
    /// A PPPoE header is added.
    pub pppoe: bool,
}

/// Where packets go.
#[derive(Clone, Copy)]
pub struct Out {
    /// Port of the packet switching engine.
    pub pse_port: u32,
    /// Queue of the QoS DMA, if the port has such.
    pub queue: Option<u32>,
    /// Station behind a radio.
    pub wdma: Option<Wdma>,
}

/// Where the fields of `ib1` are that differ.
pub struct Ib1 {
    timestamp: Field,
    vlan_layer: Field,
    pppoe: Field,
    vlan_tag: Field,
    cache: Field,
    ttl: Field,
    packet_type: Field,
}

/// One generation.
pub trait Hal: Sync {
    /// Its number.
    fn version(&self) -> u32;

    /// Bytes of an entry.
    fn entry_size(&self) -> usize;

    /// The fields of `ib1`.
    fn ib1(&self) -> &'static Ib1;

    /// Bits of the clock that a bound entry keeps.
    fn timestamp_mask(&self) -> u32 {
        self.ib1().timestamp.mask()
    }

    /// `ib1` of an entry in force, with timestamp 0.
    fn bind(&self, bind: Bind) -> u32 {
        let at = self.ib1();

        State::Bind.bits()
            | at.packet_type.put(bind.packet_type as u32)
            | ib1::UDP.put(u32::from(bind.udp))
            | at.cache.mask()
            | at.ttl.mask()
            | at.vlan_layer.put(bind.vlan_layers)
            | at.vlan_tag.put(u32::from(bind.vlan_tag))
            | at.pppoe.put(u32::from(bind.pppoe))
    }

    /// The number in the type field of `ib1`.
    fn type_number(&self, ib1: u32) -> u32 {
        self.ib1().packet_type.get(ib1)
    }

    /// The bits of `ib1` that hold the type.
    fn type_mask(&self) -> u32 {
        self.ib1().packet_type.mask()
    }

    /// The number of tags in `ib1`, whether the first is an 802.1Q tag, and whether PPPoE is added.
    fn layers(&self, ib1: u32) -> (u32, bool, bool) {
        let at = self.ib1();

        (
            at.vlan_layer.get(ib1),
            at.vlan_tag.get(ib1) != 0,
            at.pppoe.get(ib1) != 0,
        )
    }

    /// `ib2`, as far as it says where packets go.
    fn ib2(&self, out: &Out, port_mg: u32) -> u32;

    /// The bit of `ib2` that has packets counted.
    fn counted(&self) -> u32;

    /// The port of the packet switching engine for a WDMA, or why a station cannot be reached.
    ///
    /// # Errors
    ///
    /// [`Unsupported::PortNumber`] if a number is larger than its field.
    fn wdma_port(&self, wdma: &Wdma) -> Result<u32, Unsupported>;

    /// Writes the station into the link-layer part.
    fn set_wdma(&self, foe: &mut Foe, of: PacketType, wdma: &Wdma);

    /// Counters from the registers that they are read by.
    fn counters(&self, regs: [u32; 4]) -> Counters;

    /// How many of those registers there are.
    fn counter_regs(&self) -> usize;

    /// Generation-specific bits of the table configuration.
    fn tb_cfg(&self) -> u32;

    /// The flow configuration: which kinds of packets are looked up.
    fn flow_cfg(&self) -> u32;

    /// Writes at the end of starting: register and value.
    fn start_writes(&self) -> &'static [(u32, u32)];
}

/// The type of an entry, if it is one that we know.
pub fn packet_type(hal: &dyn Hal, ib1: u32) -> Option<PacketType> {
    PacketType::from_number(hal.type_number(ib1))
}
