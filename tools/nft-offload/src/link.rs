// SPDX-License-Identifier: GPL-2.0

//! The devices of the network namespace, as far as they matter to a flow's path.

use crate::netlink::{
    attrs,
    number,
    text,
    Netlink,
    NLM_F_DUMP, //
};
use anyhow::Result;
use netlink_bindings::utils::find_attr;
use netlink_sys::protocols::NETLINK_ROUTE;

const RTM_GETLINK: u16 = 18;
/// `struct ifinfomsg`.
const HEADER: usize = 16;
const IFF_UP: u64 = 1;

/// A device.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// `bridge`, `vlan`, ...; empty if it is an ordinary one.
    pub(crate) kind: String,
    pub(crate) mtu: u64,
    pub(crate) up: bool,
    /// The device that it is below (a bridge), and the one that it is above (of a VLAN).
    pub(crate) master: Option<u32>,
    pub(crate) lower: Option<u32>,
}

impl Link {
    fn decode(payload: &[u8]) -> Self {
        let word = |at: usize| payload.get(at..at + 4).map_or(0, number);
        let mut this = Self {
            index: word(4) as u32,
            up: word(8) & IFF_UP != 0,
            ..Self::default()
        };

        for (kind, payload) in attrs(payload.get(HEADER..).unwrap_or(&[])) {
            let n = || number(payload) as u32;

            // `IFLA_*`, include/uapi/linux/if_link.h.
            match kind {
                3 => this.name = text(payload),
                4 => this.mtu = number(payload),
                5 => this.lower = Some(n()),
                10 => this.master = Some(n()),
                18 => this.kind = find_attr(payload, 1).map(text).unwrap_or_default(),
                _ => {}
            }
        }
        this
    }
}

/// All devices of the namespace.
pub(crate) fn links() -> Result<Vec<Link>> {
    let mut links = Vec::new();

    Netlink::open(NETLINK_ROUTE)?.ask(RTM_GETLINK, NLM_F_DUMP, &[0; HEADER], |payload| {
        links.push(Link::decode(payload));
        Ok(())
    })?;
    Ok(links)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{
        put,
        put_string, //
    };

    #[test]
    fn a_device_is_decoded() {
        let mut kind = Vec::new();
        put_string(&mut kind, 1, "vlan");
        let mut all = vec![0; HEADER];
        all[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        all[8..12].copy_from_slice(&0x1003_u32.to_ne_bytes());
        put_string(&mut all, 3, "lan\x1b.7");
        put(&mut all, 4, &1500_u32.to_ne_bytes());
        put(&mut all, 5, &2_u32.to_ne_bytes());
        put(&mut all, 18, &kind);
        let link = Link {
            index: 7,
            name: "lan\u{fffd}.7".into(),
            kind: "vlan".into(),
            mtu: 1500,
            up: true,
            master: None,
            lower: Some(2),
        };
        assert_eq!(Link::decode(&all), link);
        for end in 0..all.len() {
            Link::decode(&all[..end]);
        }
    }

    #[test]
    fn loopback_is_there() {
        assert!(links().unwrap().iter().any(|link| link.name == "lo"));
    }
}
