/* lane.c - every of-th block of each row, from the at-th: what a matmul over woven weights is
 * split with, so that a gate and its value are neighbours. */
#include "ops/ops.h"

enum { OF, AT, BLOCK };

static int shape(wf_graph *g, wf_tensor *y)
{
	double of = y->attr[OF], at = y->attr[AT], block = y->attr[BLOCK];
	int64_t width = y->dim[y->ndim - 1];

	if (of < 1 || block < 1 || at < 0 || at >= of || of * block > (double)width ||
	    width % ((int64_t)of * (int64_t)block))
		return wf_fail(g->err, "lane: %g of %g in blocks of %g do not divide rows of %lld (%s)", at, of, block,
			(long long)width, g->scope);
	y->dim[y->ndim - 1] = width / (int64_t)of;
	y->dtype = y->in[0]->dtype;
	return 0;
}

static void eval(wf_tensor *y)
{
	int64_t n = wf_last(y), width = wf_last(y->in[0]);
	int64_t of = (int64_t)y->attr[OF], at = (int64_t)y->attr[AT], block = (int64_t)y->attr[BLOCK];
	const float *x = y->in[0]->data;
	float *o = y->data;

	for (int64_t r = 0; r < wf_rows(y); r++, x += width, o += n)
		for (int64_t i = 0; i < n; i++)
			o[i] = x[(i / block * of + at) * block + i % block];
}

const wf_op wf_op_lane = {
	.name  = "lane",
	.doc   = "y[t,i] = x[t,(i/block*of+at)*block + i%block]",
	.kind  = WF_MOVE,
	.nin   = 1,
	.attr  = "of# at# block#",
	.shape = shape,
	.eval  = eval,
	.cost  = wf_map_cost,
	.tol   = 1e-12f,
	.test  = TESTS("(lane [[1 2 3 4 5 6 7 8]] of=2 at=1 block=2)", "[[3 4 7 8]]"),
};

wf_tensor *wf_lane(wf_graph *g, wf_tensor *x, int of, int at, int block)
{
	return wf_node(g, &wf_op_lane, &x, 1, (double[WF_MAXATTR]){of, at, block});
}
