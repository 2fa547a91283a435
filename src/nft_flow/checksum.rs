// SPDX-License-Identifier: GPL-2.0

//! Incremental update of Internet checksums (RFC 1624).
//!
//! All words are in the byte order of the CPU, as loaded from the packet: the ones' complement sum
//! does not depend on it (RFC 1071, section 2 (B)).
//!
//! The results are those of the kernel's `csum_replace4()` and `inet_proto_csum_replace*()`, bit by
//! bit: where zero has two representations, those functions never store 0xffff.

/// What the transport checksum field of a packet holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Csum {
    /// The checksum over everything (`CHECKSUM_NONE`, `CHECKSUM_UNNECESSARY`). For
    /// `CHECKSUM_COMPLETE` too, if the caller forgets the device's sum as `skb_forward_csum()`
    /// does.
    Full,
    /// The sum over the pseudo header, to be completed by the device (`CHECKSUM_PARTIAL`).
    Partial,
}

/// Adds up the carries until 16 bits are left. Zero only for zero.
#[inline(always)]
const fn fold(sum: u64) -> u16 {
    // Largest sums after each line: 2^33 - 2, 3 * 2^16 - 2, 2^16 + 1, 2^16 - 1.
    let sum = (sum & 0xffff_ffff).wrapping_add(sum >> 32);
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    sum as u16
}

/// The ones' complement sum of two words. Zero only if both are.
#[inline(always)]
const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    // With a carry, `sum` is at most 0xfffe.
    sum.wrapping_add(carry as u16)
}

/// What replacing some words of a packet adds to the ones' complement sum over it.
///
/// # Invariants
///
/// Not zero: the neutral element is 0xffff. A sum with a term that is not zero is not zero, which
/// keeps a checksum, the complement of a sum, from becoming 0xffff.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Delta(u16);

impl Delta {
    /// Nothing was replaced.
    pub const NONE: Delta = Delta(0xffff);

    /// `new` takes the place of `old`.
    #[inline]
    pub const fn replace32(old: u32, new: u32) -> Self {
        // The constant keeps the sum from being zero and adds nothing else.
        let sum = 0xffff_u64
            .wrapping_add(!old as u64)
            .wrapping_add(new as u64);

        // INVARIANT: `sum` is not zero.
        Delta(fold(sum))
    }

    /// `new` takes the place of `old`, for example one IPv6 address that of another.
    #[inline]
    pub const fn replace128(old: [u64; 2], new: [u64; 2]) -> Self {
        let ([o0, o1], [n0, n1]) = (old, new);

        Self::replace64(o0, n0).combine(Self::replace64(o1, n1))
    }

    const fn replace64(old: u64, new: u64) -> Self {
        Self::replace32(old as u32, new as u32)
            .combine(Self::replace32((old >> 32) as u32, (new >> 32) as u32))
    }

    /// Both replacements.
    #[inline]
    pub const fn combine(self, other: Self) -> Self {
        // INVARIANT: Neither term is zero, hence the sum is not.
        Delta(add(self.0, other.0))
    }

    /// Takes back the replacement: combined with `self`, this is [`Delta::NONE`].
    #[inline]
    pub const fn inverse(self) -> Self {
        if self.0 == 0xffff {
            return self;
        }
        // INVARIANT: Not the complement of 0xffff, hence not zero.
        Delta(!self.0)
    }

    /// The checksum after the replacement (RFC 1624, equation 3).
    #[inline]
    pub const fn apply(self, check: u16) -> u16 {
        !add(!check, self.0)
    }

    /// [`Self::apply`] for a UDP checksum, where zero stands for "none" (RFC 768): none stays
    /// none, and a sum of zero is sent as 0xffff.
    #[inline]
    pub const fn apply_udp(self, check: u16) -> u16 {
        if check == 0 {
            return 0;
        }
        match self.apply(check) {
            0 => 0xffff,
            check => check,
        }
    }

    /// The checksum field after the replacement where the checksum is still to be completed by
    /// the device (`CHECKSUM_PARTIAL`): the field holds the sum over the pseudo header, not
    /// complemented. Only what was replaced in the pseudo header belongs in `self`, which is the
    /// addresses and not the ports.
    ///
    /// The result is never zero, so it serves for UDP too.
    #[inline]
    pub const fn apply_partial(self, sum: u16) -> u16 {
        add(sum, self.0)
    }
}

impl Default for Delta {
    fn default() -> Self {
        Delta::NONE
    }
}

