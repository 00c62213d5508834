/* sampler.c - what is kept, how often each is drawn, penalties, seeds. */
#include "models/model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
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

static void refuses_nonsense(void **state)
{
	struct wf_sampling how = plain();
	wf_error err = {0};

	(void)state;
	assert_null(wf_sampler_new(&err, &how, 0));
	how.repeat_last_n = -1;
	assert_null(wf_sampler_new(&err, &how, VOCAB));
	how.repeat_last_n = 0;
	how.repeat_penalty = 0;
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
		cmocka_unit_test(refuses_nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
