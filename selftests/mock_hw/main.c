// SPDX-License-Identifier: GPL-2.0
/*
 * A NIC with a flow table, played on devices that have none: it takes the flow rules of a
 * flowtable with "flags offload" through flow_indr_dev_register(), as mlx5 does for the devices
 * above its own (or, with direct, through ndo_setup_tc()), and executes them on real frames, in a netfilter hook at ingress that comes before
 * every flowtable's. Which rules it takes is that of mlx5_core or of the MediaTek PPE driver.
 *
 * Parameters, all but the first three at any time:
 *   profile       mlx5, mtk, airoha (which counts nothing), npu or any: which rules are taken
 *   ports         names of devices, comma-separated; empty: every veth
 *   direct        the NIC is the device's own, with ndo_setup_tc(), instead of one below
 *   exclusive     a device serves one flowtable at a time, as those of mlx5 do
 *   capacity      rules that fit
 *   latency_us    time that a command takes
 *   fail_bind, fail_unbind, fail_add, fail_del, fail_stats
 *                 errno that the next fail_count of these commands return
 *   fail_at       the so many-th operation from now on, of whatever kind (bind, unbind, add, delete,
 *                 statistics), returns fail_errno; 0 afterwards
 *   stub          rules are counted, and neither looked at nor kept: for benchmarks
 *   hold          with stub: rules that are added have to wait for so many milliseconds, or, negative,
 *                 until it is changed
 *   stub_restart  with stub: time is counted from the next rule on
 *   refuse_in     rules for packets that come in by this device are refused
 *   no_lastused   statistics do not say when the last packet was
 *   wcid          with direct: the device is a radio, and this the number of the station behind it
 *   full_errno    what is said when there is no room
 *   deaf_in       rules for packets that come in by this device are taken, and forward none
 *   bind_rate     a rule forwards nothing before so many of its packets have come in a second
 * With NETIF_F_HW_TC off (direct), as those of mtk_eth and airoha, it listens to no command, and keeps its rules.
 * Debugfs, in mock_hw/: rules (what is in the table), stats, reset (write: the table is lost), flap (write
 * N: the driver goes and comes back N times).
 */
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/hashtable.h>
#include <linux/jhash.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <net/net_namespace.h>
#include <net/rtnetlink.h>

#include "mock.h"

char mock_profile[8] = "mlx5";
module_param_string(profile, mock_profile, sizeof(mock_profile), 0444);
static char ports[64];
module_param_string(ports, ports, sizeof(ports), 0444);
static char refuse_in[IFNAMSIZ];
module_param_string(refuse_in, refuse_in, sizeof(refuse_in), 0644);
static bool direct, exclusive, no_lastused;
module_param(direct, bool, 0444);
module_param(no_lastused, bool, 0644);
module_param(exclusive, bool, 0644);
static unsigned int capacity = 65536;
module_param(capacity, uint, 0644);
static unsigned int latency_us;
module_param(latency_us, uint, 0644);
static int fail_bind, fail_unbind, fail_add, fail_del, fail_stats, fail_count;
module_param(fail_bind, int, 0644);
module_param(fail_unbind, int, 0644);
module_param(fail_add, int, 0644);
module_param(fail_del, int, 0644);
module_param(fail_stats, int, 0644);
module_param(fail_count, int, 0644);
static int wcid = -1;
module_param(wcid, int, 0644);
static int full_errno = ENOSPC;
module_param(full_errno, int, 0644);
static char deaf_in[IFNAMSIZ];
module_param_string(deaf_in, deaf_in, sizeof(deaf_in), 0644);
unsigned int mock_bind_rate;
module_param_named(bind_rate, mock_bind_rate, uint, 0644);
static int fail_at, fail_errno = EIO;
module_param(fail_at, int, 0644);
module_param(fail_errno, int, 0644);
static bool stub, stub_restart;
static int hold;
module_param(stub, bool, 0444);
module_param(hold, int, 0644);
module_param(stub_restart, bool, 0644);

static DEFINE_MUTEX(mock_lock);
static DEFINE_MUTEX(mock_flap_lock);
static bool mock_registered;
static DEFINE_HASHTABLE(mock_rules, 12);
static DEFINE_HASHTABLE(mock_cookies, 12);
static LIST_HEAD(mock_ports);
static LIST_HEAD(mock_block_cbs);
static struct dentry *mock_dir;
DEFINE_SPINLOCK(mock_count_lock);
static unsigned int mock_used, mock_max_used;
static u64 mock_adds, mock_dels, mock_stats_asked, mock_refused, mock_full, mock_dup, mock_unknown, mock_failed, mock_flaps;
static u64 mock_overlaps;
static u64 stub_adds, stub_first, stub_last;
u64 mock_forwarded;

