#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Time per forwarded packet with many flows, the in-tree flowtable and ours: ftbench.ko puts frames that it has
# prepared into the receive path of a device of its own and takes them back from another one (ftbench/ftbench.c).
#
#   ftb0 (ingress: flowtable) -> routing, NAT -> ftb1
#
# A round is C, ours, ours, C, the next one ours, C, C, ours, each with its module just loaded, so that what drifts
# is the same for both. Two of the same in a round are the control: their ratio (A/A) has to be 1.00 +- 0.02,
# or the machine was too busy and the line says so. Every measurement has a run before it in which a rule
# at ingress drops the frames; its cost is subtracted. All frames have to come back, and not one in
# a hundred may be counted by the forward chain; else there is no figure. For the uml lane, whose two CPUs are
# threads: the second one forwards, everything else is on the first.
#
#   -f LIST     numbers of flows ("1000 100000 1000000")
#   -r ROUNDS   (15)
#   -p PACKETS  per measurement (4000000)
#   -s ORDER    of the flows: uniform, sequential, zipf (uniform)
#   -N          no NAT (default: masquerade)
#   -c          flowtable with the flag counter
#   -o FILE     keeps what was measured
#
# A million flows want a guest with 4 GiB (NFT_OFFLOAD_MEM=4G).
set -u
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

list="1000 100000 1000000" rounds=15 packets=4000000 order=uniform nat=1 flags='' out=''
usage() { sed -n '3,/^set -u/s/^# \?//p' "$0"; exit 1; }
while getopts "f:r:p:s:Nco:h" o; do
	case $o in
	f) list=$OPTARG ;;
	r) rounds=$OPTARG ;;
	p) packets=$OPTARG ;;
	s) order=$OPTARG ;;
	N) nat= ;;
	c) flags="counter;" ;;
	o) out=$OPTARG ;;
	*) usage ;;
	esac
done

die() { echo "ftbench.sh: $*" >&2; exit 1; }
[ -n "${NFT_OFFLOAD_FTBENCH:-}" ] || die "no ftbench.ko"
[ "$(nproc)" -ge 2 ] || die "wants two CPUs"
RUN=/sys/kernel/debug/ftbench/run
BEFORE=
for m in nft_offload $INTREE; do ! loaded "$m" || BEFORE+=" $m"; done
modprobe -a nf_conntrack nf_tables nf_conntrack_netlink 2>/dev/null
MAX=$(sysctl -n net.netfilter.nf_conntrack_max) BUCKETS=$(sysctl -n net.netfilter.nf_conntrack_buckets)
remove() { busywait 120000 rmmod "$1" 2>"$TMP/rmmod" || die "cannot remove $1: $(tail -n1 "$TMP/rmmod")"; }
removed() { # the module of the other one; a million flows take a while
	local m
	for m in "$@"; do ! loaded "$m" || remove "$m"; done
}
finish() {
	cleanup
	! loaded ftbench || rmmod ftbench
	sysctl -qw net.netfilter.nf_conntrack_max="$MAX" net.netfilter.nf_conntrack_buckets="$BUCKETS"
	case $BEFORE in
	*nft_offload*) unload_intree; load_ours ;;
	*nf_flow_table*) unload_ours; load_intree ;;
	*) unload_ours; unload_intree ;;
	esac 2>/dev/null
}
trap finish EXIT
trap 'exit 1' INT TERM

most=0
for n in $list; do
	[ "$n" -le 4000000 ] || die "at most four million flows"
	[ "$n" -le $most ] || most=$n
done
[ "$(awk '$1 == "MemAvailable:" { print int($2 / 1024) }' /proc/meminfo)" -ge $((300 + most * 2 / 1000)) ] ||
	die "not enough memory for $most flows, say NFT_OFFLOAD_MEM=4G or more"
entries=$((most * 2 + 10000))
if [ "$MAX" -lt $entries ]; then
	sysctl -qw net.netfilter.nf_conntrack_buckets=$entries net.netfilter.nf_conntrack_max=$entries
fi
taskset -pc 0 $$ >/dev/null || die "cannot be on one CPU"

