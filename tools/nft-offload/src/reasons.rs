// SPDX-License-Identifier: GPL-2.0

//! The reasons of the module: what they mean, which is said where they are defined, and what to do
//! about them. A reason without an answer does not compile.

use nft_flow::reason::{
    MissReason,
    SkipReason,
    TeardownReason,
    Unsupported, //
};
use serde::Serialize;

/// Nothing: that is how it is meant to be.
const FINE: &str = "Nothing to do.";
/// It will be over soon.
const PASSING: &str = "Nothing to do: the next packets will be offloaded.";

/// A reason, explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Reason {
    pub(crate) group: &'static str,
    pub(crate) name: &'static str,
    pub(crate) meaning: &'static str,
    pub(crate) advice: &'static str,
}

fn skip_advice(reason: SkipReason) -> &'static str {
    use SkipReason as S;

    match reason {
        S::SecPath => "Offload works for IPsec tunnels whose policies are at the route; other packets that came through IPsec stay slow.",
        S::IpOptions => "Nothing to do, unless the sender can do without IP options.",
        S::NoCt => "Let connection tracking see the packets: look for notrack rules.",
        S::L4Proto => "Nothing to do: TCP, UDP, SCTP, GRE, ESP, AH and ICMP echo have flows.",
        S::TcpState | S::SctpState | S::Unconfirmed => {
            "Nothing to do: the connection is offloaded once both sides have agreed on it."
        }
        S::TcpFinRst => "Nothing to do: the connection ends.",
        S::Helper => "Nothing to do: the helper has to read the packets. Data connections that it expects are offloaded.",
        S::SeqAdjust => "Nothing to do: connection tracking changes sequence numbers of the connection.",
        S::NatClash => FINE,
        S::AlreadyOffloaded => "Nothing to do: single packets (fragments, too big, FIN) take the slow path.",
        S::CtDying => FINE,
        S::RouteReply => "Add a route back to the source: ip route get ADDRESS says what there is.",
        S::RouteXfrm => "Nothing to do: IPsec with this policy is not offloaded.",
        S::PathShape => "List a device further up in the flowtable's devices, such as the bridge or VLAN device of the route.",
        S::PathClosed => "Look at the devices below the route: one is down, or its bridge blocks the port (bridge link).",
        S::PathChange => PASSING,
        S::DeviceNotListed => "Add the device that these packets come in by to the flowtable's devices; both directions need one.",
        S::NotEthernet => "Nothing to do: the neighbour has no link-layer address.",
        S::Neigh => "Nothing to do if it passes; otherwise the next hop does not answer: ip neigh.",
        S::Ifindex => "Nothing to do: interface numbers above 8 million have no place in a flow.",
        S::Mtu => "Look at the MTU of route and device: ip route get ADDRESS.",
        S::NoMem => "Free memory.",
        S::TableFull => "Nothing to do: the table is growing.",
        S::MaxFlows => "Raise /sys/module/nft_offload/parameters/max_flows, if there is memory for more.",
        S::TableExists => "Nothing to do: another connection with these addresses and ports is offloaded; zones may tell them apart.",
        S::FlowtableClosing => PASSING,
        S::IngressFilter => "List the device that has the filters (tc, XDP, nftables at ingress) in the flowtable's devices.",
        S::RouteUnsettled => "Nothing to do if it passes; otherwise packets change between two paths: look at marks, multipath routes and bonds.",
        S::TunnelPolicy => "List the tunnel device in the flowtable's devices.",
        S::AskedLately => "Nothing to do: the reason was counted when it was asked.",
        S::TunnelDscp => "List the tunnel device in the flowtable's devices.",
        S::PppFilter => "List the PPP device in the flowtable's devices, or take pass-filter and active-filter out of pppd's options.",
        S::Rewritten => "Leave TTL, addresses and ports to NAT rules of connection tracking: rules that write packet fields keep a connection slow.",
        S::Count => "Nothing to do: a rule compares the connection's bytes or packets with a number that is still ahead.",
    }
}

fn miss_advice(reason: MissReason) -> &'static str {
    use MissReason as M;

    match reason {
        M::NotIp | M::NotForUs | M::Routed | M::Socket | M::Refresh | M::IcmpType => FINE,
        M::Truncated | M::BadVersion | M::BadChecksum | M::Jumbogram => {
            "Nothing to do: the packets are damaged, and the stack deals with them."
        }
        M::Fragment => "Avoid fragments: lower the MTU or the sender's packet size, or clamp the MSS.",
        M::IpOptions | M::ExtHeader => FINE,
        M::TtlExpiring => "Nothing to do; many of them are a routing loop.",
        M::L4Proto => FINE,
        M::NoEntry => "Nothing to do for connections that are not to be offloaded; otherwise nft-offload why ADDRESS.",
        M::Encap => "Nothing to do if those connections are not to be offloaded; otherwise list the device above the encapsulation.",
        M::Mtu => "Clamp the MSS (tcp option maxseg size set rt mtu), or raise the MTU.",
        M::TcpFlags | M::SctpChunk => FINE,
        M::FlowDead | M::CtDying | M::DstStale => PASSING,
        M::NeighGone => "Nothing to do if it passes; otherwise the next hop does not answer: ip neigh.",
        M::NoMem => "Free memory.",
        M::SecPath => "Nothing to do: IPsec policies decide about these packets.",
        M::Bridge => "Look at the bridge's port and VLANs: bridge link, bridge vlan.",
        M::Ruleset => "Nothing to do: after a change of the ruleset the rules see a packet of each direction first.",
        M::TcpWindow => "Nothing to do: connection tracking judges these packets.",
        M::Looks => "Nothing to do if it passes; otherwise rules drop packets with this DSCP, mark or priority.",
        M::ManyLooks => "Have the rules give a connection's packets fewer different marks, priorities and DSCPs.",
    }
}

