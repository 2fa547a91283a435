#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A flowtable with "flags offload", and a NIC that mock_hw.ko plays on the router's devices: it
# takes flow rules as drivers do, and executes them on real frames before they come to our hook.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# The in-tree flowtable is there as a reference only: cases load it themselves.
[ "$FT" = ours ] || skip_all "about our module; rules are compared with those of the in-tree one"
# shellcheck source=lib/hw.sh
. "$HERE/lib/hw.sh"

forwards() { # forwards PROFILE PROTO ADDRESS NAT
	mock ports=lan,wan profile="$1" || return
	NAT=$4 hw_rules || return
	heavy x "$2" "$3" 5000 || { conv_close x; return 1; }
	want_eq "rules" "$(mock_rules)" 2
	by_hardware x 100
	conv_close x
	clean
	want_eq "commands for unknown rules" "$(mock_get unknown)" 0
	want_eq "duplicate rules" "$(mock_get duplicates)" 0
}
tcase "mlx5: IPv4 udp routed"     forwards mlx5 udp $V4 ""
tcase "mlx5: IPv4 udp masquerade" forwards mlx5 udp $V4 "$(masq)"
tcase "mlx5: IPv6 udp masquerade" forwards mlx5 udp $V6 "$(masq)"
tcase "mtk: IPv4 udp masquerade"  forwards mtk udp $V4 "$(masq)"
tcase "mtk: IPv6 udp routed"      forwards mtk udp $V6 ""
tcase "a driver that nobody knows: IPv4 udp masquerade" forwards any udp $V4 "$(masq)"

tcp() { # the payload is compared by the talkers; FIN and RST come to software
	mock ports=lan,wan || return
	NAT="$(masq)" hw_rules || return
	conv_open x "$cl" tcp "$1" || return
	conv_ok x echo 300000
	busywait 5000 in_hw -p tcp || fail "not in hardware: $(ct_list -p tcp | head -n1)"
	local before
	before=$(mock_get forwarded)
	conv_ok x echo 1000000
	want_ge "packets that hardware forwarded" $(($(mock_get forwarded) - before)) 800
	conv_close x
	busywait 8000 rules_is 0 || fail "rules after the connection has ended: $(cat $MOCK/rules)"
	clean
}
tcase "TCP IPv4 masquerade, to its end" tcp $V4
tcase "TCP IPv6 masquerade, to its end" tcp $V6

# ---- what comes out is what software makes of it

frames_of() { # frames_of WHAT SRC DST: through a flow that exists
	local mac n
	mac=$(ipn "$rt" -j link show lan | jq -r '.[0].address')
	n=20; [[ $3 != *:* ]] || n=19
	rm -f "$TMP/ready"
	at "$sv" "${PY[@]}" hwframes catch eth0 5000 "$n" --ready "$TMP/ready" >"$TMP/frames.$1" & local pid=$!
	busywait 8000 test -e "$TMP/ready"
	at "$cl" "${PY[@]}" hwframes send eth0 "$mac" "$2" "$3" 7000 5000
	wait $pid
}
same_frames() { # same_frames PROFILE SRC DST NAT
	mock ports=lan,wan profile="$1" || return
	rules NAT="$4" || return
	conv_open x "$cl" udp "$3" 5000 --sport 7000 || return
	conv_ok x echo 50 1000
	frames_of software "$2" "$3"
	conv_close x
	want_eq "rules in hardware" "$(mock_rules)" 0
	NAT=$4 hw_rules || return
	heavy x udp "$3" 5000 --sport 7000 || { conv_close x; return 1; }
	local before
	before=$(mock_get forwarded)
	frames_of hardware "$2" "$3"
	want_ge "frames that hardware forwarded" $(($(mock_get forwarded) - before)) 19
	want_ge "frames that software let through" "$(wc -l <"$TMP/frames.software")" 19
	cmp -s "$TMP/frames.software" "$TMP/frames.hardware" ||
		fail "frames differ: $(diff "$TMP/frames.software" "$TMP/frames.hardware" | head -n 6)"
	conv_close x
	clean
}
tcase "mlx5: frames as software makes them, IPv4 routed"     same_frames mlx5 10.0.1.2 $V4 ""
tcase "mlx5: frames as software makes them, IPv4 masquerade" same_frames mlx5 10.0.1.2 $V4 "$(masq)"
tcase "mlx5: frames as software makes them, IPv6 masquerade" same_frames mlx5 fd00:1::2 $V6 "$(masq)"
tcase "mtk: frames as software makes them, IPv4 masquerade"  same_frames mtk 10.0.1.2 $V4 "$(masq)"
tcase "mtk: frames as software makes them, IPv6 routed"      same_frames mtk fd00:1::2 $V6 ""

