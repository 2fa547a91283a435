// SPDX-License-Identifier: GPL-2.0
/* What upper devices would do to a packet that leaves through them, and where that changes: a packet whose headers
 * are pushed at once is handed to the lowest device (FLOW_OFFLOAD_XMIT_DIRECT) as long as nobody above would see it.
 */
#include <linux/etherdevice.h>
#include <linux/if_arp.h>
#include <linux/if_bridge.h>
#include <linux/if_pppox.h>
#include <linux/if_vlan.h>
#include <linux/jhash.h>
#include <linux/netfilter_bridge.h>
#include <linux/ppp_channel.h>
#include <linux/ppp-ioctl.h>
#include <linux/ppp_defs.h>
#include <linux/random.h>
#include <net/rtnetlink.h>
#include <net/sch_generic.h>
#include <net/switchdev.h>

#include "helpers.h"
#include "ppp_layout.h"

/* Each address of a station has one of these, which changes when a bridge learns the station at a port, or forgets
 * it. Others share it.
 */
#define STATIONS	1024

static atomic_long_t stations[STATIONS];
static u32 stations_seed;

static atomic_long_t *station(const u8 *addr)
{
	return &stations[jhash(addr, ETH_ALEN, stations_seed) % STATIONS];
}

static int fdb_event(struct notifier_block *nb, unsigned long event, void *ptr)
{
	const struct switchdev_notifier_fdb_info *info = ptr;

	if (event == SWITCHDEV_FDB_ADD_TO_DEVICE || event == SWITCHDEV_FDB_DEL_TO_DEVICE)
		atomic_long_inc(station(info->addr));
	return NOTIFY_DONE;
}

static struct notifier_block fdb_nb = {
	.notifier_call	= fdb_event,
};

/* Without CONFIG_NET_SWITCHDEV bridges tell nobody, see nfo_direct_station(). */
int nfo_direct_register(void)
{
	stations_seed = get_random_u32();
	return register_switchdev_notifier(&fdb_nb);
}

void nfo_direct_unregister(void)
{
	unregister_switchdev_notifier(&fdb_nb);
}

/* The word of memory that holds *p, as it has to stay. */
#define watch(direct, p)	__watch(direct, (const void *)(p))

static unsigned long __watch(struct nfo_direct *direct, const void *p)
{
	const unsigned long *word = PTR_ALIGN_DOWN(p, sizeof(*word));
	struct nfo_watch *w;
	u32 i;

	if (direct->n_watches == NFO_DIRECT_WATCHES - NFO_DIRECT_ZEROS_ROW) {
		direct->full = true;
		return 0;
	}
	for (i = 0; i < direct->n_watches; i++) {
		if (direct->watches[i].word == word)
			return direct->watches[i].value;
	}
	w = &direct->watches[direct->n_watches++];
	w->word = word;
	w->value = READ_ONCE(*word);
	return w->value;
}

/* A bridge forwards to the station at this address by its forwarding database. False if nobody would say so when
 * that changes.
 */
bool nfo_direct_station(struct nfo_direct *direct, const u8 *addr)
{
	watch(direct, station(addr));
	return IS_ENABLED(CONFIG_NET_SWITCHDEV) && is_valid_ether_addr(addr);
}

static bool is_ppp(const struct net_device *dev)
{
	return dev->type == ARPHRD_PPP && dev->rtnl_link_ops && !strcmp(dev->rtnl_link_ops->kind, "ppp");
}

