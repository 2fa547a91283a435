// SPDX-License-Identifier: GPL-2.0

//! Connection tracking: what is done to an entry when its flow is offloaded, and when it is torn
//! down.
//!
//! While a flow is offloaded conntrack does not see its packets. So that the entry neither expires
//! nor judges later packets by outdated windows, its timeout is kept long, window checks are
//! relaxed, and on the way back state, windows and timeout are made what they would have been. What
//! conntrack does see is told it in time, see [`crate::flow::tcp`]; what it would have made of
//! packets that it does not see is made up for by the worker.
//!
//! C headers: [`include/net/netfilter/nf_conntrack.h`](srctree/include/net/netfilter/nf_conntrack.h),
//! [`include/uapi/linux/netfilter/nf_conntrack_tcp.h`](srctree/include/uapi/linux/netfilter/nf_conntrack_tcp.h)

mod show;
mod tcp;

use crate::ffi::{
    self,
    c,
    skb::Skb,
    HZ, //
};
use core::{
    ptr::NonNull,
    sync::atomic::{
        AtomicI64,
        AtomicU32,
        Ordering, //
    }, //
};
use nft_flow::{
    deadline,
    direction::Direction, //
    key::L4Proto,
};

use tcp::TCP_FLAG_BE_LIBERAL;
pub(crate) use tcp::{
    InitialWindow,
    SeqState,
    WindowFixup, //
    Windows,
};

const IPPROTO_TCP: u8 = L4Proto::Tcp.number();
const IPPROTO_UDP: u8 = L4Proto::Udp.number();
const IPPROTO_GRE: u8 = L4Proto::Gre.number();
const IPPROTO_SCTP: u8 = L4Proto::Sctp.number();

/// Low bits of `skb->_nfct` hold the packet's relation to the connection, the rest the entry
/// (`NFCT_INFOMASK`, include/linux/skbuff.h).
const NFCT_INFOMASK: usize = c::NFO_NFCT_INFOMASK;
/// `IP_CT_IS_REPLY`: relations from here on belong to the reply direction.
const IP_CT_IS_REPLY: usize = c::ip_conntrack_info_IP_CT_IS_REPLY as usize;
/// `IP_CT_RELATED`: the packet is an error about the connection, or the first one of a connection
/// that was expected.
const IP_CT_RELATED: usize = c::ip_conntrack_info_IP_CT_RELATED as usize;

/// What [`Ct::fixup`] makes of an entry.
pub(crate) struct Fixup {
    /// Jiffies since the last packet, if the timeout is to have run since then.
    pub(crate) idle: u32,
    /// `jiffies` of the last packet that the fast path saw.
    pub(crate) seen: u32,
    /// Of TCP.
    pub(crate) windows: WindowFixup,
    /// Of TCP: its windows were not checked before the flow was made.
    pub(crate) liberal: bool,
    /// Of TCP: conntrack has seen the last packet, and may have given the entry a short timeout.
    pub(crate) ct_saw_last: bool,
}

/// Timeout of an offloaded entry: longer than any pause between two checks.
const DAY: u32 = 86400 * HZ;
/// Below this rest the timeout is extended.
const MIN_TIMEOUT: i32 = (5 * 60 * HZ) as i32;

pub(crate) const TCP_ESTABLISHED: u8 = c::tcp_conntrack_TCP_CONNTRACK_ESTABLISHED as u8;
pub(crate) const TCP_TIME_WAIT: u8 = c::tcp_conntrack_TCP_CONNTRACK_TIME_WAIT as u8;
pub(crate) const TCP_FIN_WAIT: u8 = c::tcp_conntrack_TCP_CONNTRACK_FIN_WAIT as u8;
pub(crate) const TCP_CLOSE_WAIT: u8 = c::tcp_conntrack_TCP_CONNTRACK_CLOSE_WAIT as u8;
pub(crate) const TCP_LAST_ACK: u8 = c::tcp_conntrack_TCP_CONNTRACK_LAST_ACK as u8;
pub(crate) const TCP_CLOSE: u8 = c::tcp_conntrack_TCP_CONNTRACK_CLOSE as u8;
/// Not a state, but which timeout a connection gets that is in doubt.
const TCP_UNACK: u32 = c::tcp_conntrack_TCP_CONNTRACK_UNACK;

