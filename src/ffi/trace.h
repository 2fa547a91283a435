/* SPDX-License-Identifier: GPL-2.0 */
/* Tracepoints. Addresses have 16 bytes, those of IPv4 are mapped into IPv6 (::ffff:192.0.2.1);
 * ports, zone, mark and protocol are in host byte order, and as conntrack has them: of the
 * original direction, whichever direction an event is about.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM nft_offload

#if !defined(_NFT_OFFLOAD_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _NFT_OFFLOAD_TRACE_H

#include <linux/netdevice.h>
#include <linux/skbuff.h>
#include <linux/string.h>
#include <linux/tracepoint.h>
#include <net/netfilter/nf_conntrack.h>
#include <net/netfilter/nf_tables.h>

/* Names of reasons and engines are arrays, not __string(): a fixed few, all shorter than this (tested in
 * src/nft_flow/reason.rs), and what filters and tools can compare as it is.
 */
#define NFO_TRACE_NAME 32
#define NFO_NAME_ASSIGN(to, from, len) \
	memcpy_and_pad(to, NFO_TRACE_NAME, from, min_t(u32, len, NFO_TRACE_NAME - 1), 0)

/* src/nft_flow/direction.rs */
#define nfo_show_dir(dir) __print_symbolic(dir, { 0, "original" }, { 1, "reply" })

#define NFO_CONN_FIELDS			\
	__field(u32, netns)		\
	__field(u32, mark)		\
	__field(u16, family)		\
	__field(u16, zone)		\
	__field(u16, sport)		\
	__field(u16, dport)		\
	__array(u8, saddr, 16)		\
	__array(u8, daddr, 16)		\
	__field(u8, protocol)

#define NFO_CONN_ASSIGN(ct)							\
	__entry->netns = nf_ct_net(ct)->ns.inum;				\
	__entry->mark = nfo_trace_mark(ct);					\
	__entry->zone = nfo_ct_zone(ct);					\
	NFO_TUPLE_ASSIGN(&(ct)->tuplehash[IP_CT_DIR_ORIGINAL].tuple,		\
			 saddr, daddr, sport, dport);				\
	__entry->family = nfo_trace_family(ct);					\
	__entry->protocol = nf_ct_protonum(ct)

#define NFO_TUPLE_ASSIGN(tuple, src, dst, from, to)				\
	nfo_trace_tuple(tuple, __entry->src, __entry->dst, &__entry->from, &__entry->to)

#define NFO_CONN_FORMAT \
	"protocol=%u saddr=%pI6c sport=%u daddr=%pI6c dport=%u zone=%u mark=0x%x netns=%u"

#define NFO_CONN_ARGS								\
	__entry->protocol, __entry->saddr, __entry->sport, __entry->daddr,	\
	__entry->dport, __entry->zone, __entry->mark, __entry->netns

/* A flow was added. Packets of the original direction are routed from iif to oif. */
TRACE_EVENT(flow_add,
	TP_PROTO(const struct nf_conn *ct, const struct nft_flowtable *ft, u32 iif, u32 oif),
	TP_ARGS(ct, ft, iif, oif),
	TP_STRUCT__entry(
		NFO_CONN_FIELDS
		__field(u16, reply_sport)
		__field(u16, reply_dport)
		__array(u8, reply_saddr, 16)
		__array(u8, reply_daddr, 16)
		__field(u32, iif)
		__field(u32, oif)
		__array(char, iifname, IFNAMSIZ)
		__array(char, oifname, IFNAMSIZ)
		__string(table, ft->table->name)
		__string(flowtable, ft->name)
	),
	TP_fast_assign(
		NFO_CONN_ASSIGN(ct);
		NFO_TUPLE_ASSIGN(&ct->tuplehash[IP_CT_DIR_REPLY].tuple,
				 reply_saddr, reply_daddr, reply_sport, reply_dport);
		__entry->iif = iif;
		__entry->oif = oif;
		nfo_trace_ifname(nf_ct_net(ct), iif, __entry->iifname);
		nfo_trace_ifname(nf_ct_net(ct), oif, __entry->oifname);
		__assign_str(table);
		__assign_str(flowtable);
	),
	TP_printk(NFO_CONN_FORMAT " reply_saddr=%pI6c reply_sport=%u reply_daddr=%pI6c reply_dport=%u iif=%s oif=%s table=%s flowtable=%s",
		  NFO_CONN_ARGS, __entry->reply_saddr, __entry->reply_sport, __entry->reply_daddr,
		  __entry->reply_dport, __entry->iifname, __entry->oifname, __get_str(table),
		  __get_str(flowtable))
);

/* A packet came to the rule that adds flows, which did not add one: skip.* of the counters. Of a
 * packet without a conntrack entry the fields are those of the packet.
 */