/* Without a compressor, filters, another link or a daemon that waits for packets. */
static bool add_ppp(struct net_device *dev, struct nfo_direct *direct)
{
#ifdef NFO_PPP
	struct ppp *ppp = netdev_priv(dev);
	struct channel *pch;
	unsigned int i;

	/* Only if this is what the kernel was built with. */
	if (ppp->ppp_net != dev_net(dev))
		return false;
	watch(direct, &ppp->channels.next);
	pch = list_first_or_null_rcu(&ppp->channels, struct channel, clist);
	if (!pch || rcu_access_pointer(pch->ppp) != ppp)
		return false;
	/* Another channel may come to lie at the same place, but has a number of its own. */
	direct->channel = &pch->file.index;
	direct->channel_index = READ_ONCE(pch->file.index);
	watch(direct, &ppp->flags);
	watch(direct, &ppp->xstate);
	watch(direct, &ppp->closing);
	for (i = 0; i < 2; i++) {
		watch(direct, &ppp->npmode[i]);
		if (READ_ONCE(ppp->npmode[i]) != NPMODE_PASS)
			direct->no_families |= i ? NFO_DIRECT_IPV6 : NFO_DIRECT_IPV4;
	}
#ifdef CONFIG_PPP_FILTER
	watch(direct, &ppp->pass_filter);
	watch(direct, &ppp->active_filter);
	if (READ_ONCE(ppp->pass_filter) || READ_ONCE(ppp->active_filter))
		return false;
#endif
	direct->last_xmit = &ppp->last_xmit;
	return !READ_ONCE(ppp->closing) &&
	       !(READ_ONCE(ppp->flags) & (SC_LOOP_TRAFFIC | SC_MULTILINK | SC_COMP_TCP | SC_MUST_COMP)) &&
	       !(READ_ONCE(ppp->xstate) & SC_COMP_RUN) && skb_queue_empty_lockless(&ppp->file.xq);
#else
	return false;
#endif
}

static bool add_vlan(struct net_device *dev, struct nfo_direct *direct)
{
#if IS_ENABLED(CONFIG_VLAN_8021Q)
	const struct vlan_dev_priv *vlan = vlan_dev_priv(dev);

	watch(direct, &vlan->nr_egress_mappings);
	watch(direct, &vlan->flags);
	return !READ_ONCE(vlan->nr_egress_mappings) && READ_ONCE(vlan->flags) & VLAN_FLAG_REORDER_HDR;
#else
	return false;
#endif
}

/* Its port was asked about elsewhere. */
static bool add_bridge(struct net_device *dev, struct nfo_direct *direct)
{
#ifdef CONFIG_NETFILTER_FAMILY_BRIDGE
	struct netns_nf *nf = &dev_net(dev)->nf;

	return !watch(direct, &nf->hooks_bridge[NF_BR_LOCAL_OUT]) &&
	       !watch(direct, &nf->hooks_bridge[NF_BR_POST_ROUTING]);
#else
	return true;
#endif
}

static bool is_seen(struct net_device *dev, struct nfo_direct *direct)
{
	struct netdev_queue *txq = netdev_get_tx_queue(dev, 0);
	const struct Qdisc *q;

	/* noop_qdisc has a queue, too */
	q = (const struct Qdisc *)watch(direct, &txq->qdisc);
	if (!q || q->enqueue)
		return true;
#ifdef CONFIG_NETFILTER_EGRESS
	if (watch(direct, &dev->nf_hooks_egress))
		return true;
#endif
#ifdef CONFIG_NET_XGRESS
	if (watch(direct, &dev->tcx_egress))
		return true;
#endif
	return watch(direct, &dev->ptype_all.next) != (unsigned long)&dev->ptype_all;
}

/* Where transmitted packets and bytes are counted, side by side. */
static void __percpu *counters(const struct net_device *dev)
{
	static_assert(offsetof(struct pcpu_sw_netstats, tx_bytes) ==
		      offsetof(struct pcpu_sw_netstats, tx_packets) + sizeof(u64));
#if IS_ENABLED(CONFIG_VLAN_8021Q)
	static_assert(offsetof(struct vlan_pcpu_stats, tx_bytes) ==
		      offsetof(struct vlan_pcpu_stats, tx_packets) + sizeof(u64));

	if (is_vlan_dev(dev))
		return &vlan_dev_priv(dev)->vlan_pcpu_stats->tx_packets;
#endif
	return dev->pcpu_stat_type == NETDEV_PCPU_STAT_TSTATS ? &dev->tstats->tx_packets : NULL;
}

