/* parse.c - read the text form back: a graph, a plan of any stage, or one expression.
 *
 * The text may come from anywhere: every name is looked up, every shape computed anew and compared
 * with what is written, every place checked by plan_verify().  Types may be left out when editing. */
#include "graph/graph.h"
#include <ctype.h>
#include <string.h>

enum { MAXDEPTH = 64, MAXNAME = 128 };

struct member { wf_tensor *t; int kernel; bool anchor, stored, alias; int64_t offset; };

struct parser {
	wf_graph *g;
	const char *s, *end, *text;
	wf_tensor **value;                    /* %n as written */
	int nvalue;
	struct member *member;                /* nodes between braces */
	int nmember, maxmember;
	int nkernel, kernel;                  /* -1 outside braces */
	wf_kind kind;                         /* of the kernel that is open, as written */
	const wf_tensor *anchor;
	wf_plan *plan;
	int depth;
};

/* ---- lexing ---- */

static int complain(struct parser *p, const char *fmt, ...) WF_PRINTF(2, 3);

static int complain(struct parser *p, const char *fmt, ...)
{
	int line = 1, column = 1;
	char what[3 * MAXNAME];
	va_list args;

	va_start(args, fmt);
	vsnprintf(what, sizeof what, fmt, args);
	va_end(args);
	for (const char *s = p->text; s < p->s; s++) {
		column = *s == '\n' ? 1 : column + 1;
		line += *s == '\n';
	}
	return wf_fail(p->g->err, "graph text, line %d, column %d: %s", line, column, what);
}

/* What an op, which knows no lines, has found wrong: say where. */
static int complain_of(struct parser *p, const char *at)
{
	wf_error found = *p->g->err;

	p->g->err->set = false;
	p->s = at;
	return complain(p, "%s", found.text);
}

static void skip_blank(struct parser *p)
{
	while (p->s < p->end && (*p->s == ' ' || *p->s == '\t' || *p->s == '\r'))
		p->s++;
	if (p->s < p->end && *p->s == '#')
		while (p->s < p->end && *p->s != '\n')
			p->s++;
}

static void skip_lines(struct parser *p)
{
	for (skip_blank(p); p->s < p->end && *p->s == '\n'; skip_blank(p))
		p->s++;
}

static bool accept(struct parser *p, char c)
{
	skip_blank(p);
	if (p->s >= p->end || *p->s != c)
		return false;
	p->s++;
	return true;
}

static bool at_word(const struct parser *p)
{
	return p->s < p->end && (isalnum((unsigned char)*p->s) || strchr("_.-", *p->s));
}

/* A run of letters, digits, '_', '.', '-'; -1 when there is none or it is too long. */
static int word(struct parser *p, char *out)
{
	int n = 0;

	skip_blank(p);
	for (; at_word(p) && *p->s; p->s++) {
		if (n == MAXNAME - 1)
			return complain(p, "a name of more than 127 characters");
		out[n++] = *p->s;
	}
	out[n] = 0;
	return n ? 0 : complain(p, "expected a name");
}

static bool accept_word(struct parser *p, const char *want)
{
	size_t n = strlen(want);

	skip_blank(p);
	if ((size_t)(p->end - p->s) < n || memcmp(p->s, want, n))
		return false;
	const char *s = p->s;
	p->s += n;
	if (!at_word(p))
		return true;
	p->s = s;
	return false;
}

static int number(struct parser *p, double *out)
{
	char s[48];
	int n = 0;
	char *end;

	skip_blank(p);
	while (p->s + n < p->end && n < 47 && (isalnum((unsigned char)p->s[n]) || strchr("+-.", p->s[n])) && p->s[n])
		n++;
	memcpy(s, p->s, n);
	s[n] = 0;
	*out = number_read(s, &end);
	if (!n || *end)
		return complain(p, "expected a number");
	p->s += n;
	return 0;
}

