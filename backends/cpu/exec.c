/* exec.c - a plan on the CPU: one persistent thread team walks the kernel list.
 *
 * open() packs the weights, compiles each fused group to its actions and allocates everything; a
 * step then only binds the batch and walks, with one barrier between kernels. */
#include "backends/cpu/cpu.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- a step ---- */

static void angles_of(const struct cpu_exec *e, const struct cpu_rope *r, int64_t t)
{
	float *c = r->table + t * 2 * r->half, *s = c + r->half;

	for (int64_t i = 0; i < r->half; i++) {
		float angle = (float)e->batch->pos[t] * r->freq[i];
		c[i] = cosf(angle) * r->scale;
		s[i] = sinf(angle) * r->scale;
	}
}

static void make_angles(struct cpu_exec *e)
{
	for (int64_t t; (t = team_next(e->team, e->batch->ntoken)) < e->batch->ntoken;)
		for (struct cpu_rope *r = e->rope; r; r = r->next)
			angles_of(e, r, t);
}

static void run_rows(struct cpu_exec *e, struct cpu_kernel *k, int id)
{
	int rows = k->dim == 2 ? e->batch->nrow : e->batch->ntoken;

	for (int64_t t; (t = team_next(e->team, rows)) < rows;)
		program_run(e, &k->after, id, (int)t, NULL, 0, 0);
}

static void run_kernel(struct cpu_exec *e, struct cpu_kernel *k, int id)
{
	if (k->routed)
		experts_run(e, k, id);
	else if (k->plan->kind == WF_DOT)
		dot_run(e, k, id);
	else if (k->plan->kind == WF_ATTEND)
		attend_run(e, k, id);
	else
		run_rows(e, k, id);
}

static void walk(void *arg, int id)
{
	struct cpu_exec *e = arg;
	double start = e->seconds && !id ? now() : 0;

	make_angles(e);
	team_barrier(e->team, id);
	for (int i = 0; i < e->base.plan->nkernel; i++) {
		run_kernel(e, &e->kernel[i], id);
		team_barrier(e->team, id);
		if (e->seconds && !id) {
			double end = now();
			e->seconds[i] += end - start;
			start = end;
		}
	}
}

static int step(wf_exec *exec, const wf_batch *batch)
{
	struct cpu_exec *e = (struct cpu_exec *)exec;
	wf_graph *g = exec->plan->g;
	const struct wf_plan_opt *most = &exec->plan->opt;

	if (batch->ntoken > most->max_tokens || batch->nseq > most->max_seqs || batch->nrow > most->max_rows)
		return wf_fail(exec->err, "cpu: a batch of %d tokens, %d sequences, %d rows exceeds the plan", batch->ntoken,
			batch->nseq, batch->nrow);
	g->bound[0] = batch->ntoken;
	g->bound[1] = batch->nseq;
	g->bound[2] = batch->nrow;
	memcpy(e->input[0], batch->token, sizeof *batch->token * batch->ntoken);
	memcpy(e->input[1], batch->pos, sizeof *batch->pos * batch->ntoken);
	memcpy(e->input[2], batch->row, sizeof *batch->row * batch->nrow);
	e->batch = batch;
	team_run(e->team, walk, e);
	exec->steps++;
	return 0;
}

static int copy_pages(wf_exec *exec, const struct wf_slab_copy *copy, int n)
{
	struct cpu_exec *e = (struct cpu_exec *)exec;

	for (int i = 0; i < n; i++) {
		size_t bytes = e->page_bytes[copy[i].cls];
		memcpy(e->kv[copy[i].cls] + copy[i].to * bytes, e->kv[copy[i].cls] + copy[i].from * bytes, bytes);
	}
	return 0;
}

static const float *output(wf_exec *exec, const char *name)
{
	const wf_graph *g = exec->plan->g;

	for (int i = 0; i < g->nout; i++)
		if (!strcmp(g->out[i].name, name))
			return (const float *)(const void *)((const uint8_t *)((struct cpu_exec *)exec)->activations +
				exec->plan->value[g->out[i].t->id].offset);
	return NULL;
}

static void close_exec(wf_exec *exec)
{
	struct cpu_exec *e = (struct cpu_exec *)exec;

	for (struct cpu_block *b = e->block; b; b = b->next)
		free(b->data);
	for (int c = 0; e->kv && c < e->nclass; c++)
		free(e->kv[c]);
	for (int i = 0; i < exec->plan->g->nnode; i++)
		exec->plan->g->node[i]->data = NULL;
	team_free(e->team);
	wf_arena_free(e->arena);
}

