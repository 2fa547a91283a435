// SPDX-License-Identifier: GPL-2.0

//! Counters for Prometheus, in its text format (not that of OpenMetrics, which node_exporter's textfile
//! collector refuses in part).

use crate::kernel::{
    Counter as Count,
    Info,
    Table, //
};
use anyhow::{
    Context,
    Result, //
};
use std::{
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

fn of_table(table: &Table) -> [(&'static str, &str); 3] {
    [
        ("family", table.family),
        ("table", &table.table),
        ("flowtable", &table.flowtable),
    ]
}

/// Everything that is measured, in the text format.
pub(crate) fn text(info: &Info, tables: &[Table], counts: Option<&[Count]>) -> String {
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

        for table in tables {
            if let Some(value) = get(table) {
                metric.sample(&of_table(table), value);
            }
        }
    }
    for (group, help) in groups {
        let Some(counts) = counts else { continue };
        let mut metric = lines.metric(group, Kind::Counter, help);

        for count in counts.iter().filter(|c| c.group == group) {
            metric.sample(&[("reason", &count.name)], count.count);
        }
    }
    lines
        .metric("module_info", Kind::Gauge, "The module that is loaded.")
        .sample(&[("version", &info.version)], 1);
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
        let info = Info {
            version: "1.2".into(),
            ..Info::default()
        };
        let counts = [Count {
            group: "skip",
            name: "helper".into(),
            count: 7,
        }];
        let all = text(&info, &[table.clone()], Some(&counts));
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
        assert!(!text(&info, &[table], None).contains("skip"));
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
        let all = text(&Info::default(), &[table], Some(&counts));
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
        assert_eq!(names.len(), 8);
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
