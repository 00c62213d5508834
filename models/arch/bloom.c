/* bloom.c - BLOOM: ALiBi instead of positions in the embedding, a norm right after it, biases on
 * every linear layer, a tied head.  Hugging Face files interleave q, k and v per head. */
#include "models/model.h"
#include "ops/ops.h"

static wf_tensor *attention(wf_graph *g, const wf_config *c, wf_tensor *x, wf_tensor *pos, int l)
{
	struct wf_qkv a = wf_attn_inputs(g, c, x, true, !c->gguf, l);

	return wf_linear(g, wf_self_attend(g, c, a, pos, l), c->dim, true, "blk.%d.attn_output", l);
}

static void build(wf_graph *g, const wf_config *c)
{
	wf_tensor *x = wf_centred_norm(g, c, wf_embed(g, c), "token_embd_norm"), *pos = wf_positions(g), *n;

	for (int l = 0; l < c->nlayer; l++) {
		wf_scope(g, "blk.%d.attn", l);
		n = wf_centred_norm(g, c, x, "blk.%d.attn_norm", l);
		x = wf_add(g, c->post_norm_residual ? n : x, attention(g, c, n, pos, l));
		wf_scope(g, "blk.%d.ffn", l);
		n = wf_centred_norm(g, c, x, "blk.%d.ffn_norm", l);
		x = wf_add(g, c->post_norm_residual ? n : x, wf_plain_ffn(g, c, n, true, l));
	}
	wf_scope(g, "head");
	wf_logits(g, c, wf_centred_norm(g, c, wf_wanted(g, x), "output_norm"));
}

static int finish(wf_config *c, wf_error *err)
{
	(void)err;
	c->alibi = true;
	return 0;
}

const wf_arch wf_arch_bloom = {
	.name  = "bloom",
	.hf    = (const char *const[]){"bloom", NULL},
	.gguf  = (const char *const[]){"bloom", NULL},
	.act   = WF_GELU_TANH,
	.keys  = (const struct wf_key[]){
		{"n_embed hidden_size", "embedding_length", offsetof(wf_config, dim), 'i', 1, 1 << 20, NAN},
		{"tie_word_embeddings", NULL, offsetof(wf_config, tied), 'b', 0, 1, 1},
		{"apply_residual_connection_post_layernorm", NULL, offsetof(wf_config, post_norm_residual), 'b', 0, 1, 0},
		{0}
	},
	.names = (const struct wf_name[]){
		{"token_embd",         "transformer.word_embeddings"},
		{"token_embd_norm",    "transformer.word_embeddings_layernorm"},
		{"blk.%d.attn_norm",   "transformer.h.%d.input_layernorm"},
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
