/* my_arch.c - an architecture of your own in one file, with two ops of its own: a guide.
 *
 *   cc -O3 -fno-math-errno -shared -fPIC -o my_arch.so my_arch.c $(pkg-config --cflags weft) -lm
 *   weft verify -m LLAMA_FOLDER --arch ./my_arch.so
 *   weft run -m LLAMA_FOLDER --arch ./my_arch.so -p "Once upon a time"
 *
 * It is LLaMA once more, with norm and gate written as if weft had neither, so that any LLaMA checkpoint
 * tells whether it is right.  To make it yours, rename my_arch (file and symbol go together: wf_arch_NAME
 * for NAME.so or libNAME.so) and change the mathematics.  Nothing here knows of devices, types, threads,
 * caches or fusion: `weft explain -m LLAMA_FOLDER --arch ./my_arch.so` shows what the planner makes of it. */
#include <models/model.h>
#include <ops/ops.h>

/* ---- 1. An elementwise op: one expression -----------------------------------------------------------
 *
 * MAP2_ATTR makes three things of it: the definition that tests compare with, the CPU's loop, and text
 * for NVRTC.  x and y are the operands' values; attributes arrive in attr[] and are called by their
 * name in capitals, also in the text.  MAP1, MAP2 and MAP1_ATTR are its smaller forms. */

MAP2_ATTR(swish_gate, const float SLOPE = (float)attr[0], x / (1 + expf(-SLOPE * x)) * y)

static const wf_op swish_gate = {
	MAP_FIELDS(swish_gate),
	.doc  = "y[i] = b[i] * a[i] / (1 + exp(-slope a[i]))",
	.nin  = 2,
	.attr = "slope=1",
	.tol  = 1e-11f,
	.test = TESTS("(swish_gate [1 -1 0] [1 2 3])", "[0.731058579 -0.537882843 0]"),
};

/* ---- 2. An op on whole rows: a C function and CUDA text ---------------------------------------------
 *
 * span() is given one row and its weight.  It may be the definition as well (wf_span_eval); an op whose
 * fast loop is not plain enough for that has an eval() of its own.  On CUDA a row op is lift(), whose
 * sum over the row is taken, and drop(), which has that sum; ROW is the row's length.  With it in this
 * form the planner moves it into the product that reads it, where no row is ever written to memory. */

static void row_norm_span(const struct wf_span *s)
{
	const float *x = s->in[0], *w = s->in[1];
	double sum = 0;

	for (int64_t i = 0; i < s->n; i++)
		sum += (double)x[i] * x[i];
	float scale = (float)(1 / sqrt(sum / (double)s->n + s->attr[0]));
	for (int64_t i = 0; i < s->n; i++)
		s->out[i] = x[i] * scale * w[i];
}

static const wf_op row_norm = {
	.name  = "row_norm",
	.doc   = "y[r,i] = x[r,i] * w[i] / sqrt(mean_i(x[r,i]^2) + eps)",
	.kind  = WF_ROW,
	.nin   = 2,
	.attr  = "eps",
	.shape = wf_row_shape,        /* the result is like the first operand, the others are vectors of its rows' length */
	.eval  = wf_span_eval,
	.span  = row_norm_span,
	.cost  = wf_map_cost,         /* reads its operands once, writes its result once */
	.cuda  = "__device__ float lift(float x) { return x * x; }\n"
	         "__device__ float drop(float x, float sum, float w) { return x * rsqrtf(sum / ROW + EPS) * w; }\n",
	.tol   = 1e-11f,
	.test  = TESTS("(row_norm [3 4] [1 2] eps=0)", "[0.848528137 2.262741700]"),
};

/* ---- 3. Builders: how the model's text will call them ----------------------------------------------- */

static wf_tensor *gate(wf_graph *g, const wf_config *c, wf_tensor *a, wf_tensor *b)
{
	return wf_node(g, &swish_gate, (wf_tensor *[]){a, b}, 2, (double[WF_MAXATTR]){c->own[0]});
}

