// SPDX-License-Identifier: GPL-2.0

//! Shapes: numbers for what lies around packets when they come in.
//!
//! The key of a flow has 24 bits for where a packet enters. For a packet without encapsulation that
//! is the interface; any other combination of interface, VLAN tags, PPPoE session and tunnel is a
//! shape, which is numbered when the first flow needs it and forgotten with the last one. The
//! packet path looks shapes up in a table like that of the flows.
//!
//! A shape of packets that pass a bridge is open as long as the bridge takes them from the port.
//! The worker looks after that: spanning tree and VLANs of a port change without any notice to the
//! flows behind it.

use crate::{
    ffi::{
        self,
        c, //
    },
    net::{
        bridge::Gate,
        device_path::{
            Input,
            MAX_DEVICES,
            MAX_GATES, //
        },
        rx_stats::{
            Devices,
            RxStats, //
        }, //
    }, //
};
use core::{
    mem::offset_of,
    ptr::{
        self,
        NonNull, //
    },
    sync::atomic::{
        AtomicBool,
        AtomicU32,
        Ordering, //
    }, //
};
use kernel::{
    prelude::*,
    types::Opaque, //
};
use nft_flow::{
    encap::{
        self,
        Encaps, //
    },
    key::{
        Key,
        Key6,
        PortId, //
    },
    reason::SkipReason,
    table::{
        Cursor,
        Item,
        Visit,
        Writer, //
    },
    turn::Turn, //
};

/// Most devices that a flowtable follows.
pub(crate) const MAX_FOLLOWED: usize = 64;

/// A shape.
///
/// # Invariants
///
/// `refs` is the number of flows and tunnels that use it; changed under the flowtable's lock.
pub(crate) struct Shape {
    key: Key6,
    hash: u32,
    /// What stands in the keys of flows.
    pub(crate) port: PortId,
    /// The address that frames are sent to. A bridge or VLAN device may have another one than the
    /// device that the frame comes in through.
    pub(crate) mac: [u8; 6],
    /// Indices of the devices between the wire and the route, 0 for none.
    pub(crate) devices: [u32; MAX_DEVICES],
    /// How many bytes their receive counters see around the IP packet.
    around: [u8; MAX_DEVICES],
    /// Nobody has listed the device that they come in by; it has the hook because of this.
    followed: bool,
    /// `jiffies` when a walk last found it so; of a tunnel that is followed.
    found: AtomicU32,
    /// Bridges that the packets pass.
    gates: [Option<Gate>; MAX_GATES],
    /// The bridges take them, as far as they have been asked.
    open: AtomicBool,
    asked: AtomicBool,
    /// The spanning tree's part in that.
    forwarded: AtomicBool,
    /// Where the devices count packets.
    rx_stats: RxStats,
    parent: Option<NonNull<Shape>>,
    refs: AtomicU32,
    rcu: c::callback_head,
}

// SAFETY: The pointer to the parent is counted; the rest is plain data.
unsafe impl Send for Shape {}
// SAFETY: As above.
unsafe impl Sync for Shape {}

// SAFETY: Key and hash never change.
unsafe impl Item for Shape {
    type Key = Key6;

    #[inline(always)]
    fn key(&self) -> &Key6 {
        &self.key
    }

    #[inline(always)]
    fn hash(&self) -> u32 {
        self.hash
    }
}

impl Shape {
    /// A packet of `len` bytes was picked up at the device `ifindex`: the devices above it, which it
    /// does not pass, count it as received.
    ///
    /// # Safety
    ///
    /// `net` is the namespace of the devices; called by the hook.
    #[inline(always)]
    pub(crate) unsafe fn count_rx(
        &self,
        net: impl FnOnce() -> *mut c::net,
        ifindex: u32,
        len: u32,
    ) {
        let devices = Devices {
            ifindices: &self.devices,
            around: &self.around,
            last: ifindex,
        };

        // SAFETY: By the contract of this function. The hook knows a shape by the device.
        unsafe { self.rx_stats.count(net, &devices, len) };
    }

    /// Is it the shape of packets that come in by `input`?
    pub(crate) fn is_of(&self, input: &Input<'_>) -> bool {
        let frame = input.layer.encaps.shape(input.ifindex, input.layer.peer);

        if self.mac != input.layer.mac
            || self.devices != input.layer.devices
            || self.followed != input.followed
            || self.gates != input.layer.gates
        {
            return false;
        }
        match input.layer.tunnel {
            None => self.key == frame,
            Some((saddr, daddr, proto)) => {
                // SAFETY: A shape holds a use of its parent.
                let parent = self.parent.map(|p| unsafe { p.as_ref() });
                let port = parent.map_or(input.ifindex, |p| p.port);

                parent.is_none_or(|p| p.key == frame)
                    && parent.is_some() == input.has_frame_shape()
                    && self.key == encap::tunnel_shape(saddr, daddr, proto, port)
            }
        }
    }

