// SPDX-License-Identifier: GPL-2.0

//! A flow in memory: two entries for the packet path, and what only the control path needs.
//!
//! ```text
//!   Flow<F>  +--------------------+--------------------+------------------+
//!            | Entry, original    | Entry, reply       | FlowShared       |
//!            | 2 cache lines      | 2 cache lines      | ct, state, links |
//!            +--------------------+--------------------+------------------+
//!              ^ found by its key   ^ found by its key   ^ found by the ageing wheel
//! ```
//!
//! A flow is made by [`NewFlow`](crate::flow::object::NewFlow), published and withdrawn by the
//! flowtable, and freed a grace period after the worker took it out, by which time no packet looks
//! at it any more.

use crate::{
    ffi::{
        self,
        Rcu, //
    },
    flow::{
        qos::Probe,
        table_ref::TableRef, //
    },
    net::{
        ct::Ct,
        family::{
            Family,
            V4,
            V6, //
        },
        forward_path::{
            DirPath,
            XmitType, //
        },
        hop_table::HopUse,
        next_hop::NextHop,
        route::{
            Dst,
            NeighRef, //
        }, //
    }, //
};
use core::{
    mem::ManuallyDrop,
    sync::atomic::{
        fence,
        AtomicU32,
        AtomicU8,
        Ordering, //
    }, //
};
use nft_flow::{
    direction::Direction,
    key::{
        IngressId, //
        L4Proto,
    },
    window::{
        MaxEnd, //
        Window,
    }, //
};

/// One direction of a flow, as the packet path needs it: two cache lines.
///
/// # Invariants
///
/// - It is one of the two entries of a [`Flow`](crate::flow::object::Flow): the one at the index
///   that `flags` says.
/// - `dst` is a route to which the flow holds a reference, `ct` the flow's conntrack entry.
/// - The flow counts as a use of `next_hop`, if there is one, until it is out of the tables.
#[repr(C, align(64))]
pub(crate) struct Entry<F: Family> {
    pub(crate) key: F::Key,
    pub(crate) rewrite: F::Rewrite,
    /// Of TCP: how far this direction has got.
    pub(crate) max_end: MaxEnd,
    pub(crate) dst: ManuallyDrop<Dst>,
    next_hop: Option<HopUse>,
    pub(crate) ct: Ct,
    /// `jiffies` of the latest packet, written at most once a second.
    seen: AtomicU32,
    pub(crate) cookie: u32,
    /// The ruleset generation that last validated the entry, and the DSCP of packets that it does
    /// not change, see [`TableRef::stamp`].
    stamp: AtomicU32,
    pub(crate) mtu: u16,
    /// Of TCP: how far around `max_end` packets of this direction may be.
    pub(crate) window: Window,
    flags: AtomicU8,
}

/// Bits of [`Entry::flags`].
pub(crate) mod flag {
    /// The entry is that of the reply direction.
    pub(in crate::flow) const REPLY: u8 = 1 << 0;
    /// Packets leave through IPsec.
    pub(super) const XFRM: u8 = 1 << 1;
    /// Packets must have come in through IPsec, because the answers leave through it, or others
    /// did.
    pub(super) const SECPATH: u8 = 1 << 2;
    /// Packets come in through a bridge port.
    pub(super) const BRIDGED: u8 = 1 << 3;
    /// Conntrack's verdict about a SYN, FIN or RST is to be read with the next packet, see
    /// [`crate::flow::tcp`].
    pub(crate) const CT_VERDICT_PENDING: u8 = 1 << 5;
    /// A qdisc, filter or chain at egress wants to see the conntrack entry of packets, see
    /// `flowtable::egress`.
    pub(super) const WANTS_CT: u8 = 1 << 6;
    /// The flow has been torn down.
    pub(super) const DEAD: u8 = 1 << 7;
}

const _: () = assert!(size_of::<Entry<V4>>() == 128 && size_of::<Entry<V6>>() == 128);

/// What an entry records of how packets of its direction come in.
pub(super) struct EntryIngress {
    pub(super) id: IngressId,
    pub(super) secure: bool,
    pub(super) bridged: bool,
}

impl<F: Family> Entry<F> {
    /// The entry of one direction of a new flow.
    pub(super) fn new(
        ct: Ct,
        dir: Direction,
        out: DirPath<'_>,
        ingress: EntryIngress,
        proto: L4Proto,
        (end, window): (u32, Window),
        next_hop: Option<HopUse>,
    ) -> Self {
        let key = F::key(ct.tuple(dir), proto, ingress.id);
        let xfrm = matches!(out.xmit, XmitType::Xfrm);
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };

