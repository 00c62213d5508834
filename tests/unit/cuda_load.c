/* cuda_load.c - weights arrive byte for byte through the pinned ring, and no failure leaks. */
#include "backends/cuda/cuda.h"
#include "fakecuda.h"
#include "ops/ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#ifdef WF_CUDA

static struct fake *fake;

enum { ROWS = 3000, COLS = 1024 };            /* 12 MB a weight: several chunks */
enum { NITEM = 5 };
enum { SHORT = 3 * 70001 };                   /* more than one run of the kernel that makes f16 */

static float *values[3];
static uint16_t brief[SHORT];                 /* bf16 */

static int find(const wf_weights *w, const char *name, struct wf_blob *out)
{
	int i = name[0] - 'a';

	(void)w;
	*out = i == 4 ? (struct wf_blob){.dtype = WF_BF16, .ndim = 2, .dim = {3, SHORT / 3}, .data = brief, .bytes = sizeof brief} :
		i < 3 ? (struct wf_blob){.dtype = WF_F32, .ndim = 2, .dim = {ROWS, COLS}, .data = values[i],
		.bytes = sizeof(float) * ROWS * COLS} :
		(struct wf_blob){.dtype = WF_F32, .ndim = 1, .dim = {COLS}, .data = values[0], .bytes = sizeof(float) * COLS};
	return 0;
}

static const wf_weights file = {find};

struct fixture {
	wf_arena *arena;
	wf_error err;
	wf_graph *g;
	struct load_item item[NITEM];
	int nitem;
	size_t bytes;
	CUdeviceptr base;
	CUcontext context;
};

static void lay_out(struct fixture *f, int n)
{
	assert_false(f->err.set);
	f->nitem = n;
	for (int i = 0; i < n; i++) {
		f->item[i].bytes = (size_t)wf_nelem(f->item[i].t) * (size_t)wf_dtypes[f->item[i].t->dtype].bytes;
		f->bytes += (f->item[i].bytes + 4095) / 4096 * 4096;
	}
}

static void graph(struct fixture *f)
{
	wf_tensor *w[3];

	f->arena = wf_arena_new();
	f->g = wf_graph_new(f->arena, &f->err, wf_ops);
	f->g->weights = &file;
	for (int i = 0; i < 3; i++)
		w[i] = wf_weight(f->g, WF_SHAPE(ROWS, COLS), "%c", 'a' + i);
	f->item[0].t = w[0];
	f->item[1].t = wf_cat(f->g, w, 3);
	f->item[2].t = wf_weave(f->g, w[1], w[2], 8);
	f->item[3].t = wf_rope_freqs(f->g, 64, &(struct wf_rope_freqs){.theta = 10000});
	f->item[4].t = wf_offset(f->g, wf_weight(f->g, WF_SHAPE(COLS), "d"), 1);
	lay_out(f, NITEM);
}

/* A bf16 weight and two of them as f16, one of which begins where no run does. */
static void graph_of_halves(struct fixture *f)
{
	f->arena = wf_arena_new();
	f->g = wf_graph_new(f->arena, &f->err, wf_ops);
	f->g->weights = &file;
	wf_tensor *w = wf_weight(f->g, WF_SHAPE(3, SHORT / 3), "e"), *half = wf_half(f->g, w);
	f->item[0].t = w;
	f->item[1].t = half;
	f->item[2].t = wf_cat(f->g, (wf_tensor *[]){wf_part(f->g, half, 1, 2), half}, 2);
	lay_out(f, 3);
	for (int i = 0; i < SHORT; i++)
		brief[i] = wf_f32_to_bf16(ldexpf((float)(i % 257 - 128), i % 23 - 16));
}

