/* deepseek2.c - DeepSeek-V2 and V3: queries, keys and values from narrow latent rows, here expanded to
 * plain heads of a rotated part and one that is not; experts chosen by groups, and shared ones. */
#include "models/model.h"
#include "ops/ops.h"

/* The rows of w that make start .. start + n of every head's `each`. */
static wf_tensor *part_of_heads(wf_graph *g, const wf_config *c, wf_tensor *w, wf_tensor *x, int64_t each,
		int64_t start, int64_t n)
{
	return wf_heads(g, wf_matmul(g, wf_strip(g, w, each, start, n), x), c->nhead);
}

static wf_tensor *queries(wf_graph *g, const wf_config *c, wf_tensor *x, wf_tensor *pos, int l)
{
	if (c->q_rank)
		x = wf_norm(g, c, wf_linear(g, x, c->q_rank, c->qkv_bias, "blk.%d.attn_q_a", l), "blk.%d.attn_q_a_norm", l);
	wf_tensor *w = wf_weight(g, WF_SHAPE(c->nhead * c->hdim, wf_last(x)), c->q_rank ? "blk.%d.attn_q_b.weight" :
		"blk.%d.attn_q.weight", l);
	return wf_join(g, part_of_heads(g, c, w, x, c->hdim, 0, c->nope_dim),
		wf_rotate(g, c, part_of_heads(g, c, w, x, c->hdim, c->nope_dim, c->rope_dim), pos));
}

/* GGUF has keys and values apart, the keys' matrices turned: [head, rank, n] and [head, n, rank]. */
static struct wf_qkv from_latent(wf_graph *g, const wf_config *c, wf_tensor *x, int l)
{
	int64_t each = c->nope_dim + c->vdim;

	if (wf_has_weight(g, "blk.%d.attn_k_b.weight", l)) {
		wf_tensor *k = wf_weight(g, WF_SHAPE(c->nhead, c->kv_rank, c->nope_dim), "blk.%d.attn_k_b.weight", l);
		wf_tensor *v = wf_weight(g, WF_SHAPE(c->nhead, c->vdim, c->kv_rank), "blk.%d.attn_v_b.weight", l);
		return (struct wf_qkv){
			.k = wf_heads(g, wf_matmul(g, wf_flatten(g, wf_transpose(g, k)), x), c->nhead),
			.v = wf_heads(g, wf_matmul(g, wf_flatten(g, v), x), c->nhead)};
	}
	wf_tensor *w = wf_weight(g, WF_SHAPE(c->nhead * each, c->kv_rank), "blk.%d.attn_kv_b.weight", l);
	return (struct wf_qkv){
		.k = part_of_heads(g, c, w, x, each, 0, c->nope_dim),
		.v = part_of_heads(g, c, w, x, each, c->nope_dim, c->vdim)};
}

static wf_tensor *attention(wf_graph *g, const wf_config *outer, wf_tensor *x, wf_tensor *pos, int l)
{
	wf_config inner = *outer, *c = &inner;

	inner.eps = 1e-6;                         /* of the latent rows' norms, whatever the config says */
	wf_tensor *low = wf_linear(g, x, c->kv_rank + c->rope_dim, c->qkv_bias, "blk.%d.attn_kv_a_mqa", l);
	wf_tensor *turned = wf_rotate(g, c, wf_heads(g, wf_cols(g, low, c->kv_rank, c->rope_dim), 1), pos);
	struct wf_qkv a = from_latent(g, c, wf_norm(g, c, wf_cols(g, low, 0, c->kv_rank), "blk.%d.attn_kv_a_norm", l), l);

	a.q = queries(g, c, x, pos, l);
	a.k = wf_join(g, a.k, turned);
	return wf_linear(g, wf_self_attend(g, c, a, pos, l), c->dim, c->out_bias, "blk.%d.attn_output", l);
}

/* V3's routers have a bias, score by sigmoid and know a group by its two best; V2's do not, and bring no gates
 * to a sum of one, whatever the config says. */