TRACE_EVENT(flow_skip,
	TP_PROTO(const struct sk_buff *skb, const struct nf_conn *ct, const struct net_device *in,
		 const struct nft_flowtable *ft, const u8 *reason, u32 len),
	TP_ARGS(skb, ct, in, ft, reason, len),
	TP_STRUCT__entry(
		NFO_CONN_FIELDS
		__field(u32, iif)
		__array(char, iifname, IFNAMSIZ)
		__array(char, reason, NFO_TRACE_NAME)
		__string(table, ft->table->name)
		__string(flowtable, ft->name)
	),
	TP_fast_assign(
		if (ct) {
			NFO_CONN_ASSIGN(ct);
		} else {
			NFO_PACKET_ASSIGN(skb, nfo_ft_net(&ft->data));
		}
		__entry->iif = in ? in->ifindex : 0;
		strscpy_pad(__entry->iifname, in ? in->name : "", IFNAMSIZ);
		NFO_NAME_ASSIGN(__entry->reason, reason, len);
		__assign_str(table);
		__assign_str(flowtable);
	),
	TP_printk(NFO_CONN_FORMAT " iif=%s reason=%s table=%s flowtable=%s", NFO_CONN_ARGS,
		  __entry->iifname, __entry->reason, __get_str(table), __get_str(flowtable))
);

#define NFO_PACKET_ASSIGN(skb, net)						\
	__entry->netns = (net)->ns.inum;					\
	__entry->mark = (skb)->mark;						\
	__entry->zone = 0;							\
	__entry->protocol = nfo_trace_packet(skb, &__entry->family, __entry->saddr, \
					     __entry->daddr, &__entry->sport, &__entry->dport)

/* A packet at the ingress hook of a device takes the slow path: miss.* of the counters. Addresses,
 * ports and protocol are its innermost ones, as far as they can be read; len is in bytes from the
 * network header on, and mark that of the packet.
 */
TRACE_EVENT(flow_miss,
	TP_PROTO(const struct sk_buff *skb, const u8 *reason, u32 reason_len),
	TP_ARGS(skb, reason, reason_len),
	TP_STRUCT__entry(
		NFO_CONN_FIELDS
		__field(u32, iif)
		__field(u32, len)
		__field(u16, ethertype)
		__array(char, iifname, IFNAMSIZ)
		__array(char, reason, NFO_TRACE_NAME)
	),
	TP_fast_assign(
		NFO_PACKET_ASSIGN(skb, dev_net(skb->dev));
		__entry->iif = skb->dev->ifindex;
		__entry->len = skb->len;
		__entry->ethertype = ntohs(skb->protocol);
		strscpy_pad(__entry->iifname, skb->dev->name, IFNAMSIZ);
		NFO_NAME_ASSIGN(__entry->reason, reason, reason_len);
	),
	TP_printk("protocol=%u saddr=%pI6c sport=%u daddr=%pI6c dport=%u mark=0x%x netns=%u iif=%s ethertype=0x%04x len=%u reason=%s",
		  __entry->protocol, __entry->saddr, __entry->sport, __entry->daddr, __entry->dport,
		  __entry->mark, __entry->netns, __entry->iifname, __entry->ethertype, __entry->len,
		  __entry->reason)
);

/* The ruleset is asked about packets of a direction again, and why; or, with reason "answered", a
 * packet has passed it as the flow does.
 */
TRACE_EVENT(flow_revalidate,
	TP_PROTO(const struct nf_conn *ct, u8 dir, const u8 *reason, u32 len),
	TP_ARGS(ct, dir, reason, len),
	TP_STRUCT__entry(
		NFO_CONN_FIELDS
		__field(u8, dir)
		__array(char, reason, NFO_TRACE_NAME)
	),
	TP_fast_assign(
		NFO_CONN_ASSIGN(ct);
		__entry->dir = dir;
		NFO_NAME_ASSIGN(__entry->reason, reason, len);
	),
	TP_printk(NFO_CONN_FORMAT " dir=%s reason=%s", NFO_CONN_ARGS, nfo_show_dir(__entry->dir),
		  __entry->reason)
);

/* A flow was torn down: teardown.* of the counters. Times are in milliseconds, idle since the
 * latest packet of either direction. Packets and bytes are conntrack's, if it counts.
 */
TRACE_EVENT(flow_teardown,
	TP_PROTO(const struct nf_conn *ct, u32 age_ms, u32 idle_ms, const u8 *reason, u32 len),
	TP_ARGS(ct, age_ms, idle_ms, reason, len),
	TP_STRUCT__entry(
		NFO_CONN_FIELDS
		__field(u32, age_ms)
		__field(u32, idle_ms)
		__field(u64, packets)
		__field(u64, bytes)
		__field(u64, reply_packets)
		__field(u64, reply_bytes)
		__array(char, reason, NFO_TRACE_NAME)
	),
	TP_fast_assign(
		NFO_CONN_ASSIGN(ct);
		__entry->age_ms = age_ms;
		__entry->idle_ms = idle_ms;
		nfo_trace_acct(ct, IP_CT_DIR_ORIGINAL, &__entry->packets, &__entry->bytes);
		nfo_trace_acct(ct, IP_CT_DIR_REPLY, &__entry->reply_packets, &__entry->reply_bytes);
		NFO_NAME_ASSIGN(__entry->reason, reason, len);
	),
	TP_printk(NFO_CONN_FORMAT " age_ms=%u idle_ms=%u packets=%llu bytes=%llu reply_packets=%llu reply_bytes=%llu reason=%s",
		  NFO_CONN_ARGS, __entry->age_ms, __entry->idle_ms, __entry->packets,
		  __entry->bytes, __entry->reply_packets, __entry->reply_bytes, __entry->reason)
);

