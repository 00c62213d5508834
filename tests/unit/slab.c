/* slab.c - the KV allocator against a naive model that knows only the rules, over random operations.
 *
 * The model keeps what every page holds: each token's slot carries the hash of all tokens up to it, so
 * reading a sequence back through its pages shows wrong sharing, missing copies and early reuse.
 * WEFT_SLAB_OPS and WEFT_SLAB_SEED choose how many operations and which. */
#include <stddef.h>
#include <stdint.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* A weak hash puts many prefixes in one bucket under equal hashes. */
static uint64_t hash_mask = ~0ull;

static uint64_t weak_hash(const void *data, size_t bytes, uint64_t seed)
{
	return XXH3_64bits_withSeed(data, bytes, seed) & hash_mask;
}

#undef XXH3_64bits_withSeed
#define XXH3_64bits_withSeed weak_hash
#include "graph/prefix.c"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* ---- the n-th allocation fails ---- */

static int64_t countdown = -1, allocated, nalloc;

#ifndef WF_SANITIZE
static bool refuse(void)
{
	nalloc++;
	return countdown >= 0 && countdown-- == 0;
}

void *malloc(size_t bytes)
{
	static void *(*real)(size_t);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "malloc");
	void *p = refuse() ? NULL : real(bytes);
	allocated += p != NULL;
	return p;
}

void *calloc(size_t n, size_t bytes)
{
	static void *(*real)(size_t, size_t);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "calloc");
	void *p = refuse() ? NULL : real(n, bytes);
	allocated += p != NULL;
	return p;
}

void *realloc(void *old, size_t bytes)
{
	static void *(*real)(void *, size_t);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "realloc");
	void *p = refuse() ? NULL : real(old, bytes);
	allocated += p && !old;
	return p;
}

void free(void *p)
{
	static void (*real)(void *);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "free");
	allocated -= p != NULL;
	real(p);
}
#endif

/* ---- the model ---- */

enum { MAXCLASS = 3, MAXPAGE = 128, MAXTOKENS = 64, MAXLEN = 700, MAXSEQ = 10, MAXNODE = 3 * MAXPAGE };

struct mpage { int refs; bool published; int64_t stamp; uint64_t slot[MAXTOKENS]; };

struct mseq {
	wf_seq *seq;
	int len, npub, script;
	int first[MAXCLASS];
	int32_t page[MAXCLASS][MAXLEN];
	int32_t token[MAXLEN];
	uint64_t chain[MAXLEN + 1];               /* of the tokens before */
};

struct mnode { uint64_t chain, parent; int32_t page[MAXCLASS]; };

static struct model {
	wf_slab *slab;
	int nclass, tokens;                       /* in a page */
	struct wf_kvclass class[MAXCLASS];
	int npage[MAXCLASS];
	struct mpage page[MAXCLASS][MAXPAGE];
	struct mseq seq[MAXSEQ];
	int nseq;
	struct mnode node[MAXNODE];
	int nnode;
	int64_t clock, hits[MAXCLASS], misses[MAXCLASS], evictions[MAXCLASS], cows[MAXCLASS];
	uint64_t seed, rng;
	int64_t op;
} m;

