/* load_make.c - weights finished on the device: values of a hash, and bf16 that becomes f16 where it lies.
 * A kernel goes over a list of runs, a block each. */
#include "backends/cuda/cuda.h"

#ifdef WF_CUDA

#include <string.h>

static const char random_kernel[] =
	"struct run { unsigned long long to, first, count, key; float scale, shift; unsigned dtype, unused; };\n"
	"struct args { run *runs; byte *base; };\n"
	"template <typename T> __device__ inline void fill(const run &r, T *to)\n"
	"{\n"
	"\tfor (unsigned long long i = threadIdx.x; i < r.count; i += blockDim.x)\n"
	"\t\tto[i] = from_float<T>(wf_random_unit(r.key, r.first + i) * r.scale + r.shift);\n"
	"}\n"
	"extern \"C\" __global__ void weights(const args p)\n"
	"{\n"
	"\tconst run &r = p.runs[blockIdx.x];\n"
	"\tbyte *to = p.base + r.to;\n"
	"\tif (r.dtype == F32)\n\t\tfill(r, (float *)to);\n"
	"\telse if (r.dtype == F16)\n\t\tfill(r, (half *)to);\n"
	"\telse\n\t\tfill(r, (bf16 *)to);\n"
	"}\n";

/* What is no number stays none. */
static const char half_kernel[] =
	"struct run { unsigned long long to, count, leaf; unsigned past, unused; };\n"
	"struct args { run *runs; byte *base; };\n"
	"extern \"C\" __global__ void halves(const args p)\n"
	"{\n"
	"\trun &r = p.runs[blockIdx.x];\n"
	"\tbyte *at = p.base + r.to;\n"
	"\tfor (unsigned long long i = threadIdx.x; i < r.count; i += blockDim.x) {\n"
	"\t\tfloat x = to_float(((const bf16 *)at)[i]);\n"
	"\t\tif (fabsf(x) > 65504)\n\t\t\tr.past = 1;\n"
	"\t\t((half *)at)[i] = from_float<half>(x);\n"
	"\t}\n"
	"}\n";

struct pass {
	const char *name, *text;
	void *run;                            /* back: what the kernel leaves in them is wanted */
	size_t bytes;                         /* of all of them */
	int64_t n;
	bool back;
};

static int compile(const struct load_target *t, const struct pass *pass, struct cuda_program *program)
{
	char *source = wf_format(t->arena, "#define F32 %d\n#define F16 %d\n#include \"common.cuh\"\n%s%s", WF_F32, WF_F16,
		wf_random_cuda, pass->text);

	if (!source)
		return wf_fail(t->err, "load: out of memory");
	*program = (struct cuda_program){.name = pass->name, .source = source};
	return nvrtc_build(t->err, &t->opt->build, program, 1, NULL);
}

static int launch(const struct load_target *t, const struct pass *pass, CUfunction kernel, CUdeviceptr runs)
{
	CUlaunchConfig config = {.gridDimX = (unsigned)pass->n, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 256,
		.blockDimY = 1, .blockDimZ = 1, .hStream = t->stream};
	uint64_t args[PAGE_MAXARG] = {runs, t->base};

	return CU(t->err, cuMemcpyHtoDAsync(runs, pass->run, pass->bytes, t->stream)) ||
		CU(t->err, cuLaunchKernelEx(&config, kernel, (void *[]){args}, NULL)) ||
		(pass->back && CU(t->err, cuMemcpyDtoHAsync(pass->run, runs, pass->bytes, t->stream))) ||
		CU(t->err, cuStreamSynchronize(t->stream)) ? -1 : 0;
}

static int run(const struct load_target *t, const struct pass *pass)
{
	struct cuda_program program = {0};
	CUmodule module = NULL;
	CUfunction kernel;
	CUdeviceptr runs = 0;

	if (!pass->n)
		return 0;
	if (compile(t, pass, &program))
		return -1;
	int failed = CU(t->err, cuModuleLoadData(&module, program.cubin)) ||
		CU(t->err, cuModuleGetFunction(&kernel, module, pass->name)) ||
		CU(t->err, cuMemAlloc(&runs, pass->bytes)) ||
		launch(t, pass, kernel, runs);
	if (runs)
		cuda_driver.cuMemFree(runs);
	if (module)
		cuda_driver.cuModuleUnload(module);
	nvrtc_free(&program, 1);
	return failed ? -1 : 0;
}

int load_make_random(const struct load_target *t, struct load_random *list, int64_t n)
{
	return run(t, &(struct pass){"weights", random_kernel, list, (size_t)n * sizeof *list, n, false});
}

int load_make_half(const struct load_target *t, struct load_half *list, int64_t n)
{
	if (run(t, &(struct pass){"halves", half_kernel, list, (size_t)n * sizeof *list, n, true}))
		return -1;
	for (int64_t i = 0; i < n; i++)
		if (list[i].past)
			return wf_fail(t->err, "load: %s holds values past 65504, the largest f16: choose activations in bf16 (--act bf16)",
				((const wf_tensor *)(uintptr_t)list[i].leaf)->name);
	return 0;
}

#endif
