/* bind.c - the binding table of a step: packed on the host, one copy to the device.
 *
 *   struct table | token pos seq | row | seq_start seq_len | pages of each class, [nseq][stride]
 *
 * Only what a step uses is packed and sent; pointers inside the table lead to where it lies. */
#include "backends/cuda/cuda.h"

#ifdef WF_CUDA

#include <string.h>

enum { MAXPAGES = 4 << 20 };                  /* page numbers of a class in one step: 16 MiB */

static int64_t blocks_of(int64_t len, int page_tokens)
{
	return (len + page_tokens - 1) / page_tokens;
}

/* Page numbers of a class for n sequences.  Where every layer has a window, sequences outgrow the pages there are. */
static int64_t most_pages(const wf_slab *slab, int64_t ctx, int64_t n)
{
	int64_t blocks = blocks_of(ctx, wf_slab_page_tokens(slab)), pages;

	for (int c = 0; c < wf_slab_nclass(slab); c++)
		if (wf_slab_npage(slab, c) > blocks)
			blocks = wf_slab_npage(slab, c);
	return __builtin_mul_overflow(blocks + 1, n, &pages) || pages > MAXPAGES ? MAXPAGES : pages;
}

/* Words for penalised tokens: every sequence may have its fill, in reason. */
static int64_t counts_room(const wf_plan *plan)
{
	int64_t rows = plan->opt.max_rows < plan->opt.max_seqs ? plan->opt.max_rows : plan->opt.max_seqs;

	return 2 * TABLE_MAXCOUNT * (rows < 64 ? rows : 64);
}

size_t bind_bytes(const wf_plan *plan, const wf_slab *slab, int64_t ctx)
{
	int64_t words = 3 * plan->opt.max_tokens + plan->opt.max_rows + 2 * plan->opt.max_seqs + 1 +
		wf_slab_nclass(slab) * most_pages(slab, ctx, plan->opt.max_seqs) + counts_room(plan);

	return sizeof(struct table) + (size_t)words * 4 + (size_t)(10 + TABLE_MAXCLASS) * 16 +
		(size_t)plan->opt.max_rows * sizeof(struct table_pick);
}

int bind_open(struct cuda_exec *e)
{
	struct bind *b = &e->bind;

	if (wf_slab_nclass(e->opt.slab) > TABLE_MAXCLASS)
		return wf_fail(e->base.err, "cuda: %d kinds of KV cache, expected at most %d", wf_slab_nclass(e->opt.slab),
			TABLE_MAXCLASS);
	for (int i = 0; i < 2; i++)
		if (CU(e->base.err, cuMemHostAlloc((void **)&b->host[i], e->memory.table_bytes, 0)) ||
		    CU(e->base.err, cuEventCreate(&b->sent[i], CU_EVENT_DISABLE_TIMING)))
			return -1;
	return 0;
}

void bind_close(struct cuda_exec *e)
{
	for (int i = 0; i < 2; i++) {
		if (e->bind.host[i])
			cuda_driver.cuMemFreeHost(e->bind.host[i]);
		if (e->bind.sent[i])
			cuda_driver.cuEventDestroy(e->bind.sent[i]);
	}
}

struct packer { struct cuda_exec *e; char *host; size_t at; };

/* n words at the next multiple of 16 bytes; where they will be on the device. */
static int *reserve(struct packer *p, size_t n, const int **device)
{
	int *words = (int *)(void *)(p->host + p->at);

	*device = (const int *)(uintptr_t)(p->e->memory.table + p->at);
	p->at = (p->at + n * 4 + 15) / 16 * 16;
	return words;
}

static void pack(struct packer *p, const int32_t *from, size_t n, const int **device)
{
	int *to = reserve(p, n, device);

	if (n)
		memcpy(to, from, n * 4);
}

/* Blocks that some sequence of the step still sees or writes: [first, end). */
struct blocks { int64_t first, end; };

static struct blocks blocks_seen(const wf_slab *slab, const wf_batch *b, int c)
{
	struct blocks seen = {INT64_MAX, 1};

	for (int s = 0; s < b->nseq; s++) {
		int64_t first = seq_first(slab, c, b->seq_len[s] - (b->seq_start[s + 1] - b->seq_start[s]));
		int64_t end = blocks_of(b->seq_len[s], wf_slab_page_tokens(slab));
		seen.first = first < seen.first ? first : seen.first;
		seen.end = end > seen.end ? end : seen.end;
	}
	return b->nseq ? seen : (struct blocks){0, 1};
}

