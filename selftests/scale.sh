#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Twenty thousand UDP flows, IPv4 and IPv6: all offloaded, all fast, all gone
# when idle or when told so, and the memory with them.
#
#      cl                             rt                        sv
#   raw frames from 10.1.0.0/16 ---- lan    wan ---- eth0 10.0.2.2, counts and drops
#                and fd00:11::/64                    fd00:2::2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# With KASAN they would be idle before the last one is there.
if [ "${LANE:-}" = debug ]; then FLOWS=${FLOWS:-3000}; fi
FLOWS=${FLOWS:-20000}
aside=''
MAX=$(sysctl -n net.netfilter.nf_conntrack_max 2>/dev/null)
BUCKETS=$(sysctl -n net.netfilter.nf_conntrack_buckets 2>/dev/null)

setup() {
	lan_wan || return
	# the limits are the machine's, not the namespace's
	sysctl -qw net.netfilter.nf_conntrack_buckets=$((FLOWS * 2)) net.netfilter.nf_conntrack_max=$((FLOWS * 4)) || return
	ipn "$rt" route add 10.1.0.0/16 via 10.0.1.2
	ipn "$rt" -6 route add fd00:11::/64 via fd00:1::2
	at "$sv" nft -f - <<-'END'
		table netdev far {
			counter got { }
			chain in {
				type filter hook ingress device eth0 priority 0;
				udp dport 7000-7999 counter name got drop
			}
		}
	END
	ping_all
	ns_add aside && ipn "$aside" link add d0 type dummy && DOWN=$(down)
}
# The only traffic is one-way, so nobody but the router keeps neighbours alive.
ping_all() { at "$rt" ping -q -c1 10.0.2.2; at "$rt" ping -q -c1 10.0.1.2; at "$rt" ping -q -c1 fd00:2::2; at "$rt" ping -q -c1 fd00:1::2; } >/dev/null
restore() { [ -z "$MAX" ] || sysctl -qw net.netfilter.nf_conntrack_max="$MAX" net.netfilter.nf_conntrack_buckets="$BUCKETS"; }

# wave: one datagram on each flow, in random order. $1: seed
wave() { at "$cl" "${PY[@]}" streams wave eth0 "$(mac "$rt" lan)" --flows "$FLOWS" --seed "$1"; }
got() { at "$sv" nft list counter netdev far got | awk '$1 == "packets" { print $2 }'; }
offloaded() { if [ "$FT" = ours ]; then stat_get flows; else ct_list -p udp | grep -c '\[OFFLOAD\]'; fi; }
none_offloaded() { [ "$(offloaded)" = 0 ]; }
memory() { awk '/^(Slab|VmallocUsed|Percpu):/ { s += $2 } END { print s }' /proc/meminfo; } # KiB
timeout_is() { at "$rt" sysctl -qw net.netfilter.nf_flowtable_udp_timeout="$1"; }

fill() { # all flows offloaded
	local g
	timeout_is 60
	rules FLAGS="${1:-}" || return
	g=$(got)
	wave 1; wave 2; wave 3
	want_eq "datagrams that arrived" "$(($(got) - g))" $((FLOWS * 3))
	want_ge "flows offloaded" "$(offloaded)" "$FLOWS"
}
fast_wave() {
	local g
	g=$(got)
	counters_zero
	wave "$1"
	counters
	want_eq "datagrams that arrived" "$(($(got) - g))" "$FLOWS"
	bypass_numbers "$ARRIVED" "$FORWARDED" "$(fast)"
	want_le "packets seen by the forward chain" "$FORWARDED" $((FLOWS / 100))
}

filled() { fill && fast_wave 4 && fast_wave 5; }
tcase "$FLOWS flows are all offloaded and fast" filled

expire() { # idle flows leave, the entries are handed back, with the same flows it begins again
	want_ge "flows before" "$(offloaded)" "$FLOWS"
	timeout_is 2
	wave 6 # takes the new timeout
	busywait $((30000 * SLOW)) none_offloaded || fail "$(offloaded) flows are still there"
	want_ge "conntrack entries handed back" "$(at "$rt" conntrack -C)" "$FLOWS"
	timeout_is 60
	wave 7; wave 8
	want_ge "flows offloaded again" "$(offloaded)" "$FLOWS"
	fast_wave 9
}
tcase "all expire when idle and come back with traffic" expire

