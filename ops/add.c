/* add.c - elementwise sum; a bias is a vector that repeats over the rows. */
#include "ops/ops.h"

MAP2(add, x + y)

const wf_op wf_op_add = {
	MAP_FIELDS(add),
	.doc  = "y[i] = a[i] + b[i]; b may repeat over leading dimensions",
	.nin  = 2,
	.tol  = 1e-12f,
	.test = TESTS(
		"(add [1 2] [10 20])", "[11 22]",
		"(add [[1 2][3 4]] [10 20])", "[[11 22][13 24]]"),
};

wf_tensor *wf_add(wf_graph *g, wf_tensor *a, wf_tensor *b)
{
	return wf_node(g, &wf_op_add, (wf_tensor *[]){a, b}, 2, NULL);
}
