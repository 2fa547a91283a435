#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# IPsec between the router and the server, by policies and by an xfrm interface, alone and with a tunnel
# in it: what has to come through it and does not is not forwarded, whoever sends it.
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

KEY1="0x0102030405060708090a0b0c0d0e0f1011121314" KEY2="0x1112131415161718191a1b1c1d1e1f2021222324"
# ipsec FAMILY: between the router and the server, for what the LAN and lo 10.9.9.9 talk
ipsec() {
	local l=10.0.2.1 r=10.0.2.2 lan=10.0.1.0/24 far=$V4/32
	[ "$1" = 4 ] || l=fd00:2::1 r=fd00:2::2 lan=fd00:1::/64 far=$V6/128
	untun
	no_ipsec
	local n in out
	for n in "$rt" "$sv"; do
		in="src $far dst $lan" out="src $lan dst $far"
		printf '%s\n' \
			"xfrm state add src $l dst $r proto esp spi 0x101 mode tunnel enc cbc(aes) ${KEY1}$(printf '%024d' 0) auth hmac(sha1) $KEY1" \
			"xfrm state add src $r dst $l proto esp spi 0x102 mode tunnel enc cbc(aes) ${KEY2}$(printf '%024d' 0) auth hmac(sha1) $KEY2"
		if [ "$n" = "$rt" ]; then
			printf '%s\n' "xfrm policy add $out dir out tmpl src $l dst $r proto esp mode tunnel" \
				"xfrm policy add $in dir fwd tmpl src $r dst $l proto esp mode tunnel" \
				"xfrm policy add $in dir in tmpl src $r dst $l proto esp mode tunnel"
		else
			printf '%s\n' "xfrm policy add $in dir out tmpl src $r dst $l proto esp mode tunnel" \
				"xfrm policy add $out dir fwd tmpl src $l dst $r proto esp mode tunnel" \
				"xfrm policy add $out dir in tmpl src $l dst $r proto esp mode tunnel"
		fi >>"$TMP/xfrm.p"
		true
	done >"$TMP/xfrm.s"
	# states are the same on both sides, policies are not
	sed -i 's/enc cbc(aes) \(0x[0-9a-f]\{32\}\)[0-9a-f]*/enc cbc(aes) \1/' "$TMP/xfrm.s"
	{ head -n2 "$TMP/xfrm.s"; head -n3 "$TMP/xfrm.p"; } >"$TMP/batch.rt"
	{ head -n2 "$TMP/xfrm.s"; tail -n3 "$TMP/xfrm.p"; } >"$TMP/batch.sv"
	rm "$TMP/xfrm.s" "$TMP/xfrm.p"
	printf 'route replace %s via 10.0.2.2\nroute replace %s via fd00:2::2\n' $V4 $V6 | batch "$rt"
	printf 'route replace 10.0.1.0/24 via 10.0.2.1 src %s\nroute replace fd00:1::/64 via fd00:2::1 src %s\n' $V4 $V6 | batch "$sv"
	want_ok "router's IPsec" batch "$rt" <"$TMP/batch.rt" && want_ok "server's IPsec" batch "$sv" <"$TMP/batch.sv"
}
no_ipsec() {
	local n
	for n in "$rt" "$sv"; do printf 'xfrm state flush\nxfrm policy flush\n' | batch "$n"; done
}
esp() {
	local a=$V4 before
	ipsec "$1" || return
	[ "$1" = 4 ] || a=$V6
	# what comes out of the tunnel arrives a second time, decrypted
	SEEN='' rules || return
	before=$(esp_in)
	bypass_all "$a"
	want_ge "ESP packets at the server" $(($(esp_in) - before)) 60
	no_ipsec
}
esp_in() { ipn "$sv" -s xfrm state | awk '/lifetime current/ { getline; sub(/.*, /, ""); n += $1 } END { print n + 0 }'; }
tcase "IPsec tunnel mode, IPv4"                 esp 4
tcase "IPsec tunnel mode, IPv6"                 esp 6

