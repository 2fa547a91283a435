// SPDX-License-Identifier: GPL-2.0

//! Flow keys and their hash.
//!
//! A key holds everything that tells one flow from another: addresses, ports, protocol and where
//! the packet came in. Addresses and ports keep network byte order and are loaded from the packet
//! in the byte order of the CPU, so no swap happens on the way.

pub use crate::hash::Seed;
pub use crate::proto::L4Proto;

/// What the padding of a key must never have: a key is hashed and compared as whole words.
const _: () = assert!(size_of::<Key4>() == 16 && size_of::<Key6>() == 40);

/// The ingress of a packet, in 24 bits: an interface, or an ingress path that the caller interned.
///
/// # Invariants
///
/// At most [`IngressId::MAX`]. Bit 23 is clear for an interface index and set for an interned
/// ingress path.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct IngressId(u32);

impl IngressId {
    /// The largest raw value.
    pub const MAX: u32 = (1 << 24) - 1;

    const INTERNED: u32 = 1 << 23;

    /// The largest number of an ingress path.
    pub const MAX_INTERNED: u32 = Self::INTERNED - 1;

    /// The plain case: packets without encapsulation that enter by the interface `ifindex`.
    ///
    /// [`None`] for 0, which no interface has, and for 2^23 and above, which does not fit; intern
    /// such a one.
    #[inline]
    pub const fn from_ifindex(ifindex: u32) -> Option<Self> {
        if ifindex == 0 || ifindex >= Self::INTERNED {
            return None;
        }
        // INVARIANT: Below 2^23 by the test above.
        Some(IngressId(ifindex))
    }

    /// The number of an ingress path, such as an encapsulation or a tunnel, that the caller
    /// numbered.
    ///
    /// [`None`] if `id` is 2^23 or above.
    #[inline]
    pub const fn from_interned(id: u32) -> Option<Self> {
        if id >= Self::INTERNED {
            return None;
        }
        // INVARIANT: Below 2^23 by the test above, hence below 2^24 with bit 23 set.
        Some(IngressId(id | Self::INTERNED))
    }

    /// The interface index, or [`None`] for an interned ingress path.
    #[inline]
    pub const fn ifindex(self) -> Option<u32> {
        if self.0 & Self::INTERNED == 0 {
            Some(self.0)
        } else {
            None
        }
    }

    /// The number of an interned ingress path, or [`None`] for an interface.
    #[inline]
    pub const fn interned(self) -> Option<u32> {
        if self.0 & Self::INTERNED == 0 {
            None
        } else {
            Some(self.0 & !Self::INTERNED)
        }
    }

    /// Returns all 24 bits.
    #[inline]
    pub const fn raw(self) -> u32 {
        self.0
    }
}

/// The last word of a key: the transport protocol in the top byte, the [`IngressId`] below it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct IngressProto(u32);

impl IngressProto {
    /// Joins the two.
    #[inline]
    pub const fn new(proto: L4Proto, ingress: IngressId) -> Self {
        IngressProto(((proto.number() as u32) << 24) | ingress.raw())
    }

    /// Any word, for tests of what is done with words.
    #[cfg(test)]
    pub(crate) const fn from_raw(raw: u32) -> Self {
        IngressProto(raw)
    }

    /// Joins any protocol number and a port.
    #[inline]
    pub const fn raw_parts(proto: u8, ingress: IngressId) -> Self {
        IngressProto(((proto as u32) << 24) | ingress.raw())
    }