/* ---- opening ---- */

static int no_memory(struct cpu_exec *e, const char *what)
{
	return wf_fail(e->base.err, "cpu: out of memory for %s", what);
}

static int open_pages(struct cpu_exec *e, const wf_slab *slab)
{
	e->nclass = slab ? wf_slab_nclass(slab) : 0;
	e->page_tokens = slab ? wf_slab_page_tokens(slab) : 0;
	e->kv = wf_alloc_n(e->arena, e->nclass + 1, sizeof *e->kv);
	e->page_bytes = wf_alloc_n(e->arena, e->nclass + 1, sizeof *e->page_bytes);
	if (!e->kv || !e->page_bytes)
		return no_memory(e, "the KV classes");
	for (int c = 0; c < e->nclass; c++) {
		e->page_bytes[c] = slab_page_bytes(wf_slab_class(slab, c), e->page_tokens);
		e->kv[c] = calloc(wf_slab_npage(slab, c), e->page_bytes[c]);
		if (!e->kv[c])
			return wf_fail(e->base.err, "cpu: out of memory for %lld KV pages of %zu bytes",
				(long long)wf_slab_npage(slab, c), e->page_bytes[c]);
	}
	return 0;
}

static int open_caches(struct cpu_exec *e, const wf_slab *slab)
{
	const wf_graph *g = e->base.plan->g;
	int n = 0;

	for (int i = 0; i < g->nnode; i++)
		n += g->node[i]->op->state;
	e->cache = wf_alloc_n(e->arena, n + 1, sizeof *e->cache);
	if (!e->cache)
		return no_memory(e, "the KV layers");
	for (int i = 0; i < g->nnode; i++) {
		const wf_tensor *t = g->node[i];
		int layer, cls = t->op->state && slab ? kv_find(slab, t, &layer) : -1;
		if (cls < 0)
			continue;
		const struct wf_kvclass *c = wf_slab_class(slab, cls);
		uint8_t *k = e->kv[cls] + layer * slab_layer_bytes(c, e->page_tokens);
		e->cache[e->ncache++] = (struct cpu_cache){t, cls, c->nkv, c->kdim, c->vdim, c->dtype, k,
			k + (size_t)c->nkv * e->page_tokens * c->kdim * wf_dtypes[c->dtype].bytes, e->page_bytes[cls]};
	}
	return 0;
}

float *exec_place(const struct cpu_exec *e, const wf_tensor *t)
{
	return (float *)(void *)((uint8_t *)e->activations + e->base.plan->value[t->id].offset);
}

static int anchor_index(const wf_kernel *kernel)
{
	int i = 0;

	while (kernel->node[i] != kernel->anchor)
		i++;
	return i;
}

static int64_t row_of(const wf_tensor *t)
{
	int64_t n = 1;

	for (int i = 1; i < t->ndim; i++)
		n *= t->dim[i];
	return n;
}

/* The stored value an operand is a view of. */
const wf_tensor *exec_behind_views(const struct cpu_exec *e, const wf_tensor *t)
{
	while (!e->base.plan->value[t->id].stored && t->op->view)
		t = t->in[0];
	return t;
}

static int open_dot(struct cpu_exec *e, struct cpu_kernel *k)
{
	const wf_tensor *y = k->plan->anchor;
	int at = anchor_index(k->plan), feeding = 0;

	if (!strcmp(y->op->name, "experts"))
		return experts_open(e, k);
	if (strcmp(y->op->name, "matmul") || y->in[1]->ndim != 2)
		return wf_fail(e->base.err, "cpu: product %s over %d dims is not supported", y->op->name, y->in[1]->ndim);
	k->K = y->in[0]->dim[1];
	k->N = y->in[0]->dim[0];
	if (!(k->w = weights_pack(e, y->in[0], 0)))
		return -1;
	k->act = cpu_act_for(e->k, k->w->type, e->compute);
	for (int i = 0; i < at; i++)
		feeding += !k->plan->node[i]->op->view;
	if (feeding && program_compile(e, &k->before, k->plan, 0, at - 1))
		return -1;
	if (!feeding)
		k->q = exec_place(e, exec_behind_views(e, y->in[1]));
	k->out = e->base.plan->value[y->id].stored ? exec_place(e, y) : NULL;
	if (program_compile(e, &k->after, k->plan, at + 1, k->plan->nnode - 1))
		return -1;
	if (!k->after.n && !k->out)
		return wf_fail(e->base.err, "cpu: a product whose result nobody reads");
	size_t row = cpu_act_bytes(k->act, k->K);
	if (e->xbytes < row)
		e->xbytes = row;
	return 0;
}