/* 0, or -1 with everything given back. */
static int load(struct fixture *f, bool random)
{
	struct load_opt opt = {.threads = 3, .random = random, .seed = 5, .build = {.arch = "sm_90a"}};
	struct load_stats stats;
	CUdeviceptr at;

	if (driver_open(&f->err) || CU(&f->err, cuDevicePrimaryCtxRetain(&f->context, 0)))
		return -1;
	int failed = CU(&f->err, cuMemAlloc(&f->base, f->bytes));
	at = f->base;
	for (int i = 0; i < f->nitem; i++) {
		f->item[i].at = at;
		at += (f->item[i].bytes + 4095) / 4096 * 4096;
	}
	opt.context = f->context;
	f->g->weights = random ? NULL : &file;
	if (!failed)
		failed = load_weights(&f->err, f->item, f->nitem, &opt, &stats);
	return failed;
}

static void unload(struct fixture *f)
{
	if (f->base)
		cuda_driver.cuMemFree(f->base);
	if (f->context)
		cuda_driver.cuDevicePrimaryCtxRelease(0);
	wf_arena_free(f->arena);
}

static void bytes_arrive(void **state)
{
	struct fixture f = {0};

	(void)state;
	if (!fake)
		skip();
	graph(&f);
	assert_int_equal(load(&f, false), 0);
	const float *a = (const float *)(uintptr_t)f.item[0].at, *cat = (const float *)(uintptr_t)f.item[1].at;
	const float *weave = (const float *)(uintptr_t)f.item[2].at, *freqs = (const float *)(uintptr_t)f.item[3].at;
	const float *offset = (const float *)(uintptr_t)f.item[4].at;
	assert_memory_equal(a, values[0], f.item[0].bytes);
	for (int i = 0; i < 3; i++)
		assert_memory_equal(cat + (size_t)i * ROWS * COLS, values[i], sizeof(float) * ROWS * COLS);
	for (size_t r = 0; r < 2 * ROWS; r++)
		assert_memory_equal(weave + r * COLS, values[1 + r / 8 % 2] + (r / 16 * 8 + r % 8) * COLS, sizeof(float) * COLS);
	assert_true(freqs[0] == 1.0f);
	for (int i = 0; i < COLS; i++)
		assert_true(offset[i] == values[0][i] + 1);
	unload(&f);
	assert_int_equal(fake->live, 0);
}

/* Values of the hash: made by the kernel where the stand-in runs it, by the host for what is computed from them. */
static void hash_makes_weights(void **state)
{
	struct fixture f = {0};
	wf_error err = {0};
	struct cuda_key key;
	float *want = malloc(sizeof(float) * ROWS * COLS);

	(void)state;
	if (!fake || !want || nvrtc_key(&err, &(struct cuda_build_opt){.arch = "sm_80"}, "", &key)) {
		free(want);
		skip();
	}
	graph(&f);
	fake->nlaunch = 0;
	assert_int_equal(load(&f, true), 0);
	assert_int_equal(fake->nlaunch, 1);
	assert_string_equal(fake->launch[0].name, "weights");
	assert_true(fake->launch[0].grid[0] >= 6 * ROWS * COLS / 65536);
	const wf_tensor *a = f.item[0].t, *d = f.item[4].t->in[0];
	wf_random_fill(wf_random_of(a, 5), 0, ROWS * COLS, WF_F32, want);
	if (getenv("FAKENVRTC"))
		assert_memory_equal((const void *)(uintptr_t)f.item[0].at, want, sizeof(float) * ROWS * COLS);
	wf_random_fill(wf_random_of(d, 5), 0, COLS, WF_F32, want);
	for (int i = 0; i < COLS; i++)
		assert_true(((const float *)(uintptr_t)f.item[4].at)[i] == want[i] + 1);
	free(want);
	unload(&f);
	assert_int_equal(fake->live, 0);
}

