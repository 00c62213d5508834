/* glm4.c - GLM-4-0414: ChatGLM's rotation in pairs of half a head, and a norm on both sides of
 * attention and feed-forward. */
#include "models/model.h"
#include "ops/ops.h"

static wf_tensor *attention(wf_graph *g, const wf_config *c, wf_tensor *x, wf_tensor *pos, int l)
{
	struct wf_qkv a = wf_attn_inputs(g, c, x, c->qkv_bias, false, l);

	a.q = wf_rotate(g, c, a.q, pos);
	a.k = wf_rotate(g, c, a.k, pos);
	return wf_linear(g, wf_self_attend(g, c, a, pos, l), c->dim, false, "blk.%d.attn_output", l);
}

static void build(wf_graph *g, const wf_config *c)
{
	wf_tensor *x = wf_embed(g, c), *pos = wf_positions(g), *y;

	for (int l = 0; l < c->nlayer; l++) {
		wf_scope(g, "blk.%d.attn", l);
		y = attention(g, c, wf_norm(g, c, x, "blk.%d.attn_norm", l), pos, l);
		x = wf_add(g, x, wf_norm(g, c, y, "blk.%d.post_attention_norm", l));
		wf_scope(g, "blk.%d.ffn", l);
		y = wf_gated_ffn(g, c, wf_norm(g, c, x, "blk.%d.ffn_norm", l), c->ffn, false, "", l);
		x = wf_add(g, x, wf_norm(g, c, y, "blk.%d.post_ffw_norm", l));
	}
	wf_scope(g, "head");
	wf_logits(g, c, wf_norm(g, c, wf_wanted(g, x), "output_norm"));
}

static int finish(wf_config *c, wf_error *err)
{
	(void)err;
	c->rope_pairs = true;
	return 0;
}

const wf_arch wf_arch_glm4 = {
	.name  = "glm4",
	.hf    = (const char *const[]){"glm4", NULL},
	.gguf  = (const char *const[]){"glm4", NULL},
	.keys  = (const struct wf_key[]){
		{"head_dim", "attention.key_length", offsetof(wf_config, hdim), 'i', 1, 4096, 128},
		{"rope.partial_rotary_factor partial_rotary_factor", NULL, offsetof(wf_config, rope_partial), 'f', 1e-6, 1, 0.5},
		{0}
	},
	.names = (const struct wf_name[]){
		{"blk.%d.post_attention_norm", "model.layers.%d.post_self_attn_layernorm"},
		{"blk.%d.ffn_up",              "model.layers.%d.mlp.gate_up_proj"},
		{"blk.%d.post_ffw_norm",       "model.layers.%d.post_mlp_layernorm"},
		WF_USUAL_NAMES,
		{NULL, NULL}
	},
	.finish = finish,
	.build  = build,
};
