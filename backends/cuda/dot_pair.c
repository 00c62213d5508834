/* dot_pair.c - which of a product's columns meet in the epilogue.
 *
 * The kernel computes units: one output column a, or with PAIR two, a and b, that the epilogue needs
 * together.  Columns are split into regions where the graph splits them (Q, K and V); within a region
 * a pair is the halves of a rotated head, neighbours, a gate and its value, and across two regions a
 * gate and its value again.  A member's value is then one or two scalars at known column indices. */
#include "backends/cuda/cuda.h"

#include <string.h>

int dot_refuse(struct dot *d, const char *why)
{
	d->why = d->why ? d->why : why;
	return -1;
}

static bool feeds(const wf_kernel *k, const wf_tensor *anchor, const wf_tensor *t)
{
	for (const wf_tensor *at = anchor->in[1];; at = at->in[0]) {
		if (at == t)
			return true;
		if (emit_member(k, at) < 0 || !at->nin)
			return false;
	}
}

static void find_regions(struct dot *d)
{
	int64_t M = wf_last(d->anchor);
	bool split = !d->page->plan->value[d->anchor->id].stored;

	for (int i = 0; i < d->kernel->nnode; i++) {
		const wf_tensor *t = d->kernel->node[i];
		for (int k = 0; k < t->nin; k++)
			split &= t->in[k] != d->anchor || emit_is(t, "cols");
	}
	for (int i = 0; split && i < d->kernel->nnode; i++) {
		const wf_tensor *t = d->kernel->node[i];
		if (t->nin && t->in[0] == d->anchor && d->nregion < DOT_MAXREGION)
			d->region[d->nregion++] = (struct dot_region){.start = (int64_t)emit_attr(t, "start"), .n = wf_last(t)};
	}
	if (!d->nregion)
		d->region[d->nregion++] = (struct dot_region){.n = M};
}

int dot_region_of(const struct dot *d, const wf_tensor *t)
{
	for (int r = 0; r < d->nregion; r++)
		if (d->region[r].start == (int64_t)emit_attr(t, "start") && d->region[r].n == wf_last(t) && d->nregion > 1)
			return r;
	return 0;
}

static int set_pairing(struct dot *d, int r, struct dot_region want)
{
	struct dot_region *have = &d->region[r];

	if (have->pairing == ALONE) {
		have->pairing = want.pairing;
		have->head = want.head;
		have->half = want.half;
		have->with = want.with;
	} else if (have->pairing != want.pairing || have->head != want.head || have->half != want.half ||
	           have->with != want.with) {
		return dot_refuse(d, "its columns would have to meet in two ways");
	}
	d->pair = true;
	return 0;
}

static int pair_rope(struct dot *d, const wf_tensor *t, int r)
{
	int64_t head = wf_last(t), half = emit_width(t->in[2]);
	bool neighbours = emit_attr(t, "pairs") != 0;

	if (head % 2 || d->region[r].n % head)
		return dot_refuse(d, "heads of an odd length");
	return set_pairing(d, r, neighbours ? (struct dot_region){.pairing = NEIGHBOURS} :
		(struct dot_region){.pairing = HALVES, .head = head, .half = half});
}

static int pair_lane(struct dot *d, const wf_tensor *t, int r)
{
	if (emit_attr(t, "of") != 2)
		return dot_refuse(d, "lanes of more than two");
	return set_pairing(d, r, (struct dot_region){.pairing = LANES, .half = (int64_t)emit_attr(t, "block")});
}

/* A map over two regions of equal length: b is the other region's column. */
static int pair_across(struct dot *d, int a, int b)
{
	if (a > b) {
		int other = a;
		a = b;
		b = other;
	}
	if (d->region[a].n != d->region[b].n)
		return dot_refuse(d, "values of different columns meet");
	return set_pairing(d, a, (struct dot_region){.pairing = ACROSS, .with = b}) ||
		set_pairing(d, b, (struct dot_region){.pairing = ACROSS_SECOND, .with = a}) ? -1 : a;
}

static int place_member(struct dot *d, int i)
{
	const wf_tensor *t = d->kernel->node[i];
	struct dot_site *s = &d->site[i];

	s->region = -1;
	if (t == d->anchor || feeds(d->kernel, d->anchor, t))
		return 0;
	for (int k = 0; k < t->nin; k++) {
		int from = emit_member(d->kernel, t->in[k]);
		int r = t->in[k] == d->anchor ? emit_is(t, "cols") ? dot_region_of(d, t) : 0 : from < 0 ? -1 : d->site[from].region;
		if (r < 0)
			continue;
		if (s->region >= 0 && s->region != r && !t->op->state) {
			int across = t->op->kind == WF_MAP ? pair_across(d, s->region, r) : dot_refuse(d, "it joins columns");
			if (across < 0)
				return -1;
			r = across;
		}
		s->region = s->region < 0 || !t->op->state ? r : s->region;
	}
	if (s->region < 0)
		return dot_refuse(d, "a member that does not follow the product");
	if (emit_is(t, "cols") && t->in[0] != d->anchor)
		return dot_refuse(d, "columns of columns");
	if (emit_is(t, "cols") && d->region[s->region].n != wf_last(t))
		return dot_refuse(d, "some columns of a result that is kept whole");
	if (emit_is(t, "rope"))
		return pair_rope(d, t, s->region);
	if (emit_is(t, "lane"))
		return pair_lane(d, t, s->region);
	if (t->op->kind == WF_ROW)
		return dot_refuse(d, "a row's sum after the product");
	return 0;
}

/* What is not asked for pairs like its neighbours, so that one formula serves them all. */
static void settle_units(struct dot *d)
{
	const struct dot_region *model = NULL;
	int64_t unit = 0;

	for (int r = 0; r < d->nregion && !model; r++)
		if (d->region[r].pairing == HALVES)
			model = &d->region[r];
	for (int r = 0; r < d->nregion; r++) {
		struct dot_region *at = &d->region[r];
		if (d->pair && at->pairing == ALONE) {
			bool alike = model && at->n % model->head == 0;
			at->pairing = alike ? HALVES : NEIGHBOURS;
			at->head = alike ? model->head : 0;
			at->half = alike ? model->half : 0;
			if (at->n % 2)
				dot_refuse(d, "an odd number of columns");
		}
		at->unit = unit;
		at->units = at->pairing == ACROSS_SECOND ? 0 : at->pairing == ACROSS || !d->pair ? at->n : at->n / 2;
		unit += at->units;
	}
}

int dot_analyse(struct dot *d)
{
	if (d->kernel->nnode > DOT_MAXMEMBER)
		return dot_refuse(d, "too many members");
	find_regions(d);
	for (int i = 0; i < d->kernel->nnode; i++)
		if (place_member(d, i))
			return -1;
	settle_units(d);
	return d->why ? -1 : 0;
}
