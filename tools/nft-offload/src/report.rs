// SPDX-License-Identifier: GPL-2.0

//! Everything that a report of a fault should have, in one text that can be pasted.

use crate::{
    doctor,
    flow::Flow,
    kernel::{
        Counter,
        Filter,
        Kernel, //
    },
    link::{
        self,
        Link, //
    },
    mask::Mask,
    netlink::is_errno,
    say,
    show::{
        self,
        columns,
        Devices, //
    },
    status,
    Exit,
    Out,
    ABSENT, //
};
use anyhow::{
    bail,
    Context,
    Result, //
};
use rustix::{
    fs::OFlags,
    io::Errno, //
};
use serde::Serialize;
use std::{
    cmp::Reverse,
    fs::{
        self,
        OpenOptions, //
    },
    io::{
        self,
        Read,
        Write, //
    },
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::Command,
    time::{
        SystemTime,
        UNIX_EPOCH, //
    },
};

/// So many flows, those with most bytes, and lines of the log.
const MOST: usize = 20;
const SYSFS: &str = "/sys/module/nft_offload";
const DEBUGFS: &str = "/sys/kernel/debug/nft_offload";

/// A part of the report.
#[derive(Debug, Serialize)]
struct Section {
    title: &'static str,
    text: String,
}

/// Text of others, with its lines and tabs, and without commands to a terminal.
fn clean(text: &str) -> String {
    text.replace(
        |c: char| c.is_control() && !matches!(c, '\n' | '\t'),
        "\u{fffd}",
    )
}

fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();

    fs::read_to_string(path)
        .map(|text| clean(text.trim_end()))
        .with_context(|| path.display().to_string())
}

/// What a program prints.
fn output(program: &str, args: &[&str]) -> Result<String> {
    let out = Command::new(program)
        .args(args)
        .output()
        .with_context(|| program.to_owned())?;

    if !out.status.success() {
        let words = String::from_utf8_lossy(&out.stderr);
        bail!("{program}: {}", clean(words.lines().next().unwrap_or("")));
    }
    Ok(clean(String::from_utf8_lossy(&out.stdout).trim_end()))
}

/// The answer, or why there is none.
fn or_why(answer: Result<String>) -> String {
    answer.unwrap_or_else(|e| match is_errno(&e, Errno::PERM) {
        true => "(not permitted: needs CAP_NET_ADMIN)".into(),
        false => format!("({e:#})"),
    })
}

/// The name of the system, of /etc/os-release.
fn system(release: &str) -> &str {
    release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or("unknown", |name| name.trim_matches(['"', '\'']))
}

fn versions(kernel: Option<&mut Kernel>) -> String {
    let uname = rustix::system::uname();
    let text = |s: &std::ffi::CStr| clean(&s.to_string_lossy());
    let module = kernel.map_or_else(
        || format!("({ABSENT})"),
        |kernel| {
            or_why(kernel.info().map(|info| {
                format!(
                    "{}, interface {}, {} flowtables, {} flows{}",
                    info.version,
                    info.interface,
                    info.flowtables,
                    info.flows,
                    if info.dscp_restored {
                        ", dscp=restore"
                    } else {
                        ""
                    }
                )
            }))
        },
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let release = read("/etc/os-release").unwrap_or_default();

    // Without the name of the machine.
    [
        ("nft-offload", env!("CARGO_PKG_VERSION").to_owned()),
        ("module", module),
        (
            "kernel",
            format!(
                "{} {} {}",
                text(uname.release()),
                text(uname.machine()),
                text(uname.version())
            ),
        ),
        ("tainted", or_why(read("/proc/sys/kernel/tainted"))),
        ("system", system(&release).to_owned()),
        ("nft", or_why(output("nft", &["--version"]))),
        (
            "time",
            format!("{} (Unix)", now.map_or(0, |now| now.as_secs())),
        ),
    ]
    .iter()
    .map(|(name, value)| format!("{name}: {value}\n"))
    .collect::<Vec<_>>()
    .concat()
}

/// Names of files in a folder, in order.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();

    names.sort();
    names
}

/// Modules that have to do with it, of /proc/modules.
fn related(modules: &str) -> Vec<&str> {
    let mut related: Vec<_> = modules
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| {
            [
                "nf_",
                "nft_",
                "xt_FLOWOFFLOAD",
                "mtk_",
                "act_ct",
                "br_netfilter",
            ]
            .iter()
            .any(|start| name.starts_with(start))
        })
        .collect();

    related.sort_unstable();
    related
}

fn module() -> String {
    let parameters = Path::new(SYSFS).join("parameters");
    let mut text = String::new();

    for name in ["version", "srcversion", "initstate", "taint", "refcnt"] {
        if let Ok(value) = read(Path::new(SYSFS).join(name)) {
            text += &format!("{name}: {value}\n");
        }
    }
    for name in names(&parameters) {
        let value = or_why(read(parameters.join(&name)));
        text += &format!("parameter {}: {value}\n", clean(&name));
    }
    match read("/proc/modules") {
        Ok(modules) => text += &format!("loaded: {}\n", related(&modules).join(" ")),
        Err(e) => text += &format!("loaded: ({e:#})\n"),
    }
    text
}

