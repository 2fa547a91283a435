// SPDX-License-Identifier: GPL-2.0
/* Traffic of a flowtable, and the kernel's counters that it belongs into. */
#include <linux/if_vlan.h>
#include <linux/percpu.h>
#include <linux/u64_stats_sync.h>
#include <net/ip.h>
#include <net/ipv6.h>

#include "helpers.h"

/* What Rust adds to comes first. With 32 bits others may see half of a sum. */
struct nfo_traffic_cpu {
	struct nfo_traffic	traffic;
	struct u64_stats_sync	syncp;
};

struct nfo_traffic __percpu *nfo_traffic_alloc(void)
{
	struct nfo_traffic_cpu __percpu *all;
	int cpu;

	all = alloc_percpu_gfp(struct nfo_traffic_cpu, GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!all)
		return NULL;
	for_each_possible_cpu(cpu)
		u64_stats_init(&per_cpu_ptr(all, cpu)->syncp);
	return &all->traffic;
}

void nfo_traffic_free(struct nfo_traffic __percpu *traffic)
{
	free_percpu(traffic);
}

/* For each forwarded packet, where Rust has no access to per-CPU data. With softirqs off: nobody else adds to
 * these, and to turn interrupts off costs more than to count, where one instruction does not do it.
 */
void nfo_traffic_add(struct nfo_traffic __percpu *traffic, bool v6, u32 bytes)
{
#if BITS_PER_LONG == 64
	__this_cpu_inc(traffic->family[v6].packets);
	__this_cpu_add(traffic->family[v6].bytes, bytes);
#else
	struct nfo_traffic_cpu *t = this_cpu_ptr((struct nfo_traffic_cpu __percpu *)traffic);

	u64_stats_update_begin(&t->syncp);
	t->traffic.family[v6].packets++;
	t->traffic.family[v6].bytes += bytes;
	u64_stats_update_end(&t->syncp);
#endif
}

void nfo_traffic_sum(const struct nfo_traffic __percpu *traffic, struct nfo_traffic *sum)
{
	const struct nfo_traffic_cpu __percpu *all = (const struct nfo_traffic_cpu __percpu *)traffic;
	int cpu, i;

	memset(sum, 0, sizeof(*sum));
	for_each_possible_cpu(cpu) {
		const struct nfo_traffic_cpu *t = per_cpu_ptr(all, cpu);
		struct nfo_traffic now;
		unsigned int start;

		do {
			start = u64_stats_fetch_begin(&t->syncp);
			now = t->traffic;
		} while (u64_stats_fetch_retry(&t->syncp, start));
		for (i = 0; i < ARRAY_SIZE(sum->family); i++) {
			sum->family[i].packets += now.family[i].packets;
			sum->family[i].bytes += now.family[i].bytes;
		}
	}
}

static void mib_add(struct net *net, bool v6, u64 packets, u64 bytes)
{
	if (!v6) {
		IP_ADD_STATS(net, IPSTATS_MIB_INPKTS, packets);
		IP_ADD_STATS(net, IPSTATS_MIB_INOCTETS, bytes);
		IP_ADD_STATS(net, IPSTATS_MIB_OUTFORWDATAGRAMS, packets);
		IP_ADD_STATS(net, IPSTATS_MIB_OUTPKTS, packets);
		IP_ADD_STATS(net, IPSTATS_MIB_OUTOCTETS, bytes);
	} else if (net->mib.ipv6_statistics) { /* not with ipv6.disable=1 */
		IP6_ADD_STATS(net, NULL, IPSTATS_MIB_INPKTS, packets);
		IP6_ADD_STATS(net, NULL, IPSTATS_MIB_INOCTETS, bytes);
		IP6_ADD_STATS(net, NULL, IPSTATS_MIB_OUTFORWDATAGRAMS, packets);
		IP6_ADD_STATS(net, NULL, IPSTATS_MIB_OUTPKTS, packets);
		IP6_ADD_STATS(net, NULL, IPSTATS_MIB_OUTOCTETS, bytes);
	}
}

