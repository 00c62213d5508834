/* emit_attend.c - attention to launches: sequences of one new token, and of many.
 *
 * A step of single tokens is one kernel, attend_decode.  Any other is two that share the sequences
 * between them: attend_prefill, or attend_wgmma, takes those of many new tokens, attend_decode, where there are any,
 * those of one. */
#include "backends/cuda/cuda.h"

#include <math.h>
#include <string.h>

static double attribute(const wf_tensor *t, const char *name)
{
	return t->attr[wf_attr_index(t->op, name)];
}

struct sizes { int64_t kdim, vdim, bytes, group, krow, vrow; };

/* Rows of an odd number of 16-byte columns meet different banks. */
static int64_t row_bytes(int64_t dim, int64_t bytes)
{
	return ((dim + 15) / 16 * bytes | 1) * 16;
}

static struct sizes sizes_of(const wf_tensor *t)
{
	const wf_tensor *kv = t->in[1];
	struct sizes s = {.kdim = wf_last(kv->in[0]), .vdim = wf_last(kv->in[1]), .bytes = wf_dtypes[kv->dtype].bytes,
		.group = t->in[0]->dim[1] / kv->dim[1]};

	s.krow = row_bytes(s.kdim, s.bytes);
	s.vrow = row_bytes(s.vdim, s.bytes);
	return s;
}

static bool has_mma(const struct emit *e)
{
	return emit_is_16bit(e->kernel->anchor->in[1]->dtype) && emit_is_16bit(e->plan->g->act);
}

static void define_attend(struct emit *e, struct page *p)
{
	const wf_tensor *t = e->kernel->anchor, *q = t->in[0], *kv = t->in[1];
	double scale = attribute(t, "scale"), heads = attribute(t, "nhead");

	page_define(p, "HEADS", "%lld", (long long)q->dim[1]);
	page_define(p, "KVHEADS", "%lld", (long long)kv->dim[1]);
	page_define(p, "KDIM", "%lld", (long long)wf_last(kv->in[0]));
	page_define(p, "VDIM", "%lld", (long long)wf_last(kv->in[1]));
	page_define(p, "PAGE", "%d", e->page_tokens);
	page_define(p, "KV_CLASS", "%d", page_class(e->plan, kv));
	page_define(p, "KVTYPE", "%s", page_type(p, kv));
	page_define(p, "XTYPE", "%s", page_type(p, q));
	page_define(p, "QSTRIDE", "%lld", (long long)emit_width(q));
	page_define(p, "SCALE", "%s", page_number(p, scale > 0 ? scale : 1 / sqrt((double)wf_last(q))));
	page_define(p, "WINDOW", "%d", (int)attribute(t, "window"));
	page_define(p, "SOFTCAP", "%s", page_number(p, attribute(t, "softcap")));
	page_define(p, "ALIBI", "%s", page_number(p, attribute(t, "alibi")));
	page_define(p, "NHEAD", "%d", (int)(heads > 0 ? heads : (double)q->dim[1]));
	page_define(p, "HEAD0", "%d", (int)attribute(t, "head0"));
	page_define(p, "SINKS", "%d", t->nin > 3);
	page_define(p, "MMA", "%d", has_mma(e));
	page_define(p, "MIXED", "%d", !e->single);
	page_define(p, "ARGS", "1");
	page_pointer(p, PAGE_TABLE, NULL, "const struct table *", "table");
	page_pointer(p, PAGE_VALUE, q, "const XTYPE *", "q");
	page_pointer(p, PAGE_VALUE, t, "XTYPE *", "y");
	page_pointer(p, PAGE_KV, kv, "wide", "layer");
	if (t->nin > 3)
		page_pointer(p, PAGE_CONSTANT, t->in[3], page_format(p, "const %s *", page_type(p, t->in[3])), "sinks");
}

static const char *blocker(const struct emit *e)
{
	const wf_tensor *t = e->kernel->anchor, *kv = t->in[1];
	int64_t kdim = wf_last(kv->in[0]), vdim = wf_last(kv->in[1]);

	if (e->kernel->nnode > 1)
		return "it is joined with other ops";
	if (kdim % 8 || vdim % 8 || kdim > 256 || vdim > 256)
		return "heads must be multiples of 8 up to 256";
	if (e->page_tokens % 16)
		return "pages must be multiples of 16 tokens";
	if (t->in[0]->dtype != t->dtype || graph_is_output(e->plan->g, t))
		return "queries and results of different types";
	return NULL;
}

