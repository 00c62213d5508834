/* opt.c - OPT: learned positions that begin at row 2 of their table, layer norms, biases.  One size
 * (350M) has its norms after each part instead of before, and a narrower embedding. */
#include "models/model.h"
#include "ops/ops.h"

enum { PLACE0 = 2 };

/* Of layer l, or of the whole model where the name holds no number. */
static wf_tensor *norm(wf_graph *g, const wf_config *c, wf_tensor *x, const char *name, int l, bool here)
{
	if (!here)
		return x;
	return c->weighted_norm ? wf_centred_norm(g, c, x, name, l) : wf_layernorm(g, x, wf_ones(g, c->dim), NULL, c->eps);
}

static wf_tensor *attention(wf_graph *g, const wf_config *c, wf_tensor *x, wf_tensor *pos, int l)
{
	struct wf_qkv a = wf_attn_inputs(g, c, x, c->qkv_bias, false, l);

	return wf_linear(g, wf_self_attend(g, c, a, pos, l), c->dim, c->qkv_bias, "blk.%d.attn_output", l);
}

static wf_tensor *embedding(wf_graph *g, const wf_config *c, wf_tensor *pos)
{
	wf_tensor *places = wf_weight(g, WF_SHAPE(c->ctx + PLACE0, c->dim), "position_embd.weight");
	wf_tensor *x = wf_embed(g, c);

	if (c->embed_dim)
		x = wf_linear(g, x, c->dim, false, "embd_in");
	return wf_add(g, x, wf_take(g, wf_part(g, places, PLACE0, c->ctx), pos));
}

static void build(wf_graph *g, const wf_config *c)
{
	wf_tensor *pos = wf_positions(g), *x = embedding(g, c, pos);

	for (int l = 0; l < c->nlayer; l++) {
		wf_scope(g, "blk.%d.attn", l);
		x = wf_add(g, x, attention(g, c, norm(g, c, x, "blk.%d.attn_norm", l, c->pre_norm), pos, l));
		x = norm(g, c, x, "blk.%d.attn_norm", l, !c->pre_norm);
		wf_scope(g, "blk.%d.ffn", l);
		x = wf_add(g, x, wf_plain_ffn(g, c, norm(g, c, x, "blk.%d.ffn_norm", l, c->pre_norm), c->mlp_bias, l));
		x = norm(g, c, x, "blk.%d.ffn_norm", l, !c->pre_norm);
	}
	wf_scope(g, "head");
	x = norm(g, c, wf_wanted(g, x), "output_norm", 0, c->pre_norm && !c->no_final_norm);
	wf_logits(g, c, c->embed_dim ? wf_linear(g, x, c->embed_dim, false, "embd_out") : x);
}

static int finish(wf_config *c, wf_error *err)
{
	(void)err;
	if (c->embed_dim == c->dim)
		c->embed_dim = 0;
	return 0;
}

#define AT(field) offsetof(wf_config, field)

const wf_arch wf_arch_opt = {
	.name  = "opt",
	.hf    = (const char *const[]){"opt", NULL},
	.act   = WF_RELU,
	.keys  = (const struct wf_key[]){
		{"word_embed_proj_dim", NULL, AT(embed_dim), 'i', 0, 1 << 20, 0},
		{"do_layer_norm_before", NULL, AT(pre_norm), 'b', 0, 1, 1},
		{"enable_bias", NULL, AT(qkv_bias), 'b', 0, 1, 1},
		{"enable_bias", NULL, AT(mlp_bias), 'b', 0, 1, 1},
		{"tie_word_embeddings", NULL, AT(tied), 'b', 0, 1, 1},
		{"_remove_final_layer_norm", NULL, AT(no_final_norm), 'b', 0, 1, 0},
		{"layer_norm_elementwise_affine", NULL, AT(weighted_norm), 'b', 0, 1, 1},
		{0}
	},
	.names = (const struct wf_name[]){
		{"token_embd",         "model.decoder.embed_tokens"},
		{"position_embd",      "model.decoder.embed_positions"},
		{"embd_in",            "model.decoder.project_in"},
		{"embd_out",           "model.decoder.project_out"},
		{"blk.%d.attn_norm",   "model.decoder.layers.%d.self_attn_layer_norm"},
		{"blk.%d.attn_q",      "model.decoder.layers.%d.self_attn.q_proj"},
		{"blk.%d.attn_k",      "model.decoder.layers.%d.self_attn.k_proj"},
		{"blk.%d.attn_v",      "model.decoder.layers.%d.self_attn.v_proj"},
		{"blk.%d.attn_output", "model.decoder.layers.%d.self_attn.out_proj"},
		{"blk.%d.ffn_norm",    "model.decoder.layers.%d.final_layer_norm"},
		{"blk.%d.ffn_up",      "model.decoder.layers.%d.fc1"},
		{"blk.%d.ffn_down",    "model.decoder.layers.%d.fc2"},
		{"output_norm",        "model.decoder.final_layer_norm"},
		{"output",             "lm_head"},
		{NULL, NULL}
	},
	.finish = finish,
	.build  = build,
};
