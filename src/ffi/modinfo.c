// SPDX-License-Identifier: GPL-2.0
/* Module information that the module! macro cannot express. */
#include <linux/module.h>

MODULE_VERSION("0.1.0");