#define WANT(cond) \
	do { \
		if (!(cond)) \
			fail_msg("seed %llu, operation %lld: %s", (unsigned long long)m.seed, (long long)m.op, #cond); \
	} while (0)

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static int pick(int n)
{
	m.rng += 0x9e3779b97f4a7c15u;
	return (int)(mix(m.rng) % (uint64_t)n);
}

/* Scripts share their beginnings: script k leaves script 0 at token 12 k. */
static int32_t script_token(int script, int i)
{
	return (int32_t)(mix((uint64_t)(i < 12 * script ? 0 : script) << 32 | (uint64_t)i) % 5);
}

static int blocks(int len)
{
	return (len + m.tokens - 1) / m.tokens;
}

/* First block of which the token at position len sees any token. */
static int sees(int c, int len)
{
	int i = 0;

	while (m.class[c].window && (i + 1) * m.tokens - 1 <= len - m.class[c].window)
		i++;
	return i;
}

static int count(int c, bool held, bool published)
{
	int n = 0;

	for (int p = 0; p < m.npage[c]; p++)
		n += held ? m.page[c][p].refs > 0 : !m.page[c][p].refs && m.page[c][p].published == published;
	return n;
}

static void model_poison(struct mpage *page)
{
	memset(page->slot, 0xff, sizeof page->slot);
}

static void model_drop(int c, int32_t p)
{
	struct mpage *page = &m.page[c][p];

	WANT(page->refs > 0);
	if (--page->refs)
		return;
	page->stamp = ++m.clock;
	if (!page->published)
		model_poison(page);
}

static void model_forget(int c, int32_t p)
{
	for (int i = 0; i < m.nnode; i++)
		if (m.node[i].page[c] == p)
			m.node[i].page[c] = -1;
	m.page[c][p].published = false;
}

/* The slab gave us page p: was it one it may give? */
static void model_take(int c, int32_t p)
{
	WANT(p >= 0 && p < m.npage[c]);
	struct mpage *page = &m.page[c][p];
	WANT(!page->refs);
	if (page->published) {
		WANT(!count(c, false, false));
		for (int o = 0; o < m.npage[c]; o++)
			WANT(m.page[c][o].refs || m.page[c][o].stamp >= page->stamp);
		model_forget(c, p);
		m.evictions[c]++;
	}
	model_poison(page);
	page->refs = 1;
}

static int model_node(uint64_t chain)
{
	for (int i = 0; i < m.nnode; i++)
		if (m.node[i].chain == chain)
			return i;
	return -1;
}

/* Nodes with a page, at a tip, or above such a one stay. */
static void model_sweep(void)
{
	bool keep[MAXNODE] = {false};
	int n = 0;

	for (int i = 0; i < m.nnode; i++)
		for (int c = 0; c < m.nclass; c++)
			keep[i] |= m.node[i].page[c] >= 0;
	for (int s = 0; s < m.nseq; s++)
		if (m.seq[s].npub)
			keep[model_node(m.seq[s].chain[m.seq[s].npub * m.tokens])] = true;
	for (int i = m.nnode; i-- > 0;)                 /* parents come first */
		if (keep[i] && m.node[i].parent)
			keep[model_node(m.node[i].parent)] = true;
	for (int i = 0; i < m.nnode; i++)
		if (keep[i])
			m.node[n++] = m.node[i];
	m.nnode = n;
}

static void write_tokens(struct mseq *q, int from)
{
	for (int i = from; i < q->len; i++)
		for (int c = 0; c < m.nclass; c++)
			m.page[c][q->page[c][i / m.tokens]].slot[i % m.tokens] = q->chain[i + 1] + (uint64_t)c;
}

/* The sequence's pages are the model's and give back what was written. */
static void check_seq(const struct mseq *q)
{
	WANT(wf_seq_len(q->seq) == q->len);
	for (int c = 0; c < m.nclass; c++) {
		int n;
		const int32_t *page = wf_seq_pages(q->seq, c, &n);
		WANT(n == blocks(q->len));
		WANT(q->first[c] <= sees(c, q->len));
		bool adjacent = true;
		for (int i = 0; i < n; i++) {
			WANT(page[i] == (i < q->first[c] ? -1 : q->page[c][i]));
			adjacent &= page[i] >= 0 && page[i] == page[0] + i;
		}
		WANT(wf_seq_adjacent(q->seq, c) == adjacent);
		for (int i = q->first[c] * m.tokens; i < q->len; i++)
			WANT(m.page[c][page[i / m.tokens]].slot[i % m.tokens] == q->chain[i + 1] + (uint64_t)c);
	}
}

static int64_t used_tokens(int c)
{
	int fill[MAXPAGE] = {0};
	int64_t total = 0;

	for (int s = 0; s < m.nseq; s++)
		for (int i = m.seq[s].first[c]; i < blocks(m.seq[s].len); i++) {
			int here = m.seq[s].len - i * m.tokens;
			int32_t p = m.seq[s].page[c][i];
			here = here < m.tokens ? here : m.tokens;
			fill[p] = here > fill[p] ? here : fill[p];
		}
	for (int p = 0; p < m.npage[c]; p++)
		total += fill[p];
	return total;
}

static void check_all(void)
{
	wf_error err = {0};

	if (slab_verify(m.slab, &err) < 0)
		fail_msg("seed %llu, operation %lld: %s", (unsigned long long)m.seed, (long long)m.op, err.text);
	for (int s = 0; s < m.nseq; s++)
		check_seq(&m.seq[s]);
	for (int c = 0; c < m.nclass; c++) {
		struct wf_slab_stats st;
		int shared = 0;
		int64_t bytes = (int64_t)slab_page_bytes(&m.class[c], m.tokens);
		for (int p = 0; p < m.npage[c]; p++)
			shared += m.page[c][p].refs > 1;
		wf_slab_stats(m.slab, c, &st);
		WANT(st.pages == m.npage[c] && st.shared == shared);
		WANT(st.held == count(c, true, false) && st.bytes_held == st.held * bytes);
		WANT(st.free == count(c, false, false));
		WANT(st.cached == count(c, false, true));
		WANT(st.bytes_used == used_tokens(c) * (bytes / m.tokens));
		WANT(st.hits == m.hits[c] && st.misses == m.misses[c]);
		WANT(st.evictions == m.evictions[c] && st.cows == m.cows[c]);
	}
}

/* ---- operations ---- */

static struct mseq *do_new(void)
{
	struct mseq *q = &m.seq[m.nseq++];

	memset(q, 0, offsetof(struct mseq, page));
	q->seq = wf_seq_new(m.slab);
	WANT(q->seq);
	q->script = pick(8);
	q->chain[0] = 0;
	return q;
}

static void do_free(struct mseq *q)
{
	wf_seq_free(m.slab, q->seq);
	for (int c = 0; c < m.nclass; c++)
		for (int i = blocks(q->len); i-- > q->first[c];)
			model_drop(c, q->page[c][i]);
	*q = m.seq[--m.nseq];
}

static bool can_extend(const struct mseq *q, int n)
{
	for (int c = 0; c < m.nclass; c++) {
		int need = blocks(q->len + n) - blocks(q->len), have = count(c, false, false) + count(c, false, true);
		if (q->len % m.tokens && m.page[c][q->page[c][q->len / m.tokens]].refs > 1)
			need++;
		for (int i = q->first[c]; i < sees(c, q->len); i++)
			have += m.page[c][q->page[c][i]].refs == 1;
		if (n && need > have)
			return false;
	}
	return true;
}

/* Class c after a successful extend from len tokens; the pages taken are read from the slab. */
static void model_extend(struct mseq *q, int c, int len, const struct wf_slab_copy **copy)
{
	int n, last = len / m.tokens;
	const int32_t *page = wf_seq_pages(q->seq, c, &n);

	WANT(n == blocks(q->len));
	for (; q->first[c] < sees(c, len); q->first[c]++)
		model_drop(c, q->page[c][q->first[c]]);
	if (len % m.tokens && q->len > len) {
		int32_t own = q->page[c][last];
		if (m.page[c][own].refs > 1) {
			WANT((*copy)->cls == c && (*copy)->from == own && (*copy)->to == page[last]);
			model_take(c, page[last]);
			memcpy(m.page[c][page[last]].slot, m.page[c][own].slot, sizeof m.page[c][own].slot);
			model_drop(c, own);
			q->page[c][last] = page[last];
			m.cows[c]++;
			++*copy;
		} else if (m.page[c][own].published) {
			model_forget(c, own);
		}
	}
	for (int i = blocks(len); i < n; i++) {
		model_take(c, page[i]);
		q->page[c][i] = page[i];
	}
}

static void do_extend(struct mseq *q, int n)
{
	const struct wf_slab_copy *copy;
	int ncopy, len = q->len;

	if (len + n > MAXLEN)
		return;
	bool can = can_extend(q, n);
	WANT(wf_seq_extend(m.slab, q->seq, n, &copy, &ncopy) == (can ? 0 : -1));
	if (!can)
		return check_seq(q);
	for (int i = len; i < len + n; i++) {
		q->token[i] = script_token(q->script, i);
		q->chain[i + 1] = mix(q->chain[i] + (uint64_t)q->token[i] + 1);
	}
	q->len += n;
	const struct wf_slab_copy *end = copy + ncopy;
	for (int c = 0; c < m.nclass; c++)
		model_extend(q, c, len, &copy);
	WANT(copy == end);
	write_tokens(q, len);
	check_seq(q);
}

static void do_fork(const struct mseq *from)
{
	if (m.nseq == MAXSEQ)
		return;
	struct mseq *q = &m.seq[m.nseq++];
	*q = *from;
	q->seq = wf_seq_fork(m.slab, from->seq);
	WANT(q->seq);
	q->script = pick(8);
	for (int c = 0; c < m.nclass; c++)
		for (int i = q->first[c]; i < blocks(q->len); i++)
			m.page[c][q->page[c][i]].refs++;
	check_seq(q);
}

static void do_truncate(struct mseq *q, int len)
{
	int want = len;

	for (int c = 0; c < m.nclass; c++)
		if (sees(c, len) < q->first[c])
			want = 0;
	if (len >= q->len)
		want = q->len;
	WANT(wf_seq_truncate(m.slab, q->seq, len) == want);
	for (int c = 0; c < m.nclass; c++) {
		for (int i = blocks(q->len); i > blocks(want) && i > q->first[c]; i--)
			model_drop(c, q->page[c][i - 1]);
		q->first[c] = q->first[c] < blocks(want) ? q->first[c] : blocks(want);
	}
	q->len = want;
	q->npub = q->npub < want / m.tokens ? q->npub : want / m.tokens;
	check_seq(q);
}

static void do_publish(struct mseq *q, int n)
{
	wf_seq_publish(m.slab, q->seq, q->token, n);
	model_sweep();
	for (int most = (n < q->len ? n : q->len) / m.tokens; q->npub < most; q->npub++) {
		uint64_t chain = q->chain[(q->npub + 1) * m.tokens];
		int at = model_node(chain), pages = 0;
		for (int c = 0; c < m.nclass; c++)
			pages += m.npage[c];
		if (at < 0 && m.nnode == pages)
			break;
		if (at < 0) {
			at = m.nnode++;
			m.node[at] = (struct mnode){chain, q->chain[q->npub * m.tokens], {-1, -1, -1}};
		}
		for (int c = 0; c < m.nclass; c++) {
			int32_t *own = &q->page[c][q->npub], *have = &m.node[at].page[c];
			if (q->npub < q->first[c] || *own == *have)
				continue;
			if (*have < 0) {
				*have = *own;
				m.page[c][*own].published = true;
				continue;
			}
			m.page[c][*have].refs++;
			model_drop(c, *own);
			*own = *have;
		}
	}
	check_seq(q);
}

/* Does every class have the pages that the token after n blocks of chain[] sees? */
static bool usable_prefix(const uint64_t *chain, int n)
{
	for (int c = 0; c < m.nclass; c++)
		for (int i = sees(c, n * m.tokens); i < n; i++) {
			int at = model_node(chain[(i + 1) * m.tokens]);
			if (at < 0 || m.node[at].page[c] < 0)
				return false;
		}
	return model_node(chain[n * m.tokens]) >= 0 || n == 0;
}

static void do_match(int n)
{
	struct mseq *q = do_new();
	int found = (n - 1) / m.tokens, most = found;

	for (int i = 0; i < n; i++) {
		q->token[i] = script_token(q->script, i);
		q->chain[i + 1] = mix(q->chain[i] + (uint64_t)q->token[i] + 1);
	}
	model_sweep();
	while (!usable_prefix(q->chain, found))
		found--;
	WANT(wf_seq_match(m.slab, q->seq, q->token, n) == found * m.tokens);
	q->len = found * m.tokens;
	q->npub = found;
	for (int c = 0; c < m.nclass; c++) {
		q->first[c] = sees(c, q->len);
		for (int i = q->first[c]; i < found; i++) {
			q->page[c][i] = m.node[model_node(q->chain[(i + 1) * m.tokens])].page[c];
			m.page[c][q->page[c][i]].refs++;
		}
		m.hits[c] += found - q->first[c];
		m.misses[c] += most - found;
	}
	check_seq(q);
}

static void do_grow(void)
{
	int c = pick(m.nclass), n = pick(3);

	if (m.npage[c] + n > MAXPAGE * 3 / 4)
		return;
	WANT(wf_slab_grow(m.slab, c, n) == 0);
	m.npage[c] += n;
	WANT(wf_slab_npage(m.slab, c) == m.npage[c]);
}

static int length(void)
{
	int kind = pick(10);

	return 1 + pick(kind < 6 ? 4 : kind < 9 ? 40 : 300);
}

static void step(void)
{
	int what = pick(1000);
	struct mseq *q = m.nseq ? &m.seq[pick(m.nseq)] : NULL;

	if (what == 999)
		do_grow();
	else if (!q || (what < 60 && m.nseq < MAXSEQ))
		do_new();
	else if (what < 160 && m.nseq < MAXSEQ)
		do_match(length());
	else if (what < 230)
		do_free(q);
	else if (what < 290)
		do_fork(q);
	else if (what < 360)
		do_truncate(q, pick(q->len + 2));
	else if (what < 400)
		do_truncate(q, q->len - pick(q->len < 5 ? q->len + 1 : 5));
	else if (what < 560)
		do_publish(q, pick(2) ? q->len : length());
	else
		do_extend(q, pick(50) ? length() : 0);
}

static void model_open(int nclass, int tokens, const int *window, const int64_t *npage)
{
	static int layers[] = {0, 1, 2};
	wf_error err = {0};

	m.nclass = nclass;
	m.tokens = tokens;
	m.nseq = m.nnode = 0;
	m.clock = 0;
	for (int c = 0; c < nclass; c++) {
		m.class[c] = (struct wf_kvclass){2, 8, 16, window[c], c & 1 ? WF_F16 : WF_F32, 1 + c, layers};
		m.npage[c] = (int)npage[c];
		m.hits[c] = m.misses[c] = m.evictions[c] = m.cows[c] = 0;
	}
	memset(m.page, 0, sizeof m.page);
	m.slab = wf_slab_new(&err, m.class, nclass, tokens, npage);
	assert_non_null(m.slab);
}

static void model_close(void)
{
	while (m.nseq)
		do_free(&m.seq[m.nseq - 1]);
	check_all();
	wf_slab_free(m.slab);
}

static const struct setup { int nclass, tokens; int window[MAXCLASS]; int64_t npage[MAXCLASS]; } setups[] = {
	{2, 8, {0, 24}, {48, 24}},
	{1, 16, {0}, {40}},
	{3, 4, {0, 9, 1}, {60, 30, 20}},
	{2, 4, {33, 7}, {40, 24}},
	{2, 1, {0, 5}, {90, 60}},
	{1, 5, {12}, {12}},
	{2, 64, {0, 64}, {24, 12}},
};

static void random_operations_match_the_model(void **state)
{
	const char *ops = getenv("WEFT_SLAB_OPS"), *seed = getenv("WEFT_SLAB_SEED");
	int64_t total = ops ? atoll(ops) : 1000000, part = 20000;

	(void)state;
	m.seed = m.rng = seed ? strtoull(seed, NULL, 0) : 20240607;
	print_message("seed %llu, %lld operations\n", (unsigned long long)m.seed, (long long)total);
	int64_t evictions = 0, hits = 0, cows = 0;
	for (m.op = 0; m.op < total; m.op++) {
		if (m.op % part == 0) {
			const struct setup *s = &setups[m.op / part % (int64_t)(sizeof setups / sizeof *setups)];
			hash_mask = pick(3) ? ~0ull : 3;
			model_open(s->nclass, s->tokens, s->window, s->npage);
		}
		step();
		if (m.op % 64 == 0)
			check_all();
		if (m.op % part == part - 1 || m.op == total - 1) {
			model_close();
			evictions += m.evictions[0], hits += m.hits[0], cows += m.cows[0];
		}
	}
	hash_mask = ~0ull;
	print_message("first classes: %lld evictions, %lld hits, %lld copies\n", (long long)evictions, (long long)hits,
		(long long)cows);
	assert_true(total < 100000 || (evictions > total / 100 && hits > total / 100 && cows > total / 1000));
}

/* ---- by hand ---- */

static const struct wf_kvclass full = {.nkv = 2, .kdim = 4, .vdim = 8, .dtype = WF_F16, .nlayer = 3,
	.layer = (int[]){0, 1, 2}};
static const struct wf_kvclass window8 = {.nkv = 1, .kdim = 4, .vdim = 4, .window = 8, .dtype = WF_F32, .nlayer = 1,
	.layer = (int[]){3}};

static wf_slab *open_slab(struct wf_kvclass a, int64_t na, int tokens)
{
	wf_error err = {0};
	wf_slab *s = wf_slab_new(&err, &a, 1, tokens, &na);

	assert_non_null(s);
	return s;
}

static wf_slab *open_two(int64_t nfull, int64_t nwindow)
{
	struct wf_kvclass class[] = {full, window8};
	wf_error err = {0};
	wf_slab *s = wf_slab_new(&err, class, 2, 4, (int64_t[]){nfull, nwindow});

	assert_non_null(s);
	return s;
}

static int extend(wf_slab *s, wf_seq *q, int64_t n)
{
	const struct wf_slab_copy *copy;
	int ncopy;

	return wf_seq_extend(s, q, n, &copy, &ncopy) < 0 ? -1 : ncopy;
}

static struct wf_slab_stats stats(const wf_slab *s, int cls)
{
	struct wf_slab_stats st;
	wf_error err = {0};

	if (slab_verify(s, &err) < 0)
		fail_msg("%s", err.text);
	wf_slab_stats(s, cls, &st);
	return st;
}

static void sizes_follow_the_layout(void **state)
{
	(void)state;
	assert_int_equal(slab_layer_bytes(&full, 16), 2 * 16 * (4 + 8) * 2);
	assert_int_equal(slab_page_bytes(&full, 16), 3 * 2 * 16 * (4 + 8) * 2);
	struct wf_kvclass huge = {.nkv = INT32_MAX, .kdim = INT32_MAX, .vdim = 1, .nlayer = INT32_MAX};
	assert_int_equal(slab_page_bytes(&huge, 1 << 20), 0);
}

static void bad_classes_are_refused(void **state)
{
	struct wf_kvclass bad[] = {full, full, full, full, full, full, full};
	wf_error err;

	(void)state;
	bad[0].nkv = 0;
	bad[1].kdim = -1;
	bad[2].window = -1;
	bad[3].dtype = WF_NDTYPE;
	bad[4].nlayer = -1;
	bad[5].dtype = WF_Q8_0;                         /* a head of 4 is no block of 32 */
	bad[6].kdim = bad[6].nkv = bad[6].nlayer = INT32_MAX;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		err.set = false;
		assert_null(wf_slab_new(&err, &bad[i], 1, 16, (int64_t[]){4}));
		assert_true(err.set);
	}
	err.set = false;
	assert_null(wf_slab_new(&err, &full, 1, 0, (int64_t[]){4}));
	assert_null(wf_slab_new(&err, &full, 1, 16, (int64_t[]){-1}));
	assert_null(wf_slab_new(&err, &full, 1, 16, (int64_t[]){INT64_MAX}));
	wf_slab_free(NULL);
}