static wf_tensor *feedforward(wf_graph *g, const wf_config *c, wf_tensor *x, int l)
{
	if (!wf_has_experts(g, c, l))
		return wf_gated_ffn(g, c, x, c->ffn, false, "", l);
	bool bias = !g->weights || wf_has_weight(g, "blk.%d.exp_probs_b.bias", l);
	bool sigmoid = c->expert_gating ? c->expert_gating == 2 : bias;
	wf_tensor *logits = wf_linear(g, x, c->nexpert, false, "blk.%d.ffn_gate_inp", l);
	wf_tensor *shift = bias ? wf_weight(g, WF_SHAPE(c->nexpert), "blk.%d.exp_probs_b.bias", l) : NULL;
	wf_tensor *ids = wf_route(g, logits, shift, &(struct wf_routing){.k = (int)c->nexpert_used, .sigmoid = sigmoid,
		.groups = (int)c->nexpert_group, .group_k = (int)c->ngroup_used,
		.group_best = sigmoid ? 2 : 1});
	wf_tensor *gates = wf_gates(g, logits, ids, sigmoid ? WF_GATE_SIGMOID : WF_GATE_SOFTMAX,
		c->expert_norm && (sigmoid || c->gguf), c->expert_scale);
	wf_tensor *y = wf_expert_ffn(g, c, x, ids, gates, l);

	return c->nexpert_shared ? wf_add(g, y, wf_gated_ffn(g, c, x, c->nexpert_shared * c->expert_ffn, false, "_shexp", l)) : y;
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

/* hdim holds what is not rotated of a head (GGUF: all of it), rope_mscale_all in GGUF a tenth. */
static int finish(wf_config *c, wf_error *err)
{
	c->nkv = c->nhead;
	c->hdim += c->gguf ? 0 : c->rope_dim;
	c->nope_dim = c->hdim - c->rope_dim;
	if (c->nope_dim < 1 || c->kv_rank < 1)
		return wf_fail(err, "config: heads of %lld values of which %lld are rotated, from rows of %lld",
			(long long)c->hdim, (long long)c->rope_dim, (long long)c->kv_rank);
	if (c->gguf)
		c->rope_mscale = c->rope_mscale_all *= 10;
	if (c->scaling == WF_ROPE_YARN && c->rope_factor > 1) {
		double m = 0.1 * c->rope_mscale_all * log(c->rope_factor) + 1;
		c->attn_scale = m * m / sqrt((double)c->hdim);
	}
	return 0;
}

#define AT(field) offsetof(wf_config, field)

const wf_arch wf_arch_deepseek2 = {
	.name   = "deepseek2",
	.hf     = (const char *const[]){"deepseek_v3", "deepseek_v2", NULL},
	.gguf   = (const char *const[]){"deepseek2", NULL},
	.keys   = (const struct wf_key[]){
		{"qk_nope_head_dim", "attention.key_length_mla attention.key_length", AT(hdim), 'i', 1, 4096, 128},
		{"v_head_dim", "attention.value_length_mla attention.value_length", AT(vdim), 'i', 1, 4096, 128},
		{"qk_rope_head_dim", "rope.dimension_count", AT(rope_dim), 'i', 2, 4096, 64},
		{"q_lora_rank", "attention.q_lora_rank", AT(q_rank), 'i', 0, 1 << 20, 0},
		{"kv_lora_rank", "attention.kv_lora_rank", AT(kv_rank), 'i', 1, 1 << 20, NAN},
		{"rms_norm_eps", "attention.layer_norm_rms_epsilon", AT(eps), 'f', 0, 1, 1e-6},
		{"rope_interleave", NULL, AT(rope_pairs), 'b', 0, 1, 1},
		{"rope.mscale_all_dim", "rope.scaling.yarn_log_multiplier", AT(rope_mscale_all), 'f', 0, 1e3, 0},
		{"routed_scaling_factor", "expert_weights_scale", AT(expert_scale), 'f', 1e-6, 1e6, 1},
		{NULL, "expert_gating_func", AT(expert_gating), 'i', 0, 2, 0},
		{0}
	},
	.names  = (const struct wf_name[]){
		{"blk.%d.attn_q_a",                "model.layers.%d.self_attn.q_a_proj"},
		{"blk.%d.attn_q_a_norm",           "model.layers.%d.self_attn.q_a_layernorm"},
		{"blk.%d.attn_q_b",                "model.layers.%d.self_attn.q_b_proj"},
		{"blk.%d.attn_kv_a_mqa",           "model.layers.%d.self_attn.kv_a_proj_with_mqa"},
		{"blk.%d.attn_kv_a_norm",          "model.layers.%d.self_attn.kv_a_layernorm"},
		{"blk.%d.attn_kv_b",               "model.layers.%d.self_attn.kv_b_proj"},
		{"blk.%d.ffn_gate_inp",            "model.layers.%d.mlp.gate"},
		{"blk.%d.exp_probs_b.bias",        "model.layers.%d.mlp.gate.e_score_correction_bias"},
		{"blk.%d.ffn_gate.%d",             "model.layers.%d.mlp.experts.%d.gate_proj"},
		{"blk.%d.ffn_up.%d",               "model.layers.%d.mlp.experts.%d.up_proj"},
		{"blk.%d.ffn_down.%d",             "model.layers.%d.mlp.experts.%d.down_proj"},
		{"blk.%d.ffn_gate_up_exps.weight", "model.layers.%d.mlp.experts.gate_up_proj"},
		{"blk.%d.ffn_down_exps.weight",    "model.layers.%d.mlp.experts.down_proj"},
		{"blk.%d.ffn_gate_shexp",          "model.layers.%d.mlp.shared_experts.gate_proj"},
		{"blk.%d.ffn_up_shexp",            "model.layers.%d.mlp.shared_experts.up_proj"},
		{"blk.%d.ffn_down_shexp",          "model.layers.%d.mlp.shared_experts.down_proj"},
		WF_USUAL_NAMES,
		{NULL, NULL}
	},
	.finish = finish,
	.build  = build,
};
