// SPDX-License-Identifier: GPL-2.0

//! Who sends how much: rates of flows and of hosts, from what is listed again and again.

use crate::{
    flow::{
        Direction,
        Flow,
        Tier, //
    },
    show, //
};
use serde::Serialize;
use std::{
    cmp::Ordering,
    collections::{
        HashMap,
        VecDeque, //
    },
    net::IpAddr,
    time::Duration, //
};

/// As many samples are drawn.
pub(crate) const HISTORY: usize = 60;
/// For so long it is remembered what a flow had counted that is no longer listed: it may come again.
const REMEMBERED: Duration = Duration::from_secs(10);

/// What tells a connection from all others: where conntrack's entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) l4proto: u8,
    pub(crate) zone: u16,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) sport: Option<u16>,
    pub(crate) dport: Option<u16>,
}

impl Key {
    fn of(flow: &Flow) -> Self {
        let orig = &flow.original;

        Self {
            l4proto: flow.l4proto,
            zone: flow.zone,
            src: orig.src,
            dst: orig.dst,
            sport: orig.sport,
            dport: orig.dport,
        }
    }

    /// The connection in words, without rewriting.
    pub(crate) fn text(&self) -> String {
        format!(
            "{} {} > {}",
            show::protocol(self.l4proto),
            show::end(self.src, self.sport),
            show::end(self.dst, self.dport)
        )
    }
}

/// Bytes that somebody has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    /// Nobody.
    Nobody,
    /// Both directions in one number, since the flow was added.
    Both(u64),
    /// The original direction, and the reply; since the connection began.
    Each([u64; 2]),
}

/// Bytes in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Rate {
    #[serde(rename = "bytes_per_second")]
    pub(crate) total: f64,
    /// To the host; with `up` less than the total where nobody counts directions.
    #[serde(rename = "down_bytes_per_second")]
    pub(crate) down: f64,
    #[serde(rename = "up_bytes_per_second")]
    pub(crate) up: f64,
}

impl Rate {
    fn add(&mut self, other: &Self) {
        self.total += other.total;
        self.down += other.down;
        self.up += other.up;
    }
}

/// What a counter has counted since it had the old value. One that is smaller has begun again.
fn since(old: u64, new: u64) -> u64 {
    new.checked_sub(old).unwrap_or(new)
}

/// The rate between two counts; none if they do not say.
fn rate(old: Count, new: Count, elapsed: Duration, host_began: bool) -> Option<Rate> {
    let seconds = elapsed.as_secs_f64();

    if seconds <= 0.0 {
        return None;
    }
    match (old, new) {
        (Count::Each(old), Count::Each(new)) => {
            let [original, reply] = [0, 1].map(|i| since(old[i], new[i]) as f64 / seconds);
            let (up, down) = match host_began {
                true => (original, reply),
                false => (reply, original),
            };
            let total = original + reply;

            Some(Rate { total, down, up })
        }
        (Count::Both(old), Count::Both(new)) => Some(Rate {
            total: since(old, new) as f64 / seconds,
            ..Rate::default()
        }),
        _ => None,
    }
}

/// Addresses that are not of the Internet.
pub(crate) fn is_private(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => {
            let [a, b, ..] = addr.octets();

            // The latter: between a provider's NAT and its customers.
            addr.is_private() || addr.is_link_local() || (a, b & 0xc0) == (100, 64)
        }
        IpAddr::V6(addr) => {
            let first = addr.segments()[0];

            first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80
        }
    }
}

/// Whether the host of a flow is who began it, and not the other end.
///
/// It is the end with a private address; if that does not tell them apart the one that is a neighbour,
/// and no router between; if that does not either, who began.
fn host_began(flow: &Flow) -> bool {
    let is_neighbour = |addr, back: &Direction| back.next_hop == Some(addr);
    let (one, other) = (flow.original.src, flow.reply.src);

    match (is_private(one), is_private(other)) {
        (true, false) => true,
        (false, true) => false,
        _ => is_neighbour(one, &flow.reply) || !is_neighbour(other, &flow.original),
    }
}

