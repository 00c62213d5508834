/* olmo2.c - OLMo 2: norms behind attention and feed-forward instead of before them, and one over all
 * queries and one over all keys of a token. */
#include "models/model.h"
#include "ops/ops.h"

static wf_tensor *normed_heads(wf_graph *g, const wf_config *c, wf_tensor *x, const char *what, int64_t n, int l)
{
	x = wf_linear(g, x, n * c->hdim, c->qkv_bias, "blk.%d.attn_%s", l, what);
	return wf_heads(g, wf_norm(g, c, x, "blk.%d.attn_%s_norm", l, what), n);
}

static wf_tensor *attention(wf_graph *g, const wf_config *c, wf_tensor *x, wf_tensor *pos, int l)
{
	struct wf_qkv a = {
		.q = wf_rotate(g, c, normed_heads(g, c, x, "q", c->nhead, l), pos),
		.k = wf_rotate(g, c, normed_heads(g, c, x, "k", c->nkv, l), pos),
		.v = wf_heads(g, wf_linear(g, x, c->nkv * c->hdim, c->qkv_bias, "blk.%d.attn_v", l), c->nkv)};

	return wf_linear(g, wf_self_attend(g, c, a, pos, l), c->dim, c->out_bias, "blk.%d.attn_output", l);
}

static void build(wf_graph *g, const wf_config *c)
{
	wf_tensor *x = wf_embed(g, c), *pos = wf_positions(g);

	for (int l = 0; l < c->nlayer; l++) {
		wf_scope(g, "blk.%d.attn", l);
		x = wf_add(g, x, wf_norm(g, c, attention(g, c, x, pos, l), "blk.%d.post_attention_norm", l));
		wf_scope(g, "blk.%d.ffn", l);
		x = wf_add(g, x, wf_norm(g, c, wf_gated_ffn(g, c, x, c->ffn, false, "", l), "blk.%d.post_ffw_norm", l));
	}
	wf_scope(g, "head");
	wf_logits(g, c, wf_norm(g, c, wf_wanted(g, x), "output_norm"));
}

const wf_arch wf_arch_olmo2 = {
	.name  = "olmo2",
	.hf    = (const char *const[]){"olmo2", NULL},
	.gguf  = (const char *const[]){"olmo2", NULL},
	.names = (const struct wf_name[]){
		{"blk.%d.attn_q_norm",         "model.layers.%d.self_attn.q_norm"},
		{"blk.%d.attn_k_norm",         "model.layers.%d.self_attn.k_norm"},
		{"blk.%d.post_attention_norm", "model.layers.%d.post_attention_layernorm"},
		{"blk.%d.post_ffw_norm",       "model.layers.%d.post_feedforward_layernorm"},
		WF_USUAL_NAMES,
		{NULL, NULL}
	},
	.build = build,
};
