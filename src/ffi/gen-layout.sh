#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# gen-layout.sh bindings_generated.rs: C static assertions for the layouts that bindgen computed.
# Types that C cannot name (anonymous ones, typedefs) are left out.
set -eu
echo '/* SPDX-License-Identifier: GPL-2.0 */'
for t in sk_buff net_device nf_hook_state nf_conn nf_conntrack_tuple nf_conntrack_tuple_hash nf_conn_counter \
	nf_flowtable nf_flowtable_type nft_flowtable nft_expr nft_expr_ops nft_expr_type nft_ctx nft_pktinfo \
	dst_entry rtable rt6_info neighbour hh_cache flowi4 flowi6 net_device_path_ctx \
	net_device_path_stack netns_ipv4 nla_policy notifier_block switchdev_notifier_info \
	nf_hook_entries nf_hook_entry nfo_worker ida \
	genl_family genl_info genl_ops netlink_ext_ack nlattr; do
	sed -n -E \
		-e "s/.*\[\"Size of $t\"\]\[.* - ([0-9]+)usize\];/static_assert(sizeof(struct $t) == \1);/p" \
		-e "/__bindgen|_bitfield/d;s@(::(type|in|priv|match|ref|use|move))_\"@\1\"@" \
		-e "s/.*\[\"Offset of field: $t::([A-Za-z0-9_]+)\"\]\[.* - ([0-9]+)usize\];/static_assert(offsetof(struct $t, \1) == \2);/p" "$1"
done
