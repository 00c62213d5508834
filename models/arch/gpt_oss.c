/* gpt_oss.c - gpt-oss: experts with biases and a clamped gate, attention sinks, windows on every second
 * layer.  Hugging Face files store the experts as [expert, in, out], gate and up in alternating columns. */
#include "models/model.h"
#include "ops/ops.h"

static wf_tensor *attention(wf_graph *g, const wf_config *c, wf_tensor *x, wf_tensor *pos, int l)
{
	struct wf_qkv a = wf_attn_inputs(g, c, x, c->qkv_bias, false, l);
	int window = wf_layer_window(c, l);
	wf_tensor *kv = wf_cache(g, wf_rotate(g, c, a.k, pos), a.v, pos, l, window);

	x = wf_attend(g, wf_rotate(g, c, a.q, pos), kv, pos, &(struct wf_attention){.window = window,
		.sinks = wf_weight(g, WF_SHAPE(c->nhead), "blk.%d.attn_sinks.weight", l)});
	return wf_linear(g, wf_merge(g, x), c->dim, c->qkv_bias, "blk.%d.attn_output", l);
}

/* Weights [expert * out, in] and biases [expert, out] of one matrix of all experts. */
struct rows { wf_tensor *w, *b; };

static struct rows rows(wf_graph *g, const wf_config *c, int64_t out, int64_t in, const char *what, int l)
{
	wf_tensor *w = c->gguf ? wf_expert_rows(g, c, out, in, what, l) :
		wf_transpose(g, wf_weight(g, WF_SHAPE(c->nexpert, in, out), "blk.%d.%s_exps.weight", l, what));

	return (struct rows){w, wf_weight(g, WF_SHAPE(c->nexpert, out), "blk.%d.%s_exps.bias", l, what)};
}

/* Gate (at 0) or up (at 1). */
static struct rows first_rows(wf_graph *g, const wf_config *c, int at, int l)
{
	if (c->gguf)
		return rows(g, c, c->expert_ffn, c->dim, at ? "ffn_up" : "ffn_gate", l);
	struct rows both = rows(g, c, 2 * c->expert_ffn, c->dim, "ffn_gate_up", l);
	wf_tensor *b = wf_strip(g, wf_flatten(g, both.b), 2, at, 1);

	return (struct rows){wf_strip(g, wf_flatten(g, both.w), 2, at, 1), wf_heads(g, b, c->nexpert)};
}

static wf_tensor *apply(wf_graph *g, const wf_config *c, struct rows r, wf_tensor *x, wf_tensor *ids)
{
	return wf_add(g, wf_experts(g, r.w, x, ids, c->nexpert), wf_take(g, r.b, ids));
}

static wf_tensor *feedforward(wf_graph *g, const wf_config *c, wf_tensor *x, int l)
{
	wf_tensor *logits = wf_linear(g, x, c->nexpert, true, "blk.%d.ffn_gate_inp", l);
	wf_tensor *ids = wf_route(g, logits, NULL, &(struct wf_routing){.k = (int)c->nexpert_used});
	wf_tensor *gate = apply(g, c, first_rows(g, c, 0, l), x, ids);
	wf_tensor *up = apply(g, c, first_rows(g, c, 1, l), x, ids);

	x = wf_swiglu_clamp(g, gate, up, c->glu_alpha, c->glu_limit);
	x = apply(g, c, rows(g, c, c->dim, c->expert_ffn, "ffn_down", l), x, ids);
	return wf_mix(g, x, wf_gates(g, logits, ids, WF_GATE_SOFTMAX, true, 1));
}

static void build(wf_graph *g, const wf_config *c)
{
	wf_tensor *x = wf_embed(g, c), *pos = wf_positions(g);

	for (int l = 0; l < c->nlayer; l++) {
		wf_scope(g, "blk.%d.attn", l);
		x = wf_add(g, x, attention(g, c, wf_norm(g, c, x, "blk.%d.attn_norm", l), pos, l));
		wf_scope(g, "blk.%d.ffn", l);
		x = wf_add(g, x, feedforward(g, c, wf_norm(g, c, x, "blk.%d.post_attention_norm", l), l));
	}
	wf_scope(g, "head");
	wf_logits(g, c, wf_norm(g, c, wf_wanted(g, x), "output_norm"));
}

static int finish(wf_config *c, wf_error *err)
{
	if (!c->nexpert)
		return wf_fail(err, "config: a gpt-oss model without experts");
	if (!c->expert_ffn)
		c->expert_ffn = c->ffn;
	if (!c->sliding && !c->window_period)
		c->window_period = 2;
	c->rope_truncate &= !c->gguf;             /* GGUF has no key for it, and these models never do */
	c->qkv_bias &= !c->gguf;
	return 0;
}

#define AT(field) offsetof(wf_config, field)

const wf_arch wf_arch_gpt_oss = {
	.name  = "gpt-oss",
	.hf    = (const char *const[]){"gpt_oss", NULL},
	.gguf  = (const char *const[]){"gpt-oss", NULL},
	.keys  = (const struct wf_key[]){
		{"head_dim", "attention.key_length", AT(hdim), 'i', 1, 4096, 64},
		{"attention_bias", NULL, AT(qkv_bias), 'b', 0, 1, 1},
		{"rope.rope_theta rope_theta", "rope.freq_base", AT(theta), 'f', 1, 1e12, 150000},
		{"swiglu_alpha", NULL, AT(glu_alpha), 'f', 1e-6, 1e6, 1.702},
		{"swiglu_limit", NULL, AT(glu_limit), 'f', 1e-6, 1e6, 7},
		{0}
	},
	.names = (const struct wf_name[]){
		{"blk.%d.attn_sinks.weight",       "model.layers.%d.self_attn.sinks"},
		{"blk.%d.post_attention_norm",     "model.layers.%d.post_attention_layernorm"},
		{"blk.%d.ffn_gate_inp",            "model.layers.%d.mlp.router"},
		{"blk.%d.ffn_gate_up_exps.weight", "model.layers.%d.mlp.experts.gate_up_proj"},
		{"blk.%d.ffn_gate_up_exps.bias",   "model.layers.%d.mlp.experts.gate_up_proj_bias"},
		{"blk.%d.ffn_down_exps.weight",    "model.layers.%d.mlp.experts.down_proj"},
		{"blk.%d.ffn_down_exps.bias",      "model.layers.%d.mlp.experts.down_proj_bias"},
		WF_USUAL_NAMES,
		{NULL, NULL}
	},
	.finish = finish,
	.build  = build,
};
