/* plan.c - the whole compiler, in order, and the facts every later pass derives from membership. */
#include "graph/graph.h"
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

const char *const plan_stage_names[PLAN_NSTAGE] = {
	"build", "rewrite", "fold", "shard", "fuse", "order", "place"
};

static int nothing(wf_plan *plan)
{
	(void)plan;
	return 0;
}

static int (*const passes[PLAN_NSTAGE])(wf_plan *) = {
	nothing,
	rewrite_run,     /* rules.c's algebra, to a fixed point   */
	fold_run,        /* weight layouts as nodes over weights  */
	shard_run,       /* tensors over ranks                    */
	fuse_run,        /* nodes to kernels                      */
	order_run,       /* kernels to a list                     */
	place_run,       /* values to offsets in one buffer       */
};

static int no_memory(wf_plan *plan)
{
	return wf_fail(plan->err, "plan: out of memory");
}

wf_plan *plan_new(wf_graph *g)
{
	wf_plan *plan = wf_alloc(g->arena, sizeof *plan);

	if (!plan) {
		wf_fail(g->err, "plan: out of memory");
		return NULL;
	}
	*plan = (wf_plan){.g = g, .arena = g->arena, .err = g->err,
		.opt = {.max_tokens = 1, .max_seqs = 1, .max_rows = 1}};
	return plan;
}

void plan_note(wf_plan *plan, struct wf_note note)
{
	if (plan->nnote == plan->maxnote) {
		int n = plan->maxnote ? plan->maxnote * 2 : 64;
		struct wf_note *more = wf_alloc_n(plan->arena, n, sizeof *more);
		if (!more)
			return;      /* a lost explanation is not a failed plan */
		if (plan->nnote)
			memcpy(more, plan->note, sizeof *more * plan->nnote);
		plan->note = more;
		plan->maxnote = n;
	}
	plan->note[plan->nnote++] = note;
}