/// `enum udp_conntrack`, and `enum gre_conntrack` has the same.
const UNREPLIED: u32 = c::udp_conntrack_UDP_CT_UNREPLIED;
const REPLIED: u32 = c::udp_conntrack_UDP_CT_REPLIED;

const SCTP_ESTABLISHED: u32 = c::sctp_conntrack_SCTP_CONNTRACK_ESTABLISHED;

const IPS_EXPECTED: usize = c::ip_conntrack_status_IPS_EXPECTED as usize;
const IPS_SEEN_REPLY: usize = c::ip_conntrack_status_IPS_SEEN_REPLY as usize;
const IPS_ASSURED: usize = c::ip_conntrack_status_IPS_ASSURED as usize;
const IPS_CONFIRMED: usize = c::ip_conntrack_status_IPS_CONFIRMED as usize;
const IPS_DYING: usize = c::ip_conntrack_status_IPS_DYING as usize;
const IPS_SEQ_ADJUST: usize = c::ip_conntrack_status_IPS_SEQ_ADJUST as usize;
const IPS_NAT_CLASH: usize = c::ip_conntrack_status_IPS_NAT_CLASH as usize;
const IPS_FIXED_TIMEOUT: usize = c::ip_conntrack_status_IPS_FIXED_TIMEOUT as usize;
const IPS_OFFLOAD: usize = c::ip_conntrack_status_IPS_OFFLOAD as usize;
const IPS_HW_OFFLOAD: usize = c::ip_conntrack_status_IPS_HW_OFFLOAD as usize;

/// A conntrack entry that is kept alive by somebody: a packet, or a flow's reference.
///
/// # Invariants
///
/// The pointer is a valid `nf_conn` for as long as the value is used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ct(NonNull<c::nf_conn>);

impl Ct {
    /// The entry of a packet and the direction that the packet travels in.
    ///
    /// # Safety
    ///
    /// `skb` must be valid; the result lives as long as the packet keeps its entry.
    pub(crate) unsafe fn of_skb(skb: *const c::sk_buff) -> Option<(Self, Direction)> {
        // SAFETY: The caller vouches for the packet.
        let nfct = unsafe { (*skb)._nfct };
        let ct = NonNull::new((nfct & !NFCT_INFOMASK) as *mut c::nf_conn)?;
        let dir = if nfct & NFCT_INFOMASK >= IP_CT_IS_REPLY {
            Direction::Reply
        } else {
            Direction::Original
        };

        // INVARIANT: The packet holds a reference.
        Some((Self(ct), dir))
    }

    /// Whether this packet of protocol `proto` is an ICMP error about the connection whose entry it
    /// has, and not a packet of that connection.
    ///
    /// # Safety
    ///
    /// `skb` must be valid.
    pub(crate) unsafe fn is_error(skb: *const c::sk_buff, proto: u8) -> bool {
        const ICMP: u8 = L4Proto::Icmp.number();
        const ICMPV6: u8 = L4Proto::Icmpv6.number();
        // SAFETY: The caller vouches for the packet.
        let relation = unsafe { (*skb)._nfct } & NFCT_INFOMASK;

        matches!(proto, ICMP | ICMPV6) && relation % IP_CT_IS_REPLY == IP_CT_RELATED
    }

    /// Gives a packet, which travels in direction `dir`, the entry with a reference; false if the
    /// packet has an entry already.
    pub(crate) fn attach(self, skb: Skb, dir: Direction) -> bool {
        // SAFETY: By the invariants of both types.
        unsafe { c::nfo_skb_set_ct(skb.as_ptr(), self.as_ptr(), dir == Direction::Reply) }
    }

