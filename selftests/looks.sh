#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Packets of one connection that rules treat differently: by their DSCP, by the mark or the
# priority that they come in with, by a connection mark that changes. What leaves is counted
# at the egress hook and has to be what the same rules give without a flowtable, to the packet.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2
#                                    wan.5 10.0.5.1 ---- eth0.5 10.0.5.2
#                                          fd00:5::1          fd00:5::2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2 VLAN4=10.0.5.2 VLAN6=fd00:5::2
N=100 # datagrams of each kind
EF=184 AF41=136 CS1=32
DSCP=/sys/module/nft_offload/parameters/dscp

setup() {
	lan_wan || return
	printf '%s\n' "link add link wan name wan.5 type vlan id 5" | batch "$rt"
	printf '%s\n' "link add link eth0 name eth0.5 type vlan id 5" | batch "$sv"
	addr "$rt" wan.5 10.0.5.1/24 fd00:5::1/64
	addr "$sv" eth0.5 10.0.5.2/24 fd00:5::2/64
	busywait 5000 at "$cl" ping -c1 -W1 -q $VLAN4 && busywait 5000 at "$cl" ping -c1 -W1 -q $VLAN6 || { fail "VLAN"; return 1; }
	serve "$sv"
}

# classes [ING=STATEMENTS] [FWD=...] [POST=...]: rules before the flowtable at lan's ingress, in the forward chain
# and in postrouting; and what leaves by wan or lan is counted by mark and priority.
classes() {
	local ING='' FWD='' POST='' a dev
	for a in "$@"; do local "$a"; done
	rules DEVS="${DEVS:-lan, wan}" WATCH="lan, wan" FWD="$FWD" NAT="${POST:+chain post { type filter hook postrouting priority 0; $POST \}}" || return
	[ -z "$ING" ] || want_ok "chain before the flowtable" nft_rt -f - <<-END
		table netdev before {
			chain in {
				type filter hook ingress device ${ING_DEV:-lan} priority -5;
				$ING
			}
		}
	END
	{
		for dev in lan wan; do
			cat <<-END
			table netdev $dev {
				counter m11 { }
				counter m22 { }
				counter m0 { }
				counter p11 { }
				counter p12 { }
				counter p0 { }
				counter every { }
				chain count {
					counter name every
					meta mark 0x11 counter name m11
					meta mark 0x22 counter name m22
					meta mark 0 counter name m0
					meta priority 0x10001 counter name p11
					meta priority 0x10002 counter name p12
					meta priority 0 counter name p0
				}
				chain out {
					type filter hook egress device $dev priority 0;
					th dport { 5000, 6000 } jump count
					th sport { 5000, 6000 } jump count
				}
			}
			END
		done
	} >"$TMP/tally"
	want_ok "counters" nft_rt -f "$TMP/tally"
}
# left DEV NAME: packets so far
left() { nft_rt list counter netdev "$1" "$2" | awk '$1 == "packets" { print $2 }'; }

# counted DEV NAME=NUMBER... -- CMD...: while CMD runs exactly so many leave
counted() {
	local dev=$1 want=() i a
	declare -A was=()
	shift
	while [ "$1" != -- ]; do
		want+=("$1") was[${1%=*}]=$(left "$dev" "${1%=*}")
		shift
	done
	shift
	"$@"
	for i in "${want[@]}"; do
		a=${i%=*}
		want_eq "packets with $a that left by $dev" $(($(left "$dev" "$a") - was[$a])) "${i#*=}"
	done
	[ $RET = 0 ] || { nft_rt list table netdev "$dev" | grep -A1 'counter.*{' | grep -v '^--' | paste - - | tr -s '\t ' ' ' | sed 's/^/# /'; }
}
# as TOS: N datagrams and their answers
as() { conv_ok x tos "$1"; conv_ok x echo $N 300; }
by_turns() { conv_ok x turns $((2 * N)) 300 0 $EF; }
# udp ADDRESS: a conversation x that is fast already
udp() {
	conv_open x "$cl" udp "$1" 5000 || return
	conv_ok x echo 5
	busywait 2000 offloaded_line udp 5000 || { fail "not [OFFLOAD]: $(ct_list -p udp)"; return 1; }
	conv_ok x echo 3
	counters_zero
}
# two ADDRESS PLAIN EF: N datagrams with DSCP 0 count as PLAIN, N with EF as EF, one after the other and by turns
two() {
	udp "$1" || return
	counted wan "$2=$N" every=$N -- as 0
	counted wan "$3=$N" every=$N -- as $EF
	counted wan "$2=$N" "$3=$N" every=$((2 * N)) -- by_turns
	counters
	want_le "of $((8 * N)) packets, seen by the forward chain" "$FORWARDED" 8
	conv_close x
}
ef4() { echo "$1; ip dscp ef $2;"; }
ef6() { echo "$1; ip6 dscp ef $2;"; }