/// A flow as it was listed once.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    key: Key,
    count: Count,
    /// Bytes since the flow was added, if somebody has counted these.
    fast_bytes: Option<u64>,
    /// The other end, as the answers show it.
    peer: IpAddr,
    host_began: bool,
    age: Duration,
    tier: Tier,
    iif: u32,
    oif: u32,
}

impl Seen {
    /// `counted`: the flowtable has the flag counter, so that conntrack's counters have all packets.
    pub(crate) fn new(flow: &Flow, counted: bool) -> Self {
        let (orig, reply) = (&flow.original, &flow.reply);

        Self {
            key: Key::of(flow),
            count: match (counted, orig.bytes, reply.bytes, flow.fast_bytes) {
                (true, Some(orig), Some(reply), _) => Count::Each([orig, reply]),
                (_, _, _, Some(both)) => Count::Both(both),
                _ => Count::Nobody,
            },
            fast_bytes: flow.fast_bytes,
            peer: reply.src,
            host_began: host_began(flow),
            age: Duration::from_millis(flow.age_ms),
            tier: flow.tier,
            iif: orig.iif,
            oif: orig.oif,
        }
    }
}

/// A flow that is known from more than one sample.
#[derive(Debug)]
pub(crate) struct Tracked {
    seen: Seen,
    at: Duration,
    sample: u64,
    /// None: not known yet, or not at all.
    pub(crate) rate: Option<Rate>,
    history: VecDeque<f32>,
}

impl Tracked {
    pub(crate) fn tier(&self) -> Tier {
        self.seen.tier
    }

    pub(crate) fn age(&self) -> Duration {
        self.seen.age
    }

    /// The devices of the original direction: in, and out.
    pub(crate) fn devices(&self) -> [u32; 2] {
        [self.seen.iif, self.seen.oif]
    }

    /// Whose flow it is.
    pub(crate) fn host(&self) -> IpAddr {
        match self.seen.host_began {
            true => self.seen.key.src,
            false => self.seen.peer,
        }
    }

    /// All bytes that are counted.
    pub(crate) fn bytes(&self) -> Option<u64> {
        match self.seen.count {
            Count::Nobody => None,
            Count::Both(n) => Some(n),
            Count::Each([a, b]) => Some(a.saturating_add(b)),
        }
    }

    /// Whether directions are counted.
    pub(crate) fn split(&self) -> bool {
        matches!(self.seen.count, Count::Each(_))
    }
}

/// How many flows each tier has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tiers {
    pub(crate) software: u64,
    pub(crate) partial: u64,
    pub(crate) hardware: u64,
}

impl Tiers {
    fn add(&mut self, tier: Tier) {
        *match tier {
            Tier::Software => &mut self.software,
            Tier::Partial => &mut self.partial,
            Tier::Hardware => &mut self.hardware,
        } += 1;
    }

    pub(crate) fn flows(&self) -> u64 {
        self.software + self.partial + self.hardware
    }
}

/// A host, with all its flows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Host {
    pub(crate) addr: IpAddr,
    /// None if none of its flows has one.
    pub(crate) rate: Option<Rate>,
    /// Directions are counted, of one flow at least.
    pub(crate) split: bool,
    pub(crate) bytes: Option<u64>,
    pub(crate) tiers: Tiers,
}

/// In which order hosts and flows are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Order {
    /// Most bytes in a second first.
    #[default]
    Rate,
    /// Most bytes to the host first.
    Down,
    /// Most bytes from the host first.
    Up,
    /// Most bytes that were counted first.
    Bytes,
    /// Most flows first.
    Flows,
    /// By address.
    Addr,
}

