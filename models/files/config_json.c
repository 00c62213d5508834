/* config_json.c - hyper-parameters from config.json, as transformers 4 and 5 write it.
 *
 * Version 5 gathers what concerns rope in rope_parameters, which may hold one object per layer type;
 * version 4 has rope_theta beside rope_scaling.  null is absent.  Models with a text part inside
 * (text_config) are read from there first.  Numbers are taken as doubles: exact up to 2^53, far above
 * every range. */
#include "models/model.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

struct from {
	const json_t *top, *text;         /* text: the text_config object, or NULL */
	const json_t *rope[2];            /* where "rope." looks, NULLs last */
};

/* ---- lookup ---- */

static const json_t *member_or_null(const json_t *object, const char *path)
{
	char word[80];

	while (object && *path) {
		size_t len = strcspn(path, ".");
		snprintf(word, sizeof word, "%.*s", (int)len, path);
		object = json_object_get(object, word);
		path += len + (path[len] == '.');
	}
	return object;
}

static const json_t *member(const json_t *object, const char *path)
{
	const json_t *v = member_or_null(object, path);

	return json_is_null(v) ? NULL : v;
}

static const json_t *lookup(const struct from *f, const char *path)
{
	const json_t *v = NULL;

	if (!strncmp(path, "rope.", 5)) {
		for (int i = 0; i < 2 && !v; i++)
			v = member(f->rope[i], path + 5);
		return v;
	}
	if (f->text)
		v = member(f->text, path);
	return v ? v : member(f->top, path);
}

static bool is_null(const struct from *f, const char *path)
{
	bool rope = !strncmp(path, "rope.", 5);
	const json_t *a = rope ? f->rope[0] : f->text, *b = rope ? f->rope[1] : f->top;

	path += rope ? 5 : 0;
	return json_is_null(member_or_null(a, path)) || json_is_null(member_or_null(b, path));
}

static const char *word(const struct from *f, const char *path)
{
	return json_string_value(lookup(f, path));
}

static bool is_object_or_none(const struct from *f, const char *key)
{
	const json_t *v = lookup(f, key);

	return !v || json_is_object(v);
}

static struct from open_doc(const json_t *top)
{
	struct from f = {.top = top, .text = json_object_get(top, "text_config")};
	const json_t *rope, *full;

	if (!json_is_object(f.text))
		f.text = NULL;
	rope = lookup(&f, "rope_parameters");
	full = member(rope, "full_attention");
	f.rope[0] = full ? full : rope;
	f.rope[1] = lookup(&f, "rope_scaling");
	if (!f.rope[0]) {
		f.rope[0] = f.rope[1];
		f.rope[1] = NULL;
	}
	return f;
}

static int get(const struct config_source *s, const char *key, char *type, double *out)
{
	const json_t *v = lookup(s->from, key);

	*type = '0';
	if (!v)
		return is_null(s->from, key);
	*type = json_is_boolean(v) ? 'b' : 'n';
	*out = json_is_boolean(v) ? json_is_true(v) : json_number_value(v);
	if (!json_is_boolean(v) && !json_is_number(v))
		return wf_fail(s->err, "%s: %s is neither a number nor a boolean", s->file, key);
	return 1;
}

/* ---- words ---- */

struct choice { const char *word; int value; };

static int choose(wf_error *err, const char *key, const char *found, const struct choice *c, int *out)
{
	char show[NAMES_SHOW];

	for (; c->word; c++)
		if (!strcmp(c->word, found)) {
			*out = c->value;
			return 0;
		}
	return wf_fail(err, "config.json: %s \"%s\" is not supported", key,
		names_show(show, found, strlen(found)));
}

static int read_activation(const struct from *f, wf_error *err, wf_config *c)
{
	static const struct choice table[] = {
		{"silu", WF_SILU}, {"swish", WF_SILU}, {"gelu", WF_GELU}, {"gelu_python", WF_GELU},
		{"gelu_new", WF_GELU_TANH}, {"gelu_fast", WF_GELU_TANH}, {"gelu_accurate", WF_GELU_TANH},
		{"gelu_pytorch_tanh", WF_GELU_TANH}, {"gelu_python_tanh", WF_GELU_TANH}, {"gelu_10", WF_GELU_10},
		{"quick_gelu", WF_QUICK_GELU}, {"relu", WF_RELU}, {"relu2", WF_RELU2}, {"relu6", WF_RELU6},
		{"leaky_relu", WF_LEAKY_RELU}, {"hardswish", WF_HARD_SWISH}, {"sigmoid", WF_SIGMOID},
		{"tanh", WF_TANH}, {"linear", WF_LINEAR}, {0}
	};
	static const char *const keys[] = {"hidden_activation", "hidden_act", "activation_function", "activation"};

	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		if (word(f, keys[i]))
			return choose(err, keys[i], word(f, keys[i]), table, &c->act);
	return 0;
}

