/* fakecuda.c - a libcuda.so.1 without a GPU: it keeps books, copies memory and launches nothing.
 *
 * Loaded in place of the driver it lets a machine without a GPU run the whole host side: device
 * memory is host memory with checked bounds, a captured graph repeats its copies, kernels are only
 * written down.  What the real driver refuses is refused: allocation or waiting during capture,
 * copies outside an allocation, a function its module lacks.
 *
 * A module that is a shared object with functions emulate_NAME (fakenvrtc.c makes them) is run, on the
 * thread that submits or replays.
 *
 * FAKECUDA_FAIL=n fails the n-th call, FAKECUDA_MEMORY=bytes sets the device's memory,
 * FAKECUDA_ARCH=90 its compute capability, FAKECUDA_SMS=n its multiprocessors, FAKECUDA_FRONT=1 puts allocations at the front of
 * their pages, FAKECUDA_LEAKS=1 ends the process with status 99 when something is left at exit, FAKECUDA_LOG=file writes every
 * call's name. */
#include "fakecuda.h"

#include <cuda.h>
#include <elf.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#undef cuEventElapsedTime
CUresult CUDAAPI cuEventElapsedTime(float *ms, CUevent start, CUevent end);

enum kind { MEMORY, PINNED, STREAM, EVENT, MODULE, FUNCTION, GRAPH, GRAPHEXEC };

struct work {                                 /* something a stream does */
	enum { COPY, FILL, LAUNCH } what;
	char *to;
	const char *from;
	size_t bytes;
	unsigned value, width;
	struct fake_launch launch;
	fake_kernel *run;                     /* LAUNCH: NULL does nothing */
	unsigned char params[FAKE_MAXPARAM];
	struct work *next;
};

struct object {
	enum kind kind;
	char *data, *map;                     /* MEMORY, PINNED */
	size_t bytes, mapped;                 /* map: the pages it lies in, and those around it */
	struct object *of;                    /* FUNCTION: its module */
	char name[64];
	void *library;                        /* MODULE: its code for this CPU, or NULL */
	fake_kernel *run;                     /* FUNCTION */
	struct work *work, **end;             /* STREAM while capturing, GRAPH, GRAPHEXEC */
	bool capturing;
	struct object *next;
};

static struct fake fake = {.memory = (size_t)8 << 30};
static struct object *objects;
static int retained, arch = 90, sms = 132;
static FILE *calls_file;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

__attribute__((visibility("default"))) struct fake *fake_cuda(void)
{
	return &fake;
}

__attribute__((constructor)) static void start(void)
{
	const char *fail = getenv("FAKECUDA_FAIL"), *memory = getenv("FAKECUDA_MEMORY");
	const char *cc = getenv("FAKECUDA_ARCH"), *file = getenv("FAKECUDA_LOG");
	const char *count = getenv("FAKECUDA_SMS");

	fake.fail_at = fail ? atol(fail) : 0;
	fake.memory = memory ? strtoull(memory, NULL, 10) : fake.memory;
	arch = cc ? atoi(cc) : arch;
	sms = count ? atoi(count) : sms;
	calls_file = file ? fopen(file, "w") : NULL;
}

__attribute__((destructor)) static void finish(void)
{
	static const char *const names[] = {"device memory", "pinned memory", "stream", "event", "module",
		"function", "graph", "graph instance"};

	if (calls_file)
		fclose(calls_file);
	if (!getenv("FAKECUDA_LEAKS") || fake.live == 0)
		return;
	for (struct object *o = objects; o; o = o->next)
		if (o->kind != FUNCTION)
			fprintf(stderr, "fakecuda: left at exit: %s of %zu bytes\n", names[o->kind], o->bytes);
	if (retained)
		fprintf(stderr, "fakecuda: left at exit: %d retained contexts\n", retained);
	_exit(99);
}

/* ---- the books -------------------------------------------------------------------------------------- */

