// SPDX-License-Identifier: GPL-2.0
/* Reads the ruleset that is in force, an expression at a time.
 *
 * Chains, rules and sets that are in force are freed a grace period after another ruleset has come
 * into force. Every function here enters an RCU section and looks whether the generation is still
 * the one that the reading began with: then what earlier calls have found is valid until the
 * section ends. What an expression holds is private to its type: it says so itself, as to
 * userspace.
 */
#include <linux/netfilter/xt_conntrack.h>
#include <linux/siphash.h>
#include <net/netfilter/nf_tables_core.h>
#include <linux/netfilter/nf_tables_compat.h>

#include "helpers.h"

/* Elements of a verdict map that are looked at. */
#define MAX_ELEMENTS	65536

/* Numbers that src/nft_flow/ruleset.rs and src/nft_flow/ruleset/known.rs know by heart. */
static_assert(NFT_CT_STATE == 0 && NFT_CT_EXPIRATION == 5 && NFT_CT_PKTS == 14 &&
	      NFT_CT_BYTES == 15 && NFT_CT_AVGPKT == 16);
static_assert(NFT_META_L4PROTO == 16 && NFT_META_PRANDOM == 24 && NFT_META_TIME_NS == 30 &&
	      NFT_META_TIME_DAY == 31 && NFT_META_TIME_HOUR == 32);
static_assert(NFT_OBJECT_QUOTA == 2 && NFT_OBJECT_LIMIT == 4 && NFT_OBJECT_CONNLIMIT == 5);
static_assert(NFT_CMP_EQ == 0 && NFT_CMP_NEQ == 1 && NFT_REG_VERDICT == 0);
static_assert(NFT_CONTINUE == -1 && NFT_BREAK == -2 && NFT_JUMP == -3 && NFT_GOTO == -4 &&
	      NFT_RETURN == -5);
static_assert(NF_CT_STATE_BIT(IP_CT_ESTABLISHED) == 1 << 1 &&
	      NF_CT_STATE_BIT(IP_CT_RELATED) == 1 << 2 && NF_CT_STATE_BIT(IP_CT_NEW) == 1 << 3);

/* Digests are compared with others of ours only. */
static siphash_key_t digest_key __read_mostly;

static u64 digest(const void *data, size_t len, u64 seed)
{
	return siphash_2u64(siphash(data, len, &digest_key), seed, &digest_key);
}

static u64 digest_name(const char *name, u64 seed)
{
	return digest(name, strlen(name), seed);
}

static u32 generation(const struct net *net)
{
	return READ_ONCE(net->nft.base_seq) << 1 | (READ_ONCE(net->nft.gencursor) & 1);
}

/* Enters an RCU section if the ruleset that is read is in force, -EAGAIN otherwise. */
int nfo_rules_enter(const struct nfo_rules *r)
{
	rcu_read_lock();
	if (generation(r->net) == r->generation)
		return 0;
	rcu_read_unlock();
	return -EAGAIN;
}

int nfo_rules_begin(struct nfo_rules *r, struct net *net, u32 gen)
{
	net_get_random_once(&digest_key, sizeof(digest_key));
	r->net = net;
	r->generation = gen;
	r->msg = alloc_skb(SZ_2K, GFP_KERNEL | __GFP_NOWARN);
	return r->msg ? 0 : -ENOMEM;
}

void nfo_rules_end(struct nfo_rules *r)
{
	consume_skb(r->msg);
}

/* 0 as long as the ruleset that is read is in force. */
int nfo_rules_in_force(const struct nfo_rules *r)
{
	int err = nfo_rules_enter(r);

	if (!err)
		rcu_read_unlock();
	return err;
}

static const struct nft_set *set_by_name(const struct nfo_rules *r, const struct nft_table *table,
					 const struct nlattr *name)
{
	const struct nft_set *set;

	if (!name)
		return NULL;
	list_for_each_entry_rcu(set, &table->sets, list)
		if (nft_is_active(r->net, set) && !nla_strcmp(name, set->name))
			return set;
	return NULL;
}

static u64 object_by_name(const struct nfo_rules *r, const struct nft_table *table, u32 type,
			  const char *name)
{
	const struct nft_object *obj;

	list_for_each_entry_rcu(obj, &table->objects, list)
		if (nft_is_active(r->net, obj) && obj->ops->type->type == type &&
		    !strcmp(name, obj->key.name))
			return obj->handle;
	return 0;
}

static bool is_stateless(const char *name)
{
	return !strcmp(name, "counter") || !strcmp(name, "last");
}