fn teardown_advice(reason: TeardownReason) -> &'static str {
    use TeardownReason as T;

    match reason {
        T::Idle => "Nothing to do; net.netfilter.nf_flowtable_tcp_timeout and _udp_timeout say after how long.",
        T::Rst | T::Fin | T::SynReuse | T::CtDying | T::Conntrack => FINE,
        T::DstStale | T::NeighGone => "Nothing to do: the flow is added again by the next packets.",
        T::DeviceDown | T::DeviceGone | T::MtuChange | T::AddressChange | T::PathChange => {
            "Nothing to do: the flow is added again if there still is a way."
        }
        T::FlowtableDelete | T::NetnsExit | T::Flush => FINE,
        T::NotAdded => "Nothing to do: the table is growing.",
        T::Ruleset => "Look at the ruleset if that was not meant: no rule adds these packets to a flowtable any more.",
        T::RouteChange => "Nothing to do if it is rare; otherwise packets change between two routes: look at marks and multipath routes.",
        T::Rewritten => skip_advice(SkipReason::Rewritten),
        T::Count => skip_advice(SkipReason::Count),
    }
}

fn decline_advice(reason: Unsupported) -> &'static str {
    use Unsupported as U;

    match reason {
        U::Pcp | U::Dscp | U::Mark => {
            "Give the connection's packets one DSCP, mark and priority, or leave it to software."
        }
        U::IngressFilter => {
            "Move the tc filter, XDP program or netdev chain behind the flowtable's device, or list the device above it."
        }
        U::HwUntag => "Untag in software: take the bridge VLAN's untagging out of the port's hardware.",
        U::Alias => "Nothing to do: the hardware could not tell this connection from another one.",
        U::Mtu => "Clamp the MSS, or make the MTUs of both sides equal.",
        U::EgressPort | U::IngressPort => {
            "Nothing to do: only connections between ports of one engine go into hardware."
        }
        U::Driver => "Look at driver_said in debugfs nft_offload/hardware.",
        U::Family
        | U::L4Proto
        | U::Nat
        | U::Bridged
        | U::MacAddress
        | U::DsaProto
        | U::PortNumber
        | U::VlanDepth
        | U::VlanProto
        | U::PppoeDepth
        | U::Pppoe
        | U::LayerOrder
        | U::IngressLayers
        | U::Tunnel
        | U::Ttl => "Nothing to do: software forwards what this hardware cannot express.",
    }
}

macro_rules! explained {
    ($group:literal, $type:ident, $advice:ident) => {
        $type::ALL.iter().map(|r| Reason {
            group: $group,
            name: r.name(),
            meaning: r.meaning(),
            advice: $advice(*r),
        })
    };
}

/// All reasons.
pub(crate) fn all() -> impl Iterator<Item = Reason> {
    explained!("skip", SkipReason, skip_advice)
        .chain(explained!("miss", MissReason, miss_advice))
        .chain(explained!("teardown", TeardownReason, teardown_advice))
        .chain(explained!(
            "decline.unsupported",
            Unsupported,
            decline_advice
        ))
}

/// The reasons with this name, which may have its group in front.
pub(crate) fn named(name: &str) -> Vec<Reason> {
    all()
        .filter(|r| r.name == name || format!("{}.{}", r.group, r.name) == name)
        .collect()
}

/// The reason why a connection was not added.
pub(crate) fn skip(name: &str) -> Option<Reason> {
    all().find(|r| r.group == "skip" && r.name == name)
}

/// A meaning in plain text: what documentation marks as code is not marked.
pub(crate) fn plain(meaning: &str) -> String {
    meaning.replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_explained() {
        let mut n = 0;
        for r in all() {
            assert!(
                r.meaning.ends_with('.'),
                "{}.{}: {}",
                r.group,
                r.name,
                r.meaning
            );
            assert!(
                r.advice.ends_with(['.', ';']) || r.advice.len() > 10,
                "{}",
                r.name
            );
            assert!(!r.meaning.contains("  "), "{}", r.meaning);
            n += 1;
        }
        assert_eq!(
            n,
            SkipReason::COUNT + MissReason::COUNT + TeardownReason::COUNT + Unsupported::COUNT
        );
    }

    #[test]
    fn reasons_are_found_by_name() {
        assert_eq!(named("helper").len(), 1);
        assert_eq!(named("skip.helper"), named("helper"));
        // The same word in several groups.
        assert!(named("mtu").len() > 2);
        assert_eq!(named("teardown.mtu_change").len(), 1);
        assert!(named("nope").is_empty());
        assert!(skip("device_not_listed")
            .unwrap()
            .advice
            .contains("devices"));
    }
}
