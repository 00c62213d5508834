/* program.c - a fused group as a list of actions, and the loop that runs it on one row.
 *
 * The same interpreter serves what feeds a product (whole rows), what follows it (the tile just
 * computed, columns lo..hi) and kernels without a product (whole rows).  Views cost a pointer. */
#include "backends/cpu/cpu.h"
#include <string.h>

enum { MAXACTION = 64 };

/* ---- compiling ---- */

static int64_t row_length(const wf_tensor *t)
{
	int64_t n = 1;

	for (int i = 1; i < t->ndim; i++)
		n *= t->dim[i];
	return t->ndim == 1 && t->dim[0] > 0 ? t->dim[0] : n;
}

static int32_t *bound_input(const struct cpu_exec *e, const char *name)
{
	static const char *const names[] = {"tokens", "positions", "rows"};

	for (int i = 0; i < 3; i++)
		if (!strcmp(name, names[i]))
			return e->input[i];
	wf_fail(e->base.err, "cpu: input %s, expected tokens, positions or rows", name);
	return NULL;
}

static float *stored_at(const struct cpu_exec *e, const wf_tensor *t)
{
	const struct wf_value *value = &e->base.plan->value[t->id];

	return value->stored ? (float *)(void *)((uint8_t *)e->activations + value->offset) : NULL;
}

static int find_action(const struct cpu_program *p, const wf_tensor *t)
{
	for (int i = p->n - 1; i >= 0; i--)
		if (p->action[i].node == t)
			return i;
	return FROM_MEMORY;
}

static int operand(struct cpu_exec *e, const struct cpu_program *p, const wf_tensor *anchor, wf_tensor *t,
		bool raw, struct cpu_operand *o)
{
	*o = (struct cpu_operand){.from = t == anchor ? FROM_TILE : find_action(p, t), .row = row_length(t)};
	if (o->from != FROM_MEMORY || t->op->state)
		return 0;
	if (t->op == &wf_op_input) {
		o->row = 1;
		o->base = bound_input(e, t->name);
	} else if (t->constant) {
		o->row = 0;
		o->length = wf_nelem(t);
		o->base = raw ? weights_raw(e, t) : weights_f32(e, t);
	} else {
		o->base = stored_at(e, t);
	}
	return o->base ? 0 : wf_fail(e->base.err, "cpu: %s %%%d has no storage", t->op->name, t->id);
}

static struct cpu_rope *rope_table(struct cpu_exec *e, const wf_tensor *t)
{
	float scale = (float)t->attr[wf_attr_index(t->op, "mscale")];
	struct cpu_rope *r;

	for (r = e->rope; r; r = r->next)
		if (r->freqs == t->in[2] && r->pos == t->in[1] && r->scale == scale)
			return r;
	r = wf_alloc(e->arena, sizeof *r);
	if (!r)
		return NULL;
	*r = (struct cpu_rope){.freqs = t->in[2], .pos = t->in[1], .half = wf_nelem(t->in[2]), .scale = scale, .next = e->rope};
	r->freq = weights_f32(e, t->in[2]);
	r->table = wf_alloc_n(e->arena, e->base.plan->opt.max_tokens * r->half * 2, sizeof *r->table);
	if (!r->freq || !r->table)
		return NULL;
	e->rope = r;
	return r;
}

static struct cpu_cache *find_cache(const struct cpu_exec *e, const wf_tensor *t)
{
	for (int i = 0; i < e->ncache; i++)
		if (e->cache[i].node == t)
			return &e->cache[i];
	return NULL;
}

static int64_t lcm(int64_t a, int64_t b)
{
	int64_t x = a, y = b;

	while (y) {
		int64_t r = x % y;
		x = y;
		y = r;
	}
	return a / x * b;
}

/* Ranges must hold whole heads; heads must start where ranges may. */
static void need_unit(struct cpu_program *p, int64_t unit)
{
	if (p->unit)
		p->unit = lcm(p->unit, unit);
}

static struct cpu_action *append(struct cpu_exec *e, struct cpu_program *p, const wf_tensor *t, enum cpu_action_kind kind)
{
	struct cpu_action *a = &p->action[p->n];

