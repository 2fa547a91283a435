// SPDX-License-Identifier: GPL-2.0
/* What tunnels and PPP devices do with packets that the fast path would take up below them, and
 * tunnels that it follows without knowing how they look from below.
 */
#include <linux/if_arp.h>
#include <linux/inetdevice.h>
#include <linux/ppp_channel.h>
#include <linux/ppp-ioctl.h>
#include <linux/ppp_defs.h>
#include <linux/skbuff.h>
#include <linux/wait.h>
#include <net/ip6_route.h>
#include <net/ip6_tunnel.h>
#include <net/ip_tunnels.h>
#include <net/route.h>
#include <net/rtnetlink.h>

#include "helpers.h"
#include "ppp_layout.h"

static bool is_kind(const struct net_device *dev, const char *kind)
{
	return dev->rtnl_link_ops && !strcmp(dev->rtnl_link_ops->kind, kind);
}

/* Has a PPP device filters of its own, or may it have some? Under RCU. */
bool nfo_ppp_filters(const struct net_device *dev)
{
#ifdef CONFIG_PPP_FILTER
	if (dev->type != ARPHRD_PPP || !is_kind(dev, "ppp"))
		return false;
#ifdef NFO_PPP
	const struct ppp *ppp = netdev_priv(dev);

	/* The second half: only if this is what the kernel was built with. */
	return ppp->ppp_net != dev_net(dev) || READ_ONCE(ppp->pass_filter) || READ_ONCE(ppp->active_filter);
#else
	return true;
#endif
#else
	return false;
#endif
}

static bool has_parms4(const struct net_device *dev)
{
	return is_kind(dev, "ipip") || is_kind(dev, "sit") || is_kind(dev, "gre") || is_kind(dev, "gretap");
}

static bool has_parms6(const struct net_device *dev)
{
	return is_kind(dev, "ip6tnl") || is_kind(dev, "ip6gre") || is_kind(dev, "ip6gretap");
}

/* Do the outer packets of a tunnel come and go in another network namespace than its device? */
bool nfo_tunnel_elsewhere(const struct net_device *dev)
{
	const struct net *net = dev_net(dev);

	if (has_parms4(dev))
		net = ((const struct ip_tunnel *)netdev_priv(dev))->net;
	else if (has_parms6(dev))
		net = ((const struct ip6_tnl *)netdev_priv(dev))->net;
	return !net_eq(net, dev_net(dev));
}

/* Does a tunnel that takes IPv6 out of IPv6 give it the DSCP of the outer header? */
bool nfo_tunnel_copies_dscp(const struct net_device *dev)
{
	const struct ip6_tnl *t = netdev_priv(dev);

	return is_kind(dev, "ip6tnl") && t->parms.flags & IP6_TNL_F_RCV_DSCP_COPY;
}

/* Is it a tunnel whose packets could be taken up at the device itself? */
bool nfo_is_tunnel(const struct net_device *dev)
{
	return has_parms4(dev) || has_parms6(dev) || is_kind(dev, "wireguard");
}

static bool outer4(const struct net_device *dev, struct nfo_outer *outer)
{
	const struct ip_tunnel *t = netdev_priv(dev);
	const struct iphdr *iph = &t->parms.iph;
	struct flowi4 fl = {
		.daddr		= iph->daddr,
		.saddr		= iph->saddr,
		.flowi4_oif	= t->parms.link,
		.flowi4_dscp	= inet_dsfield_to_dscp(iph->tos & ~INET_ECN_MASK),
		.flowi4_mark	= t->fwmark,
		.flowi4_proto	= iph->protocol,
	};
	struct rtable *rt;

	if (t->collect_md)
		return false;
	outer->family = NFPROTO_IPV4;
	/* Of many ends (6rd): those send to our address. */
	if (!iph->daddr) {
		outer->dev = iph->saddr ? __ip_dev_find(dev_net(dev), iph->saddr, false) : NULL;
		return outer->dev;
	}
	if (ipv4_is_multicast(iph->daddr))
		return false;
	rt = ip_route_output_key(dev_net(dev), &fl);
	if (IS_ERR(rt))
		return false;
	outer->dst = &rt->dst;
	memcpy(outer->remote, &iph->daddr, sizeof(iph->daddr));
	return true;
}

