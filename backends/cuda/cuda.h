/* cuda.h - NVIDIA GPUs: libraries opened by name, kernels compiled by NVRTC, a step as one CUDA graph.
 *
 * The toolkit's headers give types at build time (WF_CUDA); its libraries are found at run time, so
 * one binary runs with and without a GPU.  Without the headers only the reports are left. */
#ifndef WF_CUDA_H
#define WF_CUDA_H

#include "backends/backend.h"

/* ---- driver.c: what is on this machine ------------------------------------------------------- */

struct cuda_library {
	const char *name;                     /* "driver", "NVRTC", "cuBLASLt", "NCCL" */
	const char *without;                  /* what its absence costs */
	bool found;
	char path[256], version[32];          /* when found */
	char problem[512];                    /* when not */
};

struct cuda_gpu {
	char name[96];
	int ordinal, major, minor;            /* compute capability */
	int sms, smem_block, smem_sm, regs_sm, l2_bytes;
	int mhz, read_mhz, read_bits;         /* clock; memory's clock and bus width: its rated bandwidth */
	int64_t memory, free;                 /* bytes */
	char arch[16];                        /* NVRTC's name for it: sm_90a */
};

enum { CUDA_NLIB = 4, CUDA_MAXGPU = 16 };

struct cuda_report {
	bool toolkit;                         /* built with the toolkit's headers */
	struct cuda_library lib[CUDA_NLIB];
	int ngpu;
	struct cuda_gpu gpu[CUDA_MAXGPU];
	char problem[512];                    /* why ngpu is 0 though the driver is there */
};

/* A toolkit's folder to look in first (its lib64 and lib); tools pass $CUDA_HOME. */
void cuda_set_home(const char *dir);
/* Never fails: what could not be found is in the report. */
void cuda_devices(struct cuda_report *);

/* ---- cache.c: compiled kernels by content ----------------------------------------------------- */

struct cuda_cache;                            /* an open folder */

/* Makes the folder, mode 0700, parents too.  One that others own or may write is refused. */
struct cuda_cache *cache_open(wf_error *, const char *dir);
void  cache_close(struct cuda_cache *);
const char *cache_path(const struct cuda_cache *);

struct cuda_key { char hex[33]; };            /* XXH3-128 of everything that decides the machine code */

/* A key's lock, held while its kernel is compiled: of many processes one compiles, the others wait.
 * Also writes NAME-KEY.cu, the page a person reads.  Returns a descriptor to close, -1 without a lock
 * (then work may be done twice, never wrongly). */
int   cache_lock(struct cuda_cache *, const char *name, const struct cuda_key *, const char *source);
/* malloc'd cubin and compiler log (may be ""), or NULL: not there, or damaged (*damaged set). */
void *cache_load(struct cuda_cache *, const char *name, const struct cuda_key *, size_t *bytes, char **log,
		bool *damaged);
/* -1 when it could not be written; the cache is then as before. */
int   cache_save(struct cuda_cache *, const char *name, const struct cuda_key *, const void *cubin,
		size_t bytes, const char *log);

/* ---- nvrtc.c: source to cubin ------------------------------------------------------------------- */

struct cuda_usage {                           /* the worst of a program's kernels */
	int registers, stack, spill_bytes, smem;
	int dynamic;                          /* shared memory to launch with: its dynamic_smem; -1 it has none */
};

struct cuda_program {
	const char *name;                     /* letters, digits, _ and -: the page's file name */
	const char *source;                   /* may #include the embedded .cuh by name */
	double weight;                        /* expected compile time, any unit: heavy ones start first */
	void *cubin;                          /* result: malloc'd, with its size */
	size_t bytes;
	char *log;                            /* result: malloc'd, the compiler's words */
	struct cuda_usage usage;              /* result */
	bool cached;                          /* result: from the cache */
};

struct cuda_build_opt {
	const char *arch;                     /* sm_80, sm_90a, sm_120 */
	struct cuda_cache *cache;             /* NULL: none */
	int threads;                          /* 0: all cores */
	bool lineinfo;                        /* for debuggers and profilers */
};

struct cuda_build_stats { int compiled, cached, damaged, unsaved; double seconds; };

