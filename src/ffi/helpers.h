/* SPDX-License-Identifier: GPL-2.0 */
/* C wrappers of what Rust cannot call: static inlines, macros and per-CPU data. */
#ifndef _NFT_OFFLOAD_HELPERS_H
#define _NFT_OFFLOAD_HELPERS_H

#include <linux/idr.h>
#include <linux/netdevice.h>
#include <linux/percpu.h>
#include <linux/skbuff.h>
#include <linux/workqueue.h>
#include <net/flow.h>
#include <net/netfilter/nf_conntrack.h>
#include <net/netfilter/nf_flow_table.h>
#include <net/netfilter/nf_tables.h>

#define NFO_STATS	128

/* The first two are those of flowtables that are gone. */
struct nfo_stats {
	u64	packets;
	u64	bytes;
	u64	n[NFO_STATS];
};

DECLARE_PER_CPU_ALIGNED(struct nfo_stats, nfo_stats);

void nfo_stat_add(u32 idx, u64 n);
void nfo_stat_inc_bh(u32 idx);
void nfo_stat_gone(u64 packets, u64 bytes);
u64 nfo_stat_sum(u32 idx);

struct nfo_sum {
	u64	packets;
	u64	bytes;
};

/* IPv4 and IPv6. Rust adds to them without a call where it can. */
struct nfo_traffic {
	struct nfo_sum	family[2];
};

struct nfo_traffic __percpu *nfo_traffic_alloc(void);
void nfo_traffic_free(struct nfo_traffic __percpu *traffic);
void nfo_traffic_add(struct nfo_traffic __percpu *traffic, bool v6, u32 bytes);
void nfo_traffic_sum(const struct nfo_traffic __percpu *traffic, struct nfo_traffic *sum);
void nfo_mib_add(struct net *net, bool v6, u64 packets, u64 bytes);
extern u32 nfo_device_generation;
void nfo_device_gone(void);
bool nfo_rx_counters(struct net *net, const u32 *devices, u32 n, u32 last, void __percpu **counters);
void nfo_rx_add(void __percpu *counters, u32 bytes);
void nfo_count_rx(struct net *net, const u32 *devices, const u8 *rx_overhead, u32 n, u32 last, u32 bytes);

/* A word of memory, and what it has to be. */
struct nfo_watch {
	const unsigned long	*word;
	unsigned long		value;
};

/* A device above the lowest one: where it counts what it sends, and how many bytes more than the IP packet. */
struct nfo_direct_dev {
	struct net_device	*dev;
	void __percpu		*counters;
	u32			around;
};

/* So many that padding fits. Packets compare zeros four at a time, and watches two at a time. */
#define NFO_DIRECT_WATCHES	32
#define NFO_DIRECT_ZEROS_ROW	4
#define NFO_DIRECT_WATCHES_ROW	2
#define NFO_DIRECT_DEVICES	5

/* How a packet leaves by the lowest device, as long as nobody above would see it. */
struct nfo_direct {
	u32			n_watches;
	u32			n_zeros;
	u32			n_devices;
	const unsigned long	*zeros[NFO_DIRECT_WATCHES];	/* words that have to stay 0 */
	struct nfo_watch	watches[NFO_DIRECT_WATCHES];	/* others */
	struct nfo_direct_dev	devices[NFO_DIRECT_DEVICES];
	struct net_device	*dev;
	struct netdev_queue	*txq;		/* of the device, where the driver can be given packets at once */
	unsigned long		*last_xmit;	/* of PPP */
	const int		*channel;	/* there as long as the watches are as they should be */
	int			channel_index;
	u32			headroom;	/* that the lowest device needs */
	u32			mtu;		/* that it has to have */
	u8			no_families;	/* bits NFO_DIRECT_IPV4 and NFO_DIRECT_IPV6: not these */
	bool			sums;		/* the driver takes packets without checksum */
	bool			gathers;	/* and in fragments */
	bool			push_tag;	/* the outermost VLAN tag as well: the lowest device would not */
	bool			full;
};

#define NFO_DIRECT_IPV4	1
#define NFO_DIRECT_IPV6	2

int nfo_direct_register(void);
void nfo_direct_unregister(void);
bool nfo_direct_station(struct nfo_direct *direct, const u8 *addr);
bool nfo_direct_add(struct net *net, u32 ifindex, u32 around, u16 tag, struct nfo_direct *direct);
bool nfo_direct_finish(struct net *net, u32 ifindex, u16 tag, struct nfo_direct *direct);
void nfo_direct_xmit(struct sk_buff *skb, const struct nfo_direct *direct);
void nfo_direct_count(const struct nfo_direct_dev *upper, u32 len);

