// SPDX-License-Identifier: GPL-2.0
/*
 * A NIC with a flow table, played on devices that have none: it takes the flow rules of a
 * flowtable with "flags offload" through flow_indr_dev_register(), as mlx5 does for the devices
 * above its own, and executes them on real frames, in a netfilter hook at ingress that comes before
 * every flowtable's. Which rules it takes is that of mlx5_core or of the MediaTek PPE driver.
 *
 * Parameters, all but the first two at any time:
 *   profile       mlx5, mtk or any: which rules are taken
 *   ports         names of devices, comma-separated; empty: every veth
 *   exclusive     a device serves one flowtable at a time, as those of mlx5 do
 *   capacity      rules that fit
 *   latency_us    time that a command takes
 *   fail_bind, fail_add, fail_del, fail_stats
 *                 errno that the next fail_count of these commands return
 *   refuse_in     rules for packets that come in by this device are refused
 * Debugfs, in mock_hw/: rules (what is in the table), stats, reset (write: the table is lost).
 */
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/etherdevice.h>
#include <linux/hashtable.h>
#include <linux/if_vlan.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/jhash.h>
#include <linux/module.h>
#include <linux/netfilter.h>
#include <linux/netfilter_netdev.h>
#include <linux/ppp_defs.h>
#include <linux/if_pppox.h>
#include <linux/seq_file.h>
#include <linux/tc_act/tc_csum.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <net/checksum.h>
#include <net/flow_offload.h>
#include <net/ip.h>
#include <net/ip6_checksum.h>
#include <net/net_namespace.h>

#define MAX_MANGLES	16
#define MAX_PUSHES	3

static char profile[8] = "mlx5";
module_param_string(profile, profile, sizeof(profile), 0444);
static char ports[64];
module_param_string(ports, ports, sizeof(ports), 0444);
static char refuse_in[IFNAMSIZ];
module_param_string(refuse_in, refuse_in, sizeof(refuse_in), 0644);
static bool exclusive;
module_param(exclusive, bool, 0644);
static unsigned int capacity = 65536;
module_param(capacity, uint, 0644);
static unsigned int latency_us;
module_param(latency_us, uint, 0644);
static int fail_bind, fail_add, fail_del, fail_stats, fail_count;
module_param(fail_bind, int, 0644);
module_param(fail_add, int, 0644);
module_param(fail_del, int, 0644);
module_param(fail_stats, int, 0644);
module_param(fail_count, int, 0644);

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

static DEFINE_MUTEX(mock_lock);
static DEFINE_HASHTABLE(mock_rules, 12);
static DEFINE_HASHTABLE(mock_cookies, 12);
static LIST_HEAD(mock_ports);
static LIST_HEAD(mock_block_cbs);
static struct dentry *mock_dir;
static DEFINE_SPINLOCK(mock_count_lock);
static unsigned int mock_used, mock_max_used;
static u64 mock_adds, mock_dels, mock_stats_asked, mock_refused, mock_full, mock_forwarded, mock_dup, mock_unknown;

/* A failure was asked for. */
static int mock_fail(int err)
{
	if (!err || !fail_count)
		return 0;
	if (fail_count > 0)
		fail_count--;
	return -err;
}

static u32 mock_hash(const struct mock_key *key)
{
	return jhash(key, sizeof(*key), 0);
}

static struct mock_rule *mock_find(const struct mock_key *key)
{
	struct mock_rule *r;

	hash_for_each_possible_rcu(mock_rules, r, node, mock_hash(key))
		if (!memcmp(&r->key, key, sizeof(*key)))
			return r;
	return NULL;
}

static struct mock_rule *mock_find_cookie(unsigned long cookie)
{
	struct mock_rule *r;

	hash_for_each_possible(mock_cookies, r, cookie_node, cookie)
		if (r->cookie == cookie)
			return r;
	return NULL;
}

/* Rules */

#define KEY(name)	BIT_ULL(FLOW_DISSECTOR_KEY_##name)

static int refuse(struct netlink_ext_ack *extack, const char *msg)
{
	if (extack)
		extack->_msg = msg;
	return -EOPNOTSUPP;
}
#define REFUSE(extack, msg) ({ static const char __m[] = "mock_hw: " msg; refuse(extack, __m); })