at_ingress() { classes ING="$2" && two "$1" m22 m11; }
tcase    "IPv4: marks by DSCP from a chain before the flowtable" at_ingress $V4 "$(ef4 'meta mark set 0x22' 'meta mark set 0x11')"
tcase    "IPv6: marks by DSCP from a chain before the flowtable" at_ingress $V6 "$(ef6 'meta mark set 0x22' 'meta mark set 0x11')"
tcase    "IPv4: a mark for one DSCP from a chain before the flowtable" eval 'classes ING="ip dscp ef meta mark set 0x11;" && two $V4 m0 m11'
in_forward() { classes FWD="$2" && two "$1" m22 m11; }
tcase -x "IPv4: marks by DSCP in the forward chain" in_forward $V4 "$(ef4 'meta mark set 0x22' 'meta mark set 0x11')"
tcase -x "IPv6: marks by DSCP in the forward chain" in_forward $V6 "$(ef6 'meta mark set 0x22' 'meta mark set 0x11')"
tcase -x "IPv4: marks by a map of DSCPs"            in_forward $V4 "meta mark set ip dscp map { 0 : 0x22, ef : 0x11 };"
in_post() { classes POST="$2" && two "$1" p12 p11; }
tcase -x "IPv4: classes by DSCP in postrouting"     in_post $V4 "$(ef4 'meta priority set 0x10002' 'meta priority set 0x10001')"
tcase -x "IPv6: classes by DSCP in postrouting"     in_post $V6 "$(ef6 'meta priority set 0x10002' 'meta priority set 0x10001')"

taken_away() { # what came in with a mark leaves without one; the other way round, it stays
	classes ING="$(ef4 'meta mark set 0x22' 'meta mark set 0x11')" FWD="meta mark 0x11 meta mark set 0;" && two $V4 m22 m0
}
tcase "IPv4: one of two marks is taken away in the forward chain" taken_away
answers() { # the server's answers have EF where they are long
	classes FWD="iifname wan meta mark set 0x22; iifname wan udp length 308 $2 dscp ef meta mark set 0x11;" || return
	want_ok "EF" at "$sv" nft -f - <<-END
		table inet ef {
			chain out {
				type filter hook output priority 0;
				udp sport 5000 udp length 308 $2 dscp set ef
			}
		}
	END
	udp "$1" || return
	counted lan m22=$N m11=0 -- conv_ok x echo $N 200
	counted lan m11=$N m22=0 -- conv_ok x echo $N 300
	counted lan m22=$N m11=0 -- conv_ok x echo $N 200
	counters
	want_le "of $((6 * N)) packets, seen by the forward chain" "$FORWARDED" 6
	at "$sv" nft delete table inet ef
	conv_close x
}
tcase -x "IPv4: marks by DSCP for answers" answers $V4 ip
tcase -x "IPv6: marks by DSCP for answers" answers $V6 ip6

