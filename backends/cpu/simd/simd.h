/* simd.h - one vector language for three instruction sets.
 *
 * Every file here is compiled with -DISA=avx512, avx2 and plain; CAT(name) is its name there.
 * The 16 rows of a panel are VP vectors of W lanes.  Arithmetic is the compiler's own on vector
 * types; only what they cannot say is an intrinsic.
 *
 * A tile is RP panels by up to COLS rows of activations, sized to the register file. */
#ifndef CPU_SIMD_H
#define CPU_SIMD_H

#include "backends/cpu/cpu.h"
#include <string.h>
#if defined __SSE2__
#include <immintrin.h>
#endif

#define CAT2(a, b) a##_##b
#define CAT1(a, b) CAT2(a, b)
#define CAT(name) CAT1(name, ISA)

#define ALWAYS static inline __attribute__((always_inline))
#if defined WF_SANITIZE
#define UNROLL                    /* instrumented, the unrolled text takes minutes to compile */
#elif defined __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif

/* Lanes, panels of a tile, and the columns it may have: one instance is compiled for each. */
#if defined ISA_avx512
enum { W = 16, RP = 2 };
#elif defined ISA_avx2
enum { W = 8, RP = 1 };
#else
enum { W = 4, RP = 1 };
#endif
#if defined ISA_avx512 && !defined WF_SANITIZE
enum { COLS = 8, COLS8 = 6 };
#define EACH_COLS(F) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8)
#define EACH_COLS8(F) F(1) F(2) F(3) F(4) F(5) F(6)
#elif defined ISA_avx2 && !defined WF_SANITIZE
enum { COLS = 6, COLS8 = 2 };
#define EACH_COLS(F) F(1) F(2) F(3) F(4) F(5) F(6)
#define EACH_COLS8(F) F(1) F(2)
#else
enum { COLS = 2, COLS8 = 1 };
#define EACH_COLS(F) F(1) F(2)
#define EACH_COLS8(F) F(1)
#endif
enum { VP = PANEL / W, RV = RP * VP };   /* vectors of a panel, of a tile's rows */

typedef float vf __attribute__((vector_size(4 * W)));
typedef int32_t vi __attribute__((vector_size(4 * W)));
typedef uint32_t vu __attribute__((vector_size(4 * W)));
typedef int16_t vh __attribute__((vector_size(4 * W)));
typedef uint16_t vuh __attribute__((vector_size(4 * W)));
typedef uint8_t vb __attribute__((vector_size(4 * W)));

ALWAYS vf loadf(const void *p) { vf v; memcpy(&v, p, sizeof v); return v; }
ALWAYS vi loadi(const void *p) { vi v; memcpy(&v, p, sizeof v); return v; }
ALWAYS vb loadb(const void *p) { vb v; memcpy(&v, p, sizeof v); return v; }
ALWAYS void store(void *p, vf v) { memcpy(p, &v, sizeof v); }
/* The first n of W floats, the rest zero; store them alone. */
ALWAYS vf load_some(const float *p, int64_t n)
{
	vf v = {0};
	memcpy(&v, p, n < W ? (size_t)n * 4 : sizeof v);
	return v;
}
ALWAYS void store_some(float *p, int64_t n, vf v) { memcpy(p, &v, n < W ? (size_t)n * 4 : sizeof v); }
ALWAYS float getf(const void *p) { float v; memcpy(&v, p, sizeof v); return v; }
ALWAYS int32_t geti(const void *p) { int32_t v; memcpy(&v, p, sizeof v); return v; }
ALWAYS vf tofloat(vi v) { return __builtin_convertvector(v, vf); }
ALWAYS vf choose(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }
ALWAYS vb shr(vb v, int n) { return (vb)((vuh)v >> n); }
ALWAYS vb shl(vb v, int n) { return (vb)((vuh)v << n); }

