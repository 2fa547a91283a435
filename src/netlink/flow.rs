// SPDX-License-Identifier: GPL-2.0

//! The operation `flow-get`: the flow of a connection, or why it has none; or all flows of a kind.

use super::{
    filter::{
        self,
        Filter, //
    },
    show, //
};
use crate::{
    ffi::{
        self,
        genl::{
            Attrs,
            Command,
            Dump,
            DumpState,
            Operation,
            Part,
            Policy,
            Request, //
        },
        killed,
        Rcu, //
    },
    flowtable::{
        registry::Netns,
        scan::FlowPlace,
        Flowtable, //
    },
    net::ct::CtRef, //
};
use core::ops::ControlFlow;
use kernel::{
    prelude::*,
    sync::rcu, //
};
use nft_flow::{
    desc::{
        Addrs,
        Ports,
        Tuple, //
    },
    reason::SkipReason,
    table::Place, //
};

/// Attributes behind those of a filter.
pub(super) mod attr {
    pub(in crate::netlink) const L4PROTO: u16 = 11;
    pub(super) const PORT: u16 = 12;
    pub(in crate::netlink) const TIER: u16 = 13;
    pub(super) const SRC_IPV4: u16 = 14;
    pub(super) const DST_IPV4: u16 = 15;
    pub(super) const SRC_IPV6: u16 = 16;
    pub(super) const DST_IPV6: u16 = 17;
    pub(super) const SRC_PORT: u16 = 18;
    pub(super) const DST_PORT: u16 = 19;
    pub(in crate::netlink) const ZONE: u16 = 20;
    pub(in crate::netlink) const ORIGINAL: u16 = 21;
    pub(in crate::netlink) const REPLY: u16 = 22;
    pub(in crate::netlink) const AGE: u16 = 23;
    pub(super) const SKIP: u16 = 24;
    pub(super) const SKIP_AGE: u16 = 25;
    pub(in crate::netlink) const NAT: u16 = 26;
    pub(in crate::netlink) const FAST_BYTES: u16 = 27;
    pub(in crate::netlink) const REASON: u16 = 28;
}

static POLICY: [Policy; 29] = filter::policy(&[
    Policy::U8,
    Policy::U16,
    Policy::u8_max(filter::Tier::MAX),
    Policy::BE32,
    Policy::BE32,
    Policy::exact(16),
    Policy::exact(16),
    Policy::U16,
    Policy::U16,
    Policy::U16,
    Policy::REJECT,
    Policy::REJECT,
    Policy::REJECT,
    Policy::REJECT,
    Policy::REJECT,
    Policy::REJECT,
    Policy::REJECT,
    Policy::REJECT,
]);

/// Says what is known of flows.
pub(super) struct FlowGet;

impl Command for FlowGet {
    const COMMAND: u8 = 4;
    const POLICY: &'static [Policy] = &POLICY;
}

impl Operation for FlowGet {
    const REPLY_SIZE: usize = 2048;

    fn run(request: &Request<'_>, reply: &mut Attrs<'_>) -> Result {
        let ct = connection(request)?;
        let netns = Netns::of(request.net()).ok_or(ENOENT)?;
        let mut shown = Ok(());
        let mut any = false;
        let mut why = None;

        netns.for_each(|ft| {
            let guard = rcu::read_lock();
            let rcu = Rcu::from(&guard);

            any = true;
            match ft.find(rcu, ct.get()).filter(|flow| flow.is_live()) {
                Some(flow) => {
                    shown = show::flow(reply, rcu, ft, flow);
                    why = None;
                    false
                }
                None => {
                    let found = refusal(ft, &ct);

                    // The latest one, if several flowtables have something to say.
                    if let Some((_, ago)) = found {
                        if why.is_none_or(|(_, before)| ago < before) {
                            why = found;
                        }
                    }
                    true
                }
            }
        });
        shown?;
        if !any {
            let message = c"there is no flowtable of this module in this network namespace";
            // Not ENOENT, by which the connection would be unknown.
            return Err(request.refuse(ESRCH, message, None));
        }
        if let Some((why, ago)) = why {
            reply.put_str(attr::SKIP, why.name())?;
            reply.put_u32(attr::SKIP_AGE, ago)?;
        }
        Ok(())
    }
}

/// Why a connection has no flow in a flowtable, and since when in milliseconds.
fn refusal(ft: &Flowtable, ct: &CtRef) -> Option<(SkipReason, u32)> {
    if ct.get().is_offloaded() {
        return Some((SkipReason::AlreadyOffloaded, 0));
    }
    ft.refusal(ct.get())
        .map(|r| (r.why, r.ago.map_or(0, ffi::milliseconds)))
}

