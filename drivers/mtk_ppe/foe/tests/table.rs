// SPDX-License-Identifier: GPL-2.0

//! Keeping the table: who owns which slot, whatever the engine does meanwhile.

mod common;
use common::*;
use mtk_foe::encode::Image;
use mtk_foe::entry::{ib1, State};
use mtk_foe::ppe::{AddError, Gone, Handle};
use mtk_foe::soc::{self, Soc};
use mtk_foe::{encode, slot, Memory, ENTRIES};
use nft_flow::desc::*;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

fn desc(n: u32) -> FlowDesc {
    let [a, b, c, d] = n.to_be_bytes();
    let t = v4([10, a, b, c], 1024 + u16::from(d), [192, 0, 2, 1], 443);
    flow(TCP, t, t, Port::plain(1), wan(&[]))
}

/// Flows of one bucket.
fn colliding(soc: &'static Soc, count: usize) -> Vec<Image> {
    let mut buckets: HashMap<u16, Vec<Image>> = HashMap::new();
    for n in 0.. {
        let image = encode(soc, &BOARD, &desc(n)).unwrap();
        let all = buckets.entry(image.bucket).or_default();
        all.push(image);
        if all.len() == count {
            return all.clone();
        }
    }
    unreachable!()
}

/// What the engine does: another state in an entry.
fn engine_sets(table: &Table, soc: &Soc, slot: u16, state: State) {
    let ib1 = slot::read_ib1(table, soc, slot);
    assert!(State::of(ib1).may_become(state));
    table.store(
        usize::from(slot) * soc.hal.entry_size() / 4,
        ib1 & !ib1::STATE.mask() | state.bits(),
    );
}

#[test]
fn collision() {
    for soc in soc::ALL {
        let ways = usize::from(soc.ways);
        let images = colliding(soc, ways + 1);
        let (mut ppe, _, table) = engine(soc);
        // With all ways usable, they all bind, the next one does not, and nobody loses their slot
        // (quirk B1).
        let usable = (0..ways)
            .filter(|&w| !soc.is_reserved(usize::from(images[0].bucket) + w))
            .count();
        let mut handles: Vec<_> = images[..usable]
            .iter()
            .map(|i| ppe.add(i).unwrap())
            .collect();
        assert_eq!(ppe.add(&images[usable]), Err(AddError::Collision));
        assert_eq!(ppe.capacity().0, usable);
        let slots: HashSet<_> = handles.iter().map(Handle::slot).collect();
        assert_eq!(slots.len(), usable);
        assert!(slots
            .iter()
            .all(|s| *s / u16::from(soc.ways) == images[0].bucket / u16::from(soc.ways)));
        for handle in &handles {
            assert!(ppe.stats(handle).is_ok());
        }
        let first = handles.remove(0);
        let slot = first.slot();
        ppe.del(first);
        assert_eq!(State::of(slot::read_ib1(&table, soc, slot)), State::Invalid);
        assert_eq!(ppe.add(&images[usable]).unwrap().slot(), slot);
        assert!(ppe.stats(&handles[0]).is_ok());
    }
}

#[test]
fn reserved_slots_are_never_used() {
    let soc = &soc::MT7621;
    let (mut ppe, _, table) = engine(soc);
    assert_eq!(ppe.capacity(), (0, ENTRIES - 8 * 128));
    let mut bound = 0;
    for n in 0..20_000 {
        if let Ok(handle) = ppe.add(&encode(soc, &BOARD, &desc(n)).unwrap()) {
            assert!(!soc.is_reserved(handle.slot().into()));
            bound += 1;
        }
    }
    assert_eq!(ppe.capacity().0, bound);
    for slot in (0..ENTRIES).filter(|&s| soc.is_reserved(s)) {
        assert_eq!(slot::read_ib1(&table, soc, slot as u16), 1 << 31);
    }
}

#[test]
fn published_last_and_counted_from_the_first() {
    let soc = &soc::MT7986;
    let (mut ppe, regs, table) = engine(soc);
    regs.trace.borrow_mut().clear();
    let image = encode(soc, &BOARD, &desc(1)).unwrap();
    let handle = ppe.add(&image).unwrap();
    let words = soc.hal.entry_size() / 4;
    let base = usize::from(handle.slot()) * words;
    let log = table.log.borrow();
    // Reserved, so that the engine does not use the slot for something else meanwhile.
    assert_eq!(log[0], (base, 1 << 31));
    let log = &log[1..];
    // Quirk B7: every word once, the state last, the mark in its word at once.
    assert_eq!(log.len(), words);
    assert_eq!(log.last().unwrap().0, base);
    assert_eq!(State::of(log.last().unwrap().1), State::Bind);
    let ib2 = log.iter().find(|(w, _)| *w == base + 4).unwrap().1;
    assert_ne!(ib2 & soc.hal.counted(), 0);
    // And the cache is cleared after that.
    let trace = regs.trace.borrow();
    assert_eq!(trace[trace.len() - 2..], [(0x320, 0x201), (0x320, 0x001)]);
}

