#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# kube-proxy in nftables mode with a fast path (KEP-4963): pods behind veths, service addresses in
# verdict maps, random endpoints, connections that are offloaded when they have seen some packets,
# devices of the flowtable that come and go with the pods.
#
#      p1, p2, p3 (pods)              rt (the node)               sv (outside)
#   eth0 10.244.0.N ---- vethN  10.244.0.254  ext 10.0.2.1 ---- eth0 10.0.2.2
#        fd00:f::N              fd00:f::fe      fd00:2::1           fd00:2::2
#
# Service 10.96.0.10 and fd00:96::10, port 80; NodePort 30080; endpoints are port 5000 of pods.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

VIP4=10.96.0.10 VIP6=fd00:96::10
AFTER=20 # packets of a connection before it is offloaded
WATCH="veth1, veth2, veth3, ext"
p1='' p2='' p3='' p4=''

setup() {
	ns_add rt sv || return
	router_on "$rt"
	modprobe -q nf_conntrack
	at "$rt" sysctl -qw net.netfilter.nf_conntrack_acct=1
	ip link add ext netns "$rt" type veth peer name eth0 netns "$sv" || return
	addr_lines ext 10.0.2.1/24 fd00:2::1/64 | batch "$rt"
	addr_lines eth0 10.0.2.2/24 fd00:2::2/64 10.0.2.1 fd00:2::1 | batch "$sv"
	pod p1 1 && pod p2 2 && pod p3 3 && serve "$sv"
}
# pod VARIABLE NUMBER: what the network plugin does: a namespace, a veth, host routes
pod() {
	local d=veth$2
	ns_add "$1" && ip link add "$d" netns "$rt" type veth peer name eth0 netns "${!1}" || return
	printf '%s\n' "link set $d up" "addr add 10.244.0.254/32 dev $d" "addr add fd00:f::fe/128 dev $d nodad" \
		"route replace 10.244.0.$2/32 dev $d" "route replace fd00:f::$2/128 dev $d" | batch "$rt"
	printf '%s\n' "link set eth0 up" "addr add 10.244.0.$2/32 dev eth0" "addr add fd00:f::$2/128 dev eth0 nodad" \
		"route add 10.244.0.254/32 dev eth0" "route add default via 10.244.0.254" \
		"route add fd00:f::fe/128 dev eth0" "route add ::/0 via fd00:f::fe" | batch "${!1}"
	serve "${!1}"
}
# gone_pod VARIABLE: its namespace goes, and the veth with it
gone_pod() {
	local n=${!1} p
	for p in $(ip netns pids "$n"); do kill -9 "$p" 2>/dev/null; done
	ip netns del "$n"
}