/* Compile all programs, in parallel; -1 with the compiler's first errors and the page's path. */
int  nvrtc_build(wf_error *, const struct cuda_build_opt *, struct cuda_program *, int n,
		struct cuda_build_stats *);
void nvrtc_free(struct cuda_program *, int n);      /* what nvrtc_build left in them */
int  nvrtc_key(wf_error *, const struct cuda_build_opt *, const char *source, struct cuda_key *);

/* ---- page.c: the text of a kernel ----------------------------------------------------------------- */

/* Where a pointer of a kernel comes from; the host resolves it for each kernel that shares the page. */
enum page_source {
	PAGE_TABLE,                           /* the binding table */
	PAGE_VALUE,                           /* an activation */
	PAGE_CONSTANT,                        /* a weight as laid out on the device */
	PAGE_KV,                              /* bytes from a page's start to the cache node's layer */
	PAGE_ROWS, PAGE_PRODUCT,              /* scratch: rows made ready for a product; its bare result */
	PAGE_UNPACKED,                        /* scratch: a quantised weight as plain numbers */
	PAGE_PARTS, PAGE_COUNTERS,            /* scratch: parts of a split sum; words that start at zero */
	PAGE_CHOSEN                           /* the tokens a step chose, for the next one */
};

struct page_arg {
	enum page_source from;
	int place;                            /* i: kernel->in[i]; -1 - i: kernel->node[i] */
	char type[24], name[16];
};

struct page_word { const char *from, *to; };

struct page_text { char *text; size_t n, max; };

enum { PAGE_MAXARG = 40 };

struct page {
	wf_arena *arena;
	const wf_plan *plan;
	const wf_kernel *kernel;
	struct page_text defines, body;
	const char *tail;                     /* after the skeleton; NULL none */
	struct page_arg arg[PAGE_MAXARG];
	int narg;
	bool failed;
};

void page_open(struct page *, wf_arena *, const wf_plan *, const wf_kernel *);
void page_define(struct page *, const char *name, const char *fmt, ...) WF_PRINTF(3, 4);
void page_add(struct page *, const char *fmt, ...) WF_PRINTF(2, 3);
const char *page_format(struct page *, const char *fmt, ...) WF_PRINTF(2, 3);
const char *page_number(struct page *, double);     /* as a float literal */
/* What the page calls a MAP's function: its op, numbered when the kernel has that op with other attributes before. */
const char *page_function(struct page *, const wf_tensor *);
/* The op's scalar functions, attributes as numbers, words renamed ({0} ends them); once per text. */
void page_op(struct page *, const wf_tensor *, const struct page_word *);
const char *page_type(const struct page *, const wf_tensor *);      /* of its values in memory: half, q4_k */
const char *page_own_type(const wf_tensor *);       /* though it be an output, which is kept in f32: of scratch rows */
/* The name of a member of struct args, added when new. */
const char *page_pointer(struct page *, enum page_source, const wf_tensor *, const char *type, const char *name);
const char *page_value(struct page *, const wf_tensor *);
const wf_tensor *page_arg_tensor(const wf_kernel *, const struct page_arg *);
void page_count(struct page *, const wf_tensor *);                  /* function count: its rows in this step */
void page_cache(struct page *, const wf_tensor *cache);             /* functions key_of, value_of */
int  page_class(const wf_plan *, const wf_tensor *cache);           /* its KV class */
const char *page_done(struct page *, wf_error *, const char *title, const char *skeleton);

/* ---- dot.c: the hooks of a product; dot_pair.c dot_feed.c dot_store.c: its parts ------------------------ */

enum { DOT_MAXREGION = 8, DOT_MAXMEMBER = 64 };

enum dot_pairing { ALONE, NEIGHBOURS, HALVES, LANES, ACROSS, ACROSS_SECOND };

struct dot_region {
	int64_t start, n;                     /* columns of the anchor */
	enum dot_pairing pairing;
	int64_t head, half;                   /* HALVES: values of a head, distance of a pair; LANES: block is half */
	int with;                             /* ACROSS: the region that holds b */
	int64_t unit, units;                  /* first unit, how many */
};

struct dot_site {                                 /* a member's value in the straight line */
	int region;                           /* -1: not after the anchor */
	int width;                            /* 1 or 2 scalars */
	const char *val[2], *at[2];           /* expressions: the scalar, its index in the member's row */
};

