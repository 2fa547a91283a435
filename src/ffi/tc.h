/* SPDX-License-Identifier: GPL-2.0 */
/* Flow blocks: where drivers take flow rules (TC_SETUP_FT). */
#ifndef _NFT_OFFLOAD_TC_H
#define _NFT_OFFLOAD_TC_H

#include <linux/mutex.h>
#include <linux/netdevice.h>
#include <linux/netlink.h>
#include <net/flow_offload.h>
#include <net/netfilter/nf_flow_table.h>

#define NFO_RULE_ACTIONS	24

#define NFO_NO_SLOT		U32_MAX

/* A rule that was added to a port. */
struct nfo_slot {
	unsigned long		cookie;		/* 0: no driver has it any more */
	u32			next;		/* of free slots */
	bool			undead;		/* deleted, and its driver does not listen */
	struct flow_stats	left;		/* what it had forwarded when its driver went */
};

/* A device in a flowtable with "flags offload", with a block of its own: a rule is offered to the
 * device that packets come in by, and the flow_indr code, which keeps one entry for each cookie,
 * sees another cookie for each device.
 */
struct nfo_port {
	struct flow_block	block;
	struct mutex		lock;		/* everything here; held around calls of drivers */
	struct net_device	*dev;
	struct nf_flowtable	*ft;
	struct nfo_slot		*slots;		/* the rules */
	u32			room;
	u32			used;
	u32			free;		/* the first free one */
	u32			prio;
	u32			generation;
	u32			undead;		/* slots */
	bool			bound;		/* ft may be used */
	bool			unbound;	/* nfo_ports */
	/* A driver has gone, and its rules with it. */
	void			(*gone)(struct nfo_port *port);
};

/* The flow_rule and what it points to, for one rule at a time. */
struct nfo_rule {
	struct nf_flow_match	match;
	struct flow_cls_offload	cls;
	struct netlink_ext_ack	extack;
	struct flow_rule	*rule;
};

struct nfo_port *nfo_port_new(struct net_device *dev, struct nf_flowtable *ft, void (*gone)(struct nfo_port *port));
int nfo_port_bind(struct nfo_port *port);
void nfo_port_unbind(struct nfo_port *port);
u32 nfo_port_generation(const struct nfo_port *port);
void nfo_port_driver(struct nfo_port *port, char *buf, u32 len);
int nfo_port_add(struct nfo_port *port, struct nfo_rule *r, unsigned long cookie, u32 *slot);
void nfo_port_del(struct nfo_port *port, u32 slot);
void nfo_port_retry(struct nfo_port *port);
int nfo_port_stats(struct nfo_port *port, struct nfo_rule *r, u32 slot);

struct nfo_rule *nfo_rule_new(void);
void nfo_rule_free(struct nfo_rule *r);
void nfo_rule_clear(struct nfo_rule *r);
struct flow_action_entry *nfo_rule_action(struct nfo_rule *r);

struct net *nfo_dev_hardware_net(const struct net_device *dev);
u32 nfo_dev_engine_mtu(struct net *net, u32 ifindex);
struct net_device *nfo_dev_get(struct net *net, u32 ifindex);
void nfo_dev_put(struct net_device *dev);
int nfo_vlan_pcp(struct net *net, u32 ifindex, u32 priority, u16 *proto, u16 *vid);
int nfo_dev_list_pos(const struct nft_flowtable *ft, const struct net_device *dev);

#endif
