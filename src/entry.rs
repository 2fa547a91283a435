// SPDX-License-Identifier: GPL-2.0

//! A flow in memory: two entries for the packet path, and what only the control path needs.
//!
//! ```text
//!   Flow<F>  +--------------------+--------------------+------------------+
//!            | Entry, original    | Entry, reply       | Cold             |
//!            | 2 cache lines      | 2 cache lines      | ct, state, links |
//!            +--------------------+--------------------+------------------+
//!              ^ found by its key   ^ found by its key   ^ found by the ageing wheel
//! ```
//!
//! A flow is made by [`Flow::new`], published and withdrawn by the flowtable, and freed a grace
//! period after the worker took it out, by which time no packet looks at it any more.

use crate::{
    ct::{
        Ct,
        CtRef, //
    },
    family::{
        Family,
        V4,
        V6, //
    },
    ffi::{
        self,
        c, //
    },
    flowtable::Flowtable,
    path::{
        self,
        Dst,
        Half,
        Input,
        Neigh,
        Output, //
    },
    shape::Shape,
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
    sync::atomic::{
        AtomicBool,
        AtomicPtr,
        AtomicU32,
        AtomicU8,
        Ordering, //
    }, //
};
use kernel::sync::rcu;
use nft_flow::{
    age::Link,
    key::{
        AddrKey,
        Key,
        L4Proto,
        PortId, //
    },
    reason::{
        SkipReason,
        TeardownReason, //
    },
    state::{
        Direction,
        State, //
    },
    table::Item, //
};

/// One direction of a flow, as the packet path needs it: two cache lines.
///
/// # Invariants
///
/// - It is one of the two entries of a [`Flow`]: the one at the index that `flags` says.
/// - `dst` is a route to which the flow holds a reference, `ct` the flow's conntrack entry.
/// - `neigh` is null or a neighbour to which the entry holds a reference.
#[repr(C, align(64))]
pub(crate) struct Entry<F: Family> {
    pub(crate) key: F::Key,
    pub(crate) rewrite: F::Rewrite,
    hash: u32,
    pub(crate) dst: ManuallyDrop<Dst>,
    neigh: AtomicPtr<c::neighbour>,
    pub(crate) ct: Ct,
    /// `jiffies` of the latest packet, written at most once a second.
    seen: AtomicU32,
    pub(crate) cookie: u32,
    /// The ruleset that last agreed, see [`Flowtable::generation`].
    generation: AtomicU32,
    pub(crate) mtu: u16,
    dead: AtomicBool,
    flags: AtomicU8,
}

/// Bits of [`Entry::flags`].
mod flag {
    /// The entry is that of the reply direction.
    pub(super) const REPLY: u8 = 1 << 0;
    /// Packets leave through IPsec.
    pub(super) const XFRM: u8 = 1 << 1;
    /// Packets must have come in through IPsec, because the answers leave through it.
    pub(super) const SECPATH: u8 = 1 << 2;
    /// Packets come in through a bridge port.
    pub(super) const BRIDGED: u8 = 1 << 3;
    /// Packets leave the ruleset with a priority or a mark, see [`Qos`](super::Qos).
    pub(super) const QOS: u8 = 1 << 4;
}

const _: () = assert!(size_of::<Entry<V4>>() == 128 && size_of::<Entry<V6>>() == 128);