static int integer(struct parser *p, int64_t min, int64_t max, int64_t *out)
{
	double v;

	if (number(p, &v))
		return -1;
	if (!(v >= (double)min && v <= (double)max) || v != (double)(int64_t)v)
		return complain(p, "out of range: expected a whole number from %lld to %lld, found %g", (long long)min,
			(long long)max, v);
	*out = (int64_t)v;
	return 0;
}

/* ---- types ---- */

static int dimension(struct parser *p, int64_t *out)
{
	static const char symbols[] = "TSR";

	skip_blank(p);
	const char *symbol = p->s < p->end && *p->s ? strchr(symbols, *p->s) : NULL;
	if (!symbol)
		return integer(p, 1, 1 << 30, out);
	p->s++;
	*out = -1 - (symbol - symbols);
	return 0;
}

static int type(struct parser *p, wf_dtype *dtype, int *ndim, int64_t *dim)
{
	char name[MAXNAME];

	if (word(p, name))
		return -1;
	int found = wf_dtype_find(name);
	if (found < 0)
		return complain(p, "unknown type '%s'", name);
	*dtype = (wf_dtype)found;
	if (!accept(p, '['))
		return complain(p, "expected '[' after the type");
	*ndim = 0;
	do {
		if (*ndim == WF_MAXDIM)
			return complain(p, "more than 4 dimensions");
		if (dimension(p, &dim[(*ndim)++]))
			return -1;
	} while (accept(p, ','));
	return accept(p, ']') ? 0 : complain(p, "expected ',' or ']' in a type");
}

/* ": f32[T,64]" must say what the op gives; absent is fine. */
static int check_type(struct parser *p, const wf_tensor *t)
{
	int64_t dim[WF_MAXDIM];
	wf_dtype dtype;
	int ndim;

	if (!accept(p, ':'))
		return 0;
	if (type(p, &dtype, &ndim, dim))
		return -1;
	if (dtype == t->dtype && ndim == t->ndim && !memcmp(dim, t->dim, sizeof *dim * ndim))
		return 0;
	char gives[96], written[96];
	return complain(p, "%s gives %s[%s], written is %s[%s]", t->op->name, wf_dtypes[t->dtype].name,
		text_dims(gives, sizeof gives, t->ndim, t->dim), wf_dtypes[dtype].name,
		text_dims(written, sizeof written, ndim, dim));
}

/* ---- literals ---- */

struct literal { float *v; int64_t n, max; int ndim; int64_t dim[WF_MAXDIM]; };

static int push(struct parser *p, struct literal *l, float v)
{
	if (l->n == l->max) {
		int64_t max = l->max ? l->max * 2 : 64;
		float *more = wf_alloc_n(p->g->arena, max, sizeof *more);
		if (!more)
			return wf_fail(p->g->err, "graph text: out of memory");
		if (l->n)
			memcpy(more, l->v, sizeof *more * l->n);
		l->v = more;
		l->max = max;
	}
	l->v[l->n++] = v;
	return 0;
}

static int literal(struct parser *p, struct literal *l, int axis)
{
	int64_t n = 0;
	double v;

	if (axis == WF_MAXDIM)
		return complain(p, "more than 4 dimensions");
	for (; !accept(p, ']'); n++) {
		if (accept(p, '[')) {
			if (literal(p, l, axis + 1))
				return -1;
		} else {
			if (l->ndim && l->ndim != axis + 1)
				return complain(p, "ragged literal");
			l->ndim = axis + 1;
			if (number(p, &v) || push(p, l, (float)v))
				return -1;
		}
	}
	if (!n || (l->dim[axis] && l->dim[axis] != n) || (axis + 1 < l->ndim && !l->dim[axis + 1]))
		return complain(p, "empty or ragged literal");
	l->dim[axis] = n;
	return 0;
}

static wf_tensor *constant(struct parser *p, wf_dtype dtype)
{
	struct literal l = {0};
	int64_t n = 1;

	if (literal(p, &l, 0))
		return NULL;
	for (int i = 0; i < l.ndim; i++)
		if (l.dim[i] > l.n || (n *= l.dim[i]) > l.n)
			break;
	if (n != l.n) {
		complain(p, "ragged literal");
		return NULL;
	}
	return graph_literal(p->g, dtype, l.ndim, l.dim, l.v);
}

