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
		a->lead = a->in[0].from;
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
		return row_length(t) > wf_last(t) ? DO_HEAD_COLS : DO_COLS;
	if (!strcmp(t->op->name, "join"))
		return DO_JOIN;
	return !strcmp(t->op->name, "lane") ? DO_LANE : DO_TAKE;
}

/* Operands of one elementwise action must cover the same range of every tile: that of the last one
 * made here.  Other actions run on the range of their first. */
static void find_shift(struct cpu_program *p, struct cpu_action *a)
{
	int known = 0;

	a->lead = a->kind == DO_TAKE ? FROM_MEMORY : a->in[0].from;
	for (int k = 0; k < a->nin && a->kind == DO_MAP; k++)
		if (a->in[k].from != FROM_MEMORY)
			a->lead = a->in[k].from;

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

/* Takes and makes whole rows. */
static bool is_whole(const struct cpu_action *a)
{
	return a->kind == DO_JOIN || a->kind == DO_ROUTE || a->kind == DO_HEAD_COLS;
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
	if (a->kind == DO_TAKE && strcmp(t->op->name, "take"))
		return wf_fail(e->base.err, "cpu: no kernel for %s of computed values", t->op->name);
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
	} else if (a->kind == DO_LANE || is_whole(a)) {
		p->unit = 0;
	}
	p->n++;
	return 0;
}

static bool is_map(const struct cpu_action *a, const char *op)
{
	return a->kind == DO_MAP && !strcmp(a->node->op->name, op);
}

/* Activations have kernels of their own: an op's loop calls the C library for each. */
static void choose_kernels(const struct cpu_exec *e, struct cpu_program *p)
{
	for (struct cpu_action *a = p->action; a < p->action + p->n; a++)
		if (a->in[0].from != FROM_MEMORY && (is_map(a, "silu") || is_map(a, "gelu_tanh")))
			a->unary = is_map(a, "silu") ? e->k->silu : e->k->gelu;
}

static int uses(const struct cpu_program *p, int i)
{
	int n = 0;

	for (const struct cpu_action *a = p->action; a < p->action + p->n; a++)
		for (int k = 0; k < a->nin; k++)
			n += a->in[k].from == i;
	return n;
}

/* act(gate) * up in one. */
static void join_gates(const struct cpu_exec *e, struct cpu_program *p)
{
	for (struct cpu_action *a = p->action; a < p->action + p->n; a++)
		for (int k = 0; k < 2 && is_map(a, "mul"); k++) {
			struct cpu_action *act = a->in[k].from >= 0 ? &p->action[a->in[k].from] : NULL;
			if (!act || !act->unary || act->stored || a->in[!k].from == FROM_MEMORY || uses(p, a->in[k].from) != 1)
				continue;
			a->kind = DO_GATE;
			a->gate = act->unary == e->k->silu ? e->k->silu_mul : e->k->gelu_mul;
			a->in[1] = a->in[!k];
			a->in[0] = act->in[0];
			a->lead = act->lead;
			act->kind = DO_NOTHING;
			act->nin = 0;
		}
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
	choose_kernels(e, p);
	join_gates(e, p);
	return 0;
}

/* ---- running ----
 *
 * Columns lo..hi of the tile, entry 0, and of each action's result.  Not an array of structs: compilers
 * copy those by wide loads, and a wide load of what narrow stores just wrote waits until they have left
 * the store buffer (a fifth of a prompt's time). */

struct run {
	struct cpu_exec *e;
	int id, t;
	const float *p[MAXACTION + 1];
	int64_t lo[MAXACTION + 1], hi[MAXACTION + 1];
};

static const float *made(const struct run *r, int from)
{
	return r->p[from + 1];
}

static const float *stored_row(const struct run *r, const struct cpu_operand *o)
{
	return (const float *)o->base + r->t * o->row;
}

static const float *values_of(const struct run *r, const struct cpu_operand *o)
{
	return o->from == FROM_MEMORY ? stored_row(r, o) : made(r, o->from);
}

static float *result(const struct run *r, const struct cpu_action *a, int64_t lo)
{
	return a->stored ? a->stored + r->t * a->len + lo : r->e->slots + r->id * r->e->slot_floats + a->slot;
}

/* Operands at column i of a range that starts at lo; how many of n values until one of them repeats. */
static int64_t map_operands(const struct run *r, const struct cpu_action *a, struct wf_span *s, int64_t lo, int64_t i, int64_t n)
{
	for (int k = 0; k < WF_MAXIN; k++) {
		const struct cpu_operand *o = &a->in[k];
		if (k >= a->nin) {
			s->in[k] = NULL;
		} else if (o->from != FROM_MEMORY) {
			s->in[k] = made(r, o->from) + (i - lo);
		} else if (o->row) {
			s->in[k] = stored_row(r, o) + i;
		} else {
			int64_t at = i < o->length ? i : i % o->length;
			s->in[k] = (const float *)o->base + at;
			n = n < o->length - at ? n : o->length - at;
		}
	}
	return n;
}

