/* mix.c - the experts' results of each token, weighted by its gates and summed. */
#include "ops/ops.h"

static int shape(wf_graph *g, wf_tensor *y)
{
	const wf_tensor *x = y->in[0], *gates = y->in[1];

	if (x->ndim != 3 || gates->ndim != 2 || gates->dim[0] != x->dim[0] || gates->dim[1] != x->dim[1])
		return wf_fail(g->err, "mix: expected [tokens, k, n] and gates [tokens, k] (%s)", g->scope);
	y->ndim = 2;
	y->dim[1] = x->dim[2];
	y->dim[2] = 0;
	return 0;
}

static void eval(wf_tensor *y)
{
	int64_t n = wf_last(y), k = wf_size(y->in[0], 1);

	for (int64_t t = 0; t < wf_rows(y); t++)
		for (int64_t i = 0; i < n; i++) {
			double sum = 0;
			for (int64_t j = 0; j < k; j++)
				sum += (double)((const float *)y->in[1]->data)[t * k + j] *
					((const float *)y->in[0]->data)[(t * k + j) * n + i];
			((float *)y->data)[t * n + i] = (float)sum;
		}
}

WF_CLONES static void span(const struct wf_span *s)
{
	int64_t k = s->length[1];

	for (int64_t i = 0; i < s->n; i++)
		s->out[i] = s->in[1][0] * s->in[0][i];
	for (int64_t j = 1; j < k; j++)
		for (int64_t i = 0; i < s->n; i++)
			s->out[i] += s->in[1][j] * s->in[0][j * s->n + i];
}

const wf_op wf_op_mix = {
	.name  = "mix",
	.doc   = "y[t,i] = sum_j gates[t,j] * x[t,j,i]",
	.kind  = WF_ROUTE,
	.nin   = 2,
	.shape = shape,
	.eval  = eval,
	.span  = span,
	.cost  = wf_map_cost,
	.tol   = 1e-11f,
	.test  = TESTS("(mix [[[1 2][3 4]]] [[0.5 2]])", "[[6.5 9]]"),
};

wf_tensor *wf_mix(wf_graph *g, wf_tensor *x, wf_tensor *gates)
{
	return wf_node(g, &wf_op_mix, (wf_tensor *[]){x, gates}, 2, NULL);
}
