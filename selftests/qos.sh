#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What traffic control sees of offloaded packets: every packet passes the queueing
# discipline of its route's device, with the priority, the mark and, where that is
# asked for, the DSCP that the ruleset gave the connection.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2
#                                    wan.5 10.0.5.1 ---- eth0.5 10.0.5.2
#                                          fd00:5::1          fd00:5::2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2 VLAN4=10.0.5.2 VLAN6=fd00:5::2
N=100 # datagrams of a case, and as many answers
DSCP=/sys/module/nft_offload/parameters/dscp

setup() {
	lan_wan || return
	modprobe -qa sch_prio sch_htb sch_fq_codel sch_cake cls_fw cls_flower 2>/dev/null
	ipn "$rt" link add link wan name wan.5 type vlan id 5
	ipn "$sv" link add link eth0 name eth0.5 type vlan id 5
	ipn "$rt" link set wan.5 txqueuelen 1000 # what a leaf of prio or HTB may hold
	addr "$rt" wan.5 10.0.5.1/24 fd00:5::1/64
	addr "$sv" eth0.5 10.0.5.2/24 fd00:5::2/64
	busywait 5000 at "$cl" ping -c1 -W1 -q $VLAN4 && busywait 5000 at "$cl" ping -c1 -W1 -q $VLAN6 || { fail "VLAN"; return 1; }
	serve "$sv"
}
tc_rt() { at "$rt" tc "$@" || fail "tc $*"; }
qdisc() { # qdisc DEV KIND...: as root; SKIPs without it
	no_qdisc "$1"
	at "$rt" tc qdisc add dev "$1" root handle 1: "${@:2}" 2>"$TMP/out" || { skip "no qdisc $2: $(tail -n1 "$TMP/out")"; return 4; }
}
no_qdisc() { at "$rt" tc qdisc del dev "$1" root 2>/dev/null; }
# in_class DEV CLASS, in_qdisc DEV: packets so far
in_class() { at "$rt" tc -s class show dev "$1" | awk -v c="$2" '$1 == "class" { on = $3 == c } on && $1 == "Sent" { print $4; exit }'; }
in_qdisc() { at "$rt" tc -s qdisc show dev "$1" | awk '$1 == "Sent" { print $4; exit }'; }
# offloaded ADDRESS: a UDP conversation x that is fast already
offloaded() {
	conv_open x "$cl" udp "$1" 5000 ${SPORT:+--sport "$SPORT"} || return
	conv_ok x echo 5
	busywait 2000 offloaded_line udp 5000 || { fail "not [OFFLOAD]: $(ct_list -p udp)"; return 1; }
	conv_ok x echo 3
	counters_zero
}
# fast_echo: N datagrams and their answers, none of which the forward chain sees
fast_echo() {
	conv_ok x echo $N 300
	counters
	want_le "of $((2 * N)) packets, seen by the forward chain" "$FORWARDED" 4
}

# way DEV: where sv sends its answers
way() {
	case $1 in
	wan.5) printf 'route replace 10.0.1.0/24 via 10.0.5.1\nroute replace fd00:1::/64 via fd00:5::1\n' ;;
	*) printf 'route del 10.0.1.0/24\nroute del fd00:1::/64\n' ;;
	esac | batch "$sv" >/dev/null 2>&1
}
# all_in DEV CLASS ADDRESS: the class gets everything that is sent
all_in() {
	local a
	way "$1"
	offloaded "$3" || return
	a=$(in_class "$1" "$2")
	fast_echo
	want_ge "of $N packets, in class $2 of $1" $(($(in_class "$1" "$2") - a)) $((N - ${MISSES:-0}))
	conv_close x
	no_qdisc "$1"
}
by_fw() { # cls_fw and a mark from the ruleset
	qdisc "$1" prio bands 3 priomap 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 || return
	tc_rt filter add dev "$1" parent 1: protocol all handle 7 fw classid 1:3
	rules DEVS="lan, wan" FWD="iifname lan meta mark set 7;" || return
	all_in "$1" 1:3 "$2"
}
tcase -x "IPv4: mark from a forward rule, cls_fw and prio"              by_fw wan $V4
tcase -x "IPv6: mark from a forward rule, cls_fw and prio"              by_fw wan $V6
tcase -x "IPv4: mark from a forward rule, cls_fw on the VLAN device"    by_fw wan.5 $VLAN4

