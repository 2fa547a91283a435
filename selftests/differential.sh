#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The same generated frames, malformed ones included, through three routers: one
# without a flowtable, one with ours, one with the in-tree one. What comes out
# must be the same byte for byte, or differ in a way that has a name
# (oddframes.py has the frames, differential.py the names).
#
#        cl                         rt                            sv
#   raw frames on eth0 ---- lan 10.0.1.1  wan 10.0.2.1 ---- raw frames on eth0
#      10.0.1.2              .10 10.0.4.1  .30 10.0.3.1          10.0.2.2
#      10.0.4.2, VLAN 10     mtu 9000      mtu 1500              10.0.3.2, VLAN 30
#
# Every router has the same addresses, MACs and rules; the destination port says
# whether a connection is routed (7100), SNATed (7200), masqueraded (7300) or
# DNATed (7400). Environment: KSFT_DIFF_SEED, KSFT_DIFF_EXAMPLES (connections per
# group), KSFT_DIFF_ARGS (for differential.py run), KSFT_DIFF_REPLAY (one example
# in JSON, as a failed case shows it: says step by step what goes in and out).

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

SEED=${KSFT_DIFF_SEED:-20260101} EXAMPLES=${KSFT_DIFF_EXAMPLES:-60}

router() { # router LANE: sets cl, rt and sv
	local n d v
	ns_add cl rt sv || return
	ip link add lan netns "$rt" address 02:00:00:00:01:01 mtu 9000 type veth peer name eth0 netns "$cl" address 02:00:00:00:01:02 mtu 9000 &&
		ip link add wan netns "$rt" address 02:00:00:00:02:01 type veth peer name eth0 netns "$sv" address 02:00:00:00:02:02 || return
	router_on "$rt"
	modprobe -q nf_conntrack
	# neither flows nor fragments may go of themselves, nothing may be chosen at random
	at "$rt" sysctl -qw net.netfilter.nf_flowtable_tcp_timeout=600 net.netfilter.nf_flowtable_udp_timeout=600 \
		net.netfilter.nf_conntrack_udp_timeout=600 net.netfilter.nf_conntrack_udp_timeout_stream=600 \
		net.ipv4.ipfrag_time=600 net.netfilter.nf_conntrack_frag6_timeout=600 net.ipv6.auto_flowlabels=0 \
		net.ipv6.conf.all.accept_ra=0 2>/dev/null
	batch "$rt" <<-END || return
		link add link lan name lan.10 type vlan id 10
		link add link wan name wan.30 type vlan id 30
		$(addr_lines lan 10.0.1.1/24 fd00:1::1/64)
		$(addr_lines wan 10.0.2.1/24 fd00:2::1/64)
		$(addr_lines lan.10 10.0.4.1/24 fd00:4::1/64)
		$(addr_lines wan.30 10.0.3.1/24 fd00:3::1/64)
		$(for d in "1 lan 01" "4 lan.10 01" "2 wan 02" "3 wan.30 02"; do
			read -r n d v <<<"$d"
			printf 'neigh replace %s dev '"$d"' lladdr 02:00:00:00:'"$v"':02 nud permanent\n' "10.0.$n.2" "fd00:$n::2"
		done)
	END
	for n in "$cl" "$sv"; do # the ends hear everything and say nothing
		at "$n" sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1
		offloads "$n" eth0 gro off
		at "$n" nft add table netdev deaf
		at "$n" nft add chain netdev deaf in '{ type filter hook ingress device eth0 priority 0; policy drop; }'
		ipn "$n" link set eth0 up
	done
	offloads "$rt" lan gro off
	offloads "$rt" wan gro off
	FT=$1 differential_rules >"$TMP/rules.$1"
	want_ok "ruleset of $1" nft_rt -f "$TMP/rules.$1" || return
	LANES[$1]=$1:$cl:$rt:$sv
}
declare -A LANES=()
differential_rules() {
	local table="flowtable f { hook ingress priority 0; devices = { lan, wan }; }" add="meta l4proto { tcp, udp } flow add @f" p
	if [ "$FT" = none ]; then table='' add=''; fi
	cat <<-END
	table inet watch {
		counter forwarded { }
		counter invalid { }
		chain pre {
			type filter hook prerouting priority -150;
			ct state invalid counter name invalid
		}
		chain forward {
			type filter hook forward priority -10;
			udp dport 7999 accept
			meta l4proto { tcp, udp } counter name forwarded
		}
	}
	table inet t {
		map ports4 { type inet_service : ipv4_addr . inet_service; elements = {
			$(for ((p = 10000; p < 11024; p++)); do echo "$p : 10.0.2.1 . $((p + 20000)),"; done) } }
		map ports6 { type inet_service : ipv6_addr . inet_service; elements = {
			$(for ((p = 10000; p < 11024; p++)); do echo "$p : fd00:2::1 . $((p + 20000)),"; done) } }
		map ports43 { type inet_service : ipv4_addr . inet_service; elements = {
			$(for ((p = 10000; p < 11024; p++)); do echo "$p : 10.0.3.1 . $((p + 20000)),"; done) } }
		map ports63 { type inet_service : ipv6_addr . inet_service; elements = {
			$(for ((p = 10000; p < 11024; p++)); do echo "$p : fd00:3::1 . $((p + 20000)),"; done) } }
		$table
		chain forward { type filter hook forward priority 0; udp dport 7999 accept; $add; }
		chain pre {
			type nat hook prerouting priority -100;
			iifname lan meta l4proto { tcp, udp } th dport 7400 dnat ip to 10.0.2.2:7101
			iifname lan meta l4proto { tcp, udp } th dport 7400 dnat ip6 to [fd00:2::2]:7101
			iifname lan.10 meta l4proto { tcp, udp } th dport 7401 dnat ip to 10.0.3.2:7101
			iifname lan.10 meta l4proto { tcp, udp } th dport 7401 dnat ip6 to [fd00:3::2]:7101
		}
		chain post {
			type nat hook postrouting priority 100;
			oifname { wan, wan.30 } meta l4proto { tcp, udp } th dport 7300 masquerade
			oifname wan ip version 4 meta l4proto { tcp, udp } th dport 7200 snat ip to th sport map @ports4
			oifname wan ip6 version 6 meta l4proto { tcp, udp } th dport 7200 snat ip6 to th sport map @ports6
			oifname wan.30 ip version 4 meta l4proto { tcp, udp } th dport 7200 snat ip to th sport map @ports43
			oifname wan.30 ip6 version 6 meta l4proto { tcp, udp } th dport 7200 snat ip6 to th sport map @ports63
		}
	}
	END
}

