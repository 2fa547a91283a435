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
    ffi,
    flow::ingress_path::MAX_FOLLOWED,
    net::follow::Follow, //
};
use core::sync::atomic::{
    AtomicBool,
    Ordering, //
};
use kernel::{
    fmt,
    new_mutex,
    prelude::*,
    sync::Mutex, //
};
use nft_flow::table::Cursor;

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
    #[inline(never)]
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
            ffi::cond_resched();
        }
        let wanted = &wanted[..n];
        let mut list = self.follows.list.lock();
        let Some(list) = &mut *list else {
            return;
        };

        while let Some(i) = list
            .iter()
            .position(|f| !wanted.contains(&f.ifindex()) || f.name().is_none())
        {
            if let Ok(follow) = list.remove(i) {
                follow.end();
            }
        }
        for &ifindex in wanted {
            if list.iter().any(|follow| follow.ifindex() == ifindex) {
                continue;
            }
            // Another time, if there is none and the flows are still there.
            match (
                list.reserve(1, GFP_KERNEL),
                Follow::new(self.net(), ifindex, self.nft()),
            ) {
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
            ffi::synchronize_rcu();
        }
    }

    /// Writes the names of the devices that it follows, with commas; or a dash.
    pub(crate) fn show_followed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = self.follows.list.lock();
        let mut separator = "";

        for name in list.iter().flatten().filter_map(Follow::name) {
            let name = CStr::from_bytes_until_nul(&name).unwrap_or(c"");
            f.write_fmt(fmt!("{separator}{name}"))?;
            separator = ",";
        }
        if separator.is_empty() {
            f.write_str("-")?;
        }
        Ok(())
    }
}
