/* attend.c - attention of some query rows over the cached keys of one key head.
 *
 * Keys pass by in blocks of KEYS; each row keeps a running maximum and sum (online softmax, Milakov
 * and Gimelshein 2018; FlashAttention, Dao 2022).  Two shapes of the same loop:
 *
 *   wide    many rows (prompts): rows are the lanes.  Transposed queries are a panel, keys the
 *           broadcast operand; then probabilities are the panel and values the broadcast operand.
 *           Maximum, sum and rescale never cross lanes.
 *   narrow  few rows (decoding): dimensions are the lanes of the scores, keys of the softmax. */
#include "simd.h"

#include <assert.h>
#include <math.h>

enum { KEYS = 32, NARROW = 8, RVEC = ATTEND_ROWS / W };

struct work {
	const struct cpu_attend *a;
	const struct cpu_attend_part *p;
	int group, kpad, vpad;
	int first, last;                  /* keys any row sees: first ... last - 1 */
	float *q, *k, *v, *s, *o;         /* in scratch */
	int32_t pos[ATTEND_ROWS] __attribute__((aligned(64)));
	float slope[ATTEND_ROWS] __attribute__((aligned(64)));
	float max[ATTEND_ROWS] __attribute__((aligned(64)));
	float sum[ATTEND_ROWS] __attribute__((aligned(64)));
};

static int head_of(const struct work *w, int r) { return w->p->head * w->group + (w->p->row + r) % w->group; }
static int token_of(const struct work *w, int r) { return (w->p->row + r) / w->group; }

static const float *query(const struct work *w, int r)
{
	return w->a->q + (size_t)token_of(w, r) * w->a->qstride + (size_t)head_of(w, r) * (size_t)w->a->kdim;
}

static float *result(const struct work *w, int r)
{
	return w->a->out + (size_t)token_of(w, r) * w->a->ostride + (size_t)head_of(w, r) * (size_t)w->a->vdim;
}

/* Rows past nrow copy the last one: they are computed and dropped. */
static void set_rows(struct work *w)
{
	const struct cpu_attend *a = w->a;
	bool sink = a->sink && !w->p->state;
	int low = INT32_MAX, high = 0;

	for (int r = 0; r < ATTEND_ROWS; r++) {
		int from = r < w->p->nrow ? r : w->p->nrow - 1;
		w->pos[r] = a->pos[token_of(w, from)];
		w->slope[r] = a->slope ? a->slope[head_of(w, from)] : 0;
		w->max[r] = sink ? a->sink[head_of(w, from)] : -1e30f;
		w->sum[r] = sink ? 1 : 0;
		low = w->pos[r] < low ? w->pos[r] : low;
		high = w->pos[r] > high ? w->pos[r] : high;
	}
	w->first = a->window && low - a->window + 1 > 0 ? low - a->window + 1 : 0;
	w->last = high + 1;
	if (w->p->nkey) {
		int end = w->p->key + w->p->nkey;
		w->first = w->p->key > w->first ? w->p->key : w->first;
		w->last = end < w->last ? end : w->last;
	}
}

static void set_scratch(struct work *w)
{
	w->q = w->p->scratch;
	w->k = w->q + ATTEND_ROWS * w->kpad;
	w->v = w->k + KEYS * w->kpad;
	w->s = w->v + KEYS * w->vpad;
	w->o = w->s + KEYS * ATTEND_ROWS;
}

/* ---- keys and values as f32, rows padded to 16 with zeros ---------------------------------------- */

ALWAYS void fetch_row(wf_dtype type, float *out, const uint8_t *in, int dim, int pad)
{
	int size = type == WF_F32 ? 4 : 2, d = 0;

	for (; d + W <= dim; d += W)
		store(out + d, load_as(type, in + d * size));
	if (d < pad)
		memset(out + d, 0, (size_t)(pad - d) * 4);
	if (d < dim) {
		uint8_t rest[4 * W] = {0};
		memcpy(rest, in + d * size, (size_t)((dim - d) * size));
		store_some(out + d, dim - d, load_as(type, rest));
	}
}

ALWAYS void fetch(wf_dtype type, float *out, const uint8_t *in, int n, int dim, int pad)
{
	for (int i = 0; i < n; i++)
		fetch_row(type, out + i * pad, in + (size_t)(i * dim) * (type == WF_F32 ? 4 : 2), dim, pad);
}

