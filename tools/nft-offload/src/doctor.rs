// SPDX-License-Identifier: GPL-2.0

//! What is not as it should be.

use crate::{
    conntrack,
    hardware::{
        self,
        Hardware, //
    },
    kernel::{
        Info,
        Kernel, //
    },
    nft::Ruleset,
    show::{
        paint,
        Style, //
    }, //
};
use anyhow::Result;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command, //
};

/// How a check has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Grade {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// To be mended.
    Warn,
}

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) grade: Grade,
    pub(crate) text: String,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) advice: String,
}

fn ok(text: impl Into<String>) -> Finding {
    Finding {
        grade: Grade::Ok,
        text: text.into(),
        advice: String::new(),
    }
}

fn note(text: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding {
        grade: Grade::Note,
        text: text.into(),
        advice: advice.into(),
    }
}

fn warn(text: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding {
        grade: Grade::Warn,
        ..note(text, advice)
    }
}

/// The kernel's own modules for flowtables.
const INTREE: [&str; 2] = ["nf_flow_table_inet", "nft_flow_offload"];

/// Whether these are in the way. `modules`: /proc/modules; `built_in`: those in the kernel itself;
/// `modprobe`: what `modprobe -c` prints, if it runs.
pub(crate) fn intree(modules: &str, built_in: &[&str], modprobe: Option<&str>) -> Vec<Finding> {
    let loaded = |name: &str| {
        modules
            .lines()
            .any(|line| line.split(' ').next() == Some(name))
    };
    let mut found = Vec::new();

    for name in INTREE {
        if loaded(name) {
            found.push(warn(
                format!("the in-tree {name} is loaded"),
                "flowtables that exist stay with it until the ruleset is loaded again: nft list ruleset > f; nft -f f",
            ));
        } else if built_in.contains(&name) {
            found.push(warn(
                format!("{name} is built into this kernel"),
                "nft_offload cannot take its place: another kernel is needed",
            ));
        } else {
            found.push(ok(format!("the in-tree {name} is not loaded")));
        }
        let Some(config) = modprobe else {
            continue;
        };
        let has = |line: String| config.lines().any(|l| l == line);

        if has(format!("blacklist {name}")) {
            found.push(note(
                format!("{name} is blacklisted"),
                "without nft_offload no ruleset with a flowtable would load: make install puts a modprobe.d file that does without",
            ));
        } else if has(format!("softdep {name} pre: nft_offload")) {
            found.push(ok(format!("nft_offload is loaded before {name}")));
        } else {
            found.push(warn(
                format!("nft_offload is not loaded before {name}"),
                "make install puts packaging/modprobe.d/nft-offload.conf in /etc/modprobe.d",
            ));
        }
    }
    found
}

/// Whether flowtables and the rules that fill them make sense.
pub(crate) fn ruleset(ruleset: &Ruleset, device_exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut found = Vec::new();

    if ruleset.flowtables.is_empty() {
        return vec![warn(
            "there is no flowtable in this network namespace",
            "add one: table inet t { flowtable f { hook ingress priority 0; devices = { lan, wan }; } }",
        )];
    }
    for ft in &ruleset.flowtables {
        let name = format!("flowtable {} {} {}", ft.family, ft.table, ft.name);
        let missing: Vec<_> = ft
            .devices
            .iter()
            .filter(|device| !device.ends_with('*') && !device_exists(device))
            .cloned()
            .collect();
        let adding = ruleset.adding().any(|rule| {
            (rule.family, &rule.table) == (ft.family, &ft.table)
                && rule.adds_to.as_ref() == Some(&ft.name)
        });

        if ft.devices.is_empty() {
            found.push(warn(
                format!("{name} has no devices"),
                "no packet can come in by it: list the devices of both sides",
            ));
        } else if !missing.is_empty() {
            found.push(warn(
                format!(
                    "{name} lists devices that are not there: {}",
                    missing.join(", ")
                ),
                "list those that are, or add the flowtable again when they are there",
            ));
        } else {
            found.push(ok(format!(
                "{name} has the devices {}",
                ft.devices.join(", ")
            )));
        }
        if !adding {
            found.push(warn(
                format!("no rule adds flows to {name}"),
                format!(
                    "add one to a chain at the hook forward: flow add @{}",
                    ft.name
                ),
            ));
        }
    }
    for rule in ruleset.adding() {
        let place = format!(
            "{} {} {} handle {}",
            rule.family, rule.table, rule.chain, rule.handle
        );
        let before: Vec<_> = ruleset
            .accepts_before(rule)
            .map(|r| r.handle.to_string())
            .collect();

        if before.is_empty() {
            found.push(ok(format!(
                "nothing accepts packets before the flow rule ({place})"
            )));
        } else {
            found.push(warn(
                format!("rules accept packets before they come to the flow rule ({place}): handle {}", before.join(", ")),
                "move the flow rule before them: established connections are those that can be offloaded",
            ));
        }
    }
    found
}

