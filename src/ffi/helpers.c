// SPDX-License-Identifier: GPL-2.0
/* C wrappers of what Rust cannot call: static inlines, macros and per-CPU data.
 * No decision is made here; each function is one kernel facility.
 */
#include <linux/netfilter/nfnetlink.h>
#include <linux/ioport.h>
#include <linux/jhash.h>
#include <linux/tcp.h>
#include <net/gso.h>
#include <net/ip.h>
#include <net/ip_tunnels.h>
#include <net/netfilter/nf_conntrack_acct.h>
#include <net/netfilter/nf_conntrack_core.h>
#include <net/netfilter/nf_conntrack_ecache.h>
#include <net/netfilter/nf_conntrack_helper.h>
#include <net/netfilter/nf_conntrack_l4proto.h>
#include <net/netfilter/nf_conntrack_labels.h>
#include <net/netfilter/nf_conntrack_timeout.h>
#include <net/netfilter/nf_conntrack_zones.h>
#include <net/sock.h>
#include <net/xfrm.h>

#include "helpers.h"

/* Statistics */

DEFINE_PER_CPU_ALIGNED(struct nfo_stats, nfo_stats);

void nfo_stat_add(u32 idx, u64 n)
{
	if (likely(idx < NFO_STATS))
		this_cpu_add(nfo_stats.n[idx], n);
}

/* For what is counted with softirqs off only. */
void nfo_stat_inc_bh(u32 idx)
{
	if (idx < NFO_STATS)
		__this_cpu_inc(nfo_stats.n[idx]);
}

void nfo_stat_gone(u64 packets, u64 bytes)
{
	this_cpu_add(nfo_stats.packets, packets);
	this_cpu_add(nfo_stats.bytes, bytes);
}

/* idx NFO_STATS and NFO_STATS + 1 are packets and bytes of flowtables that are gone. */
u64 nfo_stat_sum(u32 idx)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu) {
		const struct nfo_stats *s = per_cpu_ptr(&nfo_stats, cpu);

		if (idx < NFO_STATS)
			sum += s->n[idx];
		else
			sum += idx == NFO_STATS ? s->packets : s->bytes;
	}
	return sum;
}

/* Context */

void nfo_bh_disable(void)
{
	local_bh_disable();
}

void nfo_bh_enable(void)
{
	local_bh_enable();
}

void nfo_cond_resched(void)
{
	cond_resched();
}

/* Socket buffers: all of them off the common path */

bool nfo_skb_pull(struct sk_buff *skb, u32 len)
{
	return pskb_may_pull(skb, len);
}

bool nfo_skb_cow_head(struct sk_buff *skb, u32 headroom)
{
	return !skb_cow_head(skb, headroom);
}

bool nfo_skb_trim(struct sk_buff *skb, u32 len)
{
	return !pskb_trim_rcsum(skb, len);
}

/* As ip_rcv() does. False if a program has given the packet to a socket, which it is on its way
 * to.
 */
bool nfo_skb_detach(struct sk_buff *skb)
{
	if (skb_sk_is_prefetched(skb))
		return false;
	skb_orphan(skb);
	skb_dst_drop(skb);
	return true;
}

/* The outer header is being taken off: what was said of the tunnel is no longer true. */
bool nfo_skb_tunnel_pull(struct sk_buff *skb)
{
	return !iptunnel_pull_offloads(skb);
}

bool nfo_skb_secpath(const struct sk_buff *skb)
{
	return skb_sec_path(skb);
}

bool nfo_skb_ip_options(const struct sk_buff *skb)
{
	return IPCB(skb)->opt.optlen;
}

bool nfo_skb_is_gso_tcp(const struct sk_buff *skb)
{
	return skb_is_gso(skb) && skb_is_gso_tcp(skb);
}

/* Headers are at these offsets from data; the ingress hook may find others recorded. */
bool nfo_skb_segments_fit(struct sk_buff *skb, u32 network, u32 transport, u32 mtu)
{
	const u16 old_network = skb->network_header;
	const u16 old_transport = skb->transport_header;
	bool fit;

	skb_set_network_header(skb, network);
	skb_set_transport_header(skb, transport);
	fit = skb_gso_validate_network_len(skb, mtu);
	skb->network_header = old_network;
	skb->transport_header = old_transport;
	return fit;
}

bool nfo_skb_peek(const struct sk_buff *skb, u32 at, u8 (*bytes)[4])
{
	return !skb_copy_bits(skb, at, bytes, sizeof(*bytes));
}

/* Of a packet in a hook of IPv4 or IPv6: where its transport header is, from data, and which one;
 * or negative.
 */