/* Rows of page numbers, of which what no sequence sees any more is left out: kernels count from block 0 all the same. */
static int pack_pages(struct packer *p, const wf_batch *b, int c, struct table *t)
{
	const wf_slab *slab = p->e->opt.slab;
	int nclass = wf_slab_nclass(slab), page_tokens = wf_slab_page_tokens(slab);
	struct blocks seen = blocks_seen(slab, b, c);
	int64_t stride = seen.end - seen.first, room = most_pages(slab, p->e->opt.ctx, p->e->base.plan->opt.max_seqs);

	if (stride * b->nseq > room)
		return wf_fail(p->e->base.err, "cuda: %d sequences of up to %lld pages, room for %lld page numbers", b->nseq,
			(long long)stride, (long long)room);
	int *page = reserve(p, (size_t)(stride * b->nseq), &t->kv[c].page);
	for (int s = 0; s < b->nseq; s++)
		memcpy(page + s * stride, b->page[s * nclass + c] + seen.first,
			(size_t)(blocks_of(b->seq_len[s], page_tokens) - seen.first) * 4);
	t->kv[c].page = (const int *)((uintptr_t)t->kv[c].page - (uintptr_t)seen.first * 4);
	t->kv[c].stride = (int)stride;
	t->kv[c].base = (unsigned char *)(uintptr_t)p->e->memory.kv_base[c];
	t->kv[c].bytes = slab_page_bytes(wf_slab_class(slab, c), page_tokens);
	return 0;
}

static void pack_seqs(struct packer *p, const wf_batch *b, struct table *t)
{
	int *seq = reserve(p, (size_t)b->ntoken, &t->seq);

	for (int s = 0; s < b->nseq; s++)
		for (int i = b->seq_start[s]; i < b->seq_start[s + 1]; i++)
			seq[i] = s;
}

static int pack_picks(struct packer *p, const wf_batch *b, struct table *t)
{
	const int *at;
	int64_t left = counts_room(p->e->base.plan);
	struct table_pick *to = (struct table_pick *)(void *)reserve(p, (size_t)b->nrow * sizeof *to / 4, &at);

	for (int r = 0; r < b->nrow; r++) {
		const struct wf_pick *from = &b->pick[r];
		to[r] = (struct table_pick){.temp = from->temp, .top_p = from->top_p, .min_p = from->min_p,
			.repeat = from->repeat, .presence = from->presence, .frequency = from->frequency,
			.draw = from->draw, .top_k = from->top_k, .ncount = from->ncount};
		left -= 2 * from->ncount;
		if (from->ncount > TABLE_MAXCOUNT || left < 0)
			return wf_fail(p->e->base.err, "cuda: %d tokens to penalise, room for %d", from->ncount, TABLE_MAXCOUNT);
		pack(p, (const int32_t *)from->count, 2 * (size_t)from->ncount, &to[r].count);
	}
	t->pick = (const struct table_pick *)(const void *)at;
	t->ring = ring_slot(p->e);
	return 0;
}

int bind_step(struct cuda_exec *e, const wf_batch *b)
{
	struct bind *bind = &e->bind;
	int turn = bind->turn++ % 2;
	struct packer p = {e, bind->host[turn], sizeof(struct table)};
	struct table *t = (struct table *)(void *)p.host;

	if (CU(e->base.err, cuEventSynchronize(bind->sent[turn])))
		return -1;
	*t = (struct table){.ntoken = b->ntoken, .nseq = b->nseq, .nrow = b->nrow,
		.page_tokens = wf_slab_page_tokens(e->opt.slab), .chosen = (const int *)(uintptr_t)e->memory.chosen};
	p.at = (p.at + 15) / 16 * 16;
	pack(&p, b->token, (size_t)b->ntoken, &t->token);
	pack(&p, b->pos, (size_t)b->ntoken, &t->pos);
	pack_seqs(&p, b, t);
	pack(&p, b->row, (size_t)b->nrow, &t->row);
	pack(&p, b->seq_start, (size_t)b->nseq + 1, &t->seq_start);
	pack(&p, b->seq_len, (size_t)b->nseq, &t->seq_len);
	for (int c = 0; c < wf_slab_nclass(e->opt.slab); c++)
		if (pack_pages(&p, b, c, t))
			return -1;
	if (b->pick && pack_picks(&p, b, t))
		return -1;
	return CU(e->base.err, cuMemcpyHtoDAsync(e->memory.table, p.host, p.at, e->stream)) ||
		CU(e->base.err, cuEventRecord(bind->sent[turn], e->stream)) ? -1 : 0;
}

#endif
