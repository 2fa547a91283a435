#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# An offloaded flow follows the ruleset: a rule that now drops it stops it at
# once, one that still adds it keeps it, and it leaves when none does any more.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2
#
# A one-way stream of numbered datagrams runs from cl to sv; an echo
# conversation goes both ways.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2

setup() {
	lan_wan || return
	serve "$sv"
}
insert() { want_ok "insert rule" nft_rt insert rule inet t forward "$@"; }

dropped() { # stream to ADDRESS, dropped by a new rule
	rules || return
	stream_start "$1" || return
	fast_now
	insert udp dport 6000 counter drop
	sleep 0.3
	want_le "datagrams in 0.3 s after the rule" "$(received_in 0.3)" 2
	want_ok "delete the rule" nft_rt flush chain inet t forward
	want_ok "add the flow rule again" nft_rt add rule inet t forward meta l4proto '{ tcp, udp }' flow add @f
	busywait $((3000 * SLOW)) flowing || fail "the stream does not flow again"
	fast_now
	stream_end 5000
}
tcase -x "IPv4: a new drop rule stops an offloaded stream at once" dropped $V4
tcase -x "IPv6: a new drop rule stops an offloaded stream at once" dropped $V6

# elements N: N * 10000 elements for the set s of the table "other", which make a transaction long
elements() {
	local i
	for i in $(seq "$1"); do
		awk -v i="$i" 'BEGIN { for (n = 0; n < 10000; n++) s = s (n ? ", " : "") "10." i "." int(n / 200) "." n % 200
			print "add element inet other s { " s " }" }'
	done
}
# Packets meet the old policies for a while after a generation is announced, and those of new chains accept: as
# long as the rest of the transaction takes.
late() { # late ADDRESS COMMAND...: what comes before, and after so many elements, in one transaction
	local RATE=2000 dst=$1; shift
	rules || return
	want_ok "tables" nft_rt "add table inet other; add set inet other s { type ipv4_addr; }; add table inet b; \
		add chain inet b forward { type filter hook forward priority 10; policy $1; }; add rule inet b forward udp dport 6000 counter accept"
	stream_start "$dst" || return
	fast_now
	[ -z "$2" ] || want_ok "before" nft_rt "$2"
	{ echo "$3"; elements 2; echo "$4"; } >"$TMP/late.nft"
	want_ok "a long transaction" nft_rt -f "$TMP/late.nft"
	busywait $((3000 * SLOW)) not_flowing || fail "$(received_in 0.2) datagrams in 0.2 s still pass"
	want_ok "policy accept" nft_rt add chain inet b forward "{ policy accept; }"
	fast_now
	stream_end 9000
}
tcase "IPv4: a policy that comes last stops an offloaded stream" \
	late $V4 accept "" "flush chain inet b forward" "chain inet b forward { policy drop; }"
tcase "IPv6: a policy that comes last, and the same a moment before" \
	late $V6 drop "chain inet b forward { policy accept; }" "flush chain inet b forward" "chain inet b forward { policy drop; }"
tcase "IPv4: a table is loaded anew without its rule" \
	late $V4 drop "" "delete table inet b" "table inet b { chain forward { type filter hook forward priority 10; policy drop; }; }"

kept() { # an unrelated change
	rules || return
	stream_start "$1" || return
	local i n
	n=$(stat_get teardown.ruleset)
	for i in 1 2 3 4 5; do
		want_ok "unrelated change" nft_rt add table inet "other$i"
		sleep 0.2
	done
	# longer than a flow is kept that the ruleset says nothing about: there are no answers to agree to
	sleep 2.5
	want_eq "flows that were taken down" "$(stat_get teardown.ruleset)" "$n"
	fast_now
	ct_offloaded -p udp --orig-port-dst 6000 || fail "not offloaded any more"
	stream_end 1000 0
}
tcase "IPv4: unrelated changes lose nothing" kept $V4
tcase "IPv6: unrelated changes lose nothing" kept $V6

revalidated() { # by one packet per direction, not by many
	rules || return
	conv_open x "$cl" udp "$1" || return
	conv_ok x echo 100 200
	offloaded_line udp "$PORT" || fail "not offloaded"
	stats_save before
	want_ok "unrelated change" nft_rt add table inet other
	sleep 0.2
	conv_ok x echo 300 200
	local n
	n=$(stats_diff before | awk '$1 == "miss.ruleset" { print $2 }')
	want_ge "packets that the new ruleset has seen" "${n:-0}" 2
	want_le "of 600 packets, seen by the new ruleset" "${n:-0}" 8
	counters_zero
	conv_ok x echo 300 200
	counters
	bypass_numbers "$ARRIVED" "$FORWARDED" "$(fast)"
	conv_close x
}
tcase -o "IPv4: revalidated by a packet or two per direction" revalidated $V4
tcase -o "IPv6: revalidated by a packet or two per direction" revalidated $V6

one_way_rule() { # the rule that adds the flow matches one direction only
	rules "MATCH=oifname wan meta l4proto { tcp, udp }" || return
	conv_open x "$cl" udp $V4 || return
	conv_ok x echo 100 200
	want_ok "unrelated change" nft_rt add table inet other
	sleep 0.2
	conv_ok x echo 100 200
	counters_zero
	conv_ok x echo 300 200
	counters
	bypass_numbers "$ARRIVED" "$FORWARDED" "$(fast)"
	conv_close x
}
tcase "a rule for one direction keeps both" one_way_rule

