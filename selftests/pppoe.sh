#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# PPPoE towards the provider: over Ethernet, over a VLAN; sessions that change;
# whichever of the devices the flowtable lists. Two kernel sockets that agree on
# the session number are the two ends (links.py): no daemon is needed.
#
#      cl                       rt                         sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan -- PPPoE -- eth0
#      fd00:1::2          fd00:1::1    ppp0 10.0.2.1 -- ppp0 10.0.2.2
#                                           fd00:2::1        fd00:2::2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2
# nftables does not look into a session.
SEEN="meta protocol 0x8864" SLACK=12 PPPIN_rt='' PPPIN_sv=''
MASQ="chain post { type nat hook postrouting priority 100; oifname ppp0 masquerade; };"

setup() {
	[ -e /dev/ppp ] || modprobe -a ppp_generic pppoe 2>/dev/null
	[ -c /dev/ppp ] || skip_all "no PPP in this kernel"
	ns_add cl rt sv || return
	ip link add lan netns "$rt" type veth peer name eth0 netns "$cl" &&
	ip link add wan netns "$rt" mtu 1600 type veth peer name eth0 netns "$sv" mtu 1600 || return
	router_on "$rt"
	addr "$rt" lan 10.0.1.1/24 fd00:1::1/64
	addr "$cl" eth0 10.0.1.2/24 fd00:1::2/64 10.0.1.1 fd00:1::1
	ipn "$rt" link set wan up
	ipn "$sv" link set eth0 up
	ipn "$rt" link add link wan name wan.7 mtu 1500 up type vlan id 7
	ipn "$sv" link add link eth0 name eth0.7 mtu 1500 up type vlan id 7
	serve "$sv" && serve "$cl"
}
# end NS DEV OTHER-MAC SESSION ADDRESS4 ADDRESS6: one end; its process is in PPP_<NS's name>
end() {
	local fd var=${1%%-*} name=ppp0
	[ "$var" = rt ] && name=${PPP:-ppp0}
	rm -f "$TMP/ppp.$var" "$TMP/ppp.ready"; mkfifo "$TMP/ppp.$var"
	exec {fd}<>"$TMP/ppp.$var"; printf -v "PPPIN_$var" %s "$fd"
	nsenter --net="/run/netns/$1" -- "${PY[@]}" links pppoe "$2" "$3" "$4" --name "$name" --ready "$TMP/ppp.ready" <"$TMP/ppp.$var" >"$TMP/ppp.out.$var" &
	PIDS+=($!); disown $!
	printf -v "PPP_$var" %s $!
	busywait $((5000 * SLOW)) test -e "$TMP/ppp.ready" || { fail "no session"; return 1; }
	addr_lines "$name" "$5" "$6" | batch "$1"
}
# session RT-DEV SV-DEV SESSION: PPPoE between router and server
session() {
	hangup
	SESSION=$3
	end "$rt" "$1" "$(mac "$sv" "$2")" "$3" "10.0.2.1 peer 10.0.2.2" "fd00:2::1/64" || return
	end "$sv" "$2" "$(mac "$rt" "$1")" "$3" "10.0.2.2 peer 10.0.2.1" "fd00:2::2/64" || return
	printf 'route replace 10.0.1.0/24 dev ppp0\nroute replace fd00:1::/64 dev ppp0\n' | batch "$sv"
}
hangup() {
	[ -z "${PPP_rt:-}" ] || stop $PPP_rt $PPP_sv
	PPP_rt='' PPP_sv=''
}
# next_session: both ends move to another session, the devices stay
next_session() {
	SESSION=$((SESSION + 1))
	echo $SESSION >&"$PPPIN_rt"; echo $SESSION >&"$PPPIN_sv"
}

over() { # over RT-DEV SV-DEV DEVS [WATCH [NAT]]
	session "$1" "$2" $((RANDOM % 60000 + 1)) || return
	rules DEVS="$3" WATCH="${4:-}" NAT="${5:-}" || return
	bypass_all $V4 $V6
	# from the other side as well
	[ -n "${5:-}" ] || { forget; FROM=$sv bypass_all 10.0.1.2 fd00:1::2; }
	hangup
}
tcase "PPPoE"                                   over wan eth0 "lan, wan"
tcase "PPPoE, masquerade"                       over wan eth0 "lan, wan" "" "$MASQ"
tcase "PPPoE over VLAN"                         over wan.7 eth0.7 "lan, wan"
tcase "PPPoE over VLAN, masquerade"             over wan.7 eth0.7 "lan, wan" "" "$MASQ"
tcase -x "PPPoE, the PPP device is listed"      over wan eth0 "lan, ppp0" "lan, ppp0" "$MASQ"
tcase -x "PPPoE over VLAN, the PPP device is listed" over wan.7 eth0.7 "lan, ppp0"
tcase -x "PPPoE over VLAN, the VLAN device is listed" over wan.7 eth0.7 "lan, wan.7"
tcase "PPPoE over VLAN, all devices are listed" over wan.7 eth0.7 "lan, wan, wan.7, ppp0" "lan, wan"
pcp() {
	ipn "$sv" link set eth0.7 type vlan egress-qos-map 0:5
	over wan.7 eth0.7 "lan, wan"
	ipn "$sv" link set eth0.7 type vlan egress-qos-map 0:0
}
tcase -x "PPPoE over VLAN with PCP 5"           pcp

