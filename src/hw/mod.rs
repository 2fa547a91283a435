// SPDX-License-Identifier: GPL-2.0

//! The hardware tier of a flowtable with `flags offload`: which flows go into hardware, and what
//! happens to them there.
//!
//! ```text
//!   packet path: Software --heavy enough--> Queued
//!   worker:      Queued -> Waiting -> Hardware | Partial | Refused
//!                a heavier flow waits, the path or the ruleset changes, the engine forgets: back
//! ```
//!
//! The packet path counts bytes and puts a flow on the queue once; all else is done by the
//! flowtable's worker, which also ends the rules of dead flows before it frees them. A rule never
//! outlives what it was made of: round after round the worker looks at every flow that is in
//! hardware, and takes out those that the ruleset has not agreed to, whose conntrack entry dies, or
//! whose route, neighbour or devices are other ones than when the rule was made.
//!
//! Lock order: RTNL or nf_tables' lock, [`HwOffload::inner`], then those of engines, then
//! `nfo_drivers` (src/ffi/tc.c, one for all flowtables), a port's, then those of drivers. The
//! flowtable's own lock is not held around any of them. A driver that goes away by itself takes
//! none of these but its port's, which is an engine's: see `nfo_port_cleanup()`.

mod bind;
mod counters;
mod describe;
mod promote;
mod revalidate;
mod rulesets;
mod show;

use crate::{
    drivers::{
        tc_ft::TcFt,
        FlowEngine,
        Rule, //
    },
    ffi::{
        self,
        HZ, //
    },
    flow::{
        events::FlowEvent,
        hw_state::Stage,
        shared::FlowShared,
        table_ref::TableRef, //
    },
    net::{
        nf_tables::NftRef,
        trace, //
    }, //
};
use bind::Device;
use core::{
    ops::Deref,
    ptr::NonNull,
    sync::atomic::{
        AtomicU32,
        AtomicUsize,
        Ordering, //
    }, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};
use nft_flow::{
    admit::{
        self,
        Ranked,
        Rate,
        Room, //
    },
    direction::Direction,
    engine::AddError,
    llist::{
        Llist,
        Node, //
    },
    reason::{
        DemoteReason,
        Unsupported, //
    }, //
};

pub(crate) use bind::{
    device_list_pos,
    DeviceInfo,
    SERVED, //
};
use revalidate::ScanCursors;
use rulesets::Rulesets;

/// Flows that may change places in one run of the worker.
const MOVES: usize = 8192;
/// How long one thing may take in a run, about, with all drivers that are asked. The tier is locked
/// as long, and whoever takes a device away waits, under RTNL.
const AT_ONCE: u32 = HZ.div_ceil(50);
/// Between two runs of the worker while there is something in hardware, or waiting for it.
const RUN_INTERVAL: u32 = HZ / 16;
/// Times that an engine may be busy for the same flow before it is left alone for a while.
const BUSY: u8 = 3;

/// Both directions, at their places in arrays.
const DIRECTIONS: [Direction; 2] = [Direction::Original, Direction::Reply];

/// A generation that goes up with each change of what rules are made of: neighbours, bridges.
static TOPOLOGY_GEN: AtomicU32 = AtomicU32::new(0);

/// Notes that neighbours or bridges, which rules are made of, have changed. May be called in any
/// context.
pub(crate) fn topology_changed() {
    TOPOLOGY_GEN.fetch_add(1, Ordering::Relaxed);
}

/// A generation that goes up with each change of what devices can do.
static DEVICES_GEN: AtomicU32 = AtomicU32::new(0);

/// Notes that flows that were refused may be accepted now: features, sizes or the choice of devices
/// have changed. May be called in any context.
pub(crate) fn devices_changed() {
    DEVICES_GEN.fetch_add(1, Ordering::Relaxed);
}

/// A flow that was refused may be asked for again, if devices have changed since.
pub(crate) fn reconsider(flow: &FlowShared) {
    flow.hw.reconsider(DEVICES_GEN.load(Ordering::Relaxed));
}

fn now() -> u32 {
    ffi::jiffies32()
}

/// Returns the time in milliseconds, for rates.
fn now_ms() -> u32 {
    // Not exact where HZ does not divide 1000, and wraps around with jiffies.
    now().wrapping_mul(1000 / HZ)
}

/// A flow that the tier has in its lists.
///
/// # Invariants
///
/// The flow is on the tier's queue, or was there, and the tier has not
/// [forgotten](HwOffload::forget) it: it is not freed before.
#[derive(Clone, Copy)]
struct FlowRef(NonNull<FlowShared>);

