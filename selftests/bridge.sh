#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A bridge on the LAN: its ports or the bridge itself in the flowtable, VLAN
# filtering, stations that roam from port to port, a forgetful bridge.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- p1 \
#      fd00:1::2            br0 10.0.1.1  wan 10.0.2.1 -- eth0 10.0.2.2
#      c2                  /    fd00:1::1     fd00:2::1      fd00:2::2
#   eth0 10.0.1.3 ---- p2
#      fd00:1::3

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2
SEEN="meta protocol { vlan, 8021ad }" SLACK=12
BRMAC=02:00:00:00:00:b0
STATION=02:00:00:00:00:aa
MASQ="chain post { type nat hook postrouting priority 100; oifname wan masquerade; };"
c2=''

setup() {
	ns_add cl c2 rt sv || return
	ip link add p1 netns "$rt" mtu 1600 type veth peer name eth0 mtu 1600 netns "$cl" &&
	ip link add p2 netns "$rt" mtu 1600 type veth peer name eth0 mtu 1600 netns "$c2" &&
	ip link add wan netns "$rt" type veth peer name eth0 netns "$sv" || return
	router_on "$rt"
	addr "$rt" wan 10.0.2.1/24 fd00:2::1/64
	addr "$sv" eth0 10.0.2.2/24 fd00:2::2/64 10.0.2.1 fd00:2::1
	ipn "$cl" link set eth0 up
	ipn "$c2" link set eth0 up
	bridge_up
	serve "$sv" && serve "$cl" && serve "$c2"
}
# bridge_up [OPTION...] [-- TAGS]: br0 out of nothing, with TAGS on top
bridge_up() {
	local opt=() top=br0 tags='' n
	while [ $# -gt 0 ]; do [ "$1" != -- ] || { tags=$2; break; }; opt+=("$1"); shift; done
	nft_rt flush ruleset
	ipn "$rt" -br link show type bridge | grep -q br0 && ipn "$rt" link del br0
	for n in "$cl" "$c2"; do
		{ ipn "$n" -br link show type vlan | sed -n 's/^\(eth0\.[a-z0-9]*\)@.*/link del \1/p'
		printf '%s\n' "addr flush dev eth0 scope global" "neigh flush dev eth0" "route del default" "route del ::/0"; } |
			batch "$n" 2>/dev/null
	done
	printf '%s\n' "link add br0 mtu 1500 ${MAC:+address $MAC} type bridge forward_delay 0 stp_state 0 mcast_snooping 0 ${opt[*]}" \
		"link set p1 master br0 up" "link set p2 master br0 up" "link set br0 up" | batch "$rt"
	if [ -n "$tags" ]; then
		top=br0.$tags
		echo "link add link br0 name $top up type vlan id $tags" | batch "$rt"
	fi
	addr_lines $top 10.0.1.1/24 fd00:1::1/64 | batch "$rt"
	station "$cl" eth0 2; station "$c2" eth0 3
}
# station NS DEV N: gives the LAN address N to a device
station() { addr_lines "$2" "10.0.1.$3/24" "fd00:1::$3/64" 10.0.1.1 fd00:1::1 | batch "$1"; }
vlan() { at "$rt" bridge vlan "$@" || fail "bridge vlan $*"; }

# listed DEVS [NAT]: traffic of both stations, from either side
listed() {
	rules DEVS="$1" WATCH="p1, p2, wan" NAT="${2:-}" || return
	bypass_all $V4 $V6
	forget
	if [ -n "${2:-}" ]; then FROM=$c2 bypass_all $V4 $V6; else FROM=$sv bypass_all 10.0.1.3 fd00:1::3; fi
}
plain() {
	bridge_up
	listed "$@"
}
tcase "the ports are listed"                    plain "p1, p2, wan"
tcase "the ports are listed, masquerade"        plain "p1, p2, wan" "$MASQ"
tcase -x "the bridge is listed"                 plain "br0, wan"
tcase "bridge and ports are listed"             plain "br0, p1, p2, wan"
tcase -x "the bridge and one of the ports are listed" plain "br0, p1, wan"

own_mac() {
	MAC=$BRMAC bridge_up
	listed "$1"
}
tcase "the bridge has a MAC of its own"         own_mac "p1, p2, wan"
tcase "the bridge has a MAC of its own, all listed" own_mac "p1, p2, br0, wan"

filtering() { # filtering DEVS: stations are untagged members of VLAN 10, the bridge as well
	local d
	bridge_up vlan_filtering 1 vlan_default_pvid 0
	for d in p1 p2; do vlan add dev $d vid 10 pvid untagged; done
	vlan add dev br0 vid 10 pvid untagged self
	listed "$@"
}
tcase "VLAN filtering, untagged"                filtering "p1, p2, wan"
tcase "VLAN filtering, default pvid"            default_pvid "p1, p2, wan"
default_pvid() { bridge_up vlan_filtering 1; listed "$@"; }

tagged_top() { # untagged at the ports, br0.10 has the address
	local d
	bridge_up vlan_filtering 1 vlan_default_pvid 0 -- 10
	for d in p1 p2; do vlan add dev $d vid 10 pvid untagged; done
	vlan add dev br0 vid 10 self
	listed "$@"
}
tcase "VLAN filtering, br0.10 on top, stations untagged" tagged_top "p1, p2, wan"
tcase -x "the same, br0.10 is listed"           tagged_top "br0.10, wan"
tcase -x "the same, br0 is listed"              tagged_top "br0, wan"

tagged_port() { # p1 carries VLAN 10 tagged, p2 untagged
	bridge_up vlan_filtering 1 vlan_default_pvid 0 "${@:2}" -- 10
	vlan add dev p1 vid 10
	vlan add dev p2 vid 10 pvid untagged
	vlan add dev br0 vid 10 self
	{ printf '%s\n' "addr flush dev eth0 scope global" "link add link eth0 name eth0.10 mtu 1500 up type vlan id 10"
	addr_lines eth0.10 10.0.1.2/24 fd00:1::2/64 10.0.1.1 fd00:1::1; } | batch "$cl"
	listed "$1"
}
tcase "VLAN filtering, one port tagged, one not" tagged_port "p1, p2, wan"

no_filtering() { # br0.10 without VLAN filtering: the tag passes the bridge
	bridge_up -- 10
	local n i=2
	for n in "$cl" "$c2"; do
		{ printf '%s\n' "addr flush dev eth0 scope global" "link add link eth0 name eth0.10 mtu 1500 up type vlan id 10"
		addr_lines eth0.10 10.0.1.$i/24 fd00:1::$i/64 10.0.1.1 fd00:1::1; } | batch "$n"
		i=3
	done
	listed "$@"
}
tcase "br0.10 without VLAN filtering"           no_filtering "p1, p2, wan"
ad() { # the bridge filters 802.1ad
	local d
	bridge_up vlan_filtering 1 vlan_protocol 802.1ad vlan_default_pvid 0
	for d in p1 p2; do vlan add dev $d vid 10 pvid untagged; done
	vlan add dev br0 vid 10 pvid untagged self
	listed "$@"
}
tcase "VLAN filtering with 802.1ad"             ad "p1, p2, wan"

# cut WHAT CUT-COMMAND -- MEND-COMMAND: the port does not belong to the router's
# network any more: what comes in there is not routed
cut_off() {
	local how=() mend=()
	while [ "$1" != -- ]; do how+=("$1"); shift; done
	shift; mend=("$@")
	# not the port's MAC, to which the port would listen without the bridge as well
	MAC=$BRMAC bridge_up vlan_filtering 1 vlan_default_pvid 10
	rules DEVS="p1, p2, wan" WATCH="p1, p2, wan" || return
	stream_start $V4 || return
	want_ok "${how[*]}" at "$rt" "${how[@]}"
	busywait $((1000 * SLOW)) not_flowing || fail "frames of the port are still routed after a second"
	want_ok "${mend[*]}" at "$rt" "${mend[@]}"
	busywait $((3000 * SLOW)) flowing || fail "traffic does not come back"
	[ "$FT" != ours ] || fast_now
	stream_end 9000
}
tcase -x "a port is moved to another VLAN"      cut_off bridge vlan add dev p1 vid 20 pvid untagged -- bridge vlan add dev p1 vid 10 pvid untagged
tcase -x "a port leaves the bridge"             cut_off ip link set p1 nomaster -- ip link set p1 master br0
# (without STP the bridge itself ends every other state)
tcase -x "a port is disabled in the bridge"     cut_off bridge link set dev p1 state 0 -- bridge link set dev p1 state 3
tcase -x "a VLAN is taken from a port"          cut_off bridge vlan del dev p1 vid 10 -- bridge vlan add dev p1 vid 10 pvid untagged
tcase -x "the bridge leaves a VLAN"             cut_off bridge vlan del dev br0 vid 10 self -- bridge vlan add dev br0 vid 10 pvid untagged self
tcase "the bridge goes down, the ports stay" cut_off ip link set br0 down -- ip link set br0 up
# wan_bridge CMD...: the same with a bridge on either side
wan_bridge() {
	printf '%s\n' "link add br1 type bridge forward_delay 0 mcast_snooping 0" "addr flush dev wan scope global" "link set wan master br1" | batch "$rt"
	addr "$rt" br1 10.0.2.1/24 fd00:2::1/64
	"$@"
	ipn "$rt" link del br1
	addr "$rt" wan 10.0.2.1/24 fd00:2::1/64
}
tcase -x "the bridge goes down, WAN is a bridge as well" wan_bridge cut_off ip link set br0 down -- ip link set br0 up

# undisturbed CHANGE... -- BACK...: traffic goes on, the fast way
undisturbed() {
	local how=() back=()
	while [ "$1" != -- ]; do how+=("$1"); shift; done
	shift; back=("$@")
	bridge_up vlan_default_pvid 10
	rules DEVS="p1, p2, wan" WATCH="p1, p2, wan" || return
	stream_start $V4 || return
	want_ok "${how[*]}" at "$rt" "${how[@]}"
	busywait $((1000 * SLOW)) flowing || fail "traffic stopped"
	fast_now
	want_ok "${back[*]}" at "$rt" "${back[@]}"
	busywait $((1000 * SLOW)) flowing || fail "traffic stopped after the way back"
	fast_now
	stream_end 1500
}
tcase "the bridge begins to filter VLANs, and ends" undisturbed ip link set br0 type bridge vlan_filtering 1 -- ip link set br0 type bridge vlan_filtering 0
tcase "a port is isolated, and not"             undisturbed bridge link set dev p1 isolated on -- bridge link set dev p1 isolated off

# Only the bridge knows which stations a locked port (802.1X) lets in: they are slow, unless it is listed.
locked() { # locked DEVS
	local mac where=slow
	[[ $1 != *br0* ]] || where=fast
	bridge_up
	mac=$(mac "$cl" eth0)
	rules DEVS="$1" WATCH="p1, p2, wan" || return
	stream_start $V4 || return
	at "$rt" bridge link set dev p1 locked on 2>"$TMP/out" || { skip "no locked ports: $(cat "$TMP/out")"; stop "$SEND" "$SINK"; return; }
	busywait $((3000 * SLOW)) "${where}_sample" || fail "not $where: in 0.3 s $ARRIVED arrived, $FORWARDED in the forward chain"
	at "$cl" nft -f - <<-END
		table netdev other {
			chain out {
				type filter hook egress device eth0 priority 0;
				udp dport 6000 ether saddr set 02:00:00:00:00:66
			}
		}
	END
	busywait $((1000 * SLOW)) not_flowing || fail "packets of a stranger are routed"
	at "$cl" nft delete table netdev other
	busywait $((1000 * SLOW)) flowing || fail "traffic does not come back after the stranger's"
	want_ok "take the station's leave away" at "$rt" bridge fdb del "$mac" dev p1 master
	busywait $((1000 * SLOW)) not_flowing || fail "packets of a station that has no leave are routed"
	at "$rt" bridge link set dev p1 locked off
	busywait $((3000 * SLOW)) flowing || fail "traffic does not come back"
	[ "$FT" != ours ] || fast_now
	stream_end 20000
}
slow_sample() { counters_zero; sleep 0.3; counters; [ "$ARRIVED" -ge 20 ] && [ "$FORWARDED" -ge $((ARRIVED - 4)) ]; }
tcase -x "a port is locked: it is the bridge that says who may enter" locked "p1, p2, wan"
tcase -x "a port is locked, the bridge is listed as well" locked "br0, p1, p2, wan"

blocked_vlan() { # the state of one VLAN at a port: only seen by a packet that is let through to it
	MAC=$BRMAC bridge_up vlan_filtering 1 vlan_default_pvid 10
	rules DEVS="p1, p2, wan" WATCH="p1, p2, wan" || return
	stream_start $V4 || return
	want_ok "block" at "$rt" bridge vlan set dev p1 vid 10 state blocking || return
	busywait $((25000 * SLOW)) not_flowing || fail "frames of a blocked VLAN are still routed"
	at "$rt" bridge vlan set dev p1 vid 10 state forwarding
	busywait $((3000 * SLOW)) flowing || fail "traffic does not come back"
	[ "$FT" != ours ] || fast_now
	stream_end 30000
}
tcase -x "a VLAN is blocked at a port"          blocked_vlan

# ---- stations that move; the far end keeps sending

# roam_setup: a station with a MAC of its own at p1, an offloaded stream from sv to it
swap() { local a=$cl; cl=$sv; sv=$a; }
at_station() { # at_station NS: the station is there now
	local old=$cl
	[ "$1" = "$cl" ] && old=$c2
	printf '%s\n' "addr flush dev eth0 scope global" "route del default" "route del ::/0" "link set eth0 down" | batch "$old" 2>/dev/null
	printf '%s\n' "addr flush dev eth0 scope global" "link set eth0 down" "link set eth0 address $STATION" | batch "$1"
	station "$1" eth0 9
}
port_count() { # port_count NS: UDP frames of the stream that reach this place
	at "$1" nft list counter netdev here here | awk '$1 == "packets" { print $2 }'
}
# roam ADDRESS [BRIDGE-OPTION...]
roam() {
	local a=$1 old n
	bridge_up "${@:2}"
	printf '%s\n' "link set eth0 address 02:00:00:00:00:c2" | batch "$c2"
	for n in "$cl" "$c2"; do
		at "$n" nft -f - <<-END
			table netdev here {
				counter here { }
				chain in {
					type filter hook ingress device eth0 priority 0;
					udp dport 6000 counter name here
				}
			}
		END
	done
	at_station "$cl"
	rules DEVS="${ROAM_DEVS:-p1, p2, wan}" WATCH="p1, p2, wan" || return
	busywait 3000 at "$cl" ping -c1 -W1 -q 10.0.2.2 || fail "the station does not reach the router"
	# sv sends, the station listens, wherever it is
	swap # now cl is the server, sv the station at p1
	stream_start "$a" || { swap; return; }
	want_ge "frames at port 1" "$(port_count "$sv")" 10
	# it moves: at p2 it speaks (or is announced by a gratuitous ARP), at p1 nobody answers
	printf '%s\n' "addr flush dev eth0 scope global" "link set eth0 address 02:00:00:00:00:c1" | batch "$sv"
	at_new
	old=$(port_count "$sv")
	busywait $((1000 * SLOW)) arrives_at "$c2" || fail "nothing arrives at port 2 within a second"
	old=$(port_count "$sv"); sleep 0.5
	want_eq "frames to port 1 after the move" $(($(port_count "$sv") - old)) 0
	want_ge "frames to port 2 in half a second" "$(n=$(port_count "$c2"); sleep 0.5; echo $(($(port_count "$c2") - n)))" $((RATE / 4))
	# the stream towards it is fast, and so are its own packets
	fast_now
	stop "$SEND" "$SINK"
	swap
	FROM=$c2 bypass_all $V4 $V6
	for n in "$cl" "$c2"; do at "$n" nft delete table netdev here; done
}
arrives_at() { local a; a=$(port_count "$1"); sleep 0.1; [ $(($(port_count "$1") - a)) -ge 5 ]; }
at_new() {
	printf '%s\n' "addr flush dev eth0 scope global" "link set eth0 down" "link set eth0 address $STATION" | batch "$c2"
	station "$c2" eth0 9
	at "$c2" arping -q -c 1 -w 1 -U -I eth0 10.0.1.9
}
tcase "IPv4, a station roams to the other port"   roam 10.0.1.9
tcase -x "IPv6, a station roams to the other port"   roam fd00:1::9
roam_listed() { local ROAM_DEVS=$1; roam "${@:2}"; }
tcase -x "IPv4, the same, the bridge is listed"      roam_listed "br0, wan" 10.0.1.9
tcase "IPv4, the same, the bridge has a MAC of its own" own_mac_roam
tcase -x "IPv4, the same, WAN is a bridge as well"   wan_bridge roam 10.0.1.9
own_mac_roam() { local MAC=$BRMAC; roam 10.0.1.9; }

roam_back() { # the same connection continues after the move, in both directions, fast
	bridge_up "$@"
	at_station "$cl"
	printf '%s\n' "link set eth0 address 02:00:00:00:00:c2" | batch "$c2"
	rules DEVS="p1, p2, wan" || return
	conv_open x "$cl" udp $V4 5000 --sport 7777 || return
	conv_ok x echo 30
	conv_close x
	ct_offloaded -p udp || fail "not offloaded"
	printf '%s\n' "addr flush dev eth0 scope global" "link set eth0 address 02:00:00:00:00:c1" | batch "$cl"
	at_new
	conv_open x "$c2" udp $V4 5000 --sport 7777 --timeout 3 || return
	conv_ok x echo 10
	busywait $((2000 * SLOW)) echo_fast || fail "slow after the move: of $ARRIVED packets $FORWARDED in the forward chain"
	conv_close x
}
echo_fast() { counters_zero; conv_cmd x echo 30 >/dev/null; counters; [ "$ARRIVED" -ge 60 ] && [ "$FORWARDED" -le 4 ]; }
tcase -x "a connection continues at the other port"  roam_back
tcase -x "a connection continues at the other port, VLAN filtering" roam_back vlan_filtering 1

# ---- a bridge that forgets

ageing() { # the station only listens; the bridge must not flood its stream for long
	local n
	bridge_up ageing_time 1000
	at_station "$cl"
	printf '%s\n' "link set eth0 address 02:00:00:00:00:c2" | batch "$c2"
	rules DEVS="$1" WATCH="wan" || return
	at "$c2" nft -f - <<-END
		table netdev here {
			counter here { }
			chain in {
				type filter hook ingress device eth0 priority 0;
				udp dport 6000 counter name here
			}
		}
	END
	busywait 3000 at "$cl" ping -c1 -W1 -q 10.0.2.2 || fail "the station does not reach the router"
	# silent: no answer, no ARP of its own accord, no ICMP
	swap
	stream_start 10.0.1.9 || { swap; return; }
	sleep 3
	n=$(port_count "$c2")
	note "of 600 frames, flooded to port 2: $n"
	fast_now
	stream_end 500 0
	swap
	at "$c2" nft delete table netdev here
}
tcase "a silent station is forgotten by the bridge: nothing is lost" ageing "p1, p2, wan"

refreshed() { # the station only sends: to the bridge it is alive, though its packets are fast
	local n
	bridge_up ageing_time 1000
	at_station "$cl"
	printf '%s\n' "link set eth0 address 02:00:00:00:00:c2" | batch "$c2"
	rules DEVS="p1, p2, wan" || return
	at "$c2" nft -f - <<-END
		table netdev here {
			counter here { }
			chain in {
				type filter hook ingress device eth0 priority 0;
				udp sport 5000 counter name here
			}
		}
	END
	conv_open x "$cl" udp $V4 || return
	for n in 1 2 3 4; do conv_ok x echo 100; sleep 0.8; done
	want_le "of 400 answers, flooded to port 2" "$(port_count "$c2")" 20
	conv_close x
	at "$c2" nft delete table netdev here
}
tcase "a station that talks is not forgotten, its answers are not flooded" refreshed

# ---- errors for stations

# The frame is to the bridge's MAC, which is not its port's. What a tunnel cannot carry, as the path of its
# outer packets became narrower, it tells a sender of packets that are for this host only.
tunnel_mtu() {
	local far=10.9.9.9 i
	MAC=$BRMAC bridge_up
	printf '%s\n' "link add tun mtu 1476 type gre local 10.0.2.1 remote 10.0.2.2 ttl 64" "link set tun up" \
		"addr add 10.0.3.1/24 dev tun" "route add $far via 10.0.3.2 dev tun" | batch "$rt" &&
	printf '%s\n' "link add tun mtu 1476 type gre local 10.0.2.2 remote 10.0.2.1 ttl 64" "link set tun up" \
		"addr add 10.0.3.2/24 dev tun" "addr add $far/32 dev lo" "route add 10.0.1.0/24 via 10.0.3.1 dev tun src $far" |
		batch "$sv" || { skip "no GRE"; return; }
	rules DEVS="p1, p2, tun" WATCH="p1, tun" || return
	conv_open x "$cl" udp $far 5000 --pmtu probe --timeout 1 || return
	conv_ok x echo 50 1000
	want_ok "narrow path" ipn "$rt" route add 10.0.2.2 dev wan mtu 1300
	# the router remembers after the first time, and the route that it has then does not change any more
	for i in first second; do
		ipn "$cl" route flush cache
		conv_cmd x echo 1 1000 >/dev/null # takes a pending error
		conv_ok x drain
		busywait $((2000 * SLOW)) tunnelled_fast || fail "the $i time: slow"
		conv_ok x send 1 1400
		busywait $((2000 * SLOW)) tell_of_mtu $far 1276 || fail "the $i time: no ICMP error came back, path MTU is '$(pmtu_at_cl $far)'"
	done
	conv_close x
	ipn "$rt" route del 10.0.2.2 dev wan mtu 1300
	printf '%s\n' "addr del $far/32 dev lo" "link del tun" | batch "$sv"
	ipn "$rt" link del tun
}
pmtu_at_cl() { ipn "$cl" -j route get "$1" | jq -r '.[0].metrics[0].mtu // empty'; }
tunnelled_fast() { counters_zero; conv_cmd x echo 20 1000 >/dev/null; counters; [ "$ARRIVED" -ge 40 ] && [ "$FORWARDED" -le 2 ]; }
tell_of_mtu() {
	[ "$(pmtu_at_cl "$1")" != "$2" ] || return 0
	[ "${i:-}" = second ] || conv_cmd x send 1 1400 >/dev/null # one may get lost
	return 1
}
tcase -x "too big for a tunnel: the station behind a port is told" tunnel_mtu

# ---- frames that are none of the router's business

otherhost() { # unicast frames to a foreign MAC are bridged, whatever is in them
	local n mac=02:00:00:00:00:c2
	bridge_up
	printf '%s\n' "link set eth0 address $mac" | batch "$c2"
	rules DEVS="p1, p2, wan" || return
	at "$c2" ping -c1 -W1 -q 10.0.1.1 >/dev/null
	stream_start $V4 || return
	# the same packets, to the other station's MAC
	at "$c2" nft -f - <<-END
		table netdev here {
			counter here { }
			chain in {
				type filter hook ingress device eth0 priority 0;
				udp dport 6000 ether daddr $mac counter name here
			}
		}
	END
	at "$cl" nft -f - <<-END
		table netdev other {
			chain out {
				type filter hook egress device eth0 priority 0;
				udp dport 6000 ether daddr set $mac
			}
		}
	END
	sleep 0.1
	not_flowing || fail "frames to a foreign MAC are routed"
	want_ge "frames that were bridged" "$(port_count "$c2")" 20
	at "$cl" nft delete table netdev other
	at "$c2" nft delete table netdev here
	busywait $((2000 * SLOW)) flowing || fail "traffic does not come back"
	stream_end 3000
}
tcase -x "frames to a foreign MAC are bridged, not routed" otherhost
broadcast() {
	bridge_up
	rules DEVS="${1:-p1, p2, wan}" || return
	stream_start $V4 || return
	at "$cl" nft -f - <<-END
		table netdev other {
			chain out {
				type filter hook egress device eth0 priority 0;
				udp dport 6000 ether daddr set $2
			}
		}
	END
	sleep 0.1
	not_flowing || fail "frames to $2 are routed"
	at "$cl" nft delete table netdev other
	stream_end 3000
}
tcase -x "frames to ff:ff:ff:ff:ff:ff are not routed" broadcast "" ff:ff:ff:ff:ff:ff
tcase -x "multicast frames are not routed"      broadcast "" 01:00:5e:01:02:03

SETUP=setup
run_cases "$@"
