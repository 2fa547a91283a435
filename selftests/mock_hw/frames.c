// SPDX-License-Identifier: GPL-2.0
/* What the NIC does with frames: its rules, executed in a netfilter hook at ingress. */
#include <linux/etherdevice.h>
#include <linux/if_pppox.h>
#include <linux/if_vlan.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/ppp_defs.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <net/checksum.h>
#include <net/ip.h>
#include <net/ip6_checksum.h>
#include <net/net_namespace.h>

#include "mock.h"

static bool mock_set_word(struct sk_buff *skb, u8 *hdr, const struct mock_mangle *m, __be32 *old, __be32 *new)
{
	u32 word, sum;

	memcpy(&word, hdr + m->offset, 4);
	memcpy(old, &word, 4);
	if (m->add) {
		/* Only the masked bytes, each by itself. */
		u8 *w = (u8 *)&word, *v = (u8 *)&m->val, *k = (u8 *)&m->mask;
		int i;

		for (i = 0; i < 4; i++)
			if (k[i] != 0xff)
				w[i] += v[i];
	} else {
		sum = (word & m->mask) | (m->val & ~m->mask);
		word = sum;
	}
	memcpy(new, &word, 4);
	memcpy(hdr + m->offset, &word, 4);
	return *old != *new;
}

static void mock_fix_l4(struct sk_buff *skb, u8 proto, u8 *l4, __be32 old, __be32 new, bool pseudo)
{
	if (proto == IPPROTO_TCP) {
		inet_proto_csum_replace4(&((struct tcphdr *)l4)->check, skb, old, new, pseudo);
	} else if (proto == IPPROTO_UDP) {
		struct udphdr *uh = (struct udphdr *)l4;

		if (uh->check || skb->ip_summed == CHECKSUM_PARTIAL) {
			inet_proto_csum_replace4(&uh->check, skb, old, new, pseudo);
			if (!uh->check)
				uh->check = CSUM_MANGLED_0;
		}
	}
}

static void mock_ttl(u8 *l3, u8 l3proto)
{
	if (l3proto == 4)
		ip_decrease_ttl((struct iphdr *)l3);
	else
		((struct ipv6hdr *)l3)->hop_limit--;
}

/* Parses a packet up to its ports. What lies around it is pulled by the caller later. */
static int mock_parse(struct sk_buff *skb, struct mock_key *key, u16 *flags)
{
	__be16 proto = skb->protocol;
	unsigned int off = 0, l4;

	memset(key, 0, sizeof(*key));
	key->ifindex = skb->dev->ifindex;
	if (skb_vlan_tag_present(skb))
		key->vlan = skb_vlan_tag_get_id(skb);
	if (proto == htons(ETH_P_8021Q)) {
		struct vlan_hdr *vh;

		if (!pskb_may_pull(skb, VLAN_HLEN))
			return -1;
		vh = (struct vlan_hdr *)skb->data;
		if (key->vlan)
			key->cvlan = ntohs(vh->h_vlan_TCI) & VLAN_VID_MASK;
		else
			key->vlan = ntohs(vh->h_vlan_TCI) & VLAN_VID_MASK;
		proto = vh->h_vlan_encapsulated_proto;
		off = VLAN_HLEN;
	}
	if (proto == htons(ETH_P_PPP_SES)) {
		if (!pskb_may_pull(skb, off + PPPOE_SES_HLEN))
			return -1;
		switch (get_unaligned_be16(skb->data + off + 6)) {
		case PPP_IP:
			proto = htons(ETH_P_IP);
			break;
		case PPP_IPV6:
			proto = htons(ETH_P_IPV6);
			break;
		default:
			return -1;
		}
		off += PPPOE_SES_HLEN;
	}
	if (proto == htons(ETH_P_IP)) {
		struct iphdr *ih;

		if (!pskb_may_pull(skb, off + sizeof(*ih) + 20) && !pskb_may_pull(skb, off + sizeof(*ih) + 8))
			return -1;
		ih = (struct iphdr *)(skb->data + off);
		if (ih->ihl != 5 || ip_is_fragment(ih) || ih->ttl <= 1)
			return -1;
		key->l3proto = 4;
		key->l4proto = ih->protocol;
		key->src.s6_addr32[0] = ih->saddr;
		key->dst.s6_addr32[0] = ih->daddr;
		l4 = off + sizeof(*ih);
	} else if (proto == htons(ETH_P_IPV6)) {
		struct ipv6hdr *ih;

		if (!pskb_may_pull(skb, off + sizeof(*ih) + 20) && !pskb_may_pull(skb, off + sizeof(*ih) + 8))
			return -1;
		ih = (struct ipv6hdr *)(skb->data + off);
		if (ih->hop_limit <= 1)
			return -1;
		key->l3proto = 6;
		key->l4proto = ih->nexthdr;
		key->src = ih->saddr;
		key->dst = ih->daddr;
		l4 = off + sizeof(*ih);
	} else {
		return -1;
	}
	*flags = 0;
	if (key->l4proto == IPPROTO_TCP) {
		if (!pskb_may_pull(skb, l4 + sizeof(struct tcphdr)))
			return -1;
		*flags = skb->data[l4 + 13];
	} else if (key->l4proto != IPPROTO_UDP) {
		return -1;
	}
	memcpy(&key->sport, skb->data + l4, 2);
	memcpy(&key->dport, skb->data + l4 + 2, 2);
	return off;
}

