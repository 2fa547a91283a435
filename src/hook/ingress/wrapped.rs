// SPDX-License-Identifier: GPL-2.0

//! Packets with something around them: VLAN tags, a PPPoE session, a tunnel.

use super::{
    dispatch,
    forward,
    miss,
    not_so_plain,
    tag,
    verdict,
    L3Location,
    Serves,
    NF_STOLEN, //
};
use crate::{
    ffi::{
        c,
        skb::{
            Segments,
            Skb,
            PACKET_HOST,
            PACKET_OTHERHOST, //
        }, //
    },
    flow::{
        ingress_path::IngressPath,
        tag_cache::{
            session,
            FrameKey, //
        }, //
    },
    flowtable::{
        Flowtable,
        Store, //
    },
    net::family::{
        Family,
        V4,
        V6, //
    }, //
};
use kernel::ffi::c_uint;
use nft_flow::{
    encap::{
        self,
        ethertype, //
    },
    key::IngressId,
    parse::Miss,
    reason::MissReason, //
};

const ETH_P_8021Q: u16 = (c::ETH_P_8021Q as u16).to_be();
const ETH_P_8021AD: u16 = (c::ETH_P_8021AD as u16).to_be();
pub(super) const ETH_P_PPP_SES: u16 = (c::ETH_P_PPP_SES as u16).to_be();

/// A packet with something around it, or for a device above this one.
#[inline(never)]
pub(super) fn wrapped(ft: &Flowtable, skb: Skb, serves: Serves) -> c_uint {
    verdict(skb, try_wrapped(ft, skb, serves))
}

fn try_wrapped(ft: &Flowtable, skb: Skb, serves: Serves) -> Result<(), MissReason> {
    let pkt_type = skb.pkt_type();

    if !matches!(pkt_type, PACKET_HOST | PACKET_OTHERHOST) {
        return Err(MissReason::NotForUs);
    }
    if skb.is_routed() {
        return Err(MissReason::Routed);
    }
    // Plain, but for a mark or a priority.
    if pkt_type == PACKET_HOST && !skb.has_vlan_tag() && !skb.has_secpath() {
        if let ethertype @ (V4::ETHERTYPE | V6::ETHERTYPE) = skb.protocol() {
            let ingress_id = IngressId::from_ifindex(skb.ifindex()).ok_or(MissReason::NoEntry)?;

            return dispatch(ft, skb, L3Location::plain(ingress_id), ethertype, serves);
        }
    }
    // VLAN 0 is none, and needs no ingress path; nor does what came through IPsec.
    let tagged = skb.vlan_tag().is_some_and(|(_, tci)| tci & 0x0fff != 0);
    let alone = skb.has_vlan_tag() || skb.has_secpath();
    if !ft.has_ingress_paths() && (tagged || pkt_type != PACKET_HOST || !alone) {
        return Err(match skb.protocol() {
            _ if tagged => MissReason::Encap,
            V4::ETHERTYPE | V6::ETHERTYPE if pkt_type != PACKET_HOST => MissReason::NotForUs,
            ETH_P_8021Q | ETH_P_8021AD | ETH_P_PPP_SES => MissReason::Encap,
            _ => MissReason::NotIp,
        });
    }

    // Most of what a bridge's port sees in passing.
    let others = pkt_type != PACKET_HOST;
    let to = skb.mac_destination().filter(|_| others);
    if others && !to.is_some_and(|mac| ft.may_be_to(mac)) {
        return Err(MissReason::NotForUs);
    }

    let ethertype = u16::from_be(skb.protocol());
    // Ends: each pull makes the linear part longer, up to the whole packet.
    let peeled = loop {
        match encap::peel(skb.vlan_tag(), ethertype, skb.head(), skb.len() as usize) {
            Ok(peeled) => break peeled,
            Err(Miss::Reason(reason)) => return Err(reason),
            Err(Miss::NeedPull(len)) if skb.pull(len) => (),
            Err(Miss::NeedPull(_)) => return Err(MissReason::NoMem),
        }
    };
    let ifindex = IngressId::from_ifindex(skb.ifindex()).ok_or(MissReason::NoEntry)?;
    let peer = if peeled.encaps.has_session() {
        if peeled.room != (skb.len() as usize).wrapping_sub(peeled.offset)
            && !is_whole(skb, &peeled)
        {
            return Err(MissReason::Truncated);
        }
        skb.mac_source()
    } else {
        None
    };
    let path = ft.ingress_path(skb.rcu(), &peeled.encaps.key(ifindex, peer));
    if others && path.is_none_or(|s| Some(s.mac) != to) {
        return Err(MissReason::NotForUs);
    }
    let loc = L3Location {
        ingress_id: match path {
            Some(path) => path.id,
            None if peeled.encaps.is_empty() => ifindex,
            None => return Err(MissReason::Encap),
        },
        offset: peeled.offset,
        tunnel: false,
        path,
        is_other_l4: false,
    };

    dispatch(ft, skb, loc, peeled.ethertype.to_be(), serves)
}

