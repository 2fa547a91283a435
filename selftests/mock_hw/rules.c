// SPDX-License-Identifier: GPL-2.0
/* Which rules are taken: those that mlx5_core or the MediaTek PPE driver takes. */
#include <linux/tc_act/tc_csum.h>
#include <net/flow_offload.h>

#include "mock.h"

#define KEY(name)	BIT_ULL(FLOW_DISSECTOR_KEY_##name)

int mock_refuse(struct netlink_ext_ack *extack, const char *msg)
{
	if (extack)
		extack->_msg = msg;
	return -EOPNOTSUPP;
}

/* What a driver looks at before the actions. */
int mock_match(struct mock_port *port, struct flow_cls_offload *f, struct mock_rule *r)
{
	struct flow_rule *rule = flow_cls_offload_flow_rule(f);
	struct netlink_ext_ack *extack = f->common.extack;
	u64 used = rule->match.dissector->used_keys;
	struct flow_match_control control;
	struct flow_match_basic basic;
	struct flow_match_meta meta;
	bool mtk = mock_is_ppe();

	r->used_keys = used;
	if (!mtk && used & ~(KEY(META) | KEY(CONTROL) | KEY(BASIC) | KEY(ETH_ADDRS) | KEY(VLAN) |
			     KEY(CVLAN) | KEY(IPV4_ADDRS) | KEY(IPV6_ADDRS) | KEY(PORTS) | KEY(TCP) |
			     KEY(IP) | KEY(CT) | KEY(ICMP) | KEY(MPLS) | KEY(ENC_KEYID) |
			     KEY(ENC_IPV4_ADDRS) | KEY(ENC_IPV6_ADDRS) | KEY(ENC_PORTS) |
			     KEY(ENC_CONTROL) | KEY(ENC_IP) | KEY(ENC_OPTS)))
		return REFUSE(extack, "Unsupported key");
	if (!(used & KEY(META)) || !(used & KEY(CONTROL)) || !(used & KEY(BASIC)))
		return REFUSE(extack, "No meta, control or basic key");

	flow_rule_match_meta(rule, &meta);
	if (meta.mask->ingress_ifindex != 0xffffffff)
		return REFUSE(extack, "Unsupported ingress ifindex mask");
	if (meta.key->ingress_ifindex != port->ifindex)
		return REFUSE(extack, "Can't match on ingress filter port");
	flow_rule_match_control(rule, &control);
	if (flow_rule_has_control_flags(control.mask->flags, extack))
		return -EOPNOTSUPP;
	flow_rule_match_basic(rule, &basic);

	r->key.ifindex = meta.key->ingress_ifindex;
	r->key.l4proto = basic.key->ip_proto;
	switch (control.key->addr_type) {
	case FLOW_DISSECTOR_KEY_IPV4_ADDRS: {
		struct flow_match_ipv4_addrs a;

		flow_rule_match_ipv4_addrs(rule, &a);
		if (a.mask->src != 0xffffffff || a.mask->dst != 0xffffffff || basic.key->n_proto != htons(ETH_P_IP))
			return -EINVAL;
		r->key.l3proto = 4;
		r->key.src.s6_addr32[0] = a.key->src;
		r->key.dst.s6_addr32[0] = a.key->dst;
		break;
	}
	case FLOW_DISSECTOR_KEY_IPV6_ADDRS: {
		struct flow_match_ipv6_addrs a;

		flow_rule_match_ipv6_addrs(rule, &a);
		if (basic.key->n_proto != htons(ETH_P_IPV6))
			return -EINVAL;
		r->key.l3proto = 6;
		r->key.src = a.key->src;
		r->key.dst = a.key->dst;
		break;
	}
	default:
		return REFUSE(extack, "Unsupported addresses");
	}
	if (used & KEY(PORTS)) {
		struct flow_match_ports p;

		flow_rule_match_ports(rule, &p);
		r->key.sport = p.key->src;
		r->key.dport = p.key->dst;
	} else if (mtk) {
		return REFUSE(extack, "No ports");
	}
	if (used & KEY(TCP)) {
		struct flow_match_tcp t;

		flow_rule_match_tcp(rule, &t);
		if (t.key->flags)
			return REFUSE(extack, "Unsupported TCP flags");
		r->tcp_mask = t.mask->flags;
	}
	if (mtk) {
		/* Not looked at by the driver: the engine learns it from the first packets. */
		r->tcp_mask = cpu_to_be16(5);
	}
	if (used & KEY(VLAN)) {
		struct flow_match_vlan v;

		flow_rule_match_vlan(rule, &v);
		r->key.vlan = v.key->vlan_id;
	}
	if (used & KEY(CVLAN)) {
		struct flow_match_vlan v;

		flow_rule_match_cvlan(rule, &v);
		r->key.cvlan = v.key->vlan_id;
	}
	return 0;
}

static int mock_add_mangle(struct mock_rule *r, const struct flow_action_entry *act, struct netlink_ext_ack *extack)
{
	int i;

	if (r->mangles == MAX_MANGLES)
		return REFUSE(extack, "Too many header rewrites");
	for (i = 0; i < r->mangles; i++)
		if (r->mangle[i].htype == act->mangle.htype && r->mangle[i].offset == act->mangle.offset &&
		    ~r->mangle[i].mask & ~act->mangle.mask)
			return REFUSE(extack, "Trying to set same value twice");
	r->mangle[r->mangles++] = (struct mock_mangle) {
		.htype = act->mangle.htype,
		.add = act->id == FLOW_ACTION_ADD,
		.offset = act->mangle.offset,
		.mask = act->mangle.mask,
		.val = act->mangle.val,
	};
	return 0;
}

