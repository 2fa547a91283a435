#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Hardware as real drivers give it: engines that pick packets up below filters, bind late, count nothing,
# fail in one direction, do not listen, or have limits of their own. mock_hw.ko plays the NIC; hw.sh
# has what all drivers have in common, hwfault.sh what fails.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
[ "$FT" = ours ] || skip_all "about our module"
# shellcheck source=lib/hw.sh
. "$HERE/lib/hw.sh"

has_rule_in() { grep -q "^in $1 " $MOCK/rules; }
has_no_rule_in() { ! has_rule_in "$1"; }
declines() { conv_cmd "$1" echo 20 1000 >/dev/null; hw_ge "$2" 1; }
addr_again() {
	ipn "$rt" -6 addr add fd00:1::1/64 dev lan nodad 2>/dev/null
	ipn "$rt" -6 addr add fd00:2::1/64 dev wan nodad 2>/dev/null
	busywait 5000 at "$cl" ping -c1 -W1 -q 10.0.2.2
}

# ---- never more than software would do

chain_at() { nft_rt -f - <<<"table netdev flt { chain c { type filter hook ingress device $1 priority -5; counter; }; }"; }
no_chain() { nft_rt delete table netdev flt; }
tc_at() { at "$rt" tc qdisc add dev "$1" clsact && at "$rt" tc filter add dev "$1" ingress matchall action pass; }
no_tc() { at "$rt" tc qdisc del dev "$1" clsact; }
filtered() { # filtered ADD DELETE DEVICE: something sees what comes in by wan
	mock ports=lan,wan || return
	hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	want_ok "$1" "$1" "$3" || return
	busywait $((1500 * SLOW)) has_no_rule_in wan || fail "rules: $(cat $MOCK/rules)"
	busywait 8000 declines x decline.unsupported.ingress_filter || fail "$(cat "$HW")"
	conv_ok x echo 50 1000
	has_no_rule_in wan || fail "rules: $(cat $MOCK/rules)"
	not_in_hw -p udp || fail "shown as [HW_OFFLOAD]"
	"$2" "$3"
	busywait 20000 heavier x udp || fail "the filter has gone, and the flow is not in hardware: $(cat "$HW")"
	by_hardware x 20
	conv_close x
	clean
}
tcase "a chain at ingress is not passed by"       filtered chain_at no_chain wan
tcase "a filter of tc at ingress is not passed by" filtered tc_at no_tc wan

filtered_above() { # the same at a VLAN device, below which software picks nothing up either
	mock ports=lan,wan || return
	tagged 802.1Q.7
	DEVS="lan, wan, r7" WATCH="lan, wan" hw_rules || return
	heavy x udp $TAGGED || { conv_close x; return 1; }
	has_rule_in wan || fail "rules: $(cat $MOCK/rules)"
	chain_at r7
	busywait $((1500 * SLOW)) has_no_rule_in wan || fail "rules: $(cat $MOCK/rules)"
	busywait 8000 declines x decline.unsupported.ingress_filter || fail "$(cat "$HW")"
	has_no_rule_in wan || fail "rules: $(cat $MOCK/rules)"
	no_chain
	conv_close x
	clean
	ipn "$sv" route del 10.0.1.0/24
	ipn "$rt" link del r7; ipn "$sv" link del e7
}
tcase "a chain at a VLAN device is not passed by" filtered_above

bridged() { # bridged: lan is a port of br0
	ipn "$rt" addr flush dev lan
	ipn "$rt" link add br0 type bridge forward_delay 0 stp_state 0 mcast_snooping 0
	ipn "$rt" link set lan master br0; ipn "$rt" link set br0 up
	ipn "$rt" addr add 10.0.1.1/24 dev br0
	busywait 5000 at "$cl" ping -c1 -W1 -q 10.0.2.2 || fail "no way over the bridge"
}
no_bridge() {
	ipn "$rt" link del br0
	ipn "$rt" addr add 10.0.1.1/24 dev lan
	addr_again
}
blocked() { # what a port of a bridge may not pass, hardware does not either
	mock ports=lan,wan || return
	bridged
	hw_rules || return
	heavy x udp $V4 && {
		at "$rt" bridge link set dev lan state 0
		busywait $((1000 * SLOW)) rules_is 0 || fail "rules: $(cat $MOCK/rules)"
		conv_cmd x echo 3 100 >/dev/null && fail "packets still pass"
		at "$rt" bridge link set dev lan state 3
	}
	conv_close x
	clean
	no_bridge
}
tcase "a port of a bridge is blocked" blocked

roams() { # a station is behind another port: known within a second or so
	mock ports=lan,wan || return
	bridged
	ipn "$rt" link add lan2 type veth peer name lan3
	ipn "$rt" link set lan2 master br0; ipn "$rt" link set lan2 up; ipn "$rt" link set lan3 up
	hw_rules || return
	heavy x udp $V4 && {
		local begun
		begun=$(now_ms)
		at "$rt" bridge fdb replace "$(mac "$cl" eth0)" dev lan2 master static
		busywait 3000 has_no_rule_in wan || fail "rules: $(cat $MOCK/rules)"
		begun=$(($(now_ms) - begun))
		want_le "milliseconds until its rule was gone" $begun $((1500 * SLOW))
		note "rule gone after $begun ms"
	}
	conv_close x
	clean
	ipn "$rt" link del lan2
	no_bridge
}
tcase "a station moves to another port" roams

