// SPDX-License-Identifier: GPL-2.0

//! One engine and its table.
//!
//! Entries are inserted directly: a flow that is added is in force when [`Ppe::add`] returns. The
//! engine does not have to have seen a packet of it, and nobody has to read the reason codes of
//! received packets.
//!
//! A bound slot belongs to one flow, which holds a [`Handle`] to it. The engine takes slots back by
//! itself, for what is idle or over, and a slot may have another owner by the time that the first
//! one asks: a handle has the number of its binding and the whole key, and both are compared.

use crate::age;
use crate::encode::Image;
use crate::entry::{
    ib1,
    State, //
};
use crate::hal;
use crate::mib::Counters;
use crate::regs::Window;
use crate::seq::{
    self,
    Addresses,
    Ageing,
    Timeout, //
};
use crate::slot::{
    self,
    Choice,
    Memory, //
};
use crate::soc::Soc;
use crate::text;
use crate::ENTRIES;
use core::fmt;
use core::ops::DerefMut;

/// What is remembered of a slot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slot {
    /// Number of the binding, 0 for none.
    binding: u32,
    /// Where its packets come in.
    domain: u32,
    /// What was read of its counter, since it is bound.
    counters: Counters,
}

/// A flow's claim to a slot.
#[derive(PartialEq, Eq, Debug)]
pub struct Handle {
    slot: u16,
    binding: u32,
    check: u16,
}

impl Handle {
    /// The slot.
    pub const fn slot(&self) -> u16 {
        self.slot
    }

    /// The number of the binding; no other has it before 2^32 more were made.
    pub const fn binding(&self) -> u32 {
        self.binding
    }

    /// As a number, together with that of the engine, which is below 4.
    pub const fn into_raw(self, engine: u8) -> u64 {
        ((self.binding as u64) << 32)
            | ((self.check as u64) << 16)
            | (((engine & 3) as u64) << 14)
            | (self.slot as u64)
    }

    /// The reverse of [`Self::into_raw`]: the engine and the handle.
    pub const fn from_raw(raw: u64) -> (u8, Self) {
        let handle = Handle {
            slot: raw as u16 & (ENTRIES - 1) as u16,
            binding: (raw >> 32) as u32,
            check: (raw >> 16) as u16,
        };
        ((raw >> 14) as u8 & 3, handle)
    }
}

/// Why a flow was not bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddError {
    /// It is bound.
    Exists,
    /// A flow whose packets come in elsewhere is the same to the engine. That one was withdrawn:
    /// neither may be in the table.
    Alias,
    /// All slots that it could have are in use.
    Collision,
    /// The engine did not answer in time.
    Busy,
    /// The engine does not run.
    Stopped,
}

/// Why a flow is not bound any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gone {
    /// Nothing was seen of it for too long, or the slot was taken for something else.
    Aged,
    /// The engine has seen the end of the connection.
    Fin,
    /// It was withdrawn for the sake of another, or by a reset.
    Withdrawn,
}

/// What was seen of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Packets and bytes since this was asked last.
    pub delta: Counters,
    /// Ticks of the frame engine's clock since the latest packet.
    pub idle: u32,
}

/// One engine.
///
/// # Invariants
///
/// A slot with a binding was bound by us and not withdrawn since. `used` is the number of those.
pub struct Ppe<W, M, S> {
    soc: &'static Soc,
    window: W,
    memory: M,
    slots: S,
    counts: bool,
    running: bool,
    last_binding: u32,
    used: usize,
}

impl<W: Window, M: Memory, S: DerefMut<Target = [Slot]>> Ppe<W, M, S> {
    /// An engine that does not run yet. `memory` has [`Soc::table_size`] bytes, `slots` has
    /// [`ENTRIES`] places; [`None`] if it has fewer.
    pub fn new(soc: &'static Soc, window: W, memory: M, slots: S) -> Option<Self> {
        (slots.len() >= ENTRIES).then_some(Self {
            soc,
            window,
            memory,
            slots,
            counts: false,
            running: false,
            last_binding: 0,
            used: 0,
        })
    }

