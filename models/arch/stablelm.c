/* stablelm.c - StableLM 1.6B to 12B: LLaMA with layer norms and part of each head rotated; the largest
 * norms every query and key head by weights of its own and has attention and feed-forward side by side. */
#include "models/model.h"
#include "ops/ops.h"

/* The heads' weights one after the other: [n, hdim] in GGUF, a vector for each head in Hugging Face files. */
static wf_tensor *head_weights(wf_graph *g, const wf_config *c, const char *what, int64_t n, int l)
{
	if (!g->weights || wf_has_weight(g, "blk.%d.%s.weight", l, what))
		return wf_flatten(g, wf_weight(g, WF_SHAPE(n, c->hdim), "blk.%d.%s.weight", l, what));
	return wf_weight_list(g, n, WF_SHAPE(c->hdim), "blk.%d.%s", l, what);
}

static wf_tensor *head_norm(wf_graph *g, const wf_config *c, wf_tensor *x, const char *what, int64_t n, int l)
{
	wf_tensor *w = head_weights(g, c, what, n, l);

	return wf_heads(g, wf_mul(g, wf_merge(g, wf_layernorm(g, x, wf_ones(g, c->hdim), NULL, c->eps)), w), n);
}

static wf_tensor *attention(wf_graph *g, const wf_config *c, wf_tensor *x, wf_tensor *pos, int l)
{
	struct wf_qkv a = wf_attn_inputs(g, c, x, c->qkv_bias, false, l);

	if (c->qk_norm || wf_has_weight(g, "blk.%d.attn_q_norm.weight", l)) {
		a.q = head_norm(g, c, a.q, "attn_q_norm", c->nhead, l);
		a.k = head_norm(g, c, a.k, "attn_k_norm", c->nkv, l);
	}
	a.q = wf_rotate(g, c, a.q, pos);
	a.k = wf_rotate(g, c, a.k, pos);
	return wf_linear(g, wf_self_attend(g, c, a, pos, l), c->dim, false, "blk.%d.attn_output", l);
}

static void build(wf_graph *g, const wf_config *c)
{
	wf_tensor *x = wf_embed(g, c), *pos = wf_positions(g), *n;

	for (int l = 0; l < c->nlayer; l++) {
		wf_scope(g, "blk.%d.attn", l);
		n = wf_centred_norm(g, c, x, "blk.%d.attn_norm", l);
		x = wf_add(g, x, attention(g, c, n, pos, l));
		wf_scope(g, "blk.%d.ffn", l);
		if (g->weights ? wf_has_weight(g, "blk.%d.ffn_norm.weight", l) : !c->parallel_residual)
			n = wf_centred_norm(g, c, x, "blk.%d.ffn_norm", l);
		x = wf_add(g, x, wf_gated_ffn(g, c, n, c->ffn, false, "", l));
	}
	wf_scope(g, "head");
	wf_logits(g, c, wf_centred_norm(g, c, wf_wanted(g, x), "output_norm"));
}

#define AT(field) offsetof(wf_config, field)

const wf_arch wf_arch_stablelm = {
	.name  = "stablelm",
	.hf    = (const char *const[]){"stablelm", NULL},
	.gguf  = (const char *const[]){"stablelm", NULL},
	.keys  = (const struct wf_key[]){
		{"use_qkv_bias", NULL, AT(qkv_bias), 'b', 0, 1, 0},
		{"qk_layernorm", NULL, AT(qk_norm), 'b', 0, 1, 0},
		{"use_parallel_residual", NULL, AT(parallel_residual), 'b', 0, 1, 0},
		{"rope.partial_rotary_factor partial_rotary_factor", NULL, AT(rope_partial), 'f', 1e-6, 1, 0.25},
		{0}
	},
	.names = (const struct wf_name[]){
		{"blk.%d.attn_q_norm.%d", "model.layers.%d.self_attn.q_layernorm.norms.%d"},
		{"blk.%d.attn_k_norm.%d", "model.layers.%d.self_attn.k_layernorm.norms.%d"},
		WF_USUAL_NAMES,
		{NULL, NULL}
	},
	.build = build,
};