/* What ip_rcv(), ip_forward() and ip_output() count of a forwarded packet. A namespace that ends
 * frees its counters, maybe before its flowtables, but a grace period after check_net() has become
 * false.
 */
void nfo_mib_add(struct net *net, bool v6, u64 packets, u64 bytes)
{
	rcu_read_lock();
	if (check_net(net))
		mib_add(net, v6, packets, bytes);
	rcu_read_unlock();
}

static void count_rx_vlan(struct net_device *dev, u32 bytes)
{
#if IS_ENABLED(CONFIG_VLAN_8021Q)
	struct vlan_pcpu_stats *stats = this_cpu_ptr(vlan_dev_priv(dev)->vlan_pcpu_stats);

	u64_stats_update_begin(&stats->syncp);
	u64_stats_inc(&stats->rx_packets);
	u64_stats_add(&stats->rx_bytes, bytes);
	u64_stats_update_end(&stats->syncp);
#endif
}

/* A packet of so many bytes has come up through the first of n devices; the last one, where the
 * list ends or the packet was picked up, has counted it. In softirq context, under RCU.
 */
void nfo_count_rx(struct net *net, const u32 *devices, const u8 *rx_overhead, u32 n, u32 last, u32 bytes)
{
	struct net_device *dev;
	u32 i;

	for (i = 0; i < n && devices[i] && devices[i] != last; i++) {
		dev = dev_get_by_index_rcu(net, devices[i]);
		if (!dev)
			continue;
		if (is_vlan_dev(dev))
			count_rx_vlan(dev, bytes + rx_overhead[i]);
		else if (dev->pcpu_stat_type == NETDEV_PCPU_STAT_TSTATS)
			dev_sw_netstats_rx_add(dev, bytes + rx_overhead[i]);
	}
}

/* Raised when a device goes away, before the grace period that its memory is freed after. */
u32 nfo_device_generation = 1;

/* Under RTNL. */
void nfo_device_gone(void)
{
	WRITE_ONCE(nfo_device_generation, nfo_device_generation + 1 ?: 1);
}

/* Where the first of n devices, up to the last one, count what they receive: packets and bytes,
 * side by side, one of each CPU. Devices that do not count have NULL. False where a sequence count
 * is needed to change such counters. Under RCU.
 */
bool nfo_rx_counters(struct net *net, const u32 *devices, u32 n, u32 last, void __percpu **counters)
{
#if BITS_PER_LONG == 64
	struct net_device *dev;
	u32 i;

	static_assert(offsetof(struct pcpu_sw_netstats, rx_packets) == 0);
	static_assert(offsetof(struct pcpu_sw_netstats, rx_bytes) == 8);
#if IS_ENABLED(CONFIG_VLAN_8021Q)
	static_assert(offsetof(struct vlan_pcpu_stats, rx_packets) == 0);
	static_assert(offsetof(struct vlan_pcpu_stats, rx_bytes) == 8);
#endif
	for (i = 0; i < n && devices[i] && devices[i] != last; i++) {
		dev = dev_get_by_index_rcu(net, devices[i]);
		if (!dev)
			return false;
#if IS_ENABLED(CONFIG_VLAN_8021Q)
		if (is_vlan_dev(dev)) {
			counters[i] = vlan_dev_priv(dev)->vlan_pcpu_stats;
			continue;
		}
#endif
		if (dev->pcpu_stat_type == NETDEV_PCPU_STAT_TSTATS)
			counters[i] = dev->tstats;
	}
	return true;
#else
	return false;
#endif
}

/* Adds a packet to what nfo_rx_counters() has found. With softirqs off. */
void nfo_rx_add(void __percpu *counters, u32 bytes)
{
	u64 __percpu *counter = counters;

	__this_cpu_inc(counter[0]);
	__this_cpu_add(counter[1], bytes);
}
