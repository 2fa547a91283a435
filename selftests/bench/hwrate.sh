#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# How many rule requests a second the hardware tier hands to an engine that takes no time: mock_hw.ko with
# stub=1 counts them and notes when the first and the last came. The flows are all waiting when it begins:
# the first request is held until then. What is measured is the worker: the queue, the choice, both
# directions described, one rendered (the traffic goes one way), the driver's callback.
#
#      cl                             rt                        sv
#   raw frames from 10.1.0.0/16 ---- lan    wan ---- eth0 10.0.2.2
#                and fd00:11::/64                    fd00:2::2
#
#   hwrate.sh [-f FLOWS] [-r ROUNDS]      20000, 5: lines "requests nanoseconds requests-per-second"
set -u
# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=../lib/hw.sh
. "$HERE/lib/hw.sh"

flows=20000 rounds=5
while getopts "f:r:h" o; do
	case $o in
	f) flows=$OPTARG ;;
	r) rounds=$OPTARG ;;
	*) sed -n '3,13s/^# \?//p' "$0"; exit 1 ;;
	esac
done
die() { echo "hwrate.sh: $*" >&2; exit 1; }
[ -n "${NFT_OFFLOAD_MOCK:-}" ] || die "no mock_hw.ko"
finish() { cleanup; [ ! -e "$PARAM/hold" ] || echo 0 >"$PARAM/hold"; ! loaded mock_hw || busywait 5000 rmmod mock_hw; }
trap finish EXIT

mkdir -p "$TMP"
modprobe -a nf_tables nf_conntrack nf_nat nf_conntrack_netlink nf_dup_netdev 2>/dev/null
unload_intree; unload_ours
insmod "$NFT_OFFLOAD_KO" hw_threshold=1 || die "nft_offload does not load"
sysctl -qw net.netfilter.nf_conntrack_buckets=$((flows * 2)) net.netfilter.nf_conntrack_max=$((flows * 4))
cl='' rt='' sv=''
lan_wan || die "no network"
ipn "$rt" route add 10.1.0.0/16 via 10.0.1.2
ipn "$rt" -6 route add fd00:11::/64 via fd00:1::2
at "$sv" nft -f - <<-'END'
	table netdev far {
		chain in {
			type filter hook ingress device eth0 priority 0;
			udp dport 7000-7999 drop
		}
	}
END
at "$rt" sysctl -qw net.netfilter.nf_flowtable_udp_timeout=300
for a in 10.0.2.2 10.0.1.2 fd00:2::2 fd00:1::2; do
	at "$rt" ping -q -c1 "$a" >/dev/null || die "no neighbour $a"
	m=$(ipn "$rt" -j neigh show "$a" | jq -r '.[0] | .lladdr + " dev " + .dev')
	# shellcheck disable=SC2086
	ipn "$rt" neigh replace "$a" lladdr $m nud permanent
done
insmod "$NFT_OFFLOAD_MOCK" ports=lan,wan stub=1 || die "mock_hw does not load"

wave() { at "$cl" "${PY[@]}" streams wave eth0 "$(mac "$rt" lan)" --flows "$flows" --seed "$1" --repeat 2; }
done_all() { [ "$(mock_get stub_adds)" -ge $((before + flows)) ]; }
before=0
for ((r = 1; r <= rounds; r++)); do
	before=$(mock_get stub_adds)
	mock_set hold -1
	FLAGS="flags offload;" rules || die "ruleset"
	wave 1; wave 2; wave 3
	[ "$(stat_get flows)" -ge "$flows" ] || die "only $(stat_get flows) flows"
	mock_set stub_restart 1
	# Nobody else has anything to do while it is measured.
	mock_set hold 1000
	sleep 3
	busywait $((60000 * SLOW)) done_all || die "only $(($(mock_get stub_adds) - before)) of $flows requests: $(cat "$HW")"
	n=$((flows - 1)) ns=$(mock_get stub_ns)
	echo "$n $ns $((n * 1000000000 / ns))"
	nft_rt flush ruleset
	at "$rt" conntrack -F >/dev/null 2>&1
done