static CUresult enter(const char *call, CUresult code)
{
	pthread_mutex_lock(&mutex);
	fake.calls++;
	if (calls_file)
		fprintf(calls_file, "%s\n", call);
	bool fails = fake.fail_at && (fake.calls == fake.fail_at || (fake.fail_on && fake.calls > fake.fail_at));
	if (!fails)
		return CUDA_SUCCESS;
	snprintf(fake.failed, sizeof fake.failed, "%s", call);
	return fake.fail_code ? (CUresult)fake.fail_code : code;
}

static CUresult leave(CUresult result)
{
	pthread_mutex_unlock(&mutex);
	return result;
}

#define ENTER_(call, code) \
	CUresult failed = enter(call, code); \
	if (failed) \
		return leave(failed)
#define ENTER ENTER_(__func__, CUDA_ERROR_UNKNOWN)

/* What gives something back does so even when it reports a failure: the driver's own habit, since
 * such calls return the errors of earlier work. */
#define GIVE_BACK(work) \
	CUresult failed = enter(__func__, CUDA_ERROR_UNKNOWN), done = work; \
	return leave(failed ? failed : done)

static struct object *add(enum kind kind)
{
	struct object *o = calloc(1, sizeof *o);

	o->kind = kind;
	o->end = &o->work;
	o->next = objects;
	objects = o;
	fake.live += kind != FUNCTION;
	return o;
}

static struct object *find(const void *handle, enum kind kind)
{
	struct object *o = objects;

	while (o && !(o == handle && o->kind == kind))
		o = o->next;
	return o;
}

static void drop_work(struct work *w)
{
	while (w) {
		struct work *next = w->next;
		free(w);
		w = next;
	}
}

static CUresult drop(struct object *gone)
{
	struct object **at = &objects;

	if (!gone)
		return CUDA_ERROR_INVALID_HANDLE;
	while (*at != gone)
		at = &(*at)->next;
	*at = gone->next;
	fake.live -= gone->kind != FUNCTION;
	drop_work(gone->work);
	free(gone);
	return CUDA_SUCCESS;
}

static bool in_capture(void)
{
	for (struct object *o = objects; o; o = o->next)
		if (o->capturing)
			return true;
	return false;
}

/* The allocation all of [at, at + bytes) lies in. */
static struct object *holder(const void *at, size_t bytes, enum kind kind)
{
	for (struct object *o = objects; o; o = o->next)
		if (o->kind == kind && (const char *)at >= o->data && bytes <= o->bytes &&
		    (size_t)((const char *)at - o->data) <= o->bytes - bytes)
			return o;
	return NULL;
}

/* ---- start and devices ---------------------------------------------------------------------------------- */

CUresult cuInit(unsigned flags)
{
	ENTER;
	return leave(flags ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS);
}

/* NVRTC asks for it, to use the driver's own cache of compilations; no is an answer. */
CUresult cuGetExportTable(const void **table, const CUuuid *id)
{
	(void)id;
	*table = NULL;
	return CUDA_ERROR_NOT_FOUND;
}

CUresult cuDriverGetVersion(int *version)
{
	*version = CUDA_VERSION;
	return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult code, const char **text)
{
	*text = code == CUDA_ERROR_OUT_OF_MEMORY ? "out of memory" : "fake failure";
	return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult code, const char **text)
{
	*text = code == CUDA_ERROR_OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR";
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *n)
{
	ENTER;
	*n = 1;
	return leave(CUDA_SUCCESS);
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
	ENTER;
	*device = ordinal;
	return leave(ordinal == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE);
}

CUresult cuDeviceGetName(char *name, int size, CUdevice device)
{
	ENTER;
	(void)device;
	snprintf(name, (size_t)size, "Fake GPU");
	return leave(CUDA_SUCCESS);
}

CUresult cuDeviceTotalMem(size_t *bytes, CUdevice device)
{
	ENTER;
	(void)device;
	*bytes = fake.memory;
	return leave(CUDA_SUCCESS);
}

