/* launch.c - a step's kernels: one by one, or a whole bucket captured once and replayed.
 *
 * Kernels follow each other by programmatic dependent launch: each may start, and ask for its
 * weights, while the one before drains.  A graph is made for every count of single tokens in the
 * list below; steps with prompts in them launch one by one, their kernels are long. */
#include "backends/cuda/cuda.h"

#ifdef WF_CUDA

#include <string.h>

static const int64_t buckets[] = {1, 2, 4, 8, 16, 32, 64, 128, 256};

/* ---- one launch --------------------------------------------------------------------------------------- */

static int launch_library(struct cuda_exec *e, const wf_kernel *kernel, const struct emit_launch *l, int64_t rows)
{
	uint64_t arg[4] = {0};
	struct blas_shape shape = {.M = l->M, .N = rows, .K = l->K, .ldx = l->K, .ldy = l->M, .in = l->in, .out = l->out};

	for (int i = 0; i < l->narg; i++)
		arg[i] = memory_resolve(e, kernel, &l->arg[i]);
	return blas_matmul(e->base.err, e->blas, e->stream, &shape, arg[0], arg[1], arg[3], arg[2]);
}

/* What decides which kernels run, on how many blocks. */
struct extent {
	int64_t bound[3];                     /* tokens, sequences, rows */
	int singles;                          /* sequences of one new token */
};

static unsigned blocks_of(const struct emit_launch *l, int64_t rows, const struct extent *x)
{
	return (unsigned)(l->tile ? (rows * l->each + l->tile - 1) / l->tile + x->bound[1] : l->grid_x ? l->grid_x : rows);
}

static int launch_page(struct cuda_exec *e, const wf_kernel *kernel, const struct emit_launch *l, int program, unsigned blocks)
{
	uint64_t arg[PAGE_MAXARG];
	void *params[] = {arg};
	CUlaunchAttribute dependent = {.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
		.value = {.programmaticStreamSerializationAllowed = 1}};
	CUlaunchConfig config = {.gridDimX = blocks, .gridDimY = l->grid_y, .gridDimZ = 1,
		.blockDimX = l->threads, .blockDimY = 1, .blockDimZ = 1, .sharedMemBytes = e->module[program].smem, .hStream = e->stream,
		.attrs = &dependent, .numAttrs = e->gpu.major >= 9 && !e->opt.sync && !e->opt.profile};

	for (int i = 0; i < l->narg; i++)
		arg[i] = memory_resolve(e, kernel, &l->arg[i]);
	return CU(e->base.err, cuLaunchKernelEx(&config, e->module[program].function, params, NULL));
}

static int64_t rows_of(const wf_kernel *kernel, const int64_t bound[3])
{
	int64_t n = kernel->anchor->dim[0];

	return n < 0 ? bound[-1 - n] : n;
}

/* Which group and which source a fault belongs to: known when every launch is waited for. */
static int wait_for(struct cuda_exec *e, const wf_kernel *kernel, const struct emit_launch *l)
{
	wf_error err = {0};

	if (!CU(&err, cuStreamSynchronize(e->stream)))
		return 0;
	return wf_fail(e->base.err, "kernel %d (%s of %s), source %s.cu: %s", kernel->id, kernel->anchor->op->name,
		kernel->anchor->scope ? kernel->anchor->scope : "the model", l->name, err.text);
}

static int run_kernel(struct cuda_exec *e, int k, const struct extent *x)
{
	const wf_kernel *kernel = &e->base.plan->kernel[k];
	int64_t rows = rows_of(kernel, x->bound);
	const struct variant *v = rows ? pages_pick(&e->pages.kernel[k], rows, x->singles == x->bound[0]) : NULL;

	if (rows && !v)
		return wf_fail(e->base.err, "cuda: kernel %d has no variant for %lld rows", k, (long long)rows);
	for (int i = 0; v && i < v->work.n; i++) {
		const struct emit_launch *l = &v->work.launch[i];
		if (l->singles && !x->singles)
			continue;
		if (l->source ? launch_page(e, kernel, l, v->program[i], blocks_of(l, rows, x)) : launch_library(e, kernel, l, rows))
			return -1;
		if (e->opt.sync && wait_for(e, kernel, l))
			return -1;
	}
	return 0;
}

static int run_pick(struct cuda_exec *e, int64_t rows)
{
	const struct pages *p = &e->pages;

	return p->head < 0 || !rows ? 0 :
		launch_page(e, &e->base.plan->kernel[p->head], &p->pick, p->pick_program, (unsigned)rows);
}

static int run_all(struct cuda_exec *e, const struct extent *x)
{
	if (e->mark && CU(e->base.err, cuEventRecord(e->mark[0], e->stream)))
		return -1;
	for (int k = 0; k < e->base.plan->nkernel; k++) {
		if (run_kernel(e, k, x))
			return -1;
		if (e->mark && CU(e->base.err, cuEventRecord(e->mark[k + 1], e->stream)))
			return -1;
	}
	return run_pick(e, x->bound[2]);
}

static int read_marks(struct cuda_exec *e)
{
	float ms;

	if (!e->mark)
		return 0;
	if (CU(e->base.err, cuStreamSynchronize(e->stream)))
		return -1;
	for (int k = 0; k < e->base.plan->nkernel; k++) {
		if (CU(e->base.err, cuEventElapsedTime(&ms, e->mark[k], e->mark[k + 1])))
			return -1;
		e->seconds[k] += (double)ms * 1e-3;
	}
	return 0;
}

/* ---- graphs ------------------------------------------------------------------------------------------------ */

