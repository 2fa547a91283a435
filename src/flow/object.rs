// SPDX-License-Identifier: GPL-2.0

//! A whole flow, and how its parts find each other.

use crate::{
    ffi::cache::Slot,
    flow::{
        entry::{
            flag,
            Entry,
            EntryIngress, //
        },
        ingress_path::PathRef,
        shared::FlowShared,
        table_ref::TableRef,
        tcp, //
    },
    net::{
        ct::{
            Ct,
            InitialWindow, //
        },
        device_path::Ingress,
        family::{
            Family,
            Routed,
            V4,
            V6, //
        },
        forward_path::{
            DirPath,
            XmitType, //
        },
        hop_table::HopUse,
        route::Dst, //
    }, //
};
use core::{
    mem::{
        offset_of,
        ManuallyDrop, //
    },
    ptr::{
        self,
        NonNull, //
    }, //
};
use nft_flow::{
    desc::Tuple,
    direction::Direction,
    key::L4Proto,
    reason::SkipReason,
    table::Item,
    window::after, //
};

/// A flow.
#[repr(C)]
pub(crate) struct Flow<F: Family> {
    pub(crate) entries: [Entry<F>; 2],
    pub(crate) shared: FlowShared,
}

/// A whole flow, of the family that it is of.
pub(crate) enum AnyFlow<'a> {
    /// IPv4.
    V4(&'a Flow<V4>),
    /// IPv6.
    V6(&'a Flow<V6>),
}

/// Evaluates an expression with a whole flow, given what its directions share: once for each
/// family. The second form names the family.
macro_rules! with_family {
    ($shared:expr, |$flow:ident| $does:expr) => {
        match $shared.whole() {
            $crate::flow::object::AnyFlow::V4($flow) => $does,
            $crate::flow::object::AnyFlow::V6($flow) => $does,
        }
    };
    ($shared:expr, $family:ident, |$flow:ident| $does:expr) => {
        match $shared.whole() {
            $crate::flow::object::AnyFlow::V4($flow) => {
                type $family = $crate::net::family::V4;
                $does
            }
            $crate::flow::object::AnyFlow::V6($flow) => {
                type $family = $crate::net::family::V6;
                $does
            }
        }
    };
}
pub(crate) use with_family;

impl FlowShared {
    /// The whole flow.
    ///
    /// # Safety
    ///
    /// The flow must be of family `F`.
    unsafe fn flow<F: Family>(&self) -> &Flow<F> {
        // SAFETY: By the type invariant it is the last part of a flow, of `F` as the caller says.
        unsafe {
            &*ptr::from_ref(self)
                .byte_sub(offset_of!(Flow<F>, shared))
                .cast::<Flow<F>>()
        }
    }

    /// The whole flow, as what it is.
    pub(crate) fn whole(&self) -> AnyFlow<'_> {
        if self.nfproto == V4::NFPROTO {
            // SAFETY: Just checked.
            AnyFlow::V4(unsafe { self.flow::<V4>() })
        } else {
            // SAFETY: There are two families.
            AnyFlow::V6(unsafe { self.flow::<V6>() })
        }
    }

    /// Addresses, and ports where the protocol has some, of packets of direction `dir` as they come
    /// in.
    pub(crate) fn tuple(&self, dir: Direction) -> Tuple {
        let tuple = with_family!(self, F, |flow| F::tuple(&flow.entries[dir as usize].key));

        Tuple {
            ports: tuple.ports.filter(|_| self.proto.has_ports()),
            ..tuple
        }
    }

    /// Jiffies since the latest packet of either direction.
    pub(crate) fn idle(&self, now: u32) -> u32 {
        with_family!(self, |flow| {
            let [a, b] = &flow.entries;

            a.idle(now).min(b.idle(now))
        })
    }

    /// `jiffies` of the latest packet of either direction, half a second too early at most.
    pub(crate) fn seen(&self) -> u32 {
        let [a, b] = with_family!(self, |flow| flow.entries.each_ref().map(Entry::seen));

        if after(a, b) {
            a
        } else {
            b
        }
    }
}

// SAFETY: Key and hash do not change while the entry is in a table.
unsafe impl<F: Family> Item for Entry<F> {
    type Key = F::Key;

    #[inline(always)]
    fn key(&self) -> &F::Key {
        &self.key
    }

    fn hash(&self) -> u32 {
        self.flow().shared.hashes[self.dir() as usize]
    }
}

impl<F: Family> Routed for Entry<F> {
    #[inline(always)]
    fn dst(&self) -> &Dst {
        &self.dst
    }

    #[inline(always)]
    fn cookie(&self) -> u32 {
        self.cookie
    }

    #[inline(always)]
    fn is_xfrm(&self) -> bool {
        self.is_xfrm()
    }

    fn iif(&self) -> u32 {
        self.flow().shared.iif[self.dir() as usize]
    }
}