    pub(crate) fn as_ptr(self) -> *mut c::nf_conn {
        self.0.as_ptr()
    }

    #[inline(always)]
    fn status(self) -> usize {
        // SAFETY: Valid by the type invariant; C changes the word with atomic bit operations.
        unsafe { ffi::bit_word(&raw mut (*self.0.as_ptr()).status) }.load(Ordering::Relaxed)
    }

    /// Whether the entry is dying (`conntrack -D`, expiry, namespace exit).
    #[inline(always)]
    pub(crate) fn is_dying(self) -> bool {
        self.status() & IPS_DYING != 0
    }

    pub(crate) fn is_confirmed(self) -> bool {
        self.status() & IPS_CONFIRMED != 0
    }

    pub(crate) fn has_seq_adjust(self) -> bool {
        self.status() & IPS_SEQ_ADJUST != 0
    }

    pub(crate) fn has_nat_clash(self) -> bool {
        self.status() & IPS_NAT_CLASH != 0
    }

    pub(crate) fn has_helper(self) -> bool {
        // SAFETY: Valid by the type invariant.
        unsafe { c::nfo_ct_helper(self.as_ptr()) }
    }

    /// Whether there has been a packet of the reply direction (`IPS_SEEN_REPLY`).
    pub(crate) fn is_answered(self) -> bool {
        self.status() & IPS_SEEN_REPLY != 0
    }

    /// Whether a helper expected the connection (`IPS_EXPECTED`).
    pub(crate) fn is_expected(self) -> bool {
        self.status() & IPS_EXPECTED != 0
    }

    /// Whether the entry is in a flowtable (`IPS_OFFLOAD`), ours or another one.
    pub(crate) fn is_offloaded(self) -> bool {
        self.status() & IPS_OFFLOAD != 0
    }

    /// Claims the entry for a flowtable; false if it has been claimed already.
    pub(crate) fn claim(self) -> bool {
        // SAFETY: As in `status`.
        let word = unsafe { ffi::bit_word(&raw mut (*self.0.as_ptr()).status) };

        word.fetch_or(IPS_OFFLOAD, Ordering::AcqRel) & IPS_OFFLOAD == 0
    }

    /// Ends a claim. Only for the one who made it.
    pub(crate) fn release_claim(self) {
        // SAFETY: As in `status`.
        let word = unsafe { ffi::bit_word(&raw mut (*self.0.as_ptr()).status) };

        word.fetch_and(!IPS_OFFLOAD, Ordering::AcqRel);
    }

    /// Shows whether hardware forwards both directions. Only for the one who made the claim.
    pub(crate) fn set_hardware(self, on: bool) {
        // SAFETY: As in `status`.
        let word = unsafe { ffi::bit_word(&raw mut (*self.0.as_ptr()).status) };

        match on {
            true => word.fetch_or(IPS_HW_OFFLOAD, Ordering::SeqCst),
            false => word.fetch_and(!IPS_HW_OFFLOAD, Ordering::SeqCst),
        };
    }

    /// The tuple as packets of one direction show it.
    pub(crate) fn tuple<'a>(self, dir: Direction) -> &'a c::nf_conntrack_tuple {
        // SAFETY: Valid by the type invariant; the tuples of a confirmed entry do not change.
        unsafe { &(*self.0.as_ptr()).tuplehash[dir as usize].tuple }
    }

    /// Source and destination address of packets of one direction.
    pub(crate) fn addresses(self, dir: Direction) -> [[u32; 4]; 2] {
        let tuple = self.tuple(dir);

        // SAFETY: All members of these unions are integers of 16 bytes together, which conntrack
        // has zeroed.
        unsafe { [tuple.src.u3.all, tuple.dst.u3.all] }
    }

    pub(crate) fn l4proto(self) -> u8 {
        self.tuple(Direction::Original).dst.protonum
    }

