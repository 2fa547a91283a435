// SPDX-License-Identifier: GPL-2.0

//! Messages of generic netlink under construction: the answer to a request, and parts of a dump.

use super::{
    c,
    NetRef,
    Request, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*, //
};

/// The end of a message, where attributes are added.
///
/// # Invariants
///
/// The message is nobody else's for `'a`.
pub(crate) struct Attrs<'a>(NonNull<c::sk_buff>, PhantomData<&'a mut c::sk_buff>);

impl Attrs<'_> {
    fn put(&mut self, kind: u16, payload: &[u8]) -> Result {
        // SAFETY: By the type invariant; the payload is as long as is said.
        to_result(unsafe {
            c::nla_put(
                self.0.as_ptr(),
                kind.into(),
                payload.len() as c_int,
                payload.as_ptr().cast(),
            )
        })
    }

    /// Adds an attribute that has no payload.
    pub(crate) fn put_flag(&mut self, kind: u16) -> Result {
        self.put(kind, &[])
    }

    /// Adds an attribute.
    pub(crate) fn put_u8(&mut self, kind: u16, value: u8) -> Result {
        self.put(kind, &[value])
    }

    /// Adds an attribute.
    pub(crate) fn put_u16(&mut self, kind: u16, value: u16) -> Result {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Adds an attribute.
    pub(crate) fn put_u32(&mut self, kind: u16, value: u32) -> Result {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Adds an attribute of four bytes, or of eight if they are needed.
    pub(crate) fn put_uint(&mut self, kind: u16, value: u64) -> Result {
        // SAFETY: By the type invariant.
        to_result(unsafe { c::nfo_genl_put_uint(self.0.as_ptr(), kind.into(), value) })
    }

    /// Adds an attribute with these bytes.
    pub(crate) fn put_bytes(&mut self, kind: u16, value: &[u8]) -> Result {
        self.put(kind, value)
    }

    /// Adds an array of numbers.
    pub(crate) fn put_u32s(&mut self, kind: u16, values: &[u32]) -> Result {
        // SAFETY: By the type invariant; the payload is as long as is said.
        to_result(unsafe {
            c::nla_put(
                self.0.as_ptr(),
                kind.into(),
                size_of_val(values) as c_int,
                values.as_ptr().cast(),
            )
        })
    }

    /// Adds a string, with its NUL.
    pub(crate) fn put_string(&mut self, kind: u16, value: &CStr) -> Result {
        self.put(kind, value.to_bytes_with_nul())
    }

    /// Adds a string, with a NUL; cut off if it is very long.
    pub(crate) fn put_str(&mut self, kind: u16, value: &str) -> Result {
        const MAX: usize = 63;

        let mut text = [0; MAX + 1];
        let len = value.len().min(MAX);

        for (to, from) in text.iter_mut().take(len).zip(value.bytes()) {
            *to = from;
        }
        self.put(kind, text.get(..=len).unwrap_or(&[0]))
    }

    /// Adds what `f` does as one attribute.
    pub(crate) fn nest(&mut self, kind: u16, f: impl FnOnce(&mut Self) -> Result) -> Result {
        // SAFETY: By the type invariant.
        let nest = unsafe { c::nfo_genl_nest(self.0.as_ptr(), kind.into()) };
        let nest = NonNull::new(nest).ok_or(EMSGSIZE)?;

        f(self)?;
        // SAFETY: As above; begun in this message.
        unsafe { c::nfo_genl_nest_end(self.0.as_ptr(), nest.as_ptr()) };
        Ok(())
    }
}

/// The answer to a request, or an event.
///
/// # Invariants
///
/// The message is ours, and `hdr` is the header in it.
pub(super) struct Reply {
    skb: NonNull<c::sk_buff>,
    hdr: NonNull<c_void>,
}

impl Reply {
    /// An empty answer with room for `size` bytes.
    pub(super) fn new(request: &Request<'_>, command: u8, size: usize) -> Result<Self> {
        let info = request.0;

        // SAFETY: The request is valid, and with it the family.
        unsafe {
            let skb = NonNull::new(c::nfo_genl_new(size)).ok_or(ENOMEM)?;
            let hdr = c::genlmsg_put(
                skb.as_ptr(),
                info.snd_portid,
                info.snd_seq,
                info.family,
                0,
                command,
            );
            let Some(hdr) = NonNull::new(hdr) else {
                c::nfo_genl_free(skb.as_ptr());
                return Err(EMSGSIZE);
            };

            // INVARIANT: Just made.
            Ok(Self { skb, hdr })
        }
    }

    /// An empty event of a family with room for `size` bytes. Does not sleep.
    pub(super) fn event(family: *const c::genl_family, command: u8, size: usize) -> Result<Self> {
        // SAFETY: The family is registered.
        unsafe {
            let skb = NonNull::new(c::nfo_genl_new_atomic(size)).ok_or(ENOMEM)?;
            let hdr = c::genlmsg_put(skb.as_ptr(), 0, 0, family, 0, command);
            let Some(hdr) = NonNull::new(hdr) else {
                c::nfo_genl_free(skb.as_ptr());
                return Err(EMSGSIZE);
            };

            // INVARIANT: Just made.
            Ok(Self { skb, hdr })
        }
    }

    /// Sends the event to who has joined a group.
    ///
    /// # Safety
    ///
    /// `family` is the one that it was made for, and is registered.
    pub(super) unsafe fn multicast(
        self,
        family: *const c::genl_family,
        net: NetRef<'_>,
        group: u32,
    ) {
        let this = ManuallyDrop::new(self);

        // SAFETY: The message is given away, and the caller vouches for the family.
        unsafe {
            c::nfo_genl_multicast(
                family,
                net.as_ptr(),
                this.skb.as_ptr(),
                this.hdr.as_ptr(),
                group,
            );
        }
    }

    /// Where its attributes go.
    pub(super) fn attrs(&mut self) -> Attrs<'_> {
        // INVARIANT: It is ours, and borrowed.
        Attrs(self.skb, PhantomData)
    }

    /// Sends the message to who has asked.
    ///
    /// # Safety
    ///
    /// `info` is a valid request.
    pub(super) unsafe fn send(self, info: *mut c::genl_info) -> Result {
        let this = ManuallyDrop::new(self);

        // SAFETY: The message is given away, and the caller vouches for the request.
        to_result(unsafe { c::nfo_genl_reply(this.skb.as_ptr(), this.hdr.as_ptr(), info) })
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // SAFETY: The message is ours.
        unsafe { c::nfo_genl_free(self.skb.as_ptr()) };
    }
}

