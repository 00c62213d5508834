/* dot.c - the hooks of a product: what feeds it (x8, lift, drop8) and what follows it (store).
 *
 * The kernel computes units: one output column a, or with PAIR two, a and b, that the epilogue needs
 * together.  Columns are split into regions where the graph splits them (Q, K and V); within a region
 * a pair is the halves of a rotated head, neighbours, a gate and its value, and across two regions a
 * gate and its value again.  A member's value is then one or two scalars at known column indices,
 * and the epilogue a straight line per region. */
#include "backends/cuda/cuda.h"

#include <string.h>

enum { MAXREGION = 8, MAXMEMBER = 64 };

enum pairing { ALONE, NEIGHBOURS, HALVES, LANES, ACROSS, ACROSS_SECOND };

struct region {
	int64_t start, n;                     /* columns of the anchor */
	enum pairing pairing;
	int64_t head, half;                   /* HALVES: values of a head, distance of a pair; LANES: block is half */
	int with;                             /* ACROSS: the region that holds b */
	int64_t unit, units;                  /* first unit, how many */
};

struct site {                                 /* a member's value in the straight line */
	int region;                           /* -1: not after the anchor */
	int width;                            /* 1 or 2 scalars */
	const char *val[2], *at[2];           /* expressions: the scalar, its index in the member's row */
};

struct dot {
	struct page *page;
	const wf_kernel *kernel;
	const wf_tensor *anchor;
	const char *why;                      /* what it cannot do; NULL so far */
	struct region region[MAXREGION];
	int nregion;
	bool pair;
	struct site site[MAXMEMBER];
	const wf_tensor *residual;            /* fetched early */
};

static int member(const wf_kernel *k, const wf_tensor *t)
{
	for (int i = 0; i < k->nnode; i++)
		if (k->node[i] == t)
			return i;
	return -1;
}

static bool is(const wf_tensor *t, const char *op)
{
	return !strcmp(t->op->name, op);
}

static double attribute(const wf_tensor *t, const char *name)
{
	return t->attr[wf_attr_index(t->op, name)];
}

static int64_t row_length(const wf_tensor *t)
{
	int64_t n = 1;

	for (int i = t->ndim == 1 ? 0 : 1; i < t->ndim; i++)
		n *= t->dim[i];
	return n;
}

static bool has_word(const wf_tensor *t, const char *word)
{
	return t->op->cuda && strstr(t->op->cuda, word);
}

static int refuse(struct dot *d, const char *why)
{
	d->why = d->why ? d->why : why;
	return -1;
}

/* ---- regions and pairs ------------------------------------------------------------------------------ */

static bool feeds(const wf_kernel *k, const wf_tensor *anchor, const wf_tensor *t)
{
	for (const wf_tensor *at = anchor->in[1];; at = at->in[0]) {
		if (at == t)
			return true;
		if (member(k, at) < 0 || !at->nin)
			return false;
	}
}

static void find_regions(struct dot *d)
{
	int64_t M = wf_last(d->anchor);
	bool split = !d->page->plan->value[d->anchor->id].stored;

	for (int i = 0; i < d->kernel->nnode; i++) {
		const wf_tensor *t = d->kernel->node[i];
		for (int k = 0; k < t->nin; k++)
			split &= t->in[k] != d->anchor || is(t, "cols");
	}
	for (int i = 0; split && i < d->kernel->nnode; i++) {
		const wf_tensor *t = d->kernel->node[i];
		if (t->nin && t->in[0] == d->anchor && d->nregion < MAXREGION)
			d->region[d->nregion++] = (struct region){.start = (int64_t)attribute(t, "start"), .n = wf_last(t)};
	}
	if (!d->nregion)
		d->region[d->nregion++] = (struct region){.n = M};
}

static int region_of_cols(const struct dot *d, const wf_tensor *t)
{
	for (int r = 0; r < d->nregion; r++)
		if (d->region[r].start == (int64_t)attribute(t, "start") && d->region[r].n == wf_last(t) && d->nregion > 1)
			return r;
	return 0;
}