// SAFETY: Flows may be used from everywhere.
unsafe impl Send for FlowRef {}

impl FlowRef {
    /// The flow of a node.
    ///
    /// # Safety
    ///
    /// The node was taken off the queue of a tier, which does not use the result once it has
    /// forgotten the flow.
    unsafe fn from_queue(node: NonNull<Node>) -> Self {
        // INVARIANT: By the contract of this function.
        // SAFETY: All nodes of the queue are those of flows.
        Self(unsafe { FlowShared::from_queue(node) })
    }
}

impl Deref for FlowRef {
    type Target = FlowShared;

    fn deref(&self) -> &FlowShared {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_ref() }
    }
}

/// An element of a list whose flows know their index there.
trait Listed {
    /// The flow.
    fn flow(&self) -> FlowRef;
}

impl Listed for Resident {
    fn flow(&self) -> FlowRef {
        self.flow
    }
}

impl Listed for Waiting {
    fn flow(&self) -> FlowRef {
        self.flow
    }
}

/// Takes a flow off a list. The last one of the list gets its index.
fn swap_remove<T: Listed>(list: &mut KVVec<T>, at: usize) -> Option<T> {
    let last = list.len().checked_sub(1).filter(|last| at <= *last)?;

    list.swap(at, last);
    let taken = list.pop();
    if let Some(moved) = list.get(at) {
        moved.flow().hw.index.store(at as u32, Ordering::Relaxed);
    }
    taken
}

/// A flow in hardware.
struct Resident {
    flow: FlowRef,
    rules: [Option<Rule>; 2],
    /// The rulesets that have validated the directions, if any, and in which epoch that was.
    validated: [u32; 2],
    epoch: u32,
    /// The interfaces of both sides.
    ifindices: [u32; 2],
    /// The fingerprint of what the rules were made of.
    fingerprint: u64,
    /// What engines know the packets by that look at addresses and ports only; 0 for others.
    tuples: [u64; 2],
    rate: Rate,
    /// Bytes that hardware has forwarded, and all bytes at the last look.
    by_hardware: u64,
    bytes_seen: u64,
    health: [Health; 2],
}

/// What is known of a direction in hardware.
#[derive(Clone, Copy)]
struct Health {
    /// When its latest packet was at the last look, whoever saw it.
    seen: u32,
    /// Hardware has forwarded packets of it since the last look; ever.
    active: bool,
    proven: bool,
    /// Hardware need not forward from the first packet on.
    binds_late: bool,
    /// Looks in a row at which packets came to software that hardware should have forwarded.
    strikes: u8,
    /// Times that its rule was taken away for that, and when that was last.
    failures: u8,
    since: u32,
}

impl Health {
    /// Hardware forwards the packets, as far as is known.
    fn is_well(&self) -> bool {
        self.proven || !self.binds_late
    }
}

/// A flow that waits for a place.
struct Waiting {
    flow: FlowRef,
    rate: Rate,
    busy: u8,
}

/// Counters that debugfs shows.
#[derive(Default)]
struct Counts {
    added: u64,
    deleted: u64,
    packets: u64,
    bytes: u64,
    aged: u64,
    lost: u64,
    swapped: u64,
    stale: u64,
    ruleset_changed: u64,
    partial: u64,
    full: u64,
    collision: u64,
    busy: u64,
    gone: u64,
    io: u64,
    unsupported: [u64; Unsupported::COUNT],
}

impl Counts {
    fn declined(&mut self, e: AddError) {
        let counter = match e {
            AddError::Full => &mut self.full,
            AddError::Collision => &mut self.collision,
            AddError::Busy => &mut self.busy,
            AddError::Gone => &mut self.gone,
            AddError::Io(_) => &mut self.io,
            AddError::Unsupported(why) => match self.unsupported.get_mut(why.index()) {
                Some(counter) => counter,
                None => return,
            },
        };
        *counter += 1;
    }
}

/// The part of the tier under its lock.
struct TierInner {
    devices: KVec<Device>,
    resident: KVVec<Resident>,
    waiting: KVVec<Waiting>,
    /// For ranking, as long as the lists.
    ranks: [KVVec<Ranked>; 2],
    /// For flows that change places: in, out.
    moves: [KVVec<FlowRef>; 2],
    room: Room,
    /// Rules in all engines.
    rules: u32,
    /// When engines were last told to delete what is left, in `jiffies`.
    retried: u32,
    scans: ScanCursors,
    rulesets: Rulesets,
    counts: Counts,
}

