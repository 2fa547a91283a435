// SPDX-License-Identifier: GPL-2.0

//! The flowtable as nf_tables sees it: the types, and what it calls.

use crate::{
    drivers::Port,
    ffi::{
        c,
        skb,
        HZ, //
    },
    flow::shared::Cold,
    flowtable::{
        registry::Netns,
        Flowtable, //
    },
    hook,
    hw,
    net::ct::{
        Ct,
        CtRef, //
    }, //
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
    parse::tcp,
    state::Direction, //
};

/// A packet is about to meet conntrack, which may take it for the end of a connection. It may have come by a
/// device that is not in the flowtable, in fragments, with options: whatever has not come here before is judged
/// by windows of long ago.
///
/// # Safety
///
/// Called by netfilter only, with what [`Netns::add`] has registered and a packet.
pub(crate) unsafe extern "C" fn enters(
    netns: *mut kernel::ffi::c_void,
    skb: *mut c::sk_buff,
    state: *const c::nf_hook_state,
) -> c_uint {
    const TCP: u8 = L4Proto::Tcp.number();
    let mut proto = 0;

    // SAFETY: Netfilter passes what was registered, which lives until a grace period after it was
    // unregistered, and a packet with its network header in the linear part; RCU is held.
    unsafe {
        let thoff = c::nfo_skb_transport(skb, (*state).pf, &mut proto);

        if thoff >= 0 && proto == TCP {
            if let Some(tcp) =
                skb::tcp(skb, thoff as u32).filter(|tcp| tcp.flags & tcp::CONTROL != 0)
            {
                ask(&*netns.cast::<Netns>(), skb, state, &tcp);
            }
        }
    }
    c::NF_ACCEPT
}

/// It is a SYN, FIN or RST.
///
/// # Safety
///
/// As for [`enters`].
#[cold]
unsafe fn ask(
    netns: &Netns,
    skb: *const c::sk_buff,
    state: *const c::nf_hook_state,
    tcp: &c::nfo_tcp,
) {
    // SAFETY: By the contract of this function.
    unsafe {
        if let Some((ct, dir)) = CtRef::ahead(skb, state) {
            if let Some(flow) = Some(ct.get())
                .filter(|ct| ct.is_offloaded())
                .and_then(|ct| netns.find(ct))
            {
                flow.ask(dir, tcp);
            }
        }
    }
}

/// A packet leaves the ruleset, and has not been dropped.
///
/// # Safety
///
/// Called by netfilter only, with what [`Netns::add`] has registered and a packet.
pub(crate) unsafe extern "C" fn passed(
    netns: *mut kernel::ffi::c_void,
    skb: *mut c::sk_buff,
    state: *const c::nf_hook_state,
) -> c_uint {
    // SAFETY: Netfilter passes what was registered, which lives until a grace period after it was
    // unregistered, and a packet that keeps its conntrack entry; RCU is held.
    unsafe {
        if let Some((ct, dir)) = Ct::of_skb(skb).filter(|(ct, _)| ct.is_offloaded()) {
            let netns = &*netns.cast::<Netns>();

            if let Some(flow) = netns.find(ct) {
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
        if c::nfo_skb_secpath(packet) {
            flow.came_secured(dir);
        }
        flow.passed(dir, packet, thoff as u32, proto);
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
    // SAFETY: nf_tables gives us a new object that nobody else uses yet.
    unsafe { c::nfo_ft_init(nf.as_ptr()) };
    // INVARIANT: It is taken out of the list before it is freed.
    // SAFETY: The box stays where it is: only `end` takes it back.
    if let Err(e) = unsafe { ft.netns.add(&ft) } {
        // SAFETY: Nobody has seen it.
        unsafe { ft.free_tables() };
        return e.to_errno();
    }
    // SAFETY: As above. The pin is kept.
    unsafe {
        let ft = KBox::into_raw(Pin::into_inner_unchecked(ft));

        (*nf.as_ptr()).rhashtable.tbl = ft.cast();
        c::nfo_worker_queue((*ft).worker.get(), HZ as usize);
    }
    0
}

/// `nf_flowtable_type.free`: no hook and no rule refers to the flowtable any more.
///
/// # Safety
///
/// Called by nf_tables only, with a flowtable of a type of ours.
unsafe extern "C" fn free(nf: *mut c::nf_flowtable) {
    // SAFETY: `init` has put the pointer there and the flowtable into its list, and nf_tables calls
    // this once.
    unsafe { Flowtable::close((*nf).rhashtable.tbl.cast()) };
}

/// The flowtable of a worker.
///
/// # Safety
///
/// It is the one of a flowtable.
unsafe fn of_worker(worker: *mut c::nfo_worker) -> *mut Flowtable {
    // SAFETY: By the contract of this function.
    unsafe { worker.byte_sub(offset_of!(Flowtable, worker)).cast() }
}

/// The worker.
///
/// # Safety
///
/// Called by `ffi/netns.c` only, with the worker of a flowtable, which waits for this before it ends.
#[no_mangle]
unsafe extern "C" fn nfo_flowtable_gc(worker: *mut c::nfo_worker) {
    // SAFETY: By the contract of this function.
    unsafe {
        let pause = (*of_worker(worker)).work();

        c::nfo_worker_queue(worker, pause);
    }
}

/// The last thing that is done.
///
/// # Safety
///
/// Called by `ffi/netns.c` only, a grace period after [`Flowtable::close`].
#[no_mangle]
unsafe extern "C" fn nfo_flowtable_end(worker: *mut c::nfo_worker) {
    // SAFETY: By the contract of this function.
    unsafe { Flowtable::end(of_worker(worker)) };
}

/// `nf_flowtable_type.setup`: a device is added to a flowtable or taken away. Also how firewall4
/// asks whether hardware can offload: a flowtable with `flags offload` is refused for a device
/// that cannot.
///
/// # Safety
///
/// Called by nf_tables only, by way of `nfo_flowtable_setup()`, with a flowtable of a type of ours.
#[no_mangle]
unsafe extern "C" fn nfo_setup(
    nf: *mut c::nf_flowtable,
    dev: *mut c::net_device,
    bind: bool,
) -> c_int {
    // SAFETY: nf_tables passes a flowtable of ours and a registered device.
    let (ft, port) = unsafe {
        let ifindex = (*dev).ifindex as u32;

        (Flowtable::from_hook(nf.cast()), Port { dev, ifindex })
    };
    let Some(tier) = &ft.hw else {
        return 0;
    };

    if bind {
        // SAFETY: nf_tables holds its lock.
        let place = unsafe { hw::place(ft.nft(), dev) };

        return tier.bind(port, place).map_or_else(|e| e.to_errno(), |()| 0);
    }
    tier.unbind(port);
    0
}

/// A type that C links into its list.
#[repr(transparent)]
pub(crate) struct Type(pub(crate) UnsafeCell<c::nf_flowtable_type>);

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
        setup: Some(c::nfo_flowtable_setup),
        action: None,
        free: Some(free),
        get: None,
        put: None,
        hook,
        owner: ptr::null_mut(),
    }))
}

pub(crate) static TYPES: [Type; 3] = [
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
    }
}
