// SPDX-License-Identifier: GPL-2.0

//! Network namespaces: the flowtables of each, and what is done with all of them.
//!
//! Who walks over flows holds no lock meanwhile, but uses a flowtable, whose end waits for that. So
//! the owner of a namespace, however many flows and flowtables are in it, makes nobody else wait.
//! The end of a flowtable makes walks end early.
//!
//! Device events come under RTNL. They are noted here, and a worker of the namespace looks for the
//! flows that they are about.

use crate::{
    ffi::{
        c,
        NetRef,
        Rcu, //
    },
    flow::shared::FlowShared,
    flowtable::Flowtable,
    net::ct::Ct, //
};
use core::{
    ptr::{
        self,
        NonNull, //
    },
    sync::atomic::{
        AtomicPtr,
        AtomicUsize,
        Ordering, //
    }, //
};
use kernel::{
    error::to_result,
    ffi::c_void,
    impl_has_work,
    new_condvar,
    new_mutex,
    new_spinlock,
    new_work,
    prelude::*,
    sync::{
        global_lock,
        Arc,
        ArcBorrow,
        CondVar,
        Mutex,
        SpinLock, //
    },
    types::Opaque,
    workqueue::{
        Queue,
        Work,
        WorkItem, //
    }, //
};
use nft_flow::reason::TeardownReason;

global_lock! {
    // SAFETY: Initialised by the module's init before anything is registered.
    /// The namespaces that have flowtables. Nothing else is locked under this.
    unsafe(uninit) static NAMESPACES: Mutex<KVec<Arc<Netns>>> = KVec::new();
}

/// The node of a flowtable in the list of its namespace.
pub(crate) struct ListNode {
    /// Changed under the list's lock, read under RCU as well.
    next: AtomicPtr<Flowtable>,
    /// For who holds the list's lock.
    prev: AtomicPtr<Flowtable>,
    /// How many use it, see [`Netns::for_each`]; likewise.
    users: AtomicUsize,
}

impl ListNode {
    /// Makes a node that is in no list.
    pub(crate) const fn new() -> Self {
        Self {
            next: AtomicPtr::new(ptr::null_mut()),
            prev: AtomicPtr::new(ptr::null_mut()),
            users: AtomicUsize::new(0),
        }
    }
}

/// An event in a namespace that ends flows or closes bridge ports.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Flows that pass the device have to go.
    Device(u32, TeardownReason),
    /// Bridges may have other ideas of a port.
    Bridges,
}

/// Functions that are to be called for packets.
pub(crate) struct Hooks {
    /// For those that enter the ruleset, before conntrack sees them.
    pub(crate) prerouting: c::nf_hookfn,
    /// For those that have passed it.
    pub(crate) postrouting: c::nf_hookfn,
}

/// The part of a namespace under the list's lock.
struct List {
    /// The newest flowtable.
    last: *mut Flowtable,
    /// `hooks` are registered.
    watching: bool,
    /// The namespace ends.
    over: bool,
}

// SAFETY: A flowtable may be used from everywhere.
unsafe impl Send for List {}

/// The events that are still to be handled.
struct Events {
    list: KVec<Event>,
    /// There was no memory for another one: anything may have changed.
    all: bool,
}

/// A network namespace.
///
/// # Invariants
///
/// Flowtables in the list are valid, and freed a grace period after they were taken out. They are
/// in the order in which they were made.
#[pin_data]
pub(crate) struct Netns {
    /// Valid as long as there is a flowtable in it that has not ended.
    net: *mut c::net,
    first: AtomicPtr<Flowtable>,
    /// Raised when devices change, or go away, before the grace period that their memory is freed
    /// after.
    topology: AtomicUsize,
    /// See the packets that enter the ruleset, and those that have passed it, as long as there are
    /// flowtables.
    hooks: Opaque<[c::nf_hook_ops; 2]>,
    #[pin]
    list: Mutex<List>,
    /// A flowtable that is about to end is not used any more.
    unused: Pin<KBox<CondVar>>,
    #[pin]
    events: SpinLock<Events>,
    #[pin]
    work: Work<Netns>,
}

impl_has_work! {
    impl HasWork<Self> for Netns { self.work }
}

