// SPDX-License-Identifier: GPL-2.0

//! The command line.

use crate::{conntrack::End, flow::Tier, kernel::Filter, top::model::Order};
use clap::{
    Args,
    Parser,
    Subcommand, //
};
use std::{
    net::{
        IpAddr,
        SocketAddr, //
    },
    path::PathBuf,
};

const STATUS: &str = "\
Exit status:
  0  yes, or all is well; or nobody reads the output to its end
  1  no, or there is something to say (why, doctor)
  2  the command line is wrong
  3  the module nft_offload is not loaded
  4  not permitted
  5  there is no such connection, reason or flowtable
  6  something else went wrong";

/// What can be done on the screen of `top`.
pub(crate) const KEYS: &str = "\
Keys:
  up, down, page up, page down, home, end   select (also j, k, g, G)
  Enter    the flows of the host; Esc, Backspace: all hosts again
  s, r     sort by the next column; in reverse
  t        flows of one tier: software, hardware, both, all
  /        only flows that have these words: address, :port, protocol, tier, device
  p        pause
  ?        these keys
  q        quit

The host of a flow is the end with the private address; if both or none are private the end that is a
neighbour, and else the one that began. Rates are those between two samples: a flow has none before the
second. With -j a line has one sample.";

/// Shows the flows of nft_offload, says why a connection is not one, and takes flows down
#[derive(Parser, Debug)]
#[command(version, bin_name = "nft-offload", after_help = STATUS, max_term_width = 100)]
pub(crate) struct Cli {
    /// In this network namespace: a name in /run/netns, or a path
    #[arg(short = 'N', long, global = true, value_name = "NETNS")]
    pub(crate) netns: Option<String>,

