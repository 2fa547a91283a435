# SPDX-License-Identifier: GPL-2.0
# The flowtable under test: modules, the kernel log, the counters of ours, and what must be left behind. Behind lib.sh.
# shellcheck shell=bash disable=SC2034,SC2154 # variables are those of lib.sh and of who sources this

dmesg_mark() {
	local m="nft_offload selftest mark $$.$RANDOM"
	echo "$m" >/dev/kmsg 2>/dev/null; echo "$m"
}
dmesg_since() { dmesg | sed -n "1,/$1/!p"; }
DMESG_BAD='BUG[: ]|WARNING: |Oops|panic|KASAN|UBSAN|kmemleak:|general protection|refcount_t|RCU.*stall|possible recursive|circular locking|inconsistent lock|suspicious RCU|unregister_netdevice: waiting|use-after-free|scheduling while atomic|sleeping function|hw csum failure|ref_tracker: .*leak'
# dmesg_clean_since MARK: prints what is wrong and fails if the log has a report.
dmesg_clean_since() { ! dmesg_since "$1" | grep -E "$DMESG_BAD"; }

loaded() { [ -d "/sys/module/$1" ]; }
# Built into the kernel: there is a folder without a reference count.
unloadable() { [ -e "/sys/module/$1/refcnt" ]; }

load_ours() {
	loaded nft_offload && return
	if [ -n "${NFT_OFFLOAD_KO:-}" ]; then
		modprobe -a nf_tables nf_conntrack nf_nat nf_dup_netdev 2>/dev/null
		insmod "$NFT_OFFLOAD_KO"
	else
		modprobe nft_offload
	fi
}
unload_ours() { ! loaded nft_offload || busywait 5000 rmmod nft_offload; }
load_intree() { modprobe nf_flow_table_inet && modprobe nft_flow_offload; }
# Of the debug kernel they do not load: the relocations that clang makes do not reach.
intree_loads() { [ "${LANE:-}" != debug ] && modprobe -n nf_flow_table_inet 2>/dev/null && modprobe -n nft_flow_offload 2>/dev/null; }
have_intree() { intree_loads || skip "no in-tree flowtable modules that load"; }
unload_intree() {
	local m
	for m in $INTREE; do
		! loaded "$m" || busywait 5000 rmmod "$m" || return 1
	done
}

ft_setup() {
	case $FT in
	ours)	unload_intree 2>"$TMP/out" || skip_all "in-tree flowtable modules are in use"
		load_ours 2>"$TMP/out" || { cat "$TMP/out"; echo "Bail out! nft_offload does not load"; exit 1; }
		grep -qs " /sys/kernel/debug " /proc/mounts || mount -t debugfs none /sys/kernel/debug 2>/dev/null ;;
	intree)	unload_ours 2>"$TMP/out" || skip_all "nft_offload is in use"
		load_intree 2>"$TMP/out" || skip_all "the kernel has no in-tree flowtable modules" ;;
	none)	;;
	*)	echo "Bail out! FT is ours, intree or none"; exit 1 ;;
	esac
}

ft_check() {
	local m
	case $FT in
	ours)	loaded nft_offload || fail "nft_offload is not loaded"
		for m in $INTREE; do ! loaded "$m" || fail "$m is loaded"; done ;;
	intree)	! loaded nft_offload || fail "nft_offload is loaded"
		for m in $INTREE; do loaded "$m" || fail "$m is not loaded"; done ;;
	esac
}

# stat_get NAME: a counter of our module; nothing with FT=intree.
stat_get() {
	local n v
	[ -r $DEBUGFS/stats ] || return 0
	while read -r n v; do [ "$n" != "$1" ] || echo "$v"; done <$DEBUGFS/stats
}
# stat_sum PREFIX: sum of all counters with that prefix.
stat_sum() { [ ! -r $DEBUGFS/stats ] || awk -v n="$1" 'index($1, n) == 1 { s += $2 } END { print s + 0 }' $DEBUGFS/stats; }
stats_save() { [ ! -r $DEBUGFS/stats ] || cat $DEBUGFS/stats >"$TMP/stats.$1"; }
# stats_diff NAME: counters that changed since stats_save NAME.
stats_diff() {
	[ -r "$TMP/stats.$1" ] || return 0
	awk 'NR == FNR { a[$1] = $2; next } { d = $2 - ($2 >= a[$1] ? a[$1] : 0); if (d) print $1, d }' "$TMP/stats.$1" $DEBUGFS/stats
}
flows_are() { [ "$(stat_get flows)" = "$1" ]; }

after_check() {
	local n
	cleanup_all
	for n in "${NS_MADE[@]}"; do
		[ ! -e "/run/netns/$n" ] || fail "namespace $n is still there"
	done
	if [ "$FT" = ours ] && [ -r $DEBUGFS/stats ]; then
		busywait $((15000 * SLOW)) flows_are "${FLOWS_BEFORE:-0}" || fail "flows: $(stat_get flows), ${FLOWS_BEFORE:-0} before the test"
		[ "${FLOWS_BEFORE:-0}" != 0 ] || busywait $((5000 * SLOW)) all_freed ||
			fail "flows_added $(stat_get flows_added), flows_freed $(stat_get flows_freed)"
		stats_diff start | awk '/^(skip|miss|teardown)/ { printf "%s%s=%s", n++ ? ", " : "# ", $1, $2 } END { if (n) print "" }'
	fi
	ft_check
	dmesg_clean_since "$DMESG_MARK" >"$TMP/dmesg" || {
		sed 's/^/# /' "$TMP/dmesg"; fail "kernel log, see above"
	}
}
all_freed() { [ "$(stat_get flows_added)" = "$(stat_get flows_freed)" ]; }