static int read_dtype(const struct from *f, wf_error *err, wf_config *c)
{
	static const struct choice table[] = {
		{"float32", WF_F32}, {"float16", WF_F16}, {"bfloat16", WF_BF16}, {"float", WF_F32},
		{"half", WF_F16}, {"auto", WF_BF16}, {0}
	};
	const char *name = word(f, "dtype");
	int dtype = WF_BF16;

	if (!name)
		name = word(f, "torch_dtype");
	if (name && choose(err, "dtype", strncmp(name, "torch.", 6) ? name : name + 6, table, &dtype) < 0)
		return -1;
	c->dtype = (wf_dtype)dtype;
	return 0;
}

/* ---- rope ---- */

static int read_factors(const struct from *f, wf_arena *arena, wf_error *err, const char *path, const double **out)
{
	const json_t *array = lookup(f, path);
	size_t n = json_array_size(array);

	if (!json_is_array(array) || n < 1 || n > 4096)
		return wf_fail(err, "config.json: expected %s to be a list of numbers", path);
	double *factor = wf_alloc_n(arena, n, sizeof *factor);
	if (!factor)
		return wf_fail(err, "config.json: out of memory");
	for (size_t i = 0; i < n; i++) {
		factor[i] = json_number_value(json_array_get(array, i));
		if (!(factor[i] > 0 && factor[i] <= 1e9))
			return wf_fail(err, "config.json: %s[%zu] is no number from 0 to 1e9", path, i);
	}
	*out = factor;
	return 0;
}

/* One factor for each pair of rotated values: known once those are. */
static int check_factors(const struct from *f, const wf_config *c, wf_error *err)
{
	static const char *const path[] = {"rope.long_factor", "rope.short_factor"};

	for (int i = 0; c->rope_long && i < 2; i++)
		if (json_array_size(lookup(f, path[i])) != (size_t)c->rope_dim / 2)
			return wf_fail(err, "config.json: %s has %zu entries, expected %lld", path[i],
				json_array_size(lookup(f, path[i])), (long long)c->rope_dim / 2);
	return 0;
}

/* Layers with a window may turn in a way of their own, of which there are fewer. */
static int read_local_rope(const struct from *f, wf_error *err, wf_config *c)
{
	static const struct choice table[] = {{"default", 0}, {"linear", 1}, {0}};
	const char *type = word(f, "rope_parameters.sliding_attention.rope_type");
	int linear = 0;

	if (type && choose(err, "rope_type of sliding_attention", type, table, &linear) < 0)
		return -1;
	if (!linear)
		c->rope_local_factor = 0;
	return 0;
}

static int read_rope(const struct from *f, wf_arena *arena, wf_error *err, wf_config *c)
{
	static const struct choice table[] = {
		{"default", WF_ROPE_PLAIN}, {"dynamic", WF_ROPE_DYNAMIC}, {"linear", WF_ROPE_LINEAR},
		{"llama3", WF_ROPE_LLAMA3}, {"yarn", WF_ROPE_YARN}, {"longrope", WF_ROPE_LONG},
		{"su", WF_ROPE_LONG}, {0}
	};
	const char *type = word(f, "rope.rope_type");
	int scaling = WF_ROPE_PLAIN;

	if (read_local_rope(f, err, c) < 0)
		return -1;
	if (!type)
		type = word(f, "rope.type");
	if (type && choose(err, "rope_type", type, table, &scaling) < 0)
		return -1;
	if (!type && c->rope_factor > 0)
		return wf_fail(err, "config.json: rope_scaling has a factor but no rope_type");
	c->scaling = (enum wf_rope_scaling)scaling;
	if (scaling != WF_ROPE_LONG)
		return 0;
	if (read_factors(f, arena, err, "rope.long_factor", &c->rope_long) < 0)
		return -1;
	return read_factors(f, arena, err, "rope.short_factor", &c->rope_short);
}

