/* config.c - hyper-parameters: one table of keys with ranges, for every layout and family.
 *
 * A row says where config.json and GGUF keep a fact, where it goes and what it may be; a family adds
 * rows of its own.  What the rows leave open is derived, and then everything is checked against
 * everything: a config that passes can be built from without a second look. */
#include "models/model.h"

#include <math.h>
#include <string.h>

#define AT(field) offsetof(wf_config, field)

static const struct wf_key common[] = {
	{"vocab_size padded_vocab_size", "vocab_size", AT(vocab), 'i', 1, 1 << 24, 0},
	{"hidden_size n_embd d_model", "embedding_length", AT(dim), 'i', 1, 1 << 20, NAN},
	{"num_hidden_layers n_layer num_layers n_layers", "block_count", AT(nlayer), 'i', 1, 1024, NAN},
	{"num_attention_heads n_head n_heads", "attention.head_count", AT(nhead), 'i', 1, 4096, NAN},
	{"num_key_value_heads num_kv_heads", "attention.head_count_kv", AT(nkv), 'i', 1, 4096, 0},
	{"head_dim kv_channels", "attention.key_length", AT(hdim), 'i', 1, 4096, 0},
	{"v_head_dim", "attention.value_length", AT(vdim), 'i', 1, 4096, 0},
	{"intermediate_size n_inner ffn_hidden_size ffn_dim", "feed_forward_length", AT(ffn), 'i', 1, 1 << 24, 0},
	{"max_position_embeddings n_positions seq_length", "context_length", AT(ctx), 'i', 1, 1 << 30, 2048},
	{"rms_norm_eps layer_norm_epsilon layer_norm_eps layernorm_epsilon norm_epsilon",
		"attention.layer_norm_rms_epsilon attention.layer_norm_epsilon", AT(eps), 'f', 0, 1, 1e-5},
	{"tie_word_embeddings", NULL, AT(tied), 'b', 0, 1, 0},
	{"attention_bias", NULL, AT(qkv_bias), 'b', 0, 1, 0},
	{"attention_bias", NULL, AT(out_bias), 'b', 0, 1, 0},
	{"mlp_bias", NULL, AT(mlp_bias), 'b', 0, 1, 0},

	{"rope.rope_theta rope_theta rotary_emb_base", "rope.freq_base", AT(theta), 'f', 1, 1e12, 10000},
	{"rope_parameters.sliding_attention.rope_theta rope_local_base_freq", "rope.freq_base_swa",
		AT(theta_local), 'f', 1, 1e12, 0},
	{"rope_parameters.sliding_attention.factor", NULL, AT(rope_local_factor), 'f', 0, 1e6, 0},
	{"rotary_dim", "rope.dimension_count", AT(rope_dim), 'i', 1, 4096, 0},
	{"rope.partial_rotary_factor partial_rotary_factor rotary_pct", NULL, AT(rope_partial), 'f', 1e-6, 1, 0},
	{"rope.factor", "rope.scaling.factor rope.scale_linear", AT(rope_factor), 'f', 0, 1e6, 0},
	{"rope.low_freq_factor", NULL, AT(rope_low), 'f', 0, 1e6, 1},
	{"rope.high_freq_factor", NULL, AT(rope_high), 'f', 0, 1e6, 4},
	{"rope.original_max_position_embeddings original_max_position_embeddings",
		"rope.scaling.original_context_length", AT(rope_orig_ctx), 'f', 1, 1 << 30, 0},
	{"rope.beta_fast", "rope.scaling.yarn_beta_fast", AT(rope_beta_fast), 'f', 1e-6, 1e6, 32},
	{"rope.beta_slow", "rope.scaling.yarn_beta_slow", AT(rope_beta_slow), 'f', 1e-6, 1e6, 1},
	{"rope.truncate", NULL, AT(rope_truncate), 'b', 0, 1, 1},
	{"rope.attention_factor", "rope.scaling.attn_factor", AT(rope_attn_factor), 'f', 0, 1e3, 0},
	{"rope.mscale", NULL, AT(rope_mscale), 'f', 0, 1e3, 0},
	{"rope.mscale_all_dim", NULL, AT(rope_mscale_all), 'f', 0, 1e3, 0},

	{"sliding_window", "attention.sliding_window", AT(window), 'i', 0, 1 << 30, 0},
	{"sliding_window_pattern _sliding_window_pattern", "attention.sliding_window_pattern",
		AT(window_period), 'i', 0, 1024, 0},
	{"attn_logit_softcapping", "attn_logit_softcapping", AT(attn_softcap), 'f', 0, 1e6, 0},
	{"final_logit_softcapping", "final_logit_softcapping", AT(final_softcap), 'f', 0, 1e6, 0},

	{"num_local_experts num_experts n_routed_experts", "expert_count", AT(nexpert), 'i', 0, 4096, 0},
	{"num_experts_per_tok", "expert_used_count", AT(nexpert_used), 'i', 0, 4096, 0},
	{"moe_intermediate_size", "expert_feed_forward_length", AT(expert_ffn), 'i', 0, 1 << 24, 0},
	{"n_shared_experts", "expert_shared_count", AT(nexpert_shared), 'i', 0, 4096, 0},
	{"n_group", "expert_group_count", AT(nexpert_group), 'i', 0, 4096, 0},
	{"topk_group", "expert_group_used_count", AT(ngroup_used), 'i', 0, 4096, 0},
	{"first_k_dense_replace", "leading_dense_block_count", AT(first_dense), 'i', 0, 1024, 0},
	{"routed_scaling_factor", "expert_weights_scale", AT(expert_scale), 'f', 0, 1e6, 0},
	{"norm_topk_prob", "expert_weights_norm", AT(expert_norm), 'b', 0, 1, 0},
	{0}
};

