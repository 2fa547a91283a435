// SPDX-License-Identifier: GPL-2.0
/*
 * What forwarding a packet costs, with nothing around it: frames are put into the receive path of the device ftb0, and
 * what leaves by the device ftb1 is used again. There is no generator, no allocation and no NIC, so that
 * the misses of a table with a million flows can be seen. For selftests/bench/ftbench.sh.
 *
 * Debugfs, ftbench/run: write a line
 *
 *   MODE ORDER FLOWS PACKETS WARMUP SEED
 *
 *   MODE    forward: frames are expected at ftb1
 *           drop: a rule drops them before the stack sees them. The run keeps a reference, thus a frame is
 *           not freed. What this takes is what the others take as well.
 *   ORDER   of the flows: sequential, uniform (random), zipf (random, the n-th flow comes with 1/n)
 *   WARMUP  so many packets go ahead that are not timed
 *   SEED    of the random numbers; those of the same seed are the same
 *
 * and read what came of it. The flows are UDP, from 10.0.1.2 to addresses from 10.128.0.0 on, with 1024 ports each.
 * Times are in ns per packet: wall and cpu are averages, the latter without the time that the
 * host gave to others if this is User Mode Linux; median is of batches, which does not see interruptions.
 */
#include <linux/debugfs.h>
#include <linux/etherdevice.h>
#include <linux/if_vlan.h>
#include <linux/ip.h>
#include <linux/module.h>
#include <linux/prandom.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/sort.h>
#include <linux/udp.h>
#include <linux/unaligned.h>
#include <linux/vmalloc.h>
#include <net/checksum.h>
#include <net/ip.h>

#define FTB_RING	256
#define FTB_BATCH	64
#define FTB_MAX_PACKETS	(1U << 24)
#define FTB_MAX_FLOWS	(1U << 22)
#define FTB_HEADROOM	(NET_SKB_PAD + NET_IP_ALIGN)
#define FTB_SADDR	0x0a000102
#define FTB_DADDR	0x0a800000
#define FTB_MAGIC	cpu_to_be64(0x6674625f66726d65ULL)

struct ftb_frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	u8 pad[10];
	__be64 magic;
} __packed;

struct ftb_result {
	u32 packets, came_back, lost;
	u64 wall, cpu;
	u32 median;
};

static struct net_device *ftb_dev[2];
#define ftb_in	ftb_dev[0]
#define ftb_out	ftb_dev[1]
static struct dentry *ftb_dir;
static DEFINE_MUTEX(ftb_lock);
static struct ftb_result ftb_last;

/* Frames that wait for their turn, in the order in which they came back. Only for the CPU in ftb_cpu, with softirqs
 * off.
 */
static struct sk_buff *ftb_ring[FTB_RING];
static unsigned int ftb_head, ftb_count;
static int ftb_cpu = -1;
static u32 ftb_came_back;

static struct ftb_frame ftb_pristine;
static __wsum ftb_ip_sum, ftb_udp_sum;

static void ftb_put(struct sk_buff *skb)
{
	ftb_ring[(ftb_head + ftb_count++) % FTB_RING] = skb;
}

static struct sk_buff *ftb_take(void)
{
	struct sk_buff *skb = ftb_ring[ftb_head];

	ftb_head = (ftb_head + 1) % FTB_RING;
	ftb_count--;
	return skb;
}

/* Neither of the stack, nor a copy, nor a frame that was under way when its run ended. */
static bool ftb_is_frame(const struct sk_buff *skb)
{
	return READ_ONCE(ftb_cpu) == smp_processor_id() && !skb_is_nonlinear(skb) && !skb_cloned(skb) &&
	       skb->len >= sizeof(struct ftb_frame) &&
	       get_unaligned((__be64 *)(skb_tail_pointer(skb) - sizeof(__be64))) == FTB_MAGIC;
}

