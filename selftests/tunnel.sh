#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Tunnels between the router and the far end: those that say what is below them
# (IPIP, IP6IP6) and those that do not (6in4, DS-Lite, GRE, WireGuard);
# devices that stand for others (VRF, macvlan, bond).
#
#      cl                       rt                          sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ----- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1      fd00:2::1          fd00:2::2
#                                    tun 10.0.3.1 ===== tun 10.0.3.2
#                                        fd00:3::1          fd00:3::2
#                                                        lo 10.9.9.9 fd00:9::9

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib/tunnel.sh
. "$HERE/lib/tunnel.sh"

# shellcheck disable=SC2086
{
tcase "IPIP"                                    inside 2 ipip 4 "lan, wan" $V4OUT
tcase "IPIP over VLAN"                          inside 7 ipip 4 "lan, wan" $V4OUT
tcase -x "IPIP, the tunnel is listed"           on_tun 2 ipip 4 "lan, tun" $V4OUT
tcase "IPIP, all devices are listed"            inside 2 ipip 4 "lan, tun, wan" $V4OUT
tcase -x "IPIP with a TOS and TTL of its own"   inside 2 ipip 4 "lan, wan, tun" $V4OUT ttl 33 tos inherit
tcase "IP6IP6, encaplimit none"                 inside 2 ip6tnl 6 "lan, wan" mode ip6ip6 encaplimit none $V6OUT
tcase "IP6IP6 over VLAN, encaplimit none"       inside 7 ip6tnl 6 "lan, wan" mode ip6ip6 encaplimit none $V6OUT
tcase -x "IP6IP6 with an encapsulation limit, the tunnel is listed" on_tun 2 ip6tnl 6 "lan, tun" mode ip6ip6 $V6OUT
tcase -x "DS-Lite (IPv4 in IPv6), the tunnel is listed" on_tun 2 ip6tnl 4 "lan, tun" mode ipip6 encaplimit none $V6OUT
tcase -x "DS-Lite over VLAN with an encapsulation limit" on_tun 7 ip6tnl 4 "lan, tun" mode ipip6 $V6OUT
tcase -x "both in IPv6, any mode"               on_tun 2 ip6tnl 46 "lan, tun" mode any $V6OUT
tcase "6in4, the tunnel is listed"           on_tun 2 sit 6 "lan, tun" $V4OUT
tcase "6in4, all devices are listed"         on_tun 2 sit 6 "lan, wan, tun" $V4OUT
tcase "GRE, the tunnel is listed"               on_tun 2 gre 46 "lan, tun" $V4OUT
tcase "GRE with key and checksum"               on_tun 2 gre 46 "lan, tun" $V4OUT key 7 csum
tcase "GRE over IPv6, the tunnel is listed"     on_tun 2 ip6gre 46 "lan, tun" $V6OUT
tcase "gretap, the tunnel is listed"            on_tun 2 gretap 46 "lan, tun" $V4OUT
}
nothing_listed() { # the tunnel cannot be followed and is not listed: slow, but it passes
	tun 2 sit $V4OUT || return
	rules || return
	conv_open x "$cl" tcp $V6 || return
	conv_ok x echo 200000
	conv_close x
}
tcase "6in4, only the ports are listed: it passes" nothing_listed

# ---- tunnels that nobody has listed

