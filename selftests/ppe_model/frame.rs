// SPDX-License-Identifier: GPL-2.0

//! Frames: what is in them, and how their checksums are made.

use crate::Reason;

/// Addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ip {
    /// IPv4.
    V4 {
        /// Source.
        src: [u8; 4],
        /// Destination.
        dst: [u8; 4],
    },
    /// IPv6.
    V6 {
        /// Source.
        src: [u8; 16],
        /// Destination.
        dst: [u8; 16],
    },
}

/// What is in a frame.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// Where the IP header starts.
    pub offset: usize,
    /// Bytes from there on, without padding.
    pub len: usize,
    /// Addresses.
    pub ip: Ip,
    /// Protocol.
    pub proto: u8,
    /// Source and destination port, if there are ports.
    pub ports: Option<(u16, u16)>,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TCP with SYN, FIN or RST.
    pub tcp_end: bool,
}

fn be16(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(b.get(at..at + 2)?.try_into().ok()?))
}

/// Looks into a frame.
pub(crate) fn parse(frame: &[u8]) -> Result<Parsed, Reason> {
    let no = Reason::NoFlow;
    let mut at = 12;
    let mut kind = be16(frame, at).ok_or(no)?;
    at += 2;
    for _ in 0..2 {
        if kind == 0x8100 {
            kind = be16(frame, at + 2).ok_or(no)?;
            at += 4;
        }
    }
    if kind == 0x8864 {
        kind = match be16(frame, at + 6) {
            Some(0x0021) => 0x0800,
            Some(0x0057) => 0x86dd,
            _ => return Err(no),
        };
        at += 8;
    }
    let b = frame.get(at..).ok_or(no)?;
    let (ip, proto, ttl, len, l4) = match kind {
        0x0800 => {
            let h: &[u8; 20] = b.first_chunk().ok_or(no)?;
            if h[0] >> 4 != 4 {
                return Err(no);
            }
            if h[0] & 15 != 5 {
                return Err(Reason::Option);
            }
            if u16::from_be_bytes([h[6], h[7]]) & 0x3fff != 0 {
                return Err(Reason::Fragment);
            }
            let ip = Ip::V4 {
                src: h[12..16].try_into().unwrap(),
                dst: h[16..20].try_into().unwrap(),
            };
            let len = usize::from(u16::from_be_bytes([h[2], h[3]]));
            (ip, h[9], h[8], len, 20)
        }
        0x86dd => {
            let h: &[u8; 40] = b.first_chunk().ok_or(no)?;
            let ip = Ip::V6 {
                src: h[8..24].try_into().unwrap(),
                dst: h[24..40].try_into().unwrap(),
            };
            let len = 40 + usize::from(u16::from_be_bytes([h[4], h[5]]));
            (ip, h[6], h[7], len, 40)
        }
        _ => return Err(no),
    };
    if len > b.len() || len < l4 {
        return Err(no);
    }
    let ports = match proto {
        6 | 17 => Some((be16(b, l4).ok_or(no)?, be16(b, l4 + 2).ok_or(no)?)),
        _ => None,
    };
    let tcp_end = proto == 6 && b.get(l4 + 13).ok_or(no)? & 7 != 0;
    Ok(Parsed {
        offset: at,
        len,
        ip,
        proto,
        ports,
        ttl,
        tcp_end,
    })
}

/// The Internet checksum of some bytes, on top of a sum.
pub fn checksum(sum: u32, bytes: &[u8]) -> u16 {
    let mut sum = u64::from(sum);
    for pair in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The sum over what TCP and UDP have their checksums over, with IPv4. Zero if the checksum is right.
fn l4_sum(packet: &[u8]) -> u16 {
    let l4 = &packet[20..];
    let mut pseudo = packet[12..20].to_vec();
    pseudo.extend([0, packet[9]]);
    pseudo.extend((l4.len() as u16).to_be_bytes());
    checksum(u32::from(!checksum(0, &pseudo)), l4)
}

/// Whether the checksums of a packet without options are right: of the IPv4 header, and of TCP or UDP
/// behind it. What has none is.
pub(crate) fn sums(packet: &[u8]) -> (bool, bool) {
    if packet[0] >> 4 != 4 {
        return (true, true);
    }
    let l4 = match packet[9] {
        6 => l4_sum(packet) == 0,
        17 if packet.get(26..28) != Some(&[0, 0]) => l4_sum(packet) == 0,
        _ => true,
    };
    (checksum(0, &packet[..20]) == 0, l4)
}

/// Writes new addresses and ports into an IPv4 packet, and all checksums anew.
pub(crate) fn rewrite4(packet: &mut [u8], src: u32, dst: u32, ports: Option<(u16, u16)>) {
    packet[12..16].copy_from_slice(&src.to_be_bytes());
    packet[16..20].copy_from_slice(&dst.to_be_bytes());
    packet[10..12].fill(0);
    let sum = checksum(0, &packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());

    let Some((sport, dport)) = ports else { return };
    let proto = packet[9];
    let l4 = &mut packet[20..];
    l4[..2].copy_from_slice(&sport.to_be_bytes());
    l4[2..4].copy_from_slice(&dport.to_be_bytes());
    let at = if proto == 6 { 16 } else { 6 };
    // UDP without a checksum stays without.
    if l4.len() < at + 2 || proto == 17 && l4[at..at + 2] == [0, 0] {
        return;
    }
    l4[at..at + 2].fill(0);
    let sum = match l4_sum(packet) {
        0 if proto == 17 => 0xffff,
        sum => sum,
    };
    packet[20 + at..22 + at].copy_from_slice(&sum.to_be_bytes());
}
