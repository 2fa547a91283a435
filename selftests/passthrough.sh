#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Tunnels that end at the hosts and pass the router: GRE of all kinds, ESP, AH, PPTP. Fast
# with and without NAT, what is in them compared, and their conntrack entries given back
# right.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2
#   172.16.1.1 = = = = = = a tunnel between the ends = = = = = 172.16.2.1
#   fd00:a::1                                                   fd00:b::1

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

C4=10.0.1.2 C6=fd00:1::2 V4=10.0.2.2 V6=fd00:2::2
IN4=172.16.2.1 IN6=fd00:b::1
post() { echo "chain post { type nat hook postrouting priority 100; oifname wan $*; };"; }
MASQ=$(post masquerade)

# ---- packets that carry a tunnel between the two ends

# inside PROTO ADDRESS [BACK-MIN BACK-MAX]: talks through the tunnel, and what the
# router sees of it is fast
inside() {
	local src=172.16.1.1
	[[ $2 != *:* ]] || src=fd00:a::1
	busywait $((3000 * SLOW)) at "$cl" ping -c1 -W1 -q -I $src "$2" || { fail "no connectivity in the tunnel"; return 1; }
	conv_open x "$cl" tcp "$2" 5000 --bind $src || return
	conv_open y "$cl" udp "$2" 5000 --bind $src || return
	conv_ok y echo 5
	counters_zero
	conv_ok x echo "${BYTES:-1048576}"
	conv_ok y echo 100 1000
	ct_of_offloaded "$1" || fail "no [OFFLOAD] in: $(ct_of "$1")"
	counters
	bypass_numbers "$ARRIVED" "$FORWARDED" "$(fast)"
	[ -z "${3:-}" ] || ct_left "$1" "$3" "$4"
	conv_close x; conv_close y
}
no_tunnel() {
	local n
	for n in "$cl" "$sv"; do
		! ipn "$n" -br link | grep -q '^tun@\|^tun ' || ipn "$n" link del tun
		printf 'xfrm state flush\nxfrm policy flush\n' | batch "$n"
	done
}
# tunnel TYPE LOCAL REMOTE REMOTE-AS-SEEN-BY-SV [OPTION...]: between the ends
tunnel() {
	local type=$1 l=$2 r=$3 back=$4; shift 4
	no_tunnel
	ipn "$cl" link add tun type "$type" local "$l" remote "$r" "$@" || { fail "no $type device"; return; }
	ipn "$sv" link add tun type "$type" local "$r" remote "$back" "$@" || { fail "no $type device"; return; }
	{ addr_lines tun 172.16.1.1/32 fd00:a::1/128
	echo "link set tun mtu ${MTU:-1400}"
	printf 'route replace %s dev tun src 172.16.1.1\nroute replace %s dev tun src fd00:a::1\n' $IN4 $IN6; } | batch "$cl"
	{ addr_lines tun 172.16.2.1/32 fd00:b::1/128
	echo "link set tun mtu ${MTU:-1400}"
	printf 'route replace 172.16.1.1 dev tun src %s\nroute replace fd00:a::1 dev tun src %s\n' $IN4 $IN6; } | batch "$sv"
	case $type in *tap) # no neighbours on the other end: they are asked for on the wrong address
		ipn "$cl" neigh replace $IN4 lladdr "$(mac "$sv" tun)" dev tun; ipn "$cl" neigh replace $IN6 lladdr "$(mac "$sv" tun)" dev tun
		ipn "$sv" neigh replace 172.16.1.1 lladdr "$(mac "$cl" tun)" dev tun; ipn "$sv" neigh replace fd00:a::1 lladdr "$(mac "$cl" tun)" dev tun ;;
	esac
}
gre() { # gre TYPE INNER-ADDRESS NAT [OPTION...]
	local type=$1 inner=$2 nat=$3 l=$C4 r=$V4 seen=$C4; shift 3
	case $type in ip6*) l=$C6 r=$V6 seen=$C6 ;; esac
	if [ -n "$nat" ]; then
		seen=10.0.2.1
		case $type in ip6*) seen=fd00:2::1 ;; esac
	fi
	tunnel "$type" $l $r $seen "$@" || return
	rules L4=gre NAT="$nat" || return
	inside 47 "$inner" ${TIMEOUT:-}
	no_tunnel
}
tcase    "GRE, IPv4 in IPv4"                            gre gre $IN4 ""
tcase    "GRE with key and checksum, IPv4"              gre gre $IN4 "" key 7 csum
tcase    "GRE with sequence numbers, IPv4"              gre gre $IN4 "" seq
tcase    "GRE, IPv6 in IPv4"                            gre gre $IN6 ""
tcase    "GRE with Ethernet frames, IPv4"               gre gretap $IN4 ""
tcase -x "GRE, IPv4, masquerade"                        gre gre $IN4 "$MASQ"
tcase -x "GRE with key, IPv4, masquerade"               gre gre $IN4 "$MASQ" key 7
tcase    "GRE, IPv6, no encapsulation limit"            gre ip6gre $IN4 "" encaplimit none
tcase -x "GRE, IPv6, behind destination options"        gre ip6gre $IN6 ""
tcase -x "GRE with Ethernet frames and key, IPv6"       gre ip6gretap $IN4 "" key 7
tcase -x "GRE, IPv6, masquerade"                        gre ip6gre $IN6 "$MASQ" encaplimit none
# the in-tree code warns, which must not count as a fault of every case
log_clean() {
	dmesg_clean_since "$DMESG_MARK" >"$TMP/dmesg" || fail "kernel log: $(head -n1 "$TMP/dmesg")"
	DMESG_MARK=$(dmesg_mark)
}
gre_idle() {
	ct_set nf_conntrack_gre_timeout_stream=150
	TIMEOUT="130 150" gre gre $IN4 ""
	ct_set nf_conntrack_gre_timeout_stream=180
	log_clean
}
tcase -x "GRE, idle: keeps its timeout"                 gre_idle
gre_slow() { # packets that are too large go the slow way; the flow stays
	local i n id
	tunnel gre $C4 $V4 $C4 || return
	rules L4=gre || return
	busywait $((3000 * SLOW)) at "$cl" ping -c1 -W1 -q $IN4
	conv_open y "$cl" udp $IN4 5000 --bind 172.16.1.1 --pmtu dont || return
	conv_ok y echo 20
	ct_of_offloaded 47 || fail "not offloaded: $(ct_of 47)"
	id=$(ct_list -o id | awk '$2 == 47' | grep -o ' id=[0-9]*$')
	for n in "$cl" "$sv"; do ipn "$n" link set tun mtu 1476; done
	ipn "$cl" link set tun type gre nopmtudisc ignore-df 2>/dev/null
	ipn "$rt" link set wan mtu 1300; ipn "$sv" link set eth0 mtu 1300
	for i in 1 2 3; do conv_cmd y echo 5 1400 >/dev/null; sleep 0.5; conv_ok y drain; done
	ipn "$rt" link set wan mtu 1500; ipn "$sv" link set eth0 mtu 1500
	conv_ok y echo 20
	sleep 1.5
	want_eq "conntrack entry" "$(ct_list -o id | awk '$2 == 47' | grep -o ' id=[0-9]*$')" "$id"
	conv_ok y echo 20
	conv_close y
	log_clean
	no_tunnel
}
tcase -x "GRE, packets on the slow path do not end the flow" gre_slow