struct dot {
	struct page *page;
	const wf_kernel *kernel;
	const wf_tensor *anchor;
	const char *why;                      /* what it cannot do; NULL so far */
	struct dot_region region[DOT_MAXREGION];
	int nregion;
	bool pair;
	struct dot_site site[DOT_MAXMEMBER];
	const wf_tensor *residual;            /* fetched early */
};

int  dot_refuse(struct dot *, const char *why);       /* -1; the first reason is kept */
int  dot_analyse(struct dot *);                       /* regions, pairs and the members' sites */
int  dot_region_of(const struct dot *, const wf_tensor *cols);
int  dot_add_feed(struct dot *);
void dot_add_store(struct dot *);

enum { EMIT_FEED = 1, EMIT_STORE = 2 };
/* x8, lift and drop8; row_at and store.  NULL, or why the group cannot be written so. */
const char *emit_dot_hooks(struct page *, const wf_kernel *, int what);
/* A bare product of rows in memory, or made ready in scratch; f32 to scratch. */
void emit_plain_hooks(struct page *, const wf_kernel *, bool ready);
/* x_row: such rows as they are. */
void emit_row_hook(struct page *, const wf_kernel *, bool ready);

/* ---- rows.c: the hooks of a kernel that works row by row ------------------------------------------------ */

/* The whole kernel; or what feeds the product `anchor`, leaving `result` in scratch; or what follows it,
 * the product being in scratch as `product`.  NULL, or why it cannot be written. */
const char *emit_row_hooks(struct page *, const wf_kernel *, const wf_tensor *anchor, const wf_tensor *result,
		const char *product);
/* A weight's rows as plain numbers of that type, into scratch. */
void emit_unpack_hooks(struct page *, const wf_tensor *w, const char *type);

/* ---- emit.c: a fused group to launches -------------------------------------------------------------------- */

struct emit_launch {
	const char *name;                     /* of the page's file */
	const char *function, *source;        /* the kernel; source NULL: a product by cuBLASLt */
	struct page_arg arg[PAGE_MAXARG];     /* its parameter: 8 bytes each, in order */
	int narg;
	unsigned threads;
	unsigned grid_x, grid_y;              /* grid_x 0: one block a row */
	unsigned tile, each;                  /* tile not 0: ceil(rows * each / tile) + sequences blocks */
	bool singles;                         /* only for steps with sequences of one new token */
	double weight;                        /* expected compile time */
	int64_t M, K;                         /* the library's product: args w, x, y and perhaps c */
	wf_dtype in, out;
};

enum { EMIT_MAXLAUNCH = 4 };

struct emit_work {                            /* how a kernel is run for up to so many rows */
	struct emit_launch launch[EMIT_MAXLAUNCH];
	int n;
	int64_t row_bytes, product_bytes;     /* scratch a row needs: made ready, and the bare product */
	int64_t unpacked_bytes, part_bytes;   /* scratch in all: a plain weight, parts of split sums */
	int64_t counters;                     /* words that start at zero */
};

struct emit_opt { const struct cuda_gpu *gpu; int page_tokens; };

struct emit {
	wf_error *err;
	wf_arena *arena;
	const wf_plan *plan;
	const wf_kernel *kernel;
	struct emit_work *work;
	int64_t rows;
	bool single;
	const struct cuda_gpu *gpu;
	int page_tokens;
};

/* For up to `rows` rows; single: one token per sequence.  -1 after wf_fail: the group, and what it has that no kernel can do. */
int  emit_kernel(wf_error *, wf_arena *, const struct emit_opt *, const wf_plan *, const wf_kernel *, int64_t rows,
		bool single, struct emit_work *);
const struct cuda_gpu *emit_known_gpu(const char *arch);            /* limits of a chip that is not here; NULL */
/* For the files that write one kind's pages. */
int  emit_room(const struct cuda_gpu *, int slots);   /* bytes of shared memory for each of `slots` blocks of a multiprocessor */
bool emit_is_16bit(wf_dtype);
int64_t emit_width(const wf_tensor *);                /* values of a row */
int  emit_member(const wf_kernel *, const wf_tensor *);      /* its place; -1 */
bool emit_is(const wf_tensor *, const char *op);
double emit_attr(const wf_tensor *, const char *name);
struct emit_launch *emit_add(struct emit *, const char *function);
int  emit_finish(struct emit *, struct page *, struct emit_launch *, const char *part, const char *skeleton);
int  emit_refuse(struct emit *, const char *why);     /* -1 */
/* A launch of rows.cuh: arguments of emit_row_hooks; part: "-feed". */
int  emit_rows(struct emit *, const char *part, const wf_tensor *anchor, const wf_tensor *result, const char *product);