    /// `enum tcp_conntrack`; of a TCP entry.
    pub(crate) fn tcp_state(self) -> u8 {
        // SAFETY: Valid by the type invariant; one byte, read without the lock as C does.
        unsafe { (&raw const (*self.0.as_ptr()).proto.tcp.state).read_volatile() }
    }

    /// Established in both directions (`nf_conntrack_tcp_established()`).
    pub(crate) fn is_tcp_established(self) -> bool {
        self.tcp_state() == TCP_ESTABLISHED && self.status() & IPS_ASSURED != 0
    }

    fn sctp_state(self) -> u32 {
        // SAFETY: Valid by the type invariant; one word, read without the lock.
        unsafe { (&raw const (*self.0.as_ptr()).proto.sctp.state).read_volatile() }
    }

    /// Whether the SCTP association is established.
    pub(crate) fn is_sctp_established(self) -> bool {
        self.sctp_state() == SCTP_ESTABLISHED && self.status() & IPS_ASSURED != 0
    }

    /// Whether the first packet was an ICMP echo request.
    pub(crate) fn is_echo(self) -> bool {
        /// Type and code of an ICMP and of an ICMPv6 echo request.
        const ECHO: [[u8; 2]; 2] = [[8, 0], [128, 0]];

        // SAFETY: Type and code of an ICMP tuple; all members are plain integers.
        let kind = unsafe { self.tuple(Direction::Original).dst.u.all };
        ECHO.contains(&kind.to_ne_bytes())
    }

    /// Closed, or about to be, in conntrack's eyes: nothing more to forward fast. A TCP connection
    /// that is closed by one side may go on for long, an SCTP association does not.
    pub(crate) fn is_closed(self) -> bool {
        match self.l4proto() {
            IPPROTO_TCP => matches!(self.tcp_state(), TCP_CLOSE | TCP_TIME_WAIT),
            IPPROTO_SCTP => self.sctp_state() != SCTP_ESTABLISHED,
            _ => false,
        }
    }

    /// Prepares the entry for its flow, which is in the table now: conntrack will not see all
    /// packets.
    pub(crate) fn offload_begin(self) {
        if self.l4proto() == IPPROTO_TCP {
            self.be_liberal(|| true);
        }
        // SAFETY: Valid by the type invariant.
        unsafe { c::nfo_ct_refresh(self.as_ptr(), DAY) };
    }

    /// Whether the connection is a stream, given when the fast path saw the last packet (`seen`)
    /// and when the flow was made (`since`). Conntrack calls UDP a stream if it goes on for more
    /// than two seconds, and GRE at once (`nf_conntrack_udp_packet()`,
    /// `nf_conntrack_gre_packet()`).
    fn is_stream(self, seen: u32, since: u32) -> bool {
        let status = self.status();

        if status & IPS_SEEN_REPLY == 0 || status & IPS_NAT_CLASH != 0 {
            return false;
        }
        let after = match self.l4proto() {
            // SAFETY: Valid by the type invariant, and an entry of UDP, which sets it once.
            IPPROTO_UDP => unsafe { (*self.0.as_ptr()).proto.udp.stream_ts as u32 },
            IPPROTO_GRE => since,
            _ => return false,
        };
        seen.wrapping_sub(after) as i32 > 0
    }

    /// Marks the entry of a live flow as assured if conntrack would have, by packets that it did
    /// not see. An entry without the mark is the first to go when the table is full.
    pub(crate) fn assure(self, seen: u32, since: u32) {
        if self.status() & IPS_ASSURED != 0 || !self.is_stream(seen, since) {
            return;
        }
        // SAFETY: As in `status`.
        let word = unsafe { ffi::bit_word(&raw mut (*self.0.as_ptr()).status) };

        if word.fetch_or(IPS_ASSURED, Ordering::AcqRel) & IPS_ASSURED == 0 {
            // SAFETY: Valid by the type invariant.
            unsafe { c::nfo_ct_event(self.as_ptr(), c::ip_conntrack_events_IPCT_ASSURED) };
        }
    }

