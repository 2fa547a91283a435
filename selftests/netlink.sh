#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What the module says of its flows: the operations info-get, table-get, flow-get, stats-get and
# engine-get of the generic netlink family nft_offload (netlink/nft_offload.yaml), against conntrack and
# real traffic.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2
#      and 10.1.0.0/16, fd00:11::/64: made-up senders
#      c2
#   eth0.7 10.0.3.2 -- lan2.7 10.0.3.1
#
# Conversations a (cl, IPv4), b (cl, IPv6) and c (c2, IPv4, tagged) run to sv.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib/hw.sh
. "$(dirname "$0")/lib/hw.sh"

c2=
DEVS="lan, lan2, wan"
MANY=3000
[ "${LANE:-}" != debug ] || MANY=600

setup() {
	lan_wan && ns_add c2 || return
	ip link add lan2 netns "$rt" type veth peer name eth0 netns "$c2" || return
	ipn "$rt" link set lan2 up
	ipn "$c2" link set eth0 up
	ipn "$rt" link add link lan2 lan2.7 type vlan id 7
	ipn "$c2" link add link eth0 eth0.7 type vlan id 7
	addr "$rt" lan2.7 10.0.3.1/24 fd00:3::1/64
	addr "$c2" eth0.7 10.0.3.2/24 fd00:3::2/64 10.0.3.1 fd00:3::1
	ipn "$rt" route add 10.1.0.0/16 via 10.0.1.2
	ipn "$rt" -6 route add fd00:11::/64 via fd00:1::2
	busywait 5000 at "$c2" ping -c1 -W1 -q $V4 || { fail "no way from c2"; return; }
	at "$sv" nft "add table netdev far; add chain netdev far in { type filter hook ingress device eth0 priority 0; }
		add rule netdev far in udp dport 7000-7999 drop"
	serve "$sv"
}
genl() { at "$rt" "${PY[@]}" genl "$@"; }
YNL=${NFT_OFFLOAD_LINUX:-}/tools/net/ynl/pyynl/cli.py
ynl() { at "$rt" python3 "$YNL" --no-schema --spec "$(dirname "$HERE")/netlink/nft_offload.yaml" --output-json "$@"; }
# flows [NAME=VALUE...]: the addresses and ports of the listed flows, sorted
flows() { genl flows "$@" >"$TMP/flows" 2>&1 || fail "flows $*: $(tail -n1 "$TMP/flows")"; jq -r '.orig | "\(.src) \(.dst) \(.sport) \(.dport)"' "$TMP/flows" | sort; }
# listed N ARG...: a dump has exactly N flows, all different
listed() {
	local n=$1; shift
	flows "$@" >"$TMP/listed" || return
	want_eq "flows $*" "$(wc -l <"$TMP/listed")" "$n"
	want_eq "different ones" "$(sort -u "$TMP/listed" | wc -l)" "$n"
}
# conntracks: the same of the entries that conntrack calls offloaded
ct_lines() { ct_list | grep '\[OFFLOAD\]' | grep -oE 'src=[^ ]* dst=[^ ]* sport=[0-9]* dport=[0-9]*' | awk 'NR % 2 { gsub(/[a-z]*=/, ""); print }' | sort; }
talks() {
	local i
	for i in "$@"; do
		case $i in
		a) conv_open a "$cl" "${PROTO:-udp}" $V4 ;;
		b) conv_open b "$cl" "${PROTO:-udp}" $V6 ;;
		c) conv_open c "$c2" "${PROTO:-udp}" $V4 ;;
		esac || return
		conv_ok "$i" echo 50 200
	done
}
hushed() { local i; for i in "$@"; do conv_close "$i"; done; }
refused() { local pat=$1; shift; want_err "$*" "$pat" genl "$@"; }
wave() { at "$cl" "${PY[@]}" streams wave eth0 "$(mac "$rt" lan)" --flows "$1" --seed "$2"; }
waves() { wave "$1" 1; wave "$1" 2; wave "$1" 3; }
index() { ipn "$rt" -j link show "$1" | jq -r '.[0].ifindex'; }

