// SPDX-License-Identifier: GPL-2.0

//! The part of a flow that packets do not touch unless they are counted: what worker, notifiers and
//! the ruleset do with a flow.

use crate::{
    ffi::{
        self,
        c,
        skb, //
    },
    flow::{
        entry::Entry,
        hw_state::Hw,
        ingress_path::Shape,
        object::{
            Flow,
            Visitor, //
        },
        path_check,
        qos::{
            self,
            has,
            Looks,
            Probe,
            Qos, //
        },
        table_ref::TableRef,
        tcp, //
    },
    net::{
        ct::{
            Ct,
            CtRef,
            HandBack, //
        },
        family::{
            Family,
            V6, //
        },
        forward_path::{
            self,
            Known, //
        }, //
    },
    stats, //
};
use core::{
    mem::{
        offset_of,
        ManuallyDrop, //
    },
    ptr::{
        self,
        NonNull, //
    },
    slice,
    sync::atomic::{
        fence,
        AtomicBool,
        AtomicU32,
        Ordering, //
    }, //
};
use kernel::sync::rcu;
use nft_flow::{
    age::Link,
    key::{
        AddrKey,
        Key,
        L4Proto, //
    },
    llist,
    parse::tcp as tcp_flags,
    reason::TeardownReason,
    state::{
        Direction,
        State, //
    },
    table::Item,
    window::{
        after,
        Segment, //
    }, //
};

/// The cold part of a flow.
///
/// # Invariants
///
/// It is the last part of a [`Flow`] of family `nfproto`.
#[repr(C)]
pub(crate) struct Cold {
    /// In the flowtable's wheel; used under its lock.
    pub(crate) link: Link,
    /// In the flowtable's list of dead flows.
    pub(crate) dead: llist::Node,
    pub(crate) state: State,
    pub(crate) proto: L4Proto,
    pub(super) nfproto: u8,
    pub(crate) ct: ManuallyDrop<CtRef>,
    pub(crate) tcp: tcp::Control,
    /// `jiffies` when the flow was made.
    since: u32,
    /// Conntrack's counters of both directions, null if it keeps none.
    pub(crate) acct: *mut c::nf_conn_counter,
    /// What becomes of packets of each direction in the ruleset.
    pub(crate) qos: [Qos; 2],
    /// A packet of each direction with IPv6 destination options has come to the rule that adds the
    /// flow.
    pub(crate) options: [AtomicBool; 2],
    /// When a packet of each direction last took the slow path, in `jiffies`.
    refreshed: [AtomicU32; 2],
    /// `jiffies` (never 0) when a packet of each direction was first sent to a ruleset that has not
    /// agreed yet.
    bounced: [AtomicU32; 2],
    /// The ruleset in which a packet of either direction that was sent there last came to the rule that
    /// adds the flow.
    kept: AtomicU32,
    /// `jiffies` when the flow was last asked, see [`Cold::doubt`].
    asked: AtomicU32,
    key: AddrKey,
    hash: u32,
    /// Of the keys of both directions.
    pub(crate) hashes: [u32; 2],
    /// What packets of each direction come in with; uses that are ended under the flowtable's lock.
    pub(crate) shapes: [Option<NonNull<Shape>>; 2],
    /// The devices that packets of each direction enter the stack by, as routing sees it.
    pub(crate) entered: [u32; 2],
    /// Who sends them, by the frame's address; zeroes if that is not known.
    senders: [[u8; 6]; 2],
    /// `jiffies` when [`Cold::revisit`] last looked at all devices that packets of each direction pass, and
    /// when it last found that they come in where they cannot be picked up.
    looked: [AtomicU32; 2],
    lost: [AtomicU32; 2],
    table: NonNull<TableRef>,
    /// Where the flow stands with hardware.
    pub(crate) hw: Hw,
    rcu: c::callback_head,
}

// SAFETY: Key and hash do not change.
unsafe impl Item for Cold {
    type Key = AddrKey;

    fn key(&self) -> &AddrKey {
        &self.key
    }

    fn hash(&self) -> u32 {
        self.hash
    }
}

// SAFETY: The pointers are to what the flow holds references to; what changes is atomic or
// protected by the flowtable's lock.
unsafe impl Send for Cold {}
// SAFETY: As above.
unsafe impl Sync for Cold {}

