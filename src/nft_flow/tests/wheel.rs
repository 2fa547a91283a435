// SPDX-License-Identifier: GPL-2.0

//! The wheel against a list that is searched.

#![cfg(not(loom))]

use nft_flow::age::{
    Due,
    Link,
    Wheel, //
};
use proptest::{
    collection::vec,
    prelude::*, //
};
use std::{
    collections::BTreeMap,
    ptr::NonNull, //
};

const LINKS: usize = 40;

#[derive(Clone, Debug)]
enum Op {
    Add(usize, i32),
    Remove(usize),
    Advance(u32, u32),
}

fn op() -> impl Strategy<Value = Op> {
    let due = prop_oneof![4 => 0..70, 1 => -70..300, 1 => Just(1_000_000)];
    let step = prop_oneof![6 => 0_u32..3, 2 => 0_u32..130, 1 => Just(100_000_u32)];
    prop_oneof![
        4 => (0..LINKS, due).prop_map(|(link, due)| Op::Add(link, due)),
        1 => (0..LINKS).prop_map(Op::Remove),
        2 => (step, 0_u32..30).prop_map(|(step, budget)| Op::Advance(step, budget)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..Default::default() })]

    #[test]
    fn agrees_with_a_list(
        start in prop_oneof![Just(0_u32), Just(u32::MAX - 40), Just(i32::MAX as u32 - 40), any::<u32>()],
        ops in vec(op(), 0..300),
    ) {
        let links: Vec<Link> = (0..LINKS).map(|_| Link::new()).collect();
        let number = |link: NonNull<Link>| {
            links.iter().position(|l| std::ptr::eq(l, link.as_ptr())).unwrap()
        };
        let mut wheel = Wheel::new(start);
        let mut model: BTreeMap<usize, u32> = BTreeMap::new();
        let mut now = start;

        for op in ops {
            match op {
                Op::Add(link, ahead) => {
                    let due = now.wrapping_add_signed(ahead);
                    // SAFETY: Links outlive the wheel and stay where they are.
                    let added = unsafe { wheel.add(NonNull::from(&links[link]), due) };
                    prop_assert_eq!(added, !model.contains_key(&link));
                    model.entry(link).or_insert(due);
                }
                Op::Remove(link) => {
                    // SAFETY: As above; there is one wheel only.
                    let removed = unsafe { wheel.remove(NonNull::from(&links[link])) };
                    prop_assert_eq!(removed, model.remove(&link).is_some());
                }
                Op::Advance(step, budget) => {
                    now = now.wrapping_add(step);
                    let mut left = budget;
                    loop {
                        match wheel.advance(now, &mut left) {
                            Due::Link(link) => {
                                let due = model.remove(&number(link));
                                prop_assert!(now.wrapping_sub(due.unwrap()) as i32 >= 0);
                            }
                            Due::Busy => {
                                prop_assert_eq!(left, 0);
                                break;
                            }
                            Due::Idle => {
                                // Nothing that is due was left behind.
                                for due in model.values() {
                                    prop_assert!((now.wrapping_sub(*due) as i32) < 0);
                                }
                                break;
                            }
                        }
                    }
                }
            }
            prop_assert_eq!(wheel.len(), model.len());
            prop_assert_eq!(wheel.is_empty(), model.is_empty());
        }

        // All come out in the end; the clock going back does no harm before that.
        let mut budget = u32::MAX;
        prop_assert_eq!(wheel.advance(start.wrapping_sub(1000), &mut budget), Due::Idle);
        now = now.wrapping_add(2_000_000);
        while let Due::Link(link) = wheel.advance(now, &mut budget) {
            prop_assert!(model.remove(&number(link)).is_some());
        }
        prop_assert!(model.is_empty() && wheel.is_empty());
    }
}

/// A second of work is for the flows of that second, not for all.
#[test]
fn cost_is_that_of_the_due() {
    let links: Vec<Link> = (0..10_000).map(|_| Link::new()).collect();
    let mut wheel = Wheel::new(0);
    for (i, link) in links.iter().enumerate() {
        // SAFETY: Links outlive the wheel and stay where they are.
        unsafe { wheel.add(NonNull::from(link), 1 + i as u32 % 50) };
    }
    for now in 1..=50 {
        let mut budget = 1000;
        let mut due = 0;
        while let Due::Link(_) = wheel.advance(now, &mut budget) {
            due += 1;
        }
        assert_eq!((due, budget), (200, 800));
    }
    assert!(wheel.is_empty());
}
