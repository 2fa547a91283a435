// SPDX-License-Identifier: GPL-2.0

//! The guest's memory, as far as QEMU has given it to the device.

use ppe_model::Memory;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::{
    self,
    NonNull, //
};
use std::sync::atomic::{
    AtomicU32,
    Ordering, //
};

/// A range of guest memory.
///
/// # Invariants
///
/// `at` is the start of a shared mapping of `size` bytes, which is ours until this is dropped.
struct Map {
    address: u64,
    size: u64,
    at: NonNull<libc::c_void>,
}

// SAFETY: A mapping belongs to the process, not to a thread.
unsafe impl Send for Map {}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: By the invariants of `Map`.
        unsafe { libc::munmap(self.at.as_ptr(), self.size as usize) };
    }
}

/// All ranges.
#[derive(Default)]
pub(crate) struct Maps(Vec<Map>);

impl Maps {
    /// Adds a range: `size` bytes of a file from `offset` on.
    pub(crate) fn add(
        &mut self,
        address: u64,
        size: u64,
        offset: u64,
        file: &File,
        writable: bool,
    ) -> io::Result<()> {
        let mut prot = libc::PROT_READ;
        if writable {
            prot |= libc::PROT_WRITE;
        } else {
            // Ours is written, and nothing that is read only can be a table.
            return Ok(());
        }
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: A new mapping, at a place that the kernel chooses.
        let at = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size as usize,
                prot,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                offset,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = NonNull::new(at).ok_or_else(|| io::Error::other("mapped at zero"))?;
        // INVARIANT: Just mapped.
        self.0.push(Map { address, size, at });
        Ok(())
    }

    /// Takes the ranges within `size` bytes from `address` on away.
    pub(crate) fn remove(&mut self, address: u64, size: u64) {
        self.0
            .retain(|m| m.address < address || m.address + m.size > address + size);
    }

    /// A table of `size` bytes at `address`, if all of it is there.
    pub(crate) fn table(&self, address: u64, size: usize) -> Option<Table<'_>> {
        let map = self.0.iter().find(|m| {
            address >= m.address && address + size as u64 <= m.address.saturating_add(m.size)
        })?;
        if address % 4 != 0 {
            return None;
        }
        // SAFETY: Within the mapping, as was just checked. It is written by others at the same
        // time: hence atomics. It lives as long as `self` is borrowed, by the invariants of `Map`.
        let words = unsafe {
            let first = map
                .at
                .as_ptr()
                .cast::<AtomicU32>()
                .byte_add((address - map.address) as usize);
            std::slice::from_raw_parts(first, size / 4)
        };
        Some(Table(words))
    }
}

/// A table in the guest's memory.
pub(crate) struct Table<'a>(&'a [AtomicU32]);

impl Memory for Table<'_> {
    fn load(&self, word: usize) -> u32 {
        u32::from_le(self.0[word].load(Ordering::SeqCst))
    }

    fn store(&mut self, word: usize, value: u32) {
        self.0[word].store(value.to_le(), Ordering::SeqCst);
    }

    fn replace(&mut self, word: usize, was: u32, value: u32) -> bool {
        self.0[word]
            .compare_exchange(
                was.to_le(),
                value.to_le(),
                Ordering::SeqCst,
                Ordering::SeqCst,
            )
            .is_ok()
    }
}

/// What an engine has read of its table, until it is told to forget it. It knows what it has written
/// itself; what the driver has written meanwhile it does not see, and does not overwrite.
#[derive(Default)]
pub(crate) struct Cache(HashMap<usize, u32>);

impl Cache {
    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The table by way of the cache. What was not in it stays there only with `keep`.
    pub(crate) fn of<'a>(&'a mut self, table: Table<'a>, keep: bool) -> Cached<'a> {
        Cached {
            cache: RefCell::new(self),
            table,
            keep,
        }
    }
}

/// A table with a cache before it.
pub(crate) struct Cached<'a> {
    cache: RefCell<&'a mut Cache>,
    table: Table<'a>,
    keep: bool,
}

impl Memory for Cached<'_> {
    fn load(&self, word: usize) -> u32 {
        let cache = &mut self.cache.borrow_mut().0;

        if let Some(value) = cache.get(&word) {
            return *value;
        }
        let value = self.table.load(word);
        if self.keep {
            cache.insert(word, value);
        }
        value
    }

    fn store(&mut self, word: usize, value: u32) {
        let cache = &mut self.cache.get_mut().0;
        if self.keep || cache.contains_key(&word) {
            cache.insert(word, value);
        }
        self.table.store(word, value);
    }

    fn replace(&mut self, word: usize, was: u32, value: u32) -> bool {
        // To the engine it is done, whatever is in memory.
        let cache = &mut self.cache.get_mut().0;
        if cache.contains_key(&word) {
            cache.insert(word, value);
        }
        self.table.replace(word, was, value) || cache.contains_key(&word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{
        FromRawFd,
        OwnedFd, //
    };

    /// Guest memory of a page's worth of words.
    fn memory() -> File {
        // SAFETY: The name is a string; the new descriptor is ours.
        let fd = unsafe {
            let fd = libc::memfd_create(c"guest".as_ptr(), 0);
            assert!(fd >= 0);
            OwnedFd::from_raw_fd(fd)
        };
        let file = File::from(fd);
        file.set_len(0x4000).unwrap();
        file
    }

    #[test]
    fn ranges() {
        let file = memory();
        let mut maps = Maps::default();
        maps.add(0x10_0000, 0x2000, 0x1000, &file, true).unwrap();
        maps.add(0x20_0000, 0x1000, 0, &file, false).unwrap();
        assert!(maps.table(0x10_0000, 0x2000).is_some());
        for (address, size) in [
            (0x0f_fffc, 0x2000),
            (0x10_0004, 0x2000),
            (0x10_0002, 0x1000),
            (0x20_0000, 0x1000),
        ] {
            assert!(maps.table(address, size).is_none(), "{address:x} {size:x}");
        }
        maps.table(0x10_0ffc, 8).unwrap().store(1, 0x1234_5678);
        let mut again = Maps::default();
        again.add(0, 0x4000, 0, &file, true).unwrap();
        assert_eq!(again.table(0x2000, 4).unwrap().load(0), 0x1234_5678);
        maps.remove(0x10_0000, 0x1000);
        assert!(maps.table(0x10_0000, 0x1000).is_some());
        maps.remove(0x10_0000, 0x2000);
        assert!(maps.table(0x10_0000, 0x1000).is_none());
    }

    #[test]
    fn what_was_read_is_remembered() {
        let file = memory();
        let mut maps = Maps::default();
        maps.add(0, 0x4000, 0, &file, true).unwrap();
        let table = || maps.table(0, 0x1000).unwrap();
        let mut cache = Cache::default();

        assert_eq!(cache.of(table(), true).load(3), 0);
        table().store(3, 7);
        assert_eq!(cache.of(table(), true).load(3), 0);
        // The driver's word stays, and the engine does not know.
        assert!(cache.of(table(), true).replace(3, 0, 9));
        assert_eq!((cache.of(table(), true).load(3), table().load(3)), (9, 7));
        cache.clear();
        assert_eq!(cache.of(table(), false).load(3), 7);
        table().store(3, 8);
        assert_eq!(cache.of(table(), true).load(3), 8);
        cache.of(table(), true).store(4, 5);
        assert_eq!(table().load(4), 5);
        assert!(!cache.of(table(), false).replace(5, 1, 2));
    }
}
