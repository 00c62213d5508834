/* emit.c - a fused group to launches: which skeleton, with which numbers, on how many blocks.
 * Here what all kinds share, and groups that work row by row. */
#include "backends/cuda/cuda.h"

#include <string.h>

enum { ROWS_THREADS = 256 };

/* The system keeps 1 KB of each block. */
int emit_room(const struct cuda_gpu *gpu, int slots)
{
	int most = gpu->smem_sm / slots - 1024;

	return most < gpu->smem_block ? most : gpu->smem_block;
}

bool emit_is_16bit(wf_dtype t)
{
	return t == WF_F16 || t == WF_BF16;
}

int emit_member(const wf_kernel *k, const wf_tensor *t)
{
	for (int i = 0; i < k->nnode; i++)
		if (k->node[i] == t)
			return i;
	return -1;
}

bool emit_is(const wf_tensor *t, const char *op)
{
	return !strcmp(t->op->name, op);
}

double emit_attr(const wf_tensor *t, const char *name)
{
	return t->attr[wf_attr_index(t->op, name)];
}

struct emit_launch *emit_add(struct emit *e, const char *function)
{
	struct emit_launch *l = &e->work->launch[e->work->n++];

	*l = (struct emit_launch){.function = function, .grid_x = 1, .grid_y = 1};
	return l;
}

/* Members by op, in order: what a person looks for in a profile. */
static const char *title(struct emit *e, const char *part)
{
	char s[200];
	size_t n = (size_t)snprintf(s, sizeof s, "%s%s:", e->work->launch[e->work->n - 1].function, part);

	for (int i = 0; i < e->kernel->nnode && n < 160; i++)
		n += (size_t)snprintf(s + n, sizeof s - n, " %s", e->kernel->node[i]->op->name);
	return wf_strdup(e->arena, s);
}

int emit_finish(struct emit *e, struct page *p, struct emit_launch *l, const char *part, const char *skeleton)
{
	const char *head = title(e, part);

	l->source = head ? page_done(p, e->err, head, skeleton) : NULL;
	l->name = wf_format(e->arena, "%s%s-%s", l->function, part, e->kernel->anchor->op->name);
	l->narg = p->narg;
	memcpy(l->arg, p->arg, sizeof p->arg[0] * (size_t)p->narg);
	return l->source && l->name ? 0 : wf_fail(e->err, "emit: out of memory");
}

int emit_refuse(struct emit *e, const char *why)
{
	return wf_fail(e->err, "cuda: no kernel for %s (kernel %d, %s): %s", e->kernel->anchor->op->name, e->kernel->id,
		e->kernel->anchor->scope ? e->kernel->anchor->scope : "", why);
}

/* ---- row by row ------------------------------------------------------------------------------------------ */

int64_t emit_width(const wf_tensor *t)
{
	int64_t n = 1;

	for (int i = t->ndim == 1 ? 0 : 1; i < t->ndim; i++)
		n *= t->dim[i];
	return n;
}

/* Enough blocks on a row that few rows still fill the machine. */
static void spread_rows(struct emit *e, struct emit_launch *l)
{
	int64_t widest = 1;

	for (int i = 0; i < e->kernel->nnode; i++)
		widest = emit_width(e->kernel->node[i]) > widest ? emit_width(e->kernel->node[i]) : widest;
	int64_t share = widest / (ROWS_THREADS * 8), fill = 2 * e->gpu->sms / (e->rows > 0 ? e->rows : 1);
	share = share < fill ? share : fill;
	l->threads = ROWS_THREADS;
	l->grid_x = 0;
	l->grid_y = (unsigned)(share < 1 ? 1 : share);
	l->weight = 2;
}

/* A kernel of views alone has nothing to do. */
static bool stores_nothing(const struct emit *e)
{
	for (int i = 0; i < e->kernel->nnode; i++) {
		const wf_tensor *t = e->kernel->node[i];
		if (t->op->state || (e->plan->value[t->id].stored && !e->plan->value[t->id].alias))
			return false;
	}
	return true;
}

int emit_rows(struct emit *e, const char *part, const wf_tensor *anchor, const wf_tensor *result, const char *product)
{
	struct emit_launch *l = emit_add(e, "rows");
	struct page p;

	page_open(&p, e->arena, e->plan, e->kernel);
	page_define(&p, "PAGE_TOKENS", "%d", e->page_tokens);
	const char *why = emit_row_hooks(&p, e->kernel, anchor, result, product);
	if (why)
		return emit_refuse(e, why);
	spread_rows(e, l);
	return emit_finish(e, &p, l, part, "rows.cuh");
}

/* ---- all kinds ------------------------------------------------------------------------------------------------ */

static const wf_tensor *without_text(const wf_kernel *k)
{
	for (int i = 0; i < k->nnode; i++)
		if ((k->node[i]->op->kind == WF_MAP || k->node[i]->op->kind == WF_ROW) && !k->node[i]->op->cuda)
			return k->node[i];
	return NULL;
}

int emit_kernel(wf_error *err, wf_arena *arena, const struct emit_opt *opt, const wf_plan *plan, const wf_kernel *kernel,
		int64_t rows, bool single, struct emit_work *work)
{
	struct emit e = {.err = err, .arena = arena, .plan = plan, .kernel = kernel, .work = work, .rows = rows,
		.single = single, .gpu = opt->gpu, .page_tokens = opt->page_tokens};

	*work = (struct emit_work){0};
	if (without_text(kernel))
		return emit_refuse(&e, wf_format(arena, "op %s has no CUDA text", without_text(kernel)->op->name));
	switch (kernel->kind) {
	case WF_DOT:
		return kernel->anchor->nin > 2 ? emit_experts(&e) : emit_dot(&e);
	case WF_ATTEND:
		return emit_attend(&e);
	case WF_MAP:
	case WF_ROW:
	case WF_MOVE:
		return stores_nothing(&e) ? 0 : emit_rows(&e, "", NULL, NULL, NULL);
	case WF_ROUTE:
		return emit_route(&e);
	default:
		return emit_refuse(&e, "the backend has none of its kind");
	}
}

const struct cuda_gpu *emit_known_gpu(const char *arch)
{
	static const struct cuda_gpu known[] = {
		{.name = "A100",         .arch = "sm_80",  .major = 8,  .sms = 108, .smem_block = 166912, .smem_sm = 167936},
		{.name = "RTX 4090",     .arch = "sm_89",  .major = 8,  .minor = 9, .sms = 128, .smem_block = 101376, .smem_sm = 102400},
		{.name = "H100",         .arch = "sm_90a", .major = 9,  .sms = 132, .smem_block = 232448, .smem_sm = 233472},
		{.name = "B200",         .arch = "sm_100", .major = 10, .sms = 148, .smem_block = 232448, .smem_sm = 233472},
		{.name = "RTX 5090",     .arch = "sm_120", .major = 12, .sms = 170, .smem_block = 101376, .smem_sm = 102400},
	};

	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (!strcmp(known[i].arch, arch))
			return &known[i];
	return NULL;
}
