// SPDX-License-Identifier: GPL-2.0

//! The engines of one frame engine, as the hardware tier uses them.
//!
//! Locking: one mutex for everything. The tier asks from process context.

use super::window::{
    Registers,
    Table,
    Window, //
};
use crate::{
    drivers::{
        BindError,
        Cookie,
        FlowEngine,
        Lost,
        NetDev,
        Rule, //
    },
    ffi::{
        self,
        c, //
    }, //
};
use core::{
    mem,
    ptr,
    sync::atomic::{
        AtomicU32,
        Ordering, //
    }, //
};
use kernel::{
    debugfs::Scope,
    device::{
        Bound,
        Device, //
    },
    dma::Coherent,
    fmt,
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        Arc,
        Mutex, //
    }, //
};
use mtk_foe::{
    encode::Board,
    mib::Counters,
    ppe::{
        self,
        Handle,
        Slot, //
    },
    regs::{
        self,
        Window as _, //
    },
    seq::{
        Addresses,
        Ageing, //
    },
    soc::Soc,
    Ppe,
    ENTRIES, //
};
use nft_flow::{
    desc::{
        FlowDesc,
        Mac, //
    },
    engine::{
        self,
        AddError,
        Capacity,
        Caps,
        Counting,
        Delta,
        SizeLimit,
        Ttl, //
    }, //
};

/// Bytes of a counter in memory.
const COUNTER: usize = 16;
/// What the registers of a device that is gone read as.
const GONE: u32 = u32::MAX;
/// The largest packet, from the network header on.
const MTU: u16 = 1500;

type OnePpe = Ppe<Window, Table, KVVec<Slot>>;

/// The engines of one frame engine.
#[pin_data]
pub(super) struct Engines {
    soc: &'static Soc,
    /// Which device is which MAC is told by its address.
    macs: [Mac; 3],
    generation: AtomicU32,
    #[pin]
    inner: Mutex<EngineInner>,
}

struct EngineInner {
    /// None any more when the device is gone.
    ppes: KVec<OnePpe>,
    /// Where the memory of each is.
    at: KVec<Addresses>,
    board: Board,
    /// Which device a MAC is.
    owners: [Owner; 3],
    /// The network namespace of all of them, by its address: indices of interfaces are of one.
    net: usize,
    /// Counters, which only the engines look at: one of each, if they count.
    counters: KVec<Coherent<[u32]>>,
}

/// The device that a MAC is, by its address.
struct Owner {
    dev: usize,
    /// Flowtables that it is bound for: a new ruleset is there before the old one goes. 0:
    /// nobody's.
    users: u32,
}

impl Engines {
    /// The engines of a device, with all the memory that they need. They do not run yet.
    pub(super) fn new(
        dev: &Device<Bound>,
        soc: &'static Soc,
        registers: Arc<dyn Registers>,
        macs: [Mac; 3],
    ) -> Result<Arc<Self>> {
        let mut ppes = KVec::new();
        let mut places = KVec::new();
        let mut counters = KVec::new();

        for n in 0..soc.engines {
            let table = Coherent::<u32>::zeroed_slice(dev, soc.table_size() / 4, GFP_KERNEL)?;
            let mut at = Addresses {
                table: table.dma_address().try_into()?,
                counters: None,
            };
            if soc.counts {
                let memory = Coherent::<u32>::zeroed_slice(dev, ENTRIES * COUNTER / 4, GFP_KERNEL)?;
                at.counters = Some(memory.dma_address().try_into()?);
                counters.push(memory, GFP_KERNEL)?;
            }
            let window = Window {
                registers: registers.clone(),
                base: soc.window(n) as usize,
            };
            let slots = KVVec::from_elem(Slot::default(), ENTRIES, GFP_KERNEL)?;
            let one = Ppe::new(soc, window, Table(table), slots).ok_or(EINVAL)?;
            ppes.push(one, GFP_KERNEL)?;
            places.push(at, GFP_KERNEL)?;
        }

        let board = Board {
            macs: [0; 3],
            mtu: MTU,
        };
        Arc::pin_init(
            try_pin_init!(Self {
                soc,
                macs,
                generation: AtomicU32::new(0),
                inner <- new_mutex!(
                    EngineInner {
                        ppes,
                        at: places,
                        board,
                        owners: [const { Owner { dev: 0, users: 0 } }; 3],
                        net: 0,
                        counters,
                    },
                    "nft_offload::mtk_ppe"
                ),
            }),
            GFP_KERNEL,
        )
    }

