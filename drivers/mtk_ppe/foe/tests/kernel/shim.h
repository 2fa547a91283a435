/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the kernel's mtk_ppe.c, mtk_ppe_offload.c and mtk_ppe_debugfs.c need of the kernel, for
 * compiling them, unmodified, into a library for the differential test. Written for the test;
 * the kernel's headers are not used, except for parts of mtk_eth_soc.h that the test cuts out.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16, __be16;
typedef uint32_t u32, __be32;
typedef uint64_t u64;
typedef int8_t s8;
typedef u64 dma_addr_t;

#define __iomem
#define __packed __attribute__((packed))
#define GFP_KERNEL 0
#define GFP_ATOMIC 0
#define HZ 250
#define S_IRUGO 0444
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define fallthrough __attribute__((fallthrough))
#define likely(x) (x)
#define unlikely(x) (x)
#define READ_ONCE(x) (*(volatile __typeof__(x) *)&(x))
#define wmb() __sync_synchronize()
#define dma_wmb() __sync_synchronize()
#define WARN_ON(x) (!!(x) && ++orc_warnings)
#define WARN_ON_ONCE(x) WARN_ON(x)
#define DEFINE_SPINLOCK(n) int n
#define DEFINE_MUTEX(n) int n
#define spin_lock_bh(l) ((void)(l))
#define spin_unlock_bh(l) ((void)(l))
#define mutex_lock(l) ((void)(l))
#define mutex_unlock(l) ((void)(l))
#define rcu_read_lock() ((void)0)
#define rcu_read_unlock() ((void)0)
#define usleep_range(a, b) ((void)0)
#define jiffies orc_jiffies
#define dev_err(d, ...) ((void)(d))
#define ERR_PTR(e) ((void *)(long)(e))
#define PTR_ERR(p) ((int)(long)(p))
#define IS_ERR(p) ((unsigned long)(p) >= (unsigned long)-4095)
#define container_of(p, t, m) ((t *)((char *)(p) - offsetof(t, m)))

extern unsigned long orc_warnings, orc_jiffies;

/* Which board it is, is decided when the library runs. */
extern int orc_is_mt7621;
#define IS_ENABLED(option) (option)
#define CONFIG_SOC_MT7621 orc_is_mt7621
#define CONFIG_NET_DSA 1
#define CONFIG_NET_MEDIATEK_SOC_WED 1

#define BIT(n) (1u << (n))
#define GENMASK(h, l) (((~0u) << (l)) & (~0u >> (31 - (h))))
#define FIELD_PREP(m, v) (((u32)(v) << __builtin_ctz(m)) & (m))
#define FIELD_GET(m, v) (((u32)(v) & (m)) >> __builtin_ctz(m))

#define htons(x) ((__be16)__builtin_bswap16(x))
#define ntohs(x) __builtin_bswap16(x)
#define htonl(x) __builtin_bswap32(x)
#define ntohl(x) __builtin_bswap32(x)
#define cpu_to_be16 htons
#define be16_to_cpu ntohs
#define be32_to_cpu ntohl
#define ETH_ALEN 6
#define ETH_HLEN 14
#define VLAN_HLEN 4
#define VLAN_VID_MASK 0x0fff
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define ETH_P_8021Q 0x8100
#define ETH_P_PPP_SES 0x8864
#define ETH_P_XDSA 0x00f8
#define IPPROTO_UDP 17
#define IPV6_ADDR_WORDS 4

struct ethhdr { u8 h_dest[6], h_source[6]; __be16 h_proto; };
struct iphdr { u8 head[12]; __be32 saddr, daddr; };
struct in6_addr { union { u8 b[16]; __be32 s6_addr32[4]; }; };

static inline u16 get_unaligned_be16(const void *p) { const u8 *b = p; return b[0] << 8 | b[1]; }
static inline u32 get_unaligned_be32(const void *p)
{
	return (u32)get_unaligned_be16(p) << 16 | get_unaligned_be16((const u8 *)p + 2);
}
static inline void ether_addr_copy(u8 *d, const u8 *s) { memcpy(d, s, ETH_ALEN); }
static inline bool is_multicast_ether_addr(const u8 *a) { return a[0] & 1; }
static inline bool is_valid_ether_addr(const u8 *a)
{
	static const u8 zero[ETH_ALEN];

	return !(a[0] & 1) && memcmp(a, zero, ETH_ALEN);
}
static inline void ipv6_addr_be32_to_cpu(u32 *d, const __be32 *s) { for (int i = 0; i < 4; i++) d[i] = ntohl(s[i]); }
static inline void ipv6_addr_cpu_to_be32(__be32 *d, const u32 *s) { for (int i = 0; i < 4; i++) d[i] = htonl(s[i]); }

