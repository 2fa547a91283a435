// SPDX-License-Identifier: GPL-2.0

//! Where the kernel's own driver (mtk_ppe.c and mtk_ppe_offload.c of 7.3) errs, and what is done
//! here. The differential test compares the two, and excuses exactly these.

/// One difference.
pub struct Quirk {
    /// Short name.
    pub id: &'static str,
    /// What the kernel's driver does.
    pub kernel: &'static str,
    /// What is done here.
    pub ours: &'static str,
    /// Whether the differential test shows that the kernel's driver does it.
    pub shown: bool,
}

/// All of them.
pub const ALL: &[Quirk] = &[
    Quirk {
        id: "B1",
        kernel:
            "a flow that binds makes all others of its bucket forget their slot; when they are \
                 deleted, their entries stay in force",
        ours: "a slot has one owner, and binding another slot does not touch it",
        shown: true,
    },
    Quirk {
        id: "B2",
        kernel: "the same for the flows of a bridge: their entries are orphaned",
        ours: "the same rule for all entries",
        shown: false,
    },
    Quirk {
        id: "B3",
        kernel: "a bridge flow counts as bound in slot 0, and reads the counter of that",
        ours: "a template is not an entry and has no slot",
        shown: true,
    },
    Quirk {
        id: "B4",
        kernel:
            "reading debugfs reads and thereby clears counters, which conntrack then misses, and \
                 without a lock against who reads statistics",
        ours: "text shows what was accumulated; a counter is only read by who has the engine for \
               itself",
        shown: false,
    },
    Quirk {
        id: "B5",
        kernel: "the cache of the counters is enabled with the wrong bit: 2 instead of 1",
        ours: "1",
        shown: true,
    },
    Quirk {
        id: "B6",
        kernel: "of the entries of 80 bytes that cross 1024 on MT7621, every 115th of 128 is used",
        ours: "computed",
        shown: true,
    },
    Quirk {
        id: "B7",
        kernel: "an entry is in force before it is marked to be counted: its first packets are not",
        ours: "the mark is in the entry when it becomes valid",
        shown: false,
    },
    Quirk {
        id: "B8",
        kernel:
            "text has the EtherType with its bytes swapped, and rewritten addresses for DS-Lite, \
                 which has none",
        ours: "0800 is IPv4, and no such addresses",
        shown: true,
    },
    Quirk {
        id: "B9",
        kernel:
            "the VLAN that packets come in by is ignored: two flows with the same addresses and \
                 ports are one",
        ours: "neither is in the table; the key cannot tell them apart",
        shown: true,
    },
    Quirk {
        id: "B10",
        kernel: "a tag that has no room is left out",
        ours: "refused",
        shown: false,
    },
    Quirk {
        id: "B11",
        kernel: "a flow that is not bound yet looks as if just used, 30 ticks of every 256",
        ours: "a flow is bound when it is added, with the time of that",
        shown: false,
    },
    Quirk {
        id: "N1",
        kernel:
            "numbers that do not fit their field are cut off: switch ports above 7, WDMA rings, \
                 the third MAC of the first generation",
        ours: "refused",
        shown: true,
    },
    Quirk {
        id: "N2",
        kernel: "packets that were counted between the last statistics and the end of a flow are \
                 credited to the next flow in that slot",
        ours: "read when a flow ends, and before a slot is used",
        shown: false,
    },
    Quirk {
        id: "N3",
        kernel: "on the first generation the station of a radio overwrites the second VLAN tag",
        ours: "refused",
        shown: true,
    },
    Quirk {
        id: "N4",
        kernel: "a VLAN tag inside of a PPPoE session is written around it",
        ours: "refused",
        shown: true,
    },
    Quirk {
        id: "N5",
        kernel: "an entry is written over one that the engine may be writing",
        ours:
            "the slot is reserved first, and the engine's cache cleared: one more time than there",
        shown: false,
    },
];

#[cfg(test)]
mod tests {
    #[test]
    fn ids_are_unique() {
        let mut ids: Vec<_> = super::ALL.iter().map(|q| q.id).collect();
        ids.dedup();
        assert_eq!(ids.len(), super::ALL.len());
    }
}