impl Order {
    /// The next one, and after the last the first.
    #[cfg(feature = "top")]
    pub(crate) fn next(self) -> Self {
        match self {
            Self::Rate => Self::Down,
            Self::Down => Self::Up,
            Self::Up => Self::Bytes,
            Self::Bytes => Self::Flows,
            Self::Flows => Self::Addr,
            Self::Addr => Self::Rate,
        }
    }

    #[cfg(feature = "top")]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Down => "down",
            Self::Up => "up",
            Self::Bytes => "bytes",
            Self::Flows => "flows",
            Self::Addr => "addr",
        }
    }
}

/// What is compared: everything that an order may be of.
struct Rank {
    rate: Rate,
    bytes: u64,
    flows: u64,
}

impl Rank {
    fn compare(&self, other: &Self, order: Order) -> Ordering {
        let rate = |get: fn(&Rate) -> f64| get(&other.rate).total_cmp(&get(&self.rate));
        let by_rate = rate(|r| r.total);

        match order {
            Order::Rate => by_rate,
            Order::Down => rate(|r| r.down),
            Order::Up => rate(|r| r.up),
            Order::Bytes => other.bytes.cmp(&self.bytes),
            Order::Flows => other.flows.cmp(&self.flows).then(by_rate),
            Order::Addr => Ordering::Equal,
        }
    }
}

/// Everything that is known of flows and hosts.
#[derive(Debug, Default)]
pub(crate) struct Model {
    flows: HashMap<Key, Tracked>,
    hosts: HashMap<IpAddr, VecDeque<f32>>,
    sample: u64,
    at: Duration,
    /// The time between the last two samples.
    pub(crate) elapsed: Duration,
    /// Flows that the last sample has, and the one before had not; and the other way round.
    pub(crate) added: u64,
    pub(crate) gone: u64,
    /// The last sample is not of one moment: flows may be missing.
    pub(crate) torn: bool,
    /// The host whose flows have histories, too.
    watched: Option<IpAddr>,
}

fn remember(history: &mut VecDeque<f32>, value: f64) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(value as f32);
}

impl Model {
    /// Takes in what was listed at a time since the beginning.
    pub(crate) fn sample(&mut self, at: Duration, seen: Vec<Seen>, consistent: bool) {
        let first = self.sample == 0;
        let mut hosts = HashMap::new();

        self.sample += 1;
        self.elapsed = at.saturating_sub(self.at);
        self.at = at;
        self.torn = !consistent;
        (self.added, self.gone) = (0, 0);
        for seen in seen {
            self.take(seen, first);
        }
        for flow in self.flows.values_mut() {
            if flow.sample != self.sample {
                self.gone += u64::from(flow.sample + 1 == self.sample && consistent);
                continue;
            }
            let total = flow.rate.map_or(0.0, |rate| rate.total);

            *hosts.entry(flow.host()).or_insert(0.0) += total;
            if self.watched == Some(flow.host()) {
                remember(&mut flow.history, total);
            }
        }
        self.flows
            .retain(|_, flow| at.saturating_sub(flow.at) <= REMEMBERED);
        for host in hosts.keys() {
            self.hosts.entry(*host).or_default();
        }
        for (host, history) in &mut self.hosts {
            remember(history, hosts.get(host).copied().unwrap_or(0.0));
        }
        // A host that has had no flows for so long is a new one when it comes again.
        self.hosts.retain(|host, history| {
            hosts.contains_key(host) || history.iter().any(|rate| *rate != 0.0)
        });
    }

    fn take(&mut self, seen: Seen, first: bool) {
        let (sample, at, elapsed) = (self.sample, self.at, self.elapsed);
        let Some(flow) = self.flows.get_mut(&seen.key) else {
            // Conntrack's counters are older than the flow: they do not say what it has sent since.
            let rate = match seen.fast_bytes {
                Some(bytes) if !first && seen.age <= elapsed => {
                    rate(Count::Both(0), Count::Both(bytes), elapsed, true)
                }
                _ => None,
            };

            self.added += u64::from(!first);
            self.flows.insert(
                seen.key,
                Tracked {
                    seen,
                    at,
                    sample,
                    rate,
                    history: VecDeque::new(),
                },
            );
            return;
        };
        // Listed twice.
        if flow.sample == sample {
            return;
        }
        self.added += u64::from(flow.sample + 1 != sample);
        flow.rate = rate(
            flow.seen.count,
            seen.count,
            at.saturating_sub(flow.at),
            seen.host_began,
        );
        (flow.seen, flow.at, flow.sample) = (seen, at, sample);
    }

