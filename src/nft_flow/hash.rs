// SPDX-License-Identifier: GPL-2.0

//! The keyed hash of flow keys.

use crate::key::{
    Key4,
    Key6, //
};

/// The halves of a 64-bit word.
#[inline(always)]
const fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

/// The secret of a table's hash function: one cache line of random bits.
///
/// The hash is NH (Black, Halevi, Krawczyk, Krovetz, Rogaway: "UMAC: Fast and Secure Message
/// Authentication", CRYPTO '99): add a secret word to each word of the key, multiply in pairs
/// without truncation, sum up. Two different keys have equal sums with probability 2^-64 (2^-32 in
/// the variant for 32-bit CPUs) over the choice of the secret. One more multiplication with fresh
/// secret words spreads the sum over the 32 bits of the result.
///
/// That is two multiplications of 64 by 64 bits for IPv4 and four for IPv6. CPUs without such an
/// instruction use one of 32 by 32 bits for every two words of 32 bits.
///
/// A seed is as large as a cache line; whoever keeps one for packets sees to it that it begins with
/// one.
#[derive(Clone)]
#[repr(C)]
pub struct Seed([u64; 8]);

impl Seed {
    /// Makes a seed of 64 random bytes, which must come from a cryptographic generator and stay
    /// secret. The bytes are used as they are: a zero word is as good as any other.
    pub const fn new(random: [u64; 8]) -> Self {
        Seed(random)
    }

    /// The hash for CPUs that multiply 64 by 64 bits.
    #[inline(always)]
    pub(crate) fn hash4_wide(&self, key: &Key4) -> u32 {
        let [k0, k1, .., f0, f1] = self.0;
        let [w0, w1] = key.words();

        finish_wide(product_wide(w0, k0, w1, k1), f0, f1)
    }

    /// The hash for CPUs that multiply 64 by 64 bits.
    #[inline(always)]
    pub(crate) fn hash6_wide(&self, key: &Key6) -> u32 {
        let [k0, k1, k2, k3, k4, k5, f0, f1] = self.0;
        let [w0, w1, w2, w3, w4] = key.words();

        let sum = product_wide(w0, k0, w1, k1)
            .wrapping_add(product_wide(w2, k2, w3, k3))
            .wrapping_add(product_wide(w4, k4, 0, k5));
        finish_wide(sum, f0, f1)
    }

    /// The hash for CPUs that multiply 32 by 32 bits.
    #[inline(always)]
    pub(crate) fn hash4_narrow(&self, key: &Key4) -> u32 {
        let [k0, k1, .., f0, f1] = self.0;
        let [w0, w1] = key.words();

        let sum = product_narrow(w0, k0).wrapping_add(product_narrow(w1, k1));
        finish_narrow(sum, f0, f1)
    }

    /// The hash for CPUs that multiply 32 by 32 bits.
    #[inline(always)]
    pub(crate) fn hash6_narrow(&self, key: &Key6) -> u32 {
        let [k0, k1, k2, k3, k4, _, f0, f1] = self.0;
        let [w0, w1, w2, w3, w4] = key.words();

        let sum = product_narrow(w0, k0)
            .wrapping_add(product_narrow(w1, k1))
            .wrapping_add(product_narrow(w2, k2))
            .wrapping_add(product_narrow(w3, k3))
            .wrapping_add(product_narrow(w4, k4));
        finish_narrow(sum, f0, f1)
    }
}

/// One term of NH over 64-bit words.
#[inline(always)]
const fn product_wide(a: u64, ka: u64, b: u64, kb: u64) -> u128 {
    // A product of two 64-bit factors fits; `wrapping_mul` says so without an overflow check.
    (a.wrapping_add(ka) as u128).wrapping_mul(b.wrapping_add(kb) as u128)
}

/// Spreads a sum over 32 bits.
#[inline(always)]
const fn finish_wide(sum: u128, f0: u64, f1: u64) -> u32 {
    let (low, high) = (sum as u64, (sum >> 64) as u64);
    let product = ((low ^ f0) as u128).wrapping_mul((high ^ f1) as u128);
    let folded = product as u64 ^ (product >> 64) as u64;

    folded as u32 ^ (folded >> 32) as u32
}

/// One term of NH over 32-bit words: the two halves of `word` multiplied.
#[inline(always)]
const fn product_narrow(word: u64, k: u64) -> u64 {
    let ([a, b], [ka, kb]) = (halves(word), halves(k));

    (a.wrapping_add(ka) as u64).wrapping_mul(b.wrapping_add(kb) as u64)
}

