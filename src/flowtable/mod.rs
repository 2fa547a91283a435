// SPDX-License-Identifier: GPL-2.0

//! The flowtable: `nf_flowtable_type` as nf_tables knows it, and our object behind it, which owns
//! the tables, the ageing wheel and the flows.
//!
//! Life of a flow: the expression [adds](Flowtable::add) it. Whoever finds a reason [tears it
//! down](crate::flow::shared::FlowShared::teardown), which may be the packet path, and puts it on
//! the list of the dead. Only the worker, or the flowtable's end, takes it out of table and wheel
//! and frees it.
//!
//! nf_tables never touches most of `struct nf_flowtable`: the pointer to our object lives where
//! mainline has its hash table. Our object lives a grace period longer than nf_tables'.
//!
//! Lock order: RTNL, the list of a [`Netns`], then a flowtable's `inner` (softirqs off), then a
//! conntrack entry's lock. None of the first two is held around a walk over flows. `nfnl_lock` may
//! be held around all of them, and is taken around none.

mod add;
mod egress;
mod flush;
mod follow;
mod gc;
mod next_hops;
mod policies;
pub(crate) mod registry;
pub(crate) mod scan;
mod tables;
pub(crate) mod traffic;
mod why;

use self::{
    gc::BRIDGE_CHECK,
    policies::Policies, //
};
use crate::{
    ffi::{
        self,
        c,
        BhGuard,
        Rcu,
        Totals,
        Traffic, //
    },
    flow::{
        entry::Entry,
        events::Notify,
        ingress_path::{
            IdPool,
            IngressPath, //
            IngressTable,
        },
        shared::FlowShared,
        table_ref::TableRef,
        tag_cache::TagCache, //
    },
    hw::HwOffload,
    net::{
        ct::Ct,
        family::{
            Family,
            V4,
            V6, //
        },
        hop_table::HopTable,
        next_hop::NextHop,
        nf_tables::NftRef,
        ruleset::Watch, //
    }, //
};
use core::{
    mem::offset_of,
    ops::Deref,
    sync::atomic::{
        AtomicBool,
        AtomicU32,
        AtomicUsize,
        Ordering, //
    }, //
};
use egress::Egress;
use follow::Follows;
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};
use nft_flow::{
    age::Wheel,
    key::{
        AddrKey,
        Key, //
        Key6,
    },
    table::{
        Cursor,
        Item,
        Table,
        Writer, //
    }, //
};
use registry::{
    ListNode, //
    Netns,
};
use tables::SpareBuckets;

/// Buckets of an empty table: 16 KiB for some 900 entries.
const MIN_BUCKETS: usize = 256;
/// Buckets for ingress paths: 1 KiB. A worker makes more if there are many.
const INGRESS_PATH_BUCKETS: usize = 16;
/// Buckets for next hops, likewise.
const HOP_BUCKETS: usize = 16;
/// Buckets that are looked at or copied before softirqs get a chance to run.
const BUCKETS_AT_ONCE: usize = 256;

/// A flowtable. What each packet reads comes first; what is written while packets are forwarded is
/// in other cache lines.
#[pin_data(PinnedDrop)]
#[repr(C, align(64))]
pub(crate) struct Flowtable {
    /// What its flows know of it.
    core: TableRef,
    v4: Table<Entry<V4>>,
    v6: Table<Entry<V6>>,
    pub(crate) ingress_paths: Table<IngressPath>,
    /// What the fast path has forwarded.
    pub(crate) traffic: Traffic,
    /// Flag `offload`: what is done with hardware.
    pub(crate) hw: Option<Pin<KBox<HwOffload>>>,
    /// Shapes in use: none, and every packet with encapsulation is none of ours.
    ingress_path_count: AtomicUsize,
    /// A bit for each link-layer address that they have: what is sent to another one is none of
    /// ours.
    macs: AtomicUsize,
    /// Some of them, by VLAN tag.
    pub(crate) tags: TagCache,
    /// How many of them have to do with bridges.
    bridged: AtomicUsize,
    /// Flows by the address of their conntrack entry.
    cts: Table<FlowShared>,
    /// How many there are.
    flow_count: AtomicUsize,
    /// Next hops by the address of their neighbour.
    hops: Table<NextHop>,
    pub(crate) netns: Arc<Netns>,
    /// In the list of the namespace.
    pub(crate) list_node: ListNode,
    /// Something about bridges has changed, and the worker has not looked yet.
    bridge_check_scheduled: AtomicBool,
    /// What the worker knows of policies.
    policies: Policies,
    /// Nobody else is to begin a walk, or go on with one.
    closed: AtomicBool,
    /// The families that are served: IPv4, IPv6.
    serves: [bool; 2],
    /// When the worker is due for a whole pass, in `jiffies`; in between it requests revalidations.
    due: AtomicU32,
    /// When the worker last requested revalidations, in `jiffies`.
    reval_slice: AtomicU32,
    /// The rules whose verdict may change without a commit.
    #[pin]
    pub(crate) watch: Watch,
    #[pin]
    ids: IdPool,
    /// Devices that are not listed, but have the hook.
    #[pin]
    follows: Follows,
    #[pin]
    inner: SpinLock<FlowtableInner>,
}

