// SPDX-License-Identifier: GPL-2.0

//! A socket buffer at the ingress hook: plain field access for the packet path.
//!
//! C header: [`include/linux/skbuff.h`](srctree/include/linux/skbuff.h)

use super::{
    c,
    Rcu, //
};
use core::{
    mem::MaybeUninit,
    ptr::{
        self,
        NonNull, //
    },
    slice, //
};

/// `SKB_DST_NOREF`: the buffer's route is protected by RCU, not by a reference.
const DST_NOREF: usize = c::NFO_SKB_DST_NOREF;

/// `PACKET_HOST`, include/uapi/linux/if_packet.h.
pub(crate) const PACKET_HOST: u8 = c::NFO_PACKET_HOST;
/// `PACKET_OTHERHOST`: not to this device's address; to that of a bridge above it, maybe.
pub(crate) const PACKET_OTHERHOST: u8 = c::NFO_PACKET_OTHERHOST;

/// What `ip_summed` says about the transport checksum.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum IpSummed {
    /// Nothing is known, or it was verified: the field holds a full checksum.
    Full,
    /// The field holds the sum of the pseudo header; the rest is added on the way out.
    Partial,
}

/// What a packet is cut into on the way out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Segments {
    /// Nothing, or IP fragments.
    None,
    /// Packets of this many bytes of payload, with the headers of the whole.
    Payload(u32),
    /// Packets of sizes of their own, or with inner headers as well.
    Nested,
}

/// A socket buffer that the ingress hook was given, `data` at the network header.
///
/// # Invariants
///
/// The pointer is a valid `sk_buff`, nobody else changes its fields while we have it, and the hook
/// runs in an RCU read-side section with softirqs off.
#[derive(Clone, Copy)]
pub(crate) struct Skb(NonNull<c::sk_buff>);

/// The route of a packet, null if it has none.
///
/// # Safety
///
/// `skb` must be valid.
pub(crate) unsafe fn route(skb: *const c::sk_buff) -> *mut c::dst_entry {
    // SAFETY: The caller vouches for the packet.
    let refdst = unsafe { (*skb).__bindgen_anon_3.__bindgen_anon_1._skb_refdst };

    (refdst & !DST_NOREF) as *mut c::dst_entry
}

/// What a TCP packet says with its header at `thoff`; [`None`] if there is no whole one.
///
/// # Safety
///
/// `skb` must be valid.
pub(crate) unsafe fn tcp(skb: *const c::sk_buff, thoff: u32) -> Option<c::nfo_tcp> {
    let mut tcp = c::nfo_tcp {
        seq: 0,
        end: 0,
        ack: 0,
        window: 0,
        flags: 0,
    };

    // SAFETY: The caller vouches for the packet.
    unsafe { c::nfo_skb_tcp(skb, thoff, &mut tcp) }.then_some(tcp)
}

macro_rules! field {
    ($self:ident, $($f:tt)+) => {
        (*$self.0.as_ptr()).$($f)+
    };
}

macro_rules! header {
    ($self:ident, $($f:tt)+) => {
        (*$self.0.as_ptr()).__bindgen_anon_4.headers.as_ref().$($f)+
    };
}

mod output;

impl Skb {
    /// Wraps what C passed to the hook.
    ///
    /// # Safety
    ///
    /// `skb` must fulfil the type's invariants for as long as the value is used.
    #[inline(always)]
    pub(crate) unsafe fn from_raw(skb: *mut c::sk_buff) -> Self {
        // SAFETY: The caller vouches that it is a valid pointer.
        // INVARIANT: By the caller's promise.
        Self(unsafe { NonNull::new_unchecked(skb) })
    }