static void classes_are_copied(void **state)
{
	wf_slab *s = open_two(3, 5);

	(void)state;
	assert_int_equal(wf_slab_nclass(s), 2);
	assert_int_equal(wf_slab_page_tokens(s), 4);
	assert_int_equal(wf_slab_npage(s, 1), 5);
	assert_int_equal(wf_slab_class(s, 0)->layer[2], 2);
	assert_ptr_not_equal(wf_slab_class(s, 0)->layer, full.layer);
	wf_slab_free(s);
}

static void extend_is_all_or_nothing(void **state)
{
	wf_slab *s = open_two(10, 3);
	wf_seq *q = wf_seq_new(s);

	(void)state;
	assert_int_equal(extend(s, q, 13), -1);         /* 4 blocks, the window class has 3 pages */
	assert_int_equal(stats(s, 0).held, 0);
	assert_int_equal(extend(s, q, 12), 0);
	assert_int_equal(extend(s, q, 1), 0);           /* block 0 left the window of token 12 */
	assert_int_equal(extend(s, q, -1), -1);
	assert_int_equal(extend(s, q, INT64_MAX), -1);
	assert_int_equal(extend(s, q, INT64_MAX - 20), -1);
	assert_int_equal(wf_seq_len(q), 13);
	wf_seq_free(s, q);
	wf_seq_free(s, NULL);
	wf_slab_free(s);
}

