// SPDX-License-Identifier: GPL-2.0

//! Flows for XDP programs: the inside of `bpf_xdp_nft_flow_lookup()`, see `ffi/bpf.c`.
//!
//! A program that is told of a flow may forward the packet itself, past the hook. It is told only
//! of flows whose next packet the hook would forward at this moment.

use crate::{
    ffi::{
        self,
        c, //
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
    ptr,
    slice, //
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
    let found = unsafe { hooks(dev) }.iter().find_map(|hook| {
        // SAFETY: It is a hook of the device, and RCU is held.
        unsafe {
            let (ft, [v4, v6]) = flowtable_type::of_hook(hook)?;

            match (*key).family {
                V4::NFPROTO if v4 => lookup::<V4>(ft, &*key, flow),
                V6::NFPROTO if v6 => lookup::<V6>(ft, &*key, flow),
                _ => None,
            }
        }
    });

    match found.unwrap_or(Err(ENOENT)) {
        Ok(dir) => dir as c_int,
        Err(e) => e.to_errno(),
    }
}

/// The ingress hooks of a device.
///
/// # Safety
///
/// `dev` is valid, and RCU is held as long as the hooks are used.
unsafe fn hooks<'a>(dev: *const c::net_device) -> &'a [c::nf_hook_entry] {
    // SAFETY: An RCU pointer, to as many hooks as the structure says.
    unsafe {
        let hooks = (&raw const (*dev).nf_hooks_ingress).read_volatile();

        if hooks.is_null() {
            return &[];
        }
        slice::from_raw_parts(
            (&raw const (*hooks).hooks).cast(),
            (*hooks).num_hook_entries.into(),
        )
    }
}

/// Finds a flow in one flowtable.
///
/// # Safety
///
/// As for [`nfo_xdp_lookup`].
unsafe fn lookup<F: Store>(
    ft: &Flowtable,
    key: &c::nfo_xdp_key,
    flow: *mut c::nfo_xdp_flow,
) -> Option<Result<Direction>> {
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
    // SAFETY: RCU is held. All zeroes is a valid tuple.
    unsafe {
        let path = encaps.key(ingress_id, None);
        let path = ft.ingress_paths.lookup(path.hash(&ft.seed), &path);
        let ingress_id = match path {
            Some(path) => path.id,
            None if encaps.is_empty() => ingress_id,
            None => return None,
        };
        let mut tuple = MaybeUninit::<c::nf_conntrack_tuple>::zeroed().assume_init();

        tuple.src.u3.all = key.saddr;
        tuple.dst.u3.all = key.daddr;
        tuple.src.u.all = key.sport;
        tuple.dst.u.all = key.dport;

        let key = F::key(&tuple, proto, ingress_id);
        let entry = F::table(ft).lookup(key.hash(&ft.seed), &key)?;

        Some(describe(ft, entry, flow))
    }
}

/// Describes the flow of `entry`, if its next packet would be forwarded.
///
/// # Safety
///
/// As for [`nfo_xdp_lookup`].
unsafe fn describe<F: Family>(
    ft: &Flowtable,
    entry: &Entry<F>,
    out: *mut c::nfo_xdp_flow,
) -> Result<Direction> {
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
    // SAFETY: RCU is held, and the caller gives us the memory.
    unsafe {
        let ingress_paths = &flow.shared.ingress_paths;
        let [orig, reply] = &flow.entries;
        let answer = c::nfo_xdp_flow {
            ct: entry.ct.as_ptr(),
            tuple: [
                xdp_tuple(
                    orig,
                    reply,
                    ingress_paths.each_ref().map(|s| s.map(|s| s.as_ref())),
                    entry,
                )?,
                xdp_tuple(
                    reply,
                    orig,
                    [ingress_paths[1], ingress_paths[0]].map(|s| s.map(|s| s.as_ref())),
                    entry,
                )?,
            ],
        };

        out.write(answer);
    }
    flow.shared.tcp.mark_windows_stale();
    let _ = entry.saw(now);
    Ok(dir)
}

/// Fills in one direction (`struct flow_offload_tuple`). The ingress paths are those of this
/// direction and of the other one. `asked`: the direction that has to be complete.
///
/// # Safety
///
/// RCU is held.
unsafe fn xdp_tuple<F: Family>(
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
    let route = entry.dst.dev();
    let mut h_dest = [0; 6];
    // SAFETY: RCU is held: route, device and neighbour are valid.
    let mut tuple = unsafe {
        c::nfo_xdp_tuple {
            in_ifindex: in_id.raw(),
            out_ifindex: (*route).ifindex as u32,
            h_source: [0; 6],
            h_dest,
            encap: [c::nfo_xdp_encap { id: 0, proto: 0 }; 2],
            encap_num: 0,
            tun_num: in_tunnel.into(),
            xmit_type: c::flow_offload_xmit_type_FLOW_OFFLOAD_XMIT_NEIGH as u8,
            mtu: entry.mtu,
            cookie: entry.cookie,
            dst: entry.dst.as_ptr(),
        }
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

    // SAFETY: RCU is held.
    let neigh = unsafe { entry.neigh() };
    // What sending to it would do: a neighbour that was silent for a while is asked, and used
    // meanwhile.
    let mut address = |neigh: *mut c::neighbour| {
        // SAFETY: RCU is held: the neighbour is valid. Both fields are single words.
        unsafe {
            if (&raw const (*neigh).dead).read_volatile() != 0 {
                return false;
            }
            if u32::from((&raw const (*neigh).nud_state).read_volatile()) & c::NUD_CONNECTED == 0 {
                c::nfo_neigh_resolve(neigh);
            }
            c::nfo_neigh_ha(neigh, h_dest.as_mut_ptr())
        }
    };
    if must && (neigh.is_null() || !address(neigh)) {
        return Err(EAGAIN);
    }
    tuple.h_dest = h_dest;
    match out_path {
        // Down to where the answers come in.
        Some(path) => {
            if !out_encaps.is_empty() || out_id.raw() != tuple.out_ifindex {
                tuple.xmit_type = c::flow_offload_xmit_type_FLOW_OFFLOAD_XMIT_DIRECT as u8;
                tuple.out_ifindex = out_id.raw();
            }
            tuple.h_source = path.mac;
        }
        // SAFETY: As above; an Ethernet device's address has six bytes.
        None => unsafe {
            if (*route).addr_len == 6 {
                tuple.h_source = (*route).dev_addr.cast::<[u8; 6]>().read();
            }
        },
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
