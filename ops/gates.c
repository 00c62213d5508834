/* gates.c - how much each chosen expert counts: its score, as the softmax over all experts or over
 * the chosen ones, or a sigmoid, normalised or not, times a factor. */
#include "ops/ops.h"

enum { MODE, NORM, SCALE };

static int shape(wf_graph *g, wf_tensor *y)
{
	const wf_tensor *x = y->in[0], *id = y->in[1];

	if (wf_choice_among(g, y, 1, wf_last(x)))
		return -1;
	if (x->ndim != 2 || id->dim[0] != x->dim[0])
		return wf_fail(g->err, "gates: expected scores [tokens, experts] and i32 [tokens, k] (%s)", g->scope);
	y->dim[1] = id->dim[1];
	return 0;
}

static double softmax_sum(const float *x, int64_t n, double *most)
{
	double sum = 0;

	*most = -INFINITY;
	for (int64_t i = 0; i < n; i++)
		*most = x[i] > *most ? x[i] : *most;
	for (int64_t i = 0; i < n; i++)
		sum += exp(x[i] - *most);
	return sum;
}

static void one(float *o, const float *x, const int32_t *id, int64_t n, int64_t k, const double *attr)
{
	double most = 0, sum = 1, total = 0;

	if (attr[MODE] == WF_GATE_SOFTMAX)
		sum = softmax_sum(x, n, &most);
	for (int64_t i = 0; i < k; i++) {
		double s = x[id[i]];
		s = attr[MODE] == WF_GATE_SIGMOID ? 1 / (1 + exp(-s)) : exp(s - most) / sum;
		o[i] = (float)s;
		total += s;
	}
	double factor = attr[SCALE] / (attr[NORM] != 0 ? total + (attr[MODE] == WF_GATE_SIGMOID ? 1e-20 : 0) : 1);
	for (int64_t i = 0; i < k; i++)
		o[i] = (float)(o[i] * factor);
}

static void eval(wf_tensor *y)
{
	int64_t n = wf_last(y->in[0]), k = wf_last(y);

	for (int64_t t = 0; t < wf_rows(y); t++)
		one((float *)y->data + t * k, (const float *)y->in[0]->data + t * n,
			(const int32_t *)y->in[1]->data + t * k, n, k, y->attr);
}

static void span(const struct wf_span *s)
{
	one(s->out, s->in[0], (const int32_t *)(const void *)s->in[1], s->length[0], s->n, s->attr);
}

const wf_op wf_op_gates = {
	.name   = "gates",
	.doc    = "y[t,i] = scale * p(x[t])[ids[t,i]], p softmax (mode 0) or sigmoid (1); norm=1: the k of them sum to scale",
	.kind   = WF_ROUTE,
	.nin    = 2,
	.numbers = 1 << 1,
	.attr   = "mode#=0 norm#=1 scale=1",
	.shape  = shape,
	.eval   = eval,
	.span   = span,
	.cost   = wf_map_cost,
	.tol    = 1e-11f,
	.test   = TESTS(
		"(gates [[0 0 1]] i32[[2 0]])", "[[0.731058579 0.268941421]]",
		"(gates [[0 0 0 0]] i32[[2 0]] norm=0)", "[[0.25 0.25]]",
		"(gates [[0 0 0 0]] i32[[2 0]] mode=1 scale=4)", "[[2 2]]"),
};

wf_tensor *wf_gates(wf_graph *g, wf_tensor *logits, wf_tensor *ids, int mode, bool norm, double scale)
{
	return wf_node(g, &wf_op_gates, (wf_tensor *[]){logits, ids}, 2, (double[WF_MAXATTR]){mode, norm, scale});
}
