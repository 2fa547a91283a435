#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Records what nft-offload prints on a router with hardware (mock_hw.ko), hosts behind NAT, IPv6, and connections
# that are not offloaded: with what the LuCI page and the Grafana dashboard are tested. tool.sh compares the
# names in it with what the program prints now. Into $OUT, of which a copy belongs beside this script:
#
#   tools/lanes/run-lane uml -- selftests/recorded/record.sh && cp out/latest-uml/recorded/* selftests/recorded/

# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=../lib/hw.sh
. "$HERE/lib/hw.sh"
TOOL=${NFT_OFFLOAD_TOOL:-nft-offload}
BAD=0
fail() { echo "not recorded: $*"; BAD=1; return 1; }
skip_all() { echo "$*"; exit 4; }
# The hardware has had no room for a flow, and the module knows since how many rules fit.
refused() { conv_cmd f echo 20 1000 >/dev/null; [ "$(hw_get limit)" != 0 ]; }
trap cleanup EXIT

ft_setup
setup || exit 1
mock ports=lan,wan capacity=4 || exit 1
at "$rt" sysctl -qw net.netfilter.nf_conntrack_acct=1
ipn "$cl" addr add 10.0.1.3/24 dev eth0
serve "$cl" 8080
serve "$sv" 69
NAT="$(masq) chain dstnat { type nat hook prerouting priority dstnat; iifname wan tcp dport 8080 dnat ip to 10.0.1.3:8080; }
	ct helper h { type \"tftp\" protocol udp; }; chain pre { type filter hook prerouting priority 0; udp dport 69 ct helper set \"h\"; }" || exit 1
NAT="$(masq) chain dstnat { type nat hook prerouting priority dstnat; iifname wan tcp dport 8080 dnat ip to 10.0.1.3:8080; }
	ct helper h { type \"tftp\" protocol udp; }; chain pre { type filter hook prerouting priority 0; udp dport 69 ct helper set \"h\"; }" hw_rules || exit 1
heavy a udp $V4
heavy b udp $V6
conv_open c "$cl" tcp $V4 5000 && conv_ok c echo 1000000
conv_open d "$sv" tcp 10.0.2.1 8080 && conv_ok d echo 300000
conv_open e "$cl" udp $V4 69 && conv_ok e echo 50 200
conv_open f "$cl" udp $V6 5000 && busywait 15000 refused || fail "everything fits"
at "$cl" ping -q -c 3 -i 0.1 $V4 >/dev/null

mkdir -p "${OUT:?}/recorded" && cd "$OUT/recorded" || exit 1
run() { at "$rt" "$TOOL" "$@" || fail "$*"; }
run metrics >metrics.prom
run -j metrics >metrics.json
run flows --jsonl >flows.jsonl
# Of the reasons, those that have been counted.
run -j reasons | jq --slurpfile m metrics.json \
	'[.[] | . as $r | select($m[0].counters[] | .group == $r.group and .name == $r.name and .count > 0)]' >reasons.json
wc -c ./*
clean
no_mock
exit $BAD
