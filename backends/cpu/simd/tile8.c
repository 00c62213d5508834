/* tile8.c - products of unpacked quantised panels with a few rows of activations as bytes.
 *
 * Within a block of 32 (or 16) columns the sum is of integers; then one conversion, the weights'
 * scale, the activations' scale, and the minimum times the activations' sum. */
#include "simd.h"

ALWAYS void scale_block(const struct block8 *const w[RP], const struct cpu_x8 *x, int half, bool per16,
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

ALWAYS void tile(const struct tile *t, bool per16, bool wide, int C)
{
	vf acc[COLS8 * RV] = {0};
	const struct block8 *w[RP];
	const struct cpu_x8 *x[COLS8];
	int nhalf = per16 ? 2 : 1, ngroup = per16 ? 4 : 8;

	UNROLL for (int r = 0; r < RP; r++)
		w[r] = (const struct block8 *)(const void *)t->w[r];
	UNROLL for (int c = 0; c < C; c++)
		x[c] = (const struct cpu_x8 *)(const void *)t->x[c];
	for (int64_t n = t->n, b = 0; b < n; b++) {
		UNROLL for (int half = 0; half < nhalf; half++) {
			vi dot[COLS8 * RV] = {0};
			UNROLL for (int i = 0; i < ngroup; i++) {
				int g = half * 4 + i;
				vb q[RV];
				UNROLL for (int j = 0; j < RV; j++)
					q[j] = loadb(w[j / VP]->q[g] + 4 * W * (j % VP));
				UNROLL for (int c = 0; c < C; c++) {
					vi x4 = spread(geti(x[c][b].q + 4 * g));
					UNROLL for (int j = 0; j < RV; j++)
						dot[c * RV + j] = dot4(dot[c * RV + j], q[j], x4, wide);
				}
			}
			UNROLL for (int c = 0; c < C; c++)
				scale_block(w, x[c] + b, half, per16, dot + c * RV, acc + c * RV);
		}
		UNROLL for (int r = 0; r < RP; r++)
			w[r]++;
	}
	UNROLL for (int c = 0; c < C; c++)
		put(t, c, acc + c * RV);
}

#define TILES(C) \
	static void per32_##C(const struct tile *t) { tile(t, false, false, C); } \
	static void wide32_##C(const struct tile *t) { tile(t, false, true, C); } \
	static void per16_##C(const struct tile *t) { tile(t, true, false, C); }
EACH_COLS8(TILES)

/* No format has both full bytes and scales per 16. */
#define PER32(C) [C] = per32_##C,
#define WIDE32(C) [C] = wide32_##C,
#define PER16(C) [C] = per16_##C,
tile_fn *const CAT(cpu_tiles8)[2][2][COLS8 + 1] = {
	{{EACH_COLS8(PER32)}, {EACH_COLS8(WIDE32)}},
	{{EACH_COLS8(PER16)}, {NULL}},
};
