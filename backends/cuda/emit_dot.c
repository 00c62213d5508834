/* emit_dot.c - products: which of three ways, by how many rows there are.
 *
 * Up to GEMV_MOST rows, GEMV_TOKENS where that saves kernels: one kernel with all that feeds and follows the
 * product.  Up to SKINNY_DENSE, SKINNY_MOST for weights of a type the library cannot read: rows made ready in scratch
 * where anything feeds it, then one kernel with all that follows.  Else: the library.
 * What follows but does not fit such a kernel (a norm over heads, say) works row by row on the bare
 * product, left in scratch. */
#include "backends/cuda/cuda.h"

#include <string.h>

enum { GEMV_MOST = 4, GEMV_TOKENS = 8, SKINNY_MOST = 64, SKINNY_DENSE = 16, ROWS_THREADS = 256 };

/* Bytes of 16 rows' chunk in dot.cuh's ring. */
static int stage_bytes(const wf_tensor *w)
{
	const struct wf_dtype_info *type = &wf_dtypes[w->dtype];
	bool dense = type->block == 1;
	int piece = (dense ? 64 : 256) / type->block * type->bytes;
	bool snug = wf_row_bytes(w->dtype, w->dim[1]) % 16 == 0 && piece % 16 == 0;

	return 16 * ((snug || dense ? piece : piece + 29) / 16 * 16);
}

static bool uses_mma(const struct emit *e)
{
	return emit_is_16bit(e->plan->g->act);
}

/* What both skeletons are told, and the launch. */
static void define_product(struct emit *e, struct page *p, struct emit_launch *l, int tokens, int warps, int stages)
{
	page_define(p, "MMA", "%d", uses_mma(e));
	if (uses_mma(e))
		page_define(p, "MTYPE", "%s", e->plan->g->act == WF_BF16 ? "bf16" : "half");
	page_define(p, "TOKENS", "%d", tokens);
	page_define(p, "WARPS", "%d", warps);
	page_define(p, "STAGES", "%d", stages);
	page_define(p, "PAGE_TOKENS", "%d", e->page_tokens);
	l->threads = (unsigned)warps * 32;
	l->grid_x = (unsigned)e->gpu->sms;
}

/* Does anything stand between memory and the product, or between it and memory? */
static bool has_feed(const struct emit *e)
{
	const wf_tensor *x = e->kernel->anchor->in[1];

	while (e->plan->value[x->id].kernel == e->kernel->id && x->op->view)
		x = x->in[0];
	return e->plan->value[x->id].kernel == e->kernel->id;
}

/* The library reads rows in the type they are computed in; an output of the graph is kept in f32. */
static bool needs_rows(const struct emit *e)
{
	return has_feed(e) || graph_is_output(e->plan->g, plan_storage(e->plan, e->kernel->anchor->in[1]));
}

static int emit_feed(struct emit *e)
{
	const wf_tensor *anchor = e->kernel->anchor, *x = anchor->in[1];

	if (!needs_rows(e))
		return 0;
	e->work->row_bytes = emit_width(x) * wf_dtypes[x->dtype].bytes;
	return emit_rows(e, "-feed", anchor, x, NULL);
}

static int emit_after(struct emit *e, const char *type)
{
	e->work->product_bytes = emit_width(e->kernel->anchor) * (!strcmp(type, "float") ? 4 : 2);
	return emit_rows(e, "-after", e->kernel->anchor, NULL, type);
}

/* ---- a few rows: gemv.cuh ------------------------------------------------------------------------------ */

struct gemv { int tokens, warps, stages, slots; };

/* About what gemv.cuh will need, a little more; the page asserts that it fits, and says how much it is. */
static int gemv_smem(const wf_tensor *w, bool mma, int tokens, int warps, int stages)
{
	int chunk = wf_dtypes[w->dtype].block == 1 ? 64 : 256, padded = (int)((w->dim[1] + chunk - 1) / chunk) * chunk;

	return warps * stages * stage_bytes(w) + tokens * padded * (mma ? 2 : 4) +
		(tokens > 2 ? 2 : 4) * warps * tokens * 20 * 4 + 2 * warps * tokens * 4 + 128;
}

