// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's PPE driver as a library: rules in, entries, errors and register writes out. Built by
 * tests/kernel.rs against the kernel's source, which it includes as it is.
 */
#include "mtk_ppe.c"
#include "mtk_ppe_offload.c"
#undef seq_printf
#include "mtk_ppe_debugfs.c"

unsigned long orc_warnings, orc_jiffies = 100000;
int orc_is_mt7621;
struct net init_net;

#define WINDOWS 3
static u32 regs[WINDOWS][0x400 / 4];
static u32 clock_, counters[WINDOWS][16384][4];
static struct { u32 reg, val; } trace[4096];
static unsigned int traced;
static int watched;

static void *chunks[100000];
static unsigned int nchunks;

void *orc_alloc(size_t size)
{
	if (nchunks == ARRAY_SIZE(chunks))
		abort();
	return chunks[nchunks++] = calloc(1, size);
}

static u32 *window(void *addr, u32 *reg, int *which)
{
	size_t at = (char *)addr - (char *)regs;

	*which = at / sizeof(regs[0]);
	*reg = at % sizeof(regs[0]);
	return &regs[*which][*reg / 4];
}

u32 orc_read(void *addr)
{
	int which;
	u32 reg, *p = window(addr, &reg, &which);

	if (reg == MTK_PPE_MIB_SER_CR)
		return *p & ~MTK_PPE_MIB_SER_CR_ST;
	if (reg >= MTK_PPE_MIB_SER_R0 && reg <= MTK_PPE_MIB_SER_R3) {
		u32 *c = &counters[which][regs[which][MTK_PPE_MIB_SER_CR / 4] & 0x3fff][(reg - MTK_PPE_MIB_SER_R0) / 4];
		u32 val = *c;

		*c = 0;
		return val;
	}
	return *p;
}

void orc_write(u32 val, void *addr)
{
	int which;
	u32 reg;

	*window(addr, &reg, &which) = val;
	if (which == watched && traced < ARRAY_SIZE(trace)) {
		trace[traced].reg = reg;
		trace[traced++].val = val;
	}
}

u32 mtk_r32(struct mtk_eth *eth, unsigned int reg)
{
	(void)eth;
	return reg == 0x10 ? clock_ : 0;
}

static const struct mtk_soc_data socs[] = {
	{ 1, 1, 2, MTK_FOE_ENTRY_V1_SIZE, 1, false },	/* MT7621 */
	{ 1, 1, 2, MTK_FOE_ENTRY_V1_SIZE, 1, false },	/* MT7623 */
	{ 1, 2, 2, MTK_FOE_ENTRY_V1_SIZE, 1, true },	/* MT7622 */
	{ 2, 2, 4, MTK_FOE_ENTRY_V2_SIZE, 2, true },	/* MT7986 */
	{ 3, 2, 4, MTK_FOE_ENTRY_V3_SIZE, 3, true },	/* MT7988 */
};

static struct device device;
static struct mtk_eth eth;
static struct mtk_mac macs[3];
static const struct net_device_ops mac_ops, other_ops;
static const struct dsa_device_ops mtk_tag = { DSA_TAG_PROTO_MTK }, other_tag = { 1 };
static struct dsa_port cpu[2] = { { .tag_ops = &mtk_tag }, { .tag_ops = &other_tag } }, switch_port;
static struct net_device mac_dev[3], port_dev, radio_dev, foreign_dev;
static struct mtk_wdma_info station;

struct net_device *__dev_get_by_index(struct net *net, int ifindex)
{
	(void)net;
	return ifindex >= 1 && ifindex <= 3 ? &mac_dev[ifindex - 1] : &foreign_dev;
}

int dev_fill_forward_path(struct net_device_path_ctx *ctx, struct net_device_path_stack *stack)
{
	stack->num_paths = 1;
	stack->path[0].type = ctx->dev->wdma ? DEV_PATH_MTK_WDMA : DEV_PATH_ETHERNET;
	stack->path[0].mtk_wdma.wdma_idx = station.wdma_idx;
	stack->path[0].mtk_wdma.queue = station.queue;
	stack->path[0].mtk_wdma.wcid = station.wcid;
	stack->path[0].mtk_wdma.bss = station.bss;
	stack->path[0].mtk_wdma.amsdu = station.amsdu;
	return 0;
}