    /// Is it the way in by a tunnel alone, which is followed, and has a walk said so less than half a second
    /// ago? That depends on nothing that flows differ in.
    pub(crate) fn was_found(&self, now: u32) -> bool {
        self.followed
            && self.devices[1] == 0
            && now.wrapping_sub(self.found.load(Ordering::Relaxed)) < ffi::HZ / 2
    }

    /// A walk has found it so.
    pub(crate) fn find(&self, now: u32) {
        self.found.store(now, Ordering::Relaxed);
    }

    /// Interface and encapsulations of the frames, and is there a tunnel in them?
    pub(crate) fn frame(&self) -> (PortId, Encaps, bool) {
        if self.key.ports == 0 {
            return (self.key.port.port(), Encaps::of_shape(&self.key), false);
        }
        // SAFETY: A shape holds a use of its parent.
        match self.parent.map(|p| unsafe { p.as_ref() }) {
            Some(p) => (p.key.port.port(), Encaps::of_shape(&p.key), true),
            None => (self.key.port.port(), Encaps::default(), true),
        }
    }

    /// Would packets that come in by it be let up?
    #[inline(always)]
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Would they, unless the bridges have yet to be asked?
    pub(crate) fn may_be_open(&self) -> bool {
        self.is_open() || !self.is_known()
    }

    /// Have the bridges been asked?
    pub(crate) fn is_known(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Would a device above the one where packets are picked up filter them, or a tunnel?
    ///
    /// # Safety
    ///
    /// RCU is held, and `net` is the namespace of the devices.
    pub(crate) unsafe fn is_filtered(&self, net: *mut c::net) -> bool {
        self.devices
            .iter()
            .zip(self.devices.iter().skip(1))
            .take_while(|(_, below)| **below != 0)
            .any(|(dev, _)| {
                // SAFETY: By the contract of this function.
                unsafe {
                    let dev = c::dev_get_by_index_rcu(net, *dev as i32);
                    let tunnel = self.key.ports != 0;

                    !dev.is_null()
                        && (c::nfo_dev_filters(dev)
                            || c::nfo_ppp_filters(dev)
                            || tunnel && c::nfo_dev_ipsec(dev))
                }
            })
    }

    /// Asks the bridges again. Of the spanning tree only with `rtnl` held.
    fn recheck(&self, net: *mut c::net, rtnl: bool) {
        let forwarded = self.forwarded.load(Ordering::Relaxed);
        let open = |gate: &Gate| gate.is_open(net, rtnl, forwarded);
        let open = self.gates.iter().flatten().all(open);

        if rtnl {
            self.forwarded.store(open, Ordering::Relaxed);
            self.asked.store(true, Ordering::Relaxed);
        }
        self.open.store(open && self.is_known(), Ordering::Relaxed);
    }

    /// Do its packets pass a bridge?
    fn is_gated(&self) -> bool {
        self.gates[0].is_some()
    }

    fn has_same_way(&self, other: &Self) -> bool {
        self.mac == other.mac
            && self.devices == other.devices
            && self.followed == other.followed
            && self.gates == other.gates
    }
}

/// The numbers of shapes: which are in use.
///
/// # Invariants
///
/// Initialised, until it is dropped.
#[pin_data(PinnedDrop)]
pub(crate) struct Numbers {
    #[pin]
    ida: Opaque<c::ida>,
}

// SAFETY: C has a lock in it.
unsafe impl Send for Numbers {}
// SAFETY: As above.
unsafe impl Sync for Numbers {}

impl Numbers {
    /// None is in use.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: The slot is ours, and pinned.
            ida <- Opaque::ffi_init(|ida| unsafe { c::nfo_numbers_init(ida) }),
        })
    }

    /// Takes the next one.
    fn take(&self, turn: &mut Turn) -> Result<PortId, SkipReason> {
        let number = turn.take(|from, to| {
            // SAFETY: Initialised by the type invariant.
            let number = unsafe { c::nfo_number_claim(self.ida.get(), from, to) };

            u32::try_from(number).map_err(|_| match Error::from_errno(number) {
                ENOMEM => SkipReason::NoMem,
                _ => SkipReason::Ifindex,
            })
        })?;

        PortId::from_interned(number).ok_or(SkipReason::Ifindex)
    }

    /// Gives one back, if it is one.
    fn give_back(&self, port: PortId) {
        if let Some(number) = port.interned() {
            // SAFETY: Initialised by the type invariant.
            unsafe { c::nfo_number_free(self.ida.get(), number) };
        }
    }
}