/// Spreads a sum over 32 bits; twice, because one product of 32-bit factors mixes too little.
#[inline(always)]
const fn finish_narrow(sum: u64, f0: u64, f1: u64) -> u32 {
    let ([low, high], [f00, f01], [f10, f11]) = (halves(sum), halves(f0), halves(f1));
    let [a, b] = halves(((low ^ f00) as u64).wrapping_mul((high ^ f01) as u64));
    // The factors are the two halves plus the two inputs, so that a zero factor loses nothing.
    let x = a ^ high;
    let y = b ^ low;
    let [c, d] = halves(((x ^ f10) as u64).wrapping_mul((y ^ f11) as u64));

    c ^ d
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::key::IngressProto;

    fn key4(w: [u32; 4]) -> Key4 {
        Key4 {
            saddr: w[0],
            daddr: w[1],
            ports: w[2],
            ingress: IngressProto::from_raw(w[3]),
        }
    }

    fn key6(w: [u64; 5]) -> Key6 {
        let [ports, ingress] = halves(w[4]);
        Key6 {
            saddr: [w[0], w[1]],
            daddr: [w[2], w[3]],
            ports,
            ingress: IngressProto::from_raw(ingress),
        }
    }

    /// splitmix64.
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// All four functions, over words of which IPv4 uses the first two.
    fn hashes(seed: &Seed, w: [u64; 5]) -> [u32; 4] {
        let [[a, b], [c, d]] = [halves(w[0]), halves(w[1])];
        let (k4, k6) = (key4([a, b, c, d]), key6(w));
        [
            seed.hash4_wide(&k4),
            seed.hash4_narrow(&k4),
            seed.hash6_wide(&k6),
            seed.hash6_narrow(&k6),
        ]
    }

    /// Over all seeds, every bit of the key turns every bit of the hash half of the time.
    #[test]
    fn avalanche() {
        const ROUNDS: usize = 4000;
        let mut state = 1;
        for bit in 0..320 {
            let mut turned = [[0_usize; 32]; 4];
            for _ in 0..ROUNDS {
                let seed = Seed::new(core::array::from_fn(|_| random(&mut state)));
                // Keys as they come: small numbers.
                let mut w = [0x0100_007f_0a00_0001, 0x0600_0001_5000_9c40, 0, 1, 2];
                let before = hashes(&seed, w);
                w[bit / 64] ^= 1 << (bit % 64);
                let after = hashes(&seed, w);
                for (function, turned) in turned.iter_mut().enumerate() {
                    let difference = before[function] ^ after[function];
                    for (i, count) in turned.iter_mut().enumerate() {
                        *count += ((difference >> i) & 1) as usize;
                    }
                }
            }
            for (function, turned) in turned.iter().enumerate() {
                if function < 2 && bit >= 128 {
                    continue;
                }
                for (i, count) in turned.iter().enumerate() {
                    let share = *count as f64 / ROUNDS as f64;
                    // Six standard deviations, and some bias for the cheap function.
                    let allowed = if function % 2 == 0 { 0.05 } else { 0.08 };
                    assert!(
                        (share - 0.5).abs() < allowed,
                        "function {function}, bit {bit} -> {i}: {share}"
                    );
                }
            }
        }
    }

    /// Related keys spread over buckets and tags like random numbers, whatever the seed.
    #[test]
    fn distribution() {
        const KEYS: u64 = 1 << 16;
        const BUCKETS: usize = 1 << 14;
        type Pattern = fn(u64) -> [u64; 5];
        let patterns: [(&str, Pattern); 5] = [
            ("source ports", |i| {
                [9, (i & 0xffff) | 0x0600_0001_bb01_0000, 0, 0, 5]
            }),
            ("addresses", |i| {
                [(i << 16) | 0x0a, 0x0600_0001_bb01_0000, i, 0, 5]
            }),
            ("addresses and ports", |i| {
                [(i & 255) << 24, (i >> 8) << 16, i & 255, i >> 8, 5]
            }),
            ("pairs", |i| {
                [(i & 255) | ((i >> 8) << 32), 7, i & 255, i >> 8, 5]
            }),
            ("opposed", |i| [i, !i, !i, i, i]),
        ];
        let mut state = 2;
        for (name, pattern) in patterns {
            for _ in 0..4 {
                let seed = Seed::new(core::array::from_fn(|_| random(&mut state)));
                let mut buckets = vec![[0_u32; 4]; BUCKETS];
                let mut whole: [Vec<u32>; 4] = Default::default();
                for i in 0..KEYS {
                    for (function, hash) in hashes(&seed, pattern(i)).into_iter().enumerate() {
                        buckets[hash as usize % BUCKETS][function] += 1;
                        whole[function].push(hash);
                    }
                }
                for function in 0..4 {
                    // Chi squared with 16383 degrees of freedom: mean 16383, deviation 181.
                    let mean = KEYS as f64 / BUCKETS as f64;
                    let chi: f64 = buckets
                        .iter()
                        .map(|b| (f64::from(b[function]) - mean).powi(2) / mean)
                        .sum();
                    assert!(
                        chi < 16383.0 + 12.0 * 181.0,
                        "{name}, {function}: chi {chi}"
                    );
                    // Random 32-bit numbers collide half a time in 65536; bucket and tag together
                    // are 30 bits of them.
                    let hashes = &mut whole[function];
                    hashes.sort_unstable();
                    hashes.dedup();
                    let lost = KEYS as usize - hashes.len();
                    assert!(lost < 12, "{name}, {function}: {lost} collisions");
                }
            }
        }
    }
}
