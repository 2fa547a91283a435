/* SPDX-License-Identifier: GPL-2.0 */
/* Flow blocks: where drivers take flow rules (TC_SETUP_FT). */
#ifndef _NFT_OFFLOAD_TC_H
#define _NFT_OFFLOAD_TC_H

#include <linux/netdevice.h>
#include <linux/netlink.h>
#include <linux/rwsem.h>
#include <net/flow_offload.h>
#include <net/netfilter/nf_flow_table.h>

#define NFO_RULE_ACTIONS	24

/* A device in a flowtable with "flags offload", with a block of its own: a rule is offered to the
 * device that packets come in by, and the flow_indr code, which keeps one entry for each cookie,
 * sees another cookie for each device.
 */
struct nfo_port {
	struct flow_block	block;
	struct rw_semaphore	lock;		/* block */
	struct net_device	*dev;
	struct nf_flowtable	*ft;
	void			*engine;
	/* A driver goes away, and with it its rules. */
	void			(*gone)(struct nfo_port *port);
};

/* The flow_rule and what it points to, for one rule at a time. */
struct nfo_rule {
	struct nf_flow_match	match;
	struct flow_cls_offload	cls;
	struct netlink_ext_ack	extack;
	struct flow_rule	*rule;
};

struct nfo_port *nfo_port_new(struct net_device *dev, struct nf_flowtable *ft, void *engine,
			      void (*gone)(struct nfo_port *port));
void nfo_port_free(struct nfo_port *port);
int nfo_port_bind(struct nfo_port *port);
void nfo_port_unbind(struct nfo_port *port);
void nfo_port_driver(struct nfo_port *port, char *buf, u32 len);
int nfo_port_call(struct nfo_port *port, struct nfo_rule *r, u32 command, unsigned long cookie);

struct nfo_rule *nfo_rule_new(void);
void nfo_rule_free(struct nfo_rule *r);
void nfo_rule_clear(struct nfo_rule *r);
struct flow_action_entry *nfo_rule_action(struct nfo_rule *r);

struct net_device *nfo_dev_get(struct net *net, u32 ifindex);
void nfo_dev_put(struct net_device *dev);
int nfo_dev_place(const struct nft_flowtable *ft, const struct net_device *dev);

#endif
