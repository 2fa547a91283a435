// SPDX-License-Identifier: GPL-2.0

//! What several tests share.

#![allow(dead_code, unreachable_pub)]

pub mod naive;

use nft_flow::{
    key::{
        IngressId,
        IngressProto,
        Key,
        Key4,
        L4Proto,
        Seed, //
    },
    table::{
        Buckets,
        Item, //
    },
};
use std::ptr::NonNull;

/// A seed for tests, from one number (splitmix64).
pub fn seed(number: u64) -> Seed {
    let mut state = number;
    Seed::new(std::array::from_fn(|_| splitmix(&mut state)))
}

/// A small random number generator.
pub fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The port that test packets come in by.
pub fn ingress() -> IngressId {
    IngressId::from_ifindex(7).unwrap()
}

/// An IPv4 key that differs from others in its number.
pub fn key(number: u32) -> Key4 {
    Key4 {
        saddr: number.to_be(),
        daddr: 0x0a00_0001_u32.to_be(),
        ports: nft_flow::key::ports(40_000, 443),
        ingress: IngressProto::new(L4Proto::Tcp, ingress()),
    }
}

/// An item with a hash of the test's choice.
#[derive(Debug)]
pub struct Flow {
    pub key: Key4,
    pub hash: u32,
}

impl Flow {
    pub fn new(number: u32, hash: u32) -> Self {
        Flow {
            key: key(number),
            hash,
        }
    }

    pub fn seeded(key: Key4, seed: &Seed) -> Self {
        Flow {
            key,
            hash: key.hash(seed),
        }
    }
}

// SAFETY: Neither changes after construction, and the tests look up with the same hash.
unsafe impl Item for Flow {
    type Key = Key4;

    fn key(&self) -> &Key4 {
        &self.key
    }

    fn hash(&self) -> u32 {
        self.hash
    }
}

/// Allocates empty buckets, as the kernel would.
pub fn buckets<T>(n: usize) -> Buckets<T> {
    let layout = Buckets::<T>::layout(n).unwrap();
    // SAFETY: The size is not zero.
    let memory = unsafe { std::alloc::alloc_zeroed(layout) };
    // SAFETY: Zeroed memory of that layout, used by nobody else.
    unsafe { Buckets::from_zeroed(NonNull::new(memory).unwrap(), n) }.unwrap()
}

/// Frees what [`buckets`] allocated.
pub fn free<T>(buckets: Buckets<T>) {
    let (memory, n) = buckets.into_raw();
    let layout = Buckets::<T>::layout(n).unwrap();
    // SAFETY: Allocated by `buckets` with this layout; the tests have no readers left.
    unsafe { std::alloc::dealloc(memory.as_ptr(), layout) };
}
