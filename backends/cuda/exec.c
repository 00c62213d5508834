/* exec.c - a plan on one GPU: opened once, then a step is a copy of its table and a graph launch.
 *
 * Opening writes and compiles the pages, proves that everything fits, loads the weights and captures
 * the buckets.  A step allocates nothing, on the host or the device, and does not wait: only reading
 * an output does. */
#include "backends/cuda/cuda.h"

#ifdef WF_CUDA

#include <string.h>
#include <time.h>

enum { MAXPINNED = 64 << 20 };                /* of an output's host copy; larger ones are seldom read */

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- a step -------------------------------------------------------------------------------------------- */

static int check_batch(const struct cuda_exec *e, const wf_batch *b)
{
	const struct wf_plan_opt *most = &e->base.plan->opt;

	if (b->ntoken < 1 || b->ntoken > most->max_tokens || b->nseq < 1 || b->nseq > most->max_seqs || b->nrow < 0 ||
	    b->nrow > most->max_rows)
		return wf_fail(e->base.err, "cuda: a batch of %d tokens, %d sequences, %d rows; the plan takes up to %lld, %lld, %lld",
			b->ntoken, b->nseq, b->nrow, (long long)most->max_tokens, (long long)most->max_seqs, (long long)most->max_rows);
	return 0;
}

static int step(wf_exec *exec, const wf_batch *b)
{
	struct cuda_exec *e = (struct cuda_exec *)exec;

	if (check_batch(e, b) || CU(exec->err, cuCtxSetCurrent(e->context)))
		return -1;
	e->bound[0] = b->ntoken;
	e->bound[1] = b->nseq;
	e->bound[2] = b->nrow;
	if (b->pick && e->ring.asked - e->ring.read == WF_AHEAD)
		return wf_fail(exec->err, "cuda: the tokens of %d steps are unread", WF_AHEAD);
	if (bind_step(e, b) || launch_step(e, b) || (b->pick && ring_sent(e)))
		return -1;
	exec->steps++;
	return 0;
}

static const int32_t *picked(wf_exec *exec)
{
	struct cuda_exec *e = (struct cuda_exec *)exec;

	return CU(exec->err, cuCtxSetCurrent(e->context)) ? NULL : ring_read(e);
}

static int copy_pages(wf_exec *exec, const struct wf_slab_copy *copy, int n)
{
	struct cuda_exec *e = (struct cuda_exec *)exec;
	const wf_slab *slab = e->opt.slab;

	if (n && CU(exec->err, cuCtxSetCurrent(e->context)))
		return -1;
	for (int i = 0; i < n; i++) {
		size_t bytes = slab_page_bytes(wf_slab_class(slab, copy[i].cls), wf_slab_page_tokens(slab));
		CUdeviceptr base = e->memory.kv_base[copy[i].cls];
		if (CU(exec->err, cuMemcpyDtoDAsync(base + (size_t)copy[i].to * bytes, base + (size_t)copy[i].from * bytes,
				bytes, e->stream)))
			return -1;
	}
	return 0;
}

static int64_t rows_now(const struct cuda_exec *e, const wf_tensor *t)
{
	int64_t n = 1;

	for (int i = 0; i + 1 < t->ndim; i++)
		n *= t->dim[i] < 0 ? e->bound[-1 - t->dim[i]] : t->dim[i];
	return n;
}

/* A view of a value that other kernels read is kept in their type. */
static void widen(float *out, wf_dtype dtype, int64_t n)
{
	for (int64_t i = n - 1; i >= 0; i--)
		wf_decode(dtype, out + i, (const char *)out + i * wf_dtypes[dtype].bytes, 1);
}

static const float *output(wf_exec *exec, const char *name)
{
	struct cuda_exec *e = (struct cuda_exec *)exec;
	const wf_plan *plan = exec->plan;

	for (int i = 0; i < plan->g->nout; i++) {
		const wf_tensor *t = plan->g->out[i].t;
		if (strcmp(plan->g->out[i].name, name))
			continue;
		struct page_arg where = {.from = PAGE_VALUE};
		wf_kernel one = {.in = (wf_tensor *[]){plan->g->out[i].t}, .nin = 1};
		bool wide = graph_is_output(plan->g, plan_storage(plan, t));
		int64_t n = rows_now(e, t) * wf_last(t);
		size_t bytes = (size_t)n * (wide ? 4 : (size_t)wf_dtypes[t->dtype].bytes);
		if (CU(exec->err, cuCtxSetCurrent(e->context)) ||
		    (bytes && CU(exec->err, cuMemcpyDtoHAsync(e->out, memory_resolve(e, &one, &where), bytes, e->stream))) ||
		    CU(exec->err, cuStreamSynchronize(e->stream)))
			return NULL;
		if (!wide)
			widen(e->out, t->dtype, n);
		return e->out;
	}
	wf_fail(exec->err, "cuda: no output %s", name);
	return NULL;
}

/* ---- opening ------------------------------------------------------------------------------------------------ */

static void close_exec(wf_exec *exec)
{
	struct cuda_exec *e = (struct cuda_exec *)exec;

	if (e->context && cuda_driver.cuCtxSetCurrent(e->context) == CUDA_SUCCESS && e->stream)
		cuda_driver.cuStreamSynchronize(e->stream);
	launch_close(e);
	bind_close(e);
	ring_close(e);
	memory_close(e);
	if (e->out_pinned)
		cuda_driver.cuMemFreeHost(e->out);
	else
		free(e->out);
	if (e->stream)
		cuda_driver.cuStreamDestroy(e->stream);
	if (e->context)
		cuda_driver.cuDevicePrimaryCtxRelease(e->opt.device);
	nvrtc_free(e->pages.program, e->pages.nprogram);
	wf_arena_free(e->arena);
}

