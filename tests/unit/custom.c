/* custom.c - ops and an architecture of one's own: the guide in models/example against the native family,
 * by its own tests, on the CPU, as pages that compile and on a GPU where there is one; and what is refused. */
#include "models/example/my_arch.c"

#include "backends/cuda/cuda.h"
#include "harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <cmocka.h>

static const struct shape small = {.dim = 72, .nlayer = 2, .nhead = 4, .nkv = 2, .hdim = 24, .ffn = 88, .vocab = 160};

static int setup(void **unused)
{
	wf_error err = {0};
	(void)unused;

	for (const wf_op *const *op = wf_arch_my_arch.ops; *op; op++)
		if (wf_op_register(&err, *op))
			print_error("%s\n", err.text);
	return err.set ? -1 : 0;
}

static wf_config config(double slope)
{
	wf_config c = config_of(&small);

	c.own[0] = slope;
	return c;
}

/* ---- the table ---- */

static void ops_are_known_by_name(void **unused)
{
	wf_error err = {0};
	(void)unused;

	assert_ptr_equal(wf_op_find(wf_ops, "swish_gate"), &swish_gate);
	assert_ptr_equal(wf_op_find(wf_ops, "row_norm"), &row_norm);
	assert_ptr_equal(wf_op_find(wf_ops, "rmsnorm"), &wf_op_rmsnorm);
	assert_int_equal(wf_op_register(&err, &row_norm), 0);          /* again: nothing happens */
}

static wf_tensor *evaluate(wf_arena *arena, wf_error *err, const char *expr)
{
	wf_graph *g = wf_graph_new(arena, err, wf_ops);
	wf_tensor *t = text_expr(g, expr);

	wf_output(g, "y", t);
	if (err->set || graph_eval(g, arena, NULL))
		fail_msg("%s: %s", expr, err->text);
	return t;
}

static void their_tests_hold(void **unused)
{
	(void)unused;

	for (const wf_op *const *op = wf_arch_my_arch.ops; *op; op++)
		for (const char *const *t = (*op)->test; t[0]; t += 2) {
			wf_arena *arena = wf_arena_new();
			wf_error err = {0};
			wf_tensor *got = evaluate(arena, &err, t[0]), *want = evaluate(arena, &err, t[1]);
			if (!(nmse(got->data, want->data, wf_nelem(got)) < 1e-14))
				fail_msg("%s", t[0]);
			wf_arena_free(arena);
		}
}

/* The definition made of a span visits every row, operands that repeat among them. */
static void spans_define(void **unused)
{
	static const char *const same[] = {
		"(row_norm [[3 4][0 2][1 1]] [1 2] eps=0.5)", "(rmsnorm [[3 4][0 2][1 1]] [1 2] eps=0.5)",
		"(span_add [[[1 2][3 4]][[5 6][7 8]]] [[10 20][30 40]])", "(add [[[1 2][3 4]][[5 6][7 8]]] [[10 20][30 40]])",
		"(span_add [1 2] [3 4])", "(add [1 2] [3 4])", "(span_add [[1 2][3 4]] [5 6])", "(add [[1 2][3 4]] [5 6])",
	};
	wf_op span_add = wf_op_add;
	const wf_op *ops[] = {&wf_op_add, &wf_op_rmsnorm, &row_norm, &span_add, &wf_op_const, NULL};
	(void)unused;

	span_add.name = "span_add";
	span_add.eval = wf_span_eval;
	for (size_t i = 0; i < sizeof same / sizeof *same; i += 2) {
		wf_arena *arena = wf_arena_new();
		wf_error err = {0};
		wf_graph *g = wf_graph_new(arena, &err, ops);
		wf_tensor *got = text_expr(g, same[i]), *want = text_expr(g, same[i + 1]);
		wf_output(g, "got", got);
		wf_output(g, "want", want);
		if (err.set || graph_eval(g, arena, NULL))
			fail_msg("%s: %s", same[i], err.text);
		assert_true(nmse(got->data, want->data, wf_nelem(want)) < 1e-13);
		wf_arena_free(arena);
	}
}

