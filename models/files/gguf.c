/* gguf.c - GGUF, versions 2 and 3: metadata and tensors of one file.
 *
 *   "GGUF" version:u32 ntensor:u64 nkv:u64 | nkv x (key type value) |
 *   ntensor x (name ndim dim[] type offset) | padding | tensor data, each padded to general.alignment
 *
 * The parser reads the headers once, front to back, through next(), which knows where the file ends.
 * Nothing is allocated before the bytes that would fill it are known to be there.  What it leaves is
 * checked: accessors and tensors need no further bounds.  Format: ggml's docs/gguf.md. */
#include "models/model.h"

#include <assert.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF is read in place");

enum {
	MAXKV = 65536, MAXTENSOR = 1 << 20, MAXSTRING = 64 << 20, MAXKEY = 65535, MAXNAME = 64,
	MINALIGN = 8, MAXALIGN = 65536, ALIGN = 32,
	KV_BYTES = 8 + 1 + 4 + 1,                 /* the least a pair or a tensor takes */
	TENSOR_BYTES = 8 + 1 + 4 + 4 + 8
};

static const struct { const char *name; int bytes; } types[GGUF_NTYPE] = {
	[GGUF_U8] = {"u8", 1}, [GGUF_I8] = {"i8", 1}, [GGUF_U16] = {"u16", 2}, [GGUF_I16] = {"i16", 2},
	[GGUF_U32] = {"u32", 4}, [GGUF_I32] = {"i32", 4}, [GGUF_F32] = {"f32", 4},
	[GGUF_BOOL] = {"bool", 1}, [GGUF_STRING] = {"string", 0}, [GGUF_ARRAY] = {"array", 0},
	[GGUF_U64] = {"u64", 8}, [GGUF_I64] = {"i64", 8}, [GGUF_F64] = {"f64", 8},
};

/* Tensor types that weft does not compute with; a file may hold such tensors beside its weights. */
static const struct { const char *name; uint32_t type; int block, bytes; } foreign[] = {
	{"q8_1", 9, 32, 36}, {"q8_k", 15, 256, 292}, {"iq2_xxs", 16, 256, 66}, {"iq2_xs", 17, 256, 74},
	{"iq3_xxs", 18, 256, 98}, {"iq1_s", 19, 256, 50}, {"iq3_s", 21, 256, 110}, {"iq2_s", 22, 256, 82},
	{"i8", 24, 1, 1}, {"i16", 25, 1, 2}, {"i64", 27, 1, 8}, {"f64", 28, 1, 8},
	{"iq1_m", 29, 256, 56}, {"tq1_0", 34, 256, 54}, {"tq2_0", 35, 256, 66}, {"mxfp4", 39, 32, 17},
};

struct value {
	enum gguf_type type;
	const uint8_t *data;             /* scalars: where it lies */
	struct gguf_str str;
	struct gguf_array array;
};

struct gguf {
	struct names keys, tensors;
	struct value *value;             /* [keys.n] */
	struct wf_blob *blob;            /* [tensors.n] */
	uint64_t *offset;                /* [tensors.n] within the data section */
};

struct reader {
	wf_arena *arena;
	wf_error *err;
	const uint8_t *data;
	size_t bytes, at;
};

/* ---- reading ---- */

static size_t left(const struct reader *r)
{
	return r->bytes - r->at;
}

/* The next n bytes; NULL when the file ends before them. */
static const uint8_t *next(struct reader *r, size_t n, const char *what)
{
	if (n > left(r)) {
		wf_fail(r->err, "gguf: the file ends in %s: expected %zu bytes at %zu, found %zu",
			what, n, r->at, left(r));
		return NULL;
	}
	r->at += n;
	return r->data + r->at - n;
}

static int read_u32(struct reader *r, uint32_t *out, const char *what)
{
	const uint8_t *p = next(r, sizeof *out, what);

	if (!p)
		return -1;
	memcpy(out, p, sizeof *out);
	return 0;
}

static int read_u64(struct reader *r, uint64_t *out, const char *what)
{
	const uint8_t *p = next(r, sizeof *out, what);

	if (!p)
		return -1;
	memcpy(out, p, sizeof *out);
	return 0;
}