/* Where the stand-in runs kernels; the rest, that they are asked for and what happens to each failure, everywhere. */
static void bf16_becomes_f16(void **state)
{
	struct fixture f = {0};
	wf_error err = {0};
	struct cuda_key key;
	bool runs = getenv("FAKENVRTC") != NULL;

	(void)state;
	if (!fake || nvrtc_key(&err, &(struct cuda_build_opt){.arch = "sm_80"}, "", &key))
		skip();
	graph_of_halves(&f);
	fake->nlaunch = 0;
	assert_int_equal(load(&f, false), 0);
	assert_int_equal(fake->nlaunch, 1);
	assert_string_equal(fake->launch[0].name, "halves");
	const uint16_t *half = (const uint16_t *)(uintptr_t)f.item[1].at, *cat = (const uint16_t *)(uintptr_t)f.item[2].at;
	assert_memory_equal((const void *)(uintptr_t)f.item[0].at, brief, sizeof brief);
	for (int i = 0; runs && i < SHORT; i++) {
		uint16_t want = wf_f32_to_f16(wf_bf16_to_f32(brief[i]));
		assert_int_equal(half[i], want);
		assert_int_equal(cat[SHORT / 3 * 2 + i], want);
		assert_true(i < SHORT / 3 || cat[i - SHORT / 3] == want);
	}
	unload(&f);
	assert_int_equal(fake->live, 0);

	f = (struct fixture){0};
	graph_of_halves(&f);
	brief[SHORT - 1] = wf_f32_to_bf16(-65536);
	assert_int_equal(load(&f, false), runs ? -1 : 0);
	assert_true(!runs || strstr(f.err.text, "e holds values past 65504"));
	unload(&f);
	assert_int_equal(fake->live, 0);
}

static void no_failure_leaks(void (*build)(struct fixture *))
{
	for (int n = 1;; n++) {
		struct fixture f = {0};
		build(&f);
		fake->calls = 0;
		fake->fail_at = n;
		int failed = load(&f, false);
		fake->fail_at = 0;
		long calls = fake->calls;
		if (failed)
			assert_true(f.err.set);
		else
			assert_true(calls < n || strstr(fake->failed, "Destroy"));
		unload(&f);
		assert_int_equal(fake->live, 0);
		if (calls < n)
			break;
		n += n / 8;
	}
}

static void short_file_is_refused(void **state)
{
	struct fixture f = {0};

	(void)state;
	if (!fake)
		skip();
	graph(&f);
	f.item[0].t->dim[0] = ROWS + 1;
	f.item[0].bytes += sizeof(float) * COLS;
	f.bytes += 4096;
	assert_int_equal(load(&f, false), -1);
	assert_non_null(strstr(f.err.text, "past"));
	unload(&f);
	assert_int_equal(fake->live, 0);
}

static void blocks_are_not_made(void **state)
{
	struct fixture f = {0};

	(void)state;
	if (!fake)
		skip();
	graph(&f);
	f.item[0].t->dtype = WF_Q8_0;
	assert_int_equal(load(&f, true), -1);
	assert_non_null(strstr(f.err.text, "random weights are f32, f16 or bf16, not q8_0"));
	unload(&f);
	assert_int_equal(fake->live, 0);
}

static void every_call_can_fail(void **state)
{
	(void)state;
	if (!fake)
		skip();
	no_failure_leaks(graph);
	no_failure_leaks(graph_of_halves);
}

static int make_values(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++) {
		values[i] = malloc(sizeof(float) * ROWS * COLS);
		if (!values[i])
			return -1;
		wf_random_fill((struct wf_random){(uint64_t)i, 1, 0}, 0, ROWS * COLS, WF_F32, values[i]);
	}
	return 0;
}

static int free_values(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++)
		free(values[i]);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_arrive),
		cmocka_unit_test(hash_makes_weights),
		cmocka_unit_test(bf16_becomes_f16),
		cmocka_unit_test(short_file_is_refused),
		cmocka_unit_test(blocks_are_not_made),
		cmocka_unit_test(every_call_can_fail),
	};

	fake = fake_load();
	return cmocka_run_group_tests(tests, make_values, free_values);
}

#else

int main(void)
{
	puts("built without the CUDA toolkit\n0 passed, 0 failed");
	return 0;
}

#endif
