/* graph.h - the compiler: graph, passes, plan, KV slab, executor.  Device-free.
 *
 * A builder makes nodes; plan_build() runs the passes over them; a backend executes the plan.
 * Nodes are pure, hash-consed and live in the graph's arena.  Errors are sticky: after the first,
 * every builder call returns a dummy node and changes nothing, so a model definition checks nothing.
 *
 * This folder names no op and no device: the op table, the rewrite rules and the backend are
 * arguments.  Names with wf_ are public; the rest is for the other folders of the project. */
#ifndef WF_GRAPH_H
#define WF_GRAPH_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined __GNUC__
#define WF_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define WF_PRINTF(fmt, args)
#endif

typedef struct wf_error wf_error;
typedef struct wf_arena wf_arena;
typedef struct wf_graph wf_graph;
typedef struct wf_tensor wf_tensor;
typedef struct wf_op wf_op;
typedef struct wf_plan wf_plan;
typedef struct wf_kernel wf_kernel;
typedef struct wf_backend wf_backend;
typedef struct wf_exec wf_exec;
typedef struct wf_slab wf_slab;
typedef struct wf_batch wf_batch;
typedef struct wf_weights wf_weights;
struct wf_kvclass;

/* ---- error.c: the first message, kept ---------------------------------------------------- */

struct wf_error {
	bool set;
	char text[1024];     /* what was expected, what was found, and where */
};

int  wf_fail(wf_error *, const char *fmt, ...) WF_PRINTF(2, 3);  /* keeps the first message; returns -1 */
void wf_die(const char *fmt, ...) WF_PRINTF(1, 2) __attribute__((noreturn)); /* our own bug: print and abort */

/* ---- near.c: the name that was meant ------------------------------------------------------ */

struct near { const char *typed, *name; int distance; };   /* name: the nearest offered, NULL when none is near */

int  near_distance(const char *, const char *);     /* letters to change, of the first 63, case aside */
void near_offer(struct near *, const char *name);

/* ---- number.c: numbers as text, whatever the locale ---------------------------------------- */

enum { NUMBER_TEXT = 40 };

double number_read(const char *, char **end);       /* strtod() */
void number_write(char s[NUMBER_TEXT], int digits, double v);   /* %.*g, at most 17 digits */

/* ---- arena.c: memory that is freed together ----------------------------------------------- */

wf_arena *wf_arena_new(void);                       /* NULL when out of memory */
void      wf_arena_free(wf_arena *);
void      wf_arena_reset(wf_arena *);               /* keeps the first block */
void     *wf_alloc(wf_arena *, size_t bytes);       /* zeroed, 64-byte aligned; NULL when out of memory */
void     *wf_alloc_n(wf_arena *, size_t n, size_t bytes);  /* n * bytes, overflow checked */
char     *wf_strdup(wf_arena *, const char *);
char     *wf_format(wf_arena *, const char *fmt, ...) WF_PRINTF(2, 3);
size_t    wf_arena_bytes(const wf_arena *);         /* given out so far */

/* ---- dtype.c, quant.c: one row per type ---------------------------------------------------- */

typedef enum {
	WF_F32, WF_F16, WF_BF16, WF_I32,
	WF_Q4_0, WF_Q4_1, WF_Q5_0, WF_Q5_1, WF_Q8_0,
	WF_Q2_K, WF_Q3_K, WF_Q4_K, WF_Q5_K, WF_Q6_K, WF_IQ4_NL, WF_IQ4_XS,
	WF_NDTYPE
} wf_dtype;

struct wf_dtype_info {
	const char *name;    /* in the text form: f32, q4_k */
	int block, bytes;    /* values in a block, bytes of a block */
	int gguf;            /* the type's number in GGUF, -1 none */
	const char *hf;      /* its name in safetensors, NULL none */
	void (*decode)(float *out, const void *in, int64_t n);  /* n a multiple of block; exact */
};

extern const struct wf_dtype_info wf_dtypes[WF_NDTYPE];

typedef void quant_decode(float *out, const void *in, int64_t n);
quant_decode quant_q4_0, quant_q4_1, quant_q5_0, quant_q5_1, quant_q8_0, quant_q2_k, quant_q3_k,
	quant_q4_k, quant_q5_k, quant_q6_k, quant_iq4_nl, quant_iq4_xs;

