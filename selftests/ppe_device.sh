#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The native PPE engine, and the engine itself outside of this guest: selftests/ppe_device, which has
# the table in the guest's memory and sits between the network cards. There is one of each generation,
# as a PCI device; the driver is bound to one at a time. Run it with
#
#   tools/lanes/run-lane vfio selftests/ppe_device.sh
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
DRIVER=/sys/bus/pci/drivers/nft_offload_ppe
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
hw_rules() { ask clock go >/dev/null; rules FLAGS="${FLAGS-counter;} flags offload;" NAT="${NAT-}"; }
clean() { nft_rt flush ruleset; busywait $((5000 * SLOW)) bound_is 0 || fail "left in the table: $(bound), $(ask used)"; }
# cards: packets that the router's cards have received and sent, by themselves
cards() { at "$rt" awk '/^ *(lan|wan):/ { n += $3 + $11 } END { print n }' /proc/net/dev; }

setup() {
	local p
	for p in /sys/class/virtio-ports/*; do
		[ "$(cat "$p/name" 2>/dev/null)" != engine ] || exec {CONTROL}<>"/dev/${p##*/}"
	done
	[ -n "${CONTROL:-}" ] || { fail "no way to talk to the engine"; return 1; }
	ns_add cl rt sv || return
	card 0 "$rt" lan && card 1 "$rt" wan && card 2 "$cl" eth0 && card 3 "$sv" eth0 || return
	soc mt7622 && wired && serve "$sv"
}

# soc NAME: this engine, and no other
soc() {
	local d
	for d in "$DRIVER"/0000:*; do
		[ ! -e "$d" ] || echo "${d##*/}" >"$DRIVER/unbind" || return
	done
	for d in /sys/bus/pci/devices/*; do
		[ "$(cat "$d/vendor" "$d/device" | tr '\n' ' ')" = "0x1b36 0x${1#mt} " ] || continue
		SOC=$1 DEVICE=${d##*/}
		echo "$DEVICE" >"$DRIVER/bind"
		return
	done
	fail "no $1"
}
# The engine's clock: "ask clock stop" where nothing may age by itself, "ask clock N" for N seconds.

# with SOC CMD...: a case with another engine than the first
with() {
	soc "$1" || { fail "$1"; return 1; }
	"${@:2}"
	soc mt7622 || fail "back to mt7622"
}

bound_driver() {
	dmesg | grep -q "model of the packet processing engine of $SOC" || fail "the kernel log does not tell of $SOC"
	want_eq "entries in force" "$(cat $PPE/bind)" ""
	want_eq "GLO_CFG, as the engine has it" "$(ask register "$(window 200)")" 0000020d
	want_eq "CACHE_CTL" "$(ask register "$(window 320)")" 00000001
	[ "$(ask register "$(window 220)")" != 00000000 ] || fail "there is no table"
}
# window REGISTER: of the first engine
window() {
	case $SOC in
	mt7622) printf '%x' $((0x0c00 + 0x$1)) ;;
	*) printf '%x' $((0x2000 + 0x$1)) ;;
	esac
}
tcase "the driver binds and starts the engine" bound_driver

# heavy ID PROTO ADDRESS [PORT] [OPTION...]: a conversation that is in hardware with both directions
heavy() {
	local id=$1 proto=$2
	conv_open "$id" "$cl" "${@:2}" || return
	busywait $((15000 * SLOW)) heavier "$id" "$proto" || { fail "not in hardware: $(ct_list -p "$proto" | head -n1) $(grep -E "^(flows|decline|device)" "$HW" | tr '\n' ' ')"; return 1; }
}
heavier() { conv_cmd "$1" echo 20 1000 >/dev/null; in_hw -p "$2"; }

# by_hardware ID N: N more answers, all forwarded outside; the router's cards stand still
by_hardware() {
	local before n c
	before=$(ask_get forwarded) c=$(cards)
	counters_zero
	conv_ok "$1" echo "$2" 1000
	c=$(($(cards) - c))
	n=$(($(ask_get forwarded) - before))
	counters
	want_ge "packets that the engine forwarded" "$n" $((2 * $2))
	# Neighbours may be asked for meanwhile.
	want_le "packets that the router's cards saw" "$c" 12
	want_le "packets that came to our hook" "$ARRIVED" 0
	want_le "packets in the fast path" "$(fast)" 0
	want_le "packets seen by the forward chain" "$FORWARDED" 0
}

