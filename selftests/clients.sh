#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Rulesets of other programs: firewalld's NftablesFlowtable=, VyOS, a container host (netavark's
# tables, bridge and veths, br_netfilter with it), and several of them on one machine. Those of
# OpenWrt and Kubernetes have tests of their own.
#
#      cl                        rt                            sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1   wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2         fd00:1::1      fd00:2::1         fd00:2::2
#   c1, c2 (containers)          |
#   eth0 10.88.0.N - vethN - podman0 10.88.0.1
#        fd00:88::N            fd00:88::1

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2
c1='' c2='' c3=''

setup() {
	lan_wan && ns_add c1 c2 || return
	# with an address of its own, or it would have another one when a container comes
	{ echo "link add podman0 address 02:88:00:00:00:01 type bridge forward_delay 0 mcast_snooping 0"
	addr_lines podman0 10.88.0.1/16 fd00:88::1/64; } | batch "$rt"
	container c1 2 && container c2 3 && serve "$sv" && serve "$cl"
}
container() { # container VARIABLE NUMBER
	ip link add "veth$2" netns "$rt" type veth peer name eth0 netns "${!1}" || return
	printf '%s\n' "link set veth$2 master podman0 up" "link set veth$2 type bridge_slave hairpin on" | batch "$rt"
	addr_lines eth0 "10.88.0.$2/16" "fd00:88::$2/64" 10.88.0.1 fd00:88::1 | batch "${!1}"
	serve "${!1}"
}

# ---- firewalld

