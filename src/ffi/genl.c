// SPDX-License-Identifier: GPL-2.0
/* Generic netlink: what is inline in C. */
#include <net/genetlink.h>

#include "helpers.h"

struct net *nfo_genl_net(const struct genl_info *info)
{
	return genl_info_net(info);
}

struct sk_buff *nfo_genl_new(size_t payload)
{
	return genlmsg_new(payload, GFP_KERNEL);
}

void nfo_genl_free(struct sk_buff *msg)
{
	nlmsg_free(msg);
}

/* Consumes the message. */
int nfo_genl_reply(struct sk_buff *msg, void *hdr, struct genl_info *info)
{
	genlmsg_end(msg, hdr);
	return genlmsg_reply(msg, info);
}

/* The index of the device of this name, or alternative name; 0 if there is none. */
u32 nfo_dev_ifindex(struct net *net, const char *name)
{
	const struct net_device *dev;
	u32 ifindex;

	rcu_read_lock();
	dev = dev_get_by_name_rcu(net, name);
	ifindex = dev ? dev->ifindex : 0;
	rcu_read_unlock();
	return ifindex;
}

bool nfo_dev_exists(struct net *net, u32 ifindex)
{
	bool exists;

	rcu_read_lock();
	exists = dev_get_by_index_rcu(net, ifindex);
	rcu_read_unlock();
	return exists;
}