tcp() { # a connection whose DSCP changes
	classes FWD="$(ef4 'meta mark set 0x22' 'meta mark set 0x11')" || return
	conv_open x "$cl" tcp $V4 5000 || return
	conv_ok x echo 100000
	busywait 2000 offloaded_line tcp 5000 || { fail "not [OFFLOAD]"; return 1; }
	counters_zero
	counted wan m11=0 -- conv_ok x echo 300000
	conv_ok x tos $EF
	conv_ok x echo 1 # what is still on its way
	counted wan m22=0 -- conv_ok x echo 300000
	counters
	want_le "bytes seen by the forward chain" "$FORWARDED_BYTES" 400000
	conv_close x
}
tcase -x "TCP: marks by DSCP in the forward chain" tcp

dropped() { # packets with one DSCP
	classes FWD="ip dscp ef drop; ip dscp cs1 accept;" || return
	udp $V4 || return
	conv_ok x tos $EF
	counted wan every=0 -- conv_ok x send 50 300
	counted wan every=$N -- as 0
	counters
	want_le "of $((2 * N + 50)) packets, seen by the forward chain" "$FORWARDED" 60
	# what does not come to the rule is not for the flowtable, and nothing is lost of it
	counters_zero
	counted wan every=$N -- as $CS1
	counters
	want_ge "of $((2 * N)) packets, accepted before the rule" "$FORWARDED" $N
	counters_zero
	counted wan every=$N -- as 0
	counters
	want_le "of $((2 * N)) packets, seen by the forward chain" "$FORWARDED" 6
	conv_close x
}
tcase -x "one DSCP is dropped, another accepted before the rule" dropped

many() { # more answers than there is room for: some are slow, all are right
	local i n=0
	classes FWD="meta mark set ip dscp map { 0 : 1, cs1 : 2, cs2 : 3, cs3 : 4, cs4 : 0x11, cs5 : 0x22 };" || return
	udp $V4 || return
	for i in 0 32 64 96; do conv_ok x tos $i; conv_ok x echo 10; done
	counted wan m11=$N m22=$N -- conv_ok x turns $((2 * N)) 300 128 160
	want_ge "reason for that, times" "$(stat_get miss.many_looks)" 1
	counters_zero
	counted wan every=$N -- as 64
	counters
	want_le "of $((2 * N)) packets with one of the first answers, seen by the forward chain" "$FORWARDED" 4
	conv_close x
}
tcase -o "six answers by DSCP" many
shared() { # all 64 DSCPs have the same answer: each is asked about once
	local i all=()
	for ((i = 0; i < 256; i += 4)); do all+=("$i"); done
	classes FWD="iifname lan meta mark set 0x11;" || return
	udp $V4 || return
	conv_ok x turns 64 100 "${all[@]}"
	counters_zero
	counted wan m11=128 -- conv_ok x turns 128 100 "${all[@]}"
	counters
	want_le "of 256 packets, seen by the forward chain" "$FORWARDED" 4
	conv_close x
}
tcase -x "all DSCPs, one answer" shared

# ---- batches

