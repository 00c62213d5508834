/* quant.c - quantised panels: the product with one row of activations straight from the packed
 * form, and unpacking for wider products.  Each format is an instance of the same text. */
#include "simd.h"

/* Groups g and g + 4 share a byte of nibbles: taken one after the other, it is loaded once. */
ALWAYS int order(int i, bool per16, int half) { return per16 ? half * 4 + i : (i >> 1) + (i & 1) * 4; }

ALWAYS void gemv(const struct cpu_format f, bool two, const struct cpu_mat *m, const uint8_t *const w[RP],
		const uint8_t *at, float *out, int npanel)
{
	vf acc[RV] = {0};
	bool per16 = f.block == 16, wide = !two && (f.bits == 8 || f.lut);
	int ngroup = per16 ? 4 : 8;
	bool has_min = f.scale == SCALE_F16_MIN || f.scale == SCALE_SUPER_MIN;
	const uint8_t *s[RP], *q[RP];

	UNROLL for (int r = 0; r < RP; r++) {
		s[r] = w[r];
		q[r] = w[r] + m->scale_bytes;
	}
	for (int64_t b = 0, n = m->cols / 32; b < n; b++, at += two ? X16_BYTES : X8_BYTES) {
		const struct cpu_xq *x = (const void *)at;
		UNROLL for (int half = 0; half < 1 + per16; half++) {
			vi dot[RV] = {0}, low[RV] = {0};
			UNROLL for (int i = 0; i < ngroup; i++) {
				int g = order(i, per16, half);
				vi x4 = spread(geti(x->q + 4 * g)), low4 = two ? spread(geti(x->q + 32 + 4 * g)) : x4;
				UNROLL for (int j = 0; j < RV; j++) {
					vb weight = unpack(f, q[j / VP], g, j % VP);
					dot[j] = dot4(dot[j], weight, x4, wide);
					if (two)
						low[j] = dot4(low[j], weight, low4, wide);
				}
			}
			float sum = per16 ? x->half[half] : x->sum;
			vf xscale = splat(x->scale), offset = splat(-(float)f.zero * sum);
			UNROLL for (int j = 0; j < RV; j++) {
				vf scale, min, value = tofloat(two ? (dot[j] << 7) + low[j] : dot[j]) * xscale;
				scales(f, s[j / VP], b, half, j % VP, &scale, &min);
				acc[j] += scale * (f.zero ? value + offset : value);
				if (has_min)
					acc[j] += min * splat(sum);
			}
		}
		UNROLL for (int r = 0; r < RP; r++)
			q[r] += f.bits * 64;
	}
	UNROLL for (int j = 0; j < RV; j++)
		if (j / VP < npanel)
			store(out + j * W, acc[j]);
}

ALWAYS void expand(const struct cpu_format f, const struct cpu_mat *m, const uint8_t *w, int64_t b, int64_t n,
		struct block8 *out)
{
	const uint8_t *q = w + m->scale_bytes + b * f.bits * 64;
	int nhalf = 32 / f.block;

	for (int64_t end = b + n; b < end; b++, out++, q += f.bits * 64)
		UNROLL for (int v = 0; v < VP; v++) {
			UNROLL for (int g = 0; g < 8; g++) {
				vb bytes = unpack(f, q, g, v);
				memcpy(out->q[g] + 4 * W * v, &bytes, sizeof bytes);
			}
			UNROLL for (int half = 0; half < nhalf; half++) {
				vf scale, min;
				scales(f, w, b, half, v, &scale, &min);
				store(out->scale[half] + W * v, scale);
				store(out->min[half] + W * v, min - splat((float)f.zero) * scale);
			}
		}
}

#define INSTANCE(type, bits, block, scale, zero, lut) \
	static void gemv8_##type(const struct cpu_mat *m, const uint8_t *const w[RP], \
			const uint8_t *x, float *out, int npanel) \
	{ \
		gemv((struct cpu_format){bits, block, scale, zero, lut}, false, m, w, x, out, npanel); \
	} \
	static void gemv16_##type(const struct cpu_mat *m, const uint8_t *const w[RP], \
			const uint8_t *x, float *out, int npanel) \
	{ \
		gemv((struct cpu_format){bits, block, scale, zero, lut}, true, m, w, x, out, npanel); \
	} \
	static void expand_##type(const struct cpu_mat *m, const uint8_t *w, int64_t b, int64_t n, \
			struct block8 *out) \
	{ \
		expand((struct cpu_format){bits, block, scale, zero, lut}, m, w, b, n, out); \
	}
CPU_QUANTS(INSTANCE)

#define ROW(type, ...) [WF_##type] = {{gemv8_##type, gemv16_##type}, expand_##type},
const struct cpu_quant_fn CAT(cpu_quants)[WF_NDTYPE] = { CPU_QUANTS(ROW) };