static int read_string(struct reader *r, size_t limit, struct gguf_str *out, const char *what)
{
	uint64_t len;
	const uint8_t *p;

	if (read_u64(r, &len, what) < 0)
		return -1;
	if (len > limit)
		return wf_fail(r->err, "gguf: %s of %llu bytes at %zu, expected at most %zu", what,
			(unsigned long long)len, r->at, limit);
	if (!(p = next(r, (size_t)len, what)))
		return -1;
	*out = (struct gguf_str){(const char *)p, (size_t)len};
	return 0;
}

static int no_memory(struct reader *r)
{
	return wf_fail(r->err, "gguf: out of memory");
}

/* ---- metadata ---- */

static int check_bools(struct reader *r, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] > 1)
			return wf_fail(r->err, "gguf: bool of value %d, expected 0 or 1", p[i]);
	return 0;
}

/* Tokens are such strings: any bytes. */
static int read_strings(struct reader *r, size_t n, struct gguf_array *out)
{
	struct gguf_str *str = wf_alloc_n(r->arena, n, sizeof *str);

	if (!str)
		return no_memory(r);
	for (size_t i = 0; i < n; i++)
		if (read_string(r, MAXSTRING, &str[i], "a string of an array") < 0)
			return -1;
	out->str = str;
	return 0;
}

static int read_array(struct reader *r, struct gguf_array *out)
{
	uint32_t type;
	uint64_t n;

	if (read_u32(r, &type, "an array's type") < 0 || read_u64(r, &n, "an array's length") < 0)
		return -1;
	if (type >= GGUF_NTYPE)
		return wf_fail(r->err, "gguf: array of unknown type %u", type);
	if (type == GGUF_ARRAY)
		return wf_fail(r->err, "gguf: array of arrays, expected one level");
	size_t least = type == GGUF_STRING ? sizeof(uint64_t) : (size_t)types[type].bytes;
	if (n > left(r) / least)
		return wf_fail(r->err, "gguf: array of %llu %s values, but the file ends after %zu bytes",
			(unsigned long long)n, types[type].name, left(r));
	*out = (struct gguf_array){.type = type, .n = (size_t)n};
	if (type == GGUF_STRING)
		return read_strings(r, out->n, out);
	out->data = next(r, out->n * least, "an array");
	return out->data && type == GGUF_BOOL ? check_bools(r, out->data, out->n) : out->data ? 0 : -1;
}

static int read_value(struct reader *r, struct value *v)
{
	uint32_t type;

	if (read_u32(r, &type, "a value's type") < 0)
		return -1;
	if (type >= GGUF_NTYPE)
		return wf_fail(r->err, "gguf: value of unknown type %u", type);
	v->type = type;
	if (type == GGUF_ARRAY)
		return read_array(r, &v->array);
	if (type == GGUF_STRING) {
		if (read_string(r, MAXSTRING, &v->str, "a string") < 0)
			return -1;
		if (!names_utf8(v->str.s, v->str.len))
			return wf_fail(r->err, "gguf: a string is not UTF-8");
		return 0;
	}
	if (!(v->data = next(r, (size_t)types[type].bytes, "a value")))
		return -1;
	return type == GGUF_BOOL ? check_bools(r, v->data, 1) : 0;
}

/* Which pair a message is about. */
static int in_key(struct reader *r, struct gguf_str key)
{
	char show[NAMES_SHOW];
	size_t len = strlen(r->err->text);

	snprintf(r->err->text + len, sizeof r->err->text - len, " (key %s)",
		names_show(show, key.s, key.len));
	return -1;
}

static int read_pair(struct reader *r, gguf *g)
{
	struct gguf_str key;
	char show[NAMES_SHOW];

	if (read_string(r, MAXKEY, &key, "a key") < 0)
		return -1;
	if (!names_plain(key.s, key.len))
		return wf_fail(r->err, "gguf: a key is empty, not UTF-8 or has control characters: \"%s\"",
			names_show(show, key.s, key.len));
	int64_t i = names_add(&g->keys, key.s, key.len);
	if (i < 0)
		return wf_fail(r->err, "gguf: key %s appears twice", names_show(show, key.s, key.len));
	return read_value(r, &g->value[i]) < 0 ? in_key(r, key) : 0;
}

/* ---- tensors ---- */