/* ---- operands and expressions ---- */

static wf_tensor *named_leaf(struct parser *p, const wf_op *op)
{
	char name[MAXNAME];

	if (word(p, name))
		return NULL;
	for (int i = 0; i < p->g->nnode; i++)
		if (p->g->node[i]->op == op && !strcmp(p->g->node[i]->name, name))
			return p->g->node[i];
	complain(p, "%c%s: a leaf that no line above declares", op == &wf_op_weight ? '@' : '$', name);
	return NULL;
}

static wf_tensor *call(struct parser *p);

static wf_tensor *operand(struct parser *p)
{
	int64_t id = 0;

	if (accept(p, '@'))
		return named_leaf(p, &wf_op_weight);
	if (accept(p, '$'))
		return named_leaf(p, &wf_op_input);
	if (accept(p, '['))
		return constant(p, WF_F32);
	if (accept_word(p, "i32") && accept(p, '['))
		return constant(p, WF_I32);
	if (accept(p, '(')) {
		wf_tensor *t = call(p);
		if (t && !accept(p, ')')) {
			complain(p, "expected ')'");
			return NULL;
		}
		return t;
	}
	if (!accept(p, '%')) {
		complain(p, "expected an operand");
		return NULL;
	}
	if (integer(p, 0, INT32_MAX, &id))
		return NULL;
	if (id >= p->nvalue || !p->value[id]) {
		complain(p, "%%%lld: a value that no line above defines", (long long)id);
		return NULL;
	}
	return p->value[id];
}

static bool at_operand(struct parser *p)
{
	skip_blank(p);
	return p->s < p->end && *p->s && (strchr("@$%([", *p->s) || (p->end - p->s > 4 && !memcmp(p->s, "i32[", 4)));
}

static int attributes(struct parser *p, const wf_op *op, double *attr)
{
	char name[MAXNAME];
	struct wf_attr_info info;
	unsigned seen = 0;

	for (int k = 0; !wf_attr_info(op, k, &info); k++)
		attr[k] = info.absent;
	for (skip_blank(p); at_word(p); skip_blank(p)) {
		const char *start = p->s;
		if (word(p, name))
			return -1;
		if (!accept(p, '=')) {
			p->s = start;
			break;
		}
		int k = wf_attr_index(op, name);
		if (k < 0)
			return complain(p, "%s has no attribute '%s'%s%s", op->name, name, op->attr ? ", it has " : "",
				op->attr ? op->attr : "");
		if (number(p, &attr[k]))
			return -1;
		seen |= 1u << k;
	}
	for (int k = 0; !wf_attr_info(op, k, &info); k++)
		if (!info.has_absent && !info.address && !(seen & 1u << k))
			return complain(p, "an attribute without default is missing: %.*s", (int)info.len, info.name);
	return 0;
}

static void unknown_op(struct parser *p, const char *name)
{
	struct near near = {.typed = name};

	for (const wf_op *const *op = p->g->ops; *op; op++)
		near_offer(&near, (*op)->name);
	complain(p, "unknown op '%s'%s%s%s", name, near.name ? "; the nearest is '" : "", near.name ? near.name : "",
		near.name ? "'" : "");
}

/* name operand... attribute=value... */
static wf_tensor *call(struct parser *p)
{
	wf_tensor *in[WF_MAXIN], *made = NULL;
	double attr[WF_MAXATTR] = {0};
	char name[MAXNAME];
	int nin = 0;

	if (++p->depth > MAXDEPTH) {
		complain(p, "expressions nest more than 64 deep");
		return NULL;
	}
	skip_blank(p);
	const char *start = p->s;
	if (word(p, name))
		return NULL;
	if (!strcmp(name, "const")) {
		wf_dtype dtype = accept_word(p, "i32") ? WF_I32 : WF_F32;
		p->depth--;
		return accept(p, '[') ? constant(p, dtype) : (complain(p, "expected '['"), NULL);
	}
	const wf_op *op = wf_op_find(p->g->ops, name);
	if (!op) {
		unknown_op(p, name);
		return NULL;
	}
	for (; at_operand(p); nin++) {
		if (nin == WF_MAXIN) {
			complain(p, "more than 8 operands");
			return NULL;
		}
		if (!(in[nin] = operand(p)))
			return NULL;
	}
	if (attributes(p, op, attr))
		return NULL;
	made = wf_node(p->g, op, in, nin, attr);
	p->depth--;
	if (!wf_failed(p->g))
		return made;
	complain_of(p, start);
	return NULL;
}

