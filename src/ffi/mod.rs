// SPDX-License-Identifier: GPL-2.0

//! The only place that knows C layouts.
//!
//! [`bindings`] is generated from `bindings_helper.h`; its types are our own view of the C types,
//! and are cast at the border to those of the `kernel` crate where both exist. `layout.c` holds the
//! compiler that built the kernel to the same layouts.

pub(crate) mod cache;
mod call;
mod device;
pub(crate) mod genl;
mod ida;
mod percpu;
mod pernet;
mod rcu;
pub(crate) mod skb;
pub(crate) mod trace;
mod worker;

#[allow(
    clippy::all,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]
pub(crate) mod bindings {
    type __kernel_size_t = usize;
    type __kernel_ssize_t = isize;
    type __kernel_ptrdiff_t = isize;

    include!(env!("NFT_OFFLOAD_BINDINGS"));
}

use core::ptr;
use core::sync::atomic::{
    AtomicU32,
    AtomicUsize,
    Ordering, //
};

pub(crate) use bindings as c;
pub(crate) use call::*;
pub(crate) use device::*;
pub(crate) use ida::*;
pub(crate) use percpu::*;
pub(crate) use pernet::*;
pub(crate) use rcu::*;
pub(crate) use worker::*;

// The pure crate knows no kernel, and has numbers of its own.
const _: () = {
    use nft_flow::{
        encap::ethertype,
        key::L4Proto,
        parse::tcp, //
    };

    assert!(ethertype::IP as u32 == c::ETH_P_IP && ethertype::IPV6 as u32 == c::ETH_P_IPV6);
    assert!(ethertype::VLAN as u32 == c::ETH_P_8021Q && ethertype::QINQ as u32 == c::ETH_P_8021AD);
    assert!(ethertype::PPPOE as u32 == c::ETH_P_PPP_SES);
    assert!(tcp::FIN == c::NFO_TCP_FIN && tcp::SYN == c::NFO_TCP_SYN);
    assert!(tcp::RST == c::NFO_TCP_RST && tcp::ACK == c::NFO_TCP_ACK);
    assert!(L4Proto::Tcp.number() == c::NFO_IPPROTO_TCP);
    assert!(L4Proto::Udp.number() == c::NFO_IPPROTO_UDP);
    assert!(L4Proto::Sctp.number() == c::NFO_IPPROTO_SCTP);
    assert!(L4Proto::Icmp.number() == c::NFO_IPPROTO_ICMP);
    assert!(L4Proto::Icmpv6.number() == c::NFO_IPPROTO_ICMPV6);
};

/// Jiffies per second.
pub(crate) const HZ: u32 = c::NFO_HZ;

/// The low 32 bits of `jiffies`, as conntrack and the flowtable count time.
#[inline(always)]
pub(crate) fn jiffies32() -> u32 {
    // SAFETY: `jiffies` is always mapped; C reads it with a volatile load as well.
    unsafe { ptr::read_volatile(&raw const c::jiffies) as u32 }
}

/// So many jiffies in milliseconds.
pub(crate) fn milliseconds(jiffies: u32) -> u32 {
    (jiffies / HZ)
        .wrapping_mul(1000)
        .wrapping_add(jiffies % HZ * 1000 / HZ)
}

/// `jiffies`.
#[inline(always)]
pub(crate) fn jiffies() -> kernel::ffi::c_ulong {
    // SAFETY: As above.
    unsafe { ptr::read_volatile(&raw const c::jiffies) }
}

/// Softirqs are off on this CPU while it lives: what `spin_lock_bh()` adds to a spinlock.
pub(crate) struct BhGuard(());

impl BhGuard {
    /// Disables softirqs on this CPU.
    pub(crate) fn new() -> Self {
        // SAFETY: No preconditions; `drop` is the other half.
        unsafe { c::nfo_bh_disable() };
        Self(())
    }
}

impl Drop for BhGuard {
    fn drop(&mut self) {
        // SAFETY: Balances the call in `new`.
        unsafe { c::nfo_bh_enable() };
    }
}

/// A C bit map word (`unsigned long`) that C changes with `set_bit()` and friends.
///
/// # Safety
///
/// `word` must be valid and only changed atomically for `'a`.
#[inline(always)]
pub(crate) unsafe fn bit_word<'a>(word: *mut kernel::ffi::c_ulong) -> &'a AtomicUsize {
    // SAFETY: The caller vouches for the pointer; unsigned long is usize on every kernel target.
    unsafe { AtomicUsize::from_ptr(word.cast()) }
}

/// A relaxed load of a 32-bit C field that others change: `READ_ONCE()`.
///
/// # Safety
///
/// `p` must be valid for reads, and only changed atomically.
#[inline(always)]
pub(crate) unsafe fn read_once(p: *const u32) -> u32 {
    // SAFETY: The caller vouches for the pointer.
    unsafe { AtomicU32::from_ptr(p.cast_mut()) }.load(Ordering::Relaxed)
}
