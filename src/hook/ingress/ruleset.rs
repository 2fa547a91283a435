// SPDX-License-Identifier: GPL-2.0

//! The ruleset's answer for packets, as far as it is known, and probes that are sent there to find
//! out.

use super::L3Location;
use crate::{
    ffi::{
        skb::Skb, //
    },
    flow::{
        entry::Entry,
        qos::{
            self,
            has,
            Change,
            Lookup,
            Probe, //
            SkbMeta,
        },
        table_ref::TableRef, //
    },
    flowtable::Flowtable,
    net::family::Family, //
};
use nft_flow::{
    key::L4Proto,
    parse::Packet,
    reason::MissReason, //
};

/// Looks up what the ruleset changes in a packet without a valid stamp.
///
/// # Errors
///
/// The ruleset has no answer yet, and gets this packet.
#[inline(never)]
pub(super) fn consult_ruleset<F: Family>(
    ft: &Flowtable,
    skb: Skb,
    loc: L3Location<'_>,
    entry: &Entry<F>,
    pkt: &Packet<F::Key>,
) -> Result<Change, MissReason> {
    let generation = ft.generation();
    let qos = &entry.flow().shared.qos[entry.dir() as usize];
    let came = SkbMeta::at_ingress(skb, pkt.ds_field, qos::is_by_tos::<F>(ft));

    match qos.lookup(generation, came) {
        Lookup::Answer(change, nothing) => {
            if nothing && !entry.wants_ct() {
                if let Some(stamp) = TableRef::stamp_of(generation, pkt.ds_field) {
                    entry.put_stamp(stamp, || {
                        !entry.wants_ct()
                            && matches!(qos.lookup(generation, came), Lookup::Answer(_, true))
                    });
                }
            }
            Ok(change)
        }
        Lookup::Nothing => {
            entry.send_to_ruleset(&probe_of::<F>(ft, skb, loc, pkt));
            Err(MissReason::Ruleset)
        }
        Lookup::Others(full) => {
            qos.add_probe(&probe_of::<F>(ft, skb, loc, pkt));
            Err(match full {
                true => MissReason::ManyLooks,
                false => MissReason::Looks,
            })
        }
    }
}

/// Handles a packet without a flow, whose key has this `hash`. What it came in with is noted, as
/// it may be the packet that adds one.
#[cold]
#[inline(never)]
pub(super) fn no_entry<F: Family>(
    ft: &Flowtable,
    skb: Skb,
    offset: usize,
    thoff: u8,
    proto: L4Proto,
    hash: u32,
) -> MissReason {
    let ds_field = F::ds_field(skb.head().get(offset..).unwrap_or_default());

    probe::<F>(ft, skb, offset, thoff, proto, ds_field).note(skb, hash);
    MissReason::NoEntry
}

/// Returns what is remembered of a packet that goes to the ruleset.
#[cold]
pub(super) fn probe_of<F: Family>(
    ft: &Flowtable,
    skb: Skb,
    loc: L3Location<'_>,
    pkt: &Packet<F::Key>,
) -> Probe {
    probe::<F>(ft, skb, loc.offset, pkt.thoff, pkt.proto, pkt.ds_field)
}

/// Returns what is remembered of a packet with this offset and these fields.
#[inline(always)]
pub(super) fn probe<F: Family>(
    ft: &Flowtable,
    skb: Skb,
    offset: usize,
    thoff: u8,
    proto: L4Proto,
    ds_field: u8,
) -> Probe {
    let hdr = skb.head().get(offset..).unwrap_or_default();
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let transport = hdr.get(thoff.into()..).unwrap_or_default();
    let sum = proto == L4Proto::Udp
        && transport
            .get(6..8)
            .is_some_and(|checksum| checksum != [0, 0]);

    Probe {
        fingerprint: skb.fingerprint(offset as u32, thoff.into(), proto.number()),
        generation: ft.generation(),
        came: SkbMeta::at_ingress(skb, ds_field, qos::is_by_tos::<F>(ft)),
        ttl: F::ttl(hdr),
        has: flag(sum, has::CHECKSUM) | flag(F::must_not_fragment(hdr), has::DONT_FRAGMENT),
    }
}
