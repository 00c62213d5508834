/* build.c - nodes: made once, checked when made, never changed.
 *
 * Equal nodes are one node (hash-consing), so common subexpressions vanish as the builder runs.
 * After the first error every call returns the graph's dummy and does nothing. */
#include "graph/graph.h"
#include <math.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { MAXDIMS = 1 << 30 };

const char *const wf_kind_names[WF_NKIND] = {
	"leaf", "map", "row", "dot", "attend", "move", "route", "comm"
};

const wf_op wf_op_input  = {.name = "input",  .doc = "bound when a step runs", .kind = WF_LEAF};
const wf_op wf_op_weight = {.name = "weight", .doc = "from the model file", .kind = WF_LEAF};
const wf_op wf_op_const  = {.name = "const",  .doc = "values written in the graph", .kind = WF_LEAF};

bool wf_failed(const wf_graph *g)
{
	return g->err->set;
}

static int no_memory(wf_graph *g)
{
	return wf_fail(g->err, "graph: out of memory after %d nodes", g->nnode);
}

wf_graph *wf_graph_new(wf_arena *arena, wf_error *err, const wf_op *const *ops)
{
	enum { NTABLE = 1024 };
	wf_graph *g = wf_alloc(arena, sizeof *g);
	wf_tensor **table = wf_alloc_n(arena, NTABLE, sizeof *table);

	if (!g || !table) {
		wf_fail(err, "graph: out of memory");
		return NULL;
	}
	*g = (wf_graph){.arena = arena, .err = err, .ops = ops, .table = table, .ntable = NTABLE,
		.name = "graph", .scope = "", .bound = {1, 1, 1}};
	g->dummy = (wf_tensor){.op = &wf_op_const, .ndim = 1, .dim = {1}, .g = g, .scope = "", .id = -1};
	return g;
}

int64_t wf_size(const wf_tensor *t, int i)
{
	return t->dim[i] < 0 ? t->g->bound[-1 - t->dim[i]] : t->dim[i];
}

int64_t wf_nelem(const wf_tensor *t)
{
	int64_t n = 1;

	for (int i = 0; i < t->ndim; i++)
		n *= wf_size(t, i);
	return n;
}

int64_t wf_last(const wf_tensor *t)
{
	return t->ndim ? wf_size(t, t->ndim - 1) : 1;
}

int64_t wf_rows(const wf_tensor *t)
{
	int64_t n = 1;

	for (int i = 0; i + 1 < t->ndim; i++)
		n *= wf_size(t, i);
	return n;
}

double wf_bytes(const wf_tensor *t)
{
	return (double)wf_nelem(t) / wf_dtypes[t->dtype].block * wf_dtypes[t->dtype].bytes;
}

bool graph_is_output(const wf_graph *g, const wf_tensor *t)
{
	for (int i = 0; i < g->nout; i++)
		if (g->out[i].t == t)
			return true;
	return false;
}

const wf_op *wf_op_find(const wf_op *const *ops, const char *name)
{
	for (; *ops; ops++)
		if (!strcmp((*ops)->name, name))
			return *ops;
	return NULL;
}

/* ---- hash-consing ---- */

static bool same(const wf_tensor *a, const wf_tensor *b)
{
	if (a->hash[0] != b->hash[0] || a->hash[1] != b->hash[1] || a->op != b->op ||
	    a->nin != b->nin || a->ndim != b->ndim || a->dtype != b->dtype)
		return false;
	if (memcmp(a->in, b->in, sizeof a->in) || memcmp(a->attr, b->attr, sizeof a->attr) ||
	    memcmp(a->dim, b->dim, sizeof a->dim))
		return false;
	if (a->name && strcmp(a->name, b->name))
		return false;
	return !a->literal || !memcmp(a->literal, b->literal, sizeof(float) * wf_nelem(a));
}

static void hash(wf_tensor *t)
{
	XXH3_state_t state;
	XXH128_hash_t sum;

	XXH3_128bits_reset(&state);
	XXH3_128bits_update(&state, t->op->name, strlen(t->op->name) + 1);
	for (int i = 0; i < t->nin; i++)
		XXH3_128bits_update(&state, t->in[i]->hash, sizeof t->in[i]->hash);
	XXH3_128bits_update(&state, t->attr, sizeof t->attr);
	XXH3_128bits_update(&state, t->dim, sizeof t->dim);
	XXH3_128bits_update(&state, &t->dtype, sizeof t->dtype);
	if (t->name)
		XXH3_128bits_update(&state, t->name, strlen(t->name) + 1);
	if (t->literal)
		XXH3_128bits_update(&state, t->literal, sizeof(float) * wf_nelem(t));
	sum = XXH3_128bits_digest(&state);
	t->hash[0] = sum.low64;
	t->hash[1] = sum.high64;
}

