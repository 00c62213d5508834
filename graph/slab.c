/* slab.c - the KV allocator: pages of one size per class, counted and never moved.
 *
 * A page is free, held by one or more sequences, or cached: held by none but still findable by its
 * tokens until the space is needed.  Both lists are doubly linked through the pages, so taking,
 * giving back and picking a certain free page are O(1).  Page numbers are all there is: whoever
 * runs the step turns them into addresses.  Calls are not synchronised: one thread owns a slab. */
#include "graph/slab.h"

#include <stdlib.h>
#include <string.h>

/* ---- sizes ---- */

static bool mul(size_t *a, size_t b)
{
	return !__builtin_mul_overflow(*a, b, a);
}

static bool layer_bytes(const struct wf_kvclass *c, int page_tokens, size_t *bytes)
{
	const struct wf_dtype_info *t = &wf_dtypes[c->dtype];

	if (c->kdim % t->block || c->vdim % t->block)
		return false;
	*bytes = (size_t)(c->kdim / t->block) + (size_t)(c->vdim / t->block);
	return mul(bytes, (size_t)t->bytes) && mul(bytes, (size_t)c->nkv) && mul(bytes, (size_t)page_tokens);
}

size_t slab_layer_bytes(const struct wf_kvclass *c, int page_tokens)
{
	size_t bytes;

	return layer_bytes(c, page_tokens, &bytes) ? bytes : 0;
}

size_t slab_page_bytes(const struct wf_kvclass *c, int page_tokens)
{
	size_t bytes;

	return layer_bytes(c, page_tokens, &bytes) && mul(&bytes, (size_t)c->nlayer) ? bytes : 0;
}

/* ---- lists ---- */

void slab_push(struct pool *pool, struct list *list, int32_t p, bool front)
{
	struct page *page = pool->page;

	page[p].prev = front ? NONE : list->last;
	page[p].next = front ? list->first : NONE;
	if (page[p].prev == NONE)
		list->first = p;
	else
		page[page[p].prev].next = p;
	if (page[p].next == NONE)
		list->last = p;
	else
		page[page[p].next].prev = p;
	list->n++;
}

static void unlink_page(struct pool *pool, struct list *list, int32_t p)
{
	struct page *page = pool->page;

	if (page[p].prev == NONE)
		list->first = page[p].next;
	else
		page[page[p].prev].next = page[p].next;
	if (page[p].next == NONE)
		list->last = page[p].prev;
	else
		page[page[p].next].prev = page[p].prev;
	list->n--;
}

/* ---- pages ---- */

static bool is_free(const struct pool *pool, int32_t p)
{
	return p >= 0 && p < pool->npage && !pool->page[p].refs && pool->page[p].node == NONE;
}

int32_t slab_take(wf_slab *s, int cls, int32_t wanted)
{
	struct pool *pool = &s->pool[cls];
	int32_t p = is_free(pool, wanted) ? wanted : pool->free.first;

	if (p == NONE) {
		p = pool->cached.first;
		unlink_page(pool, &pool->cached, p);
		prefix_forget(s, cls, p);
		pool->evictions++;
	} else {
		unlink_page(pool, &pool->free, p);
	}
	pool->page[p].refs = 1;
	pool->nheld++;
	return p;
}

void slab_hold(wf_slab *s, int cls, int32_t p)
{
	struct pool *pool = &s->pool[cls];
	int32_t refs = pool->page[p].refs++;

	if (refs == 0) {
		unlink_page(pool, &pool->cached, p);
		pool->nheld++;
	}
	pool->nshared += refs == 1;
}

/* Free pages go to the front: a sequence that gives its pages back from the last to the first leaves
 * a run in ascending order for the next one. */
void slab_drop(wf_slab *s, int cls, int32_t p)
{
	struct pool *pool = &s->pool[cls];
	int32_t refs = --pool->page[p].refs;

	pool->nshared -= refs == 1;
	if (refs > 0)
		return;
	pool->nheld--;
	if (pool->page[p].node == NONE)
		slab_push(pool, &pool->free, p, true);
	else
		slab_push(pool, &pool->cached, p, false);
}

/* ---- the slab ---- */

static int add_pages(struct pool *pool, int64_t npage)
{
	int64_t total;

	if (npage < 0 || __builtin_add_overflow(npage, pool->npage, &total) || total > INT32_MAX)
		return -1;
	struct page *page = realloc(pool->page, ((size_t)total + 1) * sizeof *page);
	if (!page)
		return -1;
	pool->page = page;
	for (int32_t p = pool->npage; p < total; p++) {
		page[p] = (struct page){.node = NONE};
		slab_push(pool, &pool->free, p, false);
	}
	pool->npage = (int32_t)total;
	return 0;
}

int wf_slab_grow(wf_slab *s, int cls, int64_t npage)
{
	int64_t total;

	if (npage < 0 || __builtin_add_overflow(npage, s->prefix.nnode, &total))
		return -1;
	return prefix_grow(s, total) < 0 ? -1 : add_pages(&s->pool[cls], npage);
}

