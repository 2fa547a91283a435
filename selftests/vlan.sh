#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# VLAN tags on either side of the router, one or two of them, whichever of the
# devices the flowtable lists; their priorities; VLANs that change.
#
#      cl                       rt                        sv
#     eth0 ------------------ lan  wan ------------------ eth0
#   eth0.TAGS 10.0.1.2    lan.TAGS  wan.TAGS         eth0.TAGS 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2
#
# TAGS are named as q10 (802.1Q) or ad20 (802.1ad), the outer one first; "-" for none.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2
# The second tag is in the packet, where nftables does not look beyond it.
SEEN="meta protocol { vlan, 8021ad }" SLACK=12

setup() {
	ns_add cl rt sv || return
	ip link add lan mtu 1600 netns "$rt" type veth peer name eth0 mtu 1600 netns "$cl" &&
	ip link add wan mtu 1600 netns "$rt" type veth peer name eth0 mtu 1600 netns "$sv" || return
	router_on "$rt"
	local d
	for d in "$cl eth0" "$rt lan" "$rt wan" "$sv eth0"; do
		# shellcheck disable=SC2086
		ipn ${d% *} link set ${d#* } up
	done
	serve "$sv"
}
# stack DEV TAGS [OPTION...]: lines that make VLAN devices on top of DEV; TOP is the highest
stack() {
	local tag proto tags=$2; TOP=$1
	shift 2
	[ "$tags" != - ] || return 0
	for tag in ${tags//./ }; do
		proto=802.1Q; [ "$tag" = "${tag#ad}" ] || proto=802.1ad
		echo "link add link $TOP name $TOP.$tag mtu 1500 type vlan proto $proto id ${tag//[a-z]/} $*"
		TOP=$TOP.$tag
		echo "link set $TOP up"
	done
}
# bare NS DEV: takes away what was on top of it (not by guessing names: looking for
# a device that does not exist makes the kernel look for a module)
bare() {
	local d
	for d in $(ipn "$1" -br link show type vlan | grep -o "^$2\.[a-z0-9]*@"); do
		# one that goes takes those above it along
		echo "link del ${d%@}"
	done
	printf '%s\n' "addr flush dev $2 scope global" "neigh flush dev $2"
	[ "$2" != eth0 ] || printf '%s\n' "route del default" "route del ::/0"
}
# wire LAN-TAGS WAN-TAGS [OPTION...]: the topology above, out of nothing
wire() {
	local lan=$1 wan=$2; shift 2
	nft_rt flush ruleset
	{ bare "$rt" lan; bare "$rt" wan; } | batch "$rt" 2>/dev/null
	bare "$cl" eth0 | batch "$cl" 2>/dev/null
	bare "$sv" eth0 | batch "$sv" 2>/dev/null
	{ stack lan "$lan" "$@"; LAN=$TOP; stack wan "$wan" "$@"; WAN=$TOP
	addr_lines "$LAN" 10.0.1.1/24 fd00:1::1/64; addr_lines "$WAN" 10.0.2.1/24 fd00:2::1/64; } >"$TMP/batch.rt"
	{ stack eth0 "$lan" "$@"; addr_lines "$TOP" 10.0.1.2/24 fd00:1::2/64 10.0.1.1 fd00:1::1; CLTOP=$TOP; } >"$TMP/batch.cl"
	{ stack eth0 "$wan" "$@"; addr_lines "$TOP" 10.0.2.2/24 fd00:2::2/64 10.0.2.1 fd00:2::1; SVTOP=$TOP; } >"$TMP/batch.sv"
	want_ok "router's devices" batch "$rt" <"$TMP/batch.rt" && want_ok "client's devices" batch "$cl" <"$TMP/batch.cl" &&
		want_ok "server's devices" batch "$sv" <"$TMP/batch.sv"
}
reachable() {
	busywait $((3000 * SLOW)) at "$cl" ping -c1 -W1 -q $V4 && busywait $((3000 * SLOW)) at "$cl" ping -c1 -W1 -q $V6 ||
		fail "no connectivity through the router"
}

# tags LAN-TAGS WAN-TAGS [RULES-OPTION...]
tags() {
	wire "$1" "$2" || return
	rules "${@:3}" WATCH="lan, wan" || return
	bypass_all $V4 $V6
}
MASQ="chain post { type nat hook postrouting priority 100; ip saddr 10.0.1.0/24 masquerade; ip6 saddr fd00:1::/64 masquerade; };"
tcase "802.1Q on LAN"                   tags q10 -
tcase "802.1Q on both"                  tags q10 q30
tcase "802.1ad on both, masquerade"     tags ad20 ad21 NAT="$MASQ"
tcase "QinQ (ad, q) on WAN, masquerade" tags - ad20.q10 NAT="$MASQ"
tcase "QinQ (ad, q) on both"            tags ad20.q10 ad40.q30
tcase "QinQ (q, q) on both, masquerade" tags q20.q10 q40.q30 NAT="$MASQ"
tcase -x "802.1ad in 802.1ad on LAN"    tags ad20.ad10 -
tcase "802.1Q on LAN, table ip"         family ip $V4
tcase "802.1Q on LAN, table ip6"        family ip6 $V6
family() {
	wire q10 - || return
	rules FAM="$1" || return
	bypass_all "$2"
}

# ---- which device is listed

# listed DEVS LAN-TAGS WAN-TAGS [WATCH]
listed() {
	wire "$2" "$3" || return
	rules DEVS="$1" WATCH="${4:-}" || return
	bypass_all $V4 $V6
}
tcase -x "only the VLAN devices are listed"      listed "lan.q10, wan.q30" q10 q30
tcase -x "VLAN device on one side, lower on the other" listed "lan.q10, wan" q10 q30
tcase "all devices are listed"                   listed "lan, wan, lan.q10, wan.q30" q10 q30 "lan, wan"
tcase -x "QinQ, only the middle devices are listed" listed "lan.ad20, wan.ad40" ad20.q10 ad40.q30
tcase -x "QinQ, only the top devices are listed" listed "lan.ad20.q10, wan.ad40.q30" ad20.q10 ad40.q30

not_listed() { # nothing of the way out: no offload, traffic passes
	wire q10 - || return
	rules DEVS="lan" || return
	conv_open x "$cl" udp $V4 || return
	conv_ok x echo 30
	conv_close x
	counters
	want_ge "packets in the forward chain" "$FORWARDED" 60
}
tcase "one side is not listed: slow, but it passes" not_listed

# ---- device settings

own_mac() { # the VLAN devices have addresses of their own
	wire q10 q30 || return
	ipn "$rt" link set lan.q10 address 02:00:00:00:01:10
	ipn "$rt" link set wan.q30 address 02:00:00:00:01:30
	ipn "$cl" neigh flush all; ipn "$sv" neigh flush all
	reachable
	rules DEVS="$1" WATCH="lan, wan" || return
	at "$sv" nft -f - <<-END
		table netdev own {
			counter other { }
			chain in {
				type filter hook ingress device eth0 priority 0;
				ether saddr != 02:00:00:00:01:30 meta l4proto { tcp, udp } counter name other
			}
		}
	END
	bypass_all $V4 $V6
	want_eq "frames from another MAC" "$(at "$sv" nft list counter netdev own other | awk '$1 == "packets" { print $2 }')" 0
	at "$sv" nft delete table netdev own
}
tcase -x "VLAN devices with MACs of their own"      own_mac "lan, wan"
tcase -x "VLAN devices with MACs of their own, all listed" own_mac "lan, wan, lan.q10, wan.q30"

foreign() { # a frame of the flow's addresses and ports on another VLAN is not part of it
	wire q10 - || return
	rules || return
	stream_start $V4 || return
	at "$cl" nft -f - <<-END || return
		table netdev other {
			chain out {
				type filter hook egress device eth0 priority 0;
				udp dport 6000 vlan id set 11
			}
		}
	END
	busywait 2000 not_flowing || fail "frames of VLAN 11 are forwarded"
	at "$cl" nft delete table netdev other
	busywait $((2000 * SLOW)) flowing || fail "traffic does not come back"
	stop "$SEND" "$SINK"
}
tcase "a flow's packets on another VLAN are not forwarded" foreign

setting() { # setting TAGS WAN-TAGS OPTION...
	wire "$@" || return
	rules WATCH="lan, wan" || return
	bypass_all $V4 $V6
}
tcase "reorder_hdr off"                          setting q10 q30 reorder_hdr off

no_vlan_offload() { # tags are put into the packet and taken out of it by the stack
	local d
	for d in "$cl eth0" "$rt lan" "$rt wan" "$sv eth0"; do
		offloads $d txvlan off rxvlan off tx-vlan-stag-hw-insert off rx-vlan-stag-hw-parse off || fail "ethtool -K $d"
	done
	tags "$@"
	for d in "$cl eth0" "$rt lan" "$rt wan" "$sv eth0"; do
		offloads $d txvlan on rxvlan on tx-vlan-stag-hw-insert on rx-vlan-stag-hw-parse on
	done
}
tcase "VLAN acceleration off"                    no_vlan_offload q10 q30
tcase "VLAN acceleration off, QinQ"              no_vlan_offload ad20.q10 ad40.q30

no_gso() { # everything in software, segment by segment
	local d
	wire q10 q30 || return
	for d in "$cl $CLTOP" "$rt $LAN" "$rt $WAN" "$sv $SVTOP"; do offloads $d tx off tso off gso off; done
	for d in "$cl eth0" "$rt lan" "$rt wan" "$sv eth0"; do offloads $d tx off tso off gso off gro on; done
	rules WATCH="lan, wan" NAT="$MASQ" || return
	bypass_all $V4 $V6
	for d in "$cl eth0" "$rt lan" "$rt wan" "$sv eth0"; do offloads $d tx on tso on gso on gro off; done
}
tcase "checksums and segments by the stack, GRO on" no_gso

# ---- priorities

# pcp_watch NS: counts UDP frames by their PCP; pcp_seen NS PCP, pcp_others NS PCP
pcp_watch() {
	local i
	{ echo "table netdev pcp {"
	for i in 0 1 2 3 4 5 6 7; do echo "counter p$i { }"; done
	echo "chain in { type filter hook ingress device eth0 priority 0;"
	for i in 0 1 2 3 4 5 6 7; do echo "vlan pcp $i meta l4proto udp counter name p$i"; done
	echo "}; }"; } >"$TMP/pcp"
	want_ok "pcp counters" at "$1" nft -f "$TMP/pcp"
}
pcp_seen() { at "$1" nft list counter netdev pcp "p$2" | awk '$1 == "packets" { print $2 }'; }
pcp_all() { at "$1" nft list counters table netdev pcp | awk '$1 == "packets" { n += $2 } END { print n }'; }
# pcp_is NS PCP: nearly all frames
pcp_is() {
	local all; all=$(pcp_all "$1")
	want_ge "frames with a tag" "$all" 50
	want_ge "of $all frames, with PCP $2" "$(pcp_seen "$1" "$2")" $((all - ${PCP_SLACK:-0}))
	at "$1" nft delete table netdev pcp
}
egress_map() { ipn "$1" link set "$2" type vlan egress-qos-map "${@:3}"; }

pcp_in() { # the two ends send with a priority; the router is not interested
	wire "$1" "$2" || return
	[ "$1" = - ] || egress_map "$cl" "$CLTOP" 0:5 || return
	[ "$2" = - ] || egress_map "$sv" "$SVTOP" 0:5
	rules WATCH="lan, wan" || return
	bypass_all $V4 $V6
}
tcase -x "PCP 5 on LAN"                          pcp_in q10 -
tcase -x "PCP 5 on both, QinQ"                   pcp_in ad20.q10 ad40.q30
tcase -x "PCP 5 on both, 802.1ad"                pcp_in ad20 ad40

pcp_out() { # pcp_out WHAT PCP: the way out has a mapping; all frames carry it, the fast ones too
	wire q10 q30 || return
	case $1 in
	zero)	egress_map "$rt" wan.q30 0:$2; egress_map "$rt" lan.q10 0:$2 ;;
	map)	egress_map "$cl" "$CLTOP" 0:3; egress_map "$sv" "$SVTOP" 0:3
		ipn "$rt" link set lan.q10 type vlan ingress-qos-map 3:6
		ipn "$rt" link set wan.q30 type vlan ingress-qos-map 3:6
		egress_map "$rt" wan.q30 6:$2; egress_map "$rt" lan.q10 6:$2
		at "$rt" sysctl -qw net.ipv4.ip_forward_update_priority=0 ;;
	rule)	egress_map "$rt" wan.q30 6:$2; egress_map "$rt" lan.q10 6:$2 ;;
	tos)	# 0x10, minimise delay, is TC_PRIO_INTERACTIVE, 6
		egress_map "$rt" wan.q30 6:$2; egress_map "$rt" lan.q10 6:$2
		at "$cl" nft -f - <<-END
			table inet tos {
				chain out {
					type filter hook output priority 0;
					ip dscp set 4
				}
			}
		END
		at "$sv" nft -f - <<-END ;;
			table inet tos {
				chain out {
					type filter hook output priority 0;
					ip dscp set 4
				}
			}
		END
	esac
	if [ "$1" = rule ]; then
		rules WATCH="lan, wan" FWD="meta priority set 0:6" || return
	else
		rules WATCH="lan, wan" || return
	fi
	pcp_watch "$sv"; pcp_watch "$cl"
	if [ "$1" = tos ]; then bypass_all $V4; else bypass_all $V4 $V6; fi
	pcp_is "$sv" "$2"; pcp_is "$cl" "$2"
	at "$cl" nft flush ruleset; at "$sv" nft flush ruleset
	at "$rt" sysctl -qw net.ipv4.ip_forward_update_priority=1
}
tcase -x "egress-qos-map 0:4"                             pcp_out zero 4
tcase -x "ingress-qos-map 3:6 and egress-qos-map 6:4"     pcp_out map 4
tcase -x "priority set by a forward rule, egress-qos-map" pcp_out rule 4
tcase -x "priority from the TOS field, egress-qos-map"    pcp_out tos 4

