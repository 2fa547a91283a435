#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What `make install` leaves behind may never cost a machine its firewall: with packaging/modprobe.d in
# place the module is there, is gone, belongs to another kernel or does not load. modprobe works on a
# modules folder of the test's own, also when the kernel calls it.
#
#      cl                       rt                        sv
#   eth0 10.0.1.2 ---- lan 10.0.1.1  wan 10.0.2.1 ---- eth0 10.0.2.2

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

V4=10.0.2.2
CONF=$HERE/../packaging/modprobe.d
MODS=$TMP/mods
KVER=$(uname -r)
MODPROBE=$(cat /proc/sys/kernel/modprobe)
cleanup() { echo "$MODPROBE" >/proc/sys/kernel/modprobe; cleanup_all; rm -rf "$TMP"; }

setup() { lan_wan && serve "$sv"; }

# modules VERSION [ours|broken] [intree]: a modules folder with these in it, and what they need
modules() {
	local d=$MODS/lib/modules/$1 f m
	rm -rf "$d"
	mkdir -p "$d/updates" "$d/kernel"
	cp "/lib/modules/$KVER/modules.builtin"* "/lib/modules/$KVER/modules.order" "$d/" 2>/dev/null
	m=nft_offload
	case " $* " in *" intree "*) m+=" $NAMES" ;; esac
	for m in $m; do
		modprobe -n --show-depends "$m" 2>/dev/null
	done | while read -r _ f _; do
		case $f in *nft_offload.ko*) ;; /*) [ -e "$d/kernel/${f##*/}" ] || cp "$f" "$d/kernel/" ;; esac
	done
	case " $* " in
	*" ours "*) cp "$NFT_OFFLOAD_KO" "$d/updates/nft_offload.ko" ;;
	*" broken "*) # one that is refused
		LC_ALL=C sed 's/vermagic=[0-9]/vermagic=0/' "$NFT_OFFLOAD_KO" >"$d/updates/nft_offload.ko" ;;
	esac
	depmod -b "$MODS" "$1" || fail "depmod"
}
# would VERSION NAME: the modules that modprobe NAME would load, in order; the in-tree ones and ours only
would() {
	modprobe -d "$MODS" -C "$CONF" -S "$1" -nv "$2" >"$TMP/would" 2>&1 || { fail "modprobe -nv $2: $(tail -n1 "$TMP/would")"; return 1; }
	sed -n 's,^insmod .*/\([a-z_]*\)\.ko.*,\1,p' "$TMP/would" | grep -xE 'nft_offload|nf_flow_table_inet|nft_flow_offload' | awk '!seen[$0]++' | tr '\n' ' '
}
NAMES="nf_flow_table_inet nft_flow_offload"
ALIASES="nf-flowtable-1 nf-flowtable-2 nf-flowtable-10 nft-expr-flow_offload"
have_all() {
	[ -n "${NFT_OFFLOAD_KO:-}" ] || { skip "needs NFT_OFFLOAD_KO"; return; }
	# -n loads nothing: the debug kernel can say what it would do
	modprobe -qn nf_flow_table_inet && modprobe -qn nft_flow_offload || skip "no in-tree flowtable modules"
}

both() {
	local n
	have_all || return
	modules "$KVER" ours intree
	unload_all || return
	for n in $NAMES $ALIASES; do
		case $(would "$KVER" "$n") in
		"nft_offload nf"[_t]*) ;;
		*) fail "modprobe $n: $(would "$KVER" "$n")" ;;
		esac
	done
	want_eq "its own name" "$(would "$KVER" kmod-nft-offload)" "nft_offload "
	load_ours
}
tcase -o "modprobe by any name loads ours first" both

alone() { # as where a package takes the place of the in-tree one
	local n
	have_all || return
	modules "$KVER" ours
	unload_all || return
	for n in $NAMES ${ALIASES% *}; do want_eq "modprobe $n" "$(would "$KVER" "$n")" "nft_offload "; done
	load_ours
}
tcase -o "where the in-tree modules are not installed, their names are ours" alone

without() { # without KIND: what modprobe loads without ours
	local n m v=$KVER
	have_all || return
	unload_all || return
	case $1 in
	removed) modules "$v" intree ;;
	stale) modules "$v" ours intree; rm "$MODS/lib/modules/$v/updates/nft_offload.ko" ;;
	upgrade) modules "$v" ours intree; v=99.0-upgraded; modules $v intree ;;
	esac
	for n in $NAMES $ALIASES; do
		m=nf_flow_table_inet
		case $n in nft*) m=nft_flow_offload ;; esac
		# without depmod it would try, and pass over it
		want_eq "modprobe $n" "$(would "$v" "$n" | sed 's/^nft_offload //')" "$m "
	done
	load_ours
}
tcase -o "without the module modprobe finds the in-tree ones" without removed
tcase -o "without the module and without depmod: the in-tree ones" without stale
tcase -o "after a kernel upgrade without the module: the in-tree ones" without upgrade

unload_all() { nft_rt flush ruleset; want_ok "unload" unload_ours && want_ok "unload the in-tree modules" unload_intree; }

# by_kernel KIND WHO: a ruleset is loaded, and the kernel has to ask for its flowtable; WHO serves it
by_kernel() {
	have_intree && have_all || return
	unload_all || return
	case $1 in
	stale) modules "$KVER" ours intree; rm "$MODS/lib/modules/$KVER/updates/nft_offload.ko" ;;
	*)
		# shellcheck disable=SC2086
		modules "$KVER" $1 ;;
	esac
	printf '#!/bin/sh\nexec modprobe -d %s -C %s "$@"\n' "$MODS" "$CONF" >"$TMP/modprobe"
	chmod +x "$TMP/modprobe"
	echo "$TMP/modprobe" >/proc/sys/kernel/modprobe
	if rules FLAGS="counter;"; then
		if [ "$2" = ours ]; then
			BYTES=300000 bypass tcp $V4
		else
			! loaded nft_offload || fail "nft_offload is loaded"
			FT=intree BYTES=300000 bypass tcp $V4
		fi
	fi
	echo "$MODPROBE" >/proc/sys/kernel/modprobe
	unload_all
	load_ours || fail "cannot get back to our module alone"
}
tcase -o "nft loads a ruleset: ours serves"                                      by_kernel "ours intree" ours
tcase -o "nft loads a ruleset, in-tree not installed: ours serves"               by_kernel ours ours
tcase -o "nft loads a ruleset, ours is gone: the in-tree modules serve"          by_kernel intree intree
tcase -o "nft loads a ruleset, ours is gone without depmod: in-tree serves"      by_kernel stale intree
tcase -o "nft loads a ruleset, ours does not load: the in-tree modules serve"    by_kernel "broken intree" intree

SETUP=setup
run_cases "$@"
