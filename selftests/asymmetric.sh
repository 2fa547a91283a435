#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# TCP connections of which the ingress hook sees one direction only: the other one takes another way
# into the stack, or looks so that the fast path leaves it alone. Conntrack must find the packets
# that close or resume the connection as valid as without a flowtable.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     |  fd00:2::1      fd00:2::2
#                                       +-- ingress is redirected to ifb0

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2
BYTES=2000000 # many times the largest window, 64 KiB
STRICT="chain strict { type filter hook forward priority -5; ct state invalid counter drop; };"
MASQ="chain post { type nat hook postrouting priority 100; oifname wan masquerade; };"

setup() {
	lan_wan || return
	at "$cl" sysctl -qw net.ipv4.tcp_window_scaling=0
	serve "$sv"
	serve "$sv" 5001 --ip-options
}
invalid() { nft_rt list chain inet t strict | awk '/drop/ { print $6 }'; }
unseen_begin() { # unseen_begin HOW: the direction from the server is not seen
	PORT=5000
	case $1 in
	ifb)	ipn "$rt" link add ifb0 type ifb && ipn "$rt" link set ifb0 up &&
		at "$rt" tc qdisc add dev wan clsact &&
		at "$rt" tc filter add dev wan ingress matchall action mirred egress redirect dev ifb0 || skip "no ifb" ;;
	options) PORT=5001 ;;
	esac
}
unseen_end() {
	PORT=5000
	at "$rt" tc qdisc del dev wan clsact 2>/dev/null
	ipn "$rt" link del ifb0 2>/dev/null
}
# got_through: most of one direction went the slow way, the other one was fast
got_through() {
	offloaded_line tcp "$PORT" || fail "not [OFFLOAD]: $(ct_list -p tcp | head -n1)"
	counters
	want_ge "packets in the forward chain" "$FORWARDED" 30
	want_ge "packets in the fast path" "$(fast)" $((FT_OURS * 20))
}
FT_OURS=1; [ "$FT" = ours ] || FT_OURS=0

# over HOW ADDRESS HOW-IT-ENDS [NAT]
over() {
	unseen_begin "$1" || return
	rules NAT="$STRICT ${4:-}" || return
	counters_zero
	conv_open x "$cl" tcp "$2" "$PORT" || { unseen_end; return; }
	conv_ok x echo "$BYTES"
	got_through
	case $3 in
	fin)	conv_ok x fin
		busywait $((5000 * SLOW)) closed || fail "still there: $(ct_list -p tcp | head -n1)" ;;
	rst)	conv_ok x rst
		busywait $((5000 * SLOW)) closed || fail "still there: $(ct_list -p tcp | head -n1)" ;;
	tail)	conv_ok x tail "$BYTES"
		busywait $((5000 * SLOW)) closed || fail "still there: $(ct_list -p tcp | head -n1)" ;;
	idle)	at "$rt" sysctl -qw net.netfilter.nf_flowtable_tcp_timeout=1
		busywait $((8000 * SLOW)) ct_back -p tcp || fail "not handed back: $(ct_list -p tcp | head -n1)"
		at "$rt" sysctl -qw net.netfilter.nf_flowtable_tcp_timeout=300
		conv_ok x echo 10
		conv_ok x echo "$BYTES" ;;
	route)	ipn "$rt" route add 10.7.7.0/24 via 10.0.2.2
		ipn "$rt" route add fd00:77::/64 via fd00:2::2
		conv_ok x echo 10
		conv_ok x echo "$BYTES"
		ipn "$rt" route del 10.7.7.0/24
		ipn "$rt" route del fd00:77::/64 ;;
	reload)	{ echo "flush ruleset"; NAT="$STRICT ${4:-}" ruleset; } >"$TMP/again"
		want_ok "the same ruleset again" nft_rt -f "$TMP/again"
		CNT0=()
		conv_ok x echo 10
		conv_ok x echo "$BYTES" ;;
	esac
	want_eq "packets that conntrack takes for invalid" "$(invalid)" 0
	conv_close x
	unseen_end
}
closed() { local l; l=$(ct_list -p tcp); [ -z "$l" ] || grep -qE 'TIME_WAIT|CLOSE ' <<<"$l"; }

for how in "fin:FIN" "rst:RST" "tail:half closed, and more" "idle:idle, handed back, and more" "route:routes change" "reload:the ruleset is loaded again"; do
	case $how in fin*|rst*|tail*|idle*) x=-x ;; *) x= ;; esac
	tcase $x "IPv4, redirected to ifb, masquerade: ${how#*:}" over ifb $V4 "${how%%:*}" "$MASQ"
	tcase $x "IPv6, redirected to ifb: ${how#*:}" over ifb $V6 "${how%%:*}"
	tcase $x "IPv4, answers with options: ${how#*:}" over options $V4 "${how%%:*}"
done

SETUP=setup
run_cases "$@"
