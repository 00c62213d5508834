/* device.c - what this machine's processor can do, for forecasts: bytes a second of a read that does
 * not fit its caches, operations a second of our own product.  Measured, in about a tenth of a second. */
#include "backends/cpu/cpu.h"
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { READ_BYTES = 96 << 20, ROWS = 256, COLS = 1024, TOKENS = 32, PASSES = 3 };

struct probe {
	const struct cpu_kernels *k;
	struct team *team;
	uint64_t *buffer;                     /* READ_BYTES */
	uint64_t sum;                         /* so that reads are not dropped */
	struct cpu_mat mat;
	enum cpu_act act;
	uint8_t *x;                           /* TOKENS rows */
	float *out;                           /* [threads][TOKENS][ROWS] */
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void fill(void *arg, int id)
{
	struct probe *p = arg;
	size_t part = READ_BYTES / team_size(p->team);

	memset((uint8_t *)p->buffer + (size_t)id * part, 1, part);
}

static void stream(void *arg, int id)
{
	struct probe *p = arg;
	size_t part = READ_BYTES / team_size(p->team) / sizeof *p->buffer / 8 * 8;
	const uint64_t *b = p->buffer + (size_t)id * part;
	uint64_t s[8] = {0};

	for (size_t i = 0; i < part; i += 8)
		for (int k = 0; k < 8; k++)
			s[k] += b[i + k];
	for (int k = 1; k < 8; k++)
		s[0] += s[k];
	__atomic_fetch_add(&p->sum, s[0], __ATOMIC_RELAXED);
}

static void multiply(void *arg, int id)
{
	struct probe *p = arg;
	struct cpu_dot dot = {.w = &p->mat, .npanel = p->mat.npanel, .act = p->act, .x = p->x,
		.xstride = cpu_act_bytes(p->act, COLS), .ntoken = TOKENS, .out = p->out + (size_t)id * TOKENS * ROWS, .stride = ROWS};

	p->k->dot(&dot);
}

/* The best of a few runs, in seconds. */
static double best(struct probe *p, void (*run)(void *, int))
{
	double least = 1e9;

	for (int i = 0; i < PASSES; i++) {
		double start = now();
		team_run(p->team, run, p);
		double took = now() - start;
		least = took < least ? took : least;
	}
	return least;
}

static int prepare(struct probe *p, wf_arena *arena, wf_error *err)
{
	static const uint8_t row[COLS / 32 * 34];       /* of q8_0: zeros multiply as fast as anything */
	const void *rows[PANEL];
	float x[COLS] = {0};

	p->act = cpu_act_for(p->k, WF_Q8_0, WF_NDTYPE);
	if (cpu_mat_init(&p->mat, WF_Q8_0, ROWS, COLS, err))
		return -1;
	p->buffer = wf_alloc(arena, READ_BYTES);
	p->mat.data = wf_alloc(arena, p->mat.bytes);
	p->x = wf_alloc_n(arena, TOKENS, cpu_act_bytes(p->act, COLS));
	p->out = wf_alloc_n(arena, (size_t)team_size(p->team) * TOKENS * ROWS, sizeof *p->out);
	if (!p->buffer || !p->mat.data || !p->x || !p->out)
		return -1;
	for (int i = 0; i < PANEL; i++)
		rows[i] = row;
	for (int64_t i = 0; i < p->mat.npanel; i++)
		cpu_mat_pack(&p->mat, i, rows);
	for (int i = 0; i < TOKENS; i++)
		p->k->quantize(p->act, p->x + i * cpu_act_bytes(p->act, COLS), x, COLS);
	team_run(p->team, fill, p);
	return 0;
}

int cpu_device(const wf_backend *backend, struct wf_device *out)
{
	wf_error err = {0};
	wf_arena *arena = wf_arena_new();
	struct probe p = {.k = cpu_kernels_pick(NULL), .team = team_new(0, &err)};
	int result = -1;

	if (arena && p.k && p.team && !prepare(&p, arena, &err)) {
		double flops = 2.0 * ROWS * COLS * TOKENS * team_size(p.team);
		*out = (struct wf_device){.name = backend->name, .read_bytes_s = READ_BYTES / best(&p, stream),
			.flops_s = flops / best(&p, multiply), .launch_s = 2e-6,
			.memory = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE)};
		result = 0;
	}
	if (p.team)
		team_free(p.team);
	wf_arena_free(arena);
	return result;
}
