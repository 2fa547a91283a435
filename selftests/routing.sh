#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Policy routing: where packets of a connection go may depend on marks, on what came before NAT,
# and on the direction. No packet leaves by another way than without a flowtable.
#
#      cl                       rt                           sv
#   eth0 10.0.1.2 ---- lan  10.0.1.1  wan  10.0.2.1 ---- eth0 10.0.2.2
#   eth1 10.0.6.2 ---- lan2 10.0.6.1  wan2 10.0.4.1 ---- eth1 10.0.4.2
#        fd00:1::2          fd00:1::1      fd00:2::1     mv0  10.0.2.3, on eth0
#        fd00:6::2          fd00:6::1      fd00:4::1     lo   10.9.9.9, fd00:9::9

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.9.9.9 V6=fd00:9::9
MASQ="chain post { type nat hook postrouting priority 100; oifname { wan, wan2 } masquerade; };"

setup() {
	local n
	lan_wan || return
	ip link add lan2 netns "$rt" type veth peer name eth1 netns "$cl" &&
	ip link add wan2 netns "$rt" type veth peer name eth1 netns "$sv" || { fail "veth"; return 1; }
	addr "$rt" lan2 10.0.6.1/24 fd00:6::1/64
	addr "$rt" wan2 10.0.4.1/24 fd00:4::1/64
	addr "$cl" eth1 10.0.6.2/24 fd00:6::2/64
	addr "$sv" eth1 10.0.4.2/24 fd00:4::2/64
	# its datagrams have these addresses whomever they are for
	printf '%s\n' "addr add $V4/32 dev lo" "addr add $V6/128 dev lo nodad" \
		"route add 10.0.2.1 dev eth0 src $V4" "route add 10.0.4.1 dev eth1 src $V4" | batch "$sv"
	printf '%s\n' "route add $V4 via 10.0.2.2" "route add $V6 via fd00:2::2" | batch "$rt"
	for n in all lan lan2 wan wan2; do at "$rt" sysctl -qw "net/ipv4/conf/$n/rp_filter=0"; done
	for n in all eth0 eth1; do at "$cl" sysctl -qw "net/ipv4/conf/$n/rp_filter=0"; at "$sv" sysctl -qw "net/ipv4/conf/$n/rp_filter=0"; done
	answers_by eth1
	# what comes in where, on both sides
	for n in "$cl" "$sv"; do
		at "$n" nft -f - <<-END
		table netdev seen {
			counter eth0 { }
			counter eth1 { }
			chain a {
				type filter hook ingress device eth0 priority 0;
				meta l4proto { tcp, udp } meta ipsec missing counter name eth0
			}
			chain b {
				type filter hook ingress device eth1 priority 0;
				meta l4proto { tcp, udp } counter name eth1
			}
		}
		END
	done
	serve "$sv"
}
# answers_by DEV: the server's way back to the client's networks, and to the router's addresses
answers_by() {
	local n=2
	[ "$1" = eth0 ] || n=4
	printf '%s\n' "route replace default via 10.0.$n.1 dev $1 src $V4" "route replace ::/0 via fd00:$n::1 dev $1 src $V6" | batch "$sv"
}
# by_mark FAMILY ROUTE...: packets with mark 100 go by a table with these routes
by_mark() {
	local f=$1 r; shift
	at "$rt" ip "$f" rule del pref 100 2>/dev/null
	at "$rt" ip "$f" route flush table 100 2>/dev/null
	[ $# -gt 0 ] || return 0
	for r in "$@"; do
		# shellcheck disable=SC2086
		ipn "$rt" "$f" route replace $r table 100
	done
	ipn "$rt" "$f" rule add pref 100 fwmark 100 lookup 100
}
# marks WHICH: a chain that gives the packets of WHICH the mark
marks() { echo "chain mangle { type filter hook prerouting priority mangle; $1 meta mark set 100; };"; }
# strayed NS DEV: packets that came in there
strayed() { at "$1" nft list counter netdev seen "$2" | awk '$1 == "packets" { print $2 }'; }
zero() { at "$cl" nft reset counters >/dev/null; at "$sv" nft reset counters >/dev/null; }
fam() { [[ $1 = *:* ]] && echo -6 || echo -4; }

out_by_mark() { # out_by_mark ADDRESS [NAT]: the table for marked packets has a default route only
	local f gw=10.0.4.2
	f=$(fam "$1")
	[ "$f" = -4 ] || gw=fd00:4::2
	by_mark "$f" "default via $gw dev wan2"
	rules DEVS="lan, wan, wan2" NAT="$(marks "iifname lan") ${2:-}" || return
	zero
	bypass tcp "$1"
	bypass udp "$1"
	want_eq "packets by the other link" "$(strayed "$sv" eth0)" 0
	by_mark "$f"
}
tcase    "IPv4: the client's packets are marked, masquerade" out_by_mark $V4 "$MASQ"
tcase    "IPv4: the client's packets are marked"             out_by_mark $V4
tcase -x "IPv6: the client's packets are marked"             out_by_mark $V6

ct_mark() { # both directions have the connection's mark, and the table knows the client's network
	by_mark -4 "default via 10.0.4.2 dev wan2" "10.0.1.0/24 dev lan"
	rules DEVS="lan, wan, wan2" NAT="chain mangle { type filter hook prerouting priority mangle;
		meta mark set ct mark; iifname lan ct state new meta mark set 100; ct mark set meta mark; }; $MASQ" || return
	zero
	bypass tcp $V4
	bypass udp $V4
	want_eq "packets by the other link" "$(strayed "$sv" eth0)" 0
	by_mark -4
}
tcase "the mark of the connection, for both directions" ct_mark

