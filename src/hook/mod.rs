// SPDX-License-Identifier: GPL-2.0

//! What netfilter's hooks do with packets.

mod ingress;
mod postrouting;
mod prerouting;
mod xmit;

use crate::{
    ffi::c,
    flowtable::registry::Netns,
    net::{
        packet::StackPkt,
        stack_hooks::{
            StackHook,
            StackHookFns, //
        }, //
    }, //
};

pub(crate) use ingress::ingress;

/// What is done with the packets of a network namespace that has flowtables.
struct Hook;

impl StackHook for Hook {
    type Owner = Netns;

    #[inline(always)]
    fn prerouting(netns: &Netns, pkt: StackPkt<'_>, state: &c::nf_hook_state) {
        prerouting::prerouting(netns, pkt, state);
    }

    #[inline(always)]
    fn postrouting(netns: &Netns, pkt: StackPkt<'_>) {
        postrouting::postrouting(netns, pkt);
    }
}

/// The hooks that see the packets of a network namespace that has flowtables.
pub(crate) static HOOKS: StackHookFns<Netns> = StackHookFns::of::<Hook>();
