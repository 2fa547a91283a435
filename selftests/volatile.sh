#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Rulesets whose answer changes without a commit: elements of sets that time out, the time of day,
# quotas that run out, limits, conditions on the bytes of a connection. Offloaded flows follow them,
# and stay fast as long as nothing happens; rulesets without them are not asked again.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2
C4=10.0.1.2 C6=fd00:1::2
SOON=2000 # milliseconds until a change is noticed, twice what it should be

setup() {
	lan_wan || return
	at "$rt" sysctl -qw net.netfilter.nf_conntrack_acct=1
	serve "$sv"
}

# table RULES [MORE]: table inet t whose forward chain has these rules after the one that adds flows, and
# more chains and sets. POLICY: what becomes of the rest.
table() {
	local add="meta l4proto { tcp, udp } flow add @f" ft="flowtable f { hook ingress priority 0; devices = { lan, wan }; ${FLAGS:-} }"
	[ "$FT" != none ] || add='' ft=''
	cat <<-END
	table inet t {
		$ft
		${2:-}
		chain forward {
			type filter hook forward priority 0; policy ${POLICY:-accept};
			${FIRST:-}
			$add
			$1
		}
	}
	END
}
load() { client_rules table "$@"; }
set_of() { printf '%s\n' "set guest { type ipv4_addr; flags timeout; }" "set guest6 { type ipv6_addr; flags timeout; }"; }
MEMBERS="ip saddr @guest accept; ip daddr @guest accept; ip6 saddr @guest6 accept; ip6 daddr @guest6 accept; meta l4proto icmp accept;"
# member SECONDS: the client is one
member() {
	nft_rt "add element inet t guest { $C4 timeout $1s }; add element inet t guest6 { $C6 timeout $1s }" || fail "no element"
}
no_member() { ! nft_rt list set inet t guest | grep -q elements && ! nft_rt list set inet t guest6 | grep -q elements; }
# stops: the stream that is fast now ends soon after CMD has succeeded
stops() {
	busywait $((8000 * SLOW)) "$@" || fail "$* does not happen"
	busywait $((SOON * SLOW)) not_flowing || fail "the stream runs on"
	stop "$SEND" "$SINK"
}

# ---- sets

udp_expires() {
	POLICY=drop load "$MEMBERS" "$(set_of)" && member $((4 * SLOW)) || return
	stream_start "$1" || return
	fast_now
	flowing || fail "the stream has ended before its time"
	stops no_member
}
tcase -x "IPv4: UDP ends when its element times out" udp_expires $V4
tcase -x "IPv6: UDP ends when its element times out" udp_expires $V6

# bytes that have come to sv
came() { ipn "$sv" -s -j link show eth0 | jq '.[0].stats64.rx.bytes'; }
tcp_expires() {
	local a
	POLICY=drop load "$MEMBERS" "$(set_of)" && member $((4 * SLOW)) || return
	bypass_of tcp "$1"
	busywait $((8000 * SLOW)) no_member || fail "still there"
	sleep $((SLOW * 3 / 2 + 1))
	a=$(came)
	conv_ok x send 20 1000
	sleep 0.5
	want_le "bytes that have passed" $(($(came) - a)) 2000
	# shellcheck disable=SC2154 # conv_open sets it
	stop "$CONV_PID_x"
	conv_close x
}
# bypass_of PROTO ADDRESS: a conversation x that is fast
bypass_of() {
	conv_open x "$cl" "$1" "$2" || return
	conv_ok x echo 100000
	busywait 2000 offloaded_line "$1" 5000 || fail "not [OFFLOAD]"
	counters_zero
	conv_ok x echo 300000
	counters
	want_le "bytes seen by the forward chain" "$FORWARDED_BYTES" 100000
}
tcase -x "IPv4: TCP ends when its element times out" tcp_expires $V4
tcase -x "IPv6: TCP ends when its element times out" tcp_expires $V6

