/* cpu_attend.c - attention over pages against a naive double sum: key types, head counts and sizes,
 * page sizes, windows, soft caps, ALiBi, sinks, prompts, chunks and single tokens, split keys. */
#include "backends/cpu/cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const isas[] = {"avx512", "avx2", "plain"};

static uint64_t seed = 7;

static float uniform(void)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (float)(int32_t)(seed >> 32) / 0x1p31f;
}

struct shape {
	int nhead, nkv, kdim, vdim, page_tokens;
	wf_dtype dtype;
	int ntoken, past;                 /* tokens of this step, tokens before them */
	float softcap;
	int window;
	bool alibi, sink;
};

/* Pages are handed out backwards, with NaN wherever nothing is stored. */
struct cache {
	struct cpu_attend a;
	uint8_t *slab;
	int32_t *page, *pos;
	float *q, *out, *k, *v, *slope, *sink;   /* k, v: what is stored, f32 [key][nkv][dim] */
	void *scratch;
};

static void store_one(struct cache *c, const struct shape *s, int key, int head)
{
	size_t size = (size_t)wf_dtypes[s->dtype].bytes;
	size_t base = (size_t)c->page[key / s->page_tokens] * c->a.page_bytes;
	size_t token = (size_t)(head * s->page_tokens + key % s->page_tokens);
	uint8_t *k = c->slab + base + token * (size_t)s->kdim * size;
	uint8_t *v = c->slab + (c->a.v - c->a.k) + base + token * (size_t)s->vdim * size;
	float *fk = c->k + (size_t)(key * s->nkv + head) * (size_t)s->kdim;
	float *fv = c->v + (size_t)(key * s->nkv + head) * (size_t)s->vdim;

	for (int d = 0; d < s->kdim; d++)
		fk[d] = uniform() * 2;
	for (int d = 0; d < s->vdim; d++)
		fv[d] = uniform();
	wf_encode(s->dtype, k, fk, s->kdim);
	wf_encode(s->dtype, v, fv, s->vdim);
	wf_decode(s->dtype, fk, k, s->kdim);
	wf_decode(s->dtype, fv, v, s->vdim);
}

static float *floats(size_t n)
{
	float *p = malloc(n * sizeof *p);

	assert_non_null(p);
	for (size_t i = 0; i < n; i++)
		p[i] = uniform();
	return p;
}

static void cache_init(struct cache *c, const struct shape *s)
{
	int len = s->past + s->ntoken, npage = (len + s->page_tokens - 1) / s->page_tokens;
	size_t size = (size_t)wf_dtypes[s->dtype].bytes, heads = (size_t)(s->nkv * s->page_tokens);
	size_t page_bytes = heads * (size_t)(s->kdim + s->vdim) * size;

	c->slab = malloc((size_t)npage * page_bytes);
	c->page = malloc((size_t)npage * sizeof *c->page);
	c->pos = malloc((size_t)s->ntoken * sizeof *c->pos);
	c->scratch = aligned_alloc(64, cpu_attend_scratch(s->kdim, s->vdim));
	assert_true(c->slab && c->page && c->pos && c->scratch);
	memset(c->slab, 0xff, (size_t)npage * page_bytes);
	for (int i = 0; i < npage; i++)
		c->page[i] = npage - 1 - i;
	for (int i = 0; i < s->ntoken; i++)
		c->pos[i] = s->past + i;
	c->q = floats((size_t)(s->ntoken * s->nhead * s->kdim));
	c->out = floats((size_t)(s->ntoken * s->nhead * s->vdim));
	c->k = floats((size_t)(len * s->nkv * s->kdim));
	c->v = floats((size_t)(len * s->nkv * s->vdim));
	c->slope = floats((size_t)s->nhead);
	c->sink = floats((size_t)s->nhead);
	for (int i = 0; i < s->nhead; i++)
		c->slope[i] = fabsf(c->slope[i]);
	c->a = (struct cpu_attend){
		.q = c->q, .out = c->out, .pos = c->pos, .page = c->page,
		.qstride = (size_t)(s->nhead * s->kdim), .ostride = (size_t)(s->nhead * s->vdim),
		.k = c->slab, .v = c->slab + heads * (size_t)s->kdim * size, .page_bytes = page_bytes,
		.page_tokens = s->page_tokens, .dtype = s->dtype,
		.nhead = s->nhead, .nkv = s->nkv, .kdim = s->kdim, .vdim = s->vdim,
		.scale = 1 / sqrtf((float)s->kdim), .softcap = s->softcap, .window = s->window,
		.slope = s->alibi ? c->slope : NULL, .sink = s->sink ? c->sink : NULL,
	};
	for (int key = 0; key < len; key++)
		for (int head = 0; head < s->nkv; head++)
			store_one(c, s, key, head);
	/* what lies outside every window has been given back */
	for (int i = 0; s->window && (i + 1) * s->page_tokens <= s->past - s->window + 1; i++)
		c->page[i] = -1;
}

