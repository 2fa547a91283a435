#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The native PPE engine, from the device tree of dts/qemu-virt-ppe.dtso: a frame engine whose
# registers are plain memory. Nothing forwards there; what the driver writes into registers and
# table is what counts. Packets go on being forwarded by software. Run it with
#
#   NFT_OFFLOAD_DTSO=dts/qemu-virt-ppe.dtso selftests/vm/run-lane arm64 selftests/ppe.sh
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#                      MAC 0         MAC 1 of the frame engine

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2
BASE=0x7e000000
ENGINE=$((BASE + 0x0c00))
DRIVER=/sys/bus/platform/drivers/nft_offload_ppe
NODE=7e000000.ppe
PPE=/sys/kernel/debug/ppe0

bound() { grep -c ' BND ' $PPE/bind; }
bound_is() { [ "$(bound)" = "$1" ]; }
in_hw() { ct_list "$@" | grep -q '\[HW_OFFLOAD\]'; }
not_in_hw() { ! in_hw "$@"; }
# reg OFFSET: of the engine; only while no driver has it
reg() { printf '%08x' "$(busybox devmem $((ENGINE + $1)) 32)"; }

setup() {
	lan_wan && serve "$sv" || return
	at "$rt" ip link set lan address 02:11:22:33:44:54 &&
	at "$rt" ip link set wan address 02:11:22:33:44:55
}

probed() {
	[ -e "$DRIVER/$NODE" ] || { fail "not bound to a driver: $(dmesg | grep -i ppe | tail -n3)"; return; }
	want_eq "entries" "$(cat $PPE/entries)" ""
	want_eq "in force" "$(cat $PPE/bind)" ""
	dmesg | grep -q 'packet processing engine of mt7623' || fail "the kernel log does not tell"
}

flow() { # a heavy flow is in the table, in the words of the description, and leaves it with conntrack
	rules FLAGS="counter; flags offload;" NAT="chain post { type nat hook postrouting priority 100; oifname wan snat ip to 10.0.2.1:7777; };" || return
	talk x "$cl" udp $V4 5000 || return
	say_ok x echo 200 1000
	busywait $((10000 * SLOW)) in_hw -p udp || { fail "not in the table: $(cat $DEBUGFS/hardware)"; hush x; return; }
	want_eq "entries in force" "$(bound)" 2
	local sport mac line
	sport=$(ct_list -p udp | grep -o 'sport=[0-9]*' | head -n1 | cut -d= -f2)
	mac=$(at "$sv" cat /sys/class/net/eth0/address)
	line="orig=10.0.1.2:$sport->10.0.2.2:5000 new=10.0.2.1:7777->10.0.2.2:5000 eth=02:11:22:33:44:55->$mac etype=0800 vlan=0,0"
	grep -q "BND IPv4 5T $line ib1=6140.... ib2=007ff051 packets=0 bytes=0" $PPE/bind || fail "original: no $line in $(cat $PPE/bind)"
	mac=$(at "$cl" cat /sys/class/net/eth0/address)
	line="orig=10.0.2.2:5000->10.0.2.1:7777 new=10.0.2.2:5000->10.0.1.2:$sport eth=02:11:22:33:44:54->$mac"
	grep -q "BND IPv4 5T $line" $PPE/bind || fail "reply: no $line in $(cat $PPE/bind)"
	at "$rt" conntrack -D -p udp >/dev/null 2>&1
	busywait $((5000 * SLOW)) bound_is 0 || fail "left: $(cat $PPE/bind)"
	hush x
}

gone() { # the device goes under a flow: software goes on, the engine is off; and it comes back
	rules FLAGS="counter; flags offload;" || return
	talk x "$cl" udp $V4 5000 || return
	say_ok x echo 200 1000
	busywait $((10000 * SLOW)) in_hw -p udp || { fail "not in the table"; hush x; return; }
	want_ok "unbind" sh -c "echo $NODE >$DRIVER/unbind"
	[ ! -e $PPE ] || fail "debugfs is still there"
	say_ok x echo 50 1000
	busywait $((5000 * SLOW)) not_in_hw -p udp || fail "still shown as in hardware"
	hush x
	if command -v busybox >/dev/null && [ -n "$(busybox devmem $BASE 32 2>/dev/null)" ]; then
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
	else
		note "no way to read physical memory: registers not compared"
	fi
	want_ok "bind" sh -c "echo $NODE >$DRIVER/bind"
	want_eq "entries" "$(cat $PPE/entries)" ""
}

tcase -o "the driver binds to the node"                          probed
tcase -o "a flow's entries are written and withdrawn"            flow
tcase -o "a device that goes: software goes on, registers as left" gone

[ -e /proc/device-tree/ppe@7e000000 ] || skip_all "no such device tree"
SETUP=setup
run_cases "$@"