answers_marked() { # answers_marked ADDRESS: only answers are, and go back by another link
	local f net=10.0.1.0/24 gw=10.0.6.2
	f=$(fam "$1")
	[ "$f" = -4 ] || net=fd00:1::/64 gw=fd00:6::2
	answers_by eth0
	by_mark "$f" "$net via $gw dev lan2"
	rules DEVS="lan, lan2, wan" NAT="$(marks "iifname wan")" || return
	zero
	conv_open x "$cl" udp "$1" || return
	# learned from packets of both directions, one after the other
	busywait $((5000 * SLOW)) settled || fail "not fast: $FORWARDED of $ARRIVED packets in the forward chain"
	want_eq "answers by the unmarked link" "$(strayed "$cl" eth0)" 0
	counters_zero
	conv_ok x echo 300 500
	counters
	bypass_numbers "$ARRIVED" "$FORWARDED" "$(fast)"
	want_eq "answers by the unmarked link" "$(strayed "$cl" eth0)" 0
	want_ge "answers by the marked link" "$(strayed "$cl" eth1)" 350
	conv_close x
	conv_open x "$cl" tcp "$1" || return
	conv_ok x echo 300000
	want_eq "answers by the unmarked link" "$(strayed "$cl" eth0)" 0
	conv_close x
	by_mark "$f"
	answers_by eth1
}
settled() { counters_zero; conv_ok x echo 50 500; counters; [ "$FORWARDED" -le 4 ]; }
tcase -x "IPv4: only the answers are marked" answers_marked $V4
tcase -x "IPv6: only the answers are marked" answers_marked $V6

one_rule() { # the same, while only packets of the client come to the rule that adds flows
	answers_by eth0
	by_mark -4 "10.0.1.0/24 via 10.0.6.2 dev lan2"
	rules DEVS="lan, lan2, wan" NAT="$(marks "iifname wan")" MATCH="iifname lan" || return
	zero
	conv_open x "$cl" udp $V4 || return
	conv_ok x echo 300 500
	want_eq "answers by the unmarked link" "$(strayed "$cl" eth0)" 0
	want_ge "answers by the marked link" "$(strayed "$cl" eth1)" 300
	conv_close x
	by_mark -4
	answers_by eth1
}
tcase -x "only the answers are marked, and a rule for the client's packets" one_rule

