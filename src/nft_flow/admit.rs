// SPDX-License-Identifier: GPL-2.0

//! Which flows hardware forwards: the heaviest, as many as fit.
//!
//! Flows are ranked by recent bytes. There is a floor below which hardware is not worth the work;
//! while there is room everything above it goes in. When there is none, a flow that waits takes the
//! place of the lightest one in hardware if it is clearly heavier: by a margin, so that two equal
//! flows do not take turns. How much fits is learned from being refused.
//!
//! Times are milliseconds that wrap around, rates bytes per second.

/// What the choice depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// The rate from which a flow is worth a place.
    pub threshold: u64,
    /// How much heavier than a flow in hardware one that waits has to be, in percent.
    pub margin: u64,
    /// Places that change hands in a round at most.
    pub swaps: usize,
}

impl Config {
    /// The default with another threshold.
    pub const fn new(threshold: u64) -> Self {
        Config {
            threshold,
            margin: 25,
            swaps: 64,
        }
    }
}

/// The recent rate of a flow: an average that forgets exponentially.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    average: u64,
    total: u64,
    at: u32,
    /// Milliseconds that the average knows, up to [`Rate::MEMORY`].
    known: u32,
}

impl Rate {
    /// About what lies this far back counts half, in milliseconds.
    pub const MEMORY: u32 = 3000;

    /// That of a flow which has had `total` bytes at `now`, the last `recent` of them in the last
    /// `window` milliseconds.
    pub const fn new(total: u64, now: u32, recent: u64, window: u32) -> Self {
        let window = if window < 1 { 1 } else { window };
        Rate {
            average: recent.saturating_mul(1000) / window as u64,
            total,
            at: now,
            known: if window < Self::MEMORY {
                window
            } else {
                Self::MEMORY
            },
        }
    }

    /// The flow has had `total` bytes now. Does nothing within a few milliseconds of the last time.
    pub fn sample(&mut self, total: u64, now: u32) {
        let elapsed = now.wrapping_sub(self.at);

        if !(10..u32::MAX / 2).contains(&elapsed) {
            return;
        }
        let (elapsed, known) = (u64::from(elapsed), u64::from(self.known));
        let bytes = total.saturating_sub(self.total);
        let rate = bytes.saturating_mul(1000) / elapsed;

        // Both are rates over a time: the new one weighs as much as it lasted.
        self.average = self
            .average
            .saturating_mul(known)
            .saturating_add(rate.saturating_mul(elapsed))
            / known.saturating_add(elapsed).max(1);
        self.known = known.saturating_add(elapsed).min(u64::from(Self::MEMORY)) as u32;
        self.total = total;
        self.at = now;
    }

    /// Bytes per second.
    pub const fn get(&self) -> u64 {
        self.average
    }
}

/// A flow in a list, and its rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ranked {
    /// Its rate.
    pub rate: u64,
    /// Where it is in the caller's list.
    pub index: u32,
}

/// What [`plan`] has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// So many of the first that wait go in, because there is room.
    pub admit: usize,
    /// So many after them take the places of as many of the first in hardware.
    pub swap: usize,
}

/// Brings those who move to the front of the lists, and says how many: of `waiting` the heaviest in
/// order if there is not room for all, of `resident` the lightest in order. `room` is the number of
/// flows that fit besides those in hardware.
pub fn plan(config: &Config, waiting: &mut [Ranked], resident: &mut [Ranked], room: usize) -> Plan {
    // Those that are worth a place go first.
    let mut worth = 0;
    for at in 0..waiting.len() {
        if waiting.get(at).is_some_and(|w| w.rate >= config.threshold) {
            waiting.swap(at, worth);
            worth = worth.wrapping_add(1);
        }
    }
    let Some(waiting) = waiting.get_mut(..worth) else {
        return Plan::default();
    };
    if worth <= room {
        return Plan {
            admit: worth,
            swap: 0,
        };
    }
    let swaps = config.swaps.min(resident.len());

    first(waiting, room.saturating_add(swaps), |a, b| a.rate > b.rate);
    first(resident, swaps, |a, b| a.rate < b.rate);
    let swap = waiting
        .iter()
        .skip(room)
        .zip(resident.iter())
        .take(swaps)
        .take_while(|(w, r)| {
            let margin = r.rate.saturating_mul(config.margin) / 100;
            w.rate > r.rate.saturating_add(margin)
        })
        .count();

    Plan { admit: room, swap }
}

