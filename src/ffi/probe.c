// SPDX-License-Identifier: GPL-2.0
/* Packets on their way through the ruleset: which one it is, what it came in with, what it leaves
 * with.
 */
#include <linux/jhash.h>
#include <linux/netfilter_bridge.h>
#include <linux/percpu.h>
#include <net/ip.h>
#include <net/ipv6.h>

#include "helpers.h"

/* The latest packet without a flow that a CPU has let through: it may be about to add one. */
static DEFINE_PER_CPU(struct nfo_probe, nfo_unknown);

/* A fingerprint of a packet on its way through the stack: of where it is, and of what rules and
 * translation leave alone: identification or flow label, and the first bytes of what is sent (of
 * TCP and SCTP the sequence number). Both headers are at these offsets from data. Never 0.
 */
u32 nfo_skb_fingerprint(const struct sk_buff *skb, u32 network, u32 transport, u8 proto)
{
	const __be32 *head, *text;
	__be32 _head[2], _text;
	u32 id = 0, at;

	head = skb_header_pointer(skb, network, sizeof(_head), _head);
	if (head && ntohl(head[0]) >> 28 == 4)
		id = ntohl(head[1]) >> 16;
	else if (head)
		id = ntohl(head[0] & IPV6_FLOWLABEL_MASK);
	/* SCTP has a checksum where others have no more header. */
	at = proto == IPPROTO_TCP ? 4 : proto == IPPROTO_SCTP ? 16 : 8;
	text = skb_header_pointer(skb, transport + at, sizeof(_text), &_text);
	return jhash_3words((u32)((unsigned long)skb >> 5), id, text ? (__force u32)*text : 0, 0) ?: 1;
}

/* The IP header is at data, in the linear part. */
void nfo_skb_left(const struct sk_buff *skb, u32 thoff, struct nfo_left *left)
{
	const struct iphdr *ip = (const struct iphdr *)skb->data;
	u32 l4[2] = {};

	skb_copy_bits(skb, thoff, l4, sizeof(l4));
	left->ports = l4[0];
	left->has_checksum = ((__be16 *)l4)[3];
	if (ip->version == 4) {
		left->ttl = ip->ttl;
		left->dont_fragment = ip->frag_off & htons(IP_DF);
	} else {
		left->ttl = ((const struct ipv6hdr *)ip)->hop_limit;
		left->dont_fragment = false;
	}
#if IS_ENABLED(CONFIG_BRIDGE_NETFILTER)
	/* What a bridge passes on between its ports keeps its TTL. */
	const struct nf_bridge_info *nf_bridge = nf_bridge_info_get(skb);

	if (nf_bridge && nf_bridge->physoutdev)
		left->ttl--;
#endif
}

/* In the ingress hook. */
void nfo_probe_note(const struct nfo_probe *probe)
{
	*this_cpu_ptr(&nfo_unknown) = *probe;
}

/* What the packet with this fingerprint came in with, if it is the latest one. The CPU may be
 * another one by now if the packet has waited in a queue, and a packet that came in elsewhere is in
 * the memory of an earlier one: the key has to be the same.
 */
bool nfo_probe_noted(u32 fingerprint, u32 hash, struct nfo_probe *probe)
{
	local_bh_disable();
	*probe = *this_cpu_ptr(&nfo_unknown);
	local_bh_enable();
	return probe->fingerprint == fingerprint && probe->hash == hash;
}