static int set_pairing(struct dot *d, int r, struct region want)
{
	struct region *have = &d->region[r];

	if (have->pairing == ALONE) {
		have->pairing = want.pairing;
		have->head = want.head;
		have->half = want.half;
		have->with = want.with;
	} else if (have->pairing != want.pairing || have->head != want.head || have->half != want.half ||
	           have->with != want.with) {
		return refuse(d, "its columns would have to meet in two ways");
	}
	d->pair = true;
	return 0;
}

static int pair_rope(struct dot *d, const wf_tensor *t, int r)
{
	int64_t head = wf_last(t), half = row_length(t->in[2]);
	bool neighbours = attribute(t, "pairs") != 0;

	if (head % 2 || d->region[r].n % head)
		return refuse(d, "heads of an odd length");
	return set_pairing(d, r, neighbours ? (struct region){.pairing = NEIGHBOURS} :
		(struct region){.pairing = HALVES, .head = head, .half = half});
}

static int pair_lane(struct dot *d, const wf_tensor *t, int r)
{
	if (attribute(t, "of") != 2)
		return refuse(d, "lanes of more than two");
	return set_pairing(d, r, (struct region){.pairing = LANES, .half = (int64_t)attribute(t, "block")});
}

/* A map over two regions of equal length: b is the other region's column. */
static int pair_across(struct dot *d, int a, int b)
{
	if (a > b) {
		int other = a;
		a = b;
		b = other;
	}
	if (d->region[a].n != d->region[b].n)
		return refuse(d, "values of different columns meet");
	return set_pairing(d, a, (struct region){.pairing = ACROSS, .with = b}) ||
		set_pairing(d, b, (struct region){.pairing = ACROSS_SECOND, .with = a}) ? -1 : a;
}

static int place_member(struct dot *d, int i)
{
	const wf_tensor *t = d->kernel->node[i];
	struct site *s = &d->site[i];

	s->region = -1;
	if (t == d->anchor || feeds(d->kernel, d->anchor, t))
		return 0;
	for (int k = 0; k < t->nin; k++) {
		int from = member(d->kernel, t->in[k]);
		int r = t->in[k] == d->anchor ? is(t, "cols") ? region_of_cols(d, t) : 0 : from < 0 ? -1 : d->site[from].region;
		if (r < 0)
			continue;
		if (s->region >= 0 && s->region != r && !t->op->state) {
			int across = t->op->kind == WF_MAP ? pair_across(d, s->region, r) : refuse(d, "it joins columns");
			if (across < 0)
				return -1;
			r = across;
		}
		s->region = s->region < 0 || !t->op->state ? r : s->region;
	}
	if (s->region < 0)
		return refuse(d, "a member that does not follow the product");
	if (is(t, "rope"))
		return pair_rope(d, t, s->region);
	if (is(t, "lane"))
		return pair_lane(d, t, s->region);
	if (t->op->kind == WF_ROW)
		return refuse(d, "a row's sum after the product");
	return 0;
}

/* What is not asked for pairs like its neighbours, so that one formula serves them all. */
static void settle_units(struct dot *d)
{
	const struct region *model = NULL;
	int64_t unit = 0;

	for (int r = 0; r < d->nregion && !model; r++)
		if (d->region[r].pairing == HALVES)
			model = &d->region[r];
	for (int r = 0; r < d->nregion; r++) {
		struct region *at = &d->region[r];
		if (d->pair && at->pairing == ALONE) {
			bool alike = model && at->n % model->head == 0;
			at->pairing = alike ? HALVES : NEIGHBOURS;
			at->head = alike ? model->head : 0;
			at->half = alike ? model->half : 0;
			if (at->n % 2)
				refuse(d, "an odd number of columns");
		}
		at->unit = unit;
		at->units = at->pairing == ACROSS_SECOND ? 0 : at->pairing == ACROSS || !d->pair ? at->n : at->n / 2;
		unit += at->units;
	}
}

