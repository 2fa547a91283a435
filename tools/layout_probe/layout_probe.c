// SPDX-License-Identifier: GPL-2.0
/* Compiled by check-layout for its debug information, never loaded. */
#include <linux/module.h>
#include <net/netfilter/nf_conntrack_l4proto.h>
#include "bindings_helper.h"

MODULE_DESCRIPTION("type information for check-layout");
MODULE_LICENSE("GPL");