forwards() { # forwards PROTO ADDRESS NAT
	NAT=$3 hw_rules || return
	heavy x "$1" "$2" 5000 || { conv_close x; return 1; }
	want_eq "entries in force" "$(bound)" 2
	want_eq "entries in force, as the engine has them" "$(ask used)" 2
	by_hardware x 200
	conv_close x
	clean
}
tcase "IPv4 udp routed"     forwards udp $V4 ""
tcase "IPv4 udp masquerade" forwards udp $V4 "$(masq)"
tcase "IPv6 udp routed"     forwards udp $V6 ""

# spoof COMMAND...: a flowtable for a device that somebody has made, with the address and the index of the
# router's card, in the namespace that COMMAND makes
spoof() {
	"$@" sh -c "ip link add lan address $(mac "$rt" lan) index $(ipn "$rt" -j link show lan | jq '.[0].ifindex') type dummy &&
		ip link set lan up && echo made && exec nft 'table inet t { flowtable f {
			hook ingress priority 0; devices = { lan }; flags offload; }; }'" 2>&1 | tr '\n' ' '
}
no_spoof() {
	local what=$1 said
	said=$(spoof "${@:2}")
	[[ $said == "made "*"not supported"* ]] || fail "$what: $said"
}
spoofed() { # the engine is for who owns the machine's cards
	local by=()
	clean
	modprobe -q dummy
	setpriv --reuid=65534 --clear-groups unshare -Urn true 2>/dev/null && by=(setpriv --reuid=65534 --clear-groups)
	no_spoof "by the root of a user namespace" "${by[@]}" unshare -Urn
	no_spoof "by root" unshare -n
	hw_rules || return
	no_spoof "by the root of a user namespace, while it is in use" "${by[@]}" unshare -Urn
	heavy x udp $V4 || return
	by_hardware x 20
	conv_close x
	clean
}
tcase "somebody's own device with a card's address and index is not hardware" spoofed

for s in mt7986 mt7988; do
	tcase "$s: the driver binds and starts the engine" with $s bound_driver
	tcase "$s: IPv4 udp masquerade" with $s forwards udp $V4 "$(masq)"
	tcase "$s: IPv6 udp routed"     with $s forwards udp $V6 ""
done


tcp() { # the payload is compared by the talkers; FIN comes to software
	local before
	NAT=$2 hw_rules || return
	conv_open x "$cl" tcp "$1" || return
	busywait $((10000 * SLOW)) heavier_tcp x || fail "not in hardware: $(ct_list -p tcp | head -n1)"
	before=$(ask_get forwarded)
	counters_zero
	conv_ok x echo 1000000
	want_ge "packets that the engine forwarded" $(($(ask_get forwarded) - before)) 1000
	want_le "packets that came to our hook" "$(arrived)" 0
	before=$(ask_get cpu.10)
	conv_ok x fin
	want_ge "times that the engine saw the end" "$(ask_get cpu.10)" $((${before:-0} + 1))
	busywait $((8000 * SLOW)) bound_is 0 || fail "entries after the connection has ended: $(bound)"
	! ct_list -p tcp | grep -q ESTABLISHED || fail "conntrack has not seen the end: $(ct_list -p tcp)"
	conv_close x
	clean
}
heavier_tcp() { conv_cmd "$1" echo 60000 >/dev/null; in_hw -p tcp; }
tcase "TCP IPv4 masquerade, to its end" tcp $V4 "$(masq)"
tcase "TCP IPv6, to its end"            tcp $V6 ""

