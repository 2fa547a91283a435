// SPDX-License-Identifier: GPL-2.0

//! Every driver that takes the flow rules of a flowtable: `TC_SETUP_FT`, through `ndo_setup_tc()`
//! or for devices above the driver's own through `flow_indr_dev_register()`.
//!
//! A rule is a `flow_rule` with the keys and actions that in-tree drivers know from
//! nf_flow_table_offload.c. It is rendered into one buffer for each flowtable: drivers keep nothing
//! of it. What drivers disagree about is in [`QUIRKS`].

mod rule;

use super::{
    BindError,
    Cookie,
    FlowEngine,
    Lost,
    NetDev,
    Rule,
    Said, //
};
use crate::{
    ffi::{
        self,
        c, //
    },
    flow::table_ref::TableRef, //
};
use core::ptr::{
    self,
    NonNull, //
};
use kernel::{
    error::to_result,
    new_mutex,
    prelude::*,
    str::CStr,
    str::CStrExt,
    sync::Mutex, //
};
use nft_flow::{
    desc::{
        FlowDesc,
        Kind,
        Layer,
        Layers,
        Via, //
    },
    encap::ethertype,
    engine::{
        AddError,
        Ageing,
        Caps,
        Counting,
        Delta,
        SizeLimit,
        Ttl, //
    },
    reason::Unsupported, //
};

/// The peculiarities of a driver, as data.
#[derive(Clone, Copy)]
pub(crate) struct Quirks {
    /// How the names of its callbacks begin, and that of the driver that the device belongs to.
    prefix: &'static str,
    pub(crate) name: &'static str,
    pub(crate) caps: Caps,
    /// VLAN tags other than 802.1Q can be added.
    qinq: bool,
    /// The priority of VLAN tags can be set.
    pcp: bool,
    /// VLAN tags and PPPoE headers together, at most.
    layers: usize,
    /// Errors that mean that there is no room, besides `ENOSPC`.
    full: &'static [i32],
    /// It writes the headers that are added in the order in which they are listed, the first one
    /// outermost. Otherwise each is added around those before it, as tc does.
    outermost_first: bool,
}

const CAPS: Caps = Caps {
    nat44: true,
    nat66: true,
    v6: true,
    vlans: 2,
    pppoe: true,
    tunnels: false,
    portless: false,
    bridged: false,
    matches_vlan: true,
    mtu: SizeLimit::None,
    ttl: Ttl::Unknown,
    counting: Counting::Delta,
    bind_rate: 0,
    ageing: Ageing::Host,
};

const MEDIATEK: Quirks = Quirks {
    prefix: "mtk_",
    name: "mtk",
    caps: Caps {
        // mtk_flow_offload_replace() refuses any action that it does not know, and decrements the
        // TTL without being told.
        nat66: false,
        ttl: Ttl::Engine,
        matches_vlan: false,
        // mtk_ppe_update_mtu() gets the largest of all MACs, and that of one below a switch has
        // room for the switch's tag.
        mtu: SizeLimit::LargestPort,
        // MTK_PPE_BIND_RATE: until then the rule is in a list of the driver.
        bind_rate: 30,
        ..CAPS
    },
    qinq: false,
    pcp: false,
    layers: 2,
    full: &[],
    outermost_first: true,
};

const AIROHA: Quirks = Quirks {
    prefix: "airoha_",
    name: "airoha",
    caps: Caps {
        // airoha_ppe_set_xmit_frame_size().
        mtu: SizeLimit::Port,
        // A build option of the driver; packets that are counted nevertheless are believed.
        counting: Counting::None,
        ..MEDIATEK.caps
    },
    ..MEDIATEK
};

/// Drivers by the names of their callbacks; the last one is any other.
static QUIRKS: [Quirks; 5] = [
    Quirks {
        prefix: "mlx5",
        name: "mlx5",
        caps: Caps {
            pppoe: false,
            ttl: Ttl::ByAction,
            ..CAPS
        },
        qinq: true,
        pcp: true,
        layers: 2,
        // Limits and resources of its firmware: ENOMEM, EAGAIN (mlx5_cmd_check()).
        full: &[-12, -11],
        outermost_first: false,
    },
    MEDIATEK,
    AIROHA,
    // It passes rules on to the engine of the SoC.
    Quirks {
        prefix: "mt76_npu_",
        name: "mt76_npu",
        ..AIROHA
    },
    Quirks {
        prefix: "",
        name: "unknown",
        caps: CAPS,
        qinq: true,
        pcp: true,
        layers: Layers::MAX,
        full: &[],
        outermost_first: false,
    },
];

