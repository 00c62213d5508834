/* cat.c - weights one after the other along the first dimension, so that one product reads them all. */
#include "ops/ops.h"

static int shape(wf_graph *g, wf_tensor *y)
{
	if (layout_shape(g, y))
		return -1;
	for (int k = 1; k < y->nin; k++)
		y->dim[0] += y->in[k]->dim[0];
	for (int k = 0; k < y->nin; k++)
		if (y->in[k]->dim[0] < 0)
			return wf_fail(g->err, "cat: operand %d has a symbolic first dimension (%s)", k, g->scope);
	return 0;
}

static int source(const wf_tensor *y, int64_t r, int64_t *src)
{
	int k = 0;

	while (r >= y->in[k]->dim[0])
		r -= y->in[k++]->dim[0];
	*src = r;
	return k;
}

const wf_op wf_op_cat = {
	.name  = "cat",
	.doc   = "y = the operands' entries along dimension 0, in order",
	.kind  = WF_MOVE,
	.nin   = 1,
	.nopt  = WF_MAXIN - 1,
	.shape = shape,
	.eval  = rows_eval,
	.source_row = source,
	.cost  = wf_map_cost,
	.tol   = 1e-12f,
	.test  = TESTS(
		"(cat [[1 2]] [[3 4][5 6]])", "[[1 2][3 4][5 6]]",
		"(cat [1] [2 3])", "[1 2 3]"),
};

wf_tensor *wf_cat(wf_graph *g, wf_tensor *const *w, int n)
{
	return wf_node(g, &wf_op_cat, w, n, NULL);
}
