/* gpt2.c - GPT-2: learned positions, layer norms, biases, a tied head.  Hugging Face files store every
 * linear layer's weight as [in, out]. */
#include "models/model.h"
#include "ops/ops.h"

/* Outputs start .. start + n of a layer with `out` of them. */
static wf_tensor *linear(wf_graph *g, const wf_config *c, wf_tensor *x, int64_t out, const char *what, int l,
		int64_t start, int64_t n)
{
	int64_t in = wf_last(x);
	wf_tensor *w = c->gguf ? wf_weight(g, WF_SHAPE(out, in), "blk.%d.%s.weight", l, what) :
		wf_transpose(g, wf_weight(g, WF_SHAPE(in, out), "blk.%d.%s.weight", l, what));
	wf_tensor *b = wf_weight(g, WF_SHAPE(out), "blk.%d.%s.bias", l, what);

	return wf_add(g, wf_matmul(g, wf_part(g, w, start, n), x), wf_part(g, b, start, n));
}

static wf_tensor *attention(wf_graph *g, const wf_config *c, wf_tensor *x, wf_tensor *pos, int l)
{
	struct wf_qkv a = {
		wf_heads(g, linear(g, c, x, 3 * c->dim, "attn_qkv", l, 0, c->dim), c->nhead),
		wf_heads(g, linear(g, c, x, 3 * c->dim, "attn_qkv", l, c->dim, c->dim), c->nhead),
		wf_heads(g, linear(g, c, x, 3 * c->dim, "attn_qkv", l, 2 * c->dim, c->dim), c->nhead)};
	wf_config inner = *c;

	inner.attn_scale = (c->scaled_attn ? 1 / sqrt((double)c->hdim) : 1) / (c->layer_scaled_attn ? l + 1 : 1);
	return linear(g, c, wf_self_attend(g, &inner, a, pos, l), c->dim, "attn_output", l, 0, c->dim);
}

static wf_tensor *feedforward(wf_graph *g, const wf_config *c, wf_tensor *x, int l)
{
	wf_tensor *up = linear(g, c, x, c->ffn, "ffn_up", l, 0, c->ffn);

	return linear(g, c, wf_activate(g, c->act, up), c->dim, "ffn_down", l, 0, c->dim);
}

static void build(wf_graph *g, const wf_config *c)
{
	wf_tensor *pos = wf_positions(g);
	wf_tensor *places = wf_weight(g, WF_SHAPE(c->ctx, c->dim), "position_embd.weight");
	wf_tensor *x = wf_add(g, wf_embed(g, c), wf_take(g, places, pos));

	for (int l = 0; l < c->nlayer; l++) {
		wf_scope(g, "blk.%d.attn", l);
		x = wf_add(g, x, attention(g, c, wf_centred_norm(g, c, x, "blk.%d.attn_norm", l), pos, l));
		wf_scope(g, "blk.%d.ffn", l);
		x = wf_add(g, x, feedforward(g, c, wf_centred_norm(g, c, x, "blk.%d.ffn_norm", l), l));
	}
	wf_scope(g, "head");
	wf_logits(g, c, wf_centred_norm(g, c, wf_wanted(g, x), "output_norm"));
}

#define AT(field) offsetof(wf_config, field)

const wf_arch wf_arch_gpt2 = {
	.name  = "gpt2",
	.hf    = (const char *const[]){"gpt2", NULL},
	.gguf  = (const char *const[]){"gpt2", NULL},
	.act   = WF_GELU_TANH,
	.keys  = (const struct wf_key[]){
		{"tie_word_embeddings", NULL, AT(tied), 'b', 0, 1, 1},
		{"scale_attn_weights", NULL, AT(scaled_attn), 'b', 0, 1, 1},
		{"scale_attn_by_inverse_layer_idx", NULL, AT(layer_scaled_attn), 'b', 0, 1, 0},
		{"add_cross_attention", NULL, AT(fixed), 'b', 0, 0, 0},
		{0}
	},
	.names = (const struct wf_name[]){
		{"token_embd",         "transformer.wte"},
		{"position_embd",      "transformer.wpe"},
		{"blk.%d.attn_norm",   "transformer.h.%d.ln_1"},
		{"blk.%d.attn_qkv",    "transformer.h.%d.attn.c_attn"},
		{"blk.%d.attn_output", "transformer.h.%d.attn.c_proj"},
		{"blk.%d.ffn_norm",    "transformer.h.%d.ln_2"},
		{"blk.%d.ffn_up",      "transformer.h.%d.mlp.c_fc"},
		{"blk.%d.ffn_down",    "transformer.h.%d.mlp.c_proj"},
		{"output_norm",        "transformer.ln_f"},
		{"output",             "lm_head"},
		{NULL, NULL}
	},
	.build = build,
};