tables() {
	rules "DEVS=$DEVS" FLAGS="counter;" || return
	talks a b c || return
	want_eq "flowtables" "$(genl tables | jq -c '[.nfproto, .table, .flowtable, .flags, .flows_ipv4, .flows_ipv6, .volatile]')" \
		'[1,"t","f",2,2,1,"no"]'
	want_eq "info" "$(genl info | jq -c '[.interface, .flowtables, .flows]')" '[2,1,3]'
	want_eq "version" "$(genl info | jq -r .version)" "$(cat /sys/module/nft_offload/version)"
	local p
	p=$(genl tables | jq .packets_ipv4)
	conv_ok a echo 100 200
	want_ge "packets that software has forwarded more" $(($(genl tables | jq .packets_ipv4) - p)) 190
	nft_rt flush ruleset
	want_eq "flowtables" "$(genl tables)" ""
	want_eq "info" "$(genl info | jq -c '[.flowtables, .flows]')" '[0,0]'
	hushed a b c
}
tcase -o "flowtables, with their traffic" tables

against_conntrack() {
	local n
	rules "DEVS=$DEVS" || return
	talks a b c || return
	waves $MANY
	listed $((MANY + 3)) || return
	ct_lines >"$TMP/conntrack"
	want_eq "conntrack's offloaded entries" "$(wc -l <"$TMP/conntrack")" $((MANY + 3))
	diff "$TMP/listed" "$TMP/conntrack" >"$TMP/diff" || fail "flows and conntrack differ: $(head -n 4 "$TMP/diff" | tr '\n' ' ')"
	n=$(genl count)
	case $n in "flows $((MANY + 3)) "*" same") note "$n" ;; *) fail "count: $n" ;; esac
	genl flush >/dev/null
	listed 0
	hushed a b c
}
tcase -o "all flows, and none twice: as conntrack says" against_conntrack

a_flow() { # PROTO
	local f lan wan
	rules "DEVS=$DEVS" FLAGS="counter;" "NAT=chain post { type nat hook postrouting priority 100; oifname wan masquerade; }" \
		"FWD=ct mark set 0x17;" || return
	at "$rt" sysctl -qw net.netfilter.nf_conntrack_acct=1
	PROTO=$1 talks c || return
	if [ "$1" = udp ]; then conv_ok c echo 400 500; else conv_ok c echo 400000; fi
	lan=$(index lan2.7) wan=$(index wan)
	f=$(genl flows ipv4=10.0.3.2)
	want_eq "one flow" "$(wc -l <<<"$f")" 1
	want_eq "tuples" "$(jq -c '[.orig.src, .orig.dst, .orig.dport, .reply.src, .reply.dst, .reply.sport]' <<<"$f")" \
		"[\"10.0.3.2\",\"$V4\",$PORT,\"$V4\",\"10.0.2.1\",$PORT]"
	want_eq "NAT, mark, zone, tier" "$(jq -c '[.nat, .mark, .zone, .tier]' <<<"$f")" "[1,23,0,1]"
	want_eq "how packets come in" "$(jq -c '[.orig.iif, .orig.hook, .orig.devices, .orig.encap, .reply.iif, .reply.hook]' <<<"$f")" \
		"[$lan,$(index lan2),[$lan,$(index lan2)],{\"ethertype\":33024,\"id\":7},$wan,$wan]"
	want_eq "where they go" "$(jq -c '[.orig.oif, .orig.next_hop, .orig.mac, .orig.mtu, .reply.oif, .reply.next_hop, .reply.mac]' <<<"$f")" \
		"[$wan,\"$V4\",\"$(mac "$sv" eth0)\",1500,$lan,\"10.0.3.2\",\"$(mac "$c2" eth0.7)\"]"
	want_eq "the ruleset has seen both" "$(jq -c '[.orig.ruleset, .reply.ruleset]' <<<"$f")" '[true,true]'
	want_le "age in ms" "$(jq .age <<<"$f")" 60000
	want_le "idle for" "$(jq .orig.idle <<<"$f")" $((5000 * SLOW))
	local l
	l=$(ct_list --orig-src 10.0.3.2 | grep -oE '(packets|bytes)=[0-9]*' | tr -dc '0-9\n' | tr '\n' ' ')
	want_eq "packets and bytes are conntrack's" "$(jq -r '"\(.orig.packets) \(.orig.bytes) \(.reply.packets) \(.reply.bytes) "' <<<"$f")" "$l"
	want_ge "bytes" "$(jq .reply.bytes <<<"$f")" 200000
	# and the other way: what traffic does shows
	sleep 1.2
	want_ge "idle for" "$(genl flows ipv4=10.0.3.2 | jq .orig.idle)" 600
	if [ "$1" = udp ]; then conv_ok c echo 100 500; else conv_ok c echo 50000; fi
	want_ge "bytes more" $(($(genl flows ipv4=10.0.3.2 | jq .reply.bytes) - $(jq .reply.bytes <<<"$f"))) 50000
	hushed c
}
tcase -o "everything about a UDP flow: NAT, VLAN, next hop, counters" a_flow udp
tcase -o "the same about a TCP flow" a_flow tcp

