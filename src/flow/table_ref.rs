// SPDX-License-Identifier: GPL-2.0

//! The part of a flowtable that its flows refer to: what a flow knows of the flowtable that it is
//! in: namespace, rulesets and flags, and how to be taken out.
//!
//! The hardware tier and its engines know no more of the flowtable than this: nobody below the
//! flowtable needs to know the flowtable itself.

use crate::{
    ffi::{
        self,
        c,
        NetRef,
        Worker, //
    },
    flow::{
        backoff::Backoff,
        events::{
            Admission,
            Budget,
            FlowEvent,
            Notify, //
        },
        rewritten::Rewritten,
        shared::FlowShared,
        teardown::DeadFlows, //
    },
    net::{
        ct::Ct,
        nf_tables::{
            NftRef,
            Rulesets, //
        }, //
    }, //
};
use core::sync::atomic::{
    AtomicBool,
    Ordering, //
};
use kernel::{
    prelude::*,
    str::{
        CStr,
        CString, //
    }, //
};
use nft_flow::{
    key::Seed,
    llist::Llist,
    reason::SkipReason, //
};

/// `enum nf_flowtable_flags`, include/net/netfilter/nf_flow_table.h.
const NF_FLOWTABLE_HW_OFFLOAD: u32 = c::NFO_FLOWTABLE_HW_OFFLOAD;
const NF_FLOWTABLE_COUNTER: u32 = c::NFO_FLOWTABLE_COUNTER;

/// The part of a flowtable that flows refer to. What each packet reads is here, the rest is
/// elsewhere in memory.
///
/// # Invariants
///
/// - It is the first part of a flowtable, which frees its flows before itself.
/// - The namespace is in use until the flowtable is closed. Packets that still find a flow then
///   are those of a namespace in use.
#[repr(C)]
pub(crate) struct TableRef {
    pub(crate) seed: Seed,
    /// The namespace's rulesets: which one is in force.
    rulesets: Rulesets,
    /// nf_tables' object.
    nft: NftRef,
    busy: Pin<KBox<Busy>>,
}

/// What changes as flows come and go.
#[pin_data]
struct Busy {
    /// Flows that were torn down and not yet taken out (an llist).
    dead: Llist,
    /// The garbage collector was scheduled and has not begun.
    gc_scheduled: AtomicBool,
    /// Flag `offload`: flows may be in hardware.
    has_hw: bool,
    /// Runs the garbage collector, and the end of the flowtable at last.
    #[pin]
    worker: Worker,
    net: NetRef<'static>,
    /// The family of its table, the name of that and its own: events of flows have them, and packets
    /// that nf_tables has not waited for may tear a flow down when its object is gone.
    nfproto: u8,
    names: [CString; 2],
    /// Connections that back off.
    backoff: Backoff,
    /// Connections whose packets are rewritten by rules.
    rewritten: Rewritten,
    /// Whom to tell what happens to flows, and how often that was done.
    notify: Notify,
    budget: Budget,
}

impl TableRef {
    /// The part of the flowtable that nf_tables knows as `nft`. What happens to its flows is told
    /// by `notify`.
    pub(crate) fn new(nft: NftRef, notify: Notify) -> Result<Self> {
        // nf_tables sets the flag before it calls `init`, and never changes it.
        let has_hw = nft.flags() & NF_FLOWTABLE_HW_OFFLOAD != 0;
        let backoff = Backoff::new()?;
        let [table, name] = nft.names();
        let names = [CString::try_from(table)?, CString::try_from(name)?];
        let busy = pin_init!(Busy {
            dead: Llist::new(),
            gc_scheduled: AtomicBool::new(false),
            has_hw,
            worker <- Worker::new(),
            net: nft.net(),
            nfproto: nft.family() as u8,
            names,
            backoff,
            rewritten: Rewritten::new(),
            notify,
            budget: Budget::new(),
        });

        // INVARIANT: By the contract of this function.
        Ok(Self {
            seed: Seed::new(ffi::random()),
            rulesets: Rulesets::of(nft),
            nft,
            busy: KBox::pin_init(busy, GFP_KERNEL)?,
        })
    }

    /// The family of its table, an `NFPROTO_*`.
    pub(crate) fn nfproto(&self) -> u8 {
        self.busy.nfproto
    }

    /// The names of its table and of itself.
    pub(crate) fn names(&self) -> [&CStr; 2] {
        self.busy.names.each_ref().map(|name| &**name)
    }

    /// Returns the worker, which looks after the flows.
    pub(crate) fn worker(&self) -> &Worker {
        &self.busy.worker
    }

    /// The part of the flowtable behind the pointer that netfilter gives to the hook.
    ///
    /// # Safety
    ///
    /// `nf` is a `struct nf_flowtable` that is ours, and not freed as long as the result is used.
    #[inline(always)]
    pub(crate) unsafe fn from_hook<'a>(nf: *mut kernel::ffi::c_void) -> &'a Self {
        // SAFETY: The flowtable type has put the pointer to our flowtable there, which begins with
        // this, when it was created; ours outlives the hook by a grace period.
        unsafe {
            &*(*nf.cast::<c::nf_flowtable>())
                .rhashtable
                .tbl
                .cast::<Self>()
        }
    }

    /// Returns nf_tables' object.
    pub(crate) fn nft(&self) -> NftRef {
        self.nft
    }

