/* heads.c - a row seen as n heads: the same values under another shape. */
#include "ops/ops.h"
#include <string.h>

enum { N };

static int shape(wf_graph *g, wf_tensor *y)
{
	int64_t width = y->dim[y->ndim - 1];
	double n = y->attr[N];

	if (y->ndim + 1 > WF_MAXDIM || n < 1 || n > (double)width || width % (int64_t)n)
		return wf_fail(g->err, "heads: %g heads do not divide rows of %lld (%s)", n, (long long)width, g->scope);
	y->dim[y->ndim - 1] = (int64_t)n;
	y->dim[y->ndim] = width / (int64_t)n;
	y->ndim++;
	y->dtype = y->in[0]->dtype;
	return 0;
}

static void eval(wf_tensor *y)
{
	memcpy(y->data, y->in[0]->data, sizeof(float) * wf_nelem(y));
}

const wf_op wf_op_heads = {
	.name  = "heads",
	.doc   = "y[t,h,i] = x[t,h*d+i] with d = row / n",
	.kind  = WF_MOVE,
	.nin   = 1,
	.attr  = "n#",
	.shape = shape,
	.eval  = eval,
	.view  = true,
	.cost  = no_cost,
	.tol   = 1e-12f,
	.test  = TESTS("(heads [[1 2 3 4]] n=2)", "[[[1 2][3 4]]]"),
};

wf_tensor *wf_heads(wf_graph *g, wf_tensor *x, int64_t n)
{
	return wf_node(g, &wf_op_heads, &x, 1, (double[WF_MAXATTR]){(double)n});
}