int      wf_dtype_find(const char *name);           /* -1 when unknown */
int      wf_dtype_from_gguf(uint32_t type);         /* -1 when unknown */
size_t   wf_row_bytes(wf_dtype, int64_t n);         /* bytes of a row of n values; n a multiple of block */
float    wf_f16_to_f32(uint16_t);
uint16_t wf_f32_to_f16(float);                      /* round to nearest even */
float    wf_bf16_to_f32(uint16_t);
uint16_t wf_f32_to_bf16(float);                     /* round to nearest even, NaN stays NaN */
void     wf_decode(wf_dtype, float *out, const void *in, int64_t n);
void     wf_encode(wf_dtype, void *out, const float *in, int64_t n);  /* f32, f16, bf16, i32 */

/* ---- ops ----------------------------------------------------------------------------------- */

/* The loop nest an op belongs to.  The planner knows kinds, not ops. */
typedef enum {
	WF_LEAF,             /* input, weight, constant, and what is computed from weights alone */
	WF_MAP,              /* out[i] = f(a[i], b[i], ...), operands of lower rank repeat over the leading dims */
	WF_ROW,              /* one row (last dimension) of in[0] to one row of the same length */
	WF_DOT,              /* matrix product with a weight */
	WF_ATTEND,           /* softmax(q k^T) v over the sequence's cached keys and values */
	WF_MOVE,             /* values change place, none is computed */
	WF_ROUTE,            /* choice of experts */
	WF_COMM,             /* collective between ranks */
	WF_NKIND
} wf_kind;

extern const char *const wf_kind_names[WF_NKIND];

enum { WF_MAXDIM = 4, WF_MAXIN = 8, WF_MAXATTR = 10 };

/* Symbolic dimensions: a plan is made for upper bounds, a step runs with any value up to them. */
enum {
	WF_T = -1,           /* tokens in this step */
	WF_S = -2,           /* sequences in this step */
	WF_R = -3            /* rows whose logits are wanted */
};

#define WF_SHAPE(...) \
	(int)(sizeof (int64_t[]){__VA_ARGS__} / sizeof(int64_t)), (const int64_t[]){__VA_ARGS__}

/* What the fast loop of a MAP or ROW op is given.  A MAP reads in[k][0..n); a ROW reads one row at
 * in[0] and its other operands whole (a weight of n values, positions, frequencies). */
struct wf_span {
	float *out;                       /* [n] */
	const float *in[WF_MAXIN];        /* i32 operands are cast by the op; absent ones are NULL */
	int64_t length[WF_MAXIN];         /* ROW: values of each operand past the first */
	const double *attr;
	int64_t n;                        /* values in this span or row */
	int64_t row;                      /* ROW: which row of the whole tensor */
	int64_t token;                    /* ROW: row / (rows per token) */
};

struct wf_cost {
	double flops;
	double bytes_weight, bytes_in, bytes_out, bytes_kv;
};

struct wf_op {
	const char *name;
	const char *doc;                  /* the mathematics, one line */
	const char *source;               /* paper or format it comes from; may be NULL */
	wf_kind kind;
	int nin;                          /* operands required */
	int nopt;                         /* operands that may follow */
	unsigned numbers;                 /* bit k: operand k is of whole numbers; no other is but a MOVE's */
	/* "eps" or "start# n#=1": names, each may carry a default.  One that ends in # is a whole number.
	 * One that ends in @ (layer@) is too, and an address: kernels that differ only there are the same
	 * kernel. */
	const char *attr;
	int (*shape)(wf_graph *, wf_tensor *out);        /* sets dims and dtype; -1 after wf_fail */
	void (*eval)(wf_tensor *out);     /* the definition: naive, f32, double accumulators */
	void (*span)(const struct wf_span *);            /* MAP and ROW: the fast loop; others NULL */
	/* MOVE along dimension 0: entry r of out is entry *src of in[return value].  Used by eval and,
	 * on raw bytes, by load-time layout.  NULL otherwise. */
	int (*source_row)(const wf_tensor *out, int64_t r, int64_t *src);
	bool view;                        /* MOVE: out is in[0] under another shape, same bytes */
	bool state;                       /* writes the KV cache: never shared, never dropped */
	const char *cuda;                 /* the scalar device functions its skeleton calls */
	struct wf_cost (*cost)(const wf_tensor *out);
	float tol;                        /* NMSE allowed against eval */
	const char *const *test;          /* expression, value, ..., NULL in the text form */
};

