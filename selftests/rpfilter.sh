#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Reverse path filters: what comes in where its source is not is dropped, whether
# there is a flow or not, and stays fast where it is right. IPv4 by rp_filter, both
# families by nft's fib expression.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2
#      ot
#   eth0 10.0.3.2 ---- lan2 10.0.3.1, and its VLAN 5, 10.0.5.1
#      fd00:3::2            fd00:3::1              fd00:5::1
#   lo   10.0.1.2, fd00:1::2: speaks with the client's addresses

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2
FIB="chain rpf { type filter hook prerouting priority -300; fib saddr . iif oif missing drop; };"
ot=''

setup() {
	lan_wan || return
	ns_add ot
	ip link add lan2 netns "$rt" type veth peer name eth0 netns "$ot" || return
	ipn "$rt" link add link lan2 name lan2.5 type vlan id 5
	ipn "$ot" link add link eth0 name eth0.5 type vlan id 5
	{ addr_lines lan2 10.0.3.1/24 fd00:3::1/64; addr_lines lan2.5 10.0.5.1/24 fd00:5::1/64; } | batch "$rt"
	{ addr_lines eth0 10.0.3.2/24 fd00:3::2/64; addr_lines eth0.5 10.0.5.2/24 fd00:5::2/64
	printf '%s\n' "addr add 10.0.1.2/32 dev lo" "addr add fd00:1::2/128 dev lo nodad"; } | batch "$ot"
	# datagrams of another size are told apart where they arrive
	at "$sv" nft -f - <<-END
	table netdev got {
		counter strange { }
		chain in {
			type filter hook ingress device eth0 priority 0;
			udp dport 6000 udp length 341 counter name strange
		}
	}
	END
	leave eth0 && busywait 5000 at "$ot" ping -c1 -W1 -q -I 10.0.3.2 10.0.3.1
}
# leave DEV: the way that ot sends by, with the client's addresses
leave() {
	local n=3
	[ "$1" = eth0 ] || n=5
	printf '%s\n' "route replace 10.0.2.0/24 via 10.0.$n.1 dev $1 src 10.0.1.2" "route replace fd00:2::/64 via fd00:$n::1 dev $1 src fd00:1::2" | batch "$ot"
}
rp_filter() { for d in lan lan2 lan2.5; do at "$rt" sysctl -qw "net/ipv4/conf/$d/rp_filter=$1"; done; }
strange() { at "$sv" nft list counter netdev got strange | awk '$1 == "packets" { print $2 }'; }
port() { ct_list -p udp --orig-port-dst 6000 | grep -o 'sport=[0-9]*' | head -n1 | cut -d= -f2; }
# intrude ADDRESS: 20 datagrams with the addresses and the ports of the stream, by the wrong device
intrude() {
	STRANGE=$(strange)
	at "$ot" "${PY[@]}" streams send "$1" 6000 --sport "$(port)" --count 20 --rate 200 --size 333
	sleep 0.1
	STRANGE=$(($(strange) - STRANGE))
}
# filtered ADDRESS: what filters IPv6; IPv4 has rp_filter
filtered() { [[ $1 != *:* ]] || echo "$FIB"; }

elsewhere() { # elsewhere ADDRESS DEVICE: a flow's packets come in by another device
	leave "$2"
	rp_filter 0
	rules DEVS="lan, lan2, wan" || return
	stream_start "$1" || return
	intrude "$1"
	want_eq "without a filter, of 20 datagrams that arrived" "$STRANGE" 20
	stop "$SEND" "$SINK"
	rp_filter 1
	rules DEVS="lan, lan2, wan" NAT="$(filtered "$1")" || return
	stream_start "$1" || return
	intrude "$1"
	want_eq "with a filter, of 20 datagrams that arrived" "$STRANGE" 0
	fast_now
	stream_end 1500 0
	rp_filter 0
}
tcase "IPv4, rp_filter: packets of a flow by another device" elsewhere $V4 eth0
tcase "IPv6, fib: packets of a flow by another device"       elsewhere $V6 eth0
tcase "IPv4, rp_filter: packets of a flow in a VLAN"         elsewhere $V4 eth0.5

