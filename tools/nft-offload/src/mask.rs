// SPDX-License-Identifier: GPL-2.0

//! Addresses in a text are replaced by others, so that it can be shown to everybody.
//!
//! The same address becomes the same one everywhere in a text. Two that have their first bits in common
//! have as many in common afterwards (as Crypto-PAn does it), so what was in one network still is. Bits
//! that make an address a private one, a multicast group, or something else of a kind stay as they are.
//! Which other bits are turned over depends on the bits before them and on a key that nobody knows: it is
//! made for one run, and forgotten.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    net::{
        IpAddr,
        Ipv4Addr,
        Ipv6Addr, //
    },
};

/// What is a number of bits of these, from the most significant one on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Prefix {
    bits: u128,
    len: u32,
}

/// Kinds of addresses: the bits that say so, and how many bits more stay as they are.
type Kinds = [(Prefix, u32)];

const fn v4(a: u8, b: u8, len: u32, keep: u32) -> (Prefix, u32) {
    let bits = (u32::from_be_bytes([a, b, 0, 0]) as u128) << 96;

    (Prefix { bits, len }, keep)
}

const fn v6(a: u16, b: u16, len: u32, keep: u32) -> (Prefix, u32) {
    let bits = ((a as u128) << 112) | ((b as u128) << 96);

    (Prefix { bits, len }, keep)
}

/// Of IPv4: this network, private, between a provider and its customers, loopback, link-local, multicast,
/// reserved (masks and the broadcast address too).
const V4: [(Prefix, u32); 9] = [
    v4(0, 0, 8, 32),
    v4(10, 0, 8, 8),
    v4(100, 64, 10, 10),
    v4(127, 0, 8, 32),
    v4(169, 254, 16, 16),
    v4(172, 16, 12, 12),
    v4(192, 168, 16, 16),
    v4(224, 0, 4, 32),
    v4(240, 0, 4, 32),
];

/// Of IPv6: unspecified and loopback, global, 6to4, unique local, link-local, multicast. Addresses with
/// one of IPv4 in them are apart.
const V6: [(Prefix, u32); 6] = [
    v6(0, 0, 96, 128),
    v6(0x2000, 0, 3, 3),
    v6(0x2002, 0, 16, 16),
    v6(0xfc00, 0, 7, 8),
    v6(0xfe80, 0, 64, 64),
    v6(0xff00, 0, 8, 128),
];

const WIDTH: u32 = 128;

impl Prefix {
    fn of(bits: u128, len: u32) -> Self {
        // All bits of none: a shift by the width is none.
        let mask = u128::MAX.checked_shl(WIDTH - len).unwrap_or(0);

        Self {
            bits: bits & mask,
            len,
        }
    }

    fn has(&self, bits: u128) -> bool {
        Self::of(bits, self.len) == *self
    }
}

/// What replaces addresses.
pub(crate) struct Mask(RandomState);

impl Mask {
    pub(crate) fn new() -> Self {
        Self(RandomState::new())
    }

    /// Replaces the first `len` bits. `what`: addresses of different sorts have nothing in common.
    fn bits(&self, what: u8, kinds: &Kinds, bits: u128, len: u32) -> u128 {
        let keep = kinds
            .iter()
            .filter(|(kind, _)| kind.has(bits))
            .map(|(_, keep)| *keep)
            .max()
            .unwrap_or(0);
        let mut all = bits;

        for at in keep..len {
            let before = Prefix::of(bits, at);
            // Of what begins so, some is of a kind: to turn this bit over would make others of it.
            let inside = kinds
                .iter()
                .any(|(kind, _)| kind.len > at && before.has(kind.bits));

            if !inside && self.0.hash_one((what, before)) & 1 != 0 {
                all ^= 1 << (WIDTH - 1 - at);
            }
        }
        all
    }

    fn v4(&self, addr: Ipv4Addr, len: u32) -> Ipv4Addr {
        let bits = u128::from(addr.to_bits()) << 96;

        Ipv4Addr::from_bits((self.bits(4, &V4, bits, len) >> 96) as u32)
    }

