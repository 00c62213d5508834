/* cuda_experts.c - blocks of experts on a GPU against the definition: choices with and without groups, ties,
 * odd sizes, one token to hundreds, every type of weight.  Needs a GPU; skipped without one. */
#include "harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include "gpu.h"
#include "quants.h"

enum { VOCAB = 331, SEQS = 4, MOST = 600 };

enum style { GATED, CLAMPED, SINGLE, NSTYLE };        /* gate and value; with biases and limits; one product */

struct block {
	int64_t dim, ffn, n;
	int k, groups, group_k, group_best;
	bool sigmoid, bias, tall;                     /* tall: weights [experts, rows, cols] */
	enum style style;
};

static struct block now;
static uint64_t state = 88172645463325252ull;

static int below(int n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (int)(state % (uint64_t)n);
}

/* ---- the model: rows of a table through one block ---- */

static wf_tensor *weight(wf_graph *g, int64_t rows, int64_t cols, const char *name)
{
	return now.tall ? wf_weight(g, WF_SHAPE(now.n, rows, cols), "%s.weight", name) :
		wf_weight(g, WF_SHAPE(now.n * rows, cols), "%s.weight", name);
}

static wf_tensor *product(wf_graph *g, wf_tensor *x, wf_tensor *ids, int64_t rows, const char *name)
{
	wf_tensor *y = wf_experts(g, weight(g, rows, wf_last(x), name), x, ids, now.n);

	return now.style != CLAMPED ? y : wf_add(g, y, wf_take(g, wf_weight(g, WF_SHAPE(now.n, rows), "%s.bias", name), ids));
}

static wf_tensor *inner(wf_graph *g, wf_tensor *x, wf_tensor *ids)
{
	wf_tensor *gate = product(g, x, ids, now.ffn, "gate");

	if (now.style == SINGLE)
		return wf_gelu(g, gate);
	wf_tensor *up = product(g, x, ids, now.ffn, "up");
	return now.style == CLAMPED ? wf_swiglu_clamp(g, gate, up, 1.702, 0.5) : wf_mul(g, wf_silu(g, gate), up);
}

static void build(wf_graph *g, const wf_config *c)
{
	wf_tensor *token = wf_input(g, "tokens", WF_I32, WF_SHAPE(WF_T)), *rows = wf_input(g, "rows", WF_I32, WF_SHAPE(WF_R));
	wf_tensor *x = wf_scale(g, wf_take(g, wf_weight(g, WF_SHAPE(VOCAB, now.dim), "rows.weight"), token), 40);
	wf_tensor *scores = wf_take(g, wf_weight(g, WF_SHAPE(VOCAB, now.n), "scores.weight"), token);
	wf_tensor *bias = now.bias ? wf_weight(g, WF_SHAPE(now.n), "scores.bias") : NULL;

	(void)c;
	wf_tensor *ids = wf_route(g, scores, bias, &(struct wf_routing){.k = now.k, .sigmoid = now.sigmoid, .groups = now.groups,
		.group_k = now.group_k, .group_best = now.group_best});
	wf_tensor *gates = wf_gates(g, scores, ids, now.sigmoid ? WF_GATE_SIGMOID : WF_GATE_SOFTMAX, now.k % 2, 1.5);
	wf_tensor *y = wf_mix(g, product(g, inner(g, x, ids), ids, now.dim, "down"), gates);
	wf_output(g, "logits", wf_take(g, wf_add(g, wf_scale(g, x, 0.01), wf_scale(g, y, 20)), rows));
}

static const wf_arch arch = {.name = "block", .build = build};

/* ---- one case ---- */

struct options { wf_dtype weights, act; const char *skip; bool no_graph; const wf_weights *from; int most; };

static void open_sides(struct side *fast, struct side *slow, const struct options *o)
{
	wf_config c = {.arch = "block"};

	side_open_as(fast, &arch, &c, o->weights, WF_F32, o->act, o->from);
	side_open_as(slow, &arch, &c, o->weights, WF_F32, WF_F32, o->from);
	fast->plan = wf_plan_build(fast->g, wf_rules, &wf_backend_cuda, &(struct wf_plan_opt){.max_tokens = o->most,
		.max_seqs = SEQS, .max_rows = o->most, .skip = o->skip, .verify = true});
	if (!fast->plan)
		fail_msg("plan: %s", fast->err.text);
	fast->runner = wf_runner_new(&fast->err, fast->plan, &(struct wf_runner_opt){.ctx = 64, .page_tokens = 16,
		.exec = {.cache = cache_dir(), .no_graph = o->no_graph}});
	if (!fast->runner)
		fail_msg("open: %s", fast->err.text);
	assert_int_equal(define_open(slow, 16, 1), 0);
}