gateways() { # two of them on one link; marked packets go to the second one
	local before
	ipn "$sv" link add link eth0 name mv0 type macvlan mode bridge
	ipn "$sv" link set mv0 up; ipn "$sv" addr add 10.0.2.3/32 dev mv0
	at "$sv" sysctl -qw net/ipv4/conf/mv0/rp_filter=0 net/ipv4/conf/eth0/arp_ignore=1 net/ipv4/conf/mv0/arp_ignore=1
	answers_by eth0
	by_mark -4 "default via 10.0.2.3 dev wan"
	rules NAT="$(marks "iifname lan")" || return
	busywait 5000 at "$rt" ping -c1 -W1 -q 10.0.2.3 || fail "no second gateway"
	before=$(ipn "$sv" -s -j link show mv0 | jq '.[0].stats64.rx.packets')
	bypass udp $V4
	want_ge "packets by the second gateway" $(($(ipn "$sv" -s -j link show mv0 | jq '.[0].stats64.rx.packets') - before)) 300
	by_mark -4
	ipn "$sv" link del mv0
	answers_by eth1
}
tcase -x "another gateway on the same link" gateways

changes() { # a rule for marks comes and goes while a stream flows
	answers_by eth0
	rules DEVS="lan, wan, wan2" NAT="$(marks "iifname lan")" || return
	stream_start $V4 || return
	zero
	by_mark -4 "default via 10.0.4.2 dev wan2"
	busywait $((2000 * SLOW)) by_eth1 || fail "the stream does not follow the rule"
	fast_now
	by_mark -4
	busywait $((2000 * SLOW)) by_eth0 || fail "the stream does not come back"
	fast_now
	stream_end 1500 0
	answers_by eth1
}
by_eth1() { zero; sleep 0.2; [ "$(strayed "$sv" eth1)" -ge 20 ] && [ "$(strayed "$sv" eth0)" -le 2 ]; }
by_eth0() { zero; sleep 0.2; [ "$(strayed "$sv" eth0)" -ge 20 ] && [ "$(strayed "$sv" eth1)" -le 2 ]; }
tcase "a rule for marks comes and goes" changes

nat_before_ipsec() { # the policy is for what packets look like after masquerading
	local n k=0x0102030405060708090a0b0c0d0e0f10
	answers_by eth0
	for n in "$rt" "$sv"; do
		ipn "$n" xfrm state add src 10.0.2.1 dst 10.0.2.2 proto esp spi 0x201 mode tunnel enc 'cbc(aes)' $k auth 'hmac(sha1)' $k &&
		ipn "$n" xfrm state add src 10.0.2.2 dst 10.0.2.1 proto esp spi 0x202 mode tunnel enc 'cbc(aes)' $k auth 'hmac(sha1)' $k ||
			{ skip "no IPsec"; return; }
	done
	ipn "$rt" xfrm policy add src 10.0.2.1 dst $V4 dir out tmpl src 10.0.2.1 dst 10.0.2.2 proto esp mode tunnel
	ipn "$rt" xfrm policy add src $V4 dst 10.0.2.1 dir in tmpl src 10.0.2.2 dst 10.0.2.1 proto esp mode tunnel
	ipn "$rt" xfrm policy add src $V4 dst 10.0.2.1 dir fwd tmpl src 10.0.2.2 dst 10.0.2.1 proto esp mode tunnel
	ipn "$sv" xfrm policy add src $V4 dst 10.0.2.1 dir out tmpl src 10.0.2.2 dst 10.0.2.1 proto esp mode tunnel
	ipn "$sv" xfrm policy add src 10.0.2.1 dst $V4 dir in tmpl src 10.0.2.1 dst 10.0.2.2 proto esp mode tunnel
	rules NAT="$MASQ" || return
	zero
	conv_open x "$cl" udp $V4 || return
	conv_ok x echo 200 500
	# packets that were decrypted come by once more, with a security path
	want_eq "packets on the wire in clear" "$(strayed "$sv" eth0)" 0
	conv_close x
	for n in "$rt" "$sv"; do ipn "$n" xfrm policy flush; ipn "$n" xfrm state flush; done
	answers_by eth1
}
tcase -x "masquerading comes before IPsec: nothing leaves in clear" nat_before_ipsec

