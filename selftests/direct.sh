#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Packets that leave by a bridge, a VLAN device or both go past these devices, straight to the port, as long as
# nobody would see them in between, and to the port's driver if it has no queue. Whoever comes sees every packet
# from then on, and the devices count as if all had passed them.
#
#      cl                       rt                            sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  TOP 10.0.2.1 ==== far 10.0.2.2
#      fd00:1::2          fd00:1::1      fd00:2::1         fd00:2::2
#
#   plain        TOP is wan                                   far is eth0
#   bridge       TOP is br0, wan its port                     far is eth0
#   vlan         TOP is wan.7                                 far is eth0.7
#   vlan-bridge  TOP is br0.7 on br0, wan its port            far is eth0.7
#   bridge-vlan  TOP is br0, wan.7 its port                   far is eth0.7

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2
N=100

setup() {
	ns_add cl rt sv || return
	ip link add lan netns "$rt" type veth peer name eth0 netns "$cl" &&
	ip link add wan netns "$rt" type veth peer name eth0 netns "$sv" &&
	ip link add wan2 netns "$rt" type veth peer name eth1 netns "$sv" || return
	router_on "$rt"
	modprobe -q nf_conntrack
	modprobe -qa sch_fq_codel cls_matchall sch_ingress act_gact 2>/dev/null
	at "$rt" sysctl -qw net.netfilter.nf_flowtable_udp_timeout=300 2>/dev/null
	addr "$rt" lan 10.0.1.1/24 fd00:1::1/64
	addr "$cl" eth0 10.0.1.2/24 fd00:1::2/64 10.0.1.1 fd00:1::1
	printf 'link set %s up\n' wan wan2 | batch "$rt"
	printf 'link set %s up\n' eth0 eth1 | batch "$sv"
	serve "$sv"
}
# topology KIND: out of nothing; TOP is where the route leads, UPPER all devices above wan, FAR the server's
topology() {
	FAR=eth0.7
	case $FT:$1 in
	ours:*bridge*) grep -q ' call_switchdev_notifiers$' /proc/kallsyms || { skip "bridges tell nobody where stations are: no CONFIG_NET_SWITCHDEV"; return; } ;;
	esac
	nft_rt flush ruleset
	printf 'link del %s\n' br0 wan.7 | batch "$rt" 2>/dev/null
	printf '%s\n' "link del br1" "link del eth0.7" "addr flush dev eth0" "route flush table main" "neigh flush all" | batch "$sv" 2>/dev/null
	local br="link add br0 type bridge forward_delay 0 mcast_snooping 0" v="type vlan id 7" lines
	case $1 in
	plain)
		TOP=wan UPPER='' FAR=eth0
		lines=() ;;
	bridge)
		TOP=br0 UPPER=br0 FAR=eth0
		lines=("$br" "link set wan master br0") ;;
	vlan)
		TOP=wan.7 UPPER=wan.7
		lines=("link add link wan name wan.7 $v") ;;
	vlan-bridge)
		TOP=br0.7 UPPER="br0.7 br0"
		lines=("$br" "link set wan master br0" "link add link br0 name br0.7 $v") ;;
	bridge-vlan)
		TOP=br0 UPPER="br0 wan.7"
		lines=("link add link wan name wan.7 $v" "$br" "link set wan.7 master br0") ;;
	esac
	printf '%s\n' "neigh flush all" "addr flush dev wan scope global" "${lines[@]}" | batch "$rt" || { fail "devices of $1"; return 1; }
	tac -s' ' <<<"$UPPER " | tr ' ' '\n' | sed -n 's/..*/link set & up/p' | batch "$rt" # the lower ones first
	[ $FAR = eth0 ] || ipn "$sv" link add link eth0 name eth0.7 type vlan id 7
	addr_lines $TOP 10.0.2.1/24 fd00:2::1/64 | batch "$rt"
	addr_lines $FAR 10.0.2.2/24 fd00:2::2/64 10.0.2.1 fd00:2::1 | batch "$sv"
	busywait $((5000 * SLOW)) at "$cl" ping -c1 -W1 -q $V4 && busywait $((5000 * SLOW)) at "$cl" ping -c1 -W1 -q $V6 ||
		{ fail "no connectivity through the router"; return 1; }
	rules DEVS="lan, wan, wan2" WATCH="lan, wan, wan2" SEEN="meta protocol { vlan, 8021ad }"
}
# offloaded ADDRESS: a UDP conversation x that is fast already, past the devices if it can
offloaded() {
	conv_open x "$cl" udp "$1" || return
	conv_ok x echo 5
	busywait 2000 offloaded_line udp 5000 || { fail "not [OFFLOAD]: $(ct_list -p udp)"; return 1; }
	conv_ok x echo 3
	counters_zero
}
# queued: how many packets have come to dev_queue_xmit() for wan since trace
TRACE=/sys/kernel/tracing/instances/direct
queued() { awk '$1 == "entries:" || $1 == "overrun:" { n += $2 } END { print n + 0 }' $TRACE/per_cpu/cpu*/stats; }
trace() {
	[ -e /sys/kernel/tracing/instances ] || mount -t tracefs tracefs /sys/kernel/tracing || { skip "no tracing"; return; }
	mkdir $TRACE && echo 'name == "wan"' >$TRACE/events/net/net_dev_queue/filter &&
		echo 1 >$TRACE/events/net/net_dev_queue/enable || fail "no trace of net_dev_queue"
}
few_queued() { local n; n=$(queued); conv_ok x echo 5 100; [ "$(queued)" -le "$n" ]; }
# straight: the next packets do not, but go to the driver
straight() {
	[ "$FT" = ours ] || { conv_ok x echo $N 500; return; }
	local n
	trace || return
	if busywait $((3000 * SLOW)) few_queued; then
		n=$(queued)
		conv_ok x echo $N 500
		want_le "of $N packets, queued at wan" $(($(queued) - n)) 3
		# ... where the trace would have shown them
		n=$(queued)
		at "$rt" ping -c3 -i0.1 -W1 -q $V4 >/dev/null
		want_ge "of 3 packets of the router's own, queued at wan" $(($(queued) - n)) 3
	else
		fail "packets are queued at wan"
	fi
	rmdir $TRACE
}
direct() { local n; n=$(stat_get packets_direct); echo "${n:-0}"; }
some_direct() { local n; n=$(direct); conv_ok x echo 5 100; [ "$(direct)" -ge $((n + 5)) ]; }
# goes_past, passes: what the next packets do
goes_past() {
	[ "$FT" = ours ] || { conv_ok x echo $N 500; return; }
	if [ -z "$UPPER" ]; then straight; return; fi
	local n
	busywait $((3000 * SLOW)) some_direct || { fail "packets do not go past $UPPER"; return 1; }
	n=$(direct)
	conv_ok x echo $N 500
	# one may have to wake the neighbour up, or go to the ruleset
	want_ge "of $N packets, past the devices" $(($(direct) - n)) $((N - 3))
}
passes() { # passes DEV
	local n
	if [ "$1" = wan ]; then conv_ok x echo $N 500; return; fi # past the devices above
	n=$(direct)
	conv_ok x echo $N 500
	want_eq "of $N packets, past the devices" $(($(direct) - n)) 0
}
sent() { at "$rt" awk -v d="$1:" '$1 == d { print $11, $10 }' /proc/net/dev; } # packets, bytes
# told CMD...: what the devices count as sent meanwhile
told() {
	local d b p q
	local -a a=()
	for d in $UPPER wan; do a+=("$(sent "$d")"); done
	"$@" >&2
	for d in $UPPER wan; do
		read -r p q <<<"${a[0]}"; a=("${a[@]:1}")
		read -r b d <<<"$(sent "$d")"
		printf '%d/%d ' $((b - p)) $((d - q))
	done
}

