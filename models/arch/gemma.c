/* gemma.c - Gemma 2 and 3: norms on both sides of attention and feed-forward, their weights stored
 * as the distance from one (GGUF adds the one), a scaled embedding, layers with and without a sliding
 * window.  Gemma 2 caps its logits; Gemma 3 has a norm per head and another base for the windows. */
#include "models/model.h"
#include "ops/ops.h"

static wf_tensor *norm(wf_graph *g, const wf_config *c, wf_tensor *x, const char *what, int l)
{
	wf_tensor *w = l < 0 ? wf_weight(g, WF_SHAPE(wf_last(x)), "%s.weight", what) :
		wf_weight(g, WF_SHAPE(wf_last(x)), "blk.%d.%s.weight", l, what);

	return wf_rmsnorm(g, x, c->gguf ? w : wf_offset(g, w, 1), c->eps);
}

/* How layers with a window turn: whatever stretches the others, linearly or not at all. */
static wf_config local(const wf_config *c)
{
	wf_config inner = *c;

	inner.theta = c->theta_local;
	inner.rope_factor = c->rope_local_factor;
	inner.scaling = c->rope_local_factor > 0 ? WF_ROPE_LINEAR : WF_ROPE_PLAIN;
	return inner;
}

static wf_tensor *attention(wf_graph *g, const wf_config *c, wf_tensor *x, wf_tensor *pos, int l)
{
	const wf_config inner = local(c), *rope = c->theta_local > 0 && wf_layer_window(c, l) ? &inner : c;
	struct wf_qkv a = wf_attn_inputs(g, c, x, c->qkv_bias, false, l);

	if (c->qk_norm) {
		a.q = norm(g, c, a.q, "attn_q_norm", l);
		a.k = norm(g, c, a.k, "attn_k_norm", l);
	}
	a.q = wf_rotate(g, rope, a.q, pos);
	a.k = wf_rotate(g, rope, a.k, pos);
	return wf_linear(g, wf_self_attend(g, c, a, pos, l), c->dim, c->out_bias, "blk.%d.attn_output", l);
}

static void build(wf_graph *g, const wf_config *c)
{
	wf_tensor *x = wf_scale(g, wf_embed(g, c), sqrt((double)c->dim)), *pos = wf_positions(g), *y;

	for (int l = 0; l < c->nlayer; l++) {
		wf_scope(g, "blk.%d.attn", l);
		y = attention(g, c, norm(g, c, x, "attn_norm", l), pos, l);
		x = wf_add(g, x, norm(g, c, y, "post_attention_norm", l));
		wf_scope(g, "blk.%d.ffn", l);
		y = wf_gated_ffn(g, c, norm(g, c, x, "ffn_norm", l), c->ffn, false, "", l);
		x = wf_add(g, x, norm(g, c, y, "post_ffw_norm", l));
	}
	wf_scope(g, "head");
	wf_logits(g, c, norm(g, c, wf_wanted(g, x), "output_norm", -1));
}

/* attn_scale holds query_pre_attn_scalar.  GGUF has no key for it: it is the head's size but in the
 * largest models, where it is the width of the model by its heads. */
static int finish(wf_config *c, int largest, int period)
{
	if (c->gguf)
		c->attn_scale = c->nlayer == largest ? (double)c->dim / (double)c->nhead : (double)c->hdim;
	c->attn_scale = 1 / sqrt(c->attn_scale);
	if (!c->sliding && !c->window_period)
		c->window_period = period;
	return 0;
}

static int finish2(wf_config *c, wf_error *err)
{
	(void)err;
	return finish(c, 46, 2);
}

static int finish3(wf_config *c, wf_error *err)
{
	(void)err;
	c->qk_norm = true;
	c->attn_softcap = 0;                      /* there is a key for it, which its mathematics ignores */
	if (!c->vocab)
		c->vocab = 262208;
	return finish(c, 62, 6);
}

#define AT(field) offsetof(wf_config, field)

static const struct wf_name names[] = {
	{"blk.%d.attn_q_norm",         "model.layers.%d.self_attn.q_norm"},
	{"blk.%d.attn_k_norm",         "model.layers.%d.self_attn.k_norm"},
	{"blk.%d.post_attention_norm", "model.layers.%d.post_attention_layernorm"},
	{"blk.%d.ffn_norm",            "model.layers.%d.pre_feedforward_layernorm"},
	{"blk.%d.post_ffw_norm",       "model.layers.%d.post_feedforward_layernorm"},
	WF_USUAL_NAMES,
	{NULL, NULL}
};

const wf_arch wf_arch_gemma2 = {
	.name   = "gemma2",
	.hf     = (const char *const[]){"gemma2", NULL},
	.gguf   = (const char *const[]){"gemma2", NULL},
	.act    = WF_GELU_TANH,
	.loud   = true,
	.keys   = (const struct wf_key[]){
		{"head_dim", "attention.key_length", AT(hdim), 'i', 1, 4096, 256},
		{"query_pre_attn_scalar", NULL, AT(attn_scale), 'f', 1e-6, 1e6, 256},
		{"rms_norm_eps", "attention.layer_norm_rms_epsilon", AT(eps), 'f', 0, 1, 1e-6},
		{"sliding_window", "attention.sliding_window", AT(window), 'i', 0, 1 << 30, 4096},
		{"attn_logit_softcapping", "attn_logit_softcapping", AT(attn_softcap), 'f', 0, 1e6, 50},
		{"final_logit_softcapping", "final_logit_softcapping", AT(final_softcap), 'f', 0, 1e6, 30},
		{"use_bidirectional_attention", NULL, AT(fixed), 'b', 0, 0, 0},
		{"tie_word_embeddings", NULL, AT(tied), 'b', 0, 1, 1},
		{0}
	},
	.names  = names,
	.finish = finish2,
	.build  = build,
};

/* Exports of models that also see leave out what is the class's default. */
const wf_arch wf_arch_gemma3 = {
	.name   = "gemma3",
	.hf     = (const char *const[]){"gemma3_text", "gemma3", NULL},
	.gguf   = (const char *const[]){"gemma3", NULL},
	.act    = WF_GELU_TANH,
	.loud   = true,
	.keys   = (const struct wf_key[]){
		{"num_attention_heads", "attention.head_count", AT(nhead), 'i', 1, 4096, 8},
		{"num_key_value_heads", "attention.head_count_kv", AT(nkv), 'i', 1, 4096, 4},
		{"head_dim", "attention.key_length", AT(hdim), 'i', 1, 4096, 256},
		{"query_pre_attn_scalar", NULL, AT(attn_scale), 'f', 1e-6, 1e6, 256},
		{"rms_norm_eps", "attention.layer_norm_rms_epsilon", AT(eps), 'f', 0, 1, 1e-6},
		{"max_position_embeddings", "context_length", AT(ctx), 'i', 1, 1 << 30, 131072},
		{"rope.rope_theta rope_theta", "rope.freq_base", AT(theta), 'f', 1, 1e12, 1e6},
		{"rope_parameters.sliding_attention.rope_theta rope_local_base_freq", "rope.freq_base_swa",
			AT(theta_local), 'f', 1, 1e12, 10000},
		{"sliding_window", "attention.sliding_window", AT(window), 'i', 0, 1 << 30, 4096},
		{"use_bidirectional_attention", NULL, AT(fixed), 'b', 0, 0, 0},
		{"tie_word_embeddings", NULL, AT(tied), 'b', 0, 1, 1},
		{0}
	},
	.names  = names,
	.finish = finish3,
	.build  = build,
};
