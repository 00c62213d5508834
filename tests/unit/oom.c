/* oom.c - the n-th allocation fails, for every n, from opening a model to the end of a step.
 *
 * malloc and its kin are this program's own: they count, fail on request and keep the balance of
 * blocks, so a leak on an error path shows as a block too many. */
#include "harness.h"
#include <dlfcn.h>
#include <errno.h>
#include <unistd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <cmocka.h>

#ifndef WF_SANITIZE

static atomic_long calls, fail_at, live;
static atomic_int armed;

static void *(*real_malloc)(size_t);
static void *(*real_calloc)(size_t, size_t);
static void *(*real_realloc)(void *, size_t);
static int (*real_memalign)(void **, size_t, size_t);
static void (*real_free)(void *);

/* dlsym itself may ask for memory before the real functions are known. */
static char early[1 << 16];
static size_t early_used;

static void *early_alloc(size_t n)
{
	void *p = early + early_used;

	early_used += (n + 63) / 64 * 64;
	if (early_used > sizeof early)
		abort();
	return p;
}

static bool is_early(const void *p)
{
	return (const char *)p >= early && (const char *)p < early + sizeof early;
}

static void find_real(void)
{
	static int busy;

	if (real_free || busy)
		return;
	busy = 1;
	real_malloc = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
	real_calloc = (void *(*)(size_t, size_t))dlsym(RTLD_NEXT, "calloc");
	real_realloc = (void *(*)(void *, size_t))dlsym(RTLD_NEXT, "realloc");
	real_memalign = (int (*)(void **, size_t, size_t))dlsym(RTLD_NEXT, "posix_memalign");
	real_free = (void (*)(void *))dlsym(RTLD_NEXT, "free");
	busy = 0;
}

static bool refuse(void)
{
	if (!armed)
		return false;
	return ++calls == fail_at;
}

static void *kept(void *p)
{
	if (p && armed)
		live++;
	return p;
}

void *malloc(size_t n)
{
	find_real();
	if (!real_malloc)
		return early_alloc(n);
	return refuse() ? (errno = ENOMEM, NULL) : kept(real_malloc(n));
}

void *calloc(size_t n, size_t size)
{
	find_real();
	if (!real_calloc)
		return early_alloc(n * size);
	return refuse() ? (errno = ENOMEM, NULL) : kept(real_calloc(n, size));
}

void *realloc(void *p, size_t n)
{
	find_real();
	if (refuse()) {
		errno = ENOMEM;
		return NULL;
	}
	void *q = real_realloc(p, n);
	return p ? q : kept(q);
}

int posix_memalign(void **p, size_t align, size_t n)
{
	find_real();
	if (refuse())
		return ENOMEM;
	int result = real_memalign(p, align, n);
	if (!result)
		kept(*p);
	return result;
}

void *aligned_alloc(size_t align, size_t n)
{
	void *p;

	return posix_memalign(&p, align < sizeof p ? sizeof p : align, n) ? NULL : p;
}

void free(void *p)
{
	find_real();
	if (!p || is_early(p))
		return;
	if (armed)
		live--;
	real_free(p);
}

/* Open, plan, load, one step of five tokens, close.  0 when all of it worked. */
static int run_once(const char *path, wf_error *err)
{
	static const int32_t token[] = {1, 5, 9, 13, 17};
	wf_runner *r = NULL;
	wf_seq *seq = NULL;
	const float *logits;
	int nrow, result = -1;
	wf_model *m = wf_model_open(err, path, NULL, 0);
	wf_arena *arena = m ? wf_arena_new() : NULL;
	wf_graph *g = arena ? wf_model_graph(m, arena, err) : NULL;
	wf_plan *plan = g ? wf_plan_build(g, wf_rules, &wf_backend_cpu, &(struct wf_plan_opt){
		.max_tokens = 8, .max_seqs = 1, .max_rows = 1, .verify = true}) : NULL;

	if (m && !arena)
		wf_fail(err, "out of memory");
	if (plan)
		r = wf_runner_new(err, plan, &(struct wf_runner_opt){.ctx = 64, .page_tokens = 16, .exec = {.threads = 2}});
	if (r && !(seq = wf_seq_new(wf_runner_slab(r))))
		wf_fail(err, "out of memory");
	if (seq)
		result = wf_runner_step(r, &(struct wf_piece){.seq = seq, .token = token, .n = 5}, 1, &logits, &nrow);
	if (seq)
		wf_seq_free(wf_runner_slab(r), seq);
	wf_runner_free(r);
	wf_arena_free(arena);
	if (m)
		wf_model_close(m);
	return result;
}

static void every_allocation(const char *path)
{
	wf_error err = {0};

	assert_int_equal(run_once(path, &err), 0);       /* libraries make their own caches the first time */
	for (long n = 1;; n++) {
		err = (wf_error){0};
		calls = 0;
		live = 0;
		fail_at = n;
		armed = 1;
		int result = run_once(path, &err);
		armed = 0;
		if (calls < n) {
			assert_int_equal(result, 0);
			printf("measured: %ld allocations from opening %s to the end of a step, each failed once\n", n - 1, path);
			return;
		}
		if (live)
			fail_msg("allocation %ld fails: %ld blocks leak (%s)", n, (long)live, err.text);
		if (result && !err.set)
			fail_msg("allocation %ld fails: no message", n);
	}
}

static void safetensors_model(void **unused)
{
	(void)unused;
	every_allocation("tests/golden/llama");
}

static void gguf_model(void **unused)
{
	const char *shared = getenv("WEFT_SHARED");
	char path[512];
	(void)unused;

	snprintf(path, sizeof path, "%s/models/stories260K.gguf", shared ? shared : "../shared");
	if (access(path, R_OK))
		skip();
	every_allocation(path);
}

/* A step takes nothing from the heap. */
static void step_allocates_nothing(void **unused)
{
	struct side a;
	const struct shape shape = {64, 2, 4, 2, 16, 96, 128};
	wf_config c = config_of(&shape);
	int32_t token[40] = {0};
	const float *logits;
	int nrow;
	(void)unused;

	side_open(&a, &wf_arch_llama, &c, WF_F16, WF_F16);
	a.plan = wf_plan_build(a.g, wf_rules, &wf_backend_cpu, &(struct wf_plan_opt){.max_tokens = 40, .max_seqs = 1, .max_rows = 1});
	assert_non_null(a.plan);
	a.runner = wf_runner_new(&a.err, a.plan, &(struct wf_runner_opt){.ctx = 256, .page_tokens = 16, .exec = {.threads = 2}});
	assert_non_null(a.runner);
	wf_seq *seq = wf_seq_new(wf_runner_slab(a.runner));
	assert_int_equal(wf_runner_step(a.runner, &(struct wf_piece){.seq = seq, .token = token, .n = 40}, 1, &logits, &nrow), 0);
	calls = 0;
	fail_at = 0;
	armed = 1;
	for (int i = 0; i < 20; i++)
		wf_runner_step(a.runner, &(struct wf_piece){.seq = seq, .token = token, .n = 1 + i % 3}, 1, &logits, &nrow);
	armed = 0;
	assert_int_equal(calls, 0);
	wf_seq_free(wf_runner_slab(a.runner), seq);
	side_close(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(safetensors_model),
		cmocka_unit_test(gguf_model),
		cmocka_unit_test(step_allocates_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

static void not_with_sanitizers(void **unused)
{
	(void)unused;
	skip();          /* their allocator cannot be replaced */
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(not_with_sanitizers)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