/* What a driver looks at before the actions. */
static int mock_match(struct mock_port *port, struct flow_cls_offload *f, struct mock_rule *r)
{
	struct flow_rule *rule = flow_cls_offload_flow_rule(f);
	struct netlink_ext_ack *extack = f->common.extack;
	u64 used = rule->match.dissector->used_keys;
	struct flow_match_control control;
	struct flow_match_basic basic;
	struct flow_match_meta meta;
	bool mtk = !strcmp(profile, "mtk");

	r->used_keys = used;
	if (!mtk && used & ~(KEY(META) | KEY(CONTROL) | KEY(BASIC) | KEY(ETH_ADDRS) | KEY(VLAN) |
			     KEY(CVLAN) | KEY(IPV4_ADDRS) | KEY(IPV6_ADDRS) | KEY(PORTS) | KEY(TCP) |
			     KEY(IP) | KEY(CT) | KEY(ICMP) | KEY(MPLS) | KEY(ENC_KEYID) |
			     KEY(ENC_IPV4_ADDRS) | KEY(ENC_IPV6_ADDRS) | KEY(ENC_PORTS) |
			     KEY(ENC_CONTROL) | KEY(ENC_IP) | KEY(ENC_OPTS)))
		return REFUSE(extack, "Unsupported key");
	if (!(used & KEY(META)) || !(used & KEY(CONTROL)) || !(used & KEY(BASIC)))
		return REFUSE(extack, "No meta, control or basic key");

	flow_rule_match_meta(rule, &meta);
	if (meta.mask->ingress_ifindex != 0xffffffff)
		return REFUSE(extack, "Unsupported ingress ifindex mask");
	if (meta.key->ingress_ifindex != port->ifindex)
		return REFUSE(extack, "Can't match on ingress filter port");
	flow_rule_match_control(rule, &control);
	if (flow_rule_has_control_flags(control.mask->flags, extack))
		return -EOPNOTSUPP;
	flow_rule_match_basic(rule, &basic);

	r->key.ifindex = meta.key->ingress_ifindex;
	r->key.l4proto = basic.key->ip_proto;
	switch (control.key->addr_type) {
	case FLOW_DISSECTOR_KEY_IPV4_ADDRS: {
		struct flow_match_ipv4_addrs a;

		flow_rule_match_ipv4_addrs(rule, &a);
		if (a.mask->src != 0xffffffff || a.mask->dst != 0xffffffff || basic.key->n_proto != htons(ETH_P_IP))
			return -EINVAL;
		r->key.l3proto = 4;
		r->key.src.s6_addr32[0] = a.key->src;
		r->key.dst.s6_addr32[0] = a.key->dst;
		break;
	}
	case FLOW_DISSECTOR_KEY_IPV6_ADDRS: {
		struct flow_match_ipv6_addrs a;

		flow_rule_match_ipv6_addrs(rule, &a);
		if (basic.key->n_proto != htons(ETH_P_IPV6))
			return -EINVAL;
		r->key.l3proto = 6;
		r->key.src = a.key->src;
		r->key.dst = a.key->dst;
		break;
	}
	default:
		return REFUSE(extack, "Unsupported addresses");
	}
	if (used & KEY(PORTS)) {
		struct flow_match_ports p;

		flow_rule_match_ports(rule, &p);
		r->key.sport = p.key->src;
		r->key.dport = p.key->dst;
	} else if (mtk) {
		return REFUSE(extack, "No ports");
	}
	if (used & KEY(TCP)) {
		struct flow_match_tcp t;

		flow_rule_match_tcp(rule, &t);
		if (t.key->flags)
			return REFUSE(extack, "Unsupported TCP flags");
		r->tcp_mask = t.mask->flags;
	}
	if (mtk) {
		/* Not looked at by the driver: the engine learns it from the first packets. */
		r->tcp_mask = cpu_to_be16(5);
	}
	if (used & KEY(VLAN)) {
		struct flow_match_vlan v;

		flow_rule_match_vlan(rule, &v);
		r->key.vlan = v.key->vlan_id;
	}
	if (used & KEY(CVLAN)) {
		struct flow_match_vlan v;

		flow_rule_match_cvlan(rule, &v);
		r->key.cvlan = v.key->vlan_id;
	}
	return 0;
}

static int mock_add_mangle(struct mock_rule *r, const struct flow_action_entry *act, struct netlink_ext_ack *extack)
{
	int i;

	if (r->mangles == MAX_MANGLES)
		return REFUSE(extack, "Too many header rewrites");
	for (i = 0; i < r->mangles; i++)
		if (r->mangle[i].htype == act->mangle.htype && r->mangle[i].offset == act->mangle.offset &&
		    ~r->mangle[i].mask & ~act->mangle.mask)
			return REFUSE(extack, "Trying to set same value twice");
	r->mangle[r->mangles++] = (struct mock_mangle) {
		.htype = act->mangle.htype,
		.add = act->id == FLOW_ACTION_ADD,
		.offset = act->mangle.offset,
		.mask = act->mangle.mask,
		.val = act->mangle.val,
	};
	return 0;
}