/* A failure was asked for. */
static int mock_fail(int err)
{
	if (fail_at > 0 && !--fail_at) {
		mock_failed++;
		return -fail_errno;
	}
	if (!err || !fail_count)
		return 0;
	if (fail_count > 0)
		fail_count--;
	return -err;
}

static u32 mock_hash(const struct mock_key *key)
{
	return jhash(key, sizeof(*key), 0);
}

struct mock_rule *mock_find(const struct mock_key *key)
{
	struct mock_rule *r;

	hash_for_each_possible_rcu(mock_rules, r, node, mock_hash(key))
		if (!memcmp(&r->key, key, sizeof(*key)))
			return r;
	return NULL;
}

static struct mock_rule *mock_find_cookie(unsigned long cookie)
{
	struct mock_rule *r;

	hash_for_each_possible(mock_cookies, r, cookie_node, cookie)
		if (r->cookie == cookie)
			return r;
	return NULL;
}
static int mock_replace(struct mock_port *port, struct flow_cls_offload *f)
{
	struct mock_rule *r;
	int err;

	err = mock_fail(fail_add);
	if (err) {
		mock_refused++;
		return err;
	}
	if (refuse_in[0] && !strcmp(refuse_in, port->dev->name)) {
		mock_refused++;
		return REFUSE(f->common.extack, "Not from this port");
	}
	if (f->common.chain_index || f->common.prio >= 16) {
		mock_refused++;
		return REFUSE(f->common.extack, "Unsupported chain or priority");
	}
	if (mock_find_cookie(f->cookie)) {
		mock_dup++;
		return -EEXIST;
	}
	r = kzalloc(sizeof(*r), GFP_KERNEL);
	if (!r)
		return -ENOMEM;
	err = mock_match(port, f, r);
	if (!err)
		err = mock_actions(f, r);
	if (err) {
		mock_refused++;
		goto free;
	}
	mock_describe(port, f, r);
	if (mock_used >= capacity) {
		mock_full++;
		if (f->common.extack)
			f->common.extack->_msg = "mock_hw: The table is full";
		err = -full_errno;
		goto free;
	}
	rcu_read_lock();
	err = mock_find(&r->key) ? -EEXIST : 0;
	rcu_read_unlock();
	if (err) {
		mock_dup++;
		goto free;
	}
	r->cookie = f->cookie;
	r->port = port;
	r->deaf = deaf_in[0] && !strcmp(deaf_in, port->dev->name);
	r->lastused = jiffies;
	hash_add(mock_cookies, &r->cookie_node, r->cookie);
	hash_add_rcu(mock_rules, &r->node, mock_hash(&r->key));
	mock_used++;
	mock_max_used = max(mock_used, mock_max_used);
	mock_adds++;
	return 0;
free:
	kfree(r);
	return err;
}

static void mock_forget(struct mock_rule *r)
{
	if (!r->lost) {
		hash_del_rcu(&r->node);
		mock_used--;
	}
	hash_del(&r->cookie_node);
	kfree_rcu(r, rcu);
}

/* Nothing but the time is taken. */
static int mock_stub(struct flow_cls_offload *f)
{
	if (f->command == FLOW_CLS_REPLACE) {
		while (READ_ONCE(hold)) {
			fsleep(1000);
			if (hold > 0)
				hold--;
		}
		stub_last = ktime_get_ns();
		stub_adds++;
		if (stub_restart) {
			stub_restart = false;
			stub_first = stub_last;
		}
	}
	return 0;
}