in_vlans() { # in_vlans PROFILE KIND TAG...: KIND frames or intree
	local t=${*: 3:1}
	tagged "${@:3}"
	case $2 in
	frames)	same_frames "$1" 10.0.1.2 $TAGGED "" ;;
	intree)	rules_as_intree "$1" udp $TAGGED vlan ;;
	esac
	ipn "$sv" route del 10.0.1.0/24
	ipn "$rt" link del "r${t##*.}"; ipn "$sv" link del "e${t##*.}"
}
tcase "mlx5: frames as software makes them, VLAN"    in_vlans mlx5 frames 802.1Q.7
tcase "mlx5: frames as software makes them, QinQ"    in_vlans mlx5 frames 802.1ad.100 802.1Q.7
tcase "mlx5: frames as software makes them, two 802.1Q tags" in_vlans mlx5 frames 802.1Q.100 802.1Q.7
tcase "mtk: frames as software makes them, VLAN"     in_vlans mtk frames 802.1Q.7
tcase "mtk: frames as software makes them, two 802.1Q tags" in_vlans mtk frames 802.1Q.100 802.1Q.7

# ---- who has hardware

FTHW="hook ingress priority 0; devices = { lan, wan }; flags offload;"
probe() { # probe: firewall4 asks with nft -c
	mock ports=none || return
	nft_rt add table inet t
	want_err "nft -c without hardware" "Operation not supported" nft_rt -c add flowtable inet t f "{ $FTHW }"
	want_err "without hardware" "Operation not supported" nft_rt add flowtable inet t f "{ $FTHW }"
	want_eq "ports bound" "$(mock_get ports)" 0
	for p in lan wan lan,wan; do
		mock ports=$p || return
		nft_rt add table inet t
		want_ok "nft -c with hardware behind $p" nft_rt -c add flowtable inet t f "{ $FTHW }"
		want_eq "ports bound after nft -c" "$(mock_get ports)" 0
		want_ok "with hardware behind $p" nft_rt add flowtable inet t f "{ $FTHW }"
		want_eq "ports bound, $p" "$(mock_get ports)" "$(tr , '\n' <<<$p | wc -l)"
		nft_rt flush ruleset
		busywait 3000 ports_is 0 || fail "ports still bound: $(mock_get ports)"
	done
	# a driver that fails: nothing of the flowtable stays
	nft_rt add table inet t
	mock_set fail_bind 12; mock_set fail_count -1
	want_err "failing driver" "" nft_rt add flowtable inet t f "{ $FTHW }"
	want_eq "ports bound" "$(mock_get ports)" 0
	mock_set fail_count 0
	want_ok "afterwards" nft_rt add flowtable inet t f "{ $FTHW }"
	clean
}
ports_is() { [ "$(mock_get ports)" = "$1" ]; }
tcase "nft -c tells whether there is hardware" probe

reload() { # a ruleset that replaces itself, on hardware that serves one flowtable at a time
	mock ports=lan,wan exclusive=1 || return
	hw_rules || return
	want_eq "ports bound" "$(mock_get ports)" 2
	hw_rules || return
	busywait 8000 ports_is 2 || fail "ports bound after a reload: $(mock_get ports)"
	heavy x udp $V4 || { conv_close x; return 1; }
	by_hardware x 20
	conv_close x
	clean
}
tcase "a ruleset replaces itself, the driver serves one at a time" reload

half() { # one device without hardware: one direction goes in, and that is not [HW_OFFLOAD]
	mock ports=lan || return
	hw_rules || return
	conv_open x "$cl" udp $V4 || return
	busywait 8000 partly x || fail "not partly in hardware: $(cat "$HW")"
	want_eq "rules" "$(mock_rules)" 1
	not_in_hw -p udp || fail "shown as [HW_OFFLOAD]"
	ct_offloaded -p udp || fail "not shown as [OFFLOAD]"
	conv_ok x echo 50 1000
	conv_close x
	clean
}
partly() { conv_cmd "$1" echo 20 1000 >/dev/null; hw_is flows_partial 1; }
tcase "one device without hardware" half

# ---- books and age

