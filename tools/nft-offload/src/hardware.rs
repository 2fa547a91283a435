// SPDX-License-Identifier: GPL-2.0

//! What flowtables with `flags offload` have in hardware: the file `hardware` in debugfs, which is
//! root's.

use crate::netlink;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt, //
};

/// A device of a flowtable, and who serves it.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub(crate) struct Device {
    pub(crate) ifindex: u32,
    /// `software` if nobody does.
    pub(crate) engine: String,
    pub(crate) driver: String,
}

/// The hardware of a flowtable.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub(crate) struct Hardware {
    pub(crate) table: String,
    pub(crate) flowtable: String,
    pub(crate) devices: Vec<Device>,
    /// One for each direction of a flow.
    pub(crate) rules: u64,
    /// How many rules fit, once a driver has refused one for that.
    pub(crate) limit: Option<u64>,
    /// Flows with both directions in hardware.
    pub(crate) flows: u64,
    /// Those with one.
    pub(crate) flows_partial: u64,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// How often hardware did not take a direction, by the reason's name.
    pub(crate) declined: BTreeMap<String, u64>,
    /// The last error of a driver, in its words.
    pub(crate) driver_said: Option<String>,
}

impl Hardware {
    fn count(&mut self, name: &str, n: u64) {
        match name {
            "rules" => self.rules = n,
            "limit" => self.limit = (n != 0).then_some(n),
            "flows" => self.flows = n,
            "flows_partial" => self.flows_partial = n,
            "packets" => self.packets = n,
            "bytes" => self.bytes = n,
            name => {
                if let Some(reason) = name.strip_prefix("decline.") {
                    self.declined.insert(reason.into(), n);
                }
            }
        }
    }

    /// Takes another's numbers as well.
    pub(crate) fn add(&mut self, other: &Self) {
        self.devices.extend(other.devices.iter().cloned());
        self.rules += other.rules;
        self.limit = self.limit.zip(other.limit).map(|(a, b)| a + b);
        self.flows += other.flows;
        self.flows_partial += other.flows_partial;
        self.packets += other.packets;
        self.bytes += other.bytes;
        for (reason, n) in &other.declined {
            *self.declined.entry(reason.clone()).or_insert(0) += n;
        }
    }
}

/// What the file has about a network namespace. `netns`: the namespace's number.
pub(crate) fn parse(debugfs: &str, netns: u64) -> Vec<Hardware> {
    let mut all = Vec::<Hardware>::new();
    let mut here = false;
    let clean = |word: &str| netlink::text(word.as_bytes());

    for line in debugfs.lines() {
        let words: Vec<_> = line.split(' ').collect();

        if let ["netns", inum, "table", table, "flowtable", flowtable] = words[..] {
            here = inum.parse() == Ok(netns);
            if here {
                all.push(Hardware {
                    table: clean(table),
                    flowtable: clean(flowtable),
                    ..Hardware::default()
                });
            }
            continue;
        }
        let Some(last) = all.last_mut().filter(|_| here) else {
            continue;
        };

        match words[..] {
            ["device", ifindex, engine, ref driver @ ..] => last.devices.push(Device {
                ifindex: ifindex.parse().unwrap_or(0),
                engine: clean(engine),
                driver: clean(&driver.join(" ")),
            }),
            ["driver_said", ..] => last.driver_said = Some(clean(&words[1..].join(" "))),
            [name, n] => {
                if let Ok(n) = n.parse() {
                    last.count(&clean(name), n);
                }
            }
            _ => {}
        }
    }
    all
}

/// The hardware of the present network namespace; none for who may not know.
pub(crate) fn read() -> Option<Vec<Hardware>> {
    let text = fs::read_to_string("/sys/kernel/debug/nft_offload/hardware").ok()?;
    let netns = fs::metadata("/proc/thread-self/ns/net").ok()?;

    Some(parse(&text, netns.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_namespace() {
        let text = "netns 5 table a flowtable f\nrules 9\n\
                    netns 7 table b flowtable g\ndevice 3 tc mlx5e_rep\ndevice 4 software \nrules 3\nflows 1\n\
                    flows_partial 1\nflows_waiting 2\nlimit 8\npackets 10\nbytes 900\ndecline.full 0\n\
                    decline.unsupported.mtu 4\ndriver_said -28 no room left\n\
                    netns 7 table c flowtable h\ndevice 5 software \nlimit 0\n";
        let all = parse(text, 7);

        assert_eq!(all.len(), 2);
        assert_eq!(
            all[0],
            Hardware {
                table: "b".into(),
                flowtable: "g".into(),
                devices: vec![
                    Device {
                        ifindex: 3,
                        engine: "tc".into(),
                        driver: "mlx5e_rep".into(),
                    },
                    Device {
                        ifindex: 4,
                        engine: "software".into(),
                        driver: String::new(),
                    },
                ],
                rules: 3,
                limit: Some(8),
                flows: 1,
                flows_partial: 1,
                packets: 10,
                bytes: 900,
                declined: [("full".into(), 0), ("unsupported.mtu".into(), 4)].into(),
                driver_said: Some("-28 no room left".into()),
            }
        );
        assert_eq!((all[1].devices.len(), all[1].limit), (1, None));
        assert!(parse(text, 9).is_empty() && parse("", 7).is_empty());
    }
}
