/* layernorm.c - centre each row, scale it to unit variance, then weight and bias. */
#include "ops/ops.h"

enum { EPS };

static void one(const float *x, const float *w, const float *b, int64_t n, double eps, float *o)
{
	double sum = 0, square = 0;

	for (int64_t i = 0; i < n; i++)
		sum += x[i];
	double mean = sum / n;
	for (int64_t i = 0; i < n; i++)
		square += (x[i] - mean) * (x[i] - mean);
	double scale = 1 / sqrt(square / n + eps);
	for (int64_t i = 0; i < n; i++)
		o[i] = (float)((x[i] - mean) * scale) * w[i] + (b ? b[i] : 0);
}

static void eval(wf_tensor *y)
{
	int64_t n = wf_last(y);

	for (int64_t r = 0; r < wf_rows(y); r++)
		one((const float *)y->in[0]->data + r * n, y->in[1]->data, y->nin > 2 ? y->in[2]->data : NULL,
			n, y->attr[EPS], (float *)y->data + r * n);
}

WF_CLONES static void span(const struct wf_span *s)
{
	const float *x = s->in[0], *w = s->in[1], *b = s->in[2];
	float part[16] = {0}, square[16] = {0};
	double sum = 0, variance = 0;
	int64_t n = s->n, i;

	for (i = 0; i + 16 <= n; i += 16)
		for (int j = 0; j < 16; j++)
			part[j] += x[i + j];
	for (; i < n; i++)
		part[0] += x[i];
	for (int j = 0; j < 16; j++)
		sum += part[j];
	float mean = (float)(sum / n);
	for (i = 0; i + 16 <= n; i += 16)
		for (int j = 0; j < 16; j++)
			square[j] += (x[i + j] - mean) * (x[i + j] - mean);
	for (; i < n; i++)
		square[0] += (x[i] - mean) * (x[i] - mean);
	for (int j = 0; j < 16; j++)
		variance += square[j];
	float scale = (float)(1 / sqrt(variance / n + s->attr[EPS]));
	if (b)
		for (i = 0; i < n; i++)
			s->out[i] = (x[i] - mean) * scale * w[i] + b[i];
	else
		for (i = 0; i < n; i++)
			s->out[i] = (x[i] - mean) * scale * w[i];
}

const wf_op wf_op_layernorm = {
	.name   = "layernorm",
	.doc    = "y[r,i] = (x[r,i] - mean_i(x)) / sqrt(var_i(x) + eps) * w[i] + b[i]; b may be absent",
	.source = "Ba, Kiros and Hinton 2016, arXiv 1607.06450",
	.kind   = WF_ROW,
	.nin    = 2,
	.nopt   = 1,
	.attr   = "eps",
	.shape  = wf_row_shape,
	.eval   = eval,
	.span   = span,
	.cost   = wf_map_cost,
	.cuda   = "#define ROW_CENTRED 1\n"
	          "__device__ float lift(float x) { return x * x; }\n"
	          "__device__ float drop(float x, float sum, float w, float b)\n"
	          "{ return x * rsqrtf(sum / ROW + EPS) * w + b; }\n",
	.tol    = 1e-11f,
	.test   = TESTS(
		"(layernorm [1 3] [1 2] [0 10] eps=0)", "[-1 12]",
		"(layernorm [1 3] [1 2] eps=0)", "[-1 2]",
		"(layernorm [5 5] [1 1] [1 2] eps=1)", "[1 2]"),
};

wf_tensor *wf_layernorm(wf_graph *g, wf_tensor *x, wf_tensor *w, wf_tensor *b, double eps)
{
	return wf_node(g, &wf_op_layernorm, (wf_tensor *[]){wf_wide(g, x), w, b}, b ? 3 : 2, (double[WF_MAXATTR]){eps});
}
