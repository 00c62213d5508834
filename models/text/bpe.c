/* bpe.c - byte pair encoding: join the best pair of neighbours until none is left.
 *
 * The best pair has the lowest rank; of equals the leftmost goes first.  Ranks come from a list of merges
 * (two ids to one) or, as in SentencePiece, from the score of the piece that two neighbours spell.
 *
 * A short piece is searched anew for every join.  A long one (a run of spaces, text without any) keeps
 * one bucket of places per rank.  Places go into a bucket mostly in ascending order, so a bucket is
 * an array that is sorted when its turn comes, and what comes late goes to a heap: n log n, and
 * sequential memory where a heap of all pairs would miss the cache at every step. */
#include "models/text/text.h"

#include <stdlib.h>
#include <string.h>

enum {
	SHORT = 40,                  /* symbols; beyond, buckets are faster */
	NCACHE = 2048
};
static const uint32_t NONE = UINT32_MAX;
static const char marker[] = "\xE2\x96\x81";

struct sym {
	uint32_t start, prev, next;  /* byte in the text; neighbours, NONE at the ends */
	uint32_t rank;               /* of the pair this one begins, NONE when it cannot be joined */
	int32_t id, to;              /* its token, -1 none; the token of the pair */
};

struct bucket {
	uint32_t *at;                /* [n] places, done of them dealt with */
	size_t n, cap, done;
	uint32_t rank;
	bool queued, open, unsorted;
};

struct merger {
	const wf_tokenizer *tok;
	wf_error *err;
	const char *text;
	uint32_t end;                /* of the text */
	struct sym *sym;
	size_t cap;
	uint32_t *of_rank;           /* [tok->nrank] bucket + 1, 0 none */
	struct bucket *bucket;
	size_t nbucket, bucket_cap;
	uint64_t *ranks, *late;      /* heaps: ranks of queued buckets; (rank, place) */
	size_t nranks, ranks_cap, nlate, late_cap;
	uint32_t *spare;             /* to sort a bucket in */
	size_t spare_cap;
	uint32_t *left;              /* [tok->n] bytes of the left part of an unused piece, see emit() */
	struct merge cache[NCACHE];  /* pairs looked up lately, by key; those that join nothing have no rank */
};

/* ---- merges ---- */

static struct merge *merge_slot(const wf_tokenizer *tok, uint64_t key)
{
	uint32_t i = (uint32_t)(key * 0x9E3779B97F4A7C15u >> 32) & tok->merge_mask;

	while (tok->merge[i].key && tok->merge[i].key != key)
		i = (i + 1) & tok->merge_mask;
	return &tok->merge[i];
}

static uint64_t merge_key(int32_t left, int32_t right)
{
	return ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) + 1;
}

int bpe_merges(wf_tokenizer *tok, wf_error *err, size_t n)
{
	size_t nslot = 16;

	if (n > MAXTOKENS)
		return wf_fail(err, "tokenizer: %zu merges, expected at most %d", n, MAXTOKENS);
	while (nslot < 2 * n)
		nslot *= 2;
	if (!(tok->merge = wf_alloc_n(tok->arena, nslot, sizeof *tok->merge)))
		return wf_fail(err, "tokenizer: out of memory for %zu merges", n);
	tok->merge_mask = (uint32_t)(nslot - 1);
	tok->nrank = (uint32_t)n;
	return 0;
}

int bpe_merge(wf_tokenizer *tok, wf_error *err, const char *left, size_t nleft,
		const char *right, size_t nright, uint32_t rank)
{
	char both[2 * MAXPIECE];

	if (nleft > MAXPIECE || nright > MAXPIECE)
		return wf_fail(err, "tokenizer: merge %u is longer than any token", rank);
	memcpy(both, left, nleft);
	memcpy(both + nleft, right, nright);
	int32_t l = vocab_find(tok, left, nleft), r = vocab_find(tok, right, nright);
	int32_t to = vocab_find(tok, both, nleft + nright);
	if (l < 0 || r < 0 || to < 0)
		return 0;
	struct merge *m = merge_slot(tok, merge_key(l, r));
	if (!m->key)
		*m = (struct merge){merge_key(l, r), {rank, to}};
	return 0;
}

/* ---- symbols ---- */

static uint32_t sym_end(const struct merger *m, const struct sym *s)
{
	return s->next == NONE ? m->end : m->sym[s->next].start;
}

