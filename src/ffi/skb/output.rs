// SPDX-License-Identifier: GPL-2.0

//! A socket buffer on its way out: what is made ready, and what the device that it leaves through
//! gets to see.

use super::{
    Skb,
    DST_NOREF, //
};
use crate::ffi::c;

impl Skb {
    /// Makes sure of `headroom` free bytes before the network header. Data may move.
    #[cold]
    pub(crate) fn cow_head(self, headroom: u32) -> bool {
        // SAFETY: By the type invariant.
        unsafe { c::nfo_skb_cow_head(self.as_ptr(), headroom) }
    }

    /// Cuts the packet to `len` bytes: link-layer padding is not part of it.
    #[inline(always)]
    pub(crate) fn trim(self, len: u32) -> bool {
        if self.len() == len {
            return true;
        }
        self.trim_slow(len)
    }

    #[inline(never)]
    fn trim_slow(self, len: u32) -> bool {
        // SAFETY: By the type invariant.
        unsafe { c::nfo_skb_trim(self.as_ptr(), len) }
    }

    /// Ends what ties the packet to where it came from: a route (tunnel metadata), which ours would
    /// overwrite, and the local socket that sent it, of a container maybe, which is nothing to the
    /// queueing disciplines and rules on the way out. False if the packet is meant for a local
    /// socket.
    #[inline(always)]
    pub(crate) fn detach(self) -> bool {
        // SAFETY: By the type invariant; both words are plain integers here.
        let ties = unsafe {
            field!(self, __bindgen_anon_3.__bindgen_anon_1._skb_refdst) | field!(self, sk) as usize
        };

        // SAFETY: By the type invariant.
        ties == 0 || unsafe { c::nfo_skb_detach(self.as_ptr()) }
    }

    /// Gives the packet to the device that it leaves through: device, transport header; no receive
    /// time stamp, and no switch has sent it there.
    #[inline(always)]
    pub(crate) fn set_device(self, dev: *mut c::net_device, thoff: u32) {
        // SAFETY: By the type invariant, all fields are ours to change.
        unsafe {
            let skb = self.0.as_ptr();

            (*skb)
                .__bindgen_anon_1
                .__bindgen_anon_1
                .__bindgen_anon_1
                .dev = dev;

            let headers = (*skb).__bindgen_anon_4.headers.as_mut();
            headers.transport_header = headers.network_header.wrapping_add(thoff as u16);
            if headers.tstamp_type() == 0 {
                (*skb).__bindgen_anon_2.tstamp = 0;
            }
            #[cfg(CONFIG_NET_SWITCHDEV)]
            headers.set_offload_fwd_mark(0);
        }
    }

    /// Gives the packet its route, which is not counted: as we are in an RCU section.
    #[inline(always)]
    pub(crate) fn set_route(self, dst: *mut c::dst_entry) {
        // SAFETY: By the type invariant, all fields are ours to change.
        unsafe {
            let skb = self.0.as_ptr();

            (*skb).__bindgen_anon_3.__bindgen_anon_1._skb_refdst = dst as usize | DST_NOREF;
            (*skb).__bindgen_anon_4.headers.as_mut().set_slow_gro(1);
        }
    }

    /// Headers of `len` bytes in front of the network header are those of the `protocol` (network
    /// byte order) now; the caller pushes them.
    #[inline(always)]
    pub(crate) fn wrap(self, protocol: u16, len: u16) {
        // SAFETY: By the type invariant.
        let headers = unsafe { (*self.0.as_ptr()).__bindgen_anon_4.headers.as_mut() };

        headers.protocol = protocol;
        headers.network_header = headers.network_header.wrapping_sub(len);
    }

    /// Leaves a VLAN tag to the device, `__vlan_hwaccel_put_tag()`: EtherType in network byte
    /// order, and control word; zeroes for none.
    #[inline(always)]
    pub(crate) fn set_vlan_tag(self, [vlan_proto, vlan_tci]: [u16; 2]) {
        // SAFETY: By the type invariant.
        let headers = unsafe { (*self.0.as_ptr()).__bindgen_anon_4.headers.as_mut() };
        // SAFETY: Both views of the union are plain integers.
        let tag = unsafe { &mut headers.__bindgen_anon_2.__bindgen_anon_1 };

        tag.vlan_proto = vlan_proto;
        tag.vlan_tci = vlan_tci;
    }

    /// Sets what queueing disciplines look at.
    pub(crate) fn set_priority(self, priority: u32) {
        // SAFETY: By the type invariant.
        unsafe { (*self.0.as_ptr()).__bindgen_anon_4.headers.as_mut() }.priority = priority;
    }

    /// Sets what classifiers look at.
    pub(crate) fn set_mark(self, mark: u32) {
        // SAFETY: By the type invariant.
        let headers = unsafe { (*self.0.as_ptr()).__bindgen_anon_4.headers.as_mut() };

        headers.__bindgen_anon_4.mark = mark;
    }

    /// Forgets what the layers below have noted in the buffer.
    #[inline(always)]
    pub(crate) fn clear_cb(self) {
        // SAFETY: By the type invariant; it belongs to whoever has the packet.
        unsafe { (*self.0.as_ptr()).cb = [0; 48] };
    }

    /// Returns `skb->data`, the start of the linear part.
    #[inline(always)]
    pub(crate) fn data(self) -> *mut u8 {
        // SAFETY: By the type invariant.
        unsafe { field!(self, data) }
    }

    /// Moves `data` back by `len` bytes, which the caller has filled.
    ///
    /// # Safety
    ///
    /// There must be `len` bytes of headroom.
    #[inline(always)]
    pub(crate) unsafe fn push(self, len: u32) {
        // SAFETY: The caller checked the headroom.
        unsafe {
            let skb = self.0.as_ptr();

            (*skb).data = (*skb).data.sub(len as usize);
            (*skb).len = (*skb).len.wrapping_add(len);
        }
    }
}
