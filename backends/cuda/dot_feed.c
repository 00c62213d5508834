/* dot_feed.c - what feeds a product: x8, and for a norm lift and drop8.
 *
 * From memory to the product there is one line of ops: first moves, which only change where a value is
 * read, then maps and at most one norm, eight columns at a time. */
#include "backends/cuda/cuda.h"

#include <string.h>

static bool has_word(const wf_tensor *t, const char *word)
{
	return t->op->cuda && strstr(t->op->cuda, word);
}

struct feed {
	const wf_tensor *base;                /* in memory */
	const wf_tensor *op[DOT_MAXMEMBER];       /* from memory to the product */
	int n, norm;                          /* op[norm] is the ROW; n: none */
};


static int find_feed(struct dot *d, struct feed *f)
{
	const wf_tensor *t = d->anchor->in[1];
	int n = 0;

	*f = (struct feed){0};
	for (; emit_member(d->kernel, t) >= 0; t = t->in[0])
		f->n++;
	f->base = t;
	for (t = d->anchor->in[1]; emit_member(d->kernel, t) >= 0; t = t->in[0])
		f->op[f->n - ++n] = t;
	f->norm = f->n;
	bool moves = true;
	for (int i = 0; i < f->n; i++) {
		wf_kind kind = f->op[i]->op->kind;
		if (kind == WF_ROW && (f->norm < f->n || f->op[i]->ndim != 2 || !has_word(f->op[i], "lift")))
			return dot_refuse(d, "two norms before the product");
		if (kind == WF_ROW)
			f->norm = i;
		if (kind == WF_MOVE && !moves && !f->op[i]->op->view)
			return dot_refuse(d, "values move after they are computed");
		if (kind == WF_MOVE && emit_is(f->op[i], "lane") && (int64_t)emit_attr(f->op[i], "block") % 8)
			return dot_refuse(d, "lanes narrower than 8");
		if (kind == WF_MOVE && emit_is(f->op[i], "cols") &&
		    (emit_width(f->op[i]) > wf_last(f->op[i]) || (int64_t)emit_attr(f->op[i], "start") % 8))
			return dot_refuse(d, "columns of each head, or from between two vectors, feed it");
		moves &= kind == WF_MOVE;
	}
	return wf_dtypes[f->base->dtype].block > 1 ? dot_refuse(d, "rows of a quantised table feed it") : 0;
}

static void load8(struct dot *d, const wf_tensor *t, const char *row, const char *k, const char *to)
{
	const char *pointer = page_value(d->page, t), *type = page_type(d->page, t);
	int64_t n = emit_width(t), bytes = !strcmp(type, "float") ? 4 : 2;
	const char *offset = row ? page_format(d->page, " + (size_t)%s * %lld", row, (long long)n) : "";

	page_add(d->page, "\tload8_of<%s>(p.%s%s, %s, %lld, %s);\n", n * bytes % 16 ? "false" : "true", pointer, offset, k,
		(long long)n, to);
}

static void call8(struct dot *d, const char *call)
{
	page_add(d->page, "\tfor (int i = 0; i < 8; i++)\n\t\tv[i] = %s);\n", call);
}

/* v[i] = op(v[i], ...) for eight columns from k. */
static void map8(struct dot *d, const wf_tensor *t, int i)
{
	const char *call = page_format(d->page, "%s(v[i]", page_function(d->page, t));

	for (int k = 1; k < t->nin; k++) {
		const char *w = page_format(d->page, "w%d_%d", i, k);
		page_add(d->page, "\tfloat %s[8];\n", w);
		load8(d, t->in[k], t->in[k]->constant ? NULL : "token", "k", w);
		call = page_format(d->page, "%s, %s[i]", call, w);
	}
	call8(d, call);
}

/* The same after a norm, from vectors at hand. */
static void map_vectors8(struct dot *d, const wf_tensor *t, int i)
{
	const char *call = page_format(d->page, "%s(v[i]", page_function(d->page, t));

	for (int k = 1; k < t->nin; k++)
		call = page_format(d->page, "%s, w.w%d_%d[i]", call, i, k);
	call8(d, call);
}

static void load_vector8(struct dot *d, const wf_tensor *t, const char *to)
{
	if (!t->constant)
		dot_refuse(d, "values of two kernels meet before the product");
	load8(d, t, NULL, "k", to);
}

