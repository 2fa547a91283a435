#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Faults: every allocation that the module makes, and that is made for it, fails in turn, while it is loaded,
# rulesets come and go, flows are made, hardware is bound (mock_hw.ko) and namespaces end. Who asked is told
# in words, no packet and no connection is lost, nothing leaks. Needs the debug kernel: fault injection, and
# a filter by which only the module's own requests fail.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
[ "$FT" = ours ] || skip_all "about our module"
# shellcheck source=lib/hw.sh
. "$HERE/lib/hw.sh"
DEBUG=/sys/kernel/debug
KINDS="failslab fail_page_alloc"
for k in $KINDS; do
	[ -e $DEBUG/$k/require-start ] || skip_all "this kernel has no fault injection with a filter for callers ($k)"
done
clean() { nft_rt flush ruleset; } # lib/hw.sh has one that asks the NIC
LOTS=1000000
TOTAL=0

# ---- what fails

knob() { local k; for k in $KINDS; do [ ! -e "$DEBUG/$k/$1" ] || echo "$2" >"$DEBUG/$k/$1"; done; }
# text PATTERN: where the functions with such names (and, for those of a module, such a module) begin and end
text() {
	awk '$2 ~ /[tT]/ { print $1, $3, $4 }' /proc/kallsyms | sort |
		awk -v p="$1" -v m="${2:-}" 'in_it { end = $1; in_it = 0 }
			$2 ~ p && $3 == m { if (!begin) begin = $1; in_it = 1; end = $1 }
			END { print "0x" begin, "0x" end }'
}
# only START END: what has a caller between these addresses
only() { knob require-start "$1"; knob require-end "$2"; }
# only_module: what nft_offload asks for, where it is loaded now
only_module() {
	local a b
	read -r a b < <(text . "[nft_offload]")
	only "$a" "$(printf '0x%x' $((b + 4096)))"
}
# only_init: what initcalls do, wherever the module will be
only_init() {
	local a b
	read -r a b < <(text '^do_one_initcall$')
	only "$a" "$b"
}
spent() { local k n=0; for k in $KINDS; do n=$((n + LOTS - $(cat $DEBUG/$k/times))); done; echo $n; }
ready() { # nothing fails yet
	local a b
	knob probability 0; knob interval 1; knob verbose 0; knob space 0; knob times $LOTS; knob stacktrace-depth 32
	# kmemleak's notes about an allocation are not the module's; these functions lie side by side
	read -r a b < <(text '^kmemleak_(alloc|scan_area|ignore_phys)$')
	knob reject-start "$a"; knob reject-end "$b"
	knob ignore-gfp-wait 0; knob ignore-gfp-highmem 0; knob min-order 0
}
every() { knob interval "$1"; knob probability 100; } # every N-th request
never() { knob probability 0; }
cleanup() { never; cleanup_all; ! loaded mock_hw || rmmod mock_hw; rm -rf "$TMP"; }

# nth N CMD...: of what the module asks for while CMD runs, the N-th request fails
# shellcheck disable=SC2016
nth() { sh -c 'echo "$1" >/proc/thread-self/fail-nth && shift && exec "$@"' nth "$@"; }
# in_turn WHAT AFTER CMD...: the first request fails, then the second, until CMD has no more; AFTER 0|1 (has it
# worked?) looks around each time and makes all as it was
in_turn() {
	local what=$1 after=$2 n=0 before hit ok words=0
	shift 2
	: >"$TMP/words"
	while [ $((n += 1)) -lt 500 ]; do
		before=$(spent)
		ok=1; nth $n "$@" >"$TMP/said" 2>&1 || ok=0
		hit=$(($(spent) - before))
		if [ $ok = 0 ]; then
			grep -E 'Cannot allocate memory|ENOMEM|Out of memory' "$TMP/said" >>"$TMP/words" ||
				fail "$what, request $n: not in words: $(tail -n2 "$TMP/said" | tr '\n' ' ')"
			words=$((words + 1))
		fi
		$after $ok || { fail "$what: after the failed request $n"; break; }
		[ $hit != 0 ] || break
		TOTAL=$((TOTAL + hit))
	done
	[ $ok = 1 ] || fail "$what: fails without a fault"
	note "$what: $((n - 1)) requests, each failed once; $words times that was an error"
	want_ge "$what: requests" $((n - 1)) "${LEAST:-1}"
}

# ---- loading

after_load() {
	if [ "$1" = 1 ]; then
		loaded nft_offload && busywait 20000 rmmod nft_offload
	else
		! loaded nft_offload
	fi
}
load() {
	clean
	want_ok "rmmod" unload_ours || return
	ready; only_init
	LEAST=20 in_turn "loading" after_load insmod "$NFT_OFFLOAD_KO"
	want_ok "loading afterwards" load_ours
	FLOWS_BEFORE=$(stat_get flows)
}
tcase "loading the module" load

# ---- rulesets

