// SPDX-License-Identifier: GPL-2.0
/* Flow blocks: where drivers take flow rules (TC_SETUP_FT). The rules are made in Rust. */
#include <linux/slab.h>
#include <net/netfilter/nf_tables.h>

#include "helpers.h"
#include "tc.h"

/* A driver unregisters itself: called without any lock of the flow_indr code. */
static void nfo_port_cleanup(struct flow_block_cb *block_cb)
{
	struct nfo_port *port = block_cb->indr.data;

	port->gone(port);
	down_write(&port->lock);
	list_del(&block_cb->list);
	list_del(&block_cb->driver_list);
	flow_block_cb_free(block_cb);
	up_write(&port->lock);
}

struct nfo_port *nfo_port_new(struct net_device *dev, struct nf_flowtable *ft, void *engine,
			      void (*gone)(struct nfo_port *port))
{
	struct nfo_port *port = kzalloc(sizeof(*port), GFP_KERNEL);

	if (!port)
		return NULL;
	flow_block_init(&port->block);
	init_rwsem(&port->lock);
	port->dev = dev;
	port->ft = ft;
	port->engine = engine;
	port->gone = gone;
	return port;
}

void nfo_port_free(struct nfo_port *port)
{
	kfree(port);
}

static int nfo_port_setup(struct nfo_port *port, enum flow_block_command cmd, struct flow_block_offload *bo,
			  struct netlink_ext_ack *extack)
{
	struct net_device *dev = port->dev;
	int err;

	*bo = (struct flow_block_offload) {
		.command	= cmd,
		.binder_type	= FLOW_BLOCK_BINDER_TYPE_CLSACT_INGRESS,
		.net		= dev_net(dev),
		.block		= &port->block,
		.extack		= extack,
		.cb_list_head	= &port->block.cb_list,
	};
	INIT_LIST_HEAD(&bo->cb_list);
	if (!dev->netdev_ops->ndo_setup_tc) {
		err = flow_indr_dev_setup_offload(dev, NULL, TC_SETUP_FT, port, bo, nfo_port_cleanup);
		return err < 0 ? err : 0;
	}
	down_write(&port->lock);
	err = dev->netdev_ops->ndo_setup_tc(dev, TC_SETUP_FT, bo);
	up_write(&port->lock);
	return err;
}

/* -EOPNOTSUPP: there is no hardware, or a driver that takes no rules. */
int nfo_port_bind(struct nfo_port *port)
{
	struct netlink_ext_ack extack = {};
	struct flow_block_offload bo;
	int err;

	err = nfo_port_setup(port, FLOW_BLOCK_BIND, &bo, &extack);
	if (!err && list_empty(&bo.cb_list))
		err = -EOPNOTSUPP;
	if (err)
		/* What was remembered for drivers that come later. */
		goto unbind;
	down_write(&port->lock);
	list_splice(&bo.cb_list, &port->block.cb_list);
	up_write(&port->lock);
	return 0;
unbind:
	nfo_port_unbind(port);
	return err;
}

void nfo_port_unbind(struct nfo_port *port)
{
	struct netlink_ext_ack extack = {};
	struct flow_block_cb *block_cb, *next;
	struct flow_block_offload bo;

	nfo_port_setup(port, FLOW_BLOCK_UNBIND, &bo, &extack);
	down_write(&port->lock);
	list_for_each_entry_safe(block_cb, next, &bo.cb_list, list) {
		list_del(&block_cb->list);
		flow_block_cb_free(block_cb);
	}
	up_write(&port->lock);
}

/* Drivers have no name here but that of the function that takes the rules. */
void nfo_port_driver(struct nfo_port *port, char *buf, u32 len)
{
	struct flow_block_cb *block_cb;

	buf[0] = 0;
	down_read(&port->lock);
	block_cb = list_first_entry_or_null(&port->block.cb_list, struct flow_block_cb, list);
	if (block_cb)
		snprintf(buf, len, "%ps", block_cb->cb);
	up_read(&port->lock);
}

