#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The program nft-offload (tools/nft-offload) against the module, conntrack and real traffic: each of its
# commands, what it answers for people and for programs, and its exit status.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2
#
# Conversations a (IPv4) and b (IPv6) run from cl to sv.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2
DEVS="lan, wan"
TOOL=${NFT_OFFLOAD_TOOL:-$(command -v nft-offload)}
[ -x "$TOOL" ] || skip_all "needs nft-offload (NFT_OFFLOAD_TOOL)"

setup() {
	lan_wan && serve "$sv" || return
	at "$rt" sysctl -qw net.netfilter.nf_conntrack_acct=1
}
# tool STATUS ARG...: runs it in the router's namespace. Its output is in $TMP/out, what it says beside that in
# $TMP/err, and the status is to be this.
tool() {
	local status=$1 rc=0; shift
	"$TOOL" -N "$rt" "$@" >"$TMP/out" 2>"$TMP/err" || rc=$?
	want_eq "status of $*" "$rc" "$status" || { note "$(head -n 3 "$TMP/out" "$TMP/err" | tr '\n' ' ')"; return 1; }
}
# says PATTERN [FILE]: that is in the output
says() { grep -qE -- "$1" "$TMP/${2:-out}" || fail "no '$1' in: $(head -n 4 "$TMP/${2:-out}" | tr '\n' '|')"; }
silent() { [ ! -s "$TMP/err" ] || fail "it says: $(cat "$TMP/err")"; }
json() { jq -c "$1" "$TMP/out" 2>&1; }
talks() {
	local i
	for i in "$@"; do
		case $i in
		a) conv_open a "$cl" "${PROTO:-udp}" $V4 ;;
		b) conv_open b "$cl" "${PROTO:-udp}" $V6 ;;
		esac || return
		if [ "${PROTO:-udp}" = udp ]; then conv_ok "$i" echo 50 200; else conv_ok "$i" echo 100000; fi
	done
}
hushed() { local i; for i in "$@"; do conv_close "$i"; done; }

status() {
	rules "DEVS=$DEVS" FLAGS="counter;" || return
	talks a b || return
	tool 0 status -i 0.2
	silent
	says "^nft_offload $(cat /sys/module/nft_offload/version) has 2 of [0-9]+ connections that conntrack knows; software forwards"
	says "^inet t f  +lan,wan +counter +2 +- "
	tool 0 -j status -i 0.2
	want_eq "JSON" "$(json '[.version, .offloaded, (.flowtables[0] | .table, .flows, .counter, .offload, .devices)]')" \
		"[\"$(cat /sys/module/nft_offload/version)\",2,\"t\",2,true,false,[\"lan\",\"wan\"]]"
	# a rate is one
	stream_start $V4 || return
	tool 0 -j status -i 1
	want_ge "packets in a second" "$(json '.flowtables[0].packets_per_second | floor')" $((RATE / 2))
	want_le "packets in a second" "$(json '.flowtables[0].packets_per_second | floor')" $((RATE * 3 / 2))
	stream_end 3000
	nft_rt flush ruleset
	tool 1 status -i 0.1
	says "this network namespace has no flowtable"
	hushed a b
}
tcase -o "status: a sentence, a line for each flowtable, rates" status

flows() {
	local n
	rules "DEVS=$DEVS" FLAGS="counter;" "NAT=chain post { type nat hook postrouting priority 100; oifname wan masquerade; }" || return
	PROTO=tcp talks a && talks b || return
	tool 0 flows
	silent
	says "^tcp 10.0.1.2:[0-9]+ > $V4:$PORT  snat 10.0.2.1:[0-9]+  sw  lan > wan  .*B  age [0-9]+s  idle"
	says "^udp \[fd00:1::2\]:[0-9]+ > \[$V6\]:$PORT  (snat .*)?sw  lan > wan"
	says "^2 flows \("
	tool 0 flows -m -p tcp
	says "^  orig   lan > wan( direct)?  via $V4 $(mac "$sv" eth0) [a-z]+  mtu 1500  .*pkt .*B  idle"
	says "^  reply  wan > lan( direct)?  via 10.0.1.2 $(mac "$cl" eth0) "
	says "^1 flow \("
	tool 0 flows 10.0.1.0/24 --port $PORT --dev lan --tier software --sort bytes
	says "^1 flow "
	tool 0 flows fd00:1::/64 -p udp
	says "^1 flow "
	tool 0 flows -p sctp
	says "^0 flows "
	tool 0 -j flows
	want_eq "JSON" "$(json '[.[] | [.l4proto, .original.src, .original.dport, .tier, .snat]] | sort')" \
		"[[6,\"10.0.1.2\",$PORT,\"software\",true],[17,\"fd00:1::2\",$PORT,\"software\",true]]"
	tool 0 flows --jsonl
	n=$(jq -c .table "$TMP/out" | wc -l)
	want_eq "JSON lines" "$n" 2
	tool 5 flows --flowtable nope
	says "there is no such flowtable" err
	tool 5 flows --dev nope
	says "there is no such device" err
	tool 2 flows 10.0.0.0/33
	hushed a b
}
tcase -o "flows: one a line, filters, JSON" flows