/// The part of a flowtable under its lock.
pub(crate) struct FlowtableInner {
    w4: Writer<Entry<V4>>,
    w6: Writer<Entry<V6>>,
    ingress_paths: IngressTable,
    cts: Writer<FlowShared>,
    hops: HopTable,
    wheel: Wheel,
    egress: Egress,
    /// How far the worker has got with asking flows.
    reval_cursor: Cursor,
    closing: bool,
    /// Traffic that the network namespace's statistics have.
    reported: Totals,
}

impl FlowtableInner {
    /// Has the worker look at a flow that is in no wheel.
    fn schedule(&mut self, flow: &FlowShared, tick: u32) {
        // SAFETY: The worker removes the link before it frees the flow.
        unsafe { self.wheel.add((&flow.link).into(), tick) };
    }
}

// `TableRef::from_hook` counts on it.
const _: () = assert!(offset_of!(Flowtable, core) == 0);
// What a packet reads is in two cache lines.
const _: () = assert!(offset_of!(Flowtable, ingress_path_count) <= 128);

impl Deref for Flowtable {
    type Target = TableRef;

    #[inline(always)]
    fn deref(&self) -> &TableRef {
        &self.core
    }
}

/// Which table of a flowtable has the flows of a family.
pub(crate) trait Store: Family {
    /// This family's table.
    fn table(ft: &Flowtable) -> &Table<Entry<Self>>;

    /// The writer of this family's table.
    fn writer(inner: &mut FlowtableInner) -> &mut Writer<Entry<Self>>;
}

impl Store for V4 {
    #[inline(always)]
    fn table(ft: &Flowtable) -> &Table<Entry<Self>> {
        &ft.v4
    }

    fn writer(inner: &mut FlowtableInner) -> &mut Writer<Entry<Self>> {
        &mut inner.w4
    }
}

impl Store for V6 {
    #[inline(always)]
    fn table(ft: &Flowtable) -> &Table<Entry<Self>> {
        &ft.v6
    }

    fn writer(inner: &mut FlowtableInner) -> &mut Writer<Entry<Self>> {
        &mut inner.w6
    }
}

/// The bit of [`Flowtable::macs`] that stands for an address: its last bytes differ most.
#[inline(always)]
fn mac_bit(mac: [u8; 6]) -> usize {
    let [.., a, b, c] = mac;

    1 << (u32::from(a ^ b ^ c) % usize::BITS)
}

/// Seconds since boot, as the wheel counts them.
fn tick() -> u32 {
    // Jiffies would wrap around, where they have 32 bits.
    ffi::boot_seconds()
}

/// Finds an item of a table.
#[inline(always)]
fn lookup<'a, T: Item>(_: Rcu<'a>, table: &'a Table<T>, hash: u32, key: &T::Key) -> Option<&'a T> {
    // SAFETY: RCU is held for `'a`; items and arrays are freed after a grace period.
    unsafe { table.lookup(hash, key) }
}

impl Flowtable {
    /// The flowtable behind `nft`, which nf_tables is creating. `hw_threshold`: bytes in a second
    /// from which a flow is worth a place in hardware.
    pub(crate) fn new(nft: NftRef, hw_threshold: u64, notify: Notify) -> Result<Pin<KBox<Self>>> {
        let core = TableRef::new(nft, notify)?;
        let netns = Netns::of(core.net()).ok_or(ENOENT)?.into();
        let hw = match core.has_hw() {
            true => Some(HwOffload::new(nft, hw_threshold)?),
            false => None,
        };
        let traffic = Traffic::new()?;
        let uninit = KBox::<Self>::new_uninit(GFP_KERNEL)?;
        let b4 = SpareBuckets::guarded(MIN_BUCKETS)?;
        let b6 = SpareBuckets::guarded(MIN_BUCKETS)?;
        let bs = SpareBuckets::guarded(INGRESS_PATH_BUCKETS)?;
        let bc = SpareBuckets::guarded(MIN_BUCKETS)?;
        let bh = SpareBuckets::guarded(HOP_BUCKETS)?;
        // Tables do not free their buckets: nothing fails from here on.
        let (v4, w4) = Table::new(b4.dismiss().into_inner());
        let (v6, w6) = Table::new(b6.dismiss().into_inner());
        let (ingress_paths, ws) = Table::new(bs.dismiss().into_inner());
        let (cts, wc) = Table::new(bc.dismiss().into_inner());
        let (hops, wh) = Table::new(bh.dismiss().into_inner());
        let inner = FlowtableInner {
            w4,
            w6,
            ingress_paths: IngressTable::new(ws),
            cts: wc,
            hops: HopTable::new(wh),
            wheel: Wheel::new(tick()),
            egress: Egress::default(),
            reval_cursor: Cursor::default(),
            closing: false,
            reported: Traffic::NONE,
        };
        let init = pin_init!(Self {
            core,
            v4,
            v6,
            ingress_paths,
            tags: TagCache::new(),
            traffic,
            hw,
            ingress_path_count: AtomicUsize::new(0),
            macs: AtomicUsize::new(0),
            bridged: AtomicUsize::new(0),
            cts,
            flow_count: AtomicUsize::new(0),
            hops,
            netns,
            list_node: ListNode::new(),
            bridge_check_scheduled: AtomicBool::new(false),
            policies: Policies::default(),
            closed: AtomicBool::new(false),
            ids <- IdPool::new(),
            follows <- Follows::new(),
            serves: nft.families(),
            due: AtomicU32::new(ffi::jiffies32()),
            reval_slice: AtomicU32::new(ffi::jiffies32()),
            watch <- Watch::new(),
            inner <- new_spinlock!(inner, "nft_offload::flowtable"),
        });
        // Cannot fail: the memory is there.
        uninit.write_pin_init(init).map_err(|e| match e {})
    }

