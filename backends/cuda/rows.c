/* rows.c - kernels that work row by row: elementwise ops, norms, moves, and what stands around a
 * product that is not our own kernel's.
 *
 * Each member becomes a function that gives WIDTH neighbouring values of its row, computed from its
 * operands' functions; only sums over a row (norms) are made first and kept in shared memory.  The
 * compiler joins what is called once.  WIDTH is 8 where every length allows it, else 1. */
#include "backends/cuda/cuda.h"

#include <string.h>

struct rows {
	struct page *page;
	const wf_kernel *kernel;
	const wf_tensor *anchor;              /* a product beside us: its value is in scratch; NULL none */
	const wf_tensor *result;              /* left in scratch for the product; NULL none */
	const char *product;                  /* type of the product in scratch */
	const char *why;
	int width;
	int64_t nsum;                         /* sums kept in shared memory */
};

static int refuse(struct rows *r, const char *why)
{
	r->why = r->why ? r->why : why;
	return -1;
}

static int member(const struct rows *r, const wf_tensor *t)
{
	return emit_member(r->kernel, t);
}

static int64_t attribute(const wf_tensor *t, const char *name)
{
	return (int64_t)emit_attr(t, name);
}

/* Does the anchor need t? */
static bool feeds(const struct rows *r, const wf_tensor *from, const wf_tensor *t)
{
	if (from == t)
		return true;
	if (member(r, from) < 0)
		return false;
	for (int k = 0; k < from->nin; k++)
		if (feeds(r, from->in[k], t))
			return true;
	return false;
}

/* Is t computed by this page? */
static bool ours(const struct rows *r, const wf_tensor *t)
{
	if (member(r, t) < 0 || t == r->anchor)
		return false;
	if (r->result)
		return feeds(r, r->result, t);
	return !r->anchor || !feeds(r, r->anchor, t);
}

static bool is_sum(const wf_tensor *t)
{
	return t->op->kind == WF_ROW && t->op->cuda && strstr(t->op->cuda, "lift");
}

/* ---- width --------------------------------------------------------------------------------------------- */

static bool eight(int64_t n)
{
	return n % 8 == 0;
}

static bool fits_eight(const wf_tensor *t)
{
	bool fits = eight(emit_width(t)) && (t->op->kind != WF_ROW || eight(wf_last(t)));

	if (emit_is(t, "rope"))
		fits &= eight(wf_last(t)) && (attribute(t, "pairs") ? eight(2 * emit_width(t->in[2])) : eight(emit_width(t->in[2])));
	if (emit_is(t, "join"))
		fits &= eight(wf_last(t->in[0])) && eight(wf_last(t->in[1]));
	if (emit_is(t, "cols"))      /* of each head, in rows that begin where vectors may */
		fits &= eight(attribute(t, "start")) && eight(wf_last(t)) && eight(wf_last(t->in[0]));
	if (emit_is(t, "lane"))
		fits &= eight(attribute(t, "block"));
	if (emit_is(t, "take") || t->op->kind == WF_ROUTE)
		fits &= eight(wf_last(t));
	if (t->op->state)
		fits &= eight(wf_last(t->in[0])) && eight(wf_last(t->in[1])) && eight(emit_width(t->in[1]));
	for (int k = 0; k < t->nin; k++)
		if (t->op->kind == WF_MAP)
			fits &= eight(emit_width(t->in[k]));
	return fits;
}

static void choose_width(struct rows *r)
{
	const wf_tensor *scratch = r->result ? r->result : r->anchor;

	r->width = scratch && !eight(emit_width(scratch)) ? 1 : 8;
	for (int i = 0; i < r->kernel->nnode; i++)
		if (ours(r, r->kernel->node[i]) && !fits_eight(r->kernel->node[i]))
			r->width = 1;
}

/* ---- one member ------------------------------------------------------------------------------------------ */