/* Named in the graph, not in a model: leaves. */
extern const wf_op wf_op_input, wf_op_weight, wf_op_const;

/* ---- build.c: nodes ------------------------------------------------------------------------ */

struct wf_tensor {
	const wf_op *op;
	wf_tensor *in[WF_MAXIN];          /* nin of them */
	double attr[WF_MAXATTR];
	int64_t dim[WF_MAXDIM];           /* outermost first; WF_T, WF_S, WF_R are symbolic */
	int nin, ndim;
	wf_dtype dtype;
	int id;                           /* index in g->node: operands come first */
	bool constant;                    /* depends on weights and constants alone */
	const char *name;                 /* input, weight: its name; else NULL */
	const char *scope;                /* the builder's scope: "blk.3.attn" */
	const float *literal;             /* const: its values */
	wf_graph *g;
	uint64_t hash[2];                 /* structural, XXH3-128 */
	void *data;                       /* where eval reads and leaves the value: f32 or i32, dense */
	wf_tensor *next;                  /* hash chain */
};

struct wf_graph {
	wf_arena *arena;
	wf_error *err;                    /* sticky */
	const wf_op *const *ops;          /* vocabulary, NULL at the end */
	const wf_weights *weights;        /* checks names and shapes, gives dtypes; NULL: none at hand */
	wf_dtype act;                     /* dtype of what is computed */
	wf_dtype sum;                     /* dtype of sums of computed values, the residual among them */
	wf_dtype wdtype;                  /* dtype of weights when no file is at hand */
	wf_tensor **node;                 /* nnode of them, operands before users */
	int nnode, maxnode;
	struct wf_out { const char *name; wf_tensor *t; } *out;
	int nout, maxout;
	const char *name;                 /* the architecture */
	const char *scope;
	int64_t bound[3];                 /* current values of T, S, R: see wf_size() */
	int64_t ctx;                      /* for costs: tokens of a sequence once the step is done; 0: its share of T */
	wf_dtype kvtype;                  /* dtype of cached keys and values */
	const struct wf_kv *kv;           /* bound while graph_eval() runs */
	wf_tensor **table;                /* hash-consing, size a power of two */
	int ntable;
	wf_tensor dummy;
};

wf_graph  *wf_graph_new(wf_arena *, wf_error *, const wf_op *const *ops);
wf_tensor *wf_input(wf_graph *, const char *name, wf_dtype, int ndim, const int64_t *dim);
wf_tensor *wf_weight(wf_graph *, int ndim, const int64_t *dim, const char *fmt, ...) WF_PRINTF(4, 5);
bool       wf_has_weight(const wf_graph *, const char *fmt, ...) WF_PRINTF(2, 3);
wf_tensor *wf_const(wf_graph *, int ndim, const int64_t *dim, const float *values);
wf_tensor *graph_literal(wf_graph *, wf_dtype, int ndim, const int64_t *dim, const float *values);  /* f32 or i32 */
void       wf_scope(wf_graph *, const char *fmt, ...) WF_PRINTF(2, 3);   /* label of the nodes that follow */
void       wf_output(wf_graph *, const char *name, wf_tensor *);
/* The one way a node is made: checks operands, runs the op's shape rule, shares equal nodes. */
wf_tensor *wf_node(wf_graph *, const wf_op *, wf_tensor *const *in, int nin, const double *attr);
bool       wf_failed(const wf_graph *);
int64_t    wf_size(const wf_tensor *, int i);       /* dim i with T, S, R at their current values */
int64_t    wf_nelem(const wf_tensor *);
int64_t    wf_last(const wf_tensor *);              /* the last dimension, never symbolic */
int64_t    wf_rows(const wf_tensor *);              /* wf_nelem / wf_last */
double     wf_bytes(const wf_tensor *);             /* of its values in its type */
bool       graph_is_output(const wf_graph *, const wf_tensor *);
int        wf_attr_index(const wf_op *, const char *name);             /* -1 when it has none */
struct wf_attr_info { const char *name; size_t len; bool whole, address, has_absent; double absent; };
int        wf_attr_info(const wf_op *, int k, struct wf_attr_info *);  /* -1 past the last */
const wf_op *wf_op_find(const wf_op *const *ops, const char *name);    /* NULL when unknown */
void       graph_sweep(wf_graph *);                 /* drop what no output needs, renumber */
wf_tensor *graph_copy(wf_graph *, const wf_tensor *like, wf_tensor *const *in); /* same op over other operands */