iperf() { # many megabytes by iperf3, both ways
	local before c bytes
	NAT=$(masq) hw_rules || return
	bg "$sv" iperf3 -s -1 -p 5201 --logfile /dev/null
	busywait $((5000 * SLOW)) at "$cl" sh -c 'ss -H -l -t -N '"$sv"' | grep -q 5201' ||
		{ fail "iperf3 does not listen"; return 1; }
	c=$(cards) before=$(ask_get bytes)
	counters_zero
	at "$cl" iperf3 -c $V4 -p 5201 -n 16M -J >"$TMP/iperf" || fail "iperf3: $(jq -r .error "$TMP/iperf")"
	bytes=$(jq .end.sum_received.bytes "$TMP/iperf")
	want_ge "bytes that arrived" "$bytes" 16000000
	want_ge "bytes that the engine forwarded" $(($(ask_get bytes) - before)) $((bytes * 9 / 10))
	c=$(($(cards) - c))
	note "iperf3: $bytes bytes, $(($(ask_get bytes) - before)) by the engine, the router's cards saw $c packets, $(jq '.end.sum_received.bits_per_second / 1e6 | round' "$TMP/iperf") Mbit/s"
	want_le "packets that the router's cards saw" "$c" 3000
	clean
}
tcase "iperf3, 16 MB" iperf

# ---- what comes out is what software makes of it

frames_of() { # frames_of WHAT SRC DST: through a flow that exists
	local mac n
	mac=$(mac "$rt" lan)
	n=20; [[ $3 != *:* ]] || n=19
	rm -f "$TMP/ready"
	at "$sv" "${PY[@]}" hwframes catch eth0 5000 "$n" --ready "$TMP/ready" >"$TMP/frames.$1" & local pid=$!
	busywait $((8000 * SLOW)) test -e "$TMP/ready"
	at "$cl" "${PY[@]}" hwframes send eth0 "$mac" "$2" "$3" 7000 5000
	wait $pid
}
same_frames() { # same_frames SRC DST NAT
	rules NAT="$3" || return
	conv_open x "$cl" udp "$2" 5000 --sport 7000 || return
	conv_ok x echo 50 1000
	frames_of software "$1" "$2"
	conv_close x
	want_eq "entries" "$(bound)" 0
	NAT=$3 hw_rules || return
	heavy x udp "$2" 5000 --sport 7000 || { conv_close x; return 1; }
	local before dropped
	before=$(ask_get forwarded) dropped=$(ask_get dropped)
	frames_of hardware "$1" "$2"
	want_ge "frames that the engine forwarded" $(($(ask_get forwarded) - before)) 18
	want_ge "frames that software let through" "$(wc -l <"$TMP/frames.software")" 19
	# The one whose checksum is wrong is dropped, over IPv4.
	if [[ $2 != *:* ]]; then
		want_eq "frames that the engine dropped" $(($(ask_get dropped) - dropped)) 1
		sed -i '/^17 /d' "$TMP/frames.software"
	fi
	cmp -s "$TMP/frames.software" "$TMP/frames.hardware" ||
		fail "frames differ: $(diff "$TMP/frames.software" "$TMP/frames.hardware" | head -n 6)"
	conv_close x
	clean
}
tcase "frames as software makes them, IPv4 routed"     same_frames 10.0.1.2 $V4 ""
tcase "frames as software makes them, IPv4 masquerade" same_frames 10.0.1.2 $V4 "$(masq)"
tcase "frames as software makes them, IPv6 routed"     same_frames fd00:1::2 $V6 ""

tagged() { # the far network once more, in a VLAN
	ipn "$rt" link add r7 link wan type vlan id 7 && ipn "$rt" link set r7 up
	ipn "$sv" link add e7 link eth0 type vlan id 7 && ipn "$sv" link set e7 up
	ipn "$rt" addr add 10.0.7.1/24 dev r7; ipn "$sv" addr add 10.0.7.2/24 dev e7
	ipn "$sv" route replace 10.0.1.0/24 via 10.0.7.1
	busywait $((5000 * SLOW)) at "$cl" ping -c1 -W1 -q 10.0.7.2 || fail "no way to 10.0.7.2"
	same_frames 10.0.1.2 10.0.7.2 ""
	ipn "$sv" route del 10.0.1.0/24
	ipn "$rt" link del r7; ipn "$sv" link del e7
}
tcase "frames as software makes them, VLAN" tagged
for s in mt7986 mt7988; do
	tcase "$s: frames as software makes them, IPv4 masquerade" with $s same_frames 10.0.1.2 $V4 "$(masq)"
	tcase "$s: frames as software makes them, IPv6 routed"     with $s same_frames fd00:1::2 $V6 ""
	tcase "$s: frames as software makes them, VLAN"            with $s tagged
