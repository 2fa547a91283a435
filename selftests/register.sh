#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# How the flowtable comes to be: aliases and loading on demand, what nft accepts
# and refuses, and who serves a flowtable when the in-tree modules are there too.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2
HOOK="hook ingress priority 0; devices = { lan, wan };"

setup() { lan_wan && serve "$sv"; }
clean() { nft_rt flush ruleset; }
unload() { if [ "$FT" = ours ]; then unload_ours; else unload_intree; fi; }
installed() { [ "$(modinfo -n nft_offload 2>/dev/null)" ] || skip "nft_offload is not installed where modprobe looks"; }

# ---- loading

aliases() {
	installed || return
	local a
	modinfo -F alias nft_offload >"$TMP/aliases"
	for a in nft-expr-1-flow_offload nft-expr-2-flow_offload nft-expr-10-flow_offload \
		nf-flowtable-1 nf-flowtable-2 nf-flowtable-10 kmod-nft-offload; do
		grep -qx -- "${a//_/[-_]}" "$TMP/aliases" || fail "no alias $a"
	done
	want_eq "license" "$(modinfo -F license nft_offload)" GPL
	[ -n "$(modinfo -F description nft_offload)" ] || fail "no description"
}
tcase -o "modinfo shows every alias" aliases

by_package_name() {
	installed || return
	clean
	want_ok "unload" unload
	want_ok "modprobe kmod-nft-offload" modprobe kmod-nft-offload
	loaded nft_offload || fail "not loaded"
}
tcase -o "modprobe kmod-nft-offload" by_package_name

autoload() {
	installed || return
	clean
	want_ok "unload" unload
	want_ok "table" nft_rt add table "$1" t
	want_ok "flowtable" nft_rt add flowtable "$1" t f "{ $HOOK }"
	want_ok "chain" nft_rt add chain "$1" t forward '{ type filter hook forward priority 0; }'
	want_ok "rule" nft_rt add rule "$1" t forward flow add @f
	loaded nft_offload || fail "nft did not load nft_offload"
	ft_check
	clean
}
for f in ip ip6 inet; do
	tcase -o "nft add flowtable loads the module, table $f" autoload $f
done

at_once() { # whichever is first, flowtables are those of ours
	local i
	have_intree || return
	for i in 1 2 3 4 5 6 7 8; do
		clean
		want_ok "unload" unload
		unload_intree
		modprobe nf_flow_table_inet & modprobe -q nft_flow_offload &
		want_ok "load" load_ours
		wait
		rules || return
		want_eq "flowtables of ours" "$(grep -c 'table t flowtable f' $DEBUGFS/flowtables)" 1
	done
	clean
	want_ok "unload the in-tree modules" unload_intree
}
tcase -o "both modules are loaded at the same time" at_once

twice() { want_err "insmod" "File exists" insmod "${NFT_OFFLOAD_KO:-$(modinfo -n nft_offload)}"; }
tcase -o "loading it twice is refused" twice

statistics() {
	local n
	clean
	for n in packets_fast bytes_fast flows_added flows flows_freed; do
		grep -qxE "$n [0-9]+" $DEBUGFS/stats || fail "no $n in debugfs"
	done
	for n in skip miss teardown; do grep -qE "^$n\.[a-z0-9_]+ [0-9]+$" $DEBUGFS/stats || fail "no $n reasons in debugfs"; done
	grep -vqE '^[a-z0-9_.]+ [0-9]+$' $DEBUGFS/stats && fail "unexpected line in debugfs stats"
	n=$(wc -l <$DEBUGFS/flowtables)
	rules || return
	want_eq "flowtables listed in debugfs" "$(wc -l <$DEBUGFS/flowtables)" $((n + 1))
	clean
	busywait 3000 lines_are "$n" || fail "deleted flowtable still listed: $(cat $DEBUGFS/flowtables)"
}
lines_are() { [ "$(wc -l <$DEBUGFS/flowtables)" = "$1" ]; }
tcase -o "debugfs: stats and flowtables" statistics

# ---- what nft accepts

base() { clean; nft_rt add table inet t && nft_rt add flowtable inet t f "{ $HOOK }" && nft_rt add chain inet t forward '{ type filter hook forward priority 0; }'; }

