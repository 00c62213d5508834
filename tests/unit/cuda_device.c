/* cuda_device.c - whole plans on a GPU against the definition: shapes, types, mixed batches, chunks.
 * Needs a GPU; skipped without one. */
#include "backends/cuda/cuda.h"
#include "harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "gpu.h"
#include "quants.h"

enum { SEQS = 5, STEPS = 5, TOKENS = 40 };

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
	static const int dims[] = {32, 48, 64, 72, 100, 160, 520}, heads[] = {8, 16, 24, 32, 64, 80, 128, 256};
	int nkv = 1 + below(3);

	return (struct shape){.dim = dims[below(7)], .nlayer = 1 + below(2), .nkv = nkv, .nhead = nkv * (1 + below(4)),
		.hdim = heads[below(8)], .ffn = 16 + 8 * below(40), .vocab = 100 + below(200)};
}

/* ---- one case ---- */

struct options { wf_dtype weights, kv, act; const char *skip; bool no_graph, loud; const wf_weights *from; };

/* Feed-forward layers whose results leave f16, though weights and what they multiply do not. */
static void make_loud(const wf_graph *g)
{
	static const struct { const char *part; int exponent; } some[] = {{"ffn_gate", 5}, {"ffn_up", 5}, {"ffn_down", 19}};

	for (int i = 0; i < g->nnode; i++)
		for (int k = 0; k < 3; k++) {
			struct wf_blob blob;
			if (g->node[i]->op != &wf_op_weight || !strstr(g->node[i]->name, some[k].part))
				continue;
			assert_false(g->weights->find(g->weights, g->node[i]->name, &blob));
			assert_int_equal(blob.dtype, WF_BF16);
			uint16_t *w = (uint16_t *)blob.data;      /* made for this graph alone */
			for (int64_t n = 0; n < wf_nelem(g->node[i]); n++)
				w[n] = wf_f32_to_bf16(ldexpf(wf_bf16_to_f32(w[n]), some[k].exponent));
		}
}

static void open_sides(struct side *fast, struct side *slow, const struct shape *shape, const struct options *o)
{
	wf_config c = config_of(shape);

	side_open_as(fast, &wf_arch_llama, &c, o->weights, o->kv, o->act, o->from);
	side_open_as(slow, &wf_arch_llama, &c, o->weights, o->kv, WF_F32, o->from);
	if (o->loud) {
		make_loud(fast->g);
		make_loud(slow->g);
	}
	fast->plan = wf_plan_build(fast->g, wf_rules, &wf_backend_cuda, &(struct wf_plan_opt){.max_tokens = SEQS * TOKENS,
		.max_seqs = SEQS, .max_rows = SEQS * TOKENS, .skip = o->skip, .verify = true});
	if (!fast->plan)
		fail_msg("plan: %s", fast->err.text);
	fast->runner = wf_runner_new(&fast->err, fast->plan, &(struct wf_runner_opt){.ctx = 2048, .page_tokens = 16,
		.exec = {.cache = cache_dir(), .no_graph = o->no_graph}});
	if (!fast->runner)
		fail_msg("open: %s", fast->err.text);
	assert_int_equal(define_open(slow, 16, 128), 0);
}

/* Prompts, chunks and single tokens of 1 to SEQS sequences, mixed; the worst step's error. */
static double run_case(const struct shape *shape, const struct options *o)
{
	struct side fast, slow;
	struct wf_piece f[SEQS], s[SEQS];
	int32_t token[SEQS][TOKENS];
	double worst = 0;

	open_sides(&fast, &slow, shape, o);
	for (int i = 0; i < SEQS; i++) {
		f[i] = (struct wf_piece){.seq = wf_seq_new(wf_runner_slab(fast.runner)), .token = token[i]};
		s[i] = (struct wf_piece){.seq = wf_seq_new(slow.slab), .token = token[i]};
	}
	for (int step = 0; step < STEPS; step++) {
		const float *got;
		float *want;
		int64_t count;
		int nrow, n = 1 + below(SEQS);
		bool single = step % 2;
		for (int i = 0; i < SEQS; i++) {
			f[i].n = s[i].n = single ? 1 : 1 + below(TOKENS);
			f[i].all_rows = s[i].all_rows = !single && below(2);
			for (int k = 0; k < f[i].n; k++)
				token[i][k] = below((int)shape->vocab);
		}
		if (wf_runner_step(fast.runner, f, n, &got, &nrow))
			fail_msg("step: %s", fast.err.text);
		assert_int_equal(define_step(&slow, s, n, &want, &count), 0);
		worst = fmax(worst, nmse(got, want, count));
		free(want);
	}
	for (int i = 0; i < SEQS; i++) {
		wf_seq_free(wf_runner_slab(fast.runner), f[i].seq);
		wf_seq_free(slow.slab, s[i].seq);
	}
	side_close(&fast);
	side_close(&slow);
	return worst;
}

