// SPDX-License-Identifier: GPL-2.0
/* Flow blocks: where drivers take flow rules (TC_SETUP_FT). The rules are made in Rust. */
#include <linux/if_vlan.h>
#include <linux/slab.h>
#include <linux/user_namespace.h>
#include <net/dsa.h>
#include <net/netfilter/nf_tables.h>

#include "helpers.h"
#include "tc.h"

/* A port ends when it is unbound and no callback refers to it any more. Where a driver unregisters
 * itself, flow_indr takes its callbacks off its own list first and gives them to nfo_port_cleanup()
 * later, without a lock: a port that is unbound between the two stays until then. Taken before a
 * port's own lock; the last one that a callback's clean-up touches.
 */
static DEFINE_MUTEX(nfo_ports);

/* Drivers keep the callbacks of all their devices in one list, and count on the caller for a lock.
 * Ours are the worker of any flowtable and the nf_tables commits of any network namespace. Taken
 * around a port's own lock, and around nothing of the flow_indr code, which has a lock for this.
 */
static DEFINE_MUTEX(nfo_drivers);

/* For callbacks whose driver is on the way out. */
static int nfo_port_nobody(enum tc_setup_type type, void *type_data, void *cb_priv)
{
	return -ENODEV;
}

struct nfo_port *nfo_port_new(struct net_device *dev, struct nf_flowtable *ft, void (*gone)(struct nfo_port *port))
{
	struct nfo_port *port = kzalloc(sizeof(*port), GFP_KERNEL);

	if (!port)
		return NULL;
	flow_block_init(&port->block);
	mutex_init(&port->lock);
	port->dev = dev;
	port->ft = ft;
	port->gone = gone;
	port->free = NFO_NO_SLOT;
	return port;
}

static void nfo_port_free(struct nfo_port *port)
{
	kvfree(port->slots);
	kfree(port);
}

static void nfo_port_command(struct nfo_port *port, struct flow_cls_offload *cls, u32 command, unsigned long cookie,
			     struct netlink_ext_ack *extack)
{
	memset(cls, 0, sizeof(*cls));
	cls->common.protocol = htons(ETH_P_ALL);
	/* Drivers take it for unsigned. */
	cls->common.prio = port->prio;
	cls->common.extack = extack;
	cls->command = command;
	cls->cookie = cookie;
}

static void nfo_port_free_slot(struct nfo_port *port, u32 slot)
{
	port->undead -= port->slots[slot].undead;
	port->slots[slot] = (struct nfo_slot) { .next = port->free };
	port->free = slot;
}

/* Deletes the rule in a slot. What drivers say to it does not matter mostly: they forget the rule.
 * With NETIF_F_HW_TC off some do not listen, and keep it: this one waits, with its slot, for the
 * time when they do again.
 */
static void nfo_port_destroy(struct nfo_port *port, u32 slot)
{
	struct nfo_slot *s = &port->slots[slot];
	struct netlink_ext_ack extack = {};
	struct flow_block_cb *block_cb;
	bool refused = false, heard = false;
	struct flow_cls_offload cls;
	int err;

	lockdep_assert_held(&port->lock);
	if (s->cookie) {
		nfo_port_command(port, &cls, FLOW_CLS_DESTROY, s->cookie, &extack);
		list_for_each_entry(block_cb, &port->block.cb_list, list) {
			err = block_cb->cb(TC_SETUP_CLSFLOWER, &cls, block_cb->cb_priv);
			/* One of several may take no rules at all. */
			refused |= err == -EOPNOTSUPP;
			heard |= err != -EOPNOTSUPP;
		}
	}
	if (heard || !refused) {
		nfo_port_free_slot(port, slot);
	} else if (!s->undead) {
		s->undead = true;
		port->undead++;
	}
}

/* All of them, or those with this cookie. False if some are left. */
static bool nfo_port_destroy_undead(struct nfo_port *port, unsigned long cookie)
{
	bool left = false;
	u32 i;

	for (i = 0; port->undead && i < port->used; i++) {
		if (port->slots[i].undead && (!cookie || port->slots[i].cookie == cookie)) {
			nfo_port_destroy(port, i);
			left |= port->slots[i].undead;
		}
	}
	return !left;
}