static int grow_table(wf_graph *g)
{
	int n = g->ntable * 2;
	wf_tensor **table = wf_alloc_n(g->arena, n, sizeof *table);

	if (!table)
		return no_memory(g);
	for (int i = 0; i < g->nnode; i++) {
		wf_tensor *t = g->node[i], **slot = &table[t->hash[0] & (n - 1)];
		t->next = *slot;
		*slot = t;
	}
	g->table = table;
	g->ntable = n;
	return 0;
}

static int grow_nodes(wf_graph *g)
{
	int n = g->maxnode ? g->maxnode * 2 : 256;
	wf_tensor **node = wf_alloc_n(g->arena, n, sizeof *node);

	if (!node)
		return no_memory(g);
	if (g->nnode)
		memcpy(node, g->node, sizeof *node * g->nnode);
	g->node = node;
	g->maxnode = n;
	return 0;
}

/* The graph's node equal to *t, made when there is none. */
static wf_tensor *intern(wf_graph *g, wf_tensor *t)
{
	t->g = g;
	hash(t);
	for (wf_tensor *have = g->table[t->hash[0] & (g->ntable - 1)]; have; have = have->next)
		if (same(have, t))
			return have;
	if (g->nnode == g->maxnode && grow_nodes(g))
		return &g->dummy;
	if (g->nnode >= g->ntable && grow_table(g))
		return &g->dummy;
	wf_tensor *kept = wf_alloc(g->arena, sizeof *kept);
	if (!kept) {
		no_memory(g);
		return &g->dummy;
	}
	*kept = *t;
	kept->id = g->nnode;
	kept->scope = g->scope;
	wf_tensor **slot = &g->table[kept->hash[0] & (g->ntable - 1)];
	kept->next = *slot;
	*slot = kept;
	g->node[g->nnode++] = kept;
	return kept;
}

/* ---- leaves ---- */

static int check_dims(wf_graph *g, const char *what, const char *name, int ndim, const int64_t *dim)
{
	int64_t n = 1;

	if (ndim < 1 || ndim > WF_MAXDIM)
		return wf_fail(g->err, "%s %s: %d dimensions, expected 1 to %d", what, name, ndim, WF_MAXDIM);
	for (int i = 0; i < ndim; i++) {
		if (dim[i] < WF_R || dim[i] == 0 || dim[i] > MAXDIMS)
			return wf_fail(g->err, "%s %s: dimension %d is %lld, expected 1 to %d", what, name,
				i, (long long)dim[i], MAXDIMS);
		if (__builtin_mul_overflow(n, dim[i] < 0 ? 1 : dim[i], &n))
			return wf_fail(g->err, "%s %s: more than 2^63 values", what, name);
	}
	return 0;
}

/* Names go into the text form and file names: letters, digits, dot, dash, underscore. */
static int check_name(wf_graph *g, const char *what, const char *name)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";

	if (!name)
		return no_memory(g);
	if (!*name || name[strspn(name, allowed)] || strlen(name) > 127)
		return wf_fail(g->err, "%s '%.127s': a name is 1 to 127 of letters, digits, '_', '.', '-'", what, name);
	return 0;
}

static wf_tensor *leaf(wf_graph *g, const wf_op *op, wf_dtype dtype, int ndim, const int64_t *dim, const char *name)
{
	wf_tensor t = {.op = op, .dtype = dtype, .ndim = ndim, .constant = op != &wf_op_input};

	memcpy(t.dim, dim, sizeof *dim * ndim);
	t.name = wf_strdup(g->arena, name);
	if (!t.name) {
		no_memory(g);
		return &g->dummy;
	}
	return intern(g, &t);
}

wf_tensor *wf_input(wf_graph *g, const char *name, wf_dtype dtype, int ndim, const int64_t *dim)
{
	if (wf_failed(g) || check_name(g, "input", name) || check_dims(g, "input", name, ndim, dim))
		return &g->dummy;
	return leaf(g, &wf_op_input, dtype, ndim, dim, name);
}

/* A file may write a vector as [n] or [1,n], [n,1]: the values are the same. */
static bool same_dims(const struct wf_blob *b, int ndim, const int64_t *dim)
{
	int64_t a[WF_MAXDIM], c[WF_MAXDIM];
	int na = 0, nc = 0;

	for (int i = 0; i < b->ndim; i++)
		if (b->dim[i] != 1)
			a[na++] = b->dim[i];
	for (int i = 0; i < ndim; i++)
		if (dim[i] != 1)
			c[nc++] = dim[i];
	return na == nc && !memcmp(a, c, sizeof *a * na);
}

