/* prefix.c - finding pages by the tokens they hold.
 *
 * A tree of blocks over all sequences, dead ones too: a node is one full block of tokens after the
 * block of its parent, and lists the page that holds it in every class.  A node lives while it has a
 * page, a child or a sequence whose published part ends there; it may outlive its own pages, so a
 * window class finds its last pages long after the first are gone.  Nodes come from a pool as large
 * as the slab has pages; when that is used up, publishing stops until some are evicted. */
#include "graph/slab.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* ---- the table ---- */

static int32_t *bucket(const struct prefix *x, uint64_t hash)
{
	return &x->bucket[hash & (uint64_t)(x->nbucket - 1)];
}

static int grow_bucket(struct prefix *x, int64_t nnode)
{
	int64_t n = x->nbucket ? x->nbucket : 16;

	while (n < nnode)
		n *= 2;
	if (n == x->nbucket)
		return 0;
	int32_t *fresh = n <= INT32_MAX ? malloc((size_t)n * sizeof *fresh) : NULL;
	if (!fresh)
		return -1;
	int32_t *old = x->bucket, nold = x->nbucket;
	memset(fresh, 0xff, (size_t)n * sizeof *fresh);
	x->bucket = fresh;
	x->nbucket = (int32_t)n;
	for (int32_t b = 0; b < nold; b++)
		for (int32_t i = old[b], next; i != NONE; i = next) {
			next = x->node[i].next;
			x->node[i].next = *bucket(x, x->node[i].hash);
			*bucket(x, x->node[i].hash) = i;
		}
	free(old);
	return 0;
}

/* Arrays that grew before one that could not are only larger than they need be. */
static int grow_array(int32_t **array, int64_t n, int each)
{
	size_t bytes;

	if (__builtin_mul_overflow((size_t)n + 1, (size_t)each * sizeof **array, &bytes))
		return -1;
	int32_t *grown = realloc(*array, bytes + 1);
	if (!grown)
		return -1;
	*array = grown;
	return 0;
}

int prefix_grow(wf_slab *s, int64_t nnode)
{
	struct prefix *x = &s->prefix;

	if (nnode > INT32_MAX || grow_array(&x->page, nnode, s->nclass) < 0
			|| grow_array(&x->token, nnode, s->page_tokens) < 0)
		return -1;
	struct node *node = realloc(x->node, ((size_t)nnode + 1) * sizeof *node);
	if (!node)
		return -1;
	x->node = node;
	if (grow_bucket(x, nnode) < 0)
		return -1;
	if (x->nnode == 0)
		x->free = NONE;
	for (int32_t i = (int32_t)nnode; i-- > x->nnode; x->free = i)
		node[i] = (struct node){.next = x->free};
	x->nnode = (int32_t)nnode;
	return 0;
}

void prefix_close(wf_slab *s)
{
	free(s->prefix.node);
	free(s->prefix.page);
	free(s->prefix.token);
	free(s->prefix.bucket);
}

/* ---- nodes ---- */

static int32_t *page_of(const wf_slab *s, int32_t node, int cls)
{
	return &s->prefix.page[(int64_t)node * s->nclass + cls];
}

static int32_t *tokens_of(const wf_slab *s, int32_t node)
{
	return &s->prefix.token[(int64_t)node * s->page_tokens];
}

static size_t block_bytes(const wf_slab *s)
{
	return (size_t)s->page_tokens * sizeof *s->prefix.token;
}

uint64_t prefix_hash(const wf_slab *s, int32_t parent, const int32_t *token)
{
	return XXH3_64bits_withSeed(token, block_bytes(s), parent == NONE ? 0 : s->prefix.node[parent].hash);
}

static int32_t find(const wf_slab *s, int32_t parent, const int32_t *token)
{
	const struct prefix *x = &s->prefix;
	uint64_t hash = prefix_hash(s, parent, token);
	int32_t i = *bucket(x, hash);

	while (i != NONE && (x->node[i].hash != hash || x->node[i].parent != parent
			|| memcmp(tokens_of(s, i), token, block_bytes(s))))
		i = x->node[i].next;
	return i;
}

static int32_t add(wf_slab *s, int32_t parent, const int32_t *token)
{
	struct prefix *x = &s->prefix;
	int32_t i = x->free;

	if (i == NONE)
		return NONE;
	x->free = x->node[i].next;
	x->node[i] = (struct node){.hash = prefix_hash(s, parent, token), .parent = parent};
	x->node[i].next = *bucket(x, x->node[i].hash);
	*bucket(x, x->node[i].hash) = i;
	memcpy(tokens_of(s, i), token, block_bytes(s));
	for (int c = 0; c < s->nclass; c++)
		*page_of(s, i, c) = NONE;
	prefix_hold(s, parent);
	return i;
}

/* Free a node nobody needs, and the ancestors that were there for it alone. */
static void prune(wf_slab *s, int32_t i)
{
	struct prefix *x = &s->prefix;

	while (i != NONE && !x->node[i].refs && !x->node[i].npage) {
		int32_t parent = x->node[i].parent, *link = bucket(x, x->node[i].hash);
		while (*link != i)
			link = &x->node[*link].next;
		*link = x->node[i].next;
		x->node[i].next = x->free;
		x->free = i;
		if (parent != NONE)
			x->node[parent].refs--;
		i = parent;
	}
}