int nfo_skb_transport(const struct sk_buff *skb, u8 family, u8 *proto)
{
	int at = skb_network_offset(skb);
	__be16 frag;

	if (family == NFPROTO_IPV4) {
		*proto = ip_hdr(skb)->protocol;
		return at + ip_hdrlen(skb);
	}
	*proto = ipv6_hdr(skb)->nexthdr;
	return ipv6_skip_exthdr(skb, at + sizeof(struct ipv6hdr), proto, &frag);
}

bool nfo_skb_tcp(const struct sk_buff *skb, u32 thoff, struct nfo_tcp *tcp)
{
	const struct tcphdr *th;
	struct tcphdr _th;

	th = skb_header_pointer(skb, thoff, sizeof(_th), &_th);
	if (!th)
		return false;
	tcp->flags = ((const u8 *)th)[13];
	tcp->window = ntohs(th->window);
	tcp->ack = ntohl(th->ack_seq);
	tcp->seq = ntohl(th->seq);
	tcp->end = tcp->seq + skb->len - thoff - th->doff * 4 + th->fin;
	return true;
}

/* Priorities */

/* Does forwarding set the priority of IPv4 packets by their TOS field? */
bool nfo_priority_by_tos(const struct net *net)
{
	return READ_ONCE(net->ipv4.sysctl_ip_fwd_update_priority);
}

u8 nfo_tos2priority(u8 tos)
{
	return rt_tos2priority(tos);
}

/* Connection tracking */

void nfo_ct_get(struct nf_conn *ct)
{
	refcount_inc(&ct->ct_general.use);
}

bool nfo_ct_get_unless_zero(struct nf_conn *ct)
{
	return refcount_inc_not_zero(&ct->ct_general.use);
}

/* The entry that conntrack is about to find for a packet in PRE_ROUTING, with a reference, and in
 * which direction it travels; or NULL.
 */
struct nf_conn *nfo_ct_ahead(const struct sk_buff *skb, const struct nf_hook_state *state,
			     u8 *dir)
{
	const struct nf_conntrack_tuple_hash *h;
	struct nf_conntrack_tuple tuple;
	enum ip_conntrack_info ctinfo;
	struct nf_conntrack_zone tmp;
	const struct nf_conn *tmpl;

	tmpl = nf_ct_get(skb, &ctinfo);
	if (ctinfo == IP_CT_UNTRACKED || (tmpl && !nf_ct_is_template(tmpl)))
		return NULL;
	if (!nf_ct_get_tuplepr(skb, skb_network_offset(skb), state->pf, state->net, &tuple))
		return NULL;
	h = nf_conntrack_find_get(state->net, nf_ct_zone_tmpl(tmpl, skb, &tmp), &tuple);
	if (!h)
		return NULL;
	*dir = NF_CT_DIRECTION(h);
	return nf_ct_tuplehash_to_ctrack(h);
}

/* The entry of packets with these addresses (4 or 16 bytes, by family) and ports, in network byte order. */
struct nf_conn *nfo_ct_find(struct net *net, u8 family, u8 l4proto, u16 zone, const u8 *addrs[2],
			    const u16 *ports)
{
	const struct nf_conntrack_tuple_hash *h;
	struct nf_conntrack_tuple tuple = {};
	struct nf_conntrack_zone z;
	size_t len = family == NFPROTO_IPV4 ? sizeof(struct in_addr) : sizeof(struct in6_addr);

	tuple.src.l3num = family;
	tuple.dst.protonum = l4proto;
	memcpy(&tuple.src.u3, addrs[0], len);
	memcpy(&tuple.dst.u3, addrs[1], len);
	tuple.src.u.all = (__force __be16)ports[0];
	tuple.dst.u.all = (__force __be16)ports[1];
	nf_ct_zone_init(&z, zone, NF_CT_DEFAULT_ZONE_DIR, 0);
	h = nf_conntrack_find_get(net, &z, &tuple);
	return h ? nf_ct_tuplehash_to_ctrack(h) : NULL;
}

u16 nfo_ct_zone(const struct nf_conn *ct)
{
	return nf_ct_zone(ct)->id;
}

void nfo_ct_put(struct nf_conn *ct)
{
	nf_ct_put(ct);
}

bool nfo_ct_helper(const struct nf_conn *ct)
{
	return nf_ct_ext_exist(ct, NF_CT_EXT_HELPER);
}

struct nf_conn_counter *nfo_ct_counters(const struct nf_conn *ct)
{
	struct nf_conn_acct *acct = nf_conn_acct_find(ct);

	return acct ? acct->counter : NULL;
}

void nfo_ct_lock(struct nf_conn *ct)
{
	spin_lock_bh(&ct->lock);
}

void nfo_ct_unlock(struct nf_conn *ct)
{
	spin_unlock_bh(&ct->lock);
}

