// SPDX-License-Identifier: GPL-2.0
/* What a bridge does with a frame that comes in at a port. Its module is asked when there is a
 * bridge, by the names that it exports: being loaded must not load it. Once asked it stays, as long
 * as there is something to ask about: nfo_bridge_get().
 */
#include <linux/if_bridge.h>
#include <linux/module.h>
#include <linux/rtnetlink.h>
#include <net/switchdev.h>

#include "helpers.h"

enum {
	BR_PORT_FLAG_IS_SET,
	BR_PORT_GET_STP_STATE,
	BR_MST_ENABLED,
	BR_VLAN_ENABLED,
	BR_VLAN_GET_PVID,
	BR_VLAN_GET_INFO,
};

static struct {
	const char	*name;
	void		*fn;
} symbols[] = {
	[BR_PORT_FLAG_IS_SET]	= { "br_port_flag_is_set" },
	[BR_PORT_GET_STP_STATE]	= { "br_port_get_stp_state" },
	[BR_MST_ENABLED]	= { "br_mst_enabled" },
	[BR_VLAN_ENABLED]	= { "br_vlan_enabled" },
	[BR_VLAN_GET_PVID]	= { "br_vlan_get_pvid_rcu" },
	[BR_VLAN_GET_INFO]	= { "br_vlan_get_info_rcu" },
};

static atomic_t users = ATOMIC_INIT(0);

/* NULL: the bridge has been built without it. Under RCU, as long as the function is used: forget()
 * may come in between, but the memory of a module goes after a grace period.
 */
static void *symbol(unsigned int i)
{
	void *fn = READ_ONCE(symbols[i].fn);

	if (!fn) {
		fn = __symbol_get(symbols[i].name) ?: ERR_PTR(-ENOENT);
		if (cmpxchg(&symbols[i].fn, NULL, fn) && !IS_ERR(fn))
			__symbol_put(symbols[i].name);
	}
	return IS_ERR(fn) ? NULL : fn;
}

static void forget(void)
{
	void *fn;
	int i;

	for (i = 0; i < ARRAY_SIZE(symbols); i++) {
		fn = xchg(&symbols[i].fn, NULL);
		if (!IS_ERR_OR_NULL(fn))
			__symbol_put(symbols[i].name);
	}
}

/* Somebody is going to ask, from time to time. */
void nfo_bridge_get(void)
{
	atomic_inc(&users);
}

/* The last one lets the module go. If another one comes at this moment, who asks again, then what
 * it has found goes with that one.
 */
void nfo_bridge_put(void)
{
	if (atomic_dec_and_test(&users))
		forget();
}

/* What was not there may have come. */
static int module_event(struct notifier_block *nb, unsigned long event, void *module)
{
	int i;

	if (event == MODULE_STATE_LIVE)
		for (i = 0; i < ARRAY_SIZE(symbols); i++)
			cmpxchg(&symbols[i].fn, ERR_PTR(-ENOENT), NULL);
	return NOTIFY_DONE;
}

static struct notifier_block module_nb = {
	.notifier_call	= module_event,
};

void nfo_bridge_register(void)
{
	register_module_notifier(&module_nb); /* never fails */
}

void nfo_bridge_unregister(void)
{
	unregister_module_notifier(&module_nb);
	forget();
}

static bool has_vlan(const struct net_device *dev, u16 vid, u16 *flags)
{
	typeof(&br_vlan_get_info_rcu) get = symbol(BR_VLAN_GET_INFO);
	struct bridge_vlan_info info;

	if (!get || get(dev, vid, &info))
		return false;
	*flags = info.flags;
	return true;
}

static bool is_pvid(const struct net_device *dev, u16 vid)
{
	typeof(&br_vlan_get_pvid_rcu) get = symbol(BR_VLAN_GET_PVID);
	u16 pvid;

	return get && !get(dev, &pvid) && pvid == vid;
}

/* Would the bridge pass a frame up that comes in at the port, its spanning tree aside? In VLAN
 * @vid, 0 if it does not filter; with a tag at the port or in the bridge device or not. Under RCU.
 */
bool nfo_bridge_passes_up(const struct net_device *bridge, const struct net_device *port, u16 vid,
		       bool tagged_below, bool tagged_above)
{
	typeof(&br_port_flag_is_set) flag_is_set = symbol(BR_PORT_FLAG_IS_SET);
	typeof(&br_vlan_enabled) vlan_enabled = symbol(BR_VLAN_ENABLED);
	typeof(&br_mst_enabled) mst_enabled = symbol(BR_MST_ENABLED);
	u16 flags;

	if (!netif_is_bridge_port(port) ||
	    netdev_master_upper_dev_get_rcu((struct net_device *)port) != bridge)
		return false;
	/* The VLAN comes from a tunnel; of a locked port only the stations that the bridge knows
	 * are let in; the state of a VLAN's spanning tree is not to be had.
	 */
	if (flag_is_set && flag_is_set(port, BR_VLAN_TUNNEL | BR_PORT_LOCKED))
		return false;
	if (mst_enabled && mst_enabled(bridge))
		return false;
	if (!vlan_enabled || !vlan_enabled(bridge))
		return !vid;
	if (!tagged_below && !is_pvid(port, vid))
		return false;
	return has_vlan(port, vid, &flags) && has_vlan(bridge, vid, &flags) &&
	       tagged_above == !(flags & BRIDGE_VLAN_INFO_UNTAGGED);
}

/* Does its spanning tree let the port pass frames? Under RTNL. */
bool nfo_bridge_port_forwards(const struct net_device *port)
{
	typeof(&br_port_get_stp_state) get;
	bool forwards;

	rcu_read_lock();
	get = symbol(BR_PORT_GET_STP_STATE);
	forwards = !get || get(port) == BR_STATE_FORWARDING;
	rcu_read_unlock();
	return forwards;
}

bool nfo_rtnl_trylock(void)
{
	return rtnl_trylock();
}

void nfo_rtnl_unlock(void)
{
	rtnl_unlock();
}

/* Without CONFIG_NET_SWITCHDEV nobody calls, and these do nothing. */
int nfo_switchdev_register(struct notifier_block *nb)
{
	return register_switchdev_blocking_notifier(nb);
}

void nfo_switchdev_unregister(struct notifier_block *nb)
{
	unregister_switchdev_blocking_notifier(nb);
}

/* Stations that come, go and move; in atomic context. */
int nfo_fdb_register(struct notifier_block *nb)
{
	return register_switchdev_notifier(nb);
}

bool nfo_fdb_event_matters(unsigned long event)
{
	return event == SWITCHDEV_FDB_ADD_TO_DEVICE || event == SWITCHDEV_FDB_DEL_TO_DEVICE;
}

void nfo_fdb_unregister(struct notifier_block *nb)
{
	unregister_switchdev_notifier(nb);
}