impl Quirks {
    /// Refuses what the driver would refuse, or would get wrong.
    fn check(&self, flow: &FlowDesc) -> Result<(), Unsupported> {
        let Kind::Routed { proto, tuple, .. } = flow.kind else {
            return Err(Unsupported::Bridged);
        };
        let (ingress, egress) = (&flow.ingress.layers, &flow.egress.layers);

        if flow.ingress.tunnel.is_some() || flow.egress.tunnel.is_some() {
            return Err(Unsupported::Tunnel);
        }
        if flow.ingress.port.via != Via::Plain || flow.egress.port.via != Via::Plain {
            return Err(Unsupported::EgressPort);
        }
        if !flow.egress.macs.are_unicast() {
            return Err(Unsupported::MacAddress);
        }
        if flow.marks.dscp.is_some() {
            return Err(Unsupported::Dscp);
        }
        if tuple.ports.is_none() || !matches!(proto, 6 | 17) {
            return Err(Unsupported::L4Proto);
        }
        if flow.is_nat()
            && !(if flow.is_v6() {
                self.caps.nat66
            } else {
                self.caps.nat44
            })
        {
            return Err(Unsupported::Nat);
        }
        if !self.caps.pppoe && (ingress.pppoe().is_some() || egress.pppoe().is_some()) {
            return Err(Unsupported::Pppoe);
        }
        if ingress.vlans() > 2 || egress.vlans() > self.caps.vlans.into() {
            return Err(Unsupported::VlanDepth);
        }
        if egress.as_slice().len() > self.layers {
            return Err(Unsupported::VlanDepth);
        }
        for layer in egress.iter() {
            if let Layer::Vlan { proto, pcp, .. } = layer {
                if proto != ethertype::VLAN && !self.qinq {
                    return Err(Unsupported::VlanProto);
                }
                if pcp.is_some() && !self.pcp {
                    return Err(Unsupported::Pcp);
                }
            }
        }
        Ok(())
    }
}

/// A device that was given to its driver.
///
/// # Invariants
///
/// `port` was bound by `nfo_port_bind()` and is unbound when the value is taken out.
struct Bound {
    ifindex: u32,
    port: NonNull<c::nfo_port>,
    quirks: &'static Quirks,
    /// Whether it takes rules with a TTL action, once that is known.
    ttl: Option<bool>,
    /// That of the port when the driver was looked at.
    generation: u32,
}

impl Bound {
    fn generation(&self) -> u32 {
        // SAFETY: Bound by the type invariant.
        unsafe { c::nfo_port_generation(self.port.as_ptr()) }
    }

    /// Looks who the driver is. There may be none now.
    fn identify(&mut self) {
        let mut name = [0u8; 64];

        self.generation = self.generation();
        // SAFETY: Bound by the type invariant; the buffer is as long as is said.
        unsafe { c::nfo_port_driver(self.port.as_ptr(), name.as_mut_ptr().cast(), 64) };
        let [.., other] = &QUIRKS;
        self.quirks = QUIRKS
            .iter()
            .find(|q| name.starts_with(q.prefix.as_bytes()))
            .unwrap_or(other);
        self.ttl = None;
        if name[0] == 0 {
            // Look again.
            self.generation = self.generation.wrapping_sub(1);
        }
    }
}

struct TcFtInner {
    bound: KVec<Bound>,
    rule: NonNull<c::nfo_rule>,
    said: Option<Said>,
    /// It was said about the rule with this cookie, which was the last one.
    said_about: Option<Cookie>,
}

// SAFETY: The pointers are to what belongs to the state alone.
unsafe impl Send for TcFtInner {}

impl Drop for TcFtInner {
    fn drop(&mut self) {
        // SAFETY: Made by `nfo_rule_new()`, and nobody else's.
        unsafe { c::nfo_rule_free(self.rule.as_ptr()) };
    }
}

/// The drivers behind the devices of a flowtable.
#[pin_data]
pub(crate) struct TcFt {
    nf: NonNull<c::nf_flowtable>,
    #[pin]
    inner: Mutex<TcFtInner>,
}

// SAFETY: The C object outlives ours, and is used under the rules of nf_tables.
unsafe impl Send for TcFt {}
// SAFETY: As above; the rest is under the lock.
unsafe impl Sync for TcFt {}

/// A driver goes away: `nfo_port.gone`.
///
/// # Safety
///
/// Called by the clean-up of a port that is bound only, under its lock.
unsafe extern "C" fn driver_gone(port: *mut c::nfo_port) {
    // SAFETY: The port is bound, hence its flowtable alive. The worker will see its generation.
    unsafe { TableRef::from_hook((*port).ft.cast()) }.schedule_gc();
}

