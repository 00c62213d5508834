/* sampler.c - what is kept, how often each is drawn, penalties, seeds. */
#include "models/model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { VOCAB = 8, DRAWS = 40000 };

static const float logits[VOCAB] = {0, 3, 1, -2, 2, -1, -3, 0.5f};

static struct wf_sampling plain(void)
{
	return (struct wf_sampling){.temp = 1, .top_p = 1, .repeat_penalty = 1, .seed = 7};
}

static wf_sampler *make(struct wf_sampling how)
{
	wf_error err = {0};
	wf_sampler *s = wf_sampler_new(&err, &how, VOCAB);

	if (!s)
		fail_msg("%s", err.text);
	return s;
}

static void frequencies(struct wf_sampling how, double share[VOCAB])
{
	wf_sampler *s = make(how);

	memset(share, 0, sizeof *share * VOCAB);
	for (int i = 0; i < DRAWS; i++)
		share[wf_sampler_pick(s, logits)] += 1. / DRAWS;
	wf_sampler_free(s);
}

/* Against the softmax over `kept` of logit / temp. */
static void check(struct wf_sampling how, unsigned kept)
{
	double share[VOCAB], sum = 0;

	frequencies(how, share);
	for (int i = 0; i < VOCAB; i++)
		sum += kept >> i & 1 ? exp(logits[i] / how.temp) : 0;
	for (int i = 0; i < VOCAB; i++) {
		double want = kept >> i & 1 ? exp(logits[i] / how.temp) / sum : 0;
		if (fabs(share[i] - want) > 0.01 || (want == 0 && share[i] > 0))
			fail_msg("token %d: drawn %.4f of the time, expected %.4f", i, share[i], want);
	}
}

static void draws_by_softmax(void **state)
{
	struct wf_sampling how = plain();

	(void)state;
	check(how, 0xff);
	how.temp = 2;
	check(how, 0xff);
	how.temp = 0.3;
	check(how, 0xff);
}

static void top_k_keeps_k(void **state)
{
	struct wf_sampling how = plain();

	(void)state;
	how.top_k = 3;
	check(how, 1u << 1 | 1u << 4 | 1u << 2);
	how.top_k = 1;
	check(how, 1u << 1);
	how.top_k = VOCAB + 5;
	check(how, 0xff);
}

/* Of the softmax 1 has .601, 4 .221, 2 .081, 7 .049, 0 .030. */
static void top_p_keeps_mass(void **state)
{
	struct wf_sampling how = plain();

	(void)state;
	how.top_p = 0.6;
	check(how, 1u << 1);
	how.top_p = 0.82;
	check(how, 1u << 1 | 1u << 4);
	how.top_p = 0.9;
	check(how, 1u << 1 | 1u << 4 | 1u << 2);
}

static void min_p_drops(void **state)
{
	struct wf_sampling how = plain();

	(void)state;
	how.min_p = 0.13;            /* e^-2 = .135 stays */
	check(how, 1u << 1 | 1u << 4 | 1u << 2);
	how.temp = 3;                /* temperature comes last: the same set */
	check(how, 1u << 1 | 1u << 4 | 1u << 2);
	how.temp = 1;
	how.top_p = 0.82;            /* of the whole mass, not of what min_p leaves */
	check(how, 1u << 1 | 1u << 4);
}

static void zero_temperature_is_greedy(void **state)
{
	struct wf_sampling how = plain();
	wf_sampler *s;

	(void)state;
	how.temp = 0;
	s = make(how);
	assert_int_equal(wf_sampler_pick(s, logits), 1);
	wf_sampler_free(s);
}

static void penalties_count_the_window(void **state)
{
	struct wf_sampling how = plain();
	wf_sampler *s;

	(void)state;
	how.temp = 0;
	how.repeat_last_n = 2;
	how.repeat_penalty = 2;      /* 3 -> 1.5 < 2 */
	s = make(how);
	wf_sampler_accept(s, 1);
	assert_int_equal(wf_sampler_pick(s, logits), 4);
	wf_sampler_accept(s, 4);     /* 2 -> 1 */
	assert_int_equal(wf_sampler_pick(s, logits), 1);
	wf_sampler_accept(s, 6);     /* 1 has left the window */
	assert_int_equal(wf_sampler_pick(s, logits), 1);
	wf_sampler_free(s);
	how.repeat_last_n = -1;      /* all that came count */
	s = make(how);
	wf_sampler_accept(s, 1);
	for (int i = 0; i < 1000; i++)
		wf_sampler_accept(s, 6);
	assert_int_equal(wf_sampler_pick(s, logits), 4);
	wf_sampler_free(s);
}