/* The formats that the kernel's vsnprintf() adds, and only as far as they are used here. */
void seq_printf(struct seq_file *m, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	for (; *fmt && m->len < m->size; fmt++) {
		char *at = m->buf + m->len, spec[16];
		size_t room = m->size - m->len;
		int n = 0;

		if (*fmt != '%') {
			*at = *fmt;
			m->len++;
			continue;
		}
		if (fmt[1] == 'p') {
			const u8 *p = va_arg(ap, void *);

			if (!strncmp(fmt, "%pI4h", 5)) {
				n = snprintf(at, room, "%u.%u.%u.%u", p[3], p[2], p[1], p[0]);
				fmt += 4;
			} else if (!strncmp(fmt, "%pI6", 4)) {
				for (int i = 0; i < 8; i++)
					n += snprintf(at + n, room - n, "%s%02x%02x", i ? ":" : "", p[2 * i], p[2 * i + 1]);
				fmt += 3;
			} else if (!strncmp(fmt, "%pM", 3)) {
				for (int i = 0; i < 6; i++)
					n += snprintf(at + n, room - n, "%s%02x", i ? ":" : "", p[i]);
				fmt += 2;
			} else {
				abort();
			}
		} else {
			size_t len = strcspn(fmt, "dusx") + 1;

			memcpy(spec, fmt, len);
			spec[len] = 0;
			if (strstr(spec, "ll"))
				n = snprintf(at, room, spec, va_arg(ap, unsigned long long));
			else if (spec[len - 1] == 's')
				n = snprintf(at, room, spec, va_arg(ap, char *));
			else
				n = snprintf(at, room, spec, va_arg(ap, int));
			fmt += len - 1;
		}
		m->len += n;
	}
	va_end(ap);
}

/* What tests/kernel.rs calls. */
struct orc_rule {
	u64 cookie;
	u32 in_ifindex;
	u32 out;	/* 1 to 3: MACs, 10 and more: switch port, 30: radio, 50 and more: port of another switch, 99 */
	u8 smac[6], dmac[6];
	u8 src[16], dst[16], new_src[16], new_dst[16];
	u16 sport, dport, new_sport, new_dport;
	u8 family;	/* 0 bridge, 4, 6 */
	u8 proto, has_ports, layers;
	struct { u16 proto, id; } layer[3];
	u16 in_vlan;
	u16 wcid;
	u8 wdma, queue, bss, amsdu;
};

void orc_init(int soc)
{
	for (unsigned int i = 0; i < nchunks; i++)
		free(chunks[i]);
	nchunks = traced = 0;
	watched = 0;
	memset(regs, 0, sizeof(regs));
	memset(counters, 0, sizeof(counters));
	memset(&eth, 0, sizeof(eth));
	orc_is_mt7621 = soc == 0;
	eth.soc = &socs[soc];
	eth.dev = &device;
	for (int i = 0; i < 3; i++) {
		macs[i].hw = &eth;
		macs[i].ppe_idx = i < eth.soc->ppe_num ? i : eth.soc->ppe_num - 1;
		mac_dev[i].ifindex = i + 1;
		mac_dev[i].netdev_ops = &mac_ops;
		mac_dev[i].priv = &macs[i];
		eth.netdev[i] = &mac_dev[i];
	}
	mac_dev[0].dsa_ptr = &cpu[0];
	port_dev.dp = &switch_port;
	port_dev.netdev_ops = radio_dev.netdev_ops = foreign_dev.netdev_ops = &other_ops;
	radio_dev.wdma = true;
	switch_port.conduit = &mac_dev[0];
	for (int i = 0; i < eth.soc->ppe_num; i++) {
		eth.ppe[i] = mtk_ppe_init(&eth, regs[i], i);
		mtk_eth_offload_init(&eth, i);
		mtk_ppe_start(eth.ppe[i]);
		mtk_ppe_update_mtu(eth.ppe[i], 1500);
	}
}

static void mangle(struct flow_rule *r, int htype, u32 offset, u32 val, u32 mask)
{
	struct flow_action_entry *a = &r->action.entries[r->action.num_entries++];

	a->id = FLOW_ACTION_MANGLE;
	a->mangle.htype = htype;
	a->mangle.offset = offset;
	a->mangle.val = val;
	a->mangle.mask = mask;
}

static u32 load32(const u8 *p) { u32 v; memcpy(&v, p, 4); return v; }
static u32 load16(const u8 *p) { u16 v; memcpy(&v, p, 2); return v; }