/* ---- emit_dot.c ------------------------------------------------------------------------------------------- */

int  emit_dot(struct emit *);

/* ---- emit_attend.c ---------------------------------------------------------------------------------------- */

int  emit_attend(struct emit *);

/* ---- experts.c: models with experts --------------------------------------------------------------------------- */

int  emit_route(struct emit *);               /* the choice, its gates, or a mix alone */
int  emit_experts(struct emit *);             /* a product over chosen experts and what follows it */

/* ---- pages.c: every page a plan needs ----------------------------------------------------------------------- */

struct variant {
	int64_t rows;                         /* for up to so many */
	bool single;                          /* attention of one token per sequence */
	struct emit_work work;
	int program[EMIT_MAXLAUNCH];          /* of each launch; -1: the library's */
};

struct kernel_pages { struct variant *variant; int nvariant; };

struct pages {
	struct kernel_pages *kernel;          /* [plan->nkernel]; equal groups share their variants */
	struct cuda_program *program;
	int nprogram;
	int head;                             /* the kernel whose output "logits" is chosen from; -1 none */
	struct emit_launch pick;
	int pick_program;
};

int  pages_make(wf_error *, wf_arena *, const struct emit_opt *, const wf_plan *, struct pages *);
/* The variant for a step; NULL when the plan's bounds are exceeded. */
const struct variant *pages_pick(const struct kernel_pages *, int64_t rows, bool single);
int  pages_write(wf_error *, const wf_plan *, const struct pages *, const char *dir);

/* ---- cuda.c, exec.c: the backend -------------------------------------------------------------------------------- */

/* Bandwidth and rate the first GPU can be expected to reach; -1 when there is none. */
int  cuda_device(const wf_backend *, struct wf_device *);
wf_exec *cuda_open(const wf_backend *, wf_plan *, wf_error *, const struct wf_exec_opt *);

/* ---- the libraries' entry points --------------------------------------------------------------- */

#ifdef WF_CUDA
#include <cuda.h>
#include <nvrtc.h>
#include <cublasLt.h>
#if __has_include(<nccl.h>)
#define WF_NCCL
#include <nccl.h>
#endif

/* The first version takes the same arguments and is in every driver. */
#undef cuEventElapsedTime
CUresult CUDAAPI cuEventElapsedTime(float *ms, CUevent start, CUevent end);

/* One row per entry point.  The toolkit's headers rename some (cuMemAlloc is cuMemAlloc_v2): member
 * and looked-up name follow the header, so type and code always belong together. */
#define CUDA_DRIVER(X) \
	X(cuInit) X(cuDriverGetVersion) X(cuGetErrorString) X(cuGetErrorName) \
	X(cuDeviceGetCount) X(cuDeviceGet) X(cuDeviceGetName) X(cuDeviceTotalMem) X(cuDeviceGetAttribute) \
	X(cuDevicePrimaryCtxRetain) X(cuDevicePrimaryCtxRelease) X(cuCtxSetCurrent) X(cuCtxSynchronize) \
	X(cuMemGetInfo) X(cuMemAlloc) X(cuMemFree) X(cuMemHostAlloc) X(cuMemFreeHost) \
	X(cuMemHostGetDevicePointer) X(cuMemcpyHtoDAsync) X(cuMemcpyDtoHAsync) X(cuMemcpyDtoDAsync) \
	X(cuMemsetD8Async) X(cuMemsetD32Async) \
	X(cuStreamCreate) X(cuStreamDestroy) X(cuStreamSynchronize) X(cuStreamWaitEvent) \
	X(cuStreamBeginCapture) X(cuStreamEndCapture) \
	X(cuEventCreate) X(cuEventDestroy) X(cuEventRecord) X(cuEventQuery) X(cuEventSynchronize) \
	X(cuEventElapsedTime) \
	X(cuModuleLoadData) X(cuModuleUnload) X(cuModuleGetFunction) \
	X(cuFuncGetAttribute) X(cuFuncSetAttribute) X(cuLaunchKernelEx) \
	X(cuGraphInstantiate) X(cuGraphExecDestroy) X(cuGraphDestroy) X(cuGraphUpload) X(cuGraphLaunch)

