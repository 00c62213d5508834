/* cpu.h - the CPU backend: weights in panels, kernels chosen by CPUID, a thread team.
 *
 * A matrix is stored as panels of 16 rows, so that one vector holds one column position of all 16
 * and a product needs no horizontal sum.  Kernels are written once in simd/ and compiled for each
 * instruction set; a table of them is picked at run time. */
#ifndef WF_CPU_H
#define WF_CPU_H

#include "backends/backend.h"

/* ---- panel.c, pack.c: weights as the kernels read them --------------------------------------- */

enum { PANEL = 16 };

/* How the scales of a quantised panel are kept; see panel.c for the layout. */
enum cpu_scale {
	SCALE_NONE,          /* floats */
	SCALE_F16,           /* one f16 per block */
	SCALE_F16_MIN,       /* f16 scale and f16 minimum per block */
	SCALE_SUPER,         /* f16 per 256 values, times a signed byte per block */
	SCALE_SUPER_MIN      /* f16 scale and minimum per 256, times an unsigned byte each per block */
};

/* Quantised types: bits of a quant, values per scale, how scales are kept, the quant that stands
 * for 0, whether quants index the non-linear 4-bit table.  value = scale * (quant - zero) - min. */
#define CPU_QUANTS(F) \
	F(Q4_0,   4, 32, SCALE_F16,         8, false) \
	F(Q4_1,   4, 32, SCALE_F16_MIN,     0, false) \
	F(Q5_0,   5, 32, SCALE_F16,        16, false) \
	F(Q5_1,   5, 32, SCALE_F16_MIN,     0, false) \
	F(Q8_0,   8, 32, SCALE_F16,       128, false) \
	F(Q2_K,   2, 16, SCALE_SUPER_MIN,   0, false) \
	F(Q3_K,   3, 16, SCALE_SUPER,       4, false) \
	F(Q4_K,   4, 32, SCALE_SUPER_MIN,   0, false) \
	F(Q5_K,   5, 32, SCALE_SUPER_MIN,   0, false) \
	F(Q6_K,   6, 16, SCALE_SUPER,      32, false) \
	F(IQ4_NL, 4, 32, SCALE_F16,       128, true) \
	F(IQ4_XS, 4, 32, SCALE_SUPER,     128, true)

struct cpu_format {
	int bits, block;
	enum cpu_scale scale;
	int zero;
	bool lut;
};

extern const struct cpu_format cpu_formats[WF_NDTYPE];   /* bits 0: no quantised type */

struct cpu_mat {
	wf_dtype type;
	int64_t rows, cols;
	int64_t npanel;                   /* rows / 16, rounded up; the rest is zero */
	size_t scale_bytes, panel_bytes;  /* of one panel: its scales come first */
	size_t bytes;                     /* npanel * panel_bytes */
	uint8_t *data;                    /* 64-byte aligned, bytes of them, the caller's */
};

/* Everything but data.  -1 when cols is no multiple of the type's block or the size overflows. */
int  cpu_mat_init(struct cpu_mat *, wf_dtype, int64_t rows, int64_t cols, wf_error *);
/* Panel p from 16 source rows in the file's layout; NULL rows become zero. */
void cpu_mat_pack(const struct cpu_mat *, int64_t p, const void *const row[PANEL]);

/* ---- kernels ----------------------------------------------------------------------------------- */

/* What a product reads its activations as. */
enum cpu_act { ACT_F32, ACT_BF16, ACT_I8, ACT_I16 };

/* 32 activations as integers.  Sums let an offset of the weights be applied after the product.
 * ACT_I8: value = scale * q[i], q up to 127.  ACT_I16: value = scale * (128 * q[i] + q[32 + i]), both
 * up to 64 in magnitude: two byte products with the same weights, to 2^-14 of the block's largest. */
struct cpu_xq {
	float scale;
	float sum, half[2];               /* of all values; of the first and last 16 */
	int8_t q[];                       /* [32] or [64] */
};

enum { X8_BYTES = 16 + 32, X16_BYTES = 16 + 64 };