/* What two neighbours spell together, by score. */
static struct pair spell(struct merger *m, const struct sym *s, const struct sym *right)
{
	int32_t id = vocab_piece(m->tok, m->text + s->start, sym_end(m, right) - s->start);

	if (id >= 0 && m->left && m->tok->token[id].type == TOKEN_UNUSED)
		m->left[id] = right->start - s->start;
	return id >= 0 ? (struct pair){m->tok->token[id].rank, id} : (struct pair){NONE, -1};
}

/* Sets what the pair that begins at i would become.  Equal pairs come in crowds, so a small cache
 * saves most of the hashing: spaces with a SentencePiece vocabulary take half the time. */
static void look(struct merger *m, uint32_t i)
{
	const wf_tokenizer *tok = m->tok;
	struct sym *s = &m->sym[i];
	struct pair pair = {NONE, -1};

	if (s->next != NONE) {
		const struct sym *right = &m->sym[s->next];
		uint64_t key = merge_key(s->id, right->id);
		struct merge *cached = &m->cache[key * 0x9E3779B97F4A7C15u >> 53];
		if (s->id < 0 || right->id < 0 || m->left) {
			if (!tok->merge)
				pair = spell(m, s, right);
		} else if (cached->key == key) {
			pair = cached->pair;
		} else {
			if (!tok->merge)
				pair = spell(m, s, right);
			else if (merge_slot(tok, key)->key)
				pair = merge_slot(tok, key)->pair;
			*cached = (struct merge){key, pair};
		}
	}
	s->rank = pair.rank;
	s->to = pair.id;
}

/* Joins the pair that begins at i; the caller looks at the pairs this makes. */
static void join(struct merger *m, uint32_t i)
{
	struct sym *s = &m->sym[i], *right = &m->sym[s->next];

	right->rank = NONE;
	s->id = s->to;
	s->next = right->next;
	if (s->next != NONE)
		m->sym[s->next].prev = i;
	look(m, i);
	if (s->prev != NONE)
		look(m, s->prev);
}

/* The characters of text[start, end); how many, or -1. */
static int64_t split(struct merger *m, uint32_t start, uint32_t end)
{
	uint32_t n = 0;

	m->end = end;
	for (uint32_t at = start; at < end; n++) {
		bool ascii = !(m->text[at] & 0x80);
		size_t len = ascii ? 1 : utf8_step(m->text + at, end - at);
		int32_t id = ascii ? m->tok->chr[(uint8_t)m->text[at]] : vocab_piece(m->tok, m->text + at, len);
		if (n == m->cap && array_grow(m->err, &m->sym, &m->cap, n + 1, sizeof *m->sym) < 0)
			return -1;
		m->sym[n] = (struct sym){at, n ? n - 1 : NONE, n + 1, NONE, id, -1};
		at += (uint32_t)len;
	}
	if (n)
		m->sym[n - 1].next = NONE;
	for (uint32_t i = 0; i + 1 < n; i++)
		look(m, i);
	return n;
}

static void merge_short(struct merger *m)
{
	for (;;) {
		uint32_t best = NONE, rank = NONE;
		for (uint32_t i = 0; i != NONE; i = m->sym[i].next)
			if (m->sym[i].rank < rank) {
				rank = m->sym[i].rank;
				best = i;
			}
		if (best == NONE)
			return;
		join(m, best);
	}
}

/* ---- long pieces ---- */

static int heap_push(wf_error *err, uint64_t **heap, size_t *n, size_t *cap, uint64_t key)
{
	if (*n == *cap && array_grow(err, heap, cap, *n + 1, sizeof **heap) < 0)
		return -1;
	uint64_t *h = *heap;
	size_t i = (*n)++;
	for (; i && h[(i - 1) / 2] > key; i = (i - 1) / 2)
		h[i] = h[(i - 1) / 2];
	h[i] = key;
	return 0;
}

static void heap_pop(uint64_t *h, size_t *n)
{
	uint64_t key = h[--*n];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < *n) {
		if (child + 1 < *n && h[child + 1] < h[child])
			child++;
		if (h[child] >= key)
			break;
		h[i] = h[child];
		i = child;
	}
	h[i] = key;
}

static void insertion_sort(uint32_t *at, size_t n)
{
	for (size_t i = 1, j; i < n; i++) {
		uint32_t place = at[i];
		for (j = i; j && at[j - 1] > place; j--)
			at[j] = at[j - 1];
		at[j] = place;
	}
}