    /// Starts them. From here on they write to memory until they are stopped.
    pub(super) fn start(&self) {
        self.inner.lock().start();
    }

    /// Stops them: the device goes away. Whoever has rules is told when they ask. All memory goes
    /// here, while the device is bound, and not with those who have rules.
    pub(super) fn stop(&self, dev: &Device) {
        let inner = &mut *self.inner.lock();
        let mut counters = mem::take(&mut inner.counters).into_iter();

        for (n, mut one) in mem::take(&mut inner.ppes).into_iter().enumerate() {
            let writes = one.stop().is_err() && one.window().read(regs::TB_BASE) != GONE;
            let memory = (one.into_memory(), counters.next());

            if writes {
                dev_err!(
                    dev,
                    "engine {n} did not become idle: its memory is never used again, for it may write there\n"
                );
                mem::forget(memory);
            }
        }
        self.generation.fetch_add(1, Ordering::Relaxed);
    }
}

impl EngineInner {
    fn start(&mut self) {
        for (one, at) in self.ppes.iter_mut().zip(&self.at) {
            one.start(*at, &Ageing::default(), MTU);
        }
    }

    /// Looks whether the registers are still what they were started with. They are not after a
    /// reset of the frame engine, by whoever has one: then it is started again, without rules. They
    /// read as all ones when the device is gone. Returns whether all rules are lost.
    fn look(&mut self) -> bool {
        let base = |one: &OnePpe| one.window().read(regs::TB_BASE);
        let mut same = true;
        for (one, at) in self.ppes.iter().zip(&self.at) {
            match base(one) {
                GONE => {
                    pr_err!("the packet processing engine does not answer any more: its flows are left to software\n");
                    self.ppes.clear();
                    return true;
                }
                base => same &= base == at.table,
            }
        }
        if !same {
            pr_warn!("the packet processing engine was reset: it is started again\n");
            self.start();
        }
        !same
    }
}

fn delta(counters: Counters, used: Option<u32>) -> Delta {
    Delta {
        packets: counters.packets,
        bytes: counters.bytes,
        used,
    }
}

