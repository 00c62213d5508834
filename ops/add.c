/* add.c - elementwise sum; a bias is a vector that repeats over the rows.
 *
 * The sum of two computed values has a type of its own (wf_graph.sum): it is the residual, which gathers the rounding of
 * every layer and outgrows f16 in some models (Gemma 3 270M: 104,061).  Products read it through a norm and stay 16 bits
 * wide. */
#include "ops/ops.h"

MAP2(add, x + y)

static int shape(wf_graph *g, wf_tensor *y)
{
	if (wf_same_shape(g, y))
		return -1;
	if (!y->in[0]->constant && !y->in[1]->constant)
		y->dtype = g->sum;
	return 0;
}

const wf_op wf_op_add = {
	.name  = "add",
	.doc   = "y[i] = a[i] + b[i]; b may repeat over leading dimensions",
	.kind  = WF_MAP,
	.nin   = 2,
	.shape = shape,
	.eval  = add_eval,
	.span  = add_span,
	.cuda  = add_cuda,
	.cost  = wf_map_cost,
	.tol   = 1e-12f,
	.test  = TESTS(
		"(add [1 2] [10 20])", "[11 22]",
		"(add [[1 2][3 4]] [10 20])", "[[11 22][13 24]]"),
};

wf_tensor *wf_add(wf_graph *g, wf_tensor *a, wf_tensor *b)
{
	bool sum = !a->constant && !b->constant;

	return wf_node(g, &wf_op_add, (wf_tensor *[]){sum ? wf_wide(g, a) : a, sum ? wf_wide(g, b) : b}, 2, NULL);
}
