#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Cost per forwarded packet: classic forwarding, the in-tree flowtable, ours, in
# the same guest and in turns. pktgen puts UDP packets into the receive path of
# a dummy device, the router forwards them to another one that drops them:
#
#   pktgen -> in0 (ingress: flowtable) -> routing, NAT -> out0 (dummy)
#
# The router's addresses are on in0 and out0, or on what -i and -w put above them: a bridge that the
# device is a port of, VLAN 7, a PPPoE session, a session in VLAN 7. The flowtable lists in0 and out0.
# pktgen cannot make frames of a session: they come from a namespace of their own by a veth pair, as MPLS
# frames of the same size, whose headers a rule there writes over.
#
# A run that drops everything at ingress measures generator and allocation (and that pair); it
# is subtracted. Each round takes every variant once, in a turning order, each in
# eight short runs of which the quickest counts. With ICOUNT set (see tools/lanes/run-lane) the
# figures are executed instructions. All packets have to be counted at out0, by the queueing discipline if
# there is one, and not by the forward chain with a flowtable; else there is no figure.
# With PROFILE set as well the runs are counted by function: make profile.
#
#   -i WAY      in:  plain, bridge, vlan, pppoe, pppoe-vlan
#   -w WAY      out: plain, bridge, vlan, pppoe, pppoe-vlan
#   -q QDISC    discipline of out0, or with QDISC@upper of what is above it: noqueue, fq_codel, "cake
#               bandwidth 1gbit"
#   -f FLOWS    number of UDP flows (1000; with -6 at most 60000)
#   -r ROUNDS   (5)
#   -p PACKETS  per classic run (as many as take about 10 ms); the others get five times as many
#   -n RUNS     of each variant in a round (8)
#   -m LIST     variants, "classic intree ours"; "refused" is ours with one device listed only, so
#               that each packet comes to a rule that cannot add its connection; "fwd" is a rule at ingress
#               that sends the frame out by out0 as it is
#   -6          IPv6           -N   no NAT (default: masquerade)
#   -b          as -i bridge
#   -c          flowtable with the flag counter
#   -e          a tc filter at egress, which no packet matches: packets of ours carry their connection
#   -o FILE     result lines "variant median min max hit-percent" as well
set -u
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"

flows=1000 rounds=5 packets=0 modes="classic intree ours" v=4 nat=1 flags='' out='' filter='' in=plain way=plain qdisc='' runs=8
usage() { sed -n '3,/^set -u/s/^# \?//p' "$0"; exit 1; }
while getopts "i:w:q:f:r:p:n:m:6Nbceo:h" o; do
	case $o in
	i) in=$OPTARG ;;
	w) way=$OPTARG ;;
	q) qdisc=$OPTARG ;;
	f) flows=$OPTARG ;;
	r) rounds=$OPTARG ;;
	p) packets=$OPTARG ;;
	n) runs=$OPTARG ;;
	m) modes=$OPTARG ;;
	6) v=6 ;;
	N) nat= ;;
	b) in=bridge ;;
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
bench='' feed=''
ns_add bench || exit 1
at "$bench" test -e /proc/net/pktgen/kpktgend_0 || die "the kernel has no pktgen"
router_on "$bench"
case $in in
pppoe*)	ns_add feed && ip link add in0 netns "$bench" type veth peer name gen netns "$feed" || die "no veth devices"
	ipn "$feed" link set gen up
	offloads "$feed" gen tx off
	from=$feed gen=gen ;;
*)	ipn "$bench" link add in0 type dummy || die "no dummy devices"
	from=$bench gen=in0 ;;
esac
ipn "$bench" link add out0 type dummy || die "no dummy devices"
for d in in0 out0; do
	[ $d$gen = in0gen ] || ipn "$bench" link set $d arp on
	ipn "$bench" link set $d up
	offloads "$bench" $d tx off