/* Takes all rules away from a driver, which keeps working until then; what they have forwarded is
 * kept for those who ask later.
 */
static void nfo_port_lose(struct nfo_port *port, struct flow_block_cb *block_cb)
{
	bool last = list_is_singular(&port->block.cb_list);
	struct netlink_ext_ack extack = {};
	struct flow_cls_offload cls;
	u32 i;

	for (i = 0; i < port->used; i++) {
		struct nfo_slot *slot = &port->slots[i];

		if (!slot->cookie)
			continue;
		nfo_port_command(port, &cls, FLOW_CLS_STATS, slot->cookie, &extack);
		if (!block_cb->cb(TC_SETUP_CLSFLOWER, &cls, block_cb->cb_priv))
			flow_stats_update(&slot->left, cls.stats.bytes, cls.stats.pkts, 0, cls.stats.lastused,
					  FLOW_ACTION_HW_STATS_DELAYED);
		nfo_port_command(port, &cls, FLOW_CLS_DESTROY, slot->cookie, &extack);
		block_cb->cb(TC_SETUP_CLSFLOWER, &cls, block_cb->cb_priv);
		if (last)
			slot->cookie = 0;
	}
	WRITE_ONCE(port->generation, port->generation + 1);
}

/* A driver unregisters itself: called without any lock of the flow_indr code, and maybe after the
 * port was unbound. Takes no lock that unbinding holds while it waits for the flow_indr code.
 */
static void nfo_port_cleanup(struct flow_block_cb *block_cb)
{
	struct nfo_port *port = block_cb->indr.data;
	bool end;

	mutex_lock(&port->lock);
	nfo_port_lose(port, block_cb);
	block_cb->cb = nfo_port_nobody;
	if (port->bound)
		port->gone(port);
	mutex_unlock(&port->lock);

	mutex_lock(&nfo_ports);
	mutex_lock(&port->lock);
	list_del(&block_cb->list);
	mutex_unlock(&port->lock);
	list_del(&block_cb->driver_list);
	end = port->unbound && list_empty(&port->block.cb_list);
	mutex_unlock(&nfo_ports);

	flow_block_cb_free(block_cb);
	if (end) {
		nfo_port_free(port);
		module_put(THIS_MODULE);
	}
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
	mutex_lock(&nfo_drivers);
	mutex_lock(&port->lock);
	err = dev->netdev_ops->ndo_setup_tc(dev, TC_SETUP_FT, bo);
	mutex_unlock(&port->lock);
	mutex_unlock(&nfo_drivers);
	return err;
}

/* -EOPNOTSUPP: there is no hardware, or a driver that takes no rules. The port is gone if it
 * fails.
 */
int nfo_port_bind(struct nfo_port *port)
{
	struct netlink_ext_ack extack = {};
	struct flow_block_offload bo;
	int err;

	port->prio = max(port->ft->priority, 0);
	err = nfo_port_setup(port, FLOW_BLOCK_BIND, &bo, &extack);
	mutex_lock(&port->lock);
	if (!err && list_empty(&bo.cb_list))
		err = -EOPNOTSUPP;
	list_splice(&bo.cb_list, &port->block.cb_list);
	port->bound = !err;
	mutex_unlock(&port->lock);
	if (err)
		/* What was remembered for drivers that come later. */
		nfo_port_unbind(port);
	return err;
}

/* What a driver of the device itself has not given back, whatever it says: nobody would come back
 * to it. One behind flow_indr does, when it goes.
 */
static void nfo_port_take_back(struct nfo_port *port)
{
	struct flow_block_cb *block_cb, *next;
	LIST_HEAD(left);

	mutex_lock(&nfo_drivers);
	mutex_lock(&port->lock);
	list_for_each_entry_safe(block_cb, next, &port->block.cb_list, list) {
		if (block_cb->indr.cleanup)
			continue;
		list_move(&block_cb->list, &left);
		/* All zeroes where a driver keeps none. */
		if (block_cb->driver_list.next)
			list_del(&block_cb->driver_list);
	}
	mutex_unlock(&port->lock);
	mutex_unlock(&nfo_drivers);

	list_for_each_entry_safe(block_cb, next, &left, list) {
		netdev_warn(port->dev, "%ps() was not given back by its driver, and is not used any more\n", block_cb->cb);
		flow_block_cb_free(block_cb);
	}
}

