/* tile8.c - products of unpacked quantised panels with a few rows of activations as integers.
 *
 * Within a block of 32 (or 16) columns the sum is of integers; then one conversion, the weights'
 * scale, the activations' scale, and the minimum times the activations' sum.  Activations of 16 bits
 * pass as two planes of bytes over the same weights: a shift of the sums lies between them. */
#include "simd.h"

ALWAYS void scale_block(const struct block8 *const w[RP], const struct cpu_xq *x, int half, bool per16,
		const vi dot[RV], vf acc[RV])
{
	vf xscale = splat(x->scale), sum = splat(per16 ? x->half[half] : x->sum);

	UNROLL for (int i = 0; i < RV; i++) {
		const struct block8 *b = w[i / VP];
		vf scale = loadf(b->scale[half] + W * (i % VP)), min = loadf(b->min[half] + W * (i % VP));
		acc[i] += tofloat(dot[i]) * scale * xscale;
		acc[i] += min * sum;
	}
}

ALWAYS void tile(const struct tile *t, bool two, bool per16, bool wide, int C)
{
	vf acc[COLS8 * RV] = {0};
	const struct block8 *w[RP];
	const struct cpu_xq *x[COLS8];
	int nhalf = per16 ? 2 : 1, ngroup = per16 ? 4 : 8, bytes = two ? X16_BYTES : X8_BYTES;

	UNROLL for (int r = 0; r < RP; r++)
		w[r] = (const struct block8 *)(const void *)t->w[r];
	UNROLL for (int c = 0; c < C; c++)
		x[c] = (const void *)t->x[c];
	for (int64_t n = t->n, b = 0; b < n; b++) {
		UNROLL for (int half = 0; half < nhalf; half++) {
			vi dot[COLS8 * RV] = {0};
			UNROLL for (int i = 0; i < ngroup * (1 + two); i++) {
				int g = half * 4 + i % ngroup, low = i / ngroup;
				if (i == ngroup) {
					UNROLL for (int j = 0; j < C * RV; j++)
						dot[j] <<= 7;
				}
				vb q[RV];
				UNROLL for (int j = 0; j < RV; j++)
					q[j] = loadb(w[j / VP]->q[g] + 4 * W * (j % VP));
				UNROLL for (int c = 0; c < C; c++) {
					vi x4 = spread(geti(x[c]->q + 32 * low + 4 * g));
					UNROLL for (int j = 0; j < RV; j++)
						dot[c * RV + j] = dot4(dot[c * RV + j], q[j], x4, wide);
				}
			}
			UNROLL for (int c = 0; c < C; c++)
				scale_block(w, x[c], half, per16, dot + c * RV, acc + c * RV);
		}
		UNROLL for (int r = 0; r < RP; r++)
			w[r]++;
		UNROLL for (int c = 0; c < C; c++)
			x[c] = (const void *)((const uint8_t *)x[c] + bytes);
	}
	UNROLL for (int c = 0; c < C; c++)
		put(t, c, acc + c * RV);
}

#define TILES(C) \
	static void one_##C(const struct tile *t) { tile(t, false, false, false, C); } \
	static void one_wide_##C(const struct tile *t) { tile(t, false, false, true, C); } \
	static void one_per16_##C(const struct tile *t) { tile(t, false, true, false, C); } \
	static void two_##C(const struct tile *t) { tile(t, true, false, false, C); } \
	static void two_per16_##C(const struct tile *t) { tile(t, true, true, false, C); }
EACH_COLS8(TILES)

/* No format has both full bytes and scales per 16; bytes up to 64 make no full byte overflow. */
#define ONE(C) [C] = one_##C,
#define ONE_WIDE(C) [C] = one_wide_##C,
#define ONE_PER16(C) [C] = one_per16_##C,
#define TWO(C) [C] = two_##C,
#define TWO_PER16(C) [C] = two_per16_##C,
tile_fn *const CAT(cpu_tiles8)[NTILE8][COLS8 + 1] = {
	[TILE_8] = {EACH_COLS8(ONE)},
	[TILE_8_WIDE] = {EACH_COLS8(ONE_WIDE)},
	[TILE_8_PER16] = {EACH_COLS8(ONE_PER16)},
	[TILE_16] = {EACH_COLS8(TWO)},
	[TILE_16_PER16] = {EACH_COLS8(TWO_PER16)},
};