static void presence_and_frequency(void **state)
{
	struct wf_sampling how = plain();
	wf_sampler *s;

	(void)state;
	how.temp = 0;
	how.repeat_last_n = 8;
	how.frequency_penalty = 0.6;
	s = make(how);
	wf_sampler_accept(s, 1);
	assert_int_equal(wf_sampler_pick(s, logits), 1);     /* 2.4 */
	wf_sampler_accept(s, 1);
	assert_int_equal(wf_sampler_pick(s, logits), 4);     /* 1.8 */
	wf_sampler_free(s);
	how.frequency_penalty = 0;
	how.presence_penalty = 1.1;
	s = make(how);
	wf_sampler_accept(s, 1);
	wf_sampler_accept(s, 1);
	assert_int_equal(wf_sampler_pick(s, logits), 4);     /* 1.9, once */
	wf_sampler_free(s);
}

static void seeds_repeat(void **state)
{
	struct wf_sampling how = plain(), other = plain();
	wf_sampler *a = make(how), *b = make(how), *c;
	int same = 0;

	(void)state;
	other.seed = 8;
	c = make(other);
	for (int i = 0; i < 100; i++) {
		int32_t id = wf_sampler_pick(a, logits);
		assert_int_equal(id, wf_sampler_pick(b, logits));
		same += id == wf_sampler_pick(c, logits);
	}
	assert_true(same < 100);
	wf_sampler_free(a);
	wf_sampler_free(b);
	wf_sampler_free(c);
}

static void odd_logits(void **state)
{
	float bad[VOCAB] = {NAN, -INFINITY, 1, -INFINITY, NAN, 0, -INFINITY, NAN}, none[VOCAB];
	wf_sampler *s = make(plain());
	int32_t id = wf_sampler_pick(s, bad);

	(void)state;
	assert_in_range(id, 0, VOCAB - 1);
	for (int i = 0; i < VOCAB; i++)
		none[i] = NAN;
	id = wf_sampler_pick(s, none);
	assert_in_range(id, 0, VOCAB - 1);
	wf_sampler_free(s);
}

/* Pearson's statistic of `draws` picks against the shares `want`; 0 stands for tokens that must not come. */
static double chi_square(struct wf_sampling how, const float *row, int64_t vocab,
		const double *want, int draws)
{
	wf_error err = {0};
	wf_sampler *s = wf_sampler_new(&err, &how, vocab);
	int *seen = calloc((size_t)vocab, sizeof *seen);
	double sum = 0;

	for (int i = 0; i < draws; i++)
		seen[wf_sampler_pick(s, row)]++;
	for (int64_t i = 0; i < vocab; i++) {
		double expected = want[i] * draws;
		if (seen[i] && want[i] == 0)
			fail_msg("token %d drawn %d times, expected never", (int)i, seen[i]);
		sum += expected > 0 ? (seen[i] - expected) * (seen[i] - expected) / expected : 0;
	}
	free(seen);
	wf_sampler_free(s);
	return sum;
}

/* Seven degrees of freedom: above 29.9 once in ten thousand seeds, and the seeds are fixed. */
static void draws_pass_chi_square(void **state)
{
	struct wf_sampling how = plain();

	(void)state;
	for (how.seed = 0; how.seed < 3; how.seed++) {
		for (how.temp = 0.5; how.temp < 3; how.temp *= 2) {
			double want[VOCAB], sum = 0;
			for (int i = 0; i < VOCAB; i++)
				sum += want[i] = exp(logits[i] / how.temp);
			for (int i = 0; i < VOCAB; i++)
				want[i] /= sum;
			assert_true(chi_square(how, logits, VOCAB, want, DRAWS) < 29.9);
		}
	}
}

/* A tail longer than the first look, against the same cut worked out by rank. */
static void large_vocabularies(void **state)
{
	enum { LARGE = 2000, STEP = 7, INVERSE = 1143 };       /* STEP * INVERSE is 1 mod LARGE */
	float *row = malloc(LARGE * sizeof *row);
	double *want = calloc(LARGE, sizeof *want), total = 0, sum = 0, kept = 0;
	struct wf_sampling how = plain();

	(void)state;
	for (int i = 0; i < LARGE; i++)                        /* token i has rank i * STEP mod LARGE */
		total += exp(row[i] = -0.001f * (float)(i * STEP % LARGE));
	how.top_p = 0.8;
	for (int rank = 0, id; rank < LARGE && sum < how.top_p * total; rank++, kept++) {
		id = rank * INVERSE % LARGE;
		sum += want[id] = exp(row[id]);
	}
	assert_true(kept > 1000 && kept < 1500);
	for (int i = 0; i < LARGE; i++)
		want[i] /= sum;
	/* of mean `kept` and deviation sqrt(2 kept) */
	assert_true(chi_square(how, row, LARGE, want, DRAWS / 10) < kept + 5 * sqrt(2 * kept));
	free(row);
	free(want);
}