/* ---- sliding windows ---- */

static int read_layer_types(const json_t *types, uint8_t *sliding, wf_config *c, wf_error *err)
{
	static const struct choice table[] = {{"full_attention", 0}, {"sliding_attention", 1}, {0}};
	int64_t nsliding = 0;

	if (json_array_size(types) != (size_t)c->nlayer)
		return wf_fail(err, "config.json: layer_types has %zu entries, expected one for each of %lld layers",
			json_array_size(types), (long long)c->nlayer);
	for (int64_t l = 0; l < c->nlayer; l++) {
		const char *name = json_string_value(json_array_get(types, (size_t)l));
		int type = 0;
		if (choose(err, "layer_types", name ? name : "", table, &type) < 0)
			return -1;
		sliding[l] = (uint8_t)type;
		nsliding += type;
	}
	if (nsliding == 0)
		c->window = 0;
	else if (c->window == 0)
		return wf_fail(err, "config.json: layer_types has sliding_attention, but there is no sliding_window");
	return 0;
}

/* Families with max_window_layers (qwen2) have a window only where use_sliding_window is true. */
static int read_sliding(const struct from *f, wf_arena *arena, wf_error *err, wf_config *c)
{
	const json_t *types = lookup(f, "layer_types"), *first = lookup(f, "max_window_layers");
	const json_t *use = lookup(f, "use_sliding_window");

	if (json_is_false(use) || (first && !json_is_true(use))) {
		c->window = 0;
		return 0;
	}
	if (!types && !first)
		return 0;
	uint8_t *sliding = wf_alloc(arena, (size_t)c->nlayer);
	if (!sliding)
		return wf_fail(err, "config.json: out of memory");
	c->sliding = sliding;
	if (types)
		return read_layer_types(types, sliding, c, err);
	if (!json_is_number(first))
		return wf_fail(err, "config.json: max_window_layers is no integer");
	for (int64_t l = 0; l < c->nlayer; l++)
		sliding[l] = (double)l >= json_number_value(first);
	return 0;
}

/* ---- experts ---- */

/* Groups that DeepSeek-V2's plain choice ignores; Qwen's layers without experts: all but every
 * decoder_sparse_step-th, and those of mlp_only_layers. */
static int read_experts(const struct from *f, wf_arena *arena, wf_error *err, wf_config *c)
{
	const json_t *only = lookup(f, "mlp_only_layers"), *step = lookup(f, "decoder_sparse_step");
	int64_t each = step ? (int64_t)json_integer_value(step) : 1;
	const char *method = word(f, "topk_method");

	if (method && !strcmp(method, "greedy"))
		c->nexpert_group = c->ngroup_used = 0;
	if (each < 1 || (only && !json_is_array(only)))
		return wf_fail(err, "config.json: %s", each < 1 ? "decoder_sparse_step is no integer above 0" :
			"mlp_only_layers is no list");
	if (!c->nexpert || (each == 1 && !json_array_size(only)))
		return 0;
	uint8_t *dense = wf_alloc(arena, (size_t)c->nlayer);
	if (!dense)
		return wf_fail(err, "config.json: out of memory");
	for (int64_t l = 0; l < c->nlayer; l++)
		dense[l] = (l + 1) % each != 0;
	for (size_t i = 0; i < json_array_size(only); i++) {
		const json_t *l = json_array_get(only, i);
		if (!json_is_integer(l))
			return wf_fail(err, "config.json: mlp_only_layers[%zu] is no integer", i);
		if (json_integer_value(l) >= 0 && json_integer_value(l) < c->nlayer)
			dense[json_integer_value(l)] = 1;
	}
	c->dense = dense;
	return 0;
}

/* ---- tokens ---- */

static int read_token(const struct from *f, wf_error *err, const char *key, int32_t *out)
{
	const json_t *v = lookup(f, key);
	double id = json_number_value(v);

	*out = -1;
	if (!v)
		return 0;
	if (!json_is_number(v) || !(id >= -1 && id <= INT32_MAX) || id != floor(id))
		return wf_fail(err, "config.json: %s is not a token id", key);
	*out = (int32_t)id;
	return 0;
}

