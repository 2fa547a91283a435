#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Forwarding with and without NAT: every family and table type, both directions,
# checksums and segmentation done by the stack or left to the device.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2
post() { echo "chain post { type nat hook postrouting priority 100; oifname wan $*; };"; }
pre() { echo "chain pre { type nat hook prerouting priority -100; $*; };"; }
MASQ=$(post masquerade)
DNAT4=$(pre "meta l4proto { tcp, udp } th dport 8080 dnat ip to 10.0.2.2:5000")
DNAT6=$(pre "meta l4proto { tcp, udp } th dport 8080 dnat ip6 to [fd00:2::2]:5000")
# In a table of one family nft wants no family word.
plain() { sed 's/dnat ip6\? to/dnat to/; s/snat ip6\? to/snat to/' <<<"$*"; }

# nat FAM NAT PROTO ADDRESS [PORT [FLAGS]]
nat() {
	rules FAM="$1" NAT="$2" FLAGS="${6:-}" || return
	bypass "$3" "$4" "${5:-5000}"
}
# what the server must see as its peer: proves that NAT was done at all
nat_peer() { # nat_peer NAT ADDRESS PORT PEER-PATTERN
	rules NAT="$1" || return
	bypass udp "$2" "$3"
	ct_list -p udp | grep -q "$4" || fail "no '$4' in: $(ct_list -p udp)"
}

for p in tcp udp; do
	tcase "IPv4 $p routed, table inet"         nat inet "" $p $V4
	tcase "IPv4 $p routed, table ip"           nat ip "" $p $V4
	tcase "IPv6 $p routed, table inet"         nat inet "" $p $V6
	tcase "IPv6 $p routed, table ip6"          nat ip6 "" $p $V6
	tcase "IPv4 $p masquerade"                 nat inet "$MASQ" $p $V4
	tcase "IPv6 $p masquerade"                 nat inet "$MASQ" $p $V6
	tcase "IPv4 $p masquerade, table ip"       nat ip "$MASQ" $p $V4
	tcase "IPv6 $p masquerade, table ip6"      nat ip6 "$MASQ" $p $V6
	tcase "IPv4 $p SNAT to address and ports"  nat inet "$(post "meta l4proto $p snat ip to 10.0.2.1:40000-41000")" $p $V4
	tcase "IPv6 $p SNAT to address and ports"  nat inet "$(post "meta l4proto $p snat ip6 to [fd00:2::1]:40000-41000")" $p $V6
	tcase "IPv4 $p DNAT"                       nat inet "$DNAT4" $p 10.0.1.1 8080
	tcase "IPv6 $p DNAT"                       nat inet "$DNAT6" $p fd00:1::1 8080
	tcase "IPv4 $p DNAT and masquerade"        nat inet "$DNAT4 $MASQ" $p 10.0.1.1 8080
	tcase "IPv6 $p DNAT and masquerade"        nat inet "$DNAT6 $MASQ" $p fd00:1::1 8080
	tcase "IPv4 $p DNAT and masquerade, table ip"   nat ip "$(plain "$DNAT4 $MASQ")" $p 10.0.1.1 8080
	tcase "IPv6 $p DNAT and masquerade, table ip6"  nat ip6 "$(plain "$DNAT6 $MASQ")" $p fd00:1::1 8080
	tcase "IPv4 $p DNAT and masquerade, counter"    nat inet "$DNAT4 $MASQ" $p 10.0.1.1 8080 "counter;"
	tcase "IPv6 $p masquerade, counter"        nat inet "$MASQ" $p $V6 5000 "counter;"
done
tcase "masquerade is visible in conntrack" nat_peer "$MASQ" $V4 5000 "dst=10.0.2.1 sport=5000"
tcase "NAT66 is visible in conntrack"      nat_peer "$DNAT6 $MASQ" fd00:1::1 8080 "src=fd00:2::2 dst=fd00:2::1 sport=5000"

from_wan() { # a port forward: the connection starts on the WAN side
	rules NAT="$(pre "iifname wan meta l4proto { tcp, udp } th dport 8080 dnat ip to 10.0.1.2:5000")" || return
	FROM=$sv bypass "$1" 10.0.2.1 8080
}
tcase "IPv4 tcp port forward from WAN" from_wan tcp
tcase "IPv4 udp port forward from WAN" from_wan udp

hairpin() { # the LAN reaches its own server by the router's address: in and out by one device
	rules NAT="$(pre "meta l4proto { tcp, udp } th dport 8080 dnat ip to 10.0.1.2:5000")
		chain post { type nat hook postrouting priority 100; oifname lan masquerade; };" || return
	bypass "$1" 10.0.1.1 8080
}
tcase "IPv4 tcp hairpin NAT, one device" hairpin tcp
tcase "IPv4 udp hairpin NAT, one device" hairpin udp

