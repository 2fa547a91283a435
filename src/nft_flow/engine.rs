// SPDX-License-Identifier: GPL-2.0

//! What a hardware flow engine says: what it can do, what it has room for, why not, and what it
//! has forwarded.

use crate::{
    desc::Egress,
    reason::Unsupported, //
};

/// Who decrements the TTL or hop limit of packets that hardware forwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ttl {
    /// The engine, of itself.
    Engine,
    /// The engine, if the rule says so.
    ByAction,
    /// Unknown driver: send a decrement action; retry without it if the rule is refused.
    Unknown,
}

/// How an engine counts what it forwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counting {
    /// Not at all: software decides about age by what it sees itself.
    None,
    /// Packets and bytes since the last question.
    Delta,
}

/// Who forgets flows that are idle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ageing {
    /// The engine, and it says so.
    Engine,
    /// Software.
    Host,
}

/// Above which size an engine leaves packets to software.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SizeLimit {
    /// It sends whatever comes, be it too large for the way out.
    None,
    /// This one, for all of its ports, PPPoE header included.
    Engine(u16),
    /// The largest MTU of its ports, PPPoE header included.
    LargestPort,
    /// The MTU of the port that packets leave by, PPPoE header included.
    Port,
}

/// What an engine can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caps {
    /// Translates addresses and ports of IPv4.
    pub nat44: bool,
    /// Translates addresses and ports of IPv6.
    pub nat66: bool,
    /// IPv6 at all.
    pub v6: bool,
    /// The most VLAN tags that it adds.
    pub vlans: u8,
    /// Adds PPPoE headers.
    pub pppoe: bool,
    /// Adds and removes IP-in-IP headers.
    pub tunnels: bool,
    /// Protocols other than TCP and UDP.
    pub portless: bool,
    /// Frames between the ports of a bridge.
    pub bridged: bool,
    /// Tells packets of one flow from those of another by the VLAN that they come in by.
    pub matches_vlan: bool,
    /// Above which size it leaves packets to software.
    pub mtu: SizeLimit,
    /// Who decrements the TTL.
    pub ttl: Ttl,
    /// How it counts.
    pub counting: Counting,
    /// It takes a rule for a flow of which it has then to see so many packets in a second before it
    /// forwards them; 0 if it does so at once.
    pub bind_rate: u16,
    /// Who ages.
    pub ageing: Ageing,
}

impl Caps {
    /// Bytes in a second from which an engine forwards a flow for sure: with packets that are
    /// smaller than the largest ones there are more of them.
    pub fn bind_bytes(&self) -> u64 {
        const LARGEST: u64 = 1514;

        u64::from(self.bind_rate) * LARGEST
    }

    /// Whether the engine leaves packets of up to `takes` bytes (from the network header on) that
    /// exceed the egress MTU to software. `port` is the MTU of the port that they leave by.
    pub fn fits(&self, takes: u32, egress: &Egress, port: u32) -> bool {
        let pppoe = match egress.layers.pppoe() {
            Some(_) => PPPOE,
            None => 0,
        };
        let fits = u32::from(egress.mtu);

        let limit = match self.mtu {
            // Nobody has said how large that is.
            SizeLimit::None | SizeLimit::LargestPort => None,
            SizeLimit::Engine(mtu) => Some(mtu.into()),
            SizeLimit::Port => Some(port),
        };

        takes <= fits || limit.is_some_and(|limit| limit <= fits + pppoe)
    }
}

/// Bytes of a PPPoE header, with that of PPP.
pub const PPPOE: u32 = 8;

/// Room, in rules: one for each direction of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capacity {
    /// Rules that fit; none if the engine does not know and says [`AddError::Full`] in time.
    pub total: Option<u32>,
    /// Rules that there are.
    pub used: u32,
}

/// Why a rule was not added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddError {
    /// There is no room. Software forwards; the tier makes room if the flow is worth it.
    Full,
    /// There is no room for this flow, because of what hashes to the same place. Software
    /// forwards; asked again later, with growing intervals.
    Collision,
    /// Never for this flow. Not asked again.
    Unsupported(Unsupported),
    /// Not now. Asked again a few times.
    Busy,
    /// The port or the engine is no more. The port is unbound.
    Gone,
    /// Something else failed, with this (negative) errno. As for a collision.
    Io(i32),
}