static int analyse(struct dot *d)
{
	if (d->kernel->nnode > MAXMEMBER)
		return refuse(d, "too many members");
	find_regions(d);
	for (int i = 0; i < d->kernel->nnode; i++)
		if (place_member(d, i))
			return -1;
	settle_units(d);
	return d->why ? -1 : 0;
}

/* ---- row_at ------------------------------------------------------------------------------------------- */

static bool same_formula(const struct region *a, const struct region *b)
{
	return a->pairing == b->pairing && a->head == b->head && a->half == b->half &&
		(a->pairing == HALVES || a->pairing == NEIGHBOURS || a->pairing == ALONE || a->pairing == LANES) &&
		b->start == a->start + a->n;
}

static void row_formula(struct dot *d, const struct region *r)
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
		const struct region *at = &d->region[r];
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

/* ---- what feeds the product ----------------------------------------------------------------------------- */

struct feed {
	const wf_tensor *base;                /* in memory */
	const wf_tensor *op[MAXMEMBER];       /* from memory to the product */
	int n, norm;                          /* op[norm] is the ROW; n: none */
};

static int find_feed(struct dot *d, struct feed *f)
{
	const wf_tensor *t = d->anchor->in[1];
	int n = 0;

	*f = (struct feed){0};
	for (; member(d->kernel, t) >= 0; t = t->in[0])
		f->n++;
	f->base = t;
	for (t = d->anchor->in[1]; member(d->kernel, t) >= 0; t = t->in[0])
		f->op[f->n - ++n] = t;
	f->norm = f->n;
	bool moves = true;
	for (int i = 0; i < f->n; i++) {
		wf_kind kind = f->op[i]->op->kind;
		if (kind == WF_ROW && (f->norm < f->n || f->op[i]->ndim != 2 || !has_word(f->op[i], "lift")))
			return refuse(d, "two norms before the product");
		if (kind == WF_ROW)
			f->norm = i;
		if (kind == WF_MOVE && !moves && !f->op[i]->op->view)
			return refuse(d, "values move after they are computed");
		if (kind == WF_MOVE && is(f->op[i], "lane") && (int64_t)attribute(f->op[i], "block") % 8)
			return refuse(d, "lanes narrower than 8");
		moves &= kind == WF_MOVE;
	}
	return wf_dtypes[f->base->dtype].block > 1 ? refuse(d, "rows of a quantised table feed it") : 0;
}

static void load8(struct dot *d, const wf_tensor *t, const char *row, const char *k, const char *to)
{
	const char *pointer = page_value(d->page, t), *type = page_type(d->page, t);
	int64_t n = row_length(t), bytes = !strcmp(type, "float") ? 4 : 2;
	const char *offset = row ? page_format(d->page, " + (size_t)%s * %lld", row, (long long)n) : "";

	page_add(d->page, "\tload8_of<%s>(p.%s%s, %s, %lld, %s);\n", n * bytes % 16 ? "false" : "true", pointer, offset, k,
		(long long)n, to);
}

/* v[i] = op(v[i], ...) for eight columns from k. */
static void map8(struct dot *d, const wf_tensor *t, int i, bool has_token)
{
	const char *call = page_format(d->page, "%s(v[i]", page_function(d->page, t));

	for (int k = 1; k < t->nin; k++) {
		if (!has_token && !t->in[k]->constant)
			refuse(d, "values of two kernels meet before the product");
		const char *w = page_format(d->page, "w%d_%d", i, k);
		page_add(d->page, "\tfloat %s[8];\n", w);
		load8(d, t->in[k], t->in[k]->constant ? NULL : "token", "k", w);
		call = page_format(d->page, "%s, %s[i]", call, w);
	}
	page_add(d->page, "\tfor (int i = 0; i < 8; i++)\n\t\tv[i] = %s);\n", call);
}