roundtrip() {
	local f
	for f in ip ip6 inet; do
		rules FAM=$f FLAGS="counter;" || return
		nft_rt -s list ruleset >"$TMP/list1"
		grep -q 'flow add @f' "$TMP/list1" || fail "rule not listed"
		grep -q 'devices = { .*lan.*wan.* }' "$TMP/list1" || fail "devices not listed"
		grep -q counter "$TMP/list1" || fail "flag not listed"
		want_ok "nft -c of the listing" nft_rt -c -f "$TMP/list1"
		{ echo flush ruleset; cat "$TMP/list1"; } >"$TMP/again"
		want_ok "loading the listing" nft_rt -f "$TMP/again"
		nft_rt -s list ruleset >"$TMP/list2"
		cmp -s "$TMP/list1" "$TMP/list2" || fail "listing differs after loading it"
		want_ok "json" nft_rt -j list flowtables
	done
	BYTES=300000 bypass tcp $V4
}
tcase "listing loads again and lists the same" roundtrip

hardware() { # no hardware behind a veth
	clean
	nft_rt add table inet t
	want_err "flags offload" "Operation not supported" nft_rt add flowtable inet t f "{ $HOOK flags offload; }"
	want_err "nft -c with flags offload" "Operation not supported" nft_rt -c add flowtable inet t f "{ $HOOK flags offload; }"
	want_eq "flowtables" "$(nft_rt list flowtables | grep -c 'flowtable f')" 0
	want_ok "without the flag" nft_rt add flowtable inet t f "{ $HOOK }"
}
tcase "flags offload without hardware: Operation not supported" hardware

twins() {
	base || fail "base"
	want_err "second flowtable with the same device" "File exists" nft_rt add flowtable inet t g "{ hook ingress priority 1; devices = { lan }; }"
	want_ok "same device, another table" nft_rt -f - <<-END
	table ip t2 { flowtable g { hook ingress priority 1; devices = { lan, wan }; }; }
	END
}
tcase "same device twice in one table: File exists" twins

hooks() {
	local h
	base || fail "base"
	for h in prerouting input output postrouting; do
		nft_rt add chain inet t $h "{ type filter hook $h priority 0; }"
		want_err "flow add in $h" "Operation not supported" nft_rt add rule inet t $h flow add @f
	done
	nft_rt add chain inet t plain
	want_ok "flow add in a chain without hook" nft_rt add rule inet t plain flow add @f
	want_ok "jump from forward" nft_rt add rule inet t forward jump plain
	want_err "jump from prerouting" "Operation not supported" nft_rt add rule inet t prerouting jump plain
	# flow offload is the older spelling
	want_ok "flow offload @f" nft_rt add rule inet t forward flow offload @f
}
tcase "flow add is accepted from the forward hook only" hooks

families() {
	clean
	local f
	for f in bridge arp; do
		nft_rt add table $f t 2>/dev/null || continue
		if nft_rt add flowtable $f t f "{ $HOOK }" 2>/dev/null; then fail "flowtable in a $f table"; fi
	done
	clean
}
tcase "no flowtable in tables of other families" families

unknown() {
	base || fail "base"
	want_err "flow add @nosuch" "No such file" nft_rt add rule inet t forward flow add @nosuch
	want_err "delete flowtable nosuch" "No such file" nft_rt delete flowtable inet t nosuch
	want_err "bad hook" "" nft_rt add flowtable inet t g '{ hook prerouting priority 0; devices = { lan }; }'
}
tcase "unknown flowtable: No such file or directory" unknown

busy() {
	base || fail "base"
	want_ok "rule" nft_rt add rule inet t forward flow add @f
	want_err "delete flowtable" "resource busy" nft_rt delete flowtable inet t f
	want_ok "delete rule" nft_rt flush chain inet t forward
	want_ok "delete flowtable" nft_rt delete flowtable inet t f
}
tcase "flowtable in use: Device or resource busy" busy

aborted() { # a transaction that fails leaves nothing
	local n=0 i
	clean
	[ "$FT" != ours ] || n=$(wc -l <$DEBUGFS/flowtables)
	for i in 1 2 3 4 5; do
		want_err "transaction" "No such file" nft_rt -f - <<-END
		table inet t {
			flowtable f {
				$HOOK
			}
			chain forward {
				type filter hook forward priority 0;
				flow add @f
			}
		}
		add rule inet t forward flow add @nosuch
		END
	done
	want_eq "ruleset" "$(nft_rt list ruleset)" ""
	[ "$FT" != ours ] || busywait 3000 lines_are "$n" || fail "left over: $(cat $DEBUGFS/flowtables)"
	rules && BYTES=300000 bypass tcp $V4
}
tcase "aborted transaction leaves nothing" aborted

