# SPDX-License-Identifier: GPL-2.0
# A tunnel between the router and the server, for tunnel.sh and ipsec.sh. Behind lib.sh.
#
#      cl                       rt                          sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ----- eth0 10.0.2.2
#      fd00:1::2          fd00:1::1      fd00:2::1          fd00:2::2
#                                    tun 10.0.3.1 ===== tun 10.0.3.2
#                                        fd00:3::1          fd00:3::2
#                                                        lo 10.9.9.9 fd00:9::9
# shellcheck shell=bash disable=SC2034,SC2154 # variables are those of lib.sh and of who sources this

V4=10.9.9.9 V6=fd00:9::9
SEEN="meta l4proto { 4, 41, 47, 50 }; meta protocol { vlan, 8021ad }" SLACK=12
setup() {
	lan_wan || return
	ipn "$rt" link set wan mtu 1600; ipn "$sv" link set eth0 mtu 1600
	ipn "$sv" addr add $V4/32 dev lo
	ipn "$sv" addr add $V6/128 dev lo
	{ echo "link add link wan name wan.7 up type vlan id 7"; addr_lines wan.7 10.0.7.1/24 fd00:7::1/64; } | batch "$rt"
	{ echo "link add link eth0 name eth0.7 up type vlan id 7"; addr_lines eth0.7 10.0.7.2/24 fd00:7::2/64; } | batch "$sv"
	serve "$sv"
	rm "$TMP/serve.$sv"
	serve "$sv" 5001
}
THROUGH="route replace $V4 via 10.0.3.2 dev tun
route replace $V6 via fd00:3::2 dev tun"
BACK="route replace 10.0.1.0/24 via 10.0.3.1 dev tun src $V4
route replace fd00:1::/64 via fd00:3::1 dev tun src $V6"
# tun NET KIND OPTION...: the tunnel and the routes through it; LOCAL and REMOTE
# in the options stand for the router's and the server's address
tun() {
	local l4=10.0.$1.1 r4=10.0.$1.2 l6=fd00:$1::1 r6=fd00:$1::2 kind=$2 rt_opt sv_opt; shift 2
	rt_opt="$*" sv_opt="$*"
	rt_opt=${rt_opt//LOCAL4/$l4}; rt_opt=${rt_opt//REMOTE4/$r4}; rt_opt=${rt_opt//LOCAL6/$l6}; rt_opt=${rt_opt//REMOTE6/$r6}
	sv_opt=${sv_opt//LOCAL4/$r4}; sv_opt=${sv_opt//REMOTE4/$l4}; sv_opt=${sv_opt//LOCAL6/$r6}; sv_opt=${sv_opt//REMOTE6/$l6}
	untun
	{ echo "link add tun mtu 1400 type $kind $rt_opt"; addr_lines tun 10.0.3.1/24 fd00:3::1/64
	echo "$THROUGH"; } >"$TMP/batch.rt"
	{ echo "link add tun mtu 1400 type $kind $sv_opt"; addr_lines tun 10.0.3.2/24 fd00:3::2/64
	echo "$BACK"; } >"$TMP/batch.sv"
	want_ok "router's tunnel" batch "$rt" <"$TMP/batch.rt" && want_ok "server's tunnel" batch "$sv" <"$TMP/batch.sv"
}
untun() {
	local n
	# back to routes through wan
	printf 'route replace 10.0.1.0/24 via 10.0.2.1\nroute replace fd00:1::/64 via fd00:2::1\n' | batch "$sv"
	nft_rt flush ruleset
	for n in "$rt" "$sv"; do
		! ipn "$n" -br link | grep -q '^tun@\|^tun ' || ipn "$n" link del tun
	done
	return 0
}

# inside NET KIND INSIDE DEVS [OPTION...]: 10.0.NET.x is below; INSIDE is 4, 6 or 46
inside() {
	local net=$1 kind=$2 what=$3 devs=$4 to=(); shift 4
	tun "$net" "$kind" "$@" || return
	[[ $what != *4* ]] || to+=("$V4")
	[[ $what != *6* ]] || to+=("$V6")
	rules DEVS="$devs" WATCH="${WATCH_:-lan, wan}" || return
	bypass_all "${to[@]}"
}
on_tun() { local WATCH_="lan, tun"; inside "$@"; }
V4OUT="local LOCAL4 remote REMOTE4" V6OUT="local LOCAL6 remote REMOTE6"

# followed: the devices that the router's flowtable follows
followed() { awk -v n="$(stat -Lc %i "/run/netns/$rt")" '$2 == n { sub(/.* followed /, ""); print $1 }' $DEBUGFS/flowtables; }
follows() { [ "$(followed)" = "$1" ]; }
