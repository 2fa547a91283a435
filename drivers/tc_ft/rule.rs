// SPDX-License-Identifier: GPL-2.0

//! A flow as a `flow_rule`: what drivers match and do.
//!
//! Values and masks of rewrites are words as they lie in the packet; a bit of the mask that is set
//! is kept. The order of the actions is that of `nf_flow_rule_route_ipv4()` and its sisters
//! (net/netfilter/nf_flow_table_offload.c).

use crate::ffi::c;
use core::ptr::NonNull;
use nft_flow::{
    desc::{
        Addrs,
        FlowDesc,
        Kind,
        Layer,
        Layers,
        Mac,
        Ports, //
    },
    engine::AddError,
    key::L4Proto, //
};

const IPPROTO_TCP: u8 = L4Proto::Tcp.number();
const ETH_P_IP: u16 = c::ETH_P_IP as u16;
const ETH_P_IPV6: u16 = c::ETH_P_IPV6 as u16;

/// FIN and RST, in the 16 bits that hold the flags of a TCP header.
const TCP_FIN_RST: u16 = 5;

/// `TCA_CSUM_UPDATE_FLAG_*`, include/uapi/linux/tc_act/tc_csum.h.
const CSUM_IPV4HDR: u32 = c::NFO_CSUM_IPV4HDR;
const CSUM_TCP: u32 = c::NFO_CSUM_TCP;
const CSUM_UDP: u32 = c::NFO_CSUM_UDP;

/// Offsets of addresses in the headers.
const IP4_TTL_WORD: u32 = 8;
const IP4_SADDR: u32 = 12;
const IP4_DADDR: u32 = 16;
const IP6_HOP_LIMIT_WORD: u32 = 4;
const IP6_SADDR: u32 = 8;
const IP6_DADDR: u32 = 24;

/// A counted reference to a device.
pub(super) struct OutDev(NonNull<c::net_device>);

impl OutDev {
    /// The device with this index.
    pub(super) fn get(net: *mut c::net, ifindex: u32) -> Result<Self, AddError> {
        // SAFETY: The namespace outlives its flowtables.
        NonNull::new(unsafe { c::nfo_dev_get(net, ifindex) })
            .map(Self)
            .ok_or(AddError::Gone)
    }
}

impl Drop for OutDev {
    fn drop(&mut self) {
        // SAFETY: The reference is ours.
        unsafe { c::nfo_dev_put(self.0.as_ptr()) };
    }
}

/// The rule that is being made.
struct Maker(NonNull<c::nfo_rule>);

/// Returns the header that transport rewrites name, which depends on the protocol.
fn l4_header(proto: u8) -> u32 {
    match proto {
        IPPROTO_TCP => c::flow_action_mangle_base_FLOW_ACT_MANGLE_HDR_TYPE_TCP,
        _ => c::flow_action_mangle_base_FLOW_ACT_MANGLE_HDR_TYPE_UDP,
    }
}

impl Maker {
    fn action(&mut self, id: c::flow_action_id) -> Option<&mut c::flow_action_entry> {
        // SAFETY: The buffer is valid; the entry is in it, and zeroed.
        let entry = unsafe { c::nfo_rule_action(self.0.as_ptr()).as_mut() }?;

        entry.id = id;
        Some(entry)
    }

    /// Changes the bytes of a word of a header for which `mask` is zero.
    fn set(&mut self, header: u32, offset: u32, val: [u8; 4], mask: [u8; 4]) -> Option<()> {
        self.mangle(
            c::flow_action_id_FLOW_ACTION_MANGLE,
            header,
            offset,
            val,
            mask,
        )
    }

    fn mangle(
        &mut self,
        id: c::flow_action_id,
        header: u32,
        offset: u32,
        val: [u8; 4],
        mask: [u8; 4],
    ) -> Option<()> {
        self.action(id)?.__bindgen_anon_1.mangle =
            c::flow_action_entry__bindgen_ty_1__bindgen_ty_3 {
                htype: header,
                offset,
                mask: u32::from_ne_bytes(mask),
                val: u32::from_ne_bytes(val),
            };
        Some(())
    }