done

# ---- books and age

acct() { # conntrack counts every packet once, whoever forwarded it
	local sent
	at "$rt" sysctl -qw net.netfilter.nf_conntrack_acct=1
	at "$sv" nft -f - <<-END
	table inet far {
		chain in { type filter hook input priority 0; udp dport 5000 counter; }
		chain out { type filter hook output priority 0; udp sport 5000 counter; }
	}
	END
	NAT=$(masq) hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	conv_ok x echo 300 1000
	busywait $((6000 * SLOW)) totals_are || { sent=$(far); fail "conntrack says $(ct_total), the far end $sent"; }
	in_hw -p udp || fail "not in hardware any more"
	want_ge "packets in the tier's books" "$(hw_get packets)" 600
	conv_close x
	at "$sv" nft delete table inet far
	clean
}
ct_total() { ct_list -p udp --orig-port-dst 5000 | tr ' ' '\n' | awk -F= '/^packets=/ { p = p " " $2 } END { print p }'; }
far() { at "$sv" nft list ruleset | awk '/counter packets/ { p = p " " $(NF - 2) } END { print p }'; }
totals_are() { [ "$(ct_total)" = "$(far)" ]; }
tcase "conntrack counts every packet once" acct
for s in mt7986 mt7988; do tcase "$s: conntrack counts every packet once" with $s acct; done

ageing() { # the engine lets go of what is idle; software knows, and the flow comes back
	hw_rules && ask clock stop >/dev/null || return
	heavy x udp $V4 || { conv_close x; return 1; }
	want_ok "clock" ask clock 8
	want_eq "entries after 8 s" "$(ask used)" 2
	by_hardware x 20
	want_ok "clock" ask clock 14
	want_eq "entries after 14 s without a packet" "$(ask used)" 0
	busywait $((5000 * SLOW)) not_in_hw -p udp || fail "shown as [HW_OFFLOAD] without entries"
	hw_ge aged 1 || fail "nobody knows: $(cat "$HW")"
	busywait $((20000 * SLOW)) heavier x udp || fail "does not come back: $(cat "$HW")"
	by_hardware x 20
	conv_close x
	ask clock go >/dev/null
	clean
}
tcase "an idle flow ages out of the engine, and comes back" ageing

one_way() { # answers have stopped: their entry ages out, and is made again while the others flow
	hw_rules && ask clock stop >/dev/null || return
	heavy x udp $V4 || { conv_close x; return 1; }
	local before n
	before=$(hw_get deleted)
	at "$sv" nft "add table inet mute; add chain inet mute out { type filter hook output priority 0; }; add rule inet mute out udp sport 5000 drop"
	for n in 1 2 3 4 5 6 7 8 9 10 11 12 13; do
		conv_ok x send 10 1000
		want_ok "clock" ask clock 1
	done
	busywait $((5000 * SLOW)) lost_one x || fail "nothing was lost: $(cat "$HW")"
	busywait $((5000 * SLOW)) bound_is 2 || fail "entries: $(cat $PPE/bind)"
	in_hw -p udp || fail "not in hardware any more"
	want_le "rules deleted" "$(hw_get deleted)" $((before + 2))
	at "$sv" nft delete table inet mute
	by_hardware x 20
	conv_close x
	ask clock go >/dev/null
	clean
}
lost_one() { conv_cmd "$1" send 30 1000 >/dev/null; hw_ge lost 1; }
tcase "answers have stopped, and the flow stays" one_way