/* Lists and hash tables: as slow as can be. */
struct hlist_node { struct hlist_node *next, **pprev; };
struct hlist_head { struct hlist_node *first; };
struct list_head { struct list_head *next, *prev; };
#define LIST_HEAD(n) struct list_head n = { &n, &n }

static inline void hlist_add_head(struct hlist_node *n, struct hlist_head *h)
{
	n->next = h->first;
	if (n->next)
		n->next->pprev = &n->next;
	h->first = n;
	n->pprev = &h->first;
}
static inline void hlist_del_init(struct hlist_node *n)
{
	if (!n->pprev)
		return;
	*n->pprev = n->next;
	if (n->next)
		n->next->pprev = n->pprev;
	n->next = NULL;
	n->pprev = NULL;
}
#define hlist_entry_safe(p, t, m) ({ __typeof__(p) p_ = (p); p_ ? container_of(p_, t, m) : NULL; })
#define hlist_for_each_entry_safe(pos, n, head, m)				\
	for (pos = hlist_entry_safe((head)->first, __typeof__(*pos), m);	\
	     pos && ({ n = pos->m.next; 1; });					\
	     pos = hlist_entry_safe(n, __typeof__(*pos), m))

struct rhash_head { struct rhash_head *next; };
struct rhashtable { struct rhash_head *first; };
struct rhashtable_params { unsigned int head_offset, key_offset, key_len; bool automatic_shrinking; };

static inline int rhashtable_init(struct rhashtable *t, const struct rhashtable_params *p)
{
	(void)p;
	t->first = NULL;
	return 0;
}
static inline void rhashtable_destroy(struct rhashtable *t) { t->first = NULL; }
static inline void *rhashtable_lookup(struct rhashtable *t, const void *key, struct rhashtable_params p)
{
	for (struct rhash_head *h = t->first; h; h = h->next) {
		char *obj = (char *)h - p.head_offset;

		if (!memcmp(obj + p.key_offset, key, p.key_len))
			return obj;
	}
	return NULL;
}
#define rhashtable_lookup_fast rhashtable_lookup
static inline int rhashtable_insert_fast(struct rhashtable *t, struct rhash_head *h, struct rhashtable_params p)
{
	(void)p;
	h->next = t->first;
	t->first = h;
	return 0;
}
static inline int rhashtable_remove_fast(struct rhashtable *t, struct rhash_head *h, struct rhashtable_params p)
{
	(void)p;
	for (struct rhash_head **at = &t->first; *at; at = &(*at)->next)
		if (*at == h) {
			*at = h->next;
			return 0;
		}
	return -ENOENT;
}
static inline void *rhashtable_lookup_get_insert_fast(struct rhashtable *t, struct rhash_head *h,
						      struct rhashtable_params p)
{
	void *old = rhashtable_lookup(t, (char *)h - p.head_offset + p.key_offset, p);

	if (!old)
		rhashtable_insert_fast(t, h, p);
	return old;
}
static inline int rhashtable_replace_fast(struct rhashtable *t, struct rhash_head *old, struct rhash_head *new,
					  struct rhashtable_params p)
{
	int err = rhashtable_remove_fast(t, old, p);

	return err ?: rhashtable_insert_fast(t, new, p);
}

/* Memory, remembered so that a run can be thrown away as a whole. */
void *orc_alloc(size_t size);
#define kzalloc_obj(o, ...) orc_alloc(sizeof(o))
#define devm_kzalloc(d, size, gfp) orc_alloc(size)
#define kfree(p) ((void)(p))
static inline void *dmam_alloc_coherent(void *dev, size_t size, dma_addr_t *phys, int gfp)
{
	(void)gfp;
	(void)dev;
	*phys = size == 16384 * 16 ? 0x41000000 : 0x40000000;
	return orc_alloc(size);
}

/* Registers. */
u32 orc_read(void *addr);
void orc_write(u32 val, void *addr);
#define readl(a) orc_read(a)
#define writel(v, a) orc_write(v, a)
#define readl_poll_timeout(a, val, cond, step, max) ({ (val) = readl(a); (cond) ? 0 : -ETIMEDOUT; })