/* WIDTH values from column i of an operand, into `to`. */
static void load(struct rows *r, const wf_tensor *t, const char *i, const char *to)
{
	struct page *p = r->page;
	int id = member(r, t);
	long long n = emit_width(t);

	if (id >= 0 && (ours(r, t) || t == r->anchor)) {
		page_add(p, "\tn%d(p, r, %s, %s);\n", id, i, to);
		return;
	}
	if (t->constant && t->ndim > 1) {
		refuse(r, "a table read by column");
		return;
	}
	const char *pointer = page_value(p, t);
	if (t->constant)
		page_add(p, "\tload_run(p.%s + (%s) %% %lld, %s);\n", pointer, i, (long long)wf_nelem(t), to);
	else
		page_add(p, "\tload_run(p.%s + (size_t)r.t * %lld + %s, %s);\n", pointer, n, i, to);
}

static void do_map(struct rows *r, const wf_tensor *t)
{
	struct page *p = r->page;
	const char *call = page_format(p, "%s(v[k]", page_function(p, t));

	load(r, t->in[0], "i", "v");
	for (int k = 1; k < t->nin; k++) {
		page_add(p, "\tfloat w%d[WIDTH];\n", k);
		load(r, t->in[k], "i", page_format(p, "w%d", k));
		call = page_format(p, "%s, w%d[k]", call, k);
	}
	page_add(p, "\tfor (int k = 0; k < WIDTH; k++)\n\t\tv[k] = %s);\n", call);
}

/* Mean and sum of what lift() makes of each segment are in shared memory, from number `first` on. */
static void do_norm(struct rows *r, const wf_tensor *t, int id, int64_t first)
{
	struct page *p = r->page;
	long long n = wf_last(t), segments = emit_width(t) / n;
	bool centred = strstr(t->op->cuda, "ROW_CENTRED") != NULL;
	const char *at = segments == 1 ? page_format(p, "%lld", (long long)first) :
		page_format(p, "%lld + i / %lld", (long long)first, n);
	const char *less = centred ? page_format(p, " - r.sum[%s + %lld] / %lld", at, segments, n) : "";
	const char *call = page_format(p, "drop%d(v[k]%s, r.sum[%s]", id, less, at);

	load(r, t->in[0], "i", "v");
	for (int k = 1; k < t->nin; k++) {
		page_add(p, "\tfloat w%d[WIDTH];\n", k);
		load(r, t->in[k], "i", page_format(p, "w%d", k));
		call = page_format(p, "%s, w%d[k]", call, k);
	}
	if (t->nin < t->op->nin + t->op->nopt)
		call = page_format(p, "%s, 0", call);
	page_add(p, "\tfor (int k = 0; k < WIDTH; k++)\n\t\tv[k] = %s);\n", call);
}

static bool turns_alike(const wf_tensor *a, const wf_tensor *b)
{
	return a->in[2] == b->in[2] && emit_attr(a, "mscale") == emit_attr(b, "mscale");
}

static bool is_rope(const struct rows *r, const wf_tensor *t)
{
	return ours(r, t) && emit_is(t, "rope");
}

/* The first of those that turn alike? */
static bool first_rope(const struct rows *r, int i)
{
	const wf_tensor *const *node = (const wf_tensor *const *)r->kernel->node;
	bool first = is_rope(r, node[i]);

	for (int k = 0; first && k < i; k++)
		first = !is_rope(r, node[k]) || !turns_alike(node[i], node[k]);
	return first;
}

/* Where t's angles begin in shared memory; all heads of all ropes alike share them.  NULL: how many there are. */
static int64_t turns_at(const struct rows *r, const wf_tensor *t)
{
	int64_t n = 0;

	for (int i = 0; i < r->kernel->nnode; i++) {
		const wf_tensor *a = r->kernel->node[i];
		if (t && is_rope(r, a) && turns_alike(a, t))
			break;
		n += first_rope(r, i) ? emit_width(a->in[2]) : 0;
	}
	return n;
}

