// SPDX-License-Identifier: GPL-2.0

//! Connections as connection tracking knows them.

use crate::{
    kernel::Tuple,
    netlink::{
        self,
        Netlink, //
    }, //
};
use anyhow::Result;
use netlink_bindings::conntrack::{
    IterableConntrackAttrs,
    IterableTupleAttrs,
    Nfgenmsg,
    Request, //
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use serde::Serialize;
use std::net::IpAddr;

/// `IPS_*`, include/uapi/linux/netfilter/nf_conntrack_common.h.
const IPS_OFFLOAD: u32 = 1 << 14;
const IPS_HW_OFFLOAD: u32 = 1 << 15;

/// A connection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Connection {
    /// As the first packet showed it.
    pub(crate) original: Tuple,
    /// As answers show it.
    pub(crate) reply: Tuple,
    pub(crate) status: u32,
    pub(crate) helper: Option<String>,
    /// `enum tcp_conntrack`.
    pub(crate) tcp_state: Option<u8>,
}

impl Connection {
    pub(crate) fn is_offloaded(&self) -> bool {
        self.status & IPS_OFFLOAD != 0
    }

    pub(crate) fn is_in_hardware(&self) -> bool {
        self.status & IPS_HW_OFFLOAD != 0
    }

    /// The state of a TCP connection, in words.
    pub(crate) fn tcp_state(&self) -> Option<&'static str> {
        const STATES: [&str; 10] = [
            "NONE",
            "SYN_SENT",
            "SYN_RECV",
            "ESTABLISHED",
            "FIN_WAIT",
            "CLOSE_WAIT",
            "LAST_ACK",
            "TIME_WAIT",
            "CLOSE",
            "SYN_SENT2",
        ];

        STATES.get(usize::from(self.tcp_state?)).copied()
    }
}

/// One end of a connection: an address, and maybe a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct End {
    pub(crate) addr: IpAddr,
    pub(crate) port: Option<u16>,
}

impl End {
    fn is(&self, addr: IpAddr, port: Option<u16>) -> bool {
        self.addr == addr && (self.port.is_none() || self.port == port)
    }
}

/// Whether packets of a direction run between these ends, either way.
fn between(tuple: &Tuple, one: &End, other: Option<&End>) -> bool {
    let [sport, dport] = tuple.ports();
    let (src, dst) = ((tuple.src, sport), (tuple.dst, dport));

    [(src, dst), (dst, src)]
        .iter()
        .any(|(a, b)| one.is(a.0, a.1) && other.is_none_or(|other| other.is(b.0, b.1)))
}

impl Connection {
    /// Whether it runs between these ends, before or after NAT.
    pub(crate) fn is_between(&self, one: &End, other: Option<&End>) -> bool {
        between(&self.original, one, other) || between(&self.reply, one, other)
    }
}

/// `zone`: that of the connection, if it is one of both directions.
fn tuple(attrs: &IterableTupleAttrs<'_>, zone: Option<u16>) -> Option<Tuple> {
    let (ip, proto) = (attrs.get_tuple_ip().ok()?, attrs.get_tuple_proto().ok()?);
    let v4 = (ip.get_ip_v4_src(), ip.get_ip_v4_dst());
    let (src, dst) = match v4 {
        (Ok(src), Ok(dst)) => (src.into(), dst.into()),
        _ => (
            ip.get_ip_v6_src().ok()?.into(),
            ip.get_ip_v6_dst().ok()?.into(),
        ),
    };

    let l4proto = proto.get_proto_num().ok()?;
    // Where others have ports conntrack has the identifier of ICMP, and its type and code.
    let (sport, dport) = match l4proto {
        1 => (
            proto.get_proto_icmp_id(),
            of_message(proto.get_proto_icmp_type(), proto.get_proto_icmp_code()),
        ),
        58 => (
            proto.get_proto_icmpv6_id(),
            of_message(proto.get_proto_icmpv6_type(), proto.get_proto_icmpv6_code()),
        ),
        _ => (proto.get_proto_src_port(), proto.get_proto_dst_port()),
    };

    Some(Tuple {
        l4proto,
        src,
        dst,
        sport: sport.unwrap_or(0),
        dport: dport.unwrap_or(0),
        zone: zone.or(attrs.get_tuple_zone().ok()).unwrap_or(0),
    })
}

/// Type and code of an ICMP message in one number.
fn of_message<E>(kind: Result<u8, E>, code: Result<u8, E>) -> Result<u16, E> {
    Ok(u16::from_be_bytes([kind?, code?]))
}

