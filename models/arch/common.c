/* common.c - pieces that many families share (long, so that they are short): mathematics over named weights.
 *
 * A family's file says in which order they come.  Where files differ in how they store the same
 * weights (q, k and v apart or fused, experts stacked or one by one), these look for what is there;
 * with no file at hand they ask for the form GGUF has. */
#include "models/model.h"
#include "ops/ops.h"

enum { MAXNAME = 96 };

/* ---- linear layers and norms ---- */

static wf_tensor *add_bias(wf_graph *g, wf_tensor *y, bool bias, const char *name)
{
	if (!bias && !wf_has_weight(g, "%s.bias", name))
		return y;
	return wf_add(g, y, wf_weight(g, WF_SHAPE(wf_last(y)), "%s.bias", name));
}

wf_tensor *wf_linear(wf_graph *g, wf_tensor *x, int64_t out, bool bias, const char *fmt, ...)
{
	char name[MAXNAME];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(name, sizeof name, fmt, ap);
	va_end(ap);
	return add_bias(g, wf_matmul(g, wf_weight(g, WF_SHAPE(out, wf_last(x)), "%s.weight", name), x), bias, name);
}

wf_tensor *wf_norm(wf_graph *g, const wf_config *c, wf_tensor *x, const char *fmt, ...)
{
	char name[MAXNAME];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(name, sizeof name, fmt, ap);
	va_end(ap);
	return wf_rmsnorm(g, x, wf_weight(g, WF_SHAPE(wf_last(x)), "%s.weight", name), c->eps);
}

wf_tensor *wf_centred_norm(wf_graph *g, const wf_config *c, wf_tensor *x, const char *fmt, ...)
{
	char name[MAXNAME];
	va_list ap;
	int64_t n = wf_last(x);

	va_start(ap, fmt);
	vsnprintf(name, sizeof name, fmt, ap);
	va_end(ap);
	wf_tensor *w = wf_weight(g, WF_SHAPE(n), "%s.weight", name);
	bool bias = !g->weights || wf_has_weight(g, "%s.bias", name);
	return wf_layernorm(g, x, w, bias ? wf_weight(g, WF_SHAPE(n), "%s.bias", name) : NULL, c->eps);
}

wf_tensor *wf_ones(wf_graph *g, int64_t n)
{
	float *value = wf_alloc_n(g->arena, (size_t)n, sizeof *value);

	if (!value) {
		wf_fail(g->err, "graph: out of memory");
		return &g->dummy;
	}
	for (int64_t i = 0; i < n; i++)
		value[i] = 1;
	return wf_const(g, WF_SHAPE(n), value);
}

/* min(x, most) for x of any sign. */
static wf_tensor *at_most(wf_graph *g, wf_tensor *x, double most)
{
	return wf_add(g, x, wf_scale(g, wf_relu(g, wf_offset(g, x, -most)), -1));
}

static wf_tensor *relu6(wf_graph *g, wf_tensor *x)
{
	return at_most(g, wf_relu(g, x), 6);
}

wf_tensor *wf_activate(wf_graph *g, int act, wf_tensor *x)
{
	switch (act) {
	case WF_GELU:       return wf_gelu(g, x);
	case WF_GELU_TANH:  return wf_gelu_tanh(g, x);
	case WF_RELU:       return wf_relu(g, x);
	case WF_QUICK_GELU: return wf_scale(g, wf_silu(g, wf_scale(g, x, 1.702)), 1 / 1.702);
	case WF_GELU_10:    return at_most(g, wf_gelu(g, x), 10);
	case WF_RELU2:      return x = wf_relu(g, x), wf_mul(g, x, x);
	case WF_RELU6:      return relu6(g, x);
	case WF_LEAKY_RELU: return wf_add(g, wf_scale(g, x, 0.01), wf_scale(g, wf_relu(g, x), 0.99));
	case WF_HARD_SWISH: return wf_scale(g, wf_mul(g, x, relu6(g, wf_offset(g, x, 3))), 1 / 6.0);
	case WF_SIGMOID:    return wf_offset(g, wf_scale(g, wf_softcap(g, x, 2), 0.25), 0.5);
	case WF_TANH:       return wf_softcap(g, x, 1);
	case WF_LINEAR:     return x;
	default:            return wf_silu(g, x);
	}
}

/* ---- the two ends ---- */

