/* cpu_kernels.c - products of packed weights against double sums over wf_decode()'s values: every
 * type, instruction set, activation type and odd shape; outputs poisoned, surroundings watched. */
#include "backends/cpu/cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const isas[] = {"avx512", "avx2", "plain"};
static const wf_dtype types[] = {
	WF_F32, WF_F16, WF_BF16, WF_Q4_0, WF_Q4_1, WF_Q5_0, WF_Q5_1, WF_Q8_0,
	WF_Q2_K, WF_Q3_K, WF_Q4_K, WF_Q5_K, WF_Q6_K, WF_IQ4_NL, WF_IQ4_XS
};
#if defined WF_SANITIZE
enum { NSHAPE = 2, LONG = 2048 };              /* instrumented kernels are 30 times slower */
#else
enum { NSHAPE = 7, LONG = 11008 };
#endif
enum { NTYPE = sizeof types / sizeof *types, NISA = 3, MAXT = 65 };

static const float SENTINEL = 12345;

static uint64_t seed = 1;

static uint32_t rnd(void)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 33);
}

/* Nearly normal, with an outlier now and then. */
static float gauss(void)
{
	float sum = 0;

	for (int i = 0; i < 12; i++)
		sum += (float)(rnd() & 0xffff) / 65536;
	return (sum - 6) * (rnd() % 97 ? 1 : 8);
}

/* Where a block keeps its f16 scales; -1 none. */
static void scale_offsets(wf_dtype type, int at[2])
{
	bool two = type == WF_Q4_1 || type == WF_Q5_1 || type == WF_Q4_K || type == WF_Q5_K;

	at[0] = type == WF_Q2_K ? 80 : type == WF_Q3_K ? 108 : type == WF_Q6_K ? 208 : 0;
	at[1] = type == WF_Q2_K ? 82 : two ? 2 : -1;
}

static void random_row(wf_dtype type, uint8_t *row, int64_t n)
{
	const struct wf_dtype_info *info = &wf_dtypes[type];
	int at[2];

	if (info->block == 1) {
		for (int64_t i = 0; i < n; i++)
			wf_encode(type, row + i * info->bytes, &(float){gauss()}, 1);
		return;
	}
	scale_offsets(type, at);
	for (int64_t b = 0; b < n / info->block; b++, row += info->bytes) {
		for (int i = 0; i < info->bytes; i++)
			row[i] = (uint8_t)rnd();
		for (int i = 0; i < 2 && at[i] >= 0; i++) {
			uint16_t h = wf_f32_to_f16(gauss() / 64);
			memcpy(row + at[i], &h, 2);
		}
	}
}

/* A matrix in the file's layout, decoded, and packed. */
struct matrix {
	struct cpu_mat mat;
	uint8_t *file;
	float *value;
};

static struct matrix matrix_new(wf_dtype type, int64_t rows, int64_t cols)
{
	struct matrix m;
	wf_error err = {0};
	size_t bytes = wf_row_bytes(type, cols);

	assert_int_equal(cpu_mat_init(&m.mat, type, rows, cols, &err), 0);
	m.file = malloc((size_t)rows * bytes + 1);
	m.value = malloc((size_t)(rows * cols) * sizeof(float));
	m.mat.data = aligned_alloc(64, m.mat.bytes);
	assert_true(m.file && m.value && m.mat.data);
	for (int64_t r = 0; r < rows; r++) {
		random_row(type, m.file + (size_t)r * bytes, cols);
		wf_decode(type, m.value + r * cols, m.file + (size_t)r * bytes, cols);
	}
	for (int64_t p = 0; p < m.mat.npanel; p++) {
		const void *row[PANEL];
		for (int r = 0; r < PANEL; r++)
			row[r] = p * PANEL + r < rows ? m.file + (size_t)(p * PANEL + r) * bytes : NULL;
		cpu_mat_pack(&m.mat, p, row);
	}
	return m;
}

static void matrix_free(struct matrix *m)
{
	free(m->file);
	free(m->value);
	free(m->mat.data);
}

/* Activations as given and as the kernel reads them. */
struct rows {
	float *given, *read;
	uint8_t *x;
	size_t stride;
};