	if (p->n == MAXACTION) {
		wf_fail(e->base.err, "cpu: a kernel of more than %d steps", MAXACTION);
		return NULL;
	}
	*a = (struct cpu_action){.kind = kind, .node = t, .len = row_length(t), .sub = wf_last(t),
		.stored = stored_at(e, t), .slot = p->slots};
	if (t->op->state)
		a->stored = NULL;
	else if (!a->stored && kind != DO_VIEW && kind != DO_COLS)
		p->slots += (a->len + 15) / 16 * 16;
	return a;
}

/* A cache append is two actions: the keys where they are made, the values where they are. */
static int compile_cache(struct cpu_exec *e, struct cpu_program *p, const wf_tensor *anchor, const wf_tensor *t)
{
	struct cpu_cache *cache = find_cache(e, t);

	if (!cache)
		return wf_fail(e->base.err, "cpu: cache %%%d has no class in the slab", t->id);
	for (int v = 0; v < 2; v++) {
		struct cpu_action *a = append(e, p, t, v ? DO_VALUES : DO_KEYS);
		if (!a || operand(e, p, anchor, t->in[v], false, &a->in[0]))
			return -1;
		a->nin = 1;
		a->len = row_length(t->in[v]);
		a->sub = v ? cache->vdim : cache->kdim;
		a->cache = cache;
		need_unit(p, a->sub);
		p->n++;
	}
	return 0;
}

static enum cpu_action_kind kind_of(const wf_tensor *t)
{
	if (t->op->kind == WF_MAP)
		return DO_MAP;
	if (t->op->kind == WF_ROW)
		return strcmp(t->op->name, "rope") ? DO_ROW : DO_ROPE;
	if (t->op->kind == WF_ROUTE)
		return DO_ROUTE;
	if (t->op->view)
		return DO_VIEW;
	if (!strcmp(t->op->name, "cols"))
		return DO_COLS;
	if (!strcmp(t->op->name, "join"))
		return DO_JOIN;
	return !strcmp(t->op->name, "lane") ? DO_LANE : DO_TAKE;
}

/* Operands of one elementwise action must cover the same range of every tile. */
static void find_shift(struct cpu_program *p, struct cpu_action *a)
{
	int known = 0;

	for (int k = 0; k < a->nin; k++) {
		int64_t shift = a->in[k].from >= 0 ? p->action[a->in[k].from].shift : 0;
		if (a->in[k].from == FROM_MEMORY)
			continue;
		if (known++ && shift != a->shift)
			p->unit = 0;
		a->shift = shift;
	}
	if (a->kind == DO_COLS)
		a->shift += (int64_t)a->node->attr[0];
}

static int compile_node(struct cpu_exec *e, struct cpu_program *p, const wf_tensor *anchor, const wf_tensor *t)
{
	if (t->op->state)
		return compile_cache(e, p, anchor, t);
	struct cpu_action *a = append(e, p, t, kind_of(t));
	if (!a)
		return -1;
	if ((a->kind == DO_MAP || a->kind == DO_ROW || a->kind == DO_ROUTE) && !t->op->span)
		return wf_fail(e->base.err, "cpu: op %s has no span function", t->op->name);
	for (a->nin = 0; a->nin < t->nin; a->nin++)
		if (operand(e, p, anchor, t->in[a->nin], a->kind == DO_TAKE, &a->in[a->nin]))
			return -1;
	find_shift(p, a);
	if (a->kind == DO_ROW || a->kind == DO_ROPE)
		need_unit(p, a->sub);
	if (a->kind == DO_ROPE && !(a->rope = rope_table(e, t)))
		return wf_fail(e->base.err, "cpu: out of memory");
	if (a->kind == DO_LANE && a->in[0].from == FROM_TILE) {
		p->piece = (int64_t)(t->attr[0] * t->attr[2]);
		need_unit(p, p->piece);
	} else if (a->kind == DO_LANE) {
		p->unit = 0;
	}
	p->n++;
	return 0;
}

