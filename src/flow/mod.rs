// SPDX-License-Identifier: GPL-2.0

//! One flow: the entries of both directions, and what they share.

mod backoff;
pub(crate) mod entry;
pub(crate) mod events;
pub(crate) mod hw_state;
pub(crate) mod ingress_path;
pub(crate) mod object;
mod path_check;
pub(crate) mod qos;
mod rewritten;
mod ruleset;
pub(crate) mod shared;
pub(crate) mod table_ref;
pub(crate) mod tag_cache;
pub(crate) mod tcp;
pub(crate) mod teardown;
