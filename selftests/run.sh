#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run our kselftests, inside a guest, and judge more than their exit status: a test also fails
# when the kernel log complains, the kernel is tainted, a network namespace stays behind or the
# module cannot be unloaded afterwards. KTAP on standard output.
#   T='NAME...'      only these tests (NAME or NAME.sh; a shell pattern is fine), in this order;
#                    kernel:NAME is a test of the kernel's own tools/testing/selftests/net, unmodified
#   ARGS='...'       arguments for each of them
#   FT=intree        with the kernel's C modules instead of ours
#   KSFT_QUICK=1     as CI does: on the slow lanes (all but uml) the choice of tools/lanes/quick only, on
#                    uml every test, but of those that are named there the given cases
#   KSFT_QUICK=emulated   the choice on emulated machines only
#   KSFT_SHARD=.K-N  of all tests, those that fall to guest K of N
#   KSFT_TIMEOUT=S   seconds per test (default: timeout= in settings; x5 with the debug kernel)
here=$(cd "$(dirname "$0")" && pwd)
kernel_tests=${KSELFTEST:-/opt/kselftest}/net
FT=${FT:-ours} T=${T:-} ARGS=${ARGS:-} LANE=${LANE:-host}
logs=${OUT:-$(mktemp -d)}/tests
mkdir -p "$logs"
passed=0 failed=0 skipped=0 n=0

if [ "$FT" = ours ]; then
	ours=(nft_offload)
	others=(nft_flow_offload nf_flow_table_inet)
else
	ours=(nft_flow_offload nf_flow_table_inet)
	others=(nft_offload)
fi
# What a healthy kernel never prints.
complaint='WARNING:|BUG:|Oops|INFO: (task|rcu|lockdep|possible|trying)|possible (circular|recursive) locking'
complaint+='|inconsistent lock|suspicious RCU|KASAN|KFENCE|UBSAN|ODEBUG|rcu: .*stall|self-detected stall|soft lockup'
complaint+='|refcount_t|unregister_netdevice|ref_tracker|list_(add|del) corruption|general protection'
complaint+='|Unable to handle kernel|page fault for address|sleeping function called|scheduling while atomic'
complaint+='|kernel panic|panicked at|held lock|double free|bad unlock|Call Trace'

list_tests() {
	{
		# TEST_PROGS of selftests/Makefile: one file per line, as kselftest wants it
		awk '/^TEST_PROGS *[:+]?=/ { on = 1 } on; !/\\$/ { on = 0 }' "$here/Makefile" 2>/dev/null |
			grep -oE '[A-Za-z0-9_.-]+\.sh'
		find "$here" -maxdepth 1 -name 'test_*.sh' -printf '%f\n'
		if [ "$LANE" = arm64 ]; then echo ppe.sh; fi # it boots with the device tree for it
	} | sort -u
}
loaded() { grep -q "^$1 " /proc/modules; }
taint() { cat /proc/sys/kernel/tainted; }
# The address range of our module: leak reports do not name its functions once it is unloaded.
module_range() { awk '$1 == "nft_offload" { print $6, $2 }' /proc/modules; }

# unload MODULE...: a namespace that is still being dismantled may hold the module for a moment.
unload() {
	local m deadline
	deadline=$((SECONDS + 20))
	for m in "$@"; do
		while loaded "$m"; do
			if rmmod "$m" 2>"$logs/.rmmod"; then break; fi
			[ $SECONDS -lt $deadline ] || return 1
			read -r -t 0.2 _ <> <(:) || true
		done
	done
}

kmemleak=/sys/kernel/debug/kmemleak
# leaks RANGE: allocations of our module that nothing refers to any more.
leaks() {
	# Young objects are never reported (MSECS_MIN_AGE), and an object must look the same in two scans.
	read -r -t 6 _ <> <(:) || true
	echo scan >$kmemleak; echo scan >$kmemleak
	python3 -c '
import re, sys
base, size = (int(x, 0) for x in (sys.argv[1] + " 0 0").split()[:2])
for r in re.split(r"(?m)^(?=unreferenced object)", open("/sys/kernel/debug/kmemleak").read()):
    addrs = [int(x, 16) for x in re.findall(r"\b(?:0x)?([0-9a-f]{8,16})\b", r.partition("backtrace")[2])]
    if "[nft_offload]" in r or any(size and base <= a < base + size for a in addrs):
        print(r)
' "$1"
	echo clear >$kmemleak # or it would be reported again, and the next test be blamed
}

