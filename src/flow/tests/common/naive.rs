// SPDX-License-Identifier: GPL-2.0

//! Parsing and checksums again, written plainly from the RFCs: what the crate is compared with, by
//! the tests and by the fuzz targets.

use nft_flow::{
    parse::Miss,
    reason::MissReason, //
};

/// What a naive parser makes of a packet; addresses and ports in network byte order.
#[derive(Debug, PartialEq, Eq)]
pub struct Facts {
    pub saddr: Vec<u8>,
    pub daddr: Vec<u8>,
    pub ports: [u8; 4],
    pub proto: u8,
    pub thoff: usize,
    pub len: usize,
    pub tcp_flags: u8,
    /// Of TCP: the sequence number, and that after the last byte.
    pub seqs: Option<(u32, u32)>,
}

/// Classifies an IPv`version` packet of which the first `linear` bytes are linear.
pub fn classify(version: u8, packet: &[u8], linear: usize) -> Result<Facts, Miss> {
    let iph = if version == 4 { 20 } else { 40 };

    if packet.len() < iph {
        return Err(MissReason::Truncated.into());
    }
    if linear < iph {
        return Err(Miss::NeedPull((iph + 20).min(packet.len()) as u32));
    }
    if packet[0] >> 4 != version {
        return Err(MissReason::BadVersion.into());
    }

    let len;
    let proto;
    let ttl;
    let (src, dst);
    if version == 4 {
        let ihl = (packet[0] & 15) as usize * 4;
        if ihl < 20 {
            return Err(MissReason::Truncated.into());
        }
        if ihl > 20 {
            return Err(MissReason::IpOptions.into());
        }
        len = packet[2] as usize * 256 + packet[3] as usize;
        if len < 20 || len > packet.len() {
            return Err(MissReason::Truncated.into());
        }
        if checksum(&[&packet[..20]]) != 0 {
            return Err(MissReason::BadChecksum.into());
        }
        let more_fragments = packet[6] & 0x20 != 0;
        let offset = (packet[6] & 0x1f) as usize * 256 + packet[7] as usize;
        if more_fragments || offset != 0 {
            return Err(MissReason::Fragment.into());
        }
        ttl = packet[8];
        proto = packet[9];
        if proto != 6 && proto != 17 {
            return Err(MissReason::L4Proto.into());
        }
        (src, dst) = (&packet[12..16], &packet[16..20]);
    } else {
        let payload = packet[4] as usize * 256 + packet[5] as usize;
        if payload == 0 {
            return Err(MissReason::Jumbogram.into());
        }
        len = 40 + payload;
        if len > packet.len() {
            return Err(MissReason::Truncated.into());
        }
        proto = packet[6];
        ttl = packet[7];
        if [0, 43, 44, 51, 59, 60, 135, 139, 140].contains(&proto) {
            return Err(MissReason::ExtHeader.into());
        }
        if proto != 6 && proto != 17 {
            return Err(MissReason::L4Proto.into());
        }
        (src, dst) = (&packet[8..24], &packet[24..40]);
    }
    if ttl < 2 {
        return Err(MissReason::TtlExpiring.into());
    }

    let l4h = if proto == 6 { 20 } else { 8 };
    if len < iph + l4h {
        return Err(MissReason::Truncated.into());
    }
    if linear < iph + l4h {
        return Err(Miss::NeedPull((iph + l4h) as u32));
    }
    let l4 = &packet[iph..len];
    let claimed = match proto {
        6 => (l4[12] >> 4) as usize * 4,
        _ => l4[4] as usize * 256 + l4[5] as usize,
    };
    if claimed < l4h || claimed > l4.len() {
        return Err(MissReason::Truncated.into());
    }

    Ok(Facts {
        saddr: src.to_vec(),
        daddr: dst.to_vec(),
        ports: [l4[0], l4[1], l4[2], l4[3]],
        proto,
        thoff: iph,
        len,
        tcp_flags: if proto == 6 { l4[13] } else { 0 },
        seqs: (proto == 6).then(|| {
            let seq = u32::from_be_bytes([l4[4], l4[5], l4[6], l4[7]]);
            (seq, seq.wrapping_add((l4.len() - claimed) as u32))
        }),
    })
}

/// The Internet checksum over the concatenation of `parts`, all but the last of even length: zero
/// over something that includes a right checksum.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    !sum(parts)
}

/// The ones' complement sum that [`checksum`] is the complement of.
pub fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for word in part.chunks(2) {
            sum += u64::from(word[0]) * 256 + u64::from(*word.get(1).unwrap_or(&0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The pseudo header of a packet that has been classified.
pub fn pseudo_header(packet: &[u8], facts: &Facts) -> Vec<u8> {
    let (src, dst) = if facts.thoff == 20 { (12, 16) } else { (8, 24) };
    let n = dst - src;
    let l4_len = (facts.len - facts.thoff) as u32;
    let mut pseudo = packet[src..dst + n].to_vec();
    pseudo.extend(l4_len.to_be_bytes());
    pseudo.extend([0, 0, 0, facts.proto]);
    pseudo
}

/// Where the transport checksum lies.
pub fn check_at(facts: &Facts) -> usize {
    facts.thoff + if facts.proto == 6 { 16 } else { 6 }
}

/// Computes the checksums of a packet from scratch. The transport checksum is left out for `None`,
/// and is the pseudo header's sum for `Some(true)`.
pub fn fill_checksums(packet: &mut [u8], facts: &Facts, partial: Option<bool>) {
    if facts.thoff == 20 {
        packet[10..12].fill(0);
        let check = checksum(&[&packet[..20]]);
        packet[10..12].copy_from_slice(&check.to_be_bytes());
    }
    let at = check_at(facts);
    let pseudo = pseudo_header(packet, facts);
    packet[at..at + 2].fill(0);
    let check = match partial {
        None => 0,
        Some(true) => sum(&[&pseudo]),
        Some(false) => match checksum(&[&pseudo, &packet[facts.thoff..facts.len]]) {
            0 if facts.proto == 17 => 0xffff,
            check => check,
        },
    };
    packet[at..at + 2].copy_from_slice(&check.to_be_bytes());
}