batches() { # datagrams of two kinds in one batch, while the ruleset changes
	local i
	if [ "$FT" = ours ]; then echo restore >$DSCP || fail "cannot set $DSCP"; fi
	# what a discipline has held back comes at once, and NAPI hands it over in lists
	offloads "$rt" lan gro on
	at "$cl" tc qdisc add dev eth0 root netem slot 20ms limit 1000 2>"$TMP/out" || { skip "no netem: $(tail -n1 "$TMP/out")"; return; }
	classes || return
	at "$sv" nft -f - <<-END
	table inet ds {
		counter ef { }
		counter af41 { }
		counter every { }
		chain in {
			type filter hook input priority 0;
			udp dport 6000 counter name every
			udp dport 6000 ip dscp ef counter name ef
			udp dport 6000 ip dscp af41 counter name af41
		}
	}
	END
	bg "$sv" "${PY[@]}" streams sink --port 6000 --ready "$TMP/sink.ready" --out "$TMP/sink.json"
	SINK=$!
	busywait $((9000 * SLOW)) test -e "$TMP/sink.ready" || fail "no sink"
	conv_open x "$cl" udp $V4 6000 || return
	conv_ok x send 10
	busywait 2000 streaming || fail "not [OFFLOAD]"
	for i in 1 2 3 4 5 6 7 8 9 10; do
		want_ok "unrelated change" nft_rt add table inet "other$i"
		conv_ok x volley 40 100 $EF $AF41
	done
	busywait $((2000 * SLOW)) arrived_all 410
	want_eq "datagrams with EF" "$(ds ef)" 200
	want_eq "datagrams with AF41" "$(ds af41)" 200
	counters_zero
	conv_ok x volley 100 100 $EF $AF41
	busywait $((2000 * SLOW)) arrived_all 510
	counters
	want_le "of 100 packets, seen by the forward chain" "$FORWARDED" 16
	at "$sv" nft delete table inet ds
	offloads "$rt" lan gro off
	at "$cl" tc qdisc del dev eth0 root
	conv_close x
	stop "$SINK"
	[ "$FT" != ours ] || echo keep >$DSCP
}
ds() { at "$sv" nft list counter inet ds "$1" | awk '$1 == "packets" { print $2 }'; }
arrived_all() { [ "$(ds every)" -ge "$1" ]; }
tcase "batches of two DSCPs, a commit before each, dscp=restore" batches

# ---- what packets come in with

came_with() { # came_with ADDRESS NAME ARG...: all packets leave with NAME
	classes "${@:3}" || return
	udp "$1" || return
	counted wan "$2=$N" every=$N -- as 0
	counters
	want_le "of $((2 * N)) packets, seen by the forward chain" "$FORWARDED" 4
	conv_close x
}
tcase -x "IPv4: forwarding replaces a priority from ingress"        came_with $V4 p0 ING="meta priority set 0x10001;"
tcase    "IPv6: forwarding leaves a priority from ingress"          came_with $V6 p11 ING="meta priority set 0x10001;"
tcase -x "IPv4: a mark from ingress is taken away in the forward chain" came_with $V4 m0 ING="meta mark set 0x22;" FWD="meta mark set 0;"
tcase    "IPv4: a mark from ingress stays"                          came_with $V4 m22 ING="meta mark set 0x22;"
no_update() {
	at "$rt" sysctl -qw net.ipv4.ip_forward_update_priority=0
	came_with $V4 p11 ING="meta priority set 0x10001;"
	at "$rt" sysctl -qw net.ipv4.ip_forward_update_priority=1
}
tcase    "ip_forward_update_priority=0: a priority from ingress stays" no_update

answers_by() { printf 'route replace 10.0.1.0/24 via 10.0.5.1\nroute replace fd00:1::/64 via fd00:5::1\n' | batch "$sv" >/dev/null 2>&1; }
answers_back() { printf 'route del 10.0.1.0/24\nroute del fd00:1::/64\n' | batch "$sv" >/dev/null 2>&1; }
# pcp ADDRESS LONG SHORT DEVS ARG...: answers come in by wan.5, long ones with PCP 3; they leave as LONG and SHORT
pcp() {
	answers_by
	DEVS=$4 ING_DEV=wan classes "${@:5}" || return
	ipn "$sv" link set eth0.5 type vlan egress-qos-map 3:3
	want_ok "priority" at "$sv" nft -f - <<-END
		table inet pcp {
			chain out {
				type filter hook output priority 0;
				udp sport 5000 udp length 308 meta priority set 3
			}
		}
	END
	udp "$1" || return
	counted lan "$2=$N" every=$N -- conv_ok x echo $N 300
	counted lan "$3=$N" every=$N -- conv_ok x echo $N 200
	counted lan "$2=$N" every=$N -- conv_ok x echo $N 300
	counters
	want_le "of $((6 * N)) packets, seen by the forward chain" "$FORWARDED" 8
	at "$sv" nft delete table inet pcp
	ipn "$sv" link set eth0.5 type vlan egress-qos-map 3:0
	conv_close x
	answers_back
}
MARKS="vlan pcp 3 meta mark set 0x11; vlan pcp 0 meta mark set 0x22;"
tcase "IPv4: marks by PCP from a chain before the flowtable" pcp $VLAN4 m11 m22 "lan, wan" ING="$MARKS"
tcase "IPv6: marks by PCP from a chain before the flowtable" pcp $VLAN6 m11 m22 "lan, wan" ING="$MARKS"
qos_map() { # PCP 3 is priority 0x10001
	ipn "$rt" link set wan.5 type vlan ingress-qos-map 3:65537
	pcp "$@"
	ipn "$rt" link set wan.5 type vlan ingress-qos-map 3:0
}
tcase -x "IPv4: ingress-qos-map, forwarding replaces the priority"  qos_map $VLAN4 p0 p0 "lan, wan.5"
tcase -x "IPv4: ingress-qos-map, the port is listed"                qos_map $VLAN4 p0 p0 "lan, wan"
tcase    "IPv6: ingress-qos-map, the VLAN device is listed"         qos_map $VLAN6 p11 p0 "lan, wan.5"
tcase -x "IPv6: ingress-qos-map, the port is listed"                qos_map $VLAN6 p11 p0 "lan, wan"