/* What the quantised row stands for. */
static void read_back(enum cpu_act act, const uint8_t *x, float *out, int64_t n)
{
	for (int64_t i = 0; i < n; i++) {
		const struct cpu_xq *b = (const void *)(x + i / 32 * (act == ACT_I8 ? X8_BYTES : X16_BYTES));
		if (act == ACT_I8)
			out[i] = (float)b->q[i % 32] * b->scale;
		else if (act == ACT_I16)
			out[i] = (float)(128 * b->q[i % 32] + b->q[32 + i % 32]) * b->scale;
		else
			wf_decode(act == ACT_F32 ? WF_F32 : WF_BF16, out + i, x + i * (act == ACT_F32 ? 4 : 2), 1);
	}
}

static struct rows rows_new(const struct cpu_kernels *k, enum cpu_act act, int n, int64_t cols)
{
	struct rows r = {.stride = cpu_act_bytes(act, cols)};

	r.given = malloc((size_t)(n * cols) * sizeof(float));
	r.read = malloc((size_t)(n * cols) * sizeof(float));
	r.x = aligned_alloc(64, (size_t)n * r.stride);
	assert_true(r.given && r.read && r.x);
	memset(r.x, 0xff, (size_t)n * r.stride);
	for (int64_t i = 0; i < n * cols; i++)
		r.given[i] = gauss();
	for (int t = 0; t < n; t++) {
		k->quantize(act, r.x + (size_t)t * r.stride, r.given + t * cols, cols);
		read_back(act, r.x + (size_t)t * r.stride, r.read + t * cols, cols);
	}
	return r;
}

static void rows_free(struct rows *r)
{
	free(r->given);
	free(r->read);
	free(r->x);
}

struct nmse { double diff, norm; };

/* Against the square of the sum or of its terms, whichever is larger: a sum that cancels out says
 * nothing of its relative error. */
static void nmse_add(struct nmse *e, double got, const struct matrix *m, const float *x, int64_t row)
{
	double want = 0, terms = 0;

	for (int64_t k = 0; k < m->mat.cols && row < m->mat.rows; k++) {
		double term = (double)m->value[row * m->mat.cols + k] * x[k];
		want += term;
		terms += term * term;
	}
	e->diff += (got - want) * (got - want);
	e->norm += want * want > terms ? want * want : terms;
}

/* NMSE below `tight` of what was read, below `loose` of what was given.  NaN fails both. */
static void check(const struct cpu_kernels *k, const struct matrix *m, const struct rows *r, enum cpu_act act,
		int ntoken, const int32_t *xrow, int64_t panel, int64_t npanel)
{
	size_t stride = (size_t)npanel * PANEL + 3, total = stride * (size_t)ntoken + 16;
	float *buffer = malloc((total + 16) * sizeof(float)), *out = buffer + 16;
	struct nmse tight = {0}, loose = {0};

	for (size_t i = 0; i < total + 16; i++)
		buffer[i] = SENTINEL;
	for (int t = 0; t < ntoken; t++)
		for (int64_t i = 0; i < npanel * PANEL; i++)
			out[(size_t)t * stride + (size_t)i] = NAN;
	k->dot(&(struct cpu_dot){.w = &m->mat, .panel = panel, .npanel = npanel, .act = act, .x = r->x,
		.xstride = r->stride, .xrow = xrow, .ntoken = ntoken, .out = out, .stride = stride});
	for (int t = 0; t < ntoken; t++) {
		int64_t from = (xrow ? xrow[t] : t) * m->mat.cols;
		for (int64_t i = 0; i < npanel * PANEL; i++) {
			double got = out[(size_t)t * stride + (size_t)i];
			nmse_add(&tight, got, m, r->read + from, panel * PANEL + i);
			nmse_add(&loose, got, m, r->given + from, panel * PANEL + i);
			out[(size_t)t * stride + (size_t)i] = SENTINEL;
		}
	}
	for (size_t i = 0; i < total + 16; i++)
		assert_true(buffer[i] == SENTINEL);
	double bound = act == ACT_BF16 ? 1e-10 : act >= ACT_I8 ? 1e-11 : 1e-12;
	double given = act == ACT_F32 ? 1e-12 : act == ACT_BF16 ? 1e-4 : act == ACT_I16 ? 5e-3 / (128 * 128) : 5e-3;
	if (!(tight.diff <= bound * tight.norm) || !(loose.diff <= given * loose.norm))
		fail_msg("%s %s act %d rows %lld cols %lld tokens %d: NMSE %g of what was read, %g of what was given",
			k->name, wf_dtypes[m->mat.type].name, act, (long long)m->mat.rows,
			(long long)m->mat.cols, ntoken, tight.diff / tight.norm, loose.diff / loose.norm);
	free(buffer);
}

