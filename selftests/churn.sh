#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Churn: routers with bridges and VLANs, their rulesets, devices and addresses come, change and go at
# random under TCP and UDP traffic (churn.py). Nothing may crash, leak or stay behind, and no payload
# may be damaged; the module stays loaded as long as it is used.
#
#   churn.sh [-t SECONDS] [SEED]    600 s by hand, 20 s in CI (CI=true)
#
#      client ---- [port | bridge | VLAN] router [port | bridge | VLAN] ---- server      three times

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

SECONDS_LONG=600
[ "${CI:-}" != true ] || SECONDS_LONG=20
if [ "${1:-}" = -t ]; then SECONDS_LONG=$2; shift 2; fi
SEED=${1:-$RANDOM$RANDOM}
PREFIX=churn$$-
CACHES="nft_offload_flow4 nft_offload_flow6"
[ "$FT" = ours ] || CACHES=

# objects CACHE: those in use; the free ones that CPUs keep are given back first
objects() {
	[ -e "/sys/kernel/slab/$1/objects" ] || return 0
	echo 1 >"/sys/kernel/slab/$1/shrink"
	cut -d' ' -f1 "/sys/kernel/slab/$1/objects"
}
objects_are() { [ "$(objects "$1")" = "$2" ]; }
# namespaces: all that exist; the kernel frees those that have ended when the next one ends
namespaces() {
	ip netns add "$PREFIX-last" && ip netns del "$PREFIX-last"
	objects net_namespace
}
# no_more_namespaces N: one is made and ends every ten seconds only: where that takes long, those
# that are about to go would be counted as well.
no_more_namespaces() {
	if [ $SECONDS -ge "${NEXT_LAST:-0}" ]; then
		NEXT_LAST=$((SECONDS + 10))
		namespaces >/dev/null
	fi
	sleep 0.5
	[ "$(objects net_namespace)" -le "$1" ] 2>/dev/null
}

NAMESPACES=
# those of the test before may still be going
for n in 1 2 3 4 5 6; do
	n=$(namespaces)
	[ "${NAMESPACES:-99}" -le "${n:-99}" ] || NAMESPACES=$n
	sleep 0.3
done

churn() {
	local module=
	[ "$FT" != ours ] || module=nft_offload
	note "seed $SEED, $SECONDS_LONG s"
	python3 "$HERE/churn.py" --seconds "$SECONDS_LONG" --seed "$SEED" --prefix "$PREFIX" --module "$module" >"$TMP/churn.json" 2>"$TMP/churn.err"
	sed 's/^#* */# /' "$TMP/churn.err" | head -n 20
	[ -s "$TMP/churn.json" ] || { fail "churn.py: $(tail -n1 "$TMP/churn.err")"; return; }
	note "$(jq -c 'del(.failures)' "$TMP/churn.json")"
	note "flows_added $(stat_get flows_added), packets_fast $(stat_get packets_fast), since the module was loaded last"
	want_eq "failures" "$(jq '.failures | length' "$TMP/churn.json")" 0
	want_ge "datagrams that came back" "$(jq '.datagrams // 0' "$TMP/churn.json")" $((SECONDS_LONG * 5))
	want_ge "bytes that came back" "$(jq '.bytes // 0' "$TMP/churn.json")" $((SECONDS_LONG * 10000))
	want_ge "rulesets loaded" "$(jq '."rulesets loaded" // 0' "$TMP/churn.json")" "$(jq '."rulesets refused" // 0' "$TMP/churn.json")"
	[ -z "$module" ] || want_ge "attempts to unload that were refused" "$(jq '."unload refused" // 0' "$TMP/churn.json")" 1
}
tcase "changes under traffic" churn

gone_all() {
	local n
	for n in $(ip netns list | grep -o "^${PREFIX}[^ ]*"); do fail "namespace $n is still there"; done
	# Namespaces are taken down one after the other.
	[ -z "$NAMESPACES" ] || busywait $((120000 * SLOW)) no_more_namespaces "$NAMESPACES" ||
		fail "network namespaces: $(objects net_namespace), $NAMESPACES before"
}
tcase "network namespaces are gone, and so is what refers to their devices" gone_all

freed() {
	local c
	for c in $CACHES; do
		busywait $((10000 * SLOW)) objects_are "$c" 0 || fail "$c: $(objects "$c") objects"
		note "$c: $(objects "$c") objects"
	done
}
tcase "no flow is left in the slab caches" freed

unloads() { want_ok "unload" unload_ours; want_ok "load" load_ours; }
tcase -o "the module can be unloaded" unloads

run_cases .
