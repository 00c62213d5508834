/* slab.h - what slab.c, seq.c, prefix.c and slab_verify.c share.
 *
 * The one header beside graph.h: the slab stays opaque to everyone else, callers hold page numbers.
 *
 *            take                    drop, published           drop, not published
 *   free ----------> held (refs > 0) ----------------> cached       ----------> free
 *     ^                 ^                                | |
 *     |                 +------------ match -------------+ |
 *     +-- - - - - - - - - evicted when a take finds none free, oldest first
 */
#ifndef WF_SLAB_H
#define WF_SLAB_H

#include "graph/graph.h"

enum { NONE = -1 };                   /* no page, no node, end of a list */

struct page {
	int32_t refs;                 /* sequences that hold it */
	int32_t node;                 /* published under this node, or NONE */
	int32_t prev, next;           /* in its list while refs is 0 */
};

struct list { int32_t first, last, n; };

struct pool {                         /* the pages of one class */
	struct wf_kvclass info;       /* a copy, with its own layer array */
	struct page *page;            /* [npage] */
	int32_t npage;
	struct list free, cached;     /* cached: least recently used first */
	int32_t nheld, nshared;       /* refs > 0, refs > 1 */
	int64_t hits, misses, evictions, cows;
	int32_t run;                  /* match: blocks in a row that this class has */
};

/* One block of page_tokens tokens after a given prefix; its pages in every class hang off it.  A node
 * is identified by its parent and its tokens, both compared on every lookup: the hash only finds
 * the bucket, so no collision can join two prefixes. */
struct node {
	uint64_t hash;                /* of the whole chain: XXH3-64 of the tokens, seeded with the parent's */
	int32_t parent;               /* NONE: the first block of a text */
	int32_t next;                 /* in its bucket, or the free list */
	int32_t refs;                 /* children, and sequences whose tip it is */
	int32_t npage;                /* classes that have a page under it */
};

struct prefix {
	struct node *node;            /* [nnode], as many as there are pages */
	int32_t *page;                /* [nnode][nclass], NONE where the class has none */
	int32_t *token;               /* [nnode][page_tokens] */
	int32_t *bucket;              /* [nbucket], a power of two */
	int32_t nnode, nbucket, free;
};

struct wf_slab {
	int nclass, page_tokens;
	struct pool *pool;            /* [nclass] */
	struct wf_slab_copy *copy;    /* [nclass], what the last extend listed */
	struct prefix prefix;
	wf_seq *seqs;
};

struct wf_seq {
	wf_seq *prev, *next;          /* in slab->seqs */
	int64_t len;
	int32_t nblock, cap;          /* blocks of len tokens; room in page[] */
	int32_t tip, npub;            /* node of the last published block; blocks up to and with it */
	int32_t *page;                /* [nclass][cap] */
	int32_t first[];              /* [nclass] blocks before it a sliding window has given back */
};

/* slab.c */
int32_t slab_take(wf_slab *, int cls, int32_t wanted);  /* one must be free or cached; `wanted` if that is free */
void    slab_hold(wf_slab *, int cls, int32_t page);
void    slab_drop(wf_slab *, int cls, int32_t page);
void    slab_push(struct pool *, struct list *, int32_t page, bool front);

/* seq.c */
int     seq_room(const wf_slab *, wf_seq *, int32_t nblock);
void    seq_rewind(wf_slab *, wf_seq *, int32_t npub);     /* tip back to block npub */

/* prefix.c */
int     prefix_grow(wf_slab *, int64_t nnode);             /* also from nothing; -1 when out of memory */
void    prefix_close(wf_slab *);
uint64_t prefix_hash(const wf_slab *, int32_t parent, const int32_t *token);
void    prefix_forget(wf_slab *, int cls, int32_t page);   /* no longer published */
void    prefix_hold(wf_slab *, int32_t node);
void    prefix_release(wf_slab *, int32_t node);

#endif