/* ---- rows ---- */

static const char *const kinds[] = {['i'] = "an integer", ['f'] = "a number", ['b'] = "true or false"};

static int check(const struct config_source *s, const struct wf_key *row, const char *key, char type, double v)
{
	if ((type == 'b') != (row->type == 'b'))
		return wf_fail(s->err, "%s: %s%s is %s, expected %s", s->file, s->prefix, key,
			type == 'b' ? "a boolean" : "a number", kinds[(int)row->type]);
	if (row->type == 'b' && row->min == row->max && v != row->min)
		return wf_fail(s->err, "%s: %s%s is %s, which is not supported", s->file, s->prefix, key,
			v != 0 ? "true" : "false");
	if (!(v >= row->min && v <= row->max) || (row->type == 'i' && v != floor(v)))
		return wf_fail(s->err, "%s: %s%s is %.17g, expected %s from %.9g to %.9g", s->file, s->prefix,
			key, v, kinds[(int)row->type], row->min, row->max);
	return 0;
}

static void store(wf_config *c, const struct wf_key *row, double v)
{
	char *field = (char *)c + row->field;

	if (row->type == 'i')
		*(int64_t *)(void *)field = (int64_t)v;
	else if (row->type == 'f')
		*(double *)(void *)field = v;
	else
		*(bool *)(void *)field = v != 0;
}

/* The next word of a list of keys; false at its end. */
static bool next_key(const char **keys, char *key, size_t cap)
{
	size_t len = strcspn(*keys += strspn(*keys, " "), " ");

	snprintf(key, cap, "%.*s", (int)len, *keys);
	*keys += len;
	return len > 0;
}

static int read_row(const struct config_source *s, const struct wf_key *row, const char *keys, wf_config *c)
{
	char key[160], type;
	bool none = false;
	double v;

	for (const char *rest = keys; rest && next_key(&rest, key, sizeof key); ) {
		int found = s->get(s, key, &type, &v);
		if (found < 0)
			return -1;
		if (found > 0 && type == '0') {
			none = true;
		} else if (found > 0) {
			if (check(s, row, key, type, v) < 0)
				return -1;
			store(c, row, v);
			return 0;
		}
	}
	if (isnan(row->absent) && keys) {
		size_t n = strcspn(keys, " ");
		return wf_fail(s->err, "%s: %s%.*s is missing%s%s%s", s->file, s->prefix, (int)n, keys,
			keys[n] ? " (or any of:" : "", keys + n, keys[n] ? ")" : "");
	}
	/* null says that there is none, where the family would otherwise have one */
	store(c, row, isnan(row->absent) || (none && row->min <= 0) ? 0 : row->absent);
	return 0;
}

static bool has_field(const struct wf_key *rows, size_t field)
{
	for (; rows && rows->type; rows++)
		if (rows->field == field)
			return true;
	return false;
}

int config_rows(const struct config_source *s, const wf_arch *arch, wf_config *c)
{
	for (const struct wf_key *row = common; row->type; row++)
		if (!has_field(arch->keys, row->field) &&
		    read_row(s, row, c->gguf ? row->gguf : row->hf, c) < 0)
			return -1;
	for (const struct wf_key *row = arch->keys; row && row->type; row++)
		if (read_row(s, row, c->gguf ? row->gguf : row->hf, c) < 0)
			return -1;
	return 0;
}

/* ---- special tokens ---- */

int config_eos(wf_config *c, wf_error *err, const char *where, double id)
{
	if (id == -1)
		return 0;
	if (!(id >= 0 && id <= INT32_MAX) || id != floor(id))
		return wf_fail(err, "%s: end token %.9g, expected one from 0 to %d", where, id, INT32_MAX);
	if (c->vocab && id >= (double)c->vocab)       /* a default that small models leave: it never comes */
		return 0;
	for (int i = 0; i < c->neos; i++)
		if (c->eos[i] == (int32_t)id)
			return 0;
	if (c->neos == (int)(sizeof c->eos / sizeof *c->eos))
		return wf_fail(err, "%s: more than %d end tokens", where, c->neos);
	c->eos[c->neos++] = (int32_t)id;
	return 0;
}

/* ---- what the rows leave open ---- */