acct() { # conntrack counts every packet once, whoever forwarded it
	mock ports=lan,wan || return
	at "$rt" sysctl -qw net.netfilter.nf_conntrack_acct=1
	NAT="$(masq)" hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	conv_ok x echo 200 1000
	local sent
	# the far end has counted what came and what went
	busywait 6000 totals_are || { sent=$(far); fail "conntrack says $(ct_total), the far end $sent"; }
	in_hw -p udp || fail "not in hardware any more"
	conv_close x
	clean
}
ct_total() { ct_list -p udp --orig-port-dst 5000 | tr ' ' '\n' | awk -F= '/^packets=/ { p = p " " $2 } END { print p }'; }
far() { at "$sv" nft list ruleset | awk '/counter packets/ { p = p " " $(NF - 2) } END { print p }'; }
totals_are() { [ "$(ct_total)" = "$(far)" ]; }
acct_case() {
	at "$sv" nft -f - <<-END
	table inet far {
		chain in { type filter hook input priority 0; udp dport 5000 counter; }
		chain out { type filter hook output priority 0; udp sport 5000 counter; }
	}
	END
	acct
	at "$sv" nft delete table inet far
}
tcase "conntrack counts every packet once" acct_case

keeps() { # software sees nothing of the flow, and it goes on
	mock ports=lan,wan "$@" || return
	at "$rt" sysctl -qw net.netfilter.nf_flowtable_udp_timeout=3
	hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	local before i
	before=$(stat_get teardown.idle)
	for i in 1 2 3 4 5 6; do conv_ok x echo 5 1000; sleep 1; done
	want_eq "flows that were taken for idle" "$(stat_get teardown.idle)" "$before"
	in_hw -p udp || fail "not in hardware any more"
	conv_close x
	busywait 10000 rules_is 0 || fail "idle, and still in hardware"
	at "$rt" sysctl -qw net.netfilter.nf_flowtable_udp_timeout=300
	clean
}
tcase "hardware keeps a flow alive, and lets it go" keeps
tcase "a driver that counts and does not say when keeps a flow alive, and lets it go" keeps no_lastused=1

slow() { # a driver that takes its time for statistics of many flows: the tier answers between two of them
	mock ports=lan,wan || return
	hw_rules || return
	local longest=0 n before end t
	rm -f "$TMP/all"
	at "$cl" "${PY[@]}" traffic parallel tcp $V4 5000 --count 40 --bytes 600000 --timeout 120 \
		--at-end "touch $TMP/all; while [ -e $TMP/all ]; do sleep 0.2; done" >"$TMP/par" & local pid=$!
	busywait 40000 test -e "$TMP/all" && busywait 10000 rules_ge 40 || fail "too few rules: $(mock_rules)"
	n=$(mock_rules)
	before=$(mock_get stats)
	mock_set latency_us 50000
	# Two rounds of questions take 4 seconds at least.
	end=$((SECONDS + 60))
	while [ $(($(mock_get stats) - before)) -lt $((2 * n)) ] && [ $SECONDS -lt $end ]; do
		t=${EPOCHREALTIME/./}
		[ "$(hw_get rules)" -ge 40 ] || fail "rules: $(hw_get rules)"
		t=$(((${EPOCHREALTIME/./} - t) / 1000))
		longest=$((t > longest ? t : longest))
		sleep 0.1
	done
	want_ge "questions" $(($(mock_get stats) - before)) $((2 * n))
	want_le "milliseconds that the tier was busy with $n rules" $longest 2000
	note "longest time $longest ms, $n rules, $((SECONDS + 60 - end)) s"
	mock_set latency_us 0
	rm -f "$TMP/all"
	wait $pid
	grep -q ^ok "$TMP/par" || fail "$(cat "$TMP/par")"
	clean
}
tcase "a slow driver does not keep others waiting" slow

# ---- what ends a rule

ct_delete() {
	mock ports=lan,wan || return
	hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	at "$rt" conntrack -D -p udp >/dev/null 2>&1
	busywait 3000 rules_is 0 || fail "rules: $(cat $MOCK/rules)"
	conv_close x
	clean
}
tcase "conntrack -D" ct_delete

