/* rows.c - work on rows of floats: quantise, normalise, activate, convert. */
#include "simd.h"

#include <math.h>

/* ---- activations for products ------------------------------------------------------------------ */

ALWAYS vf vabs(vf x) { return (vf)((vi)x & 0x7fffffff); }

/* Nearest integer of |x| < 2^22: adding 1.5 * 2^23 leaves it in the low bits. */
ALWAYS vi nearest(vf x) { return (vi)(x + splat(0x1.8p23f)) - spread(0x4b400000); }

ALWAYS float sum_of(const vi *v, int n)
{
	vi sum = v[0];

	UNROLL for (int i = 1; i < n; i++)
		sum += v[i];
	return hsum(tofloat(sum));   /* exact: below 2^24 */
}

/* 32 values, 128 * q + low = nearest(value / scale).  NaN and infinity make the scale NaN, so that they
 * reach every product of the block. */
ALWAYS void quantize32(struct cpu_xq *out, const vf *v, bool two)
{
	enum { N = 32 / W };
	float most = two ? 64 * 128 : 127;
	vf top = splat(0), bad = splat(0);
	vi q[N];

	UNROLL for (int i = 0; i < N; i++) {
		top = vmax(vabs(v[i]), top);
		bad += v[i] - v[i];
	}
	float max = hmax(top);
	vf inverse = splat(max > 1e-30f ? most / max : 0);
	UNROLL for (int i = 0; i < N; i++) {
		q[i] = nearest(vmin(vmax(v[i] * inverse, splat(-most)), splat(most)));
		vi high = two ? (q[i] + 64) >> 7 : q[i];
		store_8(out->q + i * W, high);
		if (two)
			store_8(out->q + 32 + i * W, q[i] - (high << 7));
	}
	out->scale = max / most + hsum(bad);
	out->half[0] = out->scale * sum_of(q, N / 2);
	out->half[1] = out->scale * sum_of(q + N / 2, N / 2);
	out->sum = out->half[0] + out->half[1];
}

ALWAYS void to_ints(uint8_t *out, const float *x, int64_t n, bool two)
{
	vf v[32 / W];

	for (; n > 0; n -= 32, x += 32, out += two ? X16_BYTES : X8_BYTES) {
		UNROLL for (int i = 0; i < 32 / W; i++)
			v[i] = n >= 32 ? loadf(x + i * W) : n > i * W ? load_some(x + i * W, n - i * W) : splat(0);
		quantize32((struct cpu_xq *)(void *)out, v, two);
	}
}

static void to_bf16(uint16_t *out, const float *x, int64_t n)
{
	for (; n >= W; n -= W, x += W, out += W)
		store_bf16(out, loadf(x));
	if (n > 0) {
		uint16_t last[W];
		store_bf16(last, load_some(x, n));
		memcpy(out, last, (size_t)n * 2);
	}
}

static void to_f16(uint16_t *out, const float *x, int64_t n)
{
	for (; n >= W; n -= W, x += W, out += W)
		store_half(out, loadf(x));
	if (n > 0) {
		uint16_t last[W];
		store_half(last, load_some(x, n));
		memcpy(out, last, (size_t)n * 2);
	}
}

void CAT(cpu_quantize)(enum cpu_act act, void *out, const float *x, int64_t n)
{
	if (act == ACT_I8) {
		to_ints(out, x, n, false);
	} else if (act == ACT_I16) {
		to_ints(out, x, n, true);
	} else if (act == ACT_F32) {
		memcpy(out, x, (size_t)n * 4);
	} else {
		to_bf16(out, x, n);
		if (n & 1)   /* products read pairs */
			((uint16_t *)out)[n] = 0;
	}
}

void CAT(cpu_store)(wf_dtype type, void *out, const float *x, int64_t n)
{
	if (type == WF_F32)
		memcpy(out, x, (size_t)n * 4);
	else if (type == WF_F16)
		to_f16(out, x, n);
	else
		to_bf16(out, x, n);
}

void CAT(cpu_load)(wf_dtype type, float *out, const void *x, int64_t n)
{
	const uint8_t *in = x;

	if (type == WF_F32) {
		memcpy(out, in, (size_t)n * 4);
		return;
	}
	for (; n >= W; n -= W, in += 2 * W, out += W)
		store(out, load_as(type, in));
	if (n > 0) {
		uint16_t last[W] = {0};
		memcpy(last, in, (size_t)n * 2);
		store_some(out, n, load_as(type, last));
	}
}

/* ---- rows to rows ------------------------------------------------------------------------------- */