/* ---- weights: what a model file offers (implemented in models/files) ----------------------- */

struct wf_blob {
	wf_dtype dtype;
	int ndim;
	int64_t dim[WF_MAXDIM];           /* outermost first, also for GGUF */
	const void *data;                 /* in the mapped file, at any address: no alignment is promised */
	size_t bytes;
	const char *type;                 /* dtype WF_NDTYPE: the file's name for a type nothing here reads */
};

struct wf_weights {
	/* 0 and *out filled when there is a tensor of that canonical (GGUF) name, -1 when there is none */
	int (*find)(const wf_weights *, const char *name, struct wf_blob *out);
};

/* ---- random.c: weights from a hash, for shapes without a file --------------------------------- */

/* Value i of a weight is shift + scale * (2^-23 (h >> 40) - 1), h the (i+1)-th output of splitmix64
 * seeded with XXH64(name, seed): the same to the last bit wherever it is made.  Matrices and biases
 * have deviation 0.02 around 0, vectors called *norm.weight are 1 +- 1/16. */
struct wf_random { uint64_t key; float scale, shift; };
struct wf_random wf_random_of(const wf_tensor *weight, uint64_t seed);
/* Values first .. first + n as f32, f16 or bf16. */
void wf_random_fill(struct wf_random, int64_t first, int64_t n, wf_dtype, void *out);
int  random_check(const wf_tensor *weight);         /* it has one of these types; -1 after wf_fail */
/* A weight's values in its own type, in the arena; -1 after wf_fail. */
int  random_blob(const wf_tensor *weight, wf_arena *, uint64_t seed, struct wf_blob *out);
/* All weights of a built graph, in the arena; NULL after wf_fail. */
const wf_weights *wf_random_weights(wf_graph *, wf_arena *, uint64_t seed);
extern const char wf_random_cuda[];                 /* float wf_random_unit(key, index): the same text for NVRTC */

/* ---- text.c, parse.c: the text form ---------------------------------------------------------- */

int       wf_graph_print(const wf_graph *, FILE *);
void      text_type(FILE *, const wf_tensor *);     /* f32[T,64] */
const char *text_dims(char *s, size_t cap, int ndim, const int64_t *dim);   /* T,64 into s, which comes back */
int       wf_plan_print(const wf_plan *, FILE *);      /* with kernels, order and offsets as far as the plan got */
/* Parse what wf_graph_print or wf_plan_print wrote; returns -1 with line and column on error.  *plan is
 * left NULL for a bare graph. */
int       wf_graph_parse(wf_graph *, const char *text, size_t len, wf_plan **plan);
wf_tensor *text_expr(wf_graph *, const char *expr); /* "(silu [0 1 -1])": tests and rules */

/* ---- verify.c ------------------------------------------------------------------------------ */

int graph_verify(const wf_graph *);                 /* shapes, order, sharing */
int plan_verify(wf_plan *);                         /* each node in one kernel, topological, no overlap */

/* ---- eval.c: the definition of a whole graph ----------------------------------------------- */

/* The cache as eval sees it: pages in host memory. */
struct wf_kv {
	const wf_slab *slab;
	uint8_t *const *base;                 /* [nclass] */
	const wf_batch *batch;
};

/* Evaluate every node with op->eval.  Inputs must have ->data; weights are decoded from their file;
 * the rest is allocated in `scratch`.  T, S and R come from g->bound. */