static int find_type(uint32_t type, struct wf_blob *b, int *block, int *bytes)
{
	int dtype = wf_dtype_from_gguf(type);

	if (dtype >= 0) {
		b->dtype = (wf_dtype)dtype;
		*block = wf_dtypes[dtype].block;
		*bytes = wf_dtypes[dtype].bytes;
		return 0;
	}
	b->dtype = WF_NDTYPE;
	for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
		if (foreign[i].type == type) {
			b->type = foreign[i].name;
			*block = foreign[i].block;
			*bytes = foreign[i].bytes;
			return 0;
		}
	return -1;
}

/* The file has the innermost dimension first. */
static int read_dims(struct reader *r, struct wf_blob *b, const char *name, int64_t *nelem)
{
	uint32_t ndim;

	if (read_u32(r, &ndim, "a tensor's dimensions") < 0)
		return -1;
	if (ndim > WF_MAXDIM)
		return wf_fail(r->err, "gguf: tensor %s has %u dimensions, expected at most %d", name, ndim,
			WF_MAXDIM);
	*nelem = 1;
	b->ndim = (int)ndim;
	for (int i = b->ndim - 1; i >= 0; i--) {
		uint64_t dim;
		if (read_u64(r, &dim, "a tensor's dimensions") < 0)
			return -1;
		if (dim > INT64_MAX || __builtin_mul_overflow(*nelem, (int64_t)dim, nelem))
			return wf_fail(r->err, "gguf: tensor %s: the product of its dimensions overflows", name);
		b->dim[i] = (int64_t)dim;
	}
	return 0;
}

static int read_layout(struct reader *r, struct wf_blob *b, const char *name, uint64_t *offset)
{
	uint32_t type;
	int64_t nelem = 0;
	int block, bytes;

	if (read_dims(r, b, name, &nelem) < 0 || read_u32(r, &type, "a tensor's type") < 0 ||
	    read_u64(r, offset, "a tensor's offset") < 0)
		return -1;
	if (find_type(type, b, &block, &bytes) < 0)
		return wf_fail(r->err, "gguf: tensor %s has unknown type %u", name, type);
	int64_t row = b->ndim ? b->dim[b->ndim - 1] : 1;
	if (row % block)
		return wf_fail(r->err, "gguf: tensor %s: rows of %lld values, expected a multiple of %d (%s)",
			name, (long long)row, block, b->type ? b->type : wf_dtypes[b->dtype].name);
	if (__builtin_mul_overflow((size_t)(nelem / block), (size_t)bytes, &b->bytes))
		return wf_fail(r->err, "gguf: tensor %s: its size overflows", name);
	return 0;
}

static int read_tensor(struct reader *r, gguf *g)
{
	struct gguf_str name;
	char show[NAMES_SHOW];

	if (read_string(r, MAXNAME, &name, "a tensor's name") < 0)
		return -1;
	names_show(show, name.s, name.len);
	if (!names_plain(name.s, name.len))
		return wf_fail(r->err, "gguf: a tensor's name is empty, not UTF-8 or has control characters: "
			"\"%s\"", show);
	char *copy = wf_alloc(r->arena, name.len + 1);
	if (!copy)
		return no_memory(r);
	int64_t i = names_add(&g->tensors, memcpy(copy, name.s, name.len), name.len);
	if (i < 0)
		return wf_fail(r->err, "gguf: tensor %s appears twice", show);
	return read_layout(r, &g->blob[i], show, &g->offset[i]);
}

/* Tensors lie one after another, each padded: a file with holes or overlaps is not one we want. */
static int place(struct reader *r, gguf *g, uint64_t align)
{
	size_t start = (r->at + align - 1) / align * align;   /* no overflow: at <= PTRDIFF_MAX */
	uint64_t want = 0;

	if (g->tensors.n && start > r->bytes)
		return wf_fail(r->err, "gguf: the file ends before its tensors: %zu bytes, expected data at %zu",
			r->bytes, start);
	for (size_t i = 0; i < g->tensors.n; i++) {
		struct wf_blob *b = &g->blob[i];
		const char *name = g->tensors.name[i].s;
		uint64_t room = r->bytes - start;
		if (g->offset[i] != want)
			return wf_fail(r->err, "gguf: tensor %s at offset %llu, expected %llu (one after another, "
				"padded to %llu)", name, (unsigned long long)g->offset[i],
				(unsigned long long)want, (unsigned long long)align);
		if (want > room || b->bytes > room - want)
			return wf_fail(r->err, "gguf: tensor %s ends past the file: %zu bytes at offset %llu, "
				"%llu bytes of data", name, b->bytes, (unsigned long long)want,
				(unsigned long long)room);
		b->data = r->data + start + want;
		want = (want + b->bytes + align - 1) / align * align;
	}
	return 0;
}

