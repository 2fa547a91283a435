#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The flowtable's list of devices: upper and lower ones mixed, devices that come
# late, go, are renamed; several flowtables, tables and namespaces at once.
#
#      cl                       rt                          sv
#   eth0 10.0.1.2 -- p1 - br-lan 10.0.1.1  wan.7 10.0.2.1 -- eth0.7 10.0.2.2
#      fd00:1::2             fd00:1::1     on wan fd00:2::1     fd00:2::2
#                                                           s2
#                                          wan2 10.0.4.1 -- eth0 10.0.4.2
#                                               fd00:4::1        fd00:4::2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2 W4=10.0.4.2 W6=fd00:4::2
SLACK=12 s2=''
MASQ="chain post { type nat hook postrouting priority 100; oifname wan.7 masquerade; };"

setup() {
	ns_add cl rt sv s2 || return
	ip link add p1 mtu 1600 netns "$rt" type veth peer name eth0 netns "$cl" &&
	ip link add wan mtu 1600 netns "$rt" type veth peer name eth0 mtu 1600 netns "$sv" &&
	ip link add wan2 netns "$rt" type veth peer name eth0 netns "$s2" || return
	router_on "$rt"
	{ printf '%s\n' "link add br-lan mtu 1500 type bridge forward_delay 0 mcast_snooping 0" "link set p1 master br-lan up" "link set wan up" \
		"link add link wan name wan.7 mtu 1500 type vlan id 7"
	addr_lines br-lan 10.0.1.1/24 fd00:1::1/64; addr_lines wan.7 10.0.2.1/24 fd00:2::1/64; addr_lines wan2 10.0.4.1/24 fd00:4::1/64; } | batch "$rt"
	addr_lines eth0 10.0.1.2/24 fd00:1::2/64 10.0.1.1 fd00:1::1 | batch "$cl"
	{ printf '%s\n' "link set eth0 up" "link add link eth0 name eth0.7 mtu 1500 type vlan id 7"
	addr_lines eth0.7 10.0.2.2/24 fd00:2::2/64 10.0.2.1 fd00:2::1; } | batch "$sv"
	addr_lines eth0 10.0.4.2/24 fd00:4::2/64 10.0.4.1 fd00:4::1 | batch "$s2"
	serve "$sv" && serve "$s2"
}
not_streaming() { ! streaming; }

# ---- lists

listed() { # listed DEVS [NAT]
	rules DEVS="$1" WATCH="p1, wan, wan2" NAT="${2:-}" || return
	bypass_all $V4 $V6
}
tcase "ports only"                              listed "p1, wan"
tcase -x "devices = { br-lan, wan.7 }"          listed "br-lan, wan.7"
tcase -x "devices = { br-lan, wan.7 }, masquerade" listed "br-lan, wan.7" "$MASQ"
tcase -x "devices = { br-lan, wan }"            listed "br-lan, wan"
tcase -x "devices = { p1, wan.7 }"              listed "p1, wan.7"
tcase "everything listed"                       listed "p1, br-lan, wan, wan.7, wan2"
tcase "devices that do not take part"           listed "lo, p1, wan, wan2"

half() { # half DEVS: one side is missing: slow, but nothing is lost
	rules DEVS="$1" WATCH="p1, wan" || return
	conv_open x "$cl" udp $V4 || return
	conv_ok x echo 50
	counters
	want_ge "packets in the forward chain" "$FORWARDED" 100
	want_eq "conntrack entries offloaded" "$(ct_list -p udp | grep -c '\[OFFLOAD\]')" 0
	conv_close x
}
tcase "only the LAN is listed: slow, but it passes" half "p1, br-lan"
tcase "only the WAN is listed: slow, but it passes" half "wan, wan.7"

# ---- a list that changes

flowtable() { nft_rt "$1" flowtable inet t f "{ hook ingress priority 0; devices = { $2 }; }"; }
added() { # added DEVS LATER: the missing device is added; the flow becomes fast by itself
	rules DEVS="$1" WATCH="p1, wan" || return
	conv_open x "$cl" udp $V4 || return
	conv_ok x echo 30
	! ct_offloaded -p udp || fail "offloaded without $2"
	want_ok "add $2" flowtable add "$2"
	conv_ok x echo 300
	offloaded_line udp 5000 || fail "not offloaded after $2 was added"
	busywait 2000 echo_fast || fail "slow: of $ARRIVED packets $FORWARDED in the forward chain"
	conv_close x
}
echo_fast() { counters_zero; conv_cmd x echo 30 >/dev/null; counters; [ "$ARRIVED" -ge 60 ] && [ "$FORWARDED" -le 4 ]; }
tcase "a port is added to a live flowtable"     added "p1" wan
tcase -x "an upper device is added to a live flowtable" added "br-lan" wan.7