void prefix_hold(wf_slab *s, int32_t i)
{
	if (i != NONE)
		s->prefix.node[i].refs++;
}

void prefix_release(wf_slab *s, int32_t i)
{
	if (i == NONE)
		return;
	s->prefix.node[i].refs--;
	prune(s, i);
}

void prefix_forget(wf_slab *s, int cls, int32_t p)
{
	struct page *page = &s->pool[cls].page[p];
	int32_t i = page->node;

	page->node = NONE;
	*page_of(s, i, cls) = NONE;
	s->prefix.node[i].npage--;
	prune(s, i);
}

/* ---- sharing ---- */

/* Does every class have what the token after block i sees?  *dead: nor can it after any later block. */
static bool usable(wf_slab *s, int32_t node, int32_t i, bool *dead)
{
	bool all = true;

	for (int c = 0; c < s->nclass; c++) {
		struct pool *pool = &s->pool[c];
		pool->run = *page_of(s, node, c) == NONE ? 0 : pool->run + 1;
		all &= pool->run >= i + 1 - seq_first(s, c, (int64_t)(i + 1) * s->page_tokens);
		*dead |= !pool->run && !pool->info.window;
	}
	return all;
}

/* The longest usable prefix of at most `most` blocks; *node is its last block. */
static int32_t longest(wf_slab *s, const int32_t *token, int32_t most, int32_t *node)
{
	int32_t best = 0, at = NONE;
	bool dead = false;

	for (int c = 0; c < s->nclass; c++)
		s->pool[c].run = 0;
	for (int32_t i = 0; i < most && !dead; i++) {
		at = find(s, at, token + (int64_t)i * s->page_tokens);
		if (at == NONE)
			break;
		if (usable(s, at, i, &dead)) {
			best = i + 1;
			*node = at;
		}
	}
	return best;
}

static void attach(wf_slab *s, wf_seq *q, int32_t nblock, int32_t node)
{
	q->len = (int64_t)nblock * s->page_tokens;
	q->nblock = q->npub = nblock;
	q->tip = node;
	prefix_hold(s, node);
	for (int c = 0; c < s->nclass; c++)
		q->first[c] = seq_first(s, c, q->len);
	for (int32_t i = nblock; i-- > 0; node = s->prefix.node[node].parent)
		for (int c = 0; c < s->nclass; c++) {
			int32_t *page = &q->page[(int64_t)c * q->cap + i];
			*page = NONE;
			if (i < q->first[c])
				continue;
			*page = *page_of(s, node, c);
			slab_hold(s, c, *page);
		}
}

int64_t wf_seq_match(wf_slab *s, wf_seq *q, const int32_t *token, int64_t n)
{
	int32_t node = NONE;

	if (q->len || n < 1)
		return 0;
	int64_t most = (n - 1) / s->page_tokens;
	if (most > s->prefix.nnode)                     /* no chain is longer */
		most = s->prefix.nnode;
	int32_t nblock = longest(s, token, (int32_t)most, &node);
	if (seq_room(s, q, nblock) < 0)
		nblock = 0;
	if (nblock)
		attach(s, q, nblock, node);
	for (int c = 0; c < s->nclass; c++) {
		s->pool[c].hits += nblock - (nblock ? q->first[c] : 0);
		s->pool[c].misses += (n - 1) / s->page_tokens - nblock;
	}
	return q->len;
}

/* Put block i's pages under its node.  Where another sequence came first its page is taken and our
 * own, with the same contents, given back.  False when a page stands for other tokens already. */
static bool file(wf_slab *s, wf_seq *q, int32_t i, int32_t node)
{
	for (int c = 0; c < s->nclass; c++) {
		int32_t *own = &q->page[(int64_t)c * q->cap + i], *have = page_of(s, node, c);
		if (*own == NONE || *own == *have)
			continue;
		if (s->pool[c].page[*own].node != NONE)
			return false;
		if (*have == NONE) {
			*have = *own;
			s->pool[c].page[*own].node = node;
			s->prefix.node[node].npage++;
		} else {
			slab_hold(s, c, *have);
			slab_drop(s, c, *own);
			*own = *have;
		}
	}
	return true;
}

void wf_seq_publish(wf_slab *s, wf_seq *q, const int32_t *token, int64_t n)
{
	for (int64_t full = (n < q->len ? n : q->len) / s->page_tokens; q->npub < full; q->npub++) {
		const int32_t *block = token + (int64_t)q->npub * s->page_tokens;
		int32_t node = find(s, q->tip, block);
		if (node == NONE)
			node = add(s, q->tip, block);
		if (node == NONE)
			return;
		prefix_hold(s, node);
		if (!file(s, q, q->npub, node)) {
			prefix_release(s, node);
			return;
		}
		prefix_release(s, q->tip);
		q->tip = node;
	}
}
