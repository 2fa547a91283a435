#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Cost per forwarded packet: classic forwarding, the in-tree flowtable, ours, in
# the same guest and in turns. pktgen puts UDP packets into the receive path of
# a dummy device, the router forwards them to another one that drops them:
#
#   pktgen -> in0 (ingress: flowtable) -> routing, NAT -> out0 (dummy)
#
# A run that drops everything at ingress measures generator and allocation; it
# is subtracted. Each round takes every variant once, in a turning order, each in
# eight short runs of which the quickest counts. With ICOUNT set (see tools/lanes/run-lane) the
# figures are executed instructions.
#
#   -f FLOWS    number of UDP flows (1000; with -6 at most 60000)
#   -r ROUNDS   (5)
#   -p PACKETS  per classic run (as many as take about 10 ms); the others get five times as many
#   -m LIST     variants, "classic intree ours"; "refused" is ours with one device listed only, so
#               that each packet comes to a rule that cannot add its connection
#   -6          IPv6           -N   no NAT (default: masquerade)
#   -b          the receiving device is the port of a bridge
#   -c          flowtable with the flag counter
#   -e          a tc filter at egress, which no packet matches: packets of ours carry their connection
#   -o FILE     result lines "variant median min max hit-percent" as well
set -u
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

flows=1000 rounds=5 packets=0 modes="classic intree ours" v=4 nat=1 flags='' out='' filter='' lan=in0
usage() { sed -n '4,24s/^# \?//p' "$0"; exit 1; }
while getopts "f:r:p:m:6Nbceo:h" o; do
	case $o in
	f) flows=$OPTARG ;;
	r) rounds=$OPTARG ;;
	p) packets=$OPTARG ;;
	m) modes=$OPTARG ;;
	6) v=6 ;;
	N) nat= ;;
	b) lan=br0 ;;
	c) flags="counter;" ;;
	e) filter=1 ;;
	o) out=$OPTARG ;;
	*) usage ;;
	esac
done

die() { echo "pktgen.sh: $*" >&2; exit 1; }
BEFORE=
for m in nft_offload $INTREE; do ! loaded "$m" || BEFORE+=" $m"; done
MAX=$(sysctl -n net.netfilter.nf_conntrack_max 2>/dev/null)
BUCKETS=$(sysctl -n net.netfilter.nf_conntrack_buckets 2>/dev/null)
finish() {
	cleanup
	[ -z "$MAX" ] || sysctl -qw net.netfilter.nf_conntrack_max="$MAX" net.netfilter.nf_conntrack_buckets="$BUCKETS"
	case $BEFORE in
	*nft_offload*) unload_intree; load_ours ;;
	*nf_flow_table*) unload_ours; load_intree ;;
	*) unload_ours; unload_intree ;;
	esac 2>/dev/null
}
trap finish EXIT
trap 'exit 1' INT TERM

# flows = addresses * ports; both run up together, so they must have no common divisor
gcd() { local a=$1 b=$2 t; while [ "$b" != 0 ]; do t=$((a % b)) a=$b b=$t; done; echo "$a"; }
addrs=1 ports=$flows
while [ "$ports" -gt 60000 ] || [ "$(gcd $addrs $ports)" != 1 ]; do
	[ $v = 4 ] || die "at most 60000 flows with IPv6"
	addrs=$((addrs + 1)) ports=$((flows / addrs))
done
flows=$((addrs * ports))

modprobe pktgen 2>/dev/null
bench=''
ns_add bench || exit 1
at "$bench" test -e /proc/net/pktgen/kpktgend_0 || die "the kernel has no pktgen"
router_on "$bench"
for d in in0 out0; do
	ipn "$bench" link add $d type dummy || die "no dummy devices"
	ipn "$bench" link set $d arp on up
	offloads "$bench" $d tx off
done
if [ $lan = br0 ]; then
	ipn "$bench" link add br0 type bridge forward_delay 0 mcast_snooping 0 && ipn "$bench" link set in0 master br0 &&
		ipn "$bench" link set br0 up || die "no bridge"
fi
ipn "$bench" addr add 10.0.1.1/24 dev $lan
ipn "$bench" addr add 10.0.2.1/24 dev out0
ipn "$bench" addr add fd00:1::1/64 dev $lan nodad
ipn "$bench" addr add fd00:2::1/64 dev out0 nodad
for n in "10.0.1.2 $lan" "10.0.2.2 out0" "fd00:1::2 $lan" "fd00:2::2 out0"; do
	ipn "$bench" neigh add "${n% *}" lladdr 02:00:00:00:00:02 dev "${n#* }" nud permanent
