// SPDX-License-Identifier: GPL-2.0

//! The verdict of the ruleset about a flow: which packets are sent to it, and what is learnt when
//! they pass.

use crate::{
    ffi,
    flow::{
        object::{
            with_family,
            Flow, //
        },
        path_check,
        qos::{
            self,
            has,
            Probe, //
            SkbMeta,
        },
        shared::FlowShared,
        table_ref::TableRef, //
    },
    net::{
        family::Family,
        forward_path::{
            self,
            KnownPath, //
        },
        packet::{
            ForwardPkt,
            StackPkt, //
        },
        trace::{
            self,
            Reval, //
        }, //
    }, //
};
use core::sync::atomic::Ordering;
use nft_flow::{
    direction::Direction, //
    key::L4Proto,
    reason::TeardownReason,
};

impl FlowShared {
    /// Whether a packet of direction `dir` has to take the slow path, so that bridges see it.
    pub(crate) fn refresh_due(&self, dir: Direction, now: u32) -> bool {
        const INTERVAL: u32 = 15 * ffi::HZ;

        now.wrapping_sub(self.refreshed[dir as usize].load(Ordering::Relaxed)) > INTERVAL
    }

    /// Returns [`FlowShared::refresh_due`], and notes that the packet takes the slow path.
    #[inline(never)]
    pub(crate) fn refresh(&self, dir: Direction, now: u32) -> bool {
        let due = self.refresh_due(dir, now);

        if due {
            self.refreshed[dir as usize].store(now, Ordering::Relaxed);
            self.arm_reval_timeout(dir, now, Reval::Bridge);
        }
        due
    }

    /// Arms the timeout of a packet of direction `dir` that is on its way through the ruleset. If
    /// it does not come back, [`FlowShared::reval_timed_out`].
    fn arm_reval_timeout(&self, dir: Direction, now: u32, why: Reval) {
        let armed = self.reval_since[dir as usize].compare_exchange(
            0,
            now | 1,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );

        if armed.is_ok() {
            trace::revalidate(self.ct.get(), dir, why);
        }
    }

    /// Sends a packet of direction `dir` to a ruleset generation that has not validated the
    /// direction yet.
    pub(crate) fn send_to_ruleset(&self, dir: Direction, probe: &Probe) {
        self.qos[dir as usize].add_probe(probe);
        self.arm_reval_timeout(dir, ffi::jiffies32(), Reval::Ruleset);
    }

    /// Notes that the packet that has added the flow is the first of direction `dir` that passes
    /// the ruleset, if the ingress hook has noted what it came in with.
    pub(crate) fn added_by(&self, dir: Direction, pkt: ForwardPkt<'_>) {
        let generation = self.table().generation();
        let noted = Probe::noted(pkt.fingerprint(), self.hashes[dir as usize]);

        if let Some(mut probe) = noted.filter(|p| p.generation == generation) {
            probe.has |= has::MET;
            self.send_to_ruleset(dir, &probe);
            self.rule_gen.store(generation, Ordering::Relaxed);
        }
    }

    /// Invalidates what is known of the ruleset's verdict: the next packet of each direction takes
    /// the slow path.
    pub(crate) fn invalidate(&self, why: Reval) {
        for dir in [Direction::Original, Direction::Reply] {
            trace::revalidate(self.ct.get(), dir, why);
        }
        with_family!(self, |flow| {
            for (entry, qos) in flow.entries.iter().zip(&self.qos) {
                qos.clear();
                entry.take_stamp();
            }
        });
    }

    /// Invalidates what packets of ruleset `generation` have validated. False if that has to be done
    /// once more.
    pub(crate) fn invalidate_generation(&self, generation: u32) -> bool {
        let mut all = true;

        with_family!(self, |flow| {
            for (entry, qos) in flow.entries.iter().zip(&self.qos) {
                if qos.gen_matches(generation) {
                    trace::revalidate(self.ct.get(), entry.dir(), Reval::Policy);
                    all &= qos.clear();
                    entry.take_stamp();
                }
            }
        });
        all
    }

    /// Refreshes what is known of the ruleset, once in a while: mark and labels of the conntrack
    /// entry may have changed; stamps get old; and packets may have another DSCP than they used to
    /// have.
    pub(crate) fn refresh_stamps(&self) {
        let marks = self.ct.get().marks();

        if self.qos.iter().any(|qos| qos.is_outdated(marks)) {
            self.invalidate(Reval::Mark);
        }
        let generation = self.table().generation();
        with_family!(self, |flow| {
            for (entry, qos) in flow.entries.iter().zip(&self.qos) {
                if !qos.gen_matches(generation) || qos.has_several() {
                    entry.take_stamp();
                }
            }
        });
    }