void nfo_bh_disable(void);
void nfo_bh_enable(void);
void nfo_cond_resched(void);

/* Of a TCP packet: the sequence numbers of its first byte and after its last one, what it
 * acknowledges, its window field, its flags.
 */
struct nfo_tcp {
	u32	seq;
	u32	end;
	u32	ack;
	u16	window;
	u8	flags;
};

bool nfo_skb_pull(struct sk_buff *skb, u32 len);
bool nfo_skb_cow_head(struct sk_buff *skb, u32 headroom);
bool nfo_skb_trim(struct sk_buff *skb, u32 len);
bool nfo_skb_detach(struct sk_buff *skb);
bool nfo_skb_tunnel_pull(struct sk_buff *skb);
bool nfo_skb_secpath(const struct sk_buff *skb);
bool nfo_ipsec_admits(struct sk_buff *skb, struct dst_entry *dst, u8 family);
void nfo_ipsec_register(void);
void nfo_ipsec_unregister(void);
bool nfo_skb_ip_options(const struct sk_buff *skb);
bool nfo_skb_is_gso_tcp(const struct sk_buff *skb);
bool nfo_skb_segments_fit(struct sk_buff *skb, u32 network, u32 transport, u32 mtu);
bool nfo_skb_peek(const struct sk_buff *skb, u32 at, u8 (*bytes)[4]);
int nfo_skb_transport(const struct sk_buff *skb, u8 family, u8 *proto);
/* Of a packet that leaves. */
struct nfo_left {
	u32	ports;
	u8	ttl;
	bool	has_checksum;	/* of UDP */
	bool	dont_fragment;
};

/* What a packet came in with, and the hash of its key in a flowtable. */
struct nfo_probe {
	u32	fingerprint;
	u32	hash;
	u32	generation;
	u32	mark;
	u32	priority;
	u8	dscp;
	u8	ttl;
	u8	has;
};

void nfo_probe_note(const struct nfo_probe *probe);
bool nfo_probe_noted(u32 fingerprint, u32 hash, struct nfo_probe *probe);
void nfo_skb_left(const struct sk_buff *skb, u32 thoff, struct nfo_left *left);
u32 nfo_skb_fingerprint(const struct sk_buff *skb, u32 network, u32 transport, u8 proto);
bool nfo_skb_tcp(const struct sk_buff *skb, u32 thoff, struct nfo_tcp *tcp);

u32 nfo_max_flows(void);
bool nfo_dscp_restored(void);
bool nfo_priority_by_tos(const struct net *net);
u8 nfo_tos2priority(u8 tos);

bool nfo_dst_hold(struct dst_entry *dst);
struct dst_entry *nfo_route_input(struct net_device *dev, struct flowi *fl, u8 family);
bool nfo_same_nexthop(const struct dst_entry *a, const struct dst_entry *b, u8 family);
bool nfo_dev_is_or_above(const struct net_device *in, u32 ifindex);
bool nfo_skb_source(const struct sk_buff *skb, u8 *mac);
u32 nfo_dst_mtu(struct dst_entry *dst, u8 family);
bool nfo_dst_check(struct dst_entry *dst, u32 cookie);
bool nfo_dst_redirects(const struct dst_entry *dst);
bool nfo_forwards6(struct net *net, u32 ifindex);
bool nfo_dst_xfrm(const struct dst_entry *dst);
u32 nfo_rt6_cookie(const struct dst_entry *dst);
void nfo_neigh_hold(struct neighbour *n);
void nfo_neigh_put(struct neighbour *n);
void nfo_neigh_resolve(struct neighbour *n);
bool nfo_neigh_ha(struct neighbour *n, u8 *ha);
u32 nfo_neigh_key(const struct neighbour *n, u8 (*key)[16]);
void nfo_xfrm_output(struct sk_buff *skb, struct dst_entry *dst, u8 family, u32 thoff);

void nfo_ct_get(struct nf_conn *ct);
struct nf_conn *nfo_ct_ahead(const struct sk_buff *skb, const struct nf_hook_state *state,
			     u8 *dir);