# ---- past the devices

past() { # past KIND ADDRESS
	local fast slow
	topology "$1" || return
	offloaded "$2" || return
	goes_past || return
	straight || return
	# somebody else may send in between
	for _ in 1 2 3 4 5; do
		fast=$(told goes_quiet)
		tap_open any || return
		slow=$(told goes_quiet)
		tap_close
		[ "$fast" != "$slow" ] || break
		goes_past
	done
	want_eq "packets/bytes of ${UPPER:+$UPPER }wan" "$fast" "$slow"
	counters
	want_le "seen by the forward chain" "$FORWARDED" 6
	conv_close x
}
goes_quiet() { conv_ok x echo $N 500; }
# tap_open DEV|any, tap_close: TAPPED is how many datagrams to the server it saw go out, at each device
tap_open() {
	rm -f "$TMP"/tap.*
	bg "$rt" "${PY[@]}" streams tap "$1" 5000 --ready "$TMP/tap.ready" --out "$TMP/tap.out"
	TAP=$!
	busywait $((9000 * SLOW)) test -e "$TMP/tap.ready" || { fail "no tap"; return 1; }
}
tap_close() { stop "$TAP"; TAPPED=$(cat "$TMP/tap.out"); }

for k in plain bridge vlan vlan-bridge bridge-vlan; do
	tcase "IPv4: past $k" past $k $V4
	tcase "IPv6: past $k" past $k $V6