filters() {
	rules "DEVS=$DEVS" "FWD=ip saddr 10.0.1.2 ct mark set 0x1234; ip saddr 10.0.3.2 ct mark set 0x34;" || return
	talks a b c || return
	PROTO=tcp conv_open t "$cl" tcp $V4 && conv_ok t echo 20000
	wave 50 1; wave 50 2
	listed 54
	listed 3 l4proto=17 port=$PORT
	listed 1 l4proto=6
	listed 4 port=$PORT
	listed 0 port=1
	listed 2 ipv4=10.0.1.2
	listed 1 ipv4=10.0.3.0 prefix-len=24
	listed 1 ipv6=fd00:1::2
	listed 53 ifname=lan
	listed 1 ifname=lan2
	listed 1 "ifindex=$(index lan2.7)"
	listed 54 ifname=wan tier=1
	listed 0 tier=3
	listed 2 mark=0x1234
	listed 3 mark=0x34 mark-mask=0xff
	listed 54 nfproto=inet table=t flowtable=f
	refused "ENOENT: there is no such flowtable" flows flowtable=g
	refused "ENODEV: there is no such device" flows ifname=nope
	refused "EINVAL: the prefix is longer than the address" flows ipv4=10.0.0.0 prefix-len=33
	refused "EINVAL: this names one connection" flows source-port=5
	refused "ERANGE\|EINVAL" flows tier=4
	hushed a b c t
}
tcase -o "by address, device, protocol, port, mark, tier and flowtable" filters

port_of() { ct_list "$@" | grep -oE 'sport=[0-9]*' | head -n1 | tr -dc 0-9; }
# one SRC SPORT [DST]: asks about one UDP connection
one() { genl flow l4proto="${L4:-17}" source-ipv4="$1" destination-ipv4="${3:-$V4}" source-port="$2" destination-port="${4:-$PORT}"; }
one_connection() {
	local p
	rules "DEVS=$DEVS" || return
	talks a b || return
	p=$(port_of --orig-src 10.0.1.2)
	want_eq "a's flow" "$(one 10.0.1.2 "$p" | jq -c '[.orig.src, .orig.sport, .tier, .skip]')" "[\"10.0.1.2\",$p,1,null]"
	want_eq "the same, asked about the answers" "$(one $V4 $PORT 10.0.1.2 "$p" | jq -c '[.orig.src, .orig.sport]')" "[\"10.0.1.2\",$p]"
	p=$(ct_list -f ipv6 | grep -oE 'sport=[0-9]*' | head -n1 | tr -dc 0-9)
	want_eq "b's flow" "$(genl flow l4proto=17 source-ipv6=fd00:1::2 destination-ipv6=$V6 "source-port=$p" destination-port=$PORT |
		jq -c '[.orig.src, .orig.sport]')" "[\"fd00:1::2\",$p]"
	refused "ENOENT: there is no such connection" flow l4proto=17 source-ipv4=10.0.1.2 destination-ipv4=$V4 source-port=1 destination-port=2
	refused "ENOENT: there is no such connection" flow l4proto=17 source-ipv4=10.0.1.2 destination-ipv4=$V4 "source-port=$p" destination-port=$PORT zone=7
	refused "EINVAL: a connection has a protocol" flow source-ipv4=10.0.1.2 destination-ipv4=$V4
	refused "EINVAL: a connection is named by" flow l4proto=17 source-ipv4=10.0.1.2 destination-ipv4=$V4 ifname=lan
	hushed a b
}
tcase -o "the flow of one connection" one_connection