    /// Gives the entry of a flow that is dead, or was never published, back to conntrack
    /// (`flow_offload_fixup_ct()`).
    pub(crate) fn fixup(self, how: &Fixup) {
        let liberal = how.liberal;
        let state = match self.l4proto() {
            IPPROTO_TCP => {
                self.with_tcp(|tcp| {
                    match &how.windows {
                        WindowFixup::Set(windows) => {
                            Self::set_windows(tcp, windows, liberal);
                            if !how.ct_saw_last {
                                Self::reset_last_segment(tcp, windows);
                            }
                        }
                        WindowFixup::Keep => (),
                        WindowFixup::Clear => Self::clear_windows(tcp),
                    }
                    for seen in &mut tcp.seen {
                        if !liberal {
                            seen.flags &= !TCP_FLAG_BE_LIBERAL;
                        }
                    }
                });
                u32::from(self.tcp_state())
            }
            IPPROTO_SCTP => self.sctp_state(),
            IPPROTO_UDP
                if self.status() & IPS_SEEN_REPLY != 0
                    && self.status() & IPS_ASSURED == 0
                    && !self.is_stream(how.seen.wrapping_add(HZ / 2), 0) =>
            {
                UNREPLIED
            }
            // UDP and GRE; the others have one state.
            _ if self.status() & IPS_SEEN_REPLY != 0 => REPLIED,
            _ => UNREPLIED,
        };

        deadline::settle();
        if self.is_dying() {
            return;
        }
        // SAFETY: Valid by the type invariant.
        unsafe {
            let timeout = c::nfo_ct_timeout(self.as_ptr(), state);

            if how.ct_saw_last
                && timeout > c::nfo_ct_timeout(self.as_ptr(), TCP_UNACK)
                && self.rest() <= c::nfo_ct_timeout(self.as_ptr(), TCP_UNACK) as i32
            {
                return;
            }
            c::nfo_ct_refresh(self.as_ptr(), timeout.saturating_sub(how.idle));
        }
    }

    fn timeout<'a>(self) -> &'a AtomicU32 {
        // SAFETY: Valid by the type invariant; C accesses the word atomically.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.0.as_ptr()).timeout) }
    }

    /// Jiffies until the entry expires.
    fn rest(self) -> i32 {
        self.timeout()
            .load(Ordering::Relaxed)
            .wrapping_sub(ffi::jiffies32()) as i32
    }

    /// Keeps the entry of a live flow from expiring. To be called every few minutes at least.
    pub(crate) fn extend(self, is_live: impl FnOnce() -> bool) {
        let timeout = self.timeout();
        let now = ffi::jiffies32();
        let old = timeout.load(Ordering::Relaxed);
        let rest = old.wrapping_sub(now) as i32;

        if rest <= 0 || rest >= MIN_TIMEOUT || self.status() & IPS_FIXED_TIMEOUT != 0 {
            return;
        }
        let new = match self.l4proto() {
            IPPROTO_TCP => match self.tcp_state() {
                TCP_ESTABLISHED => DAY,
                TCP_ESTABLISHED..=TCP_TIME_WAIT => MIN_TIMEOUT as u32,
                _ => return,
            },
            IPPROTO_SCTP if self.sctp_state() != SCTP_ESTABLISHED => return,
            _ => DAY,
        };
        deadline::extend(timeout, old, now.wrapping_add(new), is_live);
    }

    /// The ports of the original direction, in one word: no two entries at one address have the
    /// same soon.
    pub(crate) fn ports(self) -> u32 {
        let tuple = self.tuple(Direction::Original);
        // SAFETY: All members of these unions are integers of two bytes together.
        let (src, dst) = unsafe { (tuple.src.u.all, tuple.dst.u.all) };

        u32::from(src) << 16 | u32::from(dst)
    }

    /// Mark and labels, in one word that changes with them.
    pub(crate) fn marks(self) -> u32 {
        // SAFETY: Valid by the type invariant.
        unsafe { c::nfo_ct_marks(self.as_ptr()) }
    }

