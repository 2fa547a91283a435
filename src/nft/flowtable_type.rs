// SPDX-License-Identifier: GPL-2.0

//! The flowtable as nf_tables sees it: the types, and what it calls.

use crate::{
    drivers::NetDev,
    ffi::{
        c,
        Shared, //
    },
    flowtable::Flowtable,
    hook,
    hw,
    net::{
        nf_tables::NftRef,
        nft_expr::NamedFlowtable, //
    },
    netlink, //
};
use core::{
    ptr::{
        self,
        NonNull, //
    },
    sync::atomic::{
        AtomicU32,
        Ordering, //
    }, //
};
use kernel::{
    ffi::c_int,
    prelude::*, //
};

/// The module's parameter; it does not change once flowtables can be made.
static HW_THRESHOLD: AtomicU32 = AtomicU32::new(0);

/// `nf_flowtable_type.init`: a flowtable is being created.
///
/// # Safety
///
/// Called by nf_tables only, with a flowtable of a type of ours.
unsafe extern "C" fn init(nf: *mut c::nf_flowtable) -> c_int {
    let Some(nf) = NonNull::new(nf) else {
        return EINVAL.to_errno();
    };
    // SAFETY: nf_tables has set the namespace, and ends the flowtable before that and its own
    // object.
    let nft = unsafe { NftRef::from_nf(nf) };
    let threshold = HW_THRESHOLD.load(Ordering::Relaxed);
    let ft = Flowtable::new(nft, threshold.into(), netlink::notify)
        .and_then(|ft| ft.start(&hook::HOOKS));

    match ft {
        Ok(ft) => {
            // SAFETY: nf_tables gives us a new object that nobody else uses yet.
            unsafe { c::nfo_ft_init(nf.as_ptr(), ft.as_ptr().cast()) };
            0
        }
        Err(e) => e.to_errno(),
    }
}

/// `nf_flowtable_type.free`: no hook and no rule refers to the flowtable any more.
///
/// # Safety
///
/// Called by nf_tables only, with a flowtable of a type of ours.
unsafe extern "C" fn free(nf: *mut c::nf_flowtable) {
    // SAFETY: `init` has put the pointer there and started the flowtable, and nf_tables calls this
    // once.
    unsafe { Flowtable::from_hook(nf.cast()).close() };
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
    let (ft, netdev) = unsafe {
        let ifindex = (*dev).ifindex as u32;

        (Flowtable::from_hook(nf.cast()), NetDev { dev, ifindex })
    };
    let Some(tier) = &ft.hw else {
        return 0;
    };

    if bind {
        // SAFETY: nf_tables holds its lock.
        let pos = unsafe { hw::device_list_pos(ft.nft(), dev) };

        return tier.bind(netdev, pos).map_or_else(|e| e.to_errno(), |()| 0);
    }
    tier.unbind(netdev);
    0
}

/// A type that C links into its list.
type Type = Shared<c::nf_flowtable_type>;

const fn flowtable_type(family: u32, hook: c::nf_hookfn) -> Type {
    Type::new(c::nf_flowtable_type {
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
    })
}

static TYPES: [Type; 3] = [
    flowtable_type(c::NFPROTO_INET, Some(hook::ingress::<true, true>)),
    flowtable_type(c::NFPROTO_IPV4, Some(hook::ingress::<true, false>)),
    flowtable_type(c::NFPROTO_IPV6, Some(hook::ingress::<false, true>)),
];

impl Flowtable {
    /// Whether the flowtable that a rule names is one of ours.
    pub(super) fn is_ours(ft: NamedFlowtable<'_>) -> bool {
        TYPES.iter().any(|ty| ptr::eq(ty.get(), ft.type_ptr()))
    }
}

/// The flowtable behind a hook of a device, if it is one of ours, and whether it serves IPv4 and
/// IPv6.
///
/// # Safety
///
/// `hook` is one of the ingress hooks of a device, and RCU is held as long as the flowtable is
/// used.
pub(crate) unsafe fn of_hook<'a>(hook: &c::nf_hook_entry) -> Option<(&'a Flowtable, [bool; 2])> {
    let code = hook.hook? as usize;
    let ty = TYPES
        .iter()
        // SAFETY: Types are not changed while they are registered, apart from their links.
        .map(|t| unsafe { &*t.get() })
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
    /// `hw_threshold`: the module's parameter of that name.
    pub(crate) fn new(module: &'static ThisModule, hw_threshold: u32) -> Self {
        HW_THRESHOLD.store(hw_threshold, Ordering::Relaxed);
        for ty in &TYPES {
            // SAFETY: The type is static, and not registered yet.
            unsafe { (*ty.get()).owner = module.as_ptr().cast() };
        }
        // SAFETY: As above. C may change what is in a cell, and a cell is laid out as what is in
        // it.
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
            unsafe { c::nft_unregister_flowtable_type(ty.get()) };
        }
    }
}
