#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Flows are taken down on request: the operation "flush" of the generic netlink
# family nft_offload (netlink/nft_offload.yaml).
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1     fd00:2::1         fd00:2::2
#
#      c2
#   eth0.7 10.0.3.2 -- lan2.7 10.0.3.1
#
# Conversations a (cl, IPv4), b (cl, IPv6) and c (c2, IPv4, tagged) run to sv.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2 V6=fd00:2::2 c2=

setup() {
	lan_wan && ns_add c2 || return
	ip link add lan2 netns "$rt" type veth peer name eth0 netns "$c2" || return
	ipn "$rt" link set lan2 up
	ipn "$c2" link set eth0 up
	ipn "$rt" link add link lan2 lan2.7 type vlan id 7
	ipn "$c2" link add link eth0 eth0.7 type vlan id 7
	addr "$rt" lan2.7 10.0.3.1/24 fd00:3::1/64
	addr "$c2" eth0.7 10.0.3.2/24 fd00:3::2/64 10.0.3.1 fd00:3::1
	busywait 5000 at "$c2" ping -c1 -W1 -q $V4 || { fail "no way from c2"; return; }
	serve "$sv"
}
genl() { at "$rt" "${PY[@]}" genl "$@"; }
# flush N ARG...: takes down exactly N flows
flush() {
	local n=$1 out; shift
	out=$(genl flush "$@" 2>&1) || { fail "flush $*: $out"; return; }
	want_eq "flush $*" "$out" "flows $n"
}
# refused PATTERN ARG...: an errno and a sentence
refused() { local pat=$1; shift; want_err "flush $*" "$pat" genl flush "$@"; }

# talks [ID...]: opens conversations and has them offloaded
talks() {
	local i
	for i in "$@"; do
		case $i in
		a) conv_open a "$cl" "${PROTO:-udp}" $V4 ;;
		b) conv_open b "$cl" "${PROTO:-udp}" $V6 ;;
		c) conv_open c "$c2" "${PROTO:-udp}" $V4 ;;
		esac || return
	done
	again "$@"
}
# again ID...: the payload comes back, and the conversations are offloaded (again)
again() { local i; for i in "$@"; do conv_ok "$i" echo 50 200; done; on "$@"; }
on() { local i; for i in "$@"; do is_on "$i" || fail "$i is not offloaded: $(ct_list | grep "$(addr_of "$i")" | tr -s ' ')"; done; }
off() { local i; for i in "$@"; do ! is_on "$i" || fail "$i is still offloaded"; done; }
addr_of() { case $1 in a) echo "src=10.0.1.2 dst=$V4 " ;; b) echo "src=fd00:1::2 dst=$V6 " ;; c) echo "src=10.0.3.2 dst=$V4 " ;; esac; }
is_on() { ct_list | tr -s ' ' | grep "$(addr_of "$1")" | grep -q '\[OFFLOAD\]'; }
hushed() { local i; for i in "$@"; do conv_close "$i"; done; }

DEVS="lan, lan2, wan"

all() { # PROTO: every flow, and they come back
	rules "DEVS=$DEVS" || return
	PROTO=$1 talks a b c || return
	local t
	t=$(stat_get teardown.flush)
	flush 3
	off a b c
	want_eq "counted as teardown.flush" $(($(stat_get teardown.flush) - t)) 3
	flush 0
	again a b c
	hushed a b c
}
tcase -o "all UDP flows go, and come back with the next packets" all udp
tcase -o "all TCP flows go, and come back with the next packets" all tcp

