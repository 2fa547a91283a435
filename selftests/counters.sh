#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What is counted of offloaded packets, and who is told: the statistics of IP, of
# the devices that packets come in and leave through, those above them included,
# and the events of connection tracking.
#
#      cl                          rt                        sv
#   eth0    10.0.1.2 ---- lan    10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#           fd00:1::2            fd00:1::1     fd00:2::1         fd00:2::2
#   eth0.10 10.0.3.2      lan.10 10.0.3.1  tun 10.0.9.1 ==== tun  10.0.9.2
#           fd00:3::2            fd00:3::1                   IPIP over wan

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2 TUN4=10.0.9.2
N=150 SIZE=500 # datagrams of a case, and as many answers

setup() {
	lan_wan || return
	ipn "$rt" link add link lan name lan.10 type vlan id 10
	ipn "$cl" link add link eth0 name eth0.10 type vlan id 10
	addr "$rt" lan.10 10.0.3.1/24 fd00:3::1/64
	addr "$cl" eth0.10 10.0.3.2/24 fd00:3::2/64
	ipn "$rt" link add tun type ipip local 10.0.2.1 remote 10.0.2.2 ttl 64
	ipn "$sv" link add tun type ipip local 10.0.2.2 remote 10.0.2.1 ttl 64
	ipn "$rt" link set tun up; ipn "$sv" link set tun up
	ipn "$rt" addr add 10.0.9.1/24 dev tun; ipn "$sv" addr add 10.0.9.2/24 dev tun
	serve "$sv"
	busywait 5000 at "$cl" ping -c1 -W1 -q 10.0.3.1
}
# offloaded ADDRESS: a UDP conversation x that is fast already
offloaded() {
	conv_open x "$cl" udp "$1" || return
	conv_ok x echo 5
	busywait 2000 offloaded_line udp 5000 || { fail "not [OFFLOAD]: $(ct_list -p udp)"; return 1; }
	conv_ok x echo 3
	sleep 0.2
	counters_zero
}
fast_echo() {
	conv_ok x echo $N $SIZE
	counters
	want_le "of $((2 * N)) packets, seen by the forward chain" "$FORWARDED" 4
}
near() { want_ge "$1" "$2" "$3"; want_le "$1" "$2" $(($3 + ${SLACK:-6})); }

# ---- IP

