#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Whoever owns a user namespace may have flowtables, as many as he likes, in network namespaces of his
# own. Nobody else waits for what he does with them: their end, transactions that fail, flushes, devices.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2

# shellcheck disable=SC2119 # names that lib.sh has too

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib/owners.sh
. "$HERE/lib/owners.sh"

V4=10.0.2.2 V6=fd00:2::2
MAX=$(sysctl -n net.netfilter.nf_conntrack_max 2>/dev/null)
BUCKETS=$(sysctl -n net.netfilter.nf_conntrack_buckets 2>/dev/null)

empty() { # empty N: as many flowtables, in a table of their own
	local i
	echo "table inet x {"
	for ((i = 0; i < $1; i++)); do echo "flowtable f$i { hook ingress priority 0; }"; done
	echo "}"
}

its_end() {
	local none
	flowtables_end 0 || return
	none=$ELAPSED
	flowtables_end 200 || return
	note "the next namespace's end took $ELAPSED ms, $none ms without flowtables"
	want_le "ms" "$ELAPSED" $((2000 * SLOW + none * 2))
}
tcase -x "a namespace with 200 flowtables ends, and the next one does not wait" its_end

aborted() {
	local begun
	ns_add rt || return
	empty 200 >"$TMP/checked"
	begun=$(now_ms)
	want_ok "a transaction that is only checked" nft_rt -c -f "$TMP/checked"
	want_le "ms until it is" $(($(now_ms) - begun)) $((3000 * SLOW))
	want_eq "tables" "$(nft_rt list tables)" ""
	{ empty 200; echo "delete table inet x"; } >"$TMP/good"
	begun=$(now_ms)
	want_ok "one that does not" nft_rt -f "$TMP/good"
	want_ok "and the next one" nft_rt -f "$TMP/good"
	want_le "ms until they have" $(($(now_ms) - begun)) $((3000 * SLOW))
	cleanup_all
}
tcase -x "200 flowtables are made and taken back at once" aborted

limit() {
	lan_wan && serve "$sv" || return
	rules || return
	want_ok "flowtables" nft_rt "delete table inet t" || return
	empty 1100 >"$TMP/many"
	want_ok "1100 flowtables" nft_rt -f "$TMP/many" || return
	ruleset | sed -n '/^table inet t/,$p' >"$TMP/last"
	want_ok "another one" nft_rt -f "$TMP/last" || return
	want_ok "chain at postrouting" nft_rt -f - <<-END
		table inet z {
			chain post {
				type filter hook postrouting priority 0;
			}
		}
	END
	BYTES=300000 bypass tcp $V4
	BYTES=300000 bypass tcp $V6
	want_ok "all of them go" nft_rt flush ruleset
	forget
	rules || return
	BYTES=300000 bypass tcp $V4
	cleanup_all
}
tcase "a flowtable works beside 1100 others, and so does a chain at postrouting" limit

# a walk over all flows for each of them
elsewhere() {
	local quiet
	many_flows 10000 || return
	want_ge "offloaded" "$(offloads)" 9000
	events_take 10 || return
	quiet=$EVENTS
	flushes_begin 20 || return
	events_take 10 || return
	note "device events, median and worst in ms: $quiet without, $EVENTS with 20 clients"
	want_le "median" "${EVENTS%%.*}" $((100 * SLOW))
	flushes_end
	want_ge "offloaded still" "$(offloads)" 9000
	cleanup_all
}
tcase -o "a storm of flushes delays no device event elsewhere" elsewhere

# nor what the flowtable's own administrator does
meanwhile() {
	local begun out
	many_flows 10000 || return
	flushes_begin 20 || return
	begun=$(now_ms)
	ipn "$rt" link set lan mtu 1400
	busywait $((5000 * SLOW)) flows_are 0 || fail "$(stat_get flows) flows after a change of the MTU"
	out=$(at "$rt" "${PY[@]}" genl flush 2>&1)
	[[ $out = "flows 0" || $out = "EBUSY: other flushes of this network namespace are under way" ]] || fail "flush: $out"
	want_ok "ruleset" nft_rt flush ruleset
	want_le "ms" $(($(now_ms) - begun)) $((8000 * SLOW))
	flushes_end
	grep -v begun "$TMP/hammer" | head -n 3 | grep . && fail "clients have ended"
	cleanup_all
}
tcase -o "devices, a flush and the end of the flowtable during a storm of flushes" meanwhile

# The namespace goes while its flows run: routes, connections and counters of it are not used afterwards.
under_traffic() {
	local i
	for i in 1 2 3; do
		lan_wan && serve "$sv" || return
		rules "FLAGS=counter;" || return
		conv_open a "$cl" udp $V4 && conv_open b "$cl" udp $V6 || return
		conv_ok a echo 50 200
		conv_ok b echo 50 200
		ct_offloaded || fail "not offloaded"
		cleanup_all
		[ "$FT" != ours ] || busywait $((10000 * SLOW)) flows_are "${FLOWS_BEFORE:-0}" || fail "$(stat_get flows) flows are left"
	done
}
tcase "three namespaces in a row end with flows in them" under_traffic

restore() { [ -z "$MAX" ] || sysctl -qw net.netfilter.nf_conntrack_max="$MAX" net.netfilter.nf_conntrack_buckets="$BUCKETS"; }
tcase "limits as before" restore

run_cases "$@"
