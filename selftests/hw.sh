#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A flowtable with "flags offload", and a NIC that mock_hw.ko plays on the router's devices: it
# takes flow rules as drivers do, and executes them on real frames before they come to our hook.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2
MOCK=/sys/kernel/debug/mock_hw
PARAM=/sys/module/mock_hw/parameters
HW=$DEBUGFS/hardware
masq() { echo "chain post { type nat hook postrouting priority 100; oifname wan masquerade; };"; }

# mock [PARAMETER=VALUE...]: loads the NIC anew
mock() {
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

forwards() { # forwards PROTO ADDRESS [NAT]: what is heavy goes into hardware, and around our hook
	mock ports=lan,wan profile="${4:-mlx5}" || return
	NAT=$3 hw_rules || return
	talk x "$cl" "$1" "$2" 5000 || return
	say_ok x echo 200 1000
	busywait 5000 in_hw -p "$1" || { fail "not in hardware: $(ct_list -p "$1" | head -n1) $(cat "$HW")"; hush x; return 1; }
	want_eq "rules" "$(mock_rules)" 2
	counters_zero
	local before n
	before=$(mock_get forwarded)
	say_ok x echo 200 1000
	n=$(($(mock_get forwarded) - before))
	want_ge "packets that hardware forwarded" "$n" 380
	counters
	want_le "packets seen by the forward chain" "$FORWARDED" 0
	want_le "packets in the fast path" "$(fast)" 0
	hush x
	clean
	want_eq "commands for unknown rules" "$(mock_get unknown)" 0
}
for p in udp; do
	tcase "IPv4 $p routed"     forwards $p $V4 ""
	tcase "IPv6 $p routed"     forwards $p $V6 ""
	tcase "IPv4 $p masquerade" forwards $p $V4 "$(masq)"
	tcase "IPv6 $p masquerade" forwards $p $V6 "$(masq)"
done

after() { no_mock; }
SETUP=setup
run_cases "$@"
