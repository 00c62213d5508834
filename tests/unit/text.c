/* text.c - the text form: print, parse, print again is the identity at every stage; a parsed dump goes
 * on to the same plan; malformed text is refused with its line and column. */
#include "harness.h"
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const struct shape toy = {.dim = 64, .nlayer = 2, .nhead = 4, .nkv = 2, .hdim = 16, .ffn = 160, .vocab = 256};

static const struct wf_plan_opt bounds = {.max_tokens = 32, .max_seqs = 2, .max_rows = 2, .verify = true};

struct made { wf_arena *arena; wf_error err; wf_graph *g; wf_plan *plan; };

static void make(struct made *m, const struct shape *shape, const wf_backend *backend, const char *stage, const char *skip)
{
	wf_config c = config_of(shape);
	struct wf_plan_opt opt = bounds;

	*m = (struct made){.arena = wf_arena_new()};
	m->g = wf_graph_new(m->arena, &m->err, wf_ops);
	m->g->name = "toy";
	m->g->wdtype = WF_Q8_0;
	m->g->kvtype = WF_F16;
	wf_arch_llama.build(m->g, &c);
	opt.stop_after = stage;
	opt.skip = skip;
	m->plan = wf_plan_build(m->g, wf_rules, backend, &opt);
	if (!m->plan)
		fail_msg("%s", m->err.text);
}

static char *plan_text(const wf_plan *plan)
{
	char *text;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	assert_int_equal(wf_plan_print(plan, f), 0);
	fclose(f);
	return text;
}

static char *graph_text(const wf_graph *g)
{
	char *text;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	assert_int_equal(wf_graph_print(g, f), 0);
	fclose(f);
	return text;
}

static void parse(struct made *m, const char *text)
{
	*m = (struct made){.arena = wf_arena_new()};
	m->g = wf_graph_new(m->arena, &m->err, wf_ops);
	if (wf_graph_parse(m->g, text, strlen(text), &m->plan))
		fail_msg("%s", m->err.text);
	if (graph_verify(m->g) || (m->plan && plan_verify(m->plan)))
		fail_msg("%s", m->err.text);
}

static void same_text(const char *a, const char *b)
{
	size_t i = 0, start = 0;

	for (; a[i] && a[i] == b[i]; i++)
		if (a[i] == '\n')
			start = i + 1;
	if (a[i] != b[i])
		fail_msg("first difference:\n%.200s\n%.200s", a + start, b + start);
}

static void check_stage(const wf_backend *backend, const char *stage, const char *skip)
{
	struct made a, b;

	make(&a, &toy, backend, stage, skip);
	char *first = plan_text(a.plan);
	parse(&b, first);
	assert_non_null(b.plan);
	assert_int_equal(b.plan->stage, a.plan->stage);
	char *second = plan_text(b.plan);
	same_text(first, second);
	free(first);
	free(second);
	wf_arena_free(a.arena);
	wf_arena_free(b.arena);
}

static void every_stage_is_the_identity(void **state)
{
	(void)state;
	for (int s = 0; s < PLAN_NSTAGE; s++) {
		check_stage(NULL, plan_stage_names[s], NULL);
		check_stage(&wf_backend_cpu, plan_stage_names[s], NULL);
		check_stage(&wf_backend_cpu, plan_stage_names[s], "fuse");
		check_stage(&wf_backend_cpu, plan_stage_names[s], "rewrite,fold");
	}
}

static void a_bare_graph_is_the_identity(void **state)
{
	struct made a, b;

	(void)state;
	make(&a, &toy, NULL, "build", NULL);
	char *first = graph_text(a.g);
	parse(&b, first);
	assert_null(b.plan);
	char *second = graph_text(b.g);
	same_text(first, second);
	free(first);
	free(second);
	wf_arena_free(a.arena);
	wf_arena_free(b.arena);
}

/* A dump of any stage, taken up again, ends in the plan that was never interrupted. */
static void a_dump_goes_on(void **state)
{
	struct made whole, part, again;

	(void)state;
	make(&whole, &toy, &wf_backend_cpu, NULL, NULL);
	char *want = plan_text(whole.plan);
	for (int s = 0; s < PLAN_NSTAGE; s++) {
		make(&part, &toy, &wf_backend_cpu, plan_stage_names[s], NULL);
		char *dump = plan_text(part.plan);
		parse(&again, dump);
		again.plan->rules = wf_rules;
		again.plan->backend = &wf_backend_cpu;
		again.plan->opt.verify = true;
		if (wf_plan_continue(again.plan))
			fail_msg("%s", again.err.text);
		char *got = plan_text(again.plan);
		same_text(want, got);
		free(dump);
		free(got);
		wf_arena_free(part.arena);
		wf_arena_free(again.arena);
	}
	free(want);
	wf_arena_free(whole.arena);
}

