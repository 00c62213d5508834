/* trial.h - a graph of any ops, run by a backend's plan and by definition on the same tokens and pages.
 *
 * Both graphs come from one build function; their weights are made as it asks for them.  On a GPU all
 * that kernels may write is filled with NaNs before a step; after it every byte that no value owns must
 * still be there: past the rows of this step, between values, in pages nobody wrote, in the weights. */
#ifndef TRIAL_H
#define TRIAL_H

#include "backends/backend.h"
#ifdef WF_CUDA
#include "backends/cuda/cuda.h"
#endif
#include "ops/ops.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TRIAL_SEQS = 9, TRIAL_TOKENS = 160, TRIAL_VOCAB = 61, TRIAL_WEIGHTS = 256, TRIAL_PAGES = 64, TRIAL_MAXOUT = 32,
	TRIAL_SHAKES = 3, POISON = 0xFF };

static uint64_t trial_state = 88172645463325252ull;

static inline int below(int n)
{
	trial_state ^= trial_state << 13;
	trial_state ^= trial_state >> 7;
	trial_state ^= trial_state << 17;
	return (int)((trial_state >> 11) % (uint64_t)n);
}

static inline double between(double low, double high)
{
	return low + (high - low) * below(1 << 20) / (1 << 20);
}

struct trial;

/* op: what to count it under.  loose: NMSE allowed beyond what rounding explains.  most: allowed in this step. */
struct trial_out { const char *name; const wf_op *op; double loose, most; float *shaken[TRIAL_SHAKES]; };

struct trial_opt {
	const wf_backend *backend;
	wf_dtype act, sum, kv;                /* sum: f32 or act */
	int64_t max_tokens, max_seqs;
	int page_tokens;
	const char *skip;
	bool no_graph;
};

struct trial {
	struct trial_opt opt;
	void (*build)(struct trial *, wf_graph *);
	void *what;                           /* of the builder */
	wf_arena *arena;
	wf_error err;
	wf_weights weights;                   /* first asked of by name, w0, w1, ... */
	int nweight, asked;
	struct wf_blob weight[TRIAL_WEIGHTS], shaken[TRIAL_SHAKES][TRIAL_WEIGHTS];
	int shaking;                          /* which of the shaken ones find() gives; 0: the weights */
	wf_graph *fast, *slow;
	wf_plan *plan;
	wf_tensor *tokens, *positions, *rows; /* of the graph being built */
	int nout;
	struct trial_out out[TRIAL_MAXOUT];
	wf_slab *slab;
	wf_seq *seq[TRIAL_SEQS];
	wf_exec *exec;
	uint8_t *base[8];                     /* pages of the definition */
	uint8_t *before;                      /* weights as loaded */
	int32_t token[TRIAL_TOKENS], pos[TRIAL_TOKENS], row[TRIAL_TOKENS], start[TRIAL_SEQS + 1], len[TRIAL_SEQS];
	const int32_t *page[TRIAL_SEQS * 8];
	wf_batch batch;
	void (*result)(const struct trial *, int out, double nmse);
};

/* ---- weights ---- */

static inline int trial_find(const wf_weights *w, const char *name, struct wf_blob *out)
{
	const struct trial *t = (const struct trial *)(const void *)((const char *)w - offsetof(struct trial, weights));
	int i = atoi(name + 1);

	if (i >= t->nweight)
		return -1;
	*out = t->shaking ? t->shaken[t->shaking - 1][i] : t->weight[i];
	return 0;
}

/* The same values, each off by as much as rounding to the type of activations can make it. */
static inline void trial_shake(struct trial *t, struct wf_blob *shaken)
{
	double off = t->opt.act == WF_F32 ? 5e-7 : t->opt.act == WF_F16 ? 1. / 2048 : 1. / 256;

	for (int i = 0; i < t->nweight; i++) {
		const struct wf_blob *b = &t->weight[i];
		int64_t n = 1;
		for (int k = 0; k < b->ndim; k++)
			n *= b->dim[k];
		float *data = wf_alloc_n(t->arena, (size_t)n, sizeof *data);
		wf_decode(b->dtype, data, b->data, n);
		for (int64_t k = 0; k < n; k++)
			data[k] *= (float)(1 + between(-off, off));
		shaken[i] = *b;
		shaken[i].dtype = WF_F32;
		shaken[i].data = data;
	}
}

