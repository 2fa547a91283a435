// SPDX-License-Identifier: GPL-2.0
/* Looks each packet up in the flowtables, and notes what it is told. With "forward" set it
 * forwards packets that need neither NAT nor a tag itself. Compiled by xdp.sh.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/in.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#define AF_INET		2
#define AF_INET6	10

struct bpf_flowtable_opts___local {
	__s32 error;
};

/* What is looked at; libbpf finds the places in the kernel's types. */
struct flow_offload_tuple {
	union {
		struct in6_addr	src_v6;
	};
	union {
		struct in6_addr	dst_v6;
	};
	struct {
		__u16	src_port;
		__u16	dst_port;
	};
	struct {
		__u16	id;
		__be16	proto;
	} encap[2];
	__u16	dir:2, xmit_type:3, encap_num:2;
	union {
		struct {
			__u32	ifidx;
			__u8	h_source[ETH_ALEN];
			__u8	h_dest[ETH_ALEN];
		} out;
	};
} __attribute__((preserve_access_index));

struct flow_offload_tuple_rhash {
	struct flow_offload_tuple tuple;
} __attribute__((preserve_access_index));

struct flow_offload {
	struct flow_offload_tuple_rhash tuplehash[2];
	unsigned long flags;
} __attribute__((preserve_access_index));

/* Ours and the in-tree one. */
struct flow_offload_tuple_rhash *
bpf_xdp_nft_flow_lookup(struct xdp_md *, struct bpf_fib_lookup *,
			struct bpf_flowtable_opts___local *, __u32) __ksym __weak;
struct flow_offload_tuple_rhash *
bpf_xdp_flow_lookup(struct xdp_md *, struct bpf_fib_lookup *,
		    struct bpf_flowtable_opts___local *, __u32) __ksym __weak;

static __always_inline struct flow_offload_tuple_rhash *
lookup(struct xdp_md *ctx, struct bpf_fib_lookup *tuple,
       struct bpf_flowtable_opts___local *opts, __u32 size)
{
#ifndef INTREE_NAME
	if (bpf_ksym_exists(bpf_xdp_nft_flow_lookup))
		return bpf_xdp_nft_flow_lookup(ctx, tuple, opts, size);
#endif
	if (bpf_ksym_exists(bpf_xdp_flow_lookup))
		return bpf_xdp_flow_lookup(ctx, tuple, opts, size);
	return NULL;
}

struct told {
	__u32	seen, hits, forwarded;
	__s32	error, wrong_size;
	__u32	dir, xmit_type, ifidx;
	__u32	encap, encaps;		/* that packets have on the other side */
	__u32	snat, dnat;
	__u32	other_src[4], other_dst[4];
	__u16	other_sport, other_dport;
	__u8	h_source[ETH_ALEN], h_dest[ETH_ALEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct told);
	__uint(max_entries, 1);
} told SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1);
} forward SEC(".maps");

struct tag {
	__be16 tci, proto;
};

