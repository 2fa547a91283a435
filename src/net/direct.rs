// SPDX-License-Identifier: GPL-2.0

//! Transmit past the upper devices: `FLOW_OFFLOAD_XMIT_DIRECT` of nf_flow_table.
//!
//! A bridge, a VLAN device and a PPP device pass a packet on to a device below, and mostly nobody
//! is there to see it in between. Then all their headers are pushed at once, the devices count the
//! packet as sent, and it is queued at the lowest device. The worker resolves a [`Direct`] for a
//! neighbour. It asks of every device on the way whether anybody would see a packet or change it: a
//! queueing discipline, a tc filter, a chain at egress or of the bridge, a tap, an egress priority
//! map, a compressor. If somebody would, there is no [`Direct`], and packets enter the stack at the
//! route's device.
//!
//! Most of these observers give no notice when they come. So the words of memory in which they show
//! are compared for each packet (`struct nfo_watch`), and the first packet after a change goes
//! through the devices. Notifiers exist for the rest, and for whatever frees these words: they
//! raise a number of the network namespace, which is compared first. A bridge that learns or
//! forgets a station raises another number, which stations with the same hash of their address
//! share.

use crate::{
    ffi::{
        self,
        c,
        skb::{
            Segments,
            Skb, //
        },
        Rcu, //
    },
    net::{
        device_path::{
            self,
            WalkEnd, //
        },
        family::Family,
        nf_tables::NftRef,
        route::NeighRef, //
    }, //
};
use core::{
    mem::{
        offset_of,
        MaybeUninit, //
    },
    ptr::{
        self,
        NonNull, //
    },
    sync::atomic::{
        AtomicUsize,
        Ordering, //
    }, //
};
use kernel::prelude::*;
use nft_flow::encap::{
    ethertype,
    Encap, //
};

/// Bytes that are copied in front of a packet; the header is at their end.
const ROOM: usize = 32;
/// So many words are compared at a time.
const ZEROS_ROW: usize = c::NFO_DIRECT_ZEROS_ROW as usize;
const WATCHES_ROW: usize = c::NFO_DIRECT_WATCHES_ROW as usize;
/// `ETH_P_PPP_SES`, in network byte order.
const ETH_P_PPP_SES: u16 = ethertype::PPPOE.to_be();
/// `PPPOE_SES_HLEN`: the PPPoE header and the protocol of PPP.
const PPPOE_SES_HLEN: u16 = 8;
/// Version and type of a PPPoE session's frame, and its code.
const PPPOE_DATA: [u8; 2] = [0x11, 0];

/// Why there is no way past the devices.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is nothing to go past, or somebody wants to see the packets.
    Stack,
    /// It cannot be told without RTNL.
    Rtnl,
}

/// What is known of the spanning tree at the ports of bridges on the way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ports {
    /// Nothing.
    Unknown,
    /// They forward.
    Forward,
    /// RTNL is held: they can be asked.
    Ask,
}

/// How packets to a neighbour leave by the lowest device.
///
/// # Invariants
///
/// - While `topology` is at `generation`, the devices of `path` are registered, or a grace period
///   has not passed since they were. The words of `path.watches` are there as long.
/// - `topology` outlives this.
pub(crate) struct Direct {
    topology: NonNull<AtomicUsize>,
    generation: usize,
    /// The neighbour's address as a word, with the bytes that `mask` selects.
    address: u64,
    mask: u64,
    path: c::nfo_direct,
    /// What is in front of the packet, at the end.
    header: [u8; ROOM],
    len: u32,
    /// Bytes that have to be free before the network header.
    headroom: u32,
    /// `skb->protocol`, in network byte order; 0: that of the packet.
    protocol: u16,
    /// It ends with the header of a PPPoE session.
    pppoe: bool,
    /// `skb->vlan_proto` and `skb->vlan_tci`.
    tag: [u16; 2],
    rcu: c::callback_head,
}

// SAFETY: What the pointers point at is only read or changed atomically, under the type invariants.
unsafe impl Send for Direct {}
// SAFETY: As above.
unsafe impl Sync for Direct {}

/// Returns the link-layer address of a neighbour, and two bytes more.
///
/// # Safety
///
/// `n` is valid.
#[inline(always)]
unsafe fn address(n: *const c::neighbour) -> u64 {
    const fn len<const N: usize>(_: fn(c::neighbour) -> [u8; N]) -> usize {
        N
    }
    const { assert!(len(|n| n.ha) >= size_of::<u64>()) };
    // SAFETY: By the contract of this function; there are as many bytes, aligned to eight.
    unsafe { (&raw const (*n).ha).cast::<u64>().read_volatile() }
}

