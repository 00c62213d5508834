/* fuse.c - nodes to kernels, by kind.
 *
 * Every computed node starts as its own group.  Anchors (products and attention first) then draw in
 * what feeds their loads and what follows their stores, by the table of kind pairs.  A group stays
 * convex: no value leaves it and comes back.  Every edge that was tried leaves a note, done or why not.
 *
 * needs: fold.  keeps: nodes.  breaks: ids (leaves first, then kernels in a topological order). */
#include "graph/graph.h"
#include <string.h>

enum side { LOAD, STORE };

/* routed: of a product over chosen experts, or of the choice; only for a backend that lists it. */
static const struct pair {
	const char *name;
	wf_kind producer, consumer;
	enum side side;
	bool routed;
} pairs[] = {
	{"row into dot.load",     WF_ROW,    WF_DOT,  LOAD, false},
	{"map into dot.load",     WF_MAP,    WF_DOT,  LOAD, false},
	{"move into dot.load",    WF_MOVE,   WF_DOT,  LOAD, false},
	{"map into row.load",     WF_MAP,    WF_ROW,  LOAD, false},
	{"move into row.load",    WF_MOVE,   WF_ROW,  LOAD, false},
	{"map after dot.store",   WF_DOT,    WF_MAP,  STORE, false},
	{"row after dot.store",   WF_DOT,    WF_ROW,  STORE, false},
	{"move after dot.store",  WF_DOT,    WF_MOVE, STORE, false},
	{"map after attend.store", WF_ATTEND, WF_MAP, STORE, false},
	{"move after attend.store", WF_ATTEND, WF_MOVE, STORE, false},
	{"map after row.store",   WF_ROW,    WF_MAP,  STORE, false},
	{"move after row.store",  WF_ROW,    WF_MOVE, STORE, false},
	{"map after map",         WF_MAP,    WF_MAP,  STORE, false},
	{"move after map",        WF_MAP,    WF_MOVE, STORE, false},
	{"map after move.store",  WF_MOVE,   WF_MAP,  STORE, false},
	{"move after move.store", WF_MOVE,   WF_MOVE, STORE, false},
	{"dot beside routed dot", WF_DOT,    WF_DOT,  STORE, true},
	{"map after routed dot.store", WF_DOT, WF_MAP, STORE, true},
	{"route after routed dot.store", WF_DOT, WF_ROUTE, STORE, true},
	{"route after route.store", WF_ROUTE, WF_ROUTE, STORE, true},
	{NULL, WF_LEAF, WF_LEAF, LOAD, false}
};

struct group { wf_tensor *anchor; int low, high, n; bool paired; };

struct fuser {
	wf_plan *plan;
	wf_graph *g;
	int *group;               /* by node id; -1 leaf or constant */
	struct group *info;       /* by group = id of its first node */
	int *reader, *first;      /* readers of node i: reader[first[i] .. first[i + 1]) */
	int *mark, stamp;         /* visited groups of a search */
	int *stack;
	bool *before;             /* node i feeds its group's anchor */
};

static bool computed(const wf_tensor *t)
{
	return !t->constant && t->op != &wf_op_input;
}

static int *ints(wf_plan *plan, int n)
{
	int *a = wf_alloc_n(plan->arena, n + 1, sizeof *a);

	if (!a)
		wf_fail(plan->err, "fuse: out of memory");
	return a;
}

static int find_readers(struct fuser *f)
{
	int n = f->g->nnode, total = 0;

	for (int i = 0; i < n; i++)
		total += f->g->node[i]->nin;
	f->first = ints(f->plan, n + 1);
	f->reader = ints(f->plan, total);
	if (!f->first || !f->reader)
		return -1;
	for (int i = 0; i < n; i++)
		for (int k = 0; k < f->g->node[i]->nin; k++)
			f->first[f->g->node[i]->in[k]->id + 1]++;
	for (int i = 0; i < n; i++)
		f->first[i + 1] += f->first[i];
	for (int i = n - 1; i >= 0; i--)
		for (int k = 0; k < f->g->node[i]->nin; k++)
			f->reader[--f->first[f->g->node[i]->in[k]->id + 1]] = i;
	memmove(f->first, f->first + 1, sizeof *f->first * n);
	f->first[n] = total;
	return 0;
}

/* Does group `from` depend on group `on`?  Groups whose nodes all come before it cannot. */
static bool depends(struct fuser *f, int from, int on)
{
	int n = 0;

	f->stamp++;
	f->stack[n++] = from;
	f->mark[from] = f->stamp;
	while (n) {
		int at = f->stack[--n];
		if (at == on)
			return true;
		for (int i = f->info[at].low; i <= f->info[at].high; i++) {
			if (f->group[i] != at)
				continue;
			for (int k = 0; k < f->g->node[i]->nin; k++) {
				int next = f->group[f->g->node[i]->in[k]->id];
				if (next < 0 || f->mark[next] == f->stamp || f->info[next].high < f->info[on].low)
					continue;
				f->mark[next] = f->stamp;
				f->stack[n++] = next;
			}
		}
	}
	return false;
}