/* Of a multiprocessor; a block has all of it but one. */
static int shared_kib(void)
{
	return arch == 80 || arch == 87 ? 164 : arch < 90 || arch >= 120 ? 100 : 228;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute which, CUdevice device)
{
	ENTER;
	(void)device;
	switch (which) {
	case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = arch / 10; break;
	case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = arch % 10; break;
	case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = sms; break;
	case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = shared_kib() * 1024 - 1024; break;
	case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: *value = shared_kib() * 1024; break;
	case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR: *value = 65536; break;
	case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: *value = 50 << 20; break;
	case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: *value = 3201000; break;
	case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: *value = 6144; break;
	default: *value = 1;
	}
	return leave(CUDA_SUCCESS);
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
	ENTER;
	*context = (CUcontext)(uintptr_t)(device + 1);
	retained++;
	fake.live++;
	return leave(CUDA_SUCCESS);
}

static CUresult drop_context(CUdevice device)
{
	if (device != 0 || retained == 0)
		return CUDA_ERROR_INVALID_CONTEXT;
	retained--;
	fake.live--;
	return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device)
{
	GIVE_BACK(drop_context(device));
}

CUresult cuCtxSetCurrent(CUcontext context)
{
	ENTER;
	(void)context;
	return leave(CUDA_SUCCESS);
}

CUresult cuCtxSynchronize(void)
{
	ENTER;
	fake.syncs++;
	return leave(in_capture() ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS);
}

/* ---- memory ----------------------------------------------------------------------------------------------- */

CUresult cuMemGetInfo(size_t *free_bytes, size_t *total)
{
	ENTER;
	*total = fake.memory;
	*free_bytes = fake.memory - fake.device_bytes;
	return leave(retained ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT);
}

/* What runs on an emulated device finds NaNs where nothing was written, and ends where it leaves its
 * allocations: on pages nobody may touch.  They end where such a page begins; with FAKECUDA_FRONT they begin where one
 * ends. */
