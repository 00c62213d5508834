/* cuda_ops.c - every op and every kernel skeleton on random shapes, against the definition.
 *
 * Nothing here knows an op by name: what an op takes is found by trying operands until its shape rule
 * is content, so an op is tested on arrival.  Chains of ops, products of every weight type, attention
 * with all it can be asked for, and the choice of tokens each have a generator; a case is one result of
 * one step.  The CPU backend runs a part of them everywhere, which keeps the generators honest; CUDA
 * runs all, its kernels compiled first and all at once.
 *
 * WEFT_SEED: another sequence; WEFT_TRIALS: per cent of the usual number. */
#include "trial.h"

#include <setjmp.h>
#include <stdarg.h>
#include <time.h>
#include <cmocka.h>
#include "gpu.h"

enum { MAXPART = 4, MAXPATTERN = 256, MAXTRIAL = 600, RECIPES = 6, STEPS = 6, MAXOP = 64 };

/* ---- what ops take ---- */

enum operand { STREAM, SAME, VECTOR, MATRIX, POSITIONS, FREQS, CHOICE, GATES, EXPERTS, NOPERAND };

struct pattern { const wf_op *op; int ndim, nin; enum operand in[WF_MAXIN]; };

struct part { const struct pattern *p; double attr[WF_MAXATTR]; wf_dtype type; int64_t width; };

/* x is [T, n], [T, heads, n / heads] or rows of it; what follows is done to it in turn. */
struct recipe {
	int64_t n, heads;
	bool rows, gated;                     /* gated: two products of one x, joined */
	int npart, shown;                     /* shown: the part whose result is an output besides the last; -1 */
	struct part part[MAXPART];
};

static struct pattern pattern[MAXPATTERN];
static int npattern;

static const wf_dtype floats[] = {WF_F32, WF_F16, WF_BF16};

static wf_tensor *fresh(struct trial *t, wf_graph *g, const wf_tensor *like)
{
	if (like->dim[0] != WF_T || like->ndim > 3)
		return trial_weight(t, g, WF_F32, WF_SHAPE(wf_last(like)), 0.5, 1.5);
	if (like->ndim == 3)
		return wf_heads(g, trial_values(t, g, like->dim[1] * like->dim[2]), like->dim[1]);
	return trial_values(t, g, wf_last(like));
}

static wf_tensor *operand(struct trial *t, wf_graph *g, enum operand kind, wf_tensor *x, const struct part *p)
{
	int64_t n = wf_last(x);
	double scale = 1.7 / sqrt((double)n);
	wf_dtype type = n % wf_dtypes[p->type].block ? WF_F32 : p->type;

	switch (kind) {
	case STREAM:    return x;
	case SAME:      return fresh(t, g, x);
	case VECTOR:    return trial_weight(t, g, p->type == WF_F32 ? WF_F32 : t->opt.act, WF_SHAPE(n), 0.5, 1.5);
	case MATRIX:    return trial_weight(t, g, type, WF_SHAPE(p->width, n), -scale, scale);
	case POSITIONS: return t->positions;
	case FREQS:     return wf_rope_freqs(g, (int)(n / 2 * 2), &(struct wf_rope_freqs){.theta = 10000});
	case CHOICE:    return wf_route(g, trial_values(t, g, n < 8 ? n : 8), NULL, &(struct wf_routing){.k = 2});
	case GATES:     return trial_values(t, g, x->ndim == 3 ? x->dim[1] : 2);
	case EXPERTS:   return trial_weight(t, g, type, WF_SHAPE(8, p->width, n), -scale, scale);
	default:        return NULL;
	}
}

static wf_tensor *add_part(struct trial *t, wf_graph *g, wf_tensor *x, const struct part *p)
{
	wf_tensor *in[WF_MAXIN];

	for (int k = 0; k < p->p->nin; k++)
		in[k] = operand(t, g, p->p->in[k], x, p);
	if (p->p->op == &wf_op_layernorm && wf_last(x) == 1)
		wf_fail(g->err, "one value less its mean is its rounding, which a small eps makes 1000 times larger");
	return wf_failed(g) ? x : wf_node(g, p->p->op, in, p->p->nin, p->attr);
}