ruleset_change() {
	mock ports=lan,wan || return
	hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	local adds begun took
	adds=$(mock_get adds)
	nft_rt insert rule inet t forward udp dport 4999 drop
	busywait 3000 hw_ge unsettled 1 || fail "the ruleset has changed, and hardware goes on"
	# It is heavy, and need not show that again.
	conv_ok x echo 1 100
	busywait $((1000 * SLOW)) in_hw -p udp || fail "does not come back: $(cat "$HW")"
	want_ge "rules added" "$(mock_get adds)" $((adds + 2))
	nft_rt insert rule inet t forward udp dport 5000 drop; begun=$(now_ms)
	busywait 3000 rules_is 0 || fail "dropped, and still in hardware"
	took=$(($(now_ms) - begun))
	want_le "milliseconds until the rules were gone" $took $((500 * SLOW))
	note "rules gone after $took ms"
	conv_cmd x echo 3 100 >/dev/null && fail "packets still pass"
	conv_close x
	clean
}
tcase "the ruleset changes" ruleset_change

# Policies follow at the end of a transaction, long after its generation is announced: that of elements takes a while.
policy_changes() {
	local i
	mock ports=lan,wan || return
	hw_rules || return
	nft_rt add table inet other
	nft_rt add set inet other s "{ type ipv4_addr; }"
	for i in 1 2 3; do
		heavy x udp $V4 || { conv_close x; return 1; }
		{
			echo "add element inet other s { $(seq -s, -f "10.$i.%.0f.1" 0 255), $(seq -s, -f "10.$((i + 9)).%.0f.1" 0 255) }"
			for ((n = 0; n < 300; n++)); do echo "add element inet other s { 10.$((i + 20)).$((n / 200)).$((n % 200)) }"; done
			echo "chain inet t forward { policy drop; }"
		} >"$TMP/policy.nft"
		want_ok "policy drop" nft_rt -f "$TMP/policy.nft"
		busywait $((3000 * SLOW)) rules_is 0 || fail "policy drop, and still in hardware: $(cat "$HW")"
		conv_cmd x echo 3 100 >/dev/null && fail "packets still pass"
		conv_close x
		nft_rt add chain inet t forward "{ policy accept; }"
	done
	nft_rt delete table inet other
	clean
}
tcase "the policy of a chain changes" policy_changes

# edits N: commits that have nothing to do with forwarded packets, 20 a second: elements of sets that nobody
# on their way looks at, the same rules again, a table of somebody else's
edits() {
	local i
	for ((i = 0; i < $1; i++)); do
		case $((i % 4)) in
		0|2)	echo "add element inet other s { 10.9.$((i / 200)).$((i % 200)) }" ;;
		1)	echo "add element inet t mine { 10.9.$((i / 200)).$((i % 200)) }" ;;
		3)	echo "flush chain inet same c; add rule inet same c udp dport 4998 drop" ;;
		esac
		sleep 0.05
	done | at "$rt" nft -i >/dev/null
}
edited() { # a flow stays in hardware while the ruleset is edited all day
	mock ports=lan,wan || return
	NAT="set mine { type ipv4_addr; }; chain in { type filter hook input priority 0; ip saddr @mine drop; };" hw_rules || return
	nft_rt -f - <<-END
	table inet other { set s { type ipv4_addr; }; chain in { type filter hook input priority 0; ip saddr @s drop; }; }
	table inet same { chain c { type filter hook forward priority 5; udp dport 4998 drop; }; }
	END
	heavy x udp $V4 || { conv_close x; return 1; }
	local before adds n=0 i pid
	before=$(mock_get forwarded) adds=$(mock_get adds)
	edits 120 & pid=$!
	while gone_not $pid; do conv_ok x echo 40 1000; n=$((n + 80)); done
	wait $pid
	# What is not read in time counts as changed: on a debug kernel that has little of a CPU some are not.
	if [ "${LANE:-}" != debug ]; then
		want_ge "of $n packets hardware forwarded" $(($(mock_get forwarded) - before)) $((n * 95 / 100))
		want_le "rules added meanwhile" $(($(mock_get adds) - adds)) 0
	else
		want_ge "of $n packets hardware forwarded" $(($(mock_get forwarded) - before)) $((n / 2))
	fi
	want_ge "commits that changed nothing" "$(hw_get commits_same)" 10
	note "$n packets, $(hw_get commits_same) commits read that changed nothing, $(hw_get commits_other) others"
	# One that has to do with it, in the end.
	nft_rt add rule inet same c udp dport 5000 drop
	busywait 3000 rules_is 0 || fail "dropped, and still in hardware"
	conv_cmd x echo 3 100 >/dev/null && fail "packets still pass"
	conv_close x
	clean
}
gone_not() { kill -0 "$1" 2>/dev/null; }
tcase "commits that have nothing to do with a flow leave it in hardware" edited