struct cpu_dot {
	const struct cpu_mat *w;
	int64_t panel, npanel;            /* output rows 16 * panel ... */
	enum cpu_act act;
	const void *x;                    /* rows of w->cols activations as quantize() leaves them */
	size_t xstride;                   /* bytes between them */
	const int32_t *xrow;              /* [ntoken] which rows of x; NULL: the first ntoken */
	int ntoken;
	float *out;                       /* out[t * stride + row - 16 * panel] */
	size_t stride;                    /* >= 16 * npanel */
};

/* One layer's attention for the tokens of one sequence.  Key j of the sequence is token
 * j % page_tokens of page[j / page_tokens]. */
struct cpu_attend {
	const float *q;                   /* [token][nhead][kdim], qstride floats between tokens */
	float *out;                       /* [token][nhead][vdim], ostride floats between tokens */
	size_t qstride, ostride;
	const int32_t *pos;               /* [token] position; a token sees keys 0 ... pos */
	const uint8_t *k, *v;             /* this layer's keys, values in page 0: [nkv][page_tokens][dim] */
	size_t page_bytes;                /* from one page to the next */
	const int32_t *page;              /* page numbers; -1: given back, outside the window */
	int page_tokens;
	wf_dtype dtype;                   /* of keys and values: f32, f16, bf16 */
	int nhead, nkv, kdim, vdim;
	float scale;
	float softcap;                    /* 0 none: cap * tanh(score / cap) */
	int window;                       /* 0 none: a token sees its last `window` keys */
	const float *slope;               /* ALiBi [nhead] or NULL */
	const float *sink;                /* a logit without a value, [nhead] or NULL */
};

/* Query rows (token, head of the group) row0 ... row0 + nrow of key head `head`: row r is token
 * r / group, head head * group + r % group, where group = nhead / nkv. */
struct cpu_attend_part {
	int head, row, nrow;              /* nrow <= ATTEND_ROWS */
	int key, nkey;                    /* keys key ... key + nkey alone; nkey 0: all */
	float *state;                     /* NULL: result to out.  Else [nrow][vdim + 2]: max, sum,
	                                   * unscaled values, for attend_merge() */
	void *scratch;                    /* cpu_attend_scratch() bytes, 64-byte aligned */
};

enum { ATTEND_ROWS = 32 };

size_t cpu_attend_scratch(int kdim, int vdim);

struct cpu_kernels {
	const char *name;                 /* avx512, avx2, plain */
	bool bf16_dot;                    /* has a product of bf16 pairs faster than f32 */
	void (*dot)(const struct cpu_dot *);
	/* n values as `act`; the last block of 32 integers is filled with zeros */
	void (*quantize)(enum cpu_act, void *out, const float *x, int64_t n);
	void (*attend)(const struct cpu_attend *, const struct cpu_attend_part *);
	/* join nstate results of the same rows over different keys, `each` floats apart */
	void (*attend_merge)(const struct cpu_attend *, const struct cpu_attend_part *, int nstate, size_t each);
	void (*rmsnorm)(float *out, const float *x, const float *w, int64_t n, float eps); /* w may be NULL */
	void (*layernorm)(float *out, const float *x, const float *w, const float *b, int64_t n, float eps);
	void (*softmax)(float *x, int64_t n);
	void (*silu)(float *out, const float *x, int64_t n);
	void (*gelu)(float *out, const float *x, int64_t n);       /* tanh form */
	void (*silu_mul)(float *out, const float *gate, const float *up, int64_t n);
	void (*gelu_mul)(float *out, const float *gate, const float *up, int64_t n);
	/* pairs (x[i], x[i + half]), or (x[2i], x[2i + 1]), turned by the angles of these cos and sin; the
	 * rest of n values as they are */
	void (*rope)(float *out, const float *x, const float *c, const float *s, int64_t half, int64_t n, bool pairs);
	void (*store)(wf_dtype, void *out, const float *x, int64_t n);   /* f32, f16, bf16 */
	void (*load)(wf_dtype, float *out, const void *x, int64_t n);
};