int graph_eval(wf_graph *, wf_arena *scratch, const struct wf_kv *);
/* A constant node's value: f32 in t->data, allocated in `scratch`. */
int graph_constant(wf_tensor *, wf_arena *scratch);
/* A constant node's value in its own dtype, dense rows; points into the file where it can. */
int graph_constant_bytes(wf_tensor *, wf_arena *scratch, struct wf_blob *out);
/* Where head h of token `pos` of sequence s lies for a cache node: keys, or values when v. */
void *kv_at(const struct wf_kv *, const wf_tensor *cache, int s, int64_t pos, int h, bool v);
double alibi_slope(double bias, int head, int nhead);   /* head by its number in the whole model */
int  kv_seq_of(const wf_batch *, int token);        /* the sequence a token of the batch belongs to */
bool kv_fits(const struct wf_kvclass *, const wf_tensor *cache);   /* heads, dims, window and dtype agree */
/* Class and index within the class of a cache node's layer. */
int  kv_find(const wf_slab *, const wf_tensor *cache, int *layer_index);

/* ---- plan.c: the list of passes ------------------------------------------------------------ */

/* A rewrite: pattern and replacement in the text form, and a guard that sees the matched node. */
struct wf_rule {
	const char *from, *to;
	bool (*guard)(const wf_tensor *match);
};

struct wf_plan_opt {
	int64_t max_tokens, max_seqs, max_rows;   /* upper bounds of T, S, R */
	const char *stop_after;                   /* run passes up to and with this one; NULL all */
	const char *skip;                         /* comma-separated passes to leave out; NULL none */
	bool verify;                              /* after every pass */
};

struct wf_value {                             /* what the plan knows of node id's value */
	int kernel;                           /* its kernel, -1: leaf or constant */
	bool stored;                          /* in memory (else only inside its kernel) */
	bool alias;                           /* shares in[0]'s bytes (a view) */
	int64_t offset, bytes;                /* in the activation buffer, at the upper bounds */
	int first, last;                      /* kernels (in order) between which it is live */
};

struct wf_kernel {
	int id;
	wf_kind kind;                         /* of the anchor: chooses the skeleton */
	wf_tensor *anchor;
	wf_tensor **node;                     /* nnode members in topological order, anchor among them */
	int nnode, maxnode;
	wf_tensor **in;                       /* nin values read: leaves, constants, other kernels' values */
	int nin;
	wf_tensor **out;                      /* nout members whose values are stored */
	int nout;
	struct wf_cost cost;                  /* at the upper bounds */
	int64_t saved;                        /* bytes of traffic the fusion avoids */
	uint64_t hash[2];                     /* equal work has an equal hash: layers share one kernel */
	int twin;                             /* first kernel with that hash (may be itself) */
};

struct wf_note {                              /* why: for explain */
	const char *pass, *rule;              /* "fuse", "map<dot.store" */
	const char *text;                     /* the blocker, or NULL when it was done */
	wf_tensor *from, *to;                 /* producer and consumer */
	int64_t bytes;                        /* saved, or lost */
	int kernel;                           /* -1: none */
};

enum { PLAN_BUILD, PLAN_REWRITE, PLAN_FOLD, PLAN_SHARD, PLAN_FUSE, PLAN_ORDER, PLAN_PLACE, PLAN_NSTAGE };
extern const char *const plan_stage_names[PLAN_NSTAGE];

struct wf_plan {
	wf_graph *g;
	wf_arena *arena;
	wf_error *err;
	const struct wf_rule *rules;
	const wf_backend *backend;
	struct wf_plan_opt opt;
	int stage;                            /* last pass done */
	wf_kernel *kernel;                    /* nkernel, in execution order once ordered */
	int nkernel;
	struct wf_value *value;               /* one per node id, once fused */
	int64_t arena_bytes, live_bytes;      /* placed; lower bound */
	struct wf_note *note;
	int nnote, maxnote;
	struct wf_kvclass *kvclass;           /* nkvclass, from the cache nodes */
	int nkvclass;
	uint64_t hash[2];
};