answers_dropped() { # only the answers
	rules || return
	conv_open x "$cl" udp $V4 "$PORT" --timeout 1 || return
	conv_ok x echo 100 200
	insert iifname wan udp sport "$PORT" drop
	conv_cmd x echo 1 200 >"$TMP/answer" && fail "an answer came: $(cat "$TMP/answer")"
	conv_close x
}
tcase -x "a rule that drops the answers only" answers_dropped

# A client's error about the answers comes to the rule that adds flows, and passes: no packet of the
# stream has.
errors() { # errors ADDRESS
	local sport e
	rules MATCH="meta l4proto { tcp, udp, icmp, icmpv6 }" || return
	stream_start "$1" || return
	fast_now
	sport=$(ct_list -p udp --orig-port-dst 6000 | grep -o 'sport=[0-9]*' | head -n1 | cut -d= -f2)
	insert udp dport 6000 counter drop
	sleep 0.3
	if [ "$1" = $V4 ]; then
		e="IP(dst='$1')/ICMP(type=3, code=3)/IP(src='$1', dst='10.0.1.2')/UDP(sport=6000, dport=$sport)"
	else
		e="IPv6(dst='$1')/ICMPv6DestUnreach(code=4)/IPv6(src='$1', dst='fd00:1::2')/UDP(sport=6000, dport=$sport)"
	fi
	at "$sv" nft -f - <<-END
		table inet got {
			counter errors { }
			chain in {
				type filter hook input priority 0;
				icmp type destination-unreachable counter name errors
				icmpv6 type destination-unreachable counter name errors
			}
		}
	END
	want_ok "errors" at "$cl" python3 -c "from scapy.all import *; send($e, count=5, inter=0.02, verbose=0)"
	want_le "datagrams in 0.3 s after the errors" "$(received_in 0.3)" 2
	want_ge "errors that passed the router" "$(at "$sv" nft list counter inet got errors | awk '$1 == "packets" { print $2 }')" 3
	at "$sv" nft delete table inet got
	want_ok "delete the rule" nft_rt flush chain inet t forward
	want_ok "add the flow rule again" nft_rt add rule inet t forward meta l4proto udp flow add @f
	busywait $((3000 * SLOW)) flowing || fail "the stream does not flow again"
	stream_end 60000
}
tcase -x "IPv4: ICMP errors do not bring a dropped stream back" errors $V4
tcase -x "IPv6: ICMP errors do not bring a dropped stream back" errors $V6

disowned() { # no rule adds it any more
	rules || return
	stream_start $V4 || return
	fast_now
	want_ok "delete the flow rule" nft_rt flush chain inet t forward
	busywait $((5000 * SLOW)) ct_back -p udp --orig-port-dst 6000 || fail "still offloaded"
	stream_end 1000 0
}
tcase -x "without the rule the flow goes back to conntrack, nothing lost" disowned

# A packet waits in a queue to userspace while the ruleset changes: it has met the old rules, and says
# nothing about the new ones, whatever other packets have met meanwhile.
queued() {
	local hold sport
	rules NAT="chain late { type filter hook forward priority 10; iifname lan udp length 508 queue num 7; }" || return
	rm -f "$TMP/held" "$TMP/hold"
	mkfifo "$TMP/hold"
	exec {hold}<>"$TMP/hold"
	nsenter --net="/run/netns/$rt" -- "${PY[@]}" links hold --queue 7 --ready "$TMP/held" <"$TMP/hold" &
	PIDS+=($!); disown $!
	sleep 0.3
	conv_open x "$cl" udp $V4 || return
	sport=$(conv_cmd x port)
	conv_ok x echo 1
	conv_ok x send 1 500
	busywait $((3000 * SLOW)) test -e "$TMP/held" || { fail "no packet in the queue"; return; }
	insert iifname lan udp dport "$PORT" drop
	conv_ok x send 1
	want_ok "an answer" at "$sv" python3 -c "from scapy.all import *; send(IP(src='$V4', dst='10.0.1.2')/UDP(sport=$PORT, dport=${sport#ok })/'answer', verbose=0)"
	counters_zero
	echo >&"$hold"
	sleep 0.2
	conv_ok x send 50
	sleep 0.1
	counters
	want_ge "packets that came to the new rules" "$FORWARDED" 50
	# the packet that was held is answered
	want_le "packets that went around them" "$(fast)" 1
	exec {hold}>&-
	conv_close x
}
tcase -x "a packet that waits in a queue over a change has not met the new rules" queued

tcp_kept() {
	rules || return
	conv_open x "$cl" tcp $V6 || return
	conv_ok x echo 200000
	want_ok "unrelated change" nft_rt add table inet other
	sleep 0.2
	conv_ok x echo 500000
	counters_zero
	conv_ok x echo 1000000
	counters
	want_ge "packets that arrived" "$ARRIVED" 30
	want_le "of $ARRIVED packets, seen by the forward chain" "$FORWARDED" 4
	conv_close x
}
tcase "TCP goes on over a change" tcp_kept

SETUP=setup run_cases "$@"
