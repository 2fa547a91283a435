# SPDX-License-Identifier: GPL-2.0
# Shared by every selftest: KTAP output, the flowtable under test, namespaces,
# traffic, counters and the three proofs that packets went around the forward
# chain. A test sources this file, names its cases with tcase and ends with
# run_cases "$@"; SETUP names a function to run before the first. Environment:
#
#   FT=ours     nft_offload.ko (the default)
#   FT=intree   the kernel's own nf_flow_table_inet.ko + nft_flow_offload.ko
#   FT=none     no flowtable at all: every case that claims a bypass must fail
#
# Arguments of a test: patterns (grep -E) of the cases to run; -l lists them. With KSFT_TIMES=1 each case
# says how long it took.
# shellcheck shell=bash disable=SC2034

HERE=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
FT=${FT:-ours}
TMP=$(mktemp -d /tmp/nft_offload.XXXXXX)
DEBUGFS=/sys/kernel/debug/nft_offload
INTREE="nft_flow_offload nf_flow_table_inet nf_flow_table"
KSFT_SKIP=4
export LC_ALL=C PYTHONDONTWRITEBYTECODE=1
ulimit -c 0

# ---------------------------------------------------------------- KTAP
# A case is a function. It calls fail, want_* or skip; it has passed when
# nothing complained.

DESC=() CMD=() KIND=() NOTE=
RET=0

note() { printf '# %s\n' "$*"; }
fail() { RET=1; note "FAIL: $*"; return 1; }
skip() { RET=4; NOTE=$*; return 4; }

want_eq() { [ "$2" = "$3" ] || fail "$1: '$2', expected '$3'"; }
want_ge() { [ "${2:-x}" -ge "$3" ] 2>/dev/null || fail "$1: '$2', expected at least $3"; }
want_le() { [ "${2:-x}" -le "$3" ] 2>/dev/null || fail "$1: '$2', expected at most $3"; }
want_ok() { local what=$1; shift; "$@" >"$TMP/out" 2>&1 || fail "$what: $(tail -n 3 "$TMP/out" | tr '\n' ' ')"; }
# want_err WHAT PATTERN CMD...: CMD must fail and say PATTERN.
want_err() {
	local what=$1 pat=$2; shift 2
	if "$@" >"$TMP/out" 2>&1; then fail "$what: unexpectedly accepted"; return; fi
	grep -q -- "$pat" "$TMP/out" || fail "$what: no '$pat' in: $(tail -n 3 "$TMP/out" | tr '\n' ' ')"
}

# tcase [-x] [-o] DESCRIPTION FUNCTION [ARG...]
#   -x  a known defect of the in-tree code: expected to fail with FT=intree
#   -o  about our module: skipped unless FT=ours
tcase() {
	local kind=
	while :; do
		case $1 in
		-x) kind+=x; shift ;;
		-o) kind+=o; shift ;;
		*) break ;;
		esac
	done
	KIND+=("$kind") DESC+=("$1"); shift
	CMD+=("$(printf '%q ' "$@")")
}