# kube DEVICES ENDPOINT...: what kube-proxy writes, for both families. LOCAL: external traffic is
# not masqueraded.
kube() {
	local devs=$1 fam; shift
	for fam in ip ip6; do kube_family $fam "$devs" "$@"; done
}
kube_family() {
	local fam=$1 devs=$2 vip=$VIP4 net=10.244.0. sub=24 node=10.0.2.1 dnat type=ipv4_addr n=0 e map=''; shift 2
	[ $fam = ip ] || { vip=$VIP6 net=fd00:f:: sub=64 node=fd00:2::1 type=ipv6_addr; }
	cat <<-END
	table $fam kube-proxy {
		comment "rules for kube-proxy"
		flowtable fastpath { hook ingress priority filter; devices = { $devs }; ${FLAGS:-} }
		set cluster-ips { type $type; comment "Active ClusterIPs"; elements = { $vip }; }
		set nodeport-ips { type $type; comment "IPs that accept NodePort traffic"; elements = { $node }; }
		map no-endpoint-services { type $type . inet_proto . inet_service : verdict; }
		map firewall-ips { type $type . inet_proto . inet_service : verdict; }
		chain mark-for-masquerade { mark set mark or 0x4000; }
	END
	for e in "$@"; do
		dnat="$net$e:5000"
		[ $fam = ip ] || dnat="[$net$e]:5000"
		cat <<-END
		chain endpoint-$e {
			$fam saddr $net$e jump mark-for-masquerade
			meta l4proto { tcp, udp } dnat to $dnat
		}
		END
		map+="${map:+, }$n : goto endpoint-$e" n=$((n + 1))
	done
	cat <<-END
		chain service-web {
			$fam daddr $vip meta l4proto { tcp, udp } th dport 80 $fam saddr != $net$([ $fam = ip ] && echo 0)/$sub jump mark-for-masquerade
			$([ $n = 0 ] || echo "numgen random mod $n vmap { $map }")
		}
		chain external-web {
			$([ -n "${LOCAL:-}" ] || echo "jump mark-for-masquerade")
			goto service-web
		}
		map service-ips {
			type $type . inet_proto . inet_service : verdict; comment "ClusterIP, ExternalIP and LoadBalancer IP traffic"
			elements = { $vip . tcp . 80 : goto service-web, $vip . udp . 80 : goto service-web }
		}
		map service-nodeports {
			type inet_proto . inet_service : verdict; comment "NodePort traffic"
			elements = { tcp . 30080 : goto external-web, udp . 30080 : goto external-web }
		}
		chain services {
			$fam daddr . meta l4proto . th dport vmap @service-ips
			$fam daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
		}
		chain masquerading {
			mark and 0x4000 == 0 return
			mark set mark xor 0x4000
			masquerade fully-random
		}
		chain cluster-ips-check {
			$fam daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"
		}
		chain service-endpoints-check {
			$fam daddr . meta l4proto . th dport vmap @no-endpoint-services
		}
		chain firewall-check { $fam daddr . meta l4proto . th dport vmap @firewall-ips; }
		chain filter-prerouting {
			type filter hook prerouting priority -110;
			ct state new jump firewall-check
		}
		chain filter-forward {
			type filter hook forward priority -110
			ct state new jump service-endpoints-check
			ct state new jump cluster-ips-check
		}
		chain fastpath-forward {
			type filter hook forward priority filter
			ct original packets > $AFTER meta l4proto { tcp, udp } flow add @fastpath
		}
		chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
		chain nat-output { type nat hook output priority -100; jump services; }
		chain nat-postrouting {
			type nat hook postrouting priority srcnat;
			jump masquerading
		}
	}
	END
}
DEVS="veth1, veth2, veth3, ext"

# ---- services

reach() { # reach FROM PORT ADDRESS4 ADDRESS6 [ENDPOINT...]
	local from=$1 port=$2 a4=$3 a6=$4; shift 4
	client_rules kube "$DEVS" "${@:-2}" || return
	service $from "$port" "$a4"
	forget
	service $from "$port" "$a6"
}
# of each connection the first packets are slow
service() { MAX_SLOW=$((4 * AFTER + 60)) FROM=${!1} TO=$2 COUNT=150 BYTES=8000000 bypass_all "$3"; }
tcase "pod to pod"                              reach p1 5000 10.244.0.3 fd00:f::3
tcase "pod to service"                          reach p1 80 $VIP4 $VIP6 2
tcase "pod to service, two endpoints"           reach p1 80 $VIP4 $VIP6 2 3
tcase "pod to its own service: hairpin"         reach p1 80 $VIP4 $VIP6 1
tcase "from outside to NodePort"                reach sv 30080 10.0.2.1 fd00:2::1 2
localonly() { LOCAL=1 reach sv 30080 10.0.2.1 fd00:2::1 3; }
tcase "from outside to NodePort, externalTrafficPolicy Local" localonly
tcase "pod to outside"                          reach p2 5000 10.0.2.2 fd00:2::2

threshold() { # not offloaded before, offloaded after
	client_rules kube "$DEVS" 2 || return
	conv_open x "$p1" udp "$1" 80 || return
	conv_ok x echo $AFTER
	! ct_list -p udp | grep -q '\[OFFLOAD\]' || fail "offloaded before $AFTER packets: $(ct_list -p udp)"
	conv_ok x echo 5
	offloaded_line udp 80 || fail "not offloaded after $((AFTER + 5)) packets: $(ct_list -p udp)"
	counters_zero
	conv_ok x echo 100
	counters
	bypass_numbers "$ARRIVED" "$FORWARDED" "$(fast)"
	conv_close x
}
tcase "offloaded after 20 packets, IPv4"        threshold $VIP4
tcase "offloaded after 20 packets, IPv6"        threshold $VIP6