# one NUMBER NAME FILE ARGUMENTS [AGAIN]: run one test and report it. The arguments of ours are one
# pattern. Returns 1, unreported, if a case failed in the first try and nothing else was wrong.
one() {
	local i=$1 name=$2 file=$3 argv=() log rc why='' before range='' t0 limit mark marked netns opts
	local complaint=$complaint
	# The kernel shows the stack when it cannot make a slab cache: that is one of the faults.
	[ "$name" != fault.sh ] || complaint=${complaint%|Call Trace}
	case $name in
	kernel:*|churn.sh|nsowner.sh) read -r -a argv <<<"$4" ;;
	*) [ -z "$4" ] || argv=("$4") ;;
	esac
	log=$logs/${name//\//_}.log
	limit=${KSFT_TIMEOUT:-}
	if [ -z "$limit" ]; then
		limit=$(sed -n 's/^timeout=//p' "$(dirname "$file")/settings" 2>/dev/null)
		limit=${limit:-300}
		case $LANE in uml) ;; *) limit=$((limit * 5)) ;; esac
	fi
	mark="selftest $name start $$"
	echo "$mark" >/dev/kmsg
	netns=$(ip netns list | sort)
	for m in "${others[@]}"; do
		! loaded "$m" || why="$m is loaded, so this would not test FT=$FT"
	done
	[ -n "$why" ] || for m in "${ours[@]}"; do
		modprobe "$m" 2>"$log" || why="cannot load $m: $(tail -1 "$log")"
	done
	before=$(taint)
	t0=$SECONDS
	if [ -z "$why" ]; then
		echo "# $name"
		read -r _ opts <"$file"
		case $opts in -*) ;; *) opts='' ;; esac
		# shellcheck disable=SC2086
		(cd "$(dirname "$file")" && timeout -k 10 "$limit" bash $opts "./$(basename "$file")" "${argv[@]}") </dev/null 2>&1 |
			tee "$log" | sed -u 's/^/#   /'
		rc=${PIPESTATUS[0]}
		case $rc in
		0|2|4) ;;
		124|137) why="did not finish within $limit s" ;;
		*) why="exit status $rc" ;;
		esac
	fi
	if [ -z "$why" ]; then
		for m in "${others[@]}"; do
			! loaded "$m" || why="$m was loaded during the test"
		done
	fi
	left=$(ip netns list | sort | comm -13 <(echo "$netns") - | tr '\n' ' ')
	if [ -n "$left" ]; then
		[ -n "$why" ] || why="left network namespaces behind: $left"
		for m in $left; do ip netns del "$m" 2>/dev/null; done
	fi
	if [ "$LANE" = debug ] && [ "$FT" = ours ]; then range=$(module_range); fi
	if ! unload "${ours[@]}"; then
		[ -n "$why" ] || why="the module cannot be unloaded: $(tail -1 "$logs/.rmmod")"
	fi
	# Once, after the module: each look takes six seconds.
	if [ -n "$range" ]; then leaks "$range" >"$log.leaks"; fi
	if [ -s "$log.leaks" ] && [ -z "$why" ]; then
		why="leaked $(grep -c '^unreferenced' "$log.leaks") allocations, see $log.leaks"
	fi
	if [ "$(taint)" != "$before" ]; then
		[ -n "$why" ] || why="tainted the kernel: $before -> $(taint)"
	fi
	dmesg >"$log.dmesg"
	marked=$(awk -v m="$mark" 'index($0, m) { seen = 1 } seen' "$log.dmesg")
	[ -n "$marked" ] || marked=$(cat "$log.dmesg")
	# Nor can the tracker of references always note what it would like to.
	[ "$name" != fault.sh ] || marked=$(grep -v 'unreliable refcount tracker' <<<"$marked")
	if grep -qE "$complaint" <<<"$marked"; then
		echo "#   the kernel log:"
		grep -E -m1 -A25 "$complaint" <<<"$marked" | sed 's/^/#   /'
		[ -n "$why" ] || why="the kernel complained: $(grep -E -m1 "$complaint" <<<"$marked" | cut -c1-100)"
	fi

	if [ -n "$why" ] && [ -z "${5:-}" ] && [[ $why = "exit status "* ]]; then
		return 1
	elif [ -n "$why" ]; then
		failed=$((failed + 1))
		echo "not ok $i $name # $why"
	elif [ "$rc" = 4 ]; then
		skipped=$((skipped + 1))
		echo "ok $i $name # SKIP $(grep -i skip "$log" | tail -1 | sed -E 's/^[# ]*SKIP[: ]*//')"
	else
		passed=$((passed + 1))
		echo "ok $i $name # $((SECONDS - t0)) s${5:+, second try}"
	fi
}

# check NAME WHY: a check of the lane itself; it passes when WHY is empty.
check() {
	n=$((n + 1))
	if [ -z "$2" ]; then
		passed=$((passed + 1)); echo "ok $n lane: $1"
	else
		failed=$((failed + 1)); echo "not ok $n lane: $1 # $2"
	fi
}

# quick [TEST]: what CI runs on this lane: lines of test and pattern of its cases; those of TEST.
quick() { sed -n "s/^${LANE}[[:space:]]\+${1:+$1[[:space:]]\+}//p" "$here/../tools/lanes/quick"; }