static wf_tensor *gate(struct trial *t, wf_graph *g, wf_tensor *x, const struct part *p)
{
	wf_tensor *a = wf_matmul(g, operand(t, g, MATRIX, x, p), x), *b = wf_matmul(g, operand(t, g, MATRIX, x, p), x);

	return wf_mul(g, wf_silu(g, a), b);
}

/* Numbers of rows show themselves as the rows of a table. */
static wf_tensor *visible(struct trial *t, wf_graph *g, wf_tensor *x)
{
	return x->dtype == WF_I32 ? wf_take(g, trial_weight(t, g, t->opt.act, WF_SHAPE(2200, 3), 0.25, 2), x) : x;
}

static void add_recipe(struct trial *t, wf_graph *g, const struct recipe *r)
{
	wf_tensor *x = trial_embed(t, g, r->n);
	const wf_op *op = r->part[r->npart - 1].p->op;

	if (r->rows)
		x = wf_take(g, x, t->rows);
	if (r->heads > 1)
		x = wf_heads(g, x, r->heads);
	for (int i = 0; i < r->npart && !wf_failed(g); i++) {
		if (x->dtype == WF_I32)
			wf_fail(g->err, "no values to go on with");
		bool product = r->part[i].p->op->kind == WF_DOT;
		x = product && r->gated ? gate(t, g, x, &r->part[i]) : add_part(t, g, x, &r->part[i]);
		op = product ? r->part[i].p->op : op;
		if (i == r->shown && i + 1 < r->npart)
			trial_output(t, g, visible(t, g, x), r->part[i].p->op, 0);
	}
	trial_output(t, g, visible(t, g, x), op, 0);
}

/* ---- attributes: by what their names mean in all ops ---- */

static double attribute(const struct wf_attr_info *a, int64_t n)
{
	static const struct { const char *name; double low, high; } real[] = {{"eps", 1e-6, 1e-3}, {"by", 0.5, 2},
		{"cap", 1, 9}, {"mscale", 0.5, 1.5}, {"scale", 0.5, 2}, {"alpha", 1, 2}, {"limit", 0.5, 3}, {NULL, 0, 0}};
	static const char *const flag[] = {"pairs", "sigmoid", "norm", "mode", "wide", NULL};
	const int64_t whole[] = {0, 1, 2, 4, 8, 32, n / 2, below((int)n) + 1};
	char name[32];

	snprintf(name, sizeof name, "%.*s", (int)a->len, a->name);
	for (int i = 0; real[i].name; i++)
		if (!strcmp(real[i].name, name))
			return between(real[i].low, real[i].high);
	for (int i = 0; flag[i]; i++)
		if (!strcmp(flag[i], name))
			return below(2);
	if (a->has_absent && below(2))
		return a->absent;
	return (double)whole[below(8)];
}

static void attributes(struct part *p, int64_t n)
{
	struct wf_attr_info info;

	for (int k = 0; k < WF_MAXATTR && !wf_attr_info(p->p->op, k, &info); k++)
		p->attr[k] = attribute(&info, n);
}

/* ---- what is possible: found by asking ---- */

static void build_recipes(struct trial *t, wf_graph *g)
{
	const struct recipe *r = t->what;

	for (int i = 0; r[i].npart && !wf_failed(g); i++)
		add_recipe(t, g, &r[i]);
}

static bool shapes_fit(const struct recipe *r, const struct trial_opt *opt)
{
	struct recipe list[2] = {*r};
	struct trial t = {.opt = *opt, .build = build_recipes, .what = list, .arena = wf_arena_new(), .weights.find = trial_find};
	bool fits = !wf_failed(trial_graph(&t, WF_F32));

	wf_arena_free(t.arena);
	return fits;
}

/* Planned and written by the backend; why not, in words. */
static bool is_planned(const struct recipe *r, const struct trial_opt *opt, char why[256])
{
	struct recipe list[2] = {*r};
	struct trial *t = calloc(1, sizeof *t);

	*t = (struct trial){.opt = *opt, .build = build_recipes, .what = list};
	bool planned = !trial_plan(t);
	snprintf(why, 256, "%.255s", t->err.text);
	wf_arena_free(t->arena);
	free(t);
	return planned;
}

