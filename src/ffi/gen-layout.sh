#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# gen-layout.sh bindings_generated.rs: C static assertions for the layouts that bindgen computed.
# gen-layout.sh: the names of the kernel's types that Rust looks into. tools/lanes/check-types finds
# those that are missing here; what C cannot name (anonymous types, typedefs) is left out.
set -eu
types="callback_head delayed_work dst_entry dst_ops flow_action_entry flow_cls_offload
	flow_dissector_key_basic flow_dissector_key_control flow_dissector_key_ipv4_addrs
	flow_dissector_key_ipv6_addrs flow_dissector_key_meta flow_dissector_key_ports
	flow_dissector_key_tcp flow_dissector_key_vlan flow_stats flowi flowi4 flowi6 flowi_common
	genl_family genl_info genl_multicast_group genl_ops hh_cache ida in6_addr in_addr ip_ct_sctp ip_ct_tcp
	ip_ct_tcp_state list_head neighbour net net_device net_device_ops net_device_path
	net_device_path_ctx net_device_path_stack netdev_notifier_changeupper_info
	netdev_notifier_info netlink_callback netlink_ext_ack netns_ipv4 netns_ipv6 netns_nftables nf_conn nf_conn_acct
	nf_conn_counter nf_conntrack_man nf_conntrack_tuple nf_conntrack_tuple_hash nf_flow_key
	nf_flow_match nf_flowtable nf_flowtable_type nf_hook_entries nf_hook_entry nf_hook_ops
	nf_hook_state nft_chain nft_ctx nft_expr nft_expr_ops nft_expr_type nft_flowtable nft_hook
	nft_pktinfo nft_regs nft_set nft_table nft_verdict nla_policy nlattr notifier_block rhashtable
	rt6_info rtable seqcount seqcount_spinlock seqlock sk_buff skb_shared_info
	switchdev_notifier_info timer_list work_struct"
if [ $# = 0 ]; then
	for t in $types; do echo "$t"; done
	exit
fi
echo '/* SPDX-License-Identifier: GPL-2.0 */'
# Ours too: some of them are read by both sides.
for t in $types $(sed -n -E 's/^pub struct (nfo_[a-z_]+) .*/\1/p' "$1" | sort -u); do
	sed -n -E \
		-e "s/.*\[\"Size of $t\"\]\[.* - ([0-9]+)usize\];/static_assert(sizeof(struct $t) == \1);/p" \
		-e "/__bindgen|_bitfield/d;s@(::(type|in|priv|match|ref|use|move))_\"@\1\"@" \
		-e "s/.*\[\"Offset of field: $t::([A-Za-z0-9_]+)\"\]\[.* - ([0-9]+)usize\];/static_assert(offsetof(struct $t, \1) == \2);/p" "$1"
done
