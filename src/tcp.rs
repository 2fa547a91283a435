// SPDX-License-Identifier: GPL-2.0

//! TCP connections that open, close, or seem to.
//!
//! A SYN, FIN or RST takes the slow path, and conntrack judges it; the flow learns from what state
//! the connection is in afterwards, and from nothing else. Who sends a RST without seeing the
//! connection must neither close it nor have it forwarded slowly, and such a packet must fare as
//! it does without a flowtable: invalid, and dropped by the usual rules.
//!
//! Conntrack can only tell if it knows how far both directions have got. The packet path notes that
//! in one word per direction ([`Sent`](nft_flow::window::Sent)), and before it lets such a packet pass, conntrack's windows
//! are set to it and its checks, which are relaxed while the flow is offloaded, are made strict.
//! They are relaxed again by the next packet a jiffy later, or when a packet has passed the ruleset.
//!
//! The word must not be moved by packets that somebody made up. So a packet beyond what the receiver
//! can have offered ([`Reach`](nft_flow::window::Reach)) takes the slow path, uncounted, unless it acknowledges what the other
//! side has sent: then the connection has got ahead by packets that the fast path did not see.
//!
//! Of a connection that hardware forwards, or has forwarded, nothing is known: its packets are taken
//! as they come, and conntrack learns its windows anew.

use crate::{
    ct::{
        self,
        Progress,
        Windows, //
    },
    entry::{
        flag,
        Entry,
        Flow, //
    },
    family::Family,
    ffi, //
};
use core::sync::atomic::{
    AtomicBool,
    AtomicU32,
    Ordering, //
};
use nft_flow::{
    parse::tcp,
    reason::{
        MissReason,
        TeardownReason, //
    },
    state::Direction,
    window::after, //
};

/// What the control path knows of a TCP connection.
pub(crate) struct Control {
    /// Conntrack did not check windows before the flow was offloaded.
    liberal: bool,
    /// `jiffies` when conntrack was last asked to judge a packet.
    asked: AtomicU32,
    /// `jiffies` (never 0) when a packet of each direction was last out of reach.
    astray: [AtomicU32; 2],
    /// Packets pass, or have passed, that the packet path does not see.
    unseen: AtomicBool,
}

impl Control {
    /// Of a connection whose windows conntrack checks, unless it is `liberal`.
    pub(crate) fn new(liberal: bool) -> Self {
        Self {
            liberal,
            asked: AtomicU32::new(0),
            astray: [AtomicU32::new(0), AtomicU32::new(0)],
            unseen: AtomicBool::new(false),
        }
    }

    /// From now on packets may pass that the packet path does not see.
    pub(crate) fn lose_sight(&self) {
        if !self.is_unseen() {
            self.unseen.store(true, Ordering::Relaxed);
        }
    }

    fn is_unseen(&self) -> bool {
        self.unseen.load(Ordering::Relaxed)
    }
}

impl<F: Family> Flow<F> {
    fn progress(&self) -> [Progress; 2] {
        self.entries.each_ref().map(|entry| Progress {
            end: entry.sent.end(),
            reach: entry.reach,
        })
    }

    /// A SYN, FIN or RST of direction `dir` is about to take the slow path.
    #[cold]
    pub(crate) fn ask(&self, dir: Direction, flags: u8, seq: u32) {
        let control = &self.cold.tcp;
        let rst = (flags & tcp::RST != 0).then_some((dir, seq));

        control.asked.store(ffi::jiffies32(), Ordering::Relaxed);
        if control.is_unseen() {
            self.cold.ct.get().forget_windows();
        } else {
            self.cold
                .ct
                .get()
                .judge(&self.progress(), control.liberal, rst);
        }
        for entry in &self.entries {
            entry.set_flag(flag::ASKED, true);
        }
    }

    /// A packet of direction `dir` has passed the ruleset, whose last byte is the one before `end`. It
    /// may be one that the hook has not seen: from a device whose ingress is redirected, a fragment,
    /// with IP options.
    pub(crate) fn went_by(&self, dir: Direction, end: u32, ack: Option<u32>, flags: u8) {
        let entry = &self.entries[dir as usize];

        if flags & tcp::RST == 0 && !entry.sent.note(end, entry.reach) {
            // Noted, or remembered as astray.
            let _ = out_of_reach(entry, end, ack);
        }
        if flags & (tcp::FIN | tcp::RST) != 0 {
            self.settle();
        }
    }

    /// A packet has come since conntrack was asked: learns its verdict, unless that may be under way.
    #[cold]
    pub(crate) fn learn_later(&self, now: u32) {
        if self.cold.tcp.asked.load(Ordering::Relaxed) != now {
            self.learn();
        }
    }

    /// Has conntrack judged what it was asked, now that a packet has passed the ruleset?
    pub(crate) fn learn(&self) {
        if self.entries[0].has_flag(flag::ASKED) {
            self.settle();
        }
    }

    /// Follows conntrack's state.
    fn settle(&self) {
        let ct = self.cold.ct.get();

        self.cold.kill(match ct.tcp_state() {
            // Half closed, maybe: data goes on in the other direction.
            ct::TCP_ESTABLISHED | ct::TCP_FIN_WAIT | ct::TCP_CLOSE_WAIT => {
                for (entry, end) in self.entries.iter().zip(ct.judged()) {
                    // A FIN takes a number.
                    if after(end, entry.sent.end()) {
                        entry.sent.set(end);
                    }
                    entry.set_flag(flag::ASKED, false);
                }
                if self.cold.is_live() {
                    ct.be_liberal();
                }
                return;
            }
            ct::TCP_LAST_ACK | ct::TCP_TIME_WAIT => TeardownReason::Fin,
            ct::TCP_CLOSE => TeardownReason::Rst,
            _ => TeardownReason::SynReuse,
        });
    }

    /// What conntrack gets back when the flow is killed for this reason.
    pub(crate) fn windows(&self, reason: TeardownReason) -> (Windows, bool) {
        let control = &self.cold.tcp;
        let astray = self
            .entries
            .iter()
            .zip(&control.astray)
            .any(|(entry, astray)| {
                let at = astray.load(Ordering::Relaxed);

                at != 0 && !after(entry.seen(), at)
            });
        let windows = match reason {
            // Conntrack has judged a packet by what we know, and knows more now.
            TeardownReason::Fin | TeardownReason::Rst | TeardownReason::SynReuse
                if self.entries[0].has_flag(flag::ASKED) =>
            {
                Windows::Keep
            }
            // Nothing has passed since that would prove us right.
            _ if astray || control.is_unseen() => Windows::Forget,
            _ => Windows::Known(self.progress()),
        };

        (windows, control.liberal)
    }
}

/// A packet of `entry` is out of reach: does it prove to be of the connection all the same? `ack` is
/// what it acknowledges.
///
/// # Errors
///
/// It does not, and is for conntrack.
#[cold]
pub(crate) fn out_of_reach<F: Family>(
    entry: &Entry<F>,
    end: u32,
    ack: Option<u32>,
) -> Result<(), MissReason> {
    let flow = entry.flow();
    let other = &flow.entries[entry.dir().opposite() as usize];

    if flow.cold.tcp.is_unseen() || ack.is_some_and(|ack| other.reach.holds(other.sent.end(), ack))
    {
        entry.sent.set(end);
        return Ok(());
    }
    flow.cold.tcp.astray[entry.dir() as usize].store(ffi::jiffies32() | 1, Ordering::Relaxed);
    Err(MissReason::TcpWindow)
}