impl TcFt {
    /// Makes the engine of the flowtable `nf`.
    pub(crate) fn new(nf: NonNull<c::nf_flowtable>) -> Result<impl PinInit<Self>> {
        // SAFETY: Any time is fine.
        let rule = NonNull::new(unsafe { c::nfo_rule_new() }).ok_or(ENOMEM)?;
        let inner = TcFtInner {
            bound: KVec::new(),
            rule,
            said: None,
            said_about: None,
        };

        Ok(pin_init!(Self {
            nf,
            inner <- new_mutex!(inner, "nft_offload::tc_ft"),
        }))
    }

    /// What a driver said last when it refused a rule.
    pub(crate) fn last_said(&self) -> Option<Said> {
        self.inner.lock().said
    }

    /// The name of the driver behind a device.
    pub(crate) fn driver(&self, ifindex: u32) -> Option<&'static str> {
        self.inner.lock().find(ifindex).map(|b| b.quirks.name)
    }
}

impl TcFtInner {
    fn find(&mut self, ifindex: u32) -> Option<&mut Bound> {
        self.bound.iter_mut().find(|b| b.ifindex == ifindex)
    }

    /// Gives the rule in the buffer to the driver.
    fn offer(&mut self, port: NonNull<c::nfo_port>, cookie: Cookie) -> Result<u32, i32> {
        let mut slot = 0;
        // SAFETY: Both are ours, and the driver keeps nothing of the rule.
        let err =
            unsafe { c::nfo_port_add(port.as_ptr(), self.rule.as_ptr(), cookie.0, &mut slot) };

        if err == 0 {
            return Ok(slot);
        }
        // SAFETY: What a driver has to say is a string.
        let text = unsafe {
            let msg = (*self.rule.as_ptr()).extack._msg;
            match msg.is_null() {
                true => &[],
                false => CStr::from_char_ptr(msg.cast()).to_bytes(),
            }
        };
        self.said = Some(Said::new(err, text));
        self.said_about = Some(cookie);
        Err(err)
    }

    /// Adds a rule, and says in which slot of the port it is.
    fn add(&mut self, flow: &FlowDesc, cookie: Cookie, net: *mut c::net) -> Result<u32, AddError> {
        let ifindex = flow.ingress.port.ifindex;
        let rule = self.rule;
        self.said_about = None;
        let bound = self
            .find(ifindex)
            .ok_or(AddError::Unsupported(Unsupported::IngressPort))?;
        if bound.generation != bound.generation() {
            bound.identify();
        }
        let (port, quirks) = (bound.port, bound.quirks);
        let mut ttl = match quirks.caps.ttl {
            Ttl::Engine => false,
            Ttl::ByAction => true,
            Ttl::Unknown => bound.ttl.unwrap_or(true),
        };
        let mut learn = quirks.caps.ttl == Ttl::Unknown && bound.ttl.is_none();

        quirks.check(flow).map_err(AddError::Unsupported)?;
        let out = rule::OutDev::get(net, flow.egress.port.ifindex)?;
        let slot = loop {
            // SAFETY: The buffer is ours.
            unsafe { rule::render(rule, flow, &out, ttl, quirks.outermost_first) }
                .ok_or(AddError::Unsupported(Unsupported::VlanDepth))?;
            match self.offer(port, cookie) {
                Ok(slot) => break slot,
                Err(err) => match AddError::from_errno(err, quirks.full) {
                    AddError::Unsupported(_) if learn && ttl => ttl = false,
                    e => return Err(e),
                },
            }
        };
        if learn {
            learn = ttl;
            if let Some(bound) = self.find(ifindex) {
                bound.ttl = Some(learn);
            }
        }
        Ok(slot)
    }
}

