/* experts.c - models with experts: the choice, products over chosen experts, what follows them.
 *
 * Few tokens: one kernel reads the chosen experts' rows as gemv.cuh does.  Many, in 16 bits: pairs of
 * token and expert are sorted by expert, and tiles of weights meet runs of tokens on matrix units.  A gate
 * and its value are one product of row pairs, biases and elementwise ops its epilogue.  What mixes the experts
 * of a token follows row by row: a fixed order, no atomics. */
#include "backends/cuda/cuda.h"

#include <string.h>

enum { SORT_THREADS = 1024, OWN_LIST = 128, MAXROUTED = 4096, MAXMEMBER = 64 };

static int64_t lesser(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static const wf_tensor *find(const wf_kernel *k, const char *op)
{
	for (int i = 0; i < k->nnode; i++)
		if (emit_is(k->node[i], op))
			return k->node[i];
	return NULL;
}

/* ---- the choice ------------------------------------------------------------------------------------------ */

static void define_choice(struct emit *e, struct page *p, const wf_tensor *route)
{
	page_define(p, "CHOOSE", "1");
	page_define(p, "SIGMOID", "%d", emit_attr(route, "sigmoid") != 0);
	page_define(p, "GROUPS", "%d", (int)emit_attr(route, "groups"));
	page_define(p, "GROUPK", "%d", (int)emit_attr(route, "group_k"));
	page_define(p, "GROUPBEST", "%d", (int)emit_attr(route, "group_best"));
	page_define(p, "BIAS", "%d", route->nin > 1);
	page_define(p, "STORE", "%d", e->plan->value[route->id].stored);
	if (route->nin > 1)
		page_pointer(p, route->in[1]->constant ? PAGE_CONSTANT : PAGE_VALUE, route->in[1],
			page_format(p, "const %s *", page_type(p, route->in[1])), "bias");
	if (e->plan->value[route->id].stored)
		page_pointer(p, PAGE_VALUE, route, "int *", "ids");
}

static void define_gates(struct page *p, const wf_tensor *gates, bool chosen_here)
{
	page_define(p, "WEIGH", "1");
	page_define(p, "MODE", "%d", (int)emit_attr(gates, "mode"));
	page_define(p, "NORM", "%d", emit_attr(gates, "norm") != 0);
	page_define(p, "SCALE", "%s", page_number(p, emit_attr(gates, "scale")));
	if (!chosen_here)
		page_pointer(p, PAGE_VALUE, gates->in[1], "const int *", "ids");
	page_pointer(p, PAGE_VALUE, gates, page_format(p, "%s *", page_type(p, gates)), "gates");
}

int emit_route(struct emit *e)
{
	const wf_tensor *route = find(e->kernel, "route"), *gates = find(e->kernel, "gates");
	const wf_tensor *any = route ? route : gates;
	struct page p;

	if (!any)
		return emit_rows(e, "", NULL, NULL, NULL);
	if (e->kernel->nnode != (route != NULL) + (gates != NULL))
		return emit_refuse(e, "it is joined with other ops");
	if (wf_last(any->in[0]) > MAXROUTED / 2)
		return emit_refuse(e, "more than 2048 experts");
	struct emit_launch *l = emit_add(e, "route");
	page_open(&p, e->arena, e->plan, e->kernel);
	page_define(&p, "EXPERTS", "%lld", (long long)wf_last(any->in[0]));
	page_define(&p, "CHOSEN", "%lld", (long long)wf_last(any));
	page_pointer(&p, PAGE_VALUE, any->in[0], page_format(&p, "const %s *", page_type(&p, any->in[0])), "logits");
	if (route)
		define_choice(e, &p, route);
	if (gates)
		define_gates(&p, gates, route != NULL);
	page_count(&p, any);
	l->threads = 32;
	l->grid_x = 0;
	l->weight = 1;
	return emit_finish(e, &p, l, "", "route.cuh");
}

/* ---- products: hooks ---------------------------------------------------------------------------------------- */

struct routed {
	struct emit *e;
	const wf_kernel *kernel;
	const wf_tensor *dot, *second;        /* the anchor; what it is a pair with, NULL none */
	const wf_tensor *mix;                 /* the product goes to scratch for it; NULL none */
	int64_t units, cols, nexpert, k;
	int64_t pairs;                        /* of a step like this; a sorted list has room for the plan's most */
	bool each;                            /* activations of every pair */
	int tokens;                           /* of a segment */
	bool sorted;
};

static struct routed describe(struct emit *e)
{
	const wf_kernel *kernel = e->kernel;
	const wf_tensor *y = kernel->anchor;
	struct routed r = {.e = e, .kernel = kernel, .dot = y, .mix = find(kernel, "mix"), .units = y->dim[2],
		.cols = wf_last(y->in[1]), .nexpert = (int64_t)emit_attr(y, "n"), .k = y->dim[1], .each = y->in[1]->ndim == 3};

	r.pairs = e->rows * r.k;
	for (int i = 0; i < kernel->nnode; i++)
		if (kernel->node[i]->op == y->op && kernel->node[i] != y)
			r.second = kernel->node[i];
	return r;
}

/* A weight's type as the kernels name it, whether it has one dimension more or not. */
static const char *weight(struct page *p, const wf_tensor *t, const char *name)
{
	return page_pointer(p, PAGE_CONSTANT, t, "const byte *", name);
}

static int64_t list_pairs(const struct routed *r)
{
	return r->sorted ? r->e->plan->opt.max_tokens * r->k : r->pairs;
}

static void define_product(const struct routed *r, struct page *p)
{
	page_define(p, "EXPERTS", "%lld", (long long)r->nexpert);
	page_define(p, "CHOSEN", "%lld", (long long)r->k);
	page_define(p, "EACH", "%d", r->each);
	page_define(p, "MAXPAIRS", "%lld", (long long)list_pairs(r));
	page_define(p, "TOKENS", "%d", r->tokens);
}

static void add_weights(const struct routed *r, struct page *p)
{
	page_define(p, "COLS", "%lld", (long long)r->cols);
	page_define(p, "UNITS", "%lld", (long long)r->units);
	page_define(p, "ROWS", "%lld", (long long)(r->second ? 2 * r->units : r->units));
	page_define(p, "PAIR", "%d", r->second != NULL);
	page_define(p, "WTYPE", "%s", page_type(p, r->dot->in[0]));
	page_define(p, "XTYPE", "%s", page_type(p, r->dot->in[1]));
	weight(p, r->dot->in[0], "w");
	if (r->second)
		weight(p, r->second->in[0], "w2");
	page_pointer(p, PAGE_VALUE, r->dot->in[1], "const XTYPE *", "x");
	page_add(p, "__device__ inline const byte *row_at(const args &p, int unit, [[maybe_unused]] int side)\n{\n"
		"\treturn %s + unit * (COLS / format<WTYPE>::LEN * (long long)format<WTYPE>::BYTES);\n}\n\n",
		r->second ? "(side ? p.w2 : p.w)" : "p.w");
}

static void add_x8(const struct routed *r, struct page *p)
{
	page_add(p, "__device__ inline void x8(const args &p, int pair, int k, float (&v)[8])\n{\n"
		"\tload8_of<%s>(p.x + (size_t)(%s) * COLS, k, COLS, v);\n}\n\n",
		r->cols * wf_dtypes[r->dot->in[1]->dtype].bytes % 16 ? "false" : "true", r->each ? "pair" : "pair / CHOSEN");
}

/* ---- the epilogue: a straight line over one unit of one pair ------------------------------------------------------ */

static const wf_tensor *last_stored(const struct routed *r)
{
	const wf_tensor *last = NULL;

	for (int i = 0; i < r->kernel->nnode; i++)
		if (r->e->plan->value[r->kernel->node[i]->id].stored)
			last = r->kernel->node[i];
	return last;
}

static const char *operand(const struct routed *r, struct page *p, const wf_tensor *t, const char *const *val)
{
	int i = emit_member(r->kernel, t);

	if (i >= 0)
		return val[i];
	if (!t->constant)
		return NULL;
	const char *at = wf_nelem(t) == r->units ? "unit" : page_format(p, "unit %% %lld", (long long)wf_nelem(t));
	return page_format(p, "to_float(p.%s[%s])", page_value(p, t), at);
}

/* A row of a table by the pair's expert: its bias. */
static const char *line_choice(const struct routed *r, struct page *p, const wf_tensor *t)
{
	const wf_tensor *table = t->in[0];

	if (!emit_is(t, "take") || t->in[1] != r->dot->in[2] || !table->constant || wf_dtypes[table->dtype].block > 1)
		return NULL;
	return page_format(p, "to_float(p.%s[(size_t)expert * %lld + unit])", page_value(p, table), (long long)r->units);
}

static const char *line_map(const struct routed *r, struct page *p, const wf_tensor *t, const char *const *val)
{
	const char *call = page_function(p, t), *comma = "(";

	for (int k = 0; k < t->nin; k++) {
		const char *x = operand(r, p, t->in[k], val);
		if (!x)
			return NULL;
		call = page_format(p, "%s%s%s", call, comma, x);
		comma = ", ";
	}
	return page_format(p, "%s)", call);
}

static const char *add_line(const struct routed *r, struct page *p, const wf_tensor *t, int id, const char *const *val)
{
	const char *what = t == r->dot ? "a" : t == r->second ? "b" : t->op->kind == WF_MAP ? line_map(r, p, t, val) :
		line_choice(r, p, t);

	if (what)
		page_add(p, "\tfloat v%d = %s;\n", id, what);
	return what ? page_format(p, "v%d", id) : NULL;
}

static const char *add_value(const struct routed *r, struct page *p)
{
	const wf_kernel *kernel = r->kernel;
	const wf_tensor *last = last_stored(r);
	const char *val[MAXMEMBER] = {0}, *result = "a";

	if (kernel->nnode > MAXMEMBER)
		return "too many members";
	for (int i = 0; i < kernel->nnode; i++)
		if (kernel->node[i]->op->kind == WF_MAP)
			page_op(p, kernel->node[i], NULL);
	page_add(p, "__device__ inline float value([[maybe_unused]] const args &p, [[maybe_unused]] int expert, "
		"[[maybe_unused]] int unit,\n\t\t[[maybe_unused]] int pair, float a, [[maybe_unused]] float b)\n{\n");
	for (int i = 0; i < kernel->nnode; i++) {
		const wf_tensor *t = kernel->node[i];
		if (!(val[i] = add_line(r, p, t, i, val)))
			return "what follows it reads other rows";
		if (t == last)
			result = val[i];
		else if (r->e->plan->value[t->id].stored)
			page_add(p, "\tput(p.%s + (size_t)pair * %lld + unit, %s);\n", page_value(p, t), (long long)r->units, val[i]);
	}
	page_add(p, "\treturn %s;\n}\n\n", result);
	page_define(p, "YTYPE", "%s", page_type(p, last));
	page_add(p, "__device__ inline YTYPE *y_at(const args &p, int pair) { return p.%s + (size_t)pair * %lld; }\n",
		page_value(p, last), (long long)r->units);
	return NULL;
}

static void add_bare(const struct routed *r, struct page *p, const char *type)
{
	page_define(p, "YTYPE", "%s", type);
	page_pointer(p, PAGE_PRODUCT, NULL, "YTYPE *", "product");
	page_add(p, "__device__ inline float value(const args &, int, int, int, float a, float) { return a; }\n"
		"__device__ inline YTYPE *y_at(const args &p, int pair) { return p.product + (size_t)pair * %lld; }\n",
		(long long)r->units);
}

/* ---- few tokens ---------------------------------------------------------------------------------------------------- */

struct shape { int warps, stages, smem; };

/* What experts.cuh will need, a little more: the page asserts that it fits. */
static int few_smem(const struct routed *r, bool mma, int tokens, int warps, int stages)
{
	const struct wf_dtype_info *type = &wf_dtypes[r->dot->in[0]->dtype];
	bool dense = type->block == 1;
	int chunk = dense ? 64 : 256, piece = chunk / type->block * type->bytes;
	int padded = (int)((r->cols + chunk - 1) / chunk) * chunk;
	bool snug = wf_row_bytes(r->dot->in[0]->dtype, r->cols) % 16 == 0 && piece % 16 == 0;
	int stage = 16 * ((snug || dense ? piece : piece + 29) / 16 * 16);

	return warps * stages * stage + tokens * padded * (mma ? 2 : 4) + (tokens > 2 ? 2 : 4) * warps * tokens * 20 * 4 +
		2 * warps * tokens * 4 + 256 + (r->sorted ? 0 : (int)r->pairs * 28);
}

/* Of the tokens, so many meet in one expert at once: more than twice the mean are rare. */
static struct shape choose_few(struct routed *r, bool mma)
{
	int64_t most = lesser(lesser(8, r->e->rows), 2 * (r->pairs / r->nexpert) + 2);
	int most_warps = r->dot->in[0]->dtype == WF_Q5_K ? 8 : 16;     /* it needs more registers than 16 leave a thread */

	for (r->tokens = (int)most; r->tokens > 0; r->tokens = r->tokens > 1 ? (r->tokens + 1) / 2 : 0)
		for (int warps = most_warps; warps >= (r->tokens > 1 ? 8 : 4); warps /= 2)
			for (int stages = 80 / warps; stages >= 3; stages--) {
				int smem = few_smem(r, mma, r->tokens, warps, stages);
				if (smem <= emit_room(r->e->gpu, 1))
					return (struct shape){warps, stages, smem};
			}
	return (struct shape){0};
}

static int add_sort(const struct routed *r)
{
	struct emit_launch *l = emit_add(r->e, "sort");
	struct page p;

	page_open(&p, r->e->arena, r->e->plan, r->kernel);
	define_product(r, &p);
	page_pointer(&p, PAGE_VALUE, r->dot->in[2], "const int *", "ids");
	page_pointer(&p, PAGE_PARTS, NULL, "int *", "list");
	page_count(&p, r->dot);
	l->threads = SORT_THREADS;
	l->weight = 1;
	int64_t pairs = list_pairs(r), segments = lesser(pairs, r->nexpert + pairs / r->tokens);
	r->e->work->part_bytes = 4 * (1 + pairs + 5 * segments);
	return emit_finish(r->e, &p, l, "", "sort.cuh");
}

/* What follows the product inside its kernel, or the bare product to scratch. */
static const char *add_end(const struct routed *r, struct page *p, const char *product)
{
	if (!r->mix)
		return add_value(r, p);
	add_bare(r, p, product);
	return NULL;
}

/* Weights as they are pay off once experts have a few tokens each; others once converting them does. */
static bool is_many(const struct routed *r)
{
	const wf_tensor *x = r->dot->in[1];
	int64_t most = r->dot->in[0]->dtype == x->dtype ? 4 : 64;

	return emit_is_16bit(x->dtype) && !graph_is_output(r->e->plan->g, plan_storage(r->e->plan, x)) && r->cols % 8 == 0 &&
		r->e->rows > most;
}

static int add_few(const struct routed *r, const struct shape *shape, bool mma)
{
	struct emit_launch *l = emit_add(r->e, "experts");
	struct page p;

	page_open(&p, r->e->arena, r->e->plan, r->kernel);
	define_product(r, &p);
	page_define(&p, "SORTED", "%d", r->sorted);
	page_define(&p, "MMA", "%d", mma);
	if (mma)
		page_define(&p, "MTYPE", "%s", r->e->plan->g->act == WF_BF16 ? "bf16" : "half");
	page_define(&p, "WARPS", "%d", shape->warps);
	page_define(&p, "STAGES", "%d", shape->stages);
	page_define(&p, "SLOTS", "1");
	add_weights(r, &p);
	if (r->sorted)
		page_pointer(&p, PAGE_PARTS, NULL, "const int *", "list");
	else
		page_pointer(&p, PAGE_VALUE, r->dot->in[2], "const int *", "ids");
	page_count(&p, r->dot);
	page_add(&p, "#include \"choices.cuh\"\n\n");
	add_x8(r, &p);
	const char *why = add_end(r, &p, "float");
	if (why)
		return emit_refuse(r->e, why);
	l->threads = (unsigned)shape->warps * 32;
	l->grid_x = (unsigned)r->e->gpu->sms;
	l->weight = 3 + r->tokens;
	p.tail = page_format(&p, "extern \"C\" __device__ int dynamic_smem = EXPERTS_SMEM;\n"
		"static_assert(EXPERTS_SMEM <= %d, \"shared memory\");\n", emit_room(r->e->gpu, 1));
	return emit_finish(r->e, &p, l, "", "experts.cuh");
}

/* ---- many tokens ------------------------------------------------------------------------------------------------------ */

struct tile { int rows, warps_m, warps_n, stages, slots; bool wgmma; };

/* Rows of weights, tokens and warps of a tile: bytes under way count while experts have few tokens, then
 * how often a value is used once it is in shared memory. */
static struct tile choose_many(struct routed *r)
{
	static const struct tile tiles[] = {{64, 4, 1, 0, 2, false}, {64, 4, 1, 0, 2, false}, {128, 4, 1, 0, 2, false},
		{128, 2, 2, 0, 2, false}, {256, 16, 1, 0, 1, true}};
	int64_t mean = r->pairs / r->nexpert;
	bool hopper = !strcmp(r->e->gpu->arch, "sm_90a");
	int size = mean <= 8 ? 0 : mean <= 16 ? 1 : mean <= 32 ? 2 : 3;
	struct tile t = tiles[size == 3 && hopper ? 4 : size];

	r->tokens = 16 << size;
	do {
		t.stages = (emit_room(r->e->gpu, t.slots) - t.wgmma * 1024) / ((t.rows + r->tokens) * 128);
	} while (t.stages < 3 && --t.slots);
	t.stages = t.stages > 12 ? 12 : t.stages;
	t.slots = t.slots ? t.slots : 1;
	return t;
}

static int add_many(const struct routed *r, const struct tile *t)
{
	struct emit_launch *l = emit_add(r->e, "experts_gemm");
	const char *type;
	struct page p;

	page_open(&p, r->e->arena, r->e->plan, r->kernel);
	type = page_type(&p, r->dot->in[1]);
	define_product(r, &p);
	page_define(&p, "MTYPE", "%s", type);
	page_define(&p, "BM", "%d", t->rows);
	page_define(&p, "WARPS_M", "%d", t->warps_m);
	page_define(&p, "WARPS_N", "%d", t->warps_n);
	page_define(&p, "STAGES", "%d", t->stages);
	page_define(&p, "SLOTS", "%d", t->slots);
	page_define(&p, "WGMMA", "%d", t->wgmma);
	add_weights(r, &p);
	page_pointer(&p, PAGE_PARTS, NULL, "const int *", "list");
	page_count(&p, r->dot);
	page_add(&p, "#include \"choices.cuh\"\n\n");
	const char *why = add_end(r, &p, type);
	if (why)
		return emit_refuse(r->e, why);
	l->threads = (unsigned)(t->warps_m * t->warps_n) * 32;
	l->grid_x = (unsigned)(r->e->gpu->sms * t->slots);
	l->weight = 6;
	p.tail = page_format(&p, "extern \"C\" __device__ int dynamic_smem = GEMM_SMEM;\n"
		"static_assert(GEMM_SMEM <= %d, \"shared memory\");\n", emit_room(r->e->gpu, t->slots));
	return emit_finish(r->e, &p, l, "", "experts_gemm.cuh");
}

static int add_product(struct routed *r, const char **product)
{
	bool mma = emit_is_16bit(r->e->plan->g->act);

	r->sorted = is_many(r) || r->pairs > OWN_LIST;
	if (is_many(r)) {
		struct tile t = choose_many(r);
		*product = r->dot->in[1]->dtype == WF_BF16 ? "bf16" : "half";
		return add_sort(r) || add_many(r, &t) ? -1 : 0;
	}
	struct shape shape = choose_few(r, mma);
	*product = "float";
	if (!r->tokens)
		return emit_refuse(r->e, "its rows do not fit shared memory");
	return (r->sorted && add_sort(r)) || add_few(r, &shape, mma) ? -1 : 0;
}

int emit_experts(struct emit *e)
{
	struct routed r = describe(e);
	const char *product;

	if (r.nexpert > MAXROUTED || e->plan->opt.max_tokens > INT32_MAX / 64 / r.k || r.nexpert * r.units > INT32_MAX)
		return emit_refuse(e, "more experts or rows than it can count");
	if (add_product(&r, &product))
		return -1;
	e->work->product_bytes = r.mix ? r.k * r.units * (!strcmp(product, "float") ? 4 : 2) : 0;
	return r.mix ? emit_rows(e, "-mix", r.dot, NULL, product) : 0;
}