cleartext() { # answers of a flow that has to come through IPsec come without
	local a=$V4
	ipsec "$1" || return
	[ "$1" = 4 ] || a=$V6
	SEEN='' rules && clear_counters "udp sport 5000 meta ipsec missing" || return
	conv_open x "$cl" udp "$a" || { no_ipsec; return; }
	conv_ok x echo 50
	fast_echo
	# the server's end does not encrypt any more
	ipn "$sv" xfrm policy deleteall dir out
	forged_stop
	conv_close x
	at "$cl" nft delete table inet clear
	no_ipsec
}
tcase -x "IPsec, cleartext answers are not forwarded, IPv4" cleartext 4
tcase -x "IPsec, cleartext answers are not forwarded, IPv6" cleartext 6

# other_peer FAMILY [SELECTOR]: what the server sends to the LAN goes through another SA from now on, which the
# router has for somebody else: for packets with that selector
other_peer() {
	local l=10.0.2.1 r=10.0.2.2 lan=10.0.1.0/24 far=$V4/32 sa
	[ "$1" = 4 ] || l=fd00:2::1 r=fd00:2::2 lan=fd00:1::/64 far=$V6/128
	sa="xfrm state add src $r dst $l proto esp spi 0x301 reqid 3 mode tunnel enc cbc(aes) ${KEY1:0:34} auth hmac(sha1) $KEY2"
	echo "$sa ${2:-}" | batch "$rt" && echo "$sa" | batch "$sv" &&
		echo "xfrm policy update src $far dst $lan dir out tmpl src $r dst $l proto esp reqid 3 mode tunnel" | batch "$sv"
}
xfrm_stat() { at "$rt" awk '{ n += $2 } END { print n }' /proc/net/xfrm_stat; }
# dec_counters: of what comes out of IPsec, and of answers at the client. A table of the router's starts a new
# generation of rules: before the conversation, which has to be fast.
dec_counters() {
	at "$cl" nft -f - <<-END
		table inet clear {
			counter got { }
			chain in {
				type filter hook input priority 0;
				udp sport 5000 counter name got
			}
		}
	END
	at "$rt" nft -f - <<-END
		table netdev dec {
			counter got { }
			chain in {
				type filter hook ingress device ${1:-wan} priority -500;
				udp sport 5000 meta ipsec exists counter name got
			}
		}
	END
}
decrypted() { at "$rt" nft list counter netdev dec got | awk '$1 == "packets" { print $2 }'; }
all_decrypted() { [ $(($(decrypted) - DECRYPTED)) -ge 50 ]; }
fast_echo() { # fast in both directions
	counters_zero
	conv_ok x echo 50
	counters
	want_le "of 100 packets, seen by the forward chain" "$FORWARDED" 4
}
# none_forwarded: 50 answers come through the SA of the other peer; none of them arrives at the client, and
# each is refused once
none_forwarded() {
	local n a
	n=$(xfrm_stat) a=$(got "$cl" inet) DECRYPTED=$(decrypted)
	conv_ok x send 50
	busywait $((3000 * SLOW)) all_decrypted || fail "of 50 packets of the other peer, $(($(decrypted) - DECRYPTED)) came out of IPsec"
	sleep 0.1
	want_eq "packets of the other peer that were forwarded" $(($(got "$cl" inet) - a)) 0
	want_eq "packets that IPsec refused" $(($(xfrm_stat) - n)) 50
	at "$rt" nft delete table netdev dec
	at "$cl" nft delete table inet clear
}
got() { at "$1" nft list counter "$2" clear got | awk '$1 == "packets" { print $2 }'; }
foreign_sa() { # an authenticated peer sends what is another one's
	local a=$V4 sel="sel src 10.8.0.0/16"
	ipsec "$1" || return
	[ "$1" = 4 ] || a=$V6 sel="sel src fd00:8::/64"
	SEEN='' rules && dec_counters || return
	conv_open x "$cl" udp "$a" || { no_ipsec; return; }
	conv_ok x echo 50
	fast_echo
	want_ok "the other SA" other_peer "$1" "$sel"
	none_forwarded
	conv_close x
	no_ipsec
}
tcase -x "IPsec, another peer's SA does not do, IPv4" foreign_sa 4
tcase -x "IPsec, another peer's SA does not do, IPv6" foreign_sa 6

