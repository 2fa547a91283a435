// SPDX-License-Identifier: GPL-2.0

//! One direction of a flow, as hardware that forwards it has to know it.
//!
//! A plain value, not a list of actions: an engine encodes its table entry from it, or renders the
//! rule that its driver takes. Whoever makes it looks at devices and conntrack; who uses it does
//! not have to. Two directions are two descriptions.
//!
//! Units: addresses are the bytes of the packet, numbers are in the order of the CPU, sizes are in
//! bytes. Encapsulations are listed as on the wire, outermost first.

use crate::encap::{
    ethertype,
    Encaps, //
};
use crate::key::{
    split_ports,
    Key4,
    Key6, //
};

/// A link-layer address.
pub type Mac = [u8; 6];

/// Source and destination of an IP packet, as the bytes lie in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Addrs {
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

impl Addrs {
    /// Whether these are IPv6 addresses.
    pub const fn is_v6(&self) -> bool {
        matches!(self, Addrs::V6 { .. })
    }

    /// The EtherType of packets with such addresses.
    pub const fn ethertype(&self) -> u16 {
        match self {
            Addrs::V4 { .. } => ethertype::IP,
            Addrs::V6 { .. } => ethertype::IPV6,
        }
    }

    /// Those of packets that go the other way.
    pub const fn swapped(&self) -> Self {
        match *self {
            Addrs::V4 { src, dst } => Addrs::V4 { src: dst, dst: src },
            Addrs::V6 { src, dst } => Addrs::V6 { src: dst, dst: src },
        }
    }
}

/// Source and destination port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ports {
    /// Source.
    pub src: u16,
    /// Destination.
    pub dst: u16,
}

/// What tells a packet's flow: addresses, and ports where the protocol has some.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tuple {
    /// Addresses.
    pub addrs: Addrs,
    /// Ports; none for protocols without (GRE, ESP, ...).
    pub ports: Option<Ports>,
}

impl Tuple {
    /// That of packets which answer, if nothing is translated.
    pub const fn swapped(&self) -> Self {
        let ports = match self.ports {
            Some(Ports { src, dst }) => Some(Ports { src: dst, dst: src }),
            None => None,
        };
        Tuple {
            addrs: self.addrs.swapped(),
            ports,
        }
    }

    /// IPv4 addresses and a word of ports ([`crate::key::ports`]) as they lie in a packet.
    pub const fn v4(saddr: u32, daddr: u32, ports: u32) -> Self {
        let (src, dst) = split_ports(ports);
        Tuple {
            addrs: Addrs::V4 {
                src: saddr.to_ne_bytes(),
                dst: daddr.to_ne_bytes(),
            },
            ports: Some(Ports { src, dst }),
        }
    }

    /// IPv6 addresses and a word of ports as they lie in a packet.
    pub const fn v6(src: [u8; 16], dst: [u8; 16], ports: u32) -> Self {
        let (sport, dport) = split_ports(ports);
        Tuple {
            addrs: Addrs::V6 { src, dst },
            ports: Some(Ports {
                src: sport,
                dst: dport,
            }),
        }
    }
}

impl From<&Key4> for Tuple {
    fn from(key: &Key4) -> Self {
        Self::v4(key.saddr, key.daddr, key.ports)
    }
}

impl From<&Key6> for Tuple {
    fn from(key: &Key6) -> Self {
        let bytes = |[a, b]: [u64; 2]| {
            let mut all = [0; 16];
            for (to, from) in all
                .iter_mut()
                .zip(a.to_ne_bytes().into_iter().chain(b.to_ne_bytes()))
            {
                *to = from;
            }
            all
        };
        Self::v6(bytes(key.saddr), bytes(key.daddr), key.ports)
    }
}

/// One encapsulation of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Layer {
    /// A VLAN tag.
    Vlan {
        /// [`ethertype::VLAN`] or [`ethertype::QINQ`].
        proto: u16,
        /// Identifier, 12 bits.
        vid: u16,
        /// Priority to set, 0 to 7. In what comes in: none, it is not matched.
        pcp: Option<u8>,
    },
    /// A PPPoE session.
    Pppoe {
        /// Session.
        session: u16,
    },
}

/// The encapsulations of a frame, outermost first.
///
/// # Invariants
///
/// `len` is at most [`Layers::MAX`]; places from it on are all the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Layers {
    list: [Layer; Layers::MAX],
    len: u8,
}

impl Layers {
    /// The most layers: QinQ and PPPoE.
    pub const MAX: usize = crate::encap::MAX;

    /// None.
    pub const NONE: Self = Layers {
        list: [Layer::Pppoe { session: 0 }; Self::MAX],
        len: 0,
    };

    /// Adds one inside of all others. False if there is no room.
    #[must_use]
    pub fn push_inner(&mut self, layer: Layer) -> bool {
        let Some(place) = self.list.get_mut(usize::from(self.len)) else {
            return false;
        };
        *place = layer;
        // INVARIANT: There was a place at `len`.
        self.len = self.len.wrapping_add(1);
        true
    }

