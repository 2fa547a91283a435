#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What connection tracking knows of an offloaded flow: marked while it is fast,
# deleted when told so, handed back in the state and with the timeout that it
# would have had, exact counters with the flag `counter`.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2
MASQ="chain post { type nat hook postrouting priority 100; oifname wan masquerade; };"
DAY=86400

defaults() {
	ct_set nf_flowtable_udp_timeout=30 nf_flowtable_tcp_timeout=30 nf_conntrack_acct=0 \
		nf_conntrack_udp_timeout=30 nf_conntrack_udp_timeout_stream=120 \
		nf_conntrack_tcp_timeout_established=432000 nf_conntrack_tcp_loose=1
}
setup() { lan_wan && serve "$sv" && rules && defaults; }

# flow ID PROTO ADDRESS [OPTION...]: an offloaded conversation, left open
flow() {
	local id=$1 proto=$2 dst=$3; shift 3
	conv_open "$id" "$cl" "$proto" "$dst" "$@" || return
	conv_ok "$id" echo 20
	is_offloaded "$id" "$proto" || fail "flow $id is not [OFFLOAD]: $(ct_list -p "$proto" | head -n3)"
}
sport() { local a; a=$(conv_cmd "$1" port); echo "${a#ok }"; }
is_offloaded() { ct_list -p "$2" --orig-port-src "$(sport "$1")" | grep -q '\[OFFLOAD\]'; }
# slow_by MIN MAX: packets that the forward chain has seen since counters_zero
slow_by() { counters; want_ge "packets in the forward chain" "$FORWARDED" "$1"; want_le "packets in the forward chain" "$FORWARDED" "$2"; }

shown() {
	rules FAM="$1" || return
	flow x "$2" "$3" || return
	ct_list -p "$2" | grep -q 'HW_OFFLOAD' && fail "[HW_OFFLOAD] without hardware"
	want_ok "in /proc" at "$rt" grep -q OFFLOAD /proc/net/nf_conntrack
	conv_close x
}
for p in tcp udp; do
	tcase "$p IPv4 is shown as [OFFLOAD]" shown inet $p $V4
	tcase "$p IPv6 is shown as [OFFLOAD]" shown inet $p $V6
done

delete_one() { # one of two flows is deleted: its next packet is slow, the other stays fast
	local p=$1
	rules NAT="$MASQ" || return
	flow x "$p" "$2" || return
	flow y "$p" "$2" || return
	counters_zero
	conv_ok x echo 20; conv_ok y echo 20
	slow_by 0 0
	want_ok "conntrack -D" at "$rt" conntrack -D -p "$p" --orig-port-src "$(sport x)"
	counters_zero
	conv_ok y echo 20
	slow_by 0 0
	conv_ok x echo 1
	slow_by 1 8
	conv_ok x echo 20
	conv_close x; conv_close y
}
delete_all() {
	local p=$1
	rules || return
	flow x "$p" "$2" || return
	flow y "$p" "$2" || return
	counters_zero
	want_ok "conntrack -F" at "$rt" conntrack -F
	conv_ok x echo 1; conv_ok y echo 1
	slow_by 2 16
	conv_close x; conv_close y
}
for p in tcp udp; do
	tcase "$p IPv4: conntrack -D stops the flow at the next packet" delete_one $p $V4
	tcase "$p IPv6: conntrack -D stops the flow at the next packet" delete_one $p $V6
	tcase "$p IPv4: conntrack -F stops all at the next packet" delete_all $p $V4
	tcase "$p IPv6: conntrack -F stops all at the next packet" delete_all $p $V6
done

