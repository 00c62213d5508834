/* cpu_rows.c - row kernels against double arithmetic, at odd lengths and special values. */
#include "backends/cpu/cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

static const char *const isas[] = {"avx512", "avx2", "plain"};
static const int lengths[] = {1, 3, 15, 16, 17, 31, 64, 100, 577, 1000};
enum { MAX = 1000 };

static uint64_t seed = 3;

static float uniform(void)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (float)(int32_t)(seed >> 32) / 0x1p31f;
}

static void fill(float *x, int n, float scale)
{
	for (int i = 0; i < n; i++)
		x[i] = uniform() * scale;
}

static void near(const char *what, const float *got, const double *want, int n)
{
	double diff = 0, norm = 0;

	for (int i = 0; i < n; i++) {
		diff += (got[i] - want[i]) * (got[i] - want[i]);
		norm += want[i] * want[i];
	}
	if (!(diff <= 1e-12 * norm))
		fail_msg("%s of %d: NMSE %g", what, n, diff / norm);
}

/* Run `test` for each instruction set and length. */
static void each(void (*test)(const struct cpu_kernels *, int n))
{
	for (int i = 0; i < 3; i++) {
		const struct cpu_kernels *k = cpu_kernels_pick(isas[i]);
		for (size_t n = 0; k && n < sizeof lengths / sizeof *lengths; n++)
			test(k, lengths[n]);
	}
}

static void test_norms(const struct cpu_kernels *k, int n)
{
	float x[MAX] = {0}, w[MAX] = {0}, b[MAX] = {0}, out[MAX + 1];
	double want[MAX] = {0}, sum = 0, mean = 0, var = 0;

	fill(x, n, 3);
	fill(w, n, 1);
	fill(b, n, 1);
	for (int i = 0; i < n; i++) {
		x[i] += 1;
		sum += (double)x[i] * x[i] / n;
		mean += (double)x[i] / n;
	}
	for (int i = 0; i < n; i++)
		var += (x[i] - mean) * (x[i] - mean) / n;
	out[n] = 99;
	k->rmsnorm(out, x, w, n, 1e-5f);
	for (int i = 0; i < n; i++)
		want[i] = x[i] / sqrt(sum + (double)1e-5f) * w[i];
	near("rmsnorm", out, want, n);
	k->rmsnorm(out, x, NULL, n, 0.5f);
	for (int i = 0; i < n; i++)
		want[i] = x[i] / sqrt(sum + 0.5);
	near("rmsnorm without weight", out, want, n);
	k->layernorm(out, x, w, b, n, 0.5f);
	for (int i = 0; i < n; i++)
		want[i] = (x[i] - mean) / sqrt(var + 0.5) * w[i] + b[i];
	near("layernorm", out, want, n);
	k->layernorm(out, x, NULL, NULL, n, 0.5f);
	for (int i = 0; i < n; i++)
		want[i] = (x[i] - mean) / sqrt(var + 0.5);
	if (n > 1)
		near("layernorm without weight", out, want, n);
	assert_true(out[n] == 99);
}

static void norms(void **state) { (void)state; each(test_norms); }

static double gelu(double x) { return x / (1 + exp(-2 * sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x))); }

static void test_activations(const struct cpu_kernels *k, int n)
{
	float x[MAX] = {0}, y[MAX] = {0}, out[MAX + 1];
	double want[MAX] = {0};

	fill(x, n, 12);
	fill(y, n, 2);
	out[n] = 99;
	for (int i = 0; i < n; i++)
		want[i] = x[i] / (1 + exp(-(double)x[i]));
	k->silu(out, x, n);
	near("silu", out, want, n);
	for (int i = 0; i < n; i++)
		want[i] *= y[i];
	k->silu_mul(out, x, y, n);
	near("silu_mul", out, want, n);
	for (int i = 0; i < n; i++)
		want[i] = gelu(x[i]);
	k->gelu(out, x, n);
	near("gelu", out, want, n);
	for (int i = 0; i < n; i++)
		want[i] *= y[i];
	k->gelu_mul(out, x, y, n);
	near("gelu_mul", out, want, n);
	assert_true(out[n] == 99);
}

static void activations(void **state) { (void)state; each(test_activations); }