static bool can_read(const struct cpu_kernels *k, wf_dtype type, enum cpu_act act)
{
	(void)k;
	return act == ACT_F32 || (act >= ACT_I8 && cpu_formats[type].bits) || (act == ACT_BF16 && type == WF_BF16);
}

/* A smaller set of token counts for all but the first shape: the whole product would take minutes. */
static void check_shape(const struct cpu_kernels *k, const struct matrix *m, enum cpu_act act, bool every)
{
	static const int all[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 33, 65}, few[] = {1, 7, 13};
	struct rows r = rows_new(k, act, MAXT, m->mat.cols);
	int n = every ? 12 : 3;

	for (int i = 0; i < n; i++)
		check(k, m, &r, act, every ? all[i] : few[i], NULL, 0, m->mat.npanel);
	if (m->mat.npanel > 2)
		check(k, m, &r, act, 3, NULL, 1, m->mat.npanel - 2);
	check(k, m, &r, act, 5, (const int32_t[]){9, 0, 64, 9, 33}, m->mat.npanel - 1, 1);
	check(k, m, &r, act, 1, (const int32_t[]){17}, m->mat.npanel - 1, 1);
	rows_free(&r);
}

static void check_isa(const struct cpu_kernels *k, wf_dtype type)
{
	static const int64_t rows[] = {48, 1, 7, 16, 17, 100}, odd[] = {1, 2, 31, 33, 255, 257, 600};
	int block = wf_dtypes[type].block;

	for (int i = 0; i < NSHAPE; i++) {
		/* 544: more than a stretch of tiles, and no whole number of them */
		int64_t cols = block == 1 ? odd[i] : block == 32 ? (int64_t[]){544, 32, 64, 96, 576, 32, 288}[i] :
			(int64_t[]){768, 256, 512, 256, 512, 256, 256}[i];
		struct matrix m = matrix_new(type, rows[i % 6], cols);
		for (enum cpu_act act = ACT_F32; act <= ACT_I16; act++)
			if (can_read(k, type, act))
				check_shape(k, &m, act, i == 0);
		matrix_free(&m);
	}
}

static void each_type(void **state)
{
	(void)state;
	for (int i = 0; i < NISA; i++) {
		const struct cpu_kernels *k = cpu_kernels_pick(isas[i]);
		if (!k) {
			print_message("this machine has no %s\n", isas[i]);
			continue;
		}
		for (int t = 0; t < NTYPE; t++)
			check_isa(k, types[t]);
	}
}

/* With f32 activations a packed weight is the decoded one to the bit. */
static void packing_is_exact(void **state)
{
	(void)state;
	for (int i = 0; i < NISA * NTYPE; i++) {
		const struct cpu_kernels *k = cpu_kernels_pick(isas[i % NISA]);
		int64_t cols = wf_dtypes[types[i / NISA]].block == 1 ? 67 : 512;
		if (!k)
			continue;
		struct matrix m = matrix_new(types[i / NISA], 20, cols);
		float *x = calloc((size_t)cols, sizeof *x), out[32];
		for (int64_t col = 0; col < cols; col++) {
			x[col] = 1;
			k->dot(&(struct cpu_dot){.w = &m.mat, .npanel = 2, .act = ACT_F32, .x = x, .ntoken = 1,
				.out = out, .stride = 32});
			x[col] = 0;
			for (int r = 0; r < 20; r++)
				assert_true(out[r] == m.value[r * cols + col]);
		}
		free(x);
		matrix_free(&m);
	}
}