# ---- the connection's mark and labels

all_have() { # all_have DEV NAME: whatever is sent now leaves so
	local a b
	a=$(left "$1" "$2") b=$(left "$1" every)
	conv_ok x echo 5
	[ $(($(left "$1" "$2") - a)) = 5 ] && [ $(($(left "$1" every) - b)) = 5 ]
}
remarked() { # remarked DEV ADDRESS
	classes FWD="ct mark 0 ct mark set 0x22;" POST="meta mark set ct mark;" || return
	udp "$2" || return
	counted "$1" m22=$N -- as 0
	want_ok "new mark" at "$rt" conntrack -U -p udp -f "$3" --orig-port-dst 5000 --mark 0x11
	busywait 2500 all_have "$1" m11 || fail "the new mark is not used"
	counters_zero
	counted "$1" m11=$N -- as 0
	counters
	want_le "of $((2 * N)) packets, seen by the forward chain" "$FORWARDED" 4
	conv_close x
}
tcase -x "IPv4: the connection gets another mark"              remarked wan $V4 ipv4
tcase -x "IPv6: the connection gets another mark"              remarked wan $V6 ipv6
tcase -x "IPv4: the connection gets another mark, its answers" remarked lan $V4 ipv4
still() { # and if nothing changes nothing is asked
	classes FWD="ct mark 0 ct mark set 0x22;" POST="meta mark set ct mark;" || return
	udp $V4 || return
	sleep 2.5
	counted wan m22=$N -- as 0
	counters
	want_le "packets in the forward chain" "$FORWARDED" 2
	conv_close x
}
tcase -x "a connection mark that stays as it is" still
remarked_drop() { # the new mark is one that is dropped
	classes FWD="ct mark 0x11 drop;" || return
	udp $V4 || return
	want_ok "new mark" at "$rt" conntrack -U -p udp --orig-port-dst 5000 --mark 0x11
	sleep 2
	counted wan every=0 -- conv_ok x send $N
	conv_close x
}
tcase -x "a connection mark that is dropped" remarked_drop
labels() {
	mkdir -p "$TMP/xtables" && echo "1 other" >"$TMP/xtables/connlabel.conf"
	# the name of a label is in a file of the machine: not for others to see
	local label=(unshare -m sh -c "mkdir -p /etc/xtables && mount --bind $TMP/xtables /etc/xtables && \"\$@\"" label)
	classes FWD="ct label 1 meta mark set 0x11;" || { skip "no connection labels"; return; }
	udp $V4 || return
	counted wan m0=$N -- as 0
	want_ok "new label" at "$rt" "${label[@]}" conntrack -U -p udp --orig-port-dst 5000 --label-add other
	busywait 2500 all_have wan m11 || fail "the new label is not seen"
	conv_close x
}
tcase -x "the connection gets another label" labels

SETUP=setup run_cases "$@"
