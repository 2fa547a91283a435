#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What the owner of a namespace can make others wait for.
#
#   bench/owners.sh end [FLOWTABLES [ROUNDS]]    a namespace with that many empty flowtables (600) ends: how long
#                                                the end of another one, that has none, takes then
#   bench/owners.sh flush [FLOWS [CLIENTS [ROUNDS]]]
#                                                a namespace with that many flows (200000) is flushed by that many
#                                                clients (100) at once: how long device events take elsewhere,
#                                                three in a round (30)
#
# FT=ours (default) or intree; of the in-tree module nobody can ask for a flush: there the clients look at
# each connection instead. Medians of the rounds, in milliseconds.

# shellcheck disable=SC2119 # names that lib.sh has too

# shellcheck source=../lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=../lib/owners.sh
. "$HERE/lib/owners.sh"

trap cleanup EXIT
trap 'exit 1' INT TERM HUP
ft_setup
case ${1:-} in
end)
	n=${2:-600} rounds=${3:-3} all=()
	for ((i = 0; i < rounds; i++)); do
		flowtables_end "$n" || exit 1
		all+=("$ELAPSED")
		note "with $n flowtables: $ELAPSED ms"
	done
	flowtables_end 0 || exit 1
	note "with none: $ELAPSED ms"
	printf '%s\n' "${all[@]}" | sort -n | awk -v n="$n" '{ v[NR] = $1 } END { print "end_of_" n "_flowtables_ms", v[int((NR + 1) / 2)] }'
	;;
flush)
	flows=${2:-200000} clients=${3:-100} rounds=${4:-30}
	many_flows "$flows" || exit 1
	note "$(conntracks) connections, $(offloads) offloaded"
	events_take "$rounds" || exit 1
	note "quiet: $EVENTS"
	flushes_begin "$clients"
	events_take "$rounds" || exit 1
	note "with $clients clients: $EVENTS"
	flushes_end
	echo "device_event_ms median ${EVENTS% *} worst ${EVENTS#* }"
	;;
*)	sed -n '3,/^$/s/^# \?//p' "$0"; exit 2 ;;
esac
