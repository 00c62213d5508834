/* attend.c - each query over the cached keys of its sequence at its position and before. */
#include "ops/ops.h"
#include <stdlib.h>

enum { SCALE, WINDOW, SOFTCAP, ALIBI, NHEAD, HEAD0 };

static int shape(wf_graph *g, wf_tensor *y)
{
	const wf_tensor *q = y->in[0], *kv = y->in[1], *pos = y->in[2];
	int at = wf_attr_index(kv->op, "window");
	double window = y->attr[WINDOW], kept = at < 0 ? 0 : kv->attr[at];

	if (!kv->op->state || q->ndim != 3)
		return wf_fail(g->err, "attend: expected queries [tokens, heads, n] and a cache (%s)", g->scope);
	if (q->dim[2] != kv->dim[2] || q->dim[1] % kv->dim[1])
		return wf_fail(g->err, "attend: %lld query heads of %lld over %lld key heads of %lld (%s)",
			(long long)q->dim[1], (long long)q->dim[2], (long long)kv->dim[1], (long long)kv->dim[2], g->scope);
	if (pos->dtype != WF_I32 || pos->ndim != 1 || pos->dim[0] != q->dim[0])
		return wf_fail(g->err, "attend: expected one i32 position per token (%s)", g->scope);
	if (y->nin > 3 && (y->in[3]->ndim != 1 || y->in[3]->dim[0] != q->dim[1]))
		return wf_fail(g->err, "attend: %lld sinks for %lld heads (%s)", (long long)y->in[3]->dim[0],
			(long long)q->dim[1], g->scope);
	if (kept > 0 && (window <= 0 || window > kept))
		return wf_fail(g->err, "attend: a window of %g, the cache keeps the last %g (%s)", window, kept, g->scope);
	y->dim[2] = kv->in[1]->dim[2];
	return 0;
}

struct head { const wf_tensor *y; int seq, h, hkv; double scale, slope; float *key; };

static double score(const struct head *a, const float *q, int32_t pos, int64_t j)
{
	const wf_tensor *kv = a->y->in[1];
	int64_t n = wf_last(kv->in[0]);
	double s = 0, cap = a->y->attr[SOFTCAP];

	wf_decode(kv->dtype, a->key, kv_at(a->y->g->kv, kv, a->seq, j, a->hkv, false), n);
	for (int64_t i = 0; i < n; i++)
		s += (double)q[i] * a->key[i];
	s *= a->scale;
	if (cap > 0)
		s = cap * tanh(s / cap);
	return s + a->slope * (double)(j - pos);
}

static void one(const struct head *a, const float *q, int32_t pos, float *value, float *o)
{
	const wf_tensor *y = a->y, *kv = y->in[1];
	int64_t m = wf_last(kv->in[1]), first = 0;
	double most = y->nin > 3 ? ((const float *)y->in[3]->data)[a->h] : -INFINITY, sum = 0, acc[m];

	if (y->attr[WINDOW] > 0 && pos + 1 > y->attr[WINDOW])
		first = pos + 1 - (int64_t)y->attr[WINDOW];
	for (int64_t j = first; j <= pos; j++)
		most = fmax(most, score(a, q, pos, j));
	if (y->nin > 3)
		sum = exp(((const float *)y->in[3]->data)[a->h] - most);
	for (int64_t i = 0; i < m; i++)
		acc[i] = 0;
	for (int64_t j = first; j <= pos; j++) {
		double p = exp(score(a, q, pos, j) - most);
		wf_decode(kv->dtype, value, kv_at(y->g->kv, kv, a->seq, j, a->hkv, true), m);
		sum += p;
		for (int64_t i = 0; i < m; i++)
			acc[i] += p * value[i];
	}
	for (int64_t i = 0; i < m; i++)
		o[i] = (float)(acc[i] / sum);
}

