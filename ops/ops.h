/* ops.h - the vocabulary.  One row per op: its name and its signature.
 * The row declares both the builder a model calls and the op itself; ops.c includes the same rows
 * to build the table.  An op's file holds its doc, shape rule, definition, cost, CUDA text and tests. */
#ifndef WF_OPS_H
#define WF_OPS_H

#include "graph/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { WF_ROPE_HALVES, WF_ROPE_PAIRS };       /* (i, i + n/2) as in GPT-NeoX, or (2i, 2i + 1) as in GPT-J */

/* Rotary frequencies: theta^(-2i/n), scaled as the type says (0 where the type has no such term). */
struct wf_rope_freqs {
	int type;                             /* 0 plain, 1 linear, 2 llama3, 3 yarn: enum wf_rope_scaling */
	double theta, factor, low, high, orig_ctx;
	bool keep_fractions;                  /* yarn: its bounds are not rounded to whole dims */
};

struct wf_attention {
	double scale;                         /* of q k^T; 0: 1/sqrt(key dim) */
	int window;                           /* sees this many tokens, itself included; 0 all */
	double softcap;                       /* c tanh(s / c); 0 none */
	double alibi;                         /* max bias (8 in Bloom); 0 none */
	wf_tensor *sinks;                     /* [heads] logits that take weight and give no value; NULL */
};

enum { WF_GATE_SOFTMAX, WF_GATE_SIGMOID };

struct wf_routing {
	int k;                                /* experts per token */
	bool sigmoid;                         /* scores are sigmoids of the logits */
	int groups, group_k;                  /* experts in groups of which this many count; 0: one group */
	int group_best;                       /* a group is as good as its best (1), or its two best (0, 2) */
};

#define OPS(OP) \
	OP(add,      (wf_graph *g, wf_tensor *a, wf_tensor *b)) \
	OP(mul,      (wf_graph *g, wf_tensor *a, wf_tensor *b)) \
	OP(div,      (wf_graph *g, wf_tensor *a, wf_tensor *b)) \
	OP(scale,    (wf_graph *g, wf_tensor *x, double by)) \
	OP(offset,   (wf_graph *g, wf_tensor *x, double by)) \
	OP(silu,     (wf_graph *g, wf_tensor *x)) \
	OP(gelu,     (wf_graph *g, wf_tensor *x)) \
	OP(gelu_tanh,(wf_graph *g, wf_tensor *x)) \
	OP(relu,     (wf_graph *g, wf_tensor *x)) \
	OP(softcap,  (wf_graph *g, wf_tensor *x, double cap)) \
	OP(rmsnorm,  (wf_graph *g, wf_tensor *x, wf_tensor *w, double eps)) \
	OP(layernorm,(wf_graph *g, wf_tensor *x, wf_tensor *w, wf_tensor *b, double eps)) \
	OP(rope,     (wf_graph *g, wf_tensor *x, wf_tensor *pos, wf_tensor *freqs, int pairs, double mscale)) \
	OP(rope_freqs,(wf_graph *g, int n, const struct wf_rope_freqs *)) \
	OP(matmul,   (wf_graph *g, wf_tensor *w, wf_tensor *x)) \
	OP(cache,    (wf_graph *g, wf_tensor *k, wf_tensor *v, wf_tensor *pos, int layer, int window)) \
	OP(attend,   (wf_graph *g, wf_tensor *q, wf_tensor *kv, wf_tensor *pos, const struct wf_attention *)) \
	OP(take,     (wf_graph *g, wf_tensor *table, wf_tensor *ids)) \
	OP(heads,    (wf_graph *g, wf_tensor *x, int64_t n)) \
	OP(merge,    (wf_graph *g, wf_tensor *x)) \
	OP(cols,     (wf_graph *g, wf_tensor *x, int64_t start, int64_t n)) \
	OP(lane,     (wf_graph *g, wf_tensor *x, int of, int at, int block)) \
	OP(part,     (wf_graph *g, wf_tensor *w, int64_t start, int64_t n)) \
	OP(cat,      (wf_graph *g, wf_tensor *const *w, int n)) \
	OP(weave,    (wf_graph *g, wf_tensor *a, wf_tensor *b, int block)) \
	OP(repack,   (wf_graph *g, wf_tensor *w, int layout)) \
	OP(strip,    (wf_graph *g, wf_tensor *w, int64_t group, int64_t start, int64_t n)) \
	OP(transpose,(wf_graph *g, wf_tensor *w)) \
	OP(flatten,  (wf_graph *g, wf_tensor *w)) \
	OP(half,     (wf_graph *g, wf_tensor *w)) \
	OP(join,     (wf_graph *g, wf_tensor *a, wf_tensor *b)) \
	OP(route,    (wf_graph *g, wf_tensor *logits, wf_tensor *bias, const struct wf_routing *)) \
	OP(gates,    (wf_graph *g, wf_tensor *logits, wf_tensor *ids, int mode, bool norm, double scale)) \
	OP(experts,  (wf_graph *g, wf_tensor *w, wf_tensor *x, wf_tensor *ids, int64_t n)) \
	OP(mix,      (wf_graph *g, wf_tensor *x, wf_tensor *gates)) \
	OP(swiglu_clamp, (wf_graph *g, wf_tensor *gate, wf_tensor *up, double alpha, double limit))

#define OP(name, sig) extern const wf_op wf_op_##name; wf_tensor *wf_##name sig;
OPS(OP)
#undef OP