static void do_rope(struct rows *r, const wf_tensor *t)
{
	struct page *p = r->page;
	long long head = wf_last(t), half = emit_width(t->in[2]), at = turns_at(r, t);

	load(r, t->in[0], "i", "v");
	page_add(p, "\tint j = i %% %lld;\n\tif (j >= %lld)\n\t\treturn;\n", head, 2 * half);
	if (!attribute(t, "pairs")) {
		page_add(p, "\tbool second = j >= %lld;\n\tfloat w[WIDTH];\n", half);
		load(r, t->in[0], page_format(p, "(second ? i - %lld : i + %lld)", half, half), "w");
		page_add(p, "\tfor (int k = 0; k < WIDTH; k++) {\n"
			"\t\tfloat2 by = r.turn[%lld + (second ? j - %lld : j) + k];\n"
			"\t\tv[k] = second ? turned(w[k], v[k], by).y : turned(v[k], w[k], by).x;\n\t}\n", at, half);
	} else if (r->width == 8) {
		page_add(p, "\tfor (int k = 0; k < WIDTH; k += 2) {\n"
			"\t\tfloat2 y = turned(v[k], v[k + 1], r.turn[%lld + (j + k) / 2]);\n"
			"\t\tv[k] = y.x;\n\t\tv[k + 1] = y.y;\n\t}\n", at);
	} else {
		page_add(p, "\tfloat w[1];\n");
		load(r, t->in[0], "(j & 1 ? i - 1 : i + 1)", "w");
		page_add(p, "\tfloat2 by = r.turn[%lld + j / 2];\n"
			"\tv[0] = j & 1 ? turned(w[0], v[0], by).y : turned(v[0], w[0], by).x;\n", at);
	}
}

/* The angles of the row's position. */
static void make_turns(struct rows *r)
{
	struct page *p = r->page;

	for (int i = 0; i < r->kernel->nnode; i++) {
		const wf_tensor *t = r->kernel->node[i];
		if (!first_rope(r, i))
			continue;
		page_pointer(p, PAGE_TABLE, NULL, "const struct table *", "table");
		page_add(p, "\tfor (int k = threadIdx.x; k < %lld; k += THREADS)\n"
			"\t\tr.turn[%lld + k] = turn(1, 0, (float)p.table->pos[r.t], to_float(p.%s[k]));\n", (long long)emit_width(t->in[2]),
			(long long)turns_at(r, t), page_value(p, t->in[2]));
	}
	if (turns_at(r, NULL))
		page_add(p, "\t__syncthreads();\n");
}

/* A row of a constant for each expert a token chose. */
static void do_choice(struct rows *r, const wf_tensor *t)
{
	struct page *p = r->page;
	const wf_tensor *of = t->in[0], *by = t->in[1];
	long long k = t->dim[1], n = wf_last(t);

	if (!of->constant || of->ndim != 2 || wf_dtypes[of->dtype].block > 1 || by->constant || by->ndim != 2 || ours(r, by)) {
		refuse(r, "rows picked in a way it cannot follow");
		return;
	}
	const char *ids = page_value(p, by), *table = page_value(p, of);
	page_add(p, "\tload_run(p.%s + (size_t)p.%s[(size_t)r.t * %lld + i / %lld] * %lld + i %% %lld, v);\n", table, ids, k, n, n, n);
}

/* What the experts of a token made, weighted, in their order. */
static void do_mix(struct rows *r, const wf_tensor *t)
{
	struct page *p = r->page;
	long long k = t->in[1]->dim[1];
	const char *gates = page_value(p, t->in[1]);

	page_add(p, "\tfloat w[WIDTH];\n\tfor (int k = 0; k < WIDTH; k++)\n\t\tv[k] = 0;\n#pragma unroll\n"
		"\tfor (int j = 0; j < %lld; j++) {\n\t", k);
	load(r, t->in[0], page_format(p, "j * %lld + i", (long long)wf_last(t)), "w");
	page_add(p, "\t\tfloat gate = to_float(p.%s[(size_t)r.t * %lld + j]);\n"
		"\t\tfor (int k = 0; k < WIDTH; k++)\n\t\t\tv[k] += gate * w[k];\n\t}\n", gates, k);
}