firewalld() { # NftablesFlowtable=$1
	local devices=${1// /, }
	cat <<-END
	table inet firewalld {
		flags owner, persist
		flowtable fastpath { hook ingress priority filter + 10; devices = { $devices }; }
		chain mangle_PREROUTING {
			type filter hook prerouting priority mangle + 10; policy accept;
			jump mangle_PREROUTING_ZONES
		}
		chain mangle_PREROUTING_ZONES { iifname "lan" return; return; }
		chain nat_PREROUTING {
			type nat hook prerouting priority dstnat + 10; policy accept;
			jump nat_PREROUTING_ZONES
		}
		chain nat_PREROUTING_ZONES {
			iifname "wan" goto nat_PRE_external
			iifname "lan" return
		}
		chain nat_PRE_external {
			meta nfproto ipv4 meta l4proto { tcp, udp } th dport 8080 dnat ip to 10.0.1.2:5000
		}
		chain nat_POSTROUTING {
			type nat hook postrouting priority srcnat + 10; policy accept;
			jump nat_POSTROUTING_ZONES
		}
		chain nat_POSTROUTING_ZONES { iifname "lan" oifname "wan" goto nat_POST_external; }
		chain nat_POST_external { meta nfproto ipv4 oifname != "lo" masquerade; }
		chain filter_INPUT {
			type filter hook input priority filter + 10; policy accept;
			ct state { established, related } accept
			ct status dnat accept
			iifname "lo" accept
			ct state invalid drop
		}
		chain filter_FORWARD {
			type filter hook forward priority filter + 10; policy accept;
			${2:-ct state { established, related \}} meta l4proto { tcp, udp } flow add @fastpath
			ct state { established, related } accept
			ct status dnat accept
			iifname "lo" accept
			ct state invalid drop
			jump filter_FORWARD_ZONES
			reject with icmpx admin-prohibited
		}
		chain filter_FORWARD_ZONES {
			iifname "lan" goto filter_FWD_internal
			iifname "wan" goto filter_FWD_external
		}
		chain filter_FWD_internal {
			oifname "wan" accept
			reject with icmpx admin-prohibited
		}
		chain filter_FWD_external {
			meta nfproto ipv6 th dport 5000 accept
			reject with icmpx admin-prohibited
		}
	}
	END
}
fire() { # fire [MATCH]
	# the owner of a table is a process that stays
	client_rules eval "firewalld 'lan wan' '${1:-}' | grep -v 'flags owner'" || return
	bypass_all $V4 $V6
	forget
	FROM=$sv TO=8080 bypass_all 10.0.2.1
	forget
	FROM=$sv bypass_all fd00:1::2
	# what the zones refuse stays refused
	conv_open x "$sv" udp fd00:1::2 5001 --timeout 0.3 && { ! conv_cmd x echo 1 >/dev/null || fail "refused traffic passes"; conv_close x; }
}
tcase "firewalld, NftablesFlowtable=lan wan"    fire
tcase "firewalld, flow rule first and without state" fire " "

owned() { # the table belongs to a process (flags owner, persist); it ends, and the table stays
	local fd
	nft_rt flush ruleset
	mkfifo "$TMP/owner"
	exec {fd}<>"$TMP/owner"
	nsenter --net="/run/netns/$rt" -- nft -i <"$TMP/owner" >"$TMP/owner.out" 2>&1 &
	PIDS+=($!); disown $!
	local owner=$!
	{ watch_tables; firewalld "lan wan" " "; } | sed 's/"//g' >"$TMP/rules"
	echo "include \"$TMP/rules\"" >&$fd
	busywait $((5000 * SLOW)) listed || { skip "nft cannot own a table: $(tail -n1 "$TMP/owner.out")"; return; }
	CNT0=()
	forget
	want_err "somebody else's change" "Operation not permitted" nft_rt flush table inet firewalld
	stream_start $V4 || return
	stop $owner
	exec {fd}>&-
	flowing || fail "traffic stopped with the owner"
	fast_now
	stream_end 3000 0
}
listed() { nft_rt list table inet firewalld | grep -q fastpath; }
tcase "firewalld, the table has an owner, which ends" owned

# ---- VyOS

vyos() { # two tables, one flowtable of the same name in each
	local fam
	for fam in ip ip6; do
		cat <<-END
		table $fam vyos_filter {
			flowtable VYOS_FLOWTABLE_FT01 { hook ingress priority filter; devices = { $1 }; ${2:-} }
			chain VYOS_FORWARD_filter {
				type filter hook forward priority filter; policy accept;
				ct state { established, related } counter flow add @VYOS_FLOWTABLE_FT01 comment "FWD-filter-10"
				ct state { established, related } counter accept comment "FWD-filter-20"
				iifname "lan" counter accept comment "FWD-filter-110"
				counter jump VYOS_STATE_POLICY
				counter drop comment "FWD-filter default-action drop"
			}
			chain VYOS_STATE_POLICY {
				ct state established accept
				ct state invalid counter drop
				return
			}
		}
		table $fam vyos_conntrack {
			chain VYOS_CT_IGNORE { return; }
			chain VYOS_CT_TIMEOUT { return; }
			chain PREROUTING {
				type filter hook prerouting priority raw; policy accept;
				counter jump VYOS_CT_IGNORE
				counter jump VYOS_CT_TIMEOUT
				counter jump FW_CONNTRACK
				notrack
			}
			chain FW_CONNTRACK { accept; }
		}
		END
	done
	cat <<-END
	table ip vyos_nat {
		chain POSTROUTING {
			type nat hook postrouting priority srcnat; policy accept;
			oifname "wan" ip saddr 10.0.1.0/24 counter masquerade comment "SRC-NAT-100"
		}
	}
	table inet vyos_offload {
		chain state {
			type filter hook forward priority filter - 5;
			ct state established,related counter
		}
	}
	END
}
vy() { client_rules vyos "$@" && bypass_all $V4 $V6; }
tcase "VyOS, firewall flowtable FT01"           vy "lan, wan"
tcase "VyOS, with counter"                      vy "lan, wan" "counter;"
vyos_hw() { # set firewall flowtable FT01 offload hardware
	nft_rt flush ruleset
	vyos "lan, wan" "flags offload;" >"$TMP/vyos"
	want_err "offload hardware" "Operation not supported" nft_rt -f "$TMP/vyos"
	want_eq "left behind" "$(nft_rt list ruleset)" ""
}
tcase "VyOS, offload hardware is refused as a whole" vyos_hw

# ---- containers

netavark() {
	cat <<-END
	table inet netavark {
		chain INPUT {
			type filter hook input priority filter; policy accept;
			ip saddr 10.88.0.0/16 meta l4proto { tcp, udp } th dport 53 accept
		}
		chain FORWARD {
			type filter hook forward priority filter; policy accept;
			ct state invalid drop
			jump NETAVARK-ISOLATION-1
			ip daddr 10.88.0.0/16 ct state established,related accept
			ip saddr 10.88.0.0/16 accept
			ip6 daddr fd00:88::/64 ct state established,related accept
			ip6 saddr fd00:88::/64 accept
		}
		chain POSTROUTING {
			type nat hook postrouting priority srcnat; policy accept;
			meta mark & 0x00002000 == 0x00002000 masquerade
			ip saddr 10.88.0.0/16 jump nv_2f259bab_10_88_0_0_nm16
			ip6 saddr fd00:88::/64 jump nv_2f259bab_fd00-88--_nm64
		}
		chain PREROUTING {
			type nat hook prerouting priority dstnat; policy accept;
			fib daddr type local jump NETAVARK-HOSTPORT-DNAT
		}
		chain OUTPUT {
			type nat hook output priority dstnat; policy accept;
			fib daddr type local jump NETAVARK-HOSTPORT-DNAT
		}
		chain NETAVARK-HOSTPORT-SETMARK { meta mark set meta mark | 0x00002000; }
		chain NETAVARK-ISOLATION-1 { }
		chain NETAVARK-HOSTPORT-DNAT {
			meta l4proto { tcp, udp } th dport 8080 jump nv_2f259bab_10_88_0_0_nm16_dnat
			meta l4proto { tcp, udp } th dport 8080 jump nv_2f259bab_fd00-88--_nm64_dnat
		}
		chain nv_2f259bab_10_88_0_0_nm16 {
			ip daddr 10.88.0.0/16 accept
			ip daddr != 224.0.0.0/4 masquerade
		}
		chain nv_2f259bab_fd00-88--_nm64 {
			ip6 daddr fd00:88::/64 accept
			ip6 daddr != ff00::/8 masquerade
		}
		chain nv_2f259bab_10_88_0_0_nm16_dnat {
			ip saddr 10.88.0.0/16 jump NETAVARK-HOSTPORT-SETMARK
			ip saddr 127.0.0.1 jump NETAVARK-HOSTPORT-SETMARK
			meta nfproto ipv4 meta l4proto { tcp, udp } th dport 8080 dnat ip to 10.88.0.2:5000
		}
		chain nv_2f259bab_fd00-88--_nm64_dnat {
			ip6 saddr fd00:88::/64 jump NETAVARK-HOSTPORT-SETMARK
			meta nfproto ipv6 meta l4proto { tcp, udp } th dport 8080 dnat ip6 to [fd00:88::2]:5000
		}
	}
	table inet fastpath {
		flowtable f { hook ingress priority filter; devices = { $1 }; counter; }
		chain forward {
			type filter hook forward priority filter - 1;
			meta l4proto { tcp, udp } flow add @f
		}
	}
	END
}
PORTS="veth2, veth3, lan, wan" UPPER="podman0, lan, wan"
out() { # out DEVICES: containers to the world, the world to a published port
	WATCH=$PORTS client_rules netavark "$1" || return
	FROM=$c1 bypass_all $V4 $V6
	forget
	FROM=$sv TO=8080 bypass_all 10.0.2.1 fd00:2::1
	forget
	FROM=$cl TO=8080 bypass_all 10.0.1.1 fd00:1::1
}
tcase "containers: out and published port, ports listed" out "$PORTS"
tcase -x "containers: out and published port, bridge listed" out "$UPPER"

hairpin() { # hairpin DEVICES: a container reaches another, and itself, by the published port
	WATCH=$PORTS client_rules netavark "$1" || return
	FROM=$c2 TO=8080 bypass_all 10.88.0.1 fd00:88::1
	forget
	FROM=$c1 TO=8080 bypass_all 10.88.0.1 fd00:88::1
}
tcase "containers: hairpin, ports listed"       hairpin "$PORTS"
tcase -x "containers: hairpin, bridge listed"   hairpin "$UPPER"

removed() { # a container ends under traffic; the next one has its address
	local p cl=$sv sv
	ns_add c3 && container c3 4 || return
	sv=$c3
	WATCH=$PORTS client_rules netavark "podman0, wan" || return
	stream_start 10.88.0.4 || return
	for p in $(ip netns pids "$c3"); do kill -9 "$p" 2>/dev/null; done
	ip netns del "$c3"
	busywait 3000 no_veth4 || fail "veth4 is still there"
	ns_add c3 && container c3 4 || return
	sv=$c3
	# the first thing that it says is whose the address is now
	busywait $((5000 * SLOW)) at "$c3" ping -c1 -W1 -q 10.88.0.1 || fail "no way out of the next container"
	bg "$c3" "${PY[@]}" streams sink --port 6000 --out "$TMP/sink2.json"
	SINK=$!
	busywait $((9000 * SLOW)) flowing || fail "the next container gets nothing"
	[ "$FT" != ours ] || busywait $((9000 * SLOW)) fast_sample || fail "not fast"
	stop "$SEND" "$SINK"
	want_eq "damaged datagrams" "$(jq .bad "$TMP/sink2.json")" 0
	ip netns del "$c3"
}
no_veth4() { ! ipn "$rt" link show veth4; }
tcase -x "containers: one ends, the next has its address" removed

# ---- containers, bridged packets pass the IP hooks (br_netfilter, as Docker loads it)

called() { # called CMD...: with bridge-nf-call-iptables=1, which is for all namespaces that do not say no
	local had=''
	! loaded br_netfilter || had=1
	modprobe -q br_netfilter
	[ -e /proc/sys/net/bridge ] || { skip "no br_netfilter"; return; }
	if at "$rt" sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1 2>/dev/null; then
		"$@"
		at "$rt" sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0
	else
		skip "no net.bridge in a namespace"
	fi
	[ -n "$had" ] || ! unloadable br_netfilter || busywait 5000 rmmod br_netfilter || fail "br_netfilter stays"
}
tcase "br_netfilter: out and published port"    called out "$PORTS"
tcase -x "br_netfilter: out and published port, bridge listed" called out "$UPPER"
bridged() { # from container to container: bridged, with the TTL that it had; not the router's business
	WATCH=$PORTS client_rules netavark "$1" || return
	at "$c1" nft -f - <<-END
	table inet ttl {
		counter same { }
		counter every { }
		chain in {
			type filter hook input priority 0;
			udp dport 5000 ip ttl 64 counter name same
			udp dport 5000 ip6 hoplimit 64 counter name same
			udp dport 5000 counter name every
		}
	}
	END
	for a in 10.88.0.2 fd00:88::2; do
		conv_open x "$c2" udp $a || return
		conv_ok x echo 50
		conv_close x
	done
	conv_open x "$c2" tcp 10.88.0.2 || return
	conv_ok x echo 1000000
	conv_close x
	want_eq "datagrams with the TTL they were sent with" "$(at "$c1" nft list counter inet ttl same | awk '/packets/ { print $2 }')" \
		"$(at "$c1" nft list counter inet ttl every | awk '/packets/ { print $2 }')"
	at "$c1" nft delete table inet ttl
	want_eq "bridged connections that are offloaded" "$(ct_list --orig-port-dst 5000 2>/dev/null | grep -c '\[OFFLOAD\]')" 0
}
tcase "br_netfilter: bridged packets stay bridged, ports listed" called bridged "$PORTS"
tcase "br_netfilter: bridged packets stay bridged, bridge listed" called bridged "$UPPER"
tcase "br_netfilter: hairpin, ports listed"     called hairpin "$PORTS"
intact() { # such packets are translated while they are bridged and never arrive at the bridge device
	local a c
	WATCH=$PORTS client_rules netavark "$1" || return
	for a in 10.88.0.1 fd00:88::1; do
		for c in $c1 $c2; do
			conv_open x "$c" udp $a 8080 && conv_ok x echo 50 && conv_close x
			conv_open x "$c" tcp $a 8080 && conv_ok x echo 300000 && conv_close x
		done
	done
}
tcase "br_netfilter: hairpin, bridge listed: slow, but it passes" called intact "$UPPER"

counted() { # conntrack has counted a packet already when the bridge device gets it; once is enough
	local n=''
	at "$rt" sysctl -qw net.netfilter.nf_conntrack_acct=1
	WATCH=$PORTS client_rules netavark "$1" || return
	conv_open x "$c1" udp $V4 || return
	conv_ok x echo 200 300
	offloaded_line udp 5000 || fail "not offloaded"
	for n in $(ct_list -p udp --orig-port-dst 5000 | grep -o 'packets=[0-9]* bytes=[0-9]*' | tr ' ' :); do
		want_eq "conntrack's counters" "$n" "packets=200:bytes=$((200 * 328))"
	done
	[ -n "$n" ] || fail "no counters: $(ct_list -p udp)"
	conv_close x
}
tcase "br_netfilter: conntrack counts each packet once, ports listed" called counted "$PORTS"
tcase -x "br_netfilter: conntrack counts each packet once, bridge listed" called counted "$UPPER"

# ---- several on one machine

several() { # firewalld, VyOS' and containers' flowtables with the same devices, at three priorities
	WATCH=$PORTS client_rules eval "firewalld 'lan wan' | grep -v 'flags owner'; vyos 'lan, wan' | sed '/vyos_nat/,/vyos_offload/ { /vyos_offload/!d }'; netavark '$PORTS' | sed 's/priority filter - 1/priority filter - 20/'" || return
	bypass_all $V4 $V6
	# the rule that comes first has them all (those of TCP have ended)
	[ "$FT" != ours ] || want_eq "flows in the first flowtable" "$(awk '/table fastpath / { for (i = 1; i < NF; i++) if ($i ~ /^flows_/) n += $(i + 1) } END { print n + 0 }' $DEBUGFS/flowtables)" 2
	# that table goes: the next one takes over
	conv_open x "$cl" udp $V4 || return
	conv_ok x echo 20
	want_ok "delete the first" nft_rt delete table inet fastpath
	conv_ok x echo 20
	busywait $((5000 * SLOW)) echo_fast || fail "slow: of $ARRIVED packets $FORWARDED in the forward chain"
	offloaded_line udp 5000 || fail "not offloaded"
	conv_close x
}
echo_fast() { counters_zero; conv_cmd x echo 30 >/dev/null; counters; [ "$ARRIVED" -ge 60 ] && [ "$FORWARDED" -le 4 ]; }
tcase "four flowtables with the same devices, one goes" several

wild() { # two tables, both with all devices whose names begin with veth; devices that are renamed
	nft_rt -f - <<-END || return
	flush ruleset
	$(WATCH="$PORTS" watch_tables)
	table ip a {
		flowtable f {
			hook ingress priority 0;
			devices = { wan };
		}
		chain forward {
			type filter hook forward priority 0;
			meta l4proto { tcp, udp } flow add @f
		}
	}
	table ip6 b {
		flowtable f {
			hook ingress priority 0;
			devices = { wan };
		}
		chain forward {
			type filter hook forward priority 0;
			meta l4proto { tcp, udp } flow add @f
		}
	}
	END
	CNT0=()
	for t in "ip a" "ip6 b"; do
		# shellcheck disable=SC2086
		at "$rt" "${PY[@]}" links flowtable $t f veth || { skip "the kernel knows no wildcards"; return; }
	done
	forget
	FROM=$c1 bypass_all $V4 $V6
	conv_open x "$c1" udp $V6 || return
	conv_ok x echo 20
	# a name that is not among them any more, and back; nothing is lost
	rename veth2 other2
	conv_ok x echo 20
	rename other2 veth2
	conv_ok x echo 20
	busywait $((5000 * SLOW)) echo_fast || fail "slow: of $ARRIVED packets $FORWARDED in the forward chain"
	conv_close x
	want_ok "one table goes" nft_rt delete table ip a
	forget
	FROM=$c1 bypass_all $V6
}
rename() { ipn "$rt" link set "$1" name "$2" 2>/dev/null || { ipn "$rt" link set "$1" down; ipn "$rt" link set "$1" name "$2" up; }; }
tcase "wildcard devices in two tables, renamed under traffic" wild

SETUP=setup
run_cases "$@"