/* By bytes, least first: as many passes as the last place has bytes. */
static int sort_places(struct merger *m, uint32_t *at, size_t n)
{
	if (n < 64) {
		insertion_sort(at, n);
		return 0;
	}
	if (n > m->spare_cap && array_grow(m->err, &m->spare, &m->spare_cap, n, sizeof *at) < 0)
		return -1;
	uint32_t *from = at, *to = m->spare, most = 0;
	for (size_t i = 0; i < n; i++)
		most |= at[i];
	for (int shift = 0; shift < 32 && most >> shift; shift += 8) {
		size_t count[257] = {0};
		for (size_t i = 0; i < n; i++)
			count[(from[i] >> shift & 255) + 1]++;
		for (int i = 0; i < 256; i++)
			count[i + 1] += count[i];
		for (size_t i = 0; i < n; i++)
			to[count[from[i] >> shift & 255]++] = from[i];
		uint32_t *swap = from;
		from = to;
		to = swap;
	}
	if (from != at)
		memcpy(at, from, n * sizeof *at);
	return 0;
}

static struct bucket *bucket_of(struct merger *m, uint32_t rank)
{
	uint32_t *of = &m->of_rank[rank];

	if (!*of) {
		if (m->nbucket == m->bucket_cap) {
			size_t had = m->bucket_cap;
			if (array_grow(m->err, &m->bucket, &m->bucket_cap, had + 1, sizeof *m->bucket) < 0)
				return NULL;
			memset(m->bucket + had, 0, (m->bucket_cap - had) * sizeof *m->bucket);
		}
		m->bucket[m->nbucket].rank = rank;
		*of = (uint32_t)++m->nbucket;
	}
	return &m->bucket[*of - 1];
}

/* Puts the pair that begins at i in its bucket. */
static int queue(struct merger *m, uint32_t i)
{
	uint32_t rank = m->sym[i].rank;
	struct bucket *b;

	if (rank == NONE)
		return 0;
	if (!(b = bucket_of(m, rank)))
		return -1;
	if (b->n && b->at[b->n - 1] > i) {
		if (b->open)
			return heap_push(m->err, &m->late, &m->nlate, &m->late_cap, (uint64_t)rank << 32 | i);
		b->unsorted = true;
	}
	if (b->n == b->cap && array_grow(m->err, &b->at, &b->cap, b->n + 1, sizeof *b->at) < 0)
		return -1;
	b->at[b->n++] = i;
	if (b->queued)
		return 0;
	b->queued = true;
	return heap_push(m->err, &m->ranks, &m->nranks, &m->ranks_cap, rank);
}

/* The best pair still queued, as (rank, place): 1, 0 when there is none, -1. */
static int best_pair(struct merger *m, uint64_t *key)
{
	struct bucket *b = NULL;

	while (m->nranks) {
		b = &m->bucket[m->of_rank[m->ranks[0]] - 1];
		if (b->done < b->n)
			break;
		b->n = b->done = 0;
		b->queued = b->open = false;
		heap_pop(m->ranks, &m->nranks);
		b = NULL;
	}
	if (b && b->unsorted && sort_places(m, b->at + b->done, b->n - b->done) < 0)
		return -1;
	*key = UINT64_MAX;
	if (b) {
		b->unsorted = false;
		b->open = true;
		*key = (uint64_t)b->rank << 32 | b->at[b->done];
	}
	if (m->nlate && m->late[0] < *key) {
		*key = m->late[0];
		heap_pop(m->late, &m->nlate);
	} else if (b) {
		b->done++;
	}
	return *key != UINT64_MAX;
}

static int merge_long(struct merger *m, uint32_t n)
{
	uint64_t key;
	int rc = 0;

	if (!m->of_rank && !(m->of_rank = calloc((size_t)m->tok->nrank + 1, sizeof *m->of_rank)))
		return wf_fail(m->err, "tokenizer: out of memory for %u ranks", m->tok->nrank);
	for (uint32_t i = 0; i < n && rc == 0; i++)
		rc = queue(m, i);
	while (rc == 0 && (rc = best_pair(m, &key)) > 0) {
		uint32_t i = (uint32_t)key;
		rc = 0;
		if (m->sym[i].rank != key >> 32)     /* one of the two was joined meanwhile */
			continue;
		join(m, i);
		if (m->sym[i].prev != NONE)
			rc = queue(m, m->sym[i].prev);
		if (rc == 0)
			rc = queue(m, i);
	}
	for (size_t i = 0; i < m->nbucket; i++) {
		struct bucket *b = &m->bucket[i];
		m->of_rank[b->rank] = 0;
		free(b->at);
		*b = (struct bucket){0};
	}
	m->nbucket = m->nranks = m->nlate = 0;
	return rc;
}

