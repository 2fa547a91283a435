#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# bpf_xdp_nft_flow_lookup() tells XDP programs of offloaded flows: what the kernel's
# own selftest bpf/xdp_flowtable asks, and NAT, VLAN, and what is not to be told.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2
#                                 wan.7 10.0.7.1 ---- eth0.7 10.0.7.2
#
# The program is attached to lan or wan.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2 TAGGED=10.0.7.2
BPF=$(mktemp -d /tmp/nft_offload_bpf_XXXXXX) # libbpf does not pin below a dot

# compile [OPTION...]
compile() { clang -O2 -g -target bpf -I"/usr/include/$(uname -m)-linux-gnu" "$@" -c "$HERE/xdp_flow.bpf.c" -o "$TMP/xdp.o"; }
setup() {
	compile || return
	mount -t bpf bpf "$BPF" || return

	lan_wan || return
	ipn "$rt" link add link wan name wan.7 type vlan id 7
	ipn "$sv" link add link eth0 name eth0.7 type vlan id 7
	addr "$rt" wan.7 10.0.7.1/24 fd00:7::1/64
	addr "$sv" eth0.7 $TAGGED/24 fd00:7::2/64
	# Tags have to be in the frames for a program to see them.
	offloads "$sv" eth0 txvlan off
	serve "$sv"
	CL_MAC=$(mac "$cl" eth0) SV_MAC=$(mac "$sv" eth0) LAN_MAC=$(mac "$rt" lan) WAN_MAC=$(mac "$rt" wan)
	LAN=$(ipn "$rt" -j link show lan | jq -r '.[0].ifindex') WAN=$(ipn "$rt" -j link show wan | jq -r '.[0].ifindex')
}

# attach DEVICE [MODE]: a fresh copy of the program
attach() {
	[ "$FT" != ours ] || [ -e /sys/kernel/btf/nft_offload ] || { skip "the module was built without BTF"; return; }
	rm -rf "$BPF/prog" "$BPF/maps"
	mkdir "$BPF/maps"
	want_ok "program does not load" bpftool prog load "$TMP/xdp.o" "$BPF/prog" type xdp pinmaps "$BPF/maps" || return
	want_ok "program does not attach" at "$rt" bpftool net attach "${2:-xdpgeneric}" pinned "$BPF/prog" dev "$1" overwrite
}
detach() {
	at "$rt" bpftool net detach "${2:-xdpgeneric}" dev "$1"
	rm -rf "$BPF/prog" "$BPF/maps"
}
told() { bpftool -j map lookup pinned "$BPF/maps/told" key 0 0 0 0 | jq -c ".formatted.value | $1"; }
told_zero() { bpftool -j map lookup pinned "$BPF/maps/told" key 0 0 0 0 >"$TMP/told"
	# shellcheck disable=SC2046
	bpftool map update pinned "$BPF/maps/told" key 0 0 0 0 value $(jq -r '.value[] | "0"' "$TMP/told") any; }
