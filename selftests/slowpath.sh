#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Packets that the fast path must leave alone, or must handle with care, sent
# into an offloaded flow (slowpath.py crafts them). Each one is first sent
# through the same router without a flowtable; what comes out at either end
# must be the same, byte for byte, and the flow must still be fast afterwards.
#
#      cl                       rt                        sv
#   raw frames on eth0 ---- lan 10.0.1.1  wan 10.0.2.1 ---- raw frames on eth0
#      10.0.1.2                                           10.0.2.2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

MASQ="chain post { type nat hook postrouting priority 100; oifname wan masquerade; };"

setup() {
	local n
	lan_wan || return
	for n in "$cl" "$sv"; do # the ends' own stacks stay out of it
		at "$n" nft add table inet quiet
		at "$n" nft add chain inet quiet in '{ type filter hook input priority 0; }'
		at "$n" nft add rule inet quiet in 'meta l4proto { tcp, udp }' drop
		# neighbours must not expire in the middle
		at "$n" sysctl -qw net.ipv4.neigh.eth0.base_reachable_time_ms=600000 net.ipv6.neigh.eth0.base_reachable_time_ms=600000
	done
	ipn "$rt" link set lan promisc on
	ipn "$rt" link set wan promisc on
	# An address of the router as target: neighbours stay as they are.
	for n in "lan 10.0.1.2 $cl" "wan 10.0.2.2 $sv" "lan fd00:1::2 $cl" "wan fd00:2::2 $sv"; do
		set -- $n
		ipn "$rt" neigh replace "$2" dev "$1" lladdr "$(mac "$3" eth0)" nud permanent
	done
	measure routed "" && measure masq "$MASQ" --masq
}
# measure NAME NAT [ARG]: all probes, without and with flowtable
measure() {
	local name=$1 nat=$2; shift 2
	FT=none rules NAT="$nat" || return
	"${PY[@]}" slowpath run "$cl" "$rt" "$sv" --out "$TMP/$name.classic" "$@" || return
	rules NAT="$nat" || return
	"${PY[@]}" slowpath run "$cl" "$rt" "$sv" --out "$TMP/$name.$FT" "$@" || return
	local ours=(); [ "$FT" != ours ] || ours=(--ours)
	"${PY[@]}" slowpath judge "$TMP/$name.classic" "$TMP/$name.$FT" "${ours[@]}"
}
judged() {
	local f=$TMP/$1.$FT/$2.bad l
	[ -e "$f" ] || { fail "no result"; return; }
	while IFS= read -r l || [ -n "$l" ]; do fail "$l"; done <"$f"
	return 0
}
probes() {
	local name flags desc x
	while IFS=$'\t' read -r name flags desc; do
		x=(); [[ $flags != *x* ]] || x=(-x)
		tcase "${x[@]}" "$desc" judged routed "$name"
		[[ $flags != *m* ]] || x=(-x)
		[[ $flags = *r* ]] || tcase "${x[@]}" "$desc, masquerade" judged masq "$name"
	done < <("${PY[@]}" slowpath list)
}
probes

SETUP=setup
run_cases "$@"