wf_tensor *text_expr(wf_graph *g, const char *expr)
{
	struct parser p = {.g = g, .s = expr, .text = expr, .end = expr + strlen(expr), .kernel = -1};
	wf_tensor *t = wf_failed(g) ? NULL : operand(&p);

	skip_lines(&p);
	if (t && p.s < p.end) {
		complain(&p, "text after the expression");
		t = NULL;
	}
	return t ? t : &g->dummy;
}

/* ---- lines ---- */

static int keep_value(struct parser *p, int64_t id, wf_tensor *t)
{
	if (id >= p->nvalue) {
		int64_t n = id < 1024 ? 1024 : id * 2;
		if (id > (int64_t)(p->end - p->text))
			return complain(p, "a value's number larger than the text is long");
		wf_tensor **more = wf_alloc_n(p->g->arena, n, sizeof *more);
		if (!more)
			return wf_fail(p->g->err, "graph text: out of memory");
		if (p->nvalue)
			memcpy(more, p->value, sizeof *more * p->nvalue);
		p->value = more;
		p->nvalue = (int)n;
	}
	if (p->value[id])
		return complain(p, "%%%lld: a value defined twice", (long long)id);
	p->value[id] = t;
	return 0;
}

static int keep_member(struct parser *p, struct member m)
{
	if (p->nmember == p->maxmember) {
		int n = p->maxmember ? p->maxmember * 2 : 256;
		struct member *more = wf_alloc_n(p->g->arena, n, sizeof *more);
		if (!more)
			return wf_fail(p->g->err, "graph text: out of memory");
		if (p->nmember)
			memcpy(more, p->member, sizeof *more * p->nmember);
		p->member = more;
		p->maxmember = n;
	}
	p->member[p->nmember++] = m;
	return 0;
}

static int leaf_line(struct parser *p, bool weight)
{
	char name[MAXNAME];
	int64_t dim[WF_MAXDIM];
	const char *start = p->s;
	wf_dtype dtype;
	int ndim;

	if (word(p, name))
		return -1;
	if (!accept(p, ':') || type(p, &dtype, &ndim, dim))
		return complain(p, "expected ':' and the type of a leaf");
	if (!weight) {
		wf_input(p->g, name, dtype, ndim, dim);
		return wf_failed(p->g) ? complain_of(p, start) : 0;
	}
	wf_dtype was = p->g->wdtype;
	p->g->wdtype = dtype;
	wf_tensor *t = wf_weight(p->g, ndim, dim, "%s", name);
	p->g->wdtype = was;
	if (wf_failed(p->g))
		return complain_of(p, start);
	return t->dtype == dtype ? 0 : complain(p, "expected %s, found %s in the model", wf_dtypes[dtype].name,
		wf_dtypes[t->dtype].name);
}

static int scope_suffix(struct parser *p)
{
	char name[MAXNAME];

	if (!accept(p, '!')) {
		wf_scope(p->g, "%s", "");
		return 0;
	}
	if (word(p, name))
		return -1;
	wf_scope(p->g, "%s", name);
	return 0;
}

/* The scope stands at the line's end, but nodes take it when they are made: look ahead. */
static int read_scope(struct parser *p)
{
	const char *start = p->s, *line = memchr(p->s, '\n', p->end - p->s);
	int err = 0;

	if (!line)
		line = p->end;
	const char *mark = memchr(p->s, '!', line - p->s);
	if (mark)
		p->s = mark;
	else
		p->s = line;
	err = scope_suffix(p);
	p->s = start;
	return err;
}