reached() { # by another way than a rule of the base chain: reached HOW
	local more
	more="$(set_of)
	chain inner { ip saddr @guest counter accept; drop; }"
	load "$1" "$more" && member $((4 * SLOW)) || return
	stream_start $V4 || return
	fast_now
	stops no_member
}
tcase -x "the set is looked at in a chain by jump"          reached "iifname lan jump inner;"
tcase -x "the set is looked at in a chain by goto"          reached "iifname lan goto inner;"
tcase -x "the set is looked at in a chain by a verdict map" reached "iifname vmap { lan : jump inner };"
tcase -x "the set is looked at in a chain by a map of protocols" reached "meta l4proto vmap { udp : goto inner, tcp : accept };"

by_map() { # the element of a verdict map times out itself
	load "ip saddr vmap @says; meta l4proto udp drop;" "map says { type ipv4_addr : verdict; flags timeout; }" || return
	nft_rt "add element inet t says { $C4 timeout $((4 * SLOW))s : accept }" || fail "no element"
	stream_start $V4 || return
	fast_now
	stops no_word
}
no_word() { ! nft_rt list map inet t says | grep -q elements; }
tcase -x "the element of a verdict map times out" by_map

added() { # by what other packets do: an element that stops the flow
	load "icmp type echo-request add @bad { ip saddr }; ip saddr @bad meta l4proto udp drop;" \
		"set bad { type ipv4_addr; size 100; flags dynamic; }" || return
	stream_start $V4 || return
	fast_now
	stops at "$cl" ping -c1 -W1 -q $V4
}
tcase -x "a set that packets add to" added

refreshed() { # the flow's own packets keep its element
	POLICY=drop FIRST="iifname lan update @guest { ip saddr timeout 3s };" load "$MEMBERS" \
		"$(set_of | sed 's/ipv4_addr; flags/ipv4_addr; size 100; flags dynamic,/')" || return
	stream_start $V4 || return
	sleep 5
	nft_rt list set inet t guest | grep -q $C4 || fail "the element has timed out"
	fast_now
	stream_end 1000 0
}
tcase -x "an element that the flow's packets refresh stays" refreshed

# ---- time

until_time() { # until_time CONDITION: as a function of when
	local end
	end=$(($(date +%s) + 5 * SLOW))
	# shellcheck disable=SC2059 # the rule is the format
	load "$(printf "$1" "$(date -d "@$end" "+$2")") accept; meta l4proto udp drop;" || return
	stream_start $V4 || return
	fast_now
	stops past "$end"
}
past() { [ "$(date +%s)" -gt "$1" ]; }
by_hour() {
	[ "$(date +%H%M)" != 2359 ] || sleep 61
	until_time 'meta hour "00:00"-"%s"' %H:%M:%S
}
tcase -x "a window of the day closes" by_hour
tcase -x "a point in time passes"     until_time 'meta time < "%s"' '%F %T'

# ---- quota and limit

# used_up RULES [MORE]: something else uses it up: packets that are never offloaded
used_up() {
	load "$@" || return
	stream_start $V4 || return
	fast_now
	sleep 1.5
	flowing || fail "the stream has ended before its time"
	bg "$cl" ping -q -i 0.002 -s 1000 -c 2000 $V4 >/dev/null
	local p=$!
	stops sleep 0.5
	stop "$p"
}
tcase -x "a quota runs out"        used_up "quota over 50000 bytes drop;"
tcase -x "a quota for what is let through runs out" used_up "quota until 50000 bytes accept; drop;"
tcase -x "a named quota runs out"  used_up "quota name q drop;" "quota q { over 50000 bytes }"
tcase -x "a limit is exceeded"     used_up "limit rate over 1/minute burst 60 packets drop;"
tcase -x "a named limit is exceeded" used_up "limit name l drop;" "limit l { rate over 1/minute burst 60 packets }"

# ---- bytes and packets of the connection

