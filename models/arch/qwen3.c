/* qwen3.c - Qwen 3, dense and with experts: every query and key head has its norm before it is rotated. */
#include "models/model.h"
#include "ops/ops.h"

static wf_tensor *attention(wf_graph *g, const wf_config *c, wf_tensor *x, wf_tensor *pos, int l)
{
	struct wf_qkv a = wf_attn_inputs(g, c, x, c->qkv_bias, false, l);

	a.q = wf_rotate(g, c, wf_norm(g, c, a.q, "blk.%d.attn_q_norm", l), pos);
	a.k = wf_rotate(g, c, wf_norm(g, c, a.k, "blk.%d.attn_k_norm", l), pos);
	return wf_linear(g, wf_self_attend(g, c, a, pos, l), c->dim, c->out_bias, "blk.%d.attn_output", l);
}

/* The chosen experts' shares are of all experts' softmax, brought to a sum of one where the config asks. */
static wf_tensor *feedforward(wf_graph *g, const wf_config *c, wf_tensor *x, int l)
{
	if (!wf_has_experts(g, c, l))
		return wf_gated_ffn(g, c, x, c->ffn, false, "", l);
	wf_tensor *logits = wf_linear(g, x, c->nexpert, false, "blk.%d.ffn_gate_inp", l);
	wf_tensor *ids = wf_route(g, logits, NULL, &(struct wf_routing){.k = (int)c->nexpert_used});

	return wf_expert_ffn(g, c, x, ids, wf_gates(g, logits, ids, WF_GATE_SOFTMAX, c->expert_norm, 1), l);
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

/* The family with experts knows no layers without a window where it has one.  GGUF has no key for the norm of
 * the gates: its one family of this name always has it. */
static int finish(wf_config *c, wf_error *err)
{
	(void)err;
	c->sliding = NULL;
	c->expert_norm |= c->gguf;
	return 0;
}

static const struct wf_name names[] = {
	{"blk.%d.attn_q_norm",             "model.layers.%d.self_attn.q_norm"},
	{"blk.%d.attn_k_norm",             "model.layers.%d.self_attn.k_norm"},
	{"blk.%d.ffn_gate_inp",            "model.layers.%d.mlp.gate"},
	{"blk.%d.ffn_gate.%d",             "model.layers.%d.mlp.experts.%d.gate_proj"},
	{"blk.%d.ffn_up.%d",               "model.layers.%d.mlp.experts.%d.up_proj"},
	{"blk.%d.ffn_down.%d",             "model.layers.%d.mlp.experts.%d.down_proj"},
	{"blk.%d.ffn_gate_up_exps.weight", "model.layers.%d.mlp.experts.gate_up_proj"},
	{"blk.%d.ffn_down_exps.weight",    "model.layers.%d.mlp.experts.down_proj"},
	WF_USUAL_NAMES,
	{NULL, NULL}
};

#define EPS {"rms_norm_eps", "attention.layer_norm_rms_epsilon", offsetof(wf_config, eps), 'f', 0, 1, 1e-6}

const wf_arch wf_arch_qwen3 = {
	.name  = "qwen3",
	.hf    = (const char *const[]){"qwen3", NULL},
	.gguf  = (const char *const[]){"qwen3", NULL},
	.keys  = (const struct wf_key[]){
		{"head_dim", "attention.key_length", offsetof(wf_config, hdim), 'i', 1, 4096, 128},
		EPS,
		{0}
	},
	.names = names,
	.build = build,
};

const wf_arch wf_arch_qwen3moe = {
	.name   = "qwen3moe",
	.hf     = (const char *const[]){"qwen3_moe", NULL},
	.gguf   = (const char *const[]){"qwen3moe", NULL},
	.keys   = (const struct wf_key[]){EPS, {0}},
	.names  = names,
	.finish = finish,
	.build  = build,
};