priority_tagged() { # VLAN 0: a priority and nothing else
	wire - - || return
	at "$cl" nft -f - <<-END
		table netdev prio {
			chain out {
				type filter hook egress device eth0 priority 0;
			}
		}
	END
	at "$cl" tc qdisc add dev eth0 clsact && at "$cl" tc filter add dev eth0 egress matchall action vlan push id 0 priority 5 ||
		{ skip "no tc vlan action"; return; }
	reachable
	rules || return
	bypass_all $V4 $V6
	at "$cl" tc qdisc del dev eth0 clsact
}
tcase -x "priority-tagged frames (VLAN 0, PCP 5)" priority_tagged

# ---- changes under traffic

renumbered() { # renumbered DEVS: WAN gets another VLAN id, on both ends
	wire q10 q30 || return
	rules DEVS="$1" WATCH="lan, wan" || return
	stream_start $V4 || return
	ipn "$rt" link del wan.q30
	not_flowing || fail "traffic passes without the VLAN device"
	ipn "$sv" link del eth0.q30
	{ stack eth0 q31; addr_lines "$TOP" 10.0.2.2/24 fd00:2::2/64 10.0.2.1 fd00:2::1; } | batch "$sv"
	ipn "$rt" link add link wan name wan.q30 mtu 1500 type vlan id 31
	addr "$rt" wan.q30 10.0.2.1/24 fd00:2::1/64
	busywait $((3000 * SLOW)) flowing || fail "traffic does not come back"
	[ "$FT" != ours ] || fast_now
	stream_end 5000
	bypass_all $V4 $V6
}
tcase "WAN's VLAN id changes, lower devices listed"  renumbered "lan, wan"
tcase -x "WAN's VLAN id changes, VLAN devices listed" renumbered "lan.q10, wan.q30"