/* The port is gone afterwards. */
void nfo_port_unbind(struct nfo_port *port)
{
	struct netlink_ext_ack extack = {};
	struct flow_block_cb *block_cb, *next;
	struct flow_block_offload bo;
	bool end;

	mutex_lock(&port->lock);
	nfo_port_destroy_undead(port, 0);
	if (port->undead)
		netdev_warn(port->dev, "%u rules stay in hardware: their driver does not listen while hw-tc-offload is off\n",
			    port->undead);
	port->bound = false;
	mutex_unlock(&port->lock);

	nfo_port_setup(port, FLOW_BLOCK_UNBIND, &bo, &extack);
	list_for_each_entry_safe(block_cb, next, &bo.cb_list, list) {
		list_del(&block_cb->list);
		flow_block_cb_free(block_cb);
	}
	nfo_port_take_back(port);

	/* Those that are left are on their way to nfo_port_cleanup(). */
	mutex_lock(&nfo_ports);
	port->unbound = true;
	end = list_empty(&port->block.cb_list);
	if (!end)
		__module_get(THIS_MODULE);
	mutex_unlock(&nfo_ports);
	if (end)
		nfo_port_free(port);
}

/* Changes when the drivers of a port have lost all rules. */
u32 nfo_port_generation(const struct nfo_port *port)
{
	return READ_ONCE(port->generation);
}

/* Drivers have no name here but that of the function that takes the rules; in a kernel that does not
 * know its own names, that of the device's driver.
 */
void nfo_port_driver(struct nfo_port *port, char *buf, u32 len)
{
	struct flow_block_cb *block_cb;

	buf[0] = 0;
	mutex_lock(&port->lock);
	block_cb = list_first_entry_or_null(&port->block.cb_list, struct flow_block_cb, list);
	if (block_cb && IS_ENABLED(CONFIG_KALLSYMS))
		snprintf(buf, len, "%ps", block_cb->cb);
	else if (block_cb)
		strscpy(buf, port->dev->dev.parent ? dev_driver_string(port->dev->dev.parent) : "?", len);
	mutex_unlock(&port->lock);
}

/* Gives a command to the drivers of a device; 0 if one of them accepts, else the last error. */
static int nfo_port_call(struct nfo_port *port, struct nfo_rule *r, u32 command, unsigned long cookie)
{
	struct flow_block_cb *block_cb;
	int err = -ENODEV, ret;
	bool ok = false;

	lockdep_assert_held(&port->lock);
	r->extack._msg = NULL;
	nfo_port_command(port, &r->cls, command, cookie, &r->extack);
	if (command == FLOW_CLS_REPLACE)
		r->cls.rule = r->rule;

	list_for_each_entry(block_cb, &port->block.cb_list, list) {
		ret = block_cb->cb(TC_SETUP_CLSFLOWER, &r->cls, block_cb->cb_priv);
		if (ret < 0)
			err = ret;
		else
			ok = true;
	}
	return ok ? 0 : err;
}

/* A free slot is at the head of the list then. */
static int nfo_port_reserve(struct nfo_port *port)
{
	struct nfo_slot *slots;
	u32 n;

	if (port->free != NFO_NO_SLOT)
		return 0;
	if (port->used == port->room) {
		n = max(port->room * 2, 64u);
		slots = kvrealloc(port->slots, array_size(n, sizeof(*slots)), GFP_KERNEL);
		if (!slots)
			return -ENOMEM;
		port->slots = slots;
		port->room = n;
	}
	memset(&port->slots[port->used], 0, sizeof(*slots));
	port->slots[port->used].next = NFO_NO_SLOT;
	port->free = port->used++;
	return 0;
}

/* Deletes rules once more whose driver did not listen. */
void nfo_port_retry(struct nfo_port *port)
{
	mutex_lock(&port->lock);
	nfo_port_destroy_undead(port, 0);
	mutex_unlock(&port->lock);
}