static void cache_free(struct cache *c)
{
	void *all[] = {c->slab, c->page, c->pos, c->scratch, c->q, c->out, c->k, c->v, c->slope, c->sink};

	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		free(all[i]);
}

static double score(const struct cache *c, const struct shape *s, int t, int h, int key)
{
	const float *q = c->q + (size_t)(t * s->nhead + h) * (size_t)s->kdim;
	const float *k = c->k + (size_t)(key * s->nkv + h / (s->nhead / s->nkv)) * (size_t)s->kdim;
	double sum = 0;

	for (int d = 0; d < s->kdim; d++)
		sum += (double)q[d] * k[d];
	sum *= c->a.scale;
	if (s->softcap != 0)
		sum = s->softcap * tanh(sum / s->softcap);
	return sum + (s->alibi ? c->slope[h] * (key - c->pos[t]) : 0);
}

static void expect(const struct cache *c, const struct shape *s, int t, int h, double *out)
{
	int first = s->window && c->pos[t] - s->window + 1 > 0 ? c->pos[t] - s->window + 1 : 0;
	double sum = s->sink ? exp(c->sink[h]) : 0;

	for (int d = 0; d < s->vdim; d++)
		out[d] = 0;
	for (int key = first; key <= c->pos[t]; key++) {
		const float *v = c->v + (size_t)(key * s->nkv + h / (s->nhead / s->nkv)) * (size_t)s->vdim;
		double p = exp(score(c, s, t, h, key));
		sum += p;
		for (int d = 0; d < s->vdim; d++)
			out[d] += p * v[d];
	}
	for (int d = 0; d < s->vdim; d++)
		out[d] /= sum;
}

static void compare(const struct cpu_kernels *k, const struct cache *c, const struct shape *s, const char *what)
{
	double diff = 0, norm = 0, want[512];

	for (int t = 0; t < s->ntoken; t++)
		for (int h = 0; h < s->nhead; h++) {
			expect(c, s, t, h, want);
			for (int d = 0; d < s->vdim; d++) {
				double got = c->out[(size_t)(t * s->nhead + h) * (size_t)s->vdim + (size_t)d];
				diff += (got - want[d]) * (got - want[d]);
				norm += want[d] * want[d];
			}
		}
	if (!(diff <= 1e-12 * norm))
		fail_msg("%s %s: heads %d/%d dims %d/%d pages of %d %s, %d tokens after %d, window %d: NMSE %g",
			k->name, what, s->nhead, s->nkv, s->kdim, s->vdim, s->page_tokens,
			wf_dtypes[s->dtype].name, s->ntoken, s->past, s->window, diff / norm);
}

static void poison(struct cache *c, const struct shape *s)
{
	for (int i = 0; i < s->ntoken * s->nhead * s->vdim; i++)
		c->out[i] = NAN;
	memset(c->scratch, 0xff, cpu_attend_scratch(s->kdim, s->vdim));
}