static netdev_tx_t ftb_xmit(struct sk_buff *skb, struct net_device *dev)
{
	if (dev == ftb_out && ftb_is_frame(skb)) {
		ftb_came_back++;
		if (!skb_shared(skb) && ftb_count < FTB_RING) {
			ftb_put(skb);
			return NETDEV_TX_OK;
		}
	}
	dev_consume_skb_any(skb);
	return NETDEV_TX_OK;
}

static const struct net_device_ops ftb_netdev_ops = {
	.ndo_start_xmit		= ftb_xmit,
	.ndo_validate_addr	= eth_validate_addr,
	.ndo_set_mac_address	= eth_mac_addr,
};

static void ftb_setup(struct net_device *dev)
{
	ether_setup(dev);
	dev->netdev_ops = &ftb_netdev_ops;
	dev->priv_flags |= IFF_NO_QUEUE;
	dev->lltx = true;
	eth_hw_addr_random(dev);
}

static int ftb_fill(void)
{
	while (ftb_count < FTB_RING) {
		struct sk_buff *skb = alloc_skb(FTB_HEADROOM + 2 * sizeof(struct ftb_frame), GFP_KERNEL);

		if (!skb)
			return -ENOMEM;
		ftb_put(skb);
	}
	return 0;
}

static void ftb_pristine_init(void)
{
	struct ftb_frame *f = &ftb_pristine;
	unsigned int len = sizeof(*f) - offsetof(struct ftb_frame, udp);
	static const u8 peer[ETH_ALEN] = { 0x02, 0, 0, 0, 0, 0x02 };

	ether_addr_copy(f->eth.h_dest, ftb_in->dev_addr);
	ether_addr_copy(f->eth.h_source, peer);
	f->eth.h_proto = htons(ETH_P_IP);
	f->ip.version = 4;
	f->ip.ihl = sizeof(f->ip) / 4;
	f->ip.tot_len = htons(sizeof(*f) - offsetof(struct ftb_frame, ip));
	f->ip.ttl = 64;
	f->ip.protocol = IPPROTO_UDP;
	f->ip.saddr = htonl(FTB_SADDR);
	f->udp.source = htons(4096);
	f->udp.len = htons(len);
	f->magic = FTB_MAGIC;
	/* Without the destination's address and port. */
	ftb_ip_sum = csum_partial(&f->ip, sizeof(f->ip), 0);
	ftb_udp_sum = csum_partial(&f->udp, len, csum_tcpudp_nofold(f->ip.saddr, 0, len, IPPROTO_UDP, 0));
}

/* Makes a frame what a driver hands over, whatever forwarding did to it. */
static void ftb_prepare(struct sk_buff *skb, u32 flow)
{
	__be32 daddr = htonl(FTB_DADDR + flow / 1024);
	__be16 dport = htons(1024 + flow % 1024);
	struct ftb_frame *f;
	__wsum sum;

	skb_scrub_packet(skb, true);
	skb->data = skb->head + FTB_HEADROOM;
	skb->len = 0;
	skb_reset_tail_pointer(skb);
	f = __skb_put(skb, sizeof(*f));
	*f = ftb_pristine;
	f->ip.daddr = daddr;
	f->udp.dest = dport;
	sum = csum_add(ftb_ip_sum, (__force __wsum)daddr);
	f->ip.check = csum_fold(sum);
	sum = csum_add(csum_add(ftb_udp_sum, (__force __wsum)daddr), (__force __wsum)dport);
	f->udp.check = csum_fold(sum) ?: CSUM_MANGLED_0;

	skb->protocol = eth_type_trans(skb, ftb_in);
	skb->ip_summed = CHECKSUM_NONE;
	skb->priority = 0;
	skb_clear_hash(skb);
	skb_set_queue_mapping(skb, 0);
	skb_reset_redirect(skb);
	__vlan_hwaccel_clear_tag(skb);
}

