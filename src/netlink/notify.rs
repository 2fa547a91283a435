// SPDX-License-Identifier: GPL-2.0

//! The multicast group `flows`: what happens to flows, as it happens.
//!
//! Nothing is built as long as nobody in the network namespace listens, and no more than so many
//! events of a flowtable in a second: who misses some gets ENOBUFS, as when its socket is full.

use super::{
    flow::attr,
    show,
    FAMILY, //
};
use crate::{
    ffi::Rcu,
    flow::{
        events::{
            Admission,
            FlowEvent, //
        },
        shared::FlowShared, //
    }, //
};
use kernel::sync::rcu;

/// The index of the group.
const FLOWS: u32 = 0;
/// Bytes of an event, at most.
const SIZE: usize = 2048;

/// Tells those who listen what has happened to a flow.
pub(crate) fn notify(flow: &FlowShared, event: FlowEvent) {
    if FAMILY.has_listeners(flow.table().net(), FLOWS) {
        tell(flow, event);
    }
}

#[cold]
fn tell(flow: &FlowShared, event: FlowEvent) {
    let table = flow.table();
    let net = table.net();
    let (command, why) = match event {
        FlowEvent::Added => (7, None),
        FlowEvent::Tier(why) => (8, why.map(|why| why.name())),
        FlowEvent::Removed(why) => (9, Some(why.name())),
    };
    let guard = rcu::read_lock();
    let rcu = Rcu::from(&guard);

    match table.admit_event() {
        Admission::Told => FAMILY.multicast(net, FLOWS, command, SIZE, |out| {
            if let Some(why) = why {
                out.put_str(attr::REASON, why)?;
            }
            show::flow(out, rcu, table, flow)
        }),
        Admission::Lost => FAMILY.lost(net, FLOWS),
        Admission::Dropped => (),
    }
}