# ---- links that differ in the two directions

CL4=10.8.8.8 CL6=fd00:8::8
# asymmetric IN OUT BACK HOME: the client's packets come in at IN and leave by OUT, answers come in at BACK and
# leave by HOME, all of them devices of the router. Both ends have an address that is at no link.
asymmetric() {
	local in=10.0.1 in6=fd00:1 cdev=eth0 out=10.0.2.2 out6=fd00:2::2 back=10.0.2 back6=fd00:2 sdev=eth0 home=10.0.1.2 home6=fd00:1::2
	[ "$1" = lan ] || { in=10.0.6; in6=fd00:6; cdev=eth1; }
	[ "$2" = wan ] || { out=10.0.4.2; out6=fd00:4::2; }
	[ "$3" = wan ] || { back=10.0.4; back6=fd00:4; sdev=eth1; }
	[ "$4" = lan ] || { home=10.0.6.2; home6=fd00:6::2; }
	printf '%s\n' "route replace $V4 via $in.1 dev $cdev src $CL4" "route replace $V6 via $in6::1 dev $cdev src $CL6" | batch "$cl"
	printf '%s\n' "route replace $V4 via $out dev $2" "route replace $V6 via $out6 dev $2" \
		"route replace $CL4 via $home dev $4" "route replace $CL6 via $home6 dev $4" | batch "$rt"
	printf '%s\n' "route replace $CL4 via $back.1 dev $sdev src $V4" "route replace $CL6 via $back6::1 dev $sdev src $V6" | batch "$sv"
}
asymmetric_begin() {
	printf '%s\n' "addr replace $CL4/32 dev lo" "addr replace $CL6/128 dev lo nodad" | batch "$cl"
}
asymmetric_end() {
	printf '%s\n' "route del $CL4" "route del $CL6" "route replace $V4 via 10.0.2.2" "route replace $V6 via fd00:2::2" | batch "$rt"
	printf '%s\n' "route del $V4" "route del $V6" | batch "$cl"
	printf '%s\n' "route del $CL4" "route del $CL6" | batch "$sv"
}
all_pairs() { # all_pairs PROTO ADDRESS: what is not as was guessed is learnt from the first packets
	local back home src=$CL4
	[[ $2 != *:* ]] || src=$CL6
	asymmetric_begin
	for back in wan wan2; do for home in lan lan2; do
		asymmetric lan wan $back $home
		rules DEVS="lan, lan2, wan, wan2" || return
		# shellcheck disable=SC2153
		BYTES=524288 COUNT=60 SIZE=200 MAX_SLOW=20 bypass "$1" "$2" "$PORT" -- --bind "$src"
		[ "$RET" = 0 ] || { note "answers come in by $back and leave by $home"; break 2; }
	done; done
	asymmetric_end
}
tcase -x "IPv4: answers come by other links, UDP" all_pairs udp $V4
tcase -x "IPv6: answers come by other links, UDP" all_pairs udp $V6
tcase -x "IPv4: answers come by other links, TCP" all_pairs tcp $V4
tcase -x "IPv6: answers come by other links, TCP" all_pairs tcp $V6