static void join(struct fuser *f, wf_tensor *t, int to)
{
	int from = f->group[t->id];
	struct group *a = &f->info[to], *b = &f->info[from];

	for (int i = b->low; i <= b->high; i++)
		if (f->group[i] == from)
			f->group[i] = to;
	a->low = a->low < b->low ? a->low : b->low;
	a->high = a->high > b->high ? a->high : b->high;
	a->n += b->n;
	b->n = 0;
}

static const struct pair *find_pair(wf_kind producer, wf_kind consumer, enum side side, bool routed)
{
	for (const struct pair *p = pairs; p->name; p++)
		if (p->producer == producer && p->consumer == consumer && p->side == side && p->routed == routed)
			return p;
	return NULL;
}

static bool offered(const wf_backend *backend, const struct pair *pair)
{
	if (!backend || !backend->fusions)
		return !backend || !pair->routed;
	for (const char *const *have = backend->fusions; *have; have++)
		if (!strcmp(*have, pair->name))
			return true;
	return false;
}

static void note(struct fuser *f, const struct pair *pair, wf_tensor *from, wf_tensor *to, const char *blocker)
{
	plan_note(f->plan, (struct wf_note){.pass = "fuse", .rule = pair->name, .text = blocker, .from = from, .to = to,
		.bytes = blocker ? 0 : 2 * wf_nelem(from) * wf_dtypes[from->dtype].bytes, .kernel = -1});
}

/* ---- load side: the producer joins the group of the anchor it feeds ---- */

/* A product over chosen experts visits its rows in the experts' order. */
static bool is_routed(const wf_tensor *anchor)
{
	return anchor->op->kind == WF_DOT && anchor->nin > 2;
}

static const char *load_blocker(struct fuser *f, const struct pair *pair, const wf_tensor *t)
{
	if (!offered(f->plan->backend, pair))
		return "the backend has no such kernel";
	if (t->op->state)
		return "it writes the cache";
	if (f->info[f->group[t->id]].n > 1)
		return "it follows another kernel's store";
	if (f->first[t->id + 1] - f->first[t->id] > 1)
		return plan_note_text(f->plan, "%d readers", f->first[t->id + 1] - f->first[t->id]);
	if (graph_is_output(f->g, t))
		return "it is an output";
	if (pair->producer == WF_ROW && t->ndim != 2)
		return "its rows are not the product's rows";
	return NULL;
}

/* The operand of the anchor, or of what already feeds it, that streams: not its weights. */
static wf_tensor *stream(const wf_tensor *t)
{
	if (t->op->kind == WF_DOT)
		return t->in[1];
	return t->in[0];
}

static void absorb_loads(struct fuser *f, wf_tensor *anchor)
{
	wf_kind kind = anchor->op->kind;

	for (wf_tensor *at = anchor;;) {
		wf_tensor *t = at->nin ? stream(at) : NULL;
		if (!t || !computed(t) || f->group[t->id] == f->group[anchor->id])
			return;
		const struct pair *pair = find_pair(t->op->kind, kind, LOAD, false);
		if (!pair)
			return;
		const char *blocker = is_routed(anchor) ? "the product's rows are routed" : load_blocker(f, pair, t);
		note(f, pair, t, at, blocker);
		if (blocker)
			return;
		join(f, t, f->group[anchor->id]);
		f->before[t->id] = true;
		if (t->op->kind == WF_MOVE)
			return;
		at = t;
	}
}

/* ---- store side: the consumer joins the group whose value it continues ---- */

static const char *operands_blocker(struct fuser *f, const wf_tensor *t, int group)
{
	for (int k = 0; k < t->nin; k++) {
		const wf_tensor *x = t->in[k];
		if (!computed(x))
			continue;
		if (f->group[x->id] == group) {
			if (f->before[x->id])
				return "it also reads what feeds the anchor";
			continue;
		}
		if (t->op->state && k < 2)
			return "keys and values come from two kernels";
		if (depends(f, f->group[x->id], group))
			return plan_note_text(f->plan, "operand %d needs this kernel's own result first", k);
	}
	return NULL;
}

