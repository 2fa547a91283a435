// SPDX-License-Identifier: GPL-2.0

//! The table against a `HashMap`, and under threads.

#![cfg(not(loom))]

mod common;

use common::{
    buckets,
    free,
    key,
    seed,
    Flow, //
};
use nft_flow::{
    key::Key,
    table::{
        Buckets,
        Cursor,
        InsertError,
        Migration,
        Place,
        Table,
        Visit,
        Writer, //
    },
};
use proptest::{
    collection::vec,
    prelude::*, //
};
use std::{
    collections::{
        HashMap,
        HashSet, //
    },
    ops::ControlFlow,
    ptr::NonNull,
    sync::atomic::{
        AtomicBool,
        AtomicUsize,
        Ordering, //
    },
};

const KEYS: u32 = 400;

#[derive(Clone, Debug)]
enum Op {
    Insert(u32),
    Remove(u32),
    Lookup(u32),
    Begin(u32),
    Migrate(usize),
    Finish,
    Abort,
    Visit(u32),
    Adapt,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0..KEYS).prop_map(Op::Insert),
        6 => (0..KEYS).prop_map(Op::Remove),
        4 => (0..KEYS).prop_map(Op::Lookup),
        1 => (0_u32..8).prop_map(Op::Begin),
        3 => (0_usize..20).prop_map(Op::Migrate),
        1 => Just(Op::Finish),
        1 => Just(Op::Abort),
        1 => (2_u32..9).prop_map(Op::Visit),
        1 => Just(Op::Adapt),
    ]
}

/// How keys are spread: from perfectly to not at all.
fn hash_of(kind: u8, number: u32) -> u32 {
    match kind {
        0 => key(number).hash(&seed(1)),
        // Few buckets, tags all different.
        1 => (number << 16) | (number % 3),
        // One tag, many buckets.
        2 => (5 << 16) | (number % 16),
        // One bucket and one tag; the last one, so that the probe wraps around.
        _ => u32::MAX,
    }
}

/// A table, its writer and what ought to be in it.
struct Model {
    kind: u8,
    table: Table<Flow>,
    writer: Writer<Flow>,
    all: Vec<Flow>,
    model: HashMap<u32, NonNull<Flow>>,
}

impl Model {
    fn new(kind: u8, n: usize) -> Self {
        let (table, writer) = Table::new(buckets(n));
        let all = (0..KEYS).map(|i| Flow::new(i, hash_of(kind, i))).collect();
        Model {
            kind,
            table,
            writer,
            all,
            model: HashMap::new(),
        }
    }

    fn lookup(&self, number: u32) -> Option<NonNull<Flow>> {
        // SAFETY: Nothing is freed before the end of the test.
        unsafe { self.table.lookup(hash_of(self.kind, number), &key(number)) }.map(NonNull::from)
    }

    fn flow(&self, number: u32) -> NonNull<Flow> {
        NonNull::from(&self.all[number as usize])
    }

    fn insert(&mut self, number: u32) {
        let flow = self.flow(number);
        // SAFETY: Lives until the end of the test, and an item that is in already has a key that
        // is.
        let result = unsafe { self.writer.insert(flow) };
        match result {
            Ok(()) => assert!(self.model.insert(number, flow).is_none()),
            Err(InsertError::Exists(old)) => assert_eq!(self.model.get(&number), Some(&old)),
            Err(InsertError::Full) => {
                assert!(!self.model.contains_key(&number));
                // Sixteen buckets of six are full, or all there are.
                assert!(self.model.len() >= 6 * self.writer.buckets().min(16));
            }
        }
    }

    fn finish(&mut self) {
        // SAFETY: They belong together.
        if let Some(old) = unsafe { self.writer.finish(&self.table) } {
            free(old);
        }
    }

    fn abort(&mut self) {
        if let Some(new) = self.writer.abort_resize() {
            free(new);
        }
    }