/* As nf_flow_table_offload.c renders rules. */
int orc_replace(const struct orc_rule *o)
{
	struct flow_cls_offload cls = { .command = FLOW_CLS_REPLACE, .cookie = o->cookie };
	struct flow_action_entry *a;
	struct flow_rule r = {};
	int l4 = o->proto == IPPROTO_UDP ? FLOW_ACT_MANGLE_HDR_TYPE_UDP : FLOW_ACT_MANGLE_HDR_TYPE_TCP;

	cls.rule = &r;
	r.used = BIT(FLOW_DISSECTOR_KEY_META) | BIT(FLOW_DISSECTOR_KEY_CONTROL) | BIT(FLOW_DISSECTOR_KEY_BASIC);
	r.key.meta.ingress_ifindex = o->in_ifindex;
	r.key.basic.ip_proto = o->proto;
	if (o->has_ports) {
		r.used |= BIT(FLOW_DISSECTOR_KEY_PORTS);
		r.key.ports.src = htons(o->sport);
		r.key.ports.dst = htons(o->dport);
	}
	if (o->family == 4) {
		r.key.control.addr_type = FLOW_DISSECTOR_KEY_IPV4_ADDRS;
		r.key.ipv4_addrs.src = load32(o->src);
		r.key.ipv4_addrs.dst = load32(o->dst);
	} else if (o->family == 6) {
		r.key.control.addr_type = FLOW_DISSECTOR_KEY_IPV6_ADDRS;
		memcpy(&r.key.ipv6_addrs.src, o->src, 16);
		memcpy(&r.key.ipv6_addrs.dst, o->dst, 16);
	} else {
		r.used |= BIT(FLOW_DISSECTOR_KEY_ETH_ADDRS);
		memcpy(r.key.eth_addrs.src, o->smac, 6);
		memcpy(r.key.eth_addrs.dst, o->dmac, 6);
	}
	if (o->in_vlan) {
		r.used |= BIT(FLOW_DISSECTOR_KEY_VLAN);
		r.key.vlan.vlan_id = o->in_vlan;
		r.key.vlan.vlan_tpid = htons(ETH_P_8021Q);
	}

	if (o->family) {
		mangle(&r, FLOW_ACT_MANGLE_HDR_TYPE_ETH, 4, load16(o->smac) << 16, 0x0000ffff);
		mangle(&r, FLOW_ACT_MANGLE_HDR_TYPE_ETH, 8, load32(o->smac + 2), 0);
		mangle(&r, FLOW_ACT_MANGLE_HDR_TYPE_ETH, 0, load32(o->dmac), 0);
		mangle(&r, FLOW_ACT_MANGLE_HDR_TYPE_ETH, 4, load16(o->dmac + 4), 0xffff0000);
	}
	for (int i = 0; i < o->layers; i++) {
		a = &r.action.entries[r.action.num_entries++];
		if (o->layer[i].proto == ETH_P_PPP_SES) {
			a->id = FLOW_ACTION_PPPOE_PUSH;
			a->pppoe.sid = o->layer[i].id;
		} else {
			a->id = FLOW_ACTION_VLAN_PUSH;
			a->vlan.vid = o->layer[i].id;
			a->vlan.proto = htons(o->layer[i].proto);
		}
	}
	if (o->family == 4) {
		if (memcmp(o->src, o->new_src, 4))
			mangle(&r, FLOW_ACT_MANGLE_HDR_TYPE_IP4, 12, load32(o->new_src), 0);
		if (memcmp(o->dst, o->new_dst, 4))
			mangle(&r, FLOW_ACT_MANGLE_HDR_TYPE_IP4, 16, load32(o->new_dst), 0);
	} else if (o->family == 6) {
		for (int i = 0; i < 16; i += 4) {
			if (memcmp(o->src, o->new_src, 16))
				mangle(&r, FLOW_ACT_MANGLE_HDR_TYPE_IP6, 8 + i, load32(o->new_src + i), 0);
			if (memcmp(o->dst, o->new_dst, 16))
				mangle(&r, FLOW_ACT_MANGLE_HDR_TYPE_IP6, 24 + i, load32(o->new_dst + i), 0);
		}
	}
	if (o->has_ports && o->family) {
		if (o->sport != o->new_sport)
			mangle(&r, l4, 0, htonl((u32)o->new_sport << 16), ~htonl(0xffff0000));
		if (o->dport != o->new_dport)
			mangle(&r, l4, 0, htonl(o->new_dport), ~htonl(0xffff));
	}
	if (o->family == 4)
		r.action.entries[r.action.num_entries++].id = FLOW_ACTION_CSUM;
	a = &r.action.entries[r.action.num_entries++];
	a->id = FLOW_ACTION_REDIRECT;
	if (o->out >= 1 && o->out <= 3) {
		a->dev = &mac_dev[o->out - 1];
	} else if (o->out >= 10 && o->out < 30) {
		switch_port.index = o->out - 10;
		switch_port.cpu_dp = &cpu[0];
		a->dev = &port_dev;
	} else if (o->out >= 50 && o->out < 70) {
		switch_port.index = o->out - 50;
		switch_port.cpu_dp = &cpu[1];
		a->dev = &port_dev;
	} else if (o->out == 30) {
		station = (struct mtk_wdma_info){ o->wdma, o->queue, o->wcid, o->bss, o->amsdu };
		a->dev = &radio_dev;
	} else {
		a->dev = &foreign_dev;
	}
	return mtk_eth_setup_tc_block_cb(TC_SETUP_CLSFLOWER, &cls, &mac_dev[0]);
}

