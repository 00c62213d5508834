/* flatten.c - the first two dimensions of a weight as one: a stack of matrices as one of all rows. */
#include "ops/ops.h"
#include <string.h>

static int shape(wf_graph *g, wf_tensor *y)
{
	const wf_tensor *x = y->in[0];

	if (x->ndim < 2 || x->dim[0] < 0 || x->dim[1] < 0)
		return wf_fail(g->err, "flatten: expected a weight of 2 or more dimensions (%s)", g->scope);
	y->dtype = x->dtype;
	y->dim[0] = x->dim[0] * x->dim[1];
	for (int i = 1; i + 1 < x->ndim; i++)
		y->dim[i] = x->dim[i + 1];
	y->dim[--y->ndim] = 0;
	return 0;
}

static void eval(wf_tensor *y)
{
	memcpy(y->data, y->in[0]->data, sizeof(float) * wf_nelem(y));
}

const wf_op wf_op_flatten = {
	.name  = "flatten",
	.doc   = "y[a*n+b,..] = x[a,b,..], n entries in the second dimension",
	.kind  = WF_MOVE,
	.nin   = 1,
	.shape = shape,
	.eval  = eval,
	.view  = true,
	.cost  = no_cost,
	.tol   = 1e-12f,
	.test  = TESTS("(flatten [[[1 2][3 4]][[5 6][7 8]]])", "[[1 2][3 4][5 6][7 8]]"),
};

wf_tensor *wf_flatten(wf_graph *g, wf_tensor *w)
{
	return wf_node(g, &wf_op_flatten, &w, 1, NULL);
}