# echo_id FAMILY PROTOCOL: the identifier of echoes that are offloaded
echo_id() { ct_list -f "$1" -p "$2" | grep '\[OFFLOAD\]' | grep -oE 'id=[0-9]*' | head -n1 | tr -dc 0-9; }
one_echo() {
	local id
	rules "DEVS=$DEVS" L4="icmp, ipv6-icmp" || return
	at "$cl" ping -q -c 20 -i 0.01 -W 5 $V4 >/dev/null || fail "ping"
	at "$cl" ping -q -c 20 -i 0.01 -W 5 $V6 >/dev/null || fail "ping"
	id=$(echo_id ipv4 icmp)
	want_eq "IPv4, by the request" "$(L4=1 one 10.0.1.2 "$id" $V4 $((8 * 256)) | jq -c '[.orig.src, .tier, .skip]')" '["10.0.1.2",1,null]'
	want_eq "IPv4, by the answer" "$(L4=1 one $V4 "$id" 10.0.1.2 0 | jq -c '[.orig.src, .tier, .skip]')" '["10.0.1.2",1,null]'
	refused "ENOENT: there is no such connection" flow l4proto=1 source-ipv4=10.0.1.2 destination-ipv4=$V4
	id=$(echo_id ipv6 icmpv6)
	want_eq "IPv6" "$(genl flow l4proto=58 source-ipv6=fd00:1::2 destination-ipv6=$V6 "source-port=$id" destination-port=$((128 * 256)) |
		jq -c '[.orig.src, .tier, .skip]')" '["fd00:1::2",1,null]'
}
tcase -o "the flow of echoes, by identifier, type and code" one_echo

# skips REASON NAME=VALUE...: with these rules conversation a is not offloaded, and this is why
skips() {
	local why=$1 f; shift
	rules "$@" || return
	conv_open a "$cl" "${PROTO:-udp}" $V4 || return
	conv_ok a echo 20 200
	[ "${PROTO:-udp}" = udp ] || L4=6
	f=$(L4=$L4 one 10.0.1.2 "$(port_of --orig-src 10.0.1.2)")
	want_eq "why with $*" "$(jq -r .skip <<<"$f")" "$why"
	want_le "asked ms ago" "$(jq -r '.skip_age // 0' <<<"$f")" $((5000 * SLOW))
	hushed a
}
reasons() {
	local L4=17
	skips device_not_listed DEVS=lan2
	skips null "DEVS=$DEVS" "MATCH=udp dport 53"
	skips rewritten "DEVS=$DEVS" "FWD=ip ttl set 5;"
	skips helper "DEVS=$DEVS" "SEEN=${SEEN:-}" \
		"NAT=ct helper h { type \"tftp\" protocol udp; }; chain pre { type filter hook prerouting priority 0; udp dport $PORT ct helper set \"h\"; }"
	nft_rt flush ruleset
	forget
	conv_open a "$cl" udp $V4 || return
	nft_rt "add table t; add chain t c { type filter hook forward priority 0; }; add rule t c ct state new,established counter"
	conv_ok a echo 5 100
	want_err "no flowtable" "ESRCH: there is no flowtable" one 10.0.1.2 "$(port_of --orig-src 10.0.1.2)"
	hushed a
}
tcase -o "why one connection is not offloaded" reasons

