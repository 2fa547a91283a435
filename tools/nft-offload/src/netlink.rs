// SPDX-License-Identifier: GPL-2.0

//! A netlink socket, requests and dumps; with the kernel's own words in errors.

use anyhow::{
    anyhow,
    bail,
    Result, //
};
use netlink_bindings::{
    traits::{
        NetlinkRequest,
        Protocol, //
    },
    utils::{
        chop_header,
        find_attr,
        push_header, //
    },
};
use netlink_sys::{
    Socket,
    SocketAddr, //
};
use std::{
    fmt,
    net::{
        IpAddr,
        Ipv4Addr,
        Ipv6Addr, //
    }, //
};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
const NLMSGERR_ATTR_MSG: u16 = 1;
const HEADER: usize = 16;
/// The most that the kernel puts into one part of a dump is 32 KiB.
const BUFFER: usize = 64 << 10;

/// The kernel has refused a request.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) errno: i32,
    /// What the kernel says, empty if nothing.
    pub(crate) message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = std::io::Error::from_raw_os_error(self.errno);

        match self.message.is_empty() {
            true => write!(f, "{error}"),
            false => write!(f, "{} ({error})", self.message),
        }
    }
}

impl std::error::Error for Refused {}

/// Whether an error is a refusal with this number.
pub(crate) fn is_errno(error: &anyhow::Error, errno: rustix::io::Errno) -> bool {
    error
        .downcast_ref::<Refused>()
        .is_some_and(|e| e.errno == errno.raw_os_error())
}

/// Adds an attribute, and what fills it up to four bytes.
pub(crate) fn put(request: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    // Attributes are shorter than 64 KiB here: names, addresses and numbers.
    push_header(request, kind, payload.len() as u16);
    request.extend(payload);
    request.resize(request.len().next_multiple_of(4), 0);
}

/// Text of the kernel, in which others may have chosen a name: without what would be a command to a
/// terminal.
pub(crate) fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload)
        .trim_end_matches('\0')
        .replace(char::is_control, "\u{fffd}")
}

/// Adds an attribute that is a string, with its end.
pub(crate) fn put_string(request: &mut Vec<u8>, kind: u16, text: &str) {
    let mut text = text.as_bytes().to_vec();

    text.push(0);
    put(request, kind, &text);
}

/// The attributes in a message or in another one: their numbers, and payloads.
pub(crate) fn attrs(buffer: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut at = 0;

    std::iter::from_fn(move || {
        chop_header(buffer, &mut at).map(|(header, payload)| (header.r#type, payload))
    })
}

/// A number of one, two, four or eight bytes.
pub(crate) fn number(payload: &[u8]) -> u64 {
    match *payload {
        [a] => a.into(),
        [a, b] => u16::from_ne_bytes([a, b]).into(),
        [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).into(),
        [a, b, c, d, e, f, g, h] => u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        _ => 0,
    }
}

pub(crate) fn address(payload: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(payload) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(payload)
        .ok()
        .map(|v6| Ipv6Addr::from(v6).into())
}

/// One message of an answer.
struct Message<'a> {
    kind: u16,
    flags: u16,
    seq: u32,
    payload: &'a [u8],
}

/// Takes the first message off, with its padding; none if there is no whole one.
fn take<'a>(buffer: &mut &'a [u8]) -> Option<Message<'a>> {
    let word = |at: usize| Some(u32::from_ne_bytes(*buffer.get(at..)?.first_chunk()?));
    let half = |at: usize| Some(u16::from_ne_bytes(*buffer.get(at..)?.first_chunk()?));
    let len = word(0)? as usize;
    let message = Message {
        kind: half(4)?,
        flags: half(6)?,
        seq: word(8)?,
        payload: buffer.get(HEADER..len)?,
    };

    *buffer = buffer.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    Some(message)
}

/// The end of an answer: well, or with an error.
fn end(message: &Message<'_>) -> Result<()> {
    let code = message
        .payload
        .first_chunk()
        .map_or(0, |code| i32::from_ne_bytes(*code));
    // The request that an error is about is in front of its attributes.
    let skip = match (message.kind, message.flags & NLM_F_CAPPED) {
        (NLMSG_DONE, _) => 4,
        (_, 0) => {
            let len = message.payload.get(4..).and_then(|p| p.first_chunk());
            4 + len
                .map_or(0, |len| u32::from_ne_bytes(*len) as usize)
                .next_multiple_of(4)
        }
        _ => 4 + HEADER,
    };
    let words = (message.flags & NLM_F_ACK_TLVS != 0)
        .then(|| find_attr(message.payload.get(skip..)?, NLMSGERR_ATTR_MSG))
        .flatten()
        .map(text);

    match code {
        0 => Ok(()),
        code => Err(Refused {
            errno: code.wrapping_neg(),
            message: words.unwrap_or_default(),
        }
        .into()),
    }
}

