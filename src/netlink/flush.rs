// SPDX-License-Identifier: GPL-2.0

//! The operation `flush`: takes flows down.

use super::filter::{
    self,
    Filter, //
};
use crate::{
    ffi::{
        genl::{
            Attrs,
            Command,
            Operation,
            Policy,
            Request, //
        },
        killed, //
    },
    flow::shared::FlowShared,
    flowtable::registry::Netns, //
};
use kernel::prelude::*;
use nft_flow::reason::TeardownReason;

/// How many flows were taken down. Other attributes are those of a filter.
const FLOWS: u16 = 11;

/// Takes flows down.
pub(super) struct Flush;

static POLICY: [Policy; 12] = filter::policy(&[Policy::REJECT]);

impl Command for Flush {
    const COMMAND: u8 = 1;
    const POLICY: &'static [Policy] = &POLICY;
}

impl Operation for Flush {
    fn run(request: &Request<'_>, reply: &mut Attrs<'_>) -> Result {
        let filter = Filter::new(request)?;
        let mut flows = 0usize;
        let mut found = false;

        if let Some(netns) = Netns::of(request.net()) {
            let _walk = filter::begin_walk(request)?;

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
        reply.put_u32(FLOWS, flows.try_into().unwrap_or(u32::MAX))
    }
}