tcp_reasons() { # a connection that nobody has answered
	rules "DEVS=$DEVS" || return
	at "$sv" nft "add table ip deaf; add chain ip deaf in { type filter hook input priority 0; }; add rule ip deaf in tcp dport 5999 drop"
	at "$cl" timeout 2 bash -c "exec 3<>/dev/tcp/$V4/5999" 2>/dev/null &
	busywait $((3000 * SLOW)) syn_seen || fail "no SYN"
	want_eq "why" "$(L4=6 one 10.0.1.2 "$(port_of -p tcp --orig-port-dst 5999)" $V4 5999 | jq -r .skip)" tcp_state
	at "$sv" nft delete table ip deaf
	wait $!
}
syn_seen() { [ -n "$(port_of -p tcp --orig-port-dst 5999)" ]; }
tcase -o "a TCP connection that is not established" tcp_reasons

changes() { # a dump says that the list has changed under it
	local out
	rules "DEVS=$DEVS" || return
	waves $MANY
	# 20 milliseconds pass between two parts
	out=$(at "$rt" python3 - "$HERE" "$MANY" <<-'END'
	import subprocess, sys
	sys.path.insert(0, sys.argv[1])
	from genl import FLOW, Genl
	genl, n = Genl(), 0
	for found in genl.get(FLOW):
	    n += 1
	    if n == 100:
	        subprocess.run(["nft", "delete table inet t"], check=True)
	print("changed" if genl.changed else "same", n < int(sys.argv[2]))
	END
	)
	want_eq "a flowtable that went" "$out" "changed True"
}
tcase -o "a flowtable goes while it is listed" changes

under_load() { # dumps do not disturb traffic
	rules "DEVS=$DEVS" || return
	waves $MANY
	stream_start $V4 || return
	local i
	for i in 1 2 3 4 5 6; do
		genl count >"$TMP/count" || fail "$(cat "$TMP/count")"
		grep -q "^flows $((MANY + 1)) .* same" "$TMP/count" || fail "$(cat "$TMP/count")"
	done
	fast_now
	stream_end 1000 0
	note "$(cat "$TMP/count")"
}
tcase -o "dumps under load lose nothing" under_load

counted() {
	local s before
	before=$(stat_get skip.device_not_listed)
	rules DEVS=lan2 || return
	conv_open a "$cl" udp $V4 || return
	conv_ok a echo 20 200
	s=$(genl stats | jq -r 'select(.group == 2 and .name == "device_not_listed") | .count')
	want_ge "refusals for a device that is not listed" $((s - before)) 1
	want_eq "the same in debugfs" "$(stat_get skip.device_not_listed)" "$s"
	hushed a
	rules "DEVS=$DEVS" || return
	talks a || return
	want_eq "all counters" "$(genl stats | jq -r '(["", "skip.", "miss.", "teardown."][.group - 1]) + .name')" "$(cut -d' ' -f1 $DEBUGFS/stats)"
	want_eq "flows" "$(genl stats | jq -r 'select(.name == "flows") | .count')" "$(stat_get flows)"
	hushed a
}
tcase -o "counters are those of debugfs" counted