later() { # a device named before it exists is used once it comes, a second one at another priority
	clean
	ip link add d1 netns "$rt" type dummy
	want_ok "several priorities" nft_rt -f - <<-END
	table inet t {
		flowtable a {
			hook ingress priority -5;
			devices = { lan };
		}
		flowtable b {
			hook ingress priority filter + 5;
			devices = { d1, wan };
			counter;
		}
	}
	END
	want_eq "flowtables" "$(nft_rt list flowtables | grep -c 'flowtable [ab]')" 2
	ipn "$rt" link del d1
	want_ok "listing without the device" nft_rt list ruleset
	clean
}
tcase "several flowtables, a device deleted" later

# ---- the in-tree modules are there as well

# whose: packets of a new flow in a new flowtable; prints ours or other
whose() {
	local s
	s=$(stat_get packets_fast)
	rules || return
	conv_open x "$cl" udp $V4 || return
	conv_ok x echo 30
	ct_list -p udp | grep -q '\[OFFLOAD\]' || fail "not offloaded at all"
	conv_close x
	[ $(($(stat_get packets_fast) - s)) -ge 20 ] && WHOSE=ours || WHOSE=other
}
only_ours() { nft_rt flush ruleset; unload_intree && { loaded nft_offload || load_ours; }; }

intree_first() {
	have_intree || return
	clean
	want_ok "unload" unload_ours
	want_ok "in-tree modules" load_intree
	local m; m=$(dmesg_mark)
	if load_ours 2>"$TMP/out"; then
		whose
		want_eq "served by" "$WHOSE" ours
	else
		dmesg_since "$m" | grep -qi 'nft_offload' || fail "refused without a word: $(cat "$TMP/out")"
		note "refused: $(dmesg_since "$m" | grep -i nft_offload | head -n1)"
	fi
	only_ours || fail "cannot get back to our module alone"
}
tcase -o "in-tree modules first: taken over, or refused with a sentence" intree_first

intree_later() {
	have_intree || return
	only_ours
	want_ok "in-tree modules" load_intree
	whose
	want_eq "served by" "$WHOSE" ours
	only_ours || fail "cannot get back to our module alone"
}
tcase -o "in-tree modules loaded later: still ours" intree_later

mixed() { # the flowtable was made by the in-tree type, the rule comes when ours is there
	have_intree || return
	clean
	want_ok "unload" unload_ours
	want_ok "in-tree modules" load_intree
	base || fail "base"
	if load_ours 2>"$TMP/out"; then
		want_err "flow add" "Operation not supported" nft_rt add rule inet t forward flow add @f
		want_ok "listing" nft_rt list ruleset
		conv_open x "$cl" udp $V4 && conv_ok x echo 30 && conv_close x
	else
		note "refused to load: $(tail -n1 "$TMP/out")"
	fi
	clean
	only_ours || fail "cannot get back to our module alone"
}
tcase -o "flowtable of the in-tree type, rule of ours: refused, no crash" mixed

given_back() { # when ours goes, the in-tree modules serve again
	have_intree || return
	only_ours
	want_ok "in-tree modules" load_intree
	clean
	want_ok "unload" unload_ours
	rules || return
	conv_open x "$cl" udp $V4 || return
	conv_ok x echo 30
	ct_list -p udp | grep -q '\[OFFLOAD\]' || fail "in-tree modules do not offload any more"
	conv_close x
	clean
	only_ours || fail "cannot get back to our module alone"
	whose
	want_eq "served by" "$WHOSE" ours
}
tcase -o "in-tree modules work again when ours is unloaded" given_back

work() { at "$1" cat /proc/net/stat/nft_offload | tr -s ' \n' ' '; }
work_counters() { # of each namespace, and not in the way of the in-tree module's
	only_ours
	clean
	want_eq "work that waits" "$(work "$rt")" "wq_add wq_del wq_stats 0 0 0 "
	want_eq "work that waits, elsewhere" "$(work "$cl")" "wq_add wq_del wq_stats 0 0 0 "
	if have_intree; then
		want_ok "in-tree modules beside ours" load_intree
		want_ok "unload the in-tree modules" unload_intree
	fi
	RET=${RET/4/0}
	want_ok "unload" unload_ours
	! at "$rt" test -e /proc/net/stat/nft_offload || fail "still there without the module"
	want_ok "load" load_ours
}
tcase -o "counters of work for hardware" work_counters

SETUP=setup
run_cases "$@"
