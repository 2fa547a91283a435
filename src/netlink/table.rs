// SPDX-License-Identifier: GPL-2.0

//! The operation `table-get`: the flowtables of a network namespace.

use super::show;
use crate::{
    ffi::genl::{
        Attrs,
        Command,
        Dump,
        DumpState,
        Part,
        Policy,
        Request, //
    },
    flowtable::{
        registry::Netns,
        Flowtable, //
    },
    net::ruleset::Watch, //
};
use kernel::{
    fmt,
    prelude::*,
    str::CString, //
};

/// Attributes behind family, table and name.
mod attr {
    pub(super) const FLAGS: u16 = 4;
    pub(super) const FLOWS: [u16; 2] = [5, 6];
    pub(super) const BUCKETS: [u16; 2] = [7, 8];
    pub(super) const PACKETS: [u16; 2] = [9, 10];
    pub(super) const BYTES: [u16; 2] = [11, 12];
    pub(super) const WAITING: u16 = 13;
    pub(super) const THRESHOLDS: u16 = 14;
    pub(super) const VOLATILE: u16 = 15;
}

/// In [`attr::FLAGS`].
const FLAG_OFFLOAD: u32 = 1 << 0;
const FLAG_COUNTER: u32 = 1 << 1;

static POLICY: [Policy; 16] = [Policy::REJECT; 16];

/// Says what is known of flowtables.
pub(super) struct TableGet;

impl Command for TableGet {
    const COMMAND: u8 = 3;
    const POLICY: &'static [Policy] = &POLICY;
}

impl Dump for TableGet {
    fn dump(request: &Request<'_>, state: &mut DumpState, part: &mut Part<'_>) -> Result {
        let mut result = Ok(());

        if let Some(netns) = Netns::of(request.net()) {
            netns.for_each(|ft| {
                let next = &mut state[0];
                let serial = ft.list_node.serial() as usize;

                if serial < *next {
                    return true;
                }
                result = describe(ft, part);
                if result.is_ok() {
                    *next = serial + 1;
                }
                result.is_ok()
            });
        }
        result
    }
}

fn describe(ft: &Flowtable, part: &mut Part<'_>) -> Result {
    let volatile = CString::try_from_fmt(fmt!("{}", Volatile(&ft.watch)))?;

    part.message(|out| {
        let (flows, buckets) = ft.size();
        let traffic = ft.traffic.totals();
        let flag = |set, flag| if set { flag } else { 0 };

        show::names(out, ft)?;
        out.put_u32(
            attr::FLAGS,
            flag(ft.has_hw(), FLAG_OFFLOAD) | flag(ft.counts(), FLAG_COUNTER),
        )?;
        for (at, sum) in traffic.family.iter().enumerate() {
            out.put_u32(attr::FLOWS[at], flows[at] as u32)?;
            out.put_u32(attr::BUCKETS[at], buckets[at] as u32)?;
            out.put_uint(attr::PACKETS[at], sum.packets)?;
            out.put_uint(attr::BYTES[at], sum.bytes)?;
        }
        waits(out, ft)?;
        out.put_u32(attr::THRESHOLDS, ft.watch.thresholds())?;
        out.put_string(attr::VOLATILE, &volatile)
    })
}

/// Adds how many flows wait for hardware.
fn waits(out: &mut Attrs<'_>, ft: &Flowtable) -> Result {
    match &ft.hw {
        Some(tier) => out.put_u32(attr::WAITING, tier.waiting() as u32),
        None => Ok(()),
    }
}

/// Whether verdicts change without a commit, and why, in words.
struct Volatile<'a>(&'a Watch);

impl fmt::Display for Volatile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.show(f)
    }
}
