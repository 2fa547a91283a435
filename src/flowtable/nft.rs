// SPDX-License-Identifier: GPL-2.0

//! The flowtable as nf_tables sees it: the types, and what it calls.

use super::{
    Flowtable,
    Registered,
    FLOWTABLES, //
};
use crate::{
    cold::Cold,
    ct::Ct,
    drivers::Port,
    ffi::{
        c,
        skb,
        HZ, //
    },
    hook,
    offload,
    qos::Looks, //
};
use core::{
    cell::UnsafeCell,
    mem::offset_of,
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
    ffi::{
        c_int,
        c_uint, //
    },
    prelude::*, //
};
use nft_flow::{
    key::L4Proto,
    state::Direction, //
};

/// A packet leaves the ruleset, and has not been dropped.
///
/// # Safety
///
/// Called by netfilter only, with what [`Flowtable::watch`] has registered and a packet.
pub(super) unsafe extern "C" fn passed(
    ft: *mut kernel::ffi::c_void,
    skb: *mut c::sk_buff,
    state: *const c::nf_hook_state,
) -> c_uint {
    // SAFETY: Netfilter passes what `watch` has registered, which lives until a grace period after
    // it was unregistered, and a packet that keeps its conntrack entry; RCU is held.
    unsafe {
        let ft = &*ft.cast::<Flowtable>();

        if let Some((ct, dir)) = Ct::of_skb(skb).filter(|(ct, _)| ct.is_offloaded()) {
            if let Some(flow) = ft.find(ct) {
                passed_of(flow, dir, skb, (*state).pf);
            }
        }
    }
    c::NF_ACCEPT
}

/// A packet of a flow, or an error about it, has passed.
///
/// # Safety
///
/// As for [`passed`].
#[cold]
unsafe fn passed_of(flow: &Cold, dir: Direction, packet: *mut c::sk_buff, family: u8) {
    const TCP: u8 = L4Proto::Tcp.number();
    let mut proto = 0;

    // SAFETY: A packet that leaves has its network header in the linear part; its route is valid, if it
    // has one.
    unsafe {
        let thoff = c::nfo_skb_transport(packet, family, &mut proto);

        if thoff < 0 || Ct::is_error(packet, proto) {
            return;
        }
        if proto == TCP {
            if let Some(tcp) = skb::tcp(packet, thoff as u32) {
                flow.went_by(dir, &tcp);
            }
        }
        flow.passed(dir, Looks::of(packet), skb::route(packet));
    }
}

/// `nf_flowtable_type.init`: a flowtable is being created.
///
/// # Safety
///
/// Called by nf_tables only, with a flowtable of a type of ours.
unsafe extern "C" fn init(nf: *mut c::nf_flowtable) -> c_int {
    let Some(nf) = NonNull::new(nf) else {
        return EINVAL.to_errno();
    };
    let ft = match Flowtable::new(nf) {
        Ok(ft) => ft,
        Err(e) => return e.to_errno(),
    };
    let raw = NonNull::from(&*ft);

    // SAFETY: nf_tables gives us a new object that nobody else uses yet.
    unsafe { c::nfo_ft_init(nf.as_ptr(), Some(gc)) };
    if let Err(e) = ft.watch() {
        // SAFETY: Process context. Packets may have come by the half that was registered.
        unsafe {
            c::synchronize_rcu();
            ft.free_tables();
        }
        return e.to_errno();
    }
    // INVARIANT: It is taken out of the list before it is freed.
    if FLOWTABLES.lock().push(Registered(raw), GFP_KERNEL).is_err() {
        ft.close();
        return ENOMEM.to_errno();
    }
    // SAFETY: As above. The pin is kept: only `free` takes the box back.
    unsafe {
        (*nf.as_ptr()).rhashtable.tbl = KBox::into_raw(Pin::into_inner_unchecked(ft)).cast();
        c::nfo_gc_queue(nf.as_ptr(), HZ as usize);
    }
    0
}

/// `nf_flowtable_type.free`: no hook and no rule refers to the flowtable any more.
///
/// # Safety
///
/// Called by nf_tables only, with a flowtable of a type of ours.
unsafe extern "C" fn free(nf: *mut c::nf_flowtable) {
    // SAFETY: `init` has put the pointer there, and nf_tables calls this once.
    unsafe {
        let raw = (*nf).rhashtable.tbl.cast::<Flowtable>();

        Pin::new_unchecked(KBox::from_raw(raw)).close();
    }
}