/* ---- the file ---- */

static int check_version(wf_error *err, uint32_t version)
{
	if (version == 2 || version == 3)
		return 0;
	if (version == 1)
		return wf_fail(err, "gguf: version 1, expected 2 or 3: convert the model again");
	if (version >> 24 && !(version & 0xffff))
		return wf_fail(err, "gguf: a big-endian file, expected little-endian");
	return wf_fail(err, "gguf: version %u, expected 2 or 3", version);
}

static int read_header(struct reader *r, uint64_t *ntensor, uint64_t *nkv)
{
	const uint8_t *magic = next(r, 4, "its first bytes");
	uint32_t version;
	char show[NAMES_SHOW];

	if (!magic)
		return -1;
	if (memcmp(magic, "GGUF", 4))
		return wf_fail(r->err, "gguf: expected the file to begin with GGUF, found \"%s\"",
			names_show(show, (const char *)magic, 4));
	if (read_u32(r, &version, "its version") < 0 || check_version(r->err, version) < 0 ||
	    read_u64(r, ntensor, "its counts") < 0 || read_u64(r, nkv, "its counts") < 0)
		return -1;
	if (*nkv > MAXKV || *nkv > left(r) / KV_BYTES)
		return wf_fail(r->err, "gguf: %llu keys, expected at most %d and room for them in %zu bytes",
			(unsigned long long)*nkv, MAXKV, left(r));
	if (*ntensor > MAXTENSOR || *ntensor > left(r) / TENSOR_BYTES)
		return wf_fail(r->err, "gguf: %llu tensors, expected at most %d and room for them in %zu bytes",
			(unsigned long long)*ntensor, MAXTENSOR, left(r));
	return 0;
}

static const struct value *find(const gguf *, const char *key);

static int alignment(struct reader *r, const gguf *g, uint64_t *align)
{
	const struct value *v = find(g, "general.alignment");
	uint32_t a = ALIGN;

	if (v && v->type != GGUF_U32)
		return wf_fail(r->err, "gguf: general.alignment is of type %s, expected u32", types[v->type].name);
	if (v)
		memcpy(&a, v->data, sizeof a);
	if (a < MINALIGN || a > MAXALIGN || (a & (a - 1)))
		return wf_fail(r->err, "gguf: general.alignment is %u, expected a power of two from %d to %d", a,
			MINALIGN, MAXALIGN);
	*align = a;
	return 0;
}

static int parse(struct reader *r, gguf *g)
{
	uint64_t ntensor = 0, nkv = 0, align = ALIGN;

	if (read_header(r, &ntensor, &nkv) < 0)
		return -1;
	g->value = wf_alloc_n(r->arena, nkv, sizeof *g->value);
	g->blob = wf_alloc_n(r->arena, ntensor, sizeof *g->blob);
	g->offset = wf_alloc_n(r->arena, ntensor, sizeof *g->offset);
	if (!g->value || !g->blob || !g->offset || names_new(r->arena, &g->keys, nkv) < 0 ||
	    names_new(r->arena, &g->tensors, ntensor) < 0)
		return no_memory(r);
	for (uint64_t i = 0; i < nkv; i++)
		if (read_pair(r, g) < 0)
			return -1;
	for (uint64_t i = 0; i < ntensor; i++)
		if (read_tensor(r, g) < 0)
			return -1;
	return alignment(r, g, &align) < 0 ? -1 : place(r, g, align);
}

gguf *gguf_parse(wf_arena *arena, wf_error *err, const uint8_t *data, size_t bytes)
{
	struct reader r = {arena, err, data, bytes, 0};
	gguf *g = wf_alloc(arena, sizeof *g);

	if (!g) {
		no_memory(&r);
		return NULL;
	}
	return parse(&r, g) < 0 ? NULL : g;
}

/* ---- accessors ---- */