static const float *run_map(const struct run *r, const struct cpu_action *a, int64_t lo, int64_t hi)
{
	float *out = result(r, a, lo);
	struct wf_span s;

	if (a->unary) {
		a->unary(out, made(r, a->in[0].from), hi - lo);
		return out;
	}
	s.attr = a->node->attr;
	for (int64_t i = lo; i < hi; i += s.n) {
		s.out = out + (i - lo);
		s.n = map_operands(r, a, &s, lo, i, hi - i);
		a->node->op->span(&s);
	}
	return out;
}

static const float *run_gate(const struct run *r, const struct cpu_action *a, int64_t lo, int64_t hi)
{
	float *out = result(r, a, lo);

	a->gate(out, made(r, a->in[0].from), made(r, a->in[1].from), hi - lo);
	return out;
}

static const float *run_row(const struct run *r, const struct cpu_action *a, const float *x, int64_t lo, int64_t hi)
{
	float *out = result(r, a, lo);
	struct wf_span s = {.attr = a->node->attr, .n = a->sub, .token = r->t};

	for (int k = 1; k < a->nin; k++) {
		s.in[k] = a->in[k].base;
		s.length[k] = wf_nelem(a->node->in[k]);
	}
	for (int64_t i = 0; i < hi - lo; i += a->sub) {
		s.in[0] = x + i;
		s.out = out + i;
		s.row = (r->t * a->len + lo + i) / a->sub;
		a->node->op->span(&s);
	}
	return out;
}

static const float *run_rope(const struct run *r, const struct cpu_action *a, const float *x, int64_t lo, int64_t hi)
{
	int64_t half = a->rope->half;
	const float *c = a->rope->table + r->t * half * 2;
	float *out = result(r, a, lo);

	for (int64_t i = 0; i < hi - lo; i += a->sub)
		r->e->k->rope(out + i, x + i, c, c + half, half, a->sub, a->node->attr[0] != 0);
	return out;
}

static void take_row(const struct run *r, const struct cpu_action *a, int64_t row, int64_t n, float *out)
{
	const wf_tensor *table = a->node->in[0];

	if (row < 0 || row >= wf_size(table, 0))
		memset(out, 0, sizeof *out * n);
	else if (table->constant && table->dtype <= WF_BF16)
		r->e->k->load(table->dtype, out, (const uint8_t *)a->in[0].base + row * wf_row_bytes(table->dtype, n), n);
	else if (table->constant)
		wf_decode(table->dtype, out, (const uint8_t *)a->in[0].base + row * wf_row_bytes(table->dtype, n), n);
	else
		memcpy(out, (const float *)a->in[0].base + row * n, sizeof *out * n);
}

/* Row ids[t] of a table; a stray id reads as zeros. */
static const float *run_take(const struct run *r, const struct cpu_action *a)
{
	const wf_tensor *table = a->node->in[0];
	int64_t n = wf_last(table), each = a->len / n;
	const int32_t *ids = (const int32_t *)a->in[1].base + r->t * each;

	if (each == 1 && !table->constant && !a->stored && ids[0] >= 0 && ids[0] < wf_size(table, 0))
		return (const float *)a->in[0].base + ids[0] * n;
	float *out = result(r, a, 0);
	for (int64_t i = 0; i < each; i++)
		take_row(r, a, ids[i], n, out + i * n);
	return out;
}

static const float *run_join(const struct run *r, const struct cpu_action *a)
{
	int64_t n = wf_last(a->node->in[0]), m = wf_last(a->node->in[1]), nhead = a->len / (n + m);
	const float *left = values_of(r, &a->in[0]), *right = values_of(r, &a->in[1]);
	int64_t step = wf_size(a->node->in[1], 1) == 1 ? 0 : m;
	float *out = result(r, a, 0);

	for (int64_t h = 0; h < nhead; h++) {
		memcpy(out + h * (n + m), left + h * n, sizeof *out * n);
		memcpy(out + h * (n + m) + n, right + h * step, sizeof *out * m);
	}
	return out;
}

/* The same columns of each head. */
static const float *run_head_cols(const struct run *r, const struct cpu_action *a, const float *x)
{
	int64_t n = wf_last(a->node), m = wf_last(a->node->in[0]);
	float *out = result(r, a, 0);

	x += (int64_t)a->node->attr[0];
	for (int64_t h = 0; h < a->len / n; h++)
		memcpy(out + h * n, x + h * m, sizeof *out * n);
	return out;
}

static const float *run_route(const struct run *r, const struct cpu_action *a)
{
	struct wf_span s = {.out = result(r, a, 0), .attr = a->node->attr, .n = a->len, .row = r->t, .token = r->t};

	for (int k = 0; k < a->nin; k++) {
		s.in[k] = values_of(r, &a->in[k]);
		s.length[k] = a->in[k].row ? a->in[k].row : a->in[k].length;
	}
	a->node->op->span(&s);
	return s.out;
}

