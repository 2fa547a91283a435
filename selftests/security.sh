#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What somebody who does not see a connection can do to an offloaded flow, and
# what a router must not forward: made-up RST, FIN and data, frames for others,
# packets that come in where they should not. Each is treated as it is without a
# flowtable, the flow stays fast, and the real end of a connection is still seen.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2
#   made-up segments are sent from eth0 of either end, behind the back of its stack

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2
MASQ="chain post { type nat hook postrouting priority 100; oifname wan masquerade; };"
INVALID="ct state invalid drop;"
# or the router would answer invalid packets to its own address with a RST
MASQ+=" chain in { type filter hook input priority 0; ct state invalid drop; };"
# far from any window that 16 bits and a scale of 7 can describe
ABOVE=50000000,300000000,1000000000,2000000000
FAR=-2000000000,-1000000000,-300000000,-50000000,$ABOVE

setup() {
	lan_wan && serve "$sv"
}
ends() { # frames with RST or FIN that reach either end from now on: counters got_rst, got_fin
	local n
	for n in "$cl" "$sv"; do
		at "$n" nft -f - <<-END
		table netdev got
		delete table netdev got
		table netdev got {
			counter rst { }
			counter fin { }
			chain in {
				type filter hook ingress device eth0 priority 0;
				tcp flags & rst == rst counter name rst
				tcp flags & fin == fin counter name fin
			}
		}
		END
	done
}
got() { at "$1" nft list counter netdev got "$2" | awk '$1 == "packets" { print $2 }'; }

connect() { # connect FROM ADDRESS [ECHO-BYTES]: an offloaded connection; FROM's latest frame is recorded
	local r
	from=$1
	conv_open x "$cl" tcp "$2" || return
	rm -f "$TMP/rec" "$TMP/rec.ready"
	bg "$from" "${PY[@]}" forge record eth0 5000 --ready "$TMP/rec.ready" --out "$TMP/rec"
	r=$!
	busywait $((9000 * SLOW)) test -e "$TMP/rec.ready" || fail "no recorder"
	conv_ok x echo "${3:-400000}"
	conv_ok x echo 10 # nothing is in flight any more, and the last segment is a small one
	[ "$FT" = none ] || busywait $((2000 * SLOW)) offloaded_line tcp 5000 || { fail "not [OFFLOAD]: $(ct_list -p tcp)"; return 1; }
	sleep 0.1 # a delayed acknowledgement
	kill "$r"
	busywait $((3000 * SLOW)) gone "$r"
	[ -s "$TMP/rec" ] || { fail "no frame was recorded"; return 1; }
	ends
	stats_save tcp
}
made_up() { at "$from" "${PY[@]}" forge send eth0 "$TMP/rec" --flags "$@" || fail "forge.py"; }
other() { if [ "$from" = "$cl" ]; then echo "$sv"; else echo "$cl"; fi; }
unharmed() { # the flow is where it was, and fast
	ct_offloaded -p tcp || fail "not [OFFLOAD] any more: $(ct_list -p tcp)"
	[ "$FT" != ours ] || want_eq "flows torn down" "$(stats_diff tcp | grep -c '^teardown')" 0
	counters_zero
	conv_ok x echo 200000
	counters
	want_le "packets in the forward chain" "$FORWARDED" 2
}
ended() { # ended COMMAND STATE: the real end is seen for what it is
	conv_ok x "$1"
	conv_close x
	busywait $((4000 * SLOW)) ended_as "$2" || fail "after $1: $(ct_list -p tcp)"
}
ended_as() { ct_list -p tcp | grep -v OFFLOAD | grep -q " $1 "; }