elements() { # elements of a set that a rule on the way looks at, also through a verdict map
	mock ports=lan,wan || return
	FWD="udp dport @ports drop; ip daddr vmap @v;" NAT="set ports { type inet_service; }; chain end { drop; };
		map v { type ipv4_addr : verdict; };" hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	nft_rt add element inet t ports "{ 5000 }"
	busywait 3000 rules_is 0 || fail "dropped by a set, and still in hardware"
	conv_cmd x echo 3 100 >/dev/null && fail "packets still pass"
	conv_close x
	nft_rt delete element inet t ports "{ 5000 }"
	heavy y udp $V4 || { conv_close y; return 1; }
	nft_rt add element inet t v "{ 10.0.2.2 : goto end }"
	busywait 3000 rules_is 0 || fail "dropped by a map, and still in hardware"
	conv_close y
	nft_rt delete element inet t v "{ 10.0.2.2 : goto end }"
	clean
}
tcase "elements that have to do with a flow end its rules" elements

own_mind() { # a rule says something else without a commit: flows in hardware are asked, now and then
	mock ports=lan,wan || return
	FWD="icmp type echo-request add @bad { ip saddr }; ip saddr @bad meta l4proto udp drop;" \
		NAT="set bad { type ipv4_addr; size 9; flags dynamic; }" hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	busywait 9000 hw_ge unsettled 1 || fail "not asked"
	busywait 15000 heavier x udp || fail "does not come back: $(cat "$HW")"
	at "$cl" ping -c1 -W1 -q $V4 >/dev/null
	busywait 9000 rules_is 0 || fail "dropped by now, and still in hardware"
	conv_cmd x echo 3 100 >/dev/null && fail "packets still pass"
	conv_close x
	clean
}
tcase "the ruleset says something else by itself" own_mind

neighbour() {
	mock ports=lan,wan || return
	hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	grep -q "in lan.*set(1+0=02424242/00000000)" $MOCK/rules && fail "early"
	ipn "$sv" link set eth0 address 02:42:42:42:42:42
	ipn "$rt" neigh replace 10.0.2.2 lladdr 02:42:42:42:42:42 dev wan nud reachable
	busywait $((5000 * SLOW)) to_new x || fail "rules: $(cat $MOCK/rules)"
	by_hardware x 20
	conv_close x
	clean
}
# The flow stays heavy meanwhile.
to_new() { conv_cmd "$1" echo 20 1000 >/dev/null; grep -q "in lan.*set(1+0=42424242/00000000)\|in lan.*set(1+0=02424242" $MOCK/rules; }
tcase "a neighbour has another address" neighbour

route() {
	mock ports=lan,wan || return
	hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	ipn "$rt" route add blackhole 10.0.2.2/32
	busywait 4000 rules_is 0 || fail "rules: $(cat $MOCK/rules)"
	ipn "$rt" route del blackhole 10.0.2.2/32
	busywait 15000 heavier x udp || fail "does not come back"
	conv_close x
	clean
}
tcase "a route changes" route

gone_device() {
	mock ports=lan,wan || return
	hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	ipn "$rt" link set wan down
	busywait 3000 rules_is 0 || fail "rules: $(cat $MOCK/rules)"
	conv_close x
	ipn "$rt" link set wan up
	addr_again
	heavy x udp $V4 || { conv_close x; return 1; }
	ipn "$rt" link add tmp0 type dummy
	nft_rt "add flowtable inet t f { hook ingress priority 0; devices = { tmp0 }; }" 2>/dev/null
	ipn "$rt" link del tmp0
	nft_rt "delete flowtable inet t f { hook ingress priority 0; devices = { wan }; }" 2>"$TMP/out" || fail "nft: $(cat "$TMP/out")"
	busywait 3000 rules_is 0 || fail "a device has left the flowtable, rules: $(cat $MOCK/rules)"
	want_eq "ports bound" "$(mock_get ports)" 1
	conv_close x
	clean
}
addr_again() {
	ipn "$rt" -6 addr add fd00:2::1/64 dev wan nodad 2>/dev/null
	busywait 5000 at "$cl" ping -c1 -W1 -q 10.0.2.2
}
tcase "a device goes down, and leaves the flowtable" gone_device