static void ties_go_to_the_lowest(void **state)
{
	static const float equal[VOCAB] = {1, 2, 2, 2, 1, 2, 0, 2};
	struct wf_sampling how = plain();
	double want[VOCAB] = {0, 0.5, 0.5};

	(void)state;
	how.top_k = 2;
	assert_true(chi_square(how, equal, VOCAB, want, 10000) < 15);
	how.top_k = 1;
	assert_true(chi_square(how, equal, VOCAB, (double[VOCAB]){0, 1}, 1000) == 0);
	how.top_k = 0;
	how.top_p = 0;
	assert_true(chi_square(how, equal, VOCAB, (double[VOCAB]){0, 1}, 1000) == 0);
	how.temp = 0;
	assert_true(chi_square(how, equal, VOCAB, (double[VOCAB]){0, 1}, 10) == 0);
	how.temp = -1;
	assert_true(chi_square(how, equal, VOCAB, (double[VOCAB]){0, 1}, 10) == 0);
}

static void strict_min_p_keeps_the_best(void **state)
{
	struct wf_sampling how = plain();

	(void)state;
	how.min_p = 2;
	check(how, 1u << 1);
	how.min_p = 1;
	check(how, 1u << 1);
}

/* A NaN neither comes nor shifts what the others get. */
static void nan_is_no_candidate(void **state)
{
	const float row[VOCAB] = {NAN, 1, NAN, 0, -INFINITY, NAN, 1, -NAN};
	const double e = exp(1),
			want[VOCAB] = {0, e / (2 * e + 1), 0, 1 / (2 * e + 1), 0, 0, e / (2 * e + 1), 0};
	struct wf_sampling how = plain();

	(void)state;
	assert_true(chi_square(how, row, VOCAB, want, DRAWS) < 18);
	how.top_p = 0.999;
	how.top_k = 7;
	assert_true(chi_square(how, row, VOCAB, want, DRAWS) < 18);
	how.top_p = 0.8;
	how.top_k = 0;
	assert_true(chi_square(how, row, VOCAB, (double[VOCAB]){0, 0.5, 0, 0, 0, 0, 0.5}, DRAWS) < 15);
	how.temp = 0;
	assert_true(chi_square(how, row, VOCAB, (double[VOCAB]){0, 1}, 10) == 0);
}

static void infinite_logits(void **state)
{
	const float one[VOCAB] = {0, 1, INFINITY, 3},
			none[VOCAB] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY,
		-INFINITY, -INFINITY, -INFINITY};
	struct wf_sampling how = plain();

	(void)state;
	assert_true(chi_square(how, one, VOCAB, (double[VOCAB]){0, 0, 1}, 1000) == 0);
	assert_true(chi_square(how, none, VOCAB, (double[VOCAB]){1}, 100) == 0);
	how.temp = 0;
	assert_true(chi_square(how, one, VOCAB, (double[VOCAB]){0, 0, 1}, 10) == 0);
	assert_true(chi_square(how, none, VOCAB, (double[VOCAB]){1}, 10) == 0);
	how.temp = 1e-30;
	assert_true(chi_square(how, logits, VOCAB, (double[VOCAB]){0, 1}, 1000) == 0);
}

static void accepts_any_id(void **state)
{
	struct wf_sampling how = plain();
	wf_sampler *s;

	(void)state;
	how.repeat_last_n = 3;
	how.frequency_penalty = 1;
	s = make(how);
	for (int32_t id = -5; id < 1000; id++)
		wf_sampler_accept(s, id % 50 == 0 ? INT32_MAX : id);
	assert_in_range(wf_sampler_pick(s, logits), 0, VOCAB - 1);
	wf_sampler_free(s);
	wf_sampler_free(NULL);
}

static void refuses_nonsense(void **state)
{
	struct wf_sampling how = plain();
	wf_error err = {0};

	(void)state;
	assert_null(wf_sampler_new(&err, &how, 0));
	how.repeat_last_n = -2;
	assert_null(wf_sampler_new(&err, &how, VOCAB));
	how.repeat_last_n = 0;
	how.repeat_penalty = 0;
	assert_null(wf_sampler_new(&err, &how, VOCAB));
	how = plain();
	how.temp = NAN;
	assert_null(wf_sampler_new(&err, &how, VOCAB));
	assert_true(err.set);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(draws_by_softmax),
		cmocka_unit_test(top_k_keeps_k),
		cmocka_unit_test(top_p_keeps_mass),
		cmocka_unit_test(min_p_drops),
		cmocka_unit_test(zero_temperature_is_greedy),
		cmocka_unit_test(penalties_count_the_window),
		cmocka_unit_test(presence_and_frequency),
		cmocka_unit_test(seeds_repeat),
		cmocka_unit_test(odd_logits),
		cmocka_unit_test(draws_pass_chi_square),
		cmocka_unit_test(large_vocabularies),
		cmocka_unit_test(ties_go_to_the_lowest),
		cmocka_unit_test(strict_min_p_keeps_the_best),
		cmocka_unit_test(nan_is_no_candidate),
		cmocka_unit_test(infinite_logits),
		cmocka_unit_test(accepts_any_id),
		cmocka_unit_test(refuses_nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