    /// The IANA number of the transport protocol.
    #[inline]
    pub const fn proto(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// Returns the ingress of the packet.
    #[inline]
    pub const fn ingress(self) -> IngressId {
        // INVARIANT: Masked to 24 bits, and bit 23 is as it was when it came in.
        IngressId(self.0 & IngressId::MAX)
    }

    /// The same protocol, coming in at another port.
    #[inline]
    pub const fn with_ingress(self, ingress: IngressId) -> Self {
        IngressProto(self.0 & !IngressId::MAX | ingress.raw())
    }

    /// The word itself.
    #[inline]
    pub const fn raw(self) -> u32 {
        self.0
    }
}

/// Both ports in one word, source first, as the first four bytes of a TCP or UDP header.
///
/// Takes port numbers, in the order of the CPU.
#[inline]
pub const fn ports(source: u16, destination: u16) -> u32 {
    let [a, b] = source.to_be_bytes();
    let [c, d] = destination.to_be_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// The port numbers of a word made by [`ports`]: source, destination.
#[inline]
pub const fn split_ports(ports: u32) -> (u16, u16) {
    let [a, b, c, d] = ports.to_ne_bytes();
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

/// Exchanges source and destination in a word of two ports.
#[inline]
pub const fn swap_ports(ports: u32) -> u32 {
    // Exchanges the halves, which are the two ports in either byte order.
    ports.rotate_left(16)
}

/// A flow key: a plain value that can be hashed with a secret.
pub trait Key: Copy + Eq {
    /// The keyed hash; all 32 bits are of equal quality.
    ///
    /// Without the seed nobody can aim at a bucket: for two different keys the chance of an equal
    /// hash is that of a random function, whoever chooses them.
    fn hash(&self, seed: &Seed) -> u32;
}

/// The key of one direction of an IPv4 flow: 16 bytes without padding.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Key4 {
    /// Source address, as it lies in the packet.
    pub saddr: u32,
    /// Destination address, as it lies in the packet.
    pub daddr: u32,
    /// Source and destination port, as they lie in the packet; see [`ports`].
    pub ports: u32,
    /// Transport protocol and ingress port.
    pub ingress: IngressProto,
}

/// The key of one direction of an IPv6 flow: 40 bytes without padding.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Key6 {
    /// Source address, as it lies in the packet.
    pub saddr: [u64; 2],
    /// Destination address, as it lies in the packet.
    pub daddr: [u64; 2],
    /// Source and destination port, as they lie in the packet; see [`ports`].
    pub ports: u32,
    /// Transport protocol and ingress port.
    pub ingress: IngressProto,
}

/// Two 32-bit words as they lie in memory, in one register.
#[inline(always)]
const fn join(first: u32, second: u32) -> u64 {
    if cfg!(target_endian = "little") {
        first as u64 | ((second as u64) << 32)
    } else {
        ((first as u64) << 32) | second as u64
    }
}

impl Key4 {
    #[inline(always)]
    pub(crate) const fn words(&self) -> [u64; 2] {
        [
            join(self.saddr, self.daddr),
            join(self.ports, self.ingress.raw()),
        ]
    }

    /// The key of packets that answer packets with this key and that enter by `ingress`, if nothing
    /// is translated in between.
    #[inline]
    pub const fn reply(&self, ingress: IngressId) -> Self {
        Key4 {
            saddr: self.daddr,
            daddr: self.saddr,
            ports: swap_ports(self.ports),
            ingress: self.ingress.with_ingress(ingress),
        }
    }
}

impl Key6 {
    #[inline(always)]
    pub(crate) const fn words(&self) -> [u64; 5] {
        let [s0, s1] = self.saddr;
        let [d0, d1] = self.daddr;
        [s0, s1, d0, d1, join(self.ports, self.ingress.raw())]
    }

    /// The key of packets that answer packets with this key and that enter by `ingress`, if nothing
    /// is translated in between.
    #[inline]
    pub const fn reply(&self, ingress: IngressId) -> Self {
        Key6 {
            saddr: self.daddr,
            daddr: self.saddr,
            ports: swap_ports(self.ports),
            ingress: self.ingress.with_ingress(ingress),
        }
    }
}

// Compared as words without a branch: nearly every comparison is with the right key.
impl PartialEq for Key4 {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let ([a0, a1], [b0, b1]) = (self.words(), other.words());
        (a0 ^ b0) | (a1 ^ b1) == 0
    }
}

impl Eq for Key4 {}

impl PartialEq for Key6 {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let ([a0, a1, a2, a3, a4], [b0, b1, b2, b3, b4]) = (self.words(), other.words());
        (a0 ^ b0) | (a1 ^ b1) | (a2 ^ b2) | (a3 ^ b3) | (a4 ^ b4) == 0
    }
}

impl Eq for Key6 {}

impl Key for Key4 {
    #[inline(always)]
    fn hash(&self, seed: &Seed) -> u32 {
        if cfg!(target_pointer_width = "64") {
            seed.hash4_wide(self)
        } else {
            seed.hash4_narrow(self)
        }
    }
}

/// A key that is an address in memory, for looking up what belongs to an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct AddrKey(usize);