static int mock_command(struct mock_port *port, enum tc_setup_type type, void *type_data)
{
	struct flow_cls_offload *f = type_data;
	struct mock_rule *r;
	int err = 0;

	if (type != TC_SETUP_CLSFLOWER)
		return -EOPNOTSUPP;
	if (stub)
		return mock_stub(f);
	if (direct && !(port->dev->features & NETIF_F_HW_TC))
		return -EOPNOTSUPP;
	if (latency_us)
		fsleep(latency_us);
	mutex_lock(&mock_lock);
	r = mock_find_cookie(f->cookie);
	switch (f->command) {
	case FLOW_CLS_REPLACE:
		err = mock_replace(port, f);
		break;
	case FLOW_CLS_DESTROY:
		err = mock_fail(fail_del);
		if (!r || r->port != port) {
			mock_unknown++;
			err = -ENOENT;
			break;
		}
		/* Drivers say that it failed, and forget it nevertheless. */
		mock_forget(r);
		mock_dels++;
		break;
	case FLOW_CLS_STATS:
		err = mock_fail(fail_stats);
		if (err)
			break;
		if (!r || r->lost || r->port != port) {
			err = -ENOENT;
			break;
		}
		mock_stats_asked++;
		spin_lock_bh(&mock_count_lock);
		if (mock_is("airoha") || mock_is("npu"))
			flow_stats_update(&f->stats, 0, 0, 0, r->lastused, FLOW_ACTION_HW_STATS_DELAYED);
		else
			flow_stats_update(&f->stats, r->bytes - r->told_bytes, r->pkts - r->told_pkts, 0,
					  no_lastused ? 0 : r->lastused, FLOW_ACTION_HW_STATS_DELAYED);
		r->told_bytes = r->bytes;
		r->told_pkts = r->pkts;
		spin_unlock_bh(&mock_count_lock);
		break;
	default:
		err = -EOPNOTSUPP;
	}
	mutex_unlock(&mock_lock);
	return err;
}

/* Drivers are known by these names. */
static int mlx5e_rep_setup_ft_cb(enum tc_setup_type type, void *type_data, void *cb_priv)
{
	return mock_command(cb_priv, type, type_data);
}

static int mtk_eth_setup_tc_block_cb(enum tc_setup_type type, void *type_data, void *cb_priv)
{
	return mock_command(cb_priv, type, type_data);
}

static int airoha_dev_setup_tc_block_cb(enum tc_setup_type type, void *type_data, void *cb_priv)
{
	return mock_command(cb_priv, type, type_data);
}

static int mt76_npu_setup_tc_block_cb(enum tc_setup_type type, void *type_data, void *cb_priv)
{
	return mock_command(cb_priv, type, type_data);
}

static int mock_setup_block_cb(enum tc_setup_type type, void *type_data, void *cb_priv)
{
	return mock_command(cb_priv, type, type_data);
}

static flow_setup_cb_t *mock_cb(void)
{
	if (!strcmp(mock_profile, "mlx5"))
		return mlx5e_rep_setup_ft_cb;
	if (mock_is("mtk"))
		return mtk_eth_setup_tc_block_cb;
	if (mock_is("airoha"))
		return airoha_dev_setup_tc_block_cb;
	if (mock_is("npu"))
		return mt76_npu_setup_tc_block_cb;
	return mock_setup_block_cb;
}

/* Binding */

static bool mock_is_port(const struct net_device *dev)
{
	size_t len = strlen(dev->name);
	const char *p = ports;

	if (!ports[0])
		return dev->rtnl_link_ops && !strcmp(dev->rtnl_link_ops->kind, "veth");
	for (; *p; p = strchrnul(p, ','), p += *p == ',')
		if (!strncmp(p, dev->name, len) && (p[len] == ',' || !p[len]))
			return true;
	return false;
}

static void mock_port_release(void *priv)
{
	struct mock_port *port = priv;
	struct mock_rule *r;
	struct hlist_node *next;
	int i;

	nf_unregister_net_hook(port->net, &port->ops);
	if (latency_us)
		fsleep(latency_us);
	mutex_lock(&mock_lock);
	/* A flowtable that leaves rules behind is at fault; the tests look at this counter. */
	hash_for_each_safe(mock_cookies, i, next, r, cookie_node)
		if (r->port == port) {
			pr_warn("mock_hw: left behind: %s\n", r->text);
			mock_unknown++;
			mock_forget(r);
		}
	list_del(&port->list);
	mutex_unlock(&mock_lock);
	kfree(port);
}

static struct mock_port *mock_port_find(const struct net_device *dev, const void *data)
{
	struct mock_port *port;

	list_for_each_entry(port, &mock_ports, list)
		if (port->dev == dev && port->data == data)
			return port;
	return NULL;
}

static bool mock_dev_bound(const struct net_device *dev)
{
	struct mock_port *port;

	list_for_each_entry(port, &mock_ports, list)
		if (port->dev == dev)
			return true;
	return false;
}