static wf_tensor *token_table(wf_graph *g, const wf_config *c)
{
	return wf_weight(g, WF_SHAPE(c->vocab, c->embed_dim ? c->embed_dim : c->dim), "token_embd.weight");
}

wf_tensor *wf_embed(wf_graph *g, const wf_config *c)
{
	return wf_take(g, token_table(g, c), wf_input(g, "tokens", WF_I32, WF_SHAPE(WF_T)));
}

wf_tensor *wf_positions(wf_graph *g)
{
	return wf_input(g, "positions", WF_I32, WF_SHAPE(WF_T));
}

wf_tensor *wf_wanted(wf_graph *g, wf_tensor *x)
{
	return wf_take(g, x, wf_input(g, "rows", WF_I32, WF_SHAPE(WF_R)));
}

void wf_logits(wf_graph *g, const wf_config *c, wf_tensor *x)
{
	bool tied = c->tied || (g->weights && !wf_has_weight(g, "output.weight"));

	x = tied ? wf_matmul(g, token_table(g, c), x) : wf_linear(g, x, c->vocab, false, "output");
	if (c->logit_scale > 0)
		x = wf_scale(g, x, c->logit_scale);
	wf_output(g, "logits", c->final_softcap > 0 ? wf_softcap(g, x, c->final_softcap) : x);
}

/* ---- weights that files store fused ---- */

struct fused { wf_tensor *x, *w, *b; int64_t group; };

static struct fused fused_linear(wf_graph *g, wf_tensor *x, int64_t out, bool bias, const char *name)
{
	return (struct fused){x, wf_weight(g, WF_SHAPE(out, wf_last(x)), "%s.weight", name),
		bias || wf_has_weight(g, "%s.bias", name) ? wf_weight(g, WF_SHAPE(out), "%s.bias", name) : NULL, out};
}

/* The outputs start .. start + n of every group. */
static wf_tensor *share(wf_graph *g, const struct fused *f, int64_t start, int64_t n)
{
	wf_tensor *y = wf_matmul(g, wf_strip(g, f->w, f->group, start, n), f->x);

	return f->b ? wf_add(g, y, wf_strip(g, f->b, f->group, start, n)) : y;
}

wf_tensor *wf_weight_list(wf_graph *g, int64_t n, int ndim, const int64_t *dim, const char *fmt, ...)
{
	wf_tensor **w = wf_alloc_n(g->arena, (size_t)n, sizeof *w);
	char name[MAXNAME];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(name, sizeof name, fmt, ap);
	va_end(ap);
	if (!w) {
		wf_fail(g->err, "graph: out of memory");
		return &g->dummy;
	}
	for (int64_t i = 0; i < n && !wf_failed(g); i++)
		w[i] = wf_weight(g, ndim, dim, "%s.%d.weight", name, (int)i);
	while (n > 1 && !wf_failed(g)) {
		int64_t made = 0;
		for (int64_t i = 0; i < n; i += WF_MAXIN)
			w[made++] = wf_cat(g, w + i, (int)(n - i < WF_MAXIN ? n - i : WF_MAXIN));
		n = made;
	}
	return wf_failed(g) ? &g->dummy : w[0];
}

/* ---- attention ---- */

static struct wf_qkv from_fused(wf_graph *g, const wf_config *c, wf_tensor *x, bool bias, bool grouped, int l)
{
	int64_t nq = c->nhead * c->hdim, nk = c->nkv * c->hdim, groups = grouped ? c->nkv : 1;
	char name[MAXNAME];

	snprintf(name, sizeof name, "blk.%d.attn_qkv", l);
	struct fused f = fused_linear(g, x, nq + 2 * nk, bias, name);
	f.group /= groups;
	nq /= groups;
	nk /= groups;
	return (struct wf_qkv){share(g, &f, 0, nq), share(g, &f, nq, nk), share(g, &f, nq + nk, nk)};
}

struct wf_qkv wf_attn_inputs(wf_graph *g, const wf_config *c, wf_tensor *x, bool bias, bool grouped, int l)
{
	struct wf_qkv a;

