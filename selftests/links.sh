#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Links that cannot say what is below them: they are listed in the flowtable
# themselves. Tunnels that carry Ethernet or PPP, bonds that fail over, devices
# that stand for another one.
#
#      cl                       rt                           sv
#   eth0 10.0.1.2 ---- lan  10.0.1.1  wan 10.0.2.1 ----- eth0 10.0.2.2
#      fd00:1::2            fd00:1::1     fd00:2::1          fd00:2::2
#                                     tun 10.0.3.1 ===== tun 10.0.3.2
#                                         fd00:3::1          fd00:3::2
#   eth1 ------------- lan2                              lo 10.9.9.9 fd00:9::9

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.9.9.9 V6=fd00:9::9
SLACK=12 PPPS=()

setup() {
	lan_wan || return
	ip link add lan2 netns "$rt" type veth peer name eth1 netns "$cl" || return
	ipn "$rt" link set wan mtu 1600; ipn "$sv" link set eth0 mtu 1600
	printf '%s\n' "addr add $V4/32 dev lo" "addr add $V6/128 dev lo nodad" | batch "$sv"
	serve "$sv"
}
# ends: addresses and routes over the link, whatever it is
ends() {
	{ addr_lines tun "${1:-10.0.3.1/24}" fd00:3::1/64
	printf '%s\n' "route replace $V4 via 10.0.3.2 dev tun" "route replace $V6 via fd00:3::2 dev tun"; } >"$TMP/batch.rt"
	{ addr_lines tun "${2:-10.0.3.2/24}" fd00:3::2/64
	printf '%s\n' "route replace 10.0.1.0/24 via 10.0.3.1 dev tun src $V4" "route replace fd00:1::/64 via fd00:3::1 dev tun src $V6"; } >"$TMP/batch.sv"
	want_ok "router's end" batch "$rt" <"$TMP/batch.rt" && want_ok "server's end" batch "$sv" <"$TMP/batch.sv" || return
	busywait $((5000 * SLOW)) at "$cl" ping -c1 -W1 -q $V4 || fail "no connectivity"
}
unlink() {
	local n
	nft_rt flush ruleset
	[ ${#PPPS[@]} = 0 ] || stop "${PPPS[@]}"
	PPPS=()
	for n in "$rt" "$sv"; do
		at "$n" ip l2tp del tunnel tunnel_id 1 2>/dev/null
		! ipn "$n" -br link | grep -q '^tun[@ ]' || ipn "$n" link del tun
	done
	return 0
}
# carried: traffic over the link, with the link listed
carried() {
	rules DEVS="lan, tun" WATCH="lan, tun" || return
	bypass_all $V4 $V6
	forget
	stream_start $V4 || return
	ipn "$rt" link set tun down
	busywait $((1000 * SLOW)) not_flowing || fail "traffic passes with the link down"
	ipn "$rt" link set tun up
	batch "$rt" <"$TMP/batch.rt" 2>/dev/null
	busywait $((3000 * SLOW)) flowing || fail "traffic does not come back"
	fast_now
	stream_end 9000
}
# below: only the ports are listed: slow, and unharmed
below() {
	local s
	rules DEVS="lan, wan" WATCH="lan, tun" || return
	s=$(stat_get skip.device_not_listed)
	conv_open x "$cl" udp $V4 5000 || return
	conv_ok x echo 50
	conv_close x
	counters
	want_ge "packets in the forward chain" "$FORWARDED" 90
	[ "$FT" != ours ] || want_ge "skip.device_not_listed" "$(stat_get skip.device_not_listed)" $((s + 1))
}

link() { # link KIND OPTION...: LOCAL and REMOTE in the options stand for the outer addresses
	local kind=$1 a b; shift
	unlink
	a=${*//LOCAL/10.0.2.1} b=${*//LOCAL/10.0.2.2}
	# shellcheck disable=SC2086
	ipn "$rt" link add tun mtu 1400 type "$kind" ${a//REMOTE/10.0.2.2} 2>/dev/null || { skip "no $kind"; return; }
	# shellcheck disable=SC2086
	ipn "$sv" link add tun mtu 1400 type "$kind" ${b//REMOTE/10.0.2.1}
	ends || return
	carried
	below
	unlink
}
tcase "VXLAN is listed"                         link vxlan id 7 local LOCAL remote REMOTE dstport 4789
tcase "Geneve is listed"                        link geneve id 7 remote REMOTE

summed() { # the stack sums up what a tunnel brings: the hop limit is part of the sum
	unlink
	# nobody but the stack computes and checks sums
	printf '%s\n' "link add tun mtu 1400 type vxlan id 7 local 10.0.2.1 remote 10.0.2.2 dstport 4789 udpcsum" | batch "$rt"
	printf '%s\n' "link add tun mtu 1400 type vxlan id 7 local 10.0.2.2 remote 10.0.2.1 dstport 4789 udpcsum" | batch "$sv"
	offloads "$sv" eth0 tx off gso off; offloads "$sv" tun tx off gso off
	offloads "$rt" wan gro off; offloads "$rt" tun gro off
	ends || return
	rules DEVS="lan, tun" WATCH="lan, tun" || return
	conv_open x "$cl" udp $V6 5000 --timeout 5 || return
	conv_ok x echo 5 400
	busywait 2000 offloaded_line udp 5000 || fail "not [OFFLOAD]: $(ct_list -p udp)"
	counters_zero
	conv_ok x echo 50 400
	counters
	want_le "packets in the forward chain" "$FORWARDED" 4
	conv_close x
	offloads "$sv" eth0 tx on gso on
	unlink
}
tcase -x "IPv6 over VXLAN, checksums by the stack" summed

l2tp_eth() { # an Ethernet pseudowire of L2TP version 3
	local n l r
	unlink
	for n in rt sv; do
		l=10.0.2.1 r=10.0.2.2
		[ $n = rt ] || l=10.0.2.2 r=10.0.2.1
		at "${!n}" ip l2tp add tunnel tunnel_id 1 peer_tunnel_id 1 local $l remote $r "$@" 2>"$TMP/out" &&
			at "${!n}" ip l2tp add session name tun tunnel_id 1 session_id 1 peer_session_id 1 2>"$TMP/out" ||
			{ skip "no L2TP: $(tail -n1 "$TMP/out")"; unlink; return; }
		ipn "${!n}" link set tun mtu 1400
	done
	ends || return
	carried
	below
	unlink
}
tcase "L2TPv3 Ethernet over IP is listed"       l2tp_eth encap ip
tcase "L2TPv3 Ethernet over UDP is listed"      l2tp_eth encap udp udp_sport 1701 udp_dport 1701

ppp() { # ppp KIND: PPP whose channel has no forward path
	local n l r fd
	unlink
	modprobe -qa ppp_generic "$2"
	[ -c /dev/ppp ] || { skip "no PPP in this kernel"; return; }
	for n in rt sv; do
		l=10.0.2.1 r=10.0.2.2
		[ $n = rt ] || l=10.0.2.2 r=10.0.2.1
		rm -f "$TMP/ppp.ready" "$TMP/ppp.in"; mkfifo "$TMP/ppp.in"
		exec {fd}<>"$TMP/ppp.in"
		nsenter --net="/run/netns/${!n}" -- "${PY[@]}" links "$1" $l $r --name tun --ready "$TMP/ppp.ready" <"$TMP/ppp.in" 2>"$TMP/ppp.err" &
		PIDS+=($!) PPPS+=($!); disown $!
		busywait $((5000 * SLOW)) ready_or_gone "${PPPS[-1]}"
		[ -e "$TMP/ppp.ready" ] || { skip "no $1: $(tail -n1 "$TMP/ppp.err")"; unlink; return; }
	done
	ends "10.0.3.1 peer 10.0.3.2" "10.0.3.2 peer 10.0.3.1" || return
	carried
	below
	unlink
}
ready_or_gone() { [ -e "$TMP/ppp.ready" ] || gone "$1"; }
tcase -x "PPP over L2TP is listed"              ppp l2tp l2tp_ppp
tcase -x "PPP over PPTP is listed"              ppp pptp pptp

# ---- two legs

bond() { # bond LISTED: an active-backup bond on the LAN loses its active leg, and its other one
	local n d
	ipn "$rt" link add bond9 type bond mode active-backup miimon 50 2>/dev/null || { skip "no bonding"; return; }
	ipn "$cl" link add bond9 type bond mode active-backup miimon 50
	for n in rt cl; do
		for d in lan lan2 eth0 eth1; do
			case $n$d in rtlan*|cleth*) printf '%s\n' "addr flush dev $d" "link set $d down" "link set $d master bond9" "link set $d up" ;; esac
		done | batch "${!n}"
	done
	addr_lines bond9 10.0.1.1/24 fd00:1::1/64 | batch "$rt"
	{ addr_lines bond9 10.0.1.2/24 fd00:1::2/64 10.0.1.1 fd00:1::1; printf '%s\n' "route replace $V4 via 10.0.1.1"; } | batch "$cl"
	printf '%s\n' "route replace $V4 via 10.0.2.2" "route replace $V6 via fd00:2::2" | batch "$rt"
	printf '%s\n' "route replace 10.0.1.0/24 via 10.0.2.1 src $V4" "route replace fd00:1::/64 via fd00:2::1 src $V6" | batch "$sv"
	busywait $((5000 * SLOW)) at "$cl" ping -c1 -W1 -q $V4 || fail "no connectivity"
	rules DEVS="$1" WATCH="bond9, wan" || return
	bypass_all $V4 $V6
	forget
	stream_start $V4 || return
	for d in lan lan2; do
		[ "$(active)" = $d ] || continue
		ipn "$rt" link set $d down
		busywait $((2000 * SLOW)) flowing || fail "traffic does not come back without $d"
		fast_now
		ipn "$rt" link set $d up
	done
	stream_end 3000
	ipn "$rt" link del bond9; ipn "$cl" link del bond9
	addr_lines lan 10.0.1.1/24 fd00:1::1/64 | batch "$rt"
	addr_lines eth0 10.0.1.2/24 fd00:1::2/64 10.0.1.1 fd00:1::1 | batch "$cl"
}
active() { ipn "$rt" -d -j link show bond9 | jq -r '.[0].linkinfo.info_data.active_slave'; }
tcase "a bond fails over"                       bond "bond9, wan"


# ---- a switch

dsa() { # a port of dsa_loop's switch, which sends and never receives; only in the first namespace
	local c9='' s9='' cl sv rt=first-$RANDOM
	[ ! -e /sys/class/net/eth0 ] || { skip "there is an eth0, which would become the switch's conduit"; return; }
	modprobe -qn dsa_loop || { skip "no dsa_loop in this kernel"; return; }
	ns_add c9 s9; cl=$c9 sv=$s9
	ip netns attach "$rt" $$ && NS+=("$rt") || return
	ip link add dlan type veth peer name eth0 netns "$cl"
	ip link add eth0 type veth peer name eth0 netns "$sv"
	modprobe -qa dsa_loop_bdinfo dsa_loop
	busywait $((3000 * SLOW)) test -e /sys/class/net/lan1 || { skip "dsa_loop makes no ports"; ip link del eth0; return; }
	sysctl -qw net.ipv4.ip_forward=1
	addr_lines eth0 10.0.1.2/24 fd00:1::2/64 10.0.1.1 fd00:1::1 | batch "$cl"
	addr_lines eth0 10.0.3.2/24 fd00:3::2/64 10.0.3.1 fd00:3::1 | batch "$sv"
	{ echo "link set eth0 up"; addr_lines dlan 10.0.1.1/24 fd00:1::1/64; addr_lines lan1 10.0.3.1/24 fd00:3::1/64
	echo "neigh replace 10.0.3.2 lladdr $(mac "$sv" eth0) dev lan1 nud permanent"; } | batch "$rt"
	busywait $((5000 * SLOW)) lan1_up || fail "no link at the port"
	rules DEVS="dlan, lan1" WATCH="dlan" && stream_start 10.0.3.2 && { fast_now; stream_end 3000; }
	nft flush ruleset
	sysctl -qw net.ipv4.ip_forward=0
	rmmod dsa_loop
	ip link del eth0; ip link del dlan
	ip netns del "$rt"
}
lan1_up() { [ "$(cat /sys/class/net/lan1/carrier)" = 1 ]; }
tcase "out by a port of a switch (DSA)"         dsa

SETUP=setup
run_cases "$@"