/* Adds the rule in the buffer; returns in which slot it is noted. */
int nfo_port_add(struct nfo_port *port, struct nfo_rule *r, unsigned long cookie, u32 *slot)
{
	int err;

	mutex_lock(&port->lock);
	/* A rule of a flow that was at the same address would be deleted with this cookie one day; its
	 * driver does not listen.
	 */
	err = nfo_port_destroy_undead(port, cookie) ? nfo_port_reserve(port) : -EOPNOTSUPP;
	if (!err)
		err = nfo_port_call(port, r, FLOW_CLS_REPLACE, cookie);
	if (!err) {
		*slot = port->free;
		port->free = port->slots[*slot].next;
		port->slots[*slot] = (struct nfo_slot) { .cookie = cookie };
	}
	mutex_unlock(&port->lock);
	return err;
}

/* Deletes the rule in a slot. */
void nfo_port_del(struct nfo_port *port, u32 slot)
{
	mutex_lock(&port->lock);
	if (slot < port->used)
		nfo_port_destroy(port, slot);
	mutex_unlock(&port->lock);
}

/* What a rule has forwarded since the last time, in r->cls.stats. */
int nfo_port_stats(struct nfo_port *port, struct nfo_rule *r, u32 slot)
{
	int err = -ENOENT;

	mutex_lock(&port->lock);
	if (slot < port->used) {
		struct nfo_slot *s = &port->slots[slot];

		if (s->cookie)
			err = nfo_port_call(port, r, FLOW_CLS_STATS, s->cookie);
		if (s->left.pkts) {
			if (err)
				nfo_port_command(port, &r->cls, FLOW_CLS_STATS, 0, NULL);
			flow_stats_update(&r->cls.stats, s->left.bytes, s->left.pkts, 0, s->left.lastused,
					  FLOW_ACTION_HW_STATS_DELAYED);
			s->left = (struct flow_stats) {};
			err = 0;
		}
	}
	mutex_unlock(&port->lock);
	return err;
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

/* The network namespace of a device that is the machine's own, or NULL. Anybody may have devices,
 * with any address and index, in a namespace that belongs to a user namespace of theirs; those that
 * software makes have no parent.
 */
struct net *nfo_dev_hardware_net(const struct net_device *dev)
{
	struct net *net = dev_net(dev);

	return dev->dev.parent && net->user_ns == &init_user_ns ? net : NULL;
}

static int nfo_dev_conduit(struct net_device *lower, struct netdev_nested_priv *priv)
{
	if (netdev_uses_dsa(lower))
		priv->data = lower;
	return 0;
}

/* The largest MTU of the devices of a NIC, which may be below a switch. */
u32 nfo_dev_engine_mtu(struct net *net, u32 ifindex)
{
	struct netdev_nested_priv priv = {};
	struct net_device *dev, *other;
	u32 mtu = 0;

	rcu_read_lock();
	dev = dev_get_by_index_rcu(net, ifindex);
	if (!dev)
		goto out;
	mtu = READ_ONCE(dev->mtu);
	netdev_walk_all_lower_dev_rcu(dev, nfo_dev_conduit, &priv);
	if (priv.data)
		dev = priv.data;
	mtu = max(mtu, READ_ONCE(dev->mtu));
	for_each_netdev_rcu(dev_net(dev), other)
		if (dev->dev.parent && other->dev.parent == dev->dev.parent)
			mtu = max(mtu, READ_ONCE(other->mtu));
out:
	rcu_read_unlock();
	return mtu;
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
int nfo_dev_list_pos(const struct nft_flowtable *ft, const struct net_device *dev)
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

/* What a VLAN device writes into its tags as the priority of packets with this skb->priority, 0 to
 * 7; and which tags. Negative if it is no VLAN device.
 */
int nfo_vlan_pcp(struct net *net, u32 ifindex, u32 priority, u16 *proto, u16 *vid)
{
#if IS_ENABLED(CONFIG_VLAN_8021Q)
	struct net_device *dev = dev_get_by_index_rcu(net, ifindex);

	if (dev && is_vlan_dev(dev)) {
		*proto = ntohs(vlan_dev_priv(dev)->vlan_proto);
		*vid = vlan_dev_priv(dev)->vlan_id;
		return vlan_dev_get_egress_qos_mask(dev, priority) >> VLAN_PRIO_SHIFT;
	}
#endif
	return -ENODEV;
}
