#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Connections come and go all the time, and hardware, which mock_hw.ko plays, has room for 64 rules: no
# datagram may be lost, no payload damaged, no rule and no flow left when it is over.
#
#   hwchurn.sh [-t SECONDS]    600 s by hand, 20 s in CI (CI=true)
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
[ "$FT" = ours ] || skip_all "about our module"
# shellcheck source=lib/hw.sh
. "$HERE/lib/hw.sh"

SECONDS_LONG=600
[ "${CI:-}" != true ] || SECONDS_LONG=20
if [ "${1:-}" = -t ]; then SECONDS_LONG=$2; shift 2; fi

# objects CACHE: those in use; the free ones that CPUs keep are given back first
objects() {
	[ -e "/sys/kernel/slab/$1/objects" ] || return 0
	echo 1 >"/sys/kernel/slab/$1/shrink"
	cut -d' ' -f1 "/sys/kernel/slab/$1/objects"
}
objects_are() { [ "$(objects "$1")" = "$2" ]; }
memory() { awk '/^(Slab|VmallocUsed|Percpu):/ { s += $2 } END { print s }' /proc/meminfo; } # KiB

churn() {
	local out c early late
	mock ports=lan,wan capacity=64 || return
	NAT="$(masq)" hw_rules || return
	# The first round fills caches.
	out=$(connections 5); [ "${out%% *}" = ok ] || fail "$out"
	early=$(memory)
	out=$(connections "$SECONDS_LONG"); [ "${out%% *}" = ok ] || fail "$out"
	late=$(memory)
	note "$out"
	note "rules added $(mock_get adds), at the most $(mock_get max_rules), forwarded $(mock_get forwarded), full $(mock_get full), $(hw_get swapped) swapped"
	want_ge "rules added" "$(mock_get adds)" $((SECONDS_LONG * 2))
	want_le "rules at the most" "$(mock_get max_rules)" 64
	# A debug kernel is too slow to fill it.
	[ "${LANE:-}" = debug ] || want_ge "rules at the most" "$(mock_get max_rules)" 64
	want_ge "packets that hardware forwarded" "$(mock_get forwarded)" $((SECONDS_LONG * 20))
	at "$rt" conntrack -F >/dev/null 2>&1
	busywait $((10000 * SLOW)) rules_is 0 || fail "rules: $(cat $MOCK/rules)"
	want_eq "rules as the tier counts them" "$(hw_get rules)" 0
	want_eq "rules added and deleted" "$(hw_get added)" "$(hw_get deleted)"
	for c in nft_offload_flow4 nft_offload_flow6; do
		busywait $((10000 * SLOW)) objects_are "$c" 0 || fail "$c: $(objects "$c") objects"
	done
	# conntrack entries are freed by a worker of conntrack
	busywait $((60000 * SLOW)) less_than $((early + 4096)) || fail "memory: $early KiB after 5 s, $late at the end, $(memory) now"
	clean
	want_eq "commands for unknown rules" "$(mock_get unknown)" 0
	want_eq "duplicate rules" "$(mock_get duplicates)" 0
}
connections() { at "$cl" "${PY[@]}" traffic churn $V4 $V6 --seconds "$1" --threads 40 --timeout 20; }
less_than() { [ "$(memory)" -le "$1" ]; }
tcase "connections come and go, 64 rules fit" churn

SETUP=setup
run_cases .
