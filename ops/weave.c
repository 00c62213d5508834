/* weave.c - two weights' rows in alternating blocks: a gate beside what it gates. */
#include "ops/ops.h"

enum { BLOCK };

static int shape(wf_graph *g, wf_tensor *y)
{
	double block = y->attr[BLOCK];

	if (layout_shape(g, y))
		return -1;
	if (y->in[0]->dim[0] != y->in[1]->dim[0] || y->dim[0] < 0 || block < 1 || block > (double)y->dim[0] ||
	    y->dim[0] % (int64_t)block)
		return wf_fail(g->err, "weave: %lld and %lld rows in blocks of %g (%s)", (long long)y->in[0]->dim[0],
			(long long)y->in[1]->dim[0], block, g->scope);
	y->dim[0] *= 2;
	return 0;
}

static int source(const wf_tensor *y, int64_t r, int64_t *src)
{
	int64_t block = (int64_t)y->attr[BLOCK];

	*src = r / (2 * block) * block + r % block;
	return r / block % 2;
}

const wf_op wf_op_weave = {
	.name  = "weave",
	.doc   = "y = block rows of a, block rows of b, and so on",
	.kind  = WF_MOVE,
	.nin   = 2,
	.attr  = "block#",
	.shape = shape,
	.eval  = rows_eval,
	.source_row = source,
	.cost  = wf_map_cost,
	.tol   = 1e-12f,
	.test  = TESTS("(weave [[1][2][3][4]] [[5][6][7][8]] block=2)", "[[1][2][5][6][3][4][7][8]]"),
};

wf_tensor *wf_weave(wf_graph *g, wf_tensor *a, wf_tensor *b, int block)
{
	return wf_node(g, &wf_op_weave, (wf_tensor *[]){a, b}, 2, (double[WF_MAXATTR]){block});
}