static int mock_bind(struct net_device *dev, struct Qdisc *sch, void *cb_priv, struct flow_block_offload *bo, void *data,
		     void (*cleanup)(struct flow_block_cb *block_cb))
{
	struct flow_block_cb *block_cb;
	struct mock_port *port;
	int err;

	mutex_lock(&mock_lock);
	err = mock_fail(fail_bind);
	if (!err && !mock_is_port(dev))
		err = -EOPNOTSUPP;
	if (!err && (mock_port_find(dev, data) || (exclusive && mock_dev_bound(dev))))
		err = -EEXIST;
	mutex_unlock(&mock_lock);
	if (err)
		return err;
	port = kzalloc(sizeof(*port), GFP_KERNEL);
	if (!port)
		return -ENOMEM;
	port->dev = dev;
	port->net = dev_net(dev);
	port->data = data;
	port->ifindex = dev->ifindex;
	port->ops = (struct nf_hook_ops) {
		.hook = mock_hook,
		.dev = dev,
		.pf = NFPROTO_NETDEV,
		.hooknum = NF_NETDEV_INGRESS,
		.priority = INT_MIN,
		/* It is no filter. */
		.hook_ops_type = NF_HOOK_OP_NFT_FT,
	};
	err = nf_register_net_hook(port->net, &port->ops);
	if (err)
		goto free;
	if (direct)
		block_cb = flow_block_cb_alloc(mock_cb(), port, port, mock_port_release);
	else
		block_cb = flow_indr_block_cb_alloc(mock_cb(), port, port, mock_port_release, bo, dev, sch, data, cb_priv,
						    cleanup);
	if (IS_ERR(block_cb)) {
		err = PTR_ERR(block_cb);
		nf_unregister_net_hook(port->net, &port->ops);
		goto free;
	}
	mutex_lock(&mock_lock);
	list_add(&port->list, &mock_ports);
	list_add_tail(&block_cb->driver_list, &mock_block_cbs);
	mutex_unlock(&mock_lock);
	flow_block_cb_add(block_cb, bo);
	return 0;
free:
	kfree(port);
	return err;
}

static int mock_unbind(struct net_device *dev, struct flow_block_offload *bo, void *data)
{
	struct flow_block_cb *block_cb;
	struct mock_port *port;
	int err;

	mutex_lock(&mock_lock);
	err = mock_fail(fail_unbind);
	if (err) {
		mutex_unlock(&mock_lock);
		return err;
	}
	port = mock_port_find(dev, data);
	block_cb = port ? flow_block_cb_lookup(bo->block, mock_cb(), port) : NULL;
	if (block_cb)
		list_del(&block_cb->driver_list);
	mutex_unlock(&mock_lock);
	if (!block_cb)
		return -ENOENT;
	if (direct)
		flow_block_cb_remove(block_cb, bo);
	else
		flow_indr_block_cb_remove(block_cb, bo);
	return 0;
}

static int mock_indr_cb(struct net_device *dev, struct Qdisc *sch, void *cb_priv, enum tc_setup_type type, void *type_data,
			void *data, void (*cleanup)(struct flow_block_cb *block_cb))
{
	struct flow_block_offload *bo = type_data;

	if (!dev || type != TC_SETUP_FT || !bo)
		return -EOPNOTSUPP;
	switch (bo->command) {
	case FLOW_BLOCK_BIND:
		return mock_bind(dev, sch, cb_priv, bo, data, cleanup);
	case FLOW_BLOCK_UNBIND:
		return mock_unbind(dev, bo, data);
	default:
		return -EOPNOTSUPP;
	}
}

/* A driver of the device itself: veth's with one function more. Such drivers have no lock of their own. */

static struct net_device_ops mock_ops;
static const struct net_device_ops *mock_real_ops;
static atomic_t mock_inside;

static int mock_setup_tc(struct net_device *dev, enum tc_setup_type type, void *type_data)
{
	struct flow_block_offload *bo = type_data;
	int err;

	if (type != TC_SETUP_FT)
		return -EOPNOTSUPP;
	if (atomic_inc_return(&mock_inside) > 1)
		mock_overlaps++;
	if (latency_us)
		fsleep(latency_us);
	if (bo->command == FLOW_BLOCK_BIND)
		err = mock_bind(dev, NULL, NULL, bo, bo->block, NULL);
	else
		err = mock_unbind(dev, bo, bo->block);
	atomic_dec(&mock_inside);
	return err;
}

static int mock_fill_forward_path(struct net_device_path_ctx *ctx, struct net_device_path *path)
{
	path->type = DEV_PATH_MTK_WDMA;
	path->dev = ctx->dev;
	path->mtk_wdma.wcid = wcid;
	ctx->dev = NULL;
	return 0;
}