struct nf_conn *nfo_ct_find(struct net *net, u8 family, u8 l4proto, u16 zone, const u8 *addrs[2],
			    const u16 *ports);
u16 nfo_ct_zone(const struct nf_conn *ct);
void nfo_ct_put(struct nf_conn *ct);
bool nfo_ct_get_unless_zero(struct nf_conn *ct);
bool nfo_ct_helper(const struct nf_conn *ct);
struct nf_conn_counter *nfo_ct_counters(const struct nf_conn *ct);
void nfo_ct_lock(struct nf_conn *ct);
void nfo_ct_unlock(struct nf_conn *ct);
void nfo_ct_event(struct nf_conn *ct, u32 event);
void nfo_ct_refresh(struct nf_conn *ct, u32 jiffies);
bool nfo_ct_mark(const struct nf_conn *ct, u32 *mark);
u32 nfo_ct_marks(const struct nf_conn *ct);
u32 nfo_ct_timeout(const struct nf_conn *ct, u32 state);
u32 nfo_offload_timeout(struct net *net, u8 l4proto);

void nfo_expr_deactivate(const struct nft_ctx *ctx, const struct nft_expr *expr,
			 enum nft_trans_phase phase);
int nfo_flowtable_setup(struct nf_flowtable *nf, struct net_device *dev,
			enum flow_block_command cmd);
/* In Rust. */
void nfo_deactivate(const struct nft_ctx *ctx, const struct nft_expr *expr,
		    enum nft_trans_phase phase);
int nfo_setup(struct nf_flowtable *nf, struct net_device *dev, bool bind);

int nfo_use_inc(struct nft_flowtable *ft);
void nfo_use_dec(struct nft_flowtable *ft);
void nfo_use_restore(struct nft_flowtable *ft);
u8 nfo_genmask_next(const struct net *net);
int nfo_put_name(struct sk_buff *skb, int attr, const char *name);
bool nfo_dev_listed(struct nft_flowtable *ft, const struct net_device *dev);
bool nfo_dev_filters(const struct net_device *dev);
struct nf_flowtable;
bool nfo_dev_filters_before(struct net_device *dev, const struct nf_flowtable *ft);
bool nfo_dev_ipsec(const struct net_device *dev);

bool nfo_ppp_filters(const struct net_device *dev);
bool nfo_tunnel_elsewhere(const struct net_device *dev);
bool nfo_tunnel_copies_dscp(const struct net_device *dev);
bool nfo_is_tunnel(const struct net_device *dev);

/* Where the outer packets of a tunnel come in. */
struct nfo_outer {
	struct dst_entry	*dst;
	struct net_device	*dev;
	u8			family;		/* NFPROTO_* */
	u8			remote[16];
};

bool nfo_tunnel_outer(const struct net_device *dev, struct nfo_outer *outer);

struct nfo_follow;
struct nfo_follow *nfo_follow(struct net *net, u32 ifindex, struct nf_flowtable *ft);
bool nfo_unfollow(struct nfo_follow *f);
bool nfo_follow_name(struct nfo_follow *f, char (*name)[IFNAMSIZ]);
void nfo_follow_gone(struct net_device *dev);

struct net *nfo_ft_net(const struct nf_flowtable *ft);
struct net *nfo_dev_net(const struct net_device *dev);
u32 nfo_netns_inum(const struct net *net);

#define NFO_ASKS_IPV4	(1 << 0)
#define NFO_ASKS_IPV6	(1 << 1)
/* Somebody may: RTNL has to be held to see it. */
#define NFO_ASKS_UNSURE	(1 << 2)

/* A device that packets leave by, and of which families somebody asks for their connections. */
struct nfo_asker {
	u32	ifindex;
	u8	asks;
};

u32 nfo_askers(struct net *net, bool rtnl, u32 *next, struct nfo_asker *found, u32 n);
bool nfo_skb_set_ct(struct sk_buff *skb, struct nf_conn *ct, bool reply);

void nfo_bridge_register(void);
void nfo_bridge_unregister(void);
void nfo_bridge_get(void);
void nfo_bridge_put(void);
bool nfo_bridge_passes_up(const struct net_device *bridge, const struct net_device *port, u16 vid,
		       bool tagged_below, bool tagged_above);