	if (wf_has_weight(g, "blk.%d.attn_qkv.weight", l))
		a = from_fused(g, c, x, bias, grouped, l);
	else
		a = (struct wf_qkv){
			wf_linear(g, x, c->nhead * c->hdim, bias, "blk.%d.attn_q", l),
			wf_linear(g, x, c->nkv * c->hdim, bias, "blk.%d.attn_k", l),
			wf_linear(g, x, c->nkv * c->hdim, bias, "blk.%d.attn_v", l)};
	return (struct wf_qkv){wf_heads(g, a.q, c->nhead), wf_heads(g, a.k, c->nkv), wf_heads(g, a.v, c->nkv)};
}

static double opened(const wf_config *c)
{
	return (double)(c->opened > 0 ? c->opened : c->ctx);
}

/* Long rope has factors for contexts past the original one and others up to it; which is in use is
 * one choice for all sequences, by the context the model is opened for. */
static wf_tensor *long_factors(wf_graph *g, const wf_config *c, wf_tensor *freqs)
{
	bool past = opened(c) > c->rope_orig_ctx;
	const double *factor = past ? c->rope_long : c->rope_short;
	const char *name = past ? "rope_factors_long.weight" : "rope_factors_short.weight";
	int64_t n = c->rope_dim / 2;

	if (!factor)
		return wf_div(g, freqs, wf_weight(g, WF_SHAPE(n), "%s", name));
	float *value = wf_alloc_n(g->arena, (size_t)n, sizeof *value);
	if (!value) {
		wf_fail(g->err, "graph: out of memory");
		return freqs;
	}
	for (int64_t i = 0; i < n; i++)
		value[i] = (float)factor[i];
	return wf_div(g, freqs, wf_const(g, WF_SHAPE(n), value));
}

/* The base grows with what a context has more than the model was trained for: by the context the model
 * is opened for, as keys once rotated stay as they are. */
static double dynamic_theta(const wf_config *c)
{
	double n = (double)c->rope_dim, past = opened(c) / (double)c->ctx;

	return past > 1 && n > 2 ? c->theta * pow(c->rope_factor * past - (c->rope_factor - 1), n / (n - 2)) : c->theta;
}

static wf_tensor *rotary_frequencies(wf_graph *g, const wf_config *c)
{
	bool yarn = c->scaling == WF_ROPE_YARN, plain = c->scaling == WF_ROPE_LONG || c->scaling == WF_ROPE_DYNAMIC;
	wf_tensor *freqs = wf_rope_freqs(g, (int)c->rope_dim, &(struct wf_rope_freqs){
		.type = plain ? WF_ROPE_PLAIN : (int)c->scaling,
		.theta = c->scaling == WF_ROPE_DYNAMIC ? dynamic_theta(c) : c->theta,
		.factor = c->rope_factor, .orig_ctx = c->rope_orig_ctx, .keep_fractions = yarn && !c->rope_truncate,
		.low = yarn ? c->rope_beta_slow : c->rope_low, .high = yarn ? c->rope_beta_fast : c->rope_high});

	if (c->scaling == WF_ROPE_LONG)
		return long_factors(g, c, freqs);
	if (wf_has_weight(g, "rope_freqs.weight"))
		return wf_div(g, freqs, wf_weight(g, WF_SHAPE(c->rope_dim / 2), "rope_freqs.weight"));
	return freqs;
}

static double yarn_scale(double factor, double by)
{
	return factor > 1 ? 0.1 * by * log(factor) + 1 : 1;
}

/* What stretched frequencies are made up for by: longer rotated vectors. */
static double rotary_scale(const wf_config *c)
{
	double given = c->rope_attn_factor, f = c->rope_factor;

	if (c->scaling == WF_ROPE_LONG)
		return given > 0 ? given : f > 1 ? sqrt(1 + log(f) / log(c->rope_orig_ctx)) : 1;
	if (c->scaling != WF_ROPE_YARN)
		return 1;
	double own = c->rope_mscale > 0 && c->rope_mscale_all > 0 ?
		yarn_scale(f, c->rope_mscale) / yarn_scale(f, c->rope_mscale_all) : yarn_scale(f, 1);
	return given <= 0 ? own : c->gguf ? given * own : given;
}

wf_tensor *wf_rotate(wf_graph *g, const wf_config *c, wf_tensor *x, wf_tensor *pos)
{
	return wf_rope(g, x, pos, rotary_frequencies(g, c), c->rope_pairs ? WF_ROPE_PAIRS : WF_ROPE_HALVES,
		rotary_scale(c));
}