/// Settings that decide what is forwarded, counted, and how long it is kept.
fn settings() -> String {
    let mut text = String::new();

    for name in [
        "net.ipv4.ip_forward",
        "net.ipv6.conf.all.forwarding",
        "net.ipv4.conf.all.rp_filter",
        "net.netfilter.nf_conntrack_acct",
        "net.netfilter.nf_conntrack_count",
        "net.netfilter.nf_conntrack_max",
        "net.netfilter.nf_conntrack_tcp_be_liberal",
        "net.netfilter.nf_flowtable_tcp_timeout",
        "net.netfilter.nf_flowtable_udp_timeout",
        "net.bridge.bridge-nf-call-iptables",
        "net.bridge.bridge-nf-call-ip6tables",
    ] {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));

        if let Ok(value) = read(path) {
            text += &format!("{name} = {value}\n");
        }
    }
    text
}

fn devices(links: &[Link]) -> String {
    let head = ["device", "kind", "state", "mtu", "master", "lower"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    // A device of another namespace has a number only.
    let name = |index: Option<u32>| match index {
        None => "-".into(),
        Some(index) => links
            .iter()
            .find(|link| link.index == index)
            .map_or_else(|| format!("if{index}"), |link| link.name.clone()),
    };

    for link in links {
        rows.push(vec![
            format!("{}: {}", link.index, link.name),
            match link.kind.is_empty() {
                true => "-".into(),
                false => link.kind.clone(),
            },
            if link.up { "up" } else { "down" }.into(),
            link.mtu.to_string(),
            name(link.master),
            name(link.lower),
        ]);
    }
    columns(&rows)
}

/// The counters that have counted something.
fn counters(counters: &[Counter]) -> String {
    counters
        .iter()
        .filter(|c| c.count != 0)
        .map(|c| match c.group {
            "counter" => format!("{} {}\n", c.name, c.count),
            group => format!("{group}.{} {}\n", c.name, c.count),
        })
        .collect::<Vec<_>>()
        .concat()
}

fn flows(kernel: &mut Kernel) -> Result<String> {
    let mut most: Vec<Flow> = Vec::new();
    let mut all = 0_u64;
    let mut devices = Devices::default();
    let keep = |most: &mut Vec<Flow>| {
        most.sort_by_key(|flow| Reverse(flow.bytes()));
        most.truncate(MOST);
    };

    kernel.flows(&Filter::default(), |flow| {
        all += 1;
        most.push(flow);
        // However many there are, no more than that are in memory.
        if most.len() > 64 * MOST {
            keep(&mut most);
        }
        Ok(())
    })?;
    keep(&mut most);
    let mut text = format!("{} of {all} flows, those with most bytes\n", most.len());

    for flow in &most {
        text += &format!("{}\n", show::flow(flow, &mut devices));
        text += &format!(
            "{}\n{}\n",
            show::direction("orig", &flow.original, &mut devices),
            show::direction("reply", &flow.reply, &mut devices)
        );
    }
    Ok(text)
}

/// A record of the kernel's log, if it is of the module: when, and what.
fn record(record: &str) -> Option<String> {
    let (head, text) = record.split_once(';')?;
    let line = text.lines().next().filter(|l| l.contains("nft_offload"))?;
    let us: u64 = head.split(',').nth(2)?.parse().ok()?;

    Some(format!(
        "[{:5}.{:06}] {}\n",
        us / 1_000_000,
        us % 1_000_000,
        clean(line)
    ))
}

/// What the module has said to the kernel's log, as far as that goes back.
fn log() -> Result<String> {
    let flags = OFlags::NONBLOCK.bits() as i32;
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open("/dev/kmsg")
        .context("/dev/kmsg")?;
    let mut buffer = vec![0; 16 << 10];
    let mut lines = Vec::new();

    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => lines.extend(record(&String::from_utf8_lossy(&buffer[..n]))),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            // Overwritten before it was read, or interrupted: there is more.
            Err(e) if e.raw_os_error() == Some(Errno::PIPE.raw_os_error()) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e).context("/dev/kmsg"),
        }
    }
    let skip = lines.len().saturating_sub(MOST);

    Ok(lines.split_off(skip).concat())
}

