// SPDX-License-Identifier: GPL-2.0

//! A timing wheel: which flows are to be looked at now.
//!
//! The wheel has one list per tick for the next 64 ticks. A later deadline waits in the last list
//! and is sorted in again when that comes up. Adding, removing and finding the next due node take
//! constant time and no memory: the links are part of the flows.
//!
//! The caller's lock protects a wheel and all links in it. Ticks are seconds or the like, counted
//! in 32 bits that wrap around; deadlines lie less than 2^31 ticks away.

use core::{
    cell::UnsafeCell,
    marker::PhantomPinned,
    ptr::{
        self,
        NonNull, //
    },
};

/// The number of lists.
const SLOTS: u32 = 64;

/// The slot of a link that is in no wheel.
const UNLINKED: u32 = u32::MAX;

/// What a flow embeds to be in a [`Wheel`].
///
/// # Invariants
///
/// - The content is accessed only by the wheel that the link is in, or is being added to.
/// - While `slot` is below [`SLOTS`], the link is in that list of a wheel, between `prev` and
///   `next`, which are null at the ends.
#[derive(Debug)]
pub struct Link {
    node: UnsafeCell<Node>,
    _pin: PhantomPinned,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    prev: *const Link,
    next: *const Link,
    due: u32,
    slot: u32,
}

// SAFETY: By the type invariant the content is accessed under the lock of the wheel only.
unsafe impl Send for Link {}
// SAFETY: As for `Send`.
unsafe impl Sync for Link {}

impl Link {
    /// A link that is in no wheel.
    pub const fn new() -> Self {
        // INVARIANT: `slot` is not below `SLOTS`.
        Link {
            node: UnsafeCell::new(Node {
                prev: ptr::null(),
                next: ptr::null(),
                due: 0,
                slot: UNLINKED,
            }),
            _pin: PhantomPinned,
        }
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

/// What [`Wheel::advance`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// The deadline of this node has passed. It is out of the wheel.
    Link(NonNull<Link>),
    /// The budget is used up; there may be more.
    Busy,
    /// Nothing more is due.
    Idle,
}

/// A timing wheel. May be moved: links do not point to it.
///
/// # Invariants
///
/// - The links that can be reached from `slots` are valid and are in no other wheel.
/// - A link in list `i` has `slot == i`, and bit `i` of `occupied` is set if and only if the list
///   is not empty.
/// - The list `i` belongs to the only tick `t` with `t % 64 == i` from `tick` to `tick + 63`.
#[derive(Debug)]
pub struct Wheel {
    slots: [*const Link; SLOTS as usize],
    occupied: u64,
    /// All earlier ticks are done with.
    tick: u32,
    len: usize,
}

// SAFETY: The pointers are to links that are `Sync` and protected by the same lock as the wheel.
unsafe impl Send for Wheel {}

impl Wheel {
    /// An empty wheel that starts at tick `now`.
    pub const fn new(now: u32) -> Self {
        Wheel {
            slots: [ptr::null(); SLOTS as usize],
            occupied: 0,
            tick: now,
            len: 0,
        }
    }

    /// The number of links in the wheel.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no link is in the wheel.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a link, to come out of [`Wheel::advance`] at tick `due` or, if that has passed, soon.
    /// Returns `false` and does nothing if the link is in a wheel already.
    ///
    /// # Safety
    ///
    /// `link` stays valid and does not move until it has come out. If it is in a wheel, that is
    /// this one or one under the same lock.
    pub unsafe fn add(&mut self, link: NonNull<Link>, due: u32) -> bool {
        // SAFETY: Valid by the safety contract.
        let node = unsafe { self.node(link.as_ptr()) };
        if node.slot < SLOTS {
            return false;
        }
        self.push(link.as_ptr(), due);
        self.len = self.len.wrapping_add(1);
        true
    }

    /// Removes a link. Returns `false` and does nothing if it is in no wheel.
    ///
    /// # Safety
    ///
    /// `link` is valid. If it is in a wheel, that is this one.
    pub unsafe fn remove(&mut self, link: NonNull<Link>) -> bool {
        // SAFETY: Valid by the safety contract.
        let node = unsafe { self.node(link.as_ptr()) };
        if node.slot >= SLOTS {
            return false;
        }
        self.unlink(link.as_ptr());
        self.len = self.len.wrapping_sub(1);
        true
    }