static bool inserts_tag(const struct net_device *dev, u16 tag)
{
	switch (tag) {
	case ETH_P_8021Q:
		return dev->features & NETIF_F_HW_VLAN_CTAG_TX;
	case ETH_P_8021AD:
		return dev->features & NETIF_F_HW_VLAN_STAG_TX;
	default:
		return false;
	}
}

/* Packets leave through this device on their way to another one below. They have @around bytes of headers already,
 * the outermost of which is a VLAN tag or not, and what the device itself puts on them comes then. False if the
 * device has to see them. Under RCU.
 */
bool nfo_direct_add(struct net *net, u32 ifindex, u32 around, u16 tag, struct nfo_direct *direct)
{
	struct net_device *dev = dev_get_by_index_rcu(net, ifindex);
	struct nfo_direct_dev *upper;

	if (!dev || !(READ_ONCE(dev->flags) & IFF_UP) || direct->n_devices == ARRAY_SIZE(direct->devices))
		return false;
	if (is_seen(dev, direct))
		return false;
	if (is_vlan_dev(dev) ? !add_vlan(dev, direct) :
	    netif_is_bridge_master(dev) ? !add_bridge(dev, direct) :
	    !is_ppp(dev) || !add_ppp(dev, direct))
		return false;

	upper = &direct->devices[direct->n_devices++];
	upper->dev = dev;
	upper->counters = counters(dev);
	if (!upper->counters)
		return false;
	/* A tag that the device would insert by itself is not among the bytes that it counts. */
	if (inserts_tag(dev, tag))
		around -= VLAN_HLEN;
	upper->around = around + (dev->type == ARPHRD_ETHER ? ETH_HLEN : 0);
	/* A session of PPPoE begins below a PPP device. */
	direct->mtu = max(direct->mtu, READ_ONCE(dev->mtu) + (is_ppp(dev) ? PPPOE_SES_HLEN : 0));
	return !direct->full;
}

/* The lowest device has no queue, needs neither lock nor route, and nobody sees what is sent to it: the driver is
 * called at once. Of several queues one would have to be chosen for each packet.
 */
static bool is_queueless(struct net_device *dev, struct nfo_direct *direct)
{
	struct netdev_queue *txq = netdev_get_tx_queue(dev, 0);
	u32 n = direct->n_watches;

	if (!IS_ENABLED(CONFIG_PREEMPT_RT) && dev->lltx && dev->priv_flags & IFF_XMIT_DST_RELEASE &&
	    READ_ONCE(dev->real_num_tx_queues) == 1 && !is_seen(dev, direct) && !watch(direct, &txq->state) &&
	    !direct->full)
		return true;
	/* It makes no difference when that changes. */
	direct->n_watches = n;
	return false;
}

/* Makes whole rows of them, with some of them twice. */
static void sort_watches(struct nfo_direct *direct)
{
	u32 i, n = direct->n_watches;

	direct->n_watches = 0;
	for (i = 0; i < n; i++) {
		if (direct->watches[i].value)
			direct->watches[direct->n_watches++] = direct->watches[i];
		else
			direct->zeros[direct->n_zeros++] = direct->watches[i].word;
	}
	for (i = direct->n_zeros; i % NFO_DIRECT_ZEROS_ROW; i++)
		direct->zeros[i] = direct->zeros[0];
	direct->n_zeros = i;
	for (i = direct->n_watches; i % NFO_DIRECT_WATCHES_ROW; i++)
		direct->watches[i] = direct->watches[0];
	direct->n_watches = i;
}

/* Packets are queued at this device, the lowest one, or sent by it. False if they have to enter the stack: above it,
 * or at this device as it is the only one. Under RCU.
 */
