// SPDX-License-Identifier: GPL-2.0

//! A flowtable's hook at a device that is not in its list, see `src/ffi/links.c`.

use crate::{
    ffi::{
        c,
        NetRef, //
    },
    net::nf_tables::NftRef, //
};
use core::ptr::NonNull;

/// A hook at the device with this index, or what is left of it.
///
/// # Invariants
///
/// Made by `nfo_follow()`, and owned.
pub(crate) struct Follow(NonNull<c::nfo_follow>, u32);

// SAFETY: Nothing is bound to a thread.
unsafe impl Send for Follow {}

impl Follow {
    /// Makes a hook for the flowtable `nft` at a device of `net`.
    pub(crate) fn new(net: NetRef<'_>, ifindex: u32, nft: NftRef) -> Option<Self> {
        // SAFETY: By the invariants of the types; the flowtable takes its hooks away before it is
        // closed.
        let follow = unsafe { c::nfo_follow(net.as_ptr(), ifindex, nft.nf().as_ptr()) };

        // INVARIANT: Just made.
        NonNull::new(follow).map(|follow| Self(follow, ifindex))
    }

    /// The number of the device.
    pub(crate) fn ifindex(&self) -> u32 {
        self.1
    }

    /// The name of the device, if it is still there, with a NUL behind it.
    pub(crate) fn name(&self) -> Option<[u8; 16]> {
        let mut name = [0; 16];

        // SAFETY: By the type invariant; names have that size.
        unsafe { c::nfo_follow_name(self.0.as_ptr(), &mut name) }.then_some(name)
    }

    /// Takes the hook away; false if it was not there any more.
    pub(crate) fn end(self) -> bool {
        // SAFETY: By the type invariant; this is the last use.
        unsafe { c::nfo_unfollow(self.0.as_ptr()) }
    }
}