# warm ADDRESS: a first connection, on which the tunnel gets its hook
warm() {
	conv_open w "$cl" udp "$1" 5001 || return
	conv_ok w echo 10
	[ "$FT" != ours ] || busywait $((3000 * SLOW)) follows tun || fail "followed: $(followed)"
}
cold() { # the hook goes with the last flow
	conv_close w
	forget
	[ "$FT" != ours ] || busywait $((5000 * SLOW)) follows - || fail "still followed: $(followed)"
}
unlisted() { # unlisted NET KIND INSIDE OPTION...: both ways are fast, though only the ports are listed
	local net=$1 kind=$2 what=$3 to=(); shift 3
	[ "$kind" = made ] || tun "$net" "$kind" "$@" || return
	[[ $what != *4* ]] || to+=("$V4")
	[[ $what != *6* ]] || to+=("$V6")
	SEEN=${SEEN_-$SEEN} rules DEVS="${DEVS_:-lan, wan}" WATCH="lan, wan" || return
	warm "${to[0]}" || return
	bypass_all "${to[@]}"
	cold
}
# shellcheck disable=SC2086
{
tcase -x "not listed: 6in4"                     unlisted 2 sit 6 $V4OUT
tcase -x "not listed: 6in4 over VLAN"           unlisted 7 sit 6 $V4OUT
tcase -x "not listed: DS-Lite (IPv4 in IPv6)"   unlisted 2 ip6tnl 4 mode ipip6 encaplimit none $V6OUT
tcase -x "not listed: DS-Lite with an encapsulation limit" unlisted 7 ip6tnl 4 mode ipip6 $V6OUT
tcase -x "not listed: IP6IP6 with an encapsulation limit" unlisted 2 ip6tnl 6 mode ip6ip6 $V6OUT
tcase -x "not listed: both in IPv6, any mode"   unlisted 2 ip6tnl 46 mode any $V6OUT
tcase -x "not listed: GRE"                      unlisted 2 gre 46 $V4OUT key 7 csum
tcase -x "not listed: GRE over IPv6"            unlisted 2 ip6gre 46 $V6OUT
tcase -x "not listed: gretap"                   unlisted 2 gretap 46 $V4OUT
}

dscp() { # the tunnel copies the DSCP of the outer header, and so do fast packets
	local n
	tun 2 ip6tnl mode ip6ip6 encaplimit none dscp inherit $V6OUT || return
	rules || return
	at "$cl" nft -f - <<-END &&
		table inet marks {
			counter got { }
			counter every { }
			chain in {
				type filter hook input priority 0;
				udp sport 5001 counter name every
				udp sport 5001 ip6 dscp af41 counter name got
			}
		}
	END
	at "$sv" nft -f - <<-END || { fail "no ruleset"; return; }
		table netdev marks {
			chain out {
				type filter hook egress device eth0 priority 0;
				ip6 nexthdr 41 ip6 dscp set af41
			}
		}
	END
	warm $V6 || return
	conv_ok w echo 20
	counters_zero
	conv_ok w echo 50
	counters
	want_le "of 100 packets, seen by the forward chain" "$FORWARDED" 4
	n=$(at "$cl" nft list counter inet marks every | awk '$1 == "packets" { print $2 }')
	want_ge "packets that arrived" "$n" 80
	want_eq "of these, with the outer DSCP" "$(at "$cl" nft list counter inet marks got | awk '$1 == "packets" { print $2 }')" "$n"
	cold
	at "$cl" nft delete table inet marks; at "$sv" nft flush ruleset
}
tcase -x "not listed: IP6IP6, dscp inherit"                 dscp

not_by_listed() { # its outer packets come in by a device that is not listed either
	tun 2 gre $V4OUT || return
	rules DEVS="lan, wan.7" WATCH="lan, wan" || return
	conv_open w "$cl" udp $V4 || return
	conv_ok w echo 10
	counters_zero
	conv_ok w echo 50
	counters
	want_ge "of 100 packets, seen by the forward chain" "$FORWARDED" 100
	[ "$FT" != ours ] || want_eq "followed" "$(followed)" -
	# ... and then by one that is
	want_ok "router's tunnel" ipn "$rt" link set tun type gre local 10.0.7.1 remote 10.0.7.2
	want_ok "server's tunnel" ipn "$sv" link set tun type gre local 10.0.7.2 remote 10.0.7.1
	[ "$FT" != ours ] || busywait $((3000 * SLOW)) comes_by_tun || fail "followed: $(followed)"
	busywait $((3000 * SLOW)) fast_way || fail "not fast"
	want_ok "router's tunnel" ipn "$rt" link set tun type gre local 10.0.2.1 remote 10.0.2.2
	want_ok "server's tunnel" ipn "$sv" link set tun type gre local 10.0.2.2 remote 10.0.2.1
	busywait $((4000 * SLOW)) slow_way || fail "fast by a device that is not listed"
	cold
}
comes_by_tun() { conv_cmd w echo 5 >/dev/null; follows tun; } # it is asked about once a second
fast_way() { counters_zero; conv_cmd w echo 20 >/dev/null; counters; [ "$FORWARDED" -le 2 ]; }
slow_way() { counters_zero; conv_cmd w echo 20 >/dev/null; counters; [ "$FORWARDED" -ge 40 ]; }
tcase -x "not listed: GRE, its packets come in by what is listed, or not" not_by_listed

