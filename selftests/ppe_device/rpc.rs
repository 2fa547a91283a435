// SPDX-License-Identifier: GPL-2.0

//! What the two processes say to each other, and the frames of QEMU's stream sockets: a length of
//! four bytes in the order of the network, then as many bytes.

use std::io::{
    self,
    Read,
    Write, //
};

/// From the wires: a frame that comes in by a port, the byte after this one.
pub(crate) const FRAME: u8 = 0;
/// A line for people.
pub(crate) const LINE: u8 = 1;
/// From the engine: the frame is for the router.
pub(crate) const TO_CPU: u8 = 2;
/// It leaves by a port, the byte after this one, as what follows.
pub(crate) const FORWARD: u8 = 3;
/// It is dropped.
pub(crate) const DROP: u8 = 4;

/// No frame or message is larger.
const MAX: usize = 1 << 17;

/// Reads a message.
pub(crate) fn read(from: &mut impl Read, into: &mut Vec<u8>) -> io::Result<()> {
    let mut len = [0; 4];

    from.read_exact(&mut len)?;
    let len = u32::from_be_bytes(len) as usize;
    if len > MAX {
        return Err(io::Error::other(format!("a message of {len} bytes")));
    }
    into.resize(len, 0);
    from.read_exact(into)
}

/// Writes one, in one piece.
pub(crate) fn write(to: &mut impl Write, parts: &[&[u8]]) -> io::Result<()> {
    let body = parts.concat();
    let len = u32::try_from(body.len()).map_err(io::Error::other)?;

    to.write_all(&[&len.to_be_bytes()[..], &body].concat())
}
