#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Tracepoints nft_offload:*, as tracefs shows them; and the one-liners of docs/observability.md where
# there is a bpftrace.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib/hw.sh
. "$(dirname "$0")/lib/hw.sh"

EVENTS="flow_add flow_skip flow_miss flow_revalidate hw_add hw_decline hw_remove flow_teardown gc_run"
TRACING=/sys/kernel/tracing/instances/nft_offload.$$

begin() { { [ "$FT" != ours ] || mkdir "$TRACING"; } && setup; }
cleanup() {
	[ ! -d "$TRACING" ] || rmdir "$TRACING"
	cleanup_all
	rm -rf "$TMP"
}
# traced EVENT[:FILTER]...: from now on these events, and no others, are kept
traced() {
	local e
	off
	: >"$TRACING/trace"
	for e in "$@"; do
		[[ $e != *:* ]] || echo "${e#*:}" >"$TRACING/events/nft_offload/${e%%:*}/filter" || fail "filter $e"
		echo 1 >"$TRACING/events/nft_offload/${e%%:*}/enable" || fail "event $e"
	done
}
off() {
	local e
	echo 0 >"$TRACING/events/nft_offload/enable"
	for e in $EVENTS; do echo 0 >"$TRACING/events/nft_offload/$e/filter"; done
}
events() { sed -n "s/^.* $1: //p" "$TRACING/trace"; }
# event EVENT PATTERN...: the first event that has all of these
event() {
	local e; e=$(events "$1"); shift
	local p; for p in "$@"; do e=$(grep -E -- "(^| )$p( |\$)" <<<"$e") || return; done
	[ -n "$e" ] && head -n1 <<<"$e"
}
saw() { busywait $((5000 * SLOW)) event "$@" >/dev/null || fail "no event $*: $(events "$1" | head -n 3 | tr '\n' ';')"; }
saw_not() { ! event "$@" >/dev/null || fail "event $(event "$@")"; }
# value NAME of a line
value() { sed -nE "s/.*(^| )$1=([^ ]*).*/\2/p"; }
inum() { stat -Lc %i "/run/netns/$1"; }

all_there() {
	local e
	for e in $EVENTS; do
		[ -e "$TRACING/events/nft_offload/$e/format" ] || fail "no event $e"
	done
	want_eq "events" "$(find "$TRACING/events/nft_offload" -mindepth 1 -maxdepth 1 -type d | wc -l)" "$(wc -w <<<"$EVENTS")"
}
tcase -o "every event is there" all_there

life() { # VERSION: of a flow, from the first packet to the end
	local src dst here=10.0.1.2 there=$V4 e
	[ "$1" = 4 ] || here=fd00:1::2 there=$V6
	src=$here dst=$there
	[ "$1" = 6 ] || src=::ffff:$here dst=::ffff:$there
	rules FLAGS="counter;" "FWD=ct mark set 0x17;" || return
	at "$rt" sysctl -qw net.netfilter.nf_conntrack_acct=1
	traced flow_add flow_teardown gc_run flow_revalidate
	conv_open x "$cl" udp "$there" || return
	conv_ok x echo 50 200
	local conn="protocol=17 saddr=$src daddr=$dst dport=$PORT zone=0 mark=0x17"
	conn+=" netns=$(inum "$rt")"
	# shellcheck disable=SC2086
	saw flow_add $conn iif=lan oif=wan table=t flowtable=f "reply_saddr=$dst" "reply_daddr=$src" "reply_sport=$PORT"
	# shellcheck disable=SC2086
	saw flow_revalidate $conn dir=reply reason=ruleset
	# shellcheck disable=SC2086
	saw flow_revalidate $conn dir=reply reason=answered
	saw_not flow_teardown
	sleep 0.3
	want_eq "flushed" "$(at "$rt" "${PY[@]}" genl flush)" "flows 1"
	# shellcheck disable=SC2086
	saw flow_teardown $conn reason=flush
	e=$(event flow_teardown reason=flush)
	want_ge "age in ms" "$(value age_ms <<<"$e")" 300
	want_le "age in ms" "$(value age_ms <<<"$e")" 60000
	want_ge "packets" "$(value packets <<<"$e")" 50
	want_ge "bytes of answers" "$(value reply_bytes <<<"$e")" $((50 * 228))
	saw gc_run table=t flowtable=f removed=1 flows=0
	e=$(event gc_run removed=1)
	want_ge "how long that took in ns" "$(value duration_ns <<<"$e")" 100
	want_le "the next run in ms" "$(value pause_ms <<<"$e")" 1100
	conv_close x
	at "$rt" sysctl -qw net.netfilter.nf_conntrack_acct=0
}
tcase -o "IPv4: a flow from add to teardown" life 4
tcase -o "IPv6: a flow from add to teardown" life 6

nat() { # both tuples, as conntrack has them
	rules "NAT=$(masq)" || return
	traced flow_add
	conv_open x "$cl" tcp $V4 || return
	conv_ok x echo 20000
	saw flow_add protocol=6 saddr=::ffff:10.0.1.2 "daddr=::ffff:$V4" "reply_saddr=::ffff:$V4" reply_daddr=::ffff:10.0.2.1
	conv_close x
}
tcase -o "NAT: both tuples" nat

skipped() {
	rules DEVS=wan || return
	traced flow_skip
	conv_open x "$cl" udp $V4 || return
	conv_ok x echo 20 200
	saw flow_skip protocol=17 saddr=::ffff:10.0.1.2 "daddr=::ffff:$V4" "dport=$PORT" iif=lan reason=device_not_listed table=t flowtable=f
	conv_close x
}
tcase -o "why a connection is not added" skipped