SEC("xdp")
int xdp_flow(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end, *data = (void *)(long)ctx->data;
	struct bpf_fib_lookup tuple = { .ifindex = ctx->ingress_ifindex };
	struct bpf_flowtable_opts___local opts = {};
	struct flow_offload_tuple_rhash *th;
	struct flow_offload_tuple *this, *other;
	struct ethhdr *eth = data;
	struct flow_offload *flow;
	struct iphdr *iph = NULL;
	struct told *t;
	__u32 zero = 0, *fwd;
	__be16 proto, *ports;
	unsigned long flags;
	void *l3 = eth + 1;

	if (l3 > end)
		return XDP_PASS;
	proto = eth->h_proto;
	if (proto == bpf_htons(ETH_P_8021Q)) {
		struct tag *tag = l3;

		l3 = tag + 1;
		if (l3 > end)
			return XDP_PASS;
		tuple.h_vlan_proto = proto;
		tuple.h_vlan_TCI = tag->tci;
		proto = tag->proto;
	}
	if (proto == bpf_htons(ETH_P_IP)) {
		iph = l3;
		ports = l3 + sizeof(*iph);
		if ((void *)(ports + 2) > end || iph->ihl != 5 || iph->protocol != IPPROTO_UDP)
			return XDP_PASS;
		tuple.family = AF_INET;
		tuple.l4_protocol = iph->protocol;
		tuple.ipv4_src = iph->saddr;
		tuple.ipv4_dst = iph->daddr;
	} else if (proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip6 = l3;

		ports = l3 + sizeof(*ip6);
		if ((void *)(ports + 2) > end || ip6->nexthdr != IPPROTO_UDP)
			return XDP_PASS;
		tuple.family = AF_INET6;
		tuple.l4_protocol = ip6->nexthdr;
		__builtin_memcpy(tuple.ipv6_src, &ip6->saddr, sizeof(tuple.ipv6_src));
		__builtin_memcpy(tuple.ipv6_dst, &ip6->daddr, sizeof(tuple.ipv6_dst));
	} else {
		return XDP_PASS;
	}
	tuple.sport = ports[0];
	tuple.dport = ports[1];

	t = bpf_map_lookup_elem(&told, &zero);
	fwd = bpf_map_lookup_elem(&forward, &zero);
	if (!t || !fwd)
		return XDP_PASS;
	__sync_fetch_and_add(&t->seen, 1);

	lookup(ctx, &tuple, &opts, sizeof(opts) + 1);
	t->wrong_size = opts.error;
	opts.error = 0;
	th = lookup(ctx, &tuple, &opts, sizeof(opts));
	t->error = opts.error;
	if (!th)
		return XDP_PASS;
	__sync_fetch_and_add(&t->hits, 1);

	this = (void *)th + bpf_core_field_offset(struct flow_offload_tuple_rhash, tuple);
	t->dir = BPF_CORE_READ_BITFIELD_PROBED(this, dir);
	t->xmit_type = BPF_CORE_READ_BITFIELD_PROBED(this, xmit_type);
	t->ifidx = BPF_CORE_READ(th, tuple.out.ifidx);
	BPF_CORE_READ_INTO(&t->h_source, th, tuple.out.h_source);
	BPF_CORE_READ_INTO(&t->h_dest, th, tuple.out.h_dest);

	/* The flow is around its two directions. */
	flow = (void *)th - (t->dir & 1) * bpf_core_type_size(struct flow_offload_tuple_rhash) -
	       bpf_core_field_offset(struct flow_offload, tuplehash);
	bpf_core_read(&flags, sizeof(flags), (void *)flow + bpf_core_field_offset(struct flow_offload, flags));
	t->snat = flags & 1;
	t->dnat = flags >> 1 & 1;
	other = (void *)flow + (1 - (t->dir & 1)) * bpf_core_type_size(struct flow_offload_tuple_rhash) +
		bpf_core_field_offset(struct flow_offload_tuple_rhash, tuple);
	t->encaps = BPF_CORE_READ_BITFIELD_PROBED(other, encap_num);
	t->encap = BPF_CORE_READ(other, encap[0].id);
	bpf_core_read(&t->other_src, sizeof(t->other_src), &other->src_v6);
	bpf_core_read(&t->other_dst, sizeof(t->other_dst), &other->dst_v6);
	t->other_sport = BPF_CORE_READ(other, src_port);
	t->other_dport = BPF_CORE_READ(other, dst_port);

	if (*fwd && iph && iph->ttl > 1 && !t->snat && !t->dnat && !t->encaps) {
		__u32 sum = iph->check + bpf_htons(0x0100);

		__builtin_memcpy(eth->h_source, t->h_source, ETH_ALEN);
		__builtin_memcpy(eth->h_dest, t->h_dest, ETH_ALEN);
		iph->check = sum + (sum >= 0xffff);
		iph->ttl--;
		__sync_fetch_and_add(&t->forwarded, 1);
		return bpf_redirect(t->ifidx, 0);
	}
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
