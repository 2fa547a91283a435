// SPDX-License-Identifier: GPL-2.0
/* What packets meet on their way up, and would not if they were picked up before. */
#include <linux/filter.h>
#include <linux/netfilter.h>
#include <net/netfilter/nf_flow_table.h>
#include <net/tcx.h>
#include <net/xfrm.h>

#include "helpers.h"

static bool has_programs(const struct net_device *dev)
{
#ifdef CONFIG_NET_XGRESS
	struct bpf_mprog_entry *entry = rcu_dereference(dev->tcx_ingress);

	/* Without filters there is an entry as soon as there is a clsact. */
	if (entry && (rcu_access_pointer(tcx_entry(entry)->miniq) || bpf_mprog_total(entry)))
		return true;
#endif
	/* The generic one, which is what devices have that are made of others. */
	return rcu_access_pointer(dev->xdp_prog);
}

static bool has_hooks(const struct net_device *dev)
{
#ifdef CONFIG_NETFILTER_INGRESS
	const struct nf_hook_entries *hooks = rcu_dereference(dev->nf_hooks_ingress);
	struct nf_hook_ops **ops;
	unsigned int i;

	if (!hooks)
		return false;
	ops = nf_hook_entries_get_hook_ops(hooks);
	for (i = 0; i < hooks->num_hook_entries; i++) {
		if (READ_ONCE(ops[i])->hook_ops_type != NF_HOOK_OP_NFT_FT)
			return true;
	}
#endif
	return false;
}

/* Whether there are programs, filters or chains for what comes in by the device. Flowtables are
 * none. Under RCU.
 */
bool nfo_dev_filters(const struct net_device *dev)
{
	return has_programs(dev) || has_hooks(dev);
}

/* Whether something sees packets that come in by the device before the hook of the flowtable does,
 * or would: the NIC may not have a hook there. Under RCU.
 */
bool nfo_dev_filters_before(struct net_device *dev, const struct nf_flowtable *ft)
{
#ifdef CONFIG_NETFILTER_INGRESS
	const struct nf_hook_entries *hooks = rcu_dereference(dev->nf_hooks_ingress);
	struct nf_hook_ops **ops;
	unsigned int i;

	ops = hooks ? nf_hook_entries_get_hook_ops(hooks) : NULL;
	for (i = 0; ops && i < hooks->num_hook_entries && hooks->hooks[i].priv != ft; i++) {
		if (READ_ONCE(ops[i])->hook_ops_type != NF_HOOK_OP_NFT_FT)
			return true;
	}
#endif
	return has_programs(dev) || dev_xdp_prog_count(dev);
}

/* Whether what comes to the host itself, like the outer packets of a tunnel, may have to come
 * through IPsec. As __xfrm_check_nopolicy() asks it before it looks at a packet.
 */
bool nfo_dev_ipsec(const struct net_device *dev)
{
#ifdef CONFIG_XFRM
	const struct net *net = dev_net(dev);

	return READ_ONCE(net->xfrm.policy_count[XFRM_POLICY_IN]) ||
	       READ_ONCE(net->xfrm.policy_default[XFRM_POLICY_IN]) != XFRM_USERPOLICY_ACCEPT;
#else
	return false;
#endif
}