static wf_tensor *norm(wf_graph *g, const wf_config *c, wf_tensor *x, wf_tensor *weight)
{
	return wf_node(g, &row_norm, (wf_tensor *[]){x, weight}, 2, (double[WF_MAXATTR]){c->eps});
}

/* ---- 4. The mathematics: the whole definition of the family -----------------------------------------
 *
 * Weights are asked for by name and shape where they are used; the first mistake, in the files or here,
 * is kept and reported with its name, so nothing is checked on the way.  x is [T, dim], T the tokens of
 * a step.  wf_cache() appends this step's keys and values to the sequence's pages and stands for them. */

static wf_tensor *attention(wf_graph *g, const wf_config *c, wf_tensor *x, wf_tensor *pos, int l)
{
	wf_tensor *q = wf_heads(g, wf_linear(g, x, c->nhead * c->hdim, false, "blk.%d.attn_q", l), c->nhead);
	wf_tensor *k = wf_heads(g, wf_linear(g, x, c->nkv * c->hdim, false, "blk.%d.attn_k", l), c->nkv);
	wf_tensor *v = wf_heads(g, wf_linear(g, x, c->nkv * c->hdim, false, "blk.%d.attn_v", l), c->nkv);
	wf_tensor *kv = wf_cache(g, wf_rotate(g, c, k, pos), v, pos, l, 0);

	q = wf_rotate(g, c, q, pos);
	return wf_linear(g, wf_merge(g, wf_attend(g, q, kv, pos, &(struct wf_attention){0})), c->dim, false,
		"blk.%d.attn_output", l);
}

static wf_tensor *feedforward(wf_graph *g, const wf_config *c, wf_tensor *x, int l)
{
	wf_tensor *a = wf_linear(g, x, c->ffn, false, "blk.%d.ffn_gate", l);
	wf_tensor *b = wf_linear(g, x, c->ffn, false, "blk.%d.ffn_up", l);

	return wf_linear(g, gate(g, c, a, b), c->dim, false, "blk.%d.ffn_down", l);
}

static void build(wf_graph *g, const wf_config *c)
{
	wf_tensor *x = wf_embed(g, c), *pos = wf_positions(g);

	for (int l = 0; l < c->nlayer; l++) {
		wf_scope(g, "blk.%d.attn", l);
		wf_tensor *w = wf_weight(g, WF_SHAPE(c->dim), "blk.%d.attn_norm.weight", l);
		x = wf_add(g, x, attention(g, c, norm(g, c, x, w), pos, l));
		wf_scope(g, "blk.%d.ffn", l);
		w = wf_weight(g, WF_SHAPE(c->dim), "blk.%d.ffn_norm.weight", l);
		x = wf_add(g, x, feedforward(g, c, norm(g, c, x, w), l));
	}
	wf_scope(g, "head");
	x = wf_wanted(g, x);          /* of the rows whose logits are asked for */
	wf_logits(g, c, norm(g, c, x, wf_weight(g, WF_SHAPE(c->dim), "output_norm.weight")));
}

/* ---- 5. What files call things ------------------------------------------------------------------------
 *
 * Width, heads and the like are read already.  A row adds a hyper-parameter: its key in config.json, in
 * GGUF (after "ARCH."), where it goes, its type, range, and what it is where files do not say. */

static const struct wf_key keys[] = {
	{"gate_slope", "gate_slope", offsetof(wf_config, own[0]), 'f', -100, 100, 1},
	{0}
};

/* GGUF files have the rows of q and k in the order for pairs. */
static int finish(wf_config *c, wf_error *err)
{
	(void)err;
	c->rope_pairs = c->gguf;
	return 0;
}

/* The one symbol that is exported. */
const wf_arch wf_arch_my_arch = {
	.abi    = WF_ABI,
	.name   = "my_arch",
	.keys   = keys,
	.names  = (const struct wf_name[]){WF_USUAL_NAMES, {NULL, NULL}},       /* ours, and Hugging Face's */
	.finish = finish,
	.build  = build,
	.ops    = (const wf_op *const[]){&swish_gate, &row_norm, NULL},
};
