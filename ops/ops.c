/* ops.c - the table of ops and how it grows, and the shape rules and costs several of them share. */
#include "ops/ops.h"
#include <pthread.h>
#include <string.h>

enum { MAXOP = 128, MAXWORD = 31 };

/* Rows first, then what was registered; the last entry stays NULL. */
static const wf_op *table[MAXOP + 1] = {
#define OP(name, sig) &wf_op_##name,
	OPS(OP)
#undef OP
};

const wf_op *const *const wf_ops = table;

/* ---- ops of your own ---- */

/* A word that C, CUDA and the text form read alike: the name of op, attribute and device function. */
static size_t word(const char *s)
{
	size_t n = *s >= 'a' && *s <= 'z' ? strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_") : 0;

	return n <= MAXWORD ? n : 0;
}

/* "alpha=1 layer@" */
static bool attributes_read(const wf_op *op)
{
	struct wf_attr_info info;
	int n = 0;

	for (; !wf_attr_info(op, n, &info); n++)
		if (n == WF_MAXATTR || !info.len || word(info.name) != info.len)
			return false;
	return true;
}

/* Does the text define a function of that name? */
static bool defines(const char *cuda, const char *name)
{
	size_t len = strlen(name);

	for (const char *at = strstr(cuda, name); at; at = strstr(at + 1, name))
		if (at > cuda && at[-1] == ' ' && at[len] == '(')
			return true;
	return false;
}

static const char *fault(const wf_op *op)
{
	if (op->kind != WF_MAP && op->kind != WF_ROW)
		return "its kind is neither WF_MAP nor WF_ROW, the loops that backends run for any op";
	if (op->nin < 1 || op->nopt < 0 || op->nin > WF_MAXIN || op->nopt > WF_MAXIN - op->nin)
		return "expected from 1 to WF_MAXIN operands";
	if (op->nopt > (op->kind == WF_ROW))
		return "expected no optional operands, or one of a ROW (CUDA is given 0 for it)";
	if (op->state || op->view || op->source_row)
		return "state, view and source_row are for other kinds";
	if (!op->doc || !*op->doc)
		return "doc is missing: its mathematics in one line";
	if (!op->shape || !op->eval || !op->span || !op->cost)
		return "expected a shape rule, eval, span and cost (wf_same_shape or wf_row_shape, wf_span_eval, wf_map_cost)";
	if (!attributes_read(op))
		return "attr is no list of lower-case names as in \"alpha limit=7\"";
	if (!op->cuda)
		return NULL;
	if (op->kind == WF_MAP && !defines(op->cuda, op->name))
		return "its CUDA text defines no function of the op's name";
	if (op->kind == WF_ROW && (!defines(op->cuda, "lift") || !defines(op->cuda, "drop")))
		return "its CUDA text defines no lift() and drop()";
	return NULL;
}

static int add(wf_error *err, const wf_op *op)
{
	const wf_op *taken = wf_op_find(wf_ops, op->name);
	int n = 0;

	if (taken == op)
		return 0;
	if (taken)
		return wf_fail(err, "op %s: there is one of that name already: %s", op->name, taken->doc);
	while (table[n])
		n++;
	if (n == MAXOP)
		return wf_fail(err, "op %s: more than %d ops", op->name, MAXOP);
	__atomic_store_n(&table[n], op, __ATOMIC_RELEASE);
	return 0;
}

int wf_op_register(wf_error *err, const wf_op *op)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

	if (!op->name || !*op->name || word(op->name) != strlen(op->name))
		return wf_fail(err, "op \"%.40s\": expected a name of at most %d lower-case letters, digits and _",
			op->name ? op->name : "", MAXWORD);
	const char *why = fault(op);
	if (why)
		return wf_fail(err, "op %s: %s", op->name, why);
	pthread_mutex_lock(&lock);
	int result = add(err, op);
	pthread_mutex_unlock(&lock);
	return result;
}

/* ---- what ops share ---- */

/* b's dims are a's, or a's last ones: b repeats over the leading dims. */
static bool trails(const wf_tensor *a, const wf_tensor *b)
{
	return b->ndim <= a->ndim &&
		!memcmp(a->dim + a->ndim - b->ndim, b->dim, sizeof *b->dim * b->ndim);
}

