/* eval.c - the definition of a whole graph: op->eval, node by node, and the values of constants. */
#include "graph/graph.h"
#include <math.h>
#include <string.h>

/* ---- the cache as the definition sees it ---- */

int kv_seq_of(const wf_batch *batch, int token)
{
	int s = 0;

	while (s + 1 < batch->nseq && token >= batch->seq_start[s + 1])
		s++;
	return s;
}

bool kv_fits(const struct wf_kvclass *c, const wf_tensor *cache)
{
	return c->nkv == cache->dim[1] && c->kdim == cache->dim[2] && c->vdim == cache->in[1]->dim[2] &&
		c->dtype == cache->dtype && c->window == (int)cache->attr[wf_attr_index(cache->op, "window")];
}

int kv_find(const wf_slab *slab, const wf_tensor *cache, int *layer_index)
{
	int layer = (int)cache->attr[wf_attr_index(cache->op, "layer")];

	for (int c = 0; c < wf_slab_nclass(slab); c++) {
		const struct wf_kvclass *cls = wf_slab_class(slab, c);
		for (int i = 0; kv_fits(cls, cache) && i < cls->nlayer; i++)
			if (cls->layer[i] == layer) {
				*layer_index = i;
				return c;
			}
	}
	return -1;
}

void *kv_at(const struct wf_kv *kv, const wf_tensor *cache, int s, int64_t pos, int h, bool v)
{
	int layer, c = kv_find(kv->slab, cache, &layer), tokens = wf_slab_page_tokens(kv->slab);
	const struct wf_kvclass *cls = wf_slab_class(kv->slab, c);
	int32_t page = kv->batch->page[s * wf_slab_nclass(kv->slab) + c][pos / tokens];
	size_t size = wf_dtypes[cls->dtype].bytes;
	uint8_t *at = kv->base[c] + (size_t)page * slab_page_bytes(cls, tokens) + (size_t)layer * slab_layer_bytes(cls, tokens);

	if (v)
		at += (size_t)cls->nkv * tokens * cls->kdim * size;
	return at + ((size_t)h * tokens + pos % tokens) * (v ? cls->vdim : cls->kdim) * size;
}

/* Slope of head h of n: powers of 2^(-bias/m) for the largest power of two m, then the odd powers of
 * the next finer series.  (Press et al. 2021, arXiv 2108.12409, section 3) */
double alibi_slope(double bias, int h, int n)
{
	int m = 1;

	while (2 * m <= n)
		m *= 2;
	return h < m ? exp2(-bias * (h + 1) / m) : exp2(-bias * (2 * (h - m) + 1) / (2.0 * m));
}

/* ---- constants ---- */

static int no_memory(const wf_graph *g)
{
	return wf_fail(g->err, "eval: out of memory");
}

static int weight_value(wf_tensor *t, wf_arena *scratch)
{
	struct wf_blob blob;

	if (!t->g->weights || t->g->weights->find(t->g->weights, t->name, &blob))
		return wf_fail(t->g->err, "eval: weight %s is in no file at hand", t->name);
	float *value = wf_alloc_n(scratch, wf_nelem(t), sizeof *value);
	if (!value)
		return no_memory(t->g);
	wf_decode(blob.dtype, value, blob.data, wf_nelem(t));
	t->data = value;
	return 0;
}

/* i32 literals are kept as floats in the graph. */
static int literal_value(wf_tensor *t, wf_arena *scratch)
{
	float *value = wf_alloc_n(scratch, wf_nelem(t), sizeof *value);

	if (!value)
		return no_memory(t->g);
	for (int64_t i = 0; i < wf_nelem(t); i++)
		if (t->dtype == WF_I32)
			((int32_t *)(void *)value)[i] = (int32_t)t->literal[i];
		else
			value[i] = t->literal[i];
	t->data = value;
	return 0;
}

static int computed_value(wf_tensor *t, wf_arena *scratch)
{
	t->data = wf_alloc_n(scratch, wf_nelem(t), sizeof(float));
	if (!t->data)
		return no_memory(t->g);
	t->op->eval(t);
	return 0;
}

static int leaf_value(wf_tensor *t, wf_arena *scratch)
{
	if (t->op == &wf_op_weight)
		return weight_value(t, scratch);
	if (t->literal)
		return literal_value(t, scratch);
	return computed_value(t, scratch);
}

int graph_constant(wf_tensor *t, wf_arena *scratch)
{
	for (int k = 0; k < t->nin; k++)
		if (graph_constant(t->in[k], scratch))
			return -1;
	return leaf_value(t, scratch);
}

/* Rows of `t` copied as bytes from its operands, which are dense in the same type. */
static int move_bytes(wf_tensor *t, wf_arena *scratch, struct wf_blob *out)
{
	struct wf_blob in[WF_MAXIN];
	size_t row = wf_row_bytes(t->dtype, wf_nelem(t) / wf_size(t, 0));
	int64_t src;

	for (int k = 0; k < t->nin; k++)
		if (graph_constant_bytes(t->in[k], scratch, &in[k]))
			return -1;
	uint8_t *data = wf_alloc_n(scratch, wf_size(t, 0), row);
	if (!data)
		return no_memory(t->g);
	for (int64_t r = 0; r < wf_size(t, 0); r++) {
		int k = t->op->source_row(t, r, &src);
		memcpy(data + r * row, (const uint8_t *)in[k].data + src * row, row);
	}
	out->data = data;
	return 0;
}

int graph_constant_bytes(wf_tensor *t, wf_arena *scratch, struct wf_blob *out)
{
	bool whole_blocks = wf_nelem(t) / wf_size(t, 0) % wf_dtypes[t->dtype].block == 0;

	if (t->op == &wf_op_weight) {
		if (!t->g->weights || t->g->weights->find(t->g->weights, t->name, out))
			return wf_fail(t->g->err, "load: weight %s is in no file at hand", t->name);
	} else if (t->op->source_row && whole_blocks) {
		if (move_bytes(t, scratch, out))
			return -1;
	} else if (t->op->view) {
		if (graph_constant_bytes(t->in[0], scratch, out))
			return -1;
	} else {
		if (t->dtype > WF_I32)
			return wf_fail(t->g->err, "load: %s cuts blocks of %s", t->op->name, wf_dtypes[t->dtype].name);
		if (graph_constant(t, scratch))
			return -1;
		if (t->dtype == WF_F16 || t->dtype == WF_BF16)       /* in place: exact, the values came from that type */
			wf_encode(t->dtype, t->data, t->data, wf_nelem(t));
		out->data = t->data;
	}
	out->dtype = t->dtype;
	out->ndim = t->ndim;
	memcpy(out->dim, t->dim, sizeof out->dim);
	out->bytes = wf_row_bytes(t->dtype, wf_last(t)) * wf_rows(t);
	return 0;
}

/* ---- the whole graph ---- */

int graph_eval(wf_graph *g, wf_arena *scratch, const struct wf_kv *kv)
{
	int result = 0;

	g->kv = kv;
	for (int i = 0; i < g->nnode && !result; i++) {
		wf_tensor *t = g->node[i];
		if (t->op == &wf_op_input) {
			if (!t->data)
				result = wf_fail(g->err, "eval: input %s is not bound", t->name);
		} else {
			result = leaf_value(t, scratch);
		}
	}
	g->kv = NULL;
	return result;
}
