#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Protocols other than TCP and UDP between hosts: SCTP, ICMP echo, and IPv6 destination
# options before the transport header. Each one fast, with and without NAT, its payload
# compared, and its conntrack entry given back right.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

C4=10.0.1.2 C6=fd00:1::2 V4=10.0.2.2 V6=fd00:2::2
post() { echo "chain post { type nat hook postrouting priority 100; oifname wan $*; };"; }
MASQ=$(post masquerade)
DNAT="chain pre { type nat hook prerouting priority -100; meta l4proto sctp th dport 8080 dnat ip to 10.0.2.2:5000; meta l4proto sctp th dport 8081 dnat ip6 to [fd00:2::2]:5000; };"

# ---- SCTP

HAVE_SCTP=
have_sctp() { [ -n "$HAVE_SCTP" ] || skip "no SCTP"; }
sctp() { # sctp NAT ADDRESS [PORT [DEVICE-FEATURES]]
	local d src=$C4
	have_sctp || return
	[[ $2 != *:* ]] || src=$C6
	for d in "$cl eth0" "$rt lan" "$rt wan" "$sv eth0"; do
		[ -z "${4:-}" ] || offloads $d $4 || fail "ethtool -K $d $4"
	done
	rules L4=sctp NAT="$1" || return
	bypass sctp "$2" "${3:-5000}" -- --bind $src
	for d in "$cl eth0" "$rt lan" "$rt wan" "$sv eth0"; do
		[ -z "${4:-}" ] || offloads $d tx on gso on
	done
}
ports() { # ports TO: to this address and other ports
	post "meta l4proto sctp snat $1:40000-41000"
}
for v in 4 6; do
	a=$V4 ip=ip to=10.0.2.1 alias=10.0.1.1 port=8080
	[ $v = 4 ] || a=$V6 ip=ip6 to="[fd00:2::1]" alias=fd00:1::1 port=8081
	tcase -x "SCTP IPv$v, routed"                      sctp "" $a
	tcase -x "SCTP IPv$v, masquerade"                  sctp "$MASQ" $a
	tcase -x "SCTP IPv$v, SNAT to other ports"         sctp "$(ports "$ip to $to")" $a
	tcase -x "SCTP IPv$v, SNAT to other ports, checksums done by the stack" sctp "$(ports "$ip to $to")" $a 5000 "tx off gso off"
	tcase -x "SCTP IPv$v, DNAT and masquerade"         sctp "$DNAT $MASQ" $alias $port
	tcase -x "SCTP IPv$v, DNAT and masquerade, checksums done by the stack" sctp "$DNAT $MASQ" $alias $port "tx off gso off"
done

sctp_end() { # sctp_end shut|rst ADDRESS SOURCE: conntrack sees the end, the flow leaves
	have_sctp || return
	rules L4=sctp NAT="$MASQ" || return
	conv_open x "$cl" sctp "$2" 5000 --bind "$3" || return
	conv_ok x echo 50000
	ct_of_offloaded 132 || fail "not offloaded: $(ct_of 132)"
	conv_ok x "$1"
	busywait $((5000 * SLOW)) sctp_closed || fail "after the end: $(ct_of 132)"
	want_le "timeout of the closed entry" "$(ct_of 132 | awk '{ n = $3; exit } END { print n + 0 }')" 10
	conv_close x
}
sctp_closed() { ! ct_of_offloaded 132 && { ! ct_of 132 | grep -q . || ct_of 132 | grep -qE ' (CLOSED|SHUTDOWN_[A-Z_]*) '; }; }
tcase -x "SCTP IPv4, SHUTDOWN is seen by conntrack" sctp_end close $V4 $C4
tcase -x "SCTP IPv6, SHUTDOWN is seen by conntrack" sctp_end close $V6 $C6
tcase -x "SCTP IPv4, ABORT is seen by conntrack"    sctp_end rst $V4 $C4

sctp_idle() { # the timeout of an established association; then it goes on
	have_sctp || return
	rules L4=sctp NAT="$MASQ" || return
	conv_open x "$cl" sctp $V4 5000 --bind $C4 || return
	conv_ok x echo 50000
	ct_of_offloaded 132 || fail "not offloaded: $(ct_of 132)"
	ct_left 132 185 210
	ct_of 132 | grep -q ESTABLISHED || fail "not ESTABLISHED: $(ct_of 132)"
	conv_ok x echo 50000
	ct_of_offloaded 132 || fail "not offloaded again: $(ct_of 132)"
	conv_close x
}
tcase -x "SCTP, idle: keeps the timeout of an association" sctp_idle

sctp_policy() { # established
	have_sctp || return
	rules FAM=ip L4=sctp && timeout_policy 132 4=70 || return
	conv_open x "$cl" sctp $V4 5000 --bind $C4 || return
	conv_ok x echo 50000
	ct_of_offloaded 132 || fail "not offloaded: $(ct_of 132)"
	ct_left 132 50 70
	conv_close x
}
tcase -x "SCTP, idle: keeps the timeout of a policy" sctp_policy

