#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Everything a flow relies on is taken away while it runs: devices, addresses,
# routes, the namespace, the flowtable, the ruleset, the module. Traffic goes
# where it would go without a flowtable, nothing is left behind.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2  lo 10.9.9.9
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2      fd00:9::9
#                                   wan2 10.0.4.1 ---- eth1 10.0.4.2
#                                        fd00:4::1         fd00:4::2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2 FAR4=10.9.9.9 FAR6=fd00:9::9
MASQ="chain post { type nat hook postrouting priority 100; oifname { wan, wan2 } masquerade; };"
DEVS="lan, wan, wan2"

setup() {
	lan_wan || return
	ip link add wan2 netns "$rt" type veth peer name eth1 netns "$sv"
	addr "$rt" wan2 10.0.4.1/24 fd00:4::1/64
	addr "$sv" eth1 10.0.4.2/24 fd00:4::2/64
	ipn "$sv" addr add $FAR4/32 dev lo
	ipn "$sv" addr add $FAR6/128 dev lo
	at "$rt" sysctl -qw net.ipv6.conf.all.keep_addr_on_down=1
	at "$cl" sysctl -qw net.ipv6.conf.all.keep_addr_on_down=1
	at "$sv" nft -f - <<-'END'
		table inet mute {
			chain in {
				type filter hook input priority 0;
				udp dport 6100 drop
			}
		}
	END
	serve "$sv"
}
# start ADDRESS [NAT]: a fresh ruleset, an offloaded stream
start() {
	rules NAT="${2:-}" || return
	stream_start "$1"
}
not_streaming() { ! streaming; }
teardowns() { stat_sum teardown.; }

down_up() { # down_up ADDRESS DEVICE
	local t
	start "$1" || return
	t=$(teardowns)
	ipn "$rt" link set "$2" down
	busywait $((3000 * SLOW)) not_streaming || fail "still [OFFLOAD] with $2 down"
	not_flowing || fail "traffic passes with $2 down"
	[ "$FT" != ours ] || want_ge "teardowns counted" "$(teardowns)" $((t + 1))
	ipn "$rt" link set "$2" up
	ipn "$cl" -6 route replace default via fd00:1::1 2>/dev/null
	busywait $((8000 * SLOW)) flowing || fail "traffic does not come back"
	fast_now
	stream_end 15000
}
for d in wan lan; do
	tcase "IPv4, $d goes down and up" down_up $V4 $d
	tcase "IPv6, $d goes down and up" down_up $V6 $d
done

deleted() { # the device disappears for good; a new one of the same name takes over
	start "$1" "$MASQ" || return
	ipn "$rt" link del wan
	busywait $((3000 * SLOW)) not_streaming || fail "still [OFFLOAD] without the device"
	ip link add wan netns "$rt" type veth peer name eth0 netns "$sv"
	addr "$rt" wan 10.0.2.1/24 fd00:2::1/64
	addr "$sv" eth0 10.0.2.2/24 fd00:2::2/64 10.0.2.1 fd00:2::1
	busywait $((8000 * SLOW)) flowing || fail "traffic does not come back"
	fast_now
	stream_end 15000
	want_ok "ruleset loads again" nft_rt -f "$TMP/rules"
}
tcase "IPv4, device deleted and made again" deleted $V4
tcase "IPv6, device deleted and made again" deleted $V6

renamed() { # the flowtable knows devices by name: the flow goes on, one way or the other
	start $V4 || return
	ipn "$rt" link set wan name wan9 2>/dev/null || {
		ipn "$rt" link set wan down; ipn "$rt" link set wan name wan9; ipn "$rt" link set wan9 up; }
	busywait $((3000 * SLOW)) flowing || fail "traffic stopped"
	ipn "$rt" link set wan9 name wan 2>/dev/null || {
		ipn "$rt" link set wan9 down; ipn "$rt" link set wan9 name wan; ipn "$rt" link set wan up; }
	busywait $((3000 * SLOW)) flowing || fail "traffic stopped after the old name is back"
	fast_now
	stream_end 5000
}
tcase "device renamed and back" renamed