static const struct value *find(const gguf *g, const char *key)
{
	int64_t i = names_find(&g->keys, key, strlen(key));

	return i < 0 ? NULL : &g->value[i];
}

bool gguf_has(const gguf *g, const char *key)
{
	return find(g, key) != NULL;
}

static bool wrong_type(wf_error *err, const char *key, const char *want, enum gguf_type found)
{
	wf_fail(err, "gguf: %s is of type %s, expected %s", key, types[found].name, want);
	return false;
}

/* Any integer as int64; -1 when it is none or does not fit. */
static int integer(enum gguf_type type, const uint8_t *p, int64_t *out)
{
	union { uint8_t u8; int8_t i8; uint16_t u16; int16_t i16; uint32_t u32; int32_t i32; uint64_t u64; } v;

	memcpy(&v, p, (size_t)types[type].bytes);
	switch (type) {
	case GGUF_U8:  *out = v.u8;  return 0;
	case GGUF_I8:  *out = v.i8;  return 0;
	case GGUF_U16: *out = v.u16; return 0;
	case GGUF_I16: *out = v.i16; return 0;
	case GGUF_U32: *out = v.u32; return 0;
	case GGUF_I32: *out = v.i32; return 0;
	case GGUF_I64: *out = (int64_t)v.u64; return 0;
	case GGUF_U64: *out = (int64_t)v.u64; return v.u64 > INT64_MAX ? -1 : 0;
	default: return -1;
	}
}

bool gguf_int(const gguf *g, wf_error *err, const char *key, int64_t *out)
{
	const struct value *v = find(g, key);
	int64_t n;

	if (!v)
		return false;
	if (!v->data || integer(v->type, v->data, &n) < 0)
		return wrong_type(err, key, "an integer below 2^63", v->type);
	*out = n;
	return true;
}

bool gguf_float(const gguf *g, wf_error *err, const char *key, double *out)
{
	const struct value *v = find(g, key);
	int64_t n;
	float f;

	if (!v)
		return false;
	if (v->type == GGUF_F32) {
		memcpy(&f, v->data, sizeof f);
		*out = f;
	} else if (v->type == GGUF_F64) {
		memcpy(out, v->data, sizeof *out);
	} else if (v->data && integer(v->type, v->data, &n) == 0) {
		*out = (double)n;
	} else {
		return wrong_type(err, key, "a number", v->type);
	}
	return true;
}

bool gguf_bool(const gguf *g, wf_error *err, const char *key, bool *out)
{
	const struct value *v = find(g, key);

	if (!v)
		return false;
	if (v->type != GGUF_BOOL)
		return wrong_type(err, key, "bool", v->type);
	*out = v->data[0];
	return true;
}

bool gguf_string(const gguf *g, wf_error *err, const char *key, struct gguf_str *out)
{
	const struct value *v = find(g, key);

	if (!v)
		return false;
	if (v->type != GGUF_STRING)
		return wrong_type(err, key, "string", v->type);
	*out = v->str;
	return true;
}

bool gguf_array(const gguf *g, wf_error *err, const char *key, enum gguf_type type, struct gguf_array *out)
{
	const struct value *v = find(g, key);

	if (!v)
		return false;
	if (v->type != GGUF_ARRAY)
		return wrong_type(err, key, "array", v->type);
	if (type != GGUF_NTYPE && v->array.type != type) {
		wf_fail(err, "gguf: %s is an array of %s, expected of %s", key, types[v->array.type].name,
			types[type].name);
		return false;
	}
	*out = v->array;
	return true;
}

int gguf_array_int(const struct gguf_array *array, size_t i, int64_t *out)
{
	assert(i < array->n);
	if (!array->data)
		return -1;
	return integer(array->type, array->data + i * (size_t)types[array->type].bytes, out);
}

size_t gguf_ntensor(const gguf *g)
{
	return g->tensors.n;
}

const char *gguf_tensor(const gguf *g, size_t i, struct wf_blob *out)
{
	assert(i < g->tensors.n);
	*out = g->blob[i];
	return g->tensors.name[i].s;
}

bool gguf_find(const gguf *g, const char *name, struct wf_blob *out)
{
	int64_t i = names_find(&g->tensors, name, strlen(name));

	if (i < 0)
		return false;
	*out = g->blob[i];
	return true;
}