/* Also called for each device that is there already, and, in the end, still. */
static int mock_netdev_event(struct notifier_block *nb, unsigned long event, void *ptr)
{
	struct net_device *dev = netdev_notifier_info_to_dev(ptr);

	if (event == NETDEV_REGISTER && mock_is_port(dev) && !dev->netdev_ops->ndo_setup_tc &&
	    (!mock_real_ops || mock_real_ops == dev->netdev_ops)) {
		mock_real_ops = dev->netdev_ops;
		mock_ops = *mock_real_ops;
		mock_ops.ndo_setup_tc = mock_setup_tc;
		if (wcid >= 0)
			mock_ops.ndo_fill_forward_path = mock_fill_forward_path;
		dev->netdev_ops = &mock_ops;
		dev->hw_features |= NETIF_F_HW_TC;
		dev->features |= NETIF_F_HW_TC;
		dev->wanted_features |= NETIF_F_HW_TC;
	} else if (event == NETDEV_UNREGISTER && dev->netdev_ops == &mock_ops) {
		dev->netdev_ops = mock_real_ops;
	}
	return NOTIFY_DONE;
}

static struct notifier_block mock_netdev_nb = { .notifier_call = mock_netdev_event };

/* Debugfs */

static int rules_show(struct seq_file *m, void *v)
{
	struct mock_rule *r;
	int i;

	mutex_lock(&mock_lock);
	hash_for_each(mock_cookies, i, r, cookie_node)
		if (!r->lost)
			seq_printf(m, "%s packets %llu bytes %llu\n", r->text, r->pkts, r->bytes);
	mutex_unlock(&mock_lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(rules);

static int stats_show(struct seq_file *m, void *v)
{
	struct mock_port *port;
	int n = 0;

	mutex_lock(&mock_lock);
	list_for_each_entry(port, &mock_ports, list)
		n++;
	seq_printf(m, "ports %d\nrules %u\nmax_rules %u\nadds %llu\ndels %llu\nstats %llu\nrefused %llu\nfull %llu\nforwarded %llu\nduplicates %llu\nunknown %llu\nfailed %llu\nflaps %llu\noverlaps %llu\nstub_adds %llu\nstub_ns %llu\n",
		   n, mock_used, mock_max_used, mock_adds, mock_dels, mock_stats_asked, mock_refused, mock_full, mock_forwarded,
		   mock_dup, mock_unknown, mock_failed, mock_flaps, mock_overlaps, stub_adds, stub_last - stub_first);
	mutex_unlock(&mock_lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

static ssize_t reset_write(struct file *file, const char __user *buf, size_t len, loff_t *ppos)
{
	struct mock_rule *r;
	int i;

	mutex_lock(&mock_lock);
	hash_for_each(mock_cookies, i, r, cookie_node)
		if (!r->lost) {
			hash_del_rcu(&r->node);
			mock_used--;
			r->lost = true;
		}
	mutex_unlock(&mock_lock);
	synchronize_rcu();
	return len;
}

static const struct file_operations reset_fops = {
	.owner = THIS_MODULE,
	.write = reset_write,
};

static ssize_t flap_write(struct file *file, const char __user *buf, size_t len, loff_t *ppos)
{
	unsigned int n;
	int err;

	err = kstrtouint_from_user(buf, len, 0, &n);
	if (err)
		return err;
	mutex_lock(&mock_flap_lock);
	while (n-- && mock_registered && !signal_pending(current)) {
		flow_indr_dev_unregister(mock_indr_cb, NULL, mock_port_release);
		fsleep(1000);
		mock_registered = !flow_indr_dev_register(mock_indr_cb, NULL);
		fsleep(1000);
		mock_flaps++;
	}
	mutex_unlock(&mock_flap_lock);
	return len;
}

static const struct file_operations flap_fops = {
	.owner = THIS_MODULE,
	.write = flap_write,
};

static int __init mock_hw_init(void)
{
	int err;

	if (direct)
		err = register_netdevice_notifier(&mock_netdev_nb);
	else
		err = flow_indr_dev_register(mock_indr_cb, NULL);
	if (err)
		return err;
	mock_registered = !direct;
	mock_dir = debugfs_create_dir("mock_hw", NULL);
	debugfs_create_file("rules", 0400, mock_dir, NULL, &rules_fops);
	debugfs_create_file("stats", 0400, mock_dir, NULL, &stats_fops);
	debugfs_create_file("reset", 0200, mock_dir, NULL, &reset_fops);
	debugfs_create_file("flap", 0200, mock_dir, NULL, &flap_fops);
	return 0;
}

static void __exit mock_hw_exit(void)
{
	debugfs_remove(mock_dir);
	if (direct)
		unregister_netdevice_notifier(&mock_netdev_nb);
	if (mock_registered)
		flow_indr_dev_unregister(mock_indr_cb, NULL, mock_port_release);
	rcu_barrier();
}

module_init(mock_hw_init);
module_exit(mock_hw_exit);

MODULE_DESCRIPTION("a NIC with a flow table, for tests");
MODULE_LICENSE("GPL");