    /// The mark, if this kernel has them.
    pub(crate) fn mark(self) -> Option<u32> {
        let mut mark = 0;

        // SAFETY: Valid by the type invariant.
        unsafe { c::nfo_ct_mark(self.as_ptr(), &mut mark) }.then_some(mark)
    }

    /// The packet and byte counters of both directions, if this entry counts.
    pub(crate) fn counters(self) -> Option<Counters> {
        // SAFETY: Valid by the type invariant.
        // INVARIANT: A confirmed entry's extensions do not move.
        NonNull::new(unsafe { c::nfo_ct_counters(self.as_ptr()) }).map(Counters)
    }
}

/// Conntrack's own counters of an entry.
///
/// # Invariants
///
/// The pointer is to two valid counters, one per direction, for as long as the value is used: the
/// extension of a confirmed entry neither moves nor goes before the entry. C changes them
/// atomically as well.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Counters(NonNull<c::nf_conn_counter>);

// SAFETY: The counters are atomic.
unsafe impl Send for Counters {}
// SAFETY: As above.
unsafe impl Sync for Counters {}

impl Counters {
    /// Packets and bytes of a direction.
    #[inline(always)]
    fn of<'a>(self, dir: Direction) -> (&'a AtomicI64, &'a AtomicI64) {
        // SAFETY: By the type invariant.
        unsafe {
            let counter = self.0.as_ptr().add(dir as usize);

            (
                AtomicI64::from_ptr((&raw mut (*counter).packets.counter).cast()),
                AtomicI64::from_ptr((&raw mut (*counter).bytes.counter).cast()),
            )
        }
    }

    /// Adds packets and bytes of a direction, as `nf_ct_acct_add()` does.
    #[inline(always)]
    pub(crate) fn add(self, dir: Direction, packets: u64, bytes: u64) {
        let counters = self.of(dir);

        counters.0.fetch_add(packets as i64, Ordering::Relaxed);
        counters.1.fetch_add(bytes as i64, Ordering::Relaxed);
    }

    /// Returns the packets and bytes of a direction.
    pub(crate) fn get(self, dir: Direction) -> (u64, u64) {
        let counters = self.of(dir);

        (
            counters.0.load(Ordering::Relaxed) as u64,
            counters.1.load(Ordering::Relaxed) as u64,
        )
    }
}

/// A counted reference to a conntrack entry.
pub(crate) struct CtRef(Ct);

impl CtRef {
    /// The entry that conntrack is about to find for a packet, and the direction that it travels
    /// in.
    ///
    /// # Safety
    ///
    /// The packet is in the hook PRE_ROUTING, with this state, before conntrack and after fragments
    /// were put together.
    pub(crate) unsafe fn ahead(
        skb: *const c::sk_buff,
        state: *const c::nf_hook_state,
    ) -> Option<(Self, Direction)> {
        let mut dir = 0;
        // SAFETY: The caller vouches for the packet.
        let ct = NonNull::new(unsafe { c::nfo_ct_ahead(skb, state, &mut dir) })?;

        // INVARIANT: With a reference.
        Some((
            Self(Ct(ct)),
            match dir {
                0 => Direction::Original,
                _ => Direction::Reply,
            },
        ))
    }

    /// Takes a reference to an entry that somebody else keeps alive now.
    pub(crate) fn new(ct: Ct) -> Self {
        // SAFETY: Valid by the type invariant of `Ct`, hence its count is not zero.
        unsafe { c::nfo_ct_get(ct.as_ptr()) };
        Self(ct)
    }

    /// The entry.
    #[inline(always)]
    pub(crate) fn get(&self) -> Ct {
        self.0
    }
}

impl Drop for CtRef {
    fn drop(&mut self) {
        // SAFETY: The reference that `new` took is given back.
        unsafe { c::nfo_ct_put(self.0.as_ptr()) };
    }
}