static void expect(const char *what, const struct shape *shape, const struct options *o, double most)
{
	double e = run_case(shape, o);

	print_message("%-10s %s weights %s kv %s dim %d heads %d/%d of %d ffn %d vocab %d skip %s: NMSE %.2g\n", what,
		wf_dtypes[o->act].name, wf_dtypes[o->weights].name, wf_dtypes[o->kv].name, (int)shape->dim, (int)shape->nhead,
		(int)shape->nkv, (int)shape->hdim, (int)shape->ffn, (int)shape->vocab, o->skip ? o->skip : "-", e);
	if (!(e <= most))
		fail_msg("NMSE %g, expected at most %g", e, most);
}

static void exact_plans_match(void **unused)
{
	static const char *const skips[] = {NULL, NULL, "fuse", "fold,fuse"};
	static const wf_dtype types[] = {WF_F32, WF_F16, WF_BF16};

	(void)unused;
	if (!has_gpu())
		skip();
	for (int i = 0; i < 10; i++) {
		struct shape shape = random_shape();
		if (!is_tried(i))
			continue;
		wf_dtype kv = types[i / 2 % 3];
		expect("exact", &shape, &(struct options){.weights = types[i % 3], .kv = kv, .act = WF_F32, .skip = skips[i % 4],
			.no_graph = i % 5 == 4}, kv == WF_F32 ? 1e-10 : 1e-6);
	}
}

static void half_plans_are_close(void **unused)
{
	static const wf_dtype types[] = {WF_F16, WF_BF16};

	(void)unused;
	if (!has_gpu())
		skip();
	for (int i = 0; i < 10; i++) {
		struct shape shape = random_shape();
		if (!is_tried(i))
			continue;
		wf_dtype act = types[i % 2];
		expect("half", &shape, &(struct options){.weights = types[i / 2 % 2], .kv = act, .act = act,
			.skip = i == 7 ? "fuse" : NULL}, act == WF_F16 && i / 2 % 2 == 0 ? 5e-5 : 2e-3);
	}
}

/* A residual of millions, as some trained models have one past 65504, with all else in f16. */
static void the_residual_may_leave_f16(void **unused)
{
	(void)unused;
	if (!has_gpu())
		skip();
	for (int i = 0; i < 10; i++) {
		struct shape shape = random_shape();
		shape.nlayer = 2;
		if (is_tried(i))
			expect("loud", &shape, &(struct options){.weights = WF_BF16, .kv = WF_F16, .act = WF_F16, .loud = true,
				.skip = i % 4 == 3 ? "fuse" : NULL}, 5e-5);
	}
}

/* ---- quantised weights: rows of real blocks ---- */

static bool is_matrix(const wf_tensor *t)
{
	return t->ndim > 1;
}