    /// The SoC.
    pub fn soc(&self) -> &'static Soc {
        self.soc
    }

    /// Slots in use by us, and all that could be.
    pub fn capacity(&self) -> (usize, usize) {
        // The pattern of what must not be used repeats.
        let reserved = (0..128).filter(|&n| self.soc.is_reserved(n)).count() * (ENTRIES / 128);
        (self.used, ENTRIES - reserved)
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// Starts it with an empty table; whatever was bound is not any more.
    pub fn start(&mut self, at: Addresses, ageing: &Ageing, mtu: u16) {
        let words = self.soc.hal.entry_size() / 4;

        for word in 0..ENTRIES * words {
            self.memory.store(word, 0);
        }
        for n in (0..ENTRIES).filter(|&n| self.soc.is_reserved(n)) {
            self.memory.store(n * words, ib1::STATIC.mask());
        }
        self.memory.barrier();
        self.forget_all();
        self.counts = self.soc.counts && at.counters.is_some();
        seq::start(&self.window, self.soc, at, ageing);
        seq::set_mtu(&self.window, mtu);
        self.running = true;
    }

    /// Stops it; whatever was bound is not any more.
    ///
    /// # Errors
    ///
    /// [`Timeout`] if the engine went on working. It has no entries then, but is not switched off.
    pub fn stop(&mut self) -> Result<(), Timeout> {
        let words = self.soc.hal.entry_size() / 4;

        for n in 0..ENTRIES {
            self.memory.store(n * words, State::Invalid.bits());
        }
        self.memory.barrier();
        self.forget_all();
        self.running = false;
        seq::stop(&self.window)
    }

    /// Makes it ready for a reset of the frame engine, after which it has to be started again.
    /// Whatever was bound is not any more.
    ///
    /// # Errors
    ///
    /// [`Timeout`] if the engine went on working.
    pub fn prepare_reset(&mut self) -> Result<(), Timeout> {
        self.forget_all();
        self.running = false;
        seq::prepare_reset(&self.window)
    }

    fn forget_all(&mut self) {
        for slot in self.slots.iter_mut() {
            *slot = Slot::default();
        }
        self.used = 0;
    }

    /// Puts a flow in force.
    ///
    /// # Errors
    ///
    /// See [`AddError`]. The flow is not in force then.
    pub fn add(&mut self, image: &Image) -> Result<Handle, AddError> {
        if !self.running {
            return Err(AddError::Stopped);
        }
        let key = image.foe.key(image.of);
        let slot = match slot::choose(&self.memory, self.soc, image.bucket, &key) {
            Choice::Free(slot) => slot,
            Choice::Collision => return Err(AddError::Collision),
            Choice::Bound(slot) => {
                let owner = self.slot(slot);
                if owner.binding != 0 && owner.domain == image.domain {
                    return Err(AddError::Exists);
                }
                self.withdraw(slot);
                return Err(AddError::Alias);
            }
        };

        // The engine may have taken it from its owner, who has not noticed.
        self.release(slot);
        // The engine makes entries of its own, for what it misses: not in a slot that is reserved,
        // and with its cache it has let go of what it has begun.
        let reserved = ib1::STATIC.mask();
        slot::write_ib1(&self.memory, self.soc, slot, reserved);
        seq::cache_clear(&self.window);
        if self.counts {
            // What the last owner has left.
            seq::read_counter(&self.window, self.soc, slot).map_err(|Timeout| {
                slot::write_ib1(&self.memory, self.soc, slot, State::Invalid.bits());
                AddError::Busy
            })?;
        }
        if slot::read_ib1(&self.memory, self.soc, slot) != reserved {
            return Err(AddError::Busy);
        }

        let mut foe = image.foe;
        foe.set_ib1(age::touched(self.soc.hal, self.window.clock(), foe.ib1()));
        if self.counts {
            foe.set_ib2(image.of, foe.ib2(image.of) | self.soc.hal.counted());
        }
        slot::publish(&self.memory, self.soc, slot, &foe);
        seq::cache_clear(&self.window);

        // Never 0.
        self.last_binding = self.last_binding.wrapping_add(1).max(1);
        // INVARIANT: Bound right here; counted.
        if let Some(place) = self.slots.get_mut(usize::from(slot)) {
            *place = Slot {
                binding: self.last_binding,
                domain: image.domain,
                counters: Counters::default(),
            };
            self.used += 1;
        }
        Ok(Handle {
            slot,
            binding: self.last_binding,
            check: key.check(),
        })
    }

    /// Withdraws a flow, if it is still there. What was counted since it was asked last.
    pub fn del(&mut self, handle: Handle) -> Counters {
        match self.check(&handle) {
            Ok(_) => {
                self.withdraw_slot(handle.slot);
                let delta = self.count(handle.slot).unwrap_or_default();
                self.release(handle.slot);
                delta
            }
            Err(_) => {
                if self.slot(handle.slot).binding == handle.binding {
                    self.release(handle.slot);
                }
                Counters::default()
            }
        }
    }

    /// What was seen of a flow.
    ///
    /// # Errors
    ///
    /// [`Gone`] if it is not bound any more.
    pub fn stats(&mut self, handle: &Handle) -> Result<Stats, Gone> {
        let ib1 = self.check(handle)?;

        // An engine that does not answer has nothing to say this time.
        let delta = self.count(handle.slot).unwrap_or_default();
        Ok(Stats {
            delta,
            idle: age::idle(self.soc.hal, self.window.clock(), ib1),
        })
    }

    /// Looks at `count` slots from `from` on for flows that the engine has let go of, and tells
    /// `gone` the slot and number of their binding. They are forgotten. Where to go on.
    pub fn scan(
        &mut self,
        from: usize,
        count: usize,
        mut gone: impl FnMut(u16, u32, Gone),
    ) -> usize {
        let end = ENTRIES.min(from.saturating_add(count));

        for n in from..end {
            let slot = n as u16;
            let binding = self.slot(slot).binding;
            if binding == 0 {
                continue;
            }
            let why = match State::of(slot::read_ib1(&self.memory, self.soc, slot)) {
                State::Bind => continue,
                State::Fin => Gone::Fin,
                State::Invalid | State::Unbind => Gone::Aged,
            };
            self.release(slot);
            gone(slot, binding, why);
        }
        if end == ENTRIES {
            0
        } else {
            end
        }
    }

    /// Writes a line for each entry that is not free, or only for those in force. Reads no counter:
    /// the figures are those of the last time that statistics were asked for.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn dump(&self, out: &mut dyn fmt::Write, only_bound: bool) -> fmt::Result {
        for n in 0..ENTRIES {
            let ib1 = slot::read_ib1(&self.memory, self.soc, n as u16);
            let state = State::of(ib1);

            if state == State::Invalid || only_bound && state != State::Bind {
                continue;
            }
            let foe = slot::read(&self.memory, self.soc, n as u16);
            text::line(
                out,
                self.soc.hal,
                n as u16,
                &foe,
                self.slot(n as u16).counters,
            )?;
        }
        Ok(())
    }

    /// The table's memory, when the engine is of no use any more.
    pub fn into_memory(self) -> M {
        self.memory
    }

    /// The window, for who has to look.
    pub fn window(&self) -> &W {
        &self.window
    }

    /// The table, for who has to look.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    fn slot(&self, slot: u16) -> Slot {
        self.slots
            .get(usize::from(slot))
            .copied()
            .unwrap_or_default()
    }

    /// Returns the state word of the entry of this handle, if the flow is in force.
    fn check(&self, handle: &Handle) -> Result<u32, Gone> {
        if self.slot(handle.slot).binding != handle.binding {
            return Err(Gone::Withdrawn);
        }
        let foe = slot::read(&self.memory, self.soc, handle.slot);
        match foe.state() {
            State::Bind
                if hal::packet_type(self.soc.hal, foe.ib1())
                    .is_some_and(|of| foe.key(of).check() == handle.check) =>
            {
                Ok(foe.ib1())
            }
            State::Fin => Err(Gone::Fin),
            _ => Err(Gone::Aged),
        }
    }

    fn withdraw_slot(&mut self, slot: u16) {
        let ib1 = slot::read_ib1(&self.memory, self.soc, slot);

        slot::write_ib1(
            &self.memory,
            self.soc,
            slot,
            ib1 & !ib1::STATE.mask() | State::Invalid.bits(),
        );
        seq::cache_clear(&self.window);
    }

    fn withdraw(&mut self, slot: u16) {
        self.withdraw_slot(slot);
        self.release(slot);
    }

    fn release(&mut self, slot: u16) {
        if let Some(place) = self.slots.get_mut(usize::from(slot)) {
            if place.binding != 0 {
                *place = Slot::default();
                self.used -= 1;
            }
        }
    }

    fn count(&mut self, slot: u16) -> Result<Counters, Timeout> {
        if !self.counts {
            return Ok(Counters::default());
        }
        let delta = seq::read_counter(&self.window, self.soc, slot)?;
        if let Some(place) = self.slots.get_mut(usize::from(slot)) {
            place.counters.add(delta);
        }
        Ok(delta)
    }
}