    /// The flowtable behind the pointer that netfilter gives to the hook.
    ///
    /// # Safety
    ///
    /// `nf` is a `struct nf_flowtable` that [`init`] has made ours.
    #[inline(always)]
    pub(crate) unsafe fn from_hook<'a>(nf: *mut kernel::ffi::c_void) -> &'a Self {
        // SAFETY: `init` has put the pointer there; the object outlives the hook by a grace
        // period.
        unsafe {
            &*(*nf.cast::<c::nf_flowtable>())
                .rhashtable
                .tbl
                .cast::<Self>()
        }
    }

    /// Whether the flowtable is about to end.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// The flow of a conntrack entry, if it is in this flowtable.
    pub(crate) fn find<'a>(&'a self, rcu: Rcu<'a>, ct: Ct) -> Option<&'a FlowShared> {
        let key = AddrKey::new(ct.as_ptr() as usize);

        lookup(rcu, &self.cts, key.hash(&self.seed), &key)
    }

    /// The entry for packets with this key, whose hash is `hash`.
    #[inline(always)]
    pub(crate) fn lookup<'a, F: Store>(
        &'a self,
        rcu: Rcu<'a>,
        hash: u32,
        key: &F::Key,
    ) -> Option<&'a Entry<F>> {
        lookup(rcu, F::table(self), hash, key)
    }

    /// The ingress path of packets that come in with what this key says.
    pub(crate) fn ingress_path<'a>(&'a self, rcu: Rcu<'a>, key: &Key6) -> Option<&'a IngressPath> {
        lookup(rcu, &self.ingress_paths, key.hash(&self.seed), key)
    }

    /// Flows of IPv4 and IPv6, and buckets of both tables.
    pub(crate) fn size(&self) -> ([usize; 2], [usize; 2]) {
        self.locked(|inner| {
            (
                [inner.w4.len() / 2, inner.w6.len() / 2],
                [inner.w4.buckets(), inner.w6.buckets()],
            )
        })
    }

    /// Adds the latest traffic to the statistics of the network namespace. Returns how many packets
    /// and bytes there were, ever.
    fn fold_mib_stats(&self) -> (u64, u64) {
        let now = self.traffic.totals();

        self.locked(|inner| traffic::fold_mib_stats(self.net(), &now, &mut inner.reported));
        let [v4, v6] = now.family;
        (
            v4.packets.wrapping_add(v6.packets),
            v4.bytes.wrapping_add(v6.bytes),
        )
    }

    fn locked<R>(&self, f: impl FnOnce(&mut FlowtableInner) -> R) -> R {
        let _bh = BhGuard::new();
        // Not a temporary of the last expression, which would outlive `_bh`.
        let mut inner = self.inner.lock();

        f(&mut inner)
    }

    /// Has the worker look at bridges soon. Not at once: who gives notice of a change may be about
    /// to make it.
    pub(crate) fn schedule_bridge_check(&self) {
        if self.has_bridged() && !self.bridge_check_scheduled.swap(true, Ordering::Relaxed) {
            self.due.store(
                ffi::jiffies32().wrapping_add(BRIDGE_CHECK as u32),
                Ordering::Relaxed,
            );
            self.worker().kick(BRIDGE_CHECK);
        }
    }

    /// Whether the flowtable has ingress paths, so that frames with encapsulation may belong to
    /// flows.
    #[inline(always)]
    pub(crate) fn has_ingress_paths(&self) -> bool {
        self.ingress_path_count.load(Ordering::Relaxed) != 0
    }

    /// Whether packets of some flows pass a bridge.
    fn has_bridged(&self) -> bool {
        self.bridged.load(Ordering::Relaxed) != 0
    }

    /// Whether there may be an ingress path of frames to this address.
    #[inline(always)]
    pub(crate) fn may_be_to(&self, mac: [u8; 6]) -> bool {
        self.macs.load(Ordering::Relaxed) & mac_bit(mac) != 0
    }
}
