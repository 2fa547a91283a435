// SPDX-License-Identifier: GPL-2.0

//! The ingress paths of a flowtable: their numbers, how they are made, shared and freed.

use super::{
    bridges,
    IngressPath,
    PathRef, //
};
use crate::{
    ffi::{
        self,
        c,
        BridgeUse,
        Ida,
        NetRef,
        RcuHead, //
    },
    flow::tag_cache::FrameKey,
    net::{
        device_path::{
            Ingress,
            MAX_DEVICES, //
        },
        rx_stats::RxStats, //
    }, //
};
use core::{
    mem::offset_of,
    ptr::NonNull,
    sync::atomic::{
        AtomicU32,
        AtomicU8,
        Ordering, //
    }, //
};
use kernel::prelude::*;
use nft_flow::{
    encap,
    key::{
        IngressId, //
        Key,
        Key6,
    },
    reason::SkipReason,
    table::{
        Cursor,
        Visit,
        Writer, //
    },
    turn::Turn, //
};

/// Most devices that a flowtable follows.
pub(crate) const MAX_FOLLOWED: usize = 64;

/// The numbers of ingress paths: which are in use.
#[pin_data]
pub(crate) struct IdPool {
    #[pin]
    ida: Ida,
}

impl IdPool {
    /// Makes a pool of which no number is in use.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self { ida <- Ida::new() })
    }

    /// Takes the next one.
    fn take(&self, turn: &mut Turn) -> Result<IngressId, SkipReason> {
        let number = turn.take(|from, to| {
            self.ida.claim(from, to).map_err(|e| match e {
                ENOMEM => SkipReason::NoMem,
                _ => SkipReason::Ifindex,
            })
        })?;

        IngressId::from_interned(number).ok_or(SkipReason::Ifindex)
    }

    /// Gives one back, if it is one.
    fn give_back(&self, id: IngressId) {
        if let Some(number) = id.interned() {
            self.ida.free(number);
        }
    }
}

/// Memory for the ingress paths that a new flow may need: allocated before the lock is taken.
pub(crate) struct Prealloc([Option<KBox<IngressPath>>; 2]);

impl Prealloc {
    /// Allocates what `ingress` may need.
    pub(crate) fn new(ingress: &Ingress<'_>) -> Result<Self, SkipReason> {
        let one = |needed: bool, key: Key6, devices: [u32; MAX_DEVICES], followed: bool| {
            if !needed {
                return Ok(None);
            }
            let path = IngressPath {
                hash: key.hash(ingress.seed),
                key,
                id: ingress.ifindex,
                mac: ingress.stack.mac,
                devices,
                rx_overhead: ingress.stack.rx_overhead,
                followed,
                found: AtomicU32::new(ffi::jiffies32()),
                bridge_ports: ingress.stack.bridge_ports,
                bridges: AtomicU8::new(match (ingress.is_bridged(), followed) {
                    (true, _) => 0,
                    (false, true) => bridges::OPEN,
                    (false, false) => bridges::OPEN | bridges::CHECKED,
                }),
                frame_key: FrameKey::of(&key),
                rx_stats: RxStats::default(),
                parent: None,
                refs: AtomicU32::new(1),
                rcu: RcuHead::new(),
            };
            KBox::new(path, GFP_ATOMIC | __GFP_NOWARN)
                .map(Some)
                .map_err(|_| SkipReason::NoMem)
        };
        let stack = &ingress.stack;
        let key = stack.encaps.key(ingress.ifindex, stack.peer);

        let outside = stack.devices_outside();
        let frame = one(ingress.needs_ingress_path(), key, outside, ingress.followed)?;
        // The key is completed when the number of the frame's ingress path is known.
        let tunnel = one(stack.tunnel.is_some(), key, stack.devices, false)?;
        Ok(Self([frame, tunnel]))
    }
}

/// The ingress paths of a flowtable, under its lock.
pub(crate) struct IngressTable {
    writer: Writer<IngressPath>,
    /// Numbers of ingress paths.
    turn: Turn,
    /// Shapes that have to do with bridges.
    bridged: usize,
    /// The bridge module, while there are such.
    bridge: Option<BridgeUse>,
    /// Shapes of devices that nobody has listed.
    followed: usize,
}

impl IngressTable {
    /// Makes the bookkeeping of an empty table with this writer.
    pub(crate) fn new(writer: Writer<IngressPath>) -> Self {
        Self {
            writer,
            turn: Turn::new(IngressId::MAX_INTERNED),
            bridged: 0,
            bridge: None,
            followed: 0,
        }
    }

    /// The writer, for a change of the table's size and its end.
    pub(crate) fn writer(&mut self) -> &mut Writer<IngressPath> {
        &mut self.writer
    }

    /// Returns the number of ingress paths.
    pub(crate) fn len(&self) -> usize {
        self.writer.len()
    }

    /// Whether the table has no ingress path.
    pub(crate) fn is_empty(&self) -> bool {
        self.writer.is_empty()
    }

    /// Returns the number of ingress paths through bridges.
    pub(crate) fn bridged(&self) -> usize {
        self.bridged
    }

    /// Returns the number of ingress paths of followed devices, which nobody has listed.
    pub(crate) fn followed(&self) -> usize {
        self.followed
    }

    /// Asks the bridges of some ingress paths again, from `cursor` on. Of the spanning tree only
    /// with `rtnl` held. True if there are more.
    pub(crate) fn recheck(&mut self, cursor: &mut Cursor, net: NetRef<'_>, rtnl: bool) -> bool {
        const BUCKETS_AT_ONCE: usize = 32;

        self.writer.visit(cursor, BUCKETS_AT_ONCE, |path| {
            if path.is_bridged() {
                path.recheck(net, rtnl);
            }
            Visit::Keep
        })
    }

