#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The native PPE engine, from the device tree of dts/qemu-virt-ppe.dtso, which the arm64 lane boots
# with: a frame engine whose registers are plain memory. Nothing forwards there; what the driver
# writes into registers and table is what counts. Packets go on being forwarded by software, so a
# flow in the table is soon found to be forgotten by its engine, and taken out.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#        fd00:1::2         fd00:1::1     fd00:2::1          fd00:2::2
#                      MAC 0         MAC 1 of the frame engine

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2
BASE=0x7e000000
ENGINE=$((BASE + 0x0c00))
DRIVER=/sys/bus/platform/drivers/nft_offload_ppe
NODE=7e000000.ppe
PPE=/sys/kernel/debug/ppe0
HW=$DEBUGFS/hardware
LAN=02:11:22:33:44:54 WAN=02:11:22:33:44:55 # network cards of the machine

bound() { grep -c ' BND ' $PPE/bind; }
bound_is() { [ "$(bound)" = "$1" ]; }
in_hw() { ct_list "$@" | grep -q '\[HW_OFFLOAD\]'; }
not_in_hw() { ! in_hw "$@"; }
hw_get() { awk -v n="$1" '$1 == n { print $2 }' "$HW"; }
hw_ge() { [ "$(hw_get "$1")" -ge "$2" ]; }
# reg OFFSET: of the engine; only while no driver has it
reg() { printf '%08x' "$(busybox devmem $((ENGINE + $1)) 32)"; }
hw_rules() { rules FLAGS="counter; flags offload;" NAT="${NAT-}"; }

setup() {
	modprobe -q virtio_net
	ns_add cl rt sv || return
	card 0 "$rt" lan && card 1 "$rt" wan && card 2 "$cl" eth0 && card 3 "$sv" eth0 || return
	wired && serve "$sv"
}