static int mock_actions(struct flow_cls_offload *f, struct mock_rule *r)
{
	struct flow_rule *rule = flow_cls_offload_flow_rule(f);
	struct netlink_ext_ack *extack = f->common.extack;
	bool mtk = !strcmp(profile, "mtk"), mlx5 = !strcmp(profile, "mlx5");
	const struct flow_action_entry *act;
	int i, err, vlans = 0, pppoe = 0;

	if (!flow_action_has_entries(&rule->action))
		return -EINVAL;
	flow_action_for_each(i, act, &rule->action) {
		switch (act->id) {
		case FLOW_ACTION_ADD:
			if (mtk)
				return REFUSE(extack, "Unsupported action");
			fallthrough;
		case FLOW_ACTION_MANGLE:
			if (mtk && (act->mangle.htype == FLOW_ACT_MANGLE_HDR_TYPE_IP6 ||
				    (act->mangle.htype == FLOW_ACT_MANGLE_HDR_TYPE_IP4 &&
				     act->mangle.offset != 12 && act->mangle.offset != 16)))
				return REFUSE(extack, "Unsupported rewrite");
			err = mock_add_mangle(r, act, extack);
			if (err)
				return err;
			break;
		case FLOW_ACTION_CSUM:
			if (mlx5 && !r->mangles)
				return REFUSE(extack, "csum action is only supported with pedit");
			if (mlx5 && act->csum_flags & ~(TCA_CSUM_UPDATE_FLAG_IPV4HDR | TCA_CSUM_UPDATE_FLAG_TCP |
							TCA_CSUM_UPDATE_FLAG_UDP))
				return REFUSE(extack, "can't offload TC csum action for some header/s");
			r->csum_flags = act->csum_flags;
			break;
		case FLOW_ACTION_VLAN_POP:
			r->pops++;
			break;
		case FLOW_ACTION_VLAN_PUSH:
			if (act->vlan.proto != htons(ETH_P_8021Q) && (mtk || act->vlan.proto != htons(ETH_P_8021AD)))
				return REFUSE(extack, "Unsupported VLAN protocol");
			if (vlans + pppoe == 2)
				return REFUSE(extack, "Total vlan stack exceeds");
			vlans++;
			r->push[r->pushes++] = (struct mock_push) { act->vlan.proto, act->vlan.vid | act->vlan.prio << 13 };
			break;
		case FLOW_ACTION_PPPOE_PUSH:
			if (mlx5)
				return REFUSE(extack, "The offload action is not supported");
			if (pppoe || vlans == 2)
				return REFUSE(extack, "Too many PPPoE headers");
			pppoe++;
			r->push[r->pushes++] = (struct mock_push) { htons(ETH_P_PPP_SES), act->pppoe.sid };
			break;
		case FLOW_ACTION_REDIRECT:
			r->out = act->dev->ifindex;
			break;
		default:
			return REFUSE(extack, "The offload action is not supported");
		}
		if (r->pushes == MAX_PUSHES)
			return REFUSE(extack, "Too many headers to push");
	}
	if (!r->out)
		return REFUSE(extack, "No redirect");
	return 0;
}

/* The rule as it was given, for comparing what two flowtables give. */
static void mock_describe(struct mock_port *port, struct flow_cls_offload *f, struct mock_rule *r)
{
	struct flow_rule *rule = flow_cls_offload_flow_rule(f);
	const struct flow_action_entry *act;
	size_t size = sizeof(r->text);
	char *p = r->text;
	int i, n;

	n = scnprintf(p, size, "in %s", port->dev->name);
	if (r->key.l3proto == 4)
		n += scnprintf(p + n, size - n, " %pI4:%u>%pI4:%u", &r->key.src, ntohs(r->key.sport), &r->key.dst, ntohs(r->key.dport));
	else
		n += scnprintf(p + n, size - n, " %pI6c:%u>%pI6c:%u", &r->key.src, ntohs(r->key.sport), &r->key.dst, ntohs(r->key.dport));
	n += scnprintf(p + n, size - n, " proto %u keys %llx tcp %x vlan %u cvlan %u prio %u chain %u :", r->key.l4proto, r->used_keys,
		       be16_to_cpu(r->tcp_mask), r->key.vlan, r->key.cvlan, f->common.prio, f->common.chain_index);
	flow_action_for_each(i, act, &rule->action) {
		switch (act->id) {
		case FLOW_ACTION_MANGLE:
		case FLOW_ACTION_ADD:
			n += scnprintf(p + n, size - n, " %s(%u+%u=%08x/%08x)", act->id == FLOW_ACTION_ADD ? "add" : "set",
				       act->mangle.htype, act->mangle.offset, be32_to_cpu((__force __be32)act->mangle.val),
				       be32_to_cpu((__force __be32)act->mangle.mask));
			break;
		case FLOW_ACTION_CSUM:
			n += scnprintf(p + n, size - n, " csum(%x)", act->csum_flags);
			break;
		case FLOW_ACTION_VLAN_POP:
			n += scnprintf(p + n, size - n, " vlan_pop");
			break;
		case FLOW_ACTION_VLAN_PUSH:
			n += scnprintf(p + n, size - n, " vlan_push(%04x %u prio %u)", ntohs(act->vlan.proto), act->vlan.vid, act->vlan.prio);
			break;
		case FLOW_ACTION_PPPOE_PUSH:
			n += scnprintf(p + n, size - n, " pppoe_push(%u)", act->pppoe.sid);
			break;
		case FLOW_ACTION_REDIRECT:
			n += scnprintf(p + n, size - n, " redirect(%s)", act->dev->name);
			break;
		default:
			n += scnprintf(p + n, size - n, " action%u", act->id);
		}
	}
}