static const char *row_index(struct dot *d, const wf_tensor *ids)
{
	const char *at = ids->op != &wf_op_input ? NULL : !strcmp(ids->name, "rows") ? "p.table->row[token]" :
		!strcmp(ids->name, "tokens") ? "token_at(*p.table, token)" : NULL;

	if (!at) {
		refuse(d, "rows picked by a computed number");
		return "token";
	}
	page_pointer(d->page, PAGE_TABLE, NULL, "const struct table *", "table");
	return at;
}

static void add_x8(struct dot *d, const struct feed *f)
{
	const char *row = "token", *k = "k";
	int i = 0;

	for (; i < f->norm; i++)
		if (f->op[i]->op->kind == WF_MAP)
			page_op(d->page, f->op[i], NULL);
	page_add(d->page, "__device__ inline void x8(const args &p, int token, int k, float (&v)[8])\n{\n");
	for (i = 0; i < f->n && f->op[i]->op->kind == WF_MOVE; i++) {
		const wf_tensor *t = f->op[i];
		if (is(t, "take"))
			row = row_index(d, t->in[1]);
		else if (is(t, "cols"))
			k = page_format(d->page, "%s + %lld", k, (long long)attribute(t, "start"));
		else if (is(t, "lane"))
			k = page_format(d->page, "((%s) / %lld * 2 + %d) * %lld + (%s) %% %lld", k, (long long)attribute(t, "block"),
				(int)attribute(t, "at"), (long long)attribute(t, "block"), k, (long long)attribute(t, "block"));
		else if (!t->op->view)
			refuse(d, "an order of values it cannot follow");
	}
	load8(d, f->base, row, k, "v");
	for (; i < f->norm; i++)
		if (f->op[i]->op->kind == WF_MAP)
			map8(d, f->op[i], i, true);
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
	page_add(d->page, "__device__ inline void drop8(const args &p, int k, float sum, float (&v)[8])\n{\n");
	for (int k = 1; k < norm->nin; k++) {
		page_add(d->page, "\tfloat w%d[8];\n", k);
		load8(d, norm->in[k], NULL, "k", page_format(d->page, "w%d", k));
		call = page_format(d->page, "%s, w%d[i]", call, k);
	}
	if (norm->nin < norm->op->nin + norm->op->nopt)
		call = page_format(d->page, "%s, 0", call);
	page_add(d->page, "\tfor (int i = 0; i < 8; i++)\n\t\tv[i] = %s);\n", call);
	for (int i = f->norm + 1; i < f->n; i++)
		if (f->op[i]->op->kind == WF_MAP)
			map8(d, f->op[i], i, false);
	page_add(d->page, "}\n\n");
}

/* ---- what follows it ---------------------------------------------------------------------------------------- */

static const char *operand(struct dot *d, const wf_tensor *t, const wf_tensor *user, const char *at)
{
	int64_t n = row_length(t);
	const char *pointer;

	if (t == d->residual)
		return "extra";
	pointer = page_value(d->page, t);
	if (!t->constant)
		return page_format(d->page, "to_float(p.%s[(size_t)token * %lld + %s])", pointer, (long long)n, at);
	if (wf_nelem(t) == row_length(user))
		return page_format(d->page, "to_float(p.%s[%s])", pointer, at);
	return page_format(d->page, "to_float(p.%s[(%s) %% %lld])", pointer, at, (long long)wf_nelem(t));
}

static struct site *site_of(struct dot *d, const wf_tensor *t)
{
	int i = member(d->kernel, t);

	return i < 0 ? NULL : &d->site[i];
}

static void set_anchor(struct dot *d, int r)
{
	struct site *s = site_of(d, d->anchor);

	*s = (struct site){.region = r, .width = d->pair ? 2 : 1, .val = {"a", "b"}, .at = {"r0", "r1"}};
}

