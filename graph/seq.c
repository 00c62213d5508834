/* seq.c - sequences: which pages hold a request's tokens.
 *
 * All classes have one page entry per block of tokens, in one array [class][block], so growing it is
 * one allocation.  wf_seq_reserve() does that ahead of the step; past the reserve it doubles.  A
 * page is written only by the one sequence that holds it and only while it is not published: a
 * sequence about to write another page copies it first, or takes it out of the tree. */
#include "graph/slab.h"

#include <stdlib.h>
#include <string.h>

enum { FIRSTCAP = 16 };

/* ---- blocks ---- */

/* The token at position len sees itself and window - 1 before it. */
int32_t seq_first(const wf_slab *s, int cls, int64_t len)
{
	int window = s->pool[cls].info.window;

	return window && len >= window ? (int32_t)((len + 1 - window) / s->page_tokens) : 0;
}

static int32_t *page_at(const wf_seq *q, int cls, int32_t block)
{
	return &q->page[(int64_t)cls * q->cap + block];
}

/* -1 when there are more blocks than page numbers. */
static int64_t nblocks(const wf_slab *s, int64_t len)
{
	int64_t n = len / s->page_tokens + (len % s->page_tokens != 0);

	return n <= INT32_MAX / 2 ? n : -1;
}

static int set_cap(const wf_slab *s, wf_seq *q, int32_t cap)
{
	size_t n;

	if (__builtin_mul_overflow((size_t)cap, (size_t)s->nclass, &n) || n > SIZE_MAX / sizeof *q->page - 1)
		return -1;
	int32_t *page = malloc((n + 1) * sizeof *page);
	if (!page)
		return -1;
	for (int c = 0; c < s->nclass && q->nblock; c++)
		memcpy(&page[(int64_t)c * cap], page_at(q, c, 0), (size_t)q->nblock * sizeof *page);
	free(q->page);
	q->page = page;
	q->cap = cap;
	return 0;
}

int seq_room(const wf_slab *s, wf_seq *q, int32_t nblock)
{
	if (nblock <= q->cap)
		return 0;
	return set_cap(s, q, nblock > 2 * q->cap ? nblock : 2 * q->cap);
}

/* ---- life ---- */

static wf_seq *seq_alloc(wf_slab *s, int32_t cap)
{
	wf_seq *q = calloc(1, sizeof *q + (size_t)s->nclass * sizeof q->first[0]);

	if (!q)
		return NULL;
	q->tip = NONE;
	if (set_cap(s, q, cap) < 0) {
		free(q);
		return NULL;
	}
	q->next = s->seqs;
	if (q->next)
		q->next->prev = q;
	s->seqs = q;
	return q;
}

wf_seq *wf_seq_new(wf_slab *s)
{
	return seq_alloc(s, FIRSTCAP);
}

int wf_seq_reserve(wf_slab *s, wf_seq *q, int64_t len)
{
	int64_t n = nblocks(s, len);

	if (n < 0)
		return -1;
	return n <= q->cap ? 0 : set_cap(s, q, (int32_t)n);
}

void wf_seq_free(wf_slab *s, wf_seq *q)
{
	if (!q)
		return;
	wf_seq_truncate(s, q, 0);
	if (q->prev)
		q->prev->next = q->next;
	else
		s->seqs = q->next;
	if (q->next)
		q->next->prev = q->prev;
	free(q->page);
	free(q);
}

wf_seq *wf_seq_fork(wf_slab *s, const wf_seq *from)
{
	wf_seq *q = seq_alloc(s, from->cap);

	if (!q)
		return NULL;
	q->len = from->len;
	q->nblock = from->nblock;
	q->tip = from->tip;
	q->npub = from->npub;
	prefix_hold(s, q->tip);
	for (int c = 0; c < s->nclass; c++) {
		q->first[c] = from->first[c];
		if (q->nblock)
			memcpy(page_at(q, c, 0), page_at(from, c, 0), (size_t)q->nblock * sizeof *q->page);
		for (int32_t i = q->first[c]; i < q->nblock; i++)
			slab_hold(s, c, *page_at(q, c, i));
	}
	return q;
}

/* ---- growing ---- */

/* The page that the next token is written to, when there is one already. */
static const struct page *partial(const wf_slab *s, const wf_seq *q, int cls)
{
	if (q->len % s->page_tokens == 0)
		return NULL;
	return &s->pool[cls].page[*page_at(q, cls, q->nblock - 1)];
}

