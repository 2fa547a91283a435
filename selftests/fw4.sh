#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# firewall4, the firewall of OpenWrt: a ruleset in the shape that its templates have, reloaded as
# it reloads, with the devices that it lists. A router with a bridge and a PPPoE line.
#
#      cl                         rt                             sv
#   eth0 10.0.1.2 -- lan1 - br-lan 10.0.1.1   wan -- PPPoE -- eth0
#      fd00:1::2              fd00:1::1 pppoe-wan 10.0.2.1 -- ppp0 10.0.2.2
#                                                 fd00:2::1         fd00:2::2
#   c2 10.0.1.3 ----- lan2 -- br-lan

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2
UPPER="br-lan, pppoe-wan" LOWER="lan1, lan2, wan"
# What arrives is counted below everything; nftables does not look into a session.
WATCH="lan1, lan2, wan" SEEN="meta protocol 0x8864" SLACK=12
c2=''

setup() {
	[ -e /dev/ppp ] || modprobe -a ppp_generic pppoe 2>/dev/null
	[ -c /dev/ppp ] || skip_all "no PPP in this kernel"
	ns_add cl c2 rt sv || return
	ip link add lan1 netns "$rt" type veth peer name eth0 netns "$cl" &&
	ip link add lan2 netns "$rt" type veth peer name eth0 netns "$c2" &&
	ip link add wan netns "$rt" type veth peer name eth0 netns "$sv" || return
	router_on "$rt"
	at "$rt" sysctl -qw net.netfilter.nf_conntrack_acct=1
	{ printf '%s\n' "link add br-lan type bridge forward_delay 0 mcast_snooping 0" "link set wan up" \
		"link set lan1 master br-lan up" "link set lan2 master br-lan up"
	addr_lines br-lan 10.0.1.1/24 fd00:1::1/64; } | batch "$rt"
	addr_lines eth0 10.0.1.2/24 fd00:1::2/64 10.0.1.1 fd00:1::1 | batch "$cl"
	addr_lines eth0 10.0.1.3/24 fd00:1::3/64 10.0.1.1 fd00:1::1 | batch "$c2"
	ipn "$sv" link set eth0 up
	dial 17 && serve "$sv" && serve "$cl" && serve "$c2"
}
# dial SESSION: the line to the provider comes up; PPP is its two ends
dial() {
	end "$rt" wan "$(mac "$sv" eth0)" "$1" pppoe-wan "10.0.2.1 peer 10.0.2.2" fd00:2::1/64 || return
	PPP=$!
	end "$sv" eth0 "$(mac "$rt" wan)" "$1" ppp0 "10.0.2.2 peer 10.0.2.1" fd00:2::2/64 || return
	PPP="$PPP $!"
	printf 'route replace 10.0.1.0/24 dev ppp0\nroute replace fd00:1::/64 dev ppp0\n' | batch "$sv"
}
end() {
	local ready=$TMP/ppp.$1
	rm -f "$ready"
	[ -p "$TMP/forever" ] || mkfifo "$TMP/forever"
	# the process reads commands; this one never comes
	nsenter --net="/run/netns/$1" -- "${PY[@]}" links pppoe "$2" "$3" "$4" --name "$5" --ready "$ready" <>"$TMP/forever" &
	PIDS+=($!); disown $!
	busywait $((5000 * SLOW)) test -e "$ready" || { fail "no session"; return 1; }
	addr_lines "$5" "$6" "$7" | batch "$1"
}