#[pinned_drop]
impl PinnedDrop for Numbers {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Initialised by the type invariant, and not used any more.
        unsafe { c::nfo_numbers_destroy(self.ida.get()) };
    }
}

/// Memory for the shapes that an input may need: allocated before the lock is taken.
pub(crate) struct Reserve([Option<KBox<Shape>>; 2]);

impl Reserve {
    /// Allocates what `input` may need.
    pub(crate) fn new(input: &Input<'_>) -> Result<Self, SkipReason> {
        let one = |needed: bool, key: Key6, devices: [u32; MAX_DEVICES], followed: bool| {
            if !needed {
                return Ok(None);
            }
            let shape = Shape {
                hash: key.hash(input.seed),
                key,
                port: input.ifindex,
                mac: input.layer.mac,
                devices,
                around: input.layer.around,
                followed,
                found: AtomicU32::new(ffi::jiffies32()),
                gates: input.layer.gates,
                open: AtomicBool::new(!input.is_bridged()),
                asked: AtomicBool::new(!input.is_bridged() && !followed),
                forwarded: AtomicBool::new(true),
                rx_stats: RxStats::default(),
                parent: None,
                refs: AtomicU32::new(1),
                rcu: c::callback_head {
                    next: ptr::null_mut(),
                    func: None,
                },
            };
            KBox::new(shape, GFP_ATOMIC | __GFP_NOWARN)
                .map(Some)
                .map_err(|_| SkipReason::NoMem)
        };
        let layer = &input.layer;
        let key = layer.encaps.shape(input.ifindex, layer.peer);

        let outside = layer.devices_outside();
        let frame = one(input.has_frame_shape(), key, outside, input.followed)?;
        // The key is completed when the number of the frame's shape is known.
        let tunnel = one(layer.tunnel.is_some(), key, layer.devices, false)?;
        Ok(Self([frame, tunnel]))
    }
}

/// The shapes of a flowtable, under its lock.
pub(crate) struct IngressTable {
    writer: Writer<Shape>,
    /// Numbers of shapes.
    turn: Turn,
    /// Shapes that have to do with bridges.
    gated: usize,
    /// Shapes of devices that nobody has listed.
    followed: usize,
}

impl IngressTable {
    /// Those of a table with this writer: none.
    pub(crate) fn new(writer: Writer<Shape>) -> Self {
        Self {
            writer,
            turn: Turn::new(PortId::MAX_INTERNED),
            gated: 0,
            followed: 0,
        }
    }

    /// The writer, for a change of the table's size and its end.
    pub(crate) fn writer(&mut self) -> &mut Writer<Shape> {
        &mut self.writer
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.writer.len()
    }

    /// Are there none?
    pub(crate) fn is_empty(&self) -> bool {
        self.writer.is_empty()
    }

    /// How many have to do with bridges.
    pub(crate) fn gated(&self) -> usize {
        self.gated
    }

    /// How many are of devices that nobody has listed.
    pub(crate) fn followed(&self) -> usize {
        self.followed
    }

    /// Asks the bridges of some shapes again, from `cursor` on. Of the spanning tree only with `rtnl`
    /// held. True if there are more.
    pub(crate) fn recheck(&mut self, cursor: &mut Cursor, net: *mut c::net, rtnl: bool) -> bool {
        const BUCKETS_AT_ONCE: usize = 32;

        self.writer.visit(cursor, BUCKETS_AT_ONCE, |shape| {
            // SAFETY: In the table, hence valid; the lock is held.
            let shape = unsafe { shape.as_ref() };

            if shape.is_gated() {
                shape.recheck(net, rtnl);
            }
            Visit::Keep
        })
    }

    /// Gives the devices of some shapes that nobody has listed to `each`, from `cursor` on. True if there are more.
    pub(crate) fn each_followed(&mut self, cursor: &mut Cursor, mut each: impl FnMut(u32)) -> bool {
        const BUCKETS_AT_ONCE: usize = 64;

        self.writer.visit(cursor, BUCKETS_AT_ONCE, |shape| {
            // SAFETY: In the table, hence valid; the lock is held.
            let shape = unsafe { shape.as_ref() };

            if shape.followed {
                shape.asked.store(true, Ordering::Relaxed);
                if let Some(ifindex) = shape.key.port.port().ifindex() {
                    each(ifindex);
                }
            }
            Visit::Keep
        })
    }