PEER=02:00:00:00:00:02 bench=
ns_add bench || exit 1
router_on "$bench"
loaded ftbench || insmod "$NFT_OFFLOAD_FTBENCH" || die "ftbench does not load"
for d in ftb0 ftb1; do
	ip link set $d netns "$bench" && ipn "$bench" link set $d up
	ipn "$bench" addr add "10.0.$((${d#ftb} + 1)).1/24" dev $d
	ipn "$bench" neigh add "10.0.$((${d#ftb} + 1)).2" lladdr $PEER dev $d nud permanent
done
ipn "$bench" route add 10.128.0.0/9 via 10.0.2.2 || die "no route"
at "$bench" sysctl -qw net.netfilter.nf_conntrack_udp_timeout=900 net.netfilter.nf_conntrack_udp_timeout_stream=900 \
	net.netfilter.nf_flowtable_udp_timeout=900 || die "no timeouts"

# forward MODE ORDER FLOWS PACKETS WARMUP SEED: sets GOT
forward() {
	at "$bench" taskset -c 1 sh -c 'echo "$2" >"$1"' sh $RUN "$*" || die "ftbench does not run ($*)"
	GOT=$(cat $RUN)
}
got() { awk -v n="$1" '{ for (i = 1; i < NF; i += 2) if ($i == n) print $(i + 1) }' <<<"$GOT"; }
seen() { at "$bench" nft list counter inet t seen | awk '$1 == "packets" { print $2 }'; }
forgotten() { [ "$(at "$bench" sysctl -n net.netfilter.nf_conntrack_count)" = 0 ]; }
# measure VARIANT FLOWS ROUND PLACE: a line for the table
measure() {
	local base passed post=
	[ -z "$nat" ] || post="chain post { type nat hook postrouting priority 100; oifname ftb1 masquerade; };"
	case $1 in
	ours) removed nft_flow_offload nf_flow_table_inet nf_flow_table ;;
	intree) removed nft_offload ;;
	esac
	"load_$1" 2>"$TMP/out" || die "cannot load the modules of $1: $(tail -n1 "$TMP/out")"
	at "$bench" nft -f - <<-END || die "no rule at ingress"
	table netdev d { chain in { type filter hook ingress device ftb0 priority -10; drop; }; }
	END
	forward drop "$order" "$2" "$packets" $((packets / 8)) "$3"
	base="$(got wall) $(got cpu) $(got median)"
	[ "$(got came_back)" = 0 ] || die "$(got came_back) packets came out that were to be dropped"
	at "$bench" nft -f - <<-END || die "ruleset"
	flush ruleset
	table inet t {
		counter seen { }
		flowtable f { hook ingress priority 0; devices = { ftb0, ftb1 }; $flags };
		chain forward { type filter hook forward priority 0; counter name seen
			meta l4proto udp flow add @f; };
		$post
	}
	END
	# each flow once to make the entry, once to offload it, once more
	forward forward sequential "$2" $(($2 < 64 ? 192 : $2 * 3)) 0 1
	passed=$(seen)
	forward forward "$order" "$2" "$packets" $((packets / 8)) "$3"
	passed=$(($(seen) - passed))
	[ "$(got came_back)" -ge $((packets * 99 / 100)) ] || die "$1, $2 flows: only $(got came_back) of $packets packets came out, $(got lost) were lost"
	[ $passed -le $((packets / 100)) ] || die "$1, $2 flows: $passed of $packets packets were seen by the forward chain"
	echo "$2 $3 $4 $1 $base $(got wall) $(got cpu) $(got median) $passed" >>"$TMP/figures"
	at "$bench" nft flush ruleset
	at "$bench" conntrack -F >/dev/null 2>&1
	busywait 120000 forgotten || die "conntrack keeps entries"
}

: >"$TMP/figures"
for n in $list; do
	for ((r = 1; r <= rounds; r++)); do
		turn="intree ours ours intree" place=0
		[ $((r % 2)) = 1 ] || turn="ours intree intree ours"
		for m in $turn; do measure "$m" "$n" "$r" $((++place)); done
		[ ! -t 2 ] || printf '\r%s flows: %d of %d rounds ' "$n" "$r" "$rounds" >&2
	done
done
[ ! -t 2 ] || printf '\r%40s\r' '' >&2
[ -z "$out" ] || cp "$TMP/figures" "$out"
echo "$(uname -r), IPv4 UDP, ${nat:+masquerade, }${flags:+counter, }$order, $rounds rounds of four, $packets packets each; ns per packet"
echo
python3 "$(dirname "$0")/ftbench-table.py" "$TMP/figures"