/// Whether the header checksum of an IPv4 header without options is right.
#[inline]
pub fn ipv4_header_ok(header: &[u8; 20]) -> bool {
    use crate::bytes::load_u32;

    let sum = u64::from(load_u32(header, 0))
        .wrapping_add(u64::from(load_u32(header, 4)))
        .wrapping_add(u64::from(load_u32(header, 8)))
        .wrapping_add(u64::from(load_u32(header, 12)))
        .wrapping_add(u64::from(load_u32(header, 16)));
    fold(sum) == 0xffff
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // The kernel's functions (include/net/checksum.h, net/core/utils.c), line by line.

    fn csum_add(csum: u32, addend: u32) -> u32 {
        let res = csum.wrapping_add(addend);
        res.wrapping_add((res < addend).into())
    }

    fn csum_sub(csum: u32, addend: u32) -> u32 {
        csum_add(csum, !addend)
    }

    fn csum_fold(csum: u32) -> u16 {
        let sum = (csum & 0xffff) + (csum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        !(sum as u16)
    }

    fn csum_replace4(sum: u16, from: u32, to: u32) -> u16 {
        let tmp = csum_sub(!u32::from(sum), from);
        csum_fold(csum_add(tmp, to))
    }

    fn replace4_partial(sum: u16, from: u32, to: u32) -> u16 {
        !csum_fold(csum_add(csum_sub(sum.into(), from), to))
    }

    /// `nf_flow_nat_ip_udp()` and friends.
    fn udp(check: u16, partial: bool, pairs: &[(u32, u32, bool)]) -> u16 {
        let mut check = check;
        for (from, to, pseudo) in pairs {
            if check == 0 && !partial {
                continue;
            }
            if !partial {
                check = csum_replace4(check, *from, *to);
            } else if *pseudo {
                check = replace4_partial(check, *from, *to);
            }
            if check == 0 {
                check = 0xffff;
            }
        }
        check
    }

    /// `ip_decrease_ttl()`.
    fn decrease_ttl(check: u16) -> u16 {
        let sum = u32::from(check) + u32::from(0x0100_u16.to_be());
        (sum + u32::from(sum >= 0xffff)) as u16
    }

    /// Words with the corner cases of ones' complement among them.
    fn word() -> impl Strategy<Value = u32> {
        prop_oneof![
            4 => any::<u32>(),
            1 => prop::sample::select(vec![0, 1, 0xffff, 0x1_0000, 0xffff_0000, !1, !0]),
        ]
    }

    fn check() -> impl Strategy<Value = u16> {
        prop_oneof![4 => any::<u16>(), 1 => prop::sample::select(vec![0, 1, 0xfffe, 0xffff])]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..Default::default() })]

        #[test]
        fn as_the_kernel(check in check(), a in word(), b in word(), c in word(), d in word()) {
            let one = Delta::replace32(a, b);
            prop_assert_eq!(one.apply(check), csum_replace4(check, a, b));

            let both = one.combine(Delta::replace32(c, d));
            let expected = csum_replace4(csum_replace4(check, a, b), c, d);
            prop_assert_eq!(both.apply(check), expected);

            let pairs = [(a, b, true), (c, d, false)];
            prop_assert_eq!(both.apply_udp(check), udp(check, false, &pairs));
            // The kernel has zero for an empty sum of nothing, which no pseudo header has, and
            // 0xffff for UDP.
            prop_assert_eq!(one.apply_partial(check), udp(check, true, &pairs));
            let partial = replace4_partial(check, a, b);
            prop_assert!(one.apply_partial(check) == partial || partial == 0);

            let ttl = Delta::replace32(u16::to_be(0x0100).into(), 0);
            let expected = decrease_ttl(csum_replace4(check, a, b));
            prop_assert_eq!(one.combine(ttl).apply(check), expected);
        }

        #[test]
        fn algebra(a in any::<[u64; 2]>(), b in any::<[u64; 2]>(), check in check()) {
            let there = Delta::replace128(a, b);
            let mut by_hand = Delta::NONE;
            for (from, to) in a.iter().zip(b) {
                for shift in [0, 32] {
                    let delta = Delta::replace32((from >> shift) as u32, (to >> shift) as u32);
                    by_hand = by_hand.combine(delta);
                }
            }
            prop_assert_eq!(there, by_hand);
            prop_assert_eq!(there.combine(there.inverse()), Delta::NONE);
            prop_assert_eq!(Delta::replace128(a, a), Delta::NONE);
            prop_assert_eq!(Delta::replace128(b, a), there.inverse());
            prop_assert_eq!(there.combine(Delta::default()), there);
            // Back where it was, up to the representation of zero.
            let back = there.inverse().apply(there.apply(check));
            prop_assert_eq!(back, if check == 0xffff { 0 } else { check });
        }
    }

    #[test]
    fn every_checksum_and_delta() {
        for delta in (1..=0xffff).step_by(251).map(Delta) {
            for check in 0..=0xffff {
                let expected = csum_replace4(check, 0, delta.0.into());
                assert_eq!(delta.apply(check), expected);
                assert_ne!(delta.apply(check), 0xffff);
                assert_ne!(delta.apply_partial(check), 0);
            }
        }
    }

    #[test]
    fn header_of_rfc_1071_style() {
        // 192.168.0.1 to 192.168.0.199, UDP; the example of Wikipedia's "IPv4 header checksum".
        let mut header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8,
            0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert!(ipv4_header_ok(&header));
        for bit in 0..160 {
            header[bit / 8] ^= 1 << (bit % 8);
            assert!(!ipv4_header_ok(&header), "bit {bit}");
            header[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(!ipv4_header_ok(&[0; 20]));
    }

    #[test]
    fn fold_keeps_the_residue() {
        for sum in [
            0,
            1,
            0xffff,
            0x1_0000,
            0xffff_ffff,
            1 << 32,
            (1 << 32) | 0xffff,
            u64::MAX,
        ] {
            let folded = fold(sum);
            assert_eq!(u64::from(folded) % 0xffff, sum % 0xffff);
            assert_eq!(folded == 0, sum == 0);
        }
    }
}