static int node_suffix(struct parser *p, struct member *m)
{
	char name[MAXNAME];

	if (accept(p, '!') && word(p, name))
		return -1;
	m->anchor = accept_word(p, "anchor");
	m->alias = accept_word(p, "alias");
	m->stored = m->alias;
	if (accept_word(p, "at")) {
		m->stored = true;
		if (integer(p, 0, (int64_t)1 << 50, &m->offset))
			return -1;
	}
	return 0;
}

static int node_line(struct parser *p)
{
	struct member m = {.kernel = p->kernel};
	int64_t id = 0;

	if (integer(p, 0, INT32_MAX, &id))
		return -1;
	if (!accept(p, '='))
		return complain(p, "expected '='");
	if (read_scope(p))
		return -1;
	m.t = call(p);
	if (!m.t || check_type(p, m.t) || node_suffix(p, &m) || keep_value(p, id, m.t))
		return -1;
	if (m.anchor && p->anchor)
		return complain(p, "kernel %d has an anchor already: %s", p->kernel, p->anchor->op->name);
	if (m.anchor)
		p->anchor = m.t;
	return p->kernel < 0 ? 0 : keep_member(p, m);
}

static int out_line(struct parser *p)
{
	char name[MAXNAME];

	if (word(p, name))
		return -1;
	if (!accept(p, '='))
		return complain(p, "expected '='");
	wf_tensor *t = operand(p);
	if (!t)
		return -1;
	wf_output(p->g, name, t);
	return wf_failed(p->g) ? -1 : 0;
}

static int graph_line(struct parser *p)
{
	char name[MAXNAME];
	struct { const char *key; wf_dtype *to; } field[] = {{"act", &p->g->act}, {"kv", &p->g->kvtype}, {"sum", &p->g->sum}};

	if (word(p, name))
		return -1;
	p->g->sum = WF_F32;
	p->g->name = wf_strdup(p->g->arena, name);
	if (!p->g->name)
		return wf_fail(p->g->err, "graph text: out of memory");
	for (size_t i = 0; i < sizeof field / sizeof *field; i++) {
		if (!accept_word(p, field[i].key))
			continue;
		if (!accept(p, '=') || word(p, name))
			return complain(p, "expected a type");
		int found = wf_dtype_find(name);
		if (found < 0 || found > WF_BF16)
			return complain(p, "expected f32, f16 or bf16");
		*field[i].to = (wf_dtype)found;
	}
	return 0;
}

static int plan_line(struct parser *p)
{
	char name[MAXNAME];
	struct { const char *key; int64_t v; } field[] = {{"tokens", 1}, {"seqs", 1}, {"rows", 1}, {"arena", 0}, {"live", 0}};
	int stage = 0;

	if (word(p, name))
		return -1;
	while (stage < PLAN_NSTAGE && strcmp(name, plan_stage_names[stage]))
		stage++;
	if (stage == PLAN_NSTAGE)
		return complain(p, "unknown stage '%s'", name);
	for (size_t i = 0; i < sizeof field / sizeof *field; i++)
		if (accept_word(p, field[i].key) &&
		    (!accept(p, '=') || integer(p, i < 3, (int64_t)1 << 50, &field[i].v)))
			return complain(p, "expected a number");
	p->plan = plan_new(p->g);
	if (!p->plan)
		return -1;
	p->plan->stage = stage;
	p->plan->opt.max_tokens = field[0].v;
	p->plan->opt.max_seqs = field[1].v;
	p->plan->opt.max_rows = field[2].v;
	p->plan->arena_bytes = field[3].v;
	p->plan->live_bytes = field[4].v;
	return 0;
}

