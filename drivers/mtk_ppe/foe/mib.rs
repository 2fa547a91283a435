// SPDX-License-Identifier: GPL-2.0

//! Counters of packets and bytes.

/// Packets and bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Counters {
    /// Adds what was counted since.
    pub fn add(&mut self, delta: Counters) {
        self.packets = self.packets.wrapping_add(delta.packets);
        self.bytes = self.bytes.wrapping_add(delta.bytes);
    }
}

/// 48 bits of bytes and 40 of packets in three registers.
pub(crate) fn narrow([r0, r1, r2, _]: [u32; 4]) -> Counters {
    Counters {
        bytes: (u64::from(r1 & 0xffff) << 32) | u64::from(r0),
        packets: (u64::from(r2 & 0x00ff_ffff) << 16) | u64::from(r1 >> 16),
    }
}

/// 64 bits each in four.
pub(crate) fn wide([r0, r1, r2, r3]: [u32; 4]) -> Counters {
    Counters {
        bytes: (u64::from(r1) << 32) | u64::from(r0),
        packets: (u64::from(r3) << 32) | u64::from(r2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers() {
        let regs = [0x89ab_cdef, 0x1234_4567, 0xff00_0056, 0x1];
        assert_eq!(
            narrow(regs),
            Counters {
                bytes: 0x4567_89ab_cdef,
                packets: 0x56_1234
            }
        );
        assert_eq!(
            wide(regs),
            Counters {
                bytes: 0x1234_4567_89ab_cdef,
                packets: 0x1_ff00_0056
            }
        );
    }
}