/* Numbers come back to the last bit. */
static void numbers_survive(void **state)
{
	static const char text[] = "graph g act=f32 kv=f16\n%0 = const [0.1 -3.4028235e+38 1e-45 16777217] : f32[4]\nout y = %0\n";
	struct made a;

	(void)state;
	parse(&a, text);
	const float *v = a.g->out[0].t->literal;
	assert_true(v[0] == 0.1f && v[1] == -3.4028235e38f && v[2] == 1e-45f && v[3] == 16777216);
	char *again = graph_text(a.g);
	struct made b;
	parse(&b, again);
	assert_memory_equal(b.g->out[0].t->literal, v, 4 * sizeof *v);
	free(again);
	wf_arena_free(a.arena);
	wf_arena_free(b.arena);
}

/* A program that has called setlocale() in a country that writes 0,5 reads and writes the same text. */
static void a_comma_for_a_point(void **state)
{
	char dir[] = "/tmp/weft-locale-XXXXXX", command[160];

	if (!mkdtemp(dir))
		skip();
	snprintf(command, sizeof command, "localedef -i de_DE -f UTF-8 --no-archive %s/de_DE.UTF-8 2> /dev/null", dir);
	setenv("LOCPATH", dir, 1);
	bool comma = !system(command) && setlocale(LC_NUMERIC, "de_DE.UTF-8");
	if (comma) {
		struct made a;
		assert_string_equal(localeconv()->decimal_point, ",");
		numbers_survive(state);
		parse(&a, "$x : f32[T,8]\n%0 = scale $x by=0.5\nout y = %0\n");
		assert_true(a.g->out[0].t->attr[0] == 0.5);
		wf_arena_free(a.arena);
	}
	setlocale(LC_NUMERIC, "C");
	snprintf(command, sizeof command, "rm -r %s", dir);
	if (system(command) || !comma)
		skip();
}

/* Nested operands, comments, blank lines, types left out: what a person writes by hand. */
static void hand_written(void **state)
{
	static const char text[] =
		"# a gate\n\n"
		"graph gate act=f32 kv=f16\n"
		"$g : f32[T,8]\r\n"
		"  $u : f32[T,8]   # its partner\n"
		"%7 = mul (silu $g) $u\n"
		"out y = (scale %7 by=2)";
	struct made a;

	(void)state;
	parse(&a, text);
	const wf_tensor *y = a.g->out[0].t;
	assert_string_equal(y->op->name, "scale");
	assert_string_equal(y->in[0]->op->name, "mul");
	assert_string_equal(y->in[0]->in[0]->op->name, "silu");
	assert_int_equal(y->dim[0], WF_T);
	assert_int_equal(a.g->nnode, 5);
	wf_arena_free(a.arena);
}

#define HEAD "graph g act=f32 kv=f16\n$x : f32[T,8]\n"

/* A kernel added to a placed plan by hand: numbers are the reader's, and what has no place gets one. */
static void a_kernel_of_ones_own(void **state)
{
	static const char text[] =
		"plan place tokens=4 seqs=1 rows=1 arena=128 live=128\n"
		HEAD
		"kernel 0 map {\n %1 = silu $x anchor at 0\n}\n"
		"kernel 99 map {\n %2 = relu %1 anchor\n}\n"
		"kernel 1 map {\n %3 = scale %2 by=2 anchor at 0\n}\n"
		"out y = %3\n";
	struct made a;

	(void)state;
	parse(&a, text);
	assert_int_equal(a.plan->stage, PLAN_ORDER);
	assert_int_equal(a.plan->nkernel, 3);
	assert_string_equal(a.plan->kernel[1].anchor->op->name, "relu");
	a.plan->opt.verify = true;
	if (wf_plan_continue(a.plan))
		fail_msg("%s", a.err.text);
	assert_int_equal(a.plan->arena_bytes, 256);
	wf_arena_free(a.arena);
}

static void equal_nodes_are_one(void **state)
{
	struct made a;

	(void)state;
	parse(&a, "$x : f32[T,8]\n%0 = silu $x\n%1 = silu $x\n%2 = add %0 %1\nout y = %2\n");
	assert_int_equal(a.g->nnode, 3);
	assert_ptr_equal(a.g->out[0].t->in[0], a.g->out[0].t->in[1]);
	wf_arena_free(a.arena);
}

