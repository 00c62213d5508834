/* quants.h - the shared samples of quantised blocks, and weights made of them: 64 rows of 256 values of a type. */
#ifndef TESTS_QUANTS_H
#define TESTS_QUANTS_H

#include "harness.h"

enum { QUANT_ROWS = 64, QUANT_COLS = 256, QUANT_WEIGHTS = 64 };

struct quant { wf_weights weights; int n; struct { const char *name; struct wf_blob blob; } one[QUANT_WEIGHTS]; };

static inline int quant_find(const wf_weights *w, const char *name, struct wf_blob *out)
{
	const struct quant *q = (const struct quant *)w;

	for (int i = 0; i < q->n; i++)
		if (!strcmp(q->one[i].name, name)) {
			*out = q->one[i].blob;
			return 0;
		}
	return -1;
}

/* A file of the shared blocks, Q4_0.bin say, to be freed; NULL where they are not. */
static inline void *quant_file(wf_dtype type, const char *ext, size_t *bytes)
{
	enum { MOST = 1 << 20 };
	const char *shared = getenv("WEFT_SHARED");
	char path[512], name[16];

	snprintf(name, sizeof name, "%s", wf_dtypes[type].name);
	for (char *c = name; *c; c++)
		*c = (char)(*c >= 'a' && *c <= 'z' ? *c - 32 : *c);
	snprintf(path, sizeof path, "%s/quants/%s.%s", shared ? shared : "../shared", name, ext);
	FILE *f = fopen(path, "rb");
	if (!f)
		return NULL;
	void *data = malloc(MOST);
	assert_non_null(data);
	*bytes = fread(data, 1, MOST, f);
	fclose(f);
	return data;
}

/* The rows there are of a type, to be freed; NULL where the shared files are not. */
static inline uint8_t *quant_read(wf_dtype type)
{
	size_t bytes = 0;
	uint8_t *data = quant_file(type, "bin", &bytes);

	if (bytes >= QUANT_ROWS * wf_row_bytes(type, QUANT_COLS))
		return data;
	print_message("no sample blocks of %s\n", wf_dtypes[type].name);
	free(data);
	return NULL;
}

/* The weights of `like`, those that `chosen` picks from `rows`, each in another order. */
static inline void quant_make(struct quant *q, struct side *like, wf_dtype type, const uint8_t *rows, bool (*chosen)(const wf_tensor *))
{
	size_t row = wf_row_bytes(type, QUANT_COLS);

	*q = (struct quant){.weights.find = quant_find};
	for (int i = 0; i < like->g->nnode; i++) {
		const wf_tensor *t = like->g->node[i];
		if (t->op != &wf_op_weight)
			continue;
		assert_true(q->n < QUANT_WEIGHTS);
		struct wf_blob *b = &q->one[q->n].blob;
		q->one[q->n++].name = t->name;
		assert_false(like->g->weights->find(like->g->weights, t->name, b));
		if (wf_last(t) % QUANT_COLS || !chosen(t))
			continue;
		int64_t n = wf_nelem(t) / QUANT_COLS;
		uint8_t *data = wf_alloc_n(like->arena, (size_t)n, row);
		for (int64_t k = 0; k < n; k++)
			memcpy(data + (size_t)k * row, rows + (size_t)((k * 7 + i) % QUANT_ROWS) * row, row);
		b->dtype = type;
		b->data = data;
		b->bytes = (size_t)n * row;
	}
}

#endif
