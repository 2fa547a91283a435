# SPDX-License-Identifier: GPL-2.0
# Traffic, and the three proofs that packets went around the forward chain. Behind lib.sh.
# shellcheck shell=bash disable=SC2034,SC2154 # variables are those of lib.sh and of who sources this

PORT=5000
serve() { # serve NS [PORT [OPTION...]]: echo server for TCP and UDP, both families
	bg "$1" "${PY[@]}" traffic serve --port "${2:-$PORT}" --ready "$TMP/serve.$1" "${@:3}"
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
	nsenter --net="/run/netns/$ns" -- "${PY[@]}" traffic talk "$@" <"$TMP/$id.in" >"$TMP/$id.out" 2>"$TMP/$id.err" &
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
	out=$(at "$from" "${PY[@]}" traffic mix "$@" --port "${TO:-$PORT}" --bytes "$bytes" --count "$count" --timeout $((10 * SLOW)) \
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
	bg "$sv" "${PY[@]}" streams sink --port 6000 --ready "$TMP/sink.ready" --out "$TMP/sink.json"
	SINK=$!
	busywait $((9000 * SLOW)) test -e "$TMP/sink.ready" || fail "no sink"
	bg "$cl" "${PY[@]}" streams send "$1" 6000 --rate $RATE --size 200 --out "$TMP/send.json"
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
