/* harness.h - a small Llama of any shape with made-up weights, run by a backend and by definition.
 *
 * The definition (graph_eval) sees the graph as built, the backend its plan: passes, layouts,
 * fusions and kernels are all between the two results. */
#ifndef HARNESS_H
#define HARNESS_H

#include "backends/backend.h"
#include "models/model.h"
#include "ops/ops.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct shape { int64_t dim, nlayer, nhead, nkv, hdim, ffn, vocab; };

/* One side: a graph, its slab and pages. */
struct side {
	wf_arena *arena;
	wf_error err;
	wf_graph *g;
	wf_plan *plan;
	wf_runner *runner;                    /* the backend's side */
	wf_slab *slab;                        /* the definition's side */
	uint8_t *base[8];
};

static inline wf_config config_of(const struct shape *s)
{
	return (wf_config){.arch = "llama", .vocab = s->vocab, .dim = s->dim, .nlayer = s->nlayer, .nhead = s->nhead,
		.nkv = s->nkv, .hdim = s->hdim, .vdim = s->hdim, .ffn = s->ffn, .eps = 1e-6, .theta = 10000,
		.rope_dim = s->hdim, .ctx = 512};
}

/* act: what is kept between kernels.  from: weights, or NULL to make some of type `weights`. */
static inline void side_open_as(struct side *a, const wf_arch *arch, const wf_config *c, wf_dtype weights, wf_dtype kv,
		wf_dtype act, const wf_weights *from)
{
	memset(a, 0, sizeof *a);
	a->arena = wf_arena_new();
	a->g = wf_graph_new(a->arena, &a->err, wf_ops);
	a->g->wdtype = weights;
	a->g->kvtype = kv;
	a->g->act = act;
	a->g->sum = act == WF_F16 && weights == WF_F16 ? WF_F16 : WF_F32;
	a->g->weights = from;
	arch->build(a->g, c);
	if (!from)
		a->g->weights = wf_random_weights(a->g, a->arena, 1);
}

static inline void side_open(struct side *a, const wf_arch *arch, const wf_config *c, wf_dtype weights, wf_dtype kv)
{
	side_open_as(a, arch, c, weights, kv, WF_F32, NULL);
}

static inline void side_close(struct side *a)
{
	wf_runner_free(a->runner);
	if (!a->runner && a->slab) {
		for (int c = 0; c < wf_slab_nclass(a->slab); c++)
			free(a->base[c]);
		wf_slab_free(a->slab);
	}
	wf_arena_free(a->arena);
}

/* The definition: the same pages, sequences and batch, op->eval for each node. */
static inline int define_open(struct side *a, int page_tokens, int64_t npage)
{
	int64_t n[8];

	a->plan = wf_plan_build(a->g, NULL, NULL, &(struct wf_plan_opt){.max_tokens = 1, .max_seqs = 1, .max_rows = 1,
		.skip = "rewrite,fold,fuse"});
	if (!a->plan || a->plan->nkvclass > 8)
		return -1;
	for (int c = 0; c < 8; c++)
		n[c] = npage;
	a->slab = wf_slab_new(&a->err, a->plan->kvclass, a->plan->nkvclass, page_tokens, n);
	if (!a->slab)
		return -1;
	for (int c = 0; c < a->plan->nkvclass; c++)
		a->base[c] = calloc(npage, slab_page_bytes(&a->plan->kvclass[c], page_tokens));
	return 0;
}

/* Logits of the wanted rows, in `out` (calloc'd, the caller's). */
static inline int define_step(struct side *a, const struct wf_piece *piece, int n, float **out, int64_t *count)
{
	int32_t token[4096], pos[4096], row[4096], start[65] = {0}, len[64];
	const int32_t *page[64 * 8];
	const struct wf_slab_copy *copy;
	int nt = 0, nr = 0, ncopy, npages, nclass = a->plan->nkvclass;
	wf_arena *scratch = wf_arena_new();
	wf_batch b = {.nseq = n, .token = token, .pos = pos, .row = row, .seq_start = start, .seq_len = len, .page = page};
	struct wf_kv kv = {.slab = a->slab, .base = a->base, .batch = &b};

	for (int i = 0; i < n; i++) {
		if (wf_seq_extend(a->slab, piece[i].seq, piece[i].n, &copy, &ncopy) || ncopy)
			return -1;
		len[i] = (int32_t)wf_seq_len(piece[i].seq);
		for (int c = 0; c < nclass; c++)
			page[i * nclass + c] = wf_seq_pages(piece[i].seq, c, &npages);
		for (int k = 0; k < piece[i].n; k++) {
			if (piece[i].all_rows || (k == piece[i].n - 1 && !piece[i].no_rows))
				row[nr++] = nt;
			pos[nt] = len[i] - piece[i].n + k;
			token[nt++] = piece[i].token[k];
		}
		start[i + 1] = nt;
	}
	b.ntoken = nt;
	b.nrow = nr;
	a->g->bound[0] = nt;
	a->g->bound[1] = n;
	a->g->bound[2] = nr;
	for (int i = 0; i < a->g->nnode; i++)
		if (a->g->node[i]->op == &wf_op_input)
			a->g->node[i]->data = !strcmp(a->g->node[i]->name, "tokens") ? token :
				!strcmp(a->g->node[i]->name, "rows") ? row : pos;
	int result = graph_eval(a->g, scratch, &kv);
	*count = wf_nelem(a->g->out[0].t);
	*out = calloc(*count, sizeof **out);
	if (!result)
		memcpy(*out, a->g->out[0].t->data, sizeof **out * *count);
	wf_arena_free(scratch);
	return result;
}

static inline double nmse(const float *a, const float *b, int64_t n)
{
	double diff = 0, norm = 1e-30;

	for (int64_t i = 0; i < n; i++) {
		diff += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
		norm += (double)b[i] * b[i];
	}
	return isfinite(diff) ? diff / norm : INFINITY;
}

#endif
