/* slab_verify.c - every count of a slab recomputed from what it counts.
 *
 * needs: nothing. keeps: everything.  For tests and debug builds: time and memory of the whole slab. */
#include "graph/slab.h"

#include <stdlib.h>
#include <string.h>

struct check {
	const wf_slab *s;
	wf_error *err;
	int32_t *count;               /* [npage or nnode], zeroed by reset() */
};

static int reset(struct check *k, int32_t n)
{
	free(k->count);
	k->count = calloc((size_t)n + 1, sizeof *k->count);
	return k->count ? 0 : wf_fail(k->err, "slab: out of memory to verify %d entries", n);
}

static int check_seq(struct check *k, const wf_seq *q, int c)
{
	const wf_slab *s = k->s;
	const int32_t *page = &q->page[(int64_t)c * q->cap];

	if (q->nblock != (q->len + s->page_tokens - 1) / s->page_tokens || q->nblock > q->cap)
		return wf_fail(k->err, "slab: %lld tokens in %d blocks of %d, room for %d", (long long)q->len, q->nblock,
			s->page_tokens, q->cap);
	if (q->first[c] > seq_first(s, c, q->len))
		return wf_fail(k->err, "slab: class %d starts at block %d, the next token sees %d", c, q->first[c],
			seq_first(s, c, q->len));
	for (int32_t i = 0; i < q->nblock; i++) {
		if ((i < q->first[c]) != (page[i] == NONE) || page[i] < NONE || page[i] >= s->pool[c].npage)
			return wf_fail(k->err, "slab: class %d has page %d for block %d, first held is %d", c, page[i], i,
				q->first[c]);
		if (page[i] != NONE)
			k->count[page[i]]++;
	}
	return 0;
}

/* Each page of the list is what the list is for, and linked both ways. */
static int check_list(struct check *k, int c, const struct list *list, bool published)
{
	const struct pool *pool = &k->s->pool[c];
	int32_t n = 0, before = NONE;

	for (int32_t p = list->first; p != NONE; before = p, p = pool->page[p].next) {
		if (n++ == pool->npage || pool->page[p].refs || pool->page[p].prev != before
				|| (pool->page[p].node != NONE) != published)
			return wf_fail(k->err, "slab: class %d, page %d does not belong in its list", c, p);
	}
	if (n != list->n || before != list->last)
		return wf_fail(k->err, "slab: class %d lists %d pages, counts %d", c, n, list->n);
	return 0;
}

static int check_pool(struct check *k, int c)
{
	const struct pool *pool = &k->s->pool[c];
	int32_t held = 0, shared = 0;

	if (reset(k, pool->npage) < 0)
		return -1;
	for (const wf_seq *q = k->s->seqs; q; q = q->next)
		if (check_seq(k, q, c) < 0)
			return -1;
	for (int32_t p = 0; p < pool->npage; p++) {
		const struct page *page = &pool->page[p];
		if (page->refs != k->count[p])
			return wf_fail(k->err, "slab: class %d, page %d counts %d sequences, %d hold it", c, p, page->refs,
				k->count[p]);
		if (page->node != NONE && k->s->prefix.page[(int64_t)page->node * k->s->nclass + c] != p)
			return wf_fail(k->err, "slab: class %d, page %d is not under its node %d", c, p, page->node);
		held += page->refs > 0;
		shared += page->refs > 1;
	}
	if (held != pool->nheld || shared != pool->nshared || held + pool->free.n + pool->cached.n != pool->npage)
		return wf_fail(k->err, "slab: class %d counts %d held, %d shared, %d free, %d cached of %d; found %d and %d", c,
			pool->nheld, pool->nshared, pool->free.n, pool->cached.n, pool->npage, held, shared);
	return check_list(k, c, &pool->free, false) < 0 ? -1 : check_list(k, c, &pool->cached, true);
}

static int check_node(struct check *k, int32_t i)
{
	const wf_slab *s = k->s;
	const struct node *node = &s->prefix.node[i];
	int32_t npage = 0;

	for (int c = 0; c < s->nclass; c++) {
		int32_t p = s->prefix.page[(int64_t)i * s->nclass + c];
		if (p != NONE && (p < 0 || p >= s->pool[c].npage || s->pool[c].page[p].node != i))
			return wf_fail(k->err, "slab: node %d lists page %d of class %d, which is not its own", i, p, c);
		npage += p != NONE;
	}
	if (npage != node->npage || k->count[i] != node->refs || (!npage && !node->refs))
		return wf_fail(k->err, "slab: node %d counts %d pages and %d references, found %d and %d", i, node->npage,
			node->refs, npage, k->count[i]);
	if (node->hash != prefix_hash(s, node->parent, &s->prefix.token[(int64_t)i * s->page_tokens]))
		return wf_fail(k->err, "slab: node %d does not match its hash", i);
	return 0;
}

static int count_tips(struct check *k)
{
	for (const wf_seq *q = k->s->seqs; q; q = q->next) {
		int32_t depth = 0;
		for (int32_t i = q->tip; i != NONE && depth <= q->npub; i = k->s->prefix.node[i].parent)
			depth++;
		if (depth != q->npub || q->npub > q->len / k->s->page_tokens)
			return wf_fail(k->err, "slab: %d blocks published, tip at depth %d, %lld tokens", q->npub, depth,
				(long long)q->len);
		if (q->tip != NONE)
			k->count[q->tip]++;
	}
	return 0;
}

static int check_prefix(struct check *k)
{
	const struct prefix *x = &k->s->prefix;
	int32_t n = 0;

	if (reset(k, x->nnode) < 0 || count_tips(k) < 0)
		return -1;
	for (int32_t b = 0; b < x->nbucket; b++)
		for (int32_t i = x->bucket[b]; i != NONE; i = x->node[i].next, n++) {
			if (n == x->nnode || (x->node[i].hash & (uint64_t)(x->nbucket - 1)) != (uint64_t)b)
				return wf_fail(k->err, "slab: node %d is in the wrong bucket", i);
			if (x->node[i].parent != NONE)
				k->count[x->node[i].parent]++;
		}
	for (int32_t b = 0; b < x->nbucket; b++)
		for (int32_t i = x->bucket[b]; i != NONE; i = x->node[i].next)
			if (check_node(k, i) < 0)
				return -1;
	for (int32_t i = x->free; i != NONE && n <= x->nnode; i = x->node[i].next)
		n++;
	return n == x->nnode ? 0 : wf_fail(k->err, "slab: %d nodes used and free, of %d", n, x->nnode);
}

int slab_verify(const wf_slab *s, wf_error *err)
{
	struct check k = {s, err, NULL};
	int rc = check_prefix(&k);

	for (int c = 0; c < s->nclass && rc == 0; c++)
		rc = check_pool(&k, c);
	free(k.count);
	return rc;
}