static void line_map(struct dot *d, const wf_tensor *t, struct site *s, int id)
{
	const struct site *first = NULL;

	for (int k = 0; k < t->nin; k++) {
		const struct site *in = site_of(d, t->in[k]);
		if (in && (!first || in->width < first->width))
			first = in;
	}
	bool across = d->region[s->region].pairing == ACROSS;
	s->width = first->width;
	for (int side = 0; side < s->width; side++) {
		const char *call = page_function(d->page, t), *comma = "(";
		s->at[side] = first->at[side];
		for (int k = 0; k < t->nin; k++) {
			const struct site *in = site_of(d, t->in[k]);
			const char *x = in ? in->val[in->width > s->width && across ? 0 : side] : operand(d, t->in[k], t, first->at[side]);
			call = page_format(d->page, "%s%s%s", call, comma, x);
			comma = ", ";
		}
		s->val[side] = page_format(d->page, "v%d%s", id, side ? "b" : "");
		page_add(d->page, "\t\tfloat %s = %s);\n", s->val[side], call);
	}
}

/* One region's view of a cols node: across two regions each holds one of the two scalars. */
static void line_cols(struct dot *d, const wf_tensor *t, struct site *s)
{
	const struct site *in = site_of(d, t->in[0]);
	int64_t start = (int64_t)attribute(t, "start");
	int r = d->nregion > 1 ? region_of_cols(d, t) : s->region;
	int side = d->region[r].pairing == ACROSS_SECOND;
	bool one = side || d->region[r].pairing == ACROSS;

	s->width = one ? 1 : in->width;
	for (int k = 0; k < s->width; k++) {
		s->val[k] = in->val[one ? side : k];
		s->at[k] = start ? page_format(d->page, "(%s - %lld)", in->at[one ? side : k], (long long)start) : in->at[one ? side : k];
	}
}

static void line_lane(struct dot *d, const wf_tensor *t, struct site *s)
{
	const struct site *in = site_of(d, t->in[0]);
	int at = (int)attribute(t, "at");
	long long block = (long long)attribute(t, "block");

	s->width = 1;
	s->val[0] = in->val[at];
	s->at[0] = page_format(d->page, "(%s / %lld * %lld + %s %% %lld)", in->at[0], 2 * block, block, in->at[0], block);
}

static void line_rope(struct dot *d, const wf_tensor *t, struct site *s, int id)
{
	const struct site *in = site_of(d, t->in[0]);
	long long head = wf_last(t), half = row_length(t->in[2]);
	bool neighbours = attribute(t, "pairs") != 0;
	const char *j = page_format(d->page, "(%s %% %lld)", in->at[0], head);
	const char *freq = page_value(d->page, t->in[2]);

	page_pointer(d->page, PAGE_TABLE, NULL, "const struct table *", "table");
	*s = (struct site){.region = s->region, .width = 2, .at = {in->at[0], in->at[1]},
		.val = {page_format(d->page, "v%d", id), page_format(d->page, "v%db", id)}};
	page_add(d->page, "\t\tfloat %s = %s, %s = %s;\n", s->val[0], in->val[0], s->val[1], in->val[1]);
	page_add(d->page, "\t\t%s{\n", 2 * half == head ? "" :
		page_format(d->page, "if (%s < %lld) ", j, neighbours ? 2 * half : half));
	page_add(d->page, "\t\t\tfloat2 turned = turn(%s, %s, (float)p.table->pos[token], to_float(p.%s[%s]));\n", s->val[0],
		s->val[1], freq, neighbours ? page_format(d->page, "%s / 2", j) : j);
	page_add(d->page, "\t\t\t%s = turned.x;\n\t\t\t%s = turned.y;\n\t\t}\n", s->val[0], s->val[1]);
}