/// A netlink socket of one protocol.
pub(crate) struct Netlink {
    socket: Socket,
    seq: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens a socket in the present network namespace.
    pub(crate) fn open(protocol: isize) -> Result<Self> {
        let mut socket = Socket::new(protocol)?;

        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        // Older kernels do without.
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Self {
            socket,
            seq: 0,
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// Sends a request, and gives each message of the answer to `each`. Says whether all of it is of
    /// one time (no `NLM_F_DUMP_INTR`).
    pub(crate) fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        payload: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let len = HEADER + payload.len();
        let mut request = Vec::with_capacity(len);
        let mut consistent = true;

        self.seq = self.seq.wrapping_add(1);
        request.extend(u32::try_from(len)?.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        request.extend(self.seq.to_ne_bytes());
        request.extend(0_u32.to_ne_bytes());
        request.extend(payload);
        self.socket.send(&request, 0)?;

        loop {
            self.buffer.clear();
            let got = self.socket.recv(&mut self.buffer, 0)?;
            if got > self.buffer.len() {
                bail!("a netlink message was longer than {BUFFER} bytes");
            }
            let mut rest = &self.buffer[..];

            while let Some(message) = take(&mut rest) {
                if message.seq != self.seq {
                    continue;
                }
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                if matches!(message.kind, NLMSG_ERROR | NLMSG_DONE) {
                    end(&message)?;
                    return Ok(consistent);
                }
                each(message.payload)?;
            }
            // Without the end of the answer there would be nothing to wait for.
            if !rest.is_empty() {
                bail!("a netlink message was cut off");
            }
        }
    }

    /// The same for a request of the bindings.
    pub(crate) fn request<R: NetlinkRequest>(
        &mut self,
        request: &R,
        mut each: impl FnMut(R::ReplyType<'_>) -> Result<()>,
    ) -> Result<bool> {
        let Protocol::Raw { request_type, .. } = request.protocol() else {
            return Err(anyhow!("not a request of a netlink protocol"));
        };

        self.ask(
            request_type,
            request.flags(),
            request.payload(),
            |payload| each(R::decode_reply(payload)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        all.extend(((HEADER + payload.len()) as u32).to_ne_bytes());
        all.extend(kind.to_ne_bytes());
        all.extend(flags.to_ne_bytes());
        all.extend(7_u32.to_ne_bytes());
        all.extend(0_u32.to_ne_bytes());
        all.extend(payload);
        all.resize(all.len().next_multiple_of(4), 0);
        all
    }

    #[test]
    fn messages_are_taken_one_by_one() {
        let mut all = message(30, 2, b"abcde");
        all.extend(message(NLMSG_DONE, 2, &0_i32.to_ne_bytes()));
        let mut rest = &all[..];
        let first = take(&mut rest).unwrap();
        assert_eq!(
            (first.kind, first.seq, first.payload),
            (30, 7, &b"abcde"[..])
        );
        let last = take(&mut rest).unwrap();
        assert!(end(&last).is_ok());
        assert!(take(&mut rest).is_none());
        // One that is cut off is none.
        assert!(take(&mut &all[..18]).is_none());
        assert!(take(&mut &all[..3]).is_none());
    }

    #[test]
    fn text_is_no_command_to_a_terminal() {
        assert_eq!(text(b"fw4\0\0"), "fw4");
        assert_eq!(text(b"a\x1b[2Jb\rc\n\0"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}");
        assert_eq!(text("\u{9b}2J\u{e9}".as_bytes()), "\u{fffd}2J\u{e9}");
        assert_eq!(text(b"\xff"), "\u{fffd}");
    }

    #[test]
    fn errors_have_the_words_of_the_kernel() {
        let mut tlv = Vec::new();
        tlv.extend(13_u16.to_ne_bytes());
        tlv.extend(NLMSGERR_ATTR_MSG.to_ne_bytes());
        tlv.extend(b"no such\0\0\0\0\0");
        let mut capped = (-19_i32).to_ne_bytes().to_vec();
        capped.extend([0; HEADER]);
        capped.extend(&tlv);
        let mut whole = (-19_i32).to_ne_bytes().to_vec();
        whole.extend(20_u32.to_ne_bytes());
        whole.extend([0; 16]);
        whole.extend(&tlv);
        let mut done = (-19_i32).to_ne_bytes().to_vec();
        done.extend(&tlv);

        for (kind, flags, payload) in [
            (NLMSG_ERROR, NLM_F_ACK_TLVS | NLM_F_CAPPED, capped),
            (NLMSG_ERROR, NLM_F_ACK_TLVS, whole),
            (NLMSG_DONE, NLM_F_ACK_TLVS, done),
        ] {
            let all = message(kind, flags, &payload);
            let error = end(&take(&mut &all[..]).unwrap()).unwrap_err();
            assert!(is_errno(&error, rustix::io::Errno::NODEV));
            assert_eq!(error.to_string(), "no such (No such device (os error 19))");
        }
        let all = message(NLMSG_ERROR, NLM_F_CAPPED, &i32::MIN.to_ne_bytes());
        assert!(end(&take(&mut &all[..]).unwrap()).is_err());
        let all = message(NLMSG_ERROR, NLM_F_CAPPED, &(-1_i32).to_ne_bytes());
        let error = end(&take(&mut &all[..]).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "Operation not permitted (os error 1)");
    }
}