deleted() { # under load
	mock ports=lan,wan latency_us=2000 || return
	hw_rules || return
	at "$cl" "${PY[@]}" traffic parallel tcp $V4 5000 --count 40 --bytes 200000 --timeout 60 >"$TMP/par" & local pid=$!
	busywait 15000 rules_ge 20 || fail "too few rules: $(mock_rules)"
	nft_rt flush ruleset
	busywait 5000 rules_is 0 || fail "rules: $(mock_rules)"
	wait $pid
	grep -q ^ok "$TMP/par" || fail "$(cat "$TMP/par")"
	want_eq "commands for unknown rules" "$(mock_get unknown)" 0
}
tcase "the flowtable is deleted under load" deleted

driver_gone() {
	mock ports=lan,wan || return
	hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	want_ok "rmmod" no_mock
	conv_ok x echo 50 1000
	busywait 3000 not_in_hw -p udp || fail "shown as [HW_OFFLOAD] without a driver"
	want_ok "insmod" insmod "$NFT_OFFLOAD_MOCK" ports=lan,wan
	busywait 20000 heavier x udp || fail "the driver is back, and the flow not in hardware: $(cat "$HW")"
	conv_close x
	clean
	want_eq "commands for unknown rules" "$(mock_get unknown)" 0
}
tcase "the driver goes and comes back" driver_gone

# ---- hardware that does not want to

full() { # 8 rules, 12 flows: the heavy ones go in, nobody is asked all the time, nothing is lost
	mock ports=lan,wan capacity=8 || return
	hw_rules || return
	local out
	out=$(at "$cl" "${PY[@]}" traffic parallel tcp $V4 5000 --count 12 --bytes 600000 --timeout 60)
	[ "${out%% *}" = ok ] || fail "$out"
	want_ge "rules at the most" "$(mock_get max_rules)" 8
	want_le "rules at the most" "$(mock_get max_rules)" 8
	want_le "times that hardware was asked in vain" "$(mock_get full)" 20
	hw_ge decline.full 1 || fail "full, and nobody knows"
	clean
}
tcase "the table is full" full

heavier_wins() { # two flows fit: the light ones leave when heavy ones come
	mock ports=lan,wan capacity=2 || return
	hw_rules || return
	heavy a udp $V4 5000 --sport 7001 || { conv_close a; return 1; }
	conv_open b "$cl" udp $V4 5000 --sport 7002 || return
	busywait 20000 heavy_b || fail "the heavy one waits: $(ct_list -p udp)"
	want_ge "swapped" "$(hw_get swapped)" 1
	want_eq "rules" "$(mock_rules)" 2
	conv_close a; conv_close b
	clean
}
heavy_b() { conv_cmd b echo 40 1400 >/dev/null; in_hw -p udp --orig-port-src 7002; }
tcase "a heavier flow takes the place of a lighter one" heavier_wins

refused() { # asked once for each direction, never again
	mock ports=lan,wan || return
	mock_set fail_add 95; mock_set fail_count -1
	hw_rules || return
	conv_open x "$cl" udp $V4 || return
	busywait 8000 refuses x || fail "was not asked"
	local n
	n=$(mock_get refused)
	conv_ok x echo 200 1000
	sleep 2
	conv_ok x echo 200 1000
	want_eq "times asked" "$(mock_get refused)" "$n"
	want_le "times asked" "$n" 3
	not_in_hw -p udp || fail "shown as [HW_OFFLOAD]"
	ct_offloaded -p udp || fail "not shown as [OFFLOAD]"
	conv_close x
	mock_set fail_count 0
	clean
}
refuses() { conv_cmd "$1" echo 20 1000 >/dev/null; [ "$(mock_get refused)" -ge 1 ]; }
tcase "a refused flow is not asked for again" refused

nat66() { # the driver for the PPE knows no IPv6 NAT: not even asked
	mock ports=lan,wan profile=mtk || return
	NAT="$(masq)" hw_rules || return
	conv_open x "$cl" udp $V6 || return
	busywait 8000 declines x decline.unsupported.nat || fail "$(cat "$HW")"
	conv_ok x echo 50 1000
	want_eq "times asked" "$(mock_get refused)" 0
	conv_close x
	clean
}
declines() { conv_cmd "$1" echo 20 1000 >/dev/null; hw_ge "$2" 1; }
tcase "mtk: IPv6 NAT stays with software" nat66