// SAFETY: The namespace may be used from everywhere as long as it has flowtables; what changes is
// atomic or under a lock.
unsafe impl Send for Netns {}
// SAFETY: As above.
unsafe impl Sync for Netns {}

impl Netns {
    fn new(net: *mut c::net) -> Result<Arc<Self>> {
        let unused = KBox::pin_init(new_condvar!("nft_offload::netns::unused"), GFP_KERNEL)?;
        let list = List {
            last: ptr::null_mut(),
            watching: false,
            over: false,
        };
        let events = Events {
            list: KVec::new(),
            all: false,
        };

        Arc::pin_init(
            pin_init!(Self {
                net,
                first: AtomicPtr::new(ptr::null_mut()),
                topology: AtomicUsize::new(0),
                hooks: Opaque::zeroed(),
                list <- new_mutex!(list, "nft_offload::netns"),
                unused,
                events <- new_spinlock!(events, "nft_offload::netns::events"),
                work <- new_work!("nft_offload::netns::work"),
            }),
            GFP_KERNEL,
        )
    }

    /// Returns our part of a namespace, or [`None`] at its end.
    pub(crate) fn of(net: NetRef<'_>) -> Option<ArcBorrow<'_, Self>> {
        // SAFETY: Valid by the type invariant.
        let netns = NonNull::new(unsafe { c::nfo_netns(net.as_ptr()) })?;

        // SAFETY: It came from `nfo_netns_new`, and is given back at the namespace's end.
        Some(unsafe { ArcBorrow::from_raw(netns.as_ptr().cast::<Self>()) })
    }

    /// Puts a new flowtable into the list. `see` is called for packets as long as there is one in
    /// it.
    ///
    /// # Safety
    ///
    /// It is in no list, and is taken out before it is freed.
    pub(crate) unsafe fn add(self: &Arc<Self>, ft: &Flowtable, see: &Hooks) -> Result {
        let new = ptr::from_ref(ft).cast_mut();
        let mut list = self.list.lock();

        if list.last.is_null() {
            NAMESPACES.lock().push(self.clone(), GFP_KERNEL)?;
            if let Err(e) = self.watch(&mut list, see) {
                self.withdraw();
                return Err(e);
            }
        }
        ft.list_node.prev.store(list.last, Ordering::Relaxed);
        // SAFETY: Flowtables in the list are valid.
        let before = unsafe { list.last.as_ref() };
        // INVARIANT: The newest is the last one.
        before
            .map_or(&self.first, |last| &last.list_node.next)
            .store(new, Ordering::Release);
        list.last = new;
        Ok(())
    }

    /// Takes a flowtable out of the list, when the walks that use it are over. It is to be
    /// [closed](Flowtable::is_closed) before, so that they soon are.
    pub(crate) fn remove(&self, ft: &Flowtable) {
        let mut list = self.list.lock();

        while ft.list_node.users.load(Ordering::Relaxed) != 0 {
            self.unused.wait(&mut list);
        }
        let next = ft.list_node.next.load(Ordering::Relaxed);
        let prev = ft.list_node.prev.load(Ordering::Relaxed);

        // SAFETY: Flowtables in the list are valid.
        unsafe {
            prev.as_ref()
                .map_or(&self.first, |prev| &prev.list_node.next)
                .store(next, Ordering::Release);
            match next.as_ref() {
                Some(next) => next.list_node.prev.store(prev, Ordering::Relaxed),
                None => list.last = prev,
            }
        }
        if list.last.is_null() {
            self.withdraw();
            self.unwatch(&mut list);
        }
    }

    /// Takes a namespace without flowtables off the list of namespaces.
    fn withdraw(&self) {
        let mut all = NAMESPACES.lock();

        all.retain(|netns| !ptr::eq(&raw const **netns, self));
        // A static is never dropped.
        if all.is_empty() {
            *all = KVec::new();
        }
    }

    /// Begins to see the packets that enter the ruleset, before conntrack does, and those that have
    /// passed it.
    fn watch(&self, list: &mut List, see: &Hooks) -> Result {
        /// `NF_INET_POST_ROUTING`, include/uapi/linux/netfilter.h.
        const POST_ROUTING: u32 = c::NFO_INET_POST_ROUTING;
        /// `NF_INET_PRE_ROUTING`.
        const PRE_ROUTING: u32 = c::NFO_INET_PRE_ROUTING;
        /// Before `NF_IP_PRI_CONNTRACK`, include/uapi/linux/netfilter_ipv4.h.
        const BEFORE_CONNTRACK: i32 = -201;

        if list.over || list.watching {
            return Ok(());
        }
        // SAFETY: The memory is ours, pinned, and not registered.
        unsafe {
            let hooks = &mut *self.hooks.get();

            for ops in &mut *hooks {
                ops.priv_ = ptr::from_ref(self).cast_mut().cast();
                ops.pf = c::NFPROTO_INET as u8;
            }
            let [prerouting, postrouting] = &mut *hooks;
            prerouting.hook = see.prerouting;
            prerouting.hooknum = PRE_ROUTING;
            prerouting.priority = BEFORE_CONNTRACK;
            postrouting.hook = see.postrouting;
            postrouting.hooknum = POST_ROUTING;
            postrouting.priority = i32::MAX;
            to_result(c::nf_register_net_hooks(
                self.net,
                self.hooks.get().cast(),
                2,
            ))?;
        }
        list.watching = true;
        Ok(())
    }

    /// The reverse. Packets may be there for a grace period more.
    fn unwatch(&self, list: &mut List) {
        if list.watching {
            // SAFETY: Registered. The namespace outlives its flowtables.
            unsafe { c::nf_unregister_net_hooks(self.net, self.hooks.get().cast(), 2) };
            list.watching = false;
        }
    }

    /// The flow of a conntrack entry.
    pub(crate) fn find<'a>(&'a self, rcu: Rcu<'a>, ct: Ct) -> Option<&'a FlowShared> {
        let mut next = self.first.load(Ordering::Acquire);

        // SAFETY: RCU is held, which all flowtables of the list outlive, taken out or not.
        while let Some(ft) = unsafe { next.as_ref() } {
            if let Some(flow) = ft.find(rcu, ct) {
                return Some(flow);
            }
            next = ft.list_node.next.load(Ordering::Acquire);
        }
        None
    }

    /// Calls `f` for each flowtable, until it returns false. No lock is held then, nothing keeps
    /// the flowtable from being closed, but its end waits: so `f` is to be quick, or to look after
    /// that.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&Flowtable) -> bool) {
        let mut list = self.list.lock();
        let mut next = self.first.load(Ordering::Relaxed);

        // SAFETY: Flowtables in the list are valid.
        while let Some(ft) = unsafe { next.as_ref() } {
            let list_node = &ft.list_node;

            if !ft.is_closed() {
                list_node.users.fetch_add(1, Ordering::Relaxed);
                drop(list);
                let go_on = f(ft);
                list = self.list.lock();
                // Who closes it waits for the last user, and has not taken it out.
                if list_node.users.fetch_sub(1, Ordering::Relaxed) == 1 && ft.is_closed() {
                    self.unused.notify_all();
                }
                if !go_on {
                    break;
                }
            }
            next = list_node.next.load(Ordering::Relaxed);
        }
    }