static int capture(struct cuda_exec *e, struct bucket *b)
{
	const struct wf_plan_opt *most = &e->base.plan->opt;
	struct extent x = {{b->n, b->n < most->max_seqs ? b->n : most->max_seqs, b->n < most->max_rows ? b->n : most->max_rows}, (int)b->n};
	CUgraph graph = NULL;

	if (run_all(e, &x) || CU(e->base.err, cuStreamBeginCapture(e->stream, CU_STREAM_CAPTURE_MODE_RELAXED)))
		return -1;
	int failed = run_all(e, &x);
	failed |= CU(e->base.err, cuStreamEndCapture(e->stream, &graph));
	if (!failed)
		failed = CU(e->base.err, cuGraphInstantiate(&b->graph, graph, 0)) ||
			CU(e->base.err, cuGraphUpload(b->graph, e->stream));
	if (graph)
		cuda_driver.cuGraphDestroy(graph);
	return failed ? -1 : 0;
}

/* Everything is launched once outside a capture, over an empty table: what loads lazily is loaded. */
static int capture_all(struct cuda_exec *e)
{
	const struct wf_plan_opt *most = &e->base.plan->opt;

	if (e->opt.no_graph || e->opt.sync || e->opt.profile)
		return 0;
	for (size_t i = 0; i < sizeof buckets / sizeof *buckets; i++) {
		struct bucket *b = &e->bucket[e->nbucket];
		if (buckets[i] > most->max_tokens || buckets[i] > most->max_seqs)
			break;
		b->n = buckets[i];
		e->nbucket++;
		if (capture(e, b))
			return -1;
	}
	return 0;
}

static const struct bucket *find_bucket(const struct cuda_exec *e, const wf_batch *b)
{
	bool single = b->ntoken == b->nseq && b->nrow <= b->nseq;

	for (int i = 0; single && i < e->nbucket; i++)
		if (e->bucket[i].n >= b->ntoken)
			return &e->bucket[i];
	return NULL;
}

/* ---- opening: functions, graphs ------------------------------------------------------------------------------- */

static int set_up(struct cuda_exec *e, CUfunction f, unsigned smem)
{
	/* one division of memory for all kernels: changing it would drain the multiprocessor between two of them */
	return CU(e->base.err, cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100)) ||
		(smem > 48 << 10 && CU(e->base.err, cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, (int)smem)));
}

static int load_function(struct cuda_exec *e, int program, const struct emit_launch *l)
{
	struct cuda_module *m = &e->module[program];

	if (m->function)
		return 0;
	m->smem = e->pages.program[program].usage.dynamic > 0 ? (unsigned)e->pages.program[program].usage.dynamic : 0;
	return CU(e->base.err, cuModuleLoadData(&m->module, e->pages.program[program].cubin)) ||
		CU(e->base.err, cuModuleGetFunction(&m->function, m->module, l->function)) ||
		set_up(e, m->function, m->smem) ? -1 : 0;
}

static int load_functions(struct cuda_exec *e)
{
	e->module = wf_alloc_n(e->arena, (size_t)e->pages.nprogram + 1, sizeof *e->module);
	if (!e->module)
		return wf_fail(e->base.err, "cuda: out of memory");
	for (int k = 0; k < e->base.plan->nkernel; k++)
		for (int i = 0; i < e->pages.kernel[k].nvariant; i++) {
			const struct variant *v = &e->pages.kernel[k].variant[i];
			for (int j = 0; j < v->work.n; j++)
				if (v->program[j] >= 0 && load_function(e, v->program[j], &v->work.launch[j]))
					return -1;
		}
	return e->pages.head < 0 ? 0 : load_function(e, e->pages.pick_program, &e->pages.pick);
}

static int open_marks(struct cuda_exec *e)
{
	int n = e->base.plan->nkernel;

	if (!e->opt.profile)
		return 0;
	e->mark = wf_alloc_n(e->arena, (size_t)n + 2, sizeof *e->mark);
	e->seconds = wf_alloc_n(e->arena, (size_t)n + 1, sizeof *e->seconds);
	if (!e->mark || !e->seconds)
		return wf_fail(e->base.err, "cuda: out of memory");
	for (int k = 0; k <= n; k++)
		if (CU(e->base.err, cuEventCreate(&e->mark[k], CU_EVENT_DEFAULT)))
			return -1;
	e->base.kernel_s = e->seconds;
	return 0;
}

static bool wants_library(const struct cuda_exec *e)
{
	return e->memory.workspace != 0;
}

int launch_open(struct cuda_exec *e)
{
	if (load_functions(e) || open_marks(e))
		return -1;
	if (wants_library(e) && !(e->blas = blas_open(e->base.err, e->memory.workspace, CUDA_WORKSPACE)))
		return -1;
	return capture_all(e);
}

void launch_close(struct cuda_exec *e)
{
	for (int i = 0; i < e->nbucket; i++)
		if (e->bucket[i].graph)
			cuda_driver.cuGraphExecDestroy(e->bucket[i].graph);
	for (int k = 0; e->mark && k <= e->base.plan->nkernel; k++)
		if (e->mark[k])
			cuda_driver.cuEventDestroy(e->mark[k]);
	for (int i = 0; e->module && i < e->pages.nprogram; i++)
		if (e->module[i].module)
			cuda_driver.cuModuleUnload(e->module[i].module);
	blas_close(e->blas);
}

int launch_step(struct cuda_exec *e, const wf_batch *b)
{
	const struct bucket *bucket = find_bucket(e, b);
	struct extent x = {.bound = {b->ntoken, b->nseq, b->nrow}};

	if (bucket)
		return CU(e->base.err, cuGraphLaunch(bucket->graph, e->stream));
	for (int s = 0; s < b->nseq; s++)
		x.singles += b->seq_start[s + 1] - b->seq_start[s] == 1;
	return run_all(e, &x) || read_marks(e) ? -1 : 0;
}

#endif
