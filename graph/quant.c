/* quant.c - what the blocks of GGUF's quantised types stand for.
 *
 * A block holds small integers, a scale d and for some types an offset: value = d * q (- offset).
 * The 256-value types split into runs of 16 or 32 with 4- or 6-bit scales of their own.  The order
 * of the float operations is part of the format: every decoder here equals the reference to the bit.
 *
 * Layouts: ggml's block_q* structures (ggml-common.h).  All members are bytes, so blocks may lie at
 * any address. */
#include "graph/graph.h"

#include <string.h>

struct q4_0 { uint8_t d[2], q[16]; };
struct q4_1 { uint8_t d[2], m[2], q[16]; };
struct q5_0 { uint8_t d[2], high[4], q[16]; };
struct q5_1 { uint8_t d[2], m[2], high[4], q[16]; };
struct q8_0 { uint8_t d[2]; int8_t q[32]; };
struct q2_k { uint8_t scale[16], q[64], d[2], m[2]; };
struct q3_k { uint8_t high[32], q[64], scale[12], d[2]; };
struct q4_k { uint8_t d[2], m[2], scale[12], q[128]; };
struct q5_k { uint8_t d[2], m[2], scale[12], high[32], q[128]; };
struct q6_k { uint8_t q[128], high[64]; int8_t scale[16]; uint8_t d[2]; };
struct iq4_xs { uint8_t d[2], high[2], low[4], q[128]; };

_Static_assert(sizeof(struct q4_0) == 18 && sizeof(struct q4_1) == 20, "block size");
_Static_assert(sizeof(struct q5_0) == 22 && sizeof(struct q5_1) == 24, "block size");
_Static_assert(sizeof(struct q8_0) == 34 && sizeof(struct q2_k) == 84, "block size");
_Static_assert(sizeof(struct q3_k) == 110 && sizeof(struct q4_k) == 144, "block size");
_Static_assert(sizeof(struct q5_k) == 176 && sizeof(struct q6_k) == 210, "block size");
_Static_assert(sizeof(struct iq4_xs) == 136, "block size");

static const int8_t iq4_value[16] = {
	-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113
};

static float half(const uint8_t *p)
{
	uint16_t h;

	memcpy(&h, p, sizeof h);
	return wf_f16_to_f32(h);
}

/* Low nibbles are values 0-15 of a run of 32, high nibbles values 16-31. */

void quant_q4_0(float *out, const void *in, int64_t n)
{
	const struct q4_0 *b = in;

	for (int64_t i = 0; i < n; i += 32, b++) {
		float d = half(b->d);
		for (int k = 0; k < 16; k++) {
			out[i + k] = (float)((b->q[k] & 15) - 8) * d;
			out[i + k + 16] = (float)((b->q[k] >> 4) - 8) * d;
		}
	}
}

void quant_q4_1(float *out, const void *in, int64_t n)
{
	const struct q4_1 *b = in;

	for (int64_t i = 0; i < n; i += 32, b++) {
		float d = half(b->d), m = half(b->m);
		for (int k = 0; k < 16; k++) {
			out[i + k] = (float)(b->q[k] & 15) * d + m;
			out[i + k + 16] = (float)(b->q[k] >> 4) * d + m;
		}
	}
}

/* The fifth bit of value k is bit k of a 32-bit word. */
static int fifth(const uint8_t *high, int k)
{
	return (high[k / 8] >> k % 8 & 1) << 4;
}

void quant_q5_0(float *out, const void *in, int64_t n)
{
	const struct q5_0 *b = in;

	for (int64_t i = 0; i < n; i += 32, b++) {
		float d = half(b->d);
		for (int k = 0; k < 16; k++) {
			out[i + k] = (float)(((b->q[k] & 15) | fifth(b->high, k)) - 16) * d;
			out[i + k + 16] = (float)((b->q[k] >> 4 | fifth(b->high, k + 16)) - 16) * d;
		}
	}
}

void quant_q5_1(float *out, const void *in, int64_t n)
{
	const struct q5_1 *b = in;

	for (int64_t i = 0; i < n; i += 32, b++) {
		float d = half(b->d), m = half(b->m);
		for (int k = 0; k < 16; k++) {
			out[i + k] = (float)((b->q[k] & 15) | fifth(b->high, k)) * d + m;
			out[i + k + 16] = (float)(b->q[k] >> 4 | fifth(b->high, k + 16)) * d + m;
		}
	}
}

void quant_q8_0(float *out, const void *in, int64_t n)
{
	const struct q8_0 *b = in;

	for (int64_t i = 0; i < n; i += 32, b++) {
		float d = half(b->d);
		for (int k = 0; k < 32; k++)
			out[i + k] = (float)b->q[k] * d;
	}
}

/* 16 runs of 16; 32 bytes of q serve four runs of 32 values, two bits each. */
void quant_q2_k(float *out, const void *in, int64_t n)
{
	const struct q2_k *b = in;

	for (int64_t i = 0; i < n; i += 256, b++) {
		float d = half(b->d), m = half(b->m);
		for (int run = 0; run < 16; run++) {
			const uint8_t *q = b->q + run / 8 * 32 + run % 2 * 16;
			int shift = run % 8 / 2 * 2;
			float scale = d * (float)(b->scale[run] & 15);
			float offset = m * (float)(b->scale[run] >> 4);
			for (int k = 0; k < 16; k++)
				out[i + run * 16 + k] = scale * (float)(q[k] >> shift & 3) - offset;
		}
	}
}