impl Cold {
    /// The cold part of a new flow with these entries, which are in no table yet. Takes the uses of the
    /// shapes over. `entered`: by which device packets of each direction enter the stack, and who sends
    /// them.
    pub(crate) fn new<F: Family>(
        ct: Ct,
        proto: L4Proto,
        entries: &[Entry<F>; 2],
        tcp: tcp::Control,
        shapes: [Option<NonNull<Shape>>; 2],
        entered: [(u32, [u8; 6]); 2],
        table: &TableRef,
    ) -> Self {
        let now = ffi::jiffies32();
        let key = AddrKey::new(ct.as_ptr() as usize);

        Self {
            link: Link::new(),
            dead: llist::Node::new(),
            state: State::new(),
            proto,
            nfproto: F::NFPROTO,
            ct: ManuallyDrop::new(CtRef::new(ct)),
            tcp,
            since: now,
            acct: ct.counters(),
            qos: Default::default(),
            options: Default::default(),
            refreshed: [AtomicU32::new(now), AtomicU32::new(now)],
            bounced: Default::default(),
            // The ruleset may have changed since the rule was come to.
            kept: AtomicU32::new(qos::NO_RULESET),
            asked: AtomicU32::new(now),
            hash: key.hash(&table.seed),
            hashes: entries.each_ref().map(|entry| entry.key.hash(&table.seed)),
            key,
            shapes,
            entered: entered.map(|(ifindex, _)| ifindex),
            senders: entered.map(|(_, sender)| sender),
            looked: [AtomicU32::new(now), AtomicU32::new(now)],
            lost: [0; 2].map(|_| AtomicU32::new(now.wrapping_sub(forward_path::QUIET))),
            table: table.into(),
            hw: Hw::new(now),
            rcu: c::callback_head {
                next: ptr::null_mut(),
                func: None,
            },
        }
    }

    /// The cold part that a wheel link belongs to.
    ///
    /// # Safety
    ///
    /// `link` must be the `link` of a [`Cold`].
    pub(crate) unsafe fn from_link(link: NonNull<Link>) -> NonNull<Self> {
        // SAFETY: The caller vouches for it.
        unsafe { link.byte_sub(offset_of!(Self, link)).cast() }
    }

    /// The cold part that a node of a list of dead flows belongs to.
    ///
    /// # Safety
    ///
    /// `node` must be the `dead` of a [`Cold`].
    pub(crate) unsafe fn from_dead(node: NonNull<llist::Node>) -> NonNull<Self> {
        // SAFETY: The caller vouches for it.
        unsafe { node.byte_sub(offset_of!(Self, dead)).cast() }
    }

    /// The cold part that a node of a queue to hardware belongs to.
    ///
    /// # Safety
    ///
    /// `node` must be the `hw.node` of a [`Cold`].
    pub(crate) unsafe fn from_queue(node: NonNull<llist::Node>) -> NonNull<Self> {
        // SAFETY: The caller vouches for it.
        unsafe { node.byte_sub(offset_of!(Self, hw.node)).cast() }
    }

    /// Is it time for a packet of direction `dir` to take the slow path?
    pub(crate) fn refresh_due(&self, dir: Direction, now: u32) -> bool {
        const INTERVAL: u32 = 15 * ffi::HZ;

        now.wrapping_sub(self.refreshed[dir as usize].load(Ordering::Relaxed)) > INTERVAL
    }

    /// [`Cold::refresh_due`], and notes that it does.
    #[inline(never)]
    pub(crate) fn refresh(&self, dir: Direction, now: u32) -> bool {
        let due = self.refresh_due(dir, now);

        if due {
            self.refreshed[dir as usize].store(now, Ordering::Relaxed);
            self.expect(dir, now);
        }
        due
    }