static void broken_ops_are_refused(void **unused)
{
	static const struct { const char *change, *message; } cases[] = {
		{"name", "op \"\": expected a name"}, {"Name", "op \"Two words\": expected a name"},
		{"taken", "op silu: there is one of that name already: y[i] = x[i] / (1 + exp(-x[i]))"},
		{"kind", "op broken: its kind is neither WF_MAP nor WF_ROW"}, {"nin", "op broken: expected from 1 to WF_MAXIN operands"},
		{"many", "op broken: expected from 1 to WF_MAXIN operands"}, {"nopt", "op broken: expected no optional operands"},
		{"view", "op broken: state, view and source_row are for other kinds"}, {"doc", "op broken: doc is missing"},
		{"eval", "op broken: expected a shape rule, eval, span and cost"}, {"span", "op broken: expected a shape rule"},
		{"attr", "op broken: attr is no list"}, {"attrs", "op broken: attr is no list"},
		{"cuda", "op broken: its CUDA text defines no function of the op's name"},
		{"lift", "op broken: its CUDA text defines no lift() and drop()"},
	};
	(void)unused;

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const char *change = cases[i].change;
		wf_op op = strcmp(change, "lift") ? swish_gate : row_norm;
		wf_error err = {0};
		op.name = "broken";
		op.cuda = "__device__ float broken(float x, float y) { return x; }\n";
		if (!strcmp(change, "name")) op.name = NULL;
		if (!strcmp(change, "Name")) op.name = "Two words";
		if (!strcmp(change, "taken")) op.name = "silu";
		if (!strcmp(change, "taken")) op.cuda = "__device__ float silu(float x, float y) { return x; }\n";
		if (!strcmp(change, "kind")) op.kind = WF_DOT;
		if (!strcmp(change, "nin")) op.nin = 0;
		if (!strcmp(change, "many")) op.nin = WF_MAXIN + 1;
		if (!strcmp(change, "nopt")) op.nopt = 1;
		if (!strcmp(change, "view")) op.view = true;
		if (!strcmp(change, "doc")) op.doc = NULL;
		if (!strcmp(change, "eval")) op.eval = NULL;
		if (!strcmp(change, "span")) op.span = NULL;
		if (!strcmp(change, "attr")) op.attr = "Slope";
		if (!strcmp(change, "attrs")) op.attr = "a b c d e f g h i j k";
		if (!strcmp(change, "cuda")) op.cuda = swish_gate.cuda;
		assert_int_equal(wf_op_register(&err, &op), -1);
		if (!strstr(err.text, cases[i].message))
			fail_msg("%s: %s", change, err.text);
	}
	assert_null(wf_op_find(wf_ops, "broken"));
}

/* ---- the architecture ---- */

static wf_plan *plan_of(struct side *a, const wf_backend *backend, const char *skip)
{
	wf_plan *plan = wf_plan_build(a->g, wf_rules, backend, &(struct wf_plan_opt){.max_tokens = 64, .max_seqs = 2,
		.max_rows = 64, .skip = skip, .verify = true});

	if (!plan)
		fail_msg("%s", a->err.text);
	return plan;
}

/* Kernel by kernel what the native family's plan is. */
static void fuses_like_the_native_family(void **unused)
{
	static const wf_backend *const backends[] = {&wf_backend_cpu, &wf_backend_cuda};
	wf_config c = config(1);
	(void)unused;

	for (int b = 0; b < 2; b++) {
		struct side own, native;
		side_open(&own, &wf_arch_my_arch, &c, WF_F16, WF_F16);
		side_open(&native, &wf_arch_llama, &c, WF_F16, WF_F16);
		own.plan = plan_of(&own, backends[b], NULL);
		native.plan = plan_of(&native, backends[b], NULL);
		assert_int_equal(own.plan->nkernel, native.plan->nkernel);
		for (int k = 0; k < own.plan->nkernel; k++) {
			assert_ptr_equal(own.plan->kernel[k].anchor->op, native.plan->kernel[k].anchor->op);
			assert_int_equal(own.plan->kernel[k].nout, native.plan->kernel[k].nout);
		}
		side_close(&own);
		side_close(&native);
	}
}

/* A prompt of two sequences and one more token of each, beside the definition of `slow`. */
static double worst_step(const wf_backend *backend, const wf_arch *slow_arch, const wf_config *c, const char *skip)
{
	struct side fast, slow;
	struct wf_piece f[2], s[2];
	int32_t token[40];
	double worst = 0;

	side_open(&fast, &wf_arch_my_arch, c, WF_F32, WF_F32);
	side_open(&slow, slow_arch, c, WF_F32, WF_F32);
	fast.plan = plan_of(&fast, backend, skip);
	fast.runner = wf_runner_new(&fast.err, fast.plan, &(struct wf_runner_opt){.ctx = 256, .page_tokens = 16,
		.exec = {.threads = 2, .compute = WF_F32, .cache = "build/kernels"}});
	if (!fast.runner)
		fail_msg("%s", fast.err.text);
	assert_int_equal(define_open(&slow, 16, 16), 0);
	for (int i = 0; i < 40; i++)
		token[i] = (i * 37 + 11) % 160;
	for (int i = 0; i < 2; i++) {
		f[i] = (struct wf_piece){.seq = wf_seq_new(wf_runner_slab(fast.runner)), .token = token + 7 * i, .all_rows = true};
		s[i] = f[i];
		s[i].seq = wf_seq_new(slow.slab);
	}
	for (int step = 0; step < 2; step++) {
		const float *got;
		float *want;
		int64_t count;
		int nrow;
		f[0].n = s[0].n = step ? 1 : 30;
		f[1].n = s[1].n = step ? 1 : 19;
		if (wf_runner_step(fast.runner, f, 2, &got, &nrow))
			fail_msg("%s", fast.err.text);
		assert_int_equal(define_step(&slow, s, 2, &want, &count), 0);
		double error = nmse(got, want, count);
		worst = error > worst ? error : worst;
		free(want);
	}
	for (int i = 0; i < 2; i++) {
		wf_seq_free(wf_runner_slab(fast.runner), f[i].seq);
		wf_seq_free(slow.slab, s[i].seq);
	}
	side_close(&fast);
	side_close(&slow);
	return worst;
}