static struct object *reserve(enum kind kind, size_t bytes)
{
	enum { PAGE = 4096, ALIGN = 256, MOST = 256 << 20 };
	size_t inside = (bytes + PAGE - 1) / PAGE * PAGE;
	char *map = mmap(NULL, inside + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (map == MAP_FAILED || mprotect(map + PAGE, inside, PROT_READ | PROT_WRITE))
		return NULL;
	struct object *o = add(kind);
	o->map = map;
	o->mapped = inside + 2 * PAGE;
	o->data = map + PAGE + (getenv("FAKECUDA_FRONT") ? 0 : (inside - bytes) / ALIGN * ALIGN);
	o->bytes = bytes;
	fake.allocations++;
	if (getenv("FAKENVRTC"))
		memset(o->data, 0xff, bytes < MOST ? bytes : MOST);
	return o;
}

CUresult cuMemAlloc(CUdeviceptr *p, size_t bytes)
{
	ENTER_("cuMemAlloc", CUDA_ERROR_OUT_OF_MEMORY);
	if (in_capture())
		return leave(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
	if (bytes == 0)
		return leave(CUDA_ERROR_INVALID_VALUE);
	struct object *o = bytes <= fake.memory - fake.device_bytes ? reserve(MEMORY, bytes) : NULL;
	if (!o)
		return leave(CUDA_ERROR_OUT_OF_MEMORY);
	fake.device_bytes += bytes;
	fake.peak_bytes = fake.device_bytes > fake.peak_bytes ? fake.device_bytes : fake.peak_bytes;
	*p = (CUdeviceptr)(uintptr_t)o->data;
	return leave(CUDA_SUCCESS);
}

static CUresult release(const void *at, enum kind kind)
{
	struct object *o = objects;

	while (o && !(o->kind == kind && o->data == at))
		o = o->next;
	if (!o)
		return CUDA_ERROR_INVALID_VALUE;
	if (kind == MEMORY)
		fake.device_bytes -= o->bytes;
	munmap(o->map, o->mapped);
	return drop(o);
}

CUresult cuMemFree(CUdeviceptr p)
{
	GIVE_BACK(release((void *)(uintptr_t)p, MEMORY));
}

CUresult cuMemHostAlloc(void **p, size_t bytes, unsigned flags)
{
	ENTER_("cuMemHostAlloc", CUDA_ERROR_OUT_OF_MEMORY);
	(void)flags;
	if (in_capture())
		return leave(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
	struct object *o = bytes ? reserve(PINNED, bytes) : NULL;
	if (!o)
		return leave(CUDA_ERROR_OUT_OF_MEMORY);
	*p = o->data;
	return leave(CUDA_SUCCESS);
}

CUresult cuMemFreeHost(void *p)
{
	GIVE_BACK(release(p, PINNED));
}

CUresult cuMemHostGetDevicePointer(CUdeviceptr *p, void *host, unsigned flags)
{
	ENTER;
	(void)flags;
	*p = (CUdeviceptr)(uintptr_t)host;
	return leave(holder(host, 1, PINNED) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE);
}

/* ---- work on streams ----------------------------------------------------------------------------------------- */

static void perform(const struct work *w)
{
	if (w->what == COPY) {
		memmove(w->to, w->from, w->bytes);
		fake.copies++;
	} else if (w->what == FILL) {
		for (size_t i = 0; i < w->bytes; i += w->width)
			memcpy(w->to + i, &w->value, w->width);
	} else {
		if (fake.nlaunch++ < FAKE_MAXLAUNCH)
			fake.launch[fake.nlaunch - 1] = w->launch;
		if (w->run)
			w->run(w->params, w->launch.grid, w->launch.block, w->launch.smem);
	}
}

/* Now, or noted when the stream is being captured. */
static CUresult submit(CUstream stream, struct work work)
{
	struct object *s = find(stream, STREAM);

	if (stream && !s)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!s || !s->capturing) {
		perform(&work);
		return CUDA_SUCCESS;
	}
	struct work *w = malloc(sizeof *w);
	*w = work;
	w->next = NULL;
	*s->end = w;
	s->end = &w->next;
	return CUDA_SUCCESS;
}

static char *host(CUdeviceptr p)
{
	return (char *)(uintptr_t)p;
}

static bool on_device(CUdeviceptr p, size_t bytes)
{
	return holder(host(p), bytes, MEMORY) || holder(host(p), bytes, PINNED);
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream stream)
{
	ENTER;
	if (!on_device(to, bytes))
		return leave(CUDA_ERROR_INVALID_VALUE);
	return leave(submit(stream, (struct work){.what = COPY, .to = host(to), .from = from, .bytes = bytes}));
}

CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream stream)
{
	ENTER;
	if (!on_device(from, bytes))
		return leave(CUDA_ERROR_INVALID_VALUE);
	return leave(submit(stream, (struct work){.what = COPY, .to = to, .from = host(from), .bytes = bytes}));
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
	ENTER;
	if (!on_device(from, bytes) || !on_device(to, bytes))
		return leave(CUDA_ERROR_INVALID_VALUE);
	return leave(submit(stream, (struct work){.what = COPY, .to = host(to), .from = host(from), .bytes = bytes}));
}

static CUresult fill(CUdeviceptr to, unsigned value, unsigned width, size_t n, CUstream stream)
{
	if (!on_device(to, n * width))
		return CUDA_ERROR_INVALID_VALUE;
	return submit(stream, (struct work){.what = FILL, .to = host(to), .bytes = n * width, .value = value,
		.width = width});
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t n, CUstream stream)
{
	ENTER;
	return leave(fill(to, value, 1, n, stream));
}

CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t n, CUstream stream)
{
	ENTER;
	return leave(fill(to, value, 4, n, stream));
}

CUresult cuStreamCreate(CUstream *stream, unsigned flags)
{
	ENTER;
	(void)flags;
	*stream = (CUstream)add(STREAM);
	return leave(CUDA_SUCCESS);
}

CUresult cuStreamDestroy(CUstream stream)
{
	GIVE_BACK(drop(find(stream, STREAM)));
}

CUresult cuStreamSynchronize(CUstream stream)
{
	ENTER;
	fake.syncs++;
	if (stream && !find(stream, STREAM))
		return leave(CUDA_ERROR_INVALID_HANDLE);
	return leave(in_capture() ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS);
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags)
{
	ENTER;
	(void)flags;
	if ((stream && !find(stream, STREAM)) || !find(event, EVENT))
		return leave(CUDA_ERROR_INVALID_HANDLE);
	return leave(CUDA_SUCCESS);
}