static void eval(wf_tensor *y)
{
	const wf_tensor *q = y->in[0], *kv = y->in[1];
	int64_t nhead = wf_size(q, 1), n = wf_last(q), m = wf_last(y);
	int total = y->attr[NHEAD] > 0 ? (int)y->attr[NHEAD] : (int)nhead;
	const int32_t *pos = y->in[2]->data;
	float key[n], value[m];

	for (int64_t r = 0; r < wf_rows(y); r++) {
		int64_t t = r / nhead, h = r % nhead;
		struct head a = {
			.y = y, .seq = kv_seq_of(y->g->kv->batch, (int)t), .h = (int)h,
			.hkv = (int)(h / (nhead / wf_size(kv, 1))),
			.scale = y->attr[SCALE] > 0 ? y->attr[SCALE] : 1 / sqrt((double)n),
			.slope = y->attr[ALIBI] > 0 ? alibi_slope(y->attr[ALIBI], (int)(h + y->attr[HEAD0]), total) : 0,
			.key = key,
		};
		one(&a, (const float *)q->data + r * n, pos[t], value, (float *)y->data + r * m);
	}
}

/* A sequence's tokens are its last ones: on average each sees half of the step's and all before. */
static struct wf_cost cost(const wf_tensor *y)
{
	const wf_tensor *kv = y->in[1];
	double rows = (double)wf_rows(y), width = (double)(wf_last(y->in[0]) + wf_last(y));
	double seqs = (double)y->g->bound[1], each = (double)y->g->bound[0] / seqs, window = y->attr[WINDOW];
	double ctx = y->g->ctx ? (double)y->g->ctx : each;
	double seen = ctx - (each - 1) / 2, kept = window > 0 && window + each < ctx ? window + each : ctx;
	struct wf_cost c = {.bytes_out = 4 * (double)wf_nelem(y), .bytes_in = 4 * (double)wf_nelem(y->in[0])};

	c.flops = 2 * rows * (window > 0 && window < seen ? window : seen) * width;
	c.bytes_kv = seqs * (double)wf_size(kv, 1) * kept * width * wf_dtypes[kv->dtype].bytes;
	return c;
}

const wf_op wf_op_attend = {
	.name   = "attend",
	.doc    = "y[t,h] = sum_j softmax_j(softcap(scale q[t,h].k[j]) + slope_h (j - pos[t])) v[j], j in the sequence, "
	          "pos[t] - window < j <= pos[t]; sinks[h] joins the softmax's sum",
	.source = "Vaswani et al. 2017, arXiv 1706.03762; ALiBi, arXiv 2108.12409",
	.kind   = WF_ATTEND,
	.nin    = 3,
	.numbers = 1 << 2,
	.nopt   = 1,
	.attr   = "scale=0 window#=0 softcap=0 alibi=0 nhead#=0 head0#=0",
	.shape  = shape,
	.eval   = eval,
	.cost   = cost,
	.tol    = 1e-10f,
	.test   = TESTS(
		"(attend [[[1 0]][[1 0]]] (cache [[[1 0]][[1 0]]] [[[2 4]][[4 8]]] i32[0 1] layer=0) i32[0 1])",
		"[[[2 4]][[3 6]]]",
		"(attend [[[1 0]][[1 0]]] (cache [[[1 0]][[1 0]]] [[[2 4]][[4 8]]] i32[0 1] layer=0) i32[0 1] window=1)",
		"[[[2 4]][[4 8]]]",
		"(attend [[[0 0]]] (cache [[[1 0]]] [[[2 4]]] i32[0] layer=0) i32[0] [0])", "[[[1 2]]]"),
};

wf_tensor *wf_attend(wf_graph *g, wf_tensor *q, wf_tensor *kv, wf_tensor *pos, const struct wf_attention *a)
{
	return wf_node(g, &wf_op_attend, (wf_tensor *[]){q, kv, pos, a->sinks}, a->sinks ? 4 : 3,
		(double[WF_MAXATTR]){a->scale, a->window, a->softcap, a->alibi});
}