static void fetch_any(wf_dtype type, float *out, const uint8_t *in, int n, int dim, int pad)
{
	if (type == WF_F32)
		fetch(WF_F32, out, in, n, dim, pad);
	else if (type == WF_F16)
		fetch(WF_F16, out, in, n, dim, pad);
	else
		fetch(WF_BF16, out, in, n, dim, pad);
}

/* Keys and values key ... key + n, page by page. */
static void fetch_block(const struct work *w, int key, int n)
{
	const struct cpu_attend *a = w->a;
	size_t size = a->dtype == WF_F32 ? 4 : 2;

	for (int i = 0, each; i < n; i += each) {
		int at = (key + i) % a->page_tokens, page = a->page[(key + i) / a->page_tokens];
		each = a->page_tokens - at < n - i ? a->page_tokens - at : n - i;
		assert(page >= 0);
		size_t base = (size_t)page * a->page_bytes;
		size_t token = (size_t)w->p->head * (size_t)a->page_tokens + (size_t)at;
		fetch_any(a->dtype, w->k + i * w->kpad, a->k + base + token * (size_t)a->kdim * size, each, a->kdim, w->kpad);
		fetch_any(a->dtype, w->v + i * w->vpad, a->v + base + token * (size_t)a->vdim * size, each, a->vdim, w->vpad);
	}
}

/* Does a row of this work not see a key of this block? */
static bool is_masked(const struct work *w, int key, int n)
{
	int low = w->pos[0], high = w->pos[w->p->nrow - 1];

	return key + n - 1 > low || (w->a->window && key <= high - w->a->window);
}

/* Scores of one vector: scaled, soft-capped, biased by distance, masked. */
ALWAYS vf adjust(const struct cpu_attend *a, vf score, vi key, vi pos, vf slope, bool masked)
{
	score *= splat(a->scale);
	if (a->softcap != 0)
		score = splat(a->softcap) * vtanh(score * splat(1 / a->softcap));
	if (a->slope)
		score += slope * tofloat(key - pos);
	if (masked) {
		vi seen = key <= pos;
		if (a->window)
			seen &= key > pos - a->window;
		score = choose(seen, score, splat(-INFINITY));
	}
	return score;
}

/* ---- wide ------------------------------------------------------------------------------------------ */

static void wide_queries(struct work *w)
{
	int kdim = w->a->kdim;

	for (int r = 0; r < ATTEND_ROWS; r++) {
		const float *q = query(w, r < w->p->nrow ? r : w->p->nrow - 1);
		float *to = w->q + (r / PANEL) * kdim * PANEL + r % PANEL;
		for (int d = 0; d < kdim; d++)
			to[d * PANEL] = q[d];
	}
}

/* s[key][row] */
static void wide_scores(const struct work *w, int n)
{
	struct tile t = {.wstep = 4 * PANEL, .xstep = 4, .n = w->a->kdim, .stride = ATTEND_ROWS};

	for (int panel = 0; panel * PANEL < w->p->nrow; panel += RP) {
		t.npanel = (panel + 1) * PANEL < w->p->nrow ? RP : 1;
		for (int r = 0; r < RP; r++)
			t.w[r] = (const uint8_t *)(w->q + (panel + (r < t.npanel ? r : 0)) * w->a->kdim * PANEL);
		for (int key = 0, c; key < n; key += c) {
			c = (int)columns(n - key, COLS);
			for (int i = 0; i < c; i++)
				t.x[i] = (const uint8_t *)(w->k + (key + i) * w->kpad);
			t.out = w->s + key * ATTEND_ROWS + panel * PANEL;
			CAT(cpu_tiles)[LOAD_STRIDED][c](&t);
		}
	}
}

/* Scores to probabilities, in place; the factor that old sums and values shrink by in *shrink. */
static void wide_softmax(struct work *w, int key, int n, int r, vf *shrink)
{
	vi pos = loadi(w->pos + r);
	vf slope = loadf(w->slope + r), old = loadf(w->max + r), max = old, sum = splat(0);
	bool masked = is_masked(w, key, n);

	for (int i = 0; i < n; i++) {
		float *s = w->s + i * ATTEND_ROWS + r;
		vf score = adjust(w->a, loadf(s), spread(key + i), pos, slope, masked);
		store(s, score);
		max = vmax(max, score);
	}
	for (int i = 0; i < n; i++) {
		float *s = w->s + i * ATTEND_ROWS + r;
		vf p = vexp(loadf(s) - max);
		store(s, p);
		sum += p;
	}
	*shrink = vexp(old - max);
	store(w->max + r, max);
	store(w->sum + r, loadf(w->sum + r) * *shrink + sum);
}

