// SPDX-License-Identifier: GPL-2.0

//! TCP connections that open, close, or seem to.
//!
//! A SYN, FIN or RST takes the slow path, and conntrack judges it; the flow learns from what state
//! the connection is in afterwards, and from nothing else. Who sends a RST without seeing the
//! connection must neither close it nor have it forwarded slowly, and such a packet must fare as
//! it does without a flowtable: invalid, and dropped by the usual rules.
//!
//! Conntrack can only tell if it knows how far both directions have got. The packet path notes that
//! in one word per direction ([`MaxEnd`](nft_flow::window::MaxEnd)). Before such a packet meets
//! conntrack, by whichever way it has come, conntrack's windows are moved there and its checks,
//! which are relaxed while the flow is offloaded, are made strict. They are relaxed again by the
//! next segment of another kind: one that the hook sees a jiffy later, or one that has passed the
//! ruleset. The windows are as wide as conntrack knew them when the flow was made, or as samples
//! have shown since ([`PeerState`]).
//!
//! The word must not be moved by packets that somebody made up. So a segment moves it if it starts
//! where the last one has ended; or if it is ahead by no more than the receiver's window allows,
//! and acknowledges what the other side may have sent; or if it is the other side, in step itself,
//! that acknowledges more than we have seen. A segment further away than any window reaches
//! ([`Window`](nft_flow::window::Window)) takes the slow path besides.
//!
//! Of a RST conntrack believes the number that the other side has acknowledged last, and nothing
//! else. That number is known if nothing is in flight; otherwise a RST with the number that its
//! sender has got to is believed, and any other one leaves the connection established, with a short
//! timeout until it is seen to go on: it is up to the receiver.
//!
//! Of a connection that hardware forwards, or has forwarded, nothing is known: its packets are
//! taken as they come, a RST does not close it, and conntrack learns its windows anew when it has
//! it back.

use crate::{
    ffi::{
        self,
        c,
        HZ, //
    },
    flow::{
        entry::{
            flag,
            Entry, //
        },
        object::{
            with_family,
            Flow, //
        },
        shared::FlowShared, //
    },
    net::{
        ct::{
            self,
            Fixup,
            SeqState,
            WindowFixup, //
            Windows,
        },
        family::Family, //
    }, //
};
use core::sync::atomic::{
    AtomicBool,
    AtomicU32,
    Ordering, //
};
use nft_flow::{
    direction::Direction,
    key::L4Proto,
    parse::tcp,
    reason::{
        MissReason,
        TeardownReason, //
    },
    window::{
        after,
        is_ahead,
        PeerState, //
        Segment,
    }, //
};

/// What the control path knows of a TCP connection.
pub(crate) struct TcpState {
    /// Conntrack did not check windows before the flow was offloaded.
    liberal: bool,
    /// Original and reply.
    peers: [PeerState; 2],
    /// `jiffies` when conntrack's windows were last synchronised for a SYN, FIN or RST.
    synced_at: AtomicU32,
    /// Conntrack still checks windows as it did then.
    strict: AtomicBool,
    /// Other packets have passed since.
    went_on: AtomicBool,
    /// Packets pass, or have passed, that the packet path does not see.
    windows_stale: AtomicBool,
    /// `jiffies` when a segment in step last passed the ruleset.
    passed: AtomicU32,
}

impl TcpState {
    /// Makes the state of a connection whose windows conntrack checks, unless it is `liberal`.
    pub(crate) fn new(peers: [PeerState; 2], liberal: bool) -> Self {
        Self {
            liberal,
            peers,
            synced_at: AtomicU32::new(0),
            strict: AtomicBool::new(false),
            went_on: AtomicBool::new(false),
            windows_stale: AtomicBool::new(false),
            passed: AtomicU32::new(ffi::jiffies32()),
        }
    }

    /// Marks conntrack's windows stale for good: from now on packets may pass that the packet path
    /// does not see.
    pub(crate) fn mark_windows_stale(&self) {
        if !self.are_windows_stale() {
            self.windows_stale.store(true, Ordering::Relaxed);
        }
    }