new_source_mac() { # frames carry the device's address of now
	local new=02:00:00:00:bb:$((RANDOM % 80 + 10))
	start "$1" || return
	ipn "$rt" link set wan address "$new"
	at "$sv" nft -f - <<-END
		table netdev mac {
			counter old { }
			chain in {
				type filter hook ingress device eth0 priority 0;
				udp dport 6000 ether saddr != $new counter name old
			}
		}
	END
	busywait $((3000 * SLOW)) flowing || fail "traffic stopped"
	want_eq "frames from the old MAC" "$(at "$sv" nft list counter netdev mac old | awk '$1 == "packets" { print $2 }')" 0
	at "$sv" nft delete table netdev mac
	fast_now
	stream_end 5000
}
tcase "IPv4, the router's own MAC changes" new_source_mac $V4
tcase -x "IPv6, the router's own MAC changes" new_source_mac $V6

address_removed() { # with its address the connected route goes
	start $V4 "${1:-}" || return
	ipn "$rt" addr del 10.0.2.1/24 dev wan
	busywait $((2000 * SLOW)) not_flowing || fail "traffic still passes without a route"
	ipn "$rt" addr add 10.0.2.1/24 dev wan
	busywait $((8000 * SLOW)) flowing || fail "traffic does not come back"
	fast_now
	stream_end 15000
}
tcase "IPv4 address removed and added" address_removed
tcase "IPv4 address removed and added, masquerade" address_removed "$MASQ"
address_removed6() {
	start $V6 || return
	ipn "$rt" addr del fd00:2::1/64 dev wan
	busywait $((2000 * SLOW)) not_flowing || fail "traffic still passes without a route"
	ipn "$rt" addr add fd00:2::1/64 dev wan nodad
	busywait $((8000 * SLOW)) flowing || fail "traffic does not come back"
	fast_now
	stream_end 15000
}
tcase "IPv6 address removed and added" address_removed6

# packets of the stream that sv has got by a device in half a second
by_device() {
	at "$sv" nft -f - <<-END
		table netdev by {
			counter by { }
			chain in {
				type filter hook ingress device $1 priority 0;
				udp dport 6000 counter name by
			}
		}
	END
	sleep 0.5
	at "$sv" nft list counter netdev by by | awk '$1 == "packets" { print $2 }'
	at "$sv" nft delete table netdev by
}
rerouted() { # another next hop by another device
	local a=$1 f=-4 g1=10.0.2.2 g2=10.0.4.2
	[ "$a" = $FAR4 ] || f=-6 g1=fd00:2::2 g2=fd00:4::2
	ipn "$rt" $f route replace "$a" via $g1 dev wan
	start "$a" "${2:-}" || return
	want_ge "packets by eth0" "$(by_device eth0)" 20
	ipn "$rt" $f route replace "$a" via $g2 dev wan2
	sleep 0.2
	want_ge "packets by eth1 after the change" "$(by_device eth1)" 20
	want_eq "packets by eth0 after the change" "$(by_device eth0)" 0
	fast_now
	ipn "$rt" $f route replace "$a" via $g1 dev wan
	sleep 0.2
	want_ge "packets by eth0 after changing back" "$(by_device eth0)" 20
	fast_now
	stream_end 1200
	ipn "$rt" $f route del "$a"
}
tcase "IPv4 route to another router" rerouted $FAR4
tcase "IPv6 route to another router" rerouted $FAR6

same_device() { # another next hop on the same device
	local a=$1 f=-4 g1=10.0.2.2 g2=10.0.2.77 mac=02:00:00:00:cc:77
	[ "$a" = $FAR4 ] || f=-6 g1=fd00:2::2 g2=fd00:2::77
	ipn "$rt" neigh replace $g2 dev wan lladdr $mac nud permanent
	ipn "$rt" $f route replace "$a" via $g1 dev wan
	start "$a" || return
	ipn "$rt" $f route replace "$a" via $g2 dev wan
	sleep 0.2
	at "$sv" nft -f - <<-END
		table netdev hop {
			counter new { }
			counter old { }
			chain in {
				type filter hook ingress device eth0 priority 0;
				udp dport 6000 ether daddr $mac counter name new
				udp dport 6000 ether daddr != $mac counter name old
			}
		}
	END
	sleep 0.5
	at "$sv" nft list counters >"$TMP/hop"
	at "$sv" nft delete table netdev hop
	want_ge "packets to the new next hop" "$(grep -A1 'counter new' "$TMP/hop" | awk '$1 == "packets" { print $2 }')" 20
	want_eq "packets to the old next hop" "$(grep -A1 'counter old' "$TMP/hop" | awk '$1 == "packets" { print $2 }')" 0
	ipn "$rt" $f route replace "$a" via $g1 dev wan
	busywait $((2000 * SLOW)) flowing || fail "traffic does not come back"
	stream_end 10000
	ipn "$rt" $f route del "$a"; ipn "$rt" neigh del $g2 dev wan
}
tcase "IPv4 route to another router on the same device" same_device $FAR4
tcase "IPv6 route to another router on the same device" same_device $FAR6

