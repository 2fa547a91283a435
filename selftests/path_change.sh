#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Routes, next hops, links and sizes that change under a flow, in either
# direction: within a second traffic is where it belongs, the fast way, and
# nothing goes to the old place meanwhile.
#
#      cl                       rt                           sv
#   eth0 10.0.1.2 ---- lan  10.0.1.1  wan  10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2            fd00:1::1      fd00:2::1         fd00:2::2
#   eth1 10.0.5.2 ---- lan2 10.0.5.1  wan2 10.0.4.1 ---- eth1 10.0.4.2
#      fd00:5::2            fd00:5::1      fd00:4::1         fd00:4::2
#   lo 10.8.8.8                                          lo 10.9.9.9
#      fd00:8::8                                            fd00:9::9

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

NEAR4=10.8.8.8 NEAR6=fd00:8::8 FAR4=10.9.9.9 FAR6=fd00:9::9
DEVS="lan, lan2, wan, wan2"
MASQ="chain post { type nat hook postrouting priority 100; oifname { wan, wan2 } masquerade; };"

setup() {
	lan_wan || return
	ip link add lan2 netns "$rt" type veth peer name eth1 netns "$cl" &&
	ip link add wan2 netns "$rt" type veth peer name eth1 netns "$sv" || return
	at "$rt" sysctl -qw net.ipv6.conf.all.keep_addr_on_down=1 net.ipv4.conf.all.ignore_routes_with_linkdown=1 \
		net.ipv6.conf.all.ignore_routes_with_linkdown=1 net.ipv6.conf.default.ignore_routes_with_linkdown=1 \
		net.ipv6.conf.wan.ignore_routes_with_linkdown=1
	{ addr_lines lan2 10.0.5.1/24 fd00:5::1/64; addr_lines wan2 10.0.4.1/24 fd00:4::1/64; } | batch "$rt"
	{ addr_lines eth1 10.0.5.2/24 fd00:5::2/64
	printf '%s\n' "addr add $NEAR4/32 dev lo" "addr add $NEAR6/128 dev lo nodad" \
		"route replace $FAR4 via 10.0.1.1 src $NEAR4" "route replace $FAR6 via fd00:1::1 src $NEAR6"; } | batch "$cl"
	{ addr_lines eth1 10.0.4.2/24 fd00:4::2/64
	printf '%s\n' "addr add $FAR4/32 dev lo" "addr add $FAR6/128 dev lo nodad" \
		"route replace default via 10.0.2.1 src $FAR4" "route replace ::/0 via fd00:2::1 src $FAR6"; } | batch "$sv"
	serve "$sv"
}
# reset: routes as they are drawn
reset() {
	printf '%s\n' "link set wan up" "link set wan2 up" "link set wan mtu 1500" \
		"route flush $NEAR4" "route flush $FAR4" "route flush $NEAR6" "route flush $FAR6" \
		"rule del pref 100" "-6 rule del pref 100" "route flush default" "route flush ::/0" \
		"route replace $NEAR4 via 10.0.1.2" "route replace $FAR4 via 10.0.2.2" \
		"route replace $NEAR6 via fd00:1::2" "route replace $FAR6 via fd00:2::2" | sed 's/^route flush \(fd.*\|::.*\)$/-6 route flush \1/' |
		grep -v '^-6' | batch "$rt" 2>/dev/null
	ipn "$rt" rule del pref 100 2>/dev/null; ipn "$rt" -6 rule del pref 100 2>/dev/null
	ipn "$rt" -6 route flush default 2>/dev/null
	printf '%s\n' "route replace $NEAR6 via fd00:1::2" "route replace $FAR6 via fd00:2::2" | batch "$rt"
	return 0
}
# change ADDRESS IP-ARG...: in the router, of the address's family
change() { local f=-4; [ "${1#*:}" = "$1" ] || f=-6; want_ok "ip ${*:2}" ipn "$rt" $f "${@:2}"; }