/* Its row of each chosen expert, by the anchor's choice: a bias. */
static bool is_choice(const struct fuser *f, const wf_tensor *anchor, const wf_tensor *t)
{
	return t->op->kind == WF_MOVE && t->nin == 2 && t->in[0]->constant && t->in[1] == anchor->in[2] &&
		f->info[f->group[t->id]].n == 1 && f->first[t->id + 1] - f->first[t->id] == 1;
}

/* What follows a product over chosen experts: maps of its own rows, then one mix of them. */
static const char *routed_blocker(struct fuser *f, const wf_tensor *from, const wf_tensor *t)
{
	const struct group *group = &f->info[f->group[from->id]];

	if (t->op->kind == WF_ROUTE)
		return t->in[0] != from || from->ndim != 3 || t->ndim != 2 ? "it only chooses by this value" :
			group->paired ? "it sums what two products make" : NULL;
	for (int k = 0; k < t->nin && t->ndim == 3; k++) {
		const wf_tensor *x = t->in[k];
		if (computed(x) && f->group[x->id] != f->group[from->id] && !is_choice(f, group->anchor, x))
			return "its rows are not in the experts' order";
		if (!computed(x) && wf_nelem(x) > wf_last(t))
			return "an operand of more than a row";
	}
	return NULL;
}

static const char *store_blocker(struct fuser *f, const struct pair *pair, const wf_tensor *from, const wf_tensor *t)
{
	if (!offered(f->plan->backend, pair))
		return "the backend has no such kernel";
	if (f->info[f->group[t->id]].n > 1)
		return "it is already part of another kernel";
	if (t->op->kind == WF_ROW && t->ndim != 3)
		return "it needs whole rows, which several blocks make";
	if (t->op->kind == WF_MOVE && t->in[0] != from)
		return "it only indexes with this value";
	if (t->op->kind == WF_MOVE && t->nin > 1 && !t->op->state)
		return "it gathers rows";
	if (t->in[0]->dim[0] != t->dim[0])
		return "its rows are not the kernel's rows";
	if (pair->producer == WF_ROUTE && (t->in[0] != from->in[0] || t->in[1] != from))
		return "it reads what the choice does not";
	if (pair->producer == WF_DOT && pair->routed && routed_blocker(f, from, t))
		return routed_blocker(f, from, t);
	return operands_blocker(f, t, f->group[from->id]);
}

/* Where t's value first meets another one that is computed, along maps that nothing else reads. */
static wf_tensor *meeting(struct fuser *f, const wf_tensor *anchor, wf_tensor *t)
{
	for (;;) {
		if (f->first[t->id + 1] - f->first[t->id] != 1 || graph_is_output(f->g, t))
			return NULL;
		wf_tensor *reader = f->g->node[f->reader[f->first[t->id]]];
		if (reader->op->kind != WF_MAP)
			return NULL;
		for (int k = 0; k < reader->nin; k++)
			if (reader->in[k] != t && computed(reader->in[k]) && !is_choice(f, anchor, reader->in[k]))
				return reader;
		t = reader;
	}
}

/* A gate and its value: products of the same rows and choice whose results meet. */
static void absorb_sibling(struct fuser *f, wf_tensor *anchor)
{
	const struct pair *pair = find_pair(WF_DOT, WF_DOT, STORE, true);
	wf_tensor *end = offered(f->plan->backend, pair) ? meeting(f, anchor, anchor) : NULL;

	for (int i = anchor->id + 1; end && i < end->id; i++) {
		wf_tensor *t = f->g->node[i];
		const wf_tensor *w = t->nin ? t->in[0] : NULL, *own = anchor->in[0];
		if (t->op != anchor->op || t->in[1] != anchor->in[1] || t->in[2] != anchor->in[2] || meeting(f, t, t) != end)
			continue;
		const char *blocker = w->dtype != own->dtype || wf_nelem(w) != wf_nelem(own) || wf_last(w) != wf_last(own) ?
			"the weights are of different types or shapes" : NULL;
		note(f, pair, anchor, t, blocker);
		if (blocker)
			continue;
		join(f, t, f->group[anchor->id]);
		f->info[f->group[anchor->id]].paired = true;
		return;
	}
}

static void absorb_choices(struct fuser *f, const wf_tensor *anchor, const wf_tensor *t)
{
	for (int k = 0; k < t->nin; k++)
		if (computed(t->in[k]) && f->group[t->in[k]->id] != f->group[anchor->id] && is_choice(f, anchor, t->in[k]))
			join(f, t->in[k], f->group[anchor->id]);
}