/* Time of this CPU that nobody else had. */
static u64 ftb_cpu_ns(void)
{
#if defined(CONFIG_UML) && defined(CONFIG_X86_64)
	struct { long sec, nsec; } ts;
	long ret;

	/* A CPU is a thread of the host, which knows: clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts). */
	asm volatile("syscall" : "=a" (ret) : "0" (228L), "D" (3L), "S" (&ts) : "rcx", "r11", "memory");
	return ret ? 0 : (u64)ts.sec * NSEC_PER_SEC + ts.nsec;
#else
	yield(); /* which brings it up to date */
	return current->se.sum_exec_runtime;
#endif
}

/* Density 1/n: each power of two as often as another, and within one 2^x for a uniform x, as a parabola. */
static u32 ftb_zipf(struct rnd_state *rnd, u32 flows)
{
	u32 n, octave, x, rest;

	do {
		octave = reciprocal_scale(prandom_u32_state(rnd), ilog2(flows) + 1);
		x = prandom_u32_state(rnd) >> 16;
		n = (x * 43019U >> 16) + ((x * x >> 16) * 22517U >> 16);
		n = (1U << octave) + (u32)(((u64)n << octave) >> 16);
	} while (n > flows);
	/* Those that come often are not those that came first, nor neighbours. */
	div_u64_rem(n * 2654435761ULL, flows, &rest);
	return rest;
}

static const char * const ftb_orders[] = { "sequential", "uniform", "zipf" };

static u32 *ftb_make_order(int order, u32 flows, u32 packets, u32 seed)
{
	u32 *list = vmalloc_array(packets, sizeof(*list)), i;
	struct rnd_state rnd;

	if (!list)
		return NULL;
	prandom_seed_state(&rnd, seed);
	for (i = 0; i < packets; i++) {
		if (order == 0)
			list[i] = i % flows;
		else if (order == 1)
			list[i] = reciprocal_scale(prandom_u32_state(&rnd), flows);
		else
			list[i] = ftb_zipf(&rnd, flows);
		if (i % 4096 == 0)
			cond_resched();
	}
	return list;
}

static u32 ftb_batch(const u32 *flow, bool drop, u32 *lost)
{
	struct sk_buff *skb;
	unsigned int i;
	u64 start;

	local_bh_disable();
	WRITE_ONCE(ftb_cpu, smp_processor_id());
	start = ktime_get_ns();
	for (i = 0; i < FTB_BATCH; i++) {
		skb = ftb_take();
		ftb_prepare(skb, flow[i]);
		if (!drop) {
			netif_receive_skb(skb);
			continue;
		}
		skb_get(skb);
		netif_receive_skb(skb);
		if (skb_shared(skb))
			kfree_skb(skb);
		else
			ftb_put(skb);
	}
	start = ktime_get_ns() - start;
	WRITE_ONCE(ftb_cpu, -1);
	*lost += FTB_RING - ftb_count;
	local_bh_enable();
	return min_t(u64, start, U32_MAX);
}

static int ftb_compare(const void *a, const void *b)
{
	return cmp_int(*(const u32 *)a, *(const u32 *)b);
}

static int ftb_run(bool drop, int order, u32 flows, u32 packets, u32 warmup, u32 seed)
{
	u32 n = packets / FTB_BATCH, warm = DIV_ROUND_UP(warmup, FTB_BATCH), i, lost = 0;
	u32 *list = ftb_make_order(order, flows, (n + warm) * FTB_BATCH, seed);
	u32 *times = vmalloc_array(n + warm, sizeof(*times));
	u64 wall = 0, cpu = 0;
	int err = list && times ? 0 : -ENOMEM;

	memset(&ftb_last, 0, sizeof(ftb_last));
	ftb_pristine_init();
	for (i = 0; i < warm + n && !err; i++) {
		if (i == warm) {
			ftb_came_back = 0;
			lost = 0;
			cpu = ftb_cpu_ns();
			wall = ktime_get_ns();
		}
		err = ftb_fill();
		if (!err)
			times[i] = ftb_batch(list + i * FTB_BATCH, drop, &lost);
		cond_resched();
		if (signal_pending(current))
			err = -EINTR;
	}
	if (!err) {
		wall = ktime_get_ns() - wall;
		cpu = ftb_cpu_ns() - cpu;
		sort(times + warm, n, sizeof(*times), ftb_compare, NULL);
		ftb_last = (struct ftb_result) {
			.packets = n * FTB_BATCH, .came_back = ftb_came_back, .lost = lost,
			.wall = wall, .cpu = cpu, .median = times[warm + n / 2],
		};
	}
	/* What they hold is not to outlive the run. */
	while (ftb_count)
		kfree_skb(ftb_take());
	vfree(times);
	vfree(list);
	return err;
}

