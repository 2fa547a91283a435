// SPDX-License-Identifier: GPL-2.0

//! Policies of base chains, which are in force some time after the generation that changes them.
//!
//! `nf_tables_commit()` announces a generation and goes through its transaction then. Packets meet the
//! new rules meanwhile, but the old policies; chains that are new accept what no rule of theirs drops.
//! Nobody says when the commit has ended. So if it may have to do with policies, what the first packets
//! of its generation have validated is validated once more a while later, and again if policies change
//! after that.

use super::{
    gc::REVAL_BUCKETS,
    Flowtable, //
};
use crate::{
    ffi::{
        self,
        HZ, //
    },
    net::ruleset, //
};
use core::sync::atomic::{
    AtomicU32,
    AtomicU8,
    Ordering, //
};
use nft_flow::table::{
    Cursor,
    Visit, //
};

/// How long it takes until all of a commit is in force, as a rule, in jiffies.
const SETTLE_TIME: u32 = HZ.div_ceil(10);

/// The first packets of a generation have not met policies that are not in force any more.
const NONE: u8 = 0;
/// They may have, if one commit has undone what another one had done.
const MAYBE: u8 = 1;
/// They have.
const SURE: u8 = 2;

/// What the worker knows of policies. Nobody else changes it.
#[derive(Default)]
pub(super) struct Policies {
    /// The ruleset in force when it looked last, and when it saw that one first.
    generation: AtomicU32,
    since: AtomicU32,
    /// What [`ruleset::drop_policies`] said.
    drops: AtomicU32,
    /// Whether packets have met others: [`NONE`], [`MAYBE`] or [`SURE`].
    doubt: AtomicU8,
}

impl Flowtable {
    /// Has packets pass the rules once more where they may have met policies that are not in force
    /// any more. Returns in how many jiffies to look again, at most.
    #[inline(never)]
    pub(super) fn check_policies(&self) -> u32 {
        let seen = &self.policies;
        let generation = self.generation();
        let drops = ruleset::drop_policies(self.net());
        let now = ffi::jiffies32();
        let last = seen.generation.swap(generation, Ordering::Relaxed);
        let changed = seen.drops.swap(drops, Ordering::Relaxed) != drops;
        let mut doubt = seen.doubt.load(Ordering::Relaxed);

        if last != generation {
            let commits = (generation >> 1).wrapping_sub(last >> 1);

            seen.since.store(now, Ordering::Relaxed);
            doubt = doubt.max(match (changed, drops != 0 && commits > 1) {
                (true, _) => SURE,
                (false, true) => MAYBE,
                (false, false) => NONE,
            });
        } else if changed {
            doubt = SURE;
        }
        seen.doubt.store(doubt, Ordering::Relaxed);
        let wait = SETTLE_TIME.saturating_sub(now.wrapping_sub(seen.since.load(Ordering::Relaxed)));
        match (doubt, wait) {
            (NONE, _) => return u32::MAX,
            (_, 1..) => return wait,
            _ => (),
        }

        if !self.invalidate_generation(generation, doubt == SURE) {
            return 1;
        }
        if let Some(tier) = self.hw.as_ref().filter(|_| doubt == SURE) {
            tier.doubt_ruleset();
        }
        seen.doubt.store(NONE, Ordering::Relaxed);
        u32::MAX
    }

    /// Invalidates what packets of ruleset `generation` have validated, in hardware only if `all`.
    /// False if some is left.
    fn invalidate_generation(&self, generation: u32, all: bool) -> bool {
        let mut cursor = Cursor::default();
        let mut more = true;
        let mut done = true;

        while more && !self.is_closed() {
            more = self.locked(|inner| {
                inner.cts.visit(&mut cursor, REVAL_BUCKETS, |shared| {
                    if all || !shared.hw.is_there() {
                        done &= shared.invalidate_generation(generation);
                    }
                    Visit::Keep
                })
            });
            ffi::cond_resched();
        }
        done
    }
}