vanishes() { # vanishes HOW: the tunnel goes away under load, and comes back
	local how=$1 i
	for i in 1 2 3; do
		tun 2 sit $V4OUT || return
		rules || return
		stream_start $V6 || return
		warm $V6 || return
		case $how in
		deleted) ipn "$rt" link del tun ;;
		moved) ipn "$rt" link set tun netns "$cl" ;;
		flowtable) nft_rt flush ruleset ;;
		listed) nft_rt 'add flowtable inet t f { hook ingress priority 0; devices = { tun }; }' ;;
		esac || fail "$how"
		case $how in
		deleted|moved) busywait $((2000 * SLOW)) not_flowing || fail "traffic passes" ;;
		listed) busywait $((5000 * SLOW)) follows - || fail "still followed: $(followed)"; fast_now ;;
		esac
		[ "$how" = flowtable ] || [ "$FT" != ours ] || busywait $((5000 * SLOW)) follows - || fail "still followed: $(followed)"
		stop "$SEND" "$SINK"
		conv_close w
		[ "$how" != moved ] || ipn "$cl" link del tun
	done
}
tcase -x "not listed: 6in4, deleted under load" vanishes deleted
tcase -x "not listed: 6in4, moved to another namespace under load" vanishes moved
tcase -x "not listed: 6in4, the flowtable goes under load" vanishes flowtable
tcase -x "not listed: 6in4, until it is, under load"              vanishes listed

elsewhere() { # elsewhere tunnel|vlan: what is below is in another network namespace
	local x='' n
	untun
	ns_add x
	if [ "$1" = tunnel ]; then
		# (the router has a way to the remote end itself)
		ip link add o netns "$x" type veth peer name o4 netns "$sv"
		printf '%s\n' "addr add 10.0.4.1/24 dev o" "link set o up" "link add tun mtu 1400 type ipip local 10.0.4.1 remote 10.0.4.2" \
			"link set tun netns $rt" | batch "$x"
		printf '%s\n' "addr add 10.0.4.2/24 dev o4" "link set o4 up" "link add tun mtu 1400 type ipip local 10.0.4.2 remote 10.0.4.1" | batch "$sv"
		printf '%s\n' "route replace 10.0.4.0/24 via 10.0.2.2" | batch "$rt"
	else
		printf '%s\n' "link add link wan name wan.8 type vlan id 8" "link set wan.8 netns $x" | batch "$rt"
		printf '%s\n' "link set wan.8 up" "link add link wan.8 name tun netns $rt type vlan id 9" | batch "$x"
		printf '%s\n' "link add link eth0 name eth0.8 up type vlan id 8" "link add link eth0.8 name tun type vlan id 9" | batch "$sv"
	fi
	{ addr_lines tun 10.0.3.1/24 fd00:3::1/64; echo "$THROUGH"; } | batch "$rt"
	{ addr_lines tun 10.0.3.2/24 fd00:3::2/64; echo "$BACK"; } | batch "$sv"
	busywait $((5000 * SLOW)) at "$cl" ping -c1 -W1 -q $V4 || fail "no connectivity"
	SEEN='' rules || return
	n=$(stat_get skip.device_not_listed)
	conv_open x "$cl" udp $V4 || return
	conv_ok x echo 50
	conv_close x
	! offloaded_line udp 5000 || fail "offloaded, by a device of another namespace"
	[ "$FT" != ours ] || want_ge "skip.device_not_listed" "$(stat_get skip.device_not_listed)" $((n + 1))
	[ "$FT" != ours ] || want_eq "followed" "$(followed)" -
	untun
	! ipn "$sv" -br link | grep -q '^eth0.8@' || ipn "$sv" link del eth0.8
	! ipn "$sv" -br link | grep -q '^o4@' || ipn "$sv" link del o4
	ipn "$rt" route del 10.0.4.0/24 2>/dev/null
	ip netns del "$x"
}
tcase -x "IPIP whose outside is in another namespace" elsewhere tunnel
tcase -x "VLAN on a VLAN in another namespace"  elsewhere vlan