static int mock_replace(struct mock_port *port, struct flow_cls_offload *f)
{
	struct mock_rule *r;
	int err;

	err = mock_fail(fail_add);
	if (err) {
		mock_refused++;
		return err;
	}
	if (refuse_in[0] && !strcmp(refuse_in, port->dev->name)) {
		mock_refused++;
		return REFUSE(f->common.extack, "Not from this port");
	}
	if (f->common.chain_index || f->common.prio >= 16) {
		mock_refused++;
		return REFUSE(f->common.extack, "Unsupported chain or priority");
	}
	if (mock_find_cookie(f->cookie)) {
		mock_dup++;
		return -EEXIST;
	}
	r = kzalloc(sizeof(*r), GFP_KERNEL);
	if (!r)
		return -ENOMEM;
	err = mock_match(port, f, r);
	if (!err)
		err = mock_actions(f, r);
	if (err) {
		mock_refused++;
		goto free;
	}
	mock_describe(port, f, r);
	if (mock_used >= capacity) {
		mock_full++;
		if (f->common.extack)
			f->common.extack->_msg = "mock_hw: The table is full";
		err = -ENOSPC;
		goto free;
	}
	rcu_read_lock();
	err = mock_find(&r->key) ? -EEXIST : 0;
	rcu_read_unlock();
	if (err) {
		mock_dup++;
		goto free;
	}
	r->cookie = f->cookie;
	r->port = port;
	r->lastused = jiffies;
	hash_add(mock_cookies, &r->cookie_node, r->cookie);
	hash_add_rcu(mock_rules, &r->node, mock_hash(&r->key));
	mock_used++;
	mock_max_used = max(mock_used, mock_max_used);
	mock_adds++;
	return 0;
free:
	kfree(r);
	return err;
}

static void mock_forget(struct mock_rule *r)
{
	if (!r->lost) {
		hash_del_rcu(&r->node);
		mock_used--;
	}
	hash_del(&r->cookie_node);
	kfree_rcu(r, rcu);
}

static int mock_command(struct mock_port *port, enum tc_setup_type type, void *type_data)
{
	struct flow_cls_offload *f = type_data;
	struct mock_rule *r;
	int err = 0;

	if (type != TC_SETUP_CLSFLOWER)
		return -EOPNOTSUPP;
	if (latency_us)
		fsleep(latency_us);
	mutex_lock(&mock_lock);
	r = mock_find_cookie(f->cookie);
	switch (f->command) {
	case FLOW_CLS_REPLACE:
		err = mock_replace(port, f);
		break;
	case FLOW_CLS_DESTROY:
		err = mock_fail(fail_del);
		if (!r || r->port != port) {
			mock_unknown++;
			err = -ENOENT;
			break;
		}
		/* Drivers say that it failed, and forget it nevertheless. */
		mock_forget(r);
		mock_dels++;
		break;
	case FLOW_CLS_STATS:
		err = mock_fail(fail_stats);
		if (err)
			break;
		if (!r || r->lost || r->port != port) {
			err = -ENOENT;
			break;
		}
		mock_stats_asked++;
		spin_lock_bh(&mock_count_lock);
		flow_stats_update(&f->stats, r->bytes - r->told_bytes, r->pkts - r->told_pkts, 0, r->lastused,
				  FLOW_ACTION_HW_STATS_DELAYED);
		r->told_bytes = r->bytes;
		r->told_pkts = r->pkts;
		spin_unlock_bh(&mock_count_lock);
		break;
	default:
		err = -EOPNOTSUPP;
	}
	mutex_unlock(&mock_lock);
	return err;
}

