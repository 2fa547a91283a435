// SPDX-License-Identifier: GPL-2.0

//! Incremental update of SCTP's checksum, CRC-32C (RFC 9260, appendix A).
//!
//! A CRC is linear: if a message changes in its first four bytes, its CRC changes by the CRC of the
//! difference, followed by as many zeros as the message has bytes after that, and that is one
//! multiplication of polynomials. So the rest of the packet need not be read, wherever it lies,
//! and a wrong checksum stays wrong.
//!
//! Polynomials over GF(2) are words with the coefficient of x^0 in bit 31, as the checksum has
//! them.

/// The generator of CRC-32C, without x^32.
const POLY: u32 = 0x82f6_3b78;

/// x^0.
const ONE: u32 = 1 << 31;

/// x^8: what one more byte multiplies by.
const BYTE: u32 = 1 << 23;

/// The product of two polynomials, modulo the generator.
const fn mul(a: u32, b: u32) -> u32 {
    let (mut a, mut b, mut product) = (a, b, 0);
    let mut i = 0;

    while i < 32 {
        // All ones if the coefficient of x^i is set in `a`.
        product ^= b & ((a as i32) >> 31) as u32;
        a <<= 1;
        b = (b >> 1) ^ (POLY & (b & 1).wrapping_neg());
        i += 1;
    }
    product
}

/// Row k, column v: x^8 to the power of v * 16^k.
const POWERS: [[u32; 16]; 4] = {
    let mut powers = [[ONE; 16]; 4];
    let (mut k, mut base) = (0, BYTE);

    while k < 4 {
        let mut v = 1;
        while v < 16 {
            powers[k][v] = mul(powers[k][v - 1], base);
            v += 1;
        }
        base = mul(powers[k][15], base);
        k += 1;
    }
    powers
};

/// x^8 to the power of `n`.
fn power(n: u16) -> u32 {
    let n = usize::from(n);
    let [a, b, c, d] = &POWERS;
    let mut power = a[n & 15];

    for (row, v) in [(b, n >> 4), (c, n >> 8), (d, n >> 12)] {
        if v & 15 != 0 {
            power = mul(power, row[v & 15]);
        }
    }
    power
}

/// The checksum of a message of `len` bytes after `new` takes the place of `old`, its first four
/// bytes. All words are as they lie in the packet.
pub(crate) fn replace(check: [u8; 4], len: u16, old: u32, new: u32) -> [u8; 4] {
    let difference = u32::from_le_bytes((old ^ new).to_ne_bytes());
    let check = u32::from_le_bytes(check);

    (check ^ mul(difference, power(len))).to_le_bytes()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::{
        collection::vec,
        prelude::*, //
    };

    /// Bit by bit.
    fn crc32c(message: &[u8]) -> u32 {
        let mut crc = !0;
        for byte in message {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ if crc & 1 != 0 { POLY } else { 0 };
            }
        }
        !crc
    }

    #[test]
    fn check_value() {
        // RFC 3720, appendix B.4, and the usual one.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn powers() {
        let mut expected = ONE;
        for n in 0..=u16::MAX {
            assert_eq!(power(n), expected);
            expected = mul(expected, BYTE);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn as_computed_anew(
            mut message in vec(any::<u8>(), 4..3000),
            new in any::<[u8; 4]>(),
            error in any::<u32>(),
        ) {
            let old: [u8; 4] = message[..4].try_into().unwrap();
            let before = crc32c(&message);
            message[..4].copy_from_slice(&new);
            let after = crc32c(&message);
            let update = |check: u32| {
                let words = (u32::from_ne_bytes(old), u32::from_ne_bytes(new));
                let len = message.len() as u16;
                u32::from_le_bytes(replace(check.to_le_bytes(), len, words.0, words.1))
            };
            prop_assert_eq!(update(before), after);
            // What was wrong stays wrong, by the same bits.
            prop_assert_eq!(update(before ^ error), after ^ error);
        }
    }
}
