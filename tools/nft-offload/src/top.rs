// SPDX-License-Identifier: GPL-2.0

//! Who uses the line now: hosts, or flows, and what they send in a second.

pub(crate) mod model;
#[cfg(feature = "top")]
mod screen;

use crate::{
    cli::Top,
    flow::Tier,
    kernel::{
        Filter,
        Kernel,
        Table, //
    },
    module,
    netlink::{
        is_errno,
        Refused, //
    },
    say,
    show::{
        self,
        amount,
        columns,
        Devices, //
    },
    Exit,
    Out,
    ABSENT, //
};
use anyhow::Result;
use model::{
    Host,
    Key,
    Model,
    Order,
    Rate,
    Seen,
    Tiers,
    Tracked, //
};
use rustix::io::Errno;
use serde::Serialize;
use std::{
    io::{
        self,
        IsTerminal,
        Write, //
    },
    thread,
    time::{
        Duration,
        Instant,
        SystemTime,
        UNIX_EPOCH, //
    },
};

/// Flows are listed again and again, and the model gets them.
struct Sampler {
    kernel: Kernel,
    filter: Filter,
    begun: Instant,
    model: Model,
    tables: Vec<Table>,
    /// Bytes in a second that the flowtables have counted, all flows included.
    software: Option<f64>,
    /// What was in the way of the last sample.
    trouble: Option<String>,
}

/// What flowtables have counted between two readings.
fn counted(before: &[Table], now: &[Table]) -> u64 {
    let name = |t: &Table| (t.family, t.table.clone(), t.flowtable.clone());

    now.iter()
        .filter_map(|table| {
            let old = before.iter().find(|old| name(old) == name(table))?;

            // One of the same name may have taken its place, and counts from nothing.
            Some(table.bytes.checked_sub(old.bytes).unwrap_or(table.bytes))
        })
        .sum()
}

impl Sampler {
    fn new(kernel: Kernel, filter: Filter) -> Self {
        Self {
            kernel,
            filter,
            begun: Instant::now(),
            model: Model::default(),
            tables: Vec::new(),
            software: None,
            trouble: None,
        }
    }

    fn list(&mut self) -> Result<(Vec<Table>, Vec<Seen>, bool)> {
        let tables = self.kernel.tables()?;
        let mut seen = Vec::new();
        let consistent = self.kernel.flows(&self.filter, |flow| {
            let counted = tables.iter().any(|t| {
                t.counter
                    && (t.family, &t.table, &t.flowtable)
                        == (flow.family, &flow.table, &flow.flowtable)
            });

            seen.push(Seen::new(&flow, counted));
            Ok(())
        })?;

        Ok((tables, seen, consistent))
    }

    /// Takes a sample. False: the module has gone.
    fn sample(&mut self) -> Result<bool> {
        let first = !self.model.has_sample();
        let at = self.begun.elapsed();

        match self.list() {
            Ok((tables, seen, consistent)) => {
                self.model.sample(at, seen, consistent);
                self.software = (!first && !self.model.elapsed.is_zero()).then(|| {
                    counted(&self.tables, &tables) as f64 / self.model.elapsed.as_secs_f64()
                });
                self.tables = tables;
                self.trouble = None;
            }
            // A ruleset is being loaded, somebody else lists flows, the module is another one now.
            Err(e) if !first && e.is::<Refused>() && !is_errno(&e, Errno::PERM) => {
                let Some(kernel) = Kernel::open()? else {
                    return Ok(false);
                };
                self.kernel = kernel;
                self.trouble = Some(e.to_string());
            }
            Err(e) => return Err(e),
        }
        Ok(true)
    }