    /// Requests a revalidation, because the verdict of ruleset `generation` may have changed
    /// without a commit: the next packet of each direction takes the slow path. A flow in hardware
    /// is demoted for that, hence less often. Returns whether a revalidation was requested.
    pub(crate) fn request_reval(&self, generation: u32, now: u32) -> bool {
        const IN_HARDWARE: u32 = 5 * ffi::HZ;

        let since = now.wrapping_sub(self.reval_requested.load(Ordering::Relaxed));
        if self.hw.is_there() && since < IN_HARDWARE
            || !self.qos.iter().any(|qos| qos.gen_matches(generation))
        {
            return false;
        }
        self.reval_requested.store(now, Ordering::Relaxed);
        // The rule that adds the flow has to be met again.
        self.rule_gen.store(qos::NO_RULESET, Ordering::Relaxed);
        self.invalidate(Reval::Volatile);
        true
    }

    /// Whether no packet of the flow has come back from the slow path for `REVAL_TIMEOUT`: neither
    /// after a commit nor after a bridge refresh.
    pub(crate) fn reval_timed_out(&self, now: u32) -> bool {
        const REVAL_TIMEOUT: u32 = 2 * ffi::HZ;

        self.reval_since.iter().any(|reval_since| {
            let since = reval_since.load(Ordering::Relaxed);

            since != 0 && now.wrapping_sub(since) as i32 > REVAL_TIMEOUT as i32
        })
    }

    /// Whether a packet of direction `dir` has the next hop that the flow sends them to. The reply
    /// route was found by a lookup, and rules (marks, NAT before IPsec) may send replies elsewhere.
    fn route_matches(&self, dir: Direction, pkt: StackPkt<'_>) -> bool {
        with_family!(self, |flow| {
            pkt.goes_by(&flow.entries[dir as usize].dst, self.nfproto)
        })
    }

    /// Notes that a packet of direction `dir` has come through IPsec and passed the whole ruleset.
    /// It says nothing about those that come in the clear, which no policy has judged.
    pub(crate) fn came_secured(&self, dir: Direction) {
        with_family!(self, |flow| flow.entries[dir as usize].need_secpath());
    }

    /// Handles a packet of direction `dir` that has passed the whole ruleset. The direction is
    /// validated if the packet was sent there, if the generation in force then still is, and if
    /// this packet or one of the other direction has hit the rule that adds the flow.
    pub(crate) fn postrouting(&self, dir: Direction, pkt: StackPkt<'_>) {
        if !self.route_matches(dir, pkt) {
            if self.teardown(TeardownReason::RouteChange) {
                self.table()
                    .note_route_mismatch(self.ct.get(), TableRef::MISMATCH_LIMIT);
            }
            return;
        }
        let generation = self.table().generation();
        let qos = &self.qos[dir as usize];
        let probe = qos.take_probe(pkt.fingerprint());

        if let Some(probe) = probe.filter(|probe| probe.generation == generation) {
            // It was found by the way it came in.
            if let Some(path) = self.ingress_path(dir) {
                path.prove(self.table().net());
            }
            if !self.rewritten_as_expected(dir, &probe, pkt) {
                if self.teardown(TeardownReason::Rewritten) {
                    self.table().rewritten().remember(self.ct.get(), generation);
                }
                return;
            }
            if self.rule_gen.load(Ordering::Relaxed) == generation {
                with_family!(self, F, |flow| {
                    let by_tos = qos::is_by_tos::<F>(self.table());

                    qos.add_answer(&probe, SkbMeta::of(pkt), by_tos, self.ct.get().marks());
                    // The next packet puts it back, if it is right.
                    flow.entries[dir as usize].take_stamp();
                });
            }
        }
        if qos.gen_matches(generation) {
            let since = &self.reval_since[dir as usize];

            if since.load(Ordering::Relaxed) != 0 {
                since.store(0, Ordering::Relaxed);
                trace::revalidate(self.ct.get(), dir, Reval::Answered);
            }
        }
    }

