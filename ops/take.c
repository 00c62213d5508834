/* take.c - rows of a table by number: the embedding lookup, and the rows whose logits are wanted. */
#include "ops/ops.h"
#include <string.h>

static int shape(wf_graph *g, wf_tensor *y)
{
	const wf_tensor *table = y->in[0], *ids = y->in[1];

	if (table->ndim != 2 || ids->ndim > 2 || ids->dtype != WF_I32)
		return wf_fail(g->err, "take: table of %d dims and ids of %d, expected [rows, n] and i32 [k] or [k, m] (%s)",
			table->ndim, ids->ndim, g->scope);
	if (table->constant)                           /* an embedding begins the residual: see add.c */
		y->dtype = g->sum;
	y->ndim = ids->ndim + 1;
	y->dim[ids->ndim] = table->dim[1];
	for (int i = 0; i < ids->ndim; i++)
		y->dim[i] = ids->dim[i];
	return 0;
}

/* Ids are checked against the table when a batch is bound; a stray one reads as zeros. */
static void eval(wf_tensor *y)
{
	const int32_t *id = y->in[1]->data;
	int64_t n = wf_last(y), have = wf_size(y->in[0], 0);
	float *o = y->data;

	for (int64_t r = 0; r < wf_rows(y); r++)
		if (id[r] >= 0 && id[r] < have)
			memcpy(o + r * n, (const float *)y->in[0]->data + id[r] * n, sizeof *o * n);
		else
			memset(o + r * n, 0, sizeof *o * n);
}

static struct wf_cost cost(const wf_tensor *y)
{
	double bytes = (double)wf_nelem(y) * wf_dtypes[y->dtype].bytes;

	return (struct wf_cost){.bytes_in = bytes, .bytes_out = bytes};
}

const wf_op wf_op_take = {
	.name  = "take",
	.doc   = "y[..,i] = table[ids[..],i]",
	.kind  = WF_MOVE,
	.nin   = 2,
	.shape = shape,
	.eval  = eval,
	.cost  = cost,
	.tol   = 1e-12f,
	.test  = TESTS("(take [[1 2][3 4][5 6]] i32[2 0])", "[[5 6][1 2]]",
		"(take [[1 2][3 4]] i32[[1 0]])", "[[[3 4][1 2]]]"),
};

wf_tensor *wf_take(wf_graph *g, wf_tensor *table, wf_tensor *ids)
{
	return wf_node(g, &wf_op_take, (wf_tensor *[]){table, ids}, 2, NULL);
}