int mock_actions(struct flow_cls_offload *f, struct mock_rule *r)
{
	struct flow_rule *rule = flow_cls_offload_flow_rule(f);
	struct netlink_ext_ack *extack = f->common.extack;
	bool mtk = mock_is_ppe(), mlx5 = !strcmp(mock_profile, "mlx5");
	const struct flow_action_entry *act;
	int i, err, vlans = 0, pppoe = 0;

	if (!flow_action_has_entries(&rule->action))
		return -EINVAL;
	flow_action_for_each(i, act, &rule->action) {
		switch (act->id) {
		case FLOW_ACTION_ADD:
			if (mtk)
				return REFUSE(extack, "Unsupported action");
			fallthrough;
		case FLOW_ACTION_MANGLE:
			if (mtk && (act->mangle.htype == FLOW_ACT_MANGLE_HDR_TYPE_IP6 ||
				    (act->mangle.htype == FLOW_ACT_MANGLE_HDR_TYPE_IP4 &&
				     act->mangle.offset != 12 && act->mangle.offset != 16)))
				return REFUSE(extack, "Unsupported rewrite");
			err = mock_add_mangle(r, act, extack);
			if (err)
				return err;
			break;
		case FLOW_ACTION_CSUM:
			if (mlx5 && !r->mangles)
				return REFUSE(extack, "csum action is only supported with pedit");
			if (mlx5 && act->csum_flags & ~(TCA_CSUM_UPDATE_FLAG_IPV4HDR | TCA_CSUM_UPDATE_FLAG_TCP |
							TCA_CSUM_UPDATE_FLAG_UDP))
				return REFUSE(extack, "can't offload TC csum action for some header/s");
			r->csum_flags = act->csum_flags;
			break;
		case FLOW_ACTION_VLAN_POP:
			r->pops++;
			break;
		case FLOW_ACTION_VLAN_PUSH:
			if (act->vlan.proto != htons(ETH_P_8021Q) && (mtk || act->vlan.proto != htons(ETH_P_8021AD)))
				return REFUSE(extack, "Unsupported VLAN protocol");
			if (vlans + pppoe == 2)
				return REFUSE(extack, "Total vlan stack exceeds");
			vlans++;
			r->push[r->pushes++] = (struct mock_push) { act->vlan.proto, act->vlan.vid | act->vlan.prio << 13 };
			break;
		case FLOW_ACTION_PPPOE_PUSH:
			if (mlx5)
				return REFUSE(extack, "The offload action is not supported");
			if (pppoe || vlans == 2)
				return REFUSE(extack, "Too many PPPoE headers");
			pppoe++;
			r->push[r->pushes++] = (struct mock_push) { htons(ETH_P_PPP_SES), act->pppoe.sid };
			break;
		case FLOW_ACTION_REDIRECT:
			r->out = act->dev->ifindex;
			break;
		default:
			return REFUSE(extack, "The offload action is not supported");
		}
		if (r->pushes == MAX_PUSHES)
			return REFUSE(extack, "Too many headers to push");
	}
	if (!r->out)
		return REFUSE(extack, "No redirect");
	return 0;
}

/* The rule as it was given, for comparing what two flowtables give. */
void mock_describe(struct mock_port *port, struct flow_cls_offload *f, struct mock_rule *r)
{
	struct flow_rule *rule = flow_cls_offload_flow_rule(f);
	const struct flow_action_entry *act;
	size_t size = sizeof(r->text);
	char *p = r->text;
	int i, n;

	n = scnprintf(p, size, "in %s", port->dev->name);
	if (r->key.l3proto == 4)
		n += scnprintf(p + n, size - n, " %pI4:%u>%pI4:%u", &r->key.src, ntohs(r->key.sport), &r->key.dst, ntohs(r->key.dport));
	else
		n += scnprintf(p + n, size - n, " %pI6c:%u>%pI6c:%u", &r->key.src, ntohs(r->key.sport), &r->key.dst, ntohs(r->key.dport));
	n += scnprintf(p + n, size - n, " proto %u keys %llx tcp %x vlan %u cvlan %u prio %u chain %u :", r->key.l4proto, r->used_keys,
		       be16_to_cpu(r->tcp_mask), r->key.vlan, r->key.cvlan, f->common.prio, f->common.chain_index);
	flow_action_for_each(i, act, &rule->action) {
		switch (act->id) {
		case FLOW_ACTION_MANGLE:
		case FLOW_ACTION_ADD:
			n += scnprintf(p + n, size - n, " %s(%u+%u=%08x/%08x)", act->id == FLOW_ACTION_ADD ? "add" : "set",
				       act->mangle.htype, act->mangle.offset, be32_to_cpu((__force __be32)act->mangle.val),
				       be32_to_cpu((__force __be32)act->mangle.mask));
			break;
		case FLOW_ACTION_CSUM:
			n += scnprintf(p + n, size - n, " csum(%x)", act->csum_flags);
			break;
		case FLOW_ACTION_VLAN_POP:
			n += scnprintf(p + n, size - n, " vlan_pop");
			break;
		case FLOW_ACTION_VLAN_PUSH:
			n += scnprintf(p + n, size - n, " vlan_push(%04x %u prio %u)", ntohs(act->vlan.proto), act->vlan.vid, act->vlan.prio);
			break;
		case FLOW_ACTION_PPPOE_PUSH:
			n += scnprintf(p + n, size - n, " pppoe_push(%u)", act->pppoe.sid);
			break;
		case FLOW_ACTION_REDIRECT:
			n += scnprintf(p + n, size - n, " redirect(%s)", act->dev->name);
			break;
		default:
			n += scnprintf(p + n, size - n, " action%u", act->id);
		}
	}
}