keeps() { # software sees nothing of the flow, and it goes on
	local before i
	hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	at "$rt" sysctl -qw net.netfilter.nf_flowtable_udp_timeout=3
	before=$(stat_get teardown.idle)
	for i in 1 2 3 4 5 6; do conv_ok x echo 5 1000; sleep 1; done
	want_eq "flows that were taken for idle" "$(stat_get teardown.idle)" "$before"
	in_hw -p udp || fail "not in hardware any more"
	conv_close x
	busywait $((10000 * SLOW)) bound_is 0 || fail "idle, and still in hardware"
	at "$rt" sysctl -qw net.netfilter.nf_flowtable_udp_timeout=300
	clean
}
tcase "the engine keeps a flow alive, and software lets it go" keeps

# ---- what ends an entry

ct_delete() {
	hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	at "$rt" conntrack -D -p udp >/dev/null 2>&1
	busywait $((3000 * SLOW)) bound_is 0 || fail "entries: $(cat $PPE/bind)"
	conv_close x
	clean
}
tcase "conntrack -D" ct_delete

table_delete() { # under traffic
	hw_rules || return
	RATE=100 stream_start $V4 || return
	# Nothing comes back, so that is one direction.
	busywait $((20000 * SLOW)) hw_ge rules 1 || fail "not in hardware: $(cat "$HW")"
	nft_rt delete table inet t
	want_eq "entries when the flowtable is gone" "$(ask used)" 0
	want_eq "entries, as the driver has them" "$(bound)" 0
	busywait $((3000 * SLOW)) flowing || fail "nothing arrives any more"
	stream_end 1500 0
	clean
}
tcase "the flowtable is deleted under traffic" table_delete

ruleset_change() {
	hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	nft_rt insert rule inet t forward udp dport 5000 drop
	busywait $((3000 * SLOW)) bound_is 0 || fail "dropped, and still in hardware"
	conv_cmd x echo 3 100 >/dev/null && fail "packets still pass"
	conv_close x
	clean
}
tcase "the ruleset changes" ruleset_change

# ---- an engine that has no room

# crowd N: local ports whose flows to sv:5000 share a bucket, as the engine hashes
crowd() {
	python3 -c '
import socket, struct, sys
ways = 2 if sys.argv[2] == "mt7622" else 4
src, dst = (struct.unpack("!I", socket.inet_aton(a))[0] for a in ("10.0.1.2", "10.0.2.2"))
seen = {}
def bucket(s, d, sp, dp):
    a, b, c, m = sp << 16 | dp, d, s, 0xffffffff
    h = (a & b) | (~a & m & c)
    h = (h << 8 | h >> 24) & m
    h ^= a ^ b ^ c
    h ^= h >> 16
    return (h * ways) & 0x3fff
for p in range(10000, 60000):
    l = seen.setdefault(bucket(src, dst, p, 5000), [])
    l.append(p)
    if len(l) == int(sys.argv[1]):
        print(*l)
        break
' "$1" $SOC
}
collision() { # one more than there are ways: that one is left to software, until another goes
	local ports id n=0 ways=2
	[ $SOC = mt7622 ] || ways=4
	hw_rules && ask clock stop >/dev/null || return
	read -r -a ports <<<"$(crowd $((ways + 1)))"
	want_eq "ports found" "${#ports[@]}" $((ways + 1))
	for id in "${ports[@]:0:ways}"; do
		heavy "c$n" udp $V4 5000 --sport "$id" || return
		n=$((n + 1))
	done
	conv_open last "$cl" udp $V4 5000 --sport "${ports[ways]}" || return
	busywait $((10000 * SLOW)) declined last collision || fail "no collision: $(cat "$HW")"
	not_in_hw -p udp --orig-port-src "${ports[ways]}" || fail "shown as [HW_OFFLOAD]"
	conv_ok last echo 100 1000
	for id in $(seq 0 $((ways - 1))); do conv_ok "c$id" echo 20 1000; done
	want_ge "entries in force" "$(ask used)" $((2 * ways))
	at "$rt" conntrack -D -p udp --orig-port-src "${ports[0]}" >/dev/null 2>&1
	conv_close c0
	busywait $((30000 * SLOW)) heavier_from last "${ports[ways]}" || fail "does not come in when there is room: $(cat "$HW")"
	by_hardware last 50
	for id in $(seq 1 $((ways - 1))); do conv_close "c$id"; done
	conv_close last
	ask clock go >/dev/null
	clean
}
declined() { conv_cmd "$1" echo 20 1000 >/dev/null; hw_ge "decline.$2" 1; }
heavier_from() { conv_cmd "$1" echo 20 1000 >/dev/null; in_hw -p udp --orig-port-src "$2"; }
tcase "more flows in a bucket than it has ways" collision
tcase "mt7988: more flows in a bucket than it has ways" with mt7988 collision

