/* route.c - which experts each token goes to: the k best scores, best first, ties to the lower number.
 * A bias shifts the choice but not the gates; with groups, only experts of the best groups count, a
 * group being as good as its two best (DeepSeek-V3) or its best (V2). */
#include "ops/ops.h"

enum { K, SIGMOID, GROUPS, GROUPK, GROUPBEST };
enum { MAXEXPERT = 4096 };

static int shape(wf_graph *g, wf_tensor *y)
{
	const wf_tensor *x = y->in[0];
	double n = (double)x->dim[x->ndim - 1], k = y->attr[K], groups = y->attr[GROUPS];

	if (x->ndim != 2 || n > MAXEXPERT || k < 1 || k > n)
		return wf_fail(g->err, "route: %g of %g experts, at most %d (%s)", k, n, MAXEXPERT, g->scope);
	if (groups > 0 && (groups > n || (int64_t)n % (int64_t)groups || y->attr[GROUPK] < 1 || y->attr[GROUPK] > groups ||
	    k > n / groups * y->attr[GROUPK]))
		return wf_fail(g->err, "route: %g of %g groups of %g experts (%s)", y->attr[GROUPK], groups, n, g->scope);
	if (y->nin > 1 && (y->in[1]->ndim != 1 || y->in[1]->dim[0] != x->dim[1]))
		return wf_fail(g->err, "route: bias of %lld for %g experts (%s)", (long long)y->in[1]->dim[0], n, g->scope);
	y->dim[1] = (int64_t)k;
	y->dtype = WF_I32;
	return 0;
}

static double group_score(const double *score, int64_t n, bool two)
{
	double best = -INFINITY, next = -INFINITY;

	for (int64_t i = 0; i < n; i++)
		if (score[i] > best) {
			next = best;
			best = score[i];
		} else if (score[i] > next) {
			next = score[i];
		}
	return two && n > 1 ? best + next : best;
}

/* Scores outside the best groups become -inf. */
static void keep_groups(double *score, int64_t n, int64_t groups, int64_t keep, bool two)
{
	double best[MAXEXPERT];
	bool kept[MAXEXPERT] = {false};
	int64_t each = n / groups;

	for (int64_t i = 0; i < groups; i++)
		best[i] = group_score(score + i * each, each, two);
	for (int64_t k = 0; k < keep; k++) {
		int64_t top = -1;
		for (int64_t i = 0; i < groups; i++)
			if (!kept[i] && (top < 0 || best[i] > best[top]))
				top = i;
		kept[top] = true;
	}
	for (int64_t i = 0; i < n; i++)
		if (!kept[i / each])
			score[i] = -INFINITY;
}

static void one(int32_t *id, const float *x, const float *bias, int64_t n, const double *attr)
{
	double score[MAXEXPERT];
	bool taken[MAXEXPERT] = {false};

	for (int64_t i = 0; i < n; i++)
		score[i] = (attr[SIGMOID] != 0 ? (double)(1 / (1 + expf(-x[i]))) : x[i]) + (bias ? bias[i] : 0);
	if (attr[GROUPS] > 1)
		keep_groups(score, n, (int64_t)attr[GROUPS], (int64_t)attr[GROUPK], attr[GROUPBEST] != 1);
	for (int64_t k = 0; k < (int64_t)attr[K]; k++) {
		int64_t top = -1;
		for (int64_t i = 0; i < n; i++)
			if (!taken[i] && (top < 0 || score[i] > score[top]))
				top = i;
		taken[top] = true;
		id[k] = (int32_t)top;
	}
}

static void eval(wf_tensor *y)
{
	int64_t n = wf_last(y->in[0]), k = wf_last(y);

	for (int64_t t = 0; t < wf_rows(y); t++)
		one((int32_t *)y->data + t * k, (const float *)y->in[0]->data + t * n,
			y->nin > 1 ? y->in[1]->data : NULL, n, y->attr);
}

static void span(const struct wf_span *s)
{
	one((int32_t *)(void *)s->out, s->in[0], s->in[1], s->length[0], s->attr);
}

const wf_op wf_op_route = {
	.name   = "route",
	.doc    = "y[t] = the k largest of s(x[t]) + bias, best first; s sigmoid or identity; only in the best groups",
	.source = "DeepSeek-V2 and V3, arXiv 2405.04434, 2412.19437",
	.kind   = WF_ROUTE,
	.nin    = 1,
	.nopt   = 1,
	.attr   = "k# sigmoid#=0 groups#=0 group_k#=0 group_best#=2",
	.shape  = shape,
	.eval   = eval,
	.span   = span,
	.cost   = wf_map_cost,
	.tol    = 1e-12f,
	.test   = TESTS(
		"(route [[1 5 3 5]] k=2)", "i32[[1 3]]",
		"(route [[1 5 3 5]] [0 0 10 0] k=2)", "i32[[2 1]]",
		"(route [[9 0 5 6]] k=2 groups=2 group_k=1)", "i32[[3 2]]",
		"(route [[9 0 5 6]] k=2 groups=2 group_k=1 group_best=1)", "i32[[0 1]]"),
};

wf_tensor *wf_route(wf_graph *g, wf_tensor *logits, wf_tensor *bias, const struct wf_routing *r)
{
	return wf_node(g, &wf_op_route, (wf_tensor *[]){logits, bias}, bias ? 2 : 1,
		(double[WF_MAXATTR]){r->k, r->sigmoid, r->groups, r->group_k, r->group_best ? r->group_best : 2});
}