withdrawn() { # the route goes: the client is told
	local a=$1 f=-4 g=10.0.2.2
	[ "$a" = $FAR4 ] || f=-6 g=fd00:2::2
	ipn "$rt" $f route replace "$a" via $g dev wan
	rules || return
	conv_open x "$cl" udp "$a" 6100 --timeout 1 --recverr || return
	conv_ok x send 30
	ct_list -p udp | grep -q '\[OFFLOAD\]' || fail "not offloaded: $(ct_list -p udp)"
	ipn "$rt" $f route "$2" "$a" 2>/dev/null || ipn "$rt" $f route replace "$2" "$a"
	busywait $((2000 * SLOW)) refused || fail "no ICMP error: $(conv_cmd x send 1)"
	counters_zero
	conv_close x
	ipn "$rt" $f route del "$a" 2>/dev/null; ipn "$rt" $f route del "$2" "$a" 2>/dev/null
	return 0
}
refused() { local a; a=$(conv_cmd x send 1); grep -qE 'unreachable|No route|Permission denied|prohibited' <<<"$a"; }
tcase "IPv4 route withdrawn: unreachable comes back" withdrawn $FAR4 del
tcase "IPv6 route withdrawn: unreachable comes back" withdrawn $FAR6 del
tcase "IPv4 route prohibited: error comes back" withdrawn $FAR4 prohibit
tcase "IPv6 route prohibited: error comes back" withdrawn $FAR6 prohibit

# ---- ruleset

rule_deleted() { # rule and flowtable are deleted one after the other
	start "$1" "$MASQ" || return
	# without the rule the flow may go on or not; without the flowtable it is slow
	want_ok "flush chain" nft_rt flush chain inet t forward
	want_ok "delete flowtable" busywait 3000 nft_rt delete flowtable inet t f
	busywait $((3000 * SLOW)) not_streaming || fail "still [OFFLOAD] without flowtable"
	counters_zero; sleep 0.3; counters
	want_ge "packets in the forward chain" "$FORWARDED" 20
	stream_end 500 0
	[ "$FT" != ours ] || flows_are "${FLOWS_BEFORE:-0}" || fail "flows: $(stat_get flows)"
}
tcase "IPv4 flowtable deleted under traffic" rule_deleted $V4
tcase "IPv6 flowtable deleted under traffic" rule_deleted $V6

flushed() {
	start $V4 || return
	conv_open x "$cl" tcp $V6 || return
	conv_ok x echo 200000
	want_ok "flush ruleset" nft_rt flush ruleset
	conv_ok x echo 200000
	busywait $((3000 * SLOW)) not_streaming || fail "still [OFFLOAD] without ruleset"
	conv_close x
	stream_end 500 0
	[ "$FT" != ours ] || busywait 3000 flows_are "${FLOWS_BEFORE:-0}" || fail "flows: $(stat_get flows)"
	want_ok "conntrack -F" at "$rt" conntrack -F
	want_eq "conntrack entries" "$(at "$rt" conntrack -C)" 0
}
tcase "nft flush ruleset under traffic" flushed

replaced() { # the whole ruleset is replaced atomically, again and again: nothing is lost
	local i
	start "$1" "$2" || return
	conv_open x "$cl" tcp "$1" || return
	for i in $(seq 50); do
		want_ok "replace $i" nft_rt -f "$TMP/rules" || break
		[ $((i % 10)) != 0 ] || conv_ok x echo 100000
	done
	fast_now
	conv_ok x echo 200000
	conv_close x
	stream_end 1000 0
}
tcase "IPv4, ruleset replaced 50 times, nothing lost" replaced $V4 ""
tcase "IPv4, ruleset replaced 50 times, masquerade, nothing lost" replaced $V4 "$MASQ"
tcase "IPv6, ruleset replaced 50 times, nothing lost" replaced $V6 ""

