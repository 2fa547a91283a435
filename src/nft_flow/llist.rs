// SPDX-License-Identifier: GPL-2.0

//! A list that anybody adds to without a lock, and that one takes as a whole: the kernel's `llist`.
//!
//! The nodes are part of what is listed, so that adding needs no memory and cannot fail.

use crate::sync::{
    AtomicPtr,
    Ordering, //
};
use core::ptr::{
    self,
    NonNull, //
};

/// What an object embeds to be on an [`Llist`].
#[derive(Debug)]
pub struct Node {
    next: AtomicPtr<Node>,
}

impl Node {
    /// A node that is on no list.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Node {
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// A node that is on no list.
    #[cfg(loom)]
    pub fn new() -> Self {
        Node {
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

/// A list; the latest node comes first.
///
/// # Invariants
///
/// The nodes that can be reached from `first` are valid and on no other list.
#[derive(Debug)]
pub struct Llist {
    first: AtomicPtr<Node>,
}

impl Llist {
    /// An empty list.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        // INVARIANT: No node can be reached.
        Llist {
            first: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// An empty list.
    #[cfg(loom)]
    pub fn new() -> Self {
        Llist {
            first: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Adds a node (`llist_add()`). Returns true if the list was empty: who adds the first node is
    /// the one to call whoever takes them.
    ///
    /// # Safety
    ///
    /// The node is on no list, and stays valid until [`Llist::del_all`] has given it back.
    pub unsafe fn add(&self, node: NonNull<Node>) -> bool {
        let mut first = self.first.load(Ordering::Relaxed);

        loop {
            // SAFETY: Valid by the contract of this function.
            unsafe { node.as_ref() }
                .next
                .store(first, Ordering::Relaxed);
            // INVARIANT: By the contract of this function, and what follows was reached before.
            match self.first.compare_exchange_weak(
                first,
                node.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return first.is_null(),
                Err(now) => first = now,
            }
        }
    }

    /// Takes all nodes off (`llist_del_all()`), and sees what was written before they were added.
    pub fn del_all(&self) -> Nodes {
        // INVARIANT: They are on no list any more.
        Nodes(self.first.swap(ptr::null_mut(), Ordering::Acquire))
    }
}

impl Default for Llist {
    fn default() -> Self {
        Self::new()
    }
}

/// Nodes that were taken off a list. Each may be freed, or added again, as soon as it was given
/// back.
///
/// # Invariants
///
/// The nodes that can be reached are valid, and on no list.
#[derive(Debug)]
pub struct Nodes(*mut Node);

impl Iterator for Nodes {
    type Item = NonNull<Node>;

    fn next(&mut self) -> Option<NonNull<Node>> {
        let node = NonNull::new(self.0)?;

        // SAFETY: Valid by the type invariant.
        self.0 = unsafe { node.as_ref() }.next.load(Ordering::Relaxed);
        Some(node)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn latest_first() {
        let list = Llist::default();
        let nodes = [const { Node::new() }; 3];

        assert!(list.del_all().next().is_none());
        for (i, node) in nodes.iter().enumerate() {
            // SAFETY: On no list, and valid until the end of this function.
            assert_eq!(unsafe { list.add(node.into()) }, i == 0);
        }
        let mut taken = list.del_all();
        for node in nodes.iter().rev() {
            assert_eq!(taken.next(), Some(node.into()));
            // SAFETY: As above.
            unsafe { list.add(node.into()) };
        }
        assert_eq!(taken.next(), None);
        assert_eq!(list.del_all().count(), 3);
    }
}