# idle PROTO ADDRESS MIN MAX [SYSCTL...]: left alone, the flow leaves the table and its entry
# has a timeout between MIN and MAX seconds.
idle() {
	local p=$1 dst=$2 min=$3 max=$4 t; shift 4
	defaults
	ct_set nf_flowtable_udp_timeout=2 nf_flowtable_tcp_timeout=2 "$@"
	rules || return
	flow x "$p" "$dst" || return
	[ "$STREAM" = 0 ] || { at "$rt" sysctl -qw net.netfilter.nf_flowtable_udp_timeout=30; go_on x "$STREAM"; ct_set nf_flowtable_udp_timeout=2; }
	busywait $((9000 * SLOW)) ct_back -p "$p" || fail "still offloaded or gone: $(ct_list -p "$p")"
	t=$(ct_timeout -p "$p")
	want_ge "timeout after hand-back" "$t" "$min"
	want_le "timeout after hand-back" "$t" "$max"
	[ "$p" != tcp ] || ct_list -p tcp | grep -q ESTABLISHED || fail "not ESTABLISHED: $(ct_list -p tcp)"
	conv_ok x echo 20
	is_offloaded x "$p" || fail "not offloaded again after hand-back"
	conv_close x
	defaults
}
STREAM=0
# Conntrack calls it a stream if it goes on for more than two seconds.
stream() { local STREAM=4; idle "$@"; }
tcase "idle udp leaves, keeps the timeout of a stream"    stream udp $V4 105 120
tcase "idle udp leaves, IPv6"                             stream udp $V6 105 120
tcase "idle udp leaves, timeout from sysctl"              stream udp $V4 285 300 nf_conntrack_udp_timeout_stream=300
tcase -x "idle udp leaves, has been no stream"            idle udp $V4 45 60 nf_conntrack_udp_timeout=60
tcase "idle tcp leaves, timeout from sysctl"              idle tcp $V4 985 1000 nf_conntrack_tcp_timeout_established=1000
tcase -x "idle tcp leaves, keeps about five days"         idle tcp $V4 $((5 * DAY - 60)) $((5 * DAY))
tcase -x "idle tcp leaves, keeps about five days, IPv6"   idle tcp $V6 $((5 * DAY - 60)) $((5 * DAY))

idle_oneway() { # never answered: the short timeout
	local t pid
	defaults
	ct_set nf_flowtable_udp_timeout=2 nf_conntrack_udp_timeout=60
	rules || return
	at "$cl" "${PY[@]}" streams send $V4 5999 --count 20 --rate 100
	ct_offloaded -p udp || fail "not offloaded: $(ct_list -p udp)"
	busywait $((9000 * SLOW)) ct_back -p udp || fail "still offloaded or gone: $(ct_list -p udp)"
	t=$(ct_timeout -p udp)
	want_ge "timeout after hand-back" "$t" 45
	want_le "timeout after hand-back" "$t" 60
	defaults
}
tcase "idle udp without answer keeps the short timeout" idle_oneway

go_on() { # go_on ID SECONDS: some datagrams ten times a second
	local end=$(($(now_ms) + $2 * 1000))
	while [ "$(now_ms)" -lt $end ]; do conv_ok "$1" echo 3 || return; sleep 0.1; done
}
assured() { ct_list -p udp -u ASSURED | grep -q "dport=5000 "; }
updates() { grep -c "UPDATE.*dport=5000 " "$TMP/events"; }
becomes_assured() { # as a stream on the slow path: not before two seconds, and then it is announced
	local t0 n pid
	defaults
	rules || return
	bg "$rt" conntrack -E -p udp -e UPDATES >"$TMP/events" 2>/dev/null
	pid=$!
	sleep 0.3
	t0=$(now_ms)
	conv_open x "$cl" udp "$1" || return
	conv_ok x echo 20
	[ "$FT" = none ] || is_offloaded x udp || fail "not [OFFLOAD]: $(ct_list -p udp)"
	sleep 0.3
	conv_ok x echo 20
	n=$(updates)
	if [ $(($(now_ms) - t0)) -lt 1800 ]; then
		! assured || fail "assured after $(($(now_ms) - t0)) ms"
	fi
	go_on x 4
	busywait 3000 assured || fail "not assured after $(($(now_ms) - t0)) ms: $(ct_list -p udp)"
	busywait 3000 test "$(updates)" -gt "$n" || fail "no event: $(cat "$TMP/events")"
	stop "$pid"
	conv_close x
}
tcase -x "udp IPv4: a stream becomes assured" becomes_assured $V4
tcase -x "udp IPv6: a stream becomes assured" becomes_assured $V6

never_assured() { # nobody answers: never
	defaults
	rules || return
	at "$cl" "${PY[@]}" streams send $V4 5999 --count 400 --rate 100
	ct_list -p udp -u ASSURED | grep -q "dport=5999 " && fail "assured: $(ct_list -p udp)"
	return 0
}
tcase "udp without answer is not assured" never_assured

