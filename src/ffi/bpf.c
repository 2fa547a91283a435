// SPDX-License-Identifier: GPL-2.0
/* bpf_xdp_nft_flow_lookup() for XDP programs: what bpf_xdp_flow_lookup() of nf_flow_table.ko is, with
 * the same types, so that the same code uses either. It cannot have the same name: the kernel
 * refuses a module that has a function in its BTF which another module has as well
 * (btf_check_kfunc_name()), so that nf_flow_table.ko, which act_ct needs, could not be loaded
 * beside this module. Who does not need that has the name from intree_xdp.c, in a module of its
 * own.
 *
 * The flows of this module do not look like struct flow_offload. The one that a program gets is
 * made for it, and is valid until its next lookup. Beyond what nf_flow_table.ko gives:
 *
 *  - A tag in fib_tuple->h_vlan_proto and h_vlan_TCI is part of what is looked for.
 *  - out.h_source and out.h_dest are filled in as well where xmit_type is NEIGH.
 *  - No flow is found for a packet that the flowtable itself would not forward at this moment: the
 *    ruleset or a route has changed, the neighbour is not known, a bridge is to see its station.
 */
#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include <net/netfilter/nf_conntrack.h>
#include <net/xdp.h>

#include "helpers.h"
#include "xdp.h"

static DEFINE_PER_CPU(struct flow_offload, nfo_xdp_answer);

static void nfo_xdp_fill(struct flow_offload_tuple *t, const struct nf_conn *ct, int dir,
			 const struct nfo_xdp_tuple *tuple)
{
	const struct nf_conntrack_tuple *ctt = &ct->tuplehash[dir].tuple;
	int i;

	memset(t, 0, sizeof(*t));
	switch (ctt->src.l3num) {
	case NFPROTO_IPV4:
		t->src_v4 = ctt->src.u3.in;
		t->dst_v4 = ctt->dst.u3.in;
		break;
	case NFPROTO_IPV6:
		t->src_v6 = ctt->src.u3.in6;
		t->dst_v6 = ctt->dst.u3.in6;
		break;
	}
	t->src_port = ctt->src.u.tcp.port;
	t->dst_port = ctt->dst.u.tcp.port;
	t->l3proto = ctt->src.l3num;
	t->l4proto = ctt->dst.protonum;
	t->iifidx = tuple->in_ifindex;
	for (i = 0; i < tuple->encap_num; i++) {
		t->encap[i].id = tuple->encap[i].id;
		t->encap[i].proto = tuple->encap[i].proto;
	}
	t->encap_num = tuple->encap_num;
	t->tun_num = tuple->tun_num;
	t->dir = dir;
	t->xmit_type = tuple->xmit_type;
	t->mtu = tuple->mtu;
	t->dst_cache = tuple->dst;
	t->dst_cookie = tuple->cookie;
	t->out.ifidx = tuple->out_ifindex;
	ether_addr_copy(t->out.h_source, tuple->h_source);
	ether_addr_copy(t->out.h_dest, tuple->h_dest);
}

__bpf_kfunc_start_defs();

/**
 * bpf_xdp_nft_flow_lookup() - find the flow that a packet belongs to
 * @ctx: the packet; flowtables of its device are asked
 * @fib_tuple: family, l4_protocol, ports, addresses and ifindex of the packet; h_vlan_proto and
 *	h_vlan_TCI of its outer tag, or zeroes
 * @opts: error is set when there is no flow
 * @opts_len: size of @opts
 *
 * Return: the packet's direction in a struct flow_offload which has the other direction (NAT) and
 * the flags NF_FLOW_SNAT and NF_FLOW_DNAT as well, NULL if the packet is to be passed on.
 */
__bpf_kfunc struct flow_offload_tuple_rhash *
bpf_xdp_nft_flow_lookup(struct xdp_md *ctx, struct bpf_fib_lookup *fib_tuple,
			struct bpf_flowtable_opts *opts, u32 opts_len)
{
	const struct xdp_buff *xdp = (struct xdp_buff *)ctx;
	struct nfo_xdp_key key = {
		.ifindex	= fib_tuple->ifindex,
		.l4proto	= fib_tuple->l4_protocol,
		.sport		= fib_tuple->sport,
		.dport		= fib_tuple->dport,
		.vlan_proto	= fib_tuple->h_vlan_proto,
		.vlan_tci	= fib_tuple->h_vlan_TCI,
	};
	struct flow_offload *answer;
	struct nfo_xdp_flow flow;
	int dir;

	if (opts_len != sizeof(*opts)) {
		opts->error = -EINVAL;
		return NULL;
	}
	/* Another program may run on this CPU before this one has used its answer. */
	if (IS_ENABLED(CONFIG_PREEMPT_RT)) {
		opts->error = -EOPNOTSUPP;
		return NULL;
	}
	switch (fib_tuple->family) {
	case AF_INET:
		key.family = NFPROTO_IPV4;
		key.saddr[0] = (__force u32)fib_tuple->ipv4_src;
		key.daddr[0] = (__force u32)fib_tuple->ipv4_dst;
		break;
	case AF_INET6:
		key.family = NFPROTO_IPV6;
		memcpy(key.saddr, fib_tuple->ipv6_src, sizeof(key.saddr));
		memcpy(key.daddr, fib_tuple->ipv6_dst, sizeof(key.daddr));
		break;
	default:
		opts->error = -EAFNOSUPPORT;
		return NULL;
	}

	dir = nfo_xdp_lookup(xdp->rxq->dev, &key, &flow);
	if (dir < 0) {
		opts->error = dir;
		return NULL;
	}

	answer = this_cpu_ptr(&nfo_xdp_answer);
	nfo_xdp_fill(&answer->tuplehash[0].tuple, flow.ct, 0, &flow.tuple[0]);
	nfo_xdp_fill(&answer->tuplehash[1].tuple, flow.ct, 1, &flow.tuple[1]);
	answer->ct = flow.ct;
	answer->type = NF_FLOW_OFFLOAD_ROUTE;
	answer->flags = 0;
	if (flow.ct->status & IPS_SRC_NAT)
		__set_bit(NF_FLOW_SNAT, &answer->flags);
	if (flow.ct->status & IPS_DST_NAT)
		__set_bit(NF_FLOW_DNAT, &answer->flags);
	return &answer->tuplehash[dir];
}
EXPORT_SYMBOL_GPL(bpf_xdp_nft_flow_lookup);

__bpf_kfunc_end_defs();

BTF_KFUNCS_START(nfo_kfuncs)
BTF_ID_FLAGS(func, bpf_xdp_nft_flow_lookup, KF_RET_NULL)
BTF_KFUNCS_END(nfo_kfuncs)

static const struct btf_kfunc_id_set nfo_kfunc_set = {
	.owner	= THIS_MODULE,
	.set	= &nfo_kfuncs,
};

/* Ends with the module. Does nothing without BTF. */
int nfo_bpf_register(void)
{
	return register_btf_kfunc_id_set(BPF_PROG_TYPE_XDP, &nfo_kfunc_set);
}
