/* gptneox.c - GPT-NeoX and Pythia: attention and feed-forward side by side on the same residual, part
 * of each head rotated, biases everywhere.  Hugging Face files interleave q, k and v per head. */
#include "models/model.h"
#include "ops/ops.h"

static wf_tensor *attention(wf_graph *g, const wf_config *c, wf_tensor *x, wf_tensor *pos, int l)
{
	struct wf_qkv a = wf_attn_inputs(g, c, x, c->qkv_bias, !c->gguf, l);

	a.q = wf_rotate(g, c, a.q, pos);
	a.k = wf_rotate(g, c, a.k, pos);
	return wf_linear(g, wf_self_attend(g, c, a, pos, l), c->dim, c->qkv_bias, "blk.%d.attn_output", l);
}

static void build(wf_graph *g, const wf_config *c)
{
	wf_tensor *x = wf_embed(g, c), *pos = wf_positions(g), *y;

	for (int l = 0; l < c->nlayer; l++) {
		wf_scope(g, "blk.%d.attn", l);
		y = wf_add(g, x, attention(g, c, wf_centred_norm(g, c, x, "blk.%d.attn_norm", l), pos, l));
		wf_scope(g, "blk.%d.ffn", l);
		x = wf_centred_norm(g, c, c->parallel_residual ? x : y, "blk.%d.ffn_norm", l);
		x = wf_add(g, y, wf_plain_ffn(g, c, x, true, l));
	}
	wf_scope(g, "head");
	wf_logits(g, c, wf_centred_norm(g, c, wf_wanted(g, x), "output_norm"));
}

/* In GGUF the tensors alone say whether there are biases. */
static int finish(wf_config *c, wf_error *err)
{
	(void)err;
	c->qkv_bias &= !c->gguf;
	return 0;
}

#define AT(field) offsetof(wf_config, field)

const wf_arch wf_arch_gptneox = {
	.name  = "gptneox",
	.hf    = (const char *const[]){"gpt_neox", NULL},
	.gguf  = (const char *const[]){"gptneox", NULL},
	.act   = WF_GELU,
	.keys  = (const struct wf_key[]){
		{"use_parallel_residual", "use_parallel_residual", AT(parallel_residual), 'b', 0, 1, 1},
		{"attention_bias", NULL, AT(qkv_bias), 'b', 0, 1, 1},
		{"rope.partial_rotary_factor partial_rotary_factor rotary_pct", NULL, AT(rope_partial), 'f', 1e-6, 1, 0.25},
		{0}
	},
	.names = (const struct wf_name[]){
		{"token_embd",         "gpt_neox.embed_in"},
		{"blk.%d.attn_norm",   "gpt_neox.layers.%d.input_layernorm"},
		{"blk.%d.attn_qkv",    "gpt_neox.layers.%d.attention.query_key_value"},
		{"blk.%d.attn_output", "gpt_neox.layers.%d.attention.dense"},
		{"blk.%d.ffn_norm",    "gpt_neox.layers.%d.post_attention_layernorm"},
		{"blk.%d.ffn_up",      "gpt_neox.layers.%d.mlp.dense_h_to_4h"},
		{"blk.%d.ffn_down",    "gpt_neox.layers.%d.mlp.dense_4h_to_h"},
		{"output_norm",        "gpt_neox.final_layer_norm"},
		{"output",             "embed_out"},
		{NULL, NULL}
	},
	.finish = finish,
	.build  = build,
};