static void a_window_keeps_what_the_next_token_sees(void **state)
{
	wf_slab *s = open_slab(window8, 16, 4);
	wf_seq *q = wf_seq_new(s);
	int n;

	(void)state;
	assert_int_equal(extend(s, q, 11), 0);
	extend(s, q, 1);                                /* token 11 sees 4..11 */
	assert_int_equal(wf_seq_pages(q, 0, &n)[0], -1);
	assert_int_equal(stats(s, 0).held, 2);
	extend(s, q, 3);                                /* token 12 sees 5..12 */
	assert_int_not_equal(wf_seq_pages(q, 0, &n)[1], -1);
	assert_int_equal(n, 4);
	assert_false(wf_seq_adjacent(q, 0));
	assert_int_equal(wf_seq_truncate(s, q, 12), 12);
	assert_int_equal(wf_seq_truncate(s, q, 11), 11);
	assert_int_equal(extend(s, q, 9), 0);
	extend(s, q, 0);                                /* token 20 sees 13..20 */
	assert_int_equal(stats(s, 0).held, 2);
	assert_int_equal(wf_seq_truncate(s, q, 18), 0); /* token 18 would see 11 */
	assert_int_equal(stats(s, 0).free, 16);
	wf_seq_free(s, q);
	wf_slab_free(s);
}