# blind FROM ADDRESS FLAGS COUNTER [OPTION...]: as many get through as without a flowtable
blind() {
	local what=$4 classic
	FT=none rules FWD="$INVALID" NAT="$MASQ" || return
	FT=none connect "$1" "$2" 50000 || return
	made_up "$3" --seq=$FAR "${@:5}"
	conv_ok x echo 10
	classic=$(got "$(other)" "$what")
	conv_close x
	rules FWD="$INVALID" NAT="$MASQ" || return
	connect "$1" "$2" || return
	made_up "$3" --seq=$FAR "${@:5}"
	conv_ok x echo 10
	want_eq "segments that got through" "$(got "$(other)" "$what")" "$classic"
	unharmed
	ended rst CLOSE
}
tcase -x "IPv4: made-up RSTs from the WAN, any number" via sv blind $V4 R rst
tcase -x "IPv4: made-up RSTs from the LAN, any number" via cl blind $V4 R rst
tcase -x "IPv4: made-up RSTs with ACK"                 via sv blind $V4 RA rst
tcase -x "IPv4: made-up FINs from the WAN, any number" via sv blind $V4 FA fin
tcase -x "IPv4: made-up FINs from the LAN, any number" via cl blind $V4 FA fin
tcase -x "IPv6: made-up RSTs from the WAN, any number" via sv blind $V6 R rst
tcase -x "IPv6: made-up FINs from the LAN, any number" via cl blind $V6 FA fin
via() { local ns=$1 f=$2; shift 2; "$f" "${!ns}" "$@"; }

fin_ack() { # the number is right, what it acknowledges has never been sent
	rules FWD="$INVALID" NAT="$MASQ" || return
	connect "$1" "$V4" || return
	made_up FA --seq=0,0,0 --ack 100000000
	made_up FA --seq=0,0,0 --ack -100000000
	sleep 0.1
	unharmed
	ended fin TIME_WAIT
}
tcase -x "a FIN that acknowledges what was never sent" via sv fin_ack

moved() { # data with made-up numbers first: they must not be believed either
	rules FWD="$INVALID" NAT="$MASQ" || return
	connect "$1" "$2" || return
	local off
	for off in -1000000000 50000000 1000000000; do
		made_up PA --seq=$off,$((off + 100)) --data 100 --ack "${3:-777777777}"
		made_up R --seq=$((off + 200))
	done
	sleep 0.1
	want_eq "RSTs that got through" "$(got "$(other)" rst)" 0
	unharmed
	[ "$FT" != ours ] || want_eq "data out of reach" "$(stats_diff tcp | awk '$1 == "miss.tcp_window" { print $2 }')" 6
	ended rst CLOSE
}
tcase -x "IPv4: made-up data does not pave the way for a RST" via sv moved $V4
tcase -x "IPv6: made-up data does not pave the way for a RST" via cl moved $V6

syn() { # a SYN in the middle of a connection is conntrack's to ignore
	rules FWD="$INVALID" NAT="$MASQ" || return
	connect "$cl" $V4 || return
	made_up S --seq=$FAR
	sleep 0.1
	unharmed
	ended fin TIME_WAIT
}
tcase -x "made-up SYNs" syn

near() { # within the window: may be real, and conntrack's state follows
	rules FWD="$INVALID" NAT="$MASQ" || return
	connect "$1" $V4 || return
	made_up "$2" --seq=0
	busywait $((3000 * SLOW)) ended_as "$3" || fail "after a $2 in the window: $(ct_list -p tcp)"
	[ "$(got "$(other)" "$4")" -ge 1 ] || fail "the $4 did not get through"
	[ "$FT" != ours ] || want_eq "RSTs as reason" "$(stats_diff tcp | awk '$1 == "teardown.rst" { print $2 }')" 1
	conv_close x
}
tcase -x "a RST with the right number, from the LAN, closes" via cl near R CLOSE rst
tcase -x "a RST with the right number, from the WAN, closes" via sv near R CLOSE rst

bulk() { # far ahead of where conntrack saw the connection last: the real end is in the window
	rules FWD="$INVALID" NAT="$MASQ" || return
	at "$rt" sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0
	connect "$cl" "$1" 12000000 || return
	ended "$2" "$3"
	want_ge "${2^^} that got through" "$(got "$sv" "$2")" 1
	at "$rt" sysctl -qw net.netfilter.nf_conntrack_tcp_loose=1
}
tcase -x "IPv4: FIN after 12 MB each way" bulk $V4 fin TIME_WAIT
tcase -x "IPv6: FIN after 12 MB each way" bulk $V6 fin TIME_WAIT
tcase -x "IPv4: RST after 12 MB each way" bulk $V4 rst CLOSE

