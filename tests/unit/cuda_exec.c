/* cuda_exec.c - the host side of a CUDA run on a stand-in driver: allocations, tables, graphs, failures. */
#ifdef WF_CUDA
#include "backends/cuda/cuda.h"
#endif
#include "fakecuda.h"
#include "harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#ifdef WF_CUDA

static const struct shape small = {.dim = 64, .nlayer = 2, .nhead = 4, .nkv = 2, .hdim = 16, .ffn = 96, .vocab = 128};
static struct fake *fake;

static bool can_run(void)
{
	return fake != NULL;
}

static int open_window(struct side *a, int seqs, int window, struct wf_exec_opt exec)
{
	wf_config c = config_of(&small);

	c.window = window;
	side_open_as(a, &wf_arch_llama, &c, WF_F16, WF_F16, WF_F16, NULL);
	a->plan = wf_plan_build(a->g, wf_rules, &wf_backend_cuda, &(struct wf_plan_opt){.max_tokens = 4 * seqs, .max_seqs = seqs,
		.max_rows = seqs, .verify = true});
	if (!a->plan)
		return -1;
	a->runner = wf_runner_new(&a->err, a->plan, &(struct wf_runner_opt){.ctx = 1024, .exec = exec});
	return a->runner ? 0 : -1;
}

static int open_side(struct side *a, int seqs, struct wf_exec_opt exec)
{
	return open_window(a, seqs, 0, exec);
}

static int step(struct side *a, wf_seq **seq, int n, int tokens)
{
	static const int32_t token[8] = {1, 2, 3, 4, 5, 6, 7, 8};
	struct wf_piece piece[8];
	const float *logits;
	int nrow;

	for (int i = 0; i < n; i++)
		piece[i] = (struct wf_piece){.seq = seq[i], .token = token, .n = tokens};
	return wf_runner_step(a->runner, piece, n, &logits, &nrow);
}

static void make_seqs(struct side *a, wf_seq **seq, int n)
{
	for (int i = 0; i < n; i++)
		seq[i] = wf_seq_new(wf_runner_slab(a->runner));
}

static void step_allocates_nothing(void **state)
{
	struct side a;
	wf_seq *seq[4];

	(void)state;
	if (!can_run())
		skip();
	fake->captures = 0;
	if (open_side(&a, 4, (struct wf_exec_opt){.threads = 2}))
		fail_msg("%s", a.err.text);
	make_seqs(&a, seq, 4);
	/* the first prompt of a size makes the library think */
	assert_int_equal(step(&a, seq, 4, 3), 0);
	fake->replays = 0;
	long allocations = fake->allocations, modules = fake->modules, captures = fake->captures, live = fake->live;
	assert_int_equal(captures, 3);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(step(&a, seq, 4, i == 2 ? 3 : 1), 0);
		assert_int_equal(step(&a, seq, 1, 1), 0);
	}
	assert_int_equal(fake->allocations, allocations);
	assert_int_equal(fake->modules, modules);
	assert_int_equal(fake->captures, captures);
	assert_int_equal(fake->live, live);
	assert_int_equal(fake->replays, 9);
	side_close(&a);
	assert_int_equal(fake->live, 0);
}

static void three_device_allocations(void **state)
{
	struct side a;

	(void)state;
	if (!can_run())
		skip();
	fake->allocations = 0;
	if (open_side(&a, 1, (struct wf_exec_opt){.threads = 2}))
		fail_msg("%s", a.err.text);
	/* weights, work, KV; pinned: two tables, an output, chosen tokens, a ring while loading */
	assert_int_equal(fake->allocations, 3 + 5);
	side_close(&a);
	assert_int_equal(fake->live, 0);
}

/* The table the kernels would read, in the stand-in's device memory. */
static void table_says_the_batch(void **state)
{
	struct side a;
	wf_seq *seq[2];

	(void)state;
	if (!can_run())
		skip();
	if (open_side(&a, 2, (struct wf_exec_opt){.threads = 2}))
		fail_msg("%s", a.err.text);
	make_seqs(&a, seq, 2);
	assert_int_equal(step(&a, seq, 2, 3), 0);
	assert_int_equal(step(&a, seq, 2, 2), 0);
	const struct cuda_exec *e = (const struct cuda_exec *)wf_runner_exec(a.runner);
	const struct table *t = (const struct table *)(uintptr_t)e->memory.table;
	const int seqs[] = {0, 0, 1, 1}, pos[] = {3, 4, 3, 4}, token[] = {1, 2, 1, 2}, start[] = {0, 2, 4}, row[] = {1, 3};
	assert_int_equal(t->ntoken, 4);
	assert_int_equal(t->nseq, 2);
	assert_int_equal(t->nrow, 2);
	assert_memory_equal(t->seq, seqs, sizeof seqs);
	assert_memory_equal(t->pos, pos, sizeof pos);
	assert_memory_equal(t->token, token, sizeof token);
	assert_memory_equal(t->seq_start, start, sizeof start);
	assert_memory_equal(t->row, row, sizeof row);
	assert_int_equal(t->seq_len[1], 5);
	assert_int_equal(t->kv[0].stride, 1);
	assert_int_not_equal(t->kv[0].page[0], t->kv[0].page[1]);
	assert_ptr_equal(t->kv[0].base, (void *)(uintptr_t)e->memory.kv_base[0]);
	side_close(&a);
}