static void store_value(struct dot *d, const wf_tensor *t, const struct site *s)
{
	const char *type = page_type(d->page, t), *pointer = page_value(d->page, t);

	for (int side = 0; side < s->width; side++)
		page_add(d->page, "\t\tp.%s[(size_t)token * %lld + %s] = from_float<%s>(%s);\n", pointer, (long long)row_length(t),
			s->at[side], type, s->val[side]);
}

static void append_cache(struct dot *d, const wf_tensor *t, int v, const struct site *s)
{
	long long n = wf_last(t->in[v]);
	const char *type = page_type(d->page, t);

	page_pointer(d->page, PAGE_TABLE, NULL, "const struct table *", "table");
	page_pointer(d->page, PAGE_KV, t, "long long", "layer");
	for (int side = 0; side < s->width; side++)
		page_add(d->page, "\t\t%s_of(p, token, (int)(%s / %lld))[%s %% %lld] = from_float<%s>(%s);\n", v ? "value" : "key",
			s->at[side], n, s->at[side], n, type, s->val[side]);
}

/* One member in region r, if it has a value there. */
static void line(struct dot *d, int i, int r)
{
	const wf_tensor *t = d->kernel->node[i];
	struct site *s = &d->site[i];
	bool is_cols = is(t, "cols") && t->in[0] == d->anchor;
	int at = is_cols ? region_of_cols(d, t) : s->region;

	if (t == d->anchor || at < 0)
		return;
	if (t->op->state) {
		for (int v = 0; v < 2; v++)
			if (site_of(d, t->in[v])->region == r)
				append_cache(d, t, v, site_of(d, t->in[v]));
		return;
	}
	if (at != r && !(d->region[at].pairing == ACROSS_SECOND && d->region[at].with == r))
		return;
	if (is_cols)
		line_cols(d, t, s);
	else if (is(t, "lane"))
		line_lane(d, t, s);
	else if (is(t, "rope"))
		line_rope(d, t, s, i);
	else if (t->op->kind == WF_MAP)
		line_map(d, t, s, i);
	else if (t->op->view) {
		const struct site *in = site_of(d, t->in[0]);
		int keep = s->region;
		*s = *in;
		s->region = keep;
	} else if (is(t, "cols"))
		line_cols(d, t, s);
	else
		refuse(d, "an order of values it cannot follow");
	if (!d->why && d->page->plan->value[t->id].stored)
		store_value(d, t, s);
}

/* A value of another kernel that one map adds to the product: read while weights still stream. */
static void find_residual(struct dot *d)
{
	for (int i = 0; i < d->kernel->nnode && !d->pair && d->nregion == 1; i++) {
		const wf_tensor *t = d->kernel->node[i];
		if (d->site[i].region < 0 || t->op->kind != WF_MAP)
			continue;
		for (int k = 0; k < t->nin; k++)
			if (!d->residual && !t->in[k]->constant && member(d->kernel, t->in[k]) < 0 &&
			    row_length(t->in[k]) == wf_last(d->anchor))
				d->residual = t->in[k];
	}
	if (!d->residual)
		return;
	page_define(d->page, "FETCH", "1");
	page_add(d->page, "__device__ inline float fetch(const args &p, int unit, int token)\n{\n"
		"\treturn to_float(p.%s[(size_t)token * %lld + unit]);\n}\n\n", page_value(d->page, d->residual),
		(long long)row_length(d->residual));
}

static void add_condition(struct dot *d, const struct region *r)
{
	long long start = r->start, end = start + r->n;

	if (d->nregion == 1)
		page_add(d->page, "\t{\n");
	else if (start == 0)
		page_add(d->page, "\tif (r0 < %lld) {\n", end);
	else
		page_add(d->page, "\tif (r0 >= %lld && r0 < %lld) {\n", start, end);
}

