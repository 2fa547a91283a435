// SPDX-License-Identifier: GPL-2.0
/* Who may ask for the conntrack entry of a packet on its way out. */
#include <linux/if_arp.h>
#include <linux/netfilter.h>
#include <linux/netfilter_bridge.h>
#include <net/netfilter/nf_conntrack.h>
#include <net/netlink.h>
#include <net/pkt_cls.h>
#include <net/pkt_sched.h>
#include <net/sch_generic.h>
#include <net/tcx.h>

#include "helpers.h"

/* Classes of a device that are looked at; where there are more, somebody may well ask. */
#define CLASSES_MAX	16384
/* What a cake says of its options is a tenth of this. */
#define DUMP_SIZE	2048

#define NFO_ASKS_BOTH	(NFO_ASKS_IPV4 | NFO_ASKS_IPV6)

/* A look at one device and at those below it. */
struct look {
	/* Where a cake says its options; RTNL is held if there is one. */
	struct sk_buff	*dump;
	u32		classes;
	u8		asks;
};

struct look_at_classes {
	struct qdisc_walker	walker;
	struct look		*look;
};

/* Packets begin with chain 0. Blocks and chains are freed after a grace period. */
static bool has_filters(const struct tcf_block *block)
{
	const struct tcf_chain *chain = block ? READ_ONCE(block->chain0.chain) : NULL;

	return chain && rcu_access_pointer(chain->filter_chain);
}

static int look_at_class(struct Qdisc *q, unsigned long class, struct qdisc_walker *walker)
{
	struct look *look = container_of(walker, struct look_at_classes, walker)->look;
	const struct tcf_block *block = q->ops->cl_ops->tcf_block(q, class, NULL);

	if (!block)
		return -1; /* nor have the others */
	if (!look->classes || has_filters(block)) {
		look->asks |= NFO_ASKS_BOTH;
		return -1;
	}
	look->classes--;
	return 0;
}

/* The option nat is known by what cake tells userspace of itself. Of packets other than IPv4 it
 * does not ask.
 */
static bool cake_asks(struct Qdisc *q, struct sk_buff *dump)
{
	const struct nlattr *opts, *nat;

	skb_trim(dump, 0);
	if (!q->ops->dump || q->ops->dump(q, dump) < 0)
		return true;
	opts = nla_find((const struct nlattr *)dump->data, dump->len, TCA_OPTIONS);
	nat = opts ? nla_find_nested(opts, TCA_CAKE_NAT) : NULL;
	return !nat || nla_len(nat) < sizeof(u32) || nla_get_u32(nat);
}

static void look_at_qdisc(struct Qdisc *q, struct look *look)
{
	const struct Qdisc_class_ops *ops = q->ops->cl_ops;

	if ((look->asks & NFO_ASKS_BOTH) == NFO_ASKS_BOTH)
		return;
	if (ops && ops->tcf_block && has_filters(ops->tcf_block(q, 0, NULL))) {
		look->asks |= NFO_ASKS_BOTH;
		return;
	}
	/* cake, and cake_mq */
	if (!strncmp(q->ops->id, "cake", 4)) {
		if (!look->dump)
			look->asks |= NFO_ASKS_UNSURE;
		else if (cake_asks(q, look->dump))
			look->asks |= NFO_ASKS_IPV4;
		return;
	}
	/* Classes that are made by hand may have filters of their own. */
	if (ops && ops->tcf_block && ops->change && ops->walk) {
		struct look_at_classes w = { .walker.fn = look_at_class, .look = look };

		if (look->dump)
			ops->walk(q, &w.walker);
		else
			look->asks |= NFO_ASKS_UNSURE;
	}
}

static bool has_programs(const struct net_device *dev)
{
#ifdef CONFIG_NET_XGRESS
	struct bpf_mprog_entry *entry = rcu_dereference(dev->tcx_egress);

	/* Without filters there is an entry as soon as there is a clsact. */
	return entry && (rcu_access_pointer(tcx_entry(entry)->miniq) || bpf_mprog_total(entry));
#else
	return false;
#endif
}