static void attend(const struct cpu_kernels *k, struct cache *c, const struct shape *s, int most)
{
	int rows = s->ntoken * (s->nhead / s->nkv);

	for (int head = 0; head < s->nkv; head++)
		for (int r = 0; r < rows; r += most)
			k->attend(&c->a, &(struct cpu_attend_part){.head = head, .row = r,
				.nrow = rows - r < most ? rows - r : most, .scratch = c->scratch});
}

/* Keys in `nsplit` stretches, joined again. */
static void attend_split(const struct cpu_kernels *k, struct cache *c, const struct shape *s, int most, int nsplit)
{
	int rows = s->ntoken * (s->nhead / s->nkv), len = s->past + s->ntoken, nkey = (len + nsplit - 1) / nsplit;
	size_t each = (size_t)most * (size_t)(s->vdim + 2) + 5;
	float *state = floats(each * (size_t)nsplit);

	for (int i = 0; i < s->nkv * rows; i += 1) {
		struct cpu_attend_part p = {.head = i / rows, .row = i % rows, .scratch = c->scratch, .nkey = nkey};
		if (p.row % most)
			continue;
		p.nrow = rows - p.row < most ? rows - p.row : most;
		for (int n = 0; n < nsplit; n++) {
			p.key = n * nkey;
			p.state = state + each * (size_t)n;
			k->attend(&c->a, &p);
		}
		p.state = state;
		k->attend_merge(&c->a, &p, nsplit, each);
	}
	free(state);
}

static void check(const struct shape *s)
{
	for (int i = 0; i < 3; i++) {
		const struct cpu_kernels *k = cpu_kernels_pick(isas[i]);
		struct cache c;
		if (!k)
			continue;
		cache_init(&c, s);
		for (int most = 1; most <= ATTEND_ROWS; most += most == 1 ? 4 : most == 5 ? 15 : 12) {
			poison(&c, s);
			attend(k, &c, s, most);
			compare(k, &c, s, "whole");
		}
		poison(&c, s);
		attend_split(k, &c, s, 3, 4);
		compare(k, &c, s, "split");
		poison(&c, s);
		attend_split(k, &c, s, 32, 3);
		compare(k, &c, s, "wide split");
		cache_free(&c);
	}
}

static void head_shapes(void **state)
{
	static const int dims[][2] = {{8, 8}, {16, 16}, {24, 40}, {64, 64}, {72, 72}, {128, 128}, {256, 256}, {192, 128}};
	static const int heads[][2] = {{1, 1}, {9, 3}, {8, 1}, {4, 4}, {12, 2}};

	(void)state;
	for (int i = 0; i < 8; i++)
		check(&(struct shape){.nhead = heads[i % 5][0], .nkv = heads[i % 5][1], .kdim = dims[i][0],
			.vdim = dims[i][1], .page_tokens = 16, .dtype = WF_F16, .ntoken = 1 + i % 3 * 9, .past = 37 * (i & 1)});
}

static void types_and_pages(void **state)
{
	static const wf_dtype types[] = {WF_F32, WF_F16, WF_BF16};

	(void)state;
	for (int i = 0; i < 12; i++)
		check(&(struct shape){.nhead = 6, .nkv = 2, .kdim = 64, .vdim = 32, .page_tokens = (int[]){16, 32, 64, 10}[i / 3],
			.dtype = types[i % 3], .ntoken = i % 2 ? 1 : 11, .past = (int[]){0, 31, 32, 33}[i % 4]});
}

static void options(void **state)
{
	(void)state;
	for (int i = 0; i < 32; i++)
		check(&(struct shape){.nhead = 6, .nkv = 2, .kdim = 16, .vdim = 16, .page_tokens = 16, .dtype = WF_F32,
			.ntoken = i & 1 ? 1 : 21, .past = 70, .alibi = i & 2, .sink = i & 4,
			.softcap = i & 8 ? 0.7f : 0, .window = i & 16 ? 19 : 0});
	check(&(struct shape){.nhead = 2, .nkv = 2, .kdim = 8, .vdim = 8, .page_tokens = 16, .dtype = WF_F32,
		.ntoken = 40, .past = 0, .window = 1});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(head_shapes),
		cmocka_unit_test(types_and_pages),
		cmocka_unit_test(options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