/// Settings of the network namespace: their values, if they are there.
pub(crate) fn settings(get: impl Fn(&str) -> Option<String>, counter: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    let on = |name: &str| get(name).as_deref().map(str::trim) != Some("0");

    for (name, what) in [
        ("net/ipv4/ip_forward", "IPv4"),
        ("net/ipv6/conf/all/forwarding", "IPv6"),
    ] {
        if !on(name) {
            found.push(note(
                format!("{what} is not forwarded"),
                format!("if it should be: sysctl -w {}=1", name.replace('/', ".")),
            ));
        }
    }
    match (on("net/netfilter/nf_conntrack_acct"), counter) {
        (true, true) => found.push(ok("conntrack counts packets, those of the fast path included")),
        (true, false) => found.push(note(
            "no flowtable has the flag counter: conntrack counts the packets of the slow path only",
            "add counter; to the flowtable if the counts matter",
        )),
        (false, true) => found.push(warn(
            "a flowtable has the flag counter, but conntrack does not count (nf_conntrack_acct is 0)",
            "sysctl -w net.netfilter.nf_conntrack_acct=1, for connections that begin afterwards",
        )),
        (false, false) => {}
    }
    found
}

/// Flowtables with the flag `offload` that no hardware serves.
pub(crate) fn hardware(all: &[Hardware]) -> Vec<Finding> {
    all.iter()
        .map(|ft| {
            let name = format!("{} {}", ft.table, ft.flowtable);
            let served: Vec<_> = ft
                .devices
                .iter()
                .filter(|device| device.engine != "software")
                .map(|device| format!("{} by {}", device.ifindex, device.engine))
                .collect();

            match served.is_empty() {
                true => note(
                    format!(
                        "flowtable {name} has the flag offload, and no device of it has hardware"
                    ),
                    "it works in software; leave the flag out if there is no such hardware",
                ),
                false => ok(format!(
                    "flowtable {name}: hardware serves device {}",
                    served.join(", ")
                )),
            }
        })
        .collect()
}

/// Connections that a helper keeps on the slow path, by the helper's name.
pub(crate) fn helpers(count: &BTreeMap<String, u32>) -> Vec<Finding> {
    count
        .iter()
        .map(|(helper, n)| {
            note(
                format!("connections with the conntrack helper {helper}, which stay slow: {n}"),
                "that is how it has to be, unless nobody needs the helper",
            )
        })
        .collect()
}

/// The module's part.
pub(crate) fn module(info: Option<&Info>) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");

    match info {
        None => warn(
            "the module nft_offload is not loaded",
            "modprobe nft_offload",
        ),
        Some(info) if info.version == ours => ok(format!("nft_offload {ours} is loaded")),
        Some(info) => note(
            format!(
                "the module is nft_offload {}, and this program {ours}",
                info.version
            ),
            "use the same version of both",
        ),
    }
}