    /// Whether there is a sample at all.
    pub(crate) fn has_sample(&self) -> bool {
        self.sample != 0
    }

    /// The flows of the last sample.
    pub(crate) fn listed(&self) -> impl Iterator<Item = (&Key, &Tracked)> {
        self.flows
            .iter()
            .filter(|(_, flow)| flow.sample == self.sample)
    }

    /// The hosts of those flows that `wanted` wants.
    pub(crate) fn hosts(
        &self,
        order: Order,
        mut wanted: impl FnMut(&Key, &Tracked) -> bool,
    ) -> Vec<Host> {
        let mut hosts: HashMap<IpAddr, Host> = HashMap::new();

        for (key, flow) in self.listed() {
            if !wanted(key, flow) {
                continue;
            }
            let host = hosts.entry(flow.host()).or_insert_with(|| Host {
                addr: flow.host(),
                rate: None,
                split: false,
                bytes: None,
                tiers: Tiers::default(),
            });

            host.tiers.add(flow.tier());
            host.split |= flow.split();
            if let Some(rate) = &flow.rate {
                host.rate.get_or_insert_default().add(rate);
            }
            if let Some(bytes) = flow.bytes() {
                let sum = host.bytes.get_or_insert(0);
                *sum = sum.saturating_add(bytes);
            }
        }
        let mut hosts: Vec<_> = hosts.into_values().collect();
        let rank = |host: &Host| Rank {
            rate: host.rate.unwrap_or_default(),
            bytes: host.bytes.unwrap_or(0),
            flows: host.tiers.flows(),
        };

        hosts.sort_by(|a, b| {
            rank(a)
                .compare(&rank(b), order)
                .then_with(|| a.addr.cmp(&b.addr))
        });
        hosts
    }

    /// The flows that `wanted` wants.
    pub(crate) fn flows(
        &self,
        order: Order,
        mut wanted: impl FnMut(&Key, &Tracked) -> bool,
    ) -> Vec<(&Key, &Tracked)> {
        let mut flows: Vec<_> = self.listed().filter(|(k, f)| wanted(k, f)).collect();
        let rank = |flow: &Tracked| Rank {
            rate: flow.rate.unwrap_or_default(),
            bytes: flow.bytes().unwrap_or(0),
            flows: 1,
        };
        let place = |key: &Key| {
            (
                key.src,
                key.dst,
                key.l4proto,
                key.sport,
                key.dport,
                key.zone,
            )
        };

        flows.sort_by(|(a, one), (b, other)| {
            rank(one)
                .compare(&rank(other), order)
                .then_with(|| place(a).cmp(&place(b)))
        });
        flows
    }

    /// How many flows each tier has, and what those send that hardware alone forwards.
    pub(crate) fn tiers(&self) -> (Tiers, f64) {
        let (mut tiers, mut hardware) = (Tiers::default(), 0.0);

        for (_, flow) in self.listed() {
            tiers.add(flow.tier());
            if flow.tier() == Tier::Hardware {
                hardware += flow.rate.map_or(0.0, |rate| rate.total);
            }
        }
        (tiers, hardware)
    }

    /// Flows whose bytes nobody counts.
    pub(crate) fn uncounted(&self) -> usize {
        self.listed().filter(|(_, f)| f.bytes().is_none()).count()
    }