    /// The network namespace.
    pub(crate) fn net(&self) -> NetRef<'_> {
        self.busy.net
    }

    /// Whether flows of the flowtable may be in hardware (flag `offload`).
    pub(crate) fn has_hw(&self) -> bool {
        self.busy.has_hw
    }

    #[inline(always)]
    fn flags(&self) -> u32 {
        self.nft.flags()
    }

    /// Whether packets are counted at all, for conntrack or for the choice of what goes into
    /// hardware.
    #[inline(always)]
    pub(crate) fn measures(&self) -> bool {
        self.flags() & (NF_FLOWTABLE_COUNTER | NF_FLOWTABLE_HW_OFFLOAD) != 0
    }

    /// Whether packets are counted in conntrack (flag `counter`).
    #[inline(always)]
    pub(crate) fn counts(&self) -> bool {
        self.flags() & NF_FLOWTABLE_COUNTER != 0
    }

    /// A number that changes with the ruleset: its sequence number, which is raised first, and the
    /// bit that says which of two generations is in force (`nf_tables_commit()`,
    /// net/netfilter/nf_tables_api.c).
    #[inline(always)]
    pub(crate) fn generation(&self) -> u32 {
        (self.rulesets.sequence() << 1) | self.rulesets.cursor()
    }

    /// Returns the stamp of packets with this type of service that the ruleset in force does not
    /// change: 24 bits of its sequence number, and the DSCP. The worker sees to it that none gets
    /// so old that it comes again.
    #[inline(always)]
    pub(crate) fn stamp(&self, ds_field: u8) -> u32 {
        Self::stamp_with(self.rulesets.sequence(), ds_field)
    }

    #[inline(always)]
    const fn stamp_with(sequence: u32, ds_field: u8) -> u32 {
        /// The rest is ECN.
        const DSCP: u8 = 0xfc;

        sequence.wrapping_shl(8) | (ds_field & DSCP) as u32
    }

    /// Returns the stamp of packets that were sent to ruleset `generation`, which may not be in
    /// force any more. [`None`] while a commit has raised the sequence number and its rules are not
    /// in force yet: each commit flips the bit as well, so that in between the two do not match.
    /// (They do not either once the number has wrapped, after 2^32 commits. Then every packet is
    /// looked up in `qos`.)
    pub(crate) fn stamp_of(generation: u32, ds_field: u8) -> Option<u32> {
        let (sequence, cursor) = (generation >> 1, generation & 1);

        (sequence & 1 != cursor).then(|| Self::stamp_with(sequence, ds_field))
    }

    /// No packet's stamp: in those the lowest two bits are clear.
    pub(crate) const NO_STAMP: u32 = 1;

    /// Notes that packets of this connection have just come in or left by another path than the one
    /// that was found. With a `weight` of [`MISMATCH_LIMIT`](Self::MISMATCH_LIMIT) in a second the
    /// connection backs off for that long.
    pub(crate) fn note_route_mismatch(&self, ct: Ct, weight: u32) {
        self.busy
            .backoff
            .note_route_mismatch(ct, &self.seed, weight, self.generation());
    }

    /// Notes that a flow of this connection was not added: mostly the connection backs off for a
    /// second.
    pub(crate) fn refuse(&self, ct: Ct, why: SkipReason) {
        self.busy
            .backoff
            .refuse(ct, &self.seed, why, self.generation());
    }

    /// Returns the reason if the connection is not to be offloaded for the time being.
    pub(crate) fn backoff_reason(&self, ct: Ct) -> Option<SkipReason> {
        self.busy.backoff.reason(ct, &self.seed, self.generation())
    }

    /// Why a flow of this connection was not added last, and when, in `jiffies`; while that is
    /// remembered.
    pub(crate) fn last_refusal(&self, ct: Ct) -> Option<(SkipReason, u32)> {
        self.busy.backoff.last(ct, &self.seed)
    }

    /// See [`note_route_mismatch`](Self::note_route_mismatch).
    pub(crate) const MISMATCH_LIMIT: u32 = Backoff::MISMATCH_LIMIT;

    /// Connections whose packets are rewritten by rules.
    pub(crate) fn rewritten(&self) -> &Rewritten {
        &self.busy.rewritten
    }

    /// Tells who listens what has happened to a flow.
    pub(crate) fn notify(&self, flow: &FlowShared, event: FlowEvent) {
        (self.busy.notify)(flow, event);
    }

    /// Whether an event that somebody listens to may be told.
    pub(crate) fn admit_event(&self) -> Admission {
        self.busy.budget.take(ffi::jiffies32())
    }

    /// Has the worker run soon, in whatever context we are.
    pub(crate) fn schedule_gc(&self) {
        if !self.busy.gc_scheduled.swap(true, Ordering::Relaxed) {
            self.worker().kick(0);
        }
    }

    /// Notes that the garbage collector has begun. Returns whether it was scheduled.
    pub(crate) fn begin_work(&self) -> bool {
        self.busy.gc_scheduled.swap(false, Ordering::Relaxed)
    }

    /// Queues a dead flow for the worker (`llist_add()`). Takes no lock.
    pub(crate) fn queue_gc(&self, shared: &FlowShared) {
        // SAFETY: A flow is torn down once, and is put on the list by who does so, and by the
        // worker that has taken it off; only the worker frees it.
        if unsafe { self.busy.dead.add((&shared.dead).into()) } {
            self.schedule_gc();
        }
    }

    /// Takes the dead flows off the list (`llist_del_all()`). For the worker, which frees them.
    pub(crate) fn dead(&self) -> DeadFlows {
        DeadFlows(self.busy.dead.del_all())
    }
}
