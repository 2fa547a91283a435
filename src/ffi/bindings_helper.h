/* SPDX-License-Identifier: GPL-2.0 */
/* What bindgen reads: the netfilter and routing headers that the kernel crate does not bind. */
#include <linux/etherdevice.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/inetdevice.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/notifier.h>
#include <linux/rtnetlink.h>
#include <linux/skbuff.h>
#include <linux/tc_act/tc_csum.h>
#include <net/addrconf.h>
#include <net/dst.h>
#include <net/flow.h>
#include <net/genetlink.h>
#include <net/inet_dscp.h>
#include <net/ip6_fib.h>
#include <net/ipv6.h>
#include <net/neighbour.h>
#include <net/netevent.h>
#include <net/netfilter/nf_conntrack.h>
#include <net/netfilter/nf_conntrack_acct.h>
#include <net/netfilter/nf_conntrack_core.h>
#include <net/netfilter/nf_flow_table.h>
#include <net/netfilter/nf_tables.h>
#include <net/route.h>
#include <net/switchdev.h>
#include <net/tcp.h>
#include "helpers.h"
#include "tc.h"
#include "trace.h"

/* Macros that bindgen cannot evaluate. */
const gfp_t RUST_CONST_HELPER_NFO_GFP_ATOMIC = GFP_ATOMIC;
const u32 RUST_CONST_HELPER_NFO_HZ = HZ;
const u32 RUST_CONST_HELPER_NFO_STATS_LEN = NFO_STATS;
const u32 RUST_CONST_HELPER_NFO_HW_STATS = FLOW_ACTION_HW_STATS_DONT_CARE;

const u8 RUST_CONST_HELPER_NFO_MCAST_ADMIN = GENL_MCAST_CAP_NET_ADMIN;

/* What Rust would otherwise have to copy, with the types that it has there. */
const unsigned long RUST_CONST_HELPER_NFO_NFCT_INFOMASK = NFCT_INFOMASK;
const u8 RUST_CONST_HELPER_NFO_TCP_BE_LIBERAL = IP_CT_TCP_FLAG_BE_LIBERAL;
const u8 RUST_CONST_HELPER_NFO_TCP_MAXACK_SET = IP_CT_TCP_FLAG_MAXACK_SET;
const u8 RUST_CONST_HELPER_NFO_TCP_DATA_UNACKNOWLEDGED = IP_CT_TCP_FLAG_DATA_UNACKNOWLEDGED;
const u16 RUST_CONST_HELPER_NFO_RTN_UNICAST = RTN_UNICAST;
const u16 RUST_CONST_HELPER_NFO_PPP_IP = PPP_IP;
const u16 RUST_CONST_HELPER_NFO_PPP_IPV6 = PPP_IPV6;
const u32 RUST_CONST_HELPER_NFO_HH_DATA_MOD = HH_DATA_MOD;
const u32 RUST_CONST_HELPER_NFO_ETH_HLEN = ETH_HLEN;
const s16 RUST_CONST_HELPER_NFO_DST_FORCE_CHK = DST_OBSOLETE_FORCE_CHK;
const u8 RUST_CONST_HELPER_NFO_NEXTHDR_DEST = NEXTHDR_DEST;
const unsigned long RUST_CONST_HELPER_NFO_SKB_DST_NOREF = SKB_DST_NOREF;
const u8 RUST_CONST_HELPER_NFO_PACKET_HOST = PACKET_HOST;
const u8 RUST_CONST_HELPER_NFO_PACKET_OTHERHOST = PACKET_OTHERHOST;
const u8 RUST_CONST_HELPER_NFO_CHECKSUM_COMPLETE = CHECKSUM_COMPLETE;
const u8 RUST_CONST_HELPER_NFO_CHECKSUM_PARTIAL = CHECKSUM_PARTIAL;
const u32 RUST_CONST_HELPER_NFO_GSO_UDP = SKB_GSO_UDP;
const u32 RUST_CONST_HELPER_NFO_GSO_TUNNEL = SKB_GSO_GRE | SKB_GSO_GRE_CSUM | SKB_GSO_UDP_TUNNEL |
					     SKB_GSO_UDP_TUNNEL_CSUM;