/* Rows of a table, or of an activation, by number. */
static void do_take(struct rows *r, const wf_tensor *t)
{
	struct page *p = r->page;
	const wf_tensor *table = t->in[0], *ids = t->in[1];

	if (ids->op != &wf_op_input) {
		do_choice(r, t);
		return;
	}
	bool quantised = wf_dtypes[table->dtype].block > 1;
	const char *at = !strcmp(ids->name, "rows") ? "p.table->row[r.t]" : !strcmp(ids->name, "tokens") ?
		"token_at(*p.table, r.t)" : !strcmp(ids->name, "positions") ? "p.table->pos[r.t]" : NULL;
	long long n = emit_width(t);

	if (!at || ours(r, table) || (quantised && r->width != 8)) {
		refuse(r, "rows picked in a way it cannot follow");
		return;
	}
	page_pointer(p, PAGE_TABLE, NULL, "const struct table *", "table");
	const char *pointer = quantised ? page_pointer(p, PAGE_CONSTANT, table, "const byte *", "rows") : page_value(p, table);
	if (quantised)
		page_add(p, "\tweights8(p.%s + (size_t)%s * %zu, i, *(float (*)[8])v, (%s *)0);\n", pointer, at,
			wf_row_bytes(table->dtype, n), page_type(p, table));
	else
		page_add(p, "\tload_run(p.%s + (size_t)%s * %lld + i, v);\n", pointer, at, n);
}

/* Two parts of every head side by side; a second part of one head serves all. */
static void do_join(struct rows *r, const wf_tensor *t)
{
	long long n = wf_last(t->in[0]), m = wf_last(t->in[1]);

	page_add(r->page, "\tint h = i / %lld, j = i %% %lld;\n\tif (j < %lld) {\n\t", n + m, n + m, n);
	load(r, t->in[0], page_format(r->page, "(h * %lld + j)", n), "v");
	page_add(r->page, "\t} else {\n\t");
	load(r, t->in[1], t->in[1]->dim[1] == 1 ? page_format(r->page, "(j - %lld)", n) :
		page_format(r->page, "(h * %lld + j - %lld)", m, n), "v");
	page_add(r->page, "\t}\n");
}

/* Where column i of a cols node stands in its operand's row: the same range of every head. */
static const char *column(struct rows *r, const wf_tensor *t)
{
	long long start = (long long)attribute(t, "start"), n = wf_last(t), m = wf_last(t->in[0]);

	if (emit_width(t) > n)
		return page_format(r->page, "(i / %lld * %lld + i %% %lld + %lld)", n, m, n, start);
	return start ? page_format(r->page, "i + %lld", start) : "i";
}

static void do_move(struct rows *r, const wf_tensor *t)
{
	struct page *p = r->page;

	if (t->op->view)
		load(r, t->in[0], "i", "v");
	else if (emit_is(t, "cols"))
		load(r, t->in[0], column(r, t), "v");
	else if (emit_is(t, "lane")) {
		long long of = attribute(t, "of"), at = attribute(t, "at"), block = attribute(t, "block");
		load(r, t->in[0], page_format(p, "(i / %lld * %lld + %lld) * %lld + i %% %lld", block, of, at, block, block), "v");
	} else if (emit_is(t, "take"))
		do_take(r, t);
	else if (emit_is(t, "join"))
		do_join(r, t);
	else
		refuse(r, "an order of values it cannot follow");
}

static void add_member(struct rows *r, const wf_tensor *t, int id)
{
	struct page *p = r->page;

	if (is_sum(t)) {
		page_op(p, t, (const struct page_word[]){{"ROW", page_format(p, "%lld", (long long)wf_last(t))},
			{"lift", page_format(p, "lift%d", id)}, {"drop", page_format(p, "drop%d", id)}, {NULL, NULL}});
	} else if (t->op->kind == WF_MAP || t->op->kind == WF_ROW) {
		page_op(p, t, (const struct page_word[]){{"sincosf", "sin_cos"}, {NULL, NULL}});
	}
	page_add(p, "__device__ inline void n%d(const args &p, const row &r, int i, float *v)      /* %s */\n{\n", id, t->op->name);
	if (t->op->kind == WF_MAP)
		do_map(r, t);
	else if (is_sum(t))
		do_norm(r, t, id, r->nsum);
	else if (emit_is(t, "rope"))
		do_rope(r, t);
	else if (t->op->kind == WF_MOVE)
		do_move(r, t);
	else if (emit_is(t, "mix"))
		do_mix(r, t);
	else
		refuse(r, "no row kernel computes it");
	page_add(p, "}\n\n");
}