by_ct_mark() { # the usual way of multi-WAN and SQM: saved in the connection, restored for each packet
	qdisc wan htb default 10 || return
	tc_rt class add dev wan parent 1: classid 1:10 htb rate 1gbit quantum 60000
	tc_rt class add dev wan parent 1: classid 1:20 htb rate 1gbit quantum 60000
	tc_rt filter add dev wan parent 1: protocol all handle 9 fw classid 1:20
	rules FWD="iifname lan ct mark set 9;" NAT="chain post { type filter hook postrouting priority 0; meta mark set ct mark; };" || return
	all_in wan 1:20 $V4
}
tcase -x "connection mark, restored in postrouting, cls_fw and HTB" by_ct_mark

by_priority() { # a class by priority, set in postrouting
	qdisc "$1" htb default 10 || return
	tc_rt class add dev "$1" parent 1: classid 1:10 htb rate 1gbit quantum 60000
	tc_rt class add dev "$1" parent 1: classid 1:30 htb rate 1gbit quantum 60000
	rules DEVS="lan, wan" NAT="chain post { type filter hook postrouting priority 0; oifname $1 meta priority set 0x10030; };" || return
	all_in "$1" 1:30 "$2"
}
tcase -x "IPv4: class set as priority in postrouting, HTB"               by_priority wan $V4
tcase -x "IPv6: class set as priority in postrouting, HTB"               by_priority wan $V6
tcase -x "IPv4: class set as priority in postrouting, HTB on the VLAN device" by_priority wan.5 $VLAN4

by_flower() { # a filter at the egress hook sees addresses and ports as they are sent
	at "$rt" tc qdisc replace dev wan clsact 2>/dev/null || { skip "no clsact"; return; }
	tc_rt filter add dev wan egress protocol ip flower ip_proto udp src_ip 10.0.2.1 dst_port 5000 action pass
	rules NAT="chain post { type nat hook postrouting priority 100; oifname wan masquerade; };" || return
	offloaded $V4 || return
	fast_echo
	want_ge "of $N packets, seen by flower" "$(at "$rt" tc -s filter show dev wan egress | awk '$1 == "Sent" { print $4; exit }')" $N
	conv_close x
	at "$rt" tc qdisc del dev wan clsact
}
tcase "flower at egress sees translated packets" by_flower

every() { # every DEV QDISC...: the discipline has seen every packet
	local a dev=$1
	qdisc "$@" || return
	way "$dev"
	rules DEVS="lan, wan" || return
	offloaded "$ADDR" || return
	a=$(in_qdisc "$dev")
	fast_echo
	want_ge "of $N packets, seen by $2 on $dev" $(($(in_qdisc "$dev") - a)) $N
	conv_close x
	no_qdisc "$dev"
}
ADDR=$V4
over() { local ADDR=$1; shift; "$@"; }
tcase "fq_codel sees every packet"                       over $V4 every wan fq_codel
tcase "cake sees every packet"                           over $V6 every wan cake bandwidth 1gbit
tcase -x "fq_codel on the VLAN device sees every packet" over $VLAN4 every wan.5 fq_codel
tcase -x "cake on the VLAN device sees every packet"     over $VLAN6 every wan.5 cake bandwidth 1gbit
bridged() { # WAN is a bridge: its discipline, though the flowtable lists the port
	local rc
	printf '%s\n' "link add br-wan type bridge forward_delay 0 mcast_snooping 0" "addr flush dev wan scope global" "link set wan master br-wan" | batch "$rt"
	addr "$rt" br-wan 10.0.2.1/24 fd00:2::1/64
	busywait 5000 at "$cl" ping -c1 -W1 -q $V4 || fail "no connectivity"
	every br-wan fq_codel
	rc=$?
	ipn "$rt" link del br-wan
	addr "$rt" wan 10.0.2.1/24 fd00:2::1/64
	busywait 5000 at "$cl" ping -c1 -W1 -q $V4
	return $rc
}
tcase -x "fq_codel on the bridge sees every packet"      over $V4 bridged