#[test]
fn an_entry_that_the_engine_made_is_used() {
    let soc = &soc::MT7988;
    let (mut ppe, _, table) = engine(soc);
    let image = encode(soc, &BOARD, &desc(7)).unwrap();
    let words = soc.hal.entry_size() / 4;
    let at = usize::from(image.bucket + 2) * words;
    for n in 1..4 {
        table.store(at + n, image.foe.words()[n]);
    }
    table.store(at, State::Unbind.bits() | 0x1234);
    assert_eq!(ppe.add(&image).unwrap().slot(), image.bucket + 2);
}

#[test]
fn one_key_in_two_places() {
    for soc in soc::ALL {
        let (mut ppe, _, table) = engine(soc);
        let here = desc(3);
        let mut there = here;
        assert!(there.ingress.layers.push_inner(vlan(20)));
        let (a, b) = (
            encode(soc, &BOARD, &here).unwrap(),
            encode(soc, &BOARD, &there).unwrap(),
        );
        assert_eq!((a.foe, a.bucket), (b.foe, b.bucket));
        assert_ne!(a.domain, b.domain);
        let handle = ppe.add(&a).unwrap();
        assert_eq!(ppe.add(&a), Err(AddError::Exists));
        assert!(ppe.stats(&handle).is_ok());
        // Quirk B9: neither is in the table afterwards.
        assert_eq!(ppe.add(&b), Err(AddError::Alias));
        assert_eq!(ppe.stats(&handle), Err(Gone::Withdrawn));
        assert_eq!(
            State::of(slot::read_ib1(&table, soc, a.bucket)),
            State::Invalid
        );
        assert_eq!(ppe.capacity().0, 0);
    }
}

#[test]
fn a_slot_with_another_owner_is_left_alone() {
    let soc = &soc::MT7622;
    let (mut ppe, regs, table) = engine(soc);
    let images = colliding(soc, 2);
    let old = ppe.add(&images[0]).unwrap();
    engine_sets(&table, soc, old.slot(), State::Fin);
    assert_eq!(ppe.stats(&old), Err(Gone::Fin));
    engine_sets(&table, soc, old.slot(), State::Invalid);
    regs.counters
        .borrow_mut()
        .insert(old.slot().into(), [999, 9 << 16, 0, 0]);
    let new = ppe.add(&images[1]).unwrap();
    assert_eq!(new.slot(), old.slot());
    // What the first left is not the second's.
    assert_eq!(ppe.stats(&new).unwrap().delta, Default::default());
    assert_eq!(ppe.stats(&old), Err(Gone::Withdrawn));
    ppe.del(old);
    assert!(ppe.stats(&new).is_ok());
    assert_eq!(ppe.capacity().0, 1);

    // Counted since: once, and the rest when it ends.
    regs.counters
        .borrow_mut()
        .insert(new.slot().into(), [100, 1 << 16, 0, 0]);
    assert_eq!(ppe.stats(&new).unwrap().delta.bytes, 100);
    assert_eq!(ppe.stats(&new).unwrap().delta.bytes, 0);
    regs.counters
        .borrow_mut()
        .insert(new.slot().into(), [50, 1 << 16, 0, 0]);
    assert_eq!(ppe.del(new).bytes, 50);
}

#[test]
fn handles_as_numbers() {
    let soc = &soc::MT7988;
    let (mut ppe, _, _) = engine(soc);
    for n in 0..1000 {
        let Ok(handle) = ppe.add(&encode(soc, &BOARD, &desc(n)).unwrap()) else {
            continue;
        };
        let (slot, binding) = (handle.slot(), handle.binding());
        let raw = handle.into_raw(2);
        let (which, handle) = Handle::from_raw(raw);
        assert_eq!((which, handle.slot(), handle.binding()), (2, slot, binding));
        assert!(ppe.stats(&handle).is_ok());
        // Another flow's check.
        let (_, forged) = Handle::from_raw(raw ^ (1 << 20));
        assert!(ppe.stats(&forged).is_err());
        if n % 2 == 0 {
            ppe.del(handle);
        }
    }
}

#[test]
fn idle_time() {
    let soc = &soc::MT7986;
    let (mut ppe, regs, _) = engine(soc);
    regs.clock.set(0x1_00fa);
    let handle = ppe.add(&encode(soc, &BOARD, &desc(1)).unwrap()).unwrap();
    regs.clock.set(0x1_0104);
    assert_eq!(ppe.stats(&handle).unwrap().idle, 10);
}

