/* dot.c - panels times rows of activations, cut into tiles.
 *
 * RP panels at a time; for wide products the columns in stretches that stay in the first-level
 * cache while every tile of activations passes over them, so that unpacking costs once per stretch
 * and not once per tile.  Partial sums of a stretch also keep f32 accumulation short. */
#include "simd.h"

enum { STRETCH = 256, BLOCKS8 = 24 };   /* 37 of 48 KiB; rows of 576 in one stretch */

static const uint8_t *row_at(const struct cpu_dot *d, int t)
{
	return (const uint8_t *)d->x + (size_t)(d->xrow ? d->xrow[t] : t) * d->xstride;
}

/* Run tiles over all tokens; `skip` bytes of each row of activations come before this stretch. */
static void sweep(const struct cpu_dot *d, tile_fn *const *fn, int max, struct tile *t, float *out, size_t skip)
{
	for (int token = 0; token < d->ntoken; ) {
		int n = (int)columns(d->ntoken - token, max);
		for (int c = 0; c < n; c++)
			t->x[c] = row_at(d, token + c) + skip;
		t->out = out + (size_t)token * d->stride;
		fn[n](t);
		token += n;
	}
}

static void gemm8(const struct cpu_dot *d, const uint8_t *const w[RP], float *out, int npanel)
{
	struct block8 block[RP][BLOCKS8] __attribute__((aligned(64)));
	const struct cpu_format *f = &cpu_formats[d->w->type];
	bool two = d->act == ACT_I16, wide = f->bits == 8 || f->lut;
	int kind = f->block == 16 ? (two ? TILE_16_PER16 : TILE_8_PER16) : two ? TILE_16 : wide ? TILE_8_WIDE : TILE_8;
	struct tile t = {.stride = d->stride, .npanel = npanel};

	for (int64_t b = 0, n = d->w->cols / 32; b < n; b += t.n) {
		t.n = columns(n - b, BLOCKS8);
		t.add = b > 0;
		for (int r = 0; r < RP; r++) {
			if (r < npanel)
				CAT(cpu_quants)[d->w->type].expand(d->w, w[r], b, t.n, block[r]);
			t.w[r] = (const uint8_t *)block[r < npanel ? r : 0];
		}
		sweep(d, CAT(cpu_tiles8)[kind], COLS8, &t, out, (size_t)b * (two ? X16_BYTES : X8_BYTES));
	}
}

static void to_float(const struct block8 *b, int64_t n, int block, float *out)
{
	for (const struct block8 *end = b + n; b < end; b++, out += 32 * PANEL)
		for (int g = 0; g < 8; g++)
			for (int v = 0; v < VP; v++) {
				int half = block == 16 && g >= 4;
				vf scale = loadf(b->scale[half] + W * v), min = loadf(b->min[half] + W * v);
				vu q = (vu)loadb(b->q[g] + 4 * W * v);
				UNROLL for (int j = 0; j < 4; j++)
					store(out + (4 * g + j) * PANEL + W * v,
						tofloat((vi)(q >> 8 * j & 255)) * scale + min);
			}
}

/* Quantised weights, f32 activations: the values wf_decode() gives, to the bit. */
static void gemm_exact(const struct cpu_dot *d, const uint8_t *const w[RP], float *out, int npanel)
{
	struct block8 block[STRETCH / 32] __attribute__((aligned(64)));
	float value[RP][STRETCH * PANEL] __attribute__((aligned(64)));
	struct tile t = {.stride = d->stride, .npanel = npanel};

	for (int64_t b = 0, each, n = d->w->cols / 32; b < n; b += each) {
		each = n - b < STRETCH / 32 ? n - b : STRETCH / 32;
		t.n = each * 32;
		t.add = b > 0;
		for (int r = 0; r < RP; r++) {
			t.w[r] = (const uint8_t *)value[r < npanel ? r : 0];
			if (r >= npanel)
				continue;
			CAT(cpu_quants)[d->w->type].expand(d->w, w[r], b, each, block);
			to_float(block, each, cpu_formats[d->w->type].block, value[r]);
		}
		sweep(d, CAT(cpu_tiles)[LOAD_F32], COLS, &t, out, (size_t)b * 32 * 4);
	}
}

static void gemm_float(const struct cpu_dot *d, const uint8_t *const w[RP], float *out, int npanel)
{
	int load = d->w->type == WF_F32 ? LOAD_F32 : d->w->type == WF_F16 ? LOAD_F16 :
		d->act == ACT_BF16 ? LOAD_BF16_DOT : LOAD_BF16;
	size_t wbytes = d->w->type == WF_F32 ? 4 : 2, xbytes = d->act == ACT_BF16 ? 2 : 4;
	struct tile t = {.stride = d->stride, .npanel = npanel};

	for (int64_t k = 0; k < d->w->cols; k += STRETCH) {
		t.n = d->w->cols - k < STRETCH ? d->w->cols - k : STRETCH;
		t.add = k > 0;
		for (int r = 0; r < RP; r++)
			t.w[r] = w[r] + (size_t)k * PANEL * wbytes;
		sweep(d, CAT(cpu_tiles)[load], COLS, &t, out, (size_t)k * xbytes);
	}
}

void CAT(cpu_dot)(const struct cpu_dot *d)
{
	const struct cpu_mat *m = d->w;

	for (int64_t p = 0; p < d->npanel; p += RP) {
		const uint8_t *w[RP];
		int npanel = d->npanel - p < RP ? (int)(d->npanel - p) : RP;
		float *out = d->out + p * PANEL;

		for (int r = 0; r < RP; r++)
			w[r] = m->data + (size_t)(d->panel + p + (r < npanel ? r : 0)) * m->panel_bytes;
		if (!cpu_formats[m->type].bits)
			gemm_float(d, w, out, npanel);
		else if (d->act == ACT_F32)
			gemm_exact(d, w, out, npanel);
		else if (d->ntoken == 1)
			CAT(cpu_quants)[m->type].gemv[d->act == ACT_I16](m, w, row_at(d, 0), out, npanel);
		else
			gemm8(d, w, out, npanel);
	}
}
