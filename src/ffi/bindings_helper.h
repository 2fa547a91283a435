/* SPDX-License-Identifier: GPL-2.0 */
/* What bindgen reads: the netfilter and routing headers that the kernel crate does not bind. */
#include <linux/etherdevice.h>
#include <linux/inetdevice.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/skbuff.h>
#include <net/addrconf.h>
#include <net/dst.h>
#include <net/flow.h>
#include <net/genetlink.h>
#include <net/ip6_fib.h>
#include <net/neighbour.h>
#include <net/netevent.h>
#include <net/netfilter/nf_conntrack.h>
#include <net/netfilter/nf_conntrack_acct.h>
#include <net/netfilter/nf_conntrack_core.h>
#include <net/netfilter/nf_flow_table.h>
#include <net/netfilter/nf_tables.h>
#include <net/route.h>
#include <net/switchdev.h>
#include "helpers.h"
#include "tc.h"

/* Macros that bindgen cannot evaluate. */
const gfp_t RUST_CONST_HELPER_NFO_GFP_ATOMIC = GFP_ATOMIC;
const u32 RUST_CONST_HELPER_NFO_HZ = HZ;
const u32 RUST_CONST_HELPER_NFO_STATS_LEN = NFO_STATS;
const u32 RUST_CONST_HELPER_NFO_HW_STATS = FLOW_ACTION_HW_STATS_DONT_CARE;
