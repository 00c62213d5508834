/* merge.c - heads seen as one row again: the inverse of heads. */
#include "ops/ops.h"
#include <string.h>

static int shape(wf_graph *g, wf_tensor *y)
{
	if (y->ndim < 2 || y->dim[y->ndim - 2] < 0)
		return wf_fail(g->err, "merge: %d dims, expected [.., heads, n] (%s)", y->ndim, g->scope);
	y->dim[y->ndim - 2] *= y->dim[y->ndim - 1];
	y->dim[--y->ndim] = 0;
	y->dtype = y->in[0]->dtype;
	return 0;
}

static void eval(wf_tensor *y)
{
	memcpy(y->data, y->in[0]->data, sizeof(float) * wf_nelem(y));
}

const wf_op wf_op_merge = {
	.name  = "merge",
	.doc   = "y[t,h*d+i] = x[t,h,i]",
	.kind  = WF_MOVE,
	.nin   = 1,
	.shape = shape,
	.eval  = eval,
	.view  = true,
	.cost  = no_cost,
	.tol   = 1e-12f,
	.test  = TESTS("(merge [[[1 2][3 4]]])", "[[1 2 3 4]]"),
};

wf_tensor *wf_merge(wf_graph *g, wf_tensor *x)
{
	return wf_node(g, &wf_op_merge, &x, 1, NULL);
}