    /// The first lines: what all flows send, and what there is to say about the figures.
    fn summary(&self) -> Vec<String> {
        let model = &self.model;
        let (tiers, hardware) = model.tiers();
        let bits = |bytes: f64| amount(bytes * 8.0, "bit/s");
        let mut line = clock();

        if let Some(software) = self.software {
            line += &format!("  software {}", bits(software));
        }
        if tiers.hardware != 0 {
            line += &format!("  hardware {}", bits(hardware));
        }
        line += &format!("  flows {} ({})", tiers.flows(), tiers_text(&tiers));
        line += &format!(
            "  {} new, {} gone in {:.1} s",
            model.added,
            model.gone,
            model.elapsed.as_secs_f64()
        );
        let mut lines = vec![line];

        if let Some(trouble) = &self.trouble {
            lines.push(format!(
                "the flows could not be listed, these are older: {trouble}"
            ));
        }
        if model.torn {
            lines.push(
                "the flowtables have changed while they were listed: flows may be missing".into(),
            );
        }
        match model.uncounted() {
            0 => {}
            n => lines.push(format!(
                "flows whose bytes nobody counts: {n} (a flowtable needs the flag counter, and net.netfilter.nf_conntrack_acct to be 1)"
            )),
        }
        lines
    }
}

/// The time of day, as UTC.
fn clock() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let s = now.map_or(0, |now| now.as_secs()) % 86400;

    format!("{:02}:{:02}:{:02} UTC", s / 3600, s / 60 % 60, s % 60)
}

/// How many flows each tier has, those that have any.
fn tiers_text(tiers: &Tiers) -> String {
    let all: Vec<_> = [
        (tiers.software, Tier::Software),
        (tiers.hardware, Tier::Hardware),
        (tiers.partial, Tier::Partial),
    ]
    .into_iter()
    .filter(|(n, _)| *n != 0)
    .map(|(n, tier)| format!("{n} {}", show::tier(tier)))
    .collect();

    match all.is_empty() {
        true => "-".into(),
        false => all.join(", "),
    }
}

/// Which flows are shown, of those that are listed.
#[cfg(any(test, feature = "top"))]
#[derive(Debug, Clone, Default)]
struct Wanted {
    /// All of these are in the text of a flow.
    words: Vec<String>,
    tier: Option<Tier>,
}

#[cfg(any(test, feature = "top"))]
impl Wanted {
    fn wants(&self, key: &Key, flow: &Tracked, devices: &mut Devices) -> bool {
        if self.tier.is_some_and(|tier| tier != flow.tier()) {
            return false;
        }
        if self.words.is_empty() {
            return true;
        }
        let [iif, oif] = flow.devices();
        let text = format!(
            "{} {} {} > {} {}",
            key.text(),
            show::tier(flow.tier()),
            devices.name(iif).to_owned(),
            devices.name(oif),
            flow.host()
        );

        self.words.iter().all(|word| text.contains(word))
    }
}

/// The three rates as people read them; what nobody has counted is a dash.
fn rates(rate: Option<&Rate>, split: bool) -> [String; 3] {
    let text =
        |rate: Option<f64>| rate.map_or_else(|| "-".into(), |bytes| amount(bytes * 8.0, "bit/s"));
    let each = rate.filter(|_| split);

    [
        text(rate.map(|r| r.total)),
        text(each.map(|r| r.down)),
        text(each.map(|r| r.up)),
    ]
}

const HOSTS: [&str; 7] = ["HOST", "RATE", "DOWN", "UP", "BYTES", "FLOWS", "TIER"];
const FLOWS: [&str; 8] = [
    "FLOW", "RATE", "DOWN", "UP", "BYTES", "AGE", "TIER", "DEVICES",
];

fn bytes_text(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".into(), |bytes| amount(bytes as f64, "B"))
}

fn host_cells(host: &Host) -> Vec<String> {
    let [rate, down, up] = rates(host.rate.as_ref(), host.split);

    vec![
        host.addr.to_string(),
        rate,
        down,
        up,
        bytes_text(host.bytes),
        host.tiers.flows().to_string(),
        tiers_text(&host.tiers),
    ]
}

fn flow_cells(key: &Key, flow: &Tracked, devices: &mut Devices) -> Vec<String> {
    let [rate, down, up] = rates(flow.rate.as_ref(), flow.split());
    let [iif, oif] = flow.devices();
    let iif = devices.name(iif).to_owned();

    vec![
        key.text(),
        rate,
        down,
        up,
        bytes_text(flow.bytes()),
        show::time(flow.age().as_millis() as u64),
        show::tier(flow.tier()).into(),
        format!("{iif} > {}", devices.name(oif)),
    ]
}

