#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Who looks the connection of a packet up on its way out: cake with its option nat,
# filters with act_ctinfo, chains of a bridge. They see that of fast packets, and
# where nobody asks no packet carries it.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#        10.0.1.3
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2
#      fd00:1::3                     wan.5 10.0.5.1 ---- eth0.5 10.0.5.2
#                                          fd00:5::1          fd00:5::2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2 VLAN4=10.0.5.2
MASQ="chain post { type nat hook postrouting priority 100; oifname != lan masquerade; };"
N=100

setup() {
	lan_wan || return
	modprobe -qa sch_cake sch_htb sch_prio sch_netem sch_fq_codel sch_ingress cls_matchall cls_fw act_ctinfo ifb nf_conntrack_bridge 2>/dev/null
	at "$rt" tc qdisc add dev wan root cake 2>"$TMP/out" && at "$rt" tc qdisc del dev wan root ||
		skip_all "no cake: $(tail -n1 "$TMP/out")"
	ipn "$rt" link add link wan name wan.5 type vlan id 5
	ipn "$sv" link add link eth0 name eth0.5 type vlan id 5
	addr "$rt" wan.5 10.0.5.1/24 fd00:5::1/64
	addr "$sv" eth0.5 10.0.5.2/24 fd00:5::2/64
	addr "$cl" eth0 10.0.1.3/24 fd00:1::3/64
	# packets stay as they are sent, so that shares are exact
	offloads "$cl" eth0 gso off tso off
	at "$sv" nft -f - <<-END
	table inet tally {
		counter a { }
		counter b { }
		chain in {
			type filter hook input priority 0;
			udp dport 6001 counter name a drop
			udp dport 6002 counter name b drop
		}
	}
	END
	busywait 5000 at "$cl" ping -c1 -W1 -q $VLAN4 || { fail "VLAN"; return 1; }
	serve "$sv"
}
tc_rt() { at "$rt" tc "$@" || fail "tc $*"; }
no_tc() { # everything off these devices
	local d
	for d in "$@"; do
		at "$rt" tc qdisc del dev "$d" root 2>/dev/null
		at "$rt" tc qdisc del dev "$d" clsact 2>/dev/null
	done
	return 0
}
# with_ct: packets so far that carried their connection
with_ct() { stat_get packets_with_ct; }
# carried N, free N: of N packets nearly all carried it, or none
carried() { [ "$FT" != ours ] || want_ge "packets that carried their connection" $(($(with_ct) - CT0)) "$1"; }
free() { [ "$FT" != ours ] || want_eq "packets that carried their connection" $(($(with_ct) - CT0)) 0; }
ct_zero() { CT0=$(with_ct); }
# carrying, not_carrying: at this moment
carrying() { local a; a=$(with_ct); conv_ok x echo 10; [ $(($(with_ct) - a)) -ge 10 ]; }
not_carrying() { local a; a=$(with_ct); conv_ok x echo 10; [ "$(with_ct)" = "$a" ]; }
# settled [seen]: the worker has looked at the devices since now; where somebody asks, as far as it has seen that
settled() {
	[ "$FT" = ours ] || return 0
	if [ "${1:-}" = seen ]; then busywait $((2000 * SLOW)) carrying; else sleep 1.3; fi
	return 0
}

# ---- cake divides fairly between hosts behind the router's address