/* Devices. */
struct device { int unused; };
struct net_device_ops { int unused; };
struct dsa_device_ops { int proto; };
struct net_device;
struct dsa_port {
	int index;
	struct dsa_port *cpu_dp;
	const struct dsa_device_ops *tag_ops;
	struct net_device *conduit;
};
struct net_device {
	int ifindex;
	const struct net_device_ops *netdev_ops;
	struct dsa_port *dsa_ptr;	/* of a conduit */
	struct dsa_port *dp;		/* of a port */
	void *priv;
	bool wdma;
};
struct net { int unused; };
extern struct net init_net;
struct net_device *__dev_get_by_index(struct net *net, int ifindex);
static inline void *netdev_priv(const struct net_device *d) { return d->priv; }
static inline bool netdev_uses_dsa(const struct net_device *d) { return d->dsa_ptr; }
static inline struct dsa_port *dsa_port_from_netdev(struct net_device *d) { return d && d->dp ? d->dp : ERR_PTR(-ENODEV); }
static inline struct net_device *dsa_port_to_conduit(struct dsa_port *dp) { return dp->conduit; }
#define DSA_TAG_PROTO_MTK 9
#define tc_can_offload(d) ((void)(d), true)

enum { DEV_PATH_ETHERNET, DEV_PATH_MTK_WDMA };
struct net_device_path {
	int type;
	struct { u8 wdma_idx, queue; u16 wcid; u8 bss, amsdu; } mtk_wdma;
};
struct net_device_path_stack { int num_paths; struct net_device_path path[5]; };
struct net_device_path_ctx { const struct net_device *dev; u8 daddr[ETH_ALEN]; };
int dev_fill_forward_path(struct net_device_path_ctx *ctx, struct net_device_path_stack *stack);
#define dev_fill_forward_path_release(s) ((void)(s))
struct mtk_wdma_info { u8 wdma_idx, queue; u16 wcid; u8 bss, amsdu; };
static inline int mtk_wed_flow_add(int i) { (void)i; return 0; }
static inline void mtk_wed_flow_remove(int i) { (void)i; }

struct sk_buff { struct net_device *dev; __be16 protocol; u8 *data; u8 *mac; void *md; };
static inline struct ethhdr *eth_hdr(const struct sk_buff *s) { return (struct ethhdr *)s->mac; }
static inline void *skb_metadata_dst(const struct sk_buff *s) { return s->md; }

/* Rules. */
enum {
	FLOW_DISSECTOR_KEY_CONTROL, FLOW_DISSECTOR_KEY_BASIC, FLOW_DISSECTOR_KEY_IPV4_ADDRS,
	FLOW_DISSECTOR_KEY_IPV6_ADDRS, FLOW_DISSECTOR_KEY_PORTS, FLOW_DISSECTOR_KEY_ETH_ADDRS,
	FLOW_DISSECTOR_KEY_VLAN, FLOW_DISSECTOR_KEY_META,
};
enum { FLOW_ACTION_MANGLE, FLOW_ACTION_REDIRECT, FLOW_ACTION_CSUM, FLOW_ACTION_VLAN_PUSH, FLOW_ACTION_VLAN_POP,
       FLOW_ACTION_PPPOE_PUSH, FLOW_ACTION_TUNNEL_ENCAP };
enum { FLOW_ACT_MANGLE_HDR_TYPE_ETH, FLOW_ACT_MANGLE_HDR_TYPE_IP4, FLOW_ACT_MANGLE_HDR_TYPE_IP6,
       FLOW_ACT_MANGLE_HDR_TYPE_TCP, FLOW_ACT_MANGLE_HDR_TYPE_UDP };
enum tc_setup_type { TC_SETUP_BLOCK, TC_SETUP_FT, TC_SETUP_CLSFLOWER };
enum { FLOW_CLS_REPLACE, FLOW_CLS_DESTROY, FLOW_CLS_STATS };
enum { FLOW_BLOCK_BIND, FLOW_BLOCK_UNBIND };
enum { FLOW_BLOCK_BINDER_TYPE_CLSACT_INGRESS = 1 };