    fn are_windows_stale(&self) -> bool {
        self.windows_stale.load(Ordering::Relaxed)
    }

    fn is_strict(&self) -> bool {
        self.strict.load(Ordering::Relaxed)
    }

    /// Whether the last packet was a SYN, FIN or RST that conntrack has seen, so that the
    /// connection may be at its end.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.is_strict() && !self.went_on.load(Ordering::Relaxed)
    }
}

impl FlowShared {
    /// Synchronises conntrack before a SYN, FIN or RST of direction `dir` is judged by conntrack,
    /// see [`Flow::sync_ct`].
    pub(crate) fn sync_ct(&self, dir: Direction, tcp: &c::nfo_tcp) {
        with_family!(self, |flow| flow.sync_ct(dir, tcp.flags, tcp.seq));
    }

    /// A TCP packet of direction `dir` has passed the whole ruleset, see [`Flow::observe_tcp`].
    pub(crate) fn observe_tcp(&self, dir: Direction, tcp: &c::nfo_tcp) {
        let segment = Segment {
            seq: tcp.seq,
            end: tcp.end,
            ack: (tcp.flags & tcp::ACK != 0).then_some(tcp.ack),
            window: tcp.window,
        };

        with_family!(self, |flow| flow.observe_tcp(dir, tcp.flags, &segment));
    }

    /// Makes up for what conntrack does to its entry when it sees packets. Called by the worker, of
    /// live flows.
    pub(crate) fn refresh_ct(&self) {
        let ct = self.ct.get();
        let seen = self.seen();

        if self.proto == L4Proto::Tcp {
            with_family!(self, |flow| flow.check_progress(seen));
            if self.tcp.is_in_doubt() {
                // Conntrack has said how long it lasts if it does not.
                return;
            }
        }
        ct.assure(seen, self.since);
        ct.extend(|| self.is_live());
    }
}

impl<F: Family> Flow<F> {
    /// Returns the windows of both directions. `generous`: where the windows may have grown since
    /// they were last looked at, they are as wide as they can be.
    fn windows(&self, now: u32, generous: bool) -> Windows {
        // Noted at most half a second late: what was in flight then has arrived, and is
        // acknowledged.
        let passed = self.shared.tcp.passed.load(Ordering::Relaxed);
        let quiet = now.wrapping_sub(passed) >= HZ
            && self.entries.iter().all(|entry| entry.idle(now) >= HZ);
        let of = |dir: Direction| {
            let peer = &self.shared.tcp.peers[dir as usize];
            let other = &self.entries[dir.opposite() as usize];
            let maxwin = match peer.maxwin() {
                maxwin if quiet || !generous => maxwin,
                maxwin if peer.is_sampled() => maxwin.saturating_mul(2),
                maxwin => maxwin.max(other.window.bytes()),
            };
            let maxack = match peer.maxack() {
                _ if quiet => other.max_end.end(),
                maxack if peer.may_acknowledge(maxack, other.max_end.end()) => maxack,
                _ => other.max_end.end().wrapping_sub(maxwin),
            };

            SeqState {
                end: self.entries[dir as usize].max_end.end(),
                maxwin,
                maxack,
            }
        };

        Windows {
            seq: [of(Direction::Original), of(Direction::Reply)],
            quiet,
        }
    }

    /// Synchronises conntrack's windows before it sees a SYN, FIN or RST of direction `dir` that
    /// starts at `seq`.
    #[cold]
    pub(crate) fn sync_ct(&self, dir: Direction, flags: u8, seq: u32) {
        let state = &self.shared.tcp;
        let ct = self.shared.ct.get();
        let rst = flags & tcp::RST != 0;
        let now = ffi::jiffies32();

        state.synced_at.store(now, Ordering::Relaxed);
        let went_on = state.went_on.swap(false, Ordering::Relaxed);
        let stale = !state.strict.swap(true, Ordering::Relaxed) || went_on;
        if state.are_windows_stale() {
            ct.sync_stale_windows(rst.then_some((dir, seq)));
        } else {
            // From somebody who knows where its sender has got to.
            let exact = seq == self.entries[dir as usize].max_end.end();
            let mut windows = self.windows(now, exact);

            if rst && exact {
                windows.seq[dir.opposite() as usize].maxack = seq;
            }
            ct.sync_windows(&windows, state.liberal, stale);
        }
        for entry in &self.entries {
            entry.set_flag(flag::CT_VERDICT_PENDING, true);
        }
    }