/// The part of a flow that packets do not touch unless they are counted.
///
/// # Invariants
///
/// It is the last part of a [`Flow`] of family `nfproto`.
#[repr(C)]
pub(crate) struct Cold {
    /// In the flowtable's wheel; used under its lock.
    pub(crate) link: Link,
    /// The next in the flowtable's list of dead flows.
    pub(crate) next_dead: AtomicPtr<Cold>,
    pub(crate) state: State,
    pub(crate) proto: L4Proto,
    nfproto: u8,
    pub(crate) ct: ManuallyDrop<CtRef>,
    /// Conntrack's counters of both directions, null if it keeps none.
    pub(crate) acct: *mut c::nf_conn_counter,
    /// How packets of each direction left the ruleset.
    qos: [Qos; 2],
    /// When a packet of each direction last took the slow path, in `jiffies`.
    refreshed: [AtomicU32; 2],
    /// `jiffies` (never 0) when a packet was first sent to a ruleset that has not agreed yet.
    bounced: AtomicU32,
    /// The ruleset in force when a packet of each direction was last sent there.
    sent_to: [AtomicU32; 2],
    /// The ruleset in which a packet of either direction last came to the rule that adds the flow.
    kept: AtomicU32,
    key: AddrKey,
    hash: u32,
    /// What packets of each direction come in with; uses that are ended under the flowtable's lock.
    pub(crate) shapes: [Option<NonNull<Shape>>; 2],
    ft: NonNull<Flowtable>,
    rcu: c::callback_head,
}

/// How packets of a direction come in.
struct Side {
    port: PortId,
    secure: bool,
    bridged: bool,
}

/// What queueing disciplines and classifiers look at in a packet that has passed the ruleset.
#[derive(Default)]
pub(crate) struct Qos {
    /// `skb->priority`.
    pub(crate) priority: AtomicU32,
    /// `skb->mark`.
    pub(crate) mark: AtomicU32,
}

/// A flow.
#[repr(C)]
pub(crate) struct Flow<F: Family> {
    pub(crate) entries: [Entry<F>; 2],
    pub(crate) cold: Cold,
}

// SAFETY: Key and hash do not change while the entry is in a table.
unsafe impl<F: Family> Item for Entry<F> {
    type Key = F::Key;

    #[inline(always)]
    fn key(&self) -> &F::Key {
        &self.key
    }

    #[inline(always)]
    fn hash(&self) -> u32 {
        self.hash
    }
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

impl<F: Family> Entry<F> {
    fn new(
        ct: Ct,
        dir: Direction,
        out: Half<'_>,
        side: Side,
        proto: L4Proto,
        ft: &Flowtable,
    ) -> Self {
        let key = F::key(ct.tuple(dir), proto, side.port);
        let xfrm = matches!(out.output, Output::Xfrm);
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };

        // INVARIANT: `Flow::new` puts it at index `dir`; the references are taken over from `out`.
        Self {
            hash: key.hash(&ft.seed),
            rewrite: F::rewrite(&key, ct.tuple(dir.opposite())),
            key,
            cookie: F::cookie(&out.dst),
            dst: ManuallyDrop::new(out.dst),
            neigh: AtomicPtr::new(match out.output {
                Output::Neigh(neigh) => neigh.into_raw(),
                Output::Xfrm => ptr::null_mut(),
            }),
            ct,
            seen: AtomicU32::new(ffi::jiffies32()),
            // Not that of the ruleset: one packet of each direction passes it first, and shows
            // how packets leave it. The one that adds the flow is on its way.
            generation: AtomicU32::new(!ft.generation()),
            mtu: out.mtu,
            dead: AtomicBool::new(false),
            flags: AtomicU8::new(
                flag(dir == Direction::Reply, flag::REPLY)
                    | flag(xfrm, flag::XFRM)
                    | flag(side.secure, flag::SECPATH)
                    | flag(side.bridged, flag::BRIDGED),
            ),
        }
    }

    /// The flow that this is a part of.
    #[inline(always)]
    pub(crate) fn flow(&self) -> &Flow<F> {
        // SAFETY: By the type invariant it is entry `dir` of a flow, whose entries come first.
        unsafe {
            &*ptr::from_ref(self)
                .sub(usize::from(self.flags() & flag::REPLY))
                .cast::<Flow<F>>()
        }
    }