/* ---- one new token a sequence --------------------------------------------------------------------------- */

enum { DECODE_WARPS = 8, DECODE_STAGES = 4, DECODE_RING = 144 << 10 };

struct decode { int warps, stages, smem, work_floats, units; };

static struct decode count_decode(const wf_tensor *t, int warps, int stages)
{
	struct sizes s = sizes_of(t);
	int group = (int)s.group, tiles = group > 8 ? 2 : 1;
	int splits = (group + tiles * 8 - 1) / (tiles * 8), heads = group < tiles * 8 ? group : tiles * 8;
	int64_t parts = warps * stages * 16 * (s.krow + s.vrow), word = parts + warps * heads * (s.vdim + 2) * 4;

	return (struct decode){.warps = warps, .stages = stages, .smem = (int)word + 16,
		.work_floats = (int)(2 * heads * (s.vdim + 2)), .units = (int)t->in[1]->dim[1] * splits};
}

/* What is under way at once hides the way to memory: up to DECODE_RING bytes, two runs of each warp at least. */
static struct decode choose_decode(const struct emit *e)
{
	int room = emit_room(e->gpu, 1), ring = room < DECODE_RING ? room : DECODE_RING;

	for (int warps = DECODE_WARPS; warps > 0; warps--)
		for (int stages = DECODE_STAGES; stages > 1; stages--) {
			struct decode d = count_decode(e->kernel->anchor, warps, stages);
			if (d.smem <= (stages > 2 ? ring : room))
				return d;
		}
	return (struct decode){0};
}

/* A block has its multiprocessor to itself: two would meet on one that the kernel before left early, another would
 * have none (H200, Llama-2-7B in f16, 32 sequences at context 1024: 3722 tokens/s against 3328). */
static int emit_decode(struct emit *e)
{
	struct emit_launch *l = emit_add(e, "attend_decode");
	struct decode d = choose_decode(e);
	struct page p;

	if (!d.warps)
		return emit_refuse(e, "its keys do not fit shared memory");
	page_open(&p, e->arena, e->plan, e->kernel);
	define_attend(e, &p);
	page_pointer(&p, PAGE_PARTS, NULL, "float *", "work");
	page_pointer(&p, PAGE_COUNTERS, NULL, "unsigned *", "counter");
	page_define(&p, "WARPS", "%d", d.warps);
	page_define(&p, "STAGES", "%d", d.stages);
	p.tail = page_format(&p, "extern \"C\" __device__ int dynamic_smem = at_least(DECODE_SMEM, %d);\nstatic_assert(DECODE_SMEM <= %d && "
		"WORK_FLOATS == %d && HEAD_UNITS == %d, \"the host's count\");\n", emit_room(e->gpu, 2) + 1, emit_room(e->gpu, 1),
		d.work_floats, d.units);
	l->threads = (unsigned)d.warps * 32;
	l->grid_x = (unsigned)e->gpu->sms;
	l->singles = true;
	l->weight = 6;
	e->work->part_bytes = (int64_t)e->gpu->sms * d.work_floats * 4;
	e->work->counters = e->plan->opt.max_seqs * d.units;
	return emit_finish(e, &p, l, e->single ? "" : "-mixed", "attend_decode.cuh");
}

/* ---- many ------------------------------------------------------------------------------------------------------ */

struct prefill { int warps, tiles, stages, slots, rows; };

static struct prefill choose_prefill(const struct emit *e)
{
	/* Two tiles' results do not fit the registers of heads over 128. */
	static const struct prefill wide[] = {{4, 2, 2, 2, 0}, {4, 2, 1, 2, 0}, {8, 1, 2, 1, 0}, {8, 1, 1, 1, 0},
		{4, 1, 1, 1, 0}, {2, 1, 1, 1, 0}, {1, 1, 1, 1, 0}, {0}};
	struct sizes s = sizes_of(e->kernel->anchor);
	bool mma = has_mma(e);
	const struct prefill *c = wide + (mma && s.vdim <= 128 ? 0 : 2);

