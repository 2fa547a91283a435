// SPDX-License-Identifier: GPL-2.0
/* Module parameters that can be changed: the Rust side of modules has read-only ones only. */
#include <linux/moduleparam.h>
#include <linux/string.h>

#include "helpers.h"

static const char * const dscp_modes[] = { "keep", "restore" };
static int dscp_mode;

static int dscp_set(const char *val, const struct kernel_param *kp)
{
	int mode = sysfs_match_string(dscp_modes, val);

	if (mode < 0)
		return mode;
	WRITE_ONCE(dscp_mode, mode);
	return 0;
}

static int dscp_get(char *buf, const struct kernel_param *kp)
{
	return sysfs_emit(buf, "%s\n", dscp_modes[READ_ONCE(dscp_mode)]);
}

static const struct kernel_param_ops dscp_ops = {
	.set = dscp_set,
	.get = dscp_get,
};

module_param_cb(dscp, &dscp_ops, NULL, 0644);
MODULE_PARM_DESC(dscp, "DSCP of fast packets: keep it (default), or restore what the ruleset made of it");

static unsigned int max_flows;
module_param(max_flows, uint, 0644);
MODULE_PARM_DESC(max_flows, "Flows that a flowtable has at most, 0 (default): as many as conntrack has connections");

u32 nfo_max_flows(void)
{
	return READ_ONCE(max_flows);
}

bool nfo_dscp_restored(void)
{
	return READ_ONCE(dscp_mode) == 1;
}