    #[inline(always)]
    fn flags(&self) -> u8 {
        self.flags.load(Ordering::Relaxed)
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

    /// Has this ruleset seen a packet of this direction, and kept the flow?
    #[inline(always)]
    pub(crate) fn agrees(&self, generation: u32) -> bool {
        self.generation.load(Ordering::Relaxed) == generation
    }

    /// Is there anything that [`Entry::needs_secpath`] or [`Entry::wants_refresh`] ask?
    #[inline(always)]
    pub(crate) fn is_special(&self) -> bool {
        self.flags() & (flag::SECPATH | flag::BRIDGED) != 0
    }

    /// What packets leave the ruleset with, if it is not nothing.
    #[inline(always)]
    pub(crate) fn qos(&self) -> Option<&Qos> {
        (self.flags() & flag::QOS != 0).then(|| &self.flow().cold.qos[self.dir() as usize])
    }

    /// Do packets leave through IPsec?
    #[inline(always)]
    pub(crate) fn is_xfrm(&self) -> bool {
        self.flags() & flag::XFRM != 0
    }

    /// Must packets have come in through IPsec?
    #[inline(always)]
    pub(crate) fn needs_secpath(&self) -> bool {
        self.flags() & flag::SECPATH != 0
    }

    /// Is it time for a packet to show its sender to the bridge that it comes in through? Bridges
    /// forget stations that they do not hear, after five minutes as a rule.
    #[inline(always)]
    pub(crate) fn wants_refresh(&self, now: u32) -> bool {
        self.flags() & flag::BRIDGED != 0 && self.refresh(now)
    }

    #[inline(never)]
    fn refresh(&self, now: u32) -> bool {
        const INTERVAL: u32 = 15 * ffi::HZ;

        let last = &self.flow().cold.refreshed[self.dir() as usize];
        let due = now.wrapping_sub(last.load(Ordering::Relaxed)) > INTERVAL;

        if due {
            last.store(now, Ordering::Relaxed);
        }
        due
    }

    /// What stands for the way that packets come in.
    pub(crate) fn key_port(&self) -> PortId {
        F::port(&self.key)
    }

    /// Has the flow not been taken down?
    #[inline(always)]
    pub(crate) fn is_live(&self) -> bool {
        !self.dead.load(Ordering::Relaxed)
    }

    /// The neighbour to send to, null if there is none any more. Valid until the end of the RCU
    /// section.
    #[inline(always)]
    pub(crate) fn neigh(&self) -> *mut c::neighbour {
        self.neigh.load(Ordering::Acquire)
    }

    /// Exchanges the neighbour.
    pub(crate) fn set_neigh(&self, new: Option<Neigh>) {
        let old = self.neigh.swap(
            new.map_or(ptr::null_mut(), Neigh::into_raw),
            Ordering::AcqRel,
        );

        // SAFETY: It came from `into_raw`, and the exchange made us its only owner.
        drop(unsafe { Neigh::from_raw(old) });
        // The flow may have died, and dropped the neighbour that we replaced, at the same time.
        if !self.is_live() {
            let ours = self.neigh.swap(ptr::null_mut(), Ordering::AcqRel);
            // SAFETY: As above.
            drop(unsafe { Neigh::from_raw(ours) });
        }
    }

    /// Notes a packet.
    #[inline(always)]
    pub(crate) fn saw(&self, now: u32) {
        if now.wrapping_sub(self.seen.load(Ordering::Relaxed)) > ffi::HZ / 2 {
            self.seen.store(now, Ordering::Relaxed);
        }
    }

    /// Jiffies since the latest packet.
    pub(crate) fn idle(&self, now: u32) -> u32 {
        now.wrapping_sub(self.seen.load(Ordering::Relaxed))
    }
}

impl<F: Family> Flow<F> {
    /// Makes a flow of a connection and its way out in both directions.
    pub(crate) fn new(
        ct: Ct,
        proto: L4Proto,
        [orig, reply]: [Half<'_>; 2],
        ft: &Flowtable,
    ) -> Result<NonNull<Self>, SkipReason> {
        let flow = F::cache().zalloc().ok_or(SkipReason::NoMem)?.cast::<Self>();
        let interned = ft.intern(&reply.input).and_then(|a| {
            let b = ft.intern(&orig.input);

            b.map(|b| [a, b]).inspect_err(|_| ft.release([a, None]))
        });
        let shapes = match interned {
            Ok(shapes) => shapes,
            Err(e) => {
                // SAFETY: Not initialised, and nobody has seen it.
                unsafe { F::cache().free(flow.cast()) };
                return Err(e);
            }
        };
        let side = |shape: Option<NonNull<Shape>>, input: &Input<'_>, answers: &Half<'_>| Side {
            port: shape.map_or(input.ifindex, |s| {
                // SAFETY: A use of the shape is ours.
                unsafe { s.as_ref() }.port
            }),
            secure: matches!(answers.output, Output::Xfrm),
            bridged: input.bridged,
        };
        let [orig_in, reply_in] = shapes;
        let orig_in = side(orig_in, &reply.input, &reply);
        let reply_in = side(reply_in, &orig.input, &orig);
        let now = ffi::jiffies32();
        let key = AddrKey::new(ct.as_ptr() as usize);
        let generation = ft.generation();

        // SAFETY: Fresh memory of the right size and alignment, which the cache was made for.
        unsafe {
            flow.write(Self {
                entries: [
                    Entry::new(ct, Direction::Original, orig, orig_in, proto, ft),
                    Entry::new(ct, Direction::Reply, reply, reply_in, proto, ft),
                ],
                // INVARIANT: Of this family.
                cold: Cold {
                    link: Link::new(),
                    next_dead: AtomicPtr::new(ptr::null_mut()),
                    state: State::new(),
                    proto,
                    nfproto: F::NFPROTO,
                    ct: ManuallyDrop::new(CtRef::new(ct)),
                    acct: ct.counters(),
                    qos: Default::default(),
                    refreshed: [AtomicU32::new(now), AtomicU32::new(now)],
                    bounced: AtomicU32::new(0),
                    sent_to: [AtomicU32::new(generation), AtomicU32::new(generation)],
                    kept: AtomicU32::new(generation),
                    hash: key.hash(&ft.seed),
                    key,
                    shapes,
                    ft: ft.into(),
                    rcu: c::callback_head {
                        next: ptr::null_mut(),
                        func: None,
                    },
                },
            });
        }
        Ok(flow)
    }

    /// Frees a flow, except for the uses of its shapes.
    ///
    /// # Safety
    ///
    /// `flow` came from [`Flow::new`] and nobody else knows it.
    pub(crate) unsafe fn destroy(flow: NonNull<Self>) {
        // SAFETY: The caller gives the flow away; its references are dropped once, here.
        unsafe {
            let this = &mut *flow.as_ptr();

            for entry in &mut this.entries {
                entry.dead.store(true, Ordering::Relaxed);
                entry.set_neigh(None);
                ManuallyDrop::drop(&mut entry.dst);
            }
            ManuallyDrop::drop(&mut this.cold.ct);
            F::cache().free(flow.cast());
        }
    }
}

impl Cold {
    /// The cold part that a wheel link belongs to.
    ///
    /// # Safety
    ///
    /// `link` must be the `link` of a [`Cold`].
    pub(crate) unsafe fn from_link(link: NonNull<Link>) -> NonNull<Self> {
        // SAFETY: The caller vouches for it.
        unsafe { link.byte_sub(offset_of!(Self, link)).cast() }
    }