mib() { # mib PREFIX NAME: of /proc/net/snmp, netstat, snmp6 in rt
	case $1 in
	Ip6*) at "$rt" awk -v n="$1$2" '$1 == n { print $2 }' /proc/net/snmp6 ;;
	*) at "$rt" cat /proc/net/snmp /proc/net/netstat | awk -v p="$1:" -v n="$2" '
		$1 == p && $2 ~ /[A-Z]/ { split($0, h); next }
		$1 == p { for (i in h) if (h[i] == n) { print $i; exit } }' ;;
	esac
}
mib_is() { [ $(($(mib "$1" "$2") - $3)) -ge "$4" ]; }
ip_mibs() { # ip_mibs ADDRESS HEADER PREFIX NAME PREFIX NAME...: packets, then octets
	local dst=$1 hdr=$2 before=() i; shift 2
	rules || return
	offloaded "$dst" || return
	sleep 1.2 # statistics of what was before come within a second
	for ((i = 1; i <= $#; i += 2)); do
		local j=$((i + 1))
		before+=("$(mib "${!i}" "${!j}")")
	done
	fast_echo
	for ((i = 1; i <= $#; i += 2)); do
		local j=$((i + 1)) due=$((2 * N))
		[[ ${!j} != *Octets ]] || due=$((2 * N * (SIZE + 8 + hdr)))
		busywait 4000 mib_is "${!i}" "${!j}" "${before[(i - 1) / 2]}" $due
		SLACK=$((due / 10 + 20)) near "${!i}${!j}" $(($(mib "${!i}" "${!j}") - before[(i - 1) / 2])) $due
	done
	conv_close x
}
tcase -x "IPv4: InReceives, ForwDatagrams, OutTransmits, octets" ip_mibs $V4 20 Ip InReceives Ip ForwDatagrams \
	Ip OutTransmits IpExt InOctets IpExt OutOctets
tcase -x "IPv6: InReceives, OutForwDatagrams, OutTransmits, octets" ip_mibs $V6 40 Ip6 InReceives Ip6 OutForwDatagrams \
	Ip6 OutTransmits Ip6 InOctets Ip6 OutOctets

# ---- devices

dev_stat() { at "$rt" awk -v d="$1:" -v f="$2" '$1 == d { print $f }' /proc/net/dev; } # 2, 3: rx bytes, packets; 10, 11: tx
# device DEV ADDRESS RX-EXTRA TX-EXTRA: DEV gets N packets and sends N; bytes above the IP packet
device() {
	local d=$1 f before=() len=$((SIZE + 28))
	case $2 in *:*) len=$((SIZE + 48)) ;; esac
	offloaded "$2" || return
	for f in 2 3 10 11; do before+=("$(dev_stat "$d" $f)"); done
	fast_echo
	near "$d: received packets" $(($(dev_stat "$d" 3) - before[1])) $N
	SLACK=600 near "$d: received bytes" $(($(dev_stat "$d" 2) - before[0])) $((N * (len + $3)))
	near "$d: sent packets" $(($(dev_stat "$d" 11) - before[3])) $N
	SLACK=600 near "$d: sent bytes" $(($(dev_stat "$d" 10) - before[2])) $((N * (len + $4)))
	conv_close x
}
plain() { rules || return; device "$@"; }
tcase    "IPv4: the listed devices themselves, LAN" plain lan $V4 14 14
tcase    "IPv6: the listed devices themselves, WAN" plain wan $V6 14 14

vlan() { # the client is in a VLAN, the flowtable lists what is below
	rules DEVS="lan, wan" || return
	printf 'route replace default via 10.0.3.1\nroute replace ::/0 via fd00:3::1\n' | batch "$cl"
	device lan.10 "$1" 0 14
	printf 'route replace default via 10.0.1.1\nroute replace ::/0 via fd00:1::1\n' | batch "$cl"
}
tcase -x "IPv4: a VLAN device above the listed one" vlan $V4
tcase -x "IPv6: a VLAN device above the listed one" vlan $V6

bridge() { # LAN is a bridge, the flowtable lists its port
	ipn "$rt" link add br0 type bridge
	ipn "$rt" addr flush dev lan
	ipn "$rt" link set lan master br0
	addr "$rt" br0 10.0.1.1/24 fd00:1::1/64
	busywait 5000 at "$cl" ping -c1 -W1 -q $V4
	rules DEVS="lan, wan" && device br0 "$1" 0 14
	ipn "$rt" link del br0
	addr "$rt" lan 10.0.1.1/24 fd00:1::1/64
	busywait 5000 at "$cl" ping -c1 -W1 -q $V4
}
tcase -x "IPv4: a bridge above the listed port" bridge $V4

tunnel() {
	printf 'route replace 10.0.1.0/24 dev tun\n' | batch "$sv"
	rules DEVS="lan, wan" SEEN="ip protocol 4" && device tun $TUN4 0 0
	printf 'route del 10.0.1.0/24 dev tun\n' | batch "$sv"
}
tcase -x "IPIP: the tunnel device above the listed one" tunnel

# ---- connection tracking

events() { rm -f "$TMP/events"; bg "$rt" conntrack -E -o timestamp "$@" >"$TMP/events" 2>"$TMP/events.err"; EVENTS=$!; busywait 3000 ready; }
ready() { at "$rt" grep -q . /proc/net/netlink && sleep 0.3; }
count() { grep -c "$1" "$TMP/events"; }

udp_events() { # however many packets: a handful of events, one end
	rules || return
	at "$rt" conntrack -F 2>/dev/null
	events -p udp
	offloaded $V4 || return
	fast_echo
	want_eq "NEW" "$(count NEW)" 1
	want_le "UPDATE" "$(count UPDATE)" 3
	want_eq "DESTROY before the end" "$(count DESTROY)" 0
	want_ok "conntrack -D" at "$rt" conntrack -D -p udp --orig-port-dst 5000
	busywait 3000 grep -q DESTROY "$TMP/events"
	sleep 0.3
	want_eq "DESTROY" "$(count DESTROY)" 1
	conv_close x
	stop $EVENTS
}
tcase "udp: NEW, a few UPDATEs, one DESTROY" udp_events

tcp_events() { # through hand-back and another offload to the end
	rules || return
	at "$rt" sysctl -qw net.netfilter.nf_flowtable_tcp_timeout=1
	at "$rt" conntrack -F 2>/dev/null
	events -p tcp
	conv_open x "$cl" tcp $V4 || return
	conv_ok x echo 300000
	busywait $((9000 * SLOW)) ct_back -p tcp || fail "not handed back: $(ct_list -p tcp)"
	conv_ok x echo 300000
	conv_ok x fin
	conv_close x
	busywait $((6000 * SLOW)) grep -q TIME_WAIT "$TMP/events" || fail "no TIME_WAIT: $(ct_list -p tcp)"
	want_eq "DESTROY before the end" "$(count DESTROY)" 0
	want_ok "conntrack -D" at "$rt" conntrack -D -p tcp --orig-port-dst 5000
	busywait 3000 grep -q DESTROY "$TMP/events"
	sleep 0.3
	want_eq "NEW" "$(count NEW)" 1
	want_le "UPDATE" "$(count UPDATE)" 8
	want_eq "DESTROY" "$(count DESTROY)" 1
	stop $EVENTS
	at "$rt" sysctl -qw net.netfilter.nf_flowtable_tcp_timeout=300
}
tcase -x "tcp: NEW, the states, one DESTROY, over a hand-back" tcp_events

successor() { # a flow takes the place of one whose route has changed: the entry stays marked
	local i
	rules || return
	stream_start $V4 || return
	ipn "$rt" route replace 10.77.0.0/16 via 10.0.2.2 # any route: IPv4 routes are looked up anew
	for i in 1 2 3 4 5 6; do
		sleep 0.5
		[ $((i % 2)) = 0 ] || ipn "$rt" route flush cache
	done
	streaming || fail "the live flow is not [OFFLOAD]: $(ct_list -p udp --orig-port-dst 6000)"
	fast_now
	stream_end 2000
	ipn "$rt" route del 10.77.0.0/16
}
tcase -x "the mark outlives the flow's predecessor" successor

SETUP=setup
run_cases "$@"
