# SPDX-License-Identifier: GPL-2.0
# Conntrack entries: what is shown as offloaded, timeouts, timeout policies. Behind lib.sh.
# shellcheck shell=bash disable=SC2034,SC2154 # variables are those of lib.sh and of who sources this

# ct_list [ARG...]: conntrack entries of both families.
ct_list() {
	at "$rt" conntrack -L "$@" 2>/dev/null
	return 0
}
ct_offloaded() { ct_list "$@" | grep -q '\[OFFLOAD\]'; }
ct_timeout() { ct_list "$@" | awk '{ print $3; exit }'; }
# the entry has no [OFFLOAD] any more but is still there
ct_back() { local l; l=$(ct_list "$@"); [ -n "$l" ] && ! grep -q '\[OFFLOAD\]' <<<"$l"; }

# ct_set NAME=VALUE...: net.netfilter sysctls of the router
ct_set() {
	local a
	for a in "$@"; do at "$rt" sysctl -qw "net.netfilter.$a" || fail "no sysctl $a"; done
}
# ct_of PROTO: the conntrack entries of a protocol, by its number
ct_of() { ct_list | awk -v n="$1" '$2 == n'; }
ct_of_offloaded() { ct_of "$1" | grep -q '\[OFFLOAD\]'; }
ct_of_back() { local l; l=$(ct_of "$1"); [ -n "$l" ] && ! grep -q '\[OFFLOAD\]' <<<"$l"; }
# ct_left PROTO MIN MAX: the flow leaves the table when it is idle, and its entry has a
# timeout between MIN and MAX seconds then.
ct_left() {
	local t
	ct_set nf_flowtable_udp_timeout=2 nf_flowtable_tcp_timeout=2
	busywait $((9000 * SLOW)) ct_of_back "$1" || fail "still offloaded or gone: $(ct_of "$1" | head -n2)"
	ct_set nf_flowtable_udp_timeout=300 nf_flowtable_tcp_timeout=300
	t=$(ct_of "$1" | awk '{ print $3; exit }')
	want_ge "timeout after hand-back" "$t" "$2"
	want_le "timeout after hand-back" "$t" "$3"
}

# timeout_policy PROTO STATE=SECONDS...: new connections of that protocol, both by their numbers, have
# a timeout policy; in table ip t. For what nft itself does not offer policies for.
timeout_policy() {
	want_ok "timeout policy" at "$rt" "${PY[@]}" links timeouts ip t p "$@" &&
	want_ok "chain" nft_rt "add chain ip t pre { type filter hook prerouting priority 0; }" &&
	want_ok "rule" nft_rt "add rule ip t pre meta l4proto $1 ct timeout set \"p\"" && forget
}
