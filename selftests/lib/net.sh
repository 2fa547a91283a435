# SPDX-License-Identifier: GPL-2.0
# Network namespaces, the three of nearly every test, and processes in them. Behind lib.sh.
# shellcheck shell=bash disable=SC2034,SC2154 # variables are those of lib.sh and of who sources this

NS=() NS_MADE=() PIDS=()
cl='' rt='' sv='' # the usual three, set by ns_add

# ns_add VAR...: makes namespaces and puts their names into the variables.
ns_add() {
	local v
	for v in "$@"; do
		printf -v "$v" '%s-%04x%04x' "$v" $RANDOM $RANDOM
		ip netns add "${!v}" || { fail "ip netns add"; return 1; }
		NS+=("${!v}") NS_MADE+=("${!v}")
		at "${!v}" sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
			net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
			net.ipv6.conf.all.router_solicitations=0 net.ipv6.conf.default.router_solicitations=0
		ipn "${!v}" link set lo up
	done
}
# at NS CMD..., ipn NS ARG...: in a namespace; cheaper than ip netns exec.
at() { nsenter --net="/run/netns/$1" -- "${@:2}"; }
ipn() { nsenter --net="/run/netns/$1" -- ip "${@:2}"; }
nft_rt() { at "$rt" nft "$@"; }

# bg NS CMD...: in the background, ended by cleanup; its process is $!.
bg() { nsenter --net="/run/netns/$1" -- "${@:2}" & PIDS+=($!); disown $!; }
# stop PID...: ends processes and waits until they are gone.
stop() {
	local p
	kill "$@" 2>/dev/null
	for p in "$@"; do busywait 3000 gone "$p" || kill -9 "$p" 2>/dev/null; done
}
gone() { ! kill -0 "$1" 2>/dev/null; }

cleanup_all() {
	local n p
	if [ -n "${PIDS[*]}" ]; then stop "${PIDS[@]}"; fi
	PIDS=()
	for n in "${NS[@]}"; do
		for p in $(ip netns pids "$n" 2>/dev/null); do kill -9 "$p" 2>/dev/null; done
		ip netns del "$n" 2>/dev/null
	done
	NS=()
}
cleanup() { cleanup_all; rm -rf "$TMP"; }

# The usual topology:
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2
#
# The two ends have each other's network by a default route through the router.
lan_wan() {
	local n
	ns_add cl rt sv || return 1
	ip link add lan netns "$rt" type veth peer name eth0 netns "$cl" &&
	ip link add wan netns "$rt" type veth peer name eth0 netns "$sv" || { fail "veth"; return 1; }
	wired
}
# card N NS NAME: gives the N-th of a lane's network cards to a namespace
card() {
	local d
	for d in /sys/class/net/*; do
		[ "$(cat "$d/address")" = "02:11:22:33:44:5$(($1 + 4))" ] || continue
		ip link set "${d##*/}" netns "$2" name "$3" && return
	done
	fail "no card $1"
}
# wired: addresses and routes for the three, whose devices are there
wired() {
	router_on "$rt"
	# a slow machine must not see flows go idle between two steps of a test
	modprobe -q nf_conntrack
	at "$rt" sysctl -qw net.netfilter.nf_flowtable_tcp_timeout=300 net.netfilter.nf_flowtable_udp_timeout=300 2>/dev/null
	addr "$rt" lan 10.0.1.1/24 fd00:1::1/64
	addr "$rt" wan 10.0.2.1/24 fd00:2::1/64
	addr "$cl" eth0 10.0.1.2/24 fd00:1::2/64 10.0.1.1 fd00:1::1
	addr "$sv" eth0 10.0.2.2/24 fd00:2::2/64 10.0.2.1 fd00:2::1
	busywait 5000 at "$cl" ping -c1 -W1 -q 10.0.2.2 && busywait 5000 at "$cl" ping -c1 -W1 -q fd00:2::2 ||
		{ fail "no connectivity through the router"; return 1; }
}
router_on() {
	at "$1" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.send_redirects=0 \
		net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0 net.ipv4.icmp_msgs_per_sec=10000 net.ipv4.icmp_msgs_burst=10000
}
# addr NS DEV IPV4 IPV6 [GATEWAY4 GATEWAY6]
addr() {
	ipn "$1" link set "$2" up
	ipn "$1" addr add "$3" dev "$2"
	ipn "$1" addr add "$4" dev "$2" nodad
	[ -z "${5:-}" ] || ipn "$1" route add default via "$5"
	[ -z "${6:-}" ] || ipn "$1" -6 route add default via "$6"
}
# batch NS: ip commands from standard input, with one process; addr_lines DEV IPV4
# IPV6 [GATEWAY4 GATEWAY6]: what addr does, as such lines.
batch() { nsenter --net="/run/netns/$1" -- ip -force -batch -; }
addr_lines() {
	echo "link set $1 up"
	echo "addr add $2 dev $1"
	echo "addr add $3 dev $1 nodad"
	[ -z "${4:-}" ] || printf 'route replace default via %s\nroute replace ::/0 via %s\n' "$4" "$5"
}
mac() { ipn "$1" -j link show "$2" | jq -r '.[0].address'; }