/* Any bytes are blocks of a type, but for its f16 scales: these make a product of k values come out around 1. */
static inline void trial_blocks(wf_dtype type, uint8_t *data, int64_t n, int64_t k_values)
{
	static const int16_t scale[WF_NDTYPE][2] = {[WF_Q4_0] = {0, -1}, [WF_Q4_1] = {0, 2}, [WF_Q5_0] = {0, -1},
		[WF_Q5_1] = {0, 2}, [WF_Q8_0] = {0, -1}, [WF_Q2_K] = {80, 82}, [WF_Q3_K] = {108, -1}, [WF_Q4_K] = {0, 2},
		[WF_Q5_K] = {0, 2}, [WF_Q6_K] = {208, -1}, [WF_IQ4_NL] = {0, -1}, [WF_IQ4_XS] = {0, -1}};
	static const float size[WF_NDTYPE] = {[WF_Q4_0] = 0.2f, [WF_Q4_1] = 0.1f, [WF_Q5_0] = 0.1f, [WF_Q5_1] = 0.05f,
		[WF_Q8_0] = 0.014f, [WF_Q2_K] = 0.07f, [WF_Q3_K] = 0.02f, [WF_Q4_K] = 0.004f, [WF_Q5_K] = 0.002f,
		[WF_Q6_K] = 0.0008f, [WF_IQ4_NL] = 0.014f, [WF_IQ4_XS] = 0.0008f};
	int bytes = wf_dtypes[type].bytes;

	for (int64_t i = 0; i < n * bytes; i++)
		data[i] = (uint8_t)below(256);
	for (int64_t b = 0; b < n; b++)
		for (int k = 0; k < 2 && scale[type][k] >= 0; k++) {
			uint16_t half = wf_f32_to_f16((float)between(-1, 1) * size[type] * 2 / sqrtf((float)k_values));
			memcpy(data + b * bytes + scale[type][k], &half, sizeof half);
		}
}

/* Values from low to high, of a sign at random when both are positive and `sign`. */
static inline wf_tensor *trial_weight(struct trial *t, wf_graph *g, wf_dtype type, int ndim, const int64_t *dim, double low,
		double high)
{
	int i = t->asked++;
	struct wf_blob *b = &t->weight[i];
	int64_t n = 1;

	if (i < t->nweight)
		return wf_weight(g, ndim, dim, "w%d", i);
	if (i >= TRIAL_WEIGHTS)
		wf_die("trial: too many weights");
	for (int k = 0; k < ndim; k++)
		n *= dim[k] > 0 ? dim[k] : 0;
	if (!n)
		return wf_weight(g, ndim, dim, "w%d", i);    /* refused: no file has a symbolic length */
	*b = (struct wf_blob){.dtype = type, .ndim = ndim, .bytes = wf_row_bytes(type, dim[ndim - 1]) * (size_t)(n / dim[ndim - 1])};
	memcpy(b->dim, dim, sizeof *dim * (size_t)ndim);
	uint8_t *data = wf_alloc(t->arena, b->bytes);
	if (wf_dtypes[type].block > 1)
		trial_blocks(type, data, n / wf_dtypes[type].block, dim[ndim - 1]);
	for (int64_t k = 0; wf_dtypes[type].block == 1 && k < n; k++) {
		float v = (float)(low > 0 && below(2) ? -between(low, high) : between(low, high));
		wf_encode(type, data + k * wf_dtypes[type].bytes, &v, 1);
	}
	b->data = data;
	t->nweight++;
	return wf_weight(g, ndim, dim, "w%d", i);
}

/* Fresh values [T, n], none near 0, exact in the type they are kept in: an embedding. */
static inline wf_tensor *trial_embed(struct trial *t, wf_graph *g, int64_t n)
{
	return wf_take(g, trial_weight(t, g, t->opt.act, WF_SHAPE(TRIAL_VOCAB, n), 0.25, 2), t->tokens);
}

/* The same in the type of activations: an embedding is of the type of sums. */
static inline wf_tensor *trial_values(struct trial *t, wf_graph *g, int64_t n)
{
	wf_tensor *x = trial_embed(t, g, n);

	return t->opt.sum != t->opt.act ? wf_scale(g, x, 2) : x;
}

static inline void trial_output(struct trial *t, wf_graph *g, wf_tensor *y, const wf_op *op, double loose)
{
	char *name = wf_format(g->arena, "o%d", g->nout);

	if (g->nout < TRIAL_MAXOUT)
		t->out[g->nout] = (struct trial_out){.name = name, .op = op, .loose = loose};
	wf_output(g, name, y);
	t->nout = g->nout;
}

/* ---- opening ---- */