    fn macs(&mut self, src: Mac, dst: Mac) -> Option<()> {
        const ETH: u32 = c::flow_action_mangle_base_FLOW_ACT_MANGLE_HDR_TYPE_ETH;
        let [s0, s1, s2, s3, s4, s5] = src;
        let [d0, d1, d2, d3, d4, d5] = dst;

        self.set(ETH, 4, [0, 0, s0, s1], [0xff, 0xff, 0, 0])?;
        self.set(ETH, 8, [s2, s3, s4, s5], [0; 4])?;
        self.set(ETH, 0, [d0, d1, d2, d3], [0; 4])?;
        self.set(ETH, 4, [d4, d5, 0, 0], [0, 0, 0xff, 0xff])
    }

    /// Removes what comes in around packets: tags only, as drivers take PPPoE off by themselves.
    fn pop(&mut self, layers: &Layers) -> Option<()> {
        for layer in layers.iter() {
            if let Layer::Vlan { .. } = layer {
                self.action(c::flow_action_id_FLOW_ACTION_VLAN_POP)?;
            }
        }
        Some(())
    }

    fn push(&mut self, layer: Layer) -> Option<()> {
        match layer {
            Layer::Vlan { proto, vid, pcp } => {
                self.action(c::flow_action_id_FLOW_ACTION_VLAN_PUSH)?
                    .__bindgen_anon_1
                    .vlan = c::flow_action_entry__bindgen_ty_1__bindgen_ty_1 {
                    vid,
                    proto: proto.to_be(),
                    prio: pcp.unwrap_or(0),
                };
            }
            Layer::Pppoe { session } => {
                self.action(c::flow_action_id_FLOW_ACTION_PPPOE_PUSH)?
                    .__bindgen_anon_1
                    .pppoe
                    .sid = session;
            }
        }
        Some(())
    }

    fn ttl(&mut self, v6: bool) -> Option<()> {
        let (header, offset, val, mask) = match v6 {
            false => (
                c::flow_action_mangle_base_FLOW_ACT_MANGLE_HDR_TYPE_IP4,
                IP4_TTL_WORD,
                [0xff, 0, 0, 0],
                [0, 0xff, 0xff, 0xff],
            ),
            true => (
                c::flow_action_mangle_base_FLOW_ACT_MANGLE_HDR_TYPE_IP6,
                IP6_HOP_LIMIT_WORD,
                [0, 0, 0, 0xff],
                [0xff, 0xff, 0xff, 0],
            ),
        };

        self.mangle(c::flow_action_id_FLOW_ACTION_ADD, header, offset, val, mask)
    }

    fn addr(&mut self, offset4: u32, offset6: u32, new: &[u8]) -> Option<()> {
        if let Ok(v4) = <[u8; 4]>::try_from(new) {
            return self.set(
                c::flow_action_mangle_base_FLOW_ACT_MANGLE_HDR_TYPE_IP4,
                offset4,
                v4,
                [0; 4],
            );
        }
        for (i, word) in new.chunks_exact(4).enumerate() {
            self.set(
                c::flow_action_mangle_base_FLOW_ACT_MANGLE_HDR_TYPE_IP6,
                offset6.wrapping_add(4 * i as u32),
                word.try_into().ok()?,
                [0; 4],
            )?;
        }
        Some(())
    }

