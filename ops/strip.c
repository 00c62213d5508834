/* strip.c - the same part of every group of rows: one of several weights that a file interleaves,
 * per head (Bloom's and GPT-NeoX's q, k, v) or row by row (GPT-OSS's gate and up). */
#include "ops/ops.h"

enum { GROUP, START, N };

static int shape(wf_graph *g, wf_tensor *y)
{
	double group = y->attr[GROUP], start = y->attr[START], n = y->attr[N];

	if (layout_shape(g, y))
		return -1;
	if (y->dim[0] < 0 || group < 1 || group > (double)y->dim[0] || y->dim[0] % (int64_t)group ||
	    start < 0 || n < 1 || start + n > group)
		return wf_fail(g->err, "strip: %g rows from %g of groups of %g in %lld rows (%s)", n, start, group,
			(long long)y->dim[0], g->scope);
	y->dim[0] = y->dim[0] / (int64_t)group * (int64_t)n;
	return 0;
}

static int source(const wf_tensor *y, int64_t r, int64_t *src)
{
	int64_t n = (int64_t)y->attr[N];

	*src = r / n * (int64_t)y->attr[GROUP] + (int64_t)y->attr[START] + r % n;
	return 0;
}

const wf_op wf_op_strip = {
	.name  = "strip",
	.doc   = "y[r,..] = x[r/n*group + start + r%n,..]",
	.kind  = WF_MOVE,
	.nin   = 1,
	.attr  = "group# start# n#",
	.shape = shape,
	.eval  = rows_eval,
	.source_row = source,
	.cost  = wf_map_cost,
	.tol   = 1e-12f,
	.test  = TESTS("(strip [[1][2][3][4][5][6]] group=3 start=1 n=2)", "[[2][3][5][6]]"),
};

wf_tensor *wf_strip(wf_graph *g, wf_tensor *w, int64_t group, int64_t start, int64_t n)
{
	return wf_node(g, &wf_op_strip, &w, 1, (double[WF_MAXATTR]){(double)group, (double)start, (double)n});
}