segments() { # large packets, which the server's tunnel leaves to others to cut up
	local before after dropped
	tun 2 "$@" || return
	offloads "$sv" tun tso on gso on
	rules DEVS="lan, tun" WATCH="lan, tun" || return
	before=$(retransmitted) dropped=$(not_sent)
	conv_open x "$cl" tcp $V6 || return
	conv_ok x echo 3000000
	offloaded_line tcp 5000 || fail "the flow is not offloaded"
	conv_close x
	after=$(retransmitted)
	want_le "segments that the server had to send again" $((after - before)) 15
	want_eq "packets that the router's LAN device did not send" $(($(not_sent) - dropped)) 0
}
retransmitted() { at "$sv" awk '/^Tcp: [0-9]/ { print $13 }' /proc/net/snmp; }
not_sent() { ipn "$rt" -j -s link show lan | jq '.[0].stats64.tx.dropped'; }
# shellcheck disable=SC2086
{
tcase -x "6in4, large packets of a sender that leaves segmentation to devices" segments sit $V4OUT
tcase "GRE, large packets of a sender that leaves segmentation to devices" segments gre $V4OUT
}

# ---- what the tunnel does to the header inside

ttl() { # ttl KIND ADDRESS...: one hop less, and not more, whichever way
	local f=ip h=ttl n
	tun 2 "$1" "${@:3}" || return
	[ "$2" = $V4 ] || f=ip6 h=hoplimit
	rules DEVS="lan, wan, tun" WATCH="lan, wan" || return
	for n in "$cl eth0" "$sv tun"; do
		at ${n% *} nft -f - <<-END
			table inet ttl {
				counter right { }
				counter wrong { }
				chain in {
					type filter hook input priority 0;
					udp dport 5000 $f $h 63 counter name right
					udp dport 5000 $f $h != 63 counter name wrong
					udp sport 5000 $f $h 63 counter name right
					udp sport 5000 $f $h != 63 counter name wrong
				}
			}
		END
	done
	COUNT=50 bypass udp "$2"
	for n in "$cl" "$sv"; do
		want_eq "packets with another $h" "$(at "$n" nft list counter inet ttl wrong | awk '$1 == "packets" { print $2 }')" 0
		want_ge "packets with $h 63" "$(at "$n" nft list counter inet ttl right | awk '$1 == "packets" { print $2 }')" 50
		at "$n" nft delete table inet ttl
	done
}
tcase "IPIP, the inner TTL"                     ttl ipip $V4 $V4OUT
tcase "IP6IP6, the inner hop limit"             ttl ip6tnl $V6 mode ip6ip6 encaplimit none $V6OUT