/* Attention has a generator of its own; rows of a computed table are taken where a recipe begins; what
 * moves rows of weights does so once, while loading. */
static bool is_computed_kind(const wf_op *op)
{
	return op != &wf_op_take && !op->source_row && op->kind != WF_LEAF && op->kind != WF_ATTEND && op->kind != WF_COMM && !op->state;
}

static bool takes(struct pattern *p)
{
	static const struct trial_opt opt = {.act = WF_F32, .kv = WF_F32, .max_tokens = 4, .max_seqs = 2, .page_tokens = 16};

	for (int try = 0; try < 40; try++) {
		struct recipe r = {.n = 64, .heads = p->ndim == 3 ? below(2) ? 2 : 4 : 1, .npart = 1, .shown = -1,
			.part = {{.p = p, .type = WF_F32, .width = 24}}};
		attributes(&r.part[0], r.n / r.heads);
		if (shapes_fit(&r, &opt))
			return true;
	}
	return false;
}

/* A computed denominator may come next to zero, where nothing can be compared. */
static bool has_one_stream(const struct pattern *p)
{
	int n = 0;

	for (int k = 0; k < p->nin; k++)
		n += p->in[k] == STREAM;
	return n == 1 && (p->op != &wf_op_div || p->in[0] == STREAM);
}

static void find_patterns(const wf_op *op)
{
	for (int nin = op->nin; nin <= op->nin + op->nopt && nin <= 3; nin++)
		for (int ndim = 2; ndim <= 3; ndim++) {
			int total = 1;
			for (int k = 0; k < nin; k++)
				total *= NOPERAND;
			for (int code = 0; code < total && npattern < MAXPATTERN; code++) {
				struct pattern *p = &pattern[npattern];
				*p = (struct pattern){.op = op, .ndim = ndim, .nin = nin};
				for (int k = 0, c = code; k < nin; k++, c /= NOPERAND)
					p->in[k] = (enum operand)(c % NOPERAND);
				if (has_one_stream(p) && takes(p))
					npattern++;
			}
		}
}

/* ---- random recipes ---- */

static const struct pattern *some_pattern(wf_kind kind, bool only)
{
	const struct pattern *p;

	do
		p = &pattern[below(npattern)];
	while (only ? p->op->kind != kind : p->op->kind == WF_DOT);
	return p;
}

static struct part some_part(const struct pattern *p, wf_dtype act, int64_t n)
{
	static const int64_t widths[] = {1, 3, 8, 17, 33, 64, 100, 129, 200, 96, 160, 256};
	struct part part = {.p = p, .type = below(2) ? act : floats[below(3)], .width = widths[below(12)]};

	attributes(&part, n);
	return part;
}

/* A choice between computed values: rounded, near ones change places, and all that follows is another. */
static bool may_tip(const struct part *p)
{
	return p->p->op == &wf_op_route;
}

/* Tries parts until one follows what there is; a recipe that ends early is as good. */
static void extend(struct recipe *r, int parts, const struct trial_opt *opt)
{
	for (int try = 0; try < 30 * parts && r->npart < parts; try++) {
		r->part[r->npart++] = some_part(some_pattern(WF_DOT, false), opt->act, r->n);
		if (may_tip(&r->part[r->npart - 1]) || !shapes_fit(r, opt))
			r->npart--;
	}
}

static int64_t some_width(void)
{
	static const int64_t widths[] = {1, 2, 7, 8, 31, 32, 33, 64, 72, 100, 127, 128, 160, 255, 256, 257, 384, 520, 1000, 1025};

	return widths[below(20)];
}

/* A chain that begins with `first`, whatever widths it wants. */
static bool chain(struct recipe *r, const struct pattern *first, const struct trial_opt *opt)
{
	static const int64_t counts[] = {1, 2, 3, 4, 5, 8};

	for (int try = 0; try < 200; try++) {
		*r = (struct recipe){.n = some_width(), .heads = 1, .rows = !below(6), .shown = below(3) - 1, .npart = 1};
		if (first->ndim == 3) {
			r->heads = counts[below(6)];
			r->n *= r->heads;
		}
		r->part[0] = some_part(first, opt->act, r->n / r->heads);
		if (r->n > 2100 || (r->rows && r->heads > 1) || !shapes_fit(r, opt))
			continue;
		extend(r, 1 + below(MAXPART), opt);
		return true;
	}
	return false;
}

