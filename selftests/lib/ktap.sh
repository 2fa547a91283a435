# SPDX-License-Identifier: GPL-2.0
# KTAP output: cases, what they want, and the run of them. Behind lib.sh.
# shellcheck shell=bash disable=SC2034,SC2154 # variables are those of lib.sh and of who sources this

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
