/* cache.c - append this step's keys and values to their sequences; the one place where state enters.
 * What it yields is a handle: the sequence's keys and values up to and with this step. */
#include "ops/ops.h"

enum { LAYER, WINDOW };

static int shape(wf_graph *g, wf_tensor *y)
{
	const wf_tensor *k = y->in[0], *v = y->in[1], *pos = y->in[2];
	double layer = y->attr[LAYER], window = y->attr[WINDOW];

	if (k->ndim != 3 || v->ndim != 3 || k->dim[0] != v->dim[0] || k->dim[1] != v->dim[1])
		return wf_fail(g->err, "cache: expected keys [tokens, heads, n] and values [tokens, heads, m] (%s)", g->scope);
	if (pos->dtype != WF_I32 || pos->ndim != 1 || pos->dim[0] != k->dim[0])
		return wf_fail(g->err, "cache: expected one i32 position per token (%s)", g->scope);
	if (layer < 0 || layer > INT32_MAX || window < 0 || window > INT32_MAX)
		return wf_fail(g->err, "cache: layer %g with a window of %g, expected none below 0 or above 2^31 - 1 (%s)",
			layer, window, g->scope);
	y->dtype = g->kvtype;
	return 0;
}

static void eval(wf_tensor *y)
{
	const struct wf_kv *kv = y->g->kv;
	int64_t nhead = wf_size(y, 1), kdim = wf_last(y->in[0]), vdim = wf_last(y->in[1]);
	const int32_t *pos = y->in[2]->data;

	for (int64_t t = 0; t < wf_size(y, 0); t++) {
		int s = kv_seq_of(kv->batch, (int)t);
		for (int h = 0; h < nhead; h++) {
			int64_t r = t * nhead + h;
			wf_encode(y->dtype, kv_at(kv, y, s, pos[t], h, false), (const float *)y->in[0]->data + r * kdim, kdim);
			wf_encode(y->dtype, kv_at(kv, y, s, pos[t], h, true), (const float *)y->in[1]->data + r * vdim, vdim);
		}
	}
}

const wf_op wf_op_cache = {
	.name  = "cache",
	.doc   = "keys and values of layer `layer` at pos[t] of t's sequence become k[t], v[t]; the last `window` are kept (0: all)",
	.kind  = WF_MOVE,
	.nin   = 3,
	.numbers = 1 << 2,
	.attr  = "layer@ window#=0",
	.shape = shape,
	.eval  = eval,
	.state = true,
	.cost  = wf_map_cost,
	.tol   = 1e-12f,
	.test  = TESTS(
		"(attend [[[1 0]]] (cache [[[1 0]]] [[[5 7]]] i32[0] layer=0) i32[0])", "[[[5 7]]]"),
};

wf_tensor *wf_cache(wf_graph *g, wf_tensor *k, wf_tensor *v, wf_tensor *pos, int layer, int window)
{
	return wf_node(g, &wf_op_cache, (wf_tensor *[]){k, v, pos}, 3, (double[WF_MAXATTR]){layer, window});
}