static inline wf_graph *trial_graph(struct trial *t, wf_dtype act)
{
	wf_graph *g = wf_graph_new(t->arena, &t->err, wf_ops);

	g->weights = &t->weights;
	g->act = act;
	g->sum = act == WF_F32 ? WF_F32 : t->opt.sum;
	g->kvtype = t->opt.kv;
	t->asked = 0;
	t->tokens = wf_input(g, "tokens", WF_I32, WF_SHAPE(WF_T));
	t->positions = wf_input(g, "positions", WF_I32, WF_SHAPE(WF_T));
	t->rows = wf_input(g, "rows", WF_I32, WF_SHAPE(WF_R));
	t->build(t, g);
	return g;
}

/* 0; -1 with why in t->err. */
static inline int trial_plan(struct trial *t)
{
	t->arena = wf_arena_new();
	t->weights.find = trial_find;
	t->fast = trial_graph(t, t->opt.act);
	t->slow = wf_failed(t->fast) ? NULL : trial_graph(t, WF_F32);
	t->plan = wf_failed(t->fast) ? NULL : wf_plan_build(t->fast, wf_rules, t->opt.backend, &(struct wf_plan_opt){
		.max_tokens = t->opt.max_tokens, .max_seqs = t->opt.max_seqs, .max_rows = t->opt.max_tokens, .skip = t->opt.skip,
		.verify = true});
	return t->plan ? 0 : -1;
}

static inline int trial_open(struct trial *t, const char *cache)
{
	int64_t npage[8] = {TRIAL_PAGES, TRIAL_PAGES, TRIAL_PAGES, TRIAL_PAGES, TRIAL_PAGES, TRIAL_PAGES, TRIAL_PAGES, TRIAL_PAGES};

	t->slab = wf_slab_new(&t->err, t->plan->kvclass, t->plan->nkvclass, t->opt.page_tokens, npage);
	if (!t->slab)
		return -1;
	for (int c = 0; c < t->plan->nkvclass; c++) {
		size_t bytes = TRIAL_PAGES * slab_page_bytes(&t->plan->kvclass[c], t->opt.page_tokens);
		t->base[c] = malloc(bytes);
		memset(t->base[c], POISON, bytes);
	}
	for (int i = 0; i < t->opt.max_seqs; i++)
		t->seq[i] = wf_seq_new(t->slab);
	t->exec = t->opt.backend->open(t->opt.backend, t->plan, &t->err, &(struct wf_exec_opt){.slab = t->slab, .threads = 2,
		.compute = WF_F32, .cache = cache, .no_graph = t->opt.no_graph});
	for (int i = 0; i < TRIAL_SHAKES; i++)
		trial_shake(t, t->shaken[i]);
	return t->exec ? 0 : -1;
}

static inline void trial_close(struct trial *t)
{
	if (t->exec)
		t->exec->close(t->exec);
	for (int i = 0; i < TRIAL_SEQS; i++)
		if (t->seq[i])
			wf_seq_free(t->slab, t->seq[i]);
	for (int c = 0; c < 8; c++)
		free(t->base[c]);
	free(t->before);
	wf_slab_free(t->slab);
	wf_arena_free(t->arena);
}

/* ---- what must not be written ---- */

#ifdef WF_CUDA

static inline uint8_t *trial_fetch(const struct cuda_exec *e, CUdeviceptr from, size_t bytes)
{
	uint8_t *to = malloc(bytes + 1);
	wf_error err = {0};

	if (bytes && (CU(&err, cuMemcpyDtoHAsync(to, from, bytes, e->stream)) || CU(&err, cuStreamSynchronize(e->stream))))
		wf_die("trial: %s", err.text);
	return to;
}

static inline void trial_poison(struct trial *t)
{
	const struct cuda_exec *e = (const struct cuda_exec *)t->exec;
	const struct memory *m = &e->memory;

	cuda_driver.cuMemsetD8Async(m->work, POISON, m->counters - m->work, e->stream);
	if (t->before)
		return;
	cuda_driver.cuMemsetD8Async(m->kv, POISON, m->kv_bytes, e->stream);
	t->before = trial_fetch(e, m->weights, m->weights_bytes);
}

/* A graph's product by the library has as many rows as the graph was captured for: those of no token are there, too. */
static inline size_t trial_used(const struct trial *t, const wf_tensor *v, size_t size)
{
	bool captured = !t->opt.no_graph && t->plan->kernel[t->plan->value[v->id].kernel].kind == WF_DOT;
	int64_t n = wf_last(v);

	for (int i = 0; i + 1 < v->ndim; i++)
		n *= v->dim[i] >= 0 ? v->dim[i] : captured ? t->fast->bound[-1 - v->dim[i]] : t->slow->bound[-1 - v->dim[i]];
	return (size_t)n * size;
}

