#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Rules that rewrite packets outside of connection tracking: TTL and hop limit, stateless
# translation, prefix translation, a checksum. Every packet of such a connection leaves as it
# does without a flowtable: it is not offloaded, and there is a reason for it. And IPVS, whose
# packets connection tracking does not know, or knows as they leave.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2
N=100

setup() {
	lan_wan || return
	serve "$sv"
}
# arrives NS MATCH: what NS gets on port 5000, and how much of it matches
arrives() {
	at "$1" nft -f - <<-END
	table inet got
	delete table inet got
	table inet got {
		counter every { }
		counter good { }
		chain in {
			type filter hook prerouting priority -400;
			th dport != 5000 th sport != 5000 return
			counter name every
			$2 counter name good
		}
	}
	END
}
got() { at "$1" nft list counter inet got "$2" | awk '$1 == "packets" { print $2 }'; }
all_good() { # all_good NS MIN
	want_ge "packets that arrived" "$(got "$1" every)" "$2"
	want_eq "packets that arrived as the rules say" "$(got "$1" good)" "$(got "$1" every)"
	at "$1" nft delete table inet got
}
# refused: the reason is known, and the connection does not come and go
refused() {
	[ "$FT" = ours ] || return 0
	local n
	n=$(stats_diff before | awk '$1 == "teardown.rewritten" { print $2 }')
	want_ge "flows that were taken down for that reason" "${n:-0}" 1
	want_le "flows that were taken down for that reason" "${n:-0}" 2
	want_ge "packets that were not added for that reason" "$(stats_diff before | awk '$1 == "skip.rewritten" { print $2 }')" 5
	# answers to a source that rules have made up are another connection
	! ct_list | grep '\[OFFLOAD\]' | grep -qE '^[a-z]+ +[0-9]+ ([0-9]+ )?([A-Z_]+ )?src=(10.0.1.2|fd00:1::2) dst=[^ ]* sport=[0-9]* dport=5000 ' ||
		fail "offloaded: $(ct_list)"
}
# fast_again ADDRESS: once the ruleset has no such rule any more
fast_again() {
	rules || return
	conv_ok x echo 10
	busywait $((3000 * SLOW)) is_fast || fail "not fast without the rule"
}
is_fast() { counters_zero; conv_ok x echo 10; counters; [ "$FORWARDED" = 0 ]; }

rewritten() { # rewritten udp|tcp ADDRESS cl|sv MATCH: the ruleset is there
	stats_save before
	local ns=${!3}
	arrives "$ns" "$4"
	conv_open x "$cl" "$1" "$2" 5000 || return
	if [ "$1" = udp ]; then
		conv_ok x echo $N 300
		sleep 1.1
		conv_ok x echo $N 300
		all_good "$ns" $((2 * N))
	else
		conv_ok x echo 300000
		sleep 1.1
		conv_ok x echo 300000
		all_good "$ns" 20
	fi
	refused
}
by_rule() { # by_rule RULES udp|tcp ADDRESS NS MATCH
	rules FWD="$1" || return
	rewritten "${@:2}" || return
	fast_again
	conv_close x
}
tcase -x "IPv4: ttl set in the forward chain, UDP"       by_rule "iifname lan ip ttl set 65;" udp $V4 sv "ip ttl 65"
tcase -x "IPv4: ttl set in the forward chain, TCP"       by_rule "iifname lan ip ttl set 65;" tcp $V4 sv "ip ttl 65"
tcase -x "IPv4: ttl set for answers"                     by_rule "iifname wan ip ttl set 65;" udp $V4 cl "ip ttl 65"
tcase -x "IPv6: hoplimit set in the forward chain, UDP"  by_rule "iifname lan ip6 hoplimit set 65;" udp $V6 sv "ip6 hoplimit 65"
tcase -x "IPv6: hoplimit set in the forward chain, TCP"  by_rule "iifname lan ip6 hoplimit set 65;" tcp $V6 sv "ip6 hoplimit 65"
no_checksum() {
	offloads "$cl" eth0 tx off # a checksum in the packet, not for a device to make
	by_rule "iifname lan udp checksum set 0;" udp $V4 sv "udp checksum 0"
	offloads "$cl" eth0 tx on
}
tcase -x "IPv4: UDP checksum taken away" no_checksum
by_iptables() { # by_iptables COMMAND TABLE CHAIN RULE... -- ARG...: the same with a rule of iptables
	local rule=()
	while [ "$1" != -- ]; do rule+=("$1"); shift; done
	shift
	rules || return
	at "$rt" "${rule[0]}" -w -t "${rule[1]}" -A "${rule[@]:2}" 2>"$TMP/out" || { skip "$(tail -n1 "$TMP/out")"; return; }
	rewritten "$@"
	fast_again
	conv_close x
}
tcase -x "IPv4: TTL of iptables in mangle POSTROUTING"  by_iptables iptables-nft mangle POSTROUTING -o wan -j TTL --ttl-set 65 -- udp $V4 sv "ip ttl 65"
tcase -x "IPv6: HL of ip6tables in mangle FORWARD"      by_iptables ip6tables-nft mangle FORWARD -o wan -j HL --hl-set 65 -- udp $V6 sv "ip6 hoplimit 65"