# how long it takes a device of another namespace to go down, in microseconds
down() { at "$aside" "${PY[@]}" links updown d0 30; }
elsewhere() { # nobody looks through all flows for it
	local t
	[ -z "${KSFT_QUICK:-}" ] || { skip "a matter of time, which CI's machine has no idea of"; return; }
	want_ge "flows" "$(offloaded)" "$FLOWS"
	t=$(down)
	note "a device of another namespace goes down in $DOWN us without flows, in $t us with $FLOWS"
	want_le "microseconds, $DOWN without flows" "$t" $((2 * DOWN + 1000))
}
tcase -x "a device of another namespace goes down as fast as ever" elsewhere

flush_entries() {
	fill || return
	want_ok "conntrack -F" at "$rt" conntrack -F
	counters_zero
	wave 10
	counters
	want_ge "packets seen by the forward chain right after conntrack -F" "$FORWARDED" "$FLOWS"
	wave 11; wave 12
	busywait $((10000 * SLOW)) refilled || fail "only $(offloaded) flows after the flush"
	fast_wave 13
}
refilled() { wave $RANDOM; [ "$(offloaded)" -ge "$FLOWS" ]; }
tcase "conntrack -F stops all at once, then all are offloaded again" flush_entries

# limit N: the parameter max_flows
limit() { echo "$1" >/sys/module/nft_offload/parameters/max_flows; }
limited() { # the surplus is slow, and nothing is lost
	local g most=$((FLOWS / 4))
	timeout_is 60
	want_ok "max_flows" limit $most
	rules || return
	g=$(got)
	wave 1; wave 2; wave 3
	want_eq "datagrams that arrived" "$(($(got) - g))" $((FLOWS * 3))
	want_eq "flows offloaded" "$(offloaded)" $most
	want_ge "packets that asked in vain" "$(stat_get skip.max_flows)" $((FLOWS - most))
	counters_zero
	g=$(got)
	wave 4
	counters
	want_eq "datagrams that arrived" "$(($(got) - g))" "$FLOWS"
	want_ge "packets seen by the forward chain" "$FORWARDED" $((FLOWS - most))
	want_le "packets seen by the forward chain" "$FORWARDED" $((FLOWS - most + FLOWS / 100))
	# fewer than there are: those that are there stay
	want_ok "max_flows" limit 1
	wave 5
	want_eq "flows offloaded" "$(offloaded)" $most
	for g in -1 x 4294967296 ''; do
		want_err "max_flows '$g'" "nvalid argument\|out of range" limit "$g"
	done
	want_ok "max_flows" limit 0
	wave 6; wave 7
	want_eq "flows offloaded" "$(offloaded)" "$FLOWS"
	nft_rt flush ruleset
	busywait $((10000 * SLOW)) none_offloaded || fail "$(offloaded) flows are still there"
}
tcase -o "max_flows: the surplus stays slow" limited

delete_table() {
	local t
	fill || return
	t=$(now_ms)
	want_ok "flush ruleset" nft_rt flush ruleset
	note "nft flush ruleset with $FLOWS flows: $(($(now_ms) - t)) ms"
	busywait $((10000 * SLOW)) none_offloaded || fail "$(offloaded) flows are still there"
}
tcase "ruleset flushed with all flows in the table" delete_table

leak() { # the first rounds fill caches, the later ones must not grow any more
	local i m=()
	for i in 1 2 3 4; do
		fill "counter;" || return
		nft_rt flush ruleset
		at "$rt" conntrack -F >/dev/null 2>&1
		busywait $((10000 * SLOW)) none_offloaded || fail "$(offloaded) flows are still there"
		# freed after a grace period, partly by a worker
		sleep 1
		m+=("$(memory)")
	done
	note "kernel memory after each round: ${m[*]} KiB"
	want_le "growth from round 2 to 4 in KiB" $((m[3] - m[1])) 4096
}
tcase "memory returns" leak

trap restore EXIT
SETUP=setup
run_cases "$@"