static void equals_the_native_family(const wf_backend *backend)
{
	wf_config c = config(1), steep = config(1.7);

	assert_true(worst_step(backend, &wf_arch_llama, &c, NULL) < 1e-10);
	assert_true(worst_step(backend, &wf_arch_llama, &c, "fuse") < 1e-10);
	assert_true(worst_step(backend, &wf_arch_my_arch, &steep, NULL) < 1e-10);
	assert_true(worst_step(backend, &wf_arch_llama, &steep, NULL) > 1e-6);         /* the attribute counts */
}

static void runs_on_the_cpu(void **unused)
{
	(void)unused;

	equals_the_native_family(&wf_backend_cpu);
}

static void runs_on_a_gpu(void **unused)
{
	struct cuda_report report;
	(void)unused;

	cuda_devices(&report);
	if (!report.ngpu || !strcmp(report.gpu[0].name, "Fake GPU")) {
		print_message("skipped: no GPU (%s)\n", report.problem);
		skip();
	}
	mkdir("build", 0777);
	equals_the_native_family(&wf_backend_cuda);
}

/* ---- CUDA without a GPU ---- */

static int pages_of(struct side *a, wf_arena *arena, const char *skip, struct pages *pages)
{
	struct emit_opt opt = {.gpu = emit_known_gpu("sm_90a"), .page_tokens = 64};

	a->plan = plan_of(a, &wf_backend_cuda, skip);
	return pages_make(&a->err, arena, &opt, a->plan, pages);
}

static void pages_hold_the_text_and_compile(void **unused)
{
	wf_config c = config(1.7);
	struct cuda_key key;
	wf_error err = {0};
	bool compiles = !nvrtc_key(&err, &(struct cuda_build_opt){.arch = "sm_90a"}, "", &key);
	(void)unused;

	mkdir("build", 0777);
	struct cuda_build_opt opt = {.arch = "sm_90a", .cache = cache_open(&err, "build/kernels")};

	for (int fused = 0; fused < 2; fused++) {
		wf_arena *arena = wf_arena_new();
		struct side a;
		struct pages pages = {0};
		int gates = 0, norms = 0;
		side_open_as(&a, &wf_arch_my_arch, &c, WF_F16, WF_F16, WF_F16, NULL);
		if (pages_of(&a, arena, fused ? NULL : "fuse", &pages))
			fail_msg("%s", a.err.text);
		for (int i = 0; i < pages.nprogram; i++) {
			gates += strstr(pages.program[i].source, "float swish_gate(float x, float y)") != NULL;
			norms += strstr(pages.program[i].source, "rsqrtf(") != NULL;
		}
		assert_true(gates > 0 && norms > 0);
		if (compiles && fused && nvrtc_build(&a.err, &opt, pages.program, pages.nprogram, NULL))
			fail_msg("%s", a.err.text);
		nvrtc_free(pages.program, pages.nprogram);
		side_close(&a);
		wf_arena_free(arena);
	}
	if (!compiles)
		print_message("not compiled: %s\n", err.text);
	cache_close(opt.cache);
}

static void without_text_a_gpu_refuses(void **unused)
{
	static wf_op cpu_only;
	wf_error err = {0};
	wf_arena *arena = wf_arena_new();
	(void)unused;

	cpu_only = swish_gate;
	cpu_only.name = "cpu_only";
	cpu_only.cuda = NULL;
	assert_int_equal(wf_op_register(&err, &cpu_only), 0);
	wf_graph *g = wf_graph_new(arena, &err, wf_ops);
	wf_tensor *x = wf_take(g, wf_weight(g, WF_SHAPE(64, 32), "token_embd.weight"), wf_input(g, "tokens", WF_I32, WF_SHAPE(WF_T)));
	wf_output(g, "y", wf_node(g, &cpu_only, (wf_tensor *[]){x, x}, 2, (double[WF_MAXATTR]){1}));
	wf_plan *plan = wf_plan_build(g, wf_rules, &wf_backend_cuda, &(struct wf_plan_opt){.max_tokens = 4, .max_seqs = 1, .max_rows = 1});
	assert_null(plan);
	if (!strstr(err.text, "op cpu_only has no CUDA text"))
		fail_msg("%s", err.text);
	wf_arena_free(arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ops_are_known_by_name),
		cmocka_unit_test(their_tests_hold),
		cmocka_unit_test(spans_define),
		cmocka_unit_test(broken_ops_are_refused),
		cmocka_unit_test(fuses_like_the_native_family),
		cmocka_unit_test(runs_on_the_cpu),
		cmocka_unit_test(runs_on_a_gpu),
		cmocka_unit_test(pages_hold_the_text_and_compile),
		cmocka_unit_test(without_text_a_gpu_refuses),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