# asked STATUS PATTERN NAME=VALUE...: with these rules why says this of conversation a
asked() {
	local status=$1 pat=$2; shift 2
	rules "$@" || return
	conv_open a "$cl" "${PROTO:-udp}" $V4 || return
	conv_ok a echo 20 200
	tool "$status" why 10.0.1.2 $V4:$PORT
	silent
	says "^${PROTO:-udp} 10.0.1.2:[0-9]+ > $V4:$PORT: $pat"
	hushed a
}
why() {
	local t="tftp"
	asked 0 "offloaded, in software; in flowtable inet t f for [0-9]+s" "DEVS=$DEVS"
	asked 1 "not offloaded, because the device that a direction enters by is not listed in the flowtable \(inet t f has lan\).* \[skip.device_not_listed\]. Add the device" \
		"DEVS=lan"
	asked 1 "not offloaded, because a conntrack helper must see the packets \(the helper is $t\) \[skip.helper\]. Nothing to do" "DEVS=$DEVS" \
		"NAT=ct helper h { type \"$t\" protocol udp; }; chain pre { type filter hook prerouting priority 0; udp dport $PORT ct helper set \"h\"; }"
	asked 1 "not offloaded, because a moment ago packets of the connection were rewritten by rules.* \[skip.rewritten\]. Leave TTL" \
		"DEVS=$DEVS" "FWD=ip ttl set 5;"
	asked 1 "not offloaded, because no packet of it has come to the rule flow add @f \(inet t forward handle [0-9]+\) lately, and rule [0-9]+ accepts packets before. Move the flow rule" \
		"DEVS=$DEVS" "FWD=ct state new,established accept;"
	asked 1 "not offloaded, because no packet of it has come to the rule .* lately: it is idle" "DEVS=$DEVS" "MATCH=udp dport 53"
	tool 5 why 192.0.2.7
	says "conntrack knows no such connection" err
	tool 2 why nobody
	rules "DEVS=$DEVS" || return
	talks a || return
	tool 0 -j why 10.0.1.2
	want_eq "JSON" "$(json '.[0] | [.offloaded, .tier]')" '[true,"software"]'
	hushed a
}
tcase -o "why: offloaded, device, helper, rewritten, accepted before, no rule" why

echoes() {
	local a
	rules "DEVS=$DEVS" L4="icmp, ipv6-icmp" || return
	for a in $V4 $V6; do at "$cl" ping -q -c 20 -i 0.01 -W 5 $a >/dev/null || fail "ping $a"; done
	tool 0 why 10.0.1.2 $V4
	silent
	says "^icmp 10.0.1.2 > $V4: offloaded, in software; in flowtable inet t f for [0-9]+s"
	tool 0 why fd00:1::2 $V6
	says "^icmpv6 fd00:1::2 > $V6: offloaded, in software"
	rules DEVS=lan L4="icmp, ipv6-icmp" || return
	at "$cl" ping -q -c 20 -i 0.01 -W 5 $V4 >/dev/null || fail "ping"
	tool 1 why 10.0.1.2 $V4
	says "^icmp 10.0.1.2 > $V4: not offloaded, because the device .* \[skip.device_not_listed\]"
}
tcase -o "why: echoes" echoes