    /// From now on flows of this host have histories; those of others have none.
    #[cfg(feature = "top")]
    pub(crate) fn watch(&mut self, host: Option<IpAddr>) {
        if self.watched == host {
            return;
        }
        self.watched = host;
        for flow in self.flows.values_mut() {
            flow.history = VecDeque::new();
            if Some(flow.host()) == host {
                remember(&mut flow.history, flow.rate.map_or(0.0, |rate| rate.total));
            }
        }
    }

    /// What a host has sent in each sample, the last one last.
    #[cfg(feature = "top")]
    pub(crate) fn history(&self, host: IpAddr) -> Vec<f32> {
        self.hosts
            .get(&host)
            .map_or(Vec::new(), |history| history.iter().copied().collect())
    }

    /// The same of a flow, since its host is watched.
    #[cfg(feature = "top")]
    pub(crate) fn flow_history(&self, key: &Key) -> Vec<f32> {
        self.flows
            .get(key)
            .map_or(Vec::new(), |flow| flow.history.iter().copied().collect())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A flow of this host to a server, which has sent and got so many bytes.
    pub(crate) fn flow(host: &str, sport: u16, bytes: [u64; 2]) -> Flow {
        let (host, server) = (host.parse().unwrap(), "192.0.2.1".parse().unwrap());

        Flow {
            l4proto: 6,
            age_ms: 60_000,
            snat: true,
            original: Direction {
                src: host,
                dst: server,
                sport: Some(sport),
                dport: Some(443),
                bytes: Some(bytes[0]),
                iif: 2,
                oif: 3,
                ..Direction::default()
            },
            reply: Direction {
                src: server,
                dst: "203.0.113.9".parse().unwrap(),
                sport: Some(443),
                dport: Some(sport),
                bytes: Some(bytes[1]),
                ..Direction::default()
            },
            ..Flow::default()
        }
    }

    pub(crate) fn seen(flows: &[Flow]) -> Vec<Seen> {
        flows.iter().map(|flow| Seen::new(flow, true)).collect()
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn total(model: &Model) -> f64 {
        let hosts = model.hosts(Order::Rate, |_, _| true);
        hosts.iter().filter_map(|h| h.rate).map(|r| r.total).sum()
    }

    #[test]
    fn rates_from_two_samples() {
        let mut model = Model::default();
        model.sample(s(0), seen(&[flow("10.0.0.5", 1, [1000, 5000])]), true);
        // What was counted before is not of now.
        let hosts = model.hosts(Order::Rate, |_, _| true);
        assert_eq!((hosts[0].rate, hosts[0].bytes), (None, Some(6000)));
        model.sample(s(2), seen(&[flow("10.0.0.5", 1, [2000, 25_000])]), true);
        let hosts = model.hosts(Order::Rate, |_, _| true);
        assert_eq!(
            hosts[0].rate,
            Some(Rate {
                total: 10_500.0,
                down: 10_000.0,
                up: 500.0
            })
        );
        assert!(hosts[0].split);
        assert_eq!((model.added, model.gone, model.elapsed), (0, 0, s(2)));
    }

    #[test]
    fn counters_that_begin_again() {
        let mut model = Model::default();
        model.sample(s(0), seen(&[flow("10.0.0.5", 1, [9_000_000, 50])]), true);
        model.sample(s(1), seen(&[flow("10.0.0.5", 1, [300, 70])]), true);
        // Another connection with the same ports, at least that much.
        assert_eq!(total(&model), 320.0);
        // The kind of count changes with the flags of the flowtable.
        let mut other = flow("10.0.0.5", 1, [400, 80]);
        other.fast_bytes = Some(7);
        model.sample(s(2), vec![Seen::new(&other, false)], true);
        assert_eq!(total(&model), 0.0);
        other.fast_bytes = Some(107);
        model.sample(s(3), vec![Seen::new(&other, false)], true);
        let hosts = model.hosts(Order::Rate, |_, _| true);
        assert_eq!((total(&model), hosts[0].split), (100.0, false));
        // Without the flag conntrack has those of the slow path only.
        other.fast_bytes = None;
        model.sample(s(4), vec![Seen::new(&other, false)], true);
        assert_eq!((total(&model), model.uncounted()), (0.0, 1));
    }

    #[test]
    fn flows_that_come_and_go() {
        let mut model = Model::default();
        let (a, b) = (
            flow("10.0.0.5", 1, [1000, 0]),
            flow("10.0.0.5", 2, [1 << 40, 0]),
        );
        model.sample(s(0), seen(&[a.clone()]), true);
        // One that comes had counted before it was a flow.
        model.sample(s(1), seen(&[a.clone(), b.clone()]), true);
        assert_eq!((model.added, model.gone, total(&model)), (1, 0, 0.0));
        // One goes, and does not count any more.
        model.sample(s(2), seen(&[b.clone()]), true);
        assert_eq!((model.added, model.gone), (0, 1));
        assert_eq!(model.listed().count(), 1);
        // It comes again: what it has sent meanwhile is spread over the time.
        model.sample(
            s(5),
            seen(&[flow("10.0.0.5", 1, [1400, 0]), b.clone()]),
            true,
        );
        assert_eq!((model.added, total(&model)), (1, 100.0));
        // After a long time it is a new one.
        model.sample(s(6), seen(&[b.clone()]), true);
        model.sample(s(60), seen(&[b.clone()]), true);
        model.sample(s(61), seen(&[flow("10.0.0.5", 1, [9999, 0]), b]), true);
        assert_eq!((model.added, total(&model)), (1, 0.0));
    }

    #[test]
    fn a_new_flow_whose_own_bytes_are_counted() {
        let mut model = Model::default();
        let mut it = flow("10.0.0.5", 1, [1 << 40, 1 << 40]);
        it.fast_bytes = Some(500);
        it.age_ms = 900;
        // When the first sample is taken nobody knows since when.
        model.sample(s(0), seen(&[it.clone()]), true);
        assert_eq!(total(&model), 0.0);
        let mut other = it.clone();
        other.original.sport = Some(9);
        model.sample(s(1), seen(&[it.clone(), other.clone()]), true);
        assert_eq!(total(&model), 500.0);
        // An older one was only not listed.
        other.original.sport = Some(10);
        other.age_ms = 5000;
        model.sample(s(2), seen(&[it, other]), true);
        assert_eq!(total(&model), 0.0);
    }

    #[test]
    fn a_list_that_is_not_of_one_moment() {
        let mut model = Model::default();
        let (a, b) = (flow("10.0.0.5", 1, [0, 0]), flow("10.0.0.6", 2, [0, 0]));
        model.sample(s(0), seen(&[a.clone(), b.clone()]), true);
        // One is listed twice, the other not at all.
        model.sample(s(1), seen(&[a.clone(), a.clone()]), false);
        assert_eq!((model.gone, model.torn), (0, true));
        assert_eq!(model.listed().count(), 1);
        model.sample(s(2), seen(&[a, flow("10.0.0.6", 2, [2000, 0])]), true);
        assert_eq!(total(&model), 1000.0);
    }

    #[test]
    fn whose_flow_it_is() {
        let host = |flow: &Flow| {
            let mut model = Model::default();
            model.sample(s(0), seen(&[flow.clone()]), true);
            model.hosts(Order::Rate, |_, _| true)[0].addr.to_string()
        };
        assert_eq!(host(&flow("10.0.0.5", 1, [0, 0])), "10.0.0.5");
        // From the Internet to a server behind NAT.
        let mut it = flow("198.51.100.7", 1, [0, 0]);
        it.original.dst = "203.0.113.9".parse().unwrap();
        it.reply.src = "192.168.1.80".parse().unwrap();
        assert_eq!(host(&it), "192.168.1.80");
        // No address is private: the neighbour, whoever began.
        let mut it = flow("2001:db8:9::1", 1, [0, 0]);
        it.original.dst = "2001:db8:1::80".parse().unwrap();
        it.reply.src = it.original.dst;
        it.original.next_hop = Some(it.reply.src);
        it.reply.next_hop = Some("fe80::1".parse().unwrap());
        assert_eq!(host(&it), "2001:db8:1::80");
        it.original.next_hop = None;
        assert_eq!(host(&it), "2001:db8:9::1");
        for (addr, private) in [
            ("172.31.0.1", true),
            ("172.32.0.1", false),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("169.254.1.1", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_private(addr.parse().unwrap()), private, "{addr}");
        }
        // To the host is down, whoever began.
        let mut model = Model::default();
        let mut it = flow("198.51.100.7", 1, [0, 0]);
        it.reply.src = "192.168.1.80".parse().unwrap();
        model.sample(s(0), seen(&[it.clone()]), true);
        it.original.bytes = Some(100);
        model.sample(s(1), seen(&[it]), true);
        let rate = model.hosts(Order::Rate, |_, _| true)[0].rate.unwrap();
        assert_eq!((rate.down, rate.up), (100.0, 0.0));
    }

    #[test]
    fn orders() {
        let mut model = Model::default();
        let flows = |n: u64| {
            [
                flow("10.0.0.9", 1, [0, 1000 * n]),
                flow("10.0.0.10", 1, [10 * n, 10 * n]),
                flow("10.0.0.10", 2, [10 * n, 10 * n]),
                flow("10.0.0.8", 1, [500 * n, 1 << 30]),
            ]
        };
        model.sample(s(0), seen(&flows(0)), true);
        model.sample(s(1), seen(&flows(1)), true);
        let hosts = |order| -> Vec<_> {
            let hosts = model.hosts(order, |_, _| true);
            hosts.iter().map(|h| h.addr.to_string()).collect()
        };
        let (a, b, c) = ("10.0.0.8", "10.0.0.9", "10.0.0.10");
        assert_eq!(hosts(Order::Rate), [b, a, c]);
        assert_eq!(hosts(Order::Down), [b, c, a]);
        assert_eq!(hosts(Order::Up), [a, c, b]);
        assert_eq!(hosts(Order::Bytes), [a, b, c]);
        assert_eq!(hosts(Order::Flows), [c, b, a]);
        assert_eq!(hosts(Order::Addr), [a, b, c]);
        let some = model.flows(Order::Addr, |key, _| key.sport == Some(1));
        let some: Vec<_> = some.iter().map(|(key, _)| key.text()).collect();
        assert_eq!(some.len(), 3);
        assert_eq!(some[0], "tcp 10.0.0.8:1 > 192.0.2.1:443");
        let (tiers, hardware) = model.tiers();
        assert_eq!((tiers.flows(), tiers.software, hardware), (4, 4, 0.0));
    }

    #[cfg(feature = "top")]
    #[test]
    fn histories() {
        let mut model = Model::default();
        let host = "10.0.0.5".parse().unwrap();
        for n in 0..100_u64 {
            let flows = [flow("10.0.0.5", 1, [n * n, 0]), flow("10.0.0.6", 1, [0, 0])];
            model.sample(s(n), seen(&flows), true);
            if n == 97 {
                model.watch(Some(host));
            }
        }
        let history = model.history(host);
        assert_eq!((history.len(), history[HISTORY - 1]), (HISTORY, 197.0));
        let (key, _) = model.flows(Order::Rate, |_, _| true)[0];
        assert_eq!(model.flow_history(key), [193.0, 195.0, 197.0]);
        // A host without flows is not forgotten before its last rate has gone by.
        for n in 100..100 + HISTORY as u64 {
            assert!(!model.history(host).is_empty());
            model.sample(s(n), Vec::new(), true);
        }
        assert!(model.history(host).is_empty());
        assert!(model.flows.is_empty() && model.hosts.is_empty());
    }
}