# ecn_set FAMILY MARK: the statement; nft 1.1.3's "ip6 ecn set" changes nothing, so
# for IPv6 the first two bytes are written, with a part of the flow label
ecn_set() {
	local m; case $2 in ect1) m=1 ;; ect0) m=2 ;; ce) m=3 ;; esac
	if [ "$1" = ip ]; then echo "ip ecn set $2"; else echo "@nh,0,16 set 0x60${m}0"; fi
}
ecn_is() {
	local m; case $2 in ect1) m=1 ;; ect0) m=2 ;; ce) m=3 ;; esac
	if [ "$1" = ip ]; then echo "ip ecn $2"; else echo "@nh,8,8 & 0x30 == 0x${m}0"; fi
}
# ecn KIND ADDRESS INNER EXPECTED OPTION...: the outer header gets a CE mark on the way
# to the router; what is inside arrives with EXPECTED (RFC 6040)
ecn() {
	local f=ip o="ip protocol { 4, 41 }" of=ip a=$2 inner=$3 expected=$4 n got
	tun 2 "$1" "${@:5}" || return
	[ "$a" = $V4 ] || f=ip6
	[[ "$*" != *6* || "$*" != *LOCAL6* ]] || o="ip6 nexthdr { 4, 41 }" of=ip6
	rules DEVS="${ECN_DEVS:-lan, wan}" WATCH="lan, wan" || return
	at "$cl" nft -f - <<-END &&
		table inet marks {
			counter got { }
			counter every { }
			chain in {
				type filter hook input priority 0;
				udp sport 5000 counter name every
				udp sport 5000 meta nfproto $([ $f = ip ] && echo ipv4 || echo ipv6) $(ecn_is $f $expected) counter name got
			}
		}
	END
	at "$sv" nft -f - <<-END || { fail "no ruleset"; return; }
		table inet marks {
			chain out {
				type filter hook output priority 0;
				udp sport 5000 $(ecn_set $f $inner)
			}
		}
		table netdev marks {
			chain out {
				type filter hook egress device eth0 priority 0;
				$o $(ecn_set $of ce)
			}
		}
	END
	conv_open x "$cl" udp "$a" || return
	conv_ok x send 60
	sleep 0.3
	offloaded_line udp 5000 || fail "the flow is not offloaded"
	got=$(at "$cl" nft list counter inet marks got | awk '$1 == "packets" { print $2 }')
	n=$(at "$cl" nft list counter inet marks every | awk '$1 == "packets" { print $2 }')
	want_eq "of 60 packets, arrived" "$n" 60
	want_eq "of $n packets, marked $expected" "$got" "$n"
	conv_close x
	at "$cl" nft delete table inet marks
	at "$sv" nft flush ruleset
}
tcase -x "IPIP, outer CE onto inner ECT(0)"     ecn ipip $V4 ect0 ce $V4OUT
tcase -x "IPIP, outer CE onto inner ECT(1)"     ecn ipip $V4 ect1 ce $V4OUT
tcase "IPIP, outer CE onto inner CE"            ecn ipip $V4 ce ce $V4OUT
tcase -x "IP6IP6, outer CE onto inner ECT(0)"   ecn ip6tnl $V6 ect0 ce mode ip6ip6 encaplimit none $V6OUT
listed_ecn() { local ECN_DEVS="lan, tun"; ecn "$@"; }
tcase -x "DS-Lite, outer CE onto inner ECT(0)"  listed_ecn ip6tnl $V4 ect0 ce mode ipip6 encaplimit none $V6OUT

not_ect() { # RFC 6040: CE outside, no ECN inside: such a packet is dropped
	local n
	tun 2 ipip $V4OUT || return
	rules || return
	at "$cl" nft -f - <<-END
		table inet marks {
			counter every { }
			chain in {
				type filter hook input priority 0;
				udp sport 5000 counter name every
			}
		}
	END
	conv_open x "$cl" udp $V4 || return
	conv_ok x echo 10
	n=$(at "$cl" nft list counter inet marks every | awk '$1 == "packets" { print $2 }')
	at "$sv" nft -f - <<-END
		table netdev marks {
			chain out {
				type filter hook egress device eth0 priority 0;
				ip protocol 4 ip ecn set ce
			}
		}
	END
	conv_ok x send 50
	sleep 0.3
	want_eq "packets that had to be dropped" $(($(at "$cl" nft list counter inet marks every | awk '$1 == "packets" { print $2 }') - n)) 0
	conv_close x
	at "$cl" nft delete table inet marks
	at "$sv" nft flush ruleset
}
tcase -x "IPIP, outer CE onto inner not-ECT is dropped" not_ect