static bool nested_stateful(const struct nlattr *expr)
{
	const struct nlattr *name = nla_find_nested(expr, NFTA_EXPR_NAME);

	return !name || !is_stateless(nla_data(name));
}

static u32 get_be32(const struct nlattr *a, u32 none)
{
	return a ? ntohl(nla_get_be32(a)) : none;
}

static void get_data(struct nfo_data *data, const struct nlattr *a)
{
	const struct nlattr *value = a ? nla_find_nested(a, NFTA_DATA_VALUE) : NULL;

	data->len = 0;
	if (value && nla_len(value) <= sizeof(data->bytes)) {
		data->len = nla_len(value);
		memcpy(data->bytes, nla_data(value), data->len);
	}
}

static u32 get_word(const struct nlattr *a, u32 none)
{
	struct nfo_data data;
	u32 word;

	get_data(&data, a);
	if (data.len != sizeof(word))
		return none;
	memcpy(&word, data.bytes, sizeof(word));
	return word;
}

/* A match of xtables: -m conntrack --ctstate, and nothing else, is understood. */
static void get_match(struct nfo_expr *e, const struct nlattr *tb[])
{
	const struct xt_conntrack_mtinfo3 *info;

	e->kind = NFO_EXPR_EXTENSION;
	if (!tb[NFTA_MATCH_NAME])
		return;
	nla_strscpy(e->name, tb[NFTA_MATCH_NAME], sizeof(e->name));
	if (strcmp(e->name, "conntrack") || get_be32(tb[NFTA_MATCH_REV], 0) != 3 ||
	    !tb[NFTA_MATCH_INFO] || nla_len(tb[NFTA_MATCH_INFO]) < sizeof(*info))
		return;
	info = nla_data(tb[NFTA_MATCH_INFO]);
	if (info->match_flags != XT_CONNTRACK_STATE)
		return;
	e->kind = NFO_EXPR_XT_STATE;
	e->value = info->state_mask;
	e->flag = info->invert_flags & XT_CONNTRACK_STATE;
}