    /// The section that the hook runs in.
    #[inline(always)]
    pub(crate) fn rcu(&self) -> Rcu<'_> {
        // SAFETY: By the type invariant, as long as the value is used.
        unsafe { Rcu::assume() }
    }

    /// Returns the `struct sk_buff`, for calls into C.
    #[inline(always)]
    pub(crate) fn as_ptr(self) -> *mut c::sk_buff {
        self.0.as_ptr()
    }

    /// Whether the packet is addressed to this device, has nothing around the network header, did
    /// not come through IPsec, and has not been routed by a switch.
    #[inline(always)]
    pub(crate) fn is_plain(self) -> bool {
        self.is_ordinary() && self.vlan_all() == 0
    }

    /// The same, whether or not the device has taken a VLAN tag off.
    #[inline(always)]
    pub(crate) fn is_ordinary(self) -> bool {
        /// A value of the same type without any bit set.
        ///
        /// # Safety
        ///
        /// The type is one of plain integers.
        unsafe fn none<T>(_: &T) -> T {
            // SAFETY: By the contract of this function.
            unsafe { MaybeUninit::zeroed().assume_init() }
        }

        /// The first bits.
        fn first<T>(headers: &T) -> u64 {
            const { assert!(size_of::<T>() >= size_of::<u64>()) };
            // SAFETY: There are that many; every bit pattern is a valid integer.
            unsafe { ptr::from_ref(headers).cast::<u64>().read_unaligned() }
        }

        // SAFETY: By the type invariant; plain integers.
        let (headers, mut mask) = unsafe {
            let headers = (*self.0.as_ptr()).__bindgen_anon_4.headers.as_ref();

            (headers, none(headers))
        };
        // Both are among the first bits, so that one test does.
        mask.set_pkt_type(7);
        #[cfg(CONFIG_NET_SWITCHDEV)]
        mask.set_offload_l3_fwd_mark(1);
        first(headers) & first(&mask) == 0
            && !self.has_secpath()
            && self.mark() | self.priority() == 0
    }

    /// Returns `skb->protocol`: the EtherType, in network byte order.
    #[inline(always)]
    pub(crate) fn protocol(self) -> u16 {
        // SAFETY: By the type invariant; every bit pattern is a valid integer.
        unsafe { header!(self, protocol) }
    }

    /// `PACKET_HOST` (0) and so on: who the frame was sent to.
    #[inline(always)]
    pub(crate) fn pkt_type(self) -> u8 {
        // SAFETY: By the type invariant.
        unsafe { header!(self, pkt_type()) }
    }

    /// Whether a switch has routed the packet already (`offload_l3_fwd_mark`). Such a packet is
    /// here for the rules only, and must not be sent again.
    #[inline(always)]
    pub(crate) fn is_routed(self) -> bool {
        #[cfg(CONFIG_NET_SWITCHDEV)]
        // SAFETY: By the type invariant.
        unsafe {
            header!(self, offload_l3_fwd_mark()) != 0
        }
        #[cfg(not(CONFIG_NET_SWITCHDEV))]
        false
    }

    /// Whether the device has taken a VLAN tag off (`skb_vlan_tag_present()`).
    #[inline(always)]
    pub(crate) fn has_vlan_tag(self) -> bool {
        self.vlan_all() != 0
    }

    /// Returns the hardware-accelerated VLAN tag as one word, 0 if there is none.
    #[inline(always)]
    pub(crate) fn vlan_all(self) -> u32 {
        // SAFETY: By the type invariant; both views of the union are plain integers.
        unsafe { header!(self, __bindgen_anon_2).vlan_all }
    }

    /// Returns the hardware-accelerated VLAN tag: EtherType and control word, in the order of the
    /// CPU.
    pub(crate) fn vlan_tag(self) -> Option<(u16, u16)> {
        // SAFETY: As above.
        let tag = unsafe { header!(self, __bindgen_anon_2).__bindgen_anon_1 };

        self.has_vlan_tag()
            .then(|| (u16::from_be(tag.vlan_proto), tag.vlan_tci))
    }

    /// The priority in that tag, 0 without one.
    pub(crate) fn vlan_pcp(self) -> u8 {
        self.vlan_tag().map_or(0, |(_, tci)| (tci >> 13) as u8)
    }

    /// Whether the packet has neither mark nor priority.
    #[inline(always)]
    pub(crate) fn is_unmarked(self) -> bool {
        self.mark() | self.priority() == 0
    }

    /// Returns `skb->priority`, which queueing disciplines look at.
    #[inline(always)]
    pub(crate) fn priority(self) -> u32 {
        // SAFETY: By the type invariant.
        unsafe { header!(self, priority) }
    }

    /// Returns `skb->mark`, which classifiers look at.
    #[inline(always)]
    pub(crate) fn mark(self) -> u32 {
        // SAFETY: By the type invariant; both views of the union are plain integers.
        unsafe { header!(self, __bindgen_anon_4).mark }
    }

    /// The address that the frame was sent to, if it came with an Ethernet header.
    pub(crate) fn mac_destination(self) -> Option<[u8; 6]> {
        self.mac_address(0)
    }

    /// The address that sent the frame, if it came with an Ethernet header.
    pub(crate) fn mac_source(self) -> Option<[u8; 6]> {
        self.mac_address(6)
    }

    /// The address so far behind the start of the Ethernet header, if there is one.
    fn mac_address(self, at: u16) -> Option<[u8; 6]> {
        /// `ETH_HLEN`.
        const ETH_HLEN: u16 = c::NFO_ETH_HLEN as u16;

        // SAFETY: By the type invariant. The header, if there is one, lies before the network
        // header in the linear part.
        unsafe {
            let mac = header!(self, mac_header);
            let network = header!(self, network_header);

            (mac < network && network.wrapping_sub(mac) >= ETH_HLEN).then(|| {
                let address = field!(self, head).add(mac.into()).add(at.into());
                address.cast::<[u8; 6]>().read()
            })
        }
    }

    /// Takes off what is around the IP packet that starts at `offset` and is of `ethertype`
    /// (network byte order). It is for this host, as the devices above would say whose address the
    /// frame has: to others nobody sends ICMP errors.
    ///
    /// # Safety
    ///
    /// The linear part is longer than `offset`.
    #[inline(always)]
    pub(crate) unsafe fn decapsulate(self, offset: u32, ethertype: u16) {
        // SAFETY: By the type invariant all fields are ours to change; the caller vouches for the
        // offset.
        unsafe {
            let skb = self.0.as_ptr();

            (*skb).data = (*skb).data.add(offset as usize);
            (*skb).len = (*skb).len.wrapping_sub(offset);
            let network = (*skb).data.offset_from((*skb).head) as u16;

            let headers = (*skb).__bindgen_anon_4.headers.as_mut();
            headers.network_header = network;
            headers.protocol = ethertype;
            headers.set_pkt_type(PACKET_HOST);
            headers.__bindgen_anon_2.vlan_all = 0;
        }
    }

    /// Takes a header of `len` bytes off what the packet starts with, which is of `protocol`
    /// (network byte order) then.
    ///
    /// # Safety
    ///
    /// The linear part is longer than `len`, and the network header is at its start.
    #[inline(always)]
    pub(crate) unsafe fn pull_header(self, len: u32, protocol: u16) {
        // SAFETY: By the type invariant all fields are ours to change; the rest by the contract of
        // this function.
        unsafe {
            let skb = self.0.as_ptr();

            (*skb).data = (*skb).data.add(len as usize);
            (*skb).len = (*skb).len.wrapping_sub(len);

            let headers = (*skb).__bindgen_anon_4.headers.as_mut();
            headers.network_header = headers.network_header.wrapping_add(len as u16);
            headers.protocol = protocol;
        }
    }

    /// Undoes [`Skb::pull_header`]: the packet is of `protocol` again.
    ///
    /// # Safety
    ///
    /// As many bytes were pulled.
    #[cold]
    pub(crate) unsafe fn push_header(self, len: u32, protocol: u16) {
        // SAFETY: As above.
        unsafe {
            let skb = self.0.as_ptr();

            (*skb).data = (*skb).data.sub(len as usize);
            (*skb).len = (*skb).len.wrapping_add(len);

            let headers = (*skb).__bindgen_anon_4.headers.as_mut();
            headers.network_header = headers.network_header.wrapping_sub(len as u16);
            headers.protocol = protocol;
        }
    }

    /// Prepares the packet for taking the outer header of a tunnel off
    /// (`iptunnel_pull_offloads()`): what the device said of the whole does not hold for the inner
    /// packet.
    pub(crate) fn tunnel_pull(self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { c::nfo_skb_tunnel_pull(self.as_ptr()) }
    }

    /// Whether the packet came through IPsec (`skb_sec_path()`).
    #[inline(always)]
    pub(crate) fn has_secpath(self) -> bool {
        #[cfg(CONFIG_XFRM)]
        {
            const SEC_PATH: u8 = 1 << c::skb_ext_id_SKB_EXT_SEC_PATH;

            // SAFETY: By the type invariant.
            unsafe { field!(self, active_extensions) & SEC_PATH != 0 }
        }
        #[cfg(not(CONFIG_XFRM))]
        false
    }

    /// Whether the IPsec policies let the packet be forwarded by `dst` (`xfrm_policy_check()`). The
    /// network header must be at `data`.
    pub(crate) fn ipsec_admits(self, dst: *mut c::dst_entry, family: u8) -> bool {
        // SAFETY: By the type invariant; the route is valid while RCU is held.
        unsafe { c::nfo_ipsec_admits(self.as_ptr(), dst, family) }
    }

    /// Whether conntrack has seen and counted the packet. With br_netfilter it does so at the
    /// bridge, before the ingress hook.
    #[inline(always)]
    pub(crate) fn is_tracked(self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { field!(self, _nfct) != 0 }
    }

    /// Bytes from the network header to the end.
    #[inline(always)]
    pub(crate) fn len(self) -> u32 {
        // SAFETY: By the type invariant.
        unsafe { field!(self, len) }
    }

    /// Bytes of that which are not in the linear part.
    #[inline(always)]
    fn data_len(self) -> u32 {
        // SAFETY: By the type invariant.
        unsafe { field!(self, data_len) }
    }

    /// Returns the index of the device (`skb->dev`) that the packet came in through.
    #[inline(always)]
    pub(crate) fn ifindex(self) -> u32 {
        // SAFETY: By the type invariant; an skb at the ingress hook has a device.
        unsafe {
            let dev = field!(self, __bindgen_anon_1.__bindgen_anon_1.__bindgen_anon_1.dev);
            (*dev).ifindex as u32
        }
    }

    /// The linear part, from the network header on.
    #[inline(always)]
    pub(crate) fn head<'a>(self) -> &'a [u8] {
        let len = self.len().wrapping_sub(self.data_len()) as usize;

        // SAFETY: C keeps `len - data_len` bytes from `data` on in the linear part, and nobody
        // changes them while the hook runs. The caller drops the slice before it changes the
        // packet or moves its data.
        unsafe { slice::from_raw_parts(field!(self, data), len) }
    }

    /// The linear part, writable.
    ///
    /// # Safety
    ///
    /// [`Skb::make_writable`] has succeeded for the part that is written, and no other slice of
    /// this packet is alive.
    #[inline(always)]
    pub(crate) unsafe fn head_mut<'a>(self) -> &'a mut [u8] {
        let len = self.len().wrapping_sub(self.data_len()) as usize;

        // SAFETY: As for `head`; the caller has exclusive use.
        unsafe { slice::from_raw_parts_mut(field!(self, data), len) }
    }

    /// Makes sure that `len` bytes are in the linear part. Data may move.
    #[cold]
    pub(crate) fn pull(self, len: u32) -> bool {
        // SAFETY: By the type invariant.
        unsafe { c::nfo_skb_pull(self.as_ptr(), len) }
    }

    /// Makes the first bytes ours alone, as many as `len` says, which most packets need not know.
    /// Data may move.
    #[inline(always)]
    pub(crate) fn make_writable(self, len: impl FnOnce() -> u32) -> bool {
        // SAFETY: By the type invariant.
        if likely_zero(unsafe { self.0.as_ref() }.cloned()) {
            return true;
        }
        self.unclone(len())
    }

    #[inline(never)]
    fn unclone(self, len: u32) -> bool {
        // SAFETY: By the type invariant.
        unsafe { c::skb_ensure_writable(self.as_ptr(), len) == 0 }
    }

    /// Bytes free before the network header.
    #[inline(always)]
    pub(crate) fn headroom(self) -> u32 {
        // SAFETY: By the type invariant; `head` and `data` point into one allocation.
        unsafe { field!(self, data).offset_from(field!(self, head)) as u32 }
    }

    /// State of the transport checksum. A checksum over the whole packet (`CHECKSUM_COMPLETE`)
    /// does not survive forwarding, as in `skb_forward_csum()`.
    #[inline(always)]
    pub(crate) fn forward_csum(self) -> IpSummed {
        const CHECKSUM_COMPLETE: u8 = c::NFO_CHECKSUM_COMPLETE;
        const CHECKSUM_PARTIAL: u8 = c::NFO_CHECKSUM_PARTIAL;

        // SAFETY: By the type invariant.
        let headers = unsafe { (*self.0.as_ptr()).__bindgen_anon_4.headers.as_mut() };

        match headers.ip_summed() {
            CHECKSUM_PARTIAL => IpSummed::Partial,
            CHECKSUM_COMPLETE => {
                headers.set_ip_summed(0);
                IpSummed::Full
            }
            _ => IpSummed::Full,
        }
    }

    /// Whether the stack will cut the packet into segments of TCP (`skb_is_gso_tcp()`).
    #[cold]
    pub(crate) fn is_gso_tcp(self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { c::nfo_skb_is_gso_tcp(self.as_ptr()) }
    }

    /// Returns what the stack will cut a super-packet into on the way out.
    pub(crate) fn segments(self) -> Segments {
        /// `SKB_GSO_UDP`: fragments, include/linux/skbuff.h.
        const GSO_UDP: u32 = c::NFO_GSO_UDP;
        /// `SKB_GSO_GRE`, `SKB_GSO_GRE_CSUM`, `SKB_GSO_UDP_TUNNEL`, `SKB_GSO_UDP_TUNNEL_CSUM`.
        const GSO_TUNNEL: u32 = c::NFO_GSO_TUNNEL;
        /// `GSO_BY_FRAGS`.
        const BY_FRAGS: u16 = c::NFO_GSO_BY_FRAGS;

        // SAFETY: By the type invariant; the shared info follows the linear part, whose end is an
        // offset or a pointer: `NET_SKBUFF_DATA_USES_OFFSET`, include/linux/skbuff.h.
        let (size, kind) = unsafe {
            #[cfg(target_pointer_width = "64")]
            let end = field!(self, head).add(field!(self, end) as usize);
            #[cfg(not(target_pointer_width = "64"))]
            let end = field!(self, end);

            let shinfo = end.cast::<c::skb_shared_info>();
            ((*shinfo).gso_size, (*shinfo).gso_type)
        };

        if size == 0 || kind & GSO_UDP != 0 {
            Segments::None
        } else if size == BY_FRAGS || kind & GSO_TUNNEL != 0 {
            Segments::Nested
        } else {
            Segments::Payload(size.into())
        }
    }

    /// Whether each of the [`Segments::Nested`] fits the MTU. The network header is at `network`,
    /// the transport header `thoff` bytes from there.
    pub(crate) fn segments_fit(self, network: u32, thoff: u32, mtu: u32) -> bool {
        // SAFETY: By the type invariant.
        unsafe { c::nfo_skb_segments_fit(self.as_ptr(), network, network.wrapping_add(thoff), mtu) }
    }

    /// Returns a fingerprint of the packet, which tells it from others on their way through the
    /// stack. Its network header is at `network`, its transport header `thoff` bytes from there.
    pub(crate) fn fingerprint(self, network: u32, thoff: u32, proto: u8) -> u32 {
        // SAFETY: By the type invariant.
        unsafe {
            c::nfo_skb_fingerprint(self.as_ptr(), network, network.wrapping_add(thoff), proto)
        }
    }

    /// Returns four bytes at `at`, linear or not; [`None`] past the end.
    #[cold]
    pub(crate) fn peek(self, at: usize) -> Option<[u8; 4]> {
        let mut bytes = [0; 4];

        // SAFETY: By the type invariant, and C writes four bytes.
        unsafe { c::nfo_skb_peek(self.as_ptr(), at as u32, &mut bytes) }.then_some(bytes)
    }

    /// Notes what the packet came in with, for [`probe_noted`](super::probe_noted).
    pub(crate) fn note_probe(self, probe: &c::nfo_probe) {
        // SAFETY: In the ingress hook, by the type invariant: softirqs are off.
        unsafe { c::nfo_probe_note(probe) };
    }
}

#[inline(always)]
fn likely_zero(bit: u8) -> bool {
    bit == 0
}
