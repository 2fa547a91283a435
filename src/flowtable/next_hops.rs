// SPDX-License-Identifier: GPL-2.0

//! The next hops of a flowtable, and how the worker finds out how packets to them leave.

use super::{
    Flowtable,
    FlowtableInner, //
};
use crate::{
    ffi::{
        self,
        Rcu,
        Rtnl, //
    },
    net::{
        direct::{
            Direct,
            Ports,
            Refusal, //
        },
        family::{
            Family,
            V4,
            V6, //
        },
        forward_path::XmitType,
        hop_table::HopUse,
        next_hop::NextHop, //
    }, //
};
use kernel::{
    prelude::*,
    sync::rcu, //
};
use nft_flow::{
    reason::SkipReason,
    table::{
        Cursor,
        Visit, //
    }, //
};

/// Buckets that are looked at before others get a chance to run.
const BUCKETS_AT_ONCE: usize = 4;

impl Flowtable {
    /// Finds or makes the next hop of packets that leave by `output`, and begins to use it; [`None`]
    /// for IPsec.
    pub(super) fn next_hop<F: Family>(
        &self,
        inner: &mut FlowtableInner,
        output: &XmitType,
    ) -> Result<Option<HopUse>, SkipReason> {
        let XmitType::Neigh(neigh) = output else {
            return Ok(None);
        };
        let v6 = F::NFPROTO == V6::NFPROTO;

        inner.hops.get(&self.hops, neigh, v6, &self.seed).map(Some)
    }

    /// Finds out how packets to each next hop leave now. False if it is to be done again soon, because
    /// RTNL was not to be had: it must not be waited for here, see
    /// [`check_bridges`](Self::check_bridges).
    #[inline(never)]
    pub(super) fn check_next_hops(&self) -> bool {
        if self.check_all_next_hops(false) {
            return true;
        }
        let rtnl = Rtnl::try_lock();

        rtnl.is_some() && self.check_all_next_hops(true)
    }

    /// The same, with or without RTNL. False if something cannot be told without.
    fn check_all_next_hops(&self, rtnl: bool) -> bool {
        let mut cursor = Cursor::default();
        let mut more = self.locked(|inner| !inner.hops.writer().is_empty());
        let mut sure = true;

        while more && !self.is_closed() {
            more = self.locked(|inner| {
                inner
                    .hops
                    .writer()
                    .visit(&mut cursor, BUCKETS_AT_ONCE, |hop| {
                        sure &= if hop.v6 {
                            self.check_next_hop::<V6>(hop, rtnl)
                        } else {
                            self.check_next_hop::<V4>(hop, rtnl)
                        };
                        Visit::Keep
                    })
            });
            ffi::cond_resched();
        }
        sure
    }

    /// The same for one; under the lock.
    fn check_next_hop<F: Family>(&self, hop: &NextHop, rtnl: bool) -> bool {
        let guard = rcu::read_lock();
        let rcu = Rcu::from(&guard);
        let Some(n) = hop.neighbour(rcu) else {
            return true;
        };
        let old = hop.direct(rcu);
        let ports = match old {
            _ if rtnl => Ports::Ask,
            // A port that does not forward any more would have changed the topology.
            // SAFETY: RCU is held, and the neighbour is valid.
            Some(old) if unsafe { old.is_valid(n.as_ptr()) } => Ports::Forward,
            _ => Ports::Unknown,
        };

        // SAFETY: The flowtable keeps what there is of the namespace.
        let new = unsafe { Direct::resolve::<F>(rcu, n, self.nft(), self.netns.topology(), ports) };
        match new {
            Ok(new) => {
                if old.is_none_or(|old| !old.is_same(&new)) {
                    hop.set_direct(Some(new));
                }
                true
            }
            Err(Refusal::Stack) => {
                hop.set_direct(None);
                true
            }
            Err(Refusal::Rtnl) => false,
        }
    }
}