    /// What the caller's worker does.
    fn adapt(&mut self) {
        let Some(n) = self.writer.wants_resize() else {
            return;
        };
        assert_ne!(n, self.writer.buckets());
        self.writer.begin_resize(buckets(n)).ok().unwrap();
        loop {
            match self.writer.migrate(3) {
                Migration::More => {}
                Migration::Done => break self.finish(),
                Migration::Failed => {
                    self.abort();
                    assert_ne!(self.writer.wants_resize(), Some(n));
                    break;
                }
                Migration::Idle => unreachable!(),
            }
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Insert(number) => self.insert(number),
            Op::Remove(number) => {
                let present = self.model.remove(&number).is_some();
                let flow = &self.all[number as usize];
                assert_eq!(self.writer.remove(flow), present);
            }
            Op::Lookup(number) => {
                assert_eq!(self.lookup(number), self.model.get(&number).copied())
            }
            Op::Begin(log2) => {
                if let Err(unused) = self.writer.begin_resize(buckets(1 << log2)) {
                    assert!(self.writer.is_resizing());
                    free(unused);
                }
                assert_eq!(self.writer.wants_resize(), None);
            }
            Op::Migrate(n) => {
                let resizing = self.writer.is_resizing();
                assert_eq!(self.writer.migrate(n) == Migration::Idle, !resizing);
            }
            Op::Finish => self.finish(),
            Op::Abort => self.abort(),
            Op::Visit(modulus) => {
                // Removes every so manieth entry.
                let mut seen = HashSet::new();
                let mut cursor = Cursor::default();
                loop {
                    let more = self.writer.visit(&mut cursor, 3, |flow| {
                        let number = u32::from_be(flow.key.saddr);
                        assert_eq!(self.model.get(&number), Some(&NonNull::from(flow)));
                        assert!(seen.insert(number));
                        match number % modulus {
                            0 => Visit::Remove,
                            _ => Visit::Keep,
                        }
                    });
                    if !more {
                        break;
                    }
                }
                assert_eq!(seen.len(), self.model.len());
                self.model.retain(|number, _| number % modulus != 0);
            }
            Op::Adapt => self.adapt(),
        }
        assert_eq!(self.writer.len(), self.model.len());
        assert_eq!(self.writer.is_empty(), self.model.is_empty());
    }

    fn check_all(&self) {
        for number in 0..KEYS {
            assert_eq!(self.lookup(number), self.model.get(&number).copied());
        }
        self.check_scan();
    }

    /// A reader's walk, in pieces that end where they like, finds each item once.
    fn check_scan(&self) {
        let mut seen = HashSet::new();
        let mut place = Place::default();
        let mut room = 3;

        loop {
            // SAFETY: Nothing is freed before the end of the test.
            let end = unsafe {
                self.table.scan(&mut place, 2, |flow| {
                    if room == 0 {
                        return ControlFlow::Break(());
                    }
                    room -= 1;
                    assert!(seen.insert(NonNull::from(flow)));
                    ControlFlow::Continue(())
                })
            };
            assert!(!place.has_moved());
            match end {
                ControlFlow::Break(()) => {
                    room = 3;
                    place = Place::from_words(place.to_words());
                }
                ControlFlow::Continue(true) => {}
                ControlFlow::Continue(false) => break,
            }
        }
        assert_eq!(seen, self.model.values().copied().collect());
    }

