// SPDX-License-Identifier: GPL-2.0

//! The part of a flow that packets do not touch unless they are counted: what worker, notifiers and
//! the ruleset do with a flow.

use crate::{
    ffi::{
        self,
        RcuHead, //
    },
    flow::{
        entry::Entry,
        hw_state::HwState,
        ingress_path::{
            IngressPath,
            PathRef, //
        },
        qos::{
            self,
            Qos, //
        },
        table_ref::TableRef,
        tcp, //
    },
    net::{
        ct::{
            Counters,
            Ct,
            CtRef, //
        },
        family::{
            Family,
            V6, //
        },
        forward_path, //
    }, //
};
use core::{
    mem::{
        offset_of,
        ManuallyDrop, //
    },
    ptr::NonNull,
    sync::atomic::{
        AtomicBool,
        AtomicU32, //
    }, //
};
use nft_flow::{
    age::Link,
    direction::Direction,
    key::{
        AddrKey,
        Key,
        L4Proto, //
    },
    llist,
    state::FlowState,
    table::Item, //
};

/// What both directions of a flow share: `struct flow_offload` without its tuples.
///
/// # Invariants
///
/// It is the last part of a [`Flow`](crate::flow::object::Flow) of family `nfproto`.
#[repr(C)]
pub(crate) struct FlowShared {
    /// Link in the flowtable's ageing wheel; used under its lock.
    pub(crate) link: Link,
    /// Node of the flowtable's list of dead flows.
    pub(crate) dead: llist::Node,
    pub(crate) state: FlowState,
    pub(crate) proto: L4Proto,
    pub(super) nfproto: u8,
    pub(crate) ct: ManuallyDrop<CtRef>,
    pub(crate) tcp: tcp::TcpState,
    /// `jiffies` when the flow was made.
    pub(super) since: u32,
    /// Conntrack's counters of both directions, if it keeps them.
    pub(crate) acct: Option<Counters>,
    /// What becomes of packets of each direction in the ruleset.
    pub(crate) qos: [Qos; 2],
    /// A packet of each direction with IPv6 destination options has hit the rule that adds the
    /// flow.
    pub(crate) options: [AtomicBool; 2],
    /// When a packet of each direction last took the slow path, in `jiffies`.
    pub(super) refreshed: [AtomicU32; 2],
    /// `jiffies` (never 0) when a packet of each direction was first sent to a ruleset generation
    /// that has not validated it yet.
    pub(super) reval_since: [AtomicU32; 2],
    /// The generation in which a packet of either direction, having been sent to the ruleset, last
    /// hit the rule that adds the flow.
    pub(super) rule_gen: AtomicU32,
    /// `jiffies` when a revalidation was last requested, see [`FlowShared::request_reval`].
    pub(super) reval_requested: AtomicU32,
    key: AddrKey,
    hash: u32,
    /// The hashes of the keys of both directions.
    pub(crate) hashes: [u32; 2],
    /// The ingress paths of both directions, if they need one; uses that are ended under the
    /// flowtable's lock.
    pub(crate) ingress_paths: [Option<PathRef>; 2],
    /// The devices by which packets of each direction enter the stack, as routing sees it.
    pub(crate) iif: [u32; 2],
    /// The source MAC addresses of their frames; zeroes if that is not known.
    pub(super) senders: [[u8; 6]; 2],
    /// `jiffies` when [`FlowShared::rule_hit`] last looked at all devices that packets of each
    /// direction pass, and when it last found that they come in where they cannot be picked up.
    pub(super) looked: [AtomicU32; 2],
    pub(super) lost: [AtomicU32; 2],
    table: NonNull<TableRef>,
    /// Where the flow stands with hardware.
    pub(crate) hw: HwState,
    pub(super) rcu: RcuHead,
}

// SAFETY: Key and hash do not change.
unsafe impl Item for FlowShared {
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
unsafe impl Send for FlowShared {}
// SAFETY: As above.
unsafe impl Sync for FlowShared {}

impl FlowShared {
    /// Makes what the directions of a new flow share. The entries are in no table yet. The uses of
    /// the ingress paths are taken over. `iif`: by which device packets of each direction enter the
    /// stack, and who sends them.
    pub(crate) fn new<F: Family>(
        ct: Ct,
        proto: L4Proto,
        entries: &[Entry<F>; 2],
        tcp: tcp::TcpState,
        ingress_paths: [Option<PathRef>; 2],
        iif: [(u32, [u8; 6]); 2],
        table: &TableRef,
    ) -> Self {
        let now = ffi::jiffies32();
        let key = AddrKey::new(ct.as_ptr() as usize);

        Self {
            link: Link::new(),
            dead: llist::Node::new(),
            state: FlowState::new(),
            proto,
            nfproto: F::NFPROTO,
            ct: ManuallyDrop::new(CtRef::new(ct)),
            tcp,
            since: now,
            acct: ct.counters(),
            qos: Default::default(),
            options: Default::default(),
            refreshed: [AtomicU32::new(now), AtomicU32::new(now)],
            reval_since: Default::default(),
            // The ruleset may have changed since the rule was come to.
            rule_gen: AtomicU32::new(qos::NO_RULESET),
            reval_requested: AtomicU32::new(now),
            hash: key.hash(&table.seed),
            hashes: entries.each_ref().map(|entry| entry.key.hash(&table.seed)),
            key,
            ingress_paths,
            iif: iif.map(|(ifindex, _)| ifindex),
            senders: iif.map(|(_, sender)| sender),
            looked: [AtomicU32::new(now), AtomicU32::new(now)],
            lost: [0; 2].map(|_| AtomicU32::new(now.wrapping_sub(forward_path::QUIET))),
            table: table.into(),
            hw: HwState::new(now),
            rcu: RcuHead::new(),
        }
    }

    /// The flow that a wheel link belongs to.
    ///
    /// # Safety
    ///
    /// `link` must be the `link` of a [`FlowShared`] that is not freed for `'a`.
    pub(crate) unsafe fn from_link<'a>(link: NonNull<Link>) -> &'a Self {
        // SAFETY: The caller vouches for it.
        unsafe { &*link.as_ptr().byte_sub(offset_of!(Self, link)).cast() }
    }

    /// The flow that a node of a queue to hardware belongs to.
    ///
    /// # Safety
    ///
    /// `node` must be the `hw.node` of a [`FlowShared`].
    pub(crate) unsafe fn from_queue(node: NonNull<llist::Node>) -> NonNull<Self> {
        // SAFETY: The caller vouches for it.
        unsafe { node.byte_sub(offset_of!(Self, hw.node)).cast() }
    }

    /// What packets of direction `dir` come in with, if they have an ingress path.
    pub(crate) fn ingress_path(&self, dir: Direction) -> Option<&IngressPath> {
        self.ingress_paths[dir as usize].as_deref()
    }

    /// Whether this is a flow of IPv6.
    pub(crate) fn is_v6(&self) -> bool {
        self.nfproto == V6::NFPROTO
    }

    /// Whether the flow has not been torn down.
    pub(crate) fn is_live(&self) -> bool {
        self.state.is_live()
    }

    /// Jiffies since the flow was made.
    pub(crate) fn age(&self, now: u32) -> u32 {
        now.wrapping_sub(self.since)
    }

    /// The flowtable that the flow is in.
    pub(crate) fn table(&self) -> &TableRef {
        // SAFETY: A flowtable frees its flows before itself.
        unsafe { self.table.as_ref() }
    }
}
