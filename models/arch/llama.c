/* llama.c - LLaMA 1 to 3 and what is built like them, Mistral with its sliding window and Mixtral with
 * its experts: pre-norm, rotary positions, grouped-query attention, gated feed-forward.  GGUF calls
 * all of them llama.  This file is the whole definition of the family. */
#include "models/model.h"
#include "ops/ops.h"

static wf_tensor *attention(wf_graph *g, const wf_config *c, wf_tensor *x, wf_tensor *pos, int l)
{
	struct wf_qkv a = wf_attn_inputs(g, c, x, c->qkv_bias, false, l);

	a.q = wf_rotate(g, c, a.q, pos);
	a.k = wf_rotate(g, c, a.k, pos);
	return wf_linear(g, wf_self_attend(g, c, a, pos, l), c->dim, c->out_bias, "blk.%d.attn_output", l);
}

static wf_tensor *feedforward(wf_graph *g, const wf_config *c, wf_tensor *x, int l)
{
	if (!wf_has_experts(g, c, l))
		return wf_gated_ffn(g, c, x, c->ffn, c->mlp_bias, "", l);
	wf_tensor *logits = wf_linear(g, x, c->nexpert, false, "blk.%d.ffn_gate_inp", l);
	wf_tensor *ids = wf_route(g, logits, NULL, &(struct wf_routing){.k = (int)c->nexpert_used});

	return wf_expert_ffn(g, c, x, ids, wf_gates(g, logits, ids, WF_GATE_SOFTMAX, true, 1), l);
}

static void build(wf_graph *g, const wf_config *c)
{
	wf_tensor *x = wf_embed(g, c), *pos = wf_positions(g);

	for (int l = 0; l < c->nlayer; l++) {
		wf_scope(g, "blk.%d.attn", l);
		x = wf_add(g, x, attention(g, c, wf_norm(g, c, x, "blk.%d.attn_norm", l), pos, l));
		wf_scope(g, "blk.%d.ffn", l);
		x = wf_add(g, x, feedforward(g, c, wf_norm(g, c, x, "blk.%d.ffn_norm", l), l));
	}
	wf_scope(g, "head");
	wf_logits(g, c, wf_norm(g, c, wf_wanted(g, x), "output_norm"));
}

/* Files in GGUF have Q and K rows in pair order; Hugging Face has them in half order. */
static int finish(wf_config *c, wf_error *err)
{
	(void)err;
	c->rope_pairs = c->gguf;
	if (!c->expert_ffn)
		c->expert_ffn = c->ffn;
	return 0;
}

const wf_arch wf_arch_llama = {
	.name  = "llama",
	.hf    = (const char *const[]){"llama", "mistral", "mixtral", NULL},
	.gguf  = (const char *const[]){"llama", NULL},
	.keys  = (const struct wf_key[]){
		{"rms_norm_eps", "attention.layer_norm_rms_epsilon", offsetof(wf_config, eps), 'f', 0, 1, 1e-6},
		{0}
	},
	.names = (const struct wf_name[]){
		{"blk.%d.ffn_gate_inp", "model.layers.%d.block_sparse_moe.gate"},
		{"blk.%d.ffn_gate.%d",  "model.layers.%d.block_sparse_moe.experts.%d.w1"},
		{"blk.%d.ffn_down.%d",  "model.layers.%d.block_sparse_moe.experts.%d.w2"},
		{"blk.%d.ffn_up.%d",    "model.layers.%d.block_sparse_moe.experts.%d.w3"},
		{"blk.%d.ffn_gate_inp", "model.layers.%d.mlp.gate"},
		{"blk.%d.ffn_gate_up_exps.weight", "model.layers.%d.mlp.experts.gate_up_proj"},
		{"blk.%d.ffn_down_exps.weight",    "model.layers.%d.mlp.experts.down_proj"},
		WF_USUAL_NAMES,
		{NULL, NULL}
	},
	.finish = finish,
	.build  = build,
};