    /// One JSON document
    #[arg(short, long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Is it on, and how much of the traffic takes it
    Status {
        /// Seconds over which rates are measured
        #[arg(short, long, default_value_t = 1.0, value_parser = seconds)]
        interval: f64,
    },
    /// The flows, one a line
    Flows(Flows),
    /// Who uses the line now: hosts, with Enter their flows, and what they send in a second
    #[command(after_help = KEYS)]
    Top(Top),
    /// Why a connection is offloaded, or not
    Why {
        /// One end: an address, maybe with a port (10.0.0.1:443, `[fd00::1]:443`)
        #[arg(value_name = "ADDR[:PORT]", value_parser = end)]
        one: End,
        /// The other end
        #[arg(value_name = "ADDR[:PORT]", value_parser = end)]
        other: Option<End>,
    },
    /// Take flows down: their next packets take the slow path
    Flush(Which),
    /// What is not as it should be, and what to do about it
    Doctor,
    /// Everything that a report of a fault should have, in one text
    Report {
        /// Other addresses in place of all: the same for the same, private ones and prefixes stay such.
        /// Names and comments stay as they are
        #[arg(short, long)]
        mask: bool,
    },
    /// Counters in Prometheus' format, or as JSON
    Metrics {
        /// Into this file, for node_exporter's textfile collector; written beside it, and renamed
        #[arg(long, value_name = "PATH")]
        textfile: Option<PathBuf>,
    },
    /// What the names of reasons mean
    Reasons {
        /// Only of this one, with or without its group (skip.helper)
        name: Option<String>,
    },
    /// The man page, or completions for a shell, on standard output
    #[cfg(feature = "generate")]
    #[command(hide = true)]
    Generate {
        /// man, bash, zsh, fish
        what: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Flows {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Of this protocol: tcp, udp, sctp, icmp, ... or a number
    #[arg(short, long, value_parser = protocol)]
    pub(crate) proto: Option<u8>,
    /// With this port at either end, before or after NAT
    #[arg(short = 'P', long)]
    pub(crate) port: Option<u16>,
    /// Forwarded by software, hardware, or each in one direction
    #[arg(short, long)]
    pub(crate) tier: Option<Tier>,
    /// More lines of each: both directions, with devices, next hops and counters
    #[arg(short, long)]
    pub(crate) more: bool,
    /// In this order, instead of the table's
    #[arg(short, long)]
    pub(crate) sort: Option<Sort>,
    /// One JSON object a line, at once
    #[arg(long, conflicts_with = "sort")]
    pub(crate) jsonl: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Top {
    /// Flows one of whose addresses is this, or begins so, before or after NAT
    #[arg(value_name = "ADDR[/LEN]", value_parser = prefix)]
    pub(crate) addr: Option<(IpAddr, u8)>,
    /// Plain text, which needs no terminal; with -j JSON
    #[arg(short, long)]
    pub(crate) batch: bool,
    /// As many times, and then end
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Seconds from one sample to the next
    #[arg(short, long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    pub(crate) delay: f64,
    /// Flows instead of hosts
    #[arg(short, long)]
    pub(crate) flows: bool,
    /// In this order
    #[arg(short, long, default_value = "rate")]
    pub(crate) sort: Order,
    /// At most so many hosts or flows, in plain text and JSON
    #[arg(short, long, value_name = "N")]
    pub(crate) lines: Option<usize>,
    /// Flows of this protocol: tcp, udp, sctp, icmp, ... or a number
    #[arg(short, long, value_parser = protocol)]
    pub(crate) proto: Option<u8>,
    /// With this port at either end, before or after NAT
    #[arg(short = 'P', long)]
    pub(crate) port: Option<u16>,
    /// Forwarded by software, hardware, or each in one direction
    #[arg(short, long)]
    pub(crate) tier: Option<Tier>,
    /// That pass this device
    #[arg(long, value_name = "DEVICE")]
    pub(crate) dev: Option<String>,
    /// In flowtables of tables of this name
    #[arg(long)]
    pub(crate) table: Option<String>,
    /// In flowtables of this name
    #[arg(long)]
    pub(crate) flowtable: Option<String>,
    /// With this conntrack mark
    #[arg(long, value_name = "MARK[/MASK]", value_parser = mark)]
    pub(crate) mark: Option<(u32, u32)>,
}

impl Top {
    /// What the kernel is asked for.
    pub(crate) fn filter(&self) -> Filter {
        Filter {
            table: self.table.clone(),
            flowtable: self.flowtable.clone(),
            device: self.dev.clone(),
            prefix: self.addr,
            mark: self.mark,
            l4proto: self.proto,
            port: self.port,
            tier: self.tier,
        }
    }
}

/// In which order flows are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sort {
    /// Most bytes first.
    Bytes,
    /// Oldest first.
    Age,
    /// Latest packet first.
    Idle,
}

#[derive(Args, Debug)]
pub(crate) struct Which {
    /// One of whose addresses is this, or begins so, before or after NAT
    #[arg(value_name = "ADDR[/LEN]", value_parser = prefix)]
    pub(crate) addr: Option<(IpAddr, u8)>,
    /// That pass this device
    #[arg(short, long, value_name = "DEVICE")]
    pub(crate) dev: Option<String>,
    /// In flowtables of tables of this name
    #[arg(long)]
    pub(crate) table: Option<String>,
    /// In flowtables of this name
    #[arg(long)]
    pub(crate) flowtable: Option<String>,
    /// With this conntrack mark
    #[arg(long, value_name = "MARK[/MASK]", value_parser = mark)]
    pub(crate) mark: Option<(u32, u32)>,
}

impl Which {
    /// What the kernel is asked for.
    pub(crate) fn filter(&self) -> Filter {
        Filter {
            table: self.table.clone(),
            flowtable: self.flowtable.clone(),
            device: self.dev.clone(),
            prefix: self.addr,
            mark: self.mark,
            ..Filter::default()
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if (0.1..=3600.0).contains(&n) => Ok(n),
        _ => Err("a number of seconds from 0.1 to 3600".into()),
    }
}

fn end(text: &str) -> Result<End, String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);

    if let Ok(addr) = bare.parse::<IpAddr>() {
        return Ok(End { addr, port: None });
    }
    text.parse::<SocketAddr>()
        .map(|end| End {
            addr: end.ip(),
            port: Some(end.port()),
        })
        .map_err(|_| "an IP address, or one with a port: 10.0.0.1:443, [fd00::1]:443".into())
}

fn prefix(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong = || "an IP address, or one with a length: 10.0.0.0/8".to_owned();
    let (addr, len) = match text.split_once('/') {
        Some((addr, len)) => (addr, Some(len)),
        None => (text, None),
    };
    let addr: IpAddr = addr.parse().map_err(|_| wrong())?;
    let most = if addr.is_ipv4() { 32 } else { 128 };
    let len = len
        .map_or(Ok(most), |len| len.parse())
        .map_err(|_| wrong())?;

    match len <= most {
        true => Ok((addr, len)),
        false => Err(format!("the address has {most} bits")),
    }
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn mark(text: &str) -> Result<(u32, u32), String> {
    let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));