# ---- at ingress: what a device in between filters is not picked up below it

meter_on() { # meter_on tc|chain DEV: counts the datagrams from port 5000 that come in by the device
	case $1 in
	tc)	at "$rt" tc qdisc replace dev "$2" clsact 2>/dev/null || { skip "no clsact"; return; }
		tc_rt filter add dev "$2" ingress protocol ip flower ip_proto udp src_port "$METER" action pass ;;
	chain)	want_ok "chain" nft_rt -f - <<-END ;;
		table netdev tap {
			counter seen { }
			chain in {
				type filter hook ingress device $2 priority 0;
				udp sport $METER counter name seen
			}
		}
	END
	esac
}
meter() {
	case $1 in
	tc)	at "$rt" tc -s filter show dev "$2" ingress | awk '$1 == "Sent" { n = $4 } END { print n + 0 }' ;;
	chain)	nft_rt list counter netdev tap seen | awk '$1 == "packets" { print $2 }' ;;
	esac
}
meter_off() {
	case $1 in
	tc)	at "$rt" tc qdisc del dev "$2" clsact ;;
	chain)	nft_rt delete table netdev tap ;;
	esac
}
all_metered() { local a; a=$(meter "$@"); conv_ok x echo 10; [ $(($(meter "$@") - a)) -ge 10 ]; }
all_fast() { counters_zero; conv_ok x echo 10; counters; [ "$FORWARDED" = 0 ]; }
# metered slow|fast tc|chain DEV DEVS ADDRESS: a meter appears at DEV under a flow that is picked up below,
# and goes again. Meanwhile the flow is slow, or picked up at DEV as that is listed as well.
metered() {
	local where=$1 how=$2 dev=$3 a
	rules DEVS="$4" WATCH="lan, wan" || return
	offloaded "$5" || return
	meter_on "$how" "$dev" || { conv_close x; return; }
	busywait $((4000 * SLOW)) all_metered "$how" "$dev" || fail "the flow goes past the meter"
	[ "$where" = slow ] || busywait $((3000 * SLOW)) all_fast || fail "not fast at $dev"
	a=$(meter "$how" "$dev")
	counters_zero
	conv_ok x echo $N 300
	counters
	want_ge "of $N datagrams, metered" $(($(meter "$how" "$dev") - a)) $N
	if [ "$where" = fast ]; then
		want_le "of $((2 * N)) packets, seen by the forward chain" "$FORWARDED" 4
	else
		[ "$FT" != ours ] || want_ge "reason for that, times" "$(stat_get skip.ingress_filter)" 1
	fi
	meter_off "$how" "$dev"
	busywait $((4000 * SLOW)) all_fast || fail "not fast again without the meter"
	conv_close x
}
vlan_metered() { local METER=5000; way wan.5; metered "$1" "$2" wan.5 "$3" $VLAN4; }
bridge_metered() { # LAN is a bridge; of what comes in there
	local METER=7000 SPORT=7000 rc
	printf '%s\n' "link add br-lan type bridge forward_delay 0 mcast_snooping 0" "addr flush dev lan" "link set lan master br-lan" | batch "$rt"
	addr "$rt" br-lan 10.0.1.1/24 fd00:1::1/64
	ipn "$cl" neigh flush dev eth0
	busywait 5000 at "$cl" ping -c1 -W1 -q $V4 || fail "no connectivity"
	way wan
	metered "$1" "$2" br-lan "$3" $V4
	rc=$?
	ipn "$rt" link del br-lan
	# it comes up with a link-local address again, which the port of a bridge has not: neighbours are asked from it
	ipn "$rt" link set lan down
	addr "$rt" lan 10.0.1.1/24 fd00:1::1/64
	ipn "$cl" neigh flush dev eth0
	busywait $((10000 * SLOW)) at "$cl" ping -c1 -W1 -q $V4 && busywait $((10000 * SLOW)) at "$cl" ping -c1 -W1 -q $V6 || fail "no connectivity any more"
	return $rc
}
tcase -x "tc filter at the VLAN device's ingress sees every packet, the port is listed" vlan_metered slow tc "lan, wan"
tcase -x "tc filter at the VLAN device's ingress sees every packet, both are listed" vlan_metered fast tc "lan, wan, wan.5"
tcase -x "chain at the VLAN device's ingress sees every packet, both are listed" vlan_metered fast chain "lan, wan, wan.5"
tcase -x "tc filter at the bridge's ingress sees every packet, both are listed" bridge_metered fast tc "lan, br-lan, wan"
tcase -x "chain at the bridge's ingress sees every packet, the port is listed" bridge_metered slow chain "lan, wan"