ecn_out() { # ... and the way in: the outer header says what the inner one says
	local got
	tun 2 ipip $V4OUT || return
	rules || return
	at "$cl" nft -f - <<-END
		table inet marks {
			chain out {
				type filter hook output priority 0;
				udp dport 5000 ip ecn set ect0
			}
		}
	END
	at "$sv" nft -f - <<-END
		table netdev marks {
			counter got { }
			counter every { }
			chain in {
				type filter hook ingress device eth0 priority 0;
				ip protocol 4 counter name every
				ip protocol 4 ip ecn ect0 counter name got
			}
		}
	END
	COUNT=60 bypass udp $V4
	got=$(at "$sv" nft list counter netdev marks got | awk '$1 == "packets" { print $2 }')
	want_ge "outer headers with ECT(0)" "$got" 60
	at "$cl" nft flush ruleset; at "$sv" nft flush ruleset
}
tcase "IPIP, the outer header takes ECT(0) over" ecn_out

# ---- changes under traffic

tcase "IPIP, the remote end changes"            moved_ipip
moved_ipip() {
	tun 2 ipip $V4OUT || return
	ipn "$sv" addr add 10.0.2.3/24 dev eth0 2>/dev/null
	rules WATCH="lan, wan" || return
	stream_start $V4 || return
	want_ok "router's tunnel" ipn "$rt" link set tun type ipip local 10.0.2.1 remote 10.0.2.3
	want_ok "server's tunnel" ipn "$sv" link set tun type ipip local 10.0.2.3 remote 10.0.2.1
	busywait $((2000 * SLOW)) flowing || fail "traffic does not come back"
	[ "$FT" != ours ] || fast_now
	# the answers as well, and those of the old end do not pass
	conv_open x "$cl" udp $V4 5000 --timeout 3 && conv_ok x echo 100
	offloaded_line udp 5000 || fail "not offloaded: $(ct_list -p udp | head -n1)"
	conv_close x
	stream_end 5000
	ipn "$sv" addr del 10.0.2.3/24 dev eth0
}
tun_down() { # the tunnel goes away: so does the traffic
	tun 2 "$1" "${@:4}" || return
	rules DEVS="$3" WATCH="lan" || return
	stream_start "$2" || return
	ipn "$rt" link set tun down
	busywait $((1000 * SLOW)) not_flowing || fail "traffic passes without the tunnel"
	printf '%s\n' "link set tun up" "addr add fd00:3::1/64 dev tun nodad" "$THROUGH" | batch "$rt" 2>/dev/null
	busywait $((3000 * SLOW)) flowing || fail "traffic does not come back"
	fast_now
	stream_end 5000
}
tcase "IPIP, the tunnel goes down and up"       tun_down ipip $V4 "lan, wan" $V4OUT
tcase "6in4, the tunnel goes down and up"    tun_down sit $V6 "lan, tun" $V4OUT

# ---- WireGuard

wireguard_ends() {
	untun
	ipn "$rt" link add tun mtu 1400 type wireguard 2>/dev/null || { skip "no WireGuard"; return; }
	ipn "$sv" link add tun mtu 1400 type wireguard
	at "$rt" "${PY[@]}" links wireguard tun a b 10.0.2.2@51820 || { fail "router's tunnel"; return; }
	at "$sv" "${PY[@]}" links wireguard tun b a 10.0.2.1@51820 || { fail "server's tunnel"; return; }
	{ addr_lines tun 10.0.3.1/24 fd00:3::1/64; echo "$THROUGH"; } | batch "$rt"
	{ addr_lines tun 10.0.3.2/24 fd00:3::2/64; echo "$BACK"; } | batch "$sv"
	busywait $((5000 * SLOW)) at "$cl" ping -c1 -W1 -q $V4 || fail "no connectivity"
}
wireguard() {
	wireguard_ends || return
	# its own datagrams are no part of what is forwarded
	SEEN='' rules DEVS="lan, tun" WATCH="lan, tun" || return
	bypass_all $V4 $V6
}
tcase "WireGuard, the tunnel is listed"         wireguard
# (what arrives at wan are datagrams of its own, one by one)
wireguard_unlisted() { wireguard_ends && SEEN_='' SLACK=100000 unlisted 2 made 46; }
tcase -x "not listed: WireGuard"                wireguard_unlisted

# ---- devices that stand for others

