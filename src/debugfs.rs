// SPDX-License-Identifier: GPL-2.0

//! `/sys/kernel/debug/nft_offload`: what happened, and why something did not.
//!
//! `stats`: one `name value` a line, see [`crate::stats`]. `flowtables`: one flowtable a line.
//! `hardware`: a block of lines for each flowtable with `flags offload`, see [`crate::hw`].

use crate::{
    flowtable::{
        registry,
        traffic,
        Flowtable, //
    },
    stats, //
};
use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    fmt,
    prelude::*, //
};
use nft_flow::reason::{
    MissReason,
    SkipReason,
    TeardownReason, //
};

/// Writes namespace, table and name of a flowtable.
fn name(f: &mut fmt::Formatter<'_>, ft: &Flowtable) -> fmt::Result {
    let net = ft.net().inum();
    let nft = ft.nft();
    let [table, name] = nft.names();

    f.write_fmt(fmt!("netns {net} table {table} flowtable {name}"))
}

/// Writes something about each flowtable.
fn list(mut one: impl FnMut(&Flowtable) -> fmt::Result) -> fmt::Result {
    let mut result = Ok(());
    let all = registry::for_all(|ft| result = result.and_then(|()| one(ft)));

    all.map_err(|_| fmt::Error).and(result)
}

/// All counters, one `name value` a line.
pub(crate) struct Stats;

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in traffic::counters() {
            f.write_fmt(fmt!("{name} {value}\n"))?;
        }
        for r in SkipReason::ALL {
            f.write_fmt(fmt!("skip.{} {}\n", r.name(), stats::skipped(*r)))?;
        }
        for r in MissReason::ALL {
            f.write_fmt(fmt!("miss.{} {}\n", r.name(), stats::missed(*r)))?;
        }
        for r in TeardownReason::ALL {
            f.write_fmt(fmt!("teardown.{} {}\n", r.name(), stats::torn_down(*r)))?;
        }
        Ok(())
    }
}

/// All flowtables of ours in all network namespaces.
pub(crate) struct Flowtables;

impl fmt::Display for Flowtables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(|ft| {
            let ([v4, v6], [b4, b6]) = ft.size();

            name(f, ft)?;
            f.write_fmt(fmt!(
                " flows_ipv4 {v4} flows_ipv6 {v6} buckets_ipv4 {b4} buckets_ipv6 {b6} followed "
            ))?;
            ft.show_followed(f)?;
            f.write_fmt(fmt!(" thresholds {} volatile ", ft.watch.thresholds()))?;
            ft.watch.show(f)?;
            f.write_str("\n")
        })
    }
}

/// The state of the hardware tier, for each flowtable with `flags offload`.
pub(crate) struct Hardware;

impl fmt::Display for Hardware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(|ft| {
            let Some(tier) = &ft.hw else {
                return Ok(());
            };

            name(f, ft)?;
            f.write_fmt(fmt!("\n"))?;
            tier.show(f)
        })
    }
}

/// The files; they go when it is dropped.
#[pin_data]
pub(crate) struct Files {
    #[pin]
    stats: File<Stats>,
    #[pin]
    flowtables: File<Flowtables>,
    #[pin]
    hardware: File<Hardware>,
    dir: Dir,
}

impl Files {
    /// Creates the files. Without debugfs there are none, and that is fine.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        let dir = Dir::new(c"nft_offload");

        try_pin_init!(Self {
            stats <- dir.read_callback_file(c"stats", Stats, &|s: &Stats, f: &mut fmt::Formatter<'_>| {
                fmt::Display::fmt(s, f)
            }),
            flowtables <- dir.read_callback_file(
                c"flowtables",
                Flowtables,
                &|t: &Flowtables, f: &mut fmt::Formatter<'_>| fmt::Display::fmt(t, f),
            ),
            hardware <- dir.read_callback_file(
                c"hardware",
                Hardware,
                &|t: &Hardware, f: &mut fmt::Formatter<'_>| fmt::Display::fmt(t, f),
            ),
            dir: dir,
        } ? Error)
    }
}