    /// Sets the priority of a VLAN tag.
    pub fn prioritise(&mut self, tag: (u16, u16), priority: u8) {
        for layer in self.list.iter_mut().take(self.len.into()) {
            if let Layer::Vlan { proto, vid, pcp } = layer {
                if (*proto, *vid) == tag {
                    *pcp = Some(priority);
                }
            }
        }
    }

    /// Outermost first.
    pub fn as_slice(&self) -> &[Layer] {
        self.list.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// Outermost first.
    pub fn iter(&self) -> core::iter::Copied<core::slice::Iter<'_, Layer>> {
        self.as_slice().iter().copied()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of VLAN tags.
    pub fn vlans(&self) -> usize {
        self.iter()
            .filter(|layer| matches!(layer, Layer::Vlan { .. }))
            .count()
    }

    /// The PPPoE session, if there is one.
    pub fn pppoe(&self) -> Option<u16> {
        self.iter().find_map(|layer| match layer {
            Layer::Pppoe { session } => Some(session),
            Layer::Vlan { .. } => None,
        })
    }
}

impl Default for Layers {
    fn default() -> Self {
        Self::NONE
    }
}

impl From<&Encaps> for Layers {
    fn from(encaps: &Encaps) -> Self {
        let mut all = Self::NONE;

        for encap in encaps.as_slice() {
            // It has room for as many.
            let _ = all.push_inner(match encap.ethertype() {
                ethertype::PPPOE => Layer::Pppoe {
                    session: encap.id(),
                },
                proto => Layer::Vlan {
                    proto,
                    vid: encap.id(),
                    pcp: None,
                },
            });
        }
        all
    }
}

/// IP in IP, without a header of its own between the two.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TunnelKind {
    /// IPv4 in IPv4.
    Ipip,
    /// IPv6 in IPv4 (SIT, 6RD).
    Sit,
    /// IPv4 in IPv6 (DS-Lite).
    Ipip6,
    /// IPv6 in IPv6.
    Ip6Ip6,
}

/// The outer header of tunnelled packets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tunnel {
    /// What is in what.
    pub kind: TunnelKind,
    /// Outer addresses, as in the packets of this side.
    pub addrs: Addrs,
    /// TTL or hop limit to set, 0 to take that of the inner packet. Not matched in what comes in.
    pub hop_limit: u8,
    /// DSCP to set, none to take that of the inner packet.
    pub dscp: Option<u8>,
    /// Set "don't fragment" in an outer IPv4 header.
    pub dont_fragment: bool,
}

/// How frames leave a device, where that is more than being sent by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Via {
    /// Nothing more.
    Plain,
    /// A port of a switch behind the device (the DSA conduit).
    Dsa {
        /// Number of the port in its switch.
        port: u8,
        /// The tagging protocol: `DSA_TAG_PROTO_*_VALUE` of include/net/dsa.h.
        proto: u8,
    },
    /// A wireless station behind a MediaTek WDMA ring (`DEV_PATH_MTK_WDMA`).
    Wdma(Wdma),
}

/// What a WDMA ring has to know to reach a station.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Wdma {
    /// Which WDMA.
    pub index: u8,
    /// Ring.
    pub queue: u8,
    /// Station.
    pub wcid: u16,
    /// BSS.
    pub bss: u8,
    /// Aggregate to A-MSDUs.
    pub amsdu: bool,
}

/// A device, and what is behind it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Port {
    /// Index of the lowest device on the way: the conduit for a switch port.
    pub ifindex: u32,
    /// And from there.
    pub via: Via,
}

impl Port {
    /// A device without anything behind it.
    pub const fn plain(ifindex: u32) -> Self {
        Port {
            ifindex,
            via: Via::Plain,
        }
    }
}

/// Source and destination of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Macs {
    /// Source.
    pub src: Mac,
    /// Destination.
    pub dst: Mac,
}

impl Macs {
    /// Whether both are addresses of one station: neither a group's nor zero.
    pub fn are_unicast(&self) -> bool {
        [self.src, self.dst]
            .iter()
            .all(|mac| mac.first().is_some_and(|b| b & 1 == 0) && *mac != [0; 6])
    }
}

/// What is forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Packets of an IP flow. Their TTL or hop limit is decremented, always; those that would
    /// reach zero, fragments, IP options, and TCP with SYN, FIN or RST go to software.
    Routed {
        /// Transport protocol, IANA number.
        proto: u8,
        /// Packets as they come in; those of the inner header in a tunnel.
        tuple: Tuple,
        /// Packets as they leave: `tuple` itself without NAT.
        rewritten: Tuple,
    },
    /// Frames between two stations, known by [`Ingress::macs`] and [`Ingress::layers`]. Nothing
    /// above the link layer changes.
    Bridged,
}

