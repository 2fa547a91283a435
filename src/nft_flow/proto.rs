// SPDX-License-Identifier: GPL-2.0

//! The transport protocols that flows have, and what stands for the ports in each.
//!
//! A key tells flows apart as connection tracking does: by ports, by the identifier of an echo, by
//! the call of PPTP, or by nothing but the addresses.
//!
//! | protocol     | source half      | destination half  |
//! |--------------|------------------|-------------------|
//! | TCP, UDP, SCTP | source port    | destination port  |
//! | ICMP, ICMPv6 | echo identifier  | type, code        |
//! | GRE, version 0 | 0              | 0                 |
//! | GRE, version 1 | 1, the version | call identifier   |
//! | ESP, AH      | 0                | 0                 |

/// The transport protocols that flows have, with their IANA numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum L4Proto {
    /// ICMP: echo requests and replies.
    Icmp = 1,
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
    /// GRE, versions 0 (RFC 2784, 2890) and 1 (PPTP, RFC 2637).
    Gre = 47,
    /// Encrypted IPsec packets (RFC 4303), whatever their SPI.
    Esp = 50,
    /// Authenticated IPsec packets (RFC 4302); over IPv6 that is an extension header.
    Ah = 51,
    /// ICMP for IPv6: echo requests and replies.
    Icmpv6 = 58,
    /// SCTP.
    Sctp = 132,
}

/// Both halves of the word that stands for the ports.
#[inline]
pub(crate) const fn halves(source: [u8; 2], destination: [u8; 2]) -> u32 {
    let ([a, b], [c, d]) = (source, destination);
    u32::from_ne_bytes([a, b, c, d])
}

impl L4Proto {
    /// Every value.
    pub const ALL: [L4Proto; 8] = [
        L4Proto::Icmp,
        L4Proto::Tcp,
        L4Proto::Udp,
        L4Proto::Gre,
        L4Proto::Esp,
        L4Proto::Ah,
        L4Proto::Icmpv6,
        L4Proto::Sctp,
    ];

    /// The place in [`Self::ALL`].
    pub const fn rank(self) -> u8 {
        match self {
            L4Proto::Icmp => 0,
            L4Proto::Tcp => 1,
            L4Proto::Udp => 2,
            L4Proto::Gre => 3,
            L4Proto::Esp => 4,
            L4Proto::Ah => 5,
            L4Proto::Icmpv6 => 6,
            L4Proto::Sctp => 7,
        }
    }

    /// The protocol with number `number`, if it is one that flows have.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(L4Proto::Icmp),
            6 => Some(L4Proto::Tcp),
            17 => Some(L4Proto::Udp),
            47 => Some(L4Proto::Gre),
            50 => Some(L4Proto::Esp),
            51 => Some(L4Proto::Ah),
            58 => Some(L4Proto::Icmpv6),
            132 => Some(L4Proto::Sctp),
            _ => None,
        }
    }

    /// TCP or UDP, which nearly all packets are.
    #[inline]
    pub(crate) const fn plain(number: u8) -> Option<Self> {
        match number {
            6 => Some(L4Proto::Tcp),
            17 => Some(L4Proto::Udp),
            _ => None,
        }
    }

    /// The IANA number.
    #[inline]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Whether packets have ports, so that nothing else stands for them.
    pub const fn has_ports(self) -> bool {
        matches!(self, L4Proto::Tcp | L4Proto::Udp | L4Proto::Sctp)
    }

    /// Whether this is a protocol of IPv4 flows.
    pub const fn is_ipv4(self) -> bool {
        !matches!(self, L4Proto::Icmpv6)
    }

    /// Whether this is a protocol of IPv6 flows.
    pub const fn is_ipv6(self) -> bool {
        !matches!(self, L4Proto::Icmp | L4Proto::Ah)
    }

    /// How many bytes of the transport header translation touches at most, in packets with
    /// `ports`.
    #[inline]
    pub(crate) const fn touches(self, ports: u32) -> u32 {
        match self {
            L4Proto::Tcp => 20,
            L4Proto::Udp => 8,
            L4Proto::Sctp => 12,
            L4Proto::Icmp | L4Proto::Icmpv6 => 8,
            // The call identifier of version 1.
            L4Proto::Gre if ports != 0 => 8,
            L4Proto::Gre | L4Proto::Esp | L4Proto::Ah => 0,
        }
    }

    /// The word in the key of packets that a conntrack tuple describes: `source` and `destination`
    /// are `src.u` and `dst.u` of the tuple, as they lie in memory.
    ///
    /// A packet of GRE version 1 tells the call of its receiver only. A tuple that lacks it gets a
    /// word that no packet has.
    pub const fn ports(self, source: [u8; 2], destination: [u8; 2]) -> u32 {
        match (self, destination) {
            (L4Proto::Gre, [0, 0]) => halves(source, destination),
            (L4Proto::Gre, _) => gre_call(destination),
            _ => halves(source, destination),
        }
    }

    /// What packets with the word `ports` leave with, if a conntrack tuple describes the answers:
    /// `source` and `destination` are those of that tuple.
    pub const fn translated(self, ports: u32, source: [u8; 2], destination: [u8; 2]) -> u32 {
        let [_, _, a, b] = ports.to_ne_bytes();

        match (self, [a, b]) {
            (L4Proto::Icmp | L4Proto::Icmpv6, kind) => halves(source, kind),
            (L4Proto::Gre, [0, 0]) => ports,
            (L4Proto::Gre, _) => gre_call(source),
            _ => halves(destination, source),
        }
    }
}

/// The word of GRE version 1.
pub(crate) const fn gre_call(call: [u8; 2]) -> u32 {
    halves([0, 1], call)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers() {
        let mut known = 0;
        for number in 0..=255 {
            let proto = L4Proto::from_number(number);
            if let Some(proto) = proto {
                known += 1;
                assert_eq!(proto.number(), number);
                assert!(L4Proto::ALL.contains(&proto));
                assert!(proto.is_ipv4() || proto.is_ipv6());
            }
            let plain = proto.filter(|p| matches!(p, L4Proto::Tcp | L4Proto::Udp));
            assert_eq!(L4Proto::plain(number), plain);
        }
        assert_eq!(known, L4Proto::ALL.len());
    }

    fn protos() -> impl Strategy<Value = L4Proto> {
        prop::sample::select(L4Proto::ALL.to_vec())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        // As nf_ct_invert_tuple() makes the answers' tuple where nothing is translated.
        #[test]
        fn without_translation_nothing_changes(
            proto in protos(),
            source in any::<[u8; 2]>(),
            destination in any::<[u8; 2]>(),
        ) {
            let (source, destination) = match proto {
                L4Proto::Esp | L4Proto::Ah => ([0; 2], [0; 2]),
                _ => (source, destination),
            };
            let ports = proto.ports(source, destination);
            let same = match proto {
                L4Proto::Icmp => proto.translated(ports, source, [0, 0]),
                L4Proto::Icmpv6 => proto.translated(ports, source, [129, 0]),
                _ => proto.translated(ports, destination, source),
            };
            prop_assert_eq!(same, ports);
        }

        // Tuples that conntrack tells apart by their destination give keys that differ.
        #[test]
        fn gre_versions_do_not_collide(a in any::<[[u8; 2]; 2]>(), b in any::<[[u8; 2]; 2]>()) {
            let word = |[source, destination]: [[u8; 2]; 2]| L4Proto::Gre.ports(source, destination);
            prop_assert!(a[1] == b[1] || word(a) != word(b));
            prop_assert_eq!(word(a) == 0, a == [[0; 2]; 2]);
        }
    }
}