extern const wf_op *const *const wf_ops;      /* every row and what was registered, NULL at the end */
extern const struct wf_rule wf_rules[];       /* rules.c: the algebra, {0} at the end */

/* What a norm or a sum is given: a product in the type of sums, anything else as it is (matmul.c). */
wf_tensor *wf_wide(wf_graph *, wf_tensor *x);

/* ---- ops.c: the table; shape rules and costs that several ops share ---- */

/* An op of your own, of kind WF_MAP or WF_ROW: from now on text that names it is read, and plans treat it
 * as they treat the rows above.  Its CUDA text defines, for a MAP, a function of the op's name from an
 * operand each to the result; for a ROW, lift(x), whose sum over the row is taken, and drop(x, sum, ...),
 * which has the sum and the other operands, with ROW the row's length.  Attributes are their names in
 * capitals.  Without the text it runs on the CPU alone.  The op is kept, not copied; registering it again
 * does nothing.  -1 after wf_fail when something is missing or the name is taken. */
int  wf_op_register(wf_error *, const wf_op *);
void wf_span_eval(wf_tensor *out);                    /* eval of an op whose span is plain enough to define it */
/* Operand k is rows [tokens, k] of numbers below n.  -1 after wf_fail: other dims, or a choice among more. */
int  wf_choice_among(wf_graph *, const wf_tensor *out, int k, int64_t n);
int  wf_same_shape(wf_graph *, wf_tensor *out);          /* MAP: in[0]'s; others equal it or its trailing dims */
int  wf_row_shape(wf_graph *, wf_tensor *out);    /* ROW: in[1], in[2] are vectors of a row's length */
struct wf_cost wf_map_cost(const wf_tensor *out);        /* reads operands once, writes once */
struct wf_cost no_cost(const wf_tensor *out);
int  layout_shape(wf_graph *, wf_tensor *out);        /* MOVE of rows: types agree; dim 0 is the op's to set */
void rows_eval(wf_tensor *out);                       /* MOVE with a source_row */
const float *wf_map_operand(const wf_tensor *out, int k, int64_t *period);

/* The fast loop of an op is compiled for what the CPU has. */
#if defined __x86_64__ && defined __GNUC__ && !defined WF_SANITIZE && !defined __SANITIZE_ADDRESS__ && !defined __clang__
#define WF_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WF_CLONES
#endif

/* An elementwise op is one expression.  It is compiled here as the reference (one call per value)
 * and as the fast loop, and handed to NVRTC as text, so the three cannot disagree. */
#define MAP1_ATTR(name, attributes, expr) \
	static float name##_of(const double *attr, float x) { attributes; (void)attr; return expr; } \
	static void name##_eval(wf_tensor *t) \
	{ \
		const float *a = t->in[0]->data; \
		float *o = t->data; \
		for (int64_t i = 0; i < wf_nelem(t); i++) \
			o[i] = name##_of(t->attr, a[i]); \
	} \
	WF_CLONES static void name##_span(const struct wf_span *s) \
	{ \
		const double *attr = s->attr; \
		const float *a = s->in[0]; \
		float *o = s->out; \
		attributes; (void)attr; \
		for (int64_t i = 0; i < s->n; i++) { \
			float x = a[i]; \
			o[i] = expr; \
		} \
	} \
	static const char name##_cuda[] = "__device__ float " #name "(float x) { return " #expr "; }\n";

#define MAP1(name, expr) MAP1_ATTR(name, (void)0, expr)

#define MAP2_ATTR(name, attributes, expr) \
	static float name##_of(const double *attr, float x, float y) { attributes; (void)attr; return expr; } \
	static void name##_eval(wf_tensor *t) \
	{ \
		int64_t period; \
		const float *a = t->in[0]->data, *b = wf_map_operand(t, 1, &period); \
		float *o = t->data; \
		for (int64_t i = 0; i < wf_nelem(t); i++) \
			o[i] = name##_of(t->attr, a[i], b[i % period]); \
	} \
	WF_CLONES static void name##_span(const struct wf_span *s) \
	{ \
		const double *attr = s->attr; \
		const float *a = s->in[0], *b = s->in[1]; \
		float *o = s->out; \
		attributes; (void)attr; \
		for (int64_t i = 0; i < s->n; i++) { \
			float x = a[i], y = b[i]; \
			o[i] = expr; \
		} \
	} \
	static const char name##_cuda[] = "__device__ float " #name "(float x, float y) { return " #expr "; }\n";

#define MAP2(name, expr) MAP2_ATTR(name, (void)0, expr)

/* What an elementwise op's row holds beside its tests. */
#define MAP_FIELDS(opname) \
	.name = #opname, .kind = WF_MAP, .shape = wf_same_shape, .eval = opname##_eval, .span = opname##_span, \
	.cuda = opname##_cuda, .cost = wf_map_cost

#define TESTS(...) (const char *const[]){__VA_ARGS__, NULL}

/* Scalar mathematics the compiler may vectorise (glibc's libmvec). */
#if defined __x86_64__ && defined __GNUC__ && !defined __clang__ && defined __OPTIMIZE__ && !defined WF_SANITIZE
#include <math.h>
__attribute__((simd("notinbranch"), const, nothrow)) float expf(float);
__attribute__((simd("notinbranch"), const, nothrow)) float tanhf(float);
__attribute__((simd("notinbranch"), const, nothrow)) float erff(float);
#else
#include <math.h>
#endif

#ifdef __cplusplus
}
#endif
#endif
