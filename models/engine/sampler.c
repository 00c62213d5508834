/* sampler.c - the next token from a row of logits.
 *
 * In llama.cpp's order: penalties, top-k, top-p, min-p, temperature, then one draw.  Top-p and min-p so
 * see the distribution before the temperature.  Candidates are kept best first, the lower id first
 * among equals, so the same seed gives the same tokens.  NaN counts as minus infinity: such a token is
 * never drawn, and when nothing can be drawn the answer is token 0. */
#include "models/model.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { MAXWINDOW = 1 << 24, FIRST_LOOK = 512 };

struct candidate { float logit; int32_t id; };

struct wf_sampler {
	wf_arena *arena;
	struct wf_sampling set;
	int64_t vocab;
	uint64_t state;              /* of the generator */
	struct candidate *heap;      /* [vocab] */
	float *penalised;            /* [vocab] */
	uint32_t *count;             /* [vocab] how often a token stands in the window */
	int32_t *window;             /* [repeat_last_n] the last tokens, a ring; of no length when all count */
	int64_t accepted;
	bool penalties;
};

static int check(wf_error *err, const struct wf_sampling *set, int64_t vocab)
{
	const struct { const char *name; double value, min, max; } rows[] = {
		{"temp", set->temp, -FLT_MAX, 1e6}, {"top_p", set->top_p, -1, FLT_MAX},
		{"min_p", set->min_p, -1, FLT_MAX},
		{"repeat_penalty", set->repeat_penalty, 1e-6, 1e6},
		{"presence_penalty", set->presence_penalty, -1e6, 1e6},
		{"frequency_penalty", set->frequency_penalty, -1e6, 1e6},
		{"repeat_last_n", set->repeat_last_n, -1, MAXWINDOW},
		{"vocab", (double)vocab, 1, INT32_MAX},
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		if (!(rows[i].value >= rows[i].min && rows[i].value <= rows[i].max))
			return wf_fail(err, "sampling: expected %s from %g to %g, found %g", rows[i].name,
					rows[i].min, rows[i].max, rows[i].value);
	return 0;
}

wf_sampler *wf_sampler_new(wf_error *err, const struct wf_sampling *set, int64_t vocab)
{
	wf_arena *arena = check(err, set, vocab) < 0 ? NULL : wf_arena_new();
	wf_sampler *s = arena ? wf_alloc(arena, sizeof *s) : NULL;
	int window = set->repeat_last_n;

	if (s) {
		s->arena = arena;
		s->set = *set;
		s->vocab = vocab;
		s->state = set->seed;
		s->penalties = window &&
				(set->repeat_penalty != 1 || set->presence_penalty != 0 ||
				set->frequency_penalty != 0);
		s->heap = wf_alloc_n(arena, (size_t)vocab, sizeof *s->heap);
		s->penalised = wf_alloc_n(arena, s->penalties ? (size_t)vocab : 0, sizeof *s->penalised);
		s->count = wf_alloc_n(arena, s->penalties ? (size_t)vocab : 0, sizeof *s->count);
		s->window = wf_alloc_n(arena, window > 0 ? (size_t)window : 0, sizeof *s->window);
	}
	if (!s || !s->heap || !s->penalised || !s->count || !s->window) {
		wf_fail(err, "sampling: out of memory for a vocabulary of %lld", (long long)vocab);
		wf_arena_free(arena);
		return NULL;
	}
	return s;
}

void wf_sampler_free(wf_sampler *s)
{
	if (s)
		wf_arena_free(s->arena);
}

void wf_sampler_accept(wf_sampler *s, int32_t id)
{
	int window = s->set.repeat_last_n;

	if (!s->penalties || id < 0 || id >= s->vocab)
		return;
	if (window > 0) {
		int32_t *slot = &s->window[s->accepted++ % window];
		if (s->accepted > window)
			s->count[*slot]--;
		*slot = id;
	}
	s->count[id]++;
}

static float penalty(const wf_sampler *s, float logit, uint32_t n)
{
	double scaled = logit > 0 ? logit / s->set.repeat_penalty : logit * s->set.repeat_penalty;

	return (float)(scaled - n * s->set.frequency_penalty - s->set.presence_penalty);
}

static const float *penalise(wf_sampler *s, const float *logits)
{
	if (!s->penalties)
		return logits;
	for (int64_t i = 0; i < s->vocab; i++)
		s->penalised[i] = s->count[i] ? penalty(s, logits[i], s->count[i]) : logits[i];
	return s->penalised;
}

static int32_t best(const wf_sampler *s, const float *row)
{
	float top = -INFINITY;
	int32_t id = 0;

	for (int64_t i = 0; i < s->vocab; i++) {
		if (row[i] > top) {
			top = row[i];
			id = (int32_t)i;
		}
	}
	return id;
}

/* ---- the best few, by a heap whose root is the worst of them ---- */

static bool worse(struct candidate a, struct candidate b)
{
	return a.logit < b.logit || (a.logit == b.logit && a.id > b.id);
}

static void sift(struct candidate *heap, int64_t n, int64_t at, struct candidate c)
{
	for (int64_t child; (child = 2 * at + 1) < n; at = child) {
		if (child + 1 < n && worse(heap[child + 1], heap[child]))
			child++;
		if (!worse(heap[child], c))
			break;
		heap[at] = heap[child];
	}
	heap[at] = c;
}

/* With plus infinity as the largest number, so that differences of logits are numbers. */
static struct candidate candidate(const float *row, int64_t id)
{
	return (struct candidate){row[id] > FLT_MAX ? FLT_MAX : row[id], (int32_t)id};
}

/* The k best tokens into s->heap, best first; how many there are. */
static int64_t select_best(wf_sampler *s, const float *row, int64_t k)
{
	struct candidate *heap = s->heap;
	int64_t n = 0, i = 0;

	for (; i < s->vocab && n < k; i++)
		if (row[i] > -INFINITY)
			heap[n++] = candidate(row, i);
	for (int64_t at = n / 2; at-- > 0;)
		sift(heap, n, at, heap[at]);
	for (; i < s->vocab; i++)
		if (row[i] > heap[0].logit)
			sift(heap, n, 0, candidate(row, i));
	for (int64_t end = n; end-- > 1;) {
		struct candidate last = heap[end];
		heap[end] = heap[0];
		sift(heap, end, 0, last);
	}
	return n;
}

/* All tokens into s->heap, the best one first, the others in no order. */
static int64_t select_all(wf_sampler *s, const float *row)
{
	struct candidate *c = s->heap;
	int32_t top = best(s, row);
	int64_t n = 0;

	for (int64_t i = 0; i < s->vocab; i++)
		if (row[i] > -INFINITY)
			c[n++] = candidate(row, i);
	for (int64_t i = 0; i < n; i++) {
		if (c[i].id == top) {
			c[i] = c[0];
			c[0] = candidate(row, top);
			break;
		}
	}
	return n;
}

/* ---- cuts ---- */

static double weight_of_all(const wf_sampler *s, const float *row, float top)
{
	double sum = 0;

	for (int64_t i = 0; i < s->vocab; i++)
		if (row[i] > -INFINITY)
			sum += exp((double)candidate(row, i).logit - top);
	return sum;
}

/* How many of the n best top-p and min-p keep, of a distribution whose weights add up to `total`. */
static int64_t cut(const wf_sampler *s, int64_t n, double total)
{
	const struct candidate *c = s->heap;
	double sum = 0;
	int64_t kept = 0;

	while (kept < n) {
		double weight = exp((double)c[kept].logit - c[0].logit);
		if (kept && weight < s->set.min_p)
			break;
		kept++;
		sum += weight;
		if (s->set.top_p < 1 && sum >= s->set.top_p * total)
			break;
	}
	return kept;
}

static double weight_of_best(const wf_sampler *s, int64_t n)
{
	double sum = 0;

	for (int64_t i = 0; i < n; i++)
		sum += exp((double)s->heap[i].logit - s->heap[0].logit);
	return sum;
}

/* Without top-k the cuts seldom reach far: few are looked at first, so that a large vocabulary need
 * not be sorted. */
static int64_t cut_whole(wf_sampler *s, const float *row)
{
	double total = 0;

	if (s->set.top_p >= 1 && s->set.min_p <= 0)
		return select_all(s, row);
	for (int64_t look = FIRST_LOOK;; look *= 8) {
		int64_t n = select_best(s, row, look < s->vocab ? look : s->vocab);
		if (n && total == 0)
			total = weight_of_all(s, row, s->heap[0].logit);
		int64_t kept = cut(s, n, total);
		if (kept < n || n < look)
			return kept;
	}
}

static int64_t choose(wf_sampler *s, const float *row)
{
	int64_t k = s->set.top_k;

	if (k <= 0 || k >= s->vocab)
		return cut_whole(s, row);
	int64_t n = select_best(s, row, k);
	return cut(s, n, weight_of_best(s, n));
}

/* ---- the draw ---- */

static const uint64_t STRIDE = 0x9e3779b97f4a7c15u;

/* splitmix64; 53 bits of it as a number in [0, 1) */
static double uniform(wf_sampler *s)
{
	uint64_t z = s->state += STRIDE;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

static int32_t draw(wf_sampler *s, int64_t n)
{
	const struct candidate *c = s->heap;
	double sum = 0, at = uniform(s);

	for (int64_t i = 0; i < n; i++)
		sum += exp(((double)c[i].logit - c[0].logit) / s->set.temp);
	at *= sum;
	for (int64_t i = 0; i < n; i++)
		if ((at -= exp(((double)c[i].logit - c[0].logit) / s->set.temp)) < 0)
			return c[i].id;
	return c[0].id;
}

int32_t wf_sampler_pick(wf_sampler *s, const float *logits)
{
	const float *row = penalise(s, logits);

	if (s->set.temp <= 0)
		return best(s, row);
	int64_t n = choose(s, row);
	return n ? draw(s, n) : 0;
}

bool wf_sampler_describe(wf_sampler *s, struct wf_pick *out)
{
	if (s->penalties)
		return false;
	*out = (struct wf_pick){.temp = s->set.temp, .top_p = s->set.top_p, .min_p = s->set.min_p, .repeat = 1,
		.top_k = s->set.top_k, .draw = s->state};
	s->state += s->set.temp > 0 ? STRIDE : 0;
	return true;
}