/* Drivers are known by these names. */
static int mlx5e_rep_setup_ft_cb(enum tc_setup_type type, void *type_data, void *cb_priv)
{
	return mock_command(cb_priv, type, type_data);
}

static int mtk_eth_setup_tc_block_cb(enum tc_setup_type type, void *type_data, void *cb_priv)
{
	return mock_command(cb_priv, type, type_data);
}

static int mock_setup_block_cb(enum tc_setup_type type, void *type_data, void *cb_priv)
{
	return mock_command(cb_priv, type, type_data);
}

static flow_setup_cb_t *mock_cb(void)
{
	if (!strcmp(profile, "mlx5"))
		return mlx5e_rep_setup_ft_cb;
	if (!strcmp(profile, "mtk"))
		return mtk_eth_setup_tc_block_cb;
	return mock_setup_block_cb;
}

/* Frames */

static bool mock_set_word(struct sk_buff *skb, u8 *hdr, const struct mock_mangle *m, __be32 *old, __be32 *new)
{
	u32 word, sum;

	memcpy(&word, hdr + m->offset, 4);
	memcpy(old, &word, 4);
	if (m->add) {
		/* Only the masked bytes, each by itself. */
		u8 *w = (u8 *)&word, *v = (u8 *)&m->val, *k = (u8 *)&m->mask;
		int i;

		for (i = 0; i < 4; i++)
			if (k[i] != 0xff)
				w[i] += v[i];
	} else {
		sum = (word & m->mask) | (m->val & ~m->mask);
		word = sum;
	}
	memcpy(new, &word, 4);
	memcpy(hdr + m->offset, &word, 4);
	return *old != *new;
}

static void mock_fix_l4(struct sk_buff *skb, u8 proto, u8 *l4, __be32 old, __be32 new, bool pseudo)
{
	if (proto == IPPROTO_TCP) {
		inet_proto_csum_replace4(&((struct tcphdr *)l4)->check, skb, old, new, pseudo);
	} else if (proto == IPPROTO_UDP) {
		struct udphdr *uh = (struct udphdr *)l4;

		if (uh->check || skb->ip_summed == CHECKSUM_PARTIAL) {
			inet_proto_csum_replace4(&uh->check, skb, old, new, pseudo);
			if (!uh->check)
				uh->check = CSUM_MANGLED_0;
		}
	}
}

static void mock_ttl(u8 *l3, u8 l3proto)
{
	if (l3proto == 4)
		ip_decrease_ttl((struct iphdr *)l3);
	else
		((struct ipv6hdr *)l3)->hop_limit--;
}

/* Parses a packet up to its ports. What lies around it is pulled by the caller later. */
static int mock_parse(struct sk_buff *skb, struct mock_key *key, u16 *flags)
{
	__be16 proto = skb->protocol;
	unsigned int off = 0, l4;

	memset(key, 0, sizeof(*key));
	key->ifindex = skb->dev->ifindex;
	if (skb_vlan_tag_present(skb))
		key->vlan = skb_vlan_tag_get_id(skb);
	if (proto == htons(ETH_P_8021Q)) {
		struct vlan_hdr *vh;

		if (!pskb_may_pull(skb, VLAN_HLEN))
			return -1;
		vh = (struct vlan_hdr *)skb->data;
		if (key->vlan)
			key->cvlan = ntohs(vh->h_vlan_TCI) & VLAN_VID_MASK;
		else
			key->vlan = ntohs(vh->h_vlan_TCI) & VLAN_VID_MASK;
		proto = vh->h_vlan_encapsulated_proto;
		off = VLAN_HLEN;
	}
	if (proto == htons(ETH_P_PPP_SES)) {
		if (!pskb_may_pull(skb, off + PPPOE_SES_HLEN))
			return -1;
		switch (get_unaligned_be16(skb->data + off + 6)) {
		case PPP_IP:
			proto = htons(ETH_P_IP);
			break;
		case PPP_IPV6:
			proto = htons(ETH_P_IPV6);
			break;
		default:
			return -1;
		}
		off += PPPOE_SES_HLEN;
	}
	if (proto == htons(ETH_P_IP)) {
		struct iphdr *ih;

		if (!pskb_may_pull(skb, off + sizeof(*ih) + 20) && !pskb_may_pull(skb, off + sizeof(*ih) + 8))
			return -1;
		ih = (struct iphdr *)(skb->data + off);
		if (ih->ihl != 5 || ip_is_fragment(ih) || ih->ttl <= 1)
			return -1;
		key->l3proto = 4;
		key->l4proto = ih->protocol;
		key->src.s6_addr32[0] = ih->saddr;
		key->dst.s6_addr32[0] = ih->daddr;
		l4 = off + sizeof(*ih);
	} else if (proto == htons(ETH_P_IPV6)) {
		struct ipv6hdr *ih;

		if (!pskb_may_pull(skb, off + sizeof(*ih) + 20) && !pskb_may_pull(skb, off + sizeof(*ih) + 8))
			return -1;
		ih = (struct ipv6hdr *)(skb->data + off);
		if (ih->hop_limit <= 1)
			return -1;
		key->l3proto = 6;
		key->l4proto = ih->nexthdr;
		key->src = ih->saddr;
		key->dst = ih->daddr;
		l4 = off + sizeof(*ih);
	} else {
		return -1;
	}
	*flags = 0;
	if (key->l4proto == IPPROTO_TCP) {
		if (!pskb_may_pull(skb, l4 + sizeof(struct tcphdr)))
			return -1;
		*flags = skb->data[l4 + 13];
	} else if (key->l4proto != IPPROTO_UDP) {
		return -1;
	}
	memcpy(&key->sport, skb->data + l4, 2);
	memcpy(&key->dport, skb->data + l4 + 2, 2);
	return off;
}