/// A part of the answer to a dump: some messages.
///
/// # Invariants
///
/// The part is nobody else's for `'a`, and `cb` is the dump that it belongs to.
pub(crate) struct Part<'a> {
    skb: NonNull<c::sk_buff>,
    cb: NonNull<c::netlink_callback>,
    command: u8,
    lifetime: PhantomData<&'a mut c::sk_buff>,
}

impl Part<'_> {
    /// A part that is to be filled.
    ///
    /// # Safety
    ///
    /// Both are valid, belong together, and are the caller's as long as the value is used.
    pub(super) unsafe fn new(
        skb: *mut c::sk_buff,
        cb: *mut c::netlink_callback,
        command: u8,
    ) -> Self {
        // INVARIANT: By the contract of this function.
        // SAFETY: The same.
        unsafe {
            Self {
                skb: NonNull::new_unchecked(skb),
                cb: NonNull::new_unchecked(cb),
                command,
                lifetime: PhantomData,
            }
        }
    }

    /// Adds a message with what `f` adds to it, or nothing if that fails: with `EMSGSIZE` if it
    /// does not fit.
    pub(crate) fn message(&mut self, f: impl FnOnce(&mut Attrs<'_>) -> Result) -> Result {
        let skb = self.skb.as_ptr();
        // SAFETY: By the type invariant.
        let hdr = unsafe { c::nfo_genl_dump_put(skb, self.cb.as_ptr(), self.command) };
        let hdr = NonNull::new(hdr).ok_or(EMSGSIZE)?.as_ptr();

        // INVARIANT: The part is borrowed.
        let result = f(&mut Attrs(self.skb, PhantomData));

        // SAFETY: As above; begun in this part.
        unsafe {
            match result {
                Ok(()) => c::nfo_genl_dump_end(skb, hdr),
                Err(_) => c::nfo_genl_dump_cancel(skb, hdr),
            }
        }
        result
    }

    /// What is listed has changed: some of it may be twice in the answer, or not at all. All
    /// messages from here on say so (`NLM_F_DUMP_INTR`).
    pub(crate) fn changed(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { c::nfo_genl_dump_changed(self.cb.as_ptr()) };
    }
}