CUresult cuEventCreate(CUevent *event, unsigned flags)
{
	ENTER;
	(void)flags;
	*event = (CUevent)add(EVENT);
	return leave(CUDA_SUCCESS);
}

CUresult cuEventDestroy(CUevent event)
{
	GIVE_BACK(drop(find(event, EVENT)));
}

CUresult cuEventRecord(CUevent event, CUstream stream)
{
	ENTER;
	(void)stream;
	return leave(find(event, EVENT) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE);
}

CUresult cuEventQuery(CUevent event)
{
	ENTER;
	return leave(find(event, EVENT) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE);
}

CUresult cuEventSynchronize(CUevent event)
{
	ENTER;
	fake.syncs++;
	return leave(find(event, EVENT) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE);
}

CUresult cuEventElapsedTime(float *ms, CUevent from, CUevent to)
{
	ENTER;
	*ms = 0.001f;
	return leave(find(from, EVENT) && find(to, EVENT) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE);
}

/* ---- modules and launches ---------------------------------------------------------------------------------------- */

/* Its end is that of its section headers, which stand last. */
static void *open_library(const void *image)
{
	const Elf64_Ehdr *head = image;
	size_t bytes = head->e_shoff + (size_t)head->e_shnum * head->e_shentsize;
	char path[] = "/tmp/fakecuda-XXXXXX";
	int fd = head->e_type == ET_DYN && head->e_machine == EM_X86_64 ? mkstemp(path) : -1;

	if (fd < 0)
		return NULL;
	void *library = write(fd, image, bytes) == (ssize_t)bytes ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
	if (!library)
		fprintf(stderr, "fakecuda: %s\n", dlerror());
	close(fd);
	unlink(path);
	return library;
}

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
	ENTER;
	if (memcmp(image, "\177ELF", 4))
		return leave(CUDA_ERROR_INVALID_IMAGE);
	struct object *m = add(MODULE);
	m->library = open_library(image);
	*module = (CUmodule)m;
	fake.modules++;
	return leave(CUDA_SUCCESS);
}

static CUresult drop_module(struct object *module)
{
	for (struct object *o = objects, *next; o; o = next) {
		next = o->next;
		if (o->kind == FUNCTION && o->of == module)
			drop(o);
	}
	if (module && module->library)
		dlclose(module->library);
	return drop(module);
}

CUresult cuModuleUnload(CUmodule module)
{
	GIVE_BACK(drop_module(find(module, MODULE)));
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
	ENTER;
	struct object *m = find(module, MODULE);
	if (!m)
		return leave(CUDA_ERROR_INVALID_HANDLE);
	struct object *f = add(FUNCTION);
	f->of = m;
	snprintf(f->name, sizeof f->name, "%s", name);
	if (m->library) {
		char entry[80];
		snprintf(entry, sizeof entry, "emulate_%s", name);
		*(void **)&f->run = dlsym(m->library, entry);
		if (!f->run)
			return leave(CUDA_ERROR_NOT_FOUND);
	}
	*function = (CUfunction)f;
	return leave(CUDA_SUCCESS);
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute which, CUfunction function)
{
	ENTER;
	*value = which == CU_FUNC_ATTRIBUTE_NUM_REGS ? 32 : 0;
	return leave(find(function, FUNCTION) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE);
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute which, int value)
{
	ENTER;
	(void)which, (void)value;
	return leave(find(function, FUNCTION) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE);
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *c, CUfunction function, void **params, void **extra)
{
	ENTER;
	struct object *f = find(function, FUNCTION);
	struct work w = {.what = LAUNCH};

	(void)extra;
	if (!f)
		return leave(CUDA_ERROR_INVALID_HANDLE);
	if (!c->gridDimX || !c->gridDimY || !c->gridDimZ || !c->blockDimX ||
	    c->blockDimX * c->blockDimY * c->blockDimZ > 1024 || (int)c->sharedMemBytes > shared_kib() * 1024 - 1024)
		return leave(CUDA_ERROR_INVALID_VALUE);
	w.launch = (struct fake_launch){.grid = {c->gridDimX, c->gridDimY, c->gridDimZ},
		.block = {c->blockDimX, c->blockDimY, c->blockDimZ}, .smem = c->sharedMemBytes};
	snprintf(w.launch.name, sizeof w.launch.name, "%s", f->name);
	for (unsigned i = 0; i < c->numAttrs; i++)
		w.launch.dependent |= c->attrs[i].id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION &&
			c->attrs[i].value.programmaticStreamSerializationAllowed;
	if (params && params[0])
		memcpy(&w.launch.first, params[0], sizeof w.launch.first);
	w.run = f->run;
	if (w.run)                            /* past its end, too: how long it is the caller knows */
		memcpy(w.params, params[0], 40 * sizeof(uint64_t));
	return leave(submit(c->hStream, w));
}

