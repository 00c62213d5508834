/* cuda_attend.c - attention on a GPU against its definition: head sizes, groups, windows, ALiBi, caps and
 * sinks, in steps of long prompts, chunks that end anywhere and single tokens; skipped without one. */
#include "harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include "gpu.h"

enum { SEQS = 4, STEPS = 4, TOKENS = 170, CTX = STEPS * TOKENS };

static uint64_t state = 88172645463325252ull;

static int below(int n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (int)(state % (uint64_t)n);
}

/* ---- a model that is little else ---- */

struct attend_case {
	int nhead, nkv, kdim, vdim;
	int window, page_tokens;
	double softcap, alibi, scale;
	bool sinks;
};

static const struct attend_case *now;

static void build(wf_graph *g, const wf_config *c)
{
	wf_tensor *x = wf_embed(g, c), *pos = wf_positions(g);
	wf_tensor *q = wf_heads(g, wf_linear(g, x, now->nhead * now->kdim, false, "attn_q"), now->nhead);
	wf_tensor *k = wf_heads(g, wf_linear(g, x, now->nkv * now->kdim, false, "attn_k"), now->nkv);
	wf_tensor *v = wf_heads(g, wf_linear(g, x, now->nkv * now->vdim, false, "attn_v"), now->nkv);
	wf_tensor *kv = wf_cache(g, k, v, pos, 0, now->window);
	wf_tensor *y = wf_attend(g, q, kv, pos, &(struct wf_attention){.scale = now->scale, .window = now->window,
		.softcap = now->softcap, .alibi = now->alibi,
		.sinks = now->sinks ? wf_weight(g, WF_SHAPE(now->nhead), "attn_sinks.weight") : NULL});

	wf_output(g, "logits", wf_wanted(g, wf_linear(g, wf_merge(g, y), c->dim, false, "attn_output")));
}

static const wf_arch bare = {.name = "bare", .build = build};

/* ---- one case ---- */

static void open_sides(struct side *fast, struct side *slow, wf_dtype type)
{
	const struct shape shape = {.dim = 64, .nlayer = 1, .nhead = now->nhead, .nkv = now->nkv, .hdim = now->kdim, .vocab = 50};
	wf_config c = config_of(&shape);

	side_open_as(fast, &bare, &c, WF_F32, type, type, NULL);
	side_open_as(slow, &bare, &c, WF_F32, type, WF_F32, NULL);
	fast->plan = wf_plan_build(fast->g, wf_rules, &wf_backend_cuda, &(struct wf_plan_opt){.max_tokens = SEQS * TOKENS,
		.max_seqs = SEQS, .max_rows = SEQS * TOKENS, .verify = true});
	fast->runner = fast->plan ? wf_runner_new(&fast->err, fast->plan, &(struct wf_runner_opt){.ctx = SEQS * (CTX + 64),
		.page_tokens = now->page_tokens, .exec = {.cache = cache_dir()}}) : NULL;
	if (!fast->runner)
		fail_msg("open: %s", fast->err.text);
	assert_int_equal(define_open(slow, now->page_tokens, SEQS * (CTX / now->page_tokens + 2)), 0);
}

/* Tokens of sequence i in a step: a prompt across a tile of rows, a chunk, one. */
static int some_tokens(int step, int i)
{
	return (step + i) % 3 == 0 ? 1 : step == 0 ? 129 + below(TOKENS - 128) : 2 + below(TOKENS - 1);
}

static double run_case(wf_dtype type)
{
	struct side fast, slow;
	struct wf_piece f[SEQS], s[SEQS];
	int32_t token[TOKENS];
	double worst = 0;

	open_sides(&fast, &slow, type);
	for (int i = 0; i < SEQS; i++) {
		f[i] = (struct wf_piece){.seq = wf_seq_new(wf_runner_slab(fast.runner)), .token = token, .all_rows = true};
		s[i] = (struct wf_piece){.seq = wf_seq_new(slow.slab), .token = token, .all_rows = true};
	}
	for (int step = 0; step < STEPS; step++) {
		const float *got;
		float *want;
		int64_t count;
		int nrow;
		for (int k = 0; k < TOKENS; k++)
			token[k] = below(50);
		for (int i = 0; i < SEQS; i++)
			f[i].n = s[i].n = some_tokens(step, i);
		if (wf_runner_step(fast.runner, f, SEQS, &got, &nrow))
			fail_msg("step: %s", fast.err.text);
		assert_int_equal(define_step(&slow, s, SEQS, &want, &count), 0);
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

static void attention_matches(void **unused)
{
	/* The made-up weights are small: the scale makes scores that matter. */
	static const struct attend_case cases[] = {
		{.nhead = 2, .nkv = 2, .kdim = 128, .vdim = 128, .page_tokens = 64, .scale = 2e4},
		{.nhead = 3, .nkv = 1, .kdim = 128, .vdim = 128, .page_tokens = 16, .scale = 2e4, .window = 70},
		{.nhead = 6, .nkv = 3, .kdim = 64, .vdim = 64, .page_tokens = 64, .scale = 2e4, .alibi = 8},
		{.nhead = 4, .nkv = 2, .kdim = 64, .vdim = 64, .page_tokens = 32, .scale = 2e4, .window = 48, .sinks = true},
		{.nhead = 2, .nkv = 1, .kdim = 256, .vdim = 256, .page_tokens = 64, .scale = 2e4, .softcap = 20, .window = 100},
		{.nhead = 2, .nkv = 2, .kdim = 192, .vdim = 128, .page_tokens = 64, .scale = 2e4},
		{.nhead = 7, .nkv = 1, .kdim = 80, .vdim = 80, .page_tokens = 64, .scale = 2e4, .sinks = true},
		{.nhead = 2, .nkv = 2, .kdim = 40, .vdim = 24, .page_tokens = 16, .scale = 2e4, .softcap = 5},
		{.nhead = 20, .nkv = 1, .kdim = 96, .vdim = 96, .page_tokens = 64, .scale = 2e4, .alibi = 8},
	};
	static const wf_dtype types[] = {WF_F16, WF_BF16, WF_F32};
	static const double most[] = {1e-4, 2e-3, 1e-10};

	(void)unused;
	if (!has_gpu())
		skip();
	for (size_t v = 0; v < sizeof cases / sizeof *cases; v++)
		for (int i = 0; i < 3; i++) {
			int t = (i + (int)v) % 3;
			if (!is_tried((int)v * 3 + i))
				continue;
			now = &cases[v];
			double e = run_case(types[t]);
			print_message("heads %d/%d of %d and %d, window %d, softcap %g, alibi %g, sinks %d, pages of %d, %s: NMSE %.2g\n",
				now->nhead, now->nkv, now->kdim, now->vdim, now->window, now->softcap, now->alibi, now->sinks,
				now->page_tokens, wf_dtypes[types[t]].name, e);
			if (!(e <= most[t]))
				fail_msg("NMSE %g, expected at most %g", e, most[t]);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(attention_matches),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
