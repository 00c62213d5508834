/* starcoder2.c - StarCoder 2: layer norms and biases like GPT-2's, rotary positions and few key heads
 * like LLaMA's, a feed-forward without gate. */
#include "models/model.h"
#include "ops/ops.h"

static wf_tensor *attention(wf_graph *g, const wf_config *c, wf_tensor *x, wf_tensor *pos, int l)
{
	struct wf_qkv a = wf_attn_inputs(g, c, x, c->qkv_bias, false, l);

	a.q = wf_rotate(g, c, a.q, pos);
	a.k = wf_rotate(g, c, a.k, pos);
	return wf_linear(g, wf_self_attend(g, c, a, pos, l), c->dim, c->qkv_bias, "blk.%d.attn_output", l);
}

static void build(wf_graph *g, const wf_config *c)
{
	wf_tensor *x = wf_embed(g, c), *pos = wf_positions(g);

	for (int l = 0; l < c->nlayer; l++) {
		wf_scope(g, "blk.%d.attn", l);
		x = wf_add(g, x, attention(g, c, wf_centred_norm(g, c, x, "blk.%d.attn_norm", l), pos, l));
		wf_scope(g, "blk.%d.ffn", l);
		x = wf_add(g, x, wf_plain_ffn(g, c, wf_centred_norm(g, c, x, "blk.%d.ffn_norm", l), c->qkv_bias, l));
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

const wf_arch wf_arch_starcoder2 = {
	.name  = "starcoder2",
	.hf    = (const char *const[]){"starcoder2", NULL},
	.gguf  = (const char *const[]){"starcoder2", NULL},
	.act   = WF_GELU_TANH,
	.keys  = (const struct wf_key[]){
		{"use_bias", NULL, AT(qkv_bias), 'b', 0, 1, 1},
		{"tie_word_embeddings", NULL, AT(tied), 'b', 0, 1, 1},
		{0}
	},
	.names = (const struct wf_name[]){
		{"blk.%d.ffn_up",   "model.layers.%d.mlp.c_fc"},
		{"blk.%d.ffn_down", "model.layers.%d.mlp.c_proj"},
		WF_USUAL_NAMES,
		{NULL, NULL}
	},
	.finish = finish,
	.build  = build,
};