/* A result that is only a pointer, copied when it must be kept. */
static const float *keep(const struct run *r, const struct cpu_action *a, const float *x, int64_t lo, int64_t hi)
{
	if (!a->stored || x == a->stored + r->t * a->len + lo)
		return x;
	float *out = result(r, a, lo);
	memcpy(out, x, sizeof *out * (hi - lo));
	return out;
}

static const float *run_cols(const struct run *r, const struct cpu_action *a, const float *x, int64_t *lo, int64_t *hi)
{
	int64_t start = (int64_t)a->node->attr[0], end = start + (int64_t)a->node->attr[1];
	int64_t skip = *lo < start ? start - *lo : 0;

	*lo += skip - start;
	*hi = (*hi < end ? *hi : end) - start;
	return *lo < *hi ? keep(r, a, x + skip, *lo, *hi) : NULL;
}

static const float *run_lane(const struct run *r, int64_t piece, const struct cpu_action *a, const float *x, int64_t *lo, int64_t *hi)
{
	int64_t of = (int64_t)a->node->attr[0], at = (int64_t)a->node->attr[1], block = (int64_t)a->node->attr[2];
	bool single = piece && *hi - *lo == of * block;

	*lo /= of;
	*hi = single ? *lo + block : *hi / of;
	if (single)
		return keep(r, a, x + at * block, *lo, *hi);
	float *out = result(r, a, *lo);
	for (int64_t i = 0; i < *hi - *lo; i += block)
		memcpy(out + i, x + (i * of + at * block), sizeof *out * block);
	return out;
}

static void run_cache(const struct run *r, const struct cpu_action *a, const float *x, int64_t lo, int64_t hi)
{
	const struct cpu_cache *c = a->cache;
	const struct cpu_exec *e = r->e;
	int s = kv_seq_of(e->batch, r->t), pos = e->batch->pos[r->t];
	int32_t page = e->batch->page[s * e->nclass + c->cls][pos / e->page_tokens];
	size_t bytes = (size_t)a->sub * wf_dtypes[c->dtype].bytes;

	if (page < 0)
		return;
	uint8_t *to = (a->kind == DO_VALUES ? c->v : c->k) + (size_t)page * c->page_bytes + (pos % e->page_tokens) * bytes;
	for (int64_t i = lo; i < hi; i += a->sub)
		e->k->store(c->dtype, to + (i / a->sub) * e->page_tokens * bytes, x + (i - lo), a->sub);
}

/* Action i on columns lo..hi of its row, whose values are at x; afterwards they are those of its result. */
static const float *run_action(const struct run *r, const struct cpu_program *p, const struct cpu_action *a, const float *x,
		int64_t *lo, int64_t *hi)
{
	switch (a->kind) {
	case DO_MAP:     return run_map(r, a, *lo, *hi);
	case DO_GATE:    return run_gate(r, a, *lo, *hi);
	case DO_ROW:     return run_row(r, a, x, *lo, *hi);
	case DO_ROPE:    return run_rope(r, a, x, *lo, *hi);
	case DO_TAKE:    return run_take(r, a);
	case DO_JOIN:    return run_join(r, a);
	case DO_ROUTE:   return run_route(r, a);
	case DO_HEAD_COLS: return run_head_cols(r, a, x);
	case DO_VIEW:    return keep(r, a, x, *lo, *hi);
	case DO_COLS:    return run_cols(r, a, x, lo, hi);
	case DO_LANE:    return run_lane(r, p->piece, a, x, lo, hi);
	case DO_KEYS:
	case DO_VALUES:  run_cache(r, a, x, *lo, *hi); return NULL;
	case DO_NOTHING: break;
	}
	return NULL;
}

static const float *run_piece(struct run *r, const struct cpu_program *p, const float *tile, int64_t from, int64_t to)
{
	r->p[0] = tile;
	r->lo[0] = from;
	r->hi[0] = to;
	for (int i = 1; i <= p->n; i++) {
		const struct cpu_action *a = &p->action[i - 1];
		const struct cpu_operand *first = &a->in[0];
		bool whole = a->lead == FROM_MEMORY || is_whole(a);
		int64_t lo = whole ? 0 : r->lo[a->lead + 1];
		int64_t hi = !whole ? r->hi[a->lead + 1] : a->kind == DO_COLS || a->kind == DO_LANE ? first->row : a->len;
		r->p[i] = NULL;
		if (lo < hi)
			r->p[i] = run_action(r, p, a, a->kind == DO_TAKE ? NULL : values_of(r, first), &lo, &hi);
		r->lo[i] = lo;
		r->hi[i] = hi;
	}
	return r->p[p->n];
}

const float *program_run(struct cpu_exec *e, const struct cpu_program *p, int id, int t, const float *tile, int64_t lo, int64_t hi)
{
	struct run r;
	const float *last = NULL;

	r.e = e;
	r.id = id;
	r.t = t;
	if (!tile || !p->piece)
		return run_piece(&r, p, tile, lo, hi);
	for (int64_t at = lo; at < hi; at += p->piece)
		last = run_piece(&r, p, tile + (at - lo), at, at + p->piece);
	return last;
}
