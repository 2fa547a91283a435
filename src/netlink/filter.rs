// SPDX-License-Identifier: GPL-2.0

//! Which flows a request is about.

use crate::{
    ffi::{
        c,
        genl::{
            Attr,
            Policy,
            Request, //
        },
        Walk, //
    },
    flow::{
        hw_state::Stage,
        shared::FlowShared, //
    },
    flowtable::Flowtable, //
};
use kernel::prelude::*;
use nft_flow::{
    direction::Direction, //
    prefix::Prefix,
};

/// Attributes that say which flows; the same numbers in all sets that have them.
pub(super) mod attr {
    pub(in crate::netlink) const NFPROTO: u16 = 1;
    pub(in crate::netlink) const TABLE: u16 = 2;
    pub(in crate::netlink) const FLOWTABLE: u16 = 3;
    pub(super) const IFINDEX: u16 = 4;
    pub(super) const IFNAME: u16 = 5;
    pub(super) const IPV4: u16 = 6;
    pub(super) const IPV6: u16 = 7;
    pub(super) const PREFIX_LEN: u16 = 8;
    pub(in crate::netlink) const MARK: u16 = 9;
    pub(in crate::netlink) const MARK_MASK: u16 = 10;
}

/// `NFT_NAME_MAXLEN`, less the NUL.
const NAME_MAX: u16 = 255;
/// `ALTIFNAMSIZ`, less the NUL.
const ALTNAME_MAX: u16 = 127;

/// Policies of attribute 0, of those in [`attr`], and of what a set has behind them.
pub(super) const fn policy<const N: usize>(more: &[Policy]) -> [Policy; N] {
    const FILTER: [Policy; 11] = [
        Policy::REJECT,
        Policy::u8_max(c::NFPROTO_IPV6 as u8),
        Policy::string(NAME_MAX),
        Policy::string(NAME_MAX),
        Policy::u32_min(1),
        Policy::string(ALTNAME_MAX),
        Policy::BE32,
        Policy::exact(16),
        Policy::u8_max(128),
        Policy::U32,
        Policy::U32,
    ];

    let mut all = [Policy::REJECT; N];
    let mut i = 0;

    assert!(N == FILTER.len() + more.len());
    while i < N {
        all[i] = match i < FILTER.len() {
            true => FILTER[i],
            false => more[i - FILTER.len()],
        };
        i += 1;
    }
    all
}

/// Begins a walk over the flows of the namespace that is asked. Who asks all the time, from many
/// threads, is made to wait, and nobody else.
pub(super) fn begin_walk<'a>(request: &Request<'a>) -> Result<Walk<'a>> {
    request.net().begin_walk().map_err(|e| {
        let message = c"others are walking over the flows of this network namespace";

        request.refuse(e, message, None)
    })
}

/// Which flows: those for which everything holds that is not [`None`].
pub(super) struct Filter<'a> {
    nfproto: Option<u32>,
    table: Option<&'a CStr>,
    flowtable: Option<&'a CStr>,
    /// One of those that say which flowtable.
    pub(super) named: Option<Attr<'a>>,
    devices: [Option<u32>; 2],
    prefix: Option<Prefix>,
    /// Value and mask.
    mark: Option<(u32, u32)>,
    l4proto: Option<u8>,
    /// Of either end, in packets of either direction.
    port: Option<u16>,
    tier: Option<Tier>,
}

/// Who forwards the packets of a flow.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Tier {
    /// Software.
    Software = 1,
    /// Hardware, those of one direction.
    Partial,
    /// Hardware.
    Hardware,
}

impl Tier {
    /// The highest number of a tier.
    pub(super) const MAX: u8 = Self::Hardware as u8;

    /// The tier of a flow.
    pub(super) fn of(flow: &FlowShared) -> Self {
        match flow.hw.stage() {
            Stage::Partial => Self::Partial,
            Stage::Hardware => Self::Hardware,
            _ => Self::Software,
        }
    }

    fn from_number(n: u8) -> Option<Self> {
        [Self::Software, Self::Partial, Self::Hardware]
            .into_iter()
            .find(|tier| *tier as u8 == n)
    }
}

impl<'a> Filter<'a> {
    /// Reads a request whose attributes have the numbers in [`attr`].
    pub(super) fn new(request: &Request<'a>) -> Result<Self> {
        let get = |kind| request.attr(kind);
        let [table, flowtable] = [attr::TABLE, attr::FLOWTABLE].map(get);
        let nfproto = get(attr::NFPROTO);

        if let Some(a) = nfproto {
            if !matches!(
                a.u8().into(),
                c::NFPROTO_INET | c::NFPROTO_IPV4 | c::NFPROTO_IPV6
            ) {
                let message = c"tables of this family have no flowtables of this module";
                return Err(request.refuse(EAFNOSUPPORT, message, Some(a)));
            }
        }
        Ok(Self {
            nfproto: nfproto.map(|a| a.u8().into()),
            table: table.map(|a| a.string()),
            flowtable: flowtable.map(|a| a.string()),
            named: flowtable.or(table).or(nfproto),
            devices: Self::devices(request)?,
            prefix: Self::prefix(request)?,
            mark: Self::mark(request)?,
            l4proto: None,
            port: None,
            tier: None,
        })
    }