unsigned int mock_hook(void *priv, struct sk_buff *skb, const struct nf_hook_state *state)
{
	bool mtk = mock_is_ppe();
	struct net_device *out;
	struct mock_rule *r;
	struct mock_key key;
	struct ethhdr eth;
	__be16 proto;
	u8 *l3, *l4;
	u16 flags;
	int off, i;
	u32 len;

	if (skb_is_gso(skb) || skb->pkt_type == PACKET_BROADCAST || skb->pkt_type == PACKET_MULTICAST)
		return NF_ACCEPT;
	off = mock_parse(skb, &key, &flags);
	if (off < 0)
		return NF_ACCEPT;
	r = mock_find(&key);
	if (!r || r->lost || r->deaf)
		return NF_ACCEPT;
	if (mock_bind_rate && !r->bound) {
		if (time_after(jiffies, r->since + HZ)) {
			r->since = jiffies;
			r->came = 0;
		}
		if (++r->came < mock_bind_rate)
			return NF_ACCEPT;
		r->bound = true;
	}
	if (key.l4proto == IPPROTO_TCP && (flags & (be16_to_cpu(r->tcp_mask) | 2)))
		return NF_ACCEPT;
	out = dev_get_by_index_rcu(state->net, r->out);
	if (!out || !(out->flags & IFF_UP))
		return NF_ACCEPT;
	/* A packet that does not fit is for software to answer. */
	if (skb->len - off > out->mtu)
		return NF_ACCEPT;
	eth = *eth_hdr(skb);
	if (skb->ip_summed == CHECKSUM_PARTIAL && skb_checksum_help(skb))
		return NF_ACCEPT;
	skb->ip_summed = CHECKSUM_NONE;
	if (skb_ensure_writable(skb, min(skb->len, off + 60u)) ||
	    skb_cow_head(skb, LL_RESERVED_SPACE(out) + 32))
		return NF_ACCEPT;

	__vlan_hwaccel_clear_tag(skb);
	skb_pull(skb, off);
	skb_reset_network_header(skb);
	l3 = skb->data;
	/* Padding of short frames is not forwarded. */
	len = r->key.l3proto == 4 ? ntohs(((struct iphdr *)l3)->tot_len) :
				    ntohs(((struct ipv6hdr *)l3)->payload_len) + sizeof(struct ipv6hdr);
	if (len < skb->len && pskb_trim(skb, len))
		goto drop;
	l3 = skb->data;
	l4 = l3 + (r->key.l3proto == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));

	for (i = 0; i < r->mangles; i++) {
		const struct mock_mangle *m = &r->mangle[i];
		__be32 old, new;

		switch (m->htype) {
		case FLOW_ACT_MANGLE_HDR_TYPE_ETH:
			if (m->offset <= 10)
				mock_set_word(skb, (u8 *)&eth, m, &old, &new);
			break;
		case FLOW_ACT_MANGLE_HDR_TYPE_IP4:
			if (mock_set_word(skb, l3, m, &old, &new)) {
				csum_replace4(&((struct iphdr *)l3)->check, old, new);
				if (m->offset >= 12)
					mock_fix_l4(skb, r->key.l4proto, l4, old, new, true);
			}
			break;
		case FLOW_ACT_MANGLE_HDR_TYPE_IP6:
			if (mock_set_word(skb, l3, m, &old, &new) && m->offset >= 8)
				mock_fix_l4(skb, r->key.l4proto, l4, old, new, true);
			break;
		default:
			if (mock_set_word(skb, l4, m, &old, &new))
				mock_fix_l4(skb, r->key.l4proto, l4, old, new, false);
		}
	}
	if (mtk)
		mock_ttl(l3, r->key.l3proto);

	proto = r->key.l3proto == 4 ? htons(ETH_P_IP) : htons(ETH_P_IPV6);
	/* tc pushes around what is there; the engine writes the first one outermost. */
	for (i = 0; i < r->pushes; i++) {
		const struct mock_push *p = &r->push[mtk ? r->pushes - 1 - i : i];

		if (p->proto == htons(ETH_P_PPP_SES)) {
			struct pppoe_hdr *ph = skb_push(skb, PPPOE_SES_HLEN);

			ph->ver = 1;
			ph->type = 1;
			ph->code = 0;
			ph->sid = htons(p->id);
			ph->length = htons(skb->len - sizeof(*ph));
			put_unaligned_be16(proto == htons(ETH_P_IP) ? PPP_IP : PPP_IPV6, (u8 *)(ph + 1));
		} else {
			struct vlan_hdr *vh = skb_push(skb, VLAN_HLEN);

			vh->h_vlan_TCI = htons(p->id);
			vh->h_vlan_encapsulated_proto = proto;
		}
		proto = p->proto;
	}
	eth.h_proto = proto;
	skb->protocol = proto;
	memcpy(skb_push(skb, ETH_HLEN), &eth, ETH_HLEN);
	skb_reset_mac_header(skb);

	spin_lock(&mock_count_lock);
	r->pkts++;
	r->bytes += len;
	r->lastused = jiffies;
	mock_forwarded++;
	spin_unlock(&mock_count_lock);

	skb->dev = out;
	skb_clear_tstamp(skb);
	dev_queue_xmit(skb);
	return NF_STOLEN;
drop:
	kfree_skb(skb);
	return NF_STOLEN;
}