static bool outer6(const struct net_device *dev, struct nfo_outer *outer)
{
	const struct ip6_tnl *t = netdev_priv(dev);
	struct flowi6 fl = t->fl.u.ip6;
	struct dst_entry *dst;

	if (t->parms.collect_md || ipv6_addr_any(&t->parms.raddr))
		return false;
	fl.flowi6_mark = t->parms.fwmark;
	dst = ip6_route_output(dev_net(dev), NULL, &fl);
	if (dst->error) {
		dst_release(dst);
		return false;
	}
	outer->family = NFPROTO_IPV6;
	outer->dst = dst;
	memcpy(outer->remote, &t->parms.raddr, sizeof(t->parms.raddr));
	return true;
}

/* How the outer packets of a tunnel come in: either by a route (held) to its remote end, or by a
 * device; neither of them: by any. False if nobody knows. Under RCU.
 */
bool nfo_tunnel_outer(const struct net_device *dev, struct nfo_outer *outer)
{
	memset(outer, 0, sizeof(*outer));
	if (nfo_tunnel_elsewhere(dev))
		return false;
	if (has_parms4(dev))
		return outer4(dev, outer);
	if (has_parms6(dev))
		return outer6(dev, outer);
	return is_kind(dev, "wireguard");
}

/* A device that nf_tables does not know of, with a hook as nf_tables would make it. dev is NULL
 * once the device has gone.
 */
struct nfo_follow {
	struct nf_hook_ops	ops;
	struct net		*net;
	struct list_head	list;
};

/* Lock order: RTNL, this, netfilter's own for hooks. */
static DEFINE_MUTEX(follow_lock);
static LIST_HEAD(follows);

/* NULL if the device is not there or about to go. May sleep. */
struct nfo_follow *nfo_follow(struct net *net, u32 ifindex, struct nf_flowtable *ft)
{
	struct nfo_follow *f = kzalloc(sizeof(*f), GFP_KERNEL_ACCOUNT);
	struct net_device *dev;

	if (!f)
		return NULL;
	f->net = net;
	f->ops.hook = ft->type->hook;
	f->ops.priv = ft;
	f->ops.pf = NFPROTO_NETDEV;
	f->ops.hook_ops_type = NF_HOOK_OP_NFT_FT;
	f->ops.hooknum = NF_NETDEV_INGRESS;
	f->ops.priority = ft->priority;

	mutex_lock(&follow_lock);
	dev = dev_get_by_index(net, ifindex);
	f->ops.dev = dev;
	if (dev && READ_ONCE(dev->reg_state) == NETREG_REGISTERED && !nf_register_net_hook(net, &f->ops)) {
		list_add(&f->list, &follows);
		mutex_unlock(&follow_lock);
		return f;
	}
	mutex_unlock(&follow_lock);
	dev_put(dev);
	kfree(f);
	return NULL;
}

static bool unhook(struct nfo_follow *f)
{
	struct net_device *dev = f->ops.dev;

	if (!dev)
		return false;
	list_del(&f->list);
	nf_unregister_net_hook(f->net, &f->ops);
	f->ops.dev = NULL;
	dev_put(dev);
	return true;
}

/* True if the hook was there until now: packets may still be in it. */
bool nfo_unfollow(struct nfo_follow *f)
{
	bool there;

	mutex_lock(&follow_lock);
	there = unhook(f);
	mutex_unlock(&follow_lock);
	kfree_rcu(f, ops.rcu);
	return there;
}

/* The name of the device; false if it has gone. */
bool nfo_follow_name(struct nfo_follow *f, char (*name)[IFNAMSIZ])
{
	bool there;

	mutex_lock(&follow_lock);
	there = f->ops.dev;
	if (there)
		strscpy(*name, f->ops.dev->name, IFNAMSIZ);
	mutex_unlock(&follow_lock);
	return there;
}

static bool is_followed(const struct net_device *dev)
{
	const struct nf_hook_entries *hooks;
	unsigned int i, n = 0;

	rcu_read_lock();
	hooks = rcu_dereference(dev->nf_hooks_ingress);
	for (i = 0; hooks && i < hooks->num_hook_entries; i++)
		n += READ_ONCE(nf_hook_entries_get_hook_ops(hooks)[i])->hook_ops_type == NF_HOOK_OP_NFT_FT;
	rcu_read_unlock();
	return n;
}

/* The device goes away, or to another network namespace. Under RTNL. */
void nfo_follow_gone(struct net_device *dev)
{
	struct nfo_follow *f, *next;

	if (!is_followed(dev))
		return;
	mutex_lock(&follow_lock);
	list_for_each_entry_safe(f, next, &follows, list) {
		if (f->ops.dev == dev)
			unhook(f);
	}
	mutex_unlock(&follow_lock);
}
