// SPDX-License-Identifier: GPL-2.0

//! Tracepoints: what `kernel::declare_trace!` makes of those in the bindings of the kernel crate,
//! for those in `trace.h`.
//!
//! A tracepoint that is off costs a no-op where the kernel patches code (`CONFIG_JUMP_LABEL`), and
//! a load elsewhere.
//!
//! C header: [`include/linux/tracepoint.h`](srctree/include/linux/tracepoint.h)

use super::c;
use kernel::{
    ffi::c_int,
    macros::paste, //
};

macro_rules! tracepoints {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),* $(,)?);)*) => { paste! {
        #[cfg(CONFIG_TRACEPOINTS)]
        mod point {
            #[allow(improper_ctypes)] // only the key is looked at, and by the kernel
            extern "C" {
                $(pub(super) static [<__tracepoint_ $name>]: kernel::bindings::tracepoint;)*
            }
        }

        $(
            /// Whether somebody wants this event.
            #[inline(always)]
            #[allow(dead_code)] // where an event costs no more than its arguments
            pub(crate) fn [<$name _enabled>]() -> bool {
                #[cfg(CONFIG_TRACEPOINTS)]
                // SAFETY: The key of a tracepoint of `trace.h` may be asked at any time.
                unsafe {
                    kernel::jump_label::static_branch_unlikely!(
                        point::[<__tracepoint_ $name>],
                        kernel::bindings::tracepoint,
                        key
                    )
                }
                #[cfg(not(CONFIG_TRACEPOINTS))]
                false
            }

            $(#[$doc])*
            ///
            /// # Safety
            ///
            /// Pointers are valid, and lengths those of what they point to.
            #[inline(always)]
            #[allow(clippy::too_many_arguments)] // as C has them
            pub(crate) unsafe fn $name($($arg: $ty),*) {
                if [<$name _enabled>]() {
                    #[cfg(CONFIG_TRACEPOINTS)]
                    // SAFETY: By the contract of this function.
                    unsafe { c::[<rust_do_trace_ $name>]($($arg),*) };
                }
                #[cfg(not(CONFIG_TRACEPOINTS))]
                let _ = ($($arg),*);
            }
        )*
    }};
}

tracepoints! {
    /// A flow was added.
    flow_add(ct: *const c::nf_conn, ft: *const c::nft_flowtable, iif: u32, oif: u32);
    /// A flow was not added.
    flow_skip(
        skb: *const c::sk_buff,
        ct: *const c::nf_conn,
        dev: *const c::net_device,
        ft: *const c::nft_flowtable,
        reason: *const u8,
        len: u32,
    );
    /// A packet takes the slow path.
    flow_miss(skb: *const c::sk_buff, reason: *const u8, len: u32);
    /// The ruleset is asked about packets of a direction again.
    flow_revalidate(ct: *const c::nf_conn, dir: u8, reason: *const u8, len: u32);
    /// A flow was torn down.
    flow_teardown(ct: *const c::nf_conn, age_ms: u32, idle_ms: u32, reason: *const u8, len: u32);
    /// An engine has taken a rule.
    hw_add(ct: *const c::nf_conn, dir: u8, iif: u32, engine: *const u8, len: u32);
    /// A direction was not put into hardware.
    hw_decline(
        ct: *const c::nf_conn,
        dir: u8,
        iif: u32,
        reason: *const u8,
        len: u32,
        error: c_int,
        text: *const u8,
        text_len: u32,
    );
    /// A rule was taken away.
    hw_remove(ct: *const c::nf_conn, dir: u8, iif: u32, reason: *const u8, len: u32);
    /// The worker of a flowtable has run.
    gc_run(
        ft: *const c::nft_flowtable,
        flows: u32,
        removed: u32,
        duration_ns: u64,
        pause_ms: u32,
    );
}
