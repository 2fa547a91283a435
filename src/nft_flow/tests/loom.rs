// SPDX-License-Identifier: GPL-2.0

//! The lock-free reader against a writer, under every interleaving and every reordering that the
//! memory model allows.
//!
//!     RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 cargo test --release --test loom
//!
//! A grace period is modelled as RCU is specified: the reader announces its section, the writer
//! waits until it has ended. An item's content is then poisoned, in a cell that loom watches, so
//! that a reader which still got there is a failure; an array is freed.

#![cfg(loom)]

use loom::{
    cell::UnsafeCell,
    sync::{
        atomic::{
            fence,
            AtomicU32,
            AtomicUsize,
            Ordering, //
        },
        Arc, //
    },
    thread, //
};
use nft_flow::{
    deadline,
    key::{
        IngressId,
        IngressProto, //
        Key4,
        L4Proto,
    },
    llist::{
        Llist,
        Node, //
    },
    reason::TeardownReason,
    state::FlowState,
    table::{
        Buckets,
        Item,
        Migration,
        Table,
        Writer, //
    },
};
use std::ptr::NonNull;

/// An item whose key is read through a cell, so that loom sees who reads it when.
struct Flow {
    hash: u32,
    key: Key4,
    content: UnsafeCell<u32>,
}

// SAFETY: The cell is for loom to check.
unsafe impl Send for Flow {}
// SAFETY: As above.
unsafe impl Sync for Flow {}

const POISON: u32 = u32::MAX;

fn key(number: u32) -> Key4 {
    Key4 {
        saddr: number,
        daddr: 0,
        ports: 0,
        ingress: IngressProto::new(L4Proto::Tcp, IngressId::from_ifindex(1).unwrap()),
    }
}

// SAFETY: Neither changes before the grace period has ended.
unsafe impl Item for Flow {
    type Key = Key4;

    fn key(&self) -> &Key4 {
        // SAFETY: A shared access, which loom compares with the writer's.
        let number = self.content.with(|content| unsafe { *content });
        assert_ne!(number, POISON, "an item was used after its grace period");
        assert_eq!(number, self.key.saddr);
        &self.key
    }

    fn hash(&self) -> u32 {
        self.hash
    }
}

/// The flows have one tag and one bucket, the worst case.
const HASH: u32 = 1 << 16;

fn flow(number: u32) -> NonNull<Flow> {
    NonNull::from(Box::leak(Box::new(Flow {
        hash: HASH,
        key: key(number),
        content: UnsafeCell::new(number),
    })))
}

/// What the reader and the writer share.
struct World {
    table: Table<Flow>,
    in_section: AtomicUsize,
}

impl World {
    fn new(n: usize) -> (Arc<Self>, Writer<Flow>) {
        let (table, writer) = Table::new(Buckets::boxed(n).unwrap());
        let in_section = AtomicUsize::new(0);
        (Arc::new(World { table, in_section }), writer)
    }

    /// Looks keys up in one read section. Returns the numbers of what was found.
    fn read<const N: usize>(&self, numbers: [u32; N]) -> [Option<u32>; N] {
        self.in_section.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let found = numbers.map(|number| {
            // SAFETY: Inside a section that `synchronize` waits for.
            let found = unsafe { self.table.lookup(HASH, &key(number)) };
            found.map(|flow| flow.key().saddr)
        });
        self.in_section.store(0, Ordering::Release);
        for (number, found) in numbers.iter().zip(found) {
            assert!(found.is_none() || found == Some(*number));
        }
        found
    }

    /// A grace period.
    fn synchronize(&self) {
        fence(Ordering::SeqCst);
        while self.in_section.load(Ordering::Acquire) != 0 {
            thread::yield_now();
        }
    }

    /// Frees a removed item, after a grace period.
    fn poison(&self, flow: NonNull<Flow>) {
        // SAFETY: Leaked, so valid for ever; loom reports any reader that is still there.
        let content = unsafe { &flow.as_ref().content };
        // SAFETY: As above.
        content.with_mut(|content| unsafe { *content = POISON });
    }

    fn end(&self, writer: &mut Writer<Flow>) {
        // SAFETY: They belong together.
        let (used, unused) = unsafe { writer.close(&self.table) };
        for buckets in used.into_iter().chain(unused) {
            // SAFETY: Boxed, and the reader was joined.
            unsafe { buckets.free_boxed() };
        }
    }
}

