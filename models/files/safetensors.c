/* safetensors.c - one safetensors file.
 *
 *   header bytes:u64 | JSON header, begins with '{', may end in spaces | data
 *
 * The header maps each name to {dtype, shape, data_offsets}.  As the format asks, the tensors cover
 * the data exactly: no overlap, no hole, nothing behind, so nothing can hide in the file.  Data may
 * lie at any address.  Format: the safetensors README. */
#include "models/model.h"

#include <assert.h>
#include <jansson.h>
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
	struct span *span;               /* of each tensor */
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

/* A JSON integer >= 0; -1 for anything else. */
static int64_t natural(const json_t *v)
{
	json_int_t n = json_is_integer(v) ? json_integer_value(v) : -1;

	return n < 0 ? -1 : n;
}

/* More dimensions than a graph has are kept as a tensor nothing can read. */
static int read_shape(struct parser *p, const json_t *shape, struct wf_blob *b, const char *name, int64_t *nelem)
{
	size_t n = json_array_size(shape);

	if (!json_is_array(shape) || n > MAXDIMS)
		return wf_fail(p->err, "safetensors: %s: expected a shape of at most %d dimensions", name, MAXDIMS);
	*nelem = 1;
	for (size_t i = 0; i < n; i++) {
		int64_t dim = natural(json_array_get(shape, i));
		if (dim < 0)
			return wf_fail(p->err, "safetensors: %s: a dimension is not an integer >= 0", name);
		if (__builtin_mul_overflow(*nelem, dim, nelem))
			return wf_fail(p->err, "safetensors: %s: the product of its dimensions overflows", name);
		if (i < WF_MAXDIM)
			b->dim[i] = dim;
	}
	b->ndim = (int)n;
	if (n > WF_MAXDIM) {
		b->ndim = WF_MAXDIM;
		b->dtype = WF_NDTYPE;
		b->type = "of more than 4 dimensions";
	}
	return 0;
}

static int read_offsets(struct parser *p, const json_t *offsets, struct span *s, const char *name)
{
	int64_t begin = natural(json_array_get(offsets, 0)), end = natural(json_array_get(offsets, 1));

	if (json_array_size(offsets) != 2 || begin < 0 || end < begin)
		return wf_fail(p->err, "safetensors: %s: expected data_offsets [begin, end]", name);
	if ((uint64_t)end > p->bytes)
		return wf_fail(p->err, "safetensors: %s ends past the file: offset %lld, %zu bytes of data", name,
			(long long)end, p->bytes);
	s->begin = (size_t)begin;
	s->end = (size_t)end;
	return 0;
}

static int read_entry(struct parser *p, const json_t *entry, struct wf_blob *b, struct span *s, const char *name)
{
	const char *dtype = json_string_value(json_object_get(entry, "dtype"));
	int64_t nelem = 0, nbits;
	char show[NAMES_SHOW];

	if (!json_is_object(entry) || !dtype)
		return wf_fail(p->err, "safetensors: %s: expected {dtype, shape, data_offsets}", name);
	int each = find_type(dtype, b);
	if (each < 0)
		return wf_fail(p->err, "safetensors: %s has unknown dtype %s", name,
			names_show(show, dtype, strlen(dtype)));
	if (read_shape(p, json_object_get(entry, "shape"), b, name, &nelem) < 0 ||
	    read_offsets(p, json_object_get(entry, "data_offsets"), s, name) < 0)
		return -1;
	if (__builtin_mul_overflow(nelem, (int64_t)each, &nbits) || nbits % 8)
		return wf_fail(p->err, "safetensors: %s: its size overflows or is not whole bytes", name);
	b->bytes = s->end - s->begin;
	if ((uint64_t)nbits / 8 != b->bytes)
		return wf_fail(p->err, "safetensors: %s: %zu bytes by its data_offsets, %lld by its shape", name,
			b->bytes, (long long)(nbits / 8));
	b->data = p->data + s->begin;
	return 0;
}

static int read_tensor(struct parser *p, const char *name, const json_t *entry)
{
	safetensors *f = p->file;
	size_t i = f->names.n, len = strlen(name);
	char show[NAMES_SHOW];

	names_show(show, name, len);
	if (!names_plain(name, len) || len > MAXNAME)
		return wf_fail(p->err, "safetensors: a tensor's name is empty, longer than %d bytes or has control "
			"characters: \"%s\"", MAXNAME, show);
	char *copy = wf_strdup(p->arena, name);
	if (!copy)
		return wf_fail(p->err, "safetensors: out of memory");
	if (names_add(&f->names, copy, len) < 0)
		return wf_fail(p->err, "safetensors: tensor %s appears twice", show);
	p->span[i].name = copy;
	return read_entry(p, entry, &f->blob[i], &p->span[i], show);
}

static int check_metadata(struct parser *p, const json_t *metadata)
{
	const char *key;
	json_t *value;

	if (!json_is_object(metadata))
		return wf_fail(p->err, "safetensors: expected __metadata__ to be an object");
	json_object_foreach((json_t *)metadata, key, value)
		if (!json_is_string(value))
			return wf_fail(p->err, "safetensors: expected __metadata__ to hold strings only");
	return 0;
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

static int read_tensors(struct parser *p, json_t *header)
{
	size_t n = json_object_size(header);
	const char *name;
	json_t *entry;

	if (n > MAXTENSOR)
		return wf_fail(p->err, "safetensors: %zu tensors, expected at most %d", n, MAXTENSOR);
	p->file->blob = wf_alloc_n(p->arena, n, sizeof *p->file->blob);
	p->span = wf_alloc_n(p->arena, n, sizeof *p->span);
	if (!p->file->blob || !p->span || names_new(p->arena, &p->file->names, n) < 0)
		return wf_fail(p->err, "safetensors: out of memory");
	json_object_foreach(header, name, entry)
		if ((strcmp(name, "__metadata__") ? read_tensor(p, name, entry) : check_metadata(p, entry)) < 0)
			return -1;
	return check_cover(p);
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
	json_error_t why;
	char show[NAMES_SHOW];

	if (header_bytes(err, data, bytes, &n) < 0)
		return NULL;
	struct parser p = {.arena = arena, .err = err, .file = wf_alloc(arena, sizeof *p.file),
		.data = data + 8 + n, .bytes = bytes - 8 - n};
	if (!p.file) {
		wf_fail(err, "safetensors: out of memory");
		return NULL;
	}
	json_t *header = json_loadb((const char *)data + 8, n, JSON_REJECT_DUPLICATES, &why);
	if (!header) {
		wf_fail(err, "safetensors: header: %s", names_show(show, why.text, strlen(why.text)));
		return NULL;
	}
	int rc = read_tensors(&p, header);
	json_decref(header);
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