/* ---- errors ---- */

static const struct { const char *text, *where, *what; } bad[] = {
	{"", "line 1, column 1", "no output"},
	{"hello\n", "line 1, column 1", "expected a leaf"},
	{"graph g act=q4_0\n", "line 1, column 17", "expected f32, f16 or bf16"},
	{"graph\n", "line 1, column 6", "expected a name"},
	{HEAD "%0 = nothing $x\n", "line 3", "unknown op 'nothing'"},
	{HEAD "%0 = slu $x\n", "line 3", "unknown op 'slu'; the nearest is 'silu'"},
	{HEAD "%0 = silu $y\n", "line 3, column 13", "a leaf that no line above declares"},
	{HEAD "%0 = silu %1\n", "line 3, column 13", "a value that no line above defines"},
	{HEAD "%0 = silu $x\n%0 = relu $x\n", "line 4", "a value defined twice"},
	{HEAD "%99999999 = silu $x\n", "line 3", "larger than the text is long"},
	{HEAD "%0 = silu $x : f16[T,8]\n", "line 3", "silu gives f32[T,8], written is f16[T,8]"},
	{HEAD "%0 = silu $x : f32[T,9]\n", "line 3", "silu gives f32[T,8], written is f32[T,9]"},
	{HEAD "%0 = silu $x : f33[T,8]\n", "line 3", "unknown type"},
	{HEAD "%0 = silu $x : f32 T\n", "line 3", "expected '['"},
	{HEAD "%0 = silu $x : f32[T,1,2,3,4]\n", "line 3", "more than 4 dimensions"},
	{HEAD "%0 = silu $x : f32[T 8]\n", "line 3", "expected ',' or ']'"},
	{HEAD "%0 = silu\n", "line 3, column 6", "0 operands, expected 1"},
	{HEAD "%0 = silu $x $x\n", "line 3, column 6", "2 operands, expected 1"},
	{HEAD "%0 = scale $x\n", "line 3", "attribute without default is missing"},
	{HEAD "%0 = scale $x of=2\n", "line 3", "scale has no attribute 'of', it has by"},
	{HEAD "%0 = scale $x by=two\n", "line 3, column 18", "expected a number"},
	{HEAD "%0 = cols $x start=nan n=2\n", "line 3", "cols: start is not a number"},
	{HEAD "%0 = lane $x of=2 at=0 block=nan\n", "line 3", "lane: block is not a number"},
	{HEAD "%0 = route $x k=1 groups=0.5 group_k=1\n", "line 3", "groups is 0.5, expected a whole number"},
	{HEAD "%0 = route $x k=1 groups=3 group_k=1\n", "line 3", "of 3 groups of 8 experts"},
	{HEAD "$p : i32[T]\n%0 = heads $x n=2\n%1 = cache %0 %0 $p layer=0 window=1e300\n", "line 5", "window is 1e+300, expected a whole number"},
	{HEAD "$p : i32[T]\n%0 = heads $x n=2\n%1 = cache %0 %0 $p layer=0 window=3e9\n", "line 5", "a window of 3e+09"},
	{HEAD "$p : i32[T]\n%0 = heads $x n=2\n%1 = cache %0 %0 $p layer=0 window=3\n%2 = attend %0 %1 $p window=4\n",
	 "line 6", "a window of 4, the cache keeps the last 3"},
	{HEAD "%0 = silu ($x\n", "line 3", "expected a name"},
	{HEAD "%0 = silu (silu $x\n", "line 3", "expected ')'"},
	{HEAD "%0 = const [[1 2][3]]\n", "line 3", "ragged"},
	{HEAD "%0 = const []\n", "line 3", "empty"},
	{HEAD "%0 = const [1 2\n", "line 3", "expected a number"},
	{HEAD "out y = $x trailing\n", "line 3", "text after the end"},
	{HEAD "%0 = silu $x\n", "line 4, column 1", "no output"},
	{HEAD "}\nout y = $x\n", "line 3", "'}' without a kernel"},
	{HEAD "kernel 0 map {\n", "line 3", "a kernel outside a fused plan"},
	{"plan nowhere\n", "line 1", "unknown stage"},
	{"plan fuse tokens=0\n", "line 1", "out of range"},
	{"plan fuse tokens=1 seqs=1 rows=1\n" HEAD "kernel 0 mop {\n", "line 4", "unknown kind 'mop'"},
	{"plan fuse tokens=1 seqs=1 rows=1\n" HEAD "kernel 0 row {\n %1 = silu $x anchor\n}\n", "line 6, column 2",
	 "a kernel of kind row, its anchor silu is of kind map"},
	{"plan fuse tokens=1 seqs=1 rows=1\n" HEAD "kernel 0 map {\n %1 = silu $x anchor\n %2 = relu %1 anchor\n", "line 6",
	 "kernel 0 has an anchor already: silu"},
	{"plan fuse tokens=1 seqs=1 rows=1\n" HEAD "kernel 0 map {\n %1 = silu $x anchor\nout y = %1\n", "line 7, column 1", "a kernel without '}'"},
	{"plan fuse tokens=1 seqs=1 rows=1\n" HEAD "kernel 0 map {\n}\nout y = $x\n", "line 5, column 2", "kernel 0 has no anchor"},
	{"plan fuse tokens=1 seqs=1 rows=1\n" HEAD "kernel 0 map {\n %1 = silu $x\n}\nout y = %1\n", "line 6, column 2", "kernel 0 has no anchor"},
	{"$x : f32[0]\n", "line 1, column 11", "out of range"},
	{"$x : f32[2,2000000000]\n", "line 1", "out of range"},
};

