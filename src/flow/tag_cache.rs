// SPDX-License-Identifier: GPL-2.0

//! A short cut to the ingress paths of frames with one VLAN tag, a PPPoE session, or a session in a
//! VLAN, around the packet.
//!
//! To look such a path up by its key costs as much as forwarding the packet. A few slots hold one
//! path each, found by device, tag and session; a path that has lost its slot to another one is
//! looked up as before.

use crate::{
    ffi::Rcu,
    flow::ingress_path::IngressPath, //
};
use core::{
    ptr,
    sync::atomic::{
        AtomicPtr,
        Ordering, //
    }, //
};
use nft_flow::{
    encap::{
        ethertype,
        Encaps, //
    },
    key::Key6, //
};

const SLOTS: usize = 16;

/// What frames have around the packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameKey {
    /// The interface that the frame enters by, and its tag (`skb->vlan_all`); 0 if there is more
    /// around the packet than this key can express.
    pub(crate) tag: u64,
    /// The PPPoE session and the address of its peer, see [`session`]; 0 for none.
    pub(crate) session: u64,
}

impl FrameKey {
    /// That of frames which have more around the packet.
    pub(crate) const NONE: Self = Self { tag: 0, session: 0 };

    /// Returns that of frames whose ingress path has the key `key`.
    pub(crate) fn of(key: &Key6) -> Self {
        let encaps = Encaps::of_key(key);
        let (tag, id) = match encaps.as_slice() {
            [session] if encaps.has_session() => (None, Some(session.id())),
            [tag] => (Some(tag), None),
            [tag, session] if session.ethertype() == ethertype::PPPOE => {
                (Some(tag), Some(session.id()))
            }
            _ => return Self::NONE,
        };
        let Some(ifindex) = key.ingress.ingress().ifindex() else {
            return Self::NONE;
        };
        // `skb->vlan_all` is made of `vlan_proto`, in network byte order, and `vlan_tci`.
        let vlan_all = match tag {
            Some(tag) if tag.id() != 0 && tag.ethertype() != ethertype::PPPOE => {
                let [a, b] = tag.ethertype().to_be_bytes();
                let [c, d] = tag.id().to_ne_bytes();

                u32::from_ne_bytes([a, b, c, d])
            }
            Some(_) => return Self::NONE,
            None => 0,
        };
        let [a, b, c, d, e, f, ..] = key.daddr[0].to_le_bytes();

        FrameKey {
            tag: (u64::from(ifindex) << 32) | u64::from(vlan_all),
            session: id.map_or(0, |id| session(id, [a, b, c, d, e, f])),
        }
    }
}

/// Packs a PPPoE session and the address of its peer into a word.
#[inline(always)]
pub(crate) fn session(id: u16, peer: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = peer;

    u64::from_le_bytes([a, b, c, d, e, f, 0, 0]) | (u64::from(id) << 48)
}

/// The slots of a flowtable.
///
/// # Invariants
///
/// A slot is null or an ingress path that is in the flowtable's table, or was less than a grace
/// period ago. Slots are changed under the flowtable's lock.
pub(crate) struct TagCache([AtomicPtr<IngressPath>; SLOTS]);

impl TagCache {
    /// Makes empty slots.
    pub(crate) const fn new() -> Self {
        Self([const { AtomicPtr::new(ptr::null_mut()) }; SLOTS])
    }

    #[inline(always)]
    fn slot(&self, key: FrameKey) -> &AtomicPtr<IngressPath> {
        let word = key.tag ^ (key.tag >> 32) ^ (key.session >> 48);
        let [a, b, c, d, ..] = word.to_ne_bytes();

        // Fewer than 256 slots, and as many as a power of two.
        &self.0[usize::from(a ^ b ^ c ^ d) % SLOTS]
    }

    /// Returns the path of frames with the key `key`.
    #[inline(always)]
    pub(crate) fn find<'a>(&'a self, _: Rcu<'a>, key: FrameKey) -> Option<&'a IngressPath> {
        // SAFETY: By the type invariant; RCU is held for `'a`.
        let path = unsafe { self.slot(key).load(Ordering::Acquire).as_ref() };

        path.filter(|path| path.frame_key() == key)
    }

    /// Gives a path of the table a slot, if it is of such frames. The flowtable's lock is held.
    pub(crate) fn put(&self, path: &IngressPath) {
        if path.frame_key().tag != 0 {
            // INVARIANT: It is in the table, and taken out by `remove` before it is freed.
            self.slot(path.frame_key())
                .store(ptr::from_ref(path).cast_mut(), Ordering::Release);
        }
    }

    /// Takes a path that leaves the table out. The flowtable's lock is held.
    pub(crate) fn remove(&self, path: &IngressPath) {
        let slot = self.slot(path.frame_key());

        if ptr::eq(slot.load(Ordering::Relaxed), path) {
            slot.store(ptr::null_mut(), Ordering::Relaxed);
        }
    }
}