lines() { wc -l <$DEBUGFS/flowtables; }
lines_are() { [ "$(lines)" = "$1" ]; }
after_new() { # a ruleset was to come where there was none
	if [ "$1" = 0 ]; then
		[ -z "$(nft_rt list ruleset)" ] || return
	else
		nft_rt flush ruleset || return
	fi
	busywait 20000 lines_are 0
}
after_replaced() { # by one that has the priority 5
	if [ "$1" = 0 ]; then
		nft_rt list flowtables | grep -q 'priority filter$' || { note "$(nft_rt list flowtables)"; return 1; }
	else
		nft_rt -f "$TMP/old" || return
	fi
	busywait 20000 lines_are "$LINES_OLD" && conv_ok x echo 3
}
rulesets() { # rulesets FLAGS
	local f
	ready; only_module
	clean
	busywait 20000 lines_are 0 || fail "flowtables before: $(cat $DEBUGFS/flowtables)"
	for f in inet ip ip6; do
		{ echo "flush ruleset"; FAM=$f FLAGS="counter; $1" ruleset; } >"$TMP/new"
		in_turn "a ruleset, table $f" after_new nsenter "--net=/run/netns/$rt" -- nft -f "$TMP/new"
	done
	# an older one stays, with its flows
	{ echo "flush ruleset"; FLAGS="counter; $1" ruleset; } >"$TMP/old"
	sed 's/hook ingress priority 0; devices = { lan, wan }/hook ingress priority 5; devices = { lan, wan }/' "$TMP/old" >"$TMP/new"
	want_ok "the older ruleset" nft_rt -f "$TMP/old"
	LINES_OLD=$(lines)
	conv_open x "$cl" udp $V4 || return
	conv_ok x echo 20
	in_turn "a ruleset that replaces another" after_replaced nsenter "--net=/run/netns/$rt" -- nft -f "$TMP/new"
	conv_close x
	clean
}
tcase "rulesets" rulesets ""

listing() { nft_rt delete flowtable inet t f "{ hook ingress priority 0; devices = { d1 }; }" 2>/dev/null; nft_rt list flowtables >"$TMP/f"; grep -q lan "$TMP/f" && ! grep -q d1 "$TMP/f"; }
after_any() { :; }
others() {
	ready; only_module
	rules FLAGS="counter;" || return
	ipn "$rt" link add d1 type dummy
	LEAST=0 in_turn "a device more" listing nsenter "--net=/run/netns/$rt" -- nft add flowtable inet t f "{ hook ingress priority 0; devices = { d1 }; }"
	ipn "$rt" link del d1
	conv_open x "$cl" udp $V4 || return
	conv_ok x echo 20
	LEAST=1 in_turn "flushing flows" after_any nsenter "--net=/run/netns/$rt" -- "${PY[@]}" genl flush table=t
	for f in stats flowtables hardware; do
		LEAST=0 in_turn "reading $f" after_any cat "$DEBUGFS/$f"
	done
	LEAST=0 in_turn "listing" after_any nsenter "--net=/run/netns/$rt" -- nft list ruleset
	conv_ok x echo 20
	conv_close x
	clean
}
tcase "devices, flushing, reading" others

# ---- flows

# settled: all flows have left when they were idle; their entries are there, with the timeouts of conntrack
marked() { ct_list | grep -cE '\[(HW_)?OFFLOAD\]'; }
marked_as_flows() { [ "$(marked)" = "$(stat_get flows)" ]; }
settled() {
	never
	busywait $((10000 * SLOW)) marked_as_flows || fail "$(marked) entries with [OFFLOAD], $(stat_get flows) flows"
	ct_set nf_flowtable_udp_timeout=1 nf_flowtable_tcp_timeout=1
	busywait $((15000 * SLOW)) flows_are "$FLOWS_BEFORE" || fail "flows: $(stat_get flows), $FLOWS_BEFORE before"
	ct_set nf_flowtable_udp_timeout=300 nf_flowtable_tcp_timeout=300
	want_eq "entries with [OFFLOAD], without flows" "$(marked)" 0
	want_le "the longest timeout" "$(ct_list | awk '$3 > n { n = $3 } END { print n + 0 }')" 600
}
# under K CMD...: while every K-th request fails
under() {
	local before
	before=$(spent)
	every "$1"
	"${@:2}"
	never
	HIT=$(($(spent) - before))
	TOTAL=$((TOTAL + HIT))
}
talks() { # nothing is lost meanwhile: it takes the slow path
	local out
	out=$(at "$cl" "${PY[@]}" traffic churn $V6 $TAGGED --seconds 3 --threads 6 --timeout $((10 * SLOW)))
	# A softirq runs on the stack of what it interrupts: when that is the module's worker, one datagram
	# may have failed for its sender.
	[[ $out = ok\ * || $out =~ ^bad\ 1\ failed:\ udp ]] || fail "$out"
}
wave() { at "$cl" "${PY[@]}" streams wave eth0 "$(mac "$rt" lan)" --flows 1500 --seed "$1" --repeat 3 >/dev/null; }
flows() {
	local k
	ready; only_module
	# A datagram is answered from the address that the way back has.
	ipn "$sv" route replace 10.0.1.0/24 via 10.0.7.1
	rules FLAGS="counter;" || return
	ct_set nf_conntrack_tcp_timeout_established=500
	for k in 1 2 5; do
		forget
		under $k talks
		note "every ${k}th request: $HIT failed while connections came and went"
		settled
		under $k wave $k
		note "every ${k}th request: $HIT failed in a wave of new connections"
		settled
	done
	forget
	ipn "$sv" route del 10.0.1.0/24 via 10.0.7.1
	BYTES=300000 bypass tcp $V4
	clean
}
tcase "flows" flows