/// The tier of a flowtable.
#[pin_data]
pub(crate) struct HwOffload {
    /// Flows that the packet path has found heavy enough.
    queue: Llist,
    /// Bytes in a second from which a flow is worth a place.
    threshold: u64,
    /// How many flows wait for a place.
    waiting: AtomicUsize,
    /// Whose packets the flowtable takes: IPv4, IPv6.
    families: [bool; 2],
    tc: Arc<TcFt>,
    #[pin]
    inner: Mutex<TierInner>,
}

/// Where a flow goes that leaves hardware.
enum DemoteTo {
    /// To software, and back as soon as it is heavy again.
    Software,
    /// To the list of those that wait, at once.
    Waiting,
    /// To software, for a while.
    Failed,
    /// To software, as one that was refused.
    Refused,
    /// Nowhere: it is dead.
    Closed,
}

impl HwOffload {
    /// The tier of the flowtable `nft`.
    pub(crate) fn new(nft: NftRef, threshold: u64) -> Result<Pin<KBox<Self>>> {
        let tc = Arc::pin_init(TcFt::new(nft.nf())?, GFP_KERNEL)?;
        let inner = TierInner {
            devices: KVec::new(),
            resident: KVVec::new(),
            waiting: KVVec::new(),
            ranks: [KVVec::new(), KVVec::new()],
            moves: [KVVec::new(), KVVec::new()],
            room: Room::new(),
            rules: 0,
            retried: now(),
            scans: ScanCursors::new(now()),
            rulesets: Rulesets::new(now()),
            counts: Counts::default(),
        };

        KBox::pin_init(
            pin_init!(Self {
                queue: Llist::new(),
                threshold,
                waiting: AtomicUsize::new(0),
                families: nft.families(),
                tc,
                inner <- new_mutex!(inner, "nft_offload::tier"),
            }),
            GFP_KERNEL,
        )
    }

    /// A packet of `len` bytes was forwarded by software. Queues the flow when it is heavy enough.
    #[inline(never)]
    pub(crate) fn forwarded(&self, flow: &FlowShared, len: u32, now: u32) {
        if flow.hw.account(len, now, self.threshold) {
            self.push(flow);
        }
    }

    /// Puts a flow on the queue. Takes no lock; called once for each time that a flow is queued.
    fn push(&self, flow: &FlowShared) {
        // SAFETY: The flow's stage says that it is on the queue from now on, and it is not freed
        // then: see `HwOffload::forget`.
        if unsafe { self.queue.add((&flow.hw.node).into()) } {
            flow.table().schedule_gc();
        }
    }

    /// Returns how many flows wait for a place. Takes no lock.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Has the ruleset in force read once more: all of it may not have been in force at first.
    pub(crate) fn doubt_ruleset(&self) {
        self.inner.lock().rulesets.doubt();
    }

    /// Runs the tier once, in the flowtable's worker. Returns in how many jiffies it wants the next
    /// one.
    #[inline(never)]
    pub(crate) fn run(&self, table: &TableRef) -> u32 {
        let mut inner = self.inner.lock();

        inner.poll_devices(self);
        inner.drain_queue(self);
        let idle = inner.resident.is_empty() && inner.waiting.is_empty();
        let (begun, generation) = (now(), table.generation());
        let mut more = false;
        if !idle && inner.rulesets.is_unread(generation) {
            let may_read = inner.rulesets.may_read();

            // Others need not wait for that.
            drop(inner);
            let read = may_read.then(|| rulesets::read(table.net(), self.families, generation));
            inner = self.inner.lock();
            more = inner.rulesets.judge(generation, read, begun) && may_read;
        }
        more |= inner.revalidate() | inner.schedule(self);
        self.waiting.store(inner.waiting.len(), Ordering::Relaxed);

        match () {
            () if more => 0,
            () if inner.resident.is_empty() && inner.waiting.is_empty() => HZ,
            () => RUN_INTERVAL,
        }
    }

    /// Forgets a dead flow, after taking its rules away. False if the packet path is about to queue
    /// it: then another time.
    pub(crate) fn forget(&self, flow: &FlowShared) -> bool {
        if flow.hw.step(Stage::Software, Stage::Closed) {
            return true;
        }
        let mut inner = self.inner.lock();

        inner.drain_queue(self);
        match flow.hw.stage() {
            Stage::Queued => return false,
            Stage::Waiting => {
                let at = flow.hw.index.load(Ordering::Relaxed) as usize;
                inner.take_waiting(at);
                flow.hw.set_stage(Stage::Closed);
            }
            Stage::Partial | Stage::Hardware => {
                let at = flow.hw.index.load(Ordering::Relaxed) as usize;
                inner.demote(at, DemoteTo::Closed, DemoteReason::Teardown);
            }
            Stage::Software => return flow.hw.step(Stage::Software, Stage::Closed),
            Stage::Refused | Stage::Closed => (),
        }
        self.waiting.store(inner.waiting.len(), Ordering::Relaxed);
        true
    }
}