bool nfo_bridge_port_forwards(const struct net_device *port);
bool nfo_rtnl_trylock(void);
void nfo_rtnl_unlock(void);
int nfo_switchdev_register(struct notifier_block *nb);
void nfo_switchdev_unregister(struct notifier_block *nb);
int nfo_fdb_register(struct notifier_block *nb);
void nfo_fdb_unregister(struct notifier_block *nb);
bool nfo_fdb_event_matters(unsigned long event);
bool nfo_netevent_matters(unsigned long event, void *info);

void nfo_ft_init(struct nf_flowtable *ft, void *ours);

/* The work of a flowtable: from time to time, and at its end. */
struct nfo_worker {
	struct delayed_work	gc;
	struct rcu_work		end;
	void			*owner;		/* in Rust; NULL before the start */
	void			(*run)(void *owner);
	void			(*over)(void *owner);
};

void nfo_worker_init(struct nfo_worker *worker);
void nfo_worker_start(struct nfo_worker *worker, void *owner, void (*run)(void *owner),
		      void (*over)(void *owner), unsigned long delay);
void nfo_worker_queue(struct nfo_worker *worker, unsigned long delay);
void nfo_worker_kick(struct nfo_worker *worker, unsigned long delay);
void nfo_worker_cancel(struct nfo_worker *worker);
void nfo_worker_finish(struct nfo_worker *worker);

void *nfo_netns(const struct net *net);
int nfo_walk_begin(const struct net *net);
void nfo_walk_end(const struct net *net);
bool nfo_killed(void);

/* What is kept for each network namespace, in Rust. */
struct nfo_netns_ops {
	void	*(*make)(struct net *net);
	void	(*leave)(void *netns);	/* a grace period before it is put */
	void	(*put)(void *netns);
};

int nfo_netns_register(const struct nfo_netns_ops *ops);
void nfo_netns_unregister(void);
const void *nfo_queue(void);

void nfo_numbers_init(struct ida *numbers);
void nfo_numbers_destroy(struct ida *numbers);
int nfo_number_claim(struct ida *numbers, u32 from, u32 to);
void nfo_number_free(struct ida *numbers, u32 number);

struct kmem_cache *nfo_cache_create(const char *name, u32 size);
void *nfo_cache_zalloc(struct kmem_cache *cache);
void *nfo_table_alloc(size_t size);
void nfo_table_free(void *p);
void nfo_table_free_rcu(void *p, size_t size);

/* What an XDP program says of a packet, in network byte order but for the interface. */
struct nfo_xdp_key {
	u32	ifindex;
	u8	family;		/* NFPROTO_* */
	u8	l4proto;
	__be16	sport;
	__be16	dport;
	__be16	vlan_proto;
	__be16	vlan_tci;
	u32	saddr[4];
	u32	daddr[4];
};

struct nfo_xdp_encap {
	u16	id;
	__be16	proto;
};

/* One direction of a flow. */
struct nfo_xdp_tuple {
	u32			in_ifindex;
	u32			out_ifindex;
	u8			h_source[ETH_ALEN];
	u8			h_dest[ETH_ALEN];
	struct nfo_xdp_encap	encap[NF_FLOW_TABLE_ENCAP_MAX];
	u8			encap_num;
	u8			tun_num;
	u8			xmit_type;	/* enum flow_offload_xmit_type */
	u16			mtu;
	u32			cookie;
	struct dst_entry	*dst;
};

struct nfo_xdp_flow {
	struct nf_conn		*ct;
	struct nfo_xdp_tuple	tuple[2];
};

/* In Rust. The direction, or an errno. */
int nfo_xdp_lookup(const struct net_device *dev, const struct nfo_xdp_key *key,
		   struct nfo_xdp_flow *flow);
int nfo_bpf_register(void);

struct nfo_work {
	u32	add;
	u32	del;
	u32	stats;
};

/* In Rust. */
void nfo_work_pending(const struct net *net, struct nfo_work *work);
int nfo_proc_register(void);
void nfo_proc_unregister(void);

const char *nfo_version(void);

struct genl_info;
struct net *nfo_genl_net(const struct genl_info *info);
struct sk_buff *nfo_genl_new(size_t payload);
void nfo_genl_free(struct sk_buff *msg);
struct genl_family;
struct sk_buff *nfo_genl_new_atomic(size_t payload);
bool nfo_genl_listened(const struct genl_family *family, struct net *net, u32 group);
void nfo_genl_multicast(const struct genl_family *family, struct net *net, struct sk_buff *msg, void *hdr,
			u32 group);