#define CUDA_NVRTC(X) \
	X(nvrtcVersion) X(nvrtcGetErrorString) X(nvrtcCreateProgram) X(nvrtcDestroyProgram) \
	X(nvrtcCompileProgram) X(nvrtcGetCUBINSize) X(nvrtcGetCUBIN) X(nvrtcGetProgramLogSize) \
	X(nvrtcGetProgramLog)

#define CUDA_BLAS(X) \
	X(cublasLtGetVersion) X(cublasLtGetStatusString) X(cublasLtCreate) X(cublasLtDestroy) \
	X(cublasLtMatmulDescCreate) X(cublasLtMatmulDescDestroy) X(cublasLtMatmulDescSetAttribute) \
	X(cublasLtMatrixLayoutCreate) X(cublasLtMatrixLayoutDestroy) \
	X(cublasLtMatmulPreferenceCreate) X(cublasLtMatmulPreferenceDestroy) \
	X(cublasLtMatmulPreferenceSetAttribute) X(cublasLtMatmulAlgoGetHeuristic) X(cublasLtMatmul)

#define CUDA_NCCL(X) \
	X(ncclGetVersion) X(ncclGetErrorString) X(ncclGetUniqueId) X(ncclCommInitRank) X(ncclCommDestroy) \
	X(ncclCommAbort) X(ncclCommGetAsyncError) X(ncclAllReduce) X(ncclAllGather) X(ncclGroupStart) \
	X(ncclGroupEnd)

#define CUDA_MEMBER(call) __typeof__(call) *call;
extern struct cuda_driver_calls { CUDA_DRIVER(CUDA_MEMBER) } cuda_driver;
extern struct cuda_nvrtc_calls { CUDA_NVRTC(CUDA_MEMBER) } cuda_nvrtc;
extern struct cuda_blas_calls { CUDA_BLAS(CUDA_MEMBER) } cuda_blas;
#ifdef WF_NCCL
extern struct cuda_nccl_calls { CUDA_NCCL(CUDA_MEMBER) } cuda_nccl;
#endif

/* CU(err, cuMemAlloc(&p, bytes)): 0, or -1 after wf_fail with the call and the driver's words. */
#define CU(err, call) driver_check(err, cuda_driver.call, #call)

int  driver_check(wf_error *, CUresult, const char *call);
/* Open a library once per process and keep it; 0, or -1 with where it was looked for. */
int  driver_open(wf_error *);                         /* and cuInit */
int  driver_open_nvrtc(wf_error *);
int  driver_open_blas(wf_error *);
int  driver_open_nccl(wf_error *);
/* Name, limits and arch of a device; free memory only with a current context. */
int  driver_gpu(wf_error *, int ordinal, struct cuda_gpu *);
/* The file NVRTC was loaded from, its version as major * 1000 + minor * 10. */
const char *driver_nvrtc_file(int *version);

/* ---- load.c: weights to the device ----------------------------------------------------------------- */

struct load_item { wf_tensor *t; CUdeviceptr at; size_t bytes; };      /* a constant node, dense rows */

struct load_opt {
	CUcontext context;
	int threads;                          /* readers; 0: all cores, at most 16 */
	bool random;                          /* weights of `seed` instead of a file */
	uint64_t seed;
	struct cuda_build_opt build;          /* for kernels that make or change weights */
};

struct load_stats { int64_t bytes; double seconds; };

/* Items ascend in one allocation; gaps between them are overwritten. */
int  load_weights(wf_error *, const struct load_item *, int n, const struct load_opt *, struct load_stats *);

/* load_make.c: weights finished on the device.  Runs of values as its kernels read them; to: bytes from the first weight. */
struct load_random {
	uint64_t to, first, count, key;
	float scale, shift;
	uint32_t dtype, unused;
};

struct load_half {
	uint64_t to, count, leaf;             /* of the weight `leaf`, a const wf_tensor * */
	uint32_t past, unused;                /* set by the kernel: holds more than f16 can */
};

