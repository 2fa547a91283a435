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
    pub ds_field: u8,
    pub len: usize,
    pub tcp_flags: u8,
    /// Of TCP: the sequence number, and that after the last byte.
    pub seqs: Option<(u32, u32)>,
    pub control: bool,
}

const PLAIN: [u8; 2] = [6, 17];
const ANY4: [u8; 7] = [1, 6, 17, 47, 50, 51, 132];
const ANY6: [u8; 6] = [6, 17, 47, 50, 58, 132];

/// Classifies an IPv`version` packet of which the first `linear` bytes are linear; `any`: other
/// protocols than TCP and UDP, too.
pub fn classify(version: u8, packet: &[u8], linear: usize, any: bool) -> Result<Facts, Miss> {
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
    let mut proto;
    let ttl;
    let mut thoff = iph;
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
        if len == 0 {
            return Err(MissReason::Jumbogram.into());
        }
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
        let known = if any { &ANY4[..] } else { &PLAIN };
        if !known.contains(&proto) {
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
        while any && proto == 60 {
            if thoff + 8 > len {
                return Err(MissReason::Truncated.into());
            }
            if thoff + 8 > linear {
                return Err(Miss::NeedPull((thoff + 28).min(packet.len()) as u32));
            }
            proto = packet[thoff];
            thoff += 8 + packet[thoff + 1] as usize * 8;
            if thoff > 128 {
                return Err(MissReason::ExtHeader.into());
            }
            if thoff > len {
                return Err(MissReason::Truncated.into());
            }
        }
        if [0, 43, 44, 51, 59, 60, 135, 139, 140].contains(&proto) {
            return Err(MissReason::ExtHeader.into());
        }
        let known = if any { &ANY6[..] } else { &PLAIN };
        if !known.contains(&proto) {
            return Err(MissReason::L4Proto.into());
        }
        (src, dst) = (&packet[8..24], &packet[24..40]);
    }
    if ttl < 2 {
        return Err(MissReason::TtlExpiring.into());
    }

    let l4 = &packet[thoff..len];
    let need = |needed: usize, wanted: usize| {
        if l4.len() < needed {
            Err(Miss::from(MissReason::Truncated))
        } else if linear < thoff + needed {
            Err(Miss::NeedPull((thoff + wanted) as u32))
        } else {
            Ok(())
        }
    };
    let mut ports = [0; 4];
    let mut control = false;
    match proto {
        6 | 17 => {
            let l4h = if proto == 6 { 20 } else { 8 };
            need(l4h, l4h)?;
            let claimed = match proto {
                6 => (l4[12] >> 4) as usize * 4,
                _ => l4[4] as usize * 256 + l4[5] as usize,
            };
            if claimed < l4h || claimed > l4.len() {
                return Err(MissReason::Truncated.into());
            }
            ports.copy_from_slice(&l4[..4]);
        }
        132 => {
            need(12, 12)?;
            ports.copy_from_slice(&l4[..4]);
            control = control_chunk(&l4[12..])?;
        }
        1 | 58 => {
            need(8, 8)?;
            let echo = match proto {
                1 => l4[0] == 8 || l4[0] == 0,
                _ => l4[0] == 128 || l4[0] == 129,
            };
            if !echo || l4[1] != 0 {
                return Err(MissReason::IcmpType.into());
            }
            ports = [l4[4], l4[5], l4[0], l4[1]];
        }
        47 => {
            need(4, l4.len().min(8))?;
            match l4[1] & 7 {
                0 => (),
                1 if l4[2..4] == [0x88, 0x0b] => {
                    need(8, 8)?;
                    if l4[6..8] == [0, 0] {
                        return Err(MissReason::L4Proto.into());
                    }
                    ports = [0, 1, l4[6], l4[7]];
                }
                _ => return Err(MissReason::L4Proto.into()),
            }
        }
        50 if l4.len() < 8 => return Err(MissReason::Truncated.into()),
        51 if l4.len() < 12 => return Err(MissReason::Truncated.into()),
        _ => (),
    }

    Ok(Facts {
        saddr: src.to_vec(),
        daddr: dst.to_vec(),
        ports,
        proto,
        thoff,
        ds_field: match version {
            4 => packet[1],
            _ => (packet[0] << 4) | (packet[1] >> 4),
        },
        len,
        tcp_flags: if proto == 6 { l4[13] } else { 0 },
        seqs: (proto == 6).then(|| {
            let seq = u32::from_be_bytes([l4[4], l4[5], l4[6], l4[7]]);
            let header = (l4[12] >> 4) as usize * 4;
            (seq, seq.wrapping_add((l4.len() - header) as u32))
        }),
        control,
    })
}