impl AddError {
    /// What a driver means by a (negative) errno. Some say that there is no room with others than
    /// `ENOSPC`: with those in `full`.
    pub fn from_errno(errno: i32, full: &[i32]) -> Self {
        match errno {
            errno if full.contains(&errno) => AddError::Full,
            // ENOSPC
            -28 => AddError::Full,
            // EOPNOTSUPP, EINVAL, E2BIG
            -95 | -22 | -7 => AddError::Unsupported(Unsupported::Driver),
            // EBUSY, EAGAIN
            -16 | -11 => AddError::Busy,
            // ENODEV, ENXIO
            -19 | -6 => AddError::Gone,
            errno => AddError::Io(errno),
        }
    }

    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            AddError::Full => "full",
            AddError::Collision => "collision",
            AddError::Unsupported(_) => "unsupported",
            AddError::Busy => "busy",
            AddError::Gone => "gone",
            AddError::Io(_) => "io",
        }
    }

    /// The stable name of the reason, which may be that of [`Unsupported`].
    pub const fn reason(self) -> &'static str {
        match self {
            AddError::Unsupported(why) => why.name(),
            e => e.name(),
        }
    }
}

/// What hardware has forwarded since the last question.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Delta {
    /// Packets.
    pub packets: u64,
    /// Bytes, as the engine counts them.
    pub bytes: u64,
    /// When the last packet was, in `jiffies` (low 32 bits), if there was any.
    pub used: Option<u32>,
}

impl Delta {
    /// What a driver has put into `struct flow_stats`, and the time now. It need not say when the
    /// last packet was, with 0: those that it counts are younger than the last question.
    pub const fn of_driver(packets: u64, bytes: u64, lastused: u64, now: u32) -> Self {
        Delta {
            packets,
            bytes,
            used: match (lastused, packets) {
                (0, 0) => None,
                (0, _) => Some(now),
                (lastused, _) => Some(lastused as u32),
            },
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::desc::{
        Layer,
        Layers,
        Macs,
        Port, //
    };

    #[test]
    fn last_use() {
        let used = |packets, lastused| Delta::of_driver(packets, 1500, lastused, 7).used;

        assert_eq!(used(0, 0), None);
        assert_eq!(used(1, 0), Some(7));
        assert_eq!(used(0, 0xffff_fff0), Some(0xffff_fff0));
        assert_eq!(used(1, 5), Some(5));
        // Some time of a counter of 64 bits, not the absence of one.
        assert_eq!(used(0, 1 << 32), Some(0));
    }

    #[test]
    fn sizes() {
        let caps = |mtu| Caps {
            nat44: true,
            nat66: true,
            v6: true,
            vlans: 2,
            pppoe: true,
            tunnels: false,
            portless: false,
            bridged: false,
            matches_vlan: true,
            mtu,
            ttl: Ttl::Unknown,
            counting: Counting::Delta,
            bind_rate: 30,
            ageing: Ageing::Host,
        };
        assert_eq!(caps(SizeLimit::None).bind_bytes(), 45420);
        let mut egress = Egress {
            port: Port::plain(1),
            macs: Macs {
                src: [2; 6],
                dst: [2; 6],
            },
            layers: Layers::NONE,
            tunnel: None,
            mtu: 1492,
        };
        let (none, port) = (SizeLimit::None, SizeLimit::Port);
        let engine = SizeLimit::Engine;

        assert!(caps(none).fits(1492, &egress, 1500));
        assert!(!caps(none).fits(1500, &egress, 1500));
        assert!(!caps(engine(1500)).fits(1500, &egress, 1500));
        // A session that is as large as the link allows.
        assert!(egress.layers.push_inner(Layer::Pppoe { session: 1 }));
        assert!(caps(engine(1500)).fits(1500, &egress, 1500));
        assert!(!caps(none).fits(1500, &egress, 1500));
        // As behind a switch, whose tag the conduit has to carry as well.
        assert!(!caps(engine(1504)).fits(1500, &egress, 1500));
        assert!(!caps(SizeLimit::LargestPort).fits(1500, &egress, 1500));
        assert!(caps(port).fits(1500, &egress, 1500));
        assert!(!caps(port).fits(1500, &egress, 1504));
        egress.mtu = 1400;
        assert!(!caps(engine(1500)).fits(1500, &egress, 1500));
        assert!(!caps(port).fits(1500, &egress, 1500));
    }
}
