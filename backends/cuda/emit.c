/* emit.c - a fused group to launches: which skeleton, with which numbers, on how many blocks.
 *
 * A product of few rows is one kernel with all that feeds and follows it.  What that kernel cannot
 * hold (a norm over heads after the product, say), and every product of many rows, is three: rows
 * made ready in scratch, the bare product, and what follows it row by row. */
#include "backends/cuda/cuda.h"

#include <string.h>

enum { GEMV_MOST = 4, GEMV_MOST_OTHER = 64, GEMV_TOKENS = 8, ROWS_THREADS = 256 };

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

/* ---- products of few rows ---------------------------------------------------------------------------- */

struct gemv { int tokens, warps, stages, slots, smem; };

/* About what gemv.cuh will need, a little more; the page asserts that it fits, and says how much it is. */
static int gemv_smem(const wf_tensor *w, bool mma, int tokens, int warps, int stages)
{
	const struct wf_dtype_info *type = &wf_dtypes[w->dtype];
	bool dense = type->block == 1;
	int chunk = dense ? 64 : 256, piece = chunk / type->block * type->bytes;
	int padded = (int)((w->dim[1] + chunk - 1) / chunk) * chunk;
	bool snug = wf_row_bytes(w->dtype, w->dim[1]) % 16 == 0 && piece % 16 == 0;
	int stage = 16 * ((snug || dense ? piece : piece + 29) / 16 * 16);

	return warps * stages * stage + tokens * padded * (mma ? 2 : 4) + (tokens > 2 ? 2 : 4) * warps * tokens * 20 * 4 +
		(warps + 1) * tokens * 4 + tokens * 8 + 256;
}

/* The most tokens a pass can hold, then the most warps, then the most under way: one block with 160 KB of
 * requests reads faster than two with 80 each.  Half the warps leave room for the rows of a wide product:
 * reading its weights twice costs more. */
static struct gemv choose_gemv(const struct emit *e, bool mma)
{
	const wf_tensor *w = e->kernel->anchor->in[0];
	int most = e->rows < GEMV_TOKENS ? (int)e->rows : GEMV_TOKENS;

	for (int tokens = most; tokens > 0; tokens = tokens > 1 ? (tokens + 1) / 2 : 0)
		for (int warps = 16; warps >= 4; warps /= 2)
			for (int stages = 80 / warps; stages >= 3; stages--) {
				int smem = gemv_smem(w, mma, tokens, warps, stages);
				if (smem <= emit_room(e->gpu, 1))
					return (struct gemv){tokens, warps, stages, 1, smem};
			}
	return (struct gemv){0};
}