# One way: answers would not find back.
one_way() { # one_way RULE ADDRESS MATCH
	rules NAT="chain post { type filter hook postrouting priority 200; oifname wan $1; }" || return
	stateless "${@:2}"
}
stateless() { # stateless ADDRESS MATCH
	arrives "$sv" "$2"
	stats_save before
	conv_open x "$cl" udp "$1" 5000 || return
	conv_ok x send $N 300
	sleep 1.1
	conv_ok x send $N 300
	busywait 2000 got_all $((2 * N))
	all_good "$sv" $((2 * N))
	refused
	conv_close x
}
got_all() { [ "$(got "$sv" every)" -ge "$1" ]; }
tcase -x "IPv4: stateless source translation"      one_way "ip saddr set 10.0.1.77" $V4 "ip saddr 10.0.1.77"
tcase -x "IPv6: stateless source translation"      one_way "ip6 saddr set fd00:1::77" $V6 "ip6 saddr fd00:1::77"
tcase -x "IPv4: stateless translation of the port" one_way "udp sport set 5000" $V4 "udp sport 5000"
npt() {
	rules || return
	at "$rt" ip6tables-nft -w -t mangle -A POSTROUTING -o wan -s fd00:1::/64 -j SNPT --src-pfx fd00:1::/64 --dst-pfx fd00:9::/64 2>"$TMP/out" ||
		{ skip "$(tail -n1 "$TMP/out")"; return; }
	stateless $V6 "ip6 saddr fd00:9::/64"
}
tcase -x "IPv6: prefix translation (SNPT of ip6tables)" npt

ipvs() { # ipvs udp|tcp CONNTRACK: the answers of a real server are translated by IPVS in the forward hook
	at "$rt" ipvsadm -C 2>"$TMP/out" || { skip "no IPVS: $(tail -n1 "$TMP/out")"; return; }
	at "$rt" sysctl -qw "net.ipv4.vs.conntrack=$2"
	rules || return
	want_ok "service" at "$rt" ipvsadm -A "-${1:0:1}" 10.0.1.1:5000 -s rr
	want_ok "server" at "$rt" ipvsadm -a "-${1:0:1}" 10.0.1.1:5000 -r 10.0.2.2:5000 -m
	arrives "$cl" "ip saddr 10.0.1.1"
	conv_open x "$cl" "$1" 10.0.1.1 5000 --timeout 3 || return
	if [ "$1" = udp ]; then
		conv_ok x echo $N 300
		conv_ok x echo $N 300
	else
		conv_ok x echo 300000
		conv_ok x echo 300000
	fi
	all_good "$cl" 15
	conv_close x
	at "$rt" ipvsadm -C
}
tcase    "IPVS: answers of UDP"                     ipvs udp 0
tcase    "IPVS: answers of TCP"                     ipvs tcp 0
tcase    "IPVS with connection tracking: answers of UDP" ipvs udp 1
tcase    "IPVS with connection tracking: answers of TCP" ipvs tcp 1

maxseg() { # is no rewriting of data
	rules FWD="tcp flags syn tcp option maxseg size set 1300;" || return
	bypass tcp "$1"
	[ "$FT" != ours ] || want_eq "flows that were taken down for rewriting" "$(stats_diff before | awk '$1 == "teardown.rewritten"')" ""
}
tcase "IPv4: MSS clamping is not rewriting" eval "stats_save before; maxseg $V4"
tcase "IPv6: MSS clamping is not rewriting" eval "stats_save before; maxseg $V6"

SETUP=setup run_cases "$@"