fn connection(attrs: &IterableConntrackAttrs<'_>) -> Option<Connection> {
    let zone = attrs.get_zone().ok();
    let tcp = attrs
        .get_protoinfo()
        .and_then(|info| info.get_protoinfo_tcp());

    Some(Connection {
        original: tuple(&attrs.get_tuple_orig().ok()?, zone)?,
        reply: tuple(&attrs.get_tuple_reply().ok()?, zone)?,
        status: attrs.get_status().unwrap_or(0),
        helper: attrs
            .get_help()
            .and_then(|help| help.get_help_name())
            .ok()
            .map(|name| netlink::text(name.to_bytes())),
        tcp_state: tcp.and_then(|tcp| tcp.get_tcp_state()).ok(),
    })
}

/// Gives all connections of the namespace to `each`.
pub(crate) fn connections(mut each: impl FnMut(Connection)) -> Result<()> {
    let mut netlink = Netlink::open(NETLINK_NETFILTER)?;
    let header = Nfgenmsg::default();
    let request = Request::new().op_get_dump(&header);

    netlink.request(&request, |(_, attrs)| {
        if let Some(connection) = connection(&attrs) {
            each(connection);
        }
        Ok(())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_bindings::conntrack::ConntrackAttrs;

    fn end(addr: &str, port: Option<u16>) -> End {
        End {
            addr: addr.parse().unwrap(),
            port,
        }
    }

    #[test]
    fn connections_are_found_by_their_ends() {
        let tuple = |src: &str, sport, dst: &str, dport| Tuple {
            l4proto: 6,
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            sport,
            dport,
            zone: 0,
        };
        let it = Connection {
            original: tuple("10.0.0.5", 4000, "192.0.2.1", 443),
            reply: tuple("192.0.2.1", 443, "203.0.113.9", 4000),
            status: IPS_OFFLOAD,
            helper: None,
            tcp_state: Some(3),
        };

        assert!(it.is_between(&end("10.0.0.5", None), None));
        assert!(it.is_between(&end("203.0.113.9", None), None));
        assert!(it.is_between(
            &end("10.0.0.5", Some(4000)),
            Some(&end("192.0.2.1", Some(443)))
        ));
        assert!(it.is_between(&end("192.0.2.1", Some(443)), Some(&end("10.0.0.5", None))));
        assert!(!it.is_between(&end("10.0.0.5", Some(443)), None));
        assert!(!it.is_between(&end("10.0.0.5", None), Some(&end("10.0.0.5", None))));
        assert!(!it.is_between(&end("10.0.0.6", None), None));
        assert!(it.is_offloaded() && !it.is_in_hardware());
        assert_eq!(it.tcp_state(), Some("ESTABLISHED"));

        // The identifier of an echo is no port.
        let mut echo = it.clone();
        echo.original.l4proto = 1;
        echo.reply.l4proto = 1;
        assert!(echo.is_between(&end("10.0.0.5", None), None));
        assert!(!echo.is_between(&end("10.0.0.5", Some(4000)), None));
    }

    /// An attribute of netlink, whose payload fills it.
    fn attr(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut all = (4 + payload.len() as u16).to_ne_bytes().to_vec();

        all.extend(kind.to_ne_bytes());
        all.extend(payload);
        all.resize(all.len().next_multiple_of(4), 0);
        all
    }

    fn raw_tuple(src: u8, proto: &[Vec<u8>], zone: Option<u16>) -> Vec<u8> {
        let ip = [attr(1, &[10, 0, 0, src]), attr(2, &[10, 0, 0, 3 - src])].concat();
        let mut all = [attr(1, &ip), attr(2, &proto.concat())].concat();

        if let Some(zone) = zone {
            all.extend(attr(3, &zone.to_be_bytes()));
        }
        all
    }

    #[test]
    fn echoes_and_zones_of_a_direction() {
        let echo = |kind: u8| {
            [
                attr(1, &[1]),
                attr(4, &77_u16.to_be_bytes()),
                attr(5, &[kind]),
                attr(6, &[0]),
            ]
        };
        let one = attr(1, &raw_tuple(1, &echo(8), Some(5)));
        let other = attr(2, &raw_tuple(2, &echo(0), None));
        let all = [one, other].concat();
        let it = connection(&ConntrackAttrs::new(&all)).unwrap();
        assert_eq!((it.original.sport, it.original.dport), (77, 8 << 8));
        assert_eq!((it.reply.sport, it.reply.dport), (77, 0));
        assert_eq!((it.original.zone, it.reply.zone), (5, 0));

        // CTA_ZONE is that of both.
        let all = [all, attr(18, &9_u16.to_be_bytes())].concat();
        let it = connection(&ConntrackAttrs::new(&all)).unwrap();
        assert_eq!((it.original.zone, it.reply.zone), (9, 9));
    }
}
