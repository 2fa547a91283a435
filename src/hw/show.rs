// SPDX-License-Identifier: GPL-2.0

//! The tier's part of debugfs: a block of lines for each flowtable with `flags offload`.

use super::HwOffload;
use crate::flow::hw_state::Stage;
use kernel::{
    fmt,
    prelude::*, //
};
use nft_flow::reason::Unsupported;

impl HwOffload {
    /// `name value`, one a line.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner.lock();
        let n = &inner.counts;
        let whole = inner
            .resident
            .iter()
            .filter(|r| r.flow.hw.stage() == Stage::Hardware)
            .count();

        for device in &inner.devices {
            let (engine, driver) = match &device.engine {
                Some(engine) => (engine.name(), self.tc.driver(device.ifindex).unwrap_or("")),
                None => ("software", ""),
            };
            f.write_fmt(fmt!("device {} {engine} {driver}\n", device.ifindex))?;
        }
        for (name, value) in [
            ("rules", u64::from(inner.rules)),
            ("flows", whole as u64),
            ("flows_partial", (inner.resident.len() - whole) as u64),
            ("flows_waiting", inner.waiting.len() as u64),
            ("limit", inner.room.limit().map_or(0, u64::from)),
            ("threshold", self.threshold),
            ("added", n.added),
            ("deleted", n.deleted),
            ("packets", n.packets),
            ("bytes", n.bytes),
            ("swapped", n.swapped),
            ("stale", n.stale),
            ("unsettled", n.ruleset_changed),
            ("commits_same", inner.rulesets.same_count),
            ("commits_other", inner.rulesets.other_count),
            ("partial", n.partial),
            ("aged", n.aged),
            ("lost", n.lost),
            ("decline.full", n.full),
            ("decline.collision", n.collision),
            ("decline.busy", n.busy),
            ("decline.gone", n.gone),
            ("decline.io", n.io),
        ] {
            f.write_fmt(fmt!("{name} {value}\n"))?;
        }
        for (why, value) in Unsupported::ALL.iter().zip(&n.unsupported) {
            if *value != 0 {
                f.write_fmt(fmt!("decline.unsupported.{} {value}\n", why.name()))?;
            }
        }
        drop(inner);
        if let Some(said) = self.tc.last_said() {
            f.write_fmt(fmt!("driver_said {} {}\n", said.errno, said.text()))?;
        }
        Ok(())
    }
}