/* kernel 4 dot { ...: the number is for readers; whoever adds a kernel or takes one out need not count anew. */
static int kernel_line(struct parser *p)
{
	char kind[MAXNAME];
	int64_t id = 0;
	int k = 0;

	if (!p->plan || p->plan->stage < PLAN_FUSE || p->kernel >= 0)
		return complain(p, "a kernel outside a fused plan or within another");
	if (integer(p, 0, INT32_MAX, &id) || word(p, kind))
		return -1;
	while (k < WF_NKIND && strcmp(kind, wf_kind_names[k]))
		k++;
	if (k == WF_NKIND)
		return complain(p, "unknown kind '%s'", kind);
	if (!accept(p, '{'))
		return complain(p, "expected '{'");
	p->kernel = p->nkernel++;
	p->kind = (wf_kind)k;
	p->anchor = NULL;
	return 0;
}

static int kernel_end(struct parser *p)
{
	if (p->kernel < 0)
		return complain(p, "'}' without a kernel");
	if (!p->anchor)
		return complain(p, "kernel %d has no anchor", p->kernel);
	if (p->anchor->op->kind != p->kind)
		return complain(p, "a kernel of kind %s, its anchor %s is of kind %s", wf_kind_names[p->kind],
			p->anchor->op->name, wf_kind_names[p->anchor->op->kind]);
	p->kernel = -1;
	return 0;
}

static int line(struct parser *p)
{
	if (accept(p, '@'))
		return leaf_line(p, true);
	if (accept(p, '$'))
		return leaf_line(p, false);
	if (accept(p, '%'))
		return node_line(p);
	if (accept(p, '}'))
		return kernel_end(p);
	if (accept_word(p, "kernel"))
		return kernel_line(p);
	if (accept_word(p, "out"))
		return out_line(p);
	if (accept_word(p, "graph"))
		return graph_line(p);
	if (accept_word(p, "plan"))
		return plan_line(p);
	return complain(p, "expected a leaf, a value, 'kernel', 'out', 'graph' or 'plan'");
}

/* Membership and places into the plan, once ids are final. */
static int finish_plan(struct parser *p)
{
	wf_plan *plan = p->plan;

	if (plan_reserve(plan, p->nkernel))
		return -1;
	for (int i = 0; i < p->nmember; i++) {
		const struct member *m = &p->member[i];
		if (m->t->id < 0)
			continue;
		if (plan->value[m->t->id].kernel >= 0)
			return wf_fail(p->g->err, "graph text: %s stands in kernels %d and %d", m->t->op->name,
				plan->value[m->t->id].kernel, m->kernel);
		if (plan_add_member(plan, m->kernel, m->t))
			return -1;
		if (m->anchor)
			plan->kernel[m->kernel].anchor = m->t;
		plan->value[m->t->id].offset = m->offset;
	}
	if (plan_derive(plan))
		return -1;
	for (int i = 0; i < p->nmember; i++)         /* a kernel of one's own: its values have no place yet */
		if (p->member[i].t->id >= 0 && plan->value[p->member[i].t->id].stored && !p->member[i].stored &&
		    plan->stage == PLAN_PLACE)
			plan->stage = PLAN_ORDER;
	for (int i = 0; i < p->g->nnode; i++)        /* a view lies where its operand does */
		if (plan->value[i].alias)
			plan->value[i].offset = plan->value[p->g->node[i]->in[0]->id].offset;
	return 0;
}

int wf_graph_parse(wf_graph *g, const char *text, size_t len, wf_plan **plan)
{
	struct parser p = {.g = g, .s = text, .text = text, .end = text + len, .kernel = -1};

	*plan = NULL;
	if (memchr(text, 0, len))
		return wf_fail(g->err, "graph text: holds a NUL byte");
	for (skip_lines(&p); p.s < p.end; skip_lines(&p)) {
		p.depth = 0;
		if (line(&p))
			return -1;
		skip_blank(&p);
		if (p.s < p.end && *p.s != '\n')
			return complain(&p, "text after the end of the line's statement");
	}
	if (p.kernel >= 0)
		return complain(&p, "a kernel without '}'");
	if (!g->nout)
		return complain(&p, "no output: expected a line 'out NAME = %%N'");
	wf_scope(g, "%s", "");
	graph_sweep(g);
	if (p.plan && p.plan->stage >= PLAN_FUSE && finish_plan(&p))
		return -1;
	*plan = p.plan;
	return wf_failed(g) ? -1 : 0;
}