/* False where the kernel was built without marks. */
bool nfo_ct_mark(const struct nf_conn *ct, u32 *mark)
{
#if IS_ENABLED(CONFIG_NF_CONNTRACK_MARK)
	*mark = READ_ONCE(ct->mark);
	return true;
#else
	return false;
#endif
}

/* Without a packet that could carry it along: tells userspace at once. */
void nfo_ct_event(struct nf_conn *ct, u32 event)
{
	nf_conntrack_event(event, ct);
}

/* What rules may have looked at: mark and labels. Two marks never give the same with the same
 * labels.
 */
u32 nfo_ct_marks(const struct nf_conn *ct)
{
	const struct nf_conn_labels *labels = nf_ct_labels_find(ct);
	u32 marks = 0;

	nfo_ct_mark(ct, &marks);
	if (labels)
		marks ^= jhash(labels->bits, sizeof(labels->bits), 0);
	return marks;
}

void nfo_ct_refresh(struct nf_conn *ct, u32 extra)
{
	nf_ct_refresh(ct, extra);
}

/* Timeout in jiffies that conntrack would give an entry in this protocol state: its timeout
 * policy where it has one, else the setting of its network namespace.
 */
u32 nfo_ct_timeout(const struct nf_conn *ct, u32 state)
{
	struct net *net = nf_ct_net(ct);
	const unsigned int *timeouts;
	u32 timeout = 0;

	rcu_read_lock();
	timeouts = nf_ct_timeout_lookup(ct);
	switch (nf_ct_protonum(ct)) {
	case IPPROTO_TCP:
		if (!timeouts)
			timeouts = nf_tcp_pernet(net)->timeouts;
		if (state < TCP_CONNTRACK_TIMEOUT_MAX)
			timeout = READ_ONCE(timeouts[state]);
		break;
	case IPPROTO_UDP:
		if (!timeouts)
			timeouts = nf_udp_pernet(net)->timeouts;
		if (state < UDP_CT_MAX)
			timeout = READ_ONCE(timeouts[state]);
		break;
#ifdef CONFIG_NF_CT_PROTO_SCTP
	case IPPROTO_SCTP:
		if (!timeouts)
			timeouts = nf_sctp_pernet(net)->timeouts;
		if (state < SCTP_CONNTRACK_MAX)
			timeout = READ_ONCE(timeouts[state]);
		break;
#endif
#ifdef CONFIG_NF_CT_PROTO_GRE
	case IPPROTO_GRE:
		/* Copied from the policy when the entry was made, or set by the PPTP helper. */
		timeout = state == GRE_CT_REPLIED ? READ_ONCE(ct->proto.gre.stream_timeout) :
						    READ_ONCE(ct->proto.gre.timeout);
		break;
#endif
	case IPPROTO_ICMP:
		if (!timeouts)
			timeouts = &nf_icmp_pernet(net)->timeout;
		timeout = READ_ONCE(*timeouts);
		break;
#if IS_ENABLED(CONFIG_IPV6)
	case IPPROTO_ICMPV6:
		if (!timeouts)
			timeouts = &nf_icmpv6_pernet(net)->timeout;
		timeout = READ_ONCE(*timeouts);
		break;
#endif
	default:
		if (!timeouts)
			timeouts = &nf_generic_pernet(net)->timeout;
		timeout = READ_ONCE(*timeouts);
		break;
	}
	rcu_read_unlock();
	return timeout;
}

u32 nfo_offload_timeout(struct net *net, u8 l4proto)
{
	switch (l4proto) {
	case IPPROTO_TCP:
	case IPPROTO_SCTP:
		return READ_ONCE(nf_tcp_pernet(net)->offload_timeout);
	}
	return READ_ONCE(nf_udp_pernet(net)->offload_timeout);
}

/* nf_tables */

/* What it calls with an enum is C: clang's control-flow integrity (CONFIG_CFI) tells an enum from
 * the integer that it is in Rust.
 */
void nfo_expr_deactivate(const struct nft_ctx *ctx, const struct nft_expr *expr,
			 enum nft_trans_phase phase)
{
	nfo_deactivate(ctx, expr, phase);
}

int nfo_flowtable_setup(struct nf_flowtable *nf, struct net_device *dev,
			enum flow_block_command cmd)
{
	return nfo_setup(nf, dev, cmd == FLOW_BLOCK_BIND);
}

int nfo_use_inc(struct nft_flowtable *ft)
{
	return nft_use_inc(&ft->use) ? 0 : -EMFILE;
}

void nfo_use_dec(struct nft_flowtable *ft)
{
	nft_use_dec(&ft->use);
}

void nfo_use_restore(struct nft_flowtable *ft)
{
	nft_use_inc_restore(&ft->use);
}

