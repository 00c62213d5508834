/* safetensors.c - one safetensors file.
 *
 *   header bytes:u64 | JSON header, begins with '{', may end in spaces | data
 *
 * The header maps each name to {dtype, shape, data_offsets}.  As the format asks, the tensors cover
 * the data exactly: no overlap, no hole, nothing behind, so nothing can hide in the file.  Data may
 * lie at any address.  Format: the safetensors README. */
#include "models/model.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { MAXHEADER = 100 << 20, MAXTENSOR = 1 << 20, MAXNAME = 512, MAXDIMS = 32 };

static const struct { const char *name; int bits; } foreign[] = {
	{"BOOL", 8}, {"U8", 8}, {"I8", 8}, {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F4", 4},
	{"F6_E2M3", 6}, {"F6_E3M2", 6}, {"I16", 16}, {"U16", 16}, {"U32", 32}, {"I64", 64}, {"U64", 64},
	{"F64", 64}, {"C64", 64},
};

struct safetensors {
	struct names names;
	struct wf_blob *blob;            /* [names.n] */
};

struct span { size_t begin, end; const char *name; };

struct parser {
	wf_arena *arena;
	wf_error *err;
	safetensors *file;
	const uint8_t *data;             /* behind the header */
	size_t bytes;
	struct span *span;               /* [max] of each tensor */
	size_t max;                      /* tensors there is room for */
	struct json_scan json;
	bool metadata;                   /* seen */
};

/* Fills b's dtype or type; the bits of a value, -1 when unknown. */
static int find_type(const char *name, struct wf_blob *b)
{
	for (int i = 0; i < WF_NDTYPE; i++)
		if (wf_dtypes[i].hf && !strcmp(wf_dtypes[i].hf, name)) {
			b->dtype = (wf_dtype)i;
			return 8 * wf_dtypes[i].bytes;
		}
	b->dtype = WF_NDTYPE;
	for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
		if (!strcmp(foreign[i].name, name)) {
			b->type = foreign[i].name;
			return foreign[i].bits;
		}
	return -1;
}

/* A list of at most `max` integers >= 0; how many, -1 after wf_fail. */
static int read_list(struct parser *p, int64_t *out, int max)
{
	bool first = true;
	int n = 0, token;

	if (json_expect(&p->json, '[', "expected [") < 0)
		return -1;
	while ((token = json_element(&p->json, ']', &first)) > 0) {
		if (token != '0' || !p->json.whole || p->json.integer < 0)
			return json_fail(&p->json, "expected an integer from 0 to 2^63 - 1");
		if (n == max)
			return json_fail(&p->json, "the list is too long");
		out[n++] = p->json.integer;
	}
	return token < 0 ? -1 : n;
}

/* ---- a tensor ---- */

struct entry {
	int bits;                        /* of a value; 0: dtype not seen */
	int ndim, noffset;               /* -1: not seen */
	int64_t dim[MAXDIMS], offset[2];
};

static int read_dtype(struct parser *p, struct entry *e, struct wf_blob *b)
{
	char show[NAMES_SHOW];

	if (json_expect(&p->json, '"', "expected a dtype") < 0)
		return -1;
	e->bits = find_type(p->json.text, b);
	return e->bits > 0 ? 0 : wf_fail(p->err, "safetensors: unknown dtype %s",
		names_show(show, p->json.text, p->json.len));
}

static int read_field(struct parser *p, struct entry *e, struct wf_blob *b)
{
	const char *key = p->json.text;
	int which = !strcmp(key, "dtype") && !e->bits ? 1 : !strcmp(key, "shape") && e->ndim < 0 ? 2 :
		!strcmp(key, "data_offsets") && e->noffset < 0 ? 3 : 0;

	if (!which)
		return json_fail(&p->json, "expected each of dtype, shape, data_offsets once");
	if (json_expect(&p->json, ':', "expected :") < 0)
		return -1;
	if (which == 1)
		return read_dtype(p, e, b);
	if (which == 2)
		return (e->ndim = read_list(p, e->dim, MAXDIMS)) < 0 ? -1 : 0;
	return (e->noffset = read_list(p, e->offset, 2)) < 0 ? -1 : 0;
}

static int read_fields(struct parser *p, struct entry *e, struct wf_blob *b)
{
	bool first = true;
	int token;

	if (json_expect(&p->json, ':', "expected :") < 0 || json_expect(&p->json, '{', "expected {") < 0)
		return -1;
	while ((token = json_element(&p->json, '}', &first)) > 0)
		if (token != '"' ? json_fail(&p->json, "expected a key") : read_field(p, e, b))
			return -1;
	if (token == 0 && (!e->bits || e->ndim < 0 || e->noffset < 0))
		return wf_fail(p->err, "safetensors: expected {dtype, shape, data_offsets}");
	return token;
}

/* More dimensions than a graph has are kept as a tensor nothing can read. */
static int set_shape(struct parser *p, const struct entry *e, struct wf_blob *b, int64_t *nelem)
{
	*nelem = 1;
	for (int i = 0; i < e->ndim; i++) {
		if (__builtin_mul_overflow(*nelem, e->dim[i], nelem))
			return wf_fail(p->err, "safetensors: the product of the dimensions overflows");
		if (i < WF_MAXDIM)
			b->dim[i] = e->dim[i];
	}
	b->ndim = e->ndim < WF_MAXDIM ? e->ndim : WF_MAXDIM;
	if (e->ndim > WF_MAXDIM) {
		b->dtype = WF_NDTYPE;
		b->type = "of more than 4 dimensions";
	}
	return 0;
}

static int set_data(struct parser *p, const struct entry *e, struct wf_blob *b, struct span *s)
{
	int64_t begin = e->offset[0], end = e->offset[1], nelem = 0, nbits;

	if (e->noffset != 2 || end < begin)
		return wf_fail(p->err, "safetensors: expected data_offsets [begin, end]");
	if ((uint64_t)end > p->bytes)
		return wf_fail(p->err, "safetensors: the tensor ends past the file: offset %lld, %zu bytes of data",
			(long long)end, p->bytes);
	if (set_shape(p, e, b, &nelem) < 0)
		return -1;
	if (__builtin_mul_overflow(nelem, (int64_t)e->bits, &nbits) || nbits % 8)
		return wf_fail(p->err, "safetensors: the size overflows or is not whole bytes");
	if (nbits / 8 != end - begin)
		return wf_fail(p->err, "safetensors: %lld bytes by data_offsets, %lld by shape and dtype",
			(long long)(end - begin), (long long)(nbits / 8));
	s->begin = (size_t)begin;
	s->end = (size_t)end;
	b->bytes = s->end - s->begin;
	b->data = p->data + begin;
	return 0;
}

/* ---- the header ---- */

/* Which tensor a message is about. */
static int in_tensor(struct parser *p, const char *name)
{
	size_t len = strlen(p->err->text);

	snprintf(p->err->text + len, sizeof p->err->text - len, " (tensor %s)", name);
	return -1;
}

/* The string just read is a tensor's name. */
static int read_tensor(struct parser *p)
{
	safetensors *f = p->file;
	size_t i = f->names.n, len = p->json.len;
	struct entry e = {.ndim = -1, .noffset = -1};
	char show[NAMES_SHOW];

	names_show(show, p->json.text, len);
	if (!names_plain(p->json.text, len) || len > MAXNAME)
		return wf_fail(p->err, "safetensors: a tensor's name is empty, longer than %d bytes or has control "
			"characters: \"%s\"", MAXNAME, show);
	if (i == p->max)
		return wf_fail(p->err, "safetensors: more than %zu tensors", p->max);
	char *name = wf_strdup(p->arena, p->json.text);
	if (!name)
		return wf_fail(p->err, "safetensors: out of memory");
	if (names_add(&f->names, name, len) < 0)
		return wf_fail(p->err, "safetensors: tensor %s appears twice", show);
	p->span[i].name = name;
	if (read_fields(p, &e, &f->blob[i]) < 0 || set_data(p, &e, &f->blob[i], &p->span[i]) < 0)
		return in_tensor(p, show);
	return 0;
}

/* Strings by string, of no meaning here. */
static int skip_metadata(struct parser *p)
{
	bool first = true;
	int token;

	if (p->metadata)
		return json_fail(&p->json, "__metadata__ appears twice");
	p->metadata = true;
	if (json_expect(&p->json, ':', "expected :") < 0 ||
	    json_expect(&p->json, '{', "expected __metadata__ to be an object") < 0)
		return -1;
	while ((token = json_element(&p->json, '}', &first)) > 0) {
		if (token != '"')
			return json_fail(&p->json, "expected a key");
		if (json_expect(&p->json, ':', "expected :") < 0 ||
		    json_expect(&p->json, '"', "expected __metadata__ to hold strings only") < 0)
			return -1;
	}
	return token;
}

static int read_tensors(struct parser *p)
{
	bool first = true;
	int token;

	if (json_expect(&p->json, '{', "expected {") < 0)
		return -1;
	while ((token = json_element(&p->json, '}', &first)) > 0) {
		if (token != '"')
			return json_fail(&p->json, "expected a name");
		if ((strcmp(p->json.text, "__metadata__") ? read_tensor(p) : skip_metadata(p)) < 0)
			return -1;
	}
	return token < 0 ? -1 : json_expect(&p->json, 'E', "expected the end of the header");
}

static int by_offset(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	if (x->begin != y->begin)
		return x->begin < y->begin ? -1 : 1;
	return x->end < y->end ? -1 : x->end > y->end;
}

static int check_cover(struct parser *p)
{
	size_t at = 0, n = p->file->names.n;

	qsort(p->span, n, sizeof *p->span, by_offset);
	for (size_t i = 0; i < n; at = p->span[i++].end)
		if (p->span[i].begin != at)
			return wf_fail(p->err, "safetensors: %s begins at offset %zu, expected %zu: the data %s",
				p->span[i].name, p->span[i].begin, at,
				p->span[i].begin < at ? "overlaps" : "has a hole");
	if (at != p->bytes)
		return wf_fail(p->err, "safetensors: tensors end at offset %zu, but there are %zu bytes of data",
			at, p->bytes);
	return 0;
}

/* The smallest entry bounds how many the header can hold. */
static int make_tables(struct parser *p, size_t header)
{
	static const char smallest[] = "\"\":{\"dtype\":\"\",\"shape\":[],\"data_offsets\":[]}";

	p->max = header / (sizeof smallest - 1) + 1;
	if (p->max > MAXTENSOR)
		p->max = MAXTENSOR;
	p->file->blob = wf_alloc_n(p->arena, p->max, sizeof *p->file->blob);
	p->span = wf_alloc_n(p->arena, p->max, sizeof *p->span);
	if (!p->file->blob || !p->span || names_new(p->arena, &p->file->names, p->max) < 0)
		return wf_fail(p->err, "safetensors: out of memory");
	return 0;
}

static int header_bytes(wf_error *err, const uint8_t *data, size_t bytes, size_t *out)
{
	uint64_t n;

	if (bytes < sizeof n)
		return wf_fail(err, "safetensors: the file ends in its first 8 bytes");
	memcpy(&n, data, sizeof n);
	if (n > MAXHEADER || n > bytes - sizeof n)
		return wf_fail(err, "safetensors: header of %llu bytes, expected at most %d and %zu in the file",
			(unsigned long long)n, MAXHEADER, bytes - sizeof n);
	if (n == 0 || data[sizeof n] != '{')
		return wf_fail(err, "safetensors: expected the header to begin with {");
	*out = (size_t)n;
	return 0;
}

safetensors *safetensors_parse(wf_arena *arena, wf_error *err, const uint8_t *data, size_t bytes)
{
	size_t n = 0;

	if (header_bytes(err, data, bytes, &n) < 0)
		return NULL;
	struct parser p = {.arena = arena, .err = err, .file = wf_alloc(arena, sizeof *p.file),
		.data = data + 8 + n, .bytes = bytes - 8 - n};
	if (!p.file) {
		wf_fail(err, "safetensors: out of memory");
		return NULL;
	}
	json_open(&p.json, err, "safetensors: header", (const char *)data + 8, n);
	int rc = make_tables(&p, n) < 0 || read_tensors(&p) < 0 || check_cover(&p) < 0 ? -1 : 0;
	json_close(&p.json);
	return rc < 0 ? NULL : p.file;
}

size_t safetensors_ntensor(const safetensors *f)
{
	return f->names.n;
}

const char *safetensors_tensor(const safetensors *f, size_t i, struct wf_blob *out)
{
	assert(i < f->names.n);
	*out = f->blob[i];
	return f->names.name[i].s;
}

bool safetensors_find(const safetensors *f, const char *name, struct wf_blob *out)
{
	int64_t i = names_find(&f->names, name, strlen(name));

	if (i < 0)
		return false;
	*out = f->blob[i];
	return true;
}