    /// The whole flow.
    ///
    /// # Safety
    ///
    /// The flow must be of family `F`.
    unsafe fn flow<F: Family>(&self) -> &Flow<F> {
        // SAFETY: By the type invariant it is the last part of a flow, of `F` as the caller says.
        unsafe {
            &*ptr::from_ref(self)
                .byte_sub(offset_of!(Flow<F>, cold))
                .cast::<Flow<F>>()
        }
    }

    /// Calls `f` with the flow as what it is.
    pub(crate) fn with<V: Visitor>(&self, v: V) -> V::Output {
        if self.nfproto == V4::NFPROTO {
            // SAFETY: Just checked.
            v.visit(unsafe { self.flow::<V4>() })
        } else {
            // SAFETY: There are two families.
            v.visit(unsafe { self.flow::<V6>() })
        }
    }

    /// Has the flow not been taken down?
    pub(crate) fn is_live(&self) -> bool {
        self.state.is_live()
    }

    /// A packet of direction `dir` goes to ruleset `generation`, which has not seen one yet.
    #[cold]
    pub(crate) fn bounce(&self, dir: Direction, generation: u32) {
        self.sent_to[dir as usize].store(generation, Ordering::Relaxed);
        let _ = self.bounced.compare_exchange(
            0,
            ffi::jiffies32() | 1,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
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
                let ft = flow.cold.flowtable();

                // SAFETY: RCU is held; uses of the shapes are the flow's.
                unsafe {
                    (a.is_none() || path::is_current(orig, reply, a, ft))
                        && (b.is_none() || path::is_current(reply, orig, b, ft))
                }
            }
        }