/* Where every layer has a window, sequences have more blocks than there are pages, and in the end more tokens than the
 * context: the table has the pages of what is seen, each where kernels look for it. */
static void windows_outgrow_the_pages(void **state)
{
	struct side a;
	wf_seq *seq[2];
	int n;

	(void)state;
	if (!can_run())
		skip();
	if (open_window(&a, 2, 100, (struct wf_exec_opt){.threads = 2}))
		fail_msg("%s", a.err.text);
	make_seqs(&a, seq, 2);
	const struct cuda_exec *e = (const struct cuda_exec *)wf_runner_exec(a.runner);
	const struct table *t = (const struct table *)(uintptr_t)e->memory.table;
	wf_slab *slab = wf_runner_slab(a.runner);
	for (int len = 8; len <= 960; len += 8)
		assert_int_equal(step(&a, seq, 1, 8), 0);
	assert_true(wf_slab_npage(slab, 0) < 960 / wf_slab_page_tokens(slab));
	for (int k = 0; k < 150; k++) {
		int both = k % 2 && wf_seq_len(seq[0]) <= 1016 ? 2 : 1;
		assert_int_equal(step(&a, seq, both, 4), 0);
		for (int s = 0; s < both; s++) {
			const int32_t *page = wf_seq_pages(seq[s], 0, &n);
			for (int i = seq_first(slab, 0, wf_seq_len(seq[s]) - 4); i < n; i++)
				assert_int_equal(t->kv[0].page[s * t->kv[0].stride + i], page[i]);
		}
	}
	assert_true(wf_seq_len(seq[0]) > 1500);
	side_close(&a);
	assert_int_equal(fake->live, 0);
}

/* Every kernel of a decode step, in the plan's order, each allowed to start early. */
static void graph_holds_the_plan(void **state)
{
	struct side a;
	wf_seq *seq[1];

	(void)state;
	if (!can_run())
		skip();
	if (open_side(&a, 1, (struct wf_exec_opt){.threads = 2}))
		fail_msg("%s", a.err.text);
	make_seqs(&a, seq, 1);
	fake->nlaunch = 0;
	assert_int_equal(step(&a, seq, 1, 1), 0);
	assert_int_equal(fake->nlaunch, a.plan->nkernel + 1);
	assert_string_equal(fake->launch[a.plan->nkernel].name, "pick");
	assert_int_equal(a.plan->nkernel, 1 + 5 * 2 + 1);
	assert_string_equal(fake->launch[0].name, "rows");
	assert_string_equal(fake->launch[1].name, "gemv");
	assert_string_equal(fake->launch[2].name, "attend_decode");
	for (int i = 0; i < fake->nlaunch; i++)
		assert_true(fake->launch[i].dependent);
	side_close(&a);
}

static int count_launches(const char *name)
{
	int n = 0;

	for (int i = 0; i < fake->nlaunch; i++)
		n += !strcmp(fake->launch[i].name, name);
	return n;
}

/* Sequences of many new tokens go through one attention kernel, those of one through the other. */
static void attention_by_new_tokens(void **state)
{
	static const struct { int tokens[3], prefill, decode; } cases[] = {
		{{3, 2, 0}, 2, 0}, {{3, 1, 2}, 2, 2}, {{1, 1, 1}, 0, 2}, {{4, 0, 0}, 2, 0}
	};
	static const int32_t token[] = {1, 2, 3, 4};
	struct side a;
	wf_seq *seq[3];
	const float *logits;
	int nrow;

	(void)state;
	if (!can_run())
		skip();
	if (open_side(&a, 3, (struct wf_exec_opt){.threads = 2, .no_graph = true}))
		fail_msg("%s", a.err.text);
	make_seqs(&a, seq, 3);
	for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
		struct wf_piece piece[3];
		int n = 0;
		for (; n < 3 && cases[c].tokens[n]; n++)
			piece[n] = (struct wf_piece){.seq = seq[n], .token = token, .n = cases[c].tokens[n]};
		fake->nlaunch = 0;
		assert_int_equal(wf_runner_step(a.runner, piece, n, &logits, &nrow), 0);
		assert_int_equal(count_launches("attend_prefill") + count_launches("attend_wgmma"), cases[c].prefill);
		assert_int_equal(count_launches("attend_decode"), cases[c].decode);
	}
	side_close(&a);
}