int wf_layer_window(const wf_config *c, int l)
{
	return c->sliding && !c->sliding[l] ? 0 : (int)c->window;
}

wf_tensor *wf_self_attend(wf_graph *g, const wf_config *c, struct wf_qkv a, wf_tensor *pos, int l)
{
	int window = wf_layer_window(c, l);
	wf_tensor *kv = wf_cache(g, a.k, a.v, pos, l, window);

	return wf_merge(g, wf_attend(g, a.q, kv, pos, &(struct wf_attention){.scale = c->attn_scale,
		.window = window, .softcap = c->attn_softcap, .alibi = c->alibi ? 8 : 0}));
}

/* ---- feed-forward ---- */

wf_tensor *wf_gated_ffn(wf_graph *g, const wf_config *c, wf_tensor *x, int64_t n, bool bias, const char *suffix,
		int l)
{
	wf_tensor *gate, *up;
	char name[MAXNAME];

	if (g->weights && !wf_has_weight(g, "blk.%d.ffn_gate%s.weight", l, suffix)) {
		snprintf(name, sizeof name, "blk.%d.ffn_up%s", l, suffix);
		struct fused f = fused_linear(g, x, 2 * n, bias, name);
		gate = share(g, &f, 0, n);
		up = share(g, &f, n, n);
	} else {
		gate = wf_linear(g, x, n, bias, "blk.%d.ffn_gate%s", l, suffix);
		up = wf_linear(g, x, n, bias, "blk.%d.ffn_up%s", l, suffix);
	}
	x = wf_mul(g, wf_activate(g, c->act, gate), up);
	return wf_linear(g, x, c->dim, bias, "blk.%d.ffn_down%s", l, suffix);
}

wf_tensor *wf_plain_ffn(wf_graph *g, const wf_config *c, wf_tensor *x, bool bias, int l)
{
	wf_tensor *up = wf_linear(g, x, c->ffn, bias, "blk.%d.ffn_up", l);

	return wf_linear(g, wf_activate(g, c->act, up), c->dim, bias, "blk.%d.ffn_down", l);
}

/* ---- experts ---- */

bool wf_has_experts(const wf_graph *g, const wf_config *c, int l)
{
	if (!c->nexpert || l < c->first_dense)
		return false;
	return g->weights ? wf_has_weight(g, "blk.%d.ffn_gate_inp.weight", l) : !c->dense || !c->dense[l];
}

wf_tensor *wf_expert_rows(wf_graph *g, const wf_config *c, int64_t out, int64_t in, const char *what, int l)
{
	if (!g->weights || wf_has_weight(g, "blk.%d.%s_exps.weight", l, what))
		return wf_weight(g, WF_SHAPE(c->nexpert, out, in), "blk.%d.%s_exps.weight", l, what);
	return wf_weight_list(g, c->nexpert, WF_SHAPE(out, in), "blk.%d.%s", l, what);
}

wf_tensor *wf_expert_ffn(wf_graph *g, const wf_config *c, wf_tensor *x, wf_tensor *ids, wf_tensor *gates, int l)
{
	int64_t n = c->expert_ffn;
	wf_tensor *gate, *up;

	if (wf_has_weight(g, "blk.%d.ffn_gate.0.bias", l)) {
		wf_fail(g->err, "weight blk.%d.ffn_gate.0.bias: experts with biases are not supported", l);
		return &g->dummy;
	}
	if (wf_has_weight(g, "blk.%d.ffn_gate_up_exps.weight", l)) {
		wf_tensor *both = wf_flatten(g, wf_weight(g, WF_SHAPE(c->nexpert, 2 * n, c->dim),
			"blk.%d.ffn_gate_up_exps.weight", l));
		gate = wf_strip(g, both, 2 * n, 0, n);
		up = wf_strip(g, both, 2 * n, n, n);
	} else {
		gate = wf_expert_rows(g, c, n, c->dim, "ffn_gate", l);
		up = wf_expert_rows(g, c, n, c->dim, "ffn_up", l);
	}
	gate = wf_activate(g, c->act, wf_experts(g, gate, x, ids, c->nexpert));
	x = wf_mul(g, gate, wf_experts(g, up, x, ids, c->nexpert));
	x = wf_experts(g, wf_expert_rows(g, c, c->dim, n, "ffn_down", l), x, ids, c->nexpert);
	return wf_mix(g, x, gates);
}
