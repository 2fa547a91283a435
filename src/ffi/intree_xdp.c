// SPDX-License-Identifier: GPL-2.0
/* nft_offload_xdp.ko: bpf_xdp_flow_lookup(), the name that XDP programs know from nf_flow_table.ko,
 * which cannot be loaded at the same time (see bpf.c).
 */
#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include <linux/module.h>
#include <net/netfilter/nf_flow_table.h>

#include "xdp.h"

__bpf_kfunc_start_defs();

/**
 * bpf_xdp_flow_lookup() - bpf_xdp_nft_flow_lookup() by another name
 * @ctx: the packet
 * @fib_tuple: what it looks like
 * @opts: error is set when there is no flow
 * @opts_len: size of @opts
 *
 * Return: as there.
 */
__bpf_kfunc struct flow_offload_tuple_rhash *
bpf_xdp_flow_lookup(struct xdp_md *ctx, struct bpf_fib_lookup *fib_tuple,
		    struct bpf_flowtable_opts *opts, u32 opts_len)
{
	return bpf_xdp_nft_flow_lookup(ctx, fib_tuple, opts, opts_len);
}

__bpf_kfunc_end_defs();

BTF_KFUNCS_START(nfo_intree_kfuncs)
BTF_ID_FLAGS(func, bpf_xdp_flow_lookup, KF_RET_NULL)
BTF_KFUNCS_END(nfo_intree_kfuncs)

static const struct btf_kfunc_id_set nfo_intree_kfunc_set = {
	.owner	= THIS_MODULE,
	.set	= &nfo_intree_kfuncs,
};

/* The kernel refuses it while nf_flow_table.ko is loaded, and ends it with the module. */
static int __init nfo_intree_init(void)
{
	return register_btf_kfunc_id_set(BPF_PROG_TYPE_XDP, &nfo_intree_kfunc_set);
}
module_init(nfo_intree_init);

static void __exit nfo_intree_exit(void)
{
}
module_exit(nfo_intree_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Flows of nft_offload for XDP programs that know nf_flow_table");
MODULE_VERSION("0.1.0");
