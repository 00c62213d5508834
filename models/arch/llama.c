/* llama.c - LLaMA 1 to 3 and what is built like them: pre-norm, rotary positions, grouped-query
 * attention, gated feed-forward.  This file is the whole definition of the family. */
#include "models/model.h"
#include "ops/ops.h"

static wf_tensor *norm(wf_graph *g, const wf_config *c, wf_tensor *x, const char *what, int l)
{
	return wf_rmsnorm(g, x, wf_weight(g, WF_SHAPE(c->dim), "blk.%d.%s.weight", l, what), c->eps);
}

static wf_tensor *linear(wf_graph *g, wf_tensor *x, int64_t out, const char *what, int l)
{
	wf_tensor *y = wf_matmul(g, wf_weight(g, WF_SHAPE(out, wf_last(x)), "blk.%d.%s.weight", l, what), x);

	if (wf_has_weight(g, "blk.%d.%s.bias", l, what))
		y = wf_add(g, y, wf_weight(g, WF_SHAPE(out), "blk.%d.%s.bias", l, what));
	return y;
}

/* Files in GGUF have Q and K rows in pair order; Hugging Face has them in half order. */
static wf_tensor *rope(wf_graph *g, const wf_config *c, wf_tensor *x, wf_tensor *pos)
{
	wf_tensor *freqs = wf_rope_freqs(g, (int)c->rope_dim, &(struct wf_rope_freqs){
		.type = (int)c->scaling, .theta = c->theta, .factor = c->rope_factor,
		.low = c->rope_low, .high = c->rope_high, .orig_ctx = c->rope_orig_ctx});

	if (wf_has_weight(g, "rope_freqs.weight"))
		freqs = wf_div(g, freqs, wf_weight(g, WF_SHAPE(c->rope_dim / 2), "rope_freqs.weight"));
	return wf_rope(g, x, pos, freqs, c->gguf ? WF_ROPE_PAIRS : WF_ROPE_HALVES, 1);
}

static wf_tensor *attention(wf_graph *g, const wf_config *c, wf_tensor *x, wf_tensor *pos, int l)
{
	wf_tensor *q = wf_heads(g, linear(g, x, c->nhead * c->hdim, "attn_q", l), c->nhead);
	wf_tensor *k = wf_heads(g, linear(g, x, c->nkv * c->hdim, "attn_k", l), c->nkv);
	wf_tensor *v = wf_heads(g, linear(g, x, c->nkv * c->hdim, "attn_v", l), c->nkv);
	wf_tensor *kv = wf_cache(g, rope(g, c, k, pos), v, pos, l, 0);

	q = wf_attend(g, rope(g, c, q, pos), kv, pos, &(struct wf_attention){0});
	return linear(g, wf_merge(g, q), c->dim, "attn_output", l);
}

static wf_tensor *feedforward(wf_graph *g, const wf_config *c, wf_tensor *x, int l)
{
	wf_tensor *gate = linear(g, x, c->ffn, "ffn_gate", l);
	wf_tensor *up   = linear(g, x, c->ffn, "ffn_up", l);

	return linear(g, wf_mul(g, wf_silu(g, gate), up), c->dim, "ffn_down", l);
}

static void build(wf_graph *g, const wf_config *c)
{
	wf_tensor *pos = wf_input(g, "positions", WF_I32, WF_SHAPE(WF_T));
	wf_tensor *embed = wf_weight(g, WF_SHAPE(c->vocab, c->dim), "token_embd.weight");
	wf_tensor *x = wf_take(g, embed, wf_input(g, "tokens", WF_I32, WF_SHAPE(WF_T)));

	for (int l = 0; l < c->nlayer; l++) {
		wf_scope(g, "blk.%d.attn", l);
		x = wf_add(g, x, attention(g, c, norm(g, c, x, "attn_norm", l), pos, l));
		wf_scope(g, "blk.%d.ffn", l);
		x = wf_add(g, x, feedforward(g, c, norm(g, c, x, "ffn_norm", l), l));
	}
	wf_scope(g, "head");
	x = wf_take(g, x, wf_input(g, "rows", WF_I32, WF_SHAPE(WF_R)));
	x = wf_rmsnorm(g, x, wf_weight(g, WF_SHAPE(c->dim), "output_norm.weight"), c->eps);
	wf_output(g, "logits", wf_matmul(g, c->tied ? embed : wf_weight(g, WF_SHAPE(c->vocab, c->dim), "output.weight"), x));
}

const wf_arch wf_arch_llama = {
	.name  = "llama",
	.hf    = (const char *const[]){"llama", NULL},
	.gguf  = (const char *const[]){"llama", NULL},
	.names = (const struct wf_name[]){
		{"token_embd.weight",          "model.embed_tokens.weight"},
		{"blk.%d.attn_norm.weight",    "model.layers.%d.input_layernorm.weight"},
		{"blk.%d.attn_q.weight",       "model.layers.%d.self_attn.q_proj.weight"},
		{"blk.%d.attn_k.weight",       "model.layers.%d.self_attn.k_proj.weight"},
		{"blk.%d.attn_v.weight",       "model.layers.%d.self_attn.v_proj.weight"},
		{"blk.%d.attn_output.weight",  "model.layers.%d.self_attn.o_proj.weight"},
		{"blk.%d.attn_q.bias",         "model.layers.%d.self_attn.q_proj.bias"},
		{"blk.%d.attn_k.bias",         "model.layers.%d.self_attn.k_proj.bias"},
		{"blk.%d.attn_v.bias",         "model.layers.%d.self_attn.v_proj.bias"},
		{"blk.%d.attn_output.bias",    "model.layers.%d.self_attn.o_proj.bias"},
		{"blk.%d.ffn_norm.weight",     "model.layers.%d.post_attention_layernorm.weight"},
		{"blk.%d.ffn_gate.weight",     "model.layers.%d.mlp.gate_proj.weight"},
		{"blk.%d.ffn_up.weight",       "model.layers.%d.mlp.up_proj.weight"},
		{"blk.%d.ffn_down.weight",     "model.layers.%d.mlp.down_proj.weight"},
		{"blk.%d.ffn_gate.bias",       "model.layers.%d.mlp.gate_proj.bias"},
		{"blk.%d.ffn_up.bias",         "model.layers.%d.mlp.up_proj.bias"},
		{"blk.%d.ffn_down.bias",       "model.layers.%d.mlp.down_proj.bias"},
		{"output_norm.weight",         "model.norm.weight"},
		{"output.weight",              "lm_head.weight"},
		{NULL, NULL}
	},
	.build = build,
};