by_dscp() { # one rule cannot give packets different marks: where they depend on the DSCP the flow stays with software
	mock ports=lan,wan || return
	FWD="iifname lan ip dscp ef meta mark set 7;" hw_rules || return
	conv_open x "$cl" udp $V4 || return
	conv_ok x turns 20 100 0 184
	busywait 8000 declines x decline.unsupported.mark || fail "$(cat "$HW")"
	want_eq "times asked" "$(mock_get refused)" 0
	not_in_hw -p udp || fail "shown as [HW_OFFLOAD]"
	ct_offloaded -p udp || fail "not shown as [OFFLOAD]"
	conv_close x
	clean
}
tcase "marks by DSCP stay with software" by_dscp

failing() { # failing WHAT ERRNO COUNT: comes in when it works again; nothing is lost or left
	mock ports=lan,wan || return
	mock_set "fail_$1" "$2"; mock_set fail_count "$3"
	hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	conv_ok x echo 50 1000
	conv_close x
	at "$rt" conntrack -D -p udp >/dev/null 2>&1
	busywait 3000 rules_is 0 || fail "rules: $(cat $MOCK/rules)"
	mock_set fail_count 0
	clean
	want_eq "commands for unknown rules" "$(mock_get unknown)" 0
}
tcase "busy twice"                    failing add 16 2
tcase "input/output error on adding"  failing add 5 2
tcase "full for no reason"            failing add 28 1
tcase "deleting fails"                failing del 5 -1
tcase "statistics fail"               failing stats 5 -1

reset() { # the table is lost: software takes over, then the rules are there again
	mock ports=lan,wan || return
	hw_rules || return
	heavy x udp $V4 || { conv_close x; return 1; }
	echo 1 >$MOCK/reset
	want_eq "rules after the reset" "$(mock_rules)" 0
	conv_ok x echo 50 1000
	busywait 20000 back x || fail "not back: $(cat "$HW")"
	by_hardware x 20
	conv_close x
	clean
	want_eq "commands for unknown rules" "$(mock_get unknown)" 0
}
back() { conv_cmd "$1" echo 20 1000 >/dev/null; rules_is 2 && in_hw -p udp; }
tcase "the engine is reset" reset

# ---- what hardware would get wrong

small_way_out() { # larger packets come in than fit the way out: that direction is for software, which refuses them
	mock ports=lan,wan profile=any || return
	ipn "$rt" link set wan mtu 1400; ipn "$sv" link set eth0 mtu 1400
	hw_rules || return
	conv_open x "$cl" udp $V4 5000 --pmtu dont || return
	busywait 8000 declines x decline.unsupported.mtu || fail "$(cat "$HW")"
	busywait 5000 partly x || fail "not partly in hardware: $(cat "$HW")"
	grep -q "^in wan" $MOCK/rules || fail "rules: $(cat $MOCK/rules)"
	not_in_hw -p udp || fail "shown as [HW_OFFLOAD]"
	# Cut by software.
	conv_ok x echo 5 1440
	conv_close x
	at "$cl" ping -q -c1 -W2 -M "do" -s 1440 $V4 >"$TMP/out" 2>&1 && fail "a packet that does not fit came through"
	ipn "$rt" link set wan mtu 1500; ipn "$sv" link set eth0 mtu 1500
	addr_again
	clean
}
tcase "packets that do not fit the way out are not for hardware" small_way_out

vlan_priority() { # vlan_priority PROFILE: the ruleset sets a priority, the VLAN device a tag's
	mock ports=lan,wan profile="$1" || return
	tagged 802.1Q.7
	ipn "$rt" link set r7 type vlan egress-qos-map 3:5
	NAT="chain prio { type filter hook postrouting priority 0; oifname r7 meta priority set 0x3; }" hw_rules || return
	conv_open x "$cl" udp 10.0.7.2 || return
	case $1 in
	mtk)	busywait 8000 declines x decline.unsupported.pcp || fail "$(cat "$HW")" ;;
	*)	busywait 15000 heavier x udp || fail "not in hardware: $(cat "$HW")"
		grep -q "vlan_push(8100 7 prio 5)" $MOCK/rules || fail "rules: $(cat $MOCK/rules)" ;;
	esac
	conv_close x
	clean
	ipn "$sv" route del 10.0.1.0/24
	ipn "$rt" link del r7; ipn "$sv" link del e7
}
tcase "mlx5: the priority of a VLAN tag is that of the ruleset" vlan_priority mlx5
tcase "mtk: a flow with such a priority stays with software"    vlan_priority mtk