static void decode(const struct nfo_rules *r, const struct nft_chain *chain,
		   const struct nft_expr *expr, struct nfo_expr *e)
{
	const struct nlattr *tb[NFT_EXPR_MAXATTR + 1] = {};
	const char *type = expr->ops->type->name;
	struct sk_buff *msg = r->msg;
	const struct nlattr *a;
	int rem;

	strscpy(e->name, type, sizeof(e->name));
	e->kind = NFO_EXPR_OTHER;
	e->digest = digest_name(type, 0);

	if (!strcmp(type, "immediate")) {
		const struct nft_immediate_expr *imm = nft_expr_priv(expr);

		if (imm->dreg == NFT_REG_VERDICT) {
			e->kind = NFO_EXPR_VERDICT;
			e->code = imm->data.verdict.code;
			e->digest = digest_name(type, (u32)e->code);
			if (e->code == NFT_JUMP || e->code == NFT_GOTO) {
				e->chain = imm->data.verdict.chain;
				e->digest = digest_name(e->chain->name, e->digest);
			}
			return;
		}
	} else if (is_stateless(type) || !expr->ops->dump) {
		return;
	}

	/* What does not fit has been written up to there. */
	skb_trim(msg, 0);
	e->vague = expr->ops->dump(msg, expr, false) < 0;
	nla_for_each_attr(a, (const struct nlattr *)msg->data, msg->len, rem) {
		if (nla_type(a) <= NFT_EXPR_MAXATTR)
			tb[nla_type(a)] = a;
		/* What is consumed, and whether all of it is, changes by itself. */
		if (strcmp(type, "quota") || nla_type(a) == NFTA_QUOTA_BYTES)
			e->digest = digest(a, nla_attr_size(nla_len(a)), e->digest);
		else if (nla_type(a) == NFTA_QUOTA_FLAGS)
			e->digest = siphash_2u64(e->digest, get_be32(a, 0) & NFT_QUOTA_F_INV, &digest_key);
	}

	if (!strcmp(type, "immediate")) {
		e->kind = NFO_EXPR_IMMEDIATE;
		e->to = get_be32(tb[NFTA_IMMEDIATE_DREG], 0);
	} else if (!strcmp(type, "ct") && tb[NFTA_CT_DREG]) {
		e->kind = NFO_EXPR_CT;
		e->to = get_be32(tb[NFTA_CT_DREG], 0);
		e->key = get_be32(tb[NFTA_CT_KEY], U32_MAX);
		e->value = tb[NFTA_CT_DIRECTION] ? nla_get_u8(tb[NFTA_CT_DIRECTION]) : U32_MAX;
	} else if (!strcmp(type, "meta") && tb[NFTA_META_DREG]) {
		e->kind = NFO_EXPR_META;
		e->to = get_be32(tb[NFTA_META_DREG], 0);
		e->key = get_be32(tb[NFTA_META_KEY], U32_MAX);
	} else if (!strcmp(type, "ct") || !strcmp(type, "meta")) {
		e->kind = NFO_EXPR_STORE;
	} else if (!strcmp(type, "bitwise")) {
		if (get_be32(tb[NFTA_BITWISE_OP], NFT_BITWISE_MASK_XOR) != NFT_BITWISE_MASK_XOR ||
		    get_word(tb[NFTA_BITWISE_XOR], 1))
			return;
		e->kind = NFO_EXPR_MASK;
		e->from = get_be32(tb[NFTA_BITWISE_SREG], 0);
		e->to = get_be32(tb[NFTA_BITWISE_DREG], 0);
		e->value = get_word(tb[NFTA_BITWISE_MASK], 0);
	} else if (!strcmp(type, "byteorder")) {
		e->kind = NFO_EXPR_BYTEORDER;
		e->from = get_be32(tb[NFTA_BYTEORDER_SREG], 0);
		e->to = get_be32(tb[NFTA_BYTEORDER_DREG], 0);
		e->value = get_be32(tb[NFTA_BYTEORDER_SIZE], 0);
	} else if (!strcmp(type, "cmp")) {
		e->kind = NFO_EXPR_CMP;
		e->from = get_be32(tb[NFTA_CMP_SREG], 0);
		e->key = get_be32(tb[NFTA_CMP_OP], U32_MAX);
		get_data(&e->data[0], tb[NFTA_CMP_DATA]);
	} else if (!strcmp(type, "range")) {
		e->kind = NFO_EXPR_RANGE;
		e->from = get_be32(tb[NFTA_RANGE_SREG], 0);
		get_data(&e->data[0], tb[NFTA_RANGE_FROM_DATA]);
		get_data(&e->data[1], tb[NFTA_RANGE_TO_DATA]);
	} else if (!strcmp(type, "lookup")) {
		e->set = set_by_name(r, chain->table, tb[NFTA_LOOKUP_SET]);
		if (!e->set)
			return;
		e->kind = NFO_EXPR_LOOKUP;
		e->from = get_be32(tb[NFTA_LOOKUP_SREG], 0);
		e->to = get_be32(tb[NFTA_LOOKUP_DREG], U32_MAX);
		e->flag = get_be32(tb[NFTA_LOOKUP_FLAGS], 0) & NFT_LOOKUP_F_INV;
	} else if (!strcmp(type, "dynset")) {
		e->set = set_by_name(r, chain->table, tb[NFTA_DYNSET_SET_NAME]);
		if (!e->set)
			return;
		e->kind = NFO_EXPR_UPDATE;
		if (tb[NFTA_DYNSET_EXPR])
			e->flag = nested_stateful(tb[NFTA_DYNSET_EXPR]);
		if (tb[NFTA_DYNSET_EXPRESSIONS])
			nla_for_each_nested(a, tb[NFTA_DYNSET_EXPRESSIONS], rem)
				e->flag |= nested_stateful(a);
	} else if (!strcmp(type, "objref") && tb[NFTA_OBJREF_IMM_NAME]) {
		e->kind = NFO_EXPR_OBJECT;
		e->key = get_be32(tb[NFTA_OBJREF_IMM_TYPE], 0);
		nla_strscpy(e->name, tb[NFTA_OBJREF_IMM_NAME], sizeof(e->name));
		/* Another one may have the same name. */
		e->digest = siphash_2u64(e->digest, object_by_name(r, chain->table, e->key, e->name),
					 &digest_key);
	} else if (!strcmp(type, "objref")) {
		e->set = set_by_name(r, chain->table, tb[NFTA_OBJREF_SET_NAME]);
		if (!e->set)
			return;
		e->kind = NFO_EXPR_OBJECT_MAP;
		e->key = e->set->objtype;
	} else if (!strcmp(type, "match")) {
		get_match(e, tb);
	}
}

/* The next expression of a chain. Returns 0 at its end, 1 otherwise. */
int nfo_rules_next(const struct nfo_rules *r, const struct nft_chain *chain,
		   struct nfo_rule_pos *at, struct nfo_expr *e)
{
	const struct nft_rule_blob *blob;
	const struct nft_rule_dp *rule;
	const struct nft_expr *expr;
	int err;

