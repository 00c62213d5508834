/* ops.c - the vocabulary against itself: every op has what its row promises, each test it carries
 * holds, and the fast loops of elementwise ops agree with their definitions. */
#include "ops/ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

enum { PAGE_TOKENS = 16, MAXCLASS = 4 };

struct bench { wf_arena *arena; wf_error err; wf_graph *g; };

static void start(struct bench *b)
{
	*b = (struct bench){.arena = wf_arena_new()};
	b->g = wf_graph_new(b->arena, &b->err, wf_ops);
}

static wf_tensor *expression(struct bench *b, const char *text)
{
	wf_tensor *t = text_expr(b->g, text);

	if (b->err.set)
		fail_msg("%s\n%s", text, b->err.text);
	return t;
}

/* ---- what every row holds ---- */

static void every_op_is_whole(void **state)
{
	(void)state;
	for (const wf_op *const *at = wf_ops; *at; at++) {
		const wf_op *op = *at;
		if (!op->doc || !*op->doc)
			fail_msg("%s has no doc", op->name);
		if (!op->test || !op->test[0])
			fail_msg("%s has no test", op->name);
		if (!op->shape || !op->eval || !op->cost)
			fail_msg("%s lacks a shape rule, a definition or a cost", op->name);
		if (!(op->tol > 0 && op->tol < 1e-3f))
			fail_msg("%s allows an error of %g", op->name, op->tol);
		if ((op->kind == WF_MAP || op->kind == WF_ROW) && (!op->span || !op->cuda))
			fail_msg("%s lacks its fast loop or its CUDA text", op->name);
		if (op->view && op->kind != WF_MOVE)
			fail_msg("%s is a view but moves nothing", op->name);
		if (op->nin + op->nopt > WF_MAXIN)
			fail_msg("%s takes more than %d operands", op->name, WF_MAXIN);
	}
}

static void names_are_unique(void **state)
{
	(void)state;
	for (const wf_op *const *at = wf_ops; *at; at++)
		assert_ptr_equal(wf_op_find(wf_ops, (*at)->name), *at);
	assert_null(wf_op_find(wf_ops, "nothing"));
}

static void attributes_parse(void **state)
{
	struct wf_attr_info info;
	int n;

	(void)state;
	for (const wf_op *const *at = wf_ops; *at; at++) {
		for (n = 0; !wf_attr_info(*at, n, &info); n++) {
			char name[64];
			snprintf(name, sizeof name, "%.*s", (int)info.len, info.name);
			assert_int_equal(wf_attr_index(*at, name), n);
		}
		if (n > WF_MAXATTR)
			fail_msg("%s has %d attributes, expected at most %d", (*at)->name, n, WF_MAXATTR);
	}
}

/* ---- the tests ops carry ---- */

/* One sequence that is as long as the step, in a slab of the classes that the graph's caches need. */
struct cache { wf_slab *slab; wf_seq *seq; uint8_t *base[MAXCLASS]; const int32_t *page[MAXCLASS]; };

static int tokens_of(const wf_graph *g)
{
	for (int i = 0; i < g->nnode; i++)
		if (g->node[i]->op->state)
			return (int)g->node[i]->dim[0];
	return 0;
}

static void open_cache(struct cache *c, struct bench *b, int ntoken)
{
	int64_t npage[MAXCLASS] = {4, 4, 4, 4};
	const struct wf_slab_copy *copy;
	int ncopy, n;
	wf_plan *plan = wf_plan_build(b->g, NULL, NULL, &(struct wf_plan_opt){.max_tokens = 1, .max_seqs = 1,
		.max_rows = 1, .skip = "rewrite,fold,fuse"});

	if (!plan)
		fail_msg("%s", b->err.text);
	c->slab = wf_slab_new(&b->err, plan->kvclass, plan->nkvclass, PAGE_TOKENS, npage);
	c->seq = wf_seq_new(c->slab);
	assert_int_equal(wf_seq_extend(c->slab, c->seq, ntoken, &copy, &ncopy), 0);
	for (int k = 0; k < plan->nkvclass; k++) {
		c->base[k] = calloc(4, slab_page_bytes(&plan->kvclass[k], PAGE_TOKENS));
		c->page[k] = wf_seq_pages(c->seq, k, &n);
	}
}

static void close_cache(struct cache *c)
{
	if (!c->slab)
		return;
	wf_seq_free(c->slab, c->seq);
	wf_slab_free(c->slab);
	for (int k = 0; k < MAXCLASS; k++)
		free(c->base[k]);
}

static void evaluate(struct bench *b)
{
	struct cache c = {0};
	int n = tokens_of(b->g), result;

	if (n) {
		open_cache(&c, b, n);
		wf_batch batch = {.ntoken = n, .nseq = 1, .seq_start = (int32_t[]){0, n}, .seq_len = &n, .page = c.page};
		result = graph_eval(b->g, b->arena, &(struct wf_kv){.slab = c.slab, .base = c.base, .batch = &batch});
	} else {
		result = graph_eval(b->g, b->arena, NULL);
	}
	close_cache(&c);
	if (result)
		fail_msg("%s", b->err.text);
}

