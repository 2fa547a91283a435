// SPDX-License-Identifier: GPL-2.0

//! Tunnels that nobody has listed: their devices have the flowtable's hook as long as flows come in
//! by them.
//!
//! A tunnel that cannot say how its packets look from below is picked up where they come out of it.
//! That their outer packets come in by a listed device is seen to by [`crate::net::device_path`];
//! each of them is an [`IngressPath`](crate::flow::ingress_path::IngressPath) in the table. The
//! worker compares that with the hooks that there are: flows are made where one cannot sleep. Until
//! the hook is there packets of that direction are slow. A device that goes takes its hook with it
//! (`src/ffi/links.c`).
//!
//! Lock order: [`Follows`], then that of `src/ffi/links.c`, which is taken under RTNL; RTNL is
//! never taken under either. The flowtable's `inner` is not held around any of these.

use super::Flowtable;
use crate::{
    ffi::c,
    flow::ingress_path::MAX_FOLLOWED, //
};
use core::{
    ptr::NonNull,
    sync::atomic::{
        AtomicBool,
        Ordering, //
    }, //
};
use kernel::{
    fmt,
    new_mutex,
    prelude::*,
    str::{
        CStr,
        CStrExt, //
    },
    sync::Mutex, //
};
use nft_flow::table::Cursor;

/// A hook at the device with this index, or what is left of it.
///
/// # Invariants
///
/// Made by `nfo_follow()`, and owned.
struct Follow(NonNull<c::nfo_follow>, u32);

// SAFETY: Nothing is bound to a thread.
unsafe impl Send for Follow {}

impl Follow {
    fn new(ft: &Flowtable, ifindex: u32) -> Option<Self> {
        // SAFETY: The C objects outlive ours, and hooks are taken away before them.
        let follow = unsafe { c::nfo_follow(ft.net(), ifindex, ft.nf()) };

        // INVARIANT: Just made.
        NonNull::new(follow).map(|follow| Self(follow, ifindex))
    }

    /// The name of the device, if it is still there.
    fn name(&self) -> Option<[kernel::ffi::c_char; 16]> {
        let mut name = [0; 16];

        // SAFETY: By the type invariant; names have that size.
        unsafe { c::nfo_follow_name(self.0.as_ptr(), &mut name) }.then_some(name)
    }

    /// Takes the hook away; false if it was not there any more.
    fn end(self) -> bool {
        // SAFETY: By the type invariant; this is the last use.
        unsafe { c::nfo_unfollow(self.0.as_ptr()) }
    }
}

/// The devices that a flowtable follows.
#[pin_data]
pub(super) struct Follows {
    /// Ingress paths have come or gone since the worker last looked.
    changed: AtomicBool,
    /// [`None`] when the flowtable is closing: no hook is to be made any more.
    #[pin]
    list: Mutex<Option<KVec<Follow>>>,
}

impl Follows {
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            changed: AtomicBool::new(false),
            list <- new_mutex!(Some(KVec::new()), "nft_offload::follows"),
        })
    }

    /// The worker is to look.
    pub(super) fn change(&self) {
        self.changed.store(true, Ordering::Release);
    }
}

impl Flowtable {
    /// Makes the hooks that flows wait for, and takes those away that none wants. Called by the
    /// worker.
    pub(super) fn follow(&self) {
        if !self.follows.changed.swap(false, Ordering::Acquire) {
            return;
        }
        let mut wanted = [0u32; MAX_FOLLOWED];
        let mut n = 0;
        let mut cursor = Cursor::default();

        while self.locked(|inner| {
            inner.ingress_paths.each_followed(&mut cursor, |ifindex| {
                if let Some(place) = wanted.get_mut(n) {
                    *place = ifindex;
                    n += 1;
                }
            })
        }) {
            // SAFETY: Process context, no lock is held.
            unsafe { c::nfo_cond_resched() };
        }
        let wanted = &wanted[..n];
        let mut list = self.follows.list.lock();
        let Some(list) = &mut *list else {
            return;
        };

        while let Some(i) = list
            .iter()
            .position(|f| !wanted.contains(&f.1) || f.name().is_none())
        {
            if let Ok(follow) = list.remove(i) {
                follow.end();
            }
        }
        for &ifindex in wanted {
            if list.iter().any(|follow| follow.1 == ifindex) {
                continue;
            }
            // Another time, if there is none and the flows are still there.
            match (list.reserve(1, GFP_KERNEL), Follow::new(self, ifindex)) {
                (Ok(()), Some(follow)) => drop(list.push(follow, GFP_KERNEL)),
                (Err(_), Some(follow)) => {
                    follow.end();
                    self.follows.change();
                }
                (_, None) => self.follows.change(),
            }
        }
    }

    /// Takes all hooks away, for ever, and waits for packets in them: nf_tables, to whose object
    /// they point, does not know them. Nothing to wait for where the devices have gone before, as
    /// in a namespace that ends.
    pub(super) fn unfollow_all(&self) {
        let list = self.follows.list.lock().take();
        let mut wait = false;

        for follow in list.into_iter().flatten() {
            wait |= follow.end();
        }
        if wait {
            // SAFETY: Process context, no lock is held.
            unsafe { c::synchronize_rcu() };
        }
    }

    /// Writes the names of the devices that it follows, with commas; or a dash.
    pub(crate) fn show_followed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = self.follows.list.lock();
        let mut separator = "";

        for name in list.iter().flatten().filter_map(Follow::name) {
            // SAFETY: A name has its NUL.
            let name = unsafe { CStr::from_char_ptr(name.as_ptr().cast()) };
            f.write_fmt(fmt!("{separator}{name}"))?;
            separator = ",";
        }
        if separator.is_empty() {
            f.write_str("-")?;
        }
        Ok(())
    }
}