/// Brings the `n` that come first to the front, in order: no memory, and no order of flows that
/// makes it slow. A heap of all, whose root goes to the list's end `n` times; then the ends change
/// places.
fn first(list: &mut [Ranked], n: usize, before: impl Fn(&Ranked, &Ranked) -> bool) {
    // Moves the item at `at` down until both below it come after it.
    let sift = |list: &mut [Ranked], mut at: usize| loop {
        let left = at.wrapping_mul(2).wrapping_add(1);
        let (Some(here), Some(a)) = (list.get(at), list.get(left)) else {
            return;
        };
        let right = left.wrapping_add(1);
        let child = match list.get(right) {
            Some(b) if before(b, a) => right,
            _ => left,
        };
        if list.get(child).is_none_or(|c| !before(c, here)) {
            return;
        }
        list.swap(at, child);
        at = child;
    };
    let n = n.min(list.len());
    let rest = list.len().wrapping_sub(n);

    for at in (0..list.len() / 2).rev() {
        sift(list, at);
    }
    for end in (rest..list.len()).rev() {
        list.swap(0, end);
        if let Some(heap) = list.get_mut(..end) {
            sift(heap, 0);
        }
    }
    list.reverse();
}

/// How many rules fit, learned from having been refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    limit: Option<u32>,
    full_at: u32,
    wait: u32,
}

impl Room {
    const FIRST_WAIT: u32 = 5_000;
    const LAST_WAIT: u32 = 60_000;

    /// Nothing is known.
    pub const fn new() -> Self {
        Room {
            limit: None,
            full_at: 0,
            wait: Self::FIRST_WAIT,
        }
    }

    /// The table was full with `used` rules of ours.
    pub fn full(&mut self, used: u32, now: u32) {
        if self.limit.is_some_and(|limit| limit <= used) {
            // Still as it was: ask less often.
            self.wait = self.wait.saturating_mul(2).min(Self::LAST_WAIT);
        }
        self.limit = Some(used);
        self.full_at = now;
    }

    /// A rule went in, `used` are there now.
    pub fn added(&mut self, used: u32) {
        if self.limit.is_some_and(|limit| used > limit) {
            // Others have left some room: see how much.
            *self = Self::new();
        }
    }

    /// Rules that fit besides `used` ones, as far as is known. From time to time one more than
    /// have ever fitted: others use the table as well.
    pub fn left(&self, used: u32, now: u32) -> u32 {
        match self.limit {
            None => u32::MAX,
            Some(limit) if used < limit => limit.wrapping_sub(used),
            Some(_) if now.wrapping_sub(self.full_at) > self.wait => 2,
            Some(_) => 0,
        }
    }

    /// Rules that have fitted, once that is known.
    pub const fn limit(&self) -> Option<u32> {
        self.limit
    }
}

impl Default for Room {
    fn default() -> Self {
        Self::new()
    }
}