/* Nodes first..last of the kernel, less its product or attention. */
int program_compile(struct cpu_exec *e, struct cpu_program *p, const wf_kernel *kernel, int first, int last)
{
	const wf_tensor *anchor = kernel->anchor;
	bool tiled = anchor->op->kind == WF_DOT || anchor->op->kind == WF_ATTEND;

	*p = (struct cpu_program){.unit = 1, .action = wf_alloc_n(e->arena, MAXACTION, sizeof *p->action)};
	if (!p->action)
		return wf_fail(e->base.err, "cpu: out of memory");
	for (int i = first; i <= last; i++)
		if (!(tiled && kernel->node[i] == anchor) &&
		    compile_node(e, p, tiled ? anchor : NULL, kernel->node[i]))
			return -1;
	for (int i = 0; i < p->n; i++)
		if (p->action[i].kind == DO_COLS && p->unit && (int64_t)p->action[i].node->attr[0] % p->unit)
			p->unit = 0;      /* heads do not start where ranges may: whole rows only */
	return 0;
}

/* ---- running ---- */

struct range { const float *p; int64_t lo, hi; };

static struct range of_operand(const struct cpu_operand *o, const struct range *done, struct range tile, int t)
{
	if (o->from >= 0)
		return done[o->from];
	if (o->from == FROM_TILE)
		return tile;
	return (struct range){(const float *)o->base + t * o->row, 0, o->row};
}

/* The range an elementwise action covers: that of its operands made in this kernel. */
static struct range common_range(const struct cpu_action *a, const struct range *done, struct range tile)
{
	struct range r = {NULL, 0, a->len};

	for (int k = 0; k < a->nin; k++)
		if (a->in[k].from != FROM_MEMORY) {
			struct range x = of_operand(&a->in[k], done, tile, 0);
			r.lo = x.lo;
			r.hi = x.hi;
		}
	return r;
}

static float *result(const struct cpu_exec *e, const struct cpu_action *a, int id, int t, int64_t lo)
{
	return a->stored ? a->stored + t * a->len + lo : e->slots + id * e->slot_floats + a->slot;
}

static struct range run_map(struct cpu_exec *e, const struct cpu_action *a, const struct range *done, struct range tile, int id, int t)
{
	struct range r = common_range(a, done, tile);
	float *out = result(e, a, id, t, r.lo);
	int64_t step;

	for (int64_t i = r.lo; i < r.hi; i += step) {
		struct wf_span s = {.out = out + (i - r.lo), .attr = a->node->attr};
		step = r.hi - i;
		for (int k = 0; k < a->nin; k++) {
			const struct cpu_operand *o = &a->in[k];
			if (o->from != FROM_MEMORY) {
				s.in[k] = of_operand(o, done, tile, t).p + (i - r.lo);
			} else if (o->row) {
				s.in[k] = (const float *)o->base + t * o->row + i;
			} else {
				s.in[k] = (const float *)o->base + i % o->length;
				if (step > o->length - i % o->length)
					step = o->length - i % o->length;
			}
		}
		s.n = step;
		a->node->op->span(&s);
	}
	r.p = out;
	return r;
}

static struct range run_row(struct cpu_exec *e, const struct cpu_action *a, const struct range *done, struct range tile, int id, int t)
{
	struct range x = of_operand(&a->in[0], done, tile, t), r = {NULL, x.lo, x.hi};
	float *out = result(e, a, id, t, r.lo);
	struct wf_span s = {.attr = a->node->attr, .n = a->sub, .token = t};

	for (int k = 1; k < a->nin; k++) {
		s.in[k] = a->in[k].base;
		s.length[k] = wf_nelem(a->node->in[k]);
	}
	for (int64_t i = 0; i < r.hi - r.lo; i += a->sub) {
		s.in[0] = x.p + i;
		s.out = out + i;
		s.row = (t * a->len + r.lo + i) / a->sub;
		a->node->op->span(&s);
	}
	r.p = out;
	return r;
}

static void turn_pairs(float *o, const float *x, const float *c, const float *s, int64_t half)
{
	for (int64_t i = 0; i < half; i++) {
		float a = x[2 * i], b = x[2 * i + 1];
		o[2 * i] = a * c[i] - b * s[i];
		o[2 * i + 1] = b * c[i] + a * s[i];
	}
}

static void turn_halves(float *restrict o, const float *restrict x, const float *restrict c, const float *restrict s, int64_t half)
{
	for (int64_t i = 0; i < half; i++) {
		float a = x[i], b = x[i + half];
		o[i] = a * c[i] - b * s[i];
		o[i + half] = b * c[i] + a * s[i];
	}
}