/* The type of a weight without a file: as quantisers do, vectors and rows that blocks do not divide stay f32. */
static wf_dtype assumed_type(const wf_graph *g, int ndim, const int64_t *dim)
{
	int block = wf_dtypes[g->wdtype].block;

	return block == 1 || (ndim > 1 && dim[ndim - 1] % block == 0) ? g->wdtype : WF_F32;
}

wf_tensor *wf_weight(wf_graph *g, int ndim, const int64_t *dim, const char *fmt, ...)
{
	struct wf_blob blob = {0};
	char name[160], want[96], have[96];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(name, sizeof name, fmt, ap);
	va_end(ap);
	if (wf_failed(g) || check_name(g, "weight", name) || check_dims(g, "weight", name, ndim, dim))
		return &g->dummy;
	blob.dtype = assumed_type(g, ndim, dim);
	if (g->weights && g->weights->find(g->weights, name, &blob)) {
		wf_fail(g->err, "weight %s: not in the model's files, expected [%s]", name,
			text_dims(want, sizeof want, ndim, dim));
		return &g->dummy;
	}
	if (g->weights && !same_dims(&blob, ndim, dim)) {
		wf_fail(g->err, "weight %s: expected [%s], found [%s]", name,
			text_dims(want, sizeof want, ndim, dim), text_dims(have, sizeof have, blob.ndim, blob.dim));
		return &g->dummy;
	}
	if ((unsigned)blob.dtype >= WF_NDTYPE) {
		wf_fail(g->err, "weight %s: of type %s, which nothing here reads", name, blob.type ? blob.type : "unknown");
		return &g->dummy;
	}
	if (dim[ndim - 1] % wf_dtypes[blob.dtype].block) {
		wf_fail(g->err, "weight %s: rows of %lld values, no multiple of the %d of a %s block", name,
			(long long)dim[ndim - 1], wf_dtypes[blob.dtype].block, wf_dtypes[blob.dtype].name);
		return &g->dummy;
	}
	return leaf(g, &wf_op_weight, blob.dtype, ndim, dim, name);
}