done
ipn "$bench" route add 10.1.0.0/16 via 10.0.1.2
ipn "$bench" -6 route add fd00:11::/64 via fd00:1::2
modprobe -a nf_conntrack nf_tables nf_conntrack_netlink 2>/dev/null
if [ -n "$filter" ]; then
	modprobe -qa sch_ingress cls_matchall act_gact
	at "$bench" tc qdisc add dev out0 clsact && at "$bench" tc filter add dev out0 egress protocol arp matchall action pass || die "no filter"
fi
entries=$((flows * 2 + 10000))
if [ -n "$MAX" ] && [ "$MAX" -lt $entries ]; then
	sysctl -qw net.netfilter.nf_conntrack_buckets=$entries net.netfilter.nf_conntrack_max=$entries
fi
at "$bench" sysctl -qw net.netfilter.nf_conntrack_udp_timeout=600

rules_for() { # rules_for VARIANT
	local table='' add="ct state established accept" drop='' post=''
	case $1 in
	drop) drop="table netdev d { chain in { type filter hook ingress device in0 priority -10; drop; }; }" ;;
	intree | ours) table="flowtable f { hook ingress priority 0; devices = { in0, out0 }; $flags };" add="meta l4proto udp flow add @f" ;;
	refused) table="flowtable f { hook ingress priority 0; devices = { in0 }; $flags };" add="meta l4proto udp flow add @f" ;;
	esac
	[ -z "$nat" ] || post="chain post { type nat hook postrouting priority 100; oifname out0 masquerade; };"
	at "$bench" nft -f - <<-END
	flush ruleset
	$drop
	table inet t {
		$table
		chain forward { type filter hook forward priority 0; $add; };
		$post
	}
	END
}

pg() { # pg FILE COMMAND...
	local f=/proc/net/pktgen/$1; shift
	at "$bench" sh -c 'f=$1; shift; for c; do echo "$c" >"$f" || exit 1; done' sh "$f" "$@" || die "pktgen refuses: $*"
}
# generate COUNT [RUNS]: sets USEC, of the quickest run, and STOLEN, the packets
# that the ingress hook took or dropped in the last one
generate() {
	local r
	pg in0 "count $1"
	r=$(at "$bench" sh -c 'i=0; while [ $i -lt "$1" ]; do echo start >/proc/net/pktgen/pgctrl; grep -o "OK: [0-9]*\|errors: [0-9]*" /proc/net/pktgen/in0; i=$((i + 1)); done' sh "${2:-1}")
	USEC=$(awk '$1 == "OK:" && (!n++ || $2 < m) { m = $2 } END { print m }' <<<"$r")
	STOLEN=$(awk '$1 == "errors:" { n = $2 } END { print n }' <<<"$r")
	[ -n "$USEC" ] || die "no result from pktgen"
}
pktgen_setup() {
	local size=60 addr
	if [ $v = 4 ]; then
		addr=("src_min 10.1.0.1" "src_max 10.1.$((addrs / 250)).$((addrs % 250 + 1))" "dst 10.0.2.2")
	else
		size=80 addr=("src6 fd00:11::1" "dst6 fd00:2::2")
	fi
	pg kpktgend_0 rem_device_all "add_device in0"
	pg in0 "clone_skb 0" "delay 0" "pkt_size $size" "burst 1" "xmit_mode netif_receive" "flag !SHARED" \
		"flag UDPCSUM" "flag NO_TIMESTAMP" "dst_mac $(mac "$bench" in0)" "src_mac 02:00:00:00:00:02" "${addr[@]}" \
		"udp_src_min 1024" "udp_src_max $((1024 + ports))" "udp_dst_min 9" "udp_dst_max 9"
}