static int open_slopes(struct cpu_exec *e, struct cpu_kernel *k, const double *attr)
{
	int nhead = k->attend.nhead;
	float *s = wf_alloc_n(e->arena, nhead, sizeof *s);

	if (!s)
		return no_memory(e, "slopes");
	for (int h = 0; h < nhead; h++)
		s[h] = (float)alibi_slope(attr[3], h + (int)attr[5], attr[4] > 0 ? (int)attr[4] : nhead);
	k->attend.slope = s;
	return 0;
}

static int open_attend(struct cpu_exec *e, struct cpu_kernel *k)
{
	wf_tensor *y = k->plan->anchor;
	const double *attr = y->attr;         /* scale window softcap alibi nhead head0 */
	int at = anchor_index(k->plan);

	for (int i = 0; i < e->ncache; i++)
		if (e->cache[i].node == y->in[1])
			k->cache = &e->cache[i];
	if (!k->cache)
		return wf_fail(e->base.err, "cpu: attention over a cache the slab does not hold");
	k->attend = (struct cpu_attend){
		.qstride = row_of(y->in[0]), .ostride = row_of(y), .k = k->cache->k, .v = k->cache->v,
		.page_bytes = k->cache->page_bytes, .page_tokens = e->page_tokens, .dtype = k->cache->dtype,
		.nhead = (int)y->dim[1], .nkv = k->cache->nkv, .kdim = k->cache->kdim, .vdim = k->cache->vdim,
		.scale = (float)(attr[0] > 0 ? attr[0] : 1 / sqrt((double)k->cache->kdim)),
		.softcap = (float)attr[2], .window = (int)attr[1]};
	if (y->nin > 3 && !(k->attend.sink = weights_f32(e, y->in[3])))
		return -1;
	if (attr[3] > 0 && open_slopes(e, k, attr))
		return -1;
	k->q = exec_place(e, exec_behind_views(e, y->in[0]));
	const wf_tensor *to = y;
	for (int i = at + 1; i < k->plan->nnode && !e->base.plan->value[to->id].stored; i++)
		if (k->plan->node[i]->op->view && k->plan->node[i]->in[0] == to)
			to = k->plan->node[i];
	if (!e->base.plan->value[to->id].stored)
		return wf_fail(e->base.err, "cpu: attention whose result is not stored");
	k->out = exec_place(e, to);
	size_t need = cpu_attend_scratch(k->cache->kdim, k->cache->vdim);
	if (e->scratch_bytes < need)
		e->scratch_bytes = (need + 63) / 64 * 64;
	if (e->state_floats < ATTEND_ROWS * (k->cache->vdim + 2))
		e->state_floats = ATTEND_ROWS * (k->cache->vdim + 2);
	for (int i = at + 1; i < k->plan->nnode; i++)
		if (!k->plan->node[i]->op->view)
			return program_compile(e, &k->after, k->plan, at + 1, k->plan->nnode - 1);
	return 0;
}

static int open_kernel(struct cpu_exec *e, struct cpu_kernel *k, wf_kernel *plan)
{
	k->plan = plan;
	k->dim = plan->anchor->dim[0] == WF_R ? 2 : 0;
	if (plan->kind == WF_DOT)
		return open_dot(e, k);
	if (plan->kind == WF_ATTEND)
		return open_attend(e, k);
	if (plan->kind != WF_MAP && plan->kind != WF_ROW && plan->kind != WF_MOVE && plan->kind != WF_ROUTE)
		return wf_fail(e->base.err, "cpu: no kernel for %s (%s)", plan->anchor->op->name, wf_kind_names[plan->kind]);
	return program_compile(e, &k->after, plan, 0, plan->nnode - 1);
}

