/* rmsnorm.c - scale each row to unit root mean square, then by a weight. */
#include "ops/ops.h"

enum { EPS };

static void eval(wf_tensor *y)
{
	const float *x = y->in[0]->data, *w = y->in[1]->data;
	float *o = y->data;
	int64_t n = wf_last(y);

	for (int64_t r = 0; r < wf_rows(y); r++, x += n, o += n) {
		double sum = 0;
		for (int64_t i = 0; i < n; i++)
			sum += (double)x[i] * x[i];
		float scale = (float)(1 / sqrt(sum / n + y->attr[EPS]));
		for (int64_t i = 0; i < n; i++)
			o[i] = x[i] * scale * w[i];
	}
}

/* Sixteen partial sums, so that the loop vectorises without reordering. */
WF_CLONES static void span(const struct wf_span *s)
{
	const float *x = s->in[0], *w = s->in[1];
	float part[16] = {0};
	double sum = 0;
	int64_t i = 0;

	for (; i + 16 <= s->n; i += 16)
		for (int j = 0; j < 16; j++)
			part[j] += x[i + j] * x[i + j];
	for (; i < s->n; i++)
		part[0] += x[i] * x[i];
	for (int j = 0; j < 16; j++)
		sum += part[j];
	float scale = (float)(1 / sqrt(sum / s->n + s->attr[EPS]));
	for (i = 0; i < s->n; i++)
		s->out[i] = x[i] * scale * w[i];
}

const wf_op wf_op_rmsnorm = {
	.name   = "rmsnorm",
	.doc    = "y[r,i] = x[r,i] * w[i] / sqrt(mean_i(x[r,i]^2) + eps)",
	.source = "Zhang and Sennrich 2019, arXiv 1910.07467",
	.kind   = WF_ROW,
	.nin    = 2,
	.attr   = "eps",
	.shape  = wf_row_shape,
	.eval   = eval,
	.span   = span,
	.cost   = wf_map_cost,
	.cuda   = "__device__ float lift(float x) { return x * x; }\n"
	          "__device__ float drop(float x, float sum, float w)\n"
	          "{ return x * rsqrtf(sum / ROW + EPS) * w; }\n",
	.tol    = 1e-11f,
	.test   = TESTS(
		"(rmsnorm [3 4] [1 2] eps=0)", "[0.848528137 2.262741700]",
		"(rmsnorm [0 0] [1 1] eps=1)", "[0 0]",
		"(rmsnorm [[3 4][0 2]] [1 1] eps=0)", "[[0.848528137 1.131370850][0 1.414213562]]"),
};

wf_tensor *wf_rmsnorm(wf_graph *g, wf_tensor *x, wf_tensor *w, double eps)
{
	return wf_node(g, &wf_op_rmsnorm, (wf_tensor *[]){wf_wide(g, x), w}, 2, (double[WF_MAXATTR]){eps});
}