static ssize_t ftb_write(struct file *file, const char __user *from, size_t len, loff_t *pos)
{
	u32 flows, packets, warmup, seed;
	char line[96] = "", mode[8], name[12];
	int err, order;

	if (len >= sizeof(line))
		return -EINVAL;
	if (copy_from_user(line, from, len))
		return -EFAULT;
	if (sscanf(line, "%7s %11s %u %u %u %u", mode, name, &flows, &packets, &warmup, &seed) != 6)
		return -EINVAL;
	order = match_string(ftb_orders, ARRAY_SIZE(ftb_orders), name);
	if (order < 0 || (strcmp(mode, "drop") && strcmp(mode, "forward")))
		return -EINVAL;
	if (!flows || flows > FTB_MAX_FLOWS || packets < FTB_BATCH || packets > FTB_MAX_PACKETS || warmup > FTB_MAX_PACKETS)
		return -ERANGE;
	if (!netif_running(ftb_in) || !netif_running(ftb_out))
		return -ENETDOWN;
	mutex_lock(&ftb_lock);
	err = ftb_run(mode[0] == 'd', order, flows, packets, warmup, seed);
	mutex_unlock(&ftb_lock);
	return err ?: len;
}

static void ftb_show_ns(struct seq_file *m, const char *name, u64 ns, u32 packets)
{
	u32 rest;
	u64 whole = div_u64_rem(ns, packets, &rest);

	seq_printf(m, " %s %llu.%03u", name, whole, (u32)div_u64(rest * 1000ULL, packets));
}

static int ftb_show(struct seq_file *m, void *unused)
{
	const struct ftb_result *r = &ftb_last;

	mutex_lock(&ftb_lock);
	if (r->packets) {
		seq_printf(m, "packets %u came_back %u lost %u", r->packets, r->came_back, r->lost);
		ftb_show_ns(m, "wall", r->wall, r->packets);
		ftb_show_ns(m, "cpu", r->cpu, r->packets);
		ftb_show_ns(m, "median", r->median, FTB_BATCH);
		seq_putc(m, '\n');
	}
	mutex_unlock(&ftb_lock);
	return 0;
}

DEFINE_SHOW_STORE_ATTRIBUTE(ftb);

static void ftb_remove(struct net_device *dev)
{
	unregister_netdev(dev);
	free_netdev(dev);
}

static int __init ftb_init(void)
{
	int i, err;

	for (i = 0; i < 2; i++) {
		ftb_dev[i] = alloc_netdev(0, i ? "ftb1" : "ftb0", NET_NAME_PREDICTABLE, ftb_setup);
		err = ftb_dev[i] ? register_netdev(ftb_dev[i]) : -ENOMEM;
		if (err) {
			if (ftb_dev[i])
				free_netdev(ftb_dev[i]);
			if (i)
				ftb_remove(ftb_in);
			return err;
		}
	}
	ftb_dir = debugfs_create_dir("ftbench", NULL);
	debugfs_create_file("run", 0600, ftb_dir, NULL, &ftb_fops);
	return 0;
}

static void __exit ftb_exit(void)
{
	debugfs_remove(ftb_dir);
	ftb_remove(ftb_out);
	ftb_remove(ftb_in);
}

module_init(ftb_init);
module_exit(ftb_exit);
MODULE_DESCRIPTION("Benchmark of forwarding, for the selftests of nft_offload");
MODULE_LICENSE("GPL");
