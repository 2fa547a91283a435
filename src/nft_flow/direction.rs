// SPDX-License-Identifier: GPL-2.0

//! The two directions of a connection.

/// A direction of a connection, with conntrack's numbers (`enum ip_conntrack_dir`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Direction {
    /// From the side that opened the connection.
    Original = 0,
    /// Towards the side that opened the connection.
    Reply = 1,
}

impl Direction {
    /// The other direction.
    #[inline]
    pub const fn opposite(self) -> Self {
        match self {
            Direction::Original => Direction::Reply,
            Direction::Reply => Direction::Original,
        }
    }
}
