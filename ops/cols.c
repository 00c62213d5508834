/* cols.c - a range of each row: what a matmul over concatenated weights is split with. */
#include "ops/ops.h"
#include <string.h>

enum { START, N };

static int shape(wf_graph *g, wf_tensor *y)
{
	double start = y->attr[START], n = y->attr[N], width = (double)y->dim[y->ndim - 1];

	if (start < 0 || n < 1 || start + n > width)
		return wf_fail(g->err, "cols: %g values from %g of rows of %g (%s)", n, start, width, g->scope);
	y->dim[y->ndim - 1] = (int64_t)n;
	y->dtype = y->in[0]->dtype;
	return 0;
}

static void eval(wf_tensor *y)
{
	int64_t n = wf_last(y), width = wf_last(y->in[0]);

	for (int64_t r = 0; r < wf_rows(y); r++)
		memcpy((float *)y->data + r * n, (const float *)y->in[0]->data + r * width + (int64_t)y->attr[START],
			sizeof(float) * n);
}

const wf_op wf_op_cols = {
	.name  = "cols",
	.doc   = "y[t,i] = x[t,start+i], n of them",
	.kind  = WF_MOVE,
	.nin   = 1,
	.attr  = "start# n#",
	.shape = shape,
	.eval  = eval,
	.cost  = wf_map_cost,
	.tol   = 1e-12f,
	.test  = TESTS("(cols [[1 2 3][4 5 6]] start=1 n=2)", "[[2 3][5 6]]"),
};

wf_tensor *wf_cols(wf_graph *g, wf_tensor *x, int64_t start, int64_t n)
{
	return wf_node(g, &wf_op_cols, &x, 1, (double[WF_MAXATTR]){(double)start, (double)n});
}