engines() { # DEVICE: what is said of it
	genl engines | jq -c "select(.ifindex == $(index "$1")) | [.table, .flowtable, .engine, .driver, .rules, .added, .declined, .errno, .text]"
}
hardware() {
	[ -n "${NFT_OFFLOAD_MOCK:-}" ] || { skip "needs mock_hw.ko"; return; }
	local d
	rules || return
	want_eq "without the flag offload" "$(genl engines)" ""
	for d in "$cl eth0" "$rt lan" "$rt wan" "$sv eth0"; do
		# shellcheck disable=SC2086
		offloads $d tx off rx off tso off gso off gro off
	done
	mock ports=lan,wan || return
	DEVS="$DEVS" hw_rules || return
	want_eq "lan" "$(engines lan)" '["t","f","tc","mlx5",0,0,0,null,null]'
	want_eq "lan2" "$(engines lan2)" '["t","f","software",null,0,0,0,null,null]'
	listen "$rt" here
	heavy a udp $V4 || return
	want_eq "lan" "$(engines lan)" '["t","f","tc","mlx5",1,1,0,null,null]'
	want_eq "wan" "$(engines wan)" '["t","f","tc","mlx5",1,1,0,null,null]'
	conv_close a
	wait_told here '.event == "change" and .tier == 3 and .reason == null' 1
	ipn "$rt" neigh replace $V4 lladdr 02:00:00:00:00:77 dev wan nud permanent
	wait_told here '.event == "change" and .reason == "stale"' 1
	ipn "$rt" neigh del $V4 dev wan
	genl flush >/dev/null
	busywait 5000 rules_is 0 || fail "rules: $(cat "$MOCK/rules")"
	want_eq "rules of lan" "$(genl engines | jq -c "select(.ifindex == $(index lan)) | [.rules, .added >= 1, .declined]")" '[0,true,0]'
	# without a newline, which would be part of the name
	printf lan >"$PARAM/refuse_in"
	conv_open a "$cl" udp $V4 || return
	busywait $((15000 * SLOW)) declined_a || fail "lan: $(engines lan)"
	want_eq "what lan's driver said" "$(genl engines | jq -c "select(.ifindex == $(index lan)) | [.errno, .text]")" '[95,"mock_hw: Not from this port"]'
	want_eq "declined at wan" "$(genl engines | jq -c "select(.ifindex == $(index wan)) | [.declined, .errno]")" '[0,null]'
	if [ -e "$YNL" ] && python3 -c 'import yaml' 2>/dev/null; then
		want_eq "by the specification" "$(ynl --dump engine-get | jq -c ".[] | select(.ifindex == $(index lan)) | [.nfproto, .engine, .\"last-errno\"]")" '["inet","tc",95]'
	fi
	conv_close a
	clean
	no_mock
}
declined_a() { conv_cmd a echo 20 1000 >/dev/null; [ "$(genl engines | jq "select(.ifindex == $(index lan)) | .declined")" -ge 1 ]; }
tcase -o "hardware: engines, their rules, and what drivers say" hardware

# listen NS NAME: events of flows go to $TMP/NAME from now on
listen() {
	bg "$1" "${PY[@]}" genl listen 100 >"$TMP/$2" 2>&1
	busywait $((10000 * SLOW)) grep -q listening "$TMP/$2" || fail "no listener: $(cat "$TMP/$2")"
}
# told NAME FILTER: how many events there are for which this jq expression holds
told() { grep '^{' "$TMP/$1" | jq -c "select($2)" | wc -l; }
tells() { [ "$(told "$1" "$2")" -ge "$3" ]; }
wait_told() { busywait $((5000 * SLOW)) tells "$@" || fail "events with $2: $(told "$1" "$2") of $(wc -l <"$TMP/$1"), $(tail -n 1 "$TMP/$1")"; }
events() {
	rules FLAGS="counter;" || return
	at "$rt" sysctl -qw net.netfilter.nf_conntrack_acct=1
	listen "$rt" here
	listen "$cl" there
	talks a b || return
	wait_told here ".event == \"add\" and .orig.src == \"10.0.1.2\" and .orig.dst == \"$V4\" and .tier == 1 and .flowtable == \"f\" and .reason == null" 1
	wait_told here ".event == \"add\" and .orig.src == \"fd00:1::2\" and .reply.src == \"$V6\"" 1
	want_eq "ends" "$(told here '.event == "del"')" 0
	want_eq "flushed" "$(genl flush ipv4=10.0.1.2)" "flows 1"
	wait_told here '.event == "del" and .orig.src == "10.0.1.2" and .reason == "flush" and .orig.packets >= 50' 1
	nft_rt flush ruleset
	wait_told here '.event == "del" and .orig.src == "fd00:1::2" and .reason == "flowtable_delete"' 1
	want_eq "all events" "$(told here true)" 4
	want_eq "in another network namespace" "$(told there true)" 0
	want_eq "lost" "$(grep -c lost "$TMP/here")" 0
	hushed a b
}
tcase -o "events of flows, in their network namespace" events

many_events() { # who misses some knows it
	rules || return
	waves $MANY
	local n
	n=$(genl count | cut -d' ' -f2)
	listen "$rt" here
	genl flush >/dev/null
	listed 0
	busywait $((5000 * SLOW)) quiet || fail "it never ends"
	note "$n flows flushed, $(told here true) events, lost $(grep -c lost "$TMP/here") times"
	want_ge "events" "$(told here '.reason == "flush"')" 10
	[ "$(told here true)" -ge "$n" ] || want_ge "times told that some are lost" "$(grep -c lost "$TMP/here")" 1
}
quiet() { local n; n=$(wc -l <"$TMP/here"); sleep 0.5; [ "$(wc -l <"$TMP/here")" = "$n" ]; }
tcase -o "thousands of events at once" many_events