/* The best set this machine runs, or the named one; NULL when it has not got that. */
const struct cpu_kernels *cpu_kernels_pick(const char *name);
/* What products with this weight type read activations as when the caller asks for `compute`: f32 as
 * they are, q8_0 bytes, WF_NDTYPE the fastest that does not show in the result. */
enum cpu_act cpu_act_for(const struct cpu_kernels *, wf_dtype weight, wf_dtype compute);
size_t cpu_act_bytes(enum cpu_act, int64_t n);    /* of a row of n, a multiple of 64 */

/* ---- team.c: persistent threads ---------------------------------------------------------------- */

struct team;

struct team *team_new(int nthread, wf_error *);   /* the caller is one of them; 0: all this process may use */
void team_free(struct team *);
int  team_size(const struct team *);
/* fn(arg, id) on every thread, id 0 on the caller's; returns when all are done. */
void team_run(struct team *, void (*fn)(void *arg, int id), void *arg);
void team_barrier(struct team *, int id);         /* inside team_run: wait for all */
/* Inside team_run: the next of n chunks, or n when none is left.  The counter starts again at
 * every barrier, and every thread must have asked until it got n. */
int64_t team_next(struct team *, int64_t n);

/* ---- device.c: this machine, for forecasts: measured ---------------------------------------------- */

int cpu_device(const wf_backend *, struct wf_device *);

/* ---- program.c: a kernel's nodes as a list of actions over one row --------------------------------
 *
 * A row is what a node holds for one token (or wanted row): its dimensions after the first, flattened.
 * Actions run on a range of a row, so that a product's epilogue runs on the tile just computed. */

enum cpu_action_kind {
	DO_MAP, DO_GATE, DO_ROW, DO_ROPE, DO_TAKE, DO_JOIN, DO_HEAD_COLS, DO_ROUTE, DO_VIEW, DO_COLS, DO_LANE, DO_KEYS, DO_VALUES,
	DO_NOTHING
};

struct cpu_operand {
	int from;                         /* >= 0: that action's result; -1: the tile; else below */
	const void *base;                 /* first value of a constant, of a stored value or of an input */
	int64_t row;                      /* values of a row; 0: the same for every token */
	int64_t length;                   /* values in all, of a constant */
};
enum { FROM_TILE = -1, FROM_MEMORY = -2 };

struct cpu_action {
	enum cpu_action_kind kind;
	const wf_tensor *node;
	int nin;
	struct cpu_operand in[WF_MAXIN];
	int lead;                         /* whose range it runs on, as cpu_operand.from; FROM_MEMORY: the row */
	int64_t len;                      /* of its row */
	int64_t sub;                      /* DO_ROW, DO_ROPE, DO_KEYS, DO_VALUES: values of a head */
	int64_t shift;                    /* its column 0 is the tile's column `shift` (lanes: their pair's 0) */
	float *stored;                    /* first value where the result is kept; NULL: a slot */
	int64_t slot;                     /* floats into the thread's slots */
	void (*unary)(float *out, const float *x, int64_t n);                        /* DO_MAP: instead of span */
	void (*gate)(float *out, const float *gate, const float *up, int64_t n);     /* DO_GATE */
	struct cpu_rope *rope;            /* DO_ROPE */
	struct cpu_cache *cache;          /* DO_KEYS, DO_VALUES */
};

struct cpu_program {
	struct cpu_action *action;
	int n;
	int64_t slots;                    /* floats a thread needs */
	int64_t unit;                     /* ranges must start and end at multiples of this; 0: whole rows only */
	int64_t piece;                    /* lanes: the program runs on this many columns at a time */
};

/* cos and sin of every token's angles, made once a step for all layers. */
struct cpu_rope { const wf_tensor *freqs, *pos; const float *freq; int64_t half; float scale; float *table; struct cpu_rope *next; };