full_size() { # the largest packet that fits, one that does not, an odd one
	session wan eth0 77 || return
	rules || return
	conv_open x "$cl" udp $V4 5000 --pmtu dont || return
	conv_ok x echo 20 1464
	conv_ok x echo 20 7
	conv_ok x echo 20 0
	offloaded_line udp 5000 || fail "the flow is not offloaded"
	conv_ok x echo 10 1465
	conv_ok x echo 10 1472
	conv_ok x echo 20 1464
	conv_close x
	BYTES=1000000 bypass tcp $V6
	hangup
}
tcase "PPPoE, packets of the largest size"      full_size

past_ppp0() { local n; n=$(stat_get packets_direct); conv_ok x echo 5 100; [ "$(stat_get packets_direct)" -ge $((n + 5)) ]; }
ppp0() { ipn "$rt" -s -j link show ppp0 | jq -r ".[0].stats64.$1"; }
counted() { # counted RT-DEV SV-DEV DEVS: the PPP device knows of packets that went by it below
	local n p b
	session "$1" "$2" 78 || return
	rules DEVS="$3" WATCH="lan, wan" || return
	conv_open x "$cl" udp $V4 || return
	conv_ok x echo 20 1000
	offloaded_line udp 5000 || fail "the flow is not offloaded"
	[ "$FT" != ours ] || busywait $((3000 * SLOW)) past_ppp0 || fail "packets do not go past ppp0"
	for n in rx tx; do
		p=$(ppp0 $n.packets) b=$(ppp0 $n.bytes)
		conv_ok x echo 200 1000
		p=$(($(ppp0 $n.packets) - p)) b=$(($(ppp0 $n.bytes) - b))
		want_ge "$n: packets" $p 200; want_le "$n: packets" $p 210
		want_ge "$n: bytes" $b $((200 * 1028)); want_le "$n: bytes" $b $((200 * 1028 + 2000))
	done
	conv_close x
	hangup
}
ppp_seen() { # ppp_seen RT-DEV SV-DEV: who comes to the PPP device sees every packet from then on
	local n
	session "$1" "$2" 79 || return
	rules WATCH="lan, wan" || return
	conv_open x "$cl" udp $V4 $PORT --timeout 3 || return
	conv_ok x echo 5
	busywait 2000 offloaded_line udp 5000 || fail "the flow is not offloaded"
	[ "$FT" != ours ] || busywait $((3000 * SLOW)) past_ppp0 || fail "packets do not go past ppp0"
	nft_rt -f - <<-END
		table netdev eye {
			counter c { }
			chain out { type filter hook egress device ppp0 priority 0; counter name c; }
		}
	END
	conv_ok x echo 100 300
	n=$(nft_rt list counter netdev eye c | awk '$1 == "packets" { print $2 }')
	want_ge "of 100 packets, seen at ppp0" "$n" 100
	nft_rt delete table netdev eye
	[ "$FT" != ours ] || busywait $((3000 * SLOW)) past_ppp0 || fail "packets do not go past ppp0 again"
	# the same devices, another session
	next_session
	busywait $((15000 * SLOW)) conv_cmd x echo 3 100 >/dev/null || fail "nothing comes back in the new session"
	conv_ok x drain
	[ "$FT" != ours ] || busywait $((3000 * SLOW)) past_ppp0 || fail "packets do not go past ppp0 in the new session"
	conv_ok x echo 100 300
	conv_close x
	hangup
}
tcase "who comes to the PPP device sees every packet"  ppp_seen wan eth0
tcase "who comes to the PPP device sees every packet, in a VLAN" ppp_seen wan.7 eth0.7
tcase -x "the PPP device counts what is fast"          counted wan eth0 "lan, wan"
tcase -x "the PPP device counts what is fast, in a VLAN" counted wan.7 eth0.7 "lan, wan"