struct load_target {
	wf_error *err;
	wf_arena *arena;
	const struct load_opt *opt;
	CUdeviceptr base;
	CUstream stream;
};

int  load_make_random(const struct load_target *, struct load_random *, int64_t n);
int  load_make_half(const struct load_target *, struct load_half *, int64_t n);      /* -1 too when a value is past f16 */

/* ---- blas.c: large products ------------------------------------------------------------------------- */

struct blas;

/* y[n, m] = sum_k w[m, k] x[n, k] + c[n, m]; rows of x and y (and c) are ldx and ldy values apart. */
struct blas_shape {
	int64_t M, N, K, ldx, ldy;
	wf_dtype in, out;                     /* f16, bf16 or f32 */
};

struct blas *blas_open(wf_error *, CUdeviceptr workspace, size_t bytes);
void blas_close(struct blas *);
/* c: added, may be y; 0 none. */
int  blas_matmul(wf_error *, struct blas *, CUstream, const struct blas_shape *, CUdeviceptr w, CUdeviceptr x,
		CUdeviceptr c, CUdeviceptr y);

/* ---- exec.c and its parts: a plan on one GPU ------------------------------------------------------------------------- */

#include "backends/cuda/table.cuh"

/* memory.c: three allocations, and what lies where in them. */
struct memory {
	CUdeviceptr weights, work, kv;
	size_t weights_bytes, work_bytes, kv_bytes;
	CUdeviceptr *constant;                /* by node id; 0: read by no kernel */
	struct load_item *item;               /* the same, ascending */
	int nitem;
	CUdeviceptr *output;                  /* [nout] f32, at the plan's bounds */
	CUdeviceptr rows, product, unpacked, parts, counters, chosen, workspace, table;
	size_t counter_bytes, table_bytes;
	CUdeviceptr kv_base[TABLE_MAXCLASS];
};

/* bind.c: the binding table, written on the host and sent with one copy a step. */
struct bind {
	char *host[2];                        /* pinned; in turn, so that the next step's need not wait */
	CUevent sent[2];
	int turn;
};

/* ring.c: chosen tokens on their way to the host. */
struct ring {
	int *token;                           /* pinned [WF_AHEAD][max rows] */
	CUevent done[WF_AHEAD];
	int64_t asked, read;                  /* steps */
};

enum { CUDA_MAXBUCKET = 12, CUDA_WORKSPACE = 32 << 20 };

struct cuda_exec {
	wf_exec base;
	struct wf_exec_opt opt;
	wf_arena *arena;
	struct cuda_gpu gpu;
	CUcontext context;
	CUstream stream;
	struct pages pages;
	struct cuda_module { CUmodule module; CUfunction function; unsigned smem; } *module;  /* [pages.nprogram] */
	struct memory memory;
	struct bind bind;
	struct ring ring;
	struct blas *blas;
	struct bucket { int64_t n; CUgraphExec graph; } bucket[CUDA_MAXBUCKET];
	int nbucket;
	int64_t bound[3];                     /* of the last step */
	float *out;                           /* host copy of an output */
	bool out_pinned;
	size_t out_bytes;
	CUevent *mark;                        /* profile: nkernel + 1 */
	double *seconds;
	struct wf_opened opened;
};

int  memory_open(struct cuda_exec *);
void memory_close(struct cuda_exec *);
uint64_t memory_resolve(const struct cuda_exec *, const wf_kernel *, const struct page_arg *);
int  bind_open(struct cuda_exec *);
void bind_close(struct cuda_exec *);
int  bind_step(struct cuda_exec *, const wf_batch *);
int  ring_open(struct cuda_exec *);
void ring_close(struct cuda_exec *);
int *ring_slot(const struct cuda_exec *);             /* where the step to come leaves its tokens */
int  ring_sent(struct cuda_exec *);                   /* it is queued */
const int32_t *ring_read(struct cuda_exec *);
size_t bind_bytes(const wf_plan *, const wf_slab *, int64_t ctx);
/* launch.c: kernels one by one, or a whole bucket as a graph. */
int  launch_open(struct cuda_exec *);
void launch_close(struct cuda_exec *);
int  launch_step(struct cuda_exec *, const wf_batch *);

#endif
#endif