bool nfo_direct_finish(struct net *net, u32 ifindex, u16 tag, struct nfo_direct *direct)
{
	struct net_device *dev = dev_get_by_index_rcu(net, ifindex);
	netdev_features_t features;

	if (!dev || dev->type != ARPHRD_ETHER || !(READ_ONCE(dev->flags) & IFF_UP))
		return false;
	direct->dev = dev;
	direct->headroom = READ_ONCE(dev->needed_headroom) + VLAN_HLEN;
	/* Who sees what all devices send. */
	if (READ_ONCE(dev->mtu) < direct->mtu ||
	    watch(direct, &net->ptype_all.next) != (unsigned long)&net->ptype_all || direct->full)
		return false;
	if (is_queueless(dev, direct)) {
		direct->txq = netdev_get_tx_queue(dev, 0);
		direct->push_tag = !inserts_tag(dev, tag);
		features = dev->features & dev->vlan_features;
		if (!dev->netdev_ops->ndo_features_check ||
		    dev->netdev_ops->ndo_features_check == passthru_features_check) {
			direct->sums = features & NETIF_F_HW_CSUM;
			direct->gathers = features & NETIF_F_SG && !IS_ENABLED(CONFIG_HIGHMEM);
		}
	}
	sort_watches(direct);
	return direct->txq || direct->n_devices;
}

/* Whether validate_xmit_skb() has nothing to do for a packet. */
static bool is_ready(const struct sk_buff *skb, const struct nfo_direct *direct)
{
	const struct skb_shared_info *shinfo = skb_shinfo(skb);

	if (skb_is_gso(skb) || shinfo->tx_flags || skb->sk || skb_has_extensions((struct sk_buff *)skb) ||
	    skb_is_decrypted(skb))
		return false;
	if (skb_is_nonlinear(skb) &&
	    (!direct->gathers || skb_has_frag_list(skb) || !skb_frags_readable(skb)))
		return false;
	return skb->ip_summed != CHECKSUM_PARTIAL ||
	       (direct->sums && !skb->encapsulation && !skb_csum_is_sctp((struct sk_buff *)skb));
}

/* What __dev_queue_xmit() does for a device without a queue, and dev_hard_start_xmit() where nobody sees the packet,
 * which nfo_direct_finish() has looked at. With softirqs off.
 */
void nfo_direct_xmit(struct sk_buff *skb, const struct nfo_direct *direct)
{
	struct net_device *dev = direct->dev;

	if (unlikely(!is_ready(skb, direct) || dev_xmit_recursion())) {
		__dev_queue_xmit(skb, NULL);
		return;
	}

	skb_reset_mac_header(skb);
	skb_set_queue_mapping(skb, 0);
#ifdef CONFIG_XPS
	skb->sender_cpu = raw_smp_processor_id() + 1;
#endif
#ifdef CONFIG_NET_XGRESS
	skb->tc_at_ingress = 0;
#endif
	dev_xmit_recursion_inc();
	if (unlikely(!dev_xmit_complete(netdev_start_xmit(skb, dev, direct->txq, false)))) {
		dev_core_stats_tx_dropped_inc(dev);
		kfree_skb(skb);
	}
	dev_xmit_recursion_dec();
}

/* The devices above count a packet of @len bytes. With softirqs off; where Rust has no access to per-CPU data. */
void nfo_direct_count(const struct nfo_direct_dev *upper, u32 len)
{
#if BITS_PER_LONG == 64
	u64 __percpu *counter = upper->counters;

	__this_cpu_inc(counter[0]);
	__this_cpu_add(counter[1], len + upper->around);
#else
#if IS_ENABLED(CONFIG_VLAN_8021Q)
	if (is_vlan_dev(upper->dev)) {
		struct vlan_pcpu_stats *stats = this_cpu_ptr(vlan_dev_priv(upper->dev)->vlan_pcpu_stats);

		u64_stats_update_begin(&stats->syncp);
		u64_stats_inc(&stats->tx_packets);
		u64_stats_add(&stats->tx_bytes, len + upper->around);
		u64_stats_update_end(&stats->syncp);
		return;
	}
#endif
	dev_sw_netstats_tx_add(upper->dev, 1, len + upper->around);
#endif
}
