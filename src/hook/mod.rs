// SPDX-License-Identifier: GPL-2.0

//! What netfilter's hooks do with packets.

mod ingress;
mod postrouting;
mod prerouting;
mod xmit;

use crate::flowtable::registry::Hooks;

pub(crate) use ingress::ingress;

/// The hooks that see the packets of a network namespace that has flowtables.
pub(crate) static HOOKS: Hooks = Hooks {
    prerouting: Some(prerouting::prerouting),
    postrouting: Some(postrouting::postrouting),
};
