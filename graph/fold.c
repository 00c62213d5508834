/* fold.c - weight layouts as nodes over weights, computed once at load.
 *
 * Products that read the same rows become one product over concatenated weights (Q, K and V); a
 * pair whose values meet in one elementwise product is woven instead, so that gate and value leave
 * the kernel side by side (gate and up).  Before that, weights become of the type they are multiplied
 * in; after it each product's weight is wrapped in the layout the backend's kernel reads.  This is the
 * one pass that names ops: the layout vocabulary below.
 *
 * needs: rewrite.  keeps: outputs.  breaks: ids. */
#include "graph/graph.h"
#include <string.h>

struct folder {
	wf_plan *plan;
	wf_graph *g;
	const wf_op *cat, *cols, *weave, *lane, *repack, *half;
	wf_tensor **now;          /* node id -> what stands for it */
	int n;                    /* nodes when the pass began */
};

/* A product over one weight matrix that can share a kernel with others of the same rows. */
static bool is_linear(const wf_tensor *t)
{
	return t->op->kind == WF_DOT && t->nin == 2 && t->in[0]->constant && !t->in[1]->constant && t->in[0]->ndim == 2;
}

static bool are_siblings(const wf_tensor *a, const wf_tensor *b)
{
	return a->op == b->op && a->in[1] == b->in[1];
}

static const char *apart(const wf_tensor *a, const wf_tensor *b)
{
	if (a->in[0]->dtype != b->in[0]->dtype)
		return "the weights are of different types";
	if (a->in[0]->dim[1] != b->in[0]->dim[1])
		return "the weights have rows of different lengths";
	return NULL;
}

static void note(struct folder *f, const char *rule, wf_tensor *from, wf_tensor *to, const char *blocker)
{
	plan_note(f->plan, (struct wf_note){.pass = "fold", .rule = rule, .text = blocker, .from = from, .to = to,
		.bytes = blocker ? 0 : wf_nelem(from->in[1]) * wf_dtypes[from->in[1]->dtype].bytes, .kernel = -1});
}

/* ---- a pair that meets: mul(act(a), b) ---- */

static wf_tensor *only_reader(const struct folder *f, const wf_tensor *t)
{
	wf_tensor *reader = NULL;

	for (int i = t->id + 1; i < f->n; i++)
		for (int k = 0; k < f->g->node[i]->nin; k++)
			if (f->g->node[i]->in[k] == t) {
				if (reader && reader != f->g->node[i])
					return NULL;
				reader = f->g->node[i];
			}
	return reader;
}

/* The end of the chain of one-operand maps that starts at t. */
static wf_tensor *end_of_maps(const struct folder *f, wf_tensor *t)
{
	for (;;) {
		wf_tensor *reader = only_reader(f, t);
		if (!reader || reader->op->kind != WF_MAP || reader->nin != 1)
			return reader;
		t = reader;
	}
}

static bool meet(const struct folder *f, wf_tensor *a, wf_tensor *b)
{
	wf_tensor *end = end_of_maps(f, a);

	return end && end->op->kind == WF_MAP && end->nin == 2 && end == end_of_maps(f, b);
}

/* ---- merging ---- */

static wf_tensor *node(struct folder *f, const wf_tensor *like, const wf_op *op, wf_tensor *const *in, int nin, const double *attr)
{
	const char *scope = f->g->scope;

	f->g->scope = like->scope;
	wf_tensor *t = wf_node(f->g, op, in, nin, attr);
	f->g->scope = scope;
	return t;
}

/* The largest block the backend takes that divides the rows; 0 when none of at least 8 does. */
static int weave_block(const struct folder *f, int64_t rows)
{
	int block = f->plan->backend ? f->plan->backend->weave : 0;

	while (block && rows % block)
		block /= 2;
	return block < 8 ? 0 : block;
}

static void weave_pair(struct folder *f, wf_tensor *a, wf_tensor *b)
{
	double block = weave_block(f, a->in[0]->dim[0]);
	wf_tensor *w = node(f, a, f->weave, (wf_tensor *[]){a->in[0], b->in[0]}, 2, (double[WF_MAXATTR]){block});
	wf_tensor *y = node(f, a, a->op, (wf_tensor *[]){w, f->now[a->in[1]->id]}, 2, a->attr);

	f->now[a->id] = node(f, a, f->lane, &y, 1, (double[WF_MAXATTR]){2, 0, block});
	f->now[b->id] = node(f, b, f->lane, &y, 1, (double[WF_MAXATTR]){2, 1, block});
	note(f, "weave", a, b, NULL);
}

/* One whose values are kept in the widest type says how the product of all is made. */
static const wf_tensor *widest(wf_tensor *const *t, int n)
{
	const wf_tensor *most = t[0];

	for (int i = 1; i < n; i++)
		if (wf_dtypes[t[i]->dtype].bytes > wf_dtypes[most->dtype].bytes)
			most = t[i];
	return most;
}