# Both ends have two addresses. When the path that is in use stops to work, data goes
# the other one, which only heartbeats have gone so far.
sctp_multihomed() {
	local n pid before
	have_sctp || return
	printf '%s\n' "addr add 10.9.1.3/32 dev eth0" "route add 10.0.2.3 via 10.0.1.1 src 10.9.1.3" | batch "$cl"
	printf '%s\n' "addr add 10.0.2.3/24 dev eth0" "route add 10.9.1.3 via 10.0.2.1 src 10.0.2.3" | batch "$sv"
	ipn "$rt" route add 10.9.1.3 dev lan
	for n in "$cl" "$sv"; do
		at "$n" sysctl -qw net.sctp.hb_interval=300 net.sctp.rto_min=100 net.sctp.rto_initial=200 \
			net.sctp.rto_max=400 net.sctp.path_max_retrans=1 net.sctp.addr_scope_policy=1
	done
	rules L4=sctp || return
	serve "$sv" 5001 --sctp 0.0.0.0 || return
	pid=$!
	conv_open x "$cl" sctp $V4 5001 --bind 0.0.0.0 || return
	conv_ok x echo 100000
	ct_of_offloaded 132 || fail "not offloaded: $(ct_of 132)"
	before=$(stat_get miss.sctp_chunk)
	busywait $((5000 * SLOW)) heartbeats || fail "no second path: $(ct_of 132)"
	nft_rt add table netdev cut
	nft_rt add chain netdev cut in '{ type filter hook ingress devices = { lan, wan } priority -500; }'
	nft_rt add rule netdev cut in 'ip daddr { 10.0.2.2, 10.0.1.2 }' drop
	conv_ok x echo 400000
	counters_zero
	conv_ok x echo 1000000
	counters
	bypass_numbers "$ARRIVED" "$FORWARDED" "$(fast)"
	ct_of 132 | grep 'dst=10.0.2.3' | grep -q '\[OFFLOAD\]' || fail "second path is not offloaded: $(ct_of 132)"
	[ "$FT" != ours ] || want_ge "packets with heartbeats, left to conntrack" $(($(stat_get miss.sctp_chunk) - before)) 1
	nft_rt delete table netdev cut
	conv_close x
	stop "$pid"
	printf '%s\n' "addr del 10.9.1.3/32 dev eth0" "route del 10.0.2.3" | batch "$cl" 2>/dev/null
	printf '%s\n' "addr del 10.0.2.3/24 dev eth0" "route del 10.9.1.3" | batch "$sv" 2>/dev/null
	ipn "$rt" route del 10.9.1.3
}
heartbeats() { ct_of 132 | grep "dst=10.0.2.3" | grep -qE "ESTABLISHED|OFFLOAD"; }
tcase -x "SCTP, data moves to a path that only heartbeats used" sctp_multihomed

# ---- ICMP echo

echoes() { # echoes NAT ADDRESS [ID]: ping compares what comes back; ID: a new identifier
	local out
	rules L4="icmp, ipv6-icmp" NAT="$1" || return
	counters_zero
	out=$(at "$cl" ping -q -c 200 -i 0.002 -s 1000 -W 5 "$2" 2>&1)
	grep -q ' 200 received' <<<"$out" || fail "ping: $out"
	! grep -qi 'wrong' <<<"$out" || fail "payload differs: $out"
	ct_of "$(icmp "$2")" | grep "dst=$2" | grep -q '\[OFFLOAD\]' || fail "no [OFFLOAD] in: $(ct_of "$(icmp "$2")")"
	counters
	bypass_numbers "$ARRIVED" "$FORWARDED" "$(fast)"
	[ -z "${3:-}" ] || [ "$(ct_of "$(icmp "$2")" | grep "dst=$2" | head -n1 | grep -o ' id=[0-9]*' | sort -u | wc -l)" = 2 ] ||
		fail "the identifier was not translated: $(ct_of "$(icmp "$2")")"
}
icmp() { case $1 in *:*) echo 58 ;; *) echo 1 ;; esac; }
for v in 4 6; do
	a=$V4; [ $v = 4 ] || a=$V6
	tcase -x "ICMP echo, IPv$v, routed"                 SLACK=12 echoes "" $a
	tcase -x "ICMP echo, IPv$v, masquerade"             SLACK=12 echoes "$MASQ" $a
	tcase -x "ICMP echo, IPv$v, another identifier"     SLACK=12 echoes "$(post masquerade fully-random)" $a id
done

echo_idle() {
	ct_set nf_conntrack_icmp"$2"_timeout=90
	rules L4="icmp, ipv6-icmp" || return
	at "$cl" ping -q -c 20 -i 0.01 -W 5 "$3" >/dev/null || fail "ping"
	ct_of_offloaded "$1" || fail "not offloaded: $(ct_of "$1")"
	ct_left "$1" 70 90
	ct_set nf_conntrack_icmp"$2"_timeout=30
}
tcase -x "ICMP echo, IPv4, idle: keeps its timeout" echo_idle 1 "" $V4
tcase -x "ICMP echo, IPv6, idle: keeps its timeout" echo_idle 58 v6 $V6

