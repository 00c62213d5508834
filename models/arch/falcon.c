/* falcon.c - Falcon: attention and feed-forward side by side.  7B: one key head and one norm for both
 * parts; the new decoder of 40B: groups of heads and a norm for each part.  Hugging Face files store
 * each key head with its queries. */
#include "models/model.h"
#include "ops/ops.h"

static float rounded(double x)
{
	return wf_bf16_to_f32(wf_f32_to_bf16((float)x));
}

/* Falcon's biases are rounded to bfloat16 in whatever type the model runs. */
static float bias(const wf_config *c, int64_t head, int64_t t)
{
	return rounded((double)rounded(alibi_slope(8, (int)head, (int)c->nhead)) * (double)rounded((double)t));
}

/* ALiBi as more values of every head: of a key the biases of its query heads, of a query a one where its own
 * is.  So they are part of what is scaled, unlike BLOOM's.  Rounded up, so that heads stay of an even size. */
static wf_tensor *biases(wf_graph *g, const wf_config *c, wf_tensor *pos, bool key)
{
	int64_t n = key ? c->nkv : c->nhead, rows = c->opened > c->ctx ? c->opened : c->ctx;
	int64_t group = c->nhead / c->nkv, more = (group + 7) / 8 * 8;
	float *value = wf_alloc_n(g->arena, (size_t)(rows * n * more), sizeof *value), *v = value;

	if (!value) {
		wf_fail(g->err, "graph: out of memory");
		return &g->dummy;
	}
	for (int64_t t = 0; t < rows; t++)
		for (int64_t h = 0; h < n; h++)
			for (int64_t i = 0; i < more; i++)
				*v++ = !key ? i == h % group : i < group ? bias(c, h * group + i, t) : 0;
	return wf_heads(g, wf_take(g, wf_const(g, WF_SHAPE(rows, n * more), value), pos), n);
}

/* What tells where a token is: positions to rotate by, or biases that queries and keys carry. */
struct place { wf_tensor *pos, *q, *k; };

static struct place place(wf_graph *g, const wf_config *c)
{
	struct place at = {.pos = wf_positions(g)};

	if (c->alibi) {
		at.q = biases(g, c, at.pos, false);
		at.k = biases(g, c, at.pos, true);
	}
	return at;
}

static wf_tensor *attention(wf_graph *g, const wf_config *c, wf_tensor *x, const struct place *at, int l)
{
	struct wf_qkv a = wf_attn_inputs(g, c, x, c->qkv_bias, !c->gguf, l);

	a.q = at->q ? wf_join(g, a.q, at->q) : wf_rotate(g, c, a.q, at->pos);
	a.k = at->k ? wf_join(g, a.k, at->k) : wf_rotate(g, c, a.k, at->pos);
	wf_config inner = *c;
	inner.alibi = false;
	inner.attn_scale = 1 / sqrt((double)c->hdim);
	return wf_linear(g, wf_self_attend(g, &inner, a, at->pos, l), c->dim, c->qkv_bias, "blk.%d.attn_output", l);
}

static bool two_norms(const wf_graph *g, const wf_config *c, int l)
{
	return g->weights ? wf_has_weight(g, "blk.%d.attn_norm_2.weight", l) : c->new_decoder && c->parallel_norms != 1;
}

static wf_tensor *block(wf_graph *g, const wf_config *c, wf_tensor *x, const struct place *at, int l)
{
	wf_scope(g, "blk.%d.attn", l);
	wf_tensor *n = wf_centred_norm(g, c, x, "blk.%d.attn_norm", l);
	wf_tensor *first = two_norms(g, c, l) ? wf_centred_norm(g, c, x, "blk.%d.attn_norm_2", l) : n;
	wf_tensor *y = wf_add(g, x, attention(g, c, first, at, l));

	wf_scope(g, "blk.%d.ffn", l);
	if (!c->parallel_residual)
		n = wf_centred_norm(g, c, y, "blk.%d.ffn_norm", l);
	return wf_add(g, y, wf_plain_ffn(g, c, n, c->qkv_bias, l));
}

static void build(wf_graph *g, const wf_config *c)
{
	wf_tensor *x = wf_embed(g, c);
	struct place at = place(g, c);

	for (int l = 0; l < c->nlayer; l++)
		x = block(g, c, x, &at, l);
	wf_scope(g, "head");
	wf_logits(g, c, wf_centred_norm(g, c, wf_wanted(g, x), "output_norm"));
}

static int finish(wf_config *c, wf_error *err)
{
	(void)err;
	c->parallel_residual |= c->new_decoder;
	if (!c->gguf && !c->new_decoder)
		c->nkv = c->multi_query ? 1 : c->nhead;
	return 0;
}

#define AT(field) offsetof(wf_config, field)

const wf_arch wf_arch_falcon = {
	.name  = "falcon",
	.hf    = (const char *const[]){"falcon", "RefinedWeb", "RefinedWebModel", NULL},
	.gguf  = (const char *const[]){"falcon", NULL},
	.act   = WF_GELU,
	.keys  = (const struct wf_key[]){
		{"num_kv_heads n_head_kv", "attention.head_count_kv", AT(nkv), 'i', 1, 4096, 0},
		{"new_decoder_architecture", NULL, AT(new_decoder), 'b', 0, 1, 0},
		{"multi_query", NULL, AT(multi_query), 'b', 0, 1, 1},
		{"parallel_attn", NULL, AT(parallel_residual), 'b', 0, 1, 1},
		{"num_ln_in_parallel_attn", NULL, AT(parallel_norms), 'i', 0, 2, 0},
		{"bias", NULL, AT(qkv_bias), 'b', 0, 1, 0},
		{"tie_word_embeddings", NULL, AT(tied), 'b', 0, 1, 1},
		{"alibi", NULL, AT(alibi), 'b', 0, 1, 0},
		{0}
	},
	.names = (const struct wf_name[]){
		{"token_embd",         "transformer.word_embeddings"},
		{"blk.%d.attn_norm",   "transformer.h.%d.input_layernorm"},
		{"blk.%d.attn_norm",   "transformer.h.%d.ln_mlp"},
		{"blk.%d.attn_norm_2", "transformer.h.%d.ln_attn"},
		{"blk.%d.attn_qkv",    "transformer.h.%d.self_attention.query_key_value"},
		{"blk.%d.attn_output", "transformer.h.%d.self_attention.dense"},
		{"blk.%d.ffn_norm",    "transformer.h.%d.post_attention_layernorm"},
		{"blk.%d.ffn_up",      "transformer.h.%d.mlp.dense_h_to_4h"},
		{"blk.%d.ffn_down",    "transformer.h.%d.mlp.dense_4h_to_h"},
		{"output_norm",        "transformer.ln_f"},
		{"output",             "lm_head"},
		{NULL, NULL}
	},
	.finish = finish,
	.build  = build,
};
