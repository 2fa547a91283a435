// SPDX-License-Identifier: GPL-2.0

//! Which addresses are those of this machine, as its routes say.

use crate::netlink::{
    put,
    Netlink,
    Refused, //
};
use anyhow::Result;
use netlink_sys::protocols::NETLINK_ROUTE;
use std::net::IpAddr;

const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTN_LOCAL: u8 = 2;
/// Where `struct rtmsg` has the type of a route.
const RTM_TYPE: usize = 7;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// `struct rtmsg`, and the address that is asked about.
fn request(addr: IpAddr) -> Vec<u8> {
    let mut request = vec![0; 12];
    let mut to = |family, dst: &[u8]| {
        request[0] = family;
        request[1] = dst.len() as u8 * 8;
        put(&mut request, RTA_DST, dst);
    };

    match addr {
        IpAddr::V4(addr) => to(AF_INET, &addr.octets()),
        IpAddr::V6(addr) => to(AF_INET6, &addr.octets()),
    }
    request
}

/// The routes of the network namespace.
pub(crate) struct Routes(Netlink);

impl Routes {
    pub(crate) fn open() -> Result<Self> {
        Netlink::open(NETLINK_ROUTE).map(Self)
    }

    /// Whether packets to an address are for this machine.
    ///
    /// That a socket can be bound to it says less: with `net.ipv4.ip_nonlocal_bind` it can be to each.
    pub(crate) fn is_local(&mut self, addr: IpAddr) -> Result<bool> {
        let mut local = false;
        let asked = self.0.ask(RTM_GETROUTE, 0, &request(addr), |route| {
            local = route.get(RTM_TYPE) == Some(&RTN_LOCAL);
            Ok(())
        });

        match asked {
            // There is no route, or one that forbids it.
            Err(e) if e.is::<Refused>() => Ok(false),
            Err(e) => Err(e),
            Ok(_) => Ok(local),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_others() {
        let mut routes = Routes::open().unwrap();
        assert!(!routes.is_local("192.0.2.1".parse().unwrap()).unwrap());
        assert!(!routes.is_local("2001:db8::1".parse().unwrap()).unwrap());
        assert_eq!(request([192, 0, 2, 1].into())[..2], [AF_INET, 32]);
    }
}
