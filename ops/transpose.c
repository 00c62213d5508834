/* transpose.c - the last two dimensions of a weight exchanged: files that store [in, out]. */
#include "ops/ops.h"

static int shape(wf_graph *g, wf_tensor *y)
{
	const wf_tensor *x = y->in[0];

	if (x->ndim < 2 || !x->constant)
		return wf_fail(g->err, "transpose: expected a weight of 2 or more dimensions (%s)", g->scope);
	y->dim[x->ndim - 2] = x->dim[x->ndim - 1];
	y->dim[x->ndim - 1] = x->dim[x->ndim - 2];
	y->dtype = x->dtype <= WF_BF16 ? x->dtype : WF_F32;
	return 0;
}

static void eval(wf_tensor *y)
{
	int64_t n = wf_last(y), m = wf_size(y, y->ndim - 2), each = n * m;

	for (int64_t b = 0; b < wf_nelem(y) / each; b++) {
		const float *x = (const float *)y->in[0]->data + b * each;
		float *o = (float *)y->data + b * each;
		for (int64_t i = 0; i < m; i++)
			for (int64_t j = 0; j < n; j++)
				o[i * n + j] = x[j * m + i];
	}
}

const wf_op wf_op_transpose = {
	.name  = "transpose",
	.doc   = "y[..,i,j] = x[..,j,i]",
	.kind  = WF_MOVE,
	.nin   = 1,
	.shape = shape,
	.eval  = eval,
	.cost  = wf_map_cost,
	.tol   = 1e-12f,
	.test  = TESTS(
		"(transpose [[1 2 3][4 5 6]])", "[[1 4][2 5][3 6]]",
		"(transpose [[[1 2]][[3 4]]])", "[[[1][2]][[3][4]]]"),
};

wf_tensor *wf_transpose(wf_graph *g, wf_tensor *w)
{
	return wf_node(g, &wf_op_transpose, &w, 1, NULL);
}