toggled() { # the flow rule comes and goes, devices are added to and taken from the flowtable
	local i
	start $V4 || return
	for i in 1 2 3 4 5 6 7 8; do
		want_ok "remove wan2" nft_rt delete flowtable inet t f '{ hook ingress priority 0; devices = { wan2 }; }'
		want_ok "add wan2" nft_rt add flowtable inet t f '{ hook ingress priority 0; devices = { wan2 }; }'
	done
	fast_now
	stream_end 500 0
}
tcase "devices added to and removed from a live flowtable" toggled

# ---- module and namespace

unload() { if [ "$FT" = ours ]; then rmmod nft_offload; else rmmod nft_flow_offload && rmmod nf_flow_table_inet && rmmod nf_flow_table; fi; }
load() { if [ "$FT" = ours ]; then load_ours; else load_intree; fi; }
modules_only() { [ "$FT" != none ] || skip "no module under test"; }

in_use() {
	modules_only || return
	start $V4 || return
	if [ "$FT" = ours ]; then
		want_err "rmmod" "in use" rmmod nft_offload
	else
		want_err "rmmod" "in use" rmmod nf_flow_table_inet
	fi
	fast_now
	stream_end 500 0
	want_ok "flush ruleset" nft_rt flush ruleset
	want_ok "rmmod once nothing uses it" busywait 5000 unload
	want_ok "load" load
}
tcase "unloading is refused while a flowtable exists" in_use

unloaded_live() { # straight after the flush, packets keep coming
	modules_only || return
	local i
	for i in 1 2 3; do
		start $V4 "$MASQ" || return
		nft_rt flush ruleset
		want_ok "rmmod under traffic" busywait 5000 unload
		flowing || fail "traffic stopped"
		want_ok "load" load
		stream_end 1000 0
	done
}
tcase "flushed and unloaded under traffic" unloaded_live

reloaded() { # twenty times, with a flow each time
	modules_only || return
	local i
	for i in $(seq 20); do
		rules || return
		at "$cl" "${PY[@]}" streams send $V4 5999 --count 10 --rate 500
		ct_offloaded -p udp || { fail "round $i: nothing offloaded"; break; }
		nft_rt flush ruleset
		busywait 5000 unload || { fail "round $i: does not unload"; break; }
		load || { fail "round $i: does not load"; break; }
	done
}
tcase "loaded and unloaded 20 times" reloaded

netns_gone() { # the router disappears in the middle of it; always the last case
	local name=$rt
	start $V4 "$MASQ" || return
	conv_open x "$cl" tcp $V6 || return
	conv_ok x echo 100000
	ip netns del "$name"
	busywait $((15000 * SLOW)) peer_gone || fail "the namespace lives on: its devices are still there"
	[ "$FT" != ours ] || busywait $((5000 * SLOW)) flows_are "${FLOWS_BEFORE:-0}" || fail "flows: $(stat_get flows)"
	conv_close x
	stop "$SEND" "$SINK"
	if [ "$FT" = ours ]; then
		want_ok "rmmod afterwards" busywait 5000 unload
		want_ok "load" load
	fi
}
peer_gone() { ! ipn "$cl" link show eth0; }
tcase "namespace deleted under traffic" netns_gone

bridge_module() { # is not held when no flow passes a bridge any more
	unloadable bridge || modprobe -q bridge && unloadable bridge || { skip "bridge is built in"; return; }
	! unloadable br_netfilter || rmmod br_netfilter
	ipn "$rt" addr flush dev lan
	ipn "$rt" link add br0 type bridge
	ipn "$rt" link set br0 address "$(mac "$rt" lan)"
	ipn "$rt" link set lan master br0
	addr "$rt" br0 10.0.1.1/24 fd00:1::1/64
	rules "DEVS=lan, wan" || return
	BYTES=300000 bypass tcp $V4
	want_ge "references" "$(cat /sys/module/bridge/refcnt)" 1
	forget
	ipn "$rt" link del br0
	addr "$rt" lan 10.0.1.1/24 fd00:1::1/64
	busywait $((5000 * SLOW)) rmmod bridge || fail "bridge cannot be unloaded: $(cat /sys/module/bridge/refcnt) references"
}
tcase -o "the bridge module can be unloaded after the last bridged flow" bridge_module

SETUP=setup
run_cases "$@"