    /// A number that changes with the devices of the namespace.
    pub(crate) fn topology(&self) -> &AtomicUsize {
        &self.topology
    }

    /// Devices are not what they were: nobody goes past any by what was known of them.
    pub(crate) fn change_topology(&self) {
        self.topology.fetch_add(1, Ordering::SeqCst);
    }

    /// Notes that something has changed. Takes no time, however many flows there are.
    pub(crate) fn notify(this: ArcBorrow<'_, Self>, event: Event) {
        /// More than there is reason for.
        const MAX: usize = 4096;

        this.change_topology();
        if this.first.load(Ordering::Relaxed).is_null() {
            return;
        }
        let mut events = this.events.lock();

        if events.list.last() != Some(&event)
            && (events.list.len() >= MAX
                || events.list.push(event, GFP_ATOMIC | __GFP_NOWARN).is_err())
        {
            events.all = true;
        }
        drop(events);
        // SAFETY: The queue lives until all namespaces are given up, and this work is done.
        let queue = unsafe { Queue::from_raw(c::nfo_queue().cast()) };
        // It may be on the queue already.
        let _ = queue.enqueue(Arc::from(this));
    }

    /// Looks for the flows that events are about.
    fn handle_events(&self, events: &Events) -> Result {
        /// What makes a flow go, the likeliest first.
        const REASONS: [TeardownReason; 5] = [
            TeardownReason::DeviceDown,
            TeardownReason::DeviceGone,
            TeardownReason::MtuChange,
            TeardownReason::AddressChange,
            TeardownReason::PathChange,
        ];

        let mut devices = KVec::<u32>::with_capacity(events.list.len(), GFP_KERNEL)?;

        for reason in REASONS {
            devices.clear();
            for event in &events.list {
                match event {
                    Event::Device(ifindex, why) if *why == reason => {
                        // In order.
                        if let Err(at) = devices.binary_search(ifindex) {
                            devices
                                .insert_within_capacity(at, *ifindex)
                                .map_err(|_| ENOMEM)?;
                        }
                    }
                    _ => (),
                }
            }
            if devices.is_empty() {
                continue;
            }
            self.for_each(|ft| {
                let changed = |ifindex: u32| devices.binary_search(&ifindex).is_ok();

                ft.teardown_all(
                    reason,
                    |flow| flow.uses_device(&changed),
                    || !ft.is_closed(),
                );
                true
            });
        }
        if events.list.contains(&Event::Bridges) {
            self.for_each(|ft| {
                ft.schedule_bridge_check();
                true
            });
        }
        Ok(())
    }
}