static struct range run_rope(struct cpu_exec *e, const struct cpu_action *a, const struct range *done, struct range tile, int id, int t)
{
	struct range x = of_operand(&a->in[0], done, tile, t), r = {NULL, x.lo, x.hi};
	int64_t half = a->rope->half;
	const float *c = a->rope->table + t * half * 2, *s = c + half;
	float *out = result(e, a, id, t, r.lo);

	for (int64_t i = 0; i < r.hi - r.lo; i += a->sub) {
		(a->node->attr[0] != 0 ? turn_pairs : turn_halves)(out + i, x.p + i, c, s, half);
		memcpy(out + i + 2 * half, x.p + i + 2 * half, sizeof *out * (a->sub - 2 * half));
	}
	r.p = out;
	return r;
}

static void take_row(struct cpu_exec *e, const struct cpu_action *a, int64_t row, int64_t n, float *out)
{
	const wf_tensor *table = a->node->in[0];

	if (row < 0 || row >= wf_size(table, 0))
		memset(out, 0, sizeof *out * n);
	else if (table->constant && table->dtype <= WF_BF16)
		e->k->load(table->dtype, out, (const uint8_t *)a->in[0].base + row * wf_row_bytes(table->dtype, n), n);
	else if (table->constant)
		wf_decode(table->dtype, out, (const uint8_t *)a->in[0].base + row * wf_row_bytes(table->dtype, n), n);
	else
		memcpy(out, (const float *)a->in[0].base + row * n, sizeof *out * n);
}

/* Row ids[t] of a table; a stray id reads as zeros. */
static struct range run_take(struct cpu_exec *e, const struct cpu_action *a, int id, int t)
{
	const wf_tensor *table = a->node->in[0];
	int64_t n = wf_last(table), each = a->len / n;
	const int32_t *ids = (const int32_t *)a->in[1].base + t * each;
	struct range r = {NULL, 0, a->len};

	if (each == 1 && !table->constant && !a->stored && ids[0] >= 0 && ids[0] < wf_size(table, 0)) {
		r.p = (const float *)a->in[0].base + ids[0] * n;
		return r;
	}
	float *out = result(e, a, id, t, 0);
	for (int64_t i = 0; i < each; i++)
		take_row(e, a, ids[i], n, out + i * n);
	r.p = out;
	return r;
}

static struct range run_join(struct cpu_exec *e, const struct cpu_action *a, const struct range *done, struct range tile, int id, int t)
{
	int64_t n = wf_last(a->node->in[0]), m = wf_last(a->node->in[1]), nhead = a->len / (n + m);
	const float *x = of_operand(&a->in[0], done, tile, t).p, *y = of_operand(&a->in[1], done, tile, t).p;
	int64_t step = wf_size(a->node->in[1], 1) == 1 ? 0 : m;
	float *out = result(e, a, id, t, 0);

	for (int64_t h = 0; h < nhead; h++) {
		memcpy(out + h * (n + m), x + h * n, sizeof *out * n);
		memcpy(out + h * (n + m) + n, y + h * step, sizeof *out * m);
	}
	return (struct range){out, 0, a->len};
}

static struct range run_route(struct cpu_exec *e, const struct cpu_action *a, const struct range *done, struct range tile, int id, int t)
{
	struct wf_span s = {.out = result(e, a, id, t, 0), .attr = a->node->attr, .n = a->len, .row = t, .token = t};

	for (int k = 0; k < a->nin; k++) {
		s.in[k] = of_operand(&a->in[k], done, tile, t).p;
		s.length[k] = a->in[k].row ? a->in[k].row : a->in[k].length;
	}
	a->node->op->span(&s);
	return (struct range){s.out, 0, a->len};
}

static struct range keep(struct cpu_exec *e, const struct cpu_action *a, struct range r, int id, int t)
{
	if (!a->stored || r.lo >= r.hi || r.p == a->stored + t * a->len + r.lo)
		return r;
	float *out = result(e, a, id, t, r.lo);
	memcpy(out, r.p, sizeof *out * (r.hi - r.lo));
	r.p = out;
	return r;
}