static const struct pattern *product_pattern(void)
{
	for (int i = 0; i < npattern; i++)
		if (pattern[i].op == &wf_op_matmul && pattern[i].ndim == 2 && pattern[i].in[0] == MATRIX && pattern[i].in[1] == STREAM)
			return &pattern[i];
	return NULL;
}

/* A product of a weight of that type, with what may come before and after it.  wide: of rows of which
 * a multiprocessor does not hold many. */
static void product(struct recipe *r, wf_dtype type, bool wide, const struct trial_opt *opt)
{
	static const int64_t widths[] = {1, 7, 16, 33, 48, 100, 128, 200, 257, 320};
	int64_t block = wf_dtypes[type].block;

	do {
		*r = (struct recipe){.n = wide ? 2816 * (3 + below(3)) : block == 1 ? some_width() :
			block * (1 + below(block == 256 ? 4 : 24)), .heads = 1, .rows = !below(6), .shown = below(2) - 1, .gated = !below(3)};
		if (below(2))
			extend(r, 1, opt);
		int at = r->npart;
		r->part[at] = (struct part){.p = product_pattern(), .type = type, .width = widths[below(10)]};
		r->npart++;
		if (shapes_fit(r, opt))
			extend(r, r->npart + below(3), opt);
	} while (!shapes_fit(r, opt));
}

/* ---- attention ---- */

struct layer_of { int nkv, group, kdim, vdim, window; double scale, softcap, alibi; bool sinks, rope; };

static void build_attention(struct trial *t, wf_graph *g)
{
	const struct layer_of *l = t->what;
	/* a key made in another way may be rounded to its neighbour */
	double loose = t->opt.kv == WF_F32 ? 0 : t->opt.kv == WF_F16 ? 1e-8 : 1e-6;

	for (int i = 0; i < 3; i++, l++) {
		int heads = l->nkv * l->group;
		wf_tensor *q = wf_heads(g, trial_values(t, g, heads * l->kdim), heads);
		wf_tensor *k = wf_heads(g, trial_values(t, g, l->nkv * l->kdim), l->nkv);
		wf_tensor *v = wf_heads(g, trial_values(t, g, l->nkv * l->vdim), l->nkv);
		wf_tensor *freqs = wf_rope_freqs(g, l->kdim, &(struct wf_rope_freqs){.theta = 10000});
		struct wf_attention a = {.scale = l->scale, .window = l->window, .softcap = l->softcap, .alibi = l->alibi};
		if (l->rope) {
			q = wf_rope(g, q, t->positions, freqs, false, 1);
			k = wf_rope(g, k, t->positions, freqs, false, 1);
		}
		if (l->sinks)
			a.sinks = trial_weight(t, g, WF_F32, WF_SHAPE(heads), -1, 3);
		wf_tensor *kv = wf_cache(g, k, v, t->positions, i, l->window);
		trial_output(t, g, wf_scale(g, wf_merge(g, wf_attend(g, q, kv, t->positions, &a)), 0.5), &wf_op_attend, loose);
	}
}

static void some_layers(struct layer_of *l)
{
	static const int dims[] = {8, 16, 24, 32, 40, 64, 80, 96, 112, 128, 192, 256}, groups[] = {1, 1, 2, 3, 4, 5, 7, 8, 9, 16};
	static const int windows[] = {0, 0, 0, 1, 5, 33, 100};

	for (int i = 0; i < 3; i++) {
		int kdim = dims[below(12)];
		l[i] = i == 2 && below(2) ? l[1] : (struct layer_of){.nkv = 1 + below(4), .group = groups[below(10)], .kdim = kdim,
			.vdim = below(3) ? kdim : dims[below(12)], .window = windows[below(7)], .rope = below(2)};
		l[i].scale = below(3) ? 0 : 0.2;
		l[i].softcap = below(3) ? 0 : 5;
		l[i].alibi = below(3) ? 0 : 8;
		l[i].sinks = !below(3);
	}
}

/* ---- trials ---- */

static struct trial *trials[MAXTRIAL];
static int ntrial;

struct refusal { const wf_op *op; char why[256]; };

static struct refusal refused[MAXOP];
static int nrefused;

