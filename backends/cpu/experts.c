/* experts.c - a product over chosen experts: only the experts that some token chose are computed.
 *
 * The choices of a step are sorted by expert; a chunk is an expert's rows times a range of its
 * columns, so an expert's weights are read once however many tokens chose it. */
#include "backends/cpu/cpu.h"
#include <string.h>

enum { TILE_COLUMNS = 128, TILE_ROWS = 64 };

int experts_open(struct cpu_exec *e, struct cpu_kernel *k)
{
	const wf_tensor *y = k->plan->anchor, *ids = exec_behind_views(e, y->in[2]);
	struct cpu_routed *r = wf_alloc(e->arena, sizeof *r);
	int64_t rows = e->base.plan->opt.max_tokens * y->dim[1];

	if (!r || k->plan->nnode != 1)
		return wf_fail(e->base.err, "cpu: a routed product fused with %d other nodes", k->plan->nnode - 1);
	*r = (struct cpu_routed){.nexpert = (int64_t)y->attr[0], .k = y->dim[1], .each = y->in[1]->ndim == 3,
		.ids = (const int32_t *)(const void *)exec_place(e, ids),
		.pad = (y->dim[2] + PANEL - 1) / PANEL * PANEL};
	r->first = wf_alloc_n(e->arena, r->nexpert + 1, sizeof *r->first);
	r->choice = wf_alloc_n(e->arena, rows, sizeof *r->choice);
	r->xrow = wf_alloc_n(e->arena, rows, sizeof *r->xrow);
	if (!r->first || !r->choice || !r->xrow)
		return wf_fail(e->base.err, "cpu: out of memory");
	k->K = wf_last(y->in[1]);
	k->N = y->dim[2];
	if (!(k->w = weights_pack(e, y->in[0], k->N)))
		return -1;
	k->act = cpu_act_for(e->k, k->w->type, e->compute);
	k->q = exec_place(e, exec_behind_views(e, y->in[1]));
	k->out = exec_place(e, y);
	k->routed = r;
	if (r->each && e->choices < r->k)
		e->choices = r->k;
	if (e->xbytes < cpu_act_bytes(k->act, k->K))
		e->xbytes = cpu_act_bytes(k->act, k->K);
	return 0;
}

static bool is_valid(const struct cpu_routed *r, int32_t id)
{
	return id >= 0 && id < r->nexpert;
}

/* Counting sort of the choices by expert. */
static void sort_choices(struct cpu_routed *r, int64_t n)
{
	memset(r->first, 0, sizeof *r->first * (r->nexpert + 1));
	for (int64_t i = 0; i < n; i++)
		if (is_valid(r, r->ids[i]))
			r->first[r->ids[i] + 1]++;
	for (int64_t i = 0; i < r->nexpert; i++)
		r->first[i + 1] += r->first[i];
	for (int64_t i = n - 1; i >= 0; i--)
		if (is_valid(r, r->ids[i])) {
			int32_t at = --r->first[r->ids[i] + 1];
			r->choice[at] = (int32_t)i;
			r->xrow[at] = (int32_t)(r->each ? i : i / r->k);
		}
	memmove(r->first, r->first + 1, sizeof *r->first * r->nexpert);
	r->first[r->nexpert] = 0;
	for (int64_t i = 0; i < n; i++)
		r->first[r->nexpert] += is_valid(r, r->ids[i]);
}

static void run_tile(struct cpu_exec *e, struct cpu_kernel *k, int id, const uint8_t *x, int64_t expert, int64_t column)
{
	const struct cpu_routed *r = k->routed;
	float *tile = e->tile + id * e->tile_floats;
	int64_t n = k->N - column < TILE_COLUMNS ? k->N - column : TILE_COLUMNS;
	int64_t width = (n + PANEL - 1) / PANEL * PANEL;

	for (int at = r->first[expert]; at < r->first[expert + 1]; at += TILE_ROWS) {
		int rows = r->first[expert + 1] - at < TILE_ROWS ? r->first[expert + 1] - at : TILE_ROWS;
		struct cpu_dot dot = {.w = k->w, .panel = (expert * r->pad + column) / PANEL, .npanel = width / PANEL,
			.act = k->act, .x = x, .xstride = cpu_act_bytes(k->act, k->K), .xrow = r->xrow + at,
			.ntoken = rows, .out = tile, .stride = (size_t)width};
		e->k->dot(&dot);
		for (int i = 0; i < rows; i++)
			memcpy(k->out + r->choice[at + i] * k->N + column, tile + i * width, sizeof *tile * n);
	}
}

void experts_run(struct cpu_exec *e, struct cpu_kernel *k, int id)
{
	struct cpu_routed *r = k->routed;
	int tokens = k->dim == 2 ? e->batch->nrow : e->batch->ntoken;
	int64_t across = (k->N + TILE_COLUMNS - 1) / TILE_COLUMNS, n = r->nexpert * across;

	if (!tokens)
		return;
	if (!id)
		sort_choices(r, tokens * r->k);
	const uint8_t *x = dot_prepare(e, k, id, (int)(r->each ? tokens * r->k : tokens));
	team_barrier(e->team, id);
	for (int64_t i; (i = team_next(e->team, n)) < n;)
		run_tile(e, k, id, x, i / across, i % across * TILE_COLUMNS);
}