full_table() { # a stream keeps its entry when a port scan fills the table
	local id max buckets
	defaults
	rules NAT="$MASQ" || return
	conv_open x "$cl" udp $V4 || return
	go_on x 4
	[ "$FT" = none ] || is_offloaded x udp || fail "not [OFFLOAD]: $(ct_list -p udp)"
	sleep 1.2
	id=$(ct_list -p udp -o id)
	max=$(sysctl -n net.netfilter.nf_conntrack_max) buckets=$(sysctl -n net.netfilter.nf_conntrack_buckets)
	# few lists, so that the scan meets every one of them
	sysctl -qw net.netfilter.nf_conntrack_buckets=512 net.netfilter.nf_conntrack_max=100
	at "$cl" "${PY[@]}" forge scan $V4 6000 4000
	sysctl -qw net.netfilter.nf_conntrack_max="$max" net.netfilter.nf_conntrack_buckets="$buckets"
	want_ge "entries dropped early" "$(at "$rt" conntrack -S | grep -o 'early_drop=[0-9]*' | awk -F= '{ n += $2 } END { print n }')" 1000
	want_eq "conntrack entry" "$(ct_list -p udp -o id --orig-port-dst 5000 | grep -o 'id=[0-9]*$')" "${id##* }"
	conv_ok x echo 20
	conv_close x
	forget
}
tcase -x "udp: a stream keeps its entry when the table is full" full_table

repeated() { # offloaded and handed back again and again, windows are checked by conntrack
	local i
	defaults
	ct_set nf_flowtable_tcp_timeout=1 nf_conntrack_tcp_loose=0
	rules FWD="ct state invalid drop;" NAT="$MASQ" || return
	conv_open x "$cl" tcp "$1" || return
	for i in 1 2 3; do
		conv_ok x echo 400000
		is_offloaded x tcp || fail "round $i: not offloaded"
		busywait $((8000 * SLOW)) ct_back -p tcp || fail "round $i: not handed back: $(ct_list -p tcp)"
	done
	conv_ok x echo 400000
	conv_ok x fin
	conv_close x
	defaults
}
tcase "tcp IPv4 goes on after each of three hand-backs, invalid is dropped" repeated $V4
tcase "tcp IPv6 goes on after each of three hand-backs, invalid is dropped" repeated $V6

no_day() { # flows that die while the worker looks at them: no entry keeps the long timeout
	local left
	defaults
	ct_set nf_conntrack_udp_timeout=60 nf_conntrack_udp_timeout_stream=60
	rules || return
	at "$cl" "${PY[@]}" forge scan $V4 6000 2000 --times 3
	ct_offloaded -p udp || fail "nothing is offloaded"
	# half of them by a route, the rest with the flowtable
	ipn "$rt" route add 10.0.2.2/32 via 10.0.2.2 dev wan onlink mtu 1400
	at "$cl" "${PY[@]}" forge scan $V4 6000 1000 --times 3
	nft_rt flush ruleset
	ipn "$rt" route del 10.0.2.2/32
	busywait $((9000 * SLOW)) ct_back -p udp || fail "still offloaded"
	left=$(ct_list -p udp | awk '$3 > 60' | head -n3)
	[ -z "$left" ] || fail "entries with a long timeout: $left"
	forget
	defaults
}
tcase "no entry keeps a day's timeout" no_day

kept() { # short conntrack timeouts do not end an offloaded flow that has traffic
	local a b i
	defaults
	ct_set nf_conntrack_udp_timeout_stream=2 nf_conntrack_udp_timeout=2 nf_conntrack_tcp_timeout_established=2
	rules || return
	flow x "$1" $V4 || return
	a=$(ct_list -p "$1" -o id)
	for i in 1 2 3 4 5 6 7 8; do conv_ok x echo 5; sleep 0.7; done
	b=$(ct_list -p "$1" -o id)
	want_eq "conntrack entry" "${b##* id=}" "${a##* id=}"
	is_offloaded x "$1" || fail "not offloaded any more"
	conv_close x
	defaults
}
tcase "udp entry outlives a conntrack timeout of 2 s while offloaded" kept udp
tcase "tcp entry outlives a conntrack timeout of 2 s while offloaded" kept tcp

# ---- the end of a TCP connection

fin() { # closed by both: the entry does not linger
	ct_set nf_flowtable_tcp_timeout=2
	rules NAT="$MASQ" || return
	flow x tcp "$1" || return
	conv_ok x echo 100000
	conv_ok x fin
	conv_close x
	busywait $((6000 * SLOW)) closing || fail "after FIN: $(ct_list -p tcp)"
	defaults
}
closing() {
	local l
	l=$(ct_list -p tcp)
	[ -z "$l" ] || { grep -qE ' (FIN_WAIT|CLOSE_WAIT|LAST_ACK|TIME_WAIT|CLOSE) ' <<<"$l" && [ "$(awk '{ print $3 }' <<<"$l")" -le 120 ]; }
}
tcase "FIN: tcp IPv4 leaves the table, entry is closing" fin $V4
tcase "FIN: tcp IPv6 leaves the table, entry is closing" fin $V6