ipsec() { # ipsec PROTO INNER-ADDRESS NAT OUTER-VERSION: a tunnel between the ends, TCP and UDP inside
	local l=$C4 r=$V4 seen=$C4 algo s inner=(172.16.1.1/32 172.16.2.1/32) n
	no_tunnel
	[ "$4" = 4 ] || l=$C6 r=$V6 seen=$C6
	if [ -n "$3" ]; then seen=10.0.2.1; [ "$4" = 4 ] || seen=fd00:2::1; fi
	[[ $2 != *:* ]] || inner=(fd00:a::1/128 fd00:b::1/128)
	algo="auth hmac(sha1) 0x0123456789abcdef0123456789abcdef01234567"
	[ "$1" = ah ] || algo="enc cbc(aes) 0x00112233445566778899aabbccddeeff $algo"
	for n in "$cl $l" "$sv $seen"; do
		set -- "$1" "$2" "$3" "$4" $n
		s=(in out); [ "$5" != "$cl" ] || s=(out in)
		printf '%s\n' "xfrm state add src $6 dst $r proto $1 spi 0x101 mode tunnel $algo flag af-unspec" \
			"xfrm state add src $r dst $6 proto $1 spi 0x102 mode tunnel $algo flag af-unspec" \
			"xfrm policy add src ${inner[0]} dst ${inner[1]} dir ${s[0]} tmpl src $6 dst $r proto $1 mode tunnel" \
			"xfrm policy add src ${inner[1]} dst ${inner[0]} dir ${s[1]} tmpl src $r dst $6 proto $1 mode tunnel" >"$TMP/ipsec"
		want_ok "IPsec" batch "$5" <"$TMP/ipsec" || return
	done
	{ echo "link add tun type dummy"; addr_lines tun 172.16.1.1/32 fd00:a::1/128; ipsec_routes 10.0.1.1 fd00:1::1 $IN4 $IN6 172.16.1.1 fd00:a::1; } | batch "$cl"
	{ echo "link add tun type dummy"; addr_lines tun 172.16.2.1/32 fd00:b::1/128; ipsec_routes 10.0.2.1 fd00:2::1 172.16.1.1 fd00:a::1 $IN4 $IN6; } | batch "$sv"
	rules L4="$1" NAT="$3" || return
	n=50; [ "$1" = esp ] || n=51
	inside $n "$2" ${TIMEOUT:-}
	if [ -n "$3" ]; then
		ct_of $n | grep -q "dst=$seen" || fail "not translated: $(ct_of $n)"
	fi
	printf 'route del %s\nroute del %s\n' $IN4 $IN6 | batch "$cl" 2>/dev/null
	printf 'route del 172.16.1.1\nroute del fd00:a::1\n' | batch "$sv" 2>/dev/null
	no_tunnel
}
ipsec_routes() { printf 'route replace %s via %s src %s\nroute replace %s via %s src %s\n' "$3" "$1" "$5" "$4" "$2" "$6"; }
tcase -x "ESP, IPv4"                                    ipsec esp $IN4 "" 4
tcase -x "ESP, IPv6"                                    ipsec esp $IN6 "" 6
tcase -x "ESP, IPv4, masquerade"                        ipsec esp $IN4 "$MASQ" 4
tcase -x "ESP, IPv6, masquerade"                        ipsec esp $IN6 "$MASQ" 6
tcase -x "ESP, IPv6 in IPv4"                            ipsec esp $IN6 "" 4
tcase -x "AH, IPv4"                                     ipsec ah $IN4 "" 4
esp_idle() {
	ct_set nf_conntrack_generic_timeout=400
	TIMEOUT="380 400" ipsec esp $IN4 "" 4
	ct_set nf_conntrack_generic_timeout=600
}
tcase -x "ESP, idle: keeps its timeout"                 esp_idle

