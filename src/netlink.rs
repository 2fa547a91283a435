// SPDX-License-Identifier: GPL-2.0

//! The generic netlink family `nft_offload`: what can be asked of the module at run time.
//!
//! The interface is `netlink/nft_offload.yaml`; the numbers here are those that follow from it.
//!
//! Generic netlink holds a lock of its own, for reading, while a request is served.

use crate::{
    ffi::{
        c,
        genl::{
            Attr,
            GenlFamily,
            Message,
            Op,
            Operation,
            Policy,
            Registration,
            Request, //
        },
        killed, //
    },
    flow::shared::FlowShared,
    flowtable::{
        registry::Netns,
        Flowtable, //
    }, //
};
use kernel::prelude::*;
use nft_flow::{
    direction::Direction, //
    prefix::Prefix,
    reason::TeardownReason,
};

static FAMILY: GenlFamily = GenlFamily::new(c"nft_offload", 1, &OPS);
static OPS: [Op; 1] = [Op::new::<Flush>()];

/// Registers the family.
pub(crate) fn register(module: &'static ThisModule) -> Result<Registration> {
    FAMILY.register(module)
}

/// Attributes of `flush`.
mod attr {
    pub(super) const NFPROTO: u16 = 1;
    pub(super) const TABLE: u16 = 2;
    pub(super) const FLOWTABLE: u16 = 3;
    pub(super) const IFINDEX: u16 = 4;
    pub(super) const IFNAME: u16 = 5;
    pub(super) const IPV4: u16 = 6;
    pub(super) const IPV6: u16 = 7;
    pub(super) const PREFIX_LEN: u16 = 8;
    pub(super) const MARK: u16 = 9;
    pub(super) const MARK_MASK: u16 = 10;
    pub(super) const FLOWS: u16 = 11;
}

/// Takes flows down.
struct Flush;

static FLUSH: [Policy; 12] = [
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
    Policy::REJECT,
];

/// `NFT_NAME_MAXLEN`, less the NUL.
const NAME_MAX: u16 = 255;
/// `ALTIFNAMSIZ`, less the NUL.
const ALTNAME_MAX: u16 = 127;

impl Operation for Flush {
    const COMMAND: u8 = 1;
    const POLICY: &'static [Policy] = &FLUSH;

    fn run(request: &Request<'_>, reply: &mut Message) -> Result {
        let filter = Filter::new(request)?;
        let mut flows = 0usize;
        let mut found = false;

        let net = request.net();
        if let Some(netns) = Netns::of(net) {
            // Who flushes all the time, from many threads, is made to wait, and nobody else.
            let _flush = net.begin_flush().map_err(|e| {
                let message = c"other flushes of this network namespace are under way";
                request.refuse(e, message, None)
            })?;

            netns.for_each(|ft| {
                if filter.names(ft) {
                    let reason = TeardownReason::Flush;
                    let which = |flow: &FlowShared| filter.matches(flow);

                    found = true;
                    flows += ft.teardown_all(reason, which, || !ft.is_closed() && !killed());
                }
                !killed()
            });
        }
        if killed() {
            return Err(EINTR);
        }
        if !found {
            if filter.named.is_some() {
                let message = c"there is no such flowtable";
                return Err(request.refuse(ENOENT, message, filter.named));
            }
        }
        reply.put_u32(attr::FLOWS, flows.try_into().unwrap_or(u32::MAX))
    }
}

/// Which flows: those for which everything holds that is not [`None`].
struct Filter<'a> {
    nfproto: Option<u32>,
    table: Option<&'a CStr>,
    flowtable: Option<&'a CStr>,
    /// One of those that say which flowtable.
    named: Option<Attr<'a>>,
    devices: [Option<u32>; 2],
    prefix: Option<Prefix>,
    /// Value and mask.
    mark: Option<(u32, u32)>,
}

impl<'a> Filter<'a> {
    fn new(request: &Request<'a>) -> Result<Self> {
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
    fn names(&self, ft: &Flowtable) -> bool {
        let nft = ft.nft();
        let [table, name] = nft.names();

        self.nfproto.is_none_or(|p| p == nft.family())
            && self.table.is_none_or(|t| t == table)
            && self.flowtable.is_none_or(|f| f == name)
    }

    /// Whether the filter matches the flow.
    fn matches(&self, flow: &FlowShared) -> bool {
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
            && self
                .devices
                .iter()
                .flatten()
                .all(|&d| flow.uses_device(&|by| by == d))
    }
}