spread() { # many connections: each endpoint has its share, all are offloaded
	local n e
	client_rules kube "$DEVS" 2 3 || return
	n=$(at "$p1" "${PY[@]}" traffic parallel tcp $VIP4 80 --count 40 --bytes 400000 --timeout $((60 * SLOW)) \
		--at-end "nsenter --net=/run/netns/$rt conntrack -L -p tcp 2>/dev/null >$TMP/spread")
	[ "${n%% *}" = ok ] || fail "$n"
	want_eq "offloaded connections" "$(grep -c '\[OFFLOAD\]' "$TMP/spread")" 40
	for e in 2 3; do want_ge "of 40 connections, to pod $e" "$(grep -c "src=10.244.0.$e " "$TMP/spread")" 5; done
}
tcase "40 connections, random endpoints"        spread

# ---- pods that come and go

flowtable() { local f; for f in ip ip6; do nft_rt "$1" flowtable $f kube-proxy fastpath "{ hook ingress priority filter; devices = { $2 }; }" || return; done; }
comes() { # a pod comes: its device is added to the flowtable, an endpoint to the service; and goes
	local i n
	n=$(ipn "$rt" link | grep -c ': ')
	client_rules kube "$DEVS" 2 || return
	conv_open x "$p1" udp $VIP4 80 || return
	conv_ok x echo 40
	offloaded_line udp 80 || fail "not offloaded"
	for i in 1 2 3; do
		pod p4 4 || return
		want_ok "add veth4" flowtable add veth4
		want_ok "endpoint" nft_rt -f - <<-END
		add chain ip kube-proxy endpoint-4
		add rule ip kube-proxy endpoint-4 ip saddr 10.244.0.4 jump mark-for-masquerade
		add rule ip kube-proxy endpoint-4 meta l4proto { tcp, udp } dnat to 10.244.0.4:5000
		flush chain ip kube-proxy service-web
		add rule ip kube-proxy service-web numgen random mod 1 vmap { 0 : goto endpoint-4 }
		END
		# the connection that there was stays where it is, and fast
		conv_ok x echo 10
		counters_zero; conv_ok x echo 30; counters
		want_le "of 60 packets, seen by the forward chain" "$FORWARDED" 4
		# new ones go to the new pod, whose address was another one's before
		conv_open y "$p3" udp $VIP4 80 || return
		conv_ok y echo 60
		ct_list -p udp --orig-src 10.244.0.3 | grep 'src=10.244.0.4 ' | grep -q '\[OFFLOAD\]' || fail "round $i: $(ct_list -p udp --orig-src 10.244.0.3)"
		# the endpoint goes first, then the device, then the pod; or the pod at once
		want_ok "no endpoint" nft_rt -f - <<-END
		flush chain ip kube-proxy service-web
		add rule ip kube-proxy service-web numgen random mod 1 vmap { 0 : goto endpoint-2 }
		delete chain ip kube-proxy endpoint-4
		END
		[ $i = 2 ] || want_ok "delete veth4" flowtable delete veth4
		gone_pod p4
		conv_close y
		[ $i != 3 ] || at "$rt" conntrack -D --orig-src 10.244.0.3 >/dev/null 2>&1
		busywait $((5000 * SLOW)) devices_are "$n" || fail "veth4 is still there"
		busywait $((5000 * SLOW)) not_shown 10.244.0.3 || fail "still [OFFLOAD]: $(ct_list -p udp --orig-src 10.244.0.3)"
		conv_ok x echo 30
	done
	conv_close x
}
devices_are() { [ "$(ipn "$rt" link | grep -c ': ')" = "$1" ]; }
not_shown() { ! ct_list -p udp --orig-src "$1" | grep -q '\[OFFLOAD\]'; }
tcase "a pod comes and goes, and comes again with the same address" comes