# ---- PPTP: GRE version 1, whose calls conntrack's helper learns from the control connection

pptp() { # pptp NAT
	modprobe -q nf_nat_pptp; modprobe -q nf_conntrack_pptp
	rules L4=gre NAT="ct helper pptp { type \"pptp\" protocol tcp; }; chain help { type filter hook prerouting priority 0; tcp dport 1723 ct helper set pptp; }; $1" || return
	bg "$sv" "${PY[@]}" protocols pptp-server --ready "$TMP/pptp"
	busywait 5000 test -e "$TMP/pptp" || fail "no PPTP server"
	rm -f "$TMP/pptp"
	counters_zero
	at "$cl" "${PY[@]}" protocols pptp-client $V4 --count 300 --at-end "nsenter --net=/run/netns/$rt conntrack -L >$TMP/ct 2>/dev/null" >"$TMP/out" 2>&1 ||
		fail "$(tail -n1 "$TMP/out")"
	awk '$2 == 47' "$TMP/ct" | grep -q 'srckey=0x[1-9a-f].*\[OFFLOAD\]' || fail "no [OFFLOAD] in: $(awk '$2 == 47' "$TMP/ct")"
	counters
	bypass_numbers "$ARRIVED" "$FORWARDED" "$(fast)"
	[ -z "${2:-}" ] || [ "$(awk '$2 == 47' "$TMP/ct" | head -n1 | grep -o ' srckey=[0-9a-fx]* dstkey=[0-9a-fx]*' | tr ' ' '\n' | grep key | cut -d= -f2 | sort -u | wc -l)" -ge 3 ] ||
		fail "the call was not translated: $(awk '$2 == 47' "$TMP/ct")"
}
tcase -x "PPTP, routed"                                 pptp ""
tcase -x "PPTP, masquerade"                             pptp "$MASQ"

setup() { lan_wan && serve "$sv"; }
SETUP=setup
run_cases "$@"