int wf_choice_among(wf_graph *g, const wf_tensor *y, int k, int64_t n)
{
	const wf_tensor *id = y->in[k];

	if (id->ndim != 2 || id->dtype != WF_I32)
		return wf_fail(g->err, "%s: choice of %d dims in %s, expected i32 [tokens, k] (%s)", y->op->name, id->ndim,
			wf_dtypes[id->dtype].name, g->scope);
	if (id->op == &wf_op_route && wf_last(id->in[0]) > n)
		return wf_fail(g->err, "%s: chosen among %lld experts, of which there are %lld (%s)", y->op->name,
			(long long)wf_last(id->in[0]), (long long)n, g->scope);
	return 0;
}

int wf_same_shape(wf_graph *g, wf_tensor *y)
{
	for (int k = 1; k < y->nin; k++)
		if (!trails(y->in[0], y->in[k]))
			return wf_fail(g->err, "%s: operand %d of %d dims ending in %lld does not repeat over "
				"%d dims ending in %lld (%s)", y->op->name, k, y->in[k]->ndim,
				(long long)y->in[k]->dim[y->in[k]->ndim - 1], y->ndim, (long long)y->dim[y->ndim - 1], g->scope);
	return 0;
}

int wf_row_shape(wf_graph *g, wf_tensor *y)
{
	if (y->dim[y->ndim - 1] < 0)
		return wf_fail(g->err, "%s: rows of symbolic length (%s)", y->op->name, g->scope);
	for (int k = 1; k < y->nin; k++)
		if (y->in[k]->ndim != 1 || y->in[k]->dim[0] != y->dim[y->ndim - 1])
			return wf_fail(g->err, "%s: row of %lld, weight of %lld (%s)", y->op->name,
				(long long)y->dim[y->ndim - 1], (long long)y->in[k]->dim[0],
				y->in[k]->name ? y->in[k]->name : g->scope);
	return 0;
}

static double bytes_of(const wf_tensor *t)
{
	return (double)wf_nelem(t) / wf_dtypes[t->dtype].block * wf_dtypes[t->dtype].bytes;
}

struct wf_cost wf_map_cost(const wf_tensor *y)
{
	struct wf_cost cost = {.flops = (double)wf_nelem(y), .bytes_out = bytes_of(y)};

	for (int k = 0; k < y->nin; k++)
		*(y->in[k]->constant ? &cost.bytes_weight : &cost.bytes_in) += bytes_of(y->in[k]);
	return cost;
}

struct wf_cost no_cost(const wf_tensor *y)
{
	(void)y;
	return (struct wf_cost){0};
}

const float *wf_map_operand(const wf_tensor *y, int k, int64_t *period)
{
	*period = wf_nelem(y->in[k]);
	return y->in[k]->data;
}

void wf_span_eval(wf_tensor *y)
{
	int64_t n = wf_last(y), rows = wf_rows(y), tokens = y->ndim > 1 ? wf_size(y, 0) : 1;
	struct wf_span s = {.attr = y->attr, .n = n};

	for (int k = 0; k < y->nin; k++)
		s.length[k] = wf_nelem(y->in[k]);
	for (s.row = 0; s.row < rows; s.row++) {
		s.token = s.row / (rows / tokens);
		s.out = (float *)y->data + s.row * n;
		for (int k = 0; k < y->nin; k++)
			s.in[k] = (const float *)y->in[k]->data +
				(y->op->kind == WF_MAP || k == 0 ? s.row * n % s.length[k] : 0);
		y->op->span(&s);
	}
}

/* Weights keep their type under a change of layout. */
int layout_shape(wf_graph *g, wf_tensor *y)
{
	const wf_tensor *a = y->in[0];

	y->dtype = a->dtype;
	for (int k = 1; k < y->nin; k++) {
		const wf_tensor *b = y->in[k];
		if (b->dtype != a->dtype || b->ndim != a->ndim ||
		    memcmp(a->dim + 1, b->dim + 1, sizeof *a->dim * (a->ndim - 1)))
			return wf_fail(g->err, "%s: operands differ in type or in what follows dimension 0 (%s)",
				y->op->name, b->name ? b->name : g->scope);
	}
	return 0;
}

void rows_eval(wf_tensor *y)
{
	int64_t n = wf_nelem(y) / wf_size(y, 0), src;
	float *o = y->data;

	for (int64_t r = 0; r < wf_size(y, 0); r++) {
		int k = y->op->source_row(y, r, &src);
		memcpy(o + r * n, (const float *)y->in[k]->data + src * n, sizeof *o * n);
	}
}
