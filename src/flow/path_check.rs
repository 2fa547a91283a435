// SPDX-License-Identifier: GPL-2.0

//! Whether packets of a flow still come in as was found when it was made.

use crate::{
    ffi::{
        self,
        c, //
    },
    flow::{
        entry::Entry,
        ingress_path::IngressPath,
        object::with_family,
        shared::FlowShared,
        table_ref::TableRef, //
    },
    net::{
        device_path::{
            self,
            Destination, //
            WalkEnd,
        },
        family::Family, //
    }, //
};
use core::ptr::NonNull;
use kernel::sync::rcu;
use nft_flow::direction::Direction;

/// Whether packets that come in like this one could be picked up by the ingress hook, so that it
/// may add a flow.
///
/// # Safety
///
/// `pkt` is in the forward hook and RCU is held.
pub(crate) unsafe fn is_found<F: Family>(pkt: &c::nft_pktinfo, table: &TableRef) -> bool {
    // SAFETY: By the contract of this function: it has an ingress device.
    unsafe {
        let mut mac = [0; 6];

        if c::nfo_skb_secpath(pkt.skb) {
            return false;
        }
        c::nfo_skb_source(pkt.skb, mac.as_mut_ptr());
        device_path::fill_forward_path::<F>((*pkt.state).in_, Destination::Sender(mac), table.nft())
            .ingress(&table.seed)
            .is_ok()
    }
}

/// Whether packets of the direction of `entry` come in by the recorded ingress path `path`.
/// `opposite` is the entry of the other direction. A bridge that has forgotten a silent station is
/// no mismatch; while the station speaks, the bridge hears it (see [`FlowShared::refresh`]).
///
/// # Safety
///
/// RCU is held, and `path` is in use.
pub(crate) unsafe fn is_current<F: Family>(
    entry: &Entry<F>,
    opposite: &Entry<F>,
    path: Option<NonNull<IngressPath>>,
    table: &TableRef,
) -> bool {
    const SILENT: u32 = 20 * ffi::HZ;

    // SAFETY: RCU is held: devices, neighbour and ingress path are valid.
    unsafe {
        let neigh = opposite.neigh();
        if neigh.is_null() {
            return true;
        }
        let dev = opposite.dst.dev();
        if entry.flow().shared.iif[entry.dir() as usize] != (*dev).ifindex as u32 {
            // Nobody knows how they come in but they themselves.
            return path.is_none_or(|path| {
                let path = path.as_ref();
                path.may_forward() && !path.is_filtered(table.net())
            });
        }
        let now = ffi::jiffies32();
        if path.is_some_and(|path| path.as_ref().was_found(now)) {
            return true;
        }
        let walk = device_path::fill_forward_path::<F>(dev, Destination::Neigh(neigh), table.nft());
        let end = walk.end();
        let same = match walk.ingress(&table.seed) {
            Ok(ingress) => match path {
                Some(path) => {
                    let same = path.as_ref().is_of(&ingress);
                    if same && ingress.followed {
                        path.as_ref().find(now);
                    }
                    same
                }
                None => {
                    ingress.stack.tunnel.is_none()
                        && !ingress.needs_ingress_path()
                        && ingress.ifindex == entry.ingress_id()
                }
            },
            // No device of the way is listed any more.
            Err(_) => false,
        };

        same || matches!(end, WalkEnd::Unknown | WalkEnd::NoNeigh)
            && path.is_none_or(|path| path.as_ref().may_forward() && entry.idle(now) > SILENT)
    }
}

impl FlowShared {
    /// Whether the bridge ports that packets of direction `dir` come in by are forwarding.
    pub(crate) fn ports_forwarding(&self, dir: Direction) -> bool {
        let path = self.ingress_paths[dir as usize];

        // SAFETY: The flow uses it.
        path.is_none_or(|path| unsafe { path.as_ref() }.ports_forwarding())
    }

    /// Whether packets of both directions come in by the recorded ingress paths. For the worker.
    pub(crate) fn is_current(&self) -> bool {
        if self.ingress_paths.iter().all(Option::is_none) {
            return true;
        }
        let _rcu = rcu::read_lock();
        let [a, b] = self.ingress_paths;
        let table = self.table();

        with_family!(self, |flow| {
            let [orig, reply] = &flow.entries;

            // SAFETY: RCU is held; uses of the ingress paths are the flow's.
            unsafe {
                (a.is_none() || is_current(orig, reply, a, table))
                    && (b.is_none() || is_current(reply, orig, b, table))
            }
        })
    }

    /// A packet of direction `dir` and of `len` bytes was picked up at the device `ifindex`: see
    /// [`IngressPath::count_rx`]. Called by the hook.
    #[inline(always)]
    pub(crate) fn count_rx(&self, dir: Direction, ifindex: u32, len: u32) {
        if let Some(path) = self.ingress_paths[dir as usize] {
            // SAFETY: The hook is an RCU read-side section; the flow uses the ingress path, which
            // is freed after a grace period, and its devices are in the flowtable's namespace.
            unsafe { path.as_ref().count_rx(|| self.table().net(), ifindex, len) };
        }
    }

    /// Whether packets of the flow pass a device whose index satisfies `those`.
    pub(crate) fn uses_device(&self, those: &dyn Fn(u32) -> bool) -> bool {
        let leaves = with_family!(self, |flow| flow.entries.iter().any(|entry| {
            // SAFETY: The route is valid; a device is freed after a grace period, and so is a
            // neighbour, which keeps its own when routes have lost it. The flowtable's lock
            // keeps us on the CPU.
            unsafe {
                let by = |dev: *const c::net_device| those((*dev).ifindex as u32);

                by(entry.dst.dev()) || entry.neigh().as_ref().is_some_and(|n| by(n.dev))
            }
        }));

        leaves
            || self.iif.iter().any(|ifindex| those(*ifindex))
            || self.ingress_paths.iter().flatten().any(|path| {
                // SAFETY: The flow uses it.
                unsafe { path.as_ref() }
                    .devices
                    .iter()
                    .any(|ifindex| *ifindex != 0 && those(*ifindex))
            })
    }
}
