// SPDX-License-Identifier: GPL-2.0
/* Routes and neighbours, for Rust: what is an inline function or a macro in C. */
#include <linux/etherdevice.h>
#include <linux/hash.h>
#include <linux/if_arp.h>
#include <linux/inetdevice.h>
#include <linux/jhash.h>
#include <net/ip.h>
#include <net/ip_fib.h>
#include <net/ip6_fib.h>
#include <net/ip6_route.h>
#include <net/l3mdev.h>
#include <net/lwtunnel.h>
#include <net/neighbour.h>
#include <net/netevent.h>
#include <net/xfrm.h>

#include "helpers.h"

bool nfo_dst_hold(struct dst_entry *dst)
{
	return dst_hold_safe(dst);
}

/* Whether packets like this would be dropped for where they come from, at this device. Asked for
 * their route, the stack would count, and maybe log, martians that nobody has sent: see
 * fib_validate_source().
 */
static bool refuses_source4(struct net_device *dev, const struct flowi4 *fl)
{
	const struct in_device *idev = __in_dev_get_rcu(dev);
	const int filter = idev ? IN_DEV_RPFILTER(idev) : 0;
	struct net *net = dev_net(dev);
	struct flowi4 there = *fl;
	struct fib_result res;
	struct flowi4 back = {
		.flowi4_iif	= LOOPBACK_IFINDEX,
		.flowi4_l3mdev	= l3mdev_master_ifindex_rcu(dev),
		.flowi4_uid	= sock_net_uid(net, NULL),
		.flowi4_dscp	= fl->flowi4_dscp,
		.flowi4_proto	= fl->flowi4_proto,
		.daddr		= fl->saddr,
		.saddr		= fl->daddr,
		.fl4_dport	= fl->fl4_sport,
		.fl4_sport	= fl->fl4_dport,
	};

	if (!filter)
		return false;
	/* It looks for the way back from where they would leave. */
	there.flowi4_iif = dev->ifindex;
	there.flowi4_oif = 0;
	there.flowi4_uid = back.flowi4_uid;
	there.flowi4_l3mdev = 0;
	there.flowi4_scope = RT_SCOPE_UNIVERSE;
	there.flowi4_flags = 0;
	if (fib_lookup(net, &there, &res, 0) || res.type != RTN_UNICAST || fib_info_num_path(res.fi) != 1)
		return false;
	back.flowi4_iif = FIB_RES_OIF(res) ?: LOOPBACK_IFINDEX;
	if (IN_DEV_SRC_VMARK(idev))
		back.flowi4_mark = fl->flowi4_mark;
	if (fib_lookup(net, &back, &res, 0))
		return true;
	if (res.type != RTN_UNICAST && !(res.type == RTN_LOCAL && IN_DEV_ACCEPT_LOCAL(idev)))
		return true;
	if (fib_info_nh_uses_dev(res.fi, dev))
		return false;
	return filter == 1 || !rcu_access_pointer(idev->ifa_list);
}

static struct dst_entry *route_input4(struct net_device *dev, const struct flowi4 *fl)
{
	struct dst_entry *dst = NULL;
	struct sk_buff *skb;
	struct iphdr *iph;
	__be16 *ports;

	if (refuses_source4(dev, fl))
		return NULL;
	/* Rules and multipath hashes look at the packet. */
	skb = alloc_skb(sizeof(*iph) + 2 * sizeof(*ports), GFP_ATOMIC | __GFP_NOWARN);
	if (!skb)
		return NULL;
	skb_reset_network_header(skb);
	iph = skb_put_zero(skb, sizeof(*iph));
	skb_set_transport_header(skb, skb->len);
	ports = skb_put(skb, 2 * sizeof(*ports));
	iph->version = 4;
	iph->ihl = sizeof(*iph) / 4;
	iph->tot_len = htons(skb->len);
	iph->ttl = 64;
	iph->protocol = fl->flowi4_proto;
	iph->saddr = fl->saddr;
	iph->daddr = fl->daddr;
	ports[0] = fl->fl4_sport;
	ports[1] = fl->fl4_dport;
	skb->protocol = htons(ETH_P_IP);
	skb->mark = fl->flowi4_mark;
	skb->dev = dev;
	if (!ip_route_input_noref(skb, fl->daddr, fl->saddr, fl->flowi4_dscp, dev)) {
		dst = skb_dst(skb);
		if (dst && !dst_hold_safe(dst))
			dst = NULL;
	}
	consume_skb(skb);
	return dst;
}