down_up() { # the VLAN device goes down, not the one below
	wire q10 q30 || return
	rules || return
	stream_start "$1" || return
	ipn "$rt" link set "$2" down
	busywait $((3000 * SLOW)) not_flowing || fail "traffic passes with $2 down"
	ipn "$rt" link set "$2" up
	ipn "$rt" addr add fd00:1::1/64 dev lan.q10 nodad 2>/dev/null
	ipn "$rt" addr add fd00:2::1/64 dev wan.q30 nodad 2>/dev/null
	busywait $((5000 * SLOW)) flowing || fail "traffic does not come back"
	fast_now
	stream_end 9000
}
tcase "the WAN's VLAN device goes down and up"      down_up $V4 wan.q30
tcase -x "the LAN's VLAN device goes down and up"   down_up $V4 lan.q10

moved() { # the LAN's client comes back in another VLAN
	wire q10 - || return
	stack lan q11 | batch "$rt"
	rules || return
	stream_start $V4 || return
	ipn "$rt" addr del 10.0.1.1/24 dev lan.q10
	ipn "$rt" addr add 10.0.1.1/24 dev lan.q11
	ipn "$cl" link del eth0.q10
	{ stack eth0 q11; addr_lines "$TOP" 10.0.1.2/24 fd00:1::2/64 10.0.1.1 fd00:1::1; } | batch "$cl"
	busywait $((3000 * SLOW)) flowing || fail "traffic does not come back"
	[ "$FT" != ours ] || fast_now
	stream_end 5000
}
tcase "the LAN's client moves to another VLAN"      moved

SETUP=setup
run_cases "$@"