zones() { # packets of the original direction are in zone 5, those of the other in none
	rules "DEVS=$DEVS" "NAT=chain raw { type filter hook prerouting priority -300; iifname lan ct original zone set 5; }" || return
	talks a || return
	tool 0 why 10.0.1.2 $V4:$PORT
	says "^udp 10.0.1.2:[0-9]+ > $V4:$PORT: offloaded, in software"
	hushed a
}
tcase -o "why: a zone of one direction" zones

nonlocal() { # sockets can be bound to any address
	rules "DEVS=$DEVS" "MATCH=udp dport 53" || return
	at "$rt" sysctl -qw net.ipv4.ip_nonlocal_bind=1 net.ipv6.ip_nonlocal_bind=1
	talks a b || return
	tool 1 why 10.0.1.2 $V4:$PORT
	says "not offloaded, because no packet of it has come to the rule"
	tool 1 why fd00:1::2 "[$V6]:$PORT"
	says "not offloaded, because no packet of it has come to the rule"
	at "$cl" ping -q -c1 10.0.1.1 >/dev/null
	tool 1 why 10.0.1.1
	says "one end of it is this machine"
	at "$rt" sysctl -qw net.ipv4.ip_nonlocal_bind=0 net.ipv6.ip_nonlocal_bind=0
	nft_rt flush ruleset
	forget
	nft_rt "add table t; add chain t c { type filter hook forward priority 0; }; add rule t c ct state new,established counter"
	conv_ok a echo 5 100
	tool 1 why 10.0.1.2 $V4:$PORT
	says "not offloaded, because the module nft_offload has no flowtable here"
	hushed a b
}
tcase -o "why: another's addresses are not those of this machine; no flowtable" nonlocal

local_end() {
	rules "DEVS=$DEVS" "SEEN=" || return
	nft_rt 'add chain inet t in { type filter hook input priority 0; }'
	nft_rt 'add rule inet t in ct state new,established counter'
	at "$cl" ping -q -c1 10.0.1.1 >/dev/null
	tool 1 why 10.0.1.1
	says "icmp 10.0.1.2 > 10.0.1.1: not offloaded, because one end of it is this machine"
}
tcase -o "why: a connection with the router itself" local_end

top() {
	local n
	rules "DEVS=$DEVS" FLAGS="counter;" || return
	talks b && stream_start $V4 || return
	tool 0 top -b -n 2 -d 1
	silent
	says "^[0-9:]{8} UTC  software [1-9][0-9.]* [kM]bit/s  flows 2 \(2 sw\)  0 new, 0 gone in [0-9.]+ s$"
	want_eq "samples" "$(grep -cE "^HOST +RATE +DOWN +UP +BYTES +FLOWS +TIER$" "$TMP/out")" 2
	says "^10.0.1.2 +[1-9][0-9.]* kbit/s +0 bit/s +[1-9][0-9.]* kbit/s +[0-9.]+ k?B +1 +1 sw$"
	says "^fd00:1::2 +0 bit/s +0 bit/s +0 bit/s +[0-9.]+ kB +1 +1 sw$"
	want_eq "hosts, the fastest first" "$(awk '/^(10\.|fd)/ { print $1 }' "$TMP/out" | tr '\n' ' ')" "10.0.1.2 fd00:1::2 10.0.1.2 fd00:1::2 "
	tool 0 -j top -n 1 -d 2
	n=$(json '.entries[] | select(.host == "10.0.1.2") | .up_bytes_per_second | floor')
	want_ge "bytes in a second from the host" "$n" $((RATE * 228 / 2))
	want_le "bytes in a second from the host" "$n" $((RATE * 228 * 3 / 2))
	n=$(json '.software_bytes_per_second | floor')
	want_ge "bytes in a second of the flowtable" "$n" $((RATE * 228 / 2))
	want_eq "JSON" "$(json '[(.flows | .software, .hardware), .consistent, (.entries[1] | .host, (.down_bytes_per_second | floor), .flows.software)]')" \
		'[2,0,true,"fd00:1::2",0,1]'
	tool 0 top -b -f -n 1 -d 0.5
	says "^FLOW +RATE +DOWN +UP +BYTES +AGE +TIER +DEVICES$"
	says "^udp 10.0.1.2:[0-9]+ > $V4:6000 +[1-9].* kbit/s .* sw +lan > wan$"
	tool 0 top -b -n 1 -d 0.1 -s addr -l 1
	want_eq "lines" "$(wc -l <"$TMP/out")" 3
	tool 0 top -b -n 1 -d 0.1 fd00:1::/64 --dev lan -t software
	says "flows 1 \(1 sw\)"
	tool 0 top -b -n 1 -d 0.1 -p sctp
	says "flows 0 \(-\)"
	stream_end 3000
	# nothing comes of what a connection had sent before it was a flow
	tool 0 flush
	conv_ok b echo 5 100
	n=$("$TOOL" -N "$rt" -j top -n 1 -d 0.1 | jq '[.entries[].bytes_per_second // 0] | add | floor')
	want_le "bytes in a second after a flush" "$n" 20000
	tool 5 top -b -n 1 --dev nope
	says "there is no such device" err
	tool 2 top
	says "no terminal that has a screen: nft-offload top -b prints text" err
	rules "DEVS=$DEVS" || return
	conv_ok b echo 50 200
	tool 0 top -b -n 1 -d 0.1
	says "^flows whose bytes nobody counts: 1 \(a flowtable needs the flag counter,"
	says "^fd00:1::2 +- +- +- +- +1 "
	hushed b
}
tcase -o "top: rates of hosts and flows in text and JSON, filters" top