impl WorkItem for Netns {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        loop {
            let mut events = this.events.lock();
            let now = Events {
                list: core::mem::replace(&mut events.list, KVec::new()),
                all: core::mem::take(&mut events.all),
            };
            drop(events);

            if now.list.is_empty() && !now.all {
                return;
            }
            if now.all || this.handle_events(&now).is_err() {
                this.for_each(|ft| {
                    ft.teardown_all(TeardownReason::PathChange, |_| true, || !ft.is_closed());
                    ft.schedule_bridge_check();
                    true
                });
            }
        }
    }
}

/// Calls `f` for each flowtable, see [`Netns::for_each`].
///
/// # Errors
///
/// There is no memory.
pub(crate) fn for_all(mut f: impl FnMut(&Flowtable)) -> Result {
    let now = NAMESPACES.lock();
    let mut all = KVec::with_capacity(now.len(), GFP_KERNEL)?;

    for netns in now.iter() {
        all.push(netns.clone(), GFP_KERNEL)?;
    }
    drop(now);
    for netns in &all {
        netns.for_each(|ft| {
            f(ft);
            true
        });
    }
    Ok(())
}

/// A namespace comes, or the module does.
///
/// # Safety
///
/// Called by `ffi/netns.c` only.
#[no_mangle]
unsafe extern "C" fn nfo_netns_new(net: *mut c::net) -> *mut c_void {
    Netns::new(net).map_or(ptr::null_mut(), |netns| {
        Arc::into_raw(netns).cast_mut().cast()
    })
}

/// A namespace goes: a grace period is to come.
///
/// # Safety
///
/// Called by `ffi/netns.c` only, with what [`nfo_netns_new`] has returned.
#[no_mangle]
unsafe extern "C" fn nfo_netns_leave(netns: *mut c_void) {
    // SAFETY: By the contract of this function; given back by `nfo_netns_put`.
    let netns = unsafe { ArcBorrow::from_raw(netns.cast::<Netns>()) };
    let mut list = netns.list.lock();

    list.over = true;
    netns.unwatch(&mut list);
}

/// Gives the namespace back. Its flowtables still use it.
///
/// # Safety
///
/// As for [`nfo_netns_leave`], which was called a grace period ago; once.
#[no_mangle]
unsafe extern "C" fn nfo_netns_put(netns: *mut c_void) {
    // SAFETY: By the contract of this function.
    drop(unsafe { Arc::from_raw(netns.cast::<Netns>()) });
}

/// Keeps what there is of namespaces. When it is dropped all flowtables have ended.
pub(crate) struct Registration(());

impl Registration {
    /// Registers for all namespaces.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: Once, by the module's init.
        unsafe {
            NAMESPACES.init();
            to_result(c::nfo_netns_register())?;
        }
        Ok(Self(()))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: Registered by `new`.
        unsafe { c::nfo_netns_unregister() };
    }
}
