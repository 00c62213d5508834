/* part.c - a range along the first dimension: one part of a weight that files store fused. */
#include "ops/ops.h"

enum { START, N };

static int shape(wf_graph *g, wf_tensor *y)
{
	double start = y->attr[START], n = y->attr[N];

	if (y->dim[0] < 0 || start < 0 || n < 1 || start + n > (double)y->dim[0])
		return wf_fail(g->err, "part: %g from %g of %lld (%s)", n, start, (long long)y->dim[0], g->scope);
	if (layout_shape(g, y))
		return -1;
	y->dim[0] = (int64_t)n;
	return 0;
}

static int source(const wf_tensor *y, int64_t r, int64_t *src)
{
	*src = (int64_t)y->attr[START] + r;
	return 0;
}

const wf_op wf_op_part = {
	.name  = "part",
	.doc   = "y[r,..] = x[start+r,..], n of them",
	.kind  = WF_MOVE,
	.nin   = 1,
	.attr  = "start# n#",
	.shape = shape,
	.eval  = rows_eval,
	.source_row = source,
	.cost  = wf_map_cost,
	.tol   = 1e-12f,
	.test  = TESTS(
		"(part [[1 2][3 4][5 6]] start=1 n=2)", "[[3 4][5 6]]",
		"(part [1 2 3] start=2 n=1)", "[3]"),
};

wf_tensor *wf_part(wf_graph *g, wf_tensor *w, int64_t start, int64_t n)
{
	return wf_node(g, &wf_op_part, &w, 1, (double[WF_MAXATTR]){(double)start, (double)n});
}
