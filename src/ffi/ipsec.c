// SPDX-License-Identifier: GPL-2.0
/* What forwarding asks IPsec, for packets that do not pass ip_forward(). */
#include <linux/inetdevice.h>
#include <net/ip.h>
#include <net/l3mdev.h>
#include <net/net_namespace.h>
#include <net/snmp.h>
#include <net/xfrm.h>

#include "helpers.h"

#ifdef CONFIG_XFRM
/* Is the device exempt? For IPv6 the route says so. */
static bool no_policy(const struct net_device *dev, const struct dst_entry *dst, u8 family)
{
	const struct net_device *master = l3mdev_master_dev_rcu(dev);
	const struct in_device *in_dev = __in_dev_get_rcu(master ?: dev);

	if (family == NFPROTO_IPV4)
		return in_dev && IN_DEV_ORCONF(in_dev, NOPOLICY);
	return dst->flags & DST_NOPOLICY;
}

/* Whether the packet, which came through IPsec and is about to leave by @dst, conforms to the
 * policies and to the selectors of the SAs that it came through, as xfrm_policy_check() in
 * ip_forward() and ip6_forward() would say. Of the packet nothing changes: if not, it goes there,
 * and is counted. It is at the ingress hook, under RCU, and starts with its network header.
 */
bool nfo_ipsec_admits(struct sk_buff *skb, struct dst_entry *dst, u8 family)
{
	const struct xfrm_offload *xo = xfrm_offload(skb);
	const unsigned long refdst = skb->_skb_refdst;
	struct sec_path *sp = skb_sec_path(skb);
	char cb[sizeof(skb->cb)];
	int verified;
	bool ok;
#ifdef CONFIG_XFRM_STATISTICS
	struct linux_xfrm_mib mib, *here = this_cpu_ptr(dev_net(skb->dev)->mib.xfrm_statistics);
#endif

	/* Hardware has compared. */
	if (xo && xfrm_input_state(skb)->xso.type == XFRM_DEV_OFFLOAD_PACKET)
		return xo->flags & CRYPTO_DONE && xo->status & CRYPTO_SUCCESS;
	/* The route before IPsec is looked up for it. */
	if (dst_xfrm(dst))
		dst = ((struct xfrm_dst *)dst)->route;
	if (no_policy(skb->dev, dst, family))
		return true;

	verified = sp->verified_cnt;
	memcpy(cb, skb->cb, sizeof(cb));
	/* What the IP layer would have noted. */
	memset(skb->cb, 0, sizeof(cb));
	skb->_skb_refdst = (unsigned long)dst | SKB_DST_NOREF;
#ifdef CONFIG_XFRM_STATISTICS
	mib = *here;
#endif
	ok = __xfrm_policy_check(NULL, XFRM_POLICY_FWD, skb, family);
#ifdef CONFIG_XFRM_STATISTICS
	if (!ok)
		*here = mib;
#endif
	skb->_skb_refdst = refdst;
	memcpy(skb->cb, cb, sizeof(cb));
	sp->verified_cnt = verified;
	return ok;
}

/* A policy is gone, and another one may apply now to what it allowed to pass in the clear. The
 * kernel makes routes stale only when one is added. In any context.
 */
static int notify_policy(struct xfrm_policy *xp, int dir, const struct km_event *c)
{
	if (c->event == XFRM_MSG_NEWPOLICY || c->event == XFRM_MSG_UPDPOLICY)
		return 0;
	rt_genid_bump_all(xp ? xp_net(xp) : c->net);
	return 0;
}

/* These two have to be there. */
static int acquire(struct xfrm_state *x, struct xfrm_tmpl *t, struct xfrm_policy *xp)
{
	return -ESRCH;
}

static struct xfrm_policy *compile_policy(struct sock *sk, int opt, u8 *data, int len, int *dir)
{
	return NULL;
}

static struct xfrm_mgr mgr = {
	.acquire	= acquire,
	.compile_policy	= compile_policy,
	.notify_policy	= notify_policy,
};

void nfo_ipsec_register(void)
{
	xfrm_register_km(&mgr);
}

void nfo_ipsec_unregister(void)
{
	xfrm_unregister_km(&mgr);
}
#else
bool nfo_ipsec_admits(struct sk_buff *skb, struct dst_entry *dst, u8 family)
{
	return false;
}

void nfo_ipsec_register(void)
{
}

void nfo_ipsec_unregister(void)
{
}
#endif