static bool has_pages(const wf_slab *s, const wf_seq *q, int cls, int64_t nblock)
{
	const struct pool *pool = &s->pool[cls];
	const struct page *last = partial(s, q, cls);
	int64_t have = pool->free.n + pool->cached.n, need = nblock - q->nblock + (last && last->refs > 1);

	for (int32_t i = q->first[cls], end = seq_first(s, cls, q->len); i < end && have < need; i++)
		have += pool->page[*page_at(q, cls, i)].refs == 1;
	return need <= have;
}

/* Give back what lies before the window of the next token. */
static void slide(wf_slab *s, wf_seq *q, int cls)
{
	for (int32_t end = seq_first(s, cls, q->len); q->first[cls] < end; q->first[cls]++) {
		int32_t *page = page_at(q, cls, q->first[cls]);
		slab_drop(s, cls, *page);
		*page = NONE;
	}
}

/* Make the partial page the sequence's own; the contents to copy, if any, go to s->copy. */
static int own_partial(wf_slab *s, wf_seq *q, int cls, int ncopy)
{
	const struct page *last = partial(s, q, cls);

	if (!last)
		return ncopy;
	int32_t *page = page_at(q, cls, q->nblock - 1), from = *page;
	if (last->refs > 1) {
		*page = slab_take(s, cls, NONE);
		slab_drop(s, cls, from);
		s->pool[cls].cows++;
		s->copy[ncopy++] = (struct wf_slab_copy){cls, from, *page};
	} else if (last->node != NONE) {
		prefix_forget(s, cls, from);
	}
	return ncopy;
}

static void take(wf_slab *s, wf_seq *q, int cls, int32_t nblock)
{
	for (int32_t i = q->nblock; i < nblock; i++) {
		int32_t before = i ? *page_at(q, cls, i - 1) : NONE;
		*page_at(q, cls, i) = slab_take(s, cls, before == NONE ? NONE : before + 1);
	}
}

int wf_seq_extend(wf_slab *s, wf_seq *q, int64_t n, const struct wf_slab_copy **copy, int *ncopy)
{
	int64_t len, nblock;

	*copy = s->copy;
	*ncopy = 0;
	if (n < 0 || __builtin_add_overflow(q->len, n, &len) || (nblock = nblocks(s, len)) < 0)
		return -1;
	for (int c = 0; c < s->nclass; c++)
		if (n && !has_pages(s, q, c, nblock))
			return -1;
	if (seq_room(s, q, (int32_t)nblock) < 0)
		return -1;
	for (int c = 0; c < s->nclass; c++) {
		slide(s, q, c);
		if (n)
			*ncopy = own_partial(s, q, c, *ncopy);
		take(s, q, c, (int32_t)nblock);
	}
	q->len = len;
	q->nblock = (int32_t)nblock;
	return 0;
}

/* ---- shrinking ---- */

void seq_rewind(wf_slab *s, wf_seq *q, int32_t npub)
{
	for (; q->npub > npub; q->npub--) {
		int32_t parent = s->prefix.node[q->tip].parent;
		prefix_hold(s, parent);
		prefix_release(s, q->tip);
		q->tip = parent;
	}
}

int64_t wf_seq_truncate(wf_slab *s, wf_seq *q, int64_t len)
{
	if (len >= q->len)
		return q->len;
	if (len < 0)
		len = 0;
	for (int c = 0; c < s->nclass; c++)
		if (seq_first(s, c, len) < q->first[c])
			len = 0;
	int32_t nblock = (int32_t)nblocks(s, len);
	for (int c = 0; c < s->nclass; c++) {
		for (int32_t i = q->nblock; i > nblock && i > q->first[c]; i--)
			slab_drop(s, c, *page_at(q, c, i - 1));
		if (q->first[c] > nblock)
			q->first[c] = nblock;
	}
	q->len = len;
	q->nblock = nblock;
	seq_rewind(s, q, (int32_t)(len / s->page_tokens));
	return len;
}

/* ---- reading ---- */

int64_t wf_seq_len(const wf_seq *q)
{
	return q->len;
}

const int32_t *wf_seq_pages(const wf_seq *q, int cls, int *n)
{
	*n = q->nblock;
	return page_at(q, cls, 0);
}

bool wf_seq_adjacent(const wf_seq *q, int cls)
{
	const int32_t *page = page_at(q, cls, 0);

	for (int32_t i = 0; i < q->nblock; i++)
		if (page[i] == NONE || page[i] != page[0] + i)
			return false;
	return true;
}
