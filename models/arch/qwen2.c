/* qwen2.c - Qwen 1.5 to 2.5: LLaMA with biases on q, k and v. */
#include "models/model.h"
#include "ops/ops.h"

static wf_tensor *attention(wf_graph *g, const wf_config *c, wf_tensor *x, wf_tensor *pos, int l)
{
	struct wf_qkv a = wf_attn_inputs(g, c, x, true, false, l);

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

const wf_arch wf_arch_qwen2 = {
	.name  = "qwen2",
	.hf    = (const char *const[]){"qwen2", NULL},
	.gguf  = (const char *const[]){"qwen2", NULL},
	.keys  = (const struct wf_key[]){
		{"rms_norm_eps", "attention.layer_norm_rms_epsilon", offsetof(wf_config, eps), 'f', 0, 1, 1e-6},
		{0}
	},
	.names = (const struct wf_name[]){WF_USUAL_NAMES, {NULL, NULL}},
	.build = build,
};
