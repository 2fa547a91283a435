// SPDX-License-Identifier: GPL-2.0

//! What engines have counted, for the flow and for conntrack.

use super::{
    now,
    Resident,
    TierInner, //
};
use crate::{
    ffi::HZ,
    flow::shared::FlowShared, //
};
use core::sync::atomic::Ordering;
use nft_flow::{
    direction::Direction,
    engine::{
        Counting,
        Delta, //
    }, //
};

impl TierInner {
    /// Reads the statistics of a rule from its engine and adds them to the flow's counters. False
    /// if the engine has lost the rule.
    pub(super) fn read_stats(&mut self, resident: &mut Resident, dir: usize) -> bool {
        resident.health[dir].active = false;
        resident.health[dir].seen = resident.flow.last_seen(dir);
        let Some(rule) = resident.rules.get(dir).and_then(|r| r.as_ref()) else {
            return true;
        };
        let Some(engine) = self.engine(rule.ifindex) else {
            return false;
        };
        let Ok(delta) = engine.stats(rule) else {
            return false;
        };
        let flow = resident.flow;
        let device = self.devices.iter_mut().find(|d| d.ifindex == rule.ifindex);
        let counts = device.is_some_and(|device| {
            device.has_counted |= delta.packets != 0;
            device.has_counted
        }) || engine.caps(rule.ifindex).counting == Counting::Delta;
        let health = &mut resident.health[dir];

        // Engines that do not count may say when the last packet was.
        health.active = delta.packets != 0
            || !counts
                && delta.used.is_some_and(|used| {
                    let now = now();

                    now.wrapping_sub(used) as i32 <= 2 * HZ as i32
                        && used.wrapping_sub(health.since) as i32 > 2 * HZ as i32
                });
        health.proven |= health.active;
        if delta.packets != 0 {
            resident.by_hardware = resident.by_hardware.wrapping_add(delta.bytes);
            // What a driver says may be anything.
            self.counts.packets = self.counts.packets.wrapping_add(delta.packets);
            self.counts.bytes = self.counts.bytes.wrapping_add(delta.bytes);
            flow.hw.bytes.fetch_add(delta.bytes, Ordering::Relaxed);
            if flow.table().counts() {
                count_ct(&flow, dir, &delta);
            }
        }
        if let Some(used) = delta.used {
            flow.seen_at(dir, used);
        }
        resident.health[dir].seen = flow.last_seen(dir);
        true
    }
}

/// Adds what hardware has forwarded to conntrack's own counters, as `nf_ct_acct_add()` does.
fn count_ct(shared: &FlowShared, dir: usize, delta: &Delta) {
    let dir = match dir {
        0 => Direction::Original,
        _ => Direction::Reply,
    };

    if let Some(counters) = shared.acct {
        counters.add(dir, delta.packets, delta.bytes);
    }
}
