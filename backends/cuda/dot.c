/* dot.c - the hooks of a product: its rows, what feeds it (dot_feed.c) and what follows it (dot_store.c),
 * for units of one or two columns (dot_pair.c). */
#include "backends/cuda/cuda.h"

static bool same_formula(const struct dot_region *a, const struct dot_region *b)
{
	return a->pairing == b->pairing && a->head == b->head && a->half == b->half &&
		(a->pairing == HALVES || a->pairing == NEIGHBOURS || a->pairing == ALONE || a->pairing == LANES) &&
		b->start == a->start + a->n;
}

static void row_formula(struct dot *d, const struct dot_region *r)
{
	struct page *p = d->page;
	const char *u = r->unit ? page_format(p, "(unit - %lld)", (long long)r->unit) : "unit";
	const char *start = r->start ? page_format(p, "%lld + ", (long long)r->start) : "";
	long long half = r->half, head = r->head;

	switch (r->pairing) {
	case ALONE: page_add(p, "%s%s", start, u); break;
	case NEIGHBOURS: page_add(p, "%s2 * %s + side", start, u); break;
	case LANES: page_add(p, "%s%s / %lld * %lld + %s %% %lld + side * %lld", start, u, half, 2 * half, u, half, half); break;
	case ACROSS: page_add(p, "%s%s + side * %lld", start, u, (long long)(d->region[r->with].start - r->start)); break;
	case ACROSS_SECOND: break;
	case HALVES:
		if (2 * half == head)
			page_add(p, "%s%s / %lld * %lld + %s %% %lld + side * %lld", start, u, half, head, u, half, half);
		else      /* past the rotated values: neighbours */
			page_add(p, "%s%s / %lld * %lld + (%s %% %lld < %lld ? %s %% %lld + side * %lld : 2 * (%s %% %lld) + side)",
				start, u, head / 2, head, u, head / 2, half, u, head / 2, half, u, head / 2);
	}
}

static void add_row_of(struct dot *d)
{
	page_add(d->page, "/* Columns of a unit. */\n__device__ inline int row_of(int unit, [[maybe_unused]] int side)\n{\n");
	for (int r = 0; r < d->nregion; r++) {
		const struct dot_region *at = &d->region[r];
		int last = r;
		while (last + 1 < d->nregion && same_formula(&d->region[last], &d->region[last + 1]))
			last++;
		if (!at->units)
			continue;
		bool more = false;
		for (int k = last + 1; k < d->nregion; k++)
			more |= d->region[k].units > 0;
		if (more)
			page_add(d->page, "\tif (unit < %lld)\n\t", (long long)(d->region[last].unit + d->region[last].units));
		page_add(d->page, "\treturn ");
		row_formula(d, at);
		page_add(d->page, ";\n");
		r = last;
	}
	page_add(d->page, "}\n\n");
}

/* What no kernel of the step writes comes near before the weights are asked for: later it would wait
 * behind them.  Short vectors, and where this step's tokens go. */
static void add_warm(struct dot *d)
{
	struct page *p = d->page;

	page_define(p, "WARM", "1");
	page_add(p, "__device__ inline void warm(const args &p)\n{\n");
	for (int i = 0; i < p->narg; i++) {
		const wf_tensor *t = p->arg[i].from == PAGE_CONSTANT ? page_arg_tensor(d->kernel, &p->arg[i]) : NULL;
		if (t && t != d->anchor->in[0])
			page_add(p, "\ttouch_all(p.%s, %lld);\n", p->arg[i].name, (long long)wf_row_bytes(t->dtype, emit_width(t)));
	}
	for (int i = 0; i < p->narg; i++)
		if (p->arg[i].from == PAGE_TABLE)
			page_add(p, "\ttouch_all(p.table, sizeof *p.table);\n");
	page_add(p, "}\n\n");
}

const char *emit_dot_hooks(struct page *p, const wf_kernel *kernel, int what)
{
	struct dot d = {.page = p, .kernel = kernel, .anchor = kernel->anchor};
	const wf_tensor *w = d.anchor->in[0];
	int64_t units = 0;

	if (dot_analyse(&d))
		return d.why;
	for (int r = 0; r < d.nregion; r++)
		units += d.region[r].units;
	page_define(p, "ROWS", "%lld", (long long)w->dim[0]);
	page_define(p, "COLS", "%lld", (long long)w->dim[1]);
	page_define(p, "WTYPE", "%s", page_type(p, w));
	page_define(p, "PAIR", "%d", d.pair);
	page_define(p, "UNITS", "%lld", (long long)units);
	page_pointer(p, PAGE_CONSTANT, w, "const byte *", "w");
	page_count(p, d.anchor);
	add_row_of(&d);
	page_add(p, "__device__ inline const byte *row_at(const args &p, int unit, int side)\n{\n"
		"\treturn p.w + row_of(unit, side) * (COLS / format<WTYPE>::LEN * (long long)format<WTYPE>::BYTES);\n}\n\n");
	if ((what & EMIT_FEED) && dot_add_feed(&d))
		return d.why;
	if (what & EMIT_STORE)
		dot_add_store(&d);
	if (!d.why)
		add_warm(&d);
	return d.why;
}

/* A bare product: rows as they are in memory, or made ready in scratch; the result to scratch. */
void emit_plain_hooks(struct page *p, const wf_kernel *kernel, bool ready)
{
	const wf_tensor *anchor = kernel->anchor, *w = anchor->in[0], *x = anchor->in[1];

	while (!ready && emit_member(kernel, x) >= 0)
		x = x->in[0];
	const char *type = ready ? page_own_type(x) : page_type(p, x);
	const char *from = ready ? page_pointer(p, PAGE_ROWS, NULL, page_format(p, "const %s *", type), "ready") : page_value(p, x);

	page_define(p, "ROWS", "%lld", (long long)w->dim[0]);
	page_define(p, "COLS", "%lld", (long long)w->dim[1]);
	page_define(p, "WTYPE", "%s", page_type(p, w));
	page_define(p, "XTYPE", "%s", type);
	page_pointer(p, PAGE_CONSTANT, w, "const byte *", "w");
	page_pointer(p, PAGE_PRODUCT, NULL, "float *", "product");
	page_count(p, anchor);
	page_add(p, "__device__ inline const byte *row_at(const args &p, int unit, int)\n{\n"
		"\treturn p.w + unit * (COLS / format<WTYPE>::LEN * (long long)format<WTYPE>::BYTES);\n}\n\n");
	page_add(p, "__device__ inline void x8(const args &p, int token, int k, float (&v)[8])\n{\n"
		"\tload8_of<%s>(p.%s + (size_t)token * COLS, k, COLS, v);\n}\n\n",
		w->dim[1] * wf_dtypes[x->dtype].bytes % 16 ? "false" : "true", from);
	page_add(p, "__device__ inline void store(const args &p, int unit, int token, float a, float, float)\n{\n"
		"\tp.product[(size_t)token * ROWS + unit] = a;\n}\n");
}

/* Rows of activations as the matrix units take them. */
void emit_row_hook(struct page *p, const wf_kernel *kernel, bool ready)
{
	const wf_tensor *x = kernel->anchor->in[1];

	while (!ready && emit_member(kernel, x) >= 0)
		x = x->in[0];
	const char *type = ready ? page_own_type(x) : page_type(p, x);
	page_add(p, "__device__ inline const %s *x_row(const args &p, int token)\n{\n\treturn p.%s + (size_t)token * COLS;\n}\n", type,
		ready ? page_pointer(p, PAGE_ROWS, NULL, page_format(p, "const %s *", type), "ready") : page_value(p, x));
}