static unsigned int mock_hook(void *priv, struct sk_buff *skb, const struct nf_hook_state *state)
{
	bool mtk = !strcmp(profile, "mtk");
	struct net_device *out;
	struct mock_rule *r;
	struct mock_key key;
	struct ethhdr eth;
	__be16 proto;
	u8 *l3, *l4;
	u16 flags;
	int off, i;
	u32 len;

	if (skb_is_gso(skb) || skb->pkt_type == PACKET_BROADCAST || skb->pkt_type == PACKET_MULTICAST)
		return NF_ACCEPT;
	off = mock_parse(skb, &key, &flags);
	if (off < 0)
		return NF_ACCEPT;
	r = mock_find(&key);
	if (!r || r->lost)
		return NF_ACCEPT;
	if (key.l4proto == IPPROTO_TCP && (flags & (be16_to_cpu(r->tcp_mask) | 2)))
		return NF_ACCEPT;
	out = dev_get_by_index_rcu(state->net, r->out);
	if (!out || !(out->flags & IFF_UP))
		return NF_ACCEPT;
	/* A packet that does not fit is for software to answer. */
	if (skb->len - off > out->mtu)
		return NF_ACCEPT;
	eth = *eth_hdr(skb);
	if (skb->ip_summed == CHECKSUM_PARTIAL && skb_checksum_help(skb))
		return NF_ACCEPT;
	skb->ip_summed = CHECKSUM_NONE;
	if (skb_ensure_writable(skb, min(skb->len, off + 60u)) ||
	    skb_cow_head(skb, LL_RESERVED_SPACE(out) + 32))
		return NF_ACCEPT;

	__vlan_hwaccel_clear_tag(skb);
	skb_pull(skb, off);
	skb_reset_network_header(skb);
	l3 = skb->data;
	/* Padding of short frames is not forwarded. */
	len = r->key.l3proto == 4 ? ntohs(((struct iphdr *)l3)->tot_len) :
				    ntohs(((struct ipv6hdr *)l3)->payload_len) + sizeof(struct ipv6hdr);
	if (len < skb->len && pskb_trim(skb, len))
		goto drop;
	l3 = skb->data;
	l4 = l3 + (r->key.l3proto == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));

	for (i = 0; i < r->mangles; i++) {
		const struct mock_mangle *m = &r->mangle[i];
		__be32 old, new;

		switch (m->htype) {
		case FLOW_ACT_MANGLE_HDR_TYPE_ETH:
			if (m->offset <= 10)
				mock_set_word(skb, (u8 *)&eth, m, &old, &new);
			break;
		case FLOW_ACT_MANGLE_HDR_TYPE_IP4:
			if (mock_set_word(skb, l3, m, &old, &new)) {
				csum_replace4(&((struct iphdr *)l3)->check, old, new);
				if (m->offset >= 12)
					mock_fix_l4(skb, r->key.l4proto, l4, old, new, true);
			}
			break;
		case FLOW_ACT_MANGLE_HDR_TYPE_IP6:
			if (mock_set_word(skb, l3, m, &old, &new) && m->offset >= 8)
				mock_fix_l4(skb, r->key.l4proto, l4, old, new, true);
			break;
		default:
			if (mock_set_word(skb, l4, m, &old, &new))
				mock_fix_l4(skb, r->key.l4proto, l4, old, new, false);
		}
	}
	if (mtk)
		mock_ttl(l3, r->key.l3proto);

	proto = r->key.l3proto == 4 ? htons(ETH_P_IP) : htons(ETH_P_IPV6);
	/* tc pushes around what is there; the engine writes the first one outermost. */
	for (i = 0; i < r->pushes; i++) {
		const struct mock_push *p = &r->push[mtk ? r->pushes - 1 - i : i];

		if (p->proto == htons(ETH_P_PPP_SES)) {
			struct pppoe_hdr *ph = skb_push(skb, PPPOE_SES_HLEN);

			ph->ver = 1;
			ph->type = 1;
			ph->code = 0;
			ph->sid = htons(p->id);
			ph->length = htons(skb->len - sizeof(*ph));
			put_unaligned_be16(proto == htons(ETH_P_IP) ? PPP_IP : PPP_IPV6, (u8 *)(ph + 1));
		} else {
			struct vlan_hdr *vh = skb_push(skb, VLAN_HLEN);

			vh->h_vlan_TCI = htons(p->id);
			vh->h_vlan_encapsulated_proto = proto;
		}
		proto = p->proto;
	}
	eth.h_proto = proto;
	skb->protocol = proto;
	memcpy(skb_push(skb, ETH_HLEN), &eth, ETH_HLEN);
	skb_reset_mac_header(skb);

	spin_lock(&mock_count_lock);
	r->pkts++;
	r->bytes += len;
	r->lastused = jiffies;
	mock_forwarded++;
	spin_unlock(&mock_count_lock);

	skb->dev = out;
	skb_clear_tstamp(skb);
	dev_queue_xmit(skb);
	return NF_STOLEN;
