// SPDX-License-Identifier: GPL-2.0

//! What nf_tables has about flowtables: their devices, and the rules that add flows.

use crate::{
    kernel::family_name,
    netlink::{
        self,
        Netlink, //
    }, //
};
use anyhow::Result;
use netlink_bindings::nftables::{
    ExprAttrs,
    ExprOps,
    IterableRuleAttrs,
    Nfgenmsg,
    Request, //
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use serde::Serialize;

/// `NF_FLOWTABLE_*`, include/net/netfilter/nf_flow_table.h.
const FLAG_OFFLOAD: u32 = 1;
const FLAG_COUNTER: u32 = 2;
/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;
/// `NF_DROP`.
const DROP: u32 = 0;

/// A flowtable, whoever's it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Flowtable {
    pub(crate) family: &'static str,
    pub(crate) table: String,
    pub(crate) name: String,
    pub(crate) devices: Vec<String>,
    pub(crate) offload: bool,
    pub(crate) counter: bool,
}

/// How a rule ends, as far as that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// The packet is accepted.
    Accept,
    /// It is dropped.
    Drop,
    /// Something else, or nothing.
    Other,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Rule {
    pub(crate) family: &'static str,
    pub(crate) table: String,
    pub(crate) chain: String,
    pub(crate) handle: u64,
    /// The flowtable that it adds flows to.
    pub(crate) adds_to: Option<String>,
    pub(crate) verdict: Verdict,
    /// It looks at something of the packet before that.
    pub(crate) matches: bool,
    /// It looks at the state of the connection.
    pub(crate) ct_state: bool,
}

fn rule(family: u8, attrs: &IterableRuleAttrs<'_>) -> Option<Rule> {
    let text = |s: &std::ffi::CStr| netlink::text(s.to_bytes());
    let mut rule = Rule {
        family: family_name(family),
        table: text(attrs.get_table().ok()?),
        chain: text(attrs.get_chain().ok()?),
        handle: attrs.get_handle().ok()?,
        adds_to: None,
        verdict: Verdict::Other,
        matches: false,
        ct_state: false,
    };
    let Ok(expressions) = attrs.get_expressions() else {
        return Some(rule);
    };

    for expr in expressions.get_elem() {
        let name = expr.get_name().map(text).unwrap_or_default();

        for attr in expr.flatten() {
            match attr {
                ExprAttrs::Data(ExprOps::FlowOffload(flow)) => {
                    rule.adds_to = flow.get_name().ok().map(text);
                }
                ExprAttrs::Data(ExprOps::Immediate(immediate)) => {
                    let code = immediate
                        .get_data()
                        .and_then(|data| data.get_verdict())
                        .and_then(|verdict| verdict.get_code());

                    rule.verdict = match code {
                        Ok(ACCEPT) => Verdict::Accept,
                        Ok(DROP) => Verdict::Drop,
                        _ => Verdict::Other,
                    };
                }
                ExprAttrs::Data(ExprOps::Ct(ct)) => {
                    /// `NFT_CT_STATE`.
                    const STATE: u32 = 0;

                    rule.ct_state |= ct.get_key().is_ok_and(|key| key == STATE);
                }
                _ => {}
            }
        }
        rule.matches |= matches!(
            &name[..],
            "cmp" | "lookup" | "range" | "match" | "limit" | "quota" | "connlimit" | "fib"
        );
    }
    Some(rule)
}

/// What nf_tables has about flowtables in the namespace.
#[derive(Debug, Default)]
pub(crate) struct Ruleset {
    pub(crate) flowtables: Vec<Flowtable>,
    pub(crate) rules: Vec<Rule>,
}

impl Ruleset {
    /// Reads the ruleset of the namespace.
    pub(crate) fn read() -> Result<Self> {
        let mut netlink = Netlink::open(NETLINK_NETFILTER)?;
        let mut this = Self::default();
        let header = Nfgenmsg::default();
        let text = |s: &std::ffi::CStr| netlink::text(s.to_bytes());

        netlink.request(
            &Request::new().op_getflowtable_dump(&header),
            |(header, attrs)| {
                let flags = attrs.get_flags().unwrap_or(0);
                let devices = attrs.get_hook().and_then(|hook| hook.get_devs());
                let mut devices: Vec<_> =
                    devices.map_or(Vec::new(), |devs| devs.get_name().map(text).collect());

                // The kernel has them in no order that means anything.
                devices.sort();

                this.flowtables.push(Flowtable {
                    family: family_name(header.nfgen_family),
                    table: attrs.get_table().map(text).unwrap_or_default(),
                    name: attrs.get_name().map(text).unwrap_or_default(),
                    devices,
                    offload: flags & FLAG_OFFLOAD != 0,
                    counter: flags & FLAG_COUNTER != 0,
                });
                Ok(())
            },
        )?;
        netlink.request(
            &Request::new().op_getrule_dump(&header),
            |(header, attrs)| {
                this.rules.extend(rule(header.nfgen_family, &attrs));
                Ok(())
            },
        )?;
        Ok(this)
    }

    /// The rules that add flows.
    pub(crate) fn adding(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(|rule| rule.adds_to.is_some())
    }

    /// The rules of the same chain that are before a rule and may accept its packets.
    pub(crate) fn accepts_before<'a>(&'a self, rule: &'a Rule) -> impl Iterator<Item = &'a Rule> {
        self.rules
            .iter()
            .filter(|r| (r.family, &r.table, &r.chain) == (rule.family, &rule.table, &rule.chain))
            .take_while(|r| r.handle != rule.handle)
            .filter(|r| r.verdict == Verdict::Accept && (r.ct_state || !r.matches))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_accept_earlier_are_found() {
        let rule = |handle, chain: &str, verdict, ct_state, matches, adds: bool| Rule {
            family: "inet",
            table: "t".into(),
            chain: chain.into(),
            handle,
            adds_to: adds.then(|| "f".into()),
            verdict,
            matches,
            ct_state,
        };
        let ruleset = Ruleset {
            flowtables: Vec::new(),
            rules: vec![
                rule(1, "input", Verdict::Accept, true, true, false),
                rule(2, "forward", Verdict::Drop, true, true, false),
                // About some packets only.
                rule(3, "forward", Verdict::Accept, false, true, false),
                rule(9, "forward", Verdict::Accept, true, true, false),
                rule(4, "forward", Verdict::Other, false, true, true),
                rule(5, "forward", Verdict::Accept, true, true, false),
            ],
        };
        let adding: Vec<_> = ruleset.adding().collect();
        assert_eq!(adding.len(), 1);
        let before: Vec<_> = ruleset
            .accepts_before(adding[0])
            .map(|r| r.handle)
            .collect();
        assert_eq!(before, [9]);
    }
}