handed_back() { # idle, back in conntrack's hands: windows are checked again
	rules FWD="$INVALID" NAT="$MASQ" || return
	at "$rt" sysctl -qw net.netfilter.nf_flowtable_tcp_timeout=1
	connect "$sv" "$1" 3000000 || return
	busywait $((9000 * SLOW)) ct_back -p tcp || fail "not handed back: $(ct_list -p tcp)"
	made_up R --seq=$FAR
	made_up FA --seq=$ABOVE
	sleep 0.1
	want_eq "RSTs that got through" "$(got "$cl" rst)" 0
	want_eq "FINs that got through" "$(got "$cl" fin)" 0
	ct_list -p tcp | grep -q ESTABLISHED || fail "not ESTABLISHED: $(ct_list -p tcp)"
	conv_ok x echo 3000000
	conv_close x
	at "$rt" sysctl -qw net.netfilter.nf_flowtable_tcp_timeout=300
}
tcase -x "IPv4: made-up RST and FIN after the flow was handed back" handed_back $V4
tcase -x "IPv6: made-up RST and FIN after the flow was handed back" handed_back $V6

# A grid of made-up segments, compared with what they do without a flowtable: every connection of
# thousands gets its own, and says afterwards what has become of it.
grid() {
	local max buckets
	max=$(sysctl -n net.netfilter.nf_conntrack_max) buckets=$(sysctl -n net.netfilter.nf_conntrack_buckets)
	sysctl -qw net.netfilter.nf_conntrack_buckets=32768 net.netfilter.nf_conntrack_max=65536
	at "$rt" sysctl -qw net.netfilter.nf_conntrack_checksum=0
	# so that each state shows by its timeout as well
	ct_set nf_conntrack_tcp_timeout_close=400 nf_conntrack_tcp_timeout_close_wait=500 nf_conntrack_tcp_timeout_fin_wait=600 \
		nf_conntrack_tcp_timeout_last_ack=700 nf_conntrack_tcp_timeout_time_wait=800 \
		nf_conntrack_tcp_timeout_unacknowledged=900 nf_conntrack_tcp_timeout_max_retrans=1000
	FT=none rules FWD="$INVALID" && thrown "$TMP/plain" "$@" &&
	rules FWD="$INVALID" && thrown "$TMP/ours" "$@" &&
	{ "${PY[@]}" tcpgrid compare "$TMP/plain" "$TMP/ours" >"$TMP/out" 2>&1 || fail "not as without a flowtable"; sed 's/^/# /' "$TMP/out"; }
	at "$rt" sysctl -qw net.netfilter.nf_conntrack_checksum=1
	forget
	sysctl -qw net.netfilter.nf_conntrack_max="$max" net.netfilter.nf_conntrack_buckets="$buckets"
}
thrown() { # thrown FILE [OPTION...]
	"${PY[@]}" tcpgrid run "$cl" "$rt" "$sv" --out "$@" >"$TMP/out" 2>&1 || fail "tcpgrid.py: $(tail -n 3 "$TMP/out")"
	sed 's/^/# /' "$TMP/out"
}
tcase -x "IPv4: a grid of numbers, windows and moments does what it does without a flowtable" grid
tcase -x "IPv6: the same, with right acknowledgements" grid --v6 --quick
tcase -x "IPv4: the same, by packets that the fast path does not look at" grid --quick --odd
tcase -x "IPv6: the same, by packets that the fast path does not look at" grid --v6 --quick --odd

picked_up() { # conntrack never saw the beginning: it checks nothing, and neither do we
	rules FWD="$INVALID" || return
	conv_open x "$cl" tcp $V4 || return
	conv_ok x echo 100000
	forget
	conv_ok x echo 3000000
	offloaded_line tcp 5000 || fail "not [OFFLOAD]: $(ct_list -p tcp)"
	conv_ok x echo 3000000
	ended fin TIME_WAIT
}
tcase -x "a connection that was picked up in the middle" picked_up

SETUP=setup
run_cases "$@"
