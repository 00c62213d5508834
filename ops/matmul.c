/* matmul.c - rows of x times the transpose of a weight: a linear layer without bias.
 *
 * What a norm reads may be of any size, as the residual (add.c), and what is added to the residual too: such a product
 * has the type of sums.  (GLM-4's feed-forward layers, behind which there is a norm, are known to leave f16.) */
#include "ops/ops.h"

enum { WIDE };

static int shape(wf_graph *g, wf_tensor *y)
{
	const wf_tensor *w = y->in[0], *x = y->in[1];

	if (w->ndim != 2 || w->dim[0] < 0 || w->dim[1] < 0)
		return wf_fail(g->err, "matmul: weight of %d dims, expected [out, in] (%s)", w->ndim, g->scope);
	if (x->dim[x->ndim - 1] != w->dim[1])
		return wf_fail(g->err, "matmul: rows of %lld, weight [%lld,%lld] (%s)", (long long)x->dim[x->ndim - 1],
			(long long)w->dim[0], (long long)w->dim[1], w->name ? w->name : g->scope);
	y->ndim = x->ndim;
	for (int i = 0; i + 1 < x->ndim; i++)
		y->dim[i] = x->dim[i];
	y->dim[x->ndim - 1] = w->dim[0];
	if (y->attr[WIDE] != 0 && !y->constant)
		y->dtype = g->sum;
	return 0;
}

static void eval(wf_tensor *y)
{
	const float *w = y->in[0]->data;
	int64_t M = wf_last(y), K = wf_last(y->in[1]);

	for (int64_t r = 0; r < wf_rows(y); r++) {
		const float *x = (const float *)y->in[1]->data + r * K;
		for (int64_t m = 0; m < M; m++) {
			double sum = 0;
			for (int64_t k = 0; k < K; k++)
				sum += (double)w[m * K + k] * x[k];
			((float *)y->data)[r * M + m] = (float)sum;
		}
	}
}

static struct wf_cost cost(const wf_tensor *y)
{
	struct wf_cost c = wf_map_cost(y);

	c.flops = 2.0 * (double)wf_nelem(y) * (double)wf_last(y->in[1]);
	return c;
}

const wf_op wf_op_matmul = {
	.name  = "matmul",
	.doc   = "y[t,m] = sum_k w[m,k] * x[t,k]",
	.kind  = WF_DOT,
	.nin   = 2,
	.attr  = "wide#=0",
	.shape = shape,
	.eval  = eval,
	.cost  = cost,
	.tol   = 1e-11f,
	.test  = TESTS(
		"(matmul [[1 2][3 4][5 6]] [[1 1]])", "[[3 7 11]]",
		"(matmul [[1 2]] [[1 0][0 1]])", "[[1][2]]"),
};

wf_tensor *wf_matmul(wf_graph *g, wf_tensor *w, wf_tensor *x)
{
	return wf_node(g, &wf_op_matmul, (wf_tensor *[]){w, x}, 2, NULL);
}

wf_tensor *wf_wide(wf_graph *g, wf_tensor *x)
{
	return x->op == &wf_op_matmul && g->sum != g->act ? wf_node(g, x->op, x->in, x->nin, (double[WF_MAXATTR]){1}) : x;
}
