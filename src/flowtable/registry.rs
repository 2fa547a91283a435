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
        NetRef,
        PerNet,
        PerNetGuard,
        Rcu, //
    },
    flow::shared::FlowShared,
    flowtable::Flowtable,
    net::{
        ct::Ct,
        stack_hooks::{
            StackHookFns,
            StackHooks, //
        }, //
    }, //
};
use core::{
    ops::Deref,
    ptr::{
        self,
        NonNull, //
    },
    sync::atomic::{
        AtomicPtr,
        AtomicU32,
        AtomicUsize,
        Ordering, //
    }, //
};
use kernel::{
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
    workqueue::{
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

/// A pointer in the list of a namespace.
///
/// # Invariants
///
/// It is null or points to a flowtable that is in the list, or was when the pointer was last part of
/// the list. A flowtable is freed a grace period after it was taken out.
struct ListPtr(AtomicPtr<Flowtable>);

impl ListPtr {
    const fn null() -> Self {
        // INVARIANT: Null.
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    fn is_null(&self) -> bool {
        self.0.load(Ordering::Relaxed).is_null()
    }

    /// The flowtable, in a section.
    fn get<'a>(&self, _: Rcu<'a>) -> Option<&'a Flowtable> {
        // SAFETY: By the type invariant; RCU is held.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// The flowtable, for who holds the list's lock.
    fn get_locked<'a>(&self, _: &'a List) -> Option<&'a Flowtable> {
        // SAFETY: By the type invariant; nothing is taken out meanwhile.
        unsafe { self.0.load(Ordering::Relaxed).as_ref() }
    }

    /// Points to another flowtable. The list's lock is held.
    fn set(&self, ft: Option<&Flowtable>) {
        let ft = ft.map_or(ptr::null_mut(), |ft| ptr::from_ref(ft).cast_mut());

        // INVARIANT: Callers pass what is in the list, or is being put there.
        self.0.store(ft, Ordering::Release);
    }
}

/// The node of a flowtable in the list of its namespace.
pub(crate) struct ListNode {
    /// Changed under the list's lock, read under RCU as well.
    next: ListPtr,
    /// For who holds the list's lock.
    prev: ListPtr,
    /// How many use it, see [`Use`]; likewise.
    users: AtomicUsize,
    /// Those that were made later have higher ones; from 1 on.
    serial: AtomicU32,
}

impl ListNode {
    /// Makes a node that is in no list.
    pub(crate) const fn new() -> Self {
        Self {
            next: ListPtr::null(),
            prev: ListPtr::null(),
            users: AtomicUsize::new(0),
            serial: AtomicU32::new(0),
        }
    }

    /// A number by which the flowtable can be told from all others that the namespace has had.
    pub(crate) fn serial(&self) -> u32 {
        self.serial.load(Ordering::Relaxed)
    }
}

/// A use of a flowtable by a walk over a list, for which [`Netns::remove`] waits.
///
/// # Invariants
///
/// It is counted in the flowtable's node, under the list's lock.
struct Use(NonNull<Flowtable>);

impl Use {
    /// Begins to use the first flowtable from `ptr` on that is not about to end.
    fn from(ptr: &ListPtr, list: &List) -> Option<Self> {
        let mut ft = ptr.get_locked(list)?;

        while ft.is_closed() {
            ft = ft.list_node.next.get_locked(list)?;
        }
        ft.list_node.users.fetch_add(1, Ordering::Relaxed);
        // INVARIANT: Counted just now.
        Some(Self(ft.into()))
    }

    /// Ends it. Returns whether somebody may wait for that.
    fn end(self, _: &List) -> bool {
        // Who closes it waits for the last user, and has not taken it out.
        self.list_node.users.fetch_sub(1, Ordering::Relaxed) == 1 && self.is_closed()
    }
}

impl Deref for Use {
    type Target = Flowtable;

