#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Which share of the bytes that the best choice would carry goes through hardware: UDP flows whose rates
# are as 1/rank^1.1, and an engine with room for few of them, which mock_hw.ko plays. Ours chooses by rate;
# the in-tree module takes whoever comes first.
#
#      cl                             rt                        sv
#   raw frames from 10.1.0.0/16 ---- lan    wan ---- eth0 10.0.2.2, drops
#
#   -f FLOWS    (10000)      -p PLACES   rules that fit, one for each flow, as the traffic goes one way (64)
#   -t SECONDS  (90)         -w SECONDS  that do not count (20)
#   -r RATE     datagrams of 1000 bytes a second (6000)
#   -s SECONDS  other flows are the heavy ones after so many (never)
#   -m LIST     variants, "ours intree"
#   -o FILE     a line for each second: variant, second, sent, of the best flows, by hardware
set -u
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=../lib/hw.sh
. "$HERE/lib/hw.sh"

flows=10000 places=64 seconds=90 warm=20 rate=6000 shift=0 modes="ours intree" out=
while getopts "f:p:t:w:r:s:m:o:h" o; do
	case $o in
	f) flows=$OPTARG ;;
	p) places=$OPTARG ;;
	t) seconds=$OPTARG ;;
	w) warm=$OPTARG ;;
	r) rate=$OPTARG ;;
	s) shift=$OPTARG ;;
	m) modes=$OPTARG ;;
	o) out=$OPTARG ;;
	*) sed -n '3,17s/^# \?//p' "$0"; exit 1 ;;
	esac
done
die() { echo "hwzipf.sh: $*" >&2; exit 1; }
[ -n "${NFT_OFFLOAD_MOCK:-}" ] || die "no mock_hw.ko"
finish() { cleanup; ! loaded mock_hw || busywait 5000 rmmod mock_hw; unload_intree; unload_ours; }
trap finish EXIT

mkdir -p "$TMP"
modprobe -a nf_tables nf_conntrack nf_nat nf_conntrack_netlink nf_dup_netdev 2>/dev/null
sysctl -qw net.netfilter.nf_conntrack_buckets=$((flows * 2)) net.netfilter.nf_conntrack_max=$((flows * 4))
cl='' rt='' sv=''
lan_wan || die "no network"
ipn "$rt" route add 10.1.0.0/16 via 10.0.1.2
at "$sv" nft -f - <<-'END'
	table netdev far {
		chain in {
			type filter hook ingress device eth0 priority 0;
			udp dport 7000-7999 drop
		}
	}
END
for d in "$cl eth0" "$rt lan" "$rt wan" "$sv eth0"; do
	# shellcheck disable=SC2086
	offloads $d tx off rx off tso off gso off gro off
done
for a in 10.0.2.2 10.0.1.2; do
	at "$rt" ping -q -c1 "$a" >/dev/null || die "no neighbour $a"
	m=$(ipn "$rt" -j neigh show "$a" | jq -r '.[0] | .lladdr + " dev " + .dev')
	# shellcheck disable=SC2086
	ipn "$rt" neigh replace "$a" lladdr $m nud permanent
done

[ -z "$out" ] || : >"$out"
for FT in $modes; do
	unload_intree; unload_ours
	case $FT in
	ours)
		# one percent of what the lightest flow of the best choice has, about
		insmod "$NFT_OFFLOAD_KO" hw_threshold=2000 || die "nft_offload does not load" ;;
	intree) load_intree || die "the in-tree modules do not load" ;;
	esac
	insmod "$NFT_OFFLOAD_MOCK" ports=lan,wan capacity="$places" || die "mock_hw does not load"
	FLAGS="flags offload;" ruleset >"$TMP/rules" && nft_rt -f "$TMP/rules" || die "ruleset"
	at "$cl" "${PY[@]}" streams zipf eth0 "$(mac "$rt" lan)" "forwarded@$MOCK/stats" --flows "$flows" --best "$places" \
		--rate "$rate" --seconds "$seconds" --shift "$shift" >"$TMP/zipf" || die "no traffic"
	[ -z "$out" ] || sed "s/^/$FT /" "$TMP/zipf" >>"$out"
	awk -v m="$FT" -v w="$warm" -v s="$shift" '
		(s ? $1 % s : $1) >= w { sent += $2; best += $3; hw += $4 }
		END { printf "%s: %d of %d datagrams by hardware, %.1f %% of the %d that the best choice carries\n", m, hw, sent, 100 * hw / best, best }' "$TMP/zipf"
	nft_rt flush ruleset
	at "$rt" conntrack -F >/dev/null 2>&1
	busywait 10000 rmmod mock_hw || die "mock_hw does not go"
done