/// Whether the machine lets unsigned modules be loaded. `variable`: what EFI says, if there is EFI.
pub(crate) fn secure_boot(variable: Option<&[u8]>) -> Option<Finding> {
    // Four bytes of attributes come first.
    (variable?.get(4) == Some(&1)).then(|| {
        note(
            "Secure Boot is on",
            "sign the module (dkms and mokutil do), or it will not load",
        )
    })
}

fn efi_variable() -> Option<Vec<u8>> {
    let dir = fs::read_dir("/sys/firmware/efi/efivars").ok()?;

    dir.flatten()
        .find(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("SecureBoot-")
        })
        .and_then(|entry| fs::read(entry.path()).ok())
}

/// All checks. An error: the module is there, and does not answer.
pub(crate) fn all(kernel: Option<&mut Kernel>) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    let info = kernel.map(Kernel::info).transpose()?;
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
    let built_in: Vec<_> = INTREE
        .into_iter()
        .filter(|name| {
            let dir = Path::new("/sys/module").join(name);
            dir.exists() && !dir.join("refcnt").exists()
        })
        .collect();
    let modprobe = Command::new("modprobe").arg("-c").output().ok();
    let modprobe = modprobe.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());

    found.push(module(info.as_ref()));
    found.extend(intree(&modules, &built_in, modprobe.as_deref()));
    found.extend(secure_boot(efi_variable().as_deref()));

    match Ruleset::read() {
        Ok(rules) => {
            let exists = |name: &str| {
                rustix::net::socket(
                    rustix::net::AddressFamily::INET,
                    rustix::net::SocketType::DGRAM,
                    None,
                )
                .and_then(|s| rustix::net::netdevice::name_to_index(&s, name))
                .is_ok()
            };
            let get = |name: &str| fs::read_to_string(Path::new("/proc/sys").join(name)).ok();

            found.extend(ruleset(&rules, exists));
            found.extend(settings(get, rules.flowtables.iter().any(|ft| ft.counter)));
        }
        Err(e) => found.push(note(format!("the ruleset cannot be read: {e}"), "be root")),
    }
    if let Some(all) = hardware::read() {
        found.extend(hardware(&all));
    }
    let mut count = BTreeMap::new();
    let listed = conntrack::connections(|connection| {
        if let Some(helper) = connection.helper {
            *count.entry(helper).or_insert(0) += 1;
        }
    });
    if listed.is_ok() {
        found.extend(helpers(&count));
    }
    Ok(found)
}