sqm() { # what shapes the line: a discipline on the PPP device, though the flowtable lists the port
	local a
	modprobe -qa sch_fq_codel sch_cake 2>/dev/null
	session "$1" "$2" 88 || return
	at "$rt" tc qdisc add dev ppp0 root "${@:3}" 2>"$TMP/out" || { hangup; skip "no qdisc $3: $(tail -n1 "$TMP/out")"; return; }
	rules NAT="$MASQ" || return
	conv_open x "$cl" udp $V4 || return
	conv_ok x echo 5
	busywait 2000 offloaded_line udp 5000 || fail "not [OFFLOAD]: $(ct_list -p udp)"
	conv_ok x echo 3
	counters_zero
	a=$(in_qdisc)
	conv_ok x echo 100 300
	counters
	want_le "packets in the forward chain" "$FORWARDED" 4
	want_ge "of 100 packets, seen by $3 on ppp0" $(($(in_qdisc) - a)) 100
	conv_close x
	hangup
}
in_qdisc() { at "$rt" tc -s qdisc show dev ppp0 | awk '$1 == "Sent" { print $4; exit }'; }
tcase -x "fq_codel on the PPP device sees every packet" sqm wan eth0 fq_codel
tcase -x "cake on the PPP device over a VLAN sees every packet" sqm wan.7 eth0.7 cake bandwidth 1gbit

# the provider's end is the sender of streams, and back
swap() { local a=$cl; cl=$sv; sv=$a; }
foreign() { # one end has moved to another session, the other one does not know
	session wan eth0 100 || return
	rules || return
	swap
	stream_start 10.0.1.2
	echo 101 >&"$PPPIN_sv"
	busywait $((1000 * SLOW)) not_flowing || fail "packets of session 101 are forwarded"
	echo 100 >&"$PPPIN_sv"
	busywait $((1000 * SLOW)) flowing || fail "traffic does not come back"
	fast_now
	stream_end 3000
	swap
	hangup
}
tcase "packets of another session are not forwarded" foreign

# made_up OPTION...: 20 datagrams as if the far end had sent them, in frames of the session, arrive at the
# router; how many arrive at the client
made_up() {
	local a
	a=$(client_got)
	at "$sv" "${PY[@]}" forge session eth0 "$(mac "$rt" wan)" "${PEER:-$(mac "$sv" eth0)}" "$SESSION" "$1@5000" "$2@$PORT_CL" --count 20 "${@:3}" || fail "forge.py"
	busywait $((${PATIENCE:-200} * SLOW)) all_got $((a + 20))
	echo $(($(client_got) - a))
}
client_got() { at "$cl" nft list counter inet made got | awk '$1 == "packets" { print $2 }'; }
all_got() { [ "$(client_got)" -ge "$1" ]; }
strangers() { # strangers ADDRESS: frames that the session's other end has not sent, or not so
	local a=$1 c=10.0.1.2 f l
	[ "$a" = $V4 ] || c=fd00:1::2
	session wan eth0 555 || return
	rules || return
	at "$cl" nft -f - <<-END
		table inet made {
			counter got { }
			chain in {
				type filter hook input priority 0;
				udp sport 5000 counter name got
			}
		}
	END
	conv_open x "$cl" udp "$a" || return
	conv_ok x echo 20
	offloaded_line udp 5000 || fail "the flow is not offloaded"
	PORT_CL=$(ct_list -p udp --orig-port-dst 5000 | sed -n 's/.*sport=\([0-9]*\) dport=5000 .*/\1/p' | head -n1)
	f=$(stat_get packets_fast)
	want_eq "of 20 datagrams as the other end sends them, arrived" "$(PATIENCE=3000 made_up "$a" "$c")" 20
	[ "$FT" != ours ] || want_ge "of these, fast" $(($(stat_get packets_fast) - f)) 20
	want_eq "datagrams from a stranger that arrived" "$(PEER=02:00:00:00:00:99 made_up "$a" "$c")" 0
	want_eq "datagrams from the router itself that arrived" "$(PEER=$(mac "$rt" wan) made_up "$a" "$c")" 0
	for l in 1 2 20 1000 60000; do
		want_eq "of 20 frames that say $l bytes too many, arrived" "$(made_up "$a" "$c" --more $l)" 0
	done
	for l in 1 2 3 20 100; do
		want_eq "of 20 frames that say $l bytes too few, arrived" "$(made_up "$a" "$c" --more -$l)" 0
		want_eq "of 20 padded frames that say $l bytes too few, arrived" "$(made_up "$a" "$c" --more -$l --pad $((l + 8)))" 0
	done
	for l in 1 2 20; do
		want_eq "of 20 frames with $l bytes behind the packet, arrived" "$(PATIENCE=3000 made_up "$a" "$c" --pad $l)" 20
		want_eq "of 20 frames with $l bytes behind the packet, as they say, arrived" "$(PATIENCE=3000 made_up "$a" "$c" --pad $l --more $l)" 20
	done
	conv_close x
	at "$cl" nft delete table inet made
	hangup
}
tcase -x "IPv4, frames of others, and with wrong lengths" strangers $V4
tcase -x "IPv6, frames of others, and with wrong lengths" strangers $V6