# start ADDRESS [NAT]: a stream to the echo server at ADDRESS: the answers are a stream as well
start() {
	local d n
	rules NAT="${2:-}" || return
	for n in "$cl" "$sv"; do
		{ echo "table netdev by { "
		for d in eth0 eth1; do echo "counter $d { }; chain $d { type filter hook ingress device $d priority 0; udp sport 5000 counter name $d; udp dport 5000 counter name $d; };"; done
		echo "}"; } | want_ok "counters" at "$n" nft -f -
	done
	bg "$cl" "${PY[@]}" streams send "$1" 5000 --rate $RATE --size 200 --out "$TMP/send.json"
	SEND=$!
	busywait $((9000 * SLOW)) offloaded_line udp 5000 || { fail "the stream to $1 is not offloaded"; finish; return 1; }
	busywait $((3000 * SLOW)) fast_sample || fail "the stream is not fast: in 0.3 s $ARRIVED arrived, $FORWARDED in the forward chain"
}
finish() {
	local n
	stop "$SEND"
	for n in "$cl" "$sv"; do at "$n" nft delete table netdev by 2>/dev/null; done
	reset
}
got() { at "$1" nft list counter netdev by "$2" | awk '$1 == "packets" { print $2 }'; }
# moved NS TO FROM: packets arrive by the one device, and none by the other
moved() {
	local to from
	busywait $((1000 * SLOW)) arrives "$1" "$2" || { fail "nothing arrives by $2 within a second"; return; }
	from=$(got "$1" "$3")
	sleep 0.4
	want_eq "packets by $3 afterwards" $(($(got "$1" "$3") - from)) 0
	to=$(got "$1" "$2")
	sleep 0.3
	want_ge "packets by $2 in 0.3 s" $(($(got "$1" "$2") - to)) $((RATE * 3 / 20))
}
arrives() { local a; a=$(got "$1" "$2"); sleep 0.05; [ $(($(got "$1" "$2") - a)) -ge 3 ]; }

# ---- the way out

route_out() { # another next hop by another device, and back
	local a=$1 g1=10.0.2.2 g2=10.0.4.2
	[ "$a" = $FAR4 ] || g1=fd00:2::2 g2=fd00:4::2
	start "$a" "${2:-}" || return
	change "$a" route replace "$a" via $g2
	moved "$sv" eth1 eth0
	change "$a" route replace "$a" via $g1
	moved "$sv" eth0 eth1
	fast_now
	finish
}
tcase "IPv4, another next hop, and back"        route_out $FAR4
tcase "IPv6, another next hop, and back"        route_out $FAR6
tcase "IPv4 masquerade, another next hop, and back" route_out $FAR4 "$MASQ"

specific() { # a more specific route appears, and goes
	local a=$1 g=10.0.4.2 wide=10.9.9.0/24 old=10.0.2.2
	[ "$a" = $FAR4 ] || g=fd00:4::2 wide=fd00:9::/64 old=fd00:2::2
	change "$a" route replace $wide via $old
	change "$a" route del "$a"
	start "$a" || return
	change "$a" route add "$a" via $g
	moved "$sv" eth1 eth0
	change "$a" route del "$a"
	moved "$sv" eth0 eth1
	fast_now
	finish
	change "$a" route del $wide
}
tcase -x "IPv4, a more specific route appears, and goes" specific $FAR4
tcase "IPv6, a more specific route appears, and goes" specific $FAR6

policy_rule() { # a routing rule sends the flow elsewhere
	local a=$1 g=10.0.4.2
	[ "$a" = $FAR4 ] || g=fd00:4::2
	change "$a" route replace "$a" via $g table 77
	start "$a" || return
	change "$a" rule add pref 100 to "$a" lookup 77
	moved "$sv" eth1 eth0
	change "$a" rule del pref 100
	moved "$sv" eth0 eth1
	fast_now
	finish
}
tcase -x "IPv4, a routing rule appears, and goes"  policy_rule $FAR4
tcase "IPv6, a routing rule appears, and goes"  policy_rule $FAR6

nexthop() { # a next hop object that routes refer to is changed
	local a=$1 g1=10.0.2.2 g2=10.0.4.2
	[ "$a" = $FAR4 ] || g1=fd00:2::2 g2=fd00:4::2
	change "$a" nexthop replace id 7 via $g1 dev wan
	change "$a" route replace "$a" nhid 7
	start "$a" || return
	change "$a" nexthop replace id 7 via $g2 dev wan2
	moved "$sv" eth1 eth0
	fast_now
	finish
	ipn "$rt" nexthop del id 7
}
tcase -x "IPv4, a next hop object is changed"      nexthop $FAR4
tcase -x "IPv6, a next hop object is changed"      nexthop $FAR6

# ---- gateway failover: two default routes, the better one is lost

failover() { # failover ADDRESS LOSE -- REGAIN
	local a=$1 g1=10.0.2.2 g2=10.0.4.2 all=default lose=() regain=(); shift
	while [ "$1" != -- ]; do lose+=("$1"); shift; done
	shift; regain=("$@")
	[ "$a" = $FAR4 ] || g1=fd00:2::2 g2=fd00:4::2 all=::/0
	change "$a" route del "$a"
	change "$a" route replace $all via $g1 dev wan metric 10
	change "$a" route replace $all via $g2 dev wan2 metric 20
	start "$a" || { finish; return; }
	want_ok "${lose[*]}" "${lose[@]}"
	moved "$sv" eth1 eth0
	fast_now
	want_ok "${regain[*]}" "${regain[@]}"
	# a route of a device that was down is gone
	change "$a" route replace $all via $g1 dev wan metric 10
	moved "$sv" eth0 eth1
	fast_now
	finish
}
router_link() { ipn "$rt" link set "$@"; }
tcase "IPv4, the gateway's link goes down"      failover $FAR4 router_link wan down -- router_link wan up
tcase "IPv6, the gateway's link goes down"      failover $FAR6 router_link wan down -- router_link wan up
gateway_route() { local f=-4 a=default; [ "$1" = 4 ] || f=-6 a=::/0; ipn "$rt" $f route "$2" $a "${@:3}"; }
tcase -x "IPv4, the gateway's route is withdrawn"  failover $FAR4 gateway_route 4 del metric 10 -- true
tcase -x "IPv6, the gateway's route is withdrawn"  failover $FAR6 gateway_route 6 del metric 10 -- true