foreign_clear() { # ... into a connection that has nothing to do with IPsec
	local a=$V4
	ipsec "$1" || return
	no_ipsec
	[ "$1" = 4 ] || a=$V6
	SEEN='' rules && dec_counters || return
	conv_open x "$cl" udp "$a" || return
	conv_ok x echo 50
	fast_echo
	want_ok "the other SA" other_peer "$1"
	none_forwarded
	conv_close x
	no_ipsec
}
tcase -x "IPsec, what comes through it is not part of a connection in the clear, IPv4" foreign_clear 4
tcase -x "IPsec, what comes through it is not part of a connection in the clear, IPv6" foreign_clear 6

interface() { # the same at an xfrm interface, where connections know nothing of IPsec
	ipsec 4 || return
	printf 'xfrm state flush\nxfrm policy flush\n' | batch "$rt"
	ipn "$rt" link add tun type xfrm dev wan if_id 7 2>/dev/null || { no_ipsec; skip "no xfrm interfaces"; return; }
	sed -i 's/^xfrm state.*/& if_id 7/; s/ tmpl/ if_id 7 tmpl/' "$TMP/batch.rt"
	want_ok "router's IPsec" batch "$rt" <"$TMP/batch.rt"
	{ addr_lines tun 10.0.3.1/24 fd00:3::1/64; echo "route replace $V4 dev tun"; } | batch "$rt"
	SEEN='' rules DEVS="lan, tun" WATCH="lan, tun" && dec_counters tun || return
	conv_open x "$cl" udp $V4 || { no_ipsec; return; }
	conv_ok x echo 50
	fast_echo
	want_ok "the other SA" other_peer 4 "sel src 10.8.0.0/16 if_id 7"
	none_forwarded
	conv_close x
	ipn "$rt" link del tun
	ipn "$rt" route replace $V4 via 10.0.2.2
	no_ipsec
}
tcase -x "IPsec, another peer's SA does not do at an xfrm interface" interface

one_way() { # requests go in the clear, answers have to come through IPsec
	ipsec 4 || return
	ipn "$rt" xfrm policy deleteall dir out
	ipn "$sv" xfrm policy deleteall dir in; ipn "$sv" xfrm policy deleteall dir fwd
	SEEN='' rules && clear_counters "udp sport 5000 meta ipsec missing" || return
	conv_open x "$cl" udp $V4 || { no_ipsec; return; }
	conv_ok x echo 50
	fast_echo
	ipn "$sv" xfrm policy deleteall dir out
	forged_stop
	conv_close x
	at "$cl" nft delete table inet clear; at "$rt" nft delete table netdev clear
	no_ipsec
}
tcase -x "IPsec for answers only, those in the clear are not forwarded" one_way

exception() { # what is in the clear by an exception from a policy, until there is none any more
	local sel="src 10.0.1.0/24 dst $V4/32" n
	ipsec 4 || return
	for n in "$rt" "$sv"; do ipn "$n" xfrm state flush; done
	ipn "$sv" xfrm policy flush
	ipn "$rt" xfrm policy deleteall dir fwd; ipn "$rt" xfrm policy deleteall dir in
	# shellcheck disable=SC2086
	want_ok "the rule" ipn "$rt" xfrm policy update $sel dir out priority 20 tmpl src 10.0.2.1 dst 10.0.2.2 proto esp mode tunnel
	want_ok "the exception" ipn "$rt" xfrm policy add src 10.0.1.2/32 dst $V4/32 dir out priority 10
	rules || return
	stream_start $V4 || return
	fast_now
	if [ "$1" = deleted ]; then
		want_ok "no exception" ipn "$rt" xfrm policy delete src 10.0.1.2/32 dst $V4/32 dir out
	else
		want_ok "an exception for a while" ipn "$rt" xfrm policy update src 10.0.1.2/32 dst $V4/32 dir out priority 10 limit time-hard 3
		busywait 2000 fast_sample
	fi
	busywait $(($2 * SLOW)) not_flowing || fail "traffic passes in the clear"
	stop "$SEND" "$SINK"
	no_ipsec
}
tcase -x "IPsec, an exception for a connection in the clear ends" exception deleted 1000
tcase -x "IPsec, an exception for a connection in the clear runs out" exception expired 6000

