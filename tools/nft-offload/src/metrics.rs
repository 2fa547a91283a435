// SPDX-License-Identifier: GPL-2.0

//! Counters for Prometheus, in its text format (not that of OpenMetrics, which node_exporter's textfile
//! collector refuses in part), and as JSON for everybody else.

use crate::{
    hardware::{
        self,
        Hardware, //
    },
    kernel::{
        Counter as Count,
        Info,
        Kernel,
        Table, //
    },
    netlink::is_errno, //
};
use anyhow::{
    Context,
    Result, //
};
use rustix::io::Errno;
use serde::Serialize;
use std::{
    collections::{
        btree_map::Entry,
        BTreeMap, //
    },
    fmt::Write as _,
    fs::{
        self,
        File, //
    },
    io::Write,
    path::Path, //
};

/// What a number is: all that is used of what the format has.
#[derive(Clone, Copy)]
enum Kind {
    Gauge,
    Counter,
}

/// Names and values of labels.
type Labels<'a> = [(&'static str, &'a str)];

/// What an escape stands for; quotes are such in values of labels only.
fn escape(text: &str, quotes: bool) -> String {
    let mut all = String::with_capacity(text.len());

    for c in text.chars() {
        match c {
            '\\' => all += "\\\\",
            '\n' => all += "\\n",
            '"' if quotes => all += "\\\"",
            c => all.push(c),
        }
    }
    all
}

/// Metrics as lines of text.
#[derive(Default)]
struct Lines(String);

impl Lines {
    /// Begins a metric. Samples of a counter have its whole name, `_total` included.
    fn metric(&mut self, name: &str, kind: Kind, help: &str) -> Metric<'_> {
        let (name, kind) = match kind {
            Kind::Gauge => (format!("nft_offload_{name}"), "gauge"),
            Kind::Counter => (format!("nft_offload_{name}_total"), "counter"),
        };

        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {}", escape(help, false));
        let _ = writeln!(self.0, "# TYPE {name} {kind}");
        Metric {
            lines: &mut self.0,
            name,
        }
    }
}

/// A metric whose samples are being written.
struct Metric<'a> {
    lines: &'a mut String,
    name: String,
}

impl Metric<'_> {
    fn sample(&mut self, labels: &Labels<'_>, value: u64) {
        let labels: Vec<_> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escape(value, true)))
            .collect();
        let _ = writeln!(self.lines, "{}{{{}}} {value}", self.name, labels.join(","));
    }
}

/// Everything that is measured. It does not wait for anything, unlike `status`: rates are the business
/// of who asks again.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Measured {
    pub(crate) module: Info,
    /// How many connections conntrack knows.
    pub(crate) connections: Option<u64>,
    pub(crate) flowtables: Vec<Table>,
    /// Those of the machine; none for who may not know.
    pub(crate) counters: Option<Vec<Count>>,
    /// The same.
    pub(crate) hardware: Option<Vec<Hardware>>,
}

impl Measured {
    /// Asks the module.
    pub(crate) fn read(kernel: &mut Kernel) -> Result<Self> {
        let connections = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");

        Ok(Self {
            module: kernel.info()?,
            connections: connections.ok().and_then(|n| n.trim().parse().ok()),
            flowtables: kernel.tables()?,
            counters: match kernel.stats() {
                Err(e) if is_errno(&e, Errno::PERM) => None,
                counters => Some(counters?),
            },
            hardware: hardware::read(),
        })
    }
}