wireless() { # what the engine has to know of a station changes with its association
	mock ports=lan,wan direct=1 wcid=5 || return
	hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	local adds
	adds=$(mock_get adds)
	mock_set wcid 6
	busywait $((2500 * SLOW)) more_adds x $((adds + 2)) || fail "the rules are those of before: $(cat "$HW")"
	by_hardware x 20
	conv_close x
	clean
}
more_adds() { conv_cmd "$1" echo 10 1000 >/dev/null; [ "$(mock_get adds)" -ge "$2" ]; }
tcase "a station associates anew" wireless

# ---- truth, by direction

deaf() { # one direction is taken, and not forwarded
	mock ports=lan,wan deaf_in=lan || return
	hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	busywait 12000 loses x || fail "nobody has noticed: $(cat "$HW")"
	not_in_hw -p udp || fail "shown as [HW_OFFLOAD]"
	ct_offloaded -p udp || fail "not shown as [OFFLOAD]"
	has_rule_in wan || fail "the good direction is gone as well: $(cat $MOCK/rules)"
	mock_set deaf_in none
	busywait 60000 heavier x udp || fail "not back: $(cat "$HW")"
	by_hardware x 20
	conv_close x
	clean
}
loses() { conv_cmd "$1" echo 20 1000 >/dev/null; hw_ge lost 1 && not_in_hw -p udp; }
tcase "one direction is not forwarded" deaf

binds_late() { # an engine that wants to see 30 packets in a second: a flow with less is left alone
	mock ports=lan,wan profile=mtk bind_rate=30 || return
	hw_rules || return
	local i
	conv_open x "$cl" udp $V4 || return
	for ((i = 0; i < 60; i++)); do
		conv_ok x echo 1 1400; sleep 0.08
		not_in_hw -p udp || { fail "shown as [HW_OFFLOAD]"; break; }
	done
	want_eq "rules lost" "$(hw_get lost)" 0
	want_eq "rules added" "$(mock_get adds)" 0
	busywait 15000 heavier x udp || fail "not in hardware: $(cat "$HW")"
	by_hardware x 20
	conv_close x
	clean
}
tcase "mtk: a flow is in hardware once that forwards it" binds_late

counts_nothing() { # counts_nothing PROFILE: nor is it taken for dead
	mock ports=lan,wan profile="$1" || return
	hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	local i
	for i in 1 2 3 4 5 6; do conv_ok x echo 10 1000; sleep 1; done
	in_hw -p udp || fail "not in hardware any more: $(cat "$HW")"
	want_eq "rules lost" "$(hw_get lost)" 0
	by_hardware x 20
	conv_close x
	clean
}
tcase "airoha: an engine that counts nothing" counts_nothing airoha
tcase "mt76: rules for the engine behind the radio" counts_nothing npu

full_otherwise() { # a driver that has other words for it
	mock ports=lan,wan capacity=2 full_errno="$1" || return
	hw_rules || return
	heavy a udp $V4 5000 --sport 7001 || { conv_close a; return 1; }
	conv_open b "$cl" udp $V4 5000 --sport 7002 || return
	busywait 20000 heavy_b || fail "the heavy one waits: $(cat "$HW")"
	want_ge "swapped" "$(hw_get swapped)" 1
	hw_ge decline.full 1 || fail "full, and nobody knows: $(cat "$HW")"
	conv_close a; conv_close b
	clean
}
heavy_b() { conv_cmd b echo 40 1400 >/dev/null; in_hw -p udp --orig-port-src 7002; }
tcase "mlx5: no memory means that there is no room"  full_otherwise 12
tcase "mlx5: try again means that there is no room" full_otherwise 11

# ---- limits of the driver's own

jumbo() { # the engine has one limit for all of its ports: the largest
	mock ports=lan,wan profile=mtk || return
	ipn "$rt" link set lan mtu 2000; ipn "$cl" link set eth0 mtu 2000
	hw_rules || return
	conv_open x "$cl" udp $V4 5000 --pmtu dont || return
	busywait 8000 declines x decline.unsupported.mtu || fail "$(cat "$HW")"
	conv_ok x echo 50 1000
	has_no_rule_in lan || fail "rules: $(cat $MOCK/rules)"
	conv_close x
	ipn "$rt" link set lan mtu 1500; ipn "$cl" link set eth0 mtu 1500
	addr_again
	heavy y udp $V4 || { conv_close y; return 1; }
	conv_close y
	clean
}
tcase "mtk: packets that fit another port and not this one" jumbo

switched_off() { # hw-tc-offload: the driver does not listen for a while
	mock ports=lan,wan direct=1 || return
	hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	local d
	for d in lan wan; do offloads "$rt" $d hw-tc-offload off; done
	at "$rt" conntrack -D -p udp >/dev/null 2>&1
	conv_close x
	conv_open y "$cl" udp $V4 5000 --sport 7003 || return
	busywait 8000 declines y decline.unsupported.driver || fail "was not asked: $(cat "$HW")"
	want_eq "rules that the driver has kept" "$(mock_rules)" 2
	for d in lan wan; do offloads "$rt" $d hw-tc-offload on; done
	busywait $((20000)) heavier y udp || fail "refused for ever: $(cat "$HW")"
	busywait $((5000 * SLOW)) two_rules || fail "rules: $(mock_rules), expected 2"
	by_hardware y 20
	conv_close y
	clean
	want_eq "commands for unknown rules" "$(mock_get unknown)" 0
}
two_rules() { [ "$(mock_rules)" = 2 ]; } # those of before are deleted again after a while
tcase "hw-tc-offload is switched off and on" switched_off

unload_mock() { clean; want_ok "rmmod mock_hw" no_mock; }
tcase "the NIC is unloaded" unload_mock

SETUP=setup
run_cases "$@"
