// SPDX-License-Identifier: GPL-2.0
/* Base chains of nf_tables that forwarded packets come to. */
#include <linux/jhash.h>
#include <net/netfilter/nf_tables.h>

#include "helpers.h"

static const u8 path[] = { NF_INET_PRE_ROUTING, NF_INET_FORWARD, NF_INET_POST_ROUTING };

static const struct nf_hook_entries *hooks(const struct net *net, bool v6, u8 hook)
{
	if (v6)
		return rcu_dereference(net->nf.hooks_ipv6[hook]);
	return rcu_dereference(net->nf.hooks_ipv4[hook]);
}

/* The base chain number n that forwarded packets of a family come to. Those for NAT see none of the
 * packets that flows have, and are not among them.
 */
int nfo_rules_base(const struct nfo_rules *r, bool v6, u32 n, const struct nft_chain **chain)
{
	const struct nf_hook_entries *e;
	struct nf_hook_ops **ops;
	int i, j, err;

	err = nfo_rules_enter(r);
	if (err)
		return err;
	*chain = NULL;
	for (i = 0; i < ARRAY_SIZE(path); i++) {
		e = hooks(r->net, v6, path[i]);
		if (!e)
			continue;
		ops = nf_hook_entries_get_hook_ops(e);
		for (j = 0; j < e->num_hook_entries; j++) {
			if (READ_ONCE(ops[j])->hook_ops_type != NF_HOOK_OP_NF_TABLES || n--)
				continue;
			*chain = e->hooks[j].priv;
			goto out;
		}
	}
out:
	rcu_read_unlock();
	return 0;
}

static int want_hooks(const struct nf_hook_entries *e, void *ctx,
		      int (*want)(void *ctx, const struct nft_chain *chain, u64 where), u64 where)
{
	struct nf_hook_ops **ops;
	int i, err = 0;

	if (!e)
		return 0;
	ops = nf_hook_entries_get_hook_ops(e);
	for (i = 0; i < e->num_hook_entries && !err; i++)
		if (READ_ONCE(ops[i])->hook_ops_type == NF_HOOK_OP_NF_TABLES)
			err = want(ctx, e->hooks[i].priv, where << 16 | i);
	return err;
}

/* Calls want(), in an RCU section, for every base chain that packets may pass which are forwarded
 * from one device to another, with a number that says where it is.
 */
int nfo_rules_bases(const struct nfo_rules *r, bool v4, bool v6, void *ctx,
		    int (*want)(void *ctx, const struct nft_chain *chain, u64 where))
{
	const struct net_device *dev;
	u64 where;
	int i, err;

	err = nfo_rules_enter(r);
	if (err)
		return err;
	for (i = 0; i < ARRAY_SIZE(path) && !err; i++) {
		if (v4)
			err = want_hooks(hooks(r->net, false, path[i]), ctx, want, i);
		if (v6 && !err)
			err = want_hooks(hooks(r->net, true, path[i]), ctx, want, 8 | i);
	}
#ifdef CONFIG_NETFILTER_FAMILY_BRIDGE
	for (i = 0; i < NF_INET_NUMHOOKS && !err; i++)
		err = want_hooks(rcu_dereference(r->net->nf.hooks_bridge[i]), ctx, want, 16 | i);
#endif
	for_each_netdev_rcu(r->net, dev) {
		if (err)
			break;
		where = (u64)dev->ifindex << 8 | 32;
#ifdef CONFIG_NETFILTER_INGRESS
		err = want_hooks(rcu_dereference(dev->nf_hooks_ingress), ctx, want, where);
#endif
#ifdef CONFIG_NETFILTER_EGRESS
		if (!err)
			err = want_hooks(rcu_dereference(dev->nf_hooks_egress), ctx, want, where | 1);
#endif
	}
	rcu_read_unlock();
	return err;
}

/* Which base chains drop by policy, of those that forwarded packets come to in IPv4 and IPv6: a number
 * to compare.
 *
 * nf_tables_commit() announces a generation, and goes through its transaction then: policies follow,
 * those of new chains as well, which accept everything until it is their turn.
 */
u32 nfo_drop_policies(const struct net *net)
{
	const struct nf_hook_entries *e;
	const struct nft_chain *chain;
	struct nf_hook_ops **ops;
	u32 i, j, sum = 0;

	rcu_read_lock();
	for (i = 0; i < 2 * ARRAY_SIZE(path); i++) {
		e = hooks(net, i & 1, path[i / 2]);
		if (!e)
			continue;
		ops = nf_hook_entries_get_hook_ops(e);
		for (j = 0; j < e->num_hook_entries; j++) {
			if (READ_ONCE(ops[j])->hook_ops_type != NF_HOOK_OP_NF_TABLES)
				continue;
			chain = e->hooks[j].priv;
			if (READ_ONCE(nft_base_chain(chain)->policy) == NF_DROP)
				sum += jhash_3words(chain->table->handle, chain->handle, i, 0);
		}
	}
	rcu_read_unlock();
	return sum;
}