static void malformed_text_is_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		wf_arena *arena = wf_arena_new();
		wf_error err = {0};
		wf_graph *g = wf_graph_new(arena, &err, wf_ops);
		wf_plan *plan;
		int result = wf_graph_parse(g, bad[i].text, strlen(bad[i].text), &plan);
		if (!result && plan)
			result = plan_verify(plan);
		if (!result)
			fail_msg("accepted:\n%s", bad[i].text);
		if (!strstr(err.text, bad[i].where) || !strstr(err.text, bad[i].what))
			fail_msg("expected '%s' and '%s', found '%s' for\n%s", bad[i].where, bad[i].what, err.text, bad[i].text);
		wf_arena_free(arena);
	}
}

static void refuse(const char *text, size_t len, const char *what)
{
	wf_arena *arena = wf_arena_new();
	wf_error err = {0};
	wf_graph *g = wf_graph_new(arena, &err, wf_ops);
	wf_plan *plan;

	assert_int_equal(wf_graph_parse(g, text, len, &plan), -1);
	if (!strstr(err.text, what))
		fail_msg("expected '%s', found '%s'", what, err.text);
	wf_arena_free(arena);
}

static void limits_hold(void **state)
{
	char text[4096];
	int n = snprintf(text, sizeof text, HEAD "%%0 = silu ");

	(void)state;
	refuse("$x : f32[2]\0out", 15, "NUL");
	for (int i = 0; i < 200; i++)
		n += snprintf(text + n, sizeof text - n, "(silu ");
	refuse(text, strlen(text), "64 deep");
	n = snprintf(text, sizeof text, "$");
	memset(text + n, 'a', 200);
	strcpy(text + n + 200, " : f32[2]\n");
	refuse(text, strlen(text), "127 characters");
}

/* No prefix and no changed byte of a real plan crashes, and what is accepted prints and parses. */
static void damaged_plans(void **state)
{
	struct made a;

	(void)state;
	make(&a, &(struct shape){.dim = 32, .nlayer = 1, .nhead = 2, .nkv = 1, .hdim = 16, .ffn = 32, .vocab = 32},
		&wf_backend_cpu, NULL, NULL);
	char *text = plan_text(a.plan);
	size_t len = strlen(text);
	for (size_t i = 0; i < len; i++) {
		wf_arena *arena = wf_arena_new();
		wf_error err = {0};
		wf_plan *plan;
		char was = text[i];
		text[i] = " 09%@$}a-"[i % 9];
		wf_graph *g = wf_graph_new(arena, &err, wf_ops);
		if (!wf_graph_parse(g, text, i % 2 ? len : i, &plan)) {
			assert_false(err.set);
			if (plan && !plan_verify(plan))
				free(plan_text(plan));
		} else {
			assert_true(err.set);
		}
		text[i] = was;
		wf_arena_free(arena);
	}
	free(text);
	wf_arena_free(a.arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_stage_is_the_identity),
		cmocka_unit_test(a_bare_graph_is_the_identity),
		cmocka_unit_test(a_dump_goes_on),
		cmocka_unit_test(numbers_survive),
		cmocka_unit_test(a_comma_for_a_point),
		cmocka_unit_test(hand_written),
		cmocka_unit_test(a_kernel_of_ones_own),
		cmocka_unit_test(equal_nodes_are_one),
		cmocka_unit_test(malformed_text_is_refused),
		cmocka_unit_test(limits_hold),
		cmocka_unit_test(damaged_plans),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