removed() { # removed DEVS DEVICE: what came in by it is slow from then on, nothing is lost; and back
	rules DEVS="$1" WATCH="p1, wan" || return
	stream_start $V4 || return
	want_ok "delete $2" flowtable delete "$2"
	sleep 0.2
	counters_zero; sleep 0.4; counters
	want_ge "of $ARRIVED packets in the forward chain" "$FORWARDED" $((RATE / 4))
	want_ok "add $2" flowtable add "$2"
	busywait $((3000 * SLOW)) fast_sample || fail "the stream is not fast again"
	stream_end 500 0
}
tcase "the LAN's port is deleted from a live flowtable and added" removed "p1, wan" p1
tcase -x "the bridge is deleted from a live flowtable and added" removed "br-lan, wan.7" br-lan

transaction() { # devices are exchanged in one transaction: from below to above and back
	local i
	rules DEVS="p1, wan" WATCH="p1, wan" || return
	stream_start $V4 || return
	conv_open x "$cl" tcp $V6 || return
	conv_ok x echo 100000
	for i in 1 2 3 4 5; do
		nft_rt -f - <<-END || fail "transaction $i"
		add flowtable inet t f { hook ingress priority 0; devices = { br-lan, wan.7 }; };
		delete flowtable inet t f { hook ingress priority 0; devices = { p1, wan }; };
		END
		conv_ok x echo 50000
		nft_rt -f - <<-END || fail "transaction $i, back"
		add flowtable inet t f { hook ingress priority 0; devices = { p1, wan }; };
		delete flowtable inet t f { hook ingress priority 0; devices = { br-lan, wan.7 }; };
		END
		conv_ok x echo 50000
	done
	fast_now
	conv_close x
	stream_end 800 0
}
tcase "lower devices exchanged for upper ones under traffic, nothing lost" transaction

upper() { # the same, and it stays there
	rules DEVS="p1, wan" WATCH="p1, wan" || return
	stream_start $V4 || return
	nft_rt -f - <<-END || fail "transaction"
	add flowtable inet t f { hook ingress priority 0; devices = { br-lan, wan.7 }; };
	delete flowtable inet t f { hook ingress priority 0; devices = { p1, wan }; };
	END
	busywait $((3000 * SLOW)) fast_sample || fail "the stream is not fast by the new devices"
	stream_end 800 0
}
tcase -x "lower devices exchanged for upper ones: fast again" upper

refused() { # a transaction that fails leaves the list as it was
	rules DEVS="p1, wan" || return
	stream_start $V4 || return
	want_err "unknown table in the same transaction" "No such file" nft_rt -f - <<-END
	add flowtable inet t f { hook ingress priority 0; devices = { br-lan }; };
	delete flowtable inet t f { hook ingress priority 0; devices = { wan }; };
	add rule inet nosuch forward accept
	END
	nft_rt list flowtable inet t f | grep -q '"p1", "wan"\|p1, wan' || fail "list: $(nft_rt list flowtable inet t f | grep devices)"
	fast_now
	stream_end 500 0
}
tcase "a transaction that fails changes nothing" refused

late() { # late: a listed VLAN device is deleted and comes back
	rules DEVS="$1" WATCH="p1, wan" || return
	stream_start $V4 || return
	ipn "$rt" link del wan.7
	busywait 1000 not_flowing || fail "traffic passes without the device"
	sleep 0.2
	{ echo "link add link wan name wan.7 mtu 1500 type vlan id 7"; addr_lines wan.7 10.0.2.1/24 fd00:2::1/64; } | batch "$rt"
	busywait $((3000 * SLOW)) flowing || fail "traffic does not come back"
	busywait $((3000 * SLOW)) fast_sample || fail "not fast with the new device; $(nft_rt list flowtable inet t f | grep devices)"
	stream_end 9000
}
tcase -x "a listed upper device is deleted and appears again" late "p1, wan.7"
tcase "the same, the lower one is listed"       late "p1, wan"

