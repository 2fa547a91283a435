// SPDX-License-Identifier: GPL-2.0

//! Qdiscs, filters and chains at egress that want to see the conntrack entry of packets.
//!
//! A packet that is forwarded fast has none: nobody needs it as a rule, and a reference for each
//! packet costs. cake with its option `nat` asks for it, filters and programs at egress may
//! (act_ctinfo, act_connmark, act_ct), and so may nftables chains of a bridge. Nobody gives notice
//! of these, so the worker looks once a second which devices of the namespace have such, or stand
//! on one that has. The answer is a flag of each direction whose route leaves by the device; a
//! direction that nobody asks for pays nothing.

use super::{
    Flowtable,
    Store, //
};
use crate::{
    ffi::{
        self,
        c,
        Rcu,
        Rtnl,
        HZ, //
    },
    flow::entry::Entry,
    net::family::{
        Family,
        V4,
        V6, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        rcu,
        Arc, //
    }, //
};
use nft_flow::table::{
    Cursor,
    Visit, //
};

/// Devices that are looked at before others get a chance to run, or to take RTNL.
const DEVICES_AT_ONCE: usize = 32;
/// Buckets of flows, in the same way.
const BUCKETS_AT_ONCE: usize = 64;
const IPV4: u8 = c::NFO_ASKS_IPV4 as u8;
const IPV6: u8 = c::NFO_ASKS_IPV6 as u8;
const UNSURE: u8 = c::NFO_ASKS_UNSURE as u8;

/// The devices of a namespace whose egress wants the conntrack entry of packets.
///
/// # Invariants
///
/// In ascending order of their numbers.
struct Askers(KVec<c::nfo_asker>);

impl Askers {
    /// The families whose entries are wanted at the device with this number.
    fn families(&self, ifindex: u32) -> u8 {
        self.0
            .binary_search_by_key(&ifindex, |asker| asker.ifindex)
            .ok()
            .and_then(|i| self.0.get(i))
            .map_or(0, |asker| asker.asks)
    }

    fn is_same(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self
                .0
                .iter()
                .zip(other.0.iter())
                .all(|(a, b)| (a.ifindex, a.asks) == (b.ifindex, b.asks))
    }
}

/// What a flowtable knows of devices whose egress wants the conntrack entry; under its lock.
#[derive(Default)]
pub(super) struct Egress {
    askers: Option<Arc<Askers>>,
    /// `jiffies` of the latest look.
    looked: u32,
}

impl Egress {
    /// Marks the entries of a flow that is being added. False if nobody has looked for so long that
    /// the worker should do so now.
    pub(super) fn mark<F: Family>(&self, entries: [&Entry<F>; 2]) -> bool {
        let guard = rcu::read_lock();
        let rcu = Rcu::from(&guard);

        for entry in entries {
            mark(rcu, entry, self.askers.as_deref());
        }
        ffi::jiffies32().wrapping_sub(self.looked) < 2 * HZ
    }
}

/// Says in an entry whether somebody asks for its packets. Of what leaves through IPsec nobody
/// below can: it is another connection by then.
fn mark<F: Family>(rcu: Rcu<'_>, entry: &Entry<F>, askers: Option<&Askers>) {
    let family = match F::NFPROTO == V4::NFPROTO {
        true => IPV4,
        false => IPV6,
    };
    let ifindex = entry.dst.device(rcu).ifindex();
    let asked = askers.is_some_and(|a| a.families(ifindex) & family != 0);

    entry.set_wants_ct(asked && !entry.is_xfrm());
}

impl Flowtable {
    /// Looks which devices want conntrack entries now, and tells the flows if that has changed.
    /// False if it is to be done again soon, because RTNL was not to be had: it must not be waited
    /// for here, see [`check_bridges`](Self::check_bridges).
    #[inline(never)]
    pub(super) fn check_egress(&self) -> bool {
        let now = ffi::jiffies32();
        let old = self.locked(|inner| {
            // The worker may be in a hurry because of something else.
            let due = !inner.wheel.is_empty() && now.wrapping_sub(inner.egress.looked) >= HZ / 2;

            due.then(|| inner.egress.askers.clone())
        });
        let Some(old) = old else {
            return true;
        };
        // Without memory another time.
        let Ok((new, sure)) = self.askers(old.as_deref()) else {
            return false;
        };
        let same = match &old {
            Some(old) => old.is_same(&new),
            None => new.0.is_empty(),
        };
        if same {
            self.locked(|inner| inner.egress.looked = now);
            return sure;
        }
        let Ok(new) = Arc::new(new, GFP_KERNEL) else {
            return false;
        };
        // The old ones go when the lock has been given back.
        self.locked(|inner| {
            inner.egress.looked = now;
            inner.egress.askers.replace(new.clone())
        });
        self.mark_all::<V4>(&new);
        self.mark_all::<V6>(&new);
        sure
    }

    /// Looks at the devices of the namespace; says as well whether the answers are more than what
    /// was known before.
    fn askers(&self, old: Option<&Askers>) -> Result<(Askers, bool)> {
        const NOBODY: c::nfo_asker = c::nfo_asker {
            ifindex: 0,
            asks: 0,
        };
        let mut askers = KVec::new();
        let mut next = 0;
        let mut sure = true;

        loop {
            let mut found = [NOBODY; DEVICES_AT_ONCE];
            let from = next;
            let mut n = self.net().askers(false, &mut next, &mut found);

            let unsure = found.iter().take(n).any(|asker| asker.asks & UNSURE != 0);
            if let Some(_rtnl) = unsure.then(Rtnl::try_lock).flatten() {
                next = from;
                n = self.net().askers(true, &mut next, &mut found);
            }
            for asker in found.iter_mut().take(n) {
                if asker.asks & UNSURE != 0 {
                    let known = old.map_or(0, |old| old.families(asker.ifindex));

                    sure = false;
                    asker.asks = (asker.asks & !UNSURE) | known;
                }
                if asker.asks != 0 {
                    askers.push(*asker, GFP_KERNEL)?;
                }
            }
            if next == 0 {
                // INVARIANT: C looks at them in that order.
                return Ok((Askers(askers), sure));
            }
            if self.is_closed() {
                return Err(ENOENT);
            }
            ffi::cond_resched();
        }
    }

    fn mark_all<F: Store>(&self, askers: &Askers) {
        let mut cursor = Cursor::default();

        while self.locked(|inner| {
            let guard = rcu::read_lock();
            let rcu = Rcu::from(&guard);

            F::writer(inner).visit(&mut cursor, BUCKETS_AT_ONCE, |entry| {
                mark(rcu, entry, Some(askers));
                Visit::Keep
            })
        }) && !self.is_closed()
        {
            ffi::cond_resched();
        }
    }
}