done
PEER=02:00:00:00:00:02 SESSION=2053
# session DEV NAME: a PPPoE session at a device, and its PPP device
session() {
	local fd
	[ -e /dev/ppp ] || modprobe -a ppp_generic pppoe 2>/dev/null
	[ -c /dev/ppp ] || die "no PPP in this kernel"
	mkfifo "$TMP/$2.in"
	exec {fd}<>"$TMP/$2.in"
	nsenter --net="/run/netns/$bench" -- "${PY[@]}" links pppoe "$1" $PEER $SESSION --name "$2" --ready "$TMP/$2.ready" \
		<&"$fd" >"$TMP/$2.out" 2>&1 &
	PIDS+=($!); disown $!
	busywait $((5000 * SLOW)) test -e "$TMP/$2.ready" || die "no PPPoE session at $1: $(tail -n1 "$TMP/$2.out")"
}
# above DEV WAY BRIDGE PPP: puts a device above DEV; its name is in UPPER
above() {
	case $2 in
	plain) UPPER=$1 ;;
	bridge)
		ipn "$bench" link add "$3" type bridge forward_delay 0 mcast_snooping 0 && ipn "$bench" link set "$1" master "$3" &&
			at "$bench" bridge fdb replace $PEER dev "$1" master static && ipn "$bench" link set "$3" up || die "no bridge"
		UPPER=$3 ;;
	vlan | pppoe-vlan)
		ipn "$bench" link add link "$1" name "$1.7" up type vlan id 7 || die "no VLAN devices"
		UPPER=$1.7
		[ "$2" = vlan ] || { session "$UPPER" "$4"; UPPER=$4; } ;;
	pppoe)	session "$1" "$4"; UPPER=$4 ;;
	*) die "ways are plain, bridge, vlan, pppoe, pppoe-vlan" ;;
	esac
}
above in0 "$in" br0 pppin; lan=$UPPER
above out0 "$way" br1 ppp0; wan=$UPPER
# place DEV SUBNET: the router's addresses there, 2 behind it
place() {
	case $1 in
	ppp*)	ipn "$bench" addr add "10.0.$2.1" peer "10.0.$2.2" dev "$1"
		ipn "$bench" addr add "fd00:$2::1/64" dev "$1" nodad ;;
	*)	ipn "$bench" addr add "10.0.$2.1/24" dev "$1"
		ipn "$bench" addr add "fd00:$2::1/64" dev "$1" nodad
		ipn "$bench" neigh add "10.0.$2.2" lladdr $PEER dev "$1" nud permanent
		ipn "$bench" neigh add "fd00:$2::2" lladdr $PEER dev "$1" nud permanent ;;
	esac
}
place "$lan" 1; place "$wan" 2
ipn "$bench" route add 10.1.0.0/16 via 10.0.1.2
case $lan in
ppp*) ipn "$bench" -6 route add fd00:11::/64 dev "$lan" ;;
*) ipn "$bench" -6 route add fd00:11::/64 via fd00:1::2 ;;
esac
modprobe -a nf_conntrack nf_tables nf_conntrack_netlink 2>/dev/null
queued=out0
case $qdisc in *@upper) queued=$wan qdisc=${qdisc%@upper} ;; esac
if [ -n "$qdisc" ]; then
	modprobe -qa "sch_${qdisc%% *}"
	# shellcheck disable=SC2086
	at "$bench" tc qdisc replace dev "$queued" root $qdisc 2>"$TMP/out" || die "no $qdisc at $queued: $(tail -n1 "$TMP/out")"
fi
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
	local table='' add="ct state established accept" drop='' post='' seen=''
	case $1 in
	drop | fwd)
		drop="table netdev d { chain in { type filter hook ingress device in0 priority -10; ${1/fwd/fwd to out0}"$'\n'"}; }" ;;
	intree | ours) table="flowtable f { hook ingress priority 0; devices = { in0, out0 }; $flags };" add="meta l4proto udp flow add @f" ;;
	refused) table="flowtable f { hook ingress priority 0; devices = { in0 }; $flags };" add="meta l4proto udp flow add @f" ;;
	esac
	# what comes here has not gone past it
	case $1 in fwd | intree | ours) seen="counter name seen" ;; esac
	[ -z "$nat" ] || post="chain post { type nat hook postrouting priority 100; oifname $wan masquerade; };"
	at "$bench" nft -f - <<-END
	flush ruleset
	$drop
	table inet t {
		counter seen { }
		$table
		chain forward { type filter hook forward priority 0; $seen
			$add; };
		$post
	}
	END
}

