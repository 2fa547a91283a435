#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What a forwarded packet costs on the ways that routers have, by pktgen.sh, as a Markdown table: the
# in-tree flowtable, ours, how many times less ours is. For a guest whose clock counts instructions (make bench).
#
#   matrix.sh [-m LIST] [-x OPTIONS] [-l] [ROW...]
#
#   ROW         pattern (grep -E) of rows, whole names (all of them)
#   -m LIST     variants, "intree ours"; with "intree" and "ours" in it there is a column with the ratio
#   -x OPTIONS  of pktgen.sh, for every row, such as "-c" or "-6 -N"
#   -l          lists the rows
set -u
BENCH=$(dirname "$(readlink -f "$0")")

# name, way in, way out, more options
ROWS="plain-plain plain plain
bridge-plain bridge plain
bridge-vlan bridge vlan
plain-bridge plain bridge
vlan-bridge vlan bridge
plain-vlan plain vlan
plain-pppoe plain pppoe
bridge-pppoe bridge pppoe
bridge-pppoe-vlan bridge pppoe-vlan
pppoe-vlan-bridge pppoe-vlan bridge
ipv6 plain plain -6
fq_codel plain plain -q fq_codel"

modes="intree ours" options=''
usage() { sed -n '3,/^set -u/s/^# \?//p' "$0"; exit 1; }
while getopts "m:x:lh" o; do
	case $o in
	m) modes=$OPTARG ;;
	x) options=$OPTARG ;;
	l) echo "$ROWS"; exit ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
want=$(IFS='|'; echo "$*")
rows=$(grep -E "^(${want:-[^ ]*}) " <<<"$ROWS") || { echo "matrix.sh: no row is called $want" >&2; exit 1; }

name() { case $1 in classic) echo "classic" ;; intree) echo "in-tree C" ;; ours) echo "nft_offload" ;; fwd) echo "bare redirect" ;; *) echo "$1" ;; esac; }
ratio='' line='| way |' rule='|---|'
[[ " $modes " != *" intree "* || " $modes " != *" ours "* ]] || ratio=1
for m in $modes; do line+=" $(name "$m") |" rule+="---:|"; done
unit=ns
[ -z "${ICOUNT:-}" ] || unit=instructions
echo "$(uname -r), $unit per packet${options:+, $options}"
echo
echo "$line${ratio:+ C : ours |}"
echo "$rule${ratio:+---:|}"
file=$(mktemp) rc=0
trap 'rm -f "$file"' EXIT
while read -r _ in way args; do

	label="$in -> $way"
	case $args in -6) label+=", IPv6" ;; -q*) label+=", ${args#-q } at the way out" ;; esac
	label=${label//pppoe-vlan/PPPoE in a VLAN} label=${label//pppoe/PPPoE} label=${label//vlan/VLAN}
	# shellcheck disable=SC2086
	if ! "$BENCH/pktgen.sh" -r 1 -n 3 -p 800 -m "$modes" -i "$in" -w "$way" $args $options -o "$file" </dev/null >/dev/null; then
		rc=1
		echo "| $label | no figure, see above |"
		continue
	fi
	awk -v label="$label" -v modes="$modes" -v ratio="$ratio" '
		{ cost[$1] = $2 }
		END {
			printf "| %s |", label
			n = split(modes, m, " ")
			for (i = 1; i <= n; i++) printf " %d |", cost[m[i]]
			if (ratio) printf " %.2f |", cost["intree"] / (cost["ours"] > 0 ? cost["ours"] : 1)
			print ""
		}' "$file"
done <<<"$rows"
exit $rc
