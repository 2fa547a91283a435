// SPDX-License-Identifier: GPL-2.0

//! Hash flooding: keys chosen to collide without the seed, or with another seed, do not make
//! probes longer than random keys do.

#![cfg(not(loom))]

mod common;

use common::{
    buckets,
    free,
    key,
    seed,
    splitmix,
    Flow, //
};
use nft_flow::{
    key::{
        Key,
        Key4,
        Seed, //
    },
    table::{
        Migration,
        Table, //
    },
};
use std::ptr::NonNull;

/// Inserts keys as the module does and returns how many did not find room, and the largest number
/// of keys that hash to one bucket.
fn fill(keys: &[Key4], seed: &Seed) -> (usize, usize) {
    let flows: Vec<_> = keys.iter().map(|key| Flow::seeded(*key, seed)).collect();
    let (table, mut writer) = Table::new(buckets(64));
    let mut refused = 0;
    for flow in &flows {
        // SAFETY: Outlives the table.
        refused += usize::from(unsafe { writer.insert(NonNull::from(flow)) }.is_err());
        while let Some(n) = writer.wants_resize() {
            writer.begin_resize(buckets(n)).ok().unwrap();
            assert_eq!(writer.migrate(usize::MAX), Migration::Done);
            // SAFETY: They belong together.
            unsafe { writer.finish(&table) }.map(free).unwrap();
        }
    }
    let mut load = vec![0; writer.buckets()];
    for flow in &flows {
        load[flow.hash as usize % writer.buckets()] += 1;
        // SAFETY: Nothing is freed before the end.
        let found = unsafe { table.lookup(flow.hash, &flow.key) };
        assert!(refused > 0 || found.is_some_and(|found| std::ptr::eq(found, flow)));
    }
    // SAFETY: They belong together.
    let (used, unused) = unsafe { writer.close(&table) };
    used.into_iter().chain(unused).for_each(free);
    (refused, load.into_iter().max().unwrap())
}

#[test]
fn attack_on_another_seed() {
    let (mine, attacked) = (seed(1), seed(2));
    let mut state = 3;
    // 64 K keys that all lie in 32 of 64 K buckets of a table with the attacked seed.
    let mut keys = Vec::new();
    while keys.len() < 1 << 16 {
        // Collisions are rare, so take the search's word for 11 bits and vary the rest.
        let number = splitmix(&mut state) as u32;
        let key = Key4 {
            ports: splitmix(&mut state) as u32,
            ..key(number)
        };
        if key.hash(&attacked) & 0x3f == 0 {
            keys.push(key);
        }
    }
    let (refused, longest) = fill(&keys, &mine);
    assert_eq!(refused, 0);
    // The largest of 32 K buckets with two each on average is about 12.
    assert!(longest <= 18, "{longest} keys in one bucket");
}

#[test]
fn all_ports_of_one_address() {
    let keys: Vec<_> = (0..=u16::MAX)
        .map(|port| Key4 {
            ports: nft_flow::key::ports(port, 443),
            ..key(9)
        })
        .collect();
    for number in 10..14 {
        let (refused, longest) = fill(&keys, &seed(number));
        assert_eq!(refused, 0);
        assert!(longest <= 18, "{longest} keys in one bucket");
    }
}
