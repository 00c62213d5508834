/* attention.c - attention over KV pages, shared among the threads.
 *
 * A unit is a sequence, a key head and up to 32 query rows of its group.  When a step has fewer units
 * than threads (one token of one sequence), the keys are split as well and the parts joined. */
#include "backends/cpu/cpu.h"

enum { SPLIT_KEYS = 256, MAX_PARTS = 16 };

static int units_of(const struct cpu_exec *e, const struct cpu_kernel *k, int s)
{
	int group = k->attend.nhead / k->attend.nkv;
	int rows = (e->batch->seq_start[s + 1] - e->batch->seq_start[s]) * group;

	return (rows + ATTEND_ROWS - 1) / ATTEND_ROWS * k->attend.nkv;
}

static struct cpu_attend bind(const struct cpu_exec *e, const struct cpu_kernel *k, int s)
{
	struct cpu_attend a = k->attend;
	int first = e->batch->seq_start[s];

	a.q = k->q + first * a.qstride;
	a.out = k->out + first * a.ostride;
	a.pos = e->batch->pos + first;
	a.page = e->batch->page[s * e->nclass + k->cache->cls];
	return a;
}

static struct cpu_attend_part part_of(const struct cpu_exec *e, const struct cpu_kernel *k, int s, int unit, int id)
{
	int group = k->attend.nhead / k->attend.nkv;
	int rows = (e->batch->seq_start[s + 1] - e->batch->seq_start[s]) * group;
	int row = unit / k->attend.nkv * ATTEND_ROWS;

	return (struct cpu_attend_part){.head = unit % k->attend.nkv, .row = row,
		.nrow = rows - row < ATTEND_ROWS ? rows - row : ATTEND_ROWS,
		.scratch = (uint8_t *)e->scratch + id * e->scratch_bytes};
}

/* One sequence, few units: keys in parts, then the parts joined. */
static void run_split(struct cpu_exec *e, struct cpu_kernel *k, int id, int units, int parts)
{
	struct cpu_attend a = bind(e, k, 0);
	int keys = (e->batch->seq_len[0] + parts - 1) / parts;
	size_t each = (size_t)ATTEND_ROWS * (a.vdim + 2);

	for (int64_t i; (i = team_next(e->team, (int64_t)units * parts)) < (int64_t)units * parts;) {
		struct cpu_attend_part p = part_of(e, k, 0, (int)i / parts, id);
		p.key = (int)(i % parts) * keys;
		p.nkey = keys;
		p.state = e->state + i * each;
		e->k->attend(&a, &p);
	}
	team_barrier(e->team, id);
	for (int64_t i; (i = team_next(e->team, units)) < units;) {
		struct cpu_attend_part p = part_of(e, k, 0, (int)i, id);
		p.state = e->state + i * parts * each;
		e->k->attend_merge(&a, &p, parts, each);
	}
}

static void run_whole(struct cpu_exec *e, struct cpu_kernel *k, int id, int64_t units)
{
	for (int64_t i; (i = team_next(e->team, units)) < units;) {
		int s = 0, unit = (int)i;
		for (; unit >= units_of(e, k, s); s++)
			unit -= units_of(e, k, s);
		struct cpu_attend a = bind(e, k, s);
		struct cpu_attend_part p = part_of(e, k, s, unit, id);
		e->k->attend(&a, &p);
	}
}

void attend_run(struct cpu_exec *e, struct cpu_kernel *k, int id)
{
	int64_t units = 0;
	int parts = 1;

	for (int s = 0; s < e->batch->nseq; s++)
		units += units_of(e, k, s);
	if (e->batch->nseq == 1 && units < 4 * team_size(e->team) && units * MAX_PARTS <= e->max_states) {
		parts = e->batch->seq_len[0] / SPLIT_KEYS;
		parts = parts > MAX_PARTS ? MAX_PARTS : parts;
	}
	if (parts > 1 && team_size(e->team) > 1)
		run_split(e, k, id, (int)units, parts);
	else
		run_whole(e, k, id, units);
	if (!k->after.n)
		return;
	team_barrier(e->team, id);
	for (int64_t t; (t = team_next(e->team, e->batch->ntoken)) < e->batch->ntoken;)
		program_run(e, &k->after, id, (int)t, k->out + t * k->attend.ostride, 0, (int64_t)k->attend.ostride);
}
