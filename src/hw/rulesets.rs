// SPDX-License-Identifier: GPL-2.0

//! Which generations of the ruleset are as good as the one in force, for flows in hardware.
//!
//! Many commits change nothing for forwarded packets: an element of a set that no rule on their way
//! looks at, a table of somebody else's. Software asks the ruleset after every commit, which costs
//! a packet of each direction; a flow in hardware would have to leave for that. So the worker
//! [digests](ruleset::digest) the ruleset after a commit: while that stays the same, packets that
//! an earlier generation has accepted would be accepted by this one.
//!
//! A generation is announced before all of it is in force, so it is read once more when it is.

use super::now;
use crate::{
    ffi::HZ,
    flow::qos::NO_RULESET,
    net::ruleset, //
};
use core::mem;
use nft_flow::ruleset::Stop;

/// Generations that are remembered. A flow that goes into hardware was accepted by one of the last
/// few, or has to come again.
const REMEMBERED: usize = 32;
/// How long a generation may be in force before flows of others have to leave, in jiffies.
const DEADLINE: u32 = HZ / 10;
/// A reading that takes longer than this is not begun again at once.
const LONG: u32 = HZ.div_ceil(50);

/// What is known of the generations.
pub(super) struct Rulesets {
    /// Goes up with each one that may be another one for forwarded packets.
    epoch: u32,
    /// The latest one, once something is known of it.
    judged: u32,
    /// Of that one. [`None`]: it could not be read.
    digest: Option<u64>,
    /// It has to be read once more.
    doubted: bool,
    /// Those with the same digest, and where the next one goes.
    same: [u32; REMEMBERED],
    next_slot: usize,
    /// Since when there is one of which nothing is known.
    unread_since: Option<u32>,
    /// No reading begins before that.
    not_before: u32,
    /// Generations that were as good as the one before, and others.
    pub(super) same_count: u64,
    pub(super) other_count: u64,
}

impl Rulesets {
    pub(super) fn new(now: u32) -> Self {
        Self {
            epoch: 0,
            judged: NO_RULESET,
            digest: None,
            doubted: false,
            same: [NO_RULESET; REMEMBERED],
            next_slot: 0,
            unread_since: None,
            not_before: now,
            same_count: 0,
            other_count: 0,
        }
    }

    /// The present epoch.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether packets that were accepted by this generation would be by the one in force.
    pub(super) fn is_agreed(&self, generation: u32) -> bool {
        generation != NO_RULESET && self.same.contains(&generation)
    }

    /// Whether something has to be found out about the generation in force.
    pub(super) fn is_unread(&self, generation: u32) -> bool {
        self.judged != generation || self.doubted
    }

    /// Notes that what was read may not be what is in force now.
    pub(super) fn doubt(&mut self) {
        self.doubted = true;
    }

    /// Whether it may be read now.
    pub(super) fn may_read(&self) -> bool {
        now().wrapping_sub(self.not_before) as i32 >= 0
    }

    /// Notes what was read of the generation in force, if it was read, since `begun`. Returns
    /// whether it has to be read still.
    pub(super) fn judge(
        &mut self,
        generation: u32,
        read: Option<Result<u64, Stop>>,
        begun: u32,
    ) -> bool {
        let now = now();
        let took = now.wrapping_sub(begun);

        if read.is_some() && took >= LONG {
            self.not_before = now.wrapping_add(took.saturating_mul(8));
        }
        if self.judged == generation {
            self.judge_again(generation, read);
            return false;
        }
        match read {
            Some(Ok(digest)) => {
                let same = self.digest == Some(digest);

                self.digest = Some(digest);
                self.agree(generation, same);
            }
            Some(Err(Stop::Changed)) | None => {
                let since = *self.unread_since.get_or_insert(begun);

                if now.wrapping_sub(since) < DEADLINE {
                    return true;
                }
                self.digest = None;
                self.agree(generation, false);
            }
            // Whatever it is: nobody can say that it is the same.
            Some(Err(_)) => {
                self.digest = None;
                self.agree(generation, false);
            }
        }
        false
    }

    /// The same for one that was judged before.
    fn judge_again(&mut self, generation: u32, read: Option<Result<u64, Stop>>) {
        let digest = match read {
            // Another one is in force by now, or it is too early.
            Some(Err(Stop::Changed)) | None => return,
            Some(read) => read.ok(),
        };

        self.doubted = false;
        if mem::replace(&mut self.digest, digest) != digest {
            self.agree(generation, false);
        }
    }

    fn agree(&mut self, generation: u32, same: bool) {
        self.unread_since = None;
        self.judged = generation;
        self.doubted = false;
        if same {
            self.same_count += 1;
        } else {
            self.other_count += 1;
            self.epoch = self.epoch.wrapping_add(1);
            self.same = [NO_RULESET; REMEMBERED];
        }
        if let Some(slot) = self.same.get_mut(self.next_slot % REMEMBERED) {
            *slot = generation;
        }
        self.next_slot = (self.next_slot + 1) % REMEMBERED;
    }
}

/// Reads the ruleset in force.
pub(super) use ruleset::digest as read;