/* o[dim][row] += p[key][row] * v[key][dim] */
static void wide_values(const struct work *w, int n)
{
	struct tile t = {.wstep = 4 * ATTEND_ROWS, .xstep = 4 * (size_t)w->vpad, .n = n, .stride = ATTEND_ROWS, .add = true};

	for (int panel = 0; panel * PANEL < w->p->nrow; panel += RP) {
		t.npanel = (panel + 1) * PANEL < w->p->nrow ? RP : 1;
		for (int r = 0; r < RP; r++)
			t.w[r] = (const uint8_t *)(w->s + (panel + (r < t.npanel ? r : 0)) * PANEL);
		for (int d = 0, c; d < w->a->vdim; d += c) {
			c = (int)columns(w->a->vdim - d, COLS);
			for (int i = 0; i < c; i++)
				t.x[i] = (const uint8_t *)(w->v + d + i);
			t.out = w->o + d * ATTEND_ROWS + panel * PANEL;
			CAT(cpu_tiles)[LOAD_STRIDED][c](&t);
		}
	}
}

static void wide_block(struct work *w, int key, int n)
{
	wide_scores(w, n);
	for (int r = 0; r < w->p->nrow; r += W) {
		vf shrink;
		wide_softmax(w, key, n, r, &shrink);
		for (int d = 0; d < w->a->vdim; d++) {
			float *o = w->o + d * ATTEND_ROWS + r;
			store(o, loadf(o) * shrink);
		}
	}
	wide_values(w, n);
}

/* ---- narrow ----------------------------------------------------------------------------------------- */

static void narrow_queries(struct work *w)
{
	for (int r = 0; r < w->p->nrow; r++)
		fetch_row(WF_F32, w->q + r * w->kpad, (const uint8_t *)query(w, r), w->a->kdim, w->kpad);
}

/* s[key .. key + W] of one row */
static vf narrow_score(const struct work *w, int r, int key)
{
	const float *q = w->q + r * w->kpad, *k = w->k + key * w->kpad;
	vf dot[W] = {{0}};

	for (int d = 0; d < w->kpad; d += W) {
		vf x = loadf(q + d);
		UNROLL for (int i = 0; i < W; i++)
			dot[i] += x * loadf(k + i * w->kpad + d);
	}
	return reduce(dot);
}

/* Lanes past n are hidden behind the mask: their key is past every position. */
static void narrow_softmax(struct work *w, int key, int n, int r)
{
	float *s = w->s + r * KEYS;
	vf max = splat(w->max[r]), sum = splat(0), slope = splat(w->slope[r]);
	vi pos = spread(w->pos[r] < key + n - 1 ? w->pos[r] : key + n - 1), lane;
	bool masked = is_masked(w, key, n) || n % W;

	UNROLL for (int i = 0; i < W; i++)
		lane[i] = key + i;
	for (int i = 0; i < n; i += W) {
		vf score = narrow_score(w, r, i);
		vi at = lane + i;
		score = adjust(w->a, score, at, spread(w->pos[r]), slope, masked);
		score = choose(at <= pos, score, splat(-INFINITY));
		store(s + i, score);
		max = vmax(max, score);
	}
	float top = hmax(max), shrink;
	for (int i = 0; i < n; i += W) {
		vf p = vexp(loadf(s + i) - splat(top));
		store(s + i, p);
		sum += p;
	}
	shrink = expf(w->max[r] - top);
	w->sum[r] = w->sum[r] * shrink + hsum(sum);
	w->max[r] = top;
	for (int d = 0; d < w->vpad && shrink != 1; d += W)
		store(w->o + r * w->vpad + d, loadf(w->o + r * w->vpad + d) * splat(shrink));
}

