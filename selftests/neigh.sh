#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Neighbours of an offloaded flow: a changed MAC is followed, a forgotten one is
# resolved again, a stale one confirmed, none is ever replaced by zeros.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2
#
# A one-way stream of numbered datagrams runs from cl to sv, so nothing but the
# stream itself can cause the router to look after its neighbour.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2
MAC1=02:00:00:00:aa:01 MAC2=02:00:00:00:aa:02

setup() {
	lan_wan || return
	# nothing else on the wire: no ageing by itself, no routine probing
	at "$cl" sysctl -qw net.ipv4.neigh.eth0.base_reachable_time_ms=600000 net.ipv6.neigh.eth0.base_reachable_time_ms=600000
	ipn "$sv" link set eth0 address $MAC1
	at "$sv" nft -f - <<-END
	table netdev zero {
		counter zero { }
		counter old { }
		chain in {
			type filter hook ingress device eth0 priority 0;
			ether daddr 00:00:00:00:00:00 counter name zero
			ether daddr $MAC1 udp dport 6000 counter name old
		}
	}
	END
}
zero_frames() { at "$sv" nft list counter netdev zero zero | awk '$1 == "packets" { print $2 }'; }

# stream ADDRESS: an offloaded stream to a neighbour freshly resolved
stream() {
	ipn "$sv" link set eth0 address $MAC1
	ipn "$rt" neigh flush dev wan
	ZERO=$(zero_frames)
	stream_start "$1"
}
# finish MAX-GAP-MS: ends it; nothing damaged, no frame to nobody
finish() {
	stream_end "$1"
	want_eq "frames to 00:00:00:00:00:00" "$(($(zero_frames) - ZERO))" 0
}

undisturbed() {
	rules || return
	stream "$1" || return
	sleep 1
	fast_now
	finish 300
}
tcase "IPv4 stream, nothing happens" undisturbed $V4
tcase "IPv6 stream, nothing happens" undisturbed $V6

replaced() { # the router is told of another MAC
	rules || return
	stream "$1" || return
	ipn "$sv" link set eth0 address $MAC2
	ipn "$rt" neigh replace "$1" dev wan lladdr $MAC2 nud reachable
	busywait $((1000 * SLOW)) flowing || fail "the stream has stopped"
	want_eq "frames to the old MAC afterwards" "$(old_frames)" 0
	fast_now
	finish 1000
}
old_frames() { # in half a second
	local a b
	a=$(at "$sv" nft list counter netdev zero old | awk '$1 == "packets" { print $2 }'); sleep 0.5
	b=$(at "$sv" nft list counter netdev zero old | awk '$1 == "packets" { print $2 }'); echo $((b - a))
}
tcase "IPv4 neighbour replaced by hand" replaced $V4
tcase "IPv6 neighbour replaced by hand" replaced $V6

announced() { # the neighbour itself announces its new MAC
	rules || return
	stream "$1" || return
	at "$rt" sysctl -qw net.ipv4.conf.wan.arp_accept=1
	# IPv6 sends an override advertisement by itself when told to
	at "$sv" sysctl -qw net.ipv6.conf.eth0.ndisc_notify=1
	ipn "$sv" link set eth0 address $MAC2
	[ "$1" != $V4 ] || at "$sv" arping -q -c 2 -w 2 -U -I eth0 $V4
	busywait $((2000 * SLOW)) flowing || fail "the stream has stopped"
	want_eq "frames to the old MAC afterwards" "$(old_frames)" 0
	fast_now
	finish 2500
}
tcase "IPv4 neighbour announces a new MAC" announced $V4
tcase "IPv6 neighbour announces a new MAC" announced $V6

forgotten() { # ip neigh flush or del while the stream runs
	rules || return
	stream "$1" || return
	if [ "$2" = flush ]; then
		ipn "$rt" neigh flush dev wan
	else
		ipn "$rt" neigh del "$1" dev wan
	fi
	sleep 0.5
	flowing || fail "the stream has stopped"
	fast_now
	finish 1000
}
tcase -x "IPv4 ip neigh flush" forgotten $V4 flush
tcase -x "IPv6 ip neigh flush" forgotten $V6 flush
tcase -x "IPv4 ip neigh del"   forgotten $V4 del
tcase -x "IPv6 ip neigh del"   forgotten $V6 del