post_routing() { # a packet leaves through IPsec: rules see it once as itself, with its connection, and once outside
	local a=$V4 drop="chain post { type filter hook postrouting priority 0; oifname wan meta l4proto udp counter name inner; oifname wan meta l4proto esp counter name outer; ct state invalid drop; }; counter inner { }; counter outer { };" inner
	ipsec "$1" || return
	[ "$1" = 4 ] || a=$V6
	SEEN='' rules NAT="$drop" || return
	conv_open x "$cl" udp "$a" || { no_ipsec; return; }
	conv_ok x echo 20
	ct_offloaded -p udp || fail "not offloaded: $(ct_list -p udp)"
	inner=$(posted inner) outer=$(posted outer)
	counters_zero
	conv_ok x echo 50
	counters
	want_le "of 100 packets, seen by the forward chain" "$FORWARDED" 4
	want_le "of 50 packets, seen on their way out" $(($(posted inner) - inner)) 4
	want_ge "of 50 packets, seen outside" $(($(posted outer) - outer)) 50
	conv_close x
	no_ipsec
}
posted() { nft_rt list counter inet t "$1" | awk '$1 == "packets" { print $2 }'; }
tcase -x "IPsec, rules on the way out that drop what is invalid, IPv4" post_routing 4
tcase -x "IPsec, rules on the way out that drop what is invalid, IPv6" post_routing 6

# What goes in and out of IPIP is protected by IPsec in transport mode: the outer packets of the tunnel.
ipip_ipsec() {
	local a=10.0.2.1 b=10.0.2.2 n in out
	tun 2 ipip $V4OUT || return
	no_ipsec
	for n in "$rt" "$sv"; do
		if [ "$n" = "$rt" ]; then out="src $a dst $b" in="src $b dst $a"; else out="src $b dst $a" in="src $a dst $b"; fi
		printf '%s\n' \
			"xfrm state add src $a dst $b proto esp spi 0x201 mode transport enc cbc(aes) ${KEY1:0:34} auth hmac(sha1) $KEY1" \
			"xfrm state add src $b dst $a proto esp spi 0x202 mode transport enc cbc(aes) ${KEY2:0:34} auth hmac(sha1) $KEY2" \
			"xfrm policy add $out proto 4 dir out tmpl $out proto esp mode transport" \
			"xfrm policy add $in proto 4 dir in tmpl $in proto esp mode transport" >"$TMP/batch"
		want_ok "IPsec" batch "$n" <"$TMP/batch" || return
	done
}
# clear_counters: of cleartext in the tunnel that comes to the router, and of answers that come to the client
clear_counters() {
	at "$cl" nft -f - <<-END
		table inet clear {
			counter got { }
			chain in {
				type filter hook input priority 0;
				udp sport 5000 counter name got
			}
		}
	END
	at "$rt" nft -f - <<-END
		table netdev clear {
			counter got { }
			chain in {
				type filter hook ingress device wan priority -500;
				${1:-ip protocol 4} counter name got
			}
		}
	END
}
forged_came() { [ $(($(got "$rt" netdev) - FORGED)) -ge 50 ]; }
# forged_stop: 50 datagrams are answered in the clear, and none of these answers arrives
forged_stop() {
	local n
	n=$(got "$cl" inet) FORGED=$(got "$rt" netdev)
	conv_ok x send 50
	busywait $((3000 * SLOW)) forged_came || fail "of 50 answers in the clear, $(($(got "$rt" netdev) - FORGED)) came to the router"
	sleep 0.1
	want_eq "cleartext packets that were forwarded" $(($(got "$cl" inet) - n)) 0
}
# forged DEVS: answers in IPIP that has to come through IPsec come without
forged() {
	local before
	ipip_ipsec || return
	# (the tunnel is not watched: where a chain is, packets are not picked up below)
	SEEN='' rules DEVS="$1" WATCH="lan" && clear_counters || return
	before=$(esp_in)
	conv_open x "$cl" udp $V4 || { no_ipsec; return; }
	conv_ok x echo 50
	want_ge "ESP packets at the server" $(($(esp_in) - before)) 50
	[ "$FT" != ours ] || [[ $1 = *tun* ]] || busywait $((3000 * SLOW)) follows tun || fail "followed: $(followed)"
	conv_ok x echo 10
	counters_zero
	conv_ok x echo 50
	counters
	want_le "of 100 packets, seen by the forward chain" "$FORWARDED" 4
	# the server's end does not encrypt any more, as somebody who made its packets up would not
	ipn "$sv" xfrm policy deleteall dir out
	forged_stop
	conv_close x
	at "$cl" nft delete table inet clear
	no_ipsec
}
tcase -x "IPIP through IPsec, cleartext is not forwarded" forged "lan, wan"
tcase -x "IPIP through IPsec, cleartext is not forwarded, the tunnel is listed as well" forged "lan, wan, tun"