# The way back changes: the client is behind another device now, and what comes in by the old one is
# filtered. The stream is from cl to sv, whose own route does not change.
away() { # away ADDRESS [DEVICE]
	local c=10.0.1.2 here=10.0.1.1 via=10.0.3.2 net=10.0.1.0/24 dev=${2:-lan}
	[[ $1 != *:* ]] || c=fd00:1::2 here=fd00:1::1 via=fd00:3::2 net=fd00:1::/64
	# no route but that of the client itself, which the filter would fall back to
	printf '%s\n' "route replace $c dev $dev src $here" "route del $net dev $dev" | batch "$rt"
	rp_filter 1
	rules DEVS="lan, lan2, wan" NAT="$(filtered "$1")" || return
	stream_start "$1" || return
	ipn "$rt" route replace $c via $via dev lan2
	# the way back of a flow is looked at once a second
	busywait $((2500 * SLOW)) not_flowing || fail "what the filter drops is still forwarded"
	sleep 0.3
	not_flowing || fail "what the filter drops is forwarded again"
	ipn "$rt" route replace $c dev "$dev" src $here
	busywait $((2000 * SLOW)) flowing || fail "traffic does not come back"
	fast_now
	stream_end 6000
	rp_filter 0
	printf '%s\n' "route replace $net dev $dev" "route del $c" | batch "$rt"
}
tcase "IPv4, rp_filter: the client's route goes elsewhere"   away $V4
tcase "IPv6, fib: the client's route goes elsewhere"         away $V6

bridged() { # the same, the LAN is a bridge
	printf '%s\n' "link add br0 type bridge forward_delay 0 mcast_snooping 0" "addr flush dev lan" "link set lan master br0" | batch "$rt"
	addr_lines br0 10.0.1.1/24 fd00:1::1/64 | batch "$rt"
	at "$rt" sysctl -qw net/ipv4/conf/br0/rp_filter=1
	busywait 5000 at "$cl" ping -c1 -W1 -q "$1"
	away "$1" br0
	ipn "$rt" link del br0
	addr_lines lan 10.0.1.1/24 fd00:1::1/64 | batch "$rt"
	busywait 5000 at "$cl" ping -c1 -W1 -q "$1"
}
tcase "IPv4, rp_filter: the same, behind a bridge"           bridged $V4
tcase -x "IPv6, fib: the same, behind a bridge"              bridged $V6

# ---- looking for the way of the answers leaves no trace

martians() { awk 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "in_martian_src") c = i } NR > 1 { print $c }' /proc/net/stat/rt_cache | while read -r n; do echo $((16#$n)); done | awk '{ s += $1 } END { print s + 0 }'; }
one_way() { # datagrams that nobody answers
	rm -f "$TMP"/sink.*
	bg "$sv" "${PY[@]}" streams sink --port 6000 --ready "$TMP/sink.ready" --out "$TMP/sink.json"
	SINK=$!
	busywait $((9000 * SLOW)) test -e "$TMP/sink.ready" || fail "no sink"
	at "$cl" "${PY[@]}" streams send $V4 6000 --count 40 --rate 400 --size 200
	sleep 0.1
	stop $SINK
	want_ge "datagrams that arrived" "$(jq '.got // .received // 40' "$TMP/sink.json")" 40
}

no_martian() { # answers would be dropped by the filter: no martian is counted but for packets that are there
	local n skip
	rp_filter 0
	rules NAT="chain m { type filter hook prerouting priority -150; iifname lan meta mark set 7; };" || return
	# what is marked goes by another table than what the filter looks at
	printf '%s\n' "rule add fwmark 7 lookup 77" "route add 10.0.2.0/24 dev wan table 77" "route add 10.0.2.2/32 via 10.0.3.2 dev lan2" | batch "$rt"
	# the server's own questions would be martians
	ipn "$sv" neigh replace 10.0.2.1 lladdr "$(mac "$rt" wan)" dev eth0 nud permanent
	at "$rt" sysctl -qw net/ipv4/conf/wan/rp_filter=1 net/ipv4/conf/all/log_martians=1
	n=$(martians) skip=$(stat_get skip.route_reply)
	one_way
	want_le "martians" "$(($(martians) - n))" 2
	[ "$FT" != ours ] || want_ge "times that there was no way back" "$(($(stat_get skip.route_reply) - skip))" 1
	ipn "$sv" neigh del 10.0.2.1 dev eth0
	at "$rt" sysctl -qw net/ipv4/conf/wan/rp_filter=0 net/ipv4/conf/all/log_martians=0
	printf '%s\n' "route del 10.0.2.2/32 via 10.0.3.2 dev lan2" "route del 10.0.2.0/24 dev wan table 77" "rule del fwmark 7 lookup 77" | batch "$rt"
}
tcase -x "IPv4, rp_filter: answers that would be dropped are no martians yet" no_martian

no_drops() { # flows are added, and nobody sees a packet dropped that never was
	local t=/sys/kernel/tracing
	[ -e $t/events/skb/kfree_skb/enable ] || { skip "no tracepoints"; return; }
	serve "$sv" || return
	rules || return
	: >$t/trace
	echo 1 >$t/events/skb/kfree_skb/enable
	bypass_all $V4
	echo 0 >$t/events/skb/kfree_skb/enable
	want_eq "drops in the module" "$(grep 'kfree_skb:' $t/trace | grep -c 'nft_offload\]')" 0
	: >$t/trace
}
tcase -o "flows are added without dropping a packet" no_drops

SETUP=setup
run_cases "$@"