/* ---- for the library beside us ----------------------------------------------------------------------------------------- */

bool fake_fails(const char *call)
{
	CUresult failed = enter(call, CUDA_ERROR_UNKNOWN);

	return leave(failed) != CUDA_SUCCESS;
}

bool fake_is_device(const void *p)
{
	pthread_mutex_lock(&mutex);
	bool found = holder(p, 1, MEMORY) != NULL;
	pthread_mutex_unlock(&mutex);
	return found;
}

int fake_launch_named(void *stream, const char *name, fake_kernel *run, const void *params, size_t bytes)
{
	struct work w = {.what = LAUNCH, .run = run};

	ENTER;
	memcpy(w.params, params, bytes);
	snprintf(w.launch.name, sizeof w.launch.name, "%s", name);
	return (int)leave(submit(stream, w));
}

/* ---- graphs --------------------------------------------------------------------------------------------------------- */

CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode)
{
	ENTER;
	struct object *s = find(stream, STREAM);

	(void)mode;
	if (!s || s->capturing)
		return leave(CUDA_ERROR_INVALID_VALUE);
	s->capturing = true;
	s->end = &s->work;
	fake.captures++;
	return leave(CUDA_SUCCESS);
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph)
{
	CUresult failed = enter(__func__, CUDA_ERROR_UNKNOWN);
	struct object *s = find(stream, STREAM);

	if (!s || !s->capturing)
		return leave(CUDA_ERROR_INVALID_VALUE);
	struct object *g = add(GRAPH);
	g->work = s->work;
	s->work = NULL;
	s->capturing = false;
	*graph = failed ? NULL : (CUgraph)g;
	if (failed)
		drop(g);
	return leave(failed);
}

static struct work *copy_work(const struct work *from)
{
	struct work *first = NULL, **end = &first;

	for (; from; from = from->next) {
		*end = malloc(sizeof **end);
		**end = *from;
		(*end)->next = NULL;
		end = &(*end)->next;
	}
	return first;
}

CUresult cuGraphInstantiate(CUgraphExec *exec, CUgraph graph, unsigned long long flags)
{
	ENTER;
	struct object *g = find(graph, GRAPH);

	(void)flags;
	if (!g)
		return leave(CUDA_ERROR_INVALID_HANDLE);
	struct object *e = add(GRAPHEXEC);
	e->work = copy_work(g->work);
	*exec = (CUgraphExec)e;
	return leave(CUDA_SUCCESS);
}

CUresult cuGraphDestroy(CUgraph graph)
{
	GIVE_BACK(drop(find(graph, GRAPH)));
}

CUresult cuGraphExecDestroy(CUgraphExec exec)
{
	GIVE_BACK(drop(find(exec, GRAPHEXEC)));
}

CUresult cuGraphUpload(CUgraphExec exec, CUstream stream)
{
	ENTER;
	(void)stream;
	return leave(find(exec, GRAPHEXEC) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE);
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream)
{
	ENTER;
	struct object *e = find(exec, GRAPHEXEC);

	(void)stream;
	if (!e || in_capture())
		return leave(CUDA_ERROR_INVALID_HANDLE);
	for (const struct work *w = e->work; w; w = w->next)
		perform(w);
	fake.replays++;
	return leave(CUDA_SUCCESS);
}