/* The non-linear 4-bit table of the iq4 types, plus 128. */
static const uint8_t iq4_table[16] __attribute__((aligned(16), unused)) = {
	1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241
};

/* ---- what the compiler's vectors cannot say ------------------------------------------------------
 * vmax, vmin     the second operand when one is NaN
 * dot4           acc[i] += sum of w[4i+j] * x[4i+j]: bytes, w unsigned, x signed; below 128 where
 *                `wide` is false
 * reduce         lane i: the sum of a[i] */

#if defined __SSE2__ && !defined ISA_avx512
/* Gcc gathers a block's integer sums into one long one, and spills every term until then. */
ALWAYS vi settled(vi v)
{
	__asm__("" : "+x"(v));
	return v;
}
ALWAYS float max4(__m128 v)
{
	v = _mm_max_ps(v, _mm_movehl_ps(v, v));
	return _mm_cvtss_f32(_mm_max_ss(v, _mm_shuffle_ps(v, v, 1)));
}
ALWAYS float sum4(__m128 v)
{
	v = _mm_add_ps(v, _mm_movehl_ps(v, v));
	return _mm_cvtss_f32(_mm_add_ss(v, _mm_shuffle_ps(v, v, 1)));
}
#endif

#if defined ISA_avx512

ALWAYS vf splat(float x) { return (vf)_mm512_set1_ps(x); }
ALWAYS vi spread(int32_t x) { return (vi)_mm512_set1_epi32(x); }
ALWAYS vf vmax(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
ALWAYS vf vmin(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
ALWAYS float hmax(vf v) { return _mm512_reduce_max_ps((__m512)v); }
ALWAYS float hsum(vf v) { return _mm512_reduce_add_ps((__m512)v); }
ALWAYS vi load_u16(const void *p) { return (vi)_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)); }
ALWAYS vi load_u8(const void *p) { return (vi)_mm512_cvtepu8_epi32(_mm_loadu_si128(p)); }
ALWAYS vi load_s8(const void *p) { return (vi)_mm512_cvtepi8_epi32(_mm_loadu_si128(p)); }
ALWAYS void store_16(void *p, vi v) { _mm256_storeu_si256(p, _mm512_cvtepi32_epi16((__m512i)v)); }
ALWAYS void store_8(void *p, vi v) { _mm_storeu_si128(p, _mm512_cvtepi32_epi8((__m512i)v)); }
ALWAYS vf load_half(const void *p) { return (vf)_mm512_cvtph_ps(_mm256_loadu_si256(p)); }
ALWAYS void store_half(void *p, vf v) { _mm256_storeu_si256(p, _mm512_cvtps_ph((__m512)v, 0)); }
ALWAYS vi dot4(vi acc, vb w, vi x, bool wide)
{
	(void)wide;
	return (vi)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)w, (__m512i)x);
}
ALWAYS vb lookup(vb v)
{
	__m512i table = _mm512_broadcast_i32x4(_mm_load_si128((const void *)iq4_table));
	return (vb)_mm512_shuffle_epi8(table, (__m512i)v);
}
ALWAYS __m512 pairs(vf x, vf y)
{
	__m512 a = (__m512)x, b = (__m512)y;
	return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
}
ALWAYS __m512 quads(__m512 x, __m512 y)
{
	__m512d a = _mm512_castps_pd(x), b = _mm512_castps_pd(y);
	return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
		_mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
}
ALWAYS __m512 lanes(__m512 a, __m512 b)
{
	return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}
ALWAYS vf reduce(const vf a[W])
{
	__m512 q[4];

	UNROLL for (int i = 0; i < 4; i++)
		q[i] = quads(pairs(a[4 * i], a[4 * i + 1]), pairs(a[4 * i + 2], a[4 * i + 3]));
	return (vf)lanes(lanes(q[0], q[1]), lanes(q[2], q[3]));
}

#elif defined ISA_avx2

