#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The main job, shown: a router between two networks forwards NATed TCP and UDP
# through nft_offload. Run by `make demo` in a guest; anywhere else it takes the
# flowtable modules of the machine, in namespaces of its own.
#
#   lan host ---- lan [ router ] wan ---- wan host
#   10.0.1.2     10.0.1.1   10.0.2.1     10.0.2.2
#   fd00:1::2   fd00:1::1   fd00:2::1   fd00:2::2
#
# Exit status 0 only if the bypass was real, every payload identical, the
# in-tree modules absent while ours ran, and the kernel log clean.
# DEMO_ROUNDS: rounds of the measurement (5; 0 leaves it out).

FT=ours
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

BAD=0
title() { printf '\n%s\n' "$*"; }
line() { printf '  %s\n' "$@"; }
fail() { RET=1 BAD=$((BAD + 1)); printf '  NOT OK: %s\n' "$*"; return 1; }
skip_all() { echo "demo.sh: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || skip_all "needs root"
trap cleanup EXIT
trap 'exit 1' INT TERM

ft_setup
MARK=$(dmesg_mark)
FLOWS_BEFORE=$(stat_get flows)
stats_save start

where="$(uname -m)"
if [ -d /sys/module/nft_offload ] && [ "$(modinfo -n nft_offload 2>/dev/null)" ]; then mod=$(modinfo -F version nft_offload); fi
case $(cat /sys/class/dmi/id/sys_vendor 2>/dev/null; grep -m1 -o 'User Mode Linux' /proc/cpuinfo) in
*QEMU*) grep -q hypervisor /proc/cpuinfo && where+=", in QEMU" ;;
*User*) where+=", User Mode Linux" ;;
esac
echo "nft_offload demo"
line "kernel   $(uname -r) ($where)" \
	"module   nft_offload ${mod:-$(cat /sys/module/nft_offload/version 2>/dev/null)}, written in Rust, loaded" \
	"in-tree  $(for m in $INTREE; do loaded "$m" && echo "$m "; done | grep . || echo "nf_flow_table_inet, nft_flow_offload: not loaded")" \
	"tools    $(nft --version | cut -d' ' -f1,2), $(conntrack --version | head -n1 | tr -d ':')"

title "1. A router between two networks, in namespaces"
lan_wan || exit 1
line "lan host ---- lan [ router ] wan ---- wan host" \
	"10.0.1.2     10.0.1.1   10.0.2.1     10.0.2.2" \
	"fd00:1::2   fd00:1::1   fd00:2::1   fd00:2::2"
NAT='chain port_forward {
			type nat hook prerouting priority dstnat;
			iifname wan meta l4proto { tcp, udp } th dport 8080 dnat ip to 10.0.1.2:5000
			iifname wan meta l4proto { tcp, udp } th dport 8080 dnat ip6 to [fd00:1::2]:5000
		}
		chain to_wan {
			type nat hook postrouting priority srcnat;
			oifname wan masquerade
		}'
FLAGS="counter;"
rules NAT="$NAT" FLAGS="$FLAGS" || exit 1
serve "$sv" && serve "$cl" || exit 1
nft_rt list table inet t | sed 's/^/  /'
line "" "(two more tables only count: what arrives at the ports, what the forward chain sees)"

title "2. Traffic, eight connections, 4 MiB or 2000 datagrams each way"
counters_zero
i=0 OPEN=()
# conversation TEXT FROM PROTO ADDRESS PORT
conversation() {
	local a id=d$((++i)) cmd="echo 4194304" got
	[ "$3" = udp ] && cmd="echo 2000 1200"
	conv_open "$id" "$2" "$3" "$4" "$5" || return
	OPEN+=("$id")
	a=$(conv_cmd "$id" $cmd); got=$?
	[ $got = 0 ] && printf '  ok   %-44s payload identical\n' "$1" || fail "$1: $a"
}
conversation "IPv4 TCP  lan -> wan, masqueraded"       "$cl" tcp 10.0.2.2 5000
conversation "IPv4 UDP  lan -> wan, masqueraded"       "$cl" udp 10.0.2.2 5000
conversation "IPv6 TCP  lan -> wan, masqueraded"       "$cl" tcp fd00:2::2 5000
conversation "IPv6 UDP  lan -> wan, masqueraded"       "$cl" udp fd00:2::2 5000
conversation "IPv4 TCP  wan -> port 8080, to the lan host" "$sv" tcp 10.0.2.1 8080
conversation "IPv4 UDP  wan -> port 8080, to the lan host" "$sv" udp 10.0.2.1 8080
conversation "IPv6 TCP  wan -> port 8080, to the lan host" "$sv" tcp fd00:2::1 8080
conversation "IPv6 UDP  wan -> port 8080, to the lan host" "$sv" udp fd00:2::1 8080
counters
F=$(fast)

