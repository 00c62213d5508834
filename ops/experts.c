/* experts.c - each token times the weights of the experts it was routed to. */
#include "ops/ops.h"

enum { N };

static int shape(wf_graph *g, wf_tensor *y)
{
	const wf_tensor *w = y->in[0], *x = y->in[1], *id = y->in[2];
	int64_t n = (int64_t)y->attr[N];
	int64_t rows = w->ndim == 3 ? w->dim[0] * w->dim[1] : w->dim[0];

	for (int i = 0; i < w->ndim; i++)
		if (w->dim[i] < 0)
			return wf_fail(g->err, "experts: weights of as many rows as a step has, expected a constant number (%s)", g->scope);
	if (w->ndim < 2 || n < 1 || rows % n || (w->ndim == 3 && w->dim[0] != n))
		return wf_fail(g->err, "experts: %lld rows of weights for %lld experts (%s)", (long long)rows, (long long)n, g->scope);
	if (wf_choice_among(g, y, 2, n))
		return -1;
	if (x->dim[0] != id->dim[0] || (x->ndim == 3 && x->dim[1] != id->dim[1]) ||
	    x->dim[x->ndim - 1] != w->dim[w->ndim - 1])
		return wf_fail(g->err, "experts: rows of %lld over weights of %lld, or other tokens than were routed (%s)",
			(long long)x->dim[x->ndim - 1], (long long)w->dim[w->ndim - 1], g->scope);
	y->ndim = 3;
	y->dim[0] = id->dim[0];
	y->dim[1] = id->dim[1];
	y->dim[2] = rows / n;
	y->dtype = g->act;
	return 0;
}

static void eval(wf_tensor *y)
{
	int64_t M = wf_last(y), K = wf_last(y->in[1]), k = wf_size(y, 1), each = y->in[1]->ndim == 3 ? k : 1;

	for (int64_t r = 0; r < wf_rows(y); r++) {
		const float *w = (const float *)y->in[0]->data + ((const int32_t *)y->in[2]->data)[r] * M * K;
		const float *x = (const float *)y->in[1]->data + (each == 1 ? r / k : r) * K;
		for (int64_t m = 0; m < M; m++) {
			double sum = 0;
			for (int64_t i = 0; i < K; i++)
				sum += (double)w[m * K + i] * x[i];
			((float *)y->data)[r * M + m] = (float)sum;
		}
	}
}

/* A token reads its own experts' weights; many tokens share them.  Of even choices, an expert is left out
 * by all tokens with (1 - k/n)^T. */
static struct wf_cost cost(const wf_tensor *y)
{
	double all = (double)wf_nelem(y->in[0]) / wf_dtypes[y->in[0]->dtype].block * wf_dtypes[y->in[0]->dtype].bytes;
	double k = (double)y->dim[1], n = y->attr[N], part = k < n ? 1 - pow(1 - k / n, (double)wf_rows(y) / k) : 1;

	return (struct wf_cost){.flops = 2.0 * (double)wf_nelem(y) * (double)wf_last(y->in[1]),
		.bytes_weight = all * part, .bytes_in = 4 * (double)wf_nelem(y->in[1]),
		.bytes_out = 4 * (double)wf_nelem(y)};
}

const wf_op wf_op_experts = {
	.name   = "experts",
	.doc    = "y[t,i,m] = sum_k w[ids[t,i]*M + m, k] * x[t,k] (or x[t,i,k]), n experts of M rows",
	.source = "Shazeer et al. 2017, arXiv 1701.06538",
	.kind   = WF_DOT,
	.nin    = 3,
	.numbers = 1 << 2,
	.attr   = "n#",
	.shape  = shape,
	.eval   = eval,
	.cost   = cost,
	.tol    = 1e-11f,
	.test   = TESTS(
		"(experts [[1 0][0 1][2 0][0 2]] [[3 4]] i32[[1 0]] n=2)", "[[[6 8][3 4]]]",
		"(experts [[1 0][2 0]] [[[3 4][5 6]]] i32[[1 0]] n=2)", "[[[6][5]]]"),
};

wf_tensor *wf_experts(wf_graph *g, wf_tensor *w, wf_tensor *x, wf_tensor *ids, int64_t n)
{
	return wf_node(g, &wf_op_experts, (wf_tensor *[]){w, x, ids}, 3, (double[WF_MAXATTR]){(double)n});
}