# ---- the way of the answers

route_back() { # the answers take another next hop; the packets come as before
	local a=$1 n=$NEAR4 g1=10.0.1.2 g2=10.0.5.2
	[ "$a" = $FAR4 ] || n=$NEAR6 g1=fd00:1::2 g2=fd00:5::2
	start "$a" || return
	change "$a" route replace "$n" via $g2
	moved "$cl" eth1 eth0
	# packets come in where answers do not leave, and are fast all the same
	[ "$FT" != ours ] || fast_now
	change "$a" route replace "$n" via $g1
	moved "$cl" eth0 eth1
	fast_now
	finish
}
tcase "IPv4, the answers take another next hop, and back" route_back $FAR4
tcase "IPv6, the answers take another next hop, and back" route_back $FAR6

other_side() { # the client comes by its other interface, and the answers go there
	local a=$1 n=$NEAR4 g1=10.0.1 g2=10.0.5 f=-4
	[ "$a" = $FAR4 ] || n=$NEAR6 g1=fd00:1: g2=fd00:5: f=-6
	local dot=.; [ $f = -4 ] || dot=:
	start "$a" || return
	change "$a" route replace "$n" via "$g2${dot}2"
	ipn "$cl" $f route replace "$a" via "$g2${dot}1" src "$n"
	moved "$cl" eth1 eth0
	fast_now
	ipn "$cl" $f route replace "$a" via "$g1${dot}1" src "$n"
	change "$a" route replace "$n" via "$g1${dot}2"
	moved "$cl" eth0 eth1
	fast_now
	finish
}
tcase "IPv4, the client changes sides, and back" other_side $FAR4
tcase "IPv6, the client changes sides, and back" other_side $FAR6

# ---- sizes

upper_mtu() { # upper_mtu ADDRESS: the MTU of the WAN's VLAN device changes, not that of the port
	local a=$1 max=1472 small=1372
	[ "$a" = $FAR4 ] || max=1452 small=1352
	{ echo "link add link wan name wan.7 up type vlan id 7"; addr_lines wan.7 10.0.7.1/24 fd00:7::1/64; } | batch "$rt"
	{ echo "link add link eth0 name eth0.7 up type vlan id 7"; addr_lines eth0.7 10.0.7.2/24 fd00:7::2/64
	printf '%s\n' "route replace $NEAR4 via 10.0.7.1 src $FAR4" "route replace $NEAR6 via fd00:7::1 src $FAR6"; } | batch "$sv"
	printf '%s\n' "route replace $FAR4 via 10.0.7.2" "route replace $FAR6 via fd00:7::2" | batch "$rt"
	rules || return
	conv_open x "$cl" udp "$a" 5000 --pmtu probe --timeout 2 || return
	conv_ok x echo 30 $max
	offloaded_line udp 5000 || fail "not offloaded"
	ipn "$rt" link set wan.7 mtu 1400
	conv_cmd x send 5 $max >/dev/null
	at "$sv" nft -f - <<-END
		table netdev big {
			counter big { }
			chain in {
				type filter hook ingress device eth0 priority 0;
				meta length > 1400 counter name big
			}
		}
	END
	conv_cmd x send 20 $max >/dev/null
	want_eq "packets larger than the MTU" "$(at "$sv" nft list counter netdev big big | awk '$1 == "packets" { print $2 }')" 0
	at "$sv" nft delete table netdev big
	conv_cmd x drain >/dev/null
	conv_ok x echo 30 $small
	counters_zero; conv_ok x echo 50 $small; counters
	want_le "of 100 packets that fit, in the forward chain" "$FORWARDED" 8
	ipn "$rt" link set wan.7 mtu 1500
	conv_ok x echo 30 $max
	counters_zero; conv_ok x echo 50 $max; counters
	want_le "of 100 packets of the old size, in the forward chain" "$FORWARDED" 8
	conv_close x
	ipn "$rt" link del wan.7; ipn "$sv" link del eth0.7
	reset
}
tcase "IPv4, the MTU of a VLAN device changes"  upper_mtu $FAR4
tcase -x "IPv6, the MTU of a VLAN device changes"  upper_mtu $FAR6

routes() { setup && reset; }
SETUP=routes
run_cases "$@"