fn insert(writer: &mut Writer<Flow>, number: u32) -> NonNull<Flow> {
    let flow = flow(number);
    // SAFETY: Leaked.
    unsafe { writer.insert(flow) }.unwrap();
    flow
}

fn remove(writer: &mut Writer<Flow>, flow: NonNull<Flow>) {
    // SAFETY: Leaked.
    assert!(writer.remove(unsafe { flow.as_ref() }));
}

/// What is there all the time is found while something else comes and goes beside it, and what was
/// published is found.
#[test]
fn insert_beside() {
    loom::model(|| {
        let (world, mut writer) = World::new(1);
        insert(&mut writer, 1);

        let reader = thread::spawn({
            let world = world.clone();
            move || {
                let [stays, first] = world.read([1, 2]);
                assert_eq!(stays, Some(1));
                let [second] = world.read([2]);
                assert!(first.is_none() || second.is_some());
            }
        });
        insert(&mut writer, 2);
        reader.join().unwrap();
        assert_eq!(world.read([1, 2]), [Some(1), Some(2)]);
        world.end(&mut writer);
    });
}

/// A removed item is not used after its grace period.
#[test]
fn remove_and_reclaim() {
    loom::model(|| {
        let (world, mut writer) = World::new(1);
        insert(&mut writer, 1);
        let goes = insert(&mut writer, 2);

        let reader = thread::spawn({
            let world = world.clone();
            move || assert_eq!(world.read([2, 1])[1], Some(1))
        });
        remove(&mut writer, goes);
        world.synchronize();
        world.poison(goes);
        reader.join().unwrap();
        assert_eq!(world.read([1, 2]), [Some(1), None]);
        world.end(&mut writer);
    });
}

/// A slot is used again, with the same tag, under the eyes of a reader.
#[test]
fn slot_reuse() {
    loom::model(|| {
        let (world, mut writer) = World::new(1);
        let goes = insert(&mut writer, 1);

        let reader = thread::spawn({
            let world = world.clone();
            move || world.read([1, 2])
        });
        remove(&mut writer, goes);
        insert(&mut writer, 2);
        world.synchronize();
        world.poison(goes);
        reader.join().unwrap();
        assert_eq!(world.read([1, 2]), [None, Some(2)]);
        world.end(&mut writer);
    });
}

/// An entry that lies in the second bucket is found while the overflow count changes.
#[test]
fn overflow() {
    loom::model(|| {
        let (world, mut writer) = World::new(2);
        let first: Vec<_> = (0..6).map(|number| insert(&mut writer, number)).collect();
        insert(&mut writer, 10);

        let reader = thread::spawn({
            let world = world.clone();
            // Asks for the one in the second bucket only, to bound the model.
            move || assert_eq!(world.read([10]), [Some(10)])
        });
        // Makes room in the first bucket, fills it up, goes past it and comes back.
        remove(&mut writer, first[5]);
        insert(&mut writer, 11);
        let goes = insert(&mut writer, 12);
        remove(&mut writer, goes);
        world.synchronize();
        world.poison(first[5]);
        world.poison(goes);
        reader.join().unwrap();
        world.end(&mut writer);
    });
}

/// Entries stay visible through a resize, with changes in the middle of it, and the old array can
/// be freed after a grace period.
fn resize(from: usize, to: usize) {
    loom::model(move || {
        let (world, mut writer) = World::new(from);
        insert(&mut writer, 1);
        let goes = insert(&mut writer, 2);

        let reader = thread::spawn({
            let world = world.clone();
            move || assert_eq!(world.read([1, 2])[0], Some(1))
        });
        let new = Buckets::boxed(to).unwrap();
        writer.begin_resize(new).ok().unwrap();
        // Half before and half after the changes.
        writer.migrate(1);
        insert(&mut writer, 3);
        remove(&mut writer, goes);
        assert_eq!(writer.migrate(from), Migration::Done);
        // SAFETY: They belong together.
        let old = unsafe { writer.finish(&world.table) }.unwrap();
        world.synchronize();
        world.poison(goes);
        // SAFETY: Boxed, and a grace period has passed.
        unsafe { old.free_boxed() };
        reader.join().unwrap();
        assert_eq!(world.read([1, 2, 3]), [Some(1), None, Some(3)]);
        world.end(&mut writer);
    });
}

