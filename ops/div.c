/* div.c - elementwise quotient. */
#include "ops/ops.h"

MAP2(div, x / y)

const wf_op wf_op_div = {
	MAP_FIELDS(div),
	.doc  = "y[i] = a[i] / b[i]; b may repeat over leading dimensions",
	.nin  = 2,
	.tol  = 1e-12f,
	.test = TESTS("(div [1 9] [2 3])", "[0.5 3]"),
};

wf_tensor *wf_div(wf_graph *g, wf_tensor *a, wf_tensor *b)
{
	return wf_node(g, &wf_op_div, (wf_tensor *[]){a, b}, 2, NULL);
}