events() { # devices and neighbours change meanwhile
	ipn "$rt" link set wan mtu 1400; ipn "$rt" neigh flush dev wan; ipn "$rt" link set lan down; ipn "$rt" link set lan up
	ipn "$rt" link set wan mtu 1500
	ipn "$rt" route flush cache
	at "$rt" sysctl -qw net.ipv4.ip_forward=1
}
changes() {
	local k
	ready; only_module
	rules FLAGS="counter;" || return
	ipn "$cl" route replace default via 10.0.1.1
	conv_open x "$cl" udp $V4 || return
	for k in 1 2; do
		conv_ok x echo 20
		under $k events
		ipn "$cl" route replace default via 10.0.1.1
		behind
		busywait 10000 at "$cl" ping -c1 -W1 -q $V4 || fail "no way after changes"
		conv_ok x echo 20
		note "every ${k}th request: $HIT failed while devices changed"
	done
	conv_close x
	settled
	clean
}
tcase "devices and neighbours change" changes

# ---- hardware

hardware() {
	local k n
	ready; only_module
	mock ports=lan,wan || return
	LINES_OLD=0
	{ echo "flush ruleset"; FLAGS="counter; flags offload;" ruleset; } >"$TMP/new"
	in_turn "a ruleset with hardware" after_hardware nsenter "--net=/run/netns/$rt" -- nft -f "$TMP/new"
	for k in 1 3; do
		hw_rules || return
		ct_set nf_conntrack_tcp_timeout_established=500
		conv_open x "$cl" udp $V4 || return
		under $k busy x
		n=$HIT
		busywait 20000 heavier x udp || fail "every ${k}th: not in hardware when nothing fails any more: $(grep -E '^decline' "$HW" | tr '\n' ' ')"
		under $k busy x
		note "every ${k}th request: $((n + HIT)) failed around hardware"
		conv_close x
		under $k at "$rt" conntrack -F >/dev/null 2>&1
		busywait $((10000 * SLOW)) rules_is 0 || fail "rules: $(cat $MOCK/rules)"
		under $k nft_rt flush ruleset
		busywait $((10000 * SLOW)) flows_are "$FLOWS_BEFORE" || fail "flows: $(stat_get flows)"
		want_eq "ports bound" "$(mock_get ports)" 0
		want_eq "commands for unknown rules" "$(mock_get unknown)" 0
	done
	want_ok "rmmod mock_hw" no_mock
}
busy() { local i; for i in 1 2 3 4 5 6; do conv_ok "$1" echo 20 1000; done; }
after_hardware() { after_new "$1" && want_eq "ports bound" "$(mock_get ports)" 0; }
tcase "hardware" hardware

# ---- namespaces

namespaces() {
	local k n
	ready; only_module
	for k in 1 2; do
		rules FLAGS="counter;" || return
		wave 1$k
		want_ge "flows" "$(stat_get flows)" 100
		every $k
		n=$(spent)
		cleanup_all
		busywait $((30000 * SLOW)) flows_are "$FLOWS_BEFORE" || fail "flows after the namespace: $(stat_get flows)"
		busywait $((30000 * SLOW)) lines_are 0 || fail "flowtables after the namespace: $(cat $DEBUGFS/flowtables)"
		never
		TOTAL=$((TOTAL + $(spent) - n))
		world || return
	done
}
behind() { # what the waves come from; gone when lan goes down
	ipn "$rt" route replace 10.1.0.0/16 via 10.0.1.2
	ipn "$rt" -6 route replace fd00:11::/64 via fd00:1::2
}
world() {
	setup && tagged 802.1Q.7 || return
	ipn "$sv" route del 10.0.1.0/24 via 10.0.7.1
	behind
	# a wave of datagrams ends here
	at "$sv" nft -f - <<-'END'
		table netdev far {
			chain in {
				type filter hook ingress device eth0 priority 0;
				udp dport 7000-7999 drop
			}
		}
	END
}
tcase "namespaces end" namespaces

count() {
	note "$TOTAL requests were made to fail"
	[ "$CASES" -gt 8 ] || { skip "not all cases were run: $TOTAL requests failed"; return; }
	want_ge "requests that failed" "$TOTAL" 500
}
tcase "at least 500 requests failed" count

CASES=0
[ $# != 0 ] || CASES=9
SETUP=world
run_cases "$@"
