// SPDX-License-Identifier: GPL-2.0

//! Why a connection is offloaded, or not: an answer in a sentence, its cause, and what to do.

use crate::{
    conntrack::Connection,
    flow::{
        Flow,
        Tier, //
    },
    kernel::Tuple,
    nft::Ruleset,
    reasons,
    show::{
        end,
        protocol,
        time, //
    },
};
use serde::Serialize;

/// What is known of a connection.
pub(crate) enum Known {
    /// It has a flow.
    Flow(Box<Flow>),
    /// It has none, for this reason, which was given so many milliseconds ago.
    Skip(String, u64),
    /// It has none, and the module does not know of any packet.
    Unseen,
    /// One end of it is this machine.
    Local,
    /// Conntrack knew it a moment ago.
    Gone,
    /// Our module is not there, or has no flowtable here.
    NotOurs,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Answer {
    pub(crate) connection: String,
    pub(crate) offloaded: bool,
    /// `software`, `partial` or `hardware`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tier: Option<Tier>,
    /// The stable name of the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    pub(crate) because: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) advice: String,
}

impl Answer {
    /// The answer in a line.
    pub(crate) fn line(&self) -> String {
        let state = match (self.offloaded, self.tier) {
            (false, _) => "not offloaded",
            (true, None) => "offloaded",
            (true, Some(Tier::Software)) => "offloaded, in software",
            (true, Some(Tier::Partial)) => {
                "offloaded, one direction in hardware, the other in software"
            }
            (true, Some(Tier::Hardware)) => "offloaded, in hardware",
        };
        let mut line = format!("{}: {state}", self.connection);

        if !self.because.is_empty() {
            line += &format!(
                "{}{}",
                if self.offloaded { "; " } else { ", because " },
                self.because
            );
        }
        if let Some(reason) = &self.reason {
            line += &format!(" [skip.{reason}]");
        }
        line += ".";
        if !self.advice.is_empty() {
            line += &format!(" {}", self.advice);
        }
        line
    }
}

/// A connection in words.
pub(crate) fn name(tuple: &Tuple) -> String {
    let [sport, dport] = tuple.ports();

    format!(
        "{} {} > {}",
        protocol(tuple.l4proto),
        end(tuple.src, sport),
        end(tuple.dst, dport)
    )
}

/// A sentence as a part of another one.
fn inner(sentence: &str) -> String {
    let sentence = reasons::plain(sentence);
    let sentence = sentence.trim_end_matches('.');
    let mut chars = sentence.chars();
    let first = chars.next();
    // Not of words that are capitals (TCP, IPv4).
    let lower = chars.clone().next().is_none_or(|c| !c.is_uppercase());

    match first {
        Some(c) if lower => c.to_lowercase().chain(chars).collect(),
        _ => sentence.to_owned(),
    }
}

/// What a flow is like.
fn flow(flow: &Flow) -> String {
    let mut text = format!(
        "in flowtable {} {} {} for {}",
        flow.family,
        flow.table,
        flow.flowtable,
        time(flow.age_ms)
    );
    let unseen: Vec<_> = [("original", &flow.original), ("reply", &flow.reply)]
        .into_iter()
        .filter(|(_, dir)| !dir.ruleset)
        .map(|(name, _)| name)
        .collect();

    if !unseen.is_empty() {
        text += &format!(
            "; the next packet of the {} direction takes the slow path, so that the ruleset in force sees it",
            unseen.join(" and the ")
        );
    }
    text
}

/// What is known of the cause beside the reason.
fn cause(reason: &str, connection: &Connection, ruleset: &Ruleset) -> String {
    match reason {
        "helper" => connection
            .helper
            .as_ref()
            .map(|helper| format!(" (the helper is {helper})"))
            .unwrap_or_default(),
        "tcp_state" => connection
            .tcp_state()
            .map(|state| format!(" (it is in state {state})"))
            .unwrap_or_default(),
        "device_not_listed" => {
            let tables: Vec<_> = ruleset
                .flowtables
                .iter()
                .map(|ft| match ft.devices.is_empty() {
                    true => format!("{} {} {} has no devices", ft.family, ft.table, ft.name),
                    false => format!(
                        "{} {} {} has {}",
                        ft.family,
                        ft.table,
                        ft.name,
                        ft.devices.join(", ")
                    ),
                })
                .collect();

            match tables.is_empty() {
                true => String::new(),
                false => format!(" ({})", tables.join("; ")),
            }
        }
        _ => String::new(),
    }
}

/// Why no packet came to a rule that adds flows.
fn unseen(ruleset: &Ruleset) -> (String, String) {
    let Some(rule) = ruleset.adding().next() else {
        return (
            "no rule adds flows to a flowtable".into(),
            "Add one to a chain at the hook forward: flow add @NAME.".into(),
        );
    };
    let place =
        |r: &crate::nft::Rule| format!("{} {} {} handle {}", r.family, r.table, r.chain, r.handle);
    let flow = rule.adds_to.as_deref().unwrap_or("?");

    match ruleset.accepts_before(rule).next() {
        Some(accept) => (
            format!(
                "no packet of it has come to the rule flow add @{flow} ({}) lately, and rule {} accepts packets before",
                place(rule),
                accept.handle
            ),
            "Move the flow rule before it.".into(),
        ),
        None => (
            format!(
                "no packet of it has come to the rule flow add @{flow} ({}) lately: it is idle, or what is before that \
                 rule, or in it, leaves its packets out",
                place(rule)
            ),
            "nft monitor trace shows which way they take.".into(),
        ),
    }
}

/// The answer for a connection.
pub(crate) fn answer(connection: &Connection, known: &Known, ruleset: &Ruleset) -> Answer {
    let mut answer = Answer {
        connection: name(&connection.original),
        offloaded: false,
        tier: None,
        reason: None,
        because: String::new(),
        advice: String::new(),
    };

    match known {
        Known::Flow(found) => {
            answer.offloaded = true;
            answer.tier = Some(found.tier);
            answer.because = flow(found);
        }
        Known::Skip(reason, ago) => {
            answer.reason = Some(reason.clone());
            match reasons::skip(reason) {
                Some(known) => {
                    answer.because = inner(known.meaning);
                    answer.advice = known.advice.into();
                }
                None => {
                    answer.because =
                        format!("the module says {reason}, which this program does not know")
                }
            }
            answer.because += &cause(reason, connection, ruleset);
            if *ago >= 2000 {
                answer.because += &format!(" (said {} ago)", time(*ago));
            }
        }
        Known::Unseen => (answer.because, answer.advice) = unseen(ruleset),
        Known::Local => {
            answer.because =
                "one end of it is this machine, and only forwarded packets are offloaded".into();
        }
        Known::Gone => answer.because = "it has just ended".into(),
        Known::NotOurs => {
            answer.offloaded = connection.is_offloaded();
            answer.because = match connection.is_offloaded() {
                true if connection.is_in_hardware() => "in hardware; conntrack says no more than that".into(),
                true => "conntrack says no more than that".into(),
                false => match &connection.helper {
                    Some(helper) => format!("the conntrack helper {helper} has to see its packets, as far as conntrack tells"),
                    None => "of which only nft_offload would know the reason".into(),
                },
            };
            if !answer.offloaded && connection.helper.is_none() {
                answer.because = "the module nft_offload has no flowtable here, and nobody else knows the reason".into();
            }
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        nft::{
            Flowtable,
            Rule,
            Verdict, //
        },
        show::tests::example,
    };

    fn connection() -> Connection {
        let original = Tuple {
            l4proto: 6,
            src: "10.0.0.7".parse().unwrap(),
            dst: "198.51.100.3".parse().unwrap(),
            sport: 40112,
            dport: 21,
            zone: 0,
        };
        Connection {
            original,
            reply: original,
            status: 0,
            helper: Some("ftp".into()),
            tcp_state: Some(1),
        }
    }

    fn ruleset(before: Verdict) -> Ruleset {
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
        Ruleset {
            flowtables: vec![Flowtable {
                family: "inet",
                table: "t".into(),
                name: "f".into(),
                devices: vec!["lan".into(), "wan".into()],
                offload: false,
                counter: false,
            }],
            rules: vec![rule(3, false, before), rule(4, true, Verdict::Other)],
        }
    }

    fn line(known: &Known, ruleset: &Ruleset) -> String {
        answer(&connection(), known, ruleset).line()
    }

    #[test]
    fn sentences() {
        let skip = |reason: &str, ago| Known::Skip(reason.into(), ago);
        let ruleset = ruleset(Verdict::Other);
        assert_eq!(
            line(&skip("helper", 0), &ruleset),
            "tcp 10.0.0.7:40112 > 198.51.100.3:21: not offloaded, because a conntrack helper must see the packets \
             (the helper is ftp) [skip.helper]. Nothing to do: the helper has to read the packets. Data connections \
             that it expects are offloaded."
        );
        assert_eq!(
            line(&skip("tcp_state", 0), &ruleset),
            "tcp 10.0.0.7:40112 > 198.51.100.3:21: not offloaded, because the TCP connection is not established (it is \
             in state SYN_SENT) [skip.tcp_state]. Nothing to do: the connection is offloaded once both sides have agreed \
             on it."
        );
        assert_eq!(
            line(&skip("device_not_listed", 61_000), &ruleset),
            "tcp 10.0.0.7:40112 > 198.51.100.3:21: not offloaded, because the device that a direction enters by is not \
             listed in the flowtable (inet t f has lan, wan) (said 1m01s ago) [skip.device_not_listed]. Add the device that \
             these packets come in by to the flowtable's devices; both directions need one."
        );
        assert!(line(&skip("from_the_future", 0), &ruleset)
            .contains("does not know [skip.from_the_future]."));
        assert_eq!(
            line(&Known::Local, &ruleset),
            "tcp 10.0.0.7:40112 > 198.51.100.3:21: not offloaded, because one end of it is this machine, and only \
             forwarded packets are offloaded."
        );
        assert_eq!(
            line(&Known::Gone, &ruleset),
            "tcp 10.0.0.7:40112 > 198.51.100.3:21: not offloaded, because it has just ended."
        );
    }

    #[test]
    fn the_rule_that_was_not_reached() {
        assert!(line(&Known::Unseen, &Ruleset::default()).contains("no rule adds flows"));
        assert!(line(&Known::Unseen, &ruleset(Verdict::Other))
            .contains("inet t forward handle 4) lately: it is idle"));
        assert!(line(&Known::Unseen, &ruleset(Verdict::Accept))
            .ends_with("and rule 3 accepts packets before. Move the flow rule before it."));
    }

    #[test]
    fn offloaded() {
        let mut flow = example();
        let text = line(&Known::Flow(Box::new(flow.clone())), &Ruleset::default());
        assert_eq!(
            text,
            "tcp 10.0.0.7:40112 > 198.51.100.3:21: offloaded, in software; in flowtable inet fw4 ft for 3m12s; the next \
             packet of the reply direction takes the slow path, so that the ruleset in force sees it."
        );
        flow.tier = Tier::Hardware;
        flow.reply.ruleset = true;
        let text = line(&Known::Flow(Box::new(flow)), &Ruleset::default());
        assert!(
            text.ends_with("offloaded, in hardware; in flowtable inet fw4 ft for 3m12s."),
            "{text}"
        );
    }

    #[test]
    fn without_the_module() {
        let mut it = connection();
        it.helper = None;
        let text = answer(&it, &Known::NotOurs, &Ruleset::default()).line();
        assert!(
            text.contains("not offloaded, because the module nft_offload has no flowtable here"),
            "{text}"
        );
        it.status = 1 << 14;
        let text = answer(&it, &Known::NotOurs, &Ruleset::default()).line();
        assert!(
            text.ends_with("offloaded; conntrack says no more than that."),
            "{text}"
        );
    }
}