pg() { # pg FILE COMMAND...
	local f=/proc/net/pktgen/$1; shift
	at "$from" sh -c 'f=$1; shift; for c; do echo "$c" >"$f" || exit 1; done' sh "$f" "$@" || die "pktgen refuses: $*"
}
# generate COUNT [RUNS]: sets USEC, of the quickest run
generate() {
	local r
	pg $gen "count $1"
	r=$(at "$from" sh -c 'i=0; while [ $i -lt "$1" ]; do echo start >/proc/net/pktgen/pgctrl; grep -o "OK: [0-9]*" "/proc/net/pktgen/$2"; i=$((i + 1)); done' sh "${2:-1}" $gen)
	USEC=$(awk '$1 == "OK:" && (!n++ || $2 < m) { m = $2 } END { print m }' <<<"$r")
	[ -n "$USEC" ] || die "no result from pktgen"
}
pktgen_setup() {
	local size=60 len=46 proto=0021 addr mode="xmit_mode netif_receive" head=''
	if [ $v = 4 ]; then
		addr=("src_min 10.1.0.1" "src_max 10.1.$((addrs / 250)).$((addrs % 250 + 1))" "dst 10.0.2.2")
	else
		size=80 len=66 proto=0057 addr=("src6 fd00:11::1" "dst6 fd00:2::2")
	fi
	# more: what is in front of the IP packet, of a size that is the same for all ways
	local more=()
	case $in in
	vlan) size=$((size + 4)) more=("vlan_id 7") ;;
	pppoe) size=$((size + 8)) more=("mpls 00001000,00001000") ;;
	pppoe-vlan) size=$((size + 12)) more=("mpls 00001000,00001000,00001000") head=81000007 ;;
	esac
	if [ "$from" != "$bench" ]; then
		printf -v head '%s88641100%04x%04x%s' "$head" $SESSION $((len + 2)) $proto
		at "$from" nft -f - <<-END || die "no rule for frames of a session"
			table netdev session {
				chain out {
					type filter hook egress device $gen priority 0;
					@ll,96,$((${#head} * 4)) set 0x$head
				}
			}
		END
		mode="xmit_mode queue_xmit"
	fi
	pg kpktgend_0 "add_device $gen"
	pg $gen "clone_skb 0" "delay 0" "${more[@]}" "pkt_size $size" "burst 1" "$mode" "flag !SHARED" \
		"flag UDPCSUM" "flag NO_TIMESTAMP" "dst_mac $(mac "$bench" in0)" "src_mac $PEER" "${addr[@]}" \
		"udp_src_min 1024" "udp_src_max $((1024 + ports))" "udp_dst_min 9" "udp_dst_max 9"
}

sent() { ipn "$bench" -s -j link show out0 | jq '.[0].stats64.tx.packets'; }
seen() { at "$bench" nft list counter inet t seen | awk '$1 == "packets" { print $2 }'; }
in_qdisc() { # packets of the discipline, which noqueue does not count
	case $qdisc in
	'' | noqueue) echo "$1" ;;
	*) at "$bench" tc -s qdisc show dev $queued root | awk '$1 == "Sent" { print $4; exit }' ;;
	esac
}
# mark WHAT VARIANT: for the emulator's plugin; the code of flowtables is told apart
mark() {
	local m=()
	case $2 in ours | refused) m=(nft_offload) ;; intree) m=(nf_flow_table nf_flow_table_inet nft_flow_offload) ;; esac
	python3 "$HERE/bench/profile/mark.py" "$1" "$2" "${m[@]}" || die "no mark"
}
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
	local all=$((n * runs)) out0 passed queue
	out0=$(sent) passed=$(seen) queue=$(in_qdisc 0)
	[ -z "${PROFILE:-}" ] || { mark warm "$1"; generate "$flows"; out0=$(sent) passed=$(seen) queue=$(in_qdisc 0); mark begin "$1"; }
	generate $n $runs
	[ -z "${PROFILE:-}" ] || mark end "$1"
	out0=$(($(sent) - out0)) passed=$(($(seen) - passed)) queue=$(($(in_qdisc $all) - queue))
	if [ "$1" = drop ]; then
		[ $out0 = 0 ] || die "$out0 packets came out that were to be dropped"
	else
		[ $out0 -ge $((all * 99 / 100)) ] || die "$1: only $out0 of $all packets came out"
		# the in-tree module and a bare redirect go past the disciplines of upper devices
		[ $queue -ge $((all * 99 / 100)) ] || [[ $queued != out0 && ($1 = intree || $1 = fwd) ]] || die "$1: $qdisc saw only $queue of $all packets"
	fi
	COST=$((USEC * 1000 / n)) HIT=0
	case $1 in
	intree | ours | fwd)
		HIT=$((100 - passed * 100 / all))
		[ $HIT -ge 99 ] || die "$1: only $HIT % of the packets went around the forward chain $(stats_diff bench | tr '\n' ',')" ;;
	esac
	if [ "$1$filter" = ours1 ] && [ "$(stats_diff bench | awk '$1 == "packets_with_ct" { print $2 }')" -lt $all ]; then
		die "packets do not carry their connection"
	fi
	case $1 in # the other one must be unloadable in the next turn
	intree | ours | refused) at "$bench" nft flush ruleset ;;
	esac
}

for m in $modes; do
	case $m in
	classic) ;;
	fwd) modprobe -q nft_fwd_netdev ;;
	ours | refused) unload_intree && load_ours 2>"$TMP/out" || die "cannot load nft_offload: $(cat "$TMP/out")"; unload_ours ;;
	intree) unload_ours && load_intree 2>"$TMP/out" || die "cannot load the in-tree modules: $(cat "$TMP/out")"; unload_intree ;;
	*) die "variants are classic, intree, ours, refused, fwd" ;;
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
name() { case $1 in classic) echo "classic forwarding" ;; intree) echo "in-tree C flowtable" ;; ours) echo "nft_offload" ;; refused) echo "one device listed" ;; fwd) echo "bare redirect" ;; esac; }
echo "IPv$v UDP, $in -> $way, ${qdisc:+$qdisc at $queued, }${nat:+masquerade, }${filter:+filter at egress, }$flows flows, $rounds rounds; $unit per packet"
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
[ -z "${PROFILE:-}" ] || python3 "$HERE/bench/profile/table.py" "$OUT" -f "$flows"