    fn close(mut self) {
        // SAFETY: They belong together.
        let (used, unused) = unsafe { self.writer.close(&self.table) };
        assert_eq!((self.writer.len(), self.writer.buckets()), (0, 0));
        for number in 0..KEYS {
            assert_eq!(self.lookup(number), None);
        }
        // SAFETY: Lives until the end of the test.
        let result = unsafe { self.writer.insert(self.flow(0)) };
        assert_eq!(result, Err(InsertError::Full));
        assert!(!self.writer.remove(&self.all[0]));
        assert_eq!(self.writer.wants_resize(), None);
        assert!(!self
            .writer
            .visit(&mut Cursor::default(), 9, |_| Visit::Keep));
        free(self.writer.begin_resize(buckets(4)).unwrap_err());
        used.into_iter().chain(unused).for_each(free);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn agrees_with_a_map(kind in 0_u8..4, log2 in 0_u32..5, ops in vec(op(), 0..600)) {
        let mut model = Model::new(kind, 1 << log2);
        for op in ops {
            model.step(op);
        }
        model.check_all();
        model.close();
    }
}

#[test]
fn a_scan_notices_a_resize() {
    let mut model = Model::new(0, 4);
    (0..20).for_each(|number| model.insert(number));
    let mut place = Place::default();
    let mut scan = |model: &Model| {
        let mut n = 0;
        // SAFETY: Nothing is freed before the end of the test.
        let more = unsafe {
            model.table.scan(&mut place, 2, |_| {
                n += 1;
                ControlFlow::<()>::Continue(())
            })
        };
        (more == ControlFlow::Continue(true), n, place.has_moved())
    };

    let (more, first, moved) = scan(&model);
    assert!(more && !moved && first > 0);
    model.adapt();
    assert_eq!(model.writer.buckets(), 8);
    let (more, _, moved) = scan(&model);
    assert!(more && moved);
    assert!(!Place::from_words(place.to_words()).has_moved());
    // Another table is begun: what is known of this one stays.
    assert!(place.restart().has_moved());
    assert_eq!(place.restart().to_words(), [0, 0]);
    model.close();
}

#[test]
fn layouts() {
    type B = Buckets<Flow>;
    assert_eq!(B::layout(1).unwrap().size(), 64);
    assert_eq!(B::layout(1024).unwrap().size(), 65536);
    assert_eq!(B::layout(1024).unwrap().align(), 64);
    assert!(B::layout(B::MAX).is_some());
    for n in [0, 3, B::MAX + 1, B::MAX * 2, usize::MAX] {
        assert!(B::layout(n).is_none());
    }
}

#[test]
fn grows_and_shrinks_with_its_content() {
    let mut model = Model::new(0, 4);
    let mut largest = 0;
    for number in 0..KEYS {
        model.insert(number);
        model.adapt();
        largest = largest.max(model.writer.buckets());
        assert!(model.writer.len() * 2 <= model.writer.buckets() * 7);
    }
    assert_eq!(model.writer.len(), KEYS as usize);
    assert_eq!(largest, 128);
    model.check_all();
    for number in 0..KEYS {
        model.step(Op::Remove(number));
        model.adapt();
        assert!(model.writer.buckets() <= 4.max(model.writer.len() * 2));
    }
    assert_eq!(model.writer.buckets(), 4);
    // And it does not want to be anything else then.
    assert_eq!(model.writer.wants_resize(), None);
    model.close();
}

#[test]
fn a_failed_resize_asks_for_more() {
    let mut model = Model::new(0, 64);
    (0..200).for_each(|number| model.insert(number));
    model.writer.begin_resize(buckets(4)).ok().unwrap();
    assert_eq!(model.writer.migrate(usize::MAX), Migration::Failed);
    // SAFETY: They belong together.
    assert!(unsafe { model.writer.finish(&model.table) }.is_none());
    // Goes on as if nothing had happened.
    (200..220).for_each(|number| model.insert(number));
    (0..10).for_each(|number| model.step(Op::Remove(number)));
    model.check_all();
    free(model.writer.abort_resize().unwrap());
    model.check_all();
    model.close();
}

#[test]
fn an_insertion_that_fails_asks_for_more() {
    // All in one bucket: 96 find room, and more buckets do not help. The table must not grow
    // without bounds for that.
    let mut model = Model::new(3, 16);
    (0..120).for_each(|number| model.insert(number));
    assert_eq!(model.writer.len(), 96);
    for _ in 0..100 {
        model.adapt();
        model.insert(119);
    }
    assert!(model.writer.buckets() <= 128 * 64);
    model.check_all();
    model.close();
}

/// Readers find what is there all the time, whatever the writer does beside it, and never anything
/// that is not what they asked for.
#[test]
fn readers_and_a_writer() {
    const STAYS: u32 = 64;
    let seed = seed(3);
    let flows: Vec<_> = (0..2000).map(|i| Flow::seeded(key(i), &seed)).collect();
    let (table, mut writer) = Table::new(buckets(16));
    let stop = AtomicBool::new(false);
    let found = AtomicUsize::new(0);
    // Replaced arrays; freed when the readers are gone.
    let mut retired = Vec::new();

    for flow in &flows[..STAYS as usize] {
        // SAFETY: Outlives the table.
        unsafe { writer.insert(NonNull::from(flow)) }.unwrap();
    }
    std::thread::scope(|s| {
        for start in 0..2 {
            let (table, flows, stop, found) = (&table, &flows, &stop, &found);
            s.spawn(move || {
                let mut number = start;
                while !stop.load(Ordering::Relaxed) {
                    number = (number + 7) % flows.len();
                    let wanted = &flows[number];
                    // SAFETY: Nothing is freed before the threads have ended.
                    let got = unsafe { table.lookup(wanted.hash, &wanted.key) };
                    match got {
                        Some(flow) => assert!(std::ptr::eq(flow, wanted)),
                        None => assert!(number >= STAYS as usize),
                    }
                    found.fetch_add(got.is_some().into(), Ordering::Relaxed);
                }
            });
        }

        let mut resizes = 0;
        for round in 0..40 {
            let moving = &flows[STAYS as usize..];
            let moving = &moving[..moving.len() >> (round % 5)];
            let mut drive = |writer: &mut Writer<Flow>| {
                if let Some(n) = writer.wants_resize() {
                    writer.begin_resize(buckets(n)).ok().unwrap();
                }
                match writer.migrate(2) {
                    // SAFETY: They belong together.
                    Migration::Done => retired.extend(unsafe { writer.finish(&table) }),
                    Migration::Failed => retired.extend(writer.abort_resize()),
                    _ => return,
                }
                resizes += 1;
            };
            for flow in moving {
                // SAFETY: Outlives the table.
                let _ = unsafe { writer.insert(NonNull::from(flow)) };
                drive(&mut writer);
            }
            for flow in moving {
                writer.remove(flow);
                drive(&mut writer);
            }
            assert_eq!(writer.len(), STAYS as usize);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(resizes > 40);
    });
    assert!(found.into_inner() > 0);

    // SAFETY: They belong together.
    let (used, unused) = unsafe { writer.close(&table) };
    retired.into_iter().chain(used).chain(unused).for_each(free);
}