    /// Learns from a TCP packet of direction `dir` that has passed the ruleset. It may be one that
    /// the hook has not seen: from a device whose ingress is redirected, a fragment, with IP
    /// options.
    pub(crate) fn observe_tcp(&self, dir: Direction, flags: u8, segment: &Segment) {
        let entry = &self.entries[dir as usize];

        if flags & (tcp::SYN | tcp::RST) == 0 {
            if !entry.max_end.follow(segment.seq, segment.end) {
                // Noted, if it is to be; it has passed anyway.
                let _ = out_of_order(entry, segment);
            }
            if self.learn_windows(entry, segment) {
                self.shared
                    .tcp
                    .passed
                    .store(ffi::jiffies32(), Ordering::Relaxed);
            }
        }
        if flags & tcp::CONTROL != 0 {
            // It may be over. Otherwise it has to go on first.
            self.read_ct_verdict(false);
        } else if self.shared.tcp.is_strict() {
            self.read_ct_verdict(true);
        }
    }

    /// Reads conntrack's verdict when the hook sees a segment of `entry` without SYN, FIN and RST,
    /// and [`flag::CT_VERDICT_PENDING`] is set.
    #[cold]
    pub(crate) fn check_ct_verdict(&self, entry: &Entry<F>, segment: &Segment, now: u32) {
        let state = &self.shared.tcp;

        let _ = self.learn_windows(entry, segment);
        if !state.is_strict() {
            entry.set_flag(flag::CT_VERDICT_PENDING, false);
            return;
        }
        state.went_on.store(true, Ordering::Relaxed);
        // Conntrack's verdict may still be under way.
        if state.synced_at.load(Ordering::Relaxed) != now {
            if self.read_ct_verdict(true) {
                self.shared.ct.get().advance_close();
            }
        }
    }

    /// Learns from a segment if it is in step, and so from one who knows how far that side has got;
    /// otherwise false.
    fn learn_windows(&self, entry: &Entry<F>, segment: &Segment) -> bool {
        let other = &self.entries[entry.dir().opposite() as usize];

        if segment.end != entry.max_end.end() || self.shared.tcp.are_windows_stale() {
            return false;
        }
        // The other side has sent all that this one acknowledges.
        if let Some(ack) = segment.ack {
            let known = other.max_end.end();

            if after(ack, known) && other.window.contains(known, ack) {
                other.max_end.set(ack);
            }
        }
        self.shared.tcp.peers[entry.dir() as usize].learn(segment, other.max_end.end());
        true
    }

    /// Samples a segment of `entry` that the hook forwards: once in a while one is looked at.
    #[cold]
    pub(crate) fn sample(&self, entry: &Entry<F>, segment: &Segment) {
        let _ = self.learn_windows(entry, segment);
    }

    /// Reads conntrack's verdict if packets have been seen for a second after a SYN, FIN or RST:
    /// the connection goes on. For the worker, because of flows in hardware. `seen` is the time of
    /// the latest packet.
    pub(crate) fn check_progress(&self, seen: u32) {
        let state = &self.shared.tcp;
        let synced_at = state.synced_at.load(Ordering::Relaxed);

        if state.is_strict() && after(seen, synced_at.wrapping_add(HZ)) {
            self.read_ct_verdict(true);
        }
    }

    /// Raises the ends of a flow that is in the table now: packets that passed conntrack before
    /// that, and after it had told how far it was, are noted.
    pub(crate) fn sync_window_ends(&self) {
        self.raise_ends(self.shared.ct.get().window_ends());
    }