static void test_softmax(const struct cpu_kernels *k, int n)
{
	float x[MAX + 1];
	double want[MAX], sum = 0;

	fill(x, n, 20);
	x[n] = 99;
	x[0] = n > 1 ? -INFINITY : 5;
	for (int i = 0; i < n; i++)
		sum += want[i] = exp((double)x[i]);
	for (int i = 0; i < n; i++)
		want[i] /= sum;
	k->softmax(x, n);
	near("softmax", x, want, n);
	assert_true(x[n] == 99);
}

static void softmax(void **state) { (void)state; each(test_softmax); }

static void extremes(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++) {
		const struct cpu_kernels *k = cpu_kernels_pick(isas[i]);
		float x[] = {-1e30f, -200, -88, -0.f, 0, 200, 1e30f, NAN}, out[8];
		if (!k)
			continue;
		k->silu(out, x, 8);
		assert_true(fabsf(out[0]) < 1e-6f && fabsf(out[1]) < 1e-30f && fabsf(out[2]) < 1e-30f);
		assert_true(out[3] == 0 && out[4] == 0 && out[5] == 200 && out[6] == 1e30f);
		assert_true(isnan(out[7]));
		k->gelu(out, x, 8);
		assert_true(fabsf(out[1]) < 1e-30f && out[4] == 0 && out[5] == 200 && isnan(out[7]));
	}
}

/* Every 16-bit pattern decodes as dtype.c does; floats around every one encode as there. */
static void sixteen_bits(const struct cpu_kernels *k, wf_dtype type)
{
	enum { N = 1 << 12 };
	static uint16_t in[N], out[N];
	static float x[N];

	for (int base = 0; base < 1 << 16; base += N) {
		for (int i = 0; i < N; i++)
			in[i] = (uint16_t)(base + i);
		k->load(type, x, in, N);
		for (int i = 0; i < N; i++) {
			float want;
			wf_decode(type, &want, &in[i], 1);
			assert_true(isnan(want) ? isnan(x[i]) : !memcmp(&want, &x[i], 4));
			x[i] += uniform() * fabsf(x[i]) * 0.01f;
		}
		k->store(type, out, x, N - 3);
		for (int i = 0; i < N - 3; i++) {
			uint16_t want;
			wf_encode(type, &want, &x[i], 1);
			assert_true(isnan(x[i]) ? (out[i] & 0x7fff) > (type == WF_F16 ? 0x7c00 : 0x7f80) : want == out[i]);
		}
	}
}

static void conversions(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++) {
		const struct cpu_kernels *k = cpu_kernels_pick(isas[i]);
		if (!k)
			continue;
		sixteen_bits(k, WF_F16);
		sixteen_bits(k, WF_BF16);
		for (int n = 1; n < 40; n++) {
			float x[40], back[41] = {0};
			uint16_t h[41] = {0};
			fill(x, n, 1);
			h[n] = 77;
			back[n] = 77;
			k->store(WF_BF16, h, x, n);
			k->load(WF_BF16, back, h, n);
			assert_true(h[n] == 77 && back[n] == 77 && fabsf(back[n - 1] - x[n - 1]) <= 0.01f);
		}
	}
}

/* n values, of which some pairs at the front turn. */
static void test_rope(const struct cpu_kernels *k, int n)
{
	int half = n / 2 > 3 ? n / 2 - n % 3 : n / 2;
	float x[MAX] = {0}, c[MAX / 2 + 1], s[MAX / 2 + 1], out[MAX + 1];
	double want[MAX];

	fill(x, n, 2);
	fill(c, half, 1);
	fill(s, half, 1);
	for (int pairs = 0; pairs < 2; pairs++) {
		for (int i = 0; i < n; i++)
			want[i] = x[i];
		for (int i = 0; i < half; i++) {
			int a = pairs ? 2 * i : i, b = pairs ? 2 * i + 1 : i + half;
			want[a] = (double)x[a] * c[i] - (double)x[b] * s[i];
			want[b] = (double)x[b] * c[i] + (double)x[a] * s[i];
		}
		out[n] = 99;
		k->rope(out, x, c, s, half, n, pairs);
		near(pairs ? "rope of pairs" : "rope of halves", out, want, n);
		assert_true(out[n] == 99);
	}
}

static void rope(void **state)
{
	(void)state;
	each(test_rope);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(norms),
		cmocka_unit_test(activations),
		cmocka_unit_test(softmax),
		cmocka_unit_test(extremes),
		cmocka_unit_test(conversions),
		cmocka_unit_test(rope),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
