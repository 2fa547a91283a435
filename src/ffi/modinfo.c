// SPDX-License-Identifier: GPL-2.0
/* Module information that the module! macro cannot express. */
#include <linux/module.h>

#include "helpers.h"

MODULE_VERSION("0.1.0");

const char *nfo_version(void)
{
	return THIS_MODULE->version ?: "";
}

/* For who loads the in-tree modules by name where they are not installed; where they are, modprobe
 * takes a module's name before an alias, and packaging/modprobe.d has ours loaded first.
 */
MODULE_ALIAS("nf_flow_table_inet");
MODULE_ALIAS("nft_flow_offload");
