// SPDX-License-Identifier: GPL-2.0

//! Why something did not happen: every early return of the module is one of these values.
//!
//! The names are an interface: debugfs prints them, and scripts read them there. Append only; the
//! numbers index counter arrays and may change between releases, the names may not.

/// Makes a fieldless `#[repr(u8)]` enum whose values are numbered from zero without a gap.
macro_rules! reasons {
    (
        $(#[$meta:meta])*
        pub enum $type:ident {
            $( $(#[doc = $doc:literal])+ $variant:ident = $name:literal, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum $type {
            $( $(#[doc = $doc])+ $variant, )+
        }

        impl $type {
            /// Every value, in the order of [`Self::index`].
            pub const ALL: &'static [$type] = &[ $( $type::$variant, )+ ];

            /// The number of values: the length of a counter array.
            pub const COUNT: usize = Self::ALL.len();

            /// The stable name, in snake_case.
            pub const fn name(self) -> &'static str {
                match self {
                    $( $type::$variant => $name, )+
                }
            }

            /// What it means, in a sentence or two: for tools, the kernel has no use for it.
            #[cfg(feature = "meaning")]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $( $type::$variant => concat!($($doc),+).trim_ascii(), )+
                }
            }

            /// The position in [`Self::ALL`]; always below [`Self::COUNT`].
            #[inline]
            pub const fn index(self) -> usize {
                self as usize
            }

            /// The value at `index`, or [`None`] at or past [`Self::COUNT`].
            pub fn from_index(index: usize) -> Option<Self> {
                Self::ALL.get(index).copied()
            }
        }

        impl core::fmt::Display for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

reasons! {
    /// Why a packet was left to the ordinary forwarding path.
    pub enum MissReason {
        /// Neither IPv4 nor IPv6, or not of the family of the flowtable's table.
        NotIp = "not_ip",
        /// A length field is inconsistent: with another one, with the packet, or with the
        /// smallest size of the header it describes.
        Truncated = "truncated",
        /// The version field disagrees with the link layer's protocol number.
        BadVersion = "bad_version",
        /// The IPv4 header checksum is wrong; the stack drops the packet and counts it.
        BadChecksum = "bad_checksum",
        /// An IPv4 fragment; the ports are in the first one only.
        Fragment = "fragment",
        /// IPv4 options are present.
        IpOptions = "ip_options",
        /// An IPv6 extension header precedes the transport header, a fragment header included; or
        /// destination options do, and no packet with such has come to the rule that adds the flow.
        ExtHeader = "ext_header",
        /// A packet without a length: a jumbogram, an IPv6 header and nothing behind it, a wrong
        /// one. Not the super-packets of BIG TCP.
        Jumbogram = "jumbogram",
        /// The TTL or hop limit would reach zero; the stack answers with an ICMP error.
        TtlExpiring = "ttl_expiring",
        /// A transport protocol that flows do not have.
        L4Proto = "l4_proto",
        /// No flow has this key.
        NoEntry = "no_entry",
        /// An encapsulation that the fast path does not look into.
        Encap = "encap",
        /// The link layer says that the packet is not addressed to this host.
        NotForUs = "not_for_us",
        /// Larger than the path can carry; the stack fragments it or answers with an ICMP error.
        Mtu = "mtu",
        /// SYN, FIN or RST: connection tracking must see it.
        TcpFlags = "tcp_flags",
        /// The flow was torn down and still sits in the table.
        FlowDead = "flow_dead",
        /// The conntrack entry of the flow is being deleted.
        CtDying = "ct_dying",
        /// The route cached for the flow is no longer valid.
        DstStale = "dst_stale",
        /// The neighbour is not resolved, or not confirmed any more.
        NeighGone = "neigh_gone",
        /// No memory to make the headers writable.
        NoMem = "no_mem",
        /// The packet went through IPsec (it has a security path), or should have and did not.
        SecPath = "sec_path",
        /// The bridge below the route does not take packets from the port, as far as is known.
        Bridge = "bridge",
        /// Let through once in a while, so that the bridge below the route sees its station.
        Refresh = "refresh",
        /// The ruleset has changed since the rules last saw a packet of this direction.
        Ruleset = "ruleset",
        /// A TCP packet with sequence numbers that cannot be those of the connection.
        TcpWindow = "tcp_window",
        /// An ICMP message other than an echo request or its reply.
        IcmpType = "icmp_type",
        /// SCTP chunks other than data and acknowledgements: connection tracking must see them.
        SctpChunk = "sctp_chunk",
        /// A switch has routed the packet already, and shows it to the rules only.
        Routed = "routed",
        /// A program has given it to a local socket (`bpf_sk_assign()`).
        Socket = "socket",
        /// The ruleset has let packets of this direction pass, but none yet with this DSCP, mark
        /// and priority.
        Looks = "looks",
        /// The same, and packets of this direction get so many different marks, priorities and
        /// DSCPs from the ruleset that there is no room for another one.
        ManyLooks = "many_looks",
    }
}

reasons! {
    /// Why the `flow add` expression did not add a flow.
    pub enum SkipReason {
        /// The packet went through IPsec (it has a security path).
        SecPath = "sec_path",
        /// The packet carries IPv4 options.
        IpOptions = "ip_options",
        /// The packet has no conntrack entry.
        NoCt = "no_ct",
        /// A transport protocol that cannot be offloaded.
        L4Proto = "l4_proto",
        /// The TCP connection is not established.
        TcpState = "tcp_state",
        /// The packet has FIN or RST set.
        TcpFinRst = "tcp_fin_rst",
        /// A conntrack helper must see the packets.
        Helper = "helper",
        /// Sequence numbers are being adjusted.
        SeqAdjust = "seq_adjust",
        /// The source port was chosen to resolve a NAT clash.
        NatClash = "nat_clash",
        /// The conntrack entry is not confirmed yet.
        Unconfirmed = "unconfirmed",
        /// The connection is offloaded already.
        AlreadyOffloaded = "already_offloaded",
        /// The conntrack entry is being deleted.
        CtDying = "ct_dying",
        /// No route back to the source.
        RouteReply = "route_reply",
        /// The route of one direction goes through IPsec.
        RouteXfrm = "route_xfrm",
        /// The stack of devices below the route is one that the fast path cannot express.
        PathShape = "path_shape",
        /// A device below the route is down, or its bridge does not take packets from the port.
        PathClosed = "path_closed",
        /// Flows that come in the same way, but up to other devices, are being taken down.
        PathChange = "path_change",
        /// The device that a direction enters by is not listed in the flowtable.
        DeviceNotListed = "device_not_listed",
        /// The egress device is not an Ethernet device and cannot be sent to directly.
        NotEthernet = "not_ethernet",
        /// The next hop has no usable neighbour entry yet.
        Neigh = "neigh",
        /// The interface index has no place in a key.
        Ifindex = "ifindex",
        /// The path's MTU is too small to be meant.
        Mtu = "mtu",
        /// No memory for the flow.
        NoMem = "no_mem",
        /// The flow table has no room; it grows in the background.
        TableFull = "table_full",
        /// Another flow has the same key.
        TableExists = "table_exists",
        /// The flowtable is being deleted.
        FlowtableClosing = "flowtable_closing",
        /// The SCTP association is not established.
        SctpState = "sctp_state",
        /// Above the device that is listed there is one with filters of its own for what comes in.
        IngressFilter = "ingress_filter",
        /// A moment ago packets of the connection came in or left by another way than the one that
        /// was found.
        RouteUnsettled = "route_unsettled",
        /// Packets come in a tunnel, and there are IPsec policies; the tunnel itself is not listed.
        TunnelPolicy = "tunnel_policy",
        /// Less than a second ago it was refused for one of the other reasons, and not asked about
        /// again.
        AskedLately = "asked_lately",
        /// Packets come in a tunnel that copies the DSCP of the outer header into the inner one.
        TunnelDscp = "tunnel_dscp",
        /// Packets come in a PPP session with filters of its own.
        PppFilter = "ppp_filter",
        /// A moment ago packets of the connection were rewritten by rules, not by connection
        /// tracking.
        Rewritten = "rewritten",
        /// A rule is about to say something else: about connections with so many bytes or packets.
        Count = "count",
        /// The flowtable has as many flows as the parameter `max_flows` allows.
        MaxFlows = "max_flows",
    }
}

reasons! {
    /// Why a flow was torn down.
    pub enum TeardownReason {
        /// No packet for the length of the timeout.
        Idle = "idle",
        /// A TCP RST was seen.
        Rst = "rst",
        /// TCP FINs were seen in both directions.
        Fin = "fin",
        /// A TCP SYN reuses the ports of a connection that is closing.
        SynReuse = "syn_reuse",
        /// The conntrack entry is being deleted.
        CtDying = "ct_dying",
        /// A cached route is no longer valid.
        DstStale = "dst_stale",
        /// A neighbour was deleted or failed.
        NeighGone = "neigh_gone",
        /// A device of the path went down.
        DeviceDown = "device_down",
        /// A device of the path was unregistered.
        DeviceGone = "device_gone",
        /// The MTU of the path, or of a device of it, changed.
        MtuChange = "mtu_change",
        /// The link-layer address of a device of the path changed.
        AddressChange = "address_change",
        /// The flowtable was deleted.
        FlowtableDelete = "flowtable_delete",
        /// The network namespace was deleted.
        NetnsExit = "netns_exit",
        /// There was no room for its second direction, or another flow has its key.
        NotAdded = "not_added",
        /// Connection tracking asked for the flow back.
        Conntrack = "conntrack",
        /// After a change of the ruleset no rule added the flow again.
        Ruleset = "ruleset",
        /// Packets come in another way than before.
        PathChange = "path_change",
        /// Packets of a direction leave the stack by another route than the one that was found.
        RouteChange = "route_change",
        /// Somebody asked for it, see `netlink/nft_offload.yaml`.
        Flush = "flush",
        /// Packets leave rewritten in a way that the fast path does not know: by rules.
        Rewritten = "rewritten",
        /// A rule is about to say something else: about connections with so many bytes or packets.
        Count = "count",
    }
}

reasons! {
    /// Why an engine cannot express a direction of a flow. Asking again for the same shape of flow
    /// gives the same answer.
    pub enum Unsupported {
        /// The address family.
        Family = "family",
        /// The transport protocol.
        L4Proto = "l4_proto",
        /// Translation of this family's addresses or ports.
        Nat = "nat",
        /// Frames that are bridged.
        Bridged = "bridged",
        /// The link-layer addresses are not those of single stations, or not known.
        MacAddress = "mac_address",
        /// The device that packets come in by is not one of the engine's.
        IngressPort = "ingress_port",
        /// The device that packets leave by is not one of the engine's.
        EgressPort = "egress_port",
        /// The tagging protocol of the switch.
        DsaProto = "dsa_proto",
        /// The port number of the switch, or the ring of the radio.
        PortNumber = "port_number",
        /// More VLAN tags than fit.
        VlanDepth = "vlan_depth",
        /// A VLAN protocol other than 802.1Q.
        VlanProto = "vlan_proto",
        /// More than one PPPoE session.
        PppoeDepth = "pppoe_depth",
        /// A PPPoE session at all.
        Pppoe = "pppoe",
        /// Encapsulations in an order that cannot be written.
        LayerOrder = "layer_order",
        /// Encapsulations of what comes in cannot be told apart.
        IngressLayers = "ingress_layers",
        /// A tunnel.
        Tunnel = "tunnel",
        /// A VLAN priority.
        Pcp = "pcp",
        /// A DSCP.
        Dscp = "dscp",
        /// A priority or mark that no queue stands for.
        Mark = "mark",
        /// The TTL would not be decremented.
        Ttl = "ttl",
        /// The size of packets is not checked against this MTU.
        Mtu = "mtu",
        /// The driver refused it, and said no more than that.
        Driver = "driver",
        /// Something sees packets on their way in before a flowtable would: a filter, a program, a
        /// chain.
        IngressFilter = "ingress_filter",
        /// The hardware of a bridge port takes a VLAN tag off, which rules would leave on.
        HwUntag = "hw_untag",
        /// The engine cannot tell packets of the flow from those of another one.
        Alias = "alias",
    }
}

reasons! {
    /// Why a direction of a flow left hardware.
    pub enum DemoteReason {
        /// The flow was torn down.
        Teardown = "teardown",
        /// A flow with more traffic has taken its place.
        Swapped = "swapped",
        /// The engine cannot tell its packets from those of another flow.
        Alias = "alias",
        /// The ruleset has to see packets again.
        Ruleset = "ruleset",
        /// What the rule was made of has changed: route, neighbour, devices.
        Stale = "stale",
        /// The engine has let go of it, as it was idle.
        Aged = "aged",
        /// The engine has lost it, or does not forward its packets.
        Lost = "lost",
        /// The device has left the flowtable, or its engine has begun anew.
        Device = "device",
        /// The other direction was declined.
        Declined = "declined",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    macro_rules! check {
        ($type:ident) => {{
            assert_eq!($type::ALL.len(), $type::COUNT);
            let mut names = HashSet::new();
            for (i, reason) in $type::ALL.iter().enumerate() {
                assert_eq!(reason.index(), i);
                assert_eq!($type::from_index(i), Some(*reason));
                assert_eq!(reason.to_string(), reason.name());
                assert!(names.insert(reason.name()));
                // NFO_TRACE_NAME in src/ffi/trace.h, with a zero at the end.
                assert!(reason.name().len() < 32);

                // The name is the variant's own, in snake_case.
                let mut snake = String::new();
                for c in format!("{reason:?}").chars() {
                    if c.is_uppercase() && !snake.is_empty() {
                        snake.push('_');
                    }
                    snake.extend(c.to_lowercase());
                }
                assert_eq!(snake, reason.name());
            }
            assert_eq!($type::from_index($type::COUNT), None);
        }};
    }

    #[test]
    fn names_and_indices() {
        check!(MissReason);
        check!(SkipReason);
        check!(TeardownReason);
        check!(Unsupported);
        check!(DemoteReason);
    }
}