/* The route of packets that come in at @dev, as the stack would find it. Under RCU. */
struct dst_entry *nfo_route_input(struct net_device *dev, struct flowi *fl, u8 family)
{
	struct net_device *master = l3mdev_master_dev_rcu(dev);

	/* Routing sees packets of a VRF as its own. */
	if (master)
		dev = master;
	if (family == NFPROTO_IPV4)
		return route_input4(dev, &fl->u.ip4);
	fl->u.ip6.flowi6_iif = dev->ifindex;
	return ip6_route_input_lookup(dev_net(dev), dev, &fl->u.ip6, NULL, RT6_LOOKUP_F_HAS_SADDR);
}

static bool same_gateway4(const struct rtable *a, const struct rtable *b)
{
	if (a->rt_gw_family != b->rt_gw_family)
		return false;
	if (a->rt_gw_family == AF_INET6)
		return ipv6_addr_equal(&a->rt_gw6, &b->rt_gw6);
	return a->rt_gw_family != AF_INET || a->rt_gw4 == b->rt_gw4;
}

static bool same_gateway6(const struct rt6_info *a, const struct rt6_info *b)
{
	if ((a->rt6i_flags ^ b->rt6i_flags) & RTF_GATEWAY)
		return false;
	return !(a->rt6i_flags & RTF_GATEWAY) || ipv6_addr_equal(&a->rt6i_gateway, &b->rt6i_gateway);
}

/* Whether a packet with route @a has the same next hop as by @b. One that is bridged has no route
 * of its own.
 */
bool nfo_same_nexthop(const struct dst_entry *a, const struct dst_entry *b, u8 family)
{
	if (!a || a == b || a->flags & DST_FAKE_RTABLE)
		return true;
	if (READ_ONCE(a->dev) != READ_ONCE(b->dev) || !dst_xfrm(a) != !dst_xfrm(b))
		return false;
	if (dst_xfrm(a))
		return true;
	if (family == NFPROTO_IPV4)
		return same_gateway4(dst_rtable(a), dst_rtable(b));
	return same_gateway6(dst_rt6_info(a), dst_rt6_info(b));
}

/* Is a packet that is in the forward path by way of @in one that came in at this device? */
bool nfo_dev_is_or_above(const struct net_device *in, u32 ifindex)
{
	if (in->ifindex == ifindex)
		return true;
	return netif_is_l3_master(in) &&
	       l3mdev_master_upper_ifindex_by_index_rcu(dev_net(in), ifindex) == in->ifindex;
}

/* The link-layer address that sent the frame; false if there is none. */
bool nfo_skb_source(const struct sk_buff *skb, u8 *mac)
{
	if (!skb_mac_header_was_set(skb) || skb_mac_header_len(skb) < ETH_HLEN ||
	    !skb->dev || skb->dev->type != ARPHRD_ETHER)
		return false;
	ether_addr_copy(mac, eth_hdr(skb)->h_source);
	return true;
}

u32 nfo_dst_mtu(struct dst_entry *dst, u8 family)
{
	return family == NFPROTO_IPV4 ? ip_dst_mtu_maybe_forward(dst, true) :
					ip6_dst_mtu_maybe_forward(dst, true);
}

bool nfo_dst_check(struct dst_entry *dst, u32 cookie)
{
	return dst_check(dst, cookie);
}

/* Are packets given to something else than the device of the route? An encapsulation that the
 * device reads from the route is none of ours.
 */
bool nfo_dst_redirects(const struct dst_entry *dst)
{
	return lwtunnel_output_redirect(dst->lwtstate) || lwtunnel_input_redirect(dst->lwtstate) ||
	       lwtunnel_xmit_redirect(dst->lwtstate);
}

/* ip6_forward() looks at this for each packet. Under RCU. */
bool nfo_forwards6(struct net *net, u32 ifindex)
{
	const struct inet6_dev *idev;
	struct net_device *dev;

	if (READ_ONCE(net->ipv6.devconf_all->forwarding))
		return true;
	dev = dev_get_by_index_rcu(net, ifindex);
	idev = dev ? __in6_dev_get(dev) : NULL;
	return idev && READ_ONCE(idev->cnf.force_forwarding);
}