# want WHAT FILTER EXPECTED
want() { want_eq "$1" "$(told "$2")" "$3"; }
bytes() { local a; for a in ${1//[:.]/ }; do case $1 in *:*) printf '%d,' "0x$a" ;; *) printf '%d,' "$a" ;; esac; done | sed 's/,$//; s/.*/[&]/'; }
# an IPv4 address as the word that it is in memory
word() { local IFS=.; set -- $1; echo $(($1 | $2 << 8 | $3 << 16 | $4 << 24)); }
port_word() { echo $((($1 & 255) << 8 | $1 >> 8)); }

talked() { # talked ADDRESS: a conversation that is offloaded
	conv_open x "$cl" udp "$1" || return
	conv_ok x echo 20 200
	offloaded_line udp $PORT || fail "not offloaded"
}

stream() { # 8 of 10, as the kernel's own selftest has it
	rules || return
	attach lan xdpdrv || return
	bg "$sv" "${PY[@]}" streams sink --port 6000 --ready "$TMP/sink.ready" --out "$TMP/sink.json"
	busywait $((9000 * SLOW)) test -e "$TMP/sink.ready" || fail "no sink"
	at "$cl" python3 -c '
import socket, sys, time
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
for i in range(10):
	s.sendto(b"\xaa\xbb\xcc", (sys.argv[1], 6000))
	time.sleep(.05)
' "$1"
	want_eq "packets that the program has seen" "$(told .seen)" 10
	want_ge "of 10 packets, found" "$(told .hits)" 8
	detach lan xdpdrv
	rm -f "$TMP/sink.ready"
}
tcase "IPv4: eight of ten packets of a new stream are found" stream $V4
tcase "IPv6: eight of ten packets of a new stream are found" stream $V6

plain() { # ADDRESS
	rules || return
	talked "$1" || return
	attach lan || return
	conv_ok x echo 5 200
	want_ge "of 5 packets, found at lan" "$(told .hits)" 4
	want "direction" .dir 0
	want "way out" .ifidx "$WAN"
	want "addresses translated" '[.snat, .dnat]' '[0,0]'
	if [ "$FT" = ours ]; then
		want "source on the way out" .h_source "$(bytes "$WAN_MAC")"
		want "destination on the way out" .h_dest "$(bytes "$SV_MAC")"
	fi
	detach lan
	attach wan || return
	conv_ok x echo 5 200
	want_ge "of 5 packets, found at wan" "$(told .hits)" 4
	want "direction" .dir 1
	want "way out" .ifidx "$LAN"
	if [ "$FT" = ours ]; then
		want "source on the way out" .h_source "$(bytes "$LAN_MAC")"
		want "destination on the way out" .h_dest "$(bytes "$CL_MAC")"
	fi
	detach wan
	conv_close x
}
tcase "IPv4: both directions, and what to send them with" plain $V4
tcase "IPv6: both directions, and what to send them with" plain $V6

nat() {
	rules "NAT=chain pre { type nat hook prerouting priority -100; ip daddr 10.0.1.1 udp dport 7000 dnat to $V4:$PORT; }
		chain post { type nat hook postrouting priority 100; oifname wan masquerade; }" || return
	conv_open x "$cl" udp 10.0.1.1 7000 || return
	conv_ok x echo 20 200
	attach lan || return
	conv_ok x echo 5 200
	want_ge "of 5 packets, found at lan" "$(told .hits)" 4
	want "addresses translated" '[.snat, .dnat]' '[1,1]'
	# packets of the other direction go from the server to the router
	want "new destination" '[.other_src[0], .other_sport]' "[$(word $V4),$(port_word $PORT)]"
	want "new source" '.other_dst[0]' "$(word 10.0.2.1)"
	detach lan
	attach wan || return
	conv_ok x echo 5 200
	want_ge "of 5 packets, found at wan" "$(told .hits)" 4
	want "new destination and source" '[.other_src[0], .other_dst[0], .other_dport]' \
		"[$(word 10.0.1.2),$(word 10.0.1.1),$(port_word 7000)]"
	detach wan
	conv_close x
}
tcase "source and destination NAT" nat

vlan() {
	rules "WATCH=lan" || return
	# The server's answers go back through the VLAN, and come from there.
	ipn "$sv" route replace 10.0.1.0/24 via 10.0.7.1
	talked $TAGGED || return
	attach lan || return
	conv_ok x echo 5 200
	want_ge "of 5 packets, found at lan" "$(told .hits)" 4
	want "way out: directly to the device below the VLAN, with a tag" '[.xmit_type, .ifidx, .encaps, .encap]' "[3,$WAN,1,7]"
	want "source on the way out" .h_source "$(bytes "$WAN_MAC")"
	want "destination on the way out" .h_dest "$(bytes "$SV_MAC")"
	detach lan
	attach wan || return
	conv_ok x echo 5 200
	want_ge "of 5 packets, found at wan in tagged frames" "$(told .hits)" 4
	want "way out" '[.ifidx, .encaps]' "[$LAN,0]"
	detach wan
	conv_close x
	ipn "$sv" route del 10.0.1.0/24
}
tcase -x "VLAN: tagged frames are found, and those that are to be tagged" vlan

not_told() {
	rules || return
	attach lan || return
	conv_open x "$cl" udp $V4 || return
	conv_ok x echo 1 200
	want "size of the options" .wrong_size -22
	want "no flow yet" .error -2
	conv_ok x echo 10 200
	want_ge "found" "$(told .hits)" 1
	told_zero
	want_ok "change of the ruleset" nft_rt add table inet other
	conv_ok x echo 1 200
	want "found before the new ruleset has agreed" .hits 0
	conv_ok x echo 10 200
	want_ge "found afterwards" "$(told .hits)" 5
	told_zero
	want_ok "drop rule" nft_rt insert rule inet t forward udp dport $PORT drop
	conv_cmd x echo 1 200 >/dev/null
	want "found though the ruleset drops it" .hits 0
	detach lan
	conv_close x
}
tcase -x "what the hook would not forward is not found" not_told

forwards() { # the program forwards the packets, past the hook
	rules || return
	attach lan || return
	stream_start $V4 || return
	bpftool map update pinned "$BPF/maps/forward" key 0 0 0 0 value 1 0 0 0 any
	sleep 0.3
	told_zero
	local fast
	fast=$(stat_get packets_fast)
	sleep 2
	want_ge "forwarded by the program" "$(told .forwarded)" $((RATE / 2))
	want_le "seen by the hook" $(($(stat_get packets_fast) - fast)) 10
	streaming || fail "not offloaded any more"
	stream_end 3000 2
	detach lan
}
tcase -o "a program forwards by what it is told" forwards

intree_name() { # a program that only knows bpf_xdp_flow_lookup(), which is ours or that of nf_flow_table.ko
	modprobe -qn nft_offload_xdp || { skip "the module was built without BTF"; return; }
	compile -DINTREE_NAME || { fail "clang"; return; }
	want_ok "modprobe nft_offload_xdp" modprobe nft_offload_xdp && stream $V4
	nft_rt flush ruleset
	if modprobe -qn nf_flow_table; then
		! modprobe nf_flow_table 2>/dev/null || { fail "two modules have the same function"; rmmod nf_flow_table; }
		want_ok "unload" busywait 5000 rmmod nft_offload_xdp
		want_ok "nf_flow_table loads then" modprobe nf_flow_table
		want_err "and we do not" "" modprobe nft_offload_xdp
		want_ok "unload nf_flow_table" rmmod nf_flow_table
	else
		want_ok "unload" busywait 5000 rmmod nft_offload_xdp
	fi
	compile
}
tcase -o "the in-tree name, by nft_offload_xdp.ko" intree_name

held() { # the module stays as long as a program needs it
	nft_rt flush ruleset
	attach lan || return
	! rmmod nft_offload 2>/dev/null || fail "the module is gone"
	detach lan
	want_ok "unload" unload_ours
	want_ok "load" load_ours
	FLOWS_BEFORE=0
	attach lan || return
	detach lan
}
tcase -o "the module stays as long as a program needs it" held

[ -e /proc/sys/net/core/bpf_jit_enable ] || skip_all "the kernel has no BPF JIT, which kernel functions need"
[ "$(cat /proc/sys/net/core/bpf_jit_enable)" != 0 ] || sysctl -qw net.core.bpf_jit_enable=1
for i in bpftool clang; do command -v $i >/dev/null || skip_all "needs $i"; done
[ -e /usr/include/bpf/bpf_helpers.h ] || skip_all "needs libbpf's headers"

SETUP=setup
# After the namespaces are gone, nothing holds it any more.
bpf_gone() { umount "$BPF" 2>/dev/null; rmdir "$BPF"; }
eval "$(declare -f cleanup | sed '1s/cleanup/cleanup_rest/')"
cleanup() { cleanup_rest; bpf_gone; }
run_cases "$@"