# ---- priorities by the type of service, as ip_forward() sets them

tos() { # tos [DSCP]: what cl sends with from now on
	at "$cl" nft delete table inet tos 2>/dev/null
	[ -z "${1:-}" ] || at "$cl" nft -f - <<-END
		table inet tos {
			chain out {
				type filter hook output priority 0;
				th dport 5000 ip dscp set $1
			}
		}
	END
}
by_tos() { # the type of service changes while the flow is fast (as that of SSH does)
	local i a=() b
	# interactive (6) is band 1, bulk (2) is band 3, the rest band 2: the defaults
	way wan
	qdisc wan prio bands 3 || return
	at "$rt" sysctl -qw net.ipv4.ip_forward_update_priority="$1"
	rules || return
	tos "$3"
	offloaded $V4 || return
	for i in "${@:4}"; do
		tos "${i%:*}"
		conv_ok x echo 2 # neighbours and the like
		b=$(in_class wan 1:"${i#*:}")
		conv_ok x echo $N
		want_ge "of $N packets with DSCP ${i%:*}, in band ${i#*:}" $(($(in_class wan 1:"${i#*:}") - b)) $N
	done
	counters
	want_le "packets in the forward chain" "$FORWARDED" "$2"
	conv_close x
	tos
	at "$rt" sysctl -qw net.ipv4.ip_forward_update_priority=1
	no_qdisc wan
}
by_tos_tcp() { # of a connection that the client opens, and that sends most; its packets are in band $2
	local a b
	way wan
	qdisc wan prio bands 3 || return
	rules || return
	tos "$1"
	conv_open x "$cl" tcp $V4 5000 || return
	conv_ok x echo 100000
	busywait 2000 offloaded_line tcp 5000 || { fail "not [OFFLOAD]"; return 1; }
	tos "$3"
	conv_ok x echo 2000 # what is still on its way
	a=$(in_qdisc wan) b=$(in_class wan 1:"$4") # the last answers may not be acknowledged
	counters_zero
	conv_ok x echo 2000000
	counters
	a=$(($(in_qdisc wan) - a))
	want_ge "packets to the server" "$a" 20
	want_ge "of $a packets with DSCP $3, in band $4" $(($(in_class wan 1:"$4") - b)) $((a - 2))
	want_le "bytes seen by the forward chain" "$FORWARDED_BYTES" 1000000
	conv_close x
	tos
	no_qdisc wan
}
tcase -x "TCP: priority by TOS follows each packet"  by_tos_tcp 0 2 4 1
tcase -x "TCP: priority by TOS, the connection began with one" by_tos_tcp 4 1 0 2
tcase -x "priority by TOS follows each packet"                    by_tos 1 4 0 4:1 2:3 0:2 4:1
tcase -x "priority by TOS, the flow began with one"               by_tos 1 4 4 4:1 0:2
tcase    "ip_forward_update_priority=0: priorities stay as they are" by_tos 0 4 0 4:2 2:2

# ---- DSCP

