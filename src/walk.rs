// SPDX-License-Identifier: GPL-2.0

//! The devices between a route and the wire.
//!
//! They are walked down from the route's device; the lowest one that the flowtable lists is where
//! packets come in, with the encapsulations of all devices above it.

use crate::{
    family::Family,
    ffi::c, //
};
use core::mem::MaybeUninit;
use nft_flow::{
    encap::{
        self,
        Encap,
        Encaps, //
    },
    key::{
        PortId,
        Seed, //
    },
    reason::SkipReason, //
};

/// `IPPROTO_IPIP`, include/uapi/linux/in.h.
const IPPROTO_IPIP: u8 = 4;
/// `DEV_PATH_BR_VLAN_*`, include/linux/netdevice.h.
const BR_VLAN_KEEP: u32 = 0;
const BR_VLAN_TAG: u32 = 1;
const BR_VLAN_UNTAG: u32 = 2;

/// Most devices between the wire and the route that are remembered.
pub(crate) const MAX_DEVICES: usize = c::NET_DEVICE_PATH_STACK_MAX as usize;

/// Where packets come in that answer those of a direction.
pub(crate) struct Input<'a> {
    /// The device whose hook sees them.
    pub(crate) ifindex: PortId,
    /// What is around them there.
    pub(crate) encaps: Encaps,
    /// Outer addresses as they arrive, and IP protocol.
    pub(crate) tunnel: Option<([u64; 2], [u64; 2], u8)>,
    /// The link-layer address that they are sent to.
    pub(crate) mac: [u8; 6],
    /// They pass a bridge, which wants to see its stations from time to time.
    pub(crate) bridged: bool,
    /// All devices that they pass up to the route, 0 for none.
    pub(crate) devices: [u32; MAX_DEVICES],
    /// Of the flowtable.
    pub(crate) seed: &'a Seed,
}

impl Input<'_> {
    /// Are the frames other than those that the interface's number tells?
    pub(crate) fn has_frame_shape(&self) -> bool {
        self.bridged || !self.encaps.is_empty()
    }
}

/// What a packet has around it at one device of the stack.
#[derive(Clone)]
struct Layer {
    encaps: Encaps,
    tunnel: Option<([u64; 2], [u64; 2], u8)>,
    mac: [u8; 6],
    bridged: bool,
}

/// The way down from a route's device.
pub(crate) struct Walk {
    nft: *mut c::nft_flowtable,
    dev: *const c::net_device,
    here: Layer,
    /// The lowest listed device so far.
    best: Option<(u32, Layer)>,
    devices: [u32; MAX_DEVICES],
    depth: usize,
    /// The way could not be found for want of the neighbour's address.
    lost: bool,
}

impl Walk {
    /// # Safety
    ///
    /// RCU is held as long as the walk is used, and `dev` is a device.
    unsafe fn new(dev: *const c::net_device, nft: *mut c::nft_flowtable) -> Self {
        let here = Layer {
            encaps: Encaps::default(),
            tunnel: None,
            mac: [0; 6],
            bridged: false,
        };
        let mut this = Self {
            nft,
            dev,
            here,
            best: None,
            devices: [0; MAX_DEVICES],
            depth: 0,
            lost: false,
        };

        this.at(dev);
        this
    }

    /// A walk that ends where it begins: packets come in there, whether it is listed or not.
    ///
    /// # Safety
    ///
    /// As for [`Walk::new`].
    pub(crate) unsafe fn stay(dev: *const c::net_device, nft: *mut c::nft_flowtable) -> Self {
        // SAFETY: The same contract.
        let mut this = unsafe { Self::new(dev, nft) };

        this.best = Some((this.ifindex(), this.here.clone()));
        this
    }

    fn ifindex(&self) -> u32 {
        // SAFETY: A device of the walk, and RCU is held.
        unsafe { (*self.dev).ifindex as u32 }
    }

    /// Arrives at a device.
    fn at(&mut self, dev: *const c::net_device) {
        self.dev = dev;
        if let Some(place) = self.devices.get_mut(self.depth) {
            // SAFETY: A device of the walk, and RCU is held.
            *place = unsafe { (*dev).ifindex as u32 };
            self.depth += 1;
        }
        // SAFETY: As above. The address of an Ethernet device has six bytes.
        unsafe {
            if self.here.mac == [0; 6] && (*dev).addr_len == 6 {
                self.here.mac = (*dev).dev_addr.cast::<[u8; 6]>().read();
            }
            if c::nfo_dev_listed(self.nft, dev) {
                self.best = Some((self.ifindex(), self.here.clone()));
            }
        }
    }