/// The connection that a request names by its addresses, ports, protocol and zone.
fn connection(request: &Request<'_>) -> Result<CtRef> {
    let get = |kind| request.attr(kind);
    let v4 = [attr::SRC_IPV4, attr::DST_IPV4].map(get);
    let v6 = [attr::SRC_IPV6, attr::DST_IPV6].map(get);
    let ports = [attr::SRC_PORT, attr::DST_PORT].map(|kind| get(kind).map_or(0, |a| a.u16()));

    let filters = 1..=filter::attr::MARK_MASK;

    if let Some(a) = Iterator::chain(filters, [attr::PORT, attr::TIER]).find_map(get) {
        let message = c"a connection is named by protocol, addresses, ports and zone only";
        return Err(request.refuse(EINVAL, message, Some(a)));
    }
    let addrs = match (v4, v6) {
        ([Some(src), Some(dst)], [None, None]) => Addrs::V4 {
            src: src.array(),
            dst: dst.array(),
        },
        ([None, None], [Some(src), Some(dst)]) => Addrs::V6 {
            src: src.array(),
            dst: dst.array(),
        },
        _ => {
            let message = c"a connection has a source and a destination address of one family";
            return Err(request.refuse(EINVAL, message, None));
        }
    };
    let Some(proto) = get(attr::L4PROTO) else {
        return Err(request.refuse(EINVAL, c"a connection has a protocol", None));
    };
    let tuple = Tuple {
        addrs,
        ports: Some(Ports {
            src: ports[0],
            dst: ports[1],
        }),
    };
    let zone = get(attr::ZONE).map_or(0, |a| a.u16());

    CtRef::find(request.net(), proto.u8(), zone, &tuple)
        .ok_or_else(|| request.refuse(ENOENT, c"there is no such connection", None))
}

/// How a walk over a flowtable has ended.
enum End {
    /// The part is full.
    Full(Error),
}

/// Where a dump is.
struct At {
    /// The flowtable, by its serial number; the next one if there is no such.
    serial: usize,
    /// It has begun with this one.
    begun: bool,
    flows: FlowPlace,
}

impl At {
    fn load(&[serial, begun, v6, a, b, _]: &DumpState) -> Self {
        Self {
            serial,
            begun: begun != 0,
            flows: FlowPlace {
                v6: v6 != 0,
                place: Place::from_words([a, b]),
            },
        }
    }

    fn store(&self, state: &mut DumpState) {
        let [a, b] = self.flows.place.to_words();

        *state = [
            self.serial,
            self.begun.into(),
            self.flows.v6.into(),
            a,
            b,
            0,
        ];
    }

    /// At the beginning of a flowtable.
    fn of(serial: usize) -> Self {
        Self {
            serial,
            begun: false,
            flows: FlowPlace::default(),
        }
    }
}

impl FlowGet {
    fn filter<'a>(request: &Request<'a>) -> Result<Filter<'a>> {
        let no = [
            attr::SRC_IPV4,
            attr::DST_IPV4,
            attr::SRC_IPV6,
            attr::DST_IPV6,
            attr::SRC_PORT,
            attr::DST_PORT,
            attr::ZONE,
        ];

        if let Some(a) = no.iter().find_map(|&kind| request.attr(kind)) {
            let message = c"this names one connection, and is not for a dump";
            return Err(request.refuse(EINVAL, message, Some(a)));
        }
        Filter::new(request)?.and(request, [attr::L4PROTO, attr::PORT, attr::TIER])
    }
}

impl Dump for FlowGet {
    fn check(request: &Request<'_>) -> Result {
        let filter = Self::filter(request)?;
        let mut found = filter.named.is_none();

        if !found {
            if let Some(netns) = Netns::of(request.net()) {
                netns.for_each(|ft| {
                    found |= filter.names(ft);
                    !found
                });
            }
        }
        if !found {
            let message = c"there is no such flowtable";
            return Err(request.refuse(ENOENT, message, filter.named));
        }
        Ok(())
    }

    fn dump(request: &Request<'_>, state: &mut DumpState, part: &mut Part<'_>) -> Result {
        let filter = Self::filter(request)?;
        let mut at = At::load(state);
        let mut result = Ok(());

        let Some(netns) = Netns::of(request.net()) else {
            return Ok(());
        };
        let _walk = filter::begin_walk(request)?;

        netns.for_each(|ft| {
            let serial = ft.list_node.serial() as usize;

            if serial < at.serial {
                return true;
            }
            if serial != at.serial {
                if at.begun {
                    // The one that was being listed is gone.
                    part.changed();
                }
                at = At::of(serial);
            }
            if filter.names(ft) {
                at.begun = true;
                match list(ft, &filter, &mut at.flows, part) {
                    ControlFlow::Continue(true) => {}
                    ControlFlow::Continue(false) if killed() => {
                        result = Err(EINTR);
                        return false;
                    }
                    // It is about to end.
                    ControlFlow::Continue(false) => part.changed(),
                    ControlFlow::Break(End::Full(e)) => {
                        result = Err(e);
                        return false;
                    }
                }
            }
            at = At::of(serial + 1);
            true
        });
        if result.is_ok() && at.begun {
            // The last one, which was being listed, is gone.
            part.changed();
        }
        at.store(state);
        result
    }
}

/// Adds flows of a flowtable from a place on. True if there are no more.
fn list(
    ft: &Flowtable,
    filter: &Filter<'_>,
    at: &mut FlowPlace,
    part: &mut Part<'_>,
) -> ControlFlow<End, bool> {
    let done = ft.scan(
        at,
        |rcu, flow| {
            if !filter.matches(flow) {
                return ControlFlow::Continue(());
            }
            match part.message(|out| show::flow(out, rcu, ft, flow)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(e) => ControlFlow::Break(End::Full(e)),
            }
        },
        || !ft.is_closed() && !killed(),
    );

    if at.place.has_moved() {
        part.changed();
    }
    done
}