missed() { # VERSION
	local src=10.0.1.2 dst=$V4
	[ "$1" = 4 ] || src=fd00:1::2 dst=$V6
	rules || return
	traced flow_miss
	conv_open x "$cl" tcp $dst || return
	conv_ok x echo 20000
	conv_close x
	[ "$1" = 6 ] || { src=::ffff:$src dst=::ffff:$dst; }
	saw flow_miss protocol=6 "saddr=$src" "daddr=$dst" "dport=$PORT" iif=lan reason=no_entry
	saw flow_miss protocol=6 "saddr=$dst" "daddr=$src" "sport=$PORT" iif=wan reason=tcp_flags
}
tcase -o "IPv4: packets on the slow path" missed 4
tcase -o "IPv6: packets on the slow path" missed 6

counted() { # as many events as the counters say, and none when off
	local n
	rules || return
	conv_open x "$cl" tcp $V4 || return
	conv_ok x echo 20000
	traced 'flow_miss:reason == "tcp_flags"'
	n=$(stat_get miss.tcp_flags)
	conv_close x
	busywait 3000 ct_back -p tcp || fail "no end: $(ct_list -p tcp)"
	n=$(($(stat_get miss.tcp_flags) - n))
	want_ge "FINs" "$n" 1
	want_eq "events" "$(events flow_miss | wc -l)" "$n"
	want_eq "others" "$(events flow_miss | grep -vc reason=tcp_flags)" 0
	traced "flow_add:dport == 1" "flow_teardown:dport == $PORT"
	bypass udp $V4
	genl_flush
	saw flow_teardown "dport=$PORT"
	want_eq "events of other ports" "$(events flow_add)" ""
	off
	: >"$TRACING/trace"
	bypass udp $V4
	want_eq "events when off" "$(grep -vc '^#' "$TRACING/trace")" 0
}
genl_flush() { at "$rt" "${PY[@]}" genl flush >/dev/null; }
tcase -o "filters; as many events as are counted; none when off" counted

asked() { # after a commit, one packet of each direction
	rules || return
	conv_open x "$cl" udp $V4 || return
	conv_ok x echo 50 200
	traced flow_revalidate
	nft_rt add rule inet t forward counter
	conv_ok x echo 20 200
	saw flow_revalidate dir=original reason=ruleset
	saw flow_revalidate dir=original reason=answered
	saw flow_revalidate dir=reply reason=ruleset
	want_le "questions" "$(events flow_revalidate | grep -c reason=ruleset)" 2
	conv_close x
}
tcase -o "the ruleset is asked after a commit" asked

hardware() {
	mock ports=lan,wan || return
	hw_rules || return
	traced hw_add hw_decline hw_remove
	heavy x udp $V4 || return
	saw hw_add protocol=17 saddr=::ffff:10.0.1.2 "daddr=::ffff:$V4" dir=original iif=lan engine=tc
	saw hw_add protocol=17 saddr=::ffff:10.0.1.2 "daddr=::ffff:$V4" dir=reply iif=wan engine=tc
	saw_not hw_decline
	genl_flush
	saw hw_remove dir=original iif=lan reason=teardown
	saw hw_remove dir=reply iif=wan reason=teardown
	conv_close x
	clean
	# and what drivers refuse
	mock ports=lan,wan || return
	mock_set fail_add 95; mock_set fail_count -1
	hw_rules || return
	traced hw_add hw_decline hw_remove
	conv_open x "$cl" udp $V4 || return
	busywait $((8000 * SLOW)) declines_x || fail "not declined: $(cat "$HW")"
	saw hw_decline "daddr=::ffff:$V4" dir=original iif=lan reason=driver error=-95
	saw_not hw_add
	conv_close x
	mock_set fail_count 0
	clean
	no_mock
}
declines_x() { conv_cmd x echo 20 1000 >/dev/null; hw_ge decline.unsupported.driver 1; }
tcase -o "hardware: rules that come and go, and are declined" hardware

bpf_lines() {
	local prog n=0
	command -v "${KSFT_BPFTRACE:-bpftrace}" >/dev/null || { skip "needs bpftrace"; return; }
	rules DEVS=wan || return
	while read -r prog <&7; do
		n=$((n + 1))
		"${KSFT_BPFTRACE:-bpftrace}" -e "$prog interval:s:60 { exit(); }" >"$TMP/bpf.out" 2>"$TMP/bpf.err" &
		local pid=$!
		busywait $((60000 * SLOW)) attached || fail "$prog: $(head -n 3 "$TMP/bpf.err")"
		conv_open x "$cl" udp $V4 || return
		conv_ok x echo 20 200
		rules || return
		conv_ok x echo 20 200
		genl_flush
		conv_close x
		kill -INT $pid; wait $pid
		want_ge "lines of $prog" "$(grep -c '[0-9]' "$TMP/bpf.out")" 1
		# A version that cannot read a string prints an empty one.
		[[ $prog != *reason* ]] || want_ge "reasons of $prog" "$(grep -cE '(\[| )[a-z_]{4,}(,| )' "$TMP/bpf.out")" 1
		note "$(tail -n 2 "$TMP/bpf.out" | tr '\n' ' ')"
		rules DEVS=wan || return
	done 7< <(sed -n "s/^bpftrace -e '\(.*\)'\$/\1/p" "$(dirname "$HERE")/docs/observability.md")
	want_ge "one-liners" $n 4
}
attached() { grep -q Attach "$TMP/bpf.out" "$TMP/bpf.err"; }
tcase -o "the one-liners of the documentation" bpf_lines

SETUP=begin
run_cases "$@"
