# SPDX-License-Identifier: GPL-2.0
# Shared by every script that builds or boots something: where the cache is,
# how an artefact gets into it, and how to run a command in the Debian root.
# shellcheck shell=bash

set -euo pipefail

SRC=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
LANES_DIR=$SRC/tools/lanes
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/nft-offload
# shellcheck disable=SC2034 # for the scripts that source this
SUITE=trixie
MIRROR=${MIRROR:-http://deb.debian.org/debian}
# Ubuntu, for one, does not trust Debian's keys by itself.
# shellcheck disable=SC2034
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

say()  { printf '[%s] %s\n' "$(date +%T)" "$*" >&2; }
die()  { printf 'error: %s\n' "$*" >&2; exit 1; }

# key FILE-OR-STRING... : a short stable key of what an artefact depends on.
key() {
	local x
	for x in "$@"; do
		if [ -f "$x" ]; then cat "$x"; else printf '%s\n' "$x"; fi
	done | sha256sum | cut -c1-12
}

# toolchain ROOT: the versions of what compiles kernels and modules in a root.
toolchain() {
	chroot "$1" dpkg-query -W gcc-14 clang lld rustc rust-src bindgen dwarves binutils
}

# artefact DIR BUILDER [ARG...]: run "BUILDER DIR ARG..." unless it has succeeded before. It is
# built in place, because build folders hold their own absolute names, under a lock, and counts
# only once .done is there: an interrupted build is started again from nothing.
artefact() {
	local dir=$1; shift
	[ -e "$dir/.done" ] && return 0
	mkdir -p "$CACHE"
	(
		flock 9
		[ -e "$dir/.done" ] && exit 0
		rm -rf --one-file-system "$dir"
		mkdir -p "$dir"
		"$@" "$dir" || exit 1
		touch "$dir/.done"
	) 9>"$dir.lock"
}

# need COMMAND-OR-FILE [PACKAGE]: install the host package that provides it, if it is missing.
need() {
	local cmd=$1 pkg=${2:-$1}
	case $cmd in
	/*) [ ! -e "$cmd" ] || return 0 ;;
	*) ! command -v "$cmd" >/dev/null || return 0 ;;
	esac
	command -v apt-get >/dev/null || die "'$cmd' is missing and this is not a Debian-like system: install $pkg"
	[ "$(id -u)" = 0 ] || die "'$cmd' is missing: as root, apt-get install $pkg"
	say "installing host package $pkg"
	[ -n "$(find /var/lib/apt/lists -name '*Packages*' -mtime -2 -print -quit 2>/dev/null)" ] ||
		apt-get -qq update >&2
	DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$pkg" >&2 ||
		die "could not install $pkg"
}

# in_root ROOT CMD...: CMD in the Debian root, in a mount namespace of its own so
# that nothing stays mounted. The project and the cache are visible at their host
# paths, so builds inside and outside agree about file names.
in_root() {
	local root=$1; shift
	mkdir -p "$root$SRC" "$root$CACHE"
	unshare --mount --propagation private -- "$LANES_DIR/enter-root" "$root" "$SRC" "$CACHE" "$@"
}
