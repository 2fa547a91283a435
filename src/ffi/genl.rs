// SPDX-License-Identifier: GPL-2.0

//! Generic netlink families with operations.
//!
//! The kernel crate has families with multicast groups only; this is the other half, in the same
//! manner. A family is a static; each of its operations is a type that implements [`Operation`].
//!
//! C header: [`include/net/genetlink.h`](srctree/include/net/genetlink.h)

mod message;

use super::{
    c,
    NetRef, //
};
use core::{
    marker::PhantomData,
    mem::{
        size_of,
        MaybeUninit, //
    },
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
    error::to_result,
    ffi::c_int,
    prelude::*,
    str::CStrExt,
    types::Opaque, //
};
use message::Reply;

pub(crate) use message::{
    Attrs,
    Part, //
};

/// What the payload of an attribute has to be. The core refuses anything else before the operation
/// runs, attributes without a policy included.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Policy(c::nla_policy);

// SAFETY: Plain data; none of the policies that can be made here holds a pointer.
unsafe impl Sync for Policy {}

impl Policy {
    const fn new(type_: u32, validation: u32, len: u16, min: i16, max: i16) -> Self {
        // SAFETY: All zeroes is a valid policy.
        let mut policy = unsafe { MaybeUninit::<c::nla_policy>::zeroed().assume_init() };

        policy.type_ = type_ as u8;
        policy.validation_type = validation as u8;
        policy.len = len;
        policy.__bindgen_anon_1.__bindgen_anon_1 =
            c::nla_policy__bindgen_ty_1__bindgen_ty_1 { min, max };
        Self(policy)
    }

    /// Not accepted in a request.
    pub(crate) const REJECT: Self = Self::new(
        c::NLA_REJECT,
        c::nla_policy_validation_NLA_VALIDATE_NONE,
        0,
        0,
        0,
    );
    /// Anything.
    pub(crate) const ANY: Self = Self::new(
        c::NLA_UNSPEC,
        c::nla_policy_validation_NLA_VALIDATE_NONE,
        0,
        0,
        0,
    );
    /// Any `u32`.
    pub(crate) const U32: Self = Self::new(
        c::NLA_U32,
        c::nla_policy_validation_NLA_VALIDATE_NONE,
        0,
        0,
        0,
    );
    /// Any 32 bits in network byte order.
    pub(crate) const BE32: Self = Self::new(
        c::NLA_BE32,
        c::nla_policy_validation_NLA_VALIDATE_NONE,
        0,
        0,
        0,
    );

    /// Any `u16`.
    pub(crate) const U16: Self = Self::new(
        c::NLA_U16,
        c::nla_policy_validation_NLA_VALIDATE_NONE,
        0,
        0,
        0,
    );
    /// Any `u8`.
    pub(crate) const U8: Self = Self::new(
        c::NLA_U8,
        c::nla_policy_validation_NLA_VALIDATE_NONE,
        0,
        0,
        0,
    );

    /// A `u8` up to `max`.
    pub(crate) const fn u8_max(max: u8) -> Self {
        Self::new(
            c::NLA_U8,
            c::nla_policy_validation_NLA_VALIDATE_MAX,
            0,
            0,
            max as i16,
        )
    }

    /// A `u32` from `min`.
    pub(crate) const fn u32_min(min: u8) -> Self {
        Self::new(
            c::NLA_U32,
            c::nla_policy_validation_NLA_VALIDATE_MIN,
            0,
            min as i16,
            0,
        )
    }

    /// A string of up to `max` bytes, with a NUL behind them or without.
    pub(crate) const fn unterminated(max: u16) -> Self {
        Self::new(
            c::NLA_STRING,
            c::nla_policy_validation_NLA_VALIDATE_NONE,
            max,
            0,
            0,
        )
    }

    /// A string of up to `max` bytes, with a NUL behind them.
    pub(crate) const fn string(max: u16) -> Self {
        Self::new(
            c::NLA_NUL_STRING,
            c::nla_policy_validation_NLA_VALIDATE_NONE,
            max,
            0,
            0,
        )
    }

    /// The policy of an attribute of exactly `len` bytes.
    pub(crate) const fn exact(len: u8) -> Self {
        Self::new(
            c::NLA_BINARY,
            c::nla_policy_validation_NLA_VALIDATE_RANGE,
            0,
            len as i16,
            len as i16,
        )
    }
}