/// A host or flow in JSON.
#[derive(Serialize)]
struct Entry {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flow: Option<String>,
    #[serde(flatten)]
    rate: Option<Rate>,
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flows: Option<Tiers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<Tier>,
}

/// A sample in JSON.
#[derive(Serialize)]
struct Document {
    /// Seconds since 1970.
    time: f64,
    seconds: f64,
    software_bytes_per_second: Option<f64>,
    flows: Tiers,
    added: u64,
    gone: u64,
    /// The flows are of one moment.
    consistent: bool,
    entries: Vec<Entry>,
}

/// What is printed of a sample, for programs and for people.
struct Print<'a> {
    args: &'a Top,
    order: Order,
    devices: Devices,
}

impl Print<'_> {
    fn lines(&self) -> usize {
        self.args.lines.unwrap_or(usize::MAX)
    }

    fn text(&mut self, sampler: &Sampler) -> String {
        let model = &sampler.model;
        let mut text = sampler.summary().join("\n");
        let mut rows = Vec::new();

        text.push('\n');
        if self.args.flows {
            rows.push(FLOWS.map(str::to_owned).to_vec());
            for (key, flow) in model
                .flows(self.order, |_, _| true)
                .iter()
                .take(self.lines())
            {
                rows.push(flow_cells(key, flow, &mut self.devices));
            }
        } else {
            let hosts = model.hosts(self.order, |_, _| true);

            rows.push(HOSTS.map(str::to_owned).to_vec());
            rows.extend(hosts.iter().take(self.lines()).map(host_cells));
        }
        text += &columns(&rows);
        text
    }

    fn document(&self, sampler: &Sampler) -> Document {
        let model = &sampler.model;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let entries = match self.args.flows {
            true => model
                .flows(self.order, |_, _| true)
                .iter()
                .take(self.lines())
                .map(|(key, flow)| Entry {
                    host: Some(flow.host().to_string()),
                    flow: Some(key.text()),
                    rate: flow.rate,
                    bytes: flow.bytes(),
                    flows: None,
                    tier: Some(flow.tier()),
                })
                .collect(),
            false => model
                .hosts(self.order, |_, _| true)
                .into_iter()
                .take(self.lines())
                .map(|host| Entry {
                    host: Some(host.addr.to_string()),
                    flow: None,
                    rate: host.rate,
                    bytes: host.bytes,
                    flows: Some(host.tiers),
                    tier: None,
                })
                .collect(),
        };

        Document {
            time: now.map_or(0.0, |now| now.as_secs_f64()),
            seconds: model.elapsed.as_secs_f64(),
            software_bytes_per_second: sampler.software,
            flows: model.tiers().0,
            added: model.added,
            gone: model.gone,
            consistent: !model.torn && sampler.trouble.is_none(),
            entries,
        }
    }
}

fn gone() -> Exit {
    say!("{ABSENT} any more");
    Exit::Absent
}

/// Prints one sample after the other.
fn batch(out: &Out, mut sampler: Sampler, args: &Top) -> Result<Exit> {
    let mut print = Print {
        args,
        order: args.sort,
        devices: Devices::default(),
    };
    let mut left = args.count;
    let mut next = sampler.begun;

    // A rate is one between two.
    sampler.sample()?;
    while left != Some(0) {
        next += Duration::from_secs_f64(args.delay);
        // Not sooner than asked for, even if to list the flows takes longer.
        next = next.max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
        if !sampler.sample()? {
            return Ok(gone());
        }
        let mut stdout = io::stdout().lock();

        if out.json {
            serde_json::to_writer(&mut stdout, &print.document(&sampler))
                .map_err(io::Error::from)?;
            writeln!(stdout)?;
        } else {
            let text = print.text(&sampler);

            stdout.write_all(text.as_bytes())?;
            if left != Some(1) {
                writeln!(stdout)?;
            }
        }
        stdout.flush()?;
        left = left.map(|n| n - 1);
    }
    Ok(Exit::Yes)
}