	for (; c->warps; c++) {
		int64_t rows = c->warps * (mma ? c->tiles * 16 : 4), keys = mma ? 64 : 32;
		int64_t smem = rows * row_bytes(s.kdim, mma ? 2 : 4) + c->stages * keys * (s.krow + s.vrow) + 64;
		if (smem <= emit_room(e->gpu, c->slots))
			return (struct prefill){c->warps, c->tiles, c->stages, c->slots, (int)rows};
	}
	return *c;
}

/* Hopper's products of four warps; whatever they take fits its shared memory. */
static bool has_wgmma(const struct emit *e)
{
	struct sizes s = sizes_of(e->kernel->anchor);

	return has_mma(e) && !strcmp(e->gpu->arch, "sm_90a") && s.kdim % 16 == 0 && s.vdim % 64 == 0;
}

enum { WGMMA_WARPS = 8, WGMMA_ROWS = 16 * WGMMA_WARPS, WGMMA_STAGES = 4 };

struct wgmma { int keys, stages, queries; };

/* Two tiles of queries where they fit, and as many of keys and values as do. */
static struct wgmma choose_wgmma(const struct emit *e)
{
	struct sizes s = sizes_of(e->kernel->anchor);
	struct wgmma c = {.keys = s.kdim > 192 || s.vdim > 128 ? 64 : 128};
	int64_t row = (s.kdim + 63) / 64 * 128, tiles = c.keys * (row + s.vdim * 2), room = emit_room(e->gpu, 1) - 1536;

	c.queries = 2 * (WGMMA_ROWS * row + tiles) <= room ? 2 : 1;
	c.stages = (int)((room - c.queries * WGMMA_ROWS * row) / tiles);
	c.stages = c.stages > WGMMA_STAGES ? WGMMA_STAGES : c.stages;
	return c;
}

static int emit_wgmma(struct emit *e)
{
	struct wgmma c = choose_wgmma(e);
	struct emit_launch *l = emit_add(e, "attend_wgmma");
	struct page p;

	page_open(&p, e->arena, e->plan, e->kernel);
	define_attend(e, &p);
	page_pointer(&p, PAGE_COUNTERS, NULL, "unsigned *", "counter");
	page_define(&p, "WARPS", "%d", WGMMA_WARPS);
	page_define(&p, "KEYS", "%d", c.keys);
	page_define(&p, "STAGES", "%d", c.stages);
	page_define(&p, "QUERIES", "%d", c.queries);
	p.tail = page_format(&p, "extern \"C\" __device__ int dynamic_smem = PREFILL_SMEM;\nstatic_assert(PREFILL_SMEM <= %d, "
		"\"the host's count\");\n", emit_room(e->gpu, 1));
	l->threads = (WGMMA_WARPS + 4) * 32;
	l->grid_x = (unsigned)e->gpu->sms;
	l->weight = 12;
	e->work->counters = 1;
	return emit_finish(e, &p, l, "", "attend_wgmma.cuh");
}

static int emit_prefill(struct emit *e)
{
	struct prefill c = choose_prefill(e);
	struct emit_launch *l = emit_add(e, "attend_prefill");
	struct page p;

	if (!c.warps)
		return emit_refuse(e, "its keys do not fit shared memory");
	page_open(&p, e->arena, e->plan, e->kernel);
	define_attend(e, &p);
	page_define(&p, "WARPS", "%d", c.warps);
	page_define(&p, "TILES", "%d", c.tiles);
	page_define(&p, "STAGES", "%d", c.stages);
	page_define(&p, "SLOTS", "%d", c.slots);
	p.tail = page_format(&p, "extern \"C\" __device__ int dynamic_smem = PREFILL_SMEM;\nstatic_assert(PREFILL_SMEM <= %d && "
		"QUERY_ROWS == %d, \"the host's count\");\n", emit_room(e->gpu, c.slots), c.rows);
	l->threads = (unsigned)c.warps * 32;
	l->tile = (unsigned)c.rows;
	l->each = (unsigned)sizes_of(e->kernel->anchor).group;
	l->grid_y = (unsigned)e->kernel->anchor->in[1]->dim[1];
	l->weight = 12;
	return emit_finish(e, &p, l, "", "attend_prefill.cuh");
}

int emit_attend(struct emit *e)
{
	const char *why = blocker(e);

	if (why)
		return emit_refuse(e, why);
	if (!e->single && (has_wgmma(e) ? emit_wgmma(e) : emit_prefill(e)))
		return -1;
	return emit_decode(e);
}
