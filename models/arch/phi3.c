/* phi3.c - Phi-3 and Phi-4: LLaMA with q, k and v in one layer, gate and up in another, and long rope. */
#include "models/model.h"
#include "ops/ops.h"

static wf_tensor *attention(wf_graph *g, const wf_config *c, wf_tensor *x, wf_tensor *pos, int l)
{
	struct wf_qkv a = wf_attn_inputs(g, c, x, false, false, l);

	a.q = wf_rotate(g, c, a.q, pos);
	a.k = wf_rotate(g, c, a.k, pos);
	return wf_linear(g, wf_self_attend(g, c, a, pos, l), c->dim, false, "blk.%d.attn_output", l);
}

static void build(wf_graph *g, const wf_config *c)
{
	wf_tensor *x = wf_embed(g, c), *pos = wf_positions(g);

	for (int l = 0; l < c->nlayer; l++) {
		wf_scope(g, "blk.%d.attn", l);
		x = wf_add(g, x, attention(g, c, wf_norm(g, c, x, "blk.%d.attn_norm", l), pos, l));
		wf_scope(g, "blk.%d.ffn", l);
		x = wf_add(g, x, wf_gated_ffn(g, c, wf_norm(g, c, x, "blk.%d.ffn_norm", l), c->ffn, false, "", l));
	}
	wf_scope(g, "head");
	wf_logits(g, c, wf_norm(g, c, wf_wanted(g, x), "output_norm"));
}

const wf_arch wf_arch_phi3 = {
	.name  = "phi3",
	.hf    = (const char *const[]){"phi3", NULL},
	.gguf  = (const char *const[]){"phi3", NULL},
	.names = (const struct wf_name[]){
		{"blk.%d.attn_qkv", "model.layers.%d.self_attn.qkv_proj"},
		{"blk.%d.ffn_up",   "model.layers.%d.mlp.gate_up_proj"},
		WF_USUAL_NAMES,
		{NULL, NULL}
	},
	.build = build,
};