        // INVARIANT: `NewFlow::make` puts it at index `dir`; the references are taken over from `out`.
        Self {
            rewrite: F::rewrite(&key, ct.tuple(dir.opposite()), proto),
            key,
            max_end: MaxEnd::new(end),
            window,
            cookie: F::cookie(&out.dst),
            dst: ManuallyDrop::new(out.dst),
            next_hop,
            ct,
            seen: AtomicU32::new(out.seen),
            // One packet of each direction passes the ruleset first, and shows how packets leave
            // it. The one that adds the flow is not that: nobody knows what it came in with.
            stamp: AtomicU32::new(TableRef::NO_STAMP),
            mtu: out.mtu,
            flags: AtomicU8::new(
                flag(dir == Direction::Reply, flag::REPLY)
                    | flag(xfrm, flag::XFRM)
                    | flag(ingress.secure, flag::SECPATH)
                    | flag(ingress.bridged, flag::BRIDGED),
            ),
        }
    }

    #[inline(always)]
    pub(super) fn flags(&self) -> u8 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Whether this bit of [`flag`] is set.
    pub(crate) fn has_flag(&self, bit: u8) -> bool {
        self.flags() & bit != 0
    }

    /// Sets or clears a bit of [`flag`].
    pub(crate) fn set_flag(&self, bit: u8, on: bool) {
        if on {
            self.flags.fetch_or(bit, Ordering::Release);
        } else {
            self.flags.fetch_and(!bit, Ordering::Release);
        }
    }

    /// The direction of the packets.
    #[inline(always)]
    pub(crate) fn dir(&self) -> Direction {
        if self.flags() & flag::REPLY != 0 {
            Direction::Reply
        } else {
            Direction::Original
        }
    }

    /// Whether a packet of this direction has been validated by this generation of the ruleset.
    pub(crate) fn gen_matches(&self, generation: u32) -> bool {
        self.flow().shared.qos[self.dir() as usize].gen_matches(generation)
    }

    /// Whether the ruleset in force accepts packets of this direction with a DSCP, and leaves those
    /// with neither mark nor priority as they are. `stamp` is [`TableRef::stamp`] of that DSCP.
    #[inline(always)]
    pub(crate) fn has_stamp(&self, stamp: u32) -> bool {
        self.stamp.load(Ordering::Relaxed) == stamp
    }

    /// [`Entry::has_stamp`] is true from now on, if it was true of no DSCP and `is_so` still.
    pub(crate) fn put_stamp(&self, stamp: u32, is_so: impl FnOnce() -> bool) {
        let none = TableRef::NO_STAMP;

        if self
            .stamp
            .compare_exchange(none, stamp, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
        {
            // Whoever makes it untrue takes the stamp away afterwards.
            fence(Ordering::SeqCst);
            if !is_so() {
                self.take_stamp();
            }
        }
    }

    /// [`Entry::has_stamp`] is false from now on.
    pub(crate) fn take_stamp(&self) {
        fence(Ordering::SeqCst);
        self.stamp.store(TableRef::NO_STAMP, Ordering::Relaxed);
    }

    /// Whether every packet that did not come through IPsec may use the entry as long as the route
    /// is valid: the flow has not been torn down, and neither direction has to do with IPsec.
    #[inline(always)]
    pub(crate) fn is_usable_by_all(&self) -> bool {
        self.flags() & (flag::SECPATH | flag::XFRM | flag::DEAD) == 0
    }

    /// Whether packets of the entry need `slow_checks()` in `hook/ingress.rs`, as those of most
    /// flows do not.
    #[inline(always)]
    pub(crate) fn needs_slow_checks(&self) -> bool {
        self.flags() & (flag::BRIDGED | flag::CT_VERDICT_PENDING) != 0
    }

    /// Whether a qdisc, filter or chain at egress wants to see the conntrack entry of packets.
    pub(crate) fn wants_ct(&self) -> bool {
        self.has_flag(flag::WANTS_CT)
    }

    /// Says whether somebody does.
    pub(crate) fn set_wants_ct(&self, asked: bool) {
        if self.wants_ct() != asked {
            self.set_flag(flag::WANTS_CT, asked);
            if asked {
                // Such packets are not left as they are.
                self.take_stamp();
            }
        }
    }

    /// Whether the ruleset accepts packets with IPv6 destination options.
    pub(crate) fn takes_options(&self) -> bool {
        self.flow().shared.options[self.dir() as usize].load(Ordering::Relaxed)
    }

    /// Notes whether a packet with IPv6 destination options has hit the rule that adds the flow, in
    /// the ruleset in force.
    pub(crate) fn let_options(&self, pass: bool) {
        self.flow().shared.options[self.dir() as usize].store(pass, Ordering::Relaxed);
    }

    /// Sends a packet to the ruleset, whose generation has not validated this direction yet.
    #[cold]
    pub(crate) fn send_to_ruleset(&self, probe: &Probe) {
        self.let_options(false);
        self.flow().shared.send_to_ruleset(self.dir(), probe);
    }

    /// Sends a packet to the ruleset as a probe, which is of interest though others have passed.
    #[cold]
    pub(crate) fn send_probe(&self, probe: &Probe) {
        self.flow().shared.qos[self.dir() as usize].add_probe(probe);
    }

    /// Whether packets leave through IPsec (`FLOW_OFFLOAD_XMIT_XFRM`).
    #[inline(always)]
    pub(crate) fn is_xfrm(&self) -> bool {
        self.flags() & flag::XFRM != 0
    }

    /// Whether packets must have come in through IPsec.
    #[inline(always)]
    pub(crate) fn needs_secpath(&self) -> bool {
        self.flags() & flag::SECPATH != 0
    }

    /// Packets come in through IPsec.
    pub(crate) fn need_secpath(&self) {
        self.set_flag(flag::SECPATH, true);
    }

    /// Whether a packet with this network header has been rewritten as the fast path does it.
    /// `ports` are its ports, if the protocol has some.
    pub(crate) fn matches_rewrite(&self, hdr: &[u8], ports: Option<u32>) -> bool {
        F::is_rewritten(&self.rewrite, hdr, ports)
    }

    /// Whether packets come in through a bridge port.
    #[inline(always)]
    pub(crate) fn is_bridged(&self) -> bool {
        self.flags() & flag::BRIDGED != 0
    }

    /// Returns the ingress part of the key.
    pub(crate) fn ingress_id(&self) -> IngressId {
        F::ingress(&self.key)
    }

    /// Whether the flow has not been torn down.
    #[inline(always)]
    pub(crate) fn is_live(&self) -> bool {
        self.flags() & flag::DEAD == 0
    }

    /// Marks the entry dead: no packet uses it from now on.
    pub(crate) fn set_dead(&self) {
        self.flags.fetch_or(flag::DEAD, Ordering::SeqCst);
    }

    /// Where packets are sent to; none if that is IPsec.
    #[inline(always)]
    pub(crate) fn next_hop<'a>(&self, rcu: Rcu<'a>) -> Option<&'a NextHop> {
        self.next_hop.as_ref().map(|hop| hop.get(rcu))
    }

    /// Takes the use of the next hop out, to end it.
    ///
    /// # Safety
    ///
    /// No packet that comes finds the entry, and this is called once.
    pub(crate) unsafe fn take_next_hop(&self) -> Option<HopUse> {
        // SAFETY: The same contract.
        self.next_hop.as_ref().map(|hop| unsafe { hop.take() })
    }

    /// The neighbour to send to, if there still is one.
    pub(crate) fn neighbour<'a>(&self, rcu: Rcu<'a>) -> Option<NeighRef<'a>> {
        self.next_hop(rcu)?.neighbour(rcu)
    }

    /// Notes a packet; true about twice a second.
    #[inline(always)]
    pub(crate) fn saw(&self, now: u32) -> bool {
        let due = now.wrapping_sub(self.seen.load(Ordering::Relaxed)) > ffi::HZ / 2;

        if due {
            self.seen.store(now, Ordering::Relaxed);
        }
        due
    }

    /// `jiffies` of the latest packet, half a second too early at most.
    pub(crate) fn seen(&self) -> u32 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Notes a packet that hardware saw, maybe some time ago.
    pub(crate) fn seen_at(&self, jiffies: u32) {
        if jiffies.wrapping_sub(self.seen.load(Ordering::Relaxed)) as i32 > 0 {
            self.seen.store(jiffies, Ordering::Relaxed);
        }
    }

    /// Jiffies since the latest packet; none if that has come after `now`.
    pub(crate) fn idle(&self, now: u32) -> u32 {
        let idle = now.wrapping_sub(self.seen());

        if idle as i32 >= 0 {
            idle
        } else {
            0
        }
    }
}