/// The worker.
///
/// # Safety
///
/// Called by the workqueue only, with the work item of a flowtable of ours.
unsafe extern "C" fn gc(work: *mut c::work_struct) {
    // SAFETY: The work item is the one in a flowtable that `init` has made ours, and that waits
    // for the worker before it ends.
    unsafe {
        let nf = work
            .byte_sub(offset_of!(c::nf_flowtable, gc_work) + offset_of!(c::delayed_work, work))
            .cast::<c::nf_flowtable>();

        let pause = Flowtable::from_hook(nf.cast()).work();
        c::nfo_gc_queue(nf, pause);
    }
}

/// `nf_flowtable_type.setup`: a device is added to a flowtable or taken away. Also how firewall4
/// asks whether hardware can offload: a flowtable with `flags offload` is refused for a device
/// that cannot.
///
/// # Safety
///
/// Called by nf_tables only, with a flowtable of a type of ours.
unsafe extern "C" fn setup(
    nf: *mut c::nf_flowtable,
    dev: *mut c::net_device,
    cmd: c::flow_block_command,
) -> c_int {
    // SAFETY: nf_tables passes a flowtable of ours and a registered device.
    let (ft, port) = unsafe {
        let ifindex = (*dev).ifindex as u32;

        (Flowtable::from_hook(nf.cast()), Port { dev, ifindex })
    };
    let Some(tier) = &ft.hw else {
        return 0;
    };

    if cmd == c::flow_block_command_FLOW_BLOCK_BIND {
        // SAFETY: nf_tables holds its lock.
        let place = unsafe { offload::place(ft.nft(), dev) };

        return tier.bind(port, place).map_or_else(|e| e.to_errno(), |()| 0);
    }
    tier.unbind(port);
    0
}

/// A type that C links into its list.
#[repr(transparent)]
pub(super) struct Type(pub(super) UnsafeCell<c::nf_flowtable_type>);

// SAFETY: C serialises what it does with registered types.
unsafe impl Sync for Type {}

const fn flowtable_type(family: u32, hook: c::nf_hookfn) -> Type {
    Type(UnsafeCell::new(c::nf_flowtable_type {
        list: c::list_head {
            next: ptr::null_mut(),
            prev: ptr::null_mut(),
        },
        family: family as c_int,
        init: Some(init),
        gc: None,
        setup: Some(setup),
        action: None,
        free: Some(free),
        get: None,
        put: None,
        hook,
        owner: ptr::null_mut(),
    }))
}

pub(super) static TYPES: [Type; 3] = [
    flowtable_type(c::NFPROTO_INET, Some(hook::ingress::<true, true>)),
    flowtable_type(c::NFPROTO_IPV4, Some(hook::ingress::<true, false>)),
    flowtable_type(c::NFPROTO_IPV6, Some(hook::ingress::<false, true>)),
];

/// The flowtable behind a hook of a device, if it is one of ours, and whether it serves IPv4 and IPv6.
///
/// # Safety
///
/// `hook` is one of the ingress hooks of a device, and RCU is held as long as the flowtable is used.
pub(crate) unsafe fn of_hook<'a>(hook: &c::nf_hook_entry) -> Option<(&'a Flowtable, [bool; 2])> {
    let code = hook.hook? as usize;
    let ty = TYPES
        .iter()
        // SAFETY: Types are not changed while they are registered, apart from their links.
        .map(|t| unsafe { &*t.0.get() })
        .find(|t| t.hook.is_some_and(|hook| hook as usize == code))?;
    let serves = [c::NFPROTO_IPV4, c::NFPROTO_IPV6]
        .map(|family| [family as c_int, c::NFPROTO_INET as c_int].contains(&ty.family));

    // SAFETY: The private pointer of such a hook is the flowtable. It is freed a grace period after
    // its hooks have been removed.
    Some((unsafe { Flowtable::from_hook(hook.priv_) }, serves))
}

/// Keeps the types registered.
pub(crate) struct Registration(());

impl Registration {
    /// Registers the flowtable types, in front of those of nf_flow_table_inet if that is loaded.
    pub(crate) fn new(module: &'static ThisModule) -> Self {
        for ty in &TYPES {
            // SAFETY: The type is static, and not registered yet.
            unsafe { (*ty.0.get()).owner = module.as_ptr().cast() };
        }
        // SAFETY: As above. C may change what is in a cell, and a cell is laid out as what is in it.
        unsafe {
            c::nfo_types_register(TYPES.as_ptr().cast_mut().cast(), TYPES.len() as u32);
        }
        Self(())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        for ty in &TYPES {
            // SAFETY: Registered by `new`. The module is not unloaded while a flowtable exists.
            unsafe { c::nft_unregister_flowtable_type(ty.0.get()) };
        }
        *FLOWTABLES.lock() = KVec::new();
    }
}