impl FlowEngine for Engines {
    fn name(&self) -> &'static str {
        self.soc.name
    }

    fn caps(&self, _ifindex: u32) -> Caps {
        Caps {
            nat44: true,
            nat66: false,
            v6: true,
            vlans: 2,
            pppoe: true,
            tunnels: false,
            portless: true,
            bridged: false,
            matches_vlan: false,
            mtu: SizeLimit::Engine(MTU),
            ttl: Ttl::Engine,
            counting: match self.soc.counts {
                true => Counting::Delta,
                false => Counting::None,
            },
            bind_rate: 0,
            ageing: engine::Ageing::Engine,
        }
    }

    fn capacity(&self) -> Capacity {
        let inner = self.inner.lock();
        let (mut total, mut used) = (0, 0);

        for one in &inner.ppes {
            let (u, t) = one.capacity();
            used += u as u32;
            total += t as u32;
        }
        Capacity {
            total: Some(total),
            used,
        }
    }

    fn bind(&self, netdev: NetDev) -> Result<(), BindError> {
        // SAFETY: The device is registered, by the invariants of `NetDev`; an address of six bytes
        // can be read, and so can the heads of its lists.
        let (mac, stacked, net) = unsafe {
            let dev = &*netdev.dev;
            if dev.addr_len != 6 {
                return Err(BindError::NoHardware);
            }
            let below = &raw const dev.adj_list.lower;
            let mac = dev.dev_addr.cast::<Mac>().read();
            (
                mac,
                !ptr::eq((*below).next, below),
                c::nfo_dev_hardware_net(dev),
            )
        };
        let inner = &mut *self.inner.lock();

        // A VLAN device, or a bridge, has the address of what is below it; one that somebody has
        // made has any.
        if inner.ppes.is_empty() || mac == [0; 6] || stacked || net.is_null() {
            return Err(BindError::NoHardware);
        }
        if inner.owners.iter().any(|o| o.users != 0) && inner.net != net.addr() {
            return Err(BindError::NoHardware);
        }
        let macs = inner.board.macs.iter_mut().zip(&mut inner.owners);
        match macs.zip(&self.macs).find(|(_, m)| **m == mac) {
            // Another device with that address has it.
            Some(((_, owner), _)) if owner.users != 0 && owner.dev != netdev.dev.addr() => {
                Err(BindError::NoHardware)
            }
            Some(((place, owner), _)) => {
                *place = netdev.ifindex;
                owner.dev = netdev.dev.addr();
                owner.users += 1;
                inner.net = net.addr();
                Ok(())
            }
            None => Err(BindError::NoHardware),
        }
    }

    fn unbind(&self, netdev: NetDev) {
        let inner = &mut *self.inner.lock();

        for (place, owner) in inner.board.macs.iter_mut().zip(&mut inner.owners) {
            if owner.users != 0 && owner.dev == netdev.dev.addr() {
                owner.users -= 1;
                if owner.users == 0 {
                    *place = 0;
                }
            }
        }
    }

    fn add(&self, flow: &FlowDesc, cookie: Cookie) -> Result<Rule, AddError> {
        let inner = &mut *self.inner.lock();
        let image = mtk_foe::encode(self.soc, &inner.board, flow).map_err(AddError::Unsupported)?;
        let one = inner
            .ppes
            .get_mut(usize::from(image.engine))
            .ok_or(AddError::Gone)?;

        match one.add(&image) {
            Ok(handle) => Ok(Rule {
                cookie,
                ifindex: flow.ingress.port.ifindex,
                private: handle.into_raw(image.engine),
            }),
            Err(ppe::AddError::Busy) => Err(AddError::Busy),
            Err(ppe::AddError::Stopped) => Err(AddError::Gone),
            // With growing intervals: the other one may be gone by then.
            Err(ppe::AddError::Exists | ppe::AddError::Alias | ppe::AddError::Collision) => {
                Err(AddError::Collision)
            }
        }
    }

    fn del(&self, rule: Rule) {
        let (which, handle) = Handle::from_raw(rule.private);

        if let Some(one) = self.inner.lock().ppes.get_mut(usize::from(which)) {
            one.del(handle);
        }
    }

    fn stats(&self, rule: &Rule) -> Result<Delta, Lost> {
        let (which, handle) = Handle::from_raw(rule.private);
        let mut inner = self.inner.lock();
        let one = inner.ppes.get_mut(usize::from(which)).ok_or(Lost)?;
        let stats = one.stats(&handle).map_err(|_| Lost)?;

        // The engine's clock ticks once a second.
        let used = ffi::jiffies32().wrapping_sub(stats.idle.wrapping_mul(ffi::HZ));
        Ok(delta(stats.delta, Some(used)))
    }

    fn generation(&self, _ifindex: u32) -> u32 {
        if self.inner.lock().look() {
            self.generation.fetch_add(1, Ordering::Relaxed);
        }
        self.generation.load(Ordering::Relaxed)
    }

    fn is_gone(&self) -> bool {
        self.inner.lock().ppes.is_empty()
    }
}

/// One engine's table as text.
pub(super) struct Text {
    engines: Arc<Engines>,
    which: usize,
}

impl Text {
    fn show(&self, f: &mut fmt::Formatter<'_>, only_bound: bool) -> fmt::Result {
        match self.engines.inner.lock().ppes.get(self.which) {
            Some(one) => one.dump(f, only_bound),
            None => Ok(()),
        }
    }
}

/// `/sys/kernel/debug/ppe0` and so on, with what the kernel's driver has there: `entries` and
/// `bind`.
pub(super) fn debugfs(engines: &Arc<Engines>) -> Result<KVec<Pin<KBox<Scope<Text>>>>> {
    let mut all = KVec::new();

    for which in 0..usize::from(engines.soc.engines) {
        let name = CString::try_from_fmt(fmt!("ppe{which}"))?;
        let text = Text {
            engines: engines.clone(),
            which,
        };
        let scope = Scope::<Text>::dir(text, &name, |text, dir| {
            dir.read_callback_file(c"entries", text, &|t: &Text, f: &mut fmt::Formatter<'_>| {
                t.show(f, false)
            });
            dir.read_callback_file(c"bind", text, &|t: &Text, f: &mut fmt::Formatter<'_>| {
                t.show(f, true)
            });
        });
        all.push(KBox::pin_init(scope, GFP_KERNEL)?, GFP_KERNEL)?;
    }
    Ok(all)
}
