#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# BIG TCP: super-packets of more than 64 KiB, whose length field is 0 because it has no room for the
# length. They are as fast as any other, and arrive as they were sent.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2
#
# On top of all four there may be a VLAN device, and below the router's address on the LAN a bridge.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2 MAX=180000
MASQ="chain post { type nat hook postrouting priority 100; ip saddr 10.0.1.0/24 masquerade; ip6 saddr fd00:1::/64 masquerade; };"

setup() {
	local n
	ns_add cl rt sv || return
	ip link add lan netns "$rt" type veth peer name eth0 netns "$cl" &&
	ip link add wan netns "$rt" type veth peer name eth0 netns "$sv" || { fail "veth"; return 1; }
	big "$rt" lan && big "$rt" wan && big "$cl" eth0 && big "$sv" eth0 ||
		skip_all "devices have no gso_ipv4_max_size here"
	for n in "$cl" "$sv"; do
		# room for more than one of them, and no reason to send smaller ones
		at "$n" sysctl -qw net.ipv4.tcp_rmem="4096 4000000 8000000" net.ipv4.tcp_wmem="4096 4000000 8000000" \
			net.ipv4.tcp_tso_rtt_log=20
	done
	wired || return
	serve "$sv"
}
big() { # big NS DEV
	ipn "$1" link set "$2" gso_max_size $MAX gro_max_size $MAX gso_ipv4_max_size $MAX gro_ipv4_max_size $MAX 2>"$TMP/out"
}
bigs() { nft_rt list counter netdev sizes big | awk '$1 == "packets" { print $2 }'; }

# carried ADDRESS [RULES-OPTION...]: eight megabytes there and back, most of them in big packets
carried() {
	load "${@:2}" || return
	BYTES=8388608 MAX_SLOW=40 bypass tcp "$1"
	want_ge "packets of more than 64 KiB" "$(bigs)" 10
}
load() { # rules, and a look at what arrives at the router
	rules "$@" || return
	printf '%s\n' "table netdev sizes {" "counter big { }" "chain in {" \
		"type filter hook ingress devices = { lan, wan } priority -20;" \
		"meta length > 65575 counter name big" "}" "}" >"$TMP/sizes"
	want_ok "the table that looks at sizes" nft_rt -f "$TMP/sizes"
}
tcase "IPv4"             carried $V4
tcase "IPv6"             carried $V6
tcase "IPv4, masquerade" carried $V4 NAT="$MASQ"
tcase "IPv6, masquerade" carried $V6 NAT="$MASQ"

# cut ADDRESS [RULES-OPTION...]: the same, and the router cuts them into frames itself, with checksums
cut() {
	local n
	for n in lan wan; do offloads "$rt" $n tso off gso off tx off; done
	carried "$@"
	for n in lan wan; do offloads "$rt" $n tso on gso on tx on; done
}
tcase "IPv4, masquerade, the router cuts them" cut $V4 NAT="$MASQ"
tcase "IPv6, masquerade, the router cuts them" cut $V6 NAT="$MASQ"

# glued ADDRESS [RULES-OPTION...]: frames, which the router's devices make such packets of
glued() {
	local n
	for n in "$cl eth0" "$sv eth0"; do offloads "${n% *}" "${n#* }" tso off gso off; done
	for n in lan wan; do offloads "$rt" $n gro on; done
	load "${@:2}" || return
	BYTES=8388608 MAX_SLOW=60 bypass tcp "$1"
	for n in lan wan; do offloads "$rt" $n gro off; done
	for n in "$cl eth0" "$sv eth0"; do offloads "${n% *}" "${n#* }" tso on gso on; done
}
tcase "IPv4, masquerade, made by GRO" glued $V4 NAT="$MASQ"
tcase "IPv6, masquerade, made by GRO" glued $V6 NAT="$MASQ"

narrow() { # segments that do not fit into the next link: the error comes back, all arrives, and fast again
	ipn "$rt" link set wan mtu 1400; ipn "$sv" link set eth0 mtu 1400
	load NAT="$MASQ" || return
	BYTES=8388608 MAX_SLOW=200 bypass tcp "$1"
	ipn "$rt" link set wan mtu 1500; ipn "$sv" link set eth0 mtu 1500
	ipn "$cl" route flush cache; ipn "$cl" -6 route flush cache
}
tcase "IPv4, segments above the next MTU" narrow $V4
tcase "IPv6, segments above the next MTU" narrow $V6

# tagged ADDRESS [RULES-OPTION...]: in VLAN 5, on both sides
tagged() {
	local n
	for n in "$rt lan" "$rt wan" "$cl eth0" "$sv eth0"; do
		ipn "${n% *}" link add link "${n#* }" name "${n#* }.5" type vlan id 5 && big "${n% *}" "${n#* }.5" || { fail "VLAN device"; return; }
		ipn "${n% *}" addr flush dev "${n#* }" scope global
	done
	addresses .5
	busywait 5000 at "$cl" ping -c1 -W1 -q "$1" || fail "no way through the VLANs"
	carried "$@"
	for n in "$rt lan" "$rt wan" "$cl eth0" "$sv eth0"; do ipn "${n% *}" link del "${n#* }.5"; done
	addresses ''
}
tcase "IPv4, masquerade, in VLANs" tagged $V4 NAT="$MASQ"
tcase "IPv6, in VLANs"             tagged $V6

bridged() { # by the port of a bridge
	printf '%s\n' "link add br0 type bridge forward_delay 0 mcast_snooping 0" "addr flush dev lan scope global" \
		"link set lan master br0" | batch "$rt"
	big "$rt" br0
	addr_lines br0 10.0.1.1/24 fd00:1::1/64 | batch "$rt"
	busywait 5000 at "$cl" ping -c1 -W1 -q "$1" || fail "no way through the bridge"
	carried "$@"
	ipn "$rt" link del br0
	addr_lines lan 10.0.1.1/24 fd00:1::1/64 | batch "$rt"
}
tcase "IPv4, masquerade, from a bridge's port" bridged $V4 NAT="$MASQ"
tcase "IPv6, from a bridge's port"             bridged $V6

addresses() { # addresses SUFFIX: all of them, at the devices with this suffix
	{ addr_lines "lan$1" 10.0.1.1/24 fd00:1::1/64; addr_lines "wan$1" 10.0.2.1/24 fd00:2::1/64; } | batch "$rt"
	addr_lines "eth0$1" 10.0.1.2/24 fd00:1::2/64 10.0.1.1 fd00:1::1 | batch "$cl"
	addr_lines "eth0$1" 10.0.2.2/24 fd00:2::2/64 10.0.2.1 fd00:2::1 | batch "$sv"
}

SETUP=setup
run_cases "$@"
