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

struct sk_buff *nfo_genl_new_atomic(size_t payload)
{
	return genlmsg_new(payload, GFP_ATOMIC);
}

/* A namespace that is going away has no socket any more. */
bool nfo_genl_listened(const struct genl_family *family, struct net *net, u32 group)
{
	return net->genl_sock && genl_has_listeners(family, net, group) > 0;
}

/* Consumes the message. Those who have no room for it learn that they have missed one. */
void nfo_genl_multicast(const struct genl_family *family, struct net *net, struct sk_buff *msg, void *hdr,
			u32 group)
{
	genlmsg_end(msg, hdr);
	genlmsg_multicast_netns(family, net, msg, 0, group, GFP_ATOMIC);
}

/* All who listen have missed something. */
void nfo_genl_lost(const struct genl_family *family, struct net *net, u32 group)
{
	genl_set_err(family, net, 0, group, -ENOBUFS);
}

/* Consumes the message. */
int nfo_genl_reply(struct sk_buff *msg, void *hdr, struct genl_info *info)
{
	genlmsg_end(msg, hdr);
	return genlmsg_reply(msg, info);
}

/* Four bytes if they are enough, else eight. */
int nfo_genl_put_uint(struct sk_buff *msg, int type, u64 value)
{
	return nla_put_uint(msg, type, value);
}

struct nlattr *nfo_genl_nest(struct sk_buff *msg, int type)
{
	return nla_nest_start(msg, type);
}

void nfo_genl_nest_end(struct sk_buff *msg, struct nlattr *nest)
{
	nla_nest_end(msg, nest);
}

const struct genl_info *nfo_genl_dump_info(struct netlink_callback *cb)
{
	return genl_info_dump(cb);
}

/* What a dump keeps from one part to the next: six words, zeroes at first. */
unsigned long *nfo_genl_dump_state(struct netlink_callback *cb)
{
	return (unsigned long *)cb->ctx;
}

/* All messages from here on say so, the last one included, which is the core's. */
void nfo_genl_dump_changed(struct netlink_callback *cb)
{
	cb->answer_flags |= NLM_F_DUMP_INTR;
}

/* A message of a dump; NULL if the part is full. */
void *nfo_genl_dump_put(struct sk_buff *msg, struct netlink_callback *cb, u8 cmd)
{
	const struct genl_info *info = genl_info_dump(cb);

	return genlmsg_put(msg, info->snd_portid, info->snd_seq, info->family,
			   NLM_F_MULTI | cb->answer_flags, cmd);
}

void nfo_genl_dump_end(struct sk_buff *msg, void *hdr)
{
	genlmsg_end(msg, hdr);
}

void nfo_genl_dump_cancel(struct sk_buff *msg, void *hdr)
{
	genlmsg_cancel(msg, hdr);
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
