# SPDX-License-Identifier: GPL-2.0
# What owners.sh and bench/owners.sh have in common. Behind lib.sh.
# shellcheck shell=bash disable=SC2034,SC2154 # variables are lib.sh's, or for who sources this

link_is_gone() { [ ! -d "/sys/class/net/$1" ]; }

# ended NS LINK: a namespace is given up, and the kernel has begun to take it apart: its end of LINK is gone
ended() {
	ip netns del "$1" && busywait $((20000 * SLOW)) link_is_gone "$2" || fail "namespace $1 does not end"
}

# flowtables_end N: a namespace with N empty flowtables ends, then another one. ELAPSED: milliseconds until
# the kernel takes the other one apart, which it does one after the other.
flowtables_end() {
	local a b i begun
	ns_add a b || return
	ip link add owner-a type veth peer name v netns "$a" && ip link add owner-b type veth peer name v netns "$b" ||
		{ fail "veth"; return 1; }
	{
		echo "table inet t {"
		for ((i = 0; i < $1; i++)); do echo "flowtable f$i { hook ingress priority 0; }"; done
		echo "}"
	} >"$TMP/flowtables"
	want_ok "flowtables" at "$a" nft -f "$TMP/flowtables" || return
	NS=() # those are gone
	ended "$a" owner-a || return
	begun=$(now_ms)
	ended "$b" owner-b || return
	ELAPSED=$(($(now_ms) - begun))
}

# many_flows N: a router of its own with N UDP flows, seen from one side
many_flows() {
	local i max
	max=$(($1 * 2))
	lan_wan || return
	sysctl -qw net.netfilter.nf_conntrack_buckets=$((max > 262144 ? 262144 : max)) net.netfilter.nf_conntrack_max=$max || return
	ipn "$rt" route add 10.1.0.0/16 via 10.0.1.2
	ipn "$rt" -6 route add fd00:11::/64 via fd00:1::2
	at "$sv" nft -f - <<-'END'
		table netdev far {
			chain in {
				type filter hook ingress device eth0 priority 0;
				udp dport 7000-7999 drop
			}
		}
	END
	at "$rt" sysctl -qw net.netfilter.nf_flowtable_udp_timeout=600 net.netfilter.nf_conntrack_udp_timeout=600 \
		net.netfilter.nf_conntrack_udp_timeout_stream=600
	want_ok "rules" rules || return
	for i in 10.0.2.2 10.0.1.2 fd00:2::2 fd00:1::2; do at "$rt" ping -q -c1 $i; done >/dev/null
	for i in 1 2; do
		at "$cl" "${PY[@]}" streams wave eth0 "$(mac "$rt" lan)" --flows "$1" --seed $i
	done
}
conntracks() { at "$rt" conntrack -C; }
offloads() { if [ "$FT" = ours ]; then stat_get flows; else conntracks; fi; }

# events_take N: N times a device of another namespace goes down and up, and gets another MTU. EVENTS:
# median and worst of how long one of these takes, in milliseconds.
events_take() {
	if [ ! -d "/sys/class/net/owner-x" ]; then
		ip link add owner-x type dummy || return
	fi
	EVENTS=$(python3 - "$1" <<-'END'
	import fcntl, socket, struct, sys, time
	SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFMTU, UP = 0x8913, 0x8914, 0x8922, 1
	s, took = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), []
	def do(request, value):
	    begun = time.monotonic()
	    fcntl.ioctl(s, request, struct.pack("16si12x", b"owner-x", value))
	    took.append((time.monotonic() - begun) * 1000)
	for i in range(int(sys.argv[1])):
	    do(SIOCSIFFLAGS, UP)
	    do(SIOCSIFMTU, 1400 + i)
	    do(SIOCSIFFLAGS, 0)
	    time.sleep(0.02)
	took.sort()
	print("%.1f %.1f" % (took[len(took) // 2], took[-1]))
	END
	)
}

# flushes_begin CLIENTS [NS]: ask for flows that are not there, over and over, until flushes_end
flushes_begin() {
	local i ns=${2:-$rt}
	FLUSHES=()
	for ((i = 0; i < $1; i++)); do
		if [ "$FT" = ours ]; then
			bg "$ns" "${PY[@]}" genl hammer 600 mark=0xdeadbeef >>"$TMP/hammer" 2>&1
		else
			bg "$ns" bash -c 'while conntrack -L -m 0xdeadbeef; do :; done' >/dev/null 2>&1
		fi
		FLUSHES+=($!)
	done
	[ "$FT" != ours ] || busywait $((60000 * SLOW)) grep -q begun "$TMP/hammer" || fail "no flush: $(cat "$TMP/hammer")"
}
flushes_end() { stop "${FLUSHES[@]}"; ip link del owner-x 2>/dev/null; }