static void count_case(const struct trial *t, int out, double nmse);

static struct trial *new_trial(const struct trial_opt *opt, void (*build)(struct trial *, wf_graph *), void *what)
{
	struct trial *t = calloc(1, sizeof *t);

	*t = (struct trial){.opt = *opt, .build = build, .what = what, .result = count_case};
	if (trial_plan(t))
		fail_msg("plan: %s", t->err.text);
	if (ntrial == MAXTRIAL)
		fail_msg("too many trials");
	trials[ntrial++] = t;
	return t;
}

/* Sums are f32, or as narrow as all else. */
static void set_types(struct trial_opt *opt, wf_dtype act)
{
	opt->act = opt->backend->act == WF_F32 ? WF_F32 : act;
	opt->sum = opt->act == WF_F16 && below(2) ? WF_F16 : WF_F32;
}

static struct trial_opt some_options(const wf_backend *backend)
{
	static const int bounds[][2] = {{1, 1}, {2, 2}, {3, 3}, {4, 2}, {8, 8}, {9, 9}, {24, 5}, {40, 5}, {70, 5}, {150, 5}};
	static const char *const skips[] = {NULL, NULL, NULL, "fuse", "rewrite", "fold"};
	const int *b = bounds[below(10)];

	struct trial_opt opt = {.backend = backend, .kv = floats[below(3)], .max_tokens = b[0], .max_seqs = b[1],
		.page_tokens = 16 << below(3), .skip = skips[below(6)], .no_graph = !below(4)};
	set_types(&opt, floats[below(3)]);
	return opt;
}

static void refuse(const wf_op *op, const char *why)
{
	for (int i = 0; i < nrefused; i++)
		if (refused[i].op == op)
			return;
	refused[nrefused] = (struct refusal){.op = op};
	snprintf(refused[nrefused++].why, 256, "%.255s", why);
}

/* n trials of chains, each beginning with the patterns in turn so that every op has its share. */
static void make_chains(const wf_backend *backend, int n)
{
	char why[256];

	for (int i = 0, at = 0; i < n; i++) {
		struct trial_opt opt = some_options(backend);
		struct recipe *list = calloc(RECIPES + 1, sizeof *list);
		for (int k = 0; k < RECIPES; at++) {
			struct recipe r;
			if (!chain(&r, &pattern[at % npattern], &opt))
				continue;
			if (is_planned(&r, &opt, why))
				list[k++] = r;
			else
				refuse(pattern[at % npattern].op, why);
		}
		new_trial(&opt, build_recipes, list);
	}
}

static void make_products(const wf_backend *backend, int n)
{
	for (int i = 0; i < n; i++)
		for (int type = 0; type < WF_NDTYPE; type++) {
			struct trial_opt opt = some_options(backend);
			if (type == WF_I32)
				continue;
			struct recipe *list = calloc(RECIPES + 1, sizeof *list);
			char why[256];
			set_types(&opt, floats[(i + type) % 3]);
			for (int k = 0; k < 3;) {
				product(&list[k], (wf_dtype)type, k == 0 && (type == WF_F16 || type == WF_BF16), &opt);
				if (is_planned(&list[k], &opt, why))
					k++;
				else
					refuse(&wf_op_matmul, why);
			}
			memset(&list[3], 0, sizeof list[3]);
			new_trial(&opt, build_recipes, list);
		}
}

/* A product of f32 rows, an embedding's, whose result is bf16: the library writes nothing narrower than it reads. */
static void make_narrowing(const wf_backend *backend)
{
	static const struct { wf_dtype type; int64_t width; } first[] = {{WF_F32, 64}, {WF_BF16, 33}, {WF_Q8_0, 96}};
	struct trial_opt opt = {.backend = backend, .act = backend->act == WF_F32 ? WF_F32 : WF_BF16, .kv = WF_F32,
		.max_tokens = 70, .max_seqs = 5, .page_tokens = 16};
	struct recipe *list = calloc(RECIPES + 1, sizeof *list);

	for (int i = 0; i < 3; i++)
		list[i] = (struct recipe){.n = 64, .heads = 1, .shown = -1, .npart = 2, .part = {
			{.p = product_pattern(), .type = first[i].type, .width = first[i].width},
			{.p = product_pattern(), .type = WF_BF16, .width = 48}}};
	new_trial(&opt, build_recipes, list);
}