bool wf_has_weight(const wf_graph *g, const char *fmt, ...)
{
	struct wf_blob blob;
	char name[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(name, sizeof name, fmt, ap);
	va_end(ap);
	return g->weights && !g->weights->find(g->weights, name, &blob);
}

wf_tensor *wf_const(wf_graph *g, int ndim, const int64_t *dim, const float *values)
{
	return graph_literal(g, WF_F32, ndim, dim, values);
}

wf_tensor *graph_literal(wf_graph *g, wf_dtype dtype, int ndim, const int64_t *dim, const float *values)
{
	wf_tensor t = {.op = &wf_op_const, .dtype = dtype, .ndim = ndim, .constant = true, .g = g};

	if (wf_failed(g) || check_dims(g, "const", "", ndim, dim))
		return &g->dummy;
	memcpy(t.dim, dim, sizeof *dim * ndim);
	float *copy = wf_alloc_n(g->arena, wf_nelem(&t), sizeof *copy);
	if (!copy) {
		no_memory(g);
		return &g->dummy;
	}
	memcpy(copy, values, sizeof *copy * wf_nelem(&t));
	t.literal = copy;
	return intern(g, &t);
}

/* ---- computed nodes ---- */

static int check_operands(wf_graph *g, const wf_op *op, wf_tensor *const *in, int nin)
{
	char most[16] = "";

	if (op->nopt)
		snprintf(most, sizeof most, " to %d", op->nin + op->nopt);
	if (nin < op->nin || nin > op->nin + op->nopt || nin > WF_MAXIN)
		return wf_fail(g->err, "%s: %d operands, expected %d%s (%s)", op->name, nin, op->nin, most, g->scope);
	for (int i = 0; i < nin; i++)
		if (!in[i] || in[i]->g != g)
			return wf_fail(g->err, "%s: operand %d is not a node of this graph (%s)", op->name, i, g->scope);
	for (int i = 0; i < nin && op->kind != WF_MOVE; i++)
		if (in[i]->dtype == WF_I32 && !(op->numbers >> i & 1))
			return wf_fail(g->err, "%s: operand %d is of whole numbers, expected values (%s)", op->name, i, g->scope);
	return 0;
}

/* Shape rules convert attributes to integers. */
static int check_attributes(wf_graph *g, const wf_op *op, const double *attr)
{
	struct wf_attr_info info;

	for (int k = 0; !wf_attr_info(op, k, &info); k++) {
		if (attr[k] != attr[k])
			return wf_fail(g->err, "%s: %.*s is not a number (%s)", op->name, (int)info.len, info.name, g->scope);
		if (info.whole && !(fabs(attr[k]) < 0x1p53 && attr[k] == trunc(attr[k])))
			return wf_fail(g->err, "%s: %.*s is %g, expected a whole number (%s)", op->name, (int)info.len, info.name,
				attr[k], g->scope);
	}
	return 0;
}

wf_tensor *wf_node(wf_graph *g, const wf_op *op, wf_tensor *const *in, int nin, const double *attr)
{
	wf_tensor t = {.op = op, .nin = nin, .dtype = g->act, .g = g, .constant = !op->state};

	if (wf_failed(g) || check_operands(g, op, in, nin))
		return &g->dummy;
	for (int i = 0; i < nin; i++) {
		t.in[i] = in[i];
		t.constant &= in[i]->constant;
	}
	if (attr)
		memcpy(t.attr, attr, sizeof t.attr);
	if (check_attributes(g, op, t.attr))
		return &g->dummy;
	if (nin) {
		t.ndim = in[0]->ndim;
		memcpy(t.dim, in[0]->dim, sizeof t.dim);
	}
	if (t.constant)
		t.dtype = WF_F32;
	else if (op->kind == WF_MOVE && !in[0]->constant)
		t.dtype = in[0]->dtype;
	if (op->shape(g, &t) || check_dims(g, op->name, g->scope, t.ndim, t.dim))
		return &g->dummy;
	return intern(g, &t);
}

wf_tensor *graph_copy(wf_graph *g, const wf_tensor *like, wf_tensor *const *in)
{
	const char *scope = g->scope;

	g->scope = like->scope;
	wf_tensor *t = wf_node(g, like->op, in, like->nin, like->attr);
	g->scope = scope;
	return t;
}

/* The k-th name of "a b=2 c@": its start and length; NULL past the end. */
static const char *attr_name(const char *names, int k, size_t *len)
{
	if (!names)
		return NULL;
	while (*names == ' ')
		names++;
	for (; k > 0 && *names; k--) {
		names += strcspn(names, " ");
		while (*names == ' ')
			names++;
	}
	*len = strcspn(names, " =@#");
	return *names ? names : NULL;
}

int wf_attr_index(const wf_op *op, const char *name)
{
	const char *s;
	size_t len;

	for (int k = 0; (s = attr_name(op->attr, k, &len)); k++)
		if (len == strlen(name) && !memcmp(s, name, len))
			return k;
	return -1;
}

int wf_attr_info(const wf_op *op, int k, struct wf_attr_info *info)
{
	size_t len;
	const char *s = attr_name(op->attr, k, &len);

	if (!s)
		return -1;
	*info = (struct wf_attr_info){.name = s, .len = len};
	s += len;
	info->address = *s == '@';
	info->whole = info->address || *s == '#';
	s += info->whole;
	info->has_absent = *s == '=';
	if (info->has_absent)
		info->absent = number_read(s + 1, NULL);
	return 0;
}

void wf_scope(wf_graph *g, const char *fmt, ...)
{
	char name[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(name, sizeof name, fmt, ap);
	va_end(ap);
	if (wf_failed(g) || !strcmp(name, g->scope) || (*name && check_name(g, "scope", name)))
		return;
	const char *kept = wf_strdup(g->arena, name);
	if (kept)
		g->scope = kept;
	else
		no_memory(g);
}

void wf_output(wf_graph *g, const char *name, wf_tensor *t)
{
	if (wf_failed(g) || check_name(g, "output", name))
		return;
	if (g->nout == g->maxout) {
		int n = g->maxout ? g->maxout * 2 : 4;
		struct wf_out *out = wf_alloc_n(g->arena, n, sizeof *out);
		if (!out) {
			no_memory(g);
			return;
		}
		if (g->nout)
			memcpy(out, g->out, sizeof *out * g->nout);
		g->out = out;
		g->maxout = n;
	}
	const char *kept = wf_strdup(g->arena, name);
	if (!kept) {
		no_memory(g);
		return;
	}
	g->out[g->nout++] = (struct wf_out){kept, t};
}

/* ---- sweep ---- */

/* needs: nothing.  keeps: order.  breaks: ids. */
void graph_sweep(wf_graph *g)
{
	int n = 0;

	for (int i = 0; i < g->nnode; i++)
		g->node[i]->id = -1;
	for (int i = 0; i < g->nout; i++)
		if (g->out[i].t != &g->dummy)
			g->out[i].t->id = 0;
	for (int i = g->nnode - 1; i >= 0; i--)
		if (g->node[i]->id == 0)
			for (int k = 0; k < g->node[i]->nin; k++)
				g->node[i]->in[k]->id = 0;
	memset(g->table, 0, sizeof *g->table * g->ntable);
	for (int i = 0; i < g->nnode; i++) {
		wf_tensor *t = g->node[i];
		if (t->id < 0)
			continue;
		t->id = n;
		g->node[n++] = t;
		wf_tensor **slot = &g->table[t->hash[0] & (g->ntable - 1)];
		t->next = *slot;
		*slot = t;
	}
	g->nnode = n;
}