fn of_table(table: &Table) -> [(&'static str, &str); 3] {
    [
        ("family", table.family),
        ("table", &table.table),
        ("flowtable", &table.flowtable),
    ]
}

/// One of each name: the file does not tell families of tables apart, and samples must differ.
fn by_name(all: &[Hardware]) -> Vec<Hardware> {
    let mut named = BTreeMap::new();

    for ft in all {
        match named.entry((&ft.table, &ft.flowtable)) {
            Entry::Vacant(place) => {
                place.insert(ft.clone());
            }
            Entry::Occupied(mut sum) => sum.get_mut().add(ft),
        }
    }
    named.into_values().collect()
}

fn text_of_hardware(lines: &mut Lines, all: &[Hardware]) {
    type Get = fn(&Hardware) -> Option<u64>;
    let metrics: [(&str, Kind, &str, Get); 6] = [
        (
            "hw_rules",
            Kind::Gauge,
            "Directions of flows in hardware.",
            |ft| Some(ft.rules),
        ),
        (
            "hw_rules_limit",
            Kind::Gauge,
            "How many have fitted, once that is known.",
            |ft| ft.limit,
        ),
        (
            "hw_flows",
            Kind::Gauge,
            "Flows with both directions in hardware.",
            |ft| Some(ft.flows),
        ),
        (
            "hw_flows_partial",
            Kind::Gauge,
            "Flows with one direction in hardware.",
            |ft| Some(ft.flows_partial),
        ),
        (
            "hw_packets",
            Kind::Counter,
            "Packets that hardware has forwarded.",
            |ft| Some(ft.packets),
        ),
        (
            "hw_bytes",
            Kind::Counter,
            "Their bytes, as the driver counts them.",
            |ft| Some(ft.bytes),
        ),
    ];
    let all = by_name(all);

    for (name, kind, help, get) in metrics {
        let mut metric = lines.metric(name, kind, help);

        for ft in &all {
            if let Some(value) = get(ft) {
                metric.sample(&[("table", &ft.table), ("flowtable", &ft.flowtable)], value);
            }
        }
    }
    let mut metric = lines.metric(
        "hw_decline",
        Kind::Counter,
        "How often hardware did not take a direction, and why.",
    );
    for ft in &all {
        for (reason, count) in &ft.declined {
            metric.sample(
                &[
                    ("table", &ft.table),
                    ("flowtable", &ft.flowtable),
                    ("reason", reason),
                ],
                *count,
            );
        }
    }
}

/// Everything that is measured, in the text format.
pub(crate) fn text(all: &Measured) -> String {
    type Get = fn(&Table) -> Option<u64>;
    let per_table: [(&str, Kind, &str, Get); 4] = [
        ("flows", Kind::Gauge, "Flows in a flowtable.", |t| {
            Some(t.flows)
        }),
        (
            "flows_waiting",
            Kind::Gauge,
            "Flows that wait for a place in hardware.",
            |t| t.offload.then_some(t.waiting),
        ),
        (
            "packets",
            Kind::Counter,
            "Packets that software has forwarded by the fast path.",
            |t| Some(t.packets),
        ),
        (
            "bytes",
            Kind::Counter,
            "Their bytes, from the IP header on.",
            |t| Some(t.bytes),
        ),
    ];
    let groups = [
        (
            "skip",
            "Packets that came to the rule that adds flows, and why it did not.",
        ),
        ("miss", "Packets that took the slow path, and why."),
        ("teardown", "Flows that ended, and why."),
    ];
    let mut lines = Lines::default();

    for (name, kind, help, get) in per_table {
        let mut metric = lines.metric(name, kind, help);

        for table in &all.flowtables {
            if let Some(value) = get(table) {
                metric.sample(&of_table(table), value);
            }
        }
    }
    for (group, help) in groups {
        let Some(counts) = &all.counters else {
            continue;
        };
        let mut metric = lines.metric(group, Kind::Counter, help);

        for count in counts.iter().filter(|c| c.group == group) {
            metric.sample(&[("reason", &count.name)], count.count);
        }
    }
    if let Some(hardware) = &all.hardware {
        text_of_hardware(&mut lines, hardware);
    }
    lines
        .metric("module_info", Kind::Gauge, "The module that is loaded.")
        .sample(&[("version", &all.module.version)], 1);
    lines.0
}

/// Writes a file that readers see whole, or not at all.
pub(crate) fn replace(path: &Path, text: &str) -> Result<()> {
    let mut name = path.file_name().context("this is no file")?.to_owned();
    // The collector reads what ends in ".prom".
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    // Never through what somebody else has put there: the folder may not be root's.
    let mut file = File::create_new(&beside).with_context(|| beside.display().to_string())?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&beside, path));

    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written.with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format() {
        let table = Table {
            family: "inet",
            table: "t".into(),
            flowtable: "f".into(),
            flows: 3,
            packets: 10,
            bytes: 1500,
            ..Table::default()
        };
        let mut measured = Measured {
            module: Info {
                version: "1.2".into(),
                ..Info::default()
            },
            flowtables: vec![table],
            counters: Some(vec![Count {
                group: "skip",
                name: "helper".into(),
                count: 7,
            }]),
            ..Measured::default()
        };
        let all = text(&measured);
        for line in [
            "nft_offload_flows{family=\"inet\",table=\"t\",flowtable=\"f\"} 3",
            "# TYPE nft_offload_bytes_total counter",
            "nft_offload_bytes_total{family=\"inet\",table=\"t\",flowtable=\"f\"} 1500",
            "nft_offload_skip_total{reason=\"helper\"} 7",
            "# TYPE nft_offload_module_info gauge",
            "nft_offload_module_info{version=\"1.2\"} 1",
        ] {
            assert!(all.lines().any(|l| l == line), "no {line} in:\n{all}");
        }
        assert!(all.ends_with('\n'));
        assert!(!all.contains("flows_waiting{"));
        assert!(!all.contains("hw_"));
        measured.counters = None;
        measured.hardware = Some(vec![
            Hardware {
                table: "t".into(),
                flowtable: "f".into(),
                rules: 3,
                declined: [("full".into(), 2)].into(),
                ..Hardware::default()
            };
            2
        ]);
        let all = text(&measured);
        assert!(!all.contains("skip"));
        assert!(!all.contains("limit{"));
        for line in [
            "nft_offload_hw_rules{table=\"t\",flowtable=\"f\"} 6",
            "nft_offload_hw_decline_total{table=\"t\",flowtable=\"f\",reason=\"full\"} 4",
        ] {
            assert!(all.lines().any(|l| l == line), "no {line} in:\n{all}");
        }
    }

    /// The parser of the text format knows fewer types than OpenMetrics has, and drops the whole of a
    /// text with another one.
    #[test]
    fn only_what_the_text_format_has() {
        let table = Table {
            family: "inet",
            table: "a\"b\\c\n".into(),
            flowtable: "f".into(),
            offload: true,
            ..Table::default()
        };
        let counts = ["skip", "miss", "teardown"].map(|group| Count {
            group,
            name: "x".into(),
            count: 1,
        });
        let all = text(&Measured {
            flowtables: vec![table],
            counters: Some(counts.into()),
            hardware: Some(vec![Hardware {
                limit: Some(1),
                declined: [("x".into(), 1)].into(),
                ..Hardware::default()
            }]),
            ..Measured::default()
        });
        let mut declared = None;
        let mut names = Vec::new();

        for line in all.lines() {
            let words: Vec<_> = line.split(' ').collect();

            match words[..] {
                ["#", "HELP", name, ..] => {
                    assert!(!names.contains(&name), "{name} twice");
                    names.push(name);
                    declared = None;
                }
                ["#", "TYPE", name, kind] => {
                    assert!(matches!(kind, "gauge" | "counter"), "{line}");
                    assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                    assert_eq!(Some(&name), names.last(), "{line}");
                    declared = Some(name);
                }
                _ => {
                    assert!(!line.starts_with('#'), "{line}");
                    let (name, rest) = line.split_once('{').unwrap();
                    assert_eq!(Some(name), declared, "{line}");
                    assert!(rest.rsplit_once("} ").unwrap().1.parse::<u64>().is_ok());
                }
            }
        }
        assert_eq!(names.len(), 15);
        assert!(
            all.contains(r#"nft_offload_flows{family="inet",table="a\"b\\c\n",flowtable="f"} 0"#),
            "{all}"
        );
    }

    #[test]
    fn a_file_is_replaced() {
        let dir = std::env::temp_dir().join(format!("nft-offload-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let path = dir.join("x.prom");
        replace(&path, "a\n").unwrap();
        replace(&path, "b\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "b\n");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        assert!(replace(&dir.join("no/x.prom"), "").is_err());

        // What is there already is neither written nor taken away.
        let beside = dir.join(format!("x.prom.{}", std::process::id()));
        let target = dir.join("target");
        std::os::unix::fs::symlink(&target, &beside).unwrap();
        assert!(replace(&path, "c\n").is_err());
        assert!(beside.is_symlink() && !target.exists());
        fs::remove_dir_all(&dir).unwrap();
    }
}
