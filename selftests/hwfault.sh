#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Hardware that fails, and drivers that come and go: each operation of the driver that mock_hw.ko plays
# fails once, with whatever it says, and traffic goes on, nothing is left behind.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
[ "$FT" = ours ] || skip_all "about our module"
# shellcheck source=lib/hw.sh
. "$HERE/lib/hw.sh"

flaps() { # the driver leaves and comes back all the time while flowtables come, go and are replaced
	mock ports=lan,wan latency_us=300 || return
	hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	cp "$TMP/rules" "$TMP/rules.flaps"
	touch "$TMP/flapping"
	while [ -e "$TMP/flapping" ]; do echo 10 >$MOCK/flap; sleep 0.02; done & local pid=$! made=0 refused=0 lost=0
	while [ $((made + refused)) -lt "${FLAPS:-40}" ]; do
		# Without a driver there is no hardware; then it is refused.
		if nft_rt -f "$TMP/rules.flaps" 2>"$TMP/out"; then made=$((made + 1))
		elif grep -q "Operation not supported" "$TMP/out"; then refused=$((refused + 1))
		else fail "$(cat "$TMP/out")"; fi
		conv_cmd x echo 3 500 >/dev/null || lost=$((lost + 1))
		[ $(((made + refused) % 3)) != 0 ] || nft_rt flush ruleset
	done
	rm "$TMP/flapping"
	wait $pid
	note "$made flowtables, $refused refused, driver came $(mock_get flaps) times"
	want_ge "flowtables made" $made 5
	want_eq "echoes lost" $lost 0
	hw_rules || return
	busywait 20000 heavier x udp || fail "does not come back into hardware: $(cat "$HW")"
	conv_close x
	clean
	want_eq "rules left behind" "$(mock_get unknown)" 0
	want_eq "ports bound" "$(mock_get ports)" 0
}
tcase "the driver comes and goes, and so do flowtables" flaps

TWO="table inet t { flowtable f { hook ingress priority 0; devices = { lan, wan }; flags offload; }; }"
# reload NS N: a flowtable that comes and goes N times
reload() {
	local i
	for ((i = 0; i < $2; i++)); do
		at "$1" nft -f - <<<"$TWO" && at "$1" nft delete table inet t || return
	done
}
one_at_a_time() { # what drivers of the devices themselves count on: they keep a list without a lock
	mock ports=lan,wan direct=1 latency_us=20000 || return
	local other pid
	ns_add other || return
	ipn "$other" link add lan type veth peer name lan1; ipn "$other" link add wan type veth peer name wan1
	reload "$other" 12 2>"$TMP/other" & pid=$!
	want_ok "flowtables in one namespace" reload "$rt" 12
	wait $pid || fail "in the other one: $(cat "$TMP/other")"
	busywait 5000 no_ports || fail "ports bound: $(mock_get ports)"
	want_eq "calls of the driver while it was in another one" "$(mock_get overlaps)" 0
}
no_ports() { [ "$(mock_get ports)" = 0 ]; }
tcase "flowtables of two namespaces call a driver one at a time" one_at_a_time

keeps_hold() { # a driver of the device itself refuses to let go: nothing waits for it, and it is asked again
	mock ports=lan,wan direct=1 || return
	local refs mark
	mark=$(dmesg_mark)
	refs=$(cat /sys/module/nft_offload/refcnt)
	hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	by_hardware x 20
	mock_set fail_unbind 16; mock_set fail_count 1
	clean
	busywait 5000 refs_are "$refs" || fail "references to the module: $(cat /sys/module/nft_offload/refcnt), not $refs"
	want_eq "ports bound" "$(mock_get ports)" 0
	want_eq "sentences" "$(dmesg_since "$mark" | grep -c 'not given back by its driver')" 1
	hw_rules || return
	busywait 20000 heavier x udp || fail "not in hardware again: $(cat "$HW")"
	by_hardware x 20
	conv_close x
	clean
}
refs_are() { [ "$(cat /sys/module/nft_offload/refcnt)" = "$1" ]; }
tcase "a driver that does not let go is left behind, and used again" keeps_hold

# fault N ERRNO: a flowtable's life of which the N-th operation fails, whatever that is
fault() {
	mock ports=lan,wan || return
	mock_set fail_errno "$2"; mock_set fail_at "$1"
	FLAGS="counter; flags offload;" ruleset >"$TMP/rules.fault"
	# If binding fails, so may the flowtable; nothing may be left of it then.
	nft_rt -f "$TMP/rules.fault" 2>"$TMP/out" || {
		grep -q "Could not process rule" "$TMP/out" || fail "$1, errno $2: $(cat "$TMP/out")"
		want_eq "$1, errno $2: ports after a failed bind" "$(mock_get ports)" 0
		nft_rt -f "$TMP/rules.fault" || { fail "$1, errno $2: no flowtable afterwards"; return; }
	}
	conv_open x "$cl" udp $V4 || return
	# Software forwards whatever hardware does.
	busywait 6000 fault_seen x || conv_ok x echo 50 1000
	conv_ok x echo 20 1000
	at "$rt" conntrack -D -p udp >/dev/null 2>&1
	busywait 5000 rules_is 0 || fail "$1, errno $2: rules: $(cat $MOCK/rules)"
	conv_ok x echo 20 1000
	nft_rt flush ruleset
	busywait 5000 rules_is 0 || fail "$1, errno $2: rules at the end: $(cat $MOCK/rules)"
	conv_close x
	want_eq "$1, errno $2: commands for unknown rules" "$(mock_get unknown)" 0
	FAILED=$((FAILED + $(mock_get failed)))
	# One that did not unbind is gone with its driver.
	want_ok "$1, errno $2: rmmod" no_mock
	at "$rt" conntrack -F >/dev/null 2>&1
}
# what can be in hardware is, and statistics were asked for; or it is refused for good
fault_seen() { conv_cmd "$1" echo 20 1000 >/dev/null; hw_ge decline.unsupported.driver 1 || [ "$(mock_get stats)" -ge 2 ]; }
faults() { # faults "OPERATION..." ERRNO...: each of these operations, with each errno
	local n e FAILED=0 tried=0
	for n in $1; do
		for e in "${@:2}"; do fault "$n" "$e" || return; tried=$((tried + 1)); done
	done
	note "$FAILED of $tried operations were made to fail"
	want_ge "operations that failed" $FAILED $((tried * 3 / 4))
}
ALL="1 2 3 4 5 6 7 8 9 10 11 12"
# 1, 2: bind; 3, 4: add; then statistics, deletion and unbinding
tcase "each operation fails in turn: input/output error"         faults "$ALL" 5
tcase "each operation fails in turn: no such device"             faults "$ALL" 19
tcase "statistics, deletion, unbinding: no such rule, busy"      faults "5 6 7 8 9 10" 2 16
tcase "binding: not supported, busy, no memory, exists"          faults "1 2" 95 16 12 17
tcase "adding: not supported, busy, no memory, exists, full"     faults "3 4" 95 16 12 17 28

SETUP=setup
run_cases "$@"