    /// A packet of direction `dir` is on its way through the ruleset. If it does not pass,
    /// [`Cold::is_disowned`].
    fn expect(&self, dir: Direction, now: u32) {
        let _ = self.bounced[dir as usize].compare_exchange(
            0,
            now | 1,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    /// Is it a flow of IPv6?
    pub(crate) fn is_v6(&self) -> bool {
        self.nfproto == V6::NFPROTO
    }

    /// A packet of direction `dir` and of `len` bytes was picked up at the device `ifindex`: see
    /// [`Shape::count_rx`]. Called by the hook.
    #[inline(always)]
    pub(crate) fn count_rx(&self, dir: Direction, ifindex: u32, len: u32) {
        if let Some(shape) = self.shapes[dir as usize] {
            // SAFETY: The hook is an RCU read-side section; the flow uses the shape, which is freed
            // after a grace period, and its devices are in the flowtable's namespace.
            unsafe { shape.as_ref().count_rx(|| self.table().net(), ifindex, len) };
        }
    }

    /// Has the flow not been taken down?
    pub(crate) fn is_live(&self) -> bool {
        self.state.is_live()
    }

    /// A packet of direction `dir` goes to a ruleset that has not seen one yet.
    pub(crate) fn bounce(&self, dir: Direction, probe: &Probe) {
        self.qos[dir as usize].sent(probe);
        self.expect(dir, ffi::jiffies32());
    }

    /// The packet that has added the flow is the first of direction `dir` that passes the ruleset, if the
    /// ingress hook has noted what it came in with.
    ///
    /// # Safety
    ///
    /// `pkt` is in the forward hook.
    pub(crate) unsafe fn added_by(&self, dir: Direction, pkt: &c::nft_pktinfo) {
        let generation = self.table().generation();
        // SAFETY: A packet in the forward hook has its network header.
        let print = unsafe { c::nfo_skb_print(pkt.skb, 0, pkt.thoff.into(), pkt.tprot) };

        if let Some(mut probe) = Probe::noted(print).filter(|p| p.generation == generation) {
            probe.has |= has::MET;
            self.bounce(dir, &probe);
            self.kept.store(generation, Ordering::Relaxed);
        }
    }

    /// The ruleset has to be asked again.
    pub(crate) fn ask_again(&self) {
        struct AskAgain;
        impl Visitor for AskAgain {
            type Output = ();
            fn visit<F: Family>(self, flow: &Flow<F>) {
                for (entry, qos) in flow.entries.iter().zip(&flow.cold.qos) {
                    qos.forget();
                    entry.take_stamp();
                }
            }
        }

        self.with(AskAgain);
    }

    /// Looks after what is known of the ruleset, once in a while: mark and labels of the conntrack entry
    /// may have changed; stamps get old; and packets may have another DSCP than they used to have.
    pub(crate) fn tend(&self) {
        struct Tend(u32);
        impl Visitor for Tend {
            type Output = ();
            fn visit<F: Family>(self, flow: &Flow<F>) {
                for (entry, qos) in flow.entries.iter().zip(&flow.cold.qos) {
                    if !qos.agrees(self.0) || qos.has_several() {
                        entry.take_stamp();
                    }
                }
            }
        }
        let marks = self.ct.get().marks();

        if self.qos.iter().any(|qos| qos.is_outdated(marks)) {
            self.ask_again();
        }
        self.with(Tend(self.table().generation()));
    }

    /// Ruleset `generation` may say something else by now: the next packet of each direction passes it. A
    /// flow in hardware has to leave that, so it is asked less often. Returns whether it is asked.
    pub(crate) fn doubt(&self, generation: u32, now: u32) -> bool {
        const IN_HARDWARE: u32 = 5 * ffi::HZ;

        let since = now.wrapping_sub(self.asked.load(Ordering::Relaxed));
        if self.hw.is_there() && since < IN_HARDWARE
            || !self.qos.iter().any(|qos| qos.agrees(generation))
        {
            return false;
        }
        self.asked.store(now, Ordering::Relaxed);
        // The rule that adds the flow has to be met again.
        self.kept.store(qos::NO_RULESET, Ordering::Relaxed);
        self.ask_again();
        true
    }

    /// Do the bridges below let packets of direction `dir` up?
    pub(crate) fn may_enter(&self, dir: Direction) -> bool {
        // SAFETY: The flow uses it.
        self.shapes[dir as usize].is_none_or(|shape| unsafe { shape.as_ref() }.is_open())
    }

    /// Do packets come in as recorded? Asked by the worker of flows that have shapes.
    pub(crate) fn is_current(&self) -> bool {
        struct Current;
        impl Visitor for Current {
            type Output = bool;
            fn visit<F: Family>(self, flow: &Flow<F>) -> bool {
                let _rcu = rcu::read_lock();
                let [orig, reply] = &flow.entries;
                let [a, b] = flow.cold.shapes;
                let table = flow.cold.table();

                // SAFETY: RCU is held; uses of the shapes are the flow's.
                unsafe {
                    (a.is_none() || path_check::is_current(orig, reply, a, table))
                        && (b.is_none() || path_check::is_current(reply, orig, b, table))
                }
            }
        }

        self.shapes.iter().all(Option::is_none) || self.with(Current)
    }

    /// Has the ruleset had its packets for long enough, and not agreed? So it is too if what is let
    /// through for a bridge's sake does not get past it, whatever rules the bridge has.
    pub(crate) fn is_disowned(&self, now: u32) -> bool {
        const PATIENCE: u32 = 2 * ffi::HZ;

        self.bounced.iter().any(|bounced| {
            let since = bounced.load(Ordering::Relaxed);

            since != 0 && now.wrapping_sub(since) as i32 > PATIENCE as i32
        })
    }

    /// Do packets of direction `dir` that have this route go where the flow sends them? The route back
    /// was found by looking it up, and rules (marks, NAT before IPsec) may send answers elsewhere.
    ///
    /// # Safety
    ///
    /// `dst` is the route of a packet of the flow, or null.
    unsafe fn goes_by(&self, dir: Direction, dst: *const c::dst_entry) -> bool {
        struct Goes(Direction, *const c::dst_entry);
        impl Visitor for Goes {
            type Output = bool;
            fn visit<F: Family>(self, flow: &Flow<F>) -> bool {
                let ours = flow.entries[self.0 as usize].dst.as_ptr();

                // SAFETY: Both are valid, if there are two, and of this family.
                unsafe { c::nfo_same_way(self.1, ours, F::NFPROTO) }
            }
        }

        self.with(Goes(dir, dst))
    }

    /// A SYN, FIN or RST of direction `dir` is about to be judged by conntrack, see [`Flow::ask`].
    pub(crate) fn ask(&self, dir: Direction, tcp: &c::nfo_tcp) {
        struct Ask<'a>(Direction, &'a c::nfo_tcp);
        impl Visitor for Ask<'_> {
            type Output = ();
            fn visit<F: Family>(self, flow: &Flow<F>) {
                flow.ask(self.0, self.1.flags, self.1.seq);
            }
        }

        self.with(Ask(dir, tcp));
    }