drop:
	kfree_skb(skb);
	return NF_STOLEN;
}

/* Binding */

static bool mock_is_port(const struct net_device *dev)
{
	size_t len = strlen(dev->name);
	const char *p = ports;

	if (!ports[0])
		return dev->rtnl_link_ops && !strcmp(dev->rtnl_link_ops->kind, "veth");
	for (; *p; p = strchrnul(p, ','), p += *p == ',')
		if (!strncmp(p, dev->name, len) && (p[len] == ',' || !p[len]))
			return true;
	return false;
}

static void mock_port_release(void *priv)
{
	struct mock_port *port = priv;
	struct mock_rule *r;
	struct hlist_node *next;
	int i;

	nf_unregister_net_hook(port->net, &port->ops);
	mutex_lock(&mock_lock);
	/* A flowtable that leaves rules behind is at fault; the tests look at this counter. */
	hash_for_each_safe(mock_cookies, i, next, r, cookie_node)
		if (r->port == port) {
			pr_warn("mock_hw: left behind: %s\n", r->text);
			mock_unknown++;
			mock_forget(r);
		}
	list_del(&port->list);
	mutex_unlock(&mock_lock);
	kfree(port);
}

static struct mock_port *mock_port_find(const struct net_device *dev, const void *data)
{
	struct mock_port *port;

	list_for_each_entry(port, &mock_ports, list)
		if (port->dev == dev && port->data == data)
			return port;
	return NULL;
}

static bool mock_dev_bound(const struct net_device *dev)
{
	struct mock_port *port;

	list_for_each_entry(port, &mock_ports, list)
		if (port->dev == dev)
			return true;
	return false;
}

static int mock_bind(struct net_device *dev, struct Qdisc *sch, void *cb_priv, struct flow_block_offload *bo, void *data,
		     void (*cleanup)(struct flow_block_cb *block_cb))
{
	struct flow_block_cb *block_cb;
	struct mock_port *port;
	int err;

	mutex_lock(&mock_lock);
	err = mock_fail(fail_bind);
	if (!err && !mock_is_port(dev))
		err = -EOPNOTSUPP;
	if (!err && (mock_port_find(dev, data) || (exclusive && mock_dev_bound(dev))))
		err = -EEXIST;
	mutex_unlock(&mock_lock);
	if (err)
		return err;
	port = kzalloc(sizeof(*port), GFP_KERNEL);
	if (!port)
		return -ENOMEM;
	port->dev = dev;
	port->net = dev_net(dev);
	port->data = data;
	port->ifindex = dev->ifindex;
	port->ops = (struct nf_hook_ops) {
		.hook = mock_hook,
		.dev = dev,
		.pf = NFPROTO_NETDEV,
		.hooknum = NF_NETDEV_INGRESS,
		.priority = INT_MIN,
	};
	err = nf_register_net_hook(port->net, &port->ops);
	if (err)
		goto free;
	block_cb = flow_indr_block_cb_alloc(mock_cb(), port, port, mock_port_release, bo, dev, sch, data, cb_priv, cleanup);
	if (IS_ERR(block_cb)) {
		err = PTR_ERR(block_cb);
		nf_unregister_net_hook(port->net, &port->ops);
		goto free;
	}
	mutex_lock(&mock_lock);
	list_add(&port->list, &mock_ports);
	list_add_tail(&block_cb->driver_list, &mock_block_cbs);
	mutex_unlock(&mock_lock);
	flow_block_cb_add(block_cb, bo);
	return 0;
free:
	kfree(port);
	return err;
}