/// How packets come in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ingress {
    /// By which device.
    pub port: Port,
    /// With which link-layer addresses, where they are known: those of a bridged flow are.
    pub macs: Option<Macs>,
    /// In which encapsulations. They are removed.
    pub layers: Layers,
    /// In which tunnel. Its header is removed.
    pub tunnel: Option<Tunnel>,
}

/// How packets leave.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Egress {
    /// By which device.
    pub port: Port,
    /// With which link-layer addresses.
    pub macs: Macs,
    /// In which encapsulations, all of them added here.
    pub layers: Layers,
    /// In which tunnel.
    pub tunnel: Option<Tunnel>,
    /// Largest packet that fits, from the network header on (the outer one of a tunnel). Larger
    /// ones go to software.
    pub mtu: u16,
}

/// What packets are marked with on the way; nothing by default.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Marks {
    /// DSCP to write into the IP header, 0 to 63.
    pub dscp: Option<u8>,
    /// `skb->priority`, as far as a queue can be chosen by it.
    pub priority: Option<u32>,
    /// `skb->mark`.
    pub mark: Option<u32>,
}

/// One direction of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowDesc {
    /// What is forwarded, and what of it changes.
    pub kind: Kind,
    /// How it comes in.
    pub ingress: Ingress,
    /// How it leaves.
    pub egress: Egress,
    /// What it is marked with.
    pub marks: Marks,
}

impl FlowDesc {
    /// Whether addresses or ports change.
    pub fn is_nat(&self) -> bool {
        matches!(self.kind, Kind::Routed { tuple, rewritten, .. } if tuple != rewritten)
    }

    /// Whether it is an IPv6 flow.
    pub const fn is_v6(&self) -> bool {
        matches!(self.kind, Kind::Routed { tuple, .. } if tuple.addrs.is_v6())
    }
}

pub use crate::reason::Unsupported;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::encap::Encap;
    use crate::key::{
        ports,
        IngressId,
        IngressProto, //
        L4Proto,
    };

    #[test]
    fn tuples() {
        let ingress = IngressProto::new(L4Proto::Udp, IngressId::from_ifindex(2).unwrap());
        let key = Key4 {
            saddr: u32::from_ne_bytes([192, 168, 1, 100]),
            daddr: u32::from_ne_bytes([93, 184, 216, 34]),
            ports: ports(12345, 443),
            ingress,
        };
        let t = Tuple::from(&key);
        assert_eq!(
            t.addrs,
            Addrs::V4 {
                src: [192, 168, 1, 100],
                dst: [93, 184, 216, 34]
            }
        );
        assert_eq!(
            t.ports,
            Some(Ports {
                src: 12345,
                dst: 443
            })
        );
        assert_eq!(t.swapped().swapped(), t);
        assert_ne!(t.swapped(), t);

        let bytes: [u8; 16] = core::array::from_fn(|i| i as u8);
        let half = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        let key = Key6 {
            saddr: [half(0), half(8)],
            daddr: [half(8), half(0)],
            ports: ports(1, 2),
            ingress,
        };
        let Addrs::V6 { src, .. } = Tuple::from(&key).addrs else {
            panic!()
        };
        assert_eq!(src, bytes);
    }

    #[test]
    fn layers() {
        let mut encaps = Encaps::default();
        assert!(encaps.push_inner(Encap::vlan(ethertype::QINQ, 100)));
        assert!(encaps.push_inner(Encap::vlan(ethertype::VLAN, 7)));
        assert!(encaps.push_inner(Encap::new(ethertype::PPPOE, 0x1234)));
        let mut l = Layers::from(&encaps);
        assert_eq!(
            (l.vlans(), l.pppoe(), l.is_empty()),
            (2, Some(0x1234), false)
        );
        assert_eq!(
            l.as_slice()[1],
            Layer::Vlan {
                proto: ethertype::VLAN,
                vid: 7,
                pcp: None
            }
        );
        assert!(!l.push_inner(Layer::Pppoe { session: 1 }));
        l.prioritise((ethertype::VLAN, 7), 5);
        assert!(matches!(
            l.as_slice(),
            [
                Layer::Vlan { pcp: None, .. },
                Layer::Vlan {
                    vid: 7,
                    pcp: Some(5),
                    ..
                },
                _
            ]
        ));
        assert!(Layers::from(&Encaps::default()).is_empty());
        assert_eq!(Layers::from(&Encaps::default()), Layers::NONE);
    }

    #[test]
    fn unicast() {
        let (a, b) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        assert!(Macs { src: a, dst: b }.are_unicast());
        assert!(!Macs {
            src: a,
            dst: [0; 6]
        }
        .are_unicast());
        assert!(!Macs {
            src: a,
            dst: [0xff; 6]
        }
        .are_unicast());
    }
}