under_way() { # nothing is lost
	rules "DEVS=$DEVS" || return
	stream_start "$1" || return
	local i n=0 out
	for i in 1 2 3 4 5 6 7 8 9 10; do
		out=$(genl flush)
		n=$((n + ${out#flows }))
		sleep 0.1
	done
	want_ge "flows taken down" "$n" 5
	fast_now
	stream_end 3000 0
}
tcase -o "IPv4: a stream loses nothing in ten flushes" under_way $V4
tcase -o "IPv6: a stream loses nothing in ten flushes" under_way $V6

tables() {
	rules "DEVS=$DEVS" "MATCH=meta nfproto ipv4 meta l4proto { tcp, udp }" || return
	want_ok "second flowtable" nft_rt -f - <<-END || return
	table ip6 u {
		flowtable g { hook ingress priority 0; devices = { lan, wan }; }
		chain forward {
			type filter hook forward priority 1;
			meta l4proto { tcp, udp } flow add @g
		}
	}
	END
	talks a b c || return
	flush 1 table=u
	off b; on a c
	again b
	flush 1 nfproto=ip6
	off b; on a c
	again b
	flush 1 nfproto=ip6 table=u flowtable=g
	off b; on a c
	again b
	flush 2 flowtable=f
	off a c; on b
	again a c
	flush 2 nfproto=inet table=t
	refused "ENOENT: there is no such flowtable" nfproto=inet table=u
	refused "ENOENT: there is no such flowtable" table=t flowtable=g
	refused "ENOENT: there is no such flowtable" flowtable=nope
	refused "ENOENT: there is no such flowtable" nfproto=ip
	refused "EAFNOSUPPORT: tables of this family" nfproto=7
	on b
	hushed a b c
}
tcase -o "by family, table and flowtable" tables

devices() {
	rules "DEVS=$DEVS" || return
	talks a b c || return
	local index
	flush 2 ifname=lan
	off a b; on c
	again a b
	flush 1 ifname=lan2.7
	off c; on a b
	again c
	flush 1 ifname=lan2
	off c; on a b
	again c
	index=$(ipn "$rt" -j link show lan2 | jq -r ".[0].ifindex")
	flush 1 "ifindex=$index"
	again c
	want_ok "alternative name" ipn "$rt" link property add dev lan2.7 altname a-name-longer-than-fifteen
	again c # the new name has made the kernel look its routes up again
	flush 1 ifname=a-name-longer-than-fifteen
	again c
	flush 0 "ifindex=$index" ifname=lan
	again a b c
	flush 3 ifname=wan
	off a b c
	flush 0 ifname=lo
	refused "ENODEV: there is no such device" ifname=nope
	refused "ENODEV: there is no such device" ifindex=123456
	hushed a b c
}
tcase -o "by device: route, VLAN and below, index, alternative name" devices

addresses() {
	rules "DEVS=$DEVS" "NAT=chain post { type nat hook postrouting priority 100; ip saddr 10.0.3.2 snat to 10.0.2.77; }" || return
	ipn "$rt" addr add 10.0.2.77/32 dev wan 2>/dev/null
	talks a b c || return
	flush 1 ipv4=10.0.1.2
	off a; on b c
	again a
	flush 1 ipv4=10.0.3.99 prefix-len=24
	off c; on a b
	again c
	flush 1 ipv4=10.0.2.77
	off c; on a b
	again c
	flush 1 ipv6=fd00:2::2
	off b; on a c
	again b
	flush 1 ipv6=fd00:1:: prefix-len=64
	again b
	flush 0 ipv6=fd00:1::3
	on a b c
	flush 2 ipv4=0.0.0.0 prefix-len=0
	off a c; on b
	again a c
	flush 1 ipv6=:: prefix-len=0
	again b
	flush 1 ipv4=$V4 ifname=lan
	off a; on b c
	flush 0 ipv4=192.0.2.1
	refused "EINVAL: the prefix is longer than the address" ipv4=$V4 prefix-len=33
	refused "ERANGE: integer out of range" ipv6=$V6 prefix-len=129
	refused "EINVAL: a prefix length needs an address" prefix-len=8
	refused "EINVAL: no flow has both" ipv4=$V4 ipv6=$V6
	on b c
	ipn "$rt" addr del 10.0.2.77/32 dev wan
	hushed a b c
}
tcase -o "by address, before and after NAT, and prefix" addresses

marks() {
	rules "DEVS=$DEVS" "FWD=ip saddr 10.0.1.2 ct mark set 0x1234; ip saddr 10.0.3.2 ct mark set 0x34;" || return
	talks a b c || return
	flush 1 mark=0x1234
	off a; on b c
	again a
	flush 2 mark=0x34 mark-mask=0xff
	off a c; on b
	again a c
	flush 1 mark=0
	off b; on a c
	flush 0 mark=0x99
	refused "EINVAL: the mark has bits that the mask has not" mark=0x134 mark-mask=0xff
	refused "EINVAL: a mask needs a mark" mark-mask=0xff
	hushed a b c
}
tcase -o "by conntrack mark" marks

malformed() {
	rules "DEVS=$DEVS" || return
	talks a || return
	local kind n=0
	for kind in $(genl kinds); do
		case $kind in
		# what generic netlink itself refuses without a word
		command-0|unknown-command|dump|info-dump|table-do|engine-do) want_err "$kind" "^ENOTSUP:" genl bad "$kind" ;;
		*) want_err "$kind" "^\(EINVAL\|ERANGE\): ." genl bad "$kind" ;;
		esac
		n=$((n + 1))
	done
	want_ge "kinds" $n 30
	on a
	conv_close a
}
tcase -o "malformed requests are refused, with a reason" malformed

namespaces() { # only those of the socket's own namespace
	rules "DEVS=$DEVS" || return
	talks a || return
	want_eq "from another namespace" "$(at "$cl" "${PY[@]}" genl flush 2>&1)" "flows 0"
	on a
	command -v setpriv >/dev/null || { conv_close a; skip "needs setpriv"; return; }
	want_err "by nobody" "EPERM" at "$rt" setpriv --reuid=65534 --clear-groups "${PY[@]}" genl flush
	if ! setpriv --reuid=65534 --clear-groups unshare -Urn true 2>/dev/null; then
		conv_close a; skip "no user namespaces for nobody"; return
	fi
	want_err "by the root of a user namespace that does not own it" "EPERM" \
		at "$rt" setpriv --reuid=65534 --clear-groups unshare -Ur "${PY[@]}" genl flush
	want_eq "by the root of a user namespace, in its own" \
		"$(setpriv --reuid=65534 --clear-groups unshare -Urn "${PY[@]}" genl flush 2>&1)" "flows 0"
	on a
	conv_close a
}
tcase -o "each network namespace by its own administrator" namespaces

unload() {
	nft_rt flush ruleset
	forget
	bg "$rt" "${PY[@]}" genl storm 60 >"$TMP/storm" 2>&1
	local i
	for i in 1 2 3 4 5 6 7 8; do
		want_ok "unload" unload_ours
		want_ok "load" load_ours
		sleep 0.1
	done
	! gone $! || fail "the client has ended: $(cat "$TMP/storm")"
	stop $!
	FLOWS_BEFORE=0
	rules "DEVS=$DEVS" || return
	talks a || return
	flush 1
	conv_close a
}
tcase -o "the module can be unloaded while requests arrive" unload

YNL=${NFT_OFFLOAD_LINUX:-}/tools/net/ynl/pyynl/cli.py
ynl() { at "$rt" python3 "$YNL" --no-schema --spec "$(dirname "$HERE")/netlink/nft_offload.yaml" "$@"; }
by_spec() { # what the kernel has is what the specification says
	[ -e "$YNL" ] || { skip "needs the kernel's tools/net/ynl (NFT_OFFLOAD_LINUX)"; return; }
	python3 -c 'import yaml' 2>/dev/null || { skip "needs python3-yaml"; return; }
	rules "DEVS=$DEVS" || return
	talks a b || return
	want_eq "flush" "$(ynl --output-json --do flush --json '{"nfproto": "inet", "table": "t", "flowtable": "f",
		"ifname": "lan", "ipv4": "10.0.1.0", "prefix-len": 24, "mark": 0, "mark-mask": 255}')" '{"flows": 1}'
	off a; on b
	want_eq "flush" "$(ynl --output-json --do flush --json '{"ipv6": "fd00:2::2"}')" '{"flows": 1}'
	off b
	want_err "no such device" "there is no such device" ynl --do flush --json '{"ifname": "nope"}'
	grep -q "flush-ifname\|\.ifname" "$TMP/out" || note "without the attribute: $(tail -n 2 "$TMP/out" | tr '\n' ' ')"
	hushed a b
}
tcase -o "as the YNL specification says" by_spec

SETUP=setup
run_cases "$@"
