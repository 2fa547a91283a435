// SPDX-License-Identifier: GPL-2.0

//! Network namespaces and devices, as long as they are known to be there.
//!
//! C headers: [`include/net/net_namespace.h`](srctree/include/net/net_namespace.h),
//! [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

use super::{
    c,
    Rcu, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull,
    slice, //
};
use kernel::{
    error::to_result,
    ffi::c_int,
    prelude::*,
    str::CStrExt, //
};

/// A network namespace.
///
/// # Invariants
///
/// It is in use for `'a`, or its devices are being unregistered.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct NetRef<'a>(NonNull<c::net>, PhantomData<&'a c::net>);

// SAFETY: A namespace may be used from everywhere.
unsafe impl Send for NetRef<'_> {}
// SAFETY: As above.
unsafe impl Sync for NetRef<'_> {}

impl<'a> NetRef<'a> {
    /// A namespace that C has given us.
    ///
    /// # Safety
    ///
    /// It is not null, and in use as long as the value is used.
    pub(crate) unsafe fn from_raw(net: *const c::net) -> Self {
        // SAFETY: By the contract of this function.
        let net = unsafe { NonNull::new_unchecked(net.cast_mut()) };

        // INVARIANT: The same.
        Self(net, PhantomData)
    }

    /// For calls into C.
    #[inline(always)]
    pub(crate) fn as_ptr(self) -> *mut c::net {
        self.0.as_ptr()
    }

    /// The device with this number.
    pub(crate) fn device<'r>(self, _: Rcu<'r>, ifindex: u32) -> Option<DevRef<'r>> {
        // SAFETY: By the type invariant; RCU is held.
        let dev = unsafe { c::dev_get_by_index_rcu(self.as_ptr(), ifindex as c_int) };

        // INVARIANT: Devices are freed a grace period after they were unlisted.
        NonNull::new(dev).map(|dev| DevRef(dev, PhantomData))
    }

    /// Whether there is a device with this number.
    pub(crate) fn has_device(self, ifindex: u32) -> bool {
        // SAFETY: By the type invariant.
        unsafe { c::nfo_dev_exists(self.as_ptr(), ifindex) }
    }

    /// The number of the device with this name, which may be an alternative one.
    pub(crate) fn ifindex_of(self, name: &CStr) -> Option<u32> {
        // SAFETY: By the type invariant; a C string has its NUL.
        match unsafe { c::nfo_dev_ifindex(self.as_ptr(), name.as_char_ptr().cast()) } {
            0 => None,
            ifindex => Some(ifindex),
        }
    }

    /// The number that `lsns` shows.
    pub(crate) fn inum(self) -> u32 {
        // SAFETY: By the type invariant.
        unsafe { c::nfo_netns_inum(self.as_ptr()) }
    }

    /// Jiffies after which an idle flow of a protocol ends.
    pub(crate) fn offload_timeout(self, l4proto: u8) -> u32 {
        // SAFETY: By the type invariant.
        unsafe { c::nfo_offload_timeout(self.as_ptr(), l4proto) }
    }

    /// Adds forwarded packets to the statistics of IPv4 or IPv6.
    pub(crate) fn mib_add(self, v6: bool, packets: u64, bytes: u64) {
        // SAFETY: By the type invariant.
        unsafe { c::nfo_mib_add(self.as_ptr(), v6, packets, bytes) };
    }

    /// Whether forwarding of IPv4 sets the priority (`ip_forward_update_priority`).
    pub(crate) fn priority_by_tos(self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { c::nfo_priority_by_tos(self.as_ptr()) }
    }

    /// What the device with this number, if it is a VLAN device, makes of a priority: protocol,
    /// VLAN and PCP, if that is not 0.
    pub(crate) fn vlan_pcp(
        self,
        _: Rcu<'_>,
        ifindex: u32,
        priority: u32,
    ) -> Option<((u16, u16), u8)> {
        let (mut proto, mut vid) = (0, 0);
        // SAFETY: By the type invariant; RCU is held.
        let pcp =
            unsafe { c::nfo_vlan_pcp(self.as_ptr(), ifindex, priority, &mut proto, &mut vid) };

        (pcp > 0).then_some(((proto, vid), pcp as u8))
    }

    /// Which devices want the connections of packets, from number `next` on, which is moved on.
    /// Says how many are in `found`.
    pub(crate) fn askers(self, rtnl: bool, next: &mut u32, found: &mut [c::nfo_asker]) -> usize {
        let room = found.len() as u32;

        // SAFETY: By the type invariant; there is room for as many as is said.
        (unsafe { c::nfo_askers(self.as_ptr(), rtnl, next, found.as_mut_ptr(), room) }) as usize
    }

    /// Begins a walk over flows for somebody who has asked: there is one at a time in a namespace. To be
    /// [ended](Walk).
    pub(crate) fn begin_walk(self) -> Result<Walk<'a>> {
        // SAFETY: By the type invariant.
        to_result(unsafe { c::nfo_walk_begin(self.as_ptr()) })?;
        Ok(Walk(self))
    }
}

