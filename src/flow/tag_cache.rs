// SPDX-License-Identifier: GPL-2.0

//! A short cut to the ingress paths of frames with one VLAN tag and nothing else around the packet.
//!
//! To look such a path up by its key costs as much as forwarding the packet. A few slots hold one
//! path each, found by device and tag; a path that has lost its slot to another one is looked up as
//! before.

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

const SLOTS: usize = 16;

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
    fn slot(&self, key: u64) -> &AtomicPtr<IngressPath> {
        let key = key ^ (key >> 32);
        let [a, b, c, d, ..] = key.to_ne_bytes();

        // Fewer than 256 slots, and as many as a power of two.
        &self.0[usize::from(a ^ b ^ c ^ d) % SLOTS]
    }

    /// Returns the path of frames with the key `key`, see [`IngressPath::tag_key`].
    #[inline(always)]
    pub(crate) fn find<'a>(&'a self, _: Rcu<'a>, key: u64) -> Option<&'a IngressPath> {
        // SAFETY: By the type invariant; RCU is held for `'a`.
        let path = unsafe { self.slot(key).load(Ordering::Acquire).as_ref() };

        path.filter(|path| path.tag_key() == key)
    }

    /// Gives a path of the table a slot, if it is of such frames. The flowtable's lock is held.
    pub(crate) fn put(&self, path: &IngressPath) {
        if path.tag_key() != 0 {
            // INVARIANT: It is in the table, and taken out by `remove` before it is freed.
            self.slot(path.tag_key())
                .store(ptr::from_ref(path).cast_mut(), Ordering::Release);
        }
    }

    /// Takes a path that leaves the table out. The flowtable's lock is held.
    pub(crate) fn remove(&self, path: &IngressPath) {
        let slot = self.slot(path.tag_key());

        if ptr::eq(slot.load(Ordering::Relaxed), path) {
            slot.store(ptr::null_mut(), Ordering::Relaxed);
        }
    }
}