only_flow_rule() { # nothing in the ruleset but the flow rule needs conntrack
	want_ok "ruleset" nft_rt -f - <<-END || return
	flush ruleset
	table netdev watch {
		counter arrived { }
		chain in {
			type filter hook ingress devices = { lan, wan } priority -10;
			meta l4proto { tcp, udp } counter name arrived
		}
	}
	table inet watch {
		counter forwarded { }
		chain forward {
			type filter hook forward priority -10;
			meta l4proto { tcp, udp } counter name forwarded
		}
	}
	table $1 t {
		flowtable f {
			hook ingress priority 0;
			devices = { lan, wan };
		}
		chain forward {
			type filter hook forward priority 0;
			meta l4proto { tcp, udp } flow add @f
		}
	}
	END
	bypass udp "$2"
}
tcase "flow rule alone turns conntrack on, table ip"   only_flow_rule ip $V4
tcase "flow rule alone turns conntrack on, table ip6"  only_flow_rule ip6 $V6
tcase "flow rule alone turns conntrack on, table inet" only_flow_rule inet $V6

# checksums and segments: what the sender leaves to the device, what the
# router's ports do
device() { # device FEATURES PROTO ADDRESS
	local d
	for d in "$cl eth0" "$rt lan" "$rt wan" "$sv eth0"; do
		offloads $d $1 || fail "ethtool -K $d $1"
	done
	rules NAT="$MASQ" || return
	BYTES=4194304 SIZE=1400 bypass "$2" "$3"
	for d in "$cl eth0" "$rt lan" "$rt wan" "$sv eth0"; do
		offloads $d tx on rx on tso on gso on gro off
	done
}
for a in $V4 $V6; do
	tcase "TCP $a, TSO and GSO off"              device "tso off gso off" tcp $a
	tcase "TCP $a, GRO on"                       device "gro on" tcp $a
	tcase "TCP $a, checksums done by the stack"  device "tx off rx off" tcp $a
	tcase "TCP $a, checksums done by the stack, GRO on" device "tx off rx off gro on" tcp $a
	tcase "UDP $a, checksums done by the stack"  device "tx off rx off" udp $a
done

zero_checksum() { # UDP over IPv4 without a checksum stays without one
	rules NAT="$DNAT4 $MASQ" || return
	at "$sv" nft -f - <<-END
	table netdev z {
		chain in {
			type filter hook ingress device eth0 priority 0;
			udp dport 5000 udp checksum 0 counter
			udp dport 5000 udp checksum != 0 counter
		}
	}
	END
	bypass udp 10.0.1.1 8080 -- --no-check
	local with zero
	zero=$(at "$sv" nft list table netdev z | awk '/checksum 0/ { for (i = 1; i < NF; i++) if ($i == "packets") print $(i + 1) }')
	with=$(at "$sv" nft list table netdev z | awk '/checksum !=/ { for (i = 1; i < NF; i++) if ($i == "packets") print $(i + 1) }')
	at "$sv" nft delete table netdev z
	want_ge "datagrams that arrived with checksum 0" "$zero" 300
	want_eq "datagrams that got a checksum" "$with" 0
}
tcase "UDP checksum 0 stays 0 through DNAT and masquerade" zero_checksum

large_udp() {
	rules NAT="$MASQ" || return
	SIZE=1472 bypass udp $V4 5000 -- --pmtu "do"
	forget
	SIZE=1452 bypass udp $V6 5000 -- --pmtu "do"
	forget
	SIZE=0 bypass udp $V4 5000
}
tcase "UDP of the largest and smallest size" large_udp

fragmented_udp() { # larger than the MTU: fragments, always the slow path, always intact
	rules NAT="$MASQ" || return
	conv_open x "$cl" udp "$1" || return
	conv_ok x echo 20 100
	offloaded_line udp 5000 || fail "the flow is not offloaded"
	conv_ok x echo 20 "$2"
	conv_ok x echo 20 100
	conv_close x
}
tcase "UDP in fragments on an offloaded flow, IPv4" fragmented_udp $V4 20000
tcase "UDP in fragments on an offloaded flow, IPv6" fragmented_udp $V6 20000

many() {
	local out n
	rules NAT="$DNAT4 $MASQ" || return
	counters_zero
	out=$(at "$cl" "${PY[@]}" traffic parallel tcp "$1" "$2" --count 200 --bytes 200000 --timeout $((60 * SLOW)) \
		--at-end "nsenter --net=/run/netns/$rt conntrack -L -p tcp -f $3 2>/dev/null | grep -c '\[OFFLOAD\]' >$TMP/many")
	[ "${out%% *}" = ok ] || fail "parallel: $out"
	n=$(cat "$TMP/many")
	want_ge "connections shown as [OFFLOAD]" "$n" 200
	counters
	# three to a few packets of each connection are slow
	MAX_SLOW=2400 bypass_numbers "$ARRIVED" "$FORWARDED" "$(fast)"
}
tcase "200 TCP connections at once, IPv4 DNAT and masquerade" many 10.0.1.1 8080 ipv4
tcase "200 TCP connections at once, IPv6 masquerade" many $V6 5000 ipv6

setup() { lan_wan && serve "$sv" && serve "$cl"; }
SETUP=setup
run_cases "$@"
