// SPDX-License-Identifier: GPL-2.0
/* /proc/net/stat/nft_offload: work that waits for hardware, in the columns of nf_flow_table.ko. Not
 * under that module's name, nf_flowtable: it could not be loaded any more (act_ct needs it).
 */
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/seq_file_net.h>
#include <net/net_namespace.h>

#include "helpers.h"

static int nfo_work_show(struct seq_file *seq, void *v)
{
	struct nfo_work work = {};

	nfo_work_pending(seq_file_single_net(seq), &work);
	seq_puts(seq, "wq_add   wq_del   wq_stats\n");
	seq_printf(seq, "%8u %8u %8u\n", work.add, work.del, work.stats);
	return 0;
}

static int __net_init nfo_proc_net_init(struct net *net)
{
	if (!IS_ENABLED(CONFIG_PROC_FS))
		return 0;
	return proc_create_net_single("nft_offload", 0444, net->proc_net_stat, nfo_work_show,
				      NULL) ? 0 : -ENOMEM;
}

static void __net_exit nfo_proc_net_exit(struct net *net)
{
	remove_proc_entry("nft_offload", net->proc_net_stat);
}

static struct pernet_operations nfo_proc_net_ops = {
	.init = nfo_proc_net_init,
	.exit = nfo_proc_net_exit,
};

int nfo_proc_register(void)
{
	return register_pernet_subsys(&nfo_proc_net_ops);
}

void nfo_proc_unregister(void)
{
	unregister_pernet_subsys(&nfo_proc_net_ops);
}