/// Who may ask for something.
pub(crate) enum Permission {
    /// Who has `CAP_NET_ADMIN` in the user namespace of the network namespace.
    Netns,
    /// Who has it in the first user namespace: for what is not about one network namespace.
    Machine,
}

/// What requests for an operation look like, and who may make them.
pub(crate) trait Command {
    /// The number of the command.
    const COMMAND: u8;
    /// By attribute type, which begin with 1.
    const POLICY: &'static [Policy];
    /// Who may ask.
    const PERMISSION: Permission = Permission::Netns;
}

/// Something that a family can be asked to do, or for.
pub(crate) trait Operation: Command {
    /// Most bytes of the answer, after the headers.
    const REPLY_SIZE: usize = 256;

    /// Does it, and adds to the answer, which is sent unless this fails.
    fn run(request: &Request<'_>, reply: &mut Attrs<'_>) -> Result;
}

/// What a dump keeps from one part of its answer to the next: zeroes at first.
pub(crate) type DumpState = [usize; 6];

/// Something that a family can be asked for, with many messages for an answer.
pub(crate) trait Dump: Command {
    /// Checks a request, before there is any part of an answer.
    fn check(_: &Request<'_>) -> Result {
        Ok(())
    }

    /// Adds messages to a part of the answer, from where `state` says on. `EMSGSIZE` if there are
    /// more than fit: that is not the end.
    fn dump(request: &Request<'_>, state: &mut DumpState, part: &mut Part<'_>) -> Result;
}

/// An entry in the table of operations of a family.
#[repr(transparent)]
pub(crate) struct Op(c::genl_ops);

// SAFETY: Never changed; the pointers are to static policies and functions.
unsafe impl Sync for Op {}

impl Op {
    /// A command that can be asked neither to do something nor to dump anything.
    const fn empty<T: Command>() -> c::genl_ops {
        // SAFETY: All zeroes is a valid value: no callback.
        let mut ops = unsafe { MaybeUninit::<c::genl_ops>::zeroed().assume_init() };

        ops.policy = T::POLICY.as_ptr().cast();
        ops.maxattr = T::POLICY.len() as u32 - 1;
        ops.cmd = T::COMMAND;
        ops.flags = match T::PERMISSION {
            Permission::Netns => c::GENL_UNS_ADMIN_PERM as u8,
            Permission::Machine => c::GENL_ADMIN_PERM as u8,
        };
        ops
    }

    /// An operation that does something, or answers with one message.
    pub(crate) const fn new<T: Operation>() -> Self {
        let mut ops = Self::empty::<T>();

        ops.doit = Some(doit::<T>);
        Self(ops)
    }

    /// One that answers with many messages.
    pub(crate) const fn dump<T: Dump>() -> Self {
        let mut ops = Self::empty::<T>();

        ops.start = Some(start::<T>);
        ops.dumpit = Some(dumpit::<T>);
        Self(ops)
    }

    /// One that does either.
    pub(crate) const fn both<T: Operation + Dump>() -> Self {
        let mut ops = Self::dump::<T>().0;

        ops.doit = Some(doit::<T>);
        Self(ops)
    }
}

fn errno(result: Result) -> c_int {
    result.map_or_else(|e| e.to_errno(), |()| 0)
}

/// # Safety
///
/// Called by generic netlink only.
unsafe extern "C" fn doit<T: Operation>(_skb: *mut c::sk_buff, info: *mut c::genl_info) -> c_int {
    let run = || {
        // SAFETY: Generic netlink passes a valid request, with the attributes that were parsed.
        let request = Request(unsafe { &*info }, PhantomData);
        let mut reply = Reply::new(&request, T::COMMAND, T::REPLY_SIZE)?;

        T::run(&request, &mut reply.attrs())?;
        // SAFETY: As above; nobody uses `request` any more.
        unsafe { reply.send(info) }
    };

    errno(run())
}

/// # Safety
///
/// Called by generic netlink only.
unsafe extern "C" fn start<T: Dump>(cb: *mut c::netlink_callback) -> c_int {
    // SAFETY: Generic netlink passes a valid dump, with the request that was parsed.
    let request = Request(unsafe { &*c::nfo_genl_dump_info(cb) }, PhantomData);

    errno(T::check(&request))
}

