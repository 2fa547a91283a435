// SPDX-License-Identifier: GPL-2.0

//! Whether packets of a flow still come in as was found when it was made.

use crate::{
    ffi::{
        self,
        c, //
    },
    flow::{
        entry::Entry,
        ingress_path::Shape,
        table_ref::TableRef, //
    },
    net::{
        device_path::{
            self,
            End,
            Station, //
        },
        family::Family, //
    }, //
};
use core::ptr::NonNull;

/// Could packets that come in like this one be picked up, and may it add a flow?
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
        device_path::down::<F>((*pkt.state).in_, Station::Sender(mac), table.nft())
            .finish(&table.seed)
            .is_ok()
    }
}

/// Do packets of the direction of `entry` come in as recorded, by `shape`? `answers` is the entry of
/// the other direction. A bridge that has forgotten the station is no news if the station has been
/// silent; while it speaks, bridges hear it (see [`Cold::refresh`]).
///
/// # Safety
///
/// RCU is held, and `shape` is in use.
pub(crate) unsafe fn is_current<F: Family>(
    entry: &Entry<F>,
    answers: &Entry<F>,
    shape: Option<NonNull<Shape>>,
    table: &TableRef,
) -> bool {
    const SILENT: u32 = 20 * ffi::HZ;

    // SAFETY: RCU is held: devices, neighbour and shape are valid.
    unsafe {
        let neigh = answers.neigh();
        if neigh.is_null() {
            return true;
        }
        let dev = answers.dst.dev();
        if entry.flow().cold.entered[entry.dir() as usize] != (*dev).ifindex as u32 {
            // Nobody knows how they come in but they themselves.
            return shape.is_none_or(|shape| {
                let shape = shape.as_ref();
                shape.may_be_open() && !shape.is_filtered(table.net())
            });
        }
        let now = ffi::jiffies32();
        if shape.is_some_and(|shape| shape.as_ref().was_found(now)) {
            return true;
        }
        let walk = device_path::down::<F>(dev, Station::Neigh(neigh), table.nft());
        let end = walk.end();
        let same = match walk.finish(&table.seed) {
            Ok(input) => match shape {
                Some(shape) => {
                    let same = shape.as_ref().is_of(&input);
                    if same && input.followed {
                        shape.as_ref().find(now);
                    }
                    same
                }
                None => {
                    input.layer.tunnel.is_none()
                        && !input.has_frame_shape()
                        && input.ifindex == entry.key_port()
                }
            },
            // No device of the way is listed any more.
            Err(_) => false,
        };

        same || matches!(end, End::Unknown | End::NoNeigh)
            && shape.is_none_or(|shape| shape.as_ref().may_be_open() && entry.idle(now) > SILENT)
    }
}
