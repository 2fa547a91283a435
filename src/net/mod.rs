// SPDX-License-Identifier: GPL-2.0

//! The kernel's networking as flows need it: conntrack entries, routes and neighbours, the devices
//! below a route, and what differs between IPv4 and IPv6.

pub(crate) mod bridge;
pub(crate) mod ct;
pub(crate) mod device_path;
pub(crate) mod direct;
pub(crate) mod family;
pub(crate) mod follow;
pub(crate) mod forward_path;
pub(crate) mod hop_table;
pub(crate) mod next_hop;
pub(crate) mod nf_tables;
pub(crate) mod nft_expr;
pub(crate) mod packet;
pub(crate) mod route;
pub(crate) mod ruleset;
pub(crate) mod rx_stats;
pub(crate) mod stack_hooks;
pub(crate) mod trace;
