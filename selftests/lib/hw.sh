#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Sourced by the tests of hardware offload: the NIC that mock_hw.ko plays, and what is known of it.
# shellcheck shell=bash disable=SC2034,SC2154

V4=10.0.2.2 V6=fd00:2::2
MOCK=/sys/kernel/debug/mock_hw
PARAM=/sys/module/mock_hw/parameters
HW=$DEBUGFS/hardware
masq() { echo "chain post { type nat hook postrouting priority 100; oifname wan masquerade; };"; }

# mock [PARAMETER=VALUE...]: loads the NIC anew
mock() {
	loaded mock_hw && clean
	no_mock || { fail "mock_hw does not go"; return 1; }
	want_ok "insmod mock_hw" insmod "$NFT_OFFLOAD_MOCK" "$@"
}
no_mock() { ! loaded mock_hw || busywait 5000 rmmod mock_hw; }
mock_get() { awk -v n="$1" '$1 == n { print $2 }' $MOCK/stats; }
mock_set() { echo "$2" >"$PARAM/$1"; }
mock_rules() { wc -l <$MOCK/rules; }
rules_is() { [ "$(mock_rules)" = "$1" ]; }
rules_ge() { [ "$(mock_rules)" -ge "$1" ]; }
hw_get() { [ ! -r "$HW" ] || awk -v n="$1" '$1 == n { print $2 }' "$HW"; }
hw_is() { [ "$(hw_get "$1")" = "$2" ]; }
hw_ge() { [ "$(hw_get "$1")" -ge "$2" ]; }
in_hw() { ct_list "$@" | grep -q '\[HW_OFFLOAD\]'; }
not_in_hw() { ! in_hw "$@"; }
hw_rules() { rules FLAGS="${FLAGS-counter;} flags offload;" NAT="${NAT-}" FAM="${FAM:-inet}"; }
clean() { nft_rt flush ruleset; busywait 3000 rules_is 0 || fail "rules left: $(cat $MOCK/rules)"; }

setup() {
	[ -n "${NFT_OFFLOAD_MOCK:-}" ] || { echo "# no mock_hw.ko"; return 1; }
	lan_wan && serve "$sv" || return
	local d
	# The NIC takes single frames only.
	for d in "$cl eth0" "$rt lan" "$rt wan" "$sv eth0"; do
		offloads $d tx off rx off tso off gso off gro off
	done
}

# heavy ID PROTO ADDRESS [PORT] [OPTION...]: a conversation that is in hardware with both directions
heavy() {
	local id=$1 proto=$2
	conv_open "$id" "$cl" "${@:2}" || return
	busywait 15000 heavier "$id" "$proto" || { fail "not in hardware: $(ct_list -p "$proto" | head -n1) $(grep -E "^(flows|decline|driver)" "$HW" | tr '\n' ' ')"; return 1; }
}
heavier() { conv_cmd "$1" echo 20 1000 >/dev/null; in_hw -p "$2"; }

# by_hardware ID N: of the packets of N more answers nearly none comes to software
by_hardware() {
	local before n
	before=$(mock_get forwarded)
	counters_zero
	conv_ok "$1" echo "$2" 1000
	n=$(($(mock_get forwarded) - before))
	counters
	want_ge "packets that hardware forwarded" "$n" $((2 * $2))
	want_le "packets seen by the forward chain" "$FORWARDED" 0
	want_le "packets in the fast path" "$(fast)" 0
	want_le "packets that came to our hook" "$ARRIVED" 0
}

TAGGED=10.0.7.2
# tagged TAG... : the far network once more, in VLANs; the first tag is the outer one
tagged() {
	local r=wan e=eth0 t
	for t in "$@"; do
		ipn "$rt" link add "r${t##*.}" link $r type vlan proto "${t%.*}" id "${t##*.}" && ipn "$rt" link set "r${t##*.}" up
		ipn "$sv" link add "e${t##*.}" link $e type vlan proto "${t%.*}" id "${t##*.}" && ipn "$sv" link set "e${t##*.}" up
		r=r${t##*.} e=e${t##*.}
	done
	ipn "$rt" addr add 10.0.7.1/24 dev $r; ipn "$sv" addr add $TAGGED/24 dev $e
	ipn "$sv" route replace 10.0.1.0/24 via 10.0.7.1
	busywait 5000 at "$cl" ping -c1 -W1 -q $TAGGED || fail "no way to $TAGGED"
}