# on_screen [VARIABLE=VALUE...] -- STEP...: top on a terminal of 120 columns; what it wrote is in $TMP/raw
on_screen() {
	local vars=() out
	while [ "$1" != -- ]; do vars+=("$1"); shift; done
	shift
	out=$(env -u NO_COLOR TERM=xterm LC_ALL=C.UTF-8 "${vars[@]}" "${PY[@]}" screen -t $((20 * SLOW)) -o "$TMP/raw" 120x12 "$@" \
		-- "$TOOL" -N "$rt" top -d 0.5 2>&1) || fail "$out"
}
topscreen() {
	rules "DEVS=$DEVS" FLAGS="counter;" || return
	talks b && stream_start $V4 || return
	# the fastest host, its flow, and back; words, keys, sorting
	on_screen -- 'see=^10\.0\.1\.2 +[1-9].*kbit/s .* 1 sw .*█' 'see=^fd00:1::2 ' 'see=sort: rate  \? keys' \
		'key=\r' "see=^udp 10\.0\.1\.2:[0-9]+ > $V4:6000 .*kbit/s" 'see=flows of 10.0.1.2 .Esc: hosts' 'not=fd00' \
		'key=\e' 'see=^fd00:1::2 ' 'key=/fd00' 'see=^/fd00_' 'not=^10\.0' 'key=\r' 'see=filter: fd00' \
		'key=/\e' 'see=^10\.0\.1\.2' 'key=s' 'see=sort: down' 'key=?' 'see=^Keys:' 'key=x' 'see=^HOST' \
		'key=\e[B\e[B\r' 'see=flows of' 'key=q' end=0
	grep -qE $'\033\\[([0-9;]*;)?38;5;[0-9]+(;[0-9;]*)?m' "$TMP/raw" || fail "no colours on a terminal"
	# a signal leaves the terminal as it was, too
	on_screen NO_COLOR=1 -- 'see=^10\.0\.1\.2' term end=0
	! grep -qE $'\033\\[([0-9;]*;)?([34]8;[0-9;]*|[349][0-7])(;[0-9;]*)?m' "$TMP/raw" || fail "colours with NO_COLOR"
	on_screen LC_ALL=C -- 'see=^10\.0\.1\.2 .*#' 'not=█' 'key=\x03' end=0
	stream_end 3000
	hushed b
}
tcase -o "top: on a terminal" topscreen

flush() {
	rules "DEVS=$DEVS" || return
	talks a b || return
	tool 0 flush 10.0.1.2
	says "^1 flow taken down"
	want_eq "flows" "$("$TOOL" -N "$rt" -j flows | jq length)" 1
	tool 0 -j flush
	want_eq "JSON" "$(json .flows)" 1
	tool 0 flush
	says "^0 flows taken down"
	tool 5 flush --dev nope
	hushed a b
}
tcase -o "flush: of one address, of all" flush

