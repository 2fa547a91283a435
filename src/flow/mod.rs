// SPDX-License-Identifier: GPL-2.0

//! One flow: the entries of both directions, and what they share.

pub(crate) mod entry;
pub(crate) mod ingress_path;
pub(crate) mod qos;
pub(crate) mod shared;
pub(crate) mod tcp;