static struct range run_cols(struct cpu_exec *e, const struct cpu_action *a, struct range x, int id, int t)
{
	int64_t start = (int64_t)a->node->attr[0], n = (int64_t)a->node->attr[1];
	int64_t lo = x.lo > start ? x.lo : start, hi = x.hi < start + n ? x.hi : start + n;

	if (lo >= hi)
		return (struct range){NULL, 0, 0};
	return keep(e, a, (struct range){x.p + (lo - x.lo), lo - start, hi - start}, id, t);
}

static struct range run_lane(struct cpu_exec *e, const struct cpu_program *p, const struct cpu_action *a, struct range x, int id, int t)
{
	int64_t of = (int64_t)a->node->attr[0], at = (int64_t)a->node->attr[1], block = (int64_t)a->node->attr[2];

	if (p->piece && x.hi - x.lo == of * block)
		return keep(e, a, (struct range){x.p + at * block, x.lo / of, x.lo / of + block}, id, t);
	struct range r = {NULL, x.lo / of, x.hi / of};
	float *out = result(e, a, id, t, r.lo);
	for (int64_t i = 0; i < r.hi - r.lo; i += block)
		memcpy(out + i, x.p + (i * of + at * block), sizeof *out * block);
	r.p = out;
	return r;
}

static void run_cache(struct cpu_exec *e, const struct cpu_action *a, struct range x, int t)
{
	const struct cpu_cache *c = a->cache;
	bool values = a->kind == DO_VALUES;
	int s = kv_seq_of(e->batch, t), pos = e->batch->pos[t];
	int32_t page = e->batch->page[s * e->nclass + c->cls][pos / e->page_tokens];
	size_t bytes = (size_t)a->sub * wf_dtypes[c->dtype].bytes;

	if (page < 0)
		return;
	uint8_t *to = (values ? c->v : c->k) + (size_t)page * c->page_bytes + (pos % e->page_tokens) * bytes;
	for (int64_t i = x.lo; i < x.hi; i += a->sub)
		e->k->store(c->dtype, to + (i / a->sub) * e->page_tokens * bytes, x.p + (i - x.lo), a->sub);
}

static const float *run_piece(struct cpu_exec *e, const struct cpu_program *p, int id, int t, struct range tile)
{
	struct range done[MAXACTION];

	for (int i = 0; i < p->n; i++) {
		const struct cpu_action *a = &p->action[i];
		struct range x = {NULL, 0, a->len}, *r = &done[i];
		bool inside = false;
		for (int k = 0; k < a->nin; k++)
			inside |= a->in[k].from != FROM_MEMORY;
		if (a->kind != DO_TAKE)
			x = a->kind == DO_MAP ? common_range(a, done, tile) : of_operand(&a->in[0], done, tile, t);
		*r = (struct range){NULL, 0, 0};
		if (inside && x.lo >= x.hi)
			continue;
		switch (a->kind) {
		case DO_MAP:  *r = run_map(e, a, done, tile, id, t); break;
		case DO_ROW:  *r = run_row(e, a, done, tile, id, t); break;
		case DO_ROPE: *r = run_rope(e, a, done, tile, id, t); break;
		case DO_TAKE: *r = run_take(e, a, id, t); break;
		case DO_JOIN: *r = run_join(e, a, done, tile, id, t); break;
		case DO_ROUTE: *r = run_route(e, a, done, tile, id, t); break;
		case DO_VIEW: *r = keep(e, a, x, id, t); break;
		case DO_COLS: *r = run_cols(e, a, x, id, t); break;
		case DO_LANE: *r = run_lane(e, p, a, x, id, t); break;
		case DO_KEYS:
		case DO_VALUES: run_cache(e, a, x, t); break;
		}
	}
	return p->n ? done[p->n - 1].p : tile.p;
}

const float *program_run(struct cpu_exec *e, const struct cpu_program *p, int id, int t, const float *tile, int64_t lo, int64_t hi)
{
	const float *last = NULL;

	if (!tile || !p->piece)
		return run_piece(e, p, id, t, (struct range){tile, lo, hi});
	for (int64_t at = lo; at < hi; at += p->piece)
		last = run_piece(e, p, id, t, (struct range){tile + (at - lo), at, at + p->piece});
	return last;
}
