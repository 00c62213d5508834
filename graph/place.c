/* place.c - values to offsets in one buffer.
 *
 * needs: order.  keeps: everything but offsets.
 *
 * Packing intervals of given sizes is NP-hard, and the plan of a language model small and regular:
 * items are put down one by one in several orders, each into the lowest gap and into the tightest,
 * then those that make the peak go first and all is tried again.  The best wins; nothing is random.
 * No placement can beat the most bytes that are live in one kernel. */
#include "graph/graph.h"
#include <stdlib.h>

enum { ALIGN = 64, NORDER = 5, NONE = -1,
	/* rounds of raising the peak per order: 100 bring 135 random intervals from 2 % to 0.4 % over the bound;
	 * fewer for many items, as a trial takes n * n steps */
	ROUNDS = 100, WORK = 4000000 };

/* ---- packing ---- */

static bool meet(const struct place_item *a, const struct place_item *b)
{
	return a->first <= b->last && b->first <= a->last;
}

/* Where item i fits among those already down, which are linked by offset from `head`. */
static int64_t gap(const struct place_item *item, int head, int i, bool tightest)
{
	int64_t end = 0, at = NONE, least = INT64_MAX;

	for (int k = head; k != NONE; k = item[k].next) {
		if (!meet(&item[k], &item[i]))
			continue;
		int64_t room = item[k].trial - end;
		if (room >= item[i].bytes && room < least) {
			at = end;
			least = tightest ? room : 0;
		}
		if (item[k].trial + item[k].bytes > end)
			end = item[k].trial + item[k].bytes;
	}
	return at == NONE ? end : at;
}

/* One trial in the order of the array; the peak. */
static int64_t put_down(struct place_item *item, int n, bool tightest)
{
	int head = NONE;
	int64_t peak = 0;

	for (int i = 0; i < n; i++) {
		int *link = &head;
		item[i].trial = gap(item, head, i, tightest);
		while (*link != NONE && item[*link].trial < item[i].trial)
			link = &item[*link].next;
		item[i].next = *link;
		*link = i;
		if (item[i].trial + item[i].bytes > peak)
			peak = item[i].trial + item[i].bytes;
	}
	return peak;
}

static int by_rank(const void *a, const void *b)
{
	const struct place_item *x = a, *y = b;

	if (x->rank != y->rank)
		return x->rank > y->rank ? -1 : 1;
	return (x->id > y->id) - (x->id < y->id);
}

static int by_id(const void *a, const void *b)
{
	const struct place_item *x = a, *y = b;

	return (x->id > y->id) - (x->id < y->id);
}

/* Try the order of ranks both ways; *peak and offsets are those of the best so far. */
static void try_order(struct place_item *item, int n, int64_t *peak)
{
	qsort(item, (size_t)n, sizeof *item, by_rank);
	for (int tightest = 0; tightest < 2; tightest++) {
		int64_t here = put_down(item, n, tightest);
		if (here >= *peak)
			continue;
		*peak = here;
		for (int i = 0; i < n; i++)
			item[i].offset = item[i].trial;
	}
}

static double rank_of(const struct place_item *item, int order)
{
	double life = (double)item->last - item->first + 1, bytes = (double)item->bytes;

	switch (order) {
	case 0: return bytes;
	case 1: return bytes * life;
	case 2: return life;
	case 3: return -(double)item->first;
	default: return (double)item->last;
	}
}

static void rank_all(struct place_item *item, int n, int order)
{
	for (int i = 0; i < n; i++)
		item[i].rank = rank_of(&item[i], order);
}

/* Items that end at the last trial's peak go before all others. */
static void raise_peak(struct place_item *item, int n, double rank)
{
	int64_t peak = 0;

	for (int i = 0; i < n; i++)
		if (item[i].trial + item[i].bytes > peak)
			peak = item[i].trial + item[i].bytes;
	for (int i = 0; i < n; i++)
		if (item[i].trial + item[i].bytes == peak)
			item[i].rank = rank;
}

/* The most bytes live at once; they are so in a kernel where some item begins. */
int64_t place_bound(const struct place_item *item, int n)
{
	int64_t most = 0;

	for (int i = 0; i < n; i++) {
		int64_t bytes = 0;
		for (int k = 0; k < n; k++)
			if (item[k].first <= item[i].first && item[i].first <= item[k].last)
				bytes += item[k].bytes;
		most = bytes > most ? bytes : most;
	}
	return most;
}

int64_t place_pack(struct place_item *item, int n)
{
	int64_t peak = INT64_MAX, bound = place_bound(item, n);
	int rounds = n * (int64_t)n < WORK / ROUNDS ? ROUNDS : (int)(WORK / (n * (int64_t)n));

	if (!n)
		return 0;               /* nor may qsort() be given nothing */
	for (int i = 0; i < n; i++)
		item[i].id = i;
	for (int order = 0; order < NORDER && peak > bound; order++) {
		rank_all(item, n, order);
		try_order(item, n, &peak);
		for (int i = 0; i < n; i++)
			item[i].rank = -i;
		for (int round = 1; round <= rounds && peak > bound; round++) {
			raise_peak(item, n, round);
			try_order(item, n, &peak);
		}
	}
	qsort(item, (size_t)n, sizeof *item, by_id);
	return peak;
}

/* ---- the pass ---- */

static bool is_placed(const struct wf_value *value)
{
	return value->stored && !value->alias && value->kernel >= 0;
}

static int collect(wf_plan *plan, struct place_item *item, int *n)
{
	int64_t total = 0;

	*n = 0;
	for (int i = 0; i < plan->g->nnode; i++) {
		const struct wf_value *value = &plan->value[i];
		int64_t bytes;
		if (!is_placed(value))
			continue;
		if (value->bytes < 0 || __builtin_add_overflow(value->bytes, ALIGN - 1, &bytes)
				|| __builtin_add_overflow(total, bytes, &total))
			return wf_fail(plan->err, "place: %%%d has %lld bytes, more than all memory", i,
				(long long)value->bytes);
		item[(*n)++] = (struct place_item){
			.bytes = bytes / ALIGN * ALIGN, .first = value->first, .last = value->last,
		};
	}
	return 0;
}

int place_run(wf_plan *plan)
{
	struct place_item *item = wf_alloc_n(plan->arena, (size_t)plan->g->nnode + 1, sizeof *item);
	int n;

	if (!item)
		return wf_fail(plan->err, "place: out of memory");
	if (collect(plan, item, &n) < 0)
		return -1;
	plan->live_bytes = place_bound(item, n);
	plan->arena_bytes = place_pack(item, n);
	for (int i = 0; i < plan->g->nnode; i++) {
		struct wf_value *value = &plan->value[i];
		if (is_placed(value))
			value->offset = (item++)->offset;
		else                                    /* operands come first: theirs is known */
			value->offset = value->alias ? plan->value[plan->g->node[i]->in[0]->id].offset : 0;
	}
	return 0;
}