    fn v6(&self, addr: Ipv6Addr, len: u32) -> Ipv6Addr {
        let [a, b, c, d, e, f, g, h] = addr.segments();
        let low = Ipv4Addr::from_bits((u32::from(g) << 16) | u32::from(h));

        match [a, b, c, d, e, f] {
            // An address of IPv4, mapped or for NAT64.
            [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => {
                let [.., g, h] = self
                    .v4(low, len.saturating_sub(96))
                    .to_ipv6_mapped()
                    .segments();

                Ipv6Addr::new(a, b, c, d, e, f, g, h)
            }
            // The group of a neighbour has the end of its address.
            [0xff02, 0, 0, 0, 0, 1] if g >> 8 == 0xff && len == WIDTH => {
                let masked = self.bits(7, &[], addr.to_bits() << 104, 24) >> 104;

                Ipv6Addr::from_bits((addr.to_bits() & !0xff_ffff) | (masked & 0xff_ffff))
            }
            _ => Ipv6Addr::from_bits(self.bits(6, &V6, addr.to_bits(), len)),
        }
    }

    /// Another address in place of this, whose first bits are a network if there is a length.
    fn address(&self, addr: IpAddr, len: Option<u32>) -> IpAddr {
        let bits = |bits: u128, width: u32| match len {
            // No bits behind those of the network: they stay none.
            Some(len) if len <= width && Prefix::of(bits, len).bits == bits => len,
            _ => width,
        };

        match addr {
            IpAddr::V4(addr) => {
                let len = bits(u128::from(addr.to_bits()) << 96, 32);
                self.v4(addr, len).into()
            }
            IpAddr::V6(addr) => {
                let len = bits(addr.to_bits(), 128);
                self.v6(addr, len).into()
            }
        }
    }

    fn mac(&self, mac: [u8; 6]) -> [u8; 6] {
        /// What makes it a group's, or a locally administered one.
        const SORT: u128 = 3 << 120;

        let mut wide = [0; 16];

        wide[..6].copy_from_slice(&mac);
        let bits = u128::from_be_bytes(wide);
        let to = |from, bits: u128| {
            let all = (self.bits(from, &[], bits, 48) & !SORT) | (bits & SORT);
            let mut mac = [0; 6];

            mac.copy_from_slice(&all.to_be_bytes()[..6]);
            mac
        };

        match mac {
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] | [0, 0, 0, 0, 0, 0] => mac,
            // The end of a neighbour's address, or of a group's.
            [0x33, 0x33, 0xff, ..] => {
                let [.., d, e, f] = to(9, bits);
                [0x33, 0x33, 0xff, d, e, f]
            }
            [first, ..] if first & 1 != 0 => mac,
            _ => to(8, bits),
        }
    }

    /// What is in place of a word of hexadecimal digits, colons and dots. `len`: a length is behind it.
    fn word(&self, word: &str, len: Option<u32>) -> Option<String> {
        if let Ok(addr) = word.parse::<IpAddr>() {
            return Some(self.address(addr, len).to_string());
        }
        if let Some(mac) = mac(word) {
            let bytes = self.mac(mac).map(|byte| format!("{byte:02x}"));
            return Some(bytes.join(":"));
        }
        // An address with a port, or the end of a sentence, or of what it is about.
        let (addr, rest) = match word.split_once(':') {
            Some((addr, port)) if addr.contains('.') && !port.contains(':') => {
                (addr, &word[addr.len()..])
            }
            _ => {
                let addr = word.trim_end_matches(['.', ':']);
                (addr, &word[addr.len()..])
            }
        };

        match rest.is_empty() {
            true => None,
            false => self.word(addr, None).map(|addr| addr + rest),
        }
    }

    /// The text with other addresses.
    pub(crate) fn text(&self, text: &str) -> String {
        let is_part = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.');
        let mut all = String::with_capacity(text.len());
        let mut rest = text;
        let mut before = None;

        while let Some(first) = rest.chars().next() {
            let word = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];

            if word.is_empty() {
                all.push(first);
                before = Some(first);
                rest = &rest[first.len_utf8()..];
                continue;
            }
            let behind = &rest[word.len()..];
            // Within a name it is no address.
            let alone = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            let len = behind.strip_prefix('/').and_then(|len| {
                let end = len.find(|c: char| !c.is_ascii_digit()).unwrap_or(len.len());
                len[..end].parse().ok()
            });
            let masked = (alone(before) && alone(behind.chars().next()))
                .then(|| self.word(word, len))
                .flatten();

            all += masked.as_deref().unwrap_or(word);
            before = word.chars().last();
            rest = behind;
        }
        all
    }
}