static int mock_unbind(struct net_device *dev, struct flow_block_offload *bo, void *data)
{
	struct flow_block_cb *block_cb;
	struct mock_port *port;

	mutex_lock(&mock_lock);
	port = mock_port_find(dev, data);
	block_cb = port ? flow_block_cb_lookup(bo->block, mock_cb(), port) : NULL;
	if (block_cb)
		list_del(&block_cb->driver_list);
	mutex_unlock(&mock_lock);
	if (!block_cb)
		return -ENOENT;
	flow_indr_block_cb_remove(block_cb, bo);
	return 0;
}

static int mock_indr_cb(struct net_device *dev, struct Qdisc *sch, void *cb_priv, enum tc_setup_type type, void *type_data,
			void *data, void (*cleanup)(struct flow_block_cb *block_cb))
{
	struct flow_block_offload *bo = type_data;

	if (!dev || type != TC_SETUP_FT || !bo)
		return -EOPNOTSUPP;
	switch (bo->command) {
	case FLOW_BLOCK_BIND:
		return mock_bind(dev, sch, cb_priv, bo, data, cleanup);
	case FLOW_BLOCK_UNBIND:
		return mock_unbind(dev, bo, data);
	default:
		return -EOPNOTSUPP;
	}
}

/* Debugfs */

static int rules_show(struct seq_file *m, void *v)
{
	struct mock_rule *r;
	int i;

	mutex_lock(&mock_lock);
	hash_for_each(mock_cookies, i, r, cookie_node)
		if (!r->lost)
			seq_printf(m, "%s packets %llu bytes %llu\n", r->text, r->pkts, r->bytes);
	mutex_unlock(&mock_lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(rules);

static int stats_show(struct seq_file *m, void *v)
{
	struct mock_port *port;
	int n = 0;

	mutex_lock(&mock_lock);
	list_for_each_entry(port, &mock_ports, list)
		n++;
	seq_printf(m, "ports %d\nrules %u\nmax_rules %u\nadds %llu\ndels %llu\nstats %llu\nrefused %llu\nfull %llu\nforwarded %llu\nduplicates %llu\nunknown %llu\n",
		   n, mock_used, mock_max_used, mock_adds, mock_dels, mock_stats_asked, mock_refused, mock_full, mock_forwarded,
		   mock_dup, mock_unknown);
	mutex_unlock(&mock_lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

static ssize_t reset_write(struct file *file, const char __user *buf, size_t len, loff_t *ppos)
{
	struct mock_rule *r;
	int i;

	mutex_lock(&mock_lock);
	hash_for_each(mock_cookies, i, r, cookie_node)
		if (!r->lost) {
			hash_del_rcu(&r->node);
			mock_used--;
			r->lost = true;
		}
	mutex_unlock(&mock_lock);
	synchronize_rcu();
	return len;
}

static const struct file_operations reset_fops = {
	.owner = THIS_MODULE,
	.write = reset_write,
};

static int __init mock_hw_init(void)
{
	int err;

	err = flow_indr_dev_register(mock_indr_cb, NULL);
	if (err)
		return err;
	mock_dir = debugfs_create_dir("mock_hw", NULL);
	debugfs_create_file("rules", 0400, mock_dir, NULL, &rules_fops);
	debugfs_create_file("stats", 0400, mock_dir, NULL, &stats_fops);
	debugfs_create_file("reset", 0200, mock_dir, NULL, &reset_fops);
	return 0;
}

static void __exit mock_hw_exit(void)
{
	debugfs_remove(mock_dir);
	flow_indr_dev_unregister(mock_indr_cb, NULL, mock_port_release);
	rcu_barrier();
}

module_init(mock_hw_init);
module_exit(mock_hw_exit);

MODULE_DESCRIPTION("a NIC with a flow table, for tests");
MODULE_LICENSE("GPL");