static struct mtk_flow_entry *find(u64 cookie)
{
	unsigned long c = cookie;

	return rhashtable_lookup(&eth.flow_table, &c, mtk_flow_ht_params);
}

/* The entry of a flow as it was made, and its engine; the bucket, or -1. */
int orc_entry(u64 cookie, u32 *words, u32 *ppe, u32 *bound)
{
	struct mtk_flow_entry *e = find(cookie);

	if (!e)
		return -1;
	memcpy(words, &e->data, sizeof(e->data));
	*ppe = e->ppe_index;
	*bound = e->hash;
	return e->type == MTK_FLOW_TYPE_L2 ? 0 : (int)mtk_ppe_hash_entry(&eth, &e->data);
}

int orc_destroy(u64 cookie)
{
	struct flow_cls_offload cls = { .command = FLOW_CLS_DESTROY, .cookie = cookie };

	return mtk_eth_setup_tc_block_cb(TC_SETUP_CLSFLOWER, &cls, &mac_dev[0]);
}

int orc_stats(u64 cookie, u64 *packets, u64 *bytes, u64 *idle)
{
	struct flow_cls_offload cls = { .command = FLOW_CLS_STATS, .cookie = cookie };
	int err = mtk_eth_setup_tc_block_cb(TC_SETUP_CLSFLOWER, &cls, &mac_dev[0]);

	*packets = cls.stats.pkts;
	*bytes = cls.stats.bytes;
	*idle = (orc_jiffies - cls.stats.lastused) / HZ;
	return err;
}

/* A packet of the slot was received with the reason that the engine wants it bound. */
void orc_packet(int ppe, u32 slot, const u8 *frame)
{
	struct sk_buff skb = { .dev = &mac_dev[1], .protocol = htons(ETH_P_IP), .data = (u8 *)frame + 14,
			       .mac = (u8 *)frame };

	if (frame[12] == 0x81 && frame[13] == 0) {
		skb.protocol = htons(ETH_P_8021Q);
	}
	orc_jiffies += HZ;
	mtk_ppe_check_skb(eth.ppe[ppe], &skb, slot);
}

u32 *orc_slot(int ppe, u32 slot) { return (u32 *)mtk_foe_get_entry(eth.ppe[ppe], slot); }
void orc_clock(u32 now) { clock_ = now; }
void orc_count(int ppe, u32 slot, const u32 *regs) { memcpy(counters[ppe][slot], regs, 16); }
int orc_stop(void) { return mtk_ppe_stop(eth.ppe[0]); }
int orc_prepare_reset(void) { return mtk_ppe_prepare_reset(eth.ppe[0]); }
unsigned long orc_warned(void) { return orc_warnings; }

/* Register writes since the last call; from now on of engine "next". */
u32 orc_trace(u32 *out, u32 max, int next)
{
	u32 n = traced < max ? traced : max;

	memcpy(out, trace, n * sizeof(trace[0]));
	traced = 0;
	watched = next;
	return n;
}

u32 orc_text(int ppe, int bind, char *buf, u32 size)
{
	struct seq_file m = { .private = eth.ppe[ppe], .buf = buf, .size = size };

	mtk_ppe_debugfs_foe_show(&m, NULL, bind);
	return m.len;
}