/// All parts, and how the program ends.
fn sections() -> Result<(Vec<Section>, Exit)> {
    let mut kernel = Kernel::open()?;
    let mut exit = match &mut kernel {
        None => Exit::Absent,
        Some(kernel) => match kernel.info() {
            Err(e) if is_errno(&e, Errno::PERM) => Exit::Forbidden,
            _ => Exit::Yes,
        },
    };
    let mut all = Vec::new();
    let mut add = |title, answer: Result<String>| {
        if matches!(&answer, Err(e) if is_errno(e, Errno::PERM)) && exit == Exit::Yes {
            // The counters are the machine's: who is root in a container has all but these.
            exit = match title {
                "counters" => Exit::Yes,
                _ => Exit::Forbidden,
            };
        }
        all.push(Section {
            title,
            text: or_why(answer),
        });
    };

    add("versions", Ok(versions(kernel.as_mut())));
    add("module", Ok(module()));
    add("settings", Ok(settings()));
    add("devices", link::links().map(|links| devices(&links)));
    add("status", status::text(1.0));
    if let Some(kernel) = &mut kernel {
        add("flowtables", read(Path::new(DEBUGFS).join("flowtables")));
        add("hardware", read(Path::new(DEBUGFS).join("hardware")));
        add("counters", kernel.stats().map(|c| counters(&c)));
        add("flows", flows(kernel));
    }
    add(
        "doctor",
        doctor::all(kernel.as_mut()).map(|found| doctor::text(&found, false)),
    );
    // Without what changes all the time, and what sets have in them.
    add("ruleset", output("nft", &["-s", "-t", "list", "ruleset"]));
    add("log", log());
    Ok((all, exit))
}

fn text(sections: &[Section], masked: bool) -> String {
    let mut text = String::from("Report of nft-offload. ");

    text += match masked {
        true => "Other addresses are in place of all: the same for the same, private ones and prefixes stay such.\n",
        false => "It has addresses: nft-offload report --mask replaces them.\n",
    };
    text += "Names and comments are as they are: read it before you show it to others.\n";
    for section in sections {
        text += &format!("\n=== {}\n", section.title);
        text += match section.text.trim_end() {
            "" => "(nothing)",
            text => text,
        };
        text.push('\n');
    }
    text
}

/// Prints the report.
pub(crate) fn report(out: &Out, masked: bool) -> Result<Exit> {
    let (mut sections, exit) = sections()?;

    if masked {
        let mask = Mask::new();

        for section in &mut sections {
            section.text = mask.text(&section.text);
        }
    }
    match out.json {
        true => out.document(&sections)?,
        false => io::stdout().write_all(text(&sections, masked).as_bytes())?,
    }
    match exit {
        Exit::Absent => {
            say!("{ABSENT}: the rest is there");
        }
        Exit::Forbidden => {
            say!(
                "not permitted: parts need CAP_NET_ADMIN in the network namespace (be root there)"
            );
        }
        _ => {}
    }
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text() {
        let section = |title, text: &str| Section {
            title,
            text: text.into(),
        };
        let sections = [section("a", "one\ntwo\n\n"), section("b", "\n")];
        let all = text(&sections, true);
        assert!(
            all.ends_with("others.\n\n=== a\none\ntwo\n\n=== b\n(nothing)\n"),
            "{all}"
        );
        assert!(text(&sections, false).contains("--mask replaces them"));
    }

    #[test]
    fn text_of_others() {
        assert_eq!(
            clean("a\tb\nc\x1b[2J\r\u{9b}"),
            "a\tb\nc\u{fffd}[2J\u{fffd}\u{fffd}"
        );
        assert_eq!(system("ID=x\nPRETTY_NAME=\"Debian 13\"\n"), "Debian 13");
        assert_eq!(system(""), "unknown");
        let modules = "nft_offload 1 0 - Live 0x0\next4 1 0 -\nnf_tables 1 1 -\n";
        assert_eq!(related(modules), ["nf_tables", "nft_offload"]);
        assert!(output("/nowhere/nft", &[]).is_err());
        assert!(output("false", &[]).is_err());
        assert_eq!(output("printf", &["a\\033b\\n"]).unwrap(), "a\u{fffd}b");
    }

    #[test]
    fn records_of_the_log() {
        assert_eq!(
            record("6,339,5140900,-;nft_offload: loaded\n SUBSYSTEM=x\n").as_deref(),
            Some("[    5.140900] nft_offload: loaded\n")
        );
        assert_eq!(record("6,339,5140900,-;eth0: up\n"), None);
        assert_eq!(record("nft_offload"), None);
    }

    #[test]
    fn devices_and_counters() {
        let link = |index, name: &str, kind: &str, master, lower| Link {
            index,
            name: name.into(),
            kind: kind.into(),
            mtu: 1500,
            up: true,
            master,
            lower,
        };
        let links = [
            link(2, "lan1", "", Some(3), None),
            link(3, "br-lan", "bridge", None, None),
            link(4, "wan.7", "vlan", None, Some(9)),
        ];
        assert_eq!(
            devices(&links),
            "device     kind    state  mtu   master  lower\n\
             2: lan1    -       up     1500  br-lan  -\n\
             3: br-lan  bridge  up     1500  -       -\n\
             4: wan.7   vlan    up     1500  -       if9\n"
        );
        let counter = |group, name: &str, count| Counter {
            group,
            name: name.into(),
            count,
        };
        let all = [
            counter("counter", "packets_fast", 7),
            counter("skip", "helper", 1),
            counter("miss", "mtu", 0),
        ];
        assert_eq!(counters(&all), "packets_fast 7\nskip.helper 1\n");
    }
}