/* The most tokens a pass can hold, then the most warps, then the most under way up to 128 KB: more delays what is
 * asked for after it (H200, Llama-2-7B at context 1024: 3.58 ms a step, with 160 KB 3.60, with 96 KB 3.62).
 * Half the warps leave room for the rows of a wide product: reading its weights twice costs more. */
static struct gemv choose_gemv(const struct emit *e)
{
	const wf_tensor *w = e->kernel->anchor->in[0];
	int most = e->rows < GEMV_TOKENS ? (int)e->rows : GEMV_TOKENS;

	for (int tokens = most; tokens > 0; tokens = tokens > 1 ? (tokens + 1) / 2 : 0)
		for (int warps = 16; warps >= 4; warps /= 2)
			for (int stages = 64 / warps; stages >= 3; stages--) {
				int smem = gemv_smem(w, uses_mma(e), tokens, warps, stages);
				if (smem <= emit_room(e->gpu, 1))
					return (struct gemv){tokens, warps, stages, 1};
			}
	return (struct gemv){0};
}

/* With all that feeds and follows it, or plain; 1 when its hooks cannot be written. */
static int add_gemv(struct emit *e, const struct gemv *g, bool plain)
{
	struct emit_launch *l = emit_add(e, "gemv");
	struct page p;

	page_open(&p, e->arena, e->plan, e->kernel);
	if (plain)
		emit_plain_hooks(&p, e->kernel, has_feed(e));
	else if (emit_dot_hooks(&p, e->kernel, EMIT_FEED | EMIT_STORE)) {
		e->work->n--;
		return 1;
	}
	define_product(e, &p, l, g->tokens, g->warps, g->stages);
	page_define(&p, "PASSES", "%d", e->rows <= g->tokens);
	page_define(&p, "BEFORE", "%d", g->stages - 1);
	page_define(&p, "SLOTS", "%d", g->slots);
	l->weight = 3 + g->tokens;
	p.tail = page_format(&p, "extern \"C\" __device__ int dynamic_smem = GEMV_SMEM;\n"
		"static_assert(GEMV_SMEM <= %d, \"shared memory\");\n", emit_room(e->gpu, g->slots));
	return emit_finish(e, &p, l, plain ? "-plain" : "", "gemv.cuh");
}

static int emit_gemv(struct emit *e)
{
	struct gemv g = choose_gemv(e);

	if (!g.tokens)
		return emit_refuse(e, "its rows do not fit shared memory");
	int failed = add_gemv(e, &g, false);
	return failed <= 0 ? failed : emit_feed(e) || add_gemv(e, &g, true) || emit_after(e, "float") ? -1 : 0;
}

/* ---- some tens of rows: skinny.cuh ------------------------------------------------------------------------ */

struct skinny { int tokens, groups, warps, stages, xstages; };

static int skinny_smem(const wf_tensor *w, const struct skinny *s)
{
	return s->warps * (s->stages * s->groups * stage_bytes(w) + s->xstages * s->tokens * 128 +
		s->tokens * (16 * s->groups + 4) * 4 + 16 * s->groups * 8);
}

/* As many warps as two chunks each leave room for, each with few rows: a warp that computes asks for nothing.
 * More rows at once only save reading activations again, which are small beside the weights. */
static struct skinny choose_skinny(const struct emit *e)
{
	const wf_tensor *w = e->kernel->anchor->in[0];
	bool dense = wf_dtypes[w->dtype].block == 1;
	struct skinny s = {.tokens = 8};

	while (s.tokens < e->rows)
		s.tokens *= 2;
	int groups = (int)((w->dim[0] + 16 * e->gpu->sms - 1) / (16 * e->gpu->sms)), most = s.tokens == 16 ? 3 : s.tokens > 32 ? 1 : 2;
	for (s.groups = groups < most ? groups : most; s.groups > 0; s.groups--)
		for (s.warps = s.groups > 2 ? 8 : 16; s.warps >= 4; s.warps -= s.warps > 8 ? 4 : 2)
			for (s.stages = 4; s.stages >= 2; s.stages--) {
				s.xstages = dense ? s.stages : 5;
				if (skinny_smem(w, &s) <= emit_room(e->gpu, 1))
					return s;
			}
	return (struct skinny){0};
}

