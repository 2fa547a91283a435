// SPDX-License-Identifier: GPL-2.0

//! A flow, and what is to be known of it, as attributes.

use super::{
    filter::{
        attr,
        Tier, //
    },
    flow::attr as flow_attr, //
};
use crate::{
    ffi::{
        self,
        genl::Attrs,
        Rcu, //
    },
    flow::{
        entry::Entry,
        object::with_family,
        shared::FlowShared,
        table_ref::TableRef, //
    },
    net::{
        family::Family,
        route::NeighRef, //
    }, //
};
use core::sync::atomic::Ordering;
use kernel::prelude::*;
use nft_flow::{
    desc::{
        Addrs,
        Tuple, //
    },
    direction::Direction, //
};

/// Attributes of a direction.
mod dir_attr {
    pub(super) const SRC_IPV4: u16 = 1;
    pub(super) const DST_IPV4: u16 = 2;
    pub(super) const SRC_IPV6: u16 = 3;
    pub(super) const DST_IPV6: u16 = 4;
    pub(super) const SRC_PORT: u16 = 5;
    pub(super) const DST_PORT: u16 = 6;
    pub(super) const IDLE: u16 = 7;
    pub(super) const PACKETS: u16 = 8;
    pub(super) const BYTES: u16 = 9;
    pub(super) const MTU: u16 = 10;
    pub(super) const IIF: u16 = 11;
    pub(super) const HOOK: u16 = 12;
    pub(super) const DEVICES: u16 = 13;
    pub(super) const ENCAP: u16 = 14;
    pub(super) const TUNNEL: u16 = 15;
    pub(super) const OIF: u16 = 16;
    pub(super) const DIRECT: u16 = 17;
    pub(super) const IPSEC: u16 = 18;
    pub(super) const RULESET: u16 = 19;
    pub(super) const NEXT_HOP_IPV4: u16 = 20;
    pub(super) const NEXT_HOP_IPV6: u16 = 21;
    pub(super) const NEXT_HOP_MAC: u16 = 22;
    pub(super) const NEXT_HOP_STATE: u16 = 23;
}

/// Attributes of an encapsulation.
mod encap_attr {
    pub(super) const ETHERTYPE: u16 = 1;
    pub(super) const ID: u16 = 2;
}

/// Adds family, table and name of a flowtable.
pub(super) fn names(out: &mut Attrs<'_>, ft: &TableRef) -> Result {
    let [table, name] = ft.names();

    out.put_u8(attr::NFPROTO, ft.nfproto())?;
    out.put_string(attr::TABLE, table)?;
    out.put_string(attr::FLOWTABLE, name)
}

/// Adds a flow of a flowtable.
pub(super) fn flow(out: &mut Attrs<'_>, rcu: Rcu<'_>, ft: &TableRef, flow: &FlowShared) -> Result {
    let now = ffi::jiffies32();
    let ct = flow.ct.get();
    let [snat, dnat] = ct.nat().map(u8::from);

    names(out, ft)?;
    out.put_u8(flow_attr::L4PROTO, flow.proto.number())?;
    out.put_u8(flow_attr::TIER, Tier::of(flow) as u8)?;
    out.put_u32(flow_attr::AGE, ffi::milliseconds(flow.age(now)))?;
    out.put_u16(flow_attr::ZONE, ct.zone())?;
    if let Some(mark) = ct.mark() {
        out.put_u32(attr::MARK, mark)?;
    }
    out.put_u8(flow_attr::NAT, snat | dnat << 1)?;
    if ft.has_hw() {
        let bytes = flow.hw.bytes.load(Ordering::Relaxed);

        out.put_uint(flow_attr::FAST_BYTES, bytes)?;
    }
    with_family!(flow, |whole| {
        let [orig, reply] = &whole.entries;

        out.nest(flow_attr::ORIGINAL, |out| direction(out, rcu, orig, now))?;
        out.nest(flow_attr::REPLY, |out| direction(out, rcu, reply, now))
    })
}

