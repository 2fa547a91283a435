// SPDX-License-Identifier: GPL-2.0

//! Whether packets of a flow still come in as was found when it was made.

use crate::{
    ffi::{
        self,
        skb::Skb,
        Rcu, //
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
        family::Family,
        packet::ForwardPkt, //
    }, //
};
use kernel::sync::rcu;
use nft_flow::direction::Direction;

/// Whether packets that come in like this one could be picked up by the ingress hook, so that it
/// may add a flow.
pub(crate) fn is_found<F: Family>(pkt: ForwardPkt<'_>, table: &TableRef) -> bool {
    let Some(dev) = pkt.iif().filter(|_| !pkt.has_secpath()) else {
        return false;
    };
    let sender = Destination::Sender(pkt.mac_source());

    device_path::fill_forward_path::<F>(pkt.rcu(), dev, &sender, table.nft())
        .ingress(&table.seed)
        .is_ok()
}

/// Whether packets of the direction of `entry` come in by the recorded ingress path `path`.
/// `opposite` is the entry of the other direction. A bridge that has forgotten a silent station is
/// no mismatch; while the station speaks, the bridge hears it (see [`FlowShared::refresh`]).
pub(crate) fn is_current<F: Family>(
    rcu: Rcu<'_>,
    entry: &Entry<F>,
    opposite: &Entry<F>,
    path: Option<&IngressPath>,
    table: &TableRef,
) -> bool {
    const SILENT: u32 = 20 * ffi::HZ;

    let Some(neigh) = opposite.neighbour(rcu) else {
        return true;
    };
    let dev = opposite.dst.device(rcu);
    if entry.flow().shared.iif[entry.dir() as usize] != dev.ifindex() {
        // Nobody knows how they come in but they themselves.
        return path.is_none_or(|path| path.may_forward() && !path.is_filtered(rcu, table.net()));
    }
    let now = ffi::jiffies32();
    if path.is_some_and(|path| path.was_found(now)) {
        return true;
    }
    let station = Destination::Neigh(neigh);
    let walk = device_path::fill_forward_path::<F>(rcu, dev, &station, table.nft());
    let end = walk.end();
    let same = match walk.ingress(&table.seed) {
        Ok(ingress) => match path {
            Some(path) => {
                let same = path.is_of(&ingress);
                if same && ingress.followed {
                    path.find(now);
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
        && path.is_none_or(|path| path.may_forward() && entry.idle(now) > SILENT)
}

impl FlowShared {
    /// Whether the bridge ports that packets of direction `dir` come in by are forwarding.
    pub(crate) fn ports_forwarding(&self, dir: Direction) -> bool {
        self.ingress_path(dir)
            .is_none_or(IngressPath::ports_forwarding)
    }

    /// Whether packets of both directions come in by the recorded ingress paths. For the worker.
    pub(crate) fn is_current(&self) -> bool {
        let paths = [Direction::Original, Direction::Reply].map(|dir| self.ingress_path(dir));
        if paths.iter().all(Option::is_none) {
            return true;
        }
        let guard = rcu::read_lock();
        let rcu = Rcu::from(&guard);
        let [a, b] = paths;
        let table = self.table();

        with_family!(self, |flow| {
            let [orig, reply] = &flow.entries;

            (a.is_none() || is_current(rcu, orig, reply, a, table))
                && (b.is_none() || is_current(rcu, reply, orig, b, table))
        })
    }

    /// A packet of direction `dir` and of `len` bytes was picked up by the ingress hook: see
    /// [`IngressPath::count_rx`].
    #[inline(always)]
    pub(crate) fn count_rx(&self, skb: Skb, dir: Direction, len: u32) {
        if let Some(path) = self.ingress_path(dir) {
            path.count_rx(skb, || self.table().net(), len);
        }
    }

    /// Whether packets of the flow pass a device whose index satisfies `those`.
    pub(crate) fn uses_device(&self, those: &dyn Fn(u32) -> bool) -> bool {
        let guard = rcu::read_lock();
        let rcu = Rcu::from(&guard);
        let leaves = with_family!(self, |flow| flow.entries.iter().any(|entry| {
            // A neighbour keeps its device when routes have lost it.
            let neigh = entry.neighbour(rcu).map(|n| n.device(rcu));

            [Some(entry.dst.device(rcu)), neigh]
                .iter()
                .flatten()
                .any(|dev| those(dev.ifindex()))
        }));

        leaves
            || self.iif.iter().any(|ifindex| those(*ifindex))
            || [Direction::Original, Direction::Reply]
                .iter()
                .filter_map(|dir| self.ingress_path(*dir))
                .flat_map(|path| path.devices)
                .any(|ifindex| ifindex != 0 && those(ifindex))
    }
}