u8 nfo_genmask_next(const struct net *net)
{
	return nft_genmask_next(net);
}

int nfo_put_name(struct sk_buff *skb, int attr, const char *name)
{
	return nla_put_string(skb, attr, name);
}

/* Under rcu_read_lock(), as in the packet path. */
bool nfo_dev_listed(struct nft_flowtable *ft, const struct net_device *dev)
{
	struct nft_hook *hook;

	list_for_each_entry_rcu(hook, &ft->hook_list, list) {
		if (nft_hook_find_ops_rcu(hook, dev))
			return true;
	}
	return false;
}

struct net *nfo_ft_net(const struct nf_flowtable *ft)
{
	return read_pnet(&ft->net);
}

struct net *nfo_dev_net(const struct net_device *dev)
{
	return dev_net(dev);
}

u32 nfo_netns_inum(const struct net *net)
{
	return net->ns.inum;
}

/* The parts of struct nf_flowtable that are ours to use. The flow block is what drivers get. */
/* What nf_flow_table_init() does, with our object where mainline has its hash table. */
void nfo_ft_init(struct nf_flowtable *ft, void *ours)
{
	ft->rhashtable.tbl = ours;
	flow_block_init(&ft->flow_block);
	init_rwsem(&ft->flow_block_lock);
}

/* Numbers, each in use once */

void nfo_numbers_init(struct ida *numbers)
{
	ida_init(numbers);
}

void nfo_numbers_destroy(struct ida *numbers)
{
	ida_destroy(numbers);
}

/* The first free number of a range; -ENOSPC, or -ENOMEM. */
int nfo_number_claim(struct ida *numbers, u32 from, u32 to)
{
	return ida_alloc_range(numbers, from, to, GFP_ATOMIC | __GFP_NOWARN);
}

void nfo_number_free(struct ida *numbers, u32 number)
{
	ida_free(numbers, number);
}

/* Memory */

/* On its own: a flow that was lost is reported when the cache goes. */
struct kmem_cache *nfo_cache_create(const char *name, u32 size)
{
	return kmem_cache_create(name, size, 0,
				 SLAB_HWCACHE_ALIGN | SLAB_NO_MERGE, NULL);
}

void *nfo_cache_zalloc(struct kmem_cache *cache)
{
	return kmem_cache_zalloc(cache, GFP_ATOMIC | __GFP_NOWARN);
}

/* What lies behind a table, to free it when its readers are through: the table itself cannot be
 * written to until then.
 */
struct nfo_table_tail {
	struct rcu_head	rcu;
	void		*table;
};

void *nfo_table_alloc(size_t size)
{
	return kvzalloc(size + sizeof(struct nfo_table_tail), GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
}

void nfo_table_free(void *p)
{
	kvfree(p);
}

static void nfo_table_free_cb(struct rcu_head *rcu)
{
	kvfree(container_of(rcu, struct nfo_table_tail, rcu)->table);
}

void nfo_table_free_rcu(void *p, size_t size)
{
	struct nfo_table_tail *tail = p + size;

	tail->table = p;
	call_rcu(&tail->rcu, nfo_table_free_cb);
}

static struct list_head *nfo_successor(const struct list_head *entry)
{
	struct list_head *next;

	nfnl_lock(NFNL_SUBSYS_NFTABLES);
	next = entry->next;
	nfnl_unlock(NFNL_SUBSYS_NFTABLES);
	return next;
}

/* Register flowtable types in front of others: nf_tables takes the first one of a family. It puts a
 * new one at the end of its list, whose head it does not export; the head is what comes after.
 * Unless another module registers its types at this moment: then not all of ours find the same
 * there.
 */
void nfo_types_register(struct nf_flowtable_type *types, u32 n)
{
	struct list_head *head;
	bool sure;
	u32 i;

	do {
		sure = true;
		head = NULL;
		for (i = 0; i < n; i++) {
			struct list_head *next;

			nft_register_flowtable_type(&types[i]);
			next = nfo_successor(&types[i].list);
			sure &= !i || next == head;
			head = next;
		}
		for (i = 0; !sure && i < n; i++)
			nft_unregister_flowtable_type(&types[i]);
	} while (!sure);

	nfnl_lock(NFNL_SUBSYS_NFTABLES);
	for (i = 0; i < n; i++) {
		list_del_rcu(&types[i].list);
		list_add_rcu(&types[i].list, head);
	}
	nfnl_unlock(NFNL_SUBSYS_NFTABLES);
}

/* Physical addresses */

bool nfo_region_claim(phys_addr_t start, resource_size_t size)
{
	return request_mem_region(start, size, KBUILD_MODNAME);
}

void nfo_region_release(phys_addr_t start, resource_size_t size)
{
	release_mem_region(start, size);
}
