// SPDX-License-Identifier: GPL-2.0

//! nft_offload: netfilter flow offloading.
//!
//! | module      | what it is                                                         |
//! |-------------|--------------------------------------------------------------------|
//! | `expr`      | the nftables expression `flow_offload`: which connections          |
//! | `path`      | where their packets leave and come in                              |
//! | `walk`      | the devices below a route                                          |
//! | `route`     | routes and neighbours                                              |
//! | `flowtable` | tables, ageing, worker; the flowtable types                        |
//! | `family`    | what differs between IPv4 and IPv6                                 |
//! | `entry`     | a flow in memory                                                   |
//! | `cold`      | what is done with a flow beside forwarding                         |
//! | `hook`      | the fast path at the ingress hook                                  |
//! | `xmit`      | transmit through a neighbour                                       |
//! | `xdp`       | flows for XDP programs                                             |
//! | `offload`   | which flows go into hardware, and what happens to them there         |
//! | `drivers`   | flow engines: that hardware                                        |
//! | `ct`        | what conntrack hands over and gets back                            |
//! | `qos`       | priority, mark and DSCP as the ruleset made them                   |
//! | `tcp`       | connections that open, close, or seem to                           |
//! | `shape`     | numbers for VLAN, PPPoE and tunnel encapsulations                  |
//! | `netns`     | network namespaces and their flowtables                            |
//! | `heal`      | devices that change                                                |
//! | `traffic`   | packets and bytes of a flowtable                                   |
//! | `stats`     | counters, one per reason                                           |
//! | `debugfs`   | where they are read                                                |
//! | `proc`      | work that waits for hardware, in `/proc/net/stat`                  |
//! | `netlink`   | what can be asked at run time                                      |
//! | `ffi`       | everything that knows C layouts                                    |
//!
//! Keys, parser, rewriting, table and wheel are the crate `nft_flow`, in `flow/`.

#![crate_name = "nft_offload"]

use kernel::prelude::*;

mod cold;
mod ct;
mod debugfs;
#[path = "../drivers/mod.rs"]
mod drivers;
mod entry;
mod expr;
mod family;
mod ffi;
mod flowtable;
mod heal;
mod hook;
mod netlink;
mod netns;
mod offload;
mod path;
mod proc;
mod qos;
mod route;
mod ruleset;
mod shape;
mod stats;
mod tcp;
mod traffic;
mod walk;
mod xdp;
mod xmit;

use entry::Flow;
use family::{
    Family,
    V4,
    V6, //
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

/// See the parameter's description.
fn hw_threshold() -> u64 {
    module_parameters::hw_threshold.value().into()
}

/// The module: its registrations, in the order in which they end. First nothing new comes in, then
/// nobody tells us anything, then the memory goes.
#[pin_data]
struct NftOffload {
    _netlink: ffi::genl::Registration,
    _engines: drivers::Registrations,
    _expr: expr::Registration,
    _types: flowtable::Registration,
    _heal: heal::Registration,
    #[pin]
    _debugfs: debugfs::Files,
    _proc: proc::Registration,
    _netns: netns::Registration,
    _caches: [ffi::cache::CacheGuard; 2],
}

impl kernel::InPlaceModule for NftOffload {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // SAFETY: Once, before anything uses it.
        unsafe {
            drivers::NATIVE.init();
            offload::SERVED.init();
        }
        xdp::register();

        try_pin_init!(Self {
            _caches: [
                V4::cache().create(c"nft_offload_flow4", size_of::<Flow<V4>>())?,
                V6::cache().create(c"nft_offload_flow6", size_of::<Flow<V6>>())?,
            ],
            _netns: netns::Registration::new()?,
            _proc: proc::Registration::new()?,
            _debugfs <- debugfs::Files::new(),
            _heal: heal::Registration::new()?,
            _expr: expr::Registration::new(module)?,
            _netlink: netlink::register()?,
            _engines: drivers::Registrations::new(module)?,
            // Last, because it cannot fail, and a flowtable of ours must never meet the in-tree
            // expression.
            _types: flowtable::Registration::new(module),
        })
    }
}