static void long_sums(void **state)
{
	(void)state;
	for (int i = 0; i < NISA; i++) {
		const struct cpu_kernels *k = cpu_kernels_pick(isas[i]);
		if (!k)
			continue;
		for (int t = 0; t < NTYPE; t++) {
			struct matrix m = matrix_new(types[t], 32, LONG);
			struct rows r = rows_new(k, ACT_F32, 3, LONG);
			check(k, &m, &r, ACT_F32, 1, NULL, 0, 2);
			check(k, &m, &r, ACT_F32, 3, NULL, 0, 2);
			rows_free(&r);
			matrix_free(&m);
		}
	}
}

static void not_finite_shows(void **state)
{
	static const float bad[] = {NAN, INFINITY, -INFINITY};

	(void)state;
	for (int i = 0; i < NISA * 6; i++) {
		const struct cpu_kernels *k = cpu_kernels_pick(isas[i % NISA]);
		enum cpu_act act = i / NISA % 2 ? ACT_I8 : ACT_I16;
		if (!k)
			continue;
		struct matrix m = matrix_new(WF_Q4_1, 16, 64);
		_Alignas(64) uint8_t x[2 * X16_BYTES];
		float given[64] = {[3] = 1, [40] = bad[i / NISA / 2]}, out[16];
		k->quantize(act, x, given, 64);
		k->dot(&(struct cpu_dot){.w = &m.mat, .npanel = 1, .act = act, .x = x, .ntoken = 1,
			.out = out, .stride = 16});
		for (int r = 0; r < 16; r++)
			assert_false(isfinite(out[r]));
		matrix_free(&m);
	}
}

static void tiny_and_zero_rows(void **state)
{
	float given[32] = {0}, read[32];
	_Alignas(64) uint8_t x[X16_BYTES];

	(void)state;
	for (int i = 0; i < NISA * 6; i++) {
		const struct cpu_kernels *k = cpu_kernels_pick(isas[i % NISA]);
		enum cpu_act act = i / NISA % 2 ? ACT_I8 : ACT_I16;
		if (!k)
			continue;
		given[5] = (const float[]){0, 1e-40f, 1e-20f}[i / NISA / 2];
		k->quantize(act, x, given, 32);
		read_back(act, x, read, 32);
		assert_true(fabsf(read[5] - given[5]) <= 1e-30f);
		assert_true(read[4] == 0);
	}
}

static void refuses_shapes(void **state)
{
	struct cpu_mat m;

	(void)state;
	assert_int_equal(cpu_mat_init(&m, WF_Q4_K, 16, 128, &(wf_error){0}), -1);
	assert_int_equal(cpu_mat_init(&m, WF_Q8_0, 0, 32, &(wf_error){0}), -1);
	assert_int_equal(cpu_mat_init(&m, WF_I32, 16, 32, &(wf_error){0}), -1);
	assert_int_equal(cpu_mat_init(&m, WF_F32, INT64_MAX, 1, &(wf_error){0}), -1);
	assert_int_equal(cpu_mat_init(&m, WF_F32, INT64_MAX / 4, INT64_MAX / 64, &(wf_error){0}), -1);
	assert_int_equal(cpu_mat_init(&m, WF_Q8_0, INT64_MAX / 4, INT64_MAX / 64 & -32, &(wf_error){0}), -1);
}

static void pick_by_name(void **state)
{
	(void)state;
	assert_non_null(cpu_kernels_pick(NULL));
	assert_string_equal(cpu_kernels_pick("plain")->name, "plain");
	assert_null(cpu_kernels_pick("mmx"));
	assert_int_equal(cpu_act_for(cpu_kernels_pick(NULL), WF_Q4_K, WF_F32), ACT_F32);
	assert_int_equal(cpu_act_for(cpu_kernels_pick(NULL), WF_Q4_K, WF_Q8_0), ACT_I8);
	assert_int_equal(cpu_act_for(cpu_kernels_pick(NULL), WF_Q4_K, WF_NDTYPE), ACT_I16);
	assert_int_equal(cpu_act_for(cpu_kernels_pick("plain"), WF_BF16, WF_NDTYPE), ACT_F32);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_type),
		cmocka_unit_test(packing_is_exact),
		cmocka_unit_test(long_sums),
		cmocka_unit_test(not_finite_shows),
		cmocka_unit_test(tiny_and_zero_rows),
		cmocka_unit_test(refuses_shapes),
		cmocka_unit_test(pick_by_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