must_be_secure() { # a tunnel runs in the clear, then a policy says that what comes in it must not
	local sel="src 10.0.2.2 dst 10.0.2.1"
	tun 2 ipip $V4OUT || return
	no_ipsec
	rules || return
	conv_open x "$cl" udp $V4 5000 --timeout 3 || return
	conv_ok x echo 50
	offloaded_line udp 5000 || fail "not offloaded"
	clear_counters
	# shellcheck disable=SC2086
	want_ok "policy" ipn "$rt" xfrm policy add $sel proto 4 dir in tmpl $sel proto esp mode transport
	busywait $((4000 * SLOW)) in_vain || fail "packets in the clear are forwarded"
	forged_stop
	at "$rt" nft delete table netdev clear
	no_ipsec
	conv_ok x drain
	busywait $((4000 * SLOW)) conv_cmd x echo 10 || fail "traffic does not come back"
	[ "$FT" != ours ] || busywait $((4000 * SLOW)) echo_fast || fail "not fast again without the policy"
	conv_close x
	at "$cl" nft delete table inet clear
}
in_vain() { local a; a=$(got "$cl" inet); conv_ok x send 10; sleep 0.2; [ "$(got "$cl" inet)" = "$a" ]; }
echo_fast() { counters_zero; conv_cmd x echo 20 >/dev/null; counters; [ "$FORWARDED" = 0 ]; }
tcase -x "IPIP, an IPsec policy for what comes in is added under traffic" must_be_secure

policy_added() { # a flow runs in the clear, then a policy says it must not
	ipsec 4 || return
	no_ipsec
	rules || return
	stream_start $V4 || return
	want_ok "server's IPsec" batch "$sv" <"$TMP/batch.sv"
	want_ok "router's IPsec" batch "$rt" <"$TMP/batch.rt"
	sleep 0.2
	at "$sv" nft -f - <<-END
		table netdev clear {
			counter got { }
			chain in {
				type filter hook ingress device eth0 priority 0;
				udp dport 6000 meta ipsec missing counter name got
			}
		}
	END
	sleep 0.5
	want_eq "cleartext packets to the server" "$(at "$sv" nft list counter netdev clear got | awk '$1 == "packets" { print $2 }')" 0
	flowing || fail "traffic stopped"
	at "$sv" nft delete table netdev clear
	no_ipsec
	busywait 2000 flowing || fail "traffic does not come back without IPsec"
	stream_end 5000
}
tcase "an IPsec policy is added under traffic"  policy_added

SETUP=setup
run_cases "$@"
