/* ops.c - the table of ops, and the shape rules and costs several of them share. */
#include "ops/ops.h"
#include <string.h>

const wf_op *const wf_ops[] = {
#define OP(name, sig) &wf_op_##name,
	OPS(OP)
#undef OP
	NULL
};

/* b's dims are a's, or a's last ones: b repeats over the leading dims. */
static bool trails(const wf_tensor *a, const wf_tensor *b)
{
	return b->ndim <= a->ndim &&
		!memcmp(a->dim + a->ndim - b->ndim, b->dim, sizeof *b->dim * b->ndim);
}

int same_shape(wf_graph *g, wf_tensor *y)
{
	for (int k = 1; k < y->nin; k++)
		if (!trails(y->in[0], y->in[k]))
			return wf_fail(g->err, "%s: operand %d of %d dims ending in %lld does not repeat over "
				"%d dims ending in %lld (%s)", y->op->name, k, y->in[k]->ndim,
				(long long)y->in[k]->dim[y->in[k]->ndim - 1], y->ndim, (long long)y->dim[y->ndim - 1], g->scope);
	return 0;
}

int row_weight_shape(wf_graph *g, wf_tensor *y)
{
	if (y->dim[y->ndim - 1] < 0)
		return wf_fail(g->err, "%s: rows of symbolic length (%s)", y->op->name, g->scope);
	for (int k = 1; k < y->nin; k++)
		if (y->in[k]->ndim != 1 || y->in[k]->dim[0] != y->dim[y->ndim - 1])
			return wf_fail(g->err, "%s: row of %lld, weight of %lld (%s)", y->op->name,
				(long long)y->dim[y->ndim - 1], (long long)y->in[k]->dim[0],
				y->in[k]->name ? y->in[k]->name : g->scope);
	return 0;
}

static double bytes_of(const wf_tensor *t)
{
	return (double)wf_nelem(t) / wf_dtypes[t->dtype].block * wf_dtypes[t->dtype].bytes;
}

struct wf_cost map_cost(const wf_tensor *y)
{
	struct wf_cost cost = {.flops = (double)wf_nelem(y), .bytes_out = bytes_of(y)};

	for (int k = 0; k < y->nin; k++)
		*(y->in[k]->constant ? &cost.bytes_weight : &cost.bytes_in) += bytes_of(y->in[k]);
	return cost;
}

struct wf_cost no_cost(const wf_tensor *y)
{
	(void)y;
	return (struct wf_cost){0};
}

const float *map_operand(const wf_tensor *y, int k, int64_t *period)
{
	*period = wf_nelem(y->in[k]);
	return y->in[k]->data;
}

/* Weights keep their type under a change of layout. */
int layout_shape(wf_graph *g, wf_tensor *y)
{
	const wf_tensor *a = y->in[0];

	y->dtype = a->dtype;
	for (int k = 1; k < y->nin; k++) {
		const wf_tensor *b = y->in[k];
		if (b->dtype != a->dtype || b->ndim != a->ndim ||
		    memcmp(a->dim + 1, b->dim + 1, sizeof *a->dim * (a->ndim - 1)))
			return wf_fail(g->err, "%s: operands differ in type or in what follows dimension 0 (%s)",
				y->op->name, b->name ? b->name : g->scope);
	}
	return 0;
}

void rows_eval(wf_tensor *y)
{
	int64_t n = wf_nelem(y) / wf_size(y, 0), src;
	float *o = y->data;

	for (int64_t r = 0; r < wf_size(y, 0); r++) {
		int k = y->op->source_row(y, r, &src);
		memcpy(o + r * n, (const float *)y->in[k]->data + src * n, sizeof *o * n);
	}
}
