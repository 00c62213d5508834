/* dot_store.c - what follows a product: the epilogue as a straight line per region of columns.
 * dot_pair.c has found which columns meet; every member's value is one or two scalars. */
#include "backends/cuda/cuda.h"

#include <string.h>

static const char *operand(struct dot *d, const wf_tensor *t, const wf_tensor *user, const char *at)
{
	int64_t n = emit_width(t);
	const char *pointer;

	if (t == d->residual)
		return "extra";
	pointer = page_value(d->page, t);
	if (!t->constant)
		return page_format(d->page, "to_float(p.%s[(size_t)token * %lld + %s])", pointer, (long long)n, at);
	if (wf_nelem(t) == emit_width(user))
		return page_format(d->page, "to_float(p.%s[%s])", pointer, at);
	return page_format(d->page, "to_float(p.%s[(%s) %% %lld])", pointer, at, (long long)wf_nelem(t));
}

static struct dot_site *site_of(struct dot *d, const wf_tensor *t)
{
	int i = emit_member(d->kernel, t);

	return i < 0 ? NULL : &d->site[i];
}

static void set_anchor(struct dot *d, int r)
{
	struct dot_site *s = site_of(d, d->anchor);

	*s = (struct dot_site){.region = r, .width = d->pair ? 2 : 1, .val = {"a", "b"}, .at = {"r0", "r1"}};
}

static void line_map(struct dot *d, const wf_tensor *t, struct dot_site *s, int id)
{
	const struct dot_site *first = NULL;

	for (int k = 0; k < t->nin; k++) {
		const struct dot_site *in = site_of(d, t->in[k]);
		if (in && (!first || in->width < first->width))
			first = in;
	}
	bool across = d->region[s->region].pairing == ACROSS;
	s->width = first->width;
	for (int side = 0; side < s->width; side++) {
		const char *call = page_function(d->page, t), *comma = "(";
		s->at[side] = first->at[side];
		for (int k = 0; k < t->nin; k++) {
			const struct dot_site *in = site_of(d, t->in[k]);
			const char *x = in ? in->val[in->width > s->width && across ? 0 : side] : operand(d, t->in[k], t, first->at[side]);
			call = page_format(d->page, "%s%s%s", call, comma, x);
			comma = ", ";
		}
		s->val[side] = page_format(d->page, "v%d%s", id, side ? "b" : "");
		page_add(d->page, "\t\tfloat %s = %s);\n", s->val[side], call);
	}
}

/* One region's view of a cols node: across two regions each holds one of the two scalars. */
static void line_cols(struct dot *d, const wf_tensor *t, struct dot_site *s)
{
	const struct dot_site *in = site_of(d, t->in[0]);
	int64_t start = (int64_t)emit_attr(t, "start");
	int r = d->nregion > 1 ? dot_region_of(d, t) : s->region;
	int side = d->region[r].pairing == ACROSS_SECOND;
	bool one = side || d->region[r].pairing == ACROSS;

	s->width = one ? 1 : in->width;
	for (int k = 0; k < s->width; k++) {
		s->val[k] = in->val[one ? side : k];
		s->at[k] = start ? page_format(d->page, "(%s - %lld)", in->at[one ? side : k], (long long)start) : in->at[one ? side : k];
	}
}

static void line_lane(struct dot *d, const wf_tensor *t, struct dot_site *s)
{
	const struct dot_site *in = site_of(d, t->in[0]);
	int at = (int)emit_attr(t, "at");
	long long block = (long long)emit_attr(t, "block");

	s->width = 1;
	s->val[0] = in->val[at];
	s->at[0] = page_format(d->page, "(%s / %lld * %lld + %s %% %lld)", in->at[0], 2 * block, block, in->at[0], block);
}