impl FlowEngine for TcFt {
    fn name(&self) -> &'static str {
        "tc"
    }

    fn caps(&self, ifindex: u32) -> Caps {
        let mut inner = self.inner.lock();
        let Some(quirks) = inner.find(ifindex).map(|b| b.quirks) else {
            return CAPS;
        };
        let mut caps = quirks.caps;

        if caps.mtu == SizeLimit::LargestPort {
            // SAFETY: The C object outlives ours.
            let net = unsafe { c::nfo_ft_net(self.nf.as_ptr()) };
            let largest = inner
                .bound
                .iter()
                .filter(|b| ptr::eq(b.quirks, quirks))
                .map(|b| {
                    // SAFETY: The namespace outlives its flowtables.
                    unsafe { c::nfo_dev_engine_mtu(net, b.ifindex) }
                })
                .max()
                .unwrap_or(0);

            caps.mtu = SizeLimit::Engine(largest.try_into().unwrap_or(u16::MAX));
        }
        caps
    }

    fn bind(&self, netdev: NetDev) -> Result<(), BindError> {
        let mut inner = self.inner.lock();

        inner
            .bound
            .reserve(1, GFP_KERNEL)
            .map_err(|_| BindError::Failed(ENOMEM.to_errno()))?;
        drop(inner);
        // SAFETY: The device is registered by the type invariant of `NetDev`.
        let new = unsafe { c::nfo_port_new(netdev.dev, self.nf.as_ptr(), Some(driver_gone)) };
        let new = NonNull::new(new).ok_or(BindError::Failed(ENOMEM.to_errno()))?;
        // SAFETY: Just made, and the device is registered.
        let err = unsafe { c::nfo_port_bind(new.as_ptr()) };
        if err != 0 {
            return Err(match err {
                _ if err == EOPNOTSUPP.to_errno() => BindError::NoHardware,
                _ if err == EBUSY.to_errno() => BindError::Busy,
                err => BindError::Failed(err),
            });
        }

        let [.., other] = &QUIRKS;
        // INVARIANT: Bound above.
        let mut bound = Bound {
            ifindex: netdev.ifindex,
            port: new,
            quirks: other,
            ttl: None,
            generation: 0,
        };
        bound.identify();
        if self.inner.lock().bound.push(bound, GFP_KERNEL).is_err() {
            // SAFETY: As above, and nobody else's.
            unsafe { c::nfo_port_unbind(new.as_ptr()) };
            return Err(BindError::Failed(ENOMEM.to_errno()));
        }
        Ok(())
    }

    fn unbind(&self, netdev: NetDev) {
        let mut inner = self.inner.lock();
        let Some(at) = inner.bound.iter().position(|b| b.ifindex == netdev.ifindex) else {
            return;
        };
        let bound = inner.bound.remove(at);

        drop(inner);
        if let Ok(bound) = bound {
            // SAFETY: By the type invariant; taken out, it is used by nobody else.
            unsafe { c::nfo_port_unbind(bound.port.as_ptr()) };
        }
    }

    fn add(&self, flow: &FlowDesc, cookie: Cookie) -> Result<Rule, AddError> {
        // SAFETY: The C object outlives ours.
        let net = unsafe { c::nfo_ft_net(self.nf.as_ptr()) };

        let slot = self.inner.lock().add(flow, cookie, net)?;
        Ok(Rule {
            cookie,
            ifindex: flow.ingress.port.ifindex,
            private: slot.into(),
        })
    }

    fn said(&self, cookie: Cookie) -> Option<Said> {
        let inner = self.inner.lock();

        inner.said.filter(|_| inner.said_about == Some(cookie))
    }

    fn del(&self, rule: Rule) {
        let mut inner = self.inner.lock();

        if let Some(port) = inner.find(rule.ifindex).map(|b| b.port) {
            // SAFETY: Bound, by the invariants of `Bound`.
            unsafe { c::nfo_port_del(port.as_ptr(), rule.private as u32) };
        }
    }

    fn stats(&self, rule: &Rule) -> Result<Delta, Lost> {
        let mut inner = self.inner.lock();
        let port = inner.find(rule.ifindex).ok_or(Lost)?.port;
        // SAFETY: As in `del`.
        let err =
            unsafe { c::nfo_port_stats(port.as_ptr(), inner.rule.as_ptr(), rule.private as u32) };

        match to_result(err).map_err(|e| e.to_errno()) {
            Ok(()) => {
                // SAFETY: The buffer is ours, and the driver has filled it in.
                let stats = unsafe { &(*inner.rule.as_ptr()).cls.stats };

                Ok(Delta::of_driver(
                    stats.pkts,
                    stats.bytes,
                    stats.lastused,
                    ffi::jiffies32(),
                ))
            }
            Err(e)
                if e == ENOENT.to_errno() || e == EINVAL.to_errno() || e == ENODEV.to_errno() =>
            {
                Err(Lost)
            }
            // Another time, maybe.
            Err(_) => Ok(Delta::default()),
        }
    }

    fn retry(&self, ifindex: u32) {
        if let Some(bound) = self.inner.lock().find(ifindex) {
            // SAFETY: Bound, by the invariants of `Bound`.
            unsafe { c::nfo_port_retry(bound.port.as_ptr()) };
        }
    }

    fn generation(&self, ifindex: u32) -> u32 {
        self.inner
            .lock()
            .find(ifindex)
            .map_or(0, |b| b.generation())
    }
}