/* Two steps are queued before the first one's choice is read; the second refers to it. */
static void host_runs_ahead(void **state)
{
	static const int32_t token[] = {5}, chosen[] = {~0};
	const struct wf_pick greedy = {.temp = 0};
	struct side a;
	wf_seq *seq[1];
	const float *logits;
	int nrow;

	(void)state;
	if (!can_run())
		skip();
	if (open_side(&a, 1, (struct wf_exec_opt){.threads = 2}))
		fail_msg("%s", a.err.text);
	make_seqs(&a, seq, 1);
	struct wf_piece piece = {.seq = seq[0], .token = token, .n = 1, .pick = &greedy};
	assert_int_equal(wf_runner_step(a.runner, &piece, 1, &logits, &nrow), 0);
	assert_null(logits);
	piece.token = chosen;
	assert_int_equal(wf_runner_step(a.runner, &piece, 1, &logits, &nrow), 0);
	const struct cuda_exec *e = (const struct cuda_exec *)wf_runner_exec(a.runner);
	const struct table *t = (const struct table *)(uintptr_t)e->memory.table;
	assert_int_equal(t->token[0], ~0);
	assert_non_null(t->pick);
	assert_true(t->pick[0].temp == 0);
	assert_ptr_equal(t->ring, e->ring.token + 1);
	e->ring.token[0] = 17;
	e->ring.token[1] = 18;
	assert_int_equal(*wf_runner_picked(a.runner), 17);
	assert_int_equal(*wf_runner_picked(a.runner), 18);
	piece.token = (const int32_t[]){~1};
	assert_int_equal(wf_runner_step(a.runner, &piece, 1, &logits, &nrow), -1);
	side_close(&a);
	assert_int_equal(fake->live, 0);
}

static void too_little_memory_is_told(void **state)
{
	size_t memory;
	struct side a;

	(void)state;
	if (!can_run())
		skip();
	memory = fake->memory;
	fake->memory = 1 << 18;
	assert_int_equal(open_side(&a, 1, (struct wf_exec_opt){.threads = 2}), -1);
	fake->memory = memory;
	assert_non_null(strstr(a.err.text, "needs"));
	assert_non_null(strstr(a.err.text, "GiB free"));
	side_close(&a);
	assert_int_equal(fake->live, 0);
}

static void fault_names_its_kernel(void **state)
{
	struct side a;
	wf_seq *seq[1];

	(void)state;
	if (!can_run())
		skip();
	if (open_side(&a, 1, (struct wf_exec_opt){.threads = 2, .sync = true}))
		fail_msg("%s", a.err.text);
	make_seqs(&a, seq, 1);
	fake->calls = 0;
	fake->fail_at = 6;                    /* context, buffer free, table, its event, a launch, its wait */
	fake->fail_code = CUDA_ERROR_ILLEGAL_ADDRESS;
	assert_int_equal(step(&a, seq, 1, 1), -1);
	fake->fail_at = fake->fail_code = 0;
	assert_non_null(strstr(a.err.text, "kernel "));
	assert_non_null(strstr(a.err.text, "source "));
	side_close(&a);
	assert_int_equal(fake->live, 0);
}

static void every_call_can_fail(void **state)
{
	(void)state;
	if (!can_run())
		skip();
	for (int n = 1;; n++) {
		struct side a;
		wf_seq *seq[1];
		fake->calls = 0;
		fake->fail_at = n;
		int failed = open_side(&a, 1, (struct wf_exec_opt){.threads = 1});
		if (!failed) {
			make_seqs(&a, seq, 1);
			failed = step(&a, seq, 1, 1);
		}
		long calls = fake->calls;
		fake->fail_at = 0;
		if (failed)
			assert_true(a.err.set);
		else
			assert_true(calls < n || strstr(fake->failed, "Destroy") || strstr(fake->failed, "MemGetInfo"));
		side_close(&a);
		assert_int_equal(fake->live, 0);
		if (calls < n)
			break;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(graph_holds_the_plan),
		cmocka_unit_test(step_allocates_nothing),
		cmocka_unit_test(three_device_allocations),
		cmocka_unit_test(table_says_the_batch),
		cmocka_unit_test(windows_outgrow_the_pages),
		cmocka_unit_test(attention_by_new_tokens),
		cmocka_unit_test(host_runs_ahead),
		cmocka_unit_test(too_little_memory_is_told),
		cmocka_unit_test(fault_names_its_kernel),
		cmocka_unit_test(every_call_can_fail),
	};

	fake = fake_load();
	if (fake && !fake_nvrtc())
		fake = NULL;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
	puts("built without the CUDA toolkit\n0 passed, 0 failed");
	return 0;
}

#endif