static int derive(wf_config *c, wf_error *err)
{
	if (!c->nkv)
		c->nkv = c->nhead;
	if (!c->hdim && c->dim % c->nhead)
		return wf_fail(err, "config: width %lld is no multiple of %lld heads, and no head size is given",
			(long long)c->dim, (long long)c->nhead);
	if (!c->hdim)
		c->hdim = c->dim / c->nhead;
	if (!c->vdim)
		c->vdim = c->hdim;
	if (!c->ffn)
		c->ffn = 4 * c->dim;
	if (!c->rope_dim)
		c->rope_dim = c->rope_partial > 0 ? (int64_t)((double)c->hdim * c->rope_partial) : c->hdim;
	return 0;
}

static int derive_sliding(wf_arena *arena, wf_error *err, wf_config *c)
{
	if (c->window == 0) {
		c->sliding = NULL;
	} else if (!c->sliding && c->window_period > 1) {
		uint8_t *sliding = wf_alloc(arena, (size_t)c->nlayer);
		if (!sliding)
			return wf_fail(err, "config: out of memory");
		for (int64_t l = 0; l < c->nlayer; l++)
			sliding[l] = (l + 1) % c->window_period != 0;
		c->sliding = sliding;
	}
	return 0;
}

static int derive_rope(wf_config *c, wf_error *err)
{
	bool stretches = c->scaling == WF_ROPE_YARN || c->scaling == WF_ROPE_LONG;

	if (c->scaling == WF_ROPE_PLAIN)
		return 0;
	if (c->rope_orig_ctx <= 0 && c->scaling != WF_ROPE_LINEAR)
		c->rope_orig_ctx = (double)c->ctx;
	if (c->rope_factor <= 0 && stretches && c->rope_orig_ctx > 0)
		c->rope_factor = (double)c->ctx / c->rope_orig_ctx;
	if (c->rope_factor <= 0)
		return wf_fail(err, "config: scaled rope without a factor > 0");
	if (c->scaling == WF_ROPE_LLAMA3 && !(c->rope_high > c->rope_low && c->rope_low > 0))
		return wf_fail(err, "config: rope of type llama3 with low_freq_factor %g and high_freq_factor %g, "
			"expected 0 < low < high", c->rope_low, c->rope_high);
	return 0;
}

/* ---- consistency ---- */

static int check_heads(const wf_config *c, wf_error *err)
{
	enum { WIDEST = 1 << 22 };

	if (c->nkv < 1 || c->nhead % c->nkv)
		return wf_fail(err, "config: %lld heads, expected a multiple of %lld key and value heads",
			(long long)c->nhead, (long long)c->nkv);
	if (c->nhead * c->hdim > WIDEST || c->nhead * c->vdim > WIDEST)
		return wf_fail(err, "config: %lld heads of %lld and %lld values, expected at most %d in all",
			(long long)c->nhead, (long long)c->hdim, (long long)c->vdim, WIDEST);
	if (c->rope_dim > c->hdim)
		return wf_fail(err, "config: rope over %lld values of heads of %lld", (long long)c->rope_dim, (long long)c->hdim);
	return 0;
}

static int check_experts(const wf_config *c, wf_error *err)
{
	if (c->nexpert_used > c->nexpert || (c->nexpert && !c->nexpert_used))
		return wf_fail(err, "config: %lld of %lld experts per token", (long long)c->nexpert_used,
			(long long)c->nexpert);
	if (c->nexpert_group && (c->nexpert % c->nexpert_group || c->ngroup_used > c->nexpert_group))
		return wf_fail(err, "config: %lld experts in %lld groups of which %lld are used",
			(long long)c->nexpert, (long long)c->nexpert_group, (long long)c->ngroup_used);
	if (c->nexpert && !c->expert_ffn)
		return wf_fail(err, "config: %lld experts of no width (moe_intermediate_size)", (long long)c->nexpert);
	return 0;
}

static int check_tokens(wf_config *c, wf_error *err)
{
	if (c->vocab < 1)
		return wf_fail(err, "config: vocab_size is missing");
	/* exports of small models name the tokens of large ones, for which they have no row */
	c->bos = c->bos < c->vocab ? c->bos : -1;
	c->pad = c->pad < c->vocab ? c->pad : -1;
	for (int i = c->neos - 1; i >= 0; i--)
		if (c->eos[i] >= c->vocab)
			c->eos[i] = c->eos[--c->neos];
	return 0;
}

int config_finish(wf_arena *arena, wf_error *err, const wf_arch *arch, wf_config *c)
{
	c->arch = arch->name;
	if (derive(c, err) < 0 || derive_rope(c, err) < 0)
		return -1;
	if (arch->finish && arch->finish(c, err) < 0)
		return wf_fail(err, "config: refused by %s", arch->name);
	if (derive_sliding(arena, err, c) < 0 || check_heads(c, err) < 0 || check_experts(c, err) < 0)
		return -1;
	return check_tokens(c, err);
}
