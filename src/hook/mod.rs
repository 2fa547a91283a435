// SPDX-License-Identifier: GPL-2.0

//! What netfilter's hooks do with packets.

mod ingress;
mod xmit;

pub(crate) use ingress::ingress;