RUNS=0
compare() { # compare LANE KNOWN [ARG...]
	local lane=$1 known=$2; shift 2
	# shellcheck disable=SC2086
	python3 "$HERE/differential.py" run "$TMP" "${LANES[none]}" "${LANES[$lane]}" --known "$known" --seed "$SEED" --examples "$EXAMPLES" \
		--serial $((RUNS++ * 2048)) ${KSFT_DIFF_ARGS:-} "$@" || { fail "differential.py"; return 1; }
	mv "$TMP/$lane" "$TMP/$lane.$known"
}
setup() {
	router none || return
	# A flowtable stays with the module that it was made with.
	if [ "$FT" = intree ] || { [ "$FT" = ours ] && intree_loads && unload_ours && load_intree; }; then
		router intree || return
	fi
	if [ "$FT" = ours ]; then load_ours && router ours || return; fi
	if [ -n "${KSFT_DIFF_REPLAY:-}" ]; then
		python3 "$HERE/differential.py" replay "${LANES[none]}" "${LANES[$FT]}" <<<"$KSFT_DIFF_REPLAY"
		exit
	fi
	[ "$FT" != ours ] || compare ours ours || return
	if [ -n "${LANES[intree]:-}" ]; then
		if [ "$FT" = intree ]; then compare intree ours --no-shrink || return; fi
		compare intree all || return
	fi
	# The namespaces go, and with them what the other module still serves.
	cleanup_all
	[ "$FT" != ours ] || unload_intree
}
judged() { # judged LANE.KNOWN GROUP
	local f=$TMP/$1/${2// /_} l
	[ -e "$f.bad" ] || { skip "not measured"; return; }
	while IFS= read -r l; do note "$l"; done <"$f.note"
	[ ! -s "$f.bad" ] || { while IFS= read -r l; do note "$l"; done <"$f.bad"; fail "seed $SEED, see above"; }
}
mapfile -t GROUPS_ < <(python3 "$HERE/differential.py" groups)
for g in "${GROUPS_[@]}"; do tcase -x "$g: frames come out as without a flowtable" judged "$FT.ours" "$g"; done
for g in "${GROUPS_[@]}"; do tcase "$g: the in-tree flowtable differs in known ways only" judged intree.all "$g"; done

if ! python3 -c 'import hypothesis, scapy' 2>/dev/null; then
	rm -rf "$TMP"
	skip_all "needs python3-hypothesis and python3-scapy"
fi
SETUP=setup
run_cases "$@"
