/* weights.c - constants as the kernels want them: panels for products, float32 vectors, raw tables.
 *
 * A layout node (cat, part, weave, repack) only says which row comes from where, so panels are
 * packed straight from the mapped file: nothing is copied twice. */
#include "backends/cpu/cpu.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Row r of a constant matrix, in its type; NULL when it is computed rather than moved. */
static const void *find_row(const wf_tensor *t, int64_t r, size_t row_bytes)
{
	struct wf_blob blob;
	int64_t src;

	while (t->op->source_row) {
		int k = t->op->source_row(t, r, &src);
		t = t->in[k];
		r = src;
	}
	if (t->op != &wf_op_weight || !t->g->weights || t->g->weights->find(t->g->weights, t->name, &blob))
		return NULL;
	return (const uint8_t *)blob.data + r * row_bytes;
}

struct packing {
	struct cpu_exec *e;
	struct cpu_mat *m;
	const wf_tensor *t;
	const uint8_t *dense;
	size_t row_bytes;
	int64_t group, pad;               /* rows of a group, and rounded up to panels */
};

/* The source of row r of the padded matrix; NULL in the padding. */
static const void *source(const struct packing *p, int64_t r)
{
	int64_t in_group = r % p->pad;

	if (in_group >= p->group)
		return NULL;
	r = r / p->pad * p->group + in_group;
	return p->dense ? p->dense + r * p->row_bytes : find_row(p->t, r, p->row_bytes);
}

static void pack_panels(void *arg, int id)
{
	struct packing *p = arg;
	const void *row[PANEL];
	(void)id;

	for (int64_t i; (i = team_next(p->e->team, p->m->npanel)) < p->m->npanel;) {
		for (int j = 0; j < PANEL; j++)
			row[j] = source(p, i * PANEL + j);
		cpu_mat_pack(p->m, i, row);
	}
}

/* Huge pages: a step streams through all weights, and the processor's prefetchers stop at the end of a
 * page (29 against 45 GB/s for matrices of a megabyte). */
static struct cpu_block *open_block(struct cpu_exec *e, size_t bytes)
{
	enum { HUGE = 2 << 20 };
	struct cpu_block *block = wf_alloc(e->arena, sizeof *block);
	void *p;

	if (!block || bytes > SIZE_MAX - HUGE)
		return NULL;
	bytes = (bytes + HUGE - 1) / HUGE * HUGE;
	if (posix_memalign(&p, HUGE, bytes))
		return NULL;
	madvise(p, bytes, MADV_HUGEPAGE);
	*block = (struct cpu_block){p, bytes, 0, e->block};
	e->block = block;
	return block;
}

/* Matrices one after the other in blocks; what is never touched of the last is never there. */
static void *take_block(struct cpu_exec *e, size_t bytes)
{
	enum { BLOCK = 32 << 20, ALIGN = 64 };
	struct cpu_block *block = e->block;

	if (!block || bytes > block->bytes - block->used)
		block = open_block(e, bytes > BLOCK ? bytes : BLOCK);
	if (!block)
		return NULL;
	uint8_t *p = (uint8_t *)block->data + block->used;
	block->used += (bytes + ALIGN - 1) / ALIGN * ALIGN;
	return p;
}

struct cpu_mat *weights_pack(struct cpu_exec *e, wf_tensor *t, int64_t group)
{
	struct cpu_mat *m = wf_alloc(e->arena, sizeof *m);
	wf_arena *scratch = NULL;
	int64_t cols = wf_last(t), rows = wf_nelem(t) / cols;
	struct packing p = {.e = e, .m = m, .t = t, .row_bytes = wf_row_bytes(t->dtype, cols),
		.group = group ? group : rows};

	for (struct cpu_packed *have = e->packed; have; have = have->next)
		if (have->t == t)
			return have->m;
	p.pad = (p.group + PANEL - 1) / PANEL * PANEL;
	if (!m || cpu_mat_init(m, t->dtype, rows / p.group * p.pad, cols, e->base.err))
		return NULL;
	if ((t->ndim > 2 && t->op != &wf_op_weight) || !find_row(t, 0, p.row_bytes)) {
		struct wf_blob blob;
		scratch = wf_arena_new();
		if (!scratch || graph_constant_bytes(t, scratch, &blob))
			goto fail;
		p.dense = blob.data;
	}
	m->data = take_block(e, m->bytes);
	struct cpu_packed *kept = wf_alloc(e->arena, sizeof *kept);
	if (!m->data || !kept)
		goto fail;
	team_run(e->team, pack_panels, &p);
	*kept = (struct cpu_packed){t, m, e->packed};
	e->packed = kept;
	wf_arena_free(scratch);
	return m;
fail:
	wf_arena_free(scratch);
	wf_fail(e->base.err, "cpu: out of memory for %zu bytes of weights (%lld x %lld)", m->bytes,
		(long long)m->rows, (long long)m->cols);
	return NULL;
}

const void *weights_raw(struct cpu_exec *e, wf_tensor *t)
{
	struct wf_blob blob;

	return graph_constant_bytes(t, e->arena, &blob) ? NULL : blob.data;
}

const float *weights_f32(struct cpu_exec *e, wf_tensor *t)
{
	if (!t->data && graph_constant(t, e->arena))
		return NULL;
	return t->data;
}