/// Whether the packet in a PPPoE frame is not longer than the frame says. The length of a packet
/// that was aggregated from many frames is not checked.
#[cold]
fn is_whole(skb: Skb, peeled: &encap::Peeled) -> bool {
    let word = |i: usize| skb.peek(peeled.offset.wrapping_add(i));

    match (word(0), word(4)) {
        (Some(a), Some(b)) => peeled.fits([a, b]) || skb.segments() != Segments::None,
        _ => false,
    }
}

/// A frame of a PPPoE session, maybe in a VLAN without priority. What is not the most usual of its
/// kind goes the general way.
#[inline(never)]
pub(super) fn in_session(ft: &Flowtable, skb: Skb, serves: Serves) -> c_uint {
    let frame = encap::session_data(skb.head(), skb.len() as usize);
    let found = frame.zip(skb.mac_source()).and_then(|(frame, peer)| {
        let key = FrameKey {
            tag: tag(skb),
            session: session(frame.id, peer),
        };

        ft.tags
            .find(skb.rcu(), key)
            .map(|path| (path, frame.ethertype))
    });

    match found {
        Some((path, ethertype::IP)) if serves.v4 => session_packet::<V4>(ft, skb, path),
        Some((path, ethertype::IPV6)) if serves.v6 => session_packet::<V6>(ft, skb, path),
        _ => wrapped(ft, skb, serves),
    }
}

/// The same for a packet of a family, which fills the frame.
#[inline(always)]
fn session_packet<F: Store>(ft: &Flowtable, skb: Skb, path: &IngressPath) -> c_uint {
    // SAFETY: The header of the session is there, and is put back.
    unsafe { skb.pull_header(encap::SESSION_LEN, F::ETHERTYPE) };
    let loc = L3Location {
        path: Some(path),
        ..L3Location::plain(path.id)
    };

    let verdict = match forward::<F, true>(ft, skb, loc) {
        Ok(()) => return NF_STOLEN,
        Err(why @ (MissReason::L4Proto | MissReason::ExtHeader | MissReason::Jumbogram)) => {
            not_so_plain::<F>(ft, skb, path.id, Some(path), why)
        }
        Err(reason) => miss(skb, reason),
    };
    if verdict != NF_STOLEN {
        // SAFETY: It was pulled above, and the packet is as it was.
        unsafe { skb.push_header(encap::SESSION_LEN, ETH_P_PPP_SES) };
    }
    verdict
}

/// A packet in a packet, maybe.
#[inline(never)]
pub(super) fn tunnelled(
    ft: &Flowtable,
    skb: Skb,
    loc: L3Location<'_>,
    ethertype: u16,
    serves: Serves,
) -> Result<(), MissReason> {
    let hdr = skb.head().get(loc.offset..).unwrap_or_default();
    let len = (skb.len() as usize).wrapping_sub(loc.offset);
    let outer = match encap::outer(u16::from_be(ethertype), hdr, len, loc.ingress_id) {
        Ok(outer) => outer,
        Err(Miss::Reason(reason)) => return Err(reason),
        Err(Miss::NeedPull(_)) => return Err(MissReason::L4Proto),
    };
    let path = ft
        .ingress_path(skb.rcu(), &outer.key)
        .ok_or(MissReason::L4Proto)?;
    let loc = L3Location {
        ingress_id: path.id,
        offset: loc.offset.wrapping_add(outer.size),
        tunnel: true,
        path: Some(path),
        is_other_l4: false,
    };

    dispatch(ft, skb, loc, outer.ethertype.to_be(), serves)
}