    fn raise_ends(&self, ends: [Option<u32>; 2]) {
        for (entry, end) in self.entries.iter().zip(ends) {
            if let Some(end) = end.filter(|end| after(*end, entry.max_end.end())) {
                entry.max_end.set(end);
            }
        }
    }

    /// Reads conntrack's state after a SYN, FIN or RST; false if it ends the flow. `go_on`: a
    /// packet of another kind has passed since conntrack judged one, which it no longer has to do.
    fn read_ct_verdict(&self, go_on: bool) -> bool {
        let ct = self.shared.ct.get();
        let state = &self.shared.tcp;

        self.shared.teardown(match ct.tcp_state() {
            // Half closed, maybe: data goes on in the other direction.
            ct::TCP_ESTABLISHED | ct::TCP_FIN_WAIT | ct::TCP_CLOSE_WAIT => {
                if state.is_strict() && !state.are_windows_stale() {
                    // A FIN takes a number.
                    self.raise_ends(ct.window_ends());
                }
                if go_on {
                    for entry in &self.entries {
                        entry.set_flag(flag::CT_VERDICT_PENDING, false);
                    }
                    state.strict.store(false, Ordering::Relaxed);
                    ct.be_liberal(|| self.shared.is_live());
                }
                return true;
            }
            ct::TCP_LAST_ACK | ct::TCP_TIME_WAIT => TeardownReason::Fin,
            ct::TCP_CLOSE => TeardownReason::Rst,
            _ => TeardownReason::SynReuse,
        });
        false
    }

    /// Returns how conntrack's entry is fixed up when the flow is torn down for this reason.
    pub(crate) fn fixup(&self, reason: TeardownReason) -> Fixup {
        let state = &self.shared.tcp;
        let now = ffi::jiffies32();
        let windows = match reason {
            // Conntrack has judged a packet by what we know, and knows more now.
            TeardownReason::Fin | TeardownReason::Rst | TeardownReason::SynReuse
                if state.is_strict() =>
            {
                WindowFixup::Keep
            }
            _ if state.are_windows_stale() => WindowFixup::Clear,
            _ => WindowFixup::Set(self.windows(now, true)),
        };

        Fixup {
            idle: match reason {
                TeardownReason::Idle => self.shared.idle(now),
                _ => 0,
            },
            seen: self.shared.seen(),
            windows,
            liberal: state.liberal,
            ct_saw_last: state.is_in_doubt(),
        }
    }
}

/// Checks a segment of `entry` that does not start where the last one has ended: one was lost
/// before us, or comes again, or overtakes another one; or it is made up.
///
/// # Errors
///
/// It is too far away for any window, or acknowledges what cannot be, and is for conntrack.
#[cold]
pub(crate) fn out_of_order<F: Family>(
    entry: &Entry<F>,
    segment: &Segment,
) -> Result<(), MissReason> {
    let flow = entry.flow();
    let state = &flow.shared.tcp;
    let (this, other) = (entry.dir(), entry.dir().opposite());
    let [sender, receiver] = [this, other].map(|dir| &state.peers[dir as usize]);
    let opposite = &flow.entries[other as usize];
    let last = entry.max_end.end();
    let near = entry.window.contains(last, segment.end);

    if state.are_windows_stale() {
        if !near || after(segment.end, last) {
            entry.max_end.set(segment.end);
        }
        return Ok(());
    }
    if !near || after(segment.end, last) {
        if is_ahead(segment, last, sender, receiver, opposite.max_end.end()) {
            entry.max_end.set(segment.end);
            return Ok(());
        }
        // The receiver knows.
        if !opposite.has_flag(flag::CT_VERDICT_PENDING) {
            opposite.set_flag(flag::CT_VERDICT_PENDING, true);
        }
    }
    let genuine = |ack| sender.may_acknowledge(ack, opposite.max_end.end());
    if near && segment.ack.is_some_and(genuine) {
        Ok(())
    } else {
        Err(MissReason::TcpWindow)
    }
}