/// # Safety
///
/// Called by generic netlink only.
unsafe extern "C" fn dumpit<T: Dump>(skb: *mut c::sk_buff, cb: *mut c::netlink_callback) -> c_int {
    // SAFETY: Generic netlink passes a valid dump, with the request that was parsed, and the
    // message that is a part of its answer. The state is six words of `cb`, which nobody else uses.
    let (request, state, mut part) = unsafe {
        (
            Request(&*c::nfo_genl_dump_info(cb), PhantomData),
            &mut *c::nfo_genl_dump_state(cb).cast::<DumpState>(),
            Part::new(skb, cb, T::COMMAND),
        )
    };

    errno(T::dump(&request, state, &mut part))
}

/// A request, valid for `'a`.
///
/// # Invariants
///
/// Its attributes have passed the policy of an operation, and there is room for as many as the
/// policy has.
pub(crate) struct Request<'a>(&'a c::genl_info, PhantomData<&'a c::nlattr>);

impl<'a> Request<'a> {
    /// The network namespace that is asked.
    pub(crate) fn net(&self) -> NetRef<'a> {
        // SAFETY: Valid by the type invariant, with its namespace.
        unsafe { NetRef::from_raw(c::nfo_genl_net(self.0)) }
    }

    /// The attribute of type `kind`, which the operation's policy must have, if it was given.
    pub(crate) fn attr(&self, kind: u16) -> Option<Attr<'a>> {
        // SAFETY: By the type invariant.
        NonNull::new(unsafe { *self.0.attrs.add(kind.into()) }).map(|p| Attr(p, PhantomData))
    }

    /// The end of a request: `message` is for a person, `attr` is what it is about.
    pub(crate) fn refuse(&self, e: Error, message: &'static CStr, attr: Option<Attr<'_>>) -> Error {
        // SAFETY: Null, or valid for as long as the request is. The message is part of the module,
        // which generic netlink keeps until the answer is sent.
        if let Some(extack) = unsafe { self.0.extack.as_mut() } {
            extack._msg = message.as_char_ptr().cast();
            extack.bad_attr = attr.map_or(ptr::null(), |attr| attr.0.as_ptr());
        }
        e
    }
}

/// An attribute of a request.
///
/// # Invariants
///
/// It has passed validation: it is as long as it says.
#[derive(Clone, Copy)]
pub(crate) struct Attr<'a>(NonNull<c::nlattr>, PhantomData<&'a c::nlattr>);

impl<'a> Attr<'a> {
    /// The payload.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        const HEADER: usize = size_of::<c::nlattr>();

        // SAFETY: By the type invariant.
        unsafe {
            let len = usize::from(self.0.as_ref().nla_len).saturating_sub(HEADER);

            core::slice::from_raw_parts(self.0.as_ptr().cast::<u8>().add(HEADER), len)
        }
    }

    /// The first `N` bytes of the payload, zeroes if there are not as many.
    pub(crate) fn array<const N: usize>(&self) -> [u8; N] {
        *self.bytes().first_chunk().unwrap_or(&[0; N])
    }

    /// The payload of an attribute whose policy is one of `u8`.
    pub(crate) fn u8(&self) -> u8 {
        u8::from_ne_bytes(self.array())
    }

    /// The payload of an attribute whose policy is one of `u16`.
    pub(crate) fn u16(&self) -> u16 {
        u16::from_ne_bytes(self.array())
    }

    /// The payload of an attribute whose policy is one of `u32`.
    pub(crate) fn u32(&self) -> u32 {
        u32::from_ne_bytes(self.array())
    }

    /// The payload of an attribute whose policy is [`Policy::string`].
    pub(crate) fn string(&self) -> &'a CStr {
        CStr::from_bytes_until_nul(self.bytes()).unwrap_or(c"")
    }
}

/// A multicast group of a family, which the administrator of a network namespace may join.
#[repr(transparent)]
pub(crate) struct Group(c::genl_multicast_group);

// SAFETY: Plain data.
unsafe impl Sync for Group {}

