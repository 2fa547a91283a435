// SPDX-License-Identifier: GPL-2.0

//! From the description of a flow to the engine's entry.

use crate::entry::{
    at,
    ib1,
    l2,
    Foe,
    PacketType, //
};
use crate::hal::{
    Bind,
    Out, //
};
use crate::hash;
use crate::seq::TAG;
use crate::soc::Soc;
use nft_flow::desc::{
    Addrs,
    Egress,
    FlowDesc,
    Kind,
    Layer,
    Macs,
    Ports,
    Tuple,
    Unsupported,
    Via, //
};
use nft_flow::encap::ethertype;

/// IANA numbers of protocols.
mod proto {
    pub(super) const TCP: u8 = 6;
    pub(super) const UDP: u8 = 17;
    pub(super) const GRE: u8 = 47;
    pub(super) const ESP: u8 = 50;
}

/// In the place of the ports of protocols without; the protocol in the last byte.
const NO_PORTS: u32 = 0xa5a5_a500;
/// The first queue of the switch's ports; those of the MACs are below.
const DSA_QUEUES: u32 = 3;
/// Tags that a frame can get, PPPoE included.
const MAX_LAYERS: usize = 2;
/// `DSA_TAG_PROTO_MTK_VALUE`, include/net/dsa.h: the tag that the engine can write.
const DSA_TAG_PROTO_MTK: u8 = 9;
/// That the tag of a switch port is an 802.1Q tag too; the port is a bit below.
const DSA_TAGGED: u16 = 1 << 8;
/// Ports of a switch that the tag has a bit for.
const DSA_PORTS: u8 = 8;

/// What the engine has around it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Board {
    /// Interface indices of the frame engine's MACs, 0 for one without.
    pub macs: [u32; 3],
    /// The MTU that [`crate::seq::set_mtu`] was told.
    pub mtu: u16,
}

impl Board {
    fn mac(&self, ifindex: u32) -> Option<u8> {
        (0..)
            .zip(self.macs)
            .find_map(|(n, mac)| (mac == ifindex && mac != 0).then_some(n))
    }
}

/// An entry, and where it belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Image {
    /// The entry as it is in force, but for the clock and the counting bit.
    pub foe: Foe,
    /// Its type.
    pub of: PacketType,
    /// The first slot of its bucket.
    pub bucket: u16,
    /// The engine that sees the packets.
    pub engine: u8,
    /// Tells where packets come in, which is not part of the key: two numbers, two places.
    pub domain: u32,
}

/// Encodes one direction of a flow.
///
/// # Errors
///
/// The first thing of it that the engine cannot do.
pub fn encode(soc: &Soc, board: &Board, desc: &FlowDesc) -> Result<Image, Unsupported> {
    let Kind::Routed {
        proto,
        tuple,
        rewritten,
    } = desc.kind
    else {
        return Err(Unsupported::Bridged);
    };
    let of = match (tuple.addrs, proto, tuple.ports) {
        (Addrs::V4 { .. }, proto::TCP | proto::UDP, Some(_)) => PacketType::Ipv4Hnapt,
        (Addrs::V6 { .. }, proto::TCP | proto::UDP, Some(_)) => PacketType::Ipv6Route5,
        // The later generations hash the key of GRE, and of what is not known.
        (_, proto::GRE, None) if soc.hal.version() > 1 => return Err(Unsupported::L4Proto),
        (Addrs::V4 { .. }, proto::GRE | proto::ESP, None) => PacketType::Ipv4Route,
        (Addrs::V6 { .. }, proto::GRE | proto::ESP, None) => PacketType::Ipv6Route3,
        _ => return Err(Unsupported::L4Proto),
    };
    let udp = proto == proto::UDP;
    let (mut foe, layers) = frame(&desc.egress, of, udp)?;

    // What is matched and what is written.
    let mut put = |base: [usize; 3], t: &Tuple| {
        let [src, dst, ports] = base;
        match t.addrs {
            Addrs::V4 { src: s, dst: d } => {
                foe.set_word(src, u32::from_be_bytes(s));
                foe.set_word(dst, u32::from_be_bytes(d));
            }
            Addrs::V6 { src: s, dst: d } => {
                for (to, from) in [(src, s), (dst, d)] {
                    for (n, word) in from.chunks_exact(4).enumerate() {
                        if let Some(word) = word.first_chunk() {
                            foe.set_word(to + 4 * n, u32::from_be_bytes(*word));
                        }
                    }
                }
            }
        }
        if let Some(Ports { src, dst }) = t.ports {
            foe.set_half(ports, dst);
            foe.set_half(ports + 2, src);
        }
    };
    match of {
        PacketType::Ipv4Hnapt | PacketType::Ipv4Route => {
            if rewritten.addrs.is_v6() || rewritten.ports.is_some() != tuple.ports.is_some() {
                return Err(Unsupported::Nat);
            }
            put([at::V4_SRC, at::V4_DST, at::V4_PORTS], &tuple);
            put(
                [at::V4_NEW_SRC, at::V4_NEW_DST, at::V4_NEW_PORTS],
                &rewritten,
            );
            if of == PacketType::Ipv4Route {
                foe.set_word(at::V4_PORTS, NO_PORTS | u32::from(proto));
            }
        }
        _ => {
            if rewritten != tuple {
                return Err(Unsupported::Nat);
            }
            put([at::V6_SRC, at::V6_DST, at::V6_PORTS], &tuple);
            if of == PacketType::Ipv6Route3 {
                foe.set_word(at::V6_PORTS, NO_PORTS | u32::from(proto));
            }
        }
    }

    output(soc, board, &desc.egress, of, udp, layers, &mut foe)?;
    let engine = match (desc.ingress.port.via, board.mac(desc.ingress.port.ifindex)) {
        (Via::Wdma(_), _) => 0,
        (_, Some(mac)) => mac.min(soc.engines - 1),
        (_, None) => return Err(Unsupported::IngressPort),
    };
    if desc.ingress.tunnel.is_some() || desc.egress.tunnel.is_some() {
        return Err(Unsupported::Tunnel);
    }
    if desc.marks.dscp.is_some() {
        return Err(Unsupported::Dscp);
    }
    // All flows share one size: a path that carries less is not for the engine. It takes a PPPoE
    // header of 8 bytes for a tag of 4, so that much is let through in a session.
    let pppoe = u32::from(desc.egress.layers.pppoe().is_some());
    if u32::from(board.mtu) > u32::from(desc.egress.mtu) + 2 * TAG * pppoe {
        return Err(Unsupported::Mtu);
    }

    let bucket = hash::bucket(&foe.key(of), soc.ways).ok_or(Unsupported::L4Proto)?;
    Ok(Image {
        foe,
        of,
        bucket,
        engine,
        domain: domain(desc),
    })
}