/* An engine has taken the rule of a direction. Its packets come in by iif. */
TRACE_EVENT(hw_add,
	TP_PROTO(const struct nf_conn *ct, u8 dir, u32 iif, const u8 *engine, u32 len),
	TP_ARGS(ct, dir, iif, engine, len),
	TP_STRUCT__entry(
		NFO_CONN_FIELDS
		__field(u8, dir)
		__field(u32, iif)
		__array(char, iifname, IFNAMSIZ)
		__array(char, engine, NFO_TRACE_NAME)
	),
	TP_fast_assign(
		NFO_CONN_ASSIGN(ct);
		__entry->dir = dir;
		__entry->iif = iif;
		nfo_trace_ifname(nf_ct_net(ct), iif, __entry->iifname);
		NFO_NAME_ASSIGN(__entry->engine, engine, len);
	),
	TP_printk(NFO_CONN_FORMAT " dir=%s iif=%s engine=%s", NFO_CONN_ARGS,
		  nfo_show_dir(__entry->dir), __entry->iifname, __entry->engine)
);

/* A direction was not put into hardware: decline.* of the file "hardware". If that was its driver's
 * decision, error is its (negative) errno and text what it said; otherwise 0, and nothing.
 */
TRACE_EVENT(hw_decline,
	TP_PROTO(const struct nf_conn *ct, u8 dir, u32 iif, const u8 *reason, u32 len, int error,
		 const u8 *text, u32 text_len),
	TP_ARGS(ct, dir, iif, reason, len, error, text, text_len),
	TP_STRUCT__entry(
		NFO_CONN_FIELDS
		__field(u8, dir)
		__field(u32, iif)
		__field(int, error)
		__array(char, iifname, IFNAMSIZ)
		__array(char, reason, NFO_TRACE_NAME)
		__string_len(text, text, text_len)
	),
	TP_fast_assign(
		NFO_CONN_ASSIGN(ct);
		__entry->dir = dir;
		__entry->iif = iif;
		__entry->error = error;
		nfo_trace_ifname(nf_ct_net(ct), iif, __entry->iifname);
		NFO_NAME_ASSIGN(__entry->reason, reason, len);
		__assign_str(text);
	),
	TP_printk(NFO_CONN_FORMAT " dir=%s iif=%s reason=%s error=%d text=\"%s\"", NFO_CONN_ARGS,
		  nfo_show_dir(__entry->dir), __entry->iifname, __entry->reason, __entry->error,
		  __get_str(text))
);

/* The rule of a direction was taken away, or its engine had lost it. */
TRACE_EVENT(hw_remove,
	TP_PROTO(const struct nf_conn *ct, u8 dir, u32 iif, const u8 *reason, u32 len),
	TP_ARGS(ct, dir, iif, reason, len),
	TP_STRUCT__entry(
		NFO_CONN_FIELDS
		__field(u8, dir)
		__field(u32, iif)
		__array(char, iifname, IFNAMSIZ)
		__array(char, reason, NFO_TRACE_NAME)
	),
	TP_fast_assign(
		NFO_CONN_ASSIGN(ct);
		__entry->dir = dir;
		__entry->iif = iif;
		nfo_trace_ifname(nf_ct_net(ct), iif, __entry->iifname);
		NFO_NAME_ASSIGN(__entry->reason, reason, len);
	),
	TP_printk(NFO_CONN_FORMAT " dir=%s iif=%s reason=%s", NFO_CONN_ARGS,
		  nfo_show_dir(__entry->dir), __entry->iifname, __entry->reason)
);

/* The worker of a flowtable has run: it took this many flows out, and as many are left. */
TRACE_EVENT(gc_run,
	TP_PROTO(const struct nft_flowtable *ft, u32 flows, u32 removed, u64 duration_ns, u32 pause_ms),
	TP_ARGS(ft, flows, removed, duration_ns, pause_ms),
	TP_STRUCT__entry(
		__field(u32, netns)
		__field(u32, flows)
		__field(u32, removed)
		__field(u32, pause_ms)
		__field(u64, duration_ns)
		__string(table, ft->table->name)
		__string(flowtable, ft->name)
	),
	TP_fast_assign(
		__entry->netns = nfo_ft_net(&ft->data)->ns.inum;
		__entry->flows = flows;
		__entry->removed = removed;
		__entry->pause_ms = pause_ms;
		__entry->duration_ns = duration_ns;
		__assign_str(table);
		__assign_str(flowtable);
	),
	TP_printk("table=%s flowtable=%s flows=%u removed=%u duration_ns=%llu pause_ms=%u netns=%u",
		  __get_str(table), __get_str(flowtable), __entry->flows, __entry->removed,
		  __entry->duration_ns, __entry->pause_ms, __entry->netns)
);

#endif

/* Found by -I, as the other headers here. */
#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