renamed() { # renamed DEVS DEVICE: a name that is not listed, and back
	rules DEVS="$1" WATCH="p1" || return
	stream_start $V4 || return
	want_ok "rename" rename "$2" other9
	busywait $((2000 * SLOW)) flowing || fail "traffic stopped"
	want_ok "rename back" rename other9 "$2"
	busywait $((2000 * SLOW)) flowing || fail "traffic stopped after the old name is back"
	busywait $((3000 * SLOW)) fast_sample || fail "not fast with the old name"
	stream_end 3000
}
rename() { ipn "$rt" link set "$1" name "$2" 2>/dev/null || { ipn "$rt" link set "$1" down; ipn "$rt" link set "$1" name "$2"; ipn "$rt" link set "$2" up; }; }
tcase "a listed port is renamed and back"       renamed "p1, wan" wan
tcase -x "a listed bridge is renamed and back"  renamed "br-lan, wan.7" br-lan

wildcard() { # devices whose names begin with "wan": those that are there, and those that come
	local s3
	rules DEVS="p1" WATCH="p1, wan" || return
	# not every nft can say that
	at "$rt" "${PY[@]}" links flowtable inet t f wan || { skip "the kernel knows no wildcards"; return; }
	bypass_all $V4 $V6
	ns_add s3
	ip link add wan7 netns "$rt" type veth peer name eth0 netns "$s3"
	addr_lines wan7 10.0.5.1/24 fd00:5::1/64 | batch "$rt"
	addr_lines eth0 10.0.5.2/24 fd00:5::2/64 10.0.5.1 fd00:5::1 | batch "$s3"
	serve "$s3"
	rules_watch wan7
	forget # or the idle flows of before are counted, until they are found to be out of date
	bypass_all 10.0.5.2 fd00:5::2
	ipn "$rt" link del wan7
	forget
	bypass_all $V4 $V6
}
# rules_watch DEVICE: count what arrives there, too
rules_watch() { want_ok "watch $1" nft_rt "add chain netdev watch in2 { type filter hook ingress device $1 priority -10; }; add rule netdev watch in2 meta l4proto { tcp, udp } counter name arrived"; }
tcase "wildcard devices, one of them late"      wildcard

# ---- several flowtables

