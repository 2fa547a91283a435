// SPDX-License-Identifier: GPL-2.0

//! Other L4 protocols than TCP and UDP: rewriting their headers.

use crate::bytes::{
    load,
    load_u16,
    load_u32,
    store, //
};
use crate::checksum::{
    Csum,
    Delta, //
};
use crate::crc32c;
use crate::other_l4::{
    GRE_CALL,
    ICMP_ID,
    ICMP_LEN,
    PPTP_LEN,
    SCTP_LEN, //
};
use crate::packet::Miss;
use crate::reason::MissReason;

/// Where the checksum lies in ICMP.
const ICMP_CHECK: usize = 2;
/// Where the checksum lies in SCTP.
const SCTP_CHECK: usize = 8;

/// Writes the ports of SCTP, whose checksum does not cover the addresses; `len` is the length of
/// the SCTP packet. A checksum of zero stands for none (RFC 9653).
#[inline(always)]
pub(crate) fn sctp(l4: &mut [u8], len: u16, ports: u32, csum: Csum) -> Result<(), Miss> {
    let Some(sctp) = l4.first_chunk_mut::<SCTP_LEN>() else {
        return Err(MissReason::Truncated.into());
    };
    let old = load_u32(sctp, 0);
    let check: [u8; 4] = load(sctp, SCTP_CHECK);

    if old != ports {
        if csum == Csum::Full && check != [0; 4] {
            store(sctp, SCTP_CHECK, crc32c::replace(check, len, old, ports));
        }
        store(sctp, 0, ports.to_ne_bytes());
    }
    Ok(())
}

/// Writes identifier and checksum of an echo.
#[inline(always)]
pub(crate) fn icmp(
    l4: &mut [u8],
    ports: u32,
    addr: Delta,
    full: Delta,
    csum: Csum,
) -> Result<(), Miss> {
    let Some(icmp) = l4.first_chunk_mut::<ICMP_LEN>() else {
        return Err(MissReason::Truncated.into());
    };
    let [a, b, ..] = ports.to_ne_bytes();
    let check = load_u16(icmp, ICMP_CHECK);
    let check = match csum {
        Csum::Full => full.apply(check),
        Csum::Partial => addr.apply_partial(check),
    };

    store(icmp, ICMP_CHECK, check.to_ne_bytes());
    store(icmp, ICMP_ID, [a, b]);
    Ok(())
}

/// Writes the call of GRE version 1; its header has no checksum.
#[inline(always)]
pub(crate) fn gre(l4: &mut [u8], ports: u32) -> Result<(), Miss> {
    // Version 0.
    if ports == 0 {
        return Ok(());
    }
    let Some(gre) = l4.first_chunk_mut::<PPTP_LEN>() else {
        return Err(MissReason::Truncated.into());
    };
    let [_, _, a, b] = ports.to_ne_bytes();

    store(gre, GRE_CALL, [a, b]);
    Ok(())
}
