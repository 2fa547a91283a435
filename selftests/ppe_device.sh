#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The native PPE engine, and the engine itself outside of this guest: selftests/ppe_device, which has
# the table in the guest's memory and sits between the network cards. Run it with
#
#   selftests/vm/run-lane vfio selftests/ppe_device.sh
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ==== lan 10.0.1.1  wan 10.0.2.1 ==== eth0 10.0.2.2
#      fd00:1::2     |    fd00:1::1     fd00:2::1    |    fd00:2::2
#     card 2         |    card 0        card 1       |   card 3
#                    +----------- engine ------------+          ==== cables, outside of the guest

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

[ "$FT" = ours ] || skip_all "about our module"
V4=10.0.2.2 V6=fd00:2::2
PPE=/sys/kernel/debug/ppe0
HW=$DEBUGFS/hardware
masq() { echo "chain post { type nat hook postrouting priority 100; oifname wan masquerade; };"; }

# ask COMMAND...: of the process outside; its answer without ok
ask() {
	local a=
	echo "$*" >&"$CONTROL" && read -r -t $((15 * SLOW)) a <&"$CONTROL"
	[ "${a%% *}" = ok ] || { note "$*: ${a:-no answer}"; return 1; }
	a=${a#ok}; echo "${a# }"
}
ask_get() { ask counts | tr ' ' '\n' | sed -n "s/^$1=//p"; }
bound() { cat /sys/kernel/debug/ppe?/bind | wc -l; }
bound_is() { [ "$(bound)" = "$1" ] && [ "$(ask used)" = "$1" ]; }
hw_get() { awk -v n="$1" '$1 == n { print $2 }' "$HW"; }
hw_is() { [ "$(hw_get "$1")" = "$2" ]; }
hw_ge() { [ "$(hw_get "$1")" -ge "$2" ]; }
in_hw() { ct_list "$@" | grep -q '\[HW_OFFLOAD\]'; }
not_in_hw() { ! in_hw "$@"; }
hw_rules() { rules FLAGS="${FLAGS-counter;} flags offload;" NAT="${NAT-}"; }
clean() { nft_rt flush ruleset; busywait $((5000 * SLOW)) bound_is 0 || fail "left in the table: $(bound), $(ask used)"; }
# cards: packets that the router's cards have received and sent, by themselves
cards() { at "$rt" awk '/^ *(lan|wan):/ { n += $3 + $11 } END { print n }' /proc/net/dev; }

# card N VAR NAME: gives a card to a namespace
card() {
	local d
	for d in /sys/class/net/*; do
		[ "$(cat "$d/address")" = "02:11:22:33:44:5$(($1 + 4))" ] || continue
		ip link set "${d##*/}" netns "$2" name "$3" && return
	done
	fail "no card $1"
}
setup() {
	local p
	for p in /sys/class/virtio-ports/*; do
		[ "$(cat "$p/name" 2>/dev/null)" != engine ] || exec {CONTROL}<>"/dev/${p##*/}"
	done
	[ -n "${CONTROL:-}" ] || { fail "no way to talk to the engine"; return 1; }
	ns_add cl rt sv || return
	card 0 "$rt" lan && card 1 "$rt" wan && card 2 "$cl" eth0 && card 3 "$sv" eth0 || return
	wired && serve "$sv"
}

bound_driver() {
	local soc=${NFT_OFFLOAD_SOC:-mt7622}
	dmesg | grep -q "model of the packet processing engine of $soc" || fail "the kernel log does not tell of $soc"
	want_eq "entries" "$(cat $PPE/entries)" ""
	want_eq "GLO_CFG, as the engine has it" "$(ask register "$(window 200)")" 0000020d
	want_eq "CACHE_CTL" "$(ask register "$(window 320)")" 00000001
	[ "$(ask register "$(window 220)")" != 00000000 ] || fail "there is no table"
}
# window REGISTER: of the first engine
window() {
	case ${NFT_OFFLOAD_SOC:-mt7622} in
	mt7622) printf '%x' $((0x0c00 + 0x$1)) ;;
	*) printf '%x' $((0x2000 + 0x$1)) ;;
	esac
}
tcase "the driver binds and starts the engine" bound_driver

# heavy ID PROTO ADDRESS [PORT] [OPTION...]: a conversation that is in hardware with both directions
heavy() {
	local id=$1 proto=$2
	talk "$id" "$cl" "${@:2}" || return
	busywait $((15000 * SLOW)) heavier "$id" "$proto" || { fail "not in hardware: $(ct_list -p "$proto" | head -n1) $(grep -E "^(flows|decline|device)" "$HW" | tr '\n' ' ')"; return 1; }
}
heavier() { say "$1" echo 20 1000 >/dev/null; in_hw -p "$2"; }

# by_hardware ID N: N more answers, all forwarded outside; the router's cards stand still
by_hardware() {
	local before n c
	before=$(ask_get forwarded) c=$(cards)
	counters_zero
	say_ok "$1" echo "$2" 1000
	c=$(($(cards) - c))
	n=$(($(ask_get forwarded) - before))
	counters
	want_ge "packets that the engine forwarded" "$n" $((2 * $2))
	# A neighbour may be asked for meanwhile.
	want_le "packets that the router's cards saw" "$c" 4
	want_le "packets that came to our hook" "$ARRIVED" 0
	want_le "packets in the fast path" "$(fast)" 0
	want_le "packets seen by the forward chain" "$FORWARDED" 0
}

forwards() { # forwards PROTO ADDRESS NAT
	NAT=$3 hw_rules || return
	heavy x "$1" "$2" 5000 || { hush x; return 1; }
	want_eq "entries in force" "$(bound)" 2
	want_eq "entries in force, as the engine has them" "$(ask used)" 2
	by_hardware x 200
	hush x
	clean
}
tcase "IPv4 udp routed"     forwards udp $V4 ""
tcase "IPv4 udp masquerade" forwards udp $V4 "$(masq)"
tcase "IPv6 udp routed"     forwards udp $V6 ""

SETUP=setup
run_cases "$@"
