// SPDX-License-Identifier: GPL-2.0

//! Is it on, and how much of the traffic takes it: one screen, a sentence first.

use crate::{
    conntrack,
    kernel::{
        Counter,
        Kernel,
        Table, //
    },
    netlink::is_errno,
    nft::Ruleset,
    show::{
        amount,
        columns, //
    },
    Exit,
    Out,
    ABSENT, //
};
use anyhow::Result;
use rustix::io::Errno;
use serde::Serialize;
use std::{
    io::{
        self,
        Write, //
    },
    time::{
        Duration,
        Instant, //
    },
};

/// A flowtable, and its rates.
#[derive(Debug, Clone, Serialize)]
struct Row {
    #[serde(flatten)]
    table: Table,
    devices: Vec<String>,
    packets_per_second: f64,
    bytes_per_second: f64,
}

#[derive(Debug, Clone, Default, Serialize)]
struct Status {
    /// None without the module.
    version: Option<String>,
    connections: u64,
    offloaded: u64,
    in_hardware: u64,
    flowtables: Vec<Row>,
    /// What was counted meanwhile, most first; of the whole machine.
    slow: Option<Vec<Counter>>,
}

/// The counters that have grown, the most first.
fn grown(before: &[Counter], after: &[Counter], groups: &[&str]) -> Vec<Counter> {
    let mut grown: Vec<_> = after
        .iter()
        .filter(|c| groups.contains(&c.group))
        .filter_map(|now| {
            let old = before
                .iter()
                .find(|c| (c.group, &c.name) == (now.group, &now.name))
                .map_or(0, |c| c.count);
            let count = now.count.saturating_sub(old);

            (count != 0).then(|| Counter {
                count,
                ..now.clone()
            })
        })
        .collect();

    grown.sort_by_key(|c| std::cmp::Reverse(c.count));
    grown
}

impl Status {
    /// The first line.
    fn sentence(&self, interval: f64) -> String {
        let known = match self.connections {
            1 => "the only connection that conntrack knows".into(),
            n => format!("{n} connections that conntrack knows"),
        };
        let hardware = match self.in_hardware {
            0 => String::new(),
            n => format!(", {n} in hardware"),
        };
        let Some(version) = &self.version else {
            return format!(
                "{ABSENT}; of {known}, {} are offloaded by somebody{hardware}.",
                self.offloaded
            );
        };
        if self.flowtables.is_empty() {
            return format!(
                "nft_offload {version} is loaded, and this network namespace has no flowtable."
            );
        }
        let bits: f64 = self
            .flowtables
            .iter()
            .map(|row| row.bytes_per_second * 8.0)
            .sum();

        format!(
            "nft_offload {version} has {} of {known}{hardware}; software forwards {} by the fast path (last {interval} s).",
            self.offloaded,
            amount(bits, "bit/s")
        )
    }

    fn table(&self) -> String {
        let head = [
            "flowtable",
            "devices",
            "flags",
            "flows",
            "waiting",
            "packets",
            "bytes",
            "rate",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];

        for row in &self.flowtables {
            let table = &row.table;
            let flags: Vec<_> = [("offload", table.offload), ("counter", table.counter)]
                .into_iter()
                .filter_map(|(name, set)| set.then_some(name))
                .collect();
            let or_dash = |text: String| if text.is_empty() { "-".into() } else { text };

            rows.push(vec![
                format!("{} {} {}", table.family, table.table, table.flowtable),
                or_dash(row.devices.join(",")),
                or_dash(flags.join(",")),
                table.flows.to_string(),
                if table.offload {
                    table.waiting.to_string()
                } else {
                    "-".into()
                },
                amount(table.packets as f64, "pkt"),
                amount(table.bytes as f64, "B"),
                amount(row.bytes_per_second * 8.0, "bit/s"),
            ]);
        }
        columns(&rows)
    }

    fn text(&self, interval: f64) -> String {
        /// As many reasons as are of interest at a glance.
        const MOST: usize = 6;

        let mut text = self.sentence(interval);

        text.push('\n');
        if !self.flowtables.is_empty() {
            text += &self.table();
        }
        for row in &self.flowtables {
            let volatile = &row.table.volatile;

            if volatile.starts_with("yes") {
                text += &format!(
                    "rules of {} {} change without a commit, flows are asked about again every second: {volatile}\n",
                    row.table.table, row.table.flowtable
                );
            }
        }
        if let Some(slow) = self.slow.as_ref().filter(|slow| !slow.is_empty()) {
            let reasons: Vec<_> = slow
                .iter()
                .take(MOST)
                .map(|c| format!("{} {}.{}", c.count, c.group, c.name))
                .collect();

            text += &format!(
                "packets on the slow path, on the whole machine, last {interval} s: {}\n",
                reasons.join(", ")
            );
        }
        text
    }
}