# fw4 DEVICES: what `fw4 print` prints. Without devices: flow offloading is switched off. FLAGS: of
# the flowtable. AGAIN: there is a table already, WHOLE: which is deleted, not flushed.
fw4() {
	if [ -n "${WHOLE:-}" ]; then
		printf 'table inet fw4\ndelete table inet fw4\n'
	else
		printf 'table inet fw4\nflush table inet fw4\n'
		[ -z "${AGAIN:-}" ] || ! nft_rt -t list flowtables | grep -q 'flowtable ft ' || echo "delete flowtable inet fw4 ft"
	fi
	echo "table inet fw4 {"
	[ -z "$1" ] || echo "flowtable ft { hook ingress priority 0; devices = { $1 }; ${FLAGS:-} }"
	cat <<-END
	define lan_devices = { "br-lan" }
	define wan_devices = { "pppoe-wan" }

	chain input {
		type filter hook input priority filter; policy drop;
		iifname "lo" accept comment "!fw4: Accept traffic from loopback"
		ct state vmap { established : accept, related : accept } comment "!fw4: Handle inbound flows"
		tcp flags & (fin | syn | rst | ack) == syn jump syn_flood comment "!fw4: Rate limit TCP syn packets"
		iifname "br-lan" jump input_lan comment "!fw4: Handle lan IPv4/IPv6 input traffic"
		iifname "pppoe-wan" jump input_wan comment "!fw4: Handle wan IPv4/IPv6 input traffic"
		jump handle_reject
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		$([ -z "$1" ] || echo 'meta l4proto { tcp, udp } flow offload @ft;')
		ct state vmap { established : accept, related : accept } comment "!fw4: Handle forwarded flows"
		iifname "br-lan" jump forward_lan comment "!fw4: Handle lan IPv4/IPv6 forward traffic"
		iifname "pppoe-wan" jump forward_wan comment "!fw4: Handle wan IPv4/IPv6 forward traffic"
		jump handle_reject
	}
	chain output {
		type filter hook output priority filter; policy accept;
		oifname "lo" accept
		ct state vmap { established : accept, related : accept }
	}
	chain prerouting {
		type filter hook prerouting priority filter; policy accept;
		iifname "br-lan" jump helper_lan comment "!fw4: Handle lan IPv4/IPv6 helper assignment"
	}
	chain handle_reject {
		meta l4proto tcp reject with tcp reset comment "!fw4: Reject TCP traffic"
		reject with icmpx type port-unreachable comment "!fw4: Reject any other traffic"
	}
	chain syn_flood {
		limit rate 25/second burst 50 packets return comment "!fw4: Accept SYN packets below rate-limit"
		drop comment "!fw4: Drop excess packets"
	}
	chain input_lan { jump accept_from_lan; }
	chain output_lan { jump accept_to_lan; }
	chain helper_lan { }
	chain forward_lan {
		jump accept_to_wan comment "!fw4: Accept lan to wan forwarding"
		jump accept_to_lan
	}
	chain accept_from_lan {
		iifname "br-lan" counter accept comment "!fw4: accept lan IPv4/IPv6 traffic"
	}
	chain accept_to_lan {
		oifname "br-lan" counter accept comment "!fw4: accept lan IPv4/IPv6 traffic"
	}
	chain input_wan {
		meta nfproto ipv4 icmp type 8 counter accept comment "!fw4: Allow-Ping"
		meta nfproto ipv6 icmpv6 type { 1, 2, 3, 128, 129, 133, 134, 135, 136 } limit rate 1000/second counter accept comment "!fw4: Allow-ICMPv6-Input"
		jump reject_from_wan
	}
	chain forward_wan {
		icmpv6 type { 128, 129, 1, 3 } limit rate 1000/second counter accept comment "!fw4: Allow-ICMPv6-Forward"
		meta nfproto ipv6 th dport 5000 counter accept comment "!fw4: open to the server in the LAN"
		ct status dnat accept comment "!fw4: Accept port forwards"
		jump reject_to_wan
	}
	chain accept_to_wan {
		meta nfproto ipv4 oifname "pppoe-wan" ct state invalid counter drop comment "!fw4: Prevent NAT leakage"
		oifname "pppoe-wan" counter accept comment "!fw4: accept wan IPv4/IPv6 traffic"
	}
	chain reject_from_wan {
		iifname "pppoe-wan" counter jump handle_reject comment "!fw4: reject wan IPv4/IPv6 traffic"
	}
	chain reject_to_wan {
		oifname "pppoe-wan" counter jump handle_reject comment "!fw4: reject wan IPv4/IPv6 traffic"
	}

	chain dstnat {
		type nat hook prerouting priority dstnat; policy accept;
		iifname "br-lan" jump dstnat_lan comment "!fw4: Handle lan IPv4/IPv6 dstnat traffic"
		iifname "pppoe-wan" jump dstnat_wan comment "!fw4: Handle wan IPv4/IPv6 dstnat traffic"
	}
	chain srcnat {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "br-lan" jump srcnat_lan comment "!fw4: Handle lan IPv4/IPv6 srcnat traffic"
		oifname "pppoe-wan" jump srcnat_wan comment "!fw4: Handle wan IPv4/IPv6 srcnat traffic"
	}
	chain dstnat_lan {
		ip saddr 10.0.1.0/24 ip daddr 10.0.2.1 meta l4proto { tcp, udp } th dport 8080 dnat ip to 10.0.1.3:5000 comment "!fw4: web (reflection)"
	}
	chain srcnat_lan {
		ip saddr 10.0.1.0/24 ip daddr 10.0.1.3 meta l4proto { tcp, udp } th dport 5000 snat ip to 10.0.1.1 comment "!fw4: web (reflection)"
	}
	chain dstnat_wan {
		meta nfproto ipv4 meta l4proto { tcp, udp } th dport 8080 counter dnat ip to 10.0.1.3:5000 comment "!fw4: web"
	}
	chain srcnat_wan {
		meta nfproto ipv4 masquerade comment "!fw4: Masquerade IPv4 wan traffic"
	}

	chain raw_prerouting { type filter hook prerouting priority raw; policy accept; }
	chain raw_output { type filter hook output priority raw; policy accept; }
	chain mangle_prerouting { type filter hook prerouting priority mangle; policy accept; }
	chain mangle_postrouting {
		type filter hook postrouting priority mangle; policy accept;
		oifname "pppoe-wan" tcp flags & (fin | syn | rst) == syn tcp option maxseg size set rt mtu comment "!fw4: Zone wan IPv4/IPv6 egress MTU fixing"
	}
	chain mangle_forward {
		type filter hook forward priority mangle; policy accept;
		iifname "pppoe-wan" tcp flags & (fin | syn | rst) == syn tcp option maxseg size set rt mtu comment "!fw4: Zone wan IPv4/IPv6 ingress MTU fixing"
	}
	}
	END
}
# reload [DEVICES]: `fw4 reload`, one transaction
reload() { AGAIN=1 fw4 "${1-$UPPER}" >"$TMP/fw4"; want_ok "reload" nft_rt -f "$TMP/fw4"; }

