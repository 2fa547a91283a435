// SPDX-License-Identifier: GPL-2.0

//! Flows for XDP programs: the inside of `bpf_xdp_nft_flow_lookup()`, see `ffi/bpf.c`.
//!
//! A program that is told of a flow may forward the packet itself, past the hook. It is told only
//! of flows whose next packet the hook would forward at this moment.

use crate::{
    ffi::{
        self,
        c,
        DevRef,
        Rcu, //
    },
    flow::{
        entry::{
            flag,
            Entry, //
        },
        ingress_path::IngressPath, //
    },
    flowtable::{
        Flowtable,
        Store, //
    },
    net::family::{
        Family,
        V4,
        V6, //
    },
    nft::flowtable_type, //
};
use core::{
    mem::MaybeUninit,
    ptr, //
};
use kernel::{
    error::{
        code::*,
        Error,
        Result, //
    },
    ffi::c_int, //
};
use nft_flow::{
    direction::Direction, //
    encap::{
        Encap,
        Encaps, //
    },
    key::{
        IngressId, //
        Key,
        L4Proto,
    },
};

/// Finds the flow of a packet that has come to `dev`, and describes it. The direction of the
/// packet, or an errno.
///
/// # Safety
///
/// Called by the kfunc only: RCU is held, the arguments are valid.
#[no_mangle]
unsafe extern "C" fn nfo_xdp_lookup(
    dev: *const c::net_device,
    key: *const c::nfo_xdp_key,
    flow: *mut c::nfo_xdp_flow,
) -> c_int {
    // SAFETY: By the contract of this function.
    let (rcu, dev, key, out) = unsafe {
        let rcu = Rcu::assume();

        (rcu, DevRef::new(dev, rcu), &*key, &mut *flow.cast())
    };
    let found = dev.ingress_hooks().iter().find_map(|hook| {
        // SAFETY: It is a hook of the device, and RCU is held.
        let (ft, [v4, v6]) = unsafe { flowtable_type::of_hook(hook) }?;

        match key.family {
            V4::NFPROTO if v4 => lookup::<V4>(rcu, ft, key),
            V6::NFPROTO if v6 => lookup::<V6>(rcu, ft, key),
            _ => None,
        }
    });

    match found.unwrap_or(Err(ENOENT)) {
        Ok((dir, flow)) => {
            MaybeUninit::write(out, flow);
            dir as c_int
        }
        Err(e) => e.to_errno(),
    }
}

/// Finds a flow in one flowtable.
fn lookup<F: Store>(
    rcu: Rcu<'_>,
    ft: &Flowtable,
    key: &c::nfo_xdp_key,
) -> Option<Result<(Direction, c::nfo_xdp_flow)>> {
    // With others there is more in a key than ports.
    let proto = L4Proto::from_number(key.l4proto)
        .filter(|proto| matches!(proto, L4Proto::Tcp | L4Proto::Udp))?;
    let ingress_id = IngressId::from_ifindex(key.ifindex)?;
    let mut encaps = Encaps::default();

    // VLAN 0 is none.
    if key.vlan_tci & 0x0fff_u16.to_be() != 0 {
        encaps.push_inner(Encap::vlan(
            u16::from_be(key.vlan_proto),
            u16::from_be(key.vlan_tci),
        ));
    }
    let ingress_id = match ft.ingress_path(rcu, &encaps.key(ingress_id, None)) {
        Some(path) => path.id,
        None if encaps.is_empty() => ingress_id,
        None => return None,
    };
    // SAFETY: All zeroes is a valid tuple.
    let mut tuple = unsafe { MaybeUninit::<c::nf_conntrack_tuple>::zeroed().assume_init() };

    tuple.src.u3.all = key.saddr;
    tuple.dst.u3.all = key.daddr;
    tuple.src.u.all = key.sport;
    tuple.dst.u.all = key.dport;

    let key = F::key(&tuple, proto, ingress_id);
    let entry = ft.lookup::<F>(rcu, key.hash(&ft.seed), &key)?;

    Some(describe(rcu, ft, entry))
}

