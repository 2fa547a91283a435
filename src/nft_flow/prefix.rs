// SPDX-License-Identifier: GPL-2.0

//! Address prefixes.

/// The address of either family as conntrack keeps it: 16 bytes in network byte order, of which an
/// IPv4 address is the first four.
pub type Addr = [u32; 4];

/// All addresses of one family that begin like one of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    addr: Addr,
    mask: Addr,
    v6: bool,
}

impl Prefix {
    /// IPv4 addresses whose first `len` bits are those of `addr`; [`None`] if there are not as
    /// many.
    pub fn v4(addr: [u8; 4], len: u8) -> Option<Self> {
        (len <= 32).then(|| Self {
            addr: [u32::from_ne_bytes(addr), 0, 0, 0],
            mask: mask(len),
            v6: false,
        })
    }

    /// IPv6 addresses whose first `len` bits are those of `addr`; [`None`] if there are not as
    /// many.
    pub fn v6(addr: [u8; 16], len: u8) -> Option<Self> {
        (len <= 128).then(|| Self {
            addr: core::array::from_fn(|i| {
                let byte = |n: usize| addr[4 * i + n];

                u32::from_ne_bytes([byte(0), byte(1), byte(2), byte(3)])
            }),
            mask: mask(len),
            v6: true,
        })
    }

    /// Whether this is a prefix of IPv6.
    pub fn is_v6(&self) -> bool {
        self.v6
    }

    /// Whether the prefix contains `addr`, which is of the same family.
    pub fn contains(&self, addr: &Addr) -> bool {
        let [a, b, c, d] = core::array::from_fn(|i| (self.addr[i] ^ addr[i]) & self.mask[i]);

        a | b | c | d == 0
    }
}

/// The first `len` bits.
fn mask(len: u8) -> Addr {
    core::array::from_fn(|i| {
        let bits = u32::from(len).saturating_sub(32 * i as u32).min(32);

        u32::MAX.checked_shl(32 - bits).unwrap_or(0).to_be()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{
        Ipv4Addr,
        Ipv6Addr, //
    };

    fn a4(s: &str) -> [u8; 4] {
        s.parse::<Ipv4Addr>().unwrap().octets()
    }

    fn a6(s: &str) -> [u8; 16] {
        s.parse::<Ipv6Addr>().unwrap().octets()
    }

    /// As conntrack keeps it.
    fn addr(s: &str) -> Addr {
        let mut bytes = [0; 16];

        match s.parse().unwrap() {
            std::net::IpAddr::V4(a) => bytes[..4].copy_from_slice(&a.octets()),
            std::net::IpAddr::V6(a) => bytes = a.octets(),
        }
        core::array::from_fn(|i| u32::from_ne_bytes(bytes[4 * i..4 * i + 4].try_into().unwrap()))
    }

    #[test]
    fn v4() {
        let net = Prefix::v4(a4("192.168.7.9"), 22).unwrap();
        assert!(net.contains(&addr("192.168.4.0")));
        assert!(net.contains(&addr("192.168.7.255")));
        assert!(!net.contains(&addr("192.168.8.0")));
        assert!(!net.contains(&addr("192.168.3.255")));

        let host = Prefix::v4(a4("10.0.0.1"), 32).unwrap();
        assert!(host.contains(&addr("10.0.0.1")));
        assert!(!host.contains(&addr("10.0.0.0")));
        assert!(Prefix::v4(a4("10.0.0.1"), 0)
            .unwrap()
            .contains(&addr("255.1.2.3")));
        assert_eq!(Prefix::v4(a4("10.0.0.1"), 33), None);
    }

    #[test]
    fn v6() {
        for len in 0..=128u8 {
            let net = Prefix::v6(a6("fd00:1:2:3:4:5:6:7"), len).unwrap();
            // Each single bit that differs is one that counts, or is not.
            for bit in 0..128u8 {
                let mut other = a6("fd00:1:2:3:4:5:6:7");
                other[usize::from(bit / 8)] ^= 0x80 >> (bit % 8);
                let other = Ipv6Addr::from(other).to_string();
                assert_eq!(net.contains(&addr(&other)), bit >= len, "{other}/{len}");
            }
        }
        assert_eq!(Prefix::v6([0; 16], 129), None);
    }
}