void nfo_genl_lost(const struct genl_family *family, struct net *net, u32 group);
int nfo_genl_reply(struct sk_buff *msg, void *hdr, struct genl_info *info);
struct nlattr;
struct netlink_callback;
int nfo_genl_put_uint(struct sk_buff *msg, int type, u64 value);
struct nlattr *nfo_genl_nest(struct sk_buff *msg, int type);
void nfo_genl_nest_end(struct sk_buff *msg, struct nlattr *nest);
const struct genl_info *nfo_genl_dump_info(struct netlink_callback *cb);
unsigned long *nfo_genl_dump_state(struct netlink_callback *cb);
void nfo_genl_dump_changed(struct netlink_callback *cb);
void *nfo_genl_dump_put(struct sk_buff *msg, struct netlink_callback *cb, u8 cmd);
void nfo_genl_dump_end(struct sk_buff *msg, void *hdr);
void nfo_genl_dump_cancel(struct sk_buff *msg, void *hdr);
u32 nfo_dev_ifindex(struct net *net, const char *name);
bool nfo_dev_exists(struct net *net, u32 ifindex);

void nfo_types_register(struct nf_flowtable_type *types, u32 n);

/* A reading of the ruleset, see ruleset.c. */
struct nfo_rules {
	struct net	*net;
	struct sk_buff	*msg;
	u32		generation;
};

enum nfo_expr_kind {
	NFO_EXPR_OTHER,
	NFO_EXPR_RULE,
	NFO_EXPR_VERDICT,
	NFO_EXPR_IMMEDIATE,
	NFO_EXPR_STORE,
	NFO_EXPR_CT,
	NFO_EXPR_META,
	NFO_EXPR_MASK,
	NFO_EXPR_BYTEORDER,
	NFO_EXPR_CMP,
	NFO_EXPR_RANGE,
	NFO_EXPR_LOOKUP,
	NFO_EXPR_UPDATE,
	NFO_EXPR_OBJECT,
	NFO_EXPR_OBJECT_MAP,
	NFO_EXPR_EXTENSION,
	NFO_EXPR_XT_STATE,
};

struct nfo_data {
	u8	bytes[8];
	u8	len;
};

/* An expression: which members mean something depends on its kind. */
struct nfo_expr {
	const struct nft_chain	*chain;
	const struct nft_set	*set;
	u32			kind;
	s32			code;
	u32			from;
	u32			to;
	u32			key;
	u32			value;
	u64			digest;		/* of everything that is in it, except what counts */
	bool			flag;
	bool			vague;		/* it has more than is in the digest */
	struct nfo_data		data[2];
	char			name[32];
};

struct nfo_rule_pos {
	u32	rule;
	u16	expr;
	bool	begun;
};

struct nfo_set {
	char	name[32];
	bool	moves;
	bool	stateful;
};

u32 nfo_drop_policies(const struct net *net);

int nfo_rules_begin(struct nfo_rules *r, struct net *net, u32 gen);
void nfo_rules_end(struct nfo_rules *r);
int nfo_rules_enter(const struct nfo_rules *r);
int nfo_rules_in_force(const struct nfo_rules *r);
int nfo_rules_base(const struct nfo_rules *r, bool v6, u32 n, const struct nft_chain **chain);
int nfo_rules_next(const struct nfo_rules *r, const struct nft_chain *chain,
		   struct nfo_rule_pos *at, struct nfo_expr *e);
int nfo_rules_set(const struct nfo_rules *r, const struct nft_set *set, struct nfo_set *about);
int nfo_rules_find(const struct nfo_rules *r, const struct nft_set *set, u32 key, u8 len,
		   struct nfo_expr *e);
int nfo_rules_targets(const struct nfo_rules *r, const struct nft_set *set, void *ctx,
		      int (*want)(void *ctx, const struct nft_chain *chain));
int nfo_rules_set_digest(const struct nfo_rules *r, const struct nft_set *set, void *ctx,
			 int (*want)(void *ctx, const struct nft_chain *chain), u64 *sum);
int nfo_rules_bases(const struct nfo_rules *r, bool v4, bool v6, void *ctx,
		    int (*want)(void *ctx, const struct nft_chain *chain, u64 where));
int nfo_rules_chain_digest(const struct nfo_rules *r, const struct nft_chain *chain, u64 *sum);

bool nfo_region_claim(phys_addr_t start, resource_size_t size);
void nfo_region_release(phys_addr_t start, resource_size_t size);

#endif