permission() {
	rules "DEVS=$DEVS" || return
	talks a || return
	local what as="setpriv --reuid=65534 --clear-groups"
	listed 1
	want_eq "from another namespace" "$(at "$cl" "${PY[@]}" genl flows 2>&1)" ""
	command -v setpriv >/dev/null || { hushed a; skip "needs setpriv"; return; }
	for what in info tables flows stats engines "flow l4proto=17"; do
		# shellcheck disable=SC2086
		want_err "$what by nobody" "EPERM" at "$rt" $as "${PY[@]}" genl $what
	done
	if ! $as unshare -Urn true 2>/dev/null; then hushed a; skip "no user namespaces for nobody"; return; fi
	for what in info tables flows engines; do
		# shellcheck disable=SC2086
		want_err "$what by the root of a user namespace that does not own it" "EPERM" \
			at "$rt" $as unshare -Ur "${PY[@]}" genl $what
	done
	want_eq "by the root of a user namespace, in its own" "$($as unshare -Urn "${PY[@]}" genl info 2>&1 | jq -c '[.flowtables, .flows]')" "[0,0]"
	want_eq "flows" "$($as unshare -Urn "${PY[@]}" genl flows 2>&1)" ""
	want_err "counters of the machine" "EPERM" $as unshare -Urn "${PY[@]}" genl stats
	hushed a
}
tcase -o "each network namespace by its own administrator" permission

by_spec() {
	[ -e "$YNL" ] || { skip "needs the kernel's tools/net/ynl (NFT_OFFLOAD_LINUX)"; return; }
	python3 -c 'import yaml' 2>/dev/null || { skip "needs python3-yaml"; return; }
	rules "DEVS=$DEVS" FLAGS="counter;" "NAT=chain post { type nat hook postrouting priority 100; oifname wan masquerade; }" || return
	talks b c || return
	want_eq "info" "$(ynl --do info-get --json '{}' | jq -c '[.interface, .flows]')" '[2,2]'
	want_eq "tables" "$(ynl --dump table-get | jq -c '.[] | [.nfproto, .table, .flags, ."flows-ipv4", ."flows-ipv6"]')" \
		'["inet","t",["counter"],1,1]'
	want_eq "c" "$(ynl --dump flow-get --json '{"ipv4": "10.0.3.0", "prefix-len": 24, "l4proto": 17, "tier": "software"}' |
		jq -c '.[] | [.original."source-ipv4", .original.encapsulation, .tier, .nat, .reply."next-hop-ipv4", .original."next-hop-mac"]')" \
		"[\"10.0.3.2\",[{\"ethertype\":\"0x8100\",\"id\":7}],\"software\",[\"source\"],\"10.0.3.2\",\"$(mac "$sv" eth0)\"]"
	want_eq "b" "$(ynl --dump flow-get --json '{"ipv6": "fd00:1::2"}' | jq -c '.[] | [.original."destination-ipv6", .original."oif"]')" \
		"[\"$V6\",$(index wan)]"
	want_eq "c by its name" "$(ynl --do flow-get --json "{\"l4proto\": 17, \"source-ipv4\": \"10.0.3.2\", \"destination-ipv4\": \"$V4\",
		\"source-port\": $(port_of --orig-src 10.0.3.2), \"destination-port\": $PORT}" | jq -c '.original."source-ipv4"')" '"10.0.3.2"'
	want_eq "stats" "$(ynl --dump stats-get | jq -c '[.[] | select(.group == "skip" and .name == "helper")] | length')" 1
	want_err "no such device" "there is no such device" ynl --dump flow-get --json '{"ifname": "nope"}'
	hushed b c
}
tcase -o "as the YNL specification says" by_spec

SETUP=setup
run_cases "$@"