# ppp_filter pass|active N: as pppd's option
ppp_filter() {
	: >"$TMP/ppp.out.rt"
	echo "$*" >&"$PPPIN_rt"
	busywait $((3000 * SLOW)) test -s "$TMP/ppp.out.rt"
	tail -n1 "$TMP/ppp.out.rt"
}
filtered() { # filtered pass|active: a session with a filter: packets pass it, one by one
	local a n
	session wan eth0 556 || return
	a=$(ppp_filter "$1" 500)
	[ "$a" = ok ] || { hangup; skip "no filters of PPP: $a"; return; }
	rules || return
	n=$(stat_get skip.ppp_filter)
	conv_open x "$cl" udp $V4 5000 --timeout 1 || return
	conv_ok x echo 20 400
	[ "$1" = active ] || ! conv_cmd x echo 1 1000 >/dev/null || fail "a packet passes that the filter does not let pass"
	conv_ok x drain
	conv_ok x echo 20 400
	[ "$FT" != ours ] || want_ge "skip.ppp_filter" "$(stat_get skip.ppp_filter)" $((n + 1))
	ppp_filter "$1" 0 >/dev/null
	conv_ok x echo 20 400
	[ "$FT" != ours ] || busywait $((3000 * SLOW)) echo_fast || fail "not fast without a filter"
	# set while it is
	ppp_filter "$1" 500 >/dev/null
	busywait $((3000 * SLOW)) echo_slow || fail "still fast with a filter"
	conv_close x
	hangup
}
echo_slow() { counters_zero; conv_cmd x echo 20 400; counters; [ "$FORWARDED" -ge 20 ]; }
tcase -x "a session with a pass-filter"         filtered pass
tcase -x "a session with an active-filter"      filtered active

# ---- changes under traffic

moved() { # moved ADDRESS [NAT]: another session, same device
	session wan eth0 200 || return
	rules NAT="${2:-}" || return
	stream_start "$1" || return
	conv_open x "$cl" udp "$1" $PORT --timeout 3 || return
	conv_ok x echo 30
	next_session
	busywait $((1000 * SLOW)) flowing || { fail "traffic does not come back in the new session"; conv_close x; stream_end 5000; hangup; return; }
	# both ways, and the fast way again
	sleep 0.2
	conv_ok x drain
	conv_ok x echo 10
	[ "$FT" != ours ] || busywait $((3000 * SLOW)) echo_fast || fail "answers stay slow: of $ARRIVED packets $FORWARDED in the forward chain"
	conv_close x
	stream_end 2500
	hangup
}
echo_fast() { counters_zero; conv_cmd x echo 30; counters; [ "$ARRIVED" -ge 60 ] && [ "$FORWARDED" -le 4 ]; }
tcase -x "IPv4, the session changes, the device stays" moved $V4
tcase -x "IPv4 masquerade, the session changes, the device stays" moved $V4 "$MASQ"
tcase -x "IPv6, the session changes, the device stays" moved $V6

redialled() { # redialled ADDRESS DEVS: the device goes and comes back with another session
	session wan eth0 300 || return
	rules DEVS="$2" WATCH="lan" || return
	stream_start "$1" || return
	hangup
	not_flowing || fail "traffic passes without a session"
	session wan eth0 301 || return
	busywait $((3000 * SLOW)) flowing || fail "traffic does not come back"
	[ "$FT" != ours ] || fast_now
	stream_end 9000
	hangup
}
tcase "IPv4, hung up and dialled again"         redialled $V4 "lan, wan"
tcase "IPv6, hung up and dialled again"         redialled $V6 "lan, wan"
tcase -x "IPv4, hung up and dialled again, the PPP device is listed" redialled $V4 "lan, ppp0"

down() { # the PPP device goes down, the port below does not
	session wan eth0 400 || return
	rules || return
	stream_start $V4 || return
	ipn "$rt" link set ppp0 down
	busywait $((2000 * SLOW)) not_flowing || fail "traffic passes with ppp0 down"
	ipn "$rt" link set ppp0 up
	ipn "$rt" route replace 10.0.2.2 dev ppp0
	busywait $((3000 * SLOW)) flowing || fail "traffic does not come back"
	fast_now
	stream_end 9000
	hangup
}
tcase "the PPP device goes down and up"         down

SETUP=setup
run_cases "$@"
