/* join.c - two parts of every head side by side; a second part of one head serves all of them.
 * Latent attention joins a key's own part with the rotated part its heads share. */
#include "ops/ops.h"
#include <string.h>

static int shape(wf_graph *g, wf_tensor *y)
{
	const wf_tensor *a = y->in[0], *b = y->in[1];

	if (a->ndim != 3 || b->ndim != 3 || a->dim[0] != b->dim[0] || (b->dim[1] != a->dim[1] && b->dim[1] != 1))
		return wf_fail(g->err, "join: expected [tokens, heads, n] and [tokens, heads or 1, m] (%s)", g->scope);
	y->dim[2] = a->dim[2] + b->dim[2];
	return 0;
}

static void row(float *o, const float *a, const float *b, int64_t nhead, int64_t nb, int64_t n, int64_t m)
{
	for (int64_t h = 0; h < nhead; h++) {
		memcpy(o + h * (n + m), a + h * n, sizeof *o * n);
		memcpy(o + h * (n + m) + n, b + (nb == 1 ? 0 : h) * m, sizeof *o * m);
	}
}

static void eval(wf_tensor *y)
{
	int64_t n = wf_last(y->in[0]), m = wf_last(y->in[1]), nhead = wf_size(y, 1), nb = wf_size(y->in[1], 1);

	for (int64_t t = 0; t < wf_size(y, 0); t++)
		row((float *)y->data + t * nhead * (n + m), (const float *)y->in[0]->data + t * nhead * n,
			(const float *)y->in[1]->data + t * nb * m, nhead, nb, n, m);
}

const wf_op wf_op_join = {
	.name  = "join",
	.doc   = "y[t,h] = a[t,h] then b[t,h], or b[t,0] when b has one head",
	.kind  = WF_MOVE,
	.nin   = 2,
	.shape = shape,
	.eval  = eval,
	.cost  = wf_map_cost,
	.tol   = 1e-12f,
	.test  = TESTS("(join [[[1 2][3 4]]] [[[9]]])", "[[[1 2 9][3 4 9]]]"),
};

wf_tensor *wf_join(wf_graph *g, wf_tensor *a, wf_tensor *b)
{
	return wf_node(g, &wf_op_join, (wf_tensor *[]){a, b}, 2, NULL);
}
