// SPDX-License-Identifier: GPL-2.0

//! Counters for Prometheus.

use crate::kernel::{
    Counter as Count,
    Info,
    Table, //
};
use anyhow::{
    Context,
    Result, //
};
use prometheus_client::{
    encoding::{
        text::encode,
        EncodeLabelSet, //
    },
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        info::Info as InfoMetric, //
    },
    registry::Registry,
};
use std::{
    fs::{
        self,
        File, //
    },
    io::Write,
    path::Path, //
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfTable {
    family: &'static str,
    table: String,
    flowtable: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfReason {
    reason: String,
}

/// Everything that is measured, in the text format.
pub(crate) fn text(info: &Info, tables: &[Table], counts: Option<&[Count]>) -> Result<String> {
    let mut registry = Registry::with_prefix("nft_offload");
    let mut of_table = |name: &str, help: &str| {
        let family = Family::<OfTable, Gauge>::default();
        registry.register(name, help, family.clone());
        family
    };
    let flows = of_table("flows", "Flows in a flowtable");
    let waiting = of_table("flows_waiting", "Flows that wait for a place in hardware");
    let mut total = |name: &str, help: &str| {
        let family = Family::<OfTable, Counter>::default();
        registry.register(name, help, family.clone());
        family
    };
    let packets = total(
        "packets",
        "Packets that software has forwarded by the fast path",
    );
    let bytes = total("bytes", "Their bytes, from the IP header on");

    for table in tables {
        let labels = OfTable {
            family: table.family,
            table: table.table.clone(),
            flowtable: table.flowtable.clone(),
        };

        flows.get_or_create(&labels).set(table.flows as i64);
        packets.get_or_create(&labels).inc_by(table.packets);
        bytes.get_or_create(&labels).inc_by(table.bytes);
        if table.offload {
            waiting.get_or_create(&labels).set(table.waiting as i64);
        }
    }
    for (group, help) in [
        (
            "skip",
            "Packets that came to the rule that adds flows, and why it did not",
        ),
        ("miss", "Packets that took the slow path, and why"),
        ("teardown", "Flows that ended, and why"),
    ] {
        let family = Family::<OfReason, Counter>::default();

        for count in counts.into_iter().flatten().filter(|c| c.group == group) {
            let labels = OfReason {
                reason: count.name.clone(),
            };
            family.get_or_create(&labels).inc_by(count.count);
        }
        if counts.is_some() {
            registry.register(group, help, family);
        }
    }
    registry.register(
        "module",
        "The module that is loaded",
        InfoMetric::new([("version", info.version.clone())]),
    );

    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// Writes a file that readers see whole, or not at all.
pub(crate) fn replace(path: &Path, text: &str) -> Result<()> {
    let mut name = path.file_name().context("this is no file")?.to_owned();
    // The collector reads what ends in ".prom".
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    let written = File::create(&beside)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
        })
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
        let all = text(&info, &[table.clone()], Some(&counts)).unwrap();
        for line in [
            "nft_offload_flows{family=\"inet\",table=\"t\",flowtable=\"f\"} 3",
            "# TYPE nft_offload_bytes counter",
            "nft_offload_bytes_total{family=\"inet\",table=\"t\",flowtable=\"f\"} 1500",
            "nft_offload_skip_total{reason=\"helper\"} 7",
            "nft_offload_module_info{version=\"1.2\"} 1",
        ] {
            assert!(all.lines().any(|l| l == line), "no {line} in:\n{all}");
        }
        assert!(all.ends_with('\n'));
        assert!(!all.contains("flows_waiting{"));
        assert!(!text(&info, &[table], None).unwrap().contains("skip"));
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
        fs::remove_dir_all(&dir).unwrap();
    }
}
