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
    ffi::c,
    flowtable::Inner,
    walk::{
        Gate,
        Input,
        MAX_DEVICES,
        MAX_GATES, //
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
use kernel::prelude::*;
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
        InsertError,
        Item,
        Visit, //
    }, //
};

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
    /// Bridges that the packets pass.
    gates: [Option<Gate>; MAX_GATES],
    /// The bridges take them. Assumed of a new shape, until the worker has asked.
    open: AtomicBool,
    asked: AtomicBool,
    /// The spanning tree's part in that.
    forwarded: AtomicBool,
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
    pub(crate) unsafe fn count_rx(&self, net: *mut c::net, ifindex: u32, len: u32) {
        // SAFETY: By the contract of this function; both arrays have this length.
        unsafe {
            c::nfo_count_rx(
                net,
                self.devices.as_ptr(),
                self.around.as_ptr(),
                MAX_DEVICES as u32,
                ifindex,
                len,
            );
        }
    }

    /// Is it the shape of packets that come in by `input`?
    pub(crate) fn is_of(&self, input: &Input<'_>) -> bool {
        let frame = input.layer.encaps.shape(input.ifindex);

        if self.mac != input.layer.mac
            || self.devices != input.layer.devices
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

                    !dev.is_null() && (c::nfo_dev_filters(dev) || tunnel && c::nfo_dev_ipsec(dev))
                }
            })
    }

    /// Asks the bridges again. Of the spanning tree only with `rtnl` held.
    fn look_again(&self, net: *mut c::net, rtnl: bool) {
        let forwarded = self.forwarded.load(Ordering::Relaxed);
        let open = |gate: &Gate| gate.is_open(net, rtnl, forwarded);
        let open = self.gates.iter().flatten().all(open);

        if rtnl {
            self.forwarded.store(open, Ordering::Relaxed);
            self.asked.store(true, Ordering::Relaxed);
        }
        self.open.store(open, Ordering::Relaxed);
    }

    fn has_same_way(&self, other: &Self) -> bool {
        self.mac == other.mac && self.devices == other.devices && self.gates == other.gates
    }
}

/// Asks the bridges of some shapes again, from `cursor` on. Of the spanning tree only with `rtnl`
/// held. True if there are more.
pub(crate) fn look_again(
    inner: &mut Inner,
    cursor: &mut Cursor,
    net: *mut c::net,
    rtnl: bool,
) -> bool {
    const BUCKETS_AT_ONCE: usize = 32;

    inner.shapes.visit(cursor, BUCKETS_AT_ONCE, |shape| {
        // SAFETY: In the table, hence valid; the lock is held.
        let shape = unsafe { shape.as_ref() };

        if shape.gates[0].is_some() {
            shape.look_again(net, rtnl);
        }
        Visit::Keep
    })
}

/// A number that no shape has. They are given out in turn.
fn free_number(inner: &mut Inner) -> Option<PortId> {
    const TRIES: usize = 16;

    for _ in 0..TRIES {
        let Some(port) = PortId::from_interned(inner.next_shape) else {
            inner.next_shape = 0;
            inner.shapes_wrapped = true;
            continue;
        };
        let mut taken = false;

        inner.next_shape += 1;
        if inner.shapes_wrapped {
            inner
                .shapes
                .visit(&mut Cursor::default(), usize::MAX, |shape| {
                    // SAFETY: In the table, hence valid; the lock is held.
                    taken |= unsafe { shape.as_ref() }.port == port;
                    Visit::Keep
                });
        }
        if !taken {
            return Some(port);
        }
    }
    None
}

/// Memory for the shapes that an input may need: allocated before the lock is taken.
pub(crate) struct Reserve([Option<KBox<Shape>>; 2]);

impl Reserve {
    /// Allocates what `input` may need.
    pub(crate) fn new(input: &Input<'_>) -> Result<Self, SkipReason> {
        let one = |needed: bool, key: Key6, devices: [u32; MAX_DEVICES]| {
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
                gates: input.layer.gates,
                open: AtomicBool::new(true),
                asked: AtomicBool::new(!input.is_bridged()),
                forwarded: AtomicBool::new(true),
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
        let key = layer.encaps.shape(input.ifindex);

        let frame = one(input.has_frame_shape(), key, layer.devices_outside())?;
        // The key is completed when the number of the frame's shape is known.
        let tunnel = one(layer.tunnel.is_some(), key, layer.devices)?;
        Ok(Self([frame, tunnel]))
    }
}

/// Finds or makes the shapes of an input, and counts the use of the one that flows have in their
/// keys. None: packets come in as they are, and the interface is their port.
pub(crate) fn intern(
    inner: &mut Inner,
    input: &Input<'_>,
    reserve: &mut Reserve,
) -> Result<Option<NonNull<Shape>>, SkipReason> {
    let [frame, tunnel] = &mut reserve.0;
    let frame = match frame.take() {
        Some(shape) => {
            let numbered = !input.layer.encaps.is_empty();
            Some(get_or_insert(inner, shape, numbered)?)
        }
        None => None,
    };
    let (Some(mut shape), Some((saddr, daddr, proto))) = (tunnel.take(), input.layer.tunnel) else {
        return Ok(frame);
    };

    // SAFETY: We hold a use of it.
    let port = frame.map_or(input.ifindex, |f| unsafe { f.as_ref() }.port);
    shape.key = encap::tunnel_shape(saddr, daddr, proto, port);
    shape.hash = shape.key.hash(input.seed);
    shape.parent = frame;
    match get_or_insert(inner, shape, true) {
        Ok(shape) => Ok(Some(shape)),
        Err(e) => {
            if let Some(frame) = frame {
                // SAFETY: The use that was counted above.
                unsafe { release(inner, frame) };
            }
            Err(e)
        }
    }
}

fn get_or_insert(
    inner: &mut Inner,
    mut new: KBox<Shape>,
    numbered: bool,
) -> Result<NonNull<Shape>, SkipReason> {
    if numbered {
        new.port = free_number(inner).ok_or(SkipReason::Ifindex)?;
    }
    let parent = new.parent;
    let new = NonNull::from(KBox::leak(new));

    // SAFETY: The shape is freed a grace period after it was removed.
    match unsafe { inner.shapes.insert(new) } {
        Ok(()) => Ok(new),
        Err(e) => {
            // SAFETY: Leaked above, and seen by nobody.
            let new = unsafe { KBox::from_raw(new.as_ptr()) };
            let InsertError::Exists(old) = e else {
                return Err(SkipReason::TableFull);
            };
            // SAFETY: In the table, hence valid; the lock is held.
            if !unsafe { old.as_ref() }.has_same_way(&new) {
                // Its flows are about to be taken down.
                return Err(SkipReason::PathChange);
            }
            // SAFETY: In the table, hence valid; the lock is held.
            unsafe { old.as_ref() }.refs.fetch_add(1, Ordering::Relaxed);
            if let Some(parent) = parent {
                // The old one holds a use of its own.
                // SAFETY: The use was the new one's.
                unsafe { release(inner, parent) };
            }
            Ok(old)
        }
    }
}

/// Ends a use of a shape.
///
/// # Safety
///
/// The use was counted by [`intern`], and ends once.
pub(crate) unsafe fn release(inner: &mut Inner, shape: NonNull<Shape>) {
    /// # Safety
    ///
    /// Called by RCU only, for the `rcu` of a shape that [`release`] has removed.
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
        inner.shapes.remove(this);
        // SAFETY: Out of the table; the callback frees it.
        unsafe { c::call_rcu(&raw mut (*shape.as_ptr()).rcu, Some(callback)) };
    }
}
