/* SPDX-License-Identifier: GPL-2.0 */
#ifndef NFO_XDP_H
#define NFO_XDP_H

#include <linux/types.h>

struct bpf_fib_lookup;
struct xdp_md;

/* As in net/netfilter/nf_flow_table_bpf.c, which has it for itself. */
struct bpf_flowtable_opts {
	s32 error;
};

struct flow_offload_tuple_rhash *
bpf_xdp_nft_flow_lookup(struct xdp_md *ctx, struct bpf_fib_lookup *fib_tuple,
			struct bpf_flowtable_opts *opts, u32 opts_len);

#endif