/// Describes the flow of `entry`, if its next packet would be forwarded.
fn describe<F: Family>(
    rcu: Rcu<'_>,
    ft: &Flowtable,
    entry: &Entry<F>,
) -> Result<(Direction, c::nfo_xdp_flow)> {
    let now = ffi::jiffies32();
    let dir = entry.dir();
    let flow = entry.flow();

    // The hook finds out itself why, and does what is to be done.
    if !entry.is_live()
        || entry.ct.is_dying()
        || !F::dst_valid(entry)
        || !entry.gen_matches(ft.generation())
        || entry.needs_secpath()
        || entry.has_flag(flag::CT_VERDICT_PENDING)
        || (entry.is_bridged()
            && (!flow.shared.ports_forwarding(dir) || flow.shared.refresh_due(dir, now)))
    {
        return Err(EAGAIN);
    }
    let [orig, reply] = &flow.entries;
    let in_by = flow.shared.ingress_path(Direction::Original);
    let out_by = flow.shared.ingress_path(Direction::Reply);
    let answer = c::nfo_xdp_flow {
        ct: entry.ct.as_ptr(),
        tuple: [
            xdp_tuple(rcu, orig, reply, [in_by, out_by], entry)?,
            xdp_tuple(rcu, reply, orig, [out_by, in_by], entry)?,
        ],
    };

    flow.shared.tcp.mark_windows_stale();
    let _ = entry.saw(now);
    Ok((dir, answer))
}

/// Fills in one direction (`struct flow_offload_tuple`). The ingress paths are those of this
/// direction and of the other one. `asked`: the direction that has to be complete.
fn xdp_tuple<F: Family>(
    rcu: Rcu<'_>,
    entry: &Entry<F>,
    opposite: &Entry<F>,
    [in_path, out_path]: [Option<&IngressPath>; 2],
    asked: &Entry<F>,
) -> Result<c::nfo_xdp_tuple> {
    let plain = |entry: &Entry<F>| (entry.ingress_id(), Encaps::default(), false);
    let (in_id, in_encaps, in_tunnel) = in_path.map_or_else(|| plain(entry), IngressPath::frame);
    let (out_id, out_encaps, out_tunnel) =
        out_path.map_or_else(|| plain(opposite), IngressPath::frame);
    let must = ptr::eq(entry, asked);
    let route = entry.dst.device(rcu);
    let mut tuple = c::nfo_xdp_tuple {
        in_ifindex: in_id.raw(),
        out_ifindex: route.ifindex(),
        h_source: [0; 6],
        h_dest: [0; 6],
        encap: [c::nfo_xdp_encap { id: 0, proto: 0 }; 2],
        encap_num: 0,
        tun_num: in_tunnel.into(),
        xmit_type: c::flow_offload_xmit_type_FLOW_OFFLOAD_XMIT_NEIGH as u8,
        mtu: entry.mtu,
        cookie: entry.cookie,
        dst: entry.dst.as_ptr(),
    };

    for encap in in_encaps.as_slice() {
        // The structure has no room for QinQ and PPPoE together.
        let Some(slot) = tuple.encap.get_mut(usize::from(tuple.encap_num)) else {
            return Err(EOPNOTSUPP);
        };
        *slot = c::nfo_xdp_encap {
            id: encap.id(),
            proto: encap.ethertype().to_be(),
        };
        tuple.encap_num += 1;
    }
    if entry.is_xfrm() {
        tuple.xmit_type = c::flow_offload_xmit_type_FLOW_OFFLOAD_XMIT_XFRM as u8;
        return Ok(tuple);
    }
    if out_tunnel {
        // To the tunnel's device.
        return Ok(tuple);
    }

    // What sending to it would do.
    let address = match entry.neighbour(rcu) {
        Some(neigh) if must => neigh.resolve(),
        _ => None,
    };
    if must && address.is_none() {
        return Err(EAGAIN);
    }
    tuple.h_dest = address.unwrap_or_default();
    match out_path {
        // Down to where the answers come in.
        Some(path) => {
            if !out_encaps.is_empty() || out_id.raw() != tuple.out_ifindex {
                tuple.xmit_type = c::flow_offload_xmit_type_FLOW_OFFLOAD_XMIT_DIRECT as u8;
                tuple.out_ifindex = out_id.raw();
            }
            tuple.h_source = path.mac;
        }
        None => tuple.h_source = route.mac().unwrap_or_default(),
    }
    Ok(tuple)
}

/// Makes `bpf_xdp_nft_flow_lookup()` known. It goes with the module, which stays as long as a
/// program that calls it is loaded.
pub(crate) fn register() {
    // SAFETY: Once, by the module's init. Without BTF there is no such function, and that is fine.
    let err = unsafe { c::nfo_bpf_register() };

    if err != 0 {
        kernel::pr_warn!(
            "no bpf_xdp_nft_flow_lookup for XDP programs: {:?}\n",
            Error::from_errno(err)
        );
    }
}