sent() { ipn "$bench" -s -j link show out0 | jq '.[0].stats64.tx.packets'; }
# measure VARIANT: sets COST (per packet, everything included) and HIT (percent)
measure() {
	case $1 in
	ours | refused) unload_intree && load_ours || die "cannot load nft_offload" ;;
	intree) unload_ours && load_intree || die "cannot load the in-tree modules" ;;
	esac 2>"$TMP/out"
	stats_save bench
	rules_for "$1" || die "ruleset"
	at "$bench" conntrack -F >/dev/null 2>&1
	# each flow once to make the entry, once to offload it, once more
	[ "$1" = drop ] || generate $((flows * 3))
	[ -z "$filter" ] || sleep 1.5 # until the flowtable knows of the filter
	# Somebody else may take the CPU in the middle of a run, so they are short and
	# the quickest counts. The cheap ones get more packets.
	n=$packets
	[[ $1 = classic || $1 = refused ]] || n=$((packets * 5))
	[ $n -ge $flows ] || n=$flows
	out0=$(sent)
	generate $n 8
	out0=$(($(sent) - out0))
	[ "$1" = drop ] || [ $out0 -ge $((n * 8 * 99 / 100)) ] || die "$1: only $out0 of $((n * 8)) packets came out"
	COST=$((USEC * 1000 / n)) HIT=$((STOLEN * 100 / n))
	case $1 in
	intree | ours) [ $HIT -ge 99 ] || die "$1: only $HIT % of the packets took the flowtable $(stats_diff bench | tr '\n' ',')" ;;
	esac
	if [ "$1$filter" = ours1 ] && [ "$(stats_diff bench | awk '$1 == "packets_with_ct" { print $2 }')" -lt $((n * 8)) ]; then
		die "packets do not carry their connection"
	fi
	case $1 in # the other one must be unloadable in the next turn
	intree | ours | refused) at "$bench" nft flush ruleset ;;
	esac
}

for m in $modes; do
	case $m in
	classic) ;;
	ours | refused) unload_intree && load_ours 2>"$TMP/out" || die "cannot load nft_offload: $(cat "$TMP/out")"; unload_ours ;;
	intree) unload_ours && load_intree 2>"$TMP/out" || die "cannot load the in-tree modules: $(cat "$TMP/out")"; unload_intree ;;
	*) die "variants are classic, intree, ours, refused" ;;
	esac
done
pktgen_setup
if [ "$packets" = 0 ]; then
	packets=2000
	rules_for classic
	generate $((flows * 2)); generate $packets 3
	packets=$((10000 * packets / USEC))
	[ $packets -ge 1000 ] || packets=1000
fi

declare -A LIST=() HITS=()
read -r -a order <<<"$modes"
for ((r = 1; r <= rounds; r++)); do
	measure drop
	base=$COST
	for m in "${order[@]}"; do
		measure "$m"
		LIST[$m]+="$((COST - base)) "
		HITS[$m]=$HIT
	done
	LIST[base]+="$base "
	order=("${order[@]:1}" "${order[0]}")
	[ ! -t 2 ] || printf '\r%d of %d rounds ' "$r" "$rounds" >&2
done
[ ! -t 2 ] || printf '\r%30s\r' '' >&2

median() { tr ' ' '\n' <<<"$1" | grep . | sort -n | awk '{ a[NR] = $1 } END { print int((a[int((NR + 1) / 2)] + a[int(NR / 2) + 1]) / 2), a[1], a[NR] }'; }
unit=ns
[ -z "${ICOUNT:-}" ] || unit=instructions
name() { case $1 in classic) echo "classic forwarding" ;; intree) echo "in-tree C flowtable" ;; ours) echo "nft_offload" ;; refused) echo "one device listed" ;; esac; }
[ $lan = in0 ] || lan="from a bridge's port, "
echo "IPv$v UDP, ${lan#in0}${nat:+masquerade, }${filter:+filter at egress, }$flows flows, $rounds rounds; $unit per packet"
printf '  %-20s %8s %16s %12s\n' "" median "min .. max" "speed-up"
[ -z "$out" ] || : >"$out"
first=
for m in $modes; do
	read -r med lo hi <<<"$(median "${LIST[$m]}")"
	[ -n "$first" ] || first=$med
	printf '  %-20s %8d %16s %11sx\n' "$(name "$m")" "$med" "$lo .. $hi" "$(awk "BEGIN { printf \"%.2f\", $first / ($med > 0 ? $med : 1) }")"
	[ -z "$out" ] || echo "$m $med $lo $hi ${HITS[$m]}" >>"$out"
done
read -r med lo hi <<<"$(median "${LIST[base]}")"
echo "  (generator and device: $med $unit, subtracted; speed-up against the first line)"