    fn deref(&self) -> &Flowtable {
        // SAFETY: By the type invariant it has not been taken out of the list.
        unsafe { self.0.as_ref() }
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

/// The part of a namespace under the list's lock.
struct List {
    /// The newest flowtable.
    last: ListPtr,
    /// How many there have been.
    made: u32,
    /// The namespace ends.
    over: bool,
}

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
    first: ListPtr,
    /// Raised when devices change, or go away, before the grace period that their memory is freed
    /// after.
    topology: AtomicUsize,
    /// See the packets that enter the ruleset, and those that have passed it, as long as there are
    /// flowtables.
    hooks: StackHooks,
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

// SAFETY: There is no other such type.
unsafe impl PerNet for Netns {
    fn new(net: NetRef<'static>) -> Result<Arc<Self>> {
        let unused = KBox::pin_init(new_condvar!("nft_offload::netns::unused"), GFP_KERNEL)?;
        let list = List {
            last: ListPtr::null(),
            made: 0,
            over: false,
        };
        let events = Events {
            list: KVec::new(),
            all: false,
        };

        Arc::pin_init(
            pin_init!(Self {
                first: ListPtr::null(),
                topology: AtomicUsize::new(0),
                hooks: StackHooks::new(net),
                list <- new_mutex!(list, "nft_offload::netns"),
                unused,
                events <- new_spinlock!(events, "nft_offload::netns::events"),
                work <- new_work!("nft_offload::netns::work"),
            }),
            GFP_KERNEL,
        )
    }

    fn leave(&self) {
        let mut list = self.list.lock();

        list.over = true;
        self.hooks.unregister();
    }
}

impl Netns {
    /// Returns our part of a namespace, or [`None`] at its end.
    pub(crate) fn of(net: NetRef<'_>) -> Option<ArcBorrow<'_, Self>> {
        <Self as PerNet>::of(net)
    }

    /// Puts a new flowtable into the list. `see` is called for packets as long as there is one in
    /// it.
    ///
    /// # Safety
    ///
    /// It is in no list, and is taken out before it is freed.
    pub(crate) unsafe fn add(self: &Arc<Self>, ft: &Flowtable, see: &StackHookFns<Self>) -> Result {
        let mut list = self.list.lock();

        if list.last.is_null() {
            NAMESPACES.lock().push(self.clone(), GFP_KERNEL)?;
            if let Err(e) = self.watch(&list, see) {
                self.withdraw();
                return Err(e);
            }
        }
        list.made = list.made.wrapping_add(1);
        ft.list_node.serial.store(list.made, Ordering::Relaxed);
        let last = list.last.get_locked(&list);
        ft.list_node.prev.set(last);
        // INVARIANT: The newest is the last one.
        last.map_or(&self.first, |last| &last.list_node.next)
            .set(Some(ft));
        list.last.set(Some(ft));
        Ok(())
    }

    /// Takes a flowtable out of the list, when the walks that use it are over. It is to be
    /// [closed](Flowtable::is_closed) before, so that they soon are.
    pub(crate) fn remove(&self, ft: &Flowtable) {
        let mut list = self.list.lock();

        while ft.list_node.users.load(Ordering::Relaxed) != 0 {
            self.unused.wait(&mut list);
        }
        let next = ft.list_node.next.get_locked(&list);
        let prev = ft.list_node.prev.get_locked(&list);

        prev.map_or(&self.first, |prev| &prev.list_node.next)
            .set(next);
        next.map_or(&list.last, |next| &next.list_node.prev)
            .set(prev);
        if list.last.is_null() {
            self.withdraw();
            self.hooks.unregister();
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
    fn watch(&self, list: &List, see: &StackHookFns<Self>) -> Result {
        if list.over {
            return Ok(());
        }
        // SAFETY: Pinned, and the list's lock is held, here and by who unregisters them. That is
        // when the last flowtable goes, or the namespace, and each of these keeps us for a grace
        // period more.
        unsafe { self.hooks.register(self, see) }
    }

    /// The flow of a conntrack entry.
    pub(crate) fn find<'a>(&'a self, rcu: Rcu<'a>, ct: Ct) -> Option<&'a FlowShared> {
        let mut next = self.first.get(rcu);

        while let Some(ft) = next {
            if let Some(flow) = ft.find(rcu, ct) {
                return Some(flow);
            }
            next = ft.list_node.next.get(rcu);
        }
        None
    }

    /// Calls `f` for each flowtable, until it returns false. No lock is held then, nothing keeps
    /// the flowtable from being closed, but its end waits: so `f` is to be quick, or to look after
    /// that.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&Flowtable) -> bool) {
        let mut list = self.list.lock();
        let mut next = Use::from(&self.first, &list);

        while let Some(ft) = next {
            drop(list);
            let go_on = f(&ft);
            list = self.list.lock();
            next = go_on
                .then(|| Use::from(&ft.list_node.next, &list))
                .flatten();
            if ft.end(&list) {
                self.unused.notify_all();
            }
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
        if this.first.is_null() {
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
        // It may be on the queue already.
        let _ = this.queue().enqueue(Arc::from(this));
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

/// Keeps what there is of namespaces. When it is dropped all flowtables have ended.
pub(crate) struct Registration {
    _netns: PerNetGuard<Netns>,
}

impl Registration {
    /// Registers for all namespaces.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: Once, by the module's init.
        unsafe { NAMESPACES.init() };
        Ok(Self {
            _netns: PerNetGuard::new()?,
        })
    }
}