impl Direct {
    /// Resolves how packets of a family leave that go to the neighbour `n`.
    ///
    /// # Errors
    ///
    /// They have to go through the devices, or there is no memory.
    ///
    /// # Safety
    ///
    /// `topology` is that of the namespace of the device of `n`, and outlives the result.
    pub(crate) unsafe fn resolve<F: Family>(
        rcu: Rcu<'_>,
        n: NeighRef<'_>,
        nft: NftRef,
        topology: &AtomicUsize,
        ports: Ports,
    ) -> Result<KBox<Self>, Refusal> {
        // Before anything is looked at.
        let generation = topology.load(Ordering::Acquire);
        let dev = n.device(rcu);
        let net = dev.net();
        let destination = device_path::Destination::Neigh(n);
        let walk = device_path::fill_forward_path::<F>(rcu, dev, &destination, nft);
        let (lowest, stack) = walk.lowest();

        if walk.end() != WalkEnd::Lowest || stack.tunnel.is_some() {
            return Err(Refusal::Stack);
        }
        if stack.bridge_ports[0].is_some() && ports == Ports::Unknown {
            return Err(Refusal::Rtnl);
        }
        if !stack
            .bridge_ports
            .iter()
            .flatten()
            .all(|port| port.is_forwarding(net, ports == Ports::Ask, true))
        {
            return Err(Refusal::Stack);
        }

        // More than a kilobyte: not on the stack.
        let mut this = KBox::new(
            Self {
                topology: topology.into(),
                generation,
                address: 0,
                mask: 0,
                // SAFETY: Plain integers and pointers.
                path: unsafe { MaybeUninit::zeroed().assume_init() },
                header: [0; ROOM],
                len: 0,
                headroom: 0,
                protocol: 0,
                pppoe: stack.peer.is_some(),
                tag: [0; 2],
                rcu: c::callback_head {
                    next: ptr::null_mut(),
                    func: None,
                },
            },
            GFP_ATOMIC | __GFP_NOWARN,
        )
        .map_err(|_| Refusal::Stack)?;
        let dst = match stack.peer {
            Some(peer) => peer,
            None => {
                let dst = n.address().ok_or(Refusal::Stack)?;
                let [a, b, c, d, e, f] = dst;

                this.mask = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
                this.address = u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]);
                dst
            }
        };

        let tag = stack
            .encaps
            .as_slice()
            .first()
            .map_or(0, |outermost| outermost.ethertype());
        let devices = stack
            .devices
            .iter()
            .zip(&stack.rx_overhead)
            .zip(&stack.tags);
        // SAFETY: RCU is held. The structure is ours, and the address has six bytes.
        let usable = unsafe {
            (stack.bridge_ports[0].is_none() || c::nfo_direct_station(&mut this.path, dst.as_ptr()))
                && devices
                    .take_while(|((dev, _), _)| **dev != 0 && **dev != lowest)
                    .all(|((dev, around), tag)| {
                        c::nfo_direct_add(
                            net.as_ptr(),
                            *dev,
                            (*around).into(),
                            *tag,
                            &mut this.path,
                        )
                    })
                && c::nfo_direct_finish(net.as_ptr(), lowest, tag, &mut this.path)
        };
        if !usable || !this.put_header(dst, stack.mac, stack.encaps.as_slice()) {
            return Err(Refusal::Stack);
        }
        this.headroom = this.path.headroom.wrapping_add(this.len).max(ROOM as u32);
        // INVARIANT: The devices were registered after `generation` was read.
        Ok(this)
    }

    /// Makes the header. An outermost VLAN tag is left to the device, or to `validate_xmit_vlan()`,
    /// where the packet goes that way. Returns false if there is no room.
    fn put_header(&mut self, dst: [u8; 6], src: [u8; 6], mut encaps: &[Encap]) -> bool {
        if let [tag, inner @ ..] = encaps {
            if tag.ethertype() != ethertype::PPPOE && !self.path.push_tag {
                self.tag = [tag.ethertype().to_be(), tag.id()];
                encaps = inner;
            }
        }
        self.protocol = encaps.first().map_or(0, |encap| encap.ethertype().to_be());

        let mut header = [0; ROOM];
        let mut len = 0;
        let mut put = |bytes: &[u8]| {
            let at = header
                .get_mut(len..)
                .and_then(|rest| rest.get_mut(..bytes.len()));

            if let Some(at) = at {
                at.copy_from_slice(bytes);
            }
            len += bytes.len();
        };
        put(&dst);
        put(&src);
        for encap in encaps {
            put(&encap.ethertype().to_be_bytes());
            if encap.ethertype() == ethertype::PPPOE {
                put(&PPPOE_DATA);
                put(&encap.id().to_be_bytes());
                // The length.
                put(&[0; 2]);
            } else {
                put(&encap.id().to_be_bytes());
            }
        }
        // The protocol of what follows, see `send`.
        put(&[0; 2]);
        if len > ROOM {
            return false;
        }
        header.rotate_right(ROOM - len);
        self.header = header;
        self.len = len as u32;
        true
    }

    /// The words that have to stay 0.
    #[inline(always)]
    fn zeros(&self) -> impl Iterator<Item = &[*const usize]> {
        self.path
            .zeros
            .chunks_exact(ZEROS_ROW)
            .take(self.path.n_zeros as usize / ZEROS_ROW)
    }

    /// The other words, and how they have to stay.
    #[inline(always)]
    fn watches(&self) -> impl Iterator<Item = &[c::nfo_watch]> {
        self.path
            .watches
            .chunks_exact(WATCHES_ROW)
            .take(self.path.n_watches as usize / WATCHES_ROW)
    }

    /// Whether everything on the way to the neighbour `n` is as it was.
    ///
    /// # Safety
    ///
    /// RCU is held, and `n` is valid.
    #[inline(always)]
    pub(crate) unsafe fn is_valid(&self, n: *const c::neighbour) -> bool {
        // SAFETY: By the type invariant; `n` by the contract of this function.
        let (generation, address) = unsafe {
            (
                self.topology.as_ref().load(Ordering::Acquire),
                address(n) & self.mask,
            )
        };

        if generation != self.generation {
            return false;
        }
        let mut changed = address ^ self.address;
        for row in self.zeros() {
            for word in row {
                // SAFETY: By the type invariant.
                changed |= unsafe { word.read_volatile() } as u64;
            }
        }
        for row in self.watches() {
            for watch in row {
                // SAFETY: By the type invariant.
                changed |= unsafe { watch.word.read_volatile() ^ watch.value } as u64;
            }
        }
        changed == 0
    }

    /// Whether a packet goes that way. PPP lets some families pass, and has what is made of many
    /// packets cut.
    ///
    /// # Safety
    ///
    /// RCU is held, and [`Direct::is_valid`] was true in this section.
    #[inline(always)]
    pub(crate) unsafe fn admits<F: Family>(&self, skb: Skb) -> bool {
        // SAFETY: The same contract.
        !self.pppoe || unsafe { self.session_admits::<F>(skb) }
    }

    /// The same for what leaves by a PPPoE session.
    ///
    /// # Safety
    ///
    /// As for [`Direct::admits`].
    unsafe fn session_admits<F: Family>(&self, skb: Skb) -> bool {
        let family = if F::NFPROTO == c::NFPROTO_IPV6 as u8 {
            c::NFO_DIRECT_IPV6
        } else {
            c::NFO_DIRECT_IPV4
        };

        // SAFETY: The session's channel is freed a grace period after PPP has lost it. The packet
        // is valid, so PPP had it in this RCU section.
        let channel = unsafe { self.path.channel.read_volatile() };

        channel == self.path.channel_index
            && self.path.no_families & family as u8 == 0
            && skb.segments() == Segments::None
    }

    /// Whether the other one says the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.generation == other.generation
            && ptr::eq(self.path.dev, other.path.dev)
            && ptr::eq(self.path.txq, other.path.txq)
            && (self.address, self.mask) == (other.address, other.mask)
            && (self.header, self.len, self.tag) == (other.header, other.len, other.tag)
            && self.headroom == other.headroom
            && self.path.no_families == other.path.no_families
            && self.path.channel_index == other.path.channel_index
            && self.zeros().eq(other.zeros())
            && self
                .watches()
                .flatten()
                .map(|watch| (watch.word, watch.value))
                .eq(other
                    .watches()
                    .flatten()
                    .map(|watch| (watch.word, watch.value)))
    }

    /// Frees it after a grace period.
    ///
    /// # Safety
    ///
    /// It came from [`KBox::into_raw`], and nobody finds it any more; called once.
    pub(crate) unsafe fn free(this: NonNull<Self>) {
        /// # Safety
        ///
        /// Called by RCU only, for the `rcu` of what [`Direct::free`] was called for.
        unsafe extern "C" fn callback(head: *mut c::callback_head) {
            // SAFETY: `head` is the `rcu` of a leaked box that nobody sees any more.
            unsafe {
                drop(KBox::<Direct>::from_raw(
                    head.byte_sub(offset_of!(Direct, rcu)).cast(),
                ));
            }
        }

        // SAFETY: By the contract of this function.
        unsafe { c::call_rcu(&raw mut (*this.as_ptr()).rcu, Some(callback)) };
    }

    /// Whether there are devices above the lowest one.
    #[inline(always)]
    pub(crate) fn is_past_devices(&self) -> bool {
        self.path.n_devices != 0
    }

    /// Bytes that have to be free before the network header.
    #[inline(always)]
    pub(crate) fn headroom(&self) -> u32 {
        self.headroom
    }

    /// Sends a packet, which is gone then.
    ///
    /// # Safety
    ///
    /// [`Direct::is_valid`] and [`Direct::admits`] have been true of this packet in this RCU section, there are [`Direct::headroom`]
    /// bytes of headroom, which may be written, [`Skb::detach`] has succeeded, and `dst` is the packet's route.
    #[inline(always)]
    pub(crate) unsafe fn send<F: Family>(&self, skb: Skb, dst: *mut c::dst_entry, thoff: u32) {
        let len = skb.len();

        skb.set_device(self.path.dev, thoff);
        // SAFETY: By the contract of this function, and the type invariant.
        unsafe {
            let end = skb.data();

            end.sub(ROOM).cast::<[u8; ROOM]>().write(self.header);
            if self.pppoe {
                let len = (len as u16).wrapping_add(2);

                end.sub(4).cast::<[u8; 2]>().write(len.to_be_bytes());
                end.sub(2).cast::<[u8; 2]>().write(F::PPP.to_be_bytes());
                skb.wrap(ETH_P_PPP_SES, PPPOE_SES_HLEN);
            } else {
                end.sub(2)
                    .cast::<[u8; 2]>()
                    .write(F::ETHERTYPE.to_ne_bytes());
            }
            if self.protocol != 0 {
                skb.wrap(self.protocol, 0);
            }
            skb.push(self.len);
            skb.set_vlan_tag(self.tag);
            self.count(len);
            if self.path.txq.is_null() {
                skb.set_route(dst);
                c::__dev_queue_xmit(skb.as_ptr(), ptr::null_mut());
            } else {
                c::nfo_direct_xmit(skb.as_ptr(), &raw const self.path);
            }
        }
    }

    /// The devices above count a packet of `len` bytes from the network header on.
    #[inline(always)]
    fn count(&self, len: u32) {
        for upper in self.path.devices.iter().take(self.path.n_devices as usize) {
            #[cfg(all(target_arch = "x86_64", CONFIG_SMP, not(CONFIG_UML)))]
            // SAFETY: `this_cpu_inc()` and `this_cpu_add()`: the GS segment begins at this CPU's
            // data. By the type invariant the counters are there until the end of the RCU section,
            // packets first.
            unsafe {
                core::arch::asm!(
                    "inc qword ptr gs:[{counter}]",
                    "add qword ptr gs:[{counter} + 8], {len}",
                    counter = in(reg) upper.counters,
                    len = in(reg) u64::from(len.wrapping_add(upper.around)),
                    options(nostack),
                );
            }
            #[cfg(not(all(target_arch = "x86_64", CONFIG_SMP, not(CONFIG_UML))))]
            // SAFETY: By the type invariant the counters are there until the end of the RCU
            // section.
            unsafe {
                c::nfo_direct_count(upper, len);
            }
        }
        if let Some(last_xmit) = NonNull::new(self.path.last_xmit) {
            // SAFETY: By the type invariant it is there; C writes it with single stores as well.
            unsafe {
                let now = ffi::jiffies();

                if last_xmit.read_volatile() != now {
                    last_xmit.write_volatile(now);
                }
            }
        }
    }
}