/* ---- sums ------------------------------------------------------------------------------------------------- */

static void add_sums_of(struct rows *r, const wf_tensor *t, int id)
{
	struct page *p = r->page;
	long long n = wf_last(t), segments = emit_width(t) / n;
	bool centred = strstr(t->op->cuda, "ROW_CENTRED") != NULL;
	const char *less = "";

	page_add(p, "struct part%d {\n\tconst args &p;\n\tconst row &r;\n\tint centre;\n"
		"\t__device__ float operator()(int i) const\n\t{\n\t\tfloat v[WIDTH], sum = 0;\n\t", id);
	load(r, t->in[0], "i", "v");
	if (centred)
		less = page_format(p, " - r.sum[centre + i / %lld] / %lld", n, n);
	page_add(p, "\t\tfor (int k = 0; k < WIDTH; k++)\n\t\t\tsum += %slift%d(v[k]%s);\n\t\treturn sum;\n\t}\n};\n\n",
		centred ? "centre < 0 ? v[k] : " : "", id, less);
	r->nsum += segments * (centred ? 2 : 1);
}

static void add_sums(struct rows *r)
{
	int64_t at = 0;

	page_add(r->page, "__device__ inline void make_sums(const args &p, const row &r)\n{\n");
	for (int i = 0; i < r->kernel->nnode; i++) {
		const wf_tensor *t = r->kernel->node[i];
		if (!ours(r, t) || !is_sum(t))
			continue;
		long long n = wf_last(t), segments = emit_width(t) / n;
		bool centred = strstr(t->op->cuda, "ROW_CENTRED") != NULL;
		if (centred)
			page_add(r->page, "\tsegment_sums<%lld, %lld>(part%d{p, r, -1}, r.sum + %lld);\n", segments, n, i, (long long)at + segments);
		page_add(r->page, "\tsegment_sums<%lld, %lld>(part%d{p, r, %lld}, r.sum + %lld);\n", segments, n, i,
			(long long)at + segments, (long long)at);
		at += segments * (centred ? 2 : 1);
	}
	make_turns(r);
	page_add(r->page, "}\n\n");
}

/* ---- stores ------------------------------------------------------------------------------------------------- */

static void each_run(struct rows *r, int64_t n)
{
	page_add(r->page, "\tfor (int i = first_run(); i < %lld; i += run_stride()) {\n\t\tfloat v[WIDTH];\n\t", (long long)n);
}

static void store_value(struct rows *r, const wf_tensor *t)
{
	struct page *p = r->page;
	bool scratch = t == r->result;
	const char *pointer = scratch ? page_pointer(p, PAGE_ROWS, NULL, page_format(p, "%s *", page_own_type(t)), "ready") :
		page_value(p, t);

	each_run(r, emit_width(t));
	load(r, t, "i", "v");
	page_add(p, "\t\tstore_run(p.%s + (size_t)r.t * %lld + i, v);\n\t}\n", pointer, (long long)emit_width(t));
}

static void append_cache(struct rows *r, const wf_tensor *t)
{
	for (int v = 0; v < 2; v++) {
		long long n = wf_last(t->in[v]);
		each_run(r, emit_width(t->in[v]));
		load(r, t->in[v], "i", "v");
		page_add(r->page, "\t\tstore_run(%s_of(p, r.t, i / %lld) + i %% %lld, v);\n\t}\n", v ? "value" : "key", n, n);
	}
}