# ---- what is offloaded

lists() { # lists DEVICES [FLAGS]: from the LAN, from the WAN
	FLAGS=${2:-} client_rules fw4 "$1" || return
	bypass_all $V4 $V6
	forget
	FROM=$sv TO=8080 bypass_all 10.0.2.1
	forget
	FROM=$sv bypass_all fd00:1::2
}
tcase -x "devices = { br-lan, pppoe-wan }, as without hardware" lists "$UPPER"
tcase -x "devices = { br-lan, pppoe-wan }, counter" lists "$UPPER" "counter;"
tcase "related_physdevs: devices = { lan1, lan2, wan }, counter" lists "$LOWER" "counter;"
tcase -x "devices = { br-lan, wan }"            lists "br-lan, wan"
tcase "everything listed"                       lists "$UPPER, $LOWER" "counter;"

reflection() { # the LAN reaches its server by the router's outer address: in and out by one bridge
	FLAGS="counter;" client_rules fw4 "$1" || return
	TO=8080 bypass_all 10.0.2.1
	ct_list -p udp | grep -q "src=10.0.1.3 dst=10.0.1.1 sport=5000" || fail "not reflected: $(ct_list -p udp | head -n1)"
}
tcase -x "NAT reflection, upper devices"        reflection "$UPPER"
tcase "NAT reflection, lower devices"           reflection "$LOWER"

counted() { # with `counter`, conntrack has counted every packet
	local n
	FLAGS="counter;" client_rules fw4 "$1" || return
	conv_open x "$cl" udp $V4 || return
	conv_ok x echo 200 300
	for n in $(ct_list -p udp --orig-port-dst 5000 | grep -o 'packets=[0-9]* bytes=[0-9]*' | tr ' ' :); do
		want_eq "conntrack's counters" "$n" "packets=200:bytes=$((200 * 328))"
	done
	[ -n "${n:-}" ] || fail "no counters: $(ct_list -p udp)"
	offloaded_line udp 5000 || fail "not offloaded"
	conv_close x
}
tcase -x "conntrack counts what is offloaded, upper devices" counted "$UPPER"
tcase "conntrack counts what is offloaded, lower devices" counted "$LOWER"

# ---- the probe for hardware