/* ---- ids ---- */

int emit_unknown(struct work *w, const char *s, size_t n)
{
	const wf_tokenizer *tok = w->tok;
	bool whole = tok->byte_fallback;

	for (size_t i = 0; i < n && whole; i++)
		whole = tok->byte[(uint8_t)s[i]] >= 0;
	for (size_t i = 0; i < n && whole; i++)
		if (ids_add(w->err, w->out, tok->byte[(uint8_t)s[i]]) < 0)
			return -1;
	if (whole || tok->unk < 0)
		return 0;
	if (w->unknown && tok->fuse_unknown)
		return 0;
	w->unknown = true;
	return ids_add(w->err, w->out, tok->unk);
}

/* An unused piece may be a step towards a longer one, but stands for its parts in the end. */
static int emit(struct work *w, struct merger *m, uint32_t start, uint32_t end, int32_t id, int depth)
{
	uint32_t left = m->left && id >= 0 && depth < 64 && m->tok->token[id].type == TOKEN_UNUSED ? m->left[id] : 0;

	if (left) {
		int32_t l = vocab_piece(m->tok, m->text + start, left);
		int32_t r = vocab_piece(m->tok, m->text + start + left, end - start - left);
		return emit(w, m, start, start + left, l, depth + 1) < 0 ? -1 :
			emit(w, m, start + left, end, r, depth + 1);
	}
	if (id < 0)
		return emit_unknown(w, m->text + start, end - start);
	w->unknown = false;
	return ids_add(w->err, w->out, id);
}

static int encode_word(struct work *w, struct merger *m, uint32_t start, uint32_t end)
{
	int64_t n = split(m, start, end);

	if (n < 0)
		return -1;
	if (n <= SHORT)
		merge_short(m);
	else if (merge_long(m, (uint32_t)n) < 0)
		return -1;
	for (uint32_t i = 0; i != NONE; i = m->sym[i].next)
		if (emit(w, m, m->sym[i].start, sym_end(m, &m->sym[i]), m->sym[i].id, 0) < 0)
			return -1;
	return 0;
}

static struct merger *merger_new(struct work *w)
{
	struct merger *m = calloc(1, sizeof *m);

	if (!m)
		return NULL;
	m->tok = w->tok;
	m->err = w->err;
	if (w->tok->unused && !w->tok->merge && !(m->left = calloc((size_t)w->tok->n, sizeof *m->left))) {
		free(m);
		return NULL;
	}
	return m;
}

/* Where the word at `at` ends: when no piece holds a space inside, none crosses the place before one. */
static uint32_t word_end(const wf_tokenizer *tok, const char *s, uint32_t at, uint32_t end)
{
	if (!tok->cut_spaces)
		return end;
	while (end - at >= 3 && memcmp(s + at, marker, 3) == 0)
		at += 3;
	const char *next = bytes_find(s + at, end - at, marker, 3);
	return next ? (uint32_t)(next - s) : end;
}

static bool all_lines(const char *s, size_t n)
{
	while (n && s[n - 1] == '\n')
		n--;
	return n == 0;
}

int bpe_encode(struct work *w, struct span piece)
{
	struct merger *m = w->merger;
	const wf_tokenizer *tok = w->tok;
	const char *s = w->text.s + piece.start;
	size_t n = piece.end - piece.start;
	int32_t id;

	if (!m && !(m = w->merger = merger_new(w)))
		return wf_fail(w->err, "tokenizer: out of memory");
	w->unknown = false;
	m->text = w->text.s;
	if ((tok->ignore_merges || (tok->whole_lines && all_lines(s, n))) && (id = vocab_piece(tok, s, n)) >= 0)
		return ids_add(w->err, w->out, id);
	for (uint32_t at = piece.start, end; at < piece.end; at = end) {
		end = word_end(tok, w->text.s, at, piece.end);
		if (encode_word(w, m, at, end) < 0)
			return -1;
	}
	return 0;
}

void bpe_free(struct merger *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->nbucket; i++)
		free(m->bucket[i].at);
	free(m->bucket);
	free(m->sym);
	free(m->of_rank);
	free(m->ranks);
	free(m->late);
	free(m->spare);
	free(m->left);
	free(m);
}