ALWAYS vf splat(float x) { return (vf)_mm256_set1_ps(x); }
ALWAYS vi spread(int32_t x) { return (vi)_mm256_set1_epi32(x); }
ALWAYS vf vmax(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
ALWAYS vf vmin(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
ALWAYS __m128 low(vf v) { return _mm256_castps256_ps128((__m256)v); }
ALWAYS __m128 high(vf v) { return _mm256_extractf128_ps((__m256)v, 1); }
ALWAYS float hmax(vf v) { return max4(_mm_max_ps(low(v), high(v))); }
ALWAYS float hsum(vf v) { return sum4(_mm_add_ps(low(v), high(v))); }
ALWAYS vi load_u16(const void *p) { return (vi)_mm256_cvtepu16_epi32(_mm_loadu_si128(p)); }
ALWAYS vi load_u8(const void *p) { return (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64(p)); }
ALWAYS vi load_s8(const void *p) { return (vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64(p)); }
ALWAYS void store_16(void *p, vi v)
{
	typedef uint16_t half __attribute__((vector_size(2 * W)));
	half h = __builtin_convertvector(v, half);
	memcpy(p, &h, sizeof h);
}
ALWAYS void store_8(void *p, vi v)
{
	typedef uint8_t byte __attribute__((vector_size(W)));
	byte b = __builtin_convertvector(v, byte);
	memcpy(p, &b, sizeof b);
}
ALWAYS vf load_half(const void *p) { return (vf)_mm256_cvtph_ps(_mm_loadu_si128(p)); }
ALWAYS void store_half(void *p, vf v) { _mm_storeu_si128(p, _mm256_cvtps_ph((__m256)v, 0)); }
ALWAYS vi dot4(vi acc, vb w, vi x, bool wide)
{
	__m256i a = (__m256i)w, b = (__m256i)x, ones = _mm256_set1_epi16(1);

	/* vpmaddubsw saturates at 255 * 127 * 2: full bytes go as 16-bit halves */
	if (!wide)
		return settled(acc + (vi)_mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
	__m256i even = _mm256_madd_epi16(_mm256_and_si256(a, _mm256_set1_epi16(255)),
			_mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8));
	__m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(a, 8), _mm256_srai_epi16(b, 8));
	return settled(acc + ((vi)even + (vi)odd));
}
ALWAYS vb lookup(vb v)
{
	__m256i table = _mm256_broadcastsi128_si256(_mm_load_si128((const void *)iq4_table));
	return (vb)_mm256_shuffle_epi8(table, (__m256i)v);
}
ALWAYS vf reduce(const vf a[W])
{
	__m256 q[2];

	UNROLL for (int i = 0; i < 2; i++)
		q[i] = _mm256_hadd_ps(_mm256_hadd_ps((__m256)a[4 * i], (__m256)a[4 * i + 1]),
			_mm256_hadd_ps((__m256)a[4 * i + 2], (__m256)a[4 * i + 3]));
	return (vf)_mm256_add_ps(_mm256_permute2f128_ps(q[0], q[1], 0x20),
		_mm256_permute2f128_ps(q[0], q[1], 0x31));
}

#else   /* plain: 16-byte vectors, which every 64-bit machine has */

ALWAYS vf splat(float x) { return (vf){x, x, x, x}; }
ALWAYS vi spread(int32_t x) { return (vi){x, x, x, x}; }
#if defined __SSE2__
ALWAYS vf vmax(vf a, vf b) { return (vf)_mm_max_ps((__m128)a, (__m128)b); }
ALWAYS vf vmin(vf a, vf b) { return (vf)_mm_min_ps((__m128)a, (__m128)b); }
ALWAYS float hmax(vf v) { return max4((__m128)v); }
ALWAYS float hsum(vf v) { return sum4((__m128)v); }
ALWAYS vi dot4(vi acc, vb w, vi x, bool wide)
{
	__m128i a = (__m128i)w, b = (__m128i)x;
	__m128i even = _mm_madd_epi16(_mm_and_si128(a, _mm_set1_epi16(255)),
			_mm_srai_epi16(_mm_slli_epi16(b, 8), 8));
	__m128i odd = _mm_madd_epi16(_mm_srli_epi16(a, 8), _mm_srai_epi16(b, 8));

	(void)wide;
	return settled(acc + ((vi)even + (vi)odd));
}
#else
ALWAYS vf vmax(vf a, vf b) { return choose(a > b, a, b); }
ALWAYS vf vmin(vf a, vf b) { return choose(a < b, a, b); }
ALWAYS float larger(float a, float b) { return a > b ? a : b; }
ALWAYS float hmax(vf v) { return larger(larger(v[0], v[1]), larger(v[2], v[3])); }
ALWAYS float hsum(vf v) { return (v[0] + v[1]) + (v[2] + v[3]); }
ALWAYS vi dot4(vi acc, vb w, vi x, bool wide)
{
	(void)wide;
	UNROLL for (int i = 0; i < 4; i++)
		acc += (vi)((vu)w >> 8 * i & 255) * (x << (24 - 8 * i) >> 24);
	return acc;
}
#endif
ALWAYS vi load_u16(const void *p)
{
	uint16_t h[4];
	memcpy(h, p, sizeof h);
	return (vi){h[0], h[1], h[2], h[3]};
}
ALWAYS vi load_u8(const void *p)
{
	const uint8_t *b = p;
	return (vi){b[0], b[1], b[2], b[3]};
}
ALWAYS vi load_s8(const void *p)
{
	const int8_t *b = p;
	return (vi){b[0], b[1], b[2], b[3]};
}
ALWAYS void store_16(void *p, vi v)
{
	uint16_t h[4] = {(uint16_t)v[0], (uint16_t)v[1], (uint16_t)v[2], (uint16_t)v[3]};
	memcpy(p, h, sizeof h);
}
ALWAYS void store_8(void *p, vi v)
{
	uint8_t b[4] = {(uint8_t)v[0], (uint8_t)v[1], (uint8_t)v[2], (uint8_t)v[3]};
	memcpy(p, b, sizeof b);
}
/* Through the float's own exponent: 2^112 moves it from the bias of f16, denormals included. */
ALWAYS vf load_half(const void *p)
{
	vi h = load_u16(p), magnitude = (h & 0x7fff) << 13;
	vf value = (vf)magnitude * splat(0x1p112f);

	value = choose(magnitude >= 0x0f800000, (vf)((vi)value | 0x7f800000), value);
	return (vf)((vi)value | (h & 0x8000) << 16);
}
ALWAYS void store_half(void *p, vf v)
{
	uint16_t h[4] = {wf_f32_to_f16(v[0]), wf_f32_to_f16(v[1]), wf_f32_to_f16(v[2]), wf_f32_to_f16(v[3])};
	memcpy(p, h, sizeof h);
}
__attribute__((noinline, unused)) static vb lookup(vb v)
{
	uint8_t index[4 * W];

	memcpy(index, &v, sizeof v);
	for (int i = 0; i < 4 * W; i++)
		index[i] = iq4_table[index[i] & 15];
	memcpy(&v, index, sizeof v);
	return v;
}
ALWAYS vf reduce(const vf a[W]) { return (vf){hsum(a[0]), hsum(a[1]), hsum(a[2]), hsum(a[3])}; }

#endif

/* ---- bf16 --------------------------------------------------------------------------------------- */

ALWAYS vf load_bf16(const void *p) { return (vf)(load_u16(p) << 16); }

ALWAYS void store_bf16(void *p, vf v)
{
	vi bits = (vi)v, even = bits + 0x7fff + (bits >> 16 & 1);
	vi nan = bits | 0x400000;

	store_16(p, (vi)((vu)choose(v == v, (vf)even, (vf)nan) >> 16));
}

ALWAYS vf load_as(wf_dtype type, const void *p)
{
	return type == WF_F32 ? loadf(p) : type == WF_F16 ? load_half(p) : load_bf16(p);
}

/* ---- exp, the one transcendental: 2^n * p(r), |r| <= ln 2 / 2; 1 ulp, 0 below 2^-126 -------------- */

ALWAYS vf vexp(vf x)
{
	const vf magic = splat(0x1.8p23f);   /* adding it leaves the rounded integer in the low bits */

	vi normal = (x > splat(-87.33f)) | (x != x);
	x = vmin(splat(88.72f), vmax(splat(-87.33f), x));
	vf n = x * splat(0x1.715476p0f) + magic;
	vi e = (vi)n << 23;
	n -= magic;
	vf r = x - n * splat(0x1.62e4p-1f) - n * splat(0x1.7f7d1cp-20f);
	vf p = splat(0x1.6a98dap-10f);
	p = p * r + splat(0x1.126ap-7f);
	p = p * r + splat(0x1.555922p-5f);
	p = p * r + splat(0x1.5554dcp-3f);
	p = p * r + splat(0x1.fffff6p-2f);
	p = p * r * r + r + splat(1);
	return (vf)(((vi)p + e) & normal);
}

/* tanh to 1e-7 of its range */
ALWAYS vf vtanh(vf x) { return splat(1) - splat(2) / (vexp(x + x) + splat(1)); }

/* ---- quantised panels ------------------------------------------------------------------------- */

/* Vector v of group g (4 of the block's 32 columns) of a block at q: the quants as bytes. */
ALWAYS vb unpack(const struct cpu_format f, const uint8_t *q, int g, int v)
{
	vb out = {0};

	q += 4 * W * v;
	if (f.bits == 8)
		return loadb(q + 64 * g);
	if (f.bits >= 4) {
		out = loadb(q + 64 * (g & 3));
		out = (g < 4 ? out : shr(out, 4)) & 15;
		q += 4 * 64;
	}
	if (f.bits & 2) {
		vb two = loadb(q + 64 * (g >> 2));
		int left = (f.bits & 4) - 2 * (g & 3);
		out |= (left > 0 ? shl(two, left) : shr(two, -left)) & (uint8_t)(3 << (f.bits & 4));
		q += 2 * 64;
	}
	if (f.bits & 1) {
		int left = f.bits - 1 - g;
		out |= (left > 0 ? shl(loadb(q), left) : shr(loadb(q), -left)) & (uint8_t)(1 << (f.bits - 1));
	}
	return f.lut ? lookup(out) : out;
}

/* value = scale * (quant - zero) + min of block b's first or second 16, vector v of the rows */
ALWAYS void scales(const struct cpu_format f, const uint8_t *s, int64_t b, int half, int v, vf *scale, vf *min)
{
	bool has_min = f.scale == SCALE_F16_MIN || f.scale == SCALE_SUPER_MIN;
	int64_t width = PANEL * (has_min ? 2 : 1), per = f.block == 16 ? 2 : 1;

	*min = splat(0);
	if (f.scale == SCALE_F16 || f.scale == SCALE_F16_MIN) {
		s += b * 2 * width + 2 * W * v;
		*scale = load_half(s);
		if (has_min)
			*min = load_half(s + 2 * PANEL);
		return;
	}
	s += (b >> 3) * (2 + 8 * per) * width;
	const uint8_t *sub = s + 2 * width + ((b & 7) * per + half) * width + W * v;
	vf d = load_half(s + 2 * W * v);
	*scale = d * tofloat(has_min ? load_u8(sub) : load_s8(sub));
	if (has_min)
		*min = -load_half(s + 2 * PANEL + 2 * W * v) * tofloat(load_u8(sub + PANEL));
}

/* A block of a panel made ready for products with many rows of activations:
 * value = scale * q + min, one scale per 16 or (the first) per 32. */
struct block8 {
	uint8_t q[8][4 * PANEL];
	float scale[2][PANEL], min[2][PANEL];
};

/* ---- tile.c, tile8.c, quant.c: what the drivers call ------------------------------------------- */

struct tile {
	const uint8_t *w[RP];             /* panels */
	const uint8_t *x[COLS];           /* rows of activations */
	size_t wstep, xstep;              /* LOAD_STRIDED: bytes from one k to the next */
	int64_t n;                        /* values; tile8: blocks of 32 */
	float *out;                       /* out[column * stride + 16 * panel] */
	size_t stride;
	int npanel;                       /* of RP, those to store */
	bool add;                         /* to what is in out */
};

typedef void tile_fn(const struct tile *);

/* Integer tiles: scales per 32; with full bytes; per 16; and with activations of 16 bits. */
enum { TILE_8, TILE_8_WIDE, TILE_8_PER16, TILE_16, TILE_16_PER16, NTILE8 };
enum { LOAD_F32, LOAD_F16, LOAD_BF16, LOAD_BF16_DOT, LOAD_STRIDED, NLOAD };

extern tile_fn *const CAT(cpu_tiles)[NLOAD][COLS + 1];
extern tile_fn *const CAT(cpu_tiles8)[NTILE8][COLS8 + 1];

struct cpu_quant_fn {
	/* one row of activations (ACT_I8, ACT_I16) with RP panels */
	void (*gemv[2])(const struct cpu_mat *, const uint8_t *const w[RP], const uint8_t *x,
		float *out, int npanel);
	/* n blocks of a panel from block b */
	void (*expand)(const struct cpu_mat *, const uint8_t *w, int64_t b, int64_t n, struct block8 *);
};

extern const struct cpu_quant_fn CAT(cpu_quants)[WF_NDTYPE];

/* Columns of the next tile when `left` remain: tiles of equal width, no lone column at the end. */
ALWAYS int64_t columns(int64_t left, int64_t max)
{
	int64_t ntile = (left + max - 1) / max;
	return (left + ntile - 1) / ntile;
}

ALWAYS void put(const struct tile *t, int column, const vf acc[RV])
{
	float *out = t->out + (size_t)column * t->stride;

	UNROLL for (int i = 0; i < RV; i++)
		if (i / VP < t->npanel)
			store(out + i * W, t->add ? acc[i] + loadf(out + i * W) : acc[i]);
}

/* The rows of struct cpu_kernels. */
void CAT(cpu_dot)(const struct cpu_dot *);
void CAT(cpu_quantize)(enum cpu_act, void *out, const float *x, int64_t n);
void CAT(cpu_attend)(const struct cpu_attend *, const struct cpu_attend_part *);
void CAT(cpu_attend_merge)(const struct cpu_attend *, const struct cpu_attend_part *, int nstate, size_t each);
void CAT(cpu_rmsnorm)(float *out, const float *x, const float *w, int64_t n, float eps);
void CAT(cpu_layernorm)(float *out, const float *x, const float *w, const float *b, int64_t n, float eps);
void CAT(cpu_softmax)(float *x, int64_t n);
void CAT(cpu_silu)(float *out, const float *x, int64_t n);
void CAT(cpu_gelu)(float *out, const float *x, int64_t n);
void CAT(cpu_silu_mul)(float *out, const float *gate, const float *up, int64_t n);
void CAT(cpu_gelu_mul)(float *out, const float *gate, const float *up, int64_t n);
void CAT(cpu_rope)(float *out, const float *x, const float *c, const float *s, int64_t half, int64_t n, bool pairs);
void CAT(cpu_store)(wf_dtype, void *out, const float *x, int64_t n);
void CAT(cpu_load)(wf_dtype, float *out, const void *x, int64_t n);

extern const struct cpu_kernels CAT(cpu_kernels);

#endif