static void absorb_stores(struct fuser *f, wf_tensor *anchor)
{
	int group = f->group[anchor->id];
	wf_kind kind = anchor->op->kind;
	bool routed = is_routed(anchor) || kind == WF_ROUTE;

	for (int i = anchor->id; i <= f->info[group].high; i++) {
		wf_tensor *from = f->g->node[i];
		if (f->group[i] != group || f->before[i] || from->op->state)
			continue;
		for (int r = f->first[i]; r < f->first[i + 1]; r++) {
			wf_tensor *t = f->g->node[f->reader[r]];
			const struct pair *pair = find_pair(kind, t->op->kind, STORE, routed);
			if (!pair || f->group[t->id] == group)
				continue;
			const char *blocker = store_blocker(f, pair, from, t);
			note(f, pair, from, t, blocker);
			if (blocker)
				continue;
			if (is_routed(anchor))
				absorb_choices(f, anchor, t);
			join(f, t, group);
		}
	}
}

static void absorb(struct fuser *f, wf_kind kind, bool loads)
{
	for (int i = 0; i < f->g->nnode; i++) {
		wf_tensor *t = f->g->node[i];
		if (t->op->kind != kind || !computed(t) || f->info[f->group[i]].anchor != t || f->info[f->group[i]].n == 0)
			continue;
		if (loads)
			absorb_loads(f, t);
		if (is_routed(t))
			absorb_sibling(f, t);
		if (!t->op->state)
			absorb_stores(f, t);
	}
}

/* ---- groups to kernels ---- */

/* Kahn's algorithm; among the groups that are ready, the one whose first node came first. */
static int emit_groups(struct fuser *f)
{
	int n = f->g->nnode, nkernel = 0, *waits = ints(f->plan, n), *of = ints(f->plan, n);

	if (!waits || !of)
		return -1;
	for (int i = 0; i < n; i++)
		if (f->group[i] >= 0 && f->info[i].n)
			nkernel++;
	if (plan_reserve(f->plan, nkernel))
		return -1;
	for (int done = 0; done < nkernel; done++) {
		int pick = -1;
		for (int i = 0; i < n && pick < 0; i++) {
			if (f->group[i] < 0 || !f->info[i].n || of[i])
				continue;
			pick = i;
			for (int j = f->info[i].low; j <= f->info[i].high && pick >= 0; j++)
				for (int k = 0; f->group[j] == i && k < f->g->node[j]->nin; k++) {
					int x = f->group[f->g->node[j]->in[k]->id];
					if (x >= 0 && x != i && !of[x])
						pick = -1;
				}
		}
		if (pick < 0)
			wf_die("fuse: groups form a cycle");
		of[pick] = done + 1;
		for (int j = f->info[pick].low; j <= f->info[pick].high; j++)
			if (f->group[j] == pick && plan_add_member(f->plan, done, f->g->node[j]))
				return -1;
		f->plan->kernel[done].anchor = f->info[pick].anchor;
	}
	return 0;
}

static int start(struct fuser *f)
{
	int n = f->g->nnode;

	f->group = ints(f->plan, n);
	f->mark = ints(f->plan, n);
	f->stack = ints(f->plan, n);
	f->info = wf_alloc_n(f->plan->arena, n + 1, sizeof *f->info);
	f->before = wf_alloc_n(f->plan->arena, n + 1, sizeof *f->before);
	if (!f->group || !f->mark || !f->stack || !f->info || !f->before)
		return wf_fail(f->plan->err, "fuse: out of memory");
	for (int i = 0; i < n; i++) {
		f->group[i] = computed(f->g->node[i]) ? i : -1;
		if (f->group[i] >= 0)
			f->info[i] = (struct group){.anchor = f->g->node[i], .low = i, .high = i, .n = 1};
	}
	return find_readers(f);
}

/* A blocker that a later join overcame is no news. */
static void settle_notes(wf_plan *plan)
{
	int n = 0;

	for (int i = 0; i < plan->nnote; i++) {
		struct wf_note note = plan->note[i];
		bool mine = !strcmp(note.pass, "fuse");
		if (mine)
			note.kernel = plan->value[note.to->id].kernel;
		if (!mine || !note.text || plan->value[note.from->id].kernel != note.kernel)
			plan->note[n++] = note;
	}
	plan->nnote = n;
}

int fuse_run(wf_plan *plan)
{
	struct fuser f = {.plan = plan, .g = plan->g};

	graph_sweep(plan->g);
	if (start(&f))
		return -1;
	if (!plan_skips(plan, "fuse")) {
		absorb(&f, WF_DOT, true);
		absorb(&f, WF_ATTEND, false);
		absorb(&f, WF_ROUTE, false);
		absorb(&f, WF_ROW, true);
		absorb(&f, WF_MOVE, false);
		absorb(&f, WF_MAP, false);
	}
	if (emit_groups(&f) || plan_renumber(plan) || plan_derive(plan))
		return -1;
	settle_notes(plan);
	return 0;
}
