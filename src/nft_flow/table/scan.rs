// SPDX-License-Identifier: GPL-2.0

//! Walks of readers over a table, without a lock.

use super::{
    bucket::{
        View,
        SLOTS, //
    },
    Item,
    Table, //
};
use crate::sync::Ordering;
use core::ops::ControlFlow;

impl<T: Item> Table<T> {
    /// Shows a reader the items of up to `buckets` buckets from `place` on, which moves along. Ends
    /// early when `see` breaks; the place is at that item then. Otherwise says whether there are
    /// more.
    ///
    /// Items that are in the table during the whole walk are seen once, if the table is not resized
    /// in between. If it is, [`Place::has_moved`] says so, and items may be seen twice, or not.
    ///
    /// # Safety
    ///
    /// As for [`Table::lookup`].
    pub unsafe fn scan<'g, R>(
        &'g self,
        place: &mut Place,
        buckets: usize,
        mut see: impl FnMut(&'g T) -> ControlFlow<R>,
    ) -> ControlFlow<R, bool> {
        let packed = self.current.load(Ordering::Acquire);
        // SAFETY: By the type invariant and the read section the array is valid during `'g`.
        let Some(view) = (unsafe { View::unpack(packed) }) else {
            return ControlFlow::Continue(false);
        };
        let array = packed.addr();

        place.moved |= place.array != 0 && place.array != array;
        place.array = array;
        let end = view.len().min(place.bucket.saturating_add(buckets));

        while place.bucket < end {
            let bucket = view.bucket(place.bucket);

            while let Some(slot) = (place.slot < SLOTS).then_some(place.slot) {
                if let Some(item) = bucket.item(slot) {
                    // SAFETY: As in `lookup`.
                    if let ControlFlow::Break(r) = see(unsafe { item.as_ref() }) {
                        return ControlFlow::Break(r);
                    }
                }
                place.slot = slot.wrapping_add(1);
            }
            place.slot = 0;
            place.bucket = place.bucket.wrapping_add(1);
        }
        ControlFlow::Continue(end < view.len())
    }
}

/// Where a reader is in a walk over the table ([`Table::scan`]). Starts at the beginning.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    bucket: usize,
    slot: usize,
    array: usize,
    moved: bool,
}

impl Place {
    /// Whether the table has been resized since the walk began.
    pub fn has_moved(&self) -> bool {
        self.moved
    }

    /// The beginning of another table, in the same walk.
    pub fn restart(self) -> Self {
        Place {
            moved: self.moved,
            ..Place::default()
        }
    }

    /// The place as plain words, for who keeps nothing else; see [`Place::from_words`].
    pub fn to_words(self) -> [usize; 2] {
        [
            self.bucket.wrapping_mul(SLOTS).wrapping_add(self.slot),
            self.array,
        ]
    }

    /// The place that [`Place::to_words`] was of. Whether the table had moved until then is
    /// forgotten.
    pub fn from_words([at, array]: [usize; 2]) -> Self {
        Place {
            bucket: at / SLOTS,
            slot: at % SLOTS,
            array,
            moved: false,
        }
    }
}