static void add_stores(struct rows *r)
{
	page_add(r->page, "__device__ inline void make_row(const args &p, const row &r)\n{\n");
	for (int i = 0; i < r->kernel->nnode; i++) {
		const wf_tensor *t = r->kernel->node[i];
		bool kept = r->page->plan->value[t->id].stored && !r->page->plan->value[t->id].alias;
		if (r->result ? t == r->result : kept && (ours(r, t) || t == r->anchor))
			store_value(r, t);
		if (t->op->state && ours(r, t))
			append_cache(r, t);
	}
	if (r->result && member(r, r->result) < 0)     /* it is in memory, in another type */
		store_value(r, r->result);
	page_add(r->page, "}\n\n");
}

/* The product's value, as it was left in scratch. */
static void add_product(struct rows *r)
{
	page_add(r->page, "__device__ inline void n%d(const args &p, const row &r, int i, float *v)      /* %s */\n"
		"{\n\tload_run(p.%s + (size_t)r.t * %lld + i, v);\n}\n\n", member(r, r->anchor), r->anchor->op->name,
		page_pointer(r->page, PAGE_PRODUCT, NULL, page_format(r->page, "const %s *", r->product), "product"),
		(long long)emit_width(r->anchor));
}

static void count_sums(struct rows *r)
{
	int64_t n = 0;

	for (int i = 0; i < r->kernel->nnode; i++) {
		const wf_tensor *t = r->kernel->node[i];
		if (ours(r, t) && is_sum(t))
			n += emit_width(t) / wf_last(t) * (strstr(t->op->cuda, "ROW_CENTRED") ? 2 : 1);
	}
	page_define(r->page, "SUMS", "%lld", (long long)n);
	page_define(r->page, "TURNS", "%lld", (long long)turns_at(r, NULL));
}

const char *emit_row_hooks(struct page *p, const wf_kernel *kernel, const wf_tensor *anchor, const wf_tensor *result,
		const char *product)
{
	struct rows r = {.page = p, .kernel = kernel, .anchor = anchor, .result = result, .product = product};

	choose_width(&r);
	page_define(p, "WIDTH", "%d", r.width);
	count_sums(&r);
	page_count(p, kernel->anchor);
	page_add(p, "#include \"rows.cuh\"\n\n");
	if (anchor && !result)
		add_product(&r);
	for (int i = 0; i < kernel->nnode; i++) {
		const wf_tensor *t = kernel->node[i];
		if (!ours(&r, t))
			continue;
		if (t->op->state) {
			page_cache(p, t);
			continue;
		}
		add_member(&r, t, i);
		if (is_sum(t))
			add_sums_of(&r, t, i);
	}
	add_sums(&r);
	add_stores(&r);
	return r.why;
}

/* A weight's rows as plain numbers, into scratch. */
void emit_unpack_hooks(struct page *p, const wf_tensor *w, const char *type)
{
	long long cols = w->dim[1];
	const char *from = page_pointer(p, PAGE_CONSTANT, w, "const byte *", "w");
	const char *to = page_pointer(p, PAGE_UNPACKED, w, page_format(p, "%s *", type), "plain");

	page_define(p, "WIDTH", "%d", cols % 8 ? 1 : 8);
	page_define(p, "SUMS", "0");
	page_define(p, "TURNS", "0");
	page_add(p, "__device__ inline int count(const args &) { return %lld; }\n\n#include \"rows.cuh\"\n\n"
		"__device__ inline void make_sums(const args &, const row &) {}\n"
		"__device__ inline void make_row(const args &p, const row &r)\n{\n", (long long)w->dim[0]);
	page_add(p, "\tfor (int i = first_run(); i < %lld; i += run_stride()) {\n\t\tfloat v[WIDTH];\n", cols);
	if (cols % 8)
		page_add(p, "\t\tload_run((const %s *)p.%s + (size_t)r.t * %lld + i, v);\n", page_type(p, w), from, cols);
	else
		page_add(p, "\t\tweights8(p.%s + (size_t)r.t * %zu, i, *(float (*)[8])v, (%s *)0);\n", from,
			wf_row_bytes(w->dtype, cols), page_type(p, w));
	page_add(p, "\t\tstore_run(p.%s + (size_t)r.t * %lld + i, v);\n\t}\n}\n", to, cols);
}