/* Four sums side by side: additions neither wait for each other nor lose low bits so soon. */
ALWAYS float sum(const float *x, int64_t n, float center, bool square)
{
	vf part[4] = {{0}};
	int64_t i = 0;

	for (; i + 4 * W <= n; i += 4 * W)
		UNROLL for (int k = 0; k < 4; k++) {
			vf v = loadf(x + i + k * W) - splat(center);
			part[k] += square ? v * v : v;
		}
	float rest = 0, total = hsum((part[0] + part[1]) + (part[2] + part[3]));
	for (; i < n; i++)
		rest += square ? (x[i] - center) * (x[i] - center) : x[i] - center;
	return total + rest;
}

void CAT(cpu_rmsnorm)(float *out, const float *x, const float *w, int64_t n, float eps)
{
	float scale = 1 / sqrtf(sum(x, n, 0, true) / (float)n + eps);

	for (int64_t i = 0; i < n; i += W) {
		vf v = load_some(x + i, n - i) * splat(scale);
		store_some(out + i, n - i, w ? v * load_some(w + i, n - i) : v);
	}
}

void CAT(cpu_layernorm)(float *out, const float *x, const float *w, const float *b, int64_t n, float eps)
{
	float mean = sum(x, n, 0, false) / (float)n;
	float scale = 1 / sqrtf(sum(x, n, mean, true) / (float)n + eps);

	for (int64_t i = 0; i < n; i += W) {
		vf v = (load_some(x + i, n - i) - splat(mean)) * splat(scale);
		if (w)
			v *= load_some(w + i, n - i);
		if (b)
			v += load_some(b + i, n - i);
		store_some(out + i, n - i, v);
	}
}

void CAT(cpu_softmax)(float *x, int64_t n)
{
	float max = -INFINITY, total = 0;

	for (int64_t i = 0; i < n; i++)
		max = x[i] > max ? x[i] : max;
	for (int64_t i = 0; i < n; i += W) {
		vf v = vexp(load_some(x + i, n - i) - splat(max));
		store_some(x + i, n - i, v);
		total += hsum(load_some(x + i, n - i));
	}
	for (int64_t i = 0; i < n; i += W)
		store_some(x + i, n - i, load_some(x + i, n - i) * splat(1 / total));
}

/* ---- elementwise --------------------------------------------------------------------------------- */

ALWAYS vf silu(vf x) { return x / (splat(1) + vexp(-x)); }

/* 0.5 x (1 + tanh u) = x sigmoid(2u), u = sqrt(2 / pi) (x + 0.044715 x^3) */
ALWAYS vf gelu(vf x)
{
	vf twice = x * (splat(1.5957691216f) + splat(0.0713548162726f) * x * x);

	return x / (splat(1) + vexp(-twice));
}

ALWAYS void map(vf (*fn)(vf), float *out, const float *x, const float *by, int64_t n)
{
	int64_t i = 0;

	for (; i + W <= n; i += W)
		store(out + i, by ? fn(loadf(x + i)) * loadf(by + i) : fn(loadf(x + i)));
	if (i < n) {
		vf v = fn(load_some(x + i, n - i));
		store_some(out + i, n - i, by ? v * load_some(by + i, n - i) : v);
	}
}

void CAT(cpu_silu)(float *out, const float *x, int64_t n) { map(silu, out, x, NULL, n); }
void CAT(cpu_gelu)(float *out, const float *x, int64_t n) { map(gelu, out, x, NULL, n); }

void CAT(cpu_silu_mul)(float *out, const float *gate, const float *up, int64_t n)
{
	map(silu, out, gate, up, n);
}

void CAT(cpu_gelu_mul)(float *out, const float *gate, const float *up, int64_t n)
{
	map(gelu, out, gate, up, n);
}

/* ---- rotary positions: plain loops that the compiler makes vectors of ------------------------------- */

static void turn_pairs(float *restrict o, const float *restrict x, const float *restrict c, const float *restrict s, int64_t half)
{
	for (int64_t i = 0; i < half; i++) {
		float a = x[2 * i], b = x[2 * i + 1];
		o[2 * i] = a * c[i] - b * s[i];
		o[2 * i + 1] = b * c[i] + a * s[i];
	}
}

static void turn_halves(float *restrict o, const float *restrict x, const float *restrict c, const float *restrict s, int64_t half)
{
	for (int64_t i = 0; i < half; i++) {
		float a = x[i], b = x[i + half];
		o[i] = a * c[i] - b * s[i];
		o[i + half] = b * c[i] + a * s[i];
	}
}

void CAT(cpu_rope)(float *out, const float *x, const float *c, const float *s, int64_t half, int64_t n, bool pairs)
{
	(pairs ? turn_pairs : turn_halves)(out, x, c, s, half);
	memcpy(out + 2 * half, x + 2 * half, sizeof *out * (size_t)(n - 2 * half));
}
