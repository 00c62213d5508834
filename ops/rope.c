/* rope.c - rotary position embedding: pairs of a head's first values turned by position * frequency.
 * As many values turn as there are frequencies, twice; the rest pass through. */
#include "ops/ops.h"

enum { PAIRS, MSCALE };

static int shape(wf_graph *g, wf_tensor *y)
{
	const wf_tensor *pos = y->in[1], *freqs = y->in[2];

	if (y->ndim != 3)
		return wf_fail(g->err, "rope: %d dims, expected [tokens, heads, n] (%s)", y->ndim, g->scope);
	if (pos->dtype != WF_I32 || pos->ndim != 1 || pos->dim[0] != y->dim[0])
		return wf_fail(g->err, "rope: expected one i32 position per token (%s)", g->scope);
	if (freqs->ndim != 1 || freqs->dtype == WF_I32 || freqs->dim[0] < 1 || 2 * freqs->dim[0] > y->dim[2])
		return wf_fail(g->err, "rope: %lld frequencies for heads of %lld (%s)", (long long)freqs->dim[0],
			(long long)y->dim[2], g->scope);
	return 0;
}

static void turn(float *o, const float *x, const float *freqs, int64_t half, int64_t n, int32_t pos, const double *attr)
{
	bool pairs = attr[PAIRS] != 0;
	float scale = (float)attr[MSCALE];

	for (int64_t i = 0; i < half; i++) {
		int64_t a = pairs ? 2 * i : i, b = pairs ? 2 * i + 1 : i + half;
		float angle = (float)pos * freqs[i];
		float c = cosf(angle) * scale, s = sinf(angle) * scale, xa = x[a], xb = x[b];
		o[a] = xa * c - xb * s;
		o[b] = xb * c + xa * s;
	}
	for (int64_t i = 2 * half; i < n; i++)
		o[i] = x[i];
}

static void eval(wf_tensor *y)
{
	int64_t n = wf_last(y), nhead = wf_size(y, 1), half = wf_nelem(y->in[2]);

	for (int64_t r = 0; r < wf_rows(y); r++)
		turn((float *)y->data + r * n, (const float *)y->in[0]->data + r * n, y->in[2]->data, half, n,
			((const int32_t *)y->in[1]->data)[r / nhead], y->attr);
}

static void span(const struct wf_span *s)
{
	turn(s->out, s->in[0], s->in[2], s->length[2] , s->n, ((const int32_t *)(const void *)s->in[1])[s->token], s->attr);
}

const wf_op wf_op_rope = {
	.name   = "rope",
	.doc    = "(a, b) -> (a c - b s, b c + a s), c and s of pos[t] * freqs[i] times mscale; "
	          "(a, b) = (x[i], x[i+h]), h frequencies, or with pairs=1 (x[2i], x[2i+1])",
	.source = "Su et al. 2021, arXiv 2104.09864",
	.kind   = WF_ROW,
	.nin    = 3,
	.numbers = 1 << 1,
	.attr   = "pairs#=0 mscale=1",
	.shape  = shape,
	.eval   = eval,
	.span   = span,
	.cost   = wf_map_cost,
	.cuda   = "__device__ float2 turn(float a, float b, float pos, float freq)\n"
	          "{ float s, c; sincosf(pos * freq, &s, &c); s *= MSCALE; c *= MSCALE;\n"
	          "  return make_float2(a * c - b * s, b * c + a * s); }\n",
	.tol    = 1e-11f,
	.test   = TESTS(
		"(rope [[[1 0 0 1]]] i32[1] [1 0.5])", "[[[0.540302306 -0.479425539 0.841470985 0.877582562]]]",
		"(rope [[[1 0 0 1]]] i32[1] [1 0.5] pairs=1)", "[[[0.540302306 0.841470985 -0.479425539 0.877582562]]]",
		"(rope [[[1 2 3 4]]] i32[0] [1])", "[[[1 2 3 4]]]"),
};

wf_tensor *wf_rope(wf_graph *g, wf_tensor *x, wf_tensor *pos, wf_tensor *freqs, int pairs, double mscale)
{
	return wf_node(g, &wf_op_rope, (wf_tensor *[]){x, pos, freqs}, 3, (double[WF_MAXATTR]){pairs, mscale});
}