    /// Source address and port, then those of the destination, each if one of the two changes.
    fn nat(&mut self, flow: &FlowDesc) -> Option<()> {
        let Kind::Routed {
            proto,
            tuple,
            rewritten,
        } = flow.kind
        else {
            return None;
        };
        let ports = |p: Option<Ports>| {
            p.map_or(([0; 2], [0; 2]), |p| {
                (p.src.to_be_bytes(), p.dst.to_be_bytes())
            })
        };
        let ((old_sport, old_dport), (sport, dport)) = (ports(tuple.ports), ports(rewritten.ports));
        let l4 = l4_header(proto);
        let addrs = |a: &Addrs| -> ([u8; 16], [u8; 16], usize) {
            match *a {
                Addrs::V4 { src, dst } => {
                    let wide =
                        |[a, b, c, d]: [u8; 4]| [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                    (wide(src), wide(dst), 4)
                }
                Addrs::V6 { src, dst } => (src, dst, 16),
            }
        };
        let ((old_src, old_dst, _), (src, dst, len)) =
            (addrs(&tuple.addrs), addrs(&rewritten.addrs));

        if (old_src, old_sport) != (src, sport) {
            let [a, b] = sport;
            self.addr(IP4_SADDR, IP6_SADDR, src.get(..len)?)?;
            self.set(l4, 0, [a, b, 0, 0], [0, 0, 0xff, 0xff])?;
        }
        if (old_dst, old_dport) != (dst, dport) {
            let [a, b] = dport;
            self.addr(IP4_DADDR, IP6_DADDR, dst.get(..len)?)?;
            self.set(l4, 0, [0, 0, a, b], [0xff, 0xff, 0, 0])?;
        }
        Some(())
    }
}

/// Adds the match of a rule: the keys of `struct flow_dissector` that packets are recognised by.
///
/// # Safety
///
/// As for [`render`].
unsafe fn keys(rule: NonNull<c::nfo_rule>, flow: &FlowDesc) -> Option<()> {
    let Kind::Routed { proto, tuple, .. } = flow.kind else {
        return None;
    };
    // SAFETY: The buffer is ours; its unions hold plain integers.
    unsafe {
        let m = &mut (*rule.as_ptr()).match_;
        let mut used = 0u64;
        let mut uses = |key: c::flow_dissector_key_id| used |= 1 << key;

        m.key.meta.ingress_ifindex = flow.ingress.port.ifindex as i32;
        m.mask.meta.ingress_ifindex = -1;
        uses(c::flow_dissector_key_id_FLOW_DISSECTOR_KEY_META);

        let (addr_type, n_proto) = match tuple.addrs {
            Addrs::V4 { src, dst } => {
                let (key, mask) = (
                    &mut m.key.__bindgen_anon_1.ipv4,
                    &mut m.mask.__bindgen_anon_1.ipv4,
                );
                key.src = u32::from_ne_bytes(src);
                key.dst = u32::from_ne_bytes(dst);
                mask.src = !0;
                mask.dst = !0;
                (
                    c::flow_dissector_key_id_FLOW_DISSECTOR_KEY_IPV4_ADDRS,
                    ETH_P_IP,
                )
            }
            Addrs::V6 { src, dst } => {
                let (key, mask) = (
                    &mut m.key.__bindgen_anon_1.ipv6,
                    &mut m.mask.__bindgen_anon_1.ipv6,
                );
                key.src.in6_u.u6_addr8 = src;
                key.dst.in6_u.u6_addr8 = dst;
                mask.src.in6_u.u6_addr8 = [0xff; 16];
                mask.dst.in6_u.u6_addr8 = [0xff; 16];
                (
                    c::flow_dissector_key_id_FLOW_DISSECTOR_KEY_IPV6_ADDRS,
                    ETH_P_IPV6,
                )
            }
        };
        m.key.control.addr_type = addr_type as u16;
        m.mask.control.addr_type = !0;
        m.key.basic.n_proto = n_proto.to_be();
        m.mask.basic.n_proto = !0;
        m.key.basic.ip_proto = proto;
        m.mask.basic.ip_proto = !0;
        uses(addr_type);
        uses(c::flow_dissector_key_id_FLOW_DISSECTOR_KEY_CONTROL);
        uses(c::flow_dissector_key_id_FLOW_DISSECTOR_KEY_BASIC);

        if let Some(Ports { src, dst }) = tuple.ports {
            let both = |p: &mut c::flow_dissector_key_ports, src: u16, dst: u16| {
                p.__bindgen_anon_1.__bindgen_anon_1 =
                    c::flow_dissector_key_ports__bindgen_ty_1__bindgen_ty_1 { src, dst };
            };
            both(&mut m.key.tp, src.to_be(), dst.to_be());
            both(&mut m.mask.tp, !0, !0);
            uses(c::flow_dissector_key_id_FLOW_DISSECTOR_KEY_PORTS);
        }
        if proto == IPPROTO_TCP {
            // Neither FIN nor RST: those are for conntrack.
            m.mask.tcp.flags = TCP_FIN_RST.to_be();
            uses(c::flow_dissector_key_id_FLOW_DISSECTOR_KEY_TCP);
        }

        let mut vlans = flow.ingress.layers.iter().filter_map(|layer| match layer {
            Layer::Vlan { proto, vid, .. } => Some((proto, vid)),
            Layer::Pppoe { .. } => None,
        });
        let vlan = |key: &mut c::flow_dissector_key_vlan,
                    mask: &mut c::flow_dissector_key_vlan,
                    proto: u16,
                    vid: u16| {
            key.__bindgen_anon_1.__bindgen_anon_1.set_vlan_id(vid);
            key.vlan_tpid = proto.to_be();
            mask.__bindgen_anon_1.__bindgen_anon_1.set_vlan_id(0xfff);
            mask.vlan_tpid = !0;
        };
        if let Some((proto, vid)) = vlans.next() {
            vlan(&mut m.key.vlan, &mut m.mask.vlan, proto, vid);
            uses(c::flow_dissector_key_id_FLOW_DISSECTOR_KEY_VLAN);
        }
        if let Some((proto, vid)) = vlans.next() {
            vlan(&mut m.key.cvlan, &mut m.mask.cvlan, proto, vid);
            uses(c::flow_dissector_key_id_FLOW_DISSECTOR_KEY_CVLAN);
        }
        m.dissector.used_keys = used;
    }
    Some(())
}

/// Makes the rule of a flow in the buffer. [`None`] if it has more actions than fit.
///
/// # Safety
///
/// Nobody else uses the buffer, which came from `nfo_rule_new()`.
pub(super) unsafe fn render(
    rule: NonNull<c::nfo_rule>,
    flow: &FlowDesc,
    out: &OutDev,
    ttl: bool,
    outermost_first: bool,
) -> Option<()> {
    // SAFETY: By the contract of this function.
    unsafe {
        c::nfo_rule_clear(rule.as_ptr());
        keys(rule, flow)?;
    }
    let mut make = Maker(rule);
    let Kind::Routed { proto, .. } = flow.kind else {
        return None;
    };

    make.macs(flow.egress.macs.src, flow.egress.macs.dst)?;
    make.pop(&flow.ingress.layers)?;
    if outermost_first {
        for layer in flow.egress.layers.iter() {
            make.push(layer)?;
        }
    } else {
        for layer in flow.egress.layers.iter().rev() {
            make.push(layer)?;
        }
    }
    if ttl {
        make.ttl(flow.is_v6())?;
    }
    make.nat(flow)?;
    if !flow.is_v6() && (flow.is_nat() || ttl) {
        let l4 = match (flow.is_nat(), proto) {
            (false, _) => 0,
            (true, IPPROTO_TCP) => CSUM_TCP,
            (true, _) => CSUM_UDP,
        };
        make.action(c::flow_action_id_FLOW_ACTION_CSUM)?
            .__bindgen_anon_1
            .csum_flags = CSUM_IPV4HDR | l4;
    }
    make.action(c::flow_action_id_FLOW_ACTION_REDIRECT)?
        .__bindgen_anon_1
        .dev = out.0.as_ptr();
    Some(())
}
