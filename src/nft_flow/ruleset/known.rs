// SPDX-License-Identifier: GPL-2.0

//! What the kernel's expressions, keys and objects mean for flows.

/// What a ruleset asks for that changes without a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Elements of a set.
    Set,
    /// State that elements of a set have.
    SetState,
    /// The time.
    Time,
    /// Chance.
    Random,
    /// `limit`.
    Limit,
    /// `quota`.
    Quota,
    /// `ct count`.
    Connections,
    /// Bytes or packets of the connection, in a way that we cannot read.
    Count,
    /// `ct avgpkt`.
    Average,
    /// `ct expiration`.
    Expiration,
    /// An extension of xtables.
    Extension,
    /// We cannot say.
    TooComplex,
}

impl What {
    /// Returns the text that debugfs shows.
    pub const fn text(self) -> &'static str {
        match self {
            What::Set => "elements come and go in set",
            What::SetState => "elements have limits in set",
            What::Time => "time",
            What::Random => "random numbers",
            What::Limit => "limit",
            What::Quota => "quota",
            What::Connections => "ct count",
            What::Count => "ct bytes or packets",
            What::Average => "ct avgpkt",
            What::Expiration => "ct expiration",
            What::Extension => "extension",
            What::TooComplex => "too complex to read",
        }
    }
}

/// A property of the connection.
pub(super) enum Ct {
    State,
    Count { packets: bool },
    Moves(What),
    Other,
}

/// `enum nft_ct_keys`.
pub(super) fn ct(key: u32) -> Ct {
    match key {
        0 => Ct::State,
        5 => Ct::Moves(What::Expiration),
        14 => Ct::Count { packets: true },
        15 => Ct::Count { packets: false },
        16 => Ct::Moves(What::Average),
        _ => Ct::Other,
    }
}

/// A property of the packet.
pub(super) enum Meta {
    L4Proto,
    Moves(What),
    Other,
}

/// `enum nft_meta_keys`.
pub(super) fn meta(key: u32) -> Meta {
    match key {
        16 => Meta::L4Proto,
        24 => Meta::Moves(What::Random),
        30..=32 => Meta::Moves(What::Time),
        _ => Meta::Other,
    }
}

/// Returns what changes without a commit in an object of this `NFT_OBJECT_*` kind, if anything.
pub(super) fn object(kind: u32) -> Option<What> {
    match kind {
        2 => Some(What::Quota),
        4 => Some(What::Limit),
        5 => Some(What::Connections),
        _ => None,
    }
}

/// Another expression.
pub(super) enum Other {
    /// Every packet passes it, and registers stay as they are.
    Neutral,
    /// It adds flows.
    Adds,
    Moves(What),
    Unknown,
}

/// Returns what is known of an expression, by the name of its type.
pub(super) fn other(name: &[u8]) -> Other {
    match name {
        b"counter" | b"last" | b"log" => Other::Neutral,
        b"flow_offload" => Other::Adds,
        b"limit" => Other::Moves(What::Limit),
        b"quota" => Other::Moves(What::Quota),
        b"connlimit" => Other::Moves(What::Connections),
        b"numgen" => Other::Moves(What::Random),
        _ => Other::Unknown,
    }
}

/// Whether this match of xtables (iptables-nft) looks at something that changes without a commit.
pub(super) fn is_volatile_extension(name: &[u8]) -> bool {
    matches!(
        name,
        b"connbytes"
            | b"connlimit"
            | b"hashlimit"
            | b"limit"
            | b"nfacct"
            | b"quota"
            | b"rateest"
            | b"recent"
            | b"set"
            | b"statistic"
            | b"time"
    )
}
