// SPDX-License-Identifier: GPL-2.0

//! The part of nft_offload that needs no kernel: what a flow is, how a packet is recognised as
//! belonging to one, and how it is rewritten.
//!
//! Everything here is a function of its arguments: no allocation, no clock, no locks of its own.
//! Memory, time in ticks, random seeds and mutual exclusion come from the caller, so that the
//! whole crate runs under `cargo test`, loom and a fuzzer as well as in the kernel.
//!
//! The packet path is [`parse`], [`key`], [`table::Table::lookup`], [`state`] and [`rewrite`]. Its
//! functions are `#[inline]`, because the kernel module is another crate, and contain no panic:
//! arithmetic is wrapping or checked, indices are masked or go through `get`. `tests/no_panic.rs`
//! looks at the machine code to keep it that way.
//!
//! The crate is compiled twice, by Cargo on a host and by Kbuild with the kernel's flags.

#![cfg_attr(not(any(test, loom, CONFIG_RUST)), no_std)]

pub mod admit;
pub mod age;
pub mod checksum;
pub mod deadline;
pub mod desc;
pub mod direction;
pub mod encap;
pub mod engine;
pub mod key;
pub mod llist;
pub mod parse;
pub mod prefix;
pub mod proto;
pub mod reason;
pub mod rewrite;
pub mod ruleset;
pub mod state;
pub mod sweep;
pub mod table;
pub mod turn;
pub mod window;

mod bytes;
mod crc32c;
mod hash;
mod other_l4;
mod packet;
mod rewrite_other;
mod sync;