#[test]
fn an_engine_that_does_not_answer() {
    let soc = &soc::MT7986;
    let (mut ppe, regs, table) = engine(soc);
    let image = encode(soc, &BOARD, &desc(1)).unwrap();
    regs.busy.set(true);
    assert_eq!(ppe.add(&image), Err(AddError::Busy));
    assert_eq!(slot::read_ib1(&table, soc, image.bucket), 0);
    assert_eq!(ppe.capacity().0, 0);
    regs.busy.set(false);
    let handle = ppe.add(&image).unwrap();
    regs.busy.set(true);
    assert_eq!(ppe.stats(&handle).unwrap().delta, Default::default());
    assert!(ppe.stop().is_err());
    assert!((0..ENTRIES).all(|n| slot::read_ib1(&table, soc, n as u16) == 0));
    assert_eq!(ppe.add(&image), Err(AddError::Stopped));
    assert_eq!(ppe.stats(&handle), Err(Gone::Withdrawn));
}

#[derive(Clone, Debug)]
enum Op {
    Add(u32),
    Del(usize),
    /// The engine lets go of a flow.
    Age(usize, bool),
    /// A packet of a flow that nobody has added.
    Announce(u32),
    Scan,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..400_u32).prop_map(Op::Add),
        4 => any::<usize>().prop_map(Op::Del),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(n, fin)| Op::Age(n, fin)),
        2 => (0..400_u32).prop_map(Op::Announce),
        1 => Just(Op::Scan),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    /// However flows come and go and whatever the engine does, the bound entries of the table are
    /// exactly the flows that are believed to be bound, and nothing is forgotten or left behind.
    #[test]
    fn table_and_owners_agree(which in 0..soc::ALL.len(), ops in prop::collection::vec(op(), 1..400)) {
        let soc = soc::ALL[which];
        let (mut ppe, _, table) = engine(soc);
        // A small world, so that much collides: 400 flows in 16 buckets.
        let image = |n: u32| {
            let mut image = encode(soc, &BOARD, &desc(n)).unwrap();
            image.bucket = (image.bucket / u16::from(soc.ways) % 16) * u16::from(soc.ways);
            image
        };
        let mut live: Vec<(u32, Handle)> = Vec::new();
        let mut lost: Vec<Handle> = Vec::new();

        for op in ops {
            match op {
                Op::Add(n) => match ppe.add(&image(n)) {
                    Ok(handle) => {
                        prop_assert!(live.iter().all(|(m, h)| *m != n && h.slot() != handle.slot()));
                        live.push((n, handle));
                    }
                    Err(AddError::Exists) => prop_assert!(live.iter().any(|(m, _)| *m == n)),
                    Err(e) => prop_assert_eq!(e, AddError::Collision),
                },
                Op::Del(n) if !live.is_empty() => {
                    let (_, handle) = live.swap_remove(n % live.len());
                    let slot = handle.slot();
                    ppe.del(handle);
                    prop_assert_eq!(State::of(slot::read_ib1(&table, soc, slot)), State::Invalid);
                }
                Op::Age(n, fin) if !live.is_empty() => {
                    let (_, handle) = live.swap_remove(n % live.len());
                    let state = if fin { State::Fin } else { State::Invalid };
                    engine_sets(&table, soc, handle.slot(), state);
                    lost.push(handle);
                }
                Op::Announce(n) => {
                    let image = image(n);
                    let key = image.foe.key(image.of);
                    if let slot::Choice::Free(slot) = slot::choose(&table, soc, image.bucket, &key) {
                        let at = usize::from(slot) * soc.hal.entry_size() / 4;
                        for w in 1..4 {
                            table.store(at + w, image.foe.words()[w]);
                        }
                        table.store(at, State::Unbind.bits());
                    }
                }
                Op::Scan => {
                    let mut gone = Vec::new();
                    let mut from = 0;
                    loop {
                        from = ppe.scan(from, 1000, |slot, binding, _| gone.push((slot, binding)));
                        if from == 0 {
                            break;
                        }
                    }
                    // Only what was taken is reported.
                    for (slot, binding) in gone {
                        let known = lost.iter().position(|h| h.slot() == slot && h.binding() == binding);
                        prop_assert!(known.is_some());
                        lost.swap_remove(known.unwrap());
                    }
                }
                _ => {}
            }
            for (_, handle) in &live {
                prop_assert!(ppe.stats(handle).is_ok());
            }
            let bound = (0..256_u16)
                .filter(|&s| State::of(slot::read_ib1(&table, soc, s)) == State::Bind)
                .count();
            prop_assert_eq!(bound, live.len());
        }
        for handle in lost {
            prop_assert!(ppe.stats(&handle).is_err());
            ppe.del(handle);
        }
        for (_, handle) in live {
            ppe.del(handle);
        }
        prop_assert_eq!(ppe.capacity().0, 0);
        prop_assert!((0..ENTRIES).all(|s| State::of(slot::read_ib1(&table, soc, s as u16)) != State::Bind));
    }
}