fn mac(word: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = word.split(':');

    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(mask: &Mask, addr: &str) -> Ipv4Addr {
        mask.text(addr).parse().unwrap()
    }

    fn v6(mask: &Mask, addr: &str) -> Ipv6Addr {
        mask.text(addr).parse().unwrap()
    }

    /// How many bits two have in common.
    fn common(a: Ipv4Addr, b: Ipv4Addr) -> u32 {
        (a.to_bits() ^ b.to_bits()).leading_zeros()
    }

    #[test]
    fn the_same_for_the_same() {
        let mask = Mask::new();
        let text = "tcp 192.168.7.9:4000 > 93.184.216.34:443  via 192.168.7.9 02:00:5e:10:20:30 [fd00:1::2]:53, 192.168.7.9.";
        let masked = mask.text(text);
        assert_eq!(masked, mask.text(text));
        let host = v4(&mask, "192.168.7.9").to_string();
        assert_eq!(masked.matches(&host).count(), 3, "{masked}");
        for gone in ["192.168.7.9", "93.184", "fd00:1::2", "10:20:30"] {
            assert!(!masked.contains(gone), "{masked}");
        }
        for kept in [":4000 > ", ":443  via ", "]:53, ", "tcp "] {
            assert!(masked.contains(kept), "{masked}");
        }
        assert!(masked.ends_with(&format!(" {host}.")), "{masked}");
        // Another run replaces them by others.
        let others: std::collections::HashSet<_> =
            (0..20).map(|_| Mask::new().text("8.8.4.4")).collect();
        assert!(others.len() > 1);
    }

    #[test]
    fn prefixes_stay_related() {
        let addrs = [
            "10.1.2.3",
            "10.1.2.200",
            "10.1.77.1",
            "10.200.0.1",
            "8.8.8.8",
            "8.8.4.4",
            "9.9.9.9",
            "192.168.1.1",
            "192.168.1.2",
            "192.169.1.1",
            "203.0.113.9",
            "203.0.113.10",
            "11.0.0.1",
        ];
        for _ in 0..50 {
            let mask = Mask::new();
            for a in addrs {
                for b in addrs {
                    let (one, other) = (a.parse().unwrap(), b.parse().unwrap());
                    let masked = common(v4(&mask, a), v4(&mask, b));
                    assert_eq!(masked, common(one, other), "{a} {b}");
                }
            }
            // A network is that of its addresses.
            let net = mask.text("10.1.2.0/24");
            let (net, len) = net.split_once('/').unwrap();
            assert_eq!(len, "24");
            let net: Ipv4Addr = net.parse().unwrap();
            assert_eq!(net.octets()[3], 0);
            assert!(common(net, v4(&mask, "10.1.2.3")) >= 24);
            // The address of a device is one of a host.
            let host = mask.text("10.1.2.3/24");
            assert_eq!(host, format!("{}/24", v4(&mask, "10.1.2.3")));
        }
    }

    #[test]
    fn kinds_stay_kinds() {
        use crate::top::model::is_private;

        for _ in 0..50 {
            let mask = Mask::new();
            for n in 0..=255_u8 {
                for addr in [[n, 1, 2, 3], [172, n, 9, 9], [192, n, 9, 9], [100, n, 1, 1]] {
                    let addr = Ipv4Addr::from(addr);
                    let to = v4(&mask, &addr.to_string());
                    let kind = |a: Ipv4Addr| {
                        let bits = u128::from(a.to_bits()) << 96;
                        V4.iter().position(|(kind, _)| kind.has(bits))
                    };
                    assert_eq!(kind(addr), kind(to), "{addr} {to}");
                    assert_eq!(is_private(addr.into()), is_private(to.into()));
                }
            }
            for addr in [
                "fd12:3456:789a:1::1",
                "fe80::1234:56ff:fe78:9abc",
                "2a00:1450:4001::1",
            ] {
                let to = v6(&mask, addr);
                let kind = |a: Ipv6Addr| V6.iter().position(|(kind, _)| kind.has(a.to_bits()));
                assert_eq!(kind(addr.parse().unwrap()), kind(to), "{addr} {to}");
            }
        }
    }

    #[test]
    fn embedded_addresses_are_the_same() {
        let mask = Mask::new();
        let host = v4(&mask, "8.8.8.8");
        assert_eq!(v6(&mask, "::ffff:8.8.8.8").to_ipv4_mapped(), Some(host));
        let nat64 = v6(&mask, "64:ff9b::8.8.8.8");
        assert_eq!(nat64.segments()[..6], [0x64, 0xff9b, 0, 0, 0, 0]);
        assert_eq!(nat64.to_bits() as u32, host.to_bits());
        assert_eq!(mask.text("64:ff9b::/96"), "64:ff9b::/96");
    }

    #[test]
    fn what_is_no_address_stays() {
        let mask = Mask::new();
        for text in [
            "0.0.0.0/0 ::/0 ::1 127.0.0.1 255.255.255.0 255.255.255.255 224.0.0.251 ff02::fb",
            "ff:ff:ff:ff:ff:ff 00:00:00:00:00:00 01:00:5e:00:00:fb 33:33:00:00:00:01",
            "16:02:11 UTC, 7.3.4+deb13-amd64, rustc 1.85.1, nftables v1.1.3 (face.b00c)",
            "lan.7, 0x1f2, abc:def, wg::x, a1.2.3.4b, x_10.0.0.1, 1.2.3.4.5, 10.0.0, ...::",
            "ct state established,related accept # handle 41\n\t\u{e9} \u{1f600} :: .",
            "",
        ] {
            assert_eq!(mask.text(text), text);
        }
        let text = mask.text("10.0.0.1-10.0.0.9,fd00::1%lan;33:33:ff:12:34:56 ff02::1:ff12:3456");
        assert!(
            !text.contains("10.0.0.1-") && !text.contains("fd00::1%"),
            "{text}"
        );
        assert!(
            text.contains("%lan;33:33:ff:") && text.contains(" ff02::1:ff"),
            "{text}"
        );
    }
}