title "3. nft list flowtables"
nft_rt list flowtables | awk '/^table/ { t = $0; next } /^}/ { if (!t) print; next } { if (t) print t; t = ""; print }' | sed 's/^/  /'
title "4. conntrack -L, while the connections are open"
ct_list -o id | grep -E ' (tcp|udp) |^(tcp|udp)' | sed 's/ id=[0-9]*//; s/ mark=0//; s/ use=[0-9]*//; s/  */ /g' | sort >"$TMP/ct"
sed 's/^/  /' "$TMP/ct"
n=$(grep -c '\[OFFLOAD\]' "$TMP/ct")
[ "$n" = 8 ] || fail "$n of 8 connections are shown as [OFFLOAD]"

title "5. Who forwarded the packets"
printf '  %-34s %8d packets %11d bytes\n' "arrived at the router's ports" "$ARRIVED" "$ARRIVED_BYTES"
printf '  %-34s %8d packets %11d bytes\n' "forwarded by nft_offload" "$F" "$(($(stat_get bytes_fast) - $(awk '$1 == "bytes_fast" { print $2 }' "$TMP/stats.start")))"
printf '  %-34s %8d packets %11d bytes\n' "seen by the forward chain" "$FORWARDED" "$FORWARDED_BYTES"
MIN_ARRIVED=8000 MAX_SLOW=$((ARRIVED / 50)) bypass_numbers "$ARRIVED" "$FORWARDED" "$F"
[ "$FORWARDED_BYTES" -le $((ARRIVED_BYTES / 20)) ] || fail "the forward chain saw $FORWARDED_BYTES of $ARRIVED_BYTES bytes"

title "6. Why the others did not take the fast path (skip: flow not added, miss: packet left to the stack)"
for id in "${OPEN[@]}"; do conv_close "$id"; done
stats_diff start | grep -E '^(skip|miss|teardown)\.' | awk '{ printf "  %-28s %d\n", $1, $2 }'
ft_check

title "7. Afterwards"
cleanup_all
if busywait $((15000 * SLOW)) flows_are "${FLOWS_BEFORE:-0}"; then
	line "ok   namespaces deleted, all flows are gone"
else
	fail "$(stat_get flows) flows are left"
fi
busywait $((5000 * SLOW)) all_freed || fail "flows_added $(stat_get flows_added), flows_freed $(stat_get flows_freed)"
ft_check && line "ok   the in-tree flowtable modules were never loaded"

if [ "${DEMO_ROUNDS:-5}" != 0 ]; then
	title "8. Cost per forwarded packet, same guest, in turns"
	variants="classic intree ours"
	modprobe -n nf_flow_table_inet 2>/dev/null || variants="classic ours"
	"$HERE/bench/pktgen.sh" -r "${DEMO_ROUNDS:-5}" -m "$variants" 2>"$TMP/bench.err" | sed 's/^/  /'
	[ "${PIPESTATUS[0]}" = 0 ] || fail "measurement: $(tail -n1 "$TMP/bench.err")"
	case $where in
	*QEMU*) line "QEMU without KVM counts emulated time: compare the lines, not with real hardware." ;;
	esac
	loaded nft_offload || fail "nft_offload is not loaded any more"
fi

RET=0
ft_check
if dmesg_clean_since "$MARK" >"$TMP/dmesg"; then line "" "ok   kernel log is clean"; else sed 's/^/  /' "$TMP/dmesg"; fail "kernel log"; fi

if [ $BAD = 0 ]; then
	printf '\nnft_offload forwarded %d of %d packets; everything as it should be.\n' "$F" "$ARRIVED"
else
	printf '\n%d problems, see NOT OK above.\n' $BAD
fi
exit $((BAD > 0))
