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
# shellcheck source=lib/hw.sh
. "$HERE/lib/hw.sh"

begin() {
	grep -qs " /sys/kernel/debug " /proc/mounts || mount -t debugfs none /sys/kernel/debug
	setup
}

# arrive: how many of 20 datagrams, sent while the flow is in hardware, arrive as they should
arrive() {
	local pid
	rm -f "$TMP/ready"
	at "$sv" "${PY[@]}" hwframes catch eth0 5000 20 --ready "$TMP/ready" >"$TMP/frames" & pid=$!
	busywait 8000 test -e "$TMP/ready"
	at "$cl" "${PY[@]}" hwframes send eth0 "$(mac "$rt" lan)" 10.0.1.2 $TAGGED 7000 5000
	wait $pid
	# whether drivers count down the TTL, or cut padding off, of themselves is another question
	sed -E 's/(ee){8,}$//; s/(080045[0-9a-f]{14})[0-9a-f]{2}11[0-9a-f]{4}/\1/' "$TMP/frames" | sort
}
frames() { # frames TAG...: the driver takes the rules, and what it sends is what software sends
	local n
	mock ports=lan,wan profile=mlx5 || return
	tagged "$@"
	rules || return
	conv_open x "$cl" udp $TAGGED 5000 --sport 7000 || return
	conv_ok x echo 50 1000
	arrive >"$TMP/software"
	conv_close x
	hw_rules || return
	heavy x udp $TAGGED 5000 --sport 7000 || return
	n=$(mock_get forwarded)
	arrive >"$TMP/hardware"
	want_ge "of 20 frames, forwarded by hardware" $(($(mock_get forwarded) - n)) 19
	want_ge "frames that software let through" "$(wc -l <"$TMP/software")" 19
	cmp -s "$TMP/software" "$TMP/hardware" || fail "frames differ: $(diff "$TMP/software" "$TMP/hardware" | head -n 6)"
	conv_close x
	clean
	ipn "$sv" route del 10.0.1.0/24
	ipn "$rt" link del "r${1##*.}"; ipn "$sv" link del "e${1##*.}"
}
tcase    "802.1Q on WAN: frames as software makes them"  frames 802.1Q.7
tcase -x "802.1ad on WAN: frames as software makes them" frames 802.1ad.100
tcase -x "QinQ on WAN: frames as software makes them"    frames 802.1ad.100 802.1Q.7

refused() { # a driver that does not want the flow is not asked every second
	local n
	mock ports=lan,wan || return
	mock_set fail_add 95; mock_set fail_count -1
	hw_rules || return
	conv_open x "$cl" udp $V4 || return
	busywait 8000 refuses || fail "was not asked"
	n=$(mock_get refused)
	conv_ok x echo 100 1000; sleep 2; conv_ok x echo 100 1000; sleep 2; conv_ok x echo 100 1000
	want_le "times asked in 4 s" $(($(mock_get refused) - n)) 1
	conv_close x
	mock_set fail_count 0
	clean
}
refuses() { conv_cmd x echo 20 1000 >/dev/null; [ "$(mock_get refused)" -ge 1 ]; }
tcase -x "a flow that the driver refuses is not offered again" refused

unload_mock() { want_ok "rmmod mock_hw" no_mock; }
tcase "the NIC is unloaded" unload_mock

SETUP=begin
run_cases "$@"
