// SPDX-License-Identifier: GPL-2.0

//! nf_tables' object of a flowtable, and the rulesets of a network namespace.
//!
//! C header: [`include/net/netfilter/nf_tables.h`](srctree/include/net/netfilter/nf_tables.h)

use crate::ffi::{
    self,
    c,
    NetRef, //
};
use core::{
    mem::offset_of,
    ptr::NonNull, //
};
use kernel::str::{
    CStr,
    CStrExt, //
};

/// `struct nft_flowtable`, which begins before the `struct nf_flowtable` that netfilter knows.
///
/// # Invariants
///
/// The pointer is to the `struct nf_flowtable` of one of a type of ours, which is valid as long as
/// the value is used: until ours has been closed, which waits for walks over the list of a
/// namespace. Its namespace is in use as long.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct NftRef(NonNull<c::nf_flowtable>);

// SAFETY: Nothing is bound to a thread.
unsafe impl Send for NftRef {}
// SAFETY: As above; what nf_tables changes is read as single words.
unsafe impl Sync for NftRef {}

impl NftRef {
    /// What nf_tables passes to a flowtable type of ours.
    ///
    /// # Safety
    ///
    /// It fulfils the type's invariants as long as the value is used.
    pub(crate) unsafe fn from_nf(nf: NonNull<c::nf_flowtable>) -> Self {
        // INVARIANT: By the contract of this function.
        Self(nf)
    }

    /// nf_tables' object, for calls into C.
    pub(crate) fn as_ptr(self) -> *mut c::nft_flowtable {
        self.0
            .as_ptr()
            .wrapping_byte_sub(offset_of!(c::nft_flowtable, data))
            .cast()
    }

    /// The part that netfilter knows, for calls into C.
    pub(crate) fn nf(self) -> NonNull<c::nf_flowtable> {
        self.0
    }

    /// The flags of the flowtable, which nf_tables may change at any time.
    #[inline(always)]
    pub(crate) fn flags(self) -> u32 {
        // SAFETY: Valid by the type invariant.
        unsafe { ffi::read_once(&raw const (*self.0.as_ptr()).flags) }
    }

    /// The family of the table that it is in (`NFPROTO_*`).
    pub(crate) fn family(self) -> u32 {
        // SAFETY: By the type invariant. A flowtable has a type from its creation on.
        unsafe { (*(*self.0.as_ptr()).type_).family as u32 }
    }

    /// Whose packets it is for: IPv4, IPv6.
    pub(crate) fn families(self) -> [bool; 2] {
        let family = self.family();

        [c::NFPROTO_IPV4, c::NFPROTO_IPV6].map(|one| [one, c::NFPROTO_INET].contains(&family))
    }

    /// The network namespace.
    pub(crate) fn net<'a>(self) -> NetRef<'a> {
        // SAFETY: By the type invariant, which says that of the namespace as well.
        unsafe { NetRef::from_raw(c::nfo_ft_net(self.0.as_ptr())) }
    }

    /// The names of the table and of the flowtable.
    pub(crate) fn names(&self) -> [&CStr; 2] {
        let nft = self.as_ptr();

        // SAFETY: By the type invariant. nf_tables keeps table and flowtable with their names.
        unsafe { [(*(*nft).table).name, (*nft).name].map(|name| CStr::from_char_ptr(name.cast())) }
    }
}

/// The rulesets of a network namespace: which one is in force.
///
/// # Invariants
///
/// The namespace is in use as long as the value is used.
#[repr(transparent)]
pub(crate) struct Rulesets(NonNull<c::netns_nftables>);

// SAFETY: Nothing is bound to a thread.
unsafe impl Send for Rulesets {}
// SAFETY: As above; both fields are written with single stores.
unsafe impl Sync for Rulesets {}

impl Rulesets {
    /// Those of the namespace of a flowtable.
    pub(crate) fn of(nft: NftRef) -> Self {
        // INVARIANT: As long as the flowtable is.
        // SAFETY: Valid by the invariant of `NftRef`.
        Self(unsafe { NonNull::new_unchecked(&raw mut (*nft.net().as_ptr()).nft) })
    }

    /// The sequence number, which a commit raises first.
    #[inline(always)]
    pub(crate) fn sequence(&self) -> u32 {
        // SAFETY: Valid by the type invariant.
        unsafe { ffi::read_once(&raw const (*self.0.as_ptr()).base_seq) }
    }

    /// Which of two generations is in force: a bit.
    #[inline(always)]
    pub(crate) fn cursor(&self) -> u32 {
        // SAFETY: Valid by the type invariant.
        let cursor = unsafe { (&raw const (*self.0.as_ptr()).gencursor).read_volatile() };

        u32::from(cursor & 1)
    }
}