# share: per cent of what arrives at sv in two seconds that is B's
share() {
	local a b
	at "$sv" nft reset counters table inet tally >/dev/null
	sleep 2
	read -r a b < <(at "$sv" nft list counters table inet tally | awk '$1 == "packets" { print $2 }' | tr '\n' ' ')
	echo $((b * 100 / (a + b + 1)))
	[ $((a + b)) -ge 200 ] || fail "only $a + $b datagrams arrived"
}
# fair ADDRESS DEV [cake's words]: A has six flows and B one, all of them want more than there is
fair() {
	local p dst=$1 a=10.0.1.2 b=10.0.1.3
	tc_rt qdisc replace dev "$2" root cake bandwidth 1500kbit besteffort "${@:3}"
	[[ $dst != *:* ]] || { a=fd00:1::2 b=fd00:1::3; }
	rules NAT="$MASQ" DEVS="${DEVS:-}" WATCH="${WATCH:-}" || return
	bg "$cl" "${PY[@]}" streams crowd "$dst" "$a#6#6001" "$b#1#6002" --rate 250
	p=$!
	if [ "${PLAIN:-}" != 1 ]; then
		busywait $((4000 * SLOW)) crowded || fail "not all [OFFLOAD]: $(ct_list -p udp | head -n2)"
	fi
	settled
	counters_zero
	ct_zero
	SHARE=$(share)
	counters
	[ "$FT" = none ] || [ "${PLAIN:-}" = 1 ] || want_le "of $ARRIVED packets, seen by the forward chain" "$FORWARDED" 16
	stop $p
	no_tc "$2"
}
crowded() { [ "$(ct_list -p udp | grep -c '\[OFFLOAD\]')" -ge 7 ]; }
half() { # half ADDRESS DEV: B gets about half
	fair "$1" "$2" nat dual-srchost
	want_ge "per cent for the host with one flow" "$SHARE" 30
	want_le "per cent for the host with one flow" "$SHARE" 60
	[[ $1 = *:* ]] || carried 300
}
slow_or_fast() { # as without a flowtable
	local slow
	PLAIN=1 MATCH="udp dport 1 " fair $V4 wan nat dual-srchost
	slow=$SHARE
	fair $V4 wan nat dual-srchost
	carried 300
	note "per cent for the host with one flow: $slow slow, $SHARE fast"
	want_ge "per cent for the host with one flow, slow" "$slow" 30
	want_ge "per cent for the host with one flow, fast" "$SHARE" $((slow - 8))
	want_le "per cent for the host with one flow, fast" "$SHARE" $((slow + 8))
}
tcase -x "cake nat: fair as without a flowtable"                slow_or_fast
tcase -x "cake nat on the VLAN device"                          half $VLAN4 wan.5
tcase -x "cake nat below the VLAN device"                       half $VLAN4 wan
six() { # it asks for connections of IPv4 only
	MASQ='' half $V6 wan
	free
}
tcase -x "cake nat: IPv6"                                          six
without() { # all flows are the router's: one part in seven
	fair $V4 wan nonat dual-srchost
	want_le "per cent for the host with one flow" "$SHARE" 25
	free
}
tcase -x "cake without nat: packets carry nothing"                 without

bridged() { # WAN is a bridge, cake at its port
	local rc
	printf '%s\n' "link add br-wan type bridge forward_delay 0 mcast_snooping 0" "addr flush dev wan scope global" "link set wan master br-wan" | batch "$rt"
	addr "$rt" br-wan 10.0.2.1/24 fd00:2::1/64
	busywait 5000 at "$cl" ping -c1 -W1 -q $V4 || fail "no connectivity"
	"$@"
	rc=$?
	ipn "$rt" link del br-wan
	addr "$rt" wan 10.0.2.1/24 fd00:2::1/64
	busywait 5000 at "$cl" ping -c1 -W1 -q $V4
	return $rc
}
tcase -x "cake nat at the port of WAN's bridge"                 bridged half $V4 wan

# ---- act_ctinfo