static void line_rope(struct dot *d, const wf_tensor *t, struct dot_site *s, int id)
{
	const struct dot_site *in = site_of(d, t->in[0]);
	long long head = wf_last(t), half = emit_width(t->in[2]);
	bool neighbours = emit_attr(t, "pairs") != 0;
	const char *j = page_format(d->page, "(%s %% %lld)", in->at[0], head);
	const char *freq = page_value(d->page, t->in[2]);

	page_pointer(d->page, PAGE_TABLE, NULL, "const struct table *", "table");
	*s = (struct dot_site){.region = s->region, .width = 2, .at = {in->at[0], in->at[1]},
		.val = {page_format(d->page, "v%d", id), page_format(d->page, "v%db", id)}};
	page_add(d->page, "\t\tfloat %s = %s, %s = %s;\n", s->val[0], in->val[0], s->val[1], in->val[1]);
	page_add(d->page, "\t\t%s{\n", 2 * half == head ? "" :
		page_format(d->page, "if (%s < %lld) ", j, neighbours ? 2 * half : half));
	page_add(d->page, "\t\t\tfloat2 turned = turn(%s, %s, (float)p.table->pos[token], to_float(p.%s[%s]));\n", s->val[0],
		s->val[1], freq, neighbours ? page_format(d->page, "%s / 2", j) : j);
	page_add(d->page, "\t\t\t%s = turned.x;\n\t\t\t%s = turned.y;\n\t\t}\n", s->val[0], s->val[1]);
}

static void store_value(struct dot *d, const wf_tensor *t, const struct dot_site *s)
{
	const char *type = page_type(d->page, t), *pointer = page_value(d->page, t);

	for (int side = 0; side < s->width; side++)
		page_add(d->page, "\t\tp.%s[(size_t)token * %lld + %s] = from_float<%s>(%s);\n", pointer, (long long)emit_width(t),
			s->at[side], type, s->val[side]);
}

static void append_cache(struct dot *d, const wf_tensor *t, int v, const struct dot_site *s)
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
	struct dot_site *s = &d->site[i];
	bool is_cols = emit_is(t, "cols") && t->in[0] == d->anchor;
	int at = is_cols ? dot_region_of(d, t) : s->region;

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
	else if (emit_is(t, "lane"))
		line_lane(d, t, s);
	else if (emit_is(t, "rope"))
		line_rope(d, t, s, i);
	else if (t->op->kind == WF_MAP)
		line_map(d, t, s, i);
	else if (t->op->view) {
		const struct dot_site *in = site_of(d, t->in[0]);
		int keep = s->region;
		*s = *in;
		s->region = keep;
	} else if (emit_is(t, "cols"))
		line_cols(d, t, s);
	else
		dot_refuse(d, "an order of values it cannot follow");
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
			if (!d->residual && !t->in[k]->constant && emit_member(d->kernel, t->in[k]) < 0 &&
			    emit_width(t->in[k]) == wf_last(d->anchor))
				d->residual = t->in[k];
	}
	if (!d->residual)
		return;
	page_define(d->page, "FETCH", "1");
	page_add(d->page, "__device__ inline float fetch(const args &p, int unit, int token)\n{\n"
		"\treturn to_float(p.%s[(size_t)token * %lld + unit]);\n}\n\n", page_value(d->page, d->residual),
		(long long)emit_width(d->residual));
}

static void add_condition(struct dot *d, const struct dot_region *r)
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
	page_add(d->page, "__device__ inline void store(const args &p, int unit, int token, float a, "
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
	page_add(d->page, "}\n\n");
}

/* The library's sincosf has a slow path with a stack frame every thread pays for. */
static void add_scalars(struct dot *d)
{
	for (int i = 0; i < d->kernel->nnode; i++) {
		const wf_tensor *t = d->kernel->node[i];
		if (d->site[i].region < 0)
			continue;
		if (t->op->kind == WF_MAP || emit_is(t, "rope"))
			page_op(d->page, t, (const struct page_word[]){{"sincosf", "sin_cos"}, {NULL, NULL}});
		if (t->op->state)
			page_cache(d->page, t);
	}
}

void dot_add_store(struct dot *d)
{
	add_scalars(d);
	find_residual(d);
	add_store(d);
}