/// Reads everything, which takes so many seconds if the module is there.
fn read(interval: f64) -> Result<Status> {
    let mut status = Status::default();
    let ruleset = Ruleset::read()?;
    let mut kernel = Kernel::open()?;

    conntrack::connections(|connection| {
        status.connections += 1;
        status.offloaded += u64::from(connection.is_offloaded());
        status.in_hardware += u64::from(connection.is_in_hardware());
    })?;
    if let Some(kernel) = &mut kernel {
        let counters = |kernel: &mut Kernel| match kernel.stats() {
            Err(e) if is_errno(&e, Errno::PERM) => Ok(None),
            counters => counters.map(Some),
        };
        let (before, counted) = (kernel.tables()?, counters(kernel)?);
        let begun = Instant::now();

        std::thread::sleep(Duration::from_secs_f64(interval));
        let (tables, counters) = (kernel.tables()?, counters(kernel)?);
        let seconds = begun.elapsed().as_secs_f64();

        status.version = Some(kernel.info()?.version);
        status.slow = counted
            .zip(counters)
            .map(|(before, after)| grown(&before, &after, &["skip", "miss"]));
        for table in tables {
            let is = |t: &&Table| {
                (t.family, &t.table, &t.flowtable) == (table.family, &table.table, &table.flowtable)
            };
            let old = before.iter().find(is);
            let rate = |now: u64, old: Option<u64>| {
                now.saturating_sub(old.unwrap_or(now)) as f64 / seconds
            };
            let devices = ruleset.flowtables.iter().find(|ft| {
                (ft.family, &ft.table, &ft.name) == (table.family, &table.table, &table.flowtable)
            });

            status.flowtables.push(Row {
                devices: devices.map(|ft| ft.devices.clone()).unwrap_or_default(),
                packets_per_second: rate(table.packets, old.map(|t| t.packets)),
                bytes_per_second: rate(table.bytes, old.map(|t| t.bytes)),
                table,
            });
        }
    }
    Ok(status)
}

/// The status as text.
pub(crate) fn text(interval: f64) -> Result<String> {
    Ok(read(interval)?.text(interval))
}

/// Prints the status.
pub(crate) fn status(out: &Out, interval: f64) -> Result<Exit> {
    let status = read(interval)?;

    if out.json {
        out.document(&status)?;
    } else {
        io::stdout().write_all(status.text(interval).as_bytes())?;
    }
    Ok(match status.version {
        None => Exit::Absent,
        Some(_) if status.flowtables.is_empty() => Exit::No,
        Some(_) => Exit::Yes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(group: &'static str, name: &str, count: u64) -> Counter {
        Counter {
            group,
            name: name.into(),
            count,
        }
    }

    #[test]
    fn counters_that_have_grown() {
        let before = [counter("skip", "mtu", 5), counter("miss", "mtu", 1)];
        let after = [
            counter("skip", "mtu", 6),
            counter("miss", "mtu", 9),
            counter("miss", "looks", 0),
            counter("teardown", "idle", 3),
        ];
        let grown = grown(&before, &after, &["skip", "miss"]);
        assert_eq!(
            grown,
            [counter("miss", "mtu", 8), counter("skip", "mtu", 1)]
        );
    }

    #[test]
    fn the_text() {
        let mut status = Status {
            version: Some("0.1.0".into()),
            connections: 5,
            offloaded: 3,
            in_hardware: 1,
            ..Status::default()
        };
        assert_eq!(
            status.text(1.0),
            "nft_offload 0.1.0 is loaded, and this network namespace has no flowtable.\n"
        );
        status.flowtables.push(Row {
            table: Table {
                family: "inet",
                table: "t".into(),
                flowtable: "f".into(),
                flows: 3,
                packets: 12_000,
                bytes: 15_000_000,
                counter: true,
                volatile: "no".into(),
                ..Table::default()
            },
            devices: vec!["lan".into(), "wan".into()],
            packets_per_second: 0.0,
            bytes_per_second: 76_500_000.0,
        });
        status.slow = Some(vec![counter("miss", "no_entry", 12)]);
        assert_eq!(
            status.text(1.0),
            "nft_offload 0.1.0 has 3 of 5 connections that conntrack knows, 1 in hardware; software forwards 612 Mbit/s by \
             the fast path (last 1 s).\n\
             flowtable  devices  flags    flows  waiting  packets    bytes    rate\n\
             inet t f   lan,wan  counter  3      -        12.0 kpkt  15.0 MB  612 Mbit/s\n\
             packets on the slow path, on the whole machine, last 1 s: 12 miss.no_entry\n"
        );
        status.version = None;
        assert!(status.text(1.0).starts_with(
            "the module nft_offload is not loaded; of 5 connections that conntrack knows, 3 are offloaded by somebody"
        ));
    }
}