EF='iifname lan ct mark set 0xb9000000;'
# talking ADDRESS [seen]: a conversation x that is fast; what leaves with EF is counted at sv
talking() {
	conv_open x "$cl" udp "$1" || return
	conv_ok x echo 5
	busywait $((2000 * SLOW)) offloaded_line udp 5000 || fail "not [OFFLOAD]: $(ct_list -p udp | head -n1)"
	settled "${2:-}"
	at "$sv" nft -f - <<-END
	table inet ef
	delete table inet ef
	table inet ef {
		counter ef { }
		chain in {
			type filter hook input priority 0;
			ip dscp ef udp dport 5000 counter name ef
			ip6 dscp ef udp dport 5000 counter name ef
		}
	}
	END
	counters_zero
	ct_zero
}
ef() { at "$sv" nft list counter inet ef ef | awk '$1 == "packets" { print $2 }'; }
fast_echo() {
	conv_ok x echo $N 300
	counters
	want_le "of $((2 * N)) packets, seen by the forward chain" "$FORWARDED" 4
}
marked() { # marked ADDRESS: every datagram leaves with the DSCP in its connection's mark
	rules NAT="$MASQ" FWD="$EF" || return
	talking "$1" seen || return
	fast_echo
	want_ge "of $N datagrams, with EF" "$(ef)" $N
	carried $N
	conv_close x
	no_tc wan wan.5
}
at_clsact() { # at_clsact ADDRESS DEV
	tc_rt qdisc add dev "$2" clsact
	tc_rt filter add dev "$2" egress matchall action ctinfo dscp 0xfc000000 0x01000000
	marked "$1"
}
tcase -x "ctinfo dscp at clsact: IPv4"                          at_clsact $V4 wan
tcase -x "ctinfo dscp at clsact: IPv6"                          at_clsact $V6 wan
tcase -x "ctinfo dscp at clsact of the VLAN device"             at_clsact $VLAN4 wan.5
at_root() { # a filter of the queueing discipline
	tc_rt qdisc add dev wan root handle 1: prio
	tc_rt filter add dev wan parent 1: protocol all matchall action ctinfo dscp 0xfc000000 0x01000000
	marked $V4
}
tcase -x "ctinfo dscp in a filter of prio"                      at_root
at_class() { # a filter of an inner class
	tc_rt qdisc add dev wan root handle 1: htb default 1
	tc_rt class add dev wan parent 1: classid 1:1 htb rate 1gbit quantum 60000
	tc_rt class add dev wan parent 1:1 classid 1:2 htb rate 1gbit quantum 60000
	tc_rt filter add dev wan parent 1: protocol all matchall flowid 1:1
	tc_rt filter add dev wan parent 1:1 protocol all matchall flowid 1:2 action ctinfo dscp 0xfc000000 0x01000000
	marked $V4
}
tcase -x "ctinfo dscp in a filter of a class of HTB"            at_class
at_leaf() { # a discipline in a discipline; as by priority, so that the outer one has no filter
	tc_rt qdisc add dev wan root handle 1: prio bands 3 priomap 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1
	tc_rt qdisc add dev wan parent 1:2 handle 2: htb default 1
	tc_rt class add dev wan parent 2: classid 2:1 htb rate 1gbit quantum 60000
	tc_rt class add dev wan parent 2:1 classid 2:2 htb rate 1gbit quantum 60000
	tc_rt filter add dev wan parent 2: protocol all matchall flowid 2:2 action ctinfo dscp 0xfc000000 0x01000000
	marked $V4
}
tcase -x "ctinfo dscp in a filter of an inner discipline"       at_leaf
cpmark() {
	tc_rt qdisc add dev wan clsact
	tc_rt filter add dev wan egress prio 1 protocol all matchall action ctinfo cpmark 0xffffffff continue
	tc_rt filter add dev wan egress prio 2 protocol all handle 0x22 fw action ok
	rules NAT="$MASQ" FWD="iifname lan ct mark set 0x22;" || return
	talking $V4 seen || return
	fast_echo
	want_ge "of $N datagrams, with the mark" "$(at "$rt" tc -s filter show dev wan egress prio 2 | awk '$1 == "Sent" { print $4; exit }')" $N
	carried $N
	conv_close x
	no_tc wan
}
tcase -x "ctinfo cpmark at clsact"                              cpmark

# ---- nftables on the way out

refused() { # should it ever be taken, then packets there have to carry their connection
	want_err "ct in an egress chain" "." nft_rt \
		"table netdev out { chain out { type filter hook egress device wan priority 0; ct state established counter; }; }"
	nft_rt delete table netdev out 2>/dev/null
	return 0
}
tcase "chains at egress cannot ask for connections" refused
bridge_chain() { # what is routed to a bridge has its connection in the chains of that
	rules NAT="$MASQ" FWD="iifname lan ct mark set 0x22;" || return
	want_ok "bridge chain" nft_rt -f - <<-END || return
		table bridge b {
			counter seen { }
			chain post {
				type filter hook postrouting priority 0;
				ct mark 0x22 ct state established counter name seen
			}
		}
	END
	talking $V4 seen || return
	nft_rt reset counters table bridge b >/dev/null
	fast_echo
	want_ge "of $N datagrams, seen in postrouting of the bridge" "$(nft_rt list counter bridge b seen | awk '$1 == "packets" { print $2 }')" $N
	carried $N
	conv_close x
	nft_rt delete table bridge b
}
tcase -x "a chain of the bridge sees connections" bridged bridge_chain