probe() { # what nft_try_hw_offload() asks: a flowtable in a table of its own, checked, not made
	nft_rt flush ruleset
	want_ok "the same without the flag" nft_rt -c "add table inet fw4-hw-offload-test; add flowtable inet fw4-hw-offload-test ft { hook ingress priority 0; devices = { $1 }; }"
	want_err "probe" "Operation not supported" nft_rt -c \
		"add table inet fw4-hw-offload-test; add flowtable inet fw4-hw-offload-test ft { hook ingress priority 0; devices = { $1 }; flags offload; }"
	want_eq "left by the probe" "$(nft_rt list ruleset)" ""
	[ "$FT" != ours ] || busywait $((3000 * SLOW)) flowtables_are 0 || fail "left by the probe: $(cat $DEBUGFS/flowtables)"
	# asked for in the ruleset itself: all of it is refused, and the old one stays in force
	client_rules fw4 "$1" || return
	stream_start $V4 || return
	AGAIN=1 FLAGS="flags offload;" fw4 "$1" >"$TMP/fw4"
	want_err "ruleset with flags offload" "Operation not supported" nft_rt -f "$TMP/fw4"
	want_err "the flag added to a flowtable in use" "not supported" nft_rt add flowtable inet fw4 ft "{ hook ingress priority 0; devices = { $1 }; flags offload; }"
	flowing || fail "traffic stopped"
	# it falls back to software with this
	reload "$1" && fast_now
	stream_end 3000 0
}
tcase "flags offload, lower devices: not supported, falls back" probe "$LOWER"
tcase -x "flags offload, upper devices: not supported, falls back" probe "$UPPER"

# ---- reload

reloads() { # reloads DEVICES [WHOLE]: in use, again and again: nothing is lost, old flows go
	local i n
	FLAGS="counter;" client_rules fw4 "$1" || return
	stream_start $V4 || return
	conv_open x "$cl" tcp $V6 || return
	conv_ok x echo 300000
	for i in 1 2 3 4 5 6; do
		FLAGS="counter;" WHOLE=$2 reload "$1" || break
		conv_ok x echo 100000
	done
	fast_now
	counters_zero
	conv_ok x echo 1000000
	counters
	want_le "bytes of 2 MB, seen by the forward chain" "$FORWARDED_BYTES" 250000
	want_eq "flowtables" "$(nft_rt list flowtables | grep -c 'flowtable ft')" 1
	if [ "$FT" = ours ]; then
		busywait $((3000 * SLOW)) flowtables_are 1 || fail "flowtables: $(cat $DEBUGFS/flowtables)"
		busywait $((3000 * SLOW)) flows_are 2 || fail "flows: $(stat_get flows)"
	fi
	conv_close x
	# a silence in which nothing is lost is the machine's
	stream_end 3000 0
}
flowtables_are() { [ "$(wc -l <$DEBUGFS/flowtables)" = "$1" ]; }
tcase -x "6 reloads under traffic, flush and delete flowtable, upper devices" reloads "$UPPER" ""
tcase "6 reloads under traffic, flush and delete flowtable, lower devices" reloads "$LOWER" ""
tcase -x "6 reloads under traffic, delete table, upper devices" reloads "$UPPER" yes

switched() { # flow offloading is switched off, on, to other devices
	client_rules fw4 "$UPPER" || return
	stream_start $V4 || return
	reload "" || return
	want_eq "flowtables" "$(nft_rt list flowtables | grep -c 'flowtable ft')" 0
	busywait $((3000 * SLOW)) ct_back -p udp --orig-port-dst 6000 || fail "still [OFFLOAD] without a flowtable"
	counters_zero; sleep 0.3; counters
	want_ge "of $ARRIVED packets, in the forward chain" "$FORWARDED" 20
	reload "$UPPER" && fast_now
	reload "$LOWER" && fast_now
	reload "$UPPER" && fast_now
	stream_end 3000 0
}
tcase -x "flow offloading is switched off and on, other devices" switched

changed() { # the new ruleset does not forward any more, the established connections neither
	client_rules fw4 "$UPPER" || return
	stream_start $V4 || return
	# established connections pass the ruleset of fw4; a rule in front of that is the user's
	printf 'insert rule inet fw4 forward ip daddr %s drop comment "!fw4: user"\n' $V4 >"$TMP/user"
	{ AGAIN=1 fw4 "$UPPER"; cat "$TMP/user"; } >"$TMP/fw4"
	want_ok "reload with a new rule" nft_rt -f "$TMP/fw4"
	busywait $((1000 * SLOW)) not_flowing || fail "traffic passes the new rule"
	reload && { busywait $((2000 * SLOW)) flowing || fail "traffic does not come back"; }
	fast_now
	stream_end 5000
}
tcase -x "a reload with a rule that drops stops it" changed

redial() { # the line goes down: reload without it; comes back: hotplug reloads
	client_rules fw4 "$UPPER" || return
	stream_start $V4 || return
	stop $PPP
	reload "br-lan"
	not_flowing || fail "traffic passes without a line"
	dial $((RANDOM % 60000 + 1)) || return
	reload
	busywait $((3000 * SLOW)) flowing || fail "traffic does not come back"
	fast_now
	stream_end 20000
}
tcase -x "the line is dialled again, with reloads" redial

SETUP=setup
run_cases "$@"