#[test]
fn grow() {
    resize(1, 2);
}

#[test]
fn shrink() {
    resize(2, 1);
}

/// Closing the table is like removing everything from it.
#[test]
fn close() {
    loom::model(|| {
        let (world, mut writer) = World::new(1);
        let goes = insert(&mut writer, 1);

        let reader = thread::spawn({
            let world = world.clone();
            move || world.read([1])
        });
        // SAFETY: They belong together.
        let (old, _) = unsafe { writer.close(&world.table) };
        world.synchronize();
        world.poison(goes);
        // SAFETY: Boxed, and a grace period has passed.
        unsafe { old.unwrap().free_boxed() };
        reader.join().unwrap();
        assert_eq!(world.read([1]), [None]);
    });
}

/// One killer, and its reason.
#[test]
fn kill_once() {
    loom::model(|| {
        let state = Arc::new(FlowState::new());
        let other = thread::spawn({
            let state = state.clone();
            move || state.set_dead(TeardownReason::Rst)
        });
        let mine = state.set_dead(TeardownReason::Idle);
        let theirs = other.join().unwrap();
        assert!(mine ^ theirs);
        let reason = if mine {
            TeardownReason::Idle
        } else {
            TeardownReason::Rst
        };
        assert_eq!(state.reason(), Some(reason));
        assert!(!state.is_live());
    });
}

/// A flow is killed while the worker makes its entry's timeout longer: whatever was there before,
/// the killer's timeout stays.
#[test]
fn short_deadline() {
    const LONG: u32 = 1000;

    for before in [10, 20] {
        loom::model(move || {
            let shared = Arc::new((FlowState::new(), AtomicU32::new(before)));
            let worker = thread::spawn({
                let shared = shared.clone();
                move || {
                    let (state, timeout) = &*shared;
                    let old = timeout.load(Ordering::Relaxed);

                    if state.is_live() {
                        deadline::extend(timeout, old, LONG, || state.is_live());
                    }
                }
            });

            let (state, timeout) = &*shared;
            assert!(state.set_dead(TeardownReason::Idle));
            deadline::settle();
            // As `nf_ct_refresh()` does. The last store stays, which the model only knows of
            // exchanges.
            if timeout.load(Ordering::Relaxed) != 20 {
                timeout.swap(20, Ordering::Relaxed);
            }
            worker.join().unwrap();
            assert_eq!(timeout.load(Ordering::Relaxed), 20);
        });
    }
}

/// Two add to a list while a third takes what is there: each node is taken once, with what was
/// written before it was added, and for each batch one of those that added was told that it was the
/// first.
#[test]
fn llist() {
    #[repr(C)]
    struct Listed {
        node: Node,
        content: UnsafeCell<u32>,
    }

    // SAFETY: The cell is for loom to check.
    unsafe impl Send for Listed {}
    // SAFETY: As above.
    unsafe impl Sync for Listed {}

    loom::model(|| {
        let shared = Arc::new((
            Llist::new(),
            [0, 0].map(|content| Listed {
                node: Node::new(),
                content: UnsafeCell::new(content),
            }),
        ));
        let adders = [0, 1].map(|i| {
            let shared = shared.clone();
            thread::spawn(move || {
                let (list, all) = &*shared;
                // SAFETY: Nobody else has the item before it is on the list.
                all[i].content.with_mut(|content| unsafe { *content = 1 });
                // SAFETY: The item is on no list, and lives until all threads have ended.
                unsafe { list.add(NonNull::from(&all[i].node)) }
            })
        });
        let (list, all) = &*shared;
        let mut batches = 0;
        let mut take = || {
            let mut n = 0;
            for node in list.del_all() {
                let listed = all
                    .iter()
                    .find(|listed| NonNull::from(&listed.node) == node)
                    .unwrap();
                // SAFETY: It is ours now.
                listed.content.with_mut(|content| unsafe {
                    assert_eq!(*content, 1);
                    *content = 2;
                });
                n += 1;
            }
            batches += usize::from(n != 0);
            n
        };

        let early = take();
        let firsts: usize = adders
            .into_iter()
            .map(|adder| usize::from(adder.join().unwrap()))
            .sum();
        assert_eq!(early + take(), 2);
        assert_eq!(firsts, batches);
    });
}