/* Chains of the family netdev, at egress, cannot ask: nf_tables has no connections there. */
static bool has_chains(const struct net_device *dev)
{
#if IS_ENABLED(CONFIG_BRIDGE) && defined(CONFIG_NETFILTER_FAMILY_BRIDGE)
	static const u8 hooks[] = { NF_BR_LOCAL_OUT, NF_BR_POST_ROUTING };
	const struct nf_hook_entries *entries;
	struct nf_hook_ops **ops;
	unsigned int i, j;

	if (!netif_is_bridge_master(dev))
		return false;
	for (i = 0; i < ARRAY_SIZE(hooks); i++) {
		entries = rcu_dereference(dev_net(dev)->nf.hooks_bridge[hooks[i]]);
		if (!entries)
			continue;
		ops = nf_hook_entries_get_hook_ops(entries);
		for (j = 0; j < entries->num_hook_entries; j++) {
			if (READ_ONCE(ops[j])->hook_ops_type == NF_HOOK_OP_NF_TABLES)
				return true;
		}
	}
#endif
	return false;
}

static int look_at(struct net_device *dev, struct netdev_nested_priv *priv)
{
	struct look *look = priv->data;
	int i __maybe_unused;
	struct Qdisc *q;

	if (has_programs(dev) || has_chains(dev)) {
		look->asks |= NFO_ASKS_BOTH;
		return 1;
	}
#ifdef CONFIG_NET_SCHED
	/* All but the root. Each is freed a grace period after it was taken out. */
	hash_for_each_rcu(dev->qdisc_hash, i, q, hash)
		look_at_qdisc(q, look);
#endif
	q = rcu_dereference(dev->qdisc);
	if (q)
		look_at_qdisc(q, look);
	return 0;
}

/* What a PPP device stands on is none of its lower devices. */
static struct net_device *below_ppp(struct net_device *dev)
{
	struct net_device_path_ctx ctx = { .dev = dev };
	struct net_device_path path = {};

	if (dev->type != ARPHRD_PPP || !dev->netdev_ops->ndo_fill_forward_path ||
	    dev->netdev_ops->ndo_fill_forward_path(&ctx, &path) < 0 || ctx.dev == dev)
		return NULL;
	return (struct net_device *)ctx.dev;
}

static u8 asks_below(struct net_device *dev, struct sk_buff *dump)
{
	struct look look = { .dump = dump, .classes = CLASSES_MAX };
	struct netdev_nested_priv priv = { .data = &look };

	do {
		if (look_at(dev, &priv) || netdev_walk_all_lower_dev_rcu(dev, look_at, &priv))
			break;
		dev = below_ppp(dev);
	} while (dev);
	return look.asks;
}

/* Those of the next @n devices of a namespace, from number *@next on, that somebody asks at, or at
 * a device below. Returns how many there are; *@next is 0 after the last one. What needs RTNL is
 * unsure unless it is held.
 */
u32 nfo_askers(struct net *net, bool rtnl, u32 *next, struct nfo_asker *found, u32 n)
{
	struct sk_buff *dump = rtnl ? alloc_skb(DUMP_SIZE, GFP_KERNEL | __GFP_NOWARN) : NULL;
	unsigned long ifindex = *next;
	struct net_device *dev;
	u32 count = 0;
	u8 asks;

	*next = 0;
	rcu_read_lock();
	for_each_netdev_dump(net, dev, ifindex) {
		if (!n--) {
			*next = ifindex;
			break;
		}
		if (!(READ_ONCE(dev->flags) & IFF_UP))
			continue;
		asks = asks_below(dev, dump);
		if (!asks)
			continue;
		found[count].ifindex = ifindex;
		found[count++].asks = asks;
	}
	rcu_read_unlock();
	consume_skb(dump);
	return count;
}

/* Gives a packet the entry of its connection, with a reference, as conntrack does for one that it
 * has found. A packet that has one keeps it.
 */
bool nfo_skb_set_ct(struct sk_buff *skb, struct nf_conn *ct, bool reply)
{
	enum ip_conntrack_info info = IP_CT_ESTABLISHED_REPLY;

	if (skb->_nfct)
		return false;
	if (!reply) {
		const unsigned long status = READ_ONCE(ct->status);

		if (status & IPS_SEEN_REPLY)
			info = IP_CT_ESTABLISHED;
		else
			info = status & IPS_EXPECTED ? IP_CT_RELATED : IP_CT_NEW;
	}
	nf_conntrack_get(&ct->ct_general);
	nf_ct_set(skb, ct, info);
	return true;
}