    /// A TCP packet of direction `dir` has passed the whole ruleset, see [`Flow::went_by`].
    pub(crate) fn went_by(&self, dir: Direction, tcp: &c::nfo_tcp) {
        struct WentBy<'a>(Direction, &'a c::nfo_tcp);
        impl Visitor for WentBy<'_> {
            type Output = ();
            fn visit<F: Family>(self, flow: &Flow<F>) {
                let segment = Segment {
                    seq: self.1.seq,
                    end: self.1.end,
                    ack: (self.1.flags & tcp_flags::ACK != 0).then_some(self.1.ack),
                    window: self.1.window,
                };

                flow.went_by(self.0, self.1.flags, &segment);
            }
        }

        self.with(WentBy(dir, tcp));
    }

    /// A packet of direction `dir` has passed the whole ruleset, and came through IPsec: it says nothing about
    /// those that come in the clear, which no policy has judged.
    pub(crate) fn came_secured(&self, dir: Direction) {
        struct Secured(Direction);
        impl Visitor for Secured {
            type Output = ();
            fn visit<F: Family>(self, flow: &Flow<F>) {
                flow.entries[self.0 as usize].need_secpath();
            }
        }

        self.with(Secured(dir));
    }

    /// A packet of direction `dir` has passed the whole ruleset. If it was sent there, and the ruleset in
    /// force then still is, and the rule that adds the flow was met as well, by this packet or one of the
    /// other direction, then the ruleset agrees.
    ///
    /// # Safety
    ///
    /// `skb` is a packet of the flow that leaves, with its IP header at `data` in the linear part, and its
    /// transport header, of protocol `proto`, `thoff` bytes from there.
    pub(crate) unsafe fn passed(
        &self,
        dir: Direction,
        skb: *const c::sk_buff,
        thoff: u32,
        proto: u8,
    ) {
        struct Agree<'a>(Direction, &'a Probe, Looks);
        impl Visitor for Agree<'_> {
            type Output = ();
            fn visit<F: Family>(self, flow: &Flow<F>) {
                let Self(dir, probe, left) = self;
                let by_tos = qos::is_by_tos::<F>(flow.cold.table());
                let marks = flow.cold.ct.get().marks();

                flow.cold.qos[dir as usize].learn(probe, left, by_tos, marks);
                // The next packet puts it back, if it is right.
                flow.entries[dir as usize].take_stamp();
            }
        }

        // SAFETY: By the contract of this function.
        if !unsafe { self.goes_by(dir, skb::route(skb)) } {
            if self.kill(TeardownReason::RouteChange) {
                self.table().unsettle(self.ct.get(), TableRef::ENOUGH);
            }
            return;
        }
        let generation = self.table().generation();
        let qos = &self.qos[dir as usize];
        // SAFETY: The packet is valid.
        let probe = qos.arrived(unsafe { c::nfo_skb_print(skb, 0, thoff, proto) });

        if let Some(probe) = probe.filter(|probe| probe.generation == generation) {
            // SAFETY: By the contract of this function.
            let (left, kept) = unsafe { (Looks::of(skb), self.leaves_so(dir, &probe, skb, thoff)) };

            if !kept {
                if self.kill(TeardownReason::Rewritten) {
                    self.table().rewritten().remember(self.ct.get(), generation);
                }
                return;
            }
            if self.kept.load(Ordering::Relaxed) == generation {
                self.with(Agree(dir, &probe, left));
            }
        }
        if qos.agrees(generation) {
            self.bounced[dir as usize].store(0, Ordering::Relaxed);
        }
    }

    /// Has the packet that was recorded in `probe` been rewritten as the fast path would do it, and not by
    /// rules (`ip ttl set`, stateless translation)?
    ///
    /// # Safety
    ///
    /// As for [`Cold::passed`].
    unsafe fn leaves_so(
        &self,
        dir: Direction,
        probe: &Probe,
        skb: *const c::sk_buff,
        thoff: u32,
    ) -> bool {
        struct LeavesSo<'a>(Direction, &'a [u8], Option<u32>);
        impl Visitor for LeavesSo<'_> {
            type Output = bool;
            fn visit<F: Family>(self, flow: &Flow<F>) -> bool {
                flow.entries[self.0 as usize].would_leave_so(self.1, self.2)
            }
        }
        let mut left = c::nfo_left {
            ports: 0,
            ttl: 0,
            has_checksum: false,
            dont_fragment: false,
        };
        let has = |bit| probe.has & bit != 0;
        let ports = match self.proto {
            L4Proto::Tcp | L4Proto::Udp | L4Proto::Sctp => true,
            L4Proto::Icmp | L4Proto::Icmpv6 | L4Proto::Gre | L4Proto::Esp | L4Proto::Ah => false,
        };

        // SAFETY: By the contract of this function.
        let hdr = unsafe {
            c::nfo_skb_left(skb, thoff, &mut left);
            slice::from_raw_parts((*skb).data, if self.is_v6() { 40 } else { 20 })
        };
        left.ttl == probe.ttl.wrapping_sub(1)
            && (left.has_checksum || self.proto != L4Proto::Udp || !has(has::CHECKSUM))
            && left.dont_fragment == has(has::DONT_FRAGMENT)
            && self.with(LeavesSo(dir, hdr, ports.then_some(left.ports)))
    }

    /// A packet of direction `dir` has come to the rule that adds the flow. Kills the flow if packets
    /// come in or leave another way now, so that it is added anew, by this packet's own way. Says then
    /// what is known of the other direction, whose packets have no part in that.
    ///
    /// A direction that nothing fast was seen of lately may be one whose way was guessed, or has changed:
    /// it is learnt from the packet at hand. One that is fast stays where it is. If a direction comes in
    /// by two devices in turns, the packets by one of them are fast.
    ///
    /// # Safety
    ///
    /// `pkt` is in the forward hook and RCU is held.
    pub(crate) unsafe fn revisit(&self, dir: Direction, pkt: &c::nft_pktinfo) -> Option<Known> {
        struct Revisit<'a>(&'a c::nft_pktinfo, Direction);
        impl Visitor for Revisit<'_> {
            type Output = bool;
            fn visit<F: Family>(self, flow: &Flow<F>) -> bool {
                let cold = &flow.cold;
                let dir = self.1 as usize;
                let [orig, reply] = &flow.entries;
                let (this, answers) = match self.1 {
                    Direction::Original => (orig, reply),
                    Direction::Reply => (reply, orig),
                };
                let now = ffi::jiffies32();
                let generation = cold.table().generation();
                // SAFETY: A packet in the forward hook has its network header.
                let (print, has_options) = unsafe {
                    let (proto, thoff) = (self.0.tprot, self.0.thoff.into());

                    (
                        c::nfo_skb_print(self.0.skb, 0, thoff, proto),
                        F::has_options(self.0),
                    )
                };

                // In force when the packet was sent to the rules, and still: these are its rules.
                if cold.qos[self.1 as usize].met(print, generation) {
                    cold.kept.store(generation, Ordering::Relaxed);
                    if has_options {
                        this.let_options(true);
                    }
                }
                // Packets that the fast path leaves alone come here as well.
                if this.idle(now) < forward_path::QUIET {
                    return true;
                }
                // SAFETY: The packet is in the forward hook, RCU is held.
                if !unsafe { c::nfo_came_in((*self.0.state).in_, cold.entered[dir]) } {
                    if now.wrapping_sub(cold.lost[dir].load(Ordering::Relaxed))
                        < forward_path::QUIET
                    {
                        return true;
                    }
                    // The other direction is better off with this flow than with none.
                    // SAFETY: As above.
                    let found = unsafe { path_check::is_found::<F>(self.0, cold.table()) };
                    if !found {
                        cold.lost[dir].store(now, Ordering::Relaxed);
                    }
                    return !found;
                }
                // All packets may be such.
                if now.wrapping_sub(cold.looked[dir].load(Ordering::Relaxed)) < forward_path::QUIET
                {
                    return true;
                }
                cold.looked[dir].store(now, Ordering::Relaxed);
                // SAFETY: RCU is held, and a use of the shape is the flow's.
                unsafe { path_check::is_current(this, answers, cold.shapes[dir], cold.table()) }
            }
        }

        if !self.state.is_live() {
            return None;
        }
        // SAFETY: A packet in the forward hook has a route.
        let why = if !unsafe { self.goes_by(dir, skb::route(pkt.skb)) } {
            TeardownReason::RouteChange
        } else if !self.with(Revisit(pkt, dir)) {
            TeardownReason::PathChange
        } else {
            return None;
        };

        let known = self.with(Learnt(dir.opposite()));
        if self.kill(why) {
            // Three times are enough.
            self.table()
                .unsettle(self.ct.get(), TableRef::ENOUGH / 3 + 1);
        }
        Some(known)
    }

    /// Do packets of the flow pass a device whose index is one of those?
    pub(crate) fn passes(&self, those: &dyn Fn(u32) -> bool) -> bool {
        struct Passes<'a>(&'a dyn Fn(u32) -> bool);
        impl Visitor for Passes<'_> {
            type Output = bool;
            fn visit<F: Family>(self, flow: &Flow<F>) -> bool {
                flow.entries.iter().any(|entry| {
                    // SAFETY: The route is valid; a device is freed after a grace period, and so is a
                    // neighbour, which keeps its own when routes have lost it. The flowtable's lock
                    // keeps us on the CPU.
                    unsafe {
                        let by = |dev: *const c::net_device| self.0((*dev).ifindex as u32);

                        by(entry.dst.dev()) || entry.neigh().as_ref().is_some_and(|n| by(n.dev))
                    }
                })
            }
        }

        self.with(Passes(those))
            || self.entered.iter().any(|ifindex| those(*ifindex))
            || self.shapes.iter().flatten().any(|shape| {
                // SAFETY: The flow uses it.
                unsafe { shape.as_ref() }
                    .devices
                    .iter()
                    .any(|ifindex| *ifindex != 0 && those(*ifindex))
            })
    }

    /// The flowtable that the flow is in.
    pub(crate) fn table(&self) -> &TableRef {
        // SAFETY: A flowtable frees its flows before itself.
        unsafe { self.table.as_ref() }
    }

    /// Jiffies since the latest packet of either direction.
    pub(crate) fn idle(&self, now: u32) -> u32 {
        struct Idle(u32);
        impl Visitor for Idle {
            type Output = u32;
            fn visit<F: Family>(self, flow: &Flow<F>) -> u32 {
                let [a, b] = &flow.entries;
                a.idle(self.0).min(b.idle(self.0))
            }
        }
        self.with(Idle(now))
    }

    /// `jiffies` of the latest packet of either direction, half a second too early at most.
    pub(crate) fn seen(&self) -> u32 {
        struct Seen;
        impl Visitor for Seen {
            type Output = u32;
            fn visit<F: Family>(self, flow: &Flow<F>) -> u32 {
                let [a, b] = flow.entries.each_ref().map(Entry::seen);

                if after(a, b) {
                    a
                } else {
                    b
                }
            }
        }
        self.with(Seen)
    }

    /// Makes up for what conntrack does to its entry when it sees packets. Called by the worker, of live flows.
    pub(crate) fn keep_up(&self) {
        struct GoesOn(u32);
        impl Visitor for GoesOn {
            type Output = ();
            fn visit<F: Family>(self, flow: &Flow<F>) {
                flow.goes_on(self.0);
            }
        }
        let ct = self.ct.get();
        let seen = self.seen();

        if self.proto == L4Proto::Tcp {
            self.with(GoesOn(seen));
            if self.tcp.is_in_doubt() {
                // Conntrack has said how long it lasts if it does not.
                return;
            }
        }
        ct.assure(seen, self.since);
        ct.extend(|| self.is_live());
    }

    /// Takes the flow down: no packet uses it from now on, conntrack has its entry back, and the
    /// worker will free it. Only the first call does anything, and returns true. Does not sleep; may
    /// be called by the packet path.
    #[cold]
    pub(crate) fn kill(&self, reason: TeardownReason) -> bool {
        struct Kill;
        impl Visitor for Kill {
            type Output = ();
            fn visit<F: Family>(self, flow: &Flow<F>) {
                for entry in &flow.entries {
                    entry.die();
                }
                for entry in &flow.entries {
                    entry.set_neigh(None);
                }
            }
        }

        struct Leaves(TeardownReason);
        impl Visitor for Leaves {
            type Output = HandBack;
            fn visit<F: Family>(self, flow: &Flow<F>) -> Self::Output {
                flow.hand_back(self.0)
            }
        }

        if !self.state.kill(reason) {
            return false;
        }
        self.with(Kill);
        stats::teardown(reason);

        let ct = self.ct.get();
        ct.hand_back(&self.with(Leaves(reason)));
        if self.table().has_hw() {
            // The worker takes the rules away, and may be setting the bit just now.
            fence(Ordering::SeqCst);
            ct.set_hardware(false);
        }
        ct.release_claim();
        self.table().bury(self);
        true
    }

    /// Gives the routes back, and frees the flow after a grace period.
    ///
    /// # Safety
    ///
    /// It is dead, in no table and no list, and this is called once.
    pub(crate) unsafe fn free(this: NonNull<Self>) {
        /// # Safety
        ///
        /// Called by RCU only, for the `rcu` of a flow that [`Cold::free`] was called for.
        unsafe extern "C" fn callback(head: *mut c::callback_head) {
            struct Destroy;
            impl Visitor for Destroy {
                type Output = ();
                fn visit<F: Family>(self, flow: &Flow<F>) {
                    // SAFETY: A grace period ago it was withdrawn from everywhere.
                    unsafe { Flow::destroy(flow.into()) };
                    stats::count(stats::Counter::FlowsFreed);
                }
            }

            // SAFETY: `head` is the `rcu` of a `Cold`.
            let cold = unsafe { &*head.byte_sub(offset_of!(Cold, rcu)).cast::<Cold>() };
            cold.with(Destroy);
        }

        struct Routes;
        impl Visitor for Routes {
            type Output = ();
            fn visit<F: Family>(self, flow: &Flow<F>) {
                // SAFETY: The flow is in no table, and this is its end.
                unsafe { flow.release_routes() };
            }
        }

        // SAFETY: Valid until the callback.
        unsafe { this.as_ref() }.with(Routes);
        // SAFETY: The head is in memory that lives until the callback, which runs once.
        unsafe { c::call_rcu(&raw mut (*this.as_ptr()).rcu, Some(callback)) };
    }
}

/// What a flow knows of a direction.
struct Learnt(Direction);
impl Visitor for Learnt {
    type Output = Known;
    fn visit<F: Family>(self, flow: &Flow<F>) -> Known {
        let dir = self.0 as usize;
        let entry = &flow.entries[dir];

        Known {
            dst: F::dst_valid(entry).then(|| entry.dst.get()).flatten(),
            entered: (flow.cold.entered[dir], flow.cold.senders[dir]),
            seen: entry.seen(),
        }
    }
}