static void narrow_values(const struct work *w, int n)
{
	struct tile t = {.wstep = 4 * (size_t)w->vpad, .xstep = 4, .n = n, .stride = (size_t)w->vpad, .add = true};

	for (int d = 0; d < w->vpad; d += RP * PANEL) {
		t.npanel = d + PANEL < w->vpad ? RP : 1;
		for (int r = 0; r < RP; r++)
			t.w[r] = (const uint8_t *)(w->v + d + (r < t.npanel ? r : 0) * PANEL);
		for (int row = 0, c; row < w->p->nrow; row += c) {
			c = (int)columns(w->p->nrow - row, COLS);
			for (int i = 0; i < c; i++)
				t.x[i] = (const uint8_t *)(w->s + (row + i) * KEYS);
			t.out = w->o + row * w->vpad + d;
			CAT(cpu_tiles)[LOAD_STRIDED][c](&t);
		}
	}
}

static void narrow_block(struct work *w, int key, int n)
{
	int whole = (n + W - 1) / W * W;

	memset(w->k + n * w->kpad, 0, (size_t)((whole - n) * w->kpad) * 4);
	for (int r = 0; r < w->p->nrow; r++)
		narrow_softmax(w, key, n, r);
	narrow_values(w, n);
}

/* ---- both --------------------------------------------------------------------------------------------- */

/* Value d of row r lies at o[r * row + d * dim]. */
static void finish(const struct work *w, int row, int dim)
{
	int vdim = w->a->vdim;

	for (int r = 0; r < w->p->nrow; r++) {
		float *state = w->p->state ? w->p->state + (size_t)r * (size_t)(vdim + 2) : NULL;
		float *out = state ? state + 2 : result(w, r);
		float scale = state ? 1 : w->sum[r] > 0 ? 1 / w->sum[r] : 0;
		for (int d = 0; d < vdim; d++)
			out[d] = w->o[r * row + d * dim] * scale;
		if (state) {
			state[0] = w->max[r];
			state[1] = w->sum[r];
		}
	}
}

static void set_work(struct work *w, const struct cpu_attend *a, const struct cpu_attend_part *p)
{
	w->a = a;
	w->p = p;
	w->group = a->nhead / a->nkv;
	w->kpad = (a->kdim + PANEL - 1) / PANEL * PANEL;
	w->vpad = (a->vdim + PANEL - 1) / PANEL * PANEL;
}

void CAT(cpu_attend)(const struct cpu_attend *a, const struct cpu_attend_part *p)
{
	struct work w;
	bool narrow = p->nrow <= NARROW;

	set_work(&w, a, p);
	set_rows(&w);
	set_scratch(&w);
	memset(w.o, 0, (size_t)(ATTEND_ROWS * w.vpad) * 4);
	if (narrow)
		narrow_queries(&w);
	else
		wide_queries(&w);
	for (int key = w.first; key < w.last; key += KEYS) {
		int n = w.last - key < KEYS ? w.last - key : KEYS;
		fetch_block(&w, key, n);
		if (narrow)
			narrow_block(&w, key, n);
		else
			wide_block(&w, key, n);
	}
	finish(&w, narrow ? w.vpad : 1, narrow ? 1 : ATTEND_ROWS);
}

static void merge_row(const struct work *w, int r, int nstate, size_t each)
{
	int vdim = w->a->vdim;
	const float *state = w->p->state + (size_t)r * (size_t)(vdim + 2);
	float *out = result(w, r), max = w->a->sink ? w->a->sink[head_of(w, r)] : -1e30f;

	for (int i = 0; i < nstate; i++)
		max = state[(size_t)i * each] > max ? state[(size_t)i * each] : max;
	float sum = w->a->sink ? expf(w->a->sink[head_of(w, r)] - max) : 0;
	memset(out, 0, (size_t)vdim * 4);
	for (int i = 0; i < nstate; i++) {
		const float *part = state + (size_t)i * each;
		float scale = expf(part[0] - max);
		sum += part[1] * scale;
		for (int d = 0; d < vdim; d++)
			out[d] += part[2 + d] * scale;
	}
	for (int d = 0; d < vdim; d++)
		out[d] *= sum > 0 ? 1 / sum : 0;
}

void CAT(cpu_attend_merge)(const struct cpu_attend *a, const struct cpu_attend_part *p, int nstate, size_t each)
{
	struct work w;

	set_work(&w, a, p);
	for (int r = 0; r < p->nrow; r++)
		merge_row(&w, r, nstate, each);
}