fin_states() { # every state is gone through
	local s
	rules || return
	bg "$rt" conntrack -E -p tcp -o timestamp >"$TMP/events" 2>/dev/null
	local pid=$!
	sleep 0.5
	flow x tcp $V4 || return
	conv_ok x fin
	conv_close x
	busywait $((3000 * SLOW)) grep -q TIME_WAIT "$TMP/events"
	stop "$pid"
	for s in FIN_WAIT LAST_ACK TIME_WAIT; do
		grep -q "$s" "$TMP/events" || fail "no event $s"
	done
	ct_list -p tcp | grep -q TIME_WAIT || fail "not TIME_WAIT: $(ct_list -p tcp)"
}
tcase -x "FIN: conntrack reports FIN_WAIT, LAST_ACK, TIME_WAIT" fin_states

half_close() { # one side has finished, the other sends a lot more
	ct_set nf_flowtable_tcp_timeout=2
	rules NAT="$MASQ" || return
	flow x tcp "$1" || return
	conv_ok x tail 2000000
	conv_close x
	busywait $((6000 * SLOW)) closing || fail "afterwards: $(ct_list -p tcp)"
	defaults
}
tcase "half closed tcp IPv4 carries data the other way" half_close $V4
tcase "half closed tcp IPv6 carries data the other way" half_close $V6

rst() { # rst ADDRESS [TIMEOUT]: with the default timeout the entry is closed at once
	ct_set nf_flowtable_tcp_timeout="${2:-30}"
	rules NAT="$MASQ" || return
	flow x tcp "$1" || return
	conv_ok x rst
	conv_close x
	busywait $((6000 * SLOW)) closed || fail "after RST: $(ct_list -p tcp)"
	defaults
}
closed() {
	local l
	l=$(ct_list -p tcp)
	[ -z "$l" ] || { grep -q ' CLOSE ' <<<"$l" && [ "$(awk '{ print $3 }' <<<"$l")" -le 10 ]; }
}
tcase "RST: tcp IPv4 leaves the table, entry is closed" rst $V4 2
tcase "RST: tcp IPv6 leaves the table, entry is closed" rst $V6 2
tcase -x "RST: the entry is closed at once" rst $V4

reuse() { # the same ports again, at once
	local i
	at "$cl" sysctl -qw net.ipv4.tcp_tw_reuse=1
	at "$cl" sysctl -qw net.ipv4.tcp_tw_reuse_delay=1 2>/dev/null
	rules NAT="$MASQ" || return
	for i in 1 2 3; do
		flow x tcp $V4 --sport 6001 || return
		conv_ok x echo 50000
		conv_ok x "$1"
		conv_close x
		[ "$1" = rst ] || sleep 1.2
	done
}
tcase "ports are used again after RST" reuse rst
tcase "ports are used again after FIN" reuse fin

restarted() { # the client died without a word and connects again from the same port
	rules NAT="$MASQ" || return
	flow x tcp $V4 --sport 6002 || return
	at "$cl" nft -f - <<-'END'
		table inet mute {
			chain out {
				type filter hook output priority 0;
				tcp sport 6002 drop
			}
		}
	END
	conv_ok x rst
	conv_close x
	at "$cl" nft delete table inet mute
	flow y tcp $V4 --sport 6002 || return
	conv_ok y echo 50000
	conv_close y
}
tcase "SYN on a live flow: client restarted on the same port" restarted

# ---- timeout policies, counters

policy() { # policy PROTO POLICY MIN MAX
	local t fwd="chain pre { type filter hook prerouting priority 0; meta l4proto $1 ct timeout set \"p\"; };"
	defaults
	ct_set nf_flowtable_udp_timeout=2 nf_flowtable_tcp_timeout=2
	rules FAM=ip NAT="ct timeout p { protocol $1; l3proto ip; policy = { $2 }; }; $fwd" || return
	flow x "$1" $V4 || return
	busywait $((9000 * SLOW)) ct_back -p "$1" || fail "still offloaded or gone: $(ct_list -p "$1")"
	t=$(ct_timeout -p "$1")
	want_ge "timeout after hand-back" "$t" "$3"
	want_le "timeout after hand-back" "$t" "$4"
	conv_close x
	defaults
}
tcase -x "ct timeout policy is honoured after hand-back, udp" policy udp "unreplied : 50, replied : 60" 45 60
tcase -x "ct timeout policy is honoured after hand-back, tcp" policy tcp "established : 700" 685 700