static void add_store(struct dot *d)
{
	page_add(d->page, "__device__ inline float store(const args &p, int unit, int token, float a, "
		"[[maybe_unused]] float b, [[maybe_unused]] float extra)\n{\n\tint r0 = row_of(unit, 0);\n");
	if (d->pair)
		page_add(d->page, "\t[[maybe_unused]] int r1 = row_of(unit, 1);\n");
	for (int r = 0; r < d->nregion; r++) {
		if (!d->region[r].units)
			continue;
		add_condition(d, &d->region[r]);
		set_anchor(d, r);
		if (d->page->plan->value[d->anchor->id].stored)
			store_value(d, d->anchor, site_of(d, d->anchor));
		for (int i = 0; i < d->kernel->nnode && !d->why; i++)
			line(d, i, r);
		page_add(d->page, "\t}\n");
	}
	page_add(d->page, "\treturn a;\n}\n\n");
}

/* The library's sincosf has a slow path with a stack frame every thread pays for. */
static void add_scalars(struct dot *d)
{
	for (int i = 0; i < d->kernel->nnode; i++) {
		const wf_tensor *t = d->kernel->node[i];
		if (d->site[i].region < 0)
			continue;
		if (t->op->kind == WF_MAP || is(t, "rope"))
			page_op(d->page, t, (const struct page_word[]){{"sincosf", "sin_cos"}, {NULL, NULL}});
		if (t->op->state)
			page_cache(d->page, t);
	}
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
			page_add(p, "\ttouch_all(p.%s, %lld);\n", p->arg[i].name, (long long)wf_row_bytes(t->dtype, row_length(t)));
	}
	for (int i = 0; i < d->kernel->nnode; i++)
		if (d->kernel->node[i]->op->state)
			page_add(p, "\tif ((int)threadIdx.x < count(p))\n\t\ttouch((int)(size_t)key_of(p, threadIdx.x, 0));\n");
	page_add(p, "}\n\n");
}

const char *emit_dot_hooks(struct page *p, const wf_kernel *kernel, int what)
{
	struct dot d = {.page = p, .kernel = kernel, .anchor = kernel->anchor};
	const wf_tensor *w = d.anchor->in[0];
	struct feed feed;
	int64_t units = 0;

	if (analyse(&d) || find_feed(&d, &feed))
		return d.why;
	for (int r = 0; r < d.nregion; r++)
		units += d.region[r].units;
	page_define(p, "ROWS", "%lld", (long long)w->dim[0]);
	page_define(p, "COLS", "%lld", (long long)w->dim[1]);
	page_define(p, "WTYPE", "%s", page_type(p, w));
	page_define(p, "XTYPE", "%s", page_type(p, feed.base));
	page_define(p, "PAIR", "%d", d.pair);
	page_define(p, "UNITS", "%lld", (long long)units);
	page_pointer(p, PAGE_CONSTANT, w, "const byte *", "w");
	page_count(p, d.anchor);
	add_row_of(&d);
	page_add(p, "__device__ inline const byte *row_at(const args &p, int unit, int side)\n{\n"
		"\treturn p.w + row_of(unit, side) * (COLS / format<WTYPE>::LEN * (long long)format<WTYPE>::BYTES);\n}\n\n");
	if (what & EMIT_FEED) {
		add_x8(&d, &feed);
		add_norm(&d, &feed);
	}
	if (what & EMIT_STORE) {
		add_scalars(&d);
		find_residual(&d);
		add_store(&d);
	}
	if (!d.why)
		add_warm(&d);
	return d.why;
}

/* A bare product: rows as they are in memory, or made ready in scratch; the result to scratch. */
void emit_plain_hooks(struct page *p, const wf_kernel *kernel, bool ready)
{
	const wf_tensor *anchor = kernel->anchor, *w = anchor->in[0], *x = anchor->in[1];

	while (!ready && member(kernel, x) >= 0)
		x = x->in[0];
	const char *type = page_type(p, x);
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
	page_add(p, "__device__ inline float store(const args &p, int unit, int token, float a, float, float)\n{\n"
		"\treturn p.product[(size_t)token * ROWS + unit] = a;\n}\n");
}