static int open_device(struct cuda_exec *e)
{
	wf_error *err = e->base.err;

	return driver_open(err) || CU(err, cuDevicePrimaryCtxRetain(&e->context, e->opt.device)) ||
		CU(err, cuCtxSetCurrent(e->context)) || driver_gpu(err, e->opt.device, &e->gpu) ||
		CU(err, cuStreamCreate(&e->stream, CU_STREAM_NON_BLOCKING)) ? -1 : 0;
}

static int build_pages(struct cuda_exec *e, struct cuda_cache *cache)
{
	struct emit_opt emit = {.gpu = &e->gpu, .page_tokens = wf_slab_page_tokens(e->opt.slab)};
	struct cuda_build_opt build = {.arch = e->gpu.arch, .cache = cache, .threads = e->opt.threads, .lineinfo = e->opt.sync};
	struct cuda_build_stats stats = {0};
	double start = seconds();

	if (pages_make(e->base.err, e->arena, &emit, e->base.plan, &e->pages) ||
	    nvrtc_build(e->base.err, &build, e->pages.program, e->pages.nprogram, &stats))
		return -1;
	e->opened.compile_s = seconds() - start;
	e->opened.compiled = stats.compiled;
	e->opened.cached = stats.cached;
	return 0;
}

static int load(struct cuda_exec *e, struct cuda_cache *cache)
{
	struct load_opt opt = {.context = e->context, .random = e->opt.random_weights, .seed = e->opt.seed,
		.build = {.arch = e->gpu.arch, .cache = cache}};
	struct load_stats stats;

	if (load_weights(e->base.err, e->memory.item, e->memory.nitem, &opt, &stats))
		return -1;
	e->opened.load_s = stats.seconds;
	e->opened.load_bytes = stats.bytes;
	return 0;
}

static int open_output(struct cuda_exec *e)
{
	e->out_pinned = e->out_bytes <= MAXPINNED;
	if (e->out_pinned && CU(e->base.err, cuMemHostAlloc((void **)&e->out, e->out_bytes + 4, 0))) {
		e->out_pinned = false;
		return -1;
	}
	if (!e->out_pinned && !(e->out = malloc(e->out_bytes)))
		return wf_fail(e->base.err, "cuda: no memory for %zu bytes of output", e->out_bytes);
	return 0;
}

/* A table of nothing, at valid addresses. */
static int bind_nothing(struct cuda_exec *e)
{
	const int32_t zero = 0;
	wf_batch none = {.seq_start = &zero};

	return bind_step(e, &none);
}

static int open_all(struct cuda_exec *e)
{
	struct cuda_cache *cache = e->opt.cache ? cache_open(e->base.err, e->opt.cache) : NULL;

	if (e->opt.cache && !cache)
		return -1;
	plan_bounds(e->base.plan);
	int failed = open_device(e) || build_pages(e, cache) || memory_open(e) || bind_open(e) || ring_open(e) || open_output(e) ||
		load(e, cache) || bind_nothing(e) || launch_open(e);
	cache_close(cache);
	return failed ? -1 : 0;
}

/* Rated figures times the shares an H200 reached: 4.54 of 4.92 TB/s, 760 of 1070 TFLOP/s at its top clock. */
int cuda_device(const wf_backend *backend, struct wf_device *out)
{
	static const struct { int cc; double flops; } per_clock[] = {      /* of a multiprocessor, dense f16 */
		{80, 2048}, {86, 512}, {89, 1024}, {90, 4096}, {100, 8192}, {103, 8192}, {120, 1024}, {0, 1024}
	};
	static _Thread_local struct cuda_gpu gpu;
	wf_error err = {0};
	int i = 0;

	(void)backend;
	if (driver_open(&err) || driver_gpu(&err, 0, &gpu))
		return -1;
	while (per_clock[i].cc && per_clock[i].cc != 10 * gpu.major + gpu.minor)
		i++;
	*out = (struct wf_device){.name = gpu.name, .read_bytes_s = 2e6 * gpu.read_mhz * gpu.read_bits / 8 * (4.54 / 4.92),
		.flops_s = per_clock[i].flops * gpu.sms * gpu.mhz * 1e6 * (760. / 1070), .launch_s = 0.56e-6, .memory = gpu.memory};
	return 0;
}

wf_exec *cuda_open(const wf_backend *backend, wf_plan *plan, wf_error *err, const struct wf_exec_opt *opt)
{
	wf_arena *arena = wf_arena_new();
	struct cuda_exec *e = arena ? wf_alloc(arena, sizeof *e) : NULL;

	if (!e) {
		wf_arena_free(arena);
		wf_fail(err, "cuda: out of memory");
		return NULL;
	}
	e->base = (wf_exec){.backend = backend, .plan = plan, .err = err, .step = step, .copy_pages = copy_pages,
		.output = output, .close = close_exec, .opened = &e->opened};
	e->opt = *opt;
	e->arena = arena;
	if (open_all(e)) {
		close_exec(&e->base);
		return NULL;
	}
	e->base.picked = e->pages.head < 0 ? NULL : picked;
	return &e->base;
}

#endif
