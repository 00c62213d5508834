/* chatglm.c - ChatGLM2 and 3, GLM-4-9B: LLaMA's mathematics with rotation in neighbouring pairs of the
 * first half of each head, few key heads, q, k and v in one biased layer, gate and up in another. */
#include "models/model.h"
#include "ops/ops.h"

static wf_tensor *attention(wf_graph *g, const wf_config *c, wf_tensor *x, wf_tensor *pos, int l)
{
	struct wf_qkv a = wf_attn_inputs(g, c, x, c->qkv_bias, !c->gguf && !c->multi_query, l);

	a.q = wf_rotate(g, c, a.q, pos);
	a.k = wf_rotate(g, c, a.k, pos);
	return wf_linear(g, wf_self_attend(g, c, a, pos, l), c->dim, c->out_bias, "blk.%d.attn_output", l);
}

static void build(wf_graph *g, const wf_config *c)
{
	wf_tensor *x = wf_embed(g, c), *pos = wf_positions(g);

	for (int l = 0; l < c->nlayer; l++) {
		wf_scope(g, "blk.%d.attn", l);
		x = wf_add(g, x, attention(g, c, wf_norm(g, c, x, "blk.%d.attn_norm", l), pos, l));
		wf_scope(g, "blk.%d.ffn", l);
		x = wf_add(g, x, wf_gated_ffn(g, c, wf_norm(g, c, x, "blk.%d.ffn_norm", l), c->ffn, c->mlp_bias, "", l));
	}
	wf_scope(g, "head");
	wf_logits(g, c, wf_norm(g, c, wf_wanted(g, x), "output_norm"));
}

static int finish(wf_config *c, wf_error *err)
{
	(void)err;
	c->rope_pairs = true;
	c->theta *= c->rope_ratio;
	if (!c->multi_query)
		c->nkv = c->nhead;
	return 0;
}

#define AT(field) offsetof(wf_config, field)

const wf_arch wf_arch_chatglm = {
	.name  = "chatglm",
	.hf    = (const char *const[]){"chatglm", "glm", NULL},
	.gguf  = (const char *const[]){"chatglm", NULL},
	.keys  = (const struct wf_key[]){
		{"padded_vocab_size vocab_size", "vocab_size", AT(vocab), 'i', 1, 1 << 24, 0},
		{"kv_channels head_dim", "attention.key_length", AT(hdim), 'i', 1, 4096, 128},
		{"multi_query_group_num num_key_value_heads", "attention.head_count_kv", AT(nkv), 'i', 1, 4096, 0},
		{"multi_query_attention", NULL, AT(multi_query), 'b', 0, 1, 1},
		{"add_qkv_bias attention_bias", NULL, AT(qkv_bias), 'b', 0, 1, 0},
		{"add_bias_linear", NULL, AT(out_bias), 'b', 0, 1, 0},
		{"add_bias_linear", NULL, AT(mlp_bias), 'b', 0, 1, 0},
		{"rope.partial_rotary_factor partial_rotary_factor", NULL, AT(rope_partial), 'f', 1e-6, 1, 0.5},
		{"rope_ratio", NULL, AT(rope_ratio), 'f', 1e-6, 1e6, 1},
		{"rmsnorm", NULL, AT(fixed), 'b', 1, 1, 1},
		{"post_layer_norm", NULL, AT(fixed), 'b', 1, 1, 1},
		{"apply_residual_connection_post_layernorm", NULL, AT(fixed), 'b', 0, 0, 0},
		{0}
	},
	.names = (const struct wf_name[]){
		{"token_embd",         "transformer.embedding.word_embeddings"},
		{"blk.%d.attn_norm",   "transformer.encoder.layers.%d.input_layernorm"},
		{"blk.%d.attn_qkv",    "transformer.encoder.layers.%d.self_attention.query_key_value"},
		{"blk.%d.attn_output", "transformer.encoder.layers.%d.self_attention.dense"},
		{"blk.%d.ffn_norm",    "transformer.encoder.layers.%d.post_attention_layernorm"},
		{"blk.%d.ffn_up",      "transformer.encoder.layers.%d.mlp.dense_h_to_4h"},
		{"blk.%d.ffn_down",    "transformer.encoder.layers.%d.mlp.dense_4h_to_h"},
		{"output_norm",        "transformer.encoder.final_layernorm"},
		{"output",             "transformer.output_layer"},
		{"blk.%d.ffn_up",      "model.layers.%d.mlp.gate_up_proj"},
		WF_USUAL_NAMES,
		{NULL, NULL}
	},
	.finish = finish,
	.build  = build,
};