impl<F: Family> Entry<F> {
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
}

/// What a flow uses of its flowtable. The uses end under the flowtable's lock.
#[derive(Default)]
pub(crate) struct FlowUses {
    /// What packets of both directions come in with, if they have an ingress path.
    pub(crate) ingress_paths: [Option<PathRef>; 2],
    /// Where packets of both directions are sent to, if that is not IPsec.
    pub(crate) next_hops: [Option<HopUse>; 2],
}

impl FlowUses {
    /// Whether the worker has to look at something before all packets are as fast as they can be.
    pub(crate) fn want_worker(&self) -> bool {
        let hops = self.next_hops.iter().flatten().count();

        self.ingress_paths
            .iter()
            .flatten()
            .any(|path| !path.is_checked())
            || self.next_hops.iter().flatten().any(|hop| hop.is_new(hops))
    }
}

/// A flow that is about to be made: its memory, and what conntrack knows.
pub(crate) struct NewFlow<F: Family> {
    slot: Slot<Flow<F>>,
    ct: Ct,
    proto: L4Proto,
    windows: ([InitialWindow; 2], bool),
}

impl<F: Family> NewFlow<F> {
    /// Prepares a flow of a connection.
    pub(crate) fn new(ct: Ct, proto: L4Proto) -> Result<Self, SkipReason> {
        Ok(Self {
            slot: F::cache().slot().ok_or(SkipReason::NoMem)?,
            ct,
            proto,
            windows: ct.initial_windows(),
        })
    }

    /// Makes the flow, with its way out in both directions, for this table. It is in no table yet.
    pub(crate) fn make(
        self,
        [orig, reply]: [DirPath<'_>; 2],
        uses: FlowUses,
        table: &TableRef,
    ) -> NonNull<Flow<F>> {
        let (ct, proto) = (self.ct, self.proto);
        let entry_ingress =
            |path: &Option<PathRef>, ingress: &Ingress<'_>, opposite: &DirPath<'_>| EntryIngress {
                id: path.as_ref().map_or(ingress.ifindex, |path| path.id),
                secure: matches!(opposite.xmit, XmitType::Xfrm),
                bridged: ingress.is_bridged(),
            };
        let iif = [&reply, &orig].map(|dir| (dir.ingress.stack.devices[0], dir.ingress.sender));
        let [orig_in, reply_in] = &uses.ingress_paths;
        let orig_in = entry_ingress(orig_in, &reply.ingress, &reply);
        let reply_in = entry_ingress(reply_in, &orig.ingress, &orig);
        let [there_hop, back_hop] = uses.next_hops;
        let ([there, back], liberal) = self.windows;
        let tcp = tcp::TcpState::new([there.peer, back.peer], liberal);
        let [there, back] = [(there.end, there.window), (back.end, back.window)];
        let entries = [
            Entry::new(
                ct,
                Direction::Original,
                orig,
                orig_in,
                proto,
                there,
                there_hop,
            ),
            Entry::new(ct, Direction::Reply, reply, reply_in, proto, back, back_hop),
        ];
        let paths = uses.ingress_paths;

        self.slot.write(Flow {
            // INVARIANT: Of this family.
            shared: FlowShared::new(ct, proto, &entries, tcp, paths, iif, table),
            entries,
        })
    }
}

impl<F: Family> Flow<F> {
    /// Takes what the flow uses out, to end these uses, and its routes. The latter are to be given
    /// back at once: they, too, live for a grace period more, and what counts them may go with the
    /// network namespace, which waits for no packet then.
    ///
    /// # Safety
    ///
    /// No packet that comes finds the flow, and this is called once.
    pub(crate) unsafe fn take_uses(&self) -> (FlowUses, [Dst; 2]) {
        // SAFETY: By the contract of this function. The routes are never dropped otherwise.
        unsafe {
            let uses = FlowUses {
                ingress_paths: self
                    .shared
                    .ingress_paths
                    .each_ref()
                    .map(|path| path.as_ref().map(|path| path.take())),
                next_hops: self.entries.each_ref().map(|entry| entry.take_next_hop()),
            };

            (
                uses,
                self.entries
                    .each_ref()
                    .map(|entry| ptr::read(&raw const *entry.dst)),
            )
        }
    }

    /// Frees a flow, except for what [`Flow::take_uses`] takes.
    ///
    /// # Safety
    ///
    /// `flow` came from [`NewFlow::make`] and nobody else knows it.
    pub(crate) unsafe fn destroy(flow: NonNull<Self>) {
        // SAFETY: The caller gives the flow away; its references are dropped once, here.
        unsafe {
            let this = &mut *flow.as_ptr();

            for entry in &mut this.entries {
                entry.set_dead();
            }
            ManuallyDrop::drop(&mut this.shared.ct);
            F::cache().free(flow.cast());
        }
    }
}
