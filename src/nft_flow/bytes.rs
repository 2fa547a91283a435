// SPDX-License-Identifier: GPL-2.0

//! Unaligned loads and stores at constant offsets of a header of known size.
//!
//! `at + M <= N` holds at every call, so after inlining each of these is one move. Should a caller
//! get it wrong, a load reads zeros and a store does nothing; there is no panic to link in.

/// Reads `M` bytes at `at`.
#[inline(always)]
pub(crate) fn load<const N: usize, const M: usize>(buf: &[u8; N], at: usize) -> [u8; M] {
    match buf.get(at..).and_then(|tail| tail.first_chunk::<M>()) {
        Some(bytes) => *bytes,
        None => [0; M],
    }
}

/// Writes `M` bytes at `at`.
#[inline(always)]
pub(crate) fn store<const N: usize, const M: usize>(buf: &mut [u8; N], at: usize, bytes: [u8; M]) {
    if let Some(place) = buf
        .get_mut(at..)
        .and_then(|tail| tail.first_chunk_mut::<M>())
    {
        *place = bytes;
    }
}

/// Reads one byte at `at`.
#[inline(always)]
pub(crate) fn load_u8<const N: usize>(buf: &[u8; N], at: usize) -> u8 {
    let [byte] = load::<N, 1>(buf, at);
    byte
}

/// Reads a 16-bit word in the order of the CPU, as checksums and keys want it.
#[inline(always)]
pub(crate) fn load_u16<const N: usize>(buf: &[u8; N], at: usize) -> u16 {
    u16::from_ne_bytes(load(buf, at))
}

/// Reads a 16-bit number in network byte order.
#[inline(always)]
pub(crate) fn load_be16<const N: usize>(buf: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes(load(buf, at))
}

/// Reads a 32-bit word in the order of the CPU.
#[inline(always)]
pub(crate) fn load_u32<const N: usize>(buf: &[u8; N], at: usize) -> u32 {
    u32::from_ne_bytes(load(buf, at))
}

/// Reads a 64-bit word in the order of the CPU.
#[inline(always)]
pub(crate) fn load_u64<const N: usize>(buf: &[u8; N], at: usize) -> u64 {
    u64::from_ne_bytes(load(buf, at))
}
