// SPDX-License-Identifier: GPL-2.0

//! How long nothing was seen of an entry.

use crate::hal::Hal;

/// Ticks since the engine last saw a packet of a bound entry. The clock that an entry keeps is
/// short: after 2^15 ticks in the first generation, and after 256 in the later ones, an idle entry
/// looks young again. The engine ages entries out long before.
pub fn idle(hal: &dyn Hal, clock: u32, ib1: u32) -> u32 {
    let mask = hal.timestamp_mask();

    clock.wrapping_sub(ib1 & mask) & mask
}

/// `ib1` of an entry that was seen now.
pub fn touched(hal: &dyn Hal, clock: u32, ib1: u32) -> u32 {
    let mask = hal.timestamp_mask();

    ib1 & !mask | clock & mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hal;

    #[test]
    fn wraps() {
        assert_eq!(idle(hal::V1, 0x1_0005, touched(hal::V1, 0x7ffe, 0)), 7);
        assert_eq!(idle(hal::V2, 0x203, touched(hal::V2, 0x1fe, !0)), 5);
        assert_eq!(
            idle(hal::V3, 0x1234, touched(hal::V3, 0x1234, 0x6050_0000)),
            0
        );
        assert_eq!(touched(hal::V2, 0x1234, 0x6050_00ff), 0x6050_0034);
    }
}
