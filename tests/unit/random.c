/* random.c - hash-made weights: fixed values, the right spread, types and names. */
#include "graph/graph.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static wf_tensor matrix = {.name = "blk.0.attn_q.weight", .ndim = 2, .dim = {64, 1024}, .dtype = WF_F32};
static wf_tensor norm = {.name = "blk.0.attn_norm.weight", .ndim = 1, .dim = {4096}, .dtype = WF_F32};

/* Written down once: whoever changes the hash changes every published number made with it. */
static void values_are_fixed(void **state)
{
	float v[4], w;

	(void)state;
	wf_random_fill((struct wf_random){.key = 0, .scale = 1}, 0, 4, WF_F32, v);
	/* splitmix64 from 0: e220a8397b1dcdaf 6e789e6aa1b965f4 06c45d188009454f f88bb8a8724c81ec */
	assert_true(v[0] == (float)(0xe220a8 / 8388608.0 - 1));
	assert_true(v[1] == (float)(0x6e789e / 8388608.0 - 1));
	assert_true(v[2] == (float)(0x06c45d / 8388608.0 - 1));
	assert_true(v[3] == (float)(0xf88bb8 / 8388608.0 - 1));
	wf_random_fill((struct wf_random){.key = 0, .scale = 1}, 3, 1, WF_F32, &w);
	assert_true(w == v[3]);
}

static void spread(struct wf_random r, double mean, double deviation)
{
	static float v[65536];
	double sum = 0, square = 0;

	wf_random_fill(r, 0, 65536, WF_F32, v);
	for (int i = 0; i < 65536; i++) {
		sum += v[i];
		square += (v[i] - mean) * (v[i] - mean);
	}
	assert_true(fabs(sum / 65536 - mean) < 0.02 * deviation);
	assert_true(fabs(sqrt(square / 65536) / deviation - 1) < 0.02);
}

static void spread_is_right(void **state)
{
	(void)state;
	spread(wf_random_of(&matrix, 1), 0, 0.02);
	spread(wf_random_of(&norm, 1), 1, 1 / 16. / sqrt(3));
}

static void names_and_seeds_differ(void **state)
{
	wf_tensor other = matrix;

	(void)state;
	other.name = "blk.1.attn_q.weight";
	assert_true(wf_random_of(&matrix, 1).key != wf_random_of(&other, 1).key);
	assert_true(wf_random_of(&matrix, 1).key != wf_random_of(&matrix, 2).key);
}

static void types_round(void **state)
{
	struct wf_random r = wf_random_of(&matrix, 7);
	uint16_t half[33], brain[33];
	float v[33];

	(void)state;
	wf_random_fill(r, 5, 33, WF_F32, v);
	wf_random_fill(r, 5, 33, WF_F16, half);
	wf_random_fill(r, 5, 33, WF_BF16, brain);
	for (int i = 0; i < 33; i++) {
		assert_int_equal(half[i], wf_f32_to_f16(v[i]));
		assert_int_equal(brain[i], wf_f32_to_bf16(v[i]));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_are_fixed),
		cmocka_unit_test(spread_is_right),
		cmocka_unit_test(names_and_seeds_differ),
		cmocka_unit_test(types_round),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