static int read_eos(const json_t *eos, wf_error *err, const char *file, wf_config *c)
{
	size_t n = json_is_array(eos) ? json_array_size(eos) : 1;

	for (size_t i = 0; eos && i < n; i++) {
		const json_t *id = json_is_array(eos) ? json_array_get(eos, i) : eos;
		if (!json_is_number(id))
			return wf_fail(err, "%s: eos_token_id is no integer or list of integers", file);
		if (config_eos(c, err, file, json_number_value(id)) < 0)
			return -1;
	}
	return 0;
}

int config_generation(wf_config *c, wf_error *err, const char *json, size_t bytes)
{
	static const char file[] = "generation_config.json";
	json_t *doc = json_read(err, file, json, bytes);

	if (!doc)
		return -1;
	int rc = read_eos(member(doc, "eos_token_id"), err, file, c);
	json_decref(doc);
	return rc;
}

/* ---- the document ---- */

static const wf_arch *find_arch(const struct from *f, wf_error *err)
{
	const char *type = json_string_value(member(f->top, "model_type"));
	const char *inner = json_string_value(member(f->text, "model_type"));
	const wf_arch *arch = type ? wf_arch_find(type) : NULL;

	if (!arch && inner)
		arch = wf_arch_find(inner);
	if (!arch && !type && !inner)
		wf_fail(err, "config.json: model_type is missing");
	else if (!arch)
		arch_unknown(err, "config.json: model_type", type ? type : inner);
	return arch;
}

static int check_quantised(const struct from *f, wf_error *err)
{
	const json_t *q = lookup(f, "quantization_config");
	const char *method = json_string_value(member(q, "quant_method"));
	char show[NAMES_SHOW];

	if (!q)
		return 0;
	return wf_fail(err, "config.json: weights quantised by %s are not supported: take the model's GGUF or "
		"16-bit files", method ? names_show(show, method, strlen(method)) : "an unnamed method");
}

static int read_name(const struct from *f, wf_arena *arena, wf_error *err, wf_config *c)
{
	const char *name = json_string_value(member(f->top, "_name_or_path"));

	if (name && names_plain(name, strlen(name)) && !(c->name = wf_strdup(arena, name)))
		return wf_fail(err, "config.json: out of memory");
	return 0;
}

static int read_doc(wf_arena *arena, wf_error *err, const struct from *f, const wf_arch *arch, wf_config *c)
{
	struct config_source source = {err, "config.json", "", f, get};

	c->act = arch->act;
	c->untied = json_is_false(lookup(f, "tie_word_embeddings"));
	if (check_quantised(f, err) < 0 || config_rows(&source, arch, c) < 0 || read_name(f, arena, err, c) < 0)
		return -1;
	if (read_activation(f, err, c) < 0 || read_dtype(f, err, c) < 0 || read_rope(f, arena, err, c) < 0 ||
	    read_sliding(f, arena, err, c) < 0 || read_experts(f, arena, err, c) < 0)
		return -1;
	if (read_token(f, err, "bos_token_id", &c->bos) < 0 || read_token(f, err, "pad_token_id", &c->pad) < 0 ||
	    read_eos(lookup(f, "eos_token_id"), err, "config.json", c) < 0)
		return -1;
	return config_finish(arena, err, arch, c) < 0 ? -1 : check_factors(f, c, err);
}

int config_from_json(wf_arena *arena, wf_error *err, const char *json, size_t bytes, const wf_arch *only,
		wf_config *c, const wf_arch **arch)
{
	json_t *doc = json_read(err, "config.json", json, bytes);
	int rc = -1;

	*c = (wf_config){.bos = -1, .pad = -1};
	if (!doc)
		return -1;
	struct from f = open_doc(doc);
	if (!json_is_object(doc))
		wf_fail(err, "config.json: expected an object");
	else if (!is_object_or_none(&f, "rope_scaling") || !is_object_or_none(&f, "rope_parameters"))
		wf_fail(err, "config.json: rope_scaling and rope_parameters: expected an object or null");
	else if ((*arch = only ? only : find_arch(&f, err)))
		rc = read_doc(arena, err, &f, *arch, c);
	json_decref(doc);
	return rc;
}
