#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The owner of a user namespace, an ordinary user, does with flowtables, rules, devices and namespaces what
# it likes, at random (nsowner.py). The kernel does not mind, nothing stays behind, and nobody else waits:
# device changes in the initial namespace are timed meanwhile.
#
#   nsowner.sh [-t SECONDS] [SEED]    30 s; ten minutes by hand, with the debug kernel

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

SECONDS_LONG=30
if [ "${1:-}" = -t ]; then SECONDS_LONG=$2; shift 2; fi
SEED=${1:-$RANDOM$RANDOM}
CACHES="nft_offload_flow4 nft_offload_flow6"
[ "$FT" = ours ] || CACHES=

owner() { setpriv --reuid=65534 --regid=65534 --clear-groups unshare --user --map-root-user --net --mount --pid --fork --kill-child "$@"; }

objects() { # objects CACHE: those in use; the free ones that CPUs keep are given back first
	[ -e "/sys/kernel/slab/$1/objects" ] || return 0
	echo 1 >"/sys/kernel/slab/$1/shrink"
	cut -d' ' -f1 "/sys/kernel/slab/$1/objects"
}
objects_are() { [ "$(objects "$1")" = "$2" ]; }

# events: how long device changes take that have nothing to do with it, until a file is gone
events() {
	while [ -e "$TMP/busy" ]; do
		four >>"$TMP/events"
		sleep 0.2
	done
}
four() {
	local t; t=$(now_ms)
	ip link set nsown0 mtu 1400; ip link set nsown0 up; ip link set nsown0 down; ip link set nsown0 mtu 1500
	echo $(($(now_ms) - t))
}

random() {
	local rc=0 worst alone
	owner true 2>"$TMP/out" || { skip "no user namespaces for ordinary users: $(tail -n1 "$TMP/out")"; return; }
	note "seed $SEED, $SECONDS_LONG s"
	chmod 755 "$TMP"
	mkdir "$TMP/bin"
	cp "$HERE/nsowner.py" "$HERE/churn.py" "$TMP/bin/"
	ip link add nsown0 type dummy
	alone=$(for _ in 1 2 3 4 5; do four; done | sort -n | tail -n1)
	: >"$TMP/busy"; : >"$TMP/events"
	events & PIDS+=($!)
	local events=$!
	# ip keeps the names of namespaces in /run
	# shellcheck disable=SC2016
	owner sh -c 'mount -t proc proc /proc && mount -t tmpfs t /run && ip link set lo up && exec python3 "$@"' sh \
		"$TMP/bin/nsowner.py" --seconds "$SECONDS_LONG" --seed "$SEED" >"$TMP/owner.json" 2>"$TMP/owner.err" || rc=$?
	rm "$TMP/busy"
	busywait $((20000 * SLOW)) gone $events
	ip link del nsown0
	sed 's/^#* */# /' "$TMP/owner.err" | head -n 20
	[ -s "$TMP/owner.json" ] || { fail "nsowner.py, status $rc: $(tail -n1 "$TMP/owner.err")"; return; }
	note "$(jq -c 'del(.failures)' "$TMP/owner.json")"
	want_eq "failures" "$(jq '.failures | length' "$TMP/owner.json")" 0
	want_ge "transactions" "$(jq '.transactions // 0' "$TMP/owner.json")" $((SECONDS_LONG / SLOW))
	want_ge "transactions that were accepted" "$(jq '.transactions - ."transactions refused"' "$TMP/owner.json")" $((SECONDS_LONG / SLOW / 8))
	want_ge "datagrams that came back" "$(jq '.datagrams // 0' "$TMP/owner.json")" $((SECONDS_LONG / SLOW))
	worst=$(sort -n "$TMP/events" | tail -n1)
	note "four device changes elsewhere: alone up to $alone ms; now $(wc -l <"$TMP/events") times, the worst took $worst ms, half of them up to $(sort -n "$TMP/events" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }') ms"
	want_le "four device changes elsewhere, ms" "$worst" $((2000 * SLOW + 4 * alone))
}
tcase "random transactions, devices and traffic of a namespace's owner" random

none_listed() { [ "$(wc -l <$DEBUGFS/flowtables)" = 0 ]; }
gone_all() {
	local c
	if [ "$FT" = ours ]; then
		busywait $((60000 * SLOW)) none_listed || fail "flowtables: $(head -n3 $DEBUGFS/flowtables)"
	fi
	for c in $CACHES; do
		busywait $((20000 * SLOW)) objects_are "$c" 0 || fail "$c: $(objects "$c") objects"
	done
}
tcase "its flowtables and flows are gone with it" gone_all

unloads() { want_ok "unload" unload_ours; want_ok "load" load_ours; }
tcase -o "the module can be unloaded" unloads

run_cases .