# ---- who asks may come and go

comes_and_goes() {
	local i
	rules NAT="$MASQ" || return
	talking $V4 || return
	fast_echo
	free
	for i in 1 2; do
		tc_rt qdisc replace dev wan root cake bandwidth 1gbit nat
		busywait $((2000 * SLOW)) carrying || fail "cake nat is not noticed"
		tc_rt qdisc change dev wan root cake nonat
		busywait $((2000 * SLOW)) not_carrying || fail "cake nonat is not noticed"
		tc_rt qdisc change dev wan root cake nat
		busywait $((2000 * SLOW)) carrying || fail "cake nat is not noticed"
		no_tc wan
		busywait $((2000 * SLOW)) not_carrying || fail "the end of cake is not noticed"
	done
	tc_rt qdisc add dev wan clsact
	tc_rt filter add dev wan egress matchall action pass
	busywait $((2000 * SLOW)) carrying || fail "a filter is not noticed"
	tc_rt filter del dev wan egress
	busywait $((2000 * SLOW)) not_carrying || fail "the end of the filter is not noticed"
	no_tc wan
	counters
	want_le "packets in the forward chain" "$FORWARDED" 4
	conv_close x
}
tcase -o "noticed within two seconds, coming and going" comes_and_goes
for_all() { # flows that are there and flows that come, of both directions
	tc_rt qdisc add dev lan root cake nat
	rules NAT="$MASQ" || return
	bg "$cl" "${PY[@]}" streams crowd $V4 "10.0.1.2#3#6001" "10.0.1.3#4#6002" --rate 20
	busywait $((4000 * SLOW)) crowded || fail "not all [OFFLOAD]"
	talking $V4 seen || return
	conv_ok x echo $N 300
	want_ge "packets that carried their connection" $(($(with_ct) - CT0)) $N
	want_le "packets that carried their connection" $(($(with_ct) - CT0)) $((N + 5))
	conv_close x
	no_tc lan
}
tcase -o "only the direction that leaves there carries it" for_all

nobody() { # nobody QDISC...: no packet carries its connection
	local q
	for q in "$@"; do
		no_tc wan
		[ "$q" = none ] || tc_rt qdisc add dev wan root handle 1: $q
		rules NAT="$MASQ" || return
		talking $V4 || return
		fast_echo
		free
		conv_close x
	done
	tc_rt qdisc add dev wan clsact # without filters
	talking $V4 || return
	fast_echo
	free
	conv_close x
	no_tc wan
}
tcase -o "nobody asks: no discipline, pfifo, fq_codel, fq, prio, HTB, clsact without filters" \
	nobody none pfifo fq_codel fq prio "htb default 1"

# ---- the end

gone_dev() { ! ip link show "$1" >/dev/null 2>&1; }
ends() { # packets that are queued for minutes do not keep their namespace
	local probe='' q=$1
	tc_rt qdisc add dev wan clsact
	tc_rt filter add dev wan egress matchall action pass
	rules NAT="$MASQ" || return
	bg "$cl" "${PY[@]}" streams crowd $V4 "10.0.1.2#3#6001" "10.0.1.3#4#6002" --rate 50 --size 300
	busywait $((4000 * SLOW)) crowded || fail "not all [OFFLOAD]"
	settled
	ct_zero
	# shellcheck disable=SC2086
	tc_rt qdisc replace dev wan root $q
	busywait $((4000 * SLOW)) queued || fail "nothing is queued: $(at "$rt" tc -s qdisc show dev wan | head -n3)"
	carried 20
	ip netns del "$rt"
	# namespaces end one after the other
	ns_add probe
	ip link add probe0 type veth peer name probe1 netns "$probe"
	ip netns del "$probe"
	busywait $((10000 * SLOW)) gone_dev probe0 || { fail "the namespace does not end"; ip link del probe0; }
	stop "${PIDS[-1]}"
	cleanup_all
	setup
}
queued() { [ "$(at "$rt" tc -s -j qdisc show dev wan root | jq '.[0].qlen')" -ge 20 ]; }
tcase -x "a namespace ends while packets are in netem" ends "netem delay 300s"
tcase -x "a namespace ends while packets are in cake" ends "cake bandwidth 1kbit nat"

SETUP=setup
run_cases "$@"