dscp_ends() { # what sv gets: DSCP counters
	at "$sv" nft -f - <<-END
	table inet ds
	delete table inet ds
	table inet ds {
		counter cs3 { }
		counter other { }
		counter ect { }
		chain in {
			type filter hook input priority 0;
			tcp dport 5000 ip dscp cs3 counter name cs3
			tcp dport 5000 ip6 dscp cs3 counter name cs3
			tcp dport 5000 ip dscp != cs3 counter name other
			tcp dport 5000 ip6 dscp != cs3 counter name other
			udp dport 5000 ip dscp cs3 counter name cs3
			udp dport 5000 ip6 dscp cs3 counter name cs3
			udp dport 5000 ip dscp != cs3 counter name other
			udp dport 5000 ip6 dscp != cs3 counter name other
			udp dport 5000 ip ecn ect0 counter name ect
		}
	}
	END
}
seen() { at "$sv" nft list counter inet ds "$1" | awk '$1 == "packets" { print $2 }'; }
dscp() { # dscp MODE ADDRESS RULE WANTED-COUNTER
	if [ "$FT" = ours ]; then echo "$1" >$DSCP || fail "cannot set $DSCP"; fi
	way wan
	rules FWD="$3" NAT="chain post { type nat hook postrouting priority 100; oifname wan masquerade; };" || return
	at "$cl" nft -f - <<-'END'
		table inet bits {
			chain out {
				type filter hook output priority 0;
				udp dport 5000 ip ecn set ect0
			}
		}
	END
	offloaded "$2" || return
	dscp_ends
	fast_echo
	want_ge "of $N datagrams, counted as $4" "$(seen "$4")" $((N - 2))
	[ "$2" = $V6 ] || want_ge "of $N datagrams, with ECT(0) still" "$(seen ect)" $N
	conv_close x
	at "$cl" nft delete table inet bits
	[ "$FT" != ours ] || echo keep >$DSCP
}
CS3="iifname lan ip dscp set cs3; iifname lan ip6 dscp set cs3;"
tcase    "IPv4: DSCP from a forward rule is not restored by default" dscp keep $V4 "$CS3" other
tcase    "IPv6: DSCP from a forward rule is not restored by default" dscp keep $V6 "$CS3" other
tcase -x "IPv4: DSCP from a forward rule, dscp=restore"              dscp restore $V4 "$CS3" cs3
tcase -x "IPv6: DSCP from a forward rule, dscp=restore"              dscp restore $V6 "$CS3" cs3
tcase    "IPv4: no rule changes the DSCP, dscp=restore"              dscp restore $V4 "" other

dscp_tcp() { # dscp_tcp ADDRESS: of a connection that the client opens
	local rc
	if [ "$FT" = ours ]; then echo restore >$DSCP || fail "cannot set $DSCP"; fi
	restored "$1"
	rc=$?
	[ "$FT" != ours ] || echo keep >$DSCP
	return $rc
}
restored() {
	way wan
	rules FWD="$CS3" || return
	conv_open x "$cl" tcp "$1" 5000 || return
	conv_ok x echo 100000
	busywait 2000 offloaded_line tcp 5000 || { fail "not [OFFLOAD]"; return 1; }
	dscp_ends
	counters_zero
	conv_ok x echo 2000000
	counters
	want_ge "packets with CS3" "$(seen cs3)" 20
	want_eq "packets without" "$(seen other)" 0
	want_le "bytes seen by the forward chain" "$FORWARDED_BYTES" 1000000
	conv_close x
}
tcase -x "IPv4 TCP: DSCP from a forward rule, dscp=restore" dscp_tcp $V4
tcase -x "IPv6 TCP: DSCP from a forward rule, dscp=restore" dscp_tcp $V6

parameter() {
	want_eq "default" "$(cat $DSCP)" keep
	want_err "another word" "Invalid argument" bash -c "echo sometimes >$DSCP"
	want_eq "afterwards" "$(cat $DSCP)" keep
}
tcase -o "the parameter takes two words" parameter

SETUP=setup
run_cases "$@"