wf_plan *wf_plan_build(wf_graph *, const struct wf_rule *, const wf_backend *, const struct wf_plan_opt *);
int      wf_plan_continue(wf_plan *);               /* run the passes after plan->stage */
wf_plan *plan_new(wf_graph *);                      /* empty, in the graph's arena; NULL after wf_fail */
const wf_tensor *plan_storage(const wf_plan *, const wf_tensor *);     /* the value whose bytes t uses: behind views */
int      plan_reserve(wf_plan *, int nkernel);      /* room for values of all nodes and that many kernels */
int      plan_add_member(wf_plan *, int kernel, wf_tensor *);
int      plan_renumber(wf_plan *);                  /* node ids in the order of printing */
void     plan_bounds(wf_plan *);                    /* g->bound = the upper bounds */
/* The kernels' costs at other sizes than the bounds; ctx: tokens of each sequence once the step is done. */
struct wf_sizes { int64_t tokens, seqs, rows, ctx; };
void     plan_cost_at(wf_plan *, const struct wf_sizes *);
bool     plan_skips(const wf_plan *, const char *pass);
int      plan_derive(wf_plan *);                    /* from membership: in, out, stored, live ranges, costs, hashes */
void     plan_note(wf_plan *, struct wf_note);
const char *plan_note_text(wf_plan *, const char *fmt, ...) WF_PRINTF(2, 3);
int rewrite_run(wf_plan *);    /* rules to a fixed point                    */
int fold_run(wf_plan *);       /* weight layouts as nodes over weights      */
int shard_run(wf_plan *);      /* tensor parallel                           */
int fuse_run(wf_plan *);       /* nodes to kernels                          */
int order_run(wf_plan *);      /* kernels to a list                         */
int place_run(wf_plan *);      /* values to offsets in one buffer           */

/* ---- place.c ------------------------------------------------------------------------------- */

struct place_item {                           /* bytes live from kernel first to last, both counted */
	int64_t bytes;                        /* a multiple of 64 */
	int first, last;
	int64_t offset;                       /* the result */
	int64_t trial;                        /* the rest is place_pack's own */
	double rank;
	int next, id;
};

int64_t place_bound(const struct place_item *, int n);  /* most bytes live at once: no packing beats it */
int64_t place_pack(struct place_item *, int n);         /* offsets without overlap; the buffer's bytes */

/* ---- cost.c -------------------------------------------------------------------------------- */

struct wf_device {                            /* what a forecast needs to know of a device */
	const char *name;
	double read_bytes_s;                  /* streaming read */
	double flops_s;                       /* matrix products in the plan's type */
	double launch_s;                      /* cost of one more kernel in a step */
	int64_t memory;                       /* bytes; 0 unknown */
};

struct wf_cost wf_cost_of(const wf_tensor *);       /* of one node at the bounds in g->bound */
double cost_seconds(struct wf_cost, const struct wf_device *);

/* ---- layers.c: what a reader sees once ------------------------------------------------------ */

/* A plan's units are its kernels, before fusion its computed nodes.  Units of one scope in a row are
 * a layer; equal layers in a row are one entry. */
struct layer {
	const char *name; int len;            /* "blk.0": the first one's; len 0: no scope */
	const char *last; int last_len;       /* "blk.29": the last one's */
	int first, n, repeat;                 /* units first .. first + n, so often */
};
int  plan_layers(const wf_plan *, struct layer **, int *nlayer);   /* in the plan's arena; -1 after wf_fail */
int  plan_units(const wf_plan *);
/* Members of unit u: its nodes, their number. */
wf_tensor *const *plan_unit(const wf_plan *, int u, int *n);
bool is_computed(const wf_tensor *);                 /* by a kernel: no leaf, not from constants alone */

/* ---- dump.c, explain.c --------------------------------------------------------------------- */

int wf_plan_dot(const wf_plan *, FILE *);
int wf_plan_json(const wf_plan *, FILE *);
int wf_plan_html(const wf_plan *, const struct wf_device *, FILE *);      /* one self-contained page; device may be NULL */
int wf_plan_explain(const wf_plan *, const struct wf_device *, FILE *, bool json);    /* device may be NULL */
/* What a kernel computes, in a word: "rmsnorm+matmul+rope+cache". */
const char *kernel_label(const wf_kernel *, char *out, size_t cap);
void        dump_string(FILE *, const char *);         /* as a JSON string; NULL: null */
extern const char dump_style[], dump_script[];     /* dump_page.c: of the HTML page */

/* ---- slab.c, seq.c, prefix.c: the KV allocator ------------------------------------------------ */

/* One class per (kv heads, key dim, value dim, dtype, window); layers of a class share its pages. */
struct wf_kvclass {
	int nkv, kdim, vdim;                  /* heads, values of a key, of a value */
	int window;                           /* sliding window in tokens, 0 none */
	wf_dtype dtype;
	int nlayer;                           /* cache nodes of this class */
	int *layer;                           /* their layer attributes, ascending */
};

