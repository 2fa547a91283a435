// SPDX-License-Identifier: GPL-2.0

//! The operation `engine-get`: the hardware behind the devices of flowtables with `flags offload`.

use super::show;
use crate::{
    ffi::genl::{
        Command,
        Dump,
        DumpState,
        Part,
        Policy,
        Request, //
    },
    flowtable::{
        registry::Netns,
        Flowtable, //
    },
    hw::DeviceInfo, //
};
use kernel::prelude::*;

/// Attributes behind family, table and name.
mod attr {
    pub(super) const IFINDEX: u16 = 4;
    pub(super) const ENGINE: u16 = 5;
    pub(super) const DRIVER: u16 = 6;
    pub(super) const CAPACITY: u16 = 7;
    pub(super) const RULES: u16 = 8;
    pub(super) const RULES_ADDED: u16 = 9;
    pub(super) const RULES_DECLINED: u16 = 10;
    pub(super) const LAST_ERRNO: u16 = 11;
    pub(super) const LAST_TEXT: u16 = 12;
}

static POLICY: [Policy; 13] = [Policy::REJECT; 13];

/// Says what is known of engines.
pub(super) struct EngineGet;

impl Command for EngineGet {
    const COMMAND: u8 = 6;
    const POLICY: &'static [Policy] = &POLICY;
}

impl Dump for EngineGet {
    fn dump(request: &Request<'_>, state: &mut DumpState, part: &mut Part<'_>) -> Result {
        let mut result = Ok(());

        if let Some(netns) = Netns::of(request.net()) {
            netns.for_each(|ft| {
                let [next, device, ..] = state;
                let serial = ft.list_node.serial() as usize;

                if serial < *next {
                    return true;
                }
                if serial != *next {
                    (*next, *device) = (serial, 0);
                }
                while let Some(info) = ft.hw.as_ref().and_then(|tier| tier.device_info(*device)) {
                    result = describe(ft, &info, part);
                    if result.is_err() {
                        return false;
                    }
                    *device += 1;
                }
                (*next, *device) = (serial + 1, 0);
                true
            });
        }
        result
    }
}

fn describe(ft: &Flowtable, info: &DeviceInfo, part: &mut Part<'_>) -> Result {
    part.message(|out| {
        show::names(out, ft)?;
        out.put_u32(attr::IFINDEX, info.ifindex)?;
        out.put_str(attr::ENGINE, info.engine.unwrap_or("software"))?;
        if let Some(driver) = info.driver {
            out.put_str(attr::DRIVER, driver)?;
        }
        if let Some(capacity) = info.capacity {
            out.put_u32(attr::CAPACITY, capacity)?;
        }
        out.put_u32(attr::RULES, info.rules)?;
        out.put_uint(attr::RULES_ADDED, info.added)?;
        out.put_uint(attr::RULES_DECLINED, info.declined)?;
        if let Some(said) = &info.said {
            out.put_u32(attr::LAST_ERRNO, said.errno.unsigned_abs())?;
            out.put_str(attr::LAST_TEXT, said.text())?;
        }
        Ok(())
    })
}
