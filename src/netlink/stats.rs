// SPDX-License-Identifier: GPL-2.0

//! The operation `stats-get`: the counters of debugfs, which are those of the whole machine.

use crate::{
    ffi::genl::{
        Command,
        Dump,
        DumpState,
        Part,
        Permission,
        Policy,
        Request, //
    },
    flowtable::traffic,
    stats, //
};
use kernel::prelude::*;
use nft_flow::reason::{
    MissReason,
    SkipReason,
    TeardownReason, //
};

/// Attributes.
mod attr {
    pub(super) const GROUP: u16 = 1;
    pub(super) const NAME: u16 = 2;
    pub(super) const COUNT: u16 = 3;
}

/// What a counter is one of.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Group {
    Counter = 1,
    Skip,
    Miss,
    Teardown,
}

static POLICY: [Policy; 4] = [Policy::REJECT; 4];

/// Says what was counted.
pub(super) struct StatsGet;

impl Command for StatsGet {
    const COMMAND: u8 = 5;
    const POLICY: &'static [Policy] = &POLICY;
    const PERMISSION: Permission = Permission::Machine;
}

impl Dump for StatsGet {
    fn dump(_: &Request<'_>, state: &mut DumpState, part: &mut Part<'_>) -> Result {
        let counters = traffic::counters();
        let mut lists: [&mut dyn Iterator<Item = (Group, &str, u64)>; 4] = [
            &mut counters.iter().map(|(name, n)| (Group::Counter, *name, *n)),
            &mut SkipReason::ALL
                .iter()
                .map(|r| (Group::Skip, r.name(), stats::skipped(*r))),
            &mut MissReason::ALL
                .iter()
                .map(|r| (Group::Miss, r.name(), stats::missed(*r))),
            &mut TeardownReason::ALL
                .iter()
                .map(|r| (Group::Teardown, r.name(), stats::torn_down(*r))),
        ];
        let next = &mut state[0];

        for (group, name, count) in lists.iter_mut().flatten().skip(*next) {
            part.message(|out| {
                out.put_u8(attr::GROUP, group as u8)?;
                out.put_str(attr::NAME, name)?;
                out.put_uint(attr::COUNT, count)
            })?;
            *next += 1;
        }
        Ok(())
    }
}