static void make_attentions(const wf_backend *backend, int n)
{
	for (int i = 0; i < n; i++) {
		struct trial_opt opt = some_options(backend);
		struct layer_of *l = calloc(3, sizeof *l);
		some_layers(l);
		opt.kv = backend->act == WF_F32 || i % 2 ? floats[i / 2 % 3] : opt.act;
		new_trial(&opt, build_attention, l);
	}
}

/* ---- running them ---- */

struct score { const wf_op *op; int cases; double worst[3]; };

static struct score score[MAXOP];
static int nscore, ncase, nbad;

static struct score *score_of(const wf_op *op)
{
	int i = 0;

	while (i < nscore && score[i].op != op)
		i++;
	if (i == nscore)
		score[nscore++].op = op;
	return &score[i];
}

static int type_index(wf_dtype type)
{
	return type == WF_F32 ? 0 : type == WF_F16 ? 1 : 2;
}

/* What it was, in the words of the graph: enough to build it by hand. */
static void describe(const struct trial *t)
{
	const struct trial_opt *o = &t->opt;

	fprintf(stderr, "%s act %s kv %s, at most %d tokens of %d sequences, pages of %d, skip %s%s; this step: %d tokens of %d sequences, %d rows\n",
		o->backend->name, wf_dtypes[o->act].name, wf_dtypes[o->kv].name, (int)o->max_tokens, (int)o->max_seqs, o->page_tokens,
		o->skip ? o->skip : "nothing", o->no_graph ? ", no graph" : "", t->batch.ntoken, t->batch.nseq, t->batch.nrow);
}

static void show(const struct trial *t, int out)
{
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);

	wf_plan_print(t->plan, f);
	fclose(f);
	fprintf(stderr, "output o%d of\n%s\n", out, text);
	free(text);
}

static void count_case(const struct trial *t, int out, double nmse)
{
	const struct trial_out *o = &t->out[out];
	struct score *s = score_of(o->op);
	double *worst = &s->worst[type_index(t->opt.act)];

	ncase++;
	s->cases++;
	*worst = nmse > *worst ? nmse : *worst;
	if (nmse <= o->most)
		return;
	if (nbad++ > 5)
		return;
	describe(t);
	fprintf(stderr, "%s: NMSE %.3g, at most %.3g\n", o->op->name, nmse, o->most);
	if (nbad < 4)
		show(t, out);
}

static int some_counts(const struct trial *t, int step, int count[TRIAL_SEQS])
{
	int n = 1 + below((int)t->opt.max_seqs), left = (int)t->opt.max_tokens;

	if (step == 0)
		n = (int)t->opt.max_seqs;
	for (int i = 0; i < n; i++) {
		int most = left - (n - 1 - i);
		count[i] = step % 3 == 2 || most < 2 ? 1 : step == 0 && i == n - 1 ? most : 1 + below(most);
		count[i] = count[i] > 140 ? 140 : count[i];
		left -= count[i];
	}
	return n;
}

/* Sequences that have grown past 250 tokens begin anew. */
static void shorten(struct trial *t)
{
	for (int i = 0; i < t->opt.max_seqs; i++)
		if (wf_seq_len(t->seq[i]) > 250 || wf_seq_len(t->seq[i]) + t->opt.max_tokens > TRIAL_PAGES / t->opt.max_seqs * t->opt.page_tokens) {
			wf_seq_free(t->slab, t->seq[i]);
			t->seq[i] = wf_seq_new(t->slab);
		}
}

static void run_trial(struct trial *t, const char *cache)
{
	const char *fault = NULL;
	int count[TRIAL_SEQS];

	if (trial_open(t, cache)) {
		if (!t->opt.backend->check)           /* it says so only now */
			return refuse(t->out[0].op, t->err.text);
		fault = t->err.text;
	}
	for (int step = 0; step < STEPS && !fault; step++) {
		int n = some_counts(t, step, count);
		shorten(t);
		fault = trial_step(t, count, n);
	}
	if (!fault)
		return;
	if (nbad++ < 5) {
		describe(t);
		fprintf(stderr, "%s\n", fault);
		show(t, 0);
	}
}

