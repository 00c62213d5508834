/* offset.c - sum with a number known when the graph is built: norms stored as their distance from one. */
#include "ops/ops.h"

MAP1_ATTR(offset, const float BY = (float)attr[0], x + BY)

const wf_op wf_op_offset = {
	MAP_FIELDS(offset),
	.doc  = "y[i] = x[i] + by",
	.nin  = 1,
	.attr = "by",
	.tol  = 1e-12f,
	.test = TESTS("(offset [1 -2] by=0.5)", "[1.5 -1.5]"),
};

wf_tensor *wf_offset(wf_graph *g, wf_tensor *x, double by)
{
	return wf_node(g, &wf_op_offset, &x, 1, (double[WF_MAXATTR]){by});
}
