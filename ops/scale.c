/* scale.c - product with a number known when the graph is built. */
#include "ops/ops.h"

MAP1_ATTR(scale, const float BY = (float)attr[0], x * BY)

const wf_op wf_op_scale = {
	MAP_FIELDS(scale),
	.doc  = "y[i] = x[i] * by",
	.nin  = 1,
	.attr = "by",
	.tol  = 1e-12f,
	.test = TESTS("(scale [1 -2] by=0.5)", "[0.5 -1]"),
};

wf_tensor *wf_scale(wf_graph *g, wf_tensor *x, double by)
{
	return wf_node(g, &wf_op_scale, &x, 1, (double[WF_MAXATTR]){by});
}