/// A template for what is bridged between two stations: the engine makes an entry for each flow of
/// theirs, which [`bridged`] completes.
///
/// # Errors
///
/// The first thing of it that the engine cannot do.
pub fn encode_bridge(soc: &Soc, board: &Board, desc: &FlowDesc) -> Result<Foe, Unsupported> {
    let of = PacketType::Bridge;
    if desc.kind != Kind::Bridged {
        return Err(Unsupported::Bridged);
    }
    let vlan = match *desc.ingress.layers.as_slice() {
        [] => 0,
        [Layer::Vlan {
            proto: ethertype::VLAN,
            vid,
            ..
        }] => vid,
        [Layer::Vlan { .. }] => return Err(Unsupported::VlanProto),
        _ => return Err(Unsupported::IngressLayers),
    };
    if desc.ingress.macs != Some(desc.egress.macs) {
        return Err(Unsupported::MacAddress);
    }
    let (mut foe, layers) = frame(&desc.egress, of, false)?;
    let Macs { src, dst } = desc.egress.macs;
    let [a, b, c, d, e, f] = dst;
    let [g, h, i, j, k, l] = src;
    foe.set_word(at::BRIDGE_DMAC, u32::from_le_bytes([a, b, c, d]));
    foe.set_half(at::BRIDGE_DMAC + 4, u16::from_le_bytes([e, f]));
    foe.set_half(at::BRIDGE_SMAC, u16::from_le_bytes([g, h]));
    foe.set_word(at::BRIDGE_SMAC + 2, u32::from_le_bytes([i, j, k, l]));
    foe.set_half(at::BRIDGE_VLAN, vlan);
    output(soc, board, &desc.egress, of, false, layers, &mut foe)?;
    Ok(foe)
}

/// The entry for a flow of two stations: the key is that of `unbound`, which the engine has made,
/// everything else that of the template.
///
/// [`None`] if `unbound` is of a type whose packets are not understood.
pub fn bridged(soc: &Soc, template: &Foe, unbound: &Foe) -> Option<(Foe, PacketType)> {
    let of = crate::hal::packet_type(soc.hal, unbound.ib1())?;
    if of == PacketType::Bridge {
        return None;
    }
    let mut foe = *unbound;

    let keep = soc.hal.type_mask() | ib1::UDP.mask();
    foe.set_ib1(unbound.ib1() & keep | template.ib1() & !keep);
    let (from, to) = (PacketType::Bridge.places().l2, of.places().l2);
    for n in (0..32).step_by(4) {
        foe.set_word(to + n, template.word(from + n));
    }
    if of == PacketType::Ipv4Hnapt {
        for n in (0..12).step_by(4) {
            foe.set_word(at::V4_NEW_SRC + n, unbound.word(at::V4_SRC + n));
        }
    } else if of as u8 >= PacketType::Ipv6Route3 as u8
        && foe.l2_half(of, l2::ETYPE) == ethertype::IP
    {
        foe.set_l2_half(of, l2::ETYPE, ethertype::IPV6);
    }
    foe.set_ib2(of, template.ib2(PacketType::Bridge));
    Some((foe, of))
}

/// Tags of a frame so far.
#[derive(Clone, Copy)]
struct Tags {
    vlans: u32,
    pppoe: bool,
}