static void a_long_step_keeps_all_its_pages(void **state)
{
	wf_slab *s = open_slab(window8, 16, 4);
	wf_seq *q = wf_seq_new(s);

	(void)state;
	assert_int_equal(extend(s, q, 40), 0);          /* each of the 40 sees 8 */
	assert_int_equal(stats(s, 0).held, 10);
	assert_int_equal(extend(s, q, 1), 0);
	assert_int_equal(stats(s, 0).held, 3);
	wf_slab_free(s);                                /* ends its sequences too */
}

static void a_fork_copies_the_partial_page_once(void **state)
{
	wf_slab *s = open_slab(full, 8, 4);
	wf_seq *a = wf_seq_new(s);
	const struct wf_slab_copy *copy;
	int n;

	(void)state;
	extend(s, a, 6);
	wf_seq *b = wf_seq_fork(s, a);
	assert_int_equal(stats(s, 0).shared, 2);
	int32_t old = wf_seq_pages(a, 0, &n)[1];
	assert_int_equal(wf_seq_extend(s, a, 1, &copy, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(copy->from, old);
	assert_int_equal(copy->to, wf_seq_pages(a, 0, &n)[1]);
	assert_int_equal(extend(s, b, 1), 0);           /* the last holder writes in place */
	assert_int_equal(wf_seq_pages(b, 0, &n)[1], old);
	struct wf_slab_stats st = stats(s, 0);
	assert_int_equal(st.cows, 1);
	assert_int_equal(st.held, 3);
	assert_int_equal(st.bytes_held, 3 * slab_page_bytes(&full, 4));
	assert_int_equal(st.bytes_used, (4 + 3 + 3) * (slab_page_bytes(&full, 4) / 4));
	wf_slab_free(s);
}

static void a_fork_at_a_boundary_copies_nothing(void **state)
{
	wf_slab *s = open_slab(full, 4, 4);
	wf_seq *a = wf_seq_new(s);

	(void)state;
	extend(s, a, 8);
	wf_seq *b = wf_seq_fork(s, a);
	assert_int_equal(extend(s, a, 4), 0);
	assert_int_equal(extend(s, b, 4), 0);
	assert_int_equal(extend(s, a, 1), -1);
	wf_seq_free(s, b);
	assert_int_equal(extend(s, a, 1), 0);
	wf_slab_free(s);
}

static void pages_are_adjacent_while_there_is_room(void **state)
{
	wf_slab *s = open_slab(full, 32, 4);
	wf_seq *a = wf_seq_new(s), *b = wf_seq_new(s);
	int n;

	(void)state;
	extend(s, a, 40);
	assert_true(wf_seq_adjacent(a, 0));
	extend(s, b, 5);
	extend(s, a, 1);
	assert_false(wf_seq_adjacent(a, 0));
	assert_true(wf_seq_adjacent(b, 0));
	wf_seq_free(s, a);
	a = wf_seq_new(s);
	for (int i = 0; i < 40; i++)
		extend(s, a, 1);
	assert_true(wf_seq_adjacent(a, 0));
	assert_int_equal(wf_seq_pages(a, 0, &n)[0], 0);
	wf_seq_free(s, a);                              /* page 0 is the next free one, b wants 12 */
	extend(s, b, 4);
	assert_true(wf_seq_adjacent(b, 0));
	wf_slab_free(s);
}

static int32_t text[64];

static void fill_text(void)
{
	for (int i = 0; i < 64; i++)
		text[i] = i * i;
}

static void the_dead_are_found_and_the_oldest_go_first(void **state)
{
	wf_slab *s = open_slab(full, 8, 4);
	wf_seq *a = wf_seq_new(s);

	(void)state;
	fill_text();
	extend(s, a, 22);
	wf_seq_publish(s, a, text, 22);
	wf_seq_free(s, a);
	assert_int_equal(stats(s, 0).cached, 5);
	a = wf_seq_new(s);
	assert_int_equal(wf_seq_match(s, a, text, 20), 16); /* one token must be left to run */
	assert_int_equal(wf_seq_match(s, a, text, 22), 0);  /* only an empty one */
	wf_seq_truncate(s, a, 0);
	assert_int_equal(wf_seq_match(s, a, text, 21), 20);
	wf_seq_free(s, a);
	a = wf_seq_new(s);
	extend(s, a, 4 * 4);                            /* three are free, the deepest cached one goes */
	assert_int_equal(stats(s, 0).evictions, 1);
	wf_seq *b = wf_seq_new(s);
	assert_int_equal(wf_seq_match(s, b, text, 64), 16);
	wf_slab_free(s);
}

static void equal_pages_become_one(void **state)
{
	wf_slab *s = open_slab(full, 8, 4);
	wf_seq *a = wf_seq_new(s), *b = wf_seq_new(s);
	int n;

	(void)state;
	fill_text();
	extend(s, a, 10);
	extend(s, b, 10);
	wf_seq_publish(s, a, text, 10);
	wf_seq_publish(s, b, text, 10);
	assert_int_equal(stats(s, 0).held, 4);
	assert_int_equal(stats(s, 0).shared, 2);
	assert_int_equal(wf_seq_pages(a, 0, &n)[1], wf_seq_pages(b, 0, &n)[1]);
	wf_slab_free(s);
}

static void a_published_page_is_not_overwritten(void **state)
{
	wf_slab *s = open_slab(full, 3, 4);
	wf_seq *a = wf_seq_new(s);

	(void)state;
	fill_text();
	extend(s, a, 12);
	wf_seq_publish(s, a, text, 12);
	wf_seq_truncate(s, a, 6);
	assert_int_equal(extend(s, a, 1), 0);           /* alone: it leaves the tree and is written */
	wf_seq *b = wf_seq_new(s);
	assert_int_equal(wf_seq_match(s, b, text, 13), 4);
	wf_seq_truncate(s, a, 4);
	extend(s, a, 4);
	wf_seq_publish(s, a, text, 8);                  /* the same text again: what came after fits again */
	wf_seq_free(s, b);
	b = wf_seq_new(s);
	assert_int_equal(wf_seq_match(s, b, text, 13), 12);
	wf_slab_free(s);
}

static void a_prefix_counts_when_every_class_has_it(void **state)
{
	wf_slab *s = open_two(16, 5);
	wf_seq *a = wf_seq_new(s), *b;

	(void)state;
	fill_text();
	for (int i = 0; i < 40; i++) {
		assert_int_equal(extend(s, a, 1), 0);
		wf_seq_publish(s, a, text, i + 1);
	}
	wf_seq_free(s, a);
	a = wf_seq_new(s);                              /* 5 window pages cached: the last blocks */
	assert_int_equal(wf_seq_match(s, a, text, 41), 40);
	int n;
	assert_int_equal(wf_seq_pages(a, 1, &n)[7], -1);
	assert_int_not_equal(wf_seq_pages(a, 1, &n)[8], -1);
	b = wf_seq_new(s);
	assert_int_equal(wf_seq_match(s, b, text, 25), 0);  /* every page of block 5, none of the window */
	wf_slab_free(s);
}

/* All hashes equal: only the comparison of tokens and parents keeps texts apart. */
static void colliding_hashes_share_nothing(void **state)
{
	wf_slab *s = open_slab(full, 8, 4);
	wf_seq *a = wf_seq_new(s), *b = wf_seq_new(s);
	int32_t other[] = {9, 9, 9, 9, 4, 5, 6, 7, 1}, one[] = {1, 2, 3, 4, 4, 5, 6, 7, 1};

	(void)state;
	hash_mask = 0;
	extend(s, a, 8);
	wf_seq_publish(s, a, one, 8);
	assert_int_equal(wf_seq_match(s, b, other, 9), 0);
	extend(s, b, 4);
	wf_seq_publish(s, b, other, 4);
	wf_seq *c = wf_seq_new(s);
	assert_int_equal(wf_seq_match(s, c, other, 9), 4);  /* block 1 has a's tokens, not its parent */
	wf_slab_free(s);
	hash_mask = ~0ull;
}

static void a_lie_about_tokens_does_not_file_a_page_twice(void **state)
{
	wf_slab *s = open_slab(full, 4, 4);
	wf_seq *a = wf_seq_new(s);
	int32_t other[] = {9, 9, 9, 9};

	(void)state;
	fill_text();
	extend(s, a, 4);
	wf_seq *b = wf_seq_fork(s, a);
	wf_seq_publish(s, a, text, 4);
	wf_seq_publish(s, b, other, 100);
	stats(s, 0);
	wf_seq_free(s, b);
	b = wf_seq_new(s);
	assert_int_equal(wf_seq_match(s, b, other, 8), 0);
	wf_slab_free(s);
}

static void an_empty_slab_grows(void **state)
{
	wf_slab *s = open_slab(full, 0, 4);
	wf_seq *a = wf_seq_new(s);

	(void)state;
	fill_text();
	assert_int_equal(extend(s, a, 1), -1);
	assert_int_equal(wf_slab_grow(s, 0, 40), 0);
	assert_int_equal(extend(s, a, 64), 0);
	wf_seq_publish(s, a, text, 64);
	assert_int_equal(wf_slab_grow(s, 0, -1), -1);
	assert_int_equal(wf_slab_grow(s, 0, INT64_MAX), -1);
	wf_seq *b = wf_seq_new(s);
	assert_int_equal(wf_seq_match(s, b, text, 64), 60);
	assert_int_equal(stats(s, 0).shared, 15);
	wf_slab_free(s);
}

/* Sanitizers and valgrind bring a malloc of their own. */
static bool counts_allocations(void)
{
	int64_t before = nalloc;

	wf_slab_free(open_slab(full, 1, 1));
	return nalloc > before;
}

static void a_reserved_sequence_grows_without_allocating(void **state)
{
	wf_slab *s = open_two(1000, 10);
	wf_seq *a = wf_seq_new(s);

	(void)state;
	assert_int_equal(wf_seq_reserve(s, a, 4000), 0);
	int64_t before = nalloc;                        /* stays as it is where nothing counts */
	for (int i = 0; i < 4000; i++)
		extend(s, a, 1);
	assert_int_equal(nalloc, before);
	assert_int_equal(wf_seq_len(a), 4000);
	assert_int_equal(wf_seq_reserve(s, a, INT64_MAX), -1);
	wf_slab_free(s);
}

/* Every allocation of a life; false when one was refused. */
static bool live(void)
{
	struct wf_kvclass class[] = {full, window8};
	wf_error err = {0};
	wf_slab *s = wf_slab_new(&err, class, 2, 4, (int64_t[]){30, 30});

	if (!s) {
		assert_true(err.set);
		return false;
	}
	wf_seq *a = wf_seq_new(s), *b = NULL, *c = wf_seq_new(s);
	bool ok = a && c && wf_seq_reserve(s, a, 30) == 0 && extend(s, a, 50) == 0 && extend(s, a, 15) >= 0;
	if (ok)
		wf_seq_publish(s, a, text, 60);
	ok = ok && (b = wf_seq_fork(s, a)) && extend(s, b, 1) >= 0;
	ok = ok && wf_slab_grow(s, 0, 100) == 0 && wf_slab_grow(s, 1, 100) == 0;
	ok = ok && wf_seq_match(s, c, text, 64) == 60 && extend(s, c, 70) >= 0;
	countdown = -1;
	assert_int_equal(slab_verify(s, &err), 0);
	wf_seq_free(s, b);
	wf_slab_free(s);
	return ok;
}

static void any_allocation_may_fail(void **state)
{
	int64_t before = allocated;
	int n = 0;

	(void)state;
	if (!counts_allocations())
		skip();
	fill_text();
	for (countdown = 0; !live(); countdown = ++n) {
		assert_int_equal(allocated, before);
		assert_true(n < 1000);
	}
	assert_int_equal(allocated, before);
	assert_true(n > 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_follow_the_layout),
		cmocka_unit_test(bad_classes_are_refused),
		cmocka_unit_test(classes_are_copied),
		cmocka_unit_test(extend_is_all_or_nothing),
		cmocka_unit_test(a_window_keeps_what_the_next_token_sees),
		cmocka_unit_test(a_long_step_keeps_all_its_pages),
		cmocka_unit_test(a_fork_copies_the_partial_page_once),
		cmocka_unit_test(a_fork_at_a_boundary_copies_nothing),
		cmocka_unit_test(pages_are_adjacent_while_there_is_room),
		cmocka_unit_test(the_dead_are_found_and_the_oldest_go_first),
		cmocka_unit_test(equal_pages_become_one),
		cmocka_unit_test(a_published_page_is_not_overwritten),
		cmocka_unit_test(a_prefix_counts_when_every_class_has_it),
		cmocka_unit_test(colliding_hashes_share_nothing),
		cmocka_unit_test(a_lie_about_tokens_does_not_file_a_page_twice),
		cmocka_unit_test(an_empty_slab_grows),
		cmocka_unit_test(a_reserved_sequence_grows_without_allocating),
		cmocka_unit_test(any_allocation_may_fail),
		cmocka_unit_test(random_operations_match_the_model),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