/* Its activations are whole operands in memory, its weights at multiples of 16 bytes or blocks. */
static bool can_skinny(const struct emit *e)
{
	const wf_tensor *w = e->kernel->anchor->in[0], *x = e->kernel->anchor->in[1];
	bool dense = wf_dtypes[w->dtype].block == 1;

	return uses_mma(e) && x->dtype == e->plan->g->act && w->dim[1] % 8 == 0 &&
		(!dense || wf_row_bytes(w->dtype, w->dim[1]) % 16 == 0) &&
		(has_feed(e) || !graph_is_output(e->plan->g, plan_storage(e->plan, x))) && choose_skinny(e).tokens;
}

/* With all that follows it, or plain; 1 when its hooks cannot be written. */
static int add_skinny(struct emit *e, bool plain)
{
	struct emit_launch *l = emit_add(e, "skinny");
	struct skinny s = choose_skinny(e);
	struct page p;

	page_open(&p, e->arena, e->plan, e->kernel);
	if (plain)
		emit_plain_hooks(&p, e->kernel, has_feed(e));
	else if (emit_dot_hooks(&p, e->kernel, EMIT_STORE)) {
		e->work->n--;
		return 1;
	}
	emit_row_hook(&p, e->kernel, has_feed(e));
	define_product(e, &p, l, s.tokens, s.warps, s.stages);
	page_define(&p, "GROUPS", "%d", s.groups);
	page_define(&p, "XSTAGES", "%d", s.xstages);
	l->weight = 5 + s.groups * s.tokens / 8;
	p.tail = page_format(&p, "extern \"C\" __device__ int dynamic_smem = SKINNY_SMEM;\n"
		"static_assert(SKINNY_SMEM <= %d, \"shared memory\");\n", emit_room(e->gpu, 1));
	return emit_finish(e, &p, l, plain ? "-plain" : "", "skinny.cuh");
}

static int emit_skinny(struct emit *e)
{
	if (emit_feed(e))
		return -1;
	int failed = add_skinny(e, false);
	return failed <= 0 ? failed : add_skinny(e, true) || emit_after(e, "float") ? -1 : 0;
}

/* ---- products of many rows: cuBLASLt, our own pages around it ------------------------------------------------ */

/* In memory: outputs leave in f32. */
static wf_dtype kept_type(const struct emit *e, const wf_tensor *t)
{
	return graph_is_output(e->plan->g, plan_storage(e->plan, t)) ? WF_F32 : t->dtype;
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
	if (!sum || e->plan->value[anchor->id].stored)
		return NULL;
	*other = sum->in[sum->in[0] == anchor];
	return *other != anchor && !(*other)->constant && emit_width(*other) == emit_width(anchor) &&
		e->plan->value[(*other)->id].kernel != e->kernel->id && kept_type(e, *other) == kept_type(e, sum) ? sum : NULL;
}

static bool ends_at_anchor(const struct emit *e)
{
	return e->kernel->node[e->kernel->nnode - 1] == e->kernel->anchor;
}

/* What the library writes at once: the product, when nothing follows it, or its sum with a residual, in the type of
 * its operands or in f32; it knows no others.  NULL: the bare product goes to scratch. */
static const wf_tensor *written(const struct emit *e, const wf_tensor **residual)
{
	const wf_tensor *anchor = e->kernel->anchor, *y = ends_at_anchor(e) ? anchor : only_sum(e, residual);

	return y && (kept_type(e, y) == WF_F32 || kept_type(e, y) == anchor->in[1]->dtype) ? y : NULL;
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
	emit_unpack_hooks(&p, w, page_own_type(e->kernel->anchor->in[1]));
	l->threads = ROWS_THREADS;
	l->grid_x = (unsigned)w->dim[0];
	l->weight = 1;
	e->work->unpacked_bytes = w->dim[0] * w->dim[1] * wf_dtypes[e->kernel->anchor->in[1]->dtype].bytes;
	return emit_finish(e, &p, l, "-unpack", "rows.cuh");
}

