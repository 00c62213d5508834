/* tile.c - products of float panels with a few rows of activations, in registers.
 *
 * out[c][row] = sum over k of w[k][row] * x[c][k]: RP panels by C columns of accumulators, one load
 * of weights for C columns, one broadcast for RP panels.  Narrow tiles split the sum over k in UN
 * parts, since one chain of additions would wait for itself. */
#include "simd.h"

enum { MAXACC = 32 };

ALWAYS int parts(int C) { return C * RV >= 8 ? 1 : 8 / (C * RV); }

ALWAYS vf load_w(int load, const struct tile *t, int r, int64_t k, int v)
{
	if (load == LOAD_STRIDED)
		return loadf(t->w[r] + (size_t)k * t->wstep + 4 * W * v);
	if (load == LOAD_F16)
		return load_half(t->w[r] + k * 2 * PANEL + 2 * W * v);
	return loadf(t->w[r] + k * 4 * PANEL + 4 * W * v);
}

ALWAYS vf load_x(int load, const struct tile *t, int c, int64_t k)
{
	return splat(getf(t->x[c] + (load == LOAD_STRIDED ? (size_t)k * t->xstep : (size_t)k * 4)));
}

ALWAYS void step(const struct tile *t, int load, int C, int64_t k, vf *acc)
{
	vf w[RV];

	UNROLL for (int i = 0; i < RV; i++)
		w[i] = load_w(load, t, i / VP, k, i % VP);
	UNROLL for (int c = 0; c < C; c++) {
		vf x = load_x(load, t, c, k);
		UNROLL for (int i = 0; i < RV; i++)
			acc[c * RV + i] += w[i] * x;
	}
}

/* Two columns of bf16 lie in one word: shifted left the even one, masked the odd one. */
ALWAYS void step_bf16(const struct tile *t, int C, int64_t k, bool odd, vf *acc)
{
	vi w[RV];

	UNROLL for (int i = 0; i < RV; i++)
		w[i] = loadi(t->w[i / VP] + k * 2 * PANEL + 4 * W * (i % VP));
	UNROLL for (int c = 0; c < C; c++) {
		vf x = load_x(LOAD_BF16, t, c, k);
		UNROLL for (int i = 0; i < RV; i++)
			acc[c * RV + i] += (vf)(w[i] << 16) * x;
	}
	UNROLL for (int c = 0; c < C && odd; c++) {
		vf x = load_x(LOAD_BF16, t, c, k + 1);
		UNROLL for (int i = 0; i < RV; i++)
			acc[c * RV + i] += (vf)(w[i] & (int32_t)0xffff0000) * x;
	}
}

#if defined ISA_avx512
ALWAYS void step_pair(const struct tile *t, int C, int64_t k, vf *acc)
{
	__m512bh w[RV];

	UNROLL for (int i = 0; i < RV; i++)
		w[i] = (__m512bh)_mm512_loadu_si512(t->w[i] + k * 2 * PANEL);
	UNROLL for (int c = 0; c < C; c++) {
		__m512bh x = (__m512bh)_mm512_set1_epi32(geti(t->x[c] + 2 * k));
		UNROLL for (int i = 0; i < RV; i++)
			acc[c * RV + i] = (vf)_mm512_dpbf16_ps((__m512)acc[c * RV + i], w[i], x);
	}
}
#else
ALWAYS void step_pair(const struct tile *t, int C, int64_t k, vf *acc)
{
	UNROLL for (int j = 0; j < 2; j++)
		UNROLL for (int c = 0; c < C; c++) {
			vf x = (vf)(spread(geti(t->x[c] + 2 * k)) << (16 * !j) & (int32_t)0xffff0000);
			UNROLL for (int i = 0; i < RV; i++) {
				vi w = loadi(t->w[i / VP] + k * 2 * PANEL + 4 * W * (i % VP));
				acc[c * RV + i] += (vf)(w << (16 * !j) & (int32_t)0xffff0000) * x;
			}
		}
}
#endif

ALWAYS void tile(const struct tile *arg, int load, int C)
{
	const struct tile t = *arg;
	vf acc[MAXACC] = {0};
	int each = load == LOAD_BF16 || load == LOAD_BF16_DOT ? 2 : 1, U = parts(C);
	int64_t k = 0;

	for (; k + U * each <= t.n; k += U * each)
		UNROLL for (int u = 0; u < U; u++) {
			vf *part = acc + u * C * RV;
			if (load == LOAD_BF16)
				step_bf16(&t, C, k + u * each, true, part);
			else if (load == LOAD_BF16_DOT)
				step_pair(&t, C, k + u * each, part);
			else
				step(&t, load, C, k + u, part);
		}
	for (; k < t.n; k += each) {
		if (load == LOAD_BF16)
			step_bf16(&t, C, k, k + 1 < t.n, acc);
		else if (load == LOAD_BF16_DOT)
			step_pair(&t, C, k, acc);
		else
			step(&t, load, C, k, acc);
	}
	UNROLL for (int u = 1; u < U; u++)
		UNROLL for (int i = 0; i < C * RV; i++)
			acc[i] += acc[u * C * RV + i];
	UNROLL for (int c = 0; c < C; c++)
		put(arg, c, acc + c * RV);
}

#define TILES(C) \
	static void f32_##C(const struct tile *t) { tile(t, LOAD_F32, C); } \
	static void f16_##C(const struct tile *t) { tile(t, LOAD_F16, C); } \
	static void bf16_##C(const struct tile *t) { tile(t, LOAD_BF16, C); } \
	static void pair_##C(const struct tile *t) { tile(t, LOAD_BF16_DOT, C); } \
	static void strided_##C(const struct tile *t) { tile(t, LOAD_STRIDED, C); }
EACH_COLS(TILES)

#define F32(C) [C] = f32_##C,
#define F16(C) [C] = f16_##C,
#define BF16(C) [C] = bf16_##C,
#define PAIR(C) [C] = pair_##C,
#define STRIDED(C) [C] = strided_##C,
tile_fn *const CAT(cpu_tiles)[NLOAD][COLS + 1] = {
	[LOAD_F32] = {EACH_COLS(F32)},
	[LOAD_F16] = {EACH_COLS(F16)},
	[LOAD_BF16] = {EACH_COLS(BF16)},
	[LOAD_BF16_DOT] = {EACH_COLS(PAIR)},
	[LOAD_STRIDED] = {EACH_COLS(STRIDED)},
};
