/* quant.c - decoders against the reference blocks, to the bit; conversions over their whole range. */
#include "harness.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "quants.h"

static void blocks_decode_exactly(void **state)
{
	(void)state;
	for (wf_dtype t = WF_Q4_0; t < WF_NDTYPE; t++) {
		size_t nbin, nf32;
		void *bin = quant_file(t, "bin", &nbin);
		if (!bin) {
			print_message("no quants under WEFT_SHARED\n");
			skip();
		}
		float *want = quant_file(t, "f32", &nf32);
		assert_non_null(want);
		int64_t n = (int64_t)(nf32 / sizeof(float));
		assert_int_equal(n, 64 * 256);
		assert_int_equal(wf_row_bytes(t, n), nbin);
		char *odd = malloc(nbin + 1);               /* blocks may lie anywhere */
		float *got = malloc(nf32);
		memcpy(odd + 1, bin, nbin);
		wf_decode(t, got, odd + 1, n);
		for (int64_t i = 0; i < n; i++)
			if (memcmp(&got[i], &want[i], 4))
				fail_msg("%s: value %lld is %.9g, expected %.9g", wf_dtypes[t].name, (long long)i, got[i], want[i]);
		free(bin), free(want), free(odd), free(got);
	}
}

static void f16_round_trips(void **state)
{
	(void)state;
	for (uint32_t h = 0; h < 65536; h++) {
		float f = wf_f16_to_f32((uint16_t)h);
		uint16_t back = wf_f32_to_f16(f);
		if (isnan(f))
			assert_int_equal(back, h | 0x200);
		else
			assert_int_equal(back, h);
	}
	assert_true(wf_f16_to_f32(0x3c00) == 1 && wf_f16_to_f32(0x7bff) == 65504);
	assert_true(wf_f16_to_f32(1) == 0x1p-24f && wf_f16_to_f32(0x83ff) == -1023 * 0x1p-24f);
	assert_true(isinf(wf_f16_to_f32(0xfc00)) && wf_f16_to_f32(0xfc00) < 0);
}

/* Between two neighbours the nearer wins, half way the even one. */
static void f16_rounds_to_even(void **state)
{
	(void)state;
	for (uint32_t h = 0; h < 0x7bff; h++) {
		float low = wf_f16_to_f32((uint16_t)h), high = wf_f16_to_f32((uint16_t)(h + 1));
		float mid = (low + high) / 2;
		assert_int_equal(wf_f32_to_f16(mid), h & 1 ? h + 1 : h);
		assert_int_equal(wf_f32_to_f16(nextafterf(mid, 0)), h);
		assert_int_equal(wf_f32_to_f16(nextafterf(mid, 1e9f)), h + 1);
	}
	assert_int_equal(wf_f32_to_f16(nextafterf(65520, 0)), 0x7bff);
	assert_int_equal(wf_f32_to_f16(65520), 0x7c00);
	assert_int_equal(wf_f32_to_f16(-INFINITY), 0xfc00);
	assert_int_equal(wf_f32_to_f16(-1e-30f), 0x8000);
}

static void bf16_rounds_to_even(void **state)
{
	(void)state;
	for (uint32_t h = 0; h < 0x7f80; h++) {
		float low = wf_bf16_to_f32((uint16_t)h);
		uint32_t u = h << 16 | 0x8000;
		float mid;
		memcpy(&mid, &u, 4);
		assert_int_equal(wf_f32_to_bf16(low), h);
		assert_int_equal(wf_f32_to_bf16(mid), h & 1 ? h + 1 : h);
		assert_int_equal(wf_f32_to_bf16(nextafterf(mid, INFINITY)), h + 1);
	}
	uint32_t quiet = 0x7f800001;                    /* truncated, its payload would vanish */
	float nan;
	memcpy(&nan, &quiet, 4);
	assert_true(isnan(wf_bf16_to_f32(wf_f32_to_bf16(nan))));
}

static void encode_is_decode_backwards(void **state)
{
	float in[6] = {0, -1.5f, 3, 1e30f, -1e30f, NAN}, out[6];
	int32_t words[6];

	(void)state;
	wf_encode(WF_I32, words, in, 6);
	assert_int_equal(words[1], -1);
	assert_int_equal(words[2], 3);
	assert_int_equal(words[3], INT32_MAX);
	assert_int_equal(words[4], INT32_MIN);
	assert_int_equal(words[5], 0);
	for (wf_dtype t = WF_F32; t <= WF_I32; t++) {
		char mem[24];
		wf_encode(t, mem, (float[]){0, -2, 3, 4, 5, 6}, 6);
		wf_decode(t, out, mem, 6);
		assert_true(out[0] == 0 && out[1] == -2 && out[5] == 6);
	}
}

static void names_and_numbers(void **state)
{
	(void)state;
	assert_int_equal(wf_dtype_find("q4_k"), WF_Q4_K);
	assert_int_equal(wf_dtype_find("q4_K"), -1);
	assert_int_equal(wf_dtype_from_gguf(12), WF_Q4_K);
	assert_int_equal(wf_dtype_from_gguf(4), -1);
	assert_int_equal(wf_dtype_from_gguf(UINT32_MAX), -1);
	assert_int_equal(wf_row_bytes(WF_Q6_K, 512), 420);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks_decode_exactly),
		cmocka_unit_test(f16_round_trips),
		cmocka_unit_test(f16_rounds_to_even),
		cmocka_unit_test(bf16_rounds_to_even),
		cmocka_unit_test(encode_is_decode_backwards),
		cmocka_unit_test(names_and_numbers),
	};

	return cmocka_run_group_tests_name("quant", tests, NULL, NULL);
}
