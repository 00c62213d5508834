/* exec.c - whole plans on the CPU against the definition: random shapes, mixed batches, chunks. */
#include "harness.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static uint64_t state = 88172645463325252ull;

static int below(int n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (int)(state % (uint64_t)n);
}

static struct shape random_shape(void)
{
	static const int dims[] = {32, 48, 64, 72, 100, 160}, heads[] = {8, 16, 24, 32, 64};
	int nkv = 1 + below(3);

	return (struct shape){.dim = dims[below(6)], .nlayer = 1 + below(2), .nkv = nkv, .nhead = nkv * (1 + below(3)),
		.hdim = heads[below(5)], .ffn = 16 + 8 * below(40), .vocab = 100 + below(200)};
}

static wf_plan *plan_of(struct side *a, const char *skip, int tokens, int seqs)
{
	return wf_plan_build(a->g, wf_rules, &wf_backend_cpu, &(struct wf_plan_opt){
		.max_tokens = tokens, .max_seqs = seqs, .max_rows = tokens, .skip = skip, .verify = true});
}

/* Feed the same pieces to both sides and compare. */
static double compare(struct side *fast, struct side *slow, struct wf_piece *f, struct wf_piece *s, int n)
{
	const float *got;
	float *want;
	int64_t count;
	int nrow;

	int result = wf_runner_step(fast->runner, f, n, &got, &nrow);
	if (result)
		fail_msg("step: %d %s", result, fast->err.text);
	assert_int_equal(define_step(slow, s, n, &want, &count), 0);
	double e = nmse(got, want, count);
	free(want);
	return e;
}

static double run_case(const struct shape *shape, wf_dtype weights, wf_dtype kv, const char *skip, int threads, wf_dtype compute)
{
	enum { SEQS = 3, STEPS = 4, TOKENS = 40 };
	wf_config c = config_of(shape);
	struct side fast, slow;
	struct wf_piece f[SEQS], s[SEQS];
	int32_t token[SEQS][TOKENS];
	double worst = 0;

	side_open(&fast, &wf_arch_llama, &c, weights, kv);
	side_open(&slow, &wf_arch_llama, &c, weights, kv);
	fast.plan = plan_of(&fast, skip, SEQS * TOKENS, SEQS);
	if (!fast.plan)
		fail_msg("plan: %s", fast.err.text);
	fast.runner = wf_runner_new(&fast.err, fast.plan, &(struct wf_runner_opt){.ctx = 1024, .page_tokens = 16,
		.exec = {.threads = threads, .compute = compute}});
	if (!fast.runner)
		fail_msg("open: %s", fast.err.text);
	assert_int_equal(define_open(&slow, 16, 64), 0);
	for (int i = 0; i < SEQS; i++) {
		f[i] = (struct wf_piece){.seq = wf_seq_new(wf_runner_slab(fast.runner)), .token = token[i]};
		s[i] = (struct wf_piece){.seq = wf_seq_new(slow.slab), .token = token[i]};
	}
	for (int step = 0; step < STEPS; step++) {
		for (int i = 0; i < SEQS; i++) {
			f[i].n = s[i].n = below(2) ? 1 : 1 + below(TOKENS);
			f[i].all_rows = s[i].all_rows = below(2);
			f[i].no_rows = s[i].no_rows = i && !f[i].all_rows && below(2);
			for (int k = 0; k < f[i].n; k++)
				token[i][k] = below((int)shape->vocab);
		}
		worst = fmax(worst, compare(&fast, &slow, f, s, 1 + below(SEQS)));
	}
	for (int i = 0; i < SEQS; i++) {
		wf_seq_free(wf_runner_slab(fast.runner), f[i].seq);
		wf_seq_free(slow.slab, s[i].seq);
	}
	side_close(&fast);
	side_close(&slow);
	return worst;
}

static void exact_plans_match(void **unused)
{
	static const char *const skips[] = {NULL, "fuse", "fold", "rewrite,fold,fuse"};
	static const wf_dtype types[] = {WF_F32, WF_F16, WF_BF16};
	(void)unused;

	for (int i = 0; i < 24; i++) {
		struct shape shape = random_shape();
		double e = run_case(&shape, types[i % 3], types[i / 3 % 3], skips[i % 4], 1 + i % 2, WF_F32);
		/* a rounded key on the other side of a tie is a step of the cache's type */
		if (!(e <= (types[i / 3 % 3] == WF_F32 ? 1e-11 : 1e-7)))
			fail_msg("case %d: NMSE %g (dim %d heads %d/%d of %d ffn %d skip %s)", i, e, (int)shape.dim,
				(int)shape.nhead, (int)shape.nkv, (int)shape.hdim, (int)shape.ffn, skips[i % 4] ? skips[i % 4] : "-");
	}
}

static void fast_plans_are_close(void **unused)
{
	static const wf_dtype types[] = {WF_F32, WF_F16, WF_BF16};
	(void)unused;

	for (int i = 0; i < 9; i++) {
		struct shape shape = random_shape();
		double e = run_case(&shape, types[i % 3], WF_F16, NULL, 2, WF_NDTYPE);
		if (!(e <= 5e-4))
			fail_msg("case %d: NMSE %g", i, e);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exact_plans_match),
		cmocka_unit_test(fast_plans_are_close),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