struct flow_dissector_key_meta { int ingress_ifindex; };
struct flow_dissector_key_control { u16 addr_type; u32 flags; };
struct flow_dissector_key_basic { __be16 n_proto; u8 ip_proto; };
struct flow_dissector_key_ipv4 { __be32 src, dst; };
struct flow_dissector_key_ipv6 { struct in6_addr src, dst; };
struct flow_dissector_key_ports { __be16 src, dst; };
struct flow_dissector_key_eth { u8 dst[6], src[6]; };
struct flow_dissector_key_vlan { u16 vlan_id; __be16 vlan_tpid; };
struct flow_keys_ {
	struct flow_dissector_key_meta meta;
	struct flow_dissector_key_control control;
	struct flow_dissector_key_basic basic;
	struct flow_dissector_key_ipv4 ipv4_addrs;
	struct flow_dissector_key_ipv6 ipv6_addrs;
	struct flow_dissector_key_ports ports;
	struct flow_dissector_key_eth eth_addrs;
	struct flow_dissector_key_vlan vlan;
};
struct flow_action_entry {
	int id;
	union {
		struct net_device *dev;
		struct { int htype; u32 offset, mask, val; } mangle;
		struct { u16 vid; __be16 proto; u8 prio; } vlan;
		struct { u16 sid; } pppoe;
	};
};
struct flow_action { unsigned int num_entries; struct flow_action_entry entries[24]; };
struct flow_rule { unsigned int used; struct flow_keys_ key, mask; struct flow_action action; };
#define flow_action_for_each(i, act, a) \
	for (i = 0, act = &(a)->entries[0]; i < (int)(a)->num_entries; act = &(a)->entries[++i])
static inline bool flow_rule_match_key(const struct flow_rule *r, int key) { return r->used & BIT(key); }
#define MATCH(name, type)							\
	struct flow_match_##name { struct type *key, *mask; };			\
	static inline void flow_rule_match_##name(const struct flow_rule *r, struct flow_match_##name *m) \
	{									\
		m->key = (struct type *)&r->key.name;				\
		m->mask = (struct type *)&r->mask.name;				\
	}
MATCH(meta, flow_dissector_key_meta)
MATCH(control, flow_dissector_key_control)
MATCH(basic, flow_dissector_key_basic)
MATCH(ipv4_addrs, flow_dissector_key_ipv4)
MATCH(ipv6_addrs, flow_dissector_key_ipv6)
MATCH(ports, flow_dissector_key_ports)
MATCH(eth_addrs, flow_dissector_key_eth)
MATCH(vlan, flow_dissector_key_vlan)
#define flow_rule_has_control_flags(flags, extack) ((void)(extack), (flags) != 0)

struct flow_stats { u64 pkts, bytes, lastused; };
struct flow_cls_offload {
	struct { void *extack; } common;
	int command;
	unsigned long cookie;
	struct flow_rule *rule;
	struct flow_stats stats;
};
#define flow_cls_offload_flow_rule(f) ((f)->rule)
typedef int flow_setup_cb_t(enum tc_setup_type type, void *type_data, void *cb_priv);
struct flow_block_cb { struct list_head driver_list; };
struct flow_block_offload { int command, binder_type; void *block; struct list_head *driver_block_list; };
#define flow_block_cb_lookup(b, cb, i) ((void)(cb), (void)(i), (struct flow_block_cb *)NULL)
#define flow_block_cb_alloc(cb, i, p, r) ((struct flow_block_cb *)ERR_PTR(-ENOMEM))
#define flow_block_cb_incref(b) ((void)(b))
#define flow_block_cb_decref(b) 1
#define flow_block_cb_add(b, f) ((void)(b))
#define flow_block_cb_remove(b, f) ((void)(b))
#define list_add_tail(a, b) ((void)(a))
#define list_del(a) ((void)(a))

/* debugfs */
struct dentry { int unused; };
struct file_operations { int unused; };
struct seq_file { void *private; char *buf; size_t size, len; };
void seq_printf(struct seq_file *m, const char *fmt, ...);
#define DEFINE_SHOW_ATTRIBUTE(n) static const struct file_operations n##_fops = { sizeof(n##_show) }
#define debugfs_create_dir(n, p) ((struct dentry *)NULL)
#define debugfs_create_file(...) ((void)0)

/* In the place of mtk_eth_soc.h and mtk_wed.h. */
#define MTK_ETH_H
#define __MTK_WED_PRIV_H
struct mtk_soc_data { int version, offload_version, hash_offset, foe_entry_size, ppe_num; bool has_accounting; };
struct mtk_ppe;
struct mtk_eth {
	struct device *dev;
	const struct mtk_soc_data *soc;
	struct net_device *netdev[3];
	struct mtk_ppe *ppe[3];
	struct rhashtable flow_table;
};
struct mtk_mac { int ppe_idx; struct mtk_eth *hw; };
u32 mtk_r32(struct mtk_eth *eth, unsigned int reg);
#include "mtk_ppe.h"
#include "mtk_eth_soc_parts.h"