/* Gives a command to the drivers of a device; 0 if one of them accepts, else the last error. */
int nfo_port_call(struct nfo_port *port, struct nfo_rule *r, u32 command, unsigned long cookie)
{
	struct flow_block_cb *block_cb;
	int err = -ENODEV, ret;
	bool ok = false;

	memset(&r->cls, 0, sizeof(r->cls));
	r->extack._msg = NULL;
	r->cls.common.protocol = htons(ETH_P_ALL);
	/* Drivers take it for unsigned. */
	r->cls.common.prio = max(port->ft->priority, 0);
	r->cls.common.extack = &r->extack;
	r->cls.command = command;
	r->cls.cookie = cookie;
	if (command == FLOW_CLS_REPLACE)
		r->cls.rule = r->rule;

	down_read(&port->lock);
	list_for_each_entry(block_cb, &port->block.cb_list, list) {
		ret = block_cb->cb(TC_SETUP_CLSFLOWER, &r->cls, block_cb->cb_priv);
		if (ret < 0)
			err = ret;
		else
			ok = true;
	}
	up_read(&port->lock);
	return ok ? 0 : err;
}

struct nfo_rule *nfo_rule_new(void)
{
	struct nfo_rule *r = kzalloc(sizeof(*r), GFP_KERNEL);

	if (!r)
		return NULL;
	r->rule = flow_rule_alloc(NFO_RULE_ACTIONS);
	if (!r->rule) {
		kfree(r);
		return NULL;
	}
	r->rule->match.dissector = &r->match.dissector;
	r->rule->match.key = &r->match.key;
	r->rule->match.mask = &r->match.mask;
	return r;
}

void nfo_rule_free(struct nfo_rule *r)
{
	kfree(r->rule);
	kfree(r);
}

/* An empty rule, with the places of all keys that may be used. */
void nfo_rule_clear(struct nfo_rule *r)
{
#define KEY(id, field) (r->match.dissector.offset[FLOW_DISSECTOR_KEY_##id] = offsetof(struct nf_flow_key, field))
	memset(&r->match, 0, sizeof(r->match));
	KEY(META, meta);
	KEY(CONTROL, control);
	KEY(BASIC, basic);
	KEY(VLAN, vlan);
	KEY(CVLAN, cvlan);
	KEY(IPV4_ADDRS, ipv4);
	KEY(IPV6_ADDRS, ipv6);
	KEY(TCP, tcp);
	KEY(PORTS, tp);
#undef KEY
	r->rule->action.num_entries = 0;
}

/* The next action, or NULL if there is no place left. */
struct flow_action_entry *nfo_rule_action(struct nfo_rule *r)
{
	struct flow_action *actions = &r->rule->action;
	struct flow_action_entry *entry;

	if (actions->num_entries >= NFO_RULE_ACTIONS)
		return NULL;
	actions->num_entries++;
	entry = &actions->entries[actions->num_entries - 1];
	memset(entry, 0, sizeof(*entry));
	entry->hw_stats = FLOW_ACTION_HW_STATS_DONT_CARE;
	return entry;
}

struct net_device *nfo_dev_get(struct net *net, u32 ifindex)
{
	return dev_get_by_index(net, ifindex);
}

void nfo_dev_put(struct net_device *dev)
{
	dev_put(dev);
}

/* Where a device is in the list of a flowtable: 0 not there yet (it is added to one that exists),
 * 1 there, 2 the last one. A flowtable that is being created has all of them in its list, and
 * nf_tables binds them in this order.
 */
int nfo_dev_place(const struct nft_flowtable *ft, const struct net_device *dev)
{
	const struct net_device *last = NULL;
	const struct nf_hook_ops *ops;
	const struct nft_hook *hook;
	bool found = false;

	list_for_each_entry(hook, &ft->hook_list, list) {
		list_for_each_entry(ops, &hook->ops_list, list) {
			last = ops->dev;
			found |= last == dev;
		}
	}
	return !found ? 0 : last == dev ? 2 : 1;
}