doctor() {
	rules "DEVS=$DEVS" FLAGS="counter;" || return
	at "$rt" sysctl -qw net.netfilter.nf_conntrack_acct=1
	tool 0 doctor
	says "ok +nft_offload $(cat /sys/module/nft_offload/version) is loaded"
	says "ok +the in-tree nf_flow_table_inet is not loaded"
	says "ok +flowtable inet t f has the devices lan, wan"
	says "ok +nothing accepts packets before the flow rule \(inet t forward handle"
	says "ok +conntrack counts packets"
	at "$rt" sysctl -qw net.netfilter.nf_conntrack_acct=0
	rules "DEVS=$DEVS" FLAGS="counter;" "FWD=ct state established accept;" || return
	tool 1 doctor
	says "WARN +rules accept packets before they come to the flow rule"
	says "WARN +a flowtable has the flag counter, but conntrack does not count"
	says "> sysctl -w net.netfilter.nf_conntrack_acct=1"
	at "$rt" sysctl -qw net.netfilter.nf_conntrack_acct=1
	nft_rt 'flush ruleset; table ip x { flowtable g { hook ingress priority 0; flags offload; }; }' 2>/dev/null ||
		nft_rt 'flush ruleset; table ip x { flowtable g { hook ingress priority 0; }; }'
	tool 1 doctor
	says "WARN +flowtable ip x g has no devices"
	says "WARN +no rule adds flows to flowtable ip x g"
	nft_rt flush ruleset
	tool 1 -j doctor
	want_eq "JSON" "$(json '[.[] | select(.grade == "warn" and (.text | contains("no flowtable")))] | length')" 1
}
tcase -o "doctor: finds what is wrong" doctor

report() {
	local a b
	rules "DEVS=$DEVS" FLAGS="counter;" || return
	talks a b || return
	tool 0 report
	silent
	for a in versions module settings devices status flowtables hardware counters flows doctor ruleset log; do says "^=== $a\$"; done
	says "It has addresses: nft-offload report --mask replaces them"
	says "^nft-offload: [0-9.]+$"
	says "^module: $(cat /sys/module/nft_offload/version), interface [0-9]+, "
	says "^kernel: $(uname -r) $(uname -m) "
	says "^parameter max_flows: "
	says "^loaded: .*nft_offload"
	says "^net.netfilter.nf_conntrack_acct = 1$"
	says "^[0-9]+: lan +veth +up +1500 "
	says "^inet t f +lan,wan +counter +2 "
	says "^flows_added [1-9]"
	says "^udp 10.0.1.2:[0-9]+ > $V4:$PORT "
	says "^  reply  wan > lan( direct)?  via 10.0.1.2 "
	says "^  ok    nft_offload "
	says "flowtable f \{"
	says "flow add @f"
	tool 0 report --mask
	silent
	says "Other addresses are in place of all"
	says "flow add @f"
	! grep -nE "(^|[^0-9.])(10\.0\.1\.2|10\.0\.2\.2)([^0-9]|$)|fd00:[12]::2|$(mac "$sv" eth0)|$(mac "$cl" eth0)" "$TMP/out" || fail "addresses are there"
	a=$(sed -nE "s/^udp (10\.[0-9.]+):[0-9]+ > 10\..*:$PORT  .*/\1/p" "$TMP/out")
	b=$(sed -nE "s/^udp 10\.[0-9.]+:[0-9]+ > (10\.[0-9.]+):$PORT  .*/\1/p" "$TMP/out")
	# 10.0.1.2 and 10.0.2.2 have the first 22 bits in common
	[ -n "$a" ] && [ "${a%.*.*}" = "${b%.*.*}" ] && [ "$a" != "$b" ] || fail "masked as $a and $b"
	says "^  reply  wan > lan( direct)?  via $a [0-9a-f:]{17} "
	says "^udp \[fd[0-9a-f:]+\]:[0-9]+ > \[fd[0-9a-f:]+\]:$PORT "
	tool 0 -j report --mask
	want_eq "parts in JSON" "$(json 'map(select(.text != "")) | length >= 10')" true
	hushed a b
}
tcase -o "report: all parts, and with masked addresses" report