static double one_step(struct side *fast, struct side *slow, int tokens, int seqs)
{
	struct wf_piece f[SEQS], s[SEQS];
	int32_t token[MOST];
	const float *got;
	float *want;
	int64_t count;
	int nrow;

	for (int i = 0; i < tokens; i++)
		token[i] = below(VOCAB);
	for (int i = 0; i < seqs; i++) {
		int first = tokens * i / seqs, end = tokens * (i + 1) / seqs;
		f[i] = (struct wf_piece){.seq = wf_seq_new(wf_runner_slab(fast->runner)), .token = token + first, .n = end - first,
			.all_rows = true};
		s[i] = f[i];
		s[i].seq = wf_seq_new(slow->slab);
	}
	if (wf_runner_step(fast->runner, f, seqs, &got, &nrow))
		fail_msg("step: %s", fast->err.text);
	assert_int_equal(define_step(slow, s, seqs, &want, &count), 0);
	double error = nmse(got, want, count);
	free(want);
	for (int i = 0; i < seqs; i++) {
		wf_seq_free(wf_runner_slab(fast->runner), f[i].seq);
		wf_seq_free(slow->slab, s[i].seq);
	}
	return error;
}

static void expect(const struct options *o, double most)
{
	static const int sizes[] = {1, 4, 3, 2, 7, 13, 40, 64, 65, 130, 600};
	struct side fast, slow;
	double worst = 0;
	int at = 0;

	open_sides(&fast, &slow, o);
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes && sizes[i] <= o->most; i++) {
		double e = one_step(&fast, &slow, sizes[i], sizes[i] <= SEQS ? sizes[i] : 1 + below(SEQS));
		if (!(e <= worst)) {
			worst = e;
			at = sizes[i];
		}
	}
	side_close(&fast);
	side_close(&slow);
	print_message("%-4s weights %-6s dim %3d ffn %3d, %2d of %3d, groups %d/%d%s%s style %d%s%s: NMSE %.2g at %d tokens\n",
		wf_dtypes[o->act].name, wf_dtypes[o->weights].name, (int)now.dim, (int)now.ffn, now.k, (int)now.n, now.group_k,
		now.groups, now.sigmoid ? " sigmoid" : "", now.bias ? " bias" : "", now.style, o->skip ? " skip " : "",
		o->skip ? o->skip : "", worst, at);
	if (!(worst <= most))
		fail_msg("NMSE %g, expected at most %g", worst, most);
}

static struct block random_block(int i)
{
	static const int dims[] = {64, 72, 100, 160, 264, 36}, ffns[] = {96, 40, 20, 132, 128, 7};
	static const int experts[] = {4, 8, 9, 40, 128, 256, 512, 1};
	struct block b = {.dim = dims[below(6)], .ffn = ffns[below(6)], .n = experts[i % 8], .sigmoid = below(2), .bias = below(2),
		.tall = below(2), .style = (enum style)(i % NSTYLE)};

	b.k = 1 + below(b.n < 16 ? (int)b.n : 16);
	if (b.n % 8 == 0 && below(2)) {
		b.groups = b.n > 8 ? 8 : 4;
		b.group_k = 1 + below(b.groups);
		b.group_best = 1 + below(2);
		while (b.n / b.groups * b.group_k < b.k)
			b.group_k++;
	}
	return b;
}

static void exact_blocks_match(void **unused)
{
	static const char *const skips[] = {NULL, NULL, NULL, "fuse"};
	static const wf_dtype types[] = {WF_F32, WF_F16, WF_BF16};

	(void)unused;
	if (!has_gpu())
		skip();
	for (int i = 0; i < 10; i++) {
		now = random_block(i);
		if (is_tried(i))
			expect(&(struct options){.weights = types[i % 3], .act = WF_F32, .skip = skips[i % 4], .no_graph = i % 5 == 4,
				.most = i % 3 ? 130 : MOST}, 1e-10);
	}
}

/* The weights have the activations' type or another; rows are multiples of 8, or not. */
static void half_blocks_are_close(void **unused)
{
	static const wf_dtype types[] = {WF_F16, WF_BF16};

	(void)unused;
	if (!has_gpu())
		skip();
	for (int i = 0; i < 10; i++) {
		wf_dtype act = types[i % 2], weights = i % 5 == 4 ? types[!(i % 2)] : act;
		now = random_block(i);
		now.sigmoid = now.bias = false;           /* scores must be the same numbers on both sides */
		if (is_tried(i))
			expect(&(struct options){.weights = weights, .act = weights == act ? act : WF_BF16, .skip = i == 7 ? "fuse" : NULL,
				.most = i % 3 ? 130 : MOST}, act == WF_F16 && weights == act ? 1e-5 : 1e-3);
	}
}

/* ---- quantised weights: rows of real blocks ---- */

static bool is_of_experts(const wf_tensor *t)
{
	return !strstr(t->name, ".bias") && strcmp(t->name, "rows.weight");
}

static void quantised_blocks_match(void **unused)
{
	wf_config c = {.arch = "block"};

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
		now = (struct block){.dim = 256, .ffn = 256, .n = 5, .k = 2, .style = (enum style)(type % NSTYLE), .tall = type % 2};
		side_open(&like, &arch, &c, WF_F32, WF_F32);
		quant_make(&q, &like, (wf_dtype)type, blocks, is_of_experts);
		expect(&(struct options){.weights = (wf_dtype)type, .act = WF_F32, .from = &q.weights, .most = 64}, 1e-9);
		if (type % 2 == 0)
			expect(&(struct options){.weights = (wf_dtype)type, .act = WF_BF16, .from = &q.weights, .most = 130}, 5e-2);
		side_close(&like);
		free(blocks);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exact_blocks_match),
		cmocka_unit_test(half_blocks_are_close),
		cmocka_unit_test(quantised_blocks_match),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
