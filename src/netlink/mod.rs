// SPDX-License-Identifier: GPL-2.0

//! The generic netlink family `nft_offload`: what can be asked of the module at run time.
//!
//! The interface is `netlink/nft_offload.yaml`; the numbers here are those that follow from it.
//!
//! Generic netlink holds a lock of its own, for reading, while a request is served, and not for the
//! later parts of a dump. Nobody else's lock is held by a dump: flows are read under RCU, a few
//! buckets of a table at a time, and a flowtable is used meanwhile, whose end the walk gives way to.

mod engine;
mod filter;
mod flow;
mod flush;
mod info;
mod notify;
mod show;
mod stats;
mod table;

use crate::ffi::genl::{
    GenlFamily,
    Group,
    Op,
    Registration, //
};
use kernel::prelude::*;

static FAMILY: GenlFamily = GenlFamily::new(c"nft_offload", 1, &OPS, &GROUPS);
static GROUPS: [Group; 1] = [Group::new(c"flows")];
static OPS: [Op; 6] = [
    Op::new::<flush::Flush>(),
    Op::new::<info::InfoGet>(),
    Op::dump::<table::TableGet>(),
    Op::both::<flow::FlowGet>(),
    Op::dump::<stats::StatsGet>(),
    Op::dump::<engine::EngineGet>(),
];

pub(crate) use notify::notify;

/// Registers the family.
pub(crate) fn register(module: &'static ThisModule) -> Result<Registration> {
    FAMILY.register(module)
}
