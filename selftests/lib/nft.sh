# SPDX-License-Identifier: GPL-2.0
# The ruleset of a test, and the counters that tell arrived from forwarded packets. Behind lib.sh.
# shellcheck shell=bash disable=SC2034,SC2154 # variables are those of lib.sh and of who sources this

# One ruleset for all: two tables that only count (what arrived at the router's
# ports before the flowtable, what the forward chain saw) and the table under
# test. Variables: FAM (inet), DEVS (lan, wan), FLAGS (counter;), NAT (chains),
# FWD (rules before flow add), MATCH (which packets are offloaded), WATCH (where
# arriving packets are counted, DEVS), SEEN (more matches to count: packets in
# something that nftables does not look into), WATCH_PRIO (where among the hooks there, -10), L4 (protocols to count, tcp, udp).

# watch_tables: the two that only count, at the devices in WATCH.
watch_tables() {
	local seen
	# shellcheck disable=SC2001
	seen=$(sed 's/[^;]*[^; ][^;]*/& counter name arrived/g' <<<"${SEEN:-}")
	cat <<-END
	table netdev watch {
		counter arrived { }
		chain in {
			type filter hook ingress devices = { ${WATCH:-${DEVS:-lan, wan}} } priority ${WATCH_PRIO:--10};
			meta l4proto { ${L4:-tcp, udp} } counter name arrived; $seen
		}
	}
	table inet watch {
		counter forwarded { }
		chain forward {
			type filter hook forward priority -10;
			meta l4proto { ${L4:-tcp, udp} } counter name forwarded
		}
	}
	END
}
ruleset() {
	local fam=${FAM:-inet} devs=${DEVS:-lan, wan} table=''
	local add="${MATCH:-meta l4proto { ${L4:-tcp, udp} \}} flow add @f"
	if [ "$FT" = none ]; then
		add="ct state established accept"
	else
		table="flowtable f { hook ingress priority 0; devices = { $devs }; ${FLAGS:-} }"
	fi
	# A chain before the flowtable's hook would keep flows out of hardware.
	local WATCH_PRIO=${WATCH_PRIO:-}
	[[ -n $WATCH_PRIO || ${FLAGS:-} != *offload* ]] || WATCH_PRIO=10
	watch_tables
	cat <<-END
	table $fam t {
		$table
		chain forward {
			type filter hook forward priority 0;
			${FWD:-}
			$add
		}
		${NAT:-}
	}
	END
}
# rules [NAME=VALUE...]: replaces the router's ruleset, forgets all connections.
rules() {
	local FAM=${FAM:-} DEVS=${DEVS:-} FLAGS=${FLAGS:-} NAT=${NAT:-} FWD=${FWD:-} MATCH=${MATCH:-} WATCH=${WATCH:-} SEEN=${SEEN:-} L4=${L4:-} a
	for a in "$@"; do local "$a"; done
	{ echo "flush ruleset"; ruleset; } >"$TMP/rules"
	want_ok "ruleset does not load" nft_rt -f "$TMP/rules" || return
	CNT0=()
	forget
}
# client_rules CMD...: the same with the ruleset of a client: what CMD prints, beside the tables that
# count at the devices in WATCH.
client_rules() {
	{ echo "flush ruleset"; watch_tables; "$@"; } >"$TMP/rules"
	want_ok "ruleset does not load" nft_rt -f "$TMP/rules" || return
	CNT0=()
	forget
}
forget() {
	at "$rt" conntrack -F >/dev/null 2>&1
	[ "$FT" != ours ] || busywait 5000 flows_are "${FLOWS_BEFORE:-0}"
	return 0
}
# counters: reads the two counters of the router into ARRIVED, ARRIVED_BYTES,
# FORWARDED and FORWARDED_BYTES, since counters_zero (or since rules).
declare -A CNT=() CNT0=()
counters() {
	local w v=
	CNT=()
	while read -r -a w; do
		case ${w[0]:-} in
		counter) v=${w[1]} ;;
		packets) CNT[$v]=$((${CNT[$v]:-0} + w[1])) CNT[${v}_b]=$((${CNT[${v}_b]:-0} + w[3])) ;;
		esac
	done < <(nft_rt list counters)
	ARRIVED=$((CNT[arrived] - CNT0[arrived])) ARRIVED_BYTES=$((CNT[arrived_b] - CNT0[arrived_b]))
	FORWARDED=$((CNT[forwarded] - CNT0[forwarded])) FORWARDED_BYTES=$((CNT[forwarded_b] - CNT0[forwarded_b]))
}
counters_zero() {
	local k
	counters
	for k in "${!CNT[@]}"; do CNT0[$k]=${CNT[$k]}; done
	FAST_ZERO=$(stat_get packets_fast)
}
arrived() { counters; echo "$ARRIVED"; }
forwarded() { counters; echo "$FORWARDED"; }
# fast: packets_fast since counters_zero; 0 where there is no such counter
fast() { local s; s=$(stat_get packets_fast); echo $((${s:-0} - ${FAST_ZERO:-0})); }