    number(value)
        .zip(number(mask))
        .ok_or_else(|| "a mark, or one with a mask: 0x12/0xff".into())
}

/// Protocols that flows have, by their names.
pub(crate) const PROTOCOLS: [(&str, u8); 8] = [
    ("icmp", 1),
    ("tcp", 6),
    ("udp", 17),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("sctp", 132),
];

fn protocol(text: &str) -> Result<u8, String> {
    PROTOCOLS
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, number)| *number)
        .or_else(|| text.parse().ok())
        .ok_or_else(|| "a protocol: tcp, udp, sctp, icmp, icmpv6, gre, esp, ah, or a number".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["x", "flows", "10.0.0.0/8", "-p", "tcp", "-N", "rt", "-j"])
            .unwrap();
        assert_eq!((cli.netns.as_deref(), cli.json), (Some("rt"), true));
        let Command::Flows(flows) = cli.command else {
            panic!();
        };
        assert_eq!(flows.proto, Some(6));
        assert_eq!(flows.which.addr, Some(("10.0.0.0".parse().unwrap(), 8)));
        for wrong in [
            &["x", "flows", "10.0.0.0/33"][..],
            &["x", "flows", "--tier", "cloud"],
            &["x", "why"],
            &["x", "why", "nobody"],
            &["x", "status", "-i", "0"],
            &["x", "flows", "--mark", "1/x"],
            &["x", "top", "-b", "-n", "0"],
            &["x", "top", "-d", "0"],
            &["x", "top", "--sort", "colour"],
            &["x"],
        ] {
            assert!(Cli::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn top() {
        let cli = Cli::try_parse_from([
            "x", "top", "-b", "-n", "3", "-d", "0.5", "fd00::/8", "--dev", "lan", "-s", "down",
        ])
        .unwrap();
        let Command::Top(top) = cli.command else {
            panic!();
        };
        assert_eq!((top.batch, top.count, top.delay), (true, Some(3), 0.5));
        assert_eq!((top.sort, top.flows), (Order::Down, false));
        let filter = top.filter();
        assert_eq!(filter.device.as_deref(), Some("lan"));
        assert_eq!(filter.prefix, Some(("fd00::".parse().unwrap(), 8)));
    }

    #[test]
    fn ends_marks_and_prefixes() {
        let e = |text| end(text).map(|e| (e.addr.to_string(), e.port));
        assert_eq!(e("10.0.0.1"), Ok(("10.0.0.1".into(), None)));
        assert_eq!(e("10.0.0.1:53"), Ok(("10.0.0.1".into(), Some(53))));
        assert_eq!(e("fd00::1"), Ok(("fd00::1".into(), None)));
        assert_eq!(e("[fd00::1]"), Ok(("fd00::1".into(), None)));
        assert_eq!(e("[fd00::1]:443"), Ok(("fd00::1".into(), Some(443))));
        assert!(e("10.0.0.1:99999").is_err() && e("").is_err());
        assert_eq!(mark("0x12/0xff"), Ok((0x12, 0xff)));
        assert_eq!(mark("7"), Ok((7, u32::MAX)));
        assert_eq!(prefix("fd00::/64"), Ok(("fd00::".parse().unwrap(), 64)));
        assert_eq!(prefix("10.1.2.3"), Ok(("10.1.2.3".parse().unwrap(), 32)));
        assert!(prefix("10.1.2.3/-1").is_err());
        assert_eq!((protocol("udp"), protocol("132")), (Ok(17), Ok(132)));
    }
}