        self.shapes.iter().all(Option::is_none) || self.with(Current)
    }

    /// The ruleset that a packet of direction `dir`, which is in the forward path now, was judged
    /// by: the one that is in force, if it was so already when the packet was sent there. Otherwise
    /// the packet may have met the old rules.
    fn judged_by(&self, dir: Direction) -> Option<u32> {
        let generation = self.flowtable().generation();

        (self.sent_to[dir as usize].load(Ordering::Relaxed) == generation).then_some(generation)
    }

    /// Has the ruleset had its packets for long enough, and not agreed?
    pub(crate) fn is_disowned(&self, now: u32) -> bool {
        const PATIENCE: u32 = 2 * ffi::HZ;

        let since = self.bounced.load(Ordering::Relaxed);
        since != 0 && now.wrapping_sub(since) as i32 > PATIENCE as i32
    }

    /// A packet of direction `dir` has passed the whole ruleset, with this priority and mark. If the rule that adds the flow was
    /// met as well, by this packet or one of the other direction, the ruleset agrees.
    pub(crate) fn passed(&self, dir: Direction, priority: u32, mark: u32) {
        struct Leave(Direction, bool);
        impl Visitor for Leave {
            type Output = ();
            fn visit<F: Family>(self, flow: &Flow<F>) {
                let flags = &flow.entries[self.0 as usize].flags;

                if self.1 {
                    flags.fetch_or(flag::QOS, Ordering::Release);
                } else {
                    flags.fetch_and(!flag::QOS, Ordering::Release);
                }
            }
        }
        struct Passed(Direction, u32);
        impl Visitor for Passed {
            type Output = bool;
            fn visit<F: Family>(self, flow: &Flow<F>) -> bool {
                flow.entries[self.0 as usize]
                    .generation
                    .store(self.1, Ordering::Relaxed);
                flow.entries.iter().all(|entry| entry.agrees(self.1))
            }
        }

        let Some(generation) = self.judged_by(dir) else {
            return;
        };
        let qos = &self.qos[dir as usize];
        qos.priority.store(priority, Ordering::Relaxed);
        qos.mark.store(mark, Ordering::Relaxed);
        self.with(Leave(dir, priority != 0 || mark != 0));
        if self.kept.load(Ordering::Relaxed) == generation && self.with(Passed(dir, generation)) {
            self.bounced.store(0, Ordering::Relaxed);
        }
    }

