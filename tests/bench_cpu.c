/* bench_cpu.c - what the CPU kernels reach: GB/s of weights for one token and G operations/s for
 * many, beside the machine's read bandwidth, for every type and instruction set; attention; the cost
 * of a barrier.  Usage: bench_cpu [threads [isa]]
 *
 * The matrices are larger together than a core's caches and are walked in turn, as in a model.  Runs
 * are a millisecond or less and the best of 40 counts: other work on the machine disturbs it little. */
#include "backends/cpu/cpu.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { ROWS = 1536, COLS = 1536, MANY = 128, MAXT = 512, WEIGHTS = 64 << 20 };

struct bench {
	struct team *team;
	const struct cpu_kernels *kernels;
	struct cpu_mat mat;
	int nmat, next, ntoken, repeat;
	enum cpu_act act;
	uint8_t *x;
	float *out;
	struct cpu_attend attend;
	atomic_llong sink;
};

/* One thread: its own time, whatever else runs.  More: what passes. */
static double now(const struct bench *b)
{
	struct timespec t;

	clock_gettime(team_size(b->team) > 1 ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *memory(size_t bytes)
{
	size_t huge = 2 << 20, size = (bytes + 2 * huge - 1) & ~(huge - 1);
	uint8_t *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		exit(1);
	p += -(uintptr_t)p & (huge - 1);
	madvise(p, bytes, MADV_HUGEPAGE);
	return p;
}

static double run(struct bench *b, void (*fn)(void *, int))
{
	double best = 1e9;

	for (int i = 0; i < 40; i++) {
		double start = now(b);
		team_run(b->team, fn, b);
		b->next += b->repeat;
		double time = (now(b) - start) / b->repeat;
		best = time < best ? time : best;
	}
	return best;
}

static void read_all(void *arg, int id)
{
	struct bench *b = arg;
	size_t n = WEIGHTS / 16 / (size_t)team_size(b->team) / 64 * 64, from = (size_t)b->next % 16 * WEIGHTS / 16;
	const uint64_t *p = (const uint64_t *)(const void *)(b->mat.data + from + n * (size_t)id);
	uint64_t sum[8] = {0};

	for (size_t i = 0; i < n / 8; i += 8)
		for (int k = 0; k < 8; k++)
			sum[k] += p[i + (size_t)k];
	for (int k = 0; k < 8; k++)
		atomic_fetch_add(&b->sink, (long long)sum[k]);
}

static void barriers(void *arg, int id)
{
	struct bench *b = arg;

	for (int i = 0; i < b->repeat; i++)
		team_barrier(b->team, id);
}

/* Each thread takes stretches of rows: small for one token, as a model's steps are. */
static void dots(void *arg, int id)
{
	struct bench *b = arg;
	int64_t each = 4, n = b->mat.npanel / each;

	for (int i = 0; i < b->repeat; i++) {
		struct cpu_mat m = b->mat;
		m.data += (size_t)((b->next + i) % b->nmat) * m.bytes;
		for (int64_t c; (c = team_next(b->team, n)) < n; )
			b->kernels->dot(&(struct cpu_dot){.w = &m, .panel = c * each, .npanel = each, .act = b->act,
				.x = b->x, .xstride = cpu_act_bytes(b->act, COLS), .ntoken = b->ntoken,
				.out = b->out + c * each * PANEL, .stride = ROWS});
		team_barrier(b->team, id);
	}
}

static void measure(struct bench *b, wf_dtype type, wf_dtype compute)
{
	static const char *const names[] = {"f32", "bf16", "i8", "i16"};
	float *row = malloc(COLS * sizeof *row);
	uint8_t *base = b->mat.data;

	if (!row || cpu_mat_init(&b->mat, type, ROWS, COLS, &(wf_error){0}))
		exit(1);
	b->mat.data = base;
	b->nmat = (int)(WEIGHTS / b->mat.bytes);
	b->act = cpu_act_for(b->kernels, type, compute);
	for (int i = 0; i < COLS; i++)
		row[i] = (float)(i * 37 % 101) / 50 - 1;
	for (int t = 0; t < MANY; t++)
		b->kernels->quantize(b->act, b->x + (size_t)t * cpu_act_bytes(b->act, COLS), row, COLS);
	printf("%-7s %-4s", wf_dtypes[type].name, names[b->act]);
	for (int i = 0; i < 5; i++) {
		b->ntoken = (const int[]){1, 2, 4, 8, MANY}[i];
		b->repeat = b->ntoken > 8 ? 1 : 2;
		b->next = 0;
		double time = run(b, dots), ops = 2.0 * ROWS * COLS * b->ntoken;
		if (i == 0)
			printf(" %8.1f GB/s", (double)b->mat.bytes / time * 1e-9);
		printf(" %8.0f", ops / time * 1e-9);
	}
	printf("\n");
	free(row);
}

static void attend_all(void *arg, int id)
{
	struct bench *b = arg;
	const struct cpu_attend *a = &b->attend;
	int group = a->nhead / a->nkv, rows = b->ntoken * group, each = rows < ATTEND_ROWS ? rows : ATTEND_ROWS;
	int64_t per = (rows + each - 1) / each, n = per * a->nkv;
	void *scratch = aligned_alloc(64, cpu_attend_scratch(a->kdim, a->vdim));

	for (int i = 0; i < b->repeat; i++) {
		for (int64_t c; (c = team_next(b->team, n)) < n; ) {
			int row = (int)(c % per) * each;
			b->kernels->attend(a, &(struct cpu_attend_part){.head = (int)(c / per), .row = row,
				.nrow = rows - row < each ? rows - row : each, .scratch = scratch});
		}
		team_barrier(b->team, id);
	}
	free(scratch);
}

static void measure_attend(struct bench *b, wf_dtype type, int ntoken, int past)
{
	enum { HEADS = 9, KV = 3, DIM = 64, PAGE = 32 };
	static int32_t page[4096 / PAGE], pos[MAXT];
	int size = wf_dtypes[type].bytes;

	for (int i = 0; i < 4096 / PAGE; i++)
		page[i] = i;
	for (int i = 0; i < ntoken; i++)
		pos[i] = past + i;
	memset(b->mat.data, 0x3c, 4096 * KV * DIM * 8);
	memset(b->x, 0, (size_t)ntoken * HEADS * DIM * 4);
	b->attend = (struct cpu_attend){.q = (float *)(void *)b->x, .out = b->out, .qstride = HEADS * DIM,
		.ostride = HEADS * DIM, .pos = pos, .k = b->mat.data, .v = b->mat.data + PAGE * KV * DIM * size,
		.page_bytes = 2 * PAGE * KV * DIM * (size_t)size, .page = page, .page_tokens = PAGE, .dtype = type,
		.nhead = HEADS, .nkv = KV, .kdim = DIM, .vdim = DIM, .scale = 0.125f};
	b->ntoken = ntoken;
	b->repeat = ntoken > 1 ? 1 : 4;
	double time = run(b, attend_all), seen = ntoken * (past + (ntoken + 1) / 2.0);
	printf("attend %-4s %3d tokens after %4d: %8.1f us %8.1f GB/s %8.1f GFLOP/s\n", wf_dtypes[type].name, ntoken,
		past, time * 1e6, (past + ntoken) * 2.0 * KV * DIM * size / time * 1e-9, seen * HEADS * DIM * 4 / time * 1e-9);
}

static void bench_isa(struct bench *b)
{
	printf("%s, %d threads: one token GB/s, then Gop/s at 1, 2, 4, 8, %d tokens\n", b->kernels->name,
		team_size(b->team), MANY);
	for (wf_dtype t = 0; t < WF_NDTYPE; t++)
		for (int i = 0; i < 3; i++) {
			wf_dtype compute = (const wf_dtype[]){WF_F32, WF_NDTYPE, WF_Q8_0}[i];
			enum cpu_act act = cpu_act_for(b->kernels, t, compute);
			if (t != WF_I32 && (i == 0 || act != ACT_F32) && (i < 2 || act == ACT_I8))
				measure(b, t, compute);
		}
	for (wf_dtype t = WF_F32; t <= WF_BF16; t++) {
		measure_attend(b, t, 1, 511);
		measure_attend(b, t, 1, 4095);
		measure_attend(b, t, MAXT, 0);
	}
}

int main(int argc, char **argv)
{
	static const char *const isas[] = {"avx512", "avx2", "plain"};
	struct bench b = {.team = team_new(argc > 1 ? atoi(argv[1]) : 0, &(wf_error){0}), .repeat = 1};

	b.mat.data = memory(WEIGHTS + (1 << 20));
	b.x = memory(MAXT * (COLS + 64) * 4);
	b.out = memory(MAXT * ROWS * 4);
	if (!b.team)
		return 1;
	for (size_t i = 0; i < WEIGHTS; i++)
		b.mat.data[i] = (uint8_t)(0x38 + i % 5);   /* floats of every width near 1 */
	memset(b.out, 0, MAXT * ROWS * 4);
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("read %.1f GB/s\n", WEIGHTS / 16 / run(&b, read_all) * 1e-9);
	b.repeat = 1000;
	printf("barrier %.2f us\n", run(&b, barriers) * 1e6);
	for (int i = 0; i < 3; i++)
		if ((b.kernels = cpu_kernels_pick(isas[i])) && (argc < 3 || !strcmp(argv[2], isas[i])))
			bench_isa(&b);
	team_free(b.team);
	return 0;
}
