/* relu.c - the positive part. */
#include "ops/ops.h"

MAP1(relu, x > 0 ? x : 0)

const wf_op wf_op_relu = {
	MAP_FIELDS(relu),
	.doc  = "y[i] = max(x[i], 0)",
	.nin  = 1,
	.tol  = 1e-12f,
	.test = TESTS("(relu [0 1 -1])", "[0 1 0]"),
};

wf_tensor *wf_relu(wf_graph *g, wf_tensor *x)
{
	return wf_node(g, &wf_op_relu, &x, 1, NULL);
}