    /// Gives the devices of some ingress paths that nobody has listed to `each`, from `cursor` on.
    /// True if there are more.
    pub(crate) fn each_followed(&mut self, cursor: &mut Cursor, mut each: impl FnMut(u32)) -> bool {
        const BUCKETS_AT_ONCE: usize = 64;

        self.writer.visit(cursor, BUCKETS_AT_ONCE, |path| {
            if path.followed {
                path.set_followed();
                if let Some(ifindex) = path.key.ingress.ingress().ifindex() {
                    each(ifindex);
                }
            }
            Visit::Keep
        })
    }

    /// Finds or makes the ingress paths of `ingress`, and counts the use of the one that flows have
    /// in their keys. None: packets come in as they are, and the interface is their port.
    pub(crate) fn intern(
        &mut self,
        on_remove: &dyn Fn(&IngressPath),
        ids: &IdPool,
        ingress: &Ingress<'_>,
        reserve: &mut Prealloc,
    ) -> Result<Option<PathRef>, SkipReason> {
        let [frame, tunnel] = &mut reserve.0;
        let frame = match frame.take() {
            Some(path) => {
                let numbered = !ingress.stack.encaps.is_empty();
                Some(self.get_or_insert(on_remove, ids, path, numbered)?)
            }
            None => None,
        };
        let (Some(mut path), Some((saddr, daddr, proto))) = (tunnel.take(), ingress.stack.tunnel)
        else {
            return Ok(frame);
        };

        let id = frame.as_ref().map_or(ingress.ifindex, |f| f.id);
        path.key = encap::tunnel_key(saddr, daddr, proto, id);
        path.hash = path.key.hash(ingress.seed);
        path.frame_key = FrameKey::NONE;
        path.parent = frame;
        self.get_or_insert(on_remove, ids, path, true).map(Some)
    }

    /// Puts a new ingress path into the table, or finds the one that is there already. If that or
    /// neither is the case the new one's use of its parent ends.
    fn get_or_insert(
        &mut self,
        on_remove: &dyn Fn(&IngressPath),
        ids: &IdPool,
        mut new: KBox<IngressPath>,
        numbered: bool,
    ) -> Result<PathRef, SkipReason> {
        if let Some(old) = self.writer.find(&new) {
            // INVARIANT: In the table, and counted below; or not used.
            let this = PathRef(old);
            // The old one holds a use of its own.
            if let Some(parent) = new.parent.take() {
                self.release(on_remove, ids, parent);
            }

            if !this.is_same_path(&new) {
                // Its flows are about to be taken down.
                return Err(SkipReason::PathChange);
            }
            this.refs.fetch_add(1, Ordering::Relaxed);
            return Ok(this);
        }

        self.insert(ids, new, numbered).map_err(|(why, mut new)| {
            if let Some(parent) = new.parent.take() {
                self.release(on_remove, ids, parent);
            }
            why
        })
    }

    fn insert(
        &mut self,
        ids: &IdPool,
        mut new: KBox<IngressPath>,
        numbered: bool,
    ) -> Result<PathRef, (SkipReason, KBox<IngressPath>)> {
        if new.followed && self.followed >= MAX_FOLLOWED {
            return Err((SkipReason::DeviceNotListed, new));
        }
        if numbered {
            match ids.take(&mut self.turn) {
                Ok(id) => new.id = id,
                Err(why) => return Err((why, new)),
            }
        }
        let (bridged, followed) = (new.is_bridged(), new.followed);
        let new = NonNull::from(KBox::leak(new));

        // SAFETY: The ingress path is freed a grace period after it was removed.
        if unsafe { self.writer.insert(new) }.is_err() {
            // SAFETY: Leaked above, and seen by nobody.
            let new = unsafe { KBox::from_raw(new.as_ptr()) };

            if numbered {
                ids.give_back(new.id);
            }
            return Err((SkipReason::TableFull, new));
        }
        self.followed = self.followed.wrapping_add(usize::from(followed));
        if bridged {
            self.bridged = self.bridged.wrapping_add(1);
            self.bridge.get_or_insert_with(BridgeUse::new);
        }
        // INVARIANT: A new one has one use.
        Ok(PathRef(new))
    }

    /// Ends a use of an ingress path.
    pub(crate) fn release(
        &mut self,
        on_remove: &dyn Fn(&IngressPath),
        ids: &IdPool,
        path: PathRef,
    ) {
        /// # Safety
        ///
        /// Called by RCU only, for the `rcu` of an ingress path that [`IngressTable::release`] has
        /// removed.
        unsafe extern "C" fn callback(head: *mut c::callback_head) {
            // SAFETY: `head` is the `rcu` of a leaked ingress path that nobody sees any more.
            unsafe {
                drop(KBox::<IngressPath>::from_raw(
                    head.byte_sub(offset_of!(IngressPath, rcu)).cast(),
                ));
            }
        }

        let mut next = Some(path);
        while let Some(path) = next {
            let this = &*path;

            if this.refs.fetch_sub(1, Ordering::Relaxed) != 1 {
                return;
            }
            // INVARIANT: With the last use of it its own use of the parent ends.
            next = this.parent.as_ref().map(|parent| PathRef(parent.0));
            self.writer.remove(this);
            on_remove(this);
            ids.give_back(this.id);
            if this.is_bridged() {
                self.bridged = self.bridged.wrapping_sub(1);
                if self.bridged == 0 {
                    self.bridge = None;
                }
            }
            self.followed = self.followed.wrapping_sub(usize::from(this.followed));
            // SAFETY: Out of the table; the callback frees it.
            unsafe { this.rcu.call(callback) };
        }
    }
}