# UML is no emulation, and checking kernels are asked for by name.
case ${KSFT_QUICK:-}:$LANE in emulated:stock|emulated:arm64) ;; emulated:*) KSFT_QUICK= ;; esac

tests=() args=()
# named NAME: the tests that one word of T means
named() {
	local d t before=${#tests[@]}
	case $1 in
	kernel:*)
		for d in netfilter .; do
			t=$kernel_tests/$d/${1#kernel:}
			if [ -e "$t" ]; then tests+=("$t"); break; fi
		done ;;
	*)
		while read -r t; do
			# shellcheck disable=SC2254
			case $t in
			$1|${1%.sh}.sh) if [ -e "$here/$t" ]; then tests+=("$here/$t"); fi ;;
			esac
		done < <(list_tests)
		# one that is run by hand only (TEST_PROGS_EXTENDED)
		t=$here/${1%.sh}.sh
		if [ "${#tests[@]}" = "$before" ] && [ -e "$t" ]; then tests+=("$t"); fi ;;
	esac
	[ "${#tests[@]}" -gt "$before" ] || { echo "Bail out! no test matches T=$1"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }
}
if [ -n "$T" ]; then
	read -r -a words <<<"$T" # split, but no file names made of the patterns
	for t in "${words[@]}"; do named "$t"; done
	for t in "${tests[@]}"; do args+=("$ARGS"); done
elif [ "$LANE" = vfio ]; then
	tests=("$here/ppe_device.sh") args=("$ARGS") # the only one that has a use for this lane
else
	if [ -n "${KSFT_QUICK:-}" ] && [ "$LANE" != uml ]; then
		while read -r t pattern; do tests+=("$here/$t") args+=("$pattern"); done < <(quick)
	else
		while read -r t; do
			tests+=("$here/$t") args+=("${ARGS:-${KSFT_QUICK:+$(quick "$t")}}")
		done < <(list_tests)
	fi
	# The kernel's own test of flowtables, unmodified, with sizes that bound its time.
	t=$kernel_tests/netfilter/nft_flowtable.sh
	if [ -e "$t" ] && [ "$LANE" != lockdep ]; then
		tests+=("$t") args+=("-o 8000 -l 1500 -r 2000 -s 2097152")
	fi
fi
if [[ ${KSFT_SHARD:-} =~ ^\.([0-9]+)-([0-9]+)$ ]]; then
	for i in "${!tests[@]}"; do
		[ $((i % BASH_REMATCH[2] + 1)) = "${BASH_REMATCH[1]}" ] || unset "tests[i]" "args[i]"
	done
	tests=("${tests[@]}") args=("${args[@]}")
fi
[ "${#tests[@]}" -gt 0 ] || { echo "Bail out! no test"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }

[ "$LANE" = uml ] || export KSFT_MACHINE_SLOW=yes
checks=0
case $LANE in debug) checks=2 ;; lockdep) checks=1 ;; esac
echo "KTAP version 1"
echo "1..$((${#tests[@]} + checks))"

if [ "$LANE" = debug ]; then
	# What is lost by now was lost while booting: report it, then forget it.
	if leaks '' >/dev/null; then check "kmemleak is on" ""; else check "kmemleak is on" "no kmemleak"; fi
fi
for i in "${!tests[@]}"; do
	t=${tests[i]}
	n=$((n + 1))
	case $t in "$here"/*) name=${t#"$here"/} ;; *) name=kernel:${t##*/} ;; esac
	# Guests without KVM on a busy machine miss deadlines now and then: a test in which a case
	# failed has one more try, and says so. What the kernel complains of has none.
	if ! one "$n" "$name" "$t" "${args[i]}"; then
		echo "# $name: a case failed, once more"
		one "$n" "$name" "$t" "${args[i]}" again
	fi
done
# Last, because it taints the kernel: KASAN has to be on, or silence would mean nothing.
if [ "$LANE" = debug ]; then
	insmod "$NFT_OFFLOAD_CANARY" 2>/dev/null
	hits=$(dmesg | grep -c 'BUG: KASAN: .*use-after-free.*kasan_canary')
	if [ "$hits" = 1 ]; then why=''; else why="$hits reports"; fi
	check "KASAN caught one deliberate use-after-free" "$why"
fi
if [ "$LANE" = lockdep ]; then
	[ "$(awk '/debug_locks:/ { print $2 }' /proc/lockdep_stats)" = 1 ] && why='' ||
		why="lockdep switched itself off: $(dmesg | grep -E -m1 'bad unlock|possible|inconsistent lock|MAX_LOCK|lockdep' | cut -c1-90)"
	check "lockdep was on to the end (debug_locks: 1)" "$why"
fi
if [ "$passed" = 0 ] && [ "$failed" = 0 ]; then
	echo "# everything was skipped: that proves nothing"
	failed=1
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