several() { # LAN to wan by one, LAN to wan2 by the other, at different priorities
	want_ok "ruleset" nft_rt -f - <<-END || return
	flush ruleset
	table netdev watch {
		counter arrived { }
		chain in {
			type filter hook ingress devices = { p1, wan, wan2 } priority -500;
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
	table ip a {
		flowtable f {
			hook ingress priority -10;
			devices = { p1, wan };
		}
		chain forward {
			type filter hook forward priority 0;
			oifname wan.7 meta l4proto { tcp, udp } flow add @f
			iifname wan.7 meta l4proto { tcp, udp } flow add @f
		}
	}
	table ip6 b {
		flowtable f {
			hook ingress priority 0;
			devices = { p1, wan };
		}
		chain forward {
			type filter hook forward priority 0;
			oifname wan.7 meta l4proto { tcp, udp } flow add @f
			iifname wan.7 meta l4proto { tcp, udp } flow add @f
		}
	}
	table inet c {
		flowtable g {
			hook ingress priority 10;
			devices = { p1, wan2 };
		}
		chain forward {
			type filter hook forward priority 5;
			oifname wan2 meta l4proto { tcp, udp } flow add @g
			iifname wan2 meta l4proto { tcp, udp } flow add @g
		}
	}
	END
	CNT0=()
	forget
	bypass_all $V4 $V6
	forget
	bypass_all $W4 $W6
}
tcase "three tables (ip, ip6, inet), three priorities" several

deleted_one() { # one of two flowtables goes: its flows only
	local n
	several || return
	forget
	conv_open x "$cl" udp $V4 || return
	conv_open y "$cl" udp $W4 || return
	conv_ok x echo 30; conv_ok y echo 30
	want_ok "delete table ip a" nft_rt delete table ip a
	counters_zero
	conv_ok y echo 50
	counters
	want_le "of 100 packets of the other flowtable, seen by the forward chain" "$FORWARDED" 4
	conv_ok x echo 50
	counters
	want_ge "of 100 packets of the deleted flowtable, seen by the forward chain" "$FORWARDED" 90
	want_eq "entries that are offloaded" "$(ct_list -p udp | grep -c '\[OFFLOAD\]')" 1
	conv_close x; conv_close y
}
tcase "one of several flowtables is deleted"    deleted_one

same_device() { # one flow, two flowtables that both want it: one wins, nothing is counted twice
	want_ok "ruleset" nft_rt -f - <<-END || return
	flush ruleset
	table netdev watch {
		counter arrived { }
		chain in {
			type filter hook ingress devices = { p1, wan } priority -500;
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
	table inet a {
		flowtable f {
			hook ingress priority 0;
			devices = { p1, wan };
		}
		chain forward {
			type filter hook forward priority 0;
			meta l4proto { tcp, udp } flow add @f
		}
	}
	table inet b {
		flowtable f {
			hook ingress priority 0;
			devices = { p1, wan };
		}
		chain forward {
			type filter hook forward priority 5;
			meta l4proto { tcp, udp } flow add @f
		}
	}
	END
	CNT0=()
	forget
	bypass_all $V4 $V6
}
tcase "two flowtables with the same devices and priority" same_device

# ---- other namespaces

namespaces() { # the same addresses, ports and device names in another namespace: not affected
	local sv2 cl2 rt2 a
	ns_add cl2 rt2 sv2 || return
	ip link add p1 netns "$rt2" type veth peer name eth0 netns "$cl2"
	ip link add wan netns "$rt2" type veth peer name eth0 netns "$sv2"
	router_on "$rt2"
	{ addr_lines p1 10.0.1.1/24 fd00:1::1/64; addr_lines wan 10.0.2.1/24 fd00:2::1/64; } | batch "$rt2"
	addr_lines eth0 10.0.1.2/24 fd00:1::2/64 10.0.1.1 fd00:1::1 | batch "$cl2"
	addr_lines eth0 10.0.2.2/24 fd00:2::2/64 10.0.2.1 fd00:2::1 | batch "$sv2"
	serve "$sv2"
	rules DEVS="p1, wan" || return
	# a flow here, with a known port; there the same, without a flowtable
	conv_open x "$cl" udp $V4 5000 --sport 7777 || return
	conv_ok x echo 30
	offloaded_line udp 5000 || fail "not offloaded"
	at "$rt2" nft -f - <<-END
		table inet t {
			chain f {
				type filter hook forward priority 0;
				ct state established accept
			}
		}
	END
	conv_open y "$cl2" udp $V4 5000 --sport 7777 || return
	counters_zero
	conv_ok y echo 50
	want_eq "offloaded in the other namespace" "$(at "$rt2" conntrack -L 2>/dev/null | grep -c '\[OFFLOAD\]')" 0
	[ "$FT" != ours ] || want_eq "fast packets" "$(fast)" 0
	# a flowtable there as well: two flows of the same key
	at "$rt2" nft -f - <<-END
		table inet t2 {
			flowtable f {
				hook ingress priority 0;
				devices = { p1, wan };
			}
			chain f {
				type filter hook forward priority 5;
				meta l4proto udp flow add @f
			}
		}
	END
	conv_ok y echo 50
	at "$rt2" conntrack -L 2>/dev/null | grep -q '\[OFFLOAD\]' || fail "not offloaded in the other namespace"
	conv_ok x echo 50
	# a device of the same name goes down there, here the flow goes on
	ipn "$rt2" link set wan down
	counters_zero
	conv_ok x echo 50
	counters
	want_le "of 100 packets, seen by the forward chain" "$FORWARDED" 4
	at "$rt2" nft flush ruleset
	counters_zero
	conv_ok x echo 50
	counters
	want_le "of 100 packets, seen by the forward chain" "$FORWARDED" 4
	conv_close x; conv_close y
	for a in "$cl2" "$sv2" "$rt2"; do ip netns del "$a"; done
}
tcase "another namespace with the same names and addresses" namespaces

moved_ns() { # a listed device goes to another namespace and comes back
	rules DEVS="br-lan, p1, wan2" WATCH="p1" || return
	conv_open x "$cl" udp $W4 5000 --timeout 3 || return
	conv_ok x echo 30
	offloaded_line udp 5000 || fail "not offloaded"
	ip netns add "${rt}m" && NS+=("${rt}m") NS_MADE+=("${rt}m")
	want_ok "move" ipn "$rt" link set wan2 netns "${rt}m"
	busywait 3000 not_offloaded || fail "still [OFFLOAD] without the device"
	want_ok "move back" ipn "${rt}m" link set wan2 netns "$rt"
	addr_lines wan2 10.0.4.1/24 fd00:4::1/64 | batch "$rt"
	busywait $((3000 * SLOW)) at "$cl" ping -c1 -W1 -q $W4 || fail "no connectivity"
	conv_ok x echo 100
	offloaded_line udp 5000 || fail "not offloaded again; $(nft_rt list flowtable inet t f | grep devices)"
	conv_close x
}
not_offloaded() { ! ct_offloaded -p udp; }
tcase "a listed device moves to another namespace and back" moved_ns

SETUP=setup
run_cases "$@"