static void quantised_plans_match(void **unused)
{
	static const struct shape shape = {.dim = 256, .nlayer = 1, .nhead = 4, .nkv = 2, .hdim = 64, .ffn = 512, .vocab = 96};
	wf_config c = config_of(&shape);

	(void)unused;
	if (!has_gpu())
		skip();
	for (int type = WF_Q4_0; type < WF_NDTYPE; type++) {
		if (!is_tried(type - WF_Q4_0))
			continue;
		uint8_t *blocks = quant_read((wf_dtype)type);
		static struct quant q;
		struct side like;
		if (!blocks)
			continue;
		side_open(&like, &wf_arch_llama, &c, WF_F32, WF_F32);
		quant_make(&q, &like, (wf_dtype)type, blocks, is_matrix);
		/* the blocks hold values too large for f16, and for much precision: with scores in the thousands a tie between
		 * two keys can cost f32 5e-8 (bounds that know how exact a product can be: cuda_ops) */
		expect(wf_dtypes[type].name, &shape, &(struct options){.weights = (wf_dtype)type, .kv = WF_F32, .act = WF_F32,
			.from = &q.weights}, 1e-6);
		if (type % 3 == 0)
			expect(wf_dtypes[type].name, &shape, &(struct options){.weights = (wf_dtype)type, .kv = WF_BF16, .act = WF_BF16,
				.from = &q.weights}, 5e-2);
		side_close(&like);
		free(blocks);
	}
}

/* ---- choices ---- */

/* Greedy tokens chosen on the device, a step ahead, equal those from logits read back. */
static void choices_agree(void **unused)
{
	static const struct shape shape = {.dim = 128, .nlayer = 2, .nhead = 4, .nkv = 4, .hdim = 32, .ffn = 256, .vocab = 1000};
	const struct wf_sampling sets[] = {{.temp = 0, .repeat_penalty = 1}, {.temp = 0.8, .top_k = 40, .top_p = 0.95,
		.min_p = 0.05, .repeat_penalty = 1, .seed = 7}, {.temp = 1.2, .top_p = 0.9, .repeat_penalty = 1, .seed = 9},
		{.temp = 0.7, .top_k = 5, .top_p = 1, .repeat_penalty = 1, .seed = 11}};
	wf_config c = config_of(&shape);

	(void)unused;
	if (!has_gpu())
		skip();
	for (size_t k = 0; k < sizeof sets / sizeof *sets; k++) {
		int32_t host[24], device[24], start = 5;
		for (int side = 0; side < 2; side++) {
			struct side a;
			side_open_as(&a, &wf_arch_llama, &c, WF_F32, WF_F32, WF_F32, NULL);
			a.plan = wf_plan_build(a.g, wf_rules, &wf_backend_cuda, &(struct wf_plan_opt){.max_tokens = 4, .max_seqs = 1,
				.max_rows = 1});
			a.runner = a.plan ? wf_runner_new(&a.err, a.plan, &(struct wf_runner_opt){.ctx = 256, .exec = {.cache = cache_dir()}}) : NULL;
			if (!a.runner)
				fail_msg("%s", a.err.text);
			wf_sampler *sampler = wf_sampler_new(&a.err, &sets[k], shape.vocab);
			struct wf_piece piece = {.seq = wf_seq_new(wf_runner_slab(a.runner)), .token = &start, .n = 1};
			int32_t next = ~0;
			struct wf_pick pick;
			const float *logits;
			int nrow;
			for (int i = 0; i <= 24; i++) {
				if (side && i < 24) {
					assert_true(wf_sampler_describe(sampler, &pick));
					piece.pick = &pick;
				}
				if (i < 24 && wf_runner_step(a.runner, &piece, 1, &logits, &nrow))
					fail_msg("%s", a.err.text);
				piece.token = &next;
				if (!side && i < 24)
					next = host[i] = wf_sampler_pick(sampler, logits);
				if (side && i)
					device[i - 1] = *wf_runner_picked(a.runner);
			}
			wf_seq_free(wf_runner_slab(a.runner), piece.seq);
			wf_sampler_free(sampler);
			side_close(&a);
		}
		for (int i = 0; i < 24; i++)
			if (host[i] != device[i])
				fail_msg("setting %zu, token %d: host %d, device %d", k, i, host[i], device[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(choices_agree),
		cmocka_unit_test(exact_plans_match),
		cmocka_unit_test(half_plans_are_close),
		cmocka_unit_test(the_residual_may_leave_f16),
		cmocka_unit_test(quantised_plans_match),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