metrics() {
	rules "DEVS=$DEVS" || return
	talks a || return
	tool 0 metrics
	says '^nft_offload_flows\{family="inet",table="t",flowtable="f"\} 1$'
	says '^# TYPE nft_offload_skip_total counter$'
	says '^# TYPE nft_offload_module_info gauge$'
	! grep -E '^#' "$TMP/out" | grep -vE '^# (HELP .*|TYPE [a-z_]+ (gauge|counter))$' || fail "that is not Prometheus' text format"
	says '^nft_offload_skip_total\{reason="helper"\} '"$(stat_get skip.helper)"'$'
	says '^nft_offload_packets_total\{.*\} [1-9]'
	tool 0 metrics --textfile "$TMP/x.prom"
	[ "$(wc -l <"$TMP/x.prom")" -gt 90 ] || fail "$(wc -l <"$TMP/x.prom") lines"
	want_eq "files" "$(echo "$TMP"/x.prom*)" "$TMP/x.prom"
	tool 6 metrics --textfile /nowhere/x.prom
	hushed a
}
tcase -o "metrics: to standard output, and into a file" metrics

# names FILE [FILTER]: of JSON the names, places in arrays aside
names() { jq -cn "[inputs | ${2:-.} | paths | map(if type == \"number\" then 0 else . end)] | unique | .[]" "$1"; }
# samples FILE: of metrics the kinds, and the names with those of their labels
samples() { sed -n 's/^# TYPE //p; /^#/d; s/="[^"]*"//g; s/} .*/}/p' "$1" | sort -u; }
# same_names WHAT CMD... FILE: the recorded file has what the output has
same_names() {
	diff <("${@:2:$#-2}" "$TMP/out") <("${@:2:$#-2}" "$HERE/recorded/${!#}") >"$TMP/diff" ||
		fail "$1: recorded/${!#} is not what the program prints (recorded/record.sh): $(grep '^[<>]' "$TMP/diff" | head -n 5 | tr '\n' ' ')"
}
recorded() {
	rules "DEVS=$DEVS" FLAGS="counter;" || return
	talks a b || return
	tool 0 -j metrics
	# Hardware is not here, but in the recording.
	same_names "JSON of metrics" no_hardware metrics.json
	want_eq "counters are there" "$(json '[.connections > 1, (.counters | length) > 90, .hardware, .flowtables[0].flows]')" "[true,true,[],2]"
	tool 0 -j reasons
	same_names "reasons" names reasons.json
	tool 0 flows --jsonl
	same_names "flows" names flows.jsonl
	tool 0 metrics
	same_names "metrics" plain_samples metrics.prom
	hushed a b
}
no_hardware() { names "$1" '.hardware = []'; }
plain_samples() { samples "$1" | grep -vE '^nft_offload_(hw_|flows_waiting).*\{'; }
tcase -o "the recorded output, by which pages are tested, is that of today" recorded

reasons() {
	local n
	tool 0 reasons
	while read -r n _; do
		case $n in *.*) says "^$n\$" ;; esac
	done <$DEBUGFS/stats
	tool 0 reasons skip.helper
	says "A conntrack helper must see the packets."
	tool 0 -j reasons mtu
	want_ge "reasons of this name" "$(json length)" 2
	tool 5 reasons nope
}
tcase -o "reasons: each counter is explained" reasons

permission() {
	local what as="setpriv --reuid=65534 --clear-groups"
	command -v setpriv >/dev/null || { skip "needs setpriv"; return; }
	for what in status flows "why 10.0.1.2" flush doctor metrics "top -b -n 1"; do
		# shellcheck disable=SC2086
		at "$rt" $as "$TOOL" $what >"$TMP/out" 2>"$TMP/err"
		want_eq "status of $what" $? 4
		want_eq "lines of $what" "$(wc -l <"$TMP/err")" 1
		says "^not permitted: this needs CAP_NET_ADMIN" err
	done
	# a report has what there is
	# shellcheck disable=SC2086
	at "$rt" $as "$TOOL" report >"$TMP/out" 2>"$TMP/err"
	want_eq "status of report" $? 4
	says "^not permitted: parts need CAP_NET_ADMIN" err
	says "^kernel: $(uname -r) "
	says "^\(not permitted: needs CAP_NET_ADMIN\)$"
	# what else is not permitted is named
	# shellcheck disable=SC2086
	at "$rt" $as "$TOOL" -N /proc/1/ns/net status >"$TMP/out" 2>"$TMP/err"
	want_eq "status of status in the namespace of init" $? 4
	says "^/proc/1/ns/net: (Permission denied|Operation not permitted)" err
	# shellcheck disable=SC2086
	at "$rt" $as "$TOOL" reasons helper >"$TMP/out" 2>&1 || fail "reasons need no permission"
	if ! $as unshare -Urn true 2>/dev/null; then skip "no user namespaces for nobody"; return; fi
	$as unshare -Urn "$TOOL" status -i 0.1 >"$TMP/out" 2>"$TMP/err"
	want_eq "status of status in a namespace of one's own" $? 1
	says "no flowtable"
}
tcase -o "as an ordinary user: one clear sentence" permission