/* Sixteen 6-bit scales in 12 bytes: four low bits in the first eight, two high bits in the rest. */
static int q3_scale(const uint8_t *s, int run)
{
	int low = run < 8 ? s[run] & 15 : s[run - 8] >> 4;

	return (low | (s[8 + run % 4] >> run / 4 * 2 & 3) << 4) - 32;
}

/* As q2_k, with a third bit in `high`, stored inverted. */
void quant_q3_k(float *out, const void *in, int64_t n)
{
	const struct q3_k *b = in;

	for (int64_t i = 0; i < n; i += 256, b++) {
		float d = half(b->d);
		for (int run = 0; run < 16; run++) {
			const uint8_t *q = b->q + run / 8 * 32 + run % 2 * 16;
			const uint8_t *high = b->high + run % 2 * 16;
			int shift = run % 8 / 2 * 2;
			float scale = d * (float)q3_scale(b->scale, run);
			for (int k = 0; k < 16; k++) {
				int third = high[k] >> run / 2 & 1 ? 0 : 4;
				out[i + run * 16 + k] = scale * (float)((q[k] >> shift & 3) - third);
			}
		}
	}
}

/* Eight 6-bit scales and eight 6-bit offsets in 12 bytes. */
static void k_scale(const uint8_t *s, int run, int *scale, int *offset)
{
	if (run < 4) {
		*scale = s[run] & 63;
		*offset = s[run + 4] & 63;
	} else {
		*scale = (s[run + 4] & 15) | s[run - 4] >> 6 << 4;
		*offset = s[run + 4] >> 4 | s[run] >> 6 << 4;
	}
}

/* 8 runs of 32; a pair of runs shares 32 bytes, low and high nibbles. */
void quant_q4_k(float *out, const void *in, int64_t n)
{
	const struct q4_k *b = in;

	for (int64_t i = 0; i < n; i += 256, b++) {
		float d = half(b->d), m = half(b->m);
		for (int run = 0; run < 8; run++) {
			const uint8_t *q = b->q + run / 2 * 32;
			int s, o;
			k_scale(b->scale, run, &s, &o);
			float scale = d * (float)s, offset = m * (float)o;
			for (int k = 0; k < 32; k++)
				out[i + run * 32 + k] = scale * (float)(q[k] >> run % 2 * 4 & 15) - offset;
		}
	}
}

void quant_q5_k(float *out, const void *in, int64_t n)
{
	const struct q5_k *b = in;

	for (int64_t i = 0; i < n; i += 256, b++) {
		float d = half(b->d), m = half(b->m);
		for (int run = 0; run < 8; run++) {
			const uint8_t *q = b->q + run / 2 * 32;
			int s, o;
			k_scale(b->scale, run, &s, &o);
			float scale = d * (float)s, offset = m * (float)o;
			for (int k = 0; k < 32; k++) {
				int v = (q[k] >> run % 2 * 4 & 15) + (b->high[k] >> run & 1) * 16;
				out[i + run * 32 + k] = scale * (float)v - offset;
			}
		}
	}
}

/* Two halves of 128; in each, 64 bytes of low nibbles and 32 bytes with four pairs of high bits. */
void quant_q6_k(float *out, const void *in, int64_t n)
{
	const struct q6_k *b = in;

	for (int64_t i = 0; i < n; i += 256, b++) {
		float d = half(b->d);
		for (int run = 0; run < 16; run++) {
			int part = run % 8 / 2, at = run % 2 * 16;
			const uint8_t *q = b->q + run / 8 * 64 + part % 2 * 32 + at;
			const uint8_t *high = b->high + run / 8 * 32 + at;
			float scale = d * (float)b->scale[run];
			for (int k = 0; k < 16; k++) {
				int v = (q[k] >> part / 2 * 4 & 15) | (high[k] >> part * 2 & 3) << 4;
				out[i + run * 16 + k] = scale * (float)(v - 32);
			}
		}
	}
}

void quant_iq4_nl(float *out, const void *in, int64_t n)
{
	const struct q4_0 *b = in;

	for (int64_t i = 0; i < n; i += 32, b++) {
		float d = half(b->d);
		for (int k = 0; k < 16; k++) {
			out[i + k] = d * (float)iq4_value[b->q[k] & 15];
			out[i + k + 16] = d * (float)iq4_value[b->q[k] >> 4];
		}
	}
}

void quant_iq4_xs(float *out, const void *in, int64_t n)
{
	const struct iq4_xs *b = in;

	for (int64_t i = 0; i < n; i += 256, b++) {
		float d = half(b->d);
		for (int run = 0; run < 8; run++) {
			const uint8_t *q = b->q + run * 16;
			int low = b->low[run / 2] >> run % 2 * 4 & 15;
			int high = b->high[run / 4] >> run % 4 * 2 & 3;
			float scale = d * (float)((low | high << 4) - 32);
			for (int k = 0; k < 16; k++) {
				out[i + run * 32 + k] = scale * (float)iq4_value[q[k] & 15];
				out[i + run * 32 + k + 16] = scale * (float)iq4_value[q[k] >> 4];
			}
		}
	}
}
