// SPDX-License-Identifier: GPL-2.0

//! What conntrack knows of TCP connections: how far they have got, and how strictly it looks at
//! their packets.

use super::{
    Ct,
    IPPROTO_TCP,
    TCP_CLOSE_WAIT,
    TCP_FIN_WAIT, //
};
use crate::ffi::c;
use nft_flow::{
    direction::Direction,
    window::{
        after,
        PeerState, //
        Window,
    }, //
};

/// `IP_CT_TCP_FLAG_*`, include/uapi/linux/netfilter/nf_conntrack_tcp.h.
pub(super) const TCP_FLAG_BE_LIBERAL: u8 = c::NFO_TCP_BE_LIBERAL;
const TCP_FLAG_MAXACK_SET: u8 = c::NFO_TCP_MAXACK_SET;
const TCP_FLAG_DATA_UNACKNOWLEDGED: u8 = c::NFO_TCP_DATA_UNACKNOWLEDGED;

/// `enum tcp_bit_set`, net/netfilter/nf_conntrack_proto_tcp.c: what the latest packet was, here a
/// segment with an ACK and nothing else.
const TCP_ACK_SET: u8 = 3;

/// What conntrack knew of a direction of a TCP connection when its flow was made.
pub(crate) struct InitialWindow {
    /// The sequence number after the last byte.
    pub(crate) end: u32,
    /// How far around it packets may be, given the receiver's window scale.
    pub(crate) window: Window,
    /// The rest.
    pub(crate) peer: PeerState,
}

/// The sequence state of a direction, as the packet path saw it.
#[derive(Clone, Copy)]
pub(crate) struct SeqState {
    /// The sequence number after the last byte.
    pub(crate) end: u32,
    /// The largest window that its sender has offered.
    pub(crate) maxwin: u32,
    /// The highest number that its sender has acknowledged.
    pub(crate) maxack: u32,
}

/// The windows of both directions.
#[derive(Clone, Copy)]
pub(crate) struct Windows {
    /// Original and reply.
    pub(crate) seq: [SeqState; 2],
    /// Nothing is in flight.
    pub(crate) quiet: bool,
}

/// What conntrack's windows become.
#[derive(Clone, Copy)]
pub(crate) enum WindowFixup {
    /// They are up to date.
    Keep,
    /// What the packet path knows.
    Set(Windows),
    /// Unknown: conntrack learns them anew from the next packet of each direction.
    Clear,
}

impl Ct {
    /// Runs `f` on the TCP state under the entry's lock.
    pub(super) fn with_tcp(self, f: impl FnOnce(&mut c::ip_ct_tcp)) {
        // SAFETY: Valid by the type invariant; the lock protects `proto`, and the entry is a TCP
        // one, which the callers check.
        unsafe {
            c::nfo_ct_lock(self.as_ptr());
            f(&mut (*self.0.as_ptr()).proto.tcp);
            c::nfo_ct_unlock(self.as_ptr());
        }
    }

    /// Has conntrack accept TCP packets whatever their sequence numbers, because it has not seen
    /// those before them. Nothing changes if the flow is dead: its teardown clears the flag, under
    /// the same lock.
    pub(crate) fn be_liberal(self, is_live: impl FnOnce() -> bool) {
        self.with_tcp(|tcp| {
            if is_live() {
                for seen in &mut tcp.seen {
                    seen.flags |= TCP_FLAG_BE_LIBERAL;
                }
            }
        });
    }

    /// How far both directions have got, and whether conntrack knows no windows (a connection that
    /// was picked up in the middle).
    pub(crate) fn initial_windows(self) -> ([InitialWindow; 2], bool) {
        let start = |[sender, receiver]: [&c::ip_ct_tcp_state; 2], liberal: bool| InitialWindow {
            // See `window_ends`; what was acknowledged is a part of the connection for certain.
            end: if after(sender.td_end, sender.td_maxend) {
                receiver.td_maxack
            } else {
                sender.td_end
            },
            window: if liberal {
                Window::UNKNOWN
            } else {
                // Zero unless both sides want to scale.
                Window::from_scale(receiver.td_scale)
            },
            peer: PeerState::new(sender.td_maxwin, sender.td_maxack, sender.td_scale),
        };
        let nothing = || InitialWindow {
            end: 0,
            window: Window::UNKNOWN,
            peer: PeerState::new(0, 0, 0),
        };
        let mut windows = ([nothing(), nothing()], false);

        if self.l4proto() == IPPROTO_TCP {
            self.with_tcp(|tcp| {
                let [a, b] = &tcp.seen;
                let liberal = (a.flags | b.flags) & TCP_FLAG_BE_LIBERAL != 0;

                windows = ([start([a, b], liberal), start([b, a], liberal)], liberal);
            });
        }
        windows
    }

