/* repack.c - a weight in the order a backend's kernel reads it; the values are the same.
 * The layout's number is the backend's own (wf_backend.layout). */
#include "ops/ops.h"

static int source(const wf_tensor *y, int64_t r, int64_t *src)
{
	(void)y;
	*src = r;
	return 0;
}

const wf_op wf_op_repack = {
	.name  = "repack",
	.doc   = "y = x, stored in the backend's layout of that number",
	.kind  = WF_MOVE,
	.nin   = 1,
	.attr  = "layout#",
	.shape = layout_shape,
	.eval  = rows_eval,
	.source_row = source,
	.cost  = wf_map_cost,
	.tol   = 1e-12f,
	.test  = TESTS("(repack [[1 2][3 4]] layout=1)", "[[1 2][3 4]]"),
};

wf_tensor *wf_repack(wf_graph *g, wf_tensor *w, int layout)
{
	return wf_node(g, &wf_op_repack, &w, 1, (double[WF_MAXATTR]){layout});
}