/* Which rows each expert of a product gets, made anew each step. */
struct cpu_routed {
	const int32_t *ids;               /* [token][k] */
	int64_t nexpert, k, pad;          /* rows of an expert's weights, rounded up to panels */
	bool each;                        /* a row of activations for every choice, not for every token */
	int32_t *first;                   /* [nexpert + 1] */
	int32_t *choice, *xrow;           /* [token * k] by expert: its number, and its row of activations */
};

/* A layer's place in the KV pages. */
struct cpu_cache { const wf_tensor *node; int cls, nkv, kdim, vdim; wf_dtype dtype; uint8_t *k, *v; size_t page_bytes; };

struct cpu_block { void *data; size_t bytes, used; struct cpu_block *next; };   /* freed at close */
struct cpu_packed { const wf_tensor *t; struct cpu_mat *m; struct cpu_packed *next; };

struct cpu_kernel {
	wf_kernel *plan;
	int dim;                          /* 0 T, 2 R: which bound counts its rows */
	struct cpu_program before, after; /* of a product's operand; of its result, or the whole kernel */
	struct cpu_mat *w;                /* DOT */
	enum cpu_act act;
	int64_t K, N;
	struct cpu_routed *routed;        /* a product over chosen experts; NULL: all rows by all weights */
	struct cpu_attend attend;         /* ATTEND, but for what a sequence gives */
	struct cpu_cache *cache;
	const float *q;
	float *out;
};

struct cpu_exec {
	wf_exec base;                     /* first: wf_exec * is struct cpu_exec * */
	const struct cpu_kernels *k;
	struct team *team;
	wf_arena *arena;
	const wf_batch *batch;
	int page_tokens, nclass;
	struct cpu_kernel *kernel;
	struct cpu_rope *rope;
	struct cpu_cache *cache;
	int ncache;
	uint8_t **kv;                     /* [nclass] base of the pages */
	size_t *page_bytes;               /* [nclass] */
	struct cpu_block *block;
	struct cpu_packed *packed;
	float *activations;               /* the plan's arena */
	int32_t *input[3];                /* tokens, positions, rows */
	uint8_t *x;                       /* activations as the products read them */
	size_t xbytes;                    /* of a row */
	int64_t choices;                  /* rows of activations per token, at most */
	float *slots, *tile;              /* per thread */
	int64_t slot_floats, tile_floats;
	float *state;                     /* split attention: max_states of [ATTEND_ROWS][vdim + 2] */
	int64_t state_floats, max_states;
	void *scratch;                    /* per thread, for attention */
	size_t scratch_bytes;
	double *seconds;                  /* per kernel when profiling */
	wf_dtype compute;
};

int  program_compile(struct cpu_exec *, struct cpu_program *, const wf_kernel *, int first, int last);
/* Run the program for token t on columns lo..hi of the anchor, whose tile row starts at column lo;
 * tile NULL: whole rows.  The last action's result, or NULL when it lies outside the range. */
const float *program_run(struct cpu_exec *, const struct cpu_program *, int id, int t, const float *tile, int64_t lo, int64_t hi);
void dot_run(struct cpu_exec *, struct cpu_kernel *, int id);          /* dot.c */
void attend_run(struct cpu_exec *, struct cpu_kernel *, int id);       /* attention.c */
void experts_run(struct cpu_exec *, struct cpu_kernel *, int id);      /* experts.c */
int  experts_open(struct cpu_exec *, struct cpu_kernel *);
uint8_t *dot_prepare(struct cpu_exec *, const struct cpu_kernel *, int id, int rows);  /* activations as k->act reads them */
/* Rows in groups of `group`, each padded to whole panels; group 0: one group. */
struct cpu_mat *weights_pack(struct cpu_exec *, wf_tensor *w, int64_t group);   /* weights.c: NULL after wf_fail */
float *exec_place(const struct cpu_exec *, const wf_tensor *);         /* where a stored value lies */
const wf_tensor *exec_behind_views(const struct cpu_exec *, const wf_tensor *);
const void *weights_raw(struct cpu_exec *, wf_tensor *w);              /* in its own type, dense */
const float *weights_f32(struct cpu_exec *, wf_tensor *w);

#endif
