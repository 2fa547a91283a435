// SPDX-License-Identifier: GPL-2.0
/* Tracepoints: what fills in their fields, and the functions that Rust calls for those that are on. */
#include <net/flow_dissector.h>
#include <net/netfilter/nf_conntrack_acct.h>

#include "helpers.h"

static u16 nfo_trace_family(const struct nf_conn *ct)
{
	return nf_ct_l3num(ct) == NFPROTO_IPV6 ? AF_INET6 : AF_INET;
}

static u32 nfo_trace_mark(const struct nf_conn *ct)
{
	u32 mark = 0;

	nfo_ct_mark(ct, &mark);
	return mark;
}

/* An address as one of IPv6, at any alignment: ipv6_addr_set_v4mapped(). */
static void nfo_trace_addr(bool v6, const void *from, u8 *to)
{
	if (v6) {
		memcpy(to, from, sizeof(struct in6_addr));
		return;
	}
	memset(to, 0, 10);
	memset(to + 10, 0xff, 2);
	memcpy(to + 12, from, sizeof(struct in_addr));
}

static void nfo_trace_tuple(const struct nf_conntrack_tuple *t, u8 *saddr, u8 *daddr, u16 *sport,
			    u16 *dport)
{
	bool v6 = t->src.l3num == NFPROTO_IPV6;

	nfo_trace_addr(v6, &t->src.u3, saddr);
	nfo_trace_addr(v6, &t->dst.u3, daddr);
	*sport = ntohs(t->src.u.all);
	*dport = ntohs(t->dst.u.all);
}

/* What the innermost headers of a packet say. Returns the protocol. */
static u8 nfo_trace_packet(const struct sk_buff *skb, u16 *family, u8 *saddr, u8 *daddr, u16 *sport,
			   u16 *dport)
{
	struct flow_keys keys;

	*family = AF_UNSPEC;
	memset(saddr, 0, sizeof(struct in6_addr));
	memset(daddr, 0, sizeof(struct in6_addr));
	skb_flow_dissect_flow_keys(skb, &keys, 0);
	switch (keys.control.addr_type) {
	case FLOW_DISSECTOR_KEY_IPV4_ADDRS:
		*family = AF_INET;
		nfo_trace_addr(false, &keys.addrs.v4addrs.src, saddr);
		nfo_trace_addr(false, &keys.addrs.v4addrs.dst, daddr);
		break;
	case FLOW_DISSECTOR_KEY_IPV6_ADDRS:
		*family = AF_INET6;
		nfo_trace_addr(true, &keys.addrs.v6addrs.src, saddr);
		nfo_trace_addr(true, &keys.addrs.v6addrs.dst, daddr);
		break;
	}
	*sport = ntohs(keys.ports.src);
	*dport = ntohs(keys.ports.dst);
	return keys.basic.ip_proto;
}

/* Empty if the device is gone. */
static void nfo_trace_ifname(struct net *net, u32 ifindex, char *name)
{
	const struct net_device *dev;

	rcu_read_lock();
	dev = dev_get_by_index_rcu(net, ifindex);
	strscpy_pad(name, dev ? dev->name : "", IFNAMSIZ);
	rcu_read_unlock();
}

static void nfo_trace_acct(const struct nf_conn *ct, enum ip_conntrack_dir dir, u64 *packets,
			   u64 *bytes)
{
	struct nf_conn_acct *acct = nf_conn_acct_find(ct);

	*packets = acct ? atomic64_read(&acct->counter[dir].packets) : 0;
	*bytes = acct ? atomic64_read(&acct->counter[dir].bytes) : 0;
}

#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include "trace.h"