/// A walk over flows is under way while it lives.
pub(crate) struct Walk<'a>(NetRef<'a>);

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        // SAFETY: Begun by `begin_walk`.
        unsafe { c::nfo_walk_end(self.0.as_ptr()) };
    }
}

/// A device in an RCU read-side section.
///
/// # Invariants
///
/// The pointer is a valid `net_device` for `'rcu`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct DevRef<'rcu>(NonNull<c::net_device>, PhantomData<&'rcu c::net_device>);

impl<'rcu> DevRef<'rcu> {
    /// A device of something that keeps it.
    ///
    /// # Safety
    ///
    /// It is not null, and valid until the end of the section.
    pub(crate) unsafe fn new(dev: *const c::net_device, _: Rcu<'rcu>) -> Self {
        // SAFETY: By the contract of this function.
        let dev = unsafe { NonNull::new_unchecked(dev.cast_mut()) };

        // INVARIANT: The same.
        Self(dev, PhantomData)
    }

    /// A device that C has given us, if it is one.
    ///
    /// # Safety
    ///
    /// It is null, or valid until the end of the section.
    pub(crate) unsafe fn from_raw(dev: *const c::net_device, _: Rcu<'rcu>) -> Option<Self> {
        // INVARIANT: By the contract of this function.
        NonNull::new(dev.cast_mut()).map(|dev| Self(dev, PhantomData))
    }

    /// For calls into C.
    pub(crate) fn as_ptr(self) -> *mut c::net_device {
        self.0.as_ptr()
    }

    /// Takes its hooks away that nobody has listed: the device is being unregistered.
    pub(crate) fn gone(self) {
        // SAFETY: By the type invariant.
        unsafe { c::nfo_follow_gone(self.as_ptr()) };
    }

    /// The number of the device.
    pub(crate) fn ifindex(self) -> u32 {
        // SAFETY: By the type invariant.
        unsafe { (*self.as_ptr()).ifindex as u32 }
    }

    /// The namespace of the device.
    pub(crate) fn net(self) -> NetRef<'rcu> {
        // SAFETY: By the type invariant; a device's namespace is there as long as the device is.
        unsafe { NetRef::from_raw(c::nfo_dev_net(self.as_ptr())) }
    }

    /// The address of an Ethernet device.
    pub(crate) fn mac(self) -> Option<[u8; 6]> {
        // SAFETY: By the type invariant; the address is as long as the device says.
        unsafe {
            let dev = self.as_ptr();

            ((*dev).addr_len == 6).then(|| (*dev).dev_addr.cast::<[u8; 6]>().read())
        }
    }

    /// Whether the device has programs, filters or chains at ingress, or filters of PPP.
    pub(crate) fn filters(self) -> bool {
        // SAFETY: By the type invariant, by which RCU is held.
        unsafe { c::nfo_dev_filters(self.as_ptr()) || c::nfo_ppp_filters(self.as_ptr()) }
    }

    /// Whether there are IPsec policies that packets of the device have to pass.
    pub(crate) fn has_ipsec(self) -> bool {
        // SAFETY: By the type invariant, by which RCU is held.
        unsafe { c::nfo_dev_ipsec(self.as_ptr()) }
    }

    /// Whether it is the device with this number, or stands on that.
    pub(crate) fn is_or_above(self, ifindex: u32) -> bool {
        // SAFETY: By the type invariant, by which RCU is held.
        unsafe { c::nfo_dev_is_or_above(self.as_ptr(), ifindex) }
    }

    /// The ingress hooks of the device.
    pub(crate) fn ingress_hooks(self) -> &'rcu [c::nf_hook_entry] {
        // SAFETY: By the type invariant. An RCU pointer, to as many hooks as the structure says.
        unsafe {
            let hooks = (&raw const (*self.as_ptr()).nf_hooks_ingress).read_volatile();

            if hooks.is_null() {
                return &[];
            }
            slice::from_raw_parts(
                (&raw const (*hooks).hooks).cast(),
                (*hooks).num_hook_entries.into(),
            )
        }
    }
}