# ---- the rules themselves

dump_rules() { # dump_rules FILE: without what differs from run to run
	sed -E 's/ packets [0-9]+ bytes [0-9]+$//' $MOCK/rules | sort >"$1"
}
# canon FILE: rewrites in one order; without what we add for TTL
canon() {
	awk '{ n = split($0, w, " "); head = ""; acts = ""; k = 0; delete s
		for (i = 1; i <= n; i++) {
			if (w[i] ~ /^(set|add|csum)\(/) { if (w[i] !~ /^add/ && w[i] !~ /^csum/) s[++k] = w[i] }
			else head = head " " w[i]
		}
		m = asort_(s, k); for (i = 1; i <= k; i++) acts = acts " " s[i]
		print head acts }
	function asort_(a, n,  i, j, t) { for (i = 2; i <= n; i++) { t = a[i]; for (j = i - 1; j > 0 && a[j] > t; j--) a[j + 1] = a[j]; a[j + 1] = t } return n }' "$1" | sort
}
rules_as_intree() { # rules_as_intree PROFILE PROTO ADDRESS NAT
	have_intree || return
	local nat=${4#vlan}
	mock ports=lan,wan profile="$1" || return
	NAT=$nat hw_rules || return
	conv_open x "$cl" "$2" "$3" 5000 --sport 7000 || return
	busywait 15000 heavier_or_tcp x "$2" || fail "ours is not in hardware"
	dump_rules "$TMP/rules.ours"
	conv_close x; clean
	nft_rt flush ruleset; unload_ours; load_intree 2>/dev/null || fail "in-tree modules do not load"
	FT=intree NAT=$nat hw_rules && {
		conv_open x "$cl" "$2" "$3" 5000 --sport 7000 &&
			busywait 15000 heavier_or_tcp x "$2" || fail "the in-tree one is not in hardware: $(ct_list -p "$2")"
		dump_rules "$TMP/rules.intree"
		conv_close x
	}
	nft_rt flush ruleset; at "$rt" conntrack -F >/dev/null 2>&1
	busywait 8000 unload_intree; load_ours
	canon "$TMP/rules.ours" >"$TMP/canon.ours"; canon "$TMP/rules.intree" >"$TMP/canon.intree"
	want_eq "rules of ours" "$(wc -l <"$TMP/canon.ours")" 2
	if [[ $4 = vlan ]]; then
		# Known difference: the in-tree rules name no VLAN key, so they match frames of every VLAN.
		grep -q "in wan .* vlan [1-9]" "$TMP/canon.ours" || fail "our rule matches no VLAN"
		sed -E -i 's/ keys [0-9a-f]+//; s/ c?vlan [0-9]+//g' "$TMP/canon.ours" "$TMP/canon.intree"
	fi
	cmp -s "$TMP/canon.ours" "$TMP/canon.intree" ||
		{ sed 's/^/# ours /' "$TMP/canon.ours"; sed 's/^/# tree /' "$TMP/canon.intree"; fail "rules differ"; }
}
heavier_or_tcp() { if [ "$2" = tcp ]; then conv_cmd "$1" echo 60000 >/dev/null; else conv_cmd "$1" echo 20 1000 >/dev/null; fi; in_hw -p "$2"; }
tcase -o "rules as the in-tree flowtable gives them: udp IPv4 masquerade" rules_as_intree mlx5 udp $V4 "$(masq)"
tcase -o "rules as the in-tree flowtable gives them: tcp IPv4 routed"     rules_as_intree mlx5 tcp $V4 ""
tcase -o "rules as the in-tree flowtable gives them: udp IPv6 masquerade" rules_as_intree mlx5 udp $V6 "$(masq)"
tcase -o "rules as the in-tree flowtable gives them: mtk, tcp IPv4 masquerade" rules_as_intree mtk tcp $V4 "$(masq)"

tcase -o "rules as the in-tree flowtable gives them: VLAN"  in_vlans mlx5 intree 802.1Q.7
tcase -o "rules as the in-tree flowtable gives them: mtk, two VLANs" in_vlans mtk intree 802.1Q.100 802.1Q.7

unload_mock() { clean; want_ok "rmmod mock_hw" no_mock; }
tcase "the NIC is unloaded" unload_mock

SETUP=setup
run_cases "$@"
