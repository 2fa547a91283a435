#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What a flowtable with "flags offload", ours or the in-tree one, tells hardware: a NIC that
# mock_hw.ko plays on the router's devices executes the rules on real frames. hw.sh has the rest.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#                           tags on wan: 10.0.7.1 ---- 10.0.7.2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 TAGGED=10.0.7.2
MOCK=/sys/kernel/debug/mock_hw
PARAM=/sys/module/mock_hw/parameters

setup() {
	[ -n "${NFT_OFFLOAD_MOCK:-}" ] || { echo "# no mock_hw.ko"; return 1; }
	grep -qs " /sys/kernel/debug " /proc/mounts || mount -t debugfs none /sys/kernel/debug
	lan_wan && serve "$sv" || return
	local d
	# The NIC takes single frames only.
	for d in "$cl eth0" "$rt lan" "$rt wan" "$sv eth0"; do
		offloads $d tx off rx off tso off gso off gro off
	done
}
# mock [PARAMETER=VALUE...]: loads the NIC anew
mock() {
	no_mock || { fail "mock_hw does not go"; return 1; }
	want_ok "insmod mock_hw" insmod "$NFT_OFFLOAD_MOCK" ports=lan,wan "$@"
}
no_mock() { ! loaded mock_hw || busywait 5000 rmmod mock_hw; }
mock_get() { awk -v n="$1" '$1 == n { print $2 }' $MOCK/stats; }
no_rules() { [ "$(wc -l <$MOCK/rules)" = 0 ]; }
clean() {
	nft_rt flush ruleset
	busywait 8000 no_rules || fail "rules left: $(cat $MOCK/rules)"
	want_ok "rmmod mock_hw" no_mock
}
in_hw() { ct_list -p udp | grep -q '\[HW_OFFLOAD\]'; }
heavier() { say x echo 20 1000 >/dev/null; in_hw; }

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
# arrive: how many of 20 datagrams, sent while the flow is in hardware, arrive as they should
arrive() {
	local pid
	rm -f "$TMP/ready"
	at "$sv" python3 "$HERE/hwframes.py" catch eth0 5000 20 --ready "$TMP/ready" >"$TMP/frames" & pid=$!
	busywait 8000 test -e "$TMP/ready"
	at "$cl" python3 "$HERE/hwframes.py" send eth0 "$(mac "$rt" lan)" 10.0.1.2 $TAGGED 7000 5000
	wait $pid
	# whether drivers count down the TTL, or cut padding off, of themselves is another question
	sed -E 's/(ee){8,}$//; s/(080045[0-9a-f]{14})[0-9a-f]{2}11[0-9a-f]{4}/\1/' "$TMP/frames" | sort
}
frames() { # frames TAG...: the driver takes the rules, and what it sends is what software sends
	local n
	mock "profile=mlx5" || return
	tagged "$@"
	rules || return
	talk x "$cl" udp $TAGGED 5000 --sport 7000 || return
	say_ok x echo 50 1000
	arrive >"$TMP/software"
	hush x
	rules FLAGS="counter; flags offload;" || return
	talk x "$cl" udp $TAGGED 5000 --sport 7000 --timeout 3 || return
	busywait 8000 heavier || fail "not in hardware"
	n=$(mock_get forwarded)
	arrive >"$TMP/hardware"
	want_ge "of 20 frames, forwarded by hardware" $(($(mock_get forwarded) - n)) 19
	want_ge "frames that software let through" "$(wc -l <"$TMP/software")" 19
	cmp -s "$TMP/software" "$TMP/hardware" || fail "frames differ: $(diff "$TMP/software" "$TMP/hardware" | head -n 6)"
	hush x
	clean
	ipn "$sv" route del 10.0.1.0/24
	ipn "$rt" link del "r${1##*.}"; ipn "$sv" link del "e${1##*.}"
}
tcase    "802.1Q on WAN: frames as software makes them"  frames 802.1Q.7
tcase -x "802.1ad on WAN: frames as software makes them" frames 802.1ad.100
tcase -x "QinQ on WAN: frames as software makes them"    frames 802.1ad.100 802.1Q.7

refused() { # a driver that does not want the flow is not asked every second
	local n
	mock || return
	echo 95 >$PARAM/fail_add; echo -1 >$PARAM/fail_count
	rules FLAGS="counter; flags offload;" || return
	talk x "$cl" udp $V4 || return
	busywait 8000 refuses || fail "was not asked"
	n=$(mock_get refused)
	say_ok x echo 100 1000; sleep 2; say_ok x echo 100 1000; sleep 2; say_ok x echo 100 1000
	want_le "times asked in 4 s" $(($(mock_get refused) - n)) 1
	hush x
	echo 0 >$PARAM/fail_count
	clean
}
refuses() { say x echo 20 1000 >/dev/null; [ "$(mock_get refused)" -ge 1 ]; }
tcase -x "a flow that the driver refuses is not offered again" refused

SETUP=setup
run_cases "$@"