output() {
	rules "DEVS=$DEVS" || return
	tool 0 doctor
	! grep -q $'\033' "$TMP/out" || fail "colours in a file"
	if command -v script >/dev/null; then
		NO_COLOR=1 TERM=xterm script -qec "$TOOL -N $rt doctor" /dev/null >"$TMP/out" 2>&1
		! grep -q $'\033' "$TMP/out" || fail "colours with NO_COLOR"
		TERM=xterm script -qec "env -u NO_COLOR $TOOL -N $rt doctor" /dev/null >"$TMP/out" 2>&1
		grep -q $'\033' "$TMP/out" || fail "no colours on a terminal"
	fi
	tool 2 nonsense
	"$TOOL" -N nowhere status >"$TMP/out" 2>"$TMP/err"
	want_eq "status in a namespace that is not there" $? 6
	says "/run/netns/nowhere" err
	tool 0 generate bash
	bash -n "$TMP/out" || fail "completions"
	tool 0 generate man
	says '^\.TH nft-offload'
	says '^\.SH "WHY"'
	"$TOOL" --help | grep -q "Exit status" || fail "no exit status in the help"
}
tcase -o "colours, completions and man page" output

# unread ARG...: nobody reads what it prints, which is no error
unread() {
	(
		trap '' PIPE
		# not before the other end is closed
		while echo; do :; done
		"$TOOL" -N "$rt" "$@" 2>"$TMP/err"
		echo $? >"$TMP/rc"
	) 2>/dev/null | true
	want_eq "status of $*, unread" "$(cat "$TMP/rc")" 0
	silent
}
pipes() {
	local out what
	rules "DEVS=$DEVS" || return
	talks a || return
	for what in status flows "flows --jsonl" "why 10.0.1.2" doctor metrics reasons report "top -b -n 3 -d 0.1"; do
		# shellcheck disable=SC2086
		unread $what
	done
	for what in status flows "why 10.0.1.2" doctor reasons report "top -d 0.1" flush; do
		# shellcheck disable=SC2086
		unread -j $what
	done
	unread generate man
	unread generate bash
	out=$("$TOOL" reasons 2>"$TMP/err" | head -n 1; echo "${PIPESTATUS[0]}")
	[[ $out == *.*$'\n'0 ]] || fail "reasons | head: $out"
	silent
	hushed a
}
tcase -o "output that nobody reads" pipes

absent() {
	local top
	rules "DEVS=$DEVS" || return
	nft_rt flush ruleset
	nft_rt 'add table t; add chain t c { type filter hook forward priority 0; }; add rule t c ct state new,established counter'
	conv_open a "$cl" udp $V4 && conv_ok a echo 5 100
	forget
	"$TOOL" -N "$rt" top -b -d 0.2 >"$TMP/top" 2>"$TMP/err" &
	top=$!
	busywait $((10000 * SLOW)) grep -q ^HOST "$TMP/top" || fail "top prints nothing"
	want_ok "unload" unload_ours || return
	wait $top
	want_eq "status of top when the module goes" $? 3
	says "^the module nft_offload is not loaded any more" err
	tool 3 status -i 0.1
	says "^the module nft_offload is not loaded; of .* that conntrack knows, 0 are offloaded"
	tool 3 flows
	says "the module nft_offload is not loaded: modprobe nft_offload" err
	conv_ok a echo 5 100
	tool 3 why 10.0.1.2
	says "^udp 10.0.1.2:.*: not offloaded, because the module nft_offload has no flowtable here"
	tool 1 doctor
	says "WARN +the module nft_offload is not loaded"
	tool 3 flush
	tool 3 top -b
	tool 3 report
	says "^module: \(the module nft_offload is not loaded\)"
	says "^  WARN  the module nft_offload is not loaded"
	want_ok "load" load_ours
	hushed a
}
tcase -o "without the module: what conntrack and nft tell" absent

SETUP=setup
run_cases "$@"