    /// A packet of direction `dir` has come to the rule that adds the flow. Kills the flow if packets come in another way now, so that it is added anew.
    ///
    /// # Safety
    ///
    /// `pkt` is in the forward hook and RCU is held.
    pub(crate) unsafe fn revisit(&self, dir: Direction, pkt: &c::nft_pktinfo) {
        struct Revisit<'a>(&'a c::nft_pktinfo, Direction);
        impl Visitor for Revisit<'_> {
            type Output = bool;
            fn visit<F: Family>(self, flow: &Flow<F>) -> bool {
                let ft = flow.cold.flowtable();
                let [orig, reply] = &flow.entries;
                let (this, answers) = match self.1 {
                    Direction::Original => (orig, reply),
                    Direction::Reply => (reply, orig),
                };
                let now = ffi::jiffies32();

                if let Some(generation) = flow.cold.judged_by(self.1) {
                    flow.cold.kept.store(generation, Ordering::Relaxed);
                }
                // Packets that the fast path leaves alone come here as well.
                if this.idle(now) < ffi::HZ / 2 {
                    return true;
                }
                let shape = flow.cold.shapes[self.1 as usize];
                // SAFETY: The packet is in the forward hook, RCU is held, and a use of the shape is
                // the flow's.
                unsafe {
                    ptr::eq((*self.0.state).in_, answers.dst.dev())
                        && path::is_current(this, answers, shape, ft)
                }
            }
        }

        if self.state.is_live() && !self.with(Revisit(pkt, dir)) {
            self.kill(TeardownReason::PathChange);
        }
    }

    /// Do packets of the flow pass the device with this index?
    pub(crate) fn passes(&self, ifindex: u32) -> bool {
        struct Passes(u32);
        impl Visitor for Passes {
            type Output = bool;
            fn visit<F: Family>(self, flow: &Flow<F>) -> bool {
                flow.entries.iter().any(|entry| {
                    // SAFETY: The route is valid; a device is freed after a grace period, and the
                    // flowtable's lock keeps us on the CPU.
                    unsafe { (*entry.dst.dev()).ifindex as u32 == self.0 }
                })
            }
        }

        self.with(Passes(ifindex))
            || self.shapes.iter().flatten().any(|shape| {
                // SAFETY: The flow uses it.
                unsafe { shape.as_ref() }.devices.contains(&ifindex)
            })
    }

    /// The flowtable that the flow is in.
    pub(crate) fn flowtable(&self) -> &Flowtable {
        // SAFETY: A flowtable frees its flows before itself.
        unsafe { self.ft.as_ref() }
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

    /// Takes the flow down: no packet uses it from now on, conntrack has its entry back, and the
    /// worker will free it. Only the first call does anything. Does not sleep; may be called by
    /// the packet path.
    #[cold]
    pub(crate) fn kill(&self, reason: TeardownReason) {
        struct Kill;
        impl Visitor for Kill {
            type Output = ();
            fn visit<F: Family>(self, flow: &Flow<F>) {
                for entry in &flow.entries {
                    entry.dead.store(true, Ordering::SeqCst);
                }
                for entry in &flow.entries {
                    entry.set_neigh(None);
                }
            }
        }

        if !self.state.kill(reason) {
            return;
        }
        self.with(Kill);
        stats::teardown(reason);

        let ct = self.ct.get();
        let idle = match reason {
            TeardownReason::Idle => self.idle(ffi::jiffies32()),
            _ => 0,
        };
        ct.hand_back(idle, reason == TeardownReason::SynReuse);
        ct.release_claim();
        self.flowtable().bury(self);
    }

    /// Frees the flow after a grace period.
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

        // SAFETY: The head is in memory that lives until the callback, which runs once.
        unsafe { c::call_rcu(&raw mut (*this.as_ptr()).rcu, Some(callback)) };
    }
}

/// Something that is done with a flow of either family.
pub(crate) trait Visitor {
    /// What comes of it.
    type Output;

    /// Does it.
    fn visit<F: Family>(self, flow: &Flow<F>) -> Self::Output;
}