static int define_gemv(struct emit *e, struct page *p, struct emit_launch *l, const struct gemv *g, bool mma)
{
	const wf_tensor *w = e->kernel->anchor->in[0];
	wf_dtype act = e->plan->g->act;

	page_define(p, "MMA", "%d", mma);
	if (mma)
		page_define(p, "MTYPE", "%s", emit_is_16bit(w->dtype) ? page_type(p, w) : act == WF_BF16 ? "bf16" : "half");
	page_define(p, "TOKENS", "%d", g->tokens);
	page_define(p, "PASSES", "%d", e->rows <= g->tokens);
	page_define(p, "WARPS", "%d", g->warps);
	page_define(p, "STAGES", "%d", g->stages);
	page_define(p, "SLOTS", "%d", g->slots);
	page_define(p, "PAGE_TOKENS", "%d", e->page_tokens);
	l->threads = (unsigned)g->warps * 32;
	l->grid_x = (unsigned)e->gpu->sms;
	l->weight = 3 + g->tokens;
	p->tail = page_format(p, "extern \"C\" __device__ int dynamic_smem = GEMV_SMEM;\n"
		"static_assert(GEMV_SMEM <= %d, \"shared memory\");\n", emit_room(e->gpu, g->slots));
	return 0;
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

static int emit_rows(struct emit *e, const char *part, const wf_tensor *anchor, const wf_tensor *result, const char *product)
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

/* ---- products -------------------------------------------------------------------------------------------- */

/* Does anything stand between memory and the product, or between it and memory? */
static bool has_feed(const struct emit *e)
{
	const wf_tensor *x = e->kernel->anchor->in[1];

	while (e->plan->value[x->id].kernel == e->kernel->id && x->op->view)
		x = x->in[0];
	return e->plan->value[x->id].kernel == e->kernel->id;
}

static int try_gemv(struct emit *e, const struct gemv *g, bool mma)
{
	struct emit_launch *l = emit_add(e, "gemv");
	struct page p;

	page_open(&p, e->arena, e->plan, e->kernel);
	if (emit_dot_hooks(&p, e->kernel, EMIT_FEED | EMIT_STORE)) {
		e->work->n--;
		return 1;
	}
	define_gemv(e, &p, l, g, mma);
	return emit_finish(e, &p, l, "", "gemv.cuh");
}

static int plain_gemv(struct emit *e, const struct gemv *g, bool mma)
{
	struct emit_launch *l = emit_add(e, "gemv");
	struct page p;

	page_open(&p, e->arena, e->plan, e->kernel);
	emit_plain_hooks(&p, e->kernel, has_feed(e));
	define_gemv(e, &p, l, g, mma);
	return emit_finish(e, &p, l, "-plain", "gemv.cuh");
}

static int emit_apart(struct emit *e, int (*product)(struct emit *, const struct gemv *, bool), const struct gemv *g, bool mma,
		const char *type)
{
	const wf_tensor *anchor = e->kernel->anchor;

	e->work->row_bytes = has_feed(e) ? emit_width(anchor->in[1]) * wf_dtypes[anchor->in[1]->dtype].bytes : 0;
	e->work->product_bytes = emit_width(anchor) * (!strcmp(type, "float") ? 4 : 2);
	return (has_feed(e) && emit_rows(e, "-feed", anchor, anchor->in[1], type)) || product(e, g, mma) ||
		emit_rows(e, "-after", anchor, NULL, type) ? -1 : 0;
}

/* ---- products of many rows: cuBLASLt, our own pages around it ------------------------------------------------ */

static wf_dtype dtype_of(const char *type)
{
	return !strcmp(type, "float") ? WF_F32 : !strcmp(type, "bf16") ? WF_BF16 : WF_F16;
}

static void take_arg(struct page *p, enum page_source from, const wf_tensor *t, const char *name)
{
	page_pointer(p, from, t, "", name);
}

/* The one map after the product, when it adds another kernel's value of the same shape and type. */
static const wf_tensor *only_sum(const struct emit *e, const wf_tensor **other)
{
	const wf_tensor *anchor = e->kernel->anchor, *sum = NULL;

	for (int i = 0; i < e->kernel->nnode; i++) {
		const wf_tensor *t = e->kernel->node[i];
		if (t->id <= anchor->id)
			continue;
		if (sum || strcmp(t->op->name, "add") || (t->in[0] != anchor && t->in[1] != anchor))
			return NULL;
		sum = t;
	}
	if (!sum || e->plan->value[anchor->id].stored || page_is_output(e->plan, sum))
		return NULL;
	*other = sum->in[sum->in[0] == anchor];
	return *other != anchor && !(*other)->constant && emit_width(*other) == emit_width(anchor) &&
		e->plan->value[(*other)->id].kernel != e->kernel->id && (*other)->dtype == sum->dtype &&
		!page_is_output(e->plan, *other) ? sum : NULL;
}

static bool ends_at_anchor(const struct emit *e)
{
	return e->kernel->node[e->kernel->nnode - 1] == e->kernel->anchor;
}

static const wf_tensor *behind_views(const struct emit *e, const wf_tensor *t)
{
	while (e->plan->value[t->id].kernel == e->kernel->id && t->op->view)
		t = t->in[0];
	return t;
}

/* Weights as the library reads them, row by row into scratch. */
static int emit_unpack(struct emit *e)
{
	const wf_tensor *w = e->kernel->anchor->in[0];
	struct emit_launch *l = emit_add(e, "rows");
	struct page p;

	page_open(&p, e->arena, e->plan, e->kernel);
	emit_unpack_hooks(&p, w, page_type(&p, e->kernel->anchor->in[1]));
	l->threads = ROWS_THREADS;
	l->grid_x = (unsigned)w->dim[0];
	l->weight = 1;
	e->work->unpacked_bytes = w->dim[0] * w->dim[1] * wf_dtypes[e->kernel->anchor->in[1]->dtype].bytes;
	return emit_finish(e, &p, l, "-unpack", "rows.cuh");
}

/* Where the result goes at once, when nothing but a sum with a residual follows; else scratch. */
static int emit_library(struct emit *e, const wf_tensor *sum, const wf_tensor *other)
{
	const wf_tensor *anchor = e->kernel->anchor, *w = anchor->in[0], *x = anchor->in[1];
	struct emit_launch *l = emit_add(e, "cublasLt");
	struct page p;

	page_open(&p, e->arena, e->plan, e->kernel);
	take_arg(&p, w->dtype == x->dtype ? PAGE_CONSTANT : PAGE_UNPACKED, w, "w");
	if (has_feed(e))
		take_arg(&p, PAGE_ROWS, NULL, "x");
	else
		take_arg(&p, PAGE_VALUE, behind_views(e, x), "x");
	if (sum || ends_at_anchor(e))
		take_arg(&p, PAGE_VALUE, sum ? sum : anchor, "y");
	else
		take_arg(&p, PAGE_PRODUCT, NULL, "y");
	if (sum)
		take_arg(&p, PAGE_VALUE, other, "c");
	l->M = w->dim[0];
	l->K = w->dim[1];
	l->in = x->dtype;
	l->out = sum || !ends_at_anchor(e) ? x->dtype : dtype_of(page_type(&p, anchor));
	l->name = "cublasLt";
	l->narg = p.narg;
	memcpy(l->arg, p.arg, sizeof p.arg[0] * (size_t)p.narg);
	return 0;
}

static int emit_many(struct emit *e)
{
	const wf_tensor *anchor = e->kernel->anchor, *w = anchor->in[0], *x = anchor->in[1], *other = NULL;
	const wf_tensor *sum = only_sum(e, &other);

	e->work->row_bytes = has_feed(e) ? emit_width(x) * wf_dtypes[x->dtype].bytes : 0;
	e->work->product_bytes = emit_width(anchor) * wf_dtypes[x->dtype].bytes;
	if (has_feed(e) && emit_rows(e, "-feed", anchor, x, NULL))
		return -1;
	if (w->dtype != x->dtype && emit_unpack(e))
		return -1;
	if (emit_library(e, sum, other))
		return -1;
	return sum || ends_at_anchor(e) ? 0 : emit_rows(e, "-after", anchor, NULL, x->dtype == WF_F32 ? "float" :
		x->dtype == WF_BF16 ? "bf16" : "half");
}

/* Reading weights of its own type twice costs more than the library does; others it cannot read. */
static int emit_dot(struct emit *e)
{
	bool mma = emit_is_16bit(e->plan->g->act), readable = e->kernel->anchor->in[0]->dtype == e->kernel->anchor->in[1]->dtype;
	struct gemv g = choose_gemv(e, mma);

	if (e->rows > (readable ? GEMV_MOST : GEMV_MOST_OTHER))
		return emit_many(e);
	if (!g.tokens)
		return emit_refuse(e, "its rows do not fit shared memory");
	int failed = try_gemv(e, &g, mma);
	return failed > 0 ? emit_apart(e, plain_gemv, &g, mma, "float") : failed;
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
		return emit_dot(&e);
	case WF_ATTEND:
		return emit_attend(&e);
	case WF_MAP:
	case WF_ROW:
	case WF_MOVE:
		return stores_nothing(&e) ? 0 : emit_rows(&e, "", NULL, NULL, NULL);
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