# marked RULES ADDRESS MIN MAX: of 400 datagrams of 1028 bytes, how many leave with mark 0x11
marked() {
	local n
	load "$1" "chain post { type filter hook postrouting priority 10; }" || return
	nft_rt -f - <<-END || { fail "no egress chain"; return; }
	table netdev out {
		counter first { }
		counter rest { }
		chain egress {
			type filter hook egress device "${DEV:-wan}" priority 0;
			meta mark 0x11 meta l4proto udp counter name first
			meta mark 0x22 meta l4proto udp counter name rest
		}
	}
	END
	CNT0=()
	conv_open x "$cl" udp "$2" || return
	conv_ok x echo 400 1000
	counters
	n=$((CNT[first]))
	want_ge "datagrams with mark 0x11" "$n" "$3"
	want_le "datagrams with mark 0x11" "$n" "$4"
	want_eq "datagrams with a mark" $((n + CNT[rest])) 400
	offloaded_line udp 5000 || fail "not [OFFLOAD]: $(ct_list -p udp | head -n1)"
	# fast from there on
	counters_zero
	conv_ok x echo 100 1000
	counters
	want_le "of 200 packets, seen by the forward chain" "$FORWARDED" 10
	conv_close x
}
tcase -x "IPv4: original bytes"             marked "meta mark set 0x22; ct original bytes < 100000 meta mark set 0x11;" $V4 96 98
tcase -x "IPv6: original bytes"             marked "meta mark set 0x22; ct original bytes < 100000 meta mark set 0x11;" $V6 94 97
tcase -x "IPv4: bytes of both directions"   marked "meta mark set 0x22; ct bytes < 200000 meta mark set 0x11;" $V4 96 98
tcase -x "IPv4: original packets, a range"  marked "meta mark set 0x22; ct original packets 20-119 meta mark set 0x11;" $V4 99 101
tcase -x "IPv4: original packets, one"      marked "meta mark set 0x22; ct original packets 77 meta mark set 0x11;" $V4 1 1
reply_bytes() { DEV=lan marked "$@"; }
tcase -x "IPv4: reply bytes"                reply_bytes "meta mark set 0x22; ct reply bytes < 100000 meta mark set 0x11;" $V4 96 98

late() { # a rule far away, and conntrack counts on: fast, and it is noticed
	FLAGS="counter;" load "ct original bytes > 3000000 meta l4proto udp drop;" || return
	RATE=500
	rm -f "$TMP"/sink.*
	bg "$sv" "${PY[@]}" streams sink --port 6000 --ready "$TMP/sink.ready" --out "$TMP/sink.json"
	SINK=$!
	busywait $((9000 * SLOW)) test -e "$TMP/sink.ready" || fail "no sink"
	bg "$cl" "${PY[@]}" streams send $V4 6000 --rate $RATE --size 1000 --out "$TMP/send.json"
	SEND=$!
	busywait $((9000 * SLOW)) streaming || fail "not offloaded"
	fast_now
	busywait $((15000 * SLOW)) not_flowing || fail "the stream runs on"
	stop "$SEND"; sleep 0.2; stop "$SINK"
	want_le "bytes that have passed" $(($(jq .received "$TMP/sink.json") * 1028)) 3001000
	RATE=200
}
tcase -x "bytes, far away, with conntrack counting" late

# ---- what does not change by itself is not asked