/* Page p of class c holds page_tokens tokens of every layer of the class:
 *   [layer][K: nkv * page_tokens * kdim][V: nkv * page_tokens * vdim], each [head][token][dim],
 * at base + p * slab_page_bytes().  The slab deals in page numbers; whoever runs the step has the base.
 * Pages have reference counts: a full page may belong to many sequences, a page that is written
 * belongs to one (copy-on-write).  Full pages of dead sequences stay findable by the chained hash of
 * their tokens until the space is needed (LRU). */
typedef struct wf_seq wf_seq;

struct wf_slab_copy { int cls; int32_t from, to; };    /* contents to copy before the next step */

struct wf_slab_stats {
	int64_t pages, free, held, cached, shared;         /* held: referenced; cached: only findable; shared: refs > 1 */
	int64_t bytes_held, bytes_used;                    /* of held pages; of the tokens in them */
	int64_t hits, misses, evictions, cows;             /* pages, since the start */
};

wf_slab *wf_slab_new(wf_error *, const struct wf_kvclass *, int nclass, int page_tokens,
		const int64_t *npage);                     /* [nclass] */
void     wf_slab_free(wf_slab *);
int      wf_slab_nclass(const wf_slab *);
int      wf_slab_page_tokens(const wf_slab *);
const struct wf_kvclass *wf_slab_class(const wf_slab *, int cls);
int64_t  wf_slab_npage(const wf_slab *, int cls);
size_t   slab_page_bytes(const struct wf_kvclass *, int page_tokens);
size_t   slab_layer_bytes(const struct wf_kvclass *, int page_tokens);  /* K and V of one layer in a page */
int32_t  seq_first(const wf_slab *, int cls, int64_t len);          /* first block the token at position len sees */
void     wf_slab_stats(const wf_slab *, int cls, struct wf_slab_stats *);
int      slab_verify(const wf_slab *, wf_error *);     /* every count agrees: tests, debug builds */
int      wf_slab_grow(wf_slab *, int cls, int64_t npage);   /* npage more at the end; -1 when out of host memory */

wf_seq  *wf_seq_new(wf_slab *);                        /* NULL when out of host memory */
/* Host room for a sequence of len tokens, so that no step up to there allocates; -1 when out of it. */
int      wf_seq_reserve(wf_slab *, wf_seq *, int64_t len);
void     wf_seq_free(wf_slab *, wf_seq *);             /* gives its pages back */
wf_seq  *wf_seq_fork(wf_slab *, const wf_seq *);       /* shares every page */
int64_t  wf_seq_len(const wf_seq *);
/* Room for n more tokens.  0, or -1 with nothing changed when pages are short.  *copy lists
 * copy-on-write moves to do before the step and in the order listed (at most one per class, owned by
 * the slab, valid until the next call).  Pages that a sliding window has left behind go back here:
 * n = 0 does only that. */
int      wf_seq_extend(wf_slab *, wf_seq *, int64_t n, const struct wf_slab_copy **copy, int *ncopy);
/* The new length: len, or 0 when a sliding window has given back what the token at len would see
 * (never when the last extend is undone, in part or whole). */
int64_t  wf_seq_truncate(wf_slab *, wf_seq *, int64_t len);
/* The pages of class cls by token block: page[i] holds tokens i*page_tokens...; -1 where a sliding
 * window has given the page back.  Valid until the sequence changes. */
const int32_t *wf_seq_pages(const wf_seq *, int cls, int *n);
bool     wf_seq_adjacent(const wf_seq *, int cls);     /* page[i] == page[0] + i for all */
/* Prefix sharing: attach the longest cached prefix of token[0..n) to an empty sequence; the number
 * of tokens found (a multiple of page_tokens, < n).  Publish full pages under their tokens' hash, once
 * the step that writes them is done or queued; token[0..n) are the sequence's own, from its start.
 * Where another sequence published the same tokens first, its page replaces ours in the sequence. */
int64_t  wf_seq_match(wf_slab *, wf_seq *, const int32_t *token, int64_t n);
void     wf_seq_publish(wf_slab *, wf_seq *, const int32_t *token, int64_t n);

/* ---- backend: chosen by the caller, an argument here ----------------------------------------- */