fn tuple(out: &mut Attrs<'_>, tuple: &Tuple) -> Result {
    match &tuple.addrs {
        Addrs::V4 { src, dst } => {
            out.put_bytes(dir_attr::SRC_IPV4, src)?;
            out.put_bytes(dir_attr::DST_IPV4, dst)?;
        }
        Addrs::V6 { src, dst } => {
            out.put_bytes(dir_attr::SRC_IPV6, src)?;
            out.put_bytes(dir_attr::DST_IPV6, dst)?;
        }
    }
    if let Some(ports) = tuple.ports {
        out.put_u16(dir_attr::SRC_PORT, ports.src)?;
        out.put_u16(dir_attr::DST_PORT, ports.dst)?;
    }
    Ok(())
}

/// Adds what there is to say of packets of one direction.
fn direction<F: Family>(out: &mut Attrs<'_>, rcu: Rcu<'_>, entry: &Entry<F>, now: u32) -> Result {
    let flow = &entry.flow().shared;
    let dir = entry.dir();

    tuple(out, &flow.tuple(dir))?;
    out.put_u32(dir_attr::IDLE, ffi::milliseconds(entry.idle(now)))?;
    if let Some(counters) = flow.acct {
        let (packets, bytes) = counters.get(dir);

        out.put_uint(dir_attr::PACKETS, packets)?;
        out.put_uint(dir_attr::BYTES, bytes)?;
    }
    out.put_u16(dir_attr::MTU, entry.mtu)?;
    comes_in(out, flow, dir, entry.ingress_id().ifindex())?;

    out.put_u32(dir_attr::OIF, entry.dst.device(rcu).ifindex())?;
    if entry.is_xfrm() || entry.needs_secpath() {
        out.put_flag(dir_attr::IPSEC)?;
    }
    if entry.gen_matches(flow.table().generation()) {
        out.put_flag(dir_attr::RULESET)?;
    }
    if entry
        .next_hop(rcu)
        .is_some_and(|hop| hop.direct(rcu).is_some())
    {
        out.put_flag(dir_attr::DIRECT)?;
    }
    entry
        .neighbour(rcu)
        .map_or(Ok(()), |neigh| next_hop(out, neigh))
}

/// Adds by which devices packets come in, and in what.
fn comes_in(out: &mut Attrs<'_>, flow: &FlowShared, dir: Direction, plain: Option<u32>) -> Result {
    out.put_u32(dir_attr::IIF, flow.iif[dir as usize])?;

    let Some(path) = flow.ingress_path(dir) else {
        return plain.map_or(Ok(()), |ifindex| out.put_u32(dir_attr::HOOK, ifindex));
    };
    let (id, encaps, _) = path.frame();
    let devices = path.devices.iter().filter(|dev| **dev != 0).count();

    if let Some(ifindex) = id.ifindex() {
        out.put_u32(dir_attr::HOOK, ifindex)?;
    }
    out.put_u32s(
        dir_attr::DEVICES,
        path.devices.get(..devices).unwrap_or(&[]),
    )?;
    for encap in encaps.as_slice() {
        out.nest(dir_attr::ENCAP, |out| {
            out.put_u16(encap_attr::ETHERTYPE, encap.ethertype())?;
            out.put_u16(encap_attr::ID, encap.id())
        })?;
    }
    path.tunnel()
        .map_or(Ok(()), |proto| out.put_u8(dir_attr::TUNNEL, proto))
}

fn next_hop(out: &mut Attrs<'_>, neigh: NeighRef<'_>) -> Result {
    match neigh.ip() {
        ([a, b, c, d, ..], 4) => out.put_bytes(dir_attr::NEXT_HOP_IPV4, &[a, b, c, d])?,
        (ip, 16) => out.put_bytes(dir_attr::NEXT_HOP_IPV6, &ip)?,
        _ => {}
    }
    if let Some(mac) = neigh.address() {
        out.put_bytes(dir_attr::NEXT_HOP_MAC, &mac)?;
    }
    out.put_u8(dir_attr::NEXT_HOP_STATE, neigh.state())
}