    /// Looks at what the device of `path` adds on the way down; false if it cannot be followed.
    fn through(&mut self, path: &c::net_device_path) -> bool {
        let encap = |encap: &c::net_device_path__bindgen_ty_1__bindgen_ty_1| {
            Encap::new(u16::from_be(encap.proto), encap.id)
        };

        // SAFETY: The kind says which member of the union is meant.
        unsafe {
            match path.type_ {
                c::net_device_path_type_DEV_PATH_VLAN | c::net_device_path_type_DEV_PATH_PPPOE => {
                    self.here
                        .encaps
                        .push_outer(encap(&path.__bindgen_anon_1.encap))
                }
                c::net_device_path_type_DEV_PATH_BRIDGE => {
                    let bridge = &path.__bindgen_anon_1.bridge;

                    self.here.bridged = true;
                    match bridge.vlan_mode {
                        BR_VLAN_KEEP => true,
                        BR_VLAN_TAG => self.here.encaps.push_outer(Encap::vlan(
                            u16::from_be(bridge.vlan_proto),
                            bridge.vlan_id,
                        )),
                        BR_VLAN_UNTAG => self.here.encaps.pop_outer(),
                        // Tagged by the switch on one side of the hook only.
                        _ => false,
                    }
                }
                c::net_device_path_type_DEV_PATH_TUN => {
                    let tun = &path.__bindgen_anon_1.tun;
                    if self.here.tunnel.is_some() || !self.here.encaps.is_empty() {
                        return false;
                    }
                    let (src, dst) = (&tun.__bindgen_anon_1, &tun.__bindgen_anon_2);
                    let addr = |v4: u32, v6: &c::in6_addr| match tun.inner_proto {
                        IPPROTO_IPIP => encap::tunnel_addr4(v4),
                        _ => (&raw const *v6).cast::<[u64; 2]>().read_unaligned(),
                    };

                    // Answers arrive from the other end.
                    self.here.tunnel = Some((
                        addr(dst.dst_v4.s_addr, &dst.dst_v6),
                        addr(src.src_v4.s_addr, &src.src_v6),
                        tun.inner_proto,
                    ));
                    self.here.mac = [0; 6];
                    true
                }
                _ => false,
            }
        }
    }

    /// Where packets come in.
    pub(crate) fn finish(self, seed: &Seed) -> Result<Input<'_>, SkipReason> {
        let (ifindex, layer) = self.best.ok_or(match self.lost {
            true => SkipReason::Neigh,
            false => SkipReason::DeviceNotListed,
        })?;

        Ok(Input {
            ifindex: PortId::from_ifindex(ifindex).ok_or(SkipReason::Ifindex)?,
            encaps: layer.encaps,
            tunnel: layer.tunnel,
            mac: layer.mac,
            bridged: layer.bridged,
            devices: self.devices,
            seed,
        })
    }
}

/// Walks down from `dev` towards the neighbour. A device that cannot say what is below it ends the
/// walk: it may be listed itself.
///
/// # Safety
///
/// RCU must be held.
pub(crate) unsafe fn down<F: Family>(
    dev: *const c::net_device,
    neigh: *mut c::neighbour,
    nft: *mut c::nft_flowtable,
) -> (Walk, bool) {
    // SAFETY: RCU is held. Only the first `num_paths` paths are looked at, which C has filled in.
    unsafe {
        let mut walk = Walk::new(dev, nft);

        if (*(*dev).netdev_ops).ndo_fill_forward_path.is_none() {
            return (walk, true);
        }
        let mut ctx = MaybeUninit::<c::net_device_path_ctx>::zeroed().assume_init();
        let mut stack = MaybeUninit::<c::net_device_path_stack>::zeroed().assume_init();

        ctx.dev = dev;
        ctx.ether_type = F::ETHERTYPE;
        // Where the driver below looks for the station by its address.
        let known = c::nfo_neigh_ha(neigh, ctx.daddr.as_mut_ptr());

        let complete = c::dev_fill_forward_path(&mut ctx, &mut stack) == 0;
        let paths = stack
            .path
            .get(..stack.num_paths as usize)
            .unwrap_or_default();

        for (i, path) in paths.iter().enumerate() {
            if i > 0 {
                walk.at(path.dev);
            }
            if !walk.through(path) {
                break;
            }
            // The one that could not go on is not among the paths.
            if !complete && i + 1 == paths.len() && !ctx.dev.is_null() {
                walk.at(ctx.dev);
            }
        }
        if complete {
            c::dev_fill_forward_path_release(&mut stack);
        } else if !known {
            // Next time, maybe: nobody else may have a reason to resolve it.
            walk.lost = true;
            c::nfo_neigh_resolve(neigh);
        }
        (walk, complete)
    }
}
