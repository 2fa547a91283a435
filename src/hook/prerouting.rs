// SPDX-License-Identifier: GPL-2.0

//! Packets that are about to enter the ruleset, before conntrack has seen them.

use crate::{
    ffi::{
        c,
        skb, //
    },
    flowtable::registry::Netns,
    net::ct::CtRef, //
};
use kernel::ffi::c_uint;
use nft_flow::{
    key::L4Proto,
    parse::tcp, //
};

/// A packet is about to meet conntrack, which may take it for the end of a connection. It may have
/// come by a device that is not in the flowtable, in fragments, with options: whatever has not come
/// here before is judged by windows of long ago.
///
/// # Safety
///
/// Called by netfilter only, with what [`Netns::add`] has registered and a packet.
pub(super) unsafe extern "C" fn prerouting(
    netns: *mut kernel::ffi::c_void,
    skb: *mut c::sk_buff,
    state: *const c::nf_hook_state,
) -> c_uint {
    const TCP: u8 = L4Proto::Tcp.number();
    let mut proto = 0;

    // SAFETY: Netfilter passes what was registered, which lives until a grace period after it was
    // unregistered, and a packet with its network header in the linear part; RCU is held.
    unsafe {
        let thoff = c::nfo_skb_transport(skb, (*state).pf, &mut proto);

        if thoff >= 0 && proto == TCP {
            if let Some(tcp) =
                skb::tcp(skb, thoff as u32).filter(|tcp| tcp.flags & tcp::CONTROL != 0)
            {
                flow_prerouting(&*netns.cast::<Netns>(), skb, state, &tcp);
            }
        }
    }
    c::NF_ACCEPT
}

/// Synchronises conntrack before it sees a SYN, FIN or RST of a flow.
///
/// # Safety
///
/// As for [`prerouting`].
#[cold]
unsafe fn flow_prerouting(
    netns: &Netns,
    skb: *const c::sk_buff,
    state: *const c::nf_hook_state,
    tcp: &c::nfo_tcp,
) {
    // SAFETY: By the contract of this function.
    unsafe {
        if let Some((ct, dir)) = CtRef::ahead(skb, state) {
            if let Some(flow) = Some(ct.get())
                .filter(|ct| ct.is_offloaded())
                .and_then(|ct| netns.find(ct))
            {
                flow.sync_ct(dir, tcp);
            }
        }
    }
}