echo_policy() {
	rules FAM=ip L4=icmp && timeout_policy 1 1=80 || return
	at "$cl" ping -q -c 20 -i 0.01 -W 5 $V4 >/dev/null || fail "ping"
	ct_of_offloaded 1 || fail "not offloaded: $(ct_of 1)"
	ct_left 1 60 80
}
tcase -x "ICMP echo, IPv4, idle: keeps the timeout of a policy" echo_policy

echo_only() { # other messages of the protocol never go the fast way
	local before
	rules L4="icmp, ipv6-icmp, udp" || return
	# errors belong to the flow that they are about
	conv_open x "$cl" udp $V4 5999 --recverr || return
	conv_cmd x echo 1 >/dev/null
	conv_cmd x echo 1 >/dev/null
	conv_close x
	want_eq "ICMP flows" "$(ct_of 1 | grep -c OFFLOAD)" 0
	before=$(stat_get miss.icmp_type)
	at "$cl" python3 - <<-END || fail "no answer"
	import socket, struct
	s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
	s.settimeout(5)
	def csum(d):
	    n = sum(struct.unpack("!%dH" % (len(d) // 2), d))
	    while n >> 16: n = (n & 0xffff) + (n >> 16)
	    return ~n & 0xffff
	for i in range(20):
	    m = struct.pack("!BBHHHIII", 13, 0, 0, 77, i, 1, 0, 0)
	    s.sendto(m[:2] + struct.pack("!H", csum(m)) + m[4:], ("$V4", 0))
	    while s.recv(2000)[20] != 14: pass
	END
	! ct_of 1 | grep -q OFFLOAD || fail "offloaded: $(ct_of 1)"
	[ "$FT" != ours ] || want_ge "counted as miss.icmp_type" $(($(stat_get miss.icmp_type) - before)) 30
}
tcase "ICMP errors and timestamps are left to conntrack" echo_only

# ---- IPv6 destination options

options() { # options PROTO: before the transport header of every packet that cl sends
	rules NAT="${2:-}" || return
	conv_open x "$cl" "$1" $V6 || return
	conv_ok x dstopts 1
	conv_ok x echo 20
	counters_zero
	if [ "$1" = tcp ]; then conv_ok x echo 500000; else conv_ok x echo 200 1000; fi
	offloaded_line "$1" 5000 || fail "no [OFFLOAD] in: $(ct_list -p "$1")"
	counters
	bypass_numbers "$ARRIVED" "$FORWARDED" "$(fast)"
	# and without them again
	conv_ok x dstopts 0
	counters_zero
	conv_ok x echo 20
	counters
	want_le "packets ct_of $ARRIVED without options, seen by the forward chain" "$FORWARDED" 4
	conv_close x
}
tcase -x "destination options before UDP"               options udp
tcase -x "destination options before TCP"               options tcp
tcase -x "destination options before UDP, masquerade"   options udp "$MASQ"
tcase -x "destination options before TCP, masquerade"   options tcp "$MASQ"

forbidden() { # a rule that drops them goes on doing so when the flow is fast
	rules FWD="exthdr dst exists drop;" || return
	conv_open x "$cl" udp $V6 5000 --timeout 2 || return
	conv_ok x echo 20
	offloaded_line udp 5000 || fail "not offloaded"
	conv_ok x dstopts 1
	! conv_cmd x echo 1 >/dev/null || fail "a packet with options came through"
	conv_ok x dstopts 0
	conv_ok x drain
	conv_ok x echo 20
	# allowed by a new ruleset, and forbidden again
	want_ok "new rules" nft_rt flush chain inet t forward
	want_ok "new rules" nft_rt add rule inet t forward 'meta l4proto { tcp, udp } flow add @f'
	conv_ok x dstopts 1
	conv_ok x echo 20
	counters_zero
	conv_ok x echo 20
	counters
	[ "$FT" = intree ] || want_le "packets ct_of $ARRIVED, seen by the forward chain" "$FORWARDED" 4
	want_ok "new rules" nft_rt insert rule inet t forward exthdr dst exists drop
	! conv_cmd x echo 1 >/dev/null || fail "a packet with options came through the new ruleset"
	conv_ok x dstopts 0
	conv_ok x drain
	conv_ok x echo 5
	conv_ok x dstopts 1
	! conv_cmd x echo 1 >/dev/null || fail "a packet with options came through after others did"
	conv_close x
}
tcase "destination options that a rule drops stay dropped" forbidden

setup() {
	lan_wan || return
	if modprobe sctp 2>/dev/null; then
		HAVE_SCTP=1
		serve "$sv" 5000 --sctp $V4 --sctp $V6
	else
		serve "$sv"
	fi
}
SETUP=setup
run_cases "$@"