/// What was found, one a line, and what to do about it.
pub(crate) fn text(found: &[Finding], colours: bool) -> String {
    let mut text = String::new();

    for finding in found {
        let (word, style) = match finding.grade {
            Grade::Ok => ("ok  ", Style::Good),
            Grade::Note => ("note", Style::Strong),
            Grade::Warn => ("WARN", Style::Bad),
        };

        text += &format!("  {}  {}\n", paint(word, style, colours), finding.text);
        if !finding.advice.is_empty() {
            text += &format!("        -> {}\n", finding.advice);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{
        Flowtable,
        Rule,
        Verdict, //
    };

    fn worst(found: &[Finding]) -> Vec<&str> {
        found
            .iter()
            .filter(|f| f.grade == Grade::Warn)
            .map(|f| &f.text[..])
            .collect()
    }

    #[test]
    fn modules_in_the_way() {
        let found = intree(
            "nft_flow_offload 16384 0 - Live 0x0\nnf_tables 1 1 x\n",
            &[],
            None,
        );
        assert_eq!(worst(&found), ["the in-tree nft_flow_offload is loaded"]);
        let found = intree("", &["nf_flow_table_inet"], None);
        assert_eq!(
            worst(&found),
            ["nf_flow_table_inet is built into this kernel"]
        );
        let config = "blacklist nf_flow_table_inet\nsoftdep nft_flow_offload pre: nft_offload\n";
        let found = intree("", &[], Some(config));
        assert!(worst(&found).is_empty());
        assert!(found
            .iter()
            .any(|f| f.grade == Grade::Note && f.text.contains("blacklisted")));
        assert_eq!(worst(&intree("", &[], Some(""))).len(), 2);
    }

    #[test]
    fn rules_and_devices() {
        let mut set = Ruleset::default();
        assert_eq!(worst(&ruleset(&set, |_| true)).len(), 1);
        set.flowtables.push(Flowtable {
            family: "inet",
            table: "t".into(),
            name: "f".into(),
            devices: vec!["lan".into(), "wan".into(), "ppp*".into()],
            offload: false,
            counter: false,
        });
        assert_eq!(
            worst(&ruleset(&set, |dev| dev == "lan")),
            [
                "flowtable inet t f lists devices that are not there: wan",
                "no rule adds flows to flowtable inet t f"
            ]
        );
        let rule = |handle, adds: bool, verdict| Rule {
            family: "inet",
            table: "t".into(),
            chain: "forward".into(),
            handle,
            adds_to: adds.then(|| "f".into()),
            verdict,
            matches: true,
            ct_state: true,
        };
        set.rules = vec![
            rule(2, false, Verdict::Accept),
            rule(3, true, Verdict::Other),
        ];
        assert_eq!(
            worst(&ruleset(&set, |_| true)),
            ["rules accept packets before they come to the flow rule (inet t forward handle 3): handle 2"]
        );
        set.rules.reverse();
        assert!(worst(&ruleset(&set, |_| true)).is_empty());
        set.flowtables[0].devices.clear();
        assert_eq!(
            worst(&ruleset(&set, |_| true)),
            ["flowtable inet t f has no devices"]
        );
    }

    #[test]
    fn settings_of_the_namespace() {
        let zero = |_: &str| Some("0\n".to_owned());
        let one = |_: &str| Some("1\n".to_owned());
        assert_eq!(settings(zero, true).len(), 3);
        assert_eq!(worst(&settings(zero, true)).len(), 1);
        assert_eq!(
            settings(one, true),
            [ok(
                "conntrack counts packets, those of the fast path included"
            )]
        );
        assert_eq!(settings(one, false)[0].grade, Grade::Note);
    }

    #[test]
    fn hardware_of_this_namespace() {
        let text = "netns 5 table a flowtable f\ndevice 2 software \nrules 0\n\
                    netns 7 table b flowtable g\ndevice 3 tc mlx5\ndevice 4 software \n\
                    netns 7 table c flowtable h\ndevice 3 software \n";
        let found = hardware(&hardware::parse(text, 7));
        assert_eq!(
            found
                .iter()
                .map(|f| (f.grade, &f.text[..]))
                .collect::<Vec<_>>(),
            [
                (Grade::Ok, "flowtable b g: hardware serves device 3 by tc"),
                (
                    Grade::Note,
                    "flowtable c h has the flag offload, and no device of it has hardware"
                ),
            ]
        );
        assert!(hardware(&[]).is_empty());
    }

    #[test]
    fn the_rest() {
        assert_eq!(module(None).grade, Grade::Warn);
        let info = |version: &str| Info {
            version: version.into(),
            ..Info::default()
        };
        assert_eq!(
            module(Some(&info(env!("CARGO_PKG_VERSION")))).grade,
            Grade::Ok
        );
        assert_eq!(module(Some(&info("9.9"))).grade, Grade::Note);
        assert_eq!(secure_boot(None), None);
        assert_eq!(secure_boot(Some(&[6, 0, 0, 0, 0])), None);
        assert!(secure_boot(Some(&[6, 0, 0, 0, 1])).is_some());
        assert_eq!(helpers(&BTreeMap::from([("ftp".into(), 3)])).len(), 1);
    }
}