    /// Those flows among them that have this protocol, port and tier as well.
    pub(super) fn and(
        self,
        request: &Request<'a>,
        [l4proto, port, tier]: [u16; 3],
    ) -> Result<Self> {
        let tier = request.attr(tier);

        Ok(Self {
            l4proto: request.attr(l4proto).map(|a| a.u8()),
            port: request.attr(port).map(|a| a.u16()),
            tier: tier
                .map(|a| {
                    Tier::from_number(a.u8())
                        .ok_or_else(|| request.refuse(EINVAL, c"there is no such tier", Some(a)))
                })
                .transpose()?,
            ..self
        })
    }

    fn devices(request: &Request<'_>) -> Result<[Option<u32>; 2]> {
        let missing = |attr| request.refuse(ENODEV, c"there is no such device", Some(attr));
        let net = request.net();
        let by_index = request
            .attr(attr::IFINDEX)
            .map(|a| match net.has_device(a.u32()) {
                true => Ok(a.u32()),
                false => Err(missing(a)),
            });
        let by_name = request
            .attr(attr::IFNAME)
            .map(|a| net.ifindex_of(a.string()).ok_or_else(|| missing(a)));

        Ok([by_index.transpose()?, by_name.transpose()?])
    }

    fn prefix(request: &Request<'_>) -> Result<Option<Prefix>> {
        let len = request.attr(attr::PREFIX_LEN);
        let bits = |all| len.map_or(all, |a| a.u8());
        let prefix = match (request.attr(attr::IPV4), request.attr(attr::IPV6)) {
            (None, None) => match len {
                Some(a) => {
                    let message = c"a prefix length needs an address";
                    return Err(request.refuse(EINVAL, message, Some(a)));
                }
                None => return Ok(None),
            },
            (Some(a), None) => Prefix::v4(a.array(), bits(32)),
            (None, Some(a)) => Prefix::v6(a.array(), bits(128)),
            (Some(_), Some(a)) => {
                let message = c"no flow has both an IPv4 and an IPv6 address";
                return Err(request.refuse(EINVAL, message, Some(a)));
            }
        };

        prefix.map(Some).ok_or_else(|| {
            let message = c"the prefix is longer than the address";
            request.refuse(EINVAL, message, len)
        })
    }

    fn mark(request: &Request<'_>) -> Result<Option<(u32, u32)>> {
        match (request.attr(attr::MARK), request.attr(attr::MARK_MASK)) {
            (None, None) => Ok(None),
            (Some(value), mask) => {
                let mask = mask.map_or(u32::MAX, |a| a.u32());

                if value.u32() & !mask == 0 {
                    return Ok(Some((value.u32(), mask)));
                }
                let message = c"the mark has bits that the mask has not";
                Err(request.refuse(EINVAL, message, Some(value)))
            }
            (None, Some(mask)) => Err(request.refuse(EINVAL, c"a mask needs a mark", Some(mask))),
        }
    }

    /// Whether the filter matches the flowtable.
    pub(super) fn names(&self, ft: &Flowtable) -> bool {
        let nft = ft.nft();
        let [table, name] = nft.names();

        self.nfproto.is_none_or(|p| p == nft.family())
            && self.table.is_none_or(|t| t == table)
            && self.flowtable.is_none_or(|f| f == name)
    }

    /// Whether the filter matches the flow.
    pub(super) fn matches(&self, flow: &FlowShared) -> bool {
        let ct = flow.ct.get();

        self.prefix.is_none_or(|prefix| {
            prefix.is_v6() == flow.is_v6()
                && [Direction::Original, Direction::Reply].iter().any(|&dir| {
                    // What an IPv4 address leaves over is not looked at.
                    ct.addresses(dir).iter().any(|addr| prefix.contains(addr))
                })
        }) && self
            .mark
            .is_none_or(|(value, mask)| ct.mark().is_some_and(|mark| mark & mask == value))
            && self.l4proto.is_none_or(|p| p == ct.l4proto())
            && self.port.is_none_or(|port| has_port(flow, port))
            && self.tier.is_none_or(|tier| tier == Tier::of(flow))
            && self
                .devices
                .iter()
                .flatten()
                .all(|&d| flow.uses_device(&|by| by == d))
    }
}

/// Whether packets of a direction come from or go to this port.
fn has_port(flow: &FlowShared, port: u16) -> bool {
    [Direction::Original, Direction::Reply].iter().any(|&dir| {
        flow.tuple(dir)
            .ports
            .is_some_and(|ports| port == ports.src || port == ports.dst)
    })
}