# both ends count what they really got and sent; the entry must say the same
end_counters() {
	at "$sv" nft -f - <<-END
	table inet ends
	delete table inet ends
	table inet ends {
		counter original { }
		counter reply { }
		chain in { type filter hook input priority 0; th dport 5000 counter name original; }
		chain out { type filter hook output priority 0; th sport 5000 counter name reply; }
	}
	END
}
end_totals() { at "$sv" nft list counters | awk '$1 == "packets" { printf "%s%s %s", n++ ? " " : "", $2, $4 } END { print "" }'; }
ct_totals() { # sums over all entries: packets bytes packets bytes
	ct_list -p "$1" | grep "dport=5000" | tr ' ' '\n' |
		awk -F= '$1 == "packets" { p[n % 2] += $2 } $1 == "bytes" { b[n++ % 2] += $2 } END { print p[0] + 0, b[0] + 0, p[1] + 0, b[1] + 0 }'
}
totals_agree() { [ "$(ct_totals "$1")" = "$(end_totals)" ]; }
exact() { # exact PROTO ADDRESS FLAGS
	defaults
	ct_set nf_conntrack_acct=1
	rules FLAGS="counter;" NAT="$MASQ" || return
	end_counters
	conv_open x "$cl" "$1" "$2" || return
	if [ "$1" = tcp ]; then conv_ok x echo 3000000; else conv_ok x echo 300 700; fi
	is_offloaded x "$1" || fail "not offloaded"
	# our totals may lag by a second
	busywait $((3000 * SLOW)) totals_agree "$1" || fail "conntrack says $(ct_totals "$1"), the far end $(end_totals)"
	counters
	want_ge "packets" "$(ct_totals "$1" | cut -d' ' -f1)" $((FORWARDED * 2))
	conv_close x
}
for p in tcp udp; do
	tcase "counter: totals of $p IPv4 are exact" exact $p $V4
	tcase "counter: totals of $p IPv6 are exact" exact $p $V6
done

exact_back() { # still exact when the flow has left the table and come again
	defaults
	ct_set nf_conntrack_acct=1 nf_flowtable_udp_timeout=2
	rules FLAGS="counter;" || return
	end_counters
	flow x udp $V4 || return
	conv_ok x echo 200 300
	busywait $((9000 * SLOW)) ct_back -p udp || fail "not handed back"
	busywait 3000 totals_agree udp || fail "after hand-back: conntrack says $(ct_totals udp), the far end $(end_totals)"
	conv_ok x echo 200 300
	is_offloaded x udp || fail "not offloaded again"
	busywait 3000 totals_agree udp || fail "offloaded again: conntrack says $(ct_totals udp), the far end $(end_totals)"
	conv_close x
	defaults
}
tcase "counter: totals are exact across hand-back" exact_back

exact_many() { # many flows at once, on every CPU
	local out
	defaults
	ct_set nf_conntrack_acct=1
	rules FLAGS="counter;" || return
	end_counters
	out=$(at "$cl" "${PY[@]}" traffic parallel tcp $V4 --count 30 --bytes 1000000 --timeout $((60 * SLOW)) \
		--at-end "nsenter --net=/run/netns/$rt conntrack -L -p tcp 2>/dev/null | grep -c '\[OFFLOAD\]' >$TMP/many")
	[ "${out%% *}" = ok ] || fail "parallel: $out"
	want_eq "flows shown as [OFFLOAD]" "$(cat "$TMP/many")" 30
	busywait $((4000 * SLOW)) totals_agree tcp || fail "conntrack says $(ct_totals tcp), the far end $(end_totals)"
}
tcase "counter: totals of 30 flows at once are exact" exact_many

uncounted() { # without the flag only the slow path counts
	local t
	defaults
	ct_set nf_conntrack_acct=1
	rules || return
	flow x udp $V4 || return
	conv_ok x echo 300 500
	sleep 1.2
	t=$(ct_totals udp)
	want_le "packets counted without the flag" "${t%% *}" 20
	want_ge "packets counted without the flag" "${t%% *}" 1
	conv_close x
	defaults
}
tcase "no counter: only the slow path is counted" uncounted

SETUP=setup
run_cases "$@"