	err = nfo_rules_enter(r);
	if (err)
		return err;
	blob = r->generation & 1 ? rcu_dereference(chain->blob_gen_1) :
				   rcu_dereference(chain->blob_gen_0);
	memset(e, 0, sizeof(*e));
	err = 0;
	if (!blob)
		goto out;
	rule = (const void *)blob->data + at->rule;
	if (rule->is_last)
		goto out;
	err = 1;
	if (!at->begun) {
		at->begun = true;
		at->expr = 0;
		e->kind = NFO_EXPR_RULE;
		goto out;
	}
	if (at->expr >= rule->dlen) {
		at->rule += sizeof(*rule) + rule->dlen;
		rule = nft_rule_next(rule);
		at->expr = 0;
		e->kind = NFO_EXPR_RULE;
		err = !rule->is_last;
		goto out;
	}
	expr = (const void *)rule->data + at->expr;
	at->expr += expr->ops->size;
	decode(r, chain, expr, e);
out:
	rcu_read_unlock();
	return err;
}

int nfo_rules_set(const struct nfo_rules *r, const struct nft_set *set, struct nfo_set *about)
{
	int i, err;

	err = nfo_rules_enter(r);
	if (err)
		return err;
	strscpy(about->name, set->name, sizeof(about->name));
	about->moves = set->flags & (NFT_SET_TIMEOUT | NFT_SET_EVAL);
	about->stateful = (set->flags & NFT_SET_EXPR) && !set->num_exprs;
	for (i = 0; i < set->num_exprs; i++)
		about->stateful |= !is_stateless(set->exprs[i]->ops->type->name);
	rcu_read_unlock();
	return 0;
}

/* Is the key of len bytes in a set? Returns 1 or 0, or that nobody knows. */
int nfo_rules_find(const struct nfo_rules *r, const struct nft_set *set, u32 key, u8 len,
		   struct nfo_expr *e)
{
	const struct nft_set_ext *ext;
	u32 reg[NFT_REG32_NUM] = {};
	int err;

	err = nfo_rules_enter(r);
	if (err)
		return err;
	if (len == 1)
		nft_reg_store8(reg, key);
	else
		reg[0] = key;
	memset(e, 0, sizeof(*e));
	err = -ENOENT;
	if (set->klen != len || !list_empty(&set->catchall_list))
		goto out;
	ext = set->ops->lookup(r->net, set, reg);
	err = !!ext;
	if (ext && (set->flags & NFT_SET_MAP) && set->dtype == NFT_DATA_VERDICT) {
		const struct nft_data *data = nft_set_ext_data(ext);

		e->kind = NFO_EXPR_VERDICT;
		e->code = data->verdict.code;
		if (e->code == NFT_JUMP || e->code == NFT_GOTO)
			e->chain = data->verdict.chain;
	}
out:
	rcu_read_unlock();
	return err;
}

struct walk {
	struct nft_set_iter	iter;
	void			*ctx;
	int			(*want)(void *ctx, const struct nft_chain *chain);
};

static int walk_one(const struct nft_ctx *ctx, struct nft_set *set,
		    const struct nft_set_iter *iter, struct nft_elem_priv *priv)
{
	const struct walk *walk = container_of(iter, struct walk, iter);
	const struct nft_set_ext *ext = nft_set_elem_ext(set, priv);
	const struct nft_data *data;

	if (iter->count >= MAX_ELEMENTS)
		return -E2BIG;
	if (!nft_set_elem_active(ext, iter->genmask) || !nft_set_ext_exists(ext, NFT_SET_EXT_DATA))
		return 0;
	data = nft_set_ext_data(ext);
	if (data->verdict.code != NFT_JUMP && data->verdict.code != NFT_GOTO)
		return 0;
	return walk->want(walk->ctx, data->verdict.chain);
}

/* Calls want(), in an RCU section, for every chain that a verdict map leads to. */
int nfo_rules_targets(const struct nfo_rules *r, const struct nft_set *set, void *ctx,
		      int (*want)(void *ctx, const struct nft_chain *chain))
{
	struct nft_ctx nft = { .net = r->net, .table = set->table };
	struct walk walk = {
		.iter.type	= NFT_ITER_READ,
		.iter.fn	= walk_one,
		.ctx		= ctx,
		.want		= want,
	};
	int err;

	err = nfo_rules_enter(r);
	if (err)
		return err;
	walk.iter.genmask = 1 << (r->generation & 1);
	if (!(set->flags & NFT_SET_MAP) || set->dtype != NFT_DATA_VERDICT)
		goto out;
	/* Elements for everything else are not for us to look at. */
	err = -E2BIG;
	if (!list_empty(&set->catchall_list))
		goto out;
	set->ops->walk(&nft, (struct nft_set *)set, &walk.iter);
	err = walk.iter.err;
out:
	rcu_read_unlock();
	return err;
}