    /// Takes the next link out whose deadline is `now` or earlier.
    ///
    /// Counts `budget` down by one for each link looked at, and stops when it is zero. Call again
    /// until it says [`Due::Idle`]; a link that is added again in between with a deadline not after
    /// `now` comes out again.
    pub fn advance(&mut self, now: u32, budget: &mut u32) -> Due {
        // The time from the first unfinished tick to now; negative if the clock went back.
        while now.wrapping_sub(self.tick) as i32 >= 0 {
            let ahead = now.wrapping_sub(self.tick);
            let skip = self
                .occupied
                .rotate_right(self.tick % SLOTS)
                .trailing_zeros();
            if self.occupied == 0 || skip > ahead {
                // INVARIANT: All lists before `now` are empty, so they may stand for later ticks.
                self.tick = now;
                return Due::Idle;
            }
            // INVARIANT: The same for the lists that are skipped.
            self.tick = self.tick.wrapping_add(skip);

            let Some(left) = budget.checked_sub(1) else {
                return Due::Busy;
            };
            *budget = left;

            let link = self.first(self.tick % SLOTS);
            let Some(found) = NonNull::new(link.cast_mut()) else {
                // Cannot be: the bit is set.
                return Due::Idle;
            };
            // SAFETY: In the wheel, hence valid.
            let due = unsafe { self.node(link) }.due;
            self.unlink(link);
            if now.wrapping_sub(due) as i32 >= 0 {
                self.len = self.len.wrapping_sub(1);
                return Due::Link(found);
            }
            self.push(link, due);
        }
        Due::Idle
    }

    /// The content of a link.
    ///
    /// # Safety
    ///
    /// `link` is valid, and in this wheel or in none.
    #[allow(clippy::mut_from_ref)]
    unsafe fn node(&mut self, link: *const Link) -> &mut Node {
        // SAFETY: Valid by the safety contract; `&mut self` is the access that the invariant of
        // `Link` demands, and the result borrows it.
        unsafe { &mut *UnsafeCell::raw_get(&raw const (*link).node) }
    }

    fn first(&self, slot: u32) -> *const Link {
        self.slots
            .get(slot as usize)
            .copied()
            .unwrap_or(ptr::null())
    }

    fn set_first(&mut self, slot: u32, link: *const Link) {
        if let Some(first) = self.slots.get_mut(slot as usize) {
            *first = link;
        }
        let bit = 1_u64.wrapping_shl(slot);
        match link.is_null() {
            true => self.occupied &= !bit,
            false => self.occupied |= bit,
        }
    }

    /// Puts a valid link that is in no wheel into the list for tick `due`, or the nearest there is.
    fn push(&mut self, link: *const Link, due: u32) {
        let ahead = due.wrapping_sub(self.tick);
        let ahead = match ahead as i32 {
            ..0 => 0,
            _ => ahead.min(SLOTS - 1),
        };
        let slot = self.tick.wrapping_add(ahead) % SLOTS;
        let next = self.first(slot);

        // INVARIANT: At the front of the list, between nothing and what was the first.
        // SAFETY: Valid by the callers' contracts, and in no wheel.
        *unsafe { self.node(link) } = Node {
            prev: ptr::null(),
            next,
            due,
            slot,
        };
        if !next.is_null() {
            // SAFETY: In the wheel, hence valid.
            unsafe { self.node(next) }.prev = link;
        }
        self.set_first(slot, link);
    }

    /// Takes a link of this wheel out of its list.
    fn unlink(&mut self, link: *const Link) {
        // SAFETY: In the wheel, hence valid.
        let node = unsafe { self.node(link) };
        let Node {
            prev, next, slot, ..
        } = *node;
        // INVARIANT: In no list any more.
        node.slot = UNLINKED;
        node.prev = ptr::null();
        node.next = ptr::null();

        if !next.is_null() {
            // SAFETY: In the wheel, hence valid.
            unsafe { self.node(next) }.prev = prev;
        }
        if prev.is_null() {
            self.set_first(slot, next);
        } else {
            // SAFETY: In the wheel, hence valid.
            unsafe { self.node(prev) }.next = next;
        }
    }
}