const char *plan_note_text(wf_plan *plan, const char *fmt, ...)
{
	char s[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(s, sizeof s, fmt, ap);
	va_end(ap);
	const char *kept = wf_strdup(plan->arena, s);
	return kept ? kept : "out of memory";
}

/* ---- membership ---- */

int plan_reserve(wf_plan *plan, int nkernel)
{
	plan->kernel = wf_alloc_n(plan->arena, nkernel + 1, sizeof *plan->kernel);
	plan->value = wf_alloc_n(plan->arena, plan->g->nnode + 1, sizeof *plan->value);
	if (!plan->kernel || !plan->value)
		return no_memory(plan);
	plan->nkernel = nkernel;
	for (int k = 0; k < nkernel; k++)
		plan->kernel[k].id = k;
	for (int i = 0; i < plan->g->nnode; i++)
		plan->value[i].kernel = -1;
	return 0;
}

int plan_add_member(wf_plan *plan, int k, wf_tensor *t)
{
	wf_kernel *kernel = &plan->kernel[k];

	if (kernel->nnode == kernel->maxnode) {
		int n = kernel->maxnode ? kernel->maxnode * 2 : 8;
		wf_tensor **more = wf_alloc_n(plan->arena, n, sizeof *more);
		if (!more)
			return no_memory(plan);
		if (kernel->nnode)
			memcpy(more, kernel->node, sizeof *more * kernel->nnode);
		kernel->node = more;
		kernel->maxnode = n;
	}
	kernel->node[kernel->nnode++] = t;
	plan->value[t->id].kernel = k;
	return 0;
}

/* Leaves first, then kernels in order: a node's number tells where it is printed. */
int plan_renumber(wf_plan *plan)
{
	wf_graph *g = plan->g;
	wf_tensor **node = wf_alloc_n(plan->arena, g->maxnode, sizeof *node);
	struct wf_value *value = wf_alloc_n(plan->arena, g->nnode + 1, sizeof *value);
	int n = 0;

	if (!node || !value)
		return no_memory(plan);
	for (int i = 0; i < g->nnode; i++)
		if (plan->value[i].kernel < 0) {
			value[n] = plan->value[i];
			node[n++] = g->node[i];
		}
	for (int k = 0; k < plan->nkernel; k++)
		for (int i = 0; i < plan->kernel[k].nnode; i++) {
			wf_tensor *t = plan->kernel[k].node[i];
			value[n] = plan->value[t->id];
			value[n].kernel = k;
			node[n++] = t;
		}
	for (int i = 0; i < n; i++)
		node[i]->id = i;
	g->node = node;
	g->nnode = n;
	plan->value = value;
	return 0;
}

/* ---- what follows from membership ---- */

static bool listed(wf_tensor *const *list, int n, const wf_tensor *t)
{
	for (int i = 0; i < n; i++)
		if (list[i] == t)
			return true;
	return false;
}

/* Read from memory by kernel k: operands that are not its own values. */
static int derive_inputs(wf_plan *plan, wf_kernel *kernel)
{
	int most = 0;

	for (int i = 0; i < kernel->nnode; i++)
		most += kernel->node[i]->nin;
	kernel->in = wf_alloc_n(plan->arena, most + 1, sizeof *kernel->in);
	if (!kernel->in)
		return no_memory(plan);
	kernel->nin = 0;
	for (int i = 0; i < kernel->nnode; i++)
		for (int j = 0; j < kernel->node[i]->nin; j++) {
			wf_tensor *t = kernel->node[i]->in[j];
			if (plan->value[t->id].kernel != kernel->id && !listed(kernel->in, kernel->nin, t))
				kernel->in[kernel->nin++] = t;
		}
	return 0;
}

/* A value read by another kernel, or an output, is stored; state lives in the cache instead. */
static void derive_stored(wf_plan *plan)
{
	for (int i = 0; i < plan->g->nnode; i++)
		plan->value[i].stored = plan->value[i].alias = false;
	for (int k = 0; k < plan->nkernel; k++)
		for (int i = 0; i < plan->kernel[k].nin; i++) {
			const wf_tensor *t = plan->kernel[k].in[i];
			if (plan->value[t->id].kernel >= 0 && !t->op->state)
				plan->value[t->id].stored = true;
		}
	for (int i = 0; i < plan->g->nout; i++)
		if (plan->value[plan->g->out[i].t->id].kernel >= 0)
			plan->value[plan->g->out[i].t->id].stored = true;
	for (int i = 0; i < plan->g->nnode; i++) {
		const wf_tensor *t = plan->g->node[i];
		plan->value[i].alias = plan->value[i].stored && t->op->view && plan->value[t->in[0]->id].stored;
	}
}

static int derive_outputs(wf_plan *plan, wf_kernel *kernel)
{
	kernel->out = wf_alloc_n(plan->arena, kernel->nnode + 1, sizeof *kernel->out);
	if (!kernel->out)
		return no_memory(plan);
	kernel->nout = 0;
	for (int i = 0; i < kernel->nnode; i++)
		if (plan->value[kernel->node[i]->id].stored)
			kernel->out[kernel->nout++] = kernel->node[i];
	return 0;
}

const wf_tensor *plan_storage(const wf_plan *plan, const wf_tensor *t)
{
	while (plan->value[t->id].alias)
		t = t->in[0];
	return t;
}

static void derive_ranges(wf_plan *plan)
{
	for (int i = 0; i < plan->g->nnode; i++) {
		const wf_tensor *t = plan->g->node[i];
		struct wf_value *value = &plan->value[i];
		int64_t bytes = (int64_t)wf_bytes(t);
		value->bytes = value->stored ? (bytes + 63) / 64 * 64 : 0;
		value->first = value->last = value->kernel;
	}
	for (int k = 0; k < plan->nkernel; k++)
		for (int i = 0; i < plan->kernel[k].nin; i++) {
			const wf_tensor *t = plan_storage(plan, plan->kernel[k].in[i]);
			if (plan->value[t->id].last < k)
				plan->value[t->id].last = k;
		}
	for (int i = 0; i < plan->g->nout; i++)
		plan->value[plan_storage(plan, plan->g->out[i].t)->id].last = plan->nkernel - 1;
}

/* Weights of which only the chosen experts' part is read: the op knows how much. */
static bool is_routed_weight(const wf_kernel *kernel, const wf_tensor *t)
{
	for (int i = 0; i < kernel->nnode; i++)
		if (kernel->node[i]->op->kind == WF_DOT && kernel->node[i]->nin > 2 && kernel->node[i]->in[0] == t)
			return true;
	return false;
}

static void derive_cost(wf_plan *plan, wf_kernel *kernel)
{
	kernel->cost = (struct wf_cost){0};
	kernel->saved = 0;
	for (int i = 0; i < kernel->nnode; i++) {
		const wf_tensor *t = kernel->node[i];
		struct wf_cost cost = wf_cost_of(t);
		kernel->cost.flops += cost.flops;
		kernel->cost.bytes_kv += cost.bytes_kv;
		if (!plan->value[t->id].stored && !t->op->view && !t->op->state)
			kernel->saved += 2 * wf_nelem(t) * wf_dtypes[t->dtype].bytes;
		if (t->op->kind == WF_MOVE && t->nin > 1 && !t->op->state)
			kernel->cost.bytes_in += cost.bytes_in;      /* a gather reads rows, not its table */
		if (t->op->kind == WF_DOT && t->nin > 2)
			kernel->cost.bytes_weight += cost.bytes_weight;
	}
	for (int i = 0; i < kernel->nin; i++) {
		const wf_tensor *t = kernel->in[i];
		double bytes = wf_bytes(t);
		bool table = kernel->anchor->op->kind == WF_MOVE && kernel->anchor->in[0] == t && !t->op->view;
		if ((table && kernel->anchor->nin > 1) || is_routed_weight(kernel, t))
			continue;
		if (!t->op->state)
			*(t->constant ? &kernel->cost.bytes_weight : &kernel->cost.bytes_in) += bytes;
	}
	for (int i = 0; i < kernel->nout; i++)
		if (!plan->value[kernel->out[i]->id].alias)
			kernel->cost.bytes_out += (double)wf_nelem(kernel->out[i]) * wf_dtypes[kernel->out[i]->dtype].bytes;
}

void plan_cost_at(wf_plan *plan, const struct wf_sizes *at)
{
	wf_graph *g = plan->g;

	g->bound[0] = at->tokens;
	g->bound[1] = at->seqs;
	g->bound[2] = at->rows;
	g->ctx = at->ctx;
	for (int k = 0; k < plan->nkernel; k++)
		derive_cost(plan, &plan->kernel[k]);
	g->ctx = 0;
	plan_bounds(plan);
}

static int position(wf_tensor *const *list, int n, const wf_tensor *t)
{
	for (int i = 0; i < n; i++)
		if (list[i] == t)
			return i;
	return -1;
}

/* The graph's outputs may be kept in another type than what they are computed in. */
static void hash_type(XXH3_state_t *state, const wf_plan *plan, const wf_tensor *t)
{
	char flag = graph_is_output(plan->g, plan_storage(plan, t));

	XXH3_128bits_update(state, &flag, sizeof flag);
	XXH3_128bits_update(state, &t->dtype, sizeof t->dtype);
	XXH3_128bits_update(state, &t->ndim, sizeof t->ndim);
	XXH3_128bits_update(state, t->dim, sizeof t->dim);
}

/* Operands count by place, not by name, and attributes that are addresses not at all: so layers agree. */
static void derive_hash(wf_plan *plan, wf_kernel *kernel)
{
	XXH3_state_t state;
	struct wf_attr_info info;

	XXH3_128bits_reset(&state);
	for (int i = 0; i < kernel->nnode; i++) {
		const wf_tensor *t = kernel->node[i];
		char flags[2] = {(char)plan->value[t->id].stored, (char)(t == kernel->anchor)};
		XXH3_128bits_update(&state, t->op->name, strlen(t->op->name) + 1);
		XXH3_128bits_update(&state, flags, sizeof flags);
		hash_type(&state, plan, t);
		for (int k = 0; !wf_attr_info(t->op, k, &info); k++)
			if (!info.address)
				XXH3_128bits_update(&state, &t->attr[k], sizeof t->attr[k]);
		for (int k = 0; k < t->nin; k++) {
			int at = position(kernel->node, i, t->in[k]);
			if (at < 0)
				at = -1 - position(kernel->in, kernel->nin, t->in[k]);
			XXH3_128bits_update(&state, &at, sizeof at);
			hash_type(&state, plan, t->in[k]);
			XXH3_128bits_update(&state, &t->in[k]->constant, sizeof t->in[k]->constant);
			if (t->in[k]->op->kind == WF_MOVE && t->in[k]->constant)     /* the layout is part of the kernel */
				XXH3_128bits_update(&state, t->in[k]->attr, sizeof t->in[k]->attr);
		}
	}
	XXH128_hash_t sum = XXH3_128bits_digest(&state);
	kernel->hash[0] = sum.low64;
	kernel->hash[1] = sum.high64;
}

static void derive_twins(wf_plan *plan)
{
	for (int k = 0; k < plan->nkernel; k++) {
		int first = 0;
		while (memcmp(plan->kernel[first].hash, plan->kernel[k].hash, sizeof plan->kernel[k].hash))
			first++;
		plan->kernel[k].twin = first;
	}
}

/* One class per (heads, dims, window); its layers in ascending order. */
static int derive_kvclasses(wf_plan *plan)
{
	int n = 0;

	for (int i = 0; i < plan->g->nnode; i++)
		n += plan->g->node[i]->op->state;
	plan->kvclass = wf_alloc_n(plan->arena, n + 1, sizeof *plan->kvclass);
	if (!plan->kvclass)
		return no_memory(plan);
	plan->nkvclass = 0;
	for (int i = 0; i < plan->g->nnode; i++) {
		const wf_tensor *t = plan->g->node[i];
		if (!t->op->state)
			continue;
		struct wf_kvclass *c = plan->kvclass, *end = c + plan->nkvclass;
		while (c < end && !kv_fits(c, t))
			c++;
		if (c == end) {
			plan->nkvclass++;
			*c = (struct wf_kvclass){.nkv = (int)t->dim[1], .kdim = (int)t->dim[2], .vdim = (int)t->in[1]->dim[2],
				.window = (int)t->attr[wf_attr_index(t->op, "window")], .dtype = t->dtype,
				.layer = wf_alloc_n(plan->arena, n, sizeof *c->layer)};
			if (!c->layer)
				return no_memory(plan);
		}
		int layer = (int)t->attr[wf_attr_index(t->op, "layer")], at = c->nlayer++;
		for (; at > 0 && c->layer[at - 1] > layer; at--)
			c->layer[at] = c->layer[at - 1];
		c->layer[at] = layer;
	}
	return 0;
}

int plan_derive(wf_plan *plan)
{
	wf_graph *g = plan->g;

	plan_bounds(plan);
	for (int k = 0; k < plan->nkernel; k++) {
		wf_kernel *kernel = &plan->kernel[k];
		kernel->id = k;
		if (!kernel->nnode || !kernel->anchor)
			return wf_fail(plan->err, "plan: kernel %d has no %s", k, kernel->nnode ? "anchor" : "nodes");
		kernel->kind = kernel->anchor->op->kind;
		if (derive_inputs(plan, kernel))
			return -1;
	}
	derive_stored(plan);
	derive_ranges(plan);
	for (int k = 0; k < plan->nkernel; k++) {
		if (derive_outputs(plan, &plan->kernel[k]))
			return -1;
		derive_cost(plan, &plan->kernel[k]);
		derive_hash(plan, &plan->kernel[k]);
	}
	derive_twins(plan);
	XXH128_hash_t sum = {0};
	for (int i = 0; i < g->nout; i++) {
		uint64_t both[4] = {sum.low64, sum.high64, g->out[i].t->hash[0], g->out[i].t->hash[1]};
		sum = XXH3_128bits(both, sizeof both);
	}
	plan->hash[0] = sum.low64;
	plan->hash[1] = sum.high64;
	return derive_kvclasses(plan);
}

void plan_bounds(wf_plan *plan)
{
	plan->g->bound[0] = plan->opt.max_tokens;
	plan->g->bound[1] = plan->opt.max_seqs;
	plan->g->bound[2] = plan->opt.max_rows;
}

/* ---- running the passes ---- */

static bool skipped(const wf_plan *plan, const char *pass)
{
	size_t n = strlen(pass);

	for (const char *s = plan->opt.skip; s && *s; s += strspn(s, ",")) {
		size_t len = strcspn(s, ",");
		if (len == n && !memcmp(s, pass, n))
			return true;
		s += len;
	}
	return false;
}

/* Passes that cannot be left out run without their choices: fuse gives each node its own kernel. */
bool plan_skips(const wf_plan *plan, const char *pass)
{
	return skipped(plan, pass);
}

static int check_names(const wf_plan *plan)
{
	for (const char *s = plan->opt.skip; s && *s; s += strspn(s, ",")) {
		size_t len = strcspn(s, ",");
		int stage = PLAN_REWRITE;
		while (stage < PLAN_NSTAGE && (strlen(plan_stage_names[stage]) != len || memcmp(plan_stage_names[stage], s, len)))
			stage++;
		if (stage == PLAN_NSTAGE)
			return wf_fail(plan->err, "plan: no pass '%.*s' to skip (rewrite, fold, shard, fuse, order, place)", (int)len, s);
		s += len;
	}
	return 0;
}

int wf_plan_continue(wf_plan *plan)
{
	if (check_names(plan))
		return -1;
	plan_bounds(plan);
	while (plan->stage + 1 < PLAN_NSTAGE) {
		if (plan->opt.stop_after && !strcmp(plan->opt.stop_after, plan_stage_names[plan->stage]))
			return 0;
		int stage = plan->stage + 1;
		bool optional = stage == PLAN_REWRITE || stage == PLAN_FOLD;
		if (!(optional && skipped(plan, plan_stage_names[stage])) && passes[stage](plan))
			return -1;
		plan->stage = stage;
		if (plan->opt.verify && (graph_verify(plan->g) || plan_verify(plan)))
			return wf_fail(plan->err, "plan: pass %s left a broken plan", plan_stage_names[stage]);
	}
	return plan->backend && plan->backend->check ? plan->backend->check(plan->backend, plan) : 0;
}

wf_plan *wf_plan_build(wf_graph *g, const struct wf_rule *rules, const wf_backend *backend, const struct wf_plan_opt *opt)
{
	wf_plan *plan = wf_failed(g) ? NULL : plan_new(g);

	if (!plan)
		return NULL;
	if (!g->nout) {
		wf_fail(g->err, "plan: the graph has no output");
		return NULL;
	}
	plan->rules = rules;
	plan->backend = backend;
	plan->opt = *opt;
	graph_sweep(g);
	return wf_plan_continue(plan) ? NULL : plan;
}