const u16 RUST_CONST_HELPER_NFO_GSO_BY_FRAGS = GSO_BY_FRAGS;
const u8 RUST_CONST_HELPER_NFO_INET_DSCP_MASK = INET_DSCP_MASK;
const u32 RUST_CONST_HELPER_NFO_NFT_BREAK = NFT_BREAK;
const u32 RUST_CONST_HELPER_NFO_INET_FORWARD = NF_INET_FORWARD;
const u32 RUST_CONST_HELPER_NFO_INET_POST_ROUTING = NF_INET_POST_ROUTING;
const u32 RUST_CONST_HELPER_NFO_INET_PRE_ROUTING = NF_INET_PRE_ROUTING;
const u32 RUST_CONST_HELPER_NFO_FLOW_TABLE_NAME = NFTA_FLOW_TABLE_NAME;
const u16 RUST_CONST_HELPER_NFO_NAME_MAXLEN = NFT_NAME_MAXLEN;
const u32 RUST_CONST_HELPER_NFO_FLOWTABLE_HW_OFFLOAD = NF_FLOWTABLE_HW_OFFLOAD;
const u32 RUST_CONST_HELPER_NFO_FLOWTABLE_COUNTER = NF_FLOWTABLE_COUNTER;
const u8 RUST_CONST_HELPER_NFO_TCP_FIN = TCPHDR_FIN;
const u8 RUST_CONST_HELPER_NFO_TCP_SYN = TCPHDR_SYN;
const u8 RUST_CONST_HELPER_NFO_TCP_RST = TCPHDR_RST;
const u8 RUST_CONST_HELPER_NFO_TCP_ACK = TCPHDR_ACK;
const u8 RUST_CONST_HELPER_NFO_IPPROTO_TCP = IPPROTO_TCP;
const u8 RUST_CONST_HELPER_NFO_IPPROTO_UDP = IPPROTO_UDP;
const u8 RUST_CONST_HELPER_NFO_IPPROTO_SCTP = IPPROTO_SCTP;
const u8 RUST_CONST_HELPER_NFO_IPPROTO_ICMP = IPPROTO_ICMP;
const u8 RUST_CONST_HELPER_NFO_IPPROTO_ICMPV6 = IPPROTO_ICMPV6;
const u8 RUST_CONST_HELPER_NFO_IPPROTO_IPIP = IPPROTO_IPIP;
const u32 RUST_CONST_HELPER_NFO_BR_VLAN_KEEP = DEV_PATH_BR_VLAN_KEEP;
const u32 RUST_CONST_HELPER_NFO_BR_VLAN_TAG = DEV_PATH_BR_VLAN_TAG;
const u32 RUST_CONST_HELPER_NFO_BR_VLAN_UNTAG = DEV_PATH_BR_VLAN_UNTAG;
const u32 RUST_CONST_HELPER_NFO_BR_VLAN_UNTAG_HW = DEV_PATH_BR_VLAN_UNTAG_HW;
const u32 RUST_CONST_HELPER_NFO_IFF_UP = IFF_UP;
const int RUST_CONST_HELPER_NFO_NOTIFY_DONE = NOTIFY_DONE;
const u32 RUST_CONST_HELPER_NFO_CSUM_IPV4HDR = TCA_CSUM_UPDATE_FLAG_IPV4HDR;
const u32 RUST_CONST_HELPER_NFO_CSUM_TCP = TCA_CSUM_UPDATE_FLAG_TCP;
const u32 RUST_CONST_HELPER_NFO_CSUM_UDP = TCA_CSUM_UPDATE_FLAG_UDP;