impl TierInner {
    /// Takes what the packet path has queued.
    #[inline(never)]
    fn drain_queue(&mut self, tier: &HwOffload) {
        let (now, ms) = (now(), now_ms());

        for node in tier.queue.del_all() {
            // SAFETY: Just taken off; `HwOffload::forget` takes the flow off all lists.
            let flow = unsafe { FlowRef::from_queue(node) };
            let (recent, jiffies) = flow.hw.recent(now);
            let total = flow.hw.bytes.load(Ordering::Relaxed);
            let window = jiffies.saturating_mul(1000 / HZ).max(250);
            let rate = Rate::new(total, ms, recent, window);

            self.enqueue(flow, rate, now);
        }
    }

    /// Puts a flow on the list of those that wait.
    fn enqueue(&mut self, flow: FlowRef, rate: Rate, now: u32) {
        let waiting = Waiting {
            flow,
            rate,
            busy: 0,
        };

        flow.hw
            .index
            .store(self.waiting.len() as u32, Ordering::Relaxed);
        match self.waiting.push(waiting, GFP_KERNEL) {
            Ok(()) => flow.hw.set_stage(Stage::Waiting),
            // Without memory it stays with software for a while.
            Err(_) => flow.hw.leave(now, HZ),
        }
    }

    /// Takes a flow off the list of those that wait.
    fn take_waiting(&mut self, at: usize) -> Option<Waiting> {
        swap_remove(&mut self.waiting, at)
    }

    /// Takes a flow out of hardware.
    fn demote(&mut self, at: usize, next: DemoteTo, why: DemoteReason) {
        let Some(mut taken) = swap_remove(&mut self.resident, at) else {
            return;
        };
        let flow = taken.flow;

        if flow.is_live() {
            flow.ct.get().set_hardware(false);
        }
        for (at, dir) in DIRECTIONS.into_iter().enumerate() {
            // What it has forwarded until now; nobody can ask afterwards.
            let _ = self.read_stats(&mut taken, at);
            if let Some(rule) = taken.rules[at].take() {
                self.delete(flow, dir, rule, why);
            }
        }
        let now = now();
        match next {
            DemoteTo::Closed => flow.hw.set_stage(Stage::Closed),
            DemoteTo::Software => flow.hw.leave(now, 0),
            DemoteTo::Waiting => self.enqueue(flow, taken.rate, now),
            DemoteTo::Failed => self.fail(flow),
            DemoteTo::Refused => flow.hw.refuse(DEVICES_GEN.load(Ordering::Relaxed)),
        }
        if flow.is_live() {
            flow.table().notify(&flow, FlowEvent::Tier(Some(why)));
        }
    }

    /// Says what a flow is now: in hardware with both directions, as far as that is known, or not.
    fn settle(&self, flow: FlowRef, resident: &Resident) {
        let whole = resident.rules.iter().all(Option::is_some)
            && resident.health.iter().all(Health::is_well);
        let stage = match whole {
            true => Stage::Hardware,
            false => Stage::Partial,
        };

        if flow.hw.stage() == stage {
            return;
        }
        flow.hw.set_stage(stage);
        let ct = flow.ct.get();

        ct.set_hardware(whole);
        // Whoever tears the flow down clears the bit afterwards.
        if !flow.is_live() {
            ct.set_hardware(false);
            return;
        }
        flow.table().notify(&flow, FlowEvent::Tier(None));
    }

    fn fail(&self, flow: FlowRef) {
        let n = flow.hw.failures.load(Ordering::Relaxed);

        flow.hw
            .failures
            .store(n.saturating_add(1), Ordering::Relaxed);
        flow.hw.leave(now(), admit::backoff(n).div_ceil(1000 / HZ));
    }

    /// The engine that has a rule.
    fn engine(&self, ifindex: u32) -> Option<Arc<dyn FlowEngine>> {
        self.devices
            .iter()
            .find(|d| d.ifindex == ifindex)
            .and_then(|d| d.engine.clone())
    }

    /// Deletes the rule of a direction.
    fn delete(&mut self, flow: FlowRef, dir: Direction, rule: Rule, why: DemoteReason) {
        trace::hw_remove(flow.ct.get(), dir, rule.ifindex, why);
        self.rules = self.rules.saturating_sub(1);
        self.counts.deleted += 1;
        if let Some(engine) = self.engine(rule.ifindex) {
            engine.del(rule);
        }
    }
}