# shellcheck disable=SC2178,SC2128 # other functions have arrays of these names
multipath() { # multipath ADDRESS POLICY: two routes everywhere, and each router has its own opinion
	local n src=$CL4 port w="nexthop via 10.0.2.2 dev wan nexthop via 10.0.4.2 dev wan2" h="nexthop via 10.0.1.2 dev lan nexthop via 10.0.6.2 dev lan2"
	local c="nexthop via 10.0.1.1 dev eth0 nexthop via 10.0.6.1 dev eth1" s="nexthop via 10.0.2.1 dev eth0 nexthop via 10.0.4.1 dev eth1" policy=net.ipv4.fib_multipath_hash_policy
	[[ $1 != *:* ]] || {
		src=$CL6 policy=net.ipv6.fib_multipath_hash_policy
		w=${w//10.0.2.2/fd00:2::2} w=${w//10.0.4.2/fd00:4::2} h=${h//10.0.1.2/fd00:1::2} h=${h//10.0.6.2/fd00:6::2}
		c=${c//10.0.1.1/fd00:1::1} c=${c//10.0.6.1/fd00:6::1} s=${s//10.0.2.1/fd00:2::1} s=${s//10.0.4.1/fd00:4::1}
	}
	asymmetric_begin
	asymmetric lan wan wan lan
	for n in "$cl" "$rt" "$sv"; do at "$n" sysctl -qw $policy="$2"; done
	printf '%s\n' "route del $1" "route add $1 src $src $c" | batch "$cl"
	printf '%s\n' "route del $1" "route add $1 $w" "route del $src" "route add $src $h" | batch "$rt"
	printf '%s\n' "route del $src" "route add $src src $1 $s" | batch "$sv"
	rules DEVS="lan, lan2, wan, wan2" || return
	for port in 1 2 3 4 5; do
		COUNT=40 SIZE=200 MAX_SLOW=14 bypass udp "$1" "$PORT" -- --bind "$src" --sport $((7000 + port))
		BYTES=262144 MAX_SLOW=30 bypass tcp "$1" "$PORT" -- --bind "$src" --sport $((7000 + port))
	done
	for n in "$cl" "$rt" "$sv"; do at "$n" sysctl -qw $policy=0; done
	printf '%s\n' "route del $1" "route del $src" | batch "$rt"
	asymmetric lan wan wan lan
	asymmetric_end
}
tcase -x "IPv4: two routes in each direction, by ports"     multipath $V4 1
tcase -x "IPv6: two routes in each direction, by ports"     multipath $V6 1
tcase -x "IPv6: two routes in each direction, by flow label" multipath $V6 0

two_at_once() { # the client's packets come in by two links in turns: nothing flaps
	local before n
	asymmetric_begin
	asymmetric lan wan wan lan
	ipn "$cl" rule add pref 90 fwmark 90 lookup 90
	ipn "$cl" route add $V4 via 10.0.6.1 dev eth1 src $CL4 table 90
	at "$cl" nft -f - <<-END
	table ip turns {
		chain o {
			type route hook output priority 0
			ip daddr $V4 meta mark set numgen inc mod 2 map { 0 : 0, 1 : 90 }
		}
	}
	END
	rules DEVS="lan, lan2, wan, wan2" || return
	conv_open x "$cl" udp $V4 "$PORT" --bind $CL4 || return
	conv_ok x echo 40 200
	counters_zero
	before=$(stat_sum teardown.)
	conv_ok x echo 400 200
	[ "$FT" != ours ] || want_le "flows taken down" $(($(stat_sum teardown.) - before)) 4
	counters
	# the answers, and every other request
	want_le "of $ARRIVED packets, seen by the forward chain" "$FORWARDED" $((ARRIVED * 5 / 16))
	conv_close x
	at "$cl" nft delete table ip turns
	ipn "$cl" rule del pref 90
	ipn "$cl" route flush table 90
	asymmetric_end
}
tcase -o "packets of one direction come in by two links in turns" two_at_once

# ---- forwarding is switched off

# off ADDRESS SYSCTL...: no more datagrams than were on their way arrive; and the flow comes back
off() {
	local dst=$1 a b n; shift
	rules || return
	RATE=400 stream_start "$dst" || return
	RATE=400 fast_now
	at "$rt" sysctl -qw "${@/%/=0}"
	sleep 0.1 # what is past the router by then may still be on its way
	a=$(received)
	sleep 0.4
	b=$(received)
	want_le "datagrams that arrived afterwards" $((b - a)) 2
	at "$rt" sysctl -qw "${@/%/=1}"
	RATE=400 fast_now
	stream_end 5000
}
tcase    "IPv4: forwarding is switched off" off $V4 net.ipv4.ip_forward
tcase -x "IPv6: forwarding is switched off" off $V6 net.ipv6.conf.all.forwarding
tcase    "IPv4: forwarding is switched off for what comes in by a device" off $V4 net.ipv4.conf.lan.forwarding

forced() { # IPv6 is forwarded only from devices where that is forced
	# the first one clears the others
	at "$rt" sysctl -qw net.ipv6.conf.all.forwarding=0 net.ipv6.conf.lan.force_forwarding=1 net.ipv6.conf.wan.force_forwarding=1 ||
		{ skip "no force_forwarding here"; return; }
	off $V6 net.ipv6.conf.lan.force_forwarding
	at "$rt" sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv6.conf.lan.force_forwarding=0 net.ipv6.conf.wan.force_forwarding=0
}
tcase -x "IPv6: forced forwarding is switched off" forced

# ---- connections that cannot be added

refused() { # a rule wants them, but one of the devices is not listed: they are asked about once a second
	local before n
	answers_by eth0
	rules DEVS=lan || return
	conv_open x "$cl" udp $V4 || return
	conv_ok x echo 20 200
	before=$(stat_get skip.device_not_listed)
	conv_ok x echo 200 200
	n=$(($(stat_get skip.device_not_listed) - before))
	want_le "times that it was asked about" "$n" $((2 + SLOW * 2))
	want_ge "packets that were left alone" "$(stat_get skip.asked_lately)" 300
	# and it is asked about again
	before=$(stat_get skip.device_not_listed)
	busywait 5000 asked_again "$before" || fail "it is never asked about again"
	# as soon as that is mended it is fast
	stats_save refused
	nft_rt "add flowtable inet t f { hook ingress priority 0; devices = { wan }; }" 2>"$TMP/out" || fail "$(cat "$TMP/out")"
	busywait $((3000 * SLOW)) settled || fail "not fast once all devices are listed: $FORWARDED of $ARRIVED packets in the forward chain; $(stats_diff refused | tr '\n' ' ')"
	conv_close x
	answers_by eth1
}
asked_again() { conv_ok x echo 5 200; [ "$(stat_get skip.device_not_listed)" -gt "$1" ]; }
tcase -o "a connection that cannot be offloaded is asked about once a second" refused

half() { # answers come in by a device that is not listed: they stay slow, and the requests stay fast
	asymmetric_begin
	asymmetric lan wan wan2 lan
	rules DEVS="lan, wan" WATCH="lan" || return
	conv_open x "$cl" "$1" $V4 "$PORT" --bind $CL4 || return
	[ "$1" != udp ] || busywait $((3000 * SLOW)) half_fast || fail "requests do not become fast"
	counters_zero
	if [ "$1" = udp ]; then conv_ok x echo 400 200; else conv_ok x echo 1048576; fi
	# all that arrived at this device were requests
	[ "$FT" != ours ] || want_ge "of $(arrived) requests, fast" "$(fast)" $(($(arrived) * 3 / 4))
	conv_close x
	asymmetric_end
}
half_fast() { counters_zero; conv_ok x echo 20 200; [ "$(fast)" -ge 15 ]; }
tcase "UDP: answers come in by a device that is not listed" half udp
tcase "TCP: answers come in by a device that is not listed" half tcp

crowd() { # hundreds of these at once are not in each other's way, nor in that of others
	local before t
	rules DEVS=lan || return
	before=$(stat_get skip.device_not_listed)
	t=$(now_ms)
	at "$cl" "${PY[@]}" traffic turns $V4 "$PORT" --sockets 400 --count 30 >"$TMP/out" 2>&1 || { fail "$(tail -n1 "$TMP/out")"; return; }
	t=$((($(now_ms) - t) / 1000 + 2))
	# each of the 400 is asked about, some times at first and once a second then, and not for each of 60 packets
	want_ge "times that connections were asked about" $(($(stat_get skip.device_not_listed) - before)) 400
	want_le "times that connections were asked about" $(($(stat_get skip.device_not_listed) - before)) $((400 * 7 + 400 * t))
}
tcase -o "400 connections that cannot be offloaded" crowd

SETUP=setup
run_cases "$@"
