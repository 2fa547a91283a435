#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Links of different MTU around the router: what is too big for the next link
# leaves the fast path and gets the ICMP error or the fragments it would get
# without a flowtable.
#
#   cl ----(9000)---- lan rt wan ----(1500)---- r2 ----(2000)---- sv
#   10.0.1.2          .1.1  10.0.3.1      10.0.3.2  10.0.2.1      10.0.2.2
#   fd00:1::2                fd00:3::1     fd00:3::2               fd00:2::2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2 r2=
NAT="chain post { type nat hook postrouting priority 100; oifname wan masquerade; };"

setup() {
	ns_add cl rt r2 sv || return
	ip link add lan mtu 9000 netns "$rt" type veth peer name eth0 mtu 9000 netns "$cl"
	ip link add wan mtu 1500 netns "$rt" type veth peer name eth0 mtu 1500 netns "$r2"
	ip link add eth1 mtu 2000 netns "$r2" type veth peer name eth0 mtu 2000 netns "$sv"
	router_on "$rt"; router_on "$r2"
	addr "$rt" lan 10.0.1.1/24 fd00:1::1/64
	addr "$rt" wan 10.0.3.1/24 fd00:3::1/64 10.0.3.2 fd00:3::2
	addr "$r2" eth0 10.0.3.2/24 fd00:3::2/64 10.0.3.1 fd00:3::1
	addr "$r2" eth1 10.0.2.1/24 fd00:2::1/64
	addr "$cl" eth0 10.0.1.2/24 fd00:1::2/64 10.0.1.1 fd00:1::1
	addr "$sv" eth0 10.0.2.2/24 fd00:2::2/64 10.0.2.1 fd00:2::1
	serve "$sv"
	busywait 5000 at "$cl" ping -c1 -W1 -q $V4 && busywait 5000 at "$cl" ping -c1 -W1 -q $V6
}
# start: a fresh ruleset, no remembered path MTU anywhere
start() {
	local n
	for n in "$cl" "$sv" "$rt"; do
		ipn "$n" route flush cache
		ipn "$n" -6 route flush cache
	done
	rules NAT="${1:-}"
}
pmtu() { # the path MTU that namespace $1 has learned towards $2
	ipn "$1" -j route get "$2" | jq -r '.[0].metrics[0].mtu // empty'
}
pmtud() { at "$cl" sysctl -qw net.ipv4.ip_no_pmtu_disc="$1"; at "$sv" sysctl -qw net.ipv4.ip_no_pmtu_disc="$1"; }
learned() { [ "$(pmtu "$1" "$2")" = "$3" ]; }

tcp_pmtud() { # TCP with path MTU discovery: nearly everything is fast in the end
	start "$2" || return
	BYTES=2097152 MAX_SLOW=150 bypass tcp "$1"
	want_eq "path MTU at the client" "$(pmtu "$cl" "$1")" 1500
}
tcase "TCP IPv4 with PMTUD"              tcp_pmtud $V4 ""
tcase "TCP IPv6 with PMTUD"              tcp_pmtud $V6 ""
tcase "TCP IPv4 with PMTUD, masquerade"  tcp_pmtud $V4 "$NAT"
tcase "TCP IPv6 with PMTUD, masquerade"  tcp_pmtud $V6 "$NAT"

tcp_no_pmtud() { # segments of 1960 without DF: fragmented by the router
	local frags
	pmtud 1
	start "$1" || return
	frags=$(frag_count)
	conv_open x "$cl" tcp $V4 || return
	conv_ok x echo 200000
	offloaded_line tcp 5000 || fail "no [OFFLOAD]"
	conv_close x
	pmtud 0
	want_ge "datagrams fragmented by the router" $(($(frag_count) - frags)) 20
}
frag_count() { at "$rt" cat /proc/net/snmp | awk '/^Ip: [0-9]/ { print $18 }'; }
tcase "TCP IPv4 without PMTUD is fragmented"              tcp_no_pmtud ""
tcase "TCP IPv4 without PMTUD is fragmented, masquerade"  tcp_no_pmtud "$NAT"

