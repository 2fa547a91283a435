// SPDX-License-Identifier: GPL-2.0

//! Forward-path discovery: where packets of each direction leave, and where they come in.
//!
//! The packet that hit the rule has its own route; the way back is looked up as the stack would do
//! for an answer that comes in where the packet leaves. Packets leave through the device of their
//! route, whatever that is: a bridge forwards to the port where the station is now, a VLAN device
//! sets its priorities, PPP uses its present session, and their queueing disciplines and statistics
//! apply. Where none of these would make a difference, they go past such devices, see
//! [`crate::net::direct`].
//!
//! Packets are picked up as early as possible, see [`crate::net::device_path`]. The neighbour is
//! not resolved here: transmitting does that.

use crate::{
    ffi::{
        self,
        c,
        skb,
        DevRef,
        Rcu, //
    },
    net::{
        ct::Ct,
        device_path::{
            self,
            Destination,
            DevicePathWalk, //
            Ingress,
        },
        family::Family,
        nf_tables::NftRef,
        packet::ForwardPkt,
        route::{
            Dst,
            Neigh, //
        }, //
    }, //
};
use core::{
    mem::MaybeUninit,
    ptr::NonNull, //
};
use nft_flow::{
    direction::Direction, //
    key::Seed,
    reason::SkipReason,
};

/// `RTN_UNICAST`, include/uapi/linux/rtnetlink.h.
const RTN_UNICAST: u16 = c::NFO_RTN_UNICAST;
/// A direction that no fast packet was seen of for this long may travel another way now.
pub(crate) const QUIET: u32 = ffi::HZ / 2 + 1;
/// Smallest MTU that IPv4 allows: a smaller one is not meant.
const MIN_MTU: u16 = 68;

/// The path of a direction until now, when its flow is torn down because of a packet of the other
/// one.
pub(crate) struct KnownPath {
    /// Their route, if it is still good.
    pub(crate) dst: Option<Dst>,
    /// The device that they enter the stack by, and who sends them.
    pub(crate) iif: (u32, [u8; 6]),
    /// `jiffies` of the latest that was fast.
    pub(crate) seen: u32,
}

/// How packets of a direction leave.
pub(crate) enum XmitType {
    /// To a neighbour.
    Neigh(Neigh),
    /// Through IPsec.
    Xfrm,
}

/// One direction's way out.
pub(crate) struct DirPath<'a> {
    pub(crate) dst: Dst,
    pub(crate) xmit: XmitType,
    /// Largest packet that fits, in bytes from the network header on.
    pub(crate) mtu: u16,
    /// Where packets of the other direction come in.
    pub(crate) ingress: Ingress<'a>,
    /// `jiffies` when a packet of this direction was seen to come in as is thought; so long ago
    /// that it does not matter, if that is a guess.
    pub(crate) seen: u32,
}

