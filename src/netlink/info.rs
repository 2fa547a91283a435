// SPDX-License-Identifier: GPL-2.0

//! The operation `info-get`: the module, and how much there is in a network namespace.

use crate::{
    ffi::{
        self,
        genl::{
            Attrs,
            Command,
            Operation,
            Policy,
            Request, //
        },
    },
    flowtable::registry::Netns, //
};
use kernel::prelude::*;

/// Attributes.
mod attr {
    pub(super) const VERSION: u16 = 1;
    pub(super) const INTERFACE: u16 = 2;
    pub(super) const FLOWTABLES: u16 = 3;
    pub(super) const FLOWS: u16 = 4;
    pub(super) const DSCP_RESTORED: u16 = 5;
}

/// Raised when operations or attributes come.
const INTERFACE: u32 = 2;

static POLICY: [Policy; 6] = [Policy::REJECT; 6];

/// Says which module it is.
pub(super) struct InfoGet;

impl Command for InfoGet {
    const COMMAND: u8 = 2;
    const POLICY: &'static [Policy] = &POLICY;
}

impl Operation for InfoGet {
    fn run(request: &Request<'_>, reply: &mut Attrs<'_>) -> Result {
        let (mut tables, mut flows) = (0_u32, 0_u32);

        if let Some(netns) = Netns::of(request.net()) {
            netns.for_each(|ft| {
                let ([v4, v6], _) = ft.size();

                tables = tables.wrapping_add(1);
                flows = flows.wrapping_add(v4.wrapping_add(v6) as u32);
                true
            });
        }
        reply.put_string(attr::VERSION, ffi::version())?;
        reply.put_u32(attr::INTERFACE, INTERFACE)?;
        reply.put_u32(attr::FLOWTABLES, tables)?;
        reply.put_u32(attr::FLOWS, flows)?;
        if ffi::dscp_restored() {
            reply.put_flag(attr::DSCP_RESTORED)?;
        }
        Ok(())
    }
}