impl Group {
    /// For statics: panics if the name is too long.
    pub(crate) const fn new(name: &CStr) -> Self {
        // SAFETY: All zeroes is a valid value.
        let mut group = unsafe { MaybeUninit::<c::genl_multicast_group>::zeroed().assume_init() };
        let name = name.to_bytes_with_nul();
        let mut i = 0;

        assert!(name.len() <= group.name.len(), "the name is too long");
        while i < name.len() {
            group.name[i] = name[i];
            i += 1;
        }
        group.flags = c::NFO_MCAST_ADMIN;
        Self(group)
    }
}

/// A generic netlink family, which exists in every network namespace.
#[repr(transparent)]
pub(crate) struct GenlFamily(Opaque<c::genl_family>);

// SAFETY: Changed by generic netlink only, which serialises that.
unsafe impl Sync for GenlFamily {}

impl GenlFamily {
    /// Makes a family. For statics: panics if the arguments are not valid.
    pub(crate) const fn new(
        name: &CStr,
        version: u32,
        ops: &'static [Op],
        groups: &'static [Group],
    ) -> Self {
        /// `netnsok`, and `parallel_ops`: the operations take their own locks. They are the first
        /// bit fields of their byte.
        const FLAGS: u8 = if cfg!(target_endian = "big") {
            1 << 7 | 1 << 6
        } else {
            1 << 0 | 1 << 1
        };

        // SAFETY: All zeroes is a valid value: no operations, and no name.
        let mut family = unsafe { MaybeUninit::<c::genl_family>::zeroed().assume_init() };
        let name = name.to_bytes_with_nul();
        let mut i = 0;

        assert!(name.len() <= family.name.len(), "the name is too long");
        assert!(ops.len() <= u8::MAX as usize, "too many operations");
        while i < name.len() {
            family.name[i] = name[i];
            i += 1;
        }
        family.version = version;
        // SAFETY: The bit field is one byte.
        let flags = unsafe { core::mem::transmute::<u8, c::__BindgenBitfieldUnit<[u8; 1]>>(FLAGS) };
        family._bitfield_1 = flags;
        family.ops = ops.as_ptr().cast();
        family.n_ops = ops.len() as u8;
        assert!(groups.len() <= u8::MAX as usize, "too many groups");
        family.mcgrps = groups.as_ptr().cast();
        family.n_mcgrps = groups.len() as u8;
        Self(Opaque::new(family))
    }

    /// Registers the family for a module.
    pub(crate) fn register(&'static self, module: &'static ThisModule) -> Result<Registration> {
        // SAFETY: A static family, which is registered once: by the module's init.
        to_result(unsafe {
            (*self.0.get()).module = module.as_ptr().cast();
            c::genl_register_family(self.0.get())
        })?;
        Ok(Registration(self))
    }

    /// Whether somebody in a network namespace has joined the group with this index. The family has
    /// to be registered.
    pub(crate) fn has_listeners(&'static self, net: NetRef<'_>, group: u32) -> bool {
        // SAFETY: A static family, which is only read; valid by the type invariant of `NetRef`.
        unsafe { c::nfo_genl_listened(self.0.get(), net.as_ptr(), group) }
    }

    /// Sends those who have joined a group a message of up to `size` bytes with what `f` adds to it.
    /// Does not sleep. If there is no memory for it, or `f` fails, they learn that they have missed
    /// one.
    pub(crate) fn multicast(
        &'static self,
        net: NetRef<'_>,
        group: u32,
        command: u8,
        size: usize,
        f: impl FnOnce(&mut Attrs<'_>) -> Result,
    ) {
        let family = self.0.get();
        let built = Reply::event(family, command, size).and_then(|mut event| {
            f(&mut event.attrs())?;
            Ok(event)
        });

        match built {
            // SAFETY: As for `has_listeners`.
            Ok(event) => unsafe { event.multicast(family, net, group) },
            Err(_) => self.lost(net, group),
        }
    }

    /// Says to those who have joined a group that they have missed something.
    pub(crate) fn lost(&'static self, net: NetRef<'_>, group: u32) {
        // SAFETY: As for `has_listeners`.
        unsafe { c::nfo_genl_lost(self.0.get(), net.as_ptr(), group) };
    }
}

/// Keeps a family registered. When it is dropped no operation runs any more.
pub(crate) struct Registration(&'static GenlFamily);

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: Registered when this was made.
        unsafe { c::genl_unregister_family(self.0 .0.get()) };
    }
}