full() { # somebody else's entries are everywhere
	hw_rules && ask clock stop >/dev/null || return
	want_ok "fill" ask fill
	conv_open x "$cl" udp $V4 || return
	busywait $((10000 * SLOW)) declined x collision || fail "there is room: $(cat "$HW")"
	not_in_hw -p udp || fail "shown as [HW_OFFLOAD]"
	conv_ok x echo 200 1000
	want_le "times that the engine was asked in vain" "$(hw_get decline.collision)" 12
	want_eq "entries of somebody else" "$(ask used)" 16384
	want_ok "empty" ask empty
	busywait $((60000 * SLOW)) heavier x udp || fail "does not come in when there is room: $(cat "$HW")"
	by_hardware x 20
	conv_close x
	ask clock go >/dev/null
	clean
}
tcase "the table is full" full

# ---- an engine that fails

reset() { # by somebody else, under traffic: software takes over, then the entries are there again
	hw_rules || return
	RATE=100 stream_start $V4 || return
	busywait $((20000 * SLOW)) hw_ge rules 1 || fail "not in hardware: $(cat "$HW")"
	want_ok "reset" ask reset
	busywait $((5000 * SLOW)) dmesg_says "was reset" || fail "nobody has noticed"
	busywait $((20000 * SLOW)) again || fail "not in hardware again: $(cat "$HW")"
	want_eq "GLO_CFG" "$(ask register "$(window 200)")" 0000020d
	stream_end 1500 0
	clean
}
dmesg_says() { dmesg_since "$DMESG_MARK" | grep -q "$1"; }
again() { [ "$(ask used)" -ge 1 ] && [ "$(bound)" -ge 1 ]; }
tcase "the engine is reset under traffic" reset

driver_gone() { # and comes back
	hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	want_ok "unbind" sh -c "echo $DEVICE >$DRIVER/unbind"
	want_eq "entries" "$(ask used)" 0
	conv_ok x echo 50 1000
	busywait $((5000 * SLOW)) not_in_hw -p udp || fail "shown as [HW_OFFLOAD] without a driver"
	want_ok "bind" sh -c "echo $DEVICE >$DRIVER/bind"
	busywait $((20000 * SLOW)) heavier x udp || fail "the driver is back, and the flow not in hardware: $(cat "$HW")"
	by_hardware x 20
	conv_close x
	clean
}
tcase "the driver goes and comes back" driver_gone

# Last: there is no engine afterwards.
killed() { # its process is killed: registers read as all ones, and the guest goes on in software
	local before
	NAT=$(masq) hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	RATE=100 stream_start $V4 || return
	want_ok "kill" ask die
	busywait $((5000 * SLOW)) not_in_hw -p udp || fail "shown as [HW_OFFLOAD] without an engine"
	conv_ok x echo 100 1000
	counters
	want_ge "packets that came to our hook" "$ARRIVED" 150
	ct_offloaded -p udp || fail "not shown as [OFFLOAD]"
	dmesg_says "does not answer any more" || fail "the kernel log does not tell"
	stream_end 1500 0
	conv_close x
	want_ok "flush ruleset" nft_rt flush ruleset
	# While there was one for it, the engine could have come back.
	busywait $((5000 * SLOW)) refused || fail "a new flowtable is accepted"
}
refused() { ! nft_rt -c "add table inet u; add flowtable inet u f { hook ingress priority 0; devices = { lan, wan }; flags offload; }"; }
tcase "the engine's process is killed" killed

SETUP=setup
run_cases "$@"