static int check_class(wf_error *err, const struct wf_kvclass *c, int i, int page_tokens, int64_t npage)
{
	size_t bytes;

	if (c->nkv < 1 || c->kdim < 1 || c->vdim < 1 || c->window < 0 || c->nlayer < 0
			|| (unsigned)c->dtype >= WF_NDTYPE)
		return wf_fail(err, "KV class %d: expected heads and dims of at least 1 and a window of at least 0, "
			"found %d heads of %d and %d, window %d", i, c->nkv, c->kdim, c->vdim, c->window);
	if (!layer_bytes(c, page_tokens, &bytes) || !mul(&bytes, (size_t)c->nlayer))
		return wf_fail(err, "KV class %d: heads of %d and %d do not fit type %s or overflow", i, c->kdim, c->vdim,
			wf_dtypes[c->dtype].name);
	if (npage < 0 || npage > INT32_MAX || !mul(&bytes, (size_t)npage))
		return wf_fail(err, "KV class %d: expected 0 to %d pages that fit memory, found %lld", i, INT32_MAX,
			(long long)npage);
	return 0;
}

static int open_pool(struct pool *pool, const struct wf_kvclass *c, int64_t npage)
{
	size_t bytes = (size_t)c->nlayer * sizeof *c->layer;

	pool->free = pool->cached = (struct list){NONE, NONE, 0};
	pool->info = *c;
	pool->info.layer = malloc(bytes + 1);
	if (!pool->info.layer)
		return -1;
	if (bytes && c->layer)
		memcpy(pool->info.layer, c->layer, bytes);
	return add_pages(pool, npage);
}

wf_slab *wf_slab_new(wf_error *err, const struct wf_kvclass *class, int nclass, int page_tokens, const int64_t *npage)
{
	int64_t total = 0;

	if (nclass < 0 || page_tokens < 1 || page_tokens > 1 << 20) {
		wf_fail(err, "KV slab: expected pages of 1 to %d tokens, found %d", 1 << 20, page_tokens);
		return NULL;
	}
	for (int c = 0; c < nclass; total += npage[c++])
		if (check_class(err, &class[c], c, page_tokens, npage[c]) < 0)
			return NULL;
	wf_slab *s = calloc(1, sizeof *s);
	if (!s)
		goto fail;
	s->page_tokens = page_tokens;
	s->pool = calloc((size_t)nclass + 1, sizeof *s->pool);
	s->copy = calloc((size_t)nclass + 1, sizeof *s->copy);
	if (!s->pool || !s->copy)
		goto fail;
	for (s->nclass = 0; s->nclass < nclass; s->nclass++)
		if (open_pool(&s->pool[s->nclass], &class[s->nclass], npage[s->nclass]) < 0)
			goto fail;
	if (prefix_grow(s, total) < 0)
		goto fail;
	return s;
fail:
	wf_slab_free(s);
	wf_fail(err, "KV slab: out of host memory for the books of %lld pages", (long long)total);
	return NULL;
}

void wf_slab_free(wf_slab *s)
{
	if (!s)
		return;
	while (s->seqs)
		wf_seq_free(s, s->seqs);
	/* a class that failed to open stands at pool[nclass], zeroed or half made */
	for (struct pool *pool = s->pool; pool && pool <= s->pool + s->nclass; pool++) {
		free(pool->info.layer);
		free(pool->page);
	}
	prefix_close(s);
	free(s->pool);
	free(s->copy);
	free(s);
}

int wf_slab_nclass(const wf_slab *s)
{
	return s->nclass;
}

int wf_slab_page_tokens(const wf_slab *s)
{
	return s->page_tokens;
}

const struct wf_kvclass *wf_slab_class(const wf_slab *s, int cls)
{
	return &s->pool[cls].info;
}

int64_t wf_slab_npage(const wf_slab *s, int cls)
{
	return s->pool[cls].npage;
}

/* ---- statistics ---- */

/* The partial last page of a sequence, NULL when it has none. */
static struct page *tail(const wf_slab *s, const wf_seq *q, int cls)
{
	if (q->len % s->page_tokens == 0)
		return NULL;
	return &s->pool[cls].page[q->page[(int64_t)cls * q->cap + q->nblock - 1]];
}

/* Tokens that held pages have room for and no holder uses.  Only last pages can be partial, and one
 * that several sequences hold counts once, by the holder that uses most of it.  Held pages are in no
 * list: prev counts the holders met that have it as their last, next the most tokens any of these has. */
static int64_t slack(const wf_slab *s, int cls)
{
	struct page *page;
	int64_t tokens = 0;

	for (const wf_seq *q = s->seqs; q; q = q->next)
		if ((page = tail(s, q, cls)))
			page->prev = page->next = 0;
	for (const wf_seq *q = s->seqs; q; q = q->next) {
		int32_t fill = (int32_t)(q->len % s->page_tokens);
		if (!(page = tail(s, q, cls)))
			continue;
		if (fill > page->next)
			page->next = fill;
		if (++page->prev == page->refs)
			tokens += s->page_tokens - page->next;
	}
	return tokens;
}

void wf_slab_stats(const wf_slab *s, int cls, struct wf_slab_stats *out)
{
	const struct pool *pool = &s->pool[cls];
	int64_t bytes = (int64_t)slab_page_bytes(&pool->info, s->page_tokens);

	*out = (struct wf_slab_stats){
		.pages = pool->npage, .free = pool->free.n, .held = pool->nheld, .cached = pool->cached.n,
		.shared = pool->nshared, .bytes_held = pool->nheld * bytes,
		.bytes_used = pool->nheld * bytes - slack(s, cls) * (bytes / s->page_tokens),
		.hits = pool->hits, .misses = pool->misses, .evictions = pool->evictions, .cows = pool->cows,
	};
}
