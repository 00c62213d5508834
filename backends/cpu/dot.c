/* dot.c - a product with what feeds and what follows it.
 *
 * First every row of activations is brought into the form the product reads (norm, then bytes, bf16
 * or f32); with a single row each thread does that for itself, which is cheaper than a barrier.
 * Then threads claim chunks of output columns, compute a tile and run the epilogue on it while it
 * is in cache. */
#include "backends/cpu/cpu.h"
#include <string.h>

/* UNITS tiles a thread, so that none waits long for the last; a tile of MIN_TOKENS still pays for the
 * unpacking of its weights. */
enum { TILE_FLOATS = 32 * 1024, MAX_TOKENS = 256, MIN_TOKENS = 64, UNITS = 8 };

static void prepare_row(struct cpu_exec *e, const struct cpu_kernel *k, int id, int t, uint8_t *to)
{
	const float *x = k->before.n ? program_run(e, &k->before, id, t, NULL, 0, 0) : k->q + t * k->K;

	e->k->quantize(k->act, to, x, k->K);
}

uint8_t *dot_prepare(struct cpu_exec *e, const struct cpu_kernel *k, int id, int rows)
{
	size_t bytes = cpu_act_bytes(k->act, k->K);

	if (rows == 1) {
		prepare_row(e, k, id, 0, e->x + id * e->xbytes);
		return e->x + id * e->xbytes;
	}
	for (int64_t t; (t = team_next(e->team, rows)) < rows;)
		prepare_row(e, k, id, (int)t, e->x + t * bytes);
	team_barrier(e->team, id);
	return e->x;
}

/* Columns of a chunk: a multiple of the epilogue's unit and of a panel, a few chunks per thread. */
static int64_t chunk_columns(const struct cpu_exec *e, const struct cpu_kernel *k, int rows)
{
	int64_t unit = k->after.unit, columns, most = TILE_FLOATS / (rows < MAX_TOKENS ? rows : MAX_TOKENS);

	if (!unit)
		return (k->N + PANEL - 1) / PANEL * PANEL;
	while (unit % PANEL)
		unit += k->after.unit;
	columns = k->N / ((rows == 1 ? 8 : 4) * team_size(e->team)) / unit * unit;
	if (columns > most / unit * unit)
		columns = most / unit * unit;
	return columns < unit ? unit : columns;
}

static void run_tile(struct cpu_exec *e, struct cpu_kernel *k, int id, const uint8_t *x, int64_t column, int64_t columns,
		int first, int rows)
{
	float *tile = e->tile + id * e->tile_floats;
	int64_t hi = column + columns < k->N ? column + columns : k->N;
	size_t bytes = cpu_act_bytes(k->act, k->K);
	bool direct = !k->after.n && k->N % PANEL == 0;
	struct cpu_dot dot = {
		.w = k->w, .panel = column / PANEL, .npanel = (hi - column + PANEL - 1) / PANEL, .act = k->act,
		.x = x + first * bytes, .xstride = bytes, .ntoken = rows,
		.out = direct ? k->out + first * k->N + column : tile,
		.stride = direct ? (size_t)k->N : (size_t)((hi - column + PANEL - 1) / PANEL * PANEL),
	};

	e->k->dot(&dot);
	for (int t = 0; !direct && t < rows; t++) {
		if (k->out)
			memcpy(k->out + (first + t) * k->N + column, tile + t * dot.stride, sizeof *tile * (hi - column));
		program_run(e, &k->after, id, first + t, tile + t * dot.stride, column, hi);
	}
}

void dot_run(struct cpu_exec *e, struct cpu_kernel *k, int id)
{
	int rows = k->dim == 2 ? e->batch->nrow : e->batch->ntoken;

	if (!rows)      /* nobody wants logits of this step */
		return;
	int64_t columns = chunk_columns(e, k, rows);
	int64_t across = (k->N + columns - 1) / columns;
	int64_t most = e->tile_floats / (columns < k->N ? columns : (k->N + PANEL - 1) / PANEL * PANEL);
	int down = most < rows ? (int)most : rows;
	while (across * ((rows + down - 1) / down) < UNITS * team_size(e->team) && down >= 2 * MIN_TOKENS)
		down = (down + 1) / 2;
	const uint8_t *x = dot_prepare(e, k, id, rows);
	int64_t blocks = (rows + down - 1) / down;
	for (int64_t i; (i = team_next(e->team, across * blocks)) < across * blocks;) {
		int first = (int)(i % blocks) * down;
		run_tile(e, k, id, x, i / blocks * columns, columns, first, rows - first < down ? rows - first : down);
	}
}