    /// Sets conntrack's windows before conntrack sees a packet that opens or closes the connection,
    /// and has conntrack check that packet as strictly as it would without a flowtable. `stale`:
    /// packets have passed since it last judged one.
    pub(crate) fn sync_windows(self, windows: &Windows, liberal: bool, stale: bool) {
        self.with_tcp(|tcp| {
            Self::set_windows(tcp, windows, liberal);
            if stale {
                Self::reset_last_segment(tcp, windows);
            }
        });
    }

    /// Sets the windows to where the connection is now.
    pub(super) fn set_windows(tcp: &mut c::ip_ct_tcp, windows: &Windows, liberal: bool) {
        let [a, b] = windows.seq;
        let [orig, reply] = &mut tcp.seen;

        for (seen, [this, other]) in [(orig, [a, b]), (reply, [b, a])] {
            seen.td_end = this.end;
            seen.td_maxend = this.end.wrapping_add(other.maxwin);
            seen.td_maxwin = this.maxwin;
            seen.td_maxack = this.maxack;
            seen.flags |= TCP_FLAG_MAXACK_SET;
            if !liberal {
                seen.flags &= !TCP_FLAG_BE_LIBERAL;
            }
            if windows.quiet {
                seen.flags &= !TCP_FLAG_DATA_UNACKNOWLEDGED;
            }
        }
    }

    /// Makes conntrack take the last segment for one with an ACK, because packets have passed since
    /// that it has not seen. If it was a SYN, which it ignores, it would take the next RST or SYN
    /// with ACK for the answer.
    pub(super) fn reset_last_segment(tcp: &mut c::ip_ct_tcp, windows: &Windows) {
        if tcp.last_index != TCP_ACK_SET {
            tcp.last_index = TCP_ACK_SET;
            tcp.last_end = windows.seq[usize::from(tcp.last_dir & 1)].end;
            tcp.last_win = tcp.last_win.max(1);
            tcp.retrans = 0;
        }
    }

    /// Clears conntrack's windows before it sees a packet that opens or closes a connection whose
    /// windows are stale. `rst`: the packet is a RST of this direction, with this sequence number.
    /// It may be anybody's, so that conntrack must not close the connection, but see whether it
    /// goes on.
    pub(crate) fn sync_stale_windows(self, rst: Option<(Direction, u32)>) {
        self.with_tcp(|tcp| {
            Self::clear_windows(tcp);
            if let Some((dir, seq)) = rst {
                let other = &mut tcp.seen[dir.opposite() as usize];

                // Neither below what was acknowledged, nor the number that was, nor at the end of
                // what its sender has just sent.
                other.td_maxack = seq.wrapping_sub(1);
                other.flags |= TCP_FLAG_MAXACK_SET;
                tcp.last_index = TCP_ACK_SET;
                tcp.last_dir = dir.opposite() as u8;
            }
        });
    }

    pub(super) fn clear_windows(tcp: &mut c::ip_ct_tcp) {
        for seen in &mut tcp.seen {
            seen.td_maxwin = 0;
            seen.flags &= !TCP_FLAG_MAXACK_SET;
        }
    }

    /// Returns the window ends of both directions, as conntrack has them. Of what overshoots the
    /// window, conntrack notes the end, but does not take it for a part of the connection.
    pub(crate) fn window_ends(self) -> [Option<u32>; 2] {
        let mut ends = [None; 2];

        self.with_tcp(|tcp| {
            ends = tcp
                .seen
                .each_ref()
                .map(|seen| Some(seen.td_end).filter(|end| !after(*end, seen.td_maxend)));
        });
        ends
    }

    /// One side has sent a FIN, and a packet has passed since that conntrack did not see. The state
    /// becomes what it would have made it.
    pub(crate) fn advance_close(self) {
        let mut changed = false;

        self.with_tcp(|tcp| {
            if tcp.state == TCP_FIN_WAIT {
                tcp.state = TCP_CLOSE_WAIT;
                changed = true;
            }
        });
        if changed {
            // SAFETY: Valid by the type invariant.
            unsafe { c::nfo_ct_event(self.as_ptr(), c::ip_conntrack_events_IPCT_PROTOINFO) };
        }
    }
}