/// The link-layer part, but for where frames leave.
fn frame(egress: &Egress, of: PacketType, udp: bool) -> Result<(Foe, Tags), Unsupported> {
    let mut foe = Foe::ZERO;
    let mut tags = Tags {
        vlans: 0,
        pppoe: false,
    };

    // The first half word of the link-layer part is the outer tag.
    for (count, layer) in egress.layers.iter().enumerate() {
        match layer {
            Layer::Pppoe { .. } if tags.pppoe => return Err(Unsupported::PppoeDepth),
            Layer::Vlan { .. } if tags.pppoe => return Err(Unsupported::LayerOrder),
            _ if count >= MAX_LAYERS => return Err(Unsupported::VlanDepth),
            Layer::Vlan { proto, .. } if proto != ethertype::VLAN => {
                return Err(Unsupported::VlanProto)
            }
            Layer::Vlan { vid, pcp, .. } => {
                let place = if tags.vlans == 0 {
                    l2::VLAN1
                } else {
                    l2::VLAN2
                };
                let tci = (u16::from(pcp.unwrap_or(0) & 7) << 13) | vid & 0xfff;
                foe.set_l2_half(of, place, tci);
                tags.vlans += 1;
            }
            Layer::Pppoe { session } => {
                foe.set_l2_half(of, l2::PPPOE, session);
                tags.pppoe = true;
            }
        }
    }
    if !egress.macs.are_unicast() {
        return Err(Unsupported::MacAddress);
    }
    foe.set_macs(of, egress.macs.src, egress.macs.dst);
    let etype = match of {
        _ if tags.pppoe => ethertype::PPPOE,
        PacketType::Ipv6Route3 | PacketType::Ipv6Route5 => ethertype::IPV6,
        _ => ethertype::IP,
    };
    foe.set_l2_half(of, l2::ETYPE, etype);
    foe.set_ib1(ib1::UDP.put(u32::from(udp)));
    Ok((foe, tags))
}

/// Where frames leave: both info blocks.
fn output(
    soc: &Soc,
    board: &Board,
    egress: &Egress,
    of: PacketType,
    udp: bool,
    tags: Tags,
    foe: &mut Foe,
) -> Result<(), Unsupported> {
    let mut bind = Bind {
        packet_type: of,
        udp,
        vlan_layers: tags.vlans,
        vlan_tag: tags.vlans > 0,
        pppoe: tags.pppoe,
    };
    let mac = || match board.mac(egress.port.ifindex) {
        // Ports 1, 2 and 15 of the packet switching engine.
        Some(0) => Ok((1, 0)),
        Some(1) => Ok((2, 1)),
        Some(_) if soc.hal.version() > 1 => Ok((15, 14)),
        _ => Err(Unsupported::EgressPort),
    };
    let out = match egress.port.via {
        Via::Plain => {
            let (pse_port, queue) = mac()?;
            Out {
                pse_port,
                queue: Some(queue),
                wdma: None,
            }
        }
        Via::Dsa { port, proto } => {
            if proto != DSA_TAG_PROTO_MTK {
                return Err(Unsupported::DsaProto);
            }
            if port >= DSA_PORTS {
                return Err(Unsupported::PortNumber);
            }
            let (pse_port, _) = mac()?;
            // The special tag takes the place of the outer VLAN tag's EtherType.
            let tagged = if tags.vlans > 0 { DSA_TAGGED } else { 0 };
            foe.set_l2_half(of, l2::ETYPE, (1 << port) | tagged);
            bind.vlan_layers = tags.vlans.max(1);
            bind.vlan_tag = false;
            Out {
                pse_port,
                queue: Some(DSA_QUEUES + u32::from(port)),
                wdma: None,
            }
        }
        Via::Wdma(wdma) => {
            let pse_port = soc.hal.wdma_port(&wdma)?;
            // The first generation has the station in the place of the second tag.
            if soc.hal.version() == 1 && tags.vlans > 1 {
                return Err(Unsupported::VlanDepth);
            }
            soc.hal.set_wdma(foe, of, &wdma);
            Out {
                pse_port,
                queue: None,
                wdma: Some(wdma),
            }
        }
    };

    foe.set_ib1(soc.hal.bind(bind));
    foe.set_ib2(of, soc.hal.ib2(&out, soc.port_mg));
    Ok(())
}

/// A number for where packets come in: device and encapsulations (FNV-1a).
fn domain(desc: &FlowDesc) -> u32 {
    let mut hash = 0x811c_9dc5u32;
    let mut add = |value: u32| {
        for byte in value.to_le_bytes() {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
    };

    add(desc.ingress.port.ifindex);
    if let Via::Dsa { port, .. } = desc.ingress.port.via {
        add(u32::from(port) + 1);
    }
    for layer in desc.ingress.layers.iter() {
        add(match layer {
            Layer::Vlan { proto, vid, .. } => (u32::from(proto) << 16) | u32::from(vid),
            Layer::Pppoe { session } => (u32::from(ethertype::PPPOE) << 16) | u32::from(session),
        });
    }
    hash
}