too_big() { # an offloaded flow, then datagrams that do not fit
	local dst=$1 hdr=28 miss
	[ "$dst" = $V4 ] || hdr=48
	start "$2" || return
	conv_open x "$cl" udp "$dst" 5000 --pmtu probe --timeout 1 || return
	conv_ok x echo 50 1000
	offloaded_line udp 5000 || fail "no [OFFLOAD]"
	want_eq "path MTU before" "$(pmtu "$cl" "$dst")" ""
	miss=$(stat_sum miss.)
	conv_ok x send 1 $((1501 - hdr))
	busywait 2000 learned "$cl" "$dst" 1500 || fail "no ICMP error came back, path MTU is '$(pmtu "$cl" "$dst")'"
	conv_cmd x echo 1 1000 >/dev/null # takes the pending error
	conv_ok x drain
	conv_ok x echo 50 $((1500 - hdr))
	offloaded_line udp 5000 || fail "no [OFFLOAD] any more"
	[ "$FT" != ours ] || want_ge "counted misses" $(($(stat_sum miss.) - miss)) 1
	conv_close x
}
tcase "UDP IPv4 too big: fragmentation needed comes back"              too_big $V4 ""
tcase "UDP IPv6 too big: packet too big comes back"                    too_big $V6 ""
tcase "UDP IPv4 too big: fragmentation needed comes back, masquerade"  too_big $V4 "$NAT"
tcase "UDP IPv6 too big: packet too big comes back, masquerade"        too_big $V6 "$NAT"

no_df() { # without DF the same datagram is fragmented, and arrives
	local f0
	start "$NAT" || return
	conv_open x "$cl" udp $V4 5000 --pmtu dont || return
	conv_ok x echo 50 1000
	offloaded_line udp 5000 || fail "no [OFFLOAD]"
	f0=$(forwarded)
	conv_ok x echo 10 1473
	conv_ok x echo 10 8000
	want_ge "packets seen by the forward chain" $(($(forwarded) - f0)) 20
	f0=$(forwarded)
	conv_ok x echo 50 1472
	want_le "packets seen by the forward chain once they fit" $(($(forwarded) - f0)) 4
	conv_close x
}
tcase "UDP IPv4 without DF is fragmented and arrives" no_df

reverse_too_big() { # the reply direction: 9000 towards the client, 2000 at the server
	start "$NAT" || return
	conv_open x "$cl" udp "$1" 5000 --pmtu dont || return
	conv_ok x echo 50 1000
	offloaded_line udp 5000 || fail "no [OFFLOAD]"
	conv_ok x send 2 1900 # IPv6 learns from these
	sleep 0.2
	conv_ok x drain
	conv_ok x echo 10 1900
	conv_ok x echo 20 1000
	conv_close x
}
tcase "UDP IPv4, replies of 1900 bytes over 1500" reverse_too_big $V4
tcase "UDP IPv6, replies of 1900 bytes over 1500" reverse_too_big $V6

gso() { # one send of ten segments: it is the segment that must fit
	local f0 seg=$2
	start "$NAT" || return
	conv_open x "$cl" udp "$1" 5000 --pmtu want || return
	conv_ok x echo 50 1000
	offloaded_line udp 5000 || fail "no [OFFLOAD]"
	f0=$(forwarded)
	conv_ok x gso_echo $((seg * 10)) "$seg"
	want_le "packets seen by the forward chain" $(($(forwarded) - f0)) 2
	conv_close x
}
tcase "UDP GSO IPv4, segments that fit, stay fast" gso $V4 1472
tcase "UDP GSO IPv6, segments that fit, stay fast" gso $V6 1452