# quiet CMD...: with this ruleset, nothing is asked
quiet() {
	local n
	client_rules "$@" || return
	stream_start $V4 || return
	n=$(stat_get flows_asked)
	grep -q "volatile no$" $DEBUGFS/flowtables || fail "$(cat $DEBUGFS/flowtables)"
	counters_zero
	sleep 3
	counters
	want_ge "packets that arrived" "$ARRIVED" $((RATE * 2))
	want_le "packets in the forward chain" "$FORWARDED" 2
	want_eq "flows that were asked" $(($(stat_get flows_asked) - n)) 0
	stream_end 1000 0
}
fw4_like() { # what firewall4 has: a limit for SYN packets at input, for ICMPv6 when forwarding
	cat <<-END
	table inet fw4 {
		flowtable ft { hook ingress priority 0; devices = { lan, wan }; }
		chain input {
			type filter hook input priority filter; policy accept;
			ct state vmap { established : accept, related : accept }
			tcp flags & (fin | syn | rst | ack) == syn jump syn_flood
		}
		chain forward {
			type filter hook forward priority filter; policy drop;
			meta l4proto { tcp, udp } flow offload @ft
			ct state vmap { established : accept, related : accept }
			iifname "lan" jump forward_lan
			iifname "wan" jump forward_wan
		}
		chain syn_flood {
			limit rate 25/second burst 50 packets return
			drop
		}
		chain forward_lan { oifname "wan" counter accept; }
		chain forward_wan {
			icmpv6 type { 128, 129, 1, 3 } limit rate 1000/second counter accept
			meta nfproto ipv6 icmpv6 type { 2 } icmpv6 code no-route limit rate 1000/second accept
		}
	}
	END
}
tcase -o "a ruleset like that of firewall4 is not asked again" quiet fw4_like
tcase -o "a limit at input is not asked for"                   quiet table "" "chain in { type filter hook input priority 0; limit rate over 5/second burst 5 packets drop; }"
below() { # what established connections do not come to
	table "ct state established,related accept; ct state new accept; limit rate 5/second log; drop;"
}
tcase -o "a limit below 'ct state established,related accept'" quiet below
tcase -o "sets without timeouts are not asked for"             quiet table "ip saddr @known accept; drop;" "set known { type ipv4_addr; elements = { $C4 } }"

# shown REASON RULES [MORE]: why it is asked
shown() {
	load "${@:2}" || return
	stream_start $V4 || return
	grep -q "volatile yes ($1)" $DEBUGFS/flowtables || fail "$(cat $DEBUGFS/flowtables)"
	busywait 3000 asked_since "$(stat_get flows_asked)" || fail "not asked"
	stop "$SEND" "$SINK"
}
asked_since() { [ "$(stat_get flows_asked)" -ge $(($1 + 1)) ]; }
tcase -o "debugfs says why: a set"   shown "elements come and go in set guest" "ip daddr @guest accept; ip saddr $C4 accept;" "$(set_of)"
tcase -o "debugfs says why: a limit" shown "limit" "limit rate 5/second counter;"

# ---- many

MANY=2000
many() { # asked about once a second, a few at a time
	local a b i most=0 first p
	ipn "$rt" route replace 10.1.0.0/16 via $C4
	ipn "$rt" -6 route replace fd00:11::/64 via $C6
	at "$sv" nft -f - <<-'END'
		table netdev far {
			chain in {
				type filter hook ingress device eth0 priority 0;
				udp dport 7000-7999 drop
			}
		}
	END
	load "limit rate 5/second counter;" || return
	first=$(stat_get flows_asked)
	bg "$cl" sh -c "while :; do python3 '$HERE/streams.py' wave eth0 $(mac "$rt" lan) --flows $MANY --repeat 3; done"
	p=$!
	busywait $((20000 * SLOW)) flows_above $((MANY * 9 / 10)) || fail "only $(stat_get flows) flows"
	busywait $((5000 * SLOW)) asked_since $((first + MANY / 2)) || fail "nobody is asked"
	a=$(stat_get flows_asked) first=$a
	for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do
		sleep 0.2
		b=$(stat_get flows_asked)
		[ $((b - a)) -le $most ] || most=$((b - a))
		a=$b
	done
	want_ge "flows that were asked in three seconds" $((a - first)) $((MANY / 4))
	want_le "flows that were asked in three seconds" $((a - first)) $((MANY * 5 * SLOW))
	want_le "flows that were asked in a fifth of a second" $most $((MANY * SLOW * 3 / 4))
	stop $p
	at "$sv" nft delete table netdev far
}
flows_above() { [ "$(stat_get flows)" -ge "$1" ]; }
tcase -o "$MANY flows are asked a few at a time" many

SETUP=setup
run_cases "$@"