/* The first byte of work memory that a kernel wrote without owning it; -1 none. */
static inline int64_t trial_stray(const struct trial *t)
{
	const struct cuda_exec *e = (const struct cuda_exec *)t->exec;
	const struct memory *m = &e->memory;
	size_t bytes = m->rows - m->work;
	uint8_t *work = trial_fetch(e, m->work, bytes);
	int64_t stray = -1;

	for (int i = 0; i < t->plan->g->nnode; i++) {
		const wf_tensor *v = t->plan->g->node[i];
		const struct wf_value *value = &t->plan->value[i];
		if (value->kernel < 0 || !value->stored || value->alias || v->op->state)
			continue;
		if (!graph_is_output(t->plan->g, v))
			memset(work + value->offset, POISON, trial_used(t, v, (size_t)wf_dtypes[v->dtype].bytes));
		for (int k = 0; k < t->plan->g->nout; k++)
			if (t->plan->g->out[k].t == v)
				memset(work + (m->output[k] - m->work), POISON, trial_used(t, v, 4));
	}
	for (size_t i = 0; i < bytes && stray < 0; i++)
		if (work[i] != POISON)
			stray = (int64_t)i;
	free(work);
	return stray;
}

static inline bool trial_is_zero(const struct trial *t)
{
	const struct cuda_exec *e = (const struct cuda_exec *)t->exec;
	uint8_t *words = trial_fetch(e, e->memory.counters, e->memory.counter_bytes);
	bool zero = true;

	for (size_t i = 0; i < e->memory.counter_bytes; i++)
		zero &= !words[i];
	free(words);
	return zero;
}

/* Keys and values in every page of a class; bytes that the definition never wrote are as they were. */
static inline double trial_pages(const struct trial *t, int c)
{
	const struct cuda_exec *e = (const struct cuda_exec *)t->exec;
	wf_dtype type = t->plan->kvclass[c].dtype;
	size_t size = (size_t)wf_dtypes[type].bytes, bytes = TRIAL_PAGES * slab_page_bytes(&t->plan->kvclass[c], t->opt.page_tokens);
	uint8_t *page = trial_fetch(e, e->memory.kv_base[c], bytes);
	double error = 0, power = 1e-30;

	for (size_t i = 0; i < bytes; i += size) {
		float got, want;
		wf_decode(type, &got, page + i, 1);
		wf_decode(type, &want, t->base[c] + i, 1);
		if (isnan(want) && memcmp(page + i, t->base[c] + i, size))
			error = INFINITY;
		if (isnan(want))
			continue;
		error += ((double)got - want) * ((double)got - want);
		power += (double)want * want;
	}
	free(page);
	return isfinite(error) ? error / power : INFINITY;
}

static inline const char *trial_fault(struct trial *t)
{
	static char text[128];
	const struct cuda_exec *e = (const struct cuda_exec *)t->exec;
	double most = t->opt.act == WF_F32 ? 1e-7 : t->opt.act == WF_F16 ? 1e-5 : 1e-3;
	int64_t stray = trial_stray(t);

	if (stray >= 0) {
		snprintf(text, sizeof text, "byte %lld of work memory was written and belongs to no value", (long long)stray);
		return text;
	}
	if (!trial_is_zero(t))
		return "counters are not zero again";
	for (int c = 0; c < t->plan->nkvclass; c++)
		if (!(trial_pages(t, c) <= most)) {
			snprintf(text, sizeof text, "pages of class %d: NMSE %.2g", c, trial_pages(t, c));
			return text;
		}
	uint8_t *now = trial_fetch(e, e->memory.weights, e->memory.weights_bytes);
	bool same = !memcmp(now, t->before, e->memory.weights_bytes);
	free(now);
	return same ? NULL : "weights were written";
}

#endif

/* ---- a step ---- */

/* Where the definition is past what 16 bits hold, or no number, anything will do. */
static inline double trial_nmse(const wf_tensor *want, const float *got)
{
	const float *w = want->data;
	double error = 0, power = 1e-30;

	for (int64_t i = 0; i < wf_nelem(want) && w; i++)
		if (fabsf(w[i]) < 6e4f) {
			error += ((double)got[i] - w[i]) * ((double)got[i] - w[i]);
			power += (double)w[i] * w[i];
		}
	return isfinite(error) ? error / power : INFINITY;
}