run_cases() {
	local i n=0 bad=0 keep t0 want=() pat=${1:-.}
	if [ "$pat" = -l ]; then printf '%s\n' "${DESC[@]}"; exit 0; fi
	shift $(($# ? 1 : 0))
	for i in "$@"; do pat+="|$i"; done

	trap cleanup EXIT
	trap 'exit 1' INT TERM HUP
	echo "TAP version 13"
	[ "$(id -u)" = 0 ] || skip_all "needs root"
	for i in nft conntrack python3 ip; do
		command -v $i >/dev/null || skip_all "needs $i"
	done
	ft_setup
	for i in "${!DESC[@]}"; do
		grep -qE -- "$pat" <<<"${DESC[i]}" && want+=("$i")
	done
	[ ${#want[@]} -gt 0 ] || { echo "Bail out! no case is called '$pat'"; exit 1; }
	echo "1..$((${#want[@]} + 2))"
	DMESG_MARK=$(dmesg_mark)
	FLOWS_BEFORE=$(stat_get flows)
	KIND+=("") DESC+=("only the flowtable under test is loaded ($FT)") CMD+=(ft_check)
	KIND+=("") DESC+=("nothing is left behind, kernel log is clean") CMD+=(after_check)
	stats_save start
	if [ -n "${SETUP:-}" ] && ! $SETUP; then
		echo "Bail out! $SETUP failed"; exit 1
	fi
	for i in $((${#DESC[@]} - 2)) "${want[@]}" $((${#DESC[@]} - 1)); do
		n=$((n + 1)) RET=0 NOTE='' t0=$(now_ms)
		if [[ ${KIND[i]} = *o* && $FT != ours ]]; then
			skip "about our module"
		else
			keep=${#PIDS[@]}
			eval "${CMD[i]}"
			# what a failed case has left running
			if [ ${#PIDS[@]} -gt "$keep" ]; then
				stop "${PIDS[@]:keep}" 2>/dev/null
				PIDS=("${PIDS[@]:0:keep}")
			fi
		fi
		[ -z "${KSFT_TIMES:-}" ] || note "$(($(now_ms) - t0)) ms"
		case $RET in
		0) echo "ok $n ${DESC[i]}" ;;
		4) echo "ok $n ${DESC[i]} # SKIP $NOTE" ;;
		*)	if [[ ${KIND[i]} = *x* && $FT = intree ]]; then
				echo "ok $n ${DESC[i]} # XFAIL known defect of the in-tree code"
			else
				echo "not ok $n ${DESC[i]}"; bad=$((bad + 1))
			fi ;;
		esac
	done
	exit $((bad > 0))
}

skip_all() { echo "1..0 # SKIP $*"; exit $KSFT_SKIP; }

now_ms() { local t=${EPOCHREALTIME/[.,]/}; echo "${t%???}"; }

# busywait MILLISECONDS CMD...: until CMD succeeds.
busywait() {
	local end=$(($(now_ms) + $1)); shift
	until "$@" >/dev/null 2>&1; do
		[ "$(now_ms)" -lt $end ] || return 1
		sleep 0.02
	done
}

# Machines without KVM, debug kernels and guests that share the machine are slow: waits are as long as needed,
# never shorter.
SLOW=1
[ -z "${KSFT_SHARD:-}" ] || SLOW=2
case ${LANE:-} in debug|lockdep) SLOW=4 ;; arm64) SLOW=8 ;; esac
grep -qi qemu /sys/class/dmi/id/sys_vendor 2>/dev/null && [ $SLOW -lt 4 ] && SLOW=4

# ---------------------------------------------------------------- kernel log

dmesg_mark() {
	local m="nft_offload selftest mark $$.$RANDOM"
	echo "$m" >/dev/kmsg 2>/dev/null; echo "$m"
}
dmesg_since() { dmesg | sed -n "1,/$1/!p"; }
DMESG_BAD='BUG[: ]|WARNING: |Oops|panic|KASAN|UBSAN|kmemleak:|general protection|refcount_t|RCU.*stall|possible recursive|circular locking|inconsistent lock|suspicious RCU|unregister_netdevice: waiting|use-after-free|scheduling while atomic|sleeping function|hw csum failure|ref_tracker: .*leak'
# dmesg_clean_since MARK: prints what is wrong and fails if the log has a report.
dmesg_clean_since() { ! dmesg_since "$1" | grep -E "$DMESG_BAD"; }

# ---------------------------------------------------------------- modules

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

# ---------------------------------------------------------------- namespaces

NS=() NS_MADE=() PIDS=()
cl='' rt='' sv='' # the usual three, set by ns_add

# ns_add VAR...: makes namespaces and puts their names into the variables.
ns_add() {
	local v
	for v in "$@"; do
		printf -v "$v" '%s-%04x%04x' "$v" $RANDOM $RANDOM
		ip netns add "${!v}" || { fail "ip netns add"; return 1; }
		NS+=("${!v}") NS_MADE+=("${!v}")
		at "${!v}" sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
			net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
			net.ipv6.conf.all.router_solicitations=0 net.ipv6.conf.default.router_solicitations=0
		ipn "${!v}" link set lo up
	done
}
# at NS CMD..., ipn NS ARG...: in a namespace; cheaper than ip netns exec.
at() { nsenter --net="/run/netns/$1" -- "${@:2}"; }
ipn() { nsenter --net="/run/netns/$1" -- ip "${@:2}"; }
nft_rt() { at "$rt" nft "$@"; }

# bg NS CMD...: in the background, ended by cleanup; its process is $!.
bg() { nsenter --net="/run/netns/$1" -- "${@:2}" & PIDS+=($!); disown $!; }
# stop PID...: ends processes and waits until they are gone.
stop() {
	local p
	kill "$@" 2>/dev/null
	for p in "$@"; do busywait 3000 gone "$p" || kill -9 "$p" 2>/dev/null; done
}
gone() { ! kill -0 "$1" 2>/dev/null; }

cleanup_all() {
	local n p
	if [ -n "${PIDS[*]}" ]; then stop "${PIDS[@]}"; fi
	PIDS=()
	for n in "${NS[@]}"; do
		for p in $(ip netns pids "$n" 2>/dev/null); do kill -9 "$p" 2>/dev/null; done
		ip netns del "$n" 2>/dev/null
	done
	NS=()
}
cleanup() { cleanup_all; rm -rf "$TMP"; }

# The usual topology:
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2
#
# The two ends have each other's network by a default route through the router.
lan_wan() {
	local n
	ns_add cl rt sv || return 1
	ip link add lan netns "$rt" type veth peer name eth0 netns "$cl" &&
	ip link add wan netns "$rt" type veth peer name eth0 netns "$sv" || { fail "veth"; return 1; }
	wired
}
# card N NS NAME: gives the N-th of a lane's network cards to a namespace
card() {
	local d
	for d in /sys/class/net/*; do
		[ "$(cat "$d/address")" = "02:11:22:33:44:5$(($1 + 4))" ] || continue
		ip link set "${d##*/}" netns "$2" name "$3" && return
	done
	fail "no card $1"
}
# wired: addresses and routes for the three, whose devices are there
wired() {
	router_on "$rt"
	# a slow machine must not see flows go idle between two steps of a test
	modprobe -q nf_conntrack
	at "$rt" sysctl -qw net.netfilter.nf_flowtable_tcp_timeout=300 net.netfilter.nf_flowtable_udp_timeout=300 2>/dev/null
	addr "$rt" lan 10.0.1.1/24 fd00:1::1/64
	addr "$rt" wan 10.0.2.1/24 fd00:2::1/64
	addr "$cl" eth0 10.0.1.2/24 fd00:1::2/64 10.0.1.1 fd00:1::1
	addr "$sv" eth0 10.0.2.2/24 fd00:2::2/64 10.0.2.1 fd00:2::1
	busywait 5000 at "$cl" ping -c1 -W1 -q 10.0.2.2 && busywait 5000 at "$cl" ping -c1 -W1 -q fd00:2::2 ||
		{ fail "no connectivity through the router"; return 1; }
}
router_on() {
	at "$1" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.send_redirects=0 \
		net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0 net.ipv4.icmp_msgs_per_sec=10000 net.ipv4.icmp_msgs_burst=10000
}
# addr NS DEV IPV4 IPV6 [GATEWAY4 GATEWAY6]
addr() {
	ipn "$1" link set "$2" up
	ipn "$1" addr add "$3" dev "$2"
	ipn "$1" addr add "$4" dev "$2" nodad
	[ -z "${5:-}" ] || ipn "$1" route add default via "$5"
	[ -z "${6:-}" ] || ipn "$1" -6 route add default via "$6"
}
# batch NS: ip commands from standard input, with one process; addr_lines DEV IPV4
# IPV6 [GATEWAY4 GATEWAY6]: what addr does, as such lines.
batch() { nsenter --net="/run/netns/$1" -- ip -force -batch -; }
addr_lines() {
	echo "link set $1 up"
	echo "addr add $2 dev $1"
	echo "addr add $3 dev $1 nodad"
	[ -z "${4:-}" ] || printf 'route replace default via %s\nroute replace ::/0 via %s\n' "$4" "$5"
}
mac() { ipn "$1" -j link show "$2" | jq -r '.[0].address'; }

# ---------------------------------------------------------------- ruleset
# One ruleset for all: two tables that only count (what arrived at the router's
# ports before the flowtable, what the forward chain saw) and the table under
# test. Variables: FAM (inet), DEVS (lan, wan), FLAGS (counter;), NAT (chains),
# FWD (rules before flow add), MATCH (which packets are offloaded), WATCH (where
# arriving packets are counted, DEVS), SEEN (more matches to count: packets in
# something that nftables does not look into), L4 (protocols to count, tcp, udp).

# watch_tables: the two that only count, at the devices in WATCH.
watch_tables() {
	local seen
	# shellcheck disable=SC2001
	seen=$(sed 's/[^;]*[^; ][^;]*/& counter name arrived/g' <<<"${SEEN:-}")
	cat <<-END
	table netdev watch {
		counter arrived { }
		chain in {
			type filter hook ingress devices = { ${WATCH:-${DEVS:-lan, wan}} } priority -10;
			meta l4proto { ${L4:-tcp, udp} } counter name arrived; $seen
		}
	}
	table inet watch {
		counter forwarded { }
		chain forward {
			type filter hook forward priority -10;
			meta l4proto { ${L4:-tcp, udp} } counter name forwarded
		}
	}
	END
}
ruleset() {
	local fam=${FAM:-inet} devs=${DEVS:-lan, wan} table=''
	local add="${MATCH:-meta l4proto { ${L4:-tcp, udp} \}} flow add @f"
	if [ "$FT" = none ]; then
		add="ct state established accept"
	else
		table="flowtable f { hook ingress priority 0; devices = { $devs }; ${FLAGS:-} }"
	fi
	watch_tables
	cat <<-END
	table $fam t {
		$table
		chain forward {
			type filter hook forward priority 0;
			${FWD:-}
			$add
		}
		${NAT:-}
	}
	END
}
# rules [NAME=VALUE...]: replaces the router's ruleset, forgets all connections.
rules() {
	local FAM=${FAM:-} DEVS=${DEVS:-} FLAGS=${FLAGS:-} NAT=${NAT:-} FWD=${FWD:-} MATCH=${MATCH:-} WATCH=${WATCH:-} SEEN=${SEEN:-} L4=${L4:-} a
	for a in "$@"; do local "$a"; done
	{ echo "flush ruleset"; ruleset; } >"$TMP/rules"
	want_ok "ruleset does not load" nft_rt -f "$TMP/rules" || return
	CNT0=()
	forget
}
# client_rules CMD...: the same with the ruleset of a client: what CMD prints, beside the tables that
# count at the devices in WATCH.
client_rules() {
	{ echo "flush ruleset"; watch_tables; "$@"; } >"$TMP/rules"
	want_ok "ruleset does not load" nft_rt -f "$TMP/rules" || return
	CNT0=()
	forget
}
forget() {
	at "$rt" conntrack -F >/dev/null 2>&1
	[ "$FT" != ours ] || busywait 5000 flows_are "${FLOWS_BEFORE:-0}"
	return 0
}
# counters: reads the two counters of the router into ARRIVED, ARRIVED_BYTES,
# FORWARDED and FORWARDED_BYTES, since counters_zero (or since rules).
declare -A CNT=() CNT0=()
counters() {
	local w v=
	CNT=()
	while read -r -a w; do
		case ${w[0]:-} in
		counter) v=${w[1]} ;;
		packets) CNT[$v]=$((${CNT[$v]:-0} + w[1])) CNT[${v}_b]=$((${CNT[${v}_b]:-0} + w[3])) ;;
		esac
	done < <(nft_rt list counters)
	ARRIVED=$((CNT[arrived] - CNT0[arrived])) ARRIVED_BYTES=$((CNT[arrived_b] - CNT0[arrived_b]))
	FORWARDED=$((CNT[forwarded] - CNT0[forwarded])) FORWARDED_BYTES=$((CNT[forwarded_b] - CNT0[forwarded_b]))
}
counters_zero() {
	local k
	counters
	for k in "${!CNT[@]}"; do CNT0[$k]=${CNT[$k]}; done
	FAST_ZERO=$(stat_get packets_fast)
}
arrived() { counters; echo "$ARRIVED"; }
forwarded() { counters; echo "$FORWARDED"; }
# fast: packets_fast since counters_zero; 0 where there is no such counter
fast() { local s; s=$(stat_get packets_fast); echo $((${s:-0} - ${FAST_ZERO:-0})); }

# ct_list [ARG...]: conntrack entries of both families.
ct_list() {
	at "$rt" conntrack -L "$@" 2>/dev/null
	return 0
}
ct_offloaded() { ct_list "$@" | grep -q '\[OFFLOAD\]'; }
ct_timeout() { ct_list "$@" | awk '{ print $3; exit }'; }
# the entry has no [OFFLOAD] any more but is still there
ct_back() { local l; l=$(ct_list "$@"); [ -n "$l" ] && ! grep -q '\[OFFLOAD\]' <<<"$l"; }

# ct_set NAME=VALUE...: net.netfilter sysctls of the router
ct_set() {
	local a
	for a in "$@"; do at "$rt" sysctl -qw "net.netfilter.$a" || fail "no sysctl $a"; done
}
# ct_of PROTO: the conntrack entries of a protocol, by its number
ct_of() { ct_list | awk -v n="$1" '$2 == n'; }
ct_of_offloaded() { ct_of "$1" | grep -q '\[OFFLOAD\]'; }
ct_of_back() { local l; l=$(ct_of "$1"); [ -n "$l" ] && ! grep -q '\[OFFLOAD\]' <<<"$l"; }
# ct_left PROTO MIN MAX: the flow leaves the table when it is idle, and its entry has a
# timeout between MIN and MAX seconds then.
ct_left() {
	local t
	ct_set nf_flowtable_udp_timeout=2 nf_flowtable_tcp_timeout=2
	busywait $((9000 * SLOW)) ct_of_back "$1" || fail "still offloaded or gone: $(ct_of "$1" | head -n2)"
	ct_set nf_flowtable_udp_timeout=300 nf_flowtable_tcp_timeout=300
	t=$(ct_of "$1" | awk '{ print $3; exit }')
	want_ge "timeout after hand-back" "$t" "$2"
	want_le "timeout after hand-back" "$t" "$3"
}

# timeout_policy PROTO STATE=SECONDS...: new connections of that protocol, both by their numbers, have
# a timeout policy; in table ip t. For what nft itself does not offer policies for.
timeout_policy() {
	want_ok "timeout policy" at "$rt" python3 "$HERE/links.py" timeouts ip t p "$@" &&
	want_ok "chain" nft_rt "add chain ip t pre { type filter hook prerouting priority 0; }" &&
	want_ok "rule" nft_rt "add rule ip t pre meta l4proto $1 ct timeout set \"p\"" && forget
}

# ---------------------------------------------------------------- traffic

PORT=5000
serve() { # serve NS [PORT [OPTION...]]: echo server for TCP and UDP, both families
	bg "$1" python3 "$HERE/traffic.py" serve --port "${2:-$PORT}" --ready "$TMP/serve.$1" "${@:3}"
	busywait $((10000 * SLOW)) test -e "$TMP/serve.$1" || fail "traffic.py serve does not start"
}
# conv_open ID NS tcp|udp|sctp ADDRESS [PORT] [OPTION...]: opens a conversation with a server;
# conv_cmd ID COMMAND... gives it one command and prints the answer; conv_close ID ends it.
conv_open() {
	local id=$1 ns=$2 fd; shift 2
	rm -f "$TMP/$id.in" "$TMP/$id.out"
	mkfifo "$TMP/$id.in" "$TMP/$id.out"
	# Opened for both, so that neither side waits for the other.
	exec {fd}<>"$TMP/$id.in"; printf -v "CONV_IN_$id" %s "$fd"
	exec {fd}<>"$TMP/$id.out"; printf -v "CONV_OUT_$id" %s "$fd"
	nsenter --net="/run/netns/$ns" -- python3 "$HERE/traffic.py" talk "$@" <"$TMP/$id.in" >"$TMP/$id.out" 2>"$TMP/$id.err" &
	PIDS+=($!); disown $!
	printf -v "CONV_PID_$id" %s $!
	local a
	read -r -t $((15 * SLOW)) a <&"$fd"
	[ "$a" = ok ] || { fail "connect $*: ${a:-no answer} $(tail -n1 "$TMP/$id.err")"; return 1; }
}
conv_cmd() {
	local i=CONV_IN_$1 o=CONV_OUT_$1 a=; shift
	echo "$*" >&"${!i}" || return 1
	read -r -t $((40 * SLOW)) a <&"${!o}"
	echo "${a:-no answer}"
	[ "${a%% *}" = ok ]
}
conv_ok() { local a; a=$(conv_cmd "$@") || fail "$*: $a"; }
conv_close() {
	local i=CONV_IN_$1 o=CONV_OUT_$1 p=CONV_PID_$1 fd
	echo quit >&"${!i}"
	busywait 3000 gone "${!p}" || stop "${!p}"
	fd=${!i}; exec {fd}>&-
	fd=${!o}; exec {fd}<&-
}

# bypass PROTO ADDRESS [PORT] [-- CONV-OPTION...]: a conversation with payload
# compared byte for byte, and the proofs that the forward chain did not see it.
# BYTES, COUNT, SIZE and FROM (a namespace) change the defaults.
bypass() {
	local proto=$1 dst=$2 port=${3:-$PORT} from=${FROM:-$cl}
	shift $(($# > 2 ? 3 : 2)); [ "${1:-}" != -- ] || shift
	counters_zero
	conv_open x "$from" "$proto" "$dst" "$port" "$@" || return
	if [ "$proto" != udp ]; then
		conv_ok x echo "${BYTES:-1048576}"
	else
		conv_ok x echo "${COUNT:-300}" "${SIZE:-1000}"
	fi
	offloaded_line "$proto" "$port" || fail "no [OFFLOAD] in: $(ct_list -p "$proto" | head -n2)"
	counters
	bypass_numbers "$ARRIVED" "$FORWARDED" "$(fast)"
	conv_close x
	[ "$proto" != tcp ] || want_le "bytes seen by the forward chain" "$FORWARDED_BYTES" $((${BYTES:-1048576} / 4))
}
# bypass_all ADDRESS...: the same for TCP and UDP to each address, all at once.
bypass_all() {
	local out n from=${FROM:-$cl} bytes=${BYTES:-262144} count=${COUNT:-60}
	counters_zero
	out=$(at "$from" python3 "$HERE/traffic.py" mix "$@" --port "${TO:-$PORT}" --bytes "$bytes" --count "$count" --timeout $((10 * SLOW)) \
		--at-end "nsenter --net=/run/netns/$rt conntrack -L >$TMP/bypass_all 2>/dev/null")
	[ "${out%% *}" = ok ] || { fail "$out"; return 1; }
	n=$(grep "dport=${TO:-$PORT} " "$TMP/bypass_all" | grep -c '\[OFFLOAD\]')
	[ "$n" = $(($# * 2)) ] || fail "not [OFFLOAD]: $(grep "dport=${TO:-$PORT} " "$TMP/bypass_all" | grep -v '\[OFFLOAD\]' | tr -s ' ' | head -n2)"
	counters
	MIN_ARRIVED=$((count * 2 * $# + 10 * $#)) bypass_numbers "$ARRIVED" "$FORWARDED" "$(fast)"
	want_le "bytes seen by the forward chain" "$FORWARDED_BYTES" $((bytes * $# / 4))
}
offloaded_line() { ct_list -p "$1" | grep "dport=$2 " | grep -q '\[OFFLOAD\]'; }
# bypass_numbers ARRIVED FORWARDED FAST: nearly all that arrived went the fast way.
bypass_numbers() {
	want_ge "packets that arrived" "$1" "${MIN_ARRIVED:-30}"
	want_le "of $1 packets, seen by the forward chain" "$2" "${MAX_SLOW:-$(($1 / 8 + 8))}"
	[ "$FT" != ours ] || want_ge "of $1 packets, counted as packets_fast" "$3" $(($1 - $2 - ${SLACK:-$((4 * SLOW))}))
	[ "$FT" != ours ] || want_le "of $1 packets, counted as packets_fast" "$3" "$1"
}

# stream_start ADDRESS: numbered datagrams one way, RATE per second, from cl to sv port
# 6000; returns when the flow is offloaded. stream_end ends it and says what got lost.
RATE=200
stream_start() {
	rm -f "$TMP"/sink.*
	bg "$sv" python3 "$HERE/traffic.py" sink --port 6000 --ready "$TMP/sink.ready" --out "$TMP/sink.json"
	SINK=$!
	busywait $((9000 * SLOW)) test -e "$TMP/sink.ready" || fail "no sink"
	bg "$cl" python3 "$HERE/traffic.py" send "$1" 6000 --rate $RATE --size 200 --out "$TMP/send.json"
	SEND=$!
	busywait $((9000 * SLOW)) streaming || { fail "stream to $1 is not offloaded: $(ct_list -p udp --orig-port-dst 6000 | head -n1)"; return 1; }
	counters_zero
}
streaming() { ct_list -p udp --orig-port-dst 6000 | grep -q '\[OFFLOAD\]'; }
# received: datagrams that the sink has got so far
received() { at "$sv" awk '/^Udp: [0-9]/ { a = $2 } /^Udp6InDatagrams/ { b = $2 } END { print a + b }' /proc/net/snmp /proc/net/snmp6; }
# flowing: at least half of the stream's rate arrives; not_flowing: next to nothing
flowing() { [ "$(received_in 0.3)" -ge $((RATE * 3 / 20)) ]; }
not_flowing() { [ "$(received_in 0.2)" -le 2 ]; }
received_in() { local a; a=$(received); sleep "$1"; echo $(($(received) - a)); }
# fast_now: the stream is fast (again) at this moment
fast_now() {
	busywait $((5000 * SLOW)) fast_sample || { fast_sample
		fail "the stream is not fast: in 0.3 s $ARRIVED arrived, $FORWARDED in the forward chain"; }
}
fast_sample() { counters_zero; sleep 0.3; counters; [ "$ARRIVED" -ge 20 ] && [ "$FORWARDED" -le 2 ]; }
# stream_end MAX-GAP-MS [MAX-LOST]
stream_end() {
	stop "$SEND"; sleep 0.2; stop "$SINK"
	want_le "longest silence in ms" "$(jq .gap_ms "$TMP/sink.json")" $(($1 * SLOW))
	want_eq "damaged datagrams" "$(jq .bad "$TMP/sink.json")" 0
	want_eq "doubled datagrams" "$(jq .double "$TMP/sink.json")" 0
	[ -z "${2:-}" ] || want_le "lost datagrams of $(jq .sent "$TMP/send.json")" "$(jq .lost "$TMP/sink.json")" "$2"
}

offloads() { at "$1" ethtool -K "$2" "${@:3}" >/dev/null 2>&1; }