static void drop_trials(void)
{
	while (ntrial) {
		free(trials[--ntrial]->what);
		free(trials[ntrial]);
	}
	npattern = nrefused = nscore = ncase = nbad = 0;
}

static void print_scores(void)
{
	print_message("%-14s %6s  worst NMSE in %9s %9s %9s\n", "op", "cases", "f32", "f16", "bf16");
	for (int i = 0; i < nscore; i++)
		print_message("%-14s %6d  %25.1e %9.1e %9.1e\n", score[i].op->name, score[i].cases, score[i].worst[0],
			score[i].worst[1], score[i].worst[2]);
	for (int i = 0; i < nrefused; i++)
		print_message("refused: %s\n", refused[i].why);
	print_message("%d cases, %d bad\n", ncase, nbad);
}

static int share(int n)
{
	return (n * percent_tried() + 99) / 100;
}

static void make_all(const wf_backend *backend, int chains, int products, int attentions)
{
	const char *seed = getenv("WEFT_SEED");

	trial_state = 88172645463325252ull ^ (seed ? strtoull(seed, NULL, 10) * 0x9E3779B97F4A7C15ull : 0);
	for (int i = 0; wf_ops[i]; i++)
		if (is_computed_kind(wf_ops[i]))
			find_patterns(wf_ops[i]);
	make_chains(backend, share(chains));
	make_products(backend, share(products));
	make_attentions(backend, share(attentions));
	make_narrowing(backend);
}

static void run_all(const char *cache)
{
	for (int i = 0; i < ntrial; i++) {
		run_trial(trials[i], cache);
		trial_close(trials[i]);
	}
	print_scores();
	if (nbad)
		fail_msg("%d of %d cases are wrong", nbad, ncase);
	drop_trials();
}

static void cpu_agrees(void **state)
{
	(void)state;
	make_all(&wf_backend_cpu, 20, 1, 6);
	run_all(NULL);
}

#ifdef WF_CUDA

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Every page of every trial, at once: opening finds them in the cache. */
static void compile_all(const struct cuda_gpu *gpu, const char *dir)
{
	struct cuda_program *program = NULL;
	struct cuda_build_stats stats = {0};
	wf_arena *arena = wf_arena_new();
	wf_error err = {0};
	double start = seconds();
	int n = 0;

	for (int i = 0; i < ntrial; i++) {
		struct pages pages;
		struct emit_opt opt = {.gpu = gpu, .page_tokens = trials[i]->opt.page_tokens};
		if (pages_make(&err, arena, &opt, trials[i]->plan, &pages))
			fail_msg("%s", err.text);
		program = realloc(program, sizeof *program * (size_t)(n + pages.nprogram + 1));
		memcpy(program + n, pages.program, sizeof *program * (size_t)pages.nprogram);
		n += pages.nprogram;
	}
	struct cuda_build_opt build = {.arch = gpu->arch, .cache = cache_open(&err, dir)};
	if (!build.cache || nvrtc_build(&err, &build, program, n, &stats))
		fail_msg("%s", err.text);
	print_message("%d trials, %d pages: %d compiled in %.1f s\n", ntrial, n, stats.compiled, seconds() - start);
	nvrtc_free(program, n);
	cache_close(build.cache);
	free(program);
	wf_arena_free(arena);
}

static void cuda_agrees(void **state)
{
	CUcontext context;
	struct cuda_gpu gpu;
	wf_error err = {0};
	double start = seconds();

	(void)state;
	if (driver_open(&err) || driver_gpu(&err, 0, &gpu) || CU(&err, cuDevicePrimaryCtxRetain(&context, 0))) {
		print_message("skipped: %s\n", err.text);
		skip();
	}
	make_all(&wf_backend_cuda, 60, 3, 24);
	compile_all(&gpu, cache_dir());
	run_all(cache_dir());
	cuda_driver.cuDevicePrimaryCtxRelease(0);
	print_message("%.1f s in all\n", seconds() - start);
}

#else

static void cuda_agrees(void **state)
{
	(void)state;
	print_message("skipped: built without the CUDA toolkit\n");
	skip();
}

#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cpu_agrees),
		cmocka_unit_test(cuda_agrees),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