# heavy ID ADDRESS [OPTION...]: a conversation of UDP, both directions of which are in the table; its
# port is in SPORT, what the table has in $TMP/bind
heavy() {
	local id=$1
	conv_open "$id" "$cl" udp "$2" 5000 "${@:3}" || return
	SPORT=$(conv_cmd "$id" port); SPORT=${SPORT#ok }
	busywait $((15000 * SLOW)) heavier "$id" "$SPORT" ||
		{ fail "not in the table: $(ct_list -p udp | head -n1) $(grep -E '^(device|flows|decline|lost)' "$HW" | tr '\n' ' ')"; conv_close "$id"; return 1; }
}
heavier() { conv_cmd "$1" echo 20 1000 >/dev/null; cat $PPE/bind >"$TMP/bind"; in_hw -p udp --orig-port-src "$2"; }
# entry WHAT PATTERN: a line of $TMP/bind
entry() { grep -qE -- "$2" "$TMP/bind" || fail "$1: no '$2' in $(cat "$TMP/bind")"; }
# over ID: the connection's end takes all of its entries with it
over() {
	at "$rt" conntrack -D -p udp >/dev/null 2>&1
	busywait $((5000 * SLOW)) bound_is 0 || fail "left: $(cat $PPE/bind)"
	conv_close "$1"
}

probed() {
	[ -e "$DRIVER/$NODE" ] || { fail "not bound to a driver: $(dmesg | grep -i ppe | tail -n3)"; return; }
	want_eq "entries" "$(cat $PPE/entries)" ""
	want_eq "in force" "$(cat $PPE/bind)" ""
	dmesg | grep -q 'packet processing engine of mt7623' || fail "the kernel log does not tell"
}
tcase -o "the driver binds to the node" probed

nat() { # a heavy flow is in the table, in the words of the description, and leaves it with conntrack
	NAT="chain post { type nat hook postrouting priority 100; oifname wan ip protocol udp snat ip to 10.0.2.1:7777; };" hw_rules || return
	heavy x $V4 || return
	want_eq "entries in force" "$(grep -c ' BND ' "$TMP/bind")" 2
	entry original "BND IPv4 5T orig=10.0.1.2:$SPORT->10.0.2.2:5000 new=10.0.2.1:7777->10.0.2.2:5000 eth=$WAN->$(mac "$sv" eth0) etype=0800 vlan=0,0 ib1=6140.... ib2=007ff051 packets=0 bytes=0"
	entry reply "BND IPv4 5T orig=10.0.2.2:5000->10.0.2.1:7777 new=10.0.2.2:5000->10.0.1.2:$SPORT eth=$LAN->$(mac "$cl" eth0) etype=0800 vlan=0,0 ib1=6140.... ib2=007ff030"
	over x
}
tcase -o "a flow's entries are written and withdrawn" nat

route6() {
	hw_rules || return
	heavy x $V6 || return
	want_eq "entries in force" "$(grep -c ' BND ' "$TMP/bind")" 2
	entry original "BND IPv6 5T orig=fd00:0001:0000:0000:0000:0000:0000:0002:$SPORT->fd00:0002:0000:0000:0000:0000:0000:0002:5000 eth=$WAN->$(mac "$sv" eth0) etype=86dd vlan=0,0 ib1=6b40.... ib2=007ff051"
	entry reply "BND IPv6 5T orig=fd00:0002:.*:5000->fd00:0001:.*:$SPORT eth=$LAN->$(mac "$cl" eth0) etype=86dd vlan=0,0 ib1=6b40.... ib2=007ff030"
	over x
}
tcase -o "IPv6" route6

# vlan LAST OUTER INNER IB1: the server is behind one or two tags
vlan() {
	local r=wan s=eth0 n d
	for n in "$2" "$3"; do
		[ "$n" != 0 ] || continue
		ipn "$rt" link add link $r name wan.$n up type vlan id "$n" || { fail "no VLAN"; return; }
		ipn "$sv" link add link $s name eth0.$n up type vlan id "$n"
		r=wan.$n s=eth0.$n
	done
	ipn "$rt" addr add "10.0.$1.1/24" dev $r
	ipn "$sv" addr add "10.0.$1.2/24" dev $s
	ipn "$sv" route replace 10.0.1.0/24 via "10.0.$1.1"
	hw_rules || return
	heavy x "10.0.$1.2" || return
	entry original "BND IPv4 5T orig=10.0.1.2:$SPORT->10.0.$1.2:5000 .* eth=$WAN->$(mac "$sv" $s) etype=0800 vlan=$2,$3 ib1=$4.... ib2=007ff051"
	entry reply "BND IPv4 5T orig=10.0.$1.2:5000->10.0.1.2:$SPORT .* eth=$LAN->$(mac "$cl" eth0) etype=0800 vlan=0,0 ib1=6140.... ib2=007ff030"
	over x
	for d in "$rt wan.$2" "$sv eth0.$2"; do ipn ${d% *} link del "${d#* }"; done
}
tcase -o "a VLAN tag"   vlan 3 7 0 6151
tcase -o "two VLAN tags" vlan 4 8 9 6152

# ppp_end NS WHICH DEVICE OTHER-MAC: one end of a session
ppp_end() {
	nsenter --net="/run/netns/$1" -- "${PY[@]}" links pppoe "$3" "$4" 77 --name ppp0 --ready "$TMP/ppp.$2" <"$TMP/ppp.in" &
	PIDS+=($!); disown $!
}
# pppoe DEVICE-OF-RT DEVICE-OF-SV VLAN IB1
pppoe() {
	local p
	[ -e /dev/ppp ] || modprobe -a ppp_generic pppoe 2>/dev/null
	[ -c /dev/ppp ] || { skip "no PPP in this kernel"; return; }
	if [ "$3" != 0 ]; then
		ipn "$rt" link add link wan name "$1" up type vlan id "$3" && ipn "$sv" link add link eth0 name "$2" up type vlan id "$3" ||
			{ fail "no VLAN"; return; }
	fi
	rm -f "$TMP"/ppp.*
	mkfifo "$TMP/ppp.in"
	exec {p}<>"$TMP/ppp.in"
	ppp_end "$rt" rt "$1" "$(mac "$sv" "$2")"
	ppp_end "$sv" sv "$2" $WAN
	busywait $((10000 * SLOW)) test -e "$TMP/ppp.rt" -a -e "$TMP/ppp.sv" || { fail "no session"; return; }
	printf '%s\n' "link set ppp0 up" "addr add 10.0.5.1 peer 10.0.5.2 dev ppp0" | batch "$rt"
	printf '%s\n' "link set ppp0 up" "addr add 10.0.5.2 peer 10.0.5.1 dev ppp0" "route replace 10.0.1.0/24 dev ppp0" | batch "$sv"
	hw_rules || return
	heavy x 10.0.5.2 || return
	entry original "BND IPv4 5T orig=10.0.1.2:$SPORT->10.0.5.2:5000 .* eth=$WAN->$(mac "$sv" "$2") etype=8864 vlan=$3,0 ib1=$4.... ib2=007ff051"
	entry reply "BND IPv4 5T orig=10.0.5.2:5000->10.0.1.2:$SPORT .* eth=$LAN->$(mac "$cl" eth0) etype=0800 vlan=0,0 ib1=6140.... ib2=007ff030"
	over x
	stop "${PIDS[@]: -2}"
	exec {p}>&-
	[ "$3" = 0 ] || { ipn "$rt" link del "$1"; ipn "$sv" link del "$2"; }
}
tcase -o "PPPoE"             pppoe wan eth0 0 6148
tcase -o "PPPoE over a VLAN" pppoe wan.7 eth0.7 7 6159

# same_bucket N: ports from which N flows to $V4 have the same bucket, and their answers another one
same_bucket() {
	python3 - "$1" <<-'END'
	import sys
	def bucket(src, dst, sport, dport):
	    a, b, c = sport << 16 | dport, dst, src
	    h = a & b | ~a & c
	    h = (h << 8 | h >> 24) & 0xffffffff
	    h ^= a ^ b ^ c
	    return ((h ^ h >> 16) * 2) & 16383
	cl, sv, n = 0x0a000102, 0x0a000202, int(sys.argv[1])
	ports = {}
	for p in range(20000, 60000):
	    here, back = bucket(cl, sv, p, 5000), bucket(sv, cl, 5000, p)
	    found = ports.setdefault(here, [])
	    if back != here:
	        found.append(p)
	    if len(found) == n:
	        print("%05x" % here, *found)
	        break
	END
}
collision() { # two flows of a bucket with two places are in; the third one stays with software, until one leaves
	local slot a b c
	read -r slot a b c < <(same_bucket 3)
	[ -n "$c" ] || { fail "no three ports of one bucket"; return; }
	hw_rules || return
	heavy a $V4 --sport "$a" || return
	heavy b $V4 --sport "$b" || { conv_close a; return; }
	# Both keep their places as long as they are silent.
	conv_open c "$cl" udp $V4 5000 --sport "$c" || return
	busywait $((20000 * SLOW)) crowded || fail "no collision: $(cat "$HW") $(cat $PPE/bind)"
	cat $PPE/bind >"$TMP/bind"
	not_in_hw -p udp --orig-port-src "$c" || fail "the third one is in as well: $(cat "$TMP/bind")"
	entry "first place" "^$slot BND IPv4 5T orig=10.0.1.2:$a->"
	entry "second place" "^$(printf %05x $((0x$slot + 1))) BND IPv4 5T orig=10.0.1.2:$b->"
	! grep -q "orig=10.0.1.2:$c->" "$TMP/bind" || fail "half of the third one is in: $(cat "$TMP/bind")"
	conv_ok c echo 50 1000
	at "$rt" conntrack -D -p udp --orig-port-src "$a" >/dev/null 2>&1
	busywait $((30000 * SLOW)) heavier c "$c" || fail "there is room, and the third one stays out: $(cat "$HW")"
	entry "the place that became free" "^$slot BND IPv4 5T orig=10.0.1.2:$c->"
	conv_close b; conv_close c
	over a
}
crowded() { conv_cmd c echo 20 1000 >/dev/null; hw_ge decline.collision 1; }
tcase -o "three flows for two places: the third one stays with software" collision

device_goes() { # the device goes under a flow: software goes on, the engine is off; it comes back, and so does the flow
	hw_rules || return
	heavy x $V4 || return
	want_ok "unbind" sh -c "echo $NODE >$DRIVER/unbind"
	[ ! -e $PPE ] || fail "debugfs is still there"
	conv_ok x echo 50 1000
	busywait $((5000 * SLOW)) not_in_hw -p udp || fail "still shown as in hardware"
	# What starting has written, and what stopping has taken back.
	want_eq "IP_PROTO_CHK" "$(reg 0x208)" ffffffff
	want_eq "TB_CFG" "$(reg 0x21c)" 0000403c
	want_eq "BIND_RATE" "$(reg 0x228)" 0001001e
	want_eq "BIND_LIMIT1" "$(reg 0x230)" 00013fff
	want_eq "UNBIND_AGE" "$(reg 0x238)" 03e80003
	want_eq "BIND_AGE0" "$(reg 0x23c)" 0001000c
	want_eq "BIND_AGE1" "$(reg 0x240)" 00010007
	want_eq "VLAN_MTU0" "$(reg 0x30c)" 05ee05ea
	want_eq "VLAN_MTU1" "$(reg 0x310)" 05f605f2
	want_eq "CACHE_CTL" "$(reg 0x320)" 00000000
	want_eq "FLOW_CFG" "$(reg 0x204)" 00000000
	want_eq "GLO_CFG" "$(reg 0x200)" 0000020c
	[ "$(reg 0x220)" != 00000000 ] || fail "TB_BASE is zero"
	want_ok "bind" sh -c "echo $NODE >$DRIVER/bind"
	busywait $((40000 * SLOW)) heavier x "$SPORT" || fail "the device is back, and the flow not in the table: $(cat "$HW")"
	over x
}
tcase -o "a device that goes and comes back: software goes on, registers as left" device_goes

OWNER="the frame engine belongs to another driver (mtk_eth)"
MTK=/sys/bus/platform/drivers/mtk_soc_eth ETH=7e000000.ethernet
owned() { # the kernel's own driver and ours: who is second is refused, in one sentence, and nothing else happens
	local mark before
	nft_rt flush ruleset
	modinfo -n mtk_eth >/dev/null 2>&1 || { skip "this kernel has no mtk_eth"; return; }
	mark=$(dmesg_mark)
	want_ok "modprobe" modprobe mtk_eth
	[ ! -e $MTK/$ETH ] || fail "mtk_eth has taken our registers"
	want_ok "unbind" sh -c "echo $NODE >$DRIVER/unbind"
	! grep -i 7e000000- /proc/iomem | grep -v reserved || fail "the registers are still claimed"
	want_ok "bind of mtk_eth" sh -c "echo $ETH >$MTK/bind"
	[ -e $MTK/$ETH ] || { fail "mtk_eth does not bind: $(dmesg_since "$mark" | tail -n4)"; return; }
	before=$(cat /proc/iomem)
	want_err "bind" "Device or resource busy" sh -c "echo $NODE >$DRIVER/bind"
	want_eq "sentences" "$(dmesg_since "$mark" | grep -cF "$OWNER")" 1
	[ ! -e "$DRIVER/$NODE" ] || fail "bound all the same"
	want_eq "owners of memory" "$(cat /proc/iomem)" "$before"
	# Nothing of ours is behind the devices now.
	want_err "a flowtable with flags offload" "not supported" hw_flowtable
	# It stays: removing it before its device was ever up is a use after free in 7.3 (phylink).
}
hw_flowtable() { nft_rt -f - <<<"table inet t { flowtable f { hook ingress priority 0; devices = { lan, wan }; flags offload; }; }"; }
tcase -o "mtk_eth and ours: who is second is refused in one sentence" owned

if [ "${1:-}" != -l ]; then
	[ -e /proc/device-tree/ppe@7e000000 ] || skip_all "no such device tree"
	[ ! -e $MTK/$ETH ] || { echo "Bail out! mtk_eth has the registers since an earlier run"; exit 1; }
fi
SETUP=setup
run_cases "$@"
