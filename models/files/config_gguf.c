/* config_gguf.c - hyper-parameters from GGUF metadata.
 *
 * Keys follow the value of general.architecture: "llama.embedding_length".  A fact that may differ by
 * layer is an array; it counts here when all layers agree. */
#include "models/model.h"

#include <string.h>

enum { MAXARCH = 64 };

struct from {
	const gguf *file;
	char prefix[MAXARCH + 2];        /* "llama." */
};

static void full_key(const struct from *f, const char *key, char *out, size_t cap)
{
	snprintf(out, cap, "%s%s", f->prefix, key);
}

/* 1: the array's one value; 0: an array of booleans, which config_from_gguf() reads itself. */
static int uniform(const struct config_source *s, const char *key, const struct gguf_array *array, double *out)
{
	int64_t first, v;

	if (array->type == GGUF_BOOL)
		return 0;
	if (array->n == 0 || gguf_array_int(array, 0, &first) < 0)
		return wf_fail(s->err, "gguf: %s is an empty array or not of integers", key);
	for (size_t i = 1; i < array->n; i++)
		if (gguf_array_int(array, i, &v) < 0 || v != first)
			return wf_fail(s->err, "gguf: %s differs from layer to layer, which is not supported", key);
	*out = (double)first;
	return 1;
}

static int get(const struct config_source *s, const char *key, char *type, double *out)
{
	const struct from *f = s->from;
	wf_error probe = {0};
	struct gguf_array array;
	char full[256];
	bool truth;

	full_key(f, key, full, sizeof full);
	if (!gguf_has(f->file, full))
		return 0;
	*type = 'n';
	if (gguf_array(f->file, &probe, full, GGUF_NTYPE, &array))
		return uniform(s, full, &array, out);
	probe.set = false;
	if (gguf_bool(f->file, &probe, full, &truth)) {
		*type = 'b';
		*out = truth;
		return 1;
	}
	return gguf_float(f->file, s->err, full, out) ? 1 : -1;
}

static bool is(struct gguf_str s, const char *word)
{
	return s.len == strlen(word) && !memcmp(s.s, word, s.len);
}

static int read_scaling(const struct from *f, wf_error *err, wf_config *c)
{
	static const struct { const char *name; enum wf_rope_scaling type; } types[] = {
		{"none", WF_ROPE_PLAIN}, {"linear", WF_ROPE_LINEAR}, {"yarn", WF_ROPE_YARN},
		{"longrope", WF_ROPE_LONG},
	};
	struct gguf_str type;
	char key[256], show[NAMES_SHOW];

	full_key(f, "rope.scaling.type", key, sizeof key);
	if (!gguf_string(f->file, err, key, &type)) {
		struct wf_blob factors;
		c->scaling = gguf_find(f->file, "rope_factors_long.weight", &factors) ? WF_ROPE_LONG : c->rope_factor > 0 && c->rope_factor != 1 ? WF_ROPE_LINEAR : WF_ROPE_PLAIN;
		return err->set ? -1 : 0;
	}
	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		if (is(type, types[i].name)) {
			c->scaling = types[i].type;
			return 0;
		}
	return wf_fail(err, "gguf: %s is \"%s\", expected none, linear, yarn or longrope", key,
		names_show(show, type.s, type.len));
}

static int read_sliding(const struct from *f, wf_arena *arena, wf_error *err, wf_config *c)
{
	struct gguf_array array;
	wf_error none = {0};
	char key[256];

	full_key(f, "attention.sliding_window_pattern", key, sizeof key);
	if (!gguf_array(f->file, &none, key, GGUF_BOOL, &array))
		return 0;
	if (array.n != (size_t)c->nlayer)
		return wf_fail(err, "gguf: %s has %zu entries, expected one for each of %lld layers", key, array.n,
			(long long)c->nlayer);
	uint8_t *sliding = wf_alloc(arena, array.n);
	if (!sliding)
		return wf_fail(err, "gguf: out of memory");
	c->sliding = memcpy(sliding, array.data, array.n);
	return 0;
}

/* What config.json leaves out is its class's default; GGUF leaves out what the width and heads say. */
static void head_size(const struct from *f, wf_config *c)
{
	char key[256];

	full_key(f, "attention.key_length", key, sizeof key);
	if (!gguf_has(f->file, key))
		c->hdim = 0;
}

static int read_vocab(const gguf *file, wf_error *err, wf_config *c)
{
	struct gguf_array tokens;

	if (!c->vocab && gguf_array(file, err, "tokenizer.ggml.tokens", GGUF_STRING, &tokens))
		c->vocab = (int64_t)tokens.n;
	return err->set ? -1 : 0;
}

static int read_token(const gguf *file, wf_error *err, const wf_config *c, const char *key, int32_t *out)
{
	int64_t id;

	*out = -1;
	if (!gguf_int(file, err, key, &id))
		return err->set ? -1 : 0;
	if (id < -1 || id >= c->vocab)
		return wf_fail(err, "gguf: %s is %lld, expected below the vocabulary's %lld", key, (long long)id,
			(long long)c->vocab);
	*out = (int32_t)id;
	return 0;
}

static int read_tokens(const gguf *file, wf_error *err, wf_config *c)
{
	static const char *const ends[] = {"eos", "eot", "eom"};
	char key[64];
	int32_t id;

	for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
		snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", ends[i]);
		if (read_token(file, err, c, key, &id) < 0 || config_eos(c, err, key, id) < 0)
			return -1;
	}
	if (read_token(file, err, c, "tokenizer.ggml.padding_token_id", &c->pad) < 0)
		return -1;
	return read_token(file, err, c, "tokenizer.ggml.bos_token_id", &c->bos);
}

static int read_names(struct from *f, wf_arena *arena, wf_error *err, wf_config *c)
{
	struct gguf_str s;

	if (!gguf_string(f->file, err, "general.architecture", &s))
		return wf_fail(err, "gguf: general.architecture is missing");
	if (s.len > MAXARCH || !names_plain(s.s, s.len))
		return wf_fail(err, "gguf: general.architecture is not a name of at most %d bytes", MAXARCH);
	snprintf(f->prefix, sizeof f->prefix, "%.*s.", (int)s.len, s.s);
	if (gguf_string(f->file, err, "general.name", &s) && s.len < 4096 && names_plain(s.s, s.len))
		if (!(c->name = wf_format(arena, "%.*s", (int)s.len, s.s)))
			return wf_fail(err, "gguf: out of memory");
	return err->set ? -1 : 0;
}

int config_from_gguf(wf_arena *arena, wf_error *err, const gguf *file, const wf_arch *arch, wf_config *c)
{
	struct from from = {.file = file};
	struct config_source source = {err, "gguf", from.prefix, &from, get};

	*c = (wf_config){.gguf = true, .bos = -1, .pad = -1, .dtype = WF_F16, .act = arch->act};
	if (read_names(&from, arena, err, c) < 0 || config_rows(&source, arch, c) < 0 ||
	    read_scaling(&from, err, c) < 0 || read_sliding(&from, arena, err, c) < 0 ||
	    read_vocab(file, err, c) < 0 || read_tokens(file, err, c) < 0)
		return -1;
	head_size(&from, c);
	return config_finish(arena, err, arch, c);
}
