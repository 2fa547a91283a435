// SPDX-License-Identifier: GPL-2.0
/*
 * One use after free, on purpose: the debug lane loads this to see that KASAN is really on.
 * Loading fails, so that there is nothing to unload.
 */
#include <linux/module.h>
#include <linux/slab.h>

static int __init kasan_canary_init(void)
{
	int *p = kmalloc(sizeof(*p), GFP_KERNEL);

	if (!p)
		return -ENOMEM;
	OPTIMIZER_HIDE_VAR(p);
	kfree(p);
	pr_info("read after free: %d\n", READ_ONCE(*p));
	return -ECANCELED;
}
module_init(kasan_canary_init);

MODULE_DESCRIPTION("one deliberate use after free");
MODULE_LICENSE("GPL");