impl AddrKey {
    /// The key of an object at this address.
    pub const fn new(addr: usize) -> Self {
        AddrKey(addr)
    }
}

impl Key for AddrKey {
    fn hash(&self, seed: &Seed) -> u32 {
        let key = Key4 {
            saddr: self.0 as u32,
            daddr: (self.0 as u64 >> 32) as u32,
            ports: 0,
            ingress: IngressProto(0),
        };

        key.hash(seed)
    }
}

impl Key for Key6 {
    #[inline(always)]
    fn hash(&self, seed: &Seed) -> u32 {
        if cfg!(target_pointer_width = "64") {
            seed.hash6_wide(self)
        } else {
            seed.hash6_narrow(self)
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seed(words: [u64; 8]) -> Seed {
        Seed::new(words)
    }

    fn key4(w: [u32; 4]) -> Key4 {
        Key4 {
            saddr: w[0],
            daddr: w[1],
            ports: w[2],
            ingress: IngressProto(w[3]),
        }
    }

    fn key6(w: [u64; 5]) -> Key6 {
        Key6 {
            saddr: [w[0], w[1]],
            daddr: [w[2], w[3]],
            ports: w[4] as u32,
            ingress: IngressProto((w[4] >> 32) as u32),
        }
    }

    #[test]
    fn port_ids() {
        assert_eq!(IngressId::from_ifindex(0), None);
        assert_eq!(IngressId::from_ifindex(1 << 23), None);
        assert_eq!(IngressId::from_interned(1 << 23), None);
        for id in [1, 7, (1 << 23) - 1] {
            let ingress = IngressId::from_ifindex(id).unwrap();
            let interned = IngressId::from_interned(id).unwrap();
            assert_eq!((ingress.ifindex(), ingress.interned()), (Some(id), None));
            assert_eq!((interned.ifindex(), interned.interned()), (None, Some(id)));
            assert_ne!(ingress, interned);
            assert!(interned.raw() <= IngressId::MAX);
            for proto in [L4Proto::Tcp, L4Proto::Udp] {
                let word = IngressProto::new(proto, interned);
                assert_eq!((word.proto(), word.ingress()), (proto.number(), interned));
                assert_eq!(
                    word.with_ingress(ingress),
                    IngressProto::new(proto, ingress)
                );
            }
        }
        assert_eq!(IngressId::from_interned(0).unwrap().raw(), 1 << 23);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn port_words(a in any::<u16>(), b in any::<u16>()) {
            let word = ports(a, b);
            prop_assert_eq!(word.to_ne_bytes()[..2].to_vec(), a.to_be_bytes().to_vec());
            prop_assert_eq!(split_ports(word), (a, b));
            prop_assert_eq!(swap_ports(word), ports(b, a));
        }

        #[test]
        fn equality_and_reply_4(w in any::<[u32; 4]>(), bit in 0_usize..128, s in any::<[u64; 8]>()) {
            let (key, seed) = (key4(w), seed(s));
            let mut other = w;
            other[bit / 32] ^= 1 << (bit % 32);
            prop_assert!(key == key4(w) && key != key4(other));
            prop_assert_eq!(key.hash(&seed), key4(w).hash(&seed));

            let ingress = IngressId::from_ifindex(3).unwrap();
            let reply = key.reply(ingress);
            prop_assert_eq!((reply.saddr, reply.daddr), (key.daddr, key.saddr));
            prop_assert_eq!(reply.ingress.ingress(), ingress);
            prop_assert!(reply.reply(key.ingress.ingress()) == key);
        }

        #[test]
        fn equality_and_reply_6(w in any::<[u64; 5]>(), bit in 0_usize..320, s in any::<[u64; 8]>()) {
            let (key, seed) = (key6(w), seed(s));
            let mut other = w;
            other[bit / 64] ^= 1 << (bit % 64);
            prop_assert!(key == key6(w) && key != key6(other));
            prop_assert_eq!(key.hash(&seed), key6(w).hash(&seed));

            let ingress = IngressId::from_ifindex(3).unwrap();
            let reply = key.reply(ingress);
            prop_assert_eq!((reply.saddr, reply.daddr), (key.daddr, key.saddr));
            prop_assert!(reply.reply(key.ingress.ingress()) == key);
        }
    }
}