    /// Whether the packet that was recorded in `probe` has been rewritten as the fast path would do
    /// it, and not by rules (`ip ttl set`, stateless translation).
    fn rewritten_as_expected(&self, dir: Direction, probe: &Probe, pkt: StackPkt<'_>) -> bool {
        let left = pkt.left();
        let has = |bit| probe.has & bit != 0;
        let ports = match self.proto {
            L4Proto::Tcp | L4Proto::Udp | L4Proto::Sctp => true,
            L4Proto::Icmp | L4Proto::Icmpv6 | L4Proto::Gre | L4Proto::Esp | L4Proto::Ah => false,
        };

        left.ttl == probe.ttl.wrapping_sub(1)
            && (left.has_checksum || self.proto != L4Proto::Udp || !has(has::CHECKSUM))
            && left.dont_fragment == has(has::DONT_FRAGMENT)
            && with_family!(self, |flow| {
                flow.entries[dir as usize]
                    .matches_rewrite(pkt.header(), ports.then_some(left.ports))
            })
    }

    /// A packet of direction `dir` has hit the rule that adds the flow. Tears the flow down if
    /// packets come in or leave another way now, so that it is added anew with the path of this
    /// packet. Returns then the path of the other direction, which has not changed.
    ///
    /// The path of a direction without recent fast packets may have been guessed, or has changed:
    /// it is learnt from the packet at hand. A direction with fast packets stays where it is. If a
    /// direction comes in by two devices in turns, the packets by one of them are fast.
    pub(crate) fn rule_hit(&self, dir: Direction, pkt: ForwardPkt<'_>) -> Option<KnownPath> {
        if !self.state.is_live() {
            return None;
        }
        let why = if !self.route_matches(dir, *pkt) {
            TeardownReason::RouteChange
        } else if !with_family!(self, |flow| flow.ingress_matches(dir, pkt)) {
            TeardownReason::PathChange
        } else {
            return None;
        };

        let known = with_family!(self, |flow| flow.known_path(dir.opposite()));
        if self.teardown(why) {
            // Three times are enough.
            self.table()
                .note_route_mismatch(self.ct.get(), TableRef::MISMATCH_LIMIT / 3 + 1);
        }
        Some(known)
    }
}

impl<F: Family> Flow<F> {
    /// Whether a packet of direction `dir`, which has hit the rule that adds the flow, comes in as
    /// the flow has it recorded.
    fn ingress_matches(&self, dir: Direction, pkt: ForwardPkt<'_>) -> bool {
        let shared = &self.shared;
        let [orig, reply] = &self.entries;
        let (this, opposite) = match dir {
            Direction::Original => (orig, reply),
            Direction::Reply => (reply, orig),
        };
        let now = ffi::jiffies32();
        let generation = shared.table().generation();

        // In force when the packet was sent to the rules, and still: these are its rules.
        if shared.qos[dir as usize].rule_hit(pkt.fingerprint(), generation) {
            shared.rule_gen.store(generation, Ordering::Relaxed);
            if pkt.has_destination_options::<F>() {
                this.let_options(true);
            }
        }
        // Packets that the fast path leaves alone come here as well.
        if this.idle(now) < forward_path::QUIET {
            return true;
        }
        let iif = shared.iif[dir as usize];
        if !pkt.iif().is_some_and(|dev| dev.is_or_above(iif)) {
            if now.wrapping_sub(shared.lost[dir as usize].load(Ordering::Relaxed))
                < forward_path::QUIET
            {
                return true;
            }
            // The other direction is better off with this flow than with none.
            let found = path_check::is_found::<F>(pkt, shared.table());
            if !found {
                shared.lost[dir as usize].store(now, Ordering::Relaxed);
            }
            return !found;
        }
        // All packets may be such.
        if now.wrapping_sub(shared.looked[dir as usize].load(Ordering::Relaxed))
            < forward_path::QUIET
        {
            return true;
        }
        shared.looked[dir as usize].store(now, Ordering::Relaxed);
        path_check::is_current(
            pkt.rcu(),
            this,
            opposite,
            shared.ingress_path(dir),
            shared.table(),
        )
    }

    /// Returns the path of a direction, for the flow that replaces this one.
    fn known_path(&self, dir: Direction) -> KnownPath {
        let entry = &self.entries[dir as usize];

        KnownPath {
            dst: F::dst_valid(entry).then(|| entry.dst.get()).flatten(),
            iif: (
                self.shared.iif[dir as usize],
                self.shared.senders[dir as usize],
            ),
            seen: entry.seen(),
        }
    }
}