    /// Finds or makes the shapes of an input, and counts the use of the one that flows have in their
    /// keys. None: packets come in as they are, and the interface is their port.
    pub(crate) fn intern(
        &mut self,
        numbers: &Numbers,
        input: &Input<'_>,
        reserve: &mut Reserve,
    ) -> Result<Option<NonNull<Shape>>, SkipReason> {
        let [frame, tunnel] = &mut reserve.0;
        let frame = match frame.take() {
            Some(shape) => {
                let numbered = !input.layer.encaps.is_empty();
                Some(self.get_or_insert(numbers, shape, numbered)?)
            }
            None => None,
        };
        let (Some(mut shape), Some((saddr, daddr, proto))) = (tunnel.take(), input.layer.tunnel)
        else {
            return Ok(frame);
        };

        // SAFETY: We hold a use of it.
        let port = frame.map_or(input.ifindex, |f| unsafe { f.as_ref() }.port);
        shape.key = encap::tunnel_shape(saddr, daddr, proto, port);
        shape.hash = shape.key.hash(input.seed);
        shape.parent = frame;
        match self.get_or_insert(numbers, shape, true) {
            Ok(shape) => Ok(Some(shape)),
            Err(e) => {
                if let Some(frame) = frame {
                    // SAFETY: The use that was counted above.
                    unsafe { self.release(numbers, frame) };
                }
                Err(e)
            }
        }
    }

    fn get_or_insert(
        &mut self,
        numbers: &Numbers,
        mut new: KBox<Shape>,
        numbered: bool,
    ) -> Result<NonNull<Shape>, SkipReason> {
        if let Some(old) = self.writer.find(&new) {
            // SAFETY: In the table, hence valid; the lock is held.
            let this = unsafe { old.as_ref() };

            if !this.has_same_way(&new) {
                // Its flows are about to be taken down.
                return Err(SkipReason::PathChange);
            }
            this.refs.fetch_add(1, Ordering::Relaxed);
            if let Some(parent) = new.parent {
                // The old one holds a use of its own.
                // SAFETY: The use was the new one's.
                unsafe { self.release(numbers, parent) };
            }
            return Ok(old);
        }

        if new.followed && self.followed >= MAX_FOLLOWED {
            return Err(SkipReason::DeviceNotListed);
        }
        if numbered {
            new.port = numbers.take(&mut self.turn)?;
        }
        let (gated, followed) = (new.is_gated(), new.followed);
        let new = NonNull::from(KBox::leak(new));

        // SAFETY: The shape is freed a grace period after it was removed.
        if unsafe { self.writer.insert(new) }.is_err() {
            // SAFETY: Leaked above, and seen by nobody.
            let new = unsafe { KBox::from_raw(new.as_ptr()) };

            if numbered {
                numbers.give_back(new.port);
            }
            return Err(SkipReason::TableFull);
        }
        self.followed = self.followed.wrapping_add(usize::from(followed));
        if gated {
            self.gated = self.gated.wrapping_add(1);
            // SAFETY: Ended by `release`.
            unsafe { c::nfo_bridge_get() };
        }
        Ok(new)
    }

    /// Ends a use of a shape.
    ///
    /// # Safety
    ///
    /// The use was counted by [`IngressTable::intern`], and ends once.
    pub(crate) unsafe fn release(&mut self, numbers: &Numbers, shape: NonNull<Shape>) {
        /// # Safety
        ///
        /// Called by RCU only, for the `rcu` of a shape that [`IngressTable::release`] has removed.
        unsafe extern "C" fn callback(head: *mut c::callback_head) {
            // SAFETY: `head` is the `rcu` of a leaked shape that nobody sees any more.
            unsafe {
                drop(KBox::<Shape>::from_raw(
                    head.byte_sub(offset_of!(Shape, rcu)).cast(),
                ));
            }
        }

        let mut next = Some(shape);
        while let Some(shape) = next {
            // SAFETY: Counted, hence valid.
            let this = unsafe { shape.as_ref() };

            if this.refs.fetch_sub(1, Ordering::Relaxed) != 1 {
                return;
            }
            next = this.parent;
            self.writer.remove(this);
            numbers.give_back(this.port);
            if this.is_gated() {
                self.gated = self.gated.wrapping_sub(1);
                // SAFETY: Counted when it was inserted.
                unsafe { c::nfo_bridge_put() };
            }
            self.followed = self.followed.wrapping_sub(usize::from(this.followed));
            // SAFETY: Out of the table; the callback frees it.
            unsafe { c::call_rcu(&raw mut (*shape.as_ptr()).rcu, Some(callback)) };
        }
    }
}