gso_too_big() {
	start "" || return
	conv_open x "$cl" udp "$1" 5000 --pmtu probe --timeout 1 || return
	conv_ok x echo 50 1000
	offloaded_line udp 5000 || fail "no [OFFLOAD]"
	conv_ok x gso 17000 1700
	busywait 2000 learned "$cl" "$1" 1500 || fail "no ICMP error came back, path MTU is '$(pmtu "$cl" "$1")'"
	conv_close x
}
tcase "UDP GSO IPv4, segments too big: error comes back" gso_too_big $V4
tcase "UDP GSO IPv6, segments too big: error comes back" gso_too_big $V6

lowered() { # the link's MTU is lowered while the flow runs, and raised again
	local dst=$1 f0
	start "$NAT" || return
	conv_open x "$cl" udp "$dst" 5000 --pmtu probe --timeout 1 || return
	conv_ok x echo 50 1400
	offloaded_line udp 5000 || fail "no [OFFLOAD]"
	ipn "$rt" link set wan mtu 1300
	conv_cmd x send 2 1400 >/dev/null # the second gets the error of the first
	busywait 2000 learned "$cl" "$dst" 1300 || fail "after 1300: path MTU is '$(pmtu "$cl" "$dst")'"
	ipn "$rt" link set wan mtu 1500
	ipn "$cl" route flush cache; ipn "$cl" -6 route flush cache
	conv_cmd x echo 1 100 >/dev/null
	conv_ok x drain
	# the routes may be renewed a moment later; then all must be fast again
	busywait 5000 conv_cmd x echo 4 1400 || fail "1400 bytes do not pass again"
	conv_ok x echo 4 1400
	f0=$(forwarded)
	conv_ok x echo 50 1400
	want_le "packets seen by the forward chain afterwards" $(($(forwarded) - f0)) 6
	conv_close x
}
tcase "IPv4, MTU lowered and raised under a running flow" lowered $V4
tcase -x "IPv6, MTU lowered and raised under a running flow" lowered $V6

tcp_lowered() { # the same with TCP, nothing may be lost for good
	start "$NAT" || return
	conv_open x "$cl" tcp "$1" || return
	conv_ok x echo 300000
	offloaded_line tcp 5000 || fail "no [OFFLOAD]"
	# both ends: veth drops what is larger than the receiver's MTU, and nobody is told
	ipn "$rt" link set wan mtu 1300; ipn "$r2" link set eth0 mtu 1300
	conv_ok x echo 300000
	want_eq "path MTU" "$(pmtu "$cl" "$1")" 1300
	ipn "$rt" link set wan mtu 1500; ipn "$r2" link set eth0 mtu 1500
	conv_ok x echo 300000
	conv_close x
}
tcase "TCP IPv4 goes on when the MTU is lowered" tcp_lowered $V4
tcase -x "TCP IPv6 goes on when the MTU is lowered" tcp_lowered $V6

route_mtu() { # an MTU set at the route instead of the device
	start "" || return
	ipn "$rt" route replace default via 10.0.3.2 mtu lock 1400
	ipn "$rt" -6 route replace default via fd00:3::2 mtu lock 1400
	conv_open x "$cl" udp "$1" 5000 --pmtu probe --timeout 1 || return
	conv_ok x echo 50 1000
	offloaded_line udp 5000 || fail "no [OFFLOAD]"
	conv_cmd x send 2 1390 >/dev/null
	busywait 2000 learned "$cl" "$1" 1400 || fail "path MTU is '$(pmtu "$cl" "$1")'"
	conv_close x
	ipn "$rt" route replace default via 10.0.3.2
	ipn "$rt" -6 route replace default via fd00:3::2
	ipn "$rt" route show default | grep -q mtu && ipn "$rt" route del default mtu lock 1400
	return 0
}
tcase "IPv4, MTU of the route is respected" route_mtu $V4
tcase "IPv6, MTU of the route is respected" route_mtu $V6

SETUP=setup
run_cases "$@"