static const char *row_index(struct dot *d, const wf_tensor *ids)
{
	const char *at = ids->op != &wf_op_input ? NULL : !strcmp(ids->name, "rows") ? "p.table->row[token]" :
		!strcmp(ids->name, "tokens") ? "token_at(*p.table, token)" : NULL;

	if (!at) {
		dot_refuse(d, "rows picked by a computed number");
		return "token";
	}
	page_pointer(d->page, PAGE_TABLE, NULL, "const struct table *", "table");
	return at;
}

static void add_x8(struct dot *d, const struct feed *f)
{
	const char *row = "token", *k = "k";
	int i = 0, nmove = 0;

	for (; i < f->norm; i++)
		if (f->op[i]->op->kind == WF_MAP)
			page_op(d->page, f->op[i], NULL);
	while (nmove < f->n && f->op[nmove]->op->kind == WF_MOVE)
		nmove++;
	page_add(d->page, "__device__ inline void x8(const args &p, int token, int k, float (&v)[8])\n{\n");
	for (i = nmove - 1; i >= 0; i--) {    /* from the product's column back to memory's */
		const wf_tensor *t = f->op[i];
		if (emit_is(t, "take"))
			row = row_index(d, t->in[1]);
		else if (emit_is(t, "cols"))
			k = page_format(d->page, "%s + %lld", k, (long long)emit_attr(t, "start"));
		else if (emit_is(t, "lane"))
			k = page_format(d->page, "((%s) / %lld * %d + %d) * %lld + (%s) %% %lld", k, (long long)emit_attr(t, "block"),
				(int)emit_attr(t, "of"), (int)emit_attr(t, "at"), (long long)emit_attr(t, "block"), k,
				(long long)emit_attr(t, "block"));
		else if (!t->op->view)
			dot_refuse(d, "an order of values it cannot follow");
	}
	load8(d, f->base, row, k, "v");
	bool plain = true;
	for (i = nmove; i < f->norm; i++)
		if (f->op[i]->op->kind == WF_MAP) {
			map8(d, f->op[i], i);
			plain = false;
		}
	page_define(d->page, "XPLAIN", "%d", plain);
	if (wf_last(d->anchor->in[1]) % 8 && f->norm)     /* neither a longer row nor a function of nothing is zero there */
		page_add(d->page, "\tfor (int i = 0; i < 8; i++)\n\t\tv[i] = k + i < COLS ? v[i] : 0;\n");
	page_add(d->page, "}\n\n");
}

static void add_norm(struct dot *d, const struct feed *f)
{
	const wf_tensor *norm = f->norm < f->n ? f->op[f->norm] : NULL;
	const char *call = "drop(v[i], sum";

	if (!norm)
		return;
	page_define(d->page, "NORM", "1");
	page_op(d->page, norm, (const struct page_word[]){{"ROW", "COLS"}, {NULL, NULL}});
	for (int i = f->norm + 1; i < f->n; i++)
		if (f->op[i]->op->kind == WF_MAP)
			page_op(d->page, f->op[i], NULL);
	page_add(d->page, "struct vectors { float");
	for (int i = f->norm; i < f->n; i++)
		for (int k = 1; f->op[i]->op->kind != WF_MOVE && k < f->op[i]->nin; k++)
			page_add(d->page, " w%d_%d[8],", i, k);
	page_add(d->page, " none; };\n\n__device__ inline void vectors8(const args &p, int k, vectors &w)\n{\n");
	for (int i = f->norm; i < f->n; i++)
		for (int k = 1; f->op[i]->op->kind != WF_MOVE && k < f->op[i]->nin; k++)
			load_vector8(d, f->op[i]->in[k], page_format(d->page, "w.w%d_%d", i, k));
	page_add(d->page, "}\n\n__device__ inline void drop8(const vectors &w, int k, float sum, float (&v)[8])\n{\n");
	for (int k = 1; k < norm->nin; k++)
		call = page_format(d->page, "%s, w.w%d_%d[i]", call, f->norm, k);
	if (norm->nin < norm->op->nin + norm->op->nopt)
		call = page_format(d->page, "%s, 0", call);
	call8(d, call);
	for (int i = f->norm + 1; i < f->n; i++)
		if (f->op[i]->op->kind == WF_MAP)
			map_vectors8(d, f->op[i], i);
	page_add(d->page, "}\n\n");
}

int dot_add_feed(struct dot *d)
{
	struct feed f;

	if (find_feed(d, &f))
		return -1;
	page_define(d->page, "XTYPE", "%s", page_type(d->page, f.base));
	add_x8(d, &f);
	add_norm(d, &f);
	return d->why ? -1 : 0;
}