vrf() { # vrf MASTER-OF...: LAN, or LAN and WAN, in a VRF
	local d
	untun
	ipn "$rt" link add vrf1 type vrf table 100 2>/dev/null || { skip "no VRF"; return; }
	{ echo "link set vrf1 up"
	for d in "$@"; do echo "link set $d master vrf1"; done
	printf '%s\n' "addr add fd00:1::1/64 dev lan nodad" "addr add fd00:2::1/64 dev wan nodad"; } | batch "$rt" 2>/dev/null
	if [ $# = 1 ]; then
		# leak between the VRF and the main table
		printf '%s\n' "route replace 10.0.2.0/24 dev wan table 100" "route replace 10.0.1.0/24 dev lan" \
			"route replace fd00:2::/64 dev wan table 100" "route replace fd00:1::/64 dev lan" | batch "$rt"
	fi
	rules || return
	busywait 3000 at "$cl" ping -c1 -W1 -q 10.0.2.2 || { fail "no connectivity"; }
	bypass_all 10.0.2.2 fd00:2::2
	ipn "$rt" link del vrf1
	printf '%s\n' "addr add fd00:1::1/64 dev lan nodad" "addr add fd00:2::1/64 dev wan nodad" | batch "$rt" 2>/dev/null
}
tcase "VRF with LAN and WAN"                    vrf lan wan
tcase "VRF with LAN, routes leaked"             vrf lan

macvlan() { # macvlan DEVS: the router's LAN address is on a macvlan device
	untun
	ipn "$rt" link add link lan name mv type macvlan mode "${2:-private}" 2>/dev/null || { skip "no macvlan"; return; }
	{ printf '%s\n' "addr flush dev lan scope global"; addr_lines mv 10.0.1.1/24 fd00:1::1/64; } | batch "$rt"
	ipn "$cl" neigh flush dev eth0
	rules DEVS="$1" || return
	busywait 3000 at "$cl" ping -c1 -W1 -q 10.0.2.2 || fail "no connectivity"
	bypass_all 10.0.2.2 fd00:2::2
	ipn "$rt" link del mv
	addr_lines lan 10.0.1.1/24 fd00:1::1/64 | batch "$rt"
	ipn "$cl" neigh flush dev eth0
}
tcase "macvlan, the macvlan device is listed"   macvlan "mv, wan"

bond() { # an active-backup bond on the LAN, one leg
	untun
	ipn "$rt" link add bond9 type bond mode active-backup miimon 100 2>/dev/null || { skip "no bonding"; return; }
	{ printf '%s\n' "addr flush dev lan scope global" "link set lan down" "link set lan master bond9"
	addr_lines bond9 10.0.1.1/24 fd00:1::1/64; echo "link set lan up"; } | batch "$rt"
	ipn "$cl" neigh flush dev eth0
	busywait 5000 at "$cl" ping -c1 -W1 -q 10.0.2.2 || fail "no connectivity"
	rules DEVS="$1" WATCH="bond9, wan" || return
	bypass_all 10.0.2.2 fd00:2::2
	ipn "$rt" link del bond9
	addr_lines lan 10.0.1.1/24 fd00:1::1/64 | batch "$rt"
	ipn "$cl" neigh flush dev eth0
}
tcase "bond, the bond device is listed"         bond "bond9, wan"

# One device for all tunnels; each route says where its own one goes.
external() {
	untun
	{ echo "link add tun mtu 1400 type gre external"; addr_lines tun 10.0.3.1/24 fd00:3::1/64; } | batch "$rt"
	{ echo "link add tun mtu 1400 type gre local 10.0.2.2 remote 10.0.2.1 key 7"; addr_lines tun 10.0.3.2/24 fd00:3::2/64
	echo "$BACK"; } | batch "$sv"
	ipn "$rt" route replace $V4 encap ip id 7 dst 10.0.2.2 key dev tun 2>"$TMP/out" ||
		{ ipn "$rt" route replace $V4 via 10.0.2.2; untun; skip "no encapsulation by routes: $(tail -n1 "$TMP/out")"; return; }
	rules DEVS="lan, tun" || return
	bypass tcp $V4
	bypass udp $V4
	ipn "$rt" route replace $V4 via 10.0.2.2
	untun
}
tcase "external GRE, the route says where to"   external

SETUP=setup
run_cases "$@"
