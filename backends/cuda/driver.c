/* driver.c - the GPU's libraries, opened by name, and what they say is there.
 *
 * Nothing here is linked: a machine without a driver runs the same binary and gets a sentence
 * instead of a GPU.  A library is opened once per process and stays open. */
#include "backends/cuda/cuda.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

static char home[256];

void cuda_set_home(const char *dir)
{
	snprintf(home, sizeof home, "%s", dir ? dir : "");
}

/* Newest first: a toolkit older than the headers still works where it has every entry point. */
static const char *const driver_names[] = {"libcuda.so.1", "libcuda.so", NULL};
static const char *const nvrtc_names[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so", NULL};
static const char *const blas_names[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so", NULL};
static const char *const nccl_names[] = {"libnccl.so.2", "libnccl.so", NULL};

enum { DRIVER, NVRTC, BLAS, NCCL };

static const struct kind {
	const char *name, *without;
	const char *const *file;
} kinds[CUDA_NLIB] = {
	[DRIVER] = {"driver", "no GPU: models run on the CPU", driver_names},
	[NVRTC]  = {"NVRTC", "no kernel can be compiled: models run on the CPU", nvrtc_names},
	[BLAS]   = {"cuBLASLt", "prompts and large batches are slower", blas_names},
	[NCCL]   = {"NCCL", "one GPU per model", nccl_names},
};

#ifdef WF_CUDA

struct symbol { const char *name; size_t at; };

#define STR(x) #x
#define ROW(table, call) {STR(call), offsetof(struct table, call)},
#define DRIVER_ROW(call) ROW(cuda_driver_calls, call)
#define NVRTC_ROW(call) ROW(cuda_nvrtc_calls, call)
#define BLAS_ROW(call) ROW(cuda_blas_calls, call)
#define NCCL_ROW(call) ROW(cuda_nccl_calls, call)

struct cuda_driver_calls cuda_driver;
struct cuda_nvrtc_calls cuda_nvrtc;
struct cuda_blas_calls cuda_blas;
static const struct symbol driver_symbols[] = {CUDA_DRIVER(DRIVER_ROW) {0}};
static const struct symbol nvrtc_symbols[] = {CUDA_NVRTC(NVRTC_ROW) {0}};
static const struct symbol blas_symbols[] = {CUDA_BLAS(BLAS_ROW) {0}};
#ifdef WF_NCCL
struct cuda_nccl_calls cuda_nccl;
static const struct symbol nccl_symbols[] = {CUDA_NCCL(NCCL_ROW) {0}};
#endif

static struct library {
	void *table;
	const struct symbol *symbol;
	void *handle;
	char path[256];
} libraries[CUDA_NLIB] = {
	[DRIVER] = {.table = &cuda_driver, .symbol = driver_symbols},
	[NVRTC]  = {.table = &cuda_nvrtc, .symbol = nvrtc_symbols},
	[BLAS]   = {.table = &cuda_blas, .symbol = blas_symbols},
#ifdef WF_NCCL
	[NCCL]   = {.table = &cuda_nccl, .symbol = nccl_symbols},
#endif
};

static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;

static void *open_in(const char *dir, const char *sub, const char *file)
{
	char path[512];
	int n = snprintf(path, sizeof path, "%s%s%s", dir, sub, file);

	return n < (int)sizeof path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
}

static void *open_named(const char *file)
{
	void *handle = NULL;

	if (home[0]) {
		handle = open_in(home, "/lib64/", file);
		handle = handle ? handle : open_in(home, "/lib/", file);
	}
	handle = handle ? handle : open_in("", "", file);
	return handle ? handle : open_in("/usr/local/cuda/lib64/", "", file);
}

static int resolve(wf_error *err, struct library *lib, void *handle, const char *file)
{
	Dl_info where = {0};
	void *at = NULL;

	for (const struct symbol *s = lib->symbol; s->name; s++) {
		at = dlsym(handle, s->name);
		if (!at)
			return wf_fail(err, "%s: it has no %s (older than this build needs)", file, s->name);
		*(void **)((char *)lib->table + s->at) = at;
	}
	if (dladdr(at, &where) && where.dli_fname)
		file = where.dli_fname;
	snprintf(lib->path, sizeof lib->path, "%s", file);
	return 0;
}

static int open_any(wf_error *err, int which)
{
	struct library *lib = &libraries[which];
	const char *const *file = kinds[which].file;
	void *handle = NULL;

	if (!lib->table)
		return wf_fail(err, "%s: built without its header", kinds[which].name);
	for (; !handle && *file; file++)
		handle = open_named(*file);
	if (!handle)
		return wf_fail(err, "%s: %s not found (%s)", kinds[which].name, kinds[which].file[0], dlerror());
	if (resolve(err, lib, handle, file[-1])) {
		dlclose(handle);
		return -1;
	}
	lib->handle = handle;
	return 0;
}

static int open_once(wf_error *err, int which)
{
	int failed = 0;

	pthread_mutex_lock(&opening);
	if (!libraries[which].handle)
		failed = open_any(err, which);
	pthread_mutex_unlock(&opening);
	return failed;
}

int driver_check(wf_error *err, CUresult result, const char *call)
{
	const char *words = NULL, *name = NULL;

	if (result == CUDA_SUCCESS)
		return 0;
	cuda_driver.cuGetErrorString(result, &words);
	cuda_driver.cuGetErrorName(result, &name);
	return wf_fail(err, "%s: %s (%s)", call, words ? words : "unknown error", name ? name : "?");
}

int driver_open(wf_error *err)
{
	return open_once(err, DRIVER) ? -1 : CU(err, cuInit(0));
}

int driver_open_nvrtc(wf_error *err)
{
	return open_once(err, NVRTC);
}

int driver_open_blas(wf_error *err)
{
	return open_once(err, BLAS);
}

int driver_open_nccl(wf_error *err)
{
	return open_once(err, NCCL);
}

const char *driver_nvrtc_file(int *version)
{
	int major = 0, minor = 0;

	cuda_nvrtc.nvrtcVersion(&major, &minor);
	*version = major * 1000 + minor * 10;
	return libraries[NVRTC].path;
}

/* Hopper's tensor-core and bulk-copy instructions exist only under the "a" name. */
static void name_arch(struct cuda_gpu *gpu)
{
	snprintf(gpu->arch, sizeof gpu->arch, "sm_%d%d%s", gpu->major, gpu->minor,
		gpu->major == 9 && gpu->minor == 0 ? "a" : "");
}

int driver_gpu(wf_error *err, int ordinal, struct cuda_gpu *gpu)
{
	const struct { CUdevice_attribute which; int *to; } limits[] = {
		{CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, &gpu->major},
		{CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, &gpu->minor},
		{CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, &gpu->sms},
		{CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, &gpu->smem_block},
		{CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, &gpu->smem_sm},
		{CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR, &gpu->regs_sm},
		{CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, &gpu->l2_bytes},
		{CU_DEVICE_ATTRIBUTE_CLOCK_RATE, &gpu->mhz},
		{CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, &gpu->read_mhz},
		{CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, &gpu->read_bits},
	};
	size_t free_bytes = 0, total = 0;
	CUdevice device;

	*gpu = (struct cuda_gpu){.ordinal = ordinal};
	if (CU(err, cuDeviceGet(&device, ordinal)) ||
	    CU(err, cuDeviceGetName(gpu->name, sizeof gpu->name, device)) ||
	    CU(err, cuDeviceTotalMem(&total, device)))
		return -1;
	for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
		if (CU(err, cuDeviceGetAttribute(limits[i].to, limits[i].which, device)))
			return -1;
	gpu->mhz /= 1000;
	gpu->read_mhz /= 1000;
	gpu->memory = (int64_t)total;
	if (cuda_driver.cuMemGetInfo(&free_bytes, &total) == CUDA_SUCCESS)
		gpu->free = (int64_t)free_bytes;
	name_arch(gpu);
	return 0;
}

static void version_text(int which, char *out, size_t size)
{
	int major = 0, minor = 0;

	if (which == DRIVER) {
		cuda_driver.cuDriverGetVersion(&major);
		snprintf(out, size, "CUDA %d.%d", major / 1000, major % 1000 / 10);
	} else if (which == NVRTC) {
		cuda_nvrtc.nvrtcVersion(&major, &minor);
		snprintf(out, size, "%d.%d", major, minor);
	} else if (which == BLAS) {
		size_t v = cuda_blas.cublasLtGetVersion();
		snprintf(out, size, "%zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
	}
#ifdef WF_NCCL
	if (which == NCCL) {
		cuda_nccl.ncclGetVersion(&major);
		snprintf(out, size, "%d.%d.%d", major / 10000, major / 100 % 100, major % 100);
	}
#endif
}

/* Free memory is a context's to tell. */
static void read_free(struct cuda_gpu *gpu)
{
	CUcontext context;

	if (cuda_driver.cuDevicePrimaryCtxRetain(&context, gpu->ordinal) != CUDA_SUCCESS)
		return;
	size_t free_bytes, total;
	if (cuda_driver.cuCtxSetCurrent(context) == CUDA_SUCCESS &&
	    cuda_driver.cuMemGetInfo(&free_bytes, &total) == CUDA_SUCCESS)
		gpu->free = (int64_t)free_bytes;
	cuda_driver.cuCtxSetCurrent(NULL);
	cuda_driver.cuDevicePrimaryCtxRelease(gpu->ordinal);
}

static void report_gpus(struct cuda_report *report)
{
	wf_error err = {0};
	int n = 0;

	if (driver_open(&err) || CU(&err, cuDeviceGetCount(&n)))
		n = 0;
	for (int i = 0; i < n && i < CUDA_MAXGPU && !err.set; i++)
		if (!driver_gpu(&err, i, &report->gpu[i])) {
			read_free(&report->gpu[i]);
			report->ngpu++;
		}
	if (err.set)
		snprintf(report->problem, sizeof report->problem, "%.500s", err.text);
}

static void report_library(int which, struct cuda_library *out)
{
	wf_error err = {0};

	out->found = open_once(&err, which) == 0;
	if (!out->found) {
		snprintf(out->problem, sizeof out->problem, "%.500s", err.text);
		return;
	}
	snprintf(out->path, sizeof out->path, "%s", libraries[which].path);
	version_text(which, out->version, sizeof out->version);
}

#else

static void report_gpus(struct cuda_report *report)
{
	snprintf(report->problem, sizeof report->problem, "built without the CUDA toolkit");
}

static void report_library(int which, struct cuda_library *out)
{
	(void)which;
	snprintf(out->problem, sizeof out->problem, "built without the CUDA toolkit");
}

#endif

void cuda_devices(struct cuda_report *report)
{
	memset(report, 0, sizeof *report);
#ifdef WF_CUDA
	report->toolkit = true;
#endif
	for (int i = 0; i < CUDA_NLIB; i++) {
		report->lib[i].name = kinds[i].name;
		report->lib[i].without = kinds[i].without;
		report_library(i, &report->lib[i]);
	}
	report_gpus(report);
}