new_mac_unannounced() { # the other host comes back with another MAC; the router must notice by itself
	rules || return
	at "$rt" sysctl -qw net.ipv4.neigh.wan.base_reachable_time_ms=1000 net.ipv6.neigh.wan.base_reachable_time_ms=1000 \
		net.ipv4.neigh.wan.delay_first_probe_time=1 net.ipv6.neigh.wan.delay_first_probe_time=1 \
		net.ipv4.neigh.wan.retrans_time_ms=100 net.ipv6.neigh.wan.retrans_time_ms=100
	stream "$1" || return
	at "$sv" sysctl -qw net.ipv4.conf.eth0.arp_notify=0 net.ipv6.conf.eth0.ndisc_notify=0
	ipn "$sv" link set eth0 address $MAC2
	# stale after at most 1.5 s, a second of delay, three probes, broadcast
	busywait $((8000 * SLOW)) flowing || fail "the stream has stopped for good: $(ipn "$rt" neigh show "$1" dev wan)"
	fast_now
	finish 9000
	neigh_defaults
}
neigh_defaults() {
	at "$rt" sysctl -qw net.ipv4.neigh.wan.base_reachable_time_ms=30000 net.ipv6.neigh.wan.base_reachable_time_ms=30000 \
		net.ipv4.neigh.wan.delay_first_probe_time=5 net.ipv6.neigh.wan.delay_first_probe_time=5 \
		net.ipv4.neigh.wan.retrans_time_ms=1000 net.ipv6.neigh.wan.retrans_time_ms=1000
}
tcase -x "IPv4 new MAC without announcement is found by probing" new_mac_unannounced $V4
tcase -x "IPv6 new MAC without announcement is found by probing" new_mac_unannounced $V6

failed() { # unreachable for a while: FAILED, then back
	rules || return
	at "$rt" sysctl -qw net.ipv4.neigh.wan.retrans_time_ms=100 net.ipv6.neigh.wan.retrans_time_ms=100
	stream "$1" || return
	# the neighbour does not answer any more
	at "$sv" nft -f - <<-END
	table netdev deaf {
		chain in {
			type filter hook ingress device eth0 priority -5;
			ether type arp drop
			icmpv6 type nd-neighbor-solicit drop
		}
	}
	END
	ipn "$rt" neigh del "$1" dev wan
	busywait $((4000 * SLOW)) not_flowing || fail "the stream goes on to a dead neighbour"
	want_eq "frames to 00:00:00:00:00:00" "$(($(zero_frames) - ZERO))" 0
	at "$sv" nft delete table netdev deaf
	busywait $((4000 * SLOW)) flowing || fail "the stream does not come back: $(ipn "$rt" neigh show "$1" dev wan)"
	fast_now
	finish 9000
	neigh_defaults
}
tcase -x "IPv4 neighbour FAILED and back" failed $V4
tcase -x "IPv6 neighbour FAILED and back" failed $V6

confirmed() { # STALE is confirmed by the stream's own use
	rules || return
	at "$rt" sysctl -qw net.ipv4.neigh.wan.delay_first_probe_time=1 net.ipv6.neigh.wan.delay_first_probe_time=1
	stream "$1" || return
	ipn "$rt" neigh change "$1" dev wan lladdr $MAC1 nud stale
	busywait $((4000 * SLOW)) reachable "$1" || fail "still $(ipn "$rt" neigh show "$1" dev wan)"
	fast_now
	finish 500
	neigh_defaults
}
reachable() { ipn "$rt" neigh show "$1" dev wan | grep -q REACHABLE; }
tcase -x "IPv4 STALE becomes REACHABLE" confirmed $V4
tcase -x "IPv6 STALE becomes REACHABLE" confirmed $V6

via_inet6() { # IPv4 behind an IPv6 next hop (RFC 8950)
	local ll
	ll=$(ipn "$sv" -j addr show dev eth0 | jq -r '[.[].addr_info[]? | select(.scope == "link")][0].local')
	at "$rt" ping -q -c1 -W1 "$ll%wan" >/dev/null || fail "no link-local neighbour '$ll'"
	ipn "$sv" addr add 10.9.9.9/32 dev lo
	ipn "$rt" route add 10.9.9.9/32 via inet6 "$ll" dev wan
	rules NAT="$1" || return
	stream 10.9.9.9 || return
	sleep 0.5
	flowing || fail "the stream has stopped"
	fast_now
	want_eq "ARP entries for the final destination" "$(ipn "$rt" neigh show 10.9.9.9 dev wan | wc -l)" 0
	finish 500
	if [ -n "$2" ]; then
		serve "$sv"
		BYTES=500000 bypass tcp 10.9.9.9
	fi
	ipn "$rt" route del 10.9.9.9/32
	ipn "$sv" addr del 10.9.9.9/32 dev lo
}
tcase -x "IPv4 route via an IPv6 next hop" via_inet6 "" ""
tcase -x "IPv4 route via an IPv6 next hop, masquerade and TCP" via_inet6 \
	"chain post { type nat hook postrouting priority 100; oifname wan masquerade; };" tcp

SETUP=setup
run_cases "$@"