/* n sequences, count[i] tokens of each, one or all of their rows wanted. */
static inline void trial_bind(struct trial *t, const int *count, int n)
{
	const struct wf_slab_copy *copy;
	int nclass = wf_slab_nclass(t->slab), ncopy, npages;

	t->batch = (wf_batch){.nseq = n, .token = t->token, .pos = t->pos, .row = t->row, .seq_start = t->start,
		.seq_len = t->len, .page = t->page};
	for (int i = 0; i < n; i++) {
		if (wf_seq_extend(t->slab, t->seq[i], count[i], &copy, &ncopy) || ncopy)
			wf_die("trial: no room for %d tokens", count[i]);
		int len = (int)wf_seq_len(t->seq[i]), all = below(2);
		for (int k = 0; k < count[i]; k++) {
			if (all || k == count[i] - 1)
				t->row[t->batch.nrow++] = t->batch.ntoken;
			t->pos[t->batch.ntoken] = len - count[i] + k;
			t->token[t->batch.ntoken++] = below(TRIAL_VOCAB);
		}
		t->len[i] = len;
		t->start[i + 1] = t->batch.ntoken;
	}
	for (int i = 0; i < n; i++)
		for (int c = 0; c < nclass; c++)
			t->page[i * nclass + c] = wf_seq_pages(t->seq[i], c, &npages);
}

static inline int trial_define(struct trial *t, wf_arena *scratch)
{
	wf_graph *g = t->slow;

	g->bound[0] = t->batch.ntoken;
	g->bound[1] = t->batch.nseq;
	g->bound[2] = t->batch.nrow;
	for (int i = 0; i < g->nnode; i++)
		if (g->node[i]->op == &wf_op_input)
			g->node[i]->data = !strcmp(g->node[i]->name, "tokens") ? t->token :
				!strcmp(g->node[i]->name, "rows") ? t->row : t->pos;
	return graph_eval(g, scratch, &(struct wf_kv){.slab = t->slab, .base = t->base, .batch = &t->batch});
}

/* What the rounding of ones in f32 is beside values that all are next to zero: the far end of a gelu, say. */
static inline double trial_unit(const wf_tensor *want)
{
	const float *w = want->data;
	double power = 1e-30, n = (double)wf_nelem(want);

	for (int64_t i = 0; i < wf_nelem(want) && w; i++)
		power += (double)w[i] * w[i];
	return n * 2.5e-7 * 2.5e-7 / power;
}

/* One rounding of a single value, which shaken operands may by chance leave where it was. */
static inline double trial_rounding(const struct trial *t)
{
	double off = t->opt.act == WF_F32 ? 0 : t->opt.act == WF_F16 ? 1. / 4096 : 1. / 512;

	return off * off;
}

/* The definition again and again: how far shaken operands move a result says how exact it can be asked to be.  One
 * shake may leave a single value where it was. */
static inline int trial_define_both(struct trial *t, wf_arena *scratch)
{
	for (t->shaking = TRIAL_SHAKES; t->shaking > 0; t->shaking--) {
		if (trial_define(t, scratch))
			break;
		for (int i = 0; i < t->nout; i++)
			t->out[i].shaken[t->shaking - 1] = t->slow->out[i].t->data;
	}
	if (t->shaking > 0 || trial_define(t, scratch)) {
		t->shaking = 0;
		return -1;
	}
	for (int i = 0; i < t->nout; i++) {
		double moved = 0;
		for (int k = 0; k < TRIAL_SHAKES; k++)
			moved = fmax(moved, trial_nmse(t->slow->out[i].t, t->out[i].shaken[k]));
		t->out[i].most = 60 * moved + 1e-9 + trial_unit(t->slow->out[i].t) + trial_rounding(t) + t->out[i].loose;
	}
	return 0;
}

/* Every output is a case, told to t->result; NULL, or what went wrong beside. */
static inline const char *trial_step(struct trial *t, const int *count, int n)
{
	bool on_gpu = !strcmp(t->opt.backend->name, "cuda");
	wf_arena *scratch = wf_arena_new();
	const char *fault = NULL;

	trial_bind(t, count, n);
#ifdef WF_CUDA
	if (on_gpu)
		trial_poison(t);
#endif
	if (t->exec->step(t->exec, &t->batch) || trial_define_both(t, scratch))
		fault = t->err.text;
	for (int i = 0; i < t->nout && !fault; i++) {
		const float *got = t->exec->output(t->exec, t->out[i].name);
		if (!got)
			fault = t->err.text;
		else
			t->result(t, i, trial_nmse(t->slow->out[i].t, got));
	}
#ifdef WF_CUDA
	if (on_gpu && !fault)
		fault = trial_fault(t);
#endif
	(void)on_gpu;
	wf_arena_free(scratch);
	return fault;
}

#endif
