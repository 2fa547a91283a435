// SPDX-License-Identifier: GPL-2.0

//! MediaTek's packet processing engine (PPE): its flow table, and the registers that run it.
//!
//! The engine sits in the frame engine of a router SoC, in front of the CPU. It looks every packet
//! up in a table in memory (the "flow offload engine" table, FOE) and forwards those that it finds
//! by itself: NAT, VLAN tags, PPPoE, a switch port or a radio. [`encode()`] makes an entry of that
//! table from a [`nft_flow::desc::FlowDesc`], [`Ppe`] keeps the table: it chooses slots, publishes
//! and withdraws entries, reads counters, sees what the engine has aged out, and starts, stops and
//! resets the engine.
//!
//! Nothing here needs a kernel. Registers are a [`Window`], the table is a [`Memory`], so that the
//! whole of it runs under `cargo test` against a recording mock and against a model that executes
//! entries, and in the kernel against the device.
//!
//! What differs between the generations of the engine is behind [`hal::Hal`]; what differs between
//! SoCs is data, [`soc::Soc`]. Where the kernel's own driver errs, [`quirks`] says so and what is
//! done here instead. All of these SoCs are little-endian, and so are the words of an entry.

#![cfg_attr(not(any(test, CONFIG_RUST)), no_std)]

pub mod age;
pub mod encode;
pub mod entry;
pub mod hal;
pub mod hash;
pub mod mib;
pub mod ppe;
pub mod quirks;
pub mod regs;
pub mod seq;
pub mod slot;
pub mod soc;
pub mod text;

pub use encode::encode;
pub use entry::Foe;
pub use ppe::Ppe;
pub use regs::Window;
pub use slot::Memory;

/// Entries of a table. The engine can do with fewer; the kernel's driver and this one do not.
pub const ENTRIES: usize = 1024 << ENTRIES_SHIFT;

/// What the engine is told of it.
pub(crate) const ENTRIES_SHIFT: u32 = 4;