done

# ---- who comes sees everything

# seen KIND OBSERVER DEV: nobody, OBSERVER, nobody again
seen() {
	local before n
	topology "$1" || return
	offloaded $V4 || return
	goes_past || return
	want_ok "$2 at $3" "$2" on "$3" || return
	before=$("$2" count "$3")
	passes "$3"
	n=$(($("$2" count "$3") - before))
	want_ge "of $N packets, seen at $3" "$n" $N
	want_le "of $N packets, seen at $3" "$n" $((N + 4)) # other packets than those of the flow
	want_ok "no $2 at $3" "$2" off "$3"
	goes_past
	conv_close x
}
egress_chain() {
	case $1 in
	on) nft_rt -f - <<-END
		table netdev eye {
			counter c { }
			chain out { type filter hook egress device "$2" priority 0; meta protocol { ip, vlan } counter name c; }
		}
		END
		;;
	off) nft_rt delete table netdev eye ;;
	count) nft_rt list counter netdev eye c | awk '$1 == "packets" { print $2 }' ;;
	esac
}
bridge_chain() { # bridge_chain HOOK ACTION
	case $2 in
	on) nft_rt -f - <<-END
		table bridge eye {
			counter c { }
			chain out { type filter hook $1 priority 0; ether type ip counter name c; }
		}
		END
		;;
	off) nft_rt delete table bridge eye ;;
	count) nft_rt list counter bridge eye c | awk '$1 == "packets" { print $2 }' ;;
	esac
}
bridge_output() { bridge_chain output "$1"; }
bridge_postrouting() { bridge_chain postrouting "$1"; }
discipline() {
	case $1 in
	on) at "$rt" tc qdisc add dev "$2" root fq_codel ;;
	off) at "$rt" tc qdisc del dev "$2" root ;;
	count) at "$rt" tc -s qdisc show dev "$2" | awk '$1 == "Sent" { print $4; exit }' ;;
	esac
}
filter() {
	case $1 in
	on) at "$rt" tc qdisc add dev "$2" clsact && at "$rt" tc filter add dev "$2" egress protocol all prio 1 matchall action pass ;;
	off) at "$rt" tc qdisc del dev "$2" clsact ;;
	count) at "$rt" tc -s filter show dev "$2" egress | awk '$1 == "Sent" { print $4; exit }' ;;
	esac
}
for k in "plain wan" "bridge wan" "bridge br0" "vlan wan.7" "vlan-bridge br0.7" "vlan-bridge br0" "bridge-vlan br0" "bridge-vlan wan.7"; do
	for o in egress_chain discipline filter; do
		# shellcheck disable=SC2086
		tcase "${k% *}: $o at ${k#* }" seen ${k% *} $o ${k#* }
	done
done
tcase "bridge: a chain of the bridge, output" seen bridge bridge_output br0
tcase "bridge: a chain of the bridge, postrouting" seen bridge bridge_postrouting br0

tapped() { # tapped KIND DEV
	topology "$1" || return
	offloaded $V4 || return
	goes_past || return
	tap_open "$2" || return
	passes "$2"
	tap_close
	want_eq "of $N packets, seen by the tap" "$TAPPED" $N
	goes_past
	conv_close x
}
tcase "plain: a tap at wan" tapped plain wan
tcase "plain: a tap at all devices" tapped plain any
tcase "bridge: a tap at wan" tapped bridge wan
tcase "bridge: a tap at br0" tapped bridge br0
tcase "vlan: a tap at wan.7" tapped vlan wan.7
tcase "vlan-bridge: a tap at br0" tapped vlan-bridge br0

priorities() { # a mapping of priorities comes: it never goes again
	topology vlan || return
	offloaded $V4 || return
	goes_past || return
	at "$sv" nft -f - <<-END
		table netdev eye {
			counter c { }
			chain in { type filter hook ingress device eth0 priority 0; vlan pcp 5 udp dport 5000 counter name c; }
		}
	END
	want_ok "mapping" ipn "$rt" link set wan.7 type vlan egress-qos-map 0:5
	passes wan.7
	want_eq "of $N packets, with PCP 5" "$(at "$sv" nft list counter netdev eye c | awk '$1 == "packets" { print $2 }')" $N
	at "$sv" nft delete table netdev eye
	conv_close x
}
tcase "vlan: priorities are mapped" priorities

# ---- what changes on the way

# changed KIND CHANGE... -- CHECK...: traffic goes on, past the devices in the end
changed() {
	local kind=$1 how=(); shift
	while [ "$1" != -- ]; do how+=("$1"); shift; done
	shift
	topology "$kind" || return
	offloaded $V4 || return
	goes_past || return
	want_ok "${how[*]}" "${how[@]}" || return
	conv_ok x echo 10 500
	[ $# = 0 ] || "$@"
	goes_past
	conv_close x
}
station_moves() { # to the other port; it speaks first, as a station that wakes up does
	ipn "$rt" link set wan2 master br0
	printf '%s\n' "link add br1 address 02:00:00:00:00:77 type bridge forward_delay 0 mcast_snooping 0" | batch "$sv"
	printf '%s\n' "addr flush dev eth0" "link set eth1 address $(mac "$sv" eth0)" "link set eth0 address 02:00:00:00:00:78" \
		"addr add 10.0.2.2/24 dev eth1" "route replace default via 10.0.2.1" | batch "$sv"
	at "$sv" ping -c1 -W2 -q 10.0.2.1
}
at_wan2() {
	local a
	a=$(sent wan2)
	conv_ok x echo $N 500
	want_ge "of $N packets, at the port where the station is" $(($(sent wan2 | cut -d' ' -f1) - ${a% *})) $N
}
new_address() { # of the server's card: the neighbour learns it
	ipn "$sv" link set $FAR address 02:00:00:00:00:99 && at "$sv" ping -c1 -W2 -q 10.0.2.1
}
own_address() { ipn "$rt" link set $TOP address 02:00:00:00:00:55 && at "$cl" ping -c1 -W2 -q $V4; }
forgotten() { at "$rt" bridge fdb del "$(mac "$sv" eth0)" dev wan master; }
tcase "plain: the station has another address" changed plain new_address --
tcase "plain: the device has another address" changed plain own_address --
tcase "plain: the device goes down and comes again" changed plain down_and_up --
tcase "vlan: the card inserts no tags any more" changed vlan no_insertion -- at_the_server
tcase "bridge: the station has another address" changed bridge new_address --
tcase "vlan: the station has another address" changed vlan new_address --
tcase "bridge: the bridge forgets the station" changed bridge forgotten --
tcase "bridge: the port leaves the bridge and comes again" changed bridge port_again --
tcase "bridge: the station moves to another port" changed bridge station_moves -- at_wan2
down_and_up() {
	printf '%s\n' "link set wan down" "link set wan up" "addr replace fd00:2::1/64 dev wan nodad" | batch "$rt"
	busywait $((3000 * SLOW)) at "$cl" ping -c1 -W1 -q $V4
}
no_insertion() { at "$rt" ethtool -K wan tx-vlan-hw-insert off; }
at_the_server() { # with their tags, as every other
	at "$sv" nft -f - <<-END
		table netdev eye {
			counter c { }
			chain in { type filter hook ingress device eth0 priority 0; vlan id 7 udp dport 5000 counter name c; }
		}
	END
	goes_past && straight
	want_ge "of $N packets, with VLAN ID 7" "$(at "$sv" nft list counter netdev eye c | awk '$1 == "packets" { print $2 }')" $N
	at "$sv" nft delete table netdev eye
	at "$rt" ethtool -K wan tx-vlan-hw-insert on
}
port_again() { ipn "$rt" link set wan nomaster && ipn "$rt" link set wan master br0 && busywait $((3000 * SLOW)) at "$cl" ping -c1 -W1 -q $V4; }

gso() { # gso KIND: super-packets, and checksums that the card makes
	topology "$1" || return
	local BYTES=4000000
	bypass tcp $V4
	bypass tcp $V6
}
tcase "plain: TCP" gso plain
tcase "bridge: TCP" gso bridge
tcase "vlan: TCP" gso vlan
tcase "vlan-bridge: TCP" gso vlan-bridge

SETUP=setup
run_cases "$@"
