/* sampler.c - from logits to a token: penalties, the likeliest k, the likeliest that add up to p, a
 * floor relative to the best, temperature, and a draw.  The order is llama.cpp's, so equal settings
 * mean the same distribution.
 *
 * What is needed was allocated when the sampler was made: a pick allocates nothing. */
#include "models/model.h"
#include <math.h>
#include <string.h>

enum { MAXLAST = 1 << 24 };

struct candidate { float logit; int32_t id; };

struct wf_sampler {
	struct wf_sampling how;
	int64_t vocab;
	uint64_t state;
	int32_t *last;                        /* ring of the last accepted tokens, [how.repeat_last_n] */
	int32_t *count;                       /* [vocab] how often each stands in the ring */
	int nlast, at;
	float *logit;                         /* [vocab] after penalties */
	struct candidate *cand;               /* [vocab] */
};

wf_sampler *wf_sampler_new(wf_error *err, const struct wf_sampling *how, int64_t vocab)
{
	wf_sampler *s = NULL;

	if (vocab < 1 || vocab > INT32_MAX || how->repeat_last_n < 0 || how->repeat_last_n > MAXLAST ||
	    !(how->repeat_penalty > 0)) {
		wf_fail(err, "sampler: vocabulary of %lld, window of %d, repeat penalty %g: out of range", (long long)vocab,
			how->repeat_last_n, how->repeat_penalty);
		return NULL;
	}
	s = calloc(1, sizeof *s);
	if (s) {
		*s = (wf_sampler){.how = *how, .vocab = vocab, .state = how->seed};
		s->last = calloc((size_t)how->repeat_last_n + 1, sizeof *s->last);
		s->count = calloc((size_t)vocab, sizeof *s->count);
		s->logit = calloc((size_t)vocab, sizeof *s->logit);
		s->cand = calloc((size_t)vocab, sizeof *s->cand);
	}
	if (!s || !s->last || !s->count || !s->logit || !s->cand) {
		wf_sampler_free(s);
		wf_fail(err, "sampler: out of memory");
		return NULL;
	}
	return s;
}

void wf_sampler_free(wf_sampler *s)
{
	if (!s)
		return;
	free(s->last);
	free(s->count);
	free(s->logit);
	free(s->cand);
	free(s);
}

void wf_sampler_accept(wf_sampler *s, int32_t id)
{
	if (!s->how.repeat_last_n || id < 0 || id >= s->vocab)
		return;
	if (s->nlast == s->how.repeat_last_n)
		s->count[s->last[s->at]]--;
	else
		s->nlast++;
	s->last[s->at] = id;
	s->count[id]++;
	s->at = (s->at + 1) % s->how.repeat_last_n;
}

/* Only tokens of the ring differ: each once, though it may stand there often. */
static const float *penalise(wf_sampler *s, const float *logits)
{
	const struct wf_sampling *how = &s->how;

	if (!s->nlast || (how->repeat_penalty == 1 && how->presence_penalty == 0 && how->frequency_penalty == 0))
		return logits;
	memcpy(s->logit, logits, sizeof *s->logit * s->vocab);
	for (int i = 0; i < s->nlast; i++) {
		int32_t id = s->last[i];
		double v = logits[id];
		v = v > 0 ? v / how->repeat_penalty : v * how->repeat_penalty;
		s->logit[id] = (float)(v - s->count[id] * how->frequency_penalty - how->presence_penalty);
	}
	return s->logit;
}

static int32_t likeliest(const float *logits, int64_t n)
{
	int32_t best = 0;

	for (int64_t i = 1; i < n; i++)
		if (logits[i] > logits[best] || logits[best] != logits[best])
			best = (int32_t)i;
	return best;
}

/* a before b: the likelier first, of equals the lower number */
static int compare(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->logit != y->logit)
		return x->logit > y->logit ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

/* The heap keeps the least likely at the top. */
static void sink(struct candidate *heap, int64_t n, int64_t i)
{
	for (;;) {
		int64_t low = i;
		for (int64_t c = 2 * i + 1; c <= 2 * i + 2 && c < n; c++)
			if (compare(&heap[c], &heap[low]) > 0)
				low = c;
		if (low == i)
			return;
		struct candidate swap = heap[i];
		heap[i] = heap[low];
		heap[low] = swap;
		i = low;
	}
}

static int64_t keep_likeliest(wf_sampler *s, const float *logits, int64_t k)
{
	for (int64_t i = 0; i < k; i++)
		s->cand[i] = (struct candidate){logits[i], (int32_t)i};
	for (int64_t i = k / 2; i-- > 0; )
		sink(s->cand, k, i);
	for (int64_t i = k; i < s->vocab; i++)
		if (logits[i] > s->cand[0].logit) {
			s->cand[0] = (struct candidate){logits[i], (int32_t)i};
			sink(s->cand, k, 0);
		}
	return k;
}

/* What min_p drops comes last in any case, so it may be dropped before sorting: *mass still counts it. */
static int64_t drop_unlikely(wf_sampler *s, int64_t n, float best, double *mass)
{
	double floor = s->how.min_p > 0 ? log(s->how.min_p) : -INFINITY;
	int64_t kept = 0;

	*mass = 0;
	for (int64_t i = 0; i < n; i++) {
		*mass += exp((double)s->cand[i].logit - best);
		if (s->cand[i].logit - best >= floor)
			s->cand[kept++] = s->cand[i];
	}
	return kept;
}

static int64_t keep_mass(const wf_sampler *s, int64_t n, double mass)
{
	double sum = 0;

	if (s->how.top_p >= 1)
		return n;
	for (int64_t i = 0; i < n; i++) {
		sum += exp((double)s->cand[i].logit - s->cand[0].logit);
		if (sum >= s->how.top_p * mass)
			return i + 1;
	}
	return n;
}

/* splitmix64, its upper 53 bits as a number in [0, 1) */
static double uniform(wf_sampler *s)
{
	uint64_t z = s->state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static int32_t draw(wf_sampler *s, int64_t n)
{
	double sum = 0, at = uniform(s);

	for (int64_t i = 0; i < n; i++)
		sum += exp(((double)s->cand[i].logit - s->cand[0].logit) / s->how.temp);
	at *= sum;
	for (int64_t i = 0; i < n; i++) {
		at -= exp(((double)s->cand[i].logit - s->cand[0].logit) / s->how.temp);
		if (at < 0)
			return s->cand[i].id;
	}
	return s->cand[n - 1].id;
}

int32_t wf_sampler_pick(wf_sampler *s, const float *logits)
{
	double mass;

	logits = penalise(s, logits);
	int32_t best = likeliest(logits, s->vocab);
	if (!(s->how.temp > 0) || !isfinite(logits[best]))
		return best;
	int64_t n = keep_likeliest(s, logits, s->how.top_k > 0 && s->how.top_k < s->vocab ? s->how.top_k : s->vocab);
	n = drop_unlikely(s, n, logits[best], &mass);
	qsort(s->cand, (size_t)n, sizeof *s->cand, compare);
	return draw(s, keep_mass(s, n, mass));
}