/// Discovers both ways out for the packet in `pkt`, which belongs to `ct` and travels in `dir`.
/// What is not `known` of the other direction is guessed: its packets come in where these leave,
/// and are routed as from there. If they do not, the first one says so
/// ([`FlowShared::rule_hit`](crate::flow::shared::FlowShared::rule_hit)).
pub(crate) fn discover<'a, F: Family>(
    forward: ForwardPkt<'_>,
    ct: Ct,
    dir: Direction,
    mut known: Option<KnownPath>,
    nft: NftRef,
    seed: &'a Seed,
) -> Result<[DirPath<'a>; 2], SkipReason> {
    let (pkt, rcu) = (forward.info(), forward.rcu());
    // SAFETY: A packet in the forward hook has a route and an ingress device.
    let (this, other, frame_ingress, known_ingress) = unsafe {
        let skb = pkt.skb;
        let in_dev = (*pkt.state).in_;
        let this = NonNull::new(skb::route(skb)).ok_or(SkipReason::RouteReply)?;

        if !c::nfo_dst_hold(this.as_ptr()) {
            return Err(SkipReason::RouteReply);
        }
        let this = Dst::from_raw(this);

        let mut fl = MaybeUninit::<c::flowi>::zeroed().assume_init();
        F::flow_to(&mut fl, skb, pkt, ct, dir);
        fl.u.__fl_common.flowic_proto = ct.l4proto();
        let mark = (*skb)
            .__bindgen_anon_4
            .headers
            .as_ref()
            .__bindgen_anon_4
            .mark;
        let here = (*this.dev()).ifindex as u32;
        let mut by = None;
        let known_ingress = known.as_mut().and_then(|known| {
            let (ifindex, sender) = known.iif;

            by = known.dst.take();
            if ifindex == here {
                return None;
            }
            let dev = c::dev_get_by_index_rcu((*pkt.state).net, ifindex as i32);
            Some((DevRef::from_raw(dev, rcu)?, sender))
        });
        let from = known_ingress.map_or(this.dev(), |(dev, _)| dev.as_ptr());
        // The stack looks for each packet: there will be none.
        if F::NFPROTO == c::NFPROTO_IPV6 as u8
            && !c::nfo_forwards6((*pkt.state).net, (*from).ifindex as u32)
        {
            return Err(SkipReason::RouteReply);
        }
        let returning = |dst: Dst| {
            let returns = c::nfo_dev_is_or_above(in_dev, (*dst.dev()).ifindex as u32);
            (dst, returns)
        };
        // Look the reply route up with this packet's mark (usually a connmark). If it does not lead
        // back to the ingress device, try without: the mark then belongs to the ingress side only.
        let back = |mark| {
            let mut fl = fl;

            fl.u.__fl_common.flowic_mark = mark;
            let dst = c::nfo_route_input(from, &mut fl, F::NFPROTO);
            Some(returning(Dst::from_raw(NonNull::new(dst)?)))
        };
        let found = match by {
            Some(dst) => Some(returning(dst)),
            None => match back(mark) {
                Some((dst, true)) => Some((dst, true)),
                found if mark != 0 => back(0).filter(|(_, returns)| *returns).or(found),
                found => found,
            },
        };
        let (other, returns) = found.ok_or(SkipReason::RouteReply)?;

        // Asymmetric routing: take device and source MAC from this frame instead of the reply
        // route.
        let frame_ingress = if returns {
            None
        } else {
            let mut mac = [0; 6];

            c::nfo_skb_source(skb, mac.as_mut_ptr());
            Some((DevRef::new(in_dev, rcu), mac))
        };
        (this, other, frame_ingress, known_ingress)
    };

    let mut this = dir_path::<F>(rcu, this, known_ingress, ct, dir, nft, seed)?;
    let mut other = dir_path::<F>(rcu, other, frame_ingress, ct, dir.opposite(), nft, seed)?;

    this.seen = ffi::jiffies32();
    other.seen = known.map_or(this.seen.wrapping_sub(QUIET), |known| known.seen);
    Ok(match dir {
        Direction::Original => [this, other],
        Direction::Reply => [other, this],
    })
}

/// One direction, by its route. Packets of the other one come in by the same devices, or where one
/// has come in (`frame_ingress`: device and sender).
fn dir_path<'a, F: Family>(
    rcu: Rcu<'_>,
    dst: Dst,
    frame_ingress: Option<(DevRef<'_>, [u8; 6])>,
    ct: Ct,
    dir: Direction,
    nft: NftRef,
    seed: &'a Seed,
) -> Result<DirPath<'a>, SkipReason> {
    // SAFETY: The route is valid, and of this family; its device cannot go away while RCU is held.
    unsafe {
        if (*dst.as_ptr()).error != 0 || c::nfo_dst_redirects(dst.as_ptr()) {
            return Err(SkipReason::PathShape);
        }
        if F::NFPROTO == c::NFPROTO_IPV4 as u8
            && (*dst.as_ptr().cast::<c::rtable>()).rt_type != RTN_UNICAST
        {
            return Err(SkipReason::PathShape);
        }
        // Routes of IPv6 have no type. What comes in for a group is not for this host alone.
        if F::NFPROTO == c::NFPROTO_IPV6 as u8
            && ct.tuple(dir.opposite()).src.u3.in6.in6_u.u6_addr8[0] == 0xff
        {
            return Err(SkipReason::PathShape);
        }
        let mtu = dst.mtu(F::NFPROTO);
        if mtu < MIN_MTU {
            return Err(SkipReason::Mtu);
        }

        if c::nfo_dst_xfrm(dst.as_ptr()) {
            // Answers appear, decrypted, on the device that the encrypted packets came in through.
            let ingress = DevicePathWalk::stay(dst.device(rcu), nft).ingress(seed)?;
            return Ok(DirPath {
                dst,
                xmit: XmitType::Xfrm,
                mtu,
                ingress,
                seen: 0,
            });
        }

        let daddr = &raw const ct.tuple(dir.opposite()).src.u3;
        let neigh = dst.neighbour(daddr.cast()).ok_or(SkipReason::Neigh)?;
        let (dev, next_hop) = match frame_ingress {
            Some((dev, mac)) => (dev, Destination::Sender(mac)),
            None => (dst.device(rcu), Destination::Neigh(neigh.get_ref(rcu))),
        };
        let ingress =
            device_path::fill_forward_path::<F>(rcu, dev, &next_hop, nft).ingress(seed)?;

        Ok(DirPath {
            dst,
            xmit: XmitType::Neigh(neigh),
            mtu,
            ingress,
            seen: 0,
        })
    }
}