struct wf_exec_opt {
	int threads;                          /* CPU team; 0 all cores */
	const char *isa;                      /* CPU: avx512, avx2, plain; NULL the best */
	wf_dtype compute;                     /* what products read activations as; WF_NDTYPE: the fastest that fits the weights */
	wf_slab *slab;
	int64_t ctx;                          /* tokens of the longest sequence, where windows let it outgrow the slab's pages; 0: not so */
	const char *cache;                    /* CUDA: kernel cache folder; NULL none */
	int device;                           /* CUDA: ordinal */
	bool no_graph, sync;                  /* CUDA: launch kernels one by one; and wait after each */
	bool profile;
	bool random_weights;                  /* the graph has no file: make weights of `seed` where they are needed */
	uint64_t seed;
};

struct wf_backend {
	const char *name;                     /* "cpu", "cuda" */
	wf_dtype act;                         /* dtype of stored activations it prefers */
	int weave;                            /* gate/up rows interleave in blocks of at most this many (a power of two); 0: leave apart */
	const char *const *fusions;           /* the pair rules it can compile, NULL at the end (fuse.c) */
	/* number of the layout a matmul's weight is wanted in, 0 as it is; the executor repacks at load */
	int (*layout)(const wf_backend *, wf_dtype, int64_t rows, int64_t cols);
	/* refuses, with a message, what it cannot run; called when the plan is complete */
	int (*check)(const wf_backend *, const wf_plan *);
	int (*device)(const wf_backend *, struct wf_device *);
	/* Load weights, compile, allocate everything a step needs. */
	wf_exec *(*open)(const wf_backend *, wf_plan *, wf_error *, const struct wf_exec_opt *);
	/* Write each kernel's source into a folder, for an architecture ("sm_90a"); NULL: it has no sources. */
	int (*emit)(const wf_backend *, wf_plan *, wf_error *, const char *arch, const char *dir);
};

/* How a wanted row's next token is chosen on the device, as the host's sampler would.  draw: the
 * generator's state (splitmix64) before this draw.  count: tokens to penalise, at most 4096. */
struct wf_count { int32_t id, n; };
struct wf_pick {
	double temp, top_p, min_p, repeat, presence, frequency;
	int top_k, ncount;
	uint64_t draw;
	const struct wf_count *count;         /* [ncount] */
};

/* One step's batch: the binding set.  Sequences' tokens are adjacent and in order of position.
 * The graph's inputs are bound by name: "tokens", "positions", "rows". */
struct wf_batch {
	int ntoken, nseq, nrow;
	const int32_t *token;                 /* [ntoken] ids: input "tokens"; below 0: ~row of the step before, its choice */
	const int32_t *pos;                   /* [ntoken] position in its sequence: "positions" */
	const int32_t *row;                   /* [nrow] tokens whose logits are wanted: "rows" */
	const int32_t *seq_start;             /* [nseq + 1] first token of each sequence in this batch */
	const int32_t *seq_len;               /* [nseq] tokens cached once this step is done */
	const int32_t *const *page;           /* [nseq * nclass] page numbers: wf_seq_pages() */
	const struct wf_pick *pick;           /* [nrow]; NULL: no token is chosen */
};

/* What opening took. */
struct wf_opened {
	double load_s, compile_s;             /* seconds: weights to where they are read; kernels */
	int64_t load_bytes;
	int compiled, cached;                 /* kernels' programs: made here, found in the cache */
};

enum { WF_AHEAD = 4 };

struct wf_exec {
	const wf_backend *backend;
	wf_plan *plan;
	wf_error *err;
	int  (*step)(wf_exec *, const wf_batch *);                   /* -1 after wf_fail */
	int  (*copy_pages)(wf_exec *, const struct wf_slab_copy *, int n);
	/* Where output `name` of the last step lies: f32 [rows, last], host memory. */
	const float *(*output)(wf_exec *, const char *name);
	/* Tokens the oldest step with picks chose, [its nrow], not asked for before; waits for it and no more.
	 * At most WF_AHEAD such steps may be unread.  The member is NULL where the backend cannot choose. */
	const int32_t *(*picked)(wf_exec *);
	void (*close)(wf_exec *);
	/* Seconds kernel k took over all steps since the last reset; NULL without profile. */
	const double *kernel_s;
	int64_t steps;
	const struct wf_opened *opened;                              /* NULL: not measured */
};

#ifdef __cplusplus
}
#endif
#endif
