// SPDX-License-Identifier: GPL-2.0
/* Module information that the module! macro cannot express. */
#include <linux/module.h>

MODULE_VERSION("0.1.0");
/* conntrack is found at run time, by nf_ct_netns_get(): nothing links to the per-family parts. */
MODULE_SOFTDEP("pre: nf_conntrack");