bool nfo_dst_xfrm(const struct dst_entry *dst)
{
	return dst_xfrm(dst);
}

u32 nfo_rt6_cookie(const struct dst_entry *dst)
{
	return rt6_get_cookie(dst_rt6_info(dst));
}

void nfo_neigh_hold(struct neighbour *n)
{
	neigh_hold(n);
}

void nfo_neigh_put(struct neighbour *n)
{
	neigh_release(n);
}

/* Has the neighbour resolved, if it is not. */
void nfo_neigh_resolve(struct neighbour *n)
{
	neigh_event_send(n, NULL);
}

/* The neighbour's link-layer address; false, and zeroes, if it is not known. */
bool nfo_neigh_ha(struct neighbour *n, u8 *ha)
{
	bool valid;

	read_lock_bh(&n->lock);
	valid = n->nud_state & NUD_VALID && n->dev->addr_len == ETH_ALEN;
	if (valid)
		ether_addr_copy(ha, n->ha);
	else
		eth_zero_addr(ha);
	read_unlock_bh(&n->lock);
	return valid;
}

/* The address that the neighbour answers for: how many bytes it has, 0 if it is none of IP. */
u32 nfo_neigh_key(const struct neighbour *n, u8 (*key)[16])
{
	u32 len = n->tbl->key_len;

	if (len != sizeof(struct in_addr) && len != sizeof(struct in6_addr))
		return 0;
	memcpy(key, n->primary_key, len);
	return len;
}

/* What the forward path does before dst_output(), which takes the packet through IPsec. It has
 * passed POST_ROUTING, says *_REROUTED: rules there would take a packet without a conntrack entry
 * for an invalid one. What comes out of IPsec passes them.
 */
void nfo_xfrm_output(struct sk_buff *skb, struct dst_entry *dst, u8 family, u32 thoff)
{
	struct net *net = dev_net(skb->dev);

	if (family == NFPROTO_IPV4) {
		memset(IPCB(skb), 0, sizeof(*IPCB(skb)));
		IPCB(skb)->iif = skb->dev->ifindex;
		IPCB(skb)->flags = IPSKB_FORWARDED | IPSKB_REROUTED;
	} else {
		memset(IP6CB(skb), 0, sizeof(*IP6CB(skb)));
		IP6CB(skb)->iif = skb->dev->ifindex;
		IP6CB(skb)->flags = IP6SKB_FORWARDED | IP6SKB_REROUTED;
	}
	skb_set_transport_header(skb, skb_network_offset(skb) + thoff);
	skb_clear_tstamp(skb);
#ifdef CONFIG_NET_SWITCHDEV
	skb->offload_fwd_mark = 0;
#endif
	skb_orphan(skb);
	skb_dst_drop(skb);
	skb_dst_set_noref(skb, dst);
	dst_output(net, NULL, skb);
}

/* What was last said about a neighbour, by where it is. Two that share a slot are taken for changed. */
static u32 nfo_neighs[1024];

/* Whether something has changed that rules are made of. Most events of a neighbour only say how old is
 * what is known of it.
 */
bool nfo_netevent_matters(unsigned long event, void *info)
{
	const struct neighbour *n = info;
	u32 ha[MAX_ADDR_LEN / sizeof(u32)] = {};
	u32 slot, said;

	switch (event) {
	case NETEVENT_REDIRECT:
	case NETEVENT_IPV4_MPATH_HASH_UPDATE:
	case NETEVENT_IPV6_MPATH_HASH_UPDATE:
		return true;
	case NETEVENT_NEIGH_UPDATE:
		break;
	default:
		return false;
	}
	neigh_ha_snapshot((char *)ha, n, n->dev);
	/* Another one may lie at the same address now. */
	said = jhash(n->primary_key, n->tbl->key_len, (u32)(unsigned long)n);
	said = jhash2(ha, ARRAY_SIZE(ha), said);
	said = (said & ~1) | !!(READ_ONCE(n->nud_state) & NUD_VALID);
	slot = hash_ptr(n, 10);
	return xchg(&nfo_neighs[slot], said) != said;
}
