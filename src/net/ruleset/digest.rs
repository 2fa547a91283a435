// SPDX-License-Identifier: GPL-2.0

//! The digest of what forwarded packets may meet in a ruleset: of the base chains on their way, of
//! all chains that these lead to, and of the sets in there. As long as it stays the same, a commit
//! has changed nothing for them.
//!
//! What counts and what changes by itself (counters, quotas, the time left of an element) is not
//! in it. Chains and elements are added up, in whatever order they are found.

use super::{
    stop,
    Chain,
    Reading,
    RulePos,
    Set,
    AT_ONCE, //
};
use crate::ffi::{
    self,
    c,
    NetRef, //
};
use core::ptr;
use kernel::{
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*, //
};
use nft_flow::ruleset::Stop;

/// What was found in a ruleset.
#[derive(Default)]
struct Found {
    /// Chains, and where base chains are (0: no base chain), by these.
    chains: KVec<(Chain, u64)>,
    /// Those of them whose rules were not read yet.
    unread: KVec<(Chain, u64)>,
    /// Sets, by address.
    sets: KVec<Set>,
}

/// Adds a value to a sorted list. Returns whether it is new.
fn insert<T: Ord + Copy>(list: &mut KVec<T>, value: T) -> Result<bool, Stop> {
    let Err(at) = list.binary_search(&value) else {
        return Ok(false);
    };

    list.push(value, GFP_ATOMIC).map_err(|_| Stop::NoMem)?;
    list[at..].rotate_right(1);
    Ok(true)
}

impl Found {
    fn add(&mut self, chain: Chain, place: u64) -> Result<(), Stop> {
        if insert(&mut self.chains, (chain, place))? {
            self.unread
                .push((chain, place), GFP_ATOMIC)
                .map_err(|_| Stop::NoMem)?;
        }
        Ok(())
    }
}

/// # Safety
///
/// Called by `nfo_rules_bases()` only, with what is passed to it.
unsafe extern "C" fn found_base(found: *mut c_void, chain: Chain, place: u64) -> c_int {
    // SAFETY: By the contract of this function.
    let found = unsafe { &mut *found.cast::<Found>() };

    // 0 stands for no place.
    found
        .add(chain, place.wrapping_add(1))
        .map_or(ENOMEM.to_errno(), |()| 0)
}

/// # Safety
///
/// Called by `nfo_rules_set_digest()` only, with what is passed to it.
unsafe extern "C" fn found_target(found: *mut c_void, chain: Chain) -> c_int {
    // SAFETY: By the contract of this function.
    let found = unsafe { &mut *found.cast::<Found>() };

    found.add(chain, 0).map_or(ENOMEM.to_errno(), |()| 0)
}

/// Mixes a word into a digest. The words are digests themselves.
fn mix(sum: u64, word: u64) -> u64 {
    (sum.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Digests ruleset `generation` of a namespace, as far as packets of the `families` (IPv4, IPv6)
/// may meet it. In process context.
pub(crate) fn digest(net: NetRef<'_>, families: [bool; 2], generation: u32) -> Result<u64, Stop> {
    let mut reading = Reading::new(net, families, generation)?;
    let mut found = Found::default();
    let [v4, v6] = families;
    let mut sum = 0_u64;

    // SAFETY: A reading that has begun; the callback gets what is passed to it.
    stop(unsafe {
        let found = (&raw mut found).cast();

        c::nfo_rules_bases(&reading.rules, v4, v6, found, Some(found_base))
    })?;
    while let Some((chain, place)) = found.unread.pop() {
        let digest = reading.chain_digest(chain, &mut found, &mut sum)?;

        sum = sum.wrapping_add(mix(digest, place));
    }
    // What was read last may be of a ruleset that was about to go.
    reading.is_in_force()?;
    Ok(sum)
}

impl Reading {
    /// Digests the rules of a chain. What they lead to is added to `found`, and digests of sets
    /// that are not there yet to `sum`.
    fn chain_digest(
        &mut self,
        chain: Chain,
        found: &mut Found,
        sum: &mut u64,
    ) -> Result<u64, Stop> {
        let mut digest = 0;
        let mut at = RulePos::default();

        // SAFETY: The chain is one that this reading has found.
        stop(unsafe { c::nfo_rules_chain_digest(&self.rules, chain, &mut digest) })?;
        loop {
            let mut e = super::blank();

            self.looked = self.looked.wrapping_add(1);
            if self.looked % AT_ONCE == 0 {
                ffi::cond_resched();
            }
            // SAFETY: As above.
            if stop(unsafe { c::nfo_rules_next(&self.rules, chain, &mut at.0, &mut e) })? == 0 {
                return Ok(digest);
            }
            if e.vague {
                return Err(Stop::TooComplex);
            }
            // Also where one rule ends and the next one begins.
            digest = mix(digest, e.digest ^ u64::from(e.kind));
            if !e.chain.is_null() {
                found.add(e.chain, 0)?;
            }
            if !e.set.is_null() && insert(&mut found.sets, e.set)? {
                let mut set = 0;
                // SAFETY: The set is one that this reading has found; the callback gets what is
                // passed to it.
                stop(unsafe {
                    let found = ptr::from_mut(found).cast();

                    c::nfo_rules_set_digest(&self.rules, e.set, found, Some(found_target), &mut set)
                })?;
                *sum = sum.wrapping_add(set);
            }
        }
    }

    /// Whether the ruleset is in force still.
    fn is_in_force(&self) -> Result<(), Stop> {
        // SAFETY: A reading that has begun.
        stop(unsafe { c::nfo_rules_in_force(&self.rules) }).map(|_| ())
    }
}