/// How long a flow is left alone after the `n`th failure in a row, in milliseconds.
pub const fn backoff(n: u8) -> u32 {
    const FIRST: u32 = 500;
    const MAX_DOUBLINGS: u8 = 7;

    FIRST << if n < MAX_DOUBLINGS { n } else { MAX_DOUBLINGS }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn ranked(rates: &[u64]) -> Vec<Ranked> {
        rates
            .iter()
            .enumerate()
            .map(|(i, &rate)| Ranked {
                rate,
                index: i as u32,
            })
            .collect()
    }

    #[test]
    fn sorts() {
        let mut seed = 7u32;
        for n in 0..70 {
            let rates: Vec<u64> = (0..n)
                .map(|_| {
                    seed = seed.wrapping_mul(1664525).wrapping_add(1013904223);
                    u64::from(seed >> 26)
                })
                .collect();
            let mut sorted = rates.clone();
            sorted.sort();
            let mut list = ranked(&rates);
            for k in [0, 1, n as usize / 2, n as usize, 100] {
                first(&mut list, k, |a, b| a.rate < b.rate);
                let k = k.min(list.len());
                assert!(list[..k]
                    .iter()
                    .map(|r| r.rate)
                    .eq(sorted[..k].iter().copied()));
            }
            first(&mut list, 100, |a, b| a.rate > b.rate);
            assert!(list.is_sorted_by(|a, b| a.rate >= b.rate));
            let mut all: Vec<u32> = list.iter().map(|r| r.index).collect();
            all.sort();
            assert!(all.iter().copied().eq(0..n));
        }
    }

    #[test]
    fn rate_follows() {
        let mut r = Rate::new(0, 0, 0, 100);
        for i in 1..=100 {
            r.sample(i * 1000, i as u32 * 100);
        }
        assert!((9_900..=10_000).contains(&r.get()), "{r:?}");
        for i in 101..=130 {
            r.sample(100_000, i * 100);
        }
        // Three seconds of silence: a good half is forgotten.
        assert!((2_000..5_100).contains(&r.get()), "{r:?}");
        let before = r;
        r.sample(1 << 60, 130 * 100 + 3);
        assert_eq!(r, before);
        r.sample(u64::MAX, 131 * 100);
        r.sample(0, 132 * 100);
        assert!(r.get() > 1 << 40);
    }

    #[test]
    fn first_sample_counts() {
        assert_eq!(Rate::new(500, 0, 500, 50).get(), 10_000);
        assert_eq!(Rate::new(500, 0, 500, 0).get(), 500_000);
    }

    #[test]
    fn plan_fills_then_swaps() {
        let config = Config::new(100);
        let mut waiting = ranked(&[50, 300, 1000, 100]);
        let mut resident = ranked(&[800, 200]);
        assert_eq!(
            plan(&config, &mut waiting, &mut resident, 9),
            Plan { admit: 3, swap: 0 }
        );
        assert!(waiting[..3].iter().all(|w| w.index != 0));
        // 1000 takes the free place, 300 that of 200; 100 is lighter than what is left.
        assert_eq!(
            plan(&config, &mut waiting, &mut resident, 1),
            Plan { admit: 1, swap: 1 }
        );
        assert_eq!((waiting[1].index, resident[0].index), (1, 1));
        // 1000 for 200, 300 not for 800.
        assert_eq!(
            plan(&config, &mut waiting, &mut resident, 0),
            Plan { admit: 0, swap: 1 }
        );
    }

    #[test]
    fn plan_has_a_margin() {
        let config = Config::new(1);
        let mut resident = ranked(&[100]);
        let swap = |w, r: &mut [Ranked]| plan(&config, &mut ranked(&[w]), r, 0).swap;
        assert_eq!(swap(125, &mut resident), 0);
        assert_eq!(swap(126, &mut resident), 1);
    }

    #[test]
    fn room_is_learned() {
        let mut room = Room::new();
        assert_eq!(room.left(1000, 0), u32::MAX);
        room.full(64, 0);
        assert_eq!((room.left(64, 10), room.left(60, 10)), (0, 4));
        // Asked again after a while, and later after longer.
        assert_eq!(room.left(64, Room::FIRST_WAIT + 1), 2);
        room.full(64, Room::FIRST_WAIT + 1);
        assert_eq!(room.left(64, 2 * Room::FIRST_WAIT + 2), 0);
        assert_eq!(room.left(64, 3 * Room::FIRST_WAIT + 2), 2);
        // There is room again.
        room.added(66);
        assert_eq!(room.left(66, 0), u32::MAX);
    }

    #[test]
    fn backoff_grows() {
        assert_eq!((backoff(0), backoff(1), backoff(200)), (500, 1000, 64_000));
    }

    /// Packets of `flows` flows whose rates are as 1/rank^s.
    struct Zipf {
        sums: Vec<f64>,
        seed: u64,
    }

    impl Zipf {
        fn new(flows: usize, s: f64) -> Self {
            let mut sum = 0.0;
            let sums = (1..=flows)
                .map(|k| {
                    sum += (k as f64).powf(-s);
                    sum
                })
                .collect();
            Zipf { sums, seed: 1 }
        }

        fn next(&mut self) -> usize {
            // xorshift64*
            self.seed ^= self.seed >> 12;
            self.seed ^= self.seed << 25;
            self.seed ^= self.seed >> 27;
            let x = self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
            let u = x as f64 / (1u64 << 53) as f64 * self.sums.last().unwrap();
            self.sums.partition_point(|&s| s < u)
        }
    }

    /// Shares of all bytes that hardware carried: by rate, first-come, perfect choice.
    fn race(flows: usize, places: usize, churn: bool) -> [f64; 3] {
        const PACKETS: usize = 20_000; // a second
        const SECONDS: u32 = 60;
        let mut zipf = Zipf::new(flows, 1.1);
        let config = Config::new(4_000);
        let mut total = vec![0u64; flows];
        let mut rates = vec![Rate::new(0, 0, 0, 1000); flows];
        let mut inside = vec![false; flows];
        let mut first = std::collections::HashSet::new();
        let (mut by_rate, mut by_first, mut perfect, mut all) = (0u64, 0u64, 0u64, 0u64);
        // Who is the heaviest: the same one all the time, or others every 20 seconds.
        let who = |rank: usize, second: u32| match churn {
            true => (rank + 1000 * (second as usize / 20)) % flows,
            false => rank,
        };

        for second in 0..SECONDS {
            for _ in 0..PACKETS {
                let rank = zipf.next();
                let flow = who(rank, second);
                if first.len() < places {
                    first.insert(flow);
                }
                total[flow] += 1000;
                // The first seconds are for learning.
                if second % 20 >= 5 || (second >= 5 && !churn) {
                    all += 1;
                    by_rate += u64::from(inside[flow]);
                    by_first += u64::from(first.contains(&flow));
                    perfect += u64::from(rank < places);
                }
            }
            let (mut waiting, mut resident) = (Vec::new(), Vec::new());
            for (i, rate) in rates.iter_mut().enumerate() {
                rate.sample(total[i], (second + 1) * 1000);
                let ranked = Ranked {
                    rate: rate.get(),
                    index: i as u32,
                };
                match inside[i] {
                    true => resident.push(ranked),
                    false => waiting.push(ranked),
                }
            }
            let room = places - resident.len();
            let plan = plan(&config, &mut waiting, &mut resident, room);
            for r in &resident[..plan.swap] {
                inside[r.index as usize] = false;
            }
            for w in &waiting[..plan.admit + plan.swap] {
                inside[w.index as usize] = true;
            }
            assert!(inside.iter().filter(|i| **i).count() <= places);
        }
        [by_rate, by_first, perfect].map(|n| n as f64 / all as f64)
    }

    #[test]
    fn zipf_nearly_perfect() {
        let [ours, first, perfect] = race(10_000, 64, false);
        println!(
            "64 of 10000 flows, Zipf(1.1): by rate {:.1} %, first come {:.1} % of the bytes that a \
             perfect choice carries",
            100.0 * ours / perfect,
            100.0 * first / perfect
        );
        assert!(ours / perfect >= 0.95, "{ours} {perfect}");
        assert!(first < ours);
    }

    #[test]
    fn zipf_follows_change() {
        let [ours, first, perfect] = race(10_000, 64, true);
        println!(
            "the same with other heavy flows every 20 s: by rate {:.1} %, first come {:.1} %",
            100.0 * ours / perfect,
            100.0 * first / perfect
        );
        assert!(ours / perfect >= 0.9, "{ours} {perfect}");
        assert!(first < ours / 2.0);
    }
}
