/* dtype.c - one row per type of number, and the conversions of the plain ones.
 *
 * Data may lie at any address: a safetensors header can have any length, so values are loaded with
 * memcpy. */
#include "graph/graph.h"

#include <assert.h>
#include <string.h>

static uint32_t bits(float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof u);
	return u;
}

static float from_bits(uint32_t u)
{
	float f;

	memcpy(&f, &u, sizeof f);
	return f;
}

float wf_f16_to_f32(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, mag = h & 0x7fff;

	if (mag >= 0x7c00)
		return from_bits(sign | 0x7f800000 | (mag & 0x3ff) << 13);
	if (mag >= 0x400)
		return from_bits(sign | ((mag << 13) + (112u << 23)));
	float small = (float)mag * 0x1p-24f;
	return sign ? -small : small;
}

uint16_t wf_f32_to_f16(float f)
{
	uint32_t sign = bits(f) >> 16 & 0x8000, mag = bits(f) & 0x7fffffff;

	if (mag > 0x7f800000)
		return (uint16_t)(sign | 0x7e00 | (mag >> 13 & 0x3ff));
	if (mag >= 0x477ff000)                    /* 65520, half way past the largest */
		return (uint16_t)(sign | 0x7c00);
	if (mag < 0x38800000)                     /* subnormal: an ulp of 0.5f is 2^-24, so + rounds */
		return (uint16_t)(sign | (bits(from_bits(mag) + 0.5f) - bits(0.5f)));
	mag += 0xfff + (mag >> 13 & 1);
	return (uint16_t)(sign | (mag - (112u << 23)) >> 13);
}

float wf_bf16_to_f32(uint16_t h)
{
	return from_bits((uint32_t)h << 16);
}

uint16_t wf_f32_to_bf16(float f)
{
	uint32_t u = bits(f);

	if ((u & 0x7fffffff) > 0x7f800000)
		return (uint16_t)(u >> 16 | 0x40);
	return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static void decode_f32(float *out, const void *in, int64_t n)
{
	memcpy(out, in, (size_t)n * sizeof *out);
}

static void decode_f16(float *out, const void *in, int64_t n)
{
	for (int64_t i = 0; i < n; i++) {
		uint16_t h;
		memcpy(&h, (const char *)in + 2 * i, sizeof h);
		out[i] = wf_f16_to_f32(h);
	}
}

static void decode_bf16(float *out, const void *in, int64_t n)
{
	for (int64_t i = 0; i < n; i++) {
		uint16_t h;
		memcpy(&h, (const char *)in + 2 * i, sizeof h);
		out[i] = wf_bf16_to_f32(h);
	}
}

static void decode_i32(float *out, const void *in, int64_t n)
{
	for (int64_t i = 0; i < n; i++) {
		int32_t v;
		memcpy(&v, (const char *)in + 4 * i, sizeof v);
		out[i] = (float)v;
	}
}

const struct wf_dtype_info wf_dtypes[WF_NDTYPE] = {
	[WF_F32]    = {"f32",      1,   4,  0, "F32",  decode_f32},
	[WF_F16]    = {"f16",      1,   2,  1, "F16",  decode_f16},
	[WF_BF16]   = {"bf16",     1,   2, 30, "BF16", decode_bf16},
	[WF_I32]    = {"i32",      1,   4, 26, "I32",  decode_i32},
	[WF_Q4_0]   = {"q4_0",    32,  18,  2, NULL,   quant_q4_0},
	[WF_Q4_1]   = {"q4_1",    32,  20,  3, NULL,   quant_q4_1},
	[WF_Q5_0]   = {"q5_0",    32,  22,  6, NULL,   quant_q5_0},
	[WF_Q5_1]   = {"q5_1",    32,  24,  7, NULL,   quant_q5_1},
	[WF_Q8_0]   = {"q8_0",    32,  34,  8, NULL,   quant_q8_0},
	[WF_Q2_K]   = {"q2_k",   256,  84, 10, NULL,   quant_q2_k},
	[WF_Q3_K]   = {"q3_k",   256, 110, 11, NULL,   quant_q3_k},
	[WF_Q4_K]   = {"q4_k",   256, 144, 12, NULL,   quant_q4_k},
	[WF_Q5_K]   = {"q5_k",   256, 176, 13, NULL,   quant_q5_k},
	[WF_Q6_K]   = {"q6_k",   256, 210, 14, NULL,   quant_q6_k},
	[WF_IQ4_NL] = {"iq4_nl",  32,  18, 20, NULL,   quant_iq4_nl},
	[WF_IQ4_XS] = {"iq4_xs", 256, 136, 23, NULL,   quant_iq4_xs},
};

int wf_dtype_find(const char *name)
{
	for (int i = 0; i < WF_NDTYPE; i++)
		if (!strcmp(wf_dtypes[i].name, name))
			return i;
	return -1;
}

int wf_dtype_from_gguf(uint32_t type)
{
	for (int i = 0; i < WF_NDTYPE; i++)
		if (wf_dtypes[i].gguf >= 0 && (uint32_t)wf_dtypes[i].gguf == type)
			return i;
	return -1;
}

size_t wf_row_bytes(wf_dtype dtype, int64_t n)
{
	const struct wf_dtype_info *d = &wf_dtypes[dtype];

	assert(n % d->block == 0);
	return (size_t)(n / d->block) * (size_t)d->bytes;
}

void wf_decode(wf_dtype dtype, float *out, const void *in, int64_t n)
{
	wf_dtypes[dtype].decode(out, in, n);
}

static int32_t to_i32(float f)
{
	if (!(f > -0x1p31f))                      /* also NaN */
		return f == f ? INT32_MIN : 0;
	return f < 0x1p31f ? (int32_t)f : INT32_MAX;
}

void wf_encode(wf_dtype dtype, void *out, const float *in, int64_t n)
{
	uint16_t *half = out;
	int32_t *word = out;

	switch (dtype) {
	case WF_F32:
		memcpy(out, in, (size_t)n * sizeof *in);
		break;
	case WF_F16:
		for (int64_t i = 0; i < n; i++)
			half[i] = wf_f32_to_f16(in[i]);
		break;
	case WF_BF16:
		for (int64_t i = 0; i < n; i++)
			half[i] = wf_f32_to_bf16(in[i]);
		break;
	case WF_I32:
		for (int64_t i = 0; i < n; i++)
			word[i] = to_i32(in[i]);
		break;
	default:
		wf_die("wf_encode: no encoder for %s", wf_dtypes[dtype].name);
	}
}
