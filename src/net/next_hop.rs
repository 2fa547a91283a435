// SPDX-License-Identifier: GPL-2.0

//! Next hops: a neighbour, and how packets to it leave. All flows of a flowtable share one.

use crate::{
    ffi::{
        self,
        c,
        Rcu,
        RcuHead, //
    },
    net::{
        direct::Direct,
        route::{
            Dst,
            Neigh,
            NeighRef, //
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
        AtomicPtr,
        AtomicU32,
        Ordering, //
    }, //
};
use kernel::prelude::*;
use nft_flow::{
    key::{
        AddrKey,
        Key,
        Seed, //
    },
    reason::SkipReason,
    table::Item, //
};

/// A next hop.
///
/// # Invariants
///
/// - `neigh` is null or a neighbour to which a reference is ours.
/// - `direct` is null or a box that is freed a grace period after it was exchanged.
#[repr(C)]
pub(crate) struct NextHop {
    neigh: AtomicPtr<c::neighbour>,
    direct: AtomicPtr<Direct>,
    /// `jiffies` when the worker was last asked for another way.
    asked: AtomicU32,
    /// It goes, and gets no other neighbour.
    closed: AtomicBool,
    /// It is in the table.
    pub(crate) listed: AtomicBool,
    /// Flows are of IPv6.
    pub(crate) v6: bool,
    /// Directions of flows that use it; under the flowtable's lock.
    pub(crate) uses: AtomicU32,
    /// The address of the neighbour that it was made for.
    key: AddrKey,
    hash: u32,
    rcu: RcuHead,
}

// SAFETY: Key and hash do not change.
unsafe impl Item for NextHop {
    type Key = AddrKey;

    fn key(&self) -> &AddrKey {
        &self.key
    }

    fn hash(&self) -> u32 {
        self.hash
    }
}

impl NextHop {
    /// The key of a neighbour's next hop.
    pub(crate) fn key_of(n: *mut c::neighbour, v6: bool) -> AddrKey {
        // Flows of both families may have a neighbour in common.
        AddrKey::new(n as usize | usize::from(v6))
    }

    /// A next hop with one use, in no table.
    pub(crate) fn new(neigh: Neigh, v6: bool, seed: &Seed) -> Result<KBox<Self>, SkipReason> {
        let key = Self::key_of(neigh.as_ptr(), v6);
        let memory = KBox::new_uninit(GFP_ATOMIC | __GFP_NOWARN).map_err(|_| SkipReason::NoMem)?;

        // INVARIANT: The reference is taken over.
        Ok(KBox::write(
            memory,
            Self {
                neigh: AtomicPtr::new(neigh.into_raw()),
                direct: AtomicPtr::new(ptr::null_mut()),
                asked: AtomicU32::new(ffi::jiffies32()),
                closed: AtomicBool::new(false),
                listed: AtomicBool::new(false),
                v6,
                uses: AtomicU32::new(1),
                hash: key.hash(seed),
                key,
                rcu: RcuHead::new(),
            },
        ))
    }

    /// The neighbour to send to, null if there is none any more. Valid until the end of the RCU
    /// section.
    #[inline(always)]
    pub(crate) fn neigh(&self) -> *mut c::neighbour {
        self.neigh.load(Ordering::Acquire)
    }

    /// The neighbour, in a section.
    pub(crate) fn neighbour<'a>(&self, rcu: Rcu<'a>) -> Option<NeighRef<'a>> {
        // SAFETY: By the type invariant; neighbours are freed a grace period after the last
        // reference is gone.
        unsafe { NeighRef::from_raw(self.neigh(), rcu) }
    }

    /// How packets leave past the upper devices, if they do.
    #[inline(always)]
    pub(crate) fn direct<'a>(&self, _: Rcu<'a>) -> Option<&'a Direct> {
        // SAFETY: By the type invariant; RCU is held.
        unsafe { self.direct.load(Ordering::Acquire).as_ref() }
    }

    /// Is the worker to be asked for another way past the devices? Not more often than once a
    /// jiffy.
    #[cold]
    pub(crate) fn ask(&self) -> bool {
        let now = ffi::jiffies32();

        self.asked.swap(now, Ordering::Relaxed) != now
    }

    /// Looks the neighbour up again, after it was flushed or deleted: `daddr` is where packets go
    /// by `dst`.
    #[cold]
    pub(crate) fn renew(&self, dst: &Dst, daddr: *const kernel::ffi::c_void) -> bool {
        let Some(new) = dst.neighbour(daddr) else {
            return false;
        };

        self.set_neigh(Some(new));
        true
    }

    fn set_neigh(&self, new: Option<Neigh>) {
        let new = new.map_or(ptr::null_mut(), Neigh::into_raw);
        let old = self.neigh.swap(new, Ordering::SeqCst);

        // SAFETY: It came from `into_raw`, and the exchange made us its only owner.
        drop(unsafe { Neigh::from_raw(old) });
        // It may have been closed, and have dropped the neighbour that we replaced, at the same
        // time.
        if self.closed.load(Ordering::SeqCst) && !new.is_null() {
            let ours = self.neigh.swap(ptr::null_mut(), Ordering::SeqCst);
            // SAFETY: As above.
            drop(unsafe { Neigh::from_raw(ours) });
        }
    }

    /// Exchanges the way past the devices. One caller at a time.
    pub(crate) fn set_direct(&self, new: Option<KBox<Direct>>) {
        let new = new.map_or(ptr::null_mut(), KBox::into_raw);
        let old = self.direct.swap(new, Ordering::AcqRel);

        if let Some(old) = NonNull::new(old) {
            // SAFETY: By the type invariant; the exchange made us its only owner.
            unsafe { Direct::free(old) };
        }
    }

    /// Gives neighbour and memory back, the latter after a grace period.
    ///
    /// # Safety
    ///
    /// It came from [`NextHop::new`], has no use and is in no table; called once.
    pub(crate) unsafe fn free(this: NonNull<Self>) {
        /// # Safety
        ///
        /// Called by RCU only, for the `rcu` of a next hop that [`NextHop::free`] was called for.
        unsafe extern "C" fn callback(head: *mut c::callback_head) {
            // SAFETY: `head` is the `rcu` of a leaked box that nobody sees any more.
            unsafe {
                drop(KBox::<NextHop>::from_raw(
                    head.byte_sub(offset_of!(NextHop, rcu)).cast(),
                ));
            }
        }

        // SAFETY: By the contract of this function.
        unsafe {
            let hop = this.as_ref();

            hop.closed.store(true, Ordering::SeqCst);
            hop.set_neigh(None);
            hop.set_direct(None);
            hop.rcu.call(callback);
        }
    }
}