static int64_t most(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

/* Buffers whose size is known once every kernel is. */
static int open_buffers(struct cpu_exec *e)
{
	enum { TILE = 64 * 1024, STATES = 1024 };
	const wf_plan *plan = e->base.plan;
	int64_t rows = most(plan->opt.max_tokens, plan->opt.max_rows), n = team_size(e->team);

	e->tile_floats = TILE;
	for (int i = 0; i < plan->nkernel; i++) {
		const struct cpu_kernel *k = &e->kernel[i];
		e->slot_floats = most(e->slot_floats, most(k->before.slots, k->after.slots));
		if (k->plan->kind == WF_DOT)
			e->tile_floats = most(e->tile_floats, k->after.unit ? 32 * k->after.unit : (k->N + 15) / 16 * 16);
	}
	e->max_states = STATES;
	e->slots = wf_alloc_n(e->arena, n * (e->slot_floats + 16), sizeof *e->slots);
	e->tile = wf_alloc_n(e->arena, n * e->tile_floats, sizeof *e->tile);
	e->x = wf_alloc_n(e->arena, most(rows * e->choices, n), e->xbytes + 64);
	e->scratch = wf_alloc_n(e->arena, n, e->scratch_bytes + 64);
	e->state = wf_alloc_n(e->arena, (size_t)STATES * e->state_floats, sizeof *e->state);
	return e->slots && e->tile && e->x && e->scratch && e->state ? 0 : no_memory(e, "work buffers");
}

static int open_all(struct cpu_exec *e, const struct wf_exec_opt *opt)
{
	wf_plan *plan = e->base.plan;

	if (plan->g->act != WF_F32)
		return wf_fail(e->base.err, "cpu: the graph keeps activations in %s, expected f32: it was made for another backend",
			wf_dtypes[plan->g->act].name);
	e->choices = 1;
	e->team = team_new(opt->threads, e->base.err);
	if (!e->team)
		return -1;
	e->compute = opt->compute;
	e->activations = wf_alloc(e->arena, plan->arena_bytes + 64);
	e->kernel = wf_alloc_n(e->arena, plan->nkernel + 1, sizeof *e->kernel);
	e->input[0] = wf_alloc_n(e->arena, plan->opt.max_tokens, sizeof(int32_t));
	e->input[1] = wf_alloc_n(e->arena, plan->opt.max_tokens, sizeof(int32_t));
	e->input[2] = wf_alloc_n(e->arena, plan->opt.max_rows, sizeof(int32_t));
	if (!e->activations || !e->kernel || !e->input[0] || !e->input[1] || !e->input[2])
		return no_memory(e, "activations");
	if (opt->profile && !(e->seconds = wf_alloc_n(e->arena, plan->nkernel + 1, sizeof *e->seconds)))
		return no_memory(e, "the profile");
	e->base.kernel_s = e->seconds;
	if (open_pages(e, opt->slab) || open_caches(e, opt->slab))
		return -1;
	for (int i = 0; i < plan->nkernel; i++)
		if (open_kernel(e, &e->kernel[i], &plan->kernel[i]))
			return -1;
	return open_buffers(e);
}

static wf_exec *open_exec(const wf_backend *backend, wf_plan *plan, wf_error *err, const struct wf_exec_opt *opt)
{
	wf_arena *arena = wf_arena_new();
	struct cpu_exec *e = arena ? wf_alloc(arena, sizeof *e) : NULL;

	if (!e) {
		wf_arena_free(arena);
		wf_fail(err, "cpu: out of memory");
		return NULL;
	}
	*e = (struct cpu_exec){.base = {.backend = backend, .plan = plan, .err = err, .step = step,
		.copy_pages = copy_pages, .output = output, .close = close_exec}, .arena = arena, .k = cpu_kernels_pick(opt->isa)};
	if (!e->k)
		wf_fail(err, "cpu: this machine has no %s", opt->isa ? opt->isa : "kernels");
	if (!e->k || open_all(e, opt)) {
		close_exec(&e->base);
		return NULL;
	}
	return &e->base;
}

static int layout(const wf_backend *backend, wf_dtype dtype, int64_t rows, int64_t cols)
{
	(void)backend;
	(void)rows;
	(void)cols;
	return dtype == WF_I32 ? 0 : PANEL;
}

const wf_backend wf_backend_cpu = {
	.name   = "cpu",
	.act    = WF_F32,
	.weave  = 64,                /* lanes are spans of this many: long enough for the vector loops */
	.layout = layout,
	.device = cpu_device,
	.open   = open_exec,
};