/// Whether there can be a screen.
fn has_screen() -> bool {
    cfg!(feature = "top")
        && io::stdout().is_terminal()
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

pub(crate) fn top(out: &Out, args: &Top) -> Result<Exit> {
    let batched = args.batch || out.json;

    if !batched && !has_screen() {
        say!(
            "{}: nft-offload top -b prints text",
            match cfg!(feature = "top") {
                true => "standard output is no terminal that has a screen",
                false => "this nft-offload was built without its screen (feature top)",
            }
        );
        return Ok(Exit::Usage);
    }
    let kernel = match module()? {
        Ok(kernel) => kernel,
        Err(exit) => return Ok(exit),
    };
    let sampler = Sampler::new(kernel, args.filter());

    #[cfg(feature = "top")]
    if !batched {
        return screen::run(out, sampler, args);
    }
    batch(out, sampler, args)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::tests::{
        flow,
        seen, //
    };

    /// Two samples, a second apart: a host with two flows, and another with one that hardware has.
    pub(super) fn example() -> Model {
        let mut model = Model::default();
        let flows = |n: u64| {
            let mut hardware = flow("10.0.0.6", 5000, [0, n * 1_000_000]);

            hardware.tier = Tier::Hardware;
            [
                flow("10.0.0.5", 4000, [n * 12_500, n * 12_500_000]),
                flow("10.0.0.5", 4001, [0, 0]),
                hardware,
            ]
        };

        for n in 0..2 {
            model.sample(Duration::from_secs(n), seen(&flows(n)), true);
        }
        model
    }

    #[test]
    fn rows() {
        let model = example();
        let mut rows = vec![HOSTS.map(str::to_owned).to_vec()];
        rows.extend(model.hosts(Order::Rate, |_, _| true).iter().map(host_cells));
        assert_eq!(
            columns(&rows),
            "HOST      RATE         DOWN         UP          BYTES    FLOWS  TIER\n\
             10.0.0.5  100 Mbit/s   100 Mbit/s   100 kbit/s  12.5 MB  2      2 sw\n\
             10.0.0.6  8.00 Mbit/s  8.00 Mbit/s  0 bit/s     1.00 MB  1      1 hw\n"
        );
        let mut devices = Devices::of(&[(2, "lan"), (3, "wan")]);
        let flows = model.flows(Order::Rate, |_, _| true);
        assert_eq!(
            flow_cells(flows[0].0, flows[0].1, &mut devices),
            [
                "tcp 10.0.0.5:4000 > 192.0.2.1:443",
                "100 Mbit/s",
                "100 Mbit/s",
                "100 kbit/s",
                "12.5 MB",
                "1m00s",
                "sw",
                "lan > wan"
            ]
        );
        // What nobody counts is not nothing.
        assert_eq!(rates(None, true), ["-", "-", "-"]);
        assert_eq!(rates(Some(&Rate::default()), false), ["0 bit/s", "-", "-"]);
        assert_eq!(tiers_text(&Tiers::default()), "-");
    }

    #[test]
    fn words_and_tiers() {
        let model = example();
        let mut devices = Devices::of(&[(2, "lan"), (3, "wan")]);
        let mut count = |words: &str, tier| {
            let wanted = Wanted {
                words: words.split_whitespace().map(str::to_owned).collect(),
                tier,
            };
            let flows = model.flows(Order::Rate, |k, f| wanted.wants(k, f, &mut devices));
            flows.len()
        };
        assert_eq!(count("", None), 3);
        assert_eq!(count("10.0.0.5", None), 2);
        assert_eq!(count(":443 hw", None), 1);
        assert_eq!(count("tcp wan", Some(Tier::Software)), 2);
        assert_eq!(count("udp", None), 0);
        assert_eq!(count("", Some(Tier::Partial)), 0);
    }

    #[test]
    fn flowtables_that_count_from_nothing() {
        let table = |name: &str, bytes| Table {
            family: "inet",
            table: "t".into(),
            flowtable: name.into(),
            bytes,
            ..Table::default()
        };
        let before = [table("a", 1000), table("b", 5000)];
        // b is another one now, and c is new: since when it counts is not known.
        let now = [table("a", 1700), table("b", 30), table("c", 1 << 40)];
        assert_eq!(counted(&before, &now), 730);
    }
}