static double value(const wf_tensor *t, int64_t i)
{
	return t->dtype == WF_I32 ? ((const int32_t *)t->data)[i] : ((const float *)t->data)[i];
}

static void check(const wf_op *op, const char *expr, const char *want_text)
{
	struct bench b;
	double error = 0, power = 0;

	start(&b);
	b.g->kvtype = WF_F32;
	wf_tensor *got = expression(&b, expr), *want = expression(&b, want_text);
	wf_output(b.g, "got", got);
	wf_output(b.g, "want", want);
	evaluate(&b);
	if (got->ndim != want->ndim || memcmp(got->dim, want->dim, sizeof *got->dim * got->ndim))
		fail_msg("%s has another shape than %s", expr, want_text);
	for (int64_t i = 0; i < wf_nelem(got); i++) {
		error += pow(value(got, i) - value(want, i), 2);
		power += pow(value(want, i), 2);
	}
	/* what is written has nine digits */
	if (!(error <= (op->tol + 1e-14) * power + 1e-30))
		for (int64_t i = 0; i < wf_nelem(got); i++)
			if (value(got, i) != value(want, i))
				fail_msg("%s\nvalue %d is %.9g, expected %.9g", expr, (int)i, value(got, i), value(want, i));
	wf_arena_free(b.arena);
}

static void every_test_holds(void **state)
{
	(void)state;
	for (const wf_op *const *at = wf_ops; *at; at++)
		for (const char *const *t = (*at)->test; t[0]; t += 2) {
			if (!t[1])
				fail_msg("%s: a test without a value", (*at)->name);
			check(*at, t[0], t[1]);
		}
}

/* A test is of the op it stands with. */
static void tests_use_their_op(void **state)
{
	(void)state;
	for (const wf_op *const *at = wf_ops; *at; at++) {
		char call[64];
		bool used = false;
		snprintf(call, sizeof call, "(%s ", (*at)->name);
		for (const char *const *t = (*at)->test; t[0]; t += 2)
			used |= strstr(t[0], call) != NULL;
		if (!used)
			fail_msg("%s: no test calls it", (*at)->name);
	}
}

/* ---- fast loops ---- */

static float some(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
	float v = (float)(int32_t)(*seed >> 32) / 0x1p29f;      /* -4 .. 4 */
	return *seed >> 60 ? v : v * 20;                            /* and outliers */
}

static void compare_span(const wf_op *op, int64_t n)
{
	uint64_t seed = 99 + (uint64_t)n;
	struct bench b;
	struct wf_attr_info info;
	wf_tensor *in[WF_MAXIN];
	double attr[WF_MAXATTR] = {0}, error = 0, power = 0;

	start(&b);
	for (int k = 0; k < op->nin; k++) {
		char name[2] = {(char)('a' + k), 0};
		in[k] = wf_input(b.g, name, WF_F32, WF_SHAPE(n));
		float *data = calloc((size_t)n, sizeof *data);
		for (int64_t i = 0; i < n; i++)
			data[i] = some(&seed) + (k ? 5 : 0);        /* no divisor near 0 */
		in[k]->data = data;
	}
	for (int k = 0; !wf_attr_info(op, k, &info); k++)
		attr[k] = info.has_absent ? info.absent : 1.5;
	wf_tensor *y = wf_node(b.g, op, in, op->nin, attr);
	wf_output(b.g, "y", y);
	if (graph_eval(b.g, b.arena, NULL))
		fail_msg("%s: %s", op->name, b.err.text);
	float *out = calloc((size_t)n + 1, sizeof *out);
	struct wf_span span = {.out = out, .attr = y->attr, .n = n, .row = 0, .token = 0};
	for (int k = 0; k < op->nin; k++)
		span.in[k] = in[k]->data;
	out[n] = 12345;
	op->span(&span);
	for (int64_t i = 0; i < n; i++) {
		error += pow(out[i] - value(y, i), 2);
		power += pow(value(y, i), 2);
	}
	if (!(error <= 1e-11 * power + 1e-30))
		fail_msg("%s over %d values: error %g of %g", op->name, (int)n, error, power);
	assert_true(out[n] == 12345);
	free(out);
	for (int k = 0; k < op->nin; k++)
		free(in[k]->data);
	wf_arena_free(b.arena);
}

static void fast_loops_agree(void **state)
{
	static const int64_t sizes[] = {1, 7, 64, 100, 1000, 4096};

	(void)state;
	for (const wf_op *const *at = wf_ops; *at; at++)
		for (int i = 0; i < 6 && (*at)->kind == WF_MAP; i++)
			compare_span(*at, sizes[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_op_is_whole),
		cmocka_unit_test(names_are_unique),
		cmocka_unit_test(attributes_parse),
		cmocka_unit_test(every_test_holds),
		cmocka_unit_test(tests_use_their_op),
		cmocka_unit_test(fast_loops_agree),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