killed() { # a pod is deleted under traffic: its flows end, the others go on
	local cl sv=$p2
	client_rules kube "$DEVS" 2 || return
	pod p4 4 || return
	cl=$p4
	flowtable add veth4 || fail "add veth4"
	RATE=500 stream_start 10.244.0.2 || return
	conv_open x "$p1" udp $VIP4 80 || return
	conv_ok x echo 60
	[ "$FT" != ours ] || want_eq "flows" "$(stat_get flows)" 2
	gone_pod p4
	counters_zero
	conv_ok x echo 100
	counters
	want_le "of 200 packets, seen by the forward chain" "$FORWARDED" 4
	[ "$FT" != ours ] || busywait $((3000 * SLOW)) flows_are 1 || fail "flows: $(stat_get flows)"
	conv_close x
	stream_end 9000 "" 2>/dev/null
	# the receiver goes, while the sender goes on
	pod p4 4 || return
	forget
	cl=$p1 sv=$p4
	stream_start 10.244.0.4 || return
	gone_pod p4
	sleep 0.3
	[ "$FT" != ours ] || busywait $((3000 * SLOW)) flows_are 0 || fail "flows of a pod that is gone: $(stat_get flows)"
	pod p4 4 || return
	bg "$p4" "${PY[@]}" streams sink --port 6000 --out "$TMP/sink2.json"
	SINK=$!
	sv=$p4
	busywait $((5000 * SLOW)) flowing || fail "the new pod with the same address gets nothing"
	stop "$SEND" "$SINK"
	want_eq "damaged datagrams" "$(jq .bad "$TMP/sink2.json")" 0
	gone_pod p4
}
tcase "pods deleted under traffic"              killed

churned() { # kube-proxy's own transactions, a dozen a second: what is offloaded stays so
	local i
	client_rules kube "$DEVS" 2 3 || return
	conv_open x "$p1" tcp $VIP4 80 || return
	conv_open y "$p1" udp $VIP6 80 || return
	conv_ok x echo 2000000; conv_ok y echo 50
	counters_zero
	for i in $(seq 30); do
		nft_rt -f - <<-END || fail "transaction $i"
		add element ip kube-proxy service-ips { 10.96.1.$i . tcp . 80 : goto service-web }
		add element ip6 kube-proxy service-ips { fd00:96::1:$i . tcp . 80 : goto service-web }
		add element ip kube-proxy cluster-ips { 10.96.1.$i }
		END
		conv_ok x echo 300000; conv_ok y echo 10
	done
	counters
	# of each connection one packet per direction and transaction
	want_le "of $ARRIVED packets, seen by the forward chain" "$FORWARDED" $((30 * 8 + 60))
	want_ge "packets that arrived" "$ARRIVED" 900
	conv_close x; conv_close y
}
tcase "30 transactions under traffic"           churned

replaced() { # the whole table in one transaction, as when kube-proxy starts: nothing is lost
	local i f cl=$p1 sv=$p2
	client_rules kube "$DEVS" 2 || return
	stream_start 10.244.0.2 || return
	conv_open x "$p3" tcp $VIP4 80 || return
	conv_ok x echo 1000000
	for i in 1 2 3 4; do
		{ for f in ip ip6; do printf 'add table %s kube-proxy\ndelete table %s kube-proxy\n' $f $f; done; kube "$DEVS" 2; } >"$TMP/kube"
		want_ok "restart" nft_rt -f "$TMP/kube"
		conv_ok x echo 100000
	done
	fast_now
	conv_close x
	stream_end 3000 0
}
tcase "kube-proxy starts again: nothing is lost" replaced

paced() { # how fast a pod's socket wants to be sent from is nothing to the node's queueing discipline
	local t
	client_rules kube "$DEVS" 2 || return
	at "$rt" tc qdisc replace dev ext root fq || { skip "no fq"; return; }
	conv_open x "$p2" udp 10.0.2.2 || return
	conv_ok x echo 60
	offloaded_line udp 5000 || fail "no [OFFLOAD]: $(ct_list -p udp)"
	conv_ok x pace 20000
	t=$(now_ms)
	conv_ok x echo 80 1000
	want_le "ms for 80 datagrams" $(($(now_ms) - t)) $((1500 * SLOW))
	conv_close x
	at "$rt" tc qdisc del dev ext root
}
tcase -x "a pod's socket does not pace the node" paced

SETUP=setup
run_cases "$@"
