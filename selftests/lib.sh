# SPDX-License-Identifier: GPL-2.0
# Shared by every selftest, by subject: lib/ktap.sh has cases and their output, lib/module.sh the
# flowtable under test, lib/net.sh namespaces, lib/nft.sh rulesets and counters, lib/ct.sh conntrack,
# lib/traffic.sh traffic and the three proofs that packets went around the forward chain. Tests of
# hardware source lib/hw.sh as well. A test sources this file, names its cases with tcase and ends
# with run_cases "$@"; SETUP names a function to run before the first. Environment:
#
#   FT=ours     nft_offload.ko (the default)
#   FT=intree   the kernel's own nf_flow_table_inet.ko + nft_flow_offload.ko
#   FT=none     no flowtable at all: every case that claims a bypass must fail
#
# Arguments of a test: patterns (grep -E) of the cases to run; -l lists them. With KSFT_TIMES=1 each case
# says how long it took.
# shellcheck shell=bash disable=SC2034

HERE=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
FT=${FT:-ours}
TMP=$(mktemp -d /tmp/nft_offload.XXXXXX)
DEBUGFS=/sys/kernel/debug/nft_offload
INTREE="nft_flow_offload nf_flow_table_inet nf_flow_table"
KSFT_SKIP=4
# "${PY[@]}" NAME ARGUMENT...: NAME.py. Where each instruction is emulated, compiling a script and looking
# for packages takes most of a second.
PY=(python3 -I -S -X "pycache_prefix=$TMP/pycache" -c
	'import sys; sys.path.insert(0, sys.argv.pop(1)); sys.argv.pop(0); __import__(sys.argv[0]).main()' "$HERE")
export LC_ALL=C PYTHONDONTWRITEBYTECODE=1
ulimit -c 0

# shellcheck source=lib/ktap.sh
. "$HERE/lib/ktap.sh"
# shellcheck source=lib/module.sh
. "$HERE/lib/module.sh"
# shellcheck source=lib/net.sh
. "$HERE/lib/net.sh"
# shellcheck source=lib/nft.sh
. "$HERE/lib/nft.sh"
# shellcheck source=lib/ct.sh
. "$HERE/lib/ct.sh"
# shellcheck source=lib/traffic.sh
. "$HERE/lib/traffic.sh"