static void concatenate(struct folder *f, wf_tensor *const *t, int n)
{
	wf_tensor *w[WF_MAXIN];
	double start = 0;

	for (int i = 0; i < n; i++)
		w[i] = t[i]->in[0];
	wf_tensor *all = node(f, t[0], f->cat, w, n, NULL);
	wf_tensor *y = node(f, t[0], t[0]->op, (wf_tensor *[]){all, f->now[t[0]->in[1]->id]}, 2, widest(t, n)->attr);
	for (int i = 0; i < n; i++) {
		f->now[t[i]->id] = node(f, t[i], f->cols, &y, 1, (double[WF_MAXATTR]){start, (double)t[i]->in[0]->dim[0]});
		start += (double)t[i]->in[0]->dim[0];
		if (i)
			note(f, "concatenate", t[0], t[i], NULL);
	}
}

/* t and its later siblings, merged when they may be; t itself is then in f->now. */
static void merge_siblings(struct folder *f, wf_tensor *t)
{
	wf_tensor *all[WF_MAXIN] = {t};
	int n = 1;

	for (int i = t->id + 1; i < f->n && n < WF_MAXIN; i++) {
		wf_tensor *other = f->g->node[i];
		if (f->now[i] || !is_linear(other) || !are_siblings(t, other))
			continue;
		const char *blocker = apart(t, other);
		if (blocker)
			note(f, "concatenate", t, other, blocker);
		else
			all[n++] = other;
	}
	if (n == 2 && f->weave && f->lane && all[0]->in[0]->dim[0] == all[1]->in[0]->dim[0] &&
	    weave_block(f, all[0]->in[0]->dim[0]) && meet(f, all[0], all[1]))
		weave_pair(f, all[0], all[1]);
	else if (n > 1 && f->cat && f->cols)
		concatenate(f, all, n);
}

static wf_tensor *rebuild(struct folder *f, wf_tensor *t)
{
	wf_tensor *in[WF_MAXIN];
	bool same = true;

	for (int k = 0; k < t->nin; k++) {
		in[k] = f->now[t->in[k]->id];
		same &= in[k] == t->in[k];
	}
	return same ? t : graph_copy(f->g, t, in);
}

/* ---- types ---- */

/* Where activations are f16, products and tables of bf16 weights are read as f16 too: the units multiply one type. */
static bool wants_half(const struct folder *f)
{
	return f->half && f->g->act == WF_F16;
}

static wf_tensor *as_half(struct folder *f, wf_tensor *t)
{
	return t->op == &wf_op_weight && t->dtype == WF_BF16 && t->ndim > 1 ? node(f, t, f->half, &t, 1, NULL) : t;
}

/* ---- layouts ---- */

static wf_tensor *with_layout(struct folder *f, wf_tensor *t)
{
	const wf_backend *backend = f->plan->backend;

	if (!is_linear(t) || !f->repack || !backend || !backend->layout || t->in[0]->op == f->repack)
		return t;
	const wf_tensor *w = t->in[0];
	int layout = backend->layout(backend, w->dtype, w->dim[0], w->dim[1]);
	if (!layout)
		return t;
	wf_tensor *packed = node(f, t, f->repack, &t->in[0], 1, (double[WF_MAXATTR]){layout});
	return node(f, t, t->op, (wf_tensor *[]){packed, t->in[1]}, 2, t->attr);
}

static int each(struct folder *f, wf_tensor *(*change)(struct folder *, wf_tensor *), bool merge)
{
	f->n = f->g->nnode;
	f->now = wf_alloc_n(f->plan->arena, f->n + 1, sizeof *f->now);
	if (!f->now)
		return wf_fail(f->plan->err, "fold: out of memory");
	for (int i = 0; i < f->n; i++) {
		wf_tensor *t = f->g->node[i];
		if (merge && is_linear(t) && !f->now[i])
			merge_siblings(f, t);
		if (!f->now[i])
			f->now[i] = change ? change(f, rebuild(f, t)) : rebuild(f, t);
		if (wf_failed(f->g))
			return -1;
	}
	for (int i = 0; i < f->g->nout; i++)
		f->g->out[i].t = f->now[f->g->out[i].t->id];
	graph_sweep(f->g);
	return 0;
}

int fold_run(wf_plan *plan)
{
	const wf_op *const *ops = plan->g->ops;
	struct folder f = {.plan = plan, .g = plan->g,
		.cat = wf_op_find(ops, "cat"), .cols = wf_op_find(ops, "cols"), .weave = wf_op_find(ops, "weave"),
		.lane = wf_op_find(ops, "lane"), .repack = wf_op_find(ops, "repack"), .half = wf_op_find(ops, "half")};

	graph_sweep(plan->g);
	if (wants_half(&f) && each(&f, as_half, false))
		return -1;
	return each(&f, NULL, true) || each(&f, with_layout, false) ? -1 : 0;
}