struct digest_walk {
	struct nft_set_iter	iter;
	u64			sum;
	void			*ctx;
	int			(*want)(void *ctx, const struct nft_chain *chain);
};

static int digest_one(const struct nft_ctx *ctx, struct nft_set *set,
		      const struct nft_set_iter *iter, struct nft_elem_priv *priv)
{
	struct digest_walk *walk = (struct digest_walk *)container_of(iter, struct digest_walk, iter);
	const struct nft_set_ext *ext = nft_set_elem_ext(set, priv);
	struct nft_set_elem_expr *exprs;
	const struct nft_data *data;
	struct nft_expr *expr;
	u64 sum = 1;
	u32 size;

	if (iter->count >= MAX_ELEMENTS)
		return -E2BIG;
	if (!nft_set_elem_active(ext, iter->genmask) || nft_set_elem_expired(ext))
		return 0;
	if (nft_set_ext_exists(ext, NFT_SET_EXT_EXPRESSIONS)) {
		exprs = nft_set_ext_expr(ext);
		nft_setelem_expr_foreach(expr, exprs, size)
			if (!is_stateless(expr->ops->type->name))
				return -E2BIG;
	}
	if (nft_set_ext_exists(ext, NFT_SET_EXT_KEY))
		sum = digest(nft_set_ext_key(ext), set->klen, sum);
	if (nft_set_ext_exists(ext, NFT_SET_EXT_KEY_END))
		sum = digest(nft_set_ext_key_end(ext), set->klen, sum);
	if (nft_set_ext_exists(ext, NFT_SET_EXT_FLAGS))
		sum = digest(nft_set_ext_flags(ext), 1, sum);
	if (nft_set_ext_exists(ext, NFT_SET_EXT_OBJREF))
		sum = siphash_2u64(sum, (*nft_set_ext_obj(ext))->handle, &digest_key);
	if (nft_set_ext_exists(ext, NFT_SET_EXT_DATA)) {
		data = nft_set_ext_data(ext);
		if (set->dtype != NFT_DATA_VERDICT) {
			sum = digest(data, set->dlen, sum);
		} else {
			sum = siphash_2u64(sum, (u32)data->verdict.code, &digest_key);
			if (data->verdict.code == NFT_JUMP || data->verdict.code == NFT_GOTO) {
				sum = digest_name(data->verdict.chain->name, sum);
				if (walk->want(walk->ctx, data->verdict.chain))
					return -ENOMEM;
			}
		}
	}
	/* In whatever order they come. */
	walk->sum += sum;
	return 0;
}

/* The digest of what is in a set. Calls want(), in an RCU section, for every chain that a verdict
 * map leads to.
 */
int nfo_rules_set_digest(const struct nfo_rules *r, const struct nft_set *set, void *ctx,
			 int (*want)(void *ctx, const struct nft_chain *chain), u64 *sum)
{
	struct nft_ctx nft = { .net = r->net, .table = set->table };
	struct digest_walk walk = {
		.iter.type	= NFT_ITER_READ,
		.iter.fn	= digest_one,
		.iter.genmask	= 1 << (r->generation & 1),
		.ctx		= ctx,
		.want		= want,
	};
	int err;

	err = nfo_rules_enter(r);
	if (err)
		return err;
	/* Elements for everything else are not for us to look at. */
	err = -E2BIG;
	if (!list_empty(&set->catchall_list))
		goto out;
	set->ops->walk(&nft, (struct nft_set *)set, &walk.iter);
	err = walk.iter.err;
	*sum = digest_name(set->table->name, walk.sum + set->table->family);
	*sum = digest_name(set->name, *sum);
	*sum = siphash_3u64(*sum, (u64)set->klen << 32 | set->dlen, (u64)set->dtype << 32 | set->flags,
			    &digest_key);
out:
	rcu_read_unlock();
	return err;
}

/* The digest of a chain without its rules. */
int nfo_rules_chain_digest(const struct nfo_rules *r, const struct nft_chain *chain, u64 *sum)
{
	int err;

	err = nfo_rules_enter(r);
	if (err)
		return err;
	*sum = digest_name(chain->table->name, chain->table->family);
	*sum = digest_name(chain->name, *sum);
	if (nft_is_base_chain(chain))
		*sum = siphash_3u64(*sum, nft_base_chain(chain)->policy, chain->flags, &digest_key);
	rcu_read_unlock();
	return 0;
}
