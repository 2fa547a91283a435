// SPDX-License-Identifier: GPL-2.0

//! nft_offload: netfilter flow offloading.
//!
//! The rooms of the module, from the ground up. A room imports only what is on lower floors, which
//! `tools/check-layers` checks; within a floor rooms do not know each other.
//!
//! | floor | room        | what it is                                                         |
//! |-------|-------------|--------------------------------------------------------------------|
//! | 1     | `nft_flow`  | a crate without a kernel: keys, parser, rewriting, table, wheel    |
//! | 2     | `ffi`       | everything that knows C layouts                                    |
//! | 3     | `net`       | the kernel's networking: conntrack entries, routes, device paths   |
//! |       | `stats`     | counters, one per reason                                           |
//! | 4     | `flow`      | one flow: both directions, and what they share                     |
//! | 5     | `drivers`   | flow engines: hardware that forwards by itself                     |
//! | 6     | `hw`        | which flows go into hardware, and what happens to them there       |
//! | 7     | `flowtable` | tables, garbage collection, network namespaces                     |
//! | 8     | `hook`      | packets: the fast path at the ingress hook                         |
//! |       | `notifier`  | devices, bridges and neighbours that change                        |
//! |       | `netlink`   | what can be asked at run time                                      |
//! |       | `debugfs`   | what happened, and why something did not                           |
//! |       | `procfs`    | work that waits for hardware, in `/proc/net/stat`                  |
//! | 9     | `nft`       | what nf_tables calls: flowtable type, expression `flow_offload`    |
//! | 10    | `xdp`       | flows for XDP programs                                             |

#![crate_name = "nft_offload"]

use kernel::prelude::*;

mod debugfs;
#[path = "../drivers/mod.rs"]
mod drivers;
mod ffi;
mod flow;
mod flowtable;
mod hook;
mod hw;
mod net;
mod netlink;
mod nft;
mod notifier;
mod procfs;
mod stats;
mod xdp;

use flow::object::Flow;
use flowtable::registry;
use net::family::{
    Family,
    V4,
    V6, //
};
use nft::{
    expr,
    flowtable_type, //
};

module! {
    type: NftOffload,
    name: "nft_offload",
    authors: ["nft_offload developers"],
    description: "Netfilter flow offloading",
    license: "GPL",
    alias: [
        "kmod-nft-offload",
        "nf-flowtable-1",
        "nf-flowtable-2",
        "nf-flowtable-10",
        "nft-expr-1-flow_offload",
        "nft-expr-2-flow_offload",
        "nft-expr-10-flow_offload",
    ],
    params: {
        hw_threshold: u32 {
            default: 20000,
            description: "bytes in a second from which a flow is worth a place in hardware",
        },
    },
}

/// The module: its registrations, in the order in which they end. First the interfaces that bring
/// something new go (netlink, engines, nf_tables), then the notifiers and what shows the state,
/// then the memory.
#[pin_data]
struct NftOffload {
    _netlink: ffi::genl::Registration,
    _engines: drivers::Registrations,
    _expr: expr::Registration,
    _types: flowtable_type::Registration,
    _notifier: notifier::Registration,
    #[pin]
    _debugfs: debugfs::Files,
    _proc: procfs::Registration,
    _netns: registry::Registration,
    _caches: [ffi::cache::CacheGuard; 2],
}

impl kernel::InPlaceModule for NftOffload {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // SAFETY: Once, before anything uses it.
        unsafe {
            drivers::NATIVE.init();
            hw::SERVED.init();
        }
        xdp::register();

        try_pin_init!(Self {
            _caches: [
                V4::cache().create(c"nft_offload_flow4", size_of::<Flow<V4>>())?,
                V6::cache().create(c"nft_offload_flow6", size_of::<Flow<V6>>())?,
            ],
            _netns: registry::Registration::new()?,
            _proc: procfs::Registration::new()?,
            _debugfs <- debugfs::Files::new(),
            _notifier: notifier::Registration::new()?,
            _expr: expr::Registration::new(module)?,
            _netlink: netlink::register(module)?,
            _engines: drivers::Registrations::new(module)?,
            // Last, because it cannot fail, and a flowtable of ours must never meet the in-tree
            // expression.
            _types: flowtable_type::Registration::new(
                module,
                module_parameters::hw_threshold.value(),
            ),
        })
    }
}