/* Of a bare product by the library: its operands' unless the product is kept in more. */
static wf_dtype scratch_type(const struct emit *e)
{
	const wf_tensor *anchor = e->kernel->anchor;

	return anchor->dtype == WF_F32 ? WF_F32 : anchor->in[1]->dtype;
}

/* Into y, the product or its sum with the residual; NULL: into scratch. */
static int emit_library(struct emit *e, const wf_tensor *y, const wf_tensor *residual)
{
	const wf_tensor *anchor = e->kernel->anchor, *w = anchor->in[0], *x = anchor->in[1];
	struct emit_launch *l = emit_add(e, "cublasLt");
	struct page p;

	page_open(&p, e->arena, e->plan, e->kernel);
	take_arg(&p, w->dtype == x->dtype ? PAGE_CONSTANT : PAGE_UNPACKED, w, "w");
	if (needs_rows(e))
		take_arg(&p, PAGE_ROWS, NULL, "x");
	else
		take_arg(&p, PAGE_VALUE, behind_views(e, x), "x");
	take_arg(&p, y ? PAGE_VALUE : PAGE_PRODUCT, y, "y");
	if (y && y != anchor)
		take_arg(&p, PAGE_VALUE, residual, "c");
	l->M = w->dim[0];
	l->K = w->dim[1];
	l->in = x->dtype;
	l->out = y ? kept_type(e, y) : scratch_type(e);
	l->name = "cublasLt";
	l->narg = p.narg;
	memcpy(l->arg, p.arg, sizeof p.arg[0] * (size_t)p.narg);
	return 0;
}

static int emit_many(struct emit *e)
{
	const wf_tensor *anchor = e->kernel->anchor, *w = anchor->in[0], *x = anchor->in[1], *residual = NULL;
	const wf_tensor *y = written(e, &residual);

	if (emit_feed(e) || (w->dtype != x->dtype && emit_unpack(e)) || emit_library(e, y, residual))
		return -1;
	return y ? 0 : emit_after(e, scratch_type(e) == WF_F32 ? "float" : page_own_type(x));
}

/* What feeds a product takes a kernel of its own otherwise.  Up to 8 rows that are read in one pass are better off here. */
static bool saves_kernels(const struct emit *e)
{
	struct gemv g = choose_gemv(e);

	return e->rows <= GEMV_TOKENS && uses_mma(e) && has_feed(e) && g.tokens >= e->rows && g.warps * g.stages >= 48;
}

/* Some tens of rows, where that is the faster way (H200, Llama-2-7B in f16 at context 1024): 8 sequences 4.89 ms a step,
 * where the library takes the products that nothing feeds 5.37; 16 sequences 6.28, by the library 7.1; 32 sequences 9.8
 * and 9.4.  A kernel of warpgroups' products (weights and activations through one ring, each read once by a block) was
 * no better at 8 and 16, and at 32 by 1 %.  Weights the library does not read would have to be unpacked for it in every
 * step. */
static bool takes_skinny(const struct emit *e, bool dense)
{
	return can_skinny(e) && e->rows <= (dense ? SKINNY_DENSE : SKINNY_MOST);
}

/* Without matrix units, weights that the library does not read are read in several passes. */
int emit_dot(struct emit *e)
{
	const wf_tensor *anchor = e->kernel->anchor;
	bool dense = anchor->in[0]->dtype == anchor->in[1]->dtype;

	if (anchor->ndim != 2)
		return emit_refuse(e, "products of rows in more than one dimension");
	if (e->rows <= GEMV_MOST || (dense && saves_kernels(e)))
		return emit_gemv(e);
	if (takes_skinny(e, dense))
		return emit_skinny(e);
	return dense || e->rows > SKINNY_MOST ? emit_many(e) : emit_gemv(e);
}