/// Whether there is an SCTP chunk that is neither data nor an acknowledgement or the like.
fn control_chunk(chunks: &[u8]) -> Result<bool, Miss> {
    let mut rest = chunks;
    for n in 0.. {
        if n > 0 && rest.is_empty() {
            return Ok(false);
        }
        // That many are suspicious.
        if n == 8 {
            return Ok(true);
        }
        if rest.len() < 4 {
            return Err(MissReason::Truncated.into());
        }
        let size = rest[2] as usize * 256 + rest[3] as usize;
        if size < 4 || size > rest.len() {
            return Err(MissReason::Truncated.into());
        }
        match rest[0] {
            0 | 64 => return Ok(false),
            3 | 12 | 13 | 15 | 192 | 194 => (),
            _ => return Ok(true),
        }
        rest = &rest[rest.len().min(size.div_ceil(4) * 4)..];
    }
    unreachable!()
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

/// CRC-32C (RFC 9260, appendix A), bit by bit.
pub fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut crc = !0_u32;
    for byte in parts.iter().flat_map(|part| part.iter()) {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = crc & 1;
            crc >>= 1;
            if carry == 1 {
                crc ^= 0x82f6_3b78;
            }
        }
    }
    !crc
}

/// The pseudo header of a packet that has been classified; ICMP has none.
pub fn pseudo_header(packet: &[u8], facts: &Facts) -> Vec<u8> {
    if facts.proto == 1 {
        return vec![];
    }
    let (src, dst) = match packet[0] >> 4 {
        4 => (12, 16),
        _ => (8, 24),
    };
    let n = dst - src;
    let l4_len = (facts.len - facts.thoff) as u32;
    let mut pseudo = packet[src..dst + n].to_vec();
    pseudo.extend(l4_len.to_be_bytes());
    pseudo.extend([0, 0, 0, facts.proto]);
    pseudo
}

/// Where the transport's Internet checksum lies, if it has one.
pub fn check_at(facts: &Facts) -> Option<usize> {
    match facts.proto {
        6 => Some(facts.thoff + 16),
        17 => Some(facts.thoff + 6),
        1 | 58 => Some(facts.thoff + 2),
        _ => None,
    }
}

/// Computes the checksums of a packet from scratch. The transport checksum is left out for `None`,
/// and is the pseudo header's sum for `Some(true)`.
pub fn fill_checksums(packet: &mut [u8], facts: &Facts, partial: Option<bool>) {
    if packet[0] >> 4 == 4 {
        packet[10..12].fill(0);
        let check = checksum(&[&packet[..20]]);
        packet[10..12].copy_from_slice(&check.to_be_bytes());
    }
    if facts.proto == 132 && partial != Some(true) {
        let at = facts.thoff + 8;
        packet[at..at + 4].fill(0);
        if partial.is_some() {
            let crc = crc32c(&[&packet[facts.thoff..facts.len]]);
            packet[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let Some(at) = check_at(facts) else {
        return;
    };
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

/// Writes what stands for the ports in a transport header.
pub fn set_ports(packet: &mut [u8], facts: &Facts, ports: [u8; 4]) {
    let l4 = &mut packet[facts.thoff..];
    match facts.proto {
        6 | 17 | 132 => l4[..4].copy_from_slice(&ports),
        1 | 58 => l4[4..6].copy_from_slice(&ports[..2]),
        47 if facts.ports != [0; 4] => l4[6..8].copy_from_slice(&ports[2..]),
        _ => (),
    }
}

/// The nearest to `wish` that conntrack may translate `facts.ports` to.
pub fn possible_ports(facts: &Facts, wish: [u8; 4]) -> [u8; 4] {
    let [a, b, c, d] = wish;
    match facts.proto {
        6 | 17 | 132 => wish,
        // The identifier; type and code stay.
        1 | 58 => [a, b, facts.ports[2], facts.ports[3]],
        47 if facts.ports != [0; 4] => [0, 1, c, d],
        _ => [0; 4],
    }
}
