/* SPDX-License-Identifier: GPL-2.0 */
/* A NIC with a flow table, for tests: see main.c. */
#ifndef _MOCK_HW_H
#define _MOCK_HW_H

#include <linux/in6.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/spinlock.h>
#include <net/flow_offload.h>

#define MAX_MANGLES	16
#define MAX_PUSHES	3

struct mock_key {
	int		ifindex;
	u8		l3proto;	/* 4 or 6 */
	u8		l4proto;
	u16		vlan;		/* identifier of the outer tag, 0: none */
	u16		cvlan;
	__be16		sport;
	__be16		dport;
	u16		pad;
	struct in6_addr	src;
	struct in6_addr	dst;
};

struct mock_mangle {
	u8	htype;
	bool	add;
	u32	offset;
	u32	mask;
	u32	val;
};

struct mock_push {
	__be16	proto;
	u16	id;
};

struct mock_rule {
	struct hlist_node	node;		/* by key, for packets */
	struct hlist_node	cookie_node;
	struct rcu_head		rcu;
	struct mock_key		key;
	struct mock_port	*port;
	unsigned long		cookie;
	u64			used_keys;
	struct mock_mangle	mangle[MAX_MANGLES];
	struct mock_push	push[MAX_PUSHES];
	u32			out;
	u16			csum_flags;
	__be16			tcp_mask;
	u8			mangles;
	u8			pushes;
	u8			pops;
	bool			deaf;		/* forwards nothing */
	bool			bound;
	u32			came;		/* packets before that, in the second that began at... */
	unsigned long		since;
	bool			lost;		/* the table was reset, the driver has not noticed */
	u64			pkts;
	u64			bytes;
	u64			told_pkts;
	u64			told_bytes;
	unsigned long		lastused;
	char			text[640];
};

struct mock_port {
	struct list_head	list;
	struct net_device	*dev;
	struct net		*net;
	void			*data;
	struct nf_hook_ops	ops;
	int			ifindex;
};

/* main.c */
extern char mock_profile[8];
extern unsigned int mock_bind_rate;
extern spinlock_t mock_count_lock;	/* the counters of rules, and this one */
extern u64 mock_forwarded;
/* The engine of the SoC, in three disguises. */
static inline bool mock_is(const char *profile)
{
	return !strcmp(mock_profile, profile);
}

static inline bool mock_is_ppe(void)
{
	return mock_is("mtk") || mock_is("airoha") || mock_is("npu");
}

struct mock_rule *mock_find(const struct mock_key *key);

/* rules.c */
int mock_match(struct mock_port *port, struct flow_cls_offload *f, struct mock_rule *r);
int mock_actions(struct flow_cls_offload *f, struct mock_rule *r);
void mock_describe(struct mock_port *port, struct flow_cls_offload *f, struct mock_rule *r);
int mock_refuse(struct netlink_ext_ack *extack, const char *msg);
#define REFUSE(extack, msg) ({ static const char __m[] = "mock_hw: " msg; mock_refuse(extack, __m); })

/* frames.c */
unsigned int mock_hook(void *priv, struct sk_buff *skb, const struct nf_hook_state *state);

#endif
